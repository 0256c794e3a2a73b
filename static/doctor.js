// The doctor's page: looks again on request, and is drawn anew by the server.

import { Problem, get, post } from "./api.js";
import { byId, setText } from "./view.js";

const form = byId("doctor-form");
const button = form.querySelector("button");

function show(busy, words = "") {
  button.disabled = busy;
  byId("doctor-busy").hidden = !busy;
  byId("doctor-alert").hidden = !words;
  setText(byId("doctor-alert"), words);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  show(true);
  try {
    await post("/api/doctor", {});
    location.reload();
  } catch (problem) {
    if (!(problem instanceof Problem)) console.error(problem);
    show(false, problem instanceof Problem ? problem.message : "This page met an error of its own. Load it again.");
  }
});

// Somebody else's examination was under way when the page was drawn.
async function waitForIt() {
  show(true);
  try {
    while ((await get("/api/doctor")).busy) await new Promise((done) => setTimeout(done, 1000));
    location.reload();
  } catch (problem) {
    show(false, problem instanceof Problem ? problem.message : "");
  }
}

if (!byId("doctor-busy").hidden) waitForIt();
