// Dialogs and forms: what is sent goes through the API, what is refused is said beside the buttons.

import { Problem } from "./api.js";
import { byId, part, setText } from "./view.js";

// Buttons with data-opens open that dialog, those with data-closes close theirs. <dialog> keeps the focus.
export function wireDialogs() {
  for (const button of document.querySelectorAll("[data-opens]")) {
    button.addEventListener("click", () => openDialog(byId(button.dataset.opens)));
  }
  for (const dialog of document.querySelectorAll("dialog")) {
    for (const button of dialog.querySelectorAll("[data-closes]")) {
      button.addEventListener("click", () => dialog.close());
    }
    dialog.addEventListener("cancel", (event) => {
      if (dialog.querySelector("form[aria-busy=true]")) event.preventDefault();
    });
  }
}

export function openDialog(dialog) {
  if (dialog.open) return;
  const form = dialog.querySelector("form");
  form.reset();
  say(form, "");
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
