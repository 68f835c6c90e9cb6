"""Session logs, read: whichever way a log is taken in, the outcome is the fold of its records."""

from __future__ import annotations

import gc
import io
import json
import logging
import os
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any
from uuid import UUID
from zlib import crc32

import pytest
from flowtally import alike
from flowtally import journal
from flowtally import logs as module
from flowtally import tally as tally_module
from flowtally.encoding import PLAIN
from flowtally.encoding import encode
from flowtally.journal import Journal
from flowtally.logs import MAX_PROBLEMS
from flowtally.logs import Logs
from flowtally.logs import Part
from flowtally.logs import Reader
from flowtally.tally import OTHER
from flowtally.tally import Tally
from flowtally.times import timestamp
from flowtally.valid import check
from flowtally.vocabulary import CAUSES
from flowtally.vocabulary import STATUS_TAGS
from flowtally.vocabulary import status_tag
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from mitmproxy import http
from mitmproxy.test import tflow
from test_addon import replay
from test_addon import running

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


def read(text: bytes) -> Logs:
    logs = Logs()
    logs.read(io.BytesIO(text), "a log")
    return logs


def read_file(path: Path) -> Logs:
    logs = Logs()
    logs.read_file(path, "a log")
    return logs


def encoded(*records: Any) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=5,
)
FIELDS = ["type", "session", "time", "outcome", "kind", "status", "band", "description"]
FIELDS += ["error_code", "cause", "host", "wait_ms", "duration_ms", "response_bytes", "dropped"]
FIELDS += ["url", "method", "port", "close_code"]


@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON)), st.data())
@settings(deadline=None)
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
        if not check(record):
            tally.add(record)
    assert sum(tally.outcomes.values()) == tally.flows
    json.dumps(tally.to_data())


# --- what a log is to say ---


class Fold:
    """A log, folded line by line in the plainest way."""

    def __init__(self, *contents: bytes) -> None:
        self.tallies: dict[str, Tally] = {}
        self.times: dict[str, str] = {}
        self.wrong: list[int] = []
        """Numbers of the lines that cannot be used."""
        for content in contents:
            for number, line in enumerate(content.split(b"\n"), 1):
                if line and not line.isspace() and not self._take(line):
                    self.wrong.append(number)

    def _take(self, line: bytes) -> bool:
        try:
            record = json.loads(line.decode(), strict=False)
        except ValueError:
            return False
        if check(record):
            return False
        session = record["session"]
        self.times.setdefault(session, record["time"])
        tally = self.tallies.setdefault(session, Tally())
        if record["type"] == "stats" and record.get("final"):
            try:
                self.tallies[session] = Tally.from_data(record)
            except ValueError:
                return False
        else:
            tally.add(record)
        return True


def assert_same(logs: Logs, fold: Fold) -> None:
    assert [problem.line for problem in logs.problems] == fold.wrong[:MAX_PROBLEMS]
    assert logs.unreadable == len(fold.wrong)
    assert {id: session.time for id, session in logs.sessions.items()} == fold.times
    assert list(logs.sessions) == list(fold.tallies)
    for id, session in logs.sessions.items():
        assert session.tally.to_data() == fold.tallies[id].to_data()


# --- any log ---

