"""The report as text, JSON, CSV and HTML, and the command line, as people and programs see them."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from flowtally.incidents import incidents
from flowtally.report import data
from flowtally.report import html
from flowtally.report import text
from flowtally.report.incidents_html import MOST
from flowtally.report.paint import coloured
from flowtally.report.paint import paint_for
from flowtally.report.paint import plain
from flowtally.rows import COUNTS
from flowtally.tally import Tally
from flowtally.vocabulary import Why
from flowtally.vocabulary import client_words
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from lab.cli import HOSTILE
from lab.cli import Record
from lab.cli import answer
from lab.cli import answered
from lab.cli import cancelled
from lab.cli import event
from lab.cli import failed
from lab.cli import final
from lab.cli import limited
from lab.cli import lines
from lab.cli import numbered
from lab.cli import on_terminal
from lab.cli import run
from lab.cli import start
from lab.cli import tally
from lab.sessions import everything

FLOWTALLY = (sys.executable, "-m", "flowtally")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times are told in the time zone of the machine."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def other(kind: str, second: int, **fields: Any) -> Record:
    """A flow that is not HTTP."""
    record = {**answered(second=second), "kind": kind, "outcome": "ok", **fields}
    return {k: v for k, v in record.items() if k not in ("status", "band", "description", "url")}


def unfinished(second: int, **fields: Any) -> Record:
    record = {**answered(second=second), "outcome": "unfinished", **fields}
    gone = ("status", "band", "description", "wait_ms", "duration_ms")
    return {name: value for name, value in record.items() if name not in gone}


SHOP = "http://shop.example"
API = "https://api.example:8443"

RECORDS = [
    start(),
    answered(200, 0, duration_ms=12.0),
    answered(200, 1),
    answered(101, 2, kind="websocket", url=f"{SHOP}/live", close_code=1000),
    answered(304, 3, response_bytes=0, duration_ms=5.0),
    answered(404, 4, url=f"{SHOP}/logo.png", duration_ms=31.0),
    answered(503, 5, url=f"{SHOP}/pay", method="POST", duration_ms=12_345.0),
    failed(second=6, host="127.0.0.1", port=9, url="http://127.0.0.1:9/", detail="no one there"),
    failed(second=7, host="127.0.0.1", port=9, url="http://127.0.0.1:9/a"),
    failed(second=7, host="127.0.0.1", port=9, url="http://127.0.0.1:9/b"),
    failed(second=8, host="api.example", port=8443, url=f"{API}/v1"),
    event(second=30),
    other("dns", 31, method="A"),
    unfinished(40, url="http://slow.example/", host="slow.example"),
    {**start(second=41), "type": "gap", "dropped": 3, "reason": "No space left on device"},
]

REPORT = """\
flowtally: 12 flows, 4 failed (33.3 %), 2 unsuccessful, 1 failure without a flow, 1 ok,
           1 unfinished, over 40.0 s

Problems
  4  -2 ConnectionErr: connection_refused  127.0.0.1:9 (3), api.example:8443 (1)
     Nothing listens on that port: check that the server is running, and the port number.
     Without a proxy: net::ERR_CONNECTION_REFUSED · curl 7 · ECONNREFUSED ·
     requests ConnectionError (NewConnectionError)
     incidents [a72328ae] [c1039ff1]
     03:04:13  GET https://api.example:8443/v1
     03:04:12  GET http://127.0.0.1:9/b
     03:04:12  GET http://127.0.0.1:9/a
  1  -3 HTTPError: 503 Service unavailable  shop.example
     incident [e611d7b3]
     03:04:10  POST http://shop.example/pay
  1  -2 ConnectionErr: client_tls_rejected  pinned.example
     Install mitmproxy's CA certificate on the client (http://mitm.it); an app that pins its
     certificate must be rebuilt without pinning, or its host excluded with ignore_hosts.
     The client says: net::ERR_CERT_AUTHORITY_INVALID · curl 60 · UNABLE_TO_VERIFY_LEAF_SIGNATURE ·
     requests SSLError
     incident [125a36ca]
     03:04:35  pinned.example
  1  -3 HTTPError: 404 Not found  shop.example
     incident [abdd6919]
     03:04:09  GET http://shop.example/logo.png

Not among the problems
  1 unfinished  slow.example

Status                     flows   share  received     p50     p95     p99     max
Informational                  1   8.3 %    1.5 kB
  101 Switching protocols      1   8.3 %    1.5 kB
Success                        2  16.7 %    3.0 kB   12 ms   25 ms   25 ms   25 ms
  200 OK                       2  16.7 %    3.0 kB   12 ms   25 ms   25 ms   25 ms
Redirection                    1   8.3 %       0 B    5 ms    5 ms    5 ms    5 ms
  304 Not modified             1   8.3 %       0 B    5 ms    5 ms    5 ms    5 ms
Client error                   1   8.3 %    1.5 kB   31 ms   31 ms   31 ms   31 ms
  404 Not found                1   8.3 %    1.5 kB   31 ms   31 ms   31 ms   31 ms
Server error                   1   8.3 %    1.5 kB  12.3 s  12.3 s  12.3 s  12.3 s
  503 Service unavailable      1   8.3 %    1.5 kB  12.3 s  12.3 s  12.3 s  12.3 s

Host              flows  failed  unsuccessful  without a flow  received    p50     p95
shop.example          7       0             2               0    9.0 kB  25 ms  12.3 s
127.0.0.1:9           3       3             0               0    4.5 kB  25 ms   25 ms
api.example:8443      1       1             0               0    1.5 kB  25 ms   25 ms
pinned.example        0       0             0               1       0 B
slow.example          1       0             0               0    1.5 kB

Failing endpoint                  flows  failed  unsuccessful     p95
GET http://127.0.0.1:9/               1       1             0   25 ms
GET http://127.0.0.1:9/a              1       1             0   25 ms
GET http://127.0.0.1:9/b              1       1             0   25 ms
GET http://shop.example/logo.png      1       0             1   31 ms
GET https://api.example:8443/v1       1       1             0   25 ms
POST http://shop.example/pay          1       0             1  12.3 s

Slowest request                     took   wait              status
POST http://shop.example/pay      12.3 s  20 ms                 503
GET http://shop.example/logo.png   31 ms  20 ms                 404
GET http://shop.example/cart/17    25 ms  20 ms                 200
GET http://127.0.0.1:9/            25 ms  20 ms  connection_refused
GET http://127.0.0.1:9/a           25 ms  20 ms  connection_refused
GET http://127.0.0.1:9/b           25 ms  20 ms  connection_refused
GET https://api.example:8443/v1    25 ms  20 ms  connection_refused
GET http://shop.example/cart/17    12 ms  20 ms                 200
GET http://shop.example/cart/17     5 ms  20 ms                 304

