"""Which requests are a browser's or system's own, and which a page's or a person's."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from flowtally import background
from flowtally import settings
from flowtally import vocabulary
from flowtally.background import Background
from flowtally.classify import Rules
from flowtally.classify import unanswered_query
from flowtally.defects import Defects
from flowtally.failures import Failure
from flowtally.redirects import MAX_AGE
from flowtally.tagger import Tagger
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy.proxy import mode_specs
from mitmproxy.test import tflow

KNOWN = Background()
# What a browser sends with a request of its own, and with those of a page and of a person.
OWN = {"sec-fetch-site": "none", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "empty"}
PERSON = {
    "sec-fetch-site": "none",
    "sec-fetch-mode": "navigate",
    "sec-fetch-user": "?1",
    "upgrade-insecure-requests": "1",
}
OPENED = {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "upgrade-insecure-requests": "1"}
SAME = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}
OTHER = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}


def request(
    url: str, headers: Mapping[str, str] | None = None, mode: str = "regular", method: str = "GET"
) -> http.HTTPFlow:
    flow = tflow.tflow()
    flow.client_conn.proxy_mode = mode_specs.ProxyMode.parse(mode)
    flow.request = http.Request.make(method, url)
    for name, value in (headers or {}).items():
        flow.request.headers[name] = value
    return flow


def connect(host: str) -> http.HTTPFlow:
    flow = request(f"https://{host}/", method="CONNECT")
    flow.request.path = ""
    return flow


@pytest.mark.parametrize(
    ("url", "headers", "whose"),
    [
        # Seen of Chromium 156.
        ("https://update.googleapis.com/service/update2/json?cup2key=x", OWN, "Google"),
        ("http://clients2.google.com/time/1/current", {}, "Chromium"),
        (
            "https://accounts.google.com/ListAccounts?gpsia=1",
            {**OWN, "origin": "https://www.google.com"},
            "Chromium",
        ),
        ("https://content-autofill.googleapis.com/v1/pages/x", OWN, "Chromium"),
        ("https://redirector.gvt1.com/edgedl/chrome/dict/en-us-10-2.bdic", OWN, "Chromium"),
        # Seen of Firefox 153.
        ("https://firefox.settings.services.mozilla.com/v1/", {}, "Firefox"),
        (
            "https://push.services.mozilla.com/",
            {
                "origin": "wss://push.services.mozilla.com/",
                "sec-fetch-mode": "websocket",
                "sec-fetch-site": "none",
            },
            "Firefox",
        ),
        (
            "https://push.services.mozilla.com/",
            {"origin": "wss://push.services.mozilla.com/"},  # of an older one
            "Firefox",
        ),
        ("https://firefox-settings-attachments.cdn.mozilla.net/x.avif", OTHER, "Firefox"),
        ("https://www.mozilla.org/privacy/firefox/", OPENED, "Firefox"),
        ("http://detectportal.firefox.com/success.txt?ipv4", {}, "Firefox"),
        # The other systems.
        ("https://edge.microsoft.com/componentupdater/api/v1/update", OWN, "Edge"),
        ("http://www.msftconnecttest.com/connecttest.txt", {}, "Windows"),
        ("http://captive.apple.com/hotspot-detect.html", {}, "Apple"),
        ("http://connectivitycheck.gstatic.com/generate_204", {}, "Android"),
        ("https://www.google.com/generate_204", {}, "Android"),
        # A page or a person at the same hosts.
        ("https://accounts.google.com/o/oauth2/auth", PERSON, ""),
        ("https://accounts.google.com/o/oauth2/auth", OWN, ""),
        ("https://accounts.google.com/ListAccounts", PERSON, ""),
        ("https://accounts.google.com/ListAccounts", SAME, ""),
        ("https://www.mozilla.org/privacy/firefox/", PERSON, ""),
        ("https://www.mozilla.org/en-US/", OPENED, ""),
        ("https://www.google.com/search?q=x", OWN, ""),
        ("https://firefox.settings.services.mozilla.com/v1/", PERSON, ""),
        ("https://firefox.settings.services.mozilla.com/v1/", SAME, ""),
        (
            "https://firefox.settings.services.mozilla.com/v1/",
            {**OTHER, "origin": "https://app.example"},
            "",
        ),
        (
            "https://firefox.settings.services.mozilla.com/v1/",
            {**OTHER, "referer": "https://app.example/"},
            "",
        ),
        ("https://firefox.settings.services.mozilla.com/v1/", {"origin": "null"}, ""),
        ("http://detectportal.firefox.com/", {"referer": "http://app.example/"}, ""),
        ("http://detectportal.firefox.com/", {"upgrade-insecure-requests": "1"}, ""),
        # Hosts that only look alike.
        ("https://update.googleapis.com.example/", OWN, ""),
        ("https://not-update.googleapis.com/", OWN, ""),
        ("https://evilupdate.googleapis.com/", OWN, ""),
        ("https://googleapis.com/", OWN, ""),
        ("https://app.example/update.googleapis.com", OWN, ""),
        # The same, written otherwise, and below.
        ("https://Update.GoogleAPIs.com/", OWN, "Google"),
        ("https://update.googleapis.com./", OWN, "Google"),
        ("http://au.download.windowsupdate.com/x", {}, "Windows"),
    ],
)
def test_whose_request_it_is(url: str, headers: Mapping[str, str], whose: str) -> None:
    assert KNOWN.of(request(url, headers)) == whose


@pytest.mark.parametrize("row", vocabulary.BACKGROUND, ids=lambda row: f"{row.host}{row.path}")
def test_every_row_can_be_met(row: vocabulary.BackgroundHost) -> None:
    url = f"https://{row.host}{row.path.decode() or '/'}"
    assert KNOWN.of(request(url, OWN)) == row.whose
    assert KNOWN.of(request(url, PERSON)) == ""
    assert bool(KNOWN.of(connect(row.host))) == any(
        other.tunnel for other in vocabulary.BACKGROUND if other.host == row.host
    )


@pytest.mark.parametrize(
    ("host", "whose"),
    [
        ("update.googleapis.com", "Google"),
        ("accounts.google.com", "Chromium"),
        ("www.mozilla.org", "Firefox"),
        # Most of what goes there is a person's.
        ("www.google.com", ""),
        ("www.gstatic.com", ""),
        ("app.example", ""),
        ("", ""),
    ],
)
def test_where_only_the_host_is_seen(host: str, whose: str) -> None:
    assert KNOWN.of_host(host) == whose
    if host:
        assert KNOWN.of(connect(host)) == whose
    stream = tflow.ttcpflow()
    stream.client_conn.sni, stream.server_conn.address = host, ("192.0.2.1", 443)
    assert KNOWN.of(stream) == whose
    stream.client_conn.sni, stream.server_conn.address = None, (host, 443)
    assert KNOWN.of(stream) == whose
    query = tflow.tdnsflow()
    query.request.questions[0].name = host
    assert KNOWN.of(query) == whose


def test_flows_that_name_no_host() -> None:
    query = tflow.tdnsflow()
    query.request.questions = []
    stream = tflow.tudpflow()
    stream.client_conn.sni, stream.server_conn.address = None, None
    for flow in (query, stream):
        assert KNOWN.of(flow) == ""


@pytest.mark.parametrize(
    ("mode", "whose"),
    [("regular", ""), ("upstream:http://h", ""), ("reverse:http://h", "")]
    + [(mode, "Google") for mode in ("transparent", "socks5", "local", "wireguard")],
)
def test_the_name_stands_in_the_host_header_where_the_host_is_an_address(
    mode: str, whose: str
) -> None:
    flow = request("https://192.0.2.1/", {**OWN, "host": "update.googleapis.com"}, mode)
    assert KNOWN.of(flow) == whose


def test_a_long_host_is_not_remembered() -> None:
    known = Background()
    host = "a." * 200 + "update.googleapis.com"
    assert known.of(request("https://h/")) == known.of_host("h") == ""
    flow = request("https://h/")
    flow.request.data.host = host
    assert known.of(flow) == known.of_host(host) == ""
    assert known._find.cache_info().currsize == 1


def test_remembered_hosts_are_bounded() -> None:
    known = Background()
    for number in range(background.MAX_HOSTS + 10):
        known.of_host(f"{number}.example")
    assert known._find.cache_info().currsize == background.MAX_HOSTS


# --- the option ---


@pytest.mark.parametrize(
    ("value", "host", "whose"),
    [
        ("known", "update.googleapis.com", "Google"),
        ("none", "update.googleapis.com", ""),
        ("ads.example", "update.googleapis.com", "Google"),
        ("ads.example", "ads.example", "ads.example"),
        ("ads.example", "eu.ads.example", "ads.example"),
        ("ads.example", "bads.example", ""),
        ("ads.example", "example", ""),
        ("known, Ads.Example ,localhost", "ads.example", "ads.example"),
        ("known, Ads.Example ,localhost", "localhost", "localhost"),
        # The user knows better.
        ("googleapis.com", "update.googleapis.com", "googleapis.com"),
    ],
)
def test_hosts_of_the_users(value: str, host: str, whose: str) -> None:
    found = settings.background(value)
    assert found.of_host(host) == whose
    assert found.of(request(f"https://{host}/", OWN)) == whose


def test_at_a_host_of_the_users_pages_count_too() -> None:
    found = settings.background("ads.example")
    for headers in (PERSON, SAME, {"origin": "https://app.example"}):
        assert found.of(request("https://ads.example/", headers)) == "ads.example"


# --- the tag ---


def tagger(value: str = "known") -> Tagger:
    rules = Rules(vocabulary.STATUS_TAGS, 5.0, background=settings.background(value))
    return Tagger(rules, 20, Defects())


def failed(flow: http.HTTPFlow) -> http.HTTPFlow:
    flow.error = mflow.Error("server closed connection")
    return flow


def test_the_tag_says_whose() -> None:
    flow = failed(request("https://update.googleapis.com/", OWN))
    assert tagger().tag(flow)["background"] == "Google"
    assert "background" not in tagger("none").tag(flow)
    assert "background" not in tagger().tag(failed(request("https://app.example/", OWN)))


def test_an_event_says_whose() -> None:
    tag = {"error_code": -2, "cause": "client_tls_rejected"}
    failure = Failure("", 1.0, tag, ("10.0.0.1", 1), "update.googleapis.com", 443)
    assert tagger().tag_failure(failure).tag == {**tag, "background": "Google"}
    assert tagger().tag_failure(failure._replace(host="app.example")).tag == tag
    assert tagger().tag_failure(failure._replace(host="", port=None)).tag == tag
    assert "background" not in tag


def test_where_a_redirect_sends_a_page_nobody_went_on_its_own() -> None:
    """A login at an account provider that cannot be reached is what a person debugs."""
    tags = tagger()
    login = request("https://app.example/login")
    to = {"location": "https://accounts.google.com/o/oauth2/auth"}
    login.response = http.Response.make(302, b"", to)
    refused = failed(connect("accounts.google.com"))
    assert tags.tag(refused)["background"] == "Chromium"
    tags.tag(login)
    assert "background" not in tags.tag(refused)


def sent_on(url: str, to: str) -> http.HTTPFlow:
    flow = request(url, {})
    flow.response = http.Response.make(302, b"", {"location": to})
    return flow


PORTAL = "http://detectportal.firefox.com/"


def test_the_answer_that_ends_a_chain_was_asked_for_by_a_page_too() -> None:
    tags = tagger()
    tags.tag(sent_on("http://shop.example/", f"{PORTAL}x"))
    for path, own in (("canonical.html", True), ("x", False), ("x", True)):
        found = request(f"{PORTAL}{path}", {})
        found.response = http.Response.make(404)
        assert ("background" in tags.tag(found)) is own, path


def test_a_browser_that_is_sent_on_still_goes_on_its_own() -> None:
    tags = tagger()
    assert "background" in tags.tag(sent_on(PORTAL, f"{PORTAL}there"))
    assert "background" in tags.tag(failed(request(f"{PORTAL}there", {})))


def test_a_redirect_that_nobody_followed_is_forgotten() -> None:
    tags = tagger()
    redirect = sent_on("http://shop.example/", f"{PORTAL}x")
    tags.tag(redirect)
    for later, own in ((MAX_AGE, False), (MAX_AGE + 1, True)):
        own_request = failed(request(f"{PORTAL}x", {}))
        assert redirect.response
        assert redirect.response.timestamp_end
        own_request.request.timestamp_start = redirect.response.timestamp_end + later
        assert ("background" in tags.tag(own_request)) is own
        assert len(tags._redirects) == 1


def test_what_the_proxy_ended_or_found_open_may_be_background_too() -> None:
    for known in (unanswered_query(), {"outcome": "unfinished"}):
        tag = tagger().tag(request(PORTAL, {}), known=known)
        assert tag == {**known, "background": "Firefox"}


@given(st.text(), st.text(), st.dictionaries(st.text("abc-"), st.text("abc")))
def test_never_raises(host: str, path: str, headers: dict[str, str]) -> None:
    flow = request("https://h/", headers)
    flow.request.data.host = host
    flow.request.data.path = path.encode("utf-8", "surrogateescape")
    KNOWN.of(flow)
    KNOWN.of_host(host)
