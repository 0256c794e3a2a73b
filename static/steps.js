// The steps of an operation and why it ended as it did, as the server tells them.

import { setText, tick } from "./clock.js";
import { blank, byId, part, showLink, showMoment, showSpan } from "./view.js";

function proofs(lines) {
  return lines.map((line) => {
    const item = blank("blank-proof");
    item.dataset.level = line.level;
    showLink(part(item, "proof-line"), "#L", line.id, `line ${line.id}`);
    setText(part(item, "proof"), line.message);
    return item;
  });
}

export function sentences(words) {
  return words.map((sentence) => {
    const item = document.createElement("li");
    item.textContent = sentence;
    return item;
  });
}

// Without touching what is as it was: somebody may be reading it, or be on it with the keyboard.
export function showSteps(steps, failure) {
  for (const { step: key, place, since, until, line } of steps) {
    const step = byId("steps").querySelector(`[data-step="${key}"]`);
    if (!step) continue;
    step.dataset.place = place;
    showMoment(part(step, "start"), since);
    showSpan(part(step, "took"), since, until);
    if (line) part(step, "to-line").href = `#L${line}`;
    const opened = failure && place === "stopped";
    if (opened && part(step, "opened").hidden) {
      part(step, "step-evidence").replaceChildren(...proofs(failure.evidence));
      setText(part(step, "step-advice"), failure.advice[0]);
    }
    part(step, "opened").hidden = !opened;
  }
  tick(byId("steps"));
}

export function showFailure({ operation, failure, retry, newer }) {
  const root = byId("failure");
  if (failure && root.hidden) {
    root.dataset.outcome = operation.outcome;
    setText(byId("failure-title"), operation.outcome === "cancelled" ? "It was cancelled" : "Why it failed");
    setText(part(root, "cause"), failure.cause);
    setText(part(root, "then"), operation.outcome === "cancelled" ? "How it was left" : "What to try");
    part(root, "evidence").replaceChildren(...proofs(failure.evidence));
    part(root, "advice").replaceChildren(...sentences(failure.advice));
  }
  byId("retry-form").hidden = retry !== "rejoin";
  const again = part(root, "again");
  again.hidden = !retry;
  if (retry) {
    again.href = `/hosts/${operation.host_id}#${retry === "remove" ? "remove" : "rebuild"}`;
    setText(again, retry === "remove" ? "Remove again…" : "Rebuild again…");
  }
  showLink(part(root, "newer"), "/ops/", newer, `What was done to ${operation.hostname} next`);
  root.hidden = !failure;
}
