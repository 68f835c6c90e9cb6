"""Budgets, and `flowtally check`, which holds sessions against them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from flowtally import tally as tally_module
from flowtally.budgets import Budget
from flowtally.budgets import BudgetError
from flowtally.budgets import Result
from flowtally.budgets import UnknownNameError
from flowtally.budgets import evaluate
from flowtally.budgets import parse
from flowtally.budgets import status_codes
from flowtally.report.budgets_text import text
from flowtally.report.junit import is_ours
from flowtally.report.junit import junit
from flowtally.rows import OTHER
from flowtally.tally import Tally
from flowtally.vocabulary import BANDS
from flowtally.vocabulary import CAUSES
from flowtally.vocabulary import ERRORS
from hypothesis import given
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
from lab.cli import run
from lab.cli import start
from lab.cli import tally

RECORDS = [
    answered(200, 1, duration_ms=10.0),
    answered(200, 2, duration_ms=20.0),
    answered(404, 3, url="http://shop.example/logo.png"),
    answered(503, 4, duration_ms=900.0, url="http://shop.example/pay"),
    answered(302, 5, error_code=-5, error_name="x", cause="redirect_loop"),
    failed(second=6, port=8000, detail="no one there", duration_ms=3.25),
    failed(second=7, cause="http_response_timeout", duration_ms=5000.0, wait_ms=4000.0),
    event(second=8),
    {**answered(0, 9), "outcome": "ok", "kind": "dns"},
    {**answered(0, 10), "outcome": "unfinished", "url": "http://shop.example/open"},
    {"type": "gap", "session": "00000001", "time": "2026-01-02T03:04:05.000Z", "dropped": 6},
]
for record in RECORDS[-3:-1]:
    for name in ("status", "band", "description", "error_code", "error_name"):
        record.pop(name, None)


def judged(*maxima: str, minima: Sequence[str] = (), of: Tally | None = None) -> list[Result]:
    counted = of or tally(*RECORDS)
    return list(evaluate(parse(maxima, minima, status_codes(counted)), counted, 2))


# --- what has a budget ---


@pytest.mark.parametrize(
    ("name", "actual"),
    [
        ("Informational", 0),
        ("Success", 2),
        ("Redirection", 1),
        ("Client error", 1),
        ("server ERROR", 1),
        ("200", 2),
        ("404", 1),
        ("599", 0),
        ("999", 0),
        ("-1", 0),
        ("-2", 2),
        ("-3", 2),
        ("-4", 0),
        ("-5", 1),
        ("-6", 1),
        ("4XX", 1),
        ("connection_refused", 1),
        ("client_tls_rejected", 1),
        ("redirect_loop", 1),
        ("unknown", 0),
        ("flows", 9),
        ("failures", 2),
        ("events", 1),
        ("problems", 6),
        ("unsuccessful", 3),
        ("unfinished", 1),
        ("ok", 1),
        ("dropped", 6),
        ("unreadable", 2),
        ("request_bytes", 900),
        ("response_bytes", 13_500),
        ("p50_ms", pytest.approx(25, rel=0.02)),
        ("p95_ms", pytest.approx(5000, rel=0.02)),
        ("p99_ms", pytest.approx(5000, rel=0.02)),
        ("max_ms", 5000),
        ("wait_p50_ms", pytest.approx(20, rel=0.02)),
        ("wait_p95_ms", pytest.approx(4000, rel=0.02)),
        ("wait_p99_ms", pytest.approx(4000, rel=0.02)),
        ("WAIT_MAX_MS", 4000),
    ],
)
def test_what_is_counted(name: str, actual: Any) -> None:
    (result,) = judged(f"{name}=0")
    assert result.actual == actual
    assert result.holds == (actual == 0)


APART = [
    *[cancelled(1)] * 3,
    cancelled(2, reason="left_upload", url="http://shop.example/upload"),
    *[answered(401, 3, url="http://shop.example/login", flow="asked")] * 3,
    answer(4, url="http://shop.example/login"),
    *[failed("connection_terminated", 5, reason="collateral")] * 5,
    failed("connection_terminated", 6, reason="reset"),
    failed("connection_terminated", 7, reason="closed", url="http://shop.example/closed"),
    failed("dns_error", 8, background="Windows"),
    event("dns_error", 9, background="Windows"),
    answered(200, 10, cause="grpc_error", error_code=-3, error_name="HTTPError", reason="unknown"),
]


@pytest.mark.parametrize(
    ("name", "actual"),
    [
        ("cancelled", 4),
        ("client_cancelled", 4),
        ("challenges", 1),
        ("collateral", 5),
        ("background", 2),
        ("failures", 7),
        ("unsuccessful", 4),
        ("problems", 5),
        ("flows", 16),
        ("-2", 2),
        ("-3", 3),
        ("connection_terminated", 2),
        ("dns_error", 0),
        ("grpc_error", 1),
        # Of a status code, how many responses had it, whatever came of it.
        ("401", 3),
        ("Client error", 3),
        ("200", 2),
        ("events", 0),
    ],
)
def test_what_is_no_problem_has_a_budget_of_its_own(name: str, actual: int) -> None:
    (result,) = judged(f"{name}=0", of=tally(*APART))
    assert (result.actual, result.holds) == (actual, actual == 0)


def test_a_budget_shows_what_it_counts() -> None:
    results = judged(
        "cancelled=0",
        "client_cancelled=0",
        "challenges=0",
        "collateral=0",
        "connection_terminated=0",
        "flows=0",
        "request_bytes=0",
        "background=0",
        of=tally(*APART),
    )
    found = [[(i.name, i.count, bool(i.id)) for i in result.incidents] for result in results]
    assert found == [
        [("client_cancelled", 3, False), ("client_cancelled (left_upload)", 1, False)],
        [("client_cancelled", 3, False), ("client_cancelled (left_upload)", 1, False)],
        [("401 Unauthorized", 1, True)],
        [("connection_terminated (collateral)", 5, True)],
        [("connection_terminated (reset)", 1, True), ("connection_terminated (closed)", 1, True)],
        [],
        [],
        [],
    ]


def test_reasons_under_other_are_counted_of_their_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally_module, "TABLES", limited(1, "causes"))
    full = tally(*(failed(reason=reason) for reason in "abc"), cancelled())
    results = judged("connection_refused=3", "-2=3", "dns_error=0", "client_cancelled=1", of=full)
    assert [(result.actual, result.holds, result.note) for result in results] == [
        (3, True, ""),
        (3, True, ""),
        (0, True, ""),
        (1, True, ""),
    ]
    # Of what a log of somebody else's has there, nobody knows what it was.
    full.take({"table": "causes", "key": [OTHER] * 3, "flows": 2, "failures": 2})
    results = judged("connection_refused=3", "-2=4", "dns_error=1", "client_cancelled=2", of=full)
    assert [(result.actual, result.holds) for result in results] == [
        (3, False),
        (3, False),
        (0, False),
        (1, False),
    ]
    assert {result.note for result in results} == {
        f"up to 2 more may be among those counted under {OTHER}"
    }


@given(
    st.sampled_from([*BANDS, *map(str, ERRORS), *CAUSES, "flows", "404"]),
    st.integers(0, 10**15 - 1),
)
def test_every_name_is_found_again(name: str, limit: int) -> None:
    assert parse([f"{name}={limit}"], [f" {name.upper()} = {limit} "], []) == (
        Budget(name, "max", limit),
        Budget(name, "min", limit),
    )


@pytest.mark.parametrize(
    ("limit", "maximum", "minimum"), [(1, "EXCEEDED", "ok"), (2, "ok", "ok"), (3, "ok", "MISSED")]
)
def test_limits_are_inclusive(limit: int, maximum: str, minimum: str) -> None:
    assert [judged(f"-2={limit}")[0].verdict, judged(minima=[f"-2={limit}"])[0].verdict] == [
        maximum,
        minimum,
    ]


@pytest.mark.parametrize(
    ("limit", "maximum", "minimum"),
    [(4999, "EXCEEDED", "ok"), (5000, "ok", "ok"), (5001, "ok", "MISSED")],
)
def test_limits_of_times_are_inclusive(limit: int, maximum: str, minimum: str) -> None:
    verdicts = [judged(f"max_ms={limit}")[0].verdict, judged(minima=[f"max_ms={limit}"])[0].verdict]
    assert verdicts == [maximum, minimum]


def test_a_time_that_no_flow_has() -> None:
    record = answered()
    del record["duration_ms"]
    results = judged("p95_ms=1", minima=["p95_ms=1"], of=tally(record))
    assert [(result.actual, result.verdict) for result in results] == [
        (None, "ok"),
        (None, "MISSED"),
    ]
    assert text(results) == [
        "ok      p95_ms  at most 1   no flow had a time",
        "MISSED  p95_ms  at least 1  no flow had a time",
    ]


def test_any_code_of_the_log_has_a_budget() -> None:
    strange = tally(answered(1234))
    assert judged("1234=0", of=strange)[0].actual == 1
    with pytest.raises(UnknownNameError):
        judged("1234=0")
    assert parse(["1234=0"], []) == (Budget("1234", "max", 0),)


def test_what_may_be_among_other_codes_counts_against_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tally_module, "TABLES", limited(1, "codes"))
    full = tally(answered(400), answered(404), answered(404))
    results = judged("404=1", "500=0", minima=["404=1"], of=full)
    assert text(results) == [
        "EXCEEDED  404  at most 1   is 0",
        "  up to 2 more may be among those counted under (other)",
        "   2  -3 HTTPError: 404  shop.example  [abdd6919]",
        "      GET http://shop.example/cart/17",
        "ok        500  at most 0   is 0",
        "MISSED    404  at least 1  is 0",
        "  up to 2 more may be among those counted under (other)",
    ]


# --- what makes no sense ---


@pytest.mark.parametrize(
    ("maxima", "message"),
    [
        (["flows"], "--max 'flows': a budget is NAME=NUMBER, such as 'Server error=0'"),
        (["=5"], "--max '=5': a budget is NAME=NUMBER, such as 'Server error=0'"),
        ([""], "--max '': a budget is NAME=NUMBER, such as 'Server error=0'"),
        (["flows="], "--max 'flows=': '' is no whole number, 0 or more"),
        (["flows=-1"], "--max 'flows=-1': '-1' is no whole number, 0 or more"),
        (["flows=1.5"], "--max 'flows=1.5': '1.5' is no whole number, 0 or more"),
        (["flows=1e3"], "--max 'flows=1e3': '1e3' is no whole number, 0 or more"),
        (["flows=\u0663"], "--max 'flows=\u0663': '\u0663' is no whole number, 0 or more"),
        (["404=few"], "--max '404=few': 'few' is no whole number, 0 or more"),
        (["p95_ms=nan"], "--max 'p95_ms=nan': 'nan' is no number of milliseconds, 0 or more"),
        (["p95_ms=inf"], "--max 'p95_ms=inf': 'inf' is no number of milliseconds, 0 or more"),
        (["p95_ms=-1"], "--max 'p95_ms=-1': '-1' is no number of milliseconds, 0 or more"),
        (["p95_ms=1s"], "--max 'p95_ms=1s': '1s' is no number of milliseconds, 0 or more"),
        (["-2=0", "-2=1"], "--max -2 is given twice, as 0 and as 1"),
        (["OK=0", "ok=1"], "--max ok is given twice, as 0 and as 1"),
        (["p50_ms=1.5", "p50_ms=.5"], "--max p50_ms is given twice, as 1.5 and as 0.5"),
        (["events=3"], "events cannot be at least 4 and at most 3"),
    ],
)
def test_budgets_that_make_no_sense(maxima: list[str], message: str) -> None:
    with pytest.raises(BudgetError) as caught:
        parse(maxima, ["events=4"], [])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("Servererror", " Did you mean 'Server error'?"),
        ("conection_refused", " Did you mean 'connection_refused'?"),
        ("failure", " Did you mean 'failures'?"),
        ("p95", " Did you mean 'p95_ms'?"),
        ("-7", ""),
        ("99", ""),
        ("0404", ""),
        ("Ⅻ", ""),
    ],
)
def test_unknown_names(name: str, suggestion: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        parse([f"{name}=0"], [], [])
    message = f"--max '{name}=0': there is no budget for '{name}'."
    assert str(caught.value) == message + suggestion


def test_the_same_budget_twice_is_one() -> None:
    assert parse(["flows=1", "Flows=1"], ["flows=1"], []) == (
        Budget("flows", "max", 1),
        Budget("flows", "min", 1),
    )


# --- what is printed ---

CHECKED = """\
EXCEEDED  Server error        at most 0    is 1
   1  -3 HTTPError: 503 Service unavailable  shop.example  [e611d7b3]
      GET http://shop.example/pay
