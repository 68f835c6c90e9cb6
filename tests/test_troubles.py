"""What mitmproxy logs of its own troubles: which lines are told, and how often."""

from __future__ import annotations

import asyncio
import errno
from types import CodeType

import pytest
from flowtally.troubles import MAX_TOLD
from flowtally.troubles import OUT_OF_FILES
from flowtally.troubles import QUIET
from flowtally.troubles import RETRY
from flowtally.troubles import Troubles
from flowtally.vocabulary import CRASHED
from flowtally.vocabulary import Why

NOW = 1000.0
NO_FILES = OSError(errno.EMFILE, "Too many open files")


def raised(exception: BaseException, function: str, file: str) -> BaseException:
    """An exception that passed through a function of that name."""
    code: CodeType = compile(f"def {function}(e):\n raise e\n{function}(e)", file, "exec")
    try:
        exec(code, {"e": exception})
    except BaseException as passed:
        return passed
    raise AssertionError


BUG = raised(ValueError("bug"), "handle_stream", "proxy/mode_servers.py")


@pytest.mark.parametrize(
    ("logger", "message", "exception", "why"),
    [
        ("asyncio", "socket.accept() out of system resource", NO_FILES, OUT_OF_FILES),
        ("mitmproxy.master", "x", OSError(errno.ENFILE, ""), OUT_OF_FILES),
        ("mitmproxy.master", "x", OSError(errno.EPERM, ""), None),
        ("asyncio", "socket.accept() out of system resource", None, None),
        # a handler of a connection, and what is none
        ("asyncio", "Unhandled exception in client_connected_cb", BUG, CRASHED),
        ("mitmproxy.master", "Unhandled error in task.", BUG, CRASHED),
        ("asyncio", "Task exception was never retrieved", ValueError("bug"), None),
        ("asyncio", "x", raised(ValueError(), "open_connection", "proxy/server.py"), None),
        ("asyncio", "x", raised(ValueError(), "handle_stream", "somebody.py"), None),
        (
            "asyncio",
            "x",
            raised(asyncio.CancelledError(), "handle_stream", "proxy/mode_servers.py"),
            None,
        ),
        (
            "mitmproxy_rs.task",
            "TCP connection handler coroutine raised an exception:\nTraceback",
            None,
            Why("proxy_internal_error", "handler_crashed"),
        ),
        (
            "mitmproxy.proxy.mode_servers",
            "Transparent mode failure: FileNotFoundError(2, 'No such file')",
            None,
            Why("proxy_configuration_error", "transparent_mode"),
        ),
        (
            "mitmproxy.addons.readfile",
            "Failed to read x: Invalid data format.",
            ValueError(),
            Why("proxy_internal_error", "capture_incomplete"),
        ),
        # the words of another logger's
        ("asyncio", "Transparent mode failure: x", None, None),
        ("mitmproxy.proxy.mode_servers", "Failed to read x", None, None),
    ],
)
def test_what_a_line_means(
    logger: str, message: str, exception: BaseException | None, why: Why | None
) -> None:
    assert Troubles().log_line(logger, message, exception, NOW) == why


def test_running_out_of_file_descriptors_is_told_once() -> None:
    troubles = Troubles()
    assert not troubles
    told = [troubles.log_line("asyncio", "", NO_FILES, NOW + second) for second in range(5)]
    assert told == [OUT_OF_FILES, None, None, None, None]
    assert troubles
    # Another time.
    assert troubles.log_line("asyncio", "", NO_FILES, NOW + 4 + QUIET) is None
    assert troubles.log_line("asyncio", "", NO_FILES, NOW + 4 + 2 * QUIET + 1) == OUT_OF_FILES


def test_how_often_other_lines_are_told() -> None:
    troubles = Troubles()
    told = [troubles.log_line("asyncio", "", BUG, NOW) for _ in range(MAX_TOLD + 2)]
    assert told == [CRASHED] * MAX_TOLD + [None] * 2


@pytest.mark.parametrize(
    ("accepted", "starved"),
    [
        (NOW - 0.1, False),
        (NOW, True),
        (NOW + 10 + RETRY, True),
        (NOW + 10 + RETRY + 0.1, False),
    ],
)
def test_who_had_to_wait(accepted: float, starved: bool) -> None:
    troubles = Troubles()
    assert not troubles.starved(accepted)
    for moment in (NOW, NOW + 10):
        troubles.log_line("asyncio", "", NO_FILES, moment)
    assert troubles.starved(accepted) == starved


def test_what_is_over_is_forgotten() -> None:
    troubles = Troubles()
    troubles.log_line("asyncio", "", NO_FILES, NOW)
    troubles.settle(NOW + QUIET)
    assert troubles
    troubles.settle(NOW + QUIET + 0.1)
    assert not troubles
    assert not troubles.starved(NOW)
