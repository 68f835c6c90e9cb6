"""The statistics of thousands of sessions: packed or not, they are the same."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from flowtally import logs
from flowtally import shelf as module
from flowtally.report.data import statistics
from flowtally.shelf import Shelf
from flowtally.source import uncollected
from flowtally.tally import Tally
from lab.cli import Record
from lab.cli import answered
from lab.cli import failed
from lab.cli import final
from lab.cli import lines
from lab.cli import run
from lab.cli import start
from lab.cli import tally
from lab.sessions import everything


def said(found: Tally) -> Any:
    return json.loads(json.dumps(statistics(found)))


def test_what_is_packed_comes_back_as_it_was() -> None:
    kept = Shelf().put(tally(*everything()))
    before = said(kept.tally)
    kept.pack()
    assert kept.rows == 0
    assert said(kept.look()) == before
    assert kept.rows == 0
    assert said(kept.tally) == before
    assert kept.rows > 0


def test_what_grows_after_it_was_packed_has_both() -> None:
    kept = Shelf().put(tally(answered()))
    kept.pack()
    kept.tally.add(failed())
    kept.pack()
    assert said(kept.look()) == said(tally(answered(), failed()))


def test_only_so_many_rows_are_unpacked() -> None:
    shelf = Shelf(most=1000)
    kept = [shelf.put(tally(answered(host=f"{number}.example"))) for number in range(500)]
    assert sum(each.rows for each in kept) <= 1000 + module.LEAST * 40
    assert kept[0].rows == 0
    assert [each.tally.flows for each in kept] == [1] * 500
    assert sum(each.rows for each in kept) <= 1000 + module.LEAST * 40


def test_what_has_grown_is_noticed() -> None:
    shelf = Shelf(most=200)
    first, last = shelf.put(Tally()), shelf.put(Tally())
    for number in range(200):
        first.tally.add(answered(host=f"{number}.example"))
    assert first.rows > 200
    shelf.tidy()
    assert first.rows == 0
    assert last.rows == module.LEAST


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "killed"])
def test_many_sessions_are_read_as_one_by_one(
    ended: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def session(number: int) -> list[Record]:
        id, host = f"{number:08x}", f"{number % 7}.example"
        records = [start(id), answered(host=host, session=id), failed(host=host, session=id)]
        return [*records, final(*records)] if ended else records

    text = b"".join(lines(*session(number)) for number in range(60))
    log = tmp_path / "log.jsonl"
    log.write_bytes(text)
    whole = said(logs.read([("log", log)]).merged())
    monkeypatch.setattr(module, "MOST_ROWS", 100)
    monkeypatch.setattr(logs, "TIDY_EVERY", 3)
    monkeypatch.setattr(Shelf.__init__, "__defaults__", (100,))
    found = logs.read([("log", log)])
    assert len(found.sessions) == 60
    assert sum(each.kept.rows == 0 for each in found.sessions.values()) > 50
    assert said(found.merged()) == whole
    assert json.loads(run("report", log, "--json").stdout)["statistics"] == whole


def test_the_end_of_a_log_unpacks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its statistics hold all; to unpack them once more takes as long as to read them."""
    monkeypatch.setattr(Shelf.__init__, "__defaults__", (100,))
    unpack = mock.Mock(side_effect=module._unpacked)
    monkeypatch.setattr(module, "_unpacked", unpack)
    paths = []
    for number in range(30):
        records = [start(f"{number:08x}"), answered(session=f"{number:08x}")]
        paths.append(tmp_path / f"{number}.jsonl")
        paths[-1].write_bytes(lines(*records, final(*records)))
    found = logs.read([(path.name, path) for path in paths])
    assert unpack.call_count == 0
    assert found.merged().flows == 30
    assert unpack.call_count >= 25


def test_statistics_that_are_let_go_of_are_gone_at_once() -> None:
    """Many are made while logs are read, without garbage collection (`source.uncollected`)."""
    counted = tally(*everything())
    tables = [weakref.ref(rows) for rows in counted.tables.values()]
    with uncollected():
        del counted
        assert [table() for table in tables if table() is not None] == []
