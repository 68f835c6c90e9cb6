"""mitmdump with the addon, in a process that lives no longer than the one that started it.

    python -m flowtally.launch.process FOLDER [mitmdump arguments]

Standard output gets a line of JSON once the proxy answers (`Ready` in proxy.py), and one for each
line of JSON on standard input (`ask` there). When standard input ends, mitmdump ends as after
Ctrl+C: a starter that is killed, whatever by, closes it too. Such a one cannot remove FOLDER, its
private one, nor end what it had started beside mitmdump (leftovers.py), so this process does both;
one that is alive says `END` first (proxy.py).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import IO
from typing import Any

from mitmproxy import ctx
from mitmproxy import http
from mitmproxy.options import Options

from ..addon import Flowtally
from ..current_test import name_of
from ..headers import EVENT_STREAM
from ..headers import media_type_of
from . import mitmdump
from .attribution import Attribution
from .detour import Detour
from .leftovers import end_companion
from .leftovers import remove
from .proxy import END
from .proxy import SERVERS
from .proxy import UPSTREAM
from .upstream import Upstream


class Starter(mitmdump.Companion):
    """The addon that speaks with the process that started this one."""

    def __init__(self, flowtally: Flowtally, questions: IO[bytes], answers: IO[bytes]) -> None:
        super().__init__(flowtally)
        self.died = False
        """The starter was killed."""
        self._questions = questions
        self._answers = answers
        self._attribution: Attribution | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        session = self.flowtally.session
        self._tell(
            {
                "addresses": mitmdump.addresses(),
                "session": session.id if session else "",
                "log": mitmdump.log_of(self.flowtally),
                "ca": str(mitmdump.certificate()),
                "live": mitmdump.live_page(self.flowtally),
            }
        )
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._listen, args=(loop,), daemon=True).start()

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: nothing else can wait for a pipe on every system."""
        line = b""
        for line in self._questions:
            # Not the end of the pipe: a process that the starter forked may hold it open.
            if line == END:
                break
            loop.call_soon_threadsafe(self._answer, line, time.time())
        self.died = line != END
        ctx.master.shutdown()

    def _answer(self, line: bytes, came: float) -> None:
        """Answer a test run (testing/run.py): `test` says which test runs from now on, "" for none;
        `settle` wants to know when the flows of a test have ended. `came`: when it was asked, by
        the clock that flows go by: tests may set that of their own process to any time.
        """
        question = json.loads(line)
        if "settle" in question:
            self._task = asyncio.get_running_loop().create_task(self._settle(question["settle"]))
            return
        self._of_tests().tests.change(name_of(question["test"]), came)
        self._tell({})

    async def _settle(self, node: str) -> None:
        self._tell({"open": await self._of_tests().settle(name_of(node))})

    def _of_tests(self) -> Attribution:
        """Made when a test run asks for the first time: nobody else's flows are looked at."""
        if self._attribution is None:
            self._attribution = Attribution(self.flowtally.open_flows)
            self.flowtally.recorder.test_of = self._attribution.tests.at
            ctx.master.addons.add(self._attribution)
        return self._attribution

    def _tell(self, said: dict[str, Any]) -> None:
        try:
            self._answers.write(json.dumps(said).encode() + b"\n")
            self._answers.flush()
        except OSError:
            pass  # the starter is gone; its end of standard input tells so


def run(folder: Path, arguments: list[str], questions: IO[bytes], answers: IO[bytes]) -> bool:
    """Run mitmdump until its starter ends it; returns whether that one was killed.

    Raises: SystemExit, where mitmdump cannot start.
    """
    starter: Starter | None = None

    def companion(flowtally: Flowtally) -> Starter:
        nonlocal starter
        starter = Starter(flowtally, questions, answers)
        return starter

    def before(options: Options) -> list[object]:
        return [EventStreams(), *_as_environment(folder, options)]

    mitmdump.run(arguments, companion, before=before)
    assert starter is not None
    return starter.died


class EventStreams:
    """An addon that lets events pass as they come: mitmproxy would keep them until their stream
    ends, which most never do."""

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        response = flow.response
        # One that has an end already was made by another addon, and is there.
        if response is None or response.timestamp_end is not None or response.stream:
            return
        if media_type_of(response) == EVENT_STREAM:
            response.stream = True


def _as_environment(folder: Path, options: Options) -> list[Detour]:
    """Go to servers as the user's environment says; returns what sends connections through the
    user's own proxies.

    Behind this, mitmproxy reads config.yaml and the arguments, so what they say counts.
    """
    if (folder / SERVERS).exists():
        options.update(ssl_verify_upstream_trusted_ca=str(folder / SERVERS))
    if not (folder / UPSTREAM).exists():
        return []
    detour = Detour(Upstream.from_json((folder / UPSTREAM).read_text(encoding="utf-8")))
    options.update(mode=[detour.mode])
    return [detour]


def main() -> None:
    folder, *arguments = sys.argv[1:]
    # Whatever else reads or prints in this process must not get between.
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    if run(Path(folder), arguments, questions, answers):
        end_companion(Path(folder))
        remove(Path(folder))


if __name__ == "__main__":
    main()
