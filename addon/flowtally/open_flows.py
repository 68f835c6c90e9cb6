"""The flows that are open: those that had a hook, and have no record yet."""

from __future__ import annotations

from typing import Any

from mitmproxy import dns
from mitmproxy import flow as mflow


class OpenFlows(dict[str, mflow.Flow]):
    """Flow id → flow. A dictionary, for every flow is put in and taken out."""

    def clients(self) -> set[Any]:
        """The addresses (`peername`) of the clients that have a flow here."""
        return {flow.client_conn.peername for flow in self.values()}

    def abandoned(self, created: float, gone: float) -> list[mflow.Flow]:
        """Flows that no hook will finish, though their client left at `gone` or before.

        mitmproxy tells nothing more of a DNS query without an answer, and of a flow that was killed
        while a hook of it was running. Flows created before `created` are left alone: they come
        from a file, where their client is long gone, and their hooks are still to come. All Unix
        times.
        """
        found = []
        for flow in self.values():
            left = flow.client_conn.timestamp_end
            if left is None or left > gone or flow.intercepted or flow.timestamp_created < created:
                continue
            if flow.error or not flow.live or is_unanswered_query(flow):
                found.append(flow)
        return found


def is_unanswered_query(flow: mflow.Flow) -> bool:
    """Whether a flow is a DNS query that nothing has become of."""
    return isinstance(flow, dns.DNSFlow) and not flow.response and not flow.error
