"""The commands in mitmproxy's own interfaces: the console, and mitmweb by its HTTP interface."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from lab import clients
from lab.clients import Destination
from lab.proxy import ADDON
from lab.proxy import START_TIMEOUT
from lab.proxy import WAIT_TIMEOUT
from lab.proxy import Output
from lab.proxy import free_port
from lab.servers import DeadPort

HERE = Path(sys.executable).parent
OWN = Destination("flowtally.test", 80)


def wait_for(found: Callable[[], bool], timeout: float, output: Callable[[], str]) -> None:
    deadline = time.monotonic() + timeout
    while not found():
        assert time.monotonic() < deadline, output()
        time.sleep(0.02)


def arguments(folder: Path, port: int) -> list[str]:
    options = {
        "confdir": folder / "confdir",
        "listen_host": "127.0.0.1",
        "listen_port": port,
        "flowtally_log": folder / "log.jsonl",
    }
    settings = [part for name, value in options.items() for part in ("--set", f"{name}={value}")]
    return [*settings, "-s", str(ADDON)]


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_bytes().splitlines()]


# --- mitmweb ---


class Web:
    """mitmweb's HTTP interface, used as its own script uses it."""

    def __init__(self, port: int, token: str) -> None:
        self.port, self.token = port, token
        self.cookies: dict[str, str] = {}
        self._get(f"/?token={token}")
        # One generation hands out the token against forged requests here, the other one there.
        self._get("/updates", {"Connection": "Upgrade", "Upgrade": "websocket"} | WEB_SOCKET)
        (self.xsrf,) = (value for name, value in self.cookies.items() if name.endswith("_xsrf"))

    def _get(self, path: str, headers: dict[str, str] | None = None) -> None:
        self._ask("GET", path, None, headers or {})

    def _ask(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> bytes:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=WAIT_TIMEOUT)
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection.request(
            method, path, body, {**headers, **({"Cookie": cookies} if cookies else {})}
        )
        response = connection.getresponse()
        assert response.status in (101, 200, 302), (path, response.status)
        for header in response.headers.get_all("Set-Cookie", []):
            for name, morsel in SimpleCookie(header).items():
                self.cookies[name] = morsel.coded_value
        content = response.read() if response.status == 200 else b""
        connection.close()
        return content

    def flows(self) -> list[dict[str, Any]]:
        """What its list of flows holds."""
        found: list[dict[str, Any]] = json.loads(self._ask("GET", "/flows", None, {}))
        return found

    def call(self, name: str, *given: str | Path) -> dict[str, Any]:
        """Call a command."""
        body = json.dumps({"arguments": [str(argument) for argument in given]})
        headers = {"Content-Type": "application/json", "X-XSRFToken": self.xsrf}
        answer: dict[str, Any] = json.loads(self._ask("POST", f"/commands/{name}", body, headers))
        return answer


WEB_SOCKET = {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}


