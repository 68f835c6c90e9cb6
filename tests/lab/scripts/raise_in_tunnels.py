"""Raises in hooks of tunnels, so that the scripts behind it miss them."""

from __future__ import annotations

from mitmproxy import http
from mitmproxy.proxy import layer


def http_connect(flow: http.HTTPFlow) -> None:
    raise RuntimeError(f"somebody's bug with {flow.id}")


def next_layer(data: layer.NextLayer) -> None:
    raise RuntimeError(f"somebody's bug with {data!r}")
