"""The session log: written through, honest about gaps, read leniently."""

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
from flowtally.journal import Logs
from flowtally.tally import Tally
from hypothesis import given
from hypothesis import strategies as st

TIME = "2026-01-02T03:04:05.678Z"
START = {"type": "session_start", "session": "00000001", "time": TIME}


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


def details(path: Path) -> list[str]:
    return [record["detail"] for record in lines(path) if record["type"] == "event"]


def gaps(path: Path) -> list[tuple[int, str]]:
    return [(r["dropped"], r["reason"]) for r in lines(path) if r["type"] == "gap"]


@pytest.fixture(autouse=True)
def _look_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "CHECK_INTERVAL", 0.0)


def test_modes_and_folder_are_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.jsonl"
    Journal(path, START).close()
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
    written.close()
    assert written.dropped == 100
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
    written.close()


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
    Journal(tmp_path / "old.jsonl", START).close()
    (tmp_path / "empty").touch()
    for value in ("old.jsonl", "empty", "new/deep/log", "new/", ""):
        assert journal.check_location(f"{tmp_path}/{value}") == ""
    for value in (".", "./", "/", "log.jsonl"):
        assert journal.check_location(value) == ""
    assert not (tmp_path / "new").exists()
    assert journal.names_folder(f"{tmp_path}")
    assert journal.names_folder("new/")
    assert not journal.names_folder("new")


def read(text: bytes) -> Logs:
    logs = Logs()
    logs.read(io.BytesIO(text), "a log")
    return logs


def encoded(*records: Any) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def test_unreadable_lines_are_named_skipped_and_counted() -> None:
    logs = read(
        encoded(START)
        + b"GET / HTTP/1.1 200\n"
        + encoded([1], {"type": "flow"}, {"type": "nonsense", "session": "1"}, event(1))
        + b"\n  \n\xff\xfe\n"
        + encoded(event(2) | {"error_code": -77})
        + b'{"type":"ev'
    )
    assert [(problem.line, problem.reason) for problem in logs.problems] == [
        (2, "not JSON"),
        (3, "not a record"),
        (4, "a record without a session"),
        (5, "unknown record type 'nonsense'"),
        (9, "not JSON"),
        (10, "unknown error code -77"),
        (11, "torn line"),
    ]
    assert logs.unreadable == 7
    assert logs.sessions["00000001"].tally.events == 1


def test_final_statistics_speak_for_what_could_not_be_written() -> None:
    tally = Tally()
    for number in range(5):
        tally.add(event(number))
    final = {"type": "stats", "session": "00000001", "time": TIME, "final": True}
    logs = read(encoded(START, event(1), final | tally.to_data()))
    session = logs.sessions["00000001"]
    assert session.final
    assert session.tally.events == 5
    broken = read(encoded(START, event(1), final | {"flows": "x"}))
    assert broken.unreadable == 1
    assert broken.sessions["00000001"].tally.events == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"time": "2026-01-02"},
        {"time": "2026-01-02T03:04:05"},
        {"type": "gap", "dropped": 10**400},
        {"type": "gap", "dropped": -1},
        {"type": "stats", "final": True, "flows": 10**400},
        {"type": "stats", "final": True, "first": "foo"},
        {"type": "stats", "final": True, "first": "2026-01-02"},
    ],
)
def test_records_that_lie(changes: dict[str, Any]) -> None:
    logs = read(encoded(START, {**Tally().to_data(), **event(1), **changes}, event(2)))
    assert logs.unreadable == 1
    assert logs.merged().events == 1


def test_several_sessions_in_one_file() -> None:
    other = {**event(9), "session": "00000002"}
    logs = read(encoded(START, event(1), other, event(2)))
    assert {id: session.tally.events for id, session in logs.sessions.items()} == {
        "00000001": 2,
        "00000002": 1,
    }
    assert logs.merged().events == 3


def test_a_line_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_LINE", 1000)
    logs = read(encoded(START) + b"x" * 2500 + b"\n" + encoded(event(1)))
    assert [problem.line for problem in logs.problems] == [2]
    assert logs.sessions["00000001"].tally.events == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=5,
)
FIELDS = ["type", "session", "time", "outcome", "kind", "status", "band", "description"]
FIELDS += ["error_code", "cause", "host", "wait_ms", "duration_ms", "response_bytes", "dropped"]


@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON)), st.data())
def test_what_passes_the_check_can_be_counted(
    records: list[dict[str, Any]], data: st.DataObject
) -> None:
    tally = Tally()
    for record in records:
        for name, value in (event(0) | {"outcome": "ok", "kind": "http"}).items():
            if data.draw(st.booleans()):
                record[name] = value
        if data.draw(st.booleans()):
            record["type"] = data.draw(st.sampled_from(["flow", "event", "gap"]))
        if not journal.check(record):
            tally.add(record)
    assert sum(tally.outcomes.values()) == tally.flows


@given(st.binary())
def test_any_bytes_can_be_read(data: bytes) -> None:
    read(data)
