"""Makes text from the network fit to be kept: no secrets, no control characters, bounded.

Option `flowtally_urls` decides over every text that a peer chose. `redacted` keeps names and drops
values, `origin` keeps nothing but scheme, host and port, `full` keeps all. Headers and bodies are
never kept.
"""

from __future__ import annotations

import re
from typing import Literal

from .vocabulary import METHODS

Urls = Literal["full", "redacted", "origin"]
"""How much of a URL is kept, the values of option `flowtally_urls`."""

MAX_URL = 2048
MAX_TEXT = 300
MAX_HOST = 255
MAX_TOKEN = 32
"""Longest method or HTTP version that is kept, in characters."""
BLANK = "*"
"""Stands where a secret may have stood."""
NOT_KEPT = "(not kept)"
"""Stands where a word of the peer's stood that is no word of the protocol."""
OTHER_METHOD = "_OTHER"
"""Stands for a method that nobody registered, as in OpenTelemetry's `http.request.method`."""
SCHEMES = frozenset(
    ("http", "https", "ws", "wss", "ftp", "ftps", "file", "data", "blob", "about", "javascript")
)
"""Schemes that tell nothing but what was tried; any other may be a secret in the wrong place."""

# Patterns as text: most sessions need none of them, and to compile one takes longer than to load
# this module.
_BYTES = r"""b(?:'(?:[^'\\]|\\.)*(?:'|$)|"(?:[^"\\]|\\.)*(?:"|$))"""
_BYTES_LITERAL = rf"(?:bytearray\()?{_BYTES}\)?"
# How servers of other protocols than HTTP, and HTTP servers, begin: that much is no secret.
_BANNER = (
    r"(response(?: line)?: )b['\"]"
    r"(HTTP/\d(?:\.\d)?|SSH-\d\.\d+|ICY|RTSP/\d\.\d|SIP/\d\.\d|RFB \d{3}|AMQP|220|\+OK|\* OK|-ERR)"
    r"(?![\w.])"
)
_HEADER_VALUE = (
    r"""(headers?: |transfer-encoding )\[?(?:'(?:[^'\\]|\\.)*(?:'|$)|"(?:[^"\\]|\\.)*(?:"|$))"""
)
_CLIENT_HELLO = r"(Cannot parse ClientHello: )[0-9a-f]+"
_HEXADECIMAL = r"\([0-9a-f]{8,}(?:\)|$)"
_SCHEME = r"(Invalid request scheme: )(.*)"
_REASON_PHRASE = r"(Upstream proxy \S+ refused HTTP CONNECT request: \d+)(.*)"
_CERTIFICATE_NAMES = r"(hostname '[^']*' doesn't match ).*"
# A scheme has an end: else a long word would be read again from each of its letters. A password may
# hold quotes.
_URL = r"[a-zA-Z][a-zA-Z0-9+.-]{0,31}://[^\s<>]+"
# Of a matrix parameter, and of a query or fragment that stands in the path because it was encoded,
# as often as that happened.
_QUERY = r"%(?:25)*(?:3F|23)"
_BEGINS, _EQUALS = rf"[;&]|%(?:25)*(?:3B|26)|{_QUERY}", r"=|%(?:25)*3D"
_SCHEME_NAME = r"[a-zA-Z][a-zA-Z0-9+.-]*"  # RFC 3986 §3.1
_MATRIX_VALUE = rf"({_BEGINS})((?:(?!{_BEGINS}|{_EQUALS})[^/])*)({_EQUALS})(?:(?!{_BEGINS})[^/])*"
_ENCODED_QUERY = rf"{_QUERY}[^/]*"
# What a name is made of that nothing follows, as `utmSource`, `filter[a][]` and `page2` are.
_BETWEEN_WORDS = r"[\[\]._:$@*,~-]|%5B|%5D|%20"
_WORD_OF_NAME = r"(?:[A-Z]?[a-z]+(?:[A-Z][a-z]+)*[A-Z]{0,3}|[A-Z]{1,10})?[0-9]{0,3}"
_MAX_NAME = 40
# Of a URL in a path, as gateways and archives have them; some merge its slashes.
_SLASH, _AT = r"(?:/|%(?:25)*2F)", r"(?:@|%(?:25)*40)"
_USERINFO = (
    rf"({_SLASH}{_SLASH}|(?::|%(?:25)*3A){_SLASH})(?:(?!{_AT}|%(?:25)*2F)[^/]){{1,500}}{_AT}"
)
_AUTHORITY = r"(?:\[[^\[\]]*\]|[^:\[\]]*)(?::[0-9]{0,5})?"
# Each begins where a word does: else a long word without an end would be read again and again.
_JSON_WEB_TOKEN = (  # RFC 7519 §3, RFC 7516 §3.1
    r"(?:(?<![\w-])|(%(?:25)*[0-9A-F]{2}))eyJ[\w-]{4,}(?:(?:\.|%(?:25)*2E)[\w-]*){1,4}"
)
# What may be in a close reason or a grpc-message besides words.
_NAMED_VALUE = r"(?<![\w.-])([\w.-]+[=:])(?=\S)[^\s,;)\]}]+"
# "token expired" says something, "token x7f" may be one.
_AUTHORIZATION = (
    r"\b(bearer|basic|digest|token|apikey|key|password|passwd|secret)(:\s+|\s+"
    r"(?=\S*[\d=+/_-]|\S*\.\S|\S{12,}))\S+"
)
_WORD = r"[^\s,;:()\[\]{}<>'\"|]+"
_HOST_NAME = r"[a-z0-9-]{1,20}(?:\.[a-z0-9-]{1,20})+"
_LONG_TOKEN = 16
"""Letters and digits mixed, in one word of this length or more, are taken for a token."""
_LONG_WORD = 32


