"""`scripts/run.py`, which scripts/run.sh runs: mitmdump as it is, and hints that are true."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab.proxy import REPOSITORY
from lab.servers import DeadPort

TIMEOUT = 60


def start(folder: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    script = REPOSITORY / "scripts" / "run.py"
    settings = ["--set", f"confdir={folder / 'confdir'}"]
    return subprocess.Popen(
        [sys.executable, "-P", str(script), *settings, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def interrupt(process: subprocess.Popen[str], folder: Path) -> tuple[str, str]:
    """Ctrl+C, once its session has begun; returns its output."""
    deadline = time.monotonic() + TIMEOUT / 2
    while not list(folder.glob("confdir/flowtally/*.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=TIMEOUT)


@pytest.mark.parametrize("way", ["option", "setting", "mode"])
def test_the_hints_name_the_address_that_it_listens_at(tmp_path: Path, way: str) -> None:
    with DeadPort() as free:
        port = free.port
    arguments = {
        "option": ["-p", str(port)],
        "setting": ["--set", f"listen_port={port}"],
        "mode": ["--mode", f"regular@{port}"],
    }
    process = start(tmp_path, *arguments[way])
    assert process.stderr is not None
    said = [process.stderr.readline() for _ in range(6)]
    assert said[1].endswith(f"  127.0.0.1:{port}\n")
    assert f"curl -x http://127.0.0.1:{port} http://example.com/\n" in said[3]
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert rest.splitlines()[-1].startswith("Session log: ")


def test_another_mode_is_named(tmp_path: Path) -> None:
    with DeadPort() as free:
        mode = f"reverse:http://127.0.0.1:1@{free.port}"
    process = start(tmp_path, "--mode", mode)
    assert process.stderr is not None
    said = [process.stderr.readline() for _ in range(2)]
    assert said[1] == f"mitmdump --mode {mode}: 127.0.0.1:{free.port}\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=TIMEOUT)


def test_quiet_says_nothing(tmp_path: Path) -> None:
    with DeadPort() as free:
        process = start(tmp_path, "-q", "-p", str(free.port))
    assert interrupt(process, tmp_path) == ("", "")


def test_without_a_server_there_is_no_address(tmp_path: Path) -> None:
    (tmp_path / "empty.flows").touch()
    process = start(tmp_path, "-n", "-r", tmp_path / "empty.flows")
    printed, said = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, printed) == (0, "")
    assert said.startswith("\nflowtally: 0 flows\n")


@pytest.mark.parametrize(
    ("option", "prints"),
    [
        ("--version", "Mitmproxy: "),
        ("--options", "flowtally_log: "),
        ("--commands", "flowtally.summary"),
        ("--help", "usage: mitmdump"),
    ],
)
def test_what_prints_and_ends_does_so(tmp_path: Path, option: str, prints: str) -> None:
    process = start(tmp_path, option)
    printed, said = process.communicate(timeout=TIMEOUT)
    assert prints in printed
    assert "http://mitm.it" not in said
