"""A web server for clients that are programs of their own: what it says, and who asked for it."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from typing import Self

from .servers import WAIT_TIMEOUT

HELLO = b"hello from the site\n"


class Site:
    """Serves the files of a folder, and `HELLO` below /hello/. On 127.0.0.1."""

    def __init__(
        self, folder: Path, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        """The target and headers of each request."""
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(_Handler, directory=str(folder), asked=self.asked)
        )
        self._server.daemon_threads = True
        if tls is not None:
            # The handshake is left to the thread of the connection.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.port: int = self._server.server_address[1]
        self.host = host
        self.scheme = "https" if tls else "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(
        self, *arguments: Any, asked: list[tuple[str, Mapping[str, str]]], **more: Any
    ) -> None:
        self._asked = asked
        super().__init__(*arguments, **more)

    def do_GET(self) -> None:
        self._asked.append((self.path, dict(self.headers)))
        if not self.path.startswith("/hello/"):
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(HELLO)))
        self.end_headers()
        self.wfile.write(HELLO)

    def log_message(self, *_: Any) -> None:
        pass


def flows(log: Path, path: str, count: int) -> list[dict[str, Any]]:
    """Waits until the log has so many flows, tunnels aside, whose URL has `path` in it."""
    deadline = time.monotonic() + WAIT_TIMEOUT
    while True:
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        found = [record for record in records if record["type"] == "flow" and path in record["url"]]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, f"{path}: {len(found)} of {count} flows in {records}"
        time.sleep(0.02)
