// Which keys do what. Nothing of a page is known here: an event and what is in the way go in, an action comes out.

// One key, or one after another. What each does stands beside it in the help (help.html).
export const KEYS = new Map([
  ["/", "search"],
  ["?", "help"],
  ["a", "activity"],
  ["g h", "grid"],
  ["g c", "cluster"],
  ["g i", "images"],
  ["g d", "doctor"],
]);

// Between the two keys of a pair, in milliseconds.
const PATIENCE = 1500;

const FIRST = new Set([...KEYS.keys()].filter((keys) => keys.includes(" ")).map((keys) => keys[0]));

export class Keyboard {
  #first = "";
  #until = 0;

  // The action for a key pressed at `at` (milliseconds), or null. `busy`: somebody types, or a dialog is open.
  press({ key, ctrlKey, altKey, metaKey, isComposing, repeat }, busy, at) {
    const first = at < this.#until ? this.#first : "";
    this.#first = "";
    this.#until = 0;
    if (busy || ctrlKey || altKey || metaKey || isComposing || repeat) return null;
    if (first) return KEYS.get(`${first} ${key}`) ?? null;
    if (FIRST.has(key)) {
      this.#first = key;
      this.#until = at + PATIENCE;
      return null;
    }
    return KEYS.get(key) ?? null;
  }
}
