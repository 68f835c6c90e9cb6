"""Another script may put anything into a flow, and a hook may come at any time: no hook raises, and
nobody but that flow suffers."""

from __future__ import annotations

import asyncio
import enum
import inspect
import random
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from flowtally import logs
from flowtally.encoding import decode
from flowtally.valid import check
from lab.addon import running
from mitmproxy import connection
from mitmproxy import ctx
from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy import tls
from mitmproxy.proxy import server_hooks
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import tflow

CALLS = 3000
"""Calls of hooks for each seed."""
HTTP = [
    *("requestheaders", "request", "responseheaders", "response", "error", "websocket_end"),
    *("http_connect", "http_connected", "http_connect_error", "http_connect_upstream"),
]
OTHERS = {
    "tcp": ["tcp_start", "tcp_end", "tcp_error"],
    "udp": ["udp_start", "udp_end", "udp_error"],
    "dns": ["dns_request", "dns_response", "dns_error"],
}
OF_SERVERS = ["server_connect", "server_connected", "server_connect_error", "server_disconnected"]
OF_TLS = [
    "tls_start_server",
    "tls_established_server",
    "tls_failed_server",
    "tls_established_client",
    "tls_failed_client",
]


class Hostile:
    """Raises whatever is asked of it."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ValueError("eq")

    def __bool__(self) -> bool:
        raise ValueError("bool")

    def __str__(self) -> str:
        raise ValueError("str")


ODD: Sequence[Any] = [
    *(None, True, 0, -1, 65536, 70000, 10**20, 1e300, float("inf"), float("nan"), -5.5),
    *("", "404", "\ud800", "\x00\x1b", "a" * 5000, b"", b"\xff\x00", b"GET"),
    *([], [1, 2, 3], ["127.0.0.1", 5], (), ("h",), ("h", "p"), ("h", -1), ("h", 65536)),
    *((None, None), (b"h", 1.5), {}, {"a": 1}, set(), object(), len, OSError(5), Hostile()),
]


def attributes(thing: Any) -> list[str]:
    names = list(getattr(thing, "__dict__", {}))
    for kind in type(thing).__mro__:
        names += [name for name, value in vars(kind).items() if isinstance(value, property)]
    return [name for name in names if not name.startswith("__")]


def is_part(value: Any) -> bool:
    """Whether a value is of this flow alone; a connection's state and mode are everybody's."""
    shared = isinstance(value, (enum.Enum, ProxyMode, type)) or callable(value)
    return hasattr(value, "__dict__") and not shared


class Chaos:
    """Breaks things, and makes what hooks get."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def breaks(self, thing: Any) -> None:
        """Put something odd into some attribute, however deep."""
        while names := attributes(thing):
            name = self.random.choice(names)
            try:
                value = getattr(thing, name)
            except Exception:
                value = None
            if is_part(value) and self.random.random() < 0.8:
                thing = value
                continue
            try:
                setattr(thing, name, self.random.choice(ODD))
            except Exception:
                pass  # it cannot be set, or not to that
            return

    def flow(self) -> tuple[mflow.Flow, list[str]]:
        """A flow, and the names of its hooks."""
        coin = [self.random.random() < 0.4 for _ in range(5)]
        kind = self.random.choice(["http", "http", "http", *OTHERS])
        if kind == "http":
            made = tflow.tflow(resp=not coin[0], err=coin[1], ws=coin[2] and coin[3], live=coin[4])
            if made.response is not None and made.websocket is None:
                made.response.status_code = self.random.choice([200, 302, 401, 404, 407, 500, 101])
                made.response.headers["location"] = self.random.choice(["/x", "http://["])
            if coin[2]:
                made.request.method = "CONNECT"
            if coin[3]:
                made.request.headers["host"] = self.random.choice(["flowtally.test", "["])
            return made, HTTP
        if kind == "dns":
            return tflow.tdnsflow(resp=coin[0], err=coin[1]), OTHERS[kind]
        return getattr(tflow, f"t{kind}flow")(err=coin[0]), OTHERS[kind]

    def calls(self) -> Iterator[tuple[str, Any]]:
        """Hooks in any order, and what they get."""
        client, server = tflow.tclient_conn(), tflow.tserver_conn()
        found: list[tuple[str, Any]] = []
        for _ in range(3):
            flow, names = self.flow()
            if self.random.random() < 0.5:
                flow.client_conn = client
            found += [(name, flow) for name in names if self.random.random() < 0.7]
        data = server_hooks.ServerConnectionHookData(server, client)
        found += [(name, data) for name in OF_SERVERS if self.random.random() < 0.4]
        for name in self.random.sample(OF_TLS, 2):
            side: connection.Connection = client if name.endswith("client") else server
            found.append((name, tls.TlsData(side, Context(client, ctx.options))))
        found += [("client_connected", client), ("client_disconnected", client)]
        if self.random.random() < 0.5:
            self.random.shuffle(found)
        for name, about in found:
            if self.random.random() < 0.5:
                self.breaks(about)
            yield name, about


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("seed", range(3))
def test_no_hook_raises_whatever_is_in_a_flow(tmp_path: Path, seed: int) -> None:
    chaos, calls, healthy = Chaos(seed), 0, 0
    with asyncio.Runner() as runner, running(tmp_path / "log") as addon:
        while calls < CALLS:
            for name, about in chaos.calls():
                calls += 1
                answer = getattr(addon, name)(about)
                if inspect.isawaitable(answer):
                    runner.run(_waited(answer))
            flow = tflow.tflow(resp=True)
            flow.request.path = "/healthy"
            for name in ("requestheaders", "request", "responseheaders", "response"):
                getattr(addon, name)(flow)
            healthy += 1
            if not healthy % 10:
                addon._on_timer()
                addon.open_flows.in_flight(flow.timestamp_created)
            if not healthy % 50:
                addon.command_new()
        addon.done()
    found = logs.read([("log", tmp_path / "log")])
    assert (found.unreadable, found.missing) == (0, 0)
    assert all(session.final for session in found.sessions.values())
    assert (tmp_path / "log").read_text("utf-8").count('/healthy"') >= healthy
    rows = found.merged()["endpoints"]
    assert rows["GET http://address:22/healthy",].flows == healthy


