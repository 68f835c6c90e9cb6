"""What only mitmproxy's internals can answer. Each part fails soft: without it, flowtally misses
what the part would have seen, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any

Undo = Callable[[], None]

NO_HOST = "HTTP request has no host header, destination unknown."
"""proxy/layers/http/__init__.py, HttpStream.state_wait_for_request_headers."""
SELF_CONNECT = "Request destination unknown."
"""addons/proxyserver.py, server_connect."""


def refuse_options(options: Any, refuse: Callable[[str, Any], str]) -> list[str]:
    """Look at the options given for scripts before mitmproxy does; returns what is wrong.

    `refuse(name, given)` says why, or "": `given` is a tuple of texts from the command line, or a
    value of config.yaml. A refused option is taken away, because mitmproxy drops a script without a
    word when one of its options is malformed (addons/script.py, Script.watcher ends with the
    exception), or else buries the reason in a traceback.
    """
    deferred = getattr(options, "deferred", {})
    reasons = []
    for name in list(deferred):
        value = deferred[name]
        if reason := refuse(name, tuple(value.val) if hasattr(value, "val") else value):
            reasons.append(reason)
            del deferred[name]
    return reasons


def watch_error_responses(told: Callable[[Any, str, bytes], None]) -> Undo:
    """Call `told(client address, message, method)` when mitmproxy answers an HTTP/1 request with an
    error.

    A request without a Host reaches no hook and no log line; the error page that mitmproxy makes
    for it is the only trace. Making one is rare, so the watch costs the other flows nothing.
    `method`: of the request; empty where it could not be read.
    """
    try:
        from mitmproxy.proxy.layers.http import _http1

        original: Any = _http1.make_error_response
    except (ImportError, AttributeError):
        return lambda: None

    def make_error_response(*args: Any, **kwargs: Any) -> Any:
        try:
            message = kwargs.get("message", args[1] if len(args) > 1 else "")
            caller = sys._getframe(1).f_locals.get("self")  # Http1Server.send
            request = getattr(caller, "request", None)
            method = getattr(getattr(request, "data", None), "method", b"")
            told(getattr(asyncio.current_task(), "client", None), message, method)
        except Exception:
            logging.getLogger("flowtally").debug("watch_error_responses failed", exc_info=True)
        return original(*args, **kwargs)

    _http1.make_error_response = make_error_response

    def undo() -> None:
        if _http1.make_error_response is make_error_response:
            _http1.make_error_response = original

    return undo


def watch_faults(broke: Callable[[str, str], None], closed: Callable[[str, int], None]) -> Undo:
    """Call `broke(connection id, flow id)` for the stream that breaks an HTTP/2 connection, and
    `closed(words, code)` when a QUIC peer closes one.

    Both happen once in a connection's life at most.
    """
    undo_http2, undo_quic = _watch_http2(broke), _watch_quic(closed)

    def undo() -> None:
        undo_http2()
        undo_quic()

    return undo


def _watch_http2(broke: Callable[[str, str], None]) -> Undo:
    try:
        from mitmproxy.proxy.layers.http._http2 import Http2Connection

        original: Any = Http2Connection.protocol_error
    except (ImportError, AttributeError):
        return lambda: None

    def protocol_error(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            # Http2Connection.handle_h2_event: an event of h2's, or the exception it raised.
            stream = _stream_of(sys._getframe(1).f_locals.get("event"))
            # A server's streams have other numbers than the client's, by which flows are found.
            stream = getattr(self, "their_stream_id", {}).get(stream, stream)
            # The innermost HttpLayer: around it may be the one with the CONNECT.
            layers = [at for at in self.context.layers if hasattr(at, "connections")]
            if stream in layers[-1].streams:
                broke(self.conn.id, layers[-1].streams[stream].flow.id)
        except Exception:
            logging.getLogger("flowtally").debug("watch_faults failed", exc_info=True)
        return original(self, *args, **kwargs)

    Http2Connection.protocol_error = protocol_error  # type: ignore[method-assign]

    def undo() -> None:
        if Http2Connection.protocol_error is protocol_error:
            Http2Connection.protocol_error = original  # type: ignore[method-assign]

    return undo


def _stream_of(event: Any) -> int | None:
    """The stream that an event of h2's, or an exception about one of its frames, belongs to."""
    found: int | None = getattr(event, "stream_id", None)
    trace = getattr(event, "__traceback__", None)
    while trace is not None and found is None:
        frame = trace.tb_frame.f_locals.get("frame")
        found = getattr(frame, "stream_id", None) or None
        trace = trace.tb_next
    return found


def _watch_quic(closed: Callable[[str, int], None]) -> Undo:
    try:
        from aioquic.quic.connection import QuicConnection

        original: Any = QuicConnection._close_begin
    except (ImportError, AttributeError):
        return lambda: None

    def _close_begin(self: Any, is_initiator: bool, *args: Any, **kwargs: Any) -> Any:
        try:
            if not is_initiator:
                event = self._close_event
                closed(event.reason_phrase, event.error_code)
        except Exception:
            logging.getLogger("flowtally").debug("watch_faults failed", exc_info=True)
        return original(self, is_initiator, *args, **kwargs)

    QuicConnection._close_begin = _close_begin  # type: ignore[method-assign]

    def undo() -> None:
        if QuicConnection._close_begin is _close_begin:
            QuicConnection._close_begin = original  # type: ignore[method-assign]

    return undo


def watch_log(told: Callable[[Any, str], None]) -> Undo:
    """Call `told(client address, message)` for each line that mitmproxy logs of a connection.

    The name of the logger and the `client` that it attaches are those of proxy/server.py.
    """

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.msg
            # "client connect", "server disconnect ..." come with every connection.
            if not isinstance(message, str) or message.startswith(("client ", "server ")):
                return
            try:
                told(getattr(record, "client", None), message)
            except Exception:
                self.handleError(record)

    watch = Watch(logging.INFO)
    logger = logging.getLogger("mitmproxy.proxy.server")
    logger.addHandler(watch)
    return lambda: logger.removeHandler(watch)
