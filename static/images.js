// The page of the images: what there is, what is on its way, and uploads that can be paused and resumed.

import { Problem, call, get, post } from "./api.js";
import { duration, tick } from "./clock.js";
import { openDialog, wireForm } from "./forms.js";
import { coalesced, follow } from "./live.js";
import { Sender } from "./sender.js";
import { blank, byId, part, setText, showMoment } from "./view.js";

const GIB = 1073741824;
const MIB = 1048576;
const POLL = 1000;

// --- images ---

function imageRow(image) {
  const row = blank("blank-image").querySelector("tr");
  row.dataset.image = image.name;
  setText(part(row, "name"), image.name);
  part(row, "default").hidden = !image.is_default;
  setText(part(row, "release"), image.release);
  setText(part(row, "size"), `${(image.size / GIB).toFixed(2)} GiB`);
  setText(part(row, "memory"), `${Math.floor(image.memory_needed_mib / 1024)} GiB`);
  showMoment(part(row, "imported"), image.imported_at);
  setText(part(row, "sha256"), image.sha256);
  row.querySelector("[data-act=default]").hidden = image.is_default;
  return row;
}

function showImages({ images, problems }) {
  byId("images").replaceChildren(...images.map(imageRow));
  byId("images-table").hidden = images.length === 0;
  byId("empty").hidden = images.length > 0;
  byId("problems").replaceChildren(...problems.map((problem) => {
    const item = document.createElement("li");
    item.textContent = problem;
    return item;
  }));
  byId("problems").hidden = problems.length === 0;
  tick(byId("images"));
}

// --- what is on its way ---

function showPace(item, { done, total, rate, left }) {
  const bar = part(item, "progress");
  bar.max = total || 1;
  bar.value = done;
  const percent = total ? Math.floor((100 * done) / total) : 0;
  const words = [`${percent} %`, `${Math.floor(done / MIB)} of ${Math.floor(total / MIB)} MiB`];
  if (rate) words.push(`${(rate / MIB).toFixed(1)} MiB/s`);
  if (left !== null) words.push(`${duration(1000 * left)} left`);
  setText(part(item, "pace"), words.join(" · "));
}

function showDetail(item, words) {
  part(item, "detail").hidden = !words;
  setText(part(item, "detail"), words);
}

const act = (item, name) => item.querySelector(`[data-act="${name}"]`);

function jobItem(job) {
  const item = blank("blank-job");
  item.dataset.job = job.id;
  item.dataset.state = job.state;
  setText(part(item, "subject"), `${job.kind} ${job.subject}`);
  setText(part(item, "state"), job.state === "done" && job.kind === "verify" ? "done: as it was imported" : job.state);
  showPace(item, { done: job.done, total: job.total, rate: job.rate, left: job.seconds_left });
  part(item, "pace").hidden = part(item, "progress").hidden = job.state !== "running";
  showDetail(item, job.detail);
  act(item, "cancel-job").hidden = job.state !== "running";
  return item;
}

const senders = new Map();
let uploads = [];
let jobs = [];

function uploadItem(upload) {
  const item = blank("blank-upload");
  const sender = senders.get(upload.id);
  const sending = Boolean(sender?.sending);
  item.dataset.upload = upload.id;
  item.dataset.state = sending ? "sending" : "waiting";
  setText(part(item, "subject"), upload.name);
  const rest = sender ? "paused" : "waiting for its file";
  setText(part(item, "state"), upload.complete ? "complete" : sending ? sender.trouble || "uploading" : rest);
  showPace(item, { done: sender?.offset ?? upload.offset, total: upload.size, rate: sending ? sender.rate : 0, left: sending ? sender.left : null });
  showDetail(item, sender?.problem ?? "");
  act(item, "pause").hidden = !sending;
  act(item, "resume").hidden = sending || upload.complete;
  act(item, "import").hidden = !upload.complete;
  return item;
}

// An item is replaced only where it changed, so that a button keeps the focus.
function fill(list, items) {
  const known = new Map([...list.children].map((item) => [item.dataset.upload ?? item.dataset.job, item]));
  list.replaceChildren(...items.map((item) => {
    const before = known.get(item.dataset.upload ?? item.dataset.job);
    if (!before) return item;
    before.dataset.state = item.dataset.state;
    for (const name of ["subject", "state", "pace", "detail"]) {
      setText(part(before, name), part(item, name).textContent);
      part(before, name).hidden = part(item, name).hidden;
    }
    const [bar, now] = [part(before, "progress"), part(item, "progress")];
    [bar.max, bar.value, bar.hidden] = [now.max, now.value, now.hidden];
    for (const button of before.querySelectorAll("[data-act]")) {
      button.hidden = act(item, button.dataset.act).hidden;
    }
    return before;
  }));
}

function showMoving() {
  // What an upload became is told by its job.
  const running = new Set(jobs.filter((job) => job.state === "running").map((job) => job.id));
  fill(byId("uploads"), uploads.filter((upload) => !running.has(upload.job_id)).map(uploadItem));
  fill(byId("jobs"), jobs.map(jobItem));
  byId("moving").hidden = uploads.length === 0 && jobs.length === 0;
}

