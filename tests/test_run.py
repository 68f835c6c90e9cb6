"""`flowtally run`: real commands through a real proxy, and what is left of them: nothing."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import closing
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest
from flowtally import settings
from flowtally.budgets import Budget
from flowtally.budgets import Result
from flowtally.launch import aftermath
from flowtally.launch import child
from flowtally.launch import command
from flowtally.launch import proxy
from flowtally.launch import signals
from lab.cli import answered
from lab.cli import cancelled
from lab.cli import failed
from lab.cli import tally
from lab.servers import Answer
from lab.servers import AnsweringServer
from lab.servers import DeadPort
from lab.servers import Request
from lab.servers import status_answer
from lab.streams import EVENT
from lab.streams import DrippingServer

TIMEOUT = 60
GET = """
import sys, urllib.error, urllib.request
for url in sys.argv[1:]:
    try:
        urllib.request.urlopen(url, timeout=20).read()
    except urllib.error.URLError as error:
        print(error)
"""
"""Fetches URLs."""
NOTE = """
import os, signal, sys
def note(number, frame):
    with open(sys.argv[1], "a") as file:
        print(signal.Signals(number).name, file=file)
    if number == signal.SIGTERM:
        sys.exit(7)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, note)
with open(sys.argv[1], "a") as file:
    print("ready", file=file)
while True:
    signal.pause()
