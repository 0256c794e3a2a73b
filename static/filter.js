// Which hosts are shown and in which order, decided without a page. As `Choice` in provd/web/grid.py: one
// table of cases tests both.

export const GROUPS = ["failed", "waiting", "working", "registered", "ready"];
const SETTLED = ["failed", "registered", "ready"];
const DEFAULTS = { show: "", q: "", type: "", sort: "attention", view: "tiles" };

// What a host is to somebody who looks at all of them.
export function groupOf({ attention, state }) {
  if (attention === "password" || attention === "late") return "waiting";
  return SETTLED.includes(state) ? state : "working";
}

export function shows({ show, q, type }, host) {
  const said = [host.hostname, host.mac, host.ip ?? "", host.server_type].join(" ").toLowerCase();
  return (!show || groupOf(host) === show)
    && (!type || host.server_type === type)
    && q.toLowerCase().split(/\s+/).every((word) => said.includes(word));
}

const natural = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const byText = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const byName = (a, b) => natural.compare(a.hostname, b.hostname);
const SORTS = {
  attention: (a, b) => GROUPS.indexOf(groupOf(a)) - GROUPS.indexOf(groupOf(b)),
  name: () => 0,
  state: (a, b) => byText(a.state, b.state),
  since: (a, b) => byText(a.state_since, b.state_since),
  type: (a, b) => byText(a.server_type, b.server_type),
};

export function ordered({ sort }, hosts) {
  return [...hosts].sort((a, b) => SORTS[sort](a, b) || byName(a, b));
}

// The part of an address that says `choice`: what is as usual is left out. The view is always named, for a
// browser remembers the last one.
export function address(choice) {
  const said = Object.entries(choice).filter(([name, value]) => value !== DEFAULTS[name] || name === "view");
  const query = new URLSearchParams(said).toString();
  return query ? `/?${query}` : "/";
}
