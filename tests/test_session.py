"""A session: records into the log, statistics into checkpoints, without holding anybody up."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flowtally import session as module
from flowtally.encoding import encode
from flowtally.journal import MAX_LINE
from flowtally.logs import read
from flowtally.session import Session
from flowtally.vocabulary import KNOWN
from flowtally.vocabulary import OUTCOMES
from jsonschema import Draft202012Validator
from lab.cli import answer
from lab.cli import answered
from lab.cli import event
from lab.cli import failed
from lab.tallies import plain

SCHEMA = Draft202012Validator(json.loads((KNOWN / "record.schema.json").read_text("utf-8")))


def records(session: Session) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in session.path.read_bytes().splitlines()]
    for record in found:
        assert list(SCHEMA.iter_errors(record)) == []
    return found


def checkpoints(session: Session) -> list[list[dict[str, Any]]]:
    """The parts of each checkpoint."""
    found: dict[int, list[dict[str, Any]]] = {}
    for record in records(session):
        if record["type"] == "stats":
            found.setdefault(record["checkpoint"], []).append(record)
    return [parts for _, parts in sorted(found.items())]


def many(hosts: int, endpoints: int) -> Iterator[dict[str, Any]]:
    """Flows without end, to so many hosts and endpoints."""
    chance = random.Random(1)
    number = 0
    while True:
        host = f"host-{chance.randrange(hosts)}.example"
        path = f"page-{number % endpoints}-of-many".translate(
            str.maketrans("0123456789", "abcdefghij")
        )
        record = answered(
            chance.choice([200, 200, 200, 304, 404, 500]),
            number / 10,
            flow=f"{number:08x}-0000-0000-0000-000000000000",
            host=host,
            url=f"http://{host}/{path}",
            wait_ms=round(chance.lognormvariate(3, 1), 3),
            duration_ms=round(chance.lognormvariate(4, 1), 3),
        )
        yield {**record, "seq": 0}
        number += 1


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(str(tmp_path / "log.jsonl"), ["regular"], {"flowtally_log": "x"})


def add(session: Session, *found: dict[str, Any]) -> None:
    for record in found:
        session.add({**record, "session": session.id, "seq": 0})


def test_it_begins_with_what_it_was_started_with(session: Session) -> None:
    (start,) = records(session)
    assert (start["type"], start["seq"], start["schema"]) == ("session_start", 1, 2)
    assert (start["modes"], start["options"]) == (["regular"], {"flowtally_log": "x"})
    assert start["time"] == session.begun


def test_a_folder_gets_a_file_of_its_own(tmp_path: Path) -> None:
    session = Session(f"{tmp_path}/", [], {})
    assert session.path.parent == tmp_path
    assert session.path.name.startswith("flowtally-")
    assert session.id in session.path.name


def test_records_are_numbered_and_tallied(session: Session) -> None:
    add(session, answered(200), failed(), event())
    assert [record["seq"] for record in records(session)] == [1, 2, 3, 4]
    assert session.tally.totals()[:6] == (2, 1, 0, 0, 1, 0)
    session.close()
    ((final,),) = checkpoints(session)
    assert (final["final"], final["upto"], final["seq"], final["parts"]) == (True, 4, 5, 1)
    assert final["first"] == final["last"] == records(session)[1]["time"]
    found = read([("log", session.path)])
    assert plain(found.merged()) == plain(session.tally)


def test_a_session_without_records(session: Session) -> None:
    session.close()
    ((final,),) = checkpoints(session)
    assert final["rows"] == []
    assert "first" not in final
    assert read([("log", session.path)]).sessions[session.id].final


def test_no_line_is_too_long(tmp_path: Path) -> None:
    """Whatever the network or the user put into it."""
    filter_text = "~u " + "x" * 200_000
    options = {f"flowtally_{number}": filter_text for number in range(9)}
    session = Session(str(tmp_path / "log"), ["m" * 90_000] * 300, options)
    url = "http://shop.example/" + "\U0001f600" * 2028
    for number in range(30):
        detail = "\U0001f600" * 300
        hosts: dict[str, Any] = {
            "host": "h" * 255,
            "url": url,
            "detail": detail,
            "duration_ms": 1e14 + number,
        }
        add(session, failed(second=number, **hosts), answered(404, number, **hosts))
    session.close()
    assert max(map(len, session.path.read_bytes().splitlines(keepends=True))) <= MAX_LINE


def test_what_answers_a_login_that_is_not_in_the_log_takes_nothing_off(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for a reader who goes on from a checkpoint, which does not have logins one by one."""
    monkeypatch.setattr(module, "LEAST_GROWTH", 0)
    monkeypatch.setattr(module, "SHARE", 1e6)
    session.add({**answered(401, flow="another", session=session.id), "seq": 0})
    session.add({**answered(401, flow="asked", session=session.id), "seq": 0})
    while session.step():
        pass
    session.add({**answer(2, answers="left out", session=session.id), "seq": 0})
    session.add({**answer(3, session=session.id), "seq": 0})
    session.add({**answer(4, session=session.id), "seq": 0})  # only once
    assert len(checkpoints(session)) == 1
    assert [record.get("answers") for record in records(session)[-3:]] == [None, "asked", None]
    for tally in (session.tally, read([("log", session.path)]).merged()):
        assert (tally.totals().problems, tally.totals().challenges) == (1, 1)