"""
"""Notes the signals that it gets, and ends with status 7 after SIGTERM."""

Environment = dict[str, str]


class Place:
    """Where flowtally runs: what it leaves there can be seen."""

    def __init__(self, folder: Path, confdir: Path) -> None:
        self.folder = folder
        self.log = folder / "log.jsonl"
        self.notes = folder / "notes"
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        (folder / "home").mkdir()
        self.confdir = confdir
        hidden = ("GITHUB_STEP_SUMMARY", "NO_COLOR")
        self.environment: Environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if name not in hidden and not name.lower().endswith("_proxy")
            },
            "TMPDIR": str(self.temporary),
            "HOME": str(folder / "home"),
            "COLUMNS": "100",
        }
        self._processes: list[subprocess.Popen[str]] = []

    def command(self, *arguments: str | Path) -> list[str]:
        options = ["--set", f"confdir={self.confdir}", "--log", str(self.log)]
        own = [sys.executable, "-m", "flowtally", "run", *options]
        return [*own, *map(str, arguments)]

    def run(
        self, *arguments: str | Path, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            timeout=TIMEOUT,
            env={**self.environment, **environment},
            cwd=self.folder,
        )

    def start(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.command(*arguments),
            **{
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "encoding": "utf-8",
                "env": self.environment,
                "cwd": self.folder,
                **options,
            },
        )
        self._processes.append(process)
        return process

    def noting(self) -> list[str | Path]:
        """A command that notes its signals."""
        return ["--", sys.executable, "-c", NOTE, self.notes]

    def noted(self, *lines: str) -> None:
        """Wait until the command noted these."""
        wanted = "".join(f"{line}\n" for line in lines)
        until(lambda: self.notes.exists() and self.notes.read_text() == wanted)

    def proxy(self) -> psutil.Process:
        """The process of the proxy."""
        (found,) = self._proxies()
        return found

    def _proxies(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if any(str(self.temporary) in word for word in process.cmdline()):
                    found.append(process)
        return found

    def is_clean(self) -> bool:
        return not list(self.temporary.iterdir()) and not self._proxies()

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                # The command too: it has our pipes open.
                for one in psutil.Process(process.pid).children(recursive=True):
                    with suppress(psutil.Error):
                        one.kill()
                process.kill()
            process.communicate()

    def flows(self) -> list[dict[str, Any]]:
        lines = self.log.read_bytes().splitlines()
        return [record for line in lines if (record := json.loads(line))["type"] == "flow"]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT / 2
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def place(tmp_path: Path, confdir: Path) -> Iterator[Place]:
    place = Place(tmp_path, confdir)
    with closing(place):
        yield place
    until(place.is_clean)


@pytest.fixture(scope="module")
def server() -> Iterator[AnsweringServer]:
    """Answers with the status that the path names."""

    def answer(request: Request) -> Answer:
        return status_answer(request.path.strip("/"))

    with AnsweringServer(answer) as server:
        yield server


def get(*urls: str) -> list[str]:
    """A command that fetches these."""
    return ["--", sys.executable, "-c", GET, *urls]


# --- exit statuses ---


@pytest.mark.parametrize(
    ("options", "script", "status"),
    [
        ([], "exit 0", 0),
        ([], "exit 3", 3),
        ([], "kill -TERM $$", 128 + signal.SIGTERM),
        ([], "kill -KILL $$", 128 + signal.SIGKILL),
        (["--min", "flows=1"], "exit 0", 1),
        (["--min", "flows=1"], "exit 3", 3),
        (["--max", "problems=0"], "exit 0", 0),
    ],
)
def test_the_exit_status(place: Place, options: list[str], script: str, status: int) -> None:
    done = place.run(*options, "--", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (status, "")


@pytest.mark.parametrize(
    ("of_command", "interrupted", "told", "status"),
    [
        (0, False, 0, 0),
        (0, False, 1, 1),
        (0, False, 2, 2),
        (3, False, 0, 3),
        (3, False, 2, 3),
        (0, True, 2, 130),
        (3, True, 0, 130),
    ],
)
def test_whose_exit_status_wins(of_command: int, interrupted: bool, told: int, status: int) -> None:
    assert command.exit_status(of_command, interrupted, told) == status


def result(bound: Any, holds: bool) -> Result:
    return Result(Budget("flows", bound, 1), 0, holds)


@pytest.mark.parametrize(
    ("results", "whole", "written", "status"),
    [
        ([], True, True, 0),
        ([], False, True, 2),
        ([], True, False, 2),
        ([result("max", True)], True, True, 0),
        ([result("max", False)], True, True, 1),
        ([result("min", False)], True, True, 1),
        # What is missing cannot mend what is too much; it may be what is too little.
        ([result("max", False)], False, True, 1),
        ([result("min", False)], False, True, 2),
        ([result("min", False), result("max", False)], False, True, 1),
        ([result("max", True)], False, True, 2),
        ([result("max", False)], True, False, 2),
    ],
)
def test_the_exit_status_of_a_command_that_succeeded(
    results: list[Result], whole: bool, written: bool, status: int
) -> None:
    assert aftermath.status(results, whole=whole, written=written) == status


# --- what is said ---


@pytest.mark.parametrize(
    ("records", "unsuccessful", "words"),
    [
        ([answered()], True, []),
        ([answered(404)], True, []),
        ([failed()], False, ["answered 502 in its place"]),
        (
            [failed("tls_certificate_error")],
            False,
            ["--trust FILE, or --insecure-upstream", "answered 502 in its place"],
        ),
        ([cancelled()], True, ["--set flowtally_timeout=1"]),
        # A browser leaves requests all the time.
        ([cancelled()], False, []),
        ([cancelled(), answered(404)], True, []),
    ],
    ids=str,
)
def test_what_a_person_would_wonder_about(
    records: list[Any], unsuccessful: bool, words: list[str]
) -> None:
    hints = aftermath.hints_on(tally(*records), unsuccessful)
    assert len(hints) == len(words)
    assert all(word in hint for word, hint in zip(words, hints, strict=True))


def test_what_asyncio_says_of_open_connections_is_no_word_of_mitmdumps(tmp_path: Path) -> None:
    said = (
        "[12:00:00.000] before\n"
        "Exception in callback StreamReaderProtocol.connection_made.<locals>.callback(<Task>)\n"
        'Traceback (most recent call last):\n  File "x", line 1, in y\n'
        "asyncio.exceptions.CancelledError\n"
        "[12:00:00.001] behind\n"
    )
    running = proxy.Proxy(tmp_path)
    (running.folder / proxy.OUTPUT).write_text(said)
    assert running.last_words() == ["[12:00:00.000] before", "[12:00:00.001] behind"]
    running.close()


def test_what_came_through_is_told_on_standard_error(place: Place, server: AnsweringServer) -> None:
    done = place.run(*get(f"{server.url}/200", f"{server.url}/404"))
    assert (done.returncode, done.stdout) == (0, "HTTP Error 404: Whatever\n")
    lines = done.stderr.splitlines()
    assert lines[0] == ""
    assert lines[1].startswith("flowtally: 2 flows, 1 unsuccessful")
    assert f"  1  -3 HTTPError: 404 Not found  127.0.0.1:{server.port}" in lines
    assert lines[-1] == f"Session log: {place.log}"


READ_ONE = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).readline())"


@pytest.mark.parametrize("media_type", ["text/event-stream", "text/event-stream; charset=utf-8"])
def test_events_come_while_their_stream_goes_on(place: Place, media_type: str) -> None:
    with DrippingServer(media_type, 1) as server:
        done = place.run("--", sys.executable, "-c", READ_ONE, f"http://127.0.0.1:{server.port}/")
    assert (done.returncode, done.stdout) == (0, f"{EVENT.splitlines(keepends=True)[0]!r}\n")
    (record,) = place.flows()
    assert (record["outcome"], record.get("reason")) == ("cancelled", None)


def test_children_of_the_command_go_through_too(place: Place, server: AnsweringServer) -> None:
    _, *fetch = get(f"{server.url}/200")
    done = place.run("--", "sh", "-c", '"$@" & wait', "sh", *fetch)
    assert done.returncode == 0, done.stderr
    assert [flow["url"] for flow in place.flows()] == [f"{server.url}/200"]


def test_nothing_came_through(place: Place) -> None:
    done = place.run("--", "sh", "-c", "exit 3")
    assert done.returncode == 3
    said = done.stderr.splitlines()
    assert said[:2] == ["", "flowtally: nothing came through the proxy"]
    assert said[2].startswith("  ")
    assert said[-1] == f"Session log: {place.log}"
    assert "No problems" not in done.stderr


def test_standard_streams_are_the_commands(place: Place) -> None:
    done = place.run("--", "sh", "-c", "cat; echo mine >&2", stdin="given\n" * 200_000)
    assert done.stdout == "given\n" * 200_000
    assert done.stderr.startswith("mine\n\nflowtally: ")


def test_the_command_has_the_terminal(place: Place) -> None:
    with on_terminal(place, "--", "sh", "-c", "test -t 0 && test -t 1 && test -t 2") as (run, _):
        assert run.wait(TIMEOUT) == 0


def test_options_behind_the_commands_name_are_the_commands(place: Place) -> None:
    done = place.run("echo", "--max", "--html")
    assert done.stdout == "--max --html\n"


def test_an_existing_log_is_appended_to_and_only_this_session_counts(
    place: Place, server: AnsweringServer
) -> None:
    for _ in range(2):
        done = place.run("--max", "flows=1", *get(f"{server.url}/200"))
        assert done.returncode == 0, done.stderr
        assert "flowtally: 1 flow\n" in done.stderr
    assert len(place.flows()) == 2


def test_what_mitmdump_had_to_say_is_shown(place: Place, server: AnsweringServer) -> None:
    script = place.folder / "script.py"
    script.write_text("def response(flow):\n    raise ValueError('of the script')\n")
    done = place.run("--set", f"scripts={script}", *get(f"{server.url}/200"))
    assert done.returncode == 0
    said = done.stderr.partition("\nflowtally: 1 flow")[0]
    assert said.startswith("\nmitmdump said:\n  ")
    assert "ValueError: of the script" in said


# --- budgets and files ---


def test_budgets(place: Place, server: AnsweringServer) -> None:
    done = place.run("--max", "Server error=0", "--min", "flows=1", *get(f"{server.url}/503"))
    assert done.returncode == 1
    judged = done.stderr.partition(f"Session log: {place.log}\n\n")[2]
    exceeded, incident, example, holds = judged.splitlines()[:4]
    assert exceeded == "EXCEEDED  Server error  at most 0   is 1"
    assert incident.startswith("   1  -3 HTTPError: 503 Service unavailable  127.0.0.1:")
    assert example == f"      GET {server.url}/503"
    assert holds == "ok        flows         at least 1  is 1"


def test_reports_are_written(place: Place, server: AnsweringServer) -> None:
    files = [place.folder / name for name in ("tests.xml", "page.html", "report.md")]
    xml, page, markdown = files
    outputs: list[str | Path] = ["--junit", xml, "--html", page, "--markdown", markdown]
    for _ in range(2):  # its own may be overwritten
        done = place.run(*outputs, "--max", "404=0", *get(f"{server.url}/404"))
        assert done.returncode == 1, done.stderr
    (case,) = ElementTree.parse(xml).iter("testcase")
    assert case.get("name") == "404 at most 0"
    assert case.find("failure") is not None
    assert "404" in page.read_text("utf-8")
    assert 'id="flows-data"' in page.read_text("utf-8"), "the single flows"
    assert "# flowtally: 1 flow, 1 unsuccessful\n" in markdown.read_text("utf-8")


def test_a_file_that_cannot_be_written_at_the_end(place: Place) -> None:
    page = place.folder / "page.html"
    for script, status in (("mkdir page.html", 2), ("exit 3", 3)):
        done = place.run("--html", page, "--", "sh", "-c", f"rm -rf page.html; {script}")
        assert done.returncode == status
        if status == 2:
            assert done.stderr.splitlines()[-1] == (
                f"flowtally: {page}: is a folder; name a file in it"
            )
            page.rmdir()


def test_a_ci_shows_problems(place: Place, server: AnsweringServer) -> None:
    file = place.folder / "summary.md"
    file.write_text("mine\n")
    for status in ("200", "404"):
        done = place.run(*get(f"{server.url}/{status}"), GITHUB_STEP_SUMMARY=str(file))
        assert done.returncode == 0, done.stderr
        if status == "200":
            assert file.read_text() == "mine\n"
    text = file.read_text("utf-8")
    assert text.startswith("mine\n\n# flowtally: 1 flow, 1 unsuccessful\n")
    assert "1. `404 Not found -3` at" in text


def test_a_ci_shows_budgets_that_do_not_hold(place: Place) -> None:
    file = place.folder / "summary.md"
    done = place.run("--min", "flows=1", "--", "true", GITHUB_STEP_SUMMARY=str(file))
    assert done.returncode == 1
    assert "- `flows: at least 1`, is 0\n" in file.read_text("utf-8")


def test_a_summary_that_cannot_be_written_is_no_failure(
    place: Place, server: AnsweringServer
) -> None:
    done = place.run(*get(f"{server.url}/404"), GITHUB_STEP_SUMMARY=str(place.folder))
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == (
        f"flowtally: GITHUB_STEP_SUMMARY={place.folder}: cannot be written: Is a directory"
    )


# --- signals ---


class on_terminal:  # noqa: N801  # as a function
    """A run on a terminal of its own; gives the process and the terminal's other end."""

    def __init__(self, place: Place, *arguments: str | Path) -> None:
        self._ours, theirs = pty.openpty()
        self._run = place.start(
            *arguments,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)

    def __enter__(self) -> tuple[subprocess.Popen[str], int]:
        return self._run, self._ours

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            os.close(self._ours)