SESSIONS = ["0000000a"] * 12 + ["0000000b", "0000000b", r"\u0062", "b", r"\ud800"]
METHODS = ["GET"] * 8 + ["POST", "PUT", r"G\u0045T", "", "ÜBER", "A\x01", "A", "B", "C", "A?B"]
METHODS += ["A/1/2", r"A\u0022,\u0022url\u0022:\u0022B"]
HOSTS = ["h"] * 4 + [r"\u0068", "ü.example", "", "a\x7fb", r"q\"q", *(f"h{n}" for n in range(9))]
PATHS = [
    "",
    "/",
    "/users/{n}",
    "/users/{n}/posts/{n}?q={n}",
    "/static/{n}.js",
    "/o/{uuid}",
    "/t/dQw4w9WgXcQ_{n}xxxxxxxxxxxx",
    "/日本/{n}",
    r"/\u0041/{n}",
    "/A/1",
    r"/\ud83d\ude00",
    r"/\"quoted\"",
    "/back\\\\slash",
    "/\x01\x1f\t",
    "/" + "x" * 300,
]
WRONG_PATHS = ["/no\\escape", "/end\\", r"/\ud800"]
PORTS = [80, 443, 443, 8080, 1, 65535]
PLAIN_TAGS = [
    encode(tag)[1:-2].decode()
    for tag in [
        *[STATUS_TAGS[200]] * 6,
        *(STATUS_TAGS[code] for code in (204, 301, 304, 401, 404, 404, 500, 503)),
        *(status_tag(code) for code in (-1, 0, 99, 299, 450, 599, 600, 999)),
        status_tag(404, 'Says "no" \\ ü'),
        STATUS_TAGS[200] | {"answered_by": "proxy"},
        STATUS_TAGS[404] | {"answered_by": "proxy", "replay": "request"},
        STATUS_TAGS[302]
        | {"error_code": -5, "error_name": "TooManyRedirects", "cause": "redirect_loop"}
        | {"side": "server", "detail": "again"},
    ]
]
FOREIGN_TAGS = [
    '"outcome":"status"',
    '"outcome":"status",',
    '"outcome":"status","status":200',
    '"outcome":"status","status":true,"band":"Success","description":"OK"',
    '"outcome":"status","status":200,"band":"Client error","description":"OK"',
    '"outcome":"status","status":200,"band":"Failure","description":"OK"',
    '"outcome":"status","status":200,"band":"Success","description":"OK","outcome":"ok"',
    '"outcome":"status","status":200,"band":"Success","description":"OK","host":"twice"',
    '"outcome":"status","status":200,"band":"Success","description":"OK","\\u0075rl":"twice"',
    '"outcome":"status","status":200,"band":"Success","description":"OK","status":404',
    '"outcome":"status","status":200,"band":"Success","description":"OK","error_code":null',
    '"outcome":"status","status":200,"band":"Success","description":"OK","error_code":-77',
    '"outcome":"status","status":200,"band":"Success","description":"OK","error_code":-2',
    '"outcome":"status","status":200,"band":"Success","description":"OK","cause":"x"',
    '"outcome":"status","status":200,"band":"Success","description":"OK","cause":5',
    '"outcome":"status","status":200,"band":"Success","description":"OK","close_code":7',
    '"outcome":"status","status":200,"band":"Success","description":"OK",\n"x":1',
    '"outcome":"status","status":200,"band":"Success","description":"O\nK"',
    '"outcome":"status","status":200,"band":"Success","description":"O\x02K"',
    '"outcome":"error","error_code":-1,"cause":"unknown"',
    '"outcome":"unfinished"',
]
KINDS = ["http"] * 4 + ["websocket", "connect", "dns", "tcp", "udp"]


def a_time(chance: random.Random) -> str:
    day = chance.choice([0, 0, 0, 86_400, -40_000])
    second = chance.choice([0, 1, chance.randrange(400)])
    return timestamp(1_700_000_000 + day + second + chance.choice([0, chance.random()]))


def a_url(chance: random.Random, host: str, path: str) -> str:
    number = chance.randrange(12)
    path = path.replace("{n}", str(number)).replace("{uuid}", str(UUID(int=number << 64 | 5)))
    return f"https://{host}{path}"


def plain(chance: random.Random, session: str, tag: str = "", path: str = "") -> bytes:
    """A line as the addon writes most; what stands in it may be what it never writes."""
    host = chance.choice(HOSTS)
    wait, duration = chance.randrange(10**6), chance.choice([0, 10**9, chance.randrange(10**7)])
    line = PLAIN % (
        session,
        a_time(chance),
        "FLOW",
        chance.choice(["127.0.0.1", "10.0.0.1", "ü"]),
        chance.randrange(65536),
        chance.choice(METHODS),
        a_url(chance, host, path or chance.choice(PATHS)),
        host,
        chance.choice(PORTS),
        chance.choice(["HTTP/1.1", "HTTP/2.0"]),
        chance.choice([0, 1, 2**40]),
        chance.randrange(10**6),
        wait // 1000,
        wait % 1000,
        duration // 1000,
        duration % 1000,
        tag or chance.choice(PLAIN_TAGS),
    )
    return with_id(line.encode())


