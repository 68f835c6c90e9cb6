"""Complete responses that are failures all the same: what the status does not tell. Pure functions.

Each looks at what its protocol defines and nowhere else: no rule reads a phrase, a message or a
reason that the network chose. They are asked in this order, and one answers for a flow: gRPC,
GraphQL, WebSocket, CORS, interim responses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from typing import NamedTuple

from mitmproxy import http
from mitmproxy.websocket import WebSocketData

from . import cors
from . import grpc_status
from . import redaction
from .bodies import MAX_BODY
from .bodies import decoded
from .classify import failure_tag
from .classify import with_overlay
from .encoding import decode
from .headers import media_type_of
from .headers import value_of
from .redaction import Urls
from .vocabulary import GRPC_STATUSES
from .vocabulary import METHODS
from .vocabulary import Tag
from .vocabulary import Why
from .vocabulary import close_name

NO_FAILURE = frozenset((1000, 1001, 1005))
"""The close codes of a WebSocket that ended as it should: done, going away, without a code."""
MAX_NAME = 64
"""Longest name of a GraphQL operation that is kept, in characters."""

_NAME = r"[_A-Za-z][_0-9A-Za-z]*"
# What a document begins with (GraphQL specification §2.3): white space, commas and comments say
# nothing; then comes an operation, which may have a name, or a fragment. A query of another kind,
# such as the words of a search, begins otherwise.
_DOCUMENT = (
    r"[\s,\ufeff]*(?:#[^\n\r]*[\n\r][\s,\ufeff]*)*"
    rf"(?:\{{|\"|fragment\b|(?:query|mutation|subscription)\b(?:\s+({_NAME}))?)"
)
MAX_DOCUMENT = 4096
"""Characters at the beginning of a GraphQL document that are looked at."""
MAX_BATCH = 100
"""How many GraphQL queries of a batch are looked at."""


class Overlay(NamedTuple):
    """Why a complete response is a failure."""

    why: Why
    detail: str = ""
    side: str = ""
    """Empty: the side of the cause and reason."""


def explain(flow: http.HTTPFlow, tag: Tag, urls: Urls) -> Tag:
    """The tag of a complete response, with why it is a failure if it is one. Never costly.

    Adds `grpc_status` to what has one. An answer of gRPC's that ended without a status is not
    complete: its outcome is `error`.
    """
    if flow.websocket is not None:
        found = websocket_error(flow.websocket, urls)
        return tag if found is None else with_overlay(tag, *found)
    response = flow.response
    assert response is not None
    found = None
    kind = _kind(media_type_of(response))
    if kind == "json":
        # Queries of GraphQL are POSTs: of others, nobody need look at the answer.
        if flow.request.data.method == b"POST":
            found = graphql_error(flow.request, response, urls)
    elif kind:
        return _grpc(flow, tag, kind, urls)
    found = found or _of_any_kind(flow, tag, urls)
    return tag if found is None else with_overlay(tag, *found)


def _of_any_kind(flow: http.HTTPFlow, tag: Tag, urls: Urls) -> Overlay | None:
    """Why an answer is a failure, whatever its media type."""
    origin = value_of(flow.request.data.headers, b"origin")
    if origin and (found := cors_blocked(flow, origin.decode("utf-8", "replace"), tag, urls)):
        return found
    if tag["band"] == "Success":
        return upgrade_failed(flow) or not_gzip(flow)
    return interim_response(flow, tag) if tag["band"] == "Informational" else None


@lru_cache(maxsize=256)
def _kind(media_type: str) -> Any:
    """What a media type promises: a `grpc_status.Kind`, `json`, or None."""
    protocol = re.fullmatch(r"application/(grpc(?:-web(?:-text)?)?)(?:\+.*)?", media_type)
    if protocol:
        return protocol.group(1)
    is_json = media_type == "application/json" or media_type.endswith("+json")
    return "json" if is_json else None


# --- WebSocket handshakes ---


def upgrade_failed(flow: http.HTTPFlow) -> Overlay | None:
    """A WebSocket's handshake that a success other than 101 ended: its client fails then (RFC 6455
    §4.1). That it may log in, or follow a redirect, the other answers leave open."""
    if value_of(flow.request.data.headers, b"sec-websocket-key") is None:
        return None
    return Overlay(
        Why("http_upgrade_failed"), "the handshake of a WebSocket got the answer of a page"
    )


# --- content codings ---


_GZIP = b"\x1f\x8b"


def not_gzip(flow: http.HTTPFlow) -> Overlay | None:
    """A body that does not begin as its Content-Encoding says (RFC 1952 §2.3.1): clients give up.
    The other codings have no beginning of their own, and to unpack each body would cost too much.
    """
    response = flow.response
    assert response is not None
    coding = value_of(response.data.headers, b"content-encoding")
    if coding is None or coding.lower() not in (b"gzip", b"x-gzip"):
        return None
    if flow.request.data.method == b"HEAD" or response.status_code == 206:
        return None  # there is no body, or it begins elsewhere
    body = response.data.content
    # Another script's may be anything. Of what breaks off, clients take what they get.
    if not isinstance(body, bytes) or _GZIP.startswith(body[: len(_GZIP)]):
        return None
    return Overlay(
        Why("http_response_transfer_coding", "content_coding"),
        "the body is not gzip, as its Content-Encoding says",
    )


# --- gRPC ---


def _grpc(flow: http.HTTPFlow, tag: Tag, kind: grpc_status.Kind, urls: Urls) -> Tag:
    response = flow.response
    assert response is not None
    status = grpc_status.status_of(response, kind)
    if isinstance(status, grpc_status.Status):
        if status.number is not None:
            tag["grpc_status"] = status.number
        found = grpc_error(status, urls)
    elif status == "missing" and _should_have_status(flow, tag):
        return {
            **tag,
            **failure_tag(
                Why("http_response_incomplete", "no_grpc_status"),
                "the gRPC answer ended without a grpc-status",
            ),
        }
    else:
        found = None
    found = found or _of_any_kind(flow, tag, urls)
    return tag if found is None else with_overlay(tag, *found)


def grpc_error(status: grpc_status.Status, urls: Urls) -> Overlay | None:
    """A call that did not end with status 0 (gRPC, Status codes and their use in gRPC)."""
    number = status.number
    if number == 0:
        return None
    detail = redaction.peer_text(status.message, urls)
    # Clients take what they do not know for `unknown`, 2.
    known = GRPC_STATUSES.get(2 if number is None else number, GRPC_STATUSES[2])
    return Overlay(Why("grpc_error", known.name), detail, known.side)


def _should_have_status(flow: http.HTTPFlow, tag: Tag) -> bool:
    """Whether an answer without a status ended too early.

    Not where the HTTP status says by itself that the call failed, nor where mitmproxy itself, a
    script or a HAR wrote the answer: these know no trailers. A call is a POST (gRPC over HTTP2).
    """
    return (
        flow.request.data.method == b"POST"
        and tag["band"] == "Success"
        and "answered_by" not in tag
        and flow.server_conn.timestamp_start is not None
    )


# --- GraphQL ---


def graphql_error(
    request: http.Request, response: http.Response, urls: Urls = "redacted"
) -> Overlay | None:
    """A query whose answer holds errors (GraphQL specification §7.1), or a batch of such."""
    question = request.data.content
    if not question or len(question) > MAX_BODY or b'"query"' not in question:
        return None
    answer = decoded(response.data.content, response.headers.get("content-encoding", ""))
    if answer is None or b'"errors"' not in answer:
        return None
    try:
        failed = list(_failed(decode(question), decode(answer)))
    except ValueError:
        return None
    if not failed:
        return None
    count = sum(errors for _, errors in failed)
    name = _operation(failed[0][0]) if urls != "origin" else ""  # the client chose it
    return Overlay(Why("graphql_error", name), f"{count} error{'s' if count > 1 else ''}")


def _failed(question: Any, answer: Any) -> Iterator[tuple[dict[str, Any], int]]:
    """The queries that failed, and how many errors each has."""
    questions = question if isinstance(question, list) else [question]
    answers = answer if isinstance(answer, list) else [answer]
    # Some servers refuse a batch with one answer to it all.
    for one, its_answer in zip(questions[:MAX_BATCH], answers, strict=False):
        if isinstance(one, dict) and _document(one):
            errors = its_answer.get("errors") if isinstance(its_answer, dict) else None
            if isinstance(errors, list) and errors:
                yield one, len(errors)


def _document(query: dict[str, Any]) -> re.Match[str] | None:
    text = query.get("query")
    return re.match(_DOCUMENT, text[:MAX_DOCUMENT]) if isinstance(text, str) else None


def _operation(query: dict[str, Any]) -> str:
    """The name of an operation, or "": as the client says, or from the document's first words."""
    name = query.get("operationName")
    if isinstance(name, str) and re.fullmatch(_NAME, name[: MAX_NAME + 1]):
        return name[:MAX_NAME]
    begins = _document(query)
    return (begins.group(1) or "")[:MAX_NAME] if begins else ""


