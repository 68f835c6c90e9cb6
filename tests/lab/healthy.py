"""A site that works, and is as slow as real ones are: what a browser leaves there, it leaves of its
own will."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
from typing import Self

from .servers import WAIT_TIMEOUT
from .streams import EVENT
from .streams import PAUSE

PAGES = {
    "/": "<title>home</title>",
    "/next": "<title>next</title>",
    "/gallery": "<title>gallery</title>"
    + "".join(f"<img src='/image/{number}'>" for number in range(4)),
    "/player": "<title>player</title><video src='/video' autoplay muted></video>",
    "/files": "<title>files</title><a href='/big' download>big</a>",
    "/prefetching": "<title>prefetching</title><link rel='prefetch' href='/prefetched'>",
    "/prefetched": "<title>prefetched</title>",
}
WORKER = """
addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("fetch", (event) => {
  if (event.request.url.endsWith("/through-worker")) event.respondWith(fetch("/worked"));
});
"""
BIG = 50_000_000


class Threads(ThreadingHTTPServer):
    """A thread a connection, none of which minds that its client leaves."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        if not isinstance(sys.exception(), OSError):
            raise


class HealthySite:
    """Waits are for what has been asked for: `wait(path, times)`."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._changed = threading.Condition()
        self.closing = threading.Event()
        site = self

        class Handler(Answers):
            pass

        Handler.site = site
        self._server = Threads(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join(timeout=WAIT_TIMEOUT)
        self._server.server_close()

    def note(self, path: str) -> None:
        with self._changed:
            self._seen[path] += 1
            self._changed.notify_all()

    def wait(self, path: str, times: int = 1) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._seen[path] >= times, WAIT_TIMEOUT), path


class Answers(BaseHTTPRequestHandler):
    """What the site says to one path each."""

    protocol_version = "HTTP/1.1"
    site: HealthySite

    def log_message(self, *_: object) -> None:
        pass

    def _answer(
        self, status: int, body: bytes = b"", media_type: str = "text/html", **headers: str
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status not in (204, 304):
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _drip(self, media_type: str, piece: bytes, length: int | None = None) -> None:
        """A body that does not end, of which something comes all the time."""
        self.close_connection = True
        try:
            self.send_response(200)
            self.send_header("Content-Type", media_type)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.send_header("Connection", "close")
            self.end_headers()
            while not self.site.closing.wait(PAUSE):
                self.wfile.write(piece)
                self.site.note(f"{self.path} piece")
        except OSError:
            pass  # the client has left

    def do_GET(self) -> None:
        path = self.path
        self.site.note(path)
        if path.startswith("/image/"):
            self._drip("image/png", b"\x89PNG")
        elif path.startswith(("/suggest/", "/never", "/poll")):
            if path.endswith("/last"):
                self._answer(200, b"[]", "application/json")
            else:  # looks it up for a while
                self.close_connection = True
                self.site.closing.wait()
        elif path == "/events":
            self._drip("text/event-stream", EVENT)
        elif path == "/video":
            self._drip("video/mp4", b"video")
        elif path == "/big":
            self._drip("application/octet-stream", b"x" * 10_000, BIG)
        elif path == "/worker.js":
            self._answer(200, WORKER.encode(), "text/javascript")
        elif path == "/cached":
            fresh = self.headers.get("If-None-Match") != '"1"'
            headers = {"ETag": '"1"', "Cache_Control": "no-cache"}
            self._answer(200 if fresh else 304, b"cached" if fresh else b"", **headers)
        elif path in ("/basic", "/digest"):
            self._challenge(path[1:].capitalize())
        elif path == "/favicon.ico":
            self._answer(204)
        else:
            self._answer(200, PAGES.get(path, "").encode())

    def _challenge(self, scheme: str) -> None:
        if self.headers.get("Authorization", "").startswith(scheme):
            self._answer(200, b"<title>in</title>")
            return
        more = ', qop="auth", nonce="0123456789abcdef"' if scheme == "Digest" else ""
        self._answer(401, WWW_Authenticate=f'{scheme} realm="{scheme}"{more}')

    def _cors(self, status: int) -> None:
        self._answer(
            status,
            Access_Control_Allow_Origin=self.headers["Origin"],
            Access_Control_Allow_Methods="PUT",
            Access_Control_Allow_Headers="x-asked",
        )

    def do_OPTIONS(self) -> None:
        self._cors(204)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._cors(200)
