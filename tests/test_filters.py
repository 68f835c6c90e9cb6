"""Which records are wanted: options, and expressions in mitmproxy's language."""

from __future__ import annotations

import time
from datetime import UTC
from datetime import datetime
from typing import Any

import pytest
from flowtally.filter_language import MAX_DEPTH
from flowtally.filter_language import FilterError
from flowtally.filter_language import parse
from flowtally.filters import Given
from flowtally.filters import in_words
from flowtally.filters import is_problem
from flowtally.filters import wanted
from flowtally.record import flow_record
from flowtally.tally import incident_of
from flowtally.vocabulary import COLLATERAL
from flowtally.vocabulary import STATUS_TAGS
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from mitmproxy import flow as mflow
from mitmproxy import flowfilter
from mitmproxy.test import tflow

Record = dict[str, Any]

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def record(**fields: Any) -> Record:
    return {
        "type": "flow",
        "time": "2026-01-31T11:00:00.000Z",
        "kind": "http",
        "method": "GET",
        "url": "http://api.shop.example:8080/v1/items?page=",
        "host": "api.shop.example",
        "port": 8080,
        "client": "10.0.0.1",
        "client_port": 5000,
        **STATUS_TAGS[200],
    } | fields


REFUSED = record(
    outcome="error", error_code=-2, cause="connection_refused", side="server", status=None
)
del REFUSED["status"], REFUSED["band"]
EXPIRED = REFUSED | {"cause": "tls_certificate_error", "reason": "expired"}
MISSING = record(**STATUS_TAGS[404])
EVENT = {
    "type": "event",
    "time": "2026-01-31T11:00:00.000Z",
    "host": "pinned.example",
    "error_code": -2,
    "cause": "client_tls_rejected",
    "side": "client",
}


