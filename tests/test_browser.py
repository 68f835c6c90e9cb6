"""The HTML report and the live page in a real browser: what stands there, what works, and that
nothing that came through the proxy can run in it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import pytest
from flowtally.report import flows_text
from flowtally.report.flows_data import shown as flow_shown
from flowtally.report.html import COLOURS
from flowtally.report.incidents_html import MOST
from flowtally.report.incidents_html import OPEN
from flowtally.rows import EVENT
from flowtally.tally import place
from flowtally.vocabulary import error_fields
from lab import browser as lab
from lab import clients
from lab import proxy as proxy_module
from lab import servers
from lab.cli import Record
from lab.cli import answered
from lab.cli import cancelled
from lab.cli import event
from lab.cli import failed
from lab.cli import final
from lab.cli import lines
from lab.cli import run
from lab.cli import start
from lab.laboratory import Laboratory
from lab.laboratory import Setup
from lab.proxy import WAIT_TIMEOUT
from lab.proxy import Mitmdump
from lab.report_page import EVIL
from lab.report_page import HARMLESS
from lab.report_page import Data
from lab.report_page import bands
from lab.report_page import by_name
from lab.report_page import check_bands
from lab.report_page import check_cells
from lab.report_page import check_charts
from lab.report_page import check_endpoints
from lab.report_page import check_hosts
from lab.report_page import check_problems
from lab.report_page import check_totals
from lab.report_page import code_name
from lab.report_page import column
from lab.report_page import hostile
from lab.report_page import read
from lab.report_page import reads_as
from lab.report_page import shown
from lab.report_page import statistics
from lab.report_page import times
from lab.servers import SHORT_BODY
from lab.servers import Answer
from lab.servers import AnsweringServer
from lab.servers import Request
from lab.servers import redirect
from lab.sessions import everything
from lab.websocket import WebSocketServer
from websockets.sync.client import connect

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page

Report = Callable[..., str]
"""Records → the address of the report on them."""


@pytest.fixture(scope="module")
def session() -> list[Record]:
    records = everything()
    return [*records, final(*records)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Writes reports."""

    def write(*logs: bytes) -> str:
        folder = tmp_path_factory.mktemp("report")
        paths = []
        for number, log in enumerate(logs):
            paths.append(folder / f"{number}.jsonl")
            paths[-1].write_bytes(log)
        page = folder / "report.html"
        done = run("report", *paths, "--html", page)
        assert done.returncode == 0, done.stderr
        return page.as_uri()

    return write


@pytest.fixture(scope="module")
def report(written: Report, session: list[Record]) -> str:
    """The report on a session in which everything happened."""
    return written(lines(*session))


@pytest.fixture(scope="module")
def expected(session: list[Record]) -> Data:
    """What it has to say."""
    return statistics(*session)


def in_json(data: Data) -> Data:
    """What of `statistics` a report in JSON has."""
    return {name: rows for name, rows in data.items() if name != "bands"}


# -- what it says


def check_numbers(said: Data, data: Data, rows: int = 200) -> None:
    """What a report says is what the statistics say. `rows`: the most that a table shows."""
    check_totals(said["totals"], data)
    check_problems(said["problems"], data)
    check_apart(said["apart"], data)
    check_bands(said["tables"].get("bands"), data)
    check_hosts(said["tables"].get("hosts"), data, rows)
    check_endpoints(said["tables"], data, rows)
    check_charts(said["tables"], data)
    check_others(said["tables"], data)


def check_apart(said: list[str], data: Data) -> None:
    """What is no problem is said all the same."""
    counts = [row["flows"] for row in data["causes"] if row["error_code"] is None]
    counts += [data["totals"][name] for name in ("challenges", "collateral", "background")]
    numbers = [int(text.split(" ")[0]) for text in said if text[0].isdecimal()]
    assert sorted(numbers) == sorted(filter(None, counts))


def check_others(tables: Data, data: Data) -> None:
    slowest = tables.get("slowest", {"rows": []})["rows"]
    wanted = {f"{slow['flow']}/{slow['time']}": slow for slow in data["slowest"]}
    assert {row["key"] for row in slowest} == wanted.keys()
    took = [float(row["cells"][4]["value"]) for row in slowest]
    assert took == sorted(took, reverse=True)
    for row in slowest:
        slow = wanted[row["key"]]
        assert float(row["cells"][4]["value"]) == slow["duration_ms"]
        assert reads_as(row["cells"][4]["text"], slow["duration_ms"])
        began = datetime.fromisoformat(row["cells"][1]["value"])
        spent = (datetime.fromisoformat(slow["time"]) - began).total_seconds()
        assert spent * 1000 == pytest.approx(slow["duration_ms"], abs=1)
    media_types = by_name(data, "media_types", "media_type")
    for row in tables.get("media-types", {"rows": []})["rows"]:
        of = media_types.pop(row["key"])
        numbers = [of["flows"], of["flows"] / data["totals"]["flows"], of["failures"]]
        check_cells(row, [*numbers, of["unsuccessful"], of["response_bytes"], *times(of)])
    assert not media_types
    flows: dict[str, int] = {}
    for row in data["protocols"]:
        flows[row["kind"]] = flows.get(row["kind"], 0) + row["flows"]
    protocols = tables.get("protocols", {"rows": []})["rows"]
    assert [int(row["cells"][1]["value"]) for row in protocols] == [
        count for _, count in sorted(flows.items())
    ]


def test_every_number_is_that_of_the_statistics(
    browser: Browser, report: str, expected: Data
) -> None:
    with shown(browser, report) as page:
        check_numbers(read(page), expected)
        flows = expected["totals"]["flows"]
        assert page.title() == f"flowtally: {flows} flows, 101 problems"


def test_without_scripts_every_number_is_there(
    browser: Browser, report: str, expected: Data
) -> None:
    with lab.opened(browser, java_script_enabled=False) as page:
        page.goto(report)
        page.locator("#traffic summary").click()
        said = read(page)
        check_numbers(said, expected)
        assert [row for table in said["tables"].values() for row in table["rows"]]
        # Where a chart would be is nothing: no box, no hole.
        for box in page.locator("[data-chart]").all():
            size = box.bounding_box()
            assert size is None or size["height"] == 0
        assert page.locator("input, th button").count() == 0
        lab.picture(page, "report-no-scripts")


def test_a_session_in_which_nothing_happened(browser: Browser, written: Report) -> None:
    for size in (lab.NARROW, lab.WIDE):
        with shown(browser, written(lines(start(), final())), size) as page:
            assert (
                page.locator("#problems")
                .inner_text()
                .endswith("Nothing came through: is the client pointed at the proxy?")
            )
            check_totals(read(page)["totals"], statistics())
            # Nothing of what has nothing to show.
            assert page.locator("main section:visible h2").all_inner_texts() == [
                "Problems",
                "About this report",
            ]
            assert page.evaluate(lab.WIDTHS) == {"scrolls": False, "outside": []}
            assert page.evaluate(lab.OVERLAPS) == []
            lab.picture(page, f"report-empty-{size[0]}")


def test_a_session_without_problems(browser: Browser, written: Report) -> None:
    with shown(browser, written(lines(start(), answered()))) as page:
        assert page.locator("#problems .empty").inner_text() == "No problems."


def test_of_many_incidents_the_first_are_shown_and_the_others_counted(
    browser: Browser, written: Report
) -> None:
    records = [
        failed(("dns_error", "connection_refused")[number % 2], number, host=f"h{number}.example")
        for number in range(MOST + 7)
        for _ in range(1 + number % 3)
    ]
    for size in (lab.NARROW, lab.WIDE):
        with shown(browser, written(lines(start(), *records)), size) as page:
            assert page.locator(".problem").count() == MOST
            assert page.locator(".problem details[open]").count() == OPEN
            note = page.locator("#problems .note").inner_text()
            assert note.startswith(f"{MOST + 7} incidents, ")
            assert f"the first {MOST}" in note
            assert page.evaluate(lab.WIDTHS) == {"scrolls": False, "outside": []}
            assert page.evaluate(lab.OVERLAPS) == []


def test_what_is_no_problem_is_folded(browser: Browser, report: str, expected: Data) -> None:
    with shown(browser, report) as page:
        apart = page.locator("#apart")
        assert not apart.locator("li").first.is_visible()
        cancelled = expected["totals"]["cancelled"]
        assert f": {cancelled} cancelled, 2 unfinished, " in apart.locator("summary").inner_text()
        apart.locator("summary").click()
        assert apart.locator("li").first.is_visible()


def test_several_logs_are_one_report(browser: Browser, written: Report) -> None:
    ids = ("00000001", "00000002", "00000003")
    sessions = [everything(100 * number, session) for number, session in enumerate(ids, 1)]
    logs = [lines(*records, final(*records, session=records[0]["session"])) for records in sessions]
    with shown(browser, written(*logs)) as page:
        said = read(page)
        check_numbers(said, statistics(*(record for log in sessions for record in log)))
        assert [note.split(",")[0] for note in said["notes"][:3]] == [
            f"Session {session}" for session in ids
        ]


