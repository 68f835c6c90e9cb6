"""The two ends of an exchange, as far as a flow or a connection names them. Pure functions."""

from __future__ import annotations

from typing import Any

from mitmproxy import connection
from mitmproxy import flow as mflow
from mitmproxy import http


def client_of(flow: mflow.Flow) -> str:
    """The address of a flow's client without the port; "" where it is not known."""
    peername = flow.client_conn.peername
    return str(peername[0]) if peername else ""


def is_proxy(client: connection.Client) -> bool:
    """Whether a client knows that it speaks to a proxy, by HTTP: then its requests name the host,
    and it is asked for credentials with 407."""
    return client.proxy_mode.type_name in ("regular", "upstream")


def requested_host(flow: http.HTTPFlow) -> str:
    """The host of a request as its client names it. To what it does not take for a proxy, it does
    so in the Host header alone, which takes long to look up."""
    return flow.request.data.host if is_proxy(flow.client_conn) else flow.request.pretty_host


def address_of(server: connection.Connection) -> tuple[str, int | None]:
    """Host and port of a server; empty and None where they are not known."""
    address: Any = getattr(server, "address", None)
    return (str(address[0]), int(address[1])) if address else ("", None)
