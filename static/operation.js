// The page of one operation.

import { get, post } from "./api.js";
import { wireDialogs, wireForm } from "./forms.js";
import { coalesced, follow } from "./live.js";
import { addLine, byId, part, setText, showBadge, showMoment, showNote, showSpan, showStatus } from "./view.js";
import { tick } from "./clock.js";

const page = byId("operation").dataset;
const id = Number(page.operation);
const log = byId("activity");

function showOperation(operation) {
  showBadge(byId("outcome"), operation.outcome ?? "running");
  showSpan(part(byId("outcome"), "duration"), operation.started_at, operation.finished_at);
  setText(byId("detail"), operation.detail);
  byId("detail").hidden = !operation.detail;
  byId("detail").dataset.level = operation.outcome === "failed" ? "error" : "warning";
  part(byId("about"), "unfinished").hidden = !operation.active;
  showMoment(part(byId("about"), "finished"), operation.finished_at);
  byId("while-active").hidden = !operation.active;
  byId("status").hidden = !operation.active;
  if (!operation.active) {
    page.active = "no";
    byId("password-form").hidden = true;
    if (!byId("cancel-form").matches("[aria-busy=true]")) byId("cancel-dialog").close();
    endSteps(operation);
  }
  tick();
}

// The steps follow the log: a line that changes the host's state says when.
function showStep({ at, after }) {
  const steps = [...byId("steps").children];
  const here = steps.findIndex((step) => step.dataset.step === after);
  if (here < 0) return;
  steps.forEach((step, number) => {
    const took = part(step, "took");
    if (number === here) showSpan(took, at);
    else if (number < here && took.dataset.since && !took.dataset.until) took.dataset.until = at;
    step.dataset.place = number < here ? "done" : number === here ? "here" : "ahead";
  });
  tick(byId("steps"));
}

function endSteps({ outcome, finished_at: at }) {
  for (const step of byId("steps").children) {
    const took = part(step, "took");
    if (took.dataset.since && !took.dataset.until) took.dataset.until = at;
    if (step.dataset.place === "here") step.dataset.place = outcome === "done" ? "done" : "stopped";
  }
}

// The log follows its end only while the reader is there.
const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 8;
const toEnd = () => {
  log.scrollTop = log.scrollHeight;
  byId("jump").hidden = true;
};

const refresh = coalesced(async () => {
  const operation = await get(`/api/operations/${id}`);
  showOperation(operation);
  if (operation.active && operation.host_id !== null) {
    showStatus(byId("status"), await get(`/api/hosts/${operation.host_id}`));
  }
});

function comeBack() {
  // A restarted provd may have forgotten the cluster's password: the page knows whether it has.
  const atRest = byId("password-form").hidden && !byId("cancel-dialog").open;
  if (page.active === "yes" && atRest) location.reload();
  else refresh();
}

follow((activity) => {
  if (activity.operation_id !== id) return;
  const following = atEnd();
  addLine(log, activity, false);
  if (following) toEnd();
  else byId("jump").hidden = false;
  showNote(byId("status"), activity);
  if (activity.before !== activity.after) showStep(activity);
  if (activity.after === "joining") byId("password-form").hidden = true;
  refresh();
}, comeBack);

log.addEventListener("scroll", () => atEnd() && (byId("jump").hidden = true));
byId("jump").addEventListener("click", toEnd);
toEnd();

wireDialogs();
wireForm(byId("cancel-form"), async () => {
  const operation = await post(`/api/operations/${id}/cancel`, {});
  byId("cancel-dialog").close();
  showOperation(operation);
});
wireForm(byId("password-form"), async (fields) => {
  await post(`/api/operations/${id}/cluster-password`, { cluster_password: fields.cluster_password });
  byId("password-form").hidden = true;
  log.focus();
});
