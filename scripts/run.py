"""mitmdump with flowtally, and where to point a client: what scripts/run.sh runs.

    python scripts/run.py [mitmdump arguments]

It is mitmdump itself that runs here, so that the terminal, its signals and standard output are its
own. It listens on 127.0.0.1:8080 unless the arguments, or config.yaml, say otherwise.
"""

from __future__ import annotations

import sys

from flowtally.farewell import is_wanted
from flowtally.launch import mitmdump
from mitmproxy import ctx

PORT = 8080


class Hints(mitmdump.Companion):
    """Says what to do with the proxy once it answers; with -q, or without a server, nothing."""

    def begin(self) -> None:
        """Print the hints."""
        addresses = [f"{host}:{port}" for host, port in mitmdump.addresses()]
        if addresses and is_wanted(ctx.options):
            lines = hints(addresses, ctx.options.mode, mitmdump.log_of(self.flowtally))
            print("", *lines, "", sep="\n", file=sys.stderr, flush=True)


def hints(addresses: list[str], modes: list[str], log: str) -> list[str]:
    """What there is to know about a proxy that listens on these addresses, in these modes."""
    if all(mode.partition("@")[0] == "regular" for mode in modes):
        lines = [
            f"Proxy for browsers and apps, http and https:  {addresses[0]}",
            "Certificate for https, through the proxy:     http://mitm.it",
            "Try it:                                       "
            f"curl -x http://{addresses[0]} http://example.com/",
        ]
    else:
        lines = [f"mitmdump --mode {' --mode '.join(modes)}: {', '.join(addresses)}"]
    return [
        *lines,
        f"Session log:                                  {log}",
        "Ctrl-C ends the session and prints its summary.",
    ]


if __name__ == "__main__":
    mitmdump.run(sys.argv[1:], Hints, PORT)
