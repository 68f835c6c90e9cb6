"""Every fault, live: a broken server or client, a real mitmdump, and what the log says about it.

One row, one case: name, server, what the client does, the record to expect, the proxy's settings.
"""

from __future__ import annotations

import csv
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from ssl import TLSVersion

import pytest
from h2.errors import ErrorCodes
from lab import clients
from lab import http2
from lab import servers
from lab import websocket
from lab.clients import request_head
from lab.expected import cancelled
from lab.expected import event
from lab.expected import failure
from lab.expected import fine
from lab.expected import flow_or_event
from lab.expected import overlaid
from lab.expected import status
from lab.factories import answering
from lab.factories import at
from lab.factories import black_hole
from lab.factories import dead
from lab.factories import dead_by_name
from lab.factories import in_handshake
from lab.factories import nobody
from lab.factories import over_http2
from lab.factories import over_secure_websocket
from lab.factories import over_tls
from lab.factories import over_websocket
from lab.factories import raw_tcp
from lab.faults import Act
from lab.faults import Bench
from lab.faults import Case
from lab.faults import absolute_get
from lab.faults import ask
from lab.faults import case
from lab.faults import get
from lab.faults import get_http2
from lab.faults import get_tls
from lab.faults import get_tls_through
from lab.faults import post
from lab.faults import request_to_proxy_itself
from lab.faults import send
from lab.faults import through
from lab.laboratory import LATE
from lab.laboratory import Laboratory
from lab.proxy import REPOSITORY
from lab.tls import Authority
from mitmproxy.options import Options

pytestmark = pytest.mark.timeout(60)


# -- what the client does


def shake_hands(bench: Bench) -> None:
    authority = f"{bench.server.host}:{bench.server.port}"
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    headers = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", key)
    head = request_head("GET", f"http://{authority}/", authority, *headers, keep_alive=True)
    with closing(clients.open_connection(bench.proxy.port)) as connection:
        connection.sendall(head)
        servers.read_until(connection, b"\r\n\r\n")


def get_path(path: str) -> Act:
    def act(bench: Bench) -> None:
        clients.get(bench.proxy, bench.server, path)

    return act


def get_tls_path(path: str) -> Act:
    def act(bench: Bench) -> None:
        clients.get_tls(bench.proxy, bench.server, path)

    return act


def connect_only(bench: Bench) -> None:
    clients.connect_without_request(bench.proxy, bench.server)


def distrust(bench: Bench) -> None:
    clients.distrust(bench.proxy, bench.server)


def hang_up_in_handshake(bench: Bench) -> None:
    clients.hang_up_in_handshake(bench.proxy, bench.server)


def send_and_leave(data: bytes) -> Act:
    def act(bench: Bench) -> None:
        with closing(clients.open_connection(bench.proxy.port)) as connection:
            connection.sendall(data)

    return act


def get_or_leave_late(bench: Bench) -> None:
    with closing(_sent_request(bench)) as connection:
        connection.settimeout(LATE)
        try:
            clients.read_to_end(connection)
        except TimeoutError:
            pass


def _sent_request(bench: Bench) -> socket.socket:
    connection = clients.open_connection(bench.proxy.port)
    connection.sendall(clients.absolute_get(bench.server))
    return connection


def leave_early(bench: Bench) -> None:
    """The client leaves as soon as the server has the request."""
    with closing(_sent_request(bench)):
        bench.server.wait_request()


def leave_late(bench: Bench) -> None:
    connection = _sent_request(bench)
    bench.server.wait_request()
    clients.wait_in_vain(connection, LATE)


def leave_late_after_head(bench: Bench) -> None:
    connection = _sent_request(bench)
    bench.server.wait_answer()
    clients.wait_in_vain(connection, LATE)


def leave_early_after_head(bench: Bench) -> None:
    """Only a streaming proxy passes the head on while the body is missing."""
    with closing(_sent_request(bench)) as connection:
        servers.read_until(connection, b"\r\n\r\n")


def leave_late_while_connecting(bench: Bench) -> None:
    clients.wait_in_vain(_sent_request(bench), LATE)


def leave_early_while_connecting(bench: Bench) -> None:
    with closing(_sent_request(bench)):
        _wait_until_read(bench)


