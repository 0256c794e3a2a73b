// Several hosts at once: chosen on the grid, looked at one by one, named before anything is wiped.

import { Problem, post } from "./api.js";
import { openDialog, wireForm } from "./forms.js";
import { tileOf, tiles } from "./tiles.js";
import { why, wish } from "./verdict.js";
import { blank, byId, part, setText, showLink } from "./view.js";

const AT_ONCE = 2;
const form = byId("bulk-form");
const picks = () => tiles().filter((tile) => part(tile, "pick").checked);

let looks = 0;
let willing = [];

export function showSelection() {
  const chosen = picks().length;
  byId("selection").hidden = chosen === 0;
  setText(byId("selected"), `${chosen} selected`);
  const shown = tiles().filter((tile) => !tile.hidden);
  const all = byId("pick-all");
  all.checked = shown.length > 0 && shown.every((tile) => part(tile, "pick").checked);
  all.indeterminate = !all.checked && chosen > 0;
}

function row({ dataset: { host, hostname } }) {
  const found = blank("blank-bulk").querySelector("li");
  found.dataset.host = host;
  setText(part(found, "bulk-host"), hostname);
  return found;
}

const rowOf = (id) => byId("bulk-hosts").querySelector(`[data-host="${Number(id)}"]`);
const words = (count) => (count === 1 ? "1 host" : `${count} hosts`);
const password = () => form.elements.cluster_password?.value ?? "";

function say(id, result, sentence) {
  rowOf(id).dataset.result = result;
  setText(part(rowOf(id), "bulk-said"), sentence);
}

// What a rehearsal says no to is left out: forcing is done one by one, on the host's own page.
function judge(id, { verdict, erases, checks }) {
  const words = { yes: "Yes: nothing stands in the way.", "yes, but": `Yes, but: ${why(checks)}` };
  const goes = verdict in words;
  setText(part(rowOf(id), "bulk-disks"), goes ? `loses ${erases.join(", ")}` : "");
  say(id, goes ? verdict : "no", words[verdict] ?? `Left out: ${why(checks)}`);
  return goes;
}

function allow() {
  const button = byId("bulk-go");
  button.toggleAttribute("data-blocked", willing.length === 0);
  button.disabled = willing.length === 0;
  byId("bulk-typed").hidden = willing.length === 0;
  for (const place of form.querySelectorAll('[data-part="bulk-words"]')) setText(place, `rebuild ${willing.length}`);
}

async function look(chosen) {
  const mine = ++looks;
  willing = [];
  allow();
  // What was begun stays to be seen.
  const begun = byId("bulk-hosts").querySelectorAll("[data-result=begun]");
  byId("bulk-hosts").replaceChildren(...begun, ...chosen.map(row));
  setText(byId("bulk-verdict"), `Looking at ${words(chosen.length)}…`);
  const waiting = chosen.map((tile) => Number(tile.dataset.host));
  const found = [];
  async function work() {
    for (let id = waiting.shift(); id !== undefined; id = waiting.shift()) {
      let goes = false;
      try {
        const rehearsal = await post(`/api/hosts/${id}/rebuild?dry_run=true`, wish({ password: password() }));
        if (mine !== looks) return;
        goes = judge(id, rehearsal);
      } catch (problem) {
        if (!(problem instanceof Problem)) throw problem;
        if (mine !== looks) return;
        say(id, "no", `Left out: ${problem.message}`);
      }
      if (goes) found.push(id);
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  if (mine !== looks) return;
  willing = chosen.map((tile) => Number(tile.dataset.host)).filter((id) => found.includes(id));
  const left = chosen.length - willing.length;
  setText(byId("bulk-verdict"), `${words(willing.length)} will be rebuilt${left ? `, ${left} left out` : ""}.`);
  allow();
}

// One after the other; one that is refused does not keep the others from it.
async function rebuild({ typed, cluster_password: secret }) {
  if (typed.trim() !== `rebuild ${willing.length}`) {
    throw new Problem(0, `Type “rebuild ${willing.length}” to say that you mean it.`, "typed");
  }
  let begun = 0;
  let id;
  while ((id = willing.shift()) !== undefined) {
    try {
      const operation = await post(`/api/hosts/${id}/rebuild`, wish({ password: secret }));
      begun += 1;
      say(id, "begun", "Begun:");
      showLink(part(rowOf(id), "bulk-operation"), "/ops/", operation.id, `operation ${operation.id}`);
      const tile = tileOf(id);
      if (tile) part(tile, "pick").checked = false;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      say(id, "no", `Not begun: ${problem.message}`);
    }
  }
  setText(byId("bulk-verdict"), `${words(begun)} ${begun === 1 ? "is" : "are"} being rebuilt.`);
  allow();
  showSelection();
}

export function wireBulk() {
  byId("hosts").addEventListener("change", showSelection);
  byId("pick-all").addEventListener("change", ({ target }) => {
    for (const tile of tiles()) part(tile, "pick").checked = target.checked && !tile.hidden;
    showSelection();
  });
  byId("clear-selection").addEventListener("click", () => {
    for (const tile of tiles()) part(tile, "pick").checked = false;
    showSelection();
    byId("pick-all").focus();
  });
  byId("open-bulk").addEventListener("click", () => {
    const chosen = picks();
    setText(part(form, "bulk-count"), words(chosen.length));
    byId("bulk-hosts").replaceChildren();
    openDialog(byId("bulk-dialog"));
    look(chosen);
  });
  // Nobody waits for what is still being looked at.
  byId("bulk-dialog").addEventListener("close", () => { looks += 1; });
  // It may be what those lacked that were left out.
  form.elements.cluster_password?.addEventListener("change", () => {
    const chosen = picks();
    if (form.getAttribute("aria-busy") !== "true" && willing.length < chosen.length) look(chosen);
  });
  wireForm(form, rebuild);
  showSelection();
}