def test_ctrl_c_of_a_terminal_reaches_the_command_once(place: Place) -> None:
    with on_terminal(place, *place.noting()) as (run, terminal):
        place.noted("ready")
        # Else the terminal's and one that was passed on might arrive as one.
        run.send_signal(signal.SIGSTOP)
        os.write(terminal, b"\x03")
        place.noted("ready", "SIGINT")
        run.send_signal(signal.SIGCONT)
        run.terminate()  # passed on behind all that was passed on before
        place.noted("ready", "SIGINT", "SIGTERM")
        assert run.wait(TIMEOUT) == 130
        shown = b""
        with suppress(OSError):  # the end of a terminal that nobody has open
            while chunk := os.read(terminal, 65536):
                shown += chunk
    assert shown.decode().splitlines()[-1] == f"Session log: {place.log}"


def test_an_interrupt_of_flowtally_alone_is_passed_on(place: Place) -> None:
    run = place.start(*place.noting(), start_new_session=True)
    place.noted("ready")
    run.send_signal(signal.SIGINT)
    place.noted("ready", "SIGINT")
    run.terminate()
    assert run.wait(TIMEOUT) == 130
    place.noted("ready", "SIGINT", "SIGTERM")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_are_passed_on(place: Place, number: signal.Signals) -> None:
    run = place.start("--", "sleep", "60")
    until(lambda: any(p.name() == "sleep" for p in psutil.Process(run.pid).children()))
    run.send_signal(number)
    _, said = run.communicate(timeout=TIMEOUT)
    assert run.returncode == 128 + number
    assert said.splitlines()[-1] == f"Session log: {place.log}"


