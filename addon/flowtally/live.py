"""The live page: the report on the session that runs, answered inside the proxy.

`LivePage` knows which requests are for its host, and keeps mitmproxy from looking for a server of
that name; `Page` answers them.

Only a client of the proxy can ask for it, for its host exists nowhere else; and each of them may
read it: whoever may use the proxy sees the session of all. What asks from another site gets
nothing: no answer allows cross-origin reads, and browsers are told to hand it to nobody.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple

from mitmproxy import connection
from mitmproxy import ctx
from mitmproxy import exceptions
from mitmproxy import http
from mitmproxy import tls

from .defects import Defects
from .journal import read_log
from .session import Session
from .totals import InFlight

if TYPE_CHECKING:  # what only a report needs is loaded when one is made
    from .report.flows_data import Flows
    from .report.view import View

EVERY = 1.0
"""Seconds between two renderings, at the least."""
SHARE = 0.01
"""The part of the time that may be spent on rendering."""
ROWS = 50
"""How many rows of a table the page shows."""
OWN_KEY = "flowtally.page"
"""Stands in the metadata of a flow that is for the live page."""
COOKIE = "flowtally"
MAX_LOG = 16 * 1024 * 1024
"""The largest log that is handed out, in bytes: mitmproxy keeps answers in memory."""

REMOVE = "view.flows.remove"
"""mitmproxy's command that takes flows out of its list; mitmdump has none (addons/view.py)."""

