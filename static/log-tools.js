// What a reader does with the log: links to its lines, which levels, wrapping, times, full screen, copying.

import { nameMark, parseMark, shows } from "./lines.js";
import { byId, setText } from "./view.js";

// A browser may refuse to remember anything.
function remembered(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // It is forgotten with the page.
  }
}

const tell = (words) => setText(byId("told"), words);

export function wireLogTools(log, onShown) {
  wireMarks(log);
  wireLevels(log, onShown);
  wireToggle("wrap", remembered("log-wrap") !== "no", (on) => {
    log.pane.dataset.wrap = on ? "yes" : "no";
    remember("log-wrap", on ? "yes" : "no");
    if (log.following) log.toEnd();
  });
  wireToggle("elapsed", remembered("log-elapsed") === "yes", (on) => {
    remember("log-elapsed", on ? "yes" : "no");
    log.showTimes(on);
  });
  wireFullscreen();
  byId("copy").addEventListener("click", () => copy(log));
  byId("pill").addEventListener("click", () => log.jump());
  byId("load-all").addEventListener("click", async ({ target }) => {
    target.disabled = true;
    await log.loadAll().catch(() => tell("Not all lines could be loaded: try again."));
    target.disabled = false;
  });
  log.showEdge();
  onShown();
  const mark = parseMark(location.hash);
  if (mark) goTo(log, mark);
  else log.toEnd();
}

function wireToggle(id, on, change) {
  const button = byId(id);
  const set = (pressed) => {
    button.setAttribute("aria-pressed", String(pressed));
    change(pressed);
  };
  button.addEventListener("click", () => set(button.getAttribute("aria-pressed") !== "true"));
  set(on);
}

// --- lines that are linked to ---

async function goTo(log, mark) {
  try {
    if (!(await log.reveal(mark))) tell("The line of this link is not in this log.");
  } catch {
    tell("The line of this link could not be loaded: load the page again.");
  }
}

const setHash = (mark) => history.replaceState(null, "", nameMark(mark));

function wireMarks(log) {
  let from = null;
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#L"]');
    const mark = link && parseMark(link.hash);
    if (!mark || event.ctrlKey || event.metaKey || event.button) return;
    event.preventDefault();
    tell("");
    if (!log.pane.contains(link)) {
      setHash(mark);
      goTo(log, mark);
      return;
    }
    const range = event.shiftKey && from ? { first: Math.min(from, mark.first), last: Math.max(from, mark.first) } : mark;
    if (range === mark) from = mark.first;
    else getSelection().removeAllRanges();
    setHash(range);
    log.setMark(range);
  });
  addEventListener("hashchange", () => {
    const mark = parseMark(location.hash);
    if (mark) goTo(log, mark);
  });
  // One number can be reached by Tab, the others from there by arrows: ten thousand stops are none.
  log.pane.addEventListener("focus", () => makeReachable(log));
  log.pane.addEventListener("keydown", (event) => {
    const number = event.target.closest("li > a");
    const way = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!number || !way) return;
    event.preventDefault();
    const rows = log.rows().filter((row) => shows(log.pane.dataset.show, row.dataset.level));
    const next = rows[rows.indexOf(number.parentElement) + way]?.firstElementChild;
    if (next) reach(log, next, true);
  });
}

function makeReachable(log) {
  if (log.blocks.querySelector('[tabindex="0"]')) return;
  const row = log.blocks.querySelector("[data-marked]") ?? log.blocks.lastElementChild?.lastElementChild;
  if (row) reach(log, row.firstElementChild, false);
}

function reach(log, number, focus) {
  for (const other of log.blocks.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
  number.tabIndex = 0;
  if (focus) number.focus();
}

// --- what is shown, and how ---

function wireLevels(log, onShown) {
  byId("levels").addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    history.replaceState(null, "", `${link.getAttribute("href")}${location.hash}`);
    for (const other of byId("levels").children) other.removeAttribute("aria-current");
    link.setAttribute("aria-current", "true");
    log.pane.dataset.show = link.dataset.show;
    if (log.following) log.toEnd();
    else log.miss(0);
    onShown();
  });
}

function wireFullscreen() {
  const button = byId("fullscreen");
  button.hidden = !document.fullscreenEnabled;
  button.addEventListener("click", () => {
    const change = document.fullscreenElement ? document.exitFullscreen() : byId("history").requestFullscreen();
    change.catch((problem) => console.warn(problem));
  });
  document.addEventListener("fullscreenchange", () => {
    button.setAttribute("aria-pressed", String(document.fullscreenElement !== null));
  });
}

// --- copying ---

async function copy(log) {
  const selection = getSelection();
  const chosen = log.pane.contains(selection.anchorNode) ? selection.toString() : "";
  if (!chosen && !log.complete) {
    tell("Loading all lines…");
    try {
      await log.loadAll();
    } catch {
      tell("Not all lines could be loaded: try again, or download the log.");
      return;
    }
  }
  const text = chosen || log.text();
  const lines = text.split("\n").filter(Boolean).length;
  if (await put(text)) tell(`Copied ${lines.toLocaleString("en")} ${lines === 1 ? "line" : "lines"}.`);
}

// The clipboard is a secure context's; over plain http a text field does it, or the reader's own hand.
async function put(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = byId("by-hand");
    field.hidden = false;
    field.value = text;
    field.focus();
    field.select();
    if (document.execCommand("copy")) {
      field.hidden = true;
      field.value = "";
      byId("copy").focus();
      return true;
    }
    tell("The browser does not let this page copy: press Ctrl+C.");
    return false;
  }
}
