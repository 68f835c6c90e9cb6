"""Real clients through a real proxy: each of them goes through, and trusts it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from typing import NamedTuple

import pytest
from flowtally.launch import nothing
from flowtally.launch import through
from flowtally.launch import trust
from flowtally.launch.proxy import Proxy
from flowtally.launch.through import Wanted
from lab.rpc import SERVICE
from lab.rpc import Service
from lab.site import HELLO
from lab.site import Site
from lab.site import flows
from lab.tls import Authority

Tool = Callable[..., Path]
Record = dict[str, Any]


class World(NamedTuple):
    """A proxy, servers behind it, and the environment that leads through it."""

    proxy: Proxy
    environment: Mapping[str, str]
    secure: Site
    plain: Site
    folder: Path
    """The root of both sites."""

    def urls(self, client: str) -> list[str]:
        """What a client asks for: https, and http by name and by address."""
        path = f"/hello/{client}"
        return [
            f"{self.secure.url}{path}/secure",
            f"http://localhost:{self.plain.port}{path}/name",
            f"http://127.0.0.1:{self.plain.port}{path}/address",
        ]

    def run(self, *command: str | Path, **more: str) -> str:
        """Run a client; returns its output."""
        return run(*command, **{**self.environment, **more})

    def flows(self, path: str, count: int) -> list[Record]:
        return flows(self.proxy.ready.log, path, count)


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        encoding="utf-8",
        env=environment,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def bare(home: Path) -> dict[str, str]:
    """The environment of a user who has set nothing."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, confdir: Path, authority: Authority
) -> Iterator[World]:
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("site")
    # What would lead around the proxy, or to other certificates.
    environment = {
        **bare(home),
        "NO_PROXY": "localhost,127.0.0.1",
        "JAVA_TOOL_OPTIONS": "-Dhttp.nonProxyHosts=localhost -Djavax.net.ssl.trustStoreType=JCEKS",
    }
    (home / ".wgetrc").write_text("no_proxy = localhost,127.0.0.1", encoding="ascii")
    # Spaces, because Java takes its options apart at them.
    private = tmp_path_factory.mktemp("with spaces")
    wanted = Wanted(
        log=str(home / "session.jsonl"),
        settings=[f"confdir={confdir}"],
        trusted=[authority.bundle],
    )
    with (
        Site(folder, tls=authority.good(), host="localhost") as secure,
        Site(folder) as plain,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("tempfile.tempdir", str(private))
        with Proxy() as proxy:
            through.start(proxy, wanted, environment)
            yield World(proxy, through.through(proxy, environment), secure, plain, folder)


# --- programs that ask for URLs and print what they get ---

PYTHON: Mapping[str, str] = {
    "urllib": """
import sys, urllib.request
for url in sys.argv[1:]:
    print(urllib.request.urlopen(url).read().decode(), end="")
""",
    "requests": """
import sys, requests
for url in sys.argv[1:]:
    print(requests.get(url).text, end="")
""",
    "httpx": """
import sys, httpx
for url in sys.argv[1:]:
    print(httpx.get(url).text, end="")
""",
    "aiohttp": """
import asyncio, sys, aiohttp
async def main():
    async with aiohttp.ClientSession(trust_env=True) as session:
        for url in sys.argv[1:]:
            async with session.get(url) as response:
                print(await response.text(), end="")
asyncio.run(main())
""",
}

NODE: Mapping[str, str] = {
    "fetch": """
for (const url of process.argv.slice(1))
    process.stdout.write(await (await fetch(url)).text());
""",
    "http": """
import http from "node:http";
import https from "node:https";
for (const url of process.argv.slice(1))
    await new Promise((done, fail) =>
        (url.startsWith("https") ? https : http).get(url, (response) => {
            response.on("data", (data) => process.stdout.write(data));
            response.on("end", done);
        }).on("error", fail));
""",
}

JAVA = """
import java.net.*;
import java.net.http.*;

class Fetch {
    public static void main(String[] urls) throws Exception {
        for (String url : urls) {
            var connection = URI.create(url + "/connection").toURL().openConnection();
            System.out.write(connection.getInputStream().readAllBytes());
            var request = HttpRequest.newBuilder(URI.create(url + "/client")).build();
            var handler = HttpResponse.BodyHandlers.ofByteArray();
            System.out.write(HttpClient.newHttpClient().send(request, handler).body());
        }
        System.out.flush();
    }
}
"""


def check_seen(world: World, client: str, output: str, times: int = 1) -> None:
    """The client got what the servers have, and the proxy saw it, https included."""
    assert output == HELLO.decode() * 3 * times
    seen = world.flows(f"/hello/{client}/", 3 * times)
    assert {flow["status"] for flow in seen} == {200}
    assert sorted(flow["url"].split("/")[5] for flow in seen) == sorted(
        ["address", "name", "secure"] * times
    )


def test_curl_goes_through_and_trusts(world: World, tool: Tool) -> None:
    urls = world.urls("curl")
    check_seen(world, "curl", world.run(tool("curl"), "--silent", "--show-error", "--fail", *urls))


def test_wget_goes_through_and_trusts(world: World, tool: Tool) -> None:
    urls = world.urls("wget")
    check_seen(world, "wget", world.run(tool("wget"), "--quiet", "--output-document=-", *urls))


@pytest.mark.parametrize("client", PYTHON)
def test_clients_of_python_go_through_and_trust(world: World, client: str) -> None:
    urls = world.urls(client)
    check_seen(world, client, world.run(sys.executable, "-c", PYTHON[client], *urls))


@pytest.mark.parametrize("client", NODE)
def test_node_goes_through_where_its_version_can(world: World, tool: Tool, client: str) -> None:
    node = tool("node")
    command = (node, "--input-type=module", "--eval", NODE[client])
    secure, *plain = world.urls(client)
    version = re.match(r"v(\d+)\.(\d+)", world.run(node, "--version"))
    assert version
    said = nothing.node_says(int(version[1]), int(version[2]))
    if not said or (client == "fetch" and "only fetch" in said):
        check_seen(world, client, world.run(*command, secure, *plain))
        return
    # It reaches the servers all the same; that of https it would not trust.
    assert world.run(*command, *plain) == HELLO.decode() * 2
    after = f"/hello/after-{client}"
    world.run(sys.executable, "-c", PYTHON["urllib"], world.plain.url + after)
    world.flows(after, 1)
    assert f"/hello/{client}/" not in world.proxy.ready.log.read_text(encoding="utf-8")
    assert nothing.why_nothing([str(node), "x.js"], world.environment)[0] == said


def test_grpc_goes_through_and_trusts(world: World, authority: Authority) -> None:
    code = """
import grpc, sys
channel = grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials())
sys.stdout.buffer.write(channel.unary_unary(sys.argv[2])(b"hello", timeout=20))
"""
    with Service(authority.trusted) as service:
        method = f"/{SERVICE}/Echo"
        output = world.run(sys.executable, "-c", code, f"localhost:{service.port}", method)
    assert output == "hello"
    (call,) = world.flows(method, 1)
    assert call["grpc_status"] == 0


def test_java_goes_through_and_trusts(world: World, tool: Tool, tmp_path: Path) -> None:
    tool("javac")  # without it, Java runs no source
    source = tmp_path / "Fetch.java"
    source.write_text(JAVA, encoding="utf-8")
    urls = world.urls("java")
    check_seen(world, "java", world.run(tool("java"), source, *urls), times=2)


def test_java_takes_every_certificate_of_the_trust_store(world: World, tool: Tool) -> None:
    store = world.proxy.folder / through.TRUST_STORE
    bundle = (world.proxy.folder / through.BUNDLE).read_text(encoding="ascii")
    listed = run(
        tool("keytool"), "-list", "-keystore", store, "-storepass", "any", **world.environment
    )
    assert listed.count("trustedCertEntry") == bundle.count("BEGIN CERTIFICATE") > 1


def test_the_users_trust_store_of_java_is_kept(
    authority: Authority, tool: Tool, tmp_path: Path
) -> None:
    store, password = tmp_path / "theirs.jks", "of-their-own"
    keytool = tool("keytool")
    certificate = ("-noprompt", "-alias", "company", "-file", authority.bundle)
    environment = bare(tmp_path)
    created = ("-keystore", store, "-storepass", password, "-storetype", "JKS")
    run(keytool, "-importcert", *certificate, *created, **environment)
    options = "-Djavax.net.ssl.trustStore{}={}".format
    environment["JAVA_TOOL_OPTIONS"] = f"{options('', store)} {options('Password', password)}"
    theirs = authority.bundle.read_bytes()
    assert trust.roots(environment).users == trust.certificates(theirs)


def test_git_clones_through_the_proxy(world: World, tool: Tool, tmp_path: Path) -> None:
    git = tool("git")
    bare_repository = world.folder / "some.git"
    world.run(git, "init", "--quiet", "--bare", bare_repository)
    tree = world.run(git, "-C", bare_repository, "write-tree").strip()
    identity = {
        f"GIT_{who}_{what}": "some@one.example"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    commit = world.run(
        git, "-C", bare_repository, "commit-tree", tree, "-m", "Nothing yet", **identity
    ).strip()
    world.run(git, "-C", bare_repository, "update-ref", "HEAD", commit)
    world.run(git, "-C", bare_repository, "update-server-info")
    clone = tmp_path / "clone"
    world.run(git, "clone", "--quiet", f"{world.secure.url}/some.git", clone)
    assert world.run(git, "-C", clone, "rev-parse", "HEAD").strip() == commit
    assert world.flows("/some.git/info/refs", 1)[0]["status"] == 200


def test_pip_downloads_through_the_proxy(world: World, tmp_path: Path) -> None:
    folder = world.folder / "simple" / "somepackage"
    folder.mkdir(parents=True)
    wheel = folder / "somepackage-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        information = "somepackage-1.0.dist-info"
        file.writestr(
            f"{information}/METADATA", "Metadata-Version: 2.1\nName: somepackage\nVersion: 1.0\n"
        )
        file.writestr(
            f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{information}/RECORD", "")
    (folder / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>', "ascii")
    command = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir")
    index = f"{world.secure.url}/simple/"
    world.run(
        *command,
        "--index-url",
        index,
        "--dest",
        tmp_path,
        "somepackage",
        PIP_CONFIG_FILE=os.devnull,
        PIP_DISABLE_PIP_VERSION_CHECK="1",
    )
    assert (tmp_path / wheel.name).exists()
    assert {flow["status"] for flow in world.flows("/simple/somepackage", 2)} == {200}


def test_npm_asks_its_registry_through_the_proxy(world: World, tool: Tool, tmp_path: Path) -> None:
    npm = tool("npm")
    package = {
        "name": "somepackage",
        "dist-tags": {"latest": "1.0.0"},
        "versions": {"1.0.0": {"name": "somepackage", "version": "1.0.0"}},
    }
    (world.folder / "somepackage").write_text(json.dumps(package), "ascii")
    version = world.run(
        npm,
        "view",
        "somepackage",
        "version",
        npm_config_registry=world.secure.url,
        npm_config_cache=str(tmp_path),
        npm_config_update_notifier="false",
    )
    assert version.strip() == "1.0.0"
    assert world.flows("/somepackage", 1)[-1]["status"] == 200
