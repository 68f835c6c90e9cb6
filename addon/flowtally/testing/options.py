"""What the user asks of the pytest plugin: options, settings of the ini file, markers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from typing import NamedTuple

import pytest

from ..budgets import Budget
from ..budgets import BudgetError
from ..budgets import UnknownNameError
from ..budgets import number
from ..budgets import parse
from ..launch.through import Wanted
from ..redaction import printable
from ..report import budgets_text


class Options(NamedTuple):
    """Options of the command line, and beneath them the settings of the ini file."""

    proxy: Wanted
    html: Path | None
    budgets: tuple[Budget, ...]
    """What every test is held against."""


def options(config: pytest.Config) -> Options:
    """Raises: pytest.UsageError, where what was given makes no sense."""
    log = _path(config, "flowtally_log")
    html = _path(config, "flowtally_html")
    settings = [*config.getini("flowtally_set"), *_given(config, "flowtally_set")]
    for setting in settings:
        if "=" not in setting:
            raise pytest.UsageError(f"flowtally_set {setting!r}: allowed is NAME=VALUE")
    trusted = [Path(_below(config.rootpath, path)) for path in config.getini("flowtally_trust")]
    trusted += [Path(path).absolute() for path in _given(config, "flowtally_trust")]
    insecure = config.getoption("flowtally_insecure_upstream")
    proxy = Wanted(
        log,
        # mitmproxy wants each of them once.
        tuple({setting.partition("=")[0].strip(): setting for setting in settings}.values()),
        bool(insecure or config.getini("flowtally_insecure_upstream")),
        tuple(trusted),
    )
    try:
        budgets = merged(
            parse(config.getini("flowtally_max"), config.getini("flowtally_min"), ()),
            parse(_given(config, "flowtally_max"), _given(config, "flowtally_min"), ()),
        )
    except BudgetError as error:
        raise pytest.UsageError(f"flowtally: {said(error)}") from None
    return Options(proxy, Path(html) if html else None, budgets)


def _given(config: pytest.Config, name: str) -> Sequence[str]:
    return config.getoption(name) or ()


def _path(config: pytest.Config, name: str) -> str:
    """A path as text, for whether it ends with a slash matters. One of the ini file is below the
    root folder, one of the command line below that in which pytest was started."""
    if given := config.getoption(name):
        return _below(config.invocation_params.dir, given)
    setting = config.getini(name)
    return _below(config.rootpath, setting) if setting else ""


def _below(folder: Path, path: str) -> str:
    return os.path.join(folder, os.path.expanduser(path))  # noqa: PTH111, PTH118


# --- budgets ---


def marked(markers: Iterable[pytest.Mark], defaults: tuple[Budget, ...]) -> tuple[Budget, ...]:
    """The budgets of a test. `markers`: the nearest first; each budget replaces one of the same
    name and bound that is farther away, as do all those of `defaults`. Raises: BudgetError."""
    budgets = defaults
    for marker in reversed(list(markers)):
        budgets = merged(budgets, _of_marker(marker))
    return budgets


def _of_marker(marker: pytest.Mark) -> tuple[Budget, ...]:
    unknown = marker.kwargs.keys() - {"max", "min"}
    if marker.args or unknown:
        wrong = ", ".join([*map(repr, marker.args), *(f"{name}=…" for name in sorted(unknown))])
        raise BudgetError(f"{wrong}: allowed are max={{NAME: NUMBER}} and min={{NAME: NUMBER}}")
    given = marker.kwargs
    return parse(_texts("max", given.get("max", {})), _texts("min", given.get("min", {})), ())


def _texts(bound: str, given: Any) -> list[str]:
    if not isinstance(given, Mapping):
        raise BudgetError(
            f"{bound}={given!r:.80}: allowed is a dict, such as {{'Server error': 0}}"
        )
    return [f"{name}={limit}" for name, limit in given.items()]


def merged(budgets: tuple[Budget, ...], nearer: tuple[Budget, ...]) -> tuple[Budget, ...]:
    """All budgets, of the same name and bound the nearer one. Raises: BudgetError, where none can
    hold."""
    found = {(budget.name, budget.bound): budget for budget in (*budgets, *nearer)}
    texts: dict[str, list[str]] = {"max": [], "min": []}
    for budget in found.values():
        texts[budget.bound].append(f"{budget.name}={number(budget.limit)}")
    return parse(texts["max"], texts["min"], ())


def said(error: BudgetError) -> str:
    """What is wrong with a budget, and of an unknown name which there are."""
    lines = [printable(str(error).removeprefix("--"), 1000)]
    if isinstance(error, UnknownNameError):
        lines = [f"{lines[0]} There are", *budgets_text.known()]
    return "\n".join(lines)
