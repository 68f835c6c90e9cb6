"""`flowtally flows`: single flows and events of a log; and the filters on the other commands."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from flowtally.tally import incident_of
from lab.cli import HOSTILE
from lab.cli import answered
from lab.cli import cancelled
from lab.cli import event
from lab.cli import failed
from lab.cli import final
from lab.cli import lines
from lab.cli import numbered
from lab.cli import run
from lab.cli import start

Record = dict[str, Any]

RECORDS = numbered(
    start(),
    answered(200, 1, url="http://shop.example/ok", host="shop.example"),
    answered(401, 2, url="http://shop.example/login", host="shop.example", flow="asked"),
    answered(200, 3, url="http://shop.example/login", answers="asked", challenge=401),
    answered(404, 4, url="http://shop.example/items/7?page=", host="shop.example", method="POST"),
    failed("connection_refused", 5, url="http://api.example:8443/", host="api.example", port=8443),
    event(second=6, host="pinned.example"),
)
ENDED = [*RECORDS, final(*RECORDS)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "session.jsonl"
    path.write_bytes(lines(*ENDED))
    return path


def test_a_line_for_each_flow_and_event(log: Path) -> None:
    done = run("flows", log)
    assert (done.returncode, done.stderr) == (0, "")
    listed = done.stdout.splitlines()
    assert len(listed) == 6
    for line, words in zip(
        listed,
        [
            *("200 OK", "401 Unauthorized", "200 OK", "404 Not found"),
            *("connection_refused -2", "client_tls_rejected"),
        ],
        strict=True,
    ):
        assert words in line, line
    assert listed[3].endswith("POST http://shop.example/items/7?page=")


@pytest.mark.parametrize("command", ["flows", "sessions", "report"])
def test_what_cannot_be_read_is_named(tmp_path: Path, command: str) -> None:
    log = tmp_path / "log.jsonl"
    begun, *others = lines(*RECORDS).splitlines(keepends=True)
    later = lines({**start("00000003"), "schema": 3})
    log.write_bytes(b"".join([begun, others[0][:40] + b"\n", later, *others[2:], b'{"type":"f']))
    done = run(command, log)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        f"{log}, line 2: not JSON; skipped",
        f"{log}, line 3: written in schema 3 of the session log; this flowtally reads 2; skipped",
        f"{log}, line 8: torn line; skipped",
        "3 unreadable lines skipped",
        "2 records of session 00000001 are missing in the logs",
    ]


@pytest.mark.parametrize("command", ["flows", "report"])
def test_why_there_is_no_session_is_said(tmp_path: Path, command: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines({**start(), "schema": 3}, {**start(), "schema": 3}))
    done = run(command, log)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"flowtally: no flowtally session in {log}:"
        " written in schema 3 of the session log; this flowtally reads 2\n"
    )


def test_where_the_lines_are_of_several_days_each_has_its_date(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(start(), answered(), answered(404, 30), answered(200, 86_400 * 3)))
    dated = [line[:11] for line in run("flows", log, TZ="UTC").stdout.splitlines()]
    assert dated == ["2026-01-02 ", "2026-01-02 ", "2026-01-05 "]
    # What is not listed does not count.
    (line,) = run("flows", log, "--status", "404", TZ="UTC").stdout.splitlines()
    assert line.startswith("03:04:35  404")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--problems"], [404, "connection_refused", "client_tls_rejected"]),
        (["--status", "4xx"], [401, 404]),
        (["~c 404 | ~c 401"], [401, 404]),
        (["--host", "shop.example", "~m POST"], [404]),
        (["--path", "/items/*"], [404]),
        (["--path", "/items/{id}"], [404]),
        (["--incident", incident_of(RECORDS[5])], ["connection_refused"]),
        (["--cause", "client_tls_rejected"], ["client_tls_rejected"]),
        (["!~http", "--since", "2026-01-02T03:04:10Z"], ["client_tls_rejected"]),
    ],
    ids=str,
)
def test_records_as_the_log_has_them(log: Path, arguments: list[str], expected: list[Any]) -> None:
    done = run("flows", log, "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record.get("cause") or record["status"] for record in found] == expected
    assert all(record in RECORDS for record in found)


def test_a_command_repeats_the_request(log: Path) -> None:
    done = run("flows", log, "--curl", "--status", "404")
    comment, command = done.stdout.splitlines()
    assert comment.endswith(
        "404 Not found; not in the log: headers, the body (100 B), values in the URL"
    )
    assert shlex.split(command)[-4:] == [
        *("--request", "POST", "--url", "http://shop.example/items/7?page=")
    ]


def test_standard_input_and_several_logs(log: Path) -> None:
    text = lines(*({**record, "session": "other"} for record in RECORDS))
    assert len(run("flows", log, "-", stdin=text).stdout.splitlines()) == 12
    assert len(run("flows", "-", stdin=log.read_bytes()).stdout.splitlines()) == 6


def test_hostile_names_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "hostile.jsonl"
    records = [
        failed(host=HOSTILE, url=f"http://h/{HOSTILE}", detail=HOSTILE, method=HOSTILE),
        answered(200, url=f"http://h/'$(id)`id`;{HOSTILE}", method="GET"),
        event(host=HOSTILE),
    ]
    path.write_bytes(lines(*numbered(*records)))
    for arguments in ([], ["--curl"], ["--json"]):
        done = run("flows", path, *arguments)
        assert done.returncode == 0
        assert all(line.isprintable() for line in done.stdout.splitlines())
    hosts = [json.loads(line)["host"] for line in done.stdout.splitlines()]
    assert hosts[0] == HOSTILE.replace("\ud800", "?")  # half of a pair stands for nothing
    digest = run("why", path).stdout
    assert all(line.isprintable() for line in digest.splitlines())
    assert "<x>" not in digest.replace("`", "\n`").split("`")[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cause", "nothing"], "--cause 'nothing': there is no such cause"),
        (["~b x"], "'~b' is not possible here: the log keeps no bodies"),
        (["--json", "--curl"], "--json and --curl: one of them at a time"),
        (["--since", "x"], "--since 'x': allowed are a time such as"),
        (["no-such-file", "more"], "no-such-file: No such file or directory"),
        (["--follow", "-"], "--follow needs one log that is a file"),
    ],
    ids=str,
)
def test_bad_input_is_said(log: Path, arguments: list[str], message: str) -> None:
    done = run("flows", log, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_whoever_reads_may_have_seen_enough(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(start(), *[answered()] * 5000))
    command = [sys.executable, "-m", "flowtally", "flows", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


def test_standard_output_may_be_closed(log: Path) -> None:
    command = f'"$0" -m flowtally flows "{log}" >&-'
    done = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, check=False)
    assert b"Traceback" not in done.stderr


def test_what_holds_no_session_is_said(tmp_path: Path) -> None:
    log = tmp_path / "empty.jsonl"
    log.write_bytes(b"")
    done = run("flows", log)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"flowtally: no flowtally session in {log}: it is empty\n"


# --- background traffic ---


@pytest.fixture
def busy(tmp_path: Path) -> Path:
    """A log of a browser that did much on its own."""
    path = tmp_path / "busy.jsonl"
    own = [failed("dns_error", 7 + n, background="Google", host="g.example") for n in range(3)]
    own += [event(second=20, background="Mozilla"), answered(200, 21, background="Mozilla")]
    path.write_bytes(lines(*numbered(*RECORDS, failed("dns_error", 6), *own)))
    return path


@pytest.mark.parametrize(
    ("arguments", "count", "left_out"),
    [([], 7, 5), (["--cause", "dns_error"], 1, 3), (["--problems"], 4, 0)],
    ids=str,
)
def test_background_traffic_is_left_out_as_in_a_report(
    busy: Path, arguments: list[str], count: int, left_out: int
) -> None:
    said = f"of background traffic, {left_out} left out: --background lists them\n"
    for format in ([], ["--json"]):
        # What stands in two logs is left out once.
        done = run("flows", busy, "-", *format, *arguments, stdin=busy.read_bytes())
        assert done.stderr == (said if left_out else "")
        assert len(done.stdout.splitlines()) == count
        done = run("flows", busy, "--background", *format, *arguments)
        assert (len(done.stdout.splitlines()), done.stderr) == (count + left_out, "")
    statistics = json.loads(run("report", busy, "--json", *arguments).stdout)["statistics"]
    totals = statistics["totals"]
    assert totals["flows"] + totals["events"] - totals["challenges"] * bool(arguments) == count
    assert totals["background"] == left_out


def test_where_only_background_traffic_matches_that_is_said(busy: Path) -> None:
    done = run("flows", busy, "--host", "g.example")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        "no flow and no event matches; of background traffic, 3 left out: --background lists them\n"
    )


def test_background_traffic_is_marked(busy: Path) -> None:
    listed = run("flows", busy, "--background").stdout.splitlines()
    assert ["(background: " in line for line in listed] == [False] * 7 + [True] * 5


# --- filters elsewhere ---


def test_a_report_is_narrowed(log: Path) -> None:
    done = run("report", log, "--status", "4xx", "--json")
    totals = json.loads(done.stdout)["statistics"]["totals"]
    assert (totals["flows"], totals["problems"], totals["challenges"]) == (2, 1, 1)


@pytest.mark.parametrize(
    "arguments", [["report"], ["report", "--markdown"], ["report", "--json"], ["why"]], ids=str
)
def test_what_was_narrowed_says_so(log: Path, arguments: list[str]) -> None:
    said = "--status 4xx '~m GET'"
    assert said in run(*arguments, log, "--status", "4xx", "~m GET").stdout
    assert "Only what matches" not in run(*arguments, log).stdout
    assert '"only"' not in run(*arguments, log).stdout


def test_each_incident_of_a_report_has_its_flows(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    open_still = {**answered(second=3), "outcome": "unfinished"}
    for name in ("status", "band", "description"):
        del open_still[name]
    log.write_bytes(lines(start(), failed(), cancelled(second=2), open_still))
    statistics = json.loads(run("report", log, "--json").stdout)["statistics"]
    rows = {row["cause"]: row for row in statistics["incidents"]}
    assert {cause for cause, row in rows.items() if row["id"] is None} == {
        "client_cancelled",
        "unfinished",
    }
    assert len(run("flows", log, "--incident", rows["connection_refused"]["id"]).stdout) > 1


def test_a_page_that_was_narrowed_says_so(log: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    run("report", log, "--status", "4xx", "--host", "<b>", "--html", page)
    text = page.read_text("utf-8")
    assert "Only what matches --status 4xx --host &#39;&lt;b&gt;&#39;" in text
    assert "Nothing matches." in text


@pytest.mark.parametrize("command", ["report", "why"])
def test_where_nothing_matches_the_client_is_not_to_blame(log: Path, command: str) -> None:
    done = run(command, log, "--status", "299")
    assert "Nothing matches." in done.stdout
    assert "pointed at the proxy" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--host", "shop.example"], 0), (["--problems"], 1), ([], 1)]
)
def test_budgets_are_for_what_is_wanted(log: Path, arguments: list[str], status: int) -> None:
    assert run("check", log, "--max", "failures=0", *arguments).returncode == status


def test_a_comparison_is_narrowed(log: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_bytes(lines(*RECORDS[:4]))
    done = run("compare", log, other, "~d shop", "--json")
    assert json.loads(done.stdout)["before"]["flows"] == 4


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["flows"], 0),
        (["report"], 0),
        (["why"], 0),
        (["check", "--max", "flows=0"], 2),
        (["check", "--min", "flows=1"], 2),
    ],
    ids=str,
)
def test_a_filter_that_matches_nothing_says_so(
    log: Path, arguments: list[str], status: int
) -> None:
    done = run(*arguments, log, "--status", "299")
    assert done.returncode == status
    assert done.stderr == "no flow and no event matches\n"


# --- as a session writes it ---


@contextmanager
def following(log: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "flowtally", "flows", str(log), "--follow", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read(process: subprocess.Popen[str], count: int = 1) -> list[str]:
    assert process.stdout is not None
    return list(islice(process.stdout, count))


def test_it_follows_a_session_to_its_end(tmp_path: Path) -> None:
    log = tmp_path / "session.jsonl"
    all_lines = lines(*ENDED).splitlines(keepends=True)
    torn = all_lines[4][:30]
    log.write_bytes(b"".join(all_lines[:4]) + torn)
    with following(log, "--json") as process:
        assert [json.loads(line)["seq"] for line in read(process, 3)] == [2, 3, 4]
        with log.open("ab") as file:
            file.write(all_lines[4][30:] + all_lines[5])
        assert [json.loads(line)["seq"] for line in read(process, 2)] == [5, 6]
        with log.open("ab") as file:
            file.write(b"".join(all_lines[6:]))
        assert [json.loads(line)["seq"] for line in read(process)] == [7]
        assert process.wait(timeout=20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_it_follows_all_sessions_of_a_log_to_their_ends(tmp_path: Path) -> None:
    log = tmp_path / "session.jsonl"

    def of(session: str, *parts: Record) -> bytes:
        return lines(*({**record, "session": session} for record in parts))

    log.write_bytes(of("a", *RECORDS[:2]) + of("b", *ENDED) + of("c", start()))
    with following(log, "--json") as process:

        def seen(count: int) -> list[str]:
            return [json.loads(line)["session"] for line in read(process, count)]

        assert seen(7) == ["a", *["b"] * 6]
        for added, ids in (
            (of("c", *ENDED[1:]), ["c"] * 6),
            (of("d", *RECORDS), ["d"] * 6),  # it began meanwhile
            (of("a", *ENDED[2:]), ["a"] * 5),
            (of("d", *ENDED[-2:]), ["d"]),
        ):
            assert process.poll() is None
            with log.open("ab") as file:
                file.write(added)
            assert seen(len(ids)) == ids
        assert process.wait(timeout=20) == 0


def test_what_it_cannot_read_as_it_comes_is_named(tmp_path: Path) -> None:
    log = tmp_path / "session.jsonl"
    log.write_bytes(lines(*RECORDS[:2]))
    with following(log) as process:
        read(process)
        with log.open("ab") as file:
            file.write(b"\nodd\n" + lines(answered(background="Google", seq=900)))
            file.write(lines(*RECORDS[2:], ENDED[-1]))
        assert len(read(process, 9)) == 5, "with background traffic"
        assert process.wait(timeout=20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == f"{log}: not JSON; skipped\n"


def test_it_follows_a_log_that_is_moved_gone_and_cut(tmp_path: Path) -> None:
    log = tmp_path / "session.jsonl"
    all_lines = lines(*ENDED).splitlines(keepends=True)
    log.write_bytes(b"".join(all_lines[:2]))
    with following(log, "--json") as process:

        def seen() -> list[int]:
            return [json.loads(line)["seq"] for line in read(process)]

        assert seen() == [2]
        with log.open("ab") as file:
            file.write(all_lines[2])
        assert seen() == [3]  # by now it follows
        moved = log.rename(tmp_path / "session.jsonl.1")
        assert process.stderr is not None
        assert process.stderr.readline() == (
            f"{log}: gone, or no file to read; waiting for it to be there again\n"
        )
        with moved.open("ab") as file:  # its session goes on there
            file.write(all_lines[3])
        assert seen() == [4]
        log.write_bytes(all_lines[4] + b"\n" * 5000)
        assert seen() == [5]
        log.write_bytes(b"")  # as `copytruncate` does
        with log.open("ab") as file:
            file.write(all_lines[5][:40])
            file.flush()
            file.write(all_lines[5][40:])
        assert seen() == [6]
        with log.open("ab") as file:
            file.write(b"".join(all_lines[6:]))
        assert process.wait(timeout=20) == 0
        assert process.stderr.read() == ""


def test_a_session_that_has_ended_is_not_waited_for(log: Path) -> None:
    assert len(run("flows", log, "--follow").stdout.splitlines()) == 6


def test_ctrl_c_ends_it_without_a_word(tmp_path: Path) -> None:
    log = tmp_path / "session.jsonl"
    log.write_bytes(lines(*RECORDS[:2]))
    with following(log) as process:
        read(process)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
        assert (process.returncode, stderr) == (0, "")
