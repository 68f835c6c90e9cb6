"""The pytest plugin, in real runs of pytest: each a process of its own with a proxy of its own."""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from flowtally.current_test import MAX_NAME
from flowtally.current_test import name_of
from jsonschema import Draft202012Validator
from lab import browser
from lab.proxy import SCHEMA
from lab.servers import OK
from lab.servers import Answer
from lab.servers import AnsweringServer
from lab.servers import Request
from lab.servers import site
from lab.tls import HOST
from lab.tls import Authority

pytest_plugins = ["pytester"]

Tool = Callable[..., Path]
Record = dict[str, Any]

CLIENTS = """
import os, subprocess, threading, unittest, urllib.error, urllib.request
import pytest

SITE = os.environ["SITE"]

def get(path, opener=None):
    try:
        return (opener or urllib.request.build_opener()).open(SITE + path).status
    except urllib.error.HTTPError as error:
        return error.code
"""
"""What every module of inner tests begins with."""

WATCHED = """
import os
import psutil

def pytest_unconfigure(config):
    with open("left.txt", "w") as file:
        commands = [child.cmdline() for child in psutil.Process().children()]
        proxies = [words for words in commands if "flowtally.launch.process" in words]
        print(os.environ.get("HTTP_PROXY", "none"), len(proxies), file=file)
"""
"""A conftest.py that says what is left when pytest ends: which proxy is set, how many run."""

NOTHING = "none 0\n"


@pytest.fixture(scope="module")
def server() -> Iterator[AnsweringServer]:
    def answer(request: Request) -> Answer:
        # Longer than a test's flows are waited for.
        return Answer(OK.data, delay=1.5) if request.path == "/slow" else site(request)

    with AnsweringServer(answer) as server:
        yield server


class Project:
    """A folder with tests of somebody's, and what a run of them left."""

    def __init__(self, pytester: pytest.Pytester, confdir: Path) -> None:
        self.folder = pytester.path
        self._pytester = pytester
        self._confdir = confdir
        self.settings()

    def settings(self, *lines: str) -> None:
        """The ini file."""
        self._pytester.makeini(
            "\n".join(["[pytest]", f"flowtally_set = confdir={self._confdir}", *lines])
        )

    def tests(self, source: str, name: str = "test_shop") -> None:
        self._pytester.makepyfile(**{name: CLIENTS + textwrap.dedent(source)})

    def conftest(self, source: str) -> None:
        self._pytester.makeconftest(source)

    def run(self, *arguments: str, plugins: Sequence[str] = ("flowtally",)) -> pytest.RunResult:
        """Run pytest with these plugins, for to load all there are takes longer than most tests."""
        named = [part for plugin in plugins for part in ("-p", plugin)]
        return self._pytester.runpytest_subprocess(
            *named, "-p", "no:cacheprovider", *arguments, timeout=90
        )

    def imported(self) -> str:
        """What of flowtally and mitmproxy the run had imported, see IMPORTED; or whether it had a
        proxy."""
        return (self.folder / "imported.txt").read_text()

    def records(self, log: str = "session.jsonl") -> list[Record]:
        """The flows and events of a log, or of all logs in a folder."""
        path = self.folder / log
        lines = [
            line
            for file in (sorted(path.iterdir()) if path.is_dir() else [path])
            for line in file.read_text("utf-8").splitlines()
        ]
        validator = Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))
        found = [json.loads(line) for line in lines]
        for record in found:
            validator.validate(record)
        return [record for record in found if record["type"] in ("flow", "event")]

    def tested(self, log: str = "session.jsonl") -> list[tuple[str, str]]:
        """Test and path of each flow."""
        return sorted(
            (record.get("test", ""), "/" + record["url"].split("/", 3)[3])
            for record in self.records(log)
            if record.get("url", "").startswith("http")
        )