def test_a_session_that_was_killed_says_so(browser: Browser, written: Report) -> None:
    with shown(browser, written(lines(start(), answered()) + b'{"type": "fl')) as page:
        notes = read(page)["notes"]
    assert notes[0].endswith("; it did not end cleanly, or is still running")
    assert "1 unreadable line skipped" in notes


# -- how it looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [lab.NARROW, lab.WIDE], ids=["narrow", "wide"])
def test_layout(browser: Browser, report: str, size: tuple[int, int], scheme: str) -> None:
    with shown(browser, report, size, color_scheme=scheme) as page:
        assert page.evaluate(lab.WIDTHS) == {"scrolls": False, "outside": []}
        assert page.evaluate(lab.OVERLAPS) == []
        # WCAG 2.2, 1.4.3.
        contrasts = page.evaluate(lab.CONTRASTS)
        assert len(contrasts) > 100
        assert {text: ratio for text, ratio in contrasts.items() if ratio < 4.5} == {}
        lab.picture(page, f"report-{size[0]}-{scheme}")
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert page.evaluate(lab.WIDTHS) == {"scrolls": False, "outside": []}
        assert page.evaluate(lab.OVERLAPS) == []


def colour(page: Page, selector: str, name: str) -> str:
    found: str = page.locator(selector).first.evaluate(
        "(element, name) => getComputedStyle(element)[name]", name
    )
    return found


def test_a_band_has_one_colour(browser: Browser, report: str) -> None:
    problem = {kind: f".problem.{kind}" for kind in ("client", "server", "failure")}
    table = {kind: f"#bands tbody.{kind} th" for kind in ("informational", "success", "client")}
    grounds = set()
    for scheme in ("light", "dark"):
        with shown(browser, report, color_scheme=scheme) as page:
            grounds.add(colour(page, "body", "backgroundColor"))
            inks = page.locator("#traffic canvas").evaluate(lab.INK)
            for series, kind in COLOURS.items():
                if series == EVENT:
                    continue  # no flow, so it has no part in the bar of all flows
                accent = colour(page, f"#totals .swatch.{kind}", "backgroundColor")
                assert colour(page, f"#totals rect.{kind}", "fill") == accent
                if kind in problem:
                    assert colour(page, problem[kind], "borderLeftColor") == accent
                if kind in table:
                    assert colour(page, table[kind], "borderLeftColor") == accent
                assert ",".join(re.findall(r"\d+", accent)) in inks, f"{kind} in the chart"
    assert len(grounds) == 2


PAPER = (718, 1000)
"""A4 with the usual margins, in CSS pixels."""
OUT_OF_PAPER = """
() => [...document.querySelectorAll("td, th")].filter((cell) =>
  cell.getBoundingClientRect().right > innerWidth + 0.5).map((cell) => cell.outerHTML)
"""


NOTE_PRINTED = """
() => addEventListener("beforeprint", () => {
  window.closed = document.querySelectorAll(".problem details:not([open])").length;
})
"""


def test_print(browser: Browser, report: str) -> None:
    for scheme in ("light", "dark"):
        with shown(browser, report, PAPER, color_scheme=scheme) as page:
            page.emulate_media(media="print")
            assert page.evaluate(lab.WIDTHS) == {"scrolls": False, "outside": []}
            assert page.evaluate(OUT_OF_PAPER) == []
            assert page.locator("input:visible").count() == 0
            assert colour(page, "html", "backgroundColor") == "rgb(255, 255, 255)"
            cut = page.evaluate(
                "() => [...document.querySelectorAll('.scroll')].filter((box) =>"
                " box.scrollHeight > box.clientHeight + 1"
                " && getComputedStyle(box).overflowY !== 'visible').length"
            )
            assert cut == 0
            rows = page.locator("table.data tbody tr")
            assert rows.count() == rows.filter(visible=True).count() > 50
            assert {k: v for k, v in page.evaluate(lab.CONTRASTS).items() if v < 4.5} == {}
            lab.picture(page, f"report-print-{scheme}")
            page.locator(".problem details:not([open]) summary").first.click(force=True)
            opened = page.locator(".problem details[open]").count()
            page.evaluate(NOTE_PRINTED)
            page.pdf()
            assert page.evaluate("closed") == 0, "the printer gets all examples"
            assert page.locator(".problem details[open]").count() == opened, "as it was"


# -- what one can do with it


