"""The addon in mitmproxy's own test harness: any flow, any order of hooks, and the sums hold."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Coroutine
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from typing import cast

import mitmproxy.types
import pytest
from flowtally import logs
from flowtally.addon import Flowtally
from flowtally.classify import status_of
from flowtally.failures import Failures
from flowtally.tally import Tally
from flowtally.vocabulary import KNOWN
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from lab.addon import running
from lab.proxy import ADDON
from lab.tallies import plain
from mitmproxy import connection
from mitmproxy import ctx
from mitmproxy import dns
from mitmproxy import eventsequence
from mitmproxy import exceptions
from mitmproxy import flow as mflow
from mitmproxy import hooks
from mitmproxy import http
from mitmproxy import tls
from mitmproxy.addons import script
from mitmproxy.proxy import mode_specs
from mitmproxy.proxy import server_hooks
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HttpStream
from mitmproxy.test import taddons
from mitmproxy.test import tflow

SCHEMA = Draft202012Validator(
    json.loads((KNOWN / "record.schema.json").read_text(encoding="utf-8"))
)


@pytest.mark.parametrize("complete", [True, False], ids=["complete", "open"])
def test_a_reload_in_the_middle_of_a_flow_tells_its_end_once(
    tmp_path: Path, complete: bool
) -> None:
    """The answer is complete, and its last hook is still to come, when the script is reloaded."""
    flow = tflow.tflow(resp=True, live=True)
    assert flow.response
    flow.timestamp_created = flow.request.timestamp_start = time.time() + 0.001
    flow.response.timestamp_end = flow.timestamp_created if complete else None
    with running(tmp_path / "log") as before:
        before._loaded = flow.timestamp_created
        before.requestheaders(flow)
        before.responseheaders(flow)
        while time.time() <= flow.timestamp_created:
            pass
    flow.response.timestamp_end = flow.timestamp_created
    with running(tmp_path / "log") as after:
        after.response(flow)
    outcomes = [r["outcome"] for r in records(tmp_path / "log") if r["type"] == "flow"]
    assert outcomes == (["status"] if complete else ["unfinished", "status"])


def test_what_it_watches_it_leaves_as_it_was(tmp_path: Path) -> None:
    before = dict(vars(HttpStream))
    with running(tmp_path / "log"):
        assert dict(vars(HttpStream)) != before
    assert dict(vars(HttpStream)) == before


def records(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text("utf-8").rstrip("\n").split("\n")]
    for entry in found:
        assert list(SCHEMA.iter_errors(entry)) == []
    return found


def statistics(path: Path) -> Tally:
    """What a log says when it is read."""
    return logs.read([(path.name, path)]).merged()


def replay(addon: Flowtally, flow: mflow.Flow) -> None:
    """All hooks of a flow, in the order in which mitmproxy fires them for a flow from a file."""
    for event in eventsequence.iterate(flow):
        hook = getattr(addon, event.name, None)
        if hook is not None:
            hook(*event.args())


TIMES = st.none() | st.floats(0, 2e9) | st.sampled_from([-1.0, 1e18])
TEXT = st.text(max_size=20)
BYTES = st.binary(max_size=30)
MESSAGES = st.one_of(
    TEXT,
    st.sampled_from(
        [
            "Client disconnected.",
            "client disconnected",
            "server closed connection",
            "peer closed connection",
            "stream reset by client (CANCEL)",
            "[Errno 111] Connect call failed ('127.0.0.1', 9)",
            "HTTP/1 protocol error: x",
            "Connection killed.",
        ]
    ),
)


@st.composite
def http_flows(draw: st.DrawFn) -> http.HTTPFlow:
    flow = tflow.tflow(
        resp=draw(st.booleans()),
        err=draw(st.booleans()),
        ws=draw(st.sampled_from([False] * 4 + [True])),
    )
    flow.live = draw(st.booleans())
    request = flow.request.data
    request.method = draw(st.sampled_from([b"GET", b"POST", b"CONNECT", b"HEAD"]) | BYTES)
    request.host = draw(TEXT)
    request.port = draw(st.integers(0, 65535))
    request.path = draw(BYTES | st.just(b"/a?b=c"))
    request.scheme = draw(st.sampled_from([b"http", b"https", b""]) | BYTES)
    request.http_version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/2.0", b"HTTP/3"]) | BYTES)
    request.content = draw(st.none() | BYTES)
    request.timestamp_start = draw(st.floats(0, 2e9))
    request.timestamp_end = draw(TIMES)
    if flow.response:
        response = flow.response.data
        response.status_code = draw(st.integers(-10, 1000) | st.integers())
        response.content = draw(st.none() | BYTES)
        response.timestamp_start = draw(TIMES)  # type: ignore[assignment]  # files hold such
        response.timestamp_end = draw(TIMES)
        flow.response.headers["location"] = draw(st.sampled_from(["/", "", "http://x/"]))
    if flow.error:
        flow.error.msg = draw(MESSAGES)
        flow.error.timestamp = draw(st.floats(0, 2e9))
    if flow.websocket:
        flow.websocket.close_code = draw(st.none() | st.integers(1000, 5000))
        flow.websocket.timestamp_end = draw(TIMES)
    flow.server_conn.timestamp_start = draw(TIMES)
    flow.server_conn.error = draw(st.none() | MESSAGES)
    flow.client_conn.timestamp_end = draw(TIMES)
    flow.metadata["flowtally"] = draw(
        st.none() | TEXT | st.dictionaries(st.sampled_from(["cause", "side", "detail"]), TEXT)
    )
    flow.comment = draw(st.sampled_from(["", "mine"]))
    return flow


@st.composite
def other_flows(draw: st.DrawFn) -> mflow.Flow:
    failed = draw(st.booleans())
    flow: mflow.Flow = draw(
        st.sampled_from(
            [
                tflow.ttcpflow(err=failed),
                tflow.tudpflow(err=failed),
                tflow.tdnsflow(resp=True, err=failed),
                tflow.tdnsflow(resp=False, err=failed),
            ]
        )
    )
    if isinstance(flow, dns.DNSFlow) and flow.response:
        flow.response.response_code = draw(st.integers(0, 15))
    if flow.error:
        flow.error.msg = draw(MESSAGES)
    return flow


def test_any_flow_is_tagged_and_the_sums_hold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log.jsonl"

    @given(st.lists(http_flows() | other_flows(), max_size=8))
    @settings(deadline=None, max_examples=150)
    def check(flows: list[mflow.Flow]) -> None:
        path.unlink(missing_ok=True)
        caplog.clear()
        addon = Flowtally()
        addon.configure(addon_options().keys())
        addon.running()
        for flow in flows:
            replay(addon, flow)
        addon.done()
        assert not [record for record in caplog.records if record.levelname == "ERROR"]
        assert_all_counted(flows, path)

    with running(path):
        check()


def assert_all_counted(flows: list[mflow.Flow], path: Path) -> None:
    found = records(path)
    assert found[-1]["final"]
    final = statistics(path)
    tagged = [record for record in found if record["type"] == "flow"]
    # A CONNECT that succeeded is no flow of its own; every other is there once.
    assert len(tagged) == len({record["flow"] for record in tagged}) == final.flows
    succeeded = {
        flow.id
        for flow in flows
        if isinstance(flow, http.HTTPFlow)
        and flow.request.data.method == b"CONNECT"
        and flow.websocket is None
        and flow.response is not None
        and 200 <= flow.response.status_code < 300
    }
    assert {flow.id for flow in flows} - {record["flow"] for record in tagged} <= succeeded
    bands = sum(band.flows for _, band, _ in final.bands())
    others = final.sum("flows", "error", "cancelled", "ok", "unfinished")
    assert bands + others == final.flows
    by_id = {flow.id: flow for flow in flows}
    for entry in tagged:
        flow = by_id[entry["flow"]]
        for name, value in flow.metadata["flowtally"].items():
            assert entry[name] == value
        is_plain = entry["outcome"] == "ok" or entry.get("band") == "Success"
        assert bool(flow.comment) is ("cause" in entry or not is_plain) or flow.comment == "mine"


def test_what_the_user_wrote_stays(tmp_path: Path) -> None:
    with running(tmp_path / "log") as addon:
        mine, theirs = tflow.tflow(resp=True), tflow.tflow(err=True)
        theirs.comment, theirs.marked = "look here", ":grapes:"
        for flow in (mine, theirs):
            replay(addon, flow)
    assert (mine.comment, mine.marked) == ("", "")  # a plain success needs no words
    assert (theirs.comment, theirs.marked) == ("look here", ":grapes:")
    assert theirs.metadata["flowtally"]["cause"] == "unknown"


def test_a_replayed_flow_gets_a_new_mark(tmp_path: Path) -> None:
    with running(tmp_path / "log") as addon:
        flow = tflow.tflow(err=True)
        replay(addon, flow)
        assert flow.marked == ":red_circle:"
        flow.error, flow.is_replay = None, "request"
        flow.response = http.Response.make(404)
        replay(addon, flow)
    assert flow.comment == "404 Client error, Not found"
    assert flow.marked == ":warning:"
    assert [r.get("replay") for r in records(tmp_path / "log")[1:-1]] == [None, "request"]


def test_marking_can_be_switched_off(tmp_path: Path) -> None:
    with running(tmp_path / "log", flowtally_mark=False) as addon:
        flow = tflow.tflow(err=True)
        replay(addon, flow)
    assert (flow.comment, flow.marked) == ("", "")
    assert flow.metadata["flowtally"]


def test_each_hook_reaches_the_addon_once_through_the_script(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    with taddons.context(loadcore=False) as context:
        loaded = script.Script(str(ADDON), reload=False)
        assert loaded.ns is not None
        (addon,) = loaded.ns.addons
        assert not [line for line in caplog.records if line.levelno >= logging.WARNING]
        assert [name for name in hooks.all_hooks if name not in vars(loaded.ns)] == ["add_log"]
        reached = []
        for name, hook in hooks.all_hooks.items():
            assert vars(loaded.ns).get(name) is None
            if hasattr(addon, name):
                monkeypatch.setattr(addon, name, lambda *_, name=name: reached.append(name))
            event = hook(*[None for _ in fields(hook)])  # type: ignore[arg-type]
            context.master.addons.invoke_addon_sync(loaded, event)
        assert reached == [name for name in hooks.all_hooks if hasattr(addon, name)]
        assert {"load", "configure", "running", "done", "request", "response"} <= {*reached}


def test_the_mark_can_be_filtered_for(tmp_path: Path) -> None:
    with running(tmp_path / "log", flowtally_filter='~meta "Client error"') as addon:
        for status in (200, 404, 410):
            flow = tflow.tflow(resp=http.Response.make(status))
            replay(addon, flow)
    assert [r["status"] for r in records(tmp_path / "log") if r["type"] == "flow"] == [404, 410]


@pytest.mark.parametrize(
    ("urls", "url"),
    [
        ("full", "http://address:22/path?token=secret"),
        ("redacted", "http://address:22/path?token="),
        ("origin", "http://address:22"),
    ],
)
def test_urls(tmp_path: Path, urls: str, url: str) -> None:
    with running(tmp_path / "log", flowtally_urls=urls) as addon:
        flow = tflow.tflow(resp=True)
        flow.request.path = "/path?token=secret"
        replay(addon, flow)
    found = records(tmp_path / "log")
    assert found[1]["url"] == url
    assert ("secret" in (tmp_path / "log").read_text("utf-8")) == (urls == "full")


@pytest.mark.parametrize(
    ("urls", "media_type", "kept"),
    [("redacted", "made/up", "made/up"), ("origin", "made/up", None), ("origin", "a/b", None)]
    + [(urls, "text/html", "text/html") for urls in ("redacted", "origin")],
)
def test_the_media_type_is_a_word_of_the_peers(
    tmp_path: Path, urls: str, media_type: str, kept: str | None
) -> None:
    with running(tmp_path / "log", flowtally_urls=urls) as addon:
        flow = tflow.tflow(resp=True)
        assert flow.response
        flow.response.headers["Content-Type"] = media_type
        replay(addon, flow)
    assert records(tmp_path / "log")[1].get("media_type") == kept


def server_failure(
    client: connection.Client, message: str
) -> server_hooks.ServerConnectionHookData:
    server = connection.Server(address=("host", 443), timestamp_start=1.0, error=message)
    return server_hooks.ServerConnectionHookData(server=server, client=client)


def test_a_failure_that_reaches_a_flow_is_no_event(tmp_path: Path) -> None:
    message = "[Errno 111] Connect call failed ('127.0.0.1', 443)"
    with running(tmp_path / "log") as addon:
        flow = tflow.tflow(err=True)
        assert flow.error
        flow.error.msg = message
        addon.requestheaders(flow)
        addon.server_connect_error(server_failure(flow.client_conn, message))
        addon.server_connect_error(server_failure(flow.client_conn, message))
        flow.client_conn.timestamp_end = 5.0
        addon.client_disconnected(flow.client_conn)
        # The flow's hook may come after the client's, when another addon's hook was slow.
        addon.error(flow)
    assert [r["type"] for r in records(tmp_path / "log")] == ["session_start", "flow", "stats"]


def test_an_open_flow_that_another_script_broke_does_not_keep_the_session_open(
    tmp_path: Path,
) -> None:
    with running(tmp_path / "log") as addon:
        for status in (b"200", 200):
            flow = tflow.tflow(resp=True)
            assert flow.response
            flow.response.data.status_code = status  # type: ignore[assignment]
            addon.requestheaders(flow)
        addon.done()
    last = [r for r in records(tmp_path / "log") if r["type"] in ("flow", "stats")]
    assert [r.get("outcome", r["type"]) for r in last] == ["unfinished", "unfinished", "stats"]
    assert ["status" in record for record in last] == [False, True, False]


def test_names_without_a_letter(tmp_path: Path) -> None:
    """The root of DNS has one; a TCP flow of another addon's may have none."""
    query, stream = tflow.tdnsflow(resp=True), tflow.ttcpflow()
    query.request.questions[0].name = ""
    stream.server_conn.address = ("", 80)
    with running(tmp_path / "log") as addon:
        replay(addon, query)
        replay(addon, stream)
    hosts = [r.get("host") for r in records(tmp_path / "log") if r["type"] == "flow"]
    assert hosts == [".", None]


