"""What only mitmproxy's internals can answer. Each part fails soft: without it, flowtally misses
what the part would have seen, and nothing else."""

from __future__ import annotations

import asyncio
import logging
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
