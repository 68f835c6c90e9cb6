"""Playwright's pages go through the proxy, too: browsers do not look at the environment.

A plugin of its own, where Playwright's is there; it imports nothing of Playwright.
"""

from __future__ import annotations

from typing import Any

import pytest

from ..pytest_plugin import HOOKS


@pytest.fixture(scope="session")
def browser_context_args(
    request: pytest.FixtureRequest, browser_context_args: dict[str, Any], browser_name: str
) -> dict[str, Any]:
    """The arguments of every browser context, with the proxy; what a conftest.py sets, wins."""
    hooks: Any = request.config.pluginmanager.get_plugin(HOOKS)
    run = hooks.tests.run
    if not run.url or run.trouble:
        return browser_context_args
    proxy = {"server": run.url}
    if browser_name == "chromium":
        proxy["bypass"] = "<-loopback>"  # else localhost would be asked directly
    # The browser's end is at the proxy, which checks the servers' certificates.
    return {**browser_context_args, "proxy": proxy, "ignore_https_errors": True}