def failed_flow(client: connection.Client, message: str) -> http.HTTPFlow:
    """A live flow to the server of `server_failure` that has just failed."""
    flow = tflow.tflow(err=True)
    assert flow.error
    flow.live, flow.client_conn = True, client
    flow.timestamp_created, flow.error.msg = time.time(), message
    flow.error.timestamp = time.time()
    flow.request.host, flow.request.port = "host", 443
    return flow


def told(path: Path) -> list[tuple[str, str]]:
    """Type and cause of what the log tells so far, but for its frame."""
    return [
        (entry["type"], entry.get("cause", entry.get("outcome", "")))
        for entry in records(path)
        if entry["type"] in ("flow", "event")
    ]


@pytest.mark.parametrize("gone", [True, False])
def test_with_its_last_flow_a_client_may_leave_failures(tmp_path: Path, gone: bool) -> None:
    with running(tmp_path / "log") as addon:
        client = tflow.tclient_conn()
        client.timestamp_end = None
        flow = failed_flow(client, "[Errno 111] x")
        addon.requestheaders(flow)
        addon.server_connect_error(server_failure(client, "[Errno 111] x"))
        addon.server_connect_error(server_failure(client, "[Errno -2] y"))
        # The hook of another addon is slow to let go of the flow.
        client.timestamp_end = 5.0 if gone else None
        if gone:
            addon.client_disconnected(client)
        assert told(tmp_path / "log") == []
        addon.error(flow)
        expected = [("flow", "connection_refused")] + [("event", "dns_error")] * gone
        assert told(tmp_path / "log") == expected
        assert (addon.failures._unclaimed == {}) == gone


