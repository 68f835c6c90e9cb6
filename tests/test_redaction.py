"""What is left of text from the network before it is kept."""

from __future__ import annotations

import time

import pytest
from flowtally import redaction
from flowtally.record import MAX_TARGET
from flowtally.record import flow_record
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.test import tflow


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
        ("http://u%3Asecret%40h/p", "http://h/p", "http://h"),
        # a URL in the path, as gateways and archives have them
        ("http://h/http://u:secret@i/p", "http://h/http://i/p", "http://h"),
        (
            "http://h/go/http%3A%2F%2Fu%3Asecret%40i%2Fp",
            "http://h/go/http%3A%2F%2Fi%2Fp",
            "http://h",
        ),
        ("http://h/go/%252f%252fsecret%2540i", "http://h/go/%252f%252fi", "http://h"),
        ("http://h/http://i/@user/x@y", "http://h/http://i/@user/x@y", "http://h"),
        # the slashes of one in a path, merged
        ("http://h/https:/u:secret@i/p", "http://h/https:/i/p", "http://h"),
        ("http://h/https%253A%252Fu:secret%2540i/p", "http://h/https%253A%252Fi/p", "http://h"),
        ("http://h/https:/i/@user", "http://h/https:/i/@user", "http://h"),
        ("http://h/https:/@user", "http://h/https:/@user", "http://h"),
        ("http://h/a:b/u@i", "http://h/a:b/u@i", "http://h"),
        # an authority that two read in two ways
        ("http://h:1\\@secret/", "http://*/", "http://*"),
        ("http://u\\:secret@h/", "http://*/", "http://*"),
        ("http://h/a\\b", "http://h/a\\b", "http://h"),
        # an equals sign that names nothing: it pads base64
        ("http://h/?dXNlcjpwYXNzd29yZA==", "http://h/?", "http://h"),
        ("http://h/?dXNlcjpwYXNzd29yZDE=", "http://h/?", "http://h"),
        ("http://h/?a=1&dXNlcjpwYXNzd29yZA==&b=2", "http://h/?a=&b=", "http://h"),
        ("http://h/?dXNlcjpwYXNzd29yZA%3D%3D", "http://h/?", "http://h"),
        ("http://h/?BAh7B0kiD3Nlc3Npb25faWQ=--secret", "http://h/?", "http://h"),
        ("http://h/?BAh7B0kiD3Nlc3Npb25faWQ==secret", "http://h/?", "http://h"),
        ("http://h/?x7f3k9q2=", "http://h/?", "http://h"),
        ("http://h/?page==&=", "http://h/?=", "http://h"),
        ("http://h/?aVeryLongWordThatNobodyWouldTakeForTheNameOfAny=", "http://h/?", "http://h"),
        # and names, of which each may be empty
        ("http://h/?page=&q=&a[]=&a%5B0%5D=", "http://h/?page=&q=&a[]=&a%5B0%5D=", "http://h"),
        ("http://h/?@type=&a,b=&first%20name=", "http://h/?@type=&a,b=&first%20name=", "http://h"),
        ("http://h/?page=-1&q==1&x=.5", "http://h/?page=&q=&x=", "http://h"),
        (
            "http://h/?utm_source=&sortBy=&userID=&X-Amz-Date=&$top=&sha256=&_=&=",
            "http://h/?utm_source=&sortBy=&userID=&X-Amz-Date=&$top=&sha256=&_=&=",
            "http://h",
        ),
        ("http://h/?dXNlcjpwYXNzd29yZA=1", "http://h/?dXNlcjpwYXNzd29yZA=", "http://h"),
        # a URL that stands for a query, as forwarders have it
        ("http://h/?http://u:secret@i/p?a=1", "http://h/?http://i/p?a=", "http://h"),
        (
            "http://h/?https%3A%2F%2Fsecret%40i%2F%3Fa=1",
            "http://h/?https%3A%2F%2Fi%2F%3Fa=",
            "http://h",
        ),
        ("http://h/?http://i/eyJhbGciOi.eyJzdWIi.c2ln?a=1", "http://h/?http://i/*?a=", "http://h"),
        # values of matrix parameters (RFC 3986 §3.3)
        ("http://h/a;sid=secret/b;v=1;w=2", "http://h/a;sid=/b;v=;w=", "http://h"),
        ("http://h/a;sid=se=cret?x=1", "http://h/a;sid=?x=", "http://h"),
        ("http://h/a%3Bsid%3Dsecret%3bv=1/b", "http://h/a%3Bsid%3D%3bv=/b", "http://h"),
        # a query that stands in the path because it was encoded, once or more often
        ("http://h/a%3Ftoken=secret", "http://h/a%3Ftoken=", "http://h"),
        ("http://h/a%3ftoken%3Dsecret%26b=1/c", "http://h/a%3ftoken%3D%26b=/c", "http://h"),
        ("http://h/a%253Fb%5B%5D%253Dsecret", "http://h/a%253Fb%5B%5D%253D", "http://h"),
        ("http://h/a%23token=secret", "http://h/a%23token=", "http://h"),
        ("http://h/a&token=secret&b", "http://h/a&token=&b", "http://h"),
        ("http://h/a%3Fsecret", "http://h/a%3F", "http://h"),
        ("http://h/a%2523secret/b", "http://h/a%2523/b", "http://h"),
        ("http://h/a%3Fsecret%26a=1&secret", "http://h/a%3F%26a=&", "http://h"),
        ("http://h/a%3FdXNlcjpwYXNzd29yZA%3D%3D", "http://h/a%3F", "http://h"),
        ("http://h/a%253FdXNlcjpwYXNzd29yZA==", "http://h/a%253F", "http://h"),
        ("http://h/a%3Fpage=%26b%3D=", "http://h/a%3Fpage=%26", "http://h"),
        ("http://h/what%3F/C%23", "http://h/what%3F/C%23", "http://h"),
        ("http://h/rock%26roll;live", "http://h/rock%26roll;live", "http://h"),
        # what stands in a port's place
        ("http://h:secret/", "http://h:*/", "http://h:*"),
        ("http://h:443:secret/", "http://h:*/", "http://h:*"),
        ("http://[::1]:8080/a%20b", "http://[::1]:8080/a%20b", "http://[::1]:8080"),
        ("http://h/a;plain/b", "http://h/a;plain/b", "http://h"),
        ("http://h;sid=secret", "http://h", "http://h"),
        ("http://h:1;sid=secret/p", "http://h:1/p", "http://h:1"),
        # JSON Web Tokens (RFC 7519), whole or in a segment
        ("http://h/v/eyJhbGciOi.eyJzdWIi.c2ln/x", "http://h/v/*/x", "http://h"),
        ("http://h/v/eyJhbGciOi.eyJzdWIi.", "http://h/v/*", "http://h"),
        ("http://h/v/eyJhbGciOi%2EeyJzdWIi%2ec2ln", "http://h/v/*", "http://h"),
        ("http://h/v/t=eyJhbGciOi.eyJzdWIi.c2ln", "http://h/v/t=*", "http://h"),
        ("http://h/v%2feyJhbGciOi.eyJzdWIi.c2ln", "http://h/v%2f*", "http://h"),
        (
            "http://h/v%252FeyJhbGciOi%252EeyJzdWIi%252ec2ln%252Fx",
            "http://h/v%252F*%252Fx",
            "http://h",
        ),
        ("http://h/v/eyJust.words", "http://h/v/eyJust.words", "http://h"),
        ("http://h/v/eyJhbGciOi", "http://h/v/eyJhbGciOi", "http://h"),
        # a scheme that nobody knows may be a secret in the wrong place
        ("secret://h/p", "*://h/p", "*://h"),
        ("WSS://h/p", "WSS://h/p", "WSS://h"),
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
        ("user%3Asecret%40host", "host"),
        ("host", "host"),
        ("host:secret", "host:*"),
        ("zq0123456789abcdefz", "*"),
        ("/path?a=secret", ""),
        ("host?a=http://b/secret", "host"),
        ("/p?a=http://user:secret@host/secret", "host"),
        ("host;sid=secret", "host"),
        ("user:secret@host;sid=secret/x", "host"),
        ("host:1\\@secret", "*"),
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
        (
            "unexpected server response: b'SSH-2.0-secret\\r\\n'",
            "unexpected server response: SSH-2.0 (bytes not kept)",
        ),
        ("Bad HTTP response line: b'ICY 200 OK'", "Bad HTTP response line: ICY (bytes not kept)"),
        (
            "Bad HTTP response line: b'HTTP/1.1 abc OK'",
            "Bad HTTP response line: HTTP/1.1 (bytes not kept)",
        ),
        ("Bad HTTP response line: b'ICYsecret'", "Bad HTTP response line: (bytes not kept)"),
        ("Bad HTTP response line: b'HTTP/1.1.secret'", "Bad HTTP response line: (bytes not kept)"),
        ("Bad HTTP response line: b'\\'ICY'", "Bad HTTP response line: (bytes not kept)"),
        ("Bad HTTP request line: b'SSH-2.0-x'", "Bad HTTP request line: (bytes not kept)"),
        (
            "Cannot parse QUIC header: Malformed head (0123abcdef)",
            "Cannot parse QUIC header: Malformed head (bytes not kept)",
        ),
        ("Invalid request scheme: ftp", "Invalid request scheme: ftp"),
        ("Invalid request scheme: secret", "Invalid request scheme: (not kept)"),
        (
            "Upstream proxy p:1 refused HTTP CONNECT request: 403 no key=secret",
            "Upstream proxy p:1 refused HTTP CONNECT request: 403 no key=*",
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
    userinfo = "".join(char for char in user if char not in "/?\\")
    url = f"https://SECRET{userinfo}:SECRET@host/path?{query}&SECRET#SECRET"
    assert redaction.redact(url, "redacted").startswith("https://host/path?")
    assert "SECRET" not in redaction.redact(url, "redacted")
    assert redaction.redact(url, "origin") == "https://host"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("server is going away", "server is going away"),
        ("token expired", "token expired"),
        ("see https://u:p@h/reset;t=1?code=secret now", "see https://h/reset;t=?code= now"),
        ("user=alice code: 42", "user=* code: 42"),
        ("line:42 port:443 pin:123456", "line:42 port:443 pin:*"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer *"),
        ("password hunter2", "password *"),
        ("secret: word", "secret: *"),
        ("bearer token expired.", "bearer token expired."),
        ("bad eyJhbGciOi.eyJzdWIi.c2ln here", "bad * here"),
        ("session 3f2a9c81d04b7e65 ended", "session * ended"),
        ("session 3f2a9c81d04b7e6 ended", "session 3f2a9c81d04b7e6 ended"),
        ("internationalization failed", "internationalization failed"),
        ("x" * 31, "x" * 31),
        ("x" * 32, "*"),
        (
            "upstream api-1.eu-west-2.example.com is down",
            "upstream api-1.eu-west-2.example.com is down",
        ),
        ("a\x00b", "a\ufffdb"),
        ("", ""),
    ],
)
def test_what_peers_say(text: str, kept: str) -> None:
    assert redaction.peer_text(text, "redacted") == kept
    assert redaction.peer_text(text, "origin") == ""
    assert redaction.peer_text(text, "full") == redaction.printable(text)


