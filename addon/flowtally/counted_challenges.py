"""Challenges (401, 407) that were counted, and what is known of them when they are answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .vocabulary import CHALLENGE_CODES
from .vocabulary import STATUS_TAGS
from .vocabulary import status_tag

Record = Mapping[str, Any]

MOST = 4096
"""How many challenges are remembered; of more, the oldest pass for unanswered."""
_ASKED = frozenset(("kind", "time", "client", "method", "url", "host", "port"))


class CountedChallenges:
    """The challenges of a session that were counted one by one, and may still be answered.

    An answer to another one, which a filter left out or no log has, takes nothing off what is
    counted: it would hide a problem that has nothing to do with it.
    """

    __slots__ = ("_by_flow", "narrowed", "resumed")

    def __init__(
        self,
        by_flow: Mapping[str, dict[str, Any]] | None = None,
        resumed: bool = False,
        narrowed: bool = False,
    ) -> None:
        self._by_flow = dict(by_flow or {})
        self.resumed = resumed
        """The counting began with a checkpoint, which does not have challenges one by one."""
        self.narrowed = narrowed
        """Not all is counted, and the answer may be later than all that is."""

    def add(self, record: Record) -> None:
        """Remember a flow that was counted, if it got a challenge."""
        if record.get("status") in CHALLENGE_CODES and "flow" in record:
            if len(self._by_flow) >= MOST:
                del self._by_flow[next(iter(self._by_flow))]
            self._by_flow[record["flow"]] = _asked(record, record["status"])

    def answered_by(self, record: Record) -> Record | None:
        """The challenge that a request answered, as far as it decides where it was counted; None
        where it was not, or was answered before. Its time is that of the answer: that is all that
        is known where a checkpoint lies between them, and must not decide what is counted."""
        challenge = self._by_flow.pop(record["answers"], None)
        if challenge is None:
            return challenge_of(record) if self.resumed else None
        return challenge if self.narrowed else challenge | {"time": record["time"]}

    def to_data(self) -> dict[str, Any]:
        """What they can be made of again."""
        return {
            "by_flow": self._by_flow,
            "resumed": self.resumed,
            "narrowed": self.narrowed,
        }


def challenge_of(record: Record) -> Record:
    """The challenge that a request answered, as far as that request tells: it was the same request,
    and got another answer.

    But for a CONNECT: where a proxy's challenge is answered in what is no plain http, the client
    had asked for the tunnel, of which the first flow in it tells.
    """
    status = record.get("challenge", 401)
    challenge = _asked(record, status) | {"kind": "http"}
    if status == 407 and not record.get("url", "").startswith("http://"):
        address = f"{record.get('host', '')}:{record.get('port')}"
        challenge |= {"kind": "connect", "method": "CONNECT", "url": address}
    return challenge


def _asked(record: Record, status: int) -> dict[str, Any]:
    """What was asked, by whom and when, and the answer to it."""
    asked = {name: record[name] for name in _ASKED & record.keys()}
    return asked | (STATUS_TAGS.get(status) or status_tag(status))
