// One event stream for all pages of a browser. Nothing of a page is known here: it runs in the shared worker,
// and where there is none, in the page itself.
//
// A page says  hello {after}    from now on it wants what is newer than `after`, each id once
//              goodbye          it is hidden, or left
// and is told  activity {id, activity}
//              begin            what was told of downloads is void; how they stand comes next
//              progress {download}
//              state {state, contact}   "opening", "live", "lost" or "out" (signed out); when provd was heard last
//              reset {newest}   load the page again

// As HEARTBEAT_SECONDS in provd/web/stream.py.
export const BEAT = 10_000;
// A connection can die without a word, and then only the missing beats tell.
const SILENCE = 2.5 * BEAT;
const FIRST_WAIT = 1000;
const LONGEST_WAIT = 10_000;
const ASKING = 5000;
// Lines, for pages that come later. Whoever lacks more makes the stream begin anew where that page was.
const KEPT = 500;

export class Hub {
  #ports = new Map();
  #kept = [];
  #floor = 0;
  #newest = 0;
  #downloads = new Map();
  #source = null;
  #state = "closed";
  #contact = 0;
  #wait = FIRST_WAIT;
  #again = 0;
  #silence = 0;

  // `port` has postMessage(), and is the same for all that one page says.
  hear(port, { say, after }) {
    if (say === "hello") this.#join(port, Number(after) || 0);
    else this.leave(port);
  }

  leave(port) {
    if (this.#ports.delete(port) && this.#ports.size === 0) this.#close();
  }

  // The network is back: try now and not later.
  hurry() {
    if (this.#ports.size > 0 && this.#state !== "live") this.#open();
  }

  #join(port, after) {
    this.#ports.set(port, after);
    if (this.#state === "closed" || after < this.#floor) this.#openAfter(after);
    else {
      for (const { id, activity } of this.#kept) this.#give(port, id, activity);
      if (!this.#source) this.#open();
    }
    port.postMessage({ tell: "begin" });
    for (const download of this.#downloads.values()) port.postMessage({ tell: "progress", download });
    port.postMessage(this.#how());
  }

  #give(port, id, activity) {
    if (id <= this.#ports.get(port)) return;
    this.#ports.set(port, id);
    port.postMessage({ tell: "activity", id, activity });
  }

  #tell(message) {
    for (const port of this.#ports.keys()) port.postMessage(message);
  }

  #how() {
    return { tell: "state", state: this.#state, contact: this.#contact };
  }

  #become(state) {
    if (this.#state === state) return;
    this.#state = state;
    this.#tell(this.#how());
  }

  #openAfter(id) {
    this.#kept = [];
    this.#floor = this.#newest = id;
    if (this.#state === "closed") {
      this.#state = "opening";
      this.#contact = Date.now();
    }
    this.#open();
  }

  #open() {
    clearTimeout(this.#again);
    this.#source?.close();
    const source = new EventSource(`/events?after=${this.#newest}`);
    this.#source = source;
    this.#listen();
    source.addEventListener("open", () => this.#opened());
    source.addEventListener("activity", (event) => this.#heard(Number(event.lastEventId), JSON.parse(event.data)));
    source.addEventListener("progress", (event) => this.#moved(JSON.parse(event.data)));
    source.addEventListener("beat", () => this.#touch());
    source.addEventListener("reset", (event) => this.#reset(Number(event.lastEventId)));
    source.addEventListener("error", () => this.#missed(source));
  }

  #close() {
    clearTimeout(this.#again);
    clearTimeout(this.#silence);
    this.#source?.close();
    this.#source = null;
    this.#state = "closed";
    this.#wait = FIRST_WAIT;
    this.#downloads.clear();
  }

  #touch() {
    this.#contact = Date.now();
    this.#listen();
  }

  #listen() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => {
      this.#become("lost");
      this.#open();
    }, SILENCE);
  }

  #opened() {
    this.#touch();
    this.#wait = FIRST_WAIT;
    this.#downloads.clear();
    this.#tell({ tell: "begin" });
    this.#become("live");
  }

  #heard(id, activity) {
    this.#touch();
    this.#newest = id;
    this.#kept.push({ id, activity });
    if (this.#kept.length > KEPT) this.#floor = this.#kept.shift().id;
    for (const port of this.#ports.keys()) this.#give(port, id, activity);
  }

  #moved(download) {
    this.#touch();
    const key = `${download.host_id} ${download.name}`;
    if (download.running) this.#downloads.set(key, download);
    else this.#downloads.delete(key);
    this.#tell({ tell: "progress", download });
  }

  #reset(newest) {
    this.#touch();
    this.#kept = [];
    this.#floor = this.#newest = newest;
    for (const port of this.#ports.keys()) this.#ports.set(port, newest);
    this.#tell({ tell: "reset", newest });
  }

  async #missed(source) {
    // Until this moment nothing was missed.
    if (this.#state === "live") this.#contact = Date.now();
    this.#become("lost");
    this.#listen();
    // The browser tries again by itself, from the id that it saw last, unless it was refused.
    if (source.readyState !== EventSource.CLOSED) return;
    this.#source = null;
    clearTimeout(this.#silence);
    const out = await isSignedOut();
    if (this.#source || this.#state !== "lost") return;
    if (out) {
      this.#become("out");
      return;
    }
    clearTimeout(this.#again);
    this.#again = setTimeout(() => this.#open(), this.#wait);
    this.#wait = Math.min(2 * this.#wait, LONGEST_WAIT);
  }
}

async function isSignedOut() {
  try {
    const answer = await fetch("/api/operations?limit=1", { cache: "no-store", signal: AbortSignal.timeout(ASKING) });
    return answer.status === 401;
  } catch {
    return false;
  }
}