@pytest.mark.parametrize(
    ("asked", "of", "holds"),
    [
        ({"causes": ["connection_refused"]}, REFUSED, True),
        ({"causes": ["connection_refused"]}, EXPIRED, False),
        ({"causes": ["connection_refused", "tls_certificate_error"]}, EXPIRED, True),
        ({"causes": ["tls_certificate_error:expired"]}, EXPIRED, True),
        ({"causes": ["tls_certificate_error:wrong_host"]}, EXPIRED, False),
        ({"causes": ["tls_certificate_error:"]}, EXPIRED, False),
        ({"causes": ["tls_certificate_error:expired"]}, REFUSED | {"reason": "expired"}, False),
        ({"causes": ["client_tls_rejected"]}, EVENT, True),
        ({"statuses": ["404"]}, MISSING, True),
        ({"statuses": ["404"]}, record(), False),
        ({"statuses": ["404"]}, REFUSED, False),
        ({"statuses": ["4xx"]}, MISSING, True),
        ({"statuses": ["5XX"]}, MISSING, False),
        ({"statuses": ["4xx"]}, record(**STATUS_TAGS[503]), False),
        ({"statuses": ["7"]}, record(status=7), True),
        ({"statuses": ["4xx"]}, EVENT, False),
        ({"statuses": ["client error"]}, MISSING, True),
        ({"statuses": ["Success"]}, MISSING, False),
        ({"statuses": ["200", "404"]}, MISSING, True),
        ({"hosts": ["api.shop.example"]}, record(), True),
        ({"hosts": ["API.Shop.example."]}, record(), True),
        ({"hosts": ["shop.example"]}, record(), True),
        ({"hosts": ["hop.example"]}, record(), False),
        ({"hosts": ["api.shop.example"]}, record(host="API.Shop.example"), True),
        ({"hosts": ["shop.example:8080"]}, record(), True),
        ({"hosts": ["shop.example:8081"]}, record(), False),
        ({"hosts": ["*.shop.*"]}, record(), True),
        ({"hosts": ["shop.*"]}, record(), False),
        ({"hosts": ["api.*"]}, record(), True),
        ({"hosts": ["pinned.example"]}, EVENT, True),
        ({"hosts": ["api.shop.exampl?"]}, record(), False),
        ({"hosts": ["[a]pi.*"]}, record(), False),
        ({"hosts": ["::1"]}, record(host="::1", port=8443), True),
        ({"hosts": ["[::1]"]}, record(host="::1", port=8443), True),
        ({"hosts": ["[::1]:8443"]}, record(host="::1", port=8443), True),
        ({"hosts": ["::1:8443"]}, record(host="::1", port=8443), True),
        ({"hosts": ["[::1]:8443"]}, record(host="[::1]", port=8443), True),
        ({"hosts": ["::1"]}, record(host="[::1]", port=443), True),
        ({"hosts": ["[::1]:8444"]}, record(host="::1", port=8443), False),
        ({"hosts": ["[::1]8443"]}, record(host="::1", port=8443), False),
        ({"hosts": ["[FE80::*]:*"]}, record(host="fe80::2", port=8443), True),
        ({"hosts": ["[FE80::*]:*"]}, record(host="::1", port=8443), False),
        ({"paths": ["/v1/items"]}, record(), True),
        ({"paths": ["/v1"]}, record(), False),
        ({"paths": ["/v1/*"]}, record(), True),
        ({"paths": ["*items"]}, record(), True),
        ({"paths": ["/"]}, record(url="http://h"), True),
        ({"paths": ["*"]}, record(url="http://[h/"), True),
        ({"paths": ["/*"]}, record(url="http://[h/"), False),
        ({"paths": ["*"]}, EVENT, False),
        ({"paths": ["/app/[slug]/page.js"]}, record(url="http://h/app/[slug]/page.js"), True),
        ({"paths": ["/app/[slug]/*"]}, record(url="http://h/app/[slug]/page.js"), True),
        ({"paths": ["/app/[slug]/*"]}, record(url="http://h/app/s/page.js"), False),
        ({"paths": ["/items[0]"]}, record(url="http://h/items[0]"), True),
        ({"paths": ["/items[0]"]}, record(url="http://h/items0"), False),
        ({"paths": ["/[!a]*"]}, record(url="http://h/[!a]b"), True),
        ({"paths": ["/a.b"]}, record(url="http://h/axb"), False),
        ({"paths": ["/x/{id}"]}, record(url="http://h/x/12"), True),
        ({"paths": ["/x/{id}"]}, record(url="http://h/x/y"), False),
        ({"paths": ["/x[0]/{id}/*"]}, record(url="http://h/x[0]/12/a"), True),
        ({"since": "2026-01-31T11:00:00Z"}, record(), True),
        ({"since": "2026-01-31T11:00:00.001Z"}, record(), False),
        ({"since": "2026-01-31T12:00:00+01:00"}, record(), True),
        ({"until": "2026-01-31T11:00:00Z"}, record(), True),
        ({"until": "2026-01-31T10:59:59.999Z"}, record(), False),
        ({"since": "60m"}, record(), True),
        ({"since": "3599s"}, record(), False),
        ({"since": "1h", "until": "1h"}, record(), True),
        ({"until": "1d"}, record(), False),
        ({"since": "2026-01-31T11:00:00.010Z"}, record(time="2026-01-31T11:00:00.009Z"), False),
        ({"problems": True}, REFUSED, True),
        ({"problems": True}, MISSING, True),
        ({"problems": True}, EVENT, True),
        ({"problems": True}, record(), False),
        ({"problems": True}, REFUSED | {"background": "firefox"}, False),
        ({"problems": True}, REFUSED | {"reason": "collateral"}, False),
        ({"incidents": [incident_of(REFUSED)]}, REFUSED, True),
        ({"incidents": [incident_of(REFUSED)[:4]]}, REFUSED, True),
        ({"incidents": [incident_of(REFUSED)]}, EXPIRED, False),
        ({"incidents": ["0000"]}, record(), False),
        ({"expressions": ["~c 404"]}, MISSING, True),
        ({"expressions": ["~c 404", "~m POST"]}, MISSING, False),
        ({"statuses": ["404"], "hosts": ["other.example"]}, MISSING, False),
        ({"statuses": ["404"], "hosts": ["shop.example"]}, MISSING, True),
    ],
    ids=str,
)
def test_what_an_option_means(asked: Record, of: Record, holds: bool) -> None:
    found = wanted(Given(**asked), NOW)
    assert found is not None
    assert found(of) is holds


