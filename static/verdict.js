// What a rehearsal allows, decided without a page: `rehearsal.js` shows it.

// What somebody has to do something about comes first; among equals the order of the rehearsal stays.
const ORDER = ["no", "unknown", "but"];

export function sorted(checks) {
  return {
    open: ORDER.flatMap((result) => checks.filter((check) => check.result === result)),
    fine: checks.filter((check) => check.result === "fine"),
  };
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
