"""Flow files of mitmproxy's (`mitmdump -w`), told as the addon told them live."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flowtally.captures.flow_files import NOT_SAVED
from flowtally.captures.flow_files import flows
from flowtally.captures.lacking import Lacking
from flowtally.live import OWN_KEY
from flowtally.vocabulary import METADATA_KEY
from hypothesis import given
from hypothesis import strategies as st
from lab import clients
from lab import servers
from lab import websocket
from lab.cli import run
from lab.laboratory import LATE
from lab.laboratory import Laboratory
from lab.laboratory import Setup
from lab.proxy import Mitmdump
from lab.servers import Answer
from lab.servers import AnsweringServer
from lab.servers import Then
from lab.tls import HOST
from lab.websocket import WebSocketServer
from mitmproxy.io import FlowWriter
from mitmproxy.test import tflow

Record = dict[str, Any]

CUT = Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", Then.CLOSE)
LOOP = Answer(b"HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n")
NOT_FOUND = Answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
ANSWERS = {
    "/ok": servers.OK,
    "/404": NOT_FOUND,
    "/cut": CUT,
    "/closes": Answer(b"", Then.CLOSE),
    "/garbage": Answer(b"garbage\r\n\r\n", Then.CLOSE),
    "/loop": LOOP,
    "/blocked": servers.OK,
}


@pytest.fixture(scope="module")
def live(laboratory: Laboratory) -> Iterator[tuple[Mitmdump, Path]]:
    """A session in which much went wrong, and its flow file."""
    saved = laboratory.confdir.parent / "saved.flows"
    setup = Setup(
        arguments=["-w", str(saved), "--set", "block_list=:~u /blocked:403"],
        options={"flowtally_timeout": "0.2"},
    )
    with ExitStack() as stack:
        server = stack.enter_context(AnsweringServer(lambda request: ANSWERS[request.path]))
        silent = stack.enter_context(AnsweringServer(servers.SILENT))
        sockets = stack.enter_context(WebSocketServer())
        tls = stack.enter_context(
            AnsweringServer(servers.OK, tls=laboratory.authority.expired(), name=HOST)
        )
        proxy = stack.enter_context(laboratory.mitmdump("saving", setup))
        for path in ANSWERS:
            for _ in range(21 if path == "/loop" else 1):
                clients.get(proxy, server, path)
        clients.get(proxy, laboratory.dead)
        _leave(proxy, silent, LATE)
        for ending in ("1000", "1011", "cut"):
            websocket.talk(f"{sockets.url}/{ending}", proxy.url)
        clients.get_tls(proxy, tls)
        waiting = _ask(proxy, silent)
        silent.wait_request()
        proxy.wait_for(lambda _: len(proxy.flows()) >= len(ANSWERS) + 20 + 6)
        proxy.stop()
        waiting.close()
        yield proxy, saved


def _ask(proxy: Mitmdump, server: AnsweringServer) -> socket.socket:
    connection = clients.open_connection(proxy.port)
    connection.sendall(clients.absolute_get(server))
    return connection


def _leave(proxy: Mitmdump, server: AnsweringServer, after: float) -> None:
    connection = _ask(proxy, server)
    server.wait_request()
    clients.wait_in_vain(connection, after)


def _plain(records: list[Record]) -> list[Record]:
    """Without what a session's own log alone has, in one order."""
    own = ("session", "seq")
    plain = [{k: v for k, v in record.items() if k not in own} for record in records]
    return sorted(plain, key=lambda record: str(record["flow"]))


