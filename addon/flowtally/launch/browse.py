"""`flowtally browse`: a browser of its own whose traffic goes through a proxy of its own, and what
became of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any
from typing import NamedTuple
from typing import Self

import click

from .. import terminal
from ..terminal import CANNOT_BE_TOLD
from . import through
from .address import AddressError
from .address import address
from .browsers import Browser
from .browsers import Machine
from .browsers import find
from .leftovers import companion
from .leftovers import end
from .profile import Start
from .profile import prepare
from .proxy import LaunchError
from .proxy import Proxy
from .proxy import Ready
from .proxy import apart
from .through import Wanted

OUTPUT = "browser.txt"
"""The file in the private folder with what the browser printed."""
LAST_WORDS = 10
"""Lines of it that are shown where it failed."""
MAX_OUTPUT = 4000
"""Bytes of it that are looked at for them."""
MAX_TEMPORARY = 60
"""Bytes of the path of a folder in which Chromium has room for a socket: the path of one has at
most 107 (unix(7)), and it adds 46."""
BY_SIGNAL = 128
"""Added to a signal's number: the exit status of what ended by it."""


class Asked(NamedTuple):
    """What the user asks for."""

    url: str
    """As it was given; "" for none."""
    arguments: Sequence[str]
    """For the browser."""
    browser: str
    """A name or a path; "" for any."""
    wanted: Wanted
    html: Path | None = None
    force: bool = False
    """Files are overwritten, whoever wrote them."""


@click.command()
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[URL] [-- ARGUMENT...]")
@click.option(
    "--browser", default="", metavar="NAME_OR_PATH", help="chromium, chrome, edge, brave, firefox."
)
@click.option(
    "--log",
    default="",
    metavar="FILE_OR_FOLDER",
    help="Where the session log goes (flowtally_log).",
)
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a web page.")
@click.option("--force", is_flag=True, help="Overwrite FILE even if flowtally did not write it.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="An option of mitmproxy's."
)
@click.option("--insecure-upstream", is_flag=True, help="Accept any certificate of a server.")
@click.option(
    "--trust",
    "trusted",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Accept servers that these certificates vouch for (PEM).",
)
def browse(
    arguments: tuple[str, ...],
    browser: str,
    log: str,
    html: Path | None,
    force: bool,
    settings: tuple[str, ...],
    insecure_upstream: bool,
    trusted: tuple[Path, ...],
) -> None:
    """Start a browser through a proxy of its own, and say what became of its requests.

    \b
    flowtally browse https://example.com/
    flowtally browse --browser firefox localhost:8000
    flowtally browse localhost:8000 -- --headless=new

    The browser gets a fresh profile, which goes through the proxy for localhost too, trusts it,
    makes few requests on its own and is removed at the end. The live page is in a second tab.
    The session ends when the browser is closed, or with Ctrl+C. Without --browser it is the first
    of Chromium, Chrome, Edge, Brave and Firefox that is found.

    Exit status: the browser's; 130 after Ctrl+C; 2 if the session could not be begun, or its report
    not be written.
    """
    url, own = _split(arguments)
    wanted = Wanted(log, settings, insecure_upstream, trusted)
    sys.exit(launched(Asked(url, own, browser, wanted, html, force), os.environ))


