"""Takes the disk away from a log that is being written, in every way.

Done: a mitmdump is asked while its log's file system is full, or its log may not grow beyond some
byte of a record; is read-only, or stands still; while the log is removed, and a folder, a link to
somebody's file, a pipe or such a file takes its place; while it is rotated by `mv` and by
`copytruncate`; while two proxies share a log on a full disk. And sessions of the addon's own meet a
full disk at some byte of a record, of a checkpoint and of the final statistics, and others go on in
what they left.
Bounded: every 16th byte and 5 times full when quick, else every byte and 100 times; small files.
Fails: a request is not answered, or answered slowly; a record is missing that nobody tells of, or
comes twice; half a line has another one in it, or a line is no record; a `gap` tells of another
number than is missing; the trouble is not said, or more than once; a descriptor is left; somebody's
file was changed.
What needs a file system of its own is left out where none can be mounted, and the table says so.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import resource
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextlib import contextmanager
from contextlib import suppress
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from statistics import median

from flowtally.logs import read
from flowtally.session import Session
from lab.proxy import Mitmdump

from ._origin import origin
from ._records import FIRST
from ._records import accounts
from ._records import records_of
from ._sessions import flow_record
from ._sessions import often
from ._sessions import write_checkpoint
from .result import NOT_TRIED
from .result import Result

PAGE = 4096
"""What a small file system gives away at a time, in bytes."""
SPACE = "1m"
FREEZABLE = 16 * 1024**2
"""Bytes of a file system in a file: the least of ext4's usual ones."""
STALL = 1.0
"""Seconds for which a file system stands still."""
LONGEST = STALL + 4
"""Seconds that no answer may take, whatever the trouble."""
MOST = 16 * PAGE
"""No record here is longer, and no checkpoint, in bytes."""
NOTICED = 0.5
"""Seconds in which a proxy that is asked notices what became of its log."""
SOMEBODYS = b'{"type":"FeatureCollection","features":[]}\n'
"""A file of somebody else's, of a kind that might be mistaken for a log."""
MESSAGES = ("flowtally cannot write", "flowtally: the log ")
SLOW = 2.0, 0.05
"""How many times as long, and seconds more, an answer may take while the disk is in trouble; by the
medians of each trouble and of all calm."""

numbers = count()
"""Of requests: each has a path of its own."""


def run(quick: bool, folder: Path, result: Result) -> None:
    """Try each trouble, with a proxy of its own."""
    step = 16 if quick else 1
    with ExitStack() as stack:
        ports = stack.enter_context(origin(folder))
        first = stack.enter_context(Mitmdump(folder / "first"))
        lab = Lab(folder, ports.plain, first.confdir, 5 if quick else 100, step)
        for name, act in TROUBLES.items():
            try:
                result.figures.append((name, act(lab, name, result)))
            except Exception as error:  # the others are tried all the same
                result.failures.append(f"{name}: it did not end: {error!r:.600}")
        lab.judge_latency(result)


class Lab:
    """What the proxies of all troubles have in common."""

    def __init__(self, folder: Path, origin: int, confdir: Path, times: int, step: int) -> None:
        self.folder = folder
        self.mode = f"reverse:http://127.0.0.1:{origin}"
        self.confdir = confdir
        self.times = times
        """How often a trouble comes that can come again and again."""
        self.step = step
        """Bytes from one cut to the next."""
        self.calm: list[float] = []
        """How many seconds answers took without trouble."""
        self.troubled: dict[str, list[float]] = {}
        """How many they took in each trouble."""

    def judge_latency(self, result: Result) -> None:
        """Tell how much slower answers were in trouble."""
        if not self.calm or not self.troubled:
            return  # no trouble came to its end, which is told
        calm = median(self.calm)
        medians = {name: median(seconds) for name, seconds in self.troubled.items()}
        slowest = max(medians, key=lambda name: medians[name])
        told = f"{1e3 * medians[slowest]:.1f} ms ({slowest}), {1e3 * calm:.1f} ms without trouble"
        result.figures.append(("an answer in the worst trouble, medians", told))
        for name, took in {"no trouble": self.calm, **self.troubled}.items():
            if max(took) > LONGEST:
                result.failures.append(f"{name}: an answer took {max(took):.1f} s")
        for name, seconds in medians.items():
            if seconds > SLOW[0] * calm + SLOW[1]:
                told = f"an answer took {1e3 * seconds:.1f} ms, {1e3 * calm:.1f} ms without trouble"
                result.failures.append(f"{name}: {told}")


