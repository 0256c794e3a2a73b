// What a rehearsal allows, decided without a page: `rehearsal.js` shows it.

// What somebody has to do something about comes first; among equals the order of the rehearsal stays.
const ORDER = ["no", "unknown", "but"];

export function sorted(checks) {
  return {
    open: ORDER.flatMap((result) => checks.filter((check) => check.result === result)),
    fine: checks.filter((check) => check.result === "fine"),
  };
}

// Why, in the sentences of what was found: what stands in the way and how to mend it; else what one should know.
export function why(checks) {
  const { open } = sorted(checks);
  const blocking = open.filter(({ result }) => result !== "but");
  if (!blocking.length) return open.map(({ what }) => what).join(" ");
  return blocking.flatMap(({ what, mend }) => [what, mend]).filter(Boolean).join(" ");
}

// Whether the button may be pressed, and what typing the host's name means. No verdict: nobody has looked yet.
export function permission(verdict, overridable) {
  const stopped = verdict !== "yes" && verdict !== "yes, but";
  return {
    pressable: !stopped || (verdict === "no" && overridable === true),
    meaning: stopped ? "rebuild all the same" : "go on",
  };
}

// The body of a request: a password where one was typed, drain where somebody chose, force where it was a no.
export function wish({ password, drain, verdict, name }) {
  return {
    ...(password ? { cluster_password: password } : {}),
    ...(typeof drain === "boolean" ? { drain } : {}),
    ...(verdict === "no" ? { force: name } : {}),
  };
}
