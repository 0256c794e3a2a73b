// The page of one host.

import { Problem, call, get, post } from "./api.js";
import { wireDialogs, wireForm } from "./forms.js";
import { coalesced, follow } from "./live.js";
import { forgetDownloads, showDownload } from "./progress.js";
import { wireRehearsal } from "./rehearsal.js";
import { wireTrail } from "./trail.js";
import { addLine, blank, byId, group, part, setText, showBadge, showLink, showMoment, showNote, showSpan, showStatus } from "./view.js";
import { tick } from "./clock.js";

const id = Number(byId("host").dataset.host);

function showHost(host) {
  showStatus(byId("status"), host);
  const about = byId("about");
  setText(part(about, "ip"), host.ip ?? "not known yet");
  setText(part(about, "hardware"), host.hardware_id ?? "not known yet");
  part(about, "pending").hidden = !host.inventory_pending;
  part(about, "settled").hidden = host.inventory_pending;
  const busy = host.operation_id !== null || group(host.state) === "working";
  byId("running").hidden = host.operation_id === null;
  byId("running").href = `/ops/${host.operation_id}`;
  setText(byId("running-id"), String(host.operation_id ?? ""));
  byId("open-rebuild").disabled = busy || "blocked" in byId("open-rebuild").dataset;
  byId("open-remove").disabled = busy;
  byId("retry-form").hidden = host.state !== "failed" || host.retry_until === null;
  if (host.retry_until !== null) showMoment(part(byId("retry-form"), "retry-until"), host.retry_until);
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

const refresh = coalesced(async () => {
  try {
    showHost(await get(`/api/hosts/${id}`));
  } catch (problem) {
    // Removed: the server has a page that says so.
    if (problem instanceof Problem && problem.status === 404) location.reload();
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

follow((activity) => {
  if (activity.host_id !== id) return;
  addLine(byId("activity"), activity, true);
  showNote(byId("status"), activity);
  refresh();
  refreshTrail();
  if (activity.before !== activity.after || activity.event.startsWith("operation.")) refreshOperations();
}, () => {
  refresh();
  refreshTrail();
  refreshOperations();
}, showProgress);

wireDialogs();
wireRehearsal(id);
wireForm(byId("boot-form"), async (fields) => {
  // The API replaces a host's options as a whole: what this form does not show stays as it is.
  const { options } = await get(`/api/hosts/${id}`);
  for (const [name, value] of Object.entries(fields)) options[name] = value || null;
  await call("PATCH", `/api/hosts/${id}`, { options });
  location.reload();
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
