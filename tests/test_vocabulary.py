"""The data files of known/ against each other, the contract's tables and outside sources."""

from __future__ import annotations

import csv
import http
import json
import re
from pathlib import Path

import pytest
import requests
from flowtally import vocabulary
from flowtally.vocabulary import CAUSES
from flowtally.vocabulary import ERRORS
from flowtally.vocabulary import KNOWN
from flowtally.vocabulary import REASONS
from flowtally.vocabulary import STATUS_TAGS
from flowtally.vocabulary import CatalogueError
from flowtally.vocabulary import Why
from flowtally.vocabulary import read_catalogue

# The two source tables, with the wording that flowtally settled on.
SOURCE = {
    "Informational": {100: "Continue", 101: "Switching protocols"},
    "Success": {
        200: "OK",
        201: "Created",
        202: "Accepted",
        203: "Non-authoritative information",
        204: "No content",
    },
    "Redirection": {
        301: "Moved permanently",
        302: "Found",
        303: "See other",
        304: "Not modified",
    },
    "Client error": {
        400: "Bad request",
        401: "Unauthorized",
        402: "Payment required",
        403: "Forbidden",
        404: "Not found",
        405: "Method not allowed",
        407: "Proxy authentication required",
        408: "Request timeout",
        410: "Gone",
        412: "Precondition failed",
        414: "Request-URI too long",
    },
    "Server error": {
        500: "Internal server error",
        501: "Not implemented",
        503: "Service unavailable",
        504: "Gateway timeout",
        505: "HTTP version not supported",
    },
}
EXCEPTIONS = {
    -1: requests.RequestException,
    -2: requests.ConnectionError,
    -3: requests.HTTPError,
    -4: requests.URLRequired,
    -5: requests.TooManyRedirects,
    -6: requests.Timeout,
}
VENDOR_CODES = [*range(495, 500), 444, 494, *range(520, 528), 530, 460, 463, 464, 561, 440, 449]


@pytest.mark.parametrize(
    ("band", "code", "description"),
    [(band, code, text) for band, codes in SOURCE.items() for code, text in codes.items()],
)
def test_source_table(band: str, code: int, description: str) -> None:
    tag = STATUS_TAGS[code]
    assert (tag["band"], tag["description"]) == (band, description)


REWORDED = {413, 414, 416, 422}
"""What RFC 9110 calls otherwise than its predecessors, and Python only from 3.13 on."""


@pytest.mark.parametrize("status", list(http.HTTPStatus), ids=lambda status: str(status.value))
def test_every_code_of_the_standard_library_is_known(status: http.HTTPStatus) -> None:
    assert status.value in STATUS_TAGS


@pytest.mark.parametrize(
    "status",
    [status for status in http.HTTPStatus if status not in REWORDED],
    ids=lambda status: str(status.value),
)
def test_a_code_is_called_as_the_standard_library_calls_it(status: http.HTTPStatus) -> None:
    assert STATUS_TAGS[status.value]["description"].lower() == status.phrase.lower()


@pytest.mark.parametrize("code", VENDOR_CODES)
def test_vendor_codes_name_their_vendor(code: int) -> None:
    assert STATUS_TAGS[code]["description"].endswith(")")


@pytest.mark.parametrize(
    ("code", "band", "description"),
    [
        (299, "Success", "Unassigned"),
        (199, "Informational", "Unassigned"),
        (598, "Server error", "Unassigned"),
        (99, "Server error", "Invalid status code"),
        (600, "Server error", "Invalid status code"),
        (-5, "Server error", "Invalid status code"),
        (10**9, "Server error", "Invalid status code"),
    ],
)
def test_codes_that_nobody_assigned(code: int, band: str, description: str) -> None:
    tag = STATUS_TAGS.get(code) or vocabulary.status_tag(code)
    assert (tag["band"], tag["description"]) == (band, description)


def test_unsuccessful_codes_are_http_errors() -> None:
    for code, tag in STATUS_TAGS.items():
        assert tag.get("error_code") == (None if code < 400 else -3)
    assert vocabulary.status_tag(600)["error_code"] == -3
    assert vocabulary.status_tag(99)["error_code"] == -3


@pytest.mark.parametrize("code", ERRORS)
def test_error_codes_are_the_exceptions_of_requests(code: int) -> None:
    documented = " ".join((EXCEPTIONS[code].__doc__ or "").split())
    if code in (-1, -4):  # the others' meanings are worded otherwise in the library
        assert ERRORS[code].meaning == documented
    assert ERRORS[code].name == {-2: "ConnectionErr"}.get(code, EXCEPTIONS[code].__name__)


