"""A real Chromium, driven through Playwright, and what a page in it did."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from flowtally.launch.profile import chromium_arguments
from flowtally.launch.profile import fingerprint

if TYPE_CHECKING:
    # A machine without Playwright skips the tests that use it, and imports this all the same.
    from playwright.sync_api import Browser
    from playwright.sync_api import BrowserContext
    from playwright.sync_api import Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
"""What Chromium is called."""
ARGUMENTS = (
    "--no-sandbox",  # there is none for root
    "--disable-gpu",
    *chromium_arguments(),
)
NARROW = (400, 800)
WIDE = (1600, 1000)
WAIT_TIMEOUT_MS = 15_000
SCREENSHOTS = os.environ.get("FLOWTALLY_SCREENSHOTS", "")
"""A folder that gets pictures of the pages; empty: none are taken."""

DETECTOR = """
window.hacked = [];
for (const name of ["alert", "confirm", "prompt"]) window[name] = () => window.hacked.push(name);
addEventListener("securitypolicyviolation",
  (event) => window.hacked.push(`${event.violatedDirective} ${event.blockedURI}`));
"""
"""Notes the usual signs of a script that should not have run, and what the page's policy refused.
Hostile text calls `hacked.push`."""


@contextmanager
def launch(executable: Path, *more: str) -> Iterator[Browser]:
    """Runs the browser, with `more` arguments. Inside, this thread has a running event loop."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=[*ARGUMENTS, *more])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watched:
    """What a page did that one does not see."""

    requests: list[str] = field(default_factory=list)
    """The URLs asked for, but for `data:`, which leaves nowhere."""
    trouble: list[str] = field(default_factory=list)
    """Console messages, uncaught errors, dialogs, downloads, windows, foreign frames."""


def watch(page: Page) -> Watched:
    """Notes what `page` does from now on."""
    watched = Watched()

    def note(kind: str, what: Any) -> None:
        watched.trouble.append(f"{kind}: {what}")

    def dialog(opened: Any) -> None:
        note("dialog", opened.message)
        opened.dismiss()

    def request(made: Any) -> None:
        if not made.url.startswith("data:"):
            watched.requests.append(made.url)

    page.on("request", request)
    page.on("console", lambda message: note("console", message.text))
    page.on("pageerror", lambda error: note("error", error))
    page.on("dialog", dialog)
    page.on("download", lambda download: note("download", download.url))
    page.on("popup", lambda popup: note("popup", popup.url))
    page.on("frameattached", lambda frame: note("frame", frame.url))
    return watched


@contextmanager
def opened(browser: Browser, size: tuple[int, int] = WIDE, **settings: Any) -> Iterator[Page]:
    """A page in a profile of its own. `settings`: those of Playwright's `new_context`."""
    with profile(browser, size, **settings) as context:
        yield context.new_page()


@contextmanager
def profile(
    browser: Browser, size: tuple[int, int] = WIDE, **settings: Any
) -> Iterator[BrowserContext]:
    """A profile of its own: no cookies, no cache, no open connections."""
    viewport = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport, locale="en-US", **settings)  # type: ignore[arg-type]
    context.set_default_timeout(WAIT_TIMEOUT_MS)
    context.add_init_script(DETECTOR)
    try:
        yield context
    finally:
        context.close()


def through(port: int, scheme: str = "http") -> dict[str, Any]:
    """Settings of a profile that uses the proxy on `port` for everything, also for loopback
    addresses, and does not mind its certificate."""
    proxy = {"server": f"{scheme}://127.0.0.1:{port}", "bypass": "<-loopback>"}
    return {"proxy": proxy, "ignore_https_errors": True}


def trusting(ca: Path) -> str:
    """The argument that has the browser trust what the CA of this certificate signs."""
    return f"--ignore-certificate-errors-spki-list={fingerprint(ca.read_bytes())}"


def picture(page: Page, name: str) -> None:
    """Takes a picture of the whole page, if they are wanted."""
    if SCREENSHOTS:
        folder = Path(SCREENSHOTS)
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{name}.png", full_page=True)


# -- what stands on a report

