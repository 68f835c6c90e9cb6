"""The tests of a run that go through the proxy: begun, held against their budgets, reported."""

from __future__ import annotations

from typing import Any

import pytest

from ..budgets import BudgetError
from ..budgets import evaluate
from ..launch.proxy import LaunchError
from ..redaction import printable
from .options import marked
from .options import options
from .options import said
from .run import Run
from .text import details
from .text import verdict
from .watch import Watch

MARKER = "flowtally"
MAX_TROUBLE = 4000
_WATCH = pytest.StashKey[Watch]()
_BUDGETS = pytest.StashKey[bool]()
"""Whether a test has budgets; only of those that go through the proxy."""
_BROKEN = pytest.StashKey[bool]()
"""Whether its budgets made it fail."""


class Tests:
    """The tests of this process, and their proxy."""

    __test__ = False  # it is none

    def __init__(self, config: pytest.Config, all: bool) -> None:
        """`all`: every test goes through the proxy, and what is imported before. Raises:
        pytest.UsageError."""
        self.options = options(config)
        self.run = Run(self.options.proxy)
        self._all = all

    def start(self) -> None:
        """Start the proxy, for every test. Raises: LaunchError."""
        self.run.start()
        self.run.enter()

    def begin(self, item: pytest.Item) -> None:
        """A test begins, which is to go through the proxy."""
        for key in (_WATCH, _BUDGETS, _BROKEN):
            item.stash._storage.pop(key, None)  # it may run again
        try:
            budgets = marked(item.iter_markers(MARKER), self.options.budgets)
        except BudgetError as error:
            pytest.fail(f"@pytest.mark.flowtally: {said(error)}", pytrace=False)
        item.stash[_BUDGETS] = bool(budgets)
        try:
            item.stash[_WATCH] = self.run.begin(item.nodeid, budgets)
        except LaunchError:
            if not self.run.died:
                pytest.fail(self._trouble(), pytrace=False)
            return  # said at the end; the test goes on without
        if not self._all:
            self.run.enter()

    def watch(self, item: pytest.Item) -> Watch:
        """What the fixture gives to a test."""
        if _WATCH not in item.stash and _BUDGETS not in item.stash:
            self.begin(item)
        if _WATCH not in item.stash:
            pytest.fail(self._trouble(), pytrace=False)
        return item.stash[_WATCH]

    def report(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Put into a report what whoever shows it needs, in this process or that of xdist."""
        if _BUDGETS not in item.stash:
            return
        told: dict[str, Any] = {"broken": item.stash.get(_BROKEN, False)}
        if self.run.session:
            told |= {"session": self.run.session, "log": str(self.run.log)}
        watch = item.stash.get(_WATCH, None)
        if watch is not None and report.when == "call":
            watch.passed = report.passed
            if report.failed:
                watch.settle()
                if lines := details(watch.incidents):
                    report.sections.append(("flowtally: incidents of this test", "\n".join(lines)))
        if self.run.died:
            told["trouble"] = self._trouble()
        report.flowtally = told  # type: ignore[attr-defined]

    def end(self, item: pytest.Item, judge: bool) -> None:
        """A test has ended. `judge`: hold it against its budgets, if it passed."""
        watch = item.stash.get(_WATCH, None)
        if watch is None or watch.over:
            if self.run.died and judge and item.stash.get(_BUDGETS, False):
                self._fail(item, _cannot_tell(self._trouble()))
            return
        still_open = self.run.end(watch)
        if not self._all:
            self.run.leave()
        if not (judge and watch.passed and watch.budgets):
            return
        tally = watch.tally
        if self.run.died:
            self._fail(item, _cannot_tell(self._trouble()))
        if tally.dropped:
            self._fail(item, _cannot_tell(f"{tally.dropped} records could not be written"))
        results = evaluate(watch.budgets, tally)
        if not all(result.holds for result in results):
            self._fail(item, verdict(results, watch.incidents, still_open))

    def _fail(self, item: pytest.Item, why: str) -> None:
        item.stash[_BROKEN] = True
        pytest.fail(why, pytrace=False)

    def _trouble(self) -> str:
        return "flowtally: " + "\n".join(
            printable(line, MAX_TROUBLE) for line in self.run.trouble.splitlines()
        )


def _cannot_tell(why: str) -> str:
    return f"{why}\nSo nobody can tell whether the test kept to its budgets."