@pytest.mark.parametrize("chart", ["traffic", "durations"])
def test_charts(browser: Browser, report: str, chart: str) -> None:
    with shown(browser, report) as page:
        section = page.locator(f"#{chart}")
        assert len(section.locator("canvas").evaluate(lab.INK)) > 2
        legend = {"traffic": " | ".join, "durations": " | ".join}[chart]
        values = section.locator(".u-value")
        table = read(page)["tables"][chart]
        series = table["head"][1:] if chart == "traffic" else ["flows"]
        column = {name: table["head"].index(name) for name in series}
        labels = section.locator(".u-label").all_inner_texts()[1:]
        assert sorted(labels) == sorted(series)
        sums = {
            name: f"{sum(int(row['cells'][column[name]]['value']) for row in table['rows']):,}"
            for name in series
        }
        assert values.all_inner_texts() == ["in all", *(sums[name] for name in labels)]

        over = section.locator(".u-over")
        width = over.evaluate("(element) => element.clientWidth")
        for at in (3, len(table["rows"]) // 2, len(table["rows"]) - 2):
            # In the timeline a bar begins at its point, in the distribution it is around it.
            share = (at + 0.25) / len(table["rows"])
            if chart == "durations":
                share = (at + 0.6) / (len(table["rows"]) + 0.2)
            over.hover(position={"x": width * share, "y": 50})
            cells = table["rows"][at]["cells"]
            said = values.all_inner_texts()
            assert said[1:] == [f"{int(cells[column[name]]['value']):,}" for name in labels]
            assert said[0].startswith(cells[0]["text"].split(".")[0]) or chart == "durations"
            assert legend(said)
        page.mouse.move(0, 0)
        assert values.first.inner_text() == "in all"


FITS = """
() => [...document.querySelectorAll(".chart")].every((box) =>
  box.firstElementChild.clientWidth <= box.clientWidth)
"""
"""Whether the charts are no wider than their places."""


def test_a_chart_fits_the_window_when_that_changes(browser: Browser, report: str) -> None:
    with shown(browser, report) as page:
        page.set_viewport_size({"width": lab.NARROW[0], "height": lab.NARROW[1]})
        page.wait_for_function(FITS)
        assert page.evaluate(lab.WIDTHS) == {"scrolls": False, "outside": []}


def test_sorting(browser: Browser, report: str) -> None:
    with shown(browser, report) as page:
        hosts = page.get_by_role("region", name="Hosts")
        heads = hosts.get_by_role("columnheader")
        assert heads.evaluate_all("(heads) => heads.some((h) => h.ariaSort)") is False
        for name, number in (("Received", 8), ("Unsuccessful", 4), ("p95", 12)):
            button = hosts.get_by_role("button", name=name, exact=True)
            for direction in ("descending", "ascending", "descending"):
                button.click()
                values = [float(value) for value in column(page, "hosts", number)]
                assert values == sorted(values, reverse=direction == "descending")
                assert hosts.locator("[aria-sort]").count() == 1
                assert heads.nth(number - 1).get_attribute("aria-sort") == direction
        hosts.get_by_role("button", name="Host").click()  # names begin at their beginning
        names = column(page, "hosts", 1)
        assert names == sorted(names)


def test_a_comparison_is_sorted_too(browser: Browser, tmp_path: Path) -> None:
    logs = [tmp_path / "before.jsonl", tmp_path / "after.jsonl"]
    for log, status in zip(logs, (200, 500), strict=True):
        log.write_bytes(lines(start(), *(answered(status, second=n) for n in range(200))))
    address = tmp_path / "comparison.html"
    assert run("compare", *logs, "--html", address).returncode == 0
    with shown(browser, address.as_uri()) as page:
        table = page.locator("table").first
        assert table.locator("th button").count() > 0


def test_sorting_keeps_codes_in_their_bands(browser: Browser, report: str, expected: Data) -> None:
    with shown(browser, report) as page:
        for head in ("Flows", "max", "Band and code", "Band and code"):
            page.locator("#bands").get_by_role("button", name=head, exact=True).click()
            table = read(page)["tables"]["bands"]
            groups: dict[str, list[str]] = {}
            band = ""
            for row in table["rows"]:
                if row["total"]:
                    band = row["key"]
                groups.setdefault(band, []).append(row["key"])
            for name, (_, *rows) in bands(expected).items():
                codes = [code_name(row) for row in rows]
                assert groups[name][0] == name
                assert sorted(groups[name][1:]) == codes
            check_bands(
                {"rows": sorted(table["rows"], key=lambda row: order(row, expected))}, expected
            )
        assert next(iter(groups)) == "Success"  # the last click reversed the names
        assert groups["Success"] == ["Success", "204 No content", "201 Created", "200 OK"]


def order(row: Data, expected: Data) -> tuple[int, bool, str]:
    """Where a row of the table of bands stands at first."""
    for number, (band, (_, *codes)) in enumerate(bands(expected).items()):
        names = [code_name(code) for code in codes]
        if row["key"] in (band, *names):
            return number, not row["total"], row["key"]
    raise AssertionError(row["key"])


def test_filtering(browser: Browser, report: str) -> None:
    with shown(browser, report) as page:
        section = page.locator("#failing")
        field = section.get_by_role("searchbox", name="Filter Failing endpoints")
        rows = section.locator("tbody tr")
        visible = rows.filter(visible=True)
        everything = rows.count()
        names = column(page, "failing", 1)
        for words in (
            "shop",
            "SHOP post",
            "post /search",
            "{id} cdn.example get",
            "nothing at all",
        ):
            field.fill(words)
            wanted = [n for n in names if all(w in n.lower() for w in words.lower().split())]
            assert visible.count() == len(wanted)
            assert section.locator("output").inner_text() == f"{len(wanted)} of {everything}"
        section.get_by_role("button", name="Failed").click()
        assert visible.count() == 0, "sorting keeps the filter"
        field.fill("")
        assert visible.count() == everything
        assert section.locator("output").inner_text() == ""


def test_filtering_shows_a_code_with_its_band(browser: Browser, report: str) -> None:
    with shown(browser, report) as page:
        field = page.get_by_role("searchbox", name="Filter Status")
        visible = page.locator("#bands tbody tr").filter(visible=True).locator("th")
        field.fill("404")
        assert visible.all_inner_texts() == ["Client error", "404 Not found"]
        field.fill("redirection")
        assert visible.all_inner_texts()[0] == "Redirection"
        assert visible.count() == 4, "a band that is asked for comes with its codes"


def test_by_keyboard(browser: Browser, report: str) -> None:
    with shown(browser, report) as page:
        page.keyboard.press("Tab")
        assert focused(page) == "Skip to the problems"
        page.keyboard.press("Enter")
        assert page.url.endswith("#problems")
        page.go_back()

        reached: list[str] = []
        page.locator("body").focus()
        wanted = {f"SUMMARY {MORE}", "BUTTON Received", "INPUT Filter Hosts", "DIV Hosts"}
        while not wanted <= set(reached):
            page.keyboard.press("Tab")
            reached.append(page.evaluate(FOCUSED))
            assert len(reached) < 500, reached
            if reached[-1] == f"SUMMARY {MORE}" and reached.count(reached[-1]) == 1:
                assert page.evaluate("document.activeElement.parentElement.open")
                page.keyboard.press("Enter")
                assert not page.evaluate("document.activeElement.parentElement.open")
            if reached[-1] == "INPUT Filter Hosts":
                page.keyboard.type("pinned")
                assert page.locator("#hosts tbody tr").filter(visible=True).count() == 1
                page.keyboard.press("Control+A")
                page.keyboard.press("Delete")
                assert page.locator("#hosts tbody tr").filter(visible=True).count() > 1
            if reached[-1] == "BUTTON Received" and page.evaluate(IN_HOSTS):
                page.keyboard.press("Enter")
                head = page.locator("#hosts thead th").nth(6)
                assert head.get_attribute("aria-sort") == "descending"
                page.keyboard.press("Space")
                assert head.get_attribute("aria-sort") == "ascending"
                assert page.evaluate(FOCUSED) == "BUTTON Received", "sorting keeps the focus"
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"{reached[-1]} does not show that it has the focus"


def focused(page: Page) -> str:
    text: str = page.evaluate("document.activeElement.textContent.trim()")
    return text


MORE = "What to do, and where"
FOCUSED = """(() => {
  const element = document.activeElement;
  const label = element.getAttribute("aria-labelledby");
  return `${element.tagName} ${element.ariaLabel ??
    (label ? document.getElementById(label) : element).textContent.trim()}`;
})()"""
IN_HOSTS = "!!document.activeElement.closest('#hosts')"


def test_accessible_names(browser: Browser, report: str) -> None:
    with shown(browser, report) as page:
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        tree = page.locator("body").aria_snapshot()
        for role in ("region", "searchbox", "button", "link", "img"):
            found = re.findall(rf"^ *- {role}\b(.*)$", tree, re.MULTILINE)
            assert found, role
            assert all(rest.startswith(' "') for rest in found), f"{role} without a name"
        headings = re.findall(r'- heading "(.*?)" \[level=(\d)\]', tree)
        levels = [int(level) for _, level in headings]
        assert levels[0] == 1
        assert set(levels[1:]) == {2}
        assert [name for name, _ in headings[1:4]] == [
            "Traffic over time",
            "Problems",
            "Flows",
        ]
        assert tree.count("- table") == page.locator("table:has(thead)").count()
        for table in page.locator("table:has(thead)").all():
            heads = table.locator("thead th")
            assert heads.evaluate_all("(heads) => heads.every((h) => h.scope === 'col')")
            assert (
                table.locator("tbody tr > th[scope=row]").count()
                == table.locator("tbody tr").count()
            )
        # The parts bar says in words what it shows in colours.
        assert page.get_by_role("img", name=re.compile(r"Success \d+\.\d %, .*Failed")).count() == 1


# -- the list of flows


@pytest.fixture(scope="module")
def many(written: Report) -> str:
    """The report on five thousand flows, of which every tenth fails."""
    records = [
        failed(second=n / 10, host="dead.example", url=f"http://dead.example/{n}", detail="no")
        if n % 10 == 0
        else answered(second=n / 10, url=f"http://shop.example/{n}", connect_ms=2.5, tls_ms=1.5)
        for n in range(5000)
    ]
    return written(lines(start(), *records))


def test_only_the_rows_that_are_seen_are_there(browser: Browser, many: str) -> None:
    with shown(browser, many) as page:
        rows = page.locator("#flows .flow")
        rows.first.wait_for()
        assert rows.count() < 60
        assert "/4999" in rows.first.inner_text(), "newest first"
        page.locator("#flows .rows").evaluate("(box) => { box.scrollTop = box.scrollHeight; }")
        rows.filter(has_text=re.compile(r"dead\.example/0$")).wait_for()
        assert rows.count() < 60
        assert page.locator("#flows .figures").inner_text().startswith("5,000 flows")


def test_a_browser_that_cannot_unpack_the_list_says_so(browser: Browser, many: str) -> None:
    with lab.opened(browser) as page:
        page.add_init_script("delete globalThis.DecompressionStream")
        page.goto(many)
        said = page.locator("#flows-list .empty", has_text="This browser cannot show the list: ")
        said.wait_for()


def test_a_narrow_window_has_no_box_that_scrolls_but_turns_pages(
    browser: Browser, many: str
) -> None:
    with shown(browser, many, lab.NARROW) as page:
        rows = page.locator("#flows .flow")
        rows.first.wait_for()
        box = page.locator("#flows .rows")
        assert box.evaluate("(box) => getComputedStyle(box).overflowY") == "visible"
        assert rows.count() == 20
        page.get_by_role("button", name="Older").click()
        assert "/4979" in rows.first.inner_text()
        page.get_by_role("button", name="Newer").click()
        assert "/4999" in rows.first.inner_text()
        rows.nth(1).click()
        assert page.evaluate(lab.WIDTHS) == {"scrolls": False, "outside": []}
        assert page.evaluate(lab.OVERLAPS) == []


def test_a_flow_opens_to_its_record(browser: Browser, many: str) -> None:
    with shown(browser, many) as page:
        row = page.locator("#flows .flow", has_text="shop.example/4999")
        row.click()
        detail = page.get_by_role("region", name="The chosen flow")
        for said in ("wait_ms\n20", "status\n200", "url\nhttp://shop.example/4999", "seq\n5001"):
            assert said in detail.inner_text()
        assert (
            detail.get_by_role("img").get_attribute("aria-label")
            == "connect 2 ms, TLS 2 ms, wait 20 ms, transfer 1 ms"
        )
        assert "curl --globoff --path-as-is --url http://shop.example/4999" in detail.inner_text()
        assert row.get_attribute("aria-expanded") == "true"
        page.keyboard.press("Escape")
        assert not detail.is_visible()
        assert page.evaluate("document.activeElement.dataset.row") == "0"


INSIDE = {"cors_blocked": 200, "graphql_error": 200, "redirect_loop": 302}
"""Cause → the status of a complete answer that is a problem all the same."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_problem_inside_a_complete_answer_looks_like_one(
    browser: Browser, written: Report, scheme: Any
) -> None:
    inside = [
        answered(status, second, cause=cause, side="server", **error_fields(cause))
        for second, (cause, status) in enumerate(INSIDE.items())
    ]
    others = [failed(second=3), answered(404, 4), answered(503, 5), answered(200, 6)]
    log = lines(start(), *inside, *others)
    with shown(browser, written(log), color_scheme=scheme) as page:
        rows = page.locator("#flows .flow")
        rows.first.wait_for()
        assert [
            (each.locator(".result").inner_text(), each.evaluate("(row) => row.classList[1]"))
            for each in rows.all()
        ] == [
            ("200 OK", "success"),
            ("503 Service unavailable", "server"),
            ("404 Not found", "client"),
            ("connection_refused -2", "failure"),
            ("302 redirect_loop -5", "failure"),
            ("200 graphql_error -3", "failure"),
            ("200 cors_blocked -1", "failure"),
        ]
        failure = colour(page, ".flow.failure .result", "color")
        assert failure != colour(page, ".flow.success .result", "color")
        for cause in INSIDE:
            rows.filter(has_text=cause).click()
            assert colour(page, "#flow h3", "color") == failure
            bar = page.locator(".around li button", has_text=cause).locator(".span")
            assert bar.evaluate("(bar) => bar.className") == "span failure"
        rows.filter(has_text="200 OK").click()
        assert colour(page, "#flow h3", "color") == colour(page, "body", "color")
        assert {k: v for k, v in page.evaluate(lab.CONTRASTS).items() if v < 4.5} == {}


BACKGROUND = (
    answered(
        204, 1, background="Chromium", host="update.example", url="http://update.example/check"
    ),
    event(second=2, background="Windows", host="telemetry.example"),
)


@pytest.mark.parametrize("size", [lab.NARROW, lab.WIDE], ids=["narrow", "wide"])
def test_background_traffic_is_in_the_list_only_where_it_is_wanted(
    browser: Browser, written: Report, size: tuple[int, int]
) -> None:
    log = lines(start(), failed(), *BACKGROUND)
    with shown(browser, written(log), size, color_scheme="light") as page:
        rows, said = page.locator("#flows .flow"), page.locator("#flows [role=status]")
        rows.first.wait_for()
        assert rows.count() == 1
        assert said.inner_text() == "1 flow or failure without a flow"
        failure = colour(page, "#flows .flow .result", "color")
        wanted = page.get_by_label("with background traffic (2)")
        wanted.press("Space")
        assert rows.count() == 3
        assert said.inner_text() == "3 flows and failures without a flow"
        assert "(background: Windows)" in rows.nth(0).inner_text()
        assert "(background: Chromium) GET http://update.example" in rows.nth(1).inner_text()
        muted = colour(page, "#flows .flow.background .result", "color")
        assert muted == colour(page, "#flows .note", "color") != failure
        assert page.evaluate(lab.WIDTHS) == {"scrolls": False, "outside": []}
        assert page.evaluate(lab.OVERLAPS) == []
        lab.picture(page, f"background-{size[0]}")
        page.evaluate("filter.set('host', 'update.example')")
        assert rows.count() == 1
        wanted.press("Space")
        assert rows.count() == 0
        assert said.inner_text() == "No flow here is of what is picked."


def test_without_background_traffic_there_is_no_switch(browser: Browser, many: str) -> None:
    with shown(browser, many) as page:
        page.locator("#flows .flow").first.wait_for()
        assert page.locator("#flows input").is_hidden()


def test_of_a_comparison_nothing_is_cut_off_in_a_narrow_window(
    browser: Browser, tmp_path: Path
) -> None:
    logs = [tmp_path / "before.jsonl", tmp_path / "after.jsonl"]
    good = [answered(second=n) for n in range(20_000)]
    logs[0].write_bytes(lines(start(), *good, *(answered(404, n) for n in range(1200))))
    logs[1].write_bytes(lines(start(), *good, *(answered(404, n) for n in range(1250)), failed()))
    page_file = tmp_path / "page.html"
    assert run("compare", *logs, "--html", page_file).returncode == 0
    with shown(browser, page_file.as_uri(), lab.NARROW) as page:
        said = page.locator("td, tbody small").filter(has_text="chance")
        assert said.count() > 0
        for box in said.all():
            place = box.bounding_box()
            assert place is not None
            assert place["x"] + place["width"] <= lab.NARROW[0] - 8, box.inner_text()


def lasting(record: Record, ms: float, **fields: Any) -> Record:
    """A record of so many ms, which says nothing of a wait or an answer's size but in `fields`."""
    bare = {name: record[name] for name in record if name not in ("wait_ms", "response_bytes")}
    return bare | {"duration_ms": ms, **fields}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (lasting(answered(), 21, wait_ms=20), "wait 20 ms, transfer 1 ms"),
        (lasting(answered(), 5.8, connect_ms=0.4, wait_ms=5), "wait 5 ms"),
        (lasting(answered(), 0.4, wait_ms=0.1), None),
        (lasting(answered(), 9), None),
        (lasting(failed("http_response_timeout"), 9, connect_ms=3), "connect 3 ms, wait 6 ms"),
        (lasting(failed(), 9, response_bytes=7), None),
        (lasting(failed("http_response_timeout"), 9, reused=True), "wait 9 ms"),
        (lasting(failed("http_response_timeout", reason="tls_handshake"), 9), "connecting 9 ms"),
        (lasting(failed("tls_certificate_error"), 9), "connecting 9 ms"),
        (lasting(failed("tls_protocol_error"), 9, connect_ms=3), "connect 3 ms, TLS 6 ms"),
        (lasting(failed("connection_terminated"), 9), "wait 9 ms"),
        (lasting(failed(), 9), "connecting 9 ms"),
        (lasting(failed("dns_error"), 9), "connecting 9 ms"),
        (lasting(failed("dns_timeout"), 9, kind="dns"), "wait 9 ms"),
        (lasting(failed("http_request_error"), 9), None),
        (lasting(cancelled(), 9), "wait 9 ms"),
        (lasting(failed(), 9, kind="tcp"), None),
        (lasting(failed(), 9, kind="udp"), None),
    ],
)
def test_a_flow_says_only_of_what_is_known_where_its_time_went(
    browser: Browser, written: Report, record: Record, said: str | None
) -> None:
    with shown(browser, written(lines(start(), record))) as page:
        page.locator("#flows .flow").click()
        bar = page.locator("#flow .phases")
        assert bar.count() == (said is not None)
        if said:
            assert bar.get_attribute("aria-label") == said
            assert page.locator("#flow .legend li").all_inner_texts() == said.split(", ")


