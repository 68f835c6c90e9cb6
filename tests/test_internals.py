"""What is read from mitmproxy's internals, beside what the live tests show of it."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from flowtally import internals
from mitmproxy import connection


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
