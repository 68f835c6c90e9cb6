"""What the page says of what is picked, against what `flowtally report` says with the same filter;
and what can be known of it without a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import pytest
from flowtally.latest import Latest
from flowtally.moments import unix_second
from flowtally.report import figures_data
from flowtally.report import html
from flowtally.report import tables
from flowtally.report.flows_data import flows
from flowtally.report.view import durations
from flowtally.tally import TABLES
from flowtally.tally import incident_of
from flowtally.tally import place
from lab import browser as lab
from lab.cli import BEGIN as LOG_BEGIN
from lab.cli import HOSTILE
from lab.cli import Record
from lab.cli import answered
from lab.cli import event
from lab.cli import failed
from lab.cli import lines
from lab.cli import numbered
from lab.cli import run
from lab.cli import start
from lab.cli import tally
from lab.report_page import EVIL
from lab.report_page import HARMLESS
from lab.report_page import Data
from lab.report_page import check_bands
from lab.report_page import check_cells
from lab.report_page import check_charts
from lab.report_page import check_endpoints
from lab.report_page import check_hosts
from lab.report_page import check_problems
from lab.report_page import check_totals
from lab.report_page import hostile
from lab.report_page import read
from lab.report_page import shown
from lab.report_page import statistics
from lab.report_page import times
from lab.sessions import everything

if TYPE_CHECKING:
    from playwright.sync_api import Browser

BEGIN = unix_second(everything()[1]["time"]) // 60 * 60


@pytest.fixture(scope="module")
def session() -> list[Record]:
    """`--host` means all ports of a host, the page means one: these have only one."""
    records = everything(2000)
    hosts = ("ads.example", "id.example")
    for record in records:
        if "answers" in record:
            record["answers"] = record["flow"].replace("login", "asked")
    return numbered(*(r for r in records if r.get("port") != 8443 or r["host"] not in hosts))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, session: list[Record]) -> Path:
    path = tmp_path_factory.mktemp("figures") / "log.jsonl"
    path.write_bytes(lines(*session))
    done = run("report", path, "--html", path.with_suffix(".html"))
    assert done.returncode == 0, done.stderr
    return path


# -- without a browser


def test_a_flow_has_the_keys_under_which_the_tally_counts_it(session: list[Record]) -> None:
    for record in session:
        if record["type"] in ("flow", "event"):
            counted = tally(record)
            for name, key in figures_data.keys(record).items():
                rows = [k for k, row in counted[name].items() if row.count]
                assert rows == ([] if key is None else [key]), (name, record)


def columns_of(records: list[Record]) -> dict[str, dict[str, Any]]:
    found = figures_data.Keys()
    for record in records:
        found.add(record)
    return found.columns(range(len(records)))


def test_the_keys_of_many_flows_are_those_of_each(session: list[Record]) -> None:
    records = [record for record in session if record["type"] in ("flow", "event")]
    columns = columns_of(records)
    for index, record in enumerate(records):
        found = {
            name: column["words"][column["at"][index]]
            for name, column in columns.items()
            if column["at"][index] >= 0
        }
        assert found == figures_data.shown_keys(record)


def test_keys_are_fit_to_be_shown() -> None:
    records = numbered(failed(host=HOSTILE, url=f"http://h/{HOSTILE}"), event(host=HOSTILE))
    for column in columns_of(records).values():
        assert all(part.isprintable() for word in column["words"] for part in word)


def test_keys_that_look_alike_are_one() -> None:
    records = numbered(failed(host="a\x00"), failed(host="a\x01"))
    assert columns_of(records)["hosts"] == {"words": [["a\ufffd"]], "at": [0, 0]}


def test_each_table_for_people_is_one_of_the_statistics() -> None:
    names = {table.name for table in TABLES}
    assert {table.of for table in tables.TABLES} <= names
    assert [each["id"] for each in figures_data.declared()["tables"]] == [
        table.id for table in tables.TABLES
    ]


# -- against the command line


def incident(session: Sequence[Record], cause: str) -> str:
    return next(incident_of(record) for record in session if record.get("cause") == cause)


def local(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"


PICKS: dict[str, Callable[[Sequence[Record]], tuple[str, list[str], Callable[[Record], bool]]]] = {
    "a host": lambda _: ("host=id.example", ["--host", "id.example"], at("id.example")),
    "a host with its port": lambda _: (
        "host=cdn.example:8443",
        ["--host", "cdn.example:8443"],
        at("cdn.example:8443"),
    ),
    "an incident of flows": lambda session: (
        f"incident={incident(session, 'connection_timeout')}",
        ["--incident", incident(session, "connection_timeout")],
        of_incident(incident(session, "connection_timeout")),
    ),
    "an incident without flows": lambda session: (
        f"incident={incident(session, 'client_tls_rejected')}",
        ["--incident", incident(session, "client_tls_rejected")],
        of_incident(incident(session, "client_tls_rejected")),
    ),
    "a band": lambda _: (
        "series=Client error",
        ["--status", "Client error"],
        lambda record: record.get("band") == "Client error",
    ),
    "a span of time": lambda _: (
        f"time={BEGIN + 60}-{BEGIN + 240}",
        ["--since", local(BEGIN + 60) + "Z", "--until", local(BEGIN + 239) + ".999Z"],
        within(BEGIN + 60, BEGIN + 240),
    ),
    "a host in a span of time": lambda _: (
        f"time={BEGIN + 60}-{BEGIN + 240}&host=ads.example",
        [
            *("--since", local(BEGIN + 60) + "Z", "--until", local(BEGIN + 239) + ".999Z"),
            *("--host", "ads.example"),
        ],
        lambda record: within(BEGIN + 60, BEGIN + 240)(record) and at("ads.example")(record),
    ),
}


def at(host: str) -> Callable[[Record], bool]:
    return lambda record: place(record) == host


def of_incident(id: str) -> Callable[[Record], bool]:
    return lambda record: incident_of(record) == id


def within(begin: int, end: int) -> Callable[[Record], bool]:
    return lambda record: begin <= unix_second(record["time"]) < end


def check_what_is_picked(said: Data, data: Data, bars: list[int], part: bool) -> None:
    """Every figure, but for what is not shown while anything is picked."""
    check_totals(said["totals"], data)
    for row in data["incidents"] if part else ():
        row["examples"] = []  # they could be of another time
    check_problems(said["problems"], data)
    assert said["apart"] == []
    found = said["tables"]
    check_bands(found.get("bands"), data)
    check_hosts(found.get("hosts"), data, 200)
    check_endpoints(found, data, 200)
    check_charts(found, data)
    assert [int(row["cells"][2]["value"]) for row in found["durations"]["rows"]] == bars
    slowest = found.get("slowest", {"rows": []})["rows"]
    took = [float(row["cells"][4]["value"]) for row in slowest]
    assert took == [slow["duration_ms"] for slow in data["slowest"]]
    waited = sorted(float(row["cells"][3]["value"]) for row in slowest)
    assert waited == sorted(-1 if s["wait_ms"] is None else s["wait_ms"] for s in data["slowest"])
    media_types = {row["media_type"]: row for row in data["media_types"]}
    rows = found.get("media-types", {"rows": []})["rows"]
    assert {row["key"] for row in rows} == media_types.keys()
    for row in rows:
        of = media_types[row["key"]]
        numbers = [of["flows"], of["flows"] / data["totals"]["flows"], of["failures"]]
        check_cells(row, [*numbers, of["unsuccessful"], of["response_bytes"], *times(of)])
    kinds: dict[str, int] = {}
    for row in data["protocols"]:
        kinds[row["kind"]] = kinds.get(row["kind"], 0) + row["flows"]
    protocols = found.get("protocols", {"rows": []})["rows"]
    assert [int(row["cells"][1]["value"]) for row in protocols] == [
        number for _, number in sorted(kinds.items())
    ]


@pytest.mark.parametrize("what", PICKS)
def test_what_is_picked_is_what_the_command_line_says_of_it(
    browser: Browser, log: Path, session: list[Record], what: str
) -> None:
    hash, options, wanted = PICKS[what](session)
    records = [
        r for r in session if r["type"] in ("flow", "event") and "background" not in r and wanted(r)
    ]
    done = run("report", log, "--json", *options)
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)["statistics"]
    assert data["totals"]["flows"] + data["totals"]["events"] == len(records) > 0
    data["bands"] = statistics(*records)["bands"]  # they are sums of codes
    bars = [bar.count for bar in durations(tally(*records))]
    with lab.opened(browser) as page:
        watched = lab.watch(page)
        page.goto(f"{log.with_suffix('.html').as_uri()}#{hash.replace(' ', '+')}")
        page.locator("#picks .note", has_text=" of ").wait_for()
        check_what_is_picked(read(page), data, bars, "time" in hash)
        assert watched.trouble == []


# -- in a window


def test_without_a_pick_the_figures_are_those_of_the_report(browser: Browser, log: Path) -> None:
    with shown(browser, log.with_suffix(".html").as_uri()) as page:
        page.locator("#flows .flow").first.wait_for()
        before = read(page)
        assert not page.locator("#picks").is_visible()
        for pick in ("#hosts .pick", "#bands .total .pick", ".problem strong .pick"):
            page.locator(pick).first.click()
            assert page.locator("#picks").is_visible()
            assert read(page) != before
            page.locator(".chip").click()
            assert not page.locator("#picks").is_visible()
            assert read(page) == before


def test_an_incident_that_is_picked_is_told_in_full_until_it_is_folded(
    browser: Browser, log: Path
) -> None:
    with shown(browser, log.with_suffix(".html").as_uri()) as page:
        page.locator("#flows .flow").first.wait_for()
        last = page.locator(".problem").last
        assert not last.locator(".examples").is_visible()
        id = last.get_attribute("data-key")
        last.locator(".pick").first.click()
        picked = page.locator(".problem")
        assert picked.get_attribute("data-key") == id
        assert picked.locator(".examples").is_visible()
        picked.locator("summary").click()
        page.locator("#hosts .pick").first.click()
        assert not picked.locator(".examples").is_visible()
        address = page.url
    with lab.opened(browser) as page:
        page.goto(address)  # a link that was sent
        page.locator(".chip").first.wait_for()
        assert page.locator(".problem .examples").is_visible()


def test_of_a_part_no_share_is_told(browser: Browser, log: Path, session: list[Record]) -> None:
    """It would be a share of what is picked, and look like one of the whole."""
    id = incident(session, "connection_timeout")
    with shown(browser, log.with_suffix(".html").as_uri()) as page:
        page.locator("#flows .flow").first.wait_for()
        share = page.locator(f".problem[data-key='{id}'] .share")
        assert re.fullmatch(r"[\d.]+ % of [\d,]+ there", share.inner_text())
        page.evaluate("(id) => filter.set('incident', id)", id)
        assert page.locator(".problem").count() == 1
        assert page.locator(".share, .stopped").count() == 0
    said = run("why", log, "--incident", id).stdout
    assert id in said
    assert not re.search(r"\d of \d", said)


def test_of_several_days_each_time_that_is_summed_up_again_has_its_date(
    browser: Browser, tmp_path: Path
) -> None:
    day = 86_400
    log = tmp_path / "log.jsonl"
    log.write_bytes(
        lines(
            start(),
            *(failed(second=n * day, host="on-two-days.example") for n in range(2)),
            *(failed(second=day + n, host="on-one-day.example") for n in range(2)),
            failed(second=day, host="once.example"),
        )
    )
    assert run("report", log, "--html", log.with_suffix(".html")).returncode == 0
    spans = "(all) => all.map((each) => [each.dataset.key, each.querySelector('.span').innerText])"
    with shown(browser, log.with_suffix(".html").as_uri()) as page:
        page.locator("#flows .flow").first.wait_for()
        before = page.locator(".problem").evaluate_all(spans)
        assert len(before) == 3
        assert all(said.startswith("2026-01-0") for _, said in before)
        most = page.locator(".problem .bars").first.get_attribute("aria-label") or ""
        page.evaluate("filter.set('series', 'error')")
        page.locator(".chip").wait_for()
        assert page.locator(".problem").evaluate_all(spans) == before
        again = page.locator(".problem .bars").first.get_attribute("aria-label") or ""
        assert re.findall(r"most at \d{4}-\d\d-\d\d ", again) == re.findall(r"most at \S+ ", most)
        page.evaluate(f"filter.set('time', '{LOG_BEGIN}-{LOG_BEGIN + day}')")
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\d [\d:]{8} to \d{4}-\d\d-\d\d [\d:]{8} ✕",
            page.locator(".chip").last.inner_text(),
        )


def test_what_is_at_the_end_of_a_span_of_time_is_not_in_it(
    browser: Browser, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(start(), *(answered(second=second) for second in range(4))))
    assert run("report", log, "--html", log.with_suffix(".html")).returncode == 0
    with shown(browser, log.with_suffix(".html").as_uri()) as page:
        page.locator("#flows .flow").first.wait_for()
        page.evaluate(f"filter.set('time', '{LOG_BEGIN + 1}-{LOG_BEGIN + 3}')")
        assert page.locator("#flows .flow").count() == 2
        assert page.locator("[data-total=flows]").inner_text() == "2"


def test_the_rest_of_a_full_table_stays_the_last_whatever_is_picked(
    browser: Browser, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    hosts = [*("(other)",) * 3, "a.example", "b.example", "b.example"]
    log.write_bytes(lines(start(), *(answered(host=host) for host in hosts)))
    assert run("report", log, "--html", log.with_suffix(".html")).returncode == 0
    with shown(browser, log.with_suffix(".html").as_uri()) as page:
        page.locator("#flows .flow").first.wait_for()
        names = page.locator("#hosts tbody th")
        before = names.all_inner_texts()
        assert before == ["b.example", "a.example", "(other)"]
        page.evaluate("filter.set('series', 'Success')")
        page.locator(".chip").wait_for()
        assert names.all_inner_texts() == before


def test_an_incident_of_which_no_flow_is_there(browser: Browser, log: Path) -> None:
    with lab.opened(browser) as page:
        page.goto(f"{log.with_suffix('.html').as_uri()}#incident=deadbeef")
        page.locator(".chip").wait_for()
        assert page.locator("#problems .empty").inner_text() == (
            "No flow here is of incident deadbeef."
        )
        assert page.locator("#flows .figures").inner_text() == (
            "No flow here is of what is picked."
        )
        page.evaluate("filter.remove('incident')")
        page.evaluate("filter.set('series', 'Informational')")
        assert page.locator("#problems .empty").inner_text() == "No problems."


def test_a_pick_by_keyboard_keeps_its_place(browser: Browser, log: Path) -> None:
    with shown(browser, log.with_suffix(".html").as_uri()) as page:
        page.locator("#flows .flow").first.wait_for()
        host = page.locator("#hosts .pick").nth(3)
        name = host.inner_text()
        host.press("Enter")
        assert page.locator("#hosts tbody tr").count() == 1
        assert page.evaluate("document.activeElement.textContent") == name
        assert page.evaluate("document.activeElement.ariaPressed") == "true"
        said = page.get_by_role("region", name="What the page is narrowed to").get_by_role("status")
        assert " of " in said.inner_text()
        page.get_by_role("button", name=f"Do not narrow to host {name}").press("Enter")
        assert page.locator("#hosts tbody tr").count() > 1


def test_the_bar_of_picks_fits_a_narrow_window(browser: Browser, log: Path) -> None:
    with shown(browser, log.with_suffix(".html").as_uri(), lab.NARROW) as page:
        page.locator("#flows .flow").first.wait_for()
        page.evaluate("filter.set('series', 'Success')")
        page.evaluate("filter.set('host', 'x.'.repeat(140))")
        assert page.evaluate(lab.WIDTHS) == {"scrolls": False, "outside": []}
        page.emulate_media(media="print")
        assert page.evaluate(lab.WIDTHS)["scrolls"] is False


def test_of_what_the_page_does_not_hold_it_says_so(
    browser: Browser, log: Path, session: list[Record], tmp_path: Path
) -> None:
    with Latest([("log", log)], 1000) as latest:
        held = flows(latest)
    page_file = tmp_path / "part.html"
    page_file.write_text(html.page(tally(*session), html.About(flows=held)), "utf-8")
    with shown(browser, page_file.as_uri()) as page:
        page.locator("#flows .flow").first.wait_for()
        page.locator("#bands .total .pick").first.click()
        said = page.locator("#picks").inner_text()
        assert said.count(f"; the page holds {held.part}") == 1
        counted = re.search(r"(\d+) of (\d+) flows and failures without a flow;", said)
        assert counted is not None
        assert int(counted[1]) == int(read(page)["totals"]["flows"]["value"])
        assert int(counted[2]) <= 1000


@pytest.mark.parametrize("texts", [HARMLESS, EVIL], ids=["harmless", "evil"])
def test_hostile_names_are_only_text_whatever_is_picked(
    browser: Browser, tmp_path: Path, texts: tuple[str, ...]
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(*hostile(texts)))
    done = run("report", log, "--html", log.with_suffix(".html"))
    assert done.returncode == 0, done.stderr
    with shown(browser, log.with_suffix(".html").as_uri()) as page:
        page.locator("#flows .flow").first.wait_for()
        picks = page.locator("[data-pick]:not(#traffic *)").evaluate_all(
            "(all) => all.map(({ dataset }) => [dataset.pick, dataset.of])"
        )
        found = list(dict.fromkeys(map(tuple, picks)))
        incidents = [each for each in found if each[0] == "incident"][::12]
        hosts = [each for each in found if each[0] == "host"][::2]
        assert len(incidents) > 3
        assert len(hosts) > 5
        for pick, of in [*incidents, *hosts]:
            page.evaluate("([pick, of]) => filter.set(pick, of)", [pick, of])
            said = page.evaluate(lab.ELEMENTS)
            assert said["unknown"] == []
            assert said["handlers"] == 0
            assert [said[name] for name in ("img", "iframe", "base", "form", "style")] == [
                *(0, 0, 0, 0, 1)
            ]
            page.evaluate("(pick) => filter.remove(pick)", pick)
        assert page.evaluate("({}).polluted === undefined")
