// Requests to the REST API. What goes wrong is a Problem, with a sentence for a human.

export class Problem extends Error {
  constructor(status, detail, field = null) {
    super(detail);
    this.status = status;
    this.field = field;
  }
}

export async function call(method, path, body) {
  const request = { method, headers: { Accept: "application/json" }, cache: "no-store" };
  if (body !== undefined) {
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, request);
  } catch {
    throw new Problem(0, "provd does not answer. Look at what happened before you try again.");
  }
  const answer = response.status === 204 ? null : await response.json().catch(() => null);
  if (response.status === 401) throw new Problem(401, "You are signed out: load this page again to sign in.");
  if (!response.ok) {
    throw new Problem(response.status, answer?.detail || answer?.title || `provd answered ${response.status}.`, answer?.field);
  }
  return answer;
}

export const get = (path) => call("GET", path);
export const post = (path, body) => call("POST", path, body);
