"""Each mode of mitmproxy, with good requests through it: both ends are counted.

Transparent mode and WireGuard need addresses of their own, so they run in two network namespaces
that are made for it and removed again: one with the client, one with the proxy and the origin.
That takes root, `ip`, and `iptables` or `wireguard-go` with `wg`; what is missing is said.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import closing
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lab import clients
from lab import dns
from lab import http3
from lab import servers
from lab.dns import NameServer
from lab.http3 import Http3Server
from lab.proxy import ADDON
from lab.proxy import MITMDUMP
from lab.proxy import Mitmdump
from lab.proxy import Record
from lab.servers import AnsweringServer
from lab.tls import HOST
from lab.tls import Authority

from ._records import records_of
from .result import NOT_TRIED
from .result import Result

START_SECONDS = 30.0
CLIENT, PROXY = "flowtally-client", "flowtally-proxy"
"""The namespaces."""
CLIENT_ADDRESS, PROXY_ADDRESS, ORIGIN_ADDRESS = "10.251.0.2", "10.251.0.1", "10.252.0.1"
ORIGIN_PORT, PROXY_PORT, WIREGUARD_PORT = 8000, 8080, 51820


def good(answer: bytes) -> bool:
    return answer.startswith(b"HTTP/1.1 200")


def through_socks(proxy: Mitmdump, origin: AnsweringServer) -> bytes:
    connection, reply = clients.open_socks(proxy.port, origin)
    with closing(connection):
        assert reply == 0, reply
        connection.sendall(clients.request_head("GET", "/", origin.host))
        return clients.read_to_end(connection)


def try_on_loopback(count: int, folder: Path, result: Result) -> None:
    """Regular, reverse, upstream and SOCKS5 over http and https, DNS, and HTTP/3."""
    with ExitStack() as resources:
        authority = Authority.create(folder)
        plain = resources.enter_context(AnsweringServer(servers.OK))
        secure = resources.enter_context(
            AnsweringServer(servers.OK, tls=authority.good(), name=HOST)
        )
        upstream = resources.enter_context(AnsweringServer(servers.OK))
        names = resources.enter_context(NameServer())
        issued = authority.trusted.issue_cert(HOST)
        quic = resources.enter_context(Http3Server({"/answer": http3.answer}, issued))
        acts: list[tuple[str, Callable[[Mitmdump], bool]]] = [
            ("regular", lambda proxy: good(clients.get(proxy, plain))),
            ("regular", lambda proxy: good(clients.get_tls(proxy, secure))),
            (f"reverse:{plain.url}", lambda proxy: good(clients.get(proxy, plain))),
            (f"upstream:{upstream.url}", lambda proxy: good(clients.get(proxy, plain))),
            ("socks5", lambda proxy: good(through_socks(proxy, plain))),
            (
                f"reverse:dns://127.0.0.1:{names.port}",
                lambda proxy: dns.query("noerror.test", proxy.port) == "NOERROR",
            ),
            (
                f"reverse:http3://{HOST}:{quic.port}",
                lambda proxy: http3.get(proxy.port, proxy.ca),
            ),
        ]
        for number, (mode, act) in enumerate(acts):
            proxy = Mitmdump(
                folder / str(number),
                modes=[mode],
                options={"ssl_verify_upstream_trusted_ca": str(authority.bundle)},
                confdir=folder / "confdir",
            )
            with proxy:
                answered = sum(act(proxy) for _ in range(count))
                proxy.wait_for(partial(enough, proxy, count))
            name = mode.split("127.0.0.1")[0].split(HOST)[0].rstrip(":/")
            told = f"{name}, {'https' if number == 1 else 'plain'}"
            judge(result, told, count, answered, proxy.flows())


def enough(proxy: Mitmdump, count: int, _: list[Record]) -> bool:
    return len(proxy.flows()) >= count


def judge(
    result: Result, mode: str, count: int, answered: int, flows: list[dict[str, Any]]
) -> None:
    """As many good answers, and good flows, as requests."""
    fine = sum(flow["outcome"] == "ok" or flow.get("status") == 200 for flow in flows)
    told = f"{count} requests, {answered} good answers, {len(flows)} flows, {fine} of them good"
    result.figures.append((f"Mode {mode}", told))
    if not count == answered == len(flows) == fine:
        result.failures.append(f"mode {mode}: {told}")


def run(*command: str | Path, stdin: str = "") -> str:
    """Raises: subprocess.CalledProcessError."""
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, input=stdin, timeout=60
    )
    return done.stdout.strip()


def inside(namespace: str, *command: str | Path) -> list[str | Path]:
    return ["ip", "netns", "exec", namespace, *command]


@contextmanager
def namespaces() -> Iterator[None]:
    """Two namespaces with a wire between them; the origin's address is one of the proxy's."""
    remove_namespaces()
    for name in (CLIENT, PROXY):
        run("ip", "netns", "add", name)
        run(*inside(name, "ip", "link", "set", "lo", "up"))
    try:
        wire = ("flowtally0", "type", "veth", "peer", "name", "flowtally1", "netns", PROXY)
        run(*inside(CLIENT, "ip", "link", "add", *wire))
        for name, link, address in (
            (CLIENT, "flowtally0", CLIENT_ADDRESS),
            (PROXY, "flowtally1", PROXY_ADDRESS),
        ):
            run(*inside(name, "ip", "address", "add", f"{address}/24", "dev", link))
            run(*inside(name, "ip", "link", "set", link, "up"))
        run(*inside(PROXY, "ip", "address", "add", f"{ORIGIN_ADDRESS}/32", "dev", "lo"))
        yield
    finally:
        remove_namespaces()


def remove_namespaces() -> None:
    for name in (CLIENT, PROXY):
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@contextmanager
def running(log: Path, *command: str | Path, until: str = "") -> Iterator[None]:
    """A process whose output goes to `log`; waits until it said `until`."""
    with log.open("wb") as output:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while until not in log.read_text("utf-8", "replace"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{command[4]} did not start: {log.read_text()[-600:]}")
            time.sleep(0.02)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def try_in_namespaces(count: int, folder: Path, result: Result) -> None:
    """Transparent mode and WireGuard."""
    for mode, tools, prepare in (
        ("transparent", ("ip", "iptables", "curl"), route_transparently),
        ("wireguard", ("ip", "wg", "wireguard-go", "curl"), no_route),
    ):
        missing = [tool for tool in tools if shutil.which(tool) is None]
        if os.geteuid() != 0 or missing:
            why = f"{', '.join(missing)} is missing" if missing else "needs root"
            result.figures.append((f"Mode {mode}", f"{NOT_TRIED}: {why}"))
            continue
        place = folder / mode
        place.mkdir()
        try:
            with namespaces():
                prepare()
                answered, flows = try_namespace(mode, count, place)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", "")
            result.failures.append(f"mode {mode}: {error} {said}")
            continue
        judge(result, mode, count, answered, flows)


def no_route() -> None:
    """WireGuard brings its own."""


def route_transparently() -> None:
    """What the client sends goes by the proxy, which is given what is for the origin's port."""
    run(*inside(CLIENT, "ip", "route", "add", "default", "via", PROXY_ADDRESS))
    redirect = ("REDIRECT", "--to-ports", str(PROXY_PORT))
    rule = ("-p", "tcp", "--dport", str(ORIGIN_PORT), "-j", *redirect)
    run(*inside(PROXY, "iptables", "-t", "nat", "-A", "PREROUTING", *rule))


