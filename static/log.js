// The log of one operation: real elements, so that the browser can find, select, copy and print them. They
// stand in blocks that are not laid out while they are out of sight, and are made a slice at a time.
// What changes the elements waits in one queue: lines that arrive, older ones, and a cursor that catches up.

import { get } from "./api.js";
import { afterScroll, atEnd, onArrival, pillWords } from "./follow.js";
import { BLOCK, LEVELS, chunks, clockTime, elapsedTime, fresh, shows } from "./lines.js";
import { blank, byId, setText } from "./view.js";

const PAGE = 1000;
const SLICE = 50;
const SOON = 30;

const breathe = () => globalThis.scheduler?.yield?.() ?? new Promise((resolve) => setTimeout(resolve));
const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
const idOf = (row) => Number(row.id.slice(1));

export class Log {
  // `onChange` hears when more lines have been loaded, have come, or are shown.
  constructor(operation, onChange) {
    this.operation = operation;
    this.onChange = onChange;
    this.pane = byId("log");
    this.blocks = byId("blocks");
    this.started = Date.parse(this.pane.dataset.started);
    this.first = Number(this.pane.dataset.first);
    this.total = Number(this.pane.dataset.count);
    this.counts = Object.fromEntries(LEVELS.map((level) => [level, 0]));
    const rows = this.rows();
    for (const row of rows) this.counts[row.dataset.level] += 1;
    this.oldest = rows.length ? idOf(rows[0]) : 0;
    this.newest = rows.length ? idOf(rows.at(-1)) : 0;
    this.mark = null;
    this.sinceStart = false;
    this.following = true;
    this.missed = 0;
    this.arrived = [];
    this.tail = Promise.resolve();
    this.dragging = false;
    this.watch();
  }

  get complete() {
    return this.oldest <= this.first;
  }

  get loaded() {
    return LEVELS.reduce((sum, level) => sum + this.counts[level], 0);
  }

  get shown() {
    return LEVELS.reduce((sum, level) => sum + (shows(this.pane.dataset.show, level) ? this.counts[level] : 0), 0);
  }

  rows() {
    return [...this.blocks.getElementsByTagName("li")];
  }

  // --- where the reader is ---

  watch() {
    const { pane } = this;
    pane.addEventListener("scroll", () => this.look(), { passive: true });
    for (const name of ["pointerdown", "touchstart"]) {
      pane.addEventListener(name, () => (this.dragging = true), { passive: true });
    }
    for (const name of ["pointerup", "touchend", "touchcancel"]) {
      addEventListener(name, ({ touches }) => !touches?.length && this.letGo(), { passive: true });
    }
    // A touch that scrolls is told as a cancelled pointer, and goes on.
    addEventListener("pointercancel", ({ pointerType }) => pointerType !== "touch" && this.letGo());
    document.addEventListener("selectionchange", () => this.resume());
    this.before = this.geometry();
    const sizes = new ResizeObserver(() => this.following && !this.held && this.toEnd());
    for (const element of [pane, this.blocks]) sizes.observe(element);
    new IntersectionObserver((seen) => seen.at(-1).isIntersecting && this.fill(), { root: pane }).observe(byId("edge"));
  }

  geometry() {
    const { scrollTop: top, scrollHeight: height, clientHeight: view } = this.pane;
    return { top, height, view };
  }

  look() {
    const now = this.geometry();
    this.following = afterScroll(this.following, this.before, now);
    this.before = now;
    if (this.following && atEnd(now)) this.miss(0);
  }

  // Whether the reader must not be moved.
  get held() {
    const selection = getSelection();
    const selects = !selection.isCollapsed && [selection.anchorNode, selection.focusNode].some((node) => this.pane.contains(node));
    return this.dragging || selects;
  }

  letGo() {
    this.dragging = false;
    this.look();
    this.resume();
  }

  resume() {
    if (this.missed && this.following && !this.held) this.toEnd();
  }

  toEnd() {
    this.pane.scrollTop = this.pane.scrollHeight;
    this.before = this.geometry();
    this.miss(0);
  }

  jump() {
    getSelection().removeAllRanges();
    this.following = true;
    this.toEnd();
    this.pane.focus();
  }

  miss(count) {
    this.missed = count;
    const pill = byId("pill");
    pill.hidden = !count;
    setText(pill, pillWords(count));
  }

  // --- what changes the elements, one after the other ---

  queue(work) {
    const done = this.tail.then(work);
    this.tail = done.catch((problem) => console.warn(problem));
    return done;
  }

  add(line) {
    if (!this.arrived.length) setTimeout(() => this.queue(() => this.append(this.arrived.splice(0))), SOON);
    this.arrived.push(line);
  }

  // All that came since the newest line: the stream may have been away.
  catchUp() {
    return this.queue(async () => {
      let lines;
      do {
        ({ activity: lines } = await get(`/api/activity?operation_id=${this.operation}&after=${this.newest}&limit=${PAGE}`));
        await this.append(lines);
      } while (lines.length === PAGE);
    });
  }

