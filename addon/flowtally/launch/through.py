"""What makes a program's traffic go through the proxy, and trust it: the environment.

`start` starts a proxy that goes to servers as a program with the user's environment would: through
the user's own proxy, trusting whom the user trusts. `through` is that environment with the proxy
in it. Which variables there are is data: known/environment.csv.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..vocabulary import VARIABLES
from . import trust
from . import upstream
from .pkcs12 import trust_store
from .proxy import SERVERS
from .proxy import UPSTREAM
from .proxy import Proxy
from .proxy import Ready

BUNDLE = "bundle.pem"
"""The file in the private folder with whom a client trusts: the proxy, and whom it did before."""
EXTRA = "extra.pem"
"""With what a client is to trust besides its own."""
TRUST_STORE = "truststore.p12"
"""With whom Java trusts."""
WGETRC = "wgetrc"
"""With wget's settings."""


class Wanted(NamedTuple):
    """What the user wants of the proxy."""

    log: str = ""
    """`flowtally_log`: a file or a folder; empty for the default."""
    settings: Sequence[str] = ()
    """mitmproxy's options, `name=value` each."""
    insecure_upstream: bool = False
    """Certificates of servers are not checked."""
    trusted: Sequence[Path] = ()
    """Files with certificates that vouch for servers, PEM, beside the system's."""


def start(proxy: Proxy, wanted: Wanted, environment: Mapping[str, str]) -> None:
    """Start a proxy that goes to servers as a program with this environment would.

    What the user's settings or config.yaml say of certificates and of mitmproxy's mode counts more.

    Raises: LaunchError.
    """
    vouching = trust.trusted(wanted.trusted)
    # In a file: the arguments of a process are for everybody to read, and passwords are not.
    if found := upstream.read(environment):
        trust.write(proxy.folder / UPSTREAM, found.to_json().encode())
    names = {setting.partition("=")[0].strip() for setting in wanted.settings}
    if "ssl_verify_upstream_trusted_confdir" not in names:  # else mitmproxy would add it to ours
        roots = trust.roots(environment)
        everybody = trust.unique([*vouching, *roots.users, *roots.system])
        trust.write(proxy.folder / SERVERS, trust.pem(everybody))
    arguments: list[str] = []
    if wanted.log:
        arguments += ["--set", f"flowtally_log={wanted.log}"]
    if wanted.insecure_upstream:
        arguments += ["--set", "ssl_insecure=true"]
    for setting in wanted.settings:
        arguments += ["--set", setting]
    proxy.start(arguments)


def through(proxy: Proxy, environment: Mapping[str, str]) -> dict[str, str]:
    """Wait for the proxy; returns the environment with which a program goes through it and trusts
    it. The files that it names are in the proxy's folder, and gone with it. Raises: LaunchError."""
    roots = trust.roots(environment)  # while the proxy starts
    ready = proxy.ready
    files = _write(proxy.folder, ready, roots, environment)
    values = {
        "proxy": ready.url,
        "empty": "",
        "one": "1",
        "bundle": str(files / BUNDLE),
        "extra": str(files / EXTRA),
        "wgetrc": str(files / WGETRC),
        "java": _java(environment.get("JAVA_TOOL_OPTIONS", ""), ready, files / TRUST_STORE),
    }
    changed = dict(environment)
    for name, variable in VARIABLES.items():
        if variable.value in values:
            changed.update(dict.fromkeys(_written(name, environment), values[variable.value]))
    return changed


def _written(name: str, environment: Mapping[str, str]) -> Iterator[str]:
    """The ways in which a variable is to be set: a name in lower case is one that clients read in
    every case, also in one that the user has used already."""
    if sys.platform == "win32":
        yield name.upper()  # one variable, however it is written
    elif name.islower():
        yield from (name, name.upper(), *(other for other in environment if other.lower() == name))
    else:
        yield name


def _write(folder: Path, ready: Ready, roots: trust.Roots, environment: Mapping[str, str]) -> Path:
    """Write the files that the variables name; returns their folder."""
    proxys = trust.certificates(ready.ca.read_bytes())
    # The proxy first: it is the one that is looked for.
    everybody = trust.unique([*proxys, *roots.users, *roots.system])
    trust.write(folder / BUNDLE, trust.pem(everybody))
    trust.write(folder / EXTRA, trust.pem(trust.unique([*proxys, *roots.users])))
    trust.write(folder / TRUST_STORE, trust_store(everybody))
    trust.write(folder / WGETRC, _wgetrc(environment, ready, folder / BUNDLE))
    return folder


def _wgetrc(environment: Mapping[str, str], ready: Ready, bundle: Path) -> bytes:
    """wget's settings: the user's, and behind them what has to be, as the last one counts. Its
    settings win over the variables of proxies."""
    named = environment.get("WGETRC")
    users = trust.read(Path(named) if named else _home(environment) / ".wgetrc")
    ours = (
        "use_proxy = on",
        f"http_proxy = {ready.url}",
        f"https_proxy = {ready.url}",
        "no_proxy =",
        f"ca_certificate = {bundle}",
    )
    return b"\n".join([users, *map(os.fsencode, ours), b""])


def _home(environment: Mapping[str, str]) -> Path:
    home = environment.get("HOME")
    return Path(home) if home else Path.home()


def _java(options: str, ready: Ready, store: Path) -> str:
    """The JVM's options: the user's, and behind them what has to be, as the last one counts.

    A JVM takes them apart at white space outside quotes (HotSpot, Arguments::parse_options_buffer),
    and Java 8 ignores more than 1,023 bytes of them.
    """
    address = [
        f"-D{scheme}.proxy{part}={value}"
        for scheme in ("http", "https")
        for part, value in (("Host", ready.host), ("Port", ready.port))
    ]
    file = f"-Djavax.net.ssl.trustStore={store}"
    if any(char.isspace() or char in "'\"" for char in file):
        quote = "'" if '"' in file else '"'
        file = f"{quote}{file}{quote}"
    ours = (
        *address,
        # Empty: localhost, which is in it by default, is to be seen.
        "-Dhttp.nonProxyHosts=",
        file,
        "-Djavax.net.ssl.trustStoreType=PKCS12",
    )
    return " ".join([*([options] if options else []), *ours])