def test_the_list_by_keyboard(browser: Browser, many: str) -> None:
    with shown(browser, many) as page:
        page.locator("#flows .flow").first.focus()
        for key, row in (("ArrowDown", 1), ("PageDown", 21), ("ArrowUp", 20), ("End", 4999)):
            page.keyboard.press(key)
            assert page.evaluate("document.activeElement.dataset.row") == str(row)
        page.keyboard.press("Enter")
        assert page.locator("#flow").is_visible()
        assert "http://dead.example/0" in page.locator("#flow").inner_text()
        page.locator("#flow").get_by_role("button", name="Close").press("Enter")
        page.keyboard.press("Home")
        assert page.evaluate("document.activeElement.dataset.row") == "0"


HOSTILE_URLS = (
    "http://h/$(touch x)`id`",
    "http://h/'; rm -rf ~ #",
    "http://h/\\'\\\"!!{a,b}[1-9]?a=&b=1",
    "http://h/\u00e9\u4e2d \U0001f4a5",
    "http://h/*~&|<>()",
    "https://h/" + "x" * 300,
    "HTTP://h/",
    "ftp://h/",
    "-o/etc/passwd",
    "",
)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "A'B", "$(id)", ""])
def test_curl_is_in_the_words_of_the_command_line(browser: Browser, many: str, method: str) -> None:
    sizes = (0, 1, 999, 1500, 2500, 12_500, 13_500, 1_250_000, 10**10)
    records = [
        failed(method=method, url=url, request_bytes=size, reason="(other)" if size else "reset")
        for url, size in zip(HOSTILE_URLS, (*sizes, 5), strict=True)
    ]
    records += [
        answered(404, url="http://h/", kind="dns"),
        answered(url="http://h/%20", kind="tcp"),
    ]
    with shown(browser, many) as page:
        for record in records:
            said = page.evaluate("(record) => flowList.curl(record)", flow_shown(record))
            assert said == "\n".join(flows_text.curl(record)), record


# -- what the list is narrowed to


def narrowed(page: Page) -> tuple[str, int]:
    """What the address holds, and of how many flows the list is."""
    said = page.locator("#flows .figures").inner_text().split(" ")[0]
    return page.evaluate("location.hash"), int(said.replace(",", ""))