Time (10 s each)  flows  failed  unsuccessful  without a flow
03:04:00              5       0             1               0  ███████████████████▒▒▒▒▒
03:04:10              5       4             1               0  ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒
03:04:20              0       0             0               0
03:04:30              1       0             0               1  █████▒▒▒▒▒
03:04:40              1       0             0               0  █████

Other protocols                  flows  failed   sent  received    p50    p95
DNS: A (1)                           1       0  100 B    1.5 kB  25 ms  25 ms
WebSocket: closed with 1000 (1)      1       0  100 B    1.5 kB

Records that could not be written to the log: 3
"""

NARROW = """\
flowtally: 2 flows, 1 failed (50.0 %),
           1 unsuccessful,
           1 failure without a flow,
           over 3.0 s

Problems
  1  -2 ConnectionErr:
     connection_refused
     api.example:8443
     Nothing listens on that port: check
     that the server is running, and the
     port number.
     Without a proxy:
     net::ERR_CONNECTION_REFUSED ·
     curl 7 · ECONNREFUSED · requests
     ConnectionError
     (NewConnectionError)
     incident [c1039ff1]
     03:04:13  GET https://api.example:…
  1  -3 HTTPError: 503 Service
     unavailable  shop.example
     incident [e611d7b3]
     03:04:10  POST http://shop.example…
  1  -2 ConnectionErr:
     client_tls_rejected  pinned.example
     Install mitmproxy's CA certificate
     on the client (http://mitm.it); an
     app that pins its certificate must
     be rebuilt without pinning, or its
     host excluded with ignore_hosts.
     The client says:
     net::ERR_CERT_AUTHORITY_INVALID ·
     curl 60 ·
     UNABLE_TO_VERIFY_LEAF_SIGNATURE ·
     requests SSLError
     incident [125a36ca]
     03:04:13  pinned.example

Status                     flows   share
Server error                   1  50.0 %
  503 Service unavailable      1  50.0 %

Host              flows  failed
api.example:8443      1       1
pinned.example        0       0
shop.example          1       0

Failing endpoint           flows  failed
GET https://…mple:8443/v1      1       1
POST http://….example/pay      1       0

Slowest request              took   wait
POST http://….example/pay  12.3 s  20 ms
GET https://…mple:8443/v1   25 ms  20 ms

Time (1 s each)  flows  failed
03:04:10             1       0
03:04:11             0       0
03:04:12             0       0
03:04:13             1       1
"""

FEW = [RECORDS[6], RECORDS[10], {**event(), "time": RECORDS[10]["time"]}]

UNCLEAN = "; it did not end cleanly, or is still running"
SESSION = "Session 00000001, begun 2026-01-02 03:04:05+00:00"


def written(tmp_path: Path, *records: Record, name: str = "log.jsonl") -> Path:
    log = tmp_path / name
    log.write_bytes(lines(*records))
    return log


# --- text ---


def test_the_report() -> None:
    assert "\n".join(text.report(tally(*RECORDS))) + "\n" == REPORT


def test_the_report_on_a_narrow_terminal() -> None:
    assert "\n".join(text.report(tally(*FEW), 40)) + "\n" == NARROW


def test_times_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XXX-05:30")
    time.tzset()
    report = text.report(tally(*FEW))
    assert "     08:34:13  GET https://api.example:8443/v1" in report
    assert report[-1] == "08:34:13             1       1             0               1  " + "▒" * 24


@pytest.mark.parametrize("option", ["", "--markdown", "--html"])
def test_a_session_begins_in_the_time_of_its_flows(tmp_path: Path, option: str) -> None:
    log, page = written(tmp_path, start(), failed()), tmp_path / "page.html"
    arguments = {"": (), "--markdown": (option,), "--html": (option, str(page))}[option]
    done = run("report", log, *arguments, TZ="XXX-05:30")
    said = page.read_text("utf-8") if option == "--html" else done.stdout
    assert "Session 00000001, begun 2026-01-02 08:34:05+05:30" in said
    assert "08:34:05" in said.replace("2026-01-02 08:34:05+05:30", "")
    assert "begun 2026-01-02T" not in said


def test_a_timeline_of_several_days_names_them() -> None:
    report = text.report(tally(answered(), answered(second=86_400 * 3)))
    assert report[-8:-4] == [
        "Time (12 h each)     flows  failed  unsuccessful",
        "2026-01-02 00:00:00      1       0             0  ████████████████████████",
        "2026-01-02 12:00:00      0       0             0",
        "2026-01-03 00:00:00      0       0             0",
    ]


def test_examples_of_several_days_have_their_day() -> None:
    report = text.report(tally(failed(), failed(url="http://b.example/", second=86_400 * 3)))
    assert "     2026-01-05 03:04:05  GET http://b.example/" in report
    assert "     2026-01-02 03:04:05  GET http://shop.example/cart/17" in report


def test_failures_without_a_flow_have_a_bar_of_their_own() -> None:
    report = text.report(tally(event(), event(), failed(), answered(404), answered()))
    assert report[-2:] == [
        "Time (1 s each)  flows  failed  unsuccessful  without a flow",
        "03:04:05             3       1             1               2  ████▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒",
    ]
    report = text.report(tally(event()))
    assert (
        report[-1]
        == "03:04:05             0       0             0               1  ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒"
    )


@pytest.mark.parametrize("shown", [text.report, text.summary])
def test_nothing_but_background_traffic_came_through(shown: Any) -> None:
    said = shown(tally(answered(background="Chromium"), event(background="Windows")))
    assert said == [
        "flowtally: 0 flows",
        "",
        "No problems",
        "",
        "Not among the problems",
        "  2 that browsers and systems made on their own, not counted above",
    ]


@pytest.mark.parametrize(
    ("second", "said"), [(0.04, ""), (0.06, ", over 0.1 s"), (27.6, ", over 27.6 s")]
)
def test_how_long_it_was_is_said_where_it_can_be(second: float, said: str) -> None:
    own = answered(second=272, background="Chromium")
    found = tally(answered(), own, answered(second=second))
    assert text.report(found)[0] == f"flowtally: 2 flows{said}"
    lasting = f"), {said.removeprefix(', over ')}<" if said else ")<"
    assert lasting in html.page(found, html.About())


def test_a_page_of_nothing_but_background_traffic_tells_local_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "XYZ-5:30")
    time.tzset()
    try:
        page = html.page(tally(answered(background="Chromium")), html.About())
        assert '"offset":19800' in page
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("shown", [text.report, text.summary])
def test_nothing_happened(shown: Any) -> None:
    assert shown(Tally()) == [
        "flowtally: 0 flows",
        "Nothing came through: is the client pointed at the proxy?",
        "",
        "No problems",
    ]


def test_the_summary_is_the_beginning_of_the_report_with_one_example_each() -> None:
    report = text.report(tally(*RECORDS))
    report = report[
        : report.index(
            "Host              flows  failed  unsuccessful  without a flow  received    p50     p95"
        )
        - 1
    ]
    for line in (
        "     03:04:12  GET http://127.0.0.1:9/b",
        "     03:04:12  GET http://127.0.0.1:9/a",
    ):
        report.remove(line)
    dropped = ["", "Records that could not be written to the log: 3"]
    assert text.summary(tally(*RECORDS)) == report + dropped


APART = """\
Not among the problems
  7 cancelled by the client  shop.example (3), api.shop.example (2), cdn.example (2)
  2 unfinished  shop.example
  1 cancelled by the client (left_upload)  id.example
  2 logins asked for, and given
  4 failed only because another one did
  6 that browsers and systems made on their own, not counted above
""".splitlines()


def test_what_is_no_problem_stands_below_the_problems() -> None:
    for report in (text.report(tally(*everything())), text.summary(tally(*everything()))):
        at = report.index(APART[0])
        assert report[at - 1 : at + 8] == ["", *APART, ""]
        assert report.index("Problems") < at
    page = html.page(tally(*everything()), html.About())
    for sentence in APART[2:]:
        count, what = sentence.strip().split(" ", 1)
        what = what.replace("  ", ": ").replace("'", "&#39;")
        assert f"<li>{count} {what}</li>" in page


def test_a_reason_stands_beside_its_cause() -> None:
    found = tally(*everything())
    report = text.report(found)
    assert "   2  -2 ConnectionErr: connection_terminated (reset)  shop.example" in report
    assert "   1  -3 HTTPError: grpc_error (unavailable)  shop.example" in report
    page = html.page(found, html.About())
    assert '>connection_terminated</strong> <span class="reason">reset</span>' in page
    for incident in incidents(found)[:MOST]:
        assert f'data-key="{incident.id}"' in page


def test_the_unsuccessful_over_time_are_those_of_the_totals() -> None:
    loop: Any = {"error_code": -5, "error_name": "TooManyRedirects", "cause": "redirect_loop"}
    report = text.report(tally(answered(302, **loop), answered(), answered(404)))
    assert report[-1].split()[:4] == ["03:04:05", "3", "0", "2"]
    assert report[-1].endswith("█" * 8 + "▒" * 16)


@pytest.mark.parametrize("width", range(40, 101))
def test_what_a_client_says_is_not_torn_apart(width: int) -> None:
    why = Why("http_response_incomplete")
    report = text.report(tally(failed(why.cause)), width)
    at = next(number for number, line in enumerate(report) if "Without a proxy:" in line)
    end = next(number for number, line in enumerate(report) if line.startswith("     incident "))
    said = [line.strip() for line in report[at:end]]
    assert " ".join(said) == client_words(why)
    assert not any(line.startswith("·") for line in said)
    assert "curl 18 ·" in " ".join(line for line in said if "curl" in line)


ESSENTIAL = (
    "12 flows, 4 failed (33.3 %), 2 unsuccessful, 1 failure without a flow, 1 ok",
    "4 -2 ConnectionErr: connection_refused",
    "127.0.0.1:9 (",
    "Nothing listens on that port: check that the server is running, and the port number.",
    "1 -2 ConnectionErr: client_tls_rejected pinned.example",
    "1 -3 HTTPError: 404 Not found shop.example",
    "1 -3 HTTPError: 503 Service unavailable shop.example",
    "Without a proxy: net::ERR_CONNECTION_REFUSED · curl 7 · ECONNREFUSED · requests Conn",
    "Not among the problems 1 unfinished slow.example",
    "101 Swit",
    "503 Serv",
    "shop.example 7 0",
    ".0.1:9/a 1 1",
    "12.3 s",
    "03:04:10 5 4",
    "DNS: A (1) 1 0",
    "Records that could not be written to the log: 3",
)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 300])
def test_a_narrow_terminal_loses_nothing_essential(width: int) -> None:
    report = text.report(tally(*RECORDS), width)
    assert max(map(len, report)) <= min(100, width)
    words = " ".join(" ".join(report).split())
    assert [essential for essential in ESSENTIAL if essential not in words] == []


@pytest.mark.parametrize("width", [1, 40, 60, 80, 90, 100, 300])
@pytest.mark.parametrize("shown", [text.report, text.summary])
def test_nothing_is_wider_than_the_terminal(width: int, shown: Any) -> None:
    found = Tally()
    for number in range(30):
        host = f"{number}.a-long-name-of-a-host-{'x' * 80}.example"
        url = f"http://{host}/a/path/{'y' * 80}/of/some/length"
        found.add(failed(host=host, port=8000, url=url, duration_ms=1e14) | {"cause": "z" * 300})
        found.add(answered(520, number * 1e7, url=url, description=f"{'z' * 60} (Cloudflare)"))
        found.add(other("tcp", number, method="m" * 200))
    assert max(map(len, shown(found, width))) <= min(100, max(40, width))
    found.dropped = 10**30
    assert max(map(len, shown(found, width))) <= min(100, max(40, width))
    assert any("29 more" in line for line in shown(found, 100))


def test_the_most_frequent_host_comes_first() -> None:
    found = tally(*(failed(host=f"h{n}", port=8000) for n in range(30)))
    for _ in range(5):
        found.add(failed(host="often", port=8000))
    assert any("  often:8000 (5), h0:8000 (1), " in line for line in text.report(found))


def test_tables_say_what_they_leave_out() -> None:
    found = tally(*(failed(host=f"h{n:02}", url=f"http://h{n:02}/") for n in range(17)))
    report = text.report(found)
    assert "  and 2 more hosts" in report
    assert "  and 7 more endpoints" in report
    found = tally(*(failed(host=f"h{n:02}", url=f"http://h{n:02}/") for n in range(16)))
    assert "  and 1 more host" in text.report(found)


def hostile_records() -> list[Record]:
    return [
        other("dns", 1, host=HOSTILE, method=HOSTILE),
        {**event(host=HOSTILE, detail=HOSTILE), "cause": HOSTILE},
        failed(host=HOSTILE, url=f"http://{HOSTILE}/{HOSTILE}", detail=HOSTILE, reason=HOSTILE),
        cancelled(host=HOSTILE, url=HOSTILE, reason=HOSTILE),
        answered(background=f"{HOSTILE} too"),
        answer(host=HOSTILE, url=HOSTILE) | {"answers": HOSTILE},
        answered(200, url=f"http://{HOSTILE}/", method=HOSTILE, description=HOSTILE),
        answered(418, description=HOSTILE, host=HOSTILE),
        unfinished(2, host=HOSTILE, url=HOSTILE),
    ]


def hostile() -> Tally:
    return tally(*hostile_records())


@pytest.mark.parametrize("width", [40, 100])
def test_control_characters_do_not_reach_the_terminal(width: int) -> None:
    report = text.report(hostile(), width)
    assert all(line.isprintable() for line in report)
    assert any("\ufffd]0;owned\ufffd" in line for line in report)


# --- media types ---

MEDIA_TYPES = """\
Media type        flows   share  failed  unsuccessful  received    p50    p95
text/html             2  50.0 %       0             1    3.0 kB  25 ms  25 ms
application/json      1  25.0 %       1             0    1.5 kB  25 ms  25 ms
""".splitlines()


def test_media_types_are_in_every_report() -> None:
    found = tally(
        answered(media_type="text/html"),
        answered(404, media_type="text/html"),
        failed("http_response_incomplete", media_type="application/json"),
        answered(204),
        event(),
    )
    report = text.report(found)
    at = report.index(MEDIA_TYPES[0])
    assert report[at : at + 4] == [*MEDIA_TYPES, ""]
    page = html.page(found, html.About())
    assert '<h2 id="media-types-title">Media types</h2>' in page
    assert (
        '<tr data-key="text/html"><th scope="row">text/html</th><td data-value="2">2</td>' in page
    )
    assert [(r["media_type"], r["flows"]) for r in statistics_of(found)["media_types"]] == [
        ("text/html", 2),
        ("application/json", 1),
    ]
    rows = [row for row in table(data.csv_text(found)) if row["table"] == "media_types"]
    assert [row["media_type"] for row in rows] == ["text/html", "application/json"]


def test_a_media_type_that_is_no_text_is_skipped(tmp_path: Path) -> None:
    log = written(tmp_path, start(), answered(media_type=["text/html"]), answered())
    done = run("report", log)
    assert done.stderr.splitlines()[0] == (
        f"{log}, line 2: media_type is ['text/html'], not text; skipped"
    )
    assert done.stdout.startswith("flowtally: 1 flow\n")


# --- colours ---

SGR = re.compile(r"\x1b\[[0-9;]*m")
SHOWS_COLOURS = {"TERM": "xterm", "NO_COLOR": ""}


@pytest.mark.parametrize("width", [40, 100])
@pytest.mark.parametrize(
    "found", [tally(*RECORDS), Tally(), hostile()], ids=["rich", "", "hostile"]
)
def test_without_its_colours_it_is_the_plain_report(found: Tally, width: int) -> None:
    painted = text.report(found, width, coloured)
    assert [SGR.sub("", line) for line in painted] == text.report(found, width)
    assert painted != text.report(found, width)
    # No colour goes on beyond its line.
    assert all(
        len(re.findall(r"\x1b\[[0-9;]*m.*?\x1b\[0m", line)) * 2 == len(SGR.findall(line))
        for line in painted
    )


def test_what_is_in_which_colour() -> None:
    painted = text.report(tally(*RECORDS), 100, coloured)
    begin = "  4  -2 ConnectionErr: connection_refused"
    assert f"\x1b[1;31m{begin}\x1b[0m  127.0.0.1:9 (3), api.example:8443 (1)" in painted
    assert "\x1b[33m  1  -3 HTTPError: 404 Not found\x1b[0m  shop.example" in painted
    assert "\x1b[31m  1  -3 HTTPError: 503 Service unavailable\x1b[0m  shop.example" in painted
    assert "  1 unfinished  slow.example" in painted
    assert "\x1b[1mNot among the problems\x1b[0m" in painted
    assert "\x1b[2m     requests ConnectionError (NewConnectionError)\x1b[0m" in painted
    assert "\x1b[2m     03:04:35  pinned.example\x1b[0m" in painted


class Terminal(io.StringIO):
    def __init__(self, terminal: bool = True) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal and super().isatty() is not None


@pytest.mark.parametrize(
    ("terminal", "environment", "expected"),
    [
        (True, {}, coloured),
        (True, {"NO_COLOR": ""}, coloured),  # no-color.org: "when present and not an empty string"
        (True, {"NO_COLOR": "1"}, plain),
        (True, {"TERM": "dumb"}, plain),
        (False, {}, plain),
    ],
)
def test_colours_are_for_terminals(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, environment: dict[str, str], expected: Any
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert paint_for(Terminal(terminal)) is expected


def test_a_stream_that_is_closed_or_missing_gets_no_colours() -> None:
    stream = Terminal()
    stream.close()
    assert paint_for(stream) is plain
    assert paint_for(None) is plain  # type: ignore[arg-type]  # sys.stderr of a pythonw


@pytest.mark.parametrize("columns", [40, 60, 100, 300])
def test_a_terminal_gets_colours_and_its_own_width(tmp_path: Path, columns: int) -> None:
    log = written(tmp_path, *RECORDS)
    code, shown, _ = on_terminal(
        *FLOWTALLY, "report", log, columns=columns, environment=SHOWS_COLOURS
    )
    assert code == 0
    assert "\x1b[1;31m" in shown
    report = SGR.sub("", shown).split("\n")
    assert report[: len(text.report(tally(*RECORDS), columns))] == text.report(
        tally(*RECORDS), columns
    )
    assert max(map(len, report)) <= columns


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colours(tmp_path: Path, environment: dict[str, str]) -> None:
    log = written(tmp_path, *RECORDS)
    code, shown, _ = on_terminal(*FLOWTALLY, "report", log, environment=SHOWS_COLOURS | environment)
    assert (code, shown) == (0, f"{REPORT}\n{SESSION}{UNCLEAN}\n")


# --- the command line ---


def test_report_of_a_log(tmp_path: Path) -> None:
    done = run("report", written(tmp_path, *RECORDS))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{REPORT}\n{SESSION}{UNCLEAN}\n"


def test_report_of_a_session_that_ended_cleanly(tmp_path: Path) -> None:
    done = run("report", written(tmp_path, *RECORDS, final(*RECORDS)))
    assert done.stdout == f"{REPORT}\n{SESSION}\n"


def test_report_of_a_session_without_anything(tmp_path: Path) -> None:
    done = run("report", written(tmp_path, start(), final()))
    assert done.returncode == 0
    assert done.stdout == dedent(
        f"""\
        flowtally: 0 flows
        Nothing came through: is the client pointed at the proxy?

        No problems

        {SESSION}
        """
    )


@pytest.mark.parametrize("option", ["--json", "--csv", "--html"])
@pytest.mark.parametrize("clean", [True, False])
def test_every_output_says_whether_the_session_ended_cleanly(
    tmp_path: Path, option: str, clean: bool
) -> None:
    log = written(tmp_path, *RECORDS, *([final(*RECORDS)] if clean else []))
    page = tmp_path / "page.html"
    done = run("report", log, option, *([page] if option == "--html" else []))
    assert done.returncode == 0
    said = page.read_text("utf-8") if option == "--html" else done.stderr
    unclean = "Session 00000001" + ("", ", begun 2026-01-02 03:04:05+00:00;")[option == "--html"]
    unclean += " it"[: 3 * (option == "--html")] + " did not end cleanly, or is still running"
    assert (unclean in said) == (not clean)
    if option == "--json":
        assert json.loads(done.stdout)["sessions"][0]["ended_cleanly"] is clean


def test_several_logs_and_standard_input_are_merged(tmp_path: Path) -> None:
    log = written(tmp_path, *RECORDS)
    second, third = ([{**record, "session": f"0000000{n}"} for record in RECORDS] for n in (2, 3))
    done = run("report", log, "-", written(tmp_path, *third, name="3"), stdin=lines(*second))
    assert done.stdout.startswith("flowtally: 36 flows, 12 failed (33.3 %), 6 unsuccessful,")
    assert [line[:16] for line in done.stdout.splitlines()[-3:]] == [
        "Session 00000001",
        "Session 00000002",
        "Session 00000003",
    ]


def test_a_page_of_standard_input_has_its_flows(tmp_path: Path) -> None:
    """A pipe can be read once, and the page needs its flows after its figures."""
    log, page, piped = tmp_path / "log", tmp_path / "page.html", tmp_path / "piped.html"
    log.write_bytes(lines(start(), *RECORDS))
    assert run("report", log, "--html", page).returncode == 0
    assert run("report", "-", "--html", piped, stdin=log.read_bytes()).returncode == 0
    assert flows_data_of(piped) == flows_data_of(page) != "{}"


def flows_data_of(page: Path) -> str:
    found = re.search(r'id="flows-data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def test_a_page_of_the_newest_log_says_once_which_it_is(tmp_path: Path) -> None:
    folder = tmp_path / ".mitmproxy" / "flowtally"
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_bytes(lines(start(), *RECORDS))
    done = run("report", "--html", tmp_path / "page.html", HOME=str(tmp_path))
    assert done.stderr.count("Reading ") == 1


def test_standard_input_alone() -> None:
    done = run("report", "-", stdin=lines(*RECORDS))
    assert done.stdout.startswith(REPORT)


def test_unreadable_lines_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    records = numbered(*RECORDS)
    log.write_bytes(lines(*records[:3]) + b"nonsense\n" + lines(*records[3:]) + b'{"type":"fl')
    page = tmp_path / "page.html"
    for arguments in ([], ["--json"], ["--csv"], ["--html", page]):
        done = run("report", log, *arguments)
        assert done.returncode == 0
        if not arguments:
            assert done.stdout.startswith(REPORT)
        assert done.stderr.splitlines()[:3] == [
            f"{log}, line 4: not JSON; skipped",
            f"{log}, line 17: torn line; skipped",
            "2 unreadable lines skipped",
        ]
    notes = unescape(page.read_text("utf-8"))
    assert "<li>2 unreadable lines skipped</li>" in notes
    assert f"<li>{log}, line 4: not JSON; skipped</li>" in notes


@pytest.mark.parametrize(
    "record",
    [
        failed() | {"cause": ""},
        event() | {"cause": ""},
        unfinished(1, error_code=-2),
        other("dns", 1, error_code=-6, cause=""),
        cancelled() | {"cause": ""},
        cancelled() | {"error_code": -2},
        answered() | {"cause": "cors_blocked"},
    ],
)
def test_a_failure_without_a_cause_is_skipped(tmp_path: Path, record: Record) -> None:
    log = written(tmp_path, *RECORDS, record)
    done = run("report", log)
    assert (done.returncode, done.stdout) == (0, f"{REPORT}\n{SESSION}{UNCLEAN}\n")
    says = "an? (failure|event|cancelled flow|cause) with(out)? an? .*"
    assert re.match(rf"{log}, line 16: {says}; skipped\n", done.stderr)


def test_a_file_without_a_session(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\n")
    done = run("report", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"flowtally: no flowtally session in {file}: it is empty\n"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = run("report", tmp_path / "none")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"flowtally: {tmp_path}/none: No such file or directory\n"


def test_the_newest_log_is_the_default(tmp_path: Path) -> None:
    folder = tmp_path / ".mitmproxy" / "flowtally"
    done = run("report", HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == f"flowtally: no session log in {folder}; name one\n"
    folder.mkdir(parents=True)
    newest = written(folder, *RECORDS, name="flowtally-1.jsonl")
    older = written(folder, start(), name="flowtally-2.jsonl")
    os.utime(older, (1, 1))
    # What is no log cannot be the newest one.
    (folder / "flowtally-3.jsonl").symlink_to("gone")
    (folder / "flowtally-4.jsonl").mkdir()
    assert run("report", HOME=str(tmp_path)).stdout.startswith(REPORT)
    newest.unlink()
    assert run("report", HOME=str(tmp_path)).stdout.startswith("flowtally: 0 flows\n")


def test_script_is_what_mitmproxy_loads() -> None:
    path = Path(run("script").stdout.strip())
    assert path.name == "main.py"
    assert "addons = [" in path.read_text("utf-8")


@pytest.mark.parametrize(
    "options",
    [["--json", "--csv"], ["--html", "FILE", "--json"], ["--csv", "--html", "FILE"]],
)
def test_one_output_at_a_time(tmp_path: Path, options: list[str]) -> None:
    log, file = written(tmp_path, *RECORDS), tmp_path / "FILE"
    done = run("report", log, *(file if option == "FILE" else option for option in options))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "flowtally: --html, --json, --csv and --markdown: one of them at a time\n"
    assert not file.exists()


@pytest.mark.parametrize(
    "arguments",
    [["report"], ["report", "--json"], ["report", "--csv"], ["sessions"]],
)
def test_nobody_reads_the_output(tmp_path: Path, arguments: list[str]) -> None:
    log = written(tmp_path, *RECORDS)
    theirs, ours = os.pipe()
    os.close(theirs)
    with os.fdopen(ours, "wb") as closed:
        done = subprocess.run(
            [*FLOWTALLY, *arguments, log],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("arguments", [["report"], ["report", "--csv"], ["sessions"]])
def test_a_terminal_that_cannot_show_all_characters(
    tmp_path: Path, arguments: list[str], encoding: str
) -> None:
    log = written(tmp_path, *RECORDS, answered(url="http://bücher.example/→/€"))
    done = subprocess.run(
        [*FLOWTALLY, *arguments, log],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()


# --- progress ---

SMALL = "from flowtally import cli, inputs; inputs.SHOW_PROGRESS = {}; cli.main()"


@pytest.mark.parametrize("log_size", ["large", "small"])
def test_progress_is_shown_of_large_logs_on_a_terminal(tmp_path: Path, log_size: str) -> None:
    log = written(tmp_path, *RECORDS)
    size = log.stat().st_size
    command = [sys.executable, "-c", SMALL.format(size if log_size == "large" else size + 1)]
    code, shown, piped = on_terminal(*command, "report", log, streams=["stderr"])
    assert code == 0
    assert piped == f"{REPORT}\n{SESSION}{UNCLEAN}\n"
    assert ("Reading" in shown and "100%" in shown) == (log_size == "large")
    if log_size == "small":
        assert shown == ""


def test_progress_is_for_terminals_only(tmp_path: Path) -> None:
    log = written(tmp_path, *RECORDS)
    script = SMALL.format(0)
    _, _, piped = on_terminal(sys.executable, "-c", script, "report", log, streams=["stdout"])
    assert piped == ""


# --- missing records ---


def test_missing_records_are_said(tmp_path: Path) -> None:
    records = numbered(*RECORDS[:-1])  # the last one accounts for others that are missing
    one = written(tmp_path, *records[:4], *records[5:8], *records[10:])
    others = ({**record, "session": "00000002"} for record in (records[0], records[2]))
    two = written(tmp_path, *others, name="two.jsonl")
    notes = [
        "3 records of session 00000001 are missing in the logs",
        "1 record of session 00000002 is missing in the logs",
    ]
    done = run("report", one, two)
    assert (done.returncode, done.stderr.splitlines()) == (0, notes)
    assert json.loads(run("report", one, two, "--json").stdout)["missing"] == 4
    page = tmp_path / "page.html"
    run("report", one, two, "--html", page)
    said = page.read_text("utf-8")
    assert all(f"<li>{note}</li>" in said for note in notes)


# --- what a merged tally does not know for sure ---


def test_a_row_that_may_be_larger_says_so_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtally.tally.TABLES", limited(3, "hosts"))
    found = tally(*(answered(host="new") for _ in range(1200)))
    found.merge(tally(*(failed(host=f"h{n}") for n in range(5))))
    report = text.report(found)
    (line,) = (line for line in report if line.startswith("new  "))
    assert line.split()[:6] == ["new", "≥", "1200", "≥", "0", "≥"]
    assert any(line.startswith("h0 ") and "≥" not in line for line in report)
    page = html.page(found, html.About())
    assert '>new</th><td data-value="1200">≥ 1,200</td>' in page
    rows = {row["host"]: row for row in statistics_of(found)["hosts"]}
    assert {name: row["at_least"] for name, row in rows.items() if row["at_least"]} == {"new": True}
    assert [row["other"] for name, row in rows.items() if name == "(other)"] == [True]
    cells = [row for row in table(data.csv_text(found)) if row["table"] == "hosts"]
    assert [row["host"] for row in cells if row["at_least"] == "true"] == ["new"]
    assert [row["host"] for row in cells if row["other"] == "true"] == ["(other)"]


def test_the_rest_of_a_full_table_cannot_be_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No flow has that place."""
    monkeypatch.setattr("flowtally.tally.TABLES", limited(1, "hosts", "incidents"))
    page = html.page(tally(*(failed(host=f"h{n}") for n in range(5))), html.About())
    assert set(re.findall('data-pick="host" data-of="([^"]*)"', page)) == {"h0"}
    assert page.count(">(other)</") == 2


def test_a_problem_that_may_have_been_more_often_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtally.tally.TABLES", limited(1, "causes", "incidents"))
    found = tally(failed("dns_error", reason="servfail", host="new"), cancelled(reason="new"))
    found.merge(
        tally(
            *(failed("dns_error", reason=reason, host="old") for reason in ("nxdomain", "refused")),
            *(cancelled(reason=reason) for reason in ("old", "older")),
        )
    )
    report = text.report(found)
    assert "  ≥ 1  -2 ConnectionErr: dns_error (servfail)  new" in report
    assert "    2  -2 ConnectionErr: dns_error (other)" in report
    assert "  ≥ 1 cancelled by the client (new)  shop.example" in report


def test_an_incident_that_may_have_been_more_often_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtally.tally.TABLES", limited(1, "incidents"))
    found = tally(failed(host="new"))
    found.merge(tally(failed(host="old"), failed(host="older")))
    assert '<span class="count" data-value="1">≥ 1</span>' in html.page(found, html.About())


# --- JSON ---

NO_TIMES = dict.fromkeys(("p50_ms", "p95_ms", "p99_ms", "max_ms"))


def statistics_of(found: Tally) -> Any:
    return json.loads(json.dumps(data.report([], 0, found)))["statistics"]


def test_json(tmp_path: Path) -> None:
    done = run("report", "--json", written(tmp_path, *RECORDS, final(*RECORDS)))
    report = json.loads(done.stdout)
    assert list(report) == [
        "flowtally",
        "schema",
        "sessions",
        "unreadable",
        "missing",
        "statistics",
    ]
    assert report["schema"] == 2
    assert report["unreadable"] == report["missing"] == 0
    assert report["sessions"] == [
        {"session": "00000001", "begun": "2026-01-02T03:04:05.000Z", "ended_cleanly": True}
    ]
    assert report["statistics"] == statistics_of(tally(*RECORDS))
    assert done.stderr == ""


def test_the_totals_in_json() -> None:
    assert statistics_of(tally(*RECORDS))["totals"] == {
        "flows": 12,
        "failures": 4,
        "unsuccessful": 2,
        "cancelled": 0,
        "events": 1,
        "challenges": 0,
        "collateral": 0,
        "problems": 7,
        "ok": 1,
        "unfinished": 1,
        "background": 0,
        "request_bytes": 1200,
        "response_bytes": 16_500,
        "dropped": 3,
        "first": "2026-01-02T03:04:05.000Z",
        "last": "2026-01-02T03:04:45.000Z",
    }
    assert statistics_of(Tally())["totals"]["first"] is None


def test_rows_in_json() -> None:
    said = statistics_of(tally(*RECORDS))
    counts = {
        **dict.fromkeys(("cancelled", "challenges", "collateral"), 0),
        "request_bytes": 100,
        "response_bytes": 1500,
        "at_least": False,
        "other": False,
    }
    assert said["hosts"][3] == {
        "host": "pinned.example",
        "flows": 0,
        "failures": 0,
        "unsuccessful": 0,
        "events": 1,
        **counts,
        "request_bytes": 0,
        "response_bytes": 0,
        **NO_TIMES,
        **{f"wait_{name}": None for name in NO_TIMES},
    }
    refused = said["causes"][0]
    missing = next(row for row in said["causes"] if row["cause"] == "404")
    example = refused.pop("examples")[0]
    assert refused == {
        "error_code": -2,
        "cause": "connection_refused",
        "reason": "",
        "error_name": "ConnectionErr",
        "description": None,
        "side": "server",
        "advice": "Nothing listens on that port: check that the server is running, and the port "
        "number.",
        "chromium": "net::ERR_CONNECTION_REFUSED",
        "curl": "curl 7",
        "node": "ECONNREFUSED",
        "requests": "requests ConnectionError (NewConnectionError)",
        "nel": "tcp.refused",
        "envoy": "UF",
        "flows": 4,
        "failures": 4,
        "unsuccessful": 0,
        "events": 0,
        **counts,
        "request_bytes": 400,
        "response_bytes": 6000,
    }
    assert example == {
        "time": "2026-01-02T03:04:13.000Z",
        "flow": "8",
        "method": "GET",
        "url": "https://api.example:8443/v1",
        "host": "api.example",
        "port": 8443,
        "status": None,
        "cause": "connection_refused",
        "reason": None,
        "detail": None,
        "wait_ms": 20.0,
        "duration_ms": 25.0,
    }
    assert (missing["error_code"], missing["cause"]) == (-3, "404")
    assert (missing["description"], missing["advice"]) == ("Not found", None)
    assert [slow["duration_ms"] for slow in said["slowest"]][:3] == [12_345.0, 31.0, 25.0]
    code = next(row for row in said["codes"] if row["code"] == 503)
    assert (code["band"], code["description"]) == ("Server error", "Service unavailable")
    assert (code["max_ms"], code["wait_p50_ms"]) == (12_345.0, 20.0)
    assert said["timeline"][0]["seconds"] == 1
    assert said["timeline"][0]["start"] == 1_767_323_045
    starts = [point["start"] for point in said["timeline"]]
    assert starts == sorted(starts)


@pytest.mark.parametrize(
    "found",
    [tally(*RECORDS), Tally(), tally(*everything()), hostile()],
    ids=["rich", "empty", "everything", "hostile"],
)
def test_every_table_is_in_json_and_its_rows_have_one_shape(found: Tally) -> None:
    said = statistics_of(found)
    assert list(said) == ["totals", *found.tables, "equal_waits"]
    for name, rows in found.tables.items():
        shapes = {tuple(row) for row in said[name]}
        assert len(shapes) <= 1
        for shape in shapes:
            assert shape[: len(rows.table.parts)] == rows.table.parts
        if rows.table.parts:
            assert len(said[name]) == len(rows)
            assert sum(row["flows"] for row in said[name]) == sum(r.flows for r in rows.values())


# --- CSV ---


def table(csv_text: str) -> list[dict[str, str]]:
    """The lines of a CSV; each must have all columns."""
    rows = list(csv.reader(io.StringIO(csv_text, newline="")))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert len(set(rows[0])) == len(rows[0])
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def column(rows: list[dict[str, str]], name: str, of: str) -> int:
    return sum(int(row[name]) for row in rows if row["table"] == of)


def test_csv(tmp_path: Path) -> None:
    done = run("report", "--csv", written(tmp_path, *RECORDS, final(*RECORDS)))
    rows = table(done.stdout)
    found = tally(*RECORDS)
    filled = [name for name, of in found.tables.items() if of]
    assert list(dict.fromkeys(row["table"] for row in rows)) == filled
    names = ("table", "code", "error_code", "cause", "host", "endpoint", "kind", "close_code")
    said = [tuple(row[name] for name in names if row[name]) for row in rows]
    for expected in (
        ("codes", "101"),
        ("codes", "503"),
        ("causes", "-2", "connection_refused"),
        ("causes", "-3", "404"),
        ("causes", "unfinished"),
        ("incidents", "-2", "connection_refused", "127.0.0.1:9"),
        ("hosts", "shop.example"),
        ("hosts", "127.0.0.1:9"),
        ("hosts", "api.example:8443"),
        ("endpoints", "GET http://shop.example/cart/{id}"),
        ("protocols", "dns"),
        ("protocols", "websocket", "1000"),
    ):
        assert said.count(expected) == 1, expected
    slow = next(row for row in rows if row["code"] == "503")
    assert slow["description"] == "Service unavailable"
    assert (slow["wait_p50_ms"], slow["max_ms"], slow["at_least"]) == ("20.0", "12345.0", "false")
    assert done.stdout.startswith(",".join(data.header(found)) + "\r\n")
    hosts = [row["host"] for row in rows if row["table"] == "hosts"]
    assert hosts[:2] == ["shop.example", "127.0.0.1:9"], "the largest first"


def test_json_and_csv_say_the_same() -> None:
    found = tally(*everything())
    said = statistics_of(found)
    rows = table(data.csv_text(found))
    for name in found.tables:
        lines = [row for row in rows if row["table"] == name]
        for line, row in zip(lines, said[name], strict=True):
            row.pop("examples", None)
            for field, value in row.items():
                text_of = {None: "", True: "true", False: "false"}
                cell = text_of[value] if value is None or value is True or value is False else value
                assert line[field] == str(cell)
            assert not any(line[field] for field in line.keys() - row.keys() - {"table"})


def test_the_sums_of_a_csv() -> None:
    found = tally(*RECORDS)
    rows = table(data.csv_text(found))
    for name in COUNTS:
        total = found.sum(name)
        assert column(rows, name, "hosts") == column(rows, name, "timeline") == total
    assert column(rows, "events", "hosts") == found.totals().events == 1
    assert column(rows, "failures", "hosts") == column(rows, "failures", "endpoints") == 4


FORMULAS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(1)",
    "\t=1+1",
    "\r=1",
    "\n=1",
    "=cmd|' /C calc'!A0",
    '=1","=2',
    "a;=1+1",  # where cells are separated by semicolons
    "a; @SUM(1);+1",
    'a";=1+1;"',
]


