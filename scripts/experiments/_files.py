"""Hostile logs, HARs and flow files for the command line; `abuse.py` runs it in its own processes.

    PYTHONPATH=addon:scripts:tests .venv/bin/python -m experiments._files FILE FIRST COUNT

FILE: a `.jsonl`, `.har` or `.flows`. Each input is FILE with a few changes that follow from its
number alone: other values, other keys, parts cut, doubled, without an end, bytes turned. Two
commands read it. Prints one JSON object: how many inputs, and each finding with the number of its
first input.
"""

from __future__ import annotations

import csv
import io
import json
import re
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

from click.testing import CliRunner
from flowtally.cli import main as flowtally
from lab.hars import har_of
from mitmproxy.io import FlowWriter
from mitmproxy.io import tnetstring
from mitmproxy.test import tflow
from test_har import PRODUCERS
from test_markdown import outside_code

MEMORY = 2 * 1024**3
"""Bytes of address space that a process may have."""
SECONDS = 20
"""How long one command may take."""
CANARY = "flowtally-canary"
"""A file of that name would show that something ran."""
TEXTS = (
    *("", "\x1b]0;owned\x07", "\x9b31m", "\u202e", "\u2066", "\ud800", "\0", "\r\n", "x" * 5000),
    *("<x-y onload=1>", "</script><x-y>", "]]>", "&amp;", "![x](y)", "[x](javascript:y)", "`x`"),
    *("=1+1", "+1+1", "-1+1", "@SUM(1)", "a;=1+1", "\t=1+1", "a,=1+1", "|x|", "# x", "\n# x"),
    *(f"$(touch {CANARY})", f"`touch {CANARY}`", f"'; touch {CANARY}; '", f"\n touch {CANARY}"),
    *("-o/etc/passwd", "--config", "(other)", "error", "Success", "2026-01-02T03:04:05.678Z"),
    *("0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z", "１２", "-0", "NaN", "é" * 99),
)
NUMBERS = (0, -1, 1, 1.5, 65536, 2**31, 2**53, 2**63, 10**30, 10**400, 1e308, -1e308, 404, 999)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [None], [[]], {"": {}}, [1, "x"])
BYTES = (b"", b"\0", b"\xff\xfe", b"\x1b]0;owned\x07", b"GET", b"99999999999", b"<x-y onload=1>")
"""For flow files, whose values may be bytes; JSON has none."""
PRINTING: dict[str, tuple[str, ...]] = {
    "text": ("report",),
    "json": ("report", "--json"),
    "csv": ("report", "--csv"),
    "markdown": ("report", "--markdown"),
    "digest": ("why",),
    "flows": ("flows",),
    "records": ("flows", "--json"),
    "shell": ("flows", "--curl"),
    "sessions": ("sessions",),
}
"""Commands that print what is in a file, each in its own form."""
COMMANDS: dict[str, tuple[str, ...]] = {
    **PRINTING,
    "budgets": ("check", "--max", "problems=0", "--max", "p95_ms=1", "--min", "200=1"),
    "html": ("report", "--force", "--html"),
    "junit": ("check", "--max", "problems=0", "--force", "--junit"),
    "comparison": ("compare",),
    "sql": ("sql",),
    "rows": ("sql", "--json"),
}
QUERIES = {"sql": "FROM flows", "rows": "FROM totals"}
"""Of commands that read logs alone."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def odd(random: Random) -> Any:
    return random.choice((random.choice(TEXTS), random.choice(NUMBERS), random.choice(OTHERS)))


def spoil(value: Any, random: Random) -> Any:
    """The value with one part of it changed."""
    if isinstance(value, dict) and value:
        name = random.choice(list(value))
        way = random.random()
        if way < 0.1:
            return {key: part for key, part in value.items() if key != name}
        if way < 0.2:
            return {**value, random.choice(TEXTS): value[name]}
        return {**value, name: spoil(value[name], random)}
    if isinstance(value, list) and value and random.random() < 0.9:
        at = random.randrange(len(value))
        if random.random() < 0.2:
            return [*value, value[at]]
        return [*value[:at], spoil(value[at], random), *value[at + 1 :]]
    if isinstance(value, bytes) and random.random() < 0.7:
        return random.choice(BYTES)
    return odd(random)


def changed_log(log: bytes, random: Random) -> bytes:
    """A log with some changes."""
    lines = log.splitlines()
    for _ in range(random.randrange(1, 5)):
        at = random.randrange(len(lines))
        way = random.random()
        if way < 0.7:
            try:
                record = spoil(json.loads(lines[at]), random)
                lines[at] = json.dumps(record).encode()
            except (ValueError, RecursionError):
                continue
        elif way < 0.8:
            lines.insert(random.randrange(len(lines)), lines[at])
        elif way < 0.85:
            lines[at] = lines[at][: random.randrange(len(lines[at]) + 1)]
        elif way < 0.9:
            del lines[at]
            lines = lines or [b""]
        elif way < 0.95 and lines[at]:
            turned = bytearray(lines[at])
            turned[random.randrange(len(turned))] ^= 1 << random.randrange(8)
            lines[at] = bytes(turned)
        else:
            lines[at] = lines[at] + b"[" * random.choice((10, 2000, 100_000))
    return b"\n".join(lines) + random.choice((b"\n", b"", b"\0", b"\r\n"))


def changed_har(content: bytes, random: Random) -> bytes:
    """A HAR with some changes."""
    value = json.loads(content)
    for _ in range(random.randrange(1, 6)):
        value = spoil(value, random)
    # Lone surrogates stand there as escapes, as in any JSON.
    return _damaged(json.dumps(value, indent=random.choice((None, 2))).encode(), random)


def changed_flows(content: bytes, random: Random) -> bytes:
    """A flow file with some changes."""
    states = []
    file = io.BytesIO(content)
    while file.tell() < len(content):
        states.append(tnetstring.load(file))
    for _ in range(random.randrange(1, 6)):
        at = random.randrange(len(states))
        spoilt = spoil(states[at], random)
        # Lone surrogates, and numbers of too many digits, have no such form.
        with suppress(ValueError):
            tnetstring.dumps(spoilt)
            states[at] = spoilt
    return _damaged(b"".join(map(tnetstring.dumps, states)), random)


def _damaged(content: bytes, random: Random) -> bytes:
    """The content, in every third case with one piece of it cut out, doubled, or turned."""
    at = random.randrange(len(content))
    to = min(len(content), at + random.choice((1, 1, 40, 4000)))
    way = random.randrange(15)
    if way == 0:
        return content[:at]
    if way == 1:
        return content[:at] + content[to:]
    if way == 2:
        return content[:to] + content[at:]
    if way == 3:
        return content[:at] + random.randbytes(to - at) + content[to:]
    if way == 4:
        return content[:at] + random.choice((b"[", b"{", b"9:", b'"')) * 100_000 + content[at:]
    return content


CHANGED: dict[str, Callable[[bytes, Random], bytes]] = {
    ".jsonl": changed_log,
    ".har": changed_har,
    ".flows": changed_flows,
}


def har() -> bytes:
    """A HAR with the entries of every program."""
    return har_of(*(entry for _, entry, _ in PRODUCERS))


def flow_file() -> bytes:
    """A flow file with flows of every type, as mitmproxy writes it."""
    file = io.BytesIO()
    writer = FlowWriter(file)
    for made in (
        *(tflow.tflow(resp=True), tflow.tflow(err=True), tflow.tflow()),
        *(tflow.twebsocketflow(), tflow.twebsocketflow(err=True)),
        *(tflow.ttcpflow(), tflow.ttcpflow(err=True), tflow.tudpflow(), tflow.tudpflow(err=True)),
        *(tflow.tdnsflow(resp=True), tflow.tdnsflow(err=True)),
    ):
        writer.add(made)
    return file.getvalue()


class SlowError(BaseException):
    """A command takes too long. Nothing catches it on the way."""


def _too_slow(*_: object) -> None:
    raise SlowError


class Judge:
    """Runs a command and looks at what it wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: dict[str, tuple[int, int, str]] = {}
        """What → how often, the first input, and where."""
        self.number = 0

    def add(self, what: str, where: str) -> None:
        count, number, first = self.found.get(what, (0, self.number, where))
        self.found[what] = (count + 1, number, first)

    def run(self, name: str, hostile: Path, whole: Path, *, answers: bool = False) -> None:
        """`answers`: the command has to, as it does where nothing was changed."""
        command = [*COMMANDS[name]]
        file = self.folder / f"{name}.out"
        if name in ("html", "junit"):
            command.append(str(file))
        command += [str(hostile), *([str(whole)] if name == "comparison" else [])]
        command += [QUERIES[name]] if name in QUERIES else []
        signal.alarm(SECONDS)
        try:
            done = CliRunner().invoke(flowtally, command)
        except SlowError:
            self.add(f"{name}: takes longer than {SECONDS} s", "")
            return
        finally:
            signal.alarm(0)
        problem = done.exception
        if problem is not None and not isinstance(problem, SystemExit):
            trace = "".join(traceback.format_exception(problem))
            frame = traceback.extract_tb(problem.__traceback__)[-1]
            at = f"{Path(frame.filename).name}:{frame.lineno}"
            self.add(f"{name}: {type(problem).__name__} at {at}", trace[-900:])
            return
        if answers and done.exit_code not in (0, 1):
            self.add(f"{name}: answers nothing, exit status {done.exit_code}", done.stderr[:300])
        if reason := _check_terminal(done.stderr, self.folder):
            self.add(f"{name}: on standard error: {reason}", done.stderr[:300])
        text = done.stdout
        if name in ("html", "junit") and file.exists():
            text = file.read_text("utf-8", "replace")
            file.unlink()
        elif name in ("html", "junit"):
            return
        if reason := CHECKS.get(name, _check_terminal)(text, self.folder):
            self.add(f"{name}: {reason}", text[:300])


