"""The proxies that the user's environment names, and what goes to servers without them; pure.

`read` says what the environment wants, `Upstream.via` which proxy a connection goes through. The
rules are those that curl and requests have in common; where they differ, the docstrings say which
one is followed. Sources: curl's manual, "Proxy environment variables" and `CURLOPT_NOPROXY`;
Python, `urllib.request.getproxies_environment`, which requests uses; Go,
golang.org/x/net/http/httpproxy, for ports.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Mapping
from typing import NamedTuple
from typing import Self
from urllib.parse import unquote_to_bytes
from urllib.parse import urlsplit

from ..redaction import printable
from .proxy import LaunchError

ALL_HOSTS = "*"
"""The entry of NO_PROXY that stands for every host."""

_PORTS = {"http": 80, "https": 443}
"""Scheme of a proxy's URL → the port where it names none, as of requests; curl would take 1080."""


class Server(NamedTuple):
    """A proxy of the user's."""

    scheme: str
    """`http` or `https`: how it is spoken to."""
    host: str
    port: int
    authorization: str = ""
    """The value of Proxy-Authorization, or "". A secret."""

    @property
    def url(self) -> str:
        """Its address, without the secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class Upstream(NamedTuple):
    """Which proxy is for what."""

    http: Server | None
    """For http URLs."""
    https: Server | None
    """For https URLs, and for whatever else a client wants a tunnel for."""
    direct: tuple[str, ...] = ()
    """NO_PROXY: what goes to servers without a proxy."""
    local: bool = True
    """This machine's own servers do, too."""

    def via(self, tunnel: bool, host: str, port: int) -> Server | None:
        """The proxy for a connection; None: there is none in between."""
        if self.local and is_local(host):
            return None
        if any(covers(entry, host, port) for entry in self.direct):
            return None
        return self.https if tunnel else self.http

    def to_json(self) -> str:
        return json.dumps(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        http, https, direct, local = json.loads(text)
        return cls(http and Server(*http), https and Server(*https), tuple(direct), local)


def read(environment: Mapping[str, str]) -> Upstream | None:
    """What the environment says; None where it names no proxy.

    The name in lower case is looked at first, and `ALL_PROXY` is for what has no variable of its
    own. Servers of this machine go without a proxy, which would take `localhost` for itself, unless
    NO_PROXY is set and empty: whoever writes that, as flowtally does, means all hosts.

    Raises: LaunchError, for a proxy that mitmproxy cannot go through.
    """
    http, https = (_first(environment, name, "all_proxy") for name in ("http_proxy", "https_proxy"))
    if not http and not https:
        return None
    _, no_proxy = _first(environment, "no_proxy") or ("", "")
    emptied = not no_proxy and any(name in environment for name in ("no_proxy", "NO_PROXY"))
    return Upstream(
        http and _server(*http),
        https and _server(*https),
        tuple(entry for entry in re.split(r"[\s,]+", no_proxy) if entry),
        local=not emptied,
    )


def _first(environment: Mapping[str, str], *names: str) -> tuple[str, str] | None:
    """The first variable with a value, and the value."""
    for name in names:
        for written in (name, name.upper()):
            if value := environment.get(written, "").strip():
                return written, value
    return None


def _server(variable: str, value: str) -> Server:
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
        host = host if ":" in host else host.encode("idna").decode()
    except ValueError:  # also UnicodeError
        host = scheme = ""
        port = None
    if scheme.startswith("socks"):
        raise LaunchError(
            f"{variable} names a SOCKS proxy, which mitmproxy cannot go through: set it to an http "
            "or https proxy, or unset it"
        )
    if scheme not in _PORTS or not _is_host(host) or port == 0:
        # The value is not shown: nobody can tell which part of it is the password.
        raise LaunchError(
            f"{variable} is no address of a proxy; allowed is http://HOST:PORT or "
            "https://HOST:PORT, with USER:PASSWORD@ before the host"
        )
    authorization = ""
    if parts.username is not None:
        login = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
        authorization = f"Basic {base64.b64encode(login).decode()}"
    return Server(scheme, printable(host), port or _PORTS[scheme], authorization)


def _is_host(text: str) -> bool:
    return bool(re.fullmatch(r"[\w.-]+", text, re.ASCII)) or _address(text) is not None


def covers(entry: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY means this host.

    `*` is every host, `example.com` and `.example.com` that name and all below it, `10.0.0.0/8` and
    `10.1.2.3` addresses, which no name is looked up for. `:443` behind a name or address narrows it
    to that port (Go, urllib; curl knows no ports).
    """
    if entry == ALL_HOSTS:
        return True
    if found := re.fullmatch(r"(\[.*\]|[^:]*):(\d+)", entry):
        if int(found.group(2)) != port:
            return False
        entry = found.group(1)
    address = _address(host)
    if network := _network(entry):
        return address is not None and address in network
    if address is not None:
        return False
    name = entry.lower().removeprefix("*").strip(".")
    host = host.lower().rstrip(".")
    return bool(name) and (host == name or host.endswith("." + name))


def is_local(host: str) -> bool:
    """Whether a host is this machine itself (RFC 6761 §6.3, RFC 1122 §3.2.1.3)."""
    address = _address(host)
    if address is not None:
        return address.is_loopback or address.is_unspecified
    name = host.lower().rstrip(".")
    return name == "localhost" or name.endswith(".localhost")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text.removeprefix("[").removesuffix("]"), strict=False)
    except ValueError:
        return None
