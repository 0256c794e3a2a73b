// The page of one operation.

import { get, post } from "./api.js";
import { tick } from "./clock.js";
import { wireForm } from "./forms.js";
import { announcement } from "./lines.js";
import { coalesced, follow } from "./live.js";
import { Log } from "./log.js";
import { wireLogTools } from "./log-tools.js";
import { sentences, showFailure, showSteps } from "./steps.js";
import { byId, part, setText, showBadge, showMoment, showNote, showSpan, showStatus } from "./view.js";

const page = byId("operation").dataset;
const id = Number(page.operation);
const ANNOUNCE = 1000;

// --- how it stands ---

function showOperation(operation) {
  page.active = operation.active ? "yes" : "no";
  showBadge(byId("outcome"), operation.outcome ?? "running");
  showSpan(part(byId("operation"), "duration"), operation.started_at, operation.finished_at);
  part(byId("about"), "unfinished").hidden = !operation.active;
  showMoment(part(byId("about"), "finished"), operation.finished_at);
  byId("while-active").hidden = !operation.active;
  byId("status").hidden = !operation.active;
  if (!operation.active && !byId("cancel-form").matches("[aria-busy=true]")) byId("cancel-dialog").close();
}

function showStanding(standing) {
  showOperation(standing.operation);
  showSteps(standing.steps, standing.failure);
  showFailure(standing);
  const undo = byId("undo");
  const told = [...undo.children].map((item) => item.textContent);
  if (standing.undo.length && told.join() !== standing.undo.join()) undo.replaceChildren(...sentences(standing.undo));
  byId("password-form").hidden = !standing.needs_password;
  tick();
}

const refresh = coalesced(async () => {
  const standing = await get(`/api/operations/${id}/standing`);
  showStanding(standing);
  const { active, host_id: host } = standing.operation;
  if (active && host !== null) showStatus(byId("status"), await get(`/api/hosts/${host}`));
});

// --- its log ---

const log = new Log(id, showCounts);

function showCounts() {
  const { loaded, total } = log;
  const words = `${total.toLocaleString("en")} ${total === 1 ? "line" : "lines"}`;
  setText(byId("loaded"), loaded < total ? `${loaded.toLocaleString("en")} of ${words}` : words);
  byId("load-all").hidden = log.complete;
  log.pane.toggleAttribute("data-none", log.shown === 0);
}

wireLogTools(log, showCounts);

// Who listens to the page hears what matters, once a second at most.
let unsaid = [];
function announce(line) {
  if (!unsaid.length) {
    setTimeout(() => {
      const words = announcement(unsaid.splice(0));
      if (words) setText(byId("announced"), words);
    }, ANNOUNCE);
  }
  unsaid.push(line);
}

follow(
  (activity) => {
    if (activity.operation_id !== id) return;
    log.add(activity);
    announce(activity);
    showNote(byId("status"), activity);
    setText(part(byId("cancel-form"), "latest"), activity.message);
    refresh();
  },
  () => {
    log.catchUp().catch((problem) => console.warn(problem));
    refresh();
  },
);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) log.catchUp().catch((problem) => console.warn(problem));
});

// --- what can be done ---

wireForm(byId("cancel-form"), async () => {
  const operation = await post(`/api/operations/${id}/cancel`, {});
  byId("cancel-dialog").close();
  showOperation(operation);
  refresh();
});
wireForm(byId("password-form"), async (fields) => {
  await post(`/api/operations/${id}/cluster-password`, { cluster_password: fields.cluster_password });
  byId("password-form").hidden = true;
  log.pane.focus();
});
wireForm(byId("retry-form"), async (fields) => {
  const body = fields.cluster_password ? { cluster_password: fields.cluster_password } : {};
  const operation = await post(`/api/hosts/${page.host}/rejoin`, body);
  location.assign(`/ops/${operation.id}`);
});
