"""The clients that people use, through the proxy: what one of them asks for is one record."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import requests
from lab import http2
from lab.expected import status
from lab.factories import over_http2
from lab.laboratory import Laboratory
from lab.proxy import Mitmdump
from lab.servers import AnsweringServer
from lab.servers import site
from lab.tls import HOST

pytestmark = pytest.mark.timeout(60)

Tool = Callable[[str], Path]
Client = Callable[[Mitmdump, str, Tool], int]
"""Fetches a URL; returns the status."""


def use_requests(proxy: Mitmdump, url: str, _: Tool) -> int:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, proxies=proxy.proxies, verify=str(proxy.ca), timeout=15).status_code


def use_httpx(proxy: Mitmdump, url: str, _: Tool) -> int:
    context = ssl.create_default_context(cafile=str(proxy.ca))
    with httpx.Client(
        proxy=proxy.url, verify=context, http2=True, timeout=15, trust_env=False
    ) as client:
        return client.get(url).status_code


def use_curl(proxy: Mitmdump, url: str, tool: Tool) -> int:
    command = [str(tool("curl")), "--disable", "--silent", "--max-time", "15", "--http2"]
    command += ["--noproxy", "", "--proxy", proxy.url, "--cacert", str(proxy.ca)]
    command += ["--output", "-", "--write-out", "\n%{http_code}", url]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return int(done.stdout.splitlines()[-1])


CLIENTS: dict[str, Client] = {"requests": use_requests, "httpx": use_httpx, "curl": use_curl}


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    return CLIENTS[request.param]


def test_http(laboratory: Laboratory, client: Client, tool: Tool) -> None:
    proxy = laboratory.proxy("regular")
    url = f"{laboratory.origin.url}/status/404"
    answers: list[int] = []
    records = laboratory.observe(proxy, lambda: answers.append(client(proxy, url, tool)), 1)
    (record,) = records
    status(404, "Not found", url=url, method="GET", http_version="HTTP/1.1").check(record)
    assert answers == [404]


def test_https(laboratory: Laboratory, client: Client, tool: Tool) -> None:
    proxy = laboratory.proxy("regular")
    answers: list[int] = []
    with AnsweringServer(site, tls=laboratory.authority.good(), name=HOST) as server:
        url = f"{server.url}/status/503"
        records = laboratory.observe(proxy, lambda: answers.append(client(proxy, url, tool)), 1)
    (record,) = records
    status(503, "Service unavailable", url=url, http_version="HTTP/1.1").check(record)
    assert answers == [503]


@pytest.mark.parametrize("client", ["httpx", "curl"], indirect=True)
def test_http2(laboratory: Laboratory, client: Client, tool: Tool) -> None:
    proxy = laboratory.proxy("regular")
    answers: list[int] = []
    with over_http2(http2.answer)(laboratory) as server:
        url = f"{server.url}/"
        records = laboratory.observe(proxy, lambda: answers.append(client(proxy, url, tool)), 1)
    (record,) = records
    status(200, "OK", url=url, http_version="HTTP/2.0").check(record)
    assert answers == [200]
