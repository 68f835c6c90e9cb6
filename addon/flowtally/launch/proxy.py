"""The starter's side of a mitmdump process: starts it, waits until it answers, ends it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from typing import NamedTuple
from typing import Self

from .leftovers import remove

OUTPUT = "mitmdump.txt"
"""The file in the private folder with what mitmdump printed."""
UPSTREAM = "upstream.json"
"""The file there with the proxies that the user's environment names, where it names any."""
SERVERS = "servers.pem"
"""The file there with the certificates that vouch for servers."""
END = b"end\n"
"""What process.py is told before its standard input ends; without it, its starter was killed."""
_REFUSED = "mitmdump: "
"""How mitmdump's lines begin about its command line and its options."""
_LOGGED = r"\[\d\d:\d\d:\d\d\.\d+\] (?:\[Errno \d+\] )?(.*)"
"""A line of its log."""
_LAST_LINE = "Error logged during startup, exiting..."
"""Of mitmproxy/addons/errorcheck.py."""
_OF_THE_END = re.compile(
    r"^Exception in callback StreamReaderProtocol\.connection_made\b.*?^\S*CancelledError\n",
    re.MULTILINE | re.DOTALL,
)
"""What asyncio says up to Python 3.12 of each connection that is open when the loop ends
(StreamReaderProtocol.connection_made asks the cancelled task for its exception)."""
PATIENCE = 15.0
"""Seconds in which mitmdump has to end when it is told to."""
MAX_OUTPUT = 4000
"""Bytes of mitmdump's output that an error quotes: the last ones."""


class LaunchError(Exception):
    """What was to be started cannot be; the message says what and why."""


class Ready(NamedTuple):
    """What mitmdump says once it answers."""

    host: str
    port: int
    """"" and 0 where it listens nowhere."""
    session: str
    """The session's id."""
    log: Path
    """The session log."""
    ca: Path
    """The certificate with which mitmproxy signs those of servers, PEM."""
    live: str = ""
    """The live page's URL, or "" if there is none."""

    @property
    def url(self) -> str:
        """The proxy's address, as HTTP_PROXY wants it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class Proxy:
    """A mitmdump process with the addon. As a context manager it is gone afterwards.

    `folder` is private to its user, and removed with the process, also where the user is killed.
    """

    def __init__(self, home: Path | None = None) -> None:
        """Make its folder, in `home` or among the system's temporary ones. Raises: LaunchError."""
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="flowtally-", dir=home))
        except OSError as error:
            raise LaunchError(
                f"{home or tempfile.gettempdir()}: no folder can be made there: "
                f"{error.strerror or error}"
            ) from error
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: Ready | None = None
        self._unanswered = 0
        """How many questions have no answer yet."""

    def start(self, arguments: Sequence[str]) -> None:
        """Start it. `arguments`: mitmdump's. What it prints goes to the file `OUTPUT` in the
        folder.

        It listens on a free port of 127.0.0.1, unless `arguments` say otherwise. Raises:
        LaunchError.
        """
        try:
            with (self.folder / OUTPUT).open("wb") as output:
                self._process = subprocess.Popen(
                    [*_command(self.folder), *arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    # Ctrl+C is for what runs through the proxy, which outlives it.
                    **apart(),
                )
        except OSError as error:
            raise LaunchError(f"mitmdump cannot be started: {error.strerror or error}") from error

    @property
    def ready(self) -> Ready:
        """Waits until the proxy answers. Raises: LaunchError, where it ended instead."""
        if self._ready is None:
            said = self._read()
            if said is None:
                self.process.wait()
                raise LaunchError(f"the proxy cannot start: {why(self.last_words())}")
            host, port = said["addresses"][0] if said["addresses"] else ("", 0)
            log, ca = Path(said["log"]), Path(said["ca"])
            self._ready = Ready(host, port, said["session"], log, ca, said["live"])
        return self._ready

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was not started"
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Ask mitmdump's process something, and wait for its answer. Raises: LaunchError, where it
        has ended."""
        pipe = self.process.stdin
        assert pipe is not None
        self._unanswered += 1
        try:
            pipe.write(json.dumps(question).encode() + b"\n")
            pipe.flush()
        except OSError:
            pass  # then there is no answer either
        answer: dict[str, Any] = {}
        # More than one, where an earlier call was interrupted while it waited.
        while self._unanswered:
            said = self._read()
            if said is None:
                raise LaunchError("mitmdump has ended")
            self._unanswered -= 1
            answer = said
        return answer

    def _read(self) -> dict[str, Any] | None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def wait(self) -> int:
        """Wait until mitmdump ends by itself; returns its exit status."""
        return self.process.wait()

    def stop(self) -> int:
        """End mitmdump as Ctrl+C does, and wait for it; returns its exit status. One that hangs is
        killed after PATIENCE."""
        pipe = self.process.stdin
        assert pipe is not None
        if not pipe.closed:
            try:
                pipe.write(END)
                pipe.close()
            except OSError:
                pass  # it has ended
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def last_words(self) -> list[str]:
        """The last lines of what mitmdump printed, oldest first."""
        try:
            with (self.folder / OUTPUT).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - MAX_OUTPUT))
                said = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        said = _OF_THE_END.sub("", said)
        return [line for line in said.splitlines() if line.strip()]

    def close(self) -> None:
        """End it, if it runs, and remove what it left."""
        if self._process is not None:
            self.stop()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
        remove(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def why(words: Sequence[str]) -> str:
    """Of what mitmdump printed before it ended at its start, the reason, in one line."""
    refused = [line for line in words if line.startswith(_REFUSED)]
    if refused:
        return refused[-1].removeprefix(_REFUSED)
    logged = [found[1] for line in words if (found := re.match(_LOGGED, line))]
    if not logged:
        return words[-1] if words else "it ended without a word"
    said = [line for line in words if line != _LAST_LINE and not line.startswith(" ")]
    # Behind its frames a traceback has the exception.
    raised = said[-1] if any(line.startswith("Traceback ") for line in words) else ""
    return f"{logged[0]}: {raised}" if raised and raised not in logged[0] else logged[0]


def _command(folder: Path) -> list[str]:
    # -P: a file in the user's folder must not stand for a module.
    module = "flowtally.launch.process"
    return [sys.executable, "-P", "-m", module, str(folder), "--quiet"]


def apart() -> dict[str, Any]:
    """What makes a process one that the terminal's signals do not reach."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}
