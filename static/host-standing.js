// How a host stands, as the server tells it: what it is, what is late, and what cannot be pressed and why.

import { blank, byId, part, setText, showLink, showMoment, showStatus } from "./view.js";
import { tick } from "./clock.js";

function showOutlook({ said, operation, how, at, next }) {
  const outlook = byId("outlook");
  setText(part(outlook, "said"), said);
  showLink(part(outlook, "outlook-operation"), "/ops/", operation?.id, operation ? nameOf(operation) : "");
  setText(part(outlook, "how"), how);
  showMoment(part(outlook, "outlook-at"), at);
  tick(outlook);
  setText(byId("next"), next);
  byId("next").hidden = !next;
}

const nameOf = ({ kind, id }) => `${kind} ${id}`;

function showNote(note) {
  setText(part(byId("status"), "note"), note);
  part(byId("status"), "note").hidden = !note;
}

function lateReason({ at, sentence }) {
  const item = blank("blank-late");
  showMoment(part(item, "late-at"), at);
  setText(part(item, "late-why"), sentence);
  tick(item);
  return item;
}

// What is as it was is left alone: it may just be read aloud, or be marked to be copied.
let shownReasons = "";

function showLate({ late, reasons }, { state, operation_id: operation }, cannotWake) {
  byId("late").hidden = !late;
  byId("likely").hidden = reasons.length === 0;
  if (JSON.stringify(reasons) !== shownReasons) byId("late-reasons").replaceChildren(...reasons.map(lateReason));
  shownReasons = JSON.stringify(reasons);
  byId("late-wake").hidden = Boolean(cannotWake) || state !== "pxe_ready";
  showLink(byId("late-operation"), "/ops/", operation, "Cancel…");
}

function showReason(id, reason) {
  setText(part(byId(id), "reason"), reason);
  byId(id).hidden = !reason;
}

// A button that cannot be pressed stays where the keyboard finds it, with its reason.
function allow(id, ...reasons) {
  if (reasons.some(Boolean)) byId(id).setAttribute("aria-disabled", "true");
  else byId(id).removeAttribute("aria-disabled");
}

function showActions({ busy, rebuild, wake }, running) {
  showReason("why-busy", busy);
  showReason("why-rebuild", rebuild);
  showReason("why-wake", wake);
  allow("open-rebuild", busy, rebuild);
  allow("open-remove", busy);
  allow("wake", wake);
  byId("running").hidden = !running;
  byId("running").href = running ? `/ops/${running.id}` : "";
  setText(byId("running-name"), running ? nameOf(running) : "");
}

export function showStanding({ host, outlook, note, late, blocked }) {
  showStatus(byId("status"), host);
  showNote(note);
  showOutlook(outlook);
  showLate(late, host, blocked.wake);
  showActions(blocked, host.operation_id === null ? null : outlook.operation);
}
