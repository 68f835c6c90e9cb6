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
from typing import Any
from typing import Self
from typing import TypeVar

from . import clients
from . import servers
from .dns import Babbler
from .dns import NameServer
from .proxy import ADDON
from .proxy import Mitmdump
from .proxy import Record
from .servers import AnsweringServer
from .servers import DeadPort
from .servers import EchoServer
from .streams import TunnellingServer
from .tls import Authority

Resource = TypeVar("Resource")

# Longer than any case takes, so that a client that leaves has always left early.
PATIENCE = "60"
# Short, so that a client that waits for `LATE` seconds has always waited longer.
IMPATIENCE = "0.2"
LATE = 0.6
# Longer than a busy machine takes to pass a byte on; a wait of `TOO_LONG` is always longer.
ATTENTION = 1.0
TOO_LONG = 1.3

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
    """Its connections never come to rest: mitmproxy keeps a UDP client for 20 s, and one whose
    server's task died for ever."""


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
        self.silent_upstream = self._open(AnsweringServer(servers.SILENT))
        self.holding_upstream = self._open(AnsweringServer(servers.CONNECT_HOLDS))
        self.tunnelling_upstream = self._open(TunnellingServer())
        self.closing_upstream = self._open(AnsweringServer(servers.CLOSES))
        self.name_server = self._open(NameServer())
        self.babbler = self._open(Babbler())
        return self

    def __exit__(self, *failure: Any) -> None:
        self._resources.__exit__(*failure)

    def _open(self, resource: AbstractContextManager[Resource]) -> Resource:
        return self._resources.enter_context(resource)

    def proxy(self, name: str) -> Mitmdump:
        """The running proxy with the settings of that name in `SETUPS`."""
        if name not in self._proxies:
            setup = SETUPS[name](self)
            self._setups[name] = setup
            self._proxies[name] = self._open(self.mitmdump(name, setup))
        return self._proxies[name]

    def adopt(self, name: str, setup: Setup, proxy: Mitmdump) -> None:
        """Give a proxy of one's own a name, under which cases find its modes."""
        self._setups[name] = setup
        self._proxies[name] = proxy

    def mitmdump(
        self, name: str, setup: Setup, files: int | None = None, addon: Path = ADDON
    ) -> Mitmdump:
        """A proxy of one's own, not started yet; it trusts the laboratory's CA. `files`: how many
        file descriptors it may have."""
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
            files=files,
            addon=addon,
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


def _attentive(laboratory: Laboratory) -> Setup:
    """A timeout that neither a busy machine nor a case takes by chance, and short enough to wait
    for."""
    return Setup(
        modes={
            "regular": "regular",
            "silent upstream": f"upstream:{laboratory.silent_upstream.url}",
            "tunnelling upstream": f"upstream:{laboratory.tunnelling_upstream.url}",
            "upstream to a silent handshake": f"upstream:{laboratory.holding_upstream.url}",
        },
        options={"flowtally_timeout": str(ATTENTION)},
    )


def _attentive_and_streaming(_: Laboratory) -> Setup:
    return Setup(options={"flowtally_timeout": str(ATTENTION), "stream_large_bodies": "1"})


def _inactivity(_: Laboratory) -> Setup:
    """mitmproxy gives up before the client does."""
    return Setup(
        options={
            "flowtally_timeout": IMPATIENCE,
            "tcp_timeout": "1",
            "tcp_hosts": RAW_TCP_HOST.replace(".", r"\."),
        }
    )


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


def _lazy_socks(_: Laboratory) -> Setup:
    return Setup(
        modes={"regular": "regular", "socks5": "socks5"},
        options={"connection_strategy": "lazy"},
    )


def _datagrams(laboratory: Laboratory) -> Setup:
    return Setup(
        modes={
            "regular": "regular",
            "udp": "reverse:udp://nonexistent.invalid:53",
            "nowhere": "reverse:dns://nonexistent.invalid:53",
            "garbage": f"reverse:dns://127.0.0.1:{laboratory.babbler.port}",
        },
        datagrams=True,
    )


def _transparent(_: Laboratory) -> Setup:
    return Setup(modes={"regular": "regular", "transparent": "transparent"})


SETUPS: Mapping[str, Callable[[Laboratory], Setup]] = {
    "regular": _regular,
    "impatient": _impatient,
    "inactivity": _inactivity,
    "attentive": _attentive,
    "attentive and streaming": _attentive_and_streaming,
    "lazy": _lazy,
    "impatient and lazy": _impatient_and_lazy,
    "limited": _limited,
    "streaming": _streaming,
    "login": _login,
    "intervening": _intervening,
    "full": _full,
    "dns": _dns,
    "spare": lambda _: Setup(),
    "socks": lambda _: Setup(modes={"regular": "regular", "socks5": "socks5"}, datagrams=True),
    "lazy socks": _lazy_socks,
    "datagrams": _datagrams,
    "transparent": _transparent,
}
