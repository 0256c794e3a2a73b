// Lines of a log: which are new, which are shown, how they are named and written. Pure.

export const BLOCK = 100;
export const LEVELS = ["info", "warning", "error"];

export const shows = (least, level) => LEVELS.indexOf(level) >= LEVELS.indexOf(least);

// Those after `newest`, each once, in their order: what a stream, a reconnection and a cursor tell may overlap.
export function fresh(lines, newest) {
  const byId = new Map(lines.filter(({ id }) => id > newest).map((line) => [line.id, line]));
  return [...byId.values()].sort((a, b) => a.id - b.id);
}

export function* chunks(lines, size) {
  for (let at = 0; at < lines.length; at += size) yield lines.slice(at, at + size);
}

// The lines that a fragment names, "#L3" or "#L3-L9"; null for any other.
export function parseMark(hash) {
  const found = /^#L([1-9]\d{0,14})(?:-L([1-9]\d{0,14}))?$/.exec(hash);
  if (!found) return null;
  const one = Number(found[1]);
  const other = Number(found[2] ?? found[1]);
  return { first: Math.min(one, other), last: Math.max(one, other) };
}

export const nameMark = ({ first, last }) => (first === last ? `#L${first}` : `#L${first}-L${last}`);

const two = (number) => String(number).padStart(2, "0");

export const clockTime = (date) => `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;

export function elapsedTime(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  return `+${Math.floor(seconds / 3600)}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
}

// What somebody who listens is told of lines that have come: of thousands, what matters.
export function announcement(lines) {
  const said = lines.filter(({ level, before, after }) => level !== "info" || before !== after);
  if (!said.length) return "";
  const last = said.findLast(({ level }) => level !== "info") ?? said.at(-1);
  const more = said.length > 1 ? ` (and ${said.length - 1} more)` : "";
  return `${last.level === "info" ? "" : `${last.level}: `}${last.message}${more}`;
}