# --- WebSocket ---


def websocket_error(websocket: WebSocketData, urls: Urls) -> Overlay | None:
    """A WebSocket that was closed with an error.

    Where mitmproxy refuses a frame (wsproto's ParseFailed), it closes with 1002 or 1007 and notes
    that whoever sent the frame did: `closed_by_client` tells the side in both cases.
    """
    code = websocket.close_code
    if code is None or code in NO_FAILURE:
        return None
    by = websocket.closed_by_client
    side = "" if by is None else "client" if by else "server"
    detail = redaction.peer_text(websocket.close_reason or "", urls)
    return Overlay(Why("websocket_error", close_name(code)), detail, side)


# --- HTTP ---


def cors_blocked(flow: http.HTTPFlow, origin: str, tag: Tag, urls: Urls) -> Overlay | None:
    """An answer that the browser keeps from the page (Fetch standard, CORS protocol)."""
    by_proxy = "answered_by" in tag
    if by_proxy and "error_code" in tag:
        return None  # block_list and the like: nobody meant to permit anything
    reason, what = cors.blocked(flow, origin)
    if not reason:
        return None
    # A header's name is no secret, but a name that the page chose; nor is a method, in whatever
    # letters: the wrong ones are why it is not permitted.
    if reason == "method_not_allowed" and what.upper() not in METHODS:
        what = redaction.method(what, urls)
    detail = redaction.printable(what, redaction.MAX_TOKEN) if urls != "origin" else ""
    return Overlay(Why("cors_blocked", reason), detail, "proxy" if by_proxy else "")


def interim_response(flow: http.HTTPFlow, tag: Tag) -> Overlay | None:
    """A 1xx that mitmproxy passed on as if it were the final answer, which is lost (RFC 9110 §15.2;
    proxy/layers/http/_http1.py, Http1Client.read_headers knows no interim responses)."""
    response = flow.response
    assert response is not None
    if tag["status"] == 101 or "answered_by" in tag:
        return None
    if response.is_http2 or response.is_http3 or flow.server_conn.timestamp_start is None:
        return None  # from a HAR: it came to another client
    return Overlay(Why("interim_response"))
