"""The final tag of a flow: what its own shows, what a file kept, who answered, redirect chains."""

from __future__ import annotations

from typing import Any

import pytest
from flowtally import texts
from flowtally import vocabulary
from flowtally.classify import Note
from flowtally.classify import Rules
from flowtally.defects import Defects
from flowtally.internals import LAST_BYTE
from flowtally.tagger import Tagger
from mitmproxy import connection
from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy.test import tflow

RULES = Rules(vocabulary.STATUS_TAGS, 5.0)
ALERT = "TLS Error: [('SSL routines', '', 'tlsv13 alert certificate required')]"


def tagger(max_redirects: int = 20) -> Tagger:
    return Tagger(RULES, max_redirects, Defects())


def note(text: str = ALERT, rows: tuple[vocabulary.Message, ...] = ()) -> Note:
    row = vocabulary.find_message(rows, text) if rows else texts.tls_log_line(text)
    assert row is not None
    return Note(row, text)


def answered(status: int = 200, live: bool = True, **headers: str) -> http.HTTPFlow:
    flow = tflow.tflow(resp=http.Response.make(status, b"", headers))
    flow.live = live
    return flow


def failed(message: str, live: bool = True, saved: Any = None) -> http.HTTPFlow:
    flow = tflow.tflow(err=True)
    assert flow.error
    flow.error.msg, flow.live = message, live
    if saved is not None:
        flow.metadata["flowtally"] = saved
    return flow


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        (answered(404), vocabulary.STATUS_TAGS[404]),
        (answered(600), vocabulary.status_tag(600)),
        (tflow.tdnsflow(resp=True), {"outcome": "ok"}),
        (tflow.ttcpflow(), {"outcome": "ok"}),
        (tflow.tudpflow(), {"outcome": "ok"}),
        (tflow.tflow(), {"outcome": "unfinished"}),
    ],
)
def test_nothing_is_added_to_what_a_flow_shows(
    flow: mflow.Flow, expected: dict[str, Any], live: bool
) -> None:
    flow.live = live
    assert tagger().tag(flow) == expected


# --- what the session knew that saw a saved flow live ---

VAGUE, CLEAR = "server closed connection", "Connection killed."
SEEN = {"cause": "tls_alert_received", "detail": "the alert"}


@pytest.mark.parametrize(
    ("flow", "known", "cause", "detail"),
    [
        (failed(VAGUE, live=False, saved=SEEN), None, "tls_alert_received", "the alert"),
        (
            failed(VAGUE, live=False, saved={"cause": "tls_alert_received"}),
            None,
            "tls_alert_received",
            VAGUE,
        ),
        (
            failed(VAGUE, live=False, saved=SEEN | {"detail": 7}),
            None,
            "tls_alert_received",
            "7",
        ),
        # a failure that speaks for itself
        (failed(CLEAR, live=False, saved=SEEN), None, "http_request_denied", CLEAR),
        # a cause that no log line gives
        (
            failed(VAGUE, live=False, saved={"cause": "connection_read_timeout"}),
            None,
            "connection_terminated",
            VAGUE,
        ),
        (
            failed(VAGUE, live=False, saved={"cause": ["tls_alert_received"]}),
            None,
            "connection_terminated",
            VAGUE,
        ),
        (failed(VAGUE, live=False, saved="x"), None, "connection_terminated", VAGUE),
        (failed(VAGUE, live=False), None, "connection_terminated", VAGUE),
        # a live flow that is replayed has a tag as well, of before
        (failed(VAGUE, saved=SEEN), None, "connection_terminated", VAGUE),
        # a log line of now
        (
            failed(VAGUE, live=False, saved=SEEN | {"cause": "proxy_internal_error"}),
            note(),
            "tls_alert_received",
            f"{VAGUE} ({ALERT})",
        ),
        # which may explain nothing, and is the last word all the same
        (
            failed(VAGUE, live=False, saved=SEEN),
            note("No TLS context was provided", vocabulary.NOTE_MESSAGES),
            "connection_terminated",
            VAGUE,
        ),
        (failed(VAGUE), note(), "tls_alert_received", f"{VAGUE} ({ALERT})"),
    ],
)
def test_why_a_flow_failed(
    flow: http.HTTPFlow, known: Note | None, cause: str, detail: str
) -> None:
    tag = tagger().tag(flow, known)
    assert (tag["cause"], tag["detail"]) == (cause, detail)
    assert tag.items() >= vocabulary.error_fields(cause).items()
    assert tag["side"] == vocabulary.CAUSES[cause].side


@pytest.mark.parametrize("cause", ["too_many_redirects", "tls_alert_received"])
def test_an_answer_needs_no_explanation(cause: str, caplog: pytest.LogCaptureFixture) -> None:
    flow = answered(302, live=False)
    flow.metadata["flowtally"] = {"cause": cause}
    assert tagger().tag(flow) == vocabulary.STATUS_TAGS[302]
    assert caplog.text == ""


