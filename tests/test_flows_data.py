"""The single flows that a page holds: which of them, and that nothing of them is changed."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from flowtally.filters import is_problem
from flowtally.latest import Latest
from flowtally.report.flows_data import MOST_COLUMNS
from flowtally.report.flows_data import Flows
from flowtally.report.flows_data import Table
from flowtally.report.flows_data import flows
from flowtally.tally import incident_of
from lab.cli import HOSTILE
from lab.cli import Record
from lab.cli import answer
from lab.cli import answered
from lab.cli import failed
from lab.cli import lines
from lab.cli import numbered
from lab.cli import start
from lab.sessions import everything


def unpacked(data: str) -> list[dict[str, Any]]:
    """What the script makes of it."""
    found = json.loads(zlib.decompress(b64decode(data)))

    def values(column: dict[str, Any]) -> list[Any]:
        if "steps" in column:
            return [sum(column["steps"][: end + 1]) for end in range(len(column["steps"]))]
        if "numbers" in column:
            return list(column["numbers"])
        return [None if at < 0 else column["words"][at] for at in column["at"]]

    named = {**found["columns"], **found["derived"]}
    columns = {name: values(column) for name, column in named.items()}
    assert {len(column) for column in columns.values()} == {found["count"]}
    return [
        {name: column[row] for name, column in columns.items() if column[row] is not None}
        for row in range(found["count"])
    ]


def flows_of(tmp_path: Path, *records: Record, most: int = 1000, **limits: int) -> Flows:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(*records))
    with Latest([("log", log)], most) as latest:
        return flows(latest, **limits)


def test_a_record_is_as_the_log_has_it() -> None:
    records = [r for r in numbered(*everything()) if r["type"] in ("flow", "event")][::-1]
    for record, found in zip(records, unpacked(Table(records).packed()), strict=True):
        for name in ("incident", "place", "series", "timed"):
            found.pop(name, None)
        kept = {name: value for name, value in record.items() if name != "flow"}
        assert {**found, "time": None} == {**kept, "time": None}


def test_a_flow_knows_its_incident_unless_it_is_no_problem() -> None:
    records = numbered(failed(), answered(), answered(401, flow="asked"), answered(401, flow="no"))
    found = unpacked(Table(records, [("00000001", "asked")]).packed())
    assert [each.get("incident") for each in found] == [
        incident_of(records[0]),
        None,
        None,
        incident_of(records[3]),
    ]


def test_texts_are_fit_to_be_shown() -> None:
    (found,) = unpacked(Table(numbered(failed(url=f"http://h/{HOSTILE}", detail=HOSTILE))).packed())
    assert found["url"].isprintable()
    assert found["detail"].isprintable()


def test_the_latest_are_held_and_problems_wherever_they_are(tmp_path: Path) -> None:
    records = [answered(second=number) for number in range(50)]
    records[3] = failed(second=3)
    found = flows_of(tmp_path, start(), *records, most=10)
    assert (found.of, found.held, found.problems) == (50, 10, 1)
    seqs = [each["seq"] for each in unpacked(found.data)]
    assert seqs == [51, 50, 49, 48, 47, 46, 45, 44, 43, 5]
    assert found.note == "newest first; 10 of 50: the problems, and the latest of the others"


def test_problems_take_no_place_of_the_others() -> None:
    records = numbered(*(failed() if n in (1, 5) else answered() for n in range(8)))
    assert list(Table(records).chosen(5)) == [0, 1, 2, 3, 5]


def test_times_of_which_the_page_tells_percentiles_are_exact() -> None:
    times: dict[str, Any] = {"wait_ms": 0.123, "duration_ms": 1.234, "connect_ms": 2.345}
    (found,) = unpacked(Table(numbered(answered(**times))).packed())
    assert {name: found[name] for name in times} == {**times, "connect_ms": 2.3}


def test_of_too_many_problems_the_latest_are_held(tmp_path: Path) -> None:
    records = [failed(second=number) for number in range(30)]
    found = flows_of(tmp_path, start(), *records, answered(second=31), most=10)
    assert [each["seq"] for each in unpacked(found.data)] == list(range(31, 21, -1))
    assert found.note == "newest first; 10 of 31: the latest problems"


def test_a_record_in_several_logs_is_held_once(tmp_path: Path) -> None:
    logs = []
    for name in "ab":
        logs.append((name, tmp_path / name))
        logs[-1][1].write_bytes(lines(start(), answered(), failed()))
    with Latest(logs, 10) as latest:
        found = flows(latest)
    assert (found.of, found.held) == (2, 2)


def test_there_are_fewer_where_they_would_take_too_much(tmp_path: Path) -> None:
    records = [failed(second=n, url=f"http://h/{n * n * 7919:x}") for n in range(500)]
    whole = flows_of(tmp_path, start(), *records)
    found = flows_of(tmp_path, start(), *records, max_bytes=len(whole.data) // 3)
    assert len(found.data) <= len(whole.data) // 3
    assert 50 < found.held < 400
    assert unpacked(found.data) == unpacked(whole.data)[: found.held]


def test_fields_without_end_are_left_out(tmp_path: Path) -> None:
    odd = [answered(second=n, **{f"odd {n} {each}": each for each in range(9)}) for n in range(99)]
    found = unpacked(flows_of(tmp_path, start(), *odd).data)
    assert len({name for record in found for name in record}) < MOST_COLUMNS + 10
    assert all({"url", "status", "time"} <= record.keys() for record in found)


def test_the_challenge_that_was_answered_keeps_its_id(tmp_path: Path) -> None:
    found = flows_of(tmp_path, start(), answered(401, flow="asked"), answer(1))
    assert [each.get("flow") for each in unpacked(found.data)] == [None, "asked"]


@pytest.mark.parametrize("value", ["1", 1, 1.5, None, True, 2**60, 10**400, ["a", 1], {"a": 1}])
def test_a_field_may_hold_anything(value: Any) -> None:
    records = numbered(answered(odd=value), answered(odd="text"), answered(odd=2))
    expected = [value, "text", 2]
    assert [each.get("odd") for each in unpacked(Table(records).packed())] == expected
    assert not is_problem(records[0])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_what_is_no_number_in_json_leaves_the_page_readable(number: str) -> None:
    (record,) = numbered(answered())
    odd = [record | {"odd": json.loads(number)}, record | {"odd": [json.loads(number)]}]

    def refuse(word: str) -> None:
        raise AssertionError(word)

    json.loads(zlib.decompress(b64decode(Table(odd).packed())), parse_constant=refuse)
