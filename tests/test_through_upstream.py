"""The user's own proxy: real requests through two real proxies in a row, and around the second."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from typing import NamedTuple

import psutil
import pytest
from flowtally.launch import through
from flowtally.launch.detour import Detour
from flowtally.launch.proxy import Proxy
from flowtally.launch.through import Wanted
from flowtally.launch.upstream import Server
from flowtally.launch.upstream import Upstream
from lab.proxy import Mitmdump
from lab.proxy import free_port
from lab.site import HELLO
from lab.site import Site
from lab.site import flows
from lab.tls import Authority
from mitmproxy import http
from mitmproxy.proxy.layers.http import HttpStream
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import tflow

Tool = Callable[..., Path]
Record = dict[str, Any]

FAR = "far.example"
"""A host that only the user's proxy can find."""
LOGIN = "some one:p@ss/word"
LOGIN_IN_URL = "some%20one:p%40ss%2Fword"


class Chain(NamedTuple):
    """The user's proxy, ours before it, and servers behind both."""

    users: Mitmdump
    ours: Proxy
    environment: Mapping[str, str]
    """What leads through ours."""
    secure: Site
    plain: Site

    def curl(self, curl: Path, *arguments: str) -> str:
        """What curl printed, and behind each answer its status."""
        done = subprocess.run(
            [curl, "--silent", "--write-out", "%{http_code}", *arguments],
            capture_output=True,
            env=dict(self.environment),
            timeout=60,
        )
        return done.stdout.decode()

    def check(self, curl: Path, url: str, *arguments: str, through_users: bool) -> None:
        """The request succeeds, and the user's proxy is asked for it or is not."""
        assert self.curl(curl, url, *arguments) == HELLO.decode() + "200"
        path = "/" + url.split("/", 3)[3]
        record(self.ours, path)
        # A later request, which goes there for sure, tells when the first would have come.
        last = f"/hello/last-of{path.replace('/', '-')}"
        assert self.curl(curl, f"http://{FAR}{last}") == HELLO.decode() + "200"
        records = self.users.wait_for(lambda _: any(last in url for url in self.asked_of_users()))
        assert records
        assert any(path in url for url in self.asked_of_users()) is through_users
        for asked, headers in [*self.secure.asked, *self.plain.asked]:
            assert "Proxy-Authorization" not in headers, asked

    def asked_of_users(self) -> list[str]:
        return [record["url"] for record in self.users.flows()]


def record(proxy: Proxy, path: str) -> Record:
    """Waits for the record of a request in the log of ours."""
    (found,) = flows(proxy.ready.log, path, 1)
    return found


def environment_of_user(home: Path, **more: str) -> dict[str, str]:
    return {"PATH": str(Path("/usr/bin")), "HOME": str(home), **more}


@pytest.fixture(scope="module")
def chain(
    tmp_path_factory: pytest.TempPathFactory, confdir: Path, authority: Authority
) -> Iterator[Chain]:
    home = tmp_path_factory.mktemp("home")
    with ExitStack() as stack:
        secure = stack.enter_context(Site(home, tls=authority.good(), host="localhost"))
        plain = stack.enter_context(Site(home))
        users = stack.enter_context(
            Mitmdump(
                tmp_path_factory.mktemp("users"),
                options={
                    "proxyauth": LOGIN,
                    # The site behind the name is not looked for under that name.
                    "connection_strategy": "lazy",
                    "upstream_cert": "false",
                    "ssl_verify_upstream_trusted_ca": str(authority.bundle),
                },
                arguments=[
                    "--map-remote",
                    f"|http://{FAR}|{plain.url}",
                    "--map-remote",
                    f"|https://{FAR}|{secure.url}",
                ],
                confdir=tmp_path_factory.mktemp("users-ca"),
            )
        )
        theirs = users.url.replace("//", f"//{LOGIN_IN_URL}@")
        environment = environment_of_user(
            home,
            http_proxy=theirs,
            HTTPS_PROXY=theirs,
            NO_PROXY="elsewhere.example, .direct.far.example",
            # As a company's: it opens TLS, and its certificate is everywhere.
            REQUESTS_CA_BUNDLE=str(users.ca),
        )
        ours = stack.enter_context(Proxy())
        log, settings = str(home / "ours.jsonl"), [f"confdir={confdir}"]
        through.start(ours, Wanted(log, settings, trusted=[authority.bundle]), environment)
        yield Chain(users, ours, through.through(ours, environment), secure, plain)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_request_goes_through_the_users_proxy_with_its_login(
    chain: Chain, tool: Tool, scheme: str
) -> None:
    chain.check(tool("curl"), f"{scheme}://{FAR}/hello/far/{scheme}", through_users=True)


