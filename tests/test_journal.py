"""The session log as it is written: written through, numbered, honest about gaps."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flowtally import journal
from flowtally import logs
from flowtally.encoding import encode
from flowtally.journal import Journal

TIME = "2026-01-02T03:04:05.678Z"
START = {"type": "session_start", "session": "00000001", "seq": 0, "time": TIME, "schema": 2}


def event(number: int) -> dict[str, Any]:
    return {
        "type": "event",
        "session": "00000001",
        "seq": 0,
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


def numbers(path: Path) -> list[int]:
    return [record["seq"] for record in lines(path)]


def gaps(path: Path) -> list[tuple[int, str]]:
    return [(r["dropped"], r["reason"]) for r in lines(path) if r["type"] == "gap"]


class Clock:
    """time.monotonic, which the journal looks at."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_767_323_045.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(journal, "time", clock)
    return clock


def later(clock: Clock) -> None:
    """So much later that the journal looks whether its file is still there."""
    clock.now += journal.CHECK_INTERVAL


def test_modes_and_folder_are_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.jsonl"
    Journal(path, START).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_record_is_in_the_file_when_write_returns(tmp_path: Path) -> None:
    written = Journal(tmp_path / "log", START)
    assert lines(written.path) == [START | {"seq": 1}]
    for number in (1, 2):
        written.write(event(number))
        assert details(written.path)[-1] == str(number)
    assert numbers(written.path) == [1, 2, 3]
    assert written.seq == 3


def test_text_that_is_no_unicode(tmp_path: Path) -> None:
    written = Journal(tmp_path / "log", START)
    written.write(event(1) | {"detail": "\udcff \u2028 \x1b ü"})
    assert details(written.path) == ["? \u2028 \x1b ü"]


def test_a_torn_end_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "log"
    Journal(path, START).close()
    torn = b'{"type":"flow","sess'
    path.write_bytes(path.read_bytes() + torn)
    before = path.stat().st_size
    written = Journal(path, START | {"session": "00000002"})
    written.write(event(1))
    first, left, *rest = path.read_bytes().splitlines()
    assert left == torn
    assert [json.loads(line)["type"] for line in rest] == ["session_start", "event"]
    # What the session wrote begins with its first record, not with the end of another's line.
    assert written.log_bytes == path.stat().st_size - before - 1
    assert json.loads(first)["session"] == "00000001"


def test_how_much_the_session_wrote(tmp_path: Path) -> None:
    written = Journal(tmp_path / "log", START)
    for number in range(3):
        written.write(event(number) | {"host": "ü"})
        assert written.log_bytes == written.path.stat().st_size
    other = Journal(tmp_path / "log", START | {"session": "00000002"})
    assert other.log_bytes == len(encode(START | {"session": "00000002"}))


