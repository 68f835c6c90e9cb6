"""The digest: what went wrong, short whatever the session."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flowtally.budgets import evaluate
from flowtally.budgets import parse
from flowtally.report.budgets_text import limit
from flowtally.report.digest import MAX_BUDGETS
from flowtally.report.digest import MAX_LINES
from flowtally.report.digest import MAX_TOKENS
from flowtally.report.digest import digest
from flowtally.report.digest import tokens
from flowtally.tally import Tally
from flowtally.tally import incident_of
from hypothesis import given
from hypothesis import strategies as st
from lab.cli import HOSTILE
from lab.cli import answered
from lab.cli import cancelled
from lab.cli import event
from lab.cli import failed
from lab.cli import limited
from lab.cli import run
from lab.cli import tally
from lab.sessions import everything

Record = dict[str, Any]

BROKEN = failed(
    "connection_refused", 10, host="api", port=8443, url="http://api:8443/items/7", side="server"
)


def of(*records: Record) -> list[str]:
    return digest(tally(*records))


def test_all_of_an_incident_is_there() -> None:
    other = {**BROKEN, "url": "http://api:8443/", "time": "2026-01-02T03:04:30.000Z"}
    text = "\n".join(of(BROKEN, other, answered(host="api", port=8443)))
    assert f"[{incident_of(BROKEN)}]" in text
    assert "`connection_refused -2, server` at `api:8443`: 2 of 3 (66.7 %)" in text
    assert re.search(r"\d\d:\d\d:15 to \d\d:\d\d:30", text)
    assert "`GET http://api:8443/` (1) and 1 more" in text
    assert "Nothing listens on that port" in text
    assert "Without a proxy: net::ERR_CONNECTION_REFUSED · curl 7 · ECONNREFUSED" in text
    assert re.search(r"- \d\d:\d\d:30 `GET http://api:8443/", text)
    assert f"`flowtally flows --incident {incident_of(BROKEN)}`" in text


def test_what_was_said_is_not_said_again() -> None:
    text = "\n".join(of(BROKEN, {**BROKEN, "host": "other"}))
    assert text.count("Nothing listens on that port") == 1
    assert text.count("\n1. `connection_refused") == text.count("\n2. `connection_refused") == 1


@pytest.mark.parametrize("records", [[], [answered()], [answered(404) | {"background": "x"}]])
def test_no_problems_are_said(records: list[Record]) -> None:
    lines = of(*records)
    assert "No problems" in lines
    assert not any("--incident" in line for line in lines)


HOSTS = st.sampled_from(["h", "api.example", "x" * 200, HOSTILE, "`", "|", "<script>"])
FAILURES = st.builds(
    lambda cause, host, path: failed(cause, host=host, url=f"http://{host}/{path}", detail=path),
    st.sampled_from(["connection_refused", "dns_error", "grpc_error", "tls_alert_received"]),
    st.one_of(HOSTS, st.text(max_size=30)),
    st.text(max_size=400),
)


@given(st.lists(FAILURES, max_size=60))
def test_it_is_short_whatever_the_session(records: list[Record]) -> None:
    lines = of(*records, *(event(host=f"h{n}") for n in range(len(records))))
    assert len(lines) <= MAX_LINES
    assert tokens(lines) <= MAX_TOKENS
    assert all(line.isprintable() for line in lines)


def test_it_is_short_for_everything_and_many_budgets() -> None:
    everything_of = tally(*everything())
    budgets = parse([f"{code}=0" for code in (*range(400, 430), *range(-6, 0))], [], None)
    lines = digest(everything_of, [r for r in evaluate(budgets, everything_of) if not r.holds])
    assert "## Broken budgets" in lines
    assert len(lines) <= MAX_LINES
    assert tokens(lines) <= MAX_TOKENS
    assert any(re.fullmatch(r"- and \d+ more incidents: .*", line) for line in lines)


def test_a_budget_has_the_words_that_a_terminal_gets() -> None:
    found = tally(answered(200))
    (result,) = evaluate(parse(["p95_ms=12345.678"], [], None), found)
    (line,) = (line for line in digest(found, [result]) if "p95_ms" in line)
    assert line.startswith("- `p95_ms: at most 12345.678`, is ")
    assert limit(result.budget) == "at most 12345.678"


def numbered(lines: list[str]) -> list[str]:
    return [line for line in lines if re.match(r"\d+\. ", line)]


MANY = [failed(host=f"h{n}", url=f"http://h{n}/a", second=n) for n in range(80)]


def test_incidents_for_which_there_is_no_room_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = of(*MANY)
    (more,) = (line for line in lines if line.startswith("- and "))
    left_out = 80 - len(numbered(lines))
    assert more == f"- and {left_out} more incidents: `flowtally report --json`"
    (more,) = (line for line in digest(tally(*MANY), logs=["a b"]) if line.startswith("- and "))
    assert more.endswith(" more incidents: `flowtally report 'a b' --json`")
    monkeypatch.setattr("flowtally.report.digest.MAX_TOKENS", 100_000)
    assert len(of(*MANY)) == MAX_LINES


def test_all_are_named_before_more_is_said_of_any_but_the_first() -> None:
    hosts = [f"h{number:02}.example" for number in range(11)]
    lines = of(*(failed(host=host, url=f"http://{host}/") for host in hosts), answered(500))
    assert [host for host in hosts if not any(host in line for line in numbered(lines))] == []
    assert numbered(lines)[-1].startswith("12. ")
    assert lines[lines.index(numbered(lines)[0]) + 1].startswith("   - ")


def test_whoever_leaves_after_equal_waits_is_named() -> None:
    left = [cancelled(second, duration_ms=2000.0 + second) for second in range(5)]
    (said,) = (line for line in of(*left) if "Equal" in line)
    assert said.startswith("Equal waits: `GET http://shop.example/")
    assert ": 127.0.0.1 left 5 of 5 after 2.0 s: the client's own timeout" in said


def test_of_several_days_the_days_are_said() -> None:
    (line,) = numbered(of(answered(500), answered(500, 30), answered(500, 25 * 86400)))
    assert re.search("2026-01-0[123] ..:..:.. to 2026-01-2[678] ..:..:..", line)
    assert "2026" not in "".join(of(answered(500), answered(500, 30)))


def test_of_several_days_a_moment_has_its_day_too() -> None:
    text = "\n".join(of(answered(500), answered(200, 25 * 86400)))
    assert re.search(r": 1 of 2 \(50.0 %\), 2026-01-0[123] ..:..:.. \[", text)
    assert re.search(r"- 2026-01-0[123] ..:..:.. `GET ", text)


def test_an_incident_of_one_moment_that_is_not_new_has_one_time() -> None:
    (line,) = numbered(of(BROKEN))
    assert re.search(r": 1 of 1 \(100.0 %\), \d\d:\d\d:15 \[\w{8}\]$", line)


def test_what_is_new_is_said_to_be() -> None:
    lines = of(answered(), failed(second=100, host="api"), answered(second=120))
    (line,) = numbered(lines)
    assert ", new [" in line


def test_endpoints_without_end_are_said_to_be_more() -> None:
    text = "\n".join(of(*(failed(url=f"http://shop.example/{'x' * n}") for n in range(30))))
    assert "`GET http://shop.example/` (1) and 19 or more more" in text


def test_what_has_no_id_is_shown_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtally.tally.TABLES", limited(0, "incidents"))
    text = "\n".join(of(BROKEN))
    assert "1. `(other)" in text
    assert "[]" not in text
    assert "--incident" not in text


def test_of_many_budgets_some_are_named() -> None:
    found = tally(BROKEN)
    for count, more in ((9, []), (10, []), (12, ["- and 2 more budgets"])):
        budgets = parse([], [f"{code}=1" for code in range(400, 400 + count)], None)
        lines = digest(found, evaluate(budgets, found))
        assert len([line for line in lines if line.startswith("- `4")]) == min(count, MAX_BUDGETS)
        assert [line for line in lines if line.startswith("- and ")] == more


def test_of_what_is_no_problem_some_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [answered(404, background="x"), failed(reason="collateral")]
    monkeypatch.setattr("flowtally.report.digest.MAX_OTHERS", 2)
    (line,) = (line for line in of(*records) if line.startswith("Not among"))
    assert line.count(";") == 1
    assert "…" not in line
    monkeypatch.setattr("flowtally.report.digest.MAX_OTHERS", 1)
    (line,) = (line for line in of(*records) if line.startswith("Not among"))
    assert line.endswith("`; …")


def test_an_empty_tally_says_that_nothing_came_through() -> None:
    assert "Nothing came through: is the client pointed at the proxy?" in digest(Tally())


def test_the_command_prints_it(tmp_path: Any) -> None:
    from lab.cli import lines

    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(BROKEN))
    done = run("why", log)
    assert done.returncode == 0
    assert done.stdout.splitlines() == digest(tally(BROKEN), logs=[str(log)])
    assert "did not end cleanly" in done.stderr
