"""What only mitmproxy's internals can answer or do. Each part fails soft: without it, flowtally
misses what the part would have seen or done, and nothing else."""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
import time
from collections.abc import Callable
from collections.abc import Mapping
from types import FrameType
from typing import Any

from mitmproxy import connection

Undo = Callable[[], None]


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


def _nothing() -> None:
    """Undoes what could not be done."""


def _replace(owner: Any, replacements: Mapping[str, Any]) -> Undo:
    """Put other functions in the place of some of `owner`, a class or module."""
    originals = {name: getattr(owner, name) for name in replacements}
    for name, replacement in replacements.items():
        setattr(owner, name, replacement)

    def undo() -> None:
        for name, replacement in replacements.items():
            if getattr(owner, name, None) is replacement:  # else somebody replaced it after us
                setattr(owner, name, originals[name])

    return undo


def _look_first(owner: Any, name: str, look: Callable[..., None]) -> Undo:
    """Have each call of a function of `owner` looked at before it is made. `look` gets the caller's
    frame and the arguments."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        try:
            look(sys._getframe(1), *args, **kwargs)
        except Exception:
            logging.getLogger("flowtally").debug("looking at %s failed", name, exc_info=True)
        return original(*args, **kwargs)

    return _replace(owner, {name: replacement})


def watch_error_responses(told: Callable[[Any, str, bytes], None]) -> Undo:
    """Call `told(client address, message, method)` when mitmproxy answers an HTTP/1 request with an
    error.

    A request without a Host reaches no hook and no log line; the error page that mitmproxy makes
    for it is the only trace. Making one is rare, so the watch costs the other flows nothing.
    `method`: of the request; empty where it could not be read.
    """

    def look(caller: FrameType, _status: int, message: str = "", *_: Any, **__: Any) -> None:
        request = getattr(caller.f_locals.get("self"), "request", None)  # Http1Server.send
        method = getattr(getattr(request, "data", None), "method", b"")
        told(getattr(asyncio.current_task(), "client", None), message, method)

    try:
        from mitmproxy.proxy.layers.http import _http1

        return _look_first(_http1, "make_error_response", look)
    except (ImportError, AttributeError):
        return _nothing


LAST_BYTE, BROKEN = "_flowtally_last_byte", "_flowtally_broken"
"""The attributes of a flow that `watch_streams` sets."""


def last_byte(flow: Any) -> float | None:
    """When the last piece of the response, its head or a part of its body, came from the server, or
    the last hook let go of the flow, Unix time. None where nobody saw it: a flow from a file, no
    watch."""
    found: float | None = getattr(flow, LAST_BYTE, None)
    return found


def broken_by(flow: Any) -> str:
    """On which connection the error of an HTTP flow came: `client`, `server`, or "" if unknown."""
    message, side = getattr(flow, BROKEN, ("", ""))
    # Of an earlier error, where the flow was replayed, or another addon replaced this one.
    return side if flow.error is not None and flow.error.msg == message else ""


def watch_streams() -> Undo:
    """Note for each HTTP exchange when something came from the server, or a hook let go of it, and
    who broke it.

    mitmproxy's hooks tell of a response's head and of its end. What comes between, how long a
    person or a script held the flow (mitmproxy looks then whether it was killed), and from which
    of the two connections an error comes, only its layer for one request and response knows
    (proxy/layers/http/__init__.py, HttpStream), whatever the versions of HTTP. The notes are
    attributes of the flow, so they go with it, and no file keeps them. A response in one piece
    costs seven calls of a function that stores the time; errors are rare.
    """
    try:
        from mitmproxy.proxy.layers import http

        stream: Any = http.HttpStream
        from_client: Any = http.RequestProtocolError  # type: ignore[attr-defined]
        original: Any = stream.handle_protocol_error
        states = {
            name: getattr(stream, name)
            for name in (
                "check_killed",
                "state_wait_for_response_headers",
                "state_stream_response_body",
                "state_consume_response_body",
            )
        }
    except (ImportError, AttributeError):
        return _nothing

    def noting_time(original: Any, clock: Callable[[], float] = time.time) -> Any:
        @functools.wraps(original)
        def state(self: Any, *event: Any) -> Any:
            try:
                # Not through `__dict__`, which would make all of the flow's attributes slower.
                self.flow._flowtally_last_byte = clock()
            except AttributeError:
                pass
            return original(self, *event)

        return state

    @functools.wraps(original)
    def handle_protocol_error(self: Any, event: Any) -> Any:
        try:
            side = "client" if isinstance(event, from_client) else "server"
            self.flow._flowtally_broken = event.message, side
        except AttributeError:
            pass
        return original(self, event)

    replacements = {name: noting_time(method) for name, method in states.items()}
    replacements["handle_protocol_error"] = handle_protocol_error
    return _replace(stream, replacements)


def tunnel_without_proxy() -> Undo | None:
    """Have mitmproxy's mode `upstream` look whether a tunnel goes through a proxy before it asks
    one for it. None: it cannot be had, and a tunnel without a proxy would break.

    For requests mitmproxy looks (proxy/layers/http/__init__.py, HttpLayer.get_connection), for
    tunnels it takes the mode's word (HttpStream.handle_connect_upstream).
    """
    try:
        from mitmproxy.proxy.layers import http

        stream: Any = http.HttpStream
        through_proxy, without = stream.handle_connect_upstream, stream.handle_connect_regular
    except (ImportError, AttributeError):
        return None

    @functools.wraps(through_proxy)
    def handle_connect_upstream(self: Any) -> Any:
        return without(self) if self.context.server.via is None else through_proxy(self)

    return _replace(stream, {"handle_connect_upstream": handle_connect_upstream})


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
    def look(caller: FrameType, self: Any, *_: Any, **__: Any) -> None:
        # Http2Connection.handle_h2_event: an event of h2's, or the exception it raised.
        stream = _stream_of(caller.f_locals.get("event"))
        # A server's streams have other numbers than the client's, by which flows are found.
        stream = getattr(self, "their_stream_id", {}).get(stream, stream)
        # The innermost HttpLayer: around it may be the one with the CONNECT.
        layers = [at for at in self.context.layers if hasattr(at, "connections")]
        if stream in layers[-1].streams:
            broke(self.conn.id, layers[-1].streams[stream].flow.id)

    try:
        from mitmproxy.proxy.layers.http._http2 import Http2Connection

        return _look_first(Http2Connection, "protocol_error", look)
    except (ImportError, AttributeError):
        return _nothing


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
    def look(_: FrameType, self: Any, is_initiator: bool, *__: Any, **___: Any) -> None:
        if not is_initiator:
            closed(self._close_event.reason_phrase, self._close_event.error_code)

    try:
        from aioquic.quic.connection import QuicConnection

        return _look_first(QuicConnection, "_close_begin", look)
    except (ImportError, AttributeError):
        return _nothing


def watch_log(told: Callable[[Any, str, BaseException | None], None]) -> Undo:
    """Call `told(client address, message, exception)` for each line that mitmproxy logs of a
    connection.

    The name of the logger and the `client` that it attaches are those of proxy/server.py.
    """

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.msg
            # "client connect", "server disconnect ..." come with every connection.
            if not isinstance(message, str) or message.startswith(("client ", "server ")):
                return
            exception = record.exc_info[1] if record.exc_info else None
            try:
                told(getattr(record, "client", None), message, exception)
            except Exception:
                self.handleError(record)

    watch = Watch(logging.INFO)
    logger = logging.getLogger("mitmproxy.proxy.server")
    logger.addHandler(watch)
    return lambda: logger.removeHandler(watch)


ITSELF = (
    # Transparent mode failure
    "mitmproxy.proxy.mode_servers",
    # a file of flows that is broken
    "mitmproxy.addons.readfile",
    # handlers of UDP, WireGuard and local connections that crash
    "mitmproxy_rs",
    # what nobody catches: in the loop's own words, or where mitmproxy's handler is in its place
    "asyncio",
    "mitmproxy.master",
)
"""Loggers in which mitmproxy tells what no hook does, without a client's address."""


