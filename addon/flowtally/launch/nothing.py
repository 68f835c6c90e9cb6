"""What to say where a command ran and nothing came through the proxy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from itertools import islice

from ..redaction import printable
from ..vocabulary import HTTP_CLIENTS

MAX_LINES = 12
MAX_SECONDS = 2.0
"""How long a program may take to tell its version."""

NODE = ((22, 21), (24, 5))
"""From which versions on Node's fetch and http use a proxy of the environment: of the line 22, and
of all later ones (Node.js, Learn, Enterprise Network Configuration)."""


def why_nothing(command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Why nothing may have come through the proxy, most likely first; at most `MAX_LINES` lines.

    `command`: what was run; `environment`: with which. Asks Node for its version, nothing else.
    """
    return list(islice(_reasons(command, environment), MAX_LINES))


def _reasons(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    program = program_of(command[0]) if command else ""
    if program == "node" and (said := _node(command[0], environment)):
        yield said
    yield "Nothing may have been asked for, or it came from a cache."
    of_program = [client for client in HTTP_CLIENTS if program in client.programs]
    if of_program:
        yield f"What goes through of {printable(program)}, and what it needs:"
    else:
        yield "The command may have started what does not go through by itself:"
    for client in of_program or filter(lambda client: client.usual, HTTP_CLIENTS):
        yield f"  {client.name}: {client.needs}"


def program_of(path: str) -> str:
    """The name of a command, without its folder, ending and version: `python` of
    `/usr/bin/python3.13`."""
    name = re.split(r"[/\\]", path)[-1].lower()
    name = re.sub(r"\.(exe|cmd|bat|sh)$", "", name)
    return re.sub(r"[-.\d]+$", "", name) or name


def _node(path: str, environment: Mapping[str, str]) -> str:
    """What is to be said of this Node; "" of one that uses the environment, or does not answer."""
    found = shutil.which(path, path=environment.get("PATH"))
    if found is None:
        return ""
    try:
        done = subprocess.run(
            [found, "--version"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=MAX_SECONDS,
            env={**os.environ, **environment},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    version = re.fullmatch(rb"v(\d+)\.(\d+)\.\d+\S*\s*", done.stdout)
    return node_says(int(version[1]), int(version[2])) if version else ""


def node_says(major: int, minor: int) -> str:
    """What is to be said of a version of Node; "" of one that uses the environment."""
    (line, first), later = NODE
    if (major, minor) >= later or (major == line and minor >= first):
        return ""
    which = printable(f"Node {major}.{minor}")
    if major == later[0]:
        return (
            f"{which} sends only fetch through a proxy of the environment; http does from 24.5 on."
        )
    return (
        f"{which} ignores the environment: its fetch and http use a proxy from 22.21 and 24.5 on. "
        "Older ones need an agent (undici's EnvHttpProxyAgent, or the package global-agent)."
    )
