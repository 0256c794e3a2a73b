// The page of all hosts.

import { get, post } from "./api.js";
import { openDialog, wireDialogs, wireForm } from "./forms.js";
import { coalesced, follow } from "./live.js";
import { forgetDownloads, showDownload } from "./progress.js";
import { addLine, blank, byId, group, part, setText, showLink, showMoment, showNote, showStatus } from "./view.js";
import { tick } from "./clock.js";

const grid = byId("hosts");
const tileOf = (id) => grid.querySelector(`[data-host="${Number(id)}"]`);

function showTile(host) {
  let tile = tileOf(host.id);
  if (!tile) {
    tile = blank("blank-tile");
    tile.dataset.host = host.id;
    grid.append(tile);
  }
  tile.dataset.group = group(host.state);
  showLink(part(tile, "hostname"), "/hosts/", host.id, host.hostname);
  setText(part(tile, "type"), host.server_type);
  setText(part(tile, "mac"), host.mac);
  setText(part(tile, "ip"), host.ip ?? "");
  part(tile, "pending").hidden = !host.inventory_pending;
  showLink(part(tile, "operation"), "/ops/", host.operation_id, `operation ${host.operation_id}`);
  showStatus(tile, host);
}

// Tiles stay where they are while somebody looks at them; loading the page sorts them.
function showHosts(hosts) {
  const known = new Set(hosts.map((host) => String(host.id)));
  for (const tile of [...grid.children]) if (!known.has(tile.dataset.host)) tile.remove();
  hosts.forEach(showTile);
  for (const name of ["failed", "working", "registered", "ready"]) {
    setText(byId(`count-${name}`), String(hosts.filter((host) => group(host.state) === name).length));
  }
  setText(byId("count-all"), String(hosts.length));
  byId("empty").hidden = hosts.length > 0;
  showWhetherEmpty();
}

function showWhetherEmpty() {
  const { show } = grid.dataset;
  const shown = show ? grid.querySelectorAll(`:scope > [data-group="${show}"]`) : grid.children;
  byId("none-shown").hidden = !show || shown.length > 0;
}

function showSightings(sightings) {
  const items = sightings.map((seen) => {
    const item = blank("blank-sighting");
    setText(part(item, "sighted-mac"), seen.mac);
    setText(part(item, "sighted-at"), seen.address);
    setText(part(item, "via"), seen.via);
    setText(part(item, "times"), String(seen.times));
    showMoment(part(item, "last-seen"), seen.last_seen);
    part(item, "register").dataset.mac = seen.mac;
    return item;
  });
  byId("sightings").replaceChildren(...items);
  byId("sightings-section").hidden = items.length === 0;
  tick(byId("sightings"));
}

function showTypes({ server_types: types, problem }) {
  byId("types-banner").hidden = !problem;
  setText(byId("types-problem"), problem ?? "");
  const select = byId("register-type");
  const chosen = select.value;
  const options = types.map((type) => {
    const option = new Option(`${type.display_name} (${type.key})`, type.key);
    option.dataset.prefix = type.hostname_prefix;
    return option;
  });
  select.replaceChildren(...options);
  if (types.some((type) => type.key === chosen)) select.value = chosen;
  suggestName();
}

function suggestName() {
  const prefix = byId("register-type").selectedOptions[0]?.dataset.prefix;
  byId("register-hostname").placeholder = prefix ? `the next free ${prefix}…` : "";
}

function showProgress(download) {
  if (!download) return forgetDownloads(grid);
  const tile = tileOf(download.host_id);
  if (tile) showDownload(tile, download);
}

function openRegister(mac) {
  openDialog(byId("register-dialog"));
  byId("register-mac").value = mac;
  byId(mac ? "register-type" : "register-mac").focus();
  suggestName();
}

const refreshHosts = coalesced(async () => showHosts((await get("/api/hosts")).hosts));
const refreshSightings = coalesced(async () => showSightings((await get("/api/sightings")).sightings));
const refreshTypes = coalesced(async () => showTypes(await get("/api/server-types")));

function refreshAll() {
  refreshHosts();
  refreshSightings();
  refreshTypes();
}

follow((activity) => {
  addLine(byId("activity"), activity, true);
  const tile = activity.host_id === null ? null : tileOf(activity.host_id);
  if (tile) showNote(tile, activity);
  if (activity.event.startsWith("server_types.")) refreshTypes();
  else if (activity.event === "machine.sighted") refreshSightings();
  else refreshHosts();
  if (activity.event === "host.registered") refreshSightings();
}, refreshAll, showProgress);

wireDialogs();
byId("open-register").addEventListener("click", () => openRegister(""));
byId("sightings").addEventListener("click", (event) => {
  const button = event.target.closest("[data-mac]");
  if (button) openRegister(button.dataset.mac);
});
byId("register-type").addEventListener("change", suggestName);

wireForm(byId("register-form"), async (fields) => {
  const address = {};
  for (const name of ["cidr", "gateway", "dns"]) {
    const value = fields[`options.address.${name}`];
    if (value) address[name] = value;
  }
  const wish = { mac: fields.mac, server_type: fields.server_type, hostname: fields.hostname };
  if (Object.keys(address).length) wish.options = { address };
  const host = await post("/api/hosts", wish);
  byId("register-dialog").close();
  showTile(host);
  byId("empty").hidden = true;
  setText(byId("told"), `${host.hostname} is registered. Open its page to rebuild it.`);
  part(tileOf(host.id), "hostname").focus();
  refreshAll();
});

showWhetherEmpty();
