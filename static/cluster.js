// The cluster's page is drawn by the server: when something else is to be seen, and nobody is in the middle of
// anything, it is drawn anew.

import { get } from "./api.js";
import { coalesced, follow } from "./live.js";
import { byId } from "./view.js";

const SOON = 1000;
const ABOUT = /^(?:cluster|host|operation)\./;

const drawn = byId("cluster").dataset;

function isAtRest() {
  const main = byId("main");
  const inside = main.contains(document.activeElement) && document.activeElement !== main;
  return !inside && getSelection().isCollapsed && !document.querySelector("dialog[open]");
}

let due = false;

function drawAnew() {
  if (isAtRest()) location.reload();
  else byId("cluster-changed").hidden = false;
}

const refresh = coalesced(async () => {
  const { asked_at: at, busy, lock } = await get("/api/cluster");
  const same = (at ?? "") === drawn.at && String(lock?.operation_id ?? "") === drawn.lock;
  // A look that is under way is waited for by whoever asked for it.
  if (same || busy || due) return;
  due = true;
  drawAnew();
  setInterval(drawAnew, SOON);
});

follow(({ event }) => ABOUT.test(event) && refresh(), refresh);
