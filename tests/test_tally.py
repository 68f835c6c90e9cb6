"""The statistics: a fold that can be split, merged, saved and bounded without losing a count."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from flowtally import tally as module
from flowtally.tally import OTHER
from flowtally.tally import SLOWEST
from flowtally.tally import Histogram
from flowtally.tally import Tally
from flowtally.tally import endpoint
from flowtally.tally import endpoint_name
from flowtally.tally import fold_many
from flowtally.times import timestamp
from flowtally.valid import check
from flowtally.vocabulary import CAUSES
from flowtally.vocabulary import KNOWN
from flowtally.vocabulary import STATUS_TAGS
from flowtally.vocabulary import status_tag
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

SCHEMA = Draft202012Validator(
    json.loads((KNOWN / "record.schema.json").read_text(encoding="utf-8"))
)

Record = dict[str, Any]


def flow(number: int = 0, **fields: Any) -> Record:
    record: Record = {
        "type": "flow",
        "session": "0",
        "time": timestamp(1_000_000 + number),
        "flow": str(number),
        "kind": "http",
        "method": "GET",
        "url": f"http://host/{number}",
        "host": "host",
        "request_bytes": 1,
        "response_bytes": 10,
        "wait_ms": 5.0,
        "duration_ms": 7.5,
        **STATUS_TAGS[200],
    }
    record.update(fields)
    return record


def failed(cause: str = "connection_refused", **fields: Any) -> Record:
    record = flow(**fields)
    for name in ("status", "band", "description"):
        del record[name]
    error = CAUSES[cause].error
    record |= {"outcome": "error", "error_code": error.code, "error_name": error.name}
    return record | {"cause": cause, "side": CAUSES[cause].side}


def fold(records: list[Record]) -> Tally:
    tally = Tally()
    for record in records:
        assert check(record) == ""
        tally.add(record)
    return tally


# Any status, any cause, any kind of flow, with any of the optional fields.
STATUS = st.builds(
    lambda code, fields: flow(**{**status_tag(code), **fields}),
    st.one_of(st.sampled_from(list(STATUS_TAGS)), st.integers(-10, 10_000)),
    st.fixed_dictionaries({}),
)
FAILURE = st.builds(failed, st.sampled_from(list(CAUSES)))
PLAIN = st.builds(
    lambda outcome, kind: {
        name: value
        for name, value in flow(outcome=outcome, kind=kind).items()
        if name not in ("status", "band", "description", "url", "method")
    },
    st.sampled_from(["ok", "unfinished"]),
    st.sampled_from(["dns", "tcp", "udp"]),
)
WEBSOCKET = st.builds(
    lambda code: flow(kind="websocket", close_code=code, **STATUS_TAGS[101]),
    st.integers(1000, 1004),
)
OPEN = st.builds(lambda host: flow(outcome="unfinished", host=host), st.sampled_from("abcd"))
REDIRECT = st.builds(
    lambda tag: tag | {"error_code": -5, "error_name": "TooManyRedirects", "side": "server"},
    st.just(flow(cause="redirect_loop", **STATUS_TAGS[302])),
)
EVENT = st.builds(
    lambda cause: {
        "type": "event",
        "session": "0",
        "time": timestamp(1_000_000),
        "error_code": CAUSES[cause].error.code,
        "error_name": CAUSES[cause].error.name,
        "cause": cause,
        "side": CAUSES[cause].side,
    },
    st.sampled_from(list(CAUSES)),
)
RECORDS = st.lists(
    st.builds(
        lambda record, extra: record | extra,
        st.one_of(STATUS, FAILURE, PLAIN, WEBSOCKET, OPEN, REDIRECT, EVENT),
        st.fixed_dictionaries(
            {"time": st.integers(0, 2**31).map(timestamp)},
            optional={
                "host": st.sampled_from(["a", "b", "c"]),
                "flow": st.text(max_size=3),
                "wait_ms": st.floats(0, 1e9),
                "duration_ms": st.floats(0, 1e9),
                "response_bytes": st.integers(0, 2**40),
            },
        ),
    )
)


def assert_sums(tally: Tally) -> None:
    assert sum(tally.outcomes.values()) == tally.flows
    assert sum(row.flows for _, row, _ in tally.bands()) == tally.outcomes["status"]
    assert sum(row.flows for row in tally.hosts.values()) == tally.flows
    assert sum(row.events for row in tally.hosts.values()) == tally.events
    assert sum(row.flows for row in tally.endpoints.values()) == tally.flows
    assert sum(sum(methods.values()) for methods in tally.kinds.values()) == tally.flows
    assert sum(map(sum, tally.timeline.values())) == tally.flows + tally.events
    second_view = sum(
        row.count
        for code, rows in tally.errors.items()
        if code not in (-3, -5)
        for row in rows.values()
    )
    breaking = tally.outcomes["error"] + tally.events
    # A failure may have any code but -3; only failures have the codes other than -3 and -5.
    assert second_view <= breaking
    assert sum(row.response_bytes for row in tally.hosts.values()) == tally.response_bytes
    assert tally.unfinished.count == tally.outcomes["unfinished"]
    assert sum(tally.unfinished.hosts.values()) == tally.outcomes["unfinished"]
    http = sum(tally.kinds.get("http", {}).values())
    assert sum(row.flows for row in tally.protocols.values()) == tally.flows - http
    assert sum(tally.close_codes.values()) == sum(tally.kinds.get("websocket", {}).values())


@given(RECORDS)
@settings(deadline=None)
def test_nothing_is_counted_twice_or_left_out(records: list[Record]) -> None:
    assert_sums(fold(records))


@given(RECORDS, st.data())
@settings(deadline=None)
def test_a_merge_is_the_fold_of_both(records: list[Record], data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(records)), max_size=3).map(sorted))
    merged = Tally()
    for begin, end in pairwise([0, *cuts, len(records)]):
        merged.merge(fold(records[begin:end]))
    assert plain(merged) == plain(fold(records))
    assert_sums(merged)


TINY = {
    "MAX_HOSTS": 2,
    "MAX_ENDPOINTS": 2,
    "MAX_CODES": 2,
    "MAX_METHODS": 1,
    "MAX_CAUSES": 2,
    "MAX_HOSTS_OF_A_CAUSE": 2,
    "MAX_CLOSE_CODES": 2,
    "WIDER": 3,
}


@given(RECORDS, RECORDS, RECORDS)
@settings(deadline=None)
def test_a_part_that_fits_is_the_fold(
    first: list[Record], second: list[Record], third: list[Record]
) -> None:
    """Also where tables overflow, and where the whole goes on after the part was made."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in TINY.items():
            patch.setattr(module, name, value)
        whole = fold(first)
        part = whole.part()
        for record in second:
            whole.add(record)
        for record in third:
            part.add(record)
        fits = whole.fits(part)
        whole.merge(part)
        assert_sums(whole)
        expected = plain(fold([*first, *second, *third]))
        assert plain(whole) == expected if fits else OTHER in str(expected)