ok        Client error        at most 1    is 1
EXCEEDED  -2                  at most 0    is 2
   1  -2 ConnectionErr: connection_refused  server  shop.example:8000  [20c1f4a3]
      GET http://shop.example/cart/17 (no one there)
      Nothing listens on that port: check that the server is running, and the port number.
      Without a proxy: net::ERR_CONNECTION_REFUSED · curl 7 · ECONNREFUSED · requests
      ConnectionError (NewConnectionError)
   1  -2 ConnectionErr: client_tls_rejected  client  pinned.example  [125a36ca]
      pinned.example
      Install mitmproxy's CA certificate on the client (http://mitm.it); an app that pins its
      certificate must be rebuilt without pinning, or its host excluded with ignore_hosts.
      The client says: net::ERR_CERT_AUTHORITY_INVALID · curl 60 · UNABLE_TO_VERIFY_LEAF_SIGNATURE ·
      requests SSLError
EXCEEDED  connection_refused  at most 0    is 1
   1  -2 ConnectionErr: connection_refused  server  shop.example:8000  [20c1f4a3]
EXCEEDED  404                 at most 0    is 1
   1  -3 HTTPError: 404 Not found  shop.example  [abdd6919]
      GET http://shop.example/logo.png
EXCEEDED  failures            at most 1    is 2
   1  -2 ConnectionErr: connection_refused  server  shop.example:8000  [20c1f4a3]
   1  -6 Timeout: http_response_timeout  server  shop.example  [008fb975]
      GET http://shop.example/cart/17
      The server took the request and did not answer in time: look at what it was doing, or let the
      client wait longer.
      Without a proxy: net::ERR_TIMED_OUT · curl 28 · UND_ERR_HEADERS_TIMEOUT · requests ReadTimeout
