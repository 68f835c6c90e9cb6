"""`flowtally sessions`: the list of what was recorded."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flowtally.captures.kinds import ACCEPTED
from flowtally.logs import read
from flowtally.report.sessions_text import Listed
from flowtally.report.sessions_text import text
from flowtally.session import Session
from lab.cli import HOSTILE
from lab.cli import answered
from lab.cli import event
from lab.cli import failed
from lab.cli import final
from lab.cli import lines
from lab.cli import run
from lab.cli import start
from lab.sessions import everything

OLD = "00000001"
NEW = "00000002"
KILLED = "00000003"


def home(tmp_path: Path) -> Path:
    """A home folder with two logs, one of them of two sessions."""
    folder = tmp_path / ".mitmproxy" / "flowtally"
    folder.mkdir(parents=True)
    old = [answered(second=1), failed(second=61), event(second=3)]
    (folder / "a.jsonl").write_bytes(
        lines(start(OLD), *old, final(*old), start(NEW, 7200), final(session=NEW))
    )
    (folder / "b.jsonl").write_bytes(
        lines(start(KILLED, 3600), answered(second=3601, session=KILLED)) + b'{"type":"fl'
    )
    (folder / "notes.txt").write_text("not a log")
    (folder / "folder.jsonl").mkdir()
    return folder


WIDE = """\
Begun                       over  flows  problems  events  ended  session   log
2026-01-02 05:04:05+00:00  0.0 s      0         0       0  yes    00000002  FOLDER/a.jsonl
2026-01-02 04:04:05+00:00  0.0 s      1         0       0  no     00000003  FOLDER/b.jsonl
2026-01-02 03:04:05+00:00  1 min      2         2       1  yes    00000001  FOLDER/a.jsonl
"""

NARROW = """\
Begun                       over  flows  problems  events  ended  session
2026-01-02 05:04:05+00:00  0.0 s      0         0       0  yes    00000002
  a-long-folder-a-long-folder-a-long-fol…der-a-long-folder-a-long-folder/a.jsonl
2026-01-02 03:04:05+00:00  1 min      2         2       1  yes    00000001
  a-long-folder-a-long-folder-a-long-fol…der-a-long-folder-a-long-folder/a.jsonl
