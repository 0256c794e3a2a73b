// What happens, as it happens, for all that the page shows. The stream itself belongs to the whole browser
// (stream.js). A page that nobody looks at takes its leave, and goes on from where it was: nothing is missed,
// and a dozen forgotten tabs ask provd for nothing.

import { showStream } from "./chip.js";
import { Hub } from "./stream.js";

const followers = [];
let last = Number(document.body.dataset.after);
let lost = false;

// Calls `onActivity` with each activity, `onReturn` when the stream was lost and is back, and `onProgress`
// with each download that moved; with null when the stream begins, for it tells then what is still going on.
// To be called while the page's modules are run: nothing is told before the last of them is done.
export function follow(onActivity, onReturn = () => {}, onProgress = () => {}) {
  followers.push({ onActivity, onReturn, onProgress });
}

// What one of them stumbles over is no reason to keep it from the others.
function each(work) {
  for (const follower of followers) {
    try {
      work(follower);
    } catch (error) {
      reportError(error);
    }
  }
}

const TOLD = {
  activity({ id, activity }) {
    if (id <= last) return;
    last = id;
    each(({ onActivity }) => onActivity(activity));
  },
  begin: () => each(({ onProgress }) => onProgress(null)),
  progress: ({ download }) => each(({ onProgress }) => onProgress(download)),
  state({ state, contact }) {
    showStream(state, contact);
    if (state === "lost" || state === "out") lost = true;
    if (state !== "live" || !lost) return;
    lost = false;
    each(({ onReturn }) => onReturn());
  },
  reset({ newest }) {
    last = newest;
    location.reload();
  },
};

const hear = (message) => TOLD[message.tell](message);

let say = () => {};

function speakToHub() {
  const hub = new Hub();
  const page = { postMessage: hear };
  addEventListener("online", () => hub.hurry());
  say = (message) => hub.hear(page, message);
}

function speakToWorker() {
  // Another version of provd has another worker.
  const name = `provd ${document.body.dataset.assets}`;
  const worker = new SharedWorker("/static/stream-worker.js", { type: "module", name });
  worker.port.onmessage = ({ data }) => hear(data);
  worker.addEventListener("error", () => {
    worker.port.close();
    speakToHub();
    sayWhetherSeen();
  });
  say = (message) => worker.port.postMessage(message);
}

function sayWhetherSeen() {
  say(document.hidden ? { say: "goodbye" } : { say: "hello", after: last });
}

document.addEventListener("DOMContentLoaded", () => {
  try {
    speakToWorker();
  } catch {
    speakToHub();
  }
  sayWhetherSeen();
  document.addEventListener("visibilitychange", sayWhetherSeen);
  addEventListener("pagehide", () => say({ say: "goodbye" }));
  addEventListener("pageshow", (event) => event.persisted && sayWhetherSeen());
});

// Makes of many calls few: runs `work` soon, never twice at once, and once more if it was asked for meanwhile.
export function coalesced(work) {
  let due = false;
  let running = false;
  async function run() {
    if (running) return;
    running = true;
    while (due) {
      await new Promise((resolve) => setTimeout(resolve, 150));
      due = false;
      // The next event, or the stream's return, asks again.
      await work().catch((problem) => console.warn(problem));
    }
    running = false;
  }
  return () => {
    due = true;
    run();
  };
}
