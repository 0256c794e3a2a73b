// Light, dark, or as the system says. The server reads the cookie and draws the page so; nothing flashes.

import { byId } from "./view.js";

const YEAR = 31_536_000;

const chosen = () => /(?:^|; )theme=(light|dark)(?:;|$)/.exec(document.cookie)?.[1] ?? "";

function show(theme) {
  document.documentElement.dataset.theme = theme;
  document.querySelector("meta[name=color-scheme]").content = theme || "light dark";
  byId("theme").value = theme;
}

function keep(theme) {
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `theme=${theme}; Path=/; SameSite=Strict; Max-Age=${theme ? YEAR : 0}${secure}`;
}

export function wireTheme() {
  const others = new BroadcastChannel("theme");
  others.addEventListener("message", () => show(chosen()));
  byId("theme").addEventListener("change", () => {
    keep(byId("theme").value);
    show(chosen());
    others.postMessage("changed");
  });
  // Back from the browser's cache of pages, which hear nothing meanwhile.
  addEventListener("pageshow", (event) => event.persisted && show(chosen()));
}
