"""Session logs in DuckDB: the same lines, the same figures, and nothing else within reach."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from flowtally.engines import export
from flowtally.engines.asking import Answer
from flowtally.engines.asking import QueryError
from flowtally.engines.loading import loaded
from flowtally.engines.loading import locked
from flowtally.engines.schema import columns
from flowtally.engines.views import VIEWS
from flowtally.engines.views import statements
from flowtally.logs import Logs
from flowtally.logs import read
from flowtally.output import OutputError
from flowtally.tally import endpoint
from flowtally.vocabulary import KNOWN
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from lab import engines
from lab.cli import BEGIN
from lab.cli import HOSTILE
from lab.cli import Record
from lab.cli import answered
from lab.cli import event
from lab.cli import failed
from lab.cli import final
from lab.cli import lines
from lab.cli import numbered
from lab.cli import run
from lab.cli import start
from lab.sessions import everything

duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")


@contextmanager
def opened(*paths: Path, noted: Logs | None = None) -> Iterator[engines.Ask]:
    """Asks logs."""
    with loaded([(str(path), path) for path in paths], noted or Logs()) as connection:

        def ask(query: str) -> Sequence[engines.Row]:
            found = connection.execute(query)
            names = [column[0] for column in found.description]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

        yield ask


# --- the figures of the report ---


@pytest.mark.parametrize("make", [engines.one_log, engines.fleet])
def test_every_figure_is_that_of_the_report(
    make: Callable[[Path], list[Path]], tmp_path: Path
) -> None:
    paths = make(tmp_path)
    with opened(*paths) as ask:
        engines.check(ask, paths)


def test_every_view_is_there_and_named(tmp_path: Path) -> None:
    with opened(*engines.one_log(tmp_path)) as ask:
        assert {row["view_name"] for row in ask("FROM duckdb_views() WHERE NOT internal")} == {
            *VIEWS,
            *("records", "lines", "challenges", "counted"),
        }
        assert all(ask(f"SELECT * FROM {view}") for view in VIEWS)
    said = run("sql", "--help").stdout
    assert all(re.search(rf"\b{view}\b", said) for view in VIEWS)


def test_records_has_the_fields_of_the_schema(tmp_path: Path) -> None:
    with opened(*engines.one_log(tmp_path)) as ask:
        (row,) = ask("FROM records WHERE type = 'session_start'")
    assert row.keys() == columns().keys()
    schema = json.loads((KNOWN / "record.schema.json").read_text(encoding="utf-8"))
    fields = {name for part in schema["$defs"].values() for name in part.get("properties", {})}
    flows = schema["$defs"]["flow"]["properties"].keys()
    assert flows <= columns().keys() <= fields | {"type", "session", "seq", "time"}


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from(["/", "//", ":/", "1", "17", "a", "é", "deadbeef", "0123456789abcdef", "-"])
        | st.text("09afgzAZ_-", min_size=1, max_size=45),
        max_size=12,
    ).map("".join)
)
def test_endpoints_are_those_of_the_tally(path: str) -> None:
    url = f"http://shop.example{path}"
    found = _folding().execute("SELECT folded(?)", [url]).fetchone()
    expected = endpoint({"kind": "http", "method": "GET", "url": url})
    if len(expected) < 200:
        assert f"GET {found[0]}" == expected


@cache
def _folding() -> Any:
    connection = duckdb.connect()
    connection.execute(next(each for each in statements("duckdb") if "folded" in each))
    return connection


def test_exchanges_in_the_names_of_opentelemetry(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    fields: Record = {
        "url": "https://api.example:8443/v1/cart?id=",
        "host": "api.example",
        "port": 8443,
    }
    log.write_bytes(
        lines(
            start(),
            answered(404, http_version="HTTP/2.0", **fields),
            failed(second=1, http_version="HTTP/1.1", **fields),
            answered(second=2),
            event(),
        )
    )
    with opened(log) as ask:
        missing, refused, fine = ask("FROM otel ORDER BY end_time")
    assert missing == {
        "session.id": "00000001",
        "flow": "0",
        "end_time": "2026-01-02T03:04:05.000Z",
        "http.client.request.duration": 0.025,
        "http.request.method": "GET",
        "http.response.status_code": 404,
        "error.type": "404",
        "server.address": "api.example",
        "server.port": 8443,
        "url.full": "https://api.example:8443/v1/cart?id=",
        "url.scheme": "https",
        "url.path": "/v1/cart",
        "url.query": "id=",
        "network.protocol.name": "http",
        "network.protocol.version": "2",
        "client.address": "127.0.0.1",
        "client.port": 50_000,
        "http.request.body.size": 100,
        "http.response.body.size": 1500,
    }
    assert (refused["error.type"], refused["http.response.status_code"]) == (
        "connection_refused",
        None,
    )
    assert refused["network.protocol.version"] == "1.1"
    assert fine["error.type"] is None


# --- the same lines ---

GOOD = numbered(start(), answered(), failed(second=1), event(second=2))
ODD: dict[str, bytes] = {
    "no JSON": b"root:x:0:0",
    "no record": b"[1,2]",
    "a text": b'"flow"',
    "two in a line": b'{"type":"gap"} {"type":"gap"}',
    "not UTF-8": b'{"type":"\xff"}',
    "of another program": b'{"level":"info"}',
    "too long": b'{"type":"' + b"x" * 1024 * 1024 + b'"}',
}
CHANGES: dict[str, Record] = {
    "a status as text": {"status": "404"},
    "a status that is a fraction": {"status": 200.5},
    "a host that is a number": {"host": 5},
    "a host that is null": {"host": None},
    "a host that is an object": {"host": {"a": 1}},
    "no time": {"time": "yesterday"},
    "no time of a day": {"time": "2026-01-02T24:00:00.000Z"},
    "no day": {"time": "2026-02-30T03:04:05.000Z"},
    "a day of a week": {"time": "2026-W01-5T03:04:05.000Z"},
    "a comma in a time": {"time": "2026-01-02T03:04:05,000Z"},
    "a null byte in a time": {"time": "2026-01-02T03:04Z\u00005.000Z"},
    "no number": {"seq": 0},
    "a number that is a fraction": {"seq": 9.0},
    "a number that is text": {"seq": "9"},
    "no session": {"session": 7},
    "another band": {"band": "Redirection"},
    "no kind": {"kind": "gopher"},
    "no outcome": {"outcome": "fine"},
    "an unknown error code": {"error_code": -7, "cause": "x"},
    "a cause without a code": {"cause": "dns_error"},
    "a stream that is false": {"stream": False},
    "a stream that is a text": {"stream": "true"},
    "a challenge that is none": {"challenge": 403},
    "negative bytes": {"request_bytes": -1},
    "a time that is text": {"wait_ms": "3"},
    "a negative time": {"duration_ms": -1},
    "a port that is none": {"port": 65_536},
    "a reason that is a list": {"reason": []},
    "an unknown type": {"type": "flows"},
    # These can be counted.
    "an unknown field": {"colour": {"of": ["anything", None]}},
    "half a surrogate pair": {"host": "a\ud800b"},
    "a null byte": {"host": "a\u0000b"},
    "a text that moves a cursor": {"url": HOSTILE},
    "a status beyond all": {"status": 10**17, "band": "Server error"},
    "a port that is 0": {"port": 0},
    "a whole number of ms": {"wait_ms": 3},
    "a huge number in a field that nobody counts": {"grpc_status": 10**30},
}


@pytest.mark.parametrize("line", ODD.values(), ids=ODD)
def test_what_is_no_record_is_named_and_skipped(line: bytes, tmp_path: Path) -> None:
    _check_lines(tmp_path, line)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_field_that_is_odd(change: Record, tmp_path: Path) -> None:
    record = {**answered(second=9), "seq": 9, **change}
    _check_lines(tmp_path, json.dumps(record).encode())


def _check_lines(folder: Path, line: bytes) -> None:
    """A line among others has the same fate as in the report, also at the end and twice."""
    log = folder / "log.jsonl"
    good = lines(*GOOD)
    for content in (
        good + line + b"\n",
        line + b"\n" + good,
        good + line,
        good + line + b"\n" + line,
    ):
        log.write_bytes(content)
        theirs = read([("log", log)])
        noted = Logs()
        with opened(log, noted=noted) as ask:
            (totals,) = ask("FROM totals")
            count = len(ask("FROM records"))
        said = theirs.merged().totals()
        assert {
            name: totals[name] or "" if name in ("first", "last") else totals[name]
            for name in totals
        } == said._asdict()
        assert noted.unreadable == theirs.unreadable
        assert [problem[1:] for problem in noted.problems] == [p[1:] for p in theirs.problems]
        assert count >= len(GOOD)


NAMES = {
    "signs of a pattern": "a[1]*?.jsonl",
    "a quote": "it's.jsonl",
    "a backslash": "ü \\ %.jsonl",
    "a backslash before a sign": "a\\*b.jsonl",
    "a backslash after a sign": "a[b\\]c.jsonl",
    "not UTF-8": os.fsdecode(b"\xff.jsonl"),
    "the ending of packed ones": "x.jsonl.gz",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_log_may_have_any_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "a1bc.jsonl").write_bytes(lines(*everything(10)))
    log = tmp_path / name
    log.write_bytes(lines(*GOOD))
    with opened(log) as ask:
        assert len(ask("FROM records")) == len(GOOD)
    # The other log is of the same session, and has more of it.
    done = run("sql", tmp_path, "SELECT flows > 9 AS found FROM totals")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "found\n True\n")


@pytest.mark.parametrize("name", ["json=a", "json=1", "filename=2", "session=3"])
def test_a_folder_may_have_the_name_of_a_column(name: str, tmp_path: Path) -> None:
    log = tmp_path / name / "log.jsonl"
    log.parent.mkdir()
    log.write_bytes(lines(*GOOD))
    with opened(log) as ask:
        assert [row["session"] for row in ask("FROM records")] == ["00000001"] * len(GOOD)


def test_a_torn_end_leaves_the_log_to_duckdb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(*GOOD) + b'{"type":"flow","ses')
    monkeypatch.setattr("flowtally.engines.loading._rewrite", lambda *_: pytest.fail("read again"))
    noted = Logs()
    with opened(log, noted=noted) as ask:
        assert len(ask("FROM records")) == len(GOOD)
    assert [(p.line, p.reason) for p in noted.problems] == [(5, "torn line")]


def test_a_record_counts_once_wherever_it_stands(tmp_path: Path) -> None:
    records = numbered(*everything(50))
    halves = [records[:60], records[40:]]  # a rotated log, and what is in both
    for number, half in enumerate(halves):
        (tmp_path / f"{number}.jsonl").write_bytes(lines(*half))
    (tmp_path / "twice.jsonl").write_bytes(lines(*records[:20], *records[:20]))
    with opened(*sorted(tmp_path.iterdir())) as ask:
        found = ask("SELECT seq FROM records ORDER BY seq")
    assert [row["seq"] for row in found] == [record["seq"] for record in records]


def test_copies_that_hide_holes_count_once(tmp_path: Path) -> None:
    # As many numbers as 1 to 10 are, with the same sum, and the same sum of squares.
    numbers = (1, 3, 3, 4, 4, 5, 8, 8, 9, 10)
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(*({**answered(second=seq), "seq": seq} for seq in numbers)))
    with opened(log) as ask:
        assert [row["seq"] for row in ask("FROM records ORDER BY seq")] == sorted(set(numbers))
        (session,) = ask("FROM sessions")
    assert session["missing"] == 3


# --- flowtally sql ---


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "logs" / "log.jsonl"
    path.parent.mkdir()
    path.write_bytes(lines(start(), answered(), answered(404, 1), failed(second=2), event()))
    return path


def test_a_table_for_people(log: Path) -> None:
    query = "SELECT code, description, flows, p50_ms AS ms, NULL AS x FROM codes ORDER BY code"
    for source in (log, log.parent):
        done = run("sql", source, query)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            "code  description  flows    ms  x",
            " 200  OK               1  25.0",
            " 404  Not found        1  25.0",
        ]


def test_json_and_csv(log: Path) -> None:
    query = "SELECT error_code, cause FROM causes ORDER BY cause"
    done = run("sql", log, query, "--json")
    assert json.loads(done.stdout) == [
        {"error_code": -3, "cause": "404"},
        {"error_code": -2, "cause": "client_tls_rejected"},
        {"error_code": -2, "cause": "connection_refused"},
    ]
    done = run("sql", log, query, "--csv")
    assert list(csv.reader(done.stdout.splitlines()))[:2] == [
        ["error_code", "cause"],
        ["-3", "404"],
    ]
    assert run("sql", log, "FROM flows WHERE false", "--json").stdout == "[]\n"
    assert run("sql", log, "SELECT '=1+1' AS x", "--csv").stdout == "x\n'=1+1\n"


VALUES = {
    "NaN": ("'NaN'::DOUBLE", "null"),
    "infinity": ("'-Infinity'::FLOAT", "null"),
    "a list": ("[1.5::DOUBLE, 'Infinity'::DOUBLE]", "[1.5, null]"),
    "a structure": ("{'x': 'NaN'::DOUBLE, 'y': true}", '{"x": null, "y": true}'),
    "a map": ("MAP {DATE '2026-01-02': 3}", '{"2026-01-02": 3}'),
    "bytes": (r"'\xAA\x00'::BLOB", '"aa00"'),
    "a decimal": ("1.5::DECIMAL(3, 1)", '"1.5"'),
    "a time": ("TIMESTAMP '2026-01-02 03:04:05'", '"2026-01-02 03:04:05"'),
}


@pytest.mark.parametrize(("value", "said"), VALUES.values(), ids=VALUES)
def test_a_value_that_json_does_not_have(value: str, said: str, log: Path) -> None:
    done = run("sql", log, f"SELECT {value} AS x", "--json")
    assert done.stdout == f'[{{"x": {said}}}\n]\n'


def test_json_loses_no_column(log: Path) -> None:
    done = run("sql", log, "SELECT 1 AS b, 2 AS b", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "flowtally: 2 columns are called b: name each otherwise with AS\n"
    assert run("sql", log, "SELECT 1 AS b, 2 AS b", "--csv").stdout == "b,b\n1,2\n"


def test_more_rows_than_are_held_at_a_time(log: Path) -> None:
    done = run("sql", log, "SELECT range AS n FROM range(2500)", "--json")
    assert [row["n"] for row in json.loads(done.stdout)] == list(range(2500))
    assert len(run("sql", log, "SELECT range AS n FROM range(2500)").stdout.splitlines()) == 2501


def test_a_query_may_be_longer_than_a_name_of_a_file(log: Path) -> None:
    query = f"SELECT flows FROM totals WHERE flows IN (3{', 3' * 200})"
    done = run("sql", log, query)
    assert (done.returncode, done.stdout.split()) == (0, ["flows", "3"])


def test_standard_input_is_a_log(log: Path) -> None:
    done = run("sql", "-", "SELECT flows FROM totals", stdin=log.read_bytes())
    assert (done.returncode, done.stdout.split()) == (0, ["flows", "3"])


def test_nothing_moves_the_cursor(log: Path) -> None:
    log.write_bytes(lines(start(), answered(host=HOSTILE, url=HOSTILE)))
    said = run("sql", log, 'SELECT host, url AS "\x1b[2J" FROM flows').stdout
    assert said.replace("\n", "").isprintable()


def test_background_traffic_makes_no_session_longer(log: Path) -> None:
    own = answered(background="Google"), event(second=99, background="Google")
    log.write_bytes(lines(start(), own[0], answered(second=2), failed(second=5), own[1]))
    totals = json.loads(run("report", log, "--json").stdout)["statistics"]["totals"]
    for view in ("totals", "sessions"):
        (found,) = json.loads(run("sql", log, f"SELECT first, last FROM {view}", "--json").stdout)
        assert found == {"first": totals["first"], "last": totals["last"]}
        assert found["last"] == "2026-01-02T03:04:10.000Z"


def test_the_report_and_sql_agree_on_an_incident(log: Path) -> None:
    (id,) = json.loads(
        run("sql", log, "SELECT id FROM incidents WHERE cause = '404'", "--json").stdout
    )
    assert "404" in run("flows", log, "--incident", id["id"]).stdout


def test_missing_records_are_told(log: Path) -> None:
    log.write_bytes(lines(start(), {**answered(), "seq": 4}))
    done = run("sql", log, "SELECT missing FROM sessions")
    assert done.stderr == "2 records of session 00000001 are missing in the logs\n"
    assert done.stdout.split() == ["missing", "2"]


WRONG = {
    "no SQL": ("SELEC 1", "syntax error"),
    "no view": ("FROM nothing", "nothing"),
    "no column": ("SELECT x FROM flows", "x"),
    "two": ("SELECT 1; SELECT 2", "one SELECT"),
    "none": (" ", "one SELECT"),
    "a change": ("DROP TABLE loaded", "one SELECT"),
    "another change": ("INSERT INTO loaded (log) VALUES ('x')", "one SELECT"),
    "in the middle": ("SELECT CAST(flow AS INT) FROM flows WHERE host = 'shop.example'", "INT"),
}


@pytest.mark.parametrize(("query", "said"), WRONG.values(), ids=WRONG)
def test_a_query_that_cannot_be_answered_gets_one_line(query: str, said: str, log: Path) -> None:
    log.write_bytes(lines(start(), answered(flow="x")))
    done = run("sql", log, query)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"flowtally: .*\n", done.stderr)
    assert said in done.stderr


REACHING = (
    "SELECT * FROM read_text('{}')",
    "SELECT * FROM '{}'",
    "SELECT * FROM read_csv('{}')",
    "SELECT * FROM read_json('{}')",
    "SELECT * FROM glob('{}')",
    "COPY (SELECT 1) TO '{}.out'",
    "COPY lines FROM '{}'",
    "ATTACH '{}.db'",
    "EXPORT DATABASE '{}.out'",
    "INSTALL httpfs",
    "SET enable_external_access = true",
    "RESET enable_external_access",
    "SET lock_configuration = false",
    "PRAGMA enable_logging",
)


@pytest.mark.parametrize("query", REACHING)
def test_no_query_reaches_a_file_or_a_setting(query: str, log: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"a": 1}\n')
    there = set(tmp_path.iterdir())
    with loaded([("log", log)], Logs()) as connection:
        locked(connection)
        with pytest.raises(QueryError):
            list(Answer(connection, query.format(secret)).rows())
        # Even where it is not looked at what kind of statement it is.
        with pytest.raises(duckdb.Error):
            connection.execute(query.format(secret))
    assert set(tmp_path.iterdir()) == there


@pytest.mark.parametrize("command", [("sql", "FROM flows"), ("export", "--parquet", "out")])
def test_without_a_session_it_is_said_why(command: tuple[str, ...], log: Path) -> None:
    log.write_bytes(b"")
    name, *options = command
    done = run(name, log, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"flowtally: no flowtally session in {log}: it is empty\n"


def test_arguments_that_are_missing(log: Path) -> None:
    for arguments in ((), (log,)):
        done = run("sql", *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("flowtally: the query is missing; for example: ")
    assert "one of them" in run("sql", log, "FROM totals", "--json", "--csv").stderr
    for name in ("none.jsonl", "/dev/null"):
        done = run("sql", name, "FROM totals")
        assert (done.returncode, done.stdout) == (2, "")
        assert name in done.stderr
        assert done.stderr.count("\n") == 1


def test_without_duckdb_one_line_says_how_to_get_it(log: Path, tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "duckdb.py").write_text("raise ImportError\n")
    path = os.pathsep.join([str(tmp_path / "hidden"), os.environ.get("PYTHONPATH", "")])
    for command in (("sql", log, "FROM totals"), ("export", log, "--parquet", tmp_path / "out")):
        done = run(*command, PYTHONPATH=path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "flowtally: this needs DuckDB: pip install 'flowtally[duckdb]'\n"


def test_no_room_for_temporary_files_gets_one_line(log: Path) -> None:
    code = (
        "import sys; from flowtally.engines import loading; from flowtally.cli import main;"
        "loading.MEMORY = '1KB'; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "sql", log, "FROM totals"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"flowtally: .*\n", done.stderr)


# --- flowtally export ---


def test_parquet_has_what_the_views_have(tmp_path: Path) -> None:
    paths = engines.one_log(tmp_path)
    later = [{**record, "session": "00000002"} for record in everything(20)]
    paths.append(tmp_path / "later.jsonl")
    paths[-1].write_bytes(
        lines(
            start("00000002", 86_400),
            *({**r, "time": "2026-01-03" + r["time"][10:]} for r in later[1:]),
        )
    )
    out = tmp_path / "out"
    done = run("export", *paths, "--parquet", out)
    assert done.returncode == 0
    assert re.search(r"out: [0-9]+ flows, [0-9]+ events, 2 sessions\n", done.stderr)
    assert {path.name for path in out.iterdir()} == set(export.TABLES)
    for table in export.TABLES:
        assert {day.name for day in (out / table).iterdir()} == {
            "day=2026-01-02",
            "day=2026-01-03",
        }
    with opened(*paths) as ask:
        for table in export.TABLES:
            stored = f"read_parquet('{out}/{table}/*/*.parquet', hive_types = {{'day': VARCHAR}})"
            names = ", ".join(f'"{name}"' for name in ask(f"FROM {table} LIMIT 1")[0])
            for one, other in ((table, stored), (stored, table)):
                assert not ask(f"SELECT {names} FROM {one} EXCEPT ALL SELECT {names} FROM {other}")
            assert ask(f"FROM {table}")


def test_a_table_without_rows_still_has_its_columns(log: Path, tmp_path: Path) -> None:
    log.write_bytes(lines(start(), final()))
    assert run("export", log, "--parquet", tmp_path / "out").returncode == 0
    for table in export.TABLES:
        (file,) = (tmp_path / "out" / table).glob("day=2026-01-02/*.parquet")
        names = duckdb.sql(f"SELECT * FROM '{file}'").columns
        assert "session" in names


def test_an_export_is_there_whole_or_not_at_all(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    done = run("export", log, "--parquet", out)
    assert done.returncode == 2
    assert done.stderr == f"flowtally: {out}: is not empty; name a folder that is not there yet\n"
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    done = run("export", log, "--parquet", out / "mine.txt")
    assert done.stderr.startswith(f"flowtally: {out}/mine.txt: is no folder")
    done = run("export", log, "--parquet", tmp_path / "no" / "where")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    done = run("export", tmp_path / "none.jsonl", "--parquet", tmp_path / "new")
    assert done.returncode == 2
    assert not (tmp_path / "new").exists()
    (out / "mine.txt").unlink()
    assert run("export", log, "--parquet", out).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "out"]


def test_an_export_that_fails_leaves_nothing(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TABLES", ("flows", "nothing"))
    with loaded([("log", log)], Logs()) as connection, pytest.raises(OutputError):
        export.export(connection, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


# --- beside ---


def test_the_command_line_starts_without_duckdb() -> None:
    code = "import sys, flowtally.cli; sys.exit('duckdb' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a program without asking it")
def test_a_query_that_takes_for_ever_is_ended_in_order(log: Path, tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    endless = "SELECT sum(sqrt(a.range)) FROM range(1000000000000) AS a"
    with subprocess.Popen(
        [sys.executable, "-m", "flowtally", "sql", log, endless],
        env={**os.environ, "TMPDIR": os.fspath(folder)},
    ) as process:
        while not list(folder.iterdir()):
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert not list(folder.iterdir())


def test_a_script_for_spark_names_the_logs(log: Path) -> None:
    done = run("sql", "--spark", log.parent)
    assert done.returncode == 0
    assert " VIEW lines (`" in done.stdout
    assert f"(path '{log.parent}')" in done.stdout
    assert all(f" {view} AS\n" in done.stdout for view in VIEWS)


def test_a_script_for_spark_has_a_view_for_each_of_several_logs(log: Path) -> None:
    said = run("sql", "--spark", log.parent, "s3a://bucket/it's/*.jsonl").stdout
    assert re.findall(r" VIEW (lines\d*)\b", said) == ["lines0", "lines1", "lines"]
    assert re.findall(r"\(path (.*)\)", said) == [
        f"'{log.parent}'",
        r"'s3a://bucket/it\'s/*.jsonl'",
    ]
    assert "SELECT * FROM lines0\nUNION ALL\nSELECT * FROM lines1;\n" in said


def test_a_script_for_spark_takes_no_query_and_no_standard_input(log: Path) -> None:
    for name, said in (("FROM causes", "takes no query"), ("-", "no standard input")):
        done = run("sql", "--spark", log, name)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert said in done.stderr


def test_the_times_of_the_laboratory_are_of_one_day() -> None:
    assert BEGIN // 86_400 == (BEGIN + 600) // 86_400
