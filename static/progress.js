// How far a machine's downloads are: a bar for each file, at the end of whatever shows the machine.

import { duration, setText } from "./clock.js";

function makeBar(name) {
  const bar = document.createElement("div");
  bar.className = "download";
  bar.dataset.name = name;
  bar.append(document.createElement("p"), document.createElement("progress"));
  return bar;
}

const size = (octets) => octets >= 1e9 ? `${(octets / 1e9).toFixed(2)} GB` : `${(octets / 1e6).toFixed(1)} MB`;

// Puts a download into `root`, or takes it away when it is over.
export function showDownload(root, { name, sent, total, rate, eta, running }) {
  let bar = [...root.querySelectorAll(":scope > .download")].find((one) => one.dataset.name === name);
  if (!running) return void bar?.remove();
  if (!bar) {
    bar = makeBar(name);
    root.append(bar);
  }
  const percent = total ? Math.floor((100 * sent) / total) : 0;
  const words = [`${name}: ${percent} % of ${size(total)}`, `${size(rate)}/s`];
  if (eta !== null) words.push(`${duration(1000 * eta)} left`);
  setText(bar.querySelector("p"), words.join(" · "));
  const progress = bar.querySelector("progress");
  progress.setAttribute("aria-label", name);
  progress.max = total || 1;
  progress.value = sent;
}

export function forgetDownloads(root) {
  for (const bar of root.querySelectorAll(".download")) bar.remove();
}
