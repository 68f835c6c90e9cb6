"""Runs the command line as people do: as a process. Records for the logs it reads."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Collection
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flowtally.rows import Table
from flowtally.tally import TABLES
from flowtally.tally import Tally
from flowtally.times import timestamp
from flowtally.vocabulary import CAUSES
from flowtally.vocabulary import SCHEMA
from flowtally.vocabulary import STATUS_TAGS
from flowtally.vocabulary import error_fields
from flowtally.vocabulary import status_tag

Record = dict[str, Any]

FAILURES = tuple(cause for cause, known in CAUSES.items() if known.error)
"""The causes of what is a failure; what a client cancelled is none."""

BEGIN = 1_767_323_045
"""2026-01-02T03:04:05Z, when `start` says that a session begins."""

HOSTILE = "\x1b]0;owned\x07\x9b31m\u202e]]><x>&amp;\ufffe\x00\ud800\r\n"
"""Control characters, what means something to XML, and what XML cannot hold; in a log as JSON
escapes."""


def run(
    *arguments: str | Path, stdin: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[str]:
    """`flowtally` with these arguments, on a terminal of 100 columns."""
    command = [sys.executable, "-m", "flowtally", *map(str, arguments)]
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, "COLUMNS": "100", **environment},
    )
    return subprocess.CompletedProcess(
        command, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def lines(*records: Record) -> bytes:
    """A log. The records of each session are numbered in their order where they have no `seq`."""
    return b"".join(json.dumps(record).encode() + b"\n" for record in numbered(*records))


def numbered(*records: Record) -> list[Record]:
    """The records with their `seq`; a checkpoint that does not say so holds all before it."""
    last: dict[str, int] = {}
    found = []
    for record in records:
        before = last.get(record["session"], 0)
        upto = {"upto": before} if record["type"] == "stats" else {}
        found.append({"seq": before + 1, **upto, **record})
        last[record["session"]] = max(before, found[-1]["seq"])
    return found


def start(session: str = "00000001", second: float = 0) -> Record:
    """The beginning of a session."""
    return {
        "type": "session_start",
        "session": session,
        "time": timestamp(BEGIN + second),
        "schema": SCHEMA,
    }


def answered(status: int = 200, second: float = 0, **fields: Any) -> Record:
    """A complete response."""
    tag = STATUS_TAGS.get(status) or status_tag(status)
    return {**_flow(second), **tag, **fields}


def failed(cause: str = "connection_refused", second: float = 0, **fields: Any) -> Record:
    """A flow that failed."""
    return {**_flow(second), "outcome": "error", **_failure(cause), **fields}


def cancelled(second: float = 0, **fields: Any) -> Record:
    """A flow that its client ended of its own will, before there was a response."""
    return {**_flow(second), "outcome": "cancelled", **_failure("client_cancelled"), **fields}


def answer(second: float = 0, challenge: int = 401, **fields: Any) -> Record:
    """A request with the credentials that an earlier one, the flow "asked", was asked for."""
    return answered(200, second, **{"answers": "asked", "challenge": challenge, **fields})


def event(cause: str = "client_tls_rejected", second: float = 0, **fields: Any) -> Record:
    """A failure without a flow."""
    return {
        "type": "event",
        "session": "00000001",
        "time": timestamp(BEGIN + second),
        "client": "127.0.0.1",
        "client_port": 50_000,
        "host": "pinned.example",
        "port": 443,
        **_failure(cause),
        **fields,
    }


def final(*records: Record, session: str = "") -> Record:
    """The final checkpoint of a session that has these records, all of it in one record.
    `session`: its id, where it is not that of the records.

    The sizes vouch for no part of a file, so whoever reads it looks at every line.
    """
    found = tally(*records)
    span = {"first": found.first, "last": found.last} if found.first else {}
    return {
        "type": "stats",
        "session": session or (records[0]["session"] if records else "00000001"),
        "time": timestamp(BEGIN),
        "checkpoint": 1,
        "part": 1,
        "parts": 1,
        "dropped": found.dropped,
        **span,
        "final": True,
        "log_bytes": 0,
        "checkpoint_bytes": 0,
        "rows": list(found.to_rows()),
    }


def tally(*records: Record) -> Tally:
    """The fold over records."""
    found = Tally()
    for record in records:
        found.add(record)
    return found


def limited(limit: int, *names: str) -> tuple[Table, ...]:
    """The tables of the statistics, those of these names (or all) with so few rows a group that
    they overflow; for a test to put in the place of `flowtally.tally.TABLES`."""
    return tuple(
        table._replace(limit=limit) if not names or table.name in names else table
        for table in TABLES
    )


def _flow(second: float) -> Record:
    return {
        "type": "flow",
        "session": "00000001",
        "time": timestamp(BEGIN + second),
        "flow": str(second),
        "kind": "http",
        "client": "127.0.0.1",
        "client_port": 50_000,
        "method": "GET",
        "url": "http://shop.example/cart/17",
        "host": "shop.example",
        "port": 80,
        "request_bytes": 100,
        "response_bytes": 1500,
        "wait_ms": 20.0,
        "duration_ms": 25.0,
    }


def _failure(cause: str) -> Record:
    return {
        **error_fields(cause),
        "cause": cause,
        "side": CAUSES[cause].side,
    }


def on_terminal(
    *command: str | Path,
    columns: int = 100,
    streams: Collection[str] = ("stdout", "stderr"),
    environment: Mapping[str, str] | None = None,
) -> tuple[int, str, str]:
    """Runs a command with some of its streams on a terminal; returns its exit status, what the
    terminal was sent, and what came on the streams that are pipes."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    inherited = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    ends: Mapping[str, Any] = {
        name: theirs if name in streams else subprocess.PIPE for name in ("stdout", "stderr")
    }
    with subprocess.Popen(
        list(map(str, command)),
        stdin=subprocess.DEVNULL,
        env={**inherited, **(environment or {})},
        **ends,
    ) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123
            while chunk := terminal.read(65536):  # EIO once nobody has it open any more
                shown += chunk
        piped = b"".join(stream.read() for stream in (process.stdout, process.stderr) if stream)
    return process.returncode, shown.decode().replace("\r\n", "\n"), piped.decode()