EXCEEDED  unfinished          at most 0    is 1
   1  unfinished  shop.example
      GET http://shop.example/open
EXCEEDED  max_ms              at most 800  is 5000
  5000 ms: GET http://shop.example/cart/17
  900 ms: GET http://shop.example/pay
MISSED    flows               at least 10  is 9
"""

MAXIMA = [
    "Server error=0",
    "client error=1",
    "-2=0",
    "connection_refused=0",
    "404=0",
    "failures=1",
    "unfinished=0",
    "max_ms=800.0",
]


def arguments(maxima: Sequence[str], minima: Sequence[str] = ()) -> list[str]:
    options = [("--max", text) for text in maxima] + [("--min", text) for text in minima]
    return [word for option in options for word in option]


def write_log(folder: Path, *records: Record) -> Path:
    log = folder / "log.jsonl"
    log.write_bytes(lines(start(), *records, final(*records)))
    return log


def test_check_of_a_log(tmp_path: Path) -> None:
    log = write_log(tmp_path, *RECORDS)
    done = run("check", log, *arguments(MAXIMA, ["flows=10"]))
    assert done.stdout == CHECKED
    assert (done.returncode, done.stderr) == (1, "")


def test_all_budgets_hold(tmp_path: Path) -> None:
    limits = ["--max", "-2=2", "--max=-6=1", "--max=dropped=6", "--min=-3=1"]
    done = run("check", write_log(tmp_path, *RECORDS), *limits)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "ok  -2       at most 2   is 2\nok  -6       at most 1   is 1\n"
        "ok  dropped  at most 6   is 6\nok  -3       at least 1  is 2\n"
    )


@pytest.mark.parametrize("option", [["--max", "-2=0"], ["--max=-2=0"]])
def test_a_name_may_begin_with_a_hyphen(tmp_path: Path, option: list[str]) -> None:
    done = run("check", *option, write_log(tmp_path, answered()))
    assert (done.returncode, done.stdout) == (0, "ok  -2  at most 0  is 0\n")


WHOLE = [start(), answered(200), answered(200)]


@pytest.mark.parametrize(
    ("log", "name", "said"),
    [
        (lines(*WHOLE)[:-9], "unreadable", "1 line is unreadable (--max unreadable=1 allows that)"),
        (
            b"nothing\n\xff\n" + lines(*WHOLE),
            "unreadable",
            "2 lines are unreadable (--max unreadable=2 allows that)",
        ),
        (
            lines(start(), {"seq": 3, **answered(200)}),
            "dropped",
            "1 record is missing (--max dropped=1 allows that)",
        ),
        (
            lines(*WHOLE, {**RECORDS[-1], "seq": 10}),
            "dropped",
            "6 records are missing (--max dropped=6 allows that)",
        ),
    ],
    ids=["torn", "foreign", "hole", "gap"],
)
def test_what_is_missing_may_break_a_budget(
    tmp_path: Path, log: bytes, name: str, said: str
) -> None:
    """But not one that is broken anyway, and not where a budget allows it."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(log)
    done = run("check", path, "--max=problems=0")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"flowtally: {said}: what is missing may break a budget"
    assert run("check", path, "--max=problems=0", "--max=flows=0").returncode == 1
    count = re.findall("=([0-9]+) ", said)[0]
    assert run("check", path, "--max=problems=0", f"--max={name}={count}").returncode == 0
    assert run("check", path, "--max=problems=0", f"--max={name}={int(count) - 1}").returncode == 1