def test_challenges_that_are_remembered_are_bounded(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_CHALLENGES", 2)
    for flow in "abc":
        session.add({**answered(401, flow=flow, session=session.id), "seq": 0})
    for flow in "abc":
        session.add({**answer(3, answers=flow, session=session.id), "seq": 0})
    assert [record.get("answers") for record in records(session)[-3:]] == [None, "b", "c"]


def test_a_record_that_cannot_be_counted_costs_no_other(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    flows = many(5, 5)
    add(session, next(flows), {"type": "flow"}, next(flows))
    assert session.tally.flows == 2
    assert caplog.text.count("flowtally: defect in tally: KeyError") == 1


# --- checkpoints while it runs ---


def run(session: Session, flows: Iterator[dict[str, Any]], count: int) -> None:
    """Flows as they come, and between them the work on checkpoints."""
    for _ in range(count):
        add(session, next(flows))
        session.step()


def test_checkpoints_stay_under_a_tenth_of_the_log(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST_GROWTH", 0)
    run(session, many(4, 12), 20_000)
    size = spent = 0
    at_ends = []
    for line in session.path.read_bytes().splitlines(keepends=True):
        size += len(line)
        if line.startswith(b'{"type":"stats"'):
            spent += len(line)
            at_ends.append(spent / size)
    assert len(at_ends) > 5
    assert 0.05 < max(at_ends) < 0.1
    found = read([("log", session.path)])
    assert found.sessions[session.id].checkpoint is not None
    assert plain(found.merged()) == plain(session.tally)


def test_a_small_log_needs_no_checkpoint(session: Session) -> None:
    run(session, many(5, 5), 500)
    assert session.path.stat().st_size < module.LEAST_GROWTH
    assert checkpoints(session) == []


def test_an_idle_session_writes_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_GROWTH", 0)
    monkeypatch.setattr(module, "SHARE", 1000)
    assert not session.step()
    run(session, many(5, 5), 10)
    while session.step():
        pass
    before = session.path.read_bytes()
    assert len(checkpoints(session)) > 0
    for _ in range(10):
        assert not session.step()
    assert session.path.read_bytes() == before


def test_the_work_is_done_bit_by_bit(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step stops when its time is over; what happens meanwhile is counted afterwards."""
    now = [0.0]

    def clock() -> float:
        now[0] += module.SLICE * 0.4
        return now[0]

    monkeypatch.setattr(module, "LEAST_GROWTH", 0)
    monkeypatch.setattr(module, "SHARE", 1000)
    monkeypatch.setattr("time.perf_counter", clock)
    flows = many(20, 20)
    add(session, *(next(flows) for _ in range(50)))
    before = plain(session.tally)
    steps = 0
    while session.step():
        steps += 1
        assert now[0] < 1000
        if steps < 4:
            add(session, next(flows))
            assert plain(session.tally) == before  # what the checkpoint holds
            version = session.version
    rows = sum(map(len, session.tally.tables.values()))
    assert steps > rows / 10  # two rows a step
    assert session.version != version
    assert session.tally.flows == 53
    ((part,),) = checkpoints(session)
    assert part["upto"] == 51
    assert sum(row["flows"] for row in part["rows"] if row["table"] == "timeline") == 50
    assert part["checkpoint_bytes"] > 3 * len(encode(next(flows)))


def test_a_checkpoint_that_was_begun_is_left_for_the_final_one(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST_GROWTH", 0)
    monkeypatch.setattr(module, "SHARE", 1000)
    monkeypatch.setattr(module, "SLICE", 0)
    monkeypatch.setattr(module, "ROWS_OF_A_LINE", 1000)
    flows = many(20, 20)
    add(session, *(next(flows) for _ in range(50)))
    for _ in range(20):
        assert session.step()
    add(session, next(flows))
    session.close()
    torn, final = checkpoints(session)
    assert all(part["parts"] == 0 for part in torn)
    assert final[-1]["parts"] == len(final) > 1
    assert all(part["final"] for part in final)
    found = read([("log", session.path)])
    assert found.merged().flows == 51
    assert found.sessions[session.id].final


def test_a_log_that_is_made_anew_gets_a_checkpoint_in_its_time(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST_GROWTH", 5000)
    monkeypatch.setattr(module, "SHARE", 1000)
    flows = many(5, 5)
    run(session, flows, 100)
    grown_from = session._grown_from
    assert grown_from > 10_000
    session.path.unlink()
    session._journal._next_check = 0  # it looks now
    run(session, flows, 30)
    assert len(checkpoints(session)) > 0
    session.close()
    found = read([("log", session.path)])
    assert found.merged().flows == 130
    assert found.merged().dropped > 0
    assert found.missing == 0


def test_the_schema_knows_all_outcomes() -> None:
    schema = json.loads((KNOWN / "record.schema.json").read_text("utf-8"))
    assert schema["$defs"]["flow"]["properties"]["outcome"]["enum"] == list(OUTCOMES)
