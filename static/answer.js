// The answer file that the installer of a host would get now, looked at only when somebody wants to see it.

import { Problem, get } from "./api.js";
import { byId, part, setText } from "./view.js";

const answer = byId("answer");

const MACHINES = {
  reported: "What the installer would be told if it asked now, for the machine as it reported itself. Secrets are masked.",
  assumed: "What the installer would be told if it asked now. This machine has not reported itself yet: "
    + "one is assumed that has the disks and network cards which are asked for. Secrets are masked.",
};

function show({ toml, machine, findings, problem }) {
  setText(part(answer, "answer-about"), toml ? MACHINES[machine] : "There is no answer for it as it is configured.");
  setText(part(answer, "answer-problem"), problem);
  part(answer, "answer-problem").hidden = !problem;
  part(answer, "answer-findings").replaceChildren(...findings.map(findingItem));
  part(answer, "answer-findings").hidden = findings.length === 0;
  setText(part(answer, "toml"), toml);
  part(answer, "answer-file").hidden = !toml;
}

function findingItem(finding) {
  const item = document.createElement("li");
  item.textContent = finding;
  return item;
}

async function load(id) {
  setText(part(answer, "answer-about"), "Asking provd…");
  setText(part(answer, "copied"), "");
  try {
    show(await get(`/api/hosts/${id}/answer`));
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    setText(part(answer, "answer-about"), problem.message);
  }
}

function mark(element) {
  const range = document.createRange();
  range.selectNodeContents(element);
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}

// Only pages that came over TLS, or from this very machine, are let at the clipboard.
async function copy() {
  const text = part(answer, "toml");
  try {
    await navigator.clipboard.writeText(text.textContent);
    setText(part(answer, "copied"), "Copied.");
  } catch {
    mark(text);
    setText(part(answer, "copied"), "The browser does not let this page copy: it is marked, copy it with Ctrl+C.");
  }
}

// Returns what to call when what it says may have changed.
export function wireAnswer(id) {
  answer.addEventListener("toggle", () => answer.open && load(id));
  part(answer, "copy").addEventListener("click", copy);
  return () => answer.open && load(id);
}
