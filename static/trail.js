// The boot trail of one host: the stations its machine passed, and the one that is expected next.

import { Problem, get, post } from "./api.js";
import { tick } from "./clock.js";
import { coalesced } from "./live.js";
import { blank, byId, part, setText, showMoment } from "./view.js";

const trail = byId("trail");

function stationItem(station) {
  const item = blank("blank-station");
  item.dataset.hop = station.hop;
  item.dataset.place = station.place;
  item.title = station.message;
  setText(part(item, "title"), station.title);
  setText(part(item, "place"), station.place);
  showMoment(part(item, "passed"), station.at);
  setText(part(item, "times"), station.times > 1 ? `${station.times}×` : "");
  part(item, "left").dataset.due = station.expected_by ?? "";
  return item;
}

function show({ stations, last, packets }) {
  part(trail, "stations").replaceChildren(...stations.map(stationItem));
  part(trail, "nothing").hidden = stations.length > 0;
  part(trail, "last").hidden = !last;
  showMoment(part(trail, "last-at"), last?.at);
  setText(part(trail, "last-message"), last?.message ?? "");
  setText(part(trail, "last-address"), last?.address ?? "");
  part(trail, "packets").hidden = packets === 0;
  setText(part(trail, "packets-number"), String(packets));
  tick(trail);
}

async function wake(id) {
  const button = byId("wake");
  const told = part(trail, "wake-told");
  button.disabled = true;
  setText(told, "");
  try {
    setText(told, `${(await post(`/api/hosts/${id}/wake`, {})).message}.`);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    setText(told, problem.message);
  } finally {
    button.disabled = false;
  }
}

// Shows the trail of host `id` and lets it be woken; returns what to call when something was heard.
export function wireTrail(id) {
  byId("wake").addEventListener("click", () => wake(id));
  return coalesced(async () => show(await get(`/api/hosts/${id}/trail`)));
}
