"""A proxy for a run of tests: started at its first use, told which test runs, ended with it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from ..journal import MAX_LINE
from ..launch import through
from ..launch.proxy import LaunchError
from ..launch.proxy import Proxy
from ..launch.through import Wanted
from ..redaction import printable
from .environment import Changed
from .environment import difference
from .tail import Tail
from .watch import Watch

MAX_SAID = 2000
"""Characters of what mitmproxy says that are quoted."""


class Run:
    """The proxy of this process, and the test that runs."""

    def __init__(self, wanted: Wanted) -> None:
        self.current: Watch | None = None
        self.trouble = ""
        """Why there is no proxy, or none any more; "" as long as nothing is wrong."""
        self.died = False
        """There was one."""
        self.session = ""
        self.log = Path()
        self.url = ""
        self._wanted = wanted
        self._proxy: Proxy | None = None
        self._tail: Tail | None = None
        self._changed: Changed | None = None
        self._through: dict[str, str | None] = {}
        """What makes a program go through the proxy, see `difference`."""
        self._lock = threading.RLock()
        """One question at a time: a test may ask from several threads."""

    # --- the proxy ---

    def start(self) -> None:
        """Start the proxy, unless that was done or has failed before. Raises: LaunchError."""
        if self.trouble:
            raise LaunchError(self.trouble)
        if self._proxy is not None:
            return
        self._proxy = proxy = Proxy()
        try:
            through.start(proxy, self._wanted, os.environ)
            self._through = difference(through.through(proxy, os.environ))
            ready = proxy.ready
            self.session, self.log, self.url = ready.session, ready.log, ready.url
            self._tail = _tail(ready.log, ready.session)
        except LaunchError as error:
            self.trouble = str(error)
            proxy.close()
            raise

    def enter(self) -> None:
        """From now on this process, and those that it starts, go through the proxy."""
        if self._changed is None and self._proxy is not None and not self.trouble:
            self._changed = Changed(self._through)

    def leave(self) -> None:
        """The opposite of `enter`."""
        if self._changed is not None:
            self._changed.restore()
            self._changed = None

    def close(self) -> None:
        """End the proxy. All its records are in the log afterwards."""
        self.leave()
        if self._proxy is not None:
            self._proxy.close()
        if self._tail is not None:
            self._tail.close()
            self._tail = None

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Ask the proxy. Where it has ended: {}, and what runs from now on goes without it."""
        if self._proxy is None or self.trouble:
            return {}
        try:
            with self._lock:
                return self._proxy.ask(question)
        except LaunchError as error:
            words = "\n".join(self._proxy.last_words()[-3:])
            self.trouble = f"{error} in the middle of the run" + (f":\n{words}" if words else "")
            self.died = True
            self.leave()
            return {}

    # --- tests ---

    def begin(self, node: str) -> Watch:
        """A test begins. Raises: LaunchError, where there is no proxy."""
        self.start()
        self.look()  # what is left of the tests before is none of this one's
        self._ask({"test": node})
        if self.trouble:
            raise LaunchError(self.trouble)
        self.current = Watch(self, node)
        return self.current

    def end(self, watch: Watch) -> int:
        """A test has ended; returns how many of its flows have not."""
        still_open = self.settle(watch)
        self._ask({"test": ""})
        watch.over = True
        self.current = None
        return still_open

    def settle(self, watch: Watch) -> int:
        """Wait for the end of a test's flows; returns how many are still open."""
        answer = self._ask({"settle": watch.node})
        self.look()
        return int(answer.get("open", 0))

    def look(self) -> None:
        """Take in what the log has by now."""
        with self._lock:
            if self._tail is not None:
                for record in self._tail.read():
                    if self.current is not None:
                        self.current.add(record)


def _tail(log: Path, session: str) -> Tail:
    """Raises: LaunchError, where the proxy cannot write its log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - MAX_LINE))
            begun = session.encode() in file.read()
        if begun:
            return Tail(log, session)
        log.open("ab").close()  # it says why
        reason = "nothing arrives there"
    except OSError as error:
        reason = error.strerror or str(error)
    raise LaunchError(f"{printable(str(log), MAX_SAID)}: cannot be written: {reason}")
