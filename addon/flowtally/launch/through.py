"""What makes a program's traffic go through the proxy, and trust it: the environment."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .proxy import Proxy


class Wanted(NamedTuple):
    """What the user wants of the proxy."""

    log: str = ""
    """`flowtally_log`: a file or a folder; empty for the default."""
    settings: Sequence[str] = ()
    """mitmproxy's options, `name=value` each."""
    insecure_upstream: bool = False
    """Certificates of servers are not checked."""
    trusted: Sequence[Path] = ()
    """Files with certificates that vouch for servers, PEM, beside the system's."""


def start(proxy: Proxy, wanted: Wanted, environment: Mapping[str, str]) -> None:  # noqa: ARG001
    """Start a proxy that goes to servers as a program with this environment would.

    Raises: LaunchError.
    """
    arguments = []
    if wanted.log:
        arguments += ["--set", f"flowtally_log={wanted.log}"]
    if wanted.insecure_upstream:
        arguments += ["--set", "ssl_insecure=true"]
    for setting in wanted.settings:
        arguments += ["--set", setting]
    proxy.start(arguments)


def through(proxy: Proxy, environment: Mapping[str, str]) -> dict[str, str]:
    """Wait for the proxy; returns the environment with which a program goes through it and trusts
    it. Raises: LaunchError."""
    ready = proxy.ready
    changed = dict(environment)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        changed[name] = changed[name.lower()] = ready.url
    changed["NO_PROXY"] = changed["no_proxy"] = ""
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        changed[name] = str(ready.ca)
    return changed


def why_nothing(command: Sequence[str], environment: Mapping[str, str]) -> list[str]:  # noqa: ARG001
    """Why nothing may have come through of what a command did, in sentences."""
    return ["It made no requests, or it does not use the proxy that its environment names."]
