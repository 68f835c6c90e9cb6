"""Every release of mitmproxy that can be installed, each in an environment of its own.

In each of them that part of the test suite runs that meets mitmproxy: its texts, its internals,
real faults, its front ends, its modes. Tests that failed are run once more, alone, so that a busy
machine is no finding.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from .result import Result

REPOSITORY = Path(__file__).resolve().parents[2]
OLDEST = (11, 0, 2)
"""The first release that flowtally supports."""
INSTALL_SECONDS = 600
TEST_SECONDS = 900

WHOLE_FILES = (
    "test_mitmproxy_texts.py",
    "test_internals.py",
    "test_live_commands.py",
    "test_faults.py",
    "test_faults_of_connections.py",
    "test_silent_failures.py",
    "test_live_overlays.py",
    "test_flow_details.py",
    "test_http3.py",
)
SMOKE = (
    "no fault, http",
    "no fault, https",
    "no fault, http/2",
    "refused port, http",
    "unknown host, https",
    "silence after the request, client leaves late",
    "garbage line",
    "short body",
    "expired certificate",
    "client does not trust the proxy",
    "stream reset before the head",
    "killed by another addon",
    "reverse mode",
    "upstream mode, dead proxy, https",
    "SOCKS",
    "WebSocket, normal close",
    "raw TCP in a tunnel",
    "DNS NXDOMAIN",
)
"""Rows of tests/test_faults.py that a quick run tries."""

# Runs in each environment, with the tests on its path.
TEXTS = """
import json
from flowtally import vocabulary
from test_mitmproxy_texts import KNOWN_TEXTS, PACKAGES, ROOT, installed_texts
from pathlib import Path

installed = installed_texts()
folders = [ROOT, *(Path(package.__file__).parent for package in PACKAGES.values())]
sources = [path.read_text("utf-8") for folder in folders for path in folder.rglob("*.py")]

def said(words):
    for text in installed:
        fixed = text.partition("{}")[0]
        if text.startswith(words) or (fixed and fixed != text and words.startswith(fixed)):
            return True
    return any(words in source for source in sources)

rows = [row for name in ("EXCHANGE", "HANDSHAKE", "LOG", "NOTE")
        for row in getattr(vocabulary, f"{name}_MESSAGES") if row.match != "like"]
