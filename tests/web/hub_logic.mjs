import assert from "node:assert";

// --- a world: a clock, provd's answers, and event sources that do what a test says ---

let clock = 1_000_000;
let timers = [];
let number = 0;
let signedIn = true;
let asked = 0;
const sources = [];

class EventSource extends EventTarget {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSED = 2;

  constructor(url) {
    super();
    this.after = Number(/^\/events\?after=(\d+)$/.exec(url)[1]);
    this.readyState = EventSource.CONNECTING;
    sources.push(this);
  }
  close() {
    this.readyState = EventSource.CLOSED;
  }
  tell(kind, data, lastEventId = "") {
    if (this.readyState === EventSource.CLOSED) return;
    this.dispatchEvent(Object.assign(new Event(kind), { data: JSON.stringify(data ?? {}), lastEventId: String(lastEventId) }));
  }
  open() {
    this.readyState = EventSource.OPEN;
    this.dispatchEvent(new Event("open"));
  }
  stumble() {
    this.readyState = EventSource.CONNECTING;
    this.dispatchEvent(new Event("error"));
  }
  refuse() {
    this.readyState = EventSource.CLOSED;
    this.dispatchEvent(new Event("error"));
  }
  happen(from, to = from) {
    for (let id = from; id <= to; id++) this.tell("activity", { id }, id);
  }
}

const now = () => sources.at(-1);
const open = () => sources.filter(({ readyState }) => readyState !== EventSource.CLOSED);
const settle = async () => { for (let turn = 0; turn < 20; turn++) await Promise.resolve(); };

async function pass(milliseconds) {
  const end = clock + milliseconds;
  for (;;) {
    const [next] = timers.filter(({ at }) => at <= end).sort((one, other) => one.at - other.at);
    if (!next) break;
    clock = next.at;
    timers = timers.filter((one) => one !== next);
    next.work();
    await settle();
  }
  clock = end;
}

Object.assign(globalThis, {
  EventSource,
  setTimeout: (work, wait) => (timers.push({ id: ++number, at: clock + wait, work }), number),
  clearTimeout: (id) => (timers = timers.filter((one) => one.id !== id)),
  fetch: async (path) => {
    asked += 1;
    assert.equal(path, "/api/operations?limit=1");
    return { status: signedIn ? 200 : 401 };
  },
});
Date.now = () => clock;

const { BEAT, Hub } = await import("./stream.js");

function world() {
  timers = [];
  sources.length = 0;
  signedIn = true;
  return new Hub();
}

class Page {
  constructor(hub, after) {
    this.told = [];
    this.hub = hub;
    hub.hear(this, { say: "hello", after });
  }
  postMessage(message) {
    this.told.push(structuredClone(message));
  }
  leave() {
    this.hub.hear(this, { say: "goodbye" });
  }
  come(after) {
    this.hub.hear(this, { say: "hello", after });
  }
  get ids() {
    return this.told.filter(({ tell }) => tell === "activity").map(({ id, activity }) => (assert.equal(activity.id, id), id));
  }
  get states() {
    return this.told.filter(({ tell }) => tell === "state").map(({ state }) => state);
  }
  get downloads() {
    return this.told.filter(({ tell }) => ["begin", "progress"].includes(tell)).map(({ tell, download }) => download?.name ?? tell);
  }
  count(kind) {
    return this.told.filter(({ tell }) => tell === kind).length;
  }
}

const range = (from, to) => Array.from({ length: to - from + 1 }, (_, at) => from + at);