def test_a_flow_that_nobody_will_finish_claims_its_failure_at_the_end(tmp_path: Path) -> None:
    with running(tmp_path / "log") as addon:
        client = tflow.tclient_conn()
        client.timestamp_end = time.time()
        flow = failed_flow(client, mflow.Error.KILLED_MESSAGE)
        addon.requestheaders(flow)
        addon.server_connect_error(server_failure(client, "[Errno 111] x"))
    assert told(tmp_path / "log") == [("flow", "connection_refused")]


def test_flows_that_nobody_will_finish_are_in_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path / "log") as addon:
        counted: list[int] = []
        session = addon.session
        assert session
        monkeypatch.setattr(session, "step", lambda: counted.append(session.tally.flows))
        for ago in (1.0, 60.0):
            client = tflow.tclient_conn()
            client.timestamp_end = time.time() - ago
            addon.requestheaders(failed_flow(client, mflow.Error.KILLED_MESSAGE))
        query = tflow.tdnsflow(resp=False)
        query.timestamp_created, query.client_conn.timestamp_end = time.time(), time.time() - 60.0
        addon.dns_request(query)
        addon._on_timer()
        assert counted == [2]
        assert told(tmp_path / "log") == [("flow", "http_request_denied"), ("flow", "dns_timeout")]


