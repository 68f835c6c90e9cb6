"""Redirect chains through a real mitmdump."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path

import pytest
from lab import browser
from lab import clients
from lab import servers
from lab.expected import Expected
from lab.expected import redirected
from lab.expected import status
from lab.laboratory import Laboratory
from lab.proxy import Record

pytestmark = pytest.mark.timeout(60)

FOUND = status(302, "Found")
OK = status(200, "OK")
TOO_MANY = redirected("too_many_redirects")
LOOP = redirected("redirect_loop")
LIMIT = 20


def follow(
    laboratory: Laboratory, paths: Sequence[str], sources: Sequence[str] = ("127.0.0.1",)
) -> list[Record]:
    """GETs the paths in this order, each over a connection of its own, from each source in turn."""
    proxy = laboratory.proxy("regular")
    with servers.AnsweringServer(servers.site) as server:

        def act() -> None:
            for path in paths:
                for source in sources:
                    clients.get(proxy, server, path, source=source)

        records = laboratory.observe(proxy, act, len(paths) * len(sources))
    assert len(records) == len(paths) * len(sources)
    proxy.assert_no_addon_error()
    return records


def hops(count: int, name: str) -> list[str]:
    """The paths of a chain with that many redirects and an answer at its end."""
    return [f"/hop/{left}/{name}" for left in range(count, -1, -1)]


def test_short_chain(laboratory: Laboratory) -> None:
    *redirects, end = follow(laboratory, hops(5, "short"))
    for record in redirects:
        FOUND.check(record)
    OK.check(end)


def test_chain_below_the_limit(laboratory: Laboratory) -> None:
    *redirects, end = follow(laboratory, hops(LIMIT - 1, "below"))
    for record in redirects:
        FOUND.check(record)
    OK.check(end)


def assert_told_once(redirects: Sequence[Record], problem: Expected) -> None:
    """The redirect that reached the limit is the problem, and no other one."""
    for number, record in enumerate(redirects, 1):
        (problem if number == LIMIT else FOUND).check(record)
        assert ("error_code" in record) == (number == LIMIT), record


def test_chain_over_the_limit(laboratory: Laboratory) -> None:
    *redirects, end = follow(laboratory, hops(LIMIT + 5, "long"))
    assert_told_once(redirects, TOO_MANY)
    OK.check(end)


@pytest.mark.parametrize("path", ["/self", "/loop"])
def test_curl_in_a_loop_is_one_problem(
    laboratory: Laboratory, tool: Callable[..., Path], path: str
) -> None:
    curl = str(tool("curl"))
    proxy = laboratory.proxy("regular")
    followed = 50  # what curl follows unless told otherwise
    # With an address of its own, as all chains here that come back: another case may have left one.
    with servers.AnsweringServer(servers.site) as server:

        def act() -> None:
            command = [curl, "-sS", "-L", "-x", proxy.url, server.url + path]
            done = subprocess.run(command, capture_output=True, timeout=30)
            assert done.returncode == 47  # too many redirects

        records = laboratory.observe(proxy, act, followed + 1)
    assert len(records) == followed + 1
    assert_told_once(records, LOOP)


def test_chromium_gives_up_at_the_limit(laboratory: Laboratory, tool: Callable[..., Path]) -> None:
    """The limit is Chromium's: it does not follow the redirect that is told."""
    proxy = laboratory.proxy("regular")
    executable = tool(*browser.NAMES)
    with servers.AnsweringServer(servers.site) as server:

        def act() -> None:
            with (
                browser.launch(executable) as chromium,
                browser.opened(chromium, **browser.through(proxy.port)) as page,
                pytest.raises(Exception, match="ERR_TOO_MANY_REDIRECTS"),
            ):
                page.goto(f"{server.url}/loop")

        records = laboratory.observe(proxy, act, LIMIT)
    redirects = [record for record in records if record.get("port") == server.port]
    assert len(redirects) == LIMIT
    assert_told_once(redirects, LOOP)


def in_turn(*answers: servers.Answer) -> Callable[[servers.Request], servers.Answer]:
    """Answers the first request with the first one, and so on."""
    left = iter(answers)
    return lambda _: next(left)


@pytest.mark.parametrize(
    "answers",
    [
        # A login that sends the browser to the page that it came from, three times.
        [servers.redirect(to) for to in ("/login", "/app", "/login", "/app", "/login/2", "/app")],
        # A page that sends the client to itself until something is ready.
        [servers.redirect("/app", 303)] * (LIMIT - 1),
    ],
    ids=["login", "polling"],
)
def test_a_chain_that_ends_in_an_answer_is_no_problem(
    laboratory: Laboratory, tool: Callable[..., Path], answers: list[servers.Answer]
) -> None:
    curl = str(tool("curl"))
    proxy = laboratory.proxy("regular")
    with servers.AnsweringServer(in_turn(*answers, servers.OK)) as server:

        def act() -> None:
            command = [curl, "-sS", "-L", "-x", proxy.url, f"{server.url}/app"]
            subprocess.run(command, capture_output=True, timeout=30, check=True)

        records = laboratory.observe(proxy, act, len(answers) + 1)
    assert len(records) == len(answers) + 1
    for record in records:
        assert "error_code" not in record, record
    OK.check(records[-1])


def test_a_client_that_follows_nothing_is_in_no_chain_that_is_too_long(
    laboratory: Laboratory,
) -> None:
    for record in follow(laboratory, ["/self"] * 5):
        FOUND.check(record)


def test_the_same_chain_again_is_no_loop(laboratory: Laboratory) -> None:
    for record in follow(laboratory, hops(3, "again") * 4):
        assert "error_code" not in record, record


def test_interleaved_chains_of_one_client(laboratory: Laboratory) -> None:
    """Two tabs: the chains are told apart by where they lead, not by connection or time."""
    pairs = zip(hops(LIMIT, "left"), hops(LIMIT, "right"), strict=True)
    records = follow(laboratory, [path for pair in pairs for path in pair])
    for *redirects, end in (records[0::2], records[1::2]):
        assert_told_once(redirects, TOO_MANY)
        OK.check(end)


def test_the_same_chain_of_several_clients(laboratory: Laboratory) -> None:
    """Taken together these would be a loop and over the limit."""
    sources = [f"127.0.0.{last}" for last in range(1, 5)]
    records = follow(laboratory, hops(6, "shared"), sources)
    assert len({record["client"] for record in records}) == len(sources)
    for record in records:
        assert "error_code" not in record, record