def _check_terminal(text: str, _: Path) -> str:
    found = CONTROL.search(text.replace("\r\n", "\n"))
    return f"control character {found.group()!r}" if found else ""


def _check_html(text: str, folder: Path) -> str:
    found = "<x-y" in text or re.search(r"""(href|src)\s*=\s*["']?\s*javascript:""", text, re.I)
    return "markup of a peer's" if found else _check_terminal(text, folder)


def _check_markdown(text: str, folder: Path) -> str:
    # In code it is text, whatever it says.
    rest = "\n".join(map(outside_code, text.split("\n")))
    found = any(markup in rest for markup in ("<x-y", "![x](y)", "[x](javascript:y)"))
    return "markup of a peer's" if found else _check_terminal(text, folder)


def _check_csv(text: str, folder: Path) -> str:
    for row in csv.reader(io.StringIO(text)):
        for cell in row:
            for part in re.split(r"[;,\t\n]", cell):
                if re.match(r"\s*[=@]|\s*[+-](?![\d.]+$)", part) and re.search(r"1\+1|SUM", part):
                    return "a formula"
    return _check_terminal(text, folder)


def _check_xml(text: str, _: Path) -> str:
    try:
        ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        return f"no XML: {error}"
    return ""


def _check_json(text: str, _: Path) -> str:
    try:
        json.loads(text or "null")
    except ValueError as error:
        return f"no JSON: {str(error)[:40]}"
    return ""


