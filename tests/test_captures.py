"""Captures as inputs of the commands: told by what they hold, whatever their names."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flowtally.captures.kinds import ACCEPTED
from flowtally.captures.kinds import ForeignError
from flowtally.captures.kinds import Kind
from flowtally.captures.kinds import kind_of
from flowtally.captures.kinds import seems
from flowtally.captures.packed import unpack
from flowtally.source import temporary_folder
from flowtally.terminal import ends_in_order
from flowtally.vocabulary import KNOWN
from hypothesis import given
from hypothesis import strategies as st
from lab.cli import answered
from lab.cli import final
from lab.cli import lines
from lab.cli import run
from lab.cli import start
from lab.hars import har_of
from lab.hars import told
from mitmproxy.io import FlowWriter
from mitmproxy.test import tflow
from test_flow_files import THREE
from test_har import entry

HAR = har_of(
    entry(200),
    entry(404, url="https://shop.example/gone"),
    entry(0, url="https://api.example/x", _error="net::ERR_CONNECTION_REFUSED"),
)
LOG = lines(start(), answered(200), answered(404), final(answered(200), answered(404)))
ZHAR = zlib.compress(HAR, 9)


def written(folder: Path, content: bytes, name: str = "capture.txt") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def flows_in(said: str) -> int:
    totals: dict[str, Any] = json.loads(said)["statistics"]["totals"]
    return int(totals["flows"])


@pytest.mark.parametrize(
    ("content", "flows"),
    [
        (HAR, 3),
        (b"\xef\xbb\xbf" + HAR, 3),
        (json.dumps(json.loads(HAR), indent=2).encode(), 3),
        (gzip.compress(HAR), 3),
        (gzip.compress(HAR[:300]) + gzip.compress(HAR[300:]) + b"\0" * 512, 3),
        (ZHAR, 3),
        (har_of(), 0),
        (THREE, 3),
        (gzip.compress(THREE), 3),
        (LOG, 2),
        (gzip.compress(LOG), 2),
    ],
    ids=[
        *("HAR", "with a BOM", "indented", "gzip of it", "of two members", "zlib", "no entries"),
        *("flow file", "gzip of that", "log", "gzip of a log"),
    ],
)
def test_what_a_file_holds_decides(content: bytes, flows: int) -> None:
    records, lacking = told(content)
    assert len([record for record in records if record["type"] == "flow"]) == flows
    assert (lacking.skipped, lacking.breaks) == (0, 0)


@pytest.mark.parametrize("content", [HAR, gzip.compress(THREE), gzip.compress(LOG)])
def test_standard_input_may_be_a_capture(content: bytes) -> None:
    done = run("report", "-", "--json", stdin=content)
    assert flows_in(done.stdout) in (2, 3)
    assert json.loads(done.stdout)["sessions"][0]["ended_cleanly"] is True


def test_all_commands_read_captures_and_filters_narrow_them(tmp_path: Path) -> None:
    har = written(tmp_path, HAR)
    done = run("flows", har, "--problems", "--host", "api.example")
    assert done.stdout.split()[1:3] == ["connection_refused", "-2"]
    assert run("flows", har, "~c 404", "--curl").stdout.startswith("# ")
    assert "connection_refused -2" in run("why", har).stdout
    done = run("check", har, "--max", "connection_refused=0")
    assert (done.returncode, done.stderr) == (1, "")
    done = run("compare", har, "-", "--json", stdin=har_of(entry(200)))
    assert done.returncode == 0, done.stderr
    page = tmp_path / "page.html"
    done = run("report", har, written(tmp_path, LOG, "log"), "--html", page)
    assert (done.returncode, done.stderr) == (0, "")
    assert page.read_bytes().startswith(b"<!doctype html>")


@pytest.mark.parametrize(("creator", "words"), [("Firefox", False), ("mitmproxy", True)])
def test_what_clients_would_say_is_left_out_where_one_says_it(
    tmp_path: Path, creator: str, words: bool
) -> None:
    entry = {
        "startedDateTime": "2026-01-02T03:04:05Z",
        "request": {"method": "GET", "url": "https://shop.example/"},
        "response": {"status": 0, "_error": "net::ERR_CERT_DATE_INVALID"},
    }
    path = written(tmp_path, har_of(entry, creator=creator))
    for command in ("report", "why"):
        said = run(command, path).stdout
        assert "tls_certificate_error" in said
        assert ("Without a proxy" in said) == words
    log = tmp_path / "log.jsonl"
    log.write_bytes(log_of(1))
    assert "Without a proxy" in run("why", path, log).stdout  # a proxy told some of it


def test_a_har_without_entries_says_that_nothing_was_recorded(tmp_path: Path) -> None:
    said = run("report", written(tmp_path, har_of())).stdout
    assert "Nothing was recorded." in said
    assert "proxy" not in said


def test_a_copy_of_a_capture_counts_once(tmp_path: Path) -> None:
    one, other = written(tmp_path, HAR), written(tmp_path, gzip.compress(HAR), "copy")
    assert flows_in(run("report", one, other, "--json").stdout) == 3


def test_nothing_stays_behind(tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    har = written(tmp_path, HAR)
    for content in (har, written(tmp_path, gzip.compress(THREE), "flows")):
        assert run("report", content, TMPDIR=os.fspath(folder)).returncode == 0
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a program without asking it")
def test_a_folder_does_not_stay_where_a_signal_comes_as_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    mkdir = os.mkdir

    def interrupted(path: Path, mode: int = 0o777) -> None:
        mkdir(path, mode)
        made.append(path)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("os.mkdir", interrupted)
    with pytest.raises(SystemExit), ends_in_order(), temporary_folder():
        pass
    assert made
    assert list(tmp_path.iterdir()) == []


FOREIGN: list[tuple[bytes, str]] = [
    (b"<!DOCTYPE html>\n<html><body>Not found", "an HTML page"),
    (b"  <html>", "an HTML page"),
    (b"<?xml version='1.0'?><a/>", "XML"),
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG image"),
    (b"PK\x03\x04" + b"\0" * 30, "a ZIP archive, in which a HAR may be: unpack it"),
    (b"\x0a\x0d\x0d\x0a" + b"\0" * 30, "a packet capture (pcapng)"),
    (HAR.decode().encode("utf-16"), "text in UTF-16: save it as UTF-8"),
    (b"[]\n", "JSON, but no HAR: it has no log.entries"),
    (b'{"a": 1}', "JSON, but no HAR: it has no log.entries"),
    (b'{"log": {"entries": {}}}', "JSON, but no HAR: it has no log.entries"),
    (b'{"entries": [{"request": {}}]}', "JSON, but no HAR: it has no log.entries"),
    (b"root:x:0:0\n" * 3, "text"),
    (b"\0" * 1000, "binary data"),
    (gzip.compress(b"<html>"), "gzip of an HTML page"),
    (gzip.compress(gzip.compress(HAR)), "gzip of gzip"),
    (b"\x1f\x8bgarbage", "gzip, but the compressed data is damaged"),
]


@pytest.mark.parametrize(("content", "what"), FOREIGN, ids=[what for _, what in FOREIGN])
def test_what_a_file_seems_to_be(content: bytes, what: str) -> None:
    with pytest.raises(ForeignError) as raised:
        told(content)
    assert str(raised.value) == f"har: seems to be {what}; {ACCEPTED}"


@pytest.mark.parametrize("command", ["report", "flows", "why"])
def test_one_line_says_so(tmp_path: Path, command: str) -> None:
    file = written(tmp_path, b"<!DOCTYPE html>")
    done = run(command, file)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"flowtally: {file}: seems to be an HTML page; {ACCEPTED}\n"


def test_a_log_of_an_older_schema_is_said_to_be_one(tmp_path: Path) -> None:
    old = {**start(), "schema": 1, "seq": 1}
    file = written(tmp_path, json.dumps(old).encode() + b"\n" + b'{"type":"flow","session":"x"}\n')
    done = run("report", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"flowtally: no flowtally session in {file}: "
        "written in schema 1 of the session log; this flowtally reads 2\n"
    )


@pytest.mark.parametrize(
    ("content", "flows", "says"),
    [
        (HAR[:-200], 2, "breaks off within entry 3; what came before is read"),
        (HAR[:-2], 3, "breaks off before its end; what came before is read"),
        (HAR[:40], 0, "breaks off before its end; what came before is read"),
        (
            gzip.compress(HAR, mtime=0)[:-40],
            None,
            "breaks off where the compressed data breaks off; what came before is read",
        ),
        (
            gzip.compress(HAR, mtime=0) + HAR,
            3,
            "breaks off where the compressed data is followed by other data; what came before is"
            " read",
        ),
    ],
    ids=["within an entry", "behind the entries", "before them", "gzip", "behind gzip"],
)
def test_a_capture_that_breaks_off_is_read_and_does_not_pass(
    tmp_path: Path, content: bytes, flows: int | None, says: str
) -> None:
    file = written(tmp_path, content)
    done = run("check", file, "--max", "connection_timeout=0")
    assert done.returncode == 2
    assert f"{file}: {says}" in done.stderr.splitlines()
    assert done.stderr.splitlines()[-1].startswith("flowtally: a capture was read in part")
    said = run("report", file, "--json")
    assert said.returncode == 0
    if flows is not None:
        assert flows_in(said.stdout) == flows
    assert '"capture_incomplete"' in said.stdout


def test_a_packed_log_with_more_behind_it_does_not_pass(tmp_path: Path) -> None:
    first, rest = LOG.split(b"\n", 2)[:2], lines(answered(404))
    file = written(tmp_path, gzip.compress(b"\n".join([*first, b""])) + rest)
    done = run("check", file, "--max", "problems=0")
    assert done.returncode == 2
    assert "is followed by other data" in done.stderr


def test_bad_entries_are_counted_and_do_not_pass(tmp_path: Path) -> None:
    file = written(tmp_path, har_of(*[entry()] * 2, *[{"request": 5}] * 30))
    done = run("check", file, "--max", "Server error=0", "--host", "shop.example")
    assert done.returncode == 2
    told = done.stderr.splitlines()
    assert told[0] == f"{file}, entry 3: request is a number, not an object; skipped"
    assert told[20:] == [
        "30 unreadable entries skipped",
        "flowtally: 30 entries could not be read: what is missing may break a budget",
    ]
    assert run("check", file, "--max", "flows=1").returncode == 1  # whatever is missing
    page = tmp_path / "page.html"
    run("report", file, "--html", page)
    assert "30 unreadable entries skipped" in page.read_text("utf-8")


def log_of(number: int) -> bytes:
    return lines(*({**r, "session": f"{number:08x}"} for r in (start(), answered(200))))


@pytest.mark.parametrize(
    "content",
    [
        log_of,
        lambda number: gzip.compress(log_of(number)),
        lambda number: har_of(entry(url=f"https://shop.example/{number}")),
    ],
    ids=["log", "gzip", "HAR"],
)
def test_thousands_of_inputs_are_not_open_at_once(
    content: Callable[[int], bytes], tmp_path: Path
) -> None:
    for number in range(100):
        written(tmp_path, content(number), f"{number}")
    command = 'ulimit -n 64; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", command, "sh", sys.executable, "-m", "flowtally", "report", "--json"]
        + [os.fspath(path) for path in tmp_path.iterdir()],
        capture_output=True,
        check=True,
        text=True,
    )
    assert flows_in(done.stdout) == 100


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", Kind.EMPTY),
        (b" \n", Kind.EMPTY),
        (LOG, Kind.LOG),
        (b"junk\n" + LOG, Kind.LOG),
        (b'{"type":"session_start","sess', Kind.LOG),
        (HAR, Kind.HAR),
        (b'{"log": {', Kind.HAR),
        (THREE, Kind.FLOWS),
        (gzip.compress(b"", mtime=0), Kind.PACKED),
        (ZHAR, Kind.PACKED),
        (b"12:30 lunch", Kind.FOREIGN),
    ],
)
def test_kinds(head: bytes, kind: Kind) -> None:
    assert kind_of(head) is kind


def unpacked(packed: bytes) -> tuple[bytes, str]:
    """What stands in it, and why there is no more."""
    out = io.BytesIO()
    damage = unpack(io.BytesIO(packed), out)
    return out.getvalue(), damage


@given(st.binary(max_size=3000), st.sampled_from(["gzip", "zlib"]))
def test_what_was_packed_is_unpacked(content: bytes, how: str) -> None:
    packed = gzip.compress(content) if how == "gzip" else zlib.compress(content)
    assert unpacked(packed) == (content, "")


@given(st.binary(max_size=300), st.data())
def test_damage_to_what_was_packed_is_told(content: bytes, data: st.DataObject) -> None:
    packed = gzip.compress(content)
    cut = packed[: data.draw(st.integers(1, len(packed) - 1))]
    found, damage = unpacked(cut)
    assert content.startswith(found)
    assert damage == "the compressed data breaks off"


OTHER_DATA = "the compressed data is followed by other data"
FOLLOWING = [
    (b"", ""),
    (b"\0", ""),
    (b"x", OTHER_DATA),
    (b"\0\0x\0", OTHER_DATA),
    (b"\n", OTHER_DATA),
    (b"garbage" + gzip.compress(b"two", mtime=0), OTHER_DATA),
    (b'{"type":"flow"}\n', OTHER_DATA),
    (zlib.compress(b"two"), OTHER_DATA),
    (b"\x1f", "the compressed data breaks off"),
    (b"\x1fx", OTHER_DATA),
]
"""What may stand behind a member or a stream of zlib, and what is said of it."""


@pytest.mark.parametrize(("rest", "why"), FOLLOWING)
def test_what_follows_a_stream_of_zlib(rest: bytes, why: str) -> None:
    assert unpacked(zlib.compress(b"one") + rest) == (b"one", why)


@pytest.mark.parametrize("block", [1, 2, 3, 5, 17, 40, 1000])
@pytest.mark.parametrize("padding", [0, 1, 100])
def test_members_are_found_wherever_a_read_ends(
    block: int, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowtally.captures.packed.BLOCK", block)
    members = [gzip.compress(text) for text in (b"one", b"two", b"three")]
    assert unpacked((b"\0" * padding).join(members)) == (b"onetwothree", "")
    for rest, why in (*FOLLOWING, (b"\x1f\x8b", "the compressed data breaks off")):
        assert unpacked(members[0] + b"\0" * padding + rest) == (b"one", why)


def test_no_room_for_a_capture_is_no_answer(tmp_path: Path) -> None:
    """Half a capture would pass a gate."""
    path = written(tmp_path, har_of(*(entry(500) for _ in range(2000))), "large.har")
    command = 'ulimit -f 200; exec "$@"'
    check = [sys.executable, "-m", "flowtally", "check", "--max", "Server error=2000", str(path)]
    done = subprocess.run(
        ["sh", "-c", command, "sh", *check], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "records are lost" in done.stderr
    assert str(path) in done.stderr


@pytest.mark.parametrize("rest", [HAR, b"x", b" \n" * 200_000 + b"{}"], ids=["HAR", "x", "far"])
def test_what_follows_a_har_is_said(rest: bytes, tmp_path: Path) -> None:
    path = written(tmp_path, HAR + rest, "two.har")
    done = run("check", "--max", "flows=100", path)
    assert done.returncode == 2
    assert f"{path}: breaks off where something else follows" in done.stderr
    space = written(tmp_path, HAR + b" \r\n\t" * 200_000, "one.har")
    assert run("check", "--max", "flows=100", space).returncode == 0


def test_what_a_capture_lacks_is_not_told_of_the_next_one(tmp_path: Path) -> None:
    bad = written(tmp_path, har_of(entry(200), 1, 2, 3), "bad.har")
    worse = written(tmp_path, har_of(entry(200), 1), "worse.har")
    broken = written(tmp_path, har_of(entry(404))[:-5], "broken.har")
    done = run("flows", bad, broken, worse, "--json", "--problems")
    said = [json.loads(line).get("detail") for line in done.stdout.splitlines()]
    assert sorted(filter(None, said)) == [
        "1 entry could not be read",
        "3 entries could not be read",
        "a capture was read in part only",
    ]


def test_secrets_in_what_a_client_says_are_not_kept(tmp_path: Path) -> None:
    words = ["net::ERR_FAILED Bearer zq0123456789abcdefz", "x /p?q=SECRET y", "ERR: key=SECRET"]
    path = written(tmp_path, har_of(*(entry(0, _error=each) for each in words)))
    for command in (("flows", "--json"), ("report", "--json"), ("why",)):
        said = run(*command, path).stdout
        assert "SECRET" not in said
        assert "zq0123456789abcdefz" not in said


def test_a_flow_that_is_odd_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    odd = tflow.tflow(resp=True)
    odd.metadata = "none"  # type: ignore[assignment]
    late = tflow.ttcpflow()
    late.timestamp_created = [1]  # type: ignore[assignment]
    path = tmp_path / "odd.flows"
    with path.open("wb") as file:
        for flow in (late, odd, tflow.tflow(resp=True)):
            FlowWriter(file).add(flow)
    done = run("report", "--json", path)
    assert "Traceback" not in done.stderr
    assert flows_in(done.stdout) == 1
    assert "flow 1: " in done.stderr
    assert "flow 2: " in done.stderr


@pytest.mark.parametrize("row", [*csv.DictReader((KNOWN / "file_kinds.csv").open())], ids=str)
def test_each_kind_of_file_that_is_known_is_told(row: dict[str, str]) -> None:
    begin = b"\1" * int(row["at"]) + bytes.fromhex(row["bytes"])
    assert seems(begin + b"\1" * 30) == row["what"]
