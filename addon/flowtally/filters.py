"""Which records are wanted: what the options of the command line mean. Pure functions."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from difflib import get_close_matches
from fnmatch import translate
from typing import Any
from typing import NamedTuple
from urllib.parse import urlsplit

from .filter_language import Filter
from .filter_language import FilterError
from .filter_language import parse
from .tally import folded
from .tally import incident_of
from .tally import place
from .vocabulary import BANDS
from .vocabulary import CAUSES
from .vocabulary import is_collateral

Record = Mapping[str, Any]


class Given(NamedTuple):
    """What was asked for. Of several of one kind any may hold, of several kinds all must."""

    causes: Sequence[str] = ()
    """`connection_refused`, or with its reason `tls_certificate_error:expired`."""
    statuses: Sequence[str] = ()
    """A status code, its class as `4xx`, or the name of a band."""
    hosts: Sequence[str] = ()
    """A host, which stands for those below it too; with its port, or with `*`."""
    paths: Sequence[str] = ()
    """A path without query; `*` stands for anything, `{id}` for what endpoints have it for."""
    since: str = ""
    until: str = ""
    problems: bool = False
    incidents: Sequence[str] = ()
    """Ids, or the first digits of one."""
    expressions: Sequence[str] = ()
    """In mitmproxy's language; all must hold."""


def wanted(given: Given, now: datetime) -> Filter | None:
    """Whether a record of a flow or an event is wanted; None where nothing was asked for.

    `now` is what `5m` is before. Raises: FilterError.
    """
    since, until = _moment("--since", given.since, now), _moment("--until", given.until, now)
    conditions: list[Filter] = [
        *_any_of(_cause, given.causes),
        *_any_of(_status, given.statuses),
        *_any_of(_host, given.hosts),
        *_any_of(_path, given.paths),
        *_any_of(_incident, given.incidents),
        *map(parse, given.expressions),
    ]
    if given.problems:
        conditions.append(is_problem)
    if since:
        conditions.append(lambda record: record["time"] >= since)
    if until:
        conditions.append(lambda record: record["time"] <= until)
    if not conditions:
        return None
    return lambda record: all(holds(record) for holds in conditions)


def in_words(given: Given) -> str:
    """What was asked for, as it would be given to the command line; "" where nothing was."""
    words = []
    for name, values in (
        ("--cause", given.causes),
        ("--status", given.statuses),
        ("--host", given.hosts),
        ("--path", given.paths),
        ("--since", [given.since] if given.since else []),
        ("--until", [given.until] if given.until else []),
        ("--incident", given.incidents),
    ):
        for value in values:
            words += [name, value]
    return shlex.join([*words, *["--problems"] * given.problems, *given.expressions])


def is_problem(record: Record) -> bool:
    """Whether a record is of a problem, as far as it alone tells: a challenge may be answered
    later."""
    return "error_code" in record and "background" not in record and not is_collateral(record)


def _any_of(make: Callable[[str], Filter], given: Sequence[str]) -> list[Filter]:
    if not given:
        return []
    found = [make(each) for each in given]
    return [found[0] if len(found) == 1 else lambda record: any(holds(record) for holds in found)]


def _cause(text: str) -> Filter:
    cause, colon, reason = text.partition(":")
    if cause not in CAUSES:
        close = get_close_matches(cause.lower(), CAUSES, 1)
        suggestion = f"did you mean {close[0]}? There" if close else "there"
        raise FilterError(
            f"--cause {text!r:.60}: there is no such cause; {suggestion} are {_list(CAUSES)}"
        )
    if colon:
        return lambda record: record.get("cause") == cause and record.get("reason", "") == reason
    return lambda record: record.get("cause") == cause


def _status(text: str) -> Filter:
    for band in BANDS:
        if text.lower() == band.lower():
            return lambda record: record.get("band") == band
    if re.fullmatch("[1-5][xX]{2}", text):
        return lambda record: record.get("status", 0) // 100 == int(text[0])
    if re.fullmatch("[0-9]{1,3}", text):
        return lambda record: record.get("status") == int(text)
    raise FilterError(
        f"--status {text!r:.60}: allowed are a status code such as 404, a class such as 4xx,"
        f" and {_list(BANDS)}"
    )


def _host(text: str) -> Filter:
    wanted = text.lower().rstrip(".")
    if not wanted or "/" in wanted:
        raise FilterError(f"--host {text!r:.60}: allowed is a host, such as shop.example")
    wanted = _unbracketed(wanted)
    if "*" in wanted:
        matches = _pattern(wanted)
        return lambda record: any(map(matches, _names(record)))
    below = f".{wanted}"
    return lambda record: any(n == wanted or n.endswith(below) for n in _names(record))


def _names(record: Record) -> tuple[str, str]:
    host, at = record.get("host", "").lower(), place(record).lower()
    return (_unbracketed(host), _unbracketed(at)) if host[:1] == "[" else (host, at)


def _unbracketed(name: str) -> str:
    """An IPv6 address without the brackets that URLs have around it; its port stays."""
    return re.sub(r"^\[([^\[\]]*:[^\[\]]*)\](?=$|:)", r"\1", name)


def _pattern(text: str) -> Callable[[str], re.Match[str] | None]:
    """Matches a whole text; nothing but `*` stands for anything else than itself."""
    return re.compile(translate(re.sub(r"[?\[]", r"[\g<0>]", text))).match


def _path(text: str) -> Filter:
    if text[:1] not in ("/", "*"):
        raise FilterError(f"--path {text!r:.60}: a path begins with /, such as /api/*")
    if "?" in text:
        raise FilterError(f"--path {text!r:.60}: a path has no query; leave out ? and what follows")
    matches = _pattern(text)
    as_endpoint = "{id}" in text  # copied from the name of one

    def holds(record: Record) -> bool:
        if "url" not in record:
            return False
        path = _path_of(record["url"])
        return matches(folded(path) if as_endpoint else path) is not None

    return holds


def _path_of(url: str) -> str:
    try:
        return urlsplit(url).path or "/"
    except ValueError:  # a URL that is none
        return ""


def _incident(text: str) -> Filter:
    if not re.fullmatch("[0-9a-f]{4,8}", text):
        raise FilterError(f"--incident {text!r:.60}: an id is of 8 hexadecimal digits; 4 will do")
    return lambda record: incident_of(record).startswith(text)


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _moment(option: str, text: str, now: datetime) -> str:
    """A time as records hold them. `10m` is before now; a time without a zone is this machine's,
    and one without a date today's."""
    if not text:
        return ""
    try:
        if match := re.fullmatch("([0-9]{1,6})([smhd])", text):
            found = now - timedelta(**{_UNITS[match[2]]: int(match[1])})
        elif match := re.fullmatch("([0-9]{1,2})(:[0-9]{2}(:[0-9]{2})?)", text):
            day = f"{now.astimezone():%Y-%m-%d}"
            found = datetime.fromisoformat(f"{day} {match[1]:0>2}{match[2]}").astimezone()
        else:
            found = datetime.fromisoformat(text).astimezone()
        found = found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise FilterError(
            f"{option} {text!r:.60}: allowed are a time such as 14:30 or 2026-01-31T14:30:00Z,"
            " and how long ago, such as 90s, 10m, 2h or 1d"
        ) from None
    return f"{found:%Y-%m-%dT%H:%M:%S}.{found.microsecond // 1000:03d}Z"


def _list(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(names)