def _tunnel_to_nowhere(bench: Bench) -> socket.socket:
    connection = clients.open_connection(bench.proxy.port)
    authority = f"{bench.server.host}:{bench.server.port}"
    connection.sendall(request_head("CONNECT", authority, authority, keep_alive=True))
    return connection


def leave_tunnel_late_while_connecting(bench: Bench) -> None:
    clients.wait_in_vain(_tunnel_to_nowhere(bench), LATE)


def _sent_tls_request(bench: Bench) -> ssl.SSLSocket:
    connection = clients.open_tls(bench.proxy, bench.server, "http/1.1")
    connection.sendall(request_head("GET", "/", f"{bench.server.host}:{bench.server.port}"))
    return connection


def get_tls_or_leave_late(bench: Bench) -> None:
    with closing(_sent_tls_request(bench)) as connection:
        connection.settimeout(LATE)
        try:
            clients.read_to_end(connection)
        except TimeoutError:
            pass


def leave_tls_early(bench: Bench) -> None:
    with closing(_sent_tls_request(bench)):
        bench.server.wait_request()


def leave_handshake_late(bench: Bench) -> None:
    tunnel = clients.start_handshake(bench.proxy, bench.server)
    bench.server.wait_request()
    clients.wait_in_vain(tunnel, LATE)
    _wait_until_read(bench)
    bench.server.close()


def leave_handshake_early(bench: Bench) -> None:
    with closing(clients.start_handshake(bench.proxy, bench.server)):
        bench.server.wait_request()
    _wait_until_read(bench)
    bench.server.close()


def wait_for_the_proxy_in_handshake(bench: Bench) -> None:
    with closing(clients.start_handshake(bench.proxy, bench.server)) as tunnel:
        assert clients.read_to_end(tunnel) == b""


def wait_for_the_proxy(bench: Bench) -> None:
    """The client has all the time in the world."""
    clients.get(bench.proxy, bench.server)


def cancel_http2_early(bench: Bench) -> None:
    with clients.open_http2(bench.proxy, bench.server) as client:
        stream = client.request()
        bench.server.wait_request()
        client.cancel(stream)


def cancel_http2_late(bench: Bench) -> None:
    with clients.open_http2(bench.proxy, bench.server) as client:
        stream = client.request()
        bench.server.wait_request()
        client.wait(LATE)
        client.cancel(stream)


def post_cut_off(bench: Bench) -> None:
    authority = f"{bench.server.host}:{bench.server.port}"
    head = request_head("POST", f"http://{authority}/", authority, "Content-Length: 100")
    with closing(clients.open_connection(bench.proxy.port)) as connection:
        connection.sendall(head + b"abc")


def second_request_without_host(bench: Bench) -> None:
    authority = f"{bench.server.host}:{bench.server.port}"
    first = request_head("GET", f"http://{authority}/", authority, keep_alive=True)
    with closing(clients.open_connection(bench.proxy.port)) as connection:
        connection.sendall(first)
        head = servers.read_until(connection, b"hello")
        assert head.startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /second HTTP/1.1\r\n\r\n")
        clients.read_to_end(connection)


def split_request_without_host(bench: Bench) -> None:
    with closing(clients.open_connection(bench.proxy.port)) as connection:
        connection.sendall(b"GET /split HTT")
        _wait_until_read(bench)
        connection.sendall(b"P/1.1\r\nAccept: */*\r\n\r\n")
        clients.read_to_end(connection)


def _wait_until_read(bench: Bench) -> None:
    """The proxy has one thread: when it answers here, it has read what was sent before."""
    clients.get(bench.proxy, bench.laboratory.beacon)


def origin_get(port: int, _: Bench) -> None:
    clients.exchange(port, request_head("GET", "/", "origin.example"))


def connect_in_reverse_mode(port: int, _: Bench) -> None:
    clients.exchange(port, request_head("CONNECT", "a.example:443", "a.example:443"))


def socks_get(port: int, bench: Bench) -> None:
    connection, reply = clients.open_socks(port, bench.server)
    with closing(connection):
        assert reply == 0
        connection.sendall(request_head("GET", "/", f"{bench.server.host}:{bench.server.port}"))
        clients.read_to_end(connection)


def socks_refused(port: int, bench: Bench) -> None:
    connection, reply = clients.open_socks(port, bench.server)
    connection.close()
    assert reply != 0


