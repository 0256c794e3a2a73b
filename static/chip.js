// Whether what the page shows is true at this moment: a word in the header, and a banner when it is not.

import { now, setText, tick } from "./clock.js";
import { byId, part, showMoment } from "./view.js";

// Milliseconds without contact after which a reader has to know. A restart of provd takes less.
const STALE = 10_000;

let timer = 0;

function show(state, words, contact = 0) {
  const chip = byId("live");
  chip.dataset.live = state;
  setText(part(chip, "words"), words);
  const at = contact ? new Date(now() - Date.now() + contact).toISOString() : "";
  for (const place of [chip, byId("stream-lost")]) {
    showMoment(part(place, "contact"), at);
    tick(place);
  }
  byId("stream-lost").hidden = state !== "stale";
  byId("signed-out").hidden = state !== "out";
}

// Said aloud only when it lasts.
function showStale(contact) {
  if (byId("live").dataset.live !== "stale") setText(byId("live-told"), "Stale: provd does not answer.");
  show("stale", "stale since", contact);
}

const SHOW = {
  opening: (contact) => expect(contact),
  live() {
    if (byId("live").dataset.live === "stale") setText(byId("live-told"), "Live again.");
    show("live", "live");
  },
  lost(contact) {
    if (byId("live").dataset.live !== "stale") show("lost", "reconnecting…");
    expect(contact);
  },
  out: () => show("out", "signed out"),
};

function expect(contact) {
  const left = contact + STALE - Date.now();
  if (left > 0) timer = setTimeout(showStale, left, contact);
  else showStale(contact);
}

// `contact`: when provd was heard last, by the browser's clock.
export function showStream(state, contact) {
  clearTimeout(timer);
  SHOW[state](contact);
}
