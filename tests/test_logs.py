"""Session logs, read: whatever the order, the outcome is the last checkpoint and the fold of the
records after it."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from flowtally import logs as module
from flowtally import session as session_module
from flowtally import source as source_module
from flowtally import tally as tally_module
from flowtally.checkpoint import Checkpoint
from flowtally.encoding import encode
from flowtally.logs import MAX_PROBLEMS
from flowtally.logs import Logs
from flowtally.logs import read
from flowtally.report import data as report_data
from flowtally.report import digest
from flowtally.report import html
from flowtally.report import markdown
from flowtally.report import text
from flowtally.session import Session
from flowtally.source import Source
from flowtally.tally import TABLES
from flowtally.tally import Tally
from flowtally.valid import check
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from lab.cli import Record
from lab.cli import answered
from lab.cli import cancelled
from lab.cli import event
from lab.cli import failed
from lab.cli import final
from lab.cli import lines
from lab.cli import numbered
from lab.cli import start
from lab.cli import tally
from lab.sessions import everything
from lab.tallies import plain

TIME = "2026-01-02T03:04:05.678Z"


def read_text(*texts: bytes) -> Logs:
    return read([(f"log {number}", io.BytesIO(text)) for number, text in enumerate(texts)])


def read_file(*paths: Path) -> Logs:
    return read([(path.name, path) for path in paths])


# --- what a log is to say ---


class Oracle:
    """Logs, read in the plainest way: all records by their number."""

    def __init__(self, *texts: bytes) -> None:
        self.records: dict[str, dict[int, dict[str, Any]]] = {}
        self.wrong = 0
        for log in texts:
            for line in log.split(b"\n"):
                try:
                    record = json.loads(line)
                except ValueError:
                    self.wrong += bool(line.strip())
                    continue
                if check(record):
                    self.wrong += 1
                else:
                    self.records.setdefault(record["session"], {})[record["seq"]] = record

    def tally(self, session: str) -> tuple[Tally, int]:
        """The statistics of a session, and how many of its records are missing."""
        records = self.records[session]
        base, tally = 0, Tally()
        for checkpoint in self.checkpoints(session):
            if checkpoint.upto >= base:
                checkpoint.build()
                assert checkpoint.tally is not None
                base, tally = checkpoint.upto, checkpoint.tally
        missing = told = 0
        for seq in range(base + 1, max(records) + 1):
            record = records.get(seq)
            if record is None:
                missing += 1
            else:
                tally.add(record)
                told += record.get("dropped", 0) if record["type"] == "gap" else 0
        return tally, max(0, missing - told)

    def checkpoints(self, session: str) -> Iterator[Checkpoint]:
        """Those that are whole, in their order."""
        found: dict[int, Checkpoint] = {}
        source = Source("", io.BytesIO())
        for record in self.records[session].values():
            if record["type"] == "stats":
                number = record["checkpoint"]
                new = Checkpoint(number, record["upto"], source, 0)
                found.setdefault(number, new).add(record)
        return (checkpoint for _, checkpoint in sorted(found.items()) if checkpoint.whole)


def assert_same(logs: Logs, oracle: Oracle) -> None:
    assert logs.unreadable == oracle.wrong
    assert logs.sessions.keys() == oracle.records.keys()
    for name, session in logs.sessions.items():
        tally, missing = oracle.tally(name)
        assert plain(session.tally) == plain(tally)
        assert session.missing == missing


# --- logs as the addon writes them ---


@contextmanager
def small(table: int = 3, growth: int = 2000, line: int = 1500) -> Iterator[None]:
    """Full tables, frequent checkpoints, each in several records."""
    with pytest.MonkeyPatch.context() as patch:
        tables = tuple(declared._replace(limit=table) for declared in TABLES)
        patch.setattr(tally_module, "TABLES", tables)
        patch.setattr(session_module, "LEAST_GROWTH", growth)
        patch.setattr(session_module, "SHARE", 1000)
        patch.setattr(session_module, "ROWS_OF_A_LINE", line)
        patch.setattr(session_module, "FOLD_AT_ONCE", 3)
        patch.setattr(session_module, "SLICE", 0.0)
        yield


def any_record(chance: random.Random, number: int) -> dict[str, Any]:
    """A record of many kinds; hosts and endpoints are more than the tables hold."""
    host = f"h{chance.randrange(9)}.example"
    fields = {"host": host, "url": f"http://{host}/{'abcdefg'[chance.randrange(7)]}"}
    second = number + chance.random()
    if chance.random() < 0.7:
        status = chance.choice([200, 200, 204, 302, 404, 500, 799])
        record = answered(status, second, flow=f"f{number}", **fields)
    elif chance.random() < 0.7:
        cause = chance.choice(["dns_error", "connection_refused", "http_response_timeout"])
        record = failed(cause, second, flow=f"f{number}", **fields)
    else:
        record = event("client_tls_rejected", second, host=host)
    return {**record, "seq": 0}


def write_session(path: Path, seed: int, records: int, ends: bool) -> Session:
    """What a session of the addon appends to a log."""
    session = Session(str(path), ["regular"], {})
    chance = random.Random(seed)
    for number in range(records):
        session.add({**any_record(chance, number), "session": session.id})
        for _ in range(chance.randrange(40)):
            session.step()  # a row of a checkpoint, if one is being written
    if ends:
        session.close()
    else:
        kill(session)
    return session


def kill(session: Session) -> None:
    """End a session as a killed process does: the checkpoint that it was writing stays torn."""
    session._checkpoint = None
    session._journal._shut()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@given(
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(0, 80), st.booleans()), min_size=1, max_size=3),
    st.data(),
)
@settings(max_examples=50)
def test_the_order_of_lines_and_files_makes_no_difference(
    folder: Path, seed: int, sizes: list[tuple[int, bool]], data: st.DataObject
) -> None:
    """Nor does it if lines, or whole files, come twice."""
    path = folder / "log"
    path.unlink(missing_ok=True)
    with small():
        sessions = [write_session(path, seed + number, *size) for number, size in enumerate(sizes)]
        expected = {session.id: plain(session.tally) for session in sessions}
        whole = read_file(path)
        assert {id: plain(session.tally) for id, session in whole.sessions.items()} == expected
        text = path.read_bytes().splitlines(keepends=True)
        chance = data.draw(st.randoms(use_true_random=False))
        chance.shuffle(text)
        text += chance.sample(text, chance.randrange(len(text)))
        cuts = sorted(chance.randrange(len(text) + 1) for _ in range(2))
        parts = [b"".join(p) for p in (text[: cuts[0]], text[cuts[0] : cuts[1]], text[cuts[1] :])]
        found = read_text(*parts)
        assert {id: plain(session.tally) for id, session in found.sessions.items()} == expected
        assert (found.missing, found.unreadable) == (0, 0)
        assert list(found.sessions) == list(whole.sessions)
        assert plain(found.merged()) == plain(whole.merged())


@given(st.integers(0, 10**6), st.integers(0, 80), st.booleans(), st.data())
@settings(max_examples=100)
def test_what_is_missing_is_said(
    folder: Path, seed: int, records: int, ends: bool, data: st.DataObject
) -> None:
    """Lines that are gone, cut or no JSON any more, in any order."""
    path = folder / "log"
    path.unlink(missing_ok=True)
    with small():
        write_session(path, seed, records, ends)
        text = path.read_bytes().splitlines(keepends=True)
        chance = data.draw(st.randoms(use_true_random=False))
        if data.draw(st.booleans()):
            chance.shuffle(text)
        for _ in range(chance.randrange(4)):
            at = chance.randrange(len(text))
            line = text[at]
            change = [b"", line[: len(line) // 2] + b"\n", b"\n", line.replace(b":", b"::")]
            text[at] = chance.choice(change)
        left = b"".join(text)
        path.write_bytes(left)
        oracle = Oracle(left)
        assert_same(read_text(left), oracle)
        assert_same(read_file(path), oracle)


def test_rotated_files_newest_first(tmp_path: Path) -> None:
    with small(growth=4000):
        session = write_session(tmp_path / "log", 1, 300, ends=False)
        text = session.path.read_bytes().splitlines(keepends=True)
        files = []
        for number in range(4):
            files.append(tmp_path / f"log.{number}")
            part = text[number * len(text) // 4 : (number + 1) * len(text) // 4]
            files[-1].write_bytes(b"".join(part))
        for order in (files, files[::-1], files + files):
            found = read_file(*order)
            assert plain(found.merged()) == plain(session.tally)
            assert found.missing == 0
        # Without the last file, what is there counts; without the first, its checkpoints do.
        assert read_file(*files[:3]).merged().flows < session.tally.flows
        later = read_file(*files[1:])
        assert (plain(later.merged()), later.missing) == (plain(session.tally), 0)


def test_a_log_and_its_copy_without_the_end(tmp_path: Path) -> None:
    with small():
        session = write_session(tmp_path / "log", 2, 100, ends=True)
        text = session.path.read_bytes()
        copy = tmp_path / "copy"
        copy.write_bytes(text[: len(text) // 2])
        for paths in ((session.path, copy), (copy, session.path)):
            found = read_file(*paths)
            assert plain(found.merged()) == plain(session.tally)
            assert found.unreadable == 1  # the line where the copy ends


def test_two_sessions_write_into_one_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with small():
        sessions = [Session(str(path), [], {}) for _ in range(2)]
        chance = random.Random(3)
        for number in range(120):
            session = sessions[chance.randrange(2)]
            session.add({**any_record(chance, number), "session": session.id})
            for _ in range(chance.randrange(40)):
                session.step()
        sessions[0].close()
        kill(sessions[1])
        found = read_file(path)
        assert found.sessions[sessions[0].id].final
        assert not found.sessions[sessions[1].id].final
        for session in sessions:
            assert plain(found.sessions[session.id].tally) == plain(session.tally)
        assert (found.missing, found.unreadable) == (0, 0)


def test_merged_sessions_do_not_depend_on_the_order_of_files(tmp_path: Path) -> None:
    with small():
        paths = [tmp_path / name for name in "ab"]
        for number, path in enumerate(paths):
            write_session(path, number, 60, ends=True)
        merged = [plain(read_file(*order).merged()) for order in (paths, paths[::-1])]
    assert merged[0] == merged[1]
    assert merged[0][-1]  # some rows are larger than they say


# --- what need not be looked at ---


def planned(path: Path) -> tuple[Source, int]:
    """A log with a plan, and how many bytes of it are to be looked at."""
    with Source("log", path) as source:
        list(source.plan())
    return source, sum(end - begin for begin, end in source.ranges)


@pytest.mark.parametrize("ends", [True, False])
def test_what_a_checkpoint_vouches_for_is_not_looked_at(tmp_path: Path, ends: bool) -> None:
    path = tmp_path / "log"
    with small(table=1000, growth=20_000):
        session = write_session(path, 1, 500, ends=ends)
        source, size = planned(path)
        assert size < path.stat().st_size / 2
        text = path.read_bytes()
        # A record that is damaged there goes unnoticed; one after it does not.
        at = text.index(b'"type":"flow"')
        path.write_bytes(text[:at] + b'"type":"flaw"' + text[at + 13 :])
        found = read_file(path)
        assert (found.unreadable, plain(found.merged())) == (0, plain(session.tally))
        at = text.rindex(b'"type":')
        path.write_bytes(text[:at] + b'"tipe":' + text[at + 7 :])
        found = read_file(path)
        assert found.unreadable == 1
        assert found.problems[0].line == text.count(b"\n")
        assert all(source.size >= end > begin for begin, end in source.ranges)


def test_each_of_several_sessions_is_vouched_for(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with small(table=1000, growth=10_000):
        sessions = [write_session(path, n, 200, ends=n != 1) for n in range(3)]
        source, size = planned(path)
        assert len(source.ranges) >= 5  # a beginning and an end of each, some of them side by side
        assert size < path.stat().st_size * 0.7
        found = read_file(path)
        assert [plain(session.tally) for session in found.sessions.values()] == [
            plain(session.tally) for session in sorted(sessions, key=lambda s: (s.begun, s.id))
        ]


@pytest.mark.parametrize(
    "change",
    ["foreign line", "other start", "no part", "wrong rows", "too far", "no start", "other number"],
)
def test_a_checkpoint_that_cannot_vouch(tmp_path: Path, change: str) -> None:
    """Everything is looked at, and the outcome is the same."""
    path = tmp_path / "log"
    with small(table=1000, growth=10_000, line=2000):
        session = write_session(path, 4, 200, ends=True)
        expected = plain(session.tally)
        text = path.read_bytes().splitlines(keepends=True)
        if change == "foreign line":
            text.insert(5, b"\n")
        elif change == "other start":
            text[0] = text[0].replace(session.id.encode(), b"00000000")
        elif change == "no part":
            parts = [n for n, line in enumerate(text) if line.startswith(b'{"type":"stats"')]
            del text[parts[-2]]
        elif change == "wrong rows":
            text[-1] = text[-1].replace(b'"flows":', b'"flows":-', 1)
        elif change == "too far":
            text[-1] = text[-1].replace(b'"log_bytes":', b'"log_bytes":9', 1)
        elif change == "no start":
            text[0] = text[0].replace(b'"session_start"', b'"session_stort"')
        elif change == "other number":
            text[-1] = text[-1].replace(b'"checkpoint":', b'"checkpoint":9', 1)
        path.write_bytes(b"".join(text))
        source, _ = planned(path)
        assert source.ranges == [(0, source.size)]
        found = read_file(path)
        assert plain(found.sessions[session.id].tally) == expected


def test_the_last_line_of_a_checkpoint_across_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    with small(table=1000, growth=5000):
        write_session(path, 5, 100, ends=True)
    with Source("log", path) as source:
        expected = source._last_stats(source.size)
        assert path.read_bytes()[expected:].startswith(b'{"type":"stats"')
        for block in (1, 2, 15, 16, 17, 100, 5000):
            monkeypatch.setattr(source_module, "BLOCK", block)
            assert source._last_stats(source.size) == expected
    path.write_bytes(path.read_bytes()[expected:])
    with Source("log", path) as source:
        assert source._last_stats(source.size) == 0
        assert source._last_stats(0) is None


def test_the_lines_near_a_text_wherever_blocks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, long = lines(final(answered(200))), b"y" * 5000 + b"\n"
    text = lines(start(), answered(200)) + wanted + lines(answered(404)) * 9 + long + wanted
    source = Source("log", io.BytesIO(text + b'torn {"type":"stats"'))
    for size in range(len(wanted), len(wanted) + 2000, 7):
        monkeypatch.setattr(source_module, "MAX_LINE", size)
        near = [found for found in source.lines_near(b'"stats"') if b'"stats"' in found[1]]
        assert near == [found for found in source.lines() if b'"stats"' in found[1]]
        assert len(near) == 3


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b" \t\n"])
def test_lines_without_anything_are_passed_over_at_once(
    monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    monkeypatch.setattr("flowtally.source.BLOCK", 7)
    blank = end * 20
    log = blank + blank.join([*lines(start(), answered(404)).splitlines(True), b"  x\n", b" "])
    source = Source("log", io.BytesIO(log))
    with source:
        found = list(source.lines())
        assert [log[at : at + len(line)] for at, line in found] == [line for _, line in found]
        assert [line.strip()[:1] for _, line in found] == [b"{", b"{", b"x"]
    asked: list[int] = []
    monkeypatch.setattr("flowtally.source.BLOCK", 1000)
    monkeypatch.setattr(Source, "_blank", _noting(Source._blank, asked))
    assert list(Source("log", io.BytesIO(end * 100_000)).lines()) == []
    assert len(asked) == 1


def _noting(method: Any, asked: list[int]) -> Any:
    def noted(self: Source, begin: int, end: int) -> Any:
        asked.append(begin)
        return method(self, begin, end)

    return noted


# --- checkpoints ---


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_whatever_stands_in_statistics_a_report_is_made(data: st.DataObject) -> None:
    """Any field of any row may be anything: it is refused, or it can be reported."""
    rows = json.loads(_rows())
    for _ in range(data.draw(st.integers(1, 3))):
        row = data.draw(st.sampled_from(rows))
        place, key = data.draw(st.sampled_from([(row, "key"), *_places(row)]))
        place[key] = data.draw(ANYTHING)
    found = read_text(lines(start(), {**final(answered(200)), "rows": rows}))
    merged = found.merged()
    text.report(merged)
    text.summary(merged)
    html.page(merged, html.About())
    markdown.report(merged)
    digest.digest(merged)
    json.dumps(report_data.statistics(merged))
    report_data.csv_text(merged)
    Tally().merge(merged)


@lru_cache
def _rows() -> bytes:
    """The rows of a session in which everything happened."""
    counted = Tally()
    for record in everything(20):
        if record["type"] in ("flow", "event"):
            counted.add(record)
    return json.dumps(list(counted.to_rows())).encode()


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**53, 10**29, 10**40]),
    st.floats(),
    st.text(max_size=10),
    st.sampled_from(["404", "-1", "1e5", "²", TIME, "0001-01-01T00:00:00.000Z", "x" * 300]),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=6,
    ),
)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Where in plain data something stands: what holds it, and its key or index."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def test_wrong_statistics_are_named_and_the_records_count(tmp_path: Path) -> None:
    path = tmp_path / "log"
    wrong = final(answered(200))
    wrong["rows"][0]["flows"] = -1
    path.write_bytes(lines(start(), answered(404), answered(404, 1), wrong))
    found = read_file(path)
    (session,) = found.sessions.values()
    assert found.problems == [
        ("log", 4, "wrong statistics: 'flows' must be a whole number, not -1")
    ]
    assert (session.tally.flows, session.final, session.missing) == (2, False, 0)


def test_a_checkpoint_is_used_only_when_it_is_whole() -> None:
    part = final(answered(200), answered(200, 1))
    rows = part["rows"]
    first = {**part, "part": 1, "parts": 0, "rows": rows[:2]}
    second = {**part, "part": 2, "parts": 3, "rows": rows[2:4]}
    third = {**part, "part": 3, "parts": 0, "rows": rows[4:]}
    begun = [start(), answered(404)]
    for parts in ([first, second], [second, third], [first, third]):
        (session,) = read_text(lines(*begun, *parts)).sessions.values()
        assert (session.tally.flows, session.final) == (1, False)
    (session,) = read_text(lines(*begun, third, first, second)).sessions.values()
    assert (session.tally.flows, session.final) == (2, True)


def test_a_checkpoint_that_does_not_say_how_many_parts_it_has_is_not_used() -> None:
    part = {**final(answered(200), answered(200, 1)), "log_bytes": 0, "checkpoint_bytes": 0}
    del part["parts"]
    text = lines(start(), answered(404), part)
    (session,) = read_text(text).sessions.values()
    assert (session.tally.flows, session.final) == (1, False)


def test_a_part_before_the_first_makes_nothing_whole() -> None:
    part = final(answered(200))
    parts = [{**part, "part": number, "parts": 2} for number in (0, 2)]
    (session,) = read_text(lines(start(), answered(404), *parts)).sessions.values()
    assert (session.tally.flows, session.final) == (1, False)


def test_a_log_that_is_made_anew_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    """The checkpoint cannot vouch for what stands in the new file before it."""
    with small(table=1000, growth=5000, line=60_000):
        session = write_session(tmp_path / "log", 7, 60, ends=False)
        session = Session(str(tmp_path / "new"), [], {})
        chance = random.Random(8)
        for number in range(100):
            session.add({**any_record(chance, number), "session": session.id})
        while not session._checkpoint:
            session.step()
        session.path.unlink()
        session._journal._next_check = 0
        for number in range(100, 150):
            session.add({**any_record(chance, number), "session": session.id})
        while session.step():
            pass
        assert b'"type":"stats"' in session.path.read_bytes()
        kill(session)
        found = read_file(session.path)
        assert found.merged().totals().attempts == 150
        assert plain(found.merged())[0] == plain(session.tally)[0]


def test_checkpoints_without_end_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 2000)
    parts = [
        {**final(), "checkpoint": number, "part": 1, "parts": 2, "final": False}
        for number in range(50)
    ]
    (session,) = read_text(lines(start(), *parts)).sessions.values()
    assert session.tally.flows == 0
    assert session.missing == 0


# --- lines that are no records ---


def test_unreadable_lines_are_named_and_skipped() -> None:
    text = (
        lines(start(), answered(200))
        + b"Dear diary,\n\n[]\n"
        + b'{"type":"flow"}\n'
        + lines(answered(404, seq=3), {**answered(404), "seq": 4, "status": "x"})
        + b'{"type":"flow","sess'
    )
    found = read_text(text)
    assert [tuple(problem) for problem in found.problems] == [
        ("log 0", 3, "not JSON"),
        ("log 0", 5, "not a record"),
        ("log 0", 6, "a record without a session"),
        ("log 0", 8, "status is 'x', not a number"),
        ("log 0", 9, "torn line"),
    ]
    assert found.unreadable == 5
    assert found.merged().flows == 2


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (answered(stream=True), ""),
        (answered(stream=False), "stream is False, not true"),
        (answered(stream=[]), "stream is [], not true"),
        (answered(answers="a flow", challenge=407), ""),
        (answered(answers="a flow"), ""),
        (answered(answers=["a flow"]), "answers is ['a flow'], not text"),
        (answered(answers="x", challenge=404), "challenge is 404, not 401 or 407"),
        (answered(answers="x", challenge="401"), "challenge is '401', not 401 or 407"),
        (answered(answers="x", challenge=401.0), "challenge is 401.0, not 401 or 407"),
        (answered(reason=5), "reason is 5, not text"),
        (answered(background=True), "background is True, not text"),
        (event(background="Windows"), ""),
        (event(background=[]), "background is [], not text"),
        (event(reason={}), "reason is {}, not text"),
        (cancelled(), ""),
        (cancelled(status=200), ""),
        (cancelled(status=[200]), "status is [200], not a number"),
        (failed(status={}), "status is {}, not a number"),
        (cancelled(error_code=-2), "a cancelled flow with an error code, or without a cause"),
        (cancelled(cause=""), "a cancelled flow with an error code, or without a cause"),
        (answered(cause="cors_blocked"), "a cause without an error code"),
        (answered(cause="cors_blocked", error_code=-1), ""),
        (failed(outcome="ok"), ""),
        ({**start(), "background": [], "stream": []}, ""),
    ],
)
def test_what_is_no_record(record: Record, says: str) -> None:
    """Whatever passes can be counted."""
    (checked,) = numbered(record)
    assert check(checked) == says
    if not says:
        tally(checked)


def test_everything_is_read_from_wherever_the_last_checkpoint_stands() -> None:
    records = everything(40)
    whole = plain(tally(*records))
    for cut in range(1, len(records) + 1, 7):
        text = lines(*records[:cut], final(*records[:cut]) | {"final": False}, *records[cut:])
        assert plain(read_text(text).merged()) == whole
        # What answers a challenge may come before or after the checkpoint, or in another file.
        halves = (lines(*numbered(*records)[:cut]), lines(*numbered(*records)[cut:]))
        assert (
            plain(read_text(*halves).merged()) == plain(read_text(*halves[::-1]).merged()) == whole
        )


def test_only_the_first_are_named() -> None:
    found = read_text(b"nothing\n" * 100)
    assert (len(found.problems), found.unreadable) == (MAX_PROBLEMS, 100)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"schema": 1, "seq": 1}, "written in schema 1 of the session log; this flowtally reads 2"),
        ({"schema": 1}, "written in schema 1 of the session log; this flowtally reads 2"),
        ({"schema": 3, "seq": 1}, "written in schema 3 of the session log; this flowtally reads 2"),
        ({"schema": "x", "seq": 1}, "written in schema 'x' of the session log; this"),
    ],
)
def test_another_schema_gets_one_sentence(record: dict[str, Any], says: str) -> None:
    begun = {**start(), **record}
    old = [{**answered(200, n), "session": "00000001"} for n in range(50)]
    text = lines(begun) if "seq" in record else encode(begun) + b"".join(map(encode, old))
    found = read_text(text, lines(start("00000002")))
    assert len(found.problems) == 1
    assert found.problems[0].line == 1
    assert says in found.problems[0].reason
    assert found.unreadable == (1 if "seq" in record else 51)
    assert list(found.sessions) == ["00000002"]


def test_a_byte_order_mark_is_no_torn_line() -> None:
    found = read_text(b"\xef\xbb\xbf" + lines(start(), answered(200)))
    assert (found.unreadable, found.missing) == (0, 0)
    assert found.sessions["00000001"].start is not None
    shuffled = read_text(b"\xef\xbb\xbf" + lines(answered(200, seq=2), start()))
    assert (shuffled.unreadable, shuffled.merged().flows) == (0, 1)


@pytest.mark.parametrize("size", [0, 1, 100])
def test_a_line_without_end_is_passed_over(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(source_module, "MAX_LINE", 2000)
    text = lines(start()) + b"x" * (2000 + size) + b"\n" + lines(answered(200, seq=2))
    found = read_text(text)
    assert [(p.line, p.reason) for p in found.problems] == [(2, "longer than 2000 bytes")]
    assert found.merged().flows == 1


@pytest.mark.parametrize("more", [b"", b" " * 2000, b" " * 5000])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_record_behind_a_long_blank_is_in_a_line_that_is_too_long(
    monkeypatch: pytest.MonkeyPatch, more: bytes, end: bytes
) -> None:
    monkeypatch.setattr(source_module, "MAX_LINE", 2000)
    hidden = b" " * 2000 + more + lines(answered(404, seq=2))
    for before in (lines(start()), lines(start()) + b"\n"):
        number = before.count(b"\n") + 1
        found = read_text(before + hidden.rstrip(b"\n") + end)
        assert [p[1:] for p in found.problems] == [(number, "longer than 2000 bytes")]
        found = read_text(before + hidden + lines(answered(200, seq=3)))
        assert [p[1:] for p in found.problems] == [(number, "longer than 2000 bytes")]
        assert (found.merged().flows, found.missing) == (1, 1)


def test_a_record_behind_a_blank_that_fits_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "MAX_LINE", 2000)
    record = lines(answered(404, seq=2))
    for long in (b"", b" " * 5000 + b"\n", b" " * 2000 + b"\n"):
        found = read_text(lines(start()) + long + b" " * (2000 - len(record)) + record)
        assert (found.unreadable, found.merged().flows) == (0, 1)


@pytest.mark.parametrize(
    ("time", "is_one"),
    [
        (TIME, True),
        ("2024-02-29T23:59:59.999Z", True),
        ("2026-02-29T00:00:00.000Z", False),
        ("2026-01-02T20:00:00.000Z", True),
        ("2026-01-02T14:00:00.000Z", True),
        ("2026-01-02T24:00:00.000Z", False),
        ("2026-W48-3T10:00:00.000Z", False),
        ("2026W483-T10:00:00.0000Z", False),
        ("2026-01-02T10:00:00,000Z", False),
        ("2026-01-02T100000.00000Z", False),
        ("2026-01-02 10:00:00.000Z", False),
        ("2026-01-02t10:00:00.000z", False),
        ("2026-01-02T10:00Z\x000.000Z", False),
        ("2026-01-02T10:00+00.000Z", False),
        ("2026-01-02T10:00:00.00éZ", False),
        ("2026-01-0٢T10:00:00.000Z", False),
        ("2026-01-02T10:00:00.0000", False),
        ("2026-01-02T10:00:00Z", False),
        (20260102, False),
    ],
)
def test_a_time_is_one_of_rfc_3339(time: Any, is_one: bool) -> None:
    said = check({**numbered(answered(200))[0], "time": time})
    assert said == (
        "" if is_one else f"time is {time!r:.40}, not RFC 3339 in UTC with milliseconds"
    )


def test_too_many_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SESSIONS", 2)
    found = read_text(lines(*(start(f"{number:08x}") for number in range(4))))
    assert len(found.sessions) == 2
    assert found.unreadable == 2
    assert found.problems[0].reason == "of another session than the first 2"


@pytest.mark.parametrize("text", [b"", b"\n", b"\n\n  \n"])
def test_nearly_empty_files(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(text)
    found = read_file(path)
    assert (found.sessions, found.unreadable) == ({}, 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=5,
)
FIELDS = ["type", "session", "seq", "time", "outcome", "kind", "status", "band", "description"]
FIELDS += ["error_code", "cause", "host", "wait_ms", "duration_ms", "response_bytes", "dropped"]
FIELDS += ["url", "method", "port", "close_code", "checkpoint", "part", "parts", "upto", "rows"]
FIELDS += ["media_type", "client", "client_port", "first", "last", "log_bytes", "schema"]


@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON)), st.data())
def test_any_records_are_counted_or_named(
    records: list[dict[str, Any]], data: st.DataObject
) -> None:
    for record in records:
        usual = {**answered(200), **final(answered(200)), "seq": data.draw(st.integers(1, 9))}
        for name, value in usual.items():
            if data.draw(st.booleans()):
                record[name] = value
        if data.draw(st.booleans()):
            record["type"] = data.draw(st.sampled_from(["flow", "event", "gap", "stats"]))
    found = read_text(b"".join(map(encode, records)))
    for session in found.sessions.values():
        json.dumps(list(session.tally.to_rows()))


# --- where logs come from ---


READ = """
import sys
from pathlib import Path
from flowtally.logs import read
if len(sys.argv) > 1:
    found = read([("a log", Path(sys.argv[1]))])
