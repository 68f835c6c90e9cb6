"""The rules behind `through`: variables, certificates, the user's proxies."""

from __future__ import annotations

import csv
import os
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from typing import cast

import pytest
from flowtally.launch import nothing
from flowtally.launch import through
from flowtally.launch import trust
from flowtally.launch import upstream
from flowtally.launch.pkcs12 import trust_store
from flowtally.launch.proxy import SERVERS
from flowtally.launch.proxy import LaunchError
from flowtally.launch.proxy import Proxy
from flowtally.launch.proxy import Ready
from flowtally.launch.through import Wanted
from flowtally.launch.upstream import Server
from flowtally.launch.upstream import Upstream
from flowtally.vocabulary import HTTP_CLIENTS
from flowtally.vocabulary import KNOWN
from flowtally.vocabulary import VARIABLES
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from lab.tls import Authority

Environment = Mapping[str, str]


def der(file: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(file.read_text(encoding="ascii"))


# --- the user's proxies ---


def of(*where: Any, **more: Any) -> Upstream:
    """What a proxy for everything is read as."""
    return Upstream(Server(*where), Server(*where), **more)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"PATH": "/bin", "NO_PROXY": "a.example"}, None),
        ({"http_proxy": "", "HTTP_PROXY": " "}, None),
        ({"ALL_PROXY": "http://p.example:3128"}, of("http", "p.example", 3128)),
        ({"all_proxy": "p.example:3128"}, of("http", "p.example", 3128)),
        ({"ALL_PROXY": "http://p.example"}, of("http", "p.example", 80)),
        ({"ALL_PROXY": "https://p.example/"}, of("https", "p.example", 443)),
        ({"ALL_PROXY": "http://[::1]:3128"}, of("http", "::1", 3128)),
        ({"ALL_PROXY": "HTTP://P.example:1"}, of("http", "p.example", 1)),
        ({"ALL_PROXY": "http://bücher.example:1"}, of("http", "xn--bcher-kva.example", 1)),
        ({"ALL_PROXY": "http://a:b@p.example:1"}, of("http", "p.example", 1, "Basic YTpi")),
        ({"ALL_PROXY": "http://a@p.example:1"}, of("http", "p.example", 1, "Basic YTo=")),
        ({"ALL_PROXY": "http://%61:%40@p.example:1"}, of("http", "p.example", 1, "Basic YTpA")),
        ({"HTTP_PROXY": "http://a:1"}, Upstream(Server("http", "a", 1), None)),
        ({"HTTPS_PROXY": "http://a:1"}, Upstream(None, Server("http", "a", 1))),
        (
            {"HTTP_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:2", "ALL_PROXY": "http://c:3"},
            Upstream(Server("http", "a", 1), Server("http", "b", 2)),
        ),
        (
            {"http_proxy": "http://a:1", "HTTP_PROXY": "http://b:2"},
            Upstream(Server("http", "a", 1), None),
        ),
        (
            {"http_proxy": "http://a:1", "ALL_PROXY": "socks5://b:2", "https_proxy": "http://c:3"},
            Upstream(Server("http", "a", 1), Server("http", "c", 3)),
        ),
        (
            {"ALL_PROXY": "http://a:1", "NO_PROXY": " .b.example,c.example d "},
            of("http", "a", 1, direct=(".b.example", "c.example", "d")),
        ),
        (
            {"ALL_PROXY": "http://a:1", "no_proxy": "b", "NO_PROXY": "c"},
            of("http", "a", 1, direct=("b",)),
        ),
        ({"ALL_PROXY": "http://a:1", "NO_PROXY": ""}, of("http", "a", 1, local=False)),
    ],
)
def test_the_environment_says_which_proxy_is_for_what(
    environment: Environment, expected: Upstream | None
) -> None:
    found = upstream.read(environment)
    assert found == expected
    assert found is None or Upstream.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("socks5://u:secret@h.example:1080", "SOCKS"),
        ("socks5h://h.example", "SOCKS"),
        ("socks4a://h.example", "SOCKS"),
        ("ftp://u:secret@h.example", "http://HOST:PORT"),
        ("http://u:secret@:3128", "http://HOST:PORT"),
        ("http://u:secret@h.example:nonsense", "http://HOST:PORT"),
        ("http://u:secret@h.example:0", "http://HOST:PORT"),
        ("http://u:secret@h.example:99999", "http://HOST:PORT"),
        ("http://u:secret@h example:1", "http://HOST:PORT"),
        ("http://u:secret@[::1:3128", "http://HOST:PORT"),
        ("http://u:secret@h\x1b[31m:1", "http://HOST:PORT"),
        ("u:secret", "http://HOST:PORT"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_without_its_login(value: str, says: str) -> None:
    with pytest.raises(LaunchError) as caught:
        upstream.read({"HTTPS_PROXY": value})
    message = str(caught.value)
    assert message.startswith("HTTPS_PROXY ")
    assert says in message
    assert "secret" not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("entry", "host", "port", "expected"),
    [
        ("*", "a.example", 443, True),
        ("a.example", "a.example", 443, True),
        ("a.example", "A.Example", 443, True),
        ("A.EXAMPLE", "a.example.", 443, True),
        ("a.example", "b.a.example", 443, True),
        (".a.example", "b.a.example", 443, True),
        (".a.example", "a.example", 443, True),
        ("a.example.", "a.example", 443, True),
        ("*.a.example", "b.a.example", 443, True),
        ("a.example", "ba.example", 443, False),
        ("a.example", "a.example.net", 443, False),
        ("a.example:443", "a.example", 443, True),
        ("a.example:8443", "a.example", 443, False),
        ("a.example:8443", "b.a.example", 8443, True),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.9.9.9/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "10.example", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("10.1.2.3:80", "10.1.2.3", 80, True),
        ("10.1.2.3:80", "10.1.2.3", 443, False),
        ("1.2.3", "9.1.2.3", 443, False),
        ("fd00::/8", "fd00::1", 443, True),
        ("[fd00::1]", "fd00::1", 443, True),
        ("[fd00::1]:443", "[fd00::1]", 443, True),
        ("10.1.2.3", "::ffff:10.1.2.3", 443, True),
        (".", "a.example", 443, False),
        (".", "", 443, False),
        ("*.", "a.example", 443, False),
        (":443", "a.example", 443, False),
    ],
)
def test_an_entry_of_no_proxy(entry: str, host: str, port: int, expected: bool) -> None:
    assert upstream.covers(entry, host, port) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("app.localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", True),
        ("localhost.example", False),
        ("notlocalhost", False),
        ("10.0.0.1", False),
    ],
)
def test_what_is_this_machine_goes_around_a_proxy(host: str, expected: bool) -> None:
    assert upstream.is_local(host) is expected
    both = of("http", "p", 1)
    assert (both.via(True, host, 443) is None) is expected
    assert both._replace(local=False).via(True, host, 443) == both.https


