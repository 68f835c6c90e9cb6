"""What is taken from mitmproxy's internals: it is given back, and it may be missing."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated
from flowtally import internals
from mitmproxy import connection
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._http2 import Http2Connection


@pytest.fixture
def told() -> Iterator[list[tuple[Any, ...]]]:
    found: list[tuple[Any, ...]] = []
    undo = internals.watch_errors(lambda *line: found.append(line))
    yield found
    undo()


def test_errors_of_the_loggers_that_are_watched(told: list[tuple[Any, ...]]) -> None:
    problem = ValueError("bug")
    for name in (*internals.ITSELF, "mitmproxy_rs.task", "somebody"):
        logging.getLogger(name).error("message", exc_info=problem)
        logging.getLogger(name).warning("no error")
    logging.getLogger("asyncio").error("%s", "no exception")
    logging.getLogger("asyncio").error(problem)
    assert told == [
        *((name, "message", problem) for name in (*internals.ITSELF, "mitmproxy_rs.task")),
        ("asyncio", "%s", None),
    ]


def test_the_watch_can_be_taken_back() -> None:
    before = {name: list(logging.getLogger(name).handlers) for name in internals.ITSELF}
    internals.watch_errors(lambda *_: None)()
    assert before == {name: list(logging.getLogger(name).handlers) for name in internals.ITSELF}


@pytest.mark.parametrize("problem", [ValueError("bug"), None, asyncio.CancelledError()])
def test_a_task_that_dies(problem: BaseException | None, caplog: pytest.LogCaptureFixture) -> None:
    died: list[BaseException] = []

    async def task() -> None:
        internals.watch_task(died.append)
        await asyncio.sleep(0)
        if problem is not None:
            raise problem

    async def main() -> None:
        running = asyncio.create_task(task())
        await asyncio.wait([running])

    asyncio.run(main())
    gc.collect()
    failed = isinstance(problem, Exception)
    assert died == ([problem] if failed else [])
    # asyncio tells of it as it would without the watch.
    assert ("Task exception was never retrieved" in caplog.text) == failed


def test_without_a_loop_no_task_is_watched() -> None:
    internals.watch_task(lambda _: pytest.fail("nothing can die"))


class Event:
    """An event of mitmproxy's, as far as it matters."""

    def __init__(self, peer: Any) -> None:
        self.connection = peer


def test_who_speaks() -> None:
    client = connection.Client(peername=("c", 1), sockname=("", 0))
    server = connection.Server(address=("s", 1))
    found = []

    def layer(event: Event) -> Any:
        yield from inner(event)

    def inner(event: Event) -> Any:  # noqa: ARG001  # it is looked for in the frame
        yield "log"

    def process(command_generator: Any) -> Any:
        while (command := next(command_generator, None)) is not None:
            yield command

    def server_event(event: Event, layer_commands: Any) -> None:  # noqa: ARG001
        for _ in layer_commands:
            found.append(internals.speaking())

    server_event(Event(client), layer(Event(server)))
    server_event(Event(client), process(layer(Event(server))))
    server_event(Event(client), layer(Event("no connection")))
    server_event(Event(client), iter(["log"]))
    assert found == [server, server, None, None]
    assert internals.speaking() is None


@contextmanager
def watched() -> Iterator[list[tuple[Any, ...]]]:
    told: list[tuple[Any, ...]] = []
    undo = internals.watch_faults(lambda *at: told.append(at), lambda *at: told.append(at))
    yield told
    undo()


def test_the_watches_are_taken_away_again() -> None:
    before = (Http2Connection.protocol_error, QuicConnection._close_begin)
    with watched():
        assert Http2Connection.protocol_error is not before[0]
        assert QuicConnection._close_begin is not before[1]
    assert (Http2Connection.protocol_error, QuicConnection._close_begin) == before
    original = _http1.make_error_response
    undo = internals.watch_error_responses(lambda *_: None)
    assert _http1.make_error_response is not original
    undo()
    assert _http1.make_error_response is original


@pytest.mark.parametrize(
    ("owner", "name"), [(Http2Connection, "protocol_error"), (QuicConnection, "_close_begin")]
)
def test_without_one_the_other_is_watched(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(owner, name)
    with watched():
        assert not hasattr(owner, name)
    assert not hasattr(owner, name)


class Closing:
    """As much of a QUIC connection as is looked at."""

    def __init__(self, words: str, code: int) -> None:
        self._close_event = ConnectionTerminated(code, None, words)
        self._close_at: float | None = None
        self._loss = self

    def get_probe_timeout(self) -> float:
        return 1.0

    def _set_state(self, state: Any) -> None:
        self.state = state


@pytest.mark.parametrize(("by_us", "told"), [(False, [("going away", 0x100)]), (True, [])])
def test_only_a_peers_words_are_told(by_us: bool, told: list[tuple[Any, ...]]) -> None:
    closing: Any = Closing("going away", 0x100)
    with watched() as heard:
        QuicConnection._close_begin(closing, is_initiator=by_us, now=1.0)
    assert heard == told
    assert closing._close_at == 4.0  # what it did before, it does


def test_a_broken_watch_breaks_nothing() -> None:
    closing: Any = Closing("x", 1)

    def fail(*_: Any) -> None:
        raise RuntimeError

    undo = internals.watch_faults(fail, fail)
    QuicConnection._close_begin(closing, is_initiator=False, now=1.0)
    undo()
    assert closing._close_at == 4.0
