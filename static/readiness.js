// Whether provd can do what it is for. What somebody does elsewhere, on the server too, is seen here soon.

import { get } from "./api.js";
import { coalesced } from "./live.js";
import { blank, byId, part, setText } from "./view.js";

const EVERY = 5000;
const SHAPES = { ok: "done", todo: "running", problem: "failed", off: "cancelled" };
const WORDS = { ok: "ready", todo: "to do", problem: "problem", off: "not used" };

let ready = false;

function item({ name, state, what, mend, href }) {
  const found = blank("blank-readiness").querySelector("li");
  found.dataset.state = state;
  found.querySelector("use").setAttribute("href", `#icon-${SHAPES[state]}`);
  setText(part(found, "name"), name);
  setText(part(found, "word"), WORDS[state]);
  setText(part(found, "what"), what);
  setText(part(found, "mend"), mend);
  const link = part(found, "href");
  link.hidden = !href;
  link.href = href;
  setText(link.querySelector(".unseen"), ` the page for ${name}`);
  return found;
}

let shown = "";

function show(found) {
  ready = found.ready;
  byId("readiness").dataset.ready = ready ? "yes" : "no";
  setText(byId("readiness-word"), found.sentence);
  const items = JSON.stringify(found.items);
  if (items === shown) return;
  shown = items;
  byId("readiness-items").replaceChildren(...found.items.map(item));
}

export const refreshReadiness = coalesced(async () => show(await get("/api/readiness")));

export function wireReadiness() {
  setInterval(() => !ready && !document.hidden && refreshReadiness(), EVERY);
}
