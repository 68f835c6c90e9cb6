"""Classification as a table: one message, in one situation, one row.

What the live laboratory can make happen is tested there; here stand the texts that only other
platforms, other resolvers and other versions of OpenSSL produce.
"""

from __future__ import annotations

from typing import Any

import pytest
from flowtally import texts
from flowtally import vocabulary
from flowtally.classify import Note
from flowtally.classify import Rules
from flowtally.classify import classify
from flowtally.classify import exchange_failure
from flowtally.classify import flow_kind
from flowtally.classify import handshake_failure
from flowtally.classify import log_failure
from flowtally.classify import unfinished
from flowtally.internals import LAST_BYTE
from flowtally.situation import NO_WAIT
from flowtally.situation import Situation
from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy.connection import ConnectionState
from mitmproxy.test import tflow

RULES = Rules(vocabulary.STATUS_TAGS, 5.0)
PATIENT = Rules(vocabulary.STATUS_TAGS, 3600.0)
IMPATIENT = Rules(vocabulary.STATUS_TAGS, 0.1)
GAVE_UP = ("client_cancelled", "connection_read_timeout")
HEAD = Situation(head=True)
CLIENT = Situation(side="client")
SERVER = Situation(side="server")
UPSTREAM = Situation(upstream=True)

EXCHANGE = [
    # operating systems word a refused connection, an unknown host ... each in its own way
    ("[Errno 111] Connect call failed ('127.0.0.1', 35055)", Situation(), "connection_refused"),
    ("[Errno 61] Connect call failed ('127.0.0.1', 80)", Situation(), "connection_refused"),
    ("[Errno 10061] Connect call failed ('127.0.0.1', 80)", Situation(), "connection_refused"),
    (
        "[WinError 1225] The remote computer refused the network connection",
        Situation(),
        "connection_refused",
    ),
    ("Connection refused", Situation(), "connection_refused"),
    ("[Errno -2] Name or service not known", Situation(), "dns_error"),
    ("[Errno -3] Temporary failure in name resolution", Situation(), "dns_error"),
    ("[Errno -5] No address associated with hostname", Situation(), "dns_error"),
    ("[Errno -2] Name does not resolve", Situation(), "dns_error"),
    ("[Errno 8] nodename nor servname provided, or not known", Situation(), "dns_error"),
    ("[Errno 11001] getaddrinfo failed", Situation(), "dns_error"),
    ("[Errno 11002] getaddrinfo failed", Situation(), "dns_error"),
    ("nodename nor servname provided, or not known", Situation(), "dns_error"),
    ("[Errno 110] Connect call failed ('10.0.0.1', 80)", Situation(), "connection_timeout"),
    ("[Errno 60] Connect call failed ('10.0.0.1', 80)", Situation(), "connection_timeout"),
    ("[Errno 10060] Connect call failed ('10.0.0.1', 80)", Situation(), "connection_timeout"),
    (
        "[WinError 121] The semaphore timeout period has expired",
        Situation(),
        "connection_timeout",
    ),
    ("[Errno 101] Connect call failed ('::1', 80)", Situation(), "destination_ip_unroutable"),
    ("[Errno 51] Network is unreachable", Situation(), "destination_ip_unroutable"),
    ("[Errno 113] Connect call failed ('10.0.0.1', 80)", Situation(), "destination_ip_unroutable"),
    ("[Errno 65] No route to host", Situation(), "destination_ip_unroutable"),
    ("[WinError 1231] The network location", Situation(), "destination_ip_unroutable"),
    ("[Errno 104] Connection reset by peer", Situation(), "connection_terminated"),
    ("[Errno 54] Connection reset by peer", Situation(), "connection_terminated"),
    ("[Errno 24] Too many open files", Situation(), "proxy_internal_error"),
    ("[Errno 9999] Something new", Situation(), "unknown"),
    # several addresses: the error that tells most
    (
        "Multiple exceptions: [Errno 101] Connect call failed ('::1', 9, 0, 0), "
        "[Errno 111] Connect call failed ('127.0.0.1', 9)",
        Situation(),
        "connection_refused",
    ),
    # an upstream proxy that cannot be reached is another matter than a server
    ("[Errno 111] Connect call failed ('127.0.0.1', 9)", UPSTREAM, "destination_unavailable"),
    ("[Errno -2] Name or service not known", UPSTREAM, "destination_unavailable"),
    ("[Errno 110] Connect call failed ('127.0.0.1', 9)", UPSTREAM, "connection_timeout"),
    (
        "Upstream proxy localhost:3128 refused HTTP CONNECT request: 403 Forbidden",
        UPSTREAM,
        "destination_unavailable",
    ),
    ("connection closed", UPSTREAM, "destination_unavailable"),
    ("connection closed", Situation(upstream=True, tunnelled=True), "tls_protocol_error"),
    ("Client disconnected.", Situation(upstream=True, waited=9), "http_response_timeout"),
    ("Client disconnected.", Situation(upstream=True, waited=1), "client_cancelled"),
    ("connection closed", Situation(upstream=True, side="client"), "client_cancelled"),
    # who breaks, and when
    ("server closed connection", Situation(), "connection_terminated"),
    ("server closed connection", HEAD, "http_response_incomplete"),
    ("peer closed connection", SERVER, "connection_terminated"),
    ("peer closed connection", CLIENT, "client_cancelled"),
    ("HTTP/2 protocol error: bad frame", SERVER, "http_protocol_error"),
    ("HTTP/2 protocol error: bad frame", CLIENT, "http_request_error"),
    ("HTTP/2 protocol error: x", Situation(head=True, side="server"), "http_response_incomplete"),
    ("stream reset by client (INTERNAL_ERROR)", SERVER, "http_protocol_error"),
    ("stream reset by client (CANCEL)", CLIENT, "client_cancelled"),
    ("HTTP/1 protocol error: illegal chunk header: b'Z'", HEAD, "http_response_transfer_coding"),
    ("HTTP/1 protocol error: illegal chunk header: b'Z'", CLIENT, "http_request_error"),
    ("HTTP/1 protocol error: peer closed connection x", HEAD, "http_response_incomplete"),
    ("HTTP/1 protocol error: peer closed connection x", CLIENT, "client_cancelled"),
    # how long the client waited, and for what; its clock may start a tenth of a second earlier
    ("Client disconnected.", Situation(waited=4.5), "client_cancelled"),
    ("Client disconnected.", Situation(waited=4.899), "client_cancelled"),
    ("Client disconnected.", Situation(waited=4.9), "http_response_timeout"),
    ("Client disconnected.", Situation(waited=4.901), "http_response_timeout"),
    ("Client disconnected.", Situation(waited=4.899, head=True), "client_cancelled"),
    ("Client disconnected.", Situation(waited=4.9, head=True), "connection_read_timeout"),
    ("Client disconnected.", Situation(waited=4.899, connecting=True), "client_cancelled"),
    ("Client disconnected.", Situation(waited=4.9, connecting=True), "connection_timeout"),
    (
        "Client disconnected.",
        Situation(waited=5, head=True, connecting=True),
        "connection_read_timeout",
    ),
    ("Client disconnected.", Situation(waited=5), "http_response_timeout"),
    ("Client disconnected.", Situation(waited=5, head=True), "connection_read_timeout"),
    ("client disconnected", Situation(waited=5, connecting=True), "connection_timeout"),
    ("client disconnected", Situation(waited=1, connecting=True), "client_cancelled"),
    # TLS
    ("Certificate verify failed: certificate has expired", Situation(), "tls_certificate_error"),
    (
        "OpenSSL Error([('SSL routines', '', 'certificate verify failed')])",
        Situation(),
        "tls_certificate_error",
    ),
    (
        "OpenSSL Error([('SSL routines', '', 'sslv3 alert handshake failure')])",
        Situation(),
        "tls_alert_received",
    ),
    (
        "OpenSSL Error([('SSL routines', '', 'ssl/tls alert handshake failure')])",
        Situation(),
        "tls_alert_received",
    ),
    (
        "OpenSSL Error([('SSL routines', '', 'tlsv13 alert certificate required')])",
        Situation(),
        "tls_alert_received",
    ),
    (
        "OpenSSL Error([('SSL routines', '', 'tlsv1 unrecognized name')])",
        Situation(),
        "tls_alert_received",
    ),
    (
        "OpenSSL Error([('SSL routines', '', 'unsafe legacy renegotiation disabled')])",
        Situation(),
        "tls_protocol_error",
    ),
    (
        "OpenSSL Error([('SSL routines', '', 'dh key too small')])",
        Situation(),
        "tls_protocol_error",
    ),
    ("The remote server does not speak TLS.", Situation(), "tls_protocol_error"),
    # the proxy's own doing
    ("Connection killed.", Situation(), "http_request_denied"),
    ("Connection killed: not today", Situation(), "http_request_denied"),
    (
        "Connection killed: Request destination unknown. Unable to figure out where",
        Situation(),
        "destination_not_found",
    ),
    ("Invalid request scheme: ftp", Situation(), "invalid_url"),
    (
        "No hook has set a response and there is no upstream server.",
        Situation(),
        "proxy_configuration_error",
    ),
    # what a server sends must not be taken for mitmproxy's words
    (
        "unexpected server response: b'[Errno 111] Connection refused'",
        Situation(),
        "http_protocol_error",
    ),
    ("nobody has ever seen this", Situation(), "unknown"),
    ("", Situation(), "unknown"),
]