@given(st.sampled_from(FORMULAS) | st.text(min_size=1))
@settings(max_examples=200, deadline=None)
def test_a_spreadsheet_computes_nothing(name: str) -> None:
    found = tally(
        failed(host=name, url=name, method=name) | {"cause": name},
        answered(200, description=name, url=name, host=name),
        other("dns", 1, method=name, host=name),
    )
    for row in table(data.csv_text(found)):
        for cell in row.values():
            # OWASP, "CSV injection"; a number is none.
            assert not cell.startswith(("=", "+", "@", "\t", "\r", "\n"))
            assert not cell.startswith("-") or cell[1:].isdecimal()
            assert cell.isprintable()
            assert not re.search(r";\s*[=+@-]", cell)


# --- HTML ---

FOREIGN = "exists, and flowtally did not write it; --force overwrites it"


def test_html(tmp_path: Path) -> None:
    log, page = written(tmp_path, *RECORDS), tmp_path / "page.html"
    done = run("report", log, "--html", page)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "<title>flowtally: 12 flows, 7 problems</title>" in page.read_text("utf-8")
    before = page.stat().st_ino
    # It knows its own, and writes a new file.
    assert run("report", written(tmp_path, start()), "--html", page).returncode == 0
    assert "<title>flowtally: 0 flows, 0 problems</title>" in page.read_text("utf-8")
    assert page.stat().st_ino != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "page.html"]


