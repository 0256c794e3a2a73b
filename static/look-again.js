// A page about what was looked at last: looks again on request, and is drawn anew by the server.

import { Problem, get, post } from "./api.js";
import { byId, setText } from "./view.js";

const form = byId("look-form");
const button = form.querySelector("button");

function show(busy, words = "") {
  button.disabled = busy;
  byId("look-busy").hidden = !busy;
  byId("look-alert").hidden = !words;
  setText(byId("look-alert"), words);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  show(true);
  try {
    await post(form.dataset.api, {});
    location.reload();
  } catch (problem) {
    if (!(problem instanceof Problem)) console.error(problem);
    show(false, problem instanceof Problem ? problem.message : "This page met an error of its own. Load it again.");
  }
});

// Somebody else's look was under way when the page was drawn.
async function waitForIt() {
  show(true);
  try {
    while ((await get(form.dataset.api)).busy) await new Promise((done) => setTimeout(done, 1000));
    location.reload();
  } catch (problem) {
    show(false, problem instanceof Problem ? problem.message : "");
  }
}

if (!byId("look-busy").hidden) waitForIt();
