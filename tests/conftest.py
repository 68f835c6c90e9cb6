"""Fixtures of the live tests, and the rule for tools that are missing."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from lab import browser as browser_module
from lab.laboratory import Laboratory
from lab.tls import Authority

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# How long an example takes says something about the machine only.
settings.register_profile("flowtally", deadline=None)
settings.load_profile("flowtally")

# On a build machine a missing tool is a fault of the machine, not a reason to test less.
CI = bool(os.environ.get("CI"))

# Under nohup, or in the background of a script, these are ignored, and whatever the tests start
# would ignore them, too.
for _ignored, _usual in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
):
    if signal.getsignal(_ignored) is signal.SIG_IGN:
        signal.signal(_ignored, _usual)


@pytest.fixture(scope="session")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with Laboratory(tmp_path_factory.mktemp("laboratory")) as laboratory:
        yield laboratory


@pytest.fixture(scope="session")
def confdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One CA for all proxies: making one takes longer than the rest of a start."""
    return tmp_path_factory.mktemp("confdir")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA for servers."""
    return Authority.create(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def tool() -> Callable[..., Path]:
    """Finds a program by its names; without it the test is skipped, or fails when CI is set."""

    def find(*names: str) -> Path:
        for name in names:
            path = shutil.which(name)
            if path is not None:
                return Path(path)
        if CI:
            pytest.fail(f"{names[0]} is not installed")
        pytest.skip(f"{names[0]} is not installed")

    return find


@pytest.fixture(scope="module")
def browser(tool: Callable[..., Path]) -> Iterator[Browser]:
    """A Chromium."""
    if not CI:
        pytest.importorskip("playwright", reason="Playwright is not installed")
    with browser_module.launch(tool(*browser_module.NAMES)) as browser:
        yield browser