const refreshImages = coalesced(async () => showImages(await get("/api/images")));

let timer = 0;
const refreshMoving = coalesced(async () => {
  const before = jobs.filter((job) => job.state === "running").length;
  [{ uploads }, { jobs }] = await Promise.all([get("/api/images/uploads"), get("/api/images/jobs")]);
  for (const id of senders.keys()) if (!uploads.some((upload) => upload.id === id)) senders.delete(id);
  showMoving();
  const running = jobs.filter((job) => job.state === "running").length;
  if (running < before) refreshImages();
  clearTimeout(timer);
  if (running && !document.hidden) timer = setTimeout(refreshMoving, POLL);
});

function refreshAll() {
  refreshImages();
  refreshMoving();
}

// --- uploads ---

function send(upload, file) {
  const sender = new Sender(upload, file, (after) => {
    uploads = uploads.map((one) => (one.id === upload.id ? { ...one, ...after } : one));
    showMoving();
    if (after.complete || !sender.sending) refreshMoving();
  });
  senders.set(upload.id, sender);
  sender.start();
}

function say(words) {
  byId("trouble").hidden = true;
  setText(byId("told"), words);
}

function complain(problem) {
  if (!(problem instanceof Problem)) console.error(problem);
  setText(byId("told"), "");
  setText(byId("trouble"), problem instanceof Problem ? problem.message : "This page met an error of its own. Load it again.");
  byId("trouble").hidden = false;
}

let chosen = null;

const ACTIONS = {
  async default({ image }) {
    await post(`/api/images/${encodeURIComponent(image)}/default`, {});
    say(`${image} is installed from now on.`);
  },
  async verify({ image }) {
    await post(`/api/images/${encodeURIComponent(image)}/verify`, {});
  },
  remove({ image }) {
    chosen = image;
    setText(part(byId("remove-dialog"), "subject"), image);
    openDialog(byId("remove-dialog"));
  },
  async "cancel-job"({ job }) {
    await post(`/api/images/jobs/${job}/cancel`, {});
  },
  pause({ upload }) {
    senders.get(upload)?.pause();
  },
  resume({ upload }) {
    const sender = senders.get(upload);
    if (sender) {
      sender.start();
      return;
    }
    chosen = upload;
    byId("resume-file").value = "";
    byId("resume-file").click();
  },
  import({ upload }) {
    chosen = upload;
    setText(part(byId("again-dialog"), "subject"), uploads.find(({ id }) => id === upload)?.name ?? "it");
    openDialog(byId("again-dialog"));
  },
  async discard({ upload }) {
    senders.get(upload)?.pause();
    senders.delete(upload);
    await call("DELETE", `/api/images/uploads/${upload}`);
  },
};

byId("main").addEventListener("click", async (event) => {
  const button = event.target.closest("[data-act]");
  if (!button) return;
  button.disabled = true;
  try {
    await ACTIONS[button.dataset.act](button.closest("[data-image], [data-job], [data-upload]").dataset);
  } catch (problem) {
    complain(problem);
  } finally {
    button.disabled = false;
    refreshAll();
  }
});

byId("resume-file").addEventListener("change", () => {
  const [file] = byId("resume-file").files;
  const upload = uploads.find(({ id }) => id === chosen);
  if (!file || !upload) return;
  if (file.size === upload.size) send(upload, file);
  else complain(new Problem(0, `That is another file: it has ${file.size} bytes, and ${upload.name} has ${upload.size}.`));
});

addEventListener("beforeunload", (event) => {
  if ([...senders.values()].some((sender) => sender.sending)) event.preventDefault();
});

follow((activity) => {
  if (activity.event.startsWith("image.")) refreshAll();
}, refreshAll);
document.addEventListener("visibilitychange", () => document.hidden || refreshAll());

wireForm(byId("upload-form"), async ({ file, sha256 }) => {
  const same = uploads.find((one) => !one.complete && one.name === file.name && one.size === file.size && !senders.get(one.id)?.sending);
  const upload = same ?? await post("/api/images/uploads", { name: file.name, size: file.size, sha256 });
  byId("upload-dialog").close();
  if (!same) uploads = [...uploads, upload];
  send(upload, file);
  showMoving();
});
wireForm(byId("path-form"), async ({ path, sha256, name }) => {
  await post("/api/images", { path, sha256, name });
  byId("path-dialog").close();
  refreshMoving();
});
wireForm(byId("again-form"), async (fields) => {
  await post(`/api/images/uploads/${chosen}/import`, fields);
  byId("again-dialog").close();
  refreshMoving();
});
wireForm(byId("remove-form"), async () => {
  await call("DELETE", `/api/images/${encodeURIComponent(chosen)}`);
  byId("remove-dialog").close();
  say(`${chosen} is removed.`);
  refreshAll();
});

refreshAll();
