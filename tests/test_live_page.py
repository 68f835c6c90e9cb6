"""The live page through a real proxy: where it is served, and that it is never counted."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from lab import clients
from lab.clients import Destination
from lab.laboratory import Laboratory
from lab.laboratory import Setup
from lab.proxy import Mitmdump

pytestmark = pytest.mark.timeout(90)

OWN = Destination("flowtally.test", 80)
OWN_TLS = Destination("flowtally.test", 443)
TITLE = b"<title>flowtally: "


def direct(port: int, path: str = "/", host: str = "flowtally.test") -> bytes:
    """A request in origin form, as a client sends it that knows nothing of a proxy."""
    return clients.exchange(port, clients.request_head("GET", path, host))


def test_it_is_served_over_http_and_https_and_not_counted(laboratory: Laboratory) -> None:
    with laboratory.mitmdump("page", Setup()) as proxy:
        assert TITLE in clients.get(proxy, OWN)
        assert TITLE in clients.get_tls(proxy, OWN_TLS)
        assert clients.get(proxy, OWN, "/nothing").startswith(b"HTTP/1.1 404 ")
        assert clients.get(proxy, laboratory.origin, "/status/503").startswith(b"HTTP/1.1 503 ")
        assert b", 2 problems" not in clients.get(proxy, OWN)
        body = clients.get(proxy, OWN, "/report.json").partition(b"\r\n\r\n")[2]
        assert [row["code"] for row in json.loads(body)["statistics"]["codes"]] == [503]
        log = clients.get(proxy, OWN, "/session.jsonl").partition(b"\r\n\r\n")[2]
        assert log == proxy.log.read_bytes()
        # A request without its body and one that follows it, on one connection.
        head = clients.request_head("HEAD", "http://flowtally.test/", OWN.host, keep_alive=True)
        missing = clients.request_head("GET", "http://flowtally.test/nothing", OWN.host)
        answers = clients.exchange(proxy.port, head + missing)
        assert answers.count(b"HTTP/1.1 ") == 2
        assert TITLE not in answers
        assert proxy.stop() == 0
        assert [record["status"] for record in proxy.outcomes()] == [503]


def test_over_http2(laboratory: Laboratory) -> None:
    with laboratory.mitmdump("page-http2", Setup()) as proxy:
        with clients.open_http2(proxy, OWN_TLS) as client:
            client.request("/report.json")  # the page is larger than the window
            assert client.status() == 200
        assert proxy.stop() == 0
        assert proxy.outcomes() == []


def test_clients_that_leave_or_do_not_trust_it(laboratory: Laboratory) -> None:
    with laboratory.mitmdump("page-left", Setup()) as proxy:
        for _ in range(3):
            with closing(clients.open_connection(proxy.port)) as connection:
                connection.sendall(clients.absolute_get(OWN))
        clients.distrust(proxy, OWN_TLS)
        clients.hang_up_in_handshake(proxy, OWN_TLS)
        clients.connect_without_request(proxy, OWN_TLS)
        proxy.wait_idle(6)
        assert TITLE in clients.get(proxy, OWN)
        assert proxy.stop() == 0
        assert proxy.outcomes() == []


@pytest.mark.parametrize("strategy", ["lazy", "eager"])
def test_over_socks(laboratory: Laboratory, strategy: str) -> None:
    setup = Setup(modes={"socks5": "socks5"}, options={"connection_strategy": strategy})
    with laboratory.mitmdump(f"page-socks-{strategy}", setup) as proxy:
        connection, reply = clients.open_socks(proxy.port, OWN)
        with closing(connection):
            # An eager proxy looks for the server before there is a request, and finds none.
            assert (reply == 0) == (strategy == "lazy")
            if reply == 0:
                connection.sendall(clients.request_head("GET", "/", OWN.host))
                assert TITLE in clients.read_to_end(connection)
        assert proxy.stop() == 0
        assert proxy.outcomes() == []


def test_behind_an_upstream_proxy_that_is_dead(laboratory: Laboratory) -> None:
    setup = Setup(modes={"upstream": f"upstream:{laboratory.dead.url}"})
    with laboratory.mitmdump("page-upstream", setup) as proxy:
        assert TITLE in clients.get(proxy, OWN)
        assert TITLE in clients.get_tls(proxy, OWN_TLS)
        assert proxy.stop() == 0
        assert proxy.outcomes() == []


def test_clients_of_a_reverse_proxy_do_not_see_it(laboratory: Laboratory) -> None:
    setup = Setup(modes={"reverse": f"reverse:{laboratory.origin.url}"})
    with laboratory.mitmdump("page-reverse", setup) as proxy:
        for path in ("/status/404", "/session.jsonl", "/"):
            assert TITLE not in direct(proxy.port, path)
        assert TITLE not in clients.get(proxy, OWN)
        assert proxy.stop() == 0
        assert len(proxy.flows()) == 4


def test_another_addon_asks_for_a_password(laboratory: Laboratory) -> None:
    with laboratory.mitmdump("page-login", Setup(options={"proxyauth": "user:secret"})) as proxy:
        assert clients.get(proxy, OWN).startswith(b"HTTP/1.1 407 ")
        assert clients.open_tunnel(proxy, OWN_TLS) is None
        assert proxy.stop() == 0
        assert proxy.outcomes() == []


def test_it_can_be_switched_off(laboratory: Laboratory) -> None:
    with laboratory.mitmdump("page-off", Setup(options={"flowtally_host": ""})) as proxy:
        assert clients.get(proxy, OWN).startswith(b"HTTP/1.1 502 ")
        assert proxy.stop() == 0
        (record,) = proxy.flows()
        assert (record["host"], record["cause"]) == ("flowtally.test", "dns_error")


def test_saved_requests_for_it_are_not_counted(laboratory: Laboratory, tmp_path: Path) -> None:
    saved = tmp_path / "saved.mitm"
    with laboratory.mitmdump("page-saved", Setup(arguments=["-w", str(saved)])) as proxy:
        clients.get(proxy, OWN)
        clients.get(proxy, laboratory.origin, "/status/404")
        assert proxy.stop() == 0
    reader = Mitmdump(
        tmp_path / "reading",
        arguments=["-n", "-r", str(saved)],
        confdir=laboratory.confdir,
        listens=False,
    )
    with reader:
        assert reader.wait() == 0
        assert [record["status"] for record in reader.outcomes()] == [404]
