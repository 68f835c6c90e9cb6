// What is looked at: an incident, a host, what became of flows, a span of time. The address holds
// it, so that a link can be sent; what stands in an address that is none of these does nothing.
"use strict";
const filter = (() => {
  const CHECKS = {
    incident: (text) => /^[0-9a-f]{8}$/.test(text),
    host: (text) => text.length > 0 && text.length <= 300,
    series: (text) => text.length > 0 && text.length <= 40,
    time: (text) => /^\d{1,11}-\d{1,11}$/.test(text),
  };
  const watchers = [];
  let state = {};

  function read() {
    const found = {};
    for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
      if (Object.hasOwn(CHECKS, name) && CHECKS[name](text)) found[name] = text;
    }
    return found;
  }

  function take(fresh) {
    state = fresh;
    watchers.forEach((watcher) => watcher(state));
  }

  function go(fresh) {
    const words = new URLSearchParams(fresh).toString();
    history.pushState(null, "", words ? `#${words}` : location.pathname + location.search);
    take(fresh);
  }

  addEventListener("popstate", () => {
    // Links within the page are no filter.
    if (!location.hash || location.hash.includes("=")) take(read());
  });
  state = read();
  return {
    get state() { return state; },
    isOn: (name, text) => state[name] === text,
    watch: (watcher) => watchers.push(watcher),
    set: (name, text) => { if (CHECKS[name](text)) go({ ...state, [name]: text }); },
    remove: (name) => go(Object.fromEntries(Object.entries(state).filter(([each]) => each !== name))),
    toggle: (name, text) => (state[name] === text ? filter.remove(name) : filter.set(name, text)),
  };
})();