print(json.dumps({
    "installed": len(installed),
    "new": sorted(set(installed) - KNOWN_TEXTS),
    "gone": sorted(KNOWN_TEXTS - set(installed)),
    "unsaid": sorted({row.text for row in rows if not said(row.text)}),
}))
"""


class Pair(NamedTuple):
    """A release of mitmproxy on a Python."""

    python: Path
    version: str
    """Of Python, such as `3.13`."""
    release: str
    whole: bool
    """Whether whole files of tests run, or only a few faults."""

    def __str__(self) -> str:
        return f"{self.release} on Python {self.version}"


def number(release: str) -> tuple[int, ...]:
    """`12.3.1` → (12, 3, 1)."""
    return tuple(map(int, release.split(".")))


def interpreters() -> dict[str, Path]:
    """Version → interpreter, of the Pythons from 3.11 on that are here: on PATH, or pyenv's."""
    found: dict[str, Path] = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [*pyenv.glob("versions/3.*/bin/python3")]
    names = (shutil.which(f"python3.{minor}") for minor in range(11, 20))
    candidates += [Path(name) for name in names if name]
    for path in candidates:
        said = subprocess.run(
            [path, "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
        )
        version = said.stdout.strip()
        if said.returncode == 0 and number(version) >= (3, 11):
            found.setdefault(version, path)
    return dict(sorted(found.items(), key=lambda item: number(item[0])))


def releases(python: Path) -> list[str]:
    """The releases that pip finds for this Python, oldest first, from `OLDEST` on."""
    said = subprocess.run(
        [python, "-m", "pip", "index", "versions", "mitmproxy"],
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
    )
    found = re.search(r"Available versions: (.*)", said.stdout)
    versions = re.findall(r"[\d.]+", found.group(1)) if found else []
    return sorted((v for v in versions if number(v) >= OLDEST), key=number)


def pairs(quick: bool) -> list[Pair]:
    """What is tried: all, whole files on the newest Python of a release, and on the oldest of all;
    quick: the oldest release on the oldest Python, and on the newest Python the last one of each
    major version."""
    found = [
        Pair(python, version, release, False)
        for version, python in interpreters().items()
        for release in releases(python)
    ]
    if not found:
        return []
    newest = {pair.release: pair for pair in found}
    if quick:
        last = {number(release)[0]: pair for release, pair in newest.items()}
        return [found[0], *last.values()]
    whole = (found[0], *newest.values())
    return [pair._replace(whole=pair in whole) for pair in found]


def requirements() -> list[str]:
    """What the tests need beside mitmproxy."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]

    def needs_of(extra: str) -> Iterator[str]:
        for need in extras[extra]:
            # An extra may name others of this package, which no index has.
            if own := re.fullmatch(rf"{project['name']}\[([\w-]+)\]", need):
                yield from needs_of(own[1])
            else:
                yield need

    own = [need for need in project["dependencies"] if not need.startswith("mitmproxy")]
    return [*own, *needs_of("test")]


def install(pair: Pair, folder: Path) -> Path:
    """Makes an environment; returns its interpreter. Raises: subprocess.SubprocessError."""

    def run(*command: str | Path) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_SECONDS)

    run(pair.python, "-m", "venv", folder)
    python = folder / "bin" / "python"
    wanted = [f"mitmproxy=={pair.release}", *requirements()]
    run(python, "-m", "pip", "install", "-q", "--no-compile", *wanted)
    return python


class Tested(NamedTuple):
    passed: int
    skipped: int
    failed: list[str]


def selection(whole: bool) -> list[str]:
    """What pytest is to run."""
    if not whole:
        rows = [f"tests/test_faults.py::test_fault[{row}]" for row in SMOKE]
        return ["tests/test_mitmproxy_texts.py", *rows]
    return [f"tests/{name}" for name in WHOLE_FILES]


def environment() -> dict[str, str]:
    """Of a test run: the addon of this checkout, and a missing tool is a skip."""
    path = f"{REPOSITORY / 'addon'}{os.pathsep}{REPOSITORY / 'tests'}"
    kept = {name: value for name, value in os.environ.items() if name != "CI"}
    return {**kept, "PYTHONPATH": path}


def run_tests(python: Path, folder: Path, tests: Sequence[str]) -> Tested:
    """Runs tests, and those that failed once more."""
    folder.mkdir(exist_ok=True)
    fixed: list[str | Path] = [
        python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:flowtally",
        "-o",
        f"cache_dir={folder}/cache",
    ]
    passed = skipped = 0
    failed: list[str] = []
    for attempt, more in enumerate((["-n", "2", *tests], ["--last-failed", *tests])):
        file = folder / f"{attempt}.xml"
        command = [*fixed, f"--basetemp={folder}/tmp", f"--junitxml={file}", *more]
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=TEST_SECONDS,
        )
        cases = list(cases_of(file)) if file.exists() else []
        failed = [name for name, outcome in cases if outcome == "failed"]
        if not cases:
            failed = [f"no test ran: {(done.stdout + done.stderr)[-400:]}"]
        passed += sum(outcome == "passed" for _, outcome in cases)
        skipped += sum(outcome == "skipped" for _, outcome in cases)
        if not failed:
            break
    return Tested(passed, skipped, failed)


def cases_of(file: Path) -> Iterator[tuple[str, str]]:
    """Name → outcome of the tests in a JUnit file."""
    for case in ElementTree.parse(file).iter("testcase"):
        tags = {child.tag for child in case}
        outcome = "failed" if tags & {"failure", "error"} else "passed"
        name = f"{case.get('classname')}::{case.get('name')}"
        yield name, "skipped" if "skipped" in tags else outcome


def read_texts(python: Path) -> dict[str, list[str]]:
    """What the installed mitmproxy says, beside what flowtally knows."""
    done = subprocess.run(
        [python, "-c", TEXTS],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def try_releases(quick: bool, folder: Path, result: Result) -> None:
    """All of it; each environment is removed when it was tried."""
    unsaid: list[set[str]] = []
    tried = pairs(quick)
    if not tried:
        result.failures.append("pip finds no release of mitmproxy")
    for pair in tried:
        place = folder / f"{pair.release}-{pair.version}"
        try:
            python = install(pair, place)
            texts = read_texts(python)
            tested = run_tests(python, folder / f"tests-{place.name}", selection(pair.whole))
        except subprocess.SubprocessError as error:
            said = getattr(error, "stderr", None) or b""
            result.failures.append(f"mitmproxy {pair}: {error} {said[-400:]!r}")
            continue
        finally:
            shutil.rmtree(place, ignore_errors=True)
        unsaid.append(set(texts["unsaid"]))
        figure = f"{tested.passed} tests passed, {tested.skipped} skipped"
        figure += f"; {texts['installed']} texts, {len(texts['new'])} new"
        figure += f", {len(texts['gone'])} of the known ones are not said"
        result.figures.append((f"mitmproxy {pair}", figure))
        result.failures += [f"mitmproxy {pair}: {name}" for name in tested.failed]
        result.failures += [f"mitmproxy {pair}: unknown text {text!r}" for text in texts["new"]]
    if unsaid:
        nowhere = set.intersection(*unsaid)
        result.figures.append(
            ("Rules of known/messages.csv that no release here reaches", str(len(nowhere)))
        )
        result.figures += [("… nobody says", text) for text in sorted(nowhere)]
