"""Sessions of the addon's own, within an experiment: their records, and checkpoints as they are
wanted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from flowtally.session import Session


def flow_record(session: str, number: int, padding: str = "") -> dict[str, Any]:
    """A record of a flow; `padding` makes it longer."""
    return {
        "type": "flow",
        "session": session,
        "time": "2026-01-02T03:04:05.000Z",
        "flow": f"00000000-0000-4000-8000-{number:012}",
        "kind": "http",
        "outcome": "status",
        "status": 200,
        "band": "Success",
        "description": f"OK{padding}",
    }


@contextmanager
def often() -> Iterator[None]:
    """Meanwhile a checkpoint is due whenever there is something new, and each row is a part of its
    own."""
    with (
        mock.patch.multiple("flowtally.session", LEAST_GROWTH=0, SHARE=1e9),
        mock.patch("flowtally.session.ROWS_OF_A_LINE", 1),
    ):
        yield


def write_checkpoint(session: Session) -> None:
    """Write all of one that is due."""
    while session.step():
        pass
