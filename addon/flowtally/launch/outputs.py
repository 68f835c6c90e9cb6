"""What is wanted of a session once it has ended: budgets held, files written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import NamedTuple

if TYPE_CHECKING:
    from ..budgets import Budget


class Outputs(NamedTuple):
    """Budgets and files."""

    budgets: Sequence[Budget] = ()
    junit: Path | None = None
    html: Path | None = None
    markdown: Path | None = None
    force: bool = False
    """Files are overwritten, whoever wrote them."""

    @property
    def files(self) -> bool:
        """Whether any file is wanted."""
        return bool(self.junit or self.html or self.markdown)
