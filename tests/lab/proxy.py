"""A real mitmdump process with the addon loaded, and its session log read back."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO
from typing import Any
from typing import Self

from jsonschema import Draft202012Validator

Record = dict[str, Any]

REPOSITORY = Path(__file__).resolve().parents[2]
ADDON = REPOSITORY / "addon" / "main.py"
SCHEMA = REPOSITORY / "addon" / "flowtally" / "known" / "record.schema.json"
# Beside the interpreter that runs the tests, so that each environment tests its own mitmproxy.
MITMDUMP = Path(sys.executable).with_name("mitmdump")

START_TIMEOUT = 30.0
WAIT_TIMEOUT = 15.0
_POLL = 0.01
_START_ATTEMPTS = 5

_LISTENING = re.compile(r"listening at \S+?:(\d+)")
_PORT_TAKEN = re.compile(r"address already in use|Address in use|Errno 98", re.IGNORECASE)
WRAPPED = "return original("
"""How a method of the addon calls the one of mitmproxy's that it stands for."""
_ADDON_FAILURE = re.compile(r"addon error|error in script|flowtally: defect", re.IGNORECASE)
# "client connect" and "client disconnect" frame each connection in mitmproxy's own log.
_CONNECT = re.compile(r" client connect$", re.MULTILINE)
_DISCONNECT = re.compile(r" client disconnect$", re.MULTILINE)