GOAWAY = (
    "HTTP/2 connection closed: <ConnectionTerminated error_code:{}, last_stream_id:3, "
    "additional_data:{}>"
)
CONNECTING = Situation(connecting=True, quic=True)
QUIC = Situation(quic=True, side="server")
FORWARDED = Situation(upstream=True, tunnelled=True, forwarded=True)

# What the texts say beyond the cause: message, situation, cause, reason, side.
REASONS = [
    # names
    ("[Errno -2] Name or service not known", Situation(), "dns_error", "nxdomain", "network"),
    ("[Errno 8] nodename nor servname provided", Situation(), "dns_error", "nxdomain", "network"),
    ("[Errno 11001] getaddrinfo failed", Situation(), "dns_error", "nxdomain", "network"),
    ("[Errno -3] Temporary failure in name resolution", Situation(), "dns_error", "", "network"),
    (
        "Cannot resolve, dns_name_servers unknown.",
        Situation(),
        "proxy_configuration_error",
        "no_name_servers",
        "proxy",
    ),
    # numbers of operating systems
    (
        "[Errno 104] Connection reset by peer",
        Situation(),
        "connection_terminated",
        "reset",
        "server",
    ),
    ("[Errno 9] Bad file descriptor", Situation(), "proxy_internal_error", "", "proxy"),
    ("[Errno 16] Device or resource busy", Situation(), "proxy_internal_error", "", "proxy"),
    (
        "[Errno 98] error while attempting to bind on address",
        Situation(),
        "proxy_configuration_error",
        "port_taken",
        "proxy",
    ),
    (
        "[Errno 107] Transport endpoint is not connected",
        Situation(),
        "connection_terminated",
        "",
        "server",
    ),
    (
        "Transport endpoint is not connected (os error 107)",
        Situation(),
        "connection_terminated",
        "",
        "server",
    ),
    ("Connection refused (os error 111)", Situation(), "connection_refused", "", "server"),
    (
        "[WinError 10022] An invalid argument was supplied",
        Situation(),
        "destination_ip_unroutable",
        "",
        "network",
    ),
    (
        "[WinError 10106] The requested service provider could not be loaded",
        Situation(),
        "proxy_configuration_error",
        "winsock",
        "proxy",
    ),
    (
        "[Errno 24] Too many open files",
        Situation(),
        "proxy_internal_error",
        "out_of_files",
        "proxy",
    ),
    # who closed, and when
    ("server closed connection", Situation(), "connection_terminated", "closed", "server"),
    (
        "server closed connection",
        Situation(uploading=True),
        "connection_terminated",
        "request_unfinished",
        "server",
    ),
    (
        "server closed connection",
        Situation(uploading=True, head=True),
        "http_response_incomplete",
        "",
        "server",
    ),
    ("server closed connection", FORWARDED, "destination_unavailable", "closed", "server"),
    (
        "server closed connection",
        FORWARDED._replace(forwarded=False),
        "connection_terminated",
        "closed",
        "server",
    ),
    (
        "server closed connection",
        FORWARDED._replace(head=True),
        "http_response_incomplete",
        "",
        "server",
    ),
    ("connection closed", UPSTREAM, "destination_unavailable", "closed", "server"),
    ("connection closed", Situation(), "tls_protocol_error", "closed_in_handshake", "server"),
    # upstream proxies
    (
        "Upstream proxy p:1 refused HTTP CONNECT request: 407 407 x",
        UPSTREAM,
        "destination_unavailable",
        "login_required",
        "server",
    ),
    (
        "Upstream proxy p:1 refused HTTP CONNECT request: 403 407 x",
        UPSTREAM,
        "destination_unavailable",
        "refused",
        "server",
    ),
    *(
        (
            f"Upstream proxy p:1 refused HTTP CONNECT request: {said}",
            UPSTREAM,
            "destination_unavailable",
            reason,
            "server",
        )
        for said, reason in (
            ("502 Bad gateway", "not_reached"),
            ("503 x", "not_reached"),
            ("504 x", "not_reached"),
            ("500 504 x", "refused"),
            ("403 : 502 x", "refused"),
        )
    ),
    # certificates
    (
        "Certificate verify failed: certificate revoked",
        Situation(),
        "tls_certificate_error",
        "revoked",
        "server",
    ),
    (
        "Certificate verify failed: EE certificate key too weak",
        Situation(),
        "tls_certificate_error",
        "weak_key",
        "server",
    ),
    (
        "Certificate verify failed: certificate is not yet valid or the system clock is incorrect",
        Situation(),
        "tls_certificate_error",
        "not_yet_valid",
        "server",
    ),
    (
        "Certificate verify failed: IP address mismatch",
        Situation(),
        "tls_certificate_error",
        "wrong_host",
        "server",
    ),
    (
        "Certificate verify failed: something new",
        Situation(),
        "tls_certificate_error",
        "",
        "server",
    ),
    # TLS
    (
        "OpenSSL SysCallError(-1, 'Unexpected EOF')",
        Situation(),
        "tls_protocol_error",
        "closed_in_handshake",
        "server",
    ),
    (
        "OpenSSL Error([('SSL routines', '', 'no ciphers available')])",
        Situation(),
        "tls_protocol_error",
        "cipher",
        "server",
    ),
    (
        "OpenSSL Error([('SSL routines', '', 'something new')])",
        Situation(),
        "tls_protocol_error",
        "",
        "server",
    ),
    (
        "OpenSSL Error([('a', '', 'b'), "
        "('SSL routines', '', 'tlsv1 alert no application protocol')])",
        Situation(),
        "tls_alert_received",
        "no_application_protocol",
        "server",
    ),
    (
        "OpenSSL Error([('SSL routines', '', 'tlsv1 alert of tomorrow')])",
        Situation(),
        "tls_alert_received",
        "",
        "server",
    ),
    ("tlsv1 alert unknown ca", Situation(), "tls_alert_received", "unknown_ca", "server"),
    (
        "ssl/tls alert bad certificate",
        Situation(),
        "tls_alert_received",
        "bad_certificate",
        "server",
    ),
    (
        "OpenSSL Error([('SSL routines', '', 'tlsv1 alert user cancelled')])",
        Situation(),
        "tls_alert_received",
        "user_canceled",
        "server",
    ),
    # codes of HTTP
    (
        "stream reset by client (ENHANCE_YOUR_CALM)",
        SERVER,
        "http_protocol_error",
        "enhance_your_calm",
        "server",
    ),
    ("stream reset by client (153)", SERVER, "http_protocol_error", "", "server"),
    ("stream reset by client (NO_ERROR)", HEAD, "http_response_incomplete", "no_error", "server"),
    (
        GOAWAY.format(0, None),
        SERVER,
        "proxy_internal_error",
        "goaway",
        "proxy",
    ),
    (
        GOAWAY.format(0, None),
        CLIENT,
        "client_cancelled",
        "",
        "client",
    ),
    (
        GOAWAY.format(153, "ff"),
        SERVER,
        "http_protocol_error",
        "",
        "server",
    ),
    (
        "HTTP/2 protocol error: InvalidBodyLengthError: Expected 5 bytes, received 4",
        SERVER,
        "http_response_incomplete",
        "",
        "server",
    ),
    (
        "HTTP/2 protocol error: InvalidBodyLengthError: Expected 5 bytes, received 6",
        HEAD,
        "http_protocol_error",
        "surplus_bytes",
        "server",
    ),
    (
        "HTTP/2 protocol error: InvalidBodyLengthError: Expected 5 bytes, received 6",
        CLIENT,
        "http_request_error",
        "",
        "client",
    ),
    # QUIC
    ("H3_NO_ERROR", QUIC, "connection_terminated", "closed", "server"),
    ("NO_ERROR", QUIC._replace(head=True), "http_response_incomplete", "no_error", "server"),
    ("CONNECTION_REFUSED", QUIC, "connection_refused", "", "server"),
    ("H3_EXCESSIVE_LOAD", QUIC, "http_protocol_error", "excessive_load", "server"),
    ("unknown error (0x130)", QUIC, "tls_alert_received", "unknown_ca", "server"),
    ("unknown error (0x170)", QUIC, "tls_alert_received", "unrecognized_name", "server"),
    ("unknown error (0xffff)", QUIC, "http_protocol_error", "", "server"),
    ("Idle timeout", QUIC, "http_response_timeout", "", "server"),
    ("Idle timeout", QUIC._replace(head=True), "connection_read_timeout", "", "server"),
    ("Idle timeout", CONNECTING, "connection_timeout", "", "network"),
    ("connection closed", CONNECTING, "connection_refused", "", "server"),
    ("Certificate is no longer valid", CONNECTING, "tls_certificate_error", "expired", "server"),
    ("hostname 'a' doesn't match 'b'", CONNECTING, "tls_certificate_error", "wrong_host", "server"),
    ("Could not find a common protocol version", CONNECTING, "tls_protocol_error", "", "server"),
    ("content-length does not match data size", QUIC, "http_response_incomplete", "", "server"),
    ("DATA frame is not allowed in this state", QUIC, "http_protocol_error", "", "server"),
    ("DATA frame is not allowed in this state", Situation(), "unknown", "", "proxy"),
    # another script
    ("server closed connection", Situation(denied=True), "http_request_denied", "", "proxy"),
    (
        "Request destination unknown. Unable",
        Situation(denied=True),
        "destination_not_found",
        "itself",
        "client",
    ),
    (
        "Cannot parse HTTP response: Bad HTTP response line: b'SSH-2.0'",
        Situation(),
        "http_protocol_error",
        "not_http",
        "server",
    ),
    ("", Situation(denied=True), "unknown", "", "proxy"),
    ("Going away", QUIC._replace(denied=True), "http_request_denied", "", "proxy"),
    ("Connection killed.", Situation(preface=True), "http_request_error", "h2c", "client"),
    (
        "server closed connection",
        Situation(preface=True),
        "connection_terminated",
        "closed",
        "server",
    ),
    ("", QUIC, "unknown", "", "proxy"),
]


