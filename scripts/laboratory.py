"""Tries flowtally hard: real mitmdump processes on 127.0.0.1, under load, killed, on broken disks.

    .venv/bin/python scripts/laboratory.py [NAME…] [--quick] [--limit SECONDS] [--python PATH…]

NAME: an experiment, a module of scripts/experiments; without one, all of them, one after another.
--quick: less of each. --limit: after how many seconds an experiment is ended; without it, after a
multiple of what it takes. --python: the interpreters whose mitmproxy is tried, one after another,
each with the packages of `pip install '.[test]'`; without it, the one that runs this. Tells
on stderr how far it is; prints a Markdown table of what was measured and a list of what was not as
it must be. Exit status: 0 if all passed, 1 if anything failed, 2 for a wrong argument.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from experiments.result import NOT_TRIED

SCRIPTS = Path(__file__).resolve().parent
REPOSITORY = SCRIPTS.parent
NAMES = sorted(
    path.stem for path in (SCRIPTS / "experiments").glob("[a-z]*.py") if path.stem != "result"
)
LIMITS = {True: 1800, False: 10_800}
"""Seconds after which an experiment is ended, if it is quick or not: on a busy machine, each takes
a multiple of its time."""
GRACE = 60
"""Seconds for an experiment to take away what it made when it is told to end."""
SHOWN, SENTENCE = 20, 1000
"""How many failures of an experiment are told, and how many characters of each."""


@dataclass(frozen=True)
class Done:
    """An experiment that was run."""

    name: str
    generation: str
    """Of mitmproxy and Python."""
    seconds: float
    figures: list[tuple[str, str]]
    failures: list[str]


def run(name: str, quick: bool, limit: float, python: Path) -> Done:
    """Run an experiment in a process of its own, which leaves none behind when it has ended."""
    # What cannot be removed, such as a file system that is still mounted, is no reason to forget
    # what was found.
    with tempfile.TemporaryDirectory(
        prefix=f"flowtally-{name}-", ignore_cleanup_errors=True
    ) as place:
        folder, result = Path(place) / "folder", Path(place) / "result.json"
        folder.mkdir()
        paths = [SCRIPTS, REPOSITORY / "addon", REPOSITORY / "tests"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
        command = [str(python), "-m", "experiments", name, str(folder), str(result)]
        command += ["--quick"] * quick
        started = time.monotonic()
        process = subprocess.Popen(
            command, stdout=sys.stderr, env=environment, cwd=REPOSITORY, start_new_session=True
        )
        why = []
        try:
            if status := process.wait(limit):
                why = [f"it ended with exit status {status}"]
        except subprocess.TimeoutExpired:
            why = [f"it took longer than {limit:,.0f} s"]
        finally:
            _end(process)
        seconds = time.monotonic() - started
        if not result.exists():
            return Done(name, str(python), seconds, [], why or ["it tells nothing"])
        found = json.loads(result.read_text())
    if not found["figures"]:
        why.append("it measured nothing")
    return Done(name, found["generation"], seconds, found["figures"], found["failures"] + why)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    finally:  # also for whoever does not want to wait
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def table(done: list[Done]) -> str:
    """What was measured, as a Markdown table with a column for each generation."""
    generations = list(dict.fromkeys(one.generation for one in done))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for one in done:
        verdict = f"**{len(one.failures)} failures**" if one.failures else "passed"
        if untried := sum(value.startswith(NOT_TRIED) for _, value in one.figures):
            verdict += f", {untried} not tried"
        for what, value in [("", f"{verdict}, {one.seconds:,.0f} s"), *one.figures]:
            cells.setdefault((one.name, what), {})[one.generation] = value
    lines = [f"| | | {' | '.join(generations)} |", "|---" * (2 + len(generations)) + "|"]
    for (name, what), values in cells.items():
        row = [f"**{name}**" if not what else "", what, *(values.get(g, "") for g in generations)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what the arguments ask for."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--limit", type=float, metavar="SECONDS")
    parser.add_argument("--python", nargs="+", type=Path, default=[Path(sys.executable)])
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in NAMES:
            parser.error(f"{name}: no such experiment; there are {', '.join(NAMES)}")
    for python in arguments.python:
        if not os.access(python, os.X_OK):
            parser.error(f"--python {python}: no program that can be run")
    # So that what runs is ended in any case.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    limit = LIMITS[arguments.quick] if arguments.limit is None else arguments.limit
    done: list[Done] = []
    for name in arguments.names or NAMES:
        for python in arguments.python:
            print(f"{name}, {python} …", file=sys.stderr, flush=True)
            # Not resolved: a link to an interpreter is what tells it of its environment.
            done.append(run(name, arguments.quick, limit, python.absolute()))
    print(table(done))
    for one in done:
        for failure in one.failures[:SHOWN]:
            told = failure if len(failure) <= SENTENCE else failure[:SENTENCE] + "…"
            print(f"\n- {one.name}, {one.generation}: {told}", end="")
        if (more := len(one.failures) - SHOWN) > 0:
            print(f"\n- {one.name}, {one.generation}: and {more} more", end="")
    print()
    sys.exit(any(one.failures for one in done))


if __name__ == "__main__":
    main()
