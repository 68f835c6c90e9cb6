"""What a text of mitmproxy's says, read only where mitmproxy itself speaks. Pure functions.

In many of its texts stands something that the network chose: a host's name, a header's value, a
reason phrase, debug data. So a text is compared as a whole or from its beginning, and where words
of OpenSSL's, an error's number or a code of HTTP/2 tell more, they are taken out of the one place
in which they stand. What they mean stands in `known/`.
"""

from __future__ import annotations

import re

from . import vocabulary
from .vocabulary import CLIENT_GAVE_UP
from .vocabulary import NOBODY
from .vocabulary import PROTOCOL_CODES
from .vocabulary import Alert
from .vocabulary import Message
from .vocabulary import Why

# What the addon asks for by name, because more follows from it than a cause.
NO_HOST = "HTTP request has no host header, destination unknown."
"""proxy/layers/http/__init__.py, HttpStream.state_wait_for_request_headers."""
SELF_CONNECT = "Request destination unknown."
"""addons/proxyserver.py, server_connect."""
KILLED = "Connection killed: "
"""proxy/server.py, open_connection; what the addon said that forbade the connection follows."""
SURPLUS = "Unexpected data from server: "
"""proxy/layers/http/_http1.py, Http1Client.read_headers; the bytes follow."""
EMPTY_LINE = SURPLUS + repr(b"\r\n")
"""Nothing but an empty line, which clients pass over."""
INVALID_DNS = " sent an invalid message: "
"""proxy/layers/dns.py, DNSLayer.state_query; before it stands the connection."""
HUNG_UP = "The client disconnected during the handshake"
"""proxy/layers/tls.py, ClientTLSLayer.on_handshake_error."""
CLOSED_EARLY = "connection closed early"
"""proxy/layers/tls.py, ClientTLSLayer.receive_client_hello."""
_TLS_ERROR = "TLS Error: "
# Said of a stream, whoever ended it, proxy/layers/http/_http2.py and _http3.py.
_STREAM_ENDED = ("stream reset by client (", "stream closed by client (")
_CANCELS = ("(CANCEL)", "(H3_REQUEST_CANCELLED)")
# What is the end of one exchange alone, and what begins like it and is the whole connection's.
_OF_EXCHANGE = ("HTTP/1 ", "Received ", "Response ", "Request ")
_OF_CONNECTION = ("Received HTTP/2 data frame", "Received unexpected HTTP/2 response")

# As text: they are compiled when the first failure needs them.
_OS_ERROR = r"\[(Errno|WinError) (-?\d+)\]"
# What mitmproxy_rs says, which opens UDP connections.
_RUST_OS_ERROR = r"[\w ,.'-]+ \(os error (\d+)\)"
# A list of OpenSSL's errors as pyOpenSSL shows it; the last one is what happened.
_OPENSSL = r"\[(?:\('[^']*', '[^']*', '[^']*'\), )*\('[^']*', '[^']*', '([^']*)'\)\]"
_OPENSSL_ERROR = rf"OpenSSL Error\({_OPENSSL}\)"
_TLS_LOG_LINE = rf"{_TLS_ERROR}{_OPENSSL}"
# The name is one that mitmproxy found valid, or an address: there is no blank in it.
_CLIENT_HANDSHAKE = (
    r"The client (?:does not|may not) trust the proxy's certificate for (?:\S+|<no address>) "
    rf"\((?:OpenSSL Error\({_OPENSSL}\)|([^()\[\]]+))\)"
)
# OpenSSL words alerts so; which of its versions says which prefix does not matter.
_ALERT = r"(?:tlsv1|tlsv13|sslv3|ssl/tls|tls)(?: alert)? ([a-z ]+)"
_CERTIFICATE = "Certificate verify failed: "
_RESET = (
    r"stream (?:reset|closed) by client "
    r"\((?:([A-Z][A-Z0-9_]*)|\d+|unknown error \(0x[0-9a-f]+\))\)"
)
_GOAWAY = (
    r"HTTP/2 connection closed: <ConnectionTerminated error_code:(?:ErrorCodes\.)?(\w+), "
    r"last_stream_id:\d+, additional_data:(\w*)>"
)
_BODY_LENGTH = (
    r"HTTP/2 protocol error: InvalidBodyLengthError: Expected (\d+) bytes, received (\d+)"
)
_QUIC_UNKNOWN = r"unknown error \(0x([0-9a-f]+)\)"

# Several addresses of a host were tried: the error that says most about the server.
_MOST_TELLING = (
    "connection_refused",
    "connection_timeout",
    "connection_terminated",
    "destination_ip_unroutable",
)
# The alerts of clients that do not trust a certificate, sent after the handshake.
_DISTRUST = frozenset(("unknown_ca", "bad_certificate", "certificate_unknown"))
# Codes whose name says more about what happened than that the protocol was broken.
_QUIC_CAUSES = {
    "CONNECTION_REFUSED": Why("connection_refused"),
    "NO_ERROR": Why("connection_terminated", "closed"),
    "H3_NO_ERROR": Why("connection_terminated", "closed"),
}


