// The page of all hosts.

import { get, post } from "./api.js";
import { showSelection, wireBulk } from "./bulk.js";
import { refreshDiscovered, wireDiscovered } from "./discovered.js";
import { GROUPS, address } from "./filter.js";
import { openDialog, wireForm } from "./forms.js";
import { coalesced, follow } from "./live.js";
import { forgetDownloads, showDownload } from "./progress.js";
import { refreshReadiness, wireReadiness } from "./readiness.js";
import { filter, forgetOthers, showTile, sort, tileOf, tiles } from "./tiles.js";
import { byId, part, setText, showNote } from "./view.js";

// More than this are fetched as all.
const FEW = 20;

const filters = byId("filters");
const title = document.title;

// --- what is shown ---

const choice = () => Object.fromEntries(new FormData(filters));

function show() {
  const { counts, shown } = filter(choice());
  for (const name of GROUPS) setText(byId(`count-${name}`), String(counts[name] ?? 0));
  setText(byId("count-all"), String(tiles().length));
  const calling = (counts.failed ?? 0) + (counts.waiting ?? 0);
  document.title = calling ? `(${calling}) ${title}` : title;
  byId("empty").hidden = tiles().length > 0;
  byId("hosts-section").hidden = tiles().length === 0;
  byId("none-shown").hidden = shown > 0 || tiles().length === 0;
  showSelection();
}

function choose() {
  const now = choice();
  history.replaceState(null, "", address(now));
  byId("hosts").dataset.view = now.view;
  document.cookie = `view=${now.view}; path=/; max-age=31536000; samesite=strict`;
  for (const chip of document.querySelectorAll(".chips [data-group]")) {
    if (chip.dataset.group === now.show) chip.setAttribute("aria-current", "true");
    else chip.removeAttribute("aria-current");
    chip.href = address({ ...now, show: chip.dataset.group });
  }
  sort(now);
  show();
}

function wireFilters() {
  // What has no name is no choice of hosts, as the box that selects all.
  filters.addEventListener("input", ({ target }) => target.name && choose());
  filters.addEventListener("submit", (event) => {
    event.preventDefault();
    choose();
  });
  for (const link of document.querySelectorAll(".chips [data-group], #none-shown a")) {
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      if (link.closest("#none-shown")) filters.elements.q.value = filters.elements.type.value = "";
      filters.elements.show.value = link.dataset.group ?? "";
      choose();
    });
  }
  // Nobody was reading a tile while the page was out of sight.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    unread = true;
    concern("all");
  });
  if (location.hash === "#search") byId("search").focus();
}

// --- what is true ---

const concerned = new Set();
let unread = false;

const refreshHosts = coalesced(async () => {
  const ids = [...concerned];
  concerned.clear();
  const all = ids.includes("all") || ids.length > FEW;
  const query = all ? "" : `?${ids.map((id) => `id=${id}`).join("&")}`;
  const { hosts } = await get(`/api/hosts${query}`).catch((problem) => {
    ids.forEach((id) => concerned.add(id));
    throw problem;
  });
  hosts.forEach(showTile);
  if (all) forgetOthers(hosts);
  for (const id of ids) if (id !== "all" && !all && !hosts.some((host) => host.id === id)) tileOf(id)?.remove();
  if (all && unread) {
    unread = false;
    sort(choice());
  }
  show();
});

function concern(id) {
  concerned.add(id);
  refreshHosts();
}

// A type that was forgotten may still be that of a host, or the one that is looked for.
function showTypeFilter(known) {
  const { type } = filters.elements;
  const filtered = type.value;
  const names = new Set([...known, ...tiles().map(({ dataset }) => dataset.type), filtered].filter(Boolean));
  type.replaceChildren(type.options[0], ...[...names].sort().map((name) => new Option(name, name)));
  type.value = filtered;
  type.hidden = names.size < 2 && !filtered;
}

function showTypes({ server_types: types, problem }) {
  byId("types-banner").hidden = !problem;
  setText(byId("types-problem"), problem ?? "");
  const select = byId("register-type");
  const chosen = select.value;
  select.replaceChildren(...types.map((type) => {
    const option = new Option(`${type.display_name} (${type.key})`, type.key);
    option.dataset.prefix = type.hostname_prefix;
    return option;
  }));
  if (types.some((type) => type.key === chosen)) select.value = chosen;
  showTypeFilter(types.map(({ key }) => key));
  suggestName();
}

const refreshTypes = coalesced(async () => showTypes(await get("/api/server-types")));

function refreshAll() {
  concern("all");
  refreshDiscovered();
  refreshTypes();
  refreshReadiness();
}

function showProgress(download) {
  if (!download) return forgetDownloads(byId("hosts"));
  const tile = tileOf(download.host_id);
  if (tile) showDownload(tile, download);
}

follow((activity) => {
  const { event, host_id: id } = activity;
  if (id !== null) {
    const tile = tileOf(id);
    if (tile) showNote(tile, activity);
    concern(id);
  }
  if (event.startsWith("server_types.")) refreshTypes();
  if (event.startsWith("machine.") || event === "host.registered" || event === "host.removed") refreshDiscovered();
  if (!event.startsWith("boot.")) refreshReadiness();
}, refreshAll, showProgress);

// A host becomes late, or is in time again, without a word: those that are on their way are looked at now and then.
const ON_THEIR_WAY = ["working", "waiting"];

setInterval(() => {
  if (document.hidden) return;
  for (const { dataset } of tiles()) if (ON_THEIR_WAY.includes(dataset.group)) concern(Number(dataset.host));
}, 15_000);

// --- registering ---

function suggestName() {
  const prefix = byId("register-type").selectedOptions[0]?.dataset.prefix;
  byId("register-hostname").placeholder = prefix ? `the next free ${prefix}…` : "";
}

function openRegister(mac) {
  openDialog(byId("register-dialog"));
  byId("register-mac").value = mac;
  byId(mac ? "register-type" : "register-mac").focus();
  suggestName();
}

byId("open-register").addEventListener("click", () => openRegister(""));
byId("register-type").addEventListener("change", suggestName);

wireForm(byId("register-form"), async (fields) => {
  const fixed = {};
  for (const name of ["cidr", "gateway", "dns"]) {
    const value = fields[`options.address.${name}`];
    if (value) fixed[name] = value;
  }
  const wanted = { mac: fields.mac, server_type: fields.server_type, hostname: fields.hostname };
  if (Object.keys(fixed).length) wanted.options = { address: fixed };
  const host = await post("/api/hosts", wanted);
  byId("register-dialog").close();
  showTile(host);
  show();
  setText(byId("told"), `${host.hostname} is registered. Open its page to rebuild it.`);
  part(tileOf(host.id), "hostname").focus();
  refreshAll();
});

// --- copying ---

for (const button of document.querySelectorAll("[data-copies]")) {
  button.addEventListener("click", async () => {
    const text = byId(button.dataset.copies);
    getSelection().selectAllChildren(text);
    // The clipboard is for secure pages only: elsewhere the text is selected, and Ctrl-C does it.
    const copied = await navigator.clipboard?.writeText(text.textContent).then(() => true, () => false);
    setText(button, copied ? "Copied" : "Selected: press Ctrl-C");
  });
}

wireFilters();
wireBulk();
wireDiscovered(openRegister);
wireReadiness();
show();