def printable(text: str, limit: int = MAX_TEXT) -> str:
    """`text` in at most `limit` characters, each control character and other character without a
    printed form replaced by U+FFFD."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def detail(message: str, urls: Urls = "redacted") -> str:
    """A message of mitmproxy's without what it quotes from the peer.

    Those are pieces of headers and bodies, which flowtally never keeps, and words that the peer
    chose, which are kept as `urls` says.
    """
    # A quotation can be megabytes long, and only its beginning could be shown anyway.
    message = message[:4096]
    if "b'" in message or 'b"' in message:
        message = re.sub(_BANNER, r"\1\2 b'", message) if "response" in message else message
        message = re.sub(_BYTES_LITERAL, "(bytes not kept)", message)
    message = re.sub(_HEADER_VALUE, r"\1(value not kept)", message)
    message = re.sub(_CLIENT_HELLO, r"\1(bytes not kept)", message)
    message = re.sub(_HEXADECIMAL, "(bytes not kept)", message)
    if urls != "full":
        if found := re.fullmatch(_SCHEME, message, re.DOTALL):
            known = found.group(2).lower() in SCHEMES
            message = found.group(1) + (found.group(2) if known else NOT_KEPT)
        elif found := re.fullmatch(_REASON_PHRASE, message, re.DOTALL):
            phrase = peer_text(found.group(2).strip(), urls)
            return printable(f"{found.group(1)} {phrase}".rstrip())
        elif urls == "origin" and (found := re.match(_CERTIFICATE_NAMES, message, re.DOTALL)):
            message = found.group(1) + NOT_KEPT
    if "://" in message:
        message = re.sub(_URL, lambda match: redact(match.group(), urls), message)
    return printable(message)


def peer_text(text: str, urls: Urls) -> str:
    """What a peer said in its own words, such as a close reason or a grpc-message.

    `redacted` drops what may be a secret in it: values of URLs, what follows a name such as
    `token=`, and words that look like tokens. `origin` keeps none of it.
    """
    if urls == "full":
        return printable(text)
    if urls == "origin":
        return ""
    text = text[:4096]
    urls_kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        urls_kept.append(redact(match.group(), urls))
        return f"\x00{len(urls_kept) - 1}\x00"

    text = re.sub(_URL, keep, text.replace("\x00", "\ufffd"))
    text = re.sub(_AUTHORIZATION, rf"\1\2{BLANK}", text, flags=re.IGNORECASE)
    text = re.sub(_NAMED_VALUE, _blank_value, text)
    text = re.sub(_WORD, lambda match: BLANK if _is_token(match.group()) else match.group(), text)
    text = re.sub("\x00(\\d+)\x00", lambda match: urls_kept[int(match.group(1))], text)
    return printable(text)


def _blank_value(match: re.Match[str]) -> str:
    value = match.group()[len(match.group(1)) :]
    # `line:3`, `host:443`: a number that short is no secret.
    return match.group() if value.isdecimal() and len(value) <= 5 else match.group(1) + BLANK


def _is_token(word: str) -> bool:
    if len(word) < _LONG_TOKEN or "\x00" in word:
        return False
    if re.fullmatch(_HOST_NAME, word):
        return False
    mixed = any(char.isdigit() for char in word) and any(char.isalpha() for char in word)
    return mixed or len(word) >= _LONG_WORD


def method(name: str, urls: Urls) -> str:
    """A method, where it is a registered one or `urls` says to keep all."""
    if name in METHODS or urls == "full":
        return printable(name, MAX_TOKEN)
    return OTHER_METHOD


def scheme(name: str, urls: Urls) -> str:
    """A URL's scheme, where it tells nothing but what was tried or `urls` says to keep all."""
    return name if urls == "full" or name.lower() in SCHEMES else BLANK