def _split(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The URL, "" for none, and what the browser gets besides; or it ends here."""
    url, own = "", list(arguments)
    if own and not own[0].startswith("-"):
        url = own.pop(0)
    if own and not own[0].startswith("-"):
        terminal.stop(f"{own[0]!r}: allowed is one URL; arguments for the browser go behind --")
    return url, own


def launched(asked: Asked, environment: Mapping[str, str]) -> int:
    """Do what is asked for; returns the exit status."""
    try:
        url = address(asked.url) if asked.url else ""
        browser = find(asked.browser, Machine(environment))
        _check_display(asked.arguments, environment)
        with Signals() as signals, Proxy(browser.home) as proxy:
            through.start(proxy, asked.wanted, environment)
            with signals.may_end():
                start = prepare(browser, proxy.folder, proxy.ready, asked.arguments)
            # A new tab would ask for its news.
            pages = [page for page in (url, proxy.ready.live) if page] or ["about:blank"]
            if browser.kind == "chromium" and _is_headless(asked.arguments):
                del pages[1:]  # it refuses several there (chrome/app/chrome_main.cc)
            status = Running(browser, proxy, signals, environment).run(start, pages)
            told = finish(proxy, asked)
            return status or told
    except (AddressError, LaunchError) as error:
        terminal.complain(str(error))
        return CANNOT_BE_TOLD
    except EndedError as error:
        return error.status


def _check_display(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    if sys.platform in ("win32", "darwin") or any(
        environment.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "MOZ_HEADLESS")
    ):
        return
    if not _is_headless(arguments):
        raise LaunchError(
            "there is no display for the browser (neither DISPLAY nor WAYLAND_DISPLAY is set). "
            "Without a window: flowtally browse URL -- --headless; a command that starts a "
            "browser of its own goes through the proxy with: flowtally run -- COMMAND"
        )


def _is_headless(arguments: Sequence[str]) -> bool:
    return any(argument.lstrip("-").partition("=")[0] == "headless" for argument in arguments)


# --- the browser ---


class Running:
    """A browser that runs through a proxy."""

    def __init__(
        self, browser: Browser, proxy: Proxy, signals: Signals, environment: Mapping[str, str]
    ) -> None:
        self._browser = browser
        self._proxy = proxy
        self._signals = signals
        self._environment = environment

    def run(self, start: Start, pages: Sequence[str]) -> int:
        """Start the browser, and wait for its end; returns the exit status.

        Raises: LaunchError.
        """
        program = str(self._browser.program)
        with (self._proxy.folder / OUTPUT).open("wb") as output:
            try:
                process = subprocess.Popen(
                    [program, *self._arguments(start), *pages],
                    env=browser_environment(
                        self._environment, start.environment | self._temporary()
                    ),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    # Ctrl+C is for this process, which then ends the browser and all its children.
                    **apart(),
                )
            except (OSError, ValueError) as error:  # ValueError: a NUL byte in an argument
                reason = getattr(error, "strerror", None) or error
                raise LaunchError(f"{program} cannot be started: {reason}") from error
        with companion(self._proxy.folder, process.pid):
            return self._wait(process)

    def _arguments(self, start: Start) -> Sequence[str]:
        if self._browser.kind == "chromium" and _is_root():
            terminal.tell(
                f"{self._browser.name} runs without its own sandbox (--no-sandbox): "
                "as root it would not start with it"
            )
            return ["--no-sandbox", *start.arguments]
        return start.arguments

    def _temporary(self) -> dict[str, str]:
        """What makes the browser leave nothing outside of the private folder."""
        folder = str(self._proxy.folder)
        if sys.platform in ("win32", "darwin") or len(os.fsencode(folder)) > MAX_TEMPORARY:
            return {}
        return {"TMPDIR": folder}

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        terminal.tell(
            f"{self._browser.program} goes through {self._proxy.ready.url}. "
            f"The session ends with it{_HOW_TO_QUIT}, or with Ctrl+C."
        )
        watch = threading.Thread(target=self._end_with_proxy, args=(process,), daemon=True)
        watch.start()
        try:
            with self._signals.may_end():
                status = process.wait()
        except EndedError as error:
            return error.status
        finally:
            end(process.pid, lambda: process.poll() is not None)
            process.wait()
        if not self._proxy.running:
            terminal.complain("\n".join(["mitmdump has ended:", *self._proxy.last_words()]))
            return CANNOT_BE_TOLD
        if status:
            how = f"with status {status}" if status > 0 else f"by signal {-status}"
            said = _last_lines(self._proxy.folder / OUTPUT)
            terminal.complain("\n".join([f"{self._browser.program} ended {how}", *said]))
        return status if status >= 0 else BY_SIGNAL - status

    def _end_with_proxy(self, process: subprocess.Popen[bytes]) -> None:
        """In a thread: without the proxy, no page of the browser's would load."""
        self._proxy.wait()
        process.terminate()


_HOW_TO_QUIT = " (quit it: closing its windows is not enough)" if sys.platform == "darwin" else ""


def _is_root() -> bool:
    """Whether Chromium refuses to start with its sandbox (content/browser/sandbox_host_linux)."""
    return sys.platform not in ("win32", "darwin") and os.geteuid() == 0


def browser_environment(given: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """The environment without what speaks of proxies, and with what the browser needs."""
    kept = {name: value for name, value in given.items() if not name.lower().endswith("_proxy")}
    return {**kept, **own}


def _last_lines(file: Path) -> list[str]:
    said = file.read_bytes()[-MAX_OUTPUT:].decode("utf-8", "replace")
    return [line for line in said.splitlines() if line.strip()][-LAST_WORDS:]


# --- signals ---


class EndedError(Exception):
    """A signal came that is to end what is under way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = BY_SIGNAL + number
        """The exit status of what ended by it."""


class Signals:
    """While this is in use, signals do not end this process: what was begun is ended in order."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self._before: dict[int, Any] = {}
        self._raises = False

    def __enter__(self) -> Self:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows lacks one
            # One that is ignored, as by nohup, shall stay so.
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    @contextmanager
    def may_end(self) -> Iterator[None]:
        """Within this, a signal raises EndedError, also one that came before."""
        self._raises = True
        try:
            if self.came:
                raise EndedError(self.came[0])
            yield
        finally:
            self._raises = False

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.came.append(number)
        if self._raises:
            self._raises = False  # a second one must not keep things from being ended in order
            raise EndedError(number)


# --- the end ---


def finish(proxy: Proxy, asked: Asked) -> int:
    """End the session, and say what became of it; returns the exit status that this asks for."""
    ready = proxy.ready
    proxy.stop()
    from ..logs import read
    from ..report import text
    from ..report.layout import terminal_width
    from ..report.paint import paint_for

    try:
        session = read([(str(ready.log), ready.log)]).sessions[ready.session]
    except (OSError, KeyError):
        terminal.complain(f"{ready.log}: the session log cannot be read")
        return CANNOT_BE_TOLD
    lines = text.summary(session.tally, terminal_width(), paint_for(sys.stderr))
    with suppress(OSError, ValueError):  # closed: nobody there to read it
        print("", *lines, "", f"Session log: {ready.log}", sep="\n", file=sys.stderr, flush=True)
    if asked.html and not _write_html(asked.html, ready, session, asked):
        return CANNOT_BE_TOLD
    return 0


def _write_html(path: Path, ready: Ready, session: Any, asked: Asked) -> bool:
    from ..report import html

    about = html.About([f"Session {ready.session}, begun {session.time}"])
    content = html.page(session.tally, about).encode("utf-8", "replace")
    return terminal.write_file(path, content, html.is_ours, asked.force)