class Trial:
    """A proxy whose log gets into trouble; ends with what was wrong."""

    def __init__(self, lab: Lab, name: str, result: Result, place: Path | None = None) -> None:
        """`place`: where the log is; a folder of the trial's own if it is not said."""
        self.lab, self.name, self.result = lab, name, result
        self.proxy = Mitmdump(lab.folder / name, modes=(lab.mode,), confdir=lab.confdir)
        self.proxy.directory.mkdir()
        self.place = place or self.proxy.directory
        self.proxy.log = self.log = self.place / "session.jsonl"
        self.older: list[Path] = []
        """Where else records of the session are: files that were moved or copied away."""
        self.others: dict[Path, bytes] = {}
        """Files that are not the proxy's to change."""
        self.unsaid = 0
        """How many records may be missing that no `gap` tells of."""
        self.file_by_file = False
        """What is missing is judged while it happens."""
        self.sent: list[str] = []
        self.judged: list[str] = []
        """Names of the trials of this log that have ended."""
        self.lost = 0
        self.told = ""
        self.troubles = 0
        """How often something happened that has to be said, each time once."""

    def __enter__(self) -> Trial:
        self.proxy.start()
        try:
            self._connection = HTTPConnection("127.0.0.1", self.proxy.port, timeout=20)
            if self.place == self.proxy.directory:
                self.ask(3)
            self._open = self._descriptors()
        except BaseException:
            self.proxy.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._judge_descriptors()
        finally:
            self._connection.close()
            self.proxy.stop()
        if kind is None:
            self._judge()

    # --- requests ---

    def ask(self, times: int, trouble: bool = False) -> None:
        """Send requests, each with a path of its own."""
        for _ in range(times):
            number = next(numbers)
            path = "/" + "".join(chr(97 + number // 26**place % 26) for place in range(5))
            begun = time.perf_counter()
            self._connection.request("GET", path)
            answer = self._connection.getresponse()
            answer.read()
            took = time.perf_counter() - begun
            if trouble:
                self.lab.troubled.setdefault(self.name, []).append(took)
            else:
                self.lab.calm.append(took)
            if answer.status != 200:
                self.fails(f"a request was answered {answer.status}")
            self.sent.append(path)

    def ask_for_a_while(self) -> None:
        """Send requests in trouble until it must have been noticed."""
        end = time.monotonic() + NOTICED
        while time.monotonic() < end:
            self.ask(1, trouble=True)
            time.sleep(0.02)

    def ask_until(self, holds: Callable[[], bool], what: str) -> None:
        """Send requests until something holds, which it has to soon."""
        end = time.monotonic() + 20 * NOTICED
        while not holds():
            if time.monotonic() > end:
                self.fails(f"{what} did not come")
                return
            self.ask(1)
            time.sleep(0.02)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Meanwhile requests are sent all the time."""
        over = threading.Event()

        def keep_asking() -> None:
            while not over.is_set():
                self.ask(1, trouble=True)

        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(keep_asking)
            try:
                yield
            finally:
                over.set()
                asked.result()

    def wait_for_more(self) -> None:
        """Until some more requests were answered."""
        enough = len(self.sent) + 5
        self.proxy.wait_until(lambda: len(self.sent) >= enough)

    # --- what came of it ---

    def fails(self, why: str) -> None:
        """Note what was not as it must be."""
        self.result.failures.append(f"{self.name}: {why}")

    def is_log(self) -> bool:
        """Whether a log of the session is where it should be."""
        return self.log.is_file() and not self.log.is_symlink() and self.log.stat().st_size > 0

    def size(self) -> int:
        """Of the log, in bytes."""
        return self.log.stat().st_size

    def _descriptors(self) -> list[str]:
        """What the process has open, without connections and the event loop's own."""
        found = []
        for one in Path(f"/proc/{self.proxy.process.pid}/fd").iterdir():
            with suppress(OSError):
                target = str(one.readlink())
                if not target.startswith(("socket:", "anon_inode:", "pipe:")):
                    found.append(target)
        return sorted(found)

    def _judge_descriptors(self) -> None:
        # In trouble at the start, it was not open yet.
        expected = sorted({*self._open, str(self.log)})
        if (found := self._descriptors()) != expected:
            self.fails(f"{found} are open, {expected} should be")

    def _judge(self) -> None:
        for path, content in self.others.items():
            if path.read_bytes() != content:
                self.fails(f"{path.name} was changed, which is somebody else's")
        messages = sum(self.proxy.output.count(words) for words in MESSAGES)
        if messages != self.troubles:
            self.fails(f"{messages} messages for {self.troubles} troubles")
        if error := self.proxy.addon_error():
            self.fails(f"mitmdump said {error[-500:]!r}")
        self._judge_records()

    def _judge_records(self) -> None:
        records, wrong = records_of([*self.older, self.log])
        for why in wrong:
            self.fails(why)
        paths = ["/" + r["url"].rpartition("/")[2] for r in records if r["type"] == "flow"]
        if len(set(paths)) < len(paths):
            self.fails(f"{len(paths) - len(set(paths))} records come twice")
        self.lost = len(self.sent) - len(set(paths) & set(self.sent))
        missing, told = accounts(records)
        self.told = f"{len(self.sent):,} requests, {self.lost:,} records not in the log, "
        self.told += f"{told:,} told in gaps"
        if not self.file_by_file and not 0 <= missing - told <= self.unsaid:
            self.fails(f"{missing} records are missing, {told} told in gaps, {self.unsaid} may not")
        if self.lost > missing:
            self.fails(f"{self.lost} flows are missing, {missing} records by their numbers")
        if self.unsaid and self._missing_to_the_reader() != missing:
            self.fails(f"{missing} records are missing, and a reader finds others")
        found = read([(str(path), path) for path in [*self.older, self.log]])
        ended = [session.final for session in found.sessions.values()]
        # Of two proxies, the one that is judged first has ended, and the other one has not.
        self.judged.append(self.name)
        if sum(ended) < len(self.judged):
            self.fails("no final statistics")
        elif all(ended) and found.merged().flows != len(self.sent):
            self.fails(f"the report counts {found.merged().flows} of {len(self.sent)} requests")

    def _missing_to_the_reader(self) -> int:
        """How many records the reader finds missing by their numbers."""
        bare = []
        for path in [*self.older, self.log]:
            copy = path.with_name(f"{path.name}.bare")
            lines = path.read_bytes().splitlines(keepends=True)
            # Statistics hold what is missing: so without them.
            copy.write_bytes(b"".join(line for line in lines if b'"type":"stats"' not in line))
            bare.append((str(copy), copy))
        return read(bare).missing


# --- file systems ---


class UnmountableError(Exception):
    """No file system can be mounted here."""


@contextmanager
def file_system(place: Path, options: str = "") -> Iterator[Path]:
    """A small one in memory, mounted there. Raises: UnmountableError."""
    place.mkdir()
    _as_root("mount", "-t", "tmpfs", "-o", f"size={SPACE}{options}", "flowtally", place)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@contextmanager
def freezable(place: Path) -> Iterator[Path]:
    """One in a file, mounted there, which can stand still. Raises: UnmountableError."""
    place.mkdir()
    image = place.with_name(f"{place.name}.image")
    with image.open("wb") as file:
        file.truncate(FREEZABLE)
    _as_root("mkfs.ext4", "-q", "-F", image)
    _as_root("mount", "-o", "loop", image, place)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@contextmanager
def frozen(place: Path) -> Iterator[None]:
    """Meanwhile whoever writes there waits. Raises: UnmountableError."""
    _as_root("fsfreeze", "-f", place)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "-u", place], check=True)