def watch_errors(told: Callable[[str, str, BaseException | None], None]) -> Undo:
    """Call `told(logger, message, exception)` for each error that mitmproxy logs of itself.

    There may be a hundred thousand of them (out of file descriptors), so that nothing is formatted.
    """

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message, exception = record.msg, record.exc_info
            if not isinstance(message, str):
                return
            try:
                told(record.name, message, exception[1] if exception else None)
            except Exception:
                self.handleError(record)

    watch = Watch(logging.ERROR)
    for name in ITSELF:
        logging.getLogger(name).addHandler(watch)

    def undo() -> None:
        for name in ITSELF:
            logging.getLogger(name).removeHandler(watch)

    return undo


def watch_task(died: Callable[[BaseException], None]) -> None:
    """Call `died(exception)` if the task in which this hook runs dies of an exception.

    The task of a connection to a server catches OSErrors only (proxy/server.py, open_connection);
    when it dies of another no hook follows, and mitmproxy keeps the dead task as long as the client
    stays, so that asyncio does not log it either.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return  # no loop runs: mitmproxy's test harness
    if task is None:
        return

    def done(task: asyncio.Task[Any]) -> None:
        # Not task.exception(), after which asyncio would not log it any more.
        exception = None if task.cancelled() else getattr(task, "_exception", None)
        if exception is not None:
            died(exception)

    task.add_done_callback(done)


MAX_DEPTH = 60
"""How many frames and generators are looked at; the layers of a connection are some twenty."""


def speaking() -> connection.Connection | None:
    """The connection whose data mitmproxy is handling; asked while a line is logged about it.

    The line names the client alone. The layer that logs it is a generator that waits for
    `server_event` of proxy/server.py, which is on the stack, and has the data as its `event`.
    """
    frame: Any = sys._getframe(1)
    for _ in range(MAX_DEPTH):
        if frame is None:
            return None
        if frame.f_code.co_name == "server_event":
            return _innermost(frame.f_locals.get("layer_commands"))
        frame = frame.f_back
    return None


def _innermost(generator: Any) -> connection.Connection | None:
    """The connection of the event that the innermost of these generators handles."""
    found = None
    for _ in range(MAX_DEPTH):
        frame = getattr(generator, "gi_frame", None)
        if frame is None:
            break
        handled = getattr(frame.f_locals.get("event"), "connection", None)
        if isinstance(handled, connection.Connection):
            found = handled
        # proxy/layer.py, Layer.__process keeps the generator that it drives.
        generator = generator.gi_yieldfrom or frame.f_locals.get("command_generator")
    return found