def test_what_the_command_makes_of_a_signal_counts(place: Place) -> None:
    run = place.start(*place.noting())
    place.noted("ready")
    run.terminate()
    assert run.wait(TIMEOUT) == 7


def test_an_interrupt_before_the_command(place: Place) -> None:
    # The proxy waits for this script.
    script, go = place.folder / "script.py", place.folder / "go"
    script.write_text(
        f"open({str(place.notes)!r}, 'w').write('ready\\n')\n"
        f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.02)"
    )
    run = place.start("--set", f"scripts={script}", "--", "touch", "ran")
    place.noted("ready")
    run.send_signal(signal.SIGINT)
    go.touch()
    assert run.wait(TIMEOUT) == 130
    assert not (place.folder / "ran").exists()


def test_signals_that_are_ignored_stay_so(place: Place) -> None:
    run = place.start(
        "--", "sleep", "60", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    until(lambda: any(p.name() == "sleep" for p in psutil.Process(run.pid).children()))
    run.send_signal(signal.SIGHUP)
    run.send_signal(signal.SIGTERM)
    assert run.wait(TIMEOUT) == 128 + signal.SIGTERM


def test_nothing_is_left_of_flowtally_when_it_is_killed(place: Place) -> None:
    run = place.start(*place.noting())
    place.noted("ready")
    (command,) = (p for p in psutil.Process(run.pid).children() if p != place.proxy())
    try:
        run.kill()
        run.wait(TIMEOUT)
        until(place.is_clean)
    finally:
        command.kill()


def test_the_command_is_killed(place: Place) -> None:
    run = place.start(*place.noting())
    place.noted("ready")
    (command,) = (p for p in psutil.Process(run.pid).children() if p != place.proxy())
    command.kill()
    assert run.wait(TIMEOUT) == 128 + signal.SIGKILL


def test_a_proxy_that_hangs_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "PATIENCE", 0.1)
    running = proxy.Proxy(tmp_path)
    running.start(["--set", f"confdir={tmp_path}"])
    assert running.ready.port
    running.process.send_signal(signal.SIGSTOP)
    assert running.stop() == -signal.SIGKILL
    running.close()
    assert not running.folder.exists()