def test_a_flow_file_has_the_flows_of_the_live_log(live: tuple[Mitmdump, Path]) -> None:
    proxy, saved = live
    done = run("flows", saved, "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.stderr == f"{saved}: {NOT_SAVED}\n"
    assert _plain(found) == _plain(proxy.flows())
    seen = {record.get("cause", record["outcome"]) for record in found}
    assert seen >= {
        *("status", "unfinished", "connection_refused", "connection_terminated", "redirect_loop"),
        *("http_protocol_error", "http_response_incomplete", "http_response_timeout"),
        *("websocket_error", "tls_certificate_error"),
    }


def test_its_figures_are_the_live_ones_but_for_what_mitmproxy_does_not_save(
    live: tuple[Mitmdump, Path],
) -> None:
    proxy, saved = live
    totals = []
    for file in (saved, proxy.log):
        said = json.loads(run("report", file, "--json").stdout)["statistics"]["totals"]
        totals.append({k: v for k, v in said.items() if k not in ("events", "problems")})
    assert totals[0] == totals[1]


def _file(*made: Any) -> bytes:
    file = io.BytesIO()
    writer = FlowWriter(file)
    for flow in made:
        writer.add(flow)
    return file.getvalue()


ONE = _file(tflow.tflow(resp=True))
OWN = tflow.tflow(resp=True)
OWN.metadata[OWN_KEY] = True
THREE = _file(*(tflow.tflow(resp=True) for _ in range(3)))


@pytest.mark.parametrize(
    ("content", "read", "says"),
    [
        (THREE, 3, None),
        (THREE[:-10], 2, "breaks off within flow 3; what came before is read"),
        (THREE + b"garbage", 3, "breaks off before flow 4; what came before is read"),
        (ONE + b"7:garbage," + ONE, 2, None),
        (ONE + b"0:}" + ONE, 2, None),
        (ONE + b"999999999999:", 1, "breaks off within flow 2; what came before is read"),
    ],
    ids=["whole", "cut off", "garbage behind", "no flow", "nothing", "too long"],
)
def test_what_can_be_read_is_read_and_the_break_is_said(
    content: bytes, read: int, says: str | None
) -> None:
    lacking = Lacking()
    found = [flow for _, flow in flows(io.BytesIO(content), "file", lacking, lambda _: None)]
    assert len(found) == read
    assert lacking.notes == ([f"file: {says}"] if says else [])
    if read == 2 and says is None:
        assert lacking.problems == ["file, flow 2: mitmproxy cannot read it; skipped"]


def test_a_file_that_breaks_off_is_no_reason_to_pass(tmp_path: Path) -> None:
    file = tmp_path / "capture"
    file.write_bytes(THREE[:-10])
    done = run("check", file, "--max", "failures=0", "--host", "address")
    assert done.returncode == 2
    assert "a capture was read in part only: what is missing may break" in done.stderr


@given(st.binary(max_size=200), st.integers(0, len(THREE)))
def test_no_damage_raises(junk: bytes, at: int) -> None:
    content = THREE[:at] + junk + THREE[at + len(junk) :]
    list(flows(io.BytesIO(content), "file", Lacking(), lambda _: None))


@pytest.mark.parametrize("make", [tflow.ttcpflow, tflow.tudpflow])
@pytest.mark.parametrize(("ended", "outcome"), [(None, "unfinished"), (2.0, "ok")])
def test_a_stream_that_was_open_at_the_end_of_its_session_is_open_in_a_file(
    make: Any, ended: float | None, outcome: str, tmp_path: Path
) -> None:
    stream = make()
    stream.client_conn.timestamp_end = ended
    stream.metadata[METADATA_KEY] = {"outcome": "unfinished"}
    saved = tmp_path / "saved.flows"
    saved.write_bytes(_file(stream))
    (record,) = map(json.loads, run("flows", saved, "--json").stdout.splitlines())
    assert record["outcome"] == outcome


def test_a_question_that_nobody_answered_ended_when_its_client_left(tmp_path: Path) -> None:
    query = tflow.tdnsflow()
    query.request.questions[0].name = "detectportal.firefox.com"
    query.request.timestamp, query.client_conn.timestamp_end = 1000.0, 1020.0
    saved = tmp_path / "saved.flows"
    saved.write_bytes(_file(query))
    done = run("flows", saved, "--json", "--background")
    (record,) = map(json.loads, done.stdout.splitlines())
    assert (record["cause"], record["background"]) == ("dns_timeout", "Firefox")
    assert (record["time"], record["duration_ms"]) == ("1970-01-01T00:17:00.000Z", 20_000)


def test_requests_for_the_live_page_are_left_out(tmp_path: Path) -> None:
    saved = tmp_path / "saved.flows"
    saved.write_bytes(_file(tflow.tflow(resp=True), OWN, tflow.tflow(resp=True)))
    done = run("report", saved, "--json")
    assert json.loads(done.stdout)["statistics"]["totals"]["flows"] == 2
