"""Logs narrowed: the statistics of the records that are wanted, and these records themselves."""

from __future__ import annotations

import io
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from flowtally.filters import Given
from flowtally.filters import wanted
from flowtally.logs import read
from flowtally.selection import Selection
from flowtally.tally import Tally
from hypothesis import given
from hypothesis import strategies as st
from lab.cli import answered
from lab.cli import failed
from lab.cli import final
from lab.cli import lines
from lab.cli import numbered
from lab.cli import start
from lab.sessions import everything
from lab.tallies import plain

Record = dict[str, Any]

FILTERS = [
    Given(statuses=["4xx"]),
    Given(hosts=["shop.example"]),
    Given(problems=True),
    Given(causes=["connection_refused", "client_tls_rejected"]),
    Given(since="2026-01-01", until="2026-12-31"),
    Given(expressions=["~m POST & !~c 200"]),
    Given(statuses=["299"]),
]


def chosen(given: Given) -> Any:
    found = wanted(given, datetime.now(UTC))
    assert found is not None
    return found


def opened(*texts: bytes) -> list[tuple[str, Any]]:
    return [(f"log {number}", io.BytesIO(text)) for number, text in enumerate(texts)]


SESSION = numbered(*everything())
KILLED = lines(*SESSION)
ENDED = lines(*SESSION, final(*SESSION))


@pytest.mark.parametrize("given", FILTERS, ids=str)
@pytest.mark.parametrize("text", [KILLED, ENDED], ids=["killed", "ended"])
def test_narrowed_statistics_are_those_of_the_records_that_are_wanted(
    given: Given, text: bytes
) -> None:
    holds = chosen(given)
    expected = Tally()
    expected.challenges.narrowed = True
    for record in SESSION:
        if record["type"] not in ("flow", "event"):
            continue
        if holds(record):
            expected.add(record)
        elif "answers" in record:
            expected.add_answer(record)
    found = read(opened(text), wanted=holds)
    assert plain(found.merged()) == plain(expected)
    assert [session.final for session in found.sessions.values()] == [text is ENDED]
    assert found.missing == read(opened(text)).missing == 0


@pytest.mark.parametrize(
    ("given", "problems", "challenges"),
    [
        (Given(problems=True), 0, 1),
        (Given(statuses=["401"]), 0, 1),
        (Given(statuses=["200"]), 0, 0),
        (Given(hosts=["other.example"]), 0, 0),
    ],
    ids=str,
)
def test_a_challenge_is_answered_also_where_its_answer_is_not_wanted(
    given: Given, problems: int, challenges: int
) -> None:
    asked = answered(401, flow="1")
    login = answered(200, flow="2", answers="1", challenge=401)
    totals = read(opened(lines(*numbered(asked, login))), wanted=chosen(given)).merged().totals()
    assert (totals.problems, totals.challenges) == (problems, challenges)


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("given", FILTERS, ids=str)
def test_the_records_that_are_wanted_come_as_the_log_has_them(
    given: Given, background: bool
) -> None:
    holds = chosen(given)
    with Selection(opened(ENDED), holds, background=background) as found:
        records = list(found)
        assert list(found) == records, "they cannot be asked for twice"
    expected = [r for r in SESSION if r["type"] in ("flow", "event") and holds(r)]
    assert records == [r for r in expected if background or "background" not in r]
    assert found.left_out == len(expected) - len(records)


@given(st.permutations(range(12)), st.integers(0, 12))
def test_each_comes_once_and_in_order_whatever_the_logs(order: list[int], cut: int) -> None:
    records = numbered(*(failed(number=n) for n in range(12)))
    shuffled = [records[index] for index in order]
    texts = lines(*shuffled[:cut]), lines(*shuffled[cut:], *shuffled[:3])
    with Selection(opened(*texts), chosen(Given(problems=True))) as found:
        assert list(found) == records


def test_sessions_come_as_they_began() -> None:
    late = [{**record, "session": "a"} for record in numbered(start(), failed(second=50))]
    early = [{**record, "session": "b"} for record in numbered(start(), failed(second=5))]
    late[0]["time"] = late[1]["time"]
    with Selection(opened(lines(*late, *early)), chosen(Given(problems=True))) as found:
        assert [record["session"] for record in found] == ["b", "a"]
        assert found.missing == {"b": 0, "a": 0}


def test_a_challenge_that_was_answered_is_known() -> None:
    asked = answered(401, flow="1")
    login = answered(200, flow="2", answers="1", challenge=401)
    with Selection(opened(lines(*numbered(asked, login))), chosen(Given(problems=True))) as found:
        assert [(record["session"], record["flow"]) in found.answered for record in found] == [True]


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"no record\n" + lines(*numbered(failed(), failed())) + b'{"type":"flo')
    with Selection([("log", path)], chosen(Given(problems=True))) as found:
        assert len(list(found)) == 2
        path.write_bytes(b"\n" * 5000)  # it is another file by now
        assert list(found) == []


def test_what_is_missing_is_what_a_report_says() -> None:
    records = numbered(start(), *(failed(number=n) for n in range(9)), failed(session="other"))
    dropped = {**records[7], "type": "gap", "dropped": 2}
    texts = lines(*records[8:], dropped), lines(*records[1:4], records[2])
    with Selection(opened(*texts), chosen(Given(problems=True))) as found:
        assert found.missing == {"00000001": 2, "other": 0}
        assert found.missing == {s.id: s.missing for s in read(opened(*texts)).sessions.values()}


def test_what_has_no_end_yet_is_left_where_a_log_grows() -> None:
    text = lines(*numbered(failed(), failed()))
    for growing, unreadable, size in ((True, 0, len(text)), (False, 1, len(text) + 9)):
        with Selection(opened(text + b'{"type":"'), lambda _: True, growing) as found:
            assert (len(list(found)), found.noted.unreadable, found.size) == (2, unreadable, size)


def test_a_log_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        Selection([("the log", tmp_path / "none")], chosen(Given(problems=True)))
    assert error.value.filename == "the log"
