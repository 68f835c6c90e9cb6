"""The plain text report and the command line, as people see them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flowtally.report import text
from flowtally.tally import Tally

START = {
    "type": "session_start",
    "session": "00000001",
    "time": "2026-01-02T03:04:05.000Z",
}


def flow(second: int, **fields: Any) -> dict[str, Any]:
    return {
        "type": "flow",
        "session": "00000001",
        "time": f"2026-01-02T03:04:{second:02}.000Z",
        "flow": str(second),
        "kind": "http",
        "method": "GET",
        "url": "http://shop.example/cart/17",
        "host": "shop.example",
        "request_bytes": 0,
        "response_bytes": 1500,
        "wait_ms": 20.0,
        "duration_ms": 25.0,
        **fields,
    }


def answered(second: int, status: int, band: str, description: str) -> dict[str, Any]:
    tag = {"outcome": "status", "status": status, "band": band, "description": description}
    if status >= 400:
        tag |= {"error_code": -3, "error_name": "HTTPError"}
    return flow(second, **tag)


RECORDS = [
    START,
    answered(10, 200, "Success", "OK"),
    answered(11, 200, "Success", "OK"),
    answered(12, 404, "Client error", "Not found"),
    flow(
        13,
        outcome="error",
        error_code=-2,
        error_name="ConnectionErr",
        cause="connection_refused",
        side="server",
        port=8000,
        detail="no one there",
    ),
    {
        "type": "event",
        "session": "00000001",
        "time": "2026-01-02T03:04:20.000Z",
        "host": "pinned.example",
        "port": 443,
        "error_code": -2,
        "error_name": "ConnectionErr",
        "cause": "client_tls_rejected",
        "side": "client",
    },
]

REPORT = """\
flowtally: 4 flows, 1 failed (25.0 %), 1 with status 400 and up, 1 failure without a flow,
           over 10.0 s

Problems
  -2 ConnectionErr                           2
     client_tls_rejected                     1  pinned.example
       Install mitmproxy's CA certificate on the client (http://mitm.it); an app that pins its
       certificate must be rebuilt without pinning, or its host excluded with ignore_hosts.
     connection_refused                      1  shop.example:8000
       Nothing listens on that port: check that the server is running, and the port number.
       last: GET http://shop.example/cart/17 (no one there)
  -3 HTTPError                               1
     404 Not found                           1  shop.example
       last: GET http://shop.example/cart/17

Status           flows   share  received    p50    p95    p99    max
Success              2  50.0 %    3.0 kB  25 ms  25 ms  25 ms  25 ms
  200 OK             2  50.0 %    3.0 kB  25 ms  25 ms  25 ms  25 ms
Client error         1  25.0 %    1.5 kB  25 ms  25 ms  25 ms  25 ms
  404 Not found      1  25.0 %    1.5 kB  25 ms  25 ms  25 ms  25 ms

Host            flows  failed  400 and up  without a flow  received    p95
shop.example        4       1           1               0    6.0 kB  25 ms
pinned.example      0       0           0               1       0 B

Failing endpoint                   flows  failed  400 and up
GET http://shop.example/cart/{id}      4       1           1
"""


def lines(*records: Any) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def run(
    *arguments: str | Path, stdin: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flowtally", *map(str, arguments)]
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, "COLUMNS": "100", **environment},
    )
    return subprocess.CompletedProcess(
        command, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def test_the_report() -> None:
    tally = Tally()
    for record in RECORDS:
        tally.add(record)
    assert "\n".join(text.report(tally)) + "\n" == REPORT


def test_nothing_happened() -> None:
    assert text.report(Tally()) == [
        "flowtally: 0 flows",
        "Nothing came through: is the client pointed at the proxy?",
        "",
        "No problems",
    ]


@pytest.mark.parametrize("width", [1, 80, 90, 100, 300])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    tally = Tally()
    for number in range(30):
        host = f"{number}.a-long-name-of-a-host-{'x' * 80}.example"
        url = f"http://{host}/a/path/{'y' * 80}/of/some/length"
        tally.add(RECORDS[4] | {"host": host, "url": url})
        tally.add(answered(number, 520, "Server error", f"{'z' * 60} (Cloudflare)") | {"url": url})
    lines = text.report(tally, width)
    assert max(map(len, lines)) <= min(100, max(80, width))
    assert any("29 more" in line for line in lines)


def test_the_most_frequent_host_comes_first() -> None:
    tally = Tally()
    for number in range(30):
        tally.add(RECORDS[4] | {"host": f"h{number}"})
    for _ in range(5):
        tally.add(RECORDS[4] | {"host": "often"})
    assert any("often:8000 (5), h0:8000 (1)" in line for line in text.report(tally))


def test_control_characters_do_not_reach_the_terminal() -> None:
    tally = Tally()
    evil = "\x1b]0;owned\x07\x9b31m\u202e"
    tally.add(flow(1, outcome="ok", host=evil, method=evil, url=f"http://{evil}/"))
    tally.add(RECORDS[-1] | {"host": evil, "cause": evil})
    tally.add(RECORDS[-2] | {"host": evil, "url": f"http://{evil}/{evil}"})
    tally.add(answered(2, 200, "Success", evil))
    assert all(line.isprintable() for line in text.report(tally))


def test_report_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(*RECORDS))
    done = run("report", log)
    assert done.returncode == 0
    assert done.stdout.startswith(REPORT)
    assert done.stdout.endswith(
        "\nSession 00000001, begun 2026-01-02T03:04:05.000Z; "
        "it did not end cleanly, or is still running\n"
    )
    assert done.stderr == ""


def test_report_of_standard_input_and_several_logs(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(*RECORDS))
    other = [record | {"session": "00000002"} for record in RECORDS]
    done = run("report", log, "-", stdin=lines(*other))
    assert done.stdout.startswith("flowtally: 8 flows, 2 failed")


def test_unreadable_lines_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(*RECORDS[:3]) + b"nonsense\n" + lines(*RECORDS[3:]) + b'{"type":"fl')
    done = run("report", log)
    assert done.returncode == 0
    assert done.stdout.startswith(REPORT)
    assert done.stderr.splitlines() == [
        f"{log}, line 4: not JSON; skipped",
        f"{log}, line 8: torn line; skipped",
        "2 unreadable lines skipped",
    ]


@pytest.mark.parametrize("content", [b"", b"root:x:0:0\n" * 3, b"[]\n", b"\0" * 1000])
def test_a_file_without_a_session(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    done = run("report", file)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"flowtally: no flowtally session in {file}"
    assert done.stdout == ""


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = run("report", tmp_path / "none")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"flowtally: {tmp_path}/none: No such file or directory\n"


def test_the_newest_log_is_the_default(tmp_path: Path) -> None:
    folder = tmp_path / ".mitmproxy" / "flowtally"
    done = run("report", HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == f"flowtally: no session log in {folder}; name one\n"
    folder.mkdir(parents=True)
    (folder / "flowtally-1.jsonl").write_bytes(lines(*RECORDS))
    assert run("report", HOME=str(tmp_path)).stdout.startswith(REPORT)


def test_script_is_what_mitmproxy_loads() -> None:
    path = Path(run("script").stdout.strip())
    assert path.name == "main.py"
    assert "addons = [" in path.read_text("utf-8")
