"""In mitmdump's process: which test each flow belongs to, and when a test's flows have ended."""

from __future__ import annotations

import asyncio
from typing import Any

from ..current_test import CurrentTest
from ..open_flows import OpenFlows
from ..open_flows import began

SETTLE_TIMEOUT = 0.3
"""Seconds that a test's open flows are waited for."""
TURNS = 20
"""Turns of the event loop in which what clients have sent by now reaches the hooks: from a socket
to the last hook of a failed handshake it takes mitmproxy less than ten."""


class Attribution:
    """The addon of a test run. Behind the one that records, so that a flow has its record when
    this one hears of its end."""

    name = "flowtally_attribution"

    def __init__(self, flows: OpenFlows) -> None:
        self.tests = CurrentTest()
        self._flows = flows
        self._ended = asyncio.Event()

    def _ends(self, *_: Any) -> None:
        self._ended.set()

    response = error = websocket_end = http_connected = http_connect_error = _ends
    tcp_end = tcp_error = udp_end = udp_error = dns_response = dns_error = _ends

    async def settle(self, test: str) -> int:
        """Wait until no flow of a test is open, but not for long; returns how many still are.

        What clients have sent before, such as the end of their connection, is taken in first.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + SETTLE_TIMEOUT
        while True:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            self._ended.clear()
            count = self._open(test)
            left = until - loop.time()
            if not count or left <= 0:
                return count
            try:
                async with asyncio.timeout(left):
                    await self._ended.wait()
            except TimeoutError:
                pass  # it is looked once more

    def _open(self, test: str) -> int:
        at = self.tests.at
        return sum(flow.live and at(began(flow)) == test for flow in self._flows.values())
