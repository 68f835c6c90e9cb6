"""`flowtally browse` with real browsers: what they load, what is said of it, how it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import psutil
import pytest
from flowtally.launch import leftovers
from flowtally.launch.profile import PROFILE
from lab import browser
from lab.laboratory import SCRIPTS
from lab.proxy import Output
from lab.servers import Answer
from lab.servers import AnsweringServer
from lab.tls import HOST
from lab.tls import Authority
from mitmproxy.io import FlowReader

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.timeout(120)

Tool = Callable[..., Path]

FIREFOX = ("firefox", "firefox-esr")
HEADLESS = ("--headless=new", "--disable-gpu", "--remote-debugging-port=0")
CLOSED = f"scripts={SCRIPTS / 'closed_network.py'}"
SECONDS = 40.0
"""How long a browser may take to do something on a busy machine."""
STEP = 0.02


def page(title: str) -> Answer:
    body = f"<!doctype html><title>{title}</title><link rel=icon href=data:,>{title}".encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n"
    return Answer(head.encode() + body)


class Browsing:
    """A `flowtally browse` that runs."""

    def __init__(self, folder: Path, arguments: Sequence[str | Path], **environment: str) -> None:
        # Not in `folder`, whose path is too long for the sockets that Chromium has there.
        self.temporary = Path(tempfile.mkdtemp(prefix="browse-"))
        self.log = folder / "log.jsonl"
        kept = {name: value for name, value in os.environ.items() if name not in DISPLAYS}
        options = ["--log", str(self.log), "--set", f"confdir={folder / 'confdir'}"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flowtally", "browse", *options, *map(str, arguments)],
            env={**kept, "TMPDIR": str(self.temporary), "COLUMNS": "100", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,  # as a terminal's foreground job
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.stdout, self.stderr = Output(self.process.stdout), Output(self.process.stderr)

    def wait_for(self, found: Callable[[], Any], running: bool = True) -> Any:
        deadline = time.monotonic() + SECONDS
        while not (value := found()):
            assert time.monotonic() < deadline, self.stderr.text
            assert not running or self.process.poll() is None, self.stderr.text
            time.sleep(STEP)
        return value

    @property
    def folder(self) -> Path:
        """The private folder."""
        (folder,) = self.temporary.glob("flowtally-*")
        return folder

    def port(self) -> int:
        """The port of Chromium's DevTools."""
        file = self.wait_for(lambda: list(self.temporary.glob(f"*/{PROFILE}/DevToolsActivePort")))
        return int(self.wait_for(file[0].read_text).split("\n")[0])

    def records(self) -> list[dict[str, Any]]:
        lines = self.log.read_bytes().splitlines(keepends=True) if self.log.exists() else []
        found = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return [record for record in found if record["type"] in ("flow", "event")]

    def status_of(self, url: str) -> list[int]:
        return [record["status"] for record in self.records() if record.get("url") == url]

    def problems(self) -> list[dict[str, Any]]:
        return [r for r in self.records() if "error_code" in r and "background" not in r]

    def processes(self) -> list[psutil.Process]:
        """All that belong to it; their command lines name its folder."""
        found = []
        for process in psutil.process_iter():
            try:
                if any(str(self.temporary) in word for word in process.cmdline()):
                    found.append(process)
            except psutil.Error:
                pass  # it has just ended
        return found

    def end(self) -> int:
        """Wait for its end; returns the exit status. Nothing may be left behind."""
        status = self.process.wait(SECONDS)
        self.stdout.join()
        self.stderr.join()
        assert self.processes() == []
        assert list(self.temporary.iterdir()) == []
        assert self.stdout.text == ""
        return status

    def interrupt(self) -> int:
        """Press Ctrl+C."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.end()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.wait_for(lambda: not self.processes(), running=False)
        shutil.rmtree(self.temporary)


DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "MOZ_HEADLESS")


@contextmanager
def browsing(folder: Path, *arguments: str | Path, **environment: str) -> Iterator[Browsing]:
    started = Browsing(folder, arguments, **environment)
    try:
        yield started
    finally:
        started.close()


@contextmanager
def driven(port: int) -> Iterator[Browser]:
    """Chromium, driven by way of its DevTools."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.connect_over_cdp(f"http://127.0.0.1:{port}")


def close(driven: Browser) -> None:
    """Close the browser as a person does, not only the connection to it."""
    driven.new_browser_cdp_session().send("Browser.close")


@pytest.fixture
def chromium(tool: Tool) -> str:
    return str(tool(*browser.NAMES))


@pytest.fixture
def firefox(tool: Tool) -> str:
    return str(tool(*FIREFOX))