def redact(address: str, urls: Urls) -> str:
    """A whole URL as `urls` says: `redacted` drops userinfo, values and fragment, `origin`
    everything behind the port."""
    if urls == "full":
        return address
    name, separator, rest = address.partition("://")
    if not separator or not re.fullmatch(_SCHEME_NAME, name):
        # No URL, or one within a query, but what stands for one in a malformed request: a host at
        # best.
        if urls == "origin":
            return ""
        return _authority(re.split("[/?#;]", _without_userinfo(address))[0])
    cut = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    authority = _authority(_without_userinfo(rest[:cut]).partition(";")[0])
    name = scheme(name, urls)
    if urls == "origin":
        return f"{name}://{authority}"
    return f"{name}://{authority}{redact_target(rest[cut:])}"


def _without_userinfo(authority: str) -> str:
    """What stands behind the last @, which may be percent-encoded.

    Where a backslash stands it ends there for a browser, and does not for RFC 3986: what is the
    host to one is the userinfo to the other.
    """
    return BLANK if "\\" in authority else re.split("@|%40", authority)[-1]


def _authority(text: str) -> str:
    """Host and port of a URL that may be malformed: what stands in a port's place and is none may
    be a secret, and so may a word that no host has for a name."""
    if not re.fullmatch(_AUTHORITY, text):
        text = f"{text.partition(':')[0]}:{BLANK}"
    host, colon, port = text.rpartition(":") if text[-1:] != "]" else (text, "", "")
    if not colon:
        host, port = text, ""
    return f"{BLANK if _is_token(host) and '.' not in host else host}{colon}{port}"


def may_need_redaction(target: str) -> bool:
    """False of nearly every target without a query; `redact_target` leaves those as they are."""
    if "?" in target or "#" in target or ";" in target:
        return True
    # What is encoded and matters begins so (; ? & # =, and % itself); letters beyond ASCII do not.
    if "%2" in target or "%3" in target or "%40" in target:
        return True
    return "&" in target or "eyJ" in target or "@" in target


def redact_target(target: str) -> str:
    """A path with query, without the values of its query and of matrix parameters (`;name=value`),
    userinfo of a URL within, JSON Web Tokens and the fragment:
    `/p;v=1?a=1&b=2` → `/p;v=?a=&b=`.

    What stands in a query without a name (`/p?secret`) is a value too, also of one that is encoded
    (`/p%3Fsecret`), and also if it ends in what pads base64 (`/p?c2VjcmV0cw==`).
    """
    target, _, _ = target.partition("#")
    path, question, query = target.partition("?")
    if ";" in path or "%2" in path or "%3" in path or "&" in path:
        path = re.sub(_ENCODED_QUERY, _names_of_encoded, path, flags=re.IGNORECASE)
        path = re.sub(_MATRIX_VALUE, r"\1\2\3", path, flags=re.IGNORECASE)
    path = _plain(path)
    if not question:
        return path
    names = [
        name + "="
        for name, equals, value in (part.partition("=") for part in query.split("&"))
        if equals and _is_name(name, value)
    ]
    # Where a URL stands without a name (`?http://u:secret@h/?a=1`), it is taken for one.
    return f"{path}?{_plain('&'.join(names))}"


def _plain(text: str) -> str:
    """A path, or the names of a query, without userinfo of URLs and without JSON Web Tokens."""
    if "@" in text or "40" in text:
        text = re.sub(_USERINFO, r"\1", text, flags=re.IGNORECASE)
    if "eyJ" in text:
        text = re.sub(_JSON_WEB_TOKEN, rf"\1{BLANK}", text, flags=re.IGNORECASE)
    return text


def _names_of_encoded(query: re.Match[str]) -> str:
    """The names in a query or fragment that stands in the path, and what separates them."""
    kept = ""
    for piece in re.split(f"({_BEGINS})", query.group(), flags=re.IGNORECASE):
        if re.fullmatch(_BEGINS, piece, re.IGNORECASE):
            kept += piece
        elif equals := re.search(_EQUALS, piece, re.IGNORECASE):
            name = piece[: equals.start()]
            value = re.sub(_EQUALS, "=", piece[equals.end() :], flags=re.IGNORECASE)
            kept += name + equals.group() if _is_name(name, value) else ""
    return kept


def _is_name(text: str, value: str) -> bool:
    """Whether what stands before an equals sign is a name, `value` being what follows. Where that
    is nothing, another equals sign, or what a signature begins with, the sign may pad base64; and
    JavaScript's URLSearchParams writes `?secret` as `?secret=`."""
    if value[:1] not in ("", "=", "-", "."):
        return True
    if value and not value.strip("="):
        return not text
    words = re.split(_BETWEEN_WORDS, text)
    return len(text) <= _MAX_NAME and all(re.fullmatch(_WORD_OF_NAME, word) for word in words)
