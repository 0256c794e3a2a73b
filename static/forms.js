// Dialogs and forms: what is sent goes through the API, what is refused is said beside the buttons.

import { Problem } from "./api.js";
import { byId, part, setText } from "./view.js";

// Buttons with data-opens open that dialog, those with data-closes close theirs. <dialog> keeps the focus.
let wired = false;

export function wireDialogs() {
  if (wired) return;
  wired = true;
  document.addEventListener("click", ({ target }) => {
    const opener = target.closest("[data-opens]");
    if (opener) openDialog(byId(opener.dataset.opens));
    else if (target.closest("[data-closes]")) target.closest("dialog").close();
    // Before the button's own listeners: they find the form as it is when the dialog opens.
  }, true);
  // This event does not bubble.
  document.addEventListener("cancel", (event) => {
    if (event.target.querySelector("form[aria-busy=true]")) event.preventDefault();
  }, true);
}

export function openDialog(dialog) {
  if (dialog.open) return;
  const form = dialog.querySelector("form");
  form?.reset();
  if (form) say(form, "");
  dialog.showModal();
}

// Runs `action` with the form's fields when it is sent, and shows the problem if there is one.
export function wireForm(form, action) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (form.getAttribute("aria-busy") === "true") return;
    say(form, "");
    setBusy(form, true);
    const fields = Object.fromEntries(new FormData(form));
    try {
      await action(fields);
    } catch (problem) {
      if (!(problem instanceof Problem)) console.error(problem);
      refuse(form, problem);
    } finally {
      setBusy(form, false);
      for (const secret of form.querySelectorAll("input[type=password]")) secret.value = "";
    }
  });
}

function setBusy(form, busy) {
  form.setAttribute("aria-busy", String(busy));
  for (const button of form.querySelectorAll("button")) button.disabled = busy || "blocked" in button.dataset;
  const progress = part(form, "busy");
  if (progress) progress.hidden = !busy;
}

function refuse(form, problem) {
  say(form, problem instanceof Problem ? problem.message : "This page met an error of its own. Load it again.");
  const culprit = [...form.elements].find(
    ({ name }) => name && problem.field && (name === problem.field || name.endsWith(`.${problem.field}`)),
  );
  if (!culprit) return;
  const folded = culprit.closest("details");
  if (folded) folded.open = true;
  culprit.setAttribute("aria-invalid", "true");
  culprit.focus();
}

function say(form, words) {
  const alert = part(form, "alert");
  alert.hidden = !words;
  setText(alert, words);
  if (!words) for (const field of form.elements) field.removeAttribute("aria-invalid");
}