@pytest.mark.parametrize(("message", "situation", "cause", "reason", "side"), REASONS)
def test_reasons(message: str, situation: Situation, cause: str, reason: str, side: str) -> None:
    tag = exchange_failure(message, situation, RULES)
    assert (tag["cause"], tag.get("reason", ""), tag["side"]) == (cause, reason, side)


@pytest.mark.parametrize("reason", vocabulary.REASONS, ids=lambda why: f"{why.cause} {why.reason}")
def test_a_reason_has_its_own_advice_and_leads_back_to_its_cause(reason: vocabulary.Why) -> None:
    assert vocabulary.advice(reason) != vocabulary.CAUSES[reason.cause].advice
    assert vocabulary.side_of(reason) in ("client", "proxy", "server", "network")


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        ("stream reset by client (REFUSED_STREAM)", "stream reset by the server (REFUSED_STREAM)"),
        ("stream closed by client (H3_NO_ERROR)", "stream closed by the server (H3_NO_ERROR)"),
        ("unknown error (0x130)", "TLS alert 48, unknown_ca"),
    ],
)
def test_details_are_made_true(message: str, detail: str) -> None:
    assert exchange_failure(message, SERVER, RULES)["detail"] == detail


def test_only_who_keeps_all_sees_what_a_peer_said_in_goaway() -> None:
    text = GOAWAY.format(11, b"too_many_pings".hex())
    kept = "HTTP/2 connection closed by the server (ENHANCE_YOUR_CALM)"
    for urls in ("redacted", "origin"):
        assert exchange_failure(text, SERVER, RULES._replace(urls=urls))["detail"] == kept
    tag = exchange_failure(text, SERVER, RULES._replace(urls="full"))
    assert tag["detail"] == f"{kept}: too_many_pings"