# What aioquic has against what a peer sent has many wordings.
QUIC_BROKEN = Message(
    "is",
    "",
    Why("http_protocol_error"),
    Why("http_response_incomplete"),
    Why("http_request_error"),
)
QUIC_HANDSHAKE_BROKEN = Message("is", "", *[Why("tls_protocol_error")] * 3)


def exchange(text: str) -> Message | None:
    """What a text of `flow.error` or of a server connection's error means; None: not known."""
    # The number first: the words beside it differ by platform.
    why = _os_error(text)
    if why.cause:
        return Message("is", text, why, why, NOBODY)
    if text.startswith(("OpenSSL ", _CERTIFICATE, "tlsv1", "sslv3", "ssl/tls", "tls ")):
        why = _server_tls(text)
        if why.cause:
            return Message("is", text, why, why, NOBODY)
    return (
        _code(text)
        or vocabulary.find_message(vocabulary.EXCHANGE_MESSAGES, text)
        or quic_close(text)
    )


def handshake(text: str) -> Message | None:
    """What the text of a failed TLS or QUIC handshake with the client means."""
    if found := re.fullmatch(_CLIENT_HANDSHAKE, text[:4096]):
        why = _said_by_openssl(found.group(1) or found.group(2), by_client=True)
        if why.cause:
            return Message("is", text, NOBODY, NOBODY, why)
    row = vocabulary.find_message(vocabulary.HANDSHAKE_MESSAGES, text)
    if row is not None:
        return row
    if text in _QUIC_NAMES:
        left = text in ("NO_ERROR", "H3_NO_ERROR")
        why = Why(CLIENT_GAVE_UP) if left else Why("tls_protocol_error")
        return Message("is", text, NOBODY, NOBODY, why)
    alert = _quic_alert(text)
    return Message("is", text, NOBODY, NOBODY, alert.client) if alert else None


def tls_log_line(text: str) -> Message | None:
    """What a log line of OpenSSL's (`TLS Error: …`) means: of a flow that follows, and of none.

    An alert after the handshake may come from either side. Only of a client that distrusts
    mitmproxy can it be all there is to tell.
    """
    if not text.startswith(_TLS_ERROR):
        return None  # before the pattern, which nearly no session needs
    if not (found := re.fullmatch(_TLS_LOG_LINE, text[:4096])):
        return None
    alert = _openssl_alert(found.group(1))
    if alert is None:
        return None
    by_client = alert.client if alert.client.reason in _DISTRUST else NOBODY
    return Message("is", text, alert.server, alert.server, by_client)


def ends_stream(text: str) -> bool:
    """Whether a text says that one stream was ended, by whichever side."""
    return text.startswith(_STREAM_ENDED)


def cancels_stream(text: str) -> bool:
    """Whether it says so with the code by which clients take a request back."""
    return ends_stream(text) and text.endswith(_CANCELS)


def ends_connection(text: str) -> bool:
    """Whether what a text says ended a whole connection: one exchange that ends alone says so."""
    if text.startswith(_OF_CONNECTION):
        return True
    return not (ends_stream(text) or text.startswith(_OF_EXCHANGE))


def quic_code(code: int) -> str:
    """A QUIC error code as mitmproxy shows it where the peer gave no reason."""
    name = PROTOCOL_CODES.get(("http3", code)) or PROTOCOL_CODES.get(("quic", code))
    return name or f"unknown error (0x{code:x})"


def made_true(text: str, side: str, debug_data: bool = False) -> str:
    """`text` without what it says wrongly: mitmproxy words the server's doing as the client's.

    `debug_data`: with what the peer said in a GOAWAY.
    """
    if ends_stream(text):
        return text.replace("client", f"the {side}", 1)
    if found := re.fullmatch(_GOAWAY, text):
        code = found.group(1)
        name = PROTOCOL_CODES.get(("http2", int(code)), code) if code.isdecimal() else code
        words = _debug_data(found.group(2)) if debug_data else ""
        return f"HTTP/2 connection closed by the {side} ({name})" + (f": {words}" if words else "")
    if found := re.fullmatch(_QUIC_UNKNOWN, text):
        code = int(found.group(1), 16) - 0x100
        if code in vocabulary.TLS_ALERT_NAMES:
            return f"TLS alert {code}, {vocabulary.TLS_ALERT_NAMES[code]}"
    return text


def _debug_data(digits: str) -> str:
    """The debug data of a GOAWAY, of which h2 shows the beginning as hexadecimal digits."""
    try:
        return bytes.fromhex(digits).decode("utf-8", "replace")
    except ValueError:
        return ""  # the word None