def test_a_foreign_line_in_a_log_that_misses_nothing_breaks_no_budget(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    ended = lines(*WHOLE, final(*WHOLE))
    path.write_bytes(b"Listening on 8080\n" + ended)
    assert run("check", path, "--max=problems=0").returncode == 0
    # The statistics tell of what a line held, but not which flows it was about.
    torn = ended.replace(b'{"seq": 3', b'{"seq: 3', 1)
    path.write_bytes(torn)
    assert run("check", path, "--max=problems=0").returncode == 0
    done = run("check", path, "--max=problems=0", "--status=200")
    assert done.returncode == 2
    assert "1 record is missing" in done.stderr


def test_standard_input_several_logs_and_a_session_that_did_not_end(tmp_path: Path) -> None:
    log = write_log(tmp_path, *RECORDS)
    other = [record | {"session": "00000002"} for record in (start(), *RECORDS)]
    stdin = lines(*other) + b'{"type":"fl'
    limits = ["--min", "flows=18", "--max=unreadable=1", "--max=dropped=12"]
    done = run("check", log, "-", *limits, stdin=stdin)
    assert done.returncode == 0
    assert done.stdout == (
        "ok  unreadable  at most 1    is 1\nok  dropped     at most 12   is 12\n"
        "ok  flows       at least 18  is 18\n"
    )
    assert done.stderr.splitlines() == [
        "standard input, line 13: torn line; skipped",
        "1 unreadable line skipped",
        "Session 00000002 did not end cleanly, or is still running",
    ]


def test_the_newest_log_is_the_default(tmp_path: Path) -> None:
    folder = tmp_path / ".mitmproxy" / "flowtally"
    folder.mkdir(parents=True)
    write_log(folder, answered())
    done = run("check", "--max", "flows=1", HOME=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "ok  flows  at most 1  is 1\n")


EXAMPLE = "flowtally check --max 'Server error=0' --max -2=0 --min flows=1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{log}", f"flowtally: no budget is given; for example: {EXAMPLE}\n"),
        ("{log} --max flows=x", "flowtally: --max 'flows=x': 'x' is no whole number, 0 or more\n"),
        ("{log} --max 77=1", "flowtally: --max '77=1': there is no budget for '77'. There are\n"),
        (
            "{log} --min Sucess=1",
            "flowtally: --min 'Sucess=1': there is no budget for 'Sucess'. "
            "Did you mean 'Success'? There are\n",
        ),
        ("{log} --max", "Error: Option '--max' requires an argument.\n"),
        ("{log} --most flows=1", "Error: No such option"),
        ("--max flows=1 {none}", "flowtally: {none}: No such file or directory\n"),
        ("--max flows=1 /dev/null", "flowtally: no flowtally session in /dev/null: it is empty\n"),
        (
            "{log} --max flows=1 --junit {none}/x",
            "flowtally: {none}/x: cannot be written: there is no folder {none}\n",
        ),
    ],
)
def test_bad_usage(tmp_path: Path, words: str, message: str) -> None:
    log, none = write_log(tmp_path, answered()), tmp_path / "none"
    given = [word.format(log=log, none=none) for word in words.split()]
    done = run("check", *given)
    assert done.returncode == 2
    assert message.format(none=none) in done.stderr


