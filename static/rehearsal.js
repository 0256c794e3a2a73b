// The dialog that asks before a host is rebuilt: what the rehearsal says, and what may be done in spite of it.

import { Problem, post } from "./api.js";
import { wireForm } from "./forms.js";
import { blank, byId, part, setText } from "./view.js";

const SHAPES = { fine: "done", but: "running", unknown: "cancelled", no: "failed" };
const WORDS = { fine: "fine", but: "mind", unknown: "unknown", no: "no" };
// What somebody has to do something about comes first; among equals the order of the rehearsal stays.
const ORDER = ["no", "unknown", "but"];

function checkRow(check) {
  const row = blank("blank-check").querySelector("li");
  row.dataset.result = check.result;
  row.querySelector("use").setAttribute("href", `#icon-${SHAPES[check.result]}`);
  setText(part(row, "result"), WORDS[check.result]);
  setText(part(row, "check"), check.name);
  setText(part(row, "what"), check.what);
  setText(part(row, "mend"), check.mend);
  part(row, "mend").hidden = !check.mend;
  setText(part(row, "evidence"), check.evidence);
  part(row, "seen").hidden = !check.evidence;
  return row;
}

// Whether the button may be pressed, and what typing the name then means.
function allow(verdict, overridable) {
  const stopped = verdict !== "yes" && verdict !== "yes, but";
  const button = byId("rebuild-go");
  if (stopped && !overridable) button.dataset.blocked = "";
  else delete button.dataset.blocked;
  button.disabled = "blocked" in button.dataset;
  byId("rebuild-typed").hidden = button.disabled;
  setText(byId("rebuild-why"), stopped ? "rebuild all the same" : "go on");
}

function say(sentence, verdict = "") {
  setText(byId("verdict"), sentence);
  byId("verdict").dataset.verdict = verdict;
}

function show(rehearsal) {
  say(rehearsal.sentence, rehearsal.verdict);
  if (rehearsal.erases.length) setText(byId("erases"), rehearsal.erases.join(", "));
  const fine = rehearsal.checks.filter((check) => check.result === "fine");
  const others = ORDER.flatMap((result) => rehearsal.checks.filter((check) => check.result === result));
  byId("checks").replaceChildren(...others.map(checkRow));
  byId("fine").replaceChildren(...fine.map(checkRow));
  setText(byId("fine-count"), fine.length === 1 ? "One look found all well" : `${fine.length} looks found all well`);
  byId("fine-checks").hidden = fine.length === 0;
  byId("drain-choice").hidden = !rehearsal.can_drain;
  byId("rebuild-drain").checked = rehearsal.drain;
  allow(rehearsal.verdict, rehearsal.overridable);
}

export function wireRehearsal(id) {
  const form = byId("rebuild-form");
  let looks = 0;
  let verdict = "";
  let drain = null;

  // What was asked for: a password only where one was typed, drain only where somebody chose.
  function wishes() {
    const password = form.elements.cluster_password?.value;
    return { ...(password ? { cluster_password: password } : {}), ...(drain === null ? {} : { drain }) };
  }

  async function look() {
    const mine = ++looks;
    verdict = "";
    allow(verdict, false);
    say("Looking at the cluster…");
    byId("looking").hidden = false;
    byId("rehearsal").setAttribute("aria-busy", "true");
    try {
      const rehearsal = await post(`/api/hosts/${id}/rebuild?dry_run=true`, wishes());
      // Only the last look counts, whichever answer comes last.
      if (mine !== looks) return;
      verdict = rehearsal.verdict;
      show(rehearsal);
    } catch (problem) {
      if (mine !== looks) return;
      if (!(problem instanceof Problem)) console.error(problem);
      say(problem instanceof Problem ? problem.message : "This page met an error of its own. Load it again.", "no");
    }
    byId("looking").hidden = true;
    byId("rehearsal").removeAttribute("aria-busy");
  }

  byId("open-rebuild").addEventListener("click", () => {
    drain = null;
    byId("checks").replaceChildren();
    byId("fine-checks").hidden = true;
    look();
  });
  byId("look-again").addEventListener("click", look);
  byId("rebuild-drain").addEventListener("change", () => {
    drain = byId("rebuild-drain").checked;
    look();
  });
  form.elements.cluster_password?.addEventListener("change", look);

  wireForm(form, async (fields) => {
    const force = verdict === "no" ? { force: fields.hostname } : {};
    const operation = await post(`/api/hosts/${id}/rebuild`, { ...wishes(), ...force });
    location.assign(`/ops/${operation.id}`);
  });
}