def test_a_tunnel_and_a_plain_request_have_a_proxy_each() -> None:
    users = Upstream(Server("http", "a", 1), Server("http", "b", 2), ("direct.example",))
    assert users.via(False, "shop.example", 80) == users.http
    assert users.via(True, "shop.example", 443) == users.https
    assert users.via(False, "direct.example", 80) is users.via(True, "direct.example", 443) is None


HOSTS = st.lists(st.sampled_from(["a", "ab", "b", "example"]), min_size=1, max_size=4).map(".".join)


@given(HOSTS, HOSTS, st.integers(1, 65535))
def test_a_name_below_an_entry_is_covered_and_the_dot_makes_no_difference(
    entry: str, host: str, port: int
) -> None:
    assert upstream.covers(entry, f"{host}.{entry}", port)
    assert upstream.covers(f"{entry}:{port}", f"{host}.{entry}", port)
    assert upstream.covers(f".{entry}", host, port) is upstream.covers(entry, host, port)


@given(st.text(max_size=30), st.text(max_size=30), st.integers(0, 70000))
def test_no_entry_of_no_proxy_breaks_it(entry: str, host: str, port: int) -> None:
    assert upstream.covers(entry, host, port) in (True, False)


@given(st.text(max_size=40))
def test_a_proxy_is_understood_or_refused(value: str) -> None:
    try:
        found = upstream.read({"ALL_PROXY": value})
    except LaunchError:
        return
    assert found is None or (found.http is not None and found.http.url.isprintable())


# --- certificates ---


def test_an_entry_without_an_end_takes_no_other_with_it(authority: Authority) -> None:
    good = authority.bundle.read_bytes()
    assert trust.certificates(good[:100] + b"\n" + good) == [der(authority.bundle)]


