"""The latest records of logs: the same ones that reading every line finds."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from flowtally.encoding import encode
from flowtally.filters import is_problem
from flowtally.latest import Latest
from flowtally.latest import Numbers
from flowtally.source import parsed
from hypothesis import given
from hypothesis import strategies as st
from lab.cli import Record
from lab.cli import answer
from lab.cli import answered
from lab.cli import failed
from lab.cli import final
from lab.cli import lines
from lab.cli import numbered
from lab.sessions import everything

SESSION = [
    {"type": r["type"], "session": r["session"], "seq": r["seq"], "time": r["time"], **r}
    for r in numbered(*everything())
]
"""Fields in the order in which the addon writes them."""


def opened(*texts: bytes) -> list[tuple[str, Any]]:
    return [(f"log {number}", io.BytesIO(text)) for number, text in enumerate(texts)]


def expected(text: bytes, most: int) -> list[Record]:
    """Every line read, and of the records the latest, problems before others."""
    found: dict[tuple[str, int], Record] = {}
    for line in text.splitlines(keepends=True):
        record = parsed(line)
        if record is not None and record["type"] != "stats":
            found.setdefault((record["session"], record["seq"]), record)
    begun: dict[str, str] = {}
    for (session, _), record in sorted(found.items(), key=lambda each: each[0]):
        begun.setdefault(session, record["time"])
    newest = sorted(
        (record for record in found.values() if record["type"] in ("flow", "event")),
        key=lambda r: (begun[r["session"]], r["session"], r["seq"]),
        reverse=True,
    )
    chosen = sorted(newest, key=is_problem, reverse=True)[:most]
    return [record for record in newest if any(record is each for each in chosen)]


def found(text: bytes, most: int, **more: Any) -> list[Record]:
    with Latest(opened(text), most, **more) as latest:
        return list(latest)


def odd(record: Record) -> list[bytes]:
    """The same record, written as the addon does not write it."""
    line = encode(record)
    moved = {"time": record["time"]} | record
    return [
        line.replace(b'"error_code"', b'"error\\u005fcode"').replace(
            b'"answers"', b'"\\u0061nswers"'
        ),
        json.dumps(record).encode() + b"\n",
        encode(moved),
        line[:-1] + b" \r\n",
    ]


OTHER = [{**record, "session": "00000000"} for record in SESSION]
PIECES = [
    *(encode(record) for record in [*SESSION, *OTHER]),
    *(line for record in SESSION for line in odd(record)),
    encode(final(*SESSION) | {"seq": 999}),
    lines(failed(seq=900, background="a browser")),
    lines(failed(seq=901, reason="collateral")),
    lines(answered(seq=902, detail='"error_code":-2,"answers":1')),
    lines(answered(401, seq=903, flow="asked")),
    lines(answer(1, seq=904)),
    b"\n",
    b"{}\n",
    b'{"type":"flow","session":"00000001","seq":77,"time":"2026\n',
    b"x" * 300 + b"\n",
]


@given(
    st.lists(st.sampled_from(PIECES), max_size=40),
    st.integers(1, 12),
    st.sampled_from([None, -1, -3]),
)
def test_they_are_those_that_reading_every_line_finds(
    pieces: list[bytes], most: int, torn: int | None
) -> None:
    text = b"".join(pieces)[:torn]
    with Latest(opened(text), most) as latest:
        assert list(latest) == expected(text, most)
        assert latest.count == len(expected(text, 99))
        answers = {(r["session"], r["answers"]) for r in expected(text, 99) if "answers" in r}
        assert latest.answered <= answers
        assert len(answers) > most or latest.answered == answers


def test_they_are_so_in_whatever_pieces_a_log_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"\xef\xbb\xbf" + b"".join(PIECES) + b"y" * 9000 + b"\n" + PIECES[1] + b"y" * 9000
    for size in (4096, 5000, 1024 * 1024):
        monkeypatch.setattr("flowtally.source.MAX_LINE", size)
        assert found(text, 50) == expected(b"".join(PIECES), 50)


def test_only_what_is_wanted_is_found() -> None:
    text = b"".join(encode(record) for record in [*OTHER, *SESSION])
    only = found(text, 1000, wanted=lambda record: record.get("status") == 404)
    assert only == [r for r in expected(text, 1000) if r.get("status") == 404]
    assert found(text, 1000, of=["00000001"]) == found(lines(*SESSION), 1000)


def test_a_record_that_is_none_after_all_is_left_out() -> None:
    bad = encode(SESSION[3] | {"seq": 5, "outcome": "odd"})
    with Latest(opened(lines(answered()) + bad), 10) as latest:
        assert latest.count == 2
        assert [record["seq"] for record in latest] == [1]
        assert latest.count == 1


def test_a_log_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        Latest([("the log", tmp_path / "none")], 10)
    assert error.value.filename == "the log"


def test_a_log_that_vanishes_meanwhile_has_no_records(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(*SESSION))
    with Latest([("log", log)], 10) as latest:
        log.write_bytes(b"\n")
        assert list(latest) == []
        log.unlink()
        with pytest.raises(FileNotFoundError):
            list(latest)


@given(st.lists(st.integers(0, 12)))
def test_each_number_is_new_once(numbers: list[int]) -> None:
    seen, known = Numbers(), set[int]()
    for number in numbers:
        assert seen.add(number) == (number not in known)
        known.add(number)
    assert seen.count == len(known)