def test_an_unknown_name_gets_the_list(tmp_path: Path) -> None:
    done = run("check", write_log(tmp_path, answered()), "--max", "nope=1")
    for word in (
        "bands: Informational",
        "status codes: 100",
        "error codes: -1, -2",
        "  causes: dns",
    ):
        assert word in done.stderr
    for name in (*BANDS, *CAUSES, "unreadable", "wait_max_ms"):
        assert name in done.stderr
    assert max(map(len, done.stderr.splitlines())) <= 100


# --- JUnit XML ---

JUNIT = """\
<?xml version='1.0' encoding='utf-8'?>
<testsuites tests="3" failures="2" errors="0" skipped="0">
  <testsuite name="flowtally" tests="3" failures="2" errors="0" skipped="0" time="0">
    <properties>
      <property name="log" value="LOG" />
      <property name="session" value="00000001" />
    </properties>
    <testcase classname="flowtally.check" name="connection_refused at most 0" time="0">
      <failure message="connection_refused is 1; the budget is at most 0" type="EXCEEDED">\
   1  -2 ConnectionErr: connection_refused  server  shop.example:8000  [20c1f4a3]
      GET http://shop.example/cart/17 (no one there)
      Nothing listens on that port: check that the server is running, and the port number.
      Without a proxy: net::ERR_CONNECTION_REFUSED · curl 7 · ECONNREFUSED · requests
      ConnectionError (NewConnectionError)</failure>
    </testcase>
    <testcase classname="flowtally.check" name="404 at most 1" time="0" />
    <testcase classname="flowtally.check" name="flows at least 10" time="0">
      <failure message="flows is 9; the budget is at least 10" type="MISSED" />
    </testcase>
  </testsuite>
</testsuites>
"""


