"""The pytest plugin: tests go through a proxy of their own, and fail by what went wrong there.

`pytest --flowtally` sends all tests through it. Without, only those do that have the marker
`flowtally` or use the fixture `flowtally`, while they run; where there are none, nothing is
imported but this module, which is why all others are imported where they are needed.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING
from typing import Any

import pytest

if TYPE_CHECKING:
    from .testing.tests import Tests
    from .testing.watch import Watch

HOOKS = "flowtally-hooks"
"""The name of the plugin that has the hooks of a run."""
MARKER = (
    "flowtally(max={NAME: NUMBER}, min={NAME: NUMBER}): the test goes through flowtally's proxy, "
    "and fails if what comes through breaks one of these budgets, or of those of all tests; NAME "
    "as in `flowtally check`."
)
_BUDGET = "A budget for every test, NAME=NUMBER as in `flowtally check`"

OPTIONS: tuple[tuple[str, str, str], ...] = (
    ("flowtally", "bool", "Run all tests through a proxy of flowtally's."),
    ("flowtally_max", "linelist", f"{_BUDGET}: at most so many."),
    ("flowtally_min", "linelist", f"{_BUDGET}: at least so many."),
    (
        "flowtally_log",
        "string",
        "The session log: a file, which is appended to, or a folder. Default: a new file in the "
        "folder `flowtally` inside mitmproxy's confdir.",
    ),
    ("flowtally_html", "string", "Write a web page on all tests into this file."),
    ("flowtally_set", "linelist", "An option of mitmproxy's or flowtally's, NAME=VALUE."),
    (
        "flowtally_trust",
        "linelist",
        "A file with certificates, PEM, that vouch for servers beside the system's.",
    ),
    (
        "flowtally_insecure_upstream",
        "bool",
        "Do not check the certificates of servers.",
    ),
)
"""Name, type and meaning of what is set on the command line (`--flowtally-max`) or, beneath it, in
the ini file. Of those that can be given several times, both count."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("flowtally", "what went wrong between tests and servers (flowtally)")
    for name, kind, meaning in OPTIONS:
        how: dict[str, Any] = {
            "bool": {"action": "store_true"},
            "linelist": {"action": "append", "metavar": "NAME=NUMBER"},
            "string": {"metavar": "FILE"},
        }[kind]
        if name == "flowtally_set":
            how["metavar"] = "NAME=VALUE"
        elif name == "flowtally_trust":
            how["metavar"] = "FILE"
        flag = f"--{name.replace('_', '-')}"
        group.addoption(flag, dest=name, default=None, help=meaning, **how)
        default: Any = {"bool": False, "linelist": [], "string": ""}[kind]
        parser.addini(name, meaning, type=kind, default=default)  # type: ignore[arg-type]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    hooks = Hooks(config)
    config.pluginmanager.register(hooks, HOOKS)
    if hooks.all and not config.option.collectonly:
        hooks.tests  # noqa: B018  # says what is wrong with the options
        if config.pluginmanager.hasplugin("playwright"):
            from .testing import browser

            # After Playwright's plugin, whose fixture it extends.
            config.pluginmanager.register(browser, "flowtally-playwright")


@pytest.fixture
def flowtally(request: pytest.FixtureRequest) -> Watch:
    """What came through the proxy during this test so far: `flows`, `events`, `incidents`, `tally`.

    `settle()` waits for the end of what is still open; `proxy` is the proxy's URL.
    """
    hooks: Hooks = request.config.pluginmanager.get_plugin(HOOKS)  # type: ignore[assignment]
    return hooks.tests.watch(request.node)


class Hooks:
    """The hooks of a run."""

    def __init__(self, config: pytest.Config) -> None:
        self.all = bool(config.getoption("flowtally") or config.getini("flowtally"))
        """All tests go through the proxy."""
        self._config = config
        self._tests: Tests | None = None
        self._sessions: dict[str, str] = {}
        """Session → its log, of this process and of xdist's workers."""
        self._troubles: dict[str, None] = {}
        """What went wrong with proxies, each once, in order."""
        self._lines: list[str] = []
        """What the terminal is told at the end."""

    @property
    def tests(self) -> Tests:
        """Made for the first test that goes through the proxy. Raises: pytest.UsageError."""
        if self._tests is None:
            from .testing.tests import Tests

            self._tests = Tests(self._config, self.all)
        return self._tests

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        # Not at the session's start, which `pytest --fixtures` has too; but before tests are
        # imported: a module may make its client when it is.
        distributes = self._config.pluginmanager.hasplugin("dsession")
        if not self.all or distributes or self._config.option.collectonly:
            return
        from .launch.proxy import LaunchError

        try:
            self.tests.start()
        except LaunchError as error:
            if not hasattr(self._config, "workerinput"):
                raise pytest.UsageError(f"flowtally: {error}") from None
            # xdist's controller would hear of a crash; each test says it instead.

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if self.all or self._config.option.collectonly or hasattr(self._config, "workerinput"):
            return
        # xdist's controller, which does not know what its workers collect, does not get here.
        idle = session.items and not session.testsfailed and not any(map(_asks, session.items))
        if idle and (typed := _typed(self._config)):
            raise pytest.UsageError(
                f"{typed[0]} without --flowtally: no test goes through flowtally's proxy, for none "
                "has the marker or uses the fixture"
            )

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        # No wrapper, and not the first: what pytest's own wrappers prepare must be there if this
        # fails, and a test that is skipped needs no proxy. The fixtures come later.
        if self.all or _asks(item):
            self.tests.begin(item)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        yield
        # As a part of the call: broken budgets are a fault of the test's, so that it has failed,
        # and not passed first and had an error then.
        if self._tests is not None:
            self._tests.judge(item)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        try:
            yield
        except BaseException:
            if self._tests is not None:
                self._tests.end(item, judge=False)
            raise
        if self._tests is not None:
            self._tests.end(item, judge=True)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if self._tests is not None:
            self._tests.report(item, report)
        return report

    def pytest_runtest_logreport(self, report: Any) -> None:
        told = getattr(report, "flowtally", {})
        if "session" in told:
            self._sessions[told["session"]] = told["log"]
        if "trouble" in told:
            self._troubles[told["trouble"]] = None

    @pytest.hookimpl(trylast=True)  # fixtures may use the proxy until they are torn down
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._tests is not None:
            run = self._tests.run
            run.close()
            if run.session:
                self._sessions[run.session] = str(run.log)
        told = self._sessions or self._troubles
        if not told or hasattr(self._config, "workerinput"):
            return
        from .testing.ending import ending

        end = ending(self._sessions, self.tests.options.html, self._troubles)
        self._lines = end.lines
        if end.failed and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._lines:
            terminalreporter.write_sep("=", "flowtally")
            for line in self._lines:
                terminalreporter.write_line(line)

    def pytest_unconfigure(self) -> None:
        if self._tests is not None:
            self._tests.run.close()


def _typed(config: pytest.Config) -> list[str]:
    """The options that are nothing without a test that goes through the proxy, of those that were
    typed: what is given to every run, in `addopts`, may be for other tests than those of this one.
    """
    flags = {f"--{name.replace('_', '-')}" for name, _, _ in OPTIONS[1:]}
    words = [str(word).partition("=")[0] for word in config.invocation_params.args]
    return [word for word in words if word in flags]


def _asks(item: pytest.Item) -> bool:
    """Whether a test is to go through the proxy although others do not."""
    if "flowtally" in getattr(item, "fixturenames", ()):
        return True
    return item.get_closest_marker("flowtally") is not None