def echo(connection: socket.socket) -> None:
    with closing(connection):
        connection.sendall(b"\x00\x01raw bytes")
        assert connection.recv(64) == b"\x00\x01raw bytes"
        connection.shutdown(socket.SHUT_WR)
        assert clients.read_to_end(connection) == b""


def echo_in_tunnel(bench: Bench) -> None:
    tunnel = clients.open_tunnel(bench.proxy, bench.server)
    assert tunnel is not None
    echo(tunnel)


def echo_through(port: int, _: Bench) -> None:
    echo(clients.open_connection(port))


def find_closed(port: int, _: Bench) -> None:
    assert clients.exchange(port, b"\x00\x01raw bytes") == b""


def talk(ending: str) -> Act:
    def act(bench: Bench) -> None:
        secure = bench.server.url.startswith("wss:")
        tls = clients.trusting(bench.proxy) if secure else None
        websocket.talk(f"{bench.server.url}/{ending}", bench.proxy.url, tls)

    return act


def cut_off_websocket(bench: Bench) -> None:
    websocket.cut_off(f"{bench.server.url}/1000", bench.proxy.url)


WITHOUT_TCP_TIMEOUT = (
    "" if "tcp_timeout" in Options() else "the option tcp_timeout came with mitmproxy 12.2.1"
)


# -- outcomes that several cases share

OK = status(200, "OK")
REFUSED = failure(-2, "connection_refused", "server")
CLIENT_LEFT = cancelled()
NO_ANSWER = failure(-6, "http_response_timeout", "server")
TERMINATED = failure(-2, "connection_terminated", "server")
NO_HTTP = failure(-2, "http_protocol_error", "server")
INCOMPLETE = failure(-1, "http_response_incomplete", "server", after=200)
BAD_CHUNK = failure(-1, "http_response_transfer_coding", "server", after=200)
BAD_REQUEST = failure(-1, "http_request_error", "client")
TOO_LARGE = failure(-1, "http_response_body_size", "proxy", after=200)
BAD_CERTIFICATE = failure(-2, "tls_certificate_error", "server")
NO_TLS = failure(-2, "tls_protocol_error", "server")
ALERT = failure(-2, "tls_alert_received", "server")
UPSTREAM_UNAVAILABLE = failure(-2, "destination_unavailable", "server")
DNS_ERROR = failure(-2, "dns_error", "network", kind="dns")
PROXY_REFUSED_CLIENT = event(-2, "client_tls_rejected", "client")
INVALID_URL = event(-4, "invalid_url", "client")
NO_DESTINATION = event(-4, "destination_not_found", "client")


