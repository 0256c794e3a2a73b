// The answer file that the installer of a host would get now, looked at only when somebody wants to see it.

import { Problem, get } from "./api.js";
import { showList } from "./host-cards.js";
import { byId, part, setText } from "./view.js";

const answer = byId("answer");

const MACHINES = {
  reported: "for the machine as it reported itself",
  assumed: "for a machine that has the network cards which are asked for, since this one has not reported itself yet",
};

function aboutOf({ toml, machine, release }) {
  if (!toml) return "There is no answer for it as it is configured.";
  return `What an installer of Proxmox VE ${release} would be told now, ${MACHINES[machine]}. Secrets are masked.`;
}

function show(answered) {
  const { toml, wrong, problem } = answered;
  setText(part(answer, "answer-about"), aboutOf(answered));
  setText(part(answer, "answer-problem"), problem);
  part(answer, "answer-problem").hidden = !problem;
  showList("answer-wrong", wrong.filter((sentence) => sentence !== problem));
  part(answer, "answer-check").hidden = !toml;
  setText(part(answer, "answer-check"), wrong.length ? "The installer would refuse it:" : "Checked: the installer would take it.");
  part(answer, "answer-check").dataset.verdict = wrong.length ? "no" : "yes";
  setText(part(answer, "toml"), toml);
  part(answer, "answer-file").hidden = !toml;
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