def test_a_click_narrows_the_list_and_the_address_holds_it(browser: Browser, many: str) -> None:
    with shown(browser, many) as page:
        incident = page.locator(".problem .pick").first
        id = page.locator(".problem .id").first.inner_text()
        incident.click()
        assert narrowed(page) == (f"#incident={id}", 500)
        assert incident.get_attribute("aria-pressed") == "true"
        address = page.url
        hosts = page.get_by_role("region", name="Hosts")
        assert hosts.locator("tbody th").all_inner_texts() == ["dead.example"]
        page.get_by_role("button", name=f"Do not narrow to incident {id}").click()
        hosts.get_by_role("button", name="shop.example").click()
        assert narrowed(page) == ("#host=shop.example", 4500)
        assert page.locator(".problem").count() == 0
        page.go_back()
        page.go_back()
        assert narrowed(page) == (f"#incident={id}", 500)
        assert page.locator(".chip").all_inner_texts() == [f"incident {id} ✕"]
        incident.click()
        assert narrowed(page) == ("", 5000)
        assert incident.get_attribute("aria-pressed") == "false"
        page.locator("#bands .total .pick").click()
        assert narrowed(page) == ("#series=Success", 4500)
    with lab.opened(browser) as page:
        page.goto(address)  # a link that was sent
        page.locator(".chip").wait_for()
        assert narrowed(page) == (f"#incident={id}", 500)


def test_a_bar_and_a_span_of_time_narrow_the_list(browser: Browser, many: str) -> None:
    with shown(browser, many) as page:
        over = page.locator("#traffic .u-over")
        box = over.bounding_box()
        assert box is not None
        points = page.locator("#traffic details tbody tr")
        first = int(points.first.get_attribute("data-key") or "")
        seconds = 500 / points.count()
        over.click(position={"x": box["width"] * 10.5 / points.count(), "y": 50})
        page.wait_for_url(lambda url: "#" in url, wait_until="commit")
        before = page.url
        hash, bar = narrowed(page)
        begin, end = map(int, hash.removeprefix("#time=").split("-"))
        assert begin <= first + 10.5 * seconds < end
        assert bar == 10 * (end - begin)
        width = end - begin
        page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 60, steps=5)
        page.mouse.up()
        page.wait_for_function("(before) => location.href !== before", arg=before)
        hash, span = narrowed(page)
        begin, end = map(int, hash.removeprefix("#time=").split("-"))
        assert abs(end - begin - 250) <= 2 * width
        assert span == 10 * (end - begin)
        # The same without a mouse.
        page.locator("#traffic summary").click()
        fourth = points.nth(3).locator("th")
        of = fourth.get_attribute("data-of")
        fourth.get_by_role("button").press("Enter")
        assert narrowed(page)[0] == f"#time={of}"
        assert points.count() == 1


@pytest.mark.parametrize(
    "hash",
    [
        "#incident=<img src=x onerror=hacked.push(1)>",
        "#incident=constructor&__proto__=x&toString=1",
        "#time=1-99999999999999999999",
        "#time=0x1-2",
        "#series=",
        "#host=",
        "#host=" + "x" * 301,
        "#%E0%A4%A",
        "#problems",
    ],
)
def test_an_address_that_says_nothing_narrows_nothing(
    browser: Browser, many: str, hash: str
) -> None:
    with lab.opened(browser) as page:
        watched = lab.watch(page)
        page.goto(many + hash)
        page.locator("#flows .flow").first.wait_for()
        assert narrowed(page)[1] == 5000
        assert page.locator(".chip").count() == 0
        assert watched.trouble == []
        assert page.evaluate("hacked") == []


@pytest.mark.parametrize(
    "hash",
    [
        "#host=<img src=x onerror=hacked.push(1)>",
        "#series=<script>hacked.push(1)</script>",
        "#series=__proto__",
        "#time=99999999999-99999999999",
    ],
)
def test_a_hostile_address_is_only_text(browser: Browser, many: str, hash: str) -> None:
    with lab.opened(browser) as page:
        watched = lab.watch(page)
        page.goto(many + hash)
        page.locator(".chip").wait_for()
        assert page.locator("#flows .flow, #flows img, #flows script").count() == 0
        assert watched.trouble == []
        assert page.evaluate("hacked") == []


# -- hostile names


def test_hostile_names_are_only_text(browser: Browser, written: Report) -> None:
    pages = [written(lines(*hostile(texts))) for texts in (HARMLESS, EVIL)]
    counts = []
    for address in pages:
        with shown(browser, address) as page:
            page.locator("#flows .flow").nth(20).wait_for()  # the box has its height
            counts.append(page.evaluate(lab.ELEMENTS))
            assert page.evaluate("({}).polluted === undefined && hacked.length === 0")
            if address == pages[1]:
                lab.picture(page, "report-hostile")
                text = page.locator("main").inner_text()
    assert counts[1] == counts[0]
    assert counts[1]["unknown"] == []
    for evil in EVIL[:9]:
        assert evil in text
    assert "1337" not in text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\x00\x07\x1b\ud800-\udfff]", text)
    assert len(text) < 2_000_000


def test_hostile_names_leave_the_layout_alone(browser: Browser, written: Report) -> None:
    address = written(lines(*hostile(EVIL)))
    for size in (lab.NARROW, lab.WIDE):
        with shown(browser, address, size) as page:
            page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
            assert page.evaluate(lab.WIDTHS) == {"scrolls": False, "outside": []}
            assert page.evaluate(lab.OVERLAPS) == []
            lab.picture(page, f"report-hostile-{size[0]}")


