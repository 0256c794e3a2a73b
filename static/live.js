// The page's one event stream. It is closed while nobody looks at the page, because a browser opens only
// six connections to one server over HTTP/1.1, and it goes on from where it was: nothing is missed.

import { Problem, get } from "./api.js";
import { byId } from "./view.js";

const LONGEST_WAIT = 30_000;

let last = document.body.dataset.after;
let source = null;
let timer = 0;
let wait = 1000;
let lost = false;

function show(state, words) {
  byId("live").dataset.live = state;
  byId("live").textContent = words;
}

// Calls `onActivity` with each activity, `onReturn` when the stream was lost and is back, and `onProgress`
// with each download that moved; with null when the stream begins, for it tells then what is still going on.
export function follow(onActivity, onReturn, onProgress = () => {}) {
  function open() {
    close();
    source = new EventSource(`/events?after=${encodeURIComponent(last)}`);
    source.addEventListener("open", () => {
      wait = 1000;
      byId("stream-lost").hidden = true;
      show("on", "live");
      onProgress(null);
      if (lost) onReturn();
      lost = false;
    });
    source.addEventListener("activity", (event) => {
      last = event.lastEventId;
      onActivity(JSON.parse(event.data));
    });
    source.addEventListener("progress", (event) => onProgress(JSON.parse(event.data)));
    source.addEventListener("reset", () => location.reload());
    source.addEventListener("error", missed);
  }

  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  async function missed() {
    lost = true;
    byId("stream-lost").hidden = false;
    show("lost", "reconnecting…");
    // The browser tries again by itself unless it was refused.
    if (source?.readyState !== EventSource.CLOSED) return;
    close();
    if (await isSignedOut()) {
      byId("stream-lost").hidden = true;
      byId("signed-out").hidden = false;
      show("lost", "signed out");
      return;
    }
    timer = setTimeout(open, wait);
    wait = Math.min(2 * wait, LONGEST_WAIT);
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && open());
  addEventListener("online", open);
  if (!document.hidden) open();
}

async function isSignedOut() {
  try {
    await get("/api/operations?limit=1");
    return false;
  } catch (problem) {
    return problem instanceof Problem && problem.status === 401;
  }
}

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
