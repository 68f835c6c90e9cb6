"""Fixtures of the live tests, and the rule for tools that are missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.laboratory import Laboratory

# On a build machine a missing tool is a fault of the machine, not a reason to test less.
CI = bool(os.environ.get("CI"))


@pytest.fixture(scope="session")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with Laboratory(tmp_path_factory.mktemp("laboratory")) as laboratory:
        yield laboratory


@pytest.fixture(scope="session")
def tool() -> Callable[[str], Path]:
    """Finds a program; without it the test is skipped, or fails when CI is set."""

    def find(name: str) -> Path:
        path = shutil.which(name)
        if path is not None:
            return Path(path)
        if CI:
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")

    return find
