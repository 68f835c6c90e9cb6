"""Folders and patterns as inputs: they stand for the logs in them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from flowtally.folders import CAPTURES
from flowtally.folders import NONE
from flowtally.folders import PACKED
from flowtally.folders import logs_in
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


@pytest.mark.parametrize(
    "name",
    [
        *("s.jsonl", "s.jsonl.gz", "s.jsonl.1", "s.jsonl.2.gz", "s.jsonl-20261126", "s.1.jsonl"),
        *("s.jsonl-20261126.gz", "s.jsonl-20261126-1795682400", "s.jsonl.2026-11-26.gz"),
        *("s-20261126.jsonl.gz", "s\n.jsonl.1", ".jsonl"),
    ],
)
def test_a_folder_stands_for_what_rotation_left(name: str, tmp_path: Path) -> None:
    content = lines(start(), answered(404))
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert logs_in(tmp_path) == [tmp_path / name]


@pytest.mark.parametrize(
    "name", ["s.json", "s.jsonl~", "s.jsonl.bak", "s.jsonl.1a", "s.jsonl.", "jsonl.1", "s.jsonl.xz"]
)
def test_a_folder_does_not_stand_for_other_files(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(lines(start(), answered(404)))
    assert logs_in(tmp_path) == []


def test_every_command_takes_what_rotation_left(tmp_path: Path) -> None:
    for name, session in (("s.jsonl", "00000002"), ("s.jsonl.1", "00000001")):
        content = lines(start(session), answered(404, session=session))
        (tmp_path / name).write_bytes(content)
    assert run("check", tmp_path, "--max", "problems=1").returncode == 1
    listed = json.loads(run("sessions", tmp_path, "--json").stdout)
    assert {each["log"] for each in listed} == {f"{tmp_path}/s.jsonl", f"{tmp_path}/s.jsonl.1"}
    pytest.importorskip("duckdb", reason="DuckDB is not installed")
    asked = run("sql", tmp_path, "SELECT problems FROM totals", "--csv")
    assert asked.stdout.split() == ["problems", "2"]


@pytest.mark.parametrize("command", ["report", "sessions"])
def test_what_a_folder_does_not_stand_for_is_said(command: str, folder: Path) -> None:
    whole = run(command, folder)
    assert whole.stderr == ""
    (folder / "b.har").write_bytes(b"whatever")
    done = run(command, folder)
    assert (done.returncode, done.stdout) == (whole.returncode, whole.stdout)
    said = f"{folder}: left out: b.har%s; {CAPTURES}\n"
    assert done.stderr == said % ""
    for name in ("c.flow", "d.mitm", "e.flows", "f.HAR.gz"):
        (folder / name).write_bytes(b"whatever")
    (folder / "folder.har").mkdir()
    assert run(command, folder).stderr == said % ", and 4 more"


@pytest.mark.parametrize(
    "name", ["00000001.jsonl.xz", "00000001.jsonl.2.ZST", "a.jsonl-20261126.bz2"]
)
def test_a_log_that_gzip_does_not_unpack_is_said(name: str, folder: Path) -> None:
    (folder / name).write_bytes(b"whatever")
    done = run("report", folder)
    assert (done.returncode, done.stderr) == (0, f"{folder}: left out: {name}; {PACKED}\n")
    (folder / "notes.txt.xz").write_bytes(b"whatever")
    assert run("report", folder).stderr == done.stderr


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