@contextmanager
def mitmweb(folder: Path) -> Iterator[tuple[Web, int]]:
    """A running mitmweb, and the port of its proxy."""
    port, web_port = free_port(), free_port()
    command = [str(HERE / "mitmweb"), "--no-web-open-browser", "--web-port", str(web_port)]
    with subprocess.Popen(
        [*command, *arguments(folder, port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        output = Output(process.stdout)
        try:
            wait_for(
                lambda: (
                    "Web server listening at" in output.text and "proxy listening" in output.text
                ),
                START_TIMEOUT,
                lambda: output.text,
            )
            token = re.search(r"\?token=(\w+)", output.text)
            yield Web(web_port, token[1] if token else ""), port
        finally:
            process.terminate()
            process.wait(START_TIMEOUT)
            output.join()
    assert "flowtally: defect" not in output.text, output.text
    assert "ddon error" not in output.text, output.text


def test_commands_in_mitmweb(tmp_path: Path) -> None:
    page, mine = tmp_path / "page.html", tmp_path / "mine"
    mine.write_text("mine")
    with mitmweb(tmp_path) as (web, port), DeadPort() as dead:
        assert web.call("flowtally.summary")["value"][0] == "flowtally: 0 flows"
        assert clients.exchange(port, clients.absolute_get(OWN)).startswith(b"HTTP/1.1 200 OK")
        assert b" 502 " in clients.exchange(port, clients.absolute_get(dead))[:20]
        summary = web.call("flowtally.summary")["value"]
        assert summary[0].startswith("flowtally: 1 flow, 1 failed (100.0 %)")
        assert summary[3] == f"  1  -2 ConnectionErr: connection_refused  127.0.0.1:{dead.port}"

        assert web.call("flowtally.report", page) == {"value": None}
        assert "connection_refused" in page.read_text("utf-8")
        assert web.call("flowtally.report", mine) == {
            "error": f"{mine}: exists, and flowtally did not write it"
        }
        assert mine.read_text() == "mine"

        assert web.call("flowtally.new") == {"value": None}
        assert web.call("flowtally.summary")["value"][0] == "flowtally: 0 flows"
    types = [record["type"] for record in records(tmp_path)]
    assert types == ["session_start", "flow", "stats", "session_start", "stats"]


def test_a_watched_page_does_not_fill_the_list_of_flows(tmp_path: Path) -> None:
    with mitmweb(tmp_path) as (web, port), DeadPort() as dead:
        clients.exchange(port, clients.absolute_get(dead))
        for _ in range(5):
            assert b" 200 OK" in clients.exchange(port, clients.absolute_get(OWN))[:20]
        # The last one may still be there: to take out a flow that has not ended would kill it.
        hosts = [flow["request"]["host"] for flow in web.flows()]
        assert hosts.count("127.0.0.1") == 1
        assert hosts.count(OWN.host) <= 1


# --- the console ---

TMUX = shutil.which("tmux") or ""


@contextmanager
def console(folder: Path, port: int) -> Iterator[Callable[..., str]]:
    """mitmproxy's console on a terminal of tmux's; what is yielded runs a command of tmux's."""
    socket = folder / "tmux"

    def tmux(*command: str) -> str:
        done = subprocess.run(
            [TMUX, "-S", str(socket), *command],
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=WAIT_TIMEOUT,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        return done.stdout

    program = [str(HERE / "mitmproxy"), *arguments(folder, port)]
    tmux("-u", "new-session", "-d", "-x", "140", "-y", "40", *program)
    try:
        wait_for(
            lambda: "q Quit" in tmux("capture-pane", "-p"),
            START_TIMEOUT,
            lambda: tmux("capture-pane", "-p"),
        )
        yield tmux
    finally:
        tmux("kill-server")


@pytest.mark.skipif(not TMUX, reason="needs tmux")
def test_commands_in_the_console(tmp_path: Path) -> None:
    port, page = free_port(), tmp_path / "page.html"
    with console(tmp_path, port) as tmux, DeadPort() as dead:

        def type_command(command: str, shows: str) -> None:
            tmux("send-keys", f":{command}", "Enter")
            wait_for(
                lambda: shows in tmux("capture-pane", "-p", "-J"),
                WAIT_TIMEOUT,
                lambda: tmux("capture-pane", "-p"),
            )

        clients.exchange(port, clients.absolute_get(dead))
        type_command(
            "flowtally.summary",
            f"1  -2 ConnectionErr: connection_refused  127.0.0.1:{dead.port}",
        )
        tmux("send-keys", "q")
        type_command(f"flowtally.report {page}", "flowtally: report written to")
        type_command("flowtally.new", "flowtally: a new session began")
    assert "connection_refused" in page.read_text("utf-8")
    types = [record["type"] for record in records(tmp_path)]
    assert types[:4] == ["session_start", "flow", "stats", "session_start"]
