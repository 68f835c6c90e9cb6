"""Keeps failures that may yet reach a flow, until it is clear whether one claims them.

mitmproxy tells of a failed connection before it tells the flow that wanted it, if there is one. A
failure that also reaches a flow is recorded on the flow alone; the others become events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .vocabulary import Tag

Client = Any
"""A client's address (`peername`). Connections of a replayed flow have no other common name."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure without a flow, as far as one can see."""

    message: str
    """mitmproxy's text; a flow that fails with the same text is the one it belongs to."""
    time: float
    """When it happened, Unix time."""
    tag: Tag
    client: Client
    host: str = ""
    port: int | None = None


class Unclaimed:
    """Failures by client."""

    MAX_FAILURES_OF_A_CLIENT = 100

    def __init__(self) -> None:
        self._failures: dict[Client, list[Failure]] = {}

    def __bool__(self) -> bool:
        return bool(self._failures)

    def __contains__(self, client: Client) -> bool:
        return client in self._failures

    def add(self, failure: Failure) -> Failure | None:
        """Keep a failure; returns the one that has to go in its place, if any."""
        failures = self._failures.setdefault(failure.client, [])
        failures.append(failure)
        return failures.pop(0) if len(failures) > self.MAX_FAILURES_OF_A_CLIENT else None

    def claim(
        self, client: Client, message: str, destination: tuple[str, int] | None = None
    ) -> Failure | None:
        """A flow of this client failed with this message: forget what was said of it before, and
        return the last of that.

        `destination`: host and port, where the flow's text may be another addon's and says nothing.
        """
        failures = self._failures.get(client, [])
        # A connection that another addon forbade is told with a prefix on the flow.
        message = message.removeprefix("Connection killed: ")
        claimed: Failure | None = None
        left = []
        for failure in failures:
            if failure.message == message or (failure.host, failure.port) == destination:
                claimed = failure
            else:
                left.append(failure)
        if left:
            self._failures[client] = left
        else:
            self._failures.pop(client, None)
        return claimed

    def release(self, client: Client) -> list[Failure]:
        """The failures of a client of whom no more flows will come."""
        return self._failures.pop(client, [])

    def release_all(self) -> list[Failure]:
        """All failures, when the session ends."""
        failures = [failure for of_client in self._failures.values() for failure in of_client]
        self._failures.clear()
        return failures
