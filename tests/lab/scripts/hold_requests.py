"""Another user's script, loaded before the addon: holds each request, as a breakpoint does."""

import asyncio

from mitmproxy import http

SECONDS = 2.0


async def request(_: http.HTTPFlow) -> None:
    await asyncio.sleep(SECONDS)
