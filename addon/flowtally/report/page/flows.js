// The list of flows: only the rows that are seen are there. Text from the log is only ever text.
const flowList = (() => {
  const root = document.getElementById("flows-list");
  const data = () => JSON.parse(document.getElementById("data").textContent);
  const declared = JSON.parse(document.getElementById("declared")?.textContent ?? "null"); // by report/figures_data.py
  let offset, names, background, dated; // see `learn`
  const narrow = matchMedia("(max-width: 640px)");
  const SPARE = 6, TURN = 20; // rows beyond what is seen; rows of a narrow window
  const A_WHILE = 1500; // ms between two pieces of the log in which there is nothing, if nobody waits for it
  const count = (value) => value.toLocaleString("en");
  const attempts = (number) => (number === 1 ? "1 flow or failure without a flow" : `${count(number)} flows and failures without a flow`);
  const nothing = () => (Object.keys(filter.state).length ? "No flow here is of what is picked." : "No flows.");
  const clock = (time, isDated = false) => new Date(time + offset * 1000).toISOString().replace("T", " ").slice(isDated ? 0 : 11, 19);

  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  // --- words, as report/flows_text.py and report/layout.py have them ---

  const subject = (record) => [record.method, record.url || record.derived.place].filter(Boolean).join(" ");
  const shortened = (text, most) => ([...text].length > most ? `${[...text].slice(0, most - 1).join("")}…` : text);

  function period(first, last, isDated) {
    const begin = clock(first, isDated), [from, to] = [clock(first, true), clock(last, true)];
    return from === to ? begin : `${begin} to ${clock(last, from.slice(0, 10) !== to.slice(0, 10))}`;
  }

  function result(record) {
    const status = String(record.status ?? "");
    if (!record.cause) return `${status} ${record.description ?? ""}`.trim() || (record.outcome ?? "");
    const { cause, reason } = record;
    const why = reason === "(other)" ? ` ${reason}` : reason ? ` (${reason})` : "";
    return [status, cause + why, String(record.error_code ?? "")].filter(Boolean).join(" ");
  }

  // Halves go to the even digit.
  function fixed(number, digits) {
    const scaled = number * 10 ** digits;
    const half = scaled % 1 === 0.5 && (number * 4) % 1 === 0;
    return half ? ((2 * Math.round(scaled / 2)) / 10 ** digits).toFixed(digits) : number.toFixed(digits);
  }

  function size(bytes) {
    for (const unit of ["B", "kB", "MB", "GB"]) {
      if (bytes < 1000) return `${fixed(bytes, unit === "B" || bytes >= 10 ? 0 : 1)} ${unit}`;
      bytes /= 1000;
    }
    return `${fixed(bytes, 1)} TB`;
  }

  const took = (ms) => (ms == null ? "" : ms >= 10_000 ? `${fixed(ms / 1000, 1)} s` : `${fixed(ms, 0)} ms`);
  const single = (text) => `'${text.replaceAll("'", `'"'"'`)}'`;
  // A text in a comment: zsh has none where people type.
  const pasted = (text) => (/^(?:[\w\s.:/,@%+=-]| \([\w ]+\))*$/.test(text) ? text : single(text));
  const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : single(word));

  function curl(record) {
    const what = pasted(shortened(subject(record) || "no request", 100));
    const { method = "", url = "" } = record;
    if (!["http", "websocket"].includes(record.kind) || !/^https?:\/\//.test(url)) return `# ${what}: only an HTTP request can be repeated`;
    if (!/^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,40}$/.test(method)) return `# ${what}: the log does not have its method`;
    const missing = ["headers"];
    if (record.request_bytes) missing.push(`the body (${size(record.request_bytes)})`);
    if (/[?&][^=&]*=(?:&|$)|\*/.test(url)) missing.push("values in the URL");
    const words = ["curl", "--globoff", "--path-as-is"];
    if (method === "HEAD") words.push("--head");
    else if (method !== "GET") words.push("--request", method);
    words.push("--url", url);
    const said = pasted(shortened(`${clock(record.time)}  ${result(record)}`, 100));
    return `# ${said}; not in the log: ${missing.join(", ")}\n${words.map(quoted).join(" ")}`;
  }

  // --- what the report holds ---

  async function unpacked() {
    const { data: text, part } = JSON.parse(document.getElementById("flows-data").textContent);
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const packed = await new Response(stream).json();
    const columns = new Columns(packed);
    figures.hold(packed, (index) => columns.at(index), part);
    return columns;
  }

  function reader({ numbers, steps, words, at }) {
    if (steps) {
      let sum = 0;
      const values = steps.map((step) => (sum += step));
      return (index) => values[index];
    }
    return numbers ? (index) => numbers[index] : (index) => (at[index] < 0 ? null : words[at[index]]);
  }

  class Columns {
    constructor({ count: number, columns, derived }) {
      this.number = number;
      this.columns = new Map(Object.entries(columns).map(([name, column]) => [name, reader(column)]));
      this.derived = new Map(Object.entries(derived).map(([name, column]) => [name, reader(column)]));
      this.narrow({});
    }

    narrow({ incident, host, series, time, background }) {
      const [from, to] = time ? time.split("-").map((second) => 1000 * second) : [];
      const [of, at, what, when] = [...["incident", "place", "series"].map((name) => this.derived.get(name)), this.columns.get("time")];
      const whose = background ? null : this.columns.get("background");
      [this.chosen, this.all] = [[], 0];
      for (let index = 0; index < this.number; index += 1) {
        if (whose && whose(index) !== null) continue;
        this.all += 1;
        if (incident && of(index) !== incident) continue;
        if (host && at(index) !== host) continue;
        if (series && what(index) !== series) continue;
        if (time && !(when(index) >= from && when(index) < to)) continue;
        this.chosen.push(index);
      }
    }

    get length() { return this.chosen.length; }

    record(row) { return this.at(this.chosen[row]); }

    // A record, also one that is not among those that are wanted.
    at(index) {
      const values = (columns) => Object.fromEntries([...columns]
        .map(([name, read]) => [name, read(index)]).filter(([, value]) => value != null));
      return { ...values(this.columns), derived: values(this.derived) };
    }

    // What is around a flow, and what is linked with it, whatever the list is narrowed to.
    async around(record) {
      const [client, time, took, flow, answers] = ["client", "time", "duration_ms", "flow", "answers"].map((name) => this.columns.get(name) ?? (() => null));
      const found = [];
      for (let index = 0; index < this.number; index += 1) {
        const near = client(index) === record.client && around.overlaps(record, time(index), took(index));
        const linked = (record.answers && flow(index) === record.answers) || (record.flow && answers(index) === record.flow);
        if (near || linked) found.push(this.at(index));
      }
      return found;
    }

    get said() {
      if (!this.length) return nothing();
      return this.length === this.all ? attempts(this.all) : `${count(this.length)} of ${count(this.all)}`;
    }
  }

  // --- what the proxy is asked for ---

  class Live {
    constructor() {
      this.turn = 0; // answers to what was asked before the list was narrowed are late
      this.trouble = ""; // why the proxy could not read its log
      this.records = [];
    }

    narrow(state) {
      const isWhole = (each) => each && !Object.keys(each).length;
      if (isWhole(this.state) && !isWhole(state)) this.whole = [this.records, this.next, this.newest];
      [this.state, this.records, this.next, this.newest, this.asking] = [state, [], {}, null, null];
      this.turn += 1;
      if (isWhole(state) && this.whole) [[this.records, this.next, this.newest], this.whole] = [this.whole, null];
      this.take([]); // the figures may not have all of that
      if (!this.length) return this.older();
      return this.newer().catch(() => {}); // the page says that the proxy is gone
    }

    // What is newer than all that is here, or older; of more than a page holds the oldest are let go of.
    take(records, isOlder = false) {
      if (isOlder) this.records.push(...records);
      else this.records.unshift(...records);
      if (this.length > declared.most) {
        this.records.length = declared.most;
        this.next = { before: this.records.at(-1).seq };
      }
      figures.add(records, !this.next ? null : `${this.isFull ? "" : "so far "}the page holds the latest only`);
    }

    get length() { return this.records.length; }
    get isFull() { return this.length >= declared.most; }
    record(row) { return this.records[row]; }

    get said() {
      if (this.trouble) return this.trouble;
      if (!this.length) return this.asking ? "Looking …" : nothing();
      if (!this.next && !this.asking) return attempts(this.length);
      return `the latest ${count(this.length)}${this.isFull ? "; the page holds no more" : ""}`;
    }

    ask(more) { return this.get({ ...this.state, ...more }); }

    async get(what) {
      const answer = await fetch(`flows?${new URLSearchParams(what)}`, { cache: "no-store" });
      this.trouble = answer.ok ? "" : (await answer.text()).trim();
      if (this.trouble) throw new Error(this.trouble);
      return answer.json();
    }

    // The log is asked a few times at most: what is long past may not be found.
    async around(record) {
      const { time, most } = around.asked(record);
      const found = this.records.filter((each) => around.isLinked(record, each));
      let next = {};
      for (let turn = 0; turn < most && next; turn += 1) {
        const { records, before, at } = await this.get({ time, background: "with", ...next });
        found.push(...records);
        next = before > record.seq - around.PASSED ? { before, at } : null;
      }
      return found;
    }

    // One piece of what is older; a piece may have nothing that is wanted.
    // `rest`: ms between two of them that have none.
    older(rest = 200) {
      this.rest = this.asking ? Math.min(this.rest, rest) : rest;
      if (this.asking || !this.next || this.isFull) return this.asking;
      const { turn, length } = this;
      const wait = (ms) => new Promise((done) => { setTimeout(done, ms); });
      const go = async () => {
        while (turn === this.turn && this.next && this.length === length) {
          if (document.hidden) { await wait(1000); continue; }
          const from = this.next;
          const { records, before, at, newest } = await this.ask(from);
          if (turn !== this.turn || from !== this.next) return;
          this.newest ??= newest;
          this.next = before ? { before, at } : null;
          this.take(records, true);
          if (this.next && this.length === length) await wait(this.rest); // the proxy has other work
        }
      };
      this.asking = go().catch(() => {}).finally(() => {
        if (turn !== this.turn) return;
        this.asking = null;
        told();
      });
      return this.asking;
    }

    again() {
      const { state } = this;
      this.state = null;
      return this.narrow(state);
    }

    // Another session counts from 1 again: what is held of the one before would be mixed with it.
    forget() {
      [this.state, this.whole] = [null, null];
      figures.forget();
    }

    // A piece of what is older, so that the figures get to know it; the proxy has other work.
    fill() { return this.older(A_WHILE); }

    // What has come since the newest record that was looked at, wanted or not; if that is more than
    // one piece, the list begins anew with it. What is older may be asked for meanwhile. Whether
    // the proxy was asked for so little that it may be asked for more.
    async newer() {
      const { turn, newest: after } = this;
      if (after === null) {
        await (this.asking ?? this.again());
        return false;
      }
      const { records, before, at, newest } = await this.ask({ after });
      if (turn !== this.turn || after !== this.newest) return false;
      this.newest = newest;
      if (before) {
        [this.records, this.next, this.asking] = [[], { before, at }, null];
        this.turn += 1;
        this.take(records, true);
        told();
        if (!records.length) await this.older();
        return false;
      }
      this.take(records);
      if (records.length) moved(records.length);
      return true;
    }
  }

  // --- rows ---

  let source = null, current = 0, first = 0, opened = "";
  const said = make("p", { class: "figures", role: "status" });
  const shown = make("input", { type: "checkbox" }); // background traffic, which no figure counts
  const counted = make("span");
  const beside = make("label", {}, shown, " ", counted);
  const room = make("div", { class: "room" });
  const box = make("div", { class: "rows", role: "group", "aria-label": "Flows, newest first" }, room);
  const turns = make("p", { class: "turns" });
  const detail = make("div", { id: "flow", role: "region", "aria-label": "The chosen flow", tabindex: "-1", hidden: "" });
  const height = () => (narrow.matches ? 46 : 26);
  // A band says what the status is; a problem inside a complete answer is one all the same.
  const isFailure = ({ outcome, cause, error_code: code }) => outcome === "status" && cause != null && code != null;
  const colour = (record) => (record.background ? "background" : names[isFailure(record) ? "error" : record.derived.series]?.[1] ?? "");
  const what = (record) => [record.background && `(background: ${record.background})`, subject(record) || record.detail].filter(Boolean).join(" ");
  const keyOf = (record) => `${record.session} ${record.seq}`;

  function row(index) {
    const record = source.record(index);
    const button = make("button", {
      type: "button", class: `flow ${colour(record)}`, "data-row": index, "aria-controls": "flow",
      "aria-expanded": keyOf(record) === opened, tabindex: index === current ? "0" : "-1",
    },
    make("time", {}, clock(record.time, dated)), make("span", { class: "result" }, result(record)),
    make("span", { class: "took" }, took(record.duration_ms)),
    make("span", { class: "subject" }, what(record)));
    button.style.top = `${(index - (narrow.matches ? first : 0)) * height()}px`;
    button.style.height = `${height()}px`;
    return button;
  }

  function show() {
    const focused = room.contains(document.activeElement);
    const { length } = source;
    let [from, to] = [first, Math.min(length, first + TURN)];
    if (!narrow.matches) {
      from = Math.max(0, Math.floor(box.scrollTop / height()) - SPARE);
      to = Math.min(length, from + Math.ceil(box.clientHeight / height()) + 2 * SPARE);
    }
    current = Math.min(current, Math.max(0, length - 1));
    if (narrow.matches && (current < from || current >= to)) current = from;
    room.style.height = `${(narrow.matches ? to - from : length) * height()}px`;
    const seen = [...Array(Math.max(0, to - from)).keys()].map((number) => from + number);
    if (!narrow.matches && length && !seen.includes(current)) seen.push(current); // it can have the focus
    room.replaceChildren(...seen.map(row));
    if (focused) room.querySelector(`[data-row="${current}"]`)?.focus({ preventScroll: true });
    if (source.older && to >= length - SPARE) source.older();
    turns.hidden = !narrow.matches || length <= TURN;
    turns.querySelector("output").value = length ? `${count(from + 1)} to ${count(to)} of ${count(length)}` : "";
  }

  function move(to) {
    current = Math.max(0, Math.min(source.length - 1, to));
    if (narrow.matches) first = current - (current % TURN);
    else if (current * height() < box.scrollTop) box.scrollTop = current * height();
    else if ((current + 1) * height() > box.scrollTop + box.clientHeight) box.scrollTop = (current + 1) * height() - box.clientHeight;
    show();
    room.querySelector(`[data-row="${current}"]`)?.focus({ preventScroll: !narrow.matches });
  }

  const MOVES = { ArrowDown: () => 1, ArrowUp: () => -1, PageDown: () => TURN, PageUp: () => -TURN, Home: () => -current, End: () => source.length };

  // --- a flow ---

  // Where nothing was answered, the cause says how far it came.
  function unanswered({ kind, cause, reason, connect_ms: connect, tls_ms: tls = 0 }, rest) {
    const stage = reason === "tls_handshake" ? "connecting" : declared.stages[cause];
    if (stage === "before") return {};
    if (kind === "dns" || !stage) return { wait: rest };
    return connect == null ? { connecting: rest } : { TLS: tls + rest };
  }

  // A log says when an answer began, or that there was none. Of a raw stream it says neither.
  function phases(record) {
    const { kind, status, response_bytes: received, connect_ms: connect = 0, tls_ms: tls = 0, wait_ms: wait, duration_ms: duration } = record;
    if (!duration || kind === "tcp" || kind === "udp") return [];
    const rest = Math.max(0, duration - connect - tls - (wait ?? 0));
    const answer = wait != null ? { wait, transfer: rest } : status || received ? {} : unanswered(record, rest);
    const parts = Object.entries({ connect, TLS: tls, ...answer }).filter(([, ms]) => ms > 0.5); // less reads as 0 ms
    if (!parts.length) return [];
    const said = parts.map(([name, ms]) => `${name} ${took(ms)}`).join(", ");
    const bar = make("div", { class: "phases", role: "img", "aria-label": said });
    for (const [name, ms] of parts) {
      const part = make("span", { class: `phase ${name.toLowerCase()}` });
      part.style.flexGrow = ms / duration;
      bar.append(part);
    }
    const legend = make("ul", { class: "legend", "aria-hidden": "true" }, ...parts.map(([name, ms]) =>
      make("li", {}, make("i", { class: `swatch phase ${name.toLowerCase()}` }), `${name} ${took(ms)}`)));
    return [bar, legend];
  }

  function copy(command, pre, told) {
    const select = () => {
      getSelection().selectAllChildren(pre);
      told.value = document.execCommand("copy") ? "copied" : "selected: copy it with the keyboard";
    };
    if (!navigator.clipboard) select();
    else navigator.clipboard.writeText(command).then(() => { told.value = "copied"; }, select);
  }

  function open(record) {
    opened = keyOf(record);
    const command = curl(record);
    const pre = make("pre", {}, command);
    const told = make("output");
    const button = make("button", { type: "button" }, "Copy as curl");
    button.addEventListener("click", () => copy(command, pre, told));
    const shut = make("button", { type: "button", class: "shut" }, "Close");
    shut.addEventListener("click", close);
    const fields = make("dl");
    for (const [name, value] of Object.entries(record)) {
      if (name === "derived") continue;
      const text = name === "time" ? new Date(value).toISOString() : String(value);
      fields.append(make("div", {}, make("dt", {}, name), make("dd", {}, text)));
    }
    const { incident } = record.derived;
    const belongs = make("p");
    if (incident) {
      const pick = make("button", { type: "button" }, `Incident ${incident}`);
      pick.addEventListener("click", () => filter.set("incident", incident));
      belongs.append(pick);
    }
    const { mitmweb } = root.dataset;
    if (mitmweb && record.flow) {
      const href = `${mitmweb}#/flows/${encodeURIComponent(record.flow)}/request`;
      belongs.append(" ", make("a", { href, target: "_blank", rel: "noopener noreferrer" }, "In mitmweb"),
        make("span", { class: "note" }, " (where it asks for its password: paste the link into the address bar)"));
    }
    const others = make("div", { class: "around" });
    source.around(record).then((found) => {
      if (opened === keyOf(record)) others.replaceChildren(...around.shown(record, found, { make, took, result, subject, what, colour, open }));
    }, () => {});
    detail.replaceChildren(make("div", { class: "bar" }, make("h3", { class: `result ${colour(record)}` }, result(record)), shut),
      make("p", { class: "subject" }, subject(record)), ...phases(record), belongs, fields,
      make("p", {}, button, " ", told), pre, others);
    detail.hidden = false;
    show();
    detail.focus({ preventScroll: !narrow.matches });
    detail.scrollIntoView({ block: "nearest" });
  }

  function close() {
    opened = "";
    detail.hidden = true;
    show();
    room.querySelector(`[data-row="${current}"]`)?.focus();
  }

  // --- what is narrowed to ---

  function narrowed(state) {
    source.narrow(shown.checked ? { ...state, background: "with" } : state);
    [current, first, box.scrollTop] = [0, 0, 0];
    told();
  }

  function say() {
    if (said.textContent !== source.said) said.textContent = source.said;
    beside.hidden = !background;
    counted.textContent = `with background traffic (${count(background)})`;
  }

  function told() {
    say();
    show();
  }

  // So many new rows are above those that were seen.
  function moved(rows) {
    current += rows;
    if (first) first = Math.min(first + rows, source.length - 1);
    if (box.scrollTop) box.scrollTop += rows * height();
    else if (!room.contains(document.activeElement)) current = 0;
    told();
  }

  // What the page says beside its list, which may be another thing by now.
  function learn() {
    ({ offset, names, background, dated } = data());
    box.classList.toggle("dated", dated);
  }

  async function refresh() {
    if (!source?.newer) return;
    learn();
    const more = await source.newer().catch(() => false); // the page says that the proxy is gone
    say();
    if (more) source.fill();
  }

  function begin() {
    source.forget();
    narrowed(filter.state);
  }

  const fill = async () => { await source?.fill?.(); };

  async function start() {
    if (!root) return;
    learn();
    source = document.getElementById("live") ? new Live() : await unpacked();
    for (const [name, by] of [["Newer", -TURN], ["Older", TURN]]) {
      const button = make("button", { type: "button" }, name);
      button.addEventListener("click", () => {
        first = Math.max(0, Math.min(source.length - 1 - ((source.length - 1) % TURN), first + by));
        show();
      });
      turns.append(button, " ");
    }
    turns.append(make("output"));
    root.replaceChildren(make("div", { class: "above" }, said, beside), box, turns, detail);
    shown.addEventListener("change", () => narrowed(filter.state));
    box.addEventListener("scroll", show);
    box.addEventListener("keydown", (event) => {
      if (!Object.hasOwn(MOVES, event.key)) return;
      event.preventDefault();
      move(current + MOVES[event.key]());
    });
    room.addEventListener("click", (event) => {
      const button = event.target.closest("[data-row]");
      if (!button) return;
      current = Number(button.dataset.row);
      if (button.getAttribute("aria-expanded") === "true") close();
      else open(source.record(current));
    });
    root.addEventListener("keydown", (event) => { if (event.key === "Escape" && opened) close(); });
    narrow.addEventListener("change", () => { first = current - (current % TURN); show(); });
    new ResizeObserver(show).observe(box);
    filter.watch(narrowed);
    narrowed(filter.state);
  }

  return { declared, start, curl, begin, refresh, fill, words: { make, attempts, clock, period, count, took, size, fixed, subject, shortened } };
})();
