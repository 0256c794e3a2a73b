// Durations that run and times in the reader's own zone. The server's clock counts, not the browser's.
//
//   data-since, data-until   how long it has lasted, or lasted
//   data-due                 how long there is left
//   data-begun               how much of the whole way is usually over by now (beside it data-before, data-usual: seconds)
//   data-moment              the time in `datetime`: "minute", "clock" (with seconds) or "full" (with its day)

const ahead = Date.parse(document.body.dataset.now) - Date.now();

const minute = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat([], { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const full = new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

export const now = () => Date.now() + ahead;

// As `duration` in provd/web/page.py.
export function duration(milliseconds) {
  const whole = Math.max(0, Math.floor(milliseconds / 1000));
  const days = Math.floor(whole / 86400);
  const hours = Math.floor(whole / 3600) % 24;
  const minutes = Math.floor(whole / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

// As people say what something usually takes. As in provd/web/page.py.
export function roughly(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// Of a host that has been in a state for so many seconds. What takes longer than usual waits at its part's end.
export function pace(seconds, before, usual) {
  return before + Math.max(0, Math.min(seconds, usual));
}

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
