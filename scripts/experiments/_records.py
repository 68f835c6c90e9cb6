"""The records of logs, read without flowtally: what its own reader forgives is found here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FIRST = b'{"type":"'
"""How each line of a log begins."""


def records_of(paths: list[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """The records of all files, and what is wrong with lines that are none: each may only be the
    beginning of one."""
    records, wrong = [], []
    for path in paths:
        for line in path.read_bytes().split(b"\n"):
            try:
                records.append(json.loads(line))
            except ValueError:
                begins = FIRST.startswith(line[: len(FIRST)])
                if not begins or FIRST in line[1:]:
                    wrong.append(f"a line that is no beginning of a record: {line[:200]!r}")
    return records, wrong


def accounts(records: list[dict[str, Any]]) -> tuple[int, int]:
    """How many records of all sessions are missing, by their numbers, and of how many of them
    `gap` records tell."""
    missing = told = 0
    for session in {record["session"] for record in records}:
        own = {record["seq"]: record for record in records if record["session"] == session}
        missing += max(own) - len(own)
        told += sum(record["dropped"] for record in own.values() if record["type"] == "gap")
    return missing, told
