"""Looks at the live page of a long session in a real Chromium.

Done: a mitmdump with flowtally is asked for many requests over HTTP/1, of which some fail; then a
browser opens its live page. How long that takes, how long after a click on a flow and on an
incident the page shows what was asked for, and what CPU time the proxy spends on the page: in its
first half minute, in which it learns older flows and nobody else asks, and while requests come as
fast as the proxy can. Then it is what a round takes more than one beside it in which the page is
paused and asks for nothing.
Bounded: 20,000 requests when quick and 10 pairs of rounds of 2,000, else 100,000 and 40.
Fails: the page takes longer than a second to open, or a click longer than a tenth of one, or to be
looked at costs the proxy more than 2 %: of a core in the first half minute, or of its CPU time by
the median of the rounds if the interval in which it lies (99 % sure) does, too.
Needs Playwright and a Chromium.
"""

from __future__ import annotations

import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from lab import browser as lab
from lab import clients
from lab.proxy import ADDON
from lab.servers import DeadPort

from ._client import Load
from ._client import ask
from ._origin import Ports
from ._origin import origin
from .load import CONNECTIONS
from .load import Variant
from .load import interval
from .result import Result

if TYPE_CHECKING:
    from playwright.sync_api import Page

KNOWN = {True: 20_000, False: 100_000}
"""Requests of the session before anybody looks; if it is quick or not."""
ROUNDS = {True: 10, False: 40}
REQUESTS = 2000
"""Of a round."""
REFUSED = 20
"""Requests among them that a server refuses, so that there is an incident."""
OPENS, ANSWERS, COSTS = 1.0, 0.1, 0.02
"""What is allowed: seconds until rows of the list stand there, seconds after a click, and the share
of its time that the proxy spends on the page."""
ALONE = 30
"""Seconds in which nobody but the page asks."""

CLICK = """
([clicked, shown]) => new Promise((resolve, reject) => {
  const begun = performance.now();
  const isThere = (element) => element.getClientRects().length > 0;
  const ready = () => [...document.querySelectorAll(shown)].some(isThere);
  const look = () => ready() ? resolve(performance.now() - begun)
    : performance.now() - begun > 10000 ? reject(shown) : requestAnimationFrame(look);
  document.querySelector(clicked).click();
  look();
})
"""
"""Clicks on what is named first; ms until what is named second is there to be painted."""


def run(quick: bool, folder: Path, result: Result) -> None:
    """Fill, open, click, compare."""
    found = next(filter(None, map(shutil.which, lab.NAMES)), None)
    if found is None:
        result.failures.append("no Chromium is installed")
        return
    with origin(folder) as ports, lab.launch(Path(found)) as browser:
        options = ["-q", "-s", str(ADDON), "--set", f"flowtally_log={folder / 'session.jsonl'}"]
        variant = Variant(options, folder, ports)
        try:
            with ThreadPoolExecutor(1) as pool:  # an event loop of the browser's runs in this one
                pool.submit(_fill, variant, ports, KNOWN[quick]).result()
                with lab.opened(browser, **lab.through(variant.ports["regular"])) as page:
                    _open(page, KNOWN[quick], variant, result)
                    _click(page, result)
                    _compare(variant, ports, ROUNDS[quick], pool, page, result)
        finally:
            variant.stop()


def _fill(variant: Variant, ports: Ports, requests: int) -> None:
    port = variant.ports["regular"]
    ask(Load.REGULAR, port, ports, requests - REFUSED, CONNECTIONS)
    with DeadPort() as dead:
        for _ in range(REFUSED):
            clients.exchange(port, clients.absolute_get(dead))


def _open(page: Page, known: int, variant: Variant, result: Result) -> None:
    """Open the page, and leave it alone for a while."""
    before, begun = variant.cpu(), time.perf_counter()
    page.goto("http://flowtally.test/")
    page.locator("#flows .flow").first.wait_for()
    took = time.perf_counter() - begun
    result.figures.append((f"{known:,} flows: until rows of the list stand there", f"{took:.2f} s"))
    if took > OPENS:
        result.failures.append(f"the page took {took:.2f} s to open")
    page.wait_for_timeout(1e3 * ALONE)
    share = (variant.cpu() - before) / (time.perf_counter() - begun)
    told = f"{100 * share:.1f} % of a core"
    result.figures.append((f"what the proxy spends on it in its first {ALONE} s", told))
    if share > COSTS:
        result.failures.append(f"the page costs {told} in its first {ALONE} s")


def _click(page: Page, result: Result) -> None:
    """Click on a flow and on an incident; the page is as it was, then."""
    for name, clicked, shown in (
        ("a flow", "#flows .flow", "#flow"),
        ("an incident", ".problem .pick", ".chip"),
    ):
        took = page.evaluate(CLICK, [clicked, shown]) / 1e3
        result.figures.append((f"after a click on {name}", f"{1e3 * took:.0f} ms"))
        if took > ANSWERS:
            result.failures.append(f"a click on {name} was answered after {took:.3f} s")
    page.locator(".chip").click()


def _compare(
    variant: Variant,
    ports: Ports,
    rounds: int,
    pool: ThreadPoolExecutor,
    page: Page,
    result: Result,
) -> None:
    """Ask on, while the page is paused and while it is not."""

    def asked() -> float:
        return ask(Load.REGULAR, variant.ports["regular"], ports, REQUESTS, CONNECTIONS).seconds

    shares = []
    paused = False
    for turn in range(rounds):
        costs = {}
        for pause in (True, False) if turn % 2 else (False, True):
            if pause != paused:
                page.locator("#pause").click()
                paused = pause
                page.wait_for_timeout(500)
            before, asking = variant.cpu(), pool.submit(asked)
            while not asking.done():
                page.wait_for_timeout(20)  # in which the browser's events are dealt with
            asking.result()
            costs[pause] = variant.cpu() - before
        shares.append(costs[False] / costs[True] - 1)
        print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
    low, high = interval(shares)
    told = f"{100 * median(shares):+.1f} % CPU time ({100 * low:+.1f} to {100 * high:+.1f})"
    result.figures.append(("what the page costs the proxy while it is busy", told))
    if median(shares) > COSTS and low > COSTS:
        result.failures.append(f"to be looked at costs the busy proxy {told}")
