"""Counts millions of flows to 100,000 hosts in one session.

Done: records go into a session of the addon's own, with a step of its work on checkpoints after
every 20th, as the addon's timer has it at 20 flows a second. At each mark it is looked at, and its
log is read as if it had been killed there. Then real requests of many kinds go through a mitmdump,
and the bytes of each field of their records are counted.
Bounded: 500,000 flows when quick, else 10 million, whose log takes 5 GB; some hundred requests.
Fails: a total is not exact; memory, bytes of log, time for a flow or time to the report grow with
the number of flows; a pause of the proxy is too long; a field has no budget, or is larger.
Pauses and times are CPU time, so that others on the machine do not count.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowtally.session import SHARE
from flowtally.session import Session
from flowtally.tally import Tally
from lab import clients
from lab.proxy import Mitmdump
from lab.servers import DeadPort

from ._client import Load
from ._client import ask
from ._origin import origin
from .result import Result

HOSTS = 100_000
STEP_EVERY = 20
MARKS = {
    True: (100_000, 200_000, 500_000),
    False: (1_000_000, 2_000_000, 5_000_000, 10_000_000),
}
"""How many flows there have been when the session is looked at, if it is quick or not."""
MEMORY = 64
"""MB that the statistics may take."""
PAUSE = 20
"""Milliseconds for which the session may hold up the proxy, without garbage collection."""
COLLECTION = 100
"""Milliseconds that Python may take to look through all objects of the process, the session's among
them."""
GROWTH = 1.3
"""How many times as much as at the first mark may be measured at the last one."""
FILLED = 1.6
"""The same of memory: a row grows until it has seen durations of all sizes."""
USUAL = 512
"""Bytes that a usual record may take on average."""


@dataclass
class Mark:
    """How a session was when it was looked at."""

    flows: int
    memory: float
    """MB by which the process has grown."""
    log_bytes: float
    """Bytes of log a flow since the last mark, checkpoints among them."""
    checkpoints: float
    """The part of the log that is checkpoints."""
    microseconds: float
    """CPU time a flow since the last mark, writing it and counting it."""
    longest: float
    """CPU milliseconds of the longest pause since the last mark, without garbage collection."""
    collection: float
    """CPU milliseconds of the longest garbage collection since then."""
    report: float
    """CPU seconds of `flowtally report` for the log as it is."""
    report_memory: float
    """MB, the most that this took."""
    page: float
    """CPU seconds of `flowtally report --html`, which looks through all of the log for problems."""
    page_memory: float


def run(quick: bool, folder: Path, result: Result) -> None:
    """Count them, then weigh the fields."""
    _grow(MARKS[quick], folder, result)
    _weigh(folder, result)


# --- millions of flows ---


class Clock:
    """CPU time of this thread, without and for garbage collection: Python looks through all objects
    of a process when it likes, and whose turn it is then is chance."""

    def __init__(self) -> None:
        self.longest = 0.0
        """Seconds of the longest collection."""
        self._begun = self._collecting = 0.0
        gc.callbacks.append(self._collect)

    def _collect(self, phase: str, _: object) -> None:
        if phase == "start":
            self._begun = time.thread_time()
        else:
            spent = time.thread_time() - self._begun
            self._collecting += spent
            self.longest = max(self.longest, spent)

    def now(self) -> float:
        """Seconds without those of collections."""
        return time.thread_time() - self._collecting

    @property
    def all(self) -> float:
        """Seconds of collections since the beginning."""
        return self._collecting


def _record(number: int, session: str) -> dict[str, Any]:
    """A record as the log has it; every hundredth a failure."""
    host = f"host-{number % HOSTS}.example"
    path = f"section-{chr(97 + number % 26)}/page-{'abcdefghij'[number % 10]}{number % 110_000}"
    record: dict[str, Any] = {
        "type": "flow",
        "session": session,
        "seq": 0,
        "time": f"2026-01-01T{number // 600_000 % 24:02}:{number // 10_000 % 60:02}:00.000Z",
        "flow": f"00000000-0000-4000-8000-{number:012}",
        "kind": "http",
        "client": "127.0.0.1",
        "client_port": 50000,
        "method": "GET",
        "url": f"https://{host}/{path}",
        "host": host,
        "port": 443,
        "http_version": "HTTP/2.0",
        "request_bytes": 100,
        "response_bytes": 1000,
        "duration_ms": number % 4000 / 3,
    }
    if number % 100:
        record["wait_ms"] = number % 2000 / 3
        record |= {"outcome": "status", "status": 200, "band": "Success", "description": "OK"}
    else:
        record |= {"outcome": "error", "error_code": -2, "error_name": "ConnectionErr"}
        record |= {"cause": "connection_refused", "side": "server", "detail": f"no {number}"}
    return record


def _grow(marks: tuple[int, ...], folder: Path, result: Result) -> None:
    path = folder / "session.jsonl"
    session = Session(str(path), ["regular"], {})
    before = _resident()
    found: list[Mark] = []
    clock = Clock()
    size = begin = 0
    for flows in marks:
        longest, clock.longest = 0.0, 0.0
        spent = -clock.all
        for number in range(begin, flows):
            record = _record(number, session.id)
            started = clock.now()
            session.add(record)
            added = clock.now()
            longest = max(longest, added - started)
            spent += added - started
            if number % STEP_EVERY == 0:
                session.step()
                stepped = clock.now()
                longest = max(longest, stepped - added)
                spent += stepped - added
        spent += clock.all
        since, begin = flows - begin, flows
        grown, size = path.stat().st_size - size, path.stat().st_size
        report, report_memory = _report(path)
        page, page_memory = _report("--html", folder / "report.html", path)
        found.append(
            Mark(
                flows,
                _resident() - before,
                grown / since,
                session._checkpoint_bytes / size,
                spent / since * 1e6,
                longest * 1e3,
                clock.longest * 1e3,
                report,
                report_memory,
                page,
                page_memory,
            )
        )
        print(found[-1], file=sys.stderr, flush=True)
    result.failures += discrepancies(session.tally, marks[-1])
    session.close()
    path.unlink()
    judge(found, result)


def judge(found: list[Mark], result: Result) -> None:
    """Tell how the session was at each mark, and what grew that must not."""
    for mark in found:
        told = f"{mark.memory:.1f} MB, {mark.log_bytes:.0f} bytes of log a flow "
        told += f"({100 * mark.checkpoints:.1f} % checkpoints), {mark.microseconds:.1f} µs of CPU "
        told += f"a flow, longest pause {mark.longest:.0f} ms, "
        told += (
            f"longest garbage collection {mark.collection:.0f} ms, report in {mark.report:.2f} s "
        )
        told += f"with {mark.report_memory:.0f} MB, page in {mark.page:.1f} s "
        told += f"with {mark.page_memory:.0f} MB"
        result.figures.append((f"{mark.flows:,} flows to {HOSTS:,} hosts", told))
        if mark.longest > PAUSE:
            result.failures.append(f"{mark.flows:,} flows: a pause of {mark.longest:.1f} ms")
        if mark.collection > COLLECTION:
            told = f"a garbage collection of {mark.collection:.1f} ms"
            result.failures.append(f"{mark.flows:,} flows: {told}")
        if mark.checkpoints > SHARE * 1.05:
            result.failures.append(f"{mark.flows:,} flows: {mark.checkpoints:.3f} are checkpoints")
    first, last = found[0], found[-1]
    if last.memory > MEMORY:
        result.failures.append(f"the session takes {last.memory:.1f} MB, more than {MEMORY}")
    for what, one, other, times, more in (
        ("MB of memory", first.memory, last.memory, FILLED, 0),
        ("bytes of log a flow", first.log_bytes, last.log_bytes, GROWTH, 8),
        ("µs a flow", first.microseconds, last.microseconds, GROWTH, 5),
        ("s to the report", first.report, last.report, GROWTH, 1),
        ("MB of the report", first.report_memory, last.report_memory, FILLED, 0),
        ("MB of the page", first.page_memory, last.page_memory, FILLED, 0),
    ):
        if other > times * one + more:
            result.failures.append(
                f"{one:.1f} {what} after {first.flows:,} flows, {other:.1f} after {last.flows:,}"
            )


def _resident() -> float:
    """Memory that this process occupies, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def _report(*arguments: str | Path) -> tuple[float, float]:
    """CPU seconds and MB that `flowtally report` with these arguments takes."""
    script = (
        "import os, resource, runpy, sys\n"
        "try:\n"
        "    runpy.run_module('flowtally', run_name='__main__')\n"
        "finally:\n"
        "    used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "    peak = open('/proc/self/status').read().partition('VmHWM:')[2].split()[0]\n"
        "    print('\\n', used.ru_utime + used.ru_stime, int(peak) / 1024)\n"
    )
    command = [sys.executable, "-c", script, "report", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    seconds, megabytes = done.stdout.split()[-2:]
    return float(seconds), float(megabytes)


def discrepancies(tally: Tally, flows: int) -> Iterator[str]:
    """What of the statistics is not exact."""
    failures = flows // 100
    total = tally.total()
    found = {
        "flows": tally.flows - flows,
        "bytes sent": total.request_bytes - 100 * flows,
        "bytes received": total.response_bytes - 1000 * flows,
        "failures": tally.totals().failures - failures,
        "band Success": tally.sum("flows", "Success") - (flows - failures),
        "cause": tally["causes"]["-2", "connection_refused", ""].flows - failures,
        "hosts": total.flows - flows,
        "endpoints": sum(row.flows for row in tally["endpoints"].values()) - flows,
    }
    for name, difference in found.items():
        if difference:
            yield f"{name}: {difference:+} after {flows:,} flows"


# --- bytes ---

FIELDS: dict[str, tuple[int, str]] = {
    "type": (15, "what it is; first in the line, so that a reader need not read all as JSON"),
    "session": (21, "which session: logs are merged, and proxies share a file; 8 digits"),
    "seq": (17, "order within the session, and what is missing; up to ten digits"),
    "time": (34, "when it ended, to the millisecond; RFC 3339, as people and tools read it"),
    "flow": (74, "mitmproxy's own id, by which mitmproxy finds the flow; in files up to 64"),
    "kind": (19, "of five words"),
    "client": (268, "which device: an address, as long as a name may be"),
    "client_port": (20, "which connection"),
    "method": (44, "32 characters: registered ones have up to 17"),
    "url": (8201, "what was asked for; MAX_URL keeps the longest to 2,048 characters of 4 bytes"),
    "host": (264, "whom it went to, also where the URL has another name: 255 characters"),
    "port": (13, "five digits"),
    "http_version": (26, "one of four words"),
    "request_bytes": (33, "16 digits: a petabyte"),
    "response_bytes": (34, "16 digits"),
    "duration_ms": (31, "milliseconds with three decimals, up to a year"),
    "wait_ms": (27, "the same"),
    "connect_ms": (30, "the same; only of the request that opened the connection"),
    "tls_ms": (26, "the same; only of the request that opened the connection"),
    "reused": (14, "only of requests on a connection that was open"),
    "media_type": (95, "without parameters: what kind of thing came"),
    "outcome": (23, "of five words"),
    "status": (13, "the code"),
    "band": (23, "the class's name, so that a line says it to who reads it with grep"),
    "description": (60, "the code's name, for the same reason"),
    "error_code": (17, "the number"),
    "error_name": (34, "its name, so that a line says it to who reads it with grep"),
    "cause": (38, "of known/causes.csv"),
    "reason": (60, "of known/reasons.csv"),
    "side": (17, "of four words"),
    "detail": (311, "what mitmproxy said: 300 characters"),
    "answered_by": (23, "only where the proxy answered"),
    "replay": (20, "only of replays"),
    "stream": (14, "only where it is endless"),
    "grpc_status": (18, "only of gRPC"),
    "close_code": (19, "only of WebSockets"),
    "close_reason": (323, "only of WebSockets: 123 bytes on the wire, escaped"),
    "background": (60, "only of requests that nobody made: whose"),
    "test": (511, "only of a test run: pytest's name of the test"),
    "answers": (77, "only of a login: the id of the request that it answers"),
    "challenge": (16, "only of a login"),
}
"""Field of a flow's or event's record → bytes that it may take in the line, and why it is worth
them."""


def _weigh(folder: Path, result: Result) -> None:
    """Count the bytes of each field of real records."""
    with ExitStack() as stack:
        ports, dead = stack.enter_context(origin(folder)), stack.enter_context(DeadPort())
        reverse = f"reverse:http://127.0.0.1:{ports.plain}"
        proxy = Mitmdump(
            folder / "weigh", modes=("regular", reverse), options={"ssl_insecure": "true"}
        )
        stack.enter_context(proxy)
        for load in Load:
            if load.mode == "regular":
                ask(load, proxy.port, ports, requests=60, connections=4)
        usual = len(proxy.outcomes())
        clients.get(proxy, dead)
        hostile = f"http://127.0.0.1:{ports.plain}/" + "%ff" * 3000
        for method, target in (("GET", hostile), ("X" * 200, hostile), ("GET", "http://a b/")):
            with suppress(OSError):
                clients.exchange(proxy.port, clients.request_head(method, target, "x" * 300))
        # Four bytes a character; mitmproxy refuses them in a URL, and takes them in a path.
        smiling = "\N{GRINNING FACE}" * 3000
        wide = f"GET /{smiling} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        clients.exchange(proxy.ports[reverse], wide.encode())
        with suppress(OSError):
            clients.exchange(proxy.port, clients.request_head("GET", "/", "x" * 300))
    outcomes = (b'{"type":"flow"', b'{"type":"event"')
    lines = [line for line in proxy.log.read_bytes().split(b"\n") if line.startswith(outcomes)]
    fields: Counter[str] = Counter()
    for number, record in enumerate(map(json.loads, lines)):
        for name, value in record.items():
            text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
            size = len(f'"{name}":{text},'.encode())
            if size > FIELDS.get(name, (0, ""))[0]:
                result.failures.append(f"the field {name} takes {size} bytes")
            if number < usual:
                fields[name] += size
    mean = sum(map(len, lines[:usual])) / usual
    each = [f"{name} {size / usual:.1f}" for name, size in fields.most_common()]
    longest = f"{max(map(len, lines)):,}"
    result.figures.append(("bytes of a usual record", f"{mean:.0f}: {', '.join(each)}"))
    result.figures.append(("bytes of the longest record", f"{longest}, of hostile requests"))
    if mean > USUAL:
        result.failures.append(f"a usual record takes {mean:.0f} bytes, more than {USUAL}")