def test_entries_without_an_end_are_passed_over_quickly() -> None:
    begun = time.monotonic()
    assert trust.certificates(b"-----BEGIN CERTIFICATE-----\n" * 100_000) == []
    assert time.monotonic() - begun < 5  # looked through to the end each, they take minutes


def test_what_is_no_certificate_in_a_bundle_is_passed_over(
    authority: Authority, tmp_path: Path
) -> None:
    good = authority.bundle.read_text(encoding="ascii")
    other = authority.unknown.cert_pem.bytes().decode()
    lines = other.splitlines()
    torn = "\n".join([*lines[:3], lines[-1]])
    no_base64 = "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----"
    empty = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"
    key = authority.trusted.private_key_pem.bytes().decode()
    file = tmp_path / "bundle.pem"
    file.write_text("\n".join(["# mine", torn, good, no_base64, key, empty, other, good]), "ascii")
    expected = [der(authority.bundle), ssl.PEM_cert_to_DER_cert(other)]
    assert trust.certificates(file.read_bytes()) == expected
    assert trust.roots({"AWS_CA_BUNDLE": str(file)}).users == expected
    written = trust.write(tmp_path / "out.pem", trust.pem(expected))
    ssl.create_default_context(cafile=str(written))  # OpenSSL takes it


@pytest.mark.parametrize(
    "name", [name for name, kind in VARIABLES.items() if kind.value in ("bundle", "extra")]
)
def test_the_certificates_of_each_variable_are_the_users(name: str, authority: Authority) -> None:
    assert trust.roots({name: str(authority.bundle)}).users == [der(authority.bundle)]


@pytest.mark.parametrize("name", ["SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
def test_a_folder_is_read_as_openssl_reads_it(
    name: str, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "0a1b2c3d.0").write_bytes(authority.bundle.read_bytes())
    (tmp_path / "other.pem").write_bytes(authority.unknown.cert_pem.bytes())
    assert trust.roots({name: str(tmp_path)}).users == [der(authority.bundle)]


def test_several_folders_may_be_named(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "0a1b2c3d.0").write_bytes(authority.bundle.read_bytes())
    value = os.pathsep.join(["", str(tmp_path / "missing"), str(tmp_path)])
    assert trust.roots({"SSL_CERT_DIR": value}).users == [der(authority.bundle)]


@pytest.mark.parametrize("value", ["", "/nowhere/at/all", "a\0b", "/dev/zero"])
def test_a_variable_that_names_nothing_to_read_is_passed_over(value: str) -> None:
    assert trust.roots({"SSL_CERT_FILE": value}).users == []


def test_a_system_without_roots_trusts_whom_mozilla_trusts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nowhere = SimpleNamespace(openssl_cafile=str(tmp_path / "no"), openssl_capath=str(tmp_path))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nowhere)
    monkeypatch.setattr(trust, "_SYSTEM_FILES", ())
    assert len(trust.roots({}).system) > 50


def test_files_of_trusted_certificates_are_read(authority: Authority) -> None:
    assert trust.trusted([authority.bundle, authority.bundle]) == [der(authority.bundle)]


def test_a_trusted_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "none.pem"
    with pytest.raises(LaunchError) as caught:
        trust.trusted([file])
    assert str(caught.value) == f"{file}: cannot be read: No such file or directory"


def test_a_trusted_file_without_a_certificate_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "text.pem"
    file.write_text("no certificate", encoding="ascii")
    with Proxy() as proxy, pytest.raises(LaunchError) as caught:
        through.start(proxy, Wanted(trusted=[file]), {})
    assert str(caught.value) == f"{file}: no certificate in it (allowed is PEM)"


@pytest.mark.skipif(sys.platform == "win32", reason="no permissions of this kind")
def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="cannot be written: Is a directory"):
        trust.write(tmp_path, b"")