def _as_root(*command: str | Path) -> None:
    """Raises: UnmountableError, where that is not allowed, or there is no such program."""
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise UnmountableError from None


def fill(place: Path) -> Path:
    """Fill a file system; the file that does."""
    filler = place / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(descriptor, b"x" * PAGE)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(descriptor)
    return filler


# --- troubles ---


def full(lab: Lab, name: str, result: Result) -> str:
    """Again and again there is no space left, and then there is."""
    with file_system(lab.folder / f"{name}, mounted") as place:
        with Trial(lab, name, result, place) as trial:
            chance = random.Random(1)
            trial.ask(1)
            for _ in range(lab.times):
                filler = fill(place)
                size = -1
                while trial.size() > size:  # a page may have room for a few records
                    size = trial.size()
                    trial.ask(1, trouble=True)
                trial.ask(chance.randrange(5), trouble=True)
                filler.unlink()
                trial.troubles += 1
                trial.ask(1 + chance.randrange(3))
        if trial.lost < lab.times:
            trial.fails(f"it was to be full {lab.times} times, and {trial.lost} records are lost")
        return trial.told


def every_byte(lab: Lab, name: str, result: Result) -> str:
    """The log may not grow beyond a byte of a record, and then it may."""
    with Trial(lab, name, result) as trial:
        pid = trial.proxy.process.pid
        usual = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        for room in range(0, MOST, lab.step):
            size = trial.size()
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + room, usual[1]))
            trial.ask(1, trouble=True)
            written = trial.log.read_bytes()[size:]
            resource.prlimit(pid, resource.RLIMIT_FSIZE, usual)
            trial.ask(1)
            if written.endswith(b"\n"):
                break  # there was room for all of it
            # Without its line end alone, a record is there.
            trial.troubles += not written.endswith(b"}")
        else:
            trial.fails("not tried at every byte: there never was room for a record")
    if not trial.lost:
        trial.fails("no record was lost, so nothing was tried")
    return trial.told


