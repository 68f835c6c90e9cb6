"""Measures what flowtally costs, with real mitmdump processes on 127.0.0.1.

    .venv/bin/python scripts/bench.py [--read] [--report] [--instructions [--only WORD]]
                                      [--compare [--halves N]] [--addon FILE] [--flows N]
                                      [--records N] [--rounds N] [--json FILE]

--read: CPU time for each flow of a saved file that is read back. --report: time and memory that a
log of a million flows takes to become an HTML report: of a session that was killed, of one that
ended, and of one whose checkpoints are gone, so that every record has to be read; beside GoAccess
(where it is installed) with an access log of the same requests; needs psutil. --instructions: how
many instructions each flow of a saved file costs, and loading the addon, as valgrind counts them:
hardly different from run to run, whatever else the machine does. --only WORD: of all that is
counted for that, only bare mitmdump, the floor, and variants with this word in their names. --addon
FILE: the main.py for that, and for --compare, of another version. --compare: how often `flowtally
compare` says without a mark that two halves of a session differ in which nothing changed, for N of
them, and how often it finds an endpoint that got twice as slow. Without any of these: --read. What
flowtally costs in live traffic, `laboratory.py load` measures.

Variants take turns within a round and are compared with the bare mitmdump of the same round, or
with its GoAccess, so that whatever else the machine does weighs on all of them. Prints Markdown.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import platform
import py_compile
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy import io
from mitmproxy import version
from mitmproxy.test import tflow

ADDON = Path(__file__).resolve().parent.parent / "addon" / "main.py"
MITMDUMP = str(Path(sys.executable).with_name("mitmdump"))
STATUSES = {200: 70, 304: 8, 301: 2, 302: 3, 204: 3, 404: 6, 401: 2, 400: 1, 500: 2, 503: 1}
"""How often each status comes in the saved file, in percent; the rest fails."""
ALMOST_EMPTY = 1
"""Flows in the file that shows the cost of starting: none at all would leave code unloaded."""
BARE = "bare mitmdump -q"

Samples = dict[str, list[float]]
process_context = multiprocessing.get_context("spawn")


# --- the comparison ---


def variants(folder: Path) -> dict[str, list[str]]:
    """What is compared: name → arguments of mitmdump."""
    flowtally = ["-q", "-s", str(ADDON), "--set", f"flowtally_log={folder / 'log.jsonl'}"]
    return {
        BARE: ["-q"],
        "with flowtally": flowtally,
        "without -q (mitmproxy's dumper)": [],
        "with -w FILE": ["-q", "-w", str(folder / "saved.flows")],
        "with hardump": ["-q", "--set", f"hardump={folder / 'saved.har'}"],
    }


def interleave(measure: Callable[[list[str]], float], folder: Path, rounds: int) -> Samples:
    """Call `measure` with each variant's arguments in turn, `rounds` times over."""
    samples: Samples = {}
    for round_number in range(1, rounds + 1):
        for name, arguments in variants(folder).items():
            samples.setdefault(name, []).append(measure(arguments))
            for left in folder.glob("saved.*"):
                left.unlink()
            (folder / "log.jsonl").unlink(missing_ok=True)
        print(f"round {round_number} of {rounds} done", file=sys.stderr, flush=True)
    return samples


def table(title: str, unit: str, samples: Samples) -> str:
    """A Markdown table: the median and range of each variant, and of its ratio to bare."""
    lines = [f"| {title} | {unit} | share of bare |", "|---|---|---|"]
    for name, values in samples.items():
        ratios = [value / bare for value, bare in zip(values, samples[BARE], strict=True)]
        share = f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        spread = f"{median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})"
        lines.append(f"| {name} | {spread} | {'1' if name == BARE else share} |")
    return "\n".join(lines)


# --- reading a saved file ---


