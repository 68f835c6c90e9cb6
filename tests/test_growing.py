"""A log that grows, is rotated, begun anew or gone for a while."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from flowtally.growing import BLOCK
from flowtally.growing import MAX_LINE
from flowtally.growing import Growing


def test_lines_come_once_they_are_finished(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntw")
    log = Growing(path, 6)
    with path.open("ab", buffering=0) as writer:
        assert list(log.lines()) == []
        writer.write(b"o\nthree\nfo")
        assert list(log.lines()) == [b"two", b"three"]
        writer.write(b"ur\n")
        assert list(log.lines()) == [b"four"]
    log.close()


def test_it_is_followed_through_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    log = Growing(path, 0)
    with path.open("ab", buffering=0) as writer:
        assert list(log.lines()) == [b"one"]
        path.rename(tmp_path / "log.1")
        writer.write(b"late\n")
        assert list(log.lines()) == [b"late"]  # there is no other one yet
        assert log.gone
        writer.write(b"later\n")
        path.write_bytes(b"new\n")
        assert list(log.lines()) == [b"later", b"new"]
        assert not log.gone
    path.write_bytes(b"")
    assert list(log.lines()) == []
    path.write_bytes(b"x\n")
    assert list(log.lines()) == [b"x"]
    log.close()


@pytest.mark.parametrize("size", [1, BLOCK - 10])
def test_a_line_is_read_from_its_beginning(tmp_path: Path, size: int) -> None:
    path = tmp_path / "log"
    line = b"x" * size
    path.write_bytes(b"first\n" + line + b"\nlast\n")
    for position, expected in (
        (0, [b"first", line, b"last"]),
        (6, [line, b"last"]),
        (6 + size, [line, b"last"]),
        (7 + size, [b"last"]),
        (None, []),
    ):
        log = Growing(path, position)
        assert list(log.lines()) == expected
        log.close()


@pytest.mark.parametrize("size", [MAX_LINE + BLOCK, 3 * MAX_LINE + 1])
def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path, size: int) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"first\n" + b"x" * size)
    log = Growing(path, 0)
    assert list(log.lines()) == [b"first"]
    with path.open("ab", buffering=0) as writer:
        writer.write(b"yz\nlast\nbeg")
        assert list(log.lines()) == [b"last"]
        writer.write(b"un\n")
        assert list(log.lines()) == [b"begun"]
    log.close()


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Growing(tmp_path / "log")


@pytest.mark.parametrize("there", ["nothing", "folder", "pipe"])
def test_what_is_no_file_is_waited_for(tmp_path: Path, there: str) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    log = Growing(path, 0)
    path.unlink()
    if there == "folder":
        path.mkdir()
    elif there == "pipe":
        os.mkfifo(path)
    assert list(log.lines()) == [b"one"]
    assert list(log.lines()) == []
    assert log.gone
    log.close()
