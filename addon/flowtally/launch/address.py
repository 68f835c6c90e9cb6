"""What a person types for an address → a URL, as the address bar of a browser does it."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from urllib.parse import urlsplit

SCHEMES = ("http", "https")
"""What goes through the proxy."""
MACHINES = (
    *("alt", "example", "internal", "invalid", "local", "localhost", "onion", "test"),
    *("home.arpa", "lan", "intranet", "corp", "home", "private"),
)
"""Names of nobody's, or of a network of one's own (RFC 6761, 6762, 8375, 9476; ICANN), where there
is seldom a certificate."""
PATHS = ("/", "./", "../", "~")
"""How a path begins that is no host."""


class AddressError(ValueError):
    """Not an address that the browser can be sent to through the proxy; the message says why."""


def address(given: str) -> str:
    """The URL that is meant. Raises: AddressError.

    A host gets https, unless it has a port, is an IP address, or is one of a network of one's own:
    these get http. So do Chromium's omnibox and Firefox' address bar.
    """
    text = given.strip()
    if text == "about:blank":
        return text
    if any(char.isspace() or not char.isprintable() for char in text) or "\\" in text:
        raise AddressError(f"{given!r}: is no URL")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):(?!\d+(?:[/?#]|$))", text)
    if scheme and scheme[1].lower() not in SCHEMES:
        raise AddressError(
            f"{given!r}: allowed is a URL with http or https: nothing else goes through the proxy"
        )
    if not scheme and (text.startswith(PATHS) or os.path.isfile(text)):  # noqa: PTH113  # any text
        raise AddressError(
            f"{given!r}: is a file, and files do not go through the proxy; "
            f"serve it: python3 -m http.server"
        )
    return _checked(given, text if scheme else f"{_scheme_for(given, text)}://{text}")


def _checked(given: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # it raises
    except ValueError as error:
        raise AddressError(f"{given!r}: is no URL: {error}") from None
    if "//" not in url or not parts.hostname:
        raise AddressError(f"{given!r}: is no URL: it has no host")
    return url


def _scheme_for(given: str, text: str) -> str:
    parts = urlsplit(_checked(given, f"http://{text}"))
    host = (parts.hostname or "").rstrip(".")
    if parts.port == 443:
        return "https"
    if parts.port is not None or "." not in host or _is_ip(host):
        return "http"
    own = any(host == name or host.endswith(f".{name}") for name in MACHINES)
    return "http" if own else "https"


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
