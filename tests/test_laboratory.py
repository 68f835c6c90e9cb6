"""The laboratory's own rules: an experiment that finds something makes itself heard."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from experiments.disk import accounts
from experiments.disk import records_of
from experiments.load import interval
from lab.proxy import REPOSITORY

SCRIPTS = REPOSITORY / "scripts"
EXPERIMENT = """
from .result import Result

def run(quick, folder, python):
    {body}
"""
PASSES = 'return Result([("requests", "7 of 7")])'
FAILS = 'return Result([("requests", "6 of 7")], ["one is missing"])'
BREAKS = 'raise ValueError("no such thing")'
LEAVES = "import os; os._exit(3)"


def laboratory(
    folder: Path, *arguments: str, **experiments: str
) -> subprocess.CompletedProcess[str]:
    """Runs a laboratory with these experiments, each the body of its `run`."""
    scripts = folder / "scripts"
    shutil.copytree(SCRIPTS / "experiments", scripts / "experiments")
    shutil.copy(SCRIPTS / "laboratory.py", scripts)
    for path in (scripts / "experiments").glob("[a-z]*.py"):
        if path.stem != "result":
            path.unlink()
    for name, body in experiments.items():
        (scripts / "experiments" / f"{name}.py").write_text(EXPERIMENT.format(body=body))
    command = [sys.executable, str(scripts / "laboratory.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (PASSES, 0, "passed"),
        (FAILS, 1, "one is missing"),
        (BREAKS, 1, "it did not end: ValueError: no such thing"),
        (LEAVES, 1, "it ended with exit status 3"),
    ],
)
def test_what_an_experiment_finds_is_told(
    tmp_path: Path, body: str, status: int, said: str
) -> None:
    done = laboratory(tmp_path, "--quick", one=body)
    assert (done.returncode, said in done.stdout) == (status, True), done.stdout + done.stderr


def test_all_figures_are_in_one_table(tmp_path: Path) -> None:
    done = laboratory(tmp_path, one=PASSES, other=FAILS)
    assert "|  | requests | 7 of 7 |" in done.stdout
    assert "|  | requests | 6 of 7 |" in done.stdout
    assert done.stdout.count("|---|---|---|") == 1


def test_only_the_experiments_that_are_named_are_run(tmp_path: Path) -> None:
    done = laboratory(tmp_path, "one", one=PASSES, other=FAILS)
    assert done.returncode == 0
    assert "other" not in done.stdout


def test_an_experiment_that_there_is_not_is_a_wrong_argument(tmp_path: Path) -> None:
    done = laboratory(tmp_path, "none", one=PASSES)
    assert done.returncode == 2
    assert "none: no such experiment; there are one" in done.stderr


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 3.0, 2.0], (1.0, 3.0)),
        (list(map(float, range(8))), (0.0, 7.0)),
        # Of 15, the third and the thirteenth: P(at most 2 of 15 on one side) = 0.0037 each way.
        (list(map(float, range(15))), (2.0, 12.0)),
    ],
)
def test_the_interval_of_a_median_is_that_of_the_sign_test(
    values: list[float], expected: tuple[float, float]
) -> None:
    assert interval(values) == expected


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ('{"type":"flow","session":"1","seq":2}', 0),
        ('{"type":"flow","sess', 0),
        ('{"t', 0),
        ("", 0),
        ('{"type":"fl{"type":"gap","session":"1","seq":3,"dropped":1}', 1),
        ("somebody's", 1),
    ],
)
def test_a_line_is_a_record_or_the_beginning_of_one(tmp_path: Path, line: str, wrong: int) -> None:
    log = tmp_path / "log"
    log.write_text(line + "\n")
    assert len(records_of([log])[1]) == wrong


def test_what_is_missing_is_compared_with_what_gaps_tell() -> None:
    records = [
        json.loads(line)
        for line in (
            '{"type":"session_start","session":"1","seq":1}',
            '{"type":"gap","session":"1","seq":5,"dropped":2}',
            '{"type":"session_start","session":"2","seq":1}',
            '{"type":"flow","session":"2","seq":2}',
        )
    ]
    assert accounts(records) == (3, 2)
