"""The report as Markdown: what it says, and that nothing of the network's means anything in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flowtally.report import markdown
from flowtally.report.digest import digest
from flowtally.tally import Tally
from hypothesis import given
from hypothesis import strategies as st
from lab.cli import HOSTILE
from lab.cli import answered
from lab.cli import cancelled
from lab.cli import event
from lab.cli import failed
from lab.cli import lines
from lab.cli import run
from lab.cli import start
from lab.cli import tally

MARKUP = st.text(st.sampled_from(list("`|\\<>&*_[]()!#@~-:/.\n\r\t ax1")), max_size=30)
TEXTS = MARKUP | st.text(max_size=30)


def outside_code(line: str) -> str:
    """A line without its code spans, as GitHub reads them (GFM §6.3), cell by cell in a table."""
    return re.sub(r"(?<!`)(`+)(?!`)(.*?)(?<!`)\1(?!`)", "", line)


@given(TEXTS)
def test_code_is_one_span_and_one_line(text: str) -> None:
    found = markdown.code(text)
    assert found.isprintable()
    assert outside_code(found) == "" or found == "(none)"


@given(TEXTS)
def test_code_in_a_table_stays_in_its_cell(text: str) -> None:
    assert "|" not in markdown.in_table(markdown.code(text))


def hostile(text: str) -> Tally:
    return tally(
        failed(host=text, url=f"http://{text}/{text}", detail=text, method=text, reason=text),
        answered(418, host=text, description=text, url=text, media_type=text),
        cancelled(host=text, url=text, reason=text),
        {**event(host=text, detail=text), "cause": text or "x"},
        {**answered(0, 9), "outcome": "ok", "kind": "dns", "host": text, "method": text},
        *(failed("http_response_timeout", n, url=text, wait_ms=9e3, client=text) for n in range(3)),
    )


@given(TEXTS)
def test_what_the_network_chose_stands_in_code_only(text: str) -> None:
    mark = f"zzq{text}"
    found = hostile(mark)
    for line in [*markdown.report(found, [mark]), *digest(found)]:
        assert line.isprintable()
        rest = outside_code(line)
        assert "zzq" not in rest, line
        assert "`" not in rest, line


@pytest.mark.parametrize("text", ["|", "\\|", "\\\\|", "`|`", HOSTILE, "a | b"])
def test_tables_keep_their_columns(text: str) -> None:
    width = 0
    lines = markdown.report(hostile(text))
    assert any(line.startswith("|---") for line in lines)
    for line in lines:
        if line.startswith("|---"):
            assert line.count("|") == width
        if line.startswith("|"):
            # A bar behind a backslash may be one of the cell, or not: there is none.
            width = width or line.count("|")
            assert line.count("|") == width
            assert "\\|" not in line
        else:
            width = 0


def test_what_it_says() -> None:
    found = markdown.report(
        tally(failed(), failed(host="other.example"), answered(200, 1)), ["Session x, begun y"]
    )
    assert found[0] == markdown.MARK
    assert found[1] == "# flowtally: 3 flows, 2 failed (66.7 %), over 1.0 s"
    assert found[3:5] == ["## Problems", ""]
    assert found[5] == (
        "- **2 ×** `-2 ConnectionErr: connection_refused` at `other.example (1), shop.example (1)`"
    )
    assert found[6].startswith("  - Nothing listens on that port")
    assert found[7].startswith("  - Without a proxy: ")
    assert re.fullmatch(r"  - incidents \\\[\w{8}\\\] \\\[\w{8}\\\]", found[8])
    assert "GET http://shop.example/cart/17" in found[9]
    headings = [line for line in found if line.startswith("## ")]
    assert headings[1:3] == ["## Status", "## Hosts"]
    assert "## Slowest endpoints" in headings
    assert found[-1] == "`Session x, begun y`"


def test_hosts_stand_behind_what_is_no_problem() -> None:
    found = markdown.report(tally(cancelled(host="a.example")))
    assert "- `1 cancelled by the client at a.example`" in found


def test_of_several_days_the_days_are_said() -> None:
    for days, said in ((0, 0), (2, 2)):
        found = markdown.report(tally(failed(), failed(url="http://b/", second=86_400 * days)))
        assert sum(line.startswith("  - `2026-01-0") for line in found) == said


def test_no_problems() -> None:
    assert "No problems" in markdown.report(tally(answered()))


def many() -> Tally:
    return tally(
        *(answered(400 + n, n, url=f"http://h{n}.example/") for n in range(99)),
        *(answered(500 + n, n, url=f"http://h{n}.example/") for n in range(99)),
    )


def test_it_is_bounded() -> None:
    found = markdown.report(many())
    assert len(found) < 500
    assert f"- and {198 - markdown.MAX_PROBLEMS} more kinds" in found


def test_a_log_as_markdown(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(start(), failed()))
    done = run("report", "--markdown", log)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{markdown.MARK}\n# flowtally: 1 flow, 1 failed (100.0 %)\n")
    assert markdown.is_ours(done.stdout.encode())
