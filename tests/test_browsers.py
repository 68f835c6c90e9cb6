"""Which browser is started, where to, with which settings, and what must not outlive it: the rules
of `flowtally browse`."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from flowtally.launch import browsers
from flowtally.launch import leftovers
from flowtally.launch import profile
from flowtally.launch.address import AddressError
from flowtally.launch.address import address
from flowtally.launch.browse import browser_environment
from flowtally.launch.browsers import KNOWN
from flowtally.launch.browsers import Browser
from flowtally.launch.browsers import Machine
from flowtally.launch.proxy import LaunchError
from flowtally.launch.proxy import Ready
from lab.tls import Authority

# --- addresses ---


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://shop.example.com/a?b#c", "http://shop.example.com/a?b#c"),
        ("HTTPS://shop.example.com", "HTTPS://shop.example.com"),
        ("shop.example.com", "https://shop.example.com"),
        ("shop.example.com/cart?a=b:c", "https://shop.example.com/cart?a=b:c"),
        ("example.com:443", "https://example.com:443"),
        ("example.com:8443", "http://example.com:8443"),
        ("localhost", "http://localhost"),
        ("localhost:8000", "http://localhost:8000"),
        ("localhost:8000/a", "http://localhost:8000/a"),
        ("app.localhost", "http://app.localhost"),
        ("flowtally.test", "http://flowtally.test"),
        ("shop.test.", "http://shop.test."),
        ("mytest", "http://mytest"),
        ("notlocal.example.com", "https://notlocal.example.com"),
        ("127.0.0.1", "http://127.0.0.1"),
        ("[::1]", "http://[::1]"),
        ("[::1]:8000/x", "http://[::1]:8000/x"),
        (" localhost ", "http://localhost"),
        ("about:blank", "about:blank"),
        ("bücher.example.com", "https://bücher.example.com"),
    ],
)
def test_an_address_is_read_as_a_browser_reads_it(given: str, meant: str) -> None:
    assert address(given) == meant


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("ftp://example.com/", "allowed is a URL with http or https"),
        ("file:///etc/passwd", "allowed is a URL with http or https"),
        ("javascript:alert(1)", "allowed is a URL with http or https"),
        ("data:text/html,x", "allowed is a URL with http or https"),
        ("chrome://settings", "allowed is a URL with http or https"),
        ("about:config", "allowed is a URL with http or https"),
        ("me:secret@example.com", "allowed is a URL with http or https"),
        ("mailto:me@example.com", "allowed is a URL with http or https"),
        ("/etc/passwd", "is a file"),
        ("./index.html", "is a file"),
        ("~/index.html", "is a file"),
        ("here.html", "is a file"),
        ("http://", "is no URL: it has no host"),
        ("http:example.com", "is no URL: it has no host"),
        ("", "is no URL: it has no host"),
        ("http://example.com:99999/", "is no URL: Port out of range"),
        ("http://[::1/", "is no URL: Invalid IPv6 URL"),
        ("two words", "is no URL"),
        ("http://a/\x1b[31m", "is no URL"),
        ("C:\\index.html", "is no URL"),
    ],
)
def test_what_is_no_address_is_refused(
    given: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here.html").touch()
    with pytest.raises(AddressError) as error:
        address(given)
    assert reason in str(error.value)
    assert "\x1b" not in str(error.value)


# --- browsers ---


def program(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(0o755)
    return path


def machine(*folders: Path, system: str = "linux", **environment: str) -> Machine:
    return Machine({"PATH": os.pathsep.join(map(str, folders)), **environment}, system)


def every_command() -> list[tuple[str, str]]:
    return [(row.where, row.name) for row in browsers.rows() if not row.system]


@pytest.mark.parametrize(("command", "name"), every_command())
def test_a_browser_on_path_is_found(command: str, name: str, tmp_path: Path) -> None:
    path = program(tmp_path / command)
    kind: browsers.Kind = "firefox" if name == "firefox" else "chromium"
    for asked in ("", name, name.upper()):
        assert browsers.find(asked, machine(tmp_path)) == Browser(name, kind, path)


@pytest.mark.parametrize("row", [row for row in browsers.rows() if row.system == "win32"])
@pytest.mark.parametrize("variable", browsers.PROGRAM_FOLDERS)
def test_a_browser_is_found_on_windows(row: browsers.Row, variable: str, tmp_path: Path) -> None:
    path = program(tmp_path.joinpath(*row.where.split("\\")))
    found = browsers.find("", Machine({"PATH": "", variable: str(tmp_path)}, "win32"))
    assert found == Browser(row.name, row.kind, path)


@pytest.mark.parametrize("row", [row for row in browsers.rows() if row.system == "darwin"])
def test_a_browser_is_found_on_macos(
    row: browsers.Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsers, "APPLICATIONS", ("/nowhere", "~/Applications"))
    monkeypatch.setenv("HOME", str(tmp_path))
    path = program(tmp_path / "Applications" / row.where)
    found = browsers.find(row.name, machine(system="darwin"))
    assert found == Browser(row.name, row.kind, path)


def test_the_first_known_browser_is_taken_unless_another_is_asked_for(tmp_path: Path) -> None:
    for name in ("firefox", "brave", "chromium"):
        program(tmp_path / name)
    assert browsers.find("", machine(tmp_path)).name == "chromium"
    assert browsers.find("firefox", machine(tmp_path)).name == "firefox"


@pytest.mark.parametrize(
    ("command", "beside", "kind"),
    [
        ("vivaldi", "", "chromium"),
        ("librewolf", "omni.ja", "firefox"),
        ("firefox", "", "firefox"),
        ("firefox-esr", "", "firefox"),
        ("App.app/Contents/MacOS/wolf", "App.app/Contents/Resources/omni.ja", "firefox"),
    ],
)
def test_another_browser_is_started_as_what_it_is(
    command: str, beside: str, kind: str, tmp_path: Path
) -> None:
    path = program(tmp_path / "bin" / command)
    if beside:
        program(tmp_path / "bin" / beside)
    found = browsers.find(str(path), machine())
    assert (found.kind, found.program) == (kind, path)


def test_a_browser_that_is_not_there_is_named_with_what_is(tmp_path: Path) -> None:
    path = program(tmp_path / "brave")
    with pytest.raises(LaunchError) as error:
        browsers.find("opera", machine(tmp_path))
    assert str(error.value) == (
        "--browser 'opera': there is no such program. Known are chromium, chrome, edge, brave, "
        f"firefox, or a path; found here: brave ({path})"
    )
    with pytest.raises(LaunchError) as error:
        browsers.find("firefox", machine())
    assert str(error.value).endswith("none of them is found here")
    with pytest.raises(LaunchError) as error:
        browsers.find("", machine())
    assert str(error.value) == (
        "no browser is found. Known are chromium, chrome, edge, brave, firefox; "
        "--browser takes a path, too"
    )


@pytest.mark.parametrize(
    ("path", "script", "snap"),
    [
        ("/snap/bin/firefox", "", "firefox"),
        ("firefox", '#!/bin/sh\nexec /snap/bin/firefox "$@"\n', "firefox"),
        ("chromium", "#!/bin/sh\nexec /usr/lib/chromium/chromium\n", ""),
        ("chromium", "\x7fELF /snap/bin/x ", ""),
        ("missing", "", ""),
    ],
)
def test_a_snap_keeps_its_profile_where_it_sees_it(
    path: str, script: str, snap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    if script:
        program(tmp_path / path, script)
    browser = Browser("x", "chromium", tmp_path / path)
    assert browser.snap == snap
    assert browser.home == (Path(f"/home/me/snap/{snap}/common") if snap else None)


# --- settings ---


def test_settings_are_arguments_features_preferences_and_variables() -> None:
    with (KNOWN / "browser_settings.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            assert row["note"]
            assert row["what"] in profile.Settings._fields
            assert row["kind"] in ("chromium", "firefox")
            if row["what"] == "argument":
                assert row["name"].startswith("--")
            elif row["what"] == "preference":
                assert isinstance(json.loads(row["value"]), bool | int | str)


def test_features_of_the_users_are_switched_off_too() -> None:
    arguments = profile.chromium_arguments(["--headless", "--disable-features=Mine,Other"])
    (features,) = [text for text in arguments if text.startswith("--disable-features=")]
    assert features.endswith(",Mine,Other")
    assert "MediaRouter" in features
    assert arguments[-1] == "--headless"


@pytest.mark.parametrize(
    ("kind", "argument"),
    [
        ("chromium", "--user-data-dir=/mine"),
        ("chromium", "--proxy-server=other:1"),
        ("chromium", "-proxy-bypass-list=*"),
        ("firefox", "--profile"),
        ("firefox", "-P"),
    ],
)
def test_what_is_flowtallys_to_decide_is_refused(
    kind: browsers.Kind, argument: str, tmp_path: Path
) -> None:
    ready = Ready("127.0.0.1", 8080, "", tmp_path, Authority.create(tmp_path).bundle)
    with pytest.raises(LaunchError) as error:
        profile.prepare(Browser("x", kind, tmp_path), tmp_path, ready, ["--headless", argument])
    assert str(error.value) == f"{argument.partition('=')[0]}: flowtally decides that itself"


def test_preferences_are_written_as_firefox_reads_them() -> None:
    assert profile.user_js({"a": True, "b": -1, "c": 'say "é" \\'}) == (
        'user_pref("a", true);\nuser_pref("b", -1);\nuser_pref("c", "say \\"\\u00e9\\" \\\\");\n'
    )


def test_the_browser_hears_of_no_other_proxy() -> None:
    given = {"HTTP_PROXY": "a", "https_proxy": "b", "No_Proxy": "c", "PATH": "d", "proxy": "e"}
    assert browser_environment(given, {"MOZ": "1"}) == {"PATH": "d", "proxy": "e", "MOZ": "1"}


def test_mitmproxy_is_not_loaded_to_start_a_browser() -> None:
    code = "import sys, flowtally.launch.browse; print('mitmproxy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_folder_that_is_written_to_for_a_moment_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    times = iter(range(2))

    def fails_twice(_: Path, ignore_errors: bool) -> None:
        assert ignore_errors
        if next(times, None) is None:
            folder.rmdir()

    monkeypatch.setattr("flowtally.launch.leftovers.shutil.rmtree", fails_twice)
    leftovers.remove(folder)
    assert not folder.exists()


def test_what_does_not_end_is_ended_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "PATIENCE", 0.1)
    script = "trap '' TERM; sleep 60 & echo $!; wait; wait"
    with subprocess.Popen(
        ["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        leftovers.end(process.pid, lambda: process.poll() is not None)
        assert process.wait(10) == -signal.SIGKILL
    assert psutil.wait_procs([child], timeout=10)[1] == []


def test_a_companion_is_ended_only_while_it_runs(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        with leftovers.companion(tmp_path, process.pid):
            pass
        leftovers.end_companion(tmp_path)  # its number may be another's by now
        assert process.poll() is None
        with leftovers.companion(tmp_path, process.pid):
            threading.Thread(target=process.wait, daemon=True).start()  # as init does
            leftovers.end_companion(tmp_path)
        assert process.wait(10) == -signal.SIGTERM
