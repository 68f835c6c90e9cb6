"""The proxies of a test run, each started when the first case needs it.

Starting a mitmdump takes longer than a case, so all cases with the same settings share one. A case
finds its own records because cases run one after another, and because each one is followed by a
beacon: a request whose record closes the case's part of the log.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import AbstractContextManager
from contextlib import ExitStack
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from types import TracebackType
from typing import Any
from typing import Self
from typing import TypeVar

from . import clients
from . import servers
from .dns import NameServer
from .proxy import Mitmdump
from .proxy import Record
from .servers import AnsweringServer
from .servers import DeadPort
from .servers import EchoServer
from .tls import Authority

Resource = TypeVar("Resource")

# Longer than any case takes, so that a client that leaves has always left early.
PATIENCE = "60"
# Short, so that a client that waits for `LATE` seconds has always waited longer.
IMPATIENCE = "0.2"
LATE = 0.6

SCRIPTS = Path(__file__).parent / "scripts"
# Cases with raw TCP inside a CONNECT tunnel use this address; all others use 127.0.0.1.
RAW_TCP_HOST = "127.0.0.2"


@dataclass(frozen=True)
class Setup:
    """The settings of one proxy. `modes` maps the names that cases use to specifications."""

    modes: Mapping[str, str] = field(default_factory=lambda: {"regular": "regular"})
    options: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    scripts: Sequence[Path] = ()
    datagrams: bool = False
    """mitmproxy keeps a UDP client for 20 s, so its connections never come to rest."""


class Laboratory:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._resources = ExitStack()
        self._proxies: dict[str, Mitmdump] = {}
        self._setups: dict[str, Setup] = {}
        self.confdir = directory / "confdir"
        self.authority = Authority.create(directory)

    def __enter__(self) -> Self:
        self.beacon = self._open(AnsweringServer(servers.OK))
        self.origin = self._open(AnsweringServer(servers.site))
        self.echo = self._open(EchoServer())
        self.dead = self._open(DeadPort())
        self.forbidding_upstream = self._open(AnsweringServer(servers.CONNECT_FORBIDDEN))
        self.locked_upstream = self._open(AnsweringServer(servers.CONNECT_NEEDS_LOGIN))
        self.closing_upstream = self._open(AnsweringServer(servers.CLOSES))
        self.name_server = self._open(NameServer())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._resources.__exit__(kind, error, trace)

    def _open(self, resource: AbstractContextManager[Resource]) -> Resource:
        return self._resources.enter_context(resource)

    def proxy(self, name: str) -> Mitmdump:
        """The running proxy with the settings of that name in `SETUPS`."""
        if name not in self._proxies:
            setup = SETUPS[name](self)
            self._setups[name] = setup
            self._proxies[name] = self._open(self.mitmdump(name, setup))
        return self._proxies[name]

    def mitmdump(self, name: str, setup: Setup) -> Mitmdump:
        """A proxy of one's own, not started yet; it trusts the laboratory's CA."""
        return Mitmdump(
            self._directory / name,
            modes=tuple(setup.modes.values()),
            options={
                "flowtally_timeout": PATIENCE,
                "ssl_verify_upstream_trusted_ca": str(self.authority.bundle),
                **setup.options,
            },
            arguments=setup.arguments,
            scripts=setup.scripts,
            # One CA for all: making one takes longer than the rest of the start.
            confdir=self.confdir,
        )

    def port(self, name: str, mode: str) -> int:
        """The port on which the proxy `name` offers the mode that its setup calls `mode`."""
        proxy = self.proxy(name)
        return proxy.ports[self._setups[name].modes[mode]]

    def observe(self, proxy: Mitmdump, act: Callable[[], Any], count: int) -> list[Record]:
        """Runs `act`; returns the flows and events that it left, which may be more than `count`."""
        before = len(proxy.outcomes())
        try:
            act()
        except Exception as error:
            error.add_note(proxy.output)
            raise
        proxy.wait_for(lambda _: len(proxy.outcomes()) >= before + count)
        self.sound_beacon(proxy)
        return [
            record for record in proxy.outcomes()[before:] if record.get("port") != self.beacon.port
        ]

    def sound_beacon(self, proxy: Mitmdump) -> None:
        """Waits until all that happened before is in the log."""
        setup = self._setups.get(proxy.directory.name)
        if setup is None or not setup.datagrams:
            proxy.wait_idle()
        expected = self._beacons(proxy) + 1
        clients.get(proxy, self.beacon)
        proxy.wait_for(lambda _: self._beacons(proxy) >= expected)

    def _beacons(self, proxy: Mitmdump) -> int:
        return sum(record.get("port") == self.beacon.port for record in proxy.flows())


def _regular(laboratory: Laboratory) -> Setup:
    return Setup(
        modes={
            "regular": "regular",
            "socks5": "socks5",
            "reverse": f"reverse:{laboratory.origin.url}",
            "reverse to dead": f"reverse:{laboratory.dead.url}",
            "reverse tcp": f"reverse:tcp://127.0.0.1:{laboratory.echo.port}",
            "dead upstream": f"upstream:{laboratory.dead.url}",
            "forbidding upstream": f"upstream:{laboratory.forbidding_upstream.url}",
            "locked upstream": f"upstream:{laboratory.locked_upstream.url}",
            "closing upstream": f"upstream:{laboratory.closing_upstream.url}",
        },
        options={"tcp_hosts": RAW_TCP_HOST.replace(".", r"\.")},
    )


def _impatient(_: Laboratory) -> Setup:
    return Setup(options={"flowtally_timeout": IMPATIENCE})


def _inactivity(_: Laboratory) -> Setup:
    """mitmproxy gives up before the client does."""
    return Setup(options={"flowtally_timeout": IMPATIENCE, "tcp_timeout": "1"})


def _lazy(laboratory: Laboratory) -> Setup:
    return Setup(
        modes={
            "regular": "regular",
            "reverse tcp to dead": f"reverse:tcp://127.0.0.1:{laboratory.dead.port}",
        },
        options={"connection_strategy": "lazy"},
    )


def _impatient_and_lazy(_: Laboratory) -> Setup:
    return Setup(options={"flowtally_timeout": IMPATIENCE, "connection_strategy": "lazy"})


def _limited(_: Laboratory) -> Setup:
    return Setup(options={"body_size_limit": "1k", "rawtcp": "false"})


def _streaming(_: Laboratory) -> Setup:
    return Setup(options={"stream_large_bodies": "1"})


def _login(_: Laboratory) -> Setup:
    return Setup(
        modes={"regular": "regular", "socks5": "socks5"}, options={"proxyauth": "user:secret"}
    )


def _full(_: Laboratory) -> Setup:
    return Setup(options={"flowtally_urls": "full"})


def _intervening(laboratory: Laboratory) -> Setup:
    """The proxy answers, blocks and kills."""
    folder = laboratory.confdir.parent / "local-files"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "file.txt").write_text("from the disk")
    return Setup(
        arguments=[
            *("--set", "block_list=:~u /blocked-403:403"),
            *("--set", "block_list=:~u /blocked-444:444"),
            *("--set", f"map_local=|/mapped/|{folder}"),
        ],
        scripts=[SCRIPTS / "kill_flows.py"],
    )


def _dns(laboratory: Laboratory) -> Setup:
    return Setup(
        modes={
            "regular": "regular",
            "dns": f"reverse:dns://127.0.0.1:{laboratory.name_server.port}",
        },
        datagrams=True,
    )


SETUPS: Mapping[str, Callable[[Laboratory], Setup]] = {
    "regular": _regular,
    "impatient": _impatient,
    "inactivity": _inactivity,
    "lazy": _lazy,
    "impatient and lazy": _impatient_and_lazy,
    "limited": _limited,
    "streaming": _streaming,
    "login": _login,
    "intervening": _intervening,
    "full": _full,
    "dns": _dns,
}
