// What else a client asked for around a flow, on one axis of time, and the login that it belongs to.
// The log has neither Location nor Referer: what led to what, only time tells.
const around = (() => {
  const SPAN = 2000; // ms before the flow began, and behind its end
  const LATE = 10; // seconds that others may end later
  const MOST = 30; // bars
  const PASSED = 500; // records written after one that ended later than it
  const began = ({ time, duration_ms: took }) => time - (took ?? 0);
  const isLinked = (record, other) => Boolean(record.answers && other.flow === record.answers) || Boolean(record.flow && other.answers === record.flow);

  function overlaps(record, time, took) {
    return time >= began(record) - SPAN && time - (took ?? 0) <= record.time + SPAN;
  }

  function asked(record) {
    const [from, to] = [began(record) - SPAN, record.time + SPAN].map((ms) => Math.max(0, Math.floor(ms / 1000)));
    return { time: `${from}-${to + LATE}`, most: 5 };
  }

  // Each once, as they began; those nearest to the flow.
  function nearest(record, found) {
    const each = new Map(found.map((other) => [`${other.session} ${other.seq}`, other]));
    each.set(`${record.session} ${record.seq}`, record);
    const near = [...each.values()].filter((other) => other === record || (other.client === record.client && overlaps(record, other.time, other.duration_ms)));
    const far = (other) => Math.abs(began(other) - began(record));
    near.sort((a, b) => far(a) - far(b));
    return [near.slice(0, MOST).sort((a, b) => began(a) - began(b) || a.seq - b.seq), Math.max(0, near.length - MOST)];
  }

  function row(record, other, [start, span], { make, took, result, what, colour, open }) {
    const bar = make("span", { class: `span ${colour(other)}` });
    const left = 100 * (began(other) - start) / span;
    bar.style.marginLeft = `${Math.min(99, left)}%`;
    bar.style.width = `${Math.max(1, Math.min(100 - left, 100 * (other.time - began(other)) / span))}%`;
    const said = `${result(other)} ${what(other)}`;
    const later = began(other) - began(record);
    const when = other === record ? "the chosen flow" : `begins ${took(Math.abs(later)) || "0 ms"} ${later < 0 ? "before" : "after"} it`;
    const button = make("button", { type: "button", "aria-label": `${said}, ${when}, took ${took(other.duration_ms) || "unknown"}` },
      make("span", { class: "what" }, said), bar);
    if (other === record) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => open(other));
    return make("li", {}, button);
  }

  function login(record, other, { make, result, subject, open }) {
    const button = make("button", { type: "button" }, `${result(other)} ${subject(other)}`);
    button.addEventListener("click", () => open(other));
    return make("p", {}, other.flow && other.flow === record.answers ? "Answers the login that was asked for by " : "Its login was answered by ", button);
  }

  function shown(record, found, tools) {
    const { make } = tools;
    const parts = found.filter((other, index) => isLinked(record, other) && found.findIndex((each) => each.seq === other.seq && each.session === other.session) === index)
      .map((other) => login(record, other, tools));
    const [near, more] = record.client ? nearest(record, found) : [[], 0];
    if (near.length < 2) return parts;
    const start = Math.min(...near.map(began));
    const span = Math.max(1, Math.max(...near.map(({ time }) => time)) - start);
    const said = `Around it: what ${record.client} asked for, by time alone${more ? `; ${more} more are left out` : ""}`;
    const list = make("ol", { "aria-label": said }, ...near.map((other) => row(record, other, [start, span], tools)));
    return [...parts, make("p", { class: "note" }, said), list];
  }

  return { PASSED, asked, isLinked, overlaps, shown };
})();