  async append(lines) {
    for (const slice of chunks(fresh(lines, this.newest), SLICE)) {
      this.look();
      for (const line of slice) this.openBlock().append(this.make(line));
      this.newest = slice.at(-1).id;
      if (!this.oldest) this.first = this.oldest = slice[0].id;
      this.total += slice.length;
      const come = slice.filter(({ level }) => shows(this.pane.dataset.show, level)).length;
      const { scroll, missed } = onArrival(this, this.missed, come);
      if (scroll) this.toEnd();
      else this.miss(missed);
      this.onChange();
      await breathe();
    }
  }

  // The last block; a full one may be left out of the layout from then on.
  openBlock() {
    let block = this.blocks.lastElementChild;
    if (!block || block.childElementCount >= BLOCK) {
      if (block) block.dataset.full = "";
      block = document.createElement("ol");
      block.className = "block";
      this.blocks.append(block);
    }
    return block;
  }

  async loadOlder() {
    const { activity } = await get(`/api/activity?operation_id=${this.operation}&before=${this.oldest}&limit=${PAGE}`);
    const lines = activity.reverse();
    const made = [];
    for (const slice of chunks(lines, BLOCK)) {
      const block = document.createElement("ol");
      block.className = "block";
      block.dataset.full = "";
      for (const line of slice) block.append(this.make(line));
      made.push(block);
      await breathe();
    }
    this.look();
    const below = this.blocks.firstElementChild;
    const top = below?.getBoundingClientRect().top;
    this.blocks.prepend(...made);
    if (below) this.pane.scrollTop += below.getBoundingClientRect().top - top;
    this.before = this.geometry();
    this.oldest = lines[0]?.id ?? this.first;
    this.showEdge();
    this.onChange();
    await breathe();
  }

  loadUntil(first) {
    return this.queue(async () => {
      while (!this.complete && this.oldest > first) await this.loadOlder();
    });
  }

  loadAll() {
    return this.loadUntil(this.first);
  }

  // Older lines as long as the reader can see where they belong.
  fill() {
    if (this.filling || this.complete) return;
    this.filling = true;
    this.queue(async () => {
      const edge = () => byId("edge").getBoundingClientRect().bottom > this.pane.getBoundingClientRect().top;
      try {
        while (!this.complete && edge()) await this.loadOlder();
      } finally {
        this.filling = false;
      }
    }).catch(() => setText(byId("edge"), "Older lines could not be loaded: scroll up again"));
  }

  showEdge() {
    byId("edge").hidden = this.complete;
    setText(byId("edge"), "Older lines are being loaded…");
  }

  // --- rows ---

  make(line) {
    const row = blank("blank-row");
    const [number, time, message] = row.children;
    row.id = `L${line.id}`;
    row.dataset.level = line.level;
    number.href = `#L${line.id}`;
    number.textContent = line.id;
    time.dateTime = line.at;
    time.textContent = this.timeOf(line.at);
    message.textContent = line.message;
    if (line.level !== "info") {
      const level = document.createElement("strong");
      level.textContent = line.level;
      message.prepend(level, " ");
    }
    this.markRow(row);
    this.counts[line.level] += 1;
    return row;
  }

  timeOf(at) {
    return this.sinceStart ? elapsedTime(Date.parse(at) - this.started) : clockTime(new Date(at));
  }

  showTimes(sinceStart) {
    this.sinceStart = sinceStart;
    return this.queue(async () => {
      for (const block of [...this.blocks.children].reverse()) {
        for (const time of block.getElementsByTagName("time")) setText(time, this.timeOf(time.dateTime));
        await breathe();
      }
    });
  }

  // What is shown, as text.
  text() {
    return this.rows()
      .filter((row) => shows(this.pane.dataset.show, row.dataset.level))
      .map((row) => `${row.children[1].dateTime}  ${row.lastElementChild.textContent}\n`)
      .join("");
  }

  // --- marked lines ---

  markRow(row) {
    const id = idOf(row);
    row.toggleAttribute("data-marked", this.mark !== null && this.mark.first <= id && id <= this.mark.last);
  }

  setMark(mark) {
    for (const row of this.blocks.querySelectorAll("[data-marked]")) row.removeAttribute("data-marked");
    this.mark = mark;
    if (!mark) return;
    for (const row of this.rows()) if (idOf(row) >= mark.first) this.markRow(row);
  }

  // Marks lines and goes there once, however far back they are. False: they are not in this log.
  async reveal(mark) {
    if (mark.first < this.first) return false;
    this.following = false;
    this.setMark(mark);
    await this.loadUntil(mark.first);
    const row = document.getElementById(`L${mark.first}`);
    if (!row) return false;
    this.center(row);
    // Blocks that come into sight get their real height.
    await frame();
    await frame();
    if (this.before.top === this.pane.scrollTop) this.center(row);
    this.pane.scrollIntoView({ block: "nearest" });
    return true;
  }

  center(row) {
    const { pane } = this;
    const seen = pane.getBoundingClientRect();
    pane.scrollTop += row.getBoundingClientRect().top - seen.top - pane.clientHeight / 2;
    this.before = this.geometry();
    this.following = false;
  }
}