def with_id(line: bytes) -> bytes:
    """A line with the id of a flow that no other line has."""
    return line.replace(b'"FLOW"', b'"id-%d"' % crc32(line), 1)


def other(chance: random.Random, session: str) -> bytes:
    """A flow or an event of another kind."""
    record: dict[str, Any] = {"type": "flow", "session": json.loads(f'"{session}"')}
    record["time"] = a_time(chance)
    record |= {"flow": "FLOW", "kind": chance.choice(KINDS)}
    record |= {"host": chance.choice(["h", "ü", "h1", "h2", "h3", "h4"]), "port": 443}
    if record["kind"] in ("http", "websocket", "connect") and chance.randrange(4):
        record["method"] = chance.choice(["GET", "PUT", "A", "D", "E"])
        record["url"] = f"https://h/other/{chance.choice('abcdefg')}"
    for name in ("request_bytes", "response_bytes"):
        if chance.randrange(3):
            record[name] = chance.randrange(10**6)
    for name in ("wait_ms", "duration_ms"):
        if chance.randrange(3):
            record[name] = chance.randrange(10**8) / 1000
    cause = CAUSES[chance.choice(list(CAUSES))]
    error = {"error_code": cause.error.code, "error_name": cause.error.name, "cause": cause.name}
    error |= {"side": cause.side, "detail": "so \x1b it ü was"}
    outcome = chance.choice(["status", "error", "ok", "unfinished", "event"])
    if outcome == "status":
        record |= status_tag(chance.choice([101, 200, 404, 418, 500, 777]))
        if chance.randrange(2):
            record["answered_by"] = "proxy"
    elif outcome == "error":
        record |= {"outcome": "error", **error}
    elif outcome == "event":
        record = {name: record[name] for name in ("session", "time", "host", "port")}
        record |= {"type": "event", **error}
        if chance.randrange(2):
            del record["host"], record["port"]
    else:
        record["outcome"] = outcome
    if record.get("kind") == "websocket" and chance.randrange(2):
        record |= {"close_code": chance.choice([1000, 1001, 1006, 4000]), "close_reason": "x"}
    if chance.randrange(20) == 0:
        record["time"] = chance.choice(
            ["1969-12-31T23:59:58.500Z", "2023-11-14T22:13:20.500+02:00", "20231114T221320Z"]
        )
    return with_id(chance.choice([encode, encoded])(record))


def between(chance: random.Random, session: str) -> bytes:
    """A record that is neither flow nor event."""
    head = {"session": json.loads(f'"{session}"'), "time": TIME}
    which = chance.randrange(6)
    if which == 0:
        return encoded({"type": "session_start", **head})
    if which <= 2:
        return encoded({"type": "gap", **head, "dropped": chance.randrange(5), "reason": "x"})
    tally = Tally()
    for _ in range(chance.randrange(5)):
        tally.add(json.loads(other(chance, "x")))
    body = {**head, **tally.to_data()}
    if which <= 4:
        return encoded({"type": "stats", **body})
    final = {"type": "stats", **body, "final": True, "log_bytes": chance.randrange(2000)}
    return encoded(final | chance.choice([{}, {}, {}, {"flows": -1}]))


def wrong(chance: random.Random, session: str) -> bytes:
    """A line that something happened to, or that somebody else wrote."""
    line = chance.choice([plain, plain, other])(chance, session)
    cut = chance.randrange(len(line))
    return chance.choice(
        [
            line[:cut] + b"\n",
            line[:cut],
            line[:cut] + b"\n" + line[cut:],
            line[:cut] + b"\xff" + line[cut:],
            line[:cut] + b'"' + line[cut:],
            line.replace(b"2023-11-14", b"2023-02-31"),
            line.replace(b"2023-11-14", b"1969-11-14"),
            line.replace(b'_bytes":', b'_bytes":0'),
            line.replace(b'_ms":', b'_ms":0'),
            line.replace(b'_ms":', b'_ms":-'),
            line.replace(b'"port":', b'"port":0'),
            line.replace(b'"type"', b' "type"'),
            line.replace(b'"session":', b'"session":5,"x":'),
            line.replace(b"}\n", b"}\r\n"),
            line.replace(b"}\n", b"} }\n"),
            plain(chance, session, tag=chance.choice(FOREIGN_TAGS)),
            plain(chance, session, tag=chance.choice(FOREIGN_TAGS)),
            plain(chance, session, path=chance.choice(WRONG_PATHS)),
            b"GET / HTTP/1.1 200\n",
            b"\n",
            b"\t \n",
            b"[]\n",
            b"\xef\xbb\xbf\n",
        ]
    )


