"""Measures what a fleet of logs costs to ask: thousands of sessions, one file each.

    .venv/bin/python scripts/fleet.py [--logs N] [--flows N] [--folder FOLDER] [--json FILE]

Writes N logs of N flows each, lets `flowtally sessions`, `report --json`, `sql` and `export` read
all of them, prints a Markdown table of wall clock, CPU time and memory, and ends with exit status 1
unless all of them come to the same totals. The addon's own session writes some of the logs, the
others are these under another session's id. --folder: where to write them, and leave them; without
it they are removed. Needs DuckDB and room on the disk: 0.8 kB a flow.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

ADDON = Path(__file__).resolve().parent.parent / "addon"
sys.path.insert(0, str(ADDON))

MODELS = 50
"""How many logs the addon writes; the others are copies of these."""
HOSTS = 40
STATUSES = {200: 70, 304: 8, 301: 2, 302: 3, 204: 3, 404: 6, 401: 2, 400: 1, 500: 2, 503: 1}
BEGIN = 1_767_323_045
COUNTED = ("flows", "failures", "unsuccessful", "events", "problems", "response_bytes")


def write_fleet(folder: Path, logs: int, flows: int) -> None:
    """Write the logs, each of a session of its own, spread over a week."""
    models = []
    for number in range(min(MODELS, logs)):
        path = folder / f"{number:05}.jsonl"
        models.append((path, _write_model(path, number, flows)))
    for number in range(len(models), logs):
        path, session = models[number % len(models)]
        content = path.read_bytes()
        copy = b'"session":"%08x"' % number
        (folder / f"{number:05}.jsonl").write_bytes(
            content.replace(b'"session":"%s"' % session.encode(), copy)
        )


def _write_model(path: Path, number: int, flows: int) -> str:
    """Let a session of the addon write a log; returns its id."""
    from flowtally.session import Session
    from flowtally.times import timestamp
    from flowtally.vocabulary import STATUS_TAGS

    chance = random.Random(number)
    session = Session(str(path), ["regular"], {})
    begin = BEGIN + 86_400 * number / 7
    for flow in range(flows):
        host = f"host{chance.randrange(HOSTS)}.example"
        wait = round(chance.lognormvariate(4, 1), 3)
        record: dict[str, Any] = {
            "type": "flow",
            "session": session.id,
            "seq": 0,
            "time": timestamp(begin + flow * 0.05),
            "flow": f"00000000-0000-4000-8000-{flow:012}",
            "kind": "http",
            "client": "127.0.0.1",
            "client_port": 40_000 + flow % 20_000,
            "method": chance.choice(["GET", "GET", "GET", "POST"]),
            "url": f"https://{host}/{chance.choice(['users', 'orders', 'carts'])}/{flow}?page=",
            "host": host,
            "port": 443,
            "http_version": "HTTP/2.0",
            "request_bytes": chance.randrange(2000),
            "wait_ms": wait,
            "duration_ms": round(wait + chance.random() * 5, 3),
            "reused": True,
        }
        if flow % 50:
            status = chance.choices(list(STATUSES), list(STATUSES.values()))[0]
            record |= {"response_bytes": chance.randrange(50_000), "media_type": "text/html"}
            record |= STATUS_TAGS[status]
        else:
            record |= {"outcome": "error", "error_code": -2, "error_name": "ConnectionErr"}
            record |= {"cause": "connection_terminated", "side": "server"}
        session.add(record)
        session.step()
    session.close()
    return session.id


def measured(arguments: Sequence[str]) -> tuple[str, float, float, float]:
    """What `flowtally` with these arguments prints; seconds, seconds of CPU time, and MB."""
    command = [sys.executable, "-m", "flowtally", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ADDON)}
    with tempfile.TemporaryFile() as said:
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{' '.join(command[:6])} … ended with exit status {process.returncode}")
        said.seek(0)
        text = said.read().decode()
    return text, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measure(folder: Path, out: Path) -> dict[str, Any]:
    """Each command once, on all logs; what it took, and the totals."""
    logs = sorted(map(str, folder.glob("*.jsonl")))
    causes = "SELECT cause, problems FROM causes ORDER BY problems DESC"
    commands = {
        "sessions": ["sessions", str(folder), "--json"],
        "report --json": ["report", *logs, "--json"],
        "sql totals": ["sql", str(folder), "FROM totals", "--json"],
        "sql causes": ["sql", str(folder), causes, "--json"],
        "sql endpoints": ["sql", str(folder), "FROM endpoints", "--json"],
        "export": ["export", str(folder), "--parquet", str(out)],
    }
    took, said = {}, {}
    for name, arguments in commands.items():
        said[name], *figures = measured(arguments)
        took[name] = dict(zip(("s", "cpu_s", "mb"), figures, strict=True))
        print(f"{name}: {figures[0]:.1f} s", file=sys.stderr)
    listed = json.loads(said["sessions"])
    statistics = json.loads(said["report --json"])["statistics"]
    (asked,) = json.loads(said["sql totals"])
    endpoints = json.loads(said["sql endpoints"])
    totals = {
        "report": {name: statistics["totals"][name] for name in COUNTED},
        "sql": {name: asked[name] for name in COUNTED},
    }
    same = (
        totals["report"] == totals["sql"]
        and sum(session["flows"] for session in listed) == asked["flows"]
        and sum(row["flows"] for row in endpoints) == asked["flows"]
        and sum(row["problems"] for row in json.loads(said["sql causes"])) == asked["problems"]
    )
    stored = sum(path.stat().st_size for path in out.rglob("*.parquet"))
    size = sum(path.stat().st_size for path in folder.glob("*.jsonl"))
    return {
        "logs": len(logs),
        "gb": size / 1e9,
        "parquet_gb": stored / 1e9,
        "took": took,
        "totals": totals,
        "same": same,
    }


def table(found: dict[str, Any]) -> str:
    """As Markdown."""
    flows = found["totals"]["sql"]["flows"]
    lines = [
        f"| {found['logs']:,} logs, {flows:,} flows, {found['gb']:.1f} GB"
        f" ({found['parquet_gb']:.2f} GB as Parquet) | s | CPU s | MB |",
        "|---|---|---|---|",
    ]
    for name, took in found["took"].items():
        lines.append(
            f"| flowtally {name} | {took['s']:.1f} | {took['cpu_s']:.1f} | {took['mb']:.0f} |"
        )
    return "\n".join([*lines, "", f"The same totals: {'yes' if found['same'] else 'NO'}"])


def main() -> None:
    """Write, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--logs", type=int, default=1000)
    parser.add_argument("--flows", type=int, default=1000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    where = nullcontext(given.folder) if given.folder else tempfile.TemporaryDirectory()
    with where as name, tempfile.TemporaryDirectory() as out:
        folder = Path(name)
        folder.mkdir(exist_ok=True)
        if not any(folder.iterdir()):
            write_fleet(folder, given.logs, given.flows)
        found = measure(folder, Path(out) / "parquet")
    print(table(found))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    sys.exit(not found["same"])


if __name__ == "__main__":
    main()
