// When a log follows its end. Pure: geometry and events in, decisions out.
//
// It follows while the reader is at its end, and only they change that: neither lines that arrive nor a
// layout that moves under them switches it on or off.

export const SLACK = 4;

export const atEnd = ({ top, height, view }) => height - top - view <= SLACK;

// Whether it follows after the pane was seen at `now`, with `before` the time before.
export function afterScroll(following, before, now) {
  if (now.top < before.top && !atEnd(now)) return false;
  if (now.top > before.top && atEnd(now)) return true;
  return following;
}

// What to do about lines that have come. A reader who selects or drags is not moved; what they miss is counted.
export function onArrival({ following, held }, missed, come) {
  if (following && !held) return { scroll: true, missed: 0 };
  return { scroll: false, missed: missed + come };
}

export const pillWords = (missed) => (missed === 1 ? "1 new line" : `${missed} new lines`);