@pytest.mark.parametrize(("message", "situation", "cause"), EXCHANGE)
def test_exchange(message: str, situation: Situation, cause: str) -> None:
    tag = exchange_failure(message, situation, RULES)
    assert tag["cause"] == cause
    assert tag["outcome"] == ("cancelled" if cause == "client_cancelled" else "error")
    assert tag.items() >= vocabulary.error_fields(cause).items()
    assert tag["side"] == vocabulary.CAUSES[cause].side
    if message and "b'" not in message and "by client" not in message:
        assert tag["detail"] == message


@pytest.mark.parametrize(
    ("timeout", "shortest"), [(0.02, 0.01), (0.1, 0.05), (0.2, 0.1), (0.5, 0.4), (60.0, 59.9)]
)
def test_how_much_shorter_a_wait_may_look(timeout: float, shortest: float) -> None:
    for waited, cause in ((0.999, "client_cancelled"), (1.001, "http_response_timeout")):
        situation = Situation(waited=shortest * waited)
        tag = exchange_failure("Client disconnected.", situation, RULES._replace(timeout=timeout))
        assert tag["cause"] == cause


OVERDUE = Situation(overdue=True, waited=NO_WAIT)
ENDLESS = Situation(head=True, endless=True, waited=3600)


@pytest.mark.parametrize(
    ("situation", "why"),
    [
        # a deadline counts, however short the wait
        (OVERDUE, ("http_response_timeout", "deadline_exceeded")),
        (OVERDUE._replace(head=True), ("connection_read_timeout", "deadline_exceeded")),
        (OVERDUE._replace(connecting=True), ("connection_timeout", "deadline_exceeded")),
        (
            OVERDUE._replace(head=True, endless=True),
            ("connection_read_timeout", "deadline_exceeded"),
        ),
        # the handshake with the server, while nothing has come of it
        (Situation(securing=True), ("http_response_timeout", "tls_handshake")),
        (Situation(securing=True, waited=NO_WAIT), ("client_cancelled", None)),
        (HEAD._replace(securing=True), ("connection_read_timeout", None)),
        # an event stream that has begun is left some time, whatever came
        (ENDLESS, ("client_cancelled", None)),
        (ENDLESS._replace(buffered=True), ("client_cancelled", "buffered")),
        # no wait that could be shown
        (Situation(waited=NO_WAIT), ("client_cancelled", None)),
        (Situation(head=True, waited=NO_WAIT), ("client_cancelled", None)),
    ],
)
@pytest.mark.parametrize(
    "message", ["Client disconnected.", "stream reset by client (CANCEL)", "peer closed connection"]
)
def test_how_a_client_left(message: str, situation: Situation, why: tuple[str, str | None]) -> None:
    waited = situation.waited or 1.0
    tag = exchange_failure(message, situation._replace(side="client", waited=waited), IMPATIENT)
    assert (tag["cause"], tag.get("reason")) == why
    assert tag["detail"] == message.replace("by client", "by the client")


