"""Soak: good and bad traffic from many clients, for an hour.

What is done: a mitmdump with all the modes of the fault laboratory gets good requests (http, https,
HTTP/2, WebSockets) and the faults of tests/test_faults.py, test_blame.py and
test_silent_failures.py that need no settings of their own, from clients that come and go; meanwhile
the script is reloaded, options change, the live page is polled, and reports read the log. A script
inside mitmdump counts tasks and the entries of flowtally's tables once a second; memory and
descriptors are the kernel's figures.

What is bounded: 3,540 s (quick: 60 s), eight clients with good requests, four with faults.

How it can fail: a defect or a traceback of flowtally's stands in mitmproxy's log; a good request or
WebSocket is not in the log exactly once; memory or one of the addon's tables grows from the second
quarter to the last; descriptors, tasks or open flows are left when all clients have gone; the page
or a report cannot be read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from random import Random
from typing import Any

import lab.proxy
import test_blame
import test_faults
import test_silent_failures
from h2.events import StreamEnded
from h2.exceptions import ProtocolError
from lab import clients
from lab import http2
from lab import servers
from lab import websocket
from lab.factories import ServerFactory
from lab.faults import Bench
from lab.http2 import Http2Server
from lab.laboratory import SETUPS
from lab.laboratory import Laboratory
from lab.laboratory import Setup
from lab.proxy import Mitmdump
from lab.servers import AnsweringServer
from lab.tls import HOST
from lab.websocket import WebSocketServer
from websockets.exceptions import WebSocketException

from ._records import records_of
from .result import Result

GOOD_CLIENTS = 8
BAD_CLIENTS = 4
NAME = "soak"
RELOAD_EVERY = 10.0
"""Seconds."""
REPORT_EVERY = 15.0
REST = 45.0
"""Seconds in which what was open must have come to an end when all clients have gone."""
PATIENCE = 300.0
"""Seconds for whatever a thread is at, such as a report on the log."""
LATEST = 5.0
"""How many seconds ago the probe must have counted."""
NO_PAGES_A_RELOAD = 4
"""Requests for the page that may come while a reload takes place: two a second."""
LEAST_CAUSES = 12
"""How many causes the faults must have brought about for a soak to have tried anything."""
OF_CLIENTS = (OSError, HTTPException, WebSocketException, ProtocolError, AssertionError)
"""What a client raises that meets a fault."""
PROGRAMS = {"curl --pinnedpubkey": "curl", "GnuTLS's wget distrusts the CA": "wget"}
"""Faults of other programs'."""
MORE_MEMORY = 1.2
"""How much more the last quarter may take than the second one; a session's tables fill up."""
MORE_MEGABYTES = 15
MORE_ENTRIES, FILLED = 1.5, 5000
"""How many times as many entries, and how many more, a table may have in the last quarter than in
the second one: until it is full, a table grows, and the largest of them is full with 4,096."""
TASKS_LEFT = 12
FILES_LEFT = 12

# Counts from within: tasks, and whatever in flowtally's objects has a length.
PROBE = """
import asyncio
import json
import time
from mitmproxy import ctx

FILE = {file!r}
CHANGES = (
    {{"flowtally_urls": "full"}}, {{"flowtally_urls": "redacted"}}, {{"flowtally_mark": False}},
    {{"flowtally_mark": True}}, {{"flowtally_background": "none"}},
    {{"flowtally_max_redirects": 5}}, {{"flowtally_background": "known"}},
    {{"flowtally_filter": "~all"}}, {{"flowtally_filter": ""}},
)

def sizes(thing, path, found, seen, depth=0):
    if id(thing) in seen or depth > 6:
        return
    seen.add(id(thing))
    if isinstance(thing, (dict, list, set)) or type(thing).__name__ in ("deque", "OrderedDict"):
        found[path] = len(thing)
    for name, part in list(getattr(thing, "__dict__", {{}}).items()):
        if type(part).__module__.startswith(("flowtally", "builtins", "collections")):
            sizes(part, f"{{path}}.{{name}}".strip("."), found, seen, depth + 1)

async def count():
    turn = 0
    while True:
        await asyncio.sleep(1)
        turn += 1
        addon = ctx.master.addons.get("flowtally")
        found = {{}}
        if addon is not None:
            sizes(addon, "", found, set())
        with open(FILE, "a") as file:
            told = {{"time": time.time(), "tasks": len(asyncio.all_tasks()), "tables": found}}
            file.write(json.dumps(told) + "\\n")
        if turn % 5 == 0 and addon is not None:
            ctx.options.update(**CHANGES[turn // 5 % len(CHANGES)])

def running():
    global task
    task = asyncio.get_running_loop().create_task(count())
"""


