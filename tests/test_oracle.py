"""The codes against an outside oracle: what `requests` raises when it meets the fault directly.

The error codes are the exceptions of the requests library. So each fault is met twice, once by
requests without a proxy and once by the same client through a real mitmdump, and the code that
follows from the exception has to be the code in the session log.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from ssl import TLSVersion

import pytest
import requests
from lab import clients
from lab import servers
from lab.factories import ServerFactory
from lab.factories import answering
from lab.factories import at
from lab.factories import black_hole
from lab.factories import dead
from lab.factories import dead_by_name
from lab.factories import in_handshake
from lab.factories import over_tls
from lab.laboratory import Laboratory
from lab.proxy import Record
from lab.tls import Authority

pytestmark = pytest.mark.timeout(90)

# Seconds; longer than the flowtally_timeout of the proxies used here.
TIMEOUT = 1.0
# flowtally's, which is browsers': the redirect at which they give up. That of requests is how many
# it follows before it gives up at the next one.
MAX_REDIRECTS = 20

# An exception belongs to the first row that it is an instance of: ConnectTimeout is a
# ConnectionError as well, and all of them are a RequestException.
CODES: tuple[tuple[int, tuple[type[Exception], ...]], ...] = (
    (-5, (requests.TooManyRedirects,)),
    (-6, (requests.Timeout,)),
    (-3, (requests.HTTPError,)),
    (
        -4,
        (
            requests.URLRequired,
            requests.exceptions.InvalidURL,
            requests.exceptions.MissingSchema,
            requests.exceptions.InvalidSchema,
        ),
    ),
    (-2, (requests.ConnectionError,)),
    (-1, (requests.RequestException,)),
)


def code_of(error: requests.RequestException | None) -> int | None:
    if error is None:
        return None
    return next(code for code, classes in CODES if isinstance(error, classes))


def fetch(
    url: str, *, verify: Path | bool = True, proxies: Mapping[str, str] | None = None
) -> requests.RequestException | None:
    """What requests raises for a GET; None when all is well."""
    with requests.Session() as session:
        session.trust_env = False
        session.max_redirects = MAX_REDIRECTS - 1
        try:
            response = session.get(
                url,
                timeout=TIMEOUT,
                verify=verify if isinstance(verify, bool) else str(verify),
                proxies=dict(proxies or {}),
            )
            response.raise_for_status()
        except requests.RequestException as error:
            return error
    return None


@dataclass(frozen=True)
class Departure:
    """Where flowtally does not say what requests says."""

    code: int | None
    """flowtally's; None: no failure."""
    reason: str


@dataclass(frozen=True)
class Fault:
    name: str
    server: ServerFactory
    code: int | None
    """What requests says, written down so that a change of requests is seen."""
    path: str = "/"
    secure: bool = False
    proxy: str = "impatient"
    departure: Departure | None = None


def fault(
    name: str,
    server: ServerFactory,
    code: int | None,
    path: str = "/",
    departure: Departure | None = None,
) -> Fault:
    return Fault(name, server, code, path, departure=departure)


def head(
    *lines: bytes, body: bytes = b"", then: servers.Then = servers.Then.CLOSE
) -> ServerFactory:
    """Answers with these header lines, and closes unless `then` says otherwise."""
    return answering(servers.Answer(b"\r\n".join(lines) + b"\r\n\r\n" + body, then))


def ok(*lines: bytes, body: bytes = b"hello") -> ServerFactory:
    """Answers 200 with these header lines and a body."""
    return head(b"HTTP/1.1 200 OK", *lines, body=body)


def cut(data: bytes, then: servers.Then = servers.Then.CLOSE) -> ServerFactory:
    """Sends this and no more."""
    return answering(servers.Answer(data, then))


def to(location: str, code: int = 302) -> ServerFactory:
    return answering(servers.redirect(location, code))


def turns(*answers: servers.Answer) -> ServerFactory:
    """Answers the first request with the first one, and so on."""

    def start(_: Laboratory) -> servers.AnsweringServer:
        left = iter(answers)
        return servers.AnsweringServer(lambda _: next(left))

    return start


def secure_fault(name: str, server: ServerFactory, code: int | None) -> Fault:
    # Lazy, because with the eager strategy mitmproxy does not notice that a client leaves while
    # the server's handshake hangs.
    return Fault(name, server, code, secure=True, proxy="impatient and lazy")


