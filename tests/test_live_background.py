"""A real Chromium on a network without a way out: what it asks for on its own is no problem."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import browser
from lab import clients
from lab import servers
from lab.clients import Destination
from lab.laboratory import SCRIPTS
from lab.laboratory import Laboratory
from lab.laboratory import Setup
from lab.proxy import Record

pytestmark = pytest.mark.timeout(90)

CLOSED = Setup(scripts=[SCRIPTS / "closed_network.py"])
BODY = (
    b"<!doctype html><title>A page</title><link rel=icon href=data:,>"
    b"<form><input name=email><input type=password name=password></form>"
)
PAGE = servers.Answer(
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s"
    % (len(BODY), BODY)
)
# What Chromium 156 asked each time; there is more, and other versions ask others.
USUAL = {"update.googleapis.com", "clients2.google.com", "accounts.google.com"}


def own(records: list[Record]) -> set[str]:
    return {record["host"] for record in records if "background" in record}


def test_chromium_on_a_closed_network_has_no_problems(
    laboratory: Laboratory, tool: Callable[..., Path], tmp_path: Path
) -> None:
    executable = tool(*browser.NAMES)
    proxy = laboratory.mitmdump("closed network", CLOSED)
    with proxy, servers.AnsweringServer(PAGE) as server:
        # As a person starts it: nothing of what it does on its own is switched off.
        command = [
            *(str(executable), "--headless=new", "--no-sandbox", "--disable-gpu"),
            *(f"--user-data-dir={tmp_path}", f"--proxy-server={proxy.url}"),
            *("--proxy-bypass-list=<-loopback>", f"{server.url}/page"),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            try:
                proxy.wait_for(lambda _: own(proxy.flows()) >= USUAL, timeout=60)
            finally:
                process.terminate()
                process.communicate(timeout=30)
        proxy.wait_idle()
        found, log = proxy.outcomes(), proxy.output
    pages = [record for record in found if record.get("port") == server.port]
    assert [record["status"] for record in pages] == [200]
    assert "background" not in pages[0]
    problems = [record for record in found if "error_code" in record]
    assert len(problems) >= len(USUAL)
    assert [record for record in problems if "background" not in record] == []
    # Nor is it said while the proxy runs.
    assert "connection_refused" not in log


@pytest.mark.parametrize(
    ("option", "whose"), [("known", None), ("none", None), ("a.test, b.test", "a.test")]
)
def test_hosts_of_the_users(laboratory: Laboratory, option: str, whose: str | None) -> None:
    setup = Setup(scripts=CLOSED.scripts, options={"flowtally_background": option})
    with laboratory.mitmdump(f"background {option[:4]}", setup) as proxy:
        for host in ("api.a.test", "update.googleapis.com", "c.test"):
            clients.get(proxy, Destination(host, 80))
        proxy.wait_for(lambda _: len(proxy.flows()) >= 3)
        seen = {record["host"]: record.get("background") for record in proxy.flows()}
    assert seen == {
        "api.a.test": whose,
        "update.googleapis.com": None if option == "none" else "Google",
        "c.test": None,
    }


def test_a_refused_handshake_says_whose(laboratory: Laboratory) -> None:
    """A failure without a flow; a browser trusts nobody but its maker there."""
    setup = Setup(scripts=CLOSED.scripts, options={"connection_strategy": "lazy"})
    hosts = {"update.googleapis.com": "Google", "app.test": None}
    with laboratory.mitmdump("background events", setup) as proxy:
        for host in hosts:
            clients.distrust(proxy, Destination(host, 443))
        proxy.wait_for(lambda _: len(proxy.events()) >= len(hosts))
        events = proxy.events()
    assert {event["cause"] for event in events} == {"client_tls_rejected"}
    assert {event["host"]: event.get("background") for event in events} == hosts