@pytest.mark.parametrize(("script", "status"), [("exit 0", 2), ("exit 3", 3)])
def test_the_proxy_is_killed(
    place: Place, server: AnsweringServer, script: str, status: int
) -> None:
    _, *fetch = get(f"{server.url}/404")
    wait = f'"$@"; echo ready >"{place.notes}"; read line; {script}'
    run = place.start("--", "sh", "-c", wait, "sh", *fetch, stdin=subprocess.PIPE)
    place.noted("ready")
    place.proxy().kill()
    _, said = run.communicate("\n", timeout=TIMEOUT)
    assert run.returncode == status
    assert "flowtally: the proxy ended before the command: what came later is not counted" in said
    assert "flowtally: 1 flow, 1 unsuccessful" in said


# --- bad input ---


def test_no_command(place: Place) -> None:
    for arguments in ([], ["--"]):
        done = place.run(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            "flowtally: no command is given; "
            "for example: flowtally run -- curl https://example.com/\n"
        )


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--", "no-such-command"], 127, "'no-such-command': there is no such command on PATH"),
        (["--", "./no-such-command"], 127, "'./no-such-command': there is no such command"),
        (["--", "./plain.txt"], 126, "'./plain.txt': is not executable"),
        (["--", "./temporary"], 126, "'./temporary': is a folder, no command"),
        (
            ["--", "./no-interpreter"],
            126,
            "'./no-interpreter': cannot be run: the interpreter that its first line names is not "
            "there",
        ),
        (["--", "./no-format"], 126, "'./no-format': cannot be run: Exec format error"),
        (
            ["--max", "flows=many", "--", "true"],
            2,
            "--max 'flows=many': 'many' is no whole number, 0 or more",
        ),
        (
            ["--html", "nowhere/page.html", "--", "true"],
            2,
            "nowhere/page.html: cannot be written: there is no folder {folder}/nowhere",
        ),
        (
            ["--junit", "plain.txt", "--", "true"],
            2,
            "plain.txt: exists, and flowtally did not write it; --force overwrites it",
        ),
        (
            ["--markdown", "plain.txt", "--", "true"],
            2,
            "plain.txt: exists, and flowtally did not write it; --force overwrites it",
        ),
        (
            ["--set", "flowtally_timeout=-1", "--", "true"],
            2,
            "the proxy cannot start: flowtally_timeout='-1': allowed is a number of seconds above "
            "0, such as 5 or 0.5",
        ),
        (
            ["--set", "flowtally_timeot=1", "--", "true"],
            2,
            "the proxy cannot start: flowtally_timeot: no such option; flowtally has "
            + ", ".join(option.name for option in settings.OPTIONS),
        ),
        (
            ["--set", "nosuchopt=1", "--", "true"],
            2,
            "the proxy cannot start: nosuchopt: no such option; `mitmdump --options` lists them",
        ),
    ],
)
def test_bad_input(place: Place, arguments: list[str], status: int, said: str) -> None:
    (place.folder / "plain.txt").write_text("mine")
    for name, content in (("no-interpreter", "#!/no/such\n"), ("no-format", "\0\0\0\0")):
        (place.folder / name).write_text(content)
        (place.folder / name).chmod(0o755)
    done = place.run(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr == f"flowtally: {said.format(folder=place.folder)}\n"
    assert (place.folder / "plain.txt").read_text() == "mine"


def test_an_option_may_be_a_scripts_and_config_yaml_may_be_for_others(place: Place) -> None:
    script = place.folder / "script.py"
    script.write_text("def load(loader): loader.add_option('mine', int, 0, '')")
    place.confdir = place.folder / "confdir"
    place.confdir.mkdir()
    (place.confdir / "config.yaml").write_text("web_port: 9999\n")
    done = place.run("--set", f"scripts={script}", "--set", "mine=1", "--", "echo", "done")
    assert (done.returncode, done.stdout) == (0, "done\n")
    done = place.run("--set", f"scripts={script}", "--set", "mien=1", "--", "echo", "done")
    assert (done.returncode, done.stdout) == (2, "")
    assert "the proxy cannot start: mien: no such option" in done.stderr


@pytest.mark.parametrize(
    ("confdir", "reason"),
    [("plain.txt", "File exists"), ("/proc/nowhere", "No such file or directory")],
)
def test_a_certificate_folder_that_cannot_be_written(
    place: Place, confdir: str, reason: str
) -> None:
    (place.folder / "plain.txt").touch()
    place.confdir = Path(confdir)
    done = place.run("--", "true")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"flowtally: the proxy cannot start: confdir={confdir!r}: the proxy's certificate cannot "
        f"be kept there: {reason}. Allowed is a folder that can be written to\n"
    )