READ = """
() => {
  const cells = (row) => [...row.cells].map((cell) => ({
    value: cell.dataset.value ?? null, text: cell.innerText.trim() }));
  const rows = (table) => [...table.tBodies].flatMap((body) => [...body.rows].map((row) => ({
    key: row.dataset.key, total: row.classList.contains("total"), hidden: row.hidden,
    cells: cells(row) })));
  const read = (table) => table && ({
    head: [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim()),
    rows: rows(table) });
  return {
    totals: Object.fromEntries([...document.querySelectorAll("[data-total]")].map(
      (total) => [total.dataset.total, { value: total.dataset.value, text: total.innerText }])),
    problems: Object.fromEntries([...document.querySelectorAll(".problem")].map((problem) => [
      problem.dataset.key, {
        value: problem.querySelector(".count").dataset.value,
        text: problem.querySelector(".count").innerText,
        title: problem.querySelector("strong").innerText,
        reason: problem.querySelector(".reason")?.innerText ?? "",
        host: problem.querySelector(".host")?.innerText ?? "",
        id: problem.querySelector(".id")?.innerText ?? "",
        bars: problem.querySelectorAll(".bars rect").length,
        examples: problem.querySelectorAll(".examples li").length }])),
    apart: [...document.querySelectorAll(".apart li")].map((each) => each.textContent),
    tables: Object.fromEntries([...document.querySelectorAll("section:has(thead)")].map(
      (section) => [section.id, read(section.querySelector("table:has(thead)"))])),
    notes: [...document.querySelectorAll("#notes li")].map((note) => note.innerText),
  };
}
"""

WIDTHS = """
() => {
  // Elements inside a box that scrolls may be wider than it.
  const inside = ".scroll table, svg, .skip, .u-over, .u-under";
  const outside = [...document.body.querySelectorAll("*")].filter((element) =>
    !element.closest(inside) && element.getClientRects().length &&
    element.getBoundingClientRect().right > innerWidth + 0.5);
  return {
    scrolls: document.documentElement.scrollWidth > innerWidth,
    outside: outside.map((element) => element.outerHTML.slice(0, 200)),
  };
}
"""
"""Whether the page is wider than the window, and what of it."""

OVERLAPS = """
() => {
  const boxes = [...document.querySelectorAll("header, main section")].map(
    (element) => [element.id || element.tagName, element.getBoundingClientRect()]);
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 0.5 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 0.5;
  return boxes.flatMap(([name, box], index) => boxes.slice(index + 1)
    .filter(([, other]) => meet(box, other)).map(([other]) => `${name} and ${other}`));
}
"""
"""Sections that lie on one another."""

CONTRASTS = """
() => {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const channels = (colour) => {
    if (!known.has(colour)) {
      context.clearRect(0, 0, 1, 1);
      context.fillStyle = colour;
      context.fillRect(0, 0, 1, 1);
      known.set(colour, [...context.getImageData(0, 0, 1, 1).data]);
    }
    return known.get(colour);
  };
  const luminance = ([red, green, blue]) => {
    const linear = (value) => (value /= 255) <= 0.04045
      ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = channels(getComputedStyle(element).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
  };
  const found = {};
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.getClientRects().length) continue;
    if (element.closest("script, style, svg, .skip")) continue;
    const [one, other] = [channels(getComputedStyle(element).color), behind(element)]
      .map(luminance).sort((a, b) => b - a);
    const text = texts.currentNode.data.trim().slice(0, 20);
    const name = `${element.tagName} ${element.className} ${text}`;
    const ratio = Math.round(100 * (one + 0.05) / (other + 0.05)) / 100;
    if (!(name in found) || found[name] > ratio) found[name] = ratio;
  }
  return found;
}
"""
"""Text → its contrast with what is behind it, as WCAG 2 defines it."""

ELEMENTS = """
() => {
  const all = [...document.querySelectorAll("*")];
  const count = (names) => all.filter((element) => names.includes(element.localName)).length;
  return {
    ...Object.fromEntries(["script", "style", "img", "iframe", "object", "embed", "base", "meta",
      "link", "form", "input", "button", "svg", "video", "audio", "template", "a"].map(
      (name) => [name, count([name])])),
    handlers: all.flatMap((element) => element.getAttributeNames().filter(
      (name) => name.startsWith("on") || (["href", "src", "action", "xlink:href"].includes(name) &&
        !/^(#|data:,$|[a-z.]+$)/.test(element.getAttribute(name))))).length,
    unknown: [...new Set(all.map((element) => element.localName))].filter((name) =>
      document.createElement(name) instanceof HTMLUnknownElement &&
      !["svg", "rect", "title"].includes(name)),
  };
}
"""
"""How many there are of the elements that can do harm, and of attributes that run something."""

INK = """
(canvas) => {
  const { width, height } = canvas;
  const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  const colours = new Set();
  for (let at = 0; at < pixels.length; at += 4) {
    if (pixels[at + 3] === 255) colours.add(pixels.slice(at, at + 3).join());
  }
  return [...colours];
}
"""
"""The colours of a canvas' opaque pixels."""