def any_line(chance: random.Random, mixed: bool, torn: bool) -> bytes:
    """A line of one session, or of several; of which some are wrong, or none."""
    number = chance.randrange(20)
    make = plain if number < 14 else other if number < 18 else between
    if torn and number == 17:
        make = wrong
    return make(chance, chance.choice(SESSIONS) if mixed else "0000000a")


def any_log(seed: int, count: int, session: str = "") -> bytes:
    """Several sessions, or one, that did not end; few lines are wrong."""
    chance = random.Random(seed)
    lines: list[bytes] = []
    while len(lines) < count:
        of_run = session or chance.choice(["0000000a", "0000000a", "0000000b", r"\u0062", "b"])
        for _ in range(chance.randrange(1, 100)):
            number = chance.randrange(200)
            make = plain if number < 160 else other if number < 196 else between
            if number == 199:
                make = wrong
            line = make(chance, of_run)
            if b'"final"' not in line:
                lines.append(line)
    return b"".join(lines[:count]) + b'{"type":"flow","torn'


LINES = st.tuples(
    st.sampled_from([False, False, True]), st.sampled_from([False, False, True])
).flatmap(
    lambda of: st.lists(
        st.builds(any_line, st.randoms(use_true_random=False), *map(st.just, of)), max_size=40
    )
)
TINY = {
    tally_module: {
        "MAX_HOSTS": 3,
        "MAX_ENDPOINTS": 5,
        "MAX_CODES": 4,
        "MAX_METHODS": 2,
        "MAX_CAUSES": 2,
        "MAX_HOSTS_OF_A_CAUSE": 2,
        "MAX_CLOSE_CODES": 1,
        "MAX_BUCKETS": 7,
    },
    alike: {"MAX_KNOWN": 3, "MAX_HELD": 5},
}


@contextmanager
def bounds(tiny: bool, **of_logs: Any) -> Iterator[pytest.MonkeyPatch]:
    """With tables that are full at once, and the given constants of `logs`."""
    with pytest.MonkeyPatch.context() as patch:
        for where, values in TINY.items() if tiny else ():
            for name, value in values.items():
                patch.setattr(where, name, value)
        for name, value in of_logs.items():
            patch.setattr(module, name, value)
        yield patch


@given(LINES, st.booleans(), st.sampled_from([1, 40, 300, 3000, module.BLOCK]))
@settings(max_examples=300, deadline=None)
def test_reading_is_the_fold_of_the_records(lines: list[bytes], tiny: bool, block: int) -> None:
    text = b"".join(lines)
    with bounds(tiny, BLOCK=block):
        assert_same(read(text), Fold(text))


@pytest.mark.parametrize("tag", FOREIGN_TAGS)
def test_a_line_that_only_looks_plain(tag: str) -> None:
    chance = random.Random(6)
    lines = [plain(chance, "0000000a", chance.choice(PLAIN_TAGS)) for _ in range(50)]
    lines[20] = plain(chance, "0000000a", tag)
    text = b"".join(lines)
    assert_same(read(text), Fold(text))


