"""What other scripts put into a flow: no hook raises, that flow alone suffers, and what is written
can be read again. Each row once broke something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flowtally.addon import Flowtally
from flowtally.valid import check
from lab.proxy import REPOSITORY
from mitmproxy.proxy import server_hooks
from mitmproxy.test import taddons
from mitmproxy.test import tflow


def _set(part: str, name: str, value: Any) -> Callable[[Any], None]:
    def spoil(flow: Any) -> None:
        for step in filter(None, part.split(".")):
            flow = getattr(flow, step)
        setattr(flow, name, value)

    return spoil


ODD: dict[str, Callable[[Any], None]] = {
    "an address that is a list": _set("client_conn", "peername", ["127.0.0.1", 1]),
    "an address without a port": _set("client_conn", "peername", ("x",)),
    "a client's port that is text": _set("client_conn", "peername", ("127.0.0.1", "80")),
    "a client that is none": _set("", "client_conn", {}),
    "a server that is none": _set("", "server_conn", 5),
    "a status that is text": _set("response.data", "status_code", "404"),
    "a status that is a fraction": _set("response.data", "status_code", -5.5),
    "a port of 65536": _set("request.data", "port", 65536),
    "a port below 0": _set("request.data", "port", -1),
    "a host that is no text": _set("request.data", "host", ["x"]),
    "a request that is none": _set("", "request", "x"),
    "times that are text": _set("request.data", "timestamp_start", "now"),
    "a replay of nothing": _set("", "is_replay", b"x"),
    "a close code of 70000": _set("websocket", "close_code", 70000),
    "a close code that is a list": _set("websocket", "close_code", [1000]),
    "headers that are none": _set("response.data", "headers", 5),
    "a creation that is text": _set("", "timestamp_created", "now"),
}


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "open"])
@pytest.mark.parametrize("name", ODD)
def test_only_the_odd_flow_suffers(name: str, ended: bool, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    odd = tflow.twebsocketflow() if "close code" in name else tflow.tflow(resp=True)
    good = tflow.tflow(resp=True)
    good.client_conn.peername = ("127.0.0.9", 9)
    dead = tflow.tserver_conn()
    dead.error, dead.address, dead.timestamp_start = "[Errno 111] x", ("h", 80), None
    addon = Flowtally()
    with taddons.context(addon) as context:
        context.configure(addon, flowtally_log=str(log))
        addon.running()
        if not ended:
            addon.requestheaders(odd)
        ODD[name](odd)
        if ended:
            addon.requestheaders(odd)
            addon.responseheaders(odd)
            addon.websocket_end(odd) if "close code" in name else addon.response(odd)
        # Another client's failure is told although the odd flow is open.
        client = tflow.tclient_conn()
        client.peername = ("127.0.0.8", 8)
        addon.server_connect(server_hooks.ServerConnectionHookData(dead, client))
        addon.server_connect_error(server_hooks.ServerConnectionHookData(dead, client))
        addon.client_disconnected(client)
        addon.requestheaders(good)
        addon.response(good)
        addon.done()

    records = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert [check(record) for record in records] == [""] * len(records)
    assert records[-1]["final"]
    told = {record["flow"]: record for record in records if record["type"] == "flow"}
    assert told[good.id]["status"] == 200
    assert [r["cause"] for r in records if r["type"] == "event"] == ["connection_refused"]


def test_odd_flows_in_odd_orders() -> None:
    """A thousandth of what the laboratory does."""
    path = os.pathsep.join(str(REPOSITORY / name) for name in ("addon", "scripts"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "experiments._hooks", "1000000", "4"],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
    )
    assert done.stdout, done.stderr
    assert json.loads(done.stdout) == {"inputs": 2000, "found": []}