def test_an_unknown_budget(place: Place) -> None:
    for name in ("nothing", "-99", "1000"):
        done = place.run("--max", f"{name}=0", "--", "true")
        assert (done.returncode, done.stdout) == (2, "")
        first = done.stderr.splitlines()[0]
        assert first == (f"flowtally: --max '{name}=0': there is no budget for '{name}'. There are")
        assert not place.log.exists()


def test_a_port_that_is_taken(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = place.run("--set", f"listen_port={port}", "--", "true")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        f"flowtally: the proxy cannot start: .*127.0.0.1:{port}.*address already in use\n",
        done.stderr,
    )


@pytest.mark.parametrize("name", ["listen_port", "mode"])
def test_a_port_of_ones_own(place: Place, name: str) -> None:
    with DeadPort() as free:
        port = free.port
    value = {"listen_port": str(port), "mode": f"regular@{port}"}[name]
    done = place.run("--set", f"{name}={value}", "--", "sh", "-c", "echo $HTTP_PROXY")
    assert done.stdout == f"http://127.0.0.1:{port}\n", done.stderr


def test_a_log_that_cannot_be_written(place: Place) -> None:
    place.log = Path("/proc/nowhere/log.jsonl")
    done = place.run("--", "true")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "flowtally: /proc/nowhere/log.jsonl: No such file or directory"
    )


