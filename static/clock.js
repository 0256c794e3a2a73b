// Durations that run and times in the reader's own zone. The server's clock counts, not the browser's.
//
//   data-since, data-until   how long it has lasted, or lasted
//   data-due                 how long there is left
//   data-begun               how much of the whole way is usually over by now (beside it data-before, data-usual: seconds)
//   data-moment              the time in `datetime`: "minute", "clock" (with seconds) or "full" (with its day)

import { duration, pace } from "./durations.js";

export { duration };

const ahead = Date.parse(document.body.dataset.now) - Date.now();

const minute = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat([], { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const full = new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

export const now = () => Date.now() + ahead;

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function showSince(element) {
  const { since, until } = element.dataset;
  setText(element, since ? duration((until ? Date.parse(until) : now()) - Date.parse(since)) : "");
}

function showDue(element) {
  const { due } = element.dataset;
  const left = due ? Date.parse(due) - now() : 0;
  element.toggleAttribute("data-late", left < 0);
  setText(element, !due ? "" : left < 0 ? `overdue for ${duration(-left)}` : `${duration(left)} left`);
}

function showPace(element) {
  const { begun, before, usual } = element.dataset;
  if (usual) element.value = pace((now() - Date.parse(begun)) / 1000, Number(before), Number(usual));
}

function showMoment(element) {
  const at = element.dateTime;
  if (element.dataset.shown === at) return;
  element.dataset.shown = at;
  const date = at ? new Date(at) : null;
  const today = date && date.toDateString() === new Date(now()).toDateString();
  const shape = element.dataset.moment;
  const format = shape === "full" ? full : !today ? day : shape === "minute" ? minute : clock;
  setText(element, date ? format.format(date) : "");
  element.title = date ? `${full.format(date)} (${at})` : "";
}

// Everything below `root` that has to do with time, as of now.
export function tick(root = document) {
  root.querySelectorAll("[data-since]").forEach(showSince);
  root.querySelectorAll("[data-due]").forEach(showDue);
  root.querySelectorAll("[data-begun]").forEach(showPace);
  root.querySelectorAll("[data-moment]").forEach(showMoment);
}

tick();
setInterval(tick, 1000, document);