def _check_records(text: str, folder: Path) -> str:
    # Not splitlines(), which parts at more than line ends.
    return next(filter(None, (_check_json(line, folder) for line in text.split("\n"))), "")


def _check_shell(text: str, folder: Path) -> str:
    """What is to be pasted into a shell runs curl and nothing else."""
    script = f"curl() {{ :; }}\n{text}"
    try:
        subprocess.run(
            ["bash", "--norc"],
            input=script.encode("utf-8", "replace"),
            cwd=folder,
            capture_output=True,
            env={"PATH": "/usr/bin:/bin"},
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return "the shell waits"
    canary = folder / CANARY
    if canary.exists():
        canary.unlink()
        return "the shell ran something"
    return _check_terminal(text, folder)


CHECKS: dict[str, Callable[[str, Path], str]] = {
    "html": _check_html,
    "markdown": _check_markdown,
    "digest": _check_markdown,
    "csv": _check_csv,
    "junit": _check_xml,
    "json": _check_json,
    "records": _check_records,
    "rows": _check_json,
    "shell": _check_shell,
}


def main(whole: Path, first: int, count: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _too_slow)
    content, change = whole.read_bytes(), CHANGED[whole.suffix]
    with tempfile.TemporaryDirectory() as name:
        judge = Judge(Path(name))
        commands = [name for name in COMMANDS if name not in QUERIES or whole.suffix == ".jsonl"]
        for command in commands:
            judge.run(command, whole, whole, answers=True)
        for number in range(first, first + count):
            random = Random(number)
            judge.number = number
            hostile = judge.folder / f"hostile{whole.suffix}"
            hostile.write_bytes(change(content, random))
            for command in random.sample(commands, 2):
                judge.run(command, hostile, whole)
    found = [
        {"what": what, "times": times, "input": number, "where": where}
        for what, (times, number, where) in sorted(judge.found.items())
    ]
    print(json.dumps({"inputs": count, "found": found}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