@pytest.fixture
def screen(tool: Tool) -> Iterator[str]:
    """The name of a display without a screen."""
    command = [str(tool("Xvfb")), "-displayfd", "1", "-screen", "0", "1280x900x24"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            yield f":{process.stdout.readline().decode().strip()}"
        finally:
            process.terminate()


# --- pages ---


def test_chromium_loads_pages_and_trusts_the_proxy(chromium: str, tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    options = ["--browser", chromium, "--set", CLOSED, "--html", str(tmp_path / "report.html")]
    with (
        AnsweringServer(page("Plain")) as plain,
        AnsweringServer(page("Secure"), tls=authority.good(), name=HOST) as secure,
    ):
        trust = ["--trust", str(authority.bundle)]
        local = f"http://localhost:{plain.port}/local"
        with browsing(tmp_path, *options, *trust, f"{plain.url}/plain", "--", *HEADLESS) as run:
            with driven(run.port()) as chrome:
                (context,) = chrome.contexts
                run.wait_for(lambda: run.status_of(f"{plain.url}/plain"))
                (first,) = context.pages
                first.wait_for_load_state()
                assert first.title() == "Plain"
                assert first.url == f"{plain.url}/plain"
                for url, title in ((f"{secure.url}/secure", "Secure"), (local, "Plain")):
                    other = context.new_page()
                    other.goto(url)
                    assert other.title() == title
                live = context.new_page()
                live.goto("http://flowtally.test/")
                assert live.title() == "flowtally: 3 flows, 0 problems"
                close(chrome)
            assert run.end() == 0
        for url in (f"{plain.url}/plain", f"{secure.url}/secure", local):
            assert run.status_of(url) == [200]
        assert run.problems() == []
        assert "\nflowtally: 3 flows" in run.stderr.text
        assert run.stderr.text.endswith(f"\nSession log: {run.log}\n")
        assert "3 flows" in (tmp_path / "report.html").read_text("utf-8")


def test_the_live_page_is_in_a_second_tab(chromium: str, screen: str, tmp_path: Path) -> None:
    options = ["--browser", chromium, "--set", CLOSED]
    with (
        AnsweringServer(page("Shop")) as shop,
        browsing(
            tmp_path,
            *(*options, f"127.0.0.1:{shop.port}", "--", "--remote-debugging-port=0"),
            DISPLAY=screen,
        ) as run,
    ):
        run.wait_for(lambda: run.status_of(f"{shop.url}/"))
        with driven(run.port()) as chrome:
            (context,) = chrome.contexts
            run.wait_for(lambda: len(context.pages) == 2)
            pages = {tab.url: tab for tab in context.pages}
            # Playwright meets them in any order.
            assert pages.keys() == {f"{shop.url}/", "http://flowtally.test/"}
            live = pages["http://flowtally.test/"]
            # Not by Playwright's wait_for_function: the page forbids what that evaluates.
            run.wait_for(lambda: live.title() == "flowtally: 1 flow, 0 problems")
            for name, tab in zip(("first", "second"), context.pages, strict=True):
                browser.picture(tab, f"browse-{name}-tab")
            close(chrome)
        assert run.end() == 0
    assert run.problems() == []


@pytest.mark.parametrize(("host", "url"), [("own.test", "http://own.test/"), ("", "about:blank")])
def test_without_a_url_there_is_the_live_page_alone(
    host: str, url: str, chromium: str, tmp_path: Path
) -> None:
    options = ["--browser", chromium, "--set", CLOSED, "--set", f"flowtally_host={host}"]
    with browsing(tmp_path, *options, "--", *HEADLESS) as run, driven(run.port()) as chrome:
        (only,) = chrome.contexts[0].pages
        only.wait_for_load_state()
        assert only.url == url
        assert run.interrupt() == 130


def test_chromium_has_no_problems_of_its_own_on_a_closed_network(
    chromium: str, tmp_path: Path
) -> None:
    options = ["--browser", chromium, "--set", CLOSED]
    with (
        AnsweringServer(page("Shop")) as shop,
        browsing(tmp_path, *options, f"{shop.url}/", "--", *HEADLESS) as run,
    ):
        run.wait_for(lambda: run.status_of(f"{shop.url}/"))
        # There is no way to keep Chromium 156 from asking for these.
        run.wait_for(lambda: any("background" in record for record in run.records()))
        assert run.interrupt() == 130
    assert run.problems() == []
    assert {r["host"] for r in run.records() if "background" in r} <= {
        "accounts.google.com",
        "update.googleapis.com",
    }


def test_firefox_loads_pages_and_trusts_the_proxy(firefox: str, tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    flows = tmp_path / "flows"
    options = ["--browser", firefox, "--set", CLOSED, "--set", f"save_stream_file={flows}"]
    with (
        AnsweringServer(page("Secure"), tls=authority.good(), name=HOST) as secure,
        AnsweringServer(page("Plain")) as plain,
    ):
        trust = ["--trust", str(authority.bundle)]
        url, second = f"{secure.url}/secure", f"http://localhost:{plain.port}/plain"
        # An argument that is an address is one more tab.
        with browsing(tmp_path, *options, *trust, url, "--", "--headless", second) as run:
            run.wait_for(lambda: run.status_of(url) and run.status_of(second))
            run.wait_for(lambda: b"flowtally.test" in flows.read_bytes())
            assert run.interrupt() == 130
        assert run.status_of(url) == run.status_of(second) == [200]
        # Not even background traffic.
        assert {record["port"] for record in run.records()} == {secure.port, plain.port}
    with flows.open("rb") as file:
        hosts = [flow.request.host for flow in FlowReader(file).stream()]  # type: ignore[attr-defined]
    assert "flowtally.test" in hosts


# --- the end ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_browser_and_session(
    number: signal.Signals, chromium: str, tmp_path: Path
) -> None:
    with browsing(tmp_path, "--browser", chromium, "--", *HEADLESS) as run:
        run.port()
        run.process.send_signal(number)
        assert run.end() == 128 + number
        assert f"Session log: {run.log}" in run.stderr.text


def test_ctrl_c_ends_what_has_only_begun(tmp_path: Path) -> None:
    program = browser_that(tmp_path, "exec sleep 60")
    with browsing(tmp_path, "--browser", program, "--", "--headless") as run:
        run.wait_for(lambda: list(run.temporary.iterdir()))
        assert run.interrupt() == 130
        assert "Traceback" not in run.stderr.text


@pytest.mark.parametrize("name", ["chromium", "firefox"])
def test_nothing_is_left_of_a_session_that_was_killed(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    program = request.getfixturevalue(name)
    arguments = HEADLESS if name == "chromium" else ("--headless",)
    with browsing(tmp_path, "--browser", program, "--", *arguments) as run:
        run.wait_for(lambda: list(run.temporary.glob(f"*/{leftovers.COMPANION}")))
        run.wait_for(lambda: len(list((run.folder / PROFILE).iterdir())) > 5)
        run.process.kill()
        run.wait_for(lambda: not run.processes(), running=False)
        run.wait_for(lambda: not list(run.temporary.iterdir()), running=False)


def test_the_browser_ends_with_a_proxy_that_was_killed(chromium: str, tmp_path: Path) -> None:
    with browsing(tmp_path, "--browser", chromium, "--", *HEADLESS) as run:
        run.port()
        (proxy,) = (p for p in run.processes() if "flowtally.launch.process" in p.cmdline())
        proxy.kill()
        assert run.end() == 2
        assert "flowtally: mitmdump has ended" in run.stderr.text


# --- what goes wrong ---


def browser_that(folder: Path, does: str) -> Path:
    path = folder / "browser"
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("does", "status", "how"),
    [
        ("printf 'no library \\033[31m\\n' >&2; exit 3", 3, "with status 3"),
        ("echo no library; kill -TERM $$", 143, "by signal 15"),
    ],
)
def test_the_last_words_of_a_browser_that_fails_are_shown(
    does: str, status: int, how: str, tmp_path: Path
) -> None:
    program = browser_that(tmp_path, does)
    with browsing(tmp_path, "--browser", program, "--", "--headless") as run:
        assert run.end() == status
        said = run.stderr.text
    assert f"flowtally: {program} ended {how}\nno library" in said
    assert "\x1b" not in said
    assert "nothing came through the proxy" in said


def test_what_the_browser_is_given(tmp_path: Path) -> None:
    """Its arguments and its environment."""
    program = browser_that(
        tmp_path, f'printf "%s\\n" "$@" >{tmp_path}/arguments; env >{tmp_path}/env'
    )
    with browsing(
        tmp_path,
        *("--browser", program, "shop.test", "--", "--headed", "--a=b c"),
        DISPLAY=":99",
        http_proxy="http://elsewhere.example:1",
        NO_PROXY="localhost",
    ) as run:
        assert run.end() == 0
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[-4:] == ["--headed", "--a=b c", "http://shop.test", "http://flowtally.test/"]
    assert ("--no-sandbox" in arguments) == (os.geteuid() == 0)
    assert ("--no-sandbox" in run.stderr.text) == (os.geteuid() == 0)
    assert not re.search("_proxy=", (tmp_path / "env").read_text(), re.IGNORECASE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--browser", "netscape"], "--browser 'netscape': there is no such program. Known are"),
        (["ftp://example.com"], "'ftp://example.com': allowed is a URL with http or https"),
        (["http://a.test", "http://b.test"], "'http://b.test': allowed is one URL"),
        (["--browser", "sh", "localhost"], "there is no display for the browser"),
        (
            ["--browser", "sh", "--", "--headless", "--user-data-dir=/mine"],
            "--user-data-dir: flowtally decides that itself",
        ),
        (
            ["--browser", "sh", "--set", "flowtally_timeout=never", "--", "--headless"],
            "flowtally_timeout='never': allowed is a number of seconds",
        ),
    ],
)
def test_bad_input_gets_a_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    with browsing(tmp_path, *arguments) as run:
        assert run.end() == 2
    assert said in run.stderr.text
    assert "Traceback" not in run.stderr.text


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with browsing(tmp_path, "--browser", "/snap/bin/none") as run:
        assert run.end() == 2
    assert "there is no such program" in run.stderr.text
