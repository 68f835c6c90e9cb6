"""Which test a flow belongs to, and that a test's flows are in the log when it has ended."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from http.client import HTTPSConnection
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from flowtally.current_test import MAX_CHANGES
from flowtally.current_test import MAX_NAME
from flowtally.current_test import CurrentTest
from flowtally.current_test import name_of
from flowtally.launch import attribution
from flowtally.launch.proxy import Proxy
from flowtally.open_flows import OpenFlows
from flowtally.valid import check
from hypothesis import given
from hypothesis import strategies as st
from lab.cli import event
from lab.cli import failed
from lab.servers import OK
from lab.servers import SILENT
from lab.servers import Answer
from lab.servers import AnsweringServer
from lab.servers import Request
from lab.tls import HOST
from lab.tls import Authority
from mitmproxy import certs
from mitmproxy.test import tflow

Record = dict[str, Any]
NUMBERS = count(1)

# --- pure ---


@given(st.lists(st.tuples(st.sampled_from(["a", "b", ""]), st.floats(0, 100)), max_size=20))
def test_a_time_belongs_to_the_last_test_that_began_before(
    changes: list[tuple[str, float]],
) -> None:
    tests = CurrentTest()
    latest = 0.0
    begun = []
    for name, moment in changes:
        tests.change(name, moment)
        latest = max(latest, moment)
        begun.append((latest, name))
    for moment in [0.0, 50.0, 100.0, *(each for each, _ in begun)]:
        before = [name for each, name in begun if each <= moment]
        assert tests.at(moment) == (before[-1] if before else "")


def test_what_began_too_long_ago_has_no_test() -> None:
    tests = CurrentTest()
    for number in range(MAX_CHANGES + 1):
        tests.change(str(number), number)
    assert [tests.at(moment) for moment in (0, 1, MAX_CHANGES)] == ["", "1", str(MAX_CHANGES)]


@given(st.text(max_size=2 * MAX_NAME), st.text(max_size=2 * MAX_NAME))
def test_names_of_tests_are_short_printable_and_different(one: str, other: str) -> None:
    names = name_of(one), name_of(other)
    assert all(name.isprintable() and len(name) <= MAX_NAME for name in names)
    assert (names[0] == names[1]) == (one == other)


def test_a_long_name_is_cut_and_stays_its_own() -> None:
    names = {name_of("x" * MAX_NAME + end) for end in ("a", "b")}
    assert [len(name) for name in names] == [MAX_NAME, MAX_NAME]


@pytest.mark.parametrize("node", ["", "tests/test_shop.py::TestPay::test_pay[a-ü]", "x" * MAX_NAME])
def test_a_usual_name_is_the_node_id(node: str) -> None:
    assert name_of(node) == node


@pytest.mark.parametrize("record", [failed(test=7), event(test=["x"])])
def test_a_test_is_text(record: Record) -> None:
    assert check({"seq": 1, **record}).startswith("test is ")


# --- a real proxy ---


class ProxyOfTests:
    """A proxy that is told which test runs."""

    def __init__(self, folder: Path) -> None:
        certs.CertStore.from_store(folder, "mitmproxy", 2048)
        self.proxy = Proxy()
        options = [f"confdir={folder}", f"flowtally_log={folder}/log.jsonl", "ssl_insecure=true"]
        self.proxy.start([part for option in options for part in ("--set", option)])
        self.ready = self.proxy.ready
        self.test = ""

    def begin(self) -> None:
        self.test = f"test-{next(NUMBERS)}"
        self.proxy.ask({"test": self.test})

    def settle(self) -> int:
        return int(self.proxy.ask({"settle": self.test})["open"])

    @property
    def address(self) -> tuple[str, int]:
        return self.ready.host, self.ready.port

    def records(self) -> list[Record]:
        """Those of the last test that began."""
        lines = self.ready.log.read_text("utf-8").splitlines()
        return [each for each in map(json.loads, lines) if each.get("test") == self.test]


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyOfTests]:
    tested = ProxyOfTests(tmp_path_factory.mktemp("tested"))
    with tested.proxy:
        yield tested


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    return Authority.create(tmp_path_factory.mktemp("tls")).good()


def ask(tested: ProxyOfTests, server: AnsweringServer) -> socket.socket:
    """Send a request, and wait for nothing."""
    client = socket.create_connection(tested.address)
    host = f"{server.host}:{server.port}"
    client.sendall(f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return client


def test_flows_that_do_not_end_are_not_waited_for(tested: ProxyOfTests) -> None:
    tested.begin()
    with AnsweringServer(SILENT) as server, ask(tested, server) as client:
        server.wait_request()
        assert tested.settle() == 1
        assert not tested.records()
        client.close()
        assert tested.settle() == 0
        assert [record["outcome"] for record in tested.records()] == ["cancelled"]


def test_a_question_that_is_interrupted_leaves_no_answer_behind(tested: ProxyOfTests) -> None:
    def interrupt(*_: object) -> None:
        raise InterruptedError

    tested.begin()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with AnsweringServer(SILENT) as server, ask(tested, server):
            server.wait_request()
            signal.setitimer(signal.ITIMER_REAL, 0.05)  # it is answered after 0.3 s
            with pytest.raises(InterruptedError):
                tested.settle()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    tested.begin()
    assert tested.settle() == 0


def test_flows_that_end_are_waited_for(tested: ProxyOfTests) -> None:
    answered = threading.Event()

    def answer(_: Request) -> Answer:
        answered.wait(5)
        return OK

    tested.begin()
    with AnsweringServer(answer) as server, ask(tested, server):
        server.wait_request()
        threading.Thread(target=answered.set).start()
        assert tested.settle() == 0
        assert [record["status"] for record in tested.records()] == [200]


def test_other_flows_are_not_waited_for(tested: ProxyOfTests) -> None:
    tested.begin()
    with AnsweringServer(SILENT) as server, ask(tested, server):
        server.wait_request()
        tested.begin()
        assert tested.settle() == 0


def test_what_began_between_two_tests_is_of_none(tested: ProxyOfTests) -> None:
    tested.begin()
    tested.proxy.ask({"test": ""})
    with AnsweringServer(OK) as server:
        client = HTTPConnection(*tested.address)
        client.request("GET", f"http://{server.host}:{server.port}/")
        client.getresponse().read()
        client.close()
    assert tested.settle() == 0
    assert not tested.records()
    assert '"url":"http://' in tested.ready.log.read_text("utf-8").splitlines()[-1]


@pytest.mark.parametrize("_", range(10))
def test_a_client_that_has_just_left_is_in_the_log(
    tested: ProxyOfTests, tls: ssl.SSLContext, _: int
) -> None:
    tested.begin()
    with AnsweringServer(OK, tls=tls, name=HOST) as server:
        client = HTTPSConnection(*tested.address)  # which does not trust the proxy
        client.set_tunnel(HOST, server.port)
        with pytest.raises(ssl.SSLError):
            client.connect()
        client.close()
    assert tested.settle() == 0
    assert [record["cause"] for record in tested.records()] == ["client_tls_rejected"]


# --- whom it listens to ---

ENDS = [
    "response",
    "error",
    "websocket_end",
    "http_connected",
    "http_connect_error",
    "tcp_end",
    "tcp_error",
    "udp_end",
    "udp_error",
    "dns_response",
    "dns_error",
]


@pytest.mark.parametrize("hook", ENDS)
def test_every_hook_that_ends_a_flow_ends_the_waiting(
    hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attribution, "SETTLE_TIMEOUT", 600.0)

    async def wait() -> int:
        flows = OpenFlows()
        addon = attribution.Attribution(flows)
        addon.tests.change("test", 0.0)
        flow = flows["1"] = tflow.tflow()
        waiting = asyncio.create_task(addon.settle("test"))
        for _ in range(2 * attribution.TURNS):
            await asyncio.sleep(0)
        assert not waiting.done()
        flows.clear()
        getattr(addon, hook)(flow)
        return await asyncio.wait_for(waiting, 30)

    assert asyncio.run(wait()) == 0