# fmt: off
CASES = [
    # Nothing wrong: the table would prove little if every exchange failed.
    case("no fault, http", answering(servers.OK), get, OK),
    case("no fault, https", over_tls(servers.OK), get_tls, OK),
    case("no fault, http/2", over_http2(http2.answer), get_http2, OK),
    case("no fault, chunked", answering(servers.CHUNKED), get, OK),
    case("slower than the timeout, but answered", answering(servers.SLOW), get, OK,
         proxy="impatient"),
    # No connection to the server.
    case("refused port, http", dead, get, REFUSED),
    case("refused port by name, http", dead_by_name, get, REFUSED),
    case("refused port, https", dead_by_name, get_tls,
         failure(-2, "connection_refused", "server", kind="connect")),
    case("refused port, https, lazy", dead_by_name, get_tls, REFUSED, proxy="lazy"),
    case("unknown host, http", at("nonexistent.invalid", 80), get,
         failure(-2, "dns_error", "network")),
    case("unknown host, https", at("nonexistent.invalid", 443), get_tls,
         failure(-2, "dns_error", "network", kind="connect")),
    # Linux refuses TCP to a multicast address as unreachable, whatever its routes are.
    case("unroutable address", at("224.0.0.1", 80), get,
         failure(-2, "destination_ip_unroutable", "network")),
    case("SYN not answered, client leaves late", black_hole, leave_late_while_connecting,
         failure(-6, "connection_timeout", "network"), proxy="impatient"),
    case("SYN not answered, client leaves early", black_hole, leave_early_while_connecting,
         CLIENT_LEFT),
    case("SYN not answered, https, client leaves late", black_hole,
         leave_tunnel_late_while_connecting,
         failure(-6, "connection_timeout", "network", kind="connect"), proxy="impatient"),
    # No answer, or none that is HTTP.
    case("silence after the request, client leaves late", answering(servers.SILENT), leave_late,
         NO_ANSWER, proxy="impatient"),
    case("silence after the request, client leaves early", answering(servers.SILENT),
         leave_early, CLIENT_LEFT),
    case("silence after the request, mitmproxy gives up", answering(servers.SILENT),
         wait_for_the_proxy, NO_ANSWER, proxy="inactivity",
         skip=WITHOUT_TCP_TIMEOUT),
    case("silence after the head, client leaves late", answering(servers.SILENT_AFTER_HEAD),
         leave_late_after_head,
         failure(-6, "connection_read_timeout", "server", after=200), proxy="impatient"),
    case("silence after the head, client leaves early", answering(servers.SILENT_AFTER_HEAD),
         leave_early_after_head,
         cancelled(after=200), proxy="streaming"),
    case("server closes after the request", answering(servers.CLOSES), get, TERMINATED),
    case("server resets after the request", answering(servers.RESETS), get, TERMINATED),
    case("server closes after the request, https", over_tls(servers.CLOSES), get_tls, TERMINATED),
    case("garbage line", answering(servers.GARBAGE_LINE), get, NO_HTTP),
    case("garbage without a line end", answering(servers.GARBAGE_WITHOUT_LINE_END), get, NO_HTTP),
    case("bad status line", answering(servers.BAD_STATUS_LINE), get, NO_HTTP),
    case("Content-Length and Transfer-Encoding", answering(servers.LENGTH_AND_CHUNKED), get,
         failure(-2, "http_protocol_error", "proxy", after=200)),
    # A broken body.
    case("short body", answering(servers.SHORT_BODY), get, INCOMPLETE),
    case("short body, reset", answering(servers.SHORT_BODY_RESET), get, INCOMPLETE),
    case("short body, https", over_tls(servers.SHORT_BODY), get_tls, INCOMPLETE),
    case("chunked body cut off", answering(servers.CHUNKED_CUT_OFF), get, INCOMPLETE),
    case("illegal chunk header", answering(servers.ILLEGAL_CHUNK_HEADER), get, BAD_CHUNK),
    case("streamed, complete", answering(servers.OK), get, OK, proxy="streaming"),
    case("streamed, complete, chunked", answering(servers.CHUNKED), get, OK, proxy="streaming"),
    case("streamed, short body", answering(servers.SHORT_BODY), get, INCOMPLETE,
         proxy="streaming"),
    case("streamed, chunked body cut off", answering(servers.CHUNKED_CUT_OFF), get, INCOMPLETE,
         proxy="streaming"),
    case("trailers", answering(servers.CHUNKED_WITH_TRAILERS), get_or_leave_late,
         failure(-1, "proxy_internal_error", "proxy", after=200), proxy="impatient"),
    # A broken request.
    case("request body cut off", answering(servers.OK), post_cut_off, CLIENT_LEFT),
    case("request with an invalid Content-Length", answering(servers.OK),
         post("Content-Length: abc"), BAD_REQUEST),
    case("request with an illegal chunk header", answering(servers.OK),
         post("Transfer-Encoding: chunked", body=b"ZZ\r\nabc\r\n"), BAD_REQUEST),
    case("request over body_size_limit", answering(servers.OK),
         post("Content-Length: 4096", body=b"x" * 4096), BAD_REQUEST, proxy="limited"),
    case("chunked request over body_size_limit", answering(servers.OK),
         post("Transfer-Encoding: chunked", body=b"1000\r\n" + b"x" * 4096 + b"\r\n0\r\n\r\n"),
         BAD_REQUEST, proxy="limited"),
    case("response over body_size_limit", answering(servers.LARGE_BODY), get, TOO_LARGE,
         proxy="limited"),
    case("chunked response over body_size_limit", answering(servers.LARGE_CHUNKED_BODY), get,
         TOO_LARGE, proxy="limited"),
    case("request line that is no HTTP", nobody, send(b"GARBAGE\r\n\r\n"),
         event(-1, "http_request_error", "client")),
    case("request head cut off", nobody, send_and_leave(b"GET http://127.0.0.1/ HTTP/1.1\r\nA")),
    case("URL without a host", nobody, send(b"GET http:///foo HTTP/1.1\r\n\r\n"), INVALID_URL),
    case("URL with a bad port", nobody, send(b"GET http://h:99999/ HTTP/1.1\r\n\r\n"),
         INVALID_URL),
    case("URL without a scheme", nobody, send(b"GET foo HTTP/1.1\r\n\r\n"), INVALID_URL),
    case("URL with another scheme", nobody, send(b"GET ftp://127.0.0.1:21/ HTTP/1.1\r\n\r\n"),
         failure(-4, "invalid_url", "client")),
    case("no host", nobody, send(b"GET /first HTTP/1.1\r\n\r\n"), NO_DESTINATION),
    case("no host, split over two packets", nobody, split_request_without_host, NO_DESTINATION),
    case("no host, second request of a connection", answering(servers.OK),
         second_request_without_host, OK, NO_DESTINATION),
    case("request to the proxy itself", nobody, request_to_proxy_itself,
         failure(-4, "destination_not_found", "client")),
    # TLS with the server.
    case("self-signed certificate", over_tls(servers.OK, Authority.self_signed), get_tls,
         BAD_CERTIFICATE),
    case("expired certificate", over_tls(servers.OK, Authority.expired), get_tls,
         BAD_CERTIFICATE),
    case("certificate of another host", over_tls(servers.OK, Authority.wrong_host), get_tls,
         BAD_CERTIFICATE),
    case("certificate of an unknown CA", over_tls(servers.OK, Authority.unknown_issuer), get_tls,
         BAD_CERTIFICATE),
    case("expired certificate, lazy", over_tls(servers.OK, Authority.expired), get_tls,
         BAD_CERTIFICATE, proxy="lazy"),
    case("expired certificate, no request follows", over_tls(servers.OK, Authority.expired),
         connect_only, event(-2, "tls_certificate_error", "server")),
    case("server speaks old TLS only", over_tls(servers.OK, Authority.outdated), get_tls, NO_TLS),
    case("plain text on a TLS port", in_handshake(servers.BAD_STATUS_LINE), get_tls, NO_TLS),
    case("close in the TLS handshake", in_handshake(servers.CLOSES), get_tls, NO_TLS),
    case("close in the TLS handshake, no request follows", in_handshake(servers.CLOSES),
         connect_only, event(-2, "tls_protocol_error", "server")),
    case("reset in the TLS handshake", in_handshake(servers.RESETS), get_tls, NO_TLS),
    case("client certificate demanded, TLS 1.2",
         over_tls(servers.OK,
                  lambda authority: authority.demands_client_certificate(TLSVersion.TLSv1_2)),
         get_tls, ALERT),
    case("client certificate demanded, TLS 1.3",
         over_tls(servers.OK,
                  lambda authority: authority.demands_client_certificate(TLSVersion.TLSv1_3)),
         get_tls_or_leave_late, ALERT, proxy="impatient"),
    case("silence in the TLS handshake, lazy, client leaves late", in_handshake(servers.SILENT),
         get_tls_or_leave_late,
         failure(-6, "http_response_timeout", "server", reason="tls_handshake"),
         proxy="impatient and lazy"),
    case("silence in the TLS handshake, lazy, client leaves early",
         in_handshake(servers.SILENT), leave_tls_early, CLIENT_LEFT, proxy="lazy"),
    # With the eager strategy mitmproxy notices that the client has left only when the server
    # closes or the connection has been inactive for `tcp_timeout`, 600 s before mitmproxy 12.2.1.
    case("silence in the TLS handshake, client leaves late", in_handshake(servers.SILENT),
         leave_handshake_late, flow_or_event(-6, "http_response_timeout", "server"),
         proxy="impatient"),
    case("silence in the TLS handshake, client leaves early", in_handshake(servers.SILENT),
         leave_handshake_early),
    case("silence in the TLS handshake, mitmproxy gives up", in_handshake(servers.SILENT),
         wait_for_the_proxy_in_handshake, flow_or_event(-6, "http_response_timeout", "server"),
         proxy="inactivity", skip=WITHOUT_TCP_TIMEOUT),
    # TLS with the client.
    case("client does not trust the proxy", over_tls(servers.OK), distrust, PROXY_REFUSED_CLIENT),
    case("client hangs up in the handshake", over_tls(servers.OK), hang_up_in_handshake,
         PROXY_REFUSED_CLIENT),
    # HTTP/2.
    case("stream reset before the head",
         over_http2(http2.reset_before_head(ErrorCodes.INTERNAL_ERROR)), get_http2, NO_HTTP),
    case("stream refused", over_http2(http2.reset_before_head(ErrorCodes.REFUSED_STREAM)),
         get_http2, NO_HTTP),
    case("stream reset after the head",
         over_http2(http2.reset_after_head(ErrorCodes.INTERNAL_ERROR)), get_http2, INCOMPLETE),
    case("GOAWAY before the head", over_http2(http2.go_away), get_http2, NO_HTTP),
    case("stream cancelled by the client early", over_http2(http2.stay_silent),
         cancel_http2_early, CLIENT_LEFT),
    case("stream cancelled by the client late", over_http2(http2.stay_silent), cancel_http2_late,
         NO_ANSWER, proxy="impatient"),
    case("stream cancelled by the client, server speaks HTTP/1.1", over_tls(servers.SILENT),
         cancel_http2_early, CLIENT_LEFT, proxy="lazy"),
    # The proxy itself answers, blocks or kills.
    case("killed by another addon", answering(servers.OK), get_path("/kill-request"),
         failure(-2, "http_request_denied", "proxy"), proxy="intervening"),
    case("killed by another addon after the response", answering(servers.OK),
         get_path("/kill-response"),
         failure(-2, "http_request_denied", "proxy", after=200), proxy="intervening"),
    case("block_list kills", answering(servers.OK), get_path("/blocked-444"),
         failure(-2, "http_request_denied", "proxy"), proxy="intervening"),
    case("block_list answers", answering(servers.OK), get_path("/blocked-403"),
         status(403, "Forbidden", answered_by="proxy"), proxy="intervening"),
    case("block_list answers, https", over_tls(servers.OK), get_tls_path("/blocked-403"),
         status(403, "Forbidden", answered_by="proxy"), proxy="intervening"),
    case("map_local answers", answering(servers.OK), get_path("/mapped/file.txt"),
         status(200, "OK", answered_by="proxy"), proxy="intervening"),
    case("map_local answers, https", over_tls(servers.OK), get_tls_path("/mapped/file.txt"),
         status(200, "OK", answered_by="proxy"), proxy="intervening"),
    case("map_local has no such file", answering(servers.OK), get_path("/mapped/none.txt"),
         status(404, "Not found", answered_by="proxy"), proxy="intervening"),
    case("mitm.it", at("mitm.it", 80), get, status(200, "OK", answered_by="proxy")),
    case("proxy login missing, http", answering(servers.OK), get,
         status(407, "Proxy authentication required", answered_by="proxy"), proxy="login"),
    case("proxy login missing, https", over_tls(servers.OK), get_tls,
         status(407, "Proxy authentication required", answered_by="proxy", kind="connect"),
         proxy="login"),
    # Other modes.
    case("reverse mode", nobody, through("reverse", origin_get), OK),
    case("reverse mode, dead server", nobody, through("reverse to dead", origin_get),
         event(-2, "connection_refused", "server")),
    case("reverse mode, CONNECT", nobody, through("reverse", connect_in_reverse_mode),
         failure(-1, "proxy_configuration_error", "proxy", kind="connect")),
    case("upstream mode, dead proxy, http", answering(servers.OK),
         through("dead upstream", absolute_get), UPSTREAM_UNAVAILABLE),
    case("upstream mode, dead proxy, https", over_tls(servers.OK),
         through("dead upstream", get_tls_through), UPSTREAM_UNAVAILABLE),
    case("upstream mode, CONNECT forbidden", over_tls(servers.OK),
         through("forbidding upstream", get_tls_through), UPSTREAM_UNAVAILABLE),
    case("upstream mode, CONNECT needs a login", over_tls(servers.OK),
         through("locked upstream", get_tls_through), UPSTREAM_UNAVAILABLE),
    case("SOCKS", answering(servers.OK), through("socks5", socks_get), OK),
    case("SOCKS, but the client speaks HTTP", nobody, through("socks5", origin_get),
         event(-1, "http_request_error", "client")),
    case("SOCKS, dead server", dead, through("socks5", socks_refused),
         event(-2, "connection_refused", "server")),
    # Other protocols.
    case("WebSocket, normal close", over_websocket, talk("1000"),
         status(101, "Switching protocols", kind="websocket", close_code=1000,
                close_reason="as asked")),
    case("WebSocket over TLS, normal close", over_secure_websocket, talk("1000"),
         status(101, "Switching protocols", kind="websocket", close_code=1000,
                close_reason="as asked")),
    case("WebSocket, server error", over_websocket, talk("1011"),
         overlaid(101, "Switching protocols", -3, "websocket_error", "server", kind="websocket",
                  reason="internal_error", close_code=1011, close_reason="as asked")),
    case("WebSocket cut off", over_websocket, talk("cut"),
         failure(-2, "connection_terminated", "server", after=101, kind="websocket",
                 close_code=1006)),
    case("WebSocket cut off by the client", over_websocket, cut_off_websocket,
         cancelled(after=101, kind="websocket", close_code=1006)),
    case("WebSocket's handshake answered by a page", answering(servers.OK), shake_hands,
         overlaid(200, "OK", -1, "http_upgrade_failed", "server")),
    case("no protocol to switch to", answering(servers.site), get_path("/status/101"),
         failure(-1, "http_upgrade_failed", "server", after=101), proxy="limited"),
    case("raw TCP in a tunnel", raw_tcp, echo_in_tunnel, fine("tcp")),
    case("raw TCP in reverse mode", nobody, through("reverse tcp", echo_through), fine("tcp")),
    case("raw TCP, dead server, lazy", nobody, through("reverse tcp to dead", find_closed),
         failure(-2, "connection_refused", "server", kind="tcp"), proxy="lazy"),
    case("DNS NOERROR", nobody, ask("noerror.test", "NOERROR"), fine("dns"), proxy="dns"),
    case("DNS NXDOMAIN", nobody, ask("nxdomain.test", "NXDOMAIN"), DNS_ERROR, proxy="dns"),
    case("DNS SERVFAIL", nobody, ask("servfail.test", "SERVFAIL"), DNS_ERROR, proxy="dns"),
    case("DNS REFUSED", nobody, ask("refused.test", "REFUSED"), DNS_ERROR, proxy="dns"),
]
# fmt: on