def test_hostile_names_of_files(browser: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "<img src=x onerror=hacked.push('folder')>"
    folder.mkdir()
    log = folder / "\"'><b>{{7*7}}\u202e&lt;.jsonl"
    log.write_bytes(lines(start(), answered(), final(answered())) + b"this is no record\n" * 3)
    page_file = folder / "report <script>.html"
    assert run("report", log, "--html", page_file).returncode == 0
    with shown(browser, page_file.as_uri()) as page:
        assert page.locator("#notes").locator("img, b, script").count() == 0
        assert "<b>{{7*7}}" in page.locator("#notes").inner_text()


# -- the live page

LIVE = "http://flowtally.test/"
EVERY = 2000
"""How often the page asks for news, in milliseconds."""


def site(request: Request) -> Answer:
    """A web site with troubles; the path says which."""
    kind, _, rest = request.path.partition("?")[0].lstrip("/").partition("/")
    match kind:
        case "status":
            return page_answer(int(rest.partition("/")[0]), "<p>as asked")
        case "truncated":
            return SHORT_BODY
        case "moved":
            return redirect("/")
        case "favicon.ico":
            return page_answer(404, "")
        case _:
            return page_answer(200, "<!doctype html><title>A site</title><h1>A site</h1>")


def page_answer(status: int, body: str) -> Answer:
    head = f"HTTP/1.1 {status} Whatever\r\nContent-Type: text/html\r\nContent-Length: {len(body)}"
    return Answer(f"{head}\r\n\r\n{body}".encode())


@dataclass
class Live:
    """A proxy with the live page, and a site behind it."""

    proxy: Mitmdump
    ports: Mapping[str, int]
    """Mode → the port that offers it."""
    site: AnsweringServer
    laboratory: Laboratory

    @property
    def profile(self) -> dict[str, Any]:
        """Settings of a browser profile that uses the proxy."""
        return lab.through(self.proxy.port)

    def get(self, path: str = "/", times: int = 1) -> None:
        """Traffic of somebody else's."""
        for _ in range(times):
            clients.get(self.proxy, self.site, path)

    def data(self) -> Data:
        """What the log holds so far, as statistics."""
        return statistics(*self.proxy.records())

    def agreeing(self, page: Page) -> tuple[Data, Data]:
        """What the page says and what the log says, once both speak of as many flows."""
        # After a slow rendering the proxy gives itself a long rest.
        deadline = time.monotonic() + 4 * WAIT_TIMEOUT
        while True:
            data, said = self.data(), read(page)
            counts = [int(said["totals"][name]["value"]) for name in ("flows", "events")]
            if counts == [data["totals"]["flows"], data["totals"]["events"]]:
                return said, data
            assert time.monotonic() < deadline, (counts, self.proxy.output)
            page.clock.fast_forward(EVERY)
            page.wait_for_timeout(50)  # an answer is under way

    def raw(self, head: str, port: int | None = None) -> bytes:
        """Sends a request as it is, one line of its head to a line."""
        lines = [*head.strip().splitlines(), "Connection: close", "", ""]
        return clients.exchange(port or self.proxy.port, "\r\n".join(lines).encode())


@pytest.fixture(scope="module")
def live(laboratory: Laboratory) -> Iterator[Live]:
    with AnsweringServer(site) as server:
        setup = Setup(
            modes={
                "regular": "regular",
                "upstream": f"upstream:{server.url}",
                "reverse": f"reverse:{server.url}",
            }
        )
        with laboratory.mitmdump("browser", setup) as proxy:
            ports = {name: proxy.ports[mode] for name, mode in setup.modes.items()}
            yield Live(proxy, ports, server, laboratory)


@contextmanager
def watching(browser: Browser, live: Live, **settings: Any) -> Iterator[Page]:
    """The live page, with a clock that can be put forward."""
    with lab.opened(browser, **live.profile, **settings) as page:
        watched = lab.watch(page)
        page.clock.install()
        page.goto(LIVE)
        yield page
        asked = {url.partition("?")[0] for url in watched.requests if url.startswith(LIVE)}
        assert asked <= {
            f"{LIVE}flows",
            LIVE,
            f"{LIVE}report.html",
            f"{LIVE}report.json",
            f"{LIVE}session.jsonl",
        }
        assert troubles(watched) == []
        assert page.evaluate("hacked") == []


def troubles(watched: lab.Watched) -> list[str]:
    """What no live page should do."""
    return [text for text in watched.trouble if not text.startswith("download")]


TROUBLES = """
async ([site, dead, expired]) => {
  const get = (url, settings) => fetch(url, settings).then((answer) => answer.text())
    .then(() => "fine", () => "failed");
  return [await get(`${site}/moved`), await get(`${site}/status/404`),
    await get(`${site}/status/500`), await get(`${site}/truncated`),
    await get(dead, { mode: "no-cors" }), await get(expired, { mode: "no-cors" })];
}
"""


def test_live_page_of_a_browser_session(browser: Browser, live: Live) -> None:
    authority = live.laboratory.authority
    with (
        AnsweringServer(servers.OK, tls=authority.expired(), name="localhost") as expired,
        lab.profile(browser, **live.profile) as context,
    ):
        page = context.new_page()
        page.goto(live.site.url)
        urls = [live.site.url, live.laboratory.dead.url, expired.url]
        assert len(page.evaluate(TROUBLES, urls)) == 6
        for path in ("/status/404", "/status/503"):
            page.goto(live.site.url + path)

        watched = lab.watch(page)
        page.clock.install()
        page.goto(LIVE)
        said, data = live.agreeing(page)
        check_numbers(said, data, rows=50)
        problems = {f"{p['title'].split()[0]} {p['reason']}" for p in said["problems"].values()}
        assert {"404 ", "500 ", "503 ", "connection_refused "} <= problems
        assert {"http_response_incomplete ", "tls_certificate_error expired"} <= problems
        assert page.evaluate(lab.WIDTHS) == {"scrolls": False, "outside": []}
        assert page.evaluate(lab.OVERLAPS) == []
        lab.picture(page, "live")

        # Its links.
        offered = page.evaluate("fetch('report.json').then((answer) => answer.json())")
        log = page.evaluate("fetch('session.jsonl').then((answer) => answer.text())")
        records = [json.loads(line) for line in log.splitlines()]
        assert statistics(*records) == live.data() == data
        assert offered["statistics"] == in_json(data)
        printed = json.loads(run("report", "--json", live.proxy.log).stdout)
        assert offered.keys() == printed.keys()
        assert offered["sessions"] == printed["sessions"]
        for name, content in (("JSON", offered), ("Log", None)):
            with page.expect_download() as downloading:
                page.get_by_role("navigation").get_by_role("link", name=name).click()
            text = downloading.value.path().read_text("utf-8")
            assert content is None or json.loads(text) == content
        assert page.url == LIVE
        assert troubles(watched) == []


KEEP = """
() => {
  window.kept = {
    // The slowest make room for slower ones.
    rows: [...document.querySelectorAll("#hosts tr, #bands tr, #failing tr, .problem")],
    input: document.querySelector("#failing input"),
    top: document.querySelector("#failing input").getBoundingClientRect().top,
  };
}
"""
IS_KEPT = """
() => ({
  rows: kept.rows.every((row) => row.isConnected),
  focus: document.activeElement === kept.input,
  selection: [kept.input.selectionStart, kept.input.selectionEnd],
  moved: Math.round(kept.input.getBoundingClientRect().top - kept.top),
  words: kept.input.value,
})
"""


def test_live_page_keeps_what_the_reader_did(browser: Browser, live: Live) -> None:
    for path in ("/status/404?a=1", "/status/404?b=1", "/status/410", "/status/500"):
        live.get(path)
    with watching(browser, live) as page:
        said, data = live.agreeing(page)
        page.locator("#flows .flow").nth(3).wait_for()  # the list asks for itself
        page.locator("#hosts").get_by_role("button", name="Host", exact=True).click()
        page.locator("#bands").get_by_role("button", name="Flows", exact=True).click()
        details = page.locator(".problem", has_text="404 Not found").locator("details")
        details.locator("summary").click()
        opened = details.evaluate("(details) => details.open")
        page.locator("#traffic summary").click()
        field = page.locator("#failing input")
        field.fill("status")
        field.press("ArrowLeft")
        page.evaluate(KEEP)
        hidden = page.locator("#failing tbody tr").filter(visible=False).count()

        for path in ("/status/404", "/status/418", "/status/200", "/truncated"):
            live.get(path)
        live.proxy.wait_for(lambda _: live.data()["totals"]["flows"] >= data["totals"]["flows"] + 4)
        said, new = live.agreeing(page)
        assert new["totals"]["flows"] >= data["totals"]["flows"] + 4
        assert page.evaluate(IS_KEPT) == {
            "rows": True,
            "focus": True,
            "selection": [5, 5],
            "moved": 0,
            "words": "status",
        }
        assert details.evaluate("(details) => details.open") == opened
        assert page.locator("#traffic details").evaluate("(details) => details.open")
        rows = page.locator("#failing tbody tr")
        shown_rows = rows.filter(visible=True)
        assert shown_rows.count() == rows.filter(has_text="status").count()
        assert rows.filter(visible=False).count() >= hidden
        count = f"{shown_rows.count()} of {rows.count()}"
        assert page.locator("#failing output").inner_text() == count
        heads = page.locator("[aria-sort]")
        assert heads.all_inner_texts() == ["Flows", "Host"]
        sums = [row for row in said["tables"]["bands"]["rows"] if row["total"]]
        flows = [int(row["cells"][1]["value"]) for row in sums]
        assert flows == sorted(flows, reverse=True)
        names = column(page, "hosts", 1)
        assert names == sorted(names)
        check_totals(said["totals"], new)
        check_problems(said["problems"], new)
        check_charts(said["tables"], new)
        # The order of the rows is the reader's now; what stands in them is the statistics'.
        for row in said["tables"]["failing"]["rows"]:
            of = by_name(new, "endpoints", "endpoint")[row["key"]]
            assert int(row["cells"][1]["value"]) == of["flows"]
        # The numbers of a chart that was pointed at are still those of that point.
        over = page.locator("#traffic .u-over")
        over.hover(position={"x": 100, "y": 50})
        assert page.locator("#traffic .u-value").first.inner_text() != "in all"
        live.get()
        live.proxy.wait_for(lambda _: live.data()["totals"]["flows"] > new["totals"]["flows"])
        live.agreeing(page)
        assert page.locator("#traffic .u-value").first.inner_text() != "in all"


def test_live_list_of_flows(browser: Browser, live: Live) -> None:
    for number in range(30):
        live.get(f"/list/{number}")
    live.get("/status/404/listed")
    with watching(browser, live) as page:
        live.agreeing(page)
        rows = page.locator("#flows .flow")
        first = rows.filter(has_text="/status/404/listed")
        first.wait_for()
        first.click()
        detail = page.get_by_role("region", name="The chosen flow")
        assert "status\n404" in detail.inner_text()
        assert "curl --globoff" in detail.inner_text()
        assert "[object" not in detail.inner_text()
        live.get("/status/503/later")  # what comes is put above, and what is open stays open
        rows.filter(has_text="/status/503/later").wait_for()
        live.agreeing(page)
        assert first.get_attribute("aria-expanded") == "true"
        assert page.evaluate("document.querySelectorAll('#flows .flow').length") < 60

        page.locator(".problem", has_text="404 Not found").locator(".pick").first.click()
        page.wait_for_function(
            "() => [...document.querySelectorAll('#flows .flow')].length > 0"
            " && [...document.querySelectorAll('#flows .result')].every("
            "(each) => each.innerText.startsWith('404'))"
        )
        assert page.locator(".problem .pick[aria-pressed=true]").count() == 1
        live.get("/status/404/more")
        live.get("/list/other")
        deadline = time.monotonic() + 4 * WAIT_TIMEOUT
        while not rows.filter(has_text="/status/404/more").count():
            assert time.monotonic() < deadline, live.proxy.output
            page.clock.fast_forward(EVERY)
            page.wait_for_timeout(50)  # an answer is under way
        said = page.locator("[data-total=flows]")
        asked = [r for r in live.proxy.records() if r.get("status") == 404]
        page.clock.fast_forward(EVERY)
        page.wait_for_function(
            "(number) => document.querySelector('[data-total=flows]').dataset.value === number",
            arg=str(len(asked)),
        )
        assert said.inner_text() == str(len(asked))
        assert page.locator(".problem .pick[aria-pressed=true]").count() == 1
        assert rows.filter(has_text="/list/other").count() == 0


def test_live_list_shows_background_traffic_only_where_it_is_wanted(
    browser: Browser, laboratory: Laboratory
) -> None:
    setup = Setup(options={"flowtally_background": "127.0.0.1"})
    with laboratory.mitmdump("browser, background", setup) as proxy:
        clients.get(proxy, laboratory.beacon)
        proxy.wait_for(lambda _: proxy.flows())
        with lab.opened(browser, **lab.through(proxy.port)) as page:
            page.clock.install()
            page.goto(LIVE)
            rows = page.locator("#flows .flow")
            wanted = page.get_by_label("with background traffic (1)")
            wanted.wait_for()
            assert rows.count() == 0
            wanted.check()
            page.locator("#flows .flow.background").wait_for()
            assert "(background: 127.0.0.1)" in rows.inner_text()
            clients.get(proxy, laboratory.beacon)
            proxy.wait_for(lambda _: len(proxy.flows()) == 2)
            page.clock.fast_forward(EVERY)
            page.get_by_label("with background traffic (2)").wait_for()
            rows.nth(1).wait_for()
            page.locator("#flows input").uncheck()
            rows.first.wait_for(state="detached")
            assert page.locator("#flows [role=status]").inner_text() == "No flows."


def test_live_figures_get_to_know_what_is_older(browser: Browser, live: Live) -> None:
    live.get("/older", times=250)  # more than one piece
    with watching(browser, live) as page:
        live.agreeing(page)
        page.locator("#hosts .pick", has_text=re.compile(r"^127\.0\.0\.1")).first.click()
        host = page.locator("#hosts .pick").inner_text()
        deadline = time.monotonic() + 4 * WAIT_TIMEOUT
        while True:
            wanted = sum(place(r) == host and r["type"] == "flow" for r in live.proxy.records())
            said = int(page.locator("[data-total=flows]").get_attribute("data-value") or "")
            if said == wanted and "so far" not in page.locator("#picks").inner_text():
                break
            assert time.monotonic() < deadline, (said, wanted, page.locator("#picks").inner_text())
            page.clock.fast_forward(EVERY)
            page.wait_for_timeout(50)  # an answer is under way
        assert wanted >= 250


def test_live_page_pauses(browser: Browser, live: Live) -> None:
    with watching(browser, live) as page:
        state = page.locator("#live")
        _, before = live.agreeing(page)
        assert state.inner_text() == "live"
        page.get_by_role("button", name="Pause").click()
        assert state.inner_text() == "paused"
        watched = lab.watch(page)
        live.get()
        live.proxy.wait_for(lambda _: live.data()["totals"]["flows"] > before["totals"]["flows"])
        page.clock.run_for(10 * EVERY)
        assert watched.requests == []
        assert int(read(page)["totals"]["flows"]["value"]) == before["totals"]["flows"]
        page.get_by_role("button", name="Go on").click()
        assert state.inner_text() == "live"
        said, data = live.agreeing(page)
        check_totals(said["totals"], data)


def test_live_page_that_nobody_looks_at_asks_for_nothing(browser: Browser, live: Live) -> None:
    with watching(browser, live) as page:
        live.agreeing(page)
        with page.expect_response(f"{LIVE}report.html"):
            page.clock.fast_forward(EVERY)
        page.evaluate("Object.defineProperty(document, 'hidden', { value: true, writable: true })")
        watched = lab.watch(page)
        page.clock.run_for(10 * EVERY)
        assert watched.requests == []
        page.evaluate("document.hidden = false")
        with page.expect_response(f"{LIVE}report.html"):
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_live_page_counts_nothing_of_its_own(browser: Browser, live: Live) -> None:
    before = live.data()
    with watching(browser, live) as page:
        for _ in range(3):
            with page.expect_response(f"{LIVE}report.html") as answered_with:
                page.clock.fast_forward(EVERY)
            assert answered_with.value.status in (200, 304)
        page.goto(LIVE.replace("http", "https"))
        assert page.title().startswith("flowtally: ")
        page.goto(LIVE)
    statuses = {
        "GET / HTTP/1.1": 200,
        "HEAD / HTTP/1.1": 200,
        "GET /report.html?a=b HTTP/1.1": 200,
        "GET /favicon.ico HTTP/1.1": 404,
        "GET /../../etc/passwd HTTP/1.1": 404,
        "GET /session.jsonl/ HTTP/1.1": 404,
        "GET /%3Cscript%3E HTTP/1.1": 404,
        "POST / HTTP/1.1": 405,
        "PUT /report.json HTTP/1.1": 405,
        "DELETE /session.jsonl HTTP/1.1": 405,
        "OPTIONS / HTTP/1.1": 405,
    }
    for line, status in statuses.items():
        method, path, version = line.split(" ")
        answer = live.raw(f"{method} {LIVE.rstrip('/')}{path} {version}\nHost: flowtally.test")
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), (line, answer[:80])
        assert b"Access-Control" not in answer
        assert b"script>" not in answer.partition(b"\r\n\r\n")[2] or status == 200
    live.get("/last")
    live.proxy.wait_for(lambda rs: any(r.get("url", "").endswith("/last") for r in rs))
    assert live.data()["totals"]["flows"] == before["totals"]["flows"] + 1
    assert live.data()["totals"]["events"] == before["totals"]["events"]
    assert "flowtally.test" not in json.dumps(live.proxy.outcomes())