const TESTS = {
  async "one connection for all pages, and each gets what is newer than it"() {
    const hub = world();
    const first = new Page(hub, 10);
    assert.deepEqual([sources.length, now().after], [1, 10]);
    now().open();
    now().happen(11, 13);
    const second = new Page(hub, 12);
    // Drawn by the server after a line that the worker has not heard yet.
    const third = new Page(hub, 15);
    now().happen(14, 17);
    assert.equal(sources.length, 1);
    assert.deepEqual(first.ids, range(11, 17));
    assert.deepEqual(second.ids, range(13, 17));
    assert.deepEqual(third.ids, [16, 17]);
    assert.deepEqual([first.states, second.states], [["opening", "live"], ["live"]]);
  },

  async "a page that lacks more makes the stream begin anew, and the others get nothing twice"() {
    const hub = world();
    const first = new Page(hub, 100);
    now().open();
    now().happen(101, 105);
    const old = new Page(hub, 42);
    assert.deepEqual([sources.length, open().length, now().after], [2, 1, 42]);
    assert.deepEqual(old.ids, []);
    now().open();
    now().happen(43, 107);
    assert.deepEqual(old.ids, range(43, 107));
    assert.deepEqual(first.ids, range(101, 107));
    assert.deepEqual(first.states, ["opening", "live"], "that was no trouble");
    // In the middle of catching up another one comes.
    const middle = new Page(hub, 60);
    assert.deepEqual([sources.length, middle.ids], [2, range(61, 107)]);
  },

  async "what is kept is bounded"() {
    const hub = world();
    const first = new Page(hub, 0);
    now().open();
    now().happen(1, 2000);
    assert.equal(first.ids.length, 2000);
    const near = new Page(hub, 1500);
    assert.deepEqual([sources.length, near.ids], [1, range(1501, 2000)]);
    new Page(hub, 1499);
    assert.deepEqual([sources.length, now().after], [2, 1499]);
  },

  async "without a page there is no connection, and a page comes back where it was"() {
    const hub = world();
    const page = new Page(hub, 5);
    const other = new Page(hub, 5);
    now().open();
    now().happen(6);
    page.leave();
    assert.equal(open().length, 1);
    now().happen(7);
    other.leave();
    other.leave();
    assert.deepEqual([open().length, timers.length], [0, 0]);
    page.come(6);
    assert.deepEqual([open().length, now().after], [1, 6]);
    now().open();
    now().happen(7, 8);
    assert.deepEqual(page.ids, [6, 7, 8]);
    assert.deepEqual(other.ids, [6, 7]);
    assert.deepEqual(page.states, ["opening", "live", "opening", "live"]);
  },

  async "the browser's own return is left to it"() {
    const hub = world();
    const page = new Page(hub, 5);
    now().open();
    now().happen(6);
    await pass(7000);
    now().stumble();
    await settle();
    const lost = page.told.at(-1);
    assert.deepEqual(lost, { tell: "state", state: "lost", contact: clock }, "until now nothing was missed");
    await pass(2000);
    now().stumble();
    await settle();
    now().open();
    now().happen(7);
    assert.equal(sources.length, 1);
    assert.deepEqual(page.states, ["opening", "live", "lost", "live"]);
    assert.deepEqual(page.ids, [6, 7]);
  },

  async "a refusal is tried again, ever more slowly, from the newest id"() {
    const hub = world();
    const page = new Page(hub, 5);
    now().open();
    now().happen(6, 9);
    const at = [];
    for (let turn = 0; turn < 6; turn++) {
      const before = sources.length;
      now().refuse();
      await settle();
      const began = clock;
      while (sources.length === before) await pass(100);
      at.push(clock - began);
      assert.equal(now().after, 9);
    }
    assert.deepEqual(at, [1000, 2000, 4000, 8000, 10_000, 10_000]);
    now().open();
    now().refuse();
    await settle();
    await pass(1000);
    assert.equal(open().length, 1, "success makes it quick again");
    now().open();
    now().happen(10);
    assert.deepEqual(page.ids, range(6, 10));
  },

  async "who is signed out is told, and is not knocked at any more; the next page tries again"() {
    const hub = world();
    const page = new Page(hub, 5);
    now().open();
    now().happen(6);
    signedIn = false;
    now().refuse();
    await settle();
    await pass(600_000);
    assert.deepEqual([page.states.at(-1), sources.length, timers.length], ["out", 1, 0]);
    signedIn = true;
    const after = new Page(hub, 6);
    assert.deepEqual([sources.length, now().after], [2, 6]);
    now().open();
    now().happen(7);
    assert.deepEqual([page.states.at(-1), after.states.at(-1)], ["live", "live"]);
    assert.deepEqual([page.ids, after.ids], [[6, 7], [7]]);
  },

  async "a connection that died without a word is noticed"() {
    const hub = world();
    const page = new Page(hub, 5);
    now().open();
    for (let beat = 0; beat < 5; beat++) {
      await pass(BEAT);
      now().tell("beat");
    }
    const contact = clock;
    await pass(2.5 * BEAT - 1);
    assert.deepEqual([sources.length, page.states.at(-1)], [1, "live"]);
    await pass(1);
    assert.deepEqual([sources.length, open().length], [2, 1]);
    assert.deepEqual(page.told.at(-1), { tell: "state", state: "lost", contact });
    // Neither does the next one answer.
    await pass(2.5 * BEAT);
    assert.deepEqual([sources.length, open().length], [3, 1]);
    now().open();
    assert.equal(page.states.at(-1), "live");
  },

  async "every frame is a sign of life"() {
    const hub = world();
    new Page(hub, 5);
    now().open();
    for (const [kind, data, id] of [["activity", { id: 6 }, 6], ["progress", { host_id: 1, name: "a", running: true }], ["beat"], ["reset", { newest: 9 }, 9]]) {
      await pass(2.4 * BEAT);
      now().tell(kind, data, id);
    }
    await pass(2.4 * BEAT);
    assert.equal(sources.length, 1);
  },

  async "when the network is back nobody waits"() {
    const hub = world();
    new Page(hub, 5);
    now().open();
    hub.hurry();
    assert.equal(sources.length, 1, "live already");
    now().refuse();
    await settle();
    hub.hurry();
    assert.deepEqual([sources.length, open().length], [2, 1]);
    await pass(1000);
    assert.equal(sources.length, 2, "the other try was given up");
  },

  async "a page that comes late is told how downloads stand"() {
    const hub = world();
    const moved = (name, running) => now().tell("progress", { host_id: 1, name, running });
    const page = new Page(hub, 5);
    now().open();
    moved("a", true);
    moved("b", true);
    moved("a", true);
    moved("a", false);
    assert.deepEqual(page.downloads, ["begin", "begin", "a", "b", "a", "a"]);
    assert.deepEqual(new Page(hub, 5).downloads, ["begin", "b"]);
    now().stumble();
    now().open();
    assert.deepEqual(new Page(hub, 5).downloads, ["begin"], "provd tells anew what still runs");
    assert.equal(page.downloads.at(-1), "begin");
  },

  async "a reset reaches all, and what comes after it too"() {
    const hub = world();
    const pages = [new Page(hub, 900), new Page(hub, 950)];
    now().open();
    now().happen(951, 960);
    now().tell("reset", { newest: 3 }, 3);
    for (const page of pages) assert.deepEqual(page.told.at(-1), { tell: "reset", newest: 3 });
    now().happen(4);
    for (const page of pages) assert.equal(page.ids.at(-1), 4, "a page that could not load again goes on");
    const again = new Page(hub, 3);
    assert.deepEqual([again.ids, sources.length], [[4], 1]);
  },

  async "an answer about signing in that comes late changes nothing"() {
    const hub = world();
    const page = new Page(hub, 5);
    now().open();
    signedIn = false;
    now().refuse();
    page.leave();
    await settle();
    assert.deepEqual([timers.length, page.states.at(-1)], [0, "lost"]);
    page.come(5);
    now().open();
    now().refuse();
    hub.hurry();
    await settle();
    assert.equal(page.states.at(-1), "lost", "not out: another try is under way");
    now().open();
    assert.equal(page.states.at(-1), "live");
  },
};

for (const [name, test] of Object.entries(TESTS)) {
  try {
    await test();
  } catch (error) {
    console.log(`failed: ${name}`);
    throw error;
  }
}
assert.ok(asked > 5);
console.log("checked");