def test_plain_http_in_a_tunnel_goes_through_the_users_proxy(chain: Chain, tool: Tool) -> None:
    chain.check(tool("curl"), f"http://{FAR}/hello/tunnel", "--proxytunnel", through_users=True)


@pytest.mark.parametrize("arguments", [(), ("--proxytunnel",)], ids=["request", "tunnel"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_plain_http_of_this_machine_goes_around_the_users_proxy(
    chain: Chain, tool: Tool, host: str, arguments: tuple[str, ...]
) -> None:
    url = f"http://{host}:{chain.plain.port}/hello/near/{host}/{len(arguments)}"
    chain.check(tool("curl"), url, *arguments, through_users=False)


def test_https_of_this_machine_goes_around_the_users_proxy(chain: Chain, tool: Tool) -> None:
    chain.check(tool("curl"), f"{chain.secure.url}/hello/near/https", through_users=False)


def test_one_connection_goes_through_and_around_the_users_proxy(chain: Chain, tool: Tool) -> None:
    """What one request wanted is not what the next one of the same connection gets."""
    urls = [
        f"http://{FAR}/hello/turn/1",
        f"{chain.plain.url}/hello/turn/2",
        f"http://{FAR}/hello/turn/3",
    ]
    assert chain.curl(tool("curl"), *urls) == (HELLO.decode() + "200") * 3
    seen = flows(chain.ours.ready.log, "/hello/turn/", 3)
    assert len({flow["client_port"] for flow in seen}) == 1
    asked = [url for url in chain.asked_of_users() if "/hello/turn/" in url]
    assert [url[-1] for url in asked] == ["1", "3"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_no_proxy_names_goes_around_the_users_proxy(
    chain: Chain, tool: Tool, scheme: str
) -> None:
    """Nobody else knows the host, so it cannot be found."""
    path = f"/hello/direct/{scheme}"
    assert not chain.curl(tool("curl"), f"{scheme}://direct.{FAR}{path}").endswith("200")
    assert not any(f"direct.{FAR}" in url for url in chain.asked_of_users())
    log = chain.ours.ready.log.read_text(encoding="utf-8")
    assert '"dns_error"' in log


def test_the_login_is_nowhere_to_be_read(chain: Chain) -> None:
    said = " ".join(psutil.Process(chain.ours.process.pid).cmdline())
    log = chain.ours.ready.log.read_text(encoding="utf-8")
    for secret in ("p@ss", "p%40ss", "c29tZSBvbmU6"):
        assert secret not in said
        assert secret not in log
        assert secret not in " ".join(chain.ours.last_words())


def test_plain_http_alone_may_have_a_proxy(
    chain: Chain, tool: Tool, confdir: Path, authority: Authority, tmp_path: Path
) -> None:
    """As curl does: each scheme has its own proxy, or none."""
    environment = environment_of_user(
        tmp_path, HTTP_PROXY=f"127.0.0.1:{free_port()}", https_proxy="", NO_PROXY=""
    )
    with Proxy() as proxy:
        log, settings = str(tmp_path / "log.jsonl"), [f"confdir={confdir}"]
        through.start(proxy, Wanted(log, settings, trusted=[authority.bundle]), environment)
        alone = chain._replace(environment=through.through(proxy, environment))
        curl = tool("curl")
        secure, plain = f"{chain.secure.url}/hello/a", f"{chain.plain.url}/hello/b"
        assert alone.curl(curl, secure) == HELLO.decode() + "200"
        assert alone.curl(curl, plain).endswith("502")
        (flow,) = flows(proxy.ready.log, "/hello/b", 1)
        assert flow["cause"] == "destination_unavailable"


def test_one_flowtally_in_another_sees_what_the_other_sees(
    chain: Chain, tool: Tool, confdir: Path, authority: Authority, tmp_path: Path
) -> None:
    """localhost, too: the outer one has emptied NO_PROXY to see it."""
    settings = [f"confdir={confdir}"]
    with Proxy() as outer, Proxy() as inner:
        wanted = Wanted(str(tmp_path / "outer.jsonl"), settings, trusted=[authority.bundle])
        through.start(outer, wanted, environment_of_user(tmp_path))
        around = through.through(outer, environment_of_user(tmp_path))
        through.start(inner, Wanted(str(tmp_path / "inner.jsonl"), settings), around)
        nested = chain._replace(environment=through.through(inner, around))
        curl = tool("curl")
        for url in (f"{chain.secure.url}/hello/in/1", f"{chain.plain.url}/hello/in/2"):
            assert nested.curl(curl, url) == HELLO.decode() + "200"
        for proxy in (outer, inner):
            assert {flow["status"] for flow in flows(proxy.ready.log, "/hello/in/", 2)} == {200}


def test_what_the_user_says_of_certificates_and_the_mode_counts_more(
    chain: Chain, tool: Tool, authority: Authority, tmp_path: Path
) -> None:
    """In mitmproxy's config.yaml: a file without the CA of the site, and no proxy."""
    empty = tmp_path / "unknown.pem"
    empty.write_bytes(authority.unknown.cert_pem.bytes())
    confdir = tmp_path / "confdir"
    confdir.mkdir()
    (confdir / "config.yaml").write_text(
        f"mode: [regular]\nssl_verify_upstream_trusted_ca: {empty}\n", encoding="utf-8"
    )
    environment = environment_of_user(
        tmp_path, ALL_PROXY=f"http://127.0.0.1:{free_port()}", NO_PROXY=""
    )
    log = str(tmp_path / "log.jsonl")
    with Proxy() as proxy:
        wanted = Wanted(log, [f"confdir={confdir}"], trusted=[authority.bundle])
        through.start(proxy, wanted, environment)
        alone = chain._replace(environment=through.through(proxy, environment))
        assert alone.curl(tool("curl"), f"{chain.plain.url}/hello/c").endswith("200")
        assert alone.curl(tool("curl"), f"{chain.secure.url}/hello/d").endswith("502")
        (flow,) = flows(proxy.ready.log, "/hello/d", 1)
        assert (flow["cause"], flow["reason"]) == ("tls_certificate_error", "unknown_issuer")


def test_servers_need_not_be_vouched_for_where_the_user_says_so(
    chain: Chain, tool: Tool, confdir: Path, tmp_path: Path
) -> None:
    environment = environment_of_user(tmp_path)
    with Proxy() as proxy:
        wanted = Wanted(str(tmp_path / "log"), [f"confdir={confdir}"], insecure_upstream=True)
        through.start(proxy, wanted, environment)
        alone = chain._replace(environment=through.through(proxy, environment))
        assert alone.curl(tool("curl"), f"{chain.secure.url}/hello/e").endswith("200")


# --- without mitmproxy's internals ---


@pytest.fixture
def tunnel() -> http.HTTPFlow:
    """One that NO_PROXY names."""
    flow = tflow.tflow()
    flow.request.host, flow.request.port = "direct.example", 443
    flow.client_conn.proxy_mode = ProxyMode.parse("upstream:http://proxy.example:3128")
    return flow


USERS = Upstream(None, Server("http", "proxy.example", 3128), ("direct.example",))


def test_a_tunnel_goes_around_the_proxy_and_mitmproxy_is_left_as_it_was(
    tunnel: http.HTTPFlow, capsys: pytest.CaptureFixture[str]
) -> None:
    original = HttpStream.handle_connect_upstream
    detour = Detour(USERS)
    assert HttpStream.handle_connect_upstream is not original
    detour.http_connect(tunnel)
    detour.done()
    assert tunnel.server_conn.via is None
    assert HttpStream.handle_connect_upstream is original
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["handle_connect_upstream", "handle_connect_regular"])
def test_where_mitmproxy_cannot_go_around_the_proxy_a_tunnel_goes_through_it(
    name: str,
    tunnel: http.HTTPFlow,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delattr(HttpStream, name)
    detour = Detour(USERS)
    detour.http_connect(tunnel)
    detour.done()
    assert tunnel.server_conn.via == ("http", ("proxy.example", 3128))
    assert "go through http://proxy.example:3128 all the same" in capsys.readouterr().err
