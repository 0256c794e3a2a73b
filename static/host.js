// The page of one host.

import { showRemoved, wireActions } from "./actions.js";
import { wireAnswer } from "./answer.js";
import { Problem, call, get, post } from "./api.js";
import { tick } from "./clock.js";
import { wireForm } from "./forms.js";
import { showCards } from "./host-cards.js";
import { showStanding } from "./host-standing.js";
import { coalesced, follow } from "./live.js";
import { forgetDownloads, showDownload } from "./progress.js";
import { wireRehearsal } from "./rehearsal.js";
import { wireTrail } from "./trail.js";
import { addLine, blank, byId, group, part, setText, showBadge, showLink, showMoment, showSpan } from "./view.js";

const LOOK_MILLISECONDS = 15_000;

const id = Number(byId("host").dataset.host);

function show(standing) {
  showStanding(standing);
  showCards(standing);
  const { host } = standing;
  byId("status").dataset.state = host.state;
  byId("retry-form").hidden = host.state !== "failed" || host.retry_until === null;
  if (host.retry_until !== null) {
    showMoment(part(byId("retry-form"), "retry-until"), host.retry_until);
    tick(byId("retry-form"));
  }
  if (!byId("boot-dialog").open) showBootOptions(host.options);
}

// What the form begins with when it is opened.
function showBootOptions(options) {
  for (const select of byId("boot-form").querySelectorAll("select")) {
    for (const option of select.options) option.defaultSelected = option.value === (options[select.name] ?? "");
  }
}

function operationRow(operation) {
  const row = blank("blank-operation").querySelector("tr");
  row.dataset.operation = operation.id;
  showLink(part(row, "operation-link"), "/ops/", operation.id, `${operation.kind} ${operation.id}`);
  showBadge(row, operation.outcome ?? "running");
  showMoment(part(row, "started"), operation.started_at);
  showSpan(part(row, "duration"), operation.started_at, operation.finished_at);
  setText(part(row, "started-by"), operation.started_by);
  setText(part(row, "detail"), operation.detail);
  return row;
}

function showOperations(operations) {
  byId("operations").replaceChildren(...operations.map(operationRow));
  byId("operations-table").hidden = operations.length === 0;
  byId("no-operations").hidden = operations.length > 0;
  tick(byId("operations"));
}

// Who leaves the host in its cluster is not asked for the cluster's password.
function wireRemoval() {
  const form = byId("remove-form");
  const needs = byId("remove-needs");
  if (!needs) return;
  const choose = () => {
    const leaves = form.elements.cluster.value === "remove";
    needs.hidden = !leaves;
    form.elements.cluster_password.disabled = !leaves;
  };
  form.addEventListener("change", choose);
  form.addEventListener("reset", () => setTimeout(choose));
}

const refresh = coalesced(async () => {
  try {
    show(await get(`/api/hosts/${id}/standing`));
  } catch (problem) {
    if (problem instanceof Problem && problem.status === 404) showRemoved("");
    throw problem;
  }
});
const refreshOperations = coalesced(async () =>
  showOperations((await get(`/api/operations?host_id=${id}&limit=50`)).operations));

const refreshTrail = wireTrail(id);

function showProgress(download) {
  if (!download) forgetDownloads(byId("status"));
  else if (download.host_id === id) showDownload(byId("status"), download);
}

// Nothing is heard when somebody becomes late.
setInterval(() => !document.hidden && group(byId("status").dataset.state) === "working" && refresh(), LOOK_MILLISECONDS);

const refreshAnswer = wireAnswer(id);

follow((activity) => {
  if (activity.host_id !== id) return;
  addLine(byId("activity"), activity, true);
  if (activity.event === "host.removed") return showRemoved(`${activity.message}.`);
  refresh();
  refreshTrail();
  if (activity.before !== activity.after || activity.event.startsWith("operation.")) refreshOperations();
  if (activity.event === "host.configured") refreshAnswer();
}, () => {
  refresh();
  refreshTrail();
  refreshOperations();
}, showProgress);

wireRehearsal(id);
wireRemoval();
wireActions(id);
wireForm(byId("boot-form"), async (fields) => {
  // The API replaces a host's options as a whole: what this form does not show stays as it is.
  const { options } = await get(`/api/hosts/${id}`);
  for (const [name, value] of Object.entries(fields)) options[name] = value || null;
  await call("PATCH", `/api/hosts/${id}`, { options });
  byId("boot-dialog").close();
  setText(byId("told"), "Saved. It counts from the machine's next start on.");
});
wireForm(byId("retry-form"), async ({ cluster_password: password }) => {
  const operation = await post(`/api/hosts/${id}/rejoin`, password ? { cluster_password: password } : {});
  location.assign(`/ops/${operation.id}`);
});
wireForm(byId("remove-form"), async ({ cluster = "keep", cluster_password: password }) => {
  const operation = await call(
    "DELETE", `/api/hosts/${id}?cluster=${cluster}`, password ? { cluster_password: password } : undefined);
  location.assign(operation ? `/ops/${operation.id}` : "/");
});
