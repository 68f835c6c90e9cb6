"""A little of what the laboratory does to hooks, and to files for the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from experiments import _files
from flowtally.valid import check
from lab.cli import answered
from lab.cli import event
from lab.cli import lines
from lab.cli import run
from lab.cli import start
from lab.proxy import REPOSITORY
from lab.sessions import everything

PLACES = [REPOSITORY / name for name in ("addon", "scripts", "tests")]


def worker(*arguments: str) -> Any:
    """What a module of the laboratory tells."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PLACES))},
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_odd_flows_in_odd_orders_harm_no_other() -> None:
    assert worker("experiments._hooks", "1000000", "4") == {"inputs": 2000, "found": []}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.jsonl", lambda: lines(*everything(20))),
        ("browser.har", _files.har),
        ("saved.flows", _files.flow_file),
    ],
)
def test_hostile_files_are_read_or_refused(
    name: str, content: Callable[[], bytes], tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(content())
    assert worker("experiments._files", str(file), "1000000", "40") == {"inputs": 40, "found": []}


@pytest.mark.parametrize("field", ["side", "client"])
@pytest.mark.parametrize("value", [5, ["client"], None])
def test_what_is_no_text_makes_a_record_unreadable(
    field: str, value: object, tmp_path: Path
) -> None:
    """Once a number in one of these ended a report with a traceback."""
    good, odd = event(second=1), {**event(second=2), field: value}
    assert check({**odd, "seq": 1}) == f"{field} is {value!r}, not text"
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(start(), answered(200), good, odd))
    done = run("report", log)
    assert (done.returncode, "1 unreadable line" in done.stderr) == (0, True), done.stderr