def test_nothing_asked_for_is_no_filter() -> None:
    assert wanted(Given(), NOW) is None
    assert in_words(Given()) == ""


def test_what_is_asked_for_in_words() -> None:
    asked = Given(
        ["dns_error", "unknown"], ["4xx"], ["a b"], ["/x"], "10m", "9:00", True, ["1a2b"], ["~d x"]
    )
    assert in_words(asked) == (
        "--cause dns_error --cause unknown --status 4xx --host 'a b' --path /x "
        "--since 10m --until 9:00 --incident 1a2b --problems '~d x'"
    )


def test_a_time_of_day_is_todays_on_this_machine() -> None:
    here = NOW.astimezone()
    found = wanted(Given(since=f"{here:%H:%M}"), NOW)
    assert found is not None
    assert found(record(time="2026-01-31T12:00:00.000Z"))
    assert not found(record(time="2026-01-31T11:59:59.999Z"))


def test_a_time_of_day_is_of_the_date_that_it_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Etc/GMT-14")  # where it is 2 o'clock, tomorrow
    time.tzset()
    try:
        found = wanted(Given(since="1:00"), NOW)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert found is not None
    assert found(record(time="2026-01-31T11:00:00.000Z"))
    assert not found(record(time="2026-01-31T10:59:59.999Z"))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"causes": ["refused"]},
            "--cause 'refused': there is no such cause; there are dns_error,",
        ),
        (
            {"causes": ["cancelled"]},
            "--cause 'cancelled': there is no such cause; did you mean client_cancelled? There are",
        ),
        ({"statuses": ["4x"]}, "--status '4x': allowed are a status code such as 404, a class"),
        (
            {"statuses": ["Error"]},
            "Informational, Success, Redirection, Client error, Server error",
        ),
        ({"hosts": ["http://shop/"]}, "--host 'http://shop/': allowed is a host"),
        ({"statuses": ["0xx"]}, "--status '0xx': allowed"),
        ({"statuses": ["6xx"]}, "--status '6xx': allowed"),
        ({"hosts": [""]}, "--host '': allowed"),
        ({"paths": ["v1"]}, "--path 'v1': a path begins with /"),
        ({"paths": ["/v1?a=1"]}, "--path '/v1?a=1': a path has no query"),
        ({"since": "yesterday"}, "--since 'yesterday': allowed are a time such as 14:30 or"),
        ({"until": "25:00"}, "--until '25:00': allowed"),
        ({"until": "999999d"}, "--until '999999d': allowed"),
        ({"incidents": ["xyz"]}, "--incident 'xyz': an id is of 8 hexadecimal digits"),
        ({"incidents": ["abc"]}, "4 will do"),
        ({"incidents": ["123456789"]}, "8 hexadecimal digits"),
        ({"expressions": ["~b x"]}, "the log keeps no bodies; allowed are ~all, ~c, ~d,"),
    ],
    ids=str,
)
def test_what_means_nothing_is_refused(asked: Record, message: str) -> None:
    with pytest.raises(FilterError) as error:
        wanted(Given(**asked), NOW)
    assert message in str(error.value)


# --- mitmproxy's language ---


