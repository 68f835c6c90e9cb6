"""Redirect chains, without a proxy: limits, loops, interleaving, bounds."""

from __future__ import annotations

from typing import Any

import pytest
from flowtally import redirects
from flowtally.redirects import Redirects
from flowtally.redirects import normalize
from hypothesis import given
from hypothesis import strategies as st

CLIENT = "10.0.0.1"


def follow(
    chains: Redirects, client: str, url: str, location: str, time: float, limit: int, **more: Any
) -> str:
    """What the redirect is that is answered as it is asked for."""
    return chains.follow(client, url, location, time, time, limit, **more)


def walk(
    chains: Redirects, steps: int, prefix: str = "http://a/", client: str = CLIENT
) -> list[str]:
    """Causes of a chain of `steps` redirects, each to a new URL."""
    return [
        follow(chains, client, f"{prefix}{i}", f"{prefix}{i + 1}", 1000.0 + i, 20)
        for i in range(steps)
    ]


@pytest.mark.parametrize("redirects", [19, 20, 21, 50])
def test_the_redirect_that_reaches_the_limit_is_the_problem_and_the_only_one(
    redirects: int,
) -> None:
    expected = [""] * 19 + ["too_many_redirects"] + [""] * 30
    assert walk(Redirects(), redirects) == expected[:redirects]


@pytest.mark.parametrize("limit", [0, 1])
@pytest.mark.parametrize(
    ("location", "cause"), [("/b", "too_many_redirects"), ("/", "redirect_loop")]
)
def test_a_limit_that_the_first_redirect_reaches(limit: int, location: str, cause: str) -> None:
    assert follow(Redirects(), CLIENT, "http://a/", location, 1.0, limit) == cause


def circle(chains: Redirects, urls: list[str], steps: int, limit: int = 20) -> list[str]:
    """Causes of a chain that asks for the URLs in turn, each of which redirects to the next one."""
    return [
        follow(
            chains, CLIENT, urls[i % len(urls)], urls[(i + 1) % len(urls)], 1000.0 + i / 10, limit
        )
        for i in range(steps)
    ]


@pytest.mark.parametrize("length", [1, 2, 19, 20])
def test_a_chain_that_comes_back_is_a_loop_at_the_limit(length: int) -> None:
    urls = [f"http://a/{number}" for number in range(length)]
    assert circle(Redirects(), urls, 50) == [""] * 19 + ["redirect_loop"] + [""] * 30


def test_a_chain_that_would_come_back_later_is_no_loop_yet() -> None:
    urls = [f"http://a/{number}" for number in range(21)]
    assert circle(Redirects(), urls, 20)[-1] == "too_many_redirects"


def test_below_the_limit_nothing_is_a_loop() -> None:
    """A login sends the browser to the page that it came from, three times; a page sends it to
    itself until something is ready; a client that follows nothing repeats its request."""
    chains = Redirects()
    app, login = "http://a/app", "http://id/login"
    for _ in range(3):
        assert circle(chains, [app, login], 6) == [""] * 6
        chains.answered(CLIENT, app, 1001.0)
        assert circle(chains, ["http://a/poll"], 19) == [""] * 19
        chains.answered(CLIENT, "http://a/poll", 1002.0)
    assert len(chains) == 0


def test_when_the_limit_was_reached_the_answer_still_ends_the_chain() -> None:
    chains = Redirects()
    for _ in range(2):
        assert circle(chains, ["http://a/self"], 30).count("redirect_loop") == 1
        chains.answered(CLIENT, "http://a/self", 1003.0)
    assert len(chains) == 0


def test_an_answer_ends_the_chain() -> None:
    chains = Redirects()
    for i in range(5):
        assert follow(chains, CLIENT, "http://a/old", "/login", 1000.0 + i, 20) == ""
        chains.answered(CLIENT, "http://a/login", 1000.0 + i)
    assert len(chains) == 0


