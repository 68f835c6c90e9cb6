"""Single flows as lines, and as commands that repeat them."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from flowtally.report.flows_text import NARROWEST
from flowtally.report.flows_text import _style
from flowtally.report.flows_text import curl
from flowtally.report.flows_text import line
from flowtally.report.flows_text import result
from flowtally.vocabulary import STATUS_TAGS
from flowtally.vocabulary import error_fields
from hypothesis import given
from hypothesis import strategies as st

Record = dict[str, Any]


def record(**fields: Any) -> Record:
    return {
        "type": "flow",
        "time": "2026-01-31T11:00:00.000Z",
        "kind": "http",
        "method": "GET",
        "url": "http://shop.example/items",
        "duration_ms": 12.3,
        **STATUS_TAGS[200],
    } | fields


REFUSED: Record = {
    "type": "flow",
    "time": "2026-01-31T11:00:00.000Z",
    "kind": "http",
    "outcome": "error",
    "cause": "connection_refused",
    **error_fields("connection_refused"),
}


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (record(), "200 OK"),
        (record(**STATUS_TAGS[404]), "404 Not found"),
        (REFUSED, "connection_refused -2"),
        (REFUSED | {"reason": "reset", "status": 200}, "200 connection_refused (reset) -2"),
        (record(cause="grpc_error", error_code=-3), "200 grpc_error -3"),
        ({"outcome": "cancelled", "cause": "client_cancelled"}, "client_cancelled"),
        ({"outcome": "ok"}, "ok"),
    ],
    ids=str,
)
def test_what_became_of_a_flow(of: Record, said: str) -> None:
    assert result(of) == said


@pytest.mark.parametrize(
    ("of", "style"),
    [
        (record(), ""),
        (record(**STATUS_TAGS[404]), "Client error"),
        (record(**STATUS_TAGS[503]), "Server error"),
        # A problem inside a complete answer has not the colour of success.
        (record(cause="graphql_error", error_code=-3), "failure"),
        (record(cause="cors_blocked", error_code=-1), "failure"),
        (REFUSED, "failure"),
        (REFUSED | {"background": "chromium"}, "dim"),
        ({"outcome": "cancelled", "cause": "client_cancelled"}, "dim"),
        ({"outcome": "ok"}, ""),
    ],
    ids=str,
)
def test_the_colour_of_a_flow(of: Record, style: str) -> None:
    assert _style(of) == style


TEXTS = st.text(max_size=300)


@given(TEXTS, TEXTS, TEXTS, st.integers(1, 300))
def test_a_line_fits_and_does_no_harm(url: str, cause: str, detail: str, width: int) -> None:
    for fields in ({"url": url}, {"url": "", "method": "", "detail": detail}):
        said = line(record(**fields, cause=cause, description=detail), width)
        assert len(said) <= max(width, NARROWEST)
        assert said.isprintable()


def test_a_line_says_when_what_how_long_and_which() -> None:
    said = line(record(), 100)
    assert re.fullmatch(r"\d\d:\d\d:\d\d  200 OK +12 ms  GET http://shop\.example/items", said), (
        said
    )


def test_a_line_says_whose_background_traffic_it_is() -> None:
    assert line(record(background="Google"), 200).endswith(
        "  (background: Google) GET http://shop.example/items"
    )


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_line_with_its_date_leaves_the_url_as_much(width: int) -> None:
    long = record(**REFUSED, reason="reset", url=f"http://shop.example/{'x' * 200}")
    dated, plain = line(long, width, dated=True), line(long, width)
    assert re.match(r"2026-01-3[01]|2026-02-01 \d\d:\d\d:\d\d  connection_re", dated)
    assert len(dated) == len(plain) == width
    url, whole = (len(said) - said.index("GET ") for said in (dated, plain))
    assert url == (whole if width < 100 else whole - 11)


@pytest.mark.parametrize(
    ("fields", "words", "missing"),
    [
        ({}, [], "headers"),
        (
            {"method": "POST", "request_bytes": 2048},
            ["--request", "POST"],
            "headers, the body (2.0 kB)",
        ),
        ({"method": "HEAD"}, ["--head"], "headers"),
        ({"url": "http://h/?a=&b=1"}, [], "headers, values in the URL"),
        ({"url": "http://h/?a=1"}, [], "headers"),
    ],
    ids=str,
)
def test_a_command_that_repeats_it(fields: Record, words: list[str], missing: str) -> None:
    of = record(**fields)
    comment, command = curl(of)
    assert comment.endswith(f"200 OK; not in the log: {missing}")
    start = ["curl", "--globoff", "--path-as-is"]
    assert shlex.split(command) == [*start, *words, "--url", of["url"]]


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "tcp"},
        {"url": "file:///etc/passwd"},
        {"url": "-o/etc/passwd"},
        {"method": "_OTHER TOKEN"},
        {"method": ""},
    ],
    ids=str,
)
def test_what_cannot_be_repeated_is_a_comment(fields: Record) -> None:
    (comment,) = curl(record(**fields))
    assert comment.startswith("# ")


@pytest.mark.parametrize("text", ["$(id)", "`id`", "x;id", "x&id", "*(e:id:)", "<(id)"])
@pytest.mark.parametrize("field", ["url", "reason", "description"])
def test_a_comment_does_nothing_where_a_shell_has_none(text: str, field: str) -> None:
    """As zsh where people type."""
    url = f"ftp://h/{text}" if field == "url" else "http://h/"
    fields = {"url": url, field: text} | ({"cause": "x"} if field == "reason" else {})
    before, harmless, after = curl(record(**fields))[0].split("'")
    assert before == "# "
    assert text in harmless
    assert text not in after


@given(TEXTS, TEXTS)
def test_a_hostile_url_does_no_harm_in_a_shell(path: str, method: str) -> None:
    lines = curl(record(url=f"http://h/{path}", method=method))
    assert all(each.isprintable() for each in lines)
    *comments, last = lines
    assert all(comment.startswith("# ") for comment in comments)
    words = shlex.split(last, comments=True)
    assert not words or words[-2:-1] == ["--url"]
