// The activity drawer at the foot of every page: the newest line, and when it is open the last hundred.

import { Problem, get } from "./api.js";
import { setText, tick } from "./clock.js";
import { follow } from "./live.js";
import { addLine, byId, part, showMoment } from "./view.js";

const STATE = "drawer";

const drawer = byId("drawer");
const toggle = byId("drawer-toggle");
const log = byId("drawer-lines");

let before = null;
// Lines that happen while the others are fetched; null: nothing was fetched yet.
let meanwhile = null;
let filled = false;

function showNewest(activity) {
  const newest = byId("newest");
  newest.dataset.line = activity.id;
  newest.dataset.level = activity.level;
  showMoment(part(newest, "at"), activity.at);
  setText(part(newest, "level"), activity.level === "info" ? "" : activity.level);
  setText(part(newest, "host"), activity.hostname);
  setText(part(newest, "message"), activity.message);
  tick(newest);
}

function showWhetherEmpty() {
  const { show } = log.dataset;
  const lines = [...log.children].map(({ dataset }) => dataset.level);
  const shown = lines.filter((level) => show === "info" || level === "error" || level === show);
  byId("drawer-none").hidden = !filled || shown.length > 0;
  setText(byId("drawer-none"), lines.length ? `No such line among the last ${lines.length}.` : "Nothing yet.");
}

function add(activity) {
  addLine(log, activity, true, "drawer-line");
  showWhetherEmpty();
}

async function fill() {
  if (meanwhile) return;
  meanwhile = [];
  byId("drawer-trouble").hidden = true;
  try {
    const { activity } = await get(`/api/activity?limit=${log.dataset.keep}`);
    filled = true;
    for (const line of activity.reverse()) addLine(log, line, true, "drawer-line");
    meanwhile.forEach(add);
    showWhetherEmpty();
  } catch (problem) {
    meanwhile = null;
    if (!(problem instanceof Problem)) throw problem;
    setText(byId("drawer-trouble"), problem.message);
    byId("drawer-trouble").hidden = false;
  }
}

function show(open) {
  drawer.dataset.open = open ? "yes" : "no";
  toggle.setAttribute("aria-expanded", String(open));
  byId("drawer-body").hidden = !open;
  if (open && !filled) fill();
}

function remember(open) {
  show(open);
  try {
    sessionStorage.setItem(STATE, open ? "open" : "");
  } catch (error) {
    console.warn(error);
  }
}

function remembered() {
  try {
    return sessionStorage.getItem(STATE) === "open";
  } catch {
    return false;
  }
}

const isOpen = () => drawer.dataset.open === "yes";

// From the keyboard: the focus goes in, and comes back to where it was.
export function toggleDrawer() {
  if (isOpen()) return close();
  before = document.activeElement;
  remember(true);
  // The drawer is at the foot of the window wherever the page stands.
  byId("drawer-scroll").focus({ preventScroll: true });
}

function close() {
  const inside = drawer.contains(document.activeElement);
  remember(false);
  if (!inside) return;
  const back = before?.isConnected && before !== document.body && !drawer.contains(before) ? before : toggle;
  before = null;
  back.focus();
}

export function wireDrawer() {
  toggle.addEventListener("click", () => remember(!isOpen()));
  // The line is a larger target; whoever marks it in order to copy it wants no drawer.
  byId("newest").addEventListener("click", () => getSelection().isCollapsed && remember(!isOpen()));
  drawer.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !isOpen()) return;
    event.preventDefault();
    close();
  });
  byId("drawer-level").addEventListener("change", () => {
    log.dataset.show = byId("drawer-level").value;
    showWhetherEmpty();
  });
  follow((activity) => {
    showNewest(activity);
    if (filled) add(activity);
    else meanwhile?.push(activity);
  }, () => {
    if (isOpen() && !filled) fill();
  });
  show(remembered());
}