def test_live_page_in_upstream_mode(browser: Browser, live: Live) -> None:
    check_mode(browser, live, lab.through(live.ports["upstream"]))


def test_live_page_in_socks_mode(browser: Browser, live: Live) -> None:
    # Or else mitmproxy connects before there is a request, and no such host exists.
    setup = Setup(modes={"socks5": "socks5"}, options={"connection_strategy": "lazy"})
    with live.laboratory.mitmdump("browser, socks", setup) as proxy:
        socks = Live(proxy, {"socks5": proxy.port}, live.site, live.laboratory)
        check_mode(browser, socks, lab.through(proxy.port, "socks5"))


def check_mode(browser: Browser, live: Live, settings: Data) -> None:
    with lab.opened(browser, **settings) as page:
        visited = page.context.new_page()  # what it says on the console is its own matter
        visited.goto(f"{live.site.url}/status/404")
        visited.close()
        watched = lab.watch(page)
        page.clock.install()
        page.goto(LIVE)
        said, data = live.agreeing(page)
        assert data["totals"]["flows"] > 0
        check_totals(said["totals"], data)
        assert page.locator("#live").inner_text() == "live"
        assert troubles(watched) == []
    assert "flowtally.test" not in json.dumps(live.proxy.outcomes())


def test_live_page_is_not_in_reverse_mode(live: Live) -> None:
    before = live.data()["totals"]["flows"]
    paths = ("/", "/report.json", "/session.jsonl", LIVE)
    for path in paths:
        answer = live.raw(f"GET {path} HTTP/1.1\nHost: flowtally.test", live.ports["reverse"])
        assert answer.endswith(b"<h1>A site</h1>"), answer
    live.proxy.wait_for(lambda _: live.data()["totals"]["flows"] == before + len(paths))


def test_live_page_is_at_its_host_alone(live: Live) -> None:
    """The Host header does not decide where a request goes."""
    before = live.data()["totals"]["flows"]
    authority = f"{live.site.host}:{live.site.port}"
    answer = live.raw(f"GET http://{authority}/ HTTP/1.1\nHost: flowtally.test")
    assert answer.endswith(b"<h1>A site</h1>")
    live.proxy.wait_for(lambda _: live.data()["totals"]["flows"] == before + 1)


@pytest.mark.parametrize("host", ["", "other.test"])
def test_live_page_moves(browser: Browser, laboratory: Laboratory, host: str) -> None:
    setup = Setup(options={"flowtally_host": host})
    with laboratory.mitmdump(f"browser at {host or 'nowhere'}", setup) as proxy:
        with lab.opened(browser, **lab.through(proxy.port)) as page:
            answer = page.goto(LIVE)
            assert answer is not None
            assert answer.status == 502
            if host:
                page.goto(f"http://{host}/")
                assert page.title().startswith("flowtally: ")
        hosts = {flow["host"] for flow in proxy.flows()}
        assert hosts == {"flowtally.test"}, "a request like any other"


