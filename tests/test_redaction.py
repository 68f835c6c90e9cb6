"""What is left of text from the network before it is kept."""

from __future__ import annotations

import pytest
from flowtally import redaction
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("url", "redacted", "origin"),
    [
        ("http://h/p?a=1&b=2", "http://h/p?a=&b=", "http://h"),
        ("http://h/p", "http://h/p", "http://h"),
        ("https://user:pass@h:8443/p#f", "https://h:8443/p", "https://h:8443"),
        ("http://h?a=1", "http://h?a=", "http://h"),
        ("http://h/?secret", "http://h/?", "http://h"),
        ("http://h/?a=1&secret&b=x=y", "http://h/?a=&b=", "http://h"),
        ("http://h/@x?u@v=1", "http://h/@x?u@v=", "http://h"),
    ],
)
def test_urls(url: str, redacted: str, origin: str) -> None:
    assert redaction.redact(url, "full") == url
    assert redaction.redact(url, "redacted") == redacted
    assert redaction.redact(url, "origin") == origin


@pytest.mark.parametrize(
    ("target", "redacted"),
    [
        ("user:secret@host:443", "host:443"),
        ("user:secret@host/secret?secret", "host"),
        ("http:user:secret@host/", "host"),
        ("host", "host"),
        ("/path?a=secret", ""),
    ],
)
def test_what_stands_for_a_url_in_a_malformed_request(target: str, redacted: str) -> None:
    assert redaction.redact(target, "redacted") == redacted
    assert redaction.redact(target, "origin") == ""


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ("Bad HTTP response line: b'set-cookie: x'", "Bad HTTP response line: (bytes not kept)"),
        ("illegal chunk header: bytearray(b'ZZ\\r\\n')", "illegal chunk header: (bytes not kept)"),
        (
            "unexpected: b'it\\'s' and b\"it's\"",
            "unexpected: (bytes not kept) and (bytes not kept)",
        ),
        ("unterminated b'secret", "unterminated (bytes not kept)"),
        ("see http://u:p@h/?t=1 there", "see http://h/?t= there"),
        (
            "invalid content-length header: 'secret'",
            "invalid content-length header: (value not kept)",
        ),
        (
            'unknown transfer-encoding header: "it\'s"',
            "unknown transfer-encoding header: (value not kept)",
        ),
        ("Cannot parse ClientHello: 16030100", "Cannot parse ClientHello: (bytes not kept)"),
        (
            "[Errno 111] Connect call failed ('::1', 9)",
            "[Errno 111] Connect call failed ('::1', 9)",
        ),
        ("see http://u:p'w@h/p there", "see http://h/p there"),
        ("plain", "plain"),
    ],
)
def test_details_quote_nothing(message: str, kept: str) -> None:
    assert redaction.detail(message) == kept


@given(st.binary(min_size=1))
def test_no_quoted_bytes_survive(data: bytes) -> None:
    detail = redaction.detail(f"Cannot parse: {b'SECRET' + data + b'SECRET'!r}")
    assert "SECRET" not in detail


@given(st.text(), st.integers(2, 50))
def test_printable(text: str, limit: int) -> None:
    kept = redaction.printable(text, limit)
    assert kept.isprintable()
    assert len(kept) <= limit


VALUES = st.text(st.characters(exclude_characters="&#", exclude_categories=["Cs"]))


@given(st.lists(st.tuples(st.sampled_from(["a", "token", ""]), VALUES)), VALUES)
def test_query_values_and_userinfo_never_survive(pairs: list[tuple[str, str]], user: str) -> None:
    query = "&".join(f"{name}=SECRET{value}SECRET" for name, value in pairs)
    userinfo = "".join(char for char in user if char not in "/?")
    url = f"https://SECRET{userinfo}:SECRET@host/path?{query}&SECRET#SECRET"
    assert redaction.redact(url, "redacted").startswith("https://host/path?")
    assert "SECRET" not in redaction.redact(url, "redacted")
    assert redaction.redact(url, "origin") == "https://host"