# Causes of the vocabulary that no row reaches, each with the reason.
NOT_IN_THE_TABLE = {
    "too_many_redirects": "test_live_redirects.py",
    "redirect_loop": "test_live_redirects.py",
    "dns_timeout": "test_live_sessions.py",
    "grpc_error": "test_live_overlays.py",
    "graphql_error": "test_live_overlays.py",
    "cors_blocked": "test_live_cors.py",
    "interim_response": "test_live_overlays.py",
    "unknown": "is what remains when no rule matches",
}


@pytest.fixture
def bench(request: pytest.FixtureRequest, laboratory: Laboratory) -> Iterator[Bench]:
    case: Case = request.param
    if case.skip:
        pytest.skip(case.skip)
    with case.server(laboratory) as server:
        yield Bench(laboratory, laboratory.proxy(case.proxy), server)


@pytest.mark.parametrize(
    ("case", "bench"),
    [pytest.param(case, case, id=case.name) for case in CASES],
    indirect=["bench"],
)
def test_fault(case: Case, bench: Bench) -> None:
    records = bench.laboratory.observe(bench.proxy, lambda: case.act(bench), len(case.expected))

    assert len(records) == len(case.expected), "\n".join(map(str, records))
    for record, expected in zip(records, case.expected, strict=True):
        expected.check(record)
        if bench.server is not None and record["type"] == "flow":
            assert record["port"] == bench.server.port, record
    bench.proxy.assert_no_addon_error()


def test_the_table_has_every_failure_code() -> None:
    """-3 and -5 are codes of complete responses; they have their own tables."""
    codes = {expected.error_code for case in CASES for expected in case.expected}
    assert codes == {None, -1, -2, -3, -4, -6}


def test_the_table_has_every_cause() -> None:
    vocabulary = (REPOSITORY / "addon" / "flowtally" / "known" / "causes.csv").read_text("utf-8")
    causes = {row["cause"] for row in csv.DictReader(vocabulary.splitlines())}
    reached = {expected.cause for case in CASES for expected in case.expected} - {None}
    assert reached <= causes
    assert causes - reached == set(NOT_IN_THE_TABLE)