def client_certificate(version: TLSVersion) -> ServerFactory:
    return over_tls(servers.OK, lambda authority: authority.demands_client_certificate(version))


LENGTH = b"Content-Length: 5"
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"

# Why flowtally says another code.
A_TIMEOUT = Departure(-6, "requests wraps a timeout while it reads a body in a ConnectionError")
REFUSED = Departure(-2, "mitmproxy refuses what requests accepts, so that the client gets a 502")
NO_HEAD = Departure(-2, "mitmproxy forwards nothing of a head that is cut off; requests reads on")
NO_TRAILERS = Departure(-1, "mitmproxy loses the end of a chunked body that has trailers")
INVALID_STATUS = Departure(-3, "RFC 9110 §15: a status code outside 100-599 is treated as a 5xx")
SILENT_RESET = Departure(None, "mitmproxy takes a reset for the end of a body without a length")
LIMIT_OF_CLIENT = Departure(None, "a limit of Python's http.client; other clients have others")
CLIENT_ONLY = Departure(None, "the client sends no request for such a Location")

FAULTS = [
    fault("no fault", answering(servers.OK), None),
    fault("refused port", dead, -2),
    fault("unknown host", at("nonexistent.invalid", 80), -2),
    fault("unroutable address", at("224.0.0.1", 80), -2),
    fault("SYN not answered", black_hole, -6),
    fault("silence after the request", answering(servers.SILENT), -6),
    fault("silence after the head", answering(servers.SILENT_AFTER_HEAD), -2, departure=A_TIMEOUT),
    fault("server closes after the request", answering(servers.CLOSES), -2),
    fault("server resets after the request", answering(servers.RESETS), -2),
    fault("garbage line", answering(servers.GARBAGE_LINE), -2),
    fault("garbage without a line end", answering(servers.GARBAGE_WITHOUT_LINE_END), -2),
    fault("bad status line", answering(servers.BAD_STATUS_LINE), -2),
    fault("short body", answering(servers.SHORT_BODY), -1),
    fault("chunked body cut off", answering(servers.CHUNKED_CUT_OFF), -1),
    fault("illegal chunk header", answering(servers.ILLEGAL_CHUNK_HEADER), -1),
    fault("404", answering(servers.site), -3, "/status/404"),
    fault("500", answering(servers.site), -3, "/status/500"),
    fault("503", answering(servers.site), -3, "/status/503"),
    fault("299", answering(servers.site), None, "/status/299"),
    fault("304", head(b"HTTP/1.1 304 Not Modified"), None),
    fault("401", answering(servers.site), -3, "/status/401"),
    fault("407", answering(servers.site), -3, "/status/407"),
    fault("a code that nobody knows", answering(servers.site), None, "/status/600", INVALID_STATUS),
    fault("a code of four digits", head(b"HTTP/1.1 1000 X"), -2, departure=INVALID_STATUS),
    fault("a code of two digits", head(b"HTTP/1.1 99 X"), -2, departure=INVALID_STATUS),
    # How a message is framed.
    fault("no reason phrase", head(b"HTTP/1.1 200", LENGTH, body=b"hello"), None),
    fault("lines that end in LF", cut(b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"), None),
    fault("a folded header", ok(LENGTH, b"X: 1", b" 2"), None),
    fault("no header at all", ok(), None),
    fault("a body until the end", ok(b"Content-Type: text/plain"), None),
    fault("a chunk extension", ok(CHUNKED, body=b"5;a=b\r\nhello\r\n0\r\n\r\n"), None),
    fault("an unknown transfer coding", ok(b"Transfer-Encoding: gzip"), None),
    fault("two equal lengths", ok(LENGTH, LENGTH), None, departure=REFUSED),
    fault("two lengths", ok(LENGTH, b"Content-Length: 6"), -1, departure=REFUSED),
    fault("length and chunked", ok(LENGTH, CHUNKED, body=CHUNKS), None, departure=REFUSED),
    fault("a length that is no number", ok(b"Content-Length: abc"), None, departure=REFUSED),
    fault("a negative length", ok(b"Content-Length: -1"), None, departure=REFUSED),
    fault(
        "204 with chunks",
        head(b"HTTP/1.1 204 No Content", CHUNKED, body=b"0\r\n\r\n"),
        None,
        departure=REFUSED,
    ),
    fault(
        "chunks of HTTP/1.0",
        head(b"HTTP/1.0 200 OK", CHUNKED, body=CHUNKS),
        None,
        departure=REFUSED,
    ),
    fault("a header name with a space", ok(LENGTH, b"X y: 1"), None, departure=REFUSED),
    fault("a space before the colon", ok(LENGTH, b"X : 1"), None, departure=REFUSED),
    fault("a header without a colon", ok(LENGTH, b"nothing"), None, departure=REFUSED),
    fault("trailers", answering(servers.CHUNKED_WITH_TRAILERS), None, departure=NO_TRAILERS),
    fault("a chunk that is too long", ok(CHUNKED, body=b"3\r\nhello\r\n0\r\n\r\n"), -1),
    fault("a chunk without a size", ok(CHUNKED, body=b"\r\nhello\r\n0\r\n\r\n"), -1),
    fault("reset in the body", answering(servers.SHORT_BODY_RESET), -1),
    fault("reset in a chunk", cut(servers.CHUNKED_CUT_OFF.data, servers.Then.RESET), -1),
    fault(
        "reset in a body until the end",
        cut(b"HTTP/1.1 200 OK\r\n\r\nhello", servers.Then.RESET),
        -1,
        departure=SILENT_RESET,
    ),
    fault("a status line cut off", cut(b"HTTP/1.1 20"), -2),
    fault("a head cut off", cut(b"HTTP/1.1 200 OK\r\nContent-Le"), None, departure=NO_HEAD),
    fault(
        "a head without its end",
        cut(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"),
        -1,
        departure=NO_HEAD,
    ),
    fault("reset in the head", cut(b"HTTP/1.1 200 OK\r\nContent-Le", servers.Then.RESET), -2),
    fault("the banner of SSH", cut(b"SSH-2.0-OpenSSH_9.2\r\n"), -2),
    fault("a radio station", head(b"ICY 200 OK", b"icy-name: x", body=b"hello"), -2),
    fault("frames of HTTP/2", cut(b"\0\0\x12\4\0\0\0\0\0" + b"\0" * 18), -2),
    fault(
        "another version",
        head(b"HTTP/2.0 200 OK", LENGTH, body=b"hello"),
        -2,
        departure=LIMIT_OF_CLIENT,
    ),
    fault(
        "many headers",
        ok(LENGTH, *(b"X-%d: 1" % number for number in range(200))),
        -2,
        departure=LIMIT_OF_CLIENT,
    ),
    fault("a long header", ok(LENGTH, b"X: " + b"x" * 70_000), -2, departure=LIMIT_OF_CLIENT),
    fault("gzip that is none", ok(LENGTH, b"Content-Encoding: gzip"), -1),
    # Redirects.
    fault("short redirect chain", answering(servers.site), None, "/hop/5"),
    fault("chain below the limit", answering(servers.site), None, f"/hop/{MAX_REDIRECTS - 1}"),
    fault("chain of the limit", answering(servers.site), -5, f"/hop/{MAX_REDIRECTS}"),
    fault("chain over the limit", answering(servers.site), -5, f"/hop/{MAX_REDIRECTS + 5}"),
    fault("redirect to itself", answering(servers.site), -5, "/self"),
    fault("redirect in a circle", answering(servers.site), -5, "/loop"),
    fault(
        "a login that comes back three times",
        turns(*[servers.redirect("/login"), servers.redirect("/")] * 3, servers.OK),
        None,
    ),
    fault("waiting by 303", turns(*[servers.redirect("/", 303)] * 19, servers.OK), None),
    fault("waiting too long", turns(*[servers.redirect("/", 303)] * 20, servers.OK), -5),
    fault("a redirect to nowhere", head(b"HTTP/1.1 302 Found", b"Content-Length: 0"), None),
    fault("a redirect to a dead port", to("http://127.0.0.1:1/"), -2),
    fault("a redirect to an unknown host", to("http://nonexistent.invalid/"), -2),
    fault("a redirect to ftp", to("ftp://127.0.0.1/"), -4, departure=CLIENT_ONLY),
    fault("a redirect to mail", to("mailto:user@host.example"), -4, departure=CLIENT_ONLY),
    fault("a redirect to no port", to("http://127.0.0.1:99999/"), -4, departure=CLIENT_ONLY),
    secure_fault("no fault, https", over_tls(servers.OK), None),
    secure_fault("refused port, https", dead_by_name, -2),
    secure_fault("short body, https", over_tls(servers.SHORT_BODY), -1),
    secure_fault("self-signed certificate", over_tls(servers.OK, Authority.self_signed), -2),
    secure_fault("expired certificate", over_tls(servers.OK, Authority.expired), -2),
    secure_fault("certificate of another host", over_tls(servers.OK, Authority.wrong_host), -2),
    secure_fault("unknown CA", over_tls(servers.OK, Authority.unknown_issuer), -2),
    secure_fault("server speaks old TLS only", over_tls(servers.OK, Authority.outdated), -2),
    secure_fault("plain text on a TLS port", in_handshake(servers.BAD_STATUS_LINE), -2),
    secure_fault("close in the TLS handshake", in_handshake(servers.CLOSES), -2),
    secure_fault("reset in the TLS handshake", in_handshake(servers.RESETS), -2),
    secure_fault("silence in the TLS handshake", in_handshake(servers.SILENT), -6),
    secure_fault("client certificate, TLS 1.2", client_certificate(TLSVersion.TLSv1_2), -2),
    secure_fault("client certificate, TLS 1.3", client_certificate(TLSVersion.TLSv1_3), -2),
]


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, id=fault.name) for fault in FAULTS],
)
def test_requests_agrees(laboratory: Laboratory, fault: Fault) -> None:
    scheme = "https" if fault.secure else "http"
    with fault.server(laboratory) as server:
        url = f"{scheme}://{server.host}:{server.port}{fault.path}"
        error = fetch(url, verify=laboratory.authority.bundle)
    assert code_of(error) == fault.code, repr(error)

    proxy = laboratory.proxy(fault.proxy)
    with fault.server(laboratory) as server:
        url = f"{scheme}://{server.host}:{server.port}{fault.path}"
        records = laboratory.observe(
            proxy, lambda: fetch(url, verify=proxy.ca, proxies=proxy.proxies), 1
        )

    expected = fault.code if fault.departure is None else fault.departure.code
    assert last_code(records) == expected, "\n".join(map(str, records))


