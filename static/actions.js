// What can be done to a host from its page. A button that cannot be pressed says why when it is pressed.

import { Problem, post } from "./api.js";
import { byId, setText } from "./view.js";

const isBlocked = (button) => button.getAttribute("aria-disabled") === "true";

const say = (words) => setText(byId("told"), words);

function reasonOf(button) {
  const ids = button.getAttribute("aria-describedby").split(" ");
  return ids.map(byId).filter((reason) => !reason.hidden).map((reason) => reason.textContent.trim()).join(" ");
}

// Before all that a button does otherwise, wherever that is listened for.
function wireReasons() {
  addEventListener("click", (event) => {
    const button = event.target.closest("#actions button");
    if (!button) return;
    say(isBlocked(button) ? reasonOf(button) : "");
    if (isBlocked(button)) event.stopPropagation();
  }, { capture: true });
}

function wireWaking(id) {
  let busy = false;
  async function wake() {
    if (busy) return;
    busy = true;
    say("");
    try {
      const { message } = await post(`/api/hosts/${id}/wake`, {});
      say(`${message[0].toUpperCase()}${message.slice(1)}.`);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      say(problem.message);
    } finally {
      busy = false;
    }
  }
  byId("wake").addEventListener("click", wake);
  byId("late-wake").addEventListener("click", wake);
}

// Who comes from elsewhere to rebuild or remove this host finds the question open.
function openWhatIsAskedFor() {
  const button = { "#rebuild": byId("open-rebuild"), "#remove": byId("open-remove") }[location.hash];
  if (!button) return;
  history.replaceState(null, "", location.pathname);
  button.click();
}

export function wireActions(id) {
  wireReasons();
  wireWaking(id);
  openWhatIsAskedFor();
}

// Somebody removed the host: nothing can be done to it any more, and what was on the page stays readable.
export function showRemoved(how) {
  const notice = byId("removed");
  if (how) setText(notice.querySelector("[data-part=removed-how]"), how);
  if (!notice.hidden) return;
  notice.hidden = false;
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  for (const id of ["actions", "reasons", "retry-form", "late", "next", "answer"]) byId(id).hidden = true;
}
