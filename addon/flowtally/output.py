"""Writes a file that somebody asked for: whole or not at all, and never over a foreign one."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HEAD = 4096
"""How many bytes of an existing file are shown to whoever tells whether it is flowtally's."""


class OutputError(ValueError):
    """A file that cannot be written; the message names it and says why."""


class ForeignFileError(OutputError):
    """A file that is there and not flowtally's."""


def write(path: Path, content: bytes, is_ours: Callable[[bytes], bool], force: bool) -> None:
    """Make `content` what `path` holds.

    A regular file appears whole or stays as it was, with its permissions. An existing one is
    replaced only if it is empty, `is_ours` says yes to its first `HEAD` bytes, or `force` is set.
    Links are followed. A pipe, a terminal or standard output (`/dev/stdout`) is written to as it
    is.

    Raises: OutputError.
    """
    with _as_output_error(path):
        _write(path, content, is_ours, force)


def check(path: Path, is_ours: Callable[[bytes], bool], force: bool) -> None:
    """Whether `write` would refuse to, as far as that can be told beforehand.

    Raises: OutputError.
    """
    with _as_output_error(path):
        _checked(path, is_ours, force)


@contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    except OutputError:
        raise
    except ValueError as error:  # a NUL byte, a character that no file name can hold
        raise OutputError(f"{str(path)!r}: no file can have that name") from error


def _write(path: Path, content: bytes, is_ours: Callable[[bytes], bool], force: bool) -> None:
    old = _checked(path, is_ours, force)
    target = Path(os.path.realpath(path))
    if old is None:
        _replace(target, content, None)
        return
    stream = _standard_stream(old)
    if stream is not None:
        _write_all(stream, content)
    elif _is_written_to(old):
        with path.open("wb", buffering=0) as file:
            _write_all(file.fileno(), content)
    else:
        _replace(target, content, old)


def _checked(path: Path, is_ours: Callable[[bytes], bool], force: bool) -> os.stat_result | None:
    """What is there, None where nothing is. Raises: OutputError, OSError, ValueError."""
    if os.fspath(path) == "-":
        raise OutputError("- is no file; standard output is /dev/stdout")
    try:
        old = path.stat()
    except FileNotFoundError:
        folder = Path(os.path.realpath(path)).parent
        if not folder.is_dir():
            raise OutputError(f"{path}: cannot be written: there is no folder {folder}") from None
        return None
    if stat.S_ISDIR(old.st_mode):
        raise OutputError(f"{path}: is a folder; name a file in it")
    if stat.S_ISBLK(old.st_mode):
        raise OutputError(f"{path}: is a disk")
    if _standard_stream(old) is None and not _is_written_to(old):
        if not force and old.st_size and not _is_ours(path, is_ours):
            raise ForeignFileError(f"{path}: exists, and flowtally did not write it")
        if not os.access(path, os.W_OK):
            raise OutputError(f"{path}: cannot be written: it is read-only")
    return old


def _is_written_to(old: os.stat_result) -> bool:
    """No regular file, or one that has no name any more: nothing can be put in its place."""
    return not stat.S_ISREG(old.st_mode) or not old.st_nlink


def _is_ours(path: Path, is_ours: Callable[[bytes], bool]) -> bool:
    with path.open("rb") as file:
        return is_ours(file.read(HEAD))


def _standard_stream(wanted: os.stat_result) -> int | None:
    """The number of the standard stream that a file is, if it is one.

    `/dev/stdout` can be a regular file, which must be gone on with and not be replaced: the rest of
    what is printed would go nowhere.
    """
    for number in (1, 2):
        try:
            if os.path.samestat(os.fstat(number), wanted):
                return number
        except OSError:
            continue  # it is closed
    return None


def _replace(target: Path, content: bytes, old: os.stat_result | None) -> None:
    """Put a new file in the place of `target`. `old`: what it has to keep of the one there."""
    temporary = target.with_name(f".flowtally-{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    # Not mkstemp: its mode is 0600, and what the umask allows can only be learnt by changing it.
    number = os.open(temporary, flags, 0o666)
    try:
        try:
            if old is not None:
                _take_over(temporary, old)
            _write_all(number, content)
            os.fsync(number)  # some file systems say only now that they are full
        finally:
            os.close(number)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _take_over(path: Path, old: os.stat_result) -> None:
    if hasattr(os, "chown"):
        try:
            os.chown(path, old.st_uid, old.st_gid)
        except OSError:
            pass  # only root may give files away
    path.chmod(stat.S_IMODE(old.st_mode))


def _write_all(number: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(number, rest) :]