def test_it_looks_seldom_whether_the_file_is_still_there(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    real_fstat = os.fstat

    def fstat(file: int) -> os.stat_result:
        looks.append(file)
        return real_fstat(file)

    written = Journal(tmp_path / "log", START)
    monkeypatch.setattr(os, "fstat", fstat)
    clock.now += journal.CHECK_INTERVAL - 0.001
    for number in range(3):
        written.write(event(number))
    assert looks == []
    clock.now += 0.002
    for number in range(3):
        written.write(event(number))
    assert len(looks) == 1


def test_what_was_written_into_a_file_that_is_gone_is_told(tmp_path: Path, clock: Clock) -> None:
    written = Journal(tmp_path / "log", START)
    written.write(event(1))
    written.path.unlink()
    written.write(event(2))  # into the file that is gone
    later(clock)
    written.write(event(3))
    assert details(written.path) == ["3"]
    assert gaps(written.path) == [(2, "the log file was removed")]
    assert numbers(written.path) == [1, 4, 5]
    assert (written.missing, written.told, written.dropped) == (2, 2, 0)
    # The gap goes with the file the next time; what it stood for is not counted again.
    written.path.unlink()
    later(clock)
    written.write(event(4))
    assert gaps(written.path) == [(1, "the log file was removed")]
    assert written.missing == 3


def test_what_is_missing_is_told_at_the_end(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "logs"
    written = Journal(folder / "log", START)
    written.write(event(1))
    shutil.rmtree(folder)
    later(clock)
    written.write(event(2))
    folder.mkdir()
    written.close()
    assert gaps(written.path) == [(2, "No such file or directory")]
    written.close()  # as often as one likes
    assert len(lines(written.path)) == 2


def test_a_gap_says_of_whom_when_and_why(tmp_path: Path, clock: Clock) -> None:
    written = Journal(tmp_path / "log", START)
    written.write(event(1))
    written.path.unlink()
    later(clock)
    written.write(event(2))
    assert lines(written.path)[1] == {
        "type": "gap",
        "session": "00000001",
        "seq": 3,
        "time": "2026-01-02T03:04:05.000Z",
        "dropped": 1,
        "reason": "the log file was removed",
    }
    # What is told and what is yet to be told are missing both.
    written.path.unlink()
    written.path.mkdir()
    later(clock)
    written.write(event(3))
    assert (written.told, written.dropped, written.missing) == (1, 2, 3)


def test_each_outage_is_said_once(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    written = Journal(tmp_path / "log", START)
    for outage in (1, 2):
        written.path.unlink()
        written.path.mkdir()
        later(clock)
        for number in range(3):
            written.write(event(number))
        assert len(caplog.records) == outage
        written.path.rmdir()
        written.write(event(9))
    assert caplog.records[0].getMessage() == (
        f"flowtally cannot write {written.path}: the log file was removed. "
        "It goes on counting, and writes again when it can."
    )


def test_two_writers_do_not_overwrite_each_other(tmp_path: Path) -> None:
    path = tmp_path / "log"
    journals = [Journal(path, START | {"session": f"0000000{number}"}) for number in range(2)]
    for number in range(20):
        journals[number % 2].write(event(number) | {"session": f"0000000{number % 2}"})
    assert details(path) == [str(number) for number in range(20)]
    for number in range(2):
        of_one = [record["seq"] for record in lines(path) if record["session"][-1] == str(number)]
        assert of_one == list(range(1, 12))


def test_rows_are_the_last_field_of_a_record(tmp_path: Path) -> None:
    written = Journal(tmp_path / "log", START)
    written.write({"type": "stats", "seq": 0}, [b'{"table":"hosts"}', b'{"table":"codes"}'])
    written.write({"type": "stats", "seq": 0}, [])
    assert lines(written.path)[1:] == [
        {"type": "stats", "seq": 2, "rows": [{"table": "hosts"}, {"table": "codes"}]},
        {"type": "stats", "seq": 3, "rows": []},
    ]


def test_folder_gone_and_back(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    written = Journal(folder / "log", START)
    written.write(event(1))
    shutil.rmtree(folder)
    later(clock)
    for number in (2, 3, 4):
        written.write(event(number))
    assert not folder.exists()
    assert written.dropped == 1 + 3  # what was in the file, and what came since
    folder.mkdir()
    written.write(event(5))
    assert details(written.path) == ["5"]
    assert lines(written.path)[0] == START | {"seq": 1}
    assert [dropped for dropped, _ in gaps(written.path)] == [4]
    assert numbers(written.path) == [1, 6, 7]
    assert len(caplog.records) == 1
    assert "cannot write" in caplog.text


def test_no_permission_and_then_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real_open = os.open

    def denied(*_: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)  # root may open anything
    written = Journal(tmp_path / "log", START)
    written.write(event(1))
    written.write(event(2))
    monkeypatch.setattr(os, "open", real_open)
    written.write(event(3))
    assert details(written.path) == ["3"]
    assert gaps(written.path) == [(2, "Permission denied")]
    assert len(caplog.records) == 1


class Disk:
    """A disk with room for so many bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 10**9
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, file: int, data: bytes) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        count = self._write(file, data[: self.room])
        self.room -= count
        return count


def test_a_disk_that_is_full_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(monkeypatch)
    disk.room = 0
    written = Journal(tmp_path / "log", START)
    for number in range(100):
        written.write(event(number))
    written.close()
    assert written.dropped == 100
    assert len(caplog.records) == 1


@pytest.mark.parametrize("room", [1, 20, len(encode(event(1))) - 1])
def test_a_disk_that_is_full_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    disk = Disk(monkeypatch)
    written = Journal(tmp_path / "log", START)
    written.write(event(1))
    disk.room = room
    written.write(event(2))
    written.write(event(3))
    disk.room = 10**9
    written.write(event(4))
    text = written.path.read_bytes().splitlines()
    whole = [json.loads(line) for line in text if line.endswith(b"}")]
    lost = 1 if room == len(encode(event(1))) - 1 else 2  # only the line end had no room
    assert [record["seq"] for record in whole] == ([1, 2, 3] if lost == 1 else [1, 2]) + [5, 6]
    assert whole[-2]["dropped"] == lost
    assert whole[-1]["detail"] == "4"


# --- rotated ---


def test_a_log_that_is_moved_away_is_begun_anew(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path, old = tmp_path / "log", tmp_path / "log.1"
    written = Journal(path, START)
    written.write(event(1))
    path.rename(old)
    written.write(event(2))  # before it looks
    later(clock)
    written.write(event(3))
    assert (details(old), details(path)) == (["1", "2"], ["3"])
    assert (numbers(old), numbers(path)) == ([1, 2, 3], [1, 4])
    assert written.log_bytes == path.stat().st_size
    assert (written.missing, written.files, caplog.text) == (0, 2, "")
    written.close()
    assert written.is_there


@pytest.mark.parametrize("there", ["foreign", "folder", "link", "no folder"])
def test_a_log_that_is_moved_away_and_cannot_be_begun_anew_is_gone_on_with(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, there: str
) -> None:
    path, old = tmp_path / "folder" / "log", tmp_path / "log.1"
    written = Journal(path, START)
    path.rename(old)
    if there == "foreign":
        path.write_text("Dear diary,\n", "utf-8")
    elif there == "folder":
        path.mkdir()
    elif there == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.parent.rmdir()
    for number in (1, 2, 3):
        later(clock)
        written.write(event(number))
    assert details(old) == ["1", "2", "3"]
    assert not (tmp_path / "elsewhere").exists()
    assert there != "foreign" or path.read_text("utf-8") == "Dear diary,\n"
    assert written.missing == 0
    assert len(caplog.records) == 1
    assert "was moved away, and cannot be begun anew: " in caplog.text
    written.close()
    assert not written.is_there


def test_a_file_that_a_network_file_system_lost_is_not_there(tmp_path: Path) -> None:
    written = Journal(tmp_path / "log", START)
    written.write(event(1))
    os.close(written._file)
    written.close()
    assert not written.is_there


def test_a_log_that_is_cut_is_begun_anew(tmp_path: Path, clock: Clock) -> None:
    """As `copytruncate` does; what it did not copy is missing in the numbers."""
    path, copy = tmp_path / "log", tmp_path / "log.1"
    written = Journal(path, START)
    for number in (1, 2, 3):
        written.write(event(number))
    later(clock)
    written.write(event(4))
    shutil.copy(path, copy)
    written.write(event(5))  # is not in the copy
    os.truncate(path, 0)
    written.write(event(6))  # before it looks
    later(clock)
    written.write(event(7))
    assert details(path) == ["6", "7"]
    assert numbers(path) == [7, 1, 8]
    assert written.log_bytes == sum(map(len, path.read_bytes().splitlines(True)[1:]))
    assert (written.missing, written.files) == (0, 2)
    found = logs.read([("copy", copy), ("log", path)])
    assert (found.missing, found.merged().totals().events) == (1, 6)
    for number in range(3):  # and so on, whenever it is cut
        os.truncate(path, 0)
        later(clock)
        written.write(event(number))
        assert details(path) == [str(number)]
        assert lines(path)[0]["type"] == "session_start"


def test_a_link_that_the_user_named_is_followed(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "there")
    written = Journal(tmp_path / "log", START)
    later(clock)
    written.write(event(1))
    assert details(tmp_path / "there") == ["1"]
    (tmp_path / "there").rename(tmp_path / "old")
    later(clock)
    written.write(event(2))
    assert (details(tmp_path / "old"), details(tmp_path / "there")) == (["1"], ["2"])


def test_a_file_system_that_numbers_files_anew_is_not_taken_for_rotation(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "samestat", lambda *_: False)
    written = Journal(tmp_path / "log", START)
    for number in (1, 2, 3):
        later(clock)
        written.write(event(number))
    assert numbers(written.path) == [1, 2, 3, 4]


def test_half_a_line_of_another_writer_takes_nothing_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two proxies, one file, a full disk: the one has room for half a line, the other for none."""
    path = tmp_path / "log"
    one, other = (Journal(path, START | {"session": f"0000000{number}"}) for number in range(2))
    disk = Disk(monkeypatch)
    disk.room = 20
    one.write(event(1) | {"session": "00000000"})
    other.write(event(2) | {"session": "00000001"})
    disk.room = 10**9
    other.write(event(3) | {"session": "00000001"})
    one.write(event(4) | {"session": "00000000"})
    found = logs.read([("log", path)])
    assert [session.tally.dropped for session in found.sessions.values()] == [1, 1]
    assert (found.unreadable, found.missing) == (1, 0)
    assert found.merged().totals().events == 2


# --- what can be a log ---


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_where_output_goes_can_be_no_log(tmp_path: Path, name: str) -> None:
    """Also where it is led into a file."""
    says = tmp_path / "says"
    script = (
        "import sys; from pathlib import Path; from flowtally import journal;"
        "Path(sys.argv[2]).write_text(journal.check_location(sys.argv[1]))"
    )
    command = [sys.executable, "-c", script, f"/dev/{name}", str(says)]
    with (tmp_path / "output").open("wb") as output:
        if name == "stdout":
            subprocess.run(command, check=True, stdout=output)
        else:
            subprocess.run(command, check=True, stderr=output)
    assert says.read_text("utf-8") == journal.OUTPUT


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("{tmp}/foreign.txt", "exists and is no flowtally log"),
        ("{tmp}/other.jsonl", "exists and is no flowtally log"),
        ("{tmp}/blank.txt", "exists and is no flowtally log"),
        ("{tmp}/list.jsonl", "exists and is no flowtally log"),
        ("{tmp}/cut.txt", "exists and is no flowtally log"),
        ("{tmp}/map.json", "exists and is no flowtally log"),
        ("{tmp}/old.jsonl", "written in schema 1 of the session log; this flowtally reads 2"),
        ("{tmp}/foreign.txt/x", "foreign.txt is no folder"),
        ("{tmp}/pipe", "no regular file"),
        ("/dev/null", "no regular file"),
        ("{tmp}/" + "x" * 300, "name too long"),
        ("a\0b", "null"),
        ("~nosuchuser/x", "determine home"),
    ],
)
def test_values_that_can_never_be_a_log(tmp_path: Path, value: str, says: str) -> None:
    foreign = {
        "foreign.txt": "Dear diary,\n",
        "other.jsonl": '{"type":"flow","id":5}\n',
        "blank.txt": "\nDear diary,\n",
        "list.jsonl": "[5]\n",
        "cut.txt": '{"type":"session_stort","session":"x',
        "map.json": '{"type":"FeatureCollection","session":"x","seq":1,"features":[]}\n',
        "old.jsonl": '{"type":"session_start","session":"x","time":"' + TIME + '","schema":1}\n',
    }
    for name, content in foreign.items():
        (tmp_path / name).write_text(content, "utf-8")
    os.mkfifo(tmp_path / "pipe")
    assert says.lower() in journal.check_location(value.format(tmp=tmp_path)).lower()
    for name, content in foreign.items():
        assert (tmp_path / name).read_text("utf-8") == content


def test_values_that_can_be_a_log(tmp_path: Path) -> None:
    Journal(tmp_path / "ended.jsonl", START).close()
    ended = (tmp_path / "ended.jsonl").read_bytes()
    (tmp_path / "empty").touch()
    (tmp_path / "torn").write_bytes(ended[: len(ended) // 2])
    for cut in (1, 20, 34, 35, 60, len(ended) - 1):
        (tmp_path / f"torn {cut}").write_bytes(ended[:cut])
        # And a session that came after it.
        (tmp_path / f"after {cut}").write_bytes(ended[:cut] + b"\n" + ended)
        for name in ("torn", "after"):
            assert journal.check_location(f"{tmp_path}/{name} {cut}") == ""
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbf" + ended)
    for value in ("ended.jsonl", "empty", "torn", "marked", "new/deep/log", "new/", ""):
        assert journal.check_location(f"{tmp_path}/{value}") == ""
    for value in (".", "./", "/", "log.jsonl"):
        assert journal.check_location(value) == ""
    assert not (tmp_path / "new").exists()
    assert journal.names_folder(f"{tmp_path}")
    assert journal.names_folder("new/")
    assert not journal.names_folder("new")


@pytest.mark.parametrize("becomes", ["pipe", "foreign", "folder", "link", "dangling"])
def test_what_takes_the_place_of_the_log_is_left_alone(
    tmp_path: Path, clock: Clock, becomes: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is looked at whenever the file is opened anew."""
    path = tmp_path / "log"
    written = Journal(path, START)
    written.write(event(1))
    path.unlink()
    if becomes == "pipe":
        os.mkfifo(path)
    elif becomes == "folder":
        path.mkdir()
    elif becomes in ("link", "dangling"):
        other = tmp_path / "other"
        if becomes == "link":
            Journal(other, START).close()
        path.symlink_to(other)
    else:
        path.write_text("Dear diary,\n", "utf-8")
    later(clock)
    written.write(event(2))
    written.write(event(3))
    assert written.dropped == 3
    assert len(caplog.records) == 1
    if becomes == "link":
        assert len(lines(tmp_path / "other")) == 1
    assert becomes != "dangling" or not (tmp_path / "other").exists()
    if becomes == "foreign":
        assert path.read_text("utf-8") == "Dear diary,\n"
        path.unlink()
        written.write(event(4))
        assert gaps(path) == [(3, "that file exists and is no flowtally log")]
        assert details(path) == ["4"]
