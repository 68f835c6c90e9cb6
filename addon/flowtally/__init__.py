"""flowtally: tags every mitmproxy flow with what became of it, and keeps the statistics.

The way of the data is one line: hook → tag → record → (mark, journal, tally) → report.
"""

__version__ = "0.1.0"
