"""A comparison as plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from operator import itemgetter
from textwrap import wrap

from ..chance import Proportion
from ..differences import Change
from ..differences import Comparison
from ..differences import Direction
from ..differences import End
from ..differences import Seen
from ..differences import Shift
from ..differences import Traffic
from ..redaction import printable
from ..tally import place
from ..totals import Totals
from ..vocabulary import ERROR_BANDS
from ..vocabulary import band_of
from .incidents_text import incident_ids
from .layout import WIDTH
from .layout import Cells
from .layout import columns
from .layout import counted
from .layout import in_brackets
from .layout import indented
from .layout import lasted
from .layout import ms
from .layout import s
from .layout import share
from .layout import table

ROWS = 10
"""How many rows a section has at most."""

NAME = 120
"""How much of a name a sentence has at most, in characters."""

ENDS: Mapping[End, str] = {
    "fixed": "Fixed",
    "fails otherwise": "Gone, but fails otherwise now",
    "not called again": "Gone, but not called again",
}
"""What became of what had a problem that is gone → the title of such problems."""

PROBLEMS = "problems"
"""What is counted of hosts and endpoints, `Row.problems`: failures with and without a flow."""


def text(comparison: Comparison, width: int = WIDTH) -> list[str]:
    """What got better, what got worse, and what else is different."""
    width = columns(width)
    lines = [
        *_wrapped(" ".join(verdict(comparison)), width),
        "",
        *_side("Before", comparison.before, width),
        *_side("After", comparison.after, width),
    ]
    return [*lines, *_certain(comparison, width), *_of_chance(comparison, width)]


def _certain(comparison: Comparison, width: int) -> list[str]:
    """What is beyond chance: what is worse first, and where before what."""
    problems = _clear(comparison.problems)
    statuses = [
        change
        for change in _clear(comparison.status_codes)
        if band_of(change.name) not in ERROR_BANDS
    ]
    hosts, endpoints = comparison.traffic_hosts, comparison.traffic_endpoints
    return [
        *_failing(f"Endpoint: {PROBLEMS}", _clear(comparison.endpoints), width),
        *_failing(f"Host: {PROBLEMS}", _clear(comparison.hosts), width),
        *_problems("New", _of(problems, "appeared"), width, explain=True),
        *_problems("Worse", _of(problems, "more"), width, explain=True),
        *_durations(comparison.durations, width),
        *_gone(_of(problems, "vanished"), width),
        *_problems("Better", _of(problems, "fewer"), width),
        *_changes("Error code", _clear(comparison.error_codes), width),
        *_changes("Other status", statuses, width),
        *_traffic(hosts, endpoints, width, clear=True),
    ]


def _of_chance(comparison: Comparison, width: int) -> list[str]:
    """What is listed though it may be chance."""
    problems = [change for change in comparison.problems if not change.clear]
    hosts, endpoints = comparison.traffic_hosts, comparison.traffic_endpoints
    failing = [
        [change for change in changes if not change.clear]
        for changes in (comparison.endpoints, comparison.hosts)
    ]
    return [
        *_failing(f"Endpoint: {PROBLEMS}", failing[0], width),
        *_failing(f"Host: {PROBLEMS}", failing[1], width),
        *_problems("New", _of(problems, "appeared"), width, explain=True),
        *_gone(_of(problems, "vanished"), width),
        *_traffic(hosts, endpoints, width, clear=False),
        *_incomplete("hosts", hosts, width),
        *_incomplete("endpoints", endpoints, width),
    ]


def _clear(changes: Iterable[Change]) -> list[Change]:
    return [change for change in changes if change.clear]


def verdict(comparison: Comparison) -> list[str]:
    """The answer, in sentences."""
    before, after = comparison.before, comparison.after
    for name, side in (("before", before), ("after", after)):
        if not side.attempts:
            return [f"Nothing came through {name} the change: there is nothing to compare."]
    sentences = _differences(comparison)
    if not sentences:
        if comparison.different:
            sentences.append("No difference in problems and times.")
        else:
            same = (before.flows, before.failures) == (after.flows, after.failures)
            sentences.append("No difference." if same else "No difference beyond chance.")
    for name, old, new in (
        ("Failed", before.failures, after.failures),
        ("Unsuccessful", before.unsuccessful, after.unsuccessful),
    ):
        shares = [share(old, before.flows) or "0.0 %", share(new, after.flows) or "0.0 %"]
        if old or new:
            sentences.append(f"{name} {' → '.join(shares)} of flows.")
    return sentences


def _differences(comparison: Comparison) -> list[str]:
    """What is worse, then what is better; but first what is certain."""
    problems, durations = comparison.problems, comparison.durations
    gone, new = _of(problems, "vanished"), _of(problems, "appeared")
    fixed = ended(gone, "fixed")
    otherwise, untried = ended(gone, "fails otherwise"), ended(gone, "not called again")
    more, fewer = _of(problems, "more"), _of(problems, "fewer")
    slower = [shift for shift in durations if shift.slower]
    faster = [shift for shift in durations if not shift.slower]
    said: list[tuple[Sequence[Change] | Sequence[Shift], str]] = [
        (new, f"New: {_number(len(new), 'problem')}{_unsure(new)}."),
        (more, f"Worse: {_number(len(more), 'problem')}."),
        (slower, f"Slower: {_first(slower)}."),
        (fixed, f"Fixed: {_number(len(fixed), 'problem')} gone{_unsure(fixed)}."),
        (
            otherwise,
            f"Gone: {_number(len(otherwise), 'problem')}, but what had {_it(otherwise)} fails"
            f" otherwise now{_unsure(otherwise)}.",
        ),
        (
            untried,
            f"Gone: {_number(len(untried), 'problem')}, but what had {_it(untried)} was not called"
            f" again{_unsure(untried)}.",
        ),
        (fewer, f"Better: {_number(len(fewer), 'problem')}."),
        (faster, f"Faster: {_first(faster)}."),
    ]
    found = [(_is_unsure(what), sentence) for what, sentence in said if what]
    return [sentence for _, sentence in sorted(found, key=itemgetter(0))]


def _it(changes: Sequence[Change]) -> str:
    return "it" if len(changes) == 1 else "them"


def _is_unsure(what: Sequence[Change] | Sequence[Shift]) -> bool:
    return not any(isinstance(each, Shift) or each.clear for each in what)


def _first(shifts: Sequence[Shift]) -> str:
    """The one that says most, and how many more there are: an endpoint, if one is among them."""
    if not shifts:
        return ""
    first = shifts[0]
    name = printable(_name_of(first), NAME)
    others = {(shift.table, shift.name) for shift in shifts} - {(first.table, first.name)}
    more = f", and {len(others)} more" if others else ""
    return f"{name} ({first.percentile} {ms(first.before)} → {ms(first.after)}){more}"


def _name_of(shift: Shift) -> str:
    return "all flows" if shift.table == "all" else shift.name or "(none)"


def _unsure(changes: Sequence[Change]) -> str:
    """How many may be chance, and why: they are rare, or count as fewer as they came together."""
    unsure = [change for change in changes if not change.clear]
    if not unsure:
        return ""
    together = any(change.design_effect > 1 for change in unsure)
    why = f"too rare{', or too close together in time,' if together else ''} to be sure"
    if len(unsure) == len(changes):
        return f", {why}" if len(unsure) == 1 else f", all {why}"
    return f", {len(unsure)} of them {why}"


def _side(name: str, side: Totals, width: int) -> list[str]:
    words = counted(side)
    if side.unfinished:
        words.append(f"{side.unfinished} unfinished")
    if time := lasted(side.first, side.last):
        words.append(f"over {time}")
    counts = ", ".join(word.replace(" ", "\xa0") for word in words)
    return _wrapped(f"{name + ':':<8}{counts}", width, " " * 8)


def _wrapped(sentences: str, width: int, indent: str = "") -> list[str]:
    """In lines that do not end between a number and its unit."""
    text = sentences.replace(" %", "\xa0%").replace(" → ", "\xa0→\xa0")
    return [line.replace("\xa0", " ") for line in wrap(text, width, subsequent_indent=indent)]


# --- sections ---


def _problems(
    title: str, changes: Sequence[Change], width: int, explain: bool = False
) -> list[str]:
    """`explain`: with the latest example and what to do."""
    blocks = _table(title, [_row(change) for change in changes[:ROWS]], width)
    if not blocks:
        return []
    lines = ["", blocks[0]]
    for line, change in zip(blocks[1:], changes, strict=False):
        lines.append(line)
        if explain:
            lines += indented(change.advice, width, "       ")
            if change.latest:
                lines.append(printable(f"       last: {change.latest}", width))
        if change.incidents:
            lines.append(f"       {incident_ids(change.incidents)}")
    return [*lines, *_more(len(changes), "problem")]


def _gone(changes: Sequence[Change], width: int) -> list[str]:
    found = (_problems(title, ended(changes, end), width) for end, title in ENDS.items())
    return [line for lines in found for line in lines]


def _changes(title: str, changes: Sequence[Change], width: int) -> list[str]:
    lines = _table(title, [_row(change) for change in changes[:ROWS]], width)
    return ["", *lines, *_more(len(changes), "code")] if lines else []


def _failing(title: str, changes: Sequence[Change], width: int) -> list[str]:
    rows = [
        (
            f"  {change.name or '(none)'}",
            f"{change.before.count} of {change.before.of}",
            f"{change.after.count} of {change.after.of}",
            _certainty(change),
        )
        for change in changes[:ROWS]
    ]
    lines = _table(title, rows, width)
    return ["", *lines, *_more(len(changes), title.partition(":")[0].lower())] if lines else []


def _row(change: Change) -> Cells:
    code = "" if change.error_code is None else f"{change.error_code} "
    name = f"{change.name} {change.description}".rstrip() + in_brackets(change.reason)
    return (
        f"  {code}{name}",
        _proportion(change.before),
        _proportion(change.after),
        _certainty(change),
    )


def _proportion(found: Proportion) -> str:
    return f"{found.count} ({share(found.count, found.of)})" if found.count else "0"


def _certainty(change: Change) -> str:
    return "" if change.clear else "may be chance"


def _durations(shifts: Sequence[Shift], width: int) -> list[str]:
    rows = [
        (
            f"  {'All flows' if shift.table == 'all' else _name_of(shift)}",
            shift.percentile,
            ms(shift.before),
            ms(shift.after),
            _factor(shift),
        )
        for shift in shifts[:ROWS]
    ]
    if not rows:
        return []
    lines = table([("Duration", "", "before", "after", ""), *rows], width)
    return ["", *lines, *_more(len(shifts), "percentile")]


def _factor(shift: Shift) -> str:
    if shift.before <= 0 or shift.after >= 10 * shift.before:
        return "slower"
    return f"{100 * (shift.after / shift.before - 1):+.0f} %"


def _traffic(hosts: Traffic, endpoints: Traffic, width: int, clear: bool) -> list[str]:
    """`clear`: what is beyond chance, or else what is not."""

    def shown(names: Sequence[Seen]) -> list[Seen]:
        return [seen for seen in names if seen.clear == clear]

    return [
        *_only("Host only after", shown(hosts.appeared), width),
        *_only("Host only before", shown(hosts.vanished), width),
        *_only("Endpoint only after", shown(_of_known(endpoints.appeared, hosts.appeared)), width),
        *_only("Endpoint only before", shown(_of_known(endpoints.vanished, hosts.vanished)), width),
    ]


def _only(title: str, names: Sequence[Seen], width: int) -> list[str]:
    rows = [
        (f"  {seen.name or '(none)'}", str(seen.count), "" if seen.clear else "may be chance")
        for seen in names[:ROWS]
    ]
    if not rows:
        return []
    lines = table([(title, "flows", ""), *rows], width)
    return ["", *lines, *_more(len(names), title.partition(" ")[0].lower())]


def _incomplete(what: str, traffic: Traffic, width: int) -> list[str]:
    if traffic.complete:
        return []
    sentence = f"There were more {what} than are kept: which are new or gone is not known for all."
    return ["", *indented(sentence, width, "")]


def _of_known(endpoints: Iterable[Seen], hosts: Iterable[Seen]) -> list[Seen]:
    """The endpoints that no host in the other list stands for already."""
    listed = {host.name for host in hosts}
    return [seen for seen in endpoints if _host(seen.name) not in listed]


def _host(endpoint: str) -> str:
    """The host of an endpoint as the statistics have it: with its port unless that is usual."""
    url = endpoint.partition(" ")[2]
    authority = (url.partition("://")[2] or url).partition("/")[0]
    host, colon, port = authority.rpartition(":")
    if colon and port.isascii() and port.isdecimal():
        return place({"host": host.strip("[]"), "port": int(port)})
    return authority.strip("[]")


# --- rows and sentences ---


def ended(gone: Iterable[Change], end: End) -> list[Change]:
    """Of problems that are gone, those with that end."""
    return [change for change in gone if change.end == end]


def _of(changes: Iterable[Change], direction: Direction) -> list[Change]:
    return [change for change in changes if change.direction == direction]


def _table(title: str, rows: Sequence[Cells], width: int) -> list[str]:
    return table([(title, "before", "after", ""), *rows], width) if rows else []


def _more(count: int, what: str) -> list[str]:
    left = count - ROWS
    return [f"  and {left} more {what}{s(left)}"] if left > 0 else []


def _number(count: int, what: str) -> str:
    return f"{count} {what}{s(count)}"