def test_at_a_deadline_the_server_may_be_the_first_to_cancel() -> None:
    by_server = OVERDUE._replace(side="server")
    tag = exchange_failure("stream reset by client (CANCEL)", by_server, RULES)
    assert (tag["cause"], tag["reason"]) == ("http_response_timeout", "deadline_exceeded")
    assert tag["detail"] == "stream reset by the server (CANCEL)"
    tag = exchange_failure("stream reset by client (INTERNAL_ERROR)", by_server, RULES)
    assert tag["cause"] == "http_protocol_error"
    tag = exchange_failure("stream reset by client (CANCEL)", SERVER, RULES)
    assert tag["cause"] == "http_protocol_error"


def test_a_word_of_somebody_else_s_is_no_deadline() -> None:
    by_server = OVERDUE._replace(side="server")
    assert exchange_failure("Upstream proxy (CANCEL)", by_server, RULES)["cause"] != (
        "http_response_timeout"
    )


def test_the_words_of_a_quic_peer_stand_beside_its_code() -> None:
    words = "going away, token=x7Gh2"
    rules = RULES._replace(quic_closes={words: 0x107})
    tag = exchange_failure(words, QUIC, rules)
    assert (tag["cause"], tag["reason"]) == ("http_protocol_error", "excessive_load")
    assert tag["detail"] == "H3_EXCESSIVE_LOAD: going away, token=*"
    full = exchange_failure(words, QUIC, rules._replace(urls="full"))
    assert full["detail"] == f"H3_EXCESSIVE_LOAD: {words}"
    assert exchange_failure(words, QUIC, rules._replace(urls="origin"))["detail"] == (
        "H3_EXCESSIVE_LOAD"
    )
    # Where no QUIC is spoken, the same words are nobody's.
    assert exchange_failure(words, Situation(), rules)["cause"] == "unknown"


