"""mitmproxy's flow files → records: mitmproxy's own reader, and the same way as live."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy import io as mitmproxy_io
from mitmproxy import tcp
from mitmproxy import udp

from ..classify import failure_tag
from ..classify import flow_kind
from ..classify import unanswered_query
from ..classify import unfinished
from ..classify import with_failure
from ..live import OWN_KEY
from ..open_flows import is_unanswered_query
from ..recorder import Recorder
from ..session import Session
from ..situation import saved_tag
from ..tagger import Tagger
from ..vocabulary import GAVE_UP
from ..vocabulary import REASONS
from ..vocabulary import Tag
from ..vocabulary import Why
from .lacking import Lacking

MAX_FLOW = 2 * 1024 * 1024 * 1024
"""Largest flow that is read, in bytes."""
NOT_SAVED = (
    "mitmproxy saves no failure without a flow (TLS handshakes) and no tunnel that failed,"
    " so these are missing"
)
_LENGTH = re.compile(rb"([0-9]{1,12}):")


def flows(
    file: BinaryIO, name: str, lacking: Lacking, told: Callable[[int], None]
) -> Iterator[tuple[int, mflow.Flow]]:
    """The flows of a file, as far as they can be read, each with its number, from 1. `name`: for
    what is said of it; `told` of bytes that were taken in."""
    size, position, number = file.seek(0, os.SEEK_END), 0, 0
    while position < size:
        number += 1
        file.seek(position)
        # A tnetstring: its length, a colon, so many bytes, and what it is.
        length = _LENGTH.match(file.read(13))
        end = position + length.end() + int(length.group(1)) + 1 if length else 0
        if length is None or end > size:
            where = "within" if length else "before"
            lacking.break_off(name, f"{where} flow {number}; what came before is read")
            return
        if end - position > MAX_FLOW:
            lacking.skip(name, number, "larger than 2 GiB", "flow")
        else:
            file.seek(position)
            if (flow := _flow(file.read(end - position))) is None:
                lacking.skip(name, number, "mitmproxy cannot read it", "flow")
            else:
                yield number, flow
        told(end - position)
        position = end


def _flow(state: bytes) -> mflow.Flow | None:
    """mitmproxy's reader stops at the first flow that it cannot read, so it gets them singly."""
    try:
        found: list[mflow.Flow] = list(mitmproxy_io.FlowReader(BytesIO(state)).stream())
    except Exception:  # what it raises depends on what the file holds
        return None
    return found[0] if found else None


def record(flow: mflow.Flow, tagger: Tagger, recorder: Recorder, session: Session) -> None:
    """Record a flow as the addon would have."""
    if OWN_KEY in flow.metadata:
        return  # the live page's
    kind, tag = flow_kind(flow), _tag(flow, tagger)
    if kind == "connect" and tag["outcome"] == "status" and tag.get("band") == "Success":
        if isinstance(flow, http.HTTPFlow):
            tagger.tunnel_opened(flow)
        return
    recorder.record_flow(session, flow, kind, tag)


def _tag(flow: mflow.Flow, tagger: Tagger) -> Tag:
    if is_unanswered_query(flow) and flow.client_conn.timestamp_end is not None:
        return tagger.tag(flow, known=unanswered_query())
    if _was_open(flow):
        return tagger.tag(flow, known=unfinished(flow, tagger.rules))
    return _as_patient(flow, tagger.tag(flow))


def _was_open(flow: mflow.Flow) -> bool:
    """Whether a flow has not ended: mitmproxy saves what is open when it ends, and calls no hook
    that would say so."""
    if flow.error:
        return False
    if isinstance(flow, (tcp.TCPFlow, udp.UDPFlow)):  # its messages do not tell
        open_at_end = (saved_tag(flow) or {}).get("outcome") == "unfinished"
        return open_at_end and flow.client_conn.timestamp_end is None
    response = flow.response if isinstance(flow, http.HTTPFlow) and not flow.websocket else None
    return response is not None and response.timestamp_end is None


def _as_patient(flow: mflow.Flow, tag: Tag) -> Tag:
    """The tag of a flow whose client left, with the option `flowtally_timeout` of the session that
    saw it live, if one did: it decided whether the client had waited in vain."""
    saved = saved_tag(flow) or {}
    cause, reason = saved.get("cause"), saved.get("reason", "")
    if tag.get("cause") not in GAVE_UP or cause not in GAVE_UP or cause == tag["cause"]:
        return tag
    why = Why(cause, reason if isinstance(reason, str) and Why(cause, reason) in REASONS else "")
    return with_failure(tag, failure_tag(why, tag.get("detail", "")))