@pytest.mark.parametrize(
    ("expression", "of", "holds"),
    [
        ("~all", EVENT, True),
        ("~c 404", MISSING, True),
        ("~c 40", MISSING, False),
        ("~d shop", record(), True),
        ("~d ^SHOP", record(), False),
        ("~d pinned", EVENT, True),
        ("~m ^post$", record(method="POST"), True),
        ("~u items", record(), True),
        ("items", record(), True),
        ("~src 10.0.0.1:5000", record(), True),
        ("~src 10", {"client_port": 1}, False),
        ("~http & !~websocket", record(), True),
        ("~websocket | ~http", record(kind="websocket"), True),
        ("~tcp", record(kind="tcp"), True),
        ("~udp", record(), False),
        ("~dns ~u example", record(kind="dns", url=None, host="example.org"), True),
        ("~replay", record(replay="request"), True),
        ("~replays", record(replay="request"), False),
        ("!(~c 404 | ~c 500) ~d shop", record(), True),
        ("~c 404 | ~c 200 ~m POST", record(), False),  # nothing in between binds least
        ("~c 404 | ~c 200 & ~m POST", MISSING, True),
        ("~u 'v1/items'", record(), True),
        (r'~u "a\"b"', record(url='http://h/a"b'), True),
        ("~u a|items", record(), True),
        ("  ~all  ", record(), True),
    ],
)
def test_what_an_expression_means(expression: str, of: Record, holds: bool) -> None:
    assert parse(expression)(of) is holds


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("~h x", "'~h' is not possible here: the log keeps no headers; allowed are ~all"),
        ("~e", "use --problems, --cause or --status"),
        ("~nobody", "nobody knows it"),
        ("~d", "its end where ~d needs a pattern"),
        ("~d ~c 1", "'~c' where ~d needs a pattern"),
        ("~c", "its end where ~c needs a status code"),
        ("~c x", "'x' is no status code"),
        ("~u [", "'[' is no regular expression"),
        ("(~all", "its end where a ) must stand"),
        ("~all)", "')' cannot stand there"),
        ("~all &", "its end where a condition must stand"),
        ("!", "its end where a condition"),
        ("", "its end where a condition"),
        ("'x", 'cannot be read from "\'x" on'),
        ("~", "cannot be read from '~' on"),
        ("(" * 60 + "~all" + ")" * 60, "lies too deep"),
        ("x" * 20_000, "a filter of 20000 characters"),
    ],
    ids=lambda text: text[:20],
)
def test_an_expression_that_means_nothing_here_is_refused(expression: str, message: str) -> None:
    with pytest.raises(FilterError) as error:
        parse(expression)
    assert message in str(error.value)


def test_brackets_may_lie_as_deep_as_that() -> None:
    depth = MAX_DEPTH - 1
    assert parse("(" * depth + "~all" + ")" * depth)({})


ATOMS = st.sampled_from(
    [
        *("~all", "~http", "~tcp", "~udp", "~dns", "~websocket", "~replay", "~replayq", "~replays"),
        *("~c 200", "~c 404", "~d add", "~d example", "~m GET", "~m 'po?st'", "~u path"),
        *("~u '/x'", "~src 127", "path", '"http:"'),
    ]
)


def joined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(inner, st.sampled_from([" & ", " | "]), inner)
    return inner.map("!( {} )".format) | pairs.map(lambda parts: f"( {''.join(parts)} )")


EXPRESSIONS = st.lists(st.recursive(ATOMS, joined, max_leaves=6), min_size=1, max_size=3)


def flows() -> list[mflow.Flow]:
    post = tflow.tflow(resp=True)
    post.request.method, post.request.path = "POST", "/x"
    assert post.response is not None
    post.response.status_code = 404
    replayed = tflow.tflow(err=True)
    replayed.is_replay = "request"
    return [
        *(tflow.tflow(), tflow.tflow(resp=True), tflow.tflow(ws=True), post, replayed),
        *(tflow.ttcpflow(), tflow.tudpflow(), tflow.tdnsflow(resp=True)),
    ]


@settings(max_examples=20)  # mitmproxy takes long to read one
@given(EXPRESSIONS)
def test_it_means_what_it_means_to_mitmproxy(expressions: list[str]) -> None:
    expression = " ".join(expressions)
    ours, theirs = parse(expression), flowfilter.parse(expression)
    for flow in flows():
        kind = "websocket" if getattr(flow, "websocket", None) else flow.type
        status = getattr(getattr(flow, "response", None), "status_code", 0)
        tag: Any = STATUS_TAGS[status] if status else {"outcome": "ok"}
        found = ours(flow_record(flow, kind, tag, "0", "full"))
        assert found is bool(theirs(flow)), (expression, flow)


def test_a_problem_is_one_whatever_its_outcome() -> None:
    assert is_problem(MISSING | {"cause": "grpc_error"})
    assert not is_problem(record())


def test_a_peer_cannot_make_a_problem_none() -> None:
    blamed = MISSING | {"cause": "graphql_error", "reason": COLLATERAL}
    assert is_problem(blamed), "an operation can have that name"
    assert not is_problem(blamed | {"outcome": "error", "cause": "connection_terminated"})