def try_namespace(mode: str, count: int, place: Path) -> tuple[int, list[dict[str, Any]]]:
    """Starts proxy and origin, sends the requests; returns how many were answered well, and the
    flows of the log."""
    log = place / "session.jsonl"
    port = WIREGUARD_PORT if mode == "wireguard" else PROXY_PORT
    mitmdump: list[str | Path] = [MITMDUMP, "--set", f"confdir={place / 'confdir'}"]
    mitmdump += ["--mode", f"{mode}@{PROXY_ADDRESS}:{port}"]
    mitmdump += ["-s", ADDON, "--set", f"flowtally_log={log}", "--set", "flow_detail=0"]
    site = (sys.executable, "-m", "http.server", "--bind", ORIGIN_ADDRESS, str(ORIGIN_PORT))
    with ExitStack() as resources:
        origin = running(place / "origin.txt", *inside(PROXY, *site), until="Serving HTTP")
        resources.enter_context(origin)
        resources.enter_context(
            running(place / "proxy.txt", *inside(PROXY, *mitmdump), until="listening at")
        )
        if mode == "wireguard":
            resources.enter_context(tunnel(place))
        url = f"http://{ORIGIN_ADDRESS}:{ORIGIN_PORT}/"
        curl = ["curl", "-sS", "--noproxy", "*", "--max-time", "20"]
        curl += ["-o", os.devnull, "-w", "%{http_code} "]
        statuses = "".join(run(*inside(CLIENT, *curl, url)) + " " for _ in range(count)).split()
    records, wrong = records_of([log])
    assert not wrong, wrong
    assert records[-1].get("final"), "no final statistics"
    return statuses.count("200"), [record for record in records if record["type"] == "flow"]


@contextmanager
def tunnel(place: Path) -> Iterator[None]:
    """A WireGuard client whose route to the origin leads into the proxy's tunnel."""
    keys = json.loads((place / "confdir" / "wireguard.conf").read_text("utf-8"))
    server = run("wg", "pubkey", stdin=keys["server_key"])
    private = place / "client.key"
    private.write_text(keys["client_key"])
    name = "flowtally-wg"
    command = inside(CLIENT, "wireguard-go", "-f", name)
    with running(place / "wireguard.txt", *command):
        deadline = time.monotonic() + START_SECONDS
        while name not in run(*inside(CLIENT, "ip", "-o", "link")):
            assert time.monotonic() < deadline, "wireguard-go made no device"
            time.sleep(0.02)
        peer = ("peer", server, "allowed-ips", "0.0.0.0/0")
        end = ("endpoint", f"{PROXY_ADDRESS}:{WIREGUARD_PORT}")
        run(*inside(CLIENT, "wg", "set", name, "private-key", private, *peer, *end))
        run(*inside(CLIENT, "ip", "address", "add", "10.0.0.1/32", "dev", name))
        run(*inside(CLIENT, "ip", "link", "set", name, "up", "mtu", "1400"))
        run(*inside(CLIENT, "ip", "route", "add", f"{ORIGIN_ADDRESS}/32", "dev", name))
        yield


def try_modes(quick: bool, folder: Path, result: Result) -> None:
    """All of them."""
    count = 5 if quick else 100
    try_on_loopback(count, folder, result)
    try_in_namespaces(count, folder, result)
