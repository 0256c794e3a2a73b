// Machines that were heard and are not registered: to be registered, or ignored.

import { call, get } from "./api.js";
import { tick } from "./clock.js";
import { coalesced } from "./live.js";
import { blank, byId, part, setText, showMoment } from "./view.js";

function item(seen) {
  const found = blank("blank-sighting");
  found.dataset.mac = seen.mac;
  setText(part(found, "sighted-mac"), seen.mac);
  setText(part(found, "vendor"), seen.vendor);
  setText(part(found, "firmware"), seen.firmware || "firmware not known");
  setText(part(found, "sighted-at"), seen.address);
  setText(part(found, "via"), seen.via);
  setText(part(found, "times"), String(seen.times));
  showMoment(part(found, "last-seen"), seen.last_seen);
  showMoment(part(found, "first-seen"), seen.first_seen);
  return found;
}

function show(sightings) {
  const held = document.activeElement?.closest?.(".sighting")?.dataset.mac;
  const act = document.activeElement?.dataset?.act;
  const ignored = sightings.filter((seen) => seen.ignored);
  const heard = sightings.filter((seen) => !seen.ignored);
  byId("sightings").replaceChildren(...heard.map(item));
  byId("to-discovered").hidden = heard.length === 0;
  setText(byId("count-discovered"), String(heard.length));
  byId("ignored").replaceChildren(...ignored.map(item));
  setText(byId("ignored-count"), String(ignored.length));
  byId("ignored-section").hidden = ignored.length === 0;
  byId("sightings-section").hidden = sightings.length === 0;
  tick(byId("sightings-section"));
  if (!held) return;
  const again = byId("sightings-section").querySelector(`[data-mac="${held}"] [data-act="${act}"]`);
  // What was ignored is folded away.
  (again?.offsetParent ? again : byId("ignored-section").querySelector("summary")).focus();
}

export const refreshDiscovered = coalesced(async () => show((await get("/api/sightings")).sightings));

// `register` is called with the MAC of a machine that shall be.
export function wireDiscovered(register) {
  byId("sightings-section").addEventListener("click", async ({ target }) => {
    const { act } = target.closest("[data-act]")?.dataset ?? {};
    const { mac } = target.closest("[data-mac]")?.dataset ?? {};
    if (act === "register") return register(mac);
    if (!act) return;
    await call(act === "ignore" ? "POST" : "DELETE", `/api/sightings/${mac}/ignore`).catch((problem) =>
      setText(byId("told"), problem.message));
    refreshDiscovered();
  });
}