def test_a_line_of_mitmproxys_log_explains_a_flow(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with running(tmp_path / "log") as addon:
        client = tflow.tclient_conn()
        flow = failed_flow(client, "server closed connection")
        addon.requestheaders(flow)
        logging.getLogger("mitmproxy.proxy.server").info(
            "TLS Error: [('SSL routines', '', 'tlsv13 alert certificate required')]",
            extra={"client": client.peername},
        )
        addon.error(flow)
        assert told(tmp_path / "log") == [("flow", "tls_alert_received")]


@pytest.mark.parametrize(("status", "expected"), [(200, []), (502, [("flow", "status")])])
def test_of_a_tunnel_only_the_failure_counts(
    tmp_path: Path, status: int, expected: list[tuple[str, str]]
) -> None:
    with running(tmp_path / "log") as addon:
        flow = tflow.tflow(resp=http.Response.make(status))
        flow.request.method, flow.live = "CONNECT", False
        replay(addon, flow)
        assert told(tmp_path / "log") == expected


def test_an_answer_of_another_addons_is_not_the_servers(tmp_path: Path) -> None:
    with running(tmp_path / "log") as addon:
        flow = request_for("host")
        flow.server_conn.timestamp_start = 1.0
        flow.response = http.Response.make(200)
        serve(addon, flow)
        assert records(tmp_path / "log")[1]["answered_by"] == "proxy"
        assert tables(addon) == []


def test_a_failure_whose_flow_another_addon_killed_keeps_its_cause(tmp_path: Path) -> None:
    with running(tmp_path / "log") as addon:
        flow = tflow.tflow(err=True)
        assert flow.error
        flow.error.msg = mflow.Error.KILLED_MESSAGE
        flow.request.host, flow.request.port = "host", 443
        addon.requestheaders(flow)
        addon.server_connect_error(server_failure(flow.client_conn, "[Errno 111] x"))
        addon.error(flow)
    found = records(tmp_path / "log")
    assert [entry.get("cause") for entry in found] == [None, "connection_refused", None]


def test_a_flow_that_fails_otherwise_leaves_the_failure_to_others(tmp_path: Path) -> None:
    with running(tmp_path / "log") as addon:
        flow = tflow.tflow(err=True)
        assert flow.error
        flow.error.msg = "Client disconnected."
        flow.request.host, flow.request.port = "host", 443
        addon.requestheaders(flow)
        addon.server_connect_error(server_failure(flow.client_conn, "[Errno 111] x"))
        addon.error(flow)
        addon.client_disconnected(flow.client_conn)
    causes = {entry.get("cause") for entry in records(tmp_path / "log")} - {None}
    assert causes == {"http_response_timeout", "connection_refused"}


def test_a_connection_that_hangs_at_the_end_is_told(tmp_path: Path) -> None:
    now = 1000.0
    with running(tmp_path / "log", flowtally_timeout="0.2") as addon:
        addon.failures._clock = lambda: now
        data = server_failure(tflow.tclient_conn(), "")
        addon.server_connect(data)
        now += 0.2
        addon.server_connect(server_failure(tflow.tclient_conn(), ""))
    events = [entry for entry in records(tmp_path / "log") if entry["type"] == "event"]
    assert [(event["cause"], event["error_code"]) for event in events] == [
        ("connection_timeout", -6)
    ]


def test_a_tag_outlives_what_goes_wrong_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failures, "__bool__", lambda _: True)
    monkeypatch.setattr(Failures, "claim", None)
    with running(tmp_path / "log") as addon:
        replay(addon, tflow.tflow(resp=http.Response.make(404)))
    (flow,) = (record for record in records(tmp_path / "log") if record["type"] == "flow")
    assert (flow["status"], flow["outcome"]) == (404, "status")


def test_a_flow_too_broken_for_a_record_is_counted(tmp_path: Path) -> None:
    with running(tmp_path / "log") as addon:
        flow = tflow.tflow(resp=True)
        flow.request.data.path = None  # type: ignore[assignment]
        replay(addon, flow)
        flow = tflow.tflow(err=True)
        flow.metadata["flowtally"] = {"cause": [], "side": {}}
        flow.live = False
        replay(addon, flow)
    assert statistics(tmp_path / "log").flows == 2


def test_an_imported_har_was_not_answered_by_the_proxy(tmp_path: Path) -> None:
    with running(tmp_path / "log") as addon:
        flow = tflow.tflow(resp=True)
        flow.live = False
        flow.server_conn = connection.Server(address=("host", 80))
        replay(addon, flow)
    assert "answered_by" not in records(tmp_path / "log")[1]


def test_a_failure_that_no_flow_claims_is_one_event(tmp_path: Path) -> None:
    with running(tmp_path / "log") as addon:
        client = tflow.tclient_conn()
        client.timestamp_end = None
        addon.server_connect_error(server_failure(client, "[Errno 111] x"))
        assert len(records(tmp_path / "log")) == 1
        client.timestamp_end = 5.0
        addon.client_disconnected(client)
        addon.client_disconnected(client)
    found = records(tmp_path / "log")
    assert [record["type"] for record in found] == ["session_start", "event", "stats"]
    assert (found[1]["host"], found[1]["port"], found[1]["cause"]) == (
        "host",
        443,
        "connection_refused",
    )


def test_what_is_pending_at_the_end_is_told(tmp_path: Path) -> None:
    with running(tmp_path / "log") as addon:
        client = tflow.tclient_conn()
        client.timestamp_end = None
        addon.server_connect_error(server_failure(client, "[Errno 111] x"))
        flow = tflow.tflow()
        flow.client_conn.timestamp_end = None
        addon.requestheaders(flow)
    found = records(tmp_path / "log")
    assert [record["type"] for record in found[1:]] == ["event", "flow", "stats"]
    assert found[2]["outcome"] == "unfinished"


