"""Another user's script, loaded before the addon: kills the flows whose path asks for it."""

from mitmproxy import http


def request(flow: http.HTTPFlow) -> None:
    if flow.request.path == "/kill-request":
        flow.kill()


def response(flow: http.HTTPFlow) -> None:
    if flow.request.path == "/kill-response":
        flow.kill()
