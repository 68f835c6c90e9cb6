"""Whether a browser keeps an answer from the page that asked for it, because the server did not
permit it. Pure functions.

The rules are those of the Fetch standard: its CORS check, and the checks of its CORS-preflight
fetch in the order in which Chromium makes them. What the page was is not seen here, only what its
browser says of it in the request; where that leaves a doubt, nothing is claimed.
"""

from __future__ import annotations

import re

from mitmproxy import http

from .record import url_of
from .vocabulary import REDIRECT_CODES

MAX_LIST = 8192
"""Longer lists of methods and headers are not looked into, in characters."""

_SAFELISTED_METHODS = frozenset(("GET", "HEAD", "POST"))
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# Sent over plain HTTP to any other host, a request has no Sec-Fetch headers (Fetch Metadata §2).
_TRUSTWORTHY = r"localhost|.*\.localhost|127(\.\d+){3}|\[?::1\]?"


def blocked(flow: http.HTTPFlow, origin: str) -> tuple[str, str]:
    """Why the browser keeps the answer from the page, a reason of `cors_blocked`, and the method or
    header that is not permitted; two empty strings where it does not, or where that is not certain.

    `origin`: the request's header Origin.
    """
    request, response = flow.request, flow.response
    assert response is not None
    # Pages of files and extensions have rights of their own.
    if origin != "null" and not origin.startswith(("http://", "https://")):
        return "", ""
    # 304: the browser checks what it has in its cache. 407: it is the proxy's answer.
    if response.status_code in (304, 407):
        return "", ""
    headers = request.headers
    asked_for = headers.get("access-control-request-method", "")
    preflight = bool(asked_for) and request.method == "OPTIONS"
    mode = headers.get("sec-fetch-mode")
    if mode is None:
        certain = _is_cross_origin(flow, origin, preflight)
    elif preflight:  # where Chromium says no site, it says the mode
        certain = mode == "cors"
    else:
        # A program that only imitates the mode (Node's fetch) says nothing of the site.
        site = headers.get("sec-fetch-site")
        certain = mode == "cors" and site in ("cross-site", "same-site")
    if not certain:
        return "", ""
    if preflight:
        return _check_preflight(request, response, origin, asked_for)
    # Only a request with credentials mode "include" gets the cookies of another origin. That one
    # without any has another mode, is not certain; nor is it where a script set Authorization.
    return _check(response, origin, credentials="cookie" in headers), ""


def _is_cross_origin(flow: http.HTTPFlow, origin: str, preflight: bool) -> bool:
    """Whether a request without Sec-Fetch headers comes from a page of another origin and may only
    be answered with permission."""
    request = flow.request
    if request.scheme != "http" or re.fullmatch(_TRUSTWORTHY, request.pretty_host, re.IGNORECASE):
        return False  # browsers send those headers there
    if preflight:
        return True
    # A form sends Origin with a POST and needs no permission; so does a WebSocket with its GET.
    if request.method not in ("GET", "HEAD") or "upgrade" in request.headers:
        return False
    # In reverse mode, the browser knows the server by another name than the request has.
    if flow.client_conn.proxy_mode.type_name == "reverse":
        return False
    host, port = request.pretty_host.lower(), request.port
    return origin.lower() != url_of("http", host, port, "")


def _check(response: http.Response, origin: str, credentials: bool) -> str:
    """The CORS check (Fetch standard §4.9): the reason why an answer does not pass it, or ""."""
    allowed = response.headers.get("access-control-allow-origin")
    if allowed is None:
        return "missing_allow_origin"
    allowed = allowed.strip(" \t")
    if allowed == "*":
        return "credentials_with_wildcard" if credentials else ""
    if allowed != origin:
        return "origin_not_allowed"
    if credentials:
        permitted = response.headers.get("access-control-allow-credentials", "").strip(" \t")
        return "" if permitted == "true" else "credentials_not_allowed"
    return ""


def _check_preflight(
    request: http.Request, response: http.Response, origin: str, method: str
) -> tuple[str, str]:
    """The checks of a preflight's answer (Fetch standard §4.8). Whether the request that waits for
    it will have credentials is not seen: for one that has, `*` does not count."""
    code = response.status_code
    if code in REDIRECT_CODES:
        return "preflight_status", ""
    if reason := _check(response, origin, credentials=False):
        return reason, ""
    if not 200 <= code <= 299:
        return "preflight_status", ""
    methods = _list(response.headers.get("access-control-allow-methods", ""))
    names = _list(response.headers.get("access-control-allow-headers", "").lower())
    wanted = _list(request.headers.get("access-control-request-headers", "").lower())
    if methods is None or (
        method not in _SAFELISTED_METHODS and method not in methods and "*" not in methods
    ):
        return "method_not_allowed", method
    if names is None:
        return "header_not_allowed", ""
    for name in sorted(wanted or ()):
        # Of Authorization the standard wants the name itself; Chromium takes * all the same.
        if name not in names and "*" not in names:
            return "header_not_allowed", name
    return "", ""


def _list(value: str) -> frozenset[str] | None:
    """The tokens of a header that is a list; None if it is none, with which nothing is permitted.

    One that is too long permits everything, for all that is certain.
    """
    if len(value) > MAX_LIST:
        return frozenset("*")
    tokens = frozenset(filter(None, (token.strip(" \t") for token in value.split(","))))
    return tokens if all(re.fullmatch(_TOKEN, token) for token in tokens) else None
