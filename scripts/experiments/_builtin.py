"""mitmproxy's built-in addons, each made to act, once before flowtally and once after it.

Each case is a mitmdump of its own and a few requests. What the client got is compared with what
the session log says: as many flows as requests, with the same status, whichever addon came first.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextlib import closing
from http.client import HTTPResponse
from http.client import RemoteDisconnected
from pathlib import Path
from typing import Any
from typing import NamedTuple

from lab import clients
from lab import dns
from lab import servers
from lab.proxy import Mitmdump
from lab.servers import Answer
from lab.servers import AnsweringServer
from lab.servers import Request
from mitmproxy import io as flow_io
from mitmproxy.addons import default_addons

from .result import Result

LOGIN = "user:password"
CREDENTIALS = base64.b64encode(LOGIN.encode()).decode()
COOKIE = b"Set-Cookie: taste=plain; Path=/\r\n"

# Puts an addon at one end of mitmproxy's chain; flowtally is somewhere in it. Later than `running`,
# because mitmproxy walks over the chain then.
MOVER = """
import asyncio
import logging
from mitmproxy import ctx

def move():
    chain = ctx.master.addons.chain
    addon = ctx.master.addons.get({name!r})
    chain.remove(addon)
    chain.insert(0 if {first!r} else len(chain), addon)
    logging.info("moved")

def running():
    asyncio.get_running_loop().call_soon(move)