def test_filters_see_failures_without_a_flow(tmp_path: Path) -> None:
    with running(tmp_path / "log", flowtally_filter="~d wanted") as addon:
        for host in ("wanted", "other"):
            client = tflow.tclient_conn()
            client.sni = host
            client.error = f"The client does not trust the proxy's certificate for {host} (x)"
            addon.tls_failed_client(tls.TlsData(client, Context(client, addon_options())))
    events = [r for r in records(tmp_path / "log") if r["type"] == "event"]
    assert [(event["host"], event["cause"]) for event in events] == [
        ("wanted", "client_tls_rejected")
    ]


def addon_options() -> Any:
    return ctx.options


def test_a_flow_killed_in_the_response_hook_is_counted_once(tmp_path: Path) -> None:
    with running(tmp_path / "log") as addon:
        flow = tflow.tflow(resp=True)
        addon.requestheaders(flow)
        addon.responseheaders(flow)
        flow.kill()
        addon.response(flow)
        # From a file, `error` follows.
        addon.error(flow)
    found = records(tmp_path / "log")
    assert [(r["cause"], r["status"]) for r in found[1:-1]] == [("http_request_denied", 200)]


def test_a_client_that_mitmproxy_refuses(tmp_path: Path) -> None:
    with running(tmp_path / "log") as addon:
        client = tflow.tclient_conn()
        client.error = "Connection killed by block_global."
        addon.client_connected(client)
    event = records(tmp_path / "log")[1]
    assert (event["cause"], event["detail"]) == (
        "http_request_denied",
        "Connection killed by block_global.",
    )


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("verbosity", ["info", "error"])
def test_the_summary_waits_for_the_end_of_the_process(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    ends: bool,
    verbosity: str,
) -> None:
    at_exit: list[Any] = []
    monkeypatch.setattr("atexit.register", lambda *call: at_exit.append(call))
    with running(tmp_path / "log") as addon:
        addon_options().add_option("termlog_verbosity", str, verbosity, "")
        replay(addon, tflow.tflow(resp=True))
        # mitmproxy also goes on without a script, where it was changed or taken out.
        if ends:
            ctx.master.should_exit.set()
        addon.done()
    # The log is closed in any case.
    assert records(tmp_path / "log")[-1]["final"] is True
    assert len(at_exit) == (ends and verbosity == "info")
    for function, *arguments in at_exit:
        assert capsys.readouterr().err == ""
        function(*arguments)
    shown = capsys.readouterr()
    assert shown.out == ""
    if verbosity == "error":
        assert shown.err == ""
    else:
        assert shown.err.startswith("\nflowtally: 1 flow\n")
        assert shown.err.endswith(f"\nSession log: {tmp_path}/log\n")


BAD_HOSTS = [
    "http://flowtally.test/",
    "flowtally.test/",
    "flowtally.test:80",
    "flowtally.test.",
    ".test",
    "a..b",
    "-a.test",
    "a-.test",
    "flow_tally.test",
    "flow tally.test",
    " flowtally.test",
    "flowtally.test\n",
    "büro.test",
    "[::1]",
    "*",
    "a" * 64,
    ".".join(["a" * 60] * 5),
]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("flowtally_timeout", "soon", "a number of seconds above 0"),
        ("flowtally_timeout", "0", "a number of seconds above 0"),
        ("flowtally_timeout", "inf", "a number of seconds above 0"),
        ("flowtally_max_redirects", -1, "a whole number from 0"),
        ("flowtally_urls", "some", "full, redacted, origin"),
        ("flowtally_filter", "~q ~nonsense (", "a mitmproxy filter expression"),
        ("flowtally_catalog", "/nowhere/codes.toml", "cannot be read"),
        ("flowtally_log", "/dev/null/log", "no folder"),
        *(
            ("flowtally_background", value, "known, or none, or host names such as telemetry")
            for value in ("", "none,a.example", "known,none", "a.example,,b", "*.a.example", "a/b")
        ),
        *(("flowtally_host", host, "a host name such as flowtally.test") for host in BAD_HOSTS),
    ],
)
def test_bad_values_are_refused(tmp_path: Path, name: str, value: Any, allowed: str) -> None:
    with running(tmp_path / "log") as addon:
        rules = addon.tagger.rules
        with pytest.raises(exceptions.OptionsError) as caught:
            addon_options().update(**{name: value})
        assert allowed in str(caught.value)
        assert name in str(caught.value)
        assert repr(value) in str(caught.value)
        assert addon.tagger.rules == rules
    assert len(records(tmp_path / "log")) == 2


def test_before_it_is_configured_an_option_has_its_default() -> None:
    addon = Flowtally()
    assert addon.live.host == "flowtally.test"
    assert (addon.tagger.max_redirects, addon.tagger.rules.timeout) == (20, 5.0)
    assert (addon.recorder.filter, addon.recorder.marks, addon.recorder.urls) == (
        None,
        True,
        "redacted",
    )


def test_a_new_log_is_a_new_session(tmp_path: Path) -> None:
    with running(tmp_path / "first") as addon:
        replay(addon, tflow.tflow(resp=True))
        addon_options().update(flowtally_log=str(tmp_path / "second"))
        replay(addon, tflow.tflow(err=True))
    first, second = records(tmp_path / "first"), records(tmp_path / "second")
    assert [record["type"] for record in first] == ["session_start", "flow", "stats"]
    assert [record["type"] for record in second] == ["session_start", "flow", "stats"]
    assert {record["session"] for record in first} & {
        record["session"] for record in second
    } == set()
    assert [statistics(tmp_path / name).flows for name in ("first", "second")] == [1, 1]