Act = Callable[[Laboratory, Mitmdump, Any], None]


def all_faults() -> dict[str, tuple[ServerFactory, Act]]:
    """Name → server and what a client does, of all tests' faults that a proxy with usual settings
    shows."""
    cases = [*test_faults.CASES, *(case for case, _ in test_blame.CASES)]
    found = {
        case.name: (case.server, _acting(case.act, Bench))
        for case in cases
        if case.proxy == "regular" and not case.skip
    }
    for case in test_silent_failures.CASES:
        needed = PROGRAMS.get(case.name)
        if case.proxy == "regular" and (needed is None or shutil.which(needed)):
            act = _acting(case.act, test_silent_failures.Bench, program)
            found[case.name] = (case.server, act)
    return found


def _acting(act: Callable[[Any], None], bench: Callable[..., Any], *more: Any) -> Act:
    return lambda *given: act(bench(*given, *more))


def program(*names: str) -> Path:
    """Where one of these programs is. Raises: FileNotFoundError."""
    for path in map(shutil.which, names):
        if path is not None:
            return Path(path)
    raise FileNotFoundError(names[0])


class Soak:
    """The traffic, and what was seen of it."""

    def __init__(self, laboratory: Laboratory, proxy: Mitmdump, seconds: float) -> None:
        self.laboratory = laboratory
        self.proxy = proxy
        begun = time.monotonic()
        self.ends, self.reload_until = begun + seconds, begun + seconds / 4
        self.ends_at = time.time() + seconds
        """The same as Unix time."""
        self.good: Counter[str] = Counter()
        """Path of each good request that got its answer."""
        self.bad: Counter[str] = Counter()
        """Name of each fault → how often it was acted."""
        self.problems: Counter[str] = Counter()
        self.pages = self.no_pages = self.reports = self.reloads = 0
        self.memory: list[tuple[float, float]] = []
        """Time and MB."""
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self, target: Callable[..., None], *arguments: Any) -> None:
        def run() -> None:
            try:
                target(*arguments)
            except Exception as problem:
                self.tell(f"{target.__name__}: {problem!r:.300}")

        thread = threading.Thread(target=run, name=target.__name__, daemon=True)
        self._threads.append(thread)
        thread.start()

    def join(self) -> None:
        """Waits until each has done what it was at when the time was over."""
        for thread in self._threads:
            thread.join(max(0.0, self.ends - time.monotonic()) + PATIENCE)
            if thread.is_alive():
                self.tell(f"{thread.name} does not end")

    def tell(self, problem: str) -> None:
        with self._lock:
            self.problems[problem] += 1

    def going_on(self, pause: float) -> bool:
        """Waits that long; whether there is time left."""
        time.sleep(pause)
        return time.monotonic() < self.ends

    def do_good(self, number: int, sites: dict[str, Any]) -> None:
        """A client with good requests of every kind."""
        turn = 0
        while self.going_on(0.01):
            turn += 1
            path = f"/good/{number}/{turn}"
            kind = turn % 8
            if kind == 5:
                done = self._get_http2(sites["h2"], path)
            elif kind == 6:
                done = b" 200 " in clients.get_tls(self.proxy, sites["tls"], path)[:20]
            elif kind == 7:
                websocket.talk(f"{sites['websocket'].url}{path}/1000", self.proxy.url)
                done = True  # else it had raised: it was greeted
            else:
                done = b" 200 " in clients.get(self.proxy, sites["plain"], path)[:20]
            if done:
                with self._lock:
                    self.good[path] += 1
            else:
                self.tell(f"a good request of kind {kind} was not answered")

    def _get_http2(self, server: Http2Server, path: str) -> bool:
        with clients.open_http2(self.proxy, server) as client:
            client.request(path)
            return any(isinstance(event, StreamEnded) for event in client.read_to_end())

    def do_bad(self, number: int) -> None:
        """A client with one fault after another."""
        random = Random(number)
        faults = all_faults()
        while self.going_on(0.05):
            name = random.choice(list(faults))
            serve, act = faults[name]
            try:
                with serve(self.laboratory) as server:
                    # What a fault does to its own client is not judged here.
                    with suppress(*OF_CLIENTS):
                        act(self.laboratory, self.proxy, server)
                    with self._lock:
                        self.bad[name] += 1
            except Exception as problem:
                self.tell(f"the server of {name}: {problem!r:.300}")

    def watch_page(self) -> None:
        """A tab with the live page, and one with the statistics."""
        while self.going_on(1.0):
            for path in ("/", "/report.json"):
                head = clients.request_head("GET", f"http://flowtally.test{path}", "flowtally.test")
                answer = clients.exchange(self.proxy.port, head)
                if answer.startswith(b"HTTP/1.1 200"):
                    self.pages += 1
                elif b"flowtally.test" in answer[:600]:  # 502: the script is being reloaded
                    self.no_pages += 1
                else:
                    self.tell(f"the page answers {answer[:60]!r}")

    def read_reports(self) -> None:
        while self.going_on(REPORT_EVERY):
            command = [sys.executable, "-m", "flowtally", "report"]
            command.append(str(self.proxy.log))
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
            self.reports += 1
            if done.returncode:
                self.tell(f"report ended with {done.returncode}: {done.stderr[-300:]}")

    def reload(self, script: Path) -> None:
        # Then no more: the tables of a new addon are empty, so what grows would not be seen.
        while self.going_on(RELOAD_EVERY) and time.monotonic() < self.reload_until:
            os.utime(script)
            self.reloads += 1

    def measure(self) -> None:
        while self.going_on(1.0):
            self.memory.append((time.monotonic(), megabytes(self.proxy.process.pid)))


