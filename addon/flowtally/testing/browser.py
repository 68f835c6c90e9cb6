"""Playwright's pages go through the proxy, too: browsers do not look at the environment.

Where Playwright's plugin is there, this is a plugin of its own behind it; nothing of Playwright is
imported.
"""

from __future__ import annotations

from typing import Any

import pytest

from ..pytest_plugin import HOOKS
from .run import Run

ARGUMENTS = "browser_context_args"
"""The name of the fixture, and of the marker, with what Playwright makes a page's context from."""


@pytest.fixture(scope="session")
def browser_context_args(
    request: pytest.FixtureRequest, browser_context_args: dict[str, Any], browser_name: str
) -> dict[str, Any]:
    """The arguments of all contexts, where all tests go through; what a conftest.py sets, wins."""
    hooks: Any = request.config.pluginmanager.get_plugin(HOOKS)
    return {**browser_context_args, **_arguments(hooks.tests.run, browser_name)}


def send_through(item: pytest.Item, run: Run) -> None:
    """Send the pages of one test through, if it has any; what its own marker says, wins."""
    callspec = getattr(item, "callspec", None)
    browser_name = callspec.params.get("browser_name") if callspec else None
    if browser_name is None or not item.config.pluginmanager.hasplugin("playwright"):
        return
    own = item.get_closest_marker(ARGUMENTS)
    arguments = {**_arguments(run, browser_name), **(own.kwargs if own else {})}
    # The first one counts.
    item.add_marker(getattr(pytest.mark, ARGUMENTS)(**arguments), append=False)


def _arguments(run: Run, browser_name: str) -> dict[str, Any]:
    if not run.url or run.trouble:
        return {}
    proxy = {"server": run.url}
    if browser_name == "chromium":
        proxy["bypass"] = "<-loopback>"  # else localhost would be asked directly
    # The browser's end is at the proxy, which checks the servers' certificates.
    return {"proxy": proxy, "ignore_https_errors": True}
