"""What a comparison found: changed counts, changed times, and what was on one side only. Pure data;
`comparison` makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from typing import Literal

from .chance import Proportion
from .totals import Totals
from .vocabulary import Why
from .vocabulary import advice

SCHEMA = 1
"""Version of `Comparison.to_data`."""

Direction = Literal["appeared", "vanished", "more", "fewer"]
End = Literal["fixed", "fails otherwise", "not called again"]


@dataclass(frozen=True, slots=True)
class Change:
    """A count that is another one after than before."""

    name: str
    """A cause, status code, error code, host (with its port unless that is usual) or endpoint, as
    the log has it: not fit for a terminal."""
    direction: Direction
    before: Proportion
    after: Proportion
    p: float
    """How probable such a difference is between two alike sessions."""
    clear: bool
    """It is beyond chance; what is not is listed if it appeared or vanished, see `ALPHA`."""
    design_effect: float
    """So many of them were taken for one, as they came together."""
    error_code: int | None = None
    """Of a cause, and of a status code among the problems (-3)."""
    reason: str = ""
    """Of a cause."""
    description: str = ""
    """Of a status code and an error code."""
    end: End = "fixed"
    """Of a problem that vanished, what became of its endpoints, or hosts: they go wrong less often
    than before; or not less often, with other problems; or had no traffic after, so that nobody
    tried whether it is fixed."""
    latest: str = ""
    """Of a problem that is there after: its latest example, as the log has it."""
    incidents: tuple[str, ...] = ()
    """Of a problem: the ids of its incidents, the largest first; the same in all sessions."""

    @property
    def worse(self) -> bool:
        """Or else better, where it is something bad that is counted."""
        return self.direction in ("appeared", "more")

    @property
    def advice(self) -> str:
        """What to do about a cause."""
        return advice(Why(self.name, self.reason))

    def to_data(self) -> dict[str, Any]:
        """For JSON; what has no value is left out."""
        gone = self.direction == "vanished"
        data = {
            "name": self.name,
            "reason": self.reason,
            "error_code": self.error_code,
            "description": self.description,
            "change": self.direction,
            "before": self.before.to_data(),
            "after": self.after.to_data(),
            "p": self.p,
            "clear": self.clear,
            "design_effect": round(self.design_effect, 3),
            "incidents": list(self.incidents) or None,
            "called_again": self.end != "not called again" if gone else None,
            "fails_otherwise": self.end == "fails otherwise" if gone else None,
            "advice": self.advice,
            "latest": self.latest,
        }
        return {name: value for name, value in data.items() if value not in ("", None)}


@dataclass(frozen=True, slots=True)
class Shift:
    """A percentile of the duration that is another one after than before."""

    table: Literal["all", "band", "host", "endpoint"]
    name: str
    """Of the band, host or endpoint; of `all` flows, ""."""
    percentile: str
    before: float
    """In ms."""
    after: float
    samples_before: int
    samples_after: int
    longer: float
    """How probable it is that one after is longer than one before."""
    p: float
    """How probable such a difference is between two alike sessions."""
    design_effect: float
    """So many of them were taken for one, as they came together."""

    @property
    def slower(self) -> bool:
        """Or else faster."""
        return self.after > self.before

    def to_data(self) -> dict[str, Any]:
        """For JSON; times in ms."""
        return {
            "table": self.table,
            "name": self.name,
            "percentile": self.percentile,
            "before_ms": self.before,
            "after_ms": self.after,
            "samples_before": self.samples_before,
            "samples_after": self.samples_after,
            "probability_longer": round(self.longer, 6),
            "p": self.p,
            "design_effect": round(self.design_effect, 3),
        }


@dataclass(frozen=True, slots=True)
class Seen:
    """A host or an endpoint that had traffic on one side only."""

    name: str
    count: int
    """Flows and failures without a flow."""
    p: float
    """How probable that is where it has a place in both sessions."""
    clear: bool
    """It is beyond chance."""

    def to_data(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, "count": self.count, "p": self.p, "clear": self.clear}


@dataclass(frozen=True, slots=True)
class Traffic:
    """Hosts or endpoints that had traffic on one side only; what is clear first, then the
    busiest."""

    appeared: tuple[Seen, ...]
    vanished: tuple[Seen, ...]
    complete: bool
    """False: a side had more of them than a tally keeps, so that what is not on it is not known,
    and left out."""

    def to_data(self) -> dict[str, Any]:
        """For JSON: a list of objects for each side, as no name of a field may be data."""
        return {
            "appeared": [seen.to_data() for seen in self.appeared],
            "vanished": [seen.to_data() for seen in self.vanished],
            "complete": self.complete,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between two tallies. Of each kind, what is clear comes first, then what is
    worse, then what is large; of times, endpoints come before hosts and these before totals."""

    before: Totals
    after: Totals
    problems: tuple[Change, ...]
    """By error code and cause; of -3, by status code. Shares of flows and failures without a
    flow."""
    error_codes: tuple[Change, ...]
    """The same by error code alone."""
    status_codes: tuple[Change, ...]
    """Complete responses with a status code. Shares of flows."""
    hosts: tuple[Change, ...]
    """Hosts with traffic on both sides: failures, with and without a flow, and status 400 and up;
    shares of what each host had."""
    endpoints: tuple[Change, ...]
    """The same by endpoint."""
    durations: tuple[Shift, ...]
    traffic_hosts: Traffic
    traffic_endpoints: Traffic

    @property
    def different(self) -> bool:
        """Whether anything is listed."""
        traffic = (self.traffic_hosts, self.traffic_endpoints)
        return bool(
            self.problems
            or self.error_codes
            or self.status_codes
            or self.hosts
            or self.endpoints
            or self.durations
            or any(each.appeared or each.vanished for each in traffic)
        )

    @property
    def certain(self) -> bool:
        """Whether anything is beyond chance."""
        counts = (self.problems, self.error_codes, self.status_codes, self.hosts, self.endpoints)
        traffic = (self.traffic_hosts, self.traffic_endpoints)
        return bool(
            self.durations
            or any(change.clear for changes in counts for change in changes)
            or any(seen.clear for each in traffic for seen in (*each.appeared, *each.vanished))
        )

    def to_data(self) -> dict[str, Any]:
        """For JSON: `schema`, `different`, `certain`, `before` and `after` (`Totals`); lists of
        `Change`: `problems`, `error_codes`, `status_codes`, `hosts`, `endpoints`; `durations`
        (`Shift`); `traffic`: `hosts` and `endpoints` (`Traffic`)."""
        return {
            "schema": SCHEMA,
            "different": self.different,
            "certain": self.certain,
            "before": self.before._asdict(),
            "after": self.after._asdict(),
            "problems": [change.to_data() for change in self.problems],
            "error_codes": [change.to_data() for change in self.error_codes],
            "status_codes": [change.to_data() for change in self.status_codes],
            "hosts": [change.to_data() for change in self.hosts],
            "endpoints": [change.to_data() for change in self.endpoints],
            "durations": [shift.to_data() for shift in self.durations],
            "traffic": {
                "hosts": self.traffic_hosts.to_data(),
                "endpoints": self.traffic_endpoints.to_data(),
            },
        }
