"""Every row of the source's table of status codes, live, and what lies around it."""

from __future__ import annotations

from contextlib import closing

import pytest
from lab import clients
from lab.expected import fine
from lab.expected import overlaid
from lab.expected import status
from lab.laboratory import Laboratory
from lab.servers import read_until

pytestmark = pytest.mark.timeout(60)

# The source's rows, with its slips corrected: 302, 303, 304 and 503.
SOURCE = [
    ("100", "Informational", "Continue"),
    ("200", "Success", "OK"),
    ("201", "Success", "Created"),
    ("202", "Success", "Accepted"),
    ("203", "Success", "Non-authoritative information"),
    ("204", "Success", "No content"),
    ("301", "Redirection", "Moved permanently"),
    ("302", "Redirection", "Found"),
    ("303", "Redirection", "See other"),
    ("304", "Redirection", "Not modified"),
    ("400", "Client error", "Bad request"),
    ("401", "Client error", "Unauthorized"),
    ("402", "Client error", "Payment required"),
    ("403", "Client error", "Forbidden"),
    ("404", "Client error", "Not found"),
    ("405", "Client error", "Method not allowed"),
    ("407", "Client error", "Proxy authentication required"),
    ("408", "Client error", "Request timeout"),
    ("410", "Client error", "Gone"),
    ("412", "Client error", "Precondition failed"),
    ("414", "Client error", "Request-URI too long"),
    ("500", "Server error", "Internal server error"),
    ("501", "Server error", "Not implemented"),
    ("503", "Server error", "Service unavailable"),
    ("504", "Server error", "Gateway timeout"),
    ("505", "Server error", "HTTP version not supported"),
]

BEYOND_THE_SOURCE = [
    ("103", "Informational", "Early hints"),
    ("418", "Client error", "I'm a teapot"),
    ("429", "Client error", "Too many requests"),
    ("502", "Server error", "Bad gateway"),
    # From the origin these are status codes like any other, although mitmproxy uses 444 itself.
    ("444", "Client error", "No response (nginx)"),
    ("499", "Client error", "Client closed request (nginx)"),
    ("520", "Server error", "Web server returned an unknown error (Cloudflare)"),
    # Nobody assigned these: RFC 9110 §15 leaves the first digit.
    ("199", "Informational", "Unassigned"),
    ("299", "Success", "Unassigned"),
    ("399", "Redirection", "Unassigned"),
    ("477", "Client error", "Unassigned"),
    ("599", "Server error", "Unassigned"),
    # Outside 100 to 599: RFC 9110 §15 says to treat them as a 5xx.
    ("600", "Server error", "Invalid status code"),
    ("999", "Server error", "Invalid status code"),
    ("099", "Server error", "Invalid status code"),
]


@pytest.mark.parametrize(
    ("code", "band", "description"), [*SOURCE, *BEYOND_THE_SOURCE], ids=lambda value: value
)
def test_status_code(laboratory: Laboratory, code: str, band: str, description: str) -> None:
    proxy = laboratory.proxy("regular")

    records = laboratory.observe(
        proxy, lambda: clients.get(proxy, laboratory.origin, f"/status/{code}"), 1
    )

    (record,) = records
    port = laboratory.origin.port
    if code.startswith("1"):
        # mitmproxy takes it for the final response, but the code is told all the same.
        overlaid(int(code), description, -1, "interim_response", "proxy", port=port).check(record)
    else:
        status(int(code), description, port=port).check(record)
    assert record["band"] == band
    proxy.assert_no_addon_error()


def test_switching_protocols(laboratory: Laboratory) -> None:
    """After a 101 that is no WebSocket mitmproxy relays raw TCP, which is a flow of its own."""
    proxy = laboratory.proxy("regular")

    def act() -> None:
        with closing(clients.open_connection(proxy.port)) as connection:
            connection.sendall(clients.absolute_get(laboratory.origin, "/status/101"))
            assert read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 101")

    switch, relay = laboratory.observe(proxy, act, 2)

    status(101, "Switching protocols").check(switch)
    fine("tcp").check(relay)


def test_query_values_stay_out_of_the_log(laboratory: Laboratory) -> None:
    proxy = laboratory.proxy("regular")

    records = laboratory.observe(
        proxy, lambda: clients.get(proxy, laboratory.origin, "/status/200?token=secret"), 1
    )

    (record,) = records
    assert record["method"] == "GET"
    assert record["url"].startswith(f"{laboratory.origin.url}/status/200")
    assert "secret" not in proxy.log.read_text(encoding="utf-8")
