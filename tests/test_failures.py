"""Which failures become events: those that no flow tells, once each, when that is certain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flowtally import failures as module
from flowtally import texts
from flowtally import vocabulary
from flowtally.classify import Rules
from flowtally.classify import classify
from flowtally.failures import Failure
from flowtally.failures import Failures
from mitmproxy import connection
from mitmproxy import flow as mflow
from mitmproxy import flowfilter
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import mode_specs
from mitmproxy.test import tflow

RULES = Rules(vocabulary.STATUS_TAGS, 5.0)
NOW = 1000.0

REFUSED = "[Errno 111] Connect call failed ('127.0.0.1', 443)"
UNKNOWN_HOST = "[Errno -2] Name or service not known"
KILLED = mflow.Error.KILLED_MESSAGE

CRASH = "mitmproxy has crashed!\nTraceback"
HANDLER_CRASH = "connection handler has crashed: boom"
UNTRUSTED = "TLS Error: [('SSL routines', '', 'tlsv1 alert unknown ca')]"
ALERT = "TLS Error: [('SSL routines', '', 'tlsv13 alert certificate required')]"
BAD_LINE = "Bad HTTP request line: b'GET http:///foo HTTP/1.1'"


class Bench:
    """Failures, the clients that have open flows, and a clock that stands still."""

    def __init__(self) -> None:
        self.open: set[Any] = set()
        self.now = NOW
        self.failures = Failures(RULES, lambda: self.open, lambda: self.now)
        self.upstream = server_at("upstream")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def client_at(port: int = 1, **attributes: Any) -> connection.Client:
    """A client that is there."""
    client = tflow.tclient_conn()
    client.peername = ("10.0.0.1", port)
    client.timestamp_start, client.timestamp_end = NOW - 1, None
    client.state = ConnectionState.OPEN
    client.sni = None
    for name, value in attributes.items():
        setattr(client, name, value)
    return client


def server_at(
    host: str = "host", error: str | None = REFUSED, **attributes: Any
) -> connection.Server:
    """A server that could not be connected to."""
    address = (host, 443) if host else None
    return connection.Server(
        address=address, error=error, **{"timestamp_start": NOW - 2, **attributes}
    )


def flow_of(
    client: connection.Client, message: str = "", host: str = "host", port: int = 443
) -> mflow.Flow:
    """A flow of a client that has ended: in an error, or with an answer."""
    flow = tflow.tflow(resp=not message, err=bool(message))
    flow.client_conn = client
    flow.request.host, flow.request.port = host, port
    if flow.error:
        flow.error.msg = message
    return flow


def claim(failures: Failures, flow: mflow.Flow) -> dict[str, Any]:
    """What the addon does with a flow that has ended."""
    note = failures.note(flow.client_conn.peername)
    return failures.claim(flow, classify(flow, RULES, note))


def told(failures: list[Failure]) -> list[tuple[str, str, int | None]]:
    """Cause, host and port."""
    return [(failure.tag["cause"], failure.host, failure.port) for failure in failures]


# --- a failed connection to a server ---


def test_it_waits_for_a_flow(bench: Bench) -> None:
    client, failures = client_at(), bench.failures
    assert not failures
    assert failures.server_failed(client, server_at()) == []
    assert failures


def test_what_no_flow_claims_is_told_when_the_client_leaves(bench: Bench) -> None:
    client, failures = client_at(), bench.failures
    failures.server_failed(client, server_at("a"))
    failures.server_failed(client, server_at("b", UNKNOWN_HOST))
    bench.now += 7
    found = failures.client_gone(client.peername)
    assert told(found) == [("connection_refused", "a", 443), ("dns_error", "b", 443)]
    assert {(failure.time, failure.client) for failure in found} == {(NOW, client.peername)}
    assert [failure.message for failure in found] == [REFUSED, UNKNOWN_HOST]
    # Once.
    assert failures.client_gone(client.peername) == []
    assert not failures
    assert failures.at_end() == []


def test_other_clients_have_nothing_to_do_with_it(bench: Bench) -> None:
    failures = bench.failures
    failures.server_failed(client_at(1), server_at())
    assert failures.client_gone(client_at(2).peername) == []
    claim(failures, flow_of(client_at(2), REFUSED))
    assert len(failures.client_gone(client_at(1).peername)) == 1


def test_it_is_told_at_once_if_the_client_is_gone_already(bench: Bench) -> None:
    client, failures = client_at(timestamp_end=NOW - 1), bench.failures
    assert told(failures.server_failed(client, server_at())) == [
        ("connection_refused", "host", 443)
    ]
    assert not failures


def test_it_waits_while_the_client_has_a_flow_open(bench: Bench) -> None:
    # The hook of another addon is slow to let go of the flow.
    client, failures = client_at(timestamp_end=NOW - 1), bench.failures
    bench.open = {client.peername}
    assert failures.server_failed(client, server_at()) == []
    assert failures.client_gone(client.peername) == []
    assert failures
    bench.open = {client_at(2).peername}
    assert len(failures.client_gone(client.peername)) == 1


def test_what_is_left_is_told_at_the_end(bench: Bench) -> None:
    failures = bench.failures
    failures.server_failed(client_at(1), server_at("a"))
    failures.server_failed(client_at(2), server_at("b"))
    bench.open = {client_at(1).peername}
    assert [failure.host for failure in failures.at_end()] == ["a", "b"]
    assert not failures
    assert failures.at_end() == []


def test_failures_of_one_client_are_bounded(bench: Bench) -> None:
    client, failures = client_at(), bench.failures
    for number in range(module.MAX_FAILURES_OF_A_CLIENT):
        assert failures.server_failed(client, server_at(f"h{number}")) == []
    crowded_out = failures.server_failed(client, server_at("last"))
    assert [failure.host for failure in crowded_out] == ["h0"]
    left = failures.client_gone(client.peername)
    assert [left[0].host, left[-1].host] == ["h1", "last"]
    assert len(left) == module.MAX_FAILURES_OF_A_CLIENT


@pytest.mark.parametrize(
    ("of_client", "server", "cause", "host"),
    [
        ({}, server_at(), "connection_refused", "host"),
        ({}, server_at(error=None), "unknown", "host"),
        ({}, server_at(""), "connection_refused", ""),
        (
            {"proxy_mode": mode_specs.ProxyMode.parse("upstream:http://proxy")},
            server_at(),
            "destination_unavailable",
            "host",
        ),
        # who gave up, and after how long
        (
            {"state": ConnectionState.CLOSED},
            server_at(error="connection closed"),
            "client_cancelled",
            "host",
        ),
        (
            {"state": ConnectionState.CLOSED},
            server_at(error="connection closed", timestamp_start=NOW - 6),
            "connection_timeout",
            "host",
        ),
        (
            {"state": ConnectionState.CLOSED},
            server_at(error="connection closed", timestamp_tcp_setup=NOW - 6),
            "http_response_timeout",
            "host",
        ),
        ({}, server_at(error="connection closed"), "tls_protocol_error", "host"),
    ],
)
def test_what_a_failed_connection_is(
    bench: Bench, of_client: dict[str, Any], server: connection.Server, cause: str, host: str
) -> None:
    client = client_at(**of_client)
    bench.failures.server_failed(client, server)
    (failure,) = bench.failures.client_gone(client.peername)
    assert (failure.tag["cause"], failure.host) == (cause, host)
    assert failure.port == (443 if host else None)


# --- a flow claims what is its own ---


@pytest.mark.parametrize(
    ("known", "flow", "cause", "left"),
    [
        # the same text, or the same destination where another addon hid it
        ((REFUSED,), (REFUSED,), "connection_refused", 0),
        ((REFUSED, REFUSED), (REFUSED,), "connection_refused", 0),
        ((REFUSED, UNKNOWN_HOST), (REFUSED,), "connection_refused", 1),
        ((REFUSED,), (KILLED,), "connection_refused", 0),
        ((REFUSED,), ("somebody's own words",), "connection_refused", 0),
        ((REFUSED, UNKNOWN_HOST), (KILLED,), "dns_error", 0),  # the last word counts
        ((REFUSED,), (KILLED, "another"), "http_request_denied", 1),
        ((REFUSED,), (KILLED, "host", 80), "http_request_denied", 1),
        # a connection that another addon forbade is told with a prefix on the flow
        (("not today",), ("Connection killed: not today", "another"), "unknown", 0),
        # a flow that fails otherwise, or not at all, leaves it to others
        ((REFUSED,), ("Client disconnected.",), "http_response_timeout", 1),
        ((REFUSED,), (UNKNOWN_HOST,), "dns_error", 1),
        ((REFUSED,), ("",), None, 1),
    ],
)
def test_claims(
    bench: Bench, known: tuple[str, ...], flow: tuple[Any, ...], cause: str | None, left: int
) -> None:
    client, failures = client_at(), bench.failures
    for message in known:
        failures.server_failed(client, server_at(error=message))
    assert claim(failures, flow_of(client, *flow)).get("cause") == cause
    assert len(failures.client_gone(client.peername)) == left


def test_a_tag_that_says_more_than_the_failure_keeps_it(bench: Bench) -> None:
    client = client_at()
    bench.failures.server_failed(client, server_at())
    flow = flow_of(client, KILLED)
    tag = bench.failures.claim(flow, classify(flow, RULES) | {"status": 200, "replay": "x"})
    assert (tag["cause"], tag["detail"], tag["status"]) == ("connection_refused", REFUSED, 200)


def test_a_failure_that_was_no_failure_takes_the_others_error_away(bench: Bench) -> None:
    client = client_at()
    client.timestamp_end = None
    bench.failures.server_failed(client, server_at(error="client disconnected"))
    flow = flow_of(client, KILLED)
    tag = bench.failures.claim(flow, classify(flow, RULES) | {"reason": "x"})
    assert tag["outcome"] == "cancelled"
    assert not {"error_code", "error_name", "reason"} & tag.keys()


def test_what_a_flow_shows_of_its_failure_stands_above_what_was_known(bench: Bench) -> None:
    client = client_at()
    bench.failures.server_failed(client, server_at(error="connection closed"))
    flow = flow_of(client, "connection closed")
    own = {"outcome": "error", "cause": "http_response_timeout"}
    assert bench.failures.claim(flow, own) == own
    assert not bench.failures


def test_a_connect_has_its_failure_on_the_server(bench: Bench) -> None:
    client, failures = client_at(), bench.failures
    failures.server_failed(client, server_at())
    flow = tflow.tflow(resp=True)
    flow.client_conn, flow.server_conn = client, server_at("elsewhere")
    flow.request.method = "CONNECT"
    assert claim(failures, flow)["cause"] == "connection_refused"
    assert not failures


def test_a_stream_goes_where_its_server_is(bench: Bench) -> None:
    client, failures = client_at(), bench.failures
    for server, left in ((server_at(), False), (server_at("another"), True), (server_at(""), True)):
        failures.server_failed(client, server_at())
        flow = tflow.ttcpflow(err=True)
        assert flow.error
        flow.error.msg, flow.client_conn, flow.server_conn = KILLED, client, server
        claim(failures, flow)
        assert bool(failures) == left
        failures.client_gone(client.peername)


# --- a failed handshake with a client ---

DISTRUST = "The client does not trust the proxy's certificate for host (tlsv1 alert unknown ca)"


@pytest.mark.parametrize(
    ("sni", "server", "host", "port"),
    [
        (None, server_at(), "host", 443),
        ("name", server_at(), "name", 443),
        ("name", server_at(""), "name", None),
        (None, server_at(""), "", None),
    ],
)
def test_a_client_that_distrusts_the_proxy_is_told_at_once(
    bench: Bench, sni: str | None, server: connection.Server, host: str, port: int | None
) -> None:
    client = client_at(sni=sni)
    found = bench.failures.client_handshake_failed(client, server, DISTRUST)
    assert told(found) == [("client_tls_rejected", host, port)]
    assert (found[0].time, found[0].client, found[0].message) == (NOW, client.peername, DISTRUST)
    assert not bench.failures


def test_a_browser_that_distrusts_the_proxy_is_told_when_it_did_not_come_back(bench: Bench) -> None:
    client = client_at()
    bench.failures.handshakes.hello(client.peername, [0x0A0A])
    assert bench.failures.client_handshake_failed(client, server_at(), DISTRUST) == []
    assert told(bench.failures.at_end()) == [("client_tls_rejected", "host", 443)]


def test_a_client_that_left_because_of_the_server_did_not_fail(bench: Bench) -> None:
    def early(client: connection.Client) -> int:
        server = server_at()
        return len(failures.client_handshake_failed(client, server, "connection closed early"))

    failures = bench.failures
    waiting, settled, other = client_at(1), client_at(2), client_at(3)
    failures.server_failed(waiting, server_at())
    failures.server_failed(settled, server_at())
    failures.client_gone(settled.peername)
    failures.client_gone(other.peername)
    assert [early(client) for client in (waiting, settled, other)] == [0, 0, 1]
    # It may have a reason of its own.
    assert len(failures.client_handshake_failed(waiting, server_at(), DISTRUST)) == 1
    assert len(failures.client_handshake_failed(settled, server_at(), DISTRUST)) == 1
    # They are not remembered for ever.
    for port in range(100, 100 + module.MAX_SETTLED):
        failures.server_failed(client_at(port), server_at())
        failures.client_gone(client_at(port).peername)
    assert early(settled) == 1


def test_how_long_a_handshake_took(bench: Bench) -> None:
    message = "connection closed early"
    found = [
        bench.failures.client_handshake_failed(
            client_at(timestamp_start=began), server_at(), message
        )
        for began in (NOW - 1, NOW - 6)
    ]
    assert [failure.tag["cause"] for (failure,) in found] == [
        "client_cancelled",
        "http_response_timeout",
    ]


# --- what mitmproxy's log says ---


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (BAD_LINE, "invalid_url"),
        ("10.0.0.1:1: " + BAD_LINE, "invalid_url"),
        ("10.0.0.2:1: " + BAD_LINE, None),
        ("Bad HTTP request line: b'GARBAGE'", "http_request_error"),
        ("something else", None),
    ],
)
def test_a_request_that_only_the_log_tells(bench: Bench, line: str, cause: str | None) -> None:
    client, failures = client_at().peername, bench.failures
    assert failures.log_line(client, line) == []
    found = failures.client_gone(client)
    assert told(found) == ([(cause, "", None)] if cause else [])
    assert [failure.time for failure in found] == [NOW] * len(found)


def test_a_request_that_a_flow_tells_too(bench: Bench) -> None:
    client, failures = client_at(), bench.failures
    failures.log_line(client.peername, BAD_LINE)
    claim(failures, flow_of(client, BAD_LINE))
    assert not failures


def test_a_log_line_without_a_client_is_told_at_the_end(bench: Bench) -> None:
    assert bench.failures.log_line(None, BAD_LINE) == []
    assert bench.failures.log_line(None, CRASH) == []
    assert told(bench.failures.at_end()) == [("invalid_url", "", None)]
    assert not bench.failures


@pytest.mark.parametrize(
    ("line", "flow", "cause", "left"),
    [
        # it explains a failure, and is used up
        (CRASH, "Client disconnected.", "proxy_internal_error", []),
        (ALERT, "server closed connection", "tls_alert_received", []),
        (UNTRUSTED, "server closed connection", "tls_alert_received", []),
        # another failure leaves it to the next
        (ALERT, KILLED, "http_request_denied", []),
        (UNTRUSTED, KILLED, "http_request_denied", ["client_tls_rejected"]),
        # what went well shows that it was about nothing
        (UNTRUSTED, "", None, []),
        # it was about the client's own handshake, and no flow came of it
        (UNTRUSTED, None, None, ["client_tls_rejected"]),
        (ALERT, None, None, []),
        (CRASH, None, None, ["proxy_internal_error"]),
        (HANDLER_CRASH, None, None, ["proxy_internal_error"]),
        (HANDLER_CRASH, "server closed connection", "proxy_internal_error", []),
        ("TLS Error: something else", None, None, []),
    ],
)
def test_log_lines_that_explain(
    bench: Bench, line: str, flow: str | None, cause: str | None, left: list[str]
) -> None:
    client, failures = client_at(), bench.failures
    assert failures.log_line(client.peername, line) == []
    if flow is not None:
        assert claim(failures, flow_of(client, flow)).get("cause") == cause
    bench.now += 1
    found = failures.client_gone(client.peername)
    assert [failure.tag["cause"] for failure in found] == left
    assert [(failure.time, failure.message) for failure in found] == [(NOW + 1, line)] * len(left)
    assert not failures
    assert failures.note(client.peername) is None


def test_a_note_is_kept_for_the_flow_that_it_explains(bench: Bench) -> None:
    client, failures = client_at(), bench.failures
    failures.log_line(client.peername, ALERT)
    assert failures
    claim(failures, flow_of(client, KILLED))
    known = failures.note(client.peername)
    assert known is not None
    assert known.text == ALERT
    assert failures.note(client_at(2).peername) is None
    assert claim(failures, flow_of(client, "server closed connection"))["cause"] == (
        "tls_alert_received"
    )
    assert failures.note(client.peername) is None


def test_notes_are_bounded(bench: Bench) -> None:
    for port in range(module.MAX_NOTES + 1):
        bench.failures.log_line(("10.0.0.1", port), ALERT)
    assert bench.failures.note(("10.0.0.1", module.MAX_NOTES - 1)) is not None
    assert bench.failures.note(("10.0.0.1", module.MAX_NOTES)) is None


# --- what nothing else tells ---


def test_an_error_page_is_told_where_nothing_else_does(bench: Bench) -> None:
    client = client_at().peername
    (failure,) = bench.failures.error_response(client, texts.NO_HOST)
    assert failure.tag["cause"] == "destination_not_found"
    assert (failure.time, failure.client) == (NOW, client)
    assert bench.failures.error_response(client, REFUSED) == []
    assert not bench.failures


def test_a_client_that_mitmproxy_refuses(bench: Bench) -> None:
    client = client_at(error="Connection killed by block_global.")
    (failure,) = bench.failures.client_refused(client)
    assert (failure.tag["cause"], failure.tag["detail"]) == (
        "http_request_denied",
        "Connection killed by block_global.",
    )
    assert (failure.time, failure.client) == (NOW, client.peername)


# --- connections that hang when the session ends ---


@pytest.mark.parametrize(
    ("handshake", "waited", "cause"),
    [
        (False, 4.9, None),
        (False, 5.0, "connection_timeout"),
        (False, 60.0, "connection_timeout"),
        (True, 4.9, None),
        (True, 5.0, "http_response_timeout"),
    ],
)
def test_a_connection_that_hangs(
    bench: Bench, handshake: bool, waited: float, cause: str | None
) -> None:
    client = client_at()
    bench.failures.connecting(client, server_at(), handshake=handshake)
    bench.now += waited
    found = bench.failures.at_end()
    assert told(found) == ([(cause, "host", 443)] if cause else [])
    for failure in found:
        protocol = "TLS" if handshake else "TCP"
        assert failure.tag["detail"] == f"{protocol} connection to the server still not up"
        assert failure.tag.get("reason") == ("tls_handshake" if handshake else None)
        assert (failure.time, failure.client) == (bench.now, client.peername)


@pytest.mark.parametrize(
    "ending",
    [
        lambda bench, server: bench.failures.connected(server),
        lambda bench, server: bench.failures.server_failed(client_at(timestamp_end=1.0), server),
        # a flow waits for it: that is what is told
        lambda bench, _: bench.open.add(client_at().peername),
    ],
)
def test_a_connection_that_hangs_no_more(
    bench: Bench, ending: Callable[[Bench, connection.Server], object]
) -> None:
    server, other = server_at(), server_at("other")
    bench.failures.connecting(client_at(), server, handshake=False)
    bench.failures.connecting(client_at(2), other, handshake=False)
    ending(bench, server)
    bench.now += 60
    assert [failure.host for failure in bench.failures.at_end()] == ["other"]


def test_the_handshake_begins_anew_to_wait(bench: Bench) -> None:
    server = server_at()
    bench.failures.connecting(client_at(), server, handshake=False)
    bench.now += 4
    bench.failures.connecting(client_at(), server, handshake=True)
    bench.now += 4
    assert bench.failures.at_end() == []


# --- tunnels through an upstream proxy ---


def test_an_upstream_proxy_that_does_not_answer(bench: Bench) -> None:
    client, upstream, failures = client_at(), server_at("upstream"), bench.failures
    failures.tunnelling(client, upstream, "origin", 443)
    bench.now += RULES.timeout
    (found,) = failures.at_end()
    assert told([found]) == [("http_response_timeout", "upstream", 443)]
    assert found.tag["detail"] == "the upstream proxy has still not answered CONNECT"


@pytest.mark.parametrize(
    "ending",
    [
        # TLS with the origin begins, through the tunnel
        lambda bench, client: bench.failures.connecting(
            client, server_at("origin", via=("http", ("upstream", 443))), handshake=True
        ),
        # the connection is gone
        lambda bench, _: bench.failures.connected(bench.upstream),
    ],
)
def test_an_upstream_proxy_that_answered(
    bench: Bench, ending: Callable[[Any, connection.Client], object]
) -> None:
    client = client_at()
    bench.upstream = server_at("upstream")
    bench.failures.tunnelling(client, bench.upstream, "origin", 443)
    bench.failures.tunnelling(client_at(2), server_at("silent"), "origin", 443)
    ending(bench, client)
    bench.now += 60
    found = [failure.host for failure in bench.failures.at_end()]
    assert "upstream" not in found
    assert "silent" in found


def test_a_flow_tells_of_its_tunnel_itself(bench: Bench) -> None:
    client = client_at()
    bench.open = {client.peername}
    bench.failures.tunnelling(client, server_at("upstream"), "origin", 443)
    bench.open, bench.now = set(), NOW + 60
    assert bench.failures.at_end() == []


# --- tasks that die, and what mitmproxy says of itself ---


@pytest.mark.parametrize(
    ("exception", "cause", "reason", "detail"),
    [
        (
            UnicodeEncodeError("idna", "a..b", 2, 3, "label empty"),
            "invalid_url",
            "bad_host",
            "'idna' codec can't encode character '\\x2e' in position 2: label empty",
        ),
        (UnicodeError("label too long"), "invalid_url", "bad_host", "label too long"),
        (
            RuntimeError("unable to resolve hostname: x\n\nStack backtrace:\n 0: ?"),
            "dns_error",
            None,
            "unable to resolve hostname: x",
        ),
        (RuntimeError("a bug"), "proxy_internal_error", "handler_crashed", "a bug"),
        (ValueError(), "proxy_internal_error", "handler_crashed", "ValueError: "),
    ],
)
def test_a_task_that_died(
    bench: Bench, exception: BaseException, cause: str, reason: str | None, detail: str
) -> None:
    client, server, failures = client_at(), server_at(), bench.failures
    failures.connecting(client, server, handshake=False)
    (found,) = failures.task_died(client, server, exception)
    assert told([found]) == [(cause, "host", 443)]
    assert (found.tag.get("reason"), found.tag["detail"]) == (reason, detail)
    assert (found.client, found.server) == (client.peername, server)
    bench.now += 60
    assert failures.at_end() == []


def test_an_error_of_mitmproxys_own_quotes_no_flow(bench: Bench) -> None:
    failures = bench.failures
    (found,) = failures.error_line(
        "mitmproxy.addons.readfile", "Failed to read x: Invalid flow: secret", ValueError("secret")
    )
    assert (found.tag["cause"], found.tag["reason"]) == (
        "proxy_internal_error",
        "capture_incomplete",
    )
    assert "secret" not in str(found)
    (found,) = failures.error_line(
        "mitmproxy_rs.task", "TCP connection handler coroutine panicked:\nmore", None
    )
    assert found.tag["detail"] == "TCP connection handler coroutine panicked:"
    assert failures.error_line("asyncio", "something else", None) == []


def test_without_file_descriptors_nobody_cancelled(bench: Bench) -> None:
    failures, full = bench.failures, OSError(24, "Too many open files")
    late, early = client_at(1, timestamp_start=NOW), client_at(2, timestamp_start=NOW - 1)
    assert not failures
    (found,) = failures.error_line("asyncio", "", full)
    assert (found.tag["cause"], found.tag["reason"]) == ("proxy_internal_error", "out_of_files")
    assert failures
    # What crashes of it is not told again.
    assert failures.log_line(late.peername, CRASH, full) == []
    assert failures.log_line(late.peername, CRASH, LookupError("no codec")) == []
    assert failures.client_gone(late.peername) == []
    left = {"outcome": "cancelled", "cause": "client_cancelled", "side": "client"}
    tag = failures.claim(flow_of(late, "Client disconnected."), left)
    assert (tag["outcome"], tag["cause"], tag["side"]) == ("error", "proxy_internal_error", "proxy")
    assert failures.claim(flow_of(early, "Client disconnected."), left) == left
    bench.now += 1000
    assert failures.due() == []
    assert not failures


# --- clients that leave after the handshake ---


def test_a_client_that_leaves_after_the_handshake(bench: Bench) -> None:
    client, failures = client_at(sni="name"), bench.failures
    failures.client_shook_hands(client, server_at())
    assert failures.client_gone(client.peername) == []
    assert failures.due() == []
    bench.now += 3
    (found,) = failures.due()
    assert told([found]) == [("client_tls_rejected", "name", 443)]
    assert (found.tag["reason"], found.time) == ("after_handshake", NOW)
    assert failures.due() == failures.at_end() == []


def test_an_alert_after_the_handshake_is_told_at_once_and_once(bench: Bench) -> None:
    client, failures = client_at(sni="name"), bench.failures
    failures.client_shook_hands(client, server_at())
    failures.log_line(client.peername, UNTRUSTED)
    found = failures.client_gone(client.peername)
    assert told(found) == [("client_tls_rejected", "name", 443)]
    assert found[0].tag["reason"]
    assert failures.at_end() == []


def test_a_client_that_leaves_because_of_the_server_did_not_distrust(bench: Bench) -> None:
    client, failures = client_at(sni="name"), bench.failures
    failures.client_shook_hands(client, server_at())
    failures.server_failed(client, server_at())
    assert told(failures.client_gone(client.peername)) == [("connection_refused", "host", 443)]
    assert failures.at_end() == []


def test_who_hangs_up_in_the_handshake_may_not_need_the_connection(bench: Bench) -> None:
    failures = bench.failures
    message = "The client disconnected during the handshake. If this happens consistently …"
    for port in (1, 2):
        client = client_at(port, sni=f"name{port}")
        assert failures.client_handshake_failed(client, server_at(), message) == []
    used = client_at(3, sni="name2")
    failures.client_shook_hands(used, server_at())
    failures.handshakes.spoke(used.peername)
    (found,) = failures.at_end()
    assert told([found]) == [("client_tls_rejected", "name1", 443)]
    assert found.tag["detail"] == message
    assert found.tag.get("reason") != "after_handshake"


# --- filters ---


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ("~d host", True),
        ("~d other", False),
        ("~e", True),
        ("~meta connection_refused", True),
        ("~src 10.0.0.1:1", True),
        ("~m GET", False),
        ("~b x", False),
        ("!~s", True),
    ],
)
def test_filters_can_look_at_a_failure(bench: Bench, expression: str, matches: bool) -> None:
    bench.failures.server_failed(client_at(), server_at())
    (failure,) = bench.failures.client_gone(client_at().peername)
    assert bool(flowfilter.match(expression, failure.as_flow())) == matches


def test_a_failure_without_a_client_or_a_server_as_a_flow() -> None:
    flow = Failure("text", NOW, {"cause": "x"}, None).as_flow()
    assert (flow.request.host, flow.request.port) == ("", 0)
    assert (flow.client_conn.peername, flow.server_conn.address) == (("", 0), ("", 0))
    assert flow.error
    assert (flow.error.msg, flow.error.timestamp) == ("text", NOW)
    assert (flow.request.timestamp_start, flow.client_conn.timestamp_start) == (NOW, NOW)
    assert flow.metadata["flowtally"] == {"cause": "x"}
    failure = Failure("text", NOW, {"detail": "redacted"}, ("c", 1), "h", 2)
    flow = failure.as_flow()
    assert flow.error
    assert flow.error.msg == "redacted"
    assert (flow.request.host, flow.request.port) == ("h", 2)
    assert (flow.client_conn.peername, flow.server_conn.address) == (("c", 1), ("h", 2))
