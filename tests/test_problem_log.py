"""A problem is one line in mitmproxy's log."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flowtally import problem_log
from flowtally import vocabulary
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
    problem_log.tell(tag, entry, client)
    (logged,) = caplog.records
    assert (logged.message, logged.levelname, logged.name) == (line, "WARNING", "flowtally")
    assert getattr(logged, "client", None) == client


def test_a_terminal_that_cannot_print_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    def warning(line: str, **_: Any) -> None:
        line.encode("ascii")
        lines.append(line)

    monkeypatch.setattr(problem_log.logger, "warning", warning)
    problem_log.tell(REFUSED, REQUEST | {"url": "http://h/ü"}, None)
    assert lines == ["'-2 ConnectionErr: connection_refused (server): GET http://h/\\xfc'"]


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
