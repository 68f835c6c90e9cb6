"""The statistics: a fold that can be split, merged, saved and bounded without losing a count."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flowtally import tally as module
from flowtally.journal import check
from flowtally.tally import OTHER
from flowtally.tally import Histogram
from flowtally.tally import Tally
from flowtally.tally import endpoint
from flowtally.times import timestamp
from flowtally.vocabulary import CAUSES
from flowtally.vocabulary import STATUS_TAGS
from flowtally.vocabulary import status_tag
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

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
        st.one_of(STATUS, FAILURE, PLAIN, EVENT),
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


@given(RECORDS)
def test_nothing_is_counted_twice_or_left_out(records: list[Record]) -> None:
    assert_sums(fold(records))


@given(RECORDS, st.data())
def test_a_merge_is_the_fold_of_both(records: list[Record], data: st.DataObject) -> None:
    records = [record | {"flow": str(i)} for i, record in enumerate(records)]
    cut = data.draw(st.integers(0, len(records)))
    merged = fold(records[:cut])
    merged.merge(fold(records[cut:]))
    assert plain(merged) == plain(fold(records))
    assert_sums(merged)


@given(RECORDS)
def test_saved_and_loaded(records: list[Record]) -> None:
    tally = fold(records)
    data = json.loads(json.dumps(tally.to_data()))
    loaded = Tally.from_data(data)
    assert loaded.to_data() == tally.to_data()
    loaded.merge(fold(records))
    assert loaded.flows == 2 * tally.flows


@given(RECORDS)
@settings(max_examples=30)
def test_a_limited_view_has_the_same_sums(records: list[Record]) -> None:
    data = fold(records).to_data(limit=1)
    assert sum(row["flows"] for row in data["hosts"].values()) == data["flows"]
    assert sum(row["flows"] for row in data["endpoints"].values()) == data["flows"]
    assert len(data["hosts"]) <= 2


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


def test_endpoints_without_a_url() -> None:
    record = {"kind": "tcp", "host": "h", "port": 5}
    assert endpoint(record) == "TCP h:5"
    assert endpoint({"kind": "dns", "method": "A", "host": "h"}) == "A h"


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.dictionaries(st.text(), x)))
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