else:
    found = read([("standard input", sys.stdin.buffer)])
print({id: session.tally.flows for id, session in found.sessions.items()})
"""


@pytest.mark.parametrize("folder_name", ["plain", "a path with a space"])
def test_pipes_and_open_files(tmp_path: Path, folder_name: str) -> None:
    """A stream is read once and looked at twice."""
    folder = tmp_path / folder_name
    folder.mkdir()
    log, script = folder / "log", folder / "script.py"
    # In an order that needs another look.
    log.write_bytes(lines(start(), *(answered(200, n, seq=9 - n) for n in range(5))))
    script.write_text(READ, "utf-8")
    command = [sys.executable, str(script)]
    for stdin in (log.open("rb"), subprocess.PIPE):
        text = log.read_bytes() if stdin == subprocess.PIPE else None
        done = subprocess.run(
            command,
            stdin=None if text is not None else stdin,
            input=text,
            capture_output=True,
            check=False,
        )
        assert (done.stdout, done.stderr) == (b"{'00000001': 5}\n", b"")
    if Path("/dev/fd/0").exists():
        with log.open("rb") as file:
            done = subprocess.run(
                [*command, "/dev/fd/0"], stdin=file, capture_output=True, check=False
            )
        assert (done.stdout, done.stderr) == (b"{'00000001': 5}\n", b"")


def test_a_named_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = lines(start(), answered(200, seq=3), answered(404, seq=2))
    thread = threading.Thread(target=pipe.write_bytes, args=(text,))
    thread.start()
    assert read_file(pipe).merged().flows == 2
    thread.join()


def test_more_logs_than_files_that_may_be_open(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    paths = []
    for number in range(200):
        paths.append(tmp_path / f"{number}.jsonl")
        paths[-1].write_bytes(lines(start(f"{number:08x}"), answered(200, session=f"{number:08x}")))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
    try:
        assert read_file(*paths).merged().flows == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        read([("here", tmp_path / "nothing")])
    assert caught.value.filename == "here"


def test_progress_is_told(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(lines(start(), answered(200)))
    told: list[int] = []
    read([("log", path), ("again", path)], told.append)
    assert sum(told) == 2 * path.stat().st_size
