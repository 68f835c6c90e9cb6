"""What the session log has to say about a fault, in the words of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any

ERROR_NAMES = {
    -1: "RequestException",
    -2: "ConnectionErr",
    -3: "HTTPError",
    -4: "URLRequired",
    -5: "TooManyRedirects",
    -6: "Timeout",
}

BANDS = {
    1: "Informational",
    2: "Success",
    3: "Redirection",
    4: "Client error",
    5: "Server error",
}

# Status codes that the servers of the laboratory send beside a failure.
_DESCRIPTIONS = {101: "Switching protocols", 200: "OK"}


@dataclass(frozen=True)
class Expected:
    """Fields with their exact values, and fields that have no place in the record."""

    type: str | None
    """`flow`, `event`, or None where either will do."""
    fields: Mapping[str, Any]
    absent: frozenset[str] = field(default_factory=frozenset)
    detailed: bool = False
    """A failure says more in `detail`."""

    @property
    def error_code(self) -> int | None:
        return self.fields.get("error_code")

    @property
    def cause(self) -> str | None:
        return self.fields.get("cause")

    def check(self, record: Mapping[str, Any]) -> None:
        seen = {name: record.get(name) for name in self.fields}
        assert seen == dict(self.fields), record
        assert self.type in (None, record["type"]), record
        assert not self.absent & record.keys(), record
        if self.detailed:
            assert record.get("detail"), record


_STATUS = frozenset({"status", "band", "description"})
_FAILURE = frozenset({"error_code", "error_name", "cause", "side", "detail"})


def status(code: int, description: str, **more: Any) -> Expected:
    """A complete response; unsuccessful ones are an HTTPError as well."""
    valid = 100 <= code <= 599
    fields: dict[str, Any] = {
        "kind": "http",
        "outcome": "status",
        "status": code,
        # RFC 9110 §15: a client treats an invalid status code as a 5xx.
        "band": BANDS[code // 100] if valid else "Server error",
        "description": description,
    }
    absent = _FAILURE
    if code >= 400 or not valid:
        fields |= {"error_code": -3, "error_name": ERROR_NAMES[-3]}
        absent = frozenset({"cause", "side"})
    if "answered_by" not in more:
        absent |= {"answered_by"}
    return Expected("flow", {**fields, **more}, absent)


def redirected(cause: str) -> Expected:
    """A complete redirect response that broke the limit of its chain."""
    return Expected(
        "flow",
        {
            "kind": "http",
            "outcome": "status",
            "status": 302,
            "band": "Redirection",
            "description": "Found",
            **_failure(-5, cause, "server"),
        },
    )


def overlaid(
    code: int, description: str, error_code: int, cause: str, side: str, **more: Any
) -> Expected:
    """A complete response that is a failure all the same."""
    fields = {
        "kind": "http",
        "outcome": "status",
        "status": code,
        "band": BANDS[code // 100],
        "description": description,
        **_failure(error_code, cause, side),
    }
    return Expected("flow", {**fields, **more})


def failure(
    code: int, cause: str, side: str, *, after: int | None = None, kind: str = "http", **more: Any
) -> Expected:
    """A flow that broke; `after` is the status when a response head had arrived."""
    fields = {"kind": kind, "outcome": "error", **_failure(code, cause, side), **more}
    absent: frozenset[str] = _STATUS
    if after is not None:
        fields |= _head(after)
        absent = frozenset()
    return Expected("flow", fields, absent, detailed=True)


def _head(status: int) -> dict[str, Any]:
    return {
        "status": status,
        "band": BANDS[status // 100],
        "description": _DESCRIPTIONS[status],
    }


def cancelled(*, after: int | None = None, kind: str = "http", **more: Any) -> Expected:
    """A flow that its client ended of its own will; `after` is as of `failure`."""
    fields = {"kind": kind, "outcome": "cancelled", "cause": "client_cancelled", "side": "client"}
    if after is not None:
        fields |= _head(after)
    absent = frozenset({"error_code", "error_name"}) | (_STATUS if after is None else frozenset())
    return Expected("flow", fields | more, absent)


def event(code: int, cause: str, side: str) -> Expected:
    """A failure that reached no flow."""
    return Expected("event", _failure(code, cause, side), _STATUS | {"outcome"}, detailed=True)


def flow_or_event(code: int, cause: str, side: str) -> Expected:
    """A failure that is recorded once, on the flow if there is one."""
    return Expected(None, _failure(code, cause, side), _STATUS, detailed=True)


def fine(kind: str, **more: Any) -> Expected:
    """An exchange without a status that went well."""
    return Expected("flow", {"kind": kind, "outcome": "ok", **more}, _FAILURE | _STATUS)


def unfinished(kind: str = "http") -> Expected:
    """A flow that was still open at the end of the session."""
    return Expected(
        "flow", {"kind": kind, "outcome": "unfinished"}, frozenset({"error_code", "cause", "side"})
    )


def _failure(code: int, cause: str, side: str) -> dict[str, Any]:
    return {
        "error_code": code,
        "error_name": ERROR_NAMES[code],
        "cause": cause,
        "side": side,
    }