def test_of_other_protocols_a_file_says_all() -> None:
    flow = tflow.ttcpflow(err=True)
    assert flow.error
    flow.error.msg, flow.live = VAGUE, False
    flow.metadata["flowtally"] = SEEN
    assert tagger().tag(flow)["cause"] == "connection_terminated"


def test_a_tag_that_is_read_back_is_the_same() -> None:
    flow = failed(VAGUE)
    tag = tagger().tag(flow, note())
    flow.live, flow.metadata["flowtally"] = False, tag
    assert tagger().tag(flow) == tag


INACTIVITY = "Closing connection due to inactivity: Client(127.0.0.1:1, state=open)"
LEFT = "Client disconnected."


def cut_off_websocket() -> http.HTTPFlow:
    flow = tflow.twebsocketflow()
    assert flow.websocket
    flow.websocket.close_code, flow.websocket.closed_by_client = 1006, True
    return flow


def uploading() -> http.HTTPFlow:
    flow = failed(LEFT)
    flow.request.timestamp_end = None
    return flow


def begun(content_type: str, last_byte: float) -> http.HTTPFlow:
    """A response that had begun 5 s before its client left."""
    flow = failed(LEFT)
    assert flow.error
    flow.client_conn.timestamp_end = None
    head = http.Headers((), content_type=content_type)
    flow.response = http.Response.make(200, b"", head)
    flow.response.timestamp_start = flow.error.timestamp - 5
    setattr(flow, LAST_BYTE, flow.error.timestamp - last_byte)
    return flow


@pytest.mark.parametrize(
    ("flow", "known", "cause", "reason"),
    [
        (failed(LEFT), INACTIVITY, "http_response_timeout", "tcp_timeout"),
        (uploading(), INACTIVITY, "http_response_timeout", "tcp_timeout"),
        (cut_off_websocket(), INACTIVITY, "connection_read_timeout", "tcp_timeout"),
        (tflow.ttcpflow(), INACTIVITY, "connection_read_timeout", "tcp_timeout"),
        (cut_off_websocket(), "", "client_cancelled", None),
        (begun("text/plain", 0.0), "", "client_cancelled", None),
        (begun("text/plain", 4.95), "", "connection_read_timeout", None),
        (begun("text/event-stream", 4.95), "", "client_cancelled", "buffered"),
    ],
)
def test_how_a_client_left_is_read_back_as_it_was_seen(
    flow: mflow.Flow, known: str, cause: str, reason: str | None
) -> None:
    flow.live = True
    seen = note(known, vocabulary.NOTE_MESSAGES) if known else None
    tag = tagger().tag(flow, seen)
    assert (tag["cause"], tag.get("reason")) == (cause, reason)
    # A file has what mitmproxy saves, and the tag.
    flow.live = False
    flow.metadata["flowtally"] = tag
    saved = flow.copy()
    assert LAST_BYTE not in vars(saved)
    assert tagger().tag(saved) == tag


@pytest.mark.parametrize("reason", ["", "buffered", "timed_out", ["tcp_timeout"], None, 7])
def test_a_reason_that_no_session_wrote_changes_nothing(reason: Any) -> None:
    flow = failed(LEFT, live=False, saved={"cause": "client_cancelled", "reason": reason})
    assert tagger().tag(flow) == tagger().tag(failed(LEFT, live=False))


# --- who answered ---

NOWHERE = connection.Server(address=None)
NAMED = connection.Server(address=("host", 80))
MET = connection.Server(address=("host", 80), timestamp_start=1.0)


@pytest.mark.parametrize(
    ("live", "server", "replay", "saved", "by_proxy"),
    [
        (True, MET, None, None, False),
        (True, NAMED, None, None, True),
        (True, NOWHERE, None, None, True),
        (True, MET, "request", None, False),
        (True, MET, "response", None, True),
        (True, MET, None, {"answered_by": "proxy"}, False),
        # from a file; a HAR names the server, but has no times of the connection
        (False, MET, None, None, False),
        (False, NAMED, None, None, False),
        (False, NOWHERE, None, None, True),
        (False, connection.Server(address=None, timestamp_start=1.0), None, None, False),
        (False, MET, "response", None, True),
        (False, MET, None, {"answered_by": "proxy"}, True),
        (False, NOWHERE, None, {"answered_by": "server"}, False),
        (False, NOWHERE, None, {}, False),
        (False, NOWHERE, None, "somebody else's", True),
    ],
)
@pytest.mark.parametrize("make", [answered, lambda: tflow.tdnsflow(resp=True)])
def test_answered_by(
    make: Any,
    live: bool,
    server: connection.Server,
    replay: str | None,
    saved: Any,
    by_proxy: bool,
) -> None:
    flow = make()
    flow.live, flow.server_conn, flow.is_replay = live, server, replay
    if saved is not None:
        flow.metadata["flowtally"] = saved
    assert (tagger().tag(flow).get("answered_by") == "proxy") == by_proxy


@pytest.mark.parametrize("flow", [failed("x"), tflow.tflow(), tflow.ttcpflow(), tflow.tudpflow()])
def test_what_was_not_answered_has_nobody_who_answered(flow: mflow.Flow) -> None:
    flow.server_conn = NOWHERE
    assert "answered_by" not in tagger().tag(flow)


