// What is picked, summed up again from the flows that the page holds: as the tally counts and
// report/html.py shows it. Under which keys a flow is counted, Python says of each; which tables
// there are, and how they are ordered, report/figures_data.py.
const figures = (() => {
  const { make, attempts, clock, period, count, took, size, fixed, subject, shortened } = flowList.words;
  const { declared } = flowList;
  const bar = document.getElementById("picks");
  const percent = (share) => `${fixed(100 * share, 1)} %`;
  const plural = (number) => (number === 1 ? "" : "s");
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const before = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

  // --- the flows that the page holds, by columns ---

  function bucketOf(ms) {
    const { starts } = declared.buckets;
    const microseconds = Math.round(ms * 1000);
    let [low, high] = [0, starts.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (microseconds < starts[middle]) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  const middleOf = (bucket) => (declared.buckets.first * declared.buckets.growth ** (bucket ? bucket - 0.5 : 0)) / 1000;

  const textOf = (word) => (Array.isArray(word) ? word.join("\0") : String(word));

  class Words {
    constructor({ words = [], at = [] } = {}) {
      [this.words, this.at] = [words, at];
      this.known = new Map(words.map((word, number) => [textOf(word), number]));
    }

    find(word) { return this.known.get(word) ?? -2; }

    push(word) {
      if (word == null) return this.at.push(-1);
      const text = textOf(word);
      if (!this.known.has(text)) {
        this.known.set(text, this.words.length);
        this.words.push(word);
      }
      return this.at.push(this.known.get(text));
    }
  }

  const TEXTS = ["incident", "series", "client", "description"];
  const NUMBERS = ["time", "duration_ms", "wait_ms", "request_bytes", "response_bytes", "error_code", "timed"];
  const DISTRIBUTED = { duration: "duration_ms", wait: "wait_ms" };

  class Held {
    constructor(keys) {
      this.keys = Object.fromEntries(keys.map((name) => [name, new Words()]));
      this.texts = Object.fromEntries(TEXTS.map((name) => [name, new Words()]));
      this.numbers = Object.fromEntries(NUMBERS.map((name) => [name, []]));
      this.buckets = { duration: [], wait: [] };
      this.seen = new Set();
      this.records = [];
      this.answered = new Set(); // flows, of challenges
      this.byFlow = new Map(); // flow → index, of problems
    }

    get length() { return this.numbers.time.length; }
    record(index) { return this.records[index]; }

    add(records) {
      for (const record of records) {
        if (this.seen.has(record.seq)) continue;
        this.seen.add(record.seq);
        this.records.push(record);
        const { derived, derived: { keys } } = record;
        for (const name in this.keys) this.keys[name].push(keys[name]);
        for (const name of TEXTS) this.texts[name].push(derived[name] ?? record[name]);
        for (const name of NUMBERS) this.numbers[name].push(derived[name] ?? record[name] ?? NaN);
        for (const name in DISTRIBUTED) this.buckets[name].push(this.bucket(DISTRIBUTED[name], this.length - 1));
        this.answer(record);
      }
    }

    // A challenge that was answered is no problem; one or the other may be known first.
    answer({ answers, flow, derived }) {
      if (answers) this.answered.add(answers);
      if (flow && derived.incident) this.byFlow.set(flow, this.length - 1);
      for (const each of [answers, flow]) {
        if (this.answered.has(each) && this.byFlow.has(each)) this.texts.incident.at[this.byFlow.get(each)] = -1;
      }
    }

    bucket(name, index) {
      const value = this.numbers[name][index];
      return this.numbers.timed[index] === 1 && value >= 0 ? bucketOf(value) : -1;
    }
  }

  // What a report holds is in columns already.
  class Packed extends Held {
    constructor({ count: length, columns, derived, keys }, record) {
      super([]);
      const of = (name) => derived[name] ?? columns[name];
      const none = new Int32Array(length).fill(-1);
      const words = (column) => new Words(column?.words ? column : { at: none });
      const numbers = (column) => {
        const found = new Float64Array(length).fill(NaN);
        let total = 0;
        if (column?.steps) column.steps.forEach((step, index) => { found[index] = total += step; });
        else column?.numbers?.forEach((number, index) => { if (number !== null) found[index] = number; });
        return found;
      };
      this.keys = Object.fromEntries(Object.entries(keys).map(([name, column]) => [name, words(column)]));
      this.texts = Object.fromEntries(TEXTS.map((name) => [name, words(of(name))]));
      this.numbers = Object.fromEntries(NUMBERS.map((name) => [name, numbers(of(name))]));
      for (const name in DISTRIBUTED) {
        this.buckets[name] = new Int16Array(length);
        for (let index = 0; index < length; index += 1) this.buckets[name][index] = this.bucket(DISTRIBUTED[name], index);
      }
      this.record = record;
    }
  }

  // --- which of them are picked ---

  function pick(held, { incident, host, series, time }) {
    const { hosts } = held.keys;
    const of = incident === undefined ? null : held.texts.incident.find(incident);
    const at = host === undefined ? null : hosts.find(host);
    const what = series === undefined ? null : held.texts.series.find(series);
    const [from, to] = time ? time.split("-").map((second) => 1000 * second) : [-Infinity, Infinity];
    const [overTime, chosen] = [[], []]; // the chart keeps its span, whatever of it is picked
    let all = 0;
    for (let index = 0; index < held.length; index += 1) {
      if (hosts.at[index] < 0) continue; // background
      all += 1;
      if (of !== null && held.texts.incident.at[index] !== of) continue;
      if (at !== null && hosts.at[index] !== at) continue;
      if (what !== null && held.texts.series.at[index] !== what) continue;
      overTime.push(index);
      const when = held.numbers.time[index];
      if (when >= from && when < to) chosen.push(index);
    }
    const orders = {};
    return {
      held, all, overTime, chosen, time: time ? [from / 1000, to / 1000] : null,
      // Those with a time, the shortest first, as far as buckets tell.
      sorted(name) {
        const buckets = held.buckets[name];
        return (orders[name] ??= sorted(chosen.filter((index) => buckets[index] >= 0), buckets));
      },
    };
  }

  // By buckets, of which there are few.
  function sorted(indices, buckets) {
    const starts = new Int32Array(declared.buckets.starts.length + 2);
    for (const index of indices) starts[buckets[index] + 1] += 1;
    for (let bucket = 1; bucket < starts.length; bucket += 1) starts[bucket] += starts[bucket - 1];
    const order = new Int32Array(indices.length);
    for (const index of indices) order[starts[buckets[index]]++] = index;
    return order;
  }

  // --- the fold ---

  const COUNTS = ["flows", "failures", "unsuccessful", "cancelled", "events", "problems", "request_bytes", "response_bytes"];

  // What became of each: the field of COUNTS, besides `flows`, that it is counted in.
  function fates({ texts, numbers }) {
    const of = texts.series.words.map((word) => ({ error: "failures", cancelled: "cancelled", event: "events" })[word]);
    return (index) => of[texts.series.at[index]] ?? (numbers.error_code[index] === numbers.error_code[index] ? "unsuccessful" : null);
  }

  // The rows of a table: `at`, of each flow held the number of its row, -1 for none.
  class Rows {
    constructor(picked, at, size) {
      const { held, chosen } = picked;
      [this.picked, this.held, this.at, this.size] = [picked, held, at, size];
      for (const name of COUNTS) this[name] = new Float64Array(size);
      this.any = new Int32Array(size).fill(-1);
      this.points = {};
      const fate = fates(held), { request_bytes: sent, response_bytes: received } = held.numbers, incidents = held.texts.incident.at;
      for (const index of chosen) {
        const row = at[index];
        if (row < 0) continue;
        const became = fate(index);
        if (became !== "events") this.flows[row] += 1;
        if (became) this[became][row] += 1;
        if (incidents[index] >= 0) this.problems[row] += 1;
        this.request_bytes[row] += sent[index] || 0;
        this.response_bytes[row] += received[index] || 0;
        this.any[row] = index;
      }
    }

    get filled() { return [...this.any.keys()].filter((row) => this.any[row] >= 0); }
    count(row) { return this.flows[row] + this.events[row]; }

    // Of times, the points that are told of each row, and their sums. In the order of their
    // buckets, a row's percentile is where so many of its times have passed.
    distribution(name) {
      if (this.points[name]) return this.points[name];
      const { at, size, held } = this, buckets = held.buckets[name], times = held.numbers[DISTRIBUTED[name]];
      const [number, passed] = [new Int32Array(size), new Int32Array(size)];
      const [microseconds, max] = [new Float64Array(size), new Float64Array(size).fill(NaN)];
      const order = this.picked.sorted(name);
      for (const index of order) {
        const row = at[index];
        if (row < 0) continue;
        const time = Math.round(times[index] * 1000);
        number[row] += 1;
        microseconds[row] += time;
        if (!(max[row] >= time / 1000)) max[row] = time / 1000;
      }
      const found = { number, microseconds, max };
      const wanted = Object.entries(declared.percentiles).map(([point, share]) =>
        [number.map((times) => Math.ceil(share * times)), (found[point] = new Float64Array(size).fill(NaN))]);
      for (const index of order) {
        const row = at[index];
        if (row < 0) continue;
        const number = (passed[row] += 1);
        for (let point = 0; point < wanted.length; point += 1) {
          if (number !== wanted[point][0][row]) continue;
          const time = number === found.number[row] ? max[row] : Math.min(middleOf(buckets[index]), max[row]);
          wanted[point][1][row] = Math.round(1000 * time) / 1000;
        }
      }
      return (this.points[name] = found);
    }

    mean(row) {
      const { number, microseconds } = this.distribution("duration");
      return number[row] ? Math.round(microseconds[row] / number[row]) : null;
    }

    value(field, row, whole, note) {
      if (field in declared.times) {
        const [name, point] = declared.times[field];
        const value = this.distribution(name)[point][row];
        return value === value ? value : null;
      }
      if (field === "share") return this.flows[row] / (whole.flows[0] || 1);
      return field === "note" ? note : this[field][row];
    }
  }

  function wholeOf(picked) { return new Rows(picked, new Uint8Array(picked.held.length), 1); }

  // --- tables ---

  const isOther = (key) => key.includes(declared.other);
  const byKey = (a, b) => { for (const [part, text] of a.entries()) if (text !== b[part]) return before(text, b[part]); return 0; };

  const ORDERS = {
    count: (rows, words) => rows.filled.sort((a, b) =>
      isOther(words[a]) - isOther(words[b]) || rows.count(b) - rows.count(a) || byKey(words[a], words[b])),
    problems: (rows, words) => rows.filled.filter((row) => rows.problems[row]).sort((a, b) =>
      isOther(words[a]) - isOther(words[b]) || rows.problems[b] - rows.problems[a] || byKey(words[a], words[b])),
    mean: (rows, words) => rows.filled.filter((row) => rows.mean(row) !== null && !isOther(words[row])).sort((a, b) =>
      rows.mean(b) - rows.mean(a) || byKey(words[a], words[b])),
  };

  // Each entry: key, name, what gives its values, and of sums and what they sum up, the band.
  function simple(table, picked, whole, rowsOf) {
    const { words } = picked.held.keys[table.of], rows = rowsOf(table.of);
    return ORDERS[table.order](rows, words).map((row) => {
      const key = words[row];
      return { key: key.join("/"), name: key.at(-1), value: (field) => rows.value(field, row, whole) };
    });
  }

  // The numbers of words by their first part, and rows that sum up each.
  function grouped(picked, { words, at }) {
    const names = [...new Set(words.map((word) => word[0]))];
    const of = words.map((word) => names.indexOf(word[0]));
    const rows = new Int32Array(at.length).fill(-1);
    for (const index of picked.chosen) if (at[index] >= 0) rows[index] = of[at[index]];
    return { names, of, rows: new Rows(picked, rows, names.length) };
  }

  function bands(table, picked, whole, rowsOf) {
    const column = picked.held.keys[table.of], rows = rowsOf(table.of), sums = grouped(picked, column);
    const { words: said, at } = picked.held.texts.description;
    return declared.bands.flatMap((band) => {
      const number = sums.names.indexOf(band);
      if (number < 0 || sums.rows.any[number] < 0) return [];
      const codes = rows.filled.filter((row) => sums.of[row] === number);
      codes.sort((a, b) => isOther(column.words[a]) - isOther(column.words[b]) || before(column.words[a][1], column.words[b][1]));
      const total = { key: band, name: band, band, total: true, value: (field) => sums.rows.value(field, number, whole) };
      return [total, ...codes.map((row) => {
        const name = `${column.words[row][1]} ${said[at[rows.any[row]]] ?? ""}`.trimEnd();
        return { key: name, name, band, value: (field) => rows.value(field, row, whole) };
      })];
    });
  }

  function kinds(table, picked, whole, rowsOf) {
    const sums = grouped(picked, picked.held.keys[table.of]);
    const notes = (kind) => {
      const of = (name, wanted) => rowsOf(name).filled.filter((row) => {
        const [first, second] = picked.held.keys[name].words[row];
        return first === kind && second && wanted;
      }).map((row) => [picked.held.keys[name].words[row][1], rowsOf(name).flows[row]]);
      const closed = of(table.of, true).map(([code, number]) => [`closed with ${code}`, number]);
      return [...closed, ...of("methods", kind !== "websocket")].sort((a, b) => b[1] - a[1] || before(a[0], b[0]))
        .slice(0, declared.in_note).map(([what, number]) => `${what} (${number})`).join(", ");
    };
    return sums.names.map((kind, row) => [kind, row]).filter(([, row]) => sums.rows.any[row] >= 0).sort(([a], [b]) => before(a, b)).map(([kind, row]) => {
      const name = declared.kinds[kind] ?? kind;
      return { key: name, name, value: (field) => sums.rows.value(field, row, whole, notes(kind)) };
    });
  }

  function longest(table, { held, chosen }) {
    const { at } = held.keys[table.of], { time, duration_ms: spent } = held.numbers;
    const found = [];
    for (const index of chosen) {
      if (at[index] < 0 || !(spent[index] >= 0) || (found.length === table.most && spent[index] < spent[found.at(-1)])) continue;
      found.push(index);
      found.sort((a, b) => spent[b] - spent[a] || time[b] - time[a]);
      if (found.length > table.most) found.pop();
    }
    return found.sort((a, b) => spent[b] - spent[a] || time[a] - time[b]).map((index) => {
      const record = held.record(index);
      const values = { ...record, started: new Date(record.time - record.duration_ms).toISOString(), status: String(record.status || record.cause || "") };
      return { key: `${record.seq}`, name: shortened(subject(record), 512), value: (field) => values[field] ?? null };
    });
  }

  const ENTRIES = { bands, kinds, longest };

  function cell(value, { unit, colour }) {
    if (unit === "text" || unit === "word") return make("td", unit === "text" ? { class: "text" } : {}, value ?? "");
    if (unit === "time") return make("td", { "data-value": value }, clock(Date.parse(value)));
    if (value === null) return make("td", { "data-value": "-1" });
    if (unit === "count" || unit === "problems") return make("td", { "data-value": value, ...(value && colour ? { class: colour } : {}) }, count(value));
    return make("td", { "data-value": value }, { share: percent, bytes: size, ms: took }[unit](value));
  }

  function fill(section, table, entries, colours) {
    const shown = entries.slice(0, table.most ?? entries.length);
    const bodies = [];
    for (const { key, name, band, total, value } of shown) {
      if (!bodies.length || total) bodies.push(make("tbody", total ? { "data-key": key, class: colours[band][1] } : {}));
      const picks = table.pick && name && (total || !band) ? { "data-pick": table.pick, "data-of": name } : {};
      bodies.at(-1).append(make("tr", { "data-key": key, ...(total ? { class: "total" } : {}) },
        make("th", { scope: "row", ...picks }, name || "(none)"), ...table.columns.map((column) => cell(value(column.field), column))));
    }
    const body = section.querySelector("table.data");
    body.querySelectorAll("tbody").forEach((old) => old.remove());
    body.append(...bodies);
    noted(section, [table.note, shown.length < entries.length && `the first ${shown.length} of ${count(entries.length)} ${table.what}s`].filter(Boolean).join("; "));
  }

  function noted(section, text) {
    const note = section.querySelector(".bar .note");
    if (note) note.textContent = text;
    else if (text) section.querySelector(".bar").append(make("p", { class: "note" }, text));
  }

  // --- above and beside the tables ---

  function totals(section, whole, bySeries, colours) {
    const said = {
      flows: whole.flows[0], failures: whole.failures[0], unsuccessful: whole.unsuccessful[0], events: whole.events[0],
      cancelled: whole.cancelled[0], ok: bySeries.ok ?? 0, unfinished: bySeries.unfinished ?? 0,
      request_bytes: whole.request_bytes[0], response_bytes: whole.response_bytes[0],
    };
    for (const each of section.querySelectorAll("[data-total]")) {
      const name = each.dataset.total, box = each.closest("div"), note = box.querySelector("small");
      if (!(name in said) || (!said[name] && declared.optional.includes(name))) { box.remove(); continue; }
      each.dataset.value = said[name];
      each.textContent = name.endsWith("bytes") ? size(said[name]) : count(said[name]);
      box.className = { failures: "failure", unsuccessful: "client", events: "event" }[said[name] ? name : ""] ?? "";
      note?.remove();
      if (said[name] && said.flows && (name === "failures" || name === "unsuccessful")) each.after(" ", make("small", {}, percent(said[name] / said.flows)));
    }
    segments(section, bySeries, said.flows, colours);
  }

  function segments(section, bySeries, flows, colours) {
    const picture = section.querySelector(".outcomes"), legend = section.querySelector(".legend");
    if (!picture) return;
    let start = 0;
    const [words, rects] = [[], []];
    for (const [series, [name, colour]] of Object.entries(colours)) {
      if (!bySeries[series] || series === "event") continue;
      const share = bySeries[series] / Math.max(1, flows);
      const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
      title.textContent = `${name}: ${count(bySeries[series])}`;
      const rect = rectangle(colour, start, 0, 1000 * share, 10);
      rect.append(title);
      rects.push(rect);
      words.push([name, colour, share]);
      start += 1000 * share;
    }
    picture.replaceChildren(...rects);
    picture.setAttribute("aria-label", words.map(([name, , share]) => `${name} ${percent(share)}`).join(", "));
    legend.replaceChildren(...words.map(([name, colour, share]) => make("li", {}, make("i", { class: `swatch ${colour}` }), `${name} ${percent(share)}`)));
  }

  function rectangle(colour, x, y, width, height) {
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of Object.entries({ class: `fill ${colour}`.trim(), x, y, width, height })) rect.setAttribute(name, typeof value === "number" ? value.toFixed(2) : value);
    return rect;
  }

  // --- charts, and their numbers ---

  function traffic(section, { held, overTime, time }, whole, colours) {
    const { starts, seconds, offset } = whole.traffic;
    const words = held.texts.series.words, values = words.map(() => new Array(starts.length).fill(0));
    for (const index of overTime) {
      const slot = Math.floor((Math.floor(held.numbers.time[index] / 1000) - starts[0]) / seconds);
      if (slot >= 0 && slot < starts.length) values[held.texts.series.at[index]][slot] += 1;
    }
    const series = Object.entries(colours).map(([name, [title, colour]]) => ({ name: title, colour, values: values[words.indexOf(name)] ?? [] })).filter((each) => sum(each.values));
    const isIn = (start) => !time || (start + seconds > time[0] && start < time[1]);
    const shown = series.filter((each) => starts.some((start, slot) => isIn(start) && each.values[slot]));
    const table = section.querySelector("table");
    table.tHead.rows[0].replaceChildren(table.tHead.rows[0].cells[0], ...shown.map(({ name }) => make("th", { scope: "col" }, name)));
    const heads = new Map([...table.tBodies[0].rows].map((row) => [row.dataset.key, row.cells[0]]));
    table.tBodies[0].replaceChildren(...starts.flatMap((start, slot) => {
      const counts = shown.map((each) => each.values[slot]), head = heads.get(String(start));
      if (!head || !isIn(start) || !sum(counts)) return [];
      return [make("tr", { "data-key": start }, head, ...counts.map((number) => make("td", { "data-value": number }, count(number))))];
    }));
    return { starts, seconds, offset, series, span: time };
  }

  function durations(section, { held, chosen }) {
    const { first, growth, bar: width } = declared.buckets;
    const limit = (number) => (number >= 0 ? (first * growth ** (number * width)) / 1000 : 0);
    const found = new Map();
    for (const index of chosen) {
      const bucket = held.buckets.duration[index];
      if (bucket < 0) continue;
      const number = Math.ceil(bucket / width);
      found.set(number, (found.get(number) ?? 0) + 1);
    }
    const [least, most] = [Math.min(...found.keys()), Math.max(...found.keys())];
    const numbers = found.size ? [...Array(most - least + 1).keys()].map((number) => least + number) : [];
    const bars = numbers.map((number) => [limit(number - 1), limit(number), found.get(number) ?? 0]);
    const exact = (ms) => `${ms.toLocaleString("en", { minimumFractionDigits: ms < 100 ? 1 : 0, maximumFractionDigits: ms < 100 ? 1 : 0 })} ms`;
    section.querySelector("tbody").replaceChildren(...bars.map(([start, end, number]) => make("tr", { "data-key": start },
      make("th", { scope: "row" }, exact(start)), make("td", {}, exact(end)), make("td", { "data-value": number }, count(number)))));
    return { bars };
  }

  // --- incidents ---

  function byIncident({ held, chosen }) {
    const { incident, client } = held.texts, found = new Map();
    const more = (counts, text) => { if (text !== undefined) counts.set(text, (counts.get(text) ?? 0) + 1); };
    const endpoints = held.keys.endpoints;
    for (const index of chosen) {
      const id = incident.words[incident.at[index]];
      if (id === undefined) continue;
      if (!found.has(id)) found.set(id, { times: [], endpoints: new Map(), clients: new Map() });
      const each = found.get(id);
      each.times.push(held.numbers.time[index]);
      more(each.endpoints, endpoints.words[endpoints.at[index]]?.[0]);
      more(each.clients, client.words[client.at[index]]);
    }
    return found;
  }

  function named(line, counts) {
    if (!line) return;
    const { named: most } = declared.incidents;
    const all = [...counts].sort((a, b) => b[1] - a[1] || before(a[0], b[0])), more = all.length - most;
    if (!all.length) { line.remove(); return; }
    line.replaceChildren(line.querySelector(".label"), " ", ...all.slice(0, most).flatMap(([name, times]) =>
      [make("span", { class: "counted" }, name, ...(all.length > 1 ? [" ", make("b", {}, count(times))] : [])), " "]),
    more > 0 ? `and ${more} more ${line.dataset.of === "at" ? "endpoint" : "client"}${plural(more)}` : "");
  }

  function incident(item, { times, endpoints, clients }, data, isPart) {
    const number = item.querySelector(".count");
    number.dataset.value = times.length;
    number.textContent = count(times.length);
    item.querySelectorAll(".share, .stopped").forEach((each) => each.remove()); // they are of the whole host
    times.sort((a, b) => a - b);
    item.querySelector(".span").textContent = period(times[0], times.at(-1), data.dated);
    named(item.querySelector('.counts[data-of="at"]'), endpoints);
    named(item.querySelector('.counts[data-of="from"]'), clients);
    if (isPart) item.querySelector(".examples")?.remove();
    const picture = item.querySelector(".bars"), { starts, seconds } = data.traffic;
    if (!picture || !starts.length) return;
    const { width, height: full, points: slots } = declared.incidents;
    const lasts = starts.at(-1) + seconds - starts[0], points = new Array(slots).fill(0);
    for (const time of times) points[Math.max(0, Math.min(slots - 1, Math.floor((slots * (time / 1000 - starts[0])) / lasts)))] += 1;
    const most = Math.max(...points);
    picture.replaceChildren(...points.flatMap((some, slot) => {
      const height = full * Math.max(0.1, some / most);
      return some ? [rectangle("", (width * slot) / slots, full - height, width / slots, height)] : [];
    }));
    const at = 1000 * (starts[0] + (points.indexOf(most) * lasts) / slots);
    picture.setAttribute("aria-label", `${item.querySelector("strong").textContent} over time: most at ${clock(at, data.dated)}, ${count(most)}`);
  }

  function problems(section, picked, data) {
    const found = byIncident(picked), list = section.querySelector("ol");
    const others = section.querySelectorAll("#waits, #apart"); // sentences on the whole
    others.forEach((each) => each.remove());
    let shown = 0;
    for (const item of list?.children ? [...list.children] : []) {
      const each = found.get(item.dataset.key);
      if (!each) { item.remove(); continue; }
      incident(item, each, data, picked.time !== null);
      shown += 1;
    }
    const none = found.size ? "No incident of this is shown on the page." : filter.state.incident ? `No flow here is of incident ${filter.state.incident}.` : "No problems.";
    if (list && !shown) list.replaceWith(make("p", { class: "empty" }, none));
    const more = found.size - shown;
    const said = [
      found.size && `${count(found.size)} incident${plural(found.size)}, in the order of the whole report`,
      more > 0 && `${count(more)} not shown here`, others.length && "what is not among the problems is told of the whole report only",
    ];
    noted(section, said.filter(Boolean).join("; "));
  }

  // --- all of it ---

  // The report as Python made it, with the figures of what is picked. It stays as it is.
  function folded(report, picked) {
    const fresh = report.cloneNode(true);
    const script = fresh.querySelector("#data"), data = JSON.parse(script.textContent), colours = data.names;
    const { held } = picked, whole = wholeOf(picked), known = new Map();
    const rowsOf = (name) => {
      if (!known.has(name)) known.set(name, new Rows(picked, held.keys[name].at, held.keys[name].words.length));
      return known.get(name);
    };
    const series = new Rows(picked, held.texts.series.at, held.texts.series.words.length);
    const bySeries = Object.fromEntries(held.texts.series.words.map((name, row) => [name, series.count(row)]));
    totals(fresh.querySelector("#totals"), whole, bySeries, colours);
    problems(fresh.querySelector("#problems"), picked, data);
    for (const table of declared.tables) {
      const section = fresh.querySelector(`#${table.id}`);
      if (!section) continue;
      const entries = (ENTRIES[table.order] ?? simple)(table, picked, whole, rowsOf);
      if (entries.length) fill(section, table, entries, colours);
      else section.remove();
    }
    data.traffic = traffic(fresh.querySelector("#traffic"), picked, data, colours);
    data.durations = durations(fresh.querySelector("#durations"), picked);
    script.textContent = JSON.stringify(data);
    return fresh;
  }

  // Of more than a page holds the oldest are let go of, and what is picked last of all.
  function fewer({ records, answered }, picked) {
    const order = [...records.keys()].sort((a, b) => picked.has(b) - picked.has(a) || records[b].seq - records[a].seq);
    const kept = new Held(declared.keys), chosen = order.slice(0, declared.most).map((index) => records[index]);
    kept.answered = new Set(chosen.map(({ flow }) => flow).filter((flow) => answered.has(flow)));
    kept.add(chosen);
    return kept;
  }

  let held = null, part = "", known = "", latest = null, changed = () => {}, waiting = null;

  function narrowed(report) {
    const isNarrowed = Object.keys(filter.state).length > 0;
    if (!isNarrowed || !held) {
      latest = null;
      say();
      return report;
    }
    latest = pick(held, filter.state);
    const fresh = folded(report, latest);
    say();
    return fresh;
  }

  // --- what is picked, and taking it back ---

  function labelled(name, text) {
    const { names, dated } = JSON.parse(document.getElementById("data").textContent);
    if (name === "series") return Object.hasOwn(names, text) ? names[text][0] : text;
    if (name !== "time") return `${name} ${text}`;
    const [from, to] = text.split("-").map((second) => 1000 * second);
    return to < 8e12 ? period(from, to, dated) : text;
  }

  const chips = make("div", { class: "chips", role: "group", "aria-label": "Picked" });
  const said = make("p", { class: "note", role: "status" });
  const flows = make("a", { href: "#flows" }, "Flows");
  flows.addEventListener("click", (event) => { // the address keeps what is picked
    event.preventDefault();
    document.getElementById("flows").scrollIntoView();
    document.querySelector("#flows .flow[tabindex='0']")?.focus({ preventScroll: true });
  });

  function say() {
    const state = Object.entries(filter.state);
    bar.hidden = !state.length;
    // `part` is null where the page holds all that is picked, and maybe not all else.
    const text = !latest ? "" : part === null ? attempts(latest.chosen.length) : `${count(latest.chosen.length)} of ${attempts(latest.all)}${part}`;
    if (said.textContent !== text) said.textContent = text;
    const words = JSON.stringify(state);
    if (words === known) return;
    known = words;
    const isHere = bar.contains(document.activeElement);
    chips.replaceChildren(...state.map(([name, value]) => {
      const button = make("button", { type: "button", class: "chip" }, `${labelled(name, value)} ✕`);
      button.setAttribute("aria-label", `Do not narrow to ${labelled(name, value)}`);
      button.addEventListener("click", () => filter.remove(name));
      return button;
    }));
    if (isHere) (chips.querySelector("button") ?? document.getElementById("totals")).focus();
  }

  bar?.append(chips, said, flows); // a comparison has none

  // The figures follow what is taken in, not more often than one can read.
  function grown() {
    if (waiting || !Object.keys(filter.state).length) return;
    waiting = setTimeout(() => { waiting = null; changed(); }, latest?.chosen.length ? 1000 : 0);
  }

  return {
    narrowed,
    watch(watcher) { changed = watcher; },
    hold(packed, record, which) {
      held = new Packed(packed, record);
      part = which ? `; the page holds ${which}` : "";
    },
    forget() { [held, part] = [null, ""]; },
    // `which` of them the page holds; null: all that are picked.
    add(records, which) {
      held ??= new Held(declared.keys);
      const { length } = held, said = part;
      held.add(records);
      const isMore = held.length > length;
      if (held.length > 1.25 * declared.most) held = fewer(held, new Set(pick(held, filter.state).chosen)); // not each time, for it takes a while
      part = which && `; ${which}`;
      if (isMore || part !== said) grown();
    },
  };
})();