def test_statistics_are_the_fold_of_the_records(tmp_path: Path) -> None:
    with running(tmp_path / "log") as addon:
        for status in (200, 302, 404, 500, 200):
            replay(addon, tflow.tflow(resp=http.Response.make(status)))
        replay(addon, tflow.tflow(err=True))
        replay(addon, tflow.tdnsflow(resp=True))
    tally = Tally()
    for entry in records(tmp_path / "log"):
        tally.add(entry)
    assert plain(statistics(tmp_path / "log")) == plain(tally)


@pytest.mark.parametrize(
    ("tag", "says"),
    [
        ({"outcome": "ok"}, "ok"),
        ({"outcome": "unfinished"}, "unfinished"),
        (
            {
                "outcome": "error",
                "status": 200,
                "band": "Success",
                "description": "OK",
                "error_code": -1,
                "error_name": "RequestException",
                "cause": "http_response_incomplete",
            },
            "http_response_incomplete -1 RequestException, 200 Success, OK",
        ),
        (
            {
                "outcome": "error",
                "error_code": -2,
                "error_name": "ConnectionErr",
                "cause": "connection_terminated",
                "reason": "reset",
            },
            "connection_terminated (reset) -2 ConnectionErr",
        ),
        (
            {"outcome": "cancelled", "cause": "client_cancelled", "side": "client"},
            "client_cancelled",
        ),
    ],
)
def test_what_people_read(tag: dict[str, Any], says: str) -> None:
    assert status_of(tag) == says


# --- the live page ---

OWN = "flowtally.test"


def request_for(host: str, mode: str = "regular", header: bytes | None = None) -> http.HTTPFlow:
    """A live request that arrived just now."""
    flow = tflow.tflow()
    flow.live = True
    flow.timestamp_created = time.time()
    flow.client_conn.proxy_mode = mode_specs.ProxyMode.parse(mode)
    flow.request.path = "/"
    flow.request.data.host = host
    flow.request.data.headers = http.Headers(
        ((b"Host", host.encode() if header is None else header),)
    )
    return flow


def serve(addon: Flowtally, flow: http.HTTPFlow) -> None:
    """The hooks of a request, as far as it goes."""
    addon.requestheaders(flow)
    if not flow.error:
        waiting = addon.request(flow)
        if waiting is not None:
            asyncio.run(cast(Coroutine[Any, Any, None], waiting))
    if flow.response and not flow.error:
        addon.responseheaders(flow)
        addon.response(flow)
    elif flow.error:
        addon.error(flow)


def tables(addon: Flowtally) -> list[Any]:
    """What the addon keeps of flows and connections that have not ended; empty ones left out."""
    kept = (
        addon.open_flows,
        addon._by_proxy,
        addon._told_in_response,
        addon.failures._unclaimed,
        addon.failures._notes,
        addon.failures._attempts,
    )
    return [table for table in kept if table]


@pytest.mark.parametrize(
    ("mode", "host", "header", "own"),
    [
        ("regular", OWN, None, True),
        ("regular", "FlowTally.TEST", None, True),
        ("regular", "other.test", OWN.encode(), False),  # it goes to other.test
        ("regular", OWN, b"other.test", True),
        ("regular", f"{OWN}.", None, False),
        ("regular", f"a.{OWN}", None, False),
        ("upstream:http://127.0.0.1:9", OWN, None, True),
        ("upstream:http://127.0.0.1:9", "other.test", OWN.encode(), False),
        ("socks5", OWN, None, True),
        ("socks5", "192.0.2.1", OWN.encode(), False),
        ("transparent", "192.0.2.1", OWN.encode(), True),
        ("transparent", OWN, b"other.test", False),
        ("wireguard", "192.0.2.1", OWN.encode(), True),
        ("local", "192.0.2.1", OWN.encode(), True),
        ("reverse:http://192.0.2.1", "192.0.2.1", OWN.encode(), False),
        ("reverse:http://192.0.2.1", OWN, OWN.encode(), False),
    ],
)
def test_whose_requests_get_the_live_page(
    tmp_path: Path, mode: str, host: str, header: bytes | None, own: bool
) -> None:
    with running(tmp_path / "log") as addon:
        flow = request_for(host, mode, header)
        serve(addon, flow)
        assert (flow.response is not None) == own
        assert (flow.id in addon.open_flows) == (not own)
    assert statistics(tmp_path / "log").flows == (not own)


@pytest.mark.parametrize(
    ("header", "own"),
    [
        (b"FLOWTALLY.test", True),
        (b"flowtally.test:80", True),
        (b"flowtally.test:8080", True),
        (b"", False),
        (b"flowtally.test.", False),
        (b" flowtally.test", False),
        (b"flowtally.test ", False),
        (b"flowtally.test\0", False),
        (b"flowtally.test, evil.test", False),
        (b"flowtally.test/", False),
        (b"user@flowtally.test", False),
        (b"flowtally.test:port", False),
        (b"flowtally.test:99999999", False),
        (b"[flowtally.test]", True),
        (b"evil-flowtally.test", False),
        (b"flowtally.test.evil.test", False),
        (b"\xff\xfe", False),
        (b"xn--\xff", False),
    ],
)
def test_spellings_of_the_host_header(tmp_path: Path, header: bytes, own: bool) -> None:
    with running(tmp_path / "log") as addon:
        flow = request_for("192.0.2.1", "transparent", header)
        serve(addon, flow)
        assert (flow.response is not None) == own


@given(header=BYTES | st.binary(max_size=4).map(lambda end: OWN.encode() + end))
@settings(deadline=None)
def test_any_host_header(tmp_path_factory: pytest.TempPathFactory, header: bytes) -> None:
    with running(tmp_path_factory.mktemp("log") / "log") as addon:
        flow = request_for("192.0.2.1", "transparent", header)
        serve(addon, flow)
        assert (flow.response is None) == (flow.id in addon.open_flows)


