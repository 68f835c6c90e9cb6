"""Raises in the hook that the path names, so that the scripts behind it miss that hook."""

from __future__ import annotations

from mitmproxy import http


class RaiseInHooks:
    def requestheaders(self, flow: http.HTTPFlow) -> None:
        _raise_if_named("requestheaders", flow)

    def request(self, flow: http.HTTPFlow) -> None:
        _raise_if_named("request", flow)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        _raise_if_named("responseheaders", flow)

    def response(self, flow: http.HTTPFlow) -> None:
        _raise_if_named("response", flow)

    def error(self, flow: http.HTTPFlow) -> None:
        _raise_if_named("error", flow)


def _raise_if_named(hook: str, flow: http.HTTPFlow) -> None:
    if flow.request.path == f"/{hook}":
        raise RuntimeError(f"somebody's bug in {hook}")


addons = [RaiseInHooks()]
