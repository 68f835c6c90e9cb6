"""No rule looks into text that the network chose.

Every word of every rule is put into every place of mitmproxy's texts in which something from the
network stands. The tag must be the one that a neutral word gets.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from flowtally import vocabulary
from flowtally.classify import Rules
from flowtally.classify import exchange_failure
from flowtally.classify import handshake_failure
from flowtally.classify import log_failure
from flowtally.situation import Situation
from flowtally.vocabulary import Tag
from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st

RULES = Rules(vocabulary.STATUS_TAGS, 5.0)
NEUTRAL = "neutral"

_TEXTS = [
    *(row.text for row in vocabulary.EXCHANGE_MESSAGES),
    *(row.text for row in vocabulary.HANDSHAKE_MESSAGES),
    *(row.text for row in vocabulary.LOG_MESSAGES),
    *(row.text for row in vocabulary.NOTE_MESSAGES),
    *vocabulary.TLS_ERRORS,
    *(f"tlsv1 alert {name.replace('_', ' ')}" for name in vocabulary.TLS_ALERTS),
    *(f"({name})" for name in vocabulary.PROTOCOL_CODES.values()),
    *(f"[{family} {number}] x" for family, number in vocabulary.OS_ERRORS),
    "Connection refused (os error 111)",
    "OpenSSL Error([('SSL routines', '', 'no shared cipher')])",
    "TLS Error: [('SSL routines', '', 'tlsv13 alert certificate required')]",
    "from server, refusing to prevent request smuggling attacks",
    "from client, refusing to prevent request smuggling attacks",
    "InvalidBodyLengthError: Expected 3 bytes, received 5",
]
WORDS = sorted({*_TEXTS, *(word for text in _TEXTS for word in text.split())})

Say = Callable[[str], Tag]


def _name(word: str) -> str:
    """A host name that a ClientHello may hold (mitmproxy drops others)."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", word)[:63].strip("-.") or "x"


def _in_exchange(text: str, situation: Situation = Situation()) -> Tag:  # noqa: B008
    return exchange_failure(text, situation, RULES)


def _in_log(text: str) -> Tag:
    row = vocabulary.find_message(vocabulary.LOG_MESSAGES, text)
    return log_failure(row, text, RULES) if row is not None else {}


def _in_goaway(word: str) -> Tag:
    data = word.encode()[:20].hex() or "None"
    return _in_exchange(
        "HTTP/2 connection closed: <ConnectionTerminated error_code:11, last_stream_id:3, "
        f"additional_data:{data}>"
    )


def _in_quic(code: int, word: str) -> Tag:
    rules = RULES._replace(quic_closes={word: code})
    return exchange_failure(word, Situation(quic=True), rules)


def _in_quic_handshake(word: str) -> Tag:
    rules = RULES._replace(quic_closes={word: 0x130})
    return handshake_failure(word, Situation(quic=True), rules)


CHECK = (
    "refusing to prevent request smuggling attacks. "
    "Disable the validate_inbound_headers option to skip this security check."
)

