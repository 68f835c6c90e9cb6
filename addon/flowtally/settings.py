"""The options: what they are, and their values checked.

Every check raises `ValueError` with a message that says what is allowed; the name and the value of
the option are put in front of it by the caller.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from collections.abc import Container
from collections.abc import Mapping
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any
from typing import NamedTuple
from typing import cast
from typing import get_args

from mitmproxy import flowfilter
from mitmproxy.options import Options

from . import internals
from . import journal
from . import vocabulary
from .background import Background
from .classify import Rules
from .redaction import Urls
from .vocabulary import Tag

logger = logging.getLogger("flowtally")

_TYPES = {str: "a text", int: "a whole number from 0", bool: "true or false"}

URLS: tuple[str, ...] = get_args(Urls)


class Option(NamedTuple):
    """One option of flowtally's, as mitmproxy wants it declared."""

    name: str
    type: type
    default: Any
    help: str
    check: Callable[[Any], Any]
    """The option's value → what the addon works with. Raises: ValueError."""
    choices: tuple[str, ...] | None = None


def check(options: Any, names: Container[str]) -> dict[str, Any]:
    """The checked values of those of flowtally's options that are named.

    `options`: mitmproxy's. Raises: ValueError, naming the option and the value.
    """
    checked = {}
    for option in OPTIONS:
        if option.name in names:
            value = getattr(options, option.name)
            try:
                checked[option.name] = option.check(value)
            except ValueError as error:
                raise ValueError(f"{option.name}={value!r}: {error}") from None
    return checked


def rules(values: Mapping[str, Any], raw_tcp: bool = True) -> Rules:
    """What the checked `values` say about classification. `raw_tcp`: mitmproxy's `rawtcp`."""
    return Rules(
        values["flowtally_catalog"],
        values["flowtally_timeout"],
        values["flowtally_urls"],
        raw_tcp,
        values["flowtally_background"],
    )


def refused(options: Options, strict: bool = False) -> bool:
    """Whether options were given that cannot be used; says why in mitmproxy's log, which keeps it
    from starting (addons/errorcheck.py). `strict`: also what nobody has by now."""
    reasons = internals.refuse_options(options, partial(refuse, strict=strict))
    for reason in reasons:
        logger.error(reason)
    return bool(reasons)


def refuse(name: str, given: Any, strict: bool = False) -> str:
    """Why what was given for an option when mitmproxy started cannot be used; "" if it can.

    `given`: the texts of the command line, or a value of config.yaml. Unknown names that look like
    flowtally's are refused too: a misspelt option would otherwise be ignored. `strict`: all others
    of the command line as well. What config.yaml has may be for mitmweb, or for a script.
    """
    option = next((option for option in OPTIONS if option.name == name), None)
    if option is None:
        if not name.startswith("flowtally_"):
            unknown = strict and isinstance(given, tuple)
            return f"{name}: no such option; `mitmdump --options` lists them" if unknown else ""
        return f"{name}: no such option; flowtally has {', '.join(o.name for o in OPTIONS)}"
    try:
        option.check(_read(option, given))
    except ValueError as error:
        if isinstance(given, tuple):
            given = given[0] if len(given) == 1 else ""
        return f"{name}={given!r}: {error}"
    return ""


def _read(option: Option, given: Any) -> Any:
    """The value of an option from what was given for it. Raises: ValueError."""
    if not isinstance(given, tuple):
        if type(given) is option.type:
            return given
        quotes = f'; write it in quotes: "{given}"' if option.type is str else ""
        raise ValueError(f"allowed is {_TYPES[option.type]}{quotes}")
    if len(given) > 1:
        raise ValueError(f"given {len(given)} times: {', '.join(map(repr, given))}; allowed is one")
    text = given[0] if given else ""
    if option.type is bool:
        if text not in ("", "true", "false", "toggle"):
            raise ValueError("allowed are true and false")
        return text != "false"
    if option.type is int:
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"allowed is {_TYPES[int]}") from None
    if not given:
        option.check("")
        raise ValueError("a value is missing")
    return text


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
        raise ValueError(f"allowed is {_TYPES[int]}")
    return value


def mark(value: bool) -> bool:
    """`flowtally_mark`."""
    return value


def catalog(value: str) -> dict[int, Tag]:
    """`flowtally_catalog`."""
    if not value:
        return dict(vocabulary.STATUS_TAGS)
    return vocabulary.read_catalogue(Path(value).expanduser())


def _is_host(value: str) -> bool:
    """Whether a text is a host name (RFC 1123 §2.1)."""
    labels = value.split(".")
    return len(value) <= 253 and all(
        len(label) <= 63
        and label.isascii()
        and label.replace("-", "x").isalnum()
        and label[0] != "-" != label[-1]
        for label in labels
    )


def host(value: str) -> str:
    """`flowtally_host`."""
    if value and not _is_host(value):
        raise ValueError("allowed is a host name such as flowtally.test, or nothing")
    return value.lower()


def background(value: str) -> Background:
    """`flowtally_background`."""
    patterns = [part.strip().lower() for part in value.split(",")]
    if patterns == ["none"]:
        return Background(rows=())
    hosts = [pattern for pattern in patterns if pattern != "known"]
    for pattern in hosts:
        if pattern == "none" or not _is_host(pattern):
            raise ValueError(
                f"{pattern!r} is none of what is allowed: known, or none, or host names such as "
                f"telemetry.example.com with commas between them, which are added to the known ones"
            )
    return Background(patterns=hosts)


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
        "How much of URLs and of other text that peers chose flowtally keeps: all, no values and "
        "userinfo, or only scheme, host and port.",
        urls,
        URLS,
    ),
    Option(
        "flowtally_timeout",
        str,
        "5",
        "A client that leaves after it waited so many seconds for the server timed out; one that "
        "leaves sooner cancelled.",
        timeout,
    ),
    Option(
        "flowtally_max_redirects",
        int,
        20,
        "Redirects in a row that are too many.",
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
    Option(
        "flowtally_host",
        str,
        "flowtally.test",
        "Host name of the live page inside the proxy: http://flowtally.test/. Empty: none.",
        host,
    ),
    Option(
        "flowtally_background",
        str,
        "known",
        "Hosts whose requests are background traffic, not problems: `known` (the list), `none`, or "
        "more hosts, separated by commas.",
        background,
    ),
)
