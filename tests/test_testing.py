"""What the pytest plugin is made of: the log read as it grows, the environment, budgets, texts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from flowtally.budgets import Budget
from flowtally.budgets import BudgetError
from flowtally.budgets import evaluate
from flowtally.incidents import incidents
from flowtally.launch.aftermath import ANSWERED_IN_PLACE
from flowtally.launch.through import Wanted
from flowtally.testing import summary as summary_module
from flowtally.testing import text as text_module
from flowtally.testing.ending import ending
from flowtally.testing.environment import Changed
from flowtally.testing.environment import difference
from flowtally.testing.options import marked
from flowtally.testing.options import merged
from flowtally.testing.options import options
from flowtally.testing.summary import summary
from flowtally.testing.tail import Tail
from flowtally.testing.text import NOWHERE
from flowtally.testing.text import by_test
from flowtally.testing.text import details
from flowtally.testing.text import verdict
from lab.cli import HOSTILE
from lab.cli import Record
from lab.cli import answer
from lab.cli import answered
from lab.cli import event
from lab.cli import failed
from lab.cli import final
from lab.cli import lines
from lab.cli import start
from lab.cli import tally

pytest_plugins = ["pytester"]

SESSION = "00000001"

# --- the log, read as it grows ---


def seconds(tail: Tail) -> list[str]:
    """The flows that are new, by the second in which they ended."""
    return [record["time"][17:19] for record in tail.read()]


def test_a_tail_has_what_comes_after_it_was_made(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    others = [start("00000002"), answered(200, 9, session="00000002")]
    log.write_bytes(lines(start(), answered(200, 1), *others))
    tail = Tail(log, SESSION)
    with log.open("ab", buffering=0) as file:
        assert not seconds(tail)
        file.write(lines(answered(200, 2), *others, failed(second=3)))
        assert seconds(tail) == ["07", "08"]
        new = lines(event(second=4), final())
        file.write(new[:50])
        assert not seconds(tail)
        file.write(new[50:] + b"no record\n")
        assert seconds(tail) == ["09"]
    tail.close()


def test_a_tail_follows_a_log_that_is_made_anew(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(start()))
    tail = Tail(log, SESSION)
    with log.open("ab") as file:
        file.write(lines(answered(200, 1)))
    log.rename(tmp_path / "old.jsonl")
    assert seconds(tail) == ["06"]
    log.write_bytes(lines(start(), answered(200, 2)))
    assert seconds(tail) == ["07"]
    assert not seconds(tail)
    tail.close()


# --- the environment ---


def test_the_environment_is_changed_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANGED", "before")
    monkeypatch.setenv("REMOVED", "before")
    monkeypatch.delenv("ADDED", raising=False)
    wanted = {name: value for name, value in os.environ.items() if name != "REMOVED"}
    values = difference(wanted | {"CHANGED": "now", "ADDED": "now"})
    assert values == {"CHANGED": "now", "REMOVED": None, "ADDED": "now"}
    before = dict(os.environ)
    changed = Changed(values)
    assert dict(os.environ) == wanted | {"CHANGED": "now", "ADDED": "now"}
    changed.restore()
    assert dict(os.environ) == before


def test_what_somebody_else_has_set_since_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "before")
    monkeypatch.setenv("OTHER", "before")
    changed = Changed({"ONE": "now", "OTHER": "now"})
    os.environ["ONE"] = "theirs"
    changed.restore()
    assert (os.environ["ONE"], os.environ["OTHER"]) == ("theirs", "before")


# --- budgets ---


def mark(*args: Any, **kwargs: Any) -> pytest.Mark:
    decorator: pytest.MarkDecorator = pytest.mark.flowtally(*args, **kwargs)
    return decorator.mark


def test_the_nearest_budget_of_a_name_counts() -> None:
    defaults = (Budget("flows", "max", 9), Budget("p95_ms", "max", 800), Budget("flows", "min", 1))
    near, far = mark(max={"FLOWS": 5, "404": 0}), mark(max={404: 2, "flows": 7}, min={"ok": 1})
    assert set(marked([near, far], defaults)) == {
        Budget("flows", "max", 5),
        Budget("404", "max", 0),
        Budget("p95_ms", "max", 800),
        Budget("flows", "min", 1),
        Budget("ok", "min", 1),
    }
    assert merged(defaults, ()) == defaults


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        (mark(max={"flows": True}), "--max 'flows=True': 'True' is no whole number, 0 or more"),
        (mark(max={"flows": -1}), "--max 'flows=-1': '-1' is no whole number, 0 or more"),
        (mark(max=["flows"]), "max=['flows']: allowed is a dict, such as {'Server error': 0}"),
        (mark({"flows": 1}), "{'flows': 1}: allowed are max={NAME: NUMBER} and min={NAME: NUMBER}"),
        (mark(min={"x": 1}), "--min 'x=1': there is no budget for 'x'."),
        (mark(min={"flows": 9}), "flows cannot be at least 9 and at most 5"),
    ],
)
def test_markers_that_make_no_sense(marker: pytest.Mark, message: str) -> None:
    with pytest.raises(BudgetError) as caught:
        marked([marker], (Budget("flows", "max", 5),))
    assert str(caught.value) == message


# --- what the user asks for ---

INI = """
[pytest]
flowtally_log = logs/
flowtally_html = page.html
flowtally_max = flows=9
    404=0
