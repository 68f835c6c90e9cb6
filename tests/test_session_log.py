"""The session log and the options of a real mitmdump: kills, full disks, reloads, bad values."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flowtally import logs
from flowtally.tally import Tally
from lab import clients
from lab import servers
from lab.clients import Destination
from lab.proxy import ADDON
from lab.proxy import MITMDUMP
from lab.proxy import Mitmdump
from lab.servers import AnsweringServer
from lab.servers import DeadPort
from lab.tallies import plain
from mitmproxy import io
from mitmproxy.test import tflow

KILLS = 5


def codes(tally: Tally) -> list[str]:
    return [code for _, code in tally["codes"]]


@pytest.fixture
def origin() -> Iterator[AnsweringServer]:
    with AnsweringServer(servers.site) as server:
        yield server


def read(path: Path) -> logs.Logs:
    return logs.read([(path.name, path)])


def test_a_killed_proxy_loses_no_finished_flow(tmp_path: Path, origin: AnsweringServer) -> None:
    """The client notes each URL when it has the whole response; each must be in the log."""
    total = 0
    for attempt in range(KILLS):
        finished: list[str] = []
        with Mitmdump(tmp_path / str(attempt), confdir=tmp_path / "confdir") as proxy:

            def load(proxy: Mitmdump = proxy, finished: list[str] = finished) -> None:
                for number in range(100_000):
                    path = f"/status/200?n={number}"
                    try:
                        if b"200" not in clients.get(proxy, origin, path)[:20]:
                            return
                    except OSError:
                        return
                    finished.append(path)

            thread = threading.Thread(target=load)
            thread.start()
            time.sleep(random.uniform(0.05, 0.5))
            proxy.kill()
            thread.join()
            found = read(proxy.log)
            (session,) = found.sessions.values()
            assert not session.final
            assert found.unreadable <= 1  # at most a torn last line
            assert found.missing == 0
            assert session.tally.flows >= len(finished)
            total += len(finished)
    assert total > 0


def test_statistics_of_a_clean_end_are_the_fold(tmp_path: Path, origin: AnsweringServer) -> None:
    with Mitmdump(tmp_path) as proxy, DeadPort() as dead:
        for path in ("/status/200", "/status/404", "/status/503", "/status/200"):
            clients.get(proxy, origin, path)
        clients.get(proxy, dead)
        clients.exchange(proxy.port, b"GARBAGE\r\n\r\n")
        assert proxy.stop() == 0
        *records, final = proxy.records()
        assert final["final"]
        tally = Tally()
        for record in records:
            tally.add(record)
        assert plain(read(proxy.log).merged()) == plain(tally)
        assert (tally.flows, tally.totals().events) == (5, 1)
        assert "flowtally: 5 flows, 1 failed (20.0 %), 2 unsuccessful" in proxy.stderr.text
        assert str(proxy.log) in proxy.stderr.text
        assert "flowtally: 5 flows" not in proxy.stdout.text
        warnings = [line for line in proxy.stdout.text.splitlines() if "Err" in line]
        assert any("-3 HTTPError: 404 Client error, Not found: GET " in line for line in warnings)
        assert any(
            "-2 ConnectionErr: connection_refused (server): GET " in line for line in warnings
        )


def test_quiet_is_quiet(tmp_path: Path) -> None:
    command: list[str | Path] = [
        MITMDUMP,
        "-q",
        "-s",
        ADDON,
        "-n",
        "--set",
        f"confdir={tmp_path}/confdir",
    ]
    command += ["--set", f"flowtally_log={tmp_path}/log", "-r", os.devnull]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(read(tmp_path / "log").sessions) == 1


def test_by_default_a_file_per_session_in_the_confdir(tmp_path: Path) -> None:
    command: list[str | Path] = [
        MITMDUMP,
        "-s",
        ADDON,
        "-n",
        "--set",
        f"confdir={tmp_path}",
        "-r",
        os.devnull,
    ]
    for _ in range(2):
        subprocess.run(command, capture_output=True, check=True, timeout=60)
    logs = list((tmp_path / "flowtally").iterdir())
    assert len(logs) == 2
    assert all(log.name.startswith("flowtally-") and log.suffix == ".jsonl" for log in logs)


def test_a_full_disk_does_not_stop_the_proxy(tmp_path: Path) -> None:
    """No file may grow over a size (RLIMIT_FSIZE), which says no as a full disk does."""
    saved = tmp_path / "saved"
    with saved.open("wb") as file:
        writer = io.FlowWriter(file)
        for _ in range(50):
            writer.add(tflow.tflow(resp=True))
    log = tmp_path / "log"
    confdir = f"confdir={tmp_path}/confdir"
    subprocess.run([MITMDUMP, "-n", "-r", os.devnull, "--set", confdir], check=True, timeout=60)
    command = [MITMDUMP, "-s", ADDON, "-n", "--set", confdir, "-r", saved]
    limited = ["bash", "-c", 'ulimit -f 4; exec "$@"', "bash", *map(str, command)]
    limited += ["--set", f"flowtally_log={log}"]
    done = subprocess.run(limited, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.count(f"cannot write {log}") == 1
    *whole, _torn = log.read_bytes().split(b"\n")
    dropped = 50 + 1 - sum(b'"type":"flow"' in line for line in whole)
    assert f"Records that could not be written to the log: {dropped}\n" in done.stderr
    assert "flowtally: 50 flows" in done.stderr
    assert log.stat().st_size <= 4096


def test_a_folder_that_goes_and_comes_back(tmp_path: Path, origin: AnsweringServer) -> None:
    folder = tmp_path / "logs"
    with Mitmdump(folder, confdir=tmp_path / "confdir") as proxy:
        clients.get(proxy, origin, "/status/200")
        shutil.rmtree(folder)
        time.sleep(0.3)  # flowtally looks every 0.2 s
        for _ in range(3):
            assert b"204" in clients.get(proxy, origin, "/status/204")
        folder.mkdir()
        time.sleep(0.3)
        clients.get(proxy, origin, "/status/201")
        proxy.stop()
        assert proxy.output.count("cannot write") == 1
        records = [json.loads(line) for line in proxy.log.read_text("utf-8").splitlines()]
    kinds = [record["type"] for record in records]
    assert kinds == ["session_start", "gap", "flow", "stats"]
    # The record that went with the folder, and the three since.
    assert records[1]["dropped"] == 4
    assert records[2]["status"] == 201
    found = read(proxy.log)
    tally = found.merged()
    assert (tally.flows, tally.dropped, found.missing) == (5, 4, 0)
    assert records[3]["final"]


@pytest.mark.parametrize("how", ["moved", "copied and cut"])
def test_a_log_that_is_rotated_under_a_running_proxy(
    tmp_path: Path, origin: AnsweringServer, how: str
) -> None:
    with Mitmdump(tmp_path / "logs", confdir=tmp_path / "confdir") as proxy:
        old = proxy.log.with_suffix(".1")
        clients.get(proxy, origin, "/status/201")
        if how == "moved":
            proxy.log.rename(old)
        else:
            shutil.copy(proxy.log, old)
            os.truncate(proxy.log, 0)
        time.sleep(0.3)  # flowtally looks every 0.2 s
        clients.get(proxy, origin, "/status/202")
        assert b'"status":202' in proxy.log.read_bytes()
        page = clients.get(proxy, Destination("flowtally.test", 80), "/session.jsonl")
        assert b'"status":202' in page
        proxy.stop()
        assert f"Session log: {proxy.log}" in proxy.stderr.text
        assert "flowtally cannot" not in proxy.output
    found = logs.read([("new", proxy.log), ("old", old)])
    (session,) = found.sessions.values()
    assert (found.unreadable, found.missing, session.final) == (0, 0, True)
    assert sorted(codes(session.tally)) == ["201", "202"]
    # The old one says nothing but what it holds; the new one is complete by its final statistics.
    assert codes(read(old).merged()) == ["201"]
    assert read(proxy.log).merged().flows == 2


def test_a_log_whose_folder_is_gone_is_not_named_at_the_end(
    tmp_path: Path, origin: AnsweringServer
) -> None:
    with Mitmdump(tmp_path / "logs", confdir=tmp_path / "confdir") as proxy:
        clients.get(proxy, origin, "/status/201")
        shutil.rmtree(proxy.log.parent)
        proxy.stop()
    assert f"No session log: {proxy.log} could not be written, or was removed" in proxy.stderr.text
    assert "\nSession log: " not in proxy.stderr.text


def test_two_proxies_on_one_file(tmp_path: Path, origin: AnsweringServer) -> None:
    with (
        Mitmdump(tmp_path / "shared", confdir=tmp_path / "confdir") as first,
        Mitmdump(tmp_path / "shared", confdir=tmp_path / "confdir") as second,
    ):
        threads = [
            threading.Thread(
                target=lambda proxy=proxy: [
                    clients.get(proxy, origin, f"/status/200?{i}") for i in range(30)
                ]
            )
            for proxy in (first, second)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        first.stop()
        second.stop()
        found = read(first.log)
    assert (found.unreadable, found.missing) == (0, 0)
    assert [session.tally.flows for session in found.sessions.values()] == [30, 30]
    assert all(session.final for session in found.sessions.values())


def test_a_script_reload_is_a_new_session(tmp_path: Path, origin: AnsweringServer) -> None:
    script = tmp_path / "addon" / "main.py"
    script.parent.mkdir()
    (script.parent / "flowtally").symlink_to(ADDON.parent / "flowtally")
    shutil.copy(ADDON, script)
    with Mitmdump(tmp_path / "run", confdir=tmp_path / "confdir", addon=script) as proxy:
        clients.get(proxy, origin, "/status/200")
        os.utime(script, (time.time() + 5, time.time() + 5))
        proxy.wait_for(lambda records: sum(r["type"] == "session_start" for r in records) == 2)
        clients.get(proxy, origin, "/status/404")
        proxy.stop()
    first, second = read(proxy.log).sessions.values()
    assert first.final
    assert second.final
    assert (first.tally.flows, second.tally.flows) == (1, 1)
    assert codes(second.tally) == ["404"]


def test_the_log_changes_while_running(tmp_path: Path, origin: AnsweringServer) -> None:
    switch = tmp_path / "switch.py"
    switch.write_text(
        "from mitmproxy import ctx\n"
        "def request(flow):\n"
        "    if 'switch' in flow.request.path:\n"
        f"        ctx.options.flowtally_log = {str(tmp_path / 'second.jsonl')!r}\n",
        "utf-8",
    )
    with Mitmdump(tmp_path / "run", confdir=tmp_path / "confdir", scripts=[switch]) as proxy:
        clients.get(proxy, origin, "/status/200")
        clients.get(proxy, origin, "/status/201?switch")
        clients.get(proxy, origin, "/status/202")
        proxy.stop()
        (first,) = read(proxy.log).sessions.values()
        (second,) = read(tmp_path / "second.jsonl").sessions.values()
    assert first.final
    assert second.final
    # The request that switches is open when the first session ends, and ends in the second.
    assert (codes(first.tally), first.tally.sum("flows", "unfinished")) == (["200"], 1)
    assert codes(second.tally) == ["201", "202"]


def test_a_saved_file_gives_the_same_figures(tmp_path: Path, origin: AnsweringServer) -> None:
    saved = tmp_path / "flows"
    with (
        Mitmdump(tmp_path / "live", confdir=tmp_path / "c", arguments=["-w", str(saved)]) as live,
        DeadPort() as dead,
    ):
        for path in ("/status/200", "/status/404", "/status/500", "/hop/0"):
            clients.get(live, origin, path)
        clients.get(live, dead)
        live.stop()
        expected = read(live.log).merged()
    with Mitmdump(
        tmp_path / "again",
        confdir=tmp_path / "c",
        arguments=["-n", "-r", str(saved)],
        listens=False,
    ) as again:
        assert again.wait() == 0
        assert plain(read(again.log).merged()) == plain(expected)
    assert expected.flows == 5


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("flowtally_timeout=soon", "flowtally_timeout='soon': allowed is a number of seconds"),
        ("flowtally_max_redirects=many", "flowtally_max_redirects='many': allowed is a whole"),
        ("flowtally_max_redirects=-1", "flowtally_max_redirects='-1': allowed is a whole number"),
        ("flowtally_mark=perhaps", "flowtally_mark='perhaps': allowed are true and false"),
        ("flowtally_timeout", "flowtally_timeout='': allowed is a number of seconds"),
        ("flowtally_urls=none", "flowtally_urls='none': allowed are full, redacted, origin"),
        ("flowtally_filter=~nope", "flowtally_filter='~nope': "),
        ("flowtally_catalog={codes}", "codes.toml, line 2: 'x' is no status code"),
        ("flowtally_timout=5", "flowtally_timout: no such option; flowtally has flowtally_log,"),
        ("flowtally_log={codes}", "that file exists and is no flowtally log"),
        ("flowtally_log={codes}/x", "codes.toml is no folder"),
        ("flowtally_log=/dev/stdout", "that is no regular file"),
    ],
)
def test_a_bad_value_keeps_mitmdump_from_starting(tmp_path: Path, option: str, says: str) -> None:
    codes = tmp_path / "codes.toml"
    codes.write_text('[status]\nx = "y"\n', "utf-8")
    command: list[str | Path] = [
        MITMDUMP,
        "-s",
        ADDON,
        "-p",
        "0",
        "--set",
        f"confdir={tmp_path}/confdir",
    ]
    command += ["--listen-host", "127.0.0.1", "--set", option.format(codes=codes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    # Nothing half-done stays behind.
    assert codes.read_text("utf-8") == '[status]\nx = "y"\n'
    assert not (tmp_path / "confdir" / "flowtally").exists()


def test_a_bad_value_in_the_configuration_file(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "flowtally_max_redirects: lots\nflowtally_timeout: 5\n", "utf-8"
    )
    command: list[str | Path] = [MITMDUMP, "-s", ADDON, "-p", "0"]
    command += ["--set", f"confdir={tmp_path}"]
    command += ["--listen-host", "127.0.0.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "flowtally_max_redirects='lots': allowed is a whole number" in done.stdout
    assert 'flowtally_timeout=5: allowed is a text; write it in quotes: "5"' in done.stdout


def test_the_addon_needs_nothing_but_mitmproxy() -> None:
    """All that the addon imports comes with the standard library or with mitmproxy itself."""
    code = (
        "import sys; before = set(sys.modules)\n"
        f"sys.path.insert(0, {str(ADDON.parent)!r})\n"
        "import mitmproxy.tools.main, mitmproxy.tools.dump, mitmproxy.flowfilter\n"
        "before |= set(sys.modules)\n"
        "import flowtally.addon\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names) - {'flowtally', 'mitmproxy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