def test_what_a_part_must_not_mix_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which hosts are kept of causes that end up under `(other)` depends on their order."""
    for name, value in TINY.items():
        monkeypatch.setattr(module, name, value)
    causes = [name for name, cause in CAUSES.items() if cause.error.code == -2]
    whole = fold([failed(causes[0]), failed(causes[1])])
    part = Tally().part()
    for number, cause in enumerate([causes[2], causes[3], causes[2]]):
        part.add(failed(cause, host=f"h{number}"))
    assert part.exact
    assert not whole.fits(part)
    assert fold([]).fits(part)


def test_a_part_holds_more_hosts_of_a_known_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TINY.items():
        monkeypatch.setattr(module, name, value)
    whole = fold([failed(host="h")])
    part = whole.part()
    for number in range(4):
        part.add(failed(host=f"h{number}"))
    assert not part.errors[-2]["connection_refused"].hosts.overflowed


def test_a_part_of_full_tables_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TINY.items():
        monkeypatch.setattr(module, name, value)
    records = [
        failed(
            cause, number=number, host=f"h{number}", url=f"http://h/{number}x", method=f"M{number}"
        )
        for number, cause in enumerate([*CAUSES] * 3)
    ]
    whole = fold(records)
    part = whole.part()
    for record in reversed(records):
        part.add(record)
    assert whole.fits(part)
    fresh = Tally().part()
    for record in records:
        fresh.add(record)
    assert not fresh.exact
    assert not whole.fits(fresh)


@given(RECORDS)
@settings(deadline=None)
def test_saved_and_loaded(records: list[Record]) -> None:
    tally = fold(records)
    data = json.loads(json.dumps(tally.to_data()))
    loaded = Tally.from_data(data)
    assert loaded.to_data() == tally.to_data()
    loaded.merge(fold(records))
    assert loaded.flows == 2 * tally.flows


@given(RECORDS)
@settings(max_examples=30, deadline=None)
def test_a_limited_view_has_the_same_sums(records: list[Record]) -> None:
    data = fold(records).to_data(limit=1)
    assert sum(row["flows"] for row in data["hosts"].values()) == data["flows"]
    assert sum(row["flows"] for row in data["endpoints"].values()) == data["flows"]
    assert len(data["hosts"]) <= 2


@given(RECORDS)
@settings(max_examples=30, deadline=None)
def test_statistics_are_as_the_schema_says(records: list[Record]) -> None:
    head = {"type": "stats", "session": "00000000", "time": timestamp(0), "log_bytes": 1}
    data = json.loads(json.dumps(head | {"final": True} | fold(records).to_data()))
    assert list(SCHEMA.iter_errors(data)) == []
    wrong: list[Record] = [{"protocols": {"dns": 1}}, {"close_codes": []}, {"unfinished": {}}]
    wrong += [{"slowest": [{}]}, {"slowest": [{"duration_ms": 1}] * 11}, {"log_bytes": -1}]
    for changes in wrong:
        assert list(SCHEMA.iter_errors(data | changes)) != []


def plain(tally: Tally) -> Any:
    """Plain data without the order of dictionaries."""
    return json.loads(json.dumps(tally.to_data(), sort_keys=True))


def test_the_views() -> None:
    tally = fold(
        [
            flow(1),
            flow(2, **status_tag(404, "Not found")),
            failed(number=3),
            flow(4, **STATUS_TAGS[302], error_code=-5, error_name="x", cause="redirect_loop"),
        ]
    )
    data = tally.to_data()
    assert data["outcomes"] == {"status": 3, "error": 1, "ok": 0, "unfinished": 0}
    assert {band: row["flows"] for band, row in data["bands"].items()} == {
        "Success": 1,
        "Redirection": 1,
        "Client error": 1,
    }
    assert data["bands"]["Client error"]["codes"]["404"]["description"] == "Not found"
    assert {code: error["count"] for code, error in data["errors"].items()} == {
        "-2": 1,
        "-3": 1,
        "-5": 1,
    }
    assert list(data["errors"]["-3"]["causes"]) == ["404"]
    assert data["errors"]["-2"]["causes"]["connection_refused"]["hosts"] == {"host": 1}
    assert data["hosts"]["host"]["flows"] == 4
    assert (data["hosts"]["host"]["failures"], data["hosts"]["host"]["unsuccessful"]) == (1, 1)
    assert (data["request_bytes"], data["response_bytes"]) == (4, 40)


def test_the_latest_examples_are_kept() -> None:
    tally = fold([failed(number=i) for i in (9, 1, 8, 2, 7, 3, 6)])
    examples = tally.errors[-2]["connection_refused"].examples
    assert [example["flow"] for example in examples] == ["3", "6", "7", "8", "9"]


def test_the_slowest_requests_are_kept() -> None:
    durations = [5.0, 900.5, 3.0, *range(100, 112), 900.5, 1.25]
    records = [flow(number, duration_ms=ms) for number, ms in enumerate(durations)]
    records += [flow(99, duration_ms=10**6, kind="connect"), failed(number=98, duration_ms=901)]
    slowest = fold(records).slowest
    assert [example["duration_ms"] for example in slowest] == [
        901,
        900.5,
        900.5,
        *range(111, 104, -1),
    ]
    assert [example["flow"] for example in slowest[:3]] == ["98", "1", "15"]
    assert slowest[0]["cause"] == "connection_refused"
    assert slowest[1]["status"] == 200
    assert len(slowest) == SLOWEST


def test_protocols_close_codes_and_unfinished() -> None:
    socket = flow(1, kind="websocket", close_code=1001, **STATUS_TAGS[101])
    abnormal = failed(number=2, kind="websocket", close_code=1006, status=101)
    still_open = flow(3, outcome="unfinished", host="slow", port=8000)
    tally = fold([socket, abnormal, still_open, flow(4, close_code=1000), flow(5, kind="connect")])
    assert {kind: row.flows for kind, row in tally.protocols.items()} == {
        "websocket": 2,
        "connect": 1,
    }
    assert tally.protocols["websocket"].failures == 1
    assert tally.close_codes == {"1001": 1, "1006": 1}
    assert tally.unfinished.hosts == {"slow:8000": 1}
    assert [example["flow"] for example in tally.unfinished.examples] == ["3"]
    assert Tally.from_data(json.loads(json.dumps(tally.to_data()))).to_data() == tally.to_data()


def test_statistics_of_an_older_version_can_be_read() -> None:
    data = json.loads(json.dumps(fold([flow(), failed()]).to_data()))
    for name in ("protocols", "close_codes", "unfinished", "slowest"):
        del data[name]
    assert Tally.from_data(data).flows == 2


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_HOSTS", "MAX_ENDPOINTS", "MAX_CODES", "MAX_METHODS", "MAX_BUCKETS"):
        monkeypatch.setattr(module, name, 3)
    records = [
        flow(i * 1000, **status_tag(i), method=f"M{i}", host=f"h{i}", url=f"http://h{i}/p")
        for i in range(700)
    ]
    tally = fold(records)
    assert_sums(tally)
    for table in (tally.hosts, tally.endpoints, tally.kinds["http"]):
        assert len(table) == 4
        assert OTHER in table
    assert len(tally.codes) <= 3 + 5
    assert len(tally.timeline) <= 3
    assert sum(row.flows for row in tally.codes.values()) == 700
    again = Tally.from_data(json.loads(json.dumps(tally.to_data())))
    again.merge(tally)
    assert_sums(again)
    assert again.flows == 1400


def test_times_are_read_in_utc_whatever_the_zone_of_the_machine() -> None:
    tally = fold([flow(0)])
    assert list(tally.timeline) == [1_000_000]


@pytest.mark.parametrize("turn", [1, -1])
def test_each_record_is_counted_in_its_own_second(turn: int) -> None:
    times = {
        "1969-12-31T23:59:59.000Z": -1,
        "1969-12-31T23:59:59.999Z": -1,
        "1970-01-01T00:00:00.999Z": 0,
        "1970-01-01T00:00:00+00:01": -60,
        "1970-01-01T00:00:00.000Z": 0,
        "0001-01-01T00:00:00.000Z": -62135596800,
        "9999-12-31T23:59:59.999Z": 253402300799,
    }
    for first, second in pairwise([*times][::turn]):
        tally = fold([flow(time=first), flow(time=second)])
        if tally.width == 0:
            assert set(tally.timeline) == {times[first], times[second]}


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], list(range(1, 1001)), [0.05, 9e7, 1e12]])
def test_percentiles_are_within_two_percent(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(round(value * 1000), Histogram.index(round(value * 1000)))
    ordered = sorted(values)
    for name, share in histogram.PERCENTILES:
        true = ordered[max(0, -(-round(share * 100) * len(values) // 100) - 1)]
        if 0.1 <= true < 8e7:
            assert histogram.percentiles()[name] == pytest.approx(true, rel=0.0201)
    assert histogram.maximum == ordered[-1]


TIMES = st.lists(st.integers(0, 10**14) | st.sampled_from(Histogram.STARTS), max_size=60)


def test_the_buckets_of_histograms() -> None:
    starts = Histogram.STARTS
    assert len(starts) == Histogram.SIZE - 1
    assert starts == sorted(set(starts))
    for number, start in enumerate(starts):
        assert (Histogram.index(start - 1), Histogram.index(start)) == (number, number + 1)
    assert starts[-1] >= 86_400_000_000
    assert Histogram.index(10**18) == Histogram.SIZE - 1


def histogram(times: list[int]) -> Histogram:
    made = Histogram()
    for time in times:
        made.add(time, Histogram.index(time))
    return made


@given(TIMES, TIMES)
@settings(deadline=None)
def test_histograms_count_many_as_one_by_one(first: list[int], second: list[int]) -> None:
    assert Histogram.indices(first) == [Histogram.index(time) for time in first]
    expected = histogram(first + second).to_data()
    merged = histogram(first)
    merged.merge(histogram(second))
    assert merged.to_data() == expected
    many = histogram(first)
    many.add_many(Histogram.indices(second), sum(second), max(second, default=0))
    assert many.to_data() == expected
    assert Histogram.from_data(expected).to_data() == expected


@pytest.mark.parametrize(
    ("url", "folded"),
    [
        ("http://h/users/42", "GET http://h/users/{id}"),
        ("http://h/users/42/posts/7?x=1", "GET http://h/users/{id}/posts/{id}"),
        (
            "http://h/o/123e4567-e89b-12d3-a456-426614174000",
            "GET http://h/o/{id}",
        ),
        ("http://h/c/5f3759df5f3759df5f37", "GET http://h/c/{id}"),
        ("http://h/t/dQw4w9WgXcQdQw4w9WgXcQ", "GET http://h/t/{id}"),
        ("http://h/v1/index.html", "GET http://h/v1/index.html"),
        ("http://h/a-rather-long-name-in-words", "GET http://h/a-rather-long-name-in-words"),
        ("http://h", "GET http://h"),
        ("http://h/", "GET http://h/"),
        ("http://h/a//b", "GET http://h/a//b"),
        ("h:443", "GET h:443"),
    ],
)
def test_endpoints_fold_ids(url: str, folded: str) -> None:
    assert endpoint(flow(url=url)) == folded


DIGITS = set("0123456789")
HEX = DIGITS | set("abcdefABCDEF-")
WORD = DIGITS | set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
SEGMENTS = st.one_of(
    st.text(st.sampled_from("0123456789"), max_size=25),
    st.text(st.sampled_from("0123456789abcdefF-"), min_size=14, max_size=40),
    st.text(st.sampled_from("0aZ_"), min_size=18, max_size=22),
    st.text(st.sampled_from("0aZ_-.:?é٣²\t"), max_size=25),
    st.sampled_from(
        ["", "http:", "h", "abcdefabcdefabcdef", "d-e-a-d-b-e-e-f-d-e-a-d", "?", "x" * 99]
    ),
)


def is_id(segment: str) -> bool:
    """A number; a UUID, a hash, an object id; random text such as a base64url token."""
    letters = set(segment)
    if not letters & DIGITS:
        return False
    return (
        letters <= DIGITS
        or (len(segment) >= 16 and letters <= HEX)
        or (len(segment) >= 20 and letters <= WORD)
    )


@given(st.lists(st.lists(SEGMENTS, min_size=1).map("/".join), min_size=1))
@settings(deadline=None)
def test_endpoints_are_folded_as_said(urls: list[str]) -> None:
    many = fold_many([url.encode() for url in urls])
    for url, one_of_many in zip(urls, many, strict=True):
        segments = url.partition("?")[0].split("/")
        parts = segments[:1]
        for number, (before, segment) in enumerate(pairwise(segments)):
            starts_host = before.endswith(":") or (number and not before)
            parts.append("{id}" if is_id(segment) and not starts_host else segment)
        folded = "/".join(parts)
        assert one_of_many.decode() == folded
        assert endpoint_name("GET", url) == endpoint_name("GET", folded)
        assert endpoint_name("GET", folded)[4:] == (
            folded if len(folded) <= 200 else folded[:199] + "…"
        )


def test_endpoints_without_a_url() -> None:
    record = {"kind": "tcp", "host": "h", "port": 5}
    assert endpoint(record) == "TCP h:5"
    assert endpoint({"kind": "dns", "method": "A", "host": "h"}) == "A h"


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.dictionaries(st.text(), x)))
@settings(deadline=None)
def test_wrong_data_is_refused_with_a_reason(data: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        Tally.from_data(data)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("flows",), "x"),
        (("flows",), -1),
        (("flows",), True),
        (("first",), 5),
        (("outcomes", "nope"), 1),
        (("bands", "Success", "codes", "x"), {}),
        (("errors", "x"), {}),
        (("hosts", "host"), 5),
        (("hosts", "host", "wait_ms", "buckets", "99999"), 1),
        (("hosts", "host", "wait_ms", "buckets", "1"), 2**40),
        (("hosts", "host", "wait_ms", "max"), "x"),
        (("timeline", "seconds"), 7),
        (("timeline", "series"), []),
        (("timeline", "buckets", "x"), []),
        (("timeline", "buckets", "1"), [1]),
        (("kinds", "http"), 5),
        (("protocols", "dns"), 5),
        (("close_codes", "1000"), -1),
        (("unfinished",), 5),
        (("unfinished", "count"), -1),
        (("slowest",), {}),
        (("slowest",), [5]),
        (("slowest",), [{}]),
        (("slowest",), [{"duration_ms": "x"}]),
    ],
)
def test_one_wrong_value_is_refused(path: tuple[str, ...], value: Any) -> None:
    data = json.loads(json.dumps(fold([flow(), failed()]).to_data()))
    place = data
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=r".+"):
        Tally.from_data(data)
