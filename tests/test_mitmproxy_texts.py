"""Every text with which the installed mitmproxy can tell of a failure is known.

The texts are taken from its sources: what it puts into `flow.error` and into a connection's error,
and what it logs of a connection. Each has a row in mitmproxy_texts.csv that says what becomes of
it, or why nothing does; a new one fails here. `{}` stands for what mitmproxy fills in.
"""

from __future__ import annotations

import ast
import csv
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import aioquic
import h2
import h11
import mitmproxy
import pytest
from flowtally import texts
from flowtally import vocabulary
from flowtally.vocabulary import Message

ROOT = Path(mitmproxy.__file__).parent
TABLE = Path(__file__).with_name("mitmproxy_texts.csv")

FOLDERS = ("proxy", "net/http", "net/tls.py", "net/dns", "flow.py")
# Those of the addons that touch failing flows and connections.
ADDONS = ("proxyserver", "dns_resolver", "block", "tlsconfig", "next_layer", "disable_h2c")

# Whose argument (by position, or by name) is a text.
CALLS = {
    "ResponseProtocolError": (1, "message"),
    "RequestProtocolError": (1, "message"),
    "ReceiveProtocolError": (1, "message"),
    "OpenConnectionCompleted": (1, "reply"),
    "RegisterHttpConnection": (1, "err"),
    "Error": (0, "msg"),
    "Log": (0, "message"),
    "log": (0, "message"),
    "socks_err": (0, "message"),
    "protocol_error": (0, "message"),
    "close_connection": (0, "msg"),
    "on_handshake_error": (0, "err"),
    "ConnectionTerminated": (2, "reason_phrase"),
    "cancel": (0, "msg"),
    "handle_error": (1, "err"),
}
RETURN_A_TEXT = ("validate_request", "start_server_tls", "error_code_to_str")
# Names of variables that hold a text until it is used.
VARIABLES = frozenset(("err", "err_msg", "msg", "dbg", "error", "KILLED_MESSAGE"))


def template(node: ast.expr | None) -> Iterator[str]:
    """The texts that an expression can be; nothing of one that is text from elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield from ("".join(parts) for parts in product(*map(_filled_in, node.values)))
    elif isinstance(node, ast.IfExp):
        yield from template(node.body)
        yield from template(node.orelse)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        yield from template(node.left)
    elif isinstance(node, ast.BinOp):
        left, right = list(template(node.left)) or ["{}"], list(template(node.right)) or ["{}"]
        yield from (one + other for one in left for other in right)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from template(value)
    elif isinstance(node, ast.Tuple):
        for value in node.elts:
            yield from template(value)


def _filled_in(part: ast.expr) -> list[str]:
    """What a part of an f-string can be: itself, one of two texts, or what nobody knows here."""
    if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.IfExp):
        return list(template(part.value)) or ["{}"]
    return [str(part.value)] if isinstance(part, ast.Constant) else ["{}"]


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def found_in(tree: ast.AST) -> Iterator[str]:
    """The texts of one module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node) in CALLS:
            position, name = CALLS[_called(node)]
            named = [word.value for word in node.keywords if word.arg in (name, "reason_phrase")]
            for argument in (*node.args[position : position + 1], *named):
                yield from template(argument)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {getattr(at, "attr", getattr(at, "id", "")) for at in targets}
            if names & VARIABLES:
                yield from template(node.value)
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            if _called(node.exc) in ("ValueError", "ProtocolError", "OSError"):
                for argument in node.exc.args[:1]:
                    yield from template(argument)
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
            # (done, error) of a handshake
            yield from template(node.value.elts[-1])
        elif isinstance(node, ast.FunctionDef) and node.name in RETURN_A_TEXT:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return):
                    yield from template(inner.value)


def installed_texts() -> dict[str, str]:
    """Text → the module it stands in, of the installed mitmproxy."""
    paths = [ROOT / f"addons/{name}.py" for name in ADDONS]
    for folder in FOLDERS:
        path = ROOT / folder
        paths += [path] if path.suffix else sorted(path.rglob("*.py"))
    found: dict[str, str] = {}
    for path in paths:
        for text in found_in(ast.parse(path.read_text("utf-8"))):
            if text.strip(" {}"):
                found.setdefault(text, path.relative_to(ROOT).as_posix())
    return found


