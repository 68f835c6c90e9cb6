"""A running mitmweb, and its HTTP interface."""

from __future__ import annotations

import json
import os
import re
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

from .proxy import ADDON
from .proxy import START_TIMEOUT
from .proxy import WAIT_TIMEOUT
from .proxy import Output
from .proxy import free_port

HERE = Path(sys.executable).parent


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