@pytest.mark.parametrize("days", [0, 3])
def test_incidents_of_several_days_have_their_day_on_a_page(days: int) -> None:
    from flowtally.report import html

    page = html.page(tally(failed(), failed(second=10 + 86_400 * days)), html.About())
    (incident,) = re.findall(r'<span class="span">(.*?)</span>', page)
    (picture,) = re.findall(r'aria-label="connection_refused over time: most at (.*?), 1"', page)
    times = re.findall(r"<li><time>(.*?)</time> <span class=.what.>GET", page)
    if days:
        assert incident == "2026-01-02 03:04:05 to 2026-01-05 03:04:15"
        assert picture == "2026-01-02 03:04:05"
        assert times == ["2026-01-05 03:04:15"]
    else:
        assert incident == "03:04:05 to 03:04:15"
        assert picture == "03:04:05"
        assert times == ["03:04:15"]


def test_html_overwrites_a_foreign_file_only_by_force(tmp_path: Path) -> None:
    log, page = written(tmp_path, *RECORDS), tmp_path / "page.html"
    page.write_text("<!doctype html><title>mine</title>")
    done = run("report", log, "--html", page)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"flowtally: {page}: {FOREIGN}\n"
    assert page.read_text() == "<!doctype html><title>mine</title>"
    assert run("report", log, "--html", page, "--force").returncode == 0
    assert "flowtally: 12 flows" in page.read_text("utf-8")