def test_hooks_know_better_who_answered() -> None:
    flow = answered()
    assert "answered_by" not in tagger().tag(flow)
    assert tagger().tag(flow, by_proxy=True)["answered_by"] == "proxy"


# --- redirects ---


def redirect(number: int, status: int = 302, client: str = "10.0.0.1", to: int = -1) -> Any:
    flow = answered(status, location=f"/{number + 1 if to < 0 else to}")
    flow.request.path = f"/{number}"
    flow.client_conn.peername = (client, 1000 + number)
    return flow


@pytest.mark.parametrize("status", sorted(vocabulary.REDIRECT_CODES))
def test_a_chain_that_reaches_the_limit(status: int) -> None:
    tags = tagger(max_redirects=2)
    found = [tags.tag(redirect(number, status)) for number in range(4)]
    assert [found[0], *found[2:]] == [vocabulary.STATUS_TAGS[status]] * 3
    assert found[1] == {
        **vocabulary.STATUS_TAGS[status],
        "error_code": -5,
        "error_name": "TooManyRedirects",
        "cause": "too_many_redirects",
        "side": "server",
    }


def test_a_loop() -> None:
    tags = tagger(max_redirects=3)
    causes = [tags.tag(redirect(0, to=0)).get("cause") for _ in range(5)]
    assert causes == [None, None, "redirect_loop", None, None]


def test_the_limit_can_be_changed_under_way() -> None:
    tags = tagger()
    assert "cause" not in tags.tag(redirect(0))
    tags.max_redirects = 2
    assert tags.tag(redirect(1))["cause"] == "too_many_redirects"


def test_the_proxy_can_answer_with_redirects_too() -> None:
    tag = tagger(max_redirects=0).tag(redirect(0), by_proxy=True)
    assert (tag["cause"], tag["answered_by"]) == ("too_many_redirects", "proxy")


@pytest.mark.parametrize(
    ("between", "ends"),
    [
        (answered(200), True),
        (answered(404), True),
        (answered(302), True),  # without a Location
        (answered(304), True),
        (answered(304, location="/2"), True),  # not what a client follows
        (failed(VAGUE), False),  # the client may try again
        (tflow.tdnsflow(resp=True), False),
        (tflow.ttcpflow(), False),
    ],
)
def test_what_ends_a_chain(between: mflow.Flow, ends: bool) -> None:
    tags = tagger(max_redirects=2)
    tags.tag(redirect(0))
    if isinstance(between, http.HTTPFlow):
        between.request.path = "/1"
    between.client_conn.peername = ("10.0.0.1", 5)
    assert "cause" not in tags.tag(between) or between.error
    assert ("cause" in tags.tag(redirect(1))) != ends


def test_a_redirect_that_broke_off_is_not_followed() -> None:
    tags = tagger(max_redirects=2)
    broken = redirect(0)
    broken.error = mflow.Error("HTTP/1 protocol error: peer closed connection early")
    assert tags.tag(broken)["status"] == 302
    assert "cause" not in tags.tag(redirect(1))


def test_clients_are_told_apart_by_address() -> None:
    tags = tagger(max_redirects=2)
    tags.tag(redirect(0))
    assert "cause" not in tags.tag(redirect(1, client="10.0.0.2"))
    assert "cause" in tags.tag(redirect(1))
    unknown = redirect(0)
    unknown.client_conn.peername = None
    assert "cause" not in tags.tag(unknown)


@pytest.mark.parametrize(
    ("start", "end", "asked", "follows"),
    [
        (990.0, 1000.0, 1060.0, True),
        (990.0, 1000.0, 1061.0, False),
        (1000.0, None, 1060.0, True),
        (1000.0, None, 1061.0, False),
        (None, None, 60.0, True),
    ],
)
def test_a_chain_is_as_old_as_its_last_answer(
    start: float | None, end: float | None, asked: float, follows: bool
) -> None:
    tags = tagger(max_redirects=2)
    first, second = redirect(0), redirect(1)
    first.response.timestamp_start, first.response.timestamp_end = start, end
    second.request.timestamp_start = asked
    tags.tag(first)
    assert ("cause" in tags.tag(second)) == follows


# --- flows too broken to be understood ---


def test_defects_are_told_and_leave_a_tag(caplog: pytest.LogCaptureFixture) -> None:
    tags = tagger()
    broken = answered()
    assert broken.response
    broken.response.data.status_code = []  # type: ignore[assignment]
    tag = tags.tag(broken)
    assert (tag["outcome"], tag["cause"]) == ("error", "unknown")
    assert tag["detail"].startswith("TypeError: ")
    tags.tag(broken)
    assert caplog.text.count("flowtally: defect in classify: TypeError") == 1
    tags.tag(redirect(0))
    lost = redirect(1)
    lost.response.timestamp_end = "soon"
    assert tags.tag(lost) == vocabulary.STATUS_TAGS[302]
    assert caplog.text.count("flowtally: defect in tag: ") == 1
