// The dialog that asks before a host is rebuilt: what the rehearsal says, and what may be done in spite of it.

import { Problem, post } from "./api.js";
import { wireForm } from "./forms.js";
import { showList } from "./host-cards.js";
import { permission, sorted, wish } from "./verdict.js";
import { blank, byId, part, setText } from "./view.js";

const SHAPES = { fine: "done", but: "running", unknown: "cancelled", no: "failed" };
const WORDS = { fine: "fine", but: "mind", unknown: "unknown", no: "no" };

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

function allow(verdict, overridable) {
  const { pressable, meaning } = permission(verdict, overridable);
  const button = byId("rebuild-go");
  if (pressable) delete button.dataset.blocked;
  else button.dataset.blocked = "";
  button.disabled = !pressable;
  byId("rebuild-typed").hidden = !pressable;
  const typed = byId("rebuild-name");
  // Who typed the name to go on has not typed it to go on against a no.
  if (pressable && typed.dataset.meaning !== meaning) typed.value = "";
  if (pressable) typed.dataset.meaning = meaning;
  setText(byId("rebuild-why"), meaning);
}

function say(sentence, verdict = "") {
  setText(byId("verdict"), sentence);
  byId("verdict").dataset.verdict = verdict;
}

function show(rehearsal) {
  say(rehearsal.sentence, rehearsal.verdict);
  if (rehearsal.disks.length) showList("erases", rehearsal.disks);
  const { open, fine } = sorted(rehearsal.checks);
  byId("checks").replaceChildren(...open.map(checkRow));
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

  const password = () => form.elements.cluster_password?.value;

  async function look() {
    const mine = ++looks;
    verdict = "";
    allow(verdict, false);
    say("Looking at the cluster…");
    byId("looking").hidden = false;
    byId("rehearsal").setAttribute("aria-busy", "true");
    try {
      const rehearsal = await post(`/api/hosts/${id}/rebuild?dry_run=true`, wish({ password: password(), drain }));
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
    const asked = wish({ password: fields.cluster_password, drain, verdict, name: fields.hostname });
    const operation = await post(`/api/hosts/${id}/rebuild`, asked);
    location.assign(`/ops/${operation.id}`);
  });
}