def test_clients_and_tabs_do_not_disturb_each_other() -> None:
    chains = Redirects()
    mixed: dict[str, list[str]] = {"a": [], "b": [], "c": []}
    for i in range(22):
        for name, client in (("a", CLIENT), ("b", CLIENT), ("c", "10.0.0.2")):
            prefix = "http://x/" if name != "b" else "http://y/"
            cause = follow(chains, client, f"{prefix}{i}", f"{prefix}{i + 1}", 1000.0 + i, 20)
            mixed[name].append(cause)
    assert all(causes == [""] * 19 + ["too_many_redirects", "", ""] for causes in mixed.values())


def test_two_tabs_on_the_same_chain() -> None:
    chains = Redirects()
    causes = []
    for i in range(19):
        for _ in range(2):
            causes.append(follow(chains, CLIENT, f"http://a/{i}", f"http://a/{i + 1}", 1000.0, 20))
    assert set(causes) == {""}


def test_an_old_chain_is_forgotten() -> None:
    chains = Redirects()
    assert set(walk(chains, 19)) == {""}
    late = 1000.0 + 18 + redirects.MAX_AGE + 1
    assert follow(chains, CLIENT, "http://a/19", "/20", late, 20) == ""
    assert len(chains) == 1


@pytest.mark.parametrize("hop", [4.0, 6.0, 59.0])
def test_a_slow_server_does_not_make_a_new_chain(hop: float) -> None:
    chains = Redirects()
    causes = [
        chains.follow(
            CLIENT, f"http://a/{n}", f"/{n + 1}", 1000.0 + n * hop, 1000.0 + (n + 1) * hop, 20
        )
        for n in range(50)
    ]
    assert causes == [""] * 19 + ["too_many_redirects"] + [""] * 30


SENT = 1000.0
"""When a client was sent to http://b/x."""


@pytest.mark.parametrize(
    ("client", "host", "url", "time", "sent"),
    [
        (CLIENT, "b", "http://b/x", SENT, True),
        (CLIENT, "B", "http://B/x#top", SENT, True),
        (CLIENT, "b", "", SENT, True),  # a CONNECT
        (CLIENT, "b", "http://b/x", SENT + redirects.MAX_AGE, True),
        (CLIENT, "b", "http://b/x", SENT + redirects.MAX_AGE + 1, False),
        (CLIENT, "b", "", SENT + redirects.MAX_AGE + 1, False),
        (CLIENT, "b", "http://b/y", SENT, False),
        (CLIENT, "c", "", SENT, False),
        ("10.0.0.2", "b", "http://b/x", SENT, False),
    ],
)
def test_whom_a_redirect_sent_where(
    client: str, host: str, url: str, time: float, sent: bool
) -> None:
    for background in (False, True):
        chains = Redirects()
        follow(chains, CLIENT, "http://a/", "http://b/x", SENT, 20, background=background)
        assert chains.sent(client, host, url, time) is (sent and not background)


def test_bounded() -> None:
    chains = Redirects()
    for i in range(3 * redirects.MAX_CHAINS):
        follow(chains, CLIENT, f"http://a/{i}", f"http://b/{i}", 1000.0, 20)
    assert len(chains) == redirects.MAX_CHAINS
    for limit in (20, 10_000):
        endless = Redirects()
        for i in range(1000):
            follow(endless, CLIENT, f"http://a/{i}", f"http://a/{i + 1}", 1000.0, limit)
        (waiting,) = endless._waiting.values()
        assert len(waiting[0].seen) <= redirects.MAX_URLS


def test_urls_without_measure_are_not_followed() -> None:
    chains = Redirects()
    assert follow(chains, CLIENT, "http://a/", "/" + "x" * 10_000, 1000.0, 0) == ""
    assert follow(chains, CLIENT, "http://a/" + "x" * 10_000, "/", 1000.0, 0) == ""
    assert len(chains) == 0