def test_junit(tmp_path: Path) -> None:
    log, out = write_log(tmp_path, *RECORDS), tmp_path / "out.xml"
    command = ["check", str(log), *arguments(["connection_refused=0", "404=1"], ["flows=10"])]
    for _ in range(2):  # its own it overwrites
        assert run(*command, "--junit", out).returncode == 1
        assert out.read_text("utf-8") == JUNIT.replace("LOG", str(log))
    out.write_text("a thesis")
    done = run(*command, "--junit", out)
    assert done.returncode == 2
    assert done.stderr == (
        f"flowtally: {out}: exists, and flowtally did not write it; --force overwrites it\n"
    )
    assert out.read_text() == "a thesis"
    assert run(*command, "--junit", out, "--force").returncode == 1
    assert is_ours(out.read_bytes())


@pytest.mark.parametrize(
    ("budget", "status"),
    [
        (("--max", "failures=0"), 2),
        (("--min", "flows=2"), 2),  # the second may be in the part that was not read
        (("--max", "events=0"), 1),  # what is too much stays too much
    ],
)
def test_a_capture_read_in_part_passes_no_gate(
    tmp_path: Path, budget: Sequence[str], status: int
) -> None:
    missing = event("proxy_internal_error", reason="capture_incomplete")
    done = run("check", write_log(tmp_path, answered(200), missing), *budget)
    assert done.returncode == status
    assert ("in part only" in done.stderr) == (status == 2)


