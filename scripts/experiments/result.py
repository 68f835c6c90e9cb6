"""What an experiment finds, and how it is run.

An experiment is a module here, `NAME.py`, whose docstring says what is done, what is bounded and
how it can fail, with one function:

    def run(quick: bool, folder: Path, result: Result) -> None

`quick`: in some minutes at most. `folder`: a temporary folder of its own, empty. `result`: what is
found goes into it at once, so that it is there however the experiment ends. The interpreter is the
one whose mitmproxy is tried, so a module may import mitmproxy, flowtally and `lab`, which is
tests/lab. Modules whose name begins with `_` are what experiments share.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field

NOT_TRIED = "not tried"
"""What a figure begins with where this machine lacks what it takes."""


@dataclass
class Result:
    """What came of an experiment."""

    figures: list[tuple[str, str]] = field(default_factory=list)
    """What was measured, its value with unit."""
    failures: list[str] = field(default_factory=list)
    """What was not as it must be, a sentence each; empty: passed."""