def read_only(lab: Lab, name: str, result: Result) -> str:
    """It may not be written to at first, and then it may."""
    with (
        file_system(lab.folder / f"{name}, mounted", ",ro") as place,
        Trial(lab, name, result, place) as trial,
    ):
        trial.troubles = 1
        trial.ask(5, trouble=True)
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        trial.ask_until(trial.is_log, "the log")
    return trial.told


def removed(lab: Lab, name: str, result: Result) -> str:
    """Somebody removes it, again and again."""
    with Trial(lab, name, result) as trial:
        trial.file_by_file = True
        known = 1
        """The number of the last record that is known to be there, or told of."""
        for _ in range(min(lab.times, 20)):
            trial.log.unlink()
            trial.troubles += 1
            trial.ask_for_a_while()
            trial.ask_until(trial.is_log, "a new log")
            trial.ask(1)
            records, wrong = records_of([trial.log])
            for why in wrong:
                trial.fails(why)
            gap = next((one for one in records if one["type"] == "gap"), {"seq": 0, "dropped": 0})
            if gap["dropped"] != gap["seq"] - 1 - known:
                trial.fails(f"{gap['dropped']} records told of, from {known} to {gap['seq']}")
            known = gap["seq"]
    records, _ = records_of([trial.log])
    if (missing := accounts(records)[0]) != known - 2:
        trial.fails(f"{missing} records are missing in the last file, not {known - 2}")
    return trial.told


