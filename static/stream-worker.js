// The shared worker: however many pages a browser shows, provd has one reader.

import { Hub } from "./stream.js";

const hub = new Hub();

addEventListener("connect", ({ ports: [port] }) => {
  port.addEventListener("message", ({ data }) => hub.hear(port, data));
  // A page that crashed says no goodbye; browsers begin to tell.
  port.addEventListener("close", () => hub.leave(port));
  port.start();
});
addEventListener("online", () => hub.hurry());
