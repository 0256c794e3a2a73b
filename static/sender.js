// Sends one file in chunks. A chunk that is lost is sent again; where the server stands, it says.

const SMOOTHING = 3000;
const LONGEST_WAIT = 15_000;
// A connection that is lost comes back; these do not.
const FINAL = new Set([400, 401, 403, 404, 413, 415, 422]);

const sleep = (milliseconds, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, milliseconds);
  signal.addEventListener("abort", () => (clearTimeout(timer), resolve()));
});

export class Sender {
  // `onChange` hears of the upload after each chunk, and when sending stops.
  constructor(upload, file, onChange) {
    this.upload = upload;
    this.file = file;
    this.onChange = onChange;
    this.offset = upload.offset;
    this.rate = 0;
    this.trouble = "";
    this.problem = "";
    this.abort = null;
  }

  get sending() {
    return this.abort !== null;
  }

  get left() {
    return this.rate >= 1 ? (this.upload.size - this.offset) / this.rate : null;
  }

  pause() {
    this.abort?.abort();
  }

  async start() {
    if (this.sending) return;
    this.abort = new AbortController();
    this.problem = "";
    this.rate = 0;
    const { signal } = this.abort;
    let after = {};
    let wait = 1000;
    while (!signal.aborted && !after.complete && !this.problem) {
      try {
        after = await this.next(signal);
        wait = 1000;
        this.trouble = "";
        this.onChange(after);
      } catch (error) {
        if (signal.aborted) break;
        console.warn(error);
        this.trouble = "waiting for provd";
        this.rate = 0;
        this.onChange({});
        await sleep(wait, signal);
        wait = Math.min(2 * wait, LONGEST_WAIT);
      }
    }
    this.abort = null;
    this.trouble = "";
    this.onChange(after);
  }

  // Sends one chunk, and returns what changed of the upload.
  async next(signal) {
    const path = `/api/images/uploads/${this.upload.id}`;
    const chunk = this.file.slice(this.offset, this.offset + this.upload.largest_chunk);
    const started = performance.now();
    const headers = { "Content-Type": "application/offset+octet-stream", "Upload-Offset": String(this.offset) };
    const response = await fetch(path, { method: "PATCH", headers, body: chunk, signal, cache: "no-store" });
    const answer = await response.json().catch(() => ({}));
    if (response.status === 409 && Number.isInteger(answer.offset)) {
      this.offset = answer.offset;
      return this.offset === this.upload.size ? { offset: this.offset, complete: true } : { offset: this.offset };
    }
    if (FINAL.has(response.status)) {
      this.problem = response.status === 401 ? "You are signed out: load this page again to sign in." : answer.detail ?? `provd answered ${response.status}.`;
      return {};
    }
    // An answer that was cut off in the middle says nothing, whatever its status.
    if (!response.ok || !Number.isInteger(answer.offset)) throw new Error(answer.detail ?? `provd answered ${response.status}`);
    const took = Math.max(1, performance.now() - started);
    const weight = this.rate ? Math.exp(-took / SMOOTHING) : 0;
    this.rate = weight * this.rate + (1 - weight) * ((1000 * (answer.offset - this.offset)) / took);
    this.offset = answer.offset;
    return answer;
  }
}