def replaced(put: Callable[[Path, Path], object]) -> Callable[[Lab, str, Result], str]:
    """Something else takes its place, and goes away. `put`: makes it, given the path of the log and
    of a file of somebody else's."""

    def act(lab: Lab, name: str, result: Result) -> str:
        with Trial(lab, name, result) as trial:
            somebodys = lab.folder / f"{name} somebody's"
            somebodys.write_bytes(SOMEBODYS)
            trial.others[somebodys] = SOMEBODYS
            trial.log.unlink()
            put(trial.log, somebodys)
            trial.troubles = 1
            trial.ask_for_a_while()
            if trial.log.is_file() and trial.log.read_bytes() != SOMEBODYS:
                trial.fails("it was written into what is not the proxy's")
            if trial.log.is_dir():
                trial.log.rmdir()
            else:
                trial.log.unlink()
            trial.ask_until(trial.is_log, "a new log")
        return trial.told

    return act


def moved(lab: Lab, name: str, result: Result) -> str:
    """Rotated by `mv`, while requests come."""
    with Trial(lab, name, result) as trial:
        for turn in range(min(lab.times, 20)):
            older = trial.log.with_suffix(f".{turn}")
            with trial.asking():
                trial.wait_for_more()
                trial.log.rename(older)
                trial.older.append(older)
                trial.proxy.wait_until(trial.is_log)
    if trial.lost:
        trial.fails(f"{trial.lost} records are in no file")
    return trial.told


def cut(lab: Lab, name: str, result: Result) -> str:
    """Rotated by `copytruncate`, while requests come."""
    with Trial(lab, name, result) as trial:
        for turn in range(min(lab.times, 20)):
            older = trial.log.with_suffix(f".{turn}")
            with trial.asking():
                trial.wait_for_more()
                copied = len(trial.sent)
                shutil.copyfile(trial.log, older)
                trial.wait_for_more()  # what comes now is in no file
                os.truncate(trial.log, 0)
                # One more may be under way at either moment.
                trial.unsaid += len(trial.sent) - copied + 2
                trial.older.append(older)
                trial.proxy.wait_until(trial.is_log)
                time.sleep(NOTICED)
    return trial.told


def shared(lab: Lab, name: str, result: Result) -> str:
    """Two proxies write into one log, and there is no space left, and then there is."""
    with file_system(lab.folder / f"{name}, mounted") as place:
        one = Trial(lab, f"{name}, one", result, place)
        other = Trial(lab, f"{name}, other", result, place)
        # Both ask for all, and all is in one log.
        one.sent, one.judged = other.sent, other.judged
        with one, other:
            for _ in range(min(lab.times, 20)):
                one.ask(1)
                other.ask(1)
                filler = fill(place)
                for _ in range(12):  # a page may have room for some of them
                    one.ask(1, trouble=True)
                    other.ask(1, trouble=True)
                filler.unlink()
                other.ask(1)
                one.ask(1)
                one.troubles += 1
                other.troubles += 1
        return one.told


def sessions(lab: Lab, name: str, result: Result) -> str:
    """A full disk at each byte of what a session writes: a record, a checkpoint of many parts, and
    such final statistics. Then another session goes on."""
    # What these say is not looked at.
    logging.getLogger("flowtally").setLevel(logging.CRITICAL)
    tried: Counter[str] = Counter()
    with file_system(lab.folder / f"{name}, mounted") as place, often():
        path = place / "log.jsonl"
        _begin(path, "").close()
        beginning = len(path.read_bytes().partition(FIRST + b"stats")[0])
        for what, (write, flows) in WRITES.items():
            for room in range(0, MOST, lab.step):
                tried[what] += 1
                # So much that the last page of what stands there has just that room.
                padding = " " * ((-room - beginning) % PAGE)
                fits, wrong = _full_at(path, place, room, padding, write, flows)
                result.failures += [f"{name}: {room} bytes left for {what}: {why}" for why in wrong]
                if fits:
                    break  # there was room for all of it
            else:
                result.failures.append(f"{name}: not tried at every byte of {what}")
            if tried[what] < 2:
                result.failures.append(f"{name}: {what} wrote nothing")
    return "tried " + ", ".join(f"{times:,} bytes of {what}" for what, times in tried.items())


