"""mitmproxy's filter expressions, for records: those of its operators that mean the same there.

The language is that of mitmproxy/flowfilter.py, without importing it: that takes longer than to
read most logs. A record has no headers and no bodies, and its URL is redacted as the log has it;
what asks for more is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

Record = Mapping[str, Any]
Filter = Callable[[Record], bool]
"""Whether a record of a flow or an event is wanted."""

MAX_EXPRESSION = 10_000
"""Characters; a longer one is a mistake."""
MAX_DEPTH = 50
"""How deep brackets and negations may lie in one another."""


class FilterError(ValueError):
    """A filter that means nothing here; the message says what is wrong, and what there is."""


def _is_http(record: Record) -> bool:
    return record.get("kind") in ("http", "websocket", "connect")


_PLAIN: Mapping[str, Filter] = {
    "all": lambda _: True,
    "dns": lambda record: record.get("kind") == "dns",
    "http": _is_http,
    "replay": lambda record: "replay" in record,
    "replayq": lambda record: record.get("replay") == "request",
    "replays": lambda record: record.get("replay") == "response",
    "tcp": lambda record: record.get("kind") == "tcp",
    "udp": lambda record: record.get("kind") == "udp",
    "websocket": lambda record: record.get("kind") == "websocket",
}
"""Operators without an argument."""

_TEXTS: Mapping[str, Callable[[Record], str | None]] = {
    "d": lambda record: record.get("host") if _is_http(record) or "kind" not in record else None,
    "m": lambda record: record.get("method") if _is_http(record) else None,
    "src": lambda r: (
        f"{r['client']}:{r['client_port']}" if {"client", "client_port"} <= r.keys() else None
    ),
    "u": lambda record: record.get("host" if record.get("kind") == "dns" else "url"),
}
"""Those with a regular expression, and where they look for it. An event has no kind; its host is
looked at too."""

NO_HEADERS = "the log keeps no headers"
NO_BODIES = "the log keeps no bodies"
_REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("b", "bq", "bs"), NO_BODIES),
    **dict.fromkeys(("h", "hq", "hs"), NO_HEADERS),
    **dict.fromkeys(("t", "tq", "ts"), "of headers the log keeps only the media type"),
    "a": "of headers the log keeps only the media type",
    **dict.fromkeys(("e", "q", "s"), "use --problems, --cause or --status"),
    "dst": "the log keeps the host that was asked for; use ~d",
    **dict.fromkeys(("marked", "marker", "comment", "meta"), "the log does not keep it"),
}
"""mitmproxy's other operators, and why they cannot be had."""

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<sign>[()&|!])
      | ~(?P<operator>[a-z]+)
      | "(?P<double>(?:[^"\\]|\\.)*)"
      | '(?P<single>(?:[^'\\]|\\.)*)'
      | (?P<word>[^\s()~'"&|!][^\s()~'"]*)
    )""",
    re.VERBOSE | re.DOTALL,
)
"""As mitmproxy reads it: a word ends at a space, a bracket, a quote or an operator."""


def parse(expression: str) -> Filter:
    """What an expression means. Raises: FilterError."""
    if len(expression) > MAX_EXPRESSION:
        raise FilterError(f"a filter of {len(expression)} characters")
    parser = _Parser(expression, _tokens(expression))
    found = parser.sequence()
    if parser.next is not None:
        raise parser.error("cannot stand there")
    return found


def _tokens(expression: str) -> list[tuple[str, str]]:
    """Kind and text of each. Raises: FilterError."""
    found = []
    position = 0
    end = len(expression.rstrip())
    while position < end:
        match = _TOKEN.match(expression, position)
        if match is None:
            rest = expression[position:].strip()
            raise FilterError(f"filter {expression!r:.200}: cannot be read from {rest!r:.40} on")
        kind = str(match.lastgroup)
        text = match[kind]
        if kind in ("double", "single"):
            kind, text = "word", re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
        found.append((kind, text))
        position = match.end()
    return found


class _Parser:
    """Recursive descent; `!` binds closest, then `&`, then `|`, then nothing between two, which
    both have to be so."""

    def __init__(self, expression: str, tokens: Sequence[tuple[str, str]]) -> None:
        self._expression = expression
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    @property
    def next(self) -> tuple[str, str] | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def error(self, reason: str) -> FilterError:
        """Names the token that comes next."""
        found = self.next
        what = (
            "its end" if found is None else repr(("~" if found[0] == "operator" else "") + found[1])
        )
        return FilterError(f"filter {self._expression!r:.200}: {what:.60} {reason}")

    def _takes(self, sign: str) -> bool:
        if self.next != ("sign", sign):
            return False
        self._at += 1
        return True

    def sequence(self) -> Filter:
        """All that stands up to the end, or to the bracket that closes."""
        found = [self._alternatives()]
        while self.next is not None and self.next != ("sign", ")"):
            found.append(self._alternatives())
        return found[0] if len(found) == 1 else lambda record: all(one(record) for one in found)

    def _alternatives(self) -> Filter:
        found = [self._all_of()]
        while self._takes("|"):
            found.append(self._all_of())
        return found[0] if len(found) == 1 else lambda record: any(one(record) for one in found)

    def _all_of(self) -> Filter:
        found = [self._one()]
        while self._takes("&"):
            found.append(self._one())
        return found[0] if len(found) == 1 else lambda record: all(one(record) for one in found)

    def _one(self) -> Filter:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self.error("lies too deep")
        try:
            return self._deeper()
        finally:
            self._depth -= 1

    def _deeper(self) -> Filter:
        if self._takes("!"):
            inner = self._one()
            return lambda record: not inner(record)
        if self._takes("("):
            found = self.sequence()
            if not self._takes(")"):
                raise self.error("where a ) must stand")
            return found
        if self.next is None or self.next[0] == "sign":
            raise self.error("where a condition must stand")
        kind, text = self.next
        if kind == "word":
            self._at += 1
            return self._searching("u", text)  # as in mitmproxy
        return self._operator(text)

    def _operator(self, name: str) -> Filter:
        if name not in _PLAIN and name not in _TEXTS and name != "c":
            raise self.error(
                f"is not possible here: {_REFUSED.get(name, 'nobody knows it')}; {ALLOWED}"
            )
        self._at += 1
        if name in _PLAIN:
            return _PLAIN[name]
        argument = self.next
        if argument is None or argument[0] != "word":
            raise self.error(
                f"where ~{name} needs {'a status code' if name == 'c' else 'a pattern'}"
            )
        if name != "c":
            self._at += 1
            return self._searching(name, argument[1])
        if not re.fullmatch("[0-9]{1,6}", argument[1]):
            raise self.error("is no status code")
        self._at += 1
        code = int(argument[1])
        return lambda record: _is_http(record) and record.get("status") == code

    def _searching(self, name: str, pattern: str) -> Filter:
        """Case does not matter, as in mitmproxy."""
        try:
            search = re.compile(pattern, re.IGNORECASE).search
        except (re.error, RecursionError, OverflowError) as error:
            reason = f"{pattern!r:.60} is no regular expression: {error}"
            raise FilterError(f"filter {self._expression!r:.200}: {reason}") from None
        text_of = _TEXTS[name]

        def found(record: Record) -> bool:
            text = text_of(record)
            return text is not None and search(text) is not None

        return found


ALLOWED = "allowed are " + ", ".join(f"~{name}" for name in sorted([*_PLAIN, *_TEXTS, "c"]))