def test_a_hostile_log(tmp_path: Path) -> None:
    evil: Any = {
        "session": HOSTILE,
        "host": HOSTILE,
        "method": HOSTILE,
        "url": f"http://{HOSTILE}/",
        "detail": HOSTILE,
    }
    log, out = tmp_path / "a\x1b[31m]]>\ufffe.jsonl", tmp_path / "out"
    log.write_bytes(
        lines(
            start(HOSTILE),
            failed(**evil),
            event(**evil) | {"cause": HOSTILE},
            answered(500, **evil | {"description": HOSTILE}),
        )
        + b"\x1b[31m\n"
    )
    budgets = arguments(["problems=0", "-2=0", "500=0", "max_ms=1"])
    done = run("check", log, *budgets, "--junit", out)
    assert done.returncode == 1
    assert all(line.isprintable() for line in done.stdout.splitlines())
    assert all(line.isprintable() for line in done.stderr.splitlines())
    assert max(map(len, done.stdout.splitlines())) <= 100
    suite = ElementTree.fromstring(out.read_bytes()).find("testsuite")
    assert suite is not None
    assert suite.get("failures") == "4"
    assert "]]>" in str(suite.findtext("testcase/failure"))
    assert "owned" in json.dumps([dict(found.attrib) for found in suite.iter("property")])


@given(st.lists(st.text()), st.text())
def test_junit_is_well_formed_whatever_is_in_it(examples: list[str], other: str) -> None:
    result = Result(Budget("flows", "max", 0), 1, False, (), examples, other)
    document = junit([result], [other], [other])
    assert ElementTree.fromstring(document).tag == "testsuites"
    assert is_ours(document[:4096])


@given(st.lists(st.text(), max_size=5), st.text(), st.sampled_from([1, 80, 90, 300]))
def test_nothing_is_wider_than_the_terminal(examples: list[str], other: str, width: int) -> None:
    result = Result(Budget("flows", "max", 0), 1, False, (), examples, other)
    for line in text([result, result], width):
        assert line.isprintable()
        assert len(line) <= min(100, max(80, width))


def test_statistics_with_odd_examples_do_no_harm() -> None:
    odd = {"time": "never", "url": HOSTILE, "status": -1, "wait_ms": 9e14, "duration_ms": 9000}
    found = tally(*RECORDS)
    for row in (
        {
            "table": "causes",
            "key": ["-2", HOSTILE, HOSTILE],
            "flows": 1,
            "failures": 1,
            "examples": [odd, {"time": ""}],
        },
        {"table": "causes", "key": ["(other)"] * 3, "flows": 1, "examples": [odd]},
        {"table": "codes", "key": ["(other)", "(other)"], "flows": 1},
    ):
        found.take(row)
    budgets = ("connection_refused=0", "problems=0", "404=0", "-2=0", "max_ms=1", "wait_max_ms=1")
    results = judged(*budgets, of=found)
    assert all(line.isprintable() for line in text(results))
    assert {result.verdict for result in results} == {"EXCEEDED"}
