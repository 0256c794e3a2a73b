// What stands beside a host's history on its page: pairs of a name and some words.

import { tick } from "./clock.js";
import { byId, part, setText, showMoment } from "./view.js";

function word(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}

// Only when something is different: somebody may be marking it.
function showPairs(id, pairs) {
  const list = byId(id);
  list.hidden = pairs.length === 0;
  const words = pairs.flat();
  const same = list.children.length === words.length && words.every((text, at) => list.children[at].textContent === text);
  if (!same) list.replaceChildren(...pairs.flatMap(([name, text]) => [word("dt", name), word("dd", text)]));
}

export function showList(id, sentences) {
  byId(id).replaceChildren(...sentences.map((sentence) => word("li", sentence)));
}

export function showCards({ host, installation, machine, inventory }) {
  const about = byId("about");
  setText(part(about, "ip"), host.ip ?? "not known yet");
  setText(part(about, "hardware"), host.hardware_id ?? "not known yet");
  setText(part(about, "inventory"), inventory);
  showPairs("installation", installation);
  byId("no-installation").hidden = installation.length > 0;
  byId("machine").hidden = machine === null;
  if (machine === null) return;
  setText(part(byId("machine"), "product"), machine.product);
  showMoment(part(byId("machine"), "reported"), machine.reported_at);
  tick(byId("machine"));
  showPairs("disks", machine.disks);
  byId("no-disks").hidden = machine.disks.length > 0;
  showPairs("links", machine.links);
}
