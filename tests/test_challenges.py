"""Requests that answer a 401 or 407, without a proxy: which one answers which, and bounds."""

from __future__ import annotations

from typing import Any

import pytest
from flowtally.challenges import MAX_AGE
from flowtally.challenges import MAX_CHALLENGES
from flowtally.challenges import MAX_OF_A_REQUEST
from flowtally.challenges import Challenges
from flowtally.vocabulary import STATUS_TAGS
from flowtally.vocabulary import Tag
from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy.proxy import mode_specs
from mitmproxy.test import tflow

NOW = 1000.0
BASIC: dict[str, Any] = {"authorization": "Basic dXNlcjpzZWNyZXQ="}
PROXY: dict[str, Any] = {"proxy-authorization": "Basic dXNlcjpzZWNyZXQ="}
NEGOTIATED = {"proxyauth": ("user", "secret")}


def flow(
    name: str,
    status: int,
    path: str = "/",
    *,
    method: str = "GET",
    client: str = "10.0.0.1",
    time: float = NOW,
    begun: float | None = None,
    metadata: dict[str, Any] | None = None,
    mode: str = "regular",
    **headers: Any,
) -> http.HTTPFlow:
    made = tflow.tflow(resp=http.Response.make(status, b""))
    made.id, made.request.path, made.request.method = name, path, method
    made.client_conn.peername = (client, 1)
    made.client_conn.proxy_mode = mode_specs.ProxyMode.parse(mode)
    made.client_conn.id = name
    assert made.response
    made.request.timestamp_start = time if begun is None else begun
    made.response.timestamp_start = made.response.timestamp_end = time
    for header, value in headers.items():
        made.request.headers[header] = value
    made.metadata.update(metadata or {})
    return made


def take(challenges: Challenges, ended: http.HTTPFlow, tag: Tag | None = None) -> str:
    """The id of the challenge that a flow answers, or ""."""
    assert ended.response
    found = challenges.take(ended, tag or STATUS_TAGS[ended.response.status_code])
    if not found:
        return ""
    assert found.keys() == {"answers", "challenge"}
    return str(found["answers"])


def test_a_program_logs_in_for_itself_alone() -> None:
    for other, answers in (("curl/8", "a"), ("Mozilla/5.0", "")):
        challenges = Challenges()
        asked, given = flow("a", 401), flow("b", 200, **BASIC)
        asked.request.headers["user-agent"] = "curl/8"
        given.request.headers["user-agent"] = other
        take(challenges, asked)
        assert take(challenges, given) == answers


# --- which request answers which ---

# A flow: name, status, what else it has. Expected: name → the challenge that it answers.
CASES: dict[str, tuple[list[http.HTTPFlow], dict[str, str]]] = {
    "basic": ([flow("a", 401), flow("b", 200, **BASIC)], {"b": "a"}),
    "redirected when logged in": ([flow("a", 401), flow("b", 302, **BASIC)], {"b": "a"}),
    "three steps": (
        [flow("a", 401), flow("b", 401, **BASIC), flow("c", 200, **BASIC)],
        {"b": "a", "c": "b"},
    ),
    "a wrong password": ([flow("a", 401), flow("b", 401, **BASIC)], {"b": "a"}),
    "a token that had run out": (
        [flow("a", 401, **BASIC), flow("b", 200, "/token"), flow("c", 200, **BASIC)],
        {"c": "a"},
    ),
    "asked again without credentials": (
        [flow("a", 401), flow("b", 401), flow("c", 200, **BASIC)],
        {"c": "b"},
    ),
    "answered only once": (
        [flow("a", 401), flow("b", 200, **BASIC), flow("c", 200, **BASIC)],
        {"b": "a"},
    ),
    "two at once": (
        [flow("a", 401), flow("b", 401), flow("c", 200, **BASIC), flow("d", 200, **BASIC)],
        {"c": "b", "d": "a"},
    ),
    "at once": ([flow("a", 401), flow("b", 200, begun=NOW, time=NOW + 5, **BASIC)], {"b": "a"}),
    "to the proxy": ([flow("a", 407), flow("b", 200, **PROXY)], {"b": "a"}),
    "to both": (
        [flow("a", 407), flow("b", 401, **PROXY), flow("c", 200, **PROXY, **BASIC)],
        {"b": "a", "c": "b"},
    ),
    "to mitmproxy, which takes the header away": (
        [flow("a", 407), flow("b", 200, metadata=NEGOTIATED)],
        {"b": "a"},
    ),
    "to mitmproxy in front of a server": (
        [
            flow("a", 401, mode="reverse:http://h"),
            flow("b", 200, mode="reverse:http://h", metadata=NEGOTIATED),
        ],
        {"b": "a"},
    ),
    # None of these is an answer.
    "no credentials": ([flow("a", 401), flow("b", 200)], {}),
    "other credentials": ([flow("a", 401), flow("b", 200, **PROXY)], {}),
    "credentials of the tunnel": ([flow("a", 401), flow("b", 200, metadata=NEGOTIATED)], {}),
    "credentials of the server's": ([flow("a", 407), flow("b", 200, **BASIC)], {}),
    "refused": ([flow("a", 401), flow("b", 403, **BASIC)], {}),
    "failed": ([flow("a", 401), flow("b", 500, **BASIC)], {}),
    "another path": ([flow("a", 401), flow("b", 200, "/b", **BASIC)], {}),
    "another method": ([flow("a", 401), flow("b", 200, method="POST", **BASIC)], {}),
    "another client": ([flow("a", 401), flow("b", 200, client="10.0.0.2", **BASIC)], {}),
    "asked before": ([flow("a", 401), flow("b", 200, begun=NOW - 0.1, time=NOW + 5, **BASIC)], {}),
    "no challenge": ([flow("a", 403), flow("b", 200, **BASIC)], {}),
}