flowtally_min = ok=1
flowtally_set = flowtally_timeout=2
    flowtally_urls=origin
flowtally_trust = ca.pem
flowtally_insecure_upstream = true
"""


def test_the_ini_file_is_enough(pytester: pytest.Pytester) -> None:
    pytester.makeini(INI)
    found = options(pytester.parseconfig())
    here = pytester.path
    assert found.proxy == Wanted(
        f"{here}/logs/",
        ("flowtally_timeout=2", "flowtally_urls=origin"),
        True,
        (here / "ca.pem",),
    )
    assert found.html == here / "page.html"
    assert found.budgets == (
        Budget("flows", "max", 9),
        Budget("404", "max", 0),
        Budget("ok", "min", 1),
    )


def test_the_command_line_wins(pytester: pytest.Pytester) -> None:
    pytester.makeini(INI)
    found = options(
        pytester.parseconfig(
            *("--flowtally-log", "other.jsonl", "--flowtally-html", "/other.html"),
            *("--flowtally-max", "404=3", "--flowtally-max", "events=0"),
            *("--flowtally-set", "flowtally_urls=full", "--flowtally-trust", "more.pem"),
        )
    )
    here = pytester.path
    assert found.proxy == Wanted(
        f"{here}/other.jsonl",
        ("flowtally_timeout=2", "flowtally_urls=full"),
        True,
        (here / "ca.pem", here / "more.pem"),
    )
    assert found.html == Path("/other.html")
    assert set(found.budgets) == {
        Budget("flows", "max", 9),
        Budget("404", "max", 3),
        Budget("events", "max", 0),
        Budget("ok", "min", 1),
    }


# --- texts ---


def test_a_verdict_says_what_happened_and_what_to_do() -> None:
    counted = tally(
        answered(500, 1), failed(second=2, detail="no one there"), failed(second=3, host="b")
    )
    budgets = (Budget("problems", "max", 0), Budget("flows", "max", 9), Budget("ok", "min", 1))
    said = verdict(evaluate(budgets, counted), incidents(counted), 2)
    assert said.splitlines()[0] == "flowtally: problems at most 0, is 3; ok at least 1, is 0"
    assert "flows at most" not in said
    assert said.count("  -2 ConnectionErr: connection_refused  server  ") == 2
    assert "      GET http://shop.example/cart/17 (no one there)" in said
    assert "      Nothing listens on that port" in said
    assert "curl" in said  # what clients say of it
    assert said.splitlines()[-1] == "2 flows were still open when the test ended"


def test_hostile_text_is_printable_and_bounded() -> None:
    records = [
        failed(
            host=f"{HOSTILE}{number}", reason=HOSTILE, detail=HOSTILE, test=f"t{HOSTILE}{number}"
        )
        for number in range(50)
    ]
    counted = tally(*records)
    said = verdict(evaluate((Budget("problems", "max", 0),), counted), incidents(counted), 0)
    found = [summary_module.Found(each["test"], incidents(tally(each))) for each in records]
    found[0] = found[0]._replace(incidents=found[0].incidents * 9)
    told = [*said.split("\n"), *by_test(found, 3)]
    assert all(line.isprintable() for line in told)
    assert "  and 47 more incidents" in told
    assert "  and 6 more incidents" in told
    assert told[-1] == f"  and {50 - text_module.MOST_TESTS + 3} more tests"
    assert len(details(incidents(counted))) < 80


# --- the summary ---


@pytest.mark.parametrize(("record", "said"), [(failed(), True), (answered(500), False)])
def test_a_502_in_the_place_of_a_failure_is_told_of(
    record: Record, said: bool, tmp_path: Path
) -> None:
    """A test that expects an exception meets an answer, and one that expects none passes."""
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(start(), record))
    assert (ANSWERED_IN_PLACE in ending({SESSION: str(log)}, None, ()).lines) is said


def test_incidents_are_told_by_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary_module, "MAX_TESTS", 3)
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    mine: list[Record] = [
        answered(200, 1, test="fine"),
        answered(401, 2, test="login", flow="asked"),
        answer(3, test="login"),
        failed(second=4, test="refused"),
        failed(second=5, test="refused"),
        event(second=6),
        failed(second=7, test="too many"),
        failed(second=8, test="too many"),
    ]
    foreign = answered(500, 9, session="00000003", test="foreign")
    first.write_bytes(lines(start(), *mine, start("00000003"), foreign))
    second.write_bytes(lines(start("00000002"), answered(200, 1, session="00000002")))
    found = summary({SESSION: str(first), "00000002": str(second)})
    assert [(test.name, [each.count for each in test.incidents]) for test in found.tests] == [
        ("refused", [2]),
        ("", [1]),
    ]
    assert found.more == 1
    assert found.tally.flows == 8
    assert found.unclean == 2
    assert by_test(found.tests, 0)[2] == NOWHERE