def test_what_aioquic_or_a_peer_says_is_kept_as_a_peers_words() -> None:
    tag = exchange_failure("password=hunter2 is wrong", QUIC, RULES)
    assert (tag["cause"], tag["detail"]) == ("http_protocol_error", "password=* is wrong")
    tag = handshake_failure("password=hunter2 is wrong", QUIC, RULES)
    assert (tag["cause"], tag["side"]) == ("tls_protocol_error", "client")
    assert tag["detail"] == "password=* is wrong"


def inactivity() -> Note:
    line = "Closing connection due to inactivity: Client(127.0.0.1:1, state=open)"
    row = vocabulary.find_message(vocabulary.NOTE_MESSAGES, line)
    assert row is not None
    return Note(row, line)


@pytest.mark.parametrize(
    ("situation", "cause", "side"),
    [
        (Situation(), "http_response_timeout", "server"),
        (Situation(connecting=True), "connection_timeout", "network"),
        (HEAD, "connection_read_timeout", "proxy"),
        (Situation(head=True, endless=True, waited=3600), "connection_read_timeout", "proxy"),
        (Situation(waited=3600), "http_response_timeout", "server"),
        # the client is the one who sent nothing more
        (Situation(uploading=True, waited=NO_WAIT), "http_response_timeout", "client"),
    ],
)
def test_mitmproxys_own_timeout(situation: Situation, cause: str, side: str) -> None:
    for message in ("Client disconnected.", "client disconnected", "peer closed connection"):
        by_client = situation._replace(side="client")
        tag = exchange_failure(message, by_client, RULES, inactivity())
        assert (tag["cause"], tag["reason"], tag["side"]) == (cause, "tcp_timeout", side)
        assert tag["error_code"] == -6
        # What else stands in the line are addresses.
        assert tag["detail"] == "Closing connection due to inactivity"


def test_mitmproxys_own_timeout_explains_nothing_else() -> None:
    for message in ("server closed connection", "Connection killed."):
        tag = exchange_failure(message, Situation(), RULES, inactivity())
        assert tag.get("reason") != "tcp_timeout"


def test_mitmproxys_own_timeout_of_other_protocols() -> None:
    timeout = {"cause": "connection_read_timeout", "reason": "tcp_timeout", "side": "proxy"}
    assert classify(tflow.ttcpflow(), RULES, inactivity()).items() >= timeout.items()
    websocket = tflow.twebsocketflow()
    assert websocket.websocket
    websocket.websocket.close_code, websocket.websocket.closed_by_client = 1006, True
    tag = classify(websocket, RULES, inactivity())
    assert tag.items() >= (timeout | {"status": 101, "close_code": 1006}).items()
    websocket.websocket.close_code = 1000
    assert "cause" not in classify(websocket, RULES, inactivity())


@pytest.mark.parametrize(
    ("message", "cause", "side"),
    [
        (
            "The client does not trust the proxy's certificate for h (tlsv1 alert unknown ca)",
            "client_tls_rejected",
            "client",
        ),
        (
            "The client disconnected during the handshake. If this happens consistently for h, ...",
            "client_tls_rejected",
            "client",
        ),
        (
            "The client may not trust the proxy's certificate for h (OpenSSL Error([('SSL "
            "routines', '', 'ssl/tls alert certificate expired')]))",
            "client_tls_rejected",
            "client",
        ),
        (
            "The client may not trust the proxy's certificate for h (OpenSSL Error([('SSL "
            "routines', '', 'no shared cipher')]))",
            "tls_protocol_error",
            "client",
        ),
        (
            "Client and mitmproxy cannot agree on a TLS version to use.",
            "tls_protocol_error",
            "client",
        ),
        # in words that nobody knows
        (
            "The client does not trust the proxy's certificate for h (new words)",
            "client_tls_rejected",
            "client",
        ),
        (
            "The client may not trust the proxy's certificate for h (new words)",
            "client_tls_rejected",
            "client",
        ),
        ("Cannot parse ClientHello: 1603", "tls_protocol_error", "client"),
        ("connection closed", "client_tls_rejected", "client"),
        ("Idle timeout", "client_cancelled", "client"),
    ],
)
def test_client_handshake(message: str, cause: str, side: str) -> None:
    tag = handshake_failure(message, Situation(), RULES)
    assert (tag["cause"], tag["side"]) == (cause, side)


