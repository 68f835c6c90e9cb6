"""The tests of a run that go through the proxy: begun, held against their budgets, reported."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ..budgets import Budget
from ..budgets import BudgetError
from ..budgets import evaluate
from ..launch.proxy import LaunchError
from ..redaction import printable
from ..report.layout import s
from .browser import send_through
from .options import marked
from .options import options
from .options import said
from .run import Run
from .text import details
from .text import verdict
from .watch import Watch

MARKER = "flowtally"
MAX_TROUBLE = 4000


@dataclass
class _Test:
    """What is known of a test that goes through the proxy."""

    budgets: tuple[Budget, ...]
    watch: Watch | None = None
    """None: the proxy had ended before."""
    passed: bool = False
    """It ran, and nothing of it failed."""
    judged: bool = False
    """Its budgets made it fail."""


_TEST = pytest.StashKey[_Test]()


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
        if _TEST in item.stash:
            del item.stash[_TEST]  # it runs again
        wrong = ""
        try:
            budgets = marked(item.iter_markers(MARKER), self.options.budgets)
            item.stash[_TEST] = test = _Test(budgets)
            test.watch = self.run.begin(item.nodeid)
        except BudgetError as error:
            wrong = f"@pytest.mark.flowtally: {said(error)}"
        except LaunchError:
            if self.run.died:
                return  # said at the end; the test goes on without it
            wrong = self._trouble()
        if wrong:
            pytest.fail(wrong, pytrace=False)
        if not self._all:
            self.run.enter()
            send_through(item, self.run)

    def watch(self, item: pytest.Item) -> Watch:
        """What the fixture gives to a test."""
        if _TEST not in item.stash:
            self.begin(item)
        if (watch := item.stash[_TEST].watch) is None:
            pytest.fail(self._trouble(), pytrace=False)
        return watch

    def report(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Put into a report what whoever shows it needs, in this process or that of xdist."""
        test = item.stash.get(_TEST, None)
        if test is None:
            return
        if report.when == "call":
            test.passed = report.passed
            if report.failed and test.watch is not None and not test.judged:
                test.watch.settle()
                if lines := details(test.watch.incidents):
                    report.sections.append(("flowtally: incidents of this test", "\n".join(lines)))
        told: dict[str, str] = {}
        if self.run.session:
            told |= {"session": self.run.session, "log": str(self.run.log)}
        if self.run.died:
            told["trouble"] = self._trouble()
        report.flowtally = told  # type: ignore[attr-defined]

    def judge(self, item: pytest.Item) -> None:
        """Fail a test whose budgets are broken by what came through so far."""
        test = item.stash.get(_TEST, None)
        if test is None or not test.budgets:
            return
        still_open = test.watch.settle() if test.watch is not None else 0
        if why := self._why(test, still_open):
            test.judged = True
            pytest.fail(why, pytrace=False)

    def end(self, item: pytest.Item, judge: bool) -> None:
        """A test has ended. `judge`: hold it against its budgets again, if it has passed: what
        cleans up behind it may have used the proxy, too."""
        test = item.stash.get(_TEST, None)
        if test is None:
            return
        still_open = self.run.end(test.watch) if test.watch is not None else 0
        if not self._all:
            self.run.leave()
        if judge and test.passed and test.budgets and (why := self._why(test, still_open)):
            pytest.fail(why, pytrace=False)

    def _why(self, test: _Test, still_open: int) -> str:
        """Why a test's budgets make it fail; "" if they do not."""
        if self.run.died or test.watch is None:
            return _cannot_tell(self._trouble())  # a gate that cannot tell does not open
        tally = test.watch.tally
        if tally.dropped:
            return _cannot_tell(
                f"flowtally: {tally.dropped} record{s(tally.dropped)} could not be written"
            )
        results = evaluate(test.budgets, tally)
        if all(result.holds for result in results):
            return ""
        return verdict(results, test.watch.incidents, still_open)

    def _trouble(self) -> str:
        return "flowtally: " + "\n".join(
            printable(line, MAX_TROUBLE) for line in self.run.trouble.splitlines()
        )


def _cannot_tell(why: str) -> str:
    return f"{why}\nSo nobody can tell whether the test kept to its budgets."