def test_what_a_client_makes_of_a_location() -> None:
    base = "http://Host.example:80/a/b?c#d"
    for location, url in {
        "/x": "http://host.example:80/x",
        "x": "http://host.example:80/a/x",
        "?y=1": "http://host.example:80/a/b?y=1",
        "//other/x": "http://other:80/x",
        "https://other/x#fragment": "https://other:443/x",
        "HTTPS://OTHER:443/x": "https://other:443/x",
        "http://other": "http://other:80/",
        "/with space": "http://host.example:80/with%20space",
        "/ü": "http://host.example:80/%C3%BC",
        "mailto:me": "",
        "http://[bad/": "",
        "http://h:99999/": "",
        "https://other:8443/x": "https://other:8443/x",
        "ftp://other/x": "",
        "/\ud800?\ud800": "http://host.example:80/???",
        # Dot segments, wherever they stand (RFC 3986 §5.2.4).
        "https://other/x/../loop": "https://other:443/loop",
        "https://other/../a/./b/..": "https://other:443/a/",
        "https://other/a//../b/.": "https://other:443/a/b/",
        "https://other/a/%2E%2e/b": "https://other:443/b",
        "../../../x": "http://host.example:80/x",
        "/.hidden/..x/%2x": "http://host.example:80/.hidden/..x/%2x",
    }.items():
        assert normalize(location, base) == url


def test_which_hosts_a_chain_waits_for() -> None:
    """An answer of another host cannot end a chain, and need not be looked at."""
    chains = Redirects()
    assert not chains.expects(CLIENT, "b")
    follow(chains, CLIENT, "http://a/1", "http://B/1", 1000.0, 20)
    follow(chains, CLIENT, "http://a/2", "http://b/2", 1000.0, 20)
    follow(chains, CLIENT, "http://a/3", "http://b/2", 1000.0, 20)
    assert chains.expects(CLIENT, "b")
    assert chains.expects(CLIENT, "B")
    assert not chains.expects(CLIENT, "a")
    assert not chains.expects("10.0.0.2", "b")
    for path, left in (("1", True), ("2", True), ("2", False), ("2", False)):
        chains.answered(CLIENT, f"http://b/{path}", 1000.0)
        assert chains.expects(CLIENT, "b") is left
    assert len(chains) == 0
    assert not chains._hosts


@pytest.mark.parametrize(
    ("method", "status", "follows"),
    [
        ("POST", 303, False),
        ("PUT", 303, False),
        ("POST", 302, False),
        ("POST", 301, False),
        ("PUT", 302, True),
        ("POST", 307, True),
        ("POST", 308, True),
        ("GET", 303, True),
        ("HEAD", 302, True),
    ],
)
def test_a_client_that_posts_a_form_again_and_again_follows_nothing(
    method: str, status: int, follows: bool
) -> None:
    chains, url = Redirects(), "http://a/form"
    causes = [
        follow(chains, CLIENT, url, url, 1000.0 + n, 20, method=method, status=status)
        for n in range(30)
    ]
    assert ("redirect_loop" in causes) == follows


def test_what_is_posted_to_a_url_does_not_end_the_chain_that_leads_there() -> None:
    chains, url = Redirects(), "http://a/form"
    follow(chains, CLIENT, url, url, 1000.0, 2, method="POST", status=303)
    chains.answered(CLIENT, url, 1001.0, "POST")
    assert follow(chains, CLIENT, url, url, 1002.0, 2) == "redirect_loop"


def test_a_loop_at_an_ipv6_address() -> None:
    chains = Redirects()
    causes = [follow(chains, CLIENT, "http://[::1]:8000/", "/", 1000.0, 20) for _ in range(20)]
    assert causes == [""] * 19 + ["redirect_loop"]


def test_a_page_at_an_ipv6_address_that_sends_to_itself_until_it_is_ready_is_no_loop() -> None:
    chains, url = Redirects(), "http://[::1]:8000/wait"
    for number in range(30):
        assert follow(chains, CLIENT, url, "/wait", 1000.0 + number, 20) == ""
        assert chains.expects(CLIENT, "::1")
        chains.answered(CLIENT, url, 1000.5 + number)
    assert not chains
    assert not chains.expects(CLIENT, "::1")