def test_its_own_requests_leave_no_trace(tmp_path: Path) -> None:
    served, killed, failed, refused, late = (request_for(OWN) for _ in range(5))
    with running(tmp_path / "log") as addon:
        serve(addon, served)
        assert served.response
        assert b"<title>flowtally" in (served.response.content or b"")
        # Another addon kills it before flowtally sees it, or answers it (proxyauth).
        killed.kill()
        serve(addon, killed)
        assert killed.response is None
        refused.response = http.Response.make(407)
        serve(addon, refused)
        assert refused.response.status_code == 407
        # The client went away.
        failed.error = mflow.Error("Client disconnected.")
        serve(addon, failed)
        # An addon killed the answer; no `error` follows.
        serve(addon, late)
        late.error = mflow.Error(mflow.Error.KILLED_MESSAGE)
        addon.response(late)
        assert tables(addon) == []
    found = records(tmp_path / "log")
    assert [record["type"] for record in found] == ["session_start", "stats"]
    assert [flow.comment for flow in (served, killed, failed, refused, late)] == [""] * 5


@pytest.mark.parametrize("ending", ["answered", "error", "killed", "407"])
def test_its_own_tunnels_leave_no_trace(tmp_path: Path, ending: str) -> None:
    with running(tmp_path / "log") as addon:
        flow = request_for(OWN)
        flow.request.method, flow.request.port = "CONNECT", 443
        if ending == "killed":
            flow.kill()
        if ending == "407":
            flow.response = http.Response.make(407)
        addon.http_connect(flow)
        if ending == "answered":
            assert flow.response
            assert flow.response.status_code == 200
            addon.http_connected(flow)
        elif ending != "killed":
            flow.error = mflow.Error("x") if ending == "error" else None
            addon.http_connect_error(flow)
            assert flow.response
            assert flow.response.status_code == (407 if ending == "407" else 200)
        assert tables(addon) == []
    assert [r["type"] for r in records(tmp_path / "log")] == ["session_start", "stats"]


@pytest.mark.parametrize("ending", ["response", "error", "both"])
def test_its_own_requests_from_a_file_are_not_counted(tmp_path: Path, ending: str) -> None:
    with running(tmp_path / "log") as addon:
        flow = tflow.tflow(resp=ending != "error", err=ending != "response")
        flow.live = False
        flow.request.host = OWN
        replay(addon, flow)
        assert tables(addon) == []
        assert "flowtally" not in flow.metadata
        theirs = tflow.tflow(resp=True)
        theirs.live = False
        replay(addon, theirs)
    assert statistics(tmp_path / "log").flows == 1


def test_failures_that_concern_the_live_page_are_no_events(tmp_path: Path) -> None:
    with running(tmp_path / "log") as addon:
        for host in ("FLOWTALLY.test", "other.test"):
            client = tflow.tclient_conn()
            client.timestamp_end = None
            client.sni = host
            client.error = f"The client does not trust the proxy's certificate for {host} (x)"
            addon.tls_failed_client(tls.TlsData(client, Context(client, addon_options())))
            data = server_failure(client, "[Errno -2] Name or service not known")
            data.server.address = (host, 443)
            addon.server_connect(data)
            addon.server_connect_error(data)
            client.timestamp_end = time.time()
            addon.client_disconnected(client)
        assert tables(addon) == []
    events = [record["host"] for record in records(tmp_path / "log") if record["type"] == "event"]
    assert events == ["other.test"] * 2


@pytest.mark.parametrize(
    ("host", "tls_wanted"),
    [("flowtally.test", False), ("FLOWTALLY.TEST", False), ("other.test", True), (None, True)],
)
def test_no_server_is_looked_for(tmp_path: Path, host: str | None, tls_wanted: bool) -> None:
    with running(tmp_path / "log") as addon:
        context = Context(tflow.tclient_conn(), addon_options())
        context.server.address = (host, 443) if host else None
        context.server.tls = True
        hello: Any = SimpleNamespace(cipher_suites=[0x1301])
        addon.tls_clienthello(tls.ClientHelloData(context, hello))
        assert context.server.tls == tls_wanted


def test_the_host_of_the_live_page_can_be_changed_and_switched_off(tmp_path: Path) -> None:
    def served(addon: Flowtally, host: str) -> bool:
        flow = request_for(host)
        serve(addon, flow)
        if flow.response is None:
            flow.response = http.Response.make(404)
            addon.response(flow)
            return False
        return True

    with running(tmp_path / "log", flowtally_host="Stats.Test") as addon:
        assert served(addon, "stats.test")
        assert not served(addon, OWN)
        addon_options().update(flowtally_host=OWN)
        assert served(addon, OWN)
        assert not served(addon, "stats.test")
        addon_options().update(flowtally_host="")
        assert not served(addon, OWN)
        assert not served(addon, "")
        # What was begun as somebody else's flow ends as one, and the other way round.
        theirs = request_for(OWN)
        addon.requestheaders(theirs)
        addon_options().update(flowtally_host=OWN)
        assert addon.request(theirs) is None
        mine = request_for(OWN)
        addon.requestheaders(mine)
        addon_options().update(flowtally_host="")
        assert addon.request(mine) is None
        for flow in (theirs, mine):
            flow.error = mflow.Error("[Errno -2] Name or service not known")
            addon.error(flow)
        assert tables(addon) == []
    found = records(tmp_path / "log")
    assert [r.get("host", "") for r in found if r["type"] == "flow"] == [
        OWN,
        "stats.test",
        OWN,
        "",
        OWN,
    ]


def test_a_live_page_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path / "log") as addon:
        monkeypatch.setattr("flowtally.report.view.view", None)
        flow = request_for(OWN)
        serve(addon, flow)
        assert flow.response
        assert flow.response.status_code == 500
        assert flow.response.headers["X-Content-Type-Options"] == "nosniff"
    assert "flowtally: defect in page: " in caplog.text