"""


def torn(folder: Path) -> str:
    """What is said of the log whose last line has no end."""
    return f"{folder}/b.jsonl, line 3: torn line; skipped\n1 unreadable line skipped\n"


def test_the_default_folder_newest_first(tmp_path: Path) -> None:
    folder = home(tmp_path)
    done = run("sessions", HOME=str(tmp_path), COLUMNS="300", TZ="UTC")
    assert (done.returncode, done.stderr) == (0, torn(folder))
    assert done.stdout == WIDE.replace("FOLDER", str(folder))


@pytest.fixture
def utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("utc")
def test_a_path_that_does_not_fit_stands_below(tmp_path: Path) -> None:
    path = Path("-".join(["a-long-folder"] * 10)) / "a.jsonl"
    found = [replace(session, path=path) for session in listed(home(tmp_path) / "a.jsonl")]
    assert "\n".join(text(found[::-1], 80)) + "\n" == NARROW


def test_times_are_local(tmp_path: Path) -> None:
    home(tmp_path)
    done = run("sessions", HOME=str(tmp_path), TZ="XYZ-5:30")
    assert "2026-01-02 10:34:05+05:30" in done.stdout


def test_named_folders_and_logs(tmp_path: Path) -> None:
    folder = home(tmp_path)
    other = tmp_path / "other"
    other.write_bytes(lines(start("11111111")))
    done = run("sessions", folder, other, "--json")
    assert (done.returncode, done.stderr) == (0, torn(folder))
    found = json.loads(done.stdout)
    assert [session["session"] for session in found] == [NEW, KILLED, "11111111", OLD]
    assert found[-1] == {
        "session": OLD,
        "begun": "2026-01-02T03:04:05.000Z",
        "seconds": 60.0,
        "flows": 2,
        "failures": 1,
        "events": 1,
        "problems": 2,
        "ended_cleanly": True,
        "log": f"{folder}/a.jsonl",
    }


def test_foreign_files_are_named_and_skipped(tmp_path: Path) -> None:
    folder = home(tmp_path)
    (folder / "c.jsonl").write_bytes(b"root:x:0:0\n")
    (folder / "d.jsonl").symlink_to("nowhere")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "e.jsonl")
    done = run("sessions", HOME=str(tmp_path), COLUMNS="300", TZ="UTC")
    assert done.returncode == 0
    assert done.stdout == WIDE.replace("FOLDER", str(folder))
    named = f"{folder}/c.jsonl: seems to be text; {ACCEPTED}; skipped\n"
    assert done.stderr == torn(folder) + named


def test_a_named_log_that_cannot_be_read(tmp_path: Path) -> None:
    folder = home(tmp_path)
    done = run("sessions", tmp_path / "none", folder, COLUMNS="300", TZ="UTC")
    assert done.returncode == 2
    assert done.stdout == WIDE.replace("FOLDER", str(folder))
    missing = f"{tmp_path}/none: No such file or directory; skipped\n"
    assert done.stderr == missing + torn(folder)


def test_standard_input_is_not_accepted(tmp_path: Path) -> None:
    folder = home(tmp_path)
    done = run("sessions", "-", folder / "a.jsonl", stdin=lines(start()), COLUMNS="300")
    assert (done.returncode, len(done.stdout.splitlines())) == (2, 3)
    assert done.stderr == "-: standard input is not accepted here; skipped\n"


def test_no_session_at_all(tmp_path: Path) -> None:
    folder = tmp_path / ".mitmproxy" / "flowtally"
    message = f"flowtally: no session log in {folder}; name one\n"
    done = run("sessions", HOME=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)
    folder.mkdir(parents=True)
    done = run("sessions", HOME=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)
    done = run("sessions", tmp_path / "none")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(f"flowtally: no session log in {tmp_path}/none; name one\n")


def listed(path: Path) -> list[Listed]:
    logs = read([(str(path), path)])
    return [Listed.of(session, path) for session in logs.sessions.values()]


@pytest.mark.parametrize("width", [1, 80, 100, 200])
def test_a_hostile_log_and_a_long_path(tmp_path: Path, width: int) -> None:
    folder = tmp_path / ("x" * 150)
    folder.mkdir()
    log = folder / "\x1b[31m\u202e.jsonl"
    log.write_bytes(lines(start(HOSTILE * 9), answered(session=HOSTILE)))
    found = listed(log)
    assert len(found) == 2
    for line in text(found, width):
        assert line.isprintable()
        assert len(line) <= max(width, 80)


@pytest.mark.parametrize(
    ("begun", "zone"),
    [("0001-01-01T00:00:00.000Z", "WEST+12"), ("9999-12-31T23:59:59.999Z", "EAST-14")],
)
def test_times_that_no_clock_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: str, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        (tmp_path / "log").write_bytes(lines(start() | {"time": begun}, start(NEW)))
        found = listed(tmp_path / "log")
        found.sort(key=Listed.order)
        assert any(line.startswith(begun[:4]) for line in text(found))
    finally:
        monkeypatch.undo()
        time.tzset()


def test_of_a_session_that_ended_only_the_end_is_read(tmp_path: Path) -> None:
    """And what is said of it is what all of it says."""
    records = everything(2000)
    session = Session(str(tmp_path / "log.jsonl"), ["regular"], {})
    for record in records[1:]:
        session.add({**record, "session": session.id})
    session.close()
    log = tmp_path / "log.jsonl"
    (whole,) = listed(log)
    content = log.read_bytes()
    at = content.index(b"\n", len(content) // 2) + 1
    # Any line before the checkpoint could be anything.
    log.write_bytes(content[:at] + b"?" * 100 + content[at + 100 :])
    (looked,) = read([("log", log)], tables=Listed.TABLES).sessions.values()
    assert Listed.of(looked, log) == whole
    assert not looked.tally["hosts"], "what the list does not say is not built"


def test_of_a_session_that_runs_all_that_came_after_its_checkpoint_counts(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    session = Session(str(log), ["regular"], {})
    for record in everything(1500)[1:]:
        session.add({**record, "session": session.id})
        session.step()
    (whole,) = listed(log)
    (looked,) = read([("log", log)], tables=Listed.TABLES).sessions.values()
    assert Listed.of(looked, log) == whole
    assert not whole.ended_cleanly
    session.close()
