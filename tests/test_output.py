"""Files that are written: whole or not at all, and never over a foreign one."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from flowtally import output
from flowtally.output import OutputError
from flowtally.output import write

OURS = b"ours: the old content\n"
NEW = b"ours: the new content\n"


def ours(head: bytes) -> bool:
    return head.startswith(b"ours")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_gets_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        write(tmp_path / "new", NEW, ours, False)
    finally:
        os.umask(umask)
    assert (tmp_path / "new").read_bytes() == NEW
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    assert names(tmp_path) == ["new"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755])
def test_an_overwritten_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(OURS)
    file.chmod(mode)
    write(file, NEW, ours, False)
    assert file.read_bytes() == NEW
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_an_overwritten_file_keeps_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(OURS)
    os.chown(file, 1234, 1234)
    write(file, NEW, ours, False)
    assert (file.stat().st_uid, file.stat().st_gid) == (1234, 1234)


def test_a_foreign_file_is_overwritten_only_by_force(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"theirs")
    with pytest.raises(OutputError) as caught:
        write(file, NEW, ours, False)
    assert str(caught.value) == (f"{file}: exists, and flowtally did not write it")
    assert file.read_bytes() == b"theirs"
    write(file, NEW, ours, True)
    assert file.read_bytes() == NEW


def test_an_empty_file_may_be_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    write(file, NEW, ours, False)
    assert file.read_bytes() == NEW


def test_only_the_beginning_tells_whose_a_file_is(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100_000)
    heads: list[bytes] = []

    def theirs(head: bytes) -> bool:
        heads.append(head)
        return False

    with pytest.raises(OutputError):
        write(file, NEW, theirs, False)
    assert heads == [b"x" * output.HEAD]


def test_links_are_followed_and_stay(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "target"
    target.write_bytes(OURS)
    first, second = tmp_path / "first", tmp_path / "second"
    second.symlink_to("folder/target")
    first.symlink_to("second")
    write(first, NEW, ours, False)
    assert first.is_symlink()
    assert second.is_symlink()
    assert not target.is_symlink()
    assert target.read_bytes() == NEW
    assert names(tmp_path / "folder") == ["target"]


def test_a_link_to_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write(tmp_path / "link", NEW, ours, False)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == NEW


def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(OURS)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for name in ("file", "new"):
        with pytest.raises(OutputError) as caught:
            write(tmp_path / name, NEW, ours, False)
        assert str(caught.value) == (
            f"{tmp_path / name}: cannot be written: No space left on device"
        )
    assert file.read_bytes() == OURS
    assert names(tmp_path) == ["file"]


def test_an_interrupted_write_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "new", NEW, ours, False)
    assert names(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_device() -> None:
    with pytest.raises(OutputError, match="/dev/full: cannot be written: No space left"):
        write(Path("/dev/full"), NEW, ours, False)


def test_what_writes_in_several_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda number, data: whole(number, bytes(data)[:3]))
    write(tmp_path / "new", NEW, ours, False)
    assert (tmp_path / "new").read_bytes() == NEW


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "{path}: is a folder; name a file in it"),
        ("none/file", "{path}: cannot be written: there is no folder {folder}/none"),
        ("file/under", "{path}: cannot be written: Not a directory"),
        ("x" * 300, "{path}: cannot be written: File name too long"),
        ("loop", "{path}: cannot be written: Too many levels of symbolic links"),
        ("nul\0", "'{folder}/nul\\x00': no file can have that name"),
    ],
)
def test_places_where_nothing_can_be_written(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(OURS)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError) as caught:
        write(tmp_path / name, NEW, ours, True)
    assert str(caught.value) == message.format(path=tmp_path / name, folder=tmp_path)
    assert names(tmp_path) == ["file", "folder", "loop"]


def test_a_hyphen_is_no_file() -> None:
    with pytest.raises(OutputError, match="standard output is /dev/stdout"):
        write(Path("-"), NEW, ours, True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may do all")
@pytest.mark.parametrize("force", [False, True])
def test_without_permission(tmp_path: Path, force: bool) -> None:
    file = tmp_path / "file"
    file.write_bytes(OURS)
    file.chmod(0o400)
    with pytest.raises(OutputError, match="it is read-only"):
        write(file, NEW, ours, force)
    assert file.read_bytes() == OURS


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write(pipe, NEW, ours, False)
    reader.join(10)
    assert read == [NEW]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


WRITES = (
    "import sys; from pathlib import Path; from flowtally.output import write;"
    "print('before', flush=True);"
    "write(Path(sys.argv[1]), b'content\\n', lambda head: False, False);"
    "print('after')"
)


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="needs /dev/stdout")
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/stderr"])
def test_a_standard_stream_that_is_a_pipe(name: str) -> None:
    command = [sys.executable, "-c", WRITES, name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    expected = ("before\ncontent\nafter\n", "")
    assert (done.stdout, done.stderr) == (
        expected if name == "/dev/stdout" else ("before\nafter\n", "content\n")
    )


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="needs /dev/stdout")
def test_a_standard_stream_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb") as stdout:
        command = [sys.executable, "-c", WRITES, "/dev/stdout"]
        subprocess.run(command, stdout=stdout, check=True, timeout=60)
    assert file.read_text() == "before\ncontent\nafter\n"