def test_nobody_else_reads_what_is_written(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        file = trust.write(tmp_path / "file", b"x")
    finally:
        os.umask(previous)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_trust_store_holds_what_it_is_given(tool: Any, tmp_path: Path) -> None:
    """As OpenSSL reads it; Java does in test_through.py."""
    system = trust.roots({}).system[:3]
    file = trust.write(tmp_path / "store.p12", trust_store(system))
    said = subprocess.run(
        [tool("openssl"), "pkcs12", "-in", file, "-nokeys", "-nomacver", "-passin", "pass:"],
        capture_output=True,
        check=True,
    )
    assert trust.certificates(said.stdout) == system


# --- the environment ---


class Started:
    """A proxy that answers, as `through` sees it."""

    def __init__(self, folder: Path, ca: Path) -> None:
        self.folder = folder
        self.ready = Ready("127.0.0.1", 8080, "s", folder / "log", ca)


@pytest.fixture
def started(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """Roots of its own, as reading those of the system takes longer than all the rest."""
    unknown = ssl.PEM_cert_to_DER_cert(authority.unknown.cert_pem.bytes().decode())
    monkeypatch.setattr(trust, "roots", lambda _: trust.Roots([unknown], []))
    return cast(Proxy, Started(tmp_path, authority.bundle))


NAMES = st.one_of(
    st.sampled_from([*VARIABLES, *map(str.upper, VARIABLES), "No_Proxy", "Https_proxy"]),
    st.sampled_from(["PATH", "Path", "HTTP_PROXY_HOST", "ssl_cert_file", "JAVA_HOME", "_"]),
)
VALUES = st.sampled_from(["", "1", "a b", "http://p.example:3128", "/nowhere", "-Dx=y", "ü"])
ENVIRONMENTS = st.dictionaries(NAMES, VALUES, max_size=8)
SAME_FOLDER = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SAME_FOLDER
@given(environment=ENVIRONMENTS)
def test_what_is_no_variable_of_ours_stays_as_it_is(
    started: Proxy, environment: dict[str, str]
) -> None:
    before = dict(environment)
    changed = through.through(started, environment)
    assert environment == before
    ours = {name.lower() for name, kind in VARIABLES.items() if kind.value != "folders"}
    for name, value in environment.items():
        if name not in VARIABLES and name.lower() not in ours:
            assert changed[name] == value
    assert {name.lower() for name in changed} <= {name.lower() for name in environment} | ours


@SAME_FOLDER
@given(environment=ENVIRONMENTS)
def test_nothing_is_left_that_leads_around_the_proxy(
    started: Proxy, environment: dict[str, str]
) -> None:
    changed = through.through(started, environment)
    for name, value in changed.items():
        if name.lower() == "no_proxy":
            assert value == ""
        elif VARIABLES.get(name.lower(), VARIABLES["no_proxy"]).value == "proxy":
            assert value == started.ready.url
    assert {"no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"} <= set(changed)


@SAME_FOLDER
@given(environment=ENVIRONMENTS)
def test_javas_options_stay_before_ours(started: Proxy, environment: dict[str, str]) -> None:
    before = environment.get("JAVA_TOOL_OPTIONS", "")
    changed = through.through(started, environment)
    assert changed["JAVA_TOOL_OPTIONS"].startswith(before)
    assert "-Dhttps.proxyPort=8080" in changed["JAVA_TOOL_OPTIONS"].removeprefix(before)


@pytest.mark.parametrize(
    ("folder", "option"),
    [
        ("/plain", "-Djavax.net.ssl.trustStore=/plain/s"),
        ("/a b", '"-Djavax.net.ssl.trustStore=/a b/s"'),
        ("/a'b", '"-Djavax.net.ssl.trustStore=/a\'b/s"'),
        ('/a"b', "'-Djavax.net.ssl.trustStore=/a\"b/s'"),
    ],
)
def test_a_jvm_is_given_a_path_in_quotes_that_it_lacks(folder: str, option: str) -> None:
    ready = Ready("127.0.0.1", 8080, "0", Path("log"), Path("ca"))
    assert option in through._java("", ready, Path(folder) / "s")


class Recorded:
    """A proxy that is not started, as `start` sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.arguments: list[str] = []

    def start(self, arguments: list[str]) -> None:
        self.arguments = arguments


@pytest.mark.parametrize(
    ("options", "ours"),
    [
        ([], True),
        (["ssl_verify_upstream_trusted_ca=x"], True),  # it stands behind ours, and counts
        (["ssl_verify_upstream_trusted_confdir=x"], False),  # mitmproxy would trust both
    ],
)
def test_a_folder_of_certificates_that_the_user_gives_is_all_that_is_trusted(
    tmp_path: Path, options: list[str], ours: bool
) -> None:
    recorded = Recorded(tmp_path)
    through.start(cast(Proxy, recorded), Wanted("a log", options, True), {})
    assert (tmp_path / SERVERS).exists() is ours
    wanted = ["flowtally_log=a log", "ssl_insecure=true", *options]
    assert recorded.arguments == [text for value in wanted for text in ("--set", value)]


@pytest.mark.parametrize("by_variable", [False, True])
def test_wgets_optionsstay_before_ours(started: Proxy, tmp_path: Path, by_variable: bool) -> None:
    file = tmp_path / (".wgetrc" if not by_variable else "elsewhere")
    file.write_text("timeout = 7", encoding="ascii")  # without an end of the line
    environment = {"HOME": str(tmp_path), **({"WGETRC": str(file)} if by_variable else {})}
    changed = through.through(started, environment)
    lines = Path(changed["WGETRC"]).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "timeout = 7"
    assert lines[-1] == f"ca_certificate = {started.folder / through.BUNDLE}"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_wgets_options_in_a_pipe_are_not_waited_for(started: Proxy, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    got: list[dict[str, str]] = []
    environment = {"WGETRC": str(pipe)}
    asking = threading.Thread(
        target=lambda: got.append(through.through(started, environment)), daemon=True
    )
    asking.start()
    asking.join(20)
    assert got
    assert b"use_proxy = on" in Path(got[0]["WGETRC"]).read_bytes()


def test_every_variable_has_a_value_that_the_code_knows(started: Proxy) -> None:
    changed = through.through(started, {})
    missing = [
        name for name, kind in VARIABLES.items() if name not in changed and kind.value != "folders"
    ]
    assert not missing


def test_starting_does_not_import_mitmproxy() -> None:
    """That takes longer than all the rest of a start."""
    code = (
        "import sys, flowtally.launch.through\n"
        "print([name for name in ('mitmproxy', 'cryptography', 'OpenSSL', 'certifi')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"


# --- when nothing came ---


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/usr/bin/python3.13", "python"),
        ("python", "python"),
        ("./gradlew.bat", "gradlew"),
        (r"C:\Program Files\nodejs\Node.EXE", "node"),
        ("node-20", "node"),
        ("7z", "7z"),
        ("123", "123"),
        ("", ""),
    ],
)
def test_the_program_of_a_command(path: str, expected: str) -> None:
    assert nothing.program_of(path) == expected


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ((18, 20), "ignores the environment"),
        ((20, 20), "ignores the environment"),
        ((22, 20), "ignores the environment"),
        ((22, 21), ""),
        ((23, 11), "ignores the environment"),
        ((24, 0), "only fetch"),
        ((24, 4), "only fetch"),
        ((24, 5), ""),
        ((26, 0), ""),
    ],
)
def test_what_is_said_of_a_version_of_node(version: tuple[int, int], says: str) -> None:
    said = nothing.node_says(*version)
    assert says in said
    assert bool(said) is bool(says)


@pytest.mark.parametrize(
    ("command", "first", "among"),
    [
        (["go", "run", "."], "Go's net/http", "localhost"),
        (["/usr/bin/python3"], "requests", "trust_env=True"),
        (["./gradlew"], "Java's HttpURLConnection", "command line"),
        (["./my-script.sh"], "", "flowtally browse"),
        ([], "", "flowtally browse"),
    ],
)
def test_what_is_known_of_the_program_comes_first(
    command: list[str], first: str, among: str
) -> None:
    lines = nothing.why_nothing(command, {})
    assert len(lines) <= nothing.MAX_LINES
    assert lines[2].startswith(f"  {first}")
    assert any(among in line for line in lines)


@pytest.mark.parametrize("script", ["exit 1", "echo nonsense", "echo v20.1.0"])
def test_node_is_asked_for_its_version_and_may_not_tell(tmp_path: Path, script: str) -> None:
    node = tmp_path / "node"
    node.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    node.chmod(0o755)
    lines = nothing.why_nothing(["node", "x.js"], {"PATH": str(tmp_path)})
    assert lines[0].startswith("Node 20.1 ignores") is (script == "echo v20.1.0")


def test_each_client_has_its_source() -> None:
    for file in ("environment.csv", "http_clients.csv"):
        rows = rows_of(file)
        assert all(row["source"] for row in rows)
    assert {row["evidence"] for row in rows_of("http_clients.csv")} <= {"m", "s", "j"}
    assert len({client.name for client in HTTP_CLIENTS}) == len(HTTP_CLIENTS)


def rows_of(name: str) -> list[dict[str, str]]:
    with (KNOWN / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
