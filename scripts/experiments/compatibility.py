"""Compatibility: every release of mitmproxy, its built-in addons, its front ends and its modes.

What is done: for each release of mitmproxy from 11.0.2 on that pip finds, on each Python here that
it supports, an environment is made; in it run the tests that meet mitmproxy (faults, HTTP/3,
console in tmux, mitmweb, its texts; on all but a release's newest Python a few faults), and its
texts are compared with what flowtally knows. With the
mitmproxy of the laboratory, each built-in addon is made to act before and after flowtally, and each
mode gets good requests. `local` mode is not tried: it redirects other programs of the machine.

What is bounded: the releases by what pip finds, an installation by 600 s, the tests of one by
900 s, requests by count. Quick: the oldest release and the last of each major version with a few
faults; addons only after flowtally; 5 requests a mode.

How it can fail: a test fails twice, a text of mitmproxy's is unknown, the log does not hold what a
client saw, an environment cannot be made.
"""

from __future__ import annotations

from pathlib import Path

from ._builtin import try_builtin
from ._modes import try_modes
from ._releases import try_releases
from .result import Result


def run(quick: bool, folder: Path, result: Result) -> None:
    """Does all of it."""
    parts = {"modes": try_modes, "addons": try_builtin, "releases": try_releases}
    for name, part in parts.items():
        place = folder / name
        place.mkdir()
        try:
            part(quick, place, result)
        except Exception as error:  # the others are tried all the same
            result.failures.append(f"{name}: it did not end: {error!r:.600}")