"""


class Place(NamedTuple):
    """What a case works with."""

    folder: Path
    flows: Path
    """Two flows that were saved before: GET /saved/1 and /saved/2."""
    local: Path
    """A folder with `file.txt`."""
    origin: AnsweringServer
    upstream: AnsweringServer


class Case(NamedTuple):
    addon: str
    """As mitmproxy calls it."""
    options: Callable[[Place], Sequence[str]]
    """`name=value` each."""
    requests: Sequence[tuple[str, str]]
    """Path and header line (or "") of each."""
    statuses: Sequence[int | str]
    """What the log says of each: a status, or a cause."""
    mode: str = "regular"
    check: Callable[[Place], str] | None = None
    """Looks at what the addon did; returns what is wrong."""


def _answer(request: Request) -> Answer:
    if request.path.startswith("/compressed"):
        body = zlib.compress(b"hello")
        head = b"Content-Encoding: deflate\r\nContent-Length: %d\r\n\r\n" % len(body)
        return Answer(b"HTTP/1.1 200 OK\r\n" + head + body)
    if request.path.startswith("/cookie"):
        return Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + COOKIE + b"\r\nhello")
    return servers.site(request)


def _given(*options: str) -> Callable[[Place], Sequence[str]]:
    return lambda _: options


def _saved(place: Place) -> str:
    with (place.folder / "saved.flows").open("rb") as file:
        count = sum(1 for _ in flow_io.FlowReader(file).stream())
    return "" if count == 2 else f"{count} flows were saved"


def _dumped(place: Place) -> str:
    entries = json.loads((place.folder / "dump.har").read_text("utf-8"))["log"]["entries"]
    return "" if len(entries) == 2 else f"{len(entries)} flows were dumped"


TWO = (("/status/200", ""), ("/status/404", ""))
# fmt: off
CASES = (
    Case("blocklist", _given("block_list=:~u /status/201:403", "block_list=:~u /status/202:444"),
         (("/status/200", ""), ("/status/201", ""), ("/status/202", "")),
         (200, 403, "http_request_denied")),
    Case("anticache", _given("anticache=true"), (("/status/200", 'If-None-Match: "1"'),), (200,)),
    Case("anticomp", _given("anticomp=true"), (("/compressed", "Accept-Encoding: deflate"),),
         (200,)),
    Case("maplocal", lambda place: [f"map_local=|/local/|{place.local}"],
         (("/local/file.txt", ""), ("/local/none.txt", ""), ("/status/204", "")),
         (200, 404, 204)),
    Case("mapremote", _given("map_remote=|/status/204|/status/205"),
         (("/status/204", ""), ("/status/201", "")), (205, 201)),
    Case("modifybody", _given("modify_body=/~s/hello/good day"), (("/", ""), ("/compressed", "")),
         (200, 200)),
    Case("modifyheaders", _given("modify_headers=/~s/Content-Type/application\\x2fgrpc",
                                 "modify_headers=/~q/X-Added/1"), TWO, (200, 404)),
    Case("stickycookie", _given("stickycookie=."), (("/cookie", ""), ("/cookie", "")), (200, 200)),
    Case("stickyauth", _given("stickyauth=."),
         (("/status/200", f"Authorization: Basic {CREDENTIALS}"), ("/status/200", "")), (200, 200)),
    Case("proxyauth", _given(f"proxyauth={LOGIN}"),
         (("/status/200", ""), ("/status/200", f"Proxy-Authorization: Basic {CREDENTIALS}")),
         (407, 200)),
    Case("save", lambda place: [f"save_stream_file={place.folder / 'saved.flows'}"], TWO,
         (200, 404), check=_saved),
    Case("savehar", lambda place: [f"hardump={place.folder / 'dump.har'}"], TWO, (200, 404),
         check=_dumped),
    Case("serverplayback",
         lambda place: [f"server_replay={place.flows}", "server_replay_extra=kill",
                        "server_replay_reuse=true"],
         (("/saved/1", ""), ("/saved/2", ""), ("/saved/3", "")),
         (200, 200, "http_request_denied")),
    Case("clientplayback", lambda place: [f"client_replay={place.flows}"], (), (200, 200)),
    Case("readfilestdin", lambda place: [f"rfile={place.flows}"], (), (200, 200)),
    Case("dumper", _given(), TWO, (200, 404)),
    Case("onboarding", _given("onboarding_host=install.test"), (("http://install.test/", ""),),
         (200,)),
    Case("block", _given("block_global=true", "block_private=true"), TWO, (200, 404)),
    Case("disableh2c", _given(),
         (("/status/200", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
                          "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"),), (200,)),
    Case("proxyserver", _given("stream_large_bodies=3", "body_size_limit=10m"), (("/", ""),),
         (200,)),
    Case("nextlayer", _given("rawtcp=false"), TWO, (200, 404)),
    Case("tlsconfig", _given("ssl_insecure=true"), TWO, (200, 404)),
    Case("upstreamauth", _given(f"upstream_auth={LOGIN}"), TWO, (200, 200), mode="upstream"),
    Case("updatealtsvc", _given("keep_alt_svc_header=false"), (("/status/200", ""),), (200,),
         mode="reverse"),
    Case("stripdnshttpsrecords", _given("strip_ech=true"), (("localhost", ""),), ("ok",),
         mode="dns"),
    Case("dnsresolver", _given("dns_use_hosts_file=true"), (("localhost", ""),), ("ok",),
         mode="dns"),
)
# fmt: on


def _said(record: dict[str, Any]) -> int | str:
    """What a case expects of a record."""
    said: int | str = record.get("status") or record.get("cause") or record["outcome"]
    return said


def _client_saw(proxy: Mitmdump, case: Case, place: Place) -> list[Any]:
    """Sends the requests, one after another; returns the status or DNS code of each answer."""
    if case.mode == "dns":
        return [dns.query(name, proxy.port) for name, _ in case.requests]
    seen: list[Any] = []
    for path, header in case.requests:
        authority = f"127.0.0.1:{place.origin.port}"
        if "://" in path:
            authority = path.split("/")[2]
        elif case.mode != "reverse":
            path = f"http://{authority}{path}"
        more = [header] if header else []
        head = clients.request_head("GET", path, authority, *more, keep_alive=True)
        seen.append(_status(proxy.port, head))
    return seen


def _status(port: int, head: bytes) -> int | None:
    """Sends a request; returns the status of the whole answer, None if there was none."""
    with closing(clients.open_connection(port)) as connection:
        connection.sendall(head)
        response = HTTPResponse(connection)
        try:
            response.begin()
            response.read()
        except (RemoteDisconnected, ConnectionResetError):
            return None
        return response.status


def _mode(case: Case, place: Place) -> str:
    if case.mode == "reverse":
        return f"reverse:{place.origin.url}"
    if case.mode == "upstream":
        return f"upstream:{place.upstream.url}"
    return case.mode


def _try(case: Case, first: bool, place: Place) -> list[str]:
    """Runs a case; returns what was wrong."""
    place = place._replace(folder=place.folder / f"{case.addon}-{'before' if first else 'after'}")
    place.folder.mkdir()
    mover = place.folder / "mover.py"
    mover.write_text(MOVER.format(name=case.addon, first=first))
    settings = [part for option in case.options(place) for part in ("--set", option)]
    proxy = Mitmdump(
        place.folder,
        modes=[_mode(case, place)],
        options={"flow_detail": "4" if case.addon == "dumper" else "0"},
        arguments=[*settings, "--set", "keepserving=true"],
        scripts=[mover],
        confdir=place.folder.parent / "confdir",
    )
    with proxy:
        proxy.wait_output("moved")
        seen = _client_saw(proxy, case, place)
        proxy.wait_for(lambda _: len(proxy.flows()) >= len(case.statuses))
    logged = [_said(record) for record in proxy.flows()]
    wrong = []
    if Counter(logged) != Counter(case.statuses):
        wrong.append(f"the log says {logged}, not {list(case.statuses)}")
    for status, expected in zip(seen, case.statuses if seen else (), strict=True):
        if isinstance(expected, int) and status != expected:
            wrong.append(f"the client saw {status}, not {expected}")
    if case.check is not None and (problem := case.check(place)):
        wrong.append(problem)
    return wrong


_BY_HAND = "a person's commands, which change no flow on its way"
UNTRIED = {
    **dict.fromkeys(("commandhistory", "comment", "core", "cut", "export"), _BY_HAND),
    "browser": "starts a browser",
    "scriptloader": "loads flowtally itself",
}
"""Built-in addons that no case makes act, with the reason."""


def _save_two(folder: Path, origin: AnsweringServer) -> Path:
    """Two flows in a file, for the addons that replay."""
    file = folder / "two.flows"
    arguments = ["--set", f"save_stream_file={file}"]
    proxy = Mitmdump(folder / "two", arguments=arguments, confdir=folder / "confdir")
    with proxy:
        for number in (1, 2):
            clients.get(proxy, origin, f"/saved/{number}")
        proxy.wait_for(lambda _: len(proxy.flows()) == 2)
    return file


def try_builtin(quick: bool, folder: Path, result: Result) -> None:
    """All cases; quick: each with the addon after flowtally, where it can undo what was seen."""
    failures = []
    with ExitStack() as resources:
        origin = resources.enter_context(AnsweringServer(_answer))
        upstream = resources.enter_context(AnsweringServer(servers.OK))
        local = folder / "local"
        local.mkdir()
        (local / "file.txt").write_text("from the disk")
        place = Place(folder, _save_two(folder, origin), local, origin, upstream)
        tried = [
            (case, first) for case in CASES for first in ((False,) if quick else (True, False))
        ]
        workers = resources.enter_context(ThreadPoolExecutor(2))
        running = [(*what, workers.submit(_try, *what, place)) for what in tried]
        for case, first, future in running:
            where = f"{case.addon} {'before' if first else 'after'} flowtally"
            try:
                wrong = future.result()
            except Exception as problem:
                wrong = [repr(problem)[:600]]
            failures += [f"{where}: {what}" for what in wrong]
    there = {getattr(one, "name", type(one).__name__.lower()) for one in default_addons()}
    left = there - {case.addon for case in CASES} - UNTRIED.keys()
    failures += [f"{name} is not made to act" for name in sorted(left)]
    told = f"{len(CASES)}, {len(tried)} runs, {len(failures)} wrong"
    result.figures.append(("Built-in addons made to act", told))
    result.failures += failures