def quic_close(text: str) -> Message | None:
    """What the text of a QUIC connection that was closed means: its error code's name.

    Where the peer gave a reason, its words stand there instead, and nothing is known.
    """
    if text in _QUIC_NAMES:
        before = _QUIC_CAUSES.get(text) or Why("http_protocol_error", _reason(text))
        after = Why("http_response_incomplete", _reason(text))
        return Message("is", text, before, after, Why(CLIENT_GAVE_UP))
    alert = _quic_alert(text)
    if alert is not None:
        return Message("is", text, alert.server, alert.server, NOBODY)
    if re.fullmatch(_QUIC_UNKNOWN, text):
        why = Why("http_protocol_error"), Why("http_response_incomplete"), Why(CLIENT_GAVE_UP)
        return Message("is", text, *why)
    if text in vocabulary.TLS_ERRORS:  # aioquic has no prefix for what it found in a certificate
        why_tls = vocabulary.TLS_ERRORS[text]
        return Message("is", text, why_tls, why_tls, NOBODY)
    if text.startswith("hostname '") and "' doesn't match " in text:
        wrong = Why("tls_certificate_error", "wrong_host")
        return Message("is", text, wrong, wrong, NOBODY)
    return None


_QUIC_NAMES = frozenset(
    name for (protocol, _), name in PROTOCOL_CODES.items() if protocol != "http2"
)


def _quic_alert(text: str) -> Alert | None:
    found = re.fullmatch(_QUIC_UNKNOWN, text)
    # A QUIC error code that stands for an alert: RFC 9001 §4.8.
    name = vocabulary.TLS_ALERT_NAMES.get(int(found.group(1), 16) - 0x100) if found else None
    return vocabulary.TLS_ALERTS[name] if name else None


def _os_error(text: str) -> Why:
    # Only where it is mitmproxy's own word: a server could send the same text.
    if text.startswith(("[Errno ", "[WinError ", "Multiple exceptions: [")):
        numbers = re.findall(_OS_ERROR, text[:4096])
    elif found := re.fullmatch(_RUST_OS_ERROR, text[:256]):
        numbers = [(family, found.group(1)) for family in ("Errno", "WinError")]
    else:
        return NOBODY
    known = [vocabulary.OS_ERRORS.get((family, int(number)), NOBODY) for family, number in numbers]
    telling = [why for cause in _MOST_TELLING for why in known if why.cause == cause]
    return next(iter(telling or [why for why in known if why.cause]), NOBODY)


def _server_tls(text: str) -> Why:
    if text.startswith(_CERTIFICATE):
        known = vocabulary.TLS_ERRORS.get(text.removeprefix(_CERTIFICATE), NOBODY)
        return known if known.cause == "tls_certificate_error" else Why("tls_certificate_error")
    if found := re.fullmatch(_OPENSSL_ERROR, text[:4096]):
        return _said_by_openssl(found.group(1), by_client=False)
    # mitmproxy names some alerts without what is around them.
    alert = _openssl_alert(text)
    return alert.server if alert else NOBODY


def _said_by_openssl(words: str, by_client: bool) -> Why:
    """The meaning of one of OpenSSL's reasons; `by_client`: of a handshake with the client."""
    alert = _openssl_alert(words)
    if alert is not None:
        return alert.client if by_client else alert.server
    return vocabulary.TLS_ERRORS.get(words, NOBODY)


def _openssl_alert(words: str) -> Alert | None:
    if not (found := re.fullmatch(_ALERT, words)):
        return None
    name = found.group(1).replace("cancelled", "canceled").replace(" ", "_")
    unknown = Alert(Why("tls_alert_received"), Why("client_tls_rejected"))
    return vocabulary.TLS_ALERTS.get(name, unknown)


def _code(text: str) -> Message | None:
    """A stream or connection that was ended with a code of HTTP/2 or HTTP/3, or a wrong length."""
    if found := re.fullmatch(_RESET, text):
        name = found.group(1) or ""
        return _ended(text, _reason(name))
    if found := re.fullmatch(_GOAWAY, text):
        code = found.group(1)
        name = PROTOCOL_CODES.get(("http2", int(code)), "") if code.isdecimal() else code
        if name == "NO_ERROR":
            # A server that shuts down still finishes its streams, which mitmproxy drops.
            why = Why("proxy_internal_error", "goaway")
            return Message("is", text, why, why, Why(CLIENT_GAVE_UP))
        return _ended(text, _reason(name))
    if found := re.fullmatch(_BODY_LENGTH, text):
        expected, received = map(int, found.groups())
        why = Why("http_response_incomplete")
        if received > expected:
            why = Why("http_protocol_error", "surplus_bytes")
        return Message("is", text, why, why, Why("http_request_error"))
    return None


def _ended(text: str, reason: str) -> Message | None:
    """What the row for a text says, with the code for a reason where the server gave it."""
    row = vocabulary.find_message(vocabulary.EXCHANGE_MESSAGES, text)
    return row and row._replace(
        server_before_head=Why(row.server_before_head.cause, reason),
        server_after_head=Why(row.server_after_head.cause, reason),
    )


def _reason(name: str) -> str:
    return name.removeprefix("H3_").lower()