@pytest.mark.parametrize(("flows", "expected"), CASES.values(), ids=CASES)
def test_which_request_answers_which(flows: list[http.HTTPFlow], expected: dict[str, str]) -> None:
    challenges = Challenges()
    found = {ended.id: take(challenges, ended) for ended in flows}
    assert {name: of for name, of in found.items() if of} == expected


def test_the_status_of_the_challenge_is_told() -> None:
    for status, headers in ((401, BASIC), (407, PROXY)):
        challenges = Challenges()
        take(challenges, flow("a", status))
        found = challenges.take(flow("b", 200, **headers), STATUS_TAGS[200])
        assert found == {"answers": "a", "challenge": status}


HEAD = {name: STATUS_TAGS[200][name] for name in ("status", "band", "description")}


@pytest.mark.parametrize(
    ("tag", "answers"),
    [
        ({**HEAD, "outcome": "cancelled", "cause": "client_cancelled"}, "a"),
        ({**HEAD, "outcome": "error", "cause": "http_response_incomplete"}, "a"),
        ({"outcome": "error", "cause": "connection_terminated"}, ""),
    ],
)
def test_credentials_are_accepted_with_the_head_of_the_answer(tag: Tag, answers: str) -> None:
    challenges = Challenges()
    take(challenges, flow("a", 401))
    ended = flow("b", 200, **BASIC)
    if "status" not in tag:
        ended.response = None
    found = challenges.take(ended, tag)
    assert found.get("answers", "") == answers


@pytest.mark.parametrize(
    "tag",
    [
        {**STATUS_TAGS[401], "cause": "cors_blocked"},
        {**STATUS_TAGS[401], "outcome": "error", "cause": "http_response_incomplete"},
    ],
)
def test_what_is_another_problem_as_well_is_not_answered(tag: Tag) -> None:
    challenges = Challenges()
    take(challenges, flow("a", 401), tag)
    assert take(challenges, flow("b", 200, **BASIC)) == ""


# --- tunnels ---


def connect(name: str, status: int, connection: str, **headers: Any) -> http.HTTPFlow:
    made = flow(name, status, method="CONNECT", **headers)
    made.client_conn.id = connection
    return made


@pytest.mark.parametrize("connection", ["1", "2"])  # the client may keep the one it has
def test_the_first_flow_of_a_tunnel_answers_for_it(connection: str) -> None:
    challenges = Challenges()
    take(challenges, connect("a", 407, "1"))
    challenges.tunnel(connect("b", 200, connection, **PROXY))
    elsewhere, first, second = flow("x", 200), flow("c", 200), flow("d", 200)
    first.client_conn.id = second.client_conn.id = connection
    assert [take(challenges, ended) for ended in (elsewhere, first, second)] == ["", "a", ""]
    assert not challenges


def test_it_may_be_of_any_kind_and_fail() -> None:
    for inside in (tflow.ttcpflow(), tflow.ttcpflow(err=True), tflow.tflow(err=True)):
        challenges = Challenges()
        take(challenges, connect("a", 407, "1"))
        challenges.tunnel(connect("b", 200, inside.client_conn.id, **PROXY))
        tag = {"outcome": "error", "cause": "connection_terminated"}
        assert challenges.take(inside, tag) == {"answers": "a", "challenge": 407}


def test_what_a_request_in_the_tunnel_answers_itself_goes_first() -> None:
    challenges = Challenges()
    take(challenges, flow("page", 401))
    take(challenges, connect("a", 407, "1"))
    challenges.tunnel(connect("b", 200, "1", **PROXY))
    first, second = flow("c", 200, **BASIC), flow("d", 200)
    first.client_conn.id = second.client_conn.id = "1"
    assert [take(challenges, ended) for ended in (first, second)] == ["page", "a"]


