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
        session.max_redirects = MAX_REDIRECTS
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
class Fault:
    name: str
    server: ServerFactory
    code: int | None
    """What requests says, written down so that a change of requests is seen."""
    path: str = "/"
    secure: bool = False
    proxy: str = "impatient"
    departure: int | None = None
    """flowtally's code where it is another one, for a documented reason."""


def fault(name: str, server: ServerFactory, code: int | None, path: str = "/") -> Fault:
    return Fault(name, server, code, path)


def secure_fault(name: str, server: ServerFactory, code: int | None) -> Fault:
    # Lazy, because with the eager strategy mitmproxy does not notice that a client leaves while
    # the server's handshake hangs.
    return Fault(name, server, code, secure=True, proxy="impatient and lazy")


def client_certificate(version: TLSVersion) -> ServerFactory:
    return over_tls(servers.OK, lambda authority: authority.demands_client_certificate(version))


FAULTS = [
    fault("no fault", answering(servers.OK), None),
    fault("refused port", dead, -2),
    fault("unknown host", at("nonexistent.invalid", 80), -2),
    fault("unroutable address", at("224.0.0.1", 80), -2),
    fault("SYN not answered", black_hole, -6),
    fault("silence after the request", answering(servers.SILENT), -6),
    # requests wraps a timeout while it reads the body in a ConnectionError; a timeout it is.
    Fault("silence after the head", answering(servers.SILENT_AFTER_HEAD), -2, departure=-6),
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
    fault("short redirect chain", answering(servers.site), None, "/hop/5"),
    fault("redirect chain of the limit", answering(servers.site), None, f"/hop/{MAX_REDIRECTS}"),
    fault("redirect chain over the limit", answering(servers.site), -5, "/hop/25"),
    fault("redirect to itself", answering(servers.site), -5, "/self"),
    fault("redirect in a circle", answering(servers.site), -5, "/loop"),
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
    [
        pytest.param(fault, id=fault.name, marks=pytest.mark.xdist_group(fault.proxy))
        for fault in FAULTS
    ],
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

    expected = fault.code if fault.departure is None else fault.departure
    assert last_code(records) == expected, "\n".join(map(str, records))


def last_code(records: list[Record]) -> int | None:
    """The code of the last exchange, where a chain of redirects ends."""
    code: int | None = records[-1].get("error_code")
    return code


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