PLACES: dict[str, Say] = {
    "the name that a client distrusts": lambda word: handshake_failure(
        f"The client does not trust the proxy's certificate for {_name(word)} "
        "(tlsv1 alert unknown ca)",
        Situation(),
        RULES,
    ),
    "the name that a client may not trust": lambda word: handshake_failure(
        f"The client may not trust the proxy's certificate for {_name(word)} (OpenSSL Error([("
        "'SSL routines', '', 'ssl/tls alert certificate expired')]))",
        Situation(),
        RULES,
    ),
    "the name of a client that hung up": lambda word: handshake_failure(
        f"The client disconnected during the handshake. If this happens consistently for "
        f"{_name(word)}, this may indicate that the client does not trust the proxy's certificate.",
        Situation(),
        RULES,
    ),
    "a ClientHello that cannot be parsed": lambda word: handshake_failure(
        f"Cannot parse ClientHello: {word.encode().hex()}", Situation(), RULES
    ),
    "a status line": lambda word: _in_exchange(
        f"Cannot parse HTTP response: Bad HTTP response line: {word.encode()!r}"
    ),
    "a header line": lambda word: _in_exchange(
        f"Cannot parse HTTP response: Invalid header line: {word.encode()!r}"
    ),
    "bytes that are no HTTP": lambda word: _in_exchange(
        f"unexpected server response: {word.encode()!r}"
    ),
    "a chunk header": lambda word: _in_exchange(
        f"HTTP/1 protocol error: illegal chunk header: {bytearray(word.encode())!r}"
    ),
    "a chunk footer": lambda word: _in_exchange(
        f"HTTP/1 protocol error: malformed chunk footer: {word.encode()!r} (expected b'\\r\\n')"
    ),
    "a header name of the server's": lambda word: _in_exchange(
        f"Received invalid header name: {word.encode()!r} from server, {CHECK}"
    ),
    "a header name of the client's": lambda word: _in_exchange(
        f"Received invalid header name: {word.encode()!r} from client, {CHECK}"
    ),
    "a Content-Length": lambda word: _in_exchange(
        f"Received invalid content-length header: {word.encode()!r} from server, {CHECK}"
    ),
    "several Content-Lengths": lambda word: _in_exchange(
        f"Received multiple content-length headers: {[b'1', word.encode()]!r} from server, {CHECK}"
    ),
    "a Transfer-Encoding": lambda word: _in_exchange(
        f"Received unknown transfer-encoding header: {word.encode()!r} from server, {CHECK}"
    ),
    "a header value of HTTP/2": lambda word: _in_exchange(
        f"HTTP/2 protocol error: Received header value surrounded by whitespace {word.encode()!r}"
    ),
    "a header name of HTTP/2": lambda word: _in_exchange(
        f"HTTP/2 protocol error: Received uppercase header name {word.encode()!r}."
    ),
    "a pseudo header": lambda word: _in_exchange(
        f"Invalid HTTP/2 response headers: Unknown pseudo headers: { ({b':x': word.encode()})!r}"
    ),
    "the debug data of GOAWAY": _in_goaway,
    "the reason phrase of an upstream proxy": lambda word: _in_exchange(
        f"Upstream proxy proxy.example:3128 refused HTTP CONNECT request: 403 {word}"
    ),
    "the reason phrase of an upstream proxy that wants a login": lambda word: _in_exchange(
        f"Upstream proxy proxy.example:3128 refused HTTP CONNECT request: 407 {word}"
    ),
    "the status line of an upstream proxy": lambda word: _in_exchange(
        f"Error connecting to proxy.example:3128: Bad HTTP response line: {word.encode()!r}"
    ),
    "the scheme of a request": lambda word: _in_exchange(f"Invalid request scheme: {word}"),
    "what another script says": lambda word: _in_exchange(word, Situation(denied=True)),
    "what another script says, on a flow": lambda word: _in_exchange(f"Connection killed: x{word}"),
    "the close reason of HTTP/3": lambda word: _in_quic(0x107, word),
    "the close reason of QUIC": lambda word: _in_quic(1, word),
    "the words beside a TLS alert of QUIC's": lambda word: _in_quic(0x128, word),
    "the words of a client in the handshake of QUIC": _in_quic_handshake,
    "a request line": lambda word: _in_log(f"Bad HTTP request line: {word.encode()!r}"),
    "a target": lambda word: _in_log(
        f"Bad HTTP request line: {b'GET x' + word.replace(' ', '').encode() + b' HTTP/1.1'!r}"
    ),
    "a header line of a request": lambda word: _in_log(f"Invalid header line: {word.encode()!r}"),
    "a request head that was cut off": lambda word: _in_log(
        f"Client closed connection before completing request headers: {word.encode()!r}"
    ),
    "a SOCKS request": lambda word: _in_log(f"Unsupported SOCKS5 request: {word.encode()!r}"),
}


def _blame(tag: Tag) -> tuple[object, ...]:
    return tuple(tag.get(name) for name in ("outcome", "error_code", "cause", "reason", "side"))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("words", [WORDS[at::40] for at in range(40)], ids=range(40))
def test_no_word_of_a_rule_changes_the_tag(place: str, words: list[str]) -> None:
    say = PLACES[place]
    neutral = _blame(say(NEUTRAL))
    # What another script forbids is looked at for one thing: mitmproxy's own addon does it too.
    own = "Request destination unknown." if "script" in place else None
    for word in words:
        if own is None or not word.startswith(own):
            assert _blame(say(word)) == neutral, word


@given(
    st.sampled_from(sorted(PLACES)),
    st.lists(st.sampled_from(WORDS) | st.text(max_size=8), min_size=1, max_size=4),
    st.sampled_from(["", " ", "'", '"', "\n", ")", "(", "\\"]),
)
@example("a header name of the server's", ["x", "from client, " + CHECK], "' ")
@example("a header name of the client's", ["x", "from server, " + CHECK], "' ")
def test_nor_do_several_of_them(place: str, words: list[str], between: str) -> None:
    text = between.join(words)
    if not text:
        return  # nobody said anything
    if "script" in place and text.startswith("Request destination unknown."):
        return
    if place == "a request line" and re.search(r"HTTP/\d\.\d$", text):
        return  # a line of three words that ends so has a target, and is told from others
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    assert _blame(PLACES[place](text)) == _blame(PLACES[place](NEUTRAL)), text
