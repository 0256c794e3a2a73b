// The keys of keys.js on a page, and the switch that silences them (WCAG 2.2, 2.1.4): whoever speaks to their
// browser, or hits keys by mistake, must be able to.

import { openDialog } from "./forms.js";
import { Keyboard } from "./keys.js";
import { byId } from "./view.js";

const SILENCED = "keys-off";
const SEARCH = "search";

// Storage can be forbidden.
function silenced() {
  try {
    return localStorage.getItem(SILENCED) !== null;
  } catch {
    return false;
  }
}

function silence(off) {
  try {
    if (off) localStorage.setItem(SILENCED, "yes");
    else localStorage.removeItem(SILENCED);
  } catch (error) {
    console.warn(error);
  }
}

function isTyped(target) {
  return target.matches?.("input:not([type=checkbox], [type=radio], [type=button]), select, textarea") || target.isContentEditable;
}

function focusSearch() {
  const field = byId(SEARCH);
  field?.focus();
  field?.select?.();
  return Boolean(field);
}

// `toggleActivity` opens the drawer, or closes it.
export function wireShortcuts(toggleActivity) {
  const keyboard = new Keyboard();
  const actions = {
    search: () => focusSearch() || location.assign(`/#${SEARCH}`),
    help: () => openDialog(byId("help-dialog")),
    activity: toggleActivity,
    grid: () => location.assign("/"),
    cluster: () => location.assign("/cluster"),
    images: () => location.assign("/images"),
    doctor: () => location.assign("/doctor"),
  };

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || byId("keys-off").checked) return;
    const busy = isTyped(event.target) || document.querySelector("dialog[open]") !== null;
    const action = keyboard.press(event, busy, event.timeStamp);
    if (!action) return;
    event.preventDefault();
    actions[action]();
  });

  byId("keys-off").checked = silenced();
  byId("keys-off").addEventListener("change", () => silence(byId("keys-off").checked));
  addEventListener("storage", ({ key }) => {
    if (key === SILENCED) byId("keys-off").checked = silenced();
  });
  // The page's own module may still have to draw the field.
  document.addEventListener("DOMContentLoaded", () => location.hash === `#${SEARCH}` && focusSearch());
}
