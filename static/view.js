// Puts what the API says into the shapes that the server drew. All of it is text; none of it is markup.

import { setText, tick } from "./clock.js";
import { roughly } from "./durations.js";

export { setText };
export const byId = (id) => document.getElementById(id);
export const part = (root, name) => root.querySelector(`[data-part="${name}"]`);
export const blank = (id) => byId(id).content.cloneNode(true).firstElementChild;

export function group(state) {
  return ["failed", "registered", "ready"].includes(state) ? state : "working";
}

export function showBadge(root, word) {
  part(root, "badge").dataset.word = word;
  part(root, "badge").querySelector("use").setAttribute("href", `#icon-${word}`);
  setText(part(root, "word"), word);
}

export function showSpan(element, since, until) {
  element.dataset.since = since ?? "";
  element.dataset.until = until ?? "";
}

export function showMoment(element, at) {
  element.dateTime = at ?? "";
}

export function showLink(element, path, id, words) {
  element.hidden = !id;
  element.href = id ? `${path}${id}` : "";
  setText(element, words);
}

// How far it is along the whole way, by what that usually takes; nothing where nobody knows.
function showPace(root, { state_since: since, usual }) {
  const bar = part(root, "pace");
  setText(part(root, "usual"), usual ? `usually ${roughly(usual.state_seconds)}` : "");
  bar.hidden = !usual;
  bar.dataset.begun = since;
  bar.dataset.before = usual?.before_seconds ?? "";
  bar.dataset.usual = usual?.state_seconds ?? "";
  bar.max = usual?.total_seconds ?? 1;
}

// The state of a host, since when, and what is expected next.
export function showStatus(root, host) {
  showBadge(root, host.state);
  showSpan(part(root, "since"), host.state_since);
  part(root, "doing").hidden = !host.expected;
  setText(part(root, "expected"), host.expected ?? "");
  const places = [...root.querySelectorAll(".road [data-step]")];
  const here = places.findIndex((place) => place.dataset.step === host.state);
  places.forEach((place, at) => {
    place.dataset.place = at < here ? "done" : at === here ? "here" : "ahead";
  });
  setText(part(root, "step"), !host.expected ? "" : `step ${here + 1} of ${places.length}`);
  part(root, "deadline").hidden = !host.expected_by;
  part(root, "due").dataset.due = host.expected_by ?? "";
  showMoment(part(root, "by"), host.expected_by);
  showPace(root, host);
  tick(root);
}

// A warning stands beside the state until the state changes.
export function showNote(root, activity) {
  const note = part(root, "note");
  if (activity.level !== "info") setText(note, activity.message);
  else if (activity.before !== activity.after) setText(note, "");
  note.hidden = !note.textContent;
}

// Adds a line to a log, once, and lets the oldest go when there are many.
export function addLine(log, activity, newestFirst, shape = "blank-line") {
  if (log.querySelector(`[data-line="${Number(activity.id)}"]`)) return;
  const line = blank(shape);
  line.dataset.line = activity.id;
  line.dataset.level = activity.level;
  showMoment(part(line, "at"), activity.at);
  setText(part(line, "level"), activity.level === "info" ? "" : activity.level);
  setText(part(line, "message"), activity.message);
  showLink(part(line, "line-host"), "/hosts/", activity.hostname && activity.host_id, activity.hostname);
  showLink(part(line, "line-operation"), "/ops/", activity.operation_id, `operation ${activity.operation_id}`);
  tick(line);
  log[newestFirst ? "prepend" : "append"](line);
  if (log.children.length > Number(log.dataset.keep)) {
    log[newestFirst ? "lastElementChild" : "firstElementChild"].remove();
  }
}
