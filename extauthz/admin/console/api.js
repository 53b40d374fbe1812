// What the server is asked. The token, where one is needed, stays in this tab.

const key = "hookauthz-token";

export class Unauthorized extends Error {}

export function setToken(token) {
  if (token) sessionStorage.setItem(key, token);
  else sessionStorage.removeItem(key);
}

export const hasToken = () => sessionStorage.getItem(key) !== null;

async function call(path, options = {}) {
  const headers = { ...options.headers };
  const token = sessionStorage.getItem(key);
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(10000) });
  } catch {
    throw new Error("The server does not answer.");
  }
  const text = await response.text();
  let answer = null;
  try {
    answer = JSON.parse(text);
  } catch {
    // not JSON: the status says enough
  }
  if (response.ok && answer !== null) return answer;
  const said = answer && answer.message ? answer.message + (answer.hint ? ` (${answer.hint})` : "") : `The server answered ${response.status}.`;
  throw response.status === 401 ? new Unauthorized(said) : new Error(said);
}

export const get = (path) => call(path);

export const act = (action) =>
  call("api/v1/incidents", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(action) });

// all is every page of a list, up to a number of entries.
export async function all(path, name, most = 2000) {
  const first = await get(path + (path.includes("?") ? "&" : "?") + "limit=1000");
  let { next } = first;
  while (next && first[name].length < most) {
    const page = await get(path + (path.includes("?") ? "&" : "?") + "limit=1000&after=" + encodeURIComponent(next));
    first[name].push(...page[name]);
    next = page.next;
  }
  first.more = Boolean(next);
  return first;
}
