"""The live page: who gets what, and how often it is made."""

from __future__ import annotations

import asyncio
import json
import os
import re
from base64 import b64encode
from collections.abc import Callable
from collections.abc import Coroutine
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from flowtally import live as module
from flowtally import ranges
from flowtally.defects import Defects
from flowtally.live import LivePage
from flowtally.live import Page
from flowtally.live import Source
from flowtally.report import html
from flowtally.report.view import view
from flowtally.session import Session
from flowtally.tally import Tally
from flowtally.tally import incident_of
from flowtally.totals import InFlight
from lab.cli import BEGIN
from lab.cli import answered
from lab.cli import event
from lab.cli import failed
from lab.cli import lines
from lab.cli import numbered
from lab.cli import start
from lab.cli import tally
from mitmproxy import exceptions
from mitmproxy import http

HOST = "flowtally.test"


def test_what_is_in_flight_is_shown_and_makes_the_page_anew() -> None:
    flying = [InFlight(0, 0.0), InFlight(1, 0.2), InFlight(1, 12.4, "slow.example<")]
    session: Any = SimpleNamespace(version="1", tally=tally(start()))
    versions = set()
    pages = []
    for now in flying:
        page = LivePage(lambda: session, iter([now, now]).__next__, Defects())
        versions.add(page._page._source.version())
        pages.append(html.render(page._page._source.view(), html.About(), live=True))
    assert len(versions) == 3
    assert "Nothing came through" in pages[0]
    assert "In flight" not in pages[0]
    assert "Nothing came through" not in pages[2]
    assert "In flight" in pages[2]
    assert "oldest 12 s, slow.example&lt;" in pages[2]


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(
            module, "time", SimpleNamespace(monotonic=self.read, thread_time=self.read)
        )

    def read(self) -> float:
        return self.now


