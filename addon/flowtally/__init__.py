"""flowtally: tags every mitmproxy flow with what became of it, and keeps the statistics.

The way of the data is one line: hook → classify → record → (mark, tally, journal) → report.
"""

__version__ = "0.1.0"
