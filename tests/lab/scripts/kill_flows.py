"""Another user's script, loaded before the addon: kills the flows whose path asks for it."""

from mitmproxy import http
from mitmproxy.proxy import server_hooks

FORBIDDEN_HOST = "127.0.0.3"
# Words of mitmproxy's and of operating systems, which are the script's own here.
FORBIDDEN = "[Errno 111] server closed connection"


def request(flow: http.HTTPFlow) -> None:
    if flow.request.path == "/kill-request":
        flow.kill()


def response(flow: http.HTTPFlow) -> None:
    if flow.request.path == "/kill-response":
        flow.kill()


def server_connect(data: server_hooks.ServerConnectionHookData) -> None:
    if data.server.address and data.server.address[0] == FORBIDDEN_HOST:
        data.server.error = FORBIDDEN
