"""The commands in mitmproxy's own interfaces: the console, and mitmweb by its HTTP interface."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab import clients
from lab.clients import Destination
from lab.mitmweb import HERE
from lab.mitmweb import arguments
from lab.mitmweb import mitmweb
from lab.mitmweb import records
from lab.mitmweb import wait_for
from lab.proxy import START_TIMEOUT
from lab.proxy import WAIT_TIMEOUT
from lab.proxy import free_port
from lab.servers import DeadPort

OWN = Destination("flowtally.test", 80)


# --- mitmweb ---


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
