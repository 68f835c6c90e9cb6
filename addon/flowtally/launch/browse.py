"""`flowtally browse`: a browser of its own whose traffic goes through a proxy of its own, and what
became of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from .. import terminal
from ..terminal import BY_SIGNAL
from ..terminal import CANNOT_BE_TOLD
from . import through
from .address import AddressError
from .address import address
from .browsers import Browser
from .browsers import Machine
from .browsers import find
from .leftovers import companion
from .leftovers import end
from .options import launching
from .outputs import Outputs
from .profile import Start
from .profile import prepare
from .proxy import LaunchError
from .proxy import Proxy
from .proxy import apart
from .signals import EndedError
from .signals import Signals
from .through import Wanted

OUTPUT = "browser.txt"
"""The file in the private folder with what the browser printed."""
NOTHING = "The browser was closed before it had loaded a page, or it went around the proxy."
LAST_WORDS = 10
"""Lines of it that are shown where it failed."""
MAX_OUTPUT = 4000
"""Bytes of it that are looked at for them."""
MAX_TEMPORARY = 60
"""Bytes of the path of a folder in which Chromium has room for a socket: the path of one has at
most 107 (unix(7)), and it adds 46."""


class Asked(NamedTuple):
    """What the user asks for."""

    url: str
    """As it was given; "" for none."""
    arguments: Sequence[str]
    """For the browser."""
    browser: str
    """A name or a path; "" for any."""
    wanted: Wanted
    outputs: Outputs = Outputs()


@click.command()
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[URL] [-- ARGUMENT...]")
@click.option(
    "--browser", default="", metavar="NAME_OR_PATH", help="chromium, chrome, edge, brave, firefox."
)
@launching
def browse(
    arguments: tuple[str, ...],
    browser: str,
    wanted: Wanted,
    outputs: Outputs,
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
    sys.exit(launched(Asked(url, own, browser, wanted, outputs), os.environ))


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
    from . import aftermath

    if not aftermath.can_write(asked.outputs):
        return CANNOT_BE_TOLD
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
            told = aftermath.tell(proxy, asked.outputs, "", lambda: [NOTHING], environment)
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
