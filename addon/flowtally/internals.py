"""What only mitmproxy's internals can answer. Each part fails soft: without it, flowtally misses
what the part would have seen, and nothing else."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable
from typing import Any

Undo = Callable[[], None]

NO_HOST = "HTTP request has no host header, destination unknown."
"""proxy/layers/http/__init__.py, HttpStream.state_wait_for_request_headers."""


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


def watch_error_responses(told: Callable[[Any, str], None]) -> Undo:
    """Call `told(client address, message)` when mitmproxy answers an HTTP/1 request with an error.

    A request without a Host reaches no hook and no log line; the error page that mitmproxy makes
    for it is the only trace. Making one is rare, so the watch costs the other flows nothing.
    """
    try:
        from mitmproxy.proxy.layers.http import _http1

        original: Any = _http1.make_error_response
    except (ImportError, AttributeError):
        return lambda: None

    def make_error_response(*args: Any, **kwargs: Any) -> Any:
        try:
            message = kwargs.get("message", args[1] if len(args) > 1 else "")
            told(getattr(asyncio.current_task(), "client", None), message)
        except Exception:
            logging.getLogger("flowtally").debug("watch_error_responses failed", exc_info=True)
        return original(*args, **kwargs)

    _http1.make_error_response = make_error_response

    def undo() -> None:
        if _http1.make_error_response is make_error_response:
            _http1.make_error_response = original

    return undo


LAST_BYTE, BROKEN = "_flowtally_last_byte", "_flowtally_broken"
"""The attributes of a flow that `watch_streams` sets."""


def last_byte(flow: Any) -> float | None:
    """When the last piece of the response, its head or a part of its body, came from the server,
    Unix time. None where nobody saw it: no response yet, a flow from a file, no watch."""
    found: float | None = getattr(flow, LAST_BYTE, None)
    return found


def broken_by(flow: Any) -> str:
    """On which connection the error of an HTTP flow came: `client`, `server`, or "" if unknown."""
    message, side = getattr(flow, BROKEN, ("", ""))
    # Of an earlier error, where the flow was replayed, or another addon replaced this one.
    return side if flow.error is not None and flow.error.msg == message else ""


def watch_streams() -> Undo:
    """Note for each HTTP exchange when something came from the server, and who broke it.

    mitmproxy's hooks tell of a response's head and of its end. What comes between, and from which
    of the two connections an error comes, only its layer for one request and response knows
    (proxy/layers/http/__init__.py, HttpStream), whatever the versions of HTTP. The notes are
    attributes of the flow, so they go with it, and no file keeps them. A response in one piece
    costs three calls of a function that stores the time; errors are rare.
    """
    try:
        from mitmproxy.proxy.layers import http

        stream: Any = http.HttpStream
        from_client: Any = http.RequestProtocolError  # type: ignore[attr-defined]
        handle_error: Any = stream.handle_protocol_error
        originals = {
            name: getattr(stream, name)
            for name in (
                "state_wait_for_response_headers",
                "state_stream_response_body",
                "state_consume_response_body",
            )
        }
    except (ImportError, AttributeError):
        return lambda: None

    def noting_time(original: Any, clock: Callable[[], float] = time.time) -> Any:
        @functools.wraps(original)
        def state(self: Any, event: Any) -> Any:
            try:
                # Not through `__dict__`, which would make all of the flow's attributes slower.
                self.flow._flowtally_last_byte = clock()
            except AttributeError:
                pass
            return original(self, event)

        return state

    @functools.wraps(handle_error)
    def handle_protocol_error(self: Any, event: Any) -> Any:
        try:
            side = "client" if isinstance(event, from_client) else "server"
            self.flow._flowtally_broken = event.message, side
        except AttributeError:
            pass
        return handle_error(self, event)

    replaced = {name: noting_time(original) for name, original in originals.items()}
    originals["handle_protocol_error"] = handle_error
    replaced["handle_protocol_error"] = handle_protocol_error
    for name, replacement in replaced.items():
        setattr(stream, name, replacement)

    def undo() -> None:
        for name, replacement in replaced.items():
            if getattr(stream, name, None) is replacement:
                setattr(stream, name, originals[name])

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