def test_the_live_page_tells_of_the_session(tmp_path: Path) -> None:
    def get(addon: Flowtally, path: str) -> bytes:
        flow = request_for(OWN)
        flow.request.path = path
        serve(addon, flow)
        assert flow.response
        return flow.response.content or b""

    log = tmp_path / "log"
    with running(log) as addon:
        replay(addon, tflow.tflow(resp=http.Response.make(404)))
        page = get(addon, "/").decode()
        assert "<title>flowtally: 1 flow, 1 problem</title>" in page
        assert f"log: {log}</li>" in page
        report = json.loads(get(addon, "/report.json"))
        assert report["statistics"]["totals"]["unsuccessful"] == 1
        assert report["sessions"][0]["ended_cleanly"] is False
        assert get(addon, "/session.jsonl") == log.read_bytes()


def test_what_could_not_be_written_is_said_at_once(tmp_path: Path) -> None:
    with running(tmp_path / "log") as addon:
        assert addon.session
        addon.session._journal.dropped = 7
        assert "Records that could not be written to the log: 7" in call("flowtally.summary")
        flow = request_for(OWN)
        serve(addon, flow)
        assert flow.response
        assert b"could not be written to the log: 7" in (flow.response.content or b"")


# --- commands ---


def call(name: str, *arguments: str) -> Any:
    """As the console and mitmweb call a command."""
    return ctx.master.commands.call_strings(name, list(arguments))


def test_summary(tmp_path: Path) -> None:
    with running(tmp_path / "log") as addon:
        assert call("flowtally.summary")[0] == "flowtally: 0 flows"
        replay(addon, tflow.tflow(resp=True))
        replay(addon, tflow.tflow(err=True))
        summary = call("flowtally.summary")
    assert summary[0].startswith("flowtally: 2 flows, 1 failed (50.0 %)")
    assert summary[2] == "Problems"
    assert not any("\x1b" in line or "\n" in line for line in summary)


def test_a_report_does_not_wait_for_a_large_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowtally.live.MAX_LOG", 0)
    page = tmp_path / "page.html"
    with running(tmp_path / "log") as addon:
        replay(addon, tflow.tflow(resp=True))
        call("flowtally.report", str(page))
    assert 'id="flows-data"' not in page.read_text("utf-8")
    assert "with them: flowtally report --html FILE" in page.read_text("utf-8")


def test_report(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    page = tmp_path / "page.html"
    with running(tmp_path / "log") as addon:
        assert call("flowtally.report", str(page)) is None
        assert "<title>flowtally: 0 flows" in page.read_text("utf-8")
        replay(addon, tflow.tflow(resp=True))
        call("flowtally.report", str(page))
        assert "<title>flowtally: 1 flow," in page.read_text("utf-8")
        assert 'id="flows-data"' in page.read_text("utf-8"), "the single flows"
        assert f"flowtally: report written to {page}" in caplog.text
        for name, content, reason in (
            ("mine", b"mine", "exists, and flowtally did not write it"),
            ("log", None, "exists, and flowtally did not write it"),
            ("none/page.html", None, f"cannot be written: there is no folder {tmp_path}/none"),
            (".", None, "is a folder; name a file in it"),
        ):
            path = tmp_path / name
            if content is not None:
                path.write_bytes(content)
            with pytest.raises(exceptions.CommandError) as caught:
                call("flowtally.report", str(path))
            assert str(caught.value) == f"{path}: {reason}"
        assert (tmp_path / "mine").read_bytes() == b"mine"
        with pytest.raises(exceptions.CommandError):
            call("flowtally.report")
    assert len(records(tmp_path / "log")) == 3


def test_report_into_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with running(tmp_path / "log"):
        call("flowtally.report", "~/page.html")
    assert (tmp_path / "page.html").exists()


@pytest.mark.parametrize("place", ["file", "folder"])
def test_new(tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    location = tmp_path / "log"
    if place == "folder":
        location.mkdir()
    with running(location) as addon:
        assert addon.session
        first = addon.session.path
        replay(addon, tflow.tflow(resp=True))
        pending = request_for("slow.test")
        addon.requestheaders(pending)
        call("flowtally.new")
        assert addon.session
        second = addon.session.path
        assert caplog.text.count(f"flowtally: a new session began; log: {second}") == 1
        assert call("flowtally.summary")[0] == "flowtally: 0 flows"
        pending.response = http.Response.make(404)
        addon.response(pending)
    assert (first == second) == (place == "file")
    found = records(first) + (records(second) if place == "folder" else [])
    assert [record["type"] for record in found] == [
        *("session_start", "flow", "flow", "stats"),
        *("session_start", "flow", "stats"),
    ]
    assert [record.get("outcome") for record in found if record["type"] == "flow"] == [
        "status",
        "unfinished",
        "status",
    ]
    assert [record["final"] for record in found if record["type"] == "stats"] == [True, True]
    read = logs.read([(path.name, path) for path in sorted({first, second})])
    assert [session.final for session in read.sessions.values()] == [True, True]
    assert read.merged().flows == 3


@pytest.mark.parametrize("name", ["flowtally.summary", "flowtally.report", "flowtally.new"])
def test_commands_explain_themselves(tmp_path: Path, name: str) -> None:
    with running(tmp_path / "log") as addon:
        known = ctx.master.commands.commands[name]
        assert known.help
        assert known.help[0].isupper()
        assert known.help.endswith(".")
        types = [parameter.type for parameter in known.parameters]
        assert types == ([mitmproxy.types.Path] if name == "flowtally.report" else [])
        addon.done()
        arguments = [str(tmp_path / "page.html")] * len(types)
        with pytest.raises(exceptions.CommandError, match="no session is running"):
            call(name, *arguments)
    assert not (tmp_path / "page.html").exists()