# --- pure parts ---


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "it ended without a word"),
        (["Killed"], "Killed"),
        (["usage: mitmdump", "mitmdump: error: no"], "error: no"),
        (["[10:00:00.123] Cannot.", "Error logged during startup, exiting..."], "Cannot."),
        (
            [
                "[10:00:00.123] error in script x.py",
                "Traceback (most recent call last):",
                '  File "x.py", line 1, in <module>',
                "ValueError: no",
                "Error logged during startup, exiting...",
            ],
            "error in script x.py: ValueError: no",
        ),
        (
            [
                "[10:00:00.123] [Errno 98] no: in use",
                "Try something else.",
                "Error logged during startup, exiting...",
            ],
            "no: in use",
        ),
    ],
)
def test_why_mitmdump_did_not_start(words: Sequence[str], reason: str) -> None:
    assert proxy.why(words) == reason


def test_a_command_is_looked_for_on_the_path_of_its_environment(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    assert child.find("tool", {"PATH": str(tmp_path)}) == str(tool)
    with pytest.raises(child.CommandError):
        child.find("tool", {"PATH": "/nowhere"})


def test_the_starter_does_not_load_mitmproxy() -> None:
    loaded = (
        "import sys; import flowtally.cli; import flowtally.launch.aftermath; "
        "sys.exit('mitmproxy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", loaded]).returncode == 0


def test_what_reports_is_not_loaded_before_the_proxy_starts() -> None:
    loaded = "import sys; import flowtally.cli; sys.exit('flowtally.tally' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded]).returncode == 0


def test_runs_that_begin_at_once_share_one_ca(place: Place) -> None:
    place.confdir = place.folder / "confdir"
    runs = [place.start("--", "true") for _ in range(3)]
    assert [run.wait(TIMEOUT) for run in runs] == [0, 0, 0]
    pem = (place.confdir / "mitmproxy-ca.pem").read_text()
    assert (place.confdir / "mitmproxy-ca-cert.pem").read_text() in pem
    assert not list(place.confdir.glob(".flowtally-*"))


# --- signals, without a process ---


def test_a_signal_that_came_before_ends_what_may_be_ended() -> None:
    with signals.Signals() as noted:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        assert noted.came == [signal.SIGHUP, signal.SIGTERM]
        assert not noted.interrupted
        with pytest.raises(signals.EndedError) as ended, noted.may_end():
            pytest.fail("it was ended before")
    assert ended.value.status == 128 + signal.SIGHUP  # the first one


def test_a_second_signal_does_not_keep_things_from_being_ended_in_order() -> None:
    in_order = False

    def work() -> None:
        nonlocal in_order
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            in_order = True

    with signals.Signals() as noted, noted.may_end(), pytest.raises(signals.EndedError):
        work()
    assert in_order


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"])
def test_signals_are_noted_for_a_while_only(name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with signals.Signals() as noted:
        signal.raise_signal(number)
    assert noted.came == [number]
    assert signal.getsignal(number) is before


def test_no_command_is_run_after_a_signal() -> None:
    with child.Foreground() as foreground:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(signals.EndedError):
            foreground.run("/nowhere", ["it"], {})


def test_an_argument_that_no_process_can_have() -> None:
    with child.Foreground() as foreground, pytest.raises(child.CommandError, match="null byte"):
        foreground.run("/bin/true", ["true", "a\0b"], {})