def test_html_into_a_log_is_refused(tmp_path: Path) -> None:
    log = written(tmp_path, *RECORDS)
    before = log.read_bytes()
    assert run("report", log, "--html", log).returncode == 2
    assert log.read_bytes() == before


def test_html_where_nothing_can_be_written(tmp_path: Path) -> None:
    log = written(tmp_path, *RECORDS)
    for name, reason in (
        ("none/page.html", f"cannot be written: there is no folder {tmp_path}/none"),
        (".", "is a folder; name a file in it"),
        ("log.jsonl/page.html", "cannot be written: Not a directory"),
    ):
        path = tmp_path / name
        done = run("report", log, "--html", path)
        assert (done.returncode, done.stderr) == (2, f"flowtally: {path}: {reason}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_html_into_a_folder_that_takes_no_files(tmp_path: Path) -> None:
    done = run("report", written(tmp_path, *RECORDS), "--html", "/proc/self/page.html")
    assert done.returncode == 2
    assert done.stderr.startswith("flowtally: /proc/self/page.html: cannot be written: ")


def test_failed_has_one_meaning() -> None:
    """Flows that failed; failures without a flow stand beside them, never among them."""
    found = tally(*RECORDS)
    page = html.page(found, html.About())
    assert "<title>flowtally: 12 flows, 7 problems</title>" in page
    totals = dict(re.findall(r'data-total="(\w+)" data-value="(\d+)"', page))
    assert (totals["failures"], totals["events"]) == ("4", "1")
    (script,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    series = {one["name"]: sum(one["values"]) for one in json.loads(script)["traffic"]["series"]}
    assert (series["Failed"], series["Failures without a flow"]) == (4, 1)
    report = text.report(found)
    assert "12 flows, 4 failed (33.3 %)" in report[0]
    assert report[0].endswith("1 failure without a flow, 1 ok,")
    assert "Failures without a flow</th>" in chart(page)
    for without in ([RECORDS[1]], [RECORDS[7]]):
        assert "Failures without a flow</th>" not in chart(html.page(tally(*without), html.About()))


def chart(page: str) -> str:
    """The section on traffic over time."""
    return page[page.index('id="traffic"') : page.index('id="durations"')]


# --- what is loaded ---

LOADED = """
import sys
import flowtally.report.text, flowtally.report.view, flowtally.session
print(*sorted(sys.modules))
"""
ONLY_FOR_A_REPORT = (
    "flowtally.comparison",
    "flowtally.logs",
    "flowtally.report.data",
    "flowtally.report.html",
    "jinja2",
    "multiprocessing",
    "tempfile",
    "xml.etree",
)


def test_what_only_a_report_needs_is_not_loaded_with_the_addon() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, timeout=60
    )
    assert not set(ONLY_FOR_A_REPORT) & set(done.stdout.split())


def test_no_report_is_loaded_before_there_is_one() -> None:
    code = "import sys, flowtally.addon; sys.exit('flowtally.report.layout' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


# --- hostile logs ---


def hostile_log(tmp_path: Path) -> Path:
    stats = final(*hostile_records())
    for key in (
        {"table": "codes", "key": ["Success", HOSTILE], "description": HOSTILE},
        {"table": "codes", "key": ["(other)", "(other)"]},
        {"table": "causes", "key": ["(other)", "(other)", "(other)"]},
        {"table": "causes", "key": ["-3", f"(other) {HOSTILE}", HOSTILE], "unsuccessful": 1},
        {"table": "causes", "key": ["-3", "503", "(other)"], "unsuccessful": 1},
        {"table": "causes", "key": ["", HOSTILE, HOSTILE]},
        {"table": "incidents", "key": ["-3", f"(other) {HOSTILE}", HOSTILE, HOSTILE, HOSTILE]},
        {"table": "incidents", "key": ["(other)"] * 5},
        {"table": "endpoints_of_incidents", "key": [HOSTILE, HOSTILE]},
        {"table": "clients_of_incidents", "key": [HOSTILE, HOSTILE]},
        {"table": "background", "key": [HOSTILE]},
        {"table": "protocols", "key": ["tcp", HOSTILE]},
        {"table": "timeline", "key": ["1", "0", "(other)"]},
        {"table": "timeline", "key": ["1", "-99999999999", "Success"]},
        {"table": "slowest of all", "key": []},
    ):
        stats["rows"].append({**key, "flows": 1})
    return written(tmp_path, start(), stats)


@pytest.mark.parametrize("option", ["text", "terminal", "--json", "--csv", "--html"])
def test_hostile_names_do_no_harm(tmp_path: Path, option: str) -> None:
    log, page = hostile_log(tmp_path), tmp_path / "page.html"
    if option == "terminal":
        code, out, _ = on_terminal(*FLOWTALLY, "report", log, environment=SHOWS_COLOURS)
        assert code == 0
        assert "owned" in out
        assert all(line.isprintable() for line in SGR.sub("", out).split("\n"))
        return
    arguments: dict[str, list[str | Path]] = {"text": [], "--html": ["--html", page]}
    done = run("report", log, *arguments.get(option, [option]))
    assert (done.returncode, done.stderr) == (0, "")
    if option == "--json":
        hosts = json.loads(done.stdout)["statistics"]["hosts"]
        assert HOSTILE in [row["host"] for row in hosts]
        return
    out = page.read_text("utf-8") if option == "--html" else done.stdout
    assert "owned" in out
    if option == "--html":
        assert "<x>" not in out
        # The script finds its place by keys, which hold the names as they are.
        shown = re.sub(r'data-key="[^"]*"', "", out)
        assert not set("\x1b\x07\x9b\u202e\ufffe\x00") & set(shown)
    else:
        assert all(line.isprintable() for line in out.splitlines())
    if option == "--csv":
        table(out)