@pytest.fixture
def project(
    pytester: pytest.Pytester,
    confdir: Path,
    server: AnsweringServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Project:
    monkeypatch.setenv("SITE", server.url)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name in [*os.environ]:
        if name.lower().endswith("_proxy") or name.startswith("PYTEST_XDIST"):
            monkeypatch.delenv(name)
    return Project(pytester, confdir)


def said(result: pytest.RunResult) -> str:
    return "\n".join([*result.outlines, *result.errlines])


# --- nothing without being asked ---

IMPORTED = """
import sys

def pytest_unconfigure(config):
    names = [n for n in sys.modules if n.split(".")[0] in ("flowtally", "mitmproxy")]
    import psutil
    names += ["mitmproxy as a process"] * len(psutil.Process().children())
    with open("imported.txt", "w") as file:
        file.write(" ".join(sorted(names)))
"""


def test_nothing_is_imported_that_nobody_asked_for(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As users have it, by its entry point.
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    project.conftest(IMPORTED)
    project.tests("def test_nothing(): pass")
    result = project.run(plugins=())
    result.assert_outcomes(passed=1)
    assert project.imported() == "flowtally flowtally.pytest_plugin"
    assert "flowtally:" not in said(result)


def test_what_runs_no_tests_starts_no_proxy(project: Project) -> None:
    project.conftest(IMPORTED)
    project.tests("@pytest.mark.flowtally(max={'x': 0})\ndef test_nothing(): pass")
    assert project.run("--flowtally", "--collect-only").ret == 0
    assert project.imported() == "flowtally flowtally.pytest_plugin"
    assert "flowtally" in said(project.run("--flowtally", "--fixtures"))
    assert "mitmproxy" not in project.imported()
    result = project.run("--flowtally", plugins=("no:flowtally",))
    assert "unrecognized arguments: --flowtally" in said(result)


# --- whose flow it is ---

ODD_IDS = ["a b", "ü", "\x1b[31m", "::", "[/]", "x" * 600, "x" * 601]


def test_a_clock_that_a_test_sets_moves_no_flow_to_another_test(project: Project) -> None:
    project.settings("flowtally = true", "flowtally_log = session.jsonl")
    project.tests(
        """
        import time

        @pytest.fixture(scope="module")
        def in_three_years():
            real = time.time
            time.time = lambda: real() + 1e8
            yield
            time.time = real

        def test_one(in_three_years):
            get("/one")

        def test_two(in_three_years):
            get("/two")
        """
    )
    project.tests("def test_three():\n    get('/three')", name="test_trees")
    project.run().assert_outcomes(passed=3)
    assert project.tested() == [
        ("test_shop.py::test_one", "/one"),
        ("test_shop.py::test_two", "/two"),
        ("test_trees.py::test_three", "/three"),
    ]


def test_every_flow_belongs_to_the_test_during_which_it_began(project: Project, tool: Tool) -> None:
    tool("curl")
    project.settings("flowtally = true", "flowtally_log = session.jsonl")
    project.conftest(
        WATCHED
        + """
import urllib.request

def pytest_runtest_logfinish(nodeid):
    if "test_thread" in nodeid:
        urllib.request.build_opener().open(os.environ["SITE"] + "/between")
"""
    )
    project.tests(
        f"""
        import httpx

        AT_IMPORT = urllib.request.build_opener()
        get("/before")
        later = threading.Event()
        late = []

        def test_imported():
            get("/imported", AT_IMPORT)

        def test_thread():
            thread = threading.Thread(target=get, args=["/thread"])
            thread.start()
            thread.join()

        def test_subprocess():
            subprocess.run(["curl", "-s", SITE + "/subprocess"], check=True)

        @pytest.mark.anyio
        async def test_async():
            async with httpx.AsyncClient() as client:
                await client.get(SITE + "/async")

        class TestCase(unittest.TestCase):
            def setUp(self):
                get("/setup")

            def test_unit(self):
                get("/unit")

            def tearDown(self):
                get("/teardown")

        def test_own_proxy(monkeypatch):
            monkeypatch.delenv("http_proxy")
            monkeypatch.delenv("HTTP_PROXY")
            monkeypatch.delenv("all_proxy")
            monkeypatch.delenv("ALL_PROXY")
            get("/past")

        @pytest.mark.parametrize("odd", {ODD_IDS!r}, ids=str)
        def test_odd(odd):
            get("/odd")

        @pytest.fixture(scope="session")
        def last():
            yield
            get("/last")

        def test_last(last, flowtally):
            get("/first")
            assert [flow["url"] for flow in flowtally.flows] == [SITE + "/first"]
            assert not flowtally.events + flowtally.incidents
            assert flowtally.tally.flows == 1
            assert flowtally.proxy == os.environ["HTTP_PROXY"]
            get("/status/500")
            assert [flow["status"] for flow in flowtally.flows] == [200, 500]
            assert [each.cause for each in flowtally.incidents] == ["500"]
        """
    )
    result = project.run(plugins=("flowtally", "anyio"))
    result.assert_outcomes(passed=7 + len(ODD_IDS))
    tests = project.tested()
    odd = [test for test, path in tests if path == "/odd"]
    assert [pair for pair in tests if pair[1] != "/odd"] == sorted(
        [
            ("", "/before"),
            ("", "/between"),
            ("test_shop.py::test_imported", "/imported"),
            ("test_shop.py::test_thread", "/thread"),
            ("test_shop.py::test_subprocess", "/subprocess"),
            ("test_shop.py::test_async[asyncio]", "/async"),
            ("test_shop.py::TestCase::test_unit", "/setup"),
            ("test_shop.py::TestCase::test_unit", "/unit"),
            ("test_shop.py::TestCase::test_unit", "/teardown"),
            ("test_shop.py::test_last", "/first"),
            ("test_shop.py::test_last", "/status/500"),
            ("test_shop.py::test_last", "/last"),
        ]
    )
    assert len(set(odd)) == len(ODD_IDS)
    assert all(test.isprintable() and len(test) <= MAX_NAME for test in odd)
    assert name_of(f"test_shop.py::test_odd[{'x' * 600}]") in odd
    # The summary: an incident by its test, and where the log is.
    text = said(result)
    assert re.search(r"flowtally: \d+ flows, 1 unsuccessful", text)
    assert re.search(r"test_shop.py::test_last\n +1  -3 HTTPError: 500 Internal server error", text)
    assert f"Log: {project.folder / 'session.jsonl'}" in text
    assert (project.folder / "left.txt").read_text() == NOTHING


def test_only_tests_that_ask_go_through_without_the_option(project: Project) -> None:
    project.settings("flowtally_log = session.jsonl")
    project.conftest(WATCHED)
    project.tests(
        """
        def test_before():
            assert "HTTP_PROXY" not in os.environ
            get("/before")

        @pytest.mark.flowtally
        def test_marked():
            get("/marked")

        def test_between():
            assert "HTTP_PROXY" not in os.environ
            get("/between")

        def test_fixture(flowtally):
            get("/fixture")
            assert len(flowtally.flows) == 1

        def test_late(request):
            get("/early")
            flowtally = request.getfixturevalue("flowtally")
            get("/late")
            assert len(flowtally.flows) == 1

        @pytest.mark.flowtally
        @pytest.mark.skip
        def test_skipped():
            pass

        def test_after(monkeypatch):
            assert "HTTP_PROXY" not in os.environ
            get("/after")
        """
    )
    result = project.run()
    result.assert_outcomes(passed=6, skipped=1)
    assert project.tested() == [
        ("test_shop.py::test_fixture", "/fixture"),
        ("test_shop.py::test_late", "/late"),
        ("test_shop.py::test_marked", "/marked"),
    ]
    assert (project.folder / "left.txt").read_text() == NOTHING


def test_a_test_that_runs_again_has_only_the_flows_of_this_time(project: Project) -> None:
    project.settings("flowtally = true", "flowtally_log = session.jsonl")
    project.conftest(
        """
import threading
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    for _ in range(2):
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        item._initrequest()
        runtestprotocol(item, nextitem=nextitem)
        for thread in threading.enumerate():
            if thread.name == "slow":
                thread.join()
    return True
"""
    )
    project.tests(
        """
        def test_again(flowtally):
            get("/again")
            threading.Thread(target=get, args=["/slow"], name="slow").start()
            assert len(flowtally.flows) == 1
        """
    )
    project.run().assert_outcomes(passed=2)
    assert sorted(path for _, path in project.tested()) == ["/again", "/again", "/slow", "/slow"]


# --- budgets ---


def test_broken_budgets_fail_a_test_after_it_ran(project: Project) -> None:
    project.settings("flowtally = true", "flowtally_log = session.jsonl", "flowtally_max = 404=0")
    project.tests(
        """
        def test_default():
            assert get("/status/404") == 404

        @pytest.mark.flowtally(max={"404": 1})
        def test_replaced():
            assert get("/status/404") == 404

        @pytest.mark.flowtally(max={"Server error": 0, "problems": 0}, min={"flows": 2})
        def test_extended():
            assert get("/status/500") == 500

        @pytest.mark.flowtally(max={500: 0})
        class TestClass:
            @pytest.mark.flowtally(max={"500": 1})
            def test_nearest(self):
                assert get("/status/500") == 500

        @pytest.fixture
        def cleans_up():
            yield
            get("/status/404")

        def test_cleaned_up(cleans_up):
            pass

        @pytest.mark.xfail(strict=True)
        def test_expected():
            assert get("/status/404") == 404

        class TestCase(unittest.TestCase):
            def test_unit(self):
                assert get("/status/404") == 404

        def test_failed():
            get("/status/404")
            assert 0

        def test_skipped():
            get("/status/404")
            pytest.skip()

        @pytest.mark.flowtally(max={"Servererror": 0})
        def test_wrong_name():
            pass

        @pytest.mark.flowtally(min={"404": 1})
        def test_impossible():
            pass

        @pytest.mark.flowtally("x", most=1)
        def test_wrong_arguments():
            pass

        @pytest.mark.flowtally(max=0)
        def test_wrong_type():
            pass
        """
    )
    result = project.run("-rA")
    result.assert_outcomes(passed=3, failed=4, errors=5, xfailed=1, skipped=1)
    text = said(result)
    for line in (
        "FAILED test_shop.py::test_default - Failed: flowtally: 404 at most 0, is 1",
        "FAILED test_shop.py::test_failed - assert 0",
        "PASSED test_shop.py::test_replaced",
        "PASSED test_shop.py::TestClass::test_nearest",
        "FAILED test_shop.py::TestCase::test_unit - Failed: flowtally: 404 at most 0, is 1",
        "ERROR test_shop.py::test_cleaned_up - Failed: flowtally: 404 at most 0, is 1",
        "@pytest.mark.flowtally: max 'Servererror=0': there is no budget for 'Servererror'. "
        "Did you mean 'Server error'? There are",
        "  bands: Informational, Success, Redirection, Client error, Server error",
        "@pytest.mark.flowtally: 404 cannot be at least 1 and at most 0",
        "@pytest.mark.flowtally: 'x', most=…: allowed are max={NAME: NUMBER} and "
        "min={NAME: NUMBER}",
        "@pytest.mark.flowtally: max=0: allowed is a dict, such as {'Server error': 0}",
    ):
        assert line in result.outlines, text
    failure = text.partition("_ test_extended _")[2].partition("\n____")[0]
    assert (
        "flowtally: Server error at most 0, is 1; problems at most 0, is 1; flows at least 2, is 1"
        in failure
    )
    incident = r" +1  -3 HTTPError: 500 Internal server error  127.0.0.1:\d+  \[[0-9a-f]{8}\]"
    exceeded = rf"EXCEEDED +Server error +at most 0 +is 1\n{incident}\n +GET \S+/status/500"
    assert re.search(exceeded, failure)
    assert re.search(r"MISSED +flows +at least 2 +is 1", failure)
    # What a test failed for may be explained by what came through.
    assert "flowtally: incidents of this test" in text.partition("_ test_failed _")[2]


# --- xdist ---


@pytest.mark.parametrize("log", ["logs/", "session.jsonl"])
def test_workers_have_a_proxy_each_and_one_report(project: Project, log: str) -> None:
    project.conftest(WATCHED)
    project.tests(
        """
        import pathlib

        @pytest.mark.parametrize("number", range(6))
        def test_many(number):
            get(f"/status/50{number}")
            get(f"/{os.environ['PYTEST_XDIST_WORKER']}")
            # Both workers have had a test before either goes on.
            pathlib.Path(f"seen-{os.environ['PYTEST_XDIST_WORKER']}").touch()
            while len(list(pathlib.Path().glob("seen-*"))) < 2:
                pass

        @pytest.mark.flowtally(max={"Server error": 0})
        def test_budget():
            get("/status/500")
        """
    )
    result = project.run(
        "-n2",
        "--flowtally",
        "--flowtally-log",
        log,
        "--flowtally-html",
        "page.html",
        plugins=("flowtally", "xdist"),
    )
    result.assert_outcomes(passed=6, failed=1)
    tests = project.tested(log)
    assert {path for _, path in tests} >= {"/gw0", "/gw1"}
    assert [test for test, path in tests if path.startswith("/status")] == [
        "test_shop.py::test_budget",
        *(f"test_shop.py::test_many[{number}]" for number in range(6)),
    ]
    text = said(result)
    assert "flowtally: 13 flows, 7 unsuccessful" in text
    assert re.search(r"test_many\[3\]\n +1  -3 HTTPError: 503 Service unavailable", text)
    logs = re.findall(r"^Log: (.*)", text, re.MULTILINE)
    assert len(logs) == (2 if log == "logs/" else 1)
    page = (project.folder / "page.html").read_text("utf-8")
    assert page.count("Session ") == 2
    assert 'id="flows-data"' in page, "the single flows"
    assert f"Report: {project.folder / 'page.html'}" in text


def test_a_worker_that_crashes_leaves_its_log(project: Project) -> None:
    project.tests(
        """
        def test_crash():
            get("/status/500")
            os._exit(1)
        """
    )
    result = project.run(
        "-n1", "--flowtally", "--flowtally-log", "logs/", plugins=("flowtally", "xdist")
    )
    result.assert_outcomes(failed=1)
    assert re.search(r"test_shop.py::test_crash\n +1  -3 HTTPError: 500", said(result))


# --- what can go wrong ---

FOREIGN = "not flowtally's"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--flowtally-max", "failurs=0"], "flowtally: max 'failurs=0': there is no budget for"),
        (["--flowtally-min", "flows"], "flowtally: min 'flows': a budget is NAME=NUMBER"),
        (["--flowtally-set", "x"], "flowtally_set 'x': allowed is NAME=VALUE"),
        (["--flowtally-set", "flowtally_timeout=x"], "allowed is a number of seconds above 0"),
        (["--flowtally-log", "/proc/self/log"], "/proc/self/log: cannot be written: "),
        (["--flowtally-log", "foreign.txt"], "that file exists and is no flowtally log"),
    ],
)
def test_what_makes_no_sense_is_said_before_any_test(
    project: Project, arguments: list[str], message: str
) -> None:
    (project.folder / "foreign.txt").write_text(FOREIGN)
    project.tests("def test_nothing(): pass")
    result = project.run("--flowtally", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in said(result)
    assert "Traceback" not in said(result)
    assert (project.folder / "foreign.txt").read_text() == FOREIGN


@pytest.mark.parametrize(
    "option", ["--flowtally-html=page.html", "--flowtally-max=failures=0", "--flowtally-log=logs/"]
)
def test_an_option_that_nothing_comes_of_is_refused(project: Project, option: str) -> None:
    project.tests(
        """
        def test_plain():
            pass

        def test_watched(flowtally):
            pass
        """
    )
    result = project.run(option, "-k", "plain")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"{option.partition('=')[0]} without --flowtally: no test goes through" in said(result)
    assert "passed" not in said(result)
    assert project.run(option, "--collect-only").ret == pytest.ExitCode.OK
    project.settings(f"addopts = {option}")
    project.run("-k", "plain").assert_outcomes(passed=1, deselected=1)


def test_a_page_that_cannot_be_written_is_said_at_the_end(project: Project) -> None:
    (project.folder / "foreign.html").write_text(FOREIGN)
    project.tests("def test_one(flowtally): get('/one')")
    result = project.run("--flowtally-html", "foreign.html", "--flowtally-log", "session.jsonl")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "foreign.html: exists, and flowtally did not write it" in said(result)
    assert (project.folder / "foreign.html").read_text() == FOREIGN


def test_workers_whose_proxy_cannot_start_say_so_in_each_test(project: Project) -> None:
    project.tests("def test_nothing(): pass")
    result = project.run(
        "-n1",
        "--flowtally",
        "--flowtally-set",
        "flowtally_timeout=x",
        plugins=("flowtally", "xdist"),
    )
    result.assert_outcomes(errors=1)
    assert "flowtally_timeout='x': allowed is a number of seconds above 0" in said(result)


def test_a_proxy_that_is_killed_ends_no_test_but_those_with_budgets(project: Project) -> None:
    project.conftest(WATCHED)
    project.tests(
        """
        import psutil

        def test_before():
            assert get("/status/500") == 500

        def test_kills(flowtally):
            (proxy,) = psutil.Process().children()
            proxy.kill()
            proxy.wait()

        def test_goes_on():
            assert "HTTP_PROXY" not in os.environ
            assert get("/status/200") == 200

        @pytest.mark.flowtally(max={"problems": 0})
        def test_budget():
            pass

        def test_fixture(flowtally):
            pass
        """
    )
    result = project.run("--flowtally", "--flowtally-log", "session.jsonl")
    result.assert_outcomes(passed=3, failed=1, errors=1)
    text = said(result)
    assert (
        "FAILED test_shop.py::test_budget - Failed: flowtally: mitmdump has ended in the middle "
        "of the run" in text
    )
    summary = text.partition("= flowtally =")[2]
    assert summary.count("in the middle of the run\nWhat went through it from then on") == 1
    assert re.search(r"test_shop.py::test_before\n +1  -3 HTTPError: 500", summary)


@pytest.mark.parametrize("ends", ["raise KeyboardInterrupt", "pytest.exit('enough')"])
def test_an_interrupted_run_leaves_nothing(project: Project, ends: str) -> None:
    project.conftest(WATCHED)
    project.tests(
        f"""
        @pytest.fixture(scope="session")
        def last():
            yield
            get("/last")

        def test_forks(last):
            # It has the pipe to the proxy as well.
            if not os.fork():
                import time
                time.sleep(20)
                os._exit(0)

        def test_ends():
            get("/one")
            {ends}
        """
    )
    result = project.run("--flowtally", "--flowtally-log", "session.jsonl", "-s")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "flowtally: 2 flows" in said(result)
    assert (project.folder / "left.txt").read_text() == NOTHING


# --- Playwright ---


@pytest.mark.parametrize("option", [True, False], ids=["all", "marked"])
def test_pages_of_playwright_go_through(
    project: Project,
    tool: Tool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    option: bool,
) -> None:
    chromium = tool(*browser.NAMES)
    project.conftest(
        f"""
import pytest

@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args):
    return {{
        **browser_type_launch_args,
        "executable_path": {str(chromium)!r},
        "args": {list(browser.ARGUMENTS)!r},
    }}

@pytest.fixture(scope="session")
def browser_context_args(browser_context_args):
    return {{**browser_context_args, "locale": "en-GB"}}
"""
    )
    project.tests(
        """
        @pytest.mark.flowtally
        @pytest.mark.browser_context_args(timezone_id="Asia/Tokyo")
        def test_page(page):
            for url in (SITE, SITE.replace("127.0.0.1", "localhost"), os.environ["SECURE"]):
                page.goto(url + "/page")
            assert page.evaluate("navigator.language") == "en-GB"
            zone = page.evaluate("Intl.DateTimeFormat().resolvedOptions().timeZone")
            assert zone == "Asia/Tokyo"

        def test_other(page):
            page.goto(SITE + "/other")
        """
    )
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    tls = Authority.create(tmp_path_factory.mktemp("tls")).self_signed()
    arguments = ["--flowtally-log", "session.jsonl", "--flowtally-insecure-upstream"]
    with AnsweringServer(OK, tls=tls, name=HOST) as secure:
        monkeypatch.setenv("SECURE", secure.url)
        result = project.run(*arguments, *["--flowtally"] * option, plugins=())
    result.assert_outcomes(passed=2)
    # Chromium has traffic of its own.
    pages = [pair for pair in project.tested() if pair[1] in ("/page", "/other")]
    other = [("test_shop.py::test_other[chromium]", "/other")] * option
    assert pages == [*other, *[("test_shop.py::test_page[chromium]", "/page")] * 3]
    # It rejects each certificate once, before it asks whether any will do.
    assert "client_tls_rejected" not in (project.folder / "session.jsonl").read_text("utf-8")
