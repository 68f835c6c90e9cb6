"""Connects to one port of the loopback address for all names under `.example`."""

from __future__ import annotations

from mitmproxy import ctx
from mitmproxy.addonmanager import Loader
from mitmproxy.proxy import server_hooks


def load(loader: Loader) -> None:
    loader.add_option("route_names", int, 0, "The port to connect to.")


def server_connect(data: server_hooks.ServerConnectionHookData) -> None:
    address = data.server.address
    if address and address[0].endswith(".example"):
        data.server.address = ("127.0.0.1", ctx.options.route_names)
