"""Looks up the vocabularies of `known/`: status codes, error codes, causes, messages.

Everything that is knowledge rather than logic stands in the CSV files of that folder, each row
with its source; this module reads them once, at import, and turns them into dictionaries.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from typing import Literal
from typing import NamedTuple

KNOWN = Path(__file__).with_name("known")

SCHEMA = 2
"""Version of the format of the session log, `known/record.schema.json`."""

BANDS = ("Informational", "Success", "Redirection", "Client error", "Server error")
"""The status bands, by first digit of the code (RFC 9110 §15)."""
ERROR_BANDS = BANDS[3:]
"""The bands of the codes from 400 on."""

UNSUCCESSFUL = -3
"""The error code of a complete response with a status of 400 and up."""

OUTCOMES = ("status", "error", "cancelled", "ok", "unfinished")
"""What can become of a flow."""
KINDS = ("http", "websocket", "connect", "dns", "tcp", "udp")
"""What a flow can be."""

DEFAULT_PORTS: Mapping[str, int] = {"http": 80, "https": 443}
"""Scheme → the port that its URLs need not name (RFC 9110 §4.2)."""

REDIRECT_CODES = frozenset((301, 302, 303, 307, 308))
"""The codes a client follows (RFC 9110 §15.4; the Fetch standard's "redirect status")."""

CHALLENGE_CODES = frozenset((401, 407))
"""The codes that ask a client for credentials (RFC 9110 §11.3 and §11.7.1)."""

MAX_DESCRIPTION = 120
"""Longest description a catalogue file may give, in characters."""

Tag = dict[str, Any]
"""What a flow is tagged with, as plain data: `outcome`, and as far as they have a value `status`,
`band`, `description`, `error_code`, `error_name`, `cause`, `reason`, `side`, `detail`,
`close_code`, `close_reason`, `grpc_status`, `answered_by`, `answers`, `challenge`, `background`.
These are fields of its record, too."""
METADATA_KEY = "flowtally"
"""Where the tag stands in `flow.metadata`."""


class Error(NamedTuple):
    """One row of `known/error_codes.csv`."""

    code: int
    name: str
    meaning: str


class Cause(NamedTuple):
    """One row of `known/causes.csv`."""

    name: str
    error: Error | None
    """None: nobody failed, the client cancelled."""
    side: str
    """Where to look: `client`, `proxy`, `server` or `network`."""
    stage: str
    """How far what has no answer had come: `before` a connection was made, or `connecting`, of
    which TLS is a part; "": it waited for the server."""
    advice: str
    """One line that a person who debugs can act on."""


class Reason(NamedTuple):
    """One row of `known/reasons.csv`: what else the evidence says about a cause."""

    side: str
    """As of `Cause`; the cause's own where the row gives none."""
    advice: str


class BackgroundHost(NamedTuple):
    """One row of `known/background.csv`: where a browser or system sends requests on its own."""

    host: str
    """It and all hosts below it, in lower case."""
    path: bytes
    """What the request targets of such requests begin with; empty: all of them."""
    tunnel: bool
    """A connection to the host counts although nobody sees what is asked for."""
    whose: str
    """The browser or system."""


class Why(NamedTuple):
    """A cause, and the reason that refines it or ""."""

    cause: str
    reason: str = ""

    def __str__(self) -> str:
        """As people read it: `dns_error (nxdomain)`."""
        return f"{self.cause} ({self.reason})" if self.reason else self.cause


NOBODY = Why("")
"""Stands where a message cannot come from a side."""


class Message(NamedTuple):
    """One row of `known/messages.csv`: what a text of mitmproxy's means.

    The same words can be said of either side and before or after the response head, so a row says
    why for each; NOBODY means that the message cannot come from there.
    """

    match: Literal["is", "starts", "like"]
    text: str
    """What to compare with; where `match` is `like`, a regular expression for all of the text."""
    server_before_head: Why
    server_after_head: Why
    client: Why


CLIENT_GAVE_UP = "client_gave_up"
"""Stands in `known/messages.csv` where the cause depends on how long the client had waited."""
TIMED_OUT = "timed_out"
"""Stands there for a timeout whose cause depends on how far the exchange had come."""
COLLATERAL = "collateral"
"""The reason of a failure that another flow caused, which has a problem of its own."""
INACTIVITY = "tcp_timeout"
"""The reason of a timeout of mitmproxy's own, its option of that name."""
CANCELLED = "client_cancelled"
"""The cause of an exchange that the client ended of its own will."""
GAVE_UP = frozenset(
    (CANCELLED, "connection_timeout", "connection_read_timeout", "http_response_timeout")
)
"""The causes of an exchange that ended because its client had left."""
CAPTURE_INCOMPLETE = Why("proxy_internal_error", "capture_incomplete")
"""Why flows are missing of a file that mitmproxy did not read to its end."""
CRASHED = Why("proxy_internal_error", "handler_crashed")
"""Why something failed where what mitmproxy runs for a connection died of an exception."""


def _rows(name: str) -> Iterator[dict[str, str]]:
    with (KNOWN / name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


ERRORS: Mapping[int, Error] = {
    int(row["code"]): Error(int(row["code"]), row["name"], row["meaning"])
    for row in _rows("error_codes.csv")
}
_ERRORS = {str(code): error for code, error in ERRORS.items()}


def error_of(code: str) -> Error | None:
    """The error of a code as statistics hold it; None where it is none, or stands for others."""
    return _ERRORS.get(code)


CAUSES: Mapping[str, Cause] = {
    row["cause"]: Cause(
        row["cause"],
        ERRORS[int(row["code"])] if row["code"] else None,
        row["side"],
        row["stage"],
        row["advice"],
    )
    for row in _rows("causes.csv")
}

REASONS: Mapping[Why, Reason] = {
    Why(row["cause"], row["reason"]): Reason(
        row["side"] or CAUSES[row["cause"]].side, row["advice"]
    )
    for row in _rows("reasons.csv")
}
"""What each reason of a cause means."""


def _read_why(cell: str) -> Why:
    """What a cell of a data file says: `cause` or `cause:reason`."""
    cause, _, reason = cell.partition(":")
    return Why(cause, reason)


OS_ERRORS: Mapping[tuple[str, int], Why] = {
    (row["family"], int(row["number"])): _read_why(row["cause"]) for row in _rows("os_errors.csv")
}
"""(`Errno` or `WinError`, number) → why, for every platform: a saved flow may come from any."""


BACKGROUND = tuple(
    BackgroundHost(
        row["host"],
        row["path"].encode("ascii"),
        not row["path"] or row["tunnel"] == "yes",
        row["whose"],
    )
    for row in _rows("background.csv")
)
"""Where browsers and systems send requests on their own."""


class Variable(NamedTuple):
    """One row of `known/environment.csv`: a variable by which clients are sent through a proxy, or
    learn whom to trust."""

    value: str
    """What it is set to: `proxy`, `empty`, `one`, `bundle`, `extra`, `wgetrc` or `java`; `folders`
    are left as they are."""


VARIABLES: Mapping[str, Variable] = {
    row["variable"]: Variable(row["value"]) for row in _rows("environment.csv")
}
"""By name. One in lower case is read by some clients in lower, by some in upper case."""


class HttpClient(NamedTuple):
    """One row of `known/http_clients.csv`: what a client has to have to go through a proxy."""

    name: str
    programs: frozenset[str]
    """The commands that are it, or in which it is found."""
    needs: str
    """What has to be so beside the variables."""
    usual: bool
    """It is worth a line where nobody knows which client there was."""


HTTP_CLIENTS = tuple(
    HttpClient(
        row["client"], frozenset(row["programs"].split()), row["needs"], row["usual"] == "yes"
    )
    for row in _rows("http_clients.csv")
)
"""In the order in which they are shown."""


class GrpcStatus(NamedTuple):
    """One row of `known/grpc_statuses.csv`."""

    name: str
    side: str
    """Where to look when a call ends with it; empty for `ok`."""


GRPC_STATUSES: Mapping[int, GrpcStatus] = {
    int(row["code"]): GrpcStatus(row["name"], row["side"]) for row in _rows("grpc_statuses.csv")
}

CLOSE_CODES: Mapping[int, str] = {int(row["code"]): row["name"] for row in _rows("close_codes.csv")}
"""The code with which a WebSocket is closed → its registered name."""


def close_name(code: int) -> str:
    """The name of the code with which a WebSocket was closed (RFC 6455 §7.4.2)."""
    if name := CLOSE_CODES.get(code):
        return name
    return "private_use" if 4000 <= code <= 4999 else "unassigned"


class Alert(NamedTuple):
    """One row of `known/tls_alerts.csv`: what it means when a side sends this alert."""

    server: Why
    client: Why


TLS_ALERTS: Mapping[str, Alert] = {
    row["name"]: Alert(_read_why(row["server"]), _read_why(row["client"]))
    for row in _rows("tls_alerts.csv")
}
"""An alert's registered name → what it means."""
TLS_ALERT_NAMES: Mapping[int, str] = {
    int(row["number"]): row["name"] for row in _rows("tls_alerts.csv")
}
TLS_ERRORS: Mapping[str, Why] = {
    row["text"]: _read_why(row["cause"]) for row in _rows("tls_errors.csv")
}
"""What OpenSSL or aioquic says of a handshake or a certificate → why."""
METHODS = frozenset(row["method"] for row in _rows("methods.csv"))
"""The registered HTTP methods."""
PROTOCOL_CODES: Mapping[tuple[str, int], str] = {
    (row["protocol"], int(row["number"])): row["name"] for row in _rows("protocol_codes.csv")
}
"""(`http2`, `http3` or `quic`, number) → the error code's registered name."""


def _messages() -> dict[str, list[Message]]:
    found: dict[str, list[Message]] = {}
    for row in _rows("messages.csv"):
        sides = (_read_why(row[s]) for s in ("server_before_head", "server_after_head", "client"))
        # The tests check the words of the file.
        message = Message(row["match"], row["text"], *sides)  # type: ignore[arg-type]
        found.setdefault(row["where"], []).append(message)
    return found


_MESSAGES = _messages()
EXCHANGE_MESSAGES = tuple(_MESSAGES["exchange"])
"""Texts of `flow.error` and `server_conn.error`."""
HANDSHAKE_MESSAGES = tuple(_MESSAGES["handshake"])
"""Texts of `client_conn.error` after a failed TLS handshake with the client."""
LOG_MESSAGES = tuple(_MESSAGES["log"])
"""Log lines that are mitmproxy's only word on a failure."""
NOTE_MESSAGES = tuple(_MESSAGES["note"])
"""Log lines that explain a failure which a flow shows only vaguely, or not at all."""
ERROR_MESSAGES = tuple(_MESSAGES["error"])
"""Errors that mitmproxy logs of itself, after the logger's name and a colon."""
TASK_MESSAGES = tuple(_MESSAGES["task"])
"""Exceptions of which the task of a connection dies: the class, a colon, and its text."""


def error_fields(cause: str) -> Tag:
    """The error code of a cause and its name; nothing of one that is no failure."""
    error = CAUSES[cause].error
    return {"error_code": error.code, "error_name": error.name} if error else {}


def is_collateral(tag: Mapping[str, Any]) -> bool:
    """Whether a tag, or a record, is of a failure that another flow caused."""
    # Of a complete response the reason may be a word that a peer chose.
    return tag.get("outcome") == "error" and tag.get("reason") == COLLATERAL


def side_of(why: Why) -> str:
    """Where to look, unless the evidence tells another side; "" of a cause that is not known."""
    known = REASONS.get(why) or CAUSES.get(why.cause)
    return known.side if known else ""


def advice(why: Why) -> str:
    """One line that a person who debugs can act on; "" of a cause that is not known."""
    known = REASONS.get(why) or CAUSES.get(why.cause)
    return known.advice if known else ""


CLIENTS: Mapping[str, str] = {
    "chromium": "net::{}",
    "curl": "curl {}",
    "node": "{}",
    "requests": "requests {}",
    "nel": "{}",
    "envoy": "{}",
}
"""Client → how its words are quoted. NEL: the types of Network Error Logging; Envoy: its response
flags."""
NOTHING_SAID = "-"
"""Stands in `known/clients.csv` where a client does not mind."""
OF_THE_PROXY = frozenset(("client_tls_rejected",))
"""Causes that there would not be without the proxy."""
SHOWN_CLIENTS = ("chromium", "curl", "node", "requests")
"""Those that people are shown the words of."""


@cache
def _words() -> Mapping[tuple[str, Why], str]:
    """(client, why) → its words; read when a report needs them."""
    return {
        (row["client"], Why(row["cause"], row["reason"])): row["says"]
        for row in _rows("clients.csv")
    }


def words_of(client: str, why: Why) -> str:
    """What one of CLIENTS says of the same fault when it meets it without a proxy; "" of nothing.
    A reason without words of its own has the cause's."""
    words = _words()
    says = words.get((client, why), words.get((client, Why(why.cause)), NOTHING_SAID))
    return CLIENTS[client].format(says) if says != NOTHING_SAID else ""


def client_words(why: Why) -> str:
    """What the clients that people know would have said without a proxy, in a sentence: behind one
    they only say 502. Of what the proxy itself causes, what they say to it."""
    lead = "The client says" if why.cause in OF_THE_PROXY else "Without a proxy"
    words = " · ".join(filter(None, (words_of(client, why) for client in SHOWN_CLIENTS)))
    return f"{lead}: {words}" if words else ""


def find_message(messages: tuple[Message, ...], text: str) -> Message | None:
    """The first row that matches `text`, of which all but the network's words is mitmproxy's.

    A row compares the whole text, its beginning, or its beginning and its end; it never looks for
    words anywhere, because a host's name, a header or a reason phrase may stand in the text.
    """
    for message in messages:
        if message.match == "starts":
            if text.startswith(message.text):
                return message
        elif message.match == "like":
            if re.fullmatch(message.text, text, re.DOTALL):
                return message
        elif text == message.text:
            return message
    return None


def band(code: int) -> str:
    """The band of a status code. A code outside 100-599 is treated as 5xx (RFC 9110 §15)."""
    return BANDS[code // 100 - 1] if 100 <= code <= 599 else "Server error"


def band_of(code: str) -> str:
    """The band of a status code as the statistics have it, which is text; "" of what is none."""
    return band(int(code)) if code.isascii() and code.isdecimal() and len(code) <= 9 else ""


def status_tag(code: int, description: str = "") -> Tag:
    """The tag of a complete response with this status. Raises: TypeError, where it is none."""
    if type(code) is not int:
        raise TypeError(f"status is {code!r:.40}, not a number")
    if not description:
        description = "Unassigned" if 100 <= code <= 599 else "Invalid status code"
    tag: Tag = {
        "outcome": "status",
        "status": code,
        "band": band(code),
        "description": description,
    }
    if not 100 <= code < 400:
        tag["error_code"] = UNSUCCESSFUL
        tag["error_name"] = ERRORS[UNSUCCESSFUL].name
    return tag


def _description(row: dict[str, str]) -> str:
    return f"{row['description']} ({row['vendor']})" if row["vendor"] else row["description"]


STATUS_TAGS: Mapping[int, Tag] = {
    int(row["code"]): status_tag(int(row["code"]), _description(row))
    for row in _rows("status_codes.csv")
}
"""Status code → the tag of a response with it, ready made: a flow costs one look-up."""


class CatalogueError(ValueError):
    """A catalogue file that cannot be used; the message names the file, the line and why."""


def read_catalogue(path: Path) -> dict[int, Tag]:
    """`STATUS_TAGS` with the additions and rewordings of a TOML file.

    The file holds one table, `[status]`, of codes and descriptions: `404 = "Not there"`.

    Raises: CatalogueError, naming the line and what is allowed.
    """
    text, data = _read_toml(path)
    for name in data:
        if name != "status":
            raise CatalogueError(
                f"{path}, line {_line_of(text, name)}: unknown table or key {name!r}; "
                f"allowed is one table, [status]"
            )
    entries = data.get("status", {})
    if not isinstance(entries, dict):
        raise CatalogueError(f"{path}, line {_line_of(text, 'status')}: 'status' must be a table")
    tags = dict(STATUS_TAGS)
    for key, description in entries.items():
        where = f"{path}, line {_line_of(text, key)}"
        if not (key.isascii() and key.isdigit() and len(key) <= 4):
            raise CatalogueError(f"{where}: {key!r} is no status code; allowed are 0 to 9999")
        if not isinstance(description, str) or not description.strip():
            raise CatalogueError(f"{where}: the description of {key} must be text that says it")
        if not description.isprintable() or len(description) > MAX_DESCRIPTION:
            raise CatalogueError(
                f"{where}: the description of {key} must be one line of printable text "
                f"of at most {MAX_DESCRIPTION} characters"
            )
        tags[int(key)] = status_tag(int(key), description.strip())
    return tags


def _read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a TOML file, and what it says. Raises: CatalogueError."""
    import tomllib  # few have a catalogue

    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except OSError as error:
        raise CatalogueError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise CatalogueError(f"{path}, line {line}: is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError(f"{path}: is not TOML: {error}") from error


def _line_of(text: str, key: str) -> int:
    """The line of a key; tomllib keeps no positions."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip(" \t[\"'").startswith(key):
            return number
    return 1