@pytest.mark.parametrize(
    ("line", "cause", "detail"),
    [
        (
            "Bad HTTP request line: b'GET http:///foo HTTP/1.1'",
            "invalid_url",
            "Bad HTTP request line: GET http:///foo",
        ),
        (
            "Bad HTTP request line: b'GET http://u:secret@h:99999/p?token=secret HTTP/1.1'",
            "invalid_url",
            "Bad HTTP request line: GET http://h:99999/p?token=",
        ),
        (
            "Bad HTTP request line: b'secret'",
            "http_request_error",
            "Bad HTTP request line: (bytes not kept)",
        ),
        (
            "Invalid header line: b'Authorization secret'",
            "http_request_error",
            "Invalid header line: (bytes not kept)",
        ),
    ],
)
def test_log_lines(line: str, cause: str, detail: str) -> None:
    row = vocabulary.find_message(vocabulary.LOG_MESSAGES, line)
    assert row is not None
    tag = log_failure(row, line, RULES)
    assert (tag["cause"], tag["detail"]) == (cause, detail)


@pytest.mark.parametrize(
    ("line", "redacted", "full"),
    [
        ("b'SECRET'", "(bytes not kept)", "SECRET (bytes not kept)"),
        ("b'SECRET and more'", "(bytes not kept)", "SECRET (bytes not kept)"),
        ("b'SECRET http:///f;a=b HTTP/1.1'", "(not kept) http:///f;a=", "SECRET http:///f;a=b"),
        ("b'GET http:///f;a=b HTTP/1.1'", "GET http:///f;a=", "GET http:///f;a=b"),
        ("b'GET secret:///f HTTP/1.1'", "GET *:///f", "GET secret:///f"),
        ("b'\\x16\\x03'", "(bytes not kept)", "(bytes not kept)"),
    ],
)
def test_the_words_of_a_bad_request_line(line: str, redacted: str, full: str) -> None:
    text = f"Bad HTTP request line: {line}"
    row = vocabulary.find_message(vocabulary.LOG_MESSAGES, text)
    assert row is not None
    tags = (log_failure(row, text, RULES), log_failure(row, text, RULES._replace(urls="full")))
    assert [tag["detail"] for tag in tags] == [
        f"Bad HTTP request line: {kept}" for kept in (redacted, full)
    ]


def http_flow(error: str = "", **changes: Any) -> http.HTTPFlow:
    flow = tflow.tflow(resp=True, err=bool(error))
    if flow.error:
        flow.error.msg = error
    setattr(flow, LAST_BYTE, changes.pop("last_byte", flow.request.timestamp_start))
    for name, value in changes.items():
        where, _, attribute = name.partition("__")
        setattr(getattr(flow, where), attribute, value)
    return flow


@pytest.mark.parametrize("status", [0, -1])
def test_a_har_entry_without_an_answer_is_no_response(status: int) -> None:
    flow = tflow.tflow(resp=http.Response.make(status))
    assert classify(flow, RULES)["description"] == "Invalid status code"  # live, somebody sent it
    flow.live = False
    tag = classify(flow, RULES)
    assert (tag["outcome"], tag["error_code"], tag["cause"]) == ("error", -1, "unknown")
    assert tag["reason"] == "no_status"
    assert "band" not in tag


def test_a_complete_response_is_its_status() -> None:
    flow = http_flow(response__status_code=404)
    assert classify(flow, RULES) == vocabulary.STATUS_TAGS[404]
    assert classify(flow, RULES) is not vocabulary.STATUS_TAGS[404]


def test_a_truncated_response_is_both() -> None:
    tag = classify(http_flow("HTTP/1 protocol error: peer closed connection early"), RULES)
    assert (tag["status"], tag["band"], tag["error_code"]) == (200, "Success", -1)
    assert tag["outcome"] == "error"


@pytest.mark.parametrize(
    ("client_version", "server_version", "message", "side"),
    [
        ("HTTP/2.0", "HTTP/1.1", "stream reset by client (INTERNAL_ERROR)", "client"),
        ("HTTP/1.1", "HTTP/2.0", "stream reset by client (CANCEL)", "server"),
        ("HTTP/2.0", "HTTP/2.0", "stream reset by client (CANCEL)", "client"),
        ("HTTP/2.0", "HTTP/2.0", "stream reset by client (REFUSED_STREAM)", "server"),
        ("HTTP/2.0", "HTTP/1.1", "HTTP/1 protocol error: illegal chunk header: b'Z'", "server"),
        ("HTTP/1.1", "HTTP/2.0", "HTTP/1 protocol error: illegal chunk header: b'Z'", "client"),
        ("HTTP/1.1", "HTTP/1.1", "HTTP/1 protocol error: illegal chunk header: b'Z'", "server"),
    ],
)
def test_the_side_that_speaks_the_protocol_broke_it(
    client_version: str, server_version: str, message: str, side: str
) -> None:
    flow = http_flow(
        message, request__http_version=client_version, response__http_version=server_version
    )
    assert classify(flow, PATIENT)["side"] == side