def megabytes(pid: int) -> float:
    """The resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None, status
    return int(found.group(1)) / 1024


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208  # it changes while it is read


def prepare(folder: Path, laboratory: Laboratory) -> tuple[Mitmdump, Path, Path]:
    """The proxy, the script that can be reloaded, and the file that the probe writes."""
    place = folder / "addon"
    place.mkdir()
    script = place / "main.py"
    shutil.copy(lab.proxy.ADDON, script)
    (place / "flowtally").symlink_to(lab.proxy.ADDON.parent / "flowtally")
    counts = folder / "counts.jsonl"
    counts.touch()
    probe = folder / "probe.py"
    probe.write_text(PROBE.format(file=str(counts)))
    regular = SETUPS["regular"](laboratory)
    setup = Setup(regular.modes, {**regular.options, "flowtally_timeout": "5"}, scripts=[probe])
    proxy = laboratory.mitmdump(NAME, setup, addon=script)
    laboratory.adopt(NAME, setup, proxy)
    return proxy, script, counts


def soak(seconds: float, folder: Path, result: Result) -> None:
    """All of it."""
    with ExitStack() as resources:
        laboratory = resources.enter_context(Laboratory(folder))
        proxy, script, counts = prepare(folder, laboratory)
        proxy.start()
        resources.callback(lambda: proxy.running and proxy.kill())
        sites: dict[str, Any] = {
            "plain": AnsweringServer(servers.OK),
            "tls": AnsweringServer(servers.OK, tls=laboratory.authority.good(), name=HOST),
            "h2": Http2Server(http2.answer, tls=laboratory.authority.http2(), name=HOST),
            "websocket": WebSocketServer(),
        }
        for site in sites.values():
            resources.enter_context(site)
        files = descriptors(proxy.process.pid)
        run = Soak(laboratory, proxy, seconds)
        for number in range(GOOD_CLIENTS):
            run.start(run.do_good, number, sites)
        for number in range(BAD_CLIENTS):
            run.start(run.do_bad, number)
        run.start(run.watch_page)
        run.start(run.read_reports)
        run.start(run.reload, script)
        run.start(run.measure)
        run.join()
        result.failures += [f"{what} ({n} times)" for what, n in run.problems.items()]
        if not proxy.running:
            result.failures.append(f"mitmdump ended: {proxy.output[-600:]}")
            return
        result.failures += come_to_rest(proxy, counts, files)
        proxy.stop()
    judge(run, proxy, counts, result)


def come_to_rest(proxy: Mitmdump, counts: Path, files: int) -> list[str]:
    """Waits until nothing is open any more; returns what is left."""
    deadline = time.monotonic() + REST
    while True:
        time.sleep(1.0)
        told = json.loads(counts.read_text().splitlines()[-1])
        left = [] if time.time() - told["time"] < LATEST else ["the probe counts no more"]
        if (now := descriptors(proxy.process.pid)) > files + FILES_LEFT:
            left.append(f"{now} descriptors, {files} at the start")
        if told["tasks"] > TASKS_LEFT:
            left.append(f"{told['tasks']} tasks are left")
        if flows := told["tables"]["_open"]:
            left.append(f"{flows} flows are open although no client is left")
        if not left or time.monotonic() > deadline:
            return left


def judge(run: Soak, proxy: Mitmdump, counts: Path, result: Result) -> None:
    """Adds the figures, and what they must not be."""
    told: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    records, wrong_lines = records_of([proxy.log])
    result.failures += wrong_lines
    for record in records:
        found = re.search(r"(/good/\d+/\d+)(/1000)?$", record.get("url", ""))
        # Not what was open when the script was reloaded: the next session tells how it ended.
        if found and record["outcome"] == "status" and record["status"] in (200, 101):
            told[found.group(1)] += 1
        if cause := record.get("cause"):
            causes[cause] += 1
    wrong = {path: told[path] for path in run.good if told[path] != 1}
    if wrong:
        result.failures.append(
            f"{len(wrong)} of {len(run.good)} good requests are not in the log exactly once: "
            f"{dict(list(wrong.items())[:3])}"
        )
    few = not run.good or len(causes) < LEAST_CAUSES
    if few or not run.pages or not run.reports or not run.reloads:
        result.failures.append("hardly anything was done")
    if run.no_pages > NO_PAGES_A_RELOAD * run.reloads:
        told_so = f"{run.no_pages} times there was no page, in {run.reloads} reloads"
        result.failures.append(told_so)
    if error := proxy.addon_error():
        result.failures.append(f"in mitmproxy's log: {error[-600:]}")
    quarter = len(run.memory) // 4
    second, last = (
        sum(mb for _, mb in run.memory[at * quarter : (at + 1) * quarter]) / max(quarter, 1)
        for at in (1, 3)
    )
    if last > second * MORE_MEMORY + MORE_MEGABYTES:
        result.failures.append(f"memory grew from {second:.0f} MB to {last:.0f} MB")
    samples = [json.loads(line) for line in counts.read_text().splitlines()]
    result.failures += growing([one for one in samples if one["time"] < run.ends_at])
    largest = largest_tables(samples)
    tables = ", ".join(f"{name} {size:,}" for name, size in largest.most_common(5))
    result.figures += [
        (
            "Good requests",
            f"{len(run.good):,}, each once in the log: {len(run.good) - len(wrong):,}",
        ),
        ("Faults", f"{sum(run.bad.values()):,} of {len(run.bad)} kinds, {len(causes)} causes told"),
        ("Meanwhile", f"{run.pages} pages, {run.reports} reports, {run.reloads} reloads"),
        ("Memory, second and last quarter", f"{second:.0f} MB, {last:.0f} MB"),
        ("Tasks at most", str(max((sample["tasks"] for sample in samples), default=0))),
        ("Largest tables", tables),
    ]


def largest_tables(samples: list[dict[str, Any]]) -> Counter[str]:
    """The most entries of each table."""
    largest: Counter[str] = Counter()
    for sample in samples:
        largest |= Counter(sample["tables"])
    return largest


def growing(samples: list[dict[str, Any]]) -> Iterator[str]:
    """Tables that had far more entries in the last quarter than in the second one."""
    quarter = len(samples) // 4
    before = largest_tables(samples[quarter : 2 * quarter])
    for name, size in largest_tables(samples[3 * quarter :]).items():
        if size > before[name] * MORE_ENTRIES + FILLED:
            yield f"{name} grew from {before[name]:,} to {size:,} entries"


def run(quick: bool, folder: Path, result: Result) -> None:
    """An hour, or a minute."""
    soak(60 if quick else 3540, folder, result)
