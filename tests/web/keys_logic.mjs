import assert from "node:assert";
import { KEYS, Keyboard } from "./keys.js";

// Presses keys one after another, 100 ms apart, and returns what came of each.
function press(keys, { busy = false, apart = 100, ...held } = {}) {
  const keyboard = new Keyboard();
  return keys.map((key, at) => keyboard.press({ key, ...held }, busy, at * apart));
}

for (const [keys, action] of KEYS) {
  const pressed = keys.split(" ");
  const told = press(pressed);
  assert.equal(told.at(-1), action, keys);
  assert.ok(told.slice(0, -1).every((one) => one === null), keys);
  assert.ok(press(pressed, { busy: true }).every((one) => one === null), `${keys} while somebody types`);
  for (const held of ["ctrlKey", "altKey", "metaKey", "isComposing", "repeat"]) {
    assert.ok(press(pressed, { [held]: true }).every((one) => one === null), `${keys} with ${held}`);
  }
}

// Some keyboards have "/" and "?" only with Shift.
assert.deepEqual(press(["/"], { shiftKey: true }), ["search"]);
// A pair is pressed in one go, and a key of it alone is nothing.
assert.deepEqual(press(["g", "h"], { apart: 2000 }), [null, null]);
assert.deepEqual(press(["h"]), [null]);
assert.deepEqual(press(["g", "x", "h"]), [null, null, null]);
assert.deepEqual(press(["g", "h", "h"]), [null, "grid", null]);
// "a" is the activity, but not as the second of a pair.
assert.deepEqual(press(["g", "a", "a"]), [null, null, "activity"]);
for (const key of ["Enter", "Escape", "Tab", " ", "Dead", "A", "toString", "constructor"]) {
  assert.deepEqual(press([key]), [null], key);
}

// What is typed between the two undoes the first.
const keyboard = new Keyboard();
keyboard.press({ key: "g" }, false, 0);
keyboard.press({ key: "x" }, true, 10);
assert.equal(keyboard.press({ key: "h" }, false, 20), null);
console.log("checked");
