"""mitmdump with the addon, run in this process: where it listens unless told otherwise, and who is
told once it answers."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from contextlib import suppress
from pathlib import Path

from mitmproxy import ctx
from mitmproxy import optmanager
from mitmproxy.certs import CertStore
from mitmproxy.exceptions import OptionsError
from mitmproxy.options import CONF_BASENAME
from mitmproxy.options import Options
from mitmproxy.tools import cmdline
from mitmproxy.tools import main as tools
from mitmproxy.tools.dump import DumpMaster

from ..addon import Flowtally

HOST = "127.0.0.1"
CA = f"{CONF_BASENAME}-ca.pem"
"""The file in mitmproxy's confdir with its CA: certificate and key (mitmproxy/certs.py,
`CertStore.create_store`)."""
CA_CERTIFICATE = f"{CONF_BASENAME}-ca-cert.pem"
"""The one with the certificate alone."""


class Companion:
    """An addon that is told once the proxy answers."""

    def __init__(self, flowtally: Flowtally) -> None:
        self.flowtally = flowtally
        self._begun = False

    def running(self) -> None:
        # mitmproxy triggers this hook twice.
        if self._begun:
            return
        self._begun = True
        loop = asyncio.get_running_loop()
        # Behind mitmproxy's last look for errors of the start (Master.run), which takes one turn of
        # the loop and ends the process.
        loop.call_soon(loop.call_soon, loop.call_soon, self._begin)

    def _begin(self) -> None:
        # Other addons may take their time before that look.
        if not _has_errored():
            self.begin()

    def begin(self) -> None:
        """The proxy answers."""


def _has_errored() -> bool:
    """Whether an error was logged that will end mitmproxy's start (addons/errorcheck.py)."""
    check = ctx.master.addons.get("errorcheck")
    return bool(getattr(getattr(check, "logger", None), "has_errored", False))


def addresses() -> list[tuple[str, int]]:
    """Where it listens, hosts with ports; nowhere with `-n`."""
    server = ctx.master.addons.get("proxyserver")
    return [address[:2] for address in server.listen_addrs()]


def log_of(flowtally: Flowtally) -> str:
    """The absolute path of the session log; "" if there is none."""
    return str(flowtally.session.path.absolute()) if flowtally.session else ""


def live_page(flowtally: Flowtally) -> str:
    """Where the live page is; "" if there is none."""
    return flowtally.live.url(ctx.options.mode)


def certificate() -> Path:
    """The file with the certificate of its CA."""
    return Path(ctx.options.confdir).expanduser().absolute() / CA_CERTIFICATE


def run(
    arguments: Sequence[str],
    companion: Callable[[Flowtally], Companion],
    port: int = 0,
    before: Callable[[Options], Sequence[object]] = lambda _: (),
) -> None:
    """Run mitmdump until it ends. It listens on 127.0.0.1 and `port` (0: a free one), unless
    `arguments`, those of its command line, say otherwise. `before`: what
    sets the options to other values than mitmproxy's own, before config.yaml and `arguments` do,
    and returns addons whose work flowtally is to see.

    Raises: SystemExit, where it cannot start; then it has said why on standard error.
    """

    def master(options: Options) -> DumpMaster:
        first = before(options)
        made = DumpMaster(options)
        flowtally = Flowtally(strict=True)
        # Behind the user's scripts, which mitmproxy's own script loader holds.
        made.addons.add(*first, flowtally, companion(flowtally))
        return made

    sys.argv[0] = "mitmdump"  # its errors begin with that
    tools.run(
        master,  # type: ignore[arg-type]  # only called
        lambda options: _Parser(options, port),  # type: ignore[arg-type,return-value]
        arguments,
        _filters,
    )


def _filters(parsed: argparse.Namespace) -> dict[str, str]:
    """The options that the words without one stand for, as in mitmproxy/tools/main.py."""
    if not parsed.filter_args:
        return {}
    names = ("save_stream_filter", "readfile_filter", "dumper_filter")
    return dict.fromkeys(names, " ".join(parsed.filter_args))


class _Parser:
    """mitmdump's own parser of its command line, with an address where none is asked for."""

    def __init__(self, options: Options, port: int) -> None:
        self._parser = cmdline.mitmdump(options)
        self._port = port

    def parse_args(self, arguments: Sequence[str]) -> argparse.Namespace:
        parsed: argparse.Namespace = self._parser.parse_args(arguments)
        # mitmproxy lets --listen-port win over --set listen_port, and over config.yaml.
        asked = {setting.partition("=")[0] for setting in parsed.setoptions}
        if parsed.listen_host is None and "listen_host" not in asked:
            parsed.listen_host = HOST
        if parsed.listen_port is None and "listen_port" not in asked:
            parsed.listen_port = self._port
        if not (parsed.version or parsed.options or parsed.commands):
            _make_ca(parsed.setoptions)
        return parsed


# --- the CA ---


def _make_ca(settings: Sequence[str]) -> None:
    """Make the CA, if it is not there yet. mitmproxy would too; but of two that start at the same
    moment each would make its own, and where it cannot, it says so with a traceback only.

    Raises: SystemExit, having said why.
    """
    options = Options()
    with suppress(OptionsError):  # it will be said when the options are set in earnest
        options.set(*settings, defer=True)
        optmanager.load_paths(options, str(Path(options.confdir) / "config.yaml"))
    folder = Path(options.confdir).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if not (folder / CA).exists():
                _make_ca_in(folder, options.key_size)
        (folder / CA).open("rb").close()
    except OSError as error:
        why = error.strerror or error
        print(
            f"mitmdump: confdir={options.confdir!r}: the proxy's certificate cannot be kept there: "
            f"{why}. Allowed is a folder that can be written to",
            file=sys.stderr,
        )
        sys.exit(1)


def _make_ca_in(folder: Path, key_size: int) -> None:
    """Whole or not at all: once the CA is there, nobody looks whether the rest is."""
    temporary = Path(tempfile.mkdtemp(prefix=".flowtally-", dir=folder))
    try:
        CertStore.create_store(temporary, CONF_BASENAME, key_size)
        for file in sorted(temporary.iterdir(), key=lambda file: file.name == CA):
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While this holds, no other process is in here for that folder."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)
