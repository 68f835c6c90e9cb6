"""Ends mitmdump under load in every way, and cuts its log at every byte.

Done: a mitmdump that eight clients ask as fast as they can is sent SIGKILL, SIGTERM, SIGINT or two
SIGINTs at a random moment; for one in five of each, requests have long paths, and the moment comes
when checkpoints do. Then a log is cut at the bytes of its last hundred records and of its final
statistics, and another one at those of a checkpoint on the way; each is read, gone on with by
another session, and read again.
Bounded: 40 kills and a cut at every 41st byte when quick, else 1,000 and every byte.
Fails: a response that a client had received is not in the log, or twice; a line before the last one
is no JSON; a signal that ends mitmdump in good order leaves no final statistics, or a killed one
seems to have ended in good order; a cut log holds other flows than its whole lines tell, does not
say what is missing, or a session that goes on there changes what stands there or loses a record.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from http.client import HTTPException
from itertools import count
from pathlib import Path

from flowtally.logs import read
from flowtally.session import LEAST_GROWTH
from flowtally.session import Session
from lab.proxy import Mitmdump

from ._origin import BODY
from ._origin import origin
from ._records import records_of
from ._sessions import flow_record
from ._sessions import often
from ._sessions import write_checkpoint
from .result import Result

CLIENTS = 8
AT_ONCE = 3
"""How many proxies run side by side: most of the time of a kill is the start."""
WAYS: dict[str, tuple[signal.Signals, ...]] = {
    "SIGKILL": (signal.SIGKILL,),
    "SIGTERM": (signal.SIGTERM,),
    "SIGINT": (signal.SIGINT,),
    "SIGINT twice": (signal.SIGINT, signal.SIGINT),
}
LONG = "/long" * 360
"""What makes a path long: checkpoints come with the bytes of the log."""
PATIENCE = 20
"""Seconds to wait for the first response, or for a log that is large enough."""
LAST_RECORDS = 100
BEFORE = 20
"""Flows before a checkpoint, and after it."""
PROGRESS = 50
"""After how many kills it is told how far it is."""


@dataclass
class Counts:
    """What the kills of one way left."""

    kills: int = 0
    received: int = 0
    """Responses that clients had received."""
    lost: int = 0
    twice: int = 0
    torn: int = 0
    """Logs that end within a line."""
    with_checkpoint: int = 0
    """Logs in which there is a checkpoint, whole or not, that is not the final one."""


def run(quick: bool, folder: Path, result: Result) -> None:
    """Kill, then cut."""
    _kill(40 if quick else 1000, folder, result)
    _cut(41 if quick else 1, folder, result)


# --- killed ---


def _kill(kills: int, folder: Path, result: Result) -> None:
    counts = {way: Counts() for way in WAYS}
    lock = threading.Lock()
    with origin(folder) as ports, Mitmdump(folder / "first") as first:
        # One CA for all: making one takes longer than the rest of the start.
        confdir = first.confdir

        def one(number: int) -> None:
            way = list(WAYS)[number % len(WAYS)]
            long = number // len(WAYS) % 5 == 1
            place = folder / f"kill-{number}"
            proxy = Mitmdump(
                place, modes=(f"reverse:http://127.0.0.1:{ports.plain}",), confdir=confdir
            )
            received, wrong = _until_killed(proxy, WAYS[way], long, random.Random(number))
            which = f"kill {number}, {way}"
            with lock:
                result.failures += [f"{which}: {why}" for why in wrong]
                result.failures += _judge(counts[way], which, way, proxy, received)
                done = sum(of_way.kills for of_way in counts.values())
            if done % PROGRESS == 0:
                print(f"{done} of {kills} killed", file=sys.stderr, flush=True)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(one, range(kills)))
    for way, of_way in counts.items():
        told = f"{of_way.kills:,} times, {of_way.received:,} responses received, "
        told += f"{of_way.lost} lost, {of_way.twice} twice; "
        told += f"{of_way.with_checkpoint} had written checkpoints, {of_way.torn} ended torn"
        result.figures.append((way, told))
        if of_way.received < of_way.kills:
            result.failures.append(f"{way}: hardly a response came, so nothing was tried")
    if not any(of_way.with_checkpoint for of_way in counts.values()):
        result.failures.append("no checkpoint came before a signal, so these were not tried")


def _until_killed(
    proxy: Mitmdump, signals: Sequence[signal.Signals], long: bool, chance: random.Random
) -> tuple[list[str], list[str]]:
    """Ask, and send the signals; the paths whose responses had come complete, and what was wrong
    before the first signal."""
    numbers = count()
    received: list[str] = []
    wrong: list[str] = []
    begun, signalled = threading.Event(), threading.Event()
    proxy.start()

    def keep_asking() -> None:
        with closing(HTTPConnection("127.0.0.1", proxy.port, timeout=10)) as connection:
            while True:
                path = f"/{next(numbers)}" + LONG * long
                try:
                    connection.request("GET", path)
                    answer = connection.getresponse()
                    complete = answer.read() == BODY
                    said = f"a request was answered {answer.status}"
                except (OSError, HTTPException) as error:
                    complete, said = False, f"a request was not answered: {error!r}"
                if not complete:
                    if not signalled.is_set():
                        wrong.append(said)
                    return
                received.append(path)
                begun.set()

    clients = [threading.Thread(target=keep_asking) for _ in range(CLIENTS)]
    for thread in clients:
        thread.start()
    begun.wait(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while long and proxy.log.stat().st_size < LEAST_GROWTH and time.monotonic() < deadline:
        time.sleep(0.01)
    # What is done every second has then come at some time, and so has a checkpoint.
    time.sleep(chance.uniform(0, 1))
    signalled.set()
    for one in signals:
        with suppress(ProcessLookupError):
            os.kill(proxy.process.pid, one)
        time.sleep(chance.uniform(0, 0.02))
    for thread in clients:
        thread.join()
    proxy.wait()
    return received, wrong


def _judge(
    counts: Counts, which: str, way: str, proxy: Mitmdump, received: list[str]
) -> Iterator[str]:
    """Compare what the clients had received with what is in the log: what is wrong."""
    *lines, last = proxy.log.read_bytes().split(b"\n")
    logged: Counter[str] = Counter()
    named = f"{which}, {len(received)} responses"
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            yield f"{named}: line {number} of the log is no JSON"
            continue
        if record["type"] == "flow":
            logged["/" + record["url"].partition("://")[2].partition("/")[2]] += 1
    lost = sum(path not in logged for path in received)
    twice = sum(logged[path] > 1 for path in received)
    checkpoints = any(b'"type":"stats"' in line and b'"final"' not in line for line in lines)
    counts.kills += 1
    counts.received += len(received)
    counts.lost += lost
    counts.twice += twice
    counts.torn += bool(last)
    counts.with_checkpoint += checkpoints
    if lost or twice:
        yield f"{named}: {lost} not in the log, {twice} twice"
    found = read([("log", proxy.log)])
    (session,) = found.sessions.values()
    tallied = session.tally.flows
    if tallied != sum(logged.values()) or found.missing:
        yield (
            f"{named}: the reader counts {tallied} flows of {sum(logged.values())}, "
            f"{found.missing} missing"
        )
    if way == "SIGKILL" and session.final:
        yield f"{named}: a killed session seems to have ended in good order"
    # A second SIGINT may end mitmdump wherever it is.
    if way in ("SIGTERM", "SIGINT") and not session.final:
        yield f"{named}: no final statistics"
    if error := proxy.addon_error():
        yield f"{named}: mitmdump said {error[-500:]!r}"
    proxy.log.unlink()


# --- cut ---


@dataclass(frozen=True)
class Whole:
    """A log that ended in good order."""

    data: bytes
    flows: list[int]
    """Where the lines of flows end."""


def _cut(step: int, folder: Path, result: Result) -> None:
    ended = _ended(folder)
    if len(ended.flows) != 3 * LAST_RECORDS:
        result.failures.append(f"to be cut: {len(ended.flows)} flows")
        return
    records = range(ended.flows[-LAST_RECORDS - 1], ended.flows[-1], step)
    checkpoint = range(ended.flows[-1], len(ended.data), step)
    told = f"{len(records):,} in the last {LAST_RECORDS} records, {len(checkpoint):,} in the final "
    going_on = _with_checkpoint(folder)
    running = range(going_on.flows[BEFORE - 1], going_on.flows[BEFORE], step)
    parts = going_on.data[running.start : running.stop].count(b'{"type":"stats"')
    if parts < 2:
        result.failures.append(f"to be cut: a checkpoint of {parts} parts")
    wrong = _cut_everywhere(ended, [*records, *checkpoint], folder)
    wrong += _cut_everywhere(going_on, running, folder)
    told += f"statistics, {len(running):,} in a checkpoint, {len(wrong)} read wrongly"
    result.figures.append(("the log cut", told))
    result.failures += wrong


def _ended(folder: Path) -> Whole:
    """The log of a mitmdump."""
    with origin(folder) as ports:
        proxy = Mitmdump(folder / "cut", modes=(f"reverse:http://127.0.0.1:{ports.plain}",))
        with proxy:
            connection = HTTPConnection("127.0.0.1", proxy.port, timeout=10)
            for number in range(3 * LAST_RECORDS):
                connection.request("GET", f"/{chr(97 + number % 7)}")
                connection.getresponse().read()
            connection.close()
    return _whole(proxy.log)


def _with_checkpoint(folder: Path) -> Whole:
    """A log with a checkpoint of many parts on the way, as others have after a megabyte."""
    path = folder / "checkpoint.jsonl"
    with often():
        session = Session(str(path), [], {})
        for number in range(2 * BEFORE):
            if number == BEFORE:
                write_checkpoint(session)
            session.add(flow_record(session.id, number))
        session.close()
    return _whole(path)


def _whole(log: Path) -> Whole:
    data = log.read_bytes()
    return Whole(data, list(_ends(data, b'{"type":"flow"')))


def _cut_everywhere(whole: Whole, cuts: Sequence[int], folder: Path) -> list[str]:
    """What is wrong with the log, cut at each of these bytes."""
    batches = [cuts[part::20] for part in range(20)]
    paths = [folder / f"cut-{part}.jsonl" for part in range(20)]
    with ProcessPoolExecutor(2) as pool:
        found = pool.map(_cuts, [whole] * 20, batches, paths)
        return [sentence for batch in found for sentence in batch]


def _ends(data: bytes, beginning: bytes) -> Iterator[int]:
    """Where the lines end that begin so."""
    position = 0
    for line in data.splitlines(keepends=True):
        position += len(line)
        if line.startswith(beginning):
            yield position


def _cuts(whole: Whole, cuts: Sequence[int], path: Path) -> list[str]:
    """What is wrong with the log when it is cut there."""
    wrong = []
    for cut in cuts:
        path.unlink(missing_ok=True)
        path.write_bytes(whole.data[:cut])
        wrong += [f"cut after {cut} bytes: {why}" for why in _read_cut(whole, cut, path)]
    return wrong


def _read_cut(whole: Whole, cut: int, path: Path) -> Iterator[str]:
    # The last line may be whole without its line end.
    expected = sum(end <= cut + 1 for end in whole.flows)
    torn = whole.data[cut - 1 : cut] != b"\n" and whole.data[cut : cut + 1] != b"\n"
    found = read([("log", path)])
    (session,) = found.sessions.values()
    if session.tally.flows != expected:
        yield f"{session.tally.flows} flows, {expected} are there"
    if session.final and cut < len(whole.data) - 1:
        yield "it seems to have ended in good order"
    if found.unreadable != torn:
        yield f"{found.unreadable} lines said to be unreadable, {int(torn)} is"
    going_on = Session(str(path), [], {})
    going_on.add(flow_record(going_on.id, 0))
    going_on.close()
    data = path.read_bytes()
    if data[:cut] != whole.data[:cut]:
        yield "what stood there was changed"
    found = read([("log", path)])
    flows = {id: one.tally.flows for id, one in found.sessions.items()}
    if flows != {session.id: expected, going_on.id: 1} or found.unreadable != torn:
        yield f"gone on with: {flows}, {found.unreadable} lines unreadable"
    # What the reader forgives: a line that another one was written into.
    yield from records_of([path])[1]