@pytest.mark.parametrize(
    "opened",
    [
        connect("b", 200, "1"),  # without credentials
        flow("b", 200, "/elsewhere", method="CONNECT", **PROXY),
        flow("b", 200, method="CONNECT", client="10.0.0.2", **PROXY),
    ],
)
def test_a_tunnel_that_answers_nothing(opened: http.HTTPFlow) -> None:
    challenges = Challenges()
    take(challenges, connect("a", 407, "1"))
    challenges.tunnel(opened)
    inside = flow("c", 200)
    inside.client_conn.id = opened.client_conn.id
    assert not challenges._tunnels
    assert take(challenges, inside) == ""


# --- bounds ---


@pytest.mark.parametrize(("later", "answered"), [(0.0, "a"), (0.001, "")])
def test_how_long_an_answer_may_take(later: float, answered: str) -> None:
    challenges = Challenges()
    take(challenges, flow("a", 401))
    late = flow("b", 200, time=NOW + MAX_AGE + later, **BASIC)
    assert take(challenges, late) == answered


def test_old_challenges_are_forgotten_when_new_ones_come() -> None:
    challenges = Challenges()
    take(challenges, flow("a", 401, "/old"))
    take(challenges, flow("b", 401, "/new", time=NOW + MAX_AGE + 1))
    assert len(challenges._waiting) == 1
    later: dict[str, Any] = {"time": NOW + MAX_AGE + 2, **BASIC}
    assert take(challenges, flow("c", 200, "/old", **later)) == ""
    assert take(challenges, flow("d", 200, "/new", **later)) == "b"
    assert not challenges
    assert not challenges._clients


def test_bounded() -> None:
    challenges = Challenges()
    for number in range(MAX_CHALLENGES + 1):
        path, client = f"/{number}", f"client {number}"
        take(challenges, flow(f"{number}", 401, path, client=client))
    assert len(challenges._waiting) == len(challenges._clients) == MAX_CHALLENGES
    assert take(challenges, flow("b", 200, "/0", client="client 0", **BASIC)) == ""
    assert take(challenges, flow("b", 200, "/1", client="client 1", **BASIC)) == "1"
    # One request, again and again.
    for number in range(MAX_OF_A_REQUEST + 1):
        take(challenges, flow(f"{number}", 401, "/same"))
    found = [
        take(challenges, flow("b", 200, "/same", **BASIC)) for _ in range(MAX_OF_A_REQUEST + 1)
    ]
    assert found == [*(f"{number}" for number in range(MAX_OF_A_REQUEST, 0, -1)), ""]


def test_tunnels_without_a_flow_are_bounded() -> None:
    challenges = Challenges()
    for number in range(MAX_CHALLENGES + 1):
        take(challenges, connect("a", 407, "asked"))
        challenges.tunnel(connect("b", 200, f"{number}", **PROXY))
    assert len(challenges._tunnels) == MAX_CHALLENGES
    assert "0" not in challenges._tunnels
    assert challenges  # while there is a tunnel


def test_a_request_that_was_challenged_again_is_kept_longer_than_older_ones() -> None:
    challenges = Challenges()
    for number in range(MAX_CHALLENGES):
        take(challenges, flow(f"{number}", 401, f"/{number}"))
    take(challenges, flow("again", 401, "/0"))
    take(challenges, flow("one more", 401, "/more"))
    assert take(challenges, flow("b", 200, "/0", **BASIC)) == "again"
    assert take(challenges, flow("b", 200, "/1", **BASIC)) == ""


@pytest.mark.parametrize(("status", "answered"), [(304, "a"), (400, ""), (401, "a"), (403, "")])
def test_with_which_status_credentials_are_accepted(status: int, answered: str) -> None:
    challenges = Challenges()
    assert not challenges
    take(challenges, flow("a", 401))
    assert challenges
    assert take(challenges, flow("b", status, **BASIC)) == answered


def test_what_has_no_answer_or_broke_is_no_challenge() -> None:
    challenges = Challenges()
    broken, none = flow("a", 401), flow("b", 401)
    none.response = None
    assert challenges.take(broken, {"outcome": "error", "status": 401}) == {}
    assert challenges.take(none, {"outcome": "unfinished"}) == {}
    assert not challenges


def test_an_answer_whose_end_nobody_saw_counts_from_its_beginning() -> None:
    challenges = Challenges()
    first = flow("a", 401)
    assert first.response
    first.response.timestamp_end, first.response.timestamp_start = None, NOW
    take(challenges, first)
    assert take(challenges, flow("b", 200, **BASIC)) == "a"


def test_nothing_of_a_url_is_kept() -> None:
    challenges = Challenges()
    take(challenges, flow("a" * 1000, 401, "/" + "x" * 100_000))
    assert len(repr(challenges._waiting)) < 500


def test_of_most_flows_nothing_is_kept() -> None:
    challenges = Challenges()
    for ended in (flow("a", 200), flow("b", 404), flow("c", 500, **BASIC)):
        assert take(challenges, ended) == ""
        assert not challenges
    other: mflow.Flow = tflow.tdnsflow(resp=True)
    assert challenges.take(other, {"outcome": "ok"}) == {}
