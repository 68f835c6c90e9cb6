"""Asks through mitmdump as fast as it can, with flowtally and with what mitmproxy itself offers.

Done: a bare mitmdump, one with flowtally, also with its live page open in two tabs, one with
mitmproxy's dumper, with `-w` and with `hardump` run side by side; in each round, each of them is
asked in turn, in a new order each time, for every load: HTTP/1, HTTP/2, TLS, gRPC, large and
streamed bodies, WebSocket messages, regular and reverse mode. Each figure is compared with that of
the same round, so that whatever else the machine does weighs on all of them. At the end all
requests are looked for in flowtally's log.
Bounded: eight rounds of 16 requests when quick, else 15 of 200, for each load and mitmdump.
Fails: an answer is not what the server sends; a request is not in the log exactly once; with
flowtally, the median share of bare in requests per second is below 0.97, or that of another variant
below 1, and the interval in which this median lies (99 % sure; of few rounds, all of them) is, too.
"""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import contextmanager
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field
from math import comb
from pathlib import Path
from statistics import median

from lab.proxy import ADDON
from lab.proxy import MITMDUMP
from lab.proxy import free_port

from ._client import Answers
from ._client import Load
from ._client import ask
from ._origin import Ports
from ._origin import origin
from .result import Result

ROUNDS = {True: (8, 16), False: (15, 200)}
"""How many rounds there are, and requests of each load in each; if it is quick or not."""
CONNECTIONS = 8
BARE, FLOWTALLY, PAGE = "bare", "flowtally", "flowtally, its live page open"
LEAST = 0.97
"""The share of a bare mitmdump's requests per second that it has to be with flowtally."""
SURE = 0.99
ATTEMPTS = 5
START = 60
"""Seconds to wait for a mitmdump to start, or to end."""


@dataclass
class Samples:
    """What was measured of a load with a variant, by round."""

    rates: list[float] = field(default_factory=list)
    """Requests per second."""
    costs: list[float] = field(default_factory=list)
    """Milliseconds of the proxy's CPU time a request."""
    latencies: list[float] = field(default_factory=list)
    """Seconds of each answer, of all rounds."""


Measured = dict[tuple[Load, str], Samples]


def run(quick: bool, folder: Path, result: Result) -> None:
    """Measure all loads with all variants."""
    with origin(folder) as ports:
        measured = _measure(*ROUNDS[quick], folder, ports, result)
    names = list(dict.fromkeys(name for _, name in measured))
    for load in Load:
        judge(load.title, {name: measured[load, name] for name in names}, result)
    judge("all of these", {name: _together(measured, name) for name in names}, result)


# --- measuring ---