@pytest.mark.parametrize("tiny", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_a_larger_log(seed: int, tiny: bool) -> None:
    text = any_log(seed, 400)
    with bounds(tiny, BLOCK=20_000):
        assert_same(read(text), Fold(text))


@given(LINES, LINES, st.booleans())
@settings(max_examples=50, deadline=None)
def test_several_logs_are_read_as_one_after_the_other(
    first: list[bytes], second: list[bytes], tiny: bool
) -> None:
    texts = b"".join(first), b"".join(second)
    with bounds(tiny):
        logs = Logs()
        for text in texts:
            logs.read(io.BytesIO(text), "a log")
        assert_same(logs, Fold(*texts))


@given(st.binary())
@settings(deadline=None)
def test_any_bytes_can_be_read(data: bytes) -> None:
    assert_same(read(data), Fold(data))


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


def test_the_first_problems_are_named_in_the_order_of_the_lines() -> None:
    good = plain(random.Random(0), "0000000a", PLAIN_TAGS[0])
    bad = good.replace(b"2023-11-14", b"2023-02-31").replace(b"2023-11-13", b"2023-02-31")
    text = (good + bad + b"garbage\n") * MAX_PROBLEMS
    logs = read(text)
    assert [problem.line for problem in logs.problems] == Fold(text).wrong[:MAX_PROBLEMS]
    assert logs.unreadable == 2 * MAX_PROBLEMS


def test_final_statistics_speak_for_what_could_not_be_written() -> None:
    tally = Tally()
    for number in range(5):
        tally.add(event(number))
    logs = read(encoded(START, event(1), FINAL | tally.to_data()))
    session = logs.sessions["00000001"]
    assert session.final
    assert session.tally.events == 5
    broken = read(encoded(START, event(1), FINAL | {"flows": "x"}))
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
        {"type": "stats", "log_bytes": -1},
        {"type": "stats", "log_bytes": True},
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


@pytest.mark.parametrize("block", [1, 100, 999, 1000, 1001, 2500, 10_000])
def test_a_line_without_end(block: int) -> None:
    with bounds(False, MAX_LINE=1000, BLOCK=block):
        logs = read(encoded(START) + b"x" * 12_500 + b"\n" + encoded(event(1)))
        assert [problem.line for problem in logs.problems] == [2]
        assert logs.sessions["00000001"].tally.events == 1


def test_progress_tells_of_every_byte() -> None:
    text = encoded(START, event(1)) * 50 + b"x" * 3000
    for block in (100, 5000, 10**6):
        with bounds(False, BLOCK=block, MAX_LINE=2000):
            told: list[int] = []
            Logs().read(io.BytesIO(text), "a log", told.append)
            assert sum(told) == len(text)


# --- parts of a large file ---


class ReaderHere(Reader):
    """Reads a part in this process; the part comes and goes as it would between two."""

    def __init__(self, path: Path, source: str, begin: int, end: int, part: Part) -> None:
        self.begin = begin
        self.end = end
        self.sent: list[Any] = []
        module._read_part(
            self,  # type: ignore[arg-type]  # the end of the pipe that sends
            path,
            source,
            begin,
            end,
            pickle.loads(pickle.dumps(part)),
        )
        gc.enable()
        assert sum(count for count in self.sent if isinstance(count, int)) == end - begin

    def send(self, message: Any) -> None:
        self.sent.append(pickle.loads(pickle.dumps(message)))

    def progress(self) -> int:
        return 0

    def result(self, progress: Any) -> Part | None:
        *counts, part = self.sent
        progress(sum(counts))
        assert isinstance(part, Part)
        return part

    def stop(self) -> None:
        pass


def parted(head: int, processes: int = 4) -> dict[str, Any]:
    """Bounds with which any log is read in parts."""
    return {"LARGE": 1, "HEAD": head, "MOST_PARTS": processes}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """mitmproxy's test harness sends warnings to each of a test's loops, also to closed ones."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
def _four_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@given(
    LINES,
    st.booleans(),
    st.integers(1, 8000),
    st.integers(2, 4),
    st.sampled_from([1, 300, module.BLOCK]),
)
@settings(max_examples=400, deadline=None)
def test_reading_in_parts_is_the_fold_of_the_records(
    folder: Path, lines: list[bytes], tiny: bool, head: int, processes: int, block: int
) -> None:
    path = folder / "log"
    text = b"".join(lines)
    path.write_bytes(text)
    with bounds(tiny, BLOCK=block, Reader=ReaderHere, **parted(head, processes)):
        assert_same(read_file(path), Fold(text))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.write_bytes(any_log(1, 3000))
    return path


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> list[Reader]:
    """The readers that are made."""
    made: list[Reader] = []

    class Noted(Reader):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(module, "Reader", Noted)
    return made


@pytest.mark.parametrize("processes", [2, 4])
def test_other_processes_read_parts(log: Path, readers: list[Reader], processes: int) -> None:
    told: list[int] = []
    with bounds(False, BLOCK=10_000, **parted(30_000, processes)):
        logs = Logs()
        logs.read_file(log, "a log", told.append)
    assert_same(logs, Fold(log.read_bytes()))
    assert sum(told) == log.stat().st_size
    assert len(readers) == processes - 1
    assert all(reader._part is not None for reader in readers)
    assert not any(reader._process.is_alive() for reader in readers)


def ranges_read(patch: pytest.MonkeyPatch) -> list[int]:
    """The number of lines before each range that is read here."""
    ranges: list[int] = []
    read_range = Logs._read_range

    def noted(
        self: Logs, file: Any, source: str, number: int, size: int | None, progress: Any
    ) -> int:
        if not isinstance(self, Part):
            ranges.append(number)
        return read_range(self, file, source, number, size, progress)

    patch.setattr(Logs, "_read_range", noted)
    return ranges


@pytest.mark.parametrize(("head", "again"), [(1000, True), (300_000, False)])
def test_parts_of_a_log_with_more_than_a_part_can_hold(
    tmp_path: Path, head: int, again: bool
) -> None:
    """With tables that were full before it, a part holds all that is needed; with others, one that
    met more than it can hold is read again."""
    chance = random.Random(5)
    lines = [plain(chance, "0000000a").replace(b"//h", b"//h%d" % n) for n in range(2000)]
    path = tmp_path / "log"
    path.write_bytes(b"".join(lines))
    with bounds(True, Reader=ReaderHere, **parted(head)) as patch:
        ranges = ranges_read(patch)
        logs = read_file(path)
        assert_same(logs, Fold(path.read_bytes()))
        assert OTHER in logs.sessions["0000000a"].tally.endpoints
    assert (len(ranges) > 2) is again


def test_final_statistics_in_the_middle(tmp_path: Path, readers: list[Reader]) -> None:
    """The same log twice, something foreign after it: nothing is settled, and the final statistics
    take the place of what the other parts were told."""
    tally = Tally()
    tally.add(event(1))
    final = encoded(FINAL | {"session": "0000000a"} | tally.to_data())
    text = (any_log(2, 800, "0000000a") + b"\n" + final) * 2 + any_log(3, 800)
    path = tmp_path / "log"
    path.write_bytes(text)
    for head in (1000, 100_000):
        with bounds(False, **parted(head, 3)):
            assert_same(read_file(path), Fold(text))
    assert len(readers) == 4


@pytest.mark.parametrize("kill", [True, False])
def test_a_process_that_dies(
    log: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], kill: bool
) -> None:
    class Dying(Reader):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            if kill:
                self._process.kill()

    monkeypatch.setattr(module, "Reader", Dying)
    if not kill:
        monkeypatch.setattr(module, "_read_part", os.fspath)  # raises a TypeError there
    with bounds(False, **parted(30_000, 3)) as patch:
        ranges = ranges_read(patch)
        assert_same(read_file(log), Fold(log.read_bytes()))
    assert len(ranges) == 2 + 2
    assert ("TypeError" in capfd.readouterr().err) is not kill


@pytest.mark.parametrize("started", [0, 1])
def test_no_process_can_be_started(log: Path, readers: list[Reader], started: int) -> None:
    with bounds(False, **parted(30_000)) as patch:
        start = SpawnProcess.start

        def refuse(process: SpawnProcess) -> None:
            if len(readers) == started:
                raise BlockingIOError(11, "Resource temporarily unavailable")
            start(process)

        patch.setattr(SpawnProcess, "start", refuse)
        assert_same(read_file(log), Fold(log.read_bytes()))
    assert len(readers) == started
    assert not any(reader._process.is_alive() for reader in readers)


READ_IN_PARTS = """
import os
import sys
from pathlib import Path
from flowtally import logs
if __name__ == "__main__":
    os.cpu_count = lambda: 3
    logs.LARGE, logs.HEAD = 1, 30_000
    found = logs.Logs()
    found.read_file(Path(sys.argv[1]), "a log")
    print({id: session.tally.flows for id, session in found.sessions.items()})
"""


@pytest.mark.skipif(not Path("/dev/fd/0").exists(), reason="needs /dev/fd")
@pytest.mark.parametrize("pipe", [False, True])
def test_an_open_file_by_its_number(log: Path, tmp_path: Path, pipe: bool) -> None:
    """Standard input, and a descriptor that other processes do not have, or have for something
    else. A file is read in parts, a pipe is not."""
    script = tmp_path / "script.py"
    script.write_text(READ_IN_PARTS, "utf-8")
    expected = {id: tally.flows for id, tally in Fold(log.read_bytes()).tallies.items()}
    for number in (0, 9):
        feed = f"cat {log} |" if pipe else ""
        redirection = f"{number}<{'&0' if pipe else log}"
        shell = f"{feed} {sys.executable} {script} /dev/fd/{number} {redirection}"
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == (f"{expected}\n", "")


def test_a_named_pipe(log: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = log.read_bytes()
    thread = threading.Thread(target=pipe.write_bytes, args=(text,))
    thread.start()
    with bounds(False, **parted(30_000)):
        assert_same(read_file(pipe), Fold(text))
    thread.join()


# --- sessions that need not be read ---


def session_log(path: Path, flows: int = 5, **options: Any) -> bytes:
    """What a session of the real addon appends to a log."""
    before = path.stat().st_size if path.exists() else 0
    with running(path, **options) as addon:
        for number in range(flows):
            response = http.Response.make([200, 404, 500, 302][number % 4])
            replay(addon, tflow.tflow(resp=response))
        replay(addon, tflow.tflow(err=True))
        replay(addon, tflow.ttcpflow())
    return path.read_bytes()[before:]


def taken(path: Path) -> tuple[Logs, int]:
    """A log, and how many bytes of it were read line by line."""
    told: list[int] = []
    logs = Logs()
    logs.read_file(path, "a log", told.append)
    return logs, sum(told)


def test_the_records_of_a_settled_session_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    text = session_log(path)
    logs, count = taken(path)
    assert count == 0
    assert_same(logs, Fold(text))
    (session,) = logs.sessions.values()
    assert session.final
    assert session.start == json.loads(text.split(b"\n")[0])

    damaged = text.replace(b'"type":"flow"', b'"type":"flaw"', 1)
    path.write_bytes(damaged)
    logs, count = taken(path)
    assert (count, logs.unreadable) == (0, 0)
    assert logs.sessions[session.id].tally.to_data() == session.tally.to_data()

    longer = text.replace(b'"type":"flow"', b'"type":"flow.."', 1)
    path.write_bytes(longer)
    logs, count = taken(path)
    assert count == len(longer)
    assert [problem.line for problem in logs.problems] == [2]
    assert logs.sessions[session.id].tally.to_data() == session.tally.to_data()


def test_several_settled_sessions(tmp_path: Path) -> None:
    path = tmp_path / "log"
    texts = [session_log(path, flows) for flows in (1, 0, 7)]
    logs, count = taken(path)
    assert count == 0
    assert_same(logs, Fold(b"".join(texts)))
    # In any order, and more than once: `cat`.
    path.write_bytes(b"".join([texts[2], texts[0], texts[2]]))
    logs, count = taken(path)
    assert count == 0
    assert_same(logs, Fold(path.read_bytes()))


@pytest.mark.parametrize(
    "before", [b"", b"Dear diary,\n", b"\n", b"{", any_log(4, 50), any_log(4, 50) + b"\n"]
)
def test_what_is_before_a_settled_session_is_read(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "log"
    # What is no log the addon does not write to; here it came to be while nobody looked.
    path.write_bytes(b'{"type":"flow"}\n' + before)
    text = path.read_bytes()
    session_log(path)
    logs, count = taken(path)
    assert count == len(text)
    assert_same(logs, Fold(path.read_bytes()))


@pytest.mark.parametrize("after", [b"\n", b"{", b"Dear diary,\n", encoded(event(1))])
def test_with_something_after_it_a_session_is_not_settled(tmp_path: Path, after: bytes) -> None:
    path = tmp_path / "log"
    text = session_log(path) + after
    path.write_bytes(text)
    logs, count = taken(path)
    assert count == len(text)
    assert_same(logs, Fold(text))


def test_two_sessions_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with running(path) as first:
        replay(first, tflow.tflow(resp=True))
        session_log(path)  # begins and ends within the other
        replay(first, tflow.tflow(err=True))
    logs, count = taken(path)
    assert count == path.stat().st_size
    assert_same(logs, Fold(path.read_bytes()))

    path.unlink()
    journals = [Journal(path, START | {"session": f"0000000{n}"}) for n in range(2)]
    for number in range(20):
        journals[number % 2].write(encode(event(number) | {"session": f"0000000{number % 2}"}))
    for number, written in enumerate(journals):
        tally = Tally()
        for other_number in range(10):
            tally.add(event(other_number))
        written.close(FINAL | {"session": f"0000000{number}"} | tally.to_data())
    logs, count = taken(path)
    assert count == path.stat().st_size
    assert_same(logs, Fold(path.read_bytes()))


def test_a_log_that_is_removed_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "CHECK_INTERVAL", 0.0)
    path = tmp_path / "log"
    with running(path) as addon:
        replay(addon, tflow.tflow(resp=True))
        path.unlink()
        for _ in range(3):
            replay(addon, tflow.tflow(err=True))
    logs, count = taken(path)
    assert count == 0
    assert_same(logs, Fold(path.read_bytes()))
    tally = logs.merged()
    assert (tally.flows, tally.dropped) == (4, 1)


def test_a_disk_that_was_full_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    real_write = os.write
    room = [10**6]

    def write(file: int, data: bytes) -> int:
        if room[0] == 0:
            raise OSError(28, "No space left on device")
        count = real_write(file, data[: room[0]])
        room[0] -= count
        return count

    monkeypatch.setattr(os, "write", write)
    with running(path) as addon:
        replay(addon, tflow.tflow(resp=True))
        room[0] = 50  # enough for half a record
        for _ in range(3):
            replay(addon, tflow.tflow(err=True))
        room[0] = 10**6
        replay(addon, tflow.tflow(resp=True))
    logs, count = taken(path)
    assert (count, logs.unreadable) == (0, 0)
    fold = Fold(path.read_bytes())
    assert fold.wrong == [3]  # the half record, which nobody needs
    (session,) = logs.sessions.values()
    assert session.tally.to_data() == fold.tallies[session.id].to_data()
    assert (session.tally.flows, session.tally.dropped) == (5, 3)


@pytest.mark.parametrize("lie", ["", "0", "1", "-1", "+1", "10**15", "absent", "text", "tally"])
def test_final_statistics_that_lie(tmp_path: Path, lie: str) -> None:
    path = tmp_path / "log"
    *lines, line = session_log(path).splitlines(keepends=True)
    final = json.loads(line)
    size = final["log_bytes"]
    assert size == sum(map(len, lines))
    lies = {"0": 0, "1": 1, "-1": size - 1, "+1": size + 1, "10**15": 10**15, "text": str(size)}
    if lie == "absent":
        del final["log_bytes"]
    elif lie == "tally":
        final["flows"] = -1
    else:
        final["log_bytes"] = lies.get(lie, size)
    # A line of the session's own before it, which it does not count.
    text = lines[0] * 2 + b"".join(lines) + encode(final)
    path.write_bytes(text)
    logs, count = taken(path)
    assert (count < len(text)) is (lie in ("", "+1"))
    assert_same(logs, Fold(text))


def test_a_record_that_only_looks_like_final_statistics(tmp_path: Path) -> None:
    path = tmp_path / "log"
    text = encoded(START, event(1))
    gap = {**FINAL, "type": "gap", "dropped": 2, "log_bytes": len(text), **Tally().to_data()}
    text += encode(gap | {"dropped": 2})
    path.write_bytes(text)
    assert_same(read_file(path), Fold(text))


@pytest.mark.parametrize("size", [0, 1])
def test_nearly_empty_files(tmp_path: Path, size: int) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\n" * size)
    with bounds(False, **parted(1)):
        assert_same(read_file(path), Fold(b""))


def test_a_last_line_longer_than_what_is_read_at_once(tmp_path: Path) -> None:
    tally = Tally()
    for number in range(3000):
        tally.add(event(number) | {"host": f"{number}.{'x' * 200}"})
    written = Journal(tmp_path / "log", START)
    written.close(FINAL | tally.to_data())
    text = written.path.read_bytes()
    assert len(text) > 300_000
    logs, count = taken(written.path)
    assert count == 0
    assert_same(logs, Fold(text))
