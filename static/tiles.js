// The tiles of the grid: what the API says of each host, put into its place; which are shown, in which order.

import { groupOf, ordered, shows } from "./filter.js";
import { blank, byId, part, setText, showLink, showStatus } from "./view.js";

const grid = byId("hosts");
const CALLS = { password: "It needs the cluster's password", late: "Late: look at it" };

export const tileOf = (id) => grid.querySelector(`:scope > [data-host="${Number(id)}"]`);
export const tiles = () => [...grid.children];

// As much of a host as its tile says, for the filter.
const hostOf = ({ dataset: { hostname, mac, ip, type, state, attention, entered } }) => ({
  hostname, mac, ip, server_type: type, state, attention, state_since: entered,
});

function showStrip(strip, builds) {
  const outcomes = builds.map(({ outcome }) => outcome ?? "running");
  const label = `Last operations: ${outcomes.join(", ") || "none"}`;
  if (strip.getAttribute("aria-label") === label) return;
  strip.setAttribute("aria-label", label);
  strip.replaceChildren(...outcomes.map((outcome) => {
    const tick = document.createElement("i");
    tick.dataset.outcome = outcome;
    return tick;
  }));
}

export function showTile(host) {
  const tile = tileOf(host.id) ?? grid.appendChild(blank("blank-tile"));
  Object.assign(tile.dataset, {
    host: host.id,
    group: groupOf(host),
    hostname: host.hostname,
    mac: host.mac,
    ip: host.ip ?? "",
    type: host.server_type,
    state: host.state,
    entered: host.state_since,
    attention: host.attention ?? "",
  });
  part(tile, "pick").setAttribute("aria-label", `Select ${host.hostname}`);
  showLink(part(tile, "hostname"), "/hosts/", host.id, host.hostname);
  setText(part(tile, "type"), host.server_type);
  setText(part(tile, "mac"), host.mac);
  setText(part(tile, "ip"), host.ip ?? "");
  part(tile, "pending").hidden = !host.inventory_pending;
  showLink(part(tile, "operation"), "/ops/", host.operation_id, `operation ${host.operation_id}`);
  part(tile, "call").hidden = !(host.attention in CALLS);
  setText(part(tile, "call-words"), CALLS[host.attention] ?? "");
  showStrip(part(tile, "strip"), host.builds);
  showStatus(tile, host);
}

export function forgetOthers(hosts) {
  const known = new Set(hosts.map(({ id }) => String(id)));
  for (const tile of tiles()) if (!known.has(tile.dataset.host)) tile.remove();
}

// Hides what `choice` does not show. The order stays as it is while somebody looks: see `sort`.
export function filter(choice) {
  const counts = {};
  let shown = 0;
  for (const tile of tiles()) {
    counts[tile.dataset.group] = (counts[tile.dataset.group] ?? 0) + 1;
    tile.hidden = !shows(choice, hostOf(tile));
    if (!tile.hidden) shown += 1;
  }
  return { counts, shown };
}

export function sort(choice) {
  const places = tiles().map((tile) => ({ ...hostOf(tile), tile }));
  const wanted = ordered(choice, places).map(({ tile }) => tile);
  if (wanted.every((tile, at) => grid.children[at] === tile)) return;
  const held = document.activeElement;
  grid.append(...wanted);
  // What is moved loses the focus.
  if (grid.contains(held)) held.focus({ preventScroll: true });
}