@pytest.mark.parametrize(
    ("client", "server", "side"),
    [
        (ConnectionState.CLOSED, ConnectionState.OPEN, "client"),
        (ConnectionState.OPEN, ConnectionState.CLOSED, "server"),
    ],
)
def test_both_speak_http_2_and_one_closes(
    client: ConnectionState, server: ConnectionState, side: str
) -> None:
    flow = http_flow(
        "peer closed connection",
        request__http_version="HTTP/2.0",
        response__http_version="HTTP/2.0",
    )
    for rules in (IMPATIENT, PATIENT):
        flow.live = True
        assert flow.response
        setattr(flow, LAST_BYTE, flow.response.timestamp_start)
        flow.client_conn.state, flow.server_conn.state = client, server
        tag = classify(flow, rules)
        assert (tag["cause"] in GAVE_UP) == (side == "client")
        # A file holds no states and no notes any more, but what the live session made of them.
        delattr(flow, LAST_BYTE)
        flow.metadata["flowtally"] = tag
        flow.live = False
        flow.client_conn.state = flow.server_conn.state = ConnectionState.CLOSED
        assert classify(flow, rules) == tag


def test_a_log_line_explains_a_vague_failure() -> None:
    line = "TLS Error: [('SSL routines', '', 'tlsv13 alert certificate required')]"
    row = texts.tls_log_line(line)
    assert row is not None
    flow = http_flow("server closed connection")
    flow.response = None
    tag = classify(flow, RULES, Note(row, line))
    assert tag["cause"] == "tls_alert_received"
    assert tag["detail"] == f"server closed connection ({line})"
    # A failure that speaks for itself stays what it is.
    flow.error = mflow.Error("Connection killed.")
    assert classify(flow, RULES, Note(row, line))["cause"] == "http_request_denied"


def test_the_wait_ends_when_the_client_is_gone() -> None:
    flow = http_flow("Client disconnected.")
    assert classify(flow, RULES)["error_code"] == -6
    # The hook of another addon held the flow back, long after its client had left.
    flow.client_conn.timestamp_end = flow.request.timestamp_start + 1
    assert classify(flow, RULES)["cause"] == "client_cancelled"


def test_connect_that_failed_is_no_bad_gateway_of_the_servers() -> None:
    flow = http_flow(response__status_code=502, request__method="CONNECT")
    flow.server_conn.error = "[Errno 111] Connect call failed ('127.0.0.1', 9)"
    tag = classify(flow, RULES)
    assert tag["cause"] == "connection_refused"
    assert "status" not in tag
    assert flow_kind(flow) == "connect"


@pytest.mark.parametrize(
    ("close_code", "outcome", "cause"),
    [
        (1000, "status", None),
        (1001, "status", None),
        (1005, "status", None),
        (1011, "status", None),
        (4000, "status", None),
        (1006, "error", "connection_terminated"),
    ],
)
def test_websocket_closes(close_code: int, outcome: str, cause: str | None) -> None:
    flow = tflow.twebsocketflow()
    assert flow.websocket
    flow.websocket.close_code = close_code
    flow.websocket.closed_by_client = False
    tag = classify(flow, RULES)
    assert (tag["outcome"], tag.get("cause"), tag["close_code"]) == (outcome, cause, close_code)
    assert tag["status"] == 101


def test_a_websocket_that_its_client_cuts_off() -> None:
    flow = tflow.twebsocketflow()
    assert flow.websocket
    flow.websocket.close_code, flow.websocket.closed_by_client = 1006, True
    assert classify(flow, RULES) == {
        "outcome": "cancelled",
        "status": 101,
        "band": "Informational",
        "description": "Switching protocols",
        "cause": "client_cancelled",
        "side": "client",
        "detail": "WebSocket connection cut off by the client",
        "close_code": 1006,
    }


@pytest.mark.parametrize(
    ("code", "outcome", "detail"),
    [
        (0, "ok", None),
        (1, "error", "FORMERR"),
        (2, "error", "SERVFAIL"),
        (3, "error", "NXDOMAIN"),
        (5, "error", "REFUSED"),
    ],
)
def test_dns_answers(code: int, outcome: str, detail: str | None) -> None:
    flow = tflow.tdnsflow(resp=True)
    assert flow.response
    flow.response.response_code = code
    tag = classify(flow, RULES)
    assert (tag["outcome"], tag.get("detail")) == (outcome, detail)


def test_streams() -> None:
    assert classify(tflow.ttcpflow(), RULES) == {"outcome": "ok"}
    assert classify(tflow.tudpflow(), RULES) == {"outcome": "ok"}
    assert classify(tflow.ttcpflow(err=True), RULES)["outcome"] == "error"


def test_an_upgrade_that_leads_nowhere() -> None:
    flow = http_flow(response__status_code=101)
    assert classify(flow, RULES)["outcome"] == "status"
    tag = classify(flow, Rules(vocabulary.STATUS_TAGS, 5.0, raw_tcp=False))
    assert (tag["cause"], tag["status"], tag["outcome"]) == ("http_upgrade_failed", 101, "error")


def test_unfinished_keeps_the_head() -> None:
    tag = unfinished(http_flow(), RULES)
    assert tag == {
        "outcome": "unfinished",
        "status": 200,
        "band": "Success",
        "description": "OK",
    }