async def _waited(answer: Any) -> None:
    await answer


@pytest.mark.parametrize(
    ("spoil", "kept"),
    [
        (lambda flow: setattr(flow.client_conn, "peername", ["10.0.0.1", 5]), {"status": 200}),
        (lambda flow: setattr(flow.client_conn, "peername", ("h", 65536)), {"client": "h"}),
        (lambda flow: setattr(flow.client_conn, "peername", ("h", -1)), {"client": "h"}),
        (lambda flow: setattr(flow.request.data, "port", 65536), {"host": "address"}),
        (lambda flow: setattr(flow.response.data, "status_code", "404"), {"cause": "unknown"}),
        (lambda flow: setattr(flow, "response", [1]), {"cause": "unknown"}),
        (lambda flow: setattr(flow, "request", None), {"kind": "http"}),
        (lambda flow: setattr(flow, "metadata", ()), {"status": 200}),
        (lambda flow: setattr(flow, "client_conn", None), {"outcome": "error"}),
    ],
)
@pytest.mark.parametrize("is_open", [False, True])
def test_an_odd_flow_is_counted_and_nobody_else_suffers(
    tmp_path: Path, spoil: Any, kept: dict[str, Any], is_open: bool
) -> None:
    with running(tmp_path / "log") as addon:
        odd, other = tflow.tflow(resp=True), tflow.tflow(resp=True)
        for flow in (odd, other):
            addon.requestheaders(flow)
        spoil(odd)
        if not is_open:
            addon.response(odd)
        assert addon.session is not None
        begun = addon.session.id  # both may begin in the same millisecond
        addon.command_new()
        assert addon.open_flows.clients() >= {other.client_conn.peername}
        addon.response(other)
    found = logs.read([("log", tmp_path / "log")]).sessions
    first = found.pop(begun)
    (second,) = found.values()
    assert (first.final, second.final) == (True, True)
    assert first.tally.flows == 2
    assert second.tally.flows == 1 + is_open  # it is open still
    (record,) = [
        record
        for record in map(decode, (tmp_path / "log").read_bytes().splitlines())
        if record["type"] == "flow" and record["flow"] == odd.id
    ][:1]
    if not is_open:
        assert record | kept == record


@pytest.mark.parametrize("code", [70000, -1, "1000", True])
def test_a_flow_is_told_whatever_its_close_code_is(code: Any, tmp_path: Path) -> None:
    with running(tmp_path / "log") as addon:
        flow = tflow.twebsocketflow()
        assert isinstance(flow, http.HTTPFlow)
        assert flow.websocket
        flow.websocket.close_code = code
        addon.requestheaders(flow)
        addon.websocket_end(flow)
    # Each by itself: where final statistics stand, nobody looks into what was before.
    records = [decode(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert [check(record) for record in records] == [""] * len(records)
    assert sum(record["type"] == "flow" for record in records) == 1