class Variant:
    """A running mitmdump."""

    def __init__(self, arguments: list[str], folder: Path, ports: Ports) -> None:
        for _ in range(ATTEMPTS):
            self.ports = {"regular": free_port(), "reverse": free_port()}
            if self._starts(arguments, folder, ports):
                return
        raise RuntimeError(f"mitmdump {' '.join(arguments)} did not start")

    def _starts(self, arguments: list[str], folder: Path, ports: Ports) -> bool:
        """Start it; False where somebody else was faster to take a port."""
        options = {"confdir": folder, "ssl_insecure": "true", "stream_large_bodies": "500k"}
        command = [str(MITMDUMP), *arguments]
        command += ["--mode", f"regular@127.0.0.1:{self.ports['regular']}"]
        reverse = f"reverse:http://127.0.0.1:{ports.plain}@127.0.0.1:{self.ports['reverse']}"
        command += ["--mode", reverse]
        for name, value in options.items():
            command += ["--set", f"{name}={value}"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START
        while not all(map(_listens, self.ports.values())) and time.monotonic() < deadline:
            time.sleep(0.05)
            if self.process.poll() is not None:
                return False
        # Whoever listens there may be somebody else: then it is about to end.
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
            return False
        if all(map(_listens, self.ports.values())):
            return True
        self.process.kill()
        self.process.wait()
        return False

    def ask(self, load: Load, ports: Ports, requests: int) -> tuple[Answers, float]:
        """Ask it; what came back, and the CPU seconds that it took for that."""
        started = 0.0

        def begin() -> None:
            nonlocal started
            started = self.cpu()

        found = ask(load, self.ports[load.mode], ports, requests, CONNECTIONS, begin)
        return found, self.cpu() - started

    def cpu(self) -> float:
        """CPU seconds that the process has taken."""
        # Linux names the clock of a process so; see clock_getcpuclockid(3).
        return time.clock_gettime(~self.process.pid << 3 | 2)

    def stop(self) -> None:
        """End it as Ctrl+C does."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(START)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextmanager
def _variants(folder: Path, ports: Ports, result: Result) -> Iterator[dict[str, Variant]]:
    log = folder / "session.jsonl"
    arguments = {
        BARE: ["-q"],
        FLOWTALLY: ["-q", "-s", str(ADDON), "--set", f"flowtally_log={log}"],
        PAGE: ["-q", "-s", str(ADDON), "--set", f"flowtally_log={folder / 'page.jsonl'}"],
        "mitmproxy's dumper": [],
        "-w FILE": ["-q", "-w", str(folder / "saved.flows")],
        "hardump": ["-q", "--set", f"hardump={folder / 'saved.har'}"],
    }
    with ExitStack() as stack:
        running = {}
        for name, of_variant in arguments.items():
            running[name] = Variant(of_variant, folder, ports)
            stack.callback(running[name].stop)
        looks = stack.enter_context(_tabs(running[PAGE].ports["regular"]))
        yield running
        if not looks or not all(looks):
            told = f"the live page answered {sum(looks)} of {len(looks)} requests"
            result.failures.append(told)


@contextmanager
def _tabs(port: int) -> Iterator[list[bool]]:
    """A browser's tab with the live page, which asks every two seconds, and one that asked for the
    page and never reads it; yields whether each request of the first was answered. `port`: of a
    regular proxy."""
    request = b"GET http://flowtally.test/report.html HTTP/1.1\r\nHost: flowtally.test\r\n%b\r\n"
    stop = threading.Event()
    looks: list[bool] = []

    def look() -> None:
        known = b""
        while not stop.is_set():
            answer = b""
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as tab:
                tab.sendall(request % (b"If-None-Match: %b\r\nConnection: close\r\n" % known))
                while part := tab.recv(65536):
                    answer += part
                known = answer.partition(b"ETag: ")[2].partition(b"\r")[0]
            looks.append(answer[9:12] in (b"200", b"304"))
            stop.wait(2)

    with socket.create_connection(("127.0.0.1", port), 5) as deaf:
        deaf.sendall(request % b"")
        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield looks
        finally:
            stop.set()
            thread.join()


def _measure(rounds: int, requests: int, folder: Path, ports: Ports, result: Result) -> Measured:
    measured: Measured = {}
    chance = random.Random(1)
    with _variants(folder, ports, result) as running:
        for turn in range(rounds + 1):  # the first one warms up
            for load in Load:
                for name in chance.sample(list(running), len(running)):
                    samples = measured.setdefault((load, name), Samples())
                    found, spent = running[name].ask(load, ports, requests)
                    if turn:
                        samples.rates.append(requests / found.seconds)
                        samples.costs.append(spent / requests * 1e3)
                        samples.latencies += found.latencies
            print(f"round {turn} of {rounds}", file=sys.stderr, flush=True)
    # A WebSocket is one flow, whatever is said in it.
    asked = (rounds + 1) * sum(CONNECTIONS if load is Load.WEBSOCKET else requests for load in Load)
    for name in ("session.jsonl", "page.jsonl"):
        _count(folder / name, asked, result)
    return measured


def _count(log: Path, asked: int, result: Result) -> None:
    """Compare what was asked for with what is in the log."""
    logged: Counter[str] = Counter()
    for line in log.read_bytes().splitlines():
        record = json.loads(line)
        if record["type"] == "flow" and record["kind"] != "connect":
            logged[record["flow"]] += 1
    twice = sum(times > 1 for times in logged.values())
    told = f"{asked:,}, {len(logged):,}; {twice} of them twice"
    result.figures.append((f"requests, and their records in {log.name}", told))
    if len(logged) != asked or twice:
        result.failures.append(f"{log.name}: requests and records: {told}")


# --- judging ---


def interval(values: list[float]) -> tuple[float, float]:
    """Where the median lies of what these are samples of, `SURE` sure whatever its distribution; of
    few, their whole range. See sign test."""
    ordered, size = sorted(values), len(values)
    left = 0
    while left < (size - 1) // 2:
        # How likely it is that at most `left + 1` of them lie on one side of it.
        outside = 2 * sum(comb(size, k) for k in range(left + 2)) / 2**size
        if outside > 1 - SURE:
            break
        left += 1
    return ordered[left], ordered[size - 1 - left]


def _together(measured: Measured, name: str) -> Samples:
    """What was measured with a variant, of all loads in the same order."""
    together = Samples()
    for load in Load:
        samples = measured[load, name]
        together.rates += samples.rates
        together.costs += samples.costs
        together.latencies += samples.latencies
    return together


def judge(title: str, measured: dict[str, Samples], result: Result) -> None:
    """Tell what was measured with each variant, and where flowtally is below what it must be."""
    bare, own = measured[BARE], measured[FLOWTALLY]
    for name in sorted(measured, key=[BARE, FLOWTALLY, PAGE, *measured].index):
        samples = measured[name]
        ordered = sorted(samples.latencies)
        told = f"{median(samples.rates):,.0f}/s, p50 {1e3 * ordered[len(ordered) // 2]:.1f} ms, "
        told += f"p99 {1e3 * ordered[len(ordered) * 99 // 100]:.1f} ms, "
        told += f"{median(samples.costs):.2f} ms of CPU"
        if name != BARE:
            for what, of_it, of_bare in (
                ("rate", samples.rates, bare.rates),
                ("CPU", samples.costs, bare.costs),
            ):
                shares = [one / other for one, other in zip(of_it, of_bare, strict=True)]
                low, high = interval(shares)
                told += f"; {what} {median(shares):.2f} of bare ({low:.2f}-{high:.2f})"
        result.figures.append((f"{title}: {name}", told))
        if name in (FLOWTALLY, PAGE):
            continue
        shares = [one / other for one, other in zip(own.rates, samples.rates, strict=True)]
        least = LEAST if name == BARE else 1
        if median(shares) < least and interval(shares)[1] >= least:
            undecided = f"{median(shares):.3f}, undecided: the interval has {least}, too"
            result.figures.append((f"{title}: flowtally's share of {name}", undecided))
        elif median(shares) < least:
            told = f"{median(shares):.3f} of {name}'s requests per second "
            told += f"({interval(shares)[0]:.3f}-{interval(shares)[1]:.3f})"
            result.failures.append(f"{title}: with flowtally {told}, not {least}")
