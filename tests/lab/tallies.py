"""Tallies, to be compared."""

from __future__ import annotations

import json
from typing import Any

from flowtally.tally import Tally


def plain(tally: Tally) -> Any:
    """All that a tally says, in an order of its own."""
    rows = sorted(json.dumps(row, sort_keys=True) for row in tally.to_rows())
    marked = {name: sorted(rows.at_least) for name, rows in tally.tables.items() if rows.at_least}
    return rows, tally.dropped, tally.first, tally.last, marked