ADDRESS_MODES = ("transparent", "wireguard", "local", "tun", "osproxy")
"""Modes in which a flow knows its host by the Host header alone."""

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""What every answer has; Fetch standard, HTML standard."""


class Source(NamedTuple):
    """Where the page gets its contents."""

    version: Callable[[], str]
    """Changes whenever the statistics do."""
    view: Callable[[], View]
    """The statistics, sorted. What it holds does not change any more."""
    data: Callable[[], dict[str, Any]]
    """What `report.json` says."""
    log: Callable[[], Path]
    session: Callable[[], str]
    """The id of the session."""
    about: Callable[[], list[str]]
    """What the page says of the session."""
    mitmweb: Callable[[], str] = lambda: ""
    """The URL of the mitmweb that this runs in; empty where there is none."""


class Rendering:
    """Something made of the statistics, not more often than `EVERY` and `SHARE` allow."""

    def __init__(self, version: Callable[[], str]) -> None:
        self._newest = version
        self._lock = asyncio.Lock()
        self._body = b""
        self._version = ""
        """Of the statistics that it was made of last."""
        self._next = 0.0
        """When it may be made again; time.monotonic."""

    async def get(self, start: Callable[[], Callable[[], bytes]]) -> tuple[bytes, str]:
        """The newest there is, and its version. `start` looks at the statistics, and returns what
        makes the rest of it in another thread."""
        async with self._lock:  # several that ask at once wait for the same one
            version = self._newest()
            if version != self._version and time.monotonic() >= self._next:
                began = time.thread_time()
                rest = start()
                took = time.thread_time() - began
                self._body, seconds = await asyncio.to_thread(_timed, rest)
                self._version = version
                self._next = time.monotonic() + max(EVERY, (took + seconds) / SHARE)
            return self._body, self._version


def _text(in_flight: InFlight) -> str:
    return f"{in_flight.flows}-{in_flight.oldest:.0f}"  # another host is another age


def _view(session: Session, in_flight: InFlight) -> View:
    from .report.view import view

    return view(session.tally, ROWS, in_flight=in_flight)


def _mitmweb() -> str:
    """Where mitmweb is, which alone has these options (tools/web/webaddons.py). Without its
    password: whoever may see its flows knows it, or was let in before."""
    host, port = getattr(ctx.options, "web_host", None), getattr(ctx.options, "web_port", None)
    if host is None or port is None:
        return ""
    host = host if host not in ("", "0.0.0.0", "::") else "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


class LivePage:
    """The live page's host inside the proxy."""

    def __init__(
        self,
        session: Callable[[], Session],
        in_flight: Callable[[], InFlight],
        defects: Defects,
    ) -> None:
        self.host = ""
        """Its name, in lower case; empty where there is no live page."""
        self._page = Page(
            Source(
                version=lambda: f"{session().version}-{_text(in_flight())}",
                view=lambda: _view(session(), in_flight()),
                data=lambda: session().data(),
                log=lambda: session().path,
                session=lambda: session().id,
                about=lambda: [session().about],
                mitmweb=_mitmweb,
            )
        )
        self._defects = defects
        self._served: list[http.HTTPFlow] = []
        """Requests for the page that mitmproxy's list of flows may still hold."""

    def is_own(self, flow: http.HTTPFlow) -> bool:
        """Whether a request is for the live page.

        What a reverse proxy serves is for others, and its clients choose the Host header freely.
        """
        host = self.host
        if not host:
            return False
        try:
            mode = flow.client_conn.proxy_mode.type_name
            if mode in ADDRESS_MODES:
                return flow.request.pretty_host.lower() == host
            return flow.request.data.host.lower() == host and mode != "reverse"
        except (AttributeError, TypeError):
            return False  # another script has put something odd there

    def is_own_host(self, host: str) -> bool:
        """Whether something concerns the live page's host."""
        return bool(self.host) and host.lower() == self.host

    def is_own_server(self, server: connection.Server) -> bool:
        """Whether a connection is to the live page's host."""
        address = server.address
        return bool(address and self.is_own_host(address[0]))

    def url(self, modes: Iterable[str]) -> str:
        """Where the live page is; empty if no client of these modes can ask for it."""
        if not self.host or all(mode.startswith("reverse:") for mode in modes):
            return ""
        return f"http://{self.host}/"

    def answer_tunnel(self, flow: http.HTTPFlow) -> None:
        """Accept a CONNECT to the host, as there is no server to connect to."""
        flow.response = flow.response or http.Response.make(200, b"")

    def keep_from_server(self, data: tls.ClientHelloData) -> None:
        """Have mitmproxy speak TLS with a client without a server to copy it from
        (addons/tlsconfig.py)."""
        server = data.context.server
        if self.is_own_server(server):
            server.tls = False

    async def serve(self, flow: http.HTTPFlow) -> None:
        """Answer a request for the live page, unless another addon did. Does not raise."""
        self._defects.guard(self._forget)
        self._served.append(flow)
        try:
            if flow.response or flow.error:
                return
            flow.response = await self._page.answer(flow.request)
        except exceptions.CommandError as ended:  # mitmproxy still answers while it stops
            flow.response = refuse(503, f"There is nothing to show: {ended}.")
        except Exception as problem:
            self._defects.tell("page", problem)
            flow.response = refuse(500, "flowtally cannot show this; the log says why.")

    def _forget(self) -> None:
        """Take the requests that have ended out of mitmproxy's list of flows (console, mitmweb),
        where a page that is watched would put its size every few seconds."""
        ended = [flow for flow in self._served if not flow.live]
        self._served = [flow for flow in self._served if flow.live]
        # Not by its hooks' end, for to remove a live flow kills it.
        if ended and REMOVE in ctx.master.commands.commands:
            for flow in ended:
                if not flow.marked:
                    ctx.master.commands.call(REMOVE, [flow])