def saved_flow(number: int, chance: random.Random) -> mflow.Flow:
    """One flow of the kind that a browser or an app makes."""
    host = f"host{min(int(chance.expovariate(0.1)), 59)}.example"
    path = chance.choice(
        [
            f"/api/v1/users/{number}",
            f"/api/v1/search?q=word{number % 500}&page={number % 7}",
            f"/static/app.{number % 40}.js",
            f"/images/{number % 300}.png",
            "/",
        ]
    )
    started = 1_700_000_000 + number * 0.05
    method = chance.choice(["GET", "GET", "GET", "GET", "POST"])
    headers: dict[str | bytes, str | bytes] = {
        "Host": host,
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Accept": "application/json, text/plain, */*",
        "Accept-Language": "en-US,en;q=0.5",
        "Accept-Encoding": "gzip, deflate",
        "Cookie": "session=0123456789abcdef0123456789abcdef; theme=dark",
        "Referer": f"http://{host}/",
    }
    body = b"x" * chance.randrange(2000) if method == "POST" else b""
    flow = tflow.tflow(req=http.Request.make(method, f"http://{host}{path}", body, headers))
    flow.request.timestamp_start = started
    flow.request.timestamp_end = started + 0.001
    if not chance.choices([True, False], [sum(STATUSES.values()), 2])[0]:
        flow.error = mflow.Error("server closed connection", started + 0.2)
        return flow
    flow.response = http.Response.make(
        chance.choices(list(STATUSES), list(STATUSES.values()))[0],
        b"y" * min(int(chance.lognormvariate(7.5, 1.6)), 200_000),
        {
            "Content-Type": "application/json; charset=utf-8",
            "Cache-Control": "max-age=600",
            "Date": "Tue, 14 Nov 2023 22:13:20 GMT",
            "ETag": f'"{number:x}"',
            "Server": "example",
            "Vary": "Accept-Encoding",
        },
    )
    flow.response.timestamp_start = started + chance.lognormvariate(-3, 1)
    flow.response.timestamp_end = flow.response.timestamp_start + 0.002
    return flow


def write_flows(path: Path, number: int) -> None:
    """Write a file as `mitmdump -w` does, the same one each time."""
    chance = random.Random(1)
    with path.open("wb") as file:
        writer = io.FlowWriter(file)
        for index in range(number):
            writer.add(saved_flow(index, chance))


def cpu_seconds(arguments: list[str], environment: dict[str, str] | None = None) -> float:
    """User and system time that a mitmdump takes from its start to its end."""
    command = [MITMDUMP, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"mitmdump {' '.join(arguments)}: exit status {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def measure_reading(flows: int, rounds: int) -> Samples:
    """CPU time in microseconds for each flow read, the start of mitmdump left out."""
    with temporary_folder() as folder:
        full, almost_empty = folder / "full", folder / "almost-empty"
        write_flows(full, flows)
        write_flows(almost_empty, ALMOST_EMPTY)

        def measure(arguments: list[str]) -> float:
            read = ["--set", f"confdir={folder}", "-nr"]
            start = cpu_seconds([*arguments, *read, str(almost_empty)])
            whole = cpu_seconds([*arguments, *read, str(full)])
            return (whole - start) / (flows - ALMOST_EMPTY) * 1e6

        return interleave(measure, folder, rounds)


# --- a report on a large log ---

GOACCESS = "GoAccess"
BEGIN = 1_700_000_000
"""Unix time of the first request."""


STEP_EVERY = 20
"""Flows between two steps of a session's work on checkpoints: at 20 flows a second, the addon's
timer comes as often."""


def browsed_host(number: int, chance: random.Random, full: bool) -> str:
    """The host of a request: few are asked often, or with full tables all alike."""
    if full:
        return f"host{number % 1500}.example"
    return f"host{min(int(chance.expovariate(0.1)), 59)}.example"


def write_log(folder: Path, name: str, records: int, full: bool) -> None:
    """Let a session of the addon's own write a log: NAME-killed.jsonl, without its end, NAME.jsonl
    with it, and NAME-bare.jsonl without any checkpoint; and an access log of the same requests.
    `full`: to 1,500 hosts and 3,000 endpoints, as many as the tables hold."""
    sys.path.insert(0, str(ADDON.parent))
    from flowtally.session import Session
    from flowtally.times import timestamp
    from flowtally.vocabulary import STATUS_TAGS

    chance = random.Random(1)
    path = folder / f"{name}.jsonl"
    session = Session(str(path), ["regular"], {})
    with (folder / f"{name}.access.log").open("w") as access:
        for number in range(records):
            host = browsed_host(number, chance, full)
            target = chance.choice(
                [
                    f"/api/v1/users/{number}",
                    "/api/v1/search?q=&page=",
                    f"/static/app.{number % 40}.js",
                    f"/images/{number % 300}.png",
                    "/",
                ]
            )
            if full:
                target = f"/pages/{'ab'[number // 1500 % 2]}"
            ended = BEGIN + number * 0.05
            method = chance.choice(["GET", "GET", "GET", "GET", "POST"]) if not full else "GET"
            sent = chance.randrange(2000) if method == "POST" else 0
            received = min(int(chance.lognormvariate(7.5, 1.6)), 200_000)
            wait = int(chance.lognormvariate(10.8, 1))  # microseconds
            duration = wait + 2000 + chance.randrange(3000)
            record: dict[str, Any] = {
                "type": "flow",
                "session": session.id,
                "seq": 0,
                "time": timestamp(ended),
                "flow": f"00000000-0000-4000-8000-{number:012}",
                "kind": "http",
                "client": "127.0.0.1",
                "client_port": 40000 + number % 20000,
                "method": method,
                "url": f"https://{host}{target}",
                "host": host,
                "port": 443,
                "http_version": "HTTP/1.1",
                "request_bytes": sent,
                "duration_ms": duration / 1000,
                "reused": True,
            }
            if number % 50:
                status = chance.choices(list(STATUSES), list(STATUSES.values()))[0]
                record |= {"response_bytes": received, "media_type": "text/html"}
                record |= {"wait_ms": wait / 1000, **STATUS_TAGS[status]}
            else:
                status, received = 502, 0
                record |= {"outcome": "error", "error_code": -2, "error_name": "ConnectionErr"}
                record |= {"cause": "connection_terminated", "side": "server"}
                record |= {"detail": "server closed connection"}
            session.add(record)
            if number % STEP_EVERY == 0:
                session.step()
            moment = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(ended))
            access.write(
                f'127.0.0.1 - - [{moment}] "{method} {target} HTTP/1.1" {status} {received} '
                f'"https://{host}/" "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0"\n'
            )
    shutil.copyfile(path, folder / f"{name}-killed.jsonl")
    session.close()
    with path.open("rb") as log, (folder / f"{name}-bare.jsonl").open("wb") as bare:
        bare.writelines(line for line in log if not line.startswith(b'{"type":"stats"'))


def seconds_of(command: list[str]) -> float:
    """Seconds that a command takes."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
    return seconds


def memory_of(command: list[str]) -> tuple[float, float]:
    """The most memory, in MB, that a command and its children occupy together, and that the largest
    of them does: proportional set size, which counts once what they share, and resident set."""
    import psutil

    silent = subprocess.DEVNULL
    process = psutil.Popen(command, stdin=silent, stdout=silent, stderr=silent)
    most = largest = 0
    while process.poll() is None:
        together = 0
        with suppress(psutil.Error):
            for one in [process, *process.children(recursive=True)]:
                with suppress(psutil.Error):
                    memory = one.memory_full_info()
                    together += getattr(memory, "pss", memory.rss)
                    largest = max(largest, memory.rss)
        most = max(most, together)
        time.sleep(0.02)
    return most / 1e6, largest / 1e6


def measure_report(records: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Name → seconds and megabytes of each round. Time and memory are taken of one run each: to
    look at a process's memory every 20 ms holds it up."""
    if importlib.util.find_spec("psutil") is None:
        sys.exit("--report needs psutil: pip install psutil")
    results: dict[str, dict[str, list[float]]] = {}
    with temporary_folder() as folder:
        write_log(folder, "usual", records, full=False)
        write_log(folder, "full", records, full=True)
        page = str(folder / "report.html")
        flowtally = [sys.executable, "-m", "flowtally", "report", "--html", page]
        logs = {
            "session killed": "usual-killed",
            "session killed, full tables": "full-killed",
            "session ended": "usual",
            "session ended, full tables": "full",
            "without checkpoints": "usual-bare",
            "without checkpoints, full tables": "full-bare",
        }
        commands = {
            f"flowtally, {name}": [*flowtally, str(folder / f"{log}.jsonl")]
            for name, log in logs.items()
        }
        if shutil.which("goaccess"):
            access, out = str(folder / "usual.access.log"), str(folder / "goaccess.html")
            options = ["--log-format=COMBINED", "--no-progress", "--no-global-config"]
            commands = {GOACCESS: ["goaccess", access, *options, "-o", out], **commands}
        for round_number in range(1, rounds + 1):
            for name, command in commands.items():
                found = results.setdefault(name, {"seconds": [], "mb": [], "largest_mb": []})
                found["seconds"].append(seconds_of(command))
                for size, megabytes in zip(("mb", "largest_mb"), memory_of(command), strict=True):
                    found[size].append(megabytes)
            print(f"round {round_number} of {rounds} done", file=sys.stderr, flush=True)
    return results


def report_table(records: int, results: dict[str, dict[str, list[float]]]) -> str:
    """A Markdown table: median and range of each command, and of its ratio to GoAccess."""
    beside = results.get(GOACCESS)
    title = f"| A log of {records:,} flows to HTML | s | share of GoAccess | MB, all processes "
    lines = [f"{title}| share of GoAccess | MB, the largest |", "|---|---|---|---|---|---|"]
    for name, found in results.items():
        cells = []
        for size, digits in (("seconds", 2), ("mb", 0)):
            cells.append(spread(found[size], digits))
            if beside is None:
                cells.append("")
            elif found is beside:
                cells.append("1")
            else:
                pairs = zip(found[size], beside[size], strict=True)
                cells.append(spread([mine / theirs for mine, theirs in pairs], 2))
        lines.append(f"| {name} | {' | '.join(cells)} | {spread(found['largest_mb'], 0)} |")
    if beside is None:
        lines.append("\nGoAccess is not installed: nothing to compare with.")
    return "\n".join(lines)


def spread(values: list[float], digits: int) -> str:
    """Median, lowest and highest."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


# --- instructions ---

SHORT = 300
LONG = 900
"""Flows in the two files whose difference is what a flow costs. The steady one makes the requests
of the short one over and over."""
PORTS = {0: ("http", 8080), 1: ("https", 8443), 2: ("http", 80)}
"""Rest of a flow's number → scheme and port; all others are https on 443."""
SLOWER = 12
"""How many times as long as by itself mitmdump takes under valgrind."""
COLLECTOR = """\
import gc

gc.set_threshold(*gc.get_threshold()[:2], 1_000_000)
"""
"""A `sitecustomize` module without full garbage collections. The first one costs as much as three
flows and falls into the short file with one variant and into the long one with the next; others
come only to those that keep every flow."""
CLOCK = f"""\
import time

real, start = time.monotonic, time.monotonic()
time.monotonic = lambda: start + (real() - start) / {SLOWER}
"""
"""More of it, by which timers keep pace with a process that valgrind holds up: what an addon does
every ten seconds would otherwise come after every three hundred flows, once more or once less."""
FLOOR = """\
import json, os

class Floor:
    def __init__(self):
        self.file = os.open({path!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def response(self, flow):
        if flow.error is None:  # mitmproxy calls `error` next
            self.error(flow)

    def error(self, flow):
        request, response = flow.request, flow.response
        line = {{"method": request.method, "url": request.url, "started": request.timestamp_start}}
        line["sent"] = len(request.raw_content or b"")
        if response is not None:
            line["status"], line["ended"] = response.status_code, response.timestamp_end
            line["received"] = len(response.raw_content or b"")
        os.write(self.file, (json.dumps(line) + "\\n").encode())

addons = [Floor()]
"""
"""The least that an addon does which logs every flow: what flowtally costs beyond it is the price
of its classification, its statistics and its care."""
FLOOR_NAME = "floor: one JSON line a flow"
FLOWTALLY = "with flowtally"
REAL_CLOCK = "flowtally, timers not slowed"
STEADY, GROWING = "same endpoints", "ever new endpoints"


def cycled_flow(number: int, growing: bool) -> mflow.Flow:
    """Flow `number` of a file that makes the same `SHORT` requests over and over, with times and
    ids of their own. `growing`: each to a path that no other flow has."""
    flow = saved_flow(number % SHORT, random.Random(number % SHORT))
    assert isinstance(flow, http.HTTPFlow)
    chance = random.Random(number)
    started = BEGIN + number * 0.05
    request, response = flow.request, flow.response
    request.scheme, request.port = PORTS.get(number % 10, ("https", 443))
    request.timestamp_start, request.timestamp_end = started, started + 0.001
    if response is not None:
        response.timestamp_start = started + chance.lognormvariate(-3, 1)
        response.timestamp_end = response.timestamp_start + 0.002
    if flow.error is not None:
        flow.error.timestamp = started + 0.2
    for one in (flow, flow.client_conn, flow.server_conn):
        # By themselves they are new each time, and so is the order in which tables hold them.
        one.id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    if growing:
        # Letters only: flowtally folds what looks like an id.
        request.path = "/page-" + "".join(chr(97 + number // 26**place % 26) for place in range(4))
    return flow


def write_cycle(path: Path, flows: int, growing: bool = False) -> Path:
    """Write a file of cycled flows; returns its path."""
    with path.open("wb") as file:
        writer = io.FlowWriter(file)
        for number in range(flows):
            writer.add(cycled_flow(number, growing))
    return path


def repeatable(customize: Path) -> dict[str, str]:
    """An environment in which Python does the same each time, and compiles nothing twice."""
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": str(customize)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def instructions(arguments: list[str], customize: Path) -> int:
    """How many instructions a whole mitmdump executes. `customize`: the folder of the
    `sitecustomize` that it loads."""
    counts = customize / "counts"
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--branch-sim=no"]
    command += [f"--cachegrind-out-file={os.devnull}", f"--log-file={counts}"]
    command += [MITMDUMP, *arguments]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, env=repeatable(customize))
    told = counts.read_text()
    found = re.search(r"I\s+refs:\s+([\d,]+)", told)
    if done.returncode != 0 or found is None:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{told}")
    return int(found[1].replace(",", ""))


def measure_instructions(addon: Path, only: str) -> dict[str, Any]:
    """Instructions that each further flow costs, by kind of file and variant, and those that it
    takes to start and end, by variant. `only`: a word in the names of the variants counted."""
    costs: dict[str, dict[str, float]] = {STEADY: {}, GROWING: {}}
    starts: dict[str, int] = {}
    with temporary_folder() as folder:
        slowed, real_clock = folder / "slowed", folder / "real-clock"
        for place, code in ((slowed, COLLECTOR + CLOCK), (real_clock, COLLECTOR)):
            place.mkdir()
            customize = place / "sitecustomize.py"
            customize.write_text(code)
            py_compile.compile(str(customize))
        floor, log = folder / "floor.py", folder / "saved.jsonl"
        floor.write_text(FLOOR.format(path=str(log)))
        flowtally = ["-q", "-s", str(addon), "--set", f"flowtally_log={log}"]
        compared = {
            BARE: ["-q"],
            FLOOR_NAME: ["-q", "-s", str(floor)],
            FLOWTALLY: flowtally,
            REAL_CLOCK: flowtally,
            "without -q (mitmproxy's dumper)": [],
            "with hardump": ["-q", "--set", f"hardump={folder / 'saved.har'}"],
            "with -w FILE": ["-q", "-w", str(folder / "saved.flows")],
        }
        for name in list(compared):
            if only not in name and name not in (BARE, FLOOR_NAME):
                del compared[name]
        files = {
            (kind, flows): write_cycle(folder / f"{kind}, {flows}", flows, kind == GROWING)
            for kind in costs
            for flows in (ALMOST_EMPTY, SHORT, LONG)
        }

        def reading(name: str, kind: str, flows: int) -> list[str]:
            for left in folder.glob("saved.*"):
                left.unlink()  # a log that goes on from an earlier one would be more to write
            file = str(files[kind, flows])
            return [*compared[name], "--set", f"confdir={folder}", "-n", "-r", file]

        def count_reading(name: str, kind: str, flows: int) -> int:
            place = real_clock if name == REAL_CLOCK else slowed
            counted = instructions(reading(name, kind, flows), place)
            if "-s" in compared[name] and log.read_bytes().count(b"\n") < flows:
                sys.exit(f"{name}: not every flow was logged")
            return counted

        for name in compared:
            # Once beforehand, so that what is loaded has been compiled.
            cpu_seconds(reading(name, STEADY, ALMOST_EMPTY), repeatable(slowed))
            if name in (BARE, FLOOR_NAME, FLOWTALLY):
                starts[name] = count_reading(name, STEADY, ALMOST_EMPTY)
            for kind, of_kind in costs.items():
                more = count_reading(name, kind, LONG) - count_reading(name, kind, SHORT)
                of_kind[name] = more / (LONG - SHORT)
            print(f"{name}: done", file=sys.stderr, flush=True)
    return {"flow": costs, "start": starts}


def instructions_table(results: dict[str, Any]) -> str:
    """Markdown tables: what a flow costs, for each kind of file, and what loading does."""
    lines = []
    for kind, costs in results["flow"].items():
        bare, floor = costs[BARE], costs[FLOOR_NAME]
        lines.append(f"| Reading flows, {kind} | instructions a flow (k) | share of bare ")
        lines[-1] += "| minus the floor, % of bare |"
        lines.append("|---|---|---|---|")
        for name, cost in costs.items():
            beyond = "" if name == BARE else f"{(cost - floor) / bare * 100:+.2f}"
            lines.append(f"| {name} | {cost / 1000:,.1f} | {cost / bare:.4f} | {beyond} |")
        lines.append("")
    starts = results["start"]
    lines.append("| Starting and ending, one flow | instructions (M) | more than bare (M) |")
    lines.append("|---|---|---|")
    for name, cost in starts.items():
        lines.append(f"| {name} | {cost / 1e6:,.1f} | {(cost - starts[BARE]) / 1e6:+,.1f} |")
    return "\n".join(lines)


# --- false alarms and power of a comparison ---


def _comparing(addon: Path, log: str, halves: int) -> dict[str, int]:
    """How often a cut of a log → makes a comparison claim anything; in a process of its own."""
    sys.path[:0] = [str(addon.parent), str(Path(__file__).resolve().parent.parent / "tests")]
    from flowtally.comparison import compare
    from flowtally.report.comparison_text import text
    from lab import alike
    from lab.cli import tally

    if log == POWER:
        found = {"certain": 0, "in the first three lines": 0}
        for seed in range(halves):
            comparison = compare(*(tally(*s) for s in alike.slower_endpoint(random.Random(seed))))
            found["certain"] += f"times: endpoint {alike.SLOWED}" in alike.claims(comparison)
            said = " ".join(text(comparison)[:3])
            found["in the first three lines"] += alike.SLOWED in said
        return found
    found = dict.fromkeys(alike.CUTS, 0)
    for seed in range(halves):
        chance = random.Random(seed)
        records = alike.LOGS[log](chance)
        for name, cut in alike.CUTS.items():
            found[name] += bool(
                alike.claims(compare(*(tally(*half) for half in cut(chance, records))))
            )
    return found


POWER = "one of 30 endpoints twice as slow, 80 requests a side"
LOGS = (
    "mixed",
    "thousands of hosts",
    "bursts of 500s by page",
    "latency shared by a page",
    "everything",
)
"""Those of tests/lab/alike.py."""


def measure_comparing(addon: Path, halves: int) -> dict[str, dict[str, int]]:
    """Log → how a session was cut → how often the halves were said to differ."""
    with process_context.Pool(os.cpu_count()) as pool:
        logs = (*LOGS, POWER)
        counts = pool.starmap(_comparing, [(addon, log, halves) for log in logs])
    return dict(zip(logs, counts, strict=True))


def comparing_table(halves: int, results: dict[str, dict[str, int]]) -> str:
    """A Markdown table."""
    cuts = list(results[LOGS[0]])
    lines = [f"| Of {halves} alike pairs, said to differ | {' | '.join(cuts)} |"]
    lines.append("|---" * (1 + len(cuts)) + "|")
    lines += [f"| {log} | {' | '.join(str(results[log][cut]) for cut in cuts)} |" for log in LOGS]
    lines += ["", f"| {POWER} | of {halves} |", "|---|---|"]
    lines += [f"| {name} | {count} |" for name, count in results[POWER].items()]
    return "\n".join(lines)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="flowtally-bench-") as name:
        yield Path(name)


def main() -> None:
    """Measure what the arguments ask for."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--read", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--halves", type=int, default=100, metavar="N", help="of each log")
    parser.add_argument("--only", default="", metavar="WORD", help="what is counted")
    parser.add_argument("--addon", type=Path, default=ADDON, metavar="FILE", help="to be counted")
    parser.add_argument("--records", type=int, default=1_000_000, metavar="N", help="in the log")
    parser.add_argument("--flows", type=int, default=3000, metavar="N", help="in the saved file")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample here")
    arguments = parser.parse_args()
    wanted = (arguments.report, arguments.instructions, arguments.compare)
    arguments.read |= not any(wanted)
    if arguments.instructions and shutil.which("valgrind") is None:
        print("--instructions needs valgrind, and it is not installed", file=sys.stderr)
        sys.exit(2)
    if not arguments.addon.is_file():
        print(f"--addon {arguments.addon}: no such file", file=sys.stderr)
        sys.exit(2)

    machine = (
        f"mitmproxy {version.VERSION}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    )
    results: dict[str, Any] = {"machine": machine}
    print(f"{machine}.\n", flush=True)
    if arguments.read or arguments.report:
        print(f"Median (lowest-highest) of {arguments.rounds} rounds.\n", flush=True)
    if arguments.read:
        results["read"] = measure_reading(arguments.flows, arguments.rounds)
        title = f"Reading a file of {arguments.flows:,} flows"
        print(table(title, "µs of CPU a flow", results["read"]), end="\n\n", flush=True)
    if arguments.report:
        report = results["report"] = measure_report(arguments.records, arguments.rounds)
        print(report_table(arguments.records, report), end="\n\n", flush=True)
    if arguments.instructions:
        counted = results["instructions"] = measure_instructions(arguments.addon, arguments.only)
        print(instructions_table(counted), end="\n\n", flush=True)
    if arguments.compare:
        compared = results["compare"] = measure_comparing(arguments.addon, arguments.halves)
        print(comparing_table(arguments.halves, compared), end="\n\n", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