def free_port() -> int:
    """A port that is free now for TCP and UDP; the caller must be ready to lose the race for it."""
    with ExitStack() as sockets:
        for _ in range(20):
            tcp = sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            udp = sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            tcp.bind(("127.0.0.1", 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free for both TCP and UDP")


def _record_validator() -> Draft202012Validator | None:
    if not SCHEMA.exists():
        return None
    return Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


class Output:
    """What the process wrote on one stream, collected by a thread so that the pipe never fills."""

    def __init__(self, stream: IO[str]) -> None:
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._collect, args=(stream,), daemon=True)
        self._thread.start()

    def _collect(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._lines.append(line)

    @property
    def text(self) -> str:
        return "".join(self._lines)

    def join(self) -> None:
        self._thread.join(timeout=WAIT_TIMEOUT)


class Mitmdump:
    """Runs mitmdump with the addon; as a context manager it also checks the output on exit.

    `modes` are mitmproxy mode specifications without a listen address. Each one gets a port of its
    own, in `ports`; `port` is the first one's. Without a mode (reading a file) nothing listens.
    """

    def __init__(
        self,
        directory: Path,
        *,
        modes: Sequence[str] = ("regular",),
        options: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        scripts: Sequence[Path] = (),
        addon: Path = ADDON,
        confdir: Path | None = None,
        listens: bool = True,
        files: int | None = None,
    ) -> None:
        self.directory = directory
        self.confdir = confdir or directory / "confdir"
        self.log = directory / "session.jsonl"
        self.modes = tuple(modes) if listens else ()
        self.ports: dict[str, int] = {}
        self._options = {"flow_detail": "0", **(options or {})}
        self._arguments = tuple(arguments)
        self._scripts = (*scripts, addon)
        self._files = files
        self._validator: Draft202012Validator | None = None
        self._records: list[Record] = []
        self._read_to = 0
        self._process: subprocess.Popen[str] | None = None
        self.stdout: Output
        self.stderr: Output

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.running:
            self.stop()
        if kind is None:
            self.assert_no_addon_error()

    # -- the process

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        for _ in range(_START_ATTEMPTS):
            self._launch()
            if self._wait_until_listening():
                return
        raise AssertionError(f"no free port in {_START_ATTEMPTS} attempts\n{self.output}")

    def _launch(self) -> None:
        self.ports = {}
        for mode in self.modes:
            port = free_port()
            while port in self.ports.values():  # nobody has taken it yet
                port = free_port()
            self.ports[mode] = port
        command = [str(MITMDUMP), "--set", f"confdir={self.confdir}"]
        for mode, port in self.ports.items():
            command += ["--mode", f"{mode}@127.0.0.1:{port}"]
        for script in self._scripts:
            command += ["-s", str(script)]
        command += ["--set", f"flowtally_log={self.log}"]
        for name, value in self._options.items():
            command += ["--set", f"{name}={value}"]
        command += self._arguments
        environment = {
            name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
        }
        if self._files is not None:
            command = ["sh", "-c", f'ulimit -n {self._files}; exec "$0" "$@"', *command]
        # Unbuffered, because this harness follows the output while the process runs.
        environment["PYTHONUNBUFFERED"] = "1"
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=environment,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.stdout = Output(self._process.stdout)
        self.stderr = Output(self._process.stderr)

    def _wait_until_listening(self) -> bool:
        """False when another process was faster in taking one of the ports."""
        if not self.modes:
            return True
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if {int(p) for p in _LISTENING.findall(self.output)} >= set(self.ports.values()):
                return True
            if not self.running:
                self._collect_exit_code()
                if _PORT_TAKEN.search(self.output):
                    return False
                raise AssertionError(f"mitmdump did not start:\n{self.output}")
            time.sleep(_POLL)
        self.kill()
        raise AssertionError(f"mitmdump did not listen within {START_TIMEOUT} s:\n{self.output}")

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None, "mitmdump was not started"
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> int:
        """Ends mitmdump as Ctrl+C does; returns its exit code."""
        if self.running:
            self.process.send_signal(signal.SIGINT)
        return self.wait()

    def kill(self) -> int:
        """Ends mitmdump without giving it a chance to write anything more."""
        self.process.kill()
        return self._collect_exit_code()

    def wait(self) -> int:
        """Waits until mitmdump ends by itself; returns its exit code."""
        try:
            return self._collect_exit_code()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"mitmdump did not end:\n{self.output}") from None

    def _collect_exit_code(self) -> int:
        code = self.process.wait(timeout=START_TIMEOUT)
        self.stdout.join()
        self.stderr.join()
        return code

    # -- its addresses

    @property
    def port(self) -> int:
        return self.ports[self.modes[0]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def proxies(self) -> dict[str, str]:
        return {"http": self.url, "https": self.url}

    @property
    def ca(self) -> Path:
        """The certificate that a client has to trust."""
        return self.confdir / "mitmproxy-ca-cert.pem"

    # -- its output

    @property
    def output(self) -> str:
        return self.stdout.text + self.stderr.text

    def addon_error(self) -> str:
        """What in mitmproxy's log says that the addon failed; "" where nothing does."""
        output = self.output
        if found := _ADDON_FAILURE.search(output):
            return output[found.start() :].partition("\n")[0]
        folder = self._scripts[-1].parent
        return next((block for block in _tracebacks(output) if is_of(folder, block)), "")

    def assert_no_addon_error(self) -> None:
        assert not self.addon_error(), self.output

    def wait_idle(self, connections: int = 0) -> None:
        """Waits until all TCP connections, and at least `connections`, have come and gone."""
        deadline = time.monotonic() + WAIT_TIMEOUT
        while time.monotonic() < deadline:
            text = self.stdout.text
            ended = len(_DISCONNECT.findall(text))
            if ended >= connections and ended == len(_CONNECT.findall(text)):
                return
            time.sleep(_POLL)
        raise AssertionError(f"connections stayed open:\n{self.output}")

    def wait_output(self, text: str, timeout: float = WAIT_TIMEOUT) -> None:
        """Waits until mitmproxy's own log holds `text`."""
        self.wait_until(lambda: text in self.output, timeout)

    def wait_until(self, holds: Callable[[], bool], timeout: float = WAIT_TIMEOUT) -> None:
        """Waits until `holds()`, which may look at what mitmproxy wrote."""
        deadline = time.monotonic() + timeout
        while not holds():
            assert time.monotonic() < deadline, self.output
            time.sleep(_POLL)

    # -- its session log

    def records(self) -> list[Record]:
        """All complete records so far; each is checked against the schema once."""
        if self.log.exists():
            with self.log.open("rb") as log:
                log.seek(self._read_to)
                data = log.read()
            complete, newline, _ = data.rpartition(b"\n")
            self._read_to += len(complete) + len(newline)
            for line in complete.splitlines():
                record: Record = json.loads(line)
                self._validate(record)
                self._records.append(record)
        return list(self._records)

    def _validate(self, record: Record) -> None:
        self._validator = self._validator or _record_validator()
        if self._validator is not None:
            problems = [error.message for error in self._validator.iter_errors(record)]
            assert not problems, f"record breaks the schema: {problems}\n{record}"

    def flows(self) -> list[Record]:
        return [record for record in self.records() if record["type"] == "flow"]

    def events(self) -> list[Record]:
        return [record for record in self.records() if record["type"] == "event"]

    def outcomes(self) -> list[Record]:
        """Flows and events together, in the order of the log: what a fault may leave behind."""
        return [record for record in self.records() if record["type"] in ("flow", "event")]

    def wait_for(
        self, predicate: Callable[[list[Record]], Any], timeout: float = WAIT_TIMEOUT
    ) -> list[Record]:
        """Polls the log until `predicate(records)` holds; returns the records."""
        deadline = time.monotonic() + timeout
        while True:
            records = self.records()
            if predicate(records):
                return records
            if time.monotonic() >= deadline:
                last = "\n".join(map(str, records[-8:]))
                raise AssertionError(f"the log never showed it:\n{last}\n{self.output}")
            time.sleep(_POLL)


def is_of(folder: Path, traceback: str) -> bool:
    """Whether an exception came out of the addon. Where the addon only calls what it wraps
    (internals.py) and something deeper raises, that is mitmproxy."""
    # By its folder: a checkout, with an environment inside, is often called flowtally, too.
    frames = re.findall(r'File "([^"]*)", line \d+, in .*\n +(.*)', traceback)
    own = [path.startswith(f"{folder}/") for path, _ in frames]
    own_code = [code for (_, code), is_own in zip(frames, own, strict=True) if is_own]
    return own[-1:] == [True] or any(not code.startswith(WRAPPED) for code in own_code)


def _tracebacks(output: str) -> Iterator[str]:
    """Each traceback with its indented frames and the line of the exception."""
    for part in output.split("Traceback (most recent call last)")[1:]:
        frames: list[str] = []
        for line in part.splitlines():
            frames.append(line)
            if line and not line.startswith((" ", ":")) and len(frames) > 1:
                break
        yield "\n".join(frames)