def test_the_chain_that_waited_longest_goes_first() -> None:
    chains = Redirects()
    for number in range(redirects.MAX_CHAINS + 1):
        # The first URL is waited for again, by another tab.
        target = f"http://h{number if number != 1 else 0}/"
        follow(chains, CLIENT, f"http://a/{number}", target, 1000.0, 20)
    # Two chains wait for the URL that came first; they go together.
    assert not chains.expects(CLIENT, "h0")
    assert chains.expects(CLIENT, "h2")
    assert len(chains) == redirects.MAX_CHAINS - 1
    assert sum(chains._hosts.values()) == len(chains._waiting) == redirects.MAX_CHAINS - 1


def test_a_url_that_is_waited_for_anew_goes_later() -> None:
    chains = Redirects()
    for number in range(redirects.MAX_CHAINS + 1):
        target = f"http://h{number if number != redirects.MAX_CHAINS - 1 else 0}/"
        follow(chains, CLIENT, f"http://a/{number}", target, 1000.0, 20)
    assert chains.expects(CLIENT, "h0")
    assert not chains.expects(CLIENT, "h1")
    assert chains.expects(CLIENT, "h2")


@pytest.mark.parametrize(("later", "goes_on"), [(0.0, True), (0.001, False)])
def test_how_long_a_redirect_may_take_to_be_followed(later: float, goes_on: bool) -> None:
    chains = Redirects()
    walk(chains, 19)
    late = 1018.0 + redirects.MAX_AGE + later
    cause = follow(chains, CLIENT, "http://a/19", "/20", late, 20)
    assert cause == ("too_many_redirects" if goes_on else "")
    other = Redirects()
    follow(other, CLIENT, "http://a/", "http://b/", 1000.0, 20)
    follow(other, CLIENT, "http://x/", "http://y/", 1000.0 + redirects.MAX_AGE + later, 20)
    assert other.expects(CLIENT, "b") is goes_on


@pytest.mark.parametrize(("later", "problems"), [(0.0, 1), (0.001, 2)])
def test_whoever_comes_back_after_the_limit_begins_anew(later: float, problems: int) -> None:
    chains = Redirects()
    causes = circle(chains, ["http://a/self"], 20)
    again = 1001.9 + redirects.MAX_AGE_AT_LIMIT + later
    for i in range(20):
        url = "http://a/self"
        causes.append(follow(chains, CLIENT, url, url, again + i / 10, 20))
    assert causes.count("redirect_loop") == problems


@pytest.mark.parametrize(("longer", "followed"), [(0, True), (1, False)])
def test_how_long_a_url_may_be(longer: int, followed: bool) -> None:
    long = "/" + "x" * (redirects.MAX_LENGTH - len("http://a/") + longer)
    chains = Redirects()
    follow(chains, CLIENT, "http://a" + long, "http://b/", 1000.0, 20)
    assert chains.expects(CLIENT, "b") is followed
    follow(chains, CLIENT, "http://c/", "http://d" + long, 1000.0, 20)
    assert chains.expects(CLIENT, "d") is followed
    chains.answered(CLIENT, "http://d" + long, 1000.0)
    assert not chains.expects(CLIENT, "d")


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (redirects.MAX_URLS - 1, "redirect_loop"),
        (redirects.MAX_URLS, "too_many_redirects"),  # it was not remembered any more
    ],
)
def test_how_many_urls_are_remembered(number: int, cause: str) -> None:
    chains = Redirects()
    limit = redirects.MAX_URLS + 10
    for i in range(limit - 1):
        follow(chains, CLIENT, f"http://a/{i}", f"http://a/{i + 1}", 1000.0, limit)
    back = f"http://a/{number}"
    assert follow(chains, CLIENT, f"http://a/{limit - 1}", back, 1000.0, limit) == cause


@given(st.text(), st.text(), st.floats(allow_nan=True), st.integers(0, 100))
def test_never_raises(url: str, location: str, time: float, limit: int) -> None:
    chains = Redirects()
    for _ in range(3):
        follow(chains, CLIENT, url, location, time, limit)
        chains.answered(CLIENT, location, time)
