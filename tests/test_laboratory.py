"""The laboratory's own rules: an experiment that finds something makes itself heard."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from experiments._records import accounts
from experiments._records import records_of
from experiments._releases import requirements
from experiments.abuse import judge_log as judge_sockets
from experiments.load import BARE
from experiments.load import FLOWTALLY
from experiments.load import Samples
from experiments.load import interval
from experiments.load import judge as judge_load
from experiments.result import Result
from experiments.scale import Mark
from experiments.scale import judge as judge_scale
from experiments.soak import growing
from lab.cli import answered
from lab.cli import final
from lab.cli import lines
from lab.cli import start
from lab.proxy import REPOSITORY
from lab.proxy import is_of

SCRIPTS = REPOSITORY / "scripts"
EXPERIMENT = """
from .result import Result

def run(quick, folder, result):
    {body}
"""
PASSES = 'result.figures.append(("requests", "7 of 7"))'
FAILS = 'result.figures.append(("requests", "6 of 7")); result.failures.append("one is missing")'
BREAKS = f'{FAILS}; raise ValueError("no such thing")'
LEAVES = "import os; os._exit(3)"
HANGS = f"""{FAILS}
    from concurrent.futures import ThreadPoolExecutor
    import time
    with ThreadPoolExecutor(1) as pool:
        pool.submit(time.sleep, 60).result()"""
ENDS_BADLY = "import atexit, os; atexit.register(os._exit, 5)"


def laboratory(
    folder: Path, *arguments: str, **experiments: str
) -> subprocess.CompletedProcess[str]:
    """Runs a laboratory with these experiments, each the body of its `run`."""
    scripts = folder / "scripts"
    shutil.copytree(SCRIPTS / "experiments", scripts / "experiments")
    source = (SCRIPTS / "laboratory.py").read_text()
    assert "GRACE = 60\n" in source
    (scripts / "laboratory.py").write_text(source.replace("GRACE = 60\n", "GRACE = 3\n"))
    for path in (scripts / "experiments").glob("[a-z]*.py"):
        if path.stem != "result":
            path.unlink()
    for name, body in experiments.items():
        (scripts / "experiments" / f"{name}.py").write_text(EXPERIMENT.format(body=body))
    command = [sys.executable, str(scripts / "laboratory.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (PASSES, 0, "passed"),
        (FAILS, 1, "one is missing"),
        (BREAKS, 1, "it did not end: ValueError: no such thing"),
        (BREAKS, 1, "one is missing"),
        (LEAVES, 1, "it ended with exit status 3"),
        (ENDS_BADLY, 1, "it ended with exit status 5"),
    ],
)
def test_what_an_experiment_finds_is_told(
    tmp_path: Path, body: str, status: int, said: str
) -> None:
    done = laboratory(tmp_path, "--quick", one=body)
    assert (done.returncode, said in done.stdout) == (status, True), done.stdout + done.stderr


def test_what_was_found_until_the_time_was_over_is_told(tmp_path: Path) -> None:
    done = laboratory(tmp_path, "--limit", "5", one=HANGS)
    assert done.returncode == 1
    assert "it took longer than 5 s" in done.stdout
    assert "one is missing" in done.stdout


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
    ("share", "of_dumper", "fails"),
    [
        ([0.98], [1.1], 0),
        ([0.9], [1.1], 1),
        # The median is below, and may be by chance.
        ([0.9, 0.9, 0.9, 1.0, 1.0], [1.1], 0),
        ([0.98], [0.97], 1),
        ([0.9], [0.97], 2),
    ],
)
def test_flowtally_may_be_slower_than_others_by_chance_only(
    share: list[float], of_dumper: list[float], fails: int
) -> None:
    rounds = 15

    def of(rates: list[float]) -> Samples:
        return Samples((rates * rounds)[:rounds], [1.0] * rounds, [0.1] * rounds)

    rates = [100.0 * one for one in (share * rounds)[:rounds]]
    others = [rate / other for rate, other in zip(rates, of_dumper * rounds, strict=False)]
    measured = {BARE: of([100.0]), FLOWTALLY: of(rates), "mitmproxy's dumper": of(others)}
    result = Result()
    judge_load("HTTP/2", measured, result)
    assert len(result.failures) == fails, result.failures


MARK = Mark(
    flows=1,
    memory=10.0,
    log_bytes=500.0,
    checkpoints=0.09,
    microseconds=25.0,
    longest=8.0,
    collection=40.0,
    report=0.5,
    report_memory=40.0,
    page=5.0,
    page_memory=100.0,
)


@pytest.mark.parametrize(
    ("field", "value", "fails"),
    [
        ("memory", 11.0, 0),
        ("memory", 30.0, 1),
        ("memory", 100.0, 2),
        ("log_bytes", 700.0, 1),
        ("checkpoints", 0.2, 1),
        ("microseconds", 50.0, 1),
        ("longest", 30.0, 1),
        ("collection", 150.0, 1),
        ("report", 5.0, 1),
        ("report_memory", 120.0, 1),
        ("page", 50.0, 0),
        ("page_memory", 300.0, 1),
    ],
)
def test_what_grows_with_the_number_of_flows_is_told(field: str, value: float, fails: int) -> None:
    result = Result()
    judge_scale([MARK, dataclasses.replace(MARK, flows=10, **{field: value})], result)
    assert len(result.failures) == fails, result.failures


def test_no_index_is_asked_for_flowtally_itself() -> None:
    """The extra `test` names another one of this package: once, no environment could be made."""
    needed = requirements()
    assert needed
    assert [need for need in needed if need.startswith("flowtally")] == []


@pytest.mark.parametrize(
    ("of_a_second", "grows"), [(lambda _: 300, False), (lambda n: min(n, 4096), False), (int, True)]
)
def test_a_table_that_grows_for_ever_is_told(
    of_a_second: Callable[[int], int], grows: bool
) -> None:
    samples = [{"time": n, "tables": {"_open": of_a_second(10 * n)}} for n in range(3540)]
    assert [told.split()[0] for told in growing(samples)] == ["_open"] * grows


WRAPPED = """Traceback (most recent call last):
  File "/site-packages/mitmproxy/proxy/layers/http/__init__.py", line 204, in _handle_event
    yield from self.server_state(event)
               ~~~~~~~~~~~~~~~~~^^^^^^^
  File "/addon/flowtally/internals.py", line 147, in state
    return original(self, event)
  File "/site-packages/mitmproxy/proxy/utils.py", line 27, in _check_event_type
    raise AssertionError(
AssertionError: Unexpected event type
"""


@pytest.mark.parametrize(
    ("traceback", "is_ours"),
    [
        (WRAPPED, False),  # mitmproxy's own, through a method that the addon wraps
        (WRAPPED.replace("return original(self, event)", "return len(event)"), True),
        (WRAPPED.replace("/addon/", "/elsewhere/"), False),
        # The addon gives a release of mitmproxy's something that it does not take.
        (re.sub(r'  File "/site-packages/mitmproxy/proxy/utils.*\n.*\n', "", WRAPPED), True),
    ],
)
def test_an_exception_is_the_addons_where_it_came_out_of_it(traceback: str, is_ours: bool) -> None:
    assert is_of(Path("/addon"), traceback) == is_ours


GOOD_PORT = 8000


def _good(number: int) -> dict[str, Any]:
    return answered(200, url=f"http://127.0.0.1:{GOOD_PORT}/good/{number}", port=GOOD_PORT)


EVERY_KIND = [
    answered(200, kind=kind, http_version=version)
    for kind, version in (
        *(("http", "HTTP/1.1"), ("http", "HTTP/2.0"), ("http", "HTTP/3")),
        *(("websocket", "HTTP/1.1"), ("tcp", "HTTP/1.1"), ("dns", "HTTP/1.1")),
    )
]


@pytest.mark.parametrize(
    ("records", "answers", "errors", "says"),
    [
        ([*EVERY_KIND, _good(1), _good(2)], 2, {}, ""),
        ([*EVERY_KIND, _good(1)], 2, {}, "2 good requests were answered, 1 are told"),
        ([*EVERY_KIND, _good(1), _good(1)], 1, {}, "told more than once"),
        ([*EVERY_KIND, _good(1)], 1, {"b'HTTP/1.1 502'": 1}, "without a good answer"),
        ([_good(1)], 1, {}, "no record of websocket, tcp, dns, HTTP/1.1, HTTP/2.0, HTTP/3"),
        ([*EVERY_KIND, _good(1) | {"close_code": True}], 1, {}, "own record refused"),
    ],
)
def test_what_became_of_odd_connections_is_told(
    records: list[dict[str, Any]], answers: int, errors: dict[str, int], says: str
) -> None:
    log = lines(start(), *records, final(*records)).splitlines()
    found = list(judge_sockets(log, GOOD_PORT, answers, errors))
    assert [says in one for one in found] == [True] * bool(says), found


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