@given(st.text(), st.sampled_from(["redacted", "origin", "full"]))
def test_what_peers_say_is_bounded_and_printable(text: str, urls: redaction.Urls) -> None:
    kept = redaction.peer_text(text * 100, urls)
    assert kept.isprintable()
    assert len(kept) <= redaction.MAX_TEXT


@given(
    st.text(
        st.characters(codec="ascii", exclude_characters=" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f,;)]}<>")
    )
)
def test_no_named_value_of_a_peers_survives(noise: str) -> None:
    assert "SECRET" not in redaction.peer_text(f"failed: token=SECRET{noise} sorry", "redacted")
    assert "SECRET" not in redaction.peer_text(f"see http://h/?a=SECRET{noise} now", "redacted")


@pytest.mark.parametrize(
    ("name", "redacted"),
    [
        ("GET", "GET"),
        ("PROPFIND", "PROPFIND"),
        ("get", "_OTHER"),
        ("SECRET", "_OTHER"),
        ("", "_OTHER"),
    ],
)
def test_methods(name: str, redacted: str) -> None:
    assert redaction.method(name, "redacted") == redaction.method(name, "origin") == redacted
    assert redaction.method(name, "full") == name


@pytest.mark.parametrize("target", ["/", "/a/b.c", "/a:b,c", "/%C3%A9", "/eyes"])
def test_targets_that_have_nothing_to_redact(target: str) -> None:
    assert not redaction.may_need_redaction(target)
    assert redaction.redact_target(target) == target