ATTACKS = """
async (live) => {
  const paths = ["", "report.html", "report.json", "session.jsonl", "flows"];
  const seen = {};
  const attempt = (name, act) => new Promise((done) => {
    if (/^(object|iframe)/.test(name)) setTimeout(() => done("silence"), 2000);
    act(done);
  }).then((got) => { seen[name] = got; });
  const attempts = [];
  for (const path of paths) {
    for (const mode of ["cors", "no-cors"]) {
      attempts.push(attempt(`fetch ${mode} ${path}`, (done) =>
        fetch(live + path, { mode, credentials: "include" }).then((answer) => answer.text())
          .then((text) => done(text.slice(0, 40)), () => done("refused"))));
    }
    for (const [name, attribute] of
         [["script", "src"], ["img", "src"], ["link", "href"], ["object", "data"]]) {
      attempts.push(attempt(`${name} ${path}`, (done) => {
        const element = document.createElement(name);
        if (name === "link") element.rel = "stylesheet";
        element[attribute] = live + path;
        element.onload = () => done(name === "object" && !element.contentDocument
          ? "refused" : "loaded");
        element.onerror = () => done("refused");
        document.body.append(element);
      }));
    }
    attempts.push(attempt(`iframe ${path}`, (done) => {
      const frame = document.createElement("iframe");
      frame.onload = () => {
        try { done(frame.contentDocument.documentElement.outerHTML); } catch { done("refused"); }
      };
      frame.src = live + path;
      document.body.append(frame);
    }));
  }
  attempts.push(attempt("xhr", (done) => {
    const request = new XMLHttpRequest();
    request.onload = () => done(request.responseText);
    request.onerror = () => done("refused");
    request.open("GET", live);
    request.send();
  }));
  attempts.push(attempt("websocket", (done) => {
    const socket = new WebSocket(live.replace("http", "ws"));
    socket.onopen = () => done("open");
    socket.onerror = () => done("refused");
  }));
  await Promise.all(attempts);
  return seen;
}
"""
PEEK = """
(popup) => {
  const seen = {};
  for (const name of ["document", "localStorage", "hacked", "name", "uPlot"]) {
    try { seen[name] = String(window.popup[name]); } catch { seen[name] = "refused"; }
  }
  try { seen.href = window.popup.location.href; } catch { seen.href = "refused"; }
  seen.frames = window.popup.length;
  return seen;
}
"""


def test_other_sites_cannot_read_the_live_page(browser: Browser, live: Live) -> None:
    live.get("/secret-path")
    with lab.profile(browser, **live.profile) as context:
        page = context.new_page()
        page.goto(live.site.url)
        seen = page.evaluate(ATTACKS, LIVE)
        # Silence or an empty frame: the answer is a file, which a browser would save.
        allowed = ("refused", "silence", "<html><head></head><body></body></html>")
        assert {what: got for what, got in seen.items() if got not in allowed} == {}
        assert seen["fetch cors report.json"] == seen["fetch no-cors report.json"] == "refused"
        for frame in page.frames[1:]:
            assert not frame.url.startswith(LIVE)
        with page.expect_popup() as opening:
            page.evaluate("(live) => { window.popup = open(live); }", LIVE)
        popup = opening.value
        popup.wait_for_load_state()
        assert popup.title().startswith("flowtally: "), "a link may lead to the page"
        assert set(page.evaluate(PEEK).values()) <= {"refused", "undefined", "", 0}
        with page.expect_navigation():
            page.evaluate(
                """(live) => {
                  const form = document.body.appendChild(document.createElement("form"));
                  form.action = live;
                  form.method = "post";
                  form.submit();
                }""",
                LIVE,
            )
        assert page.locator("body").inner_text().strip() == "Only GET and HEAD are allowed here."
    assert "flowtally.test" not in json.dumps(live.proxy.outcomes())


def test_hostile_traffic_is_only_text_on_the_live_page(browser: Browser, live: Live) -> None:
    authority = f"{live.site.host}:{live.site.port}"
    with watching(browser, live) as page:
        live.agreeing(page)
        before = page.evaluate(lab.ELEMENTS)
        dead = live.laboratory.dead
        for number, text in enumerate(EVIL[:9]):
            word = text.replace(" ", "\x0b")
            quoted = text.replace(" ", "%20")
            for head in (
                f"GET http://{authority}/{word} HTTP/1.1\nHost: {authority}",
                f"GET http://{authority}/status/404?{quoted} HTTP/1.1\nHost: {text}",
                f"{word} http://{authority}/status/404 HTTP/1.1\nHost: {authority}",
                f"GET http://{word}:{dead.port}/ HTTP/1.1\nHost: {word}",
                f"GET {word} HTTP/1.1\nHost: {authority}",
                f"CONNECT {word}:{dead.port} HTTP/1.1\nHost: {word}",
                f"GET /{word} HTTP/1.1\nHost: {word}",
                f"{word}",
            ):
                live.raw(head)
            live.raw(f"GET /status/404/{word} HTTP/1.1\nHost: {word}", live.ports["reverse"])
            tunnel = clients.open_tunnel(live.proxy, live.site)
            assert tunnel is not None
            with tunnel:
                tunnel.sendall(clients.client_hello(f"evil{number}.<img src=x>"))
        with WebSocketServer() as server:
            for text in EVIL[:5]:
                talk_with_reason(live, server, text)
        live.get("/last-of-all")
        live.proxy.wait_for(lambda rs: any(r.get("url", "").endswith("/last-of-all") for r in rs))
        _, data = live.agreeing(page)
        assert data["totals"]["flows"] > 20
        after = page.evaluate(lab.ELEMENTS)
        # Sections that were not there come with a field and buttons of their own.
        for name in ("script", "style", "img", "iframe", "base", "meta", "link", "form", "a"):
            assert after[name] == before[name], name
        assert after["handlers"] == 0
        assert after["unknown"] == []
        for size in (lab.NARROW, lab.WIDE):
            page.set_viewport_size({"width": size[0], "height": size[1]})
            page.wait_for_function(FITS)  # the charts follow the window
            assert page.evaluate(lab.WIDTHS) == {"scrolls": False, "outside": []}
            assert page.evaluate(lab.OVERLAPS) == []
            lab.picture(page, f"live-hostile-{size[0]}")


def talk_with_reason(live: Live, server: WebSocketServer, reason: str) -> None:
    """A WebSocket that the client closes with these words."""
    with connect(f"{server.url}/1000", proxy=live.proxy.url, compression=None) as connection:
        assert connection.recv(timeout=WAIT_TIMEOUT) == "hello"
        connection.close(3000, reason)


def test_live_page_says_when_the_proxy_is_gone(
    browser: Browser, laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup()
    with laboratory.mitmdump("browser, gone", setup) as first:
        port = first.port
        with lab.opened(browser, **lab.through(port)) as page:
            page.clock.install()
            page.goto(LIVE)
            assert not page.locator("#traffic").is_visible()
            page.evaluate("window.same = true")
            state = page.locator("#live")
            assert state.inner_text() == "live"
            first.kill()
            page.clock.fast_forward(EVERY)
            page.locator("#live.gone").wait_for()
            assert state.inner_text() == "the proxy does not answer"
            monkeypatch.setattr(proxy_module, "free_port", lambda: port)
            with laboratory.mitmdump("browser, back", setup) as second:
                clients.get(second, laboratory.beacon)
                second.wait_for(lambda _: second.flows())
                page.clock.fast_forward(EVERY)
                page.locator("[data-total=flows][data-value='1']").wait_for()
                assert state.inner_text() == "live"
                assert page.evaluate("same")
                # The first flow of a session brings what was not there to be shown.
                for name in ("traffic", "durations"):
                    assert page.locator(f"#{name} canvas").evaluate(lab.INK)
                assert page.locator("#bands tbody tr").filter(visible=True).count() == 2


def test_of_the_session_before_the_live_page_keeps_nothing(
    browser: Browser, laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each counts its records from 1, so that those of two would be taken for each other."""
    with laboratory.mitmdump("browser, before", Setup()) as first:
        port = first.port
        for _ in range(4):
            clients.get(first, laboratory.beacon)
        first.wait_for(lambda _: len(first.flows()) == 4)
        with lab.opened(browser, **lab.through(port)) as page:
            page.clock.install()
            page.goto(LIVE + "#series=Success")
            page.locator("#totals [data-total=flows][data-value='4']").wait_for()
            assert page.locator(".flow").count() == 4
            first.kill()
            page.clock.fast_forward(EVERY)
            page.locator("#live.gone").wait_for()
            monkeypatch.setattr(proxy_module, "free_port", lambda: port)
            with laboratory.mitmdump("browser, after", Setup()) as second:
                clients.get(second, laboratory.beacon)
                second.wait_for(lambda _: second.flows())
                page.clock.fast_forward(EVERY)
                page.locator("#live:not(.gone)").wait_for()
                page.clock.run_for(EVERY)
                page.locator("#totals [data-total=flows][data-value='1']").wait_for()
                assert page.locator(".flow").count() == 1
