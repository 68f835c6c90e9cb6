"""A problem is one line in mitmproxy's log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from flowtally import problem_log
from flowtally import vocabulary
from flowtally.problem_log import ProblemLog
from mitmproxy.log import LegacyLogEvents
from mitmproxy.test import taddons

REFUSED = {
    "outcome": "error",
    "error_code": -2,
    "error_name": "ConnectionErr",
    "cause": "connection_refused",
    "side": "server",
}
REQUEST = {"type": "flow", "kind": "http", "method": "GET", "url": "http://h/", "host": "h"}


@pytest.mark.parametrize(
    ("tag", "entry", "line"),
    [
        (
            vocabulary.STATUS_TAGS[404],
            REQUEST,
            "-3 HTTPError: 404 Client error, Not found: GET http://h/",
        ),
        (
            REFUSED,
            REQUEST,
            "-2 ConnectionErr: connection_refused (server): GET http://h/",
        ),
        (
            REFUSED | {"reason": "reset"},
            REQUEST,
            "-2 ConnectionErr: connection_refused (reset, server): GET http://h/",
        ),
        (
            REFUSED | {"status": 200, "band": "Success", "description": "OK", "detail": "why"},
            REQUEST,
            "-2 ConnectionErr: connection_refused (server): 200 Success, OK: GET http://h/ (why)",
        ),
        (
            REFUSED,
            {"type": "flow", "kind": "tcp", "host": "h", "port": 0},
            "-2 ConnectionErr: connection_refused (server): tcp h:0",
        ),
        (
            REFUSED,
            {"type": "flow", "kind": "dns", "method": "A", "host": "h"},
            "-2 ConnectionErr: connection_refused (server): A h",
        ),
        (
            REFUSED,
            {"type": "event", "host": "h", "port": 443},
            "-2 ConnectionErr: connection_refused (server): h:443",
        ),
        (
            REFUSED,
            {"type": "event"},
            "-2 ConnectionErr: connection_refused (server): no flow",
        ),
    ],
)
@pytest.mark.parametrize("client", [("10.0.0.1", 1), None])
def test_lines(
    caplog: pytest.LogCaptureFixture,
    tag: dict[str, Any],
    entry: dict[str, Any],
    line: str,
    client: Any,
) -> None:
    ProblemLog().tell(tag, entry, client)
    (logged,) = caplog.records
    assert (logged.message, logged.levelname, logged.name) == (line, "WARNING", "flowtally")
    assert getattr(logged, "client", None) == client


class Terminal(logging.Handler):
    """Prints as mitmproxy's own handler does (addons/termlog.py): what cannot be printed raises."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self.encoding = encoding
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage().encode(self.encoding)
        self.lines.append(record.getMessage())


@pytest.fixture
def terminal(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    terminal = Terminal(getattr(request, "param", "utf-8"))
    problem_log.logger.addHandler(terminal)
    yield terminal
    problem_log.logger.removeHandler(terminal)


@pytest.mark.parametrize("terminal", ["ascii"], indirect=True)
def test_a_terminal_that_cannot_print_it(terminal: Terminal) -> None:
    ProblemLog().tell(REFUSED, REQUEST | {"url": "http://h/ü"}, None)
    assert terminal.lines == ["'-2 ConnectionErr: connection_refused (server): GET http://h/\\xfc'"]


def test_a_problem_that_repeats_is_told_the_first_tenth_and_hundredth_time(
    terminal: Terminal,
) -> None:
    problems = ProblemLog()
    for number in range(250):
        problems.tell(REFUSED, REQUEST | {"url": f"http://h/users/{number}"}, None)
    line = "-2 ConnectionErr: connection_refused (server): GET http://h/users/"
    assert terminal.lines == [f"{line}0", f"{line}9 [10 times]", f"{line}99 [100 times]"]


@pytest.mark.parametrize(
    ("tag", "entry"),
    [
        (REFUSED | {"cause": "dns_error"}, REQUEST),
        (REFUSED | {"reason": "reset"}, REQUEST),
        (REFUSED, REQUEST | {"host": "other"}),
        (REFUSED, REQUEST | {"url": "http://h/other"}),
        (REFUSED, {"type": "event", "host": "h"}),
        (vocabulary.STATUS_TAGS[404], REQUEST),
    ],
)
def test_another_problem_is_told_too(
    terminal: Terminal, tag: dict[str, Any], entry: dict[str, Any]
) -> None:
    problems = ProblemLog()
    problems.tell(REFUSED, REQUEST, None)
    problems.tell(tag, entry, None)
    assert len(terminal.lines) == 2


def test_how_often_is_known_of_so_many_problems(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problem_log, "MAX_PROBLEMS", 2)
    problems = ProblemLog()
    for host in ("a", "b", "a", "c", "a"):
        problems.tell(REFUSED, {"type": "event", "host": host}, None)
    assert [line[-1] for line in terminal.lines] == ["a", "b", "c", "a"]


def test_a_query_of_that_name_is_a_problem(terminal: Terminal) -> None:
    named = {"outcome": "status", "cause": "graphql_error", "reason": "collateral"}
    ProblemLog().tell(REFUSED | named, REQUEST, None)
    assert len(terminal.lines) == 1


@pytest.mark.parametrize("more", [{"background": "Chromium"}, {"reason": "collateral"}])
def test_what_is_nobodys_problem_is_not_told(terminal: Terminal, more: dict[str, str]) -> None:
    ProblemLog().tell(REFUSED | more, REQUEST, None)
    assert terminal.lines == []


@pytest.mark.parametrize(
    ("level", "read"),
    [(logging.INFO, True), (logging.WARNING, True), (logging.ERROR, False), (None, False)],
)
def test_whether_anybody_reads(
    monkeypatch: pytest.MonkeyPatch, level: int | None, read: bool
) -> None:
    with taddons.context(loadcore=False) as context:
        handlers: list[logging.Handler] = [LegacyLogEvents(context.master)]
        if level is not None:
            handlers.append(logging.NullHandler(level))
        monkeypatch.setattr(logging.getLogger(), "handlers", handlers)
        assert problem_log.is_read() == read