WRITES: dict[str, tuple[Callable[[Session], None], int]] = {
    "a record": (lambda session: session.add(flow_record(session.id, 2)), 3),
    "a checkpoint": (write_checkpoint, 2),
    "the final statistics": (Session.close, 1),
}
"""What meets a full disk, and how many flows the session has in the end: one was before it, and one
comes after it, if that can be."""


def _begin(path: Path, padding: str) -> Session:
    """A session with one record, so much longer, in a new log."""
    path.unlink(missing_ok=True)
    session = Session(str(path), [], {})
    session.add(flow_record(session.id, 1, padding))
    return session


def _full_at(
    path: Path,
    place: Path,
    room: int,
    padding: str,
    write: Callable[[Session], None],
    flows: int,
) -> tuple[bool, list[str]]:
    """Whether there was room for all, and what is wrong."""
    session = _begin(path, padding)
    before = path.read_bytes()
    filler = fill(place)
    os.truncate(filler, filler.stat().st_size - room // PAGE * PAGE)
    write(session)
    fits = not session.tally.dropped
    filler.unlink()
    if write is not Session.close:
        session.add(flow_record(session.id, 3))
        session.close()
    last = Session(str(path), [], {})
    last.add(flow_record(last.id, 4))
    last.close()
    data = path.read_bytes()
    wrong = [] if data.startswith(before) else ["what stood there was changed"]
    records, why = records_of([path])
    missing, told = accounts(records)
    if missing != told:
        wrong.append(f"{missing} records are missing, {told} told in gaps")
    counted = {id: found.tally.flows for id, found in read([("", path)]).sessions.items()}
    if counted != {session.id: flows, last.id: 1}:
        wrong.append(f"the report counts {list(counted.values())}")
    return fits, wrong + why


def needing_a_file_system(
    act: Callable[[Lab, str, Result], str],
) -> Callable[[Lab, str, Result], str]:
    """The same, left out where none can be mounted."""

    def tried(lab: Lab, name: str, result: Result) -> str:
        try:
            return act(lab, name, result)
        except UnmountableError:
            return f"{NOT_TRIED}: no file system can be mounted here"

    return tried


def stalled(lab: Lab, name: str, result: Result) -> str:
    """Its file system stands still for a while: who writes waits, the proxy too, and goes on."""
    with (
        freezable(lab.folder / f"{name}, mounted") as place,
        Trial(lab, name, result, place) as trial,
    ):
        trial.ask(3)
        with ThreadPoolExecutor(1) as pool:
            with frozen(place):
                asked = pool.submit(trial.ask, 3, trouble=True)
                time.sleep(STALL)
                waited = not asked.done()
            asked.result()
        if not waited:
            trial.fails("nobody waited, so nothing was tried")
        trial.ask(3)
    if trial.lost:
        trial.fails(f"{trial.lost} records are lost")
    longest = max(lab.troubled[name])
    return f"{trial.told}; it stood still for {STALL} s, the longest answer took {longest:.1f} s"


TROUBLES: dict[str, Callable[[Lab, str, Result], str]] = {
    "no space left": needing_a_file_system(full),
    "too large at a byte of a record": every_byte,
    "read-only": needing_a_file_system(read_only),
    "removed": removed,
    "a folder in its place": replaced(lambda log, _: log.mkdir()),
    "a link in its place": replaced(lambda log, somebodys: log.symlink_to(somebodys)),
    "a pipe in its place": replaced(lambda log, _: os.mkfifo(log)),
    "somebody's file in its place": replaced(lambda log, _: log.write_bytes(SOMEBODYS)),
    "rotated by mv": moved,
    "rotated by copytruncate": cut,
    "two proxies, no space left": needing_a_file_system(shared),
    "standing still": needing_a_file_system(stalled),
    "no space left at a byte": needing_a_file_system(sessions),
}
