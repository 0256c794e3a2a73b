// The boot trail of one host: the stations its machine passed, and the one that is expected next.

import { get } from "./api.js";
import { tick } from "./clock.js";
import { coalesced } from "./live.js";
import { blank, byId, part, setText, showLink, showMoment, showSpan } from "./view.js";

const trail = byId("trail");

// `before` is when the station before it was passed.
function stationItem(station, before) {
  const item = blank("blank-station");
  item.dataset.hop = station.hop;
  item.dataset.place = station.place;
  setText(part(item, "title"), station.title);
  setText(part(item, "place"), station.at ? "" : station.place);
  showMoment(part(item, "passed"), station.at);
  setText(part(item, "times"), station.times > 1 ? `${station.times}×` : "");
  showSpan(part(item, "gap"), station.at && before, station.at);
  setText(part(item, "passed-message"), station.message);
  part(item, "left").dataset.due = station.expected_by ?? "";
  return item;
}

function show({ operation, stations, last, packets }) {
  part(trail, "of").hidden = !operation;
  showLink(part(trail, "trail-operation"), "/ops/", operation?.id, operation ? `${operation.kind} ${operation.id}` : "");
  let before = null;
  part(trail, "stations").replaceChildren(...stations.map((station) => {
    const item = stationItem(station, before);
    before = station.at ?? before;
    return item;
  }));
  part(trail, "nothing").hidden = stations.length > 0 || Boolean(last);
  part(trail, "last").hidden = !last;
  showMoment(part(trail, "last-at"), last?.at);
  setText(part(trail, "last-message"), last?.message ?? "");
  setText(part(trail, "last-address"), last?.address ?? "");
  part(trail, "packets").hidden = packets === 0;
  setText(part(trail, "packets-number"), String(packets));
  byId("late-packets").hidden = packets === 0;
  tick(trail);
}

// Keeps the trail of host `id` true; returns what to call when something was heard.
export function wireTrail(id) {
  return coalesced(async () => show(await get(`/api/hosts/${id}/trail`)));
}
