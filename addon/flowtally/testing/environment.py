"""The environment of this process, changed for a while."""

from __future__ import annotations

import os
from collections.abc import Mapping


def difference(environment: Mapping[str, str]) -> dict[str, str | None]:
    """What has to be changed to make `os.environ` the same as another environment: variable →
    value, None where there is to be none."""
    names = os.environ.keys() | environment.keys()
    return {
        name: environment.get(name)
        for name in names
        if os.environ.get(name) != environment.get(name)
    }


class Changed:
    """Variables of `os.environ` that have other values until `restore`."""

    def __init__(self, values: Mapping[str, str | None]) -> None:
        """`values`: None where there is to be no such variable."""
        self._values = dict(values)
        self._before = {name: os.environ.get(name) for name in values}
        for name, value in values.items():
            _set(name, value)

    def restore(self) -> None:
        """Undo it, but for what somebody else has changed since."""
        for name, value in self._values.items():
            if os.environ.get(name) == value:
                _set(name, self._before[name])


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
