"""What is said and written once the command or the browser has ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .. import terminal
from ..budgets import IN_PART
from ..budgets import Result
from ..budgets import evaluate
from ..budgets import hold
from ..budgets import not_told
from ..budgets import read_in_part
from ..logs import Logs
from ..logs import Session
from ..logs import read
from ..report import budgets_text
from ..report import junit
from ..report import markdown
from ..report import sessions_text
from ..report import text
from ..report.digest import digest
from ..report.layout import indented
from ..report.layout import terminal_width
from ..report.paint import paint_for
from ..tally import Tally
from ..terminal import CANNOT_BE_TOLD
from ..terminal import EXIT_STATUS
from .outputs import Outputs
from .proxy import Proxy
from .proxy import Ready

SUMMARY_FILE = "GITHUB_STEP_SUMMARY"
"""The variable in which a CI names the file for what its users are to see (docs.github.com,
"Workflow commands", "Adding a job summary")."""


ANSWERED_IN_PLACE = (
    "Where a server failed, mitmproxy may have answered 502 in its place, which a client can take "
    "for an answer."
)


class File(NamedTuple):
    """A file that was asked for."""

    path: Path
    is_ours: terminal.IsOurs
    content: Callable[[], bytes]


def can_write(outputs: Outputs) -> bool:
    """Whether the files that are asked for can be written, as far as that can be told; says why
    not."""
    wanted = _files(outputs, Logs(), Path(), (), "")
    return all(terminal.can_write_file(file.path, file.is_ours, outputs.force) for file in wanted)


def tell(
    proxy: Proxy,
    outputs: Outputs,
    what: str,
    why_nothing: Callable[[], Sequence[str]],
    environment: Mapping[str, str],
    failed: bool = False,
) -> int:
    """End the proxy, say what became of the session, write what is wanted; returns the exit status
    where `what`, the command, succeeded. `why_nothing`: sentences for where nothing came through.
    `failed`: it did not succeed.
    """
    ready = proxy.ready
    died = not proxy.running
    died |= proxy.stop() != 0
    if words := proxy.last_words():
        _say(["", "mitmdump said:", *(f"  {line}" for line in words)])
    if died:
        terminal.complain("the proxy ended before the command: what came later is not counted")
    session = _read(ready)
    if session is None:
        return CANNOT_BE_TOLD
    tally = session.tally
    width = terminal_width()
    if came_through(tally):
        _say(text.ending(tally, ready.log, width, paint_for(sys.stderr)), painted=True)
        if hints := hints_on(tally, failed):
            _say(["", *(line for hint in hints for line in indented(hint, width, ""))])
    else:
        _say(text.nothing(why_nothing(), ready.log, width))
    found = Logs()
    found.sessions[session.id] = session
    for note in sessions_text.notes(found):
        terminal.tell(note)
    results = evaluate(outputs.budgets, tally, missing=session.missing)
    if results:
        _say(["", *budgets_text.text(results, width)])
    _append_digest(tally, results, ready.log, environment)
    files = _files(outputs, found, ready.log, results, what)
    # A list: one that fails keeps none of the others from being written.
    written = [
        terminal.write_file(file.path, file.content(), file.is_ours, outputs.force)
        for file in files
    ]
    return status(results, whole=_is_whole(session, results, died), written=all(written))


def hints_on(tally: Tally, failed: bool) -> list[str]:
    """What a person would otherwise wonder about: what the command made of it, and which options
    help. `failed`: the command did."""
    causes = {cause for _, cause, _ in tally["causes"]}
    totals = tally.totals()
    hints = []
    if "tls_certificate_error" in causes:
        hints.append(
            "For a test server's certificate: --trust FILE, or --insecure-upstream, also where the "
            "client itself was told not to check (curl -k, verify=False)."
        )
    if totals.failures:
        hints.append(ANSWERED_IN_PLACE)
    if failed and totals.cancelled and not totals.problems:
        hints.append(
            "The command failed, and left requests before flowtally_timeout was over, so they "
            "count as cancelled; with --set flowtally_timeout=1, one that had waited for a second "
            "is a timeout."
        )
    return hints


def came_through(tally: Tally) -> bool:
    """Whether anything did, if only the traffic that systems make on their own."""
    totals = tally.totals()
    return bool(totals.attempts or totals.background)


def status(results: Sequence[Result], *, whole: bool, written: bool) -> int:
    """The exit status of a command that succeeded. `whole`: all of the session is known;
    `written`: all files could be."""
    if not written:
        return CANNOT_BE_TOLD
    return EXIT_STATUS[hold(results, whole)]


def _read(ready: Ready) -> Session | None:
    """What the log holds of the session; other sessions may share it. Says why there is nothing."""
    name = os.fspath(ready.log)
    try:
        sessions = read([(name, ready.log)]).sessions
    except OSError as error:
        terminal.complain(f"{name}: {error.strerror or error}")
        return None
    if ready.session not in sessions:
        terminal.complain(f"{name}: no flowtally session of this run")
    return sessions.get(ready.session)


def _is_whole(session: Session, results: Sequence[Result], died: bool) -> bool:
    """Whether all is known; says why not."""
    if read_in_part(session.tally):
        terminal.complain(IN_PART)
        return False
    if not session.final and not died:
        terminal.complain(f"session {session.id} did not end cleanly")
    if lacking := not_told(results, 0, session.missing + session.tally.dropped):
        terminal.complain(lacking)
    return session.final and not lacking and not died


def _files(
    outputs: Outputs, found: Logs, log: Path, results: Sequence[Result], what: str
) -> list[File]:
    files = []
    if outputs.html is not None:
        from ..report import html  # Jinja2 takes a while to load

        def page() -> bytes:
            about = html.About(
                sessions_text.sentences(found),
                sessions_text.notes(found),
                sum(not session.final for session in found.sessions.values()),
                html.flows_of_sessions(dict.fromkeys(found.sessions, log)),
            )
            return html.page(found.merged(), about).encode("utf-8", "replace")

        files.append(File(outputs.html, html.is_ours, page))
    if outputs.markdown is not None:

        def report() -> bytes:
            lines = markdown.report(found.merged(), sessions_text.sentences(found))
            return "".join(f"{line}\n" for line in lines).encode()

        files.append(File(outputs.markdown, markdown.is_ours, report))
    if outputs.junit is not None:
        files.append(
            File(
                outputs.junit,
                junit.is_ours,
                lambda: junit.junit(results, [what], found.sessions),
            )
        )
    return files


def _append_digest(
    tally: Tally, results: Sequence[Result], log: Path, environment: Mapping[str, str]
) -> None:
    """Where a CI shows its users a file, problems go there too."""
    path = environment.get(SUMMARY_FILE)
    broken = [result for result in results if not result.holds]
    if not path or not (broken or tally.totals().problems):
        return
    lines = digest(tally, broken, [os.fspath(log)])
    try:
        with Path(path).open("ab") as file:
            file.write("".join(f"{line}\n" for line in ["", *lines]).encode())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        terminal.complain(f"{SUMMARY_FILE}={path}: cannot be written: {why}")


def _say(lines: Sequence[str], painted: bool = False) -> None:
    """Write to standard error. `painted`: the lines are fit for a terminal as they are."""
    if not painted:
        for line in lines:
            terminal.tell(line)
        return
    with suppress(OSError, ValueError):  # closed: nobody there to read it
        print(*lines, sep="\n", file=sys.stderr, flush=True)