def test_causes_are_complete() -> None:
    for cause in CAUSES.values():
        assert cause.side in ("client", "proxy", "server", "network")
        assert cause.stage in ("", "before", "connecting")
        assert cause.advice.endswith(".")
    codes = {cause.error.code for cause in CAUSES.values() if cause.error}
    assert codes == {-1, -2, -3, -4, -5, -6}
    assert [name for name, cause in CAUSES.items() if not cause.error] == [vocabulary.CANCELLED]


def test_reasons_are_complete() -> None:
    for why, reason in REASONS.items():
        assert why.cause in CAUSES
        assert re.fullmatch("[a-z0-9_]+", why.reason)
        assert reason.side in ("client", "proxy", "server", "network")
        assert reason.advice.endswith(".")
        assert reason.advice != CAUSES[why.cause].advice


def test_clients_have_words_for_known_causes() -> None:
    with (KNOWN / "clients.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert _is_known(":".join(filter(None, (row["cause"], row["reason"]))))
        assert row["client"] in vocabulary.CLIENTS
        assert row["says"]
        assert row["evidence"] in ("m", "s", "j")


@pytest.mark.parametrize(
    ("why", "words"),
    [
        (
            Why("connection_refused"),
            "Without a proxy: net::ERR_CONNECTION_REFUSED · curl 7 · ECONNREFUSED · "
            "requests ConnectionError (NewConnectionError)",
        ),
        # A reason has words of its own, and else the cause's.
        (
            Why("tls_certificate_error", "wrong_host"),
            "Without a proxy: net::ERR_CERT_COMMON_NAME_INVALID · curl 60 · "
            "ERR_TLS_CERT_ALTNAME_INVALID · requests SSLError (SSLCertVerificationError)",
        ),
        # Without the proxy, there would be nothing to reject.
        (
            Why("client_tls_rejected", "after_handshake"),
            "The client says: net::ERR_SSL_PINNED_KEY_NOT_IN_CERT_CHAIN · curl 90 · "
            "UNABLE_TO_VERIFY_LEAF_SIGNATURE · requests SSLError",
        ),
        # A proxy that is down is another thing than one that refuses.
        (
            Why("destination_unavailable"),
            "Without a proxy: net::ERR_PROXY_CONNECTION_FAILED · curl 7 · requests ProxyError",
        ),
        (
            Why("destination_unavailable", "refused"),
            "Without a proxy: net::ERR_TUNNEL_CONNECTION_FAILED · curl 56 · requests ProxyError",
        ),
        # HTTP/2 has words of its own, and they ask once more where that helps.
        (
            Why("http_protocol_error", "enhance_your_calm"),
            "Without a proxy: net::ERR_HTTP2_PROTOCOL_ERROR · curl 92",
        ),
        (Why("http_protocol_error", "http_1_1_required"), ""),
        # Clients cut the body, or take what mitmproxy refuses, and say nothing.
        (Why("http_protocol_error", "surplus_bytes"), ""),
        (Why("http_protocol_error", "refused_by_mitmproxy"), ""),
        (Why("grpc_error", "unavailable"), ""),
        (Why("404"), ""),
    ],
)
def test_what_clients_would_have_said(why: Why, words: str) -> None:
    assert vocabulary.client_words(why) == words


def test_schema_names_the_same_vocabulary() -> None:
    schema = json.loads((KNOWN / "record.schema.json").read_text(encoding="utf-8"))
    error = schema["$defs"]["error"]["properties"]
    assert set(error["cause"]["enum"]) == set(CAUSES)
    assert error["error_code"]["enum"] == list(ERRORS)
    assert error["error_name"]["enum"] == [error.name for error in ERRORS.values()]
    assert schema["$defs"]["band"]["enum"] == list(vocabulary.BANDS)
    flow = schema["$defs"]["flow"]["properties"]
    assert flow["kind"]["enum"] == list(vocabulary.KINDS)
    assert flow["outcome"]["enum"] == list(vocabulary.OUTCOMES)


def test_messages_lead_to_known_causes() -> None:
    with (KNOWN / "messages.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        assert row["match"] in ("is", "starts", "like")
        assert row["where"] in ("exchange", "handshake", "log", "note", "error", "task")
        causes = {row[name] for name in ("server_before_head", "server_after_head", "client")}
        assert {cause for cause in causes if cause and not _is_known(cause)} == set()
        assert causes != {""}
        assert row["source"]
    for why in (*vocabulary.OS_ERRORS.values(), *vocabulary.TLS_ERRORS.values()):
        assert _is_known(":".join(filter(None, why)))
    # An alert's reason is its registered name, which needs no row of its own.
    for alert in vocabulary.TLS_ALERTS.values():
        assert {why.cause for why in alert} <= {*CAUSES, vocabulary.CLIENT_GAVE_UP}


def _is_known(cell: str) -> bool:
    """Whether a cell names a cause, or a reason that a cause has."""
    cause, colon, reason = cell.partition(":")
    if cause == vocabulary.TIMED_OUT:
        timeouts = ("connection_timeout", "http_response_timeout", "connection_read_timeout")
        return all(Why(timeout, reason) in REASONS for timeout in timeouts)
    if colon:
        return Why(cause, reason) in REASONS
    return cause in CAUSES or cause == vocabulary.CLIENT_GAVE_UP


@pytest.mark.parametrize("name", [path.name for path in KNOWN.glob("*.csv")])
def test_every_row_has_its_source_and_no_key_twice(name: str) -> None:
    with (KNOWN / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    keys = [tuple(row.values())[:3] if name == "messages.csv" else _key(row) for row in rows]
    assert len(keys) == len(set(keys))
    assert all(row.get("source") or row["evidence"] for row in rows)


def test_background_hosts_are_written_as_they_are_compared() -> None:
    for row in vocabulary.BACKGROUND:
        assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", row.host)
        assert not row.path or row.path.startswith(b"/")
        assert row.tunnel or row.path
        assert re.fullmatch(r"[A-Z][a-z]+", row.whose)
    with (KNOWN / "background.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            assert line["note"]
            # Of a whole host, a connection counts by itself.
            assert line["tunnel"] in (("", "yes") if line["path"] else ("",))


def _key(row: dict[str, str]) -> tuple[str, ...]:
    if "family" in row:
        return row["family"], row["number"]
    if "protocol" in row:
        return row["protocol"], row["number"]
    if "host" in row:
        return row["host"], row["path"]
    if "kind" in row:  # browsers and their settings
        return tuple(row[name] for name in ("kind", "system", "where", "name") if name in row)
    names = [name for name in ("cause", "reason", "client") if "reason" in row and name in row]
    return tuple(row[name] for name in names) or (next(iter(row.values())),)


def test_catalogue_adds_and_rewords(tmp_path: Path) -> None:
    file = tmp_path / "codes.toml"
    file.write_text('[status]\n404 = "Gone fishing"\n499 = "Left"\n777 = "Ours"\n', "utf-8")
    tags = read_catalogue(file)
    assert tags[404] == {**STATUS_TAGS[404], "description": "Gone fishing"}
    assert tags[777]["band"] == "Server error"
    assert tags[777]["description"] == "Ours"
    assert tags[200] is STATUS_TAGS[200]
    assert STATUS_TAGS[404]["description"] == "Not found"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[status]\n200 = "OK"\nabc = "x"\n', "line 3: 'abc' is no status code"),
        ("[status]\n\n404 = 5\n", "line 3: the description of 404 must be text"),
        ('[status]\n404 = " "\n', "line 2: the description of 404 must be text"),
        ('[status]\n404 = "a\\u001bb"\n', "line 2: the description of 404 must be one line"),
        ('[status]\n404 = "' + "x" * 121 + '"\n', "at most 120 characters"),
        ('[codes]\n404 = "x"\n', "line 1: unknown table or key 'codes'"),
        ("status = 5\n", "line 1: 'status' must be a table"),
        ("[status\n", "line 1"),
        ('[status]\n404 = "a"\n404 = "b"\n', "line 3"),
    ],
)
def test_catalogue_errors_name_line_and_reason(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "codes.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(CatalogueError) as caught:
        read_catalogue(file)
    assert says in str(caught.value)
    assert str(file) in str(caught.value)


def test_catalogue_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="No such file"):
        read_catalogue(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"[status]\n404 = '\xff'\n")
    with pytest.raises(CatalogueError, match="line 2: is not UTF-8"):
        read_catalogue(tmp_path / "binary.toml")


def test_what_is_said_of_a_client_has_no_reason_that_blames_another() -> None:
    said = {message.client for rows in vocabulary._MESSAGES.values() for message in rows}
    said |= {alert.client for alert in vocabulary.TLS_ALERTS.values()}
    for why in said & vocabulary.REASONS.keys():
        assert vocabulary.side_of(why) == vocabulary.CAUSES[why.cause].side, why
