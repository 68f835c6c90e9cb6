"""Who the two ends of an exchange are."""

from __future__ import annotations

import pytest
from flowtally import peers
from mitmproxy import connection
from mitmproxy.proxy import mode_specs
from mitmproxy.test import tflow


@pytest.mark.parametrize(
    ("peername", "client"),
    [(("10.0.0.1", 5), "10.0.0.1"), (("::1", 5, 0, 0), "::1"), (None, ""), (("", 0), "")],
)
def test_the_client(peername: tuple[str, int] | None, client: str) -> None:
    flow = tflow.tflow()
    flow.client_conn.peername = peername  # type: ignore[assignment]  # what was closed has none
    assert peers.client_of(flow) == client


@pytest.mark.parametrize(
    ("mode", "is_proxy", "host"),
    [
        ("regular", True, "asked"),
        ("upstream:http://proxy", True, "asked"),
        ("reverse:http://server", False, "named"),
        ("transparent", False, "named"),
        ("socks5", False, "named"),
    ],
)
def test_the_host_that_a_client_names(mode: str, is_proxy: bool, host: str) -> None:
    flow = tflow.tflow()
    flow.client_conn.proxy_mode = mode_specs.ProxyMode.parse(mode)
    flow.request.data.host, flow.request.headers["Host"] = "asked", "named"
    assert peers.is_proxy(flow.client_conn) == is_proxy
    assert peers.requested_host(flow) == host


def test_the_server() -> None:
    assert peers.address_of(connection.Server(address=("h", 80))) == ("h", 80)
    assert peers.address_of(connection.Server(address=None)) == ("", None)