def last_code(records: list[Record]) -> int | None:
    """The code of the last exchange, where a chain of redirects ends."""
    code: int | None = records[-1].get("error_code")
    return code


def test_departures_depart() -> None:
    for fault in FAULTS:
        assert fault.departure is None or fault.departure.code != fault.code, fault.name


@pytest.mark.parametrize(
    "target",
    ["http:///foo", "http://h:99999/", "foo", "ftp://127.0.0.1:21/"],
)
def test_requests_agrees_on_invalid_urls(laboratory: Laboratory, target: str) -> None:
    """requests sends no such request, so through the proxy its bytes are written by hand."""
    assert code_of(fetch(target)) == -4

    proxy = laboratory.proxy("impatient")
    (record,) = laboratory.observe(
        proxy, lambda: clients.exchange(proxy.port, f"GET {target} HTTP/1.1\r\n\r\n".encode()), 1
    )
    assert record["error_code"] == -4


@pytest.mark.parametrize(
    ("mode", "upstream"),
    [
        ("dead upstream", lambda laboratory: laboratory.dead),
        ("forbidding upstream", lambda laboratory: laboratory.forbidding_upstream),
        ("locked upstream", lambda laboratory: laboratory.locked_upstream),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_requests_agrees_on_upstream_proxies(
    laboratory: Laboratory,
    mode: str,
    upstream: Callable[[Laboratory], servers.DeadPort | servers.AnsweringServer],
) -> None:
    with over_tls(servers.OK)(laboratory) as server:
        error = fetch(server.url, proxies={"https": upstream(laboratory).url})
        assert isinstance(error, requests.exceptions.ProxyError)

        proxy = laboratory.proxy("regular")
        proxies = {"https": f"http://127.0.0.1:{laboratory.port('regular', mode)}"}
        (record,) = laboratory.observe(
            proxy, lambda: fetch(server.url, verify=proxy.ca, proxies=proxies), 1
        )
    assert record["error_code"] == code_of(error)


def test_requests_agrees_on_distrust(laboratory: Laboratory) -> None:
    """A client that does not know the proxy's CA raises, and the proxy records it."""
    proxy = laboratory.proxy("regular")
    errors: list[requests.RequestException | None] = []
    with over_tls(servers.OK)(laboratory) as server:
        (record,) = laboratory.observe(
            proxy, lambda: errors.append(fetch(server.url, proxies=proxy.proxies)), 1
        )
    assert isinstance(errors[0], requests.exceptions.SSLError)
    assert record["error_code"] == code_of(errors[0])