class Live:
    """A session that runs, and its page."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.version = "00000001-0-0"
        self.tally = Tally()
        self.rendered = 0
        self.page = Page(
            Source(
                version=lambda: self.version,
                view=self._view,
                data=lambda: {"flows": self.tally.flows},
                log=lambda: self.log,
                session=lambda: "00000001",
                about=lambda: ["Session <00000001>"],
            )
        )

    def _view(self) -> Any:
        self.rendered += 1
        return view(self.tally, 10)

    def add(self) -> None:
        self.tally.add(answered())
        self.version = f"00000001-{self.tally.flows}-0"

    def get(self, path: str = "/", method: str = "GET", **headers: str) -> http.Response:
        return asyncio.run(self.ask(path, method, **headers))

    def ask(
        self, path: str = "/", method: str = "GET", **headers: str
    ) -> Coroutine[Any, Any, http.Response]:
        return self.page.answer(request(path, method, **headers))


def request(path: str = "/", method: str = "GET", **headers: str) -> http.Request:
    named = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    fields = [(b"Host", HOST.encode()), *named]
    return http.Request.make(method, f"http://{HOST}{path}", b"", fields)


@pytest.fixture
def live(tmp_path: Path) -> Live:
    log = tmp_path / "session.jsonl"
    log.write_bytes(lines(start()))
    return Live(log)


ALWAYS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
TEXT = "text/plain; charset=utf-8"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "status", "kind", "file"),
    [
        ("/", 200, "text/html; charset=utf-8", ""),
        ("/?x=/report.json", 200, "text/html; charset=utf-8", ""),
        ("/report.html", 200, "text/html; charset=utf-8", ""),
        ("/report.json", 200, "application/json", "flowtally-report.json"),
        ("/session.jsonl", 200, "application/jsonl", "flowtally-session.jsonl"),
        ("/favicon.ico", 404, TEXT, ""),
        ("//", 404, TEXT, ""),
        ("/report.json/", 404, TEXT, ""),
        ("/../session.jsonl", 404, TEXT, ""),
        ("*", 404, TEXT, ""),
    ],
)
def test_answers(live: Live, path: str, method: str, status: int, kind: str, file: str) -> None:
    asked = request("/", method)
    asked.path = path
    response = asyncio.run(live.page.answer(asked))
    assert response.status_code == status
    assert {name: response.headers[name] for name in ALWAYS} == ALWAYS
    assert response.headers["Content-Type"] == kind
    disposition = f'attachment; filename="{file}"' if file else None
    assert response.headers.get("Content-Disposition") == disposition
    assert not [name for name in response.headers if name.startswith("access-control")]
    # What a HEAD would have got, without it.
    asked.method = "GET"
    whole = asyncio.run(live.page.answer(asked))
    assert whole.content
    assert response.headers["Content-Length"] == str(len(whole.content))
    assert response.raw_content == (b"" if method == "HEAD" else whole.content)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/session.jsonl", "/nothing"])
def test_other_methods(live: Live, method: str, path: str) -> None:
    response = live.get(path, method)
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")
    assert {name: response.headers[name] for name in ALWAYS} == ALWAYS
    assert live.rendered == 0


def test_contents(live: Live) -> None:
    live.add()
    assert "<title>flowtally: 1 flow, 0 problems</title>" in live.get().text  # type: ignore[operator]
    assert "<li>Session &lt;00000001&gt;</li>" in live.get().text  # type: ignore[operator]
    assert json.loads(live.get("/report.json").content or b"") == {"flows": 1}
    assert live.get("/session.jsonl").content == lines(start())


@pytest.mark.parametrize(
    ("host", "modes", "url"),
    [
        (HOST, ["regular"], f"http://{HOST}/"),
        (HOST, ["reverse:http://server", "regular"], f"http://{HOST}/"),
        # Who serves others with it has no client that could ask.
        (HOST, ["reverse:http://server", "reverse:tcp://server"], ""),
        ("", ["regular"], ""),
    ],
)
def test_where_it_is(host: str, modes: list[str], url: str) -> None:
    def no_session() -> Session:
        raise AssertionError

    page = LivePage(no_session, lambda: InFlight(0, 0.0), Defects())
    page.host = host
    assert page.url(modes) == url
    assert page.is_own_host(HOST.upper()) == bool(host)
    assert not page.is_own_host("")
    assert not page.is_own_host(f"a.{HOST}")


@pytest.mark.parametrize("path", ["/", "/report.json", "/session.jsonl", "/flows"])
def test_when_the_session_is_over_it_says_so(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    def no_session() -> Session:
        raise exceptions.CommandError("no session is running")

    page = LivePage(no_session, lambda: InFlight(0, 0.0), Defects())
    flow: Any = SimpleNamespace(request=request(path), response=None, error=None)
    asyncio.run(page.serve(flow))
    assert flow.response.status_code == 503
    assert "no session is running" in flow.response.text
    assert "defect" not in capsys.readouterr().err


# --- how often it is made ---


def test_etag(live: Live) -> None:
    first = live.get()
    etag = first.headers["ETag"]
    assert etag == '"00000001-0-0"'
    same = live.get(If_None_Match=etag)
    assert (same.status_code, same.content) == (304, b"")
    assert {name: same.headers[name] for name in ALWAYS} == ALWAYS
    assert same.headers["ETag"] == etag
    assert live.get(If_None_Match='"another"').status_code == 200
    assert live.rendered == 1


def test_it_is_made_anew_when_something_changed_and_not_too_often(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    old = live.get()
    live.add()
    clock.now += module.EVERY - 0.01
    assert live.get().content == old.content
    # Who has the old one gets told that it is still the newest.
    assert live.get(If_None_Match=old.headers["ETag"]).status_code == 304
    clock.now += 0.01
    new = live.get(If_None_Match=old.headers["ETag"])
    assert (new.status_code, new.headers["ETag"]) == (200, '"00000001-1-0"')
    assert live.rendered == 2
    clock.now += 1000
    assert live.get().content == new.content
    assert live.rendered == 2


def test_what_takes_long_is_made_less_often(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    render = html.render

    def slow(*args: Any, **kwargs: Any) -> str:
        clock.now += 2.0
        return render(*args, **kwargs)

    monkeypatch.setattr(html, "render", slow)
    live.get()
    live.add()
    clock.now += 2.0 / module.SHARE - 0.1
    live.get()
    assert live.rendered == 1
    clock.now += 0.1
    live.get()
    assert live.rendered == 2


def test_several_tabs_share_one_rendering(live: Live) -> None:
    async def ask() -> list[http.Response]:
        return await asyncio.gather(*(live.ask() for _ in range(20)))

    answers = asyncio.run(ask())
    assert live.rendered == 1
    assert {answer.content for answer in answers} == {answers[0].content}
    assert answers[0].content


def test_a_rendering_that_fails_is_tried_again(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> str:
        raise ValueError(args, kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(html, "render", fail)
        with pytest.raises(ValueError, match="View"):
            live.get()
    assert live.get().status_code == 200


# --- who may ask ---

SELF, SITE, CROSS = "same-origin", "same-site", "cross-site"


@pytest.mark.parametrize(
    ("headers", "page", "data"),
    [
        ({}, 200, 200),  # curl
        ({"Accept": "text/html,*/*"}, 200, 403),  # plain http: a browser, from wherever it comes
        ({"Accept": "text/html,*/*", "Cookie": "flowtally=x"}, 200, 403),
        ({"Accept": "*/*"}, 200, 200),
        ({"Sec_Fetch_Site": "none", "Sec_Fetch_Dest": "document"}, 200, 200),  # typed
        ({"Sec_Fetch_Site": SELF, "Sec_Fetch_Dest": "empty"}, 200, 200),  # its script
        ({"Sec_Fetch_Site": SELF, "Sec_Fetch_Dest": "document"}, 200, 200),  # its link
        ({"Origin": f"http://{HOST}"}, 200, 200),
        ({"Origin": f"https://{HOST}"}, 200, 200),
        ({"Sec_Fetch_Site": CROSS, "Sec_Fetch_Dest": "document"}, 200, 403),  # a link to it
        ({"Sec_Fetch_Site": SITE, "Sec_Fetch_Dest": "document"}, 200, 403),
        ({"Sec_Fetch_Site": CROSS, "Sec_Fetch_Dest": "iframe"}, 403, 403),
        ({"Sec_Fetch_Site": CROSS, "Sec_Fetch_Dest": "script"}, 403, 403),
        ({"Sec_Fetch_Site": CROSS, "Sec_Fetch_Dest": "image"}, 403, 403),
        ({"Sec_Fetch_Site": CROSS, "Sec_Fetch_Dest": "empty"}, 403, 403),
        ({"Sec_Fetch_Site": CROSS}, 403, 403),
        ({"Sec_Fetch_Site": "nonsense"}, 403, 403),
        ({"Sec_Fetch_Site": ""}, 403, 403),
        ({"Origin": "https://evil.example"}, 403, 403),
        ({"Origin": "null"}, 403, 403),
        ({"Origin": ""}, 403, 403),
        ({"Origin": f"http://{HOST}.evil.example"}, 403, 403),
        ({"Origin": f"http://evil.example/{HOST}"}, 403, 403),
        ({"Origin": f"http://{HOST}@evil.example"}, 403, 403),
        (
            {
                "Origin": "https://evil.example",
                "Sec_Fetch_Site": CROSS,
                "Sec_Fetch_Dest": "document",
            },
            403,
            403,
        ),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_other_sites_get_nothing(
    live: Live, headers: dict[str, str], page: int, data: int, method: str
) -> None:
    found = {path: live.get(path, method, **headers) for path in PATHS}
    assert [found[path].status_code for path in PATHS] == [page, *[data] * 4]
    for response in found.values():
        assert {name: response.headers[name] for name in ALWAYS} == ALWAYS
    assert live.rendered == (page == 200)


def test_over_plain_http_who_was_on_the_page_gets_the_data(live: Live) -> None:
    cookie = live.get("/").headers["Set-Cookie"]
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Strict")
    browser = {"Accept": "text/html,*/*", "Cookie": f"a=b; {cookie.partition(';')[0]}"}
    assert [live.get(path, **browser).status_code for path in PATHS] == [200] * len(PATHS)
    assert live.get("/report.json", Origin="http://evil.example", **browser).status_code == 403


PATHS = ("/", "/report.html", "/report.json", "/session.jsonl", "/flows")


# --- the log ---


def test_a_log_that_is_too_large(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    size = live.log.stat().st_size
    monkeypatch.setattr(module, "MAX_LOG", size)
    assert live.get("/session.jsonl").status_code == 200
    monkeypatch.setattr(module, "MAX_LOG", size - 1)
    response = live.get("/session.jsonl")
    assert (response.status_code, response.text) == (
        413,
        f"The log is too large to be sent; it is {live.log}.\n",
    )
    assert {name: response.headers[name] for name in ALWAYS} == ALWAYS


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        ("nothing", "No such file or directory"),
        ("folder", "that is no regular file"),
        ("pipe", "that is no regular file"),  # which would never end, and eat what is another's
        ("foreign", "that file exists and is no flowtally log"),
    ],
)
def test_a_log_that_cannot_be_read(live: Live, there: str, reason: str) -> None:
    live.log.unlink()
    if there == "folder":
        live.log.mkdir()
    elif there == "pipe":
        os.mkfifo(live.log)
    elif there == "foreign":
        live.log.write_text("Dear diary,\n", "utf-8")
    response = live.get("/session.jsonl")
    assert (response.status_code, response.text) == (503, f"The log cannot be read: {reason}\n")


# --- single flows ---


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        ("nothing", "No such file or directory"),
        ("folder", "Is a directory"),
        ("pipe", "that is no regular file"),
    ],
)
def test_flows_of_a_log_that_cannot_be_read(live: Live, there: str, reason: str) -> None:
    live.log.unlink()
    if there == "folder":
        live.log.mkdir()
    elif there == "pipe":
        os.mkfifo(live.log)
    response = live.get("/flows")
    assert (response.status_code, response.text) == (503, f"The log cannot be read: {reason}\n")


def test_flows_of_a_log_that_was_moved_or_cut(live: Live) -> None:
    records = numbered(start(), *(answered(second=number) for number in range(300)))
    live.log.write_bytes(lines(*records))
    piece = json.loads(live.get("/flows").content or b"")
    older = f"/flows?before={piece['before']}&at={piece['at']}"
    newer = f"/flows?after={piece['records'][0]['seq']}"
    live.log.rename(live.log.with_suffix(".1"))
    assert live.get(older).status_code == live.get(newer).status_code == 503
    live.log.write_bytes(lines(answered(seq=302), answered(seq=303)))
    assert seqs(live.get(newer)) == [303, 302]
    assert seqs(live.get(older)) == []
    live.log.write_bytes(b"")
    assert seqs(live.get(newer)) == seqs(live.get(older)) == []
    live.log.write_bytes(lines(answered(seq=304)))
    assert seqs(live.get(newer)) == [304]


def seqs(response: http.Response) -> list[int]:
    assert response.status_code == 200
    return [record["seq"] for record in json.loads(response.content or b"")["records"]]


def test_flows_are_the_newest_of_the_session(live: Live) -> None:
    records = [answered(second=number) for number in range(450)]
    other = [{**record, "session": "00000002"} for record in records]
    live.log.write_bytes(lines(start(), *records, *other))
    assert seqs(live.get("/flows")) == list(range(451, 251, -1))
    asked, found = "/flows", []
    while True:
        answer = live.get(asked)
        found += seqs(answer)
        piece = json.loads(answer.content or b"")
        if not piece["before"]:
            break
        asked = f"/flows?before={piece['before']}&at={piece['at']}"
    assert found == list(range(451, 1, -1))
    assert seqs(live.get("/flows?after=449")) == [451, 450]
    assert seqs(live.get("/flows?before=4&at=999999999")) == [3, 2]  # the log is another one


def test_a_piece_says_which_record_is_the_newest_wanted_or_not(live: Live) -> None:
    live.log.write_bytes(lines(start(), failed(), *(answered(second=n) for n in range(8))))
    for asked, newest in {
        "series=error": 10,
        "host=none.example": 10,
        "before=5": 10,
        "after=9": 10,
        "after=10": 10,
        "after=12": 12,
    }.items():
        assert json.loads(live.get(f"/flows?{asked}").content or b"")["newest"] == newest, asked
    live.log.write_bytes(b"")
    assert json.loads(live.get("/flows").content or b"")["newest"] == 0


def test_flows_are_narrowed(live: Live) -> None:
    records = [start(), answered(host="a"), failed(second=5, host="b", port=81), answered(404, 9)]
    live.log.write_bytes(lines(*records))
    id = incident_of(records[2])
    begin = BEGIN + 5
    for asked, wanted in {
        "host=a": [2],
        "host=b:81": [3],
        f"incident={id}": [3],
        "series=error": [3],
        "series=Success": [2],
        f"time={begin}-{begin + 1}": [3],
        f"time={begin}-{begin + 9}&series=Client%20error": [4],
        f"time={begin}-{begin + 4}": [3],  # what is at its end is not in it
        "host=c": [],
    }.items():
        assert seqs(live.get(f"/flows?{asked}")) == wanted, asked


def test_flows_of_a_host_are_asked_for_as_it_is_shown(live: Live) -> None:
    live.log.write_bytes(lines(start(), answered(host="\u202ea"), failed(host="a\x1b", port=81)))
    given = json.loads(live.get("/flows").content or b"")["records"]
    for record in given:
        place = record["derived"]["place"]
        assert place.isprintable()
        assert place == record["derived"]["keys"]["hosts"][0]
        assert seqs(live.get(f"/flows?{urlencode({'host': place})}")) == [record["seq"]]
    assert len(given) == 2


def test_background_traffic_is_among_the_flows_only_where_it_is_asked_for(live: Live) -> None:
    own: dict[str, Any] = {"host": "a", "background": "Chromium"}
    live.log.write_bytes(lines(start(), answered(), answered(**own), event(**own)))
    assert seqs(live.get("/flows")) == [2]
    assert seqs(live.get("/flows?background=with")) == [4, 3, 2]
    assert seqs(live.get("/flows?host=a")) == []
    assert seqs(live.get("/flows?host=a&series=Success&background=with")) == [3]


@pytest.mark.parametrize(
    "asked",
    [
        "background=no",
        "incident=x",
        "incident=",
        "host=",
        "time=1",
        "time=1-x",
        "before=-1",
        "at=1e9",
        "path=/etc",
    ],
)
def test_flows_asked_for_wrongly(live: Live, asked: str) -> None:
    response = live.get(f"/flows?{asked}")
    assert response.status_code == 400
    assert {name: response.headers[name] for name in ALWAYS} == ALWAYS


def test_a_piece_is_bounded_and_says_how_to_go_on(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "LONGEST", 0.0)
    monkeypatch.setattr(ranges, "BLOCK", 4096)
    live.log.write_bytes(lines(start(), failed(), *(answered(second=n) for n in range(200))))
    asked, pieces, found = "/flows?series=error", 0, []
    while asked:
        answer = live.get(asked)
        found += seqs(answer)
        piece = json.loads(answer.content or b"")
        asked = f"/flows?series=error&before={piece['before']}&at={piece['at']}" * bool(
            piece["before"]
        )
        pieces += 1
    assert found == [2]
    assert pieces > 10


def test_flows_of_a_log_that_is_gone(live: Live) -> None:
    live.log.unlink()
    assert live.get("/flows").status_code == 503


# --- the policy ---


def hashes(page: str, element: str) -> set[str]:
    """The hashes of what the policy must let run."""
    found = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    assert found
    return {f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in found}


def directives(policy: str) -> dict[str, set[str]]:
    parts = [part.split() for part in policy.split(";")]
    assert len({name for name, *_ in parts}) == len(parts)
    return {name: set(values) for name, *values in parts}


def page_of_file() -> tuple[str, str]:
    page = html.page(tally(answered(), answered(404)), html.About())
    return page, ""


def page_of_proxy() -> tuple[str, str]:
    response = Live(Path("/nowhere")).get()
    return response.text or "", response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("made", [page_of_file, page_of_proxy])
def test_the_policy_lets_its_own_script_and_style_run_and_nothing_else(
    made: Callable[[], tuple[str, str]],
) -> None:
    page, header = made()
    (meta,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    expected = {
        "default-src": {"'none'"},
        "script-src": hashes(page, "script"),
        "style-src": hashes(page, "style"),
        "img-src": {"data:"},
        "base-uri": {"'none'"},
        "form-action": {"'none'"},
    }
    if header:
        expected |= {"connect-src": {"'self'"}}
        assert directives(header) == expected | {"frame-ancestors": {"'none'"}}
    # Jinja2 writes ' as &#39; in an attribute.
    assert directives(meta.replace("&#39;", "'")) == expected
    assert not re.search(r"<[^>]* (?:style|on\w+)=", page.split("<script>")[0])