def _rows() -> list[dict[str, str]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


ROWS = _rows()
KNOWN_TEXTS = {row["text"] for row in ROWS}


def test_every_text_of_mitmproxy_has_a_row() -> None:
    new = {text: path for text, path in installed_texts().items() if text not in KNOWN_TEXTS}
    assert not new, (
        f"mitmproxy can say what {TABLE.name} does not know: add a row for each that says what "
        f"becomes of it (and a row in known/messages.csv that makes it so), or why nothing does: "
        f"{new}"
    )


def test_the_sources_are_read() -> None:
    """A walk that finds nothing would find nothing new, either."""
    found = installed_texts()
    assert len(found) > 150
    for text in ("server closed connection", "Certificate verify failed: {}", "Connection killed."):
        assert text in found


def _means(where: str, text: str) -> Message | None:
    match where:
        case "exchange":
            return texts.exchange(text)
        case "handshake":
            return texts.handshake(text)
        case "tls_log":
            return texts.tls_log_line(text)
        case "log":
            return vocabulary.find_message(vocabulary.LOG_MESSAGES, text)
        case "note":
            return vocabulary.find_message(vocabulary.NOTE_MESSAGES, text)
    raise AssertionError(where)


@pytest.mark.parametrize("row", ROWS, ids=[row["text"][:60] for row in ROWS])
def test_a_text_means_what_its_row_says(row: dict[str, str]) -> None:
    if row["where"] == "none":
        assert row["why_not"]
        assert not row["means"]
        return
    message = _means(row["where"], row["example"] or row["text"].replace("{}", "TLS"))
    assert message is not None
    why = message.server_before_head if message.server_before_head.cause else message.client
    assert ":".join(filter(None, why)) == row["means"]


def _begins_a_text(words: str) -> bool:
    """Whether a text of the table can begin so."""
    for text in KNOWN_TEXTS:
        fixed = text.partition("{}")[0]
        if text.startswith(words) or (fixed and fixed != text and words.startswith(fixed)):
            return True
    return False


# Texts of what mitmproxy rests on; each stands in the source of the package that says it.
PACKAGES = {"h11": h11, "h2": h2, "aioquic": aioquic}


@pytest.mark.parametrize(
    "row",
    [
        row
        for name in ("exchange", "handshake")
        for row in (
            vocabulary.EXCHANGE_MESSAGES if name == "exchange" else vocabulary.HANDSHAKE_MESSAGES
        )
        if row.match != "like"
    ],
    ids=lambda row: row.text[:60],
)
def test_a_rule_is_about_a_text_that_exists(row: Message) -> None:
    if _begins_a_text(row.text):
        return
    if row.text in ("Connection refused", "nodename nor servname provided, or not known"):
        return  # an operating system's, without the number that usually stands beside it
    sources = [
        path.read_text("utf-8")
        for package in PACKAGES.values()
        for path in Path(package.__file__ or "").parent.rglob("*.py")
    ]
    assert any(row.text in source for source in sources), f"nobody says {row.text!r}"


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("h11", "peer closed connection without sending complete message body"),
        ("h11", "illegal chunk header"),
        ("h2", "Received header value surrounded by whitespace"),
        ("h2", "InvalidBodyLengthError: Expected "),
        ("h2", "<ConnectionTerminated error_code:"),
        ("aioquic", "Idle timeout"),
        ("aioquic", "content-length does not match data size"),
        ("aioquic", "Certificate is no longer valid"),
        ("aioquic", "Certificate is not valid yet"),
        ("aioquic", "doesn't match "),
    ],
)
def test_what_mitmproxy_passes_on_is_still_worded_so(package: str, words: str) -> None:
    folder = Path(PACKAGES[package].__file__ or "").parent
    assert any(words in path.read_text("utf-8") for path in folder.rglob("*.py"))


def _compared_in(module: str) -> Iterator[str]:
    """The texts that a module of flowtally's compares a message with."""
    path = Path(texts.__file__ or "").with_name(module)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and _called(node) in ("startswith", "removeprefix"):
            subject = getattr(node.func, "value", None)
            values: list[ast.expr] = list(node.args)
        elif isinstance(node, ast.Compare):
            subject, values = node.left, list(node.comparators)
        else:
            continue
        name = getattr(subject, "attr", getattr(subject, "id", ""))
        if name in ("message", "msg", "text"):
            for value in values:
                yield from template(value)


@pytest.mark.parametrize("module", ["situation.py", "failures.py", "classify.py", "faults.py"])
def test_what_the_code_compares_with_is_in_the_table(module: str) -> None:
    # What is but a placeholder is a connection's name.
    compared = {text for text in _compared_in(module) if text.strip("{}")} - {"client connect"}
    assert {text for text in compared if not _begins_a_text(text)} == set()
