// What a report does beyond being read: charts, sorting, filtering and, live, refreshing itself.
// Without it every number is in a table.
"use strict";
(() => {
  // --- charts ---

  const main = document.getElementById("report");
  const charts = []; // what removes each
  const pointed = new Map(); // chart → where the pointer was when it was drawn anew
  // Whole seconds; within an hour and a day, parts that people count in.
  const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200,
    ...[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000].map((days) => days * 86400)];
  let said = main.cloneNode(true); // the report as Python made it
  const read = () => JSON.parse(document.getElementById("data").textContent);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const count = (value) => value.toLocaleString("en");
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const milliseconds = (value) =>
    value >= 999.5 ? `${+(value / 1000).toPrecision(value >= 9950 ? 3 : 2)} s` : `${value >= 10 ? Math.round(value) : +value.toPrecision(2)} ms`;

  function axes(x) {
    const common = { stroke: colour("soft"), font: "11px system-ui, sans-serif", ticks: { show: false } };
    return [
      { ...common, size: 24, grid: { show: false }, ...x },
      {
        ...common, size: 44, grid: { stroke: colour("line"), width: 1 },
        incrs: [1, 2, 5].flatMap((step) => [...Array(13).keys()].map((power) => step * 10 ** power)).sort((a, b) => a - b),
        values: (_, splits) => splits.map((value) => (value >= 1e4 ? `${value / 1e3}k` : value)),
      },
    ];
  }

  function draw(box, width, options, data) {
    const height = 210;
    const plot = new uPlot(
      { width: Math.max(200, width), height, padding: [8, 24, 0, 0], legend: { live: true }, cursor: { y: false, drag: { x: true, y: false, setScale: false }, points: { show: false } }, ...options },
      data, box);
    const watch = new ResizeObserver(() => plot.setSize({ width: Math.max(200, box.clientWidth), height }));
    watch.observe(box);
    if (options.hooks) {
      plot.over.addEventListener("click", () => { if (plot.select.width < 3) options.hooks.click(plot); });
    }
    const { left, top } = pointed.get(box.dataset.chart) ?? {};
    if (left >= 0) plot.setCursor({ left, top });
    charts.push(() => {
      pointed.set(box.dataset.chart, plot.cursor);
      watch.disconnect();
      plot.destroy();
    });
  }

  // Covers what is outside of a span.
  function shade({ ctx, bbox, valToPos }, [from, to]) {
    const at = (second) => Math.max(bbox.left, Math.min(bbox.left + bbox.width, valToPos(second, "x", true)));
    ctx.save();
    ctx.globalAlpha = 0.75;
    ctx.fillStyle = colour("panel");
    for (const [left, right] of [[bbox.left, at(from)], [at(to), bbox.left + bbox.width]]) ctx.fillRect(left, bbox.top, right - left, bbox.height);
    ctx.restore();
  }

  // Stacked: each series is drawn up to the sum of those below it, the topmost first.
  function traffic(box, width, { starts, seconds, offset, series, span }) {
    if (!starts.length || !series.length) return;
    const sums = [];
    let below = starts.map(() => 0);
    for (const { values } of series) {
      below = below.map((sum, index) => sum + values[index]);
      sums.unshift(below);
    }
    const bars = uPlot.paths.bars({ size: [0.96, 60], align: 1 });
    const shown = [...series].reverse();
    const clock = (second) => {
      const moment = new Date((second + offset) * 1000).toISOString();
      return `${moment.slice(0, 10)} ${moment.slice(11, 19)}`;
    };
    const days = clock(starts[0]).slice(0, 10) !== clock(starts[starts.length - 1]).slice(0, 10);
    // Not before the chart has done with the click: it is drawn anew.
    const isIn = (slot) => !span || (starts[slot] + seconds > span[0] && starts[slot] < span[1]);
    const narrow = (from, to) => setTimeout(() => filter.set("time", `${from}-${to}`));
    draw(box, width, {
      hooks: {
        draw: [(plot) => { if (span) shade(plot, span); }],
        // A bar, or what was dragged over.
        click: (plot) => { if (plot.cursor.idx != null) narrow(starts[plot.cursor.idx], starts[plot.cursor.idx] + seconds); },
        setSelect: [(plot) => {
          const { left, width } = plot.select;
          if (width < 3) return;
          const at = (x) => Math.max(0, Math.min(starts.length - 1, Math.floor((plot.posToVal(x, "x") - starts[0]) / seconds)));
          narrow(starts[at(left)], starts[at(left + width)] + seconds);
        }],
      },
      tzDate: (second) => uPlot.tzDate(new Date((second + offset) * 1000), "Etc/UTC"),
      scales: {
        x: { range: [starts[0], starts[starts.length - 1] + seconds] },
        y: { range: (_, __, most) => [0, Math.max(1, most * 1.05)] },
      },
      axes: axes({
        space: 90, incrs: STEPS, size: days ? 40 : 24,
        values: (_, splits) => splits.map((second, index) => {
          const [day, time] = clock(second).split(" ");
          const fresh = !index || clock(splits[index - 1]).split(" ")[0] !== day;
          return (seconds < 60 && splits[1] - splits[0] < 60 ? time : time.slice(0, 5)) + (days && fresh ? `\n${day}` : "");
        }),
      }),
      series: [
        { label: "Time", value: (_, second) => (second == null ? (span ? "picked" : "in all") : clock(second)) },
        ...shown.map(({ name, colour: fill, values }) => ({
          label: name, fill: colour(fill), width: 0, points: { show: false }, paths: bars,
          value: (_, __, ___, index) => count(index == null ? sum(values.filter((__, slot) => isIn(slot))) : values[index]),
        })),
      ],
    }, [starts, ...sums]);
  }

  function durations(box, width, { bars }) {
    if (!bars.length) return;
    const numbers = bars.map((_, index) => index);
    draw(box, width, {
      scales: { x: { time: false, range: [-0.6, bars.length - 0.4] }, y: { range: (_, __, most) => [0, Math.max(1, most * 1.05)] } },
      axes: axes({
        splits: () => {
          const step = Math.max(1, Math.ceil(bars.length / Math.max(2, box.clientWidth / 70)));
          return numbers.filter((index) => index % step === 0);
        },
        values: (_, splits) => splits.map((index) => milliseconds(bars[index][0])),
      }),
      series: [
        { label: "Took", value: (_, index) => (index == null ? "in all" : `${milliseconds(bars[index][0])} to ${milliseconds(bars[index][1])}`) },
        { label: "flows", fill: colour("redirection"), width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.9, 60] }), value: (_, value) => count(value ?? sum(bars.map((bar) => bar[2]))) },
      ],
    }, [numbers, bars.map((bar) => bar[2])]);
  }

  let drawn = "";
  function drawAll(force) {
    const text = document.getElementById("data").textContent;
    if (text === drawn && !force) return;
    drawn = text;
    const data = read();
    charts.splice(0).forEach((remove) => remove());
    // All is measured before anything is changed, or the whole page would be laid out each time.
    const boxes = [...main.querySelectorAll("[data-chart]")].map((box) => [box, box.offsetHeight, box.clientWidth]);
    for (const [box, height, width] of boxes) {
      box.style.minHeight = `${height}px`;
      box.replaceChildren();
      ({ traffic, durations })[box.dataset.chart](box, width, data[box.dataset.chart]);
      box.style.minHeight = "";
    }
  }

  // --- tables: sorting, filtering ---

  const order = new Map(); // id of a section → [column, descending]
  const wanted = new Map(); // id of a section → words

  function compare(column) {
    const value = (row) => {
      const cell = row.cells[column];
      const number = cell.dataset.value === undefined ? NaN : Number(cell.dataset.value);
      return Number.isNaN(number) ? cell.dataset.value ?? cell.textContent : number;
    };
    return (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (typeof x === "number" && typeof y === "number") return x - y;
      return String(x).localeCompare(String(y), "en", { numeric: true });
    };
  }

  function arrange(section) {
    const table = section.querySelector("table.data");
    if (!table) return;
    const [column, descending] = order.get(section.id) ?? [];
    table.querySelectorAll("thead th").forEach((head, index) => {
      if (index === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    if (column !== undefined) {
      const by = compare(column);
      const way = descending ? -1 : 1;
      const put = (parent, items) => items.forEach((item, index) => {
        if (parent.children[index] !== item) parent.insertBefore(item, parent.children[index]);
      });
      const bodies = [...table.tBodies];
      for (const body of bodies) {
        const [first, ...rest] = body.rows;
        if (first?.classList.contains("total")) put(body, [first, ...rest.sort((a, b) => way * by(a, b))]);
        else put(body, [...body.rows].sort((a, b) => way * by(a, b)));
      }
      if (bodies.length > 1) {
        bodies.sort((a, b) => way * by(a.rows[0], b.rows[0])).forEach((body) => table.append(body));
      }
    }
    const words = wanted.get(section.id) ?? [];
    const holds = (row) => {
      const text = row.textContent.toLowerCase();
      return words.every((word) => text.includes(word));
    };
    let shown = 0, all = 0;
    for (const body of table.tBodies) {
      const total = body.querySelector(".total");
      let any = false;
      for (const row of body.rows) {
        if (row === total) continue;
        row.hidden = !holds(row) && !(total && holds(total));
        any ||= !row.hidden;
        all += 1;
        shown += row.hidden ? 0 : 1;
      }
      if (total) total.hidden = words.length > 0 && !any;
    }
    const output = section.querySelector("output");
    if (output) {
      const text = words.length ? `${shown} of ${all}` : "";
      if (output.value !== text) output.value = text;
    }
  }

  function furnish(section) {
    const table = section.querySelector("table.data");
    if (!table || section.querySelector("input")) return;
    table.querySelectorAll("thead th").forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      button.addEventListener("click", () => {
        const [now, descending] = order.get(section.id) ?? [];
        order.set(section.id, [column, now === column ? !descending : column > 0]);
        arrange(section);
      });
      head.replaceChildren(button);
    });
    const input = document.createElement("input");
    input.type = "search";
    input.placeholder = "Filter";
    input.autocomplete = "off";
    input.setAttribute("aria-label", `Filter ${section.querySelector("h2").textContent}`);
    input.addEventListener("input", () => {
      wanted.set(section.id, input.value.toLowerCase().split(/\s+/).filter(Boolean));
      arrange(section);
    });
    section.querySelector(".bar").append(document.createElement("output"), input);
  }

  // --- what can be picked: all follows ---

  function press() {
    main.querySelectorAll(".pick").forEach((button) => {
      const { pick, of } = button.parentElement.dataset;
      button.setAttribute("aria-pressed", filter.isOn(pick, of));
    });
  }

  // The incident that is picked is told in full, once: the reader may fold it again.
  let told = null;
  function unfold() {
    const { incident } = filter.state;
    const item = incident ? main.querySelector(`.problem[data-key="${incident}"]`) : null;
    if (item && item !== told) item.querySelector("details")?.setAttribute("open", "");
    told = item;
  }

  function furnishPicks() {
    if (!document.getElementById("flows-list")) return;
    main.querySelectorAll("[data-pick]").forEach((place) => {
      if (place.firstElementChild) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "pick";
      button.textContent = place.textContent;
      button.addEventListener("click", () => filter.toggle(place.dataset.pick, place.dataset.of));
      place.replaceChildren(button);
    });
    press();
  }

  function arrangeAll() {
    furnishPicks();
    main.querySelectorAll("section").forEach((section) => { furnish(section); arrange(section); });
  }

  // --- live: take over what differs, and leave alone what the reader did ---

  const key = (node) => node.dataset?.key ?? node.id;

  function morph(old, fresh) {
    if (old.nodeName === "TR" && old.isEqualNode(fresh)) return; // most are
    for (const { name, value } of fresh.attributes) {
      if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && !["open", "hidden", "aria-sort", "style"].includes(name)) old.removeAttribute(name);
    }
    if (old.matches("[data-chart], .bar, table.data > thead") && old.childElementCount) {
      const note = old.querySelector(".note"), now = fresh.querySelector(".note");
      if (note && now && note.textContent !== now.textContent) note.textContent = now.textContent;
      return;
    }
    if (old.id === "flows-list") return; // it asks for itself
    if (old.firstElementChild?.matches(".pick")) old = old.firstElementChild;
    if (old.childElementCount + fresh.childElementCount === 0) {
      if (old.textContent !== fresh.textContent) old.textContent = fresh.textContent;
      return;
    }
    // What is gone goes first, so that what stays need not be moved, and keeps the focus.
    const stays = new Set([...fresh.children].map(key));
    for (const child of [...old.children]) if (key(child) && !stays.has(key(child))) child.remove();
    const known = new Map([...old.children].filter(key).map((child) => [key(child), child]));
    let place = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      let match = null;
      if (child.nodeType === Node.ELEMENT_NODE && key(child)) match = known.get(key(child)) ?? null;
      else if (place && place.nodeType === child.nodeType && place.nodeName === child.nodeName && !key(place)) match = place;
      if (match && match.nodeName === child.nodeName) {
        if (match === place) place = place.nextSibling;
        else old.insertBefore(match, place);
        if (child.nodeType === Node.ELEMENT_NODE) morph(match, child);
        else if (match.data !== child.data) match.data = child.data;
      } else {
        old.insertBefore(document.importNode(child, true), place);
      }
    }
    while (place) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
  }

  // Shows the report, narrowed to what is picked; what is looked at stays where it is.
  function present() {
    const held = seen(), focused = document.activeElement, top = held?.getBoundingClientRect().top;
    morph(main, figures.narrowed(said));
    arrangeAll();
    unfold();
    drawAll();
    if (main.contains(focused) && document.activeElement !== focused) focused.focus({ preventScroll: true });
    const hold = () => {
      if (scrollY && held?.isConnected) scrollBy(0, held.getBoundingClientRect().top - top);
    };
    hold();
    return hold;
  }

  const EVERY = 2000;
  let paused = false, etag = "";
  const state = document.getElementById("live"), pause = document.getElementById("pause");
  const say = (text, kind) => { if (state.textContent !== text) state.textContent = text; state.className = kind; };

  // What must not move while the page around it does: what has the focus, else what is looked at.
  function seen() {
    const focused = document.activeElement, { top, bottom } = focused.getBoundingClientRect();
    if (main.contains(focused) && bottom > 0 && top < innerHeight) return focused;
    return document.elementFromPoint(innerWidth / 2, innerHeight / 3)?.closest("section");
  }

  async function refresh() {
    if (paused || document.hidden) return;
    try {
      const answer = await fetch("report.html", { cache: "no-store", headers: etag ? { "If-None-Match": etag } : {} });
      if (answer.status === 200) {
        etag = answer.headers.get("ETag") ?? "";
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        if (JSON.parse(fresh.getElementById("data").textContent).session !== read().session) flowList.begin();
        said = fresh.getElementById("report");
        document.querySelector(".when").textContent = fresh.querySelector(".when").textContent;
        document.title = fresh.title;
        const hold = present();
        const y = scrollY;
        if (document.hidden) return; // it may be by now
        flowList.refresh().then(() => { if (scrollY === y) hold(); });
      } else if (answer.status === 304) {
        flowList.fill();
      } else {
        throw new Error(answer.statusText);
      }
      if (!paused) say("live", "");
    } catch {
      say("the proxy does not answer", "gone");
    }
  }

  arrangeAll();
  drawAll();
  flowList.start().then(() => {
    figures.watch(present);
    filter.watch(present);
    if (Object.keys(filter.state).length) present();
  }).catch((error) => {
    const place = document.querySelector("#flows-list .empty");
    if (!place) throw error;
    place.textContent = `This browser cannot show the list: ${error.message}`;
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(true));
  let opened = []; // for the printer
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not(.numbers, [open])")];
    opened.forEach((item) => { item.open = true; });
  });
  addEventListener("afterprint", () => opened.splice(0).forEach((item) => { item.open = false; }));
  if (state) {
    pause.hidden = false;
    pause.addEventListener("click", () => {
      paused = !paused;
      pause.textContent = paused ? "Go on" : "Pause";
      say(paused ? "paused" : "live", paused ? "stopped" : "");
      refresh();
    });
    document.addEventListener("visibilitychange", refresh);
    setInterval(refresh, EVERY);
  }
})();
