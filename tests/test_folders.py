"""Folders and patterns as inputs: they stand for the logs in them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from flowtally.folders import NONE
from lab.cli import answered
from lab.cli import lines
from lab.cli import run
from lab.cli import start


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two logs of a flow each, and what is none."""
    found = tmp_path / "logs"
    found.mkdir()
    for session in ("00000001", "00000002"):
        flow = answered(404, session=session)
        (found / f"{session}.jsonl").write_bytes(lines(start(session), flow))
    (found / "notes.txt").write_text("no log")
    (found / "folder.jsonl").mkdir()
    return found


@pytest.mark.parametrize(
    "command", [("report",), ("check", "--max", "flows=2"), ("why",), ("flows",)], ids=" ".join
)
def test_a_folder_stands_for_the_logs_in_it(command: tuple[str, ...], folder: Path) -> None:
    logs = [folder / "00000001.jsonl", folder / "00000002.jsonl"]
    name, *options = command
    by_folder, by_name = (run(name, *given, *options) for given in ([folder], logs))
    assert by_folder.returncode == by_name.returncode == 0
    if name != "why":  # which names what it read
        assert (by_folder.stdout, by_folder.stderr) == (by_name.stdout, by_name.stderr)


def test_a_pattern_stands_for_what_it_matches(folder: Path) -> None:
    done = run("report", "--json", folder / "*1.jsonl")
    assert [each["session"] for each in json.loads(done.stdout)["sessions"]] == ["00000001"]
    (folder / "[x].jsonl").write_bytes(lines(start("00000003"), answered(session="00000003")))
    done = run("report", "--json", folder / "[x].jsonl")
    assert [each["session"] for each in json.loads(done.stdout)["sessions"]] == ["00000003"]


def test_a_folder_without_a_log_is_named(tmp_path: Path) -> None:
    done = run("report", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"flowtally: {tmp_path}: {NONE}\n"


def test_a_folder_stands_for_its_packed_logs_too(folder: Path) -> None:
    log = folder / "00000002.jsonl"
    whole = run("report", folder, "--json").stdout
    listed = json.loads(run("sessions", folder, "--json").stdout)
    packed = folder / "00000002.jsonl.gz"
    packed.write_bytes(gzip.compress(log.read_bytes()))
    log.unlink()
    assert run("report", folder, "--json").stdout == whole
    found = json.loads(run("sessions", folder, "--json").stdout)
    assert [each | {"log": ""} for each in found] == [each | {"log": ""} for each in listed]
    assert {each["log"] for each in found} == {str(folder / "00000001.jsonl"), str(packed)}


def test_a_link_that_leads_to_itself_is_passed_over(folder: Path) -> None:
    whole = run("report", folder, "--json").stdout
    (folder / "loop.jsonl").symlink_to("loop.jsonl")
    assert run("report", folder, "--json").stdout == whole


def test_an_input_without_a_name_is_no_folder() -> None:
    done = run("report", "")
    assert (done.returncode, done.stdout) == (2, "")
    assert "an input has no name" in done.stderr


def test_a_comparison_takes_folders(folder: Path, tmp_path: Path) -> None:
    fixed = tmp_path / "fixed.jsonl"
    fixed.write_bytes(lines(start(), *(answered(second=second) for second in range(9))))
    done = run("compare", folder, fixed, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads(
        run("compare", folder / "*.jsonl", fixed, "--json").stdout
    )