@pytest.mark.parametrize(
    "target", ["/a;b=c", "/?a", "/#a", "/%3Ba=1", "/eyJabcd.e", "//u@h", "//u%40h", "/a&b=c"]
)
def test_targets_that_may_have_something_to_redact(target: str) -> None:
    assert redaction.may_need_redaction(target)
    assert redaction.redact_target(target) != target


@pytest.mark.parametrize("word", ["a", "a.", "a1-", "A+", "://", "a://"])
def test_a_long_word_costs_little(word: str) -> None:
    text = (word * 4096)[:4096] + " http://user:secret@h/"
    began = time.process_time()
    for _ in range(10):
        redaction.peer_text(text, "redacted")
        redaction.detail(text, "redacted")
    assert time.process_time() - began < 1  # where each letter begins a search: some seconds


@pytest.mark.parametrize("before", ["", "x" * 100, "1", "-", "_", "é"])
def test_a_url_in_a_word_is_redacted_wherever_it_begins(before: str) -> None:
    for kept in (redaction.peer_text, redaction.detail):
        assert "secret" not in kept(f"{before}http://user:secret@h/?q=secret", "redacted")


def test_of_a_target_without_measure_only_the_beginning_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at: list[int] = []
    redact = redaction.redact_target

    def noted(target: str) -> str:
        looked_at.append(len(target))
        return redact(target)

    monkeypatch.setattr(redaction, "redact_target", noted)
    flow = tflow.tflow()
    flow.request.path = "/;a=secret" * 100_000
    kept = flow_record(flow, "http", {"outcome": "unfinished"}, "s", "redacted")["url"]
    assert looked_at == [MAX_TARGET]
    assert len(kept) == redaction.MAX_URL
    assert "secret" not in kept