class Page:
    """Answers requests for the live page."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._html = Rendering(source.version)
        self._json = Rendering(source.version)
        self._reading = asyncio.Lock()
        self._key = secrets.token_urlsafe()
        """What a browser has that was on the page."""

    async def answer(self, request: http.Request) -> http.Response:
        """The answer to a request for the page's host."""
        response = await self._get(request)
        if request.method == "HEAD":
            response.raw_content = b""  # mitmproxy would send it
        return response

    async def _get(self, request: http.Request) -> http.Response:
        path = request.path.partition("?")[0]
        if request.method not in ("GET", "HEAD"):
            return refuse(405, "Only GET and HEAD are allowed here.", Allow="GET, HEAD")
        if not _asked_by_itself(request, path, self._key):
            return refuse(403, "Another site asked for this.")
        if path in ("/", "/report.html"):
            return await self._page(request)
        if path == "/report.json":
            body, _ = await self._json.get(self._start_json)
            return _respond(body, "application/json", _download("flowtally-report.json"))
        if path == "/session.jsonl":
            return await self._log()
        if path == "/flows":
            return await self._flows(request)
        return refuse(404, "There is nothing here; the live page is at /.")

    async def _page(self, request: http.Request) -> http.Response:
        from .report import html  # Jinja2 takes a while to load

        def start() -> Callable[[], bytes]:
            shown = self._source.view()
            source = self._source
            about = html.About(source.about(), mitmweb=source.mitmweb(), session=source.session())
            return lambda: html.render(shown, about, live=True).encode("utf-8", "replace")

        body, version = await self._html.get(start)
        etag = f'"{version}"'
        if request.headers.get("If-None-Match") == etag:
            return http.Response.make(304, b"", {**HEADERS, "ETag": etag})
        policy = f"{html.policy(live=True)}; frame-ancestors 'none'"
        cookie = f"{COOKIE}={self._key}; Path=/; HttpOnly; SameSite=Strict"
        headers = {"ETag": etag, "Content-Security-Policy": policy, "Set-Cookie": cookie}
        return _respond(body, "text/html; charset=utf-8", headers)

    def _start_json(self) -> Callable[[], bytes]:
        data = self._source.data()
        return lambda: json.dumps(data, indent=1).encode()

    async def _log(self) -> http.Response:
        path = self._source.log()
        try:
            async with self._reading:
                body = await asyncio.to_thread(read_log, path, MAX_LOG)
            if body is None:
                return refuse(413, f"The log is too large to be sent; it is {path}.")
        except OSError as error:
            return refuse(503, f"The log cannot be read: {error.strerror or error}")
        return _respond(body, "application/jsonl", _download("flowtally-session.jsonl"))

    async def _flows(self, request: http.Request) -> http.Response:
        """Some of the newest single flows, from the log."""
        from . import ranges
        from .report.flows_data import shown

        try:
            asked = ranges.query(dict(request.query.items()))
        except ValueError as error:
            return refuse(400, f"{error}.")
        path, session = self._source.log(), self._source.session()

        def read() -> bytes:
            piece = ranges.newest(path, session, asked)
            said = {
                "records": [shown(record) for record in piece.records],
                "before": piece.before,
                "at": piece.at,
                "newest": piece.newest,
            }
            return json.dumps(said).encode()

        try:
            async with self._reading:
                body = await asyncio.to_thread(read)
        except OSError as error:
            return refuse(503, f"The log cannot be read: {error.strerror or error}")
        return _respond(body, "application/json", {})


def saved_page(session: Session) -> bytes:
    """The report on a session so far, as a file that needs no proxy."""
    from .report import html  # Jinja2 takes a while to load

    notes, flows = _single_flows(session)
    about = html.About([session.about], notes, flows=flows)
    return html.page(session.tally, about).encode("utf-8", "replace")


def _single_flows(session: Session) -> tuple[list[str], Flows | None]:
    """What a report says of single flows: notes, the flows.

    The proxy waits while they are read, so a large log is left to the command line.
    """
    from .report import html

    try:
        if session.path.stat().st_size <= MAX_LOG:
            return [], html.flows_of_sessions({session.id: session.path})
    except OSError:
        return [], None
    command = f"flowtally report --html FILE {session.path}"
    return [f"Single flows are left out, for the log is large; with them: {command}"], None


def _asked_by_itself(request: http.Request, path: str, key: str) -> bool:
    """Whether the page, or a person, asks. A browser tells of others (Fetch Metadata, Fetch
    standard §3.2); a link from anywhere may lead to the page.

    Over plain http browsers tell nothing of the kind. There a link from anywhere could start a
    download of the data; but it does not bring along a cookie that is for the same site alone.
    """
    headers = request.headers
    origin = headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.pretty_host:
        return False
    if "Sec-Fetch-Site" not in headers and "text/html" in headers.get("Accept", ""):
        return path == "/" or request.cookies.get(COOKIE) == key
    if headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin"):
        return True
    return path == "/" and headers.get("Sec-Fetch-Dest") == "document"


def _timed(make: Callable[[], bytes]) -> tuple[bytes, float]:
    """What is made, and the seconds of processor time that it took."""
    began = time.thread_time()
    body = make()
    return body, time.thread_time() - began


def _download(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


def _respond(body: bytes, kind: str, headers: dict[str, str]) -> http.Response:
    return http.Response.make(200, body, {**HEADERS, "Content-Type": kind, **headers})


def refuse(status: int, reason: str, **headers: str) -> http.Response:
    """An answer that says why there is none."""
    kind = "text/plain; charset=utf-8"
    body = f"{reason}\n".encode("utf-8", "replace")
    return http.Response.make(status, body, {**HEADERS, "Content-Type": kind, **headers})
