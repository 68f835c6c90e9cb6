"""The options: what they are, and their values checked.

Every check raises `ValueError` with a message that says what is allowed; the name and the value of
the option are put in front of it by the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any
from typing import cast

from mitmproxy import flowfilter

from . import journal
from . import vocabulary
from .redaction import Urls
from .vocabulary import Tag

RESERVED = ("flowtally_host",)
"""Options of the interface that belong to parts that this version does not have."""

_TYPES = {str: "text", int: "whole number", bool: "true or false"}

URLS = ("full", "redacted", "origin")


@dataclass(frozen=True, slots=True)
class Option:
    """One option of flowtally's, as mitmproxy wants it declared."""

    name: str
    type: type
    default: Any
    help: str
    check: Callable[[Any], Any]
    """The option's value → what the addon works with. Raises: ValueError."""
    choices: tuple[str, ...] | None = None


def malformed(name: str, given: Any) -> str:
    """Why what was given for an option cannot even be read as its type; "" if it can.

    `given`: the texts of the command line, or a value of config.yaml. Unknown names that look like
    flowtally's are told too: a misspelt option would otherwise be ignored.
    """
    option = next((option for option in OPTIONS if option.name == name), None)
    if option is None:
        if not name.startswith("flowtally_") or name in RESERVED:
            return ""
        return f"no such option; flowtally has {', '.join(option.name for option in OPTIONS)}"
    if not isinstance(given, list):
        right = type(given) is option.type
        return "" if right else f"{given!r} is no {_TYPES[option.type]}"
    if len(given) > 1:
        return f"given {len(given)} times: {', '.join(map(repr, given))}; allowed is one value"
    if option.type is bool:
        right = not given or given[0] in ("", "true", "false", "toggle")
        return "" if right else f"{given[0]!r}: allowed are true and false"
    if not given:
        return f"a value is missing; allowed is a {_TYPES[option.type]}"
    if option.type is int:
        try:
            int(given[0])
        except ValueError:
            return f"{given[0]!r}: allowed is a {_TYPES[int]}"
    return ""


def log(value: str) -> str:
    """`flowtally_log`."""
    if value and (reason := journal.check_location(value)):
        raise ValueError(f"{reason}. Allowed is a file or a folder that can be made")
    return value


def filter(value: str) -> flowfilter.TFilter | None:
    """`flowtally_filter`."""
    if not value:
        return None
    try:
        return flowfilter.parse(value)
    except ValueError as error:
        raise ValueError(
            f"{error}. Allowed is a mitmproxy filter expression, such as '~d example.com & ~m POST'"
        ) from error


def urls(value: str) -> Urls:
    """`flowtally_urls`."""
    if value not in URLS:
        raise ValueError(f"allowed are {', '.join(URLS)}")
    return cast(Urls, value)


def timeout(value: str) -> float:
    """`flowtally_timeout`, in seconds."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1
    if not (isfinite(seconds) and seconds > 0):
        raise ValueError("allowed is a number of seconds above 0, such as 5 or 0.5")
    return seconds


def max_redirects(value: int) -> int:
    """`flowtally_max_redirects`."""
    if value < 0:
        raise ValueError("allowed is a whole number from 0")
    return value


def mark(value: bool) -> bool:
    """`flowtally_mark`."""
    return value


def catalog(value: str) -> dict[int, Tag]:
    """`flowtally_catalog`."""
    if not value:
        return dict(vocabulary.STATUS_TAGS)
    return vocabulary.read_catalogue(Path(value).expanduser())


OPTIONS = (
    Option(
        "flowtally_log",
        str,
        "",
        "Session log of flowtally: a file, which is appended to, or a folder, which gets a new "
        "file per session. Empty: the folder `flowtally` inside mitmproxy's confdir.",
        log,
    ),
    Option(
        "flowtally_filter",
        str,
        "",
        "A mitmproxy filter expression: flowtally counts only flows that match.",
        filter,
    ),
    Option(
        "flowtally_urls",
        str,
        "redacted",
        "How much of a URL flowtally keeps: all of it, without query values and userinfo, or only "
        "scheme, host and port.",
        urls,
        URLS,
    ),
    Option(
        "flowtally_timeout",
        str,
        "5",
        "Seconds after which a client that goes away counts as a timeout rather than as a client "
        "that disconnected.",
        timeout,
    ),
    Option(
        "flowtally_max_redirects",
        int,
        20,
        "More redirects than this in a row are too many.",
        max_redirects,
    ),
    Option(
        "flowtally_mark",
        bool,
        True,
        "Write flowtally's tag into the flow's comment, and a marker on problems, where the user "
        "has set none.",
        mark,
    ),
    Option(
        "flowtally_catalog",
        str,
        "",
        "A TOML file with more status codes or other descriptions.",
        catalog,
    ),
)
