"""The session log: written through, honest about gaps."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from flowtally import journal
from flowtally.encoding import encode
from flowtally.journal import Journal
from flowtally.logs import Logs

TIME = "2026-01-02T03:04:05.678Z"
START = {"type": "session_start", "session": "00000001", "time": TIME}
FINAL = {"type": "stats", "session": "00000001", "time": TIME, "final": True}


def event(number: int) -> dict[str, Any]:
    return {
        "type": "event",
        "session": "00000001",
        "time": TIME,
        "error_code": -1,
        "error_name": "RequestException",
        "cause": "unknown",
        "side": "proxy",
        "detail": str(number),
    }


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").rstrip("\n").split("\n")]


def lines_after(path: Path, size: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes()[size:].split(b"\n") if line]


def details(path: Path) -> list[str]:
    return [record["detail"] for record in lines(path) if record["type"] == "event"]


def gaps(path: Path) -> list[tuple[int, str]]:
    return [(r["dropped"], r["reason"]) for r in lines(path) if r["type"] == "gap"]


@pytest.fixture(autouse=True)
def _look_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "CHECK_INTERVAL", 0.0)


def test_modes_and_folder_are_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.jsonl"
    Journal(path, START).close(FINAL)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_record_is_in_the_file_when_write_returns(tmp_path: Path) -> None:
    written = Journal(tmp_path / "log", START)
    written.write(encode(event(1)))
    assert details(written.path) == ["1"]
    assert lines(written.path)[0] == START


def test_text_that_is_no_unicode(tmp_path: Path) -> None:
    written = Journal(tmp_path / "log", START)
    written.write(encode(event(1) | {"detail": "\udcff \u2028 \x1b ü"}))
    assert details(written.path) == ["? \u2028 \x1b ü"]


def test_a_torn_end_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text('{"type":"flow","sess', "utf-8")
    written = Journal(path, START)
    written.write(encode(event(1)))
    torn, *rest = path.read_text("utf-8").splitlines()
    assert torn == '{"type":"flow","sess'
    assert [json.loads(line)["type"] for line in rest] == ["session_start", "event"]


def test_the_final_statistics_say_how_much_the_session_wrote(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for before in (b"", b'{"torn', b"\n"):
        path.write_bytes(before)
        written = Journal(path, START)
        for number in range(3):
            written.write(encode(event(number) | {"host": "ü"}))
        written.close(FINAL)
        assert lines_after(path, len(before))[-1] == FINAL | {
            "log_bytes": path.read_bytes().rindex(b'{"type":"stats"') - len(before)
        }
        assert written.missing == 0


def test_what_was_missing_is_told_before_the_final_statistics(tmp_path: Path) -> None:
    written = Journal(tmp_path / "log", START)
    written.write(encode(event(1)))
    written.path.unlink()
    written.close(FINAL)
    start, gap, final = lines(written.path)
    assert start == START
    assert gap["dropped"] == 1
    assert final == FINAL | {"log_bytes": len(encode(start)) + len(encode(gap))}


def test_folder_gone_and_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "logs"
    written = Journal(folder / "log", START)
    written.write(encode(event(1)))
    shutil.rmtree(folder)
    for number in (2, 3, 4):
        written.write(encode(event(number)))
    assert not folder.exists()
    assert written.dropped == 1 + 3  # what was in the file, and what came since
    folder.mkdir()
    written.write(encode(event(5)))
    assert details(written.path) == ["5"]
    assert lines(written.path)[0]["type"] == "session_start"
    assert [dropped for dropped, _ in gaps(written.path)] == [4]
    assert len(caplog.records) == 1
    assert "cannot write" in caplog.text


def test_file_removed(tmp_path: Path) -> None:
    written = Journal(tmp_path / "log", START)
    written.write(encode(event(1)))
    written.path.unlink()
    written.write(encode(event(2)))
    assert details(written.path) == ["2"]
    assert gaps(written.path) == [(1, "the log file was removed")]
    # The gap goes with the file the next time; what it stood for is not counted again.
    written.path.unlink()
    written.write(encode(event(3)))
    assert gaps(written.path) == [(1, "the log file was removed")]
    assert written.missing == 2


def test_no_permission_and_then_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real_open = os.open

    def denied(*_: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)  # root may open anything
    written = Journal(tmp_path / "log", START)
    written.write(encode(event(1)))
    written.write(encode(event(2)))
    monkeypatch.setattr(os, "open", real_open)
    written.write(encode(event(3)))
    assert details(written.path) == ["3"]
    assert gaps(written.path) == [(2, "Permission denied")]
    assert len(caplog.records) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_disk_full_from_the_start(caplog: pytest.LogCaptureFixture) -> None:
    written = Journal(Path("/dev/full"), START)
    for number in range(100):
        written.write(encode(event(number)))
    written.close(FINAL)
    assert written.dropped == 101
    assert len(caplog.records) == 1


def test_disk_full_in_the_middle_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Journal(tmp_path / "log", START)
    written.write(encode(event(1)))
    real_write = os.write
    room = [20]

    def full(file: int, data: bytes) -> int:
        if room[0] == 0:
            raise OSError(28, "No space left on device")
        count = real_write(file, data[: room[0]])
        room[0] = 0
        return count

    monkeypatch.setattr(os, "write", full)
    written.write(encode(event(2)))
    written.write(encode(event(3)))
    monkeypatch.setattr(os, "write", real_write)
    written.write(encode(event(4)))
    logs = Logs()
    logs.read(io.BytesIO(written.path.read_bytes()), "log")
    assert logs.unreadable == 1
    session = logs.sessions["00000001"]
    assert (session.tally.events, session.tally.dropped) == (2, 2)


def test_a_pipe_that_nobody_reads_does_not_stop_the_proxy(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    written = Journal(tmp_path / "pipe", START)
    written.write(encode(event(1)))
    assert written.dropped == 1
    written.close(FINAL)
    assert written.dropped == 2


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("{tmp}/foreign.txt", "no flowtally log"),
        ("{tmp}/foreign.txt/x", "foreign.txt is no folder"),
        ("{tmp}/" + "x" * 300, "name too long"),
        ("a\0b", "null"),
        ("~nosuchuser/x", "determine home"),
    ],
)
def test_values_that_can_never_be_a_log(tmp_path: Path, value: str, says: str) -> None:
    (tmp_path / "foreign.txt").write_text("Dear diary,\n", "utf-8")
    assert says.lower() in journal.check_location(value.format(tmp=tmp_path)).lower()
    assert (tmp_path / "foreign.txt").read_text("utf-8") == "Dear diary,\n"


def test_values_that_can_be_a_log(tmp_path: Path) -> None:
    Journal(tmp_path / "old.jsonl", START).close(FINAL)
    (tmp_path / "empty").touch()
    for value in ("old.jsonl", "empty", "new/deep/log", "new/", ""):
        assert journal.check_location(f"{tmp_path}/{value}") == ""
    for value in (".", "./", "/", "log.jsonl"):
        assert journal.check_location(value) == ""
    assert not (tmp_path / "new").exists()
    assert journal.names_folder(f"{tmp_path}")
    assert journal.names_folder("new/")
    assert not journal.names_folder("new")
