// The pages, and when they are read anew.

import { all, get, hasToken, setToken, Unauthorized } from "./api.js";
import * as actions from "./actions.js";
import { ago, chip, clock, el, moment, number, table } from "./dom.js";
import { plot, spark } from "./plot.js";

const every = 5000;
const outcomes = ["allow", "answer", "deny"];
const main = document.getElementById("main");
let filter = "";
let shown = null; // the page that is on the screen
let newest = 0; // number of the newest reading; older ones that come late are dropped
let timer;

const link = (endpoint) => (endpoint ? el("a", { href: `#/endpoint/${encodeURIComponent(endpoint)}` }, endpoint) : el("span", { class: "dim" }, "(no policy)"));
const series = (byOutcome) => outcomes.map((name) => ({ name, kind: name, counts: byOutcome[name] }));
const sum = (counts) => counts.reduce((a, b) => a + b, 0);
const refresh = () => read(true);

// --- endpoints

function stateOf(e) {
  const chips = [];
  if (e.paused_until) chips.push(chip("bad", "paused", `until ${e.paused_until}`));
  if (e.mode === "shadow") chips.push(chip("warn", "shadow"));
  if (e.secrets_unavailable) chips.push(chip("bad", `${e.secrets_unavailable} secret${e.secrets_unavailable > 1 ? "s" : ""} unavailable`));
  return chips;
}

function topReason(e) {
  const worst = Object.entries(e.reasons ?? {}).filter(([name]) => name !== "ok").sort((a, b) => b[1] - a[1])[0];
  return worst ? `${worst[0]} (${number(worst[1])})` : "";
}

async function endpointsPage() {
  const data = await all("api/v1/endpoints", "endpoints");
  const end = Date.parse(data.end);
  const list = el("div");
  const show = () => {
    const rows = data.endpoints.filter((e) => e.endpoint.includes(filter)).sort((a, b) => b.counts.deny - a.counts.deny || a.endpoint.localeCompare(b.endpoint)).slice(0, 200);
    list.replaceChildren(rows.length === 0 ? el("p", { class: "dim" }, "No endpoint has such a name.") : table("Endpoints", [
      { name: "endpoint", cell: (e) => [link(e.endpoint), " ", stateOf(e)] },
      { name: "scheme", cell: (e) => e.scheme },
      { name: "last hour", cell: (e) => spark(series(e.series)) },
      { name: "allowed", number: true, cell: (e) => number(e.counts.allow) },
      { name: "answered", number: true, cell: (e) => number(e.counts.answer) },
      { name: "denied", number: true, cell: (e) => number(e.counts.deny) },
      { name: "most often", cell: topReason },
    ], rows));
  };
  show();
  const search = el("input", { type: "search", class: "search", placeholder: "Find an endpoint", "aria-label": "Find an endpoint", value: filter,
    oninput: (event) => { filter = event.target.value; show(); } });
  return [
    el("h1", {}, "Deliveries in the last hour"),
    plot("Deliveries", series(data.total), data.step_seconds, end),
    el("div", { class: "row" }, el("h2", {}, `Endpoints (${number(data.endpoints.length)}${data.more ? " and more" : ""})`), search),
    data.partial && el("p", { class: "notice" }, "There are more endpoints and reasons than this server keeps a history of: some are missing here. The metrics have all."),
    list,
  ];
}

// --- one endpoint

async function endpointPage(name) {
  const [data, secrets, denials] = await Promise.all([
    get(`api/v1/endpoints/${encodeURIComponent(name)}`),
    get(`api/v1/secrets?endpoint=${encodeURIComponent(name)}`),
    get(`api/v1/denials?limit=20&endpoint=${encodeURIComponent(name)}`),
  ]);
  const e = data.endpoint, end = Date.parse(data.end);
  let colour = 0;
  const reasons = data.series.map((s) => ({ name: s.decision === "allow" ? s.reason : `${s.reason} (${s.decision})`, kind: s.reason === "ok" ? "allow" : `r${colour++ % 7}`, counts: s.counts }));
  const facts = [
    ["scheme", e.scheme], ["mode", e.mode], ["hosts", (e.hosts ?? []).join(", ") || "any"], ["paths", (e.paths ?? []).join(", ") || "named by Envoy's route"],
    ["labels", Object.entries(e.labels ?? {}).map(([k, v]) => `${k}=${v}`).join(", ") || "none"],
  ];
  return [
    el("div", { class: "row" }, el("h1", {}, name, " ", stateOf(e)),
      e.paused_until ? el("button", { onclick: () => actions.unpause(name, refresh) }, "End the pause…") : el("button", { class: "danger", onclick: () => actions.pause(name, refresh) }, "Pause…")),
    el("dl", { class: "cards" }, facts.map(([k, v]) => el("div", { class: "card" }, el("dt", {}, k), el("dd", {}, v)))),
    el("h2", {}, "By reason, in the last hour"),
    reasons.length === 0 ? el("p", { class: "dim" }, "No delivery in the last hour.") : plot(`Deliveries to ${name} by reason`, reasons, data.step_seconds, end),
    el("h2", {}, "Secret versions"), secretsTable(secrets.secrets, false),
    el("h2", {}, "Newest denials"), denialsTable(denials.denials, false),
  ];
}

// --- denials

function denialsTable(denials, withEndpoint) {
  if (denials.length === 0) return el("p", { class: "dim" }, "None since this server started.");
  return table("Denials", [
    { name: "time (UTC)", cell: (d) => el("time", { datetime: d.time, title: `${d.time}, ${ago(d.time)}` }, clock(d.time)) },
    withEndpoint && { name: "endpoint", cell: (d) => link(d.endpoint) },
    { name: "what failed", cell: (d) => [chip(d.shadowed ? "warn" : "bad", d.reason), d.shadowed ? " (shadow: it went on)" : "", el("div", { class: "hint" }, `Step: ${d.step}. ${d.hint}`)] },
    { name: "from", cell: (d) => d.client_address && [d.client_address, " ", el("button", { onclick: () => actions.block(d.client_address, refresh) }, "Block…")] },
    { name: "request", cell: (d) => [el("span", { class: "code" }, `${d.method ?? ""} ${d.path ?? ""}`), el("div", { class: "hint" },
      [d.status && `answered ${d.status}`, d.secret_version && `version ${d.secret_version}`, d.event_type, d.request_id && `request ${d.request_id}`].filter(Boolean).join(" · "))] },
  ].filter(Boolean), denials);
}

async function denialsPage() {
  const data = await get("api/v1/denials?limit=200");
  return [
    el("h1", {}, "Newest denials"),
    el("p", { class: "dim" }, "The newest of each endpoint and reason on this server; a flood of one kind does not hide the others. Replicas have their own."),
    denialsTable(data.denials, true),
  ];
}

// --- secrets

const states = { in_force: "good", not_yet: "", expired: "bad", revoked: "bad", decoy: "warn", unavailable: "bad" };

function secretsTable(secrets, withEndpoint) {
  if (secrets.length === 0) return el("p", { class: "dim" }, "None.");
  return table("Secret versions", [
    withEndpoint && { name: "endpoint", cell: (s) => link(s.endpoint) },
    { name: "version", cell: (s) => [s.version, " ", chip(states[s.state] ?? "", s.state.replaceAll("_", " ")), s.current ? [" ", chip("good", "in use")] : ""] },
    { name: "last used", cell: (s) => (s.last_used ? moment(s.last_used) : "never seen") },
    { name: "matches", number: true, cell: (s) => number(s.matches ?? 0) },
    { name: "ends", cell: (s) => (s.not_after ? moment(s.not_after) : "") },
    { name: "advice", cell: (s) => [s.safe_to_remove && [chip("good", "safe to remove"), " "], s.note] },
    { name: "action", cell: (s) => (s.state === "in_force" ? el("button", { class: "danger", onclick: () => actions.revoke(s.endpoint, s.version, refresh) }, "Revoke…") : "") },
  ].filter(Boolean), secrets);
}

async function secretsPage() {
  const data = await all("api/v1/secrets", "secrets");
  return [
    el("h1", {}, "Secret versions"),
    el("p", { class: "dim" }, data.shared ? "Last use is that of all servers with this store." : `Seen by this server, since ${data.since}. Other servers have their own.`),
    data.error && el("p", { class: "notice bad" }, `What the other servers have seen is missing: ${data.error}`),
    secretsTable(data.secrets, true),
  ];
}

// --- incidents

const undo = {
  pause: (i) => actions.unpause(i.endpoint, refresh),
  revoke: (i) => actions.restore(i.endpoint, i.version, refresh),
  block: (i) => actions.unblock(i.address, refresh),
};

const keptBy = {
  store: "Kept in the shared store: every server obeys, and a restart keeps them.",
  file: "Kept in this server's state file: a restart keeps them. Other servers do not know of them.",
  process: "Kept by this process alone: they end when it does. Start it with --state FILE, or with a shared store, to keep them.",
};

async function incidentsPage() {
  const data = await all("api/v1/incidents", "incidents");
  return [
    el("div", { class: "row" }, el("h1", {}, "Incidents in force"), el("button", { class: "danger", onclick: () => actions.block("", refresh) }, "Block an address…")),
    data.pending && el("p", { class: "notice bad" }, `Not kept yet: ${data.pending}. What was done here is in force on this server, which tries again.`),
    el("p", { class: "dim" }, keptBy[data.kept]),
    data.incidents.length === 0 ? el("p", { class: "dim" }, "Nothing is paused, revoked or blocked.") : table("Incidents", [
      { name: "what", cell: (i) => [chip(i.state === "dormant" ? "" : "bad", i.kind), i.state === "dormant" ? "(not in the policies) " : "", i.endpoint ? link(i.endpoint) : i.address, i.version ? ` ${i.version}` : ""] },
      { name: "since", cell: (i) => i.since && moment(i.since) },
      { name: "until", cell: (i) => (i.until ? moment(i.until) : "undone by hand") },
      { name: "by", cell: (i) => (i.state === "policy" ? "the policy files" : [i.by, i.token && i.token !== i.by ? el("span", { class: "dim" }, ` (token ${i.token})`) : ""]) },
      { name: "why", cell: (i) => i.why },
      { name: "action", cell: (i) => (i.state === "policy" ? "" : el("button", { onclick: () => undo[i.kind](i) }, "End…")) },
    ], data.incidents),
  ];
}

// --- what stands on every page

const breakers = { closed: ["good", "store answers"], "half-open": ["warn", "store is tried again"], open: ["bad", "store is away"] };

function forgetToken() {
  setToken(null);
  main.replaceChildren();
  refresh();
}

const faultLine = (f) => `${f.file}:${f.line}:${f.column}: ${f.webhook ? `webhook "${f.webhook}": ` : ""}${f.problem}${f.fix ? `; ${f.fix}` : ""}`;

function showStatus(s) {
  document.getElementById("version").textContent = s.version;
  document.title = s.reload && !s.reload.success ? "(!) hookauthz" : "hookauthz";
  const alerts = [];
  if (s.reload && !s.reload.success) {
    alerts.push(el("div", { class: "notice bad" }, el("strong", {}, "The policy files have faults: the last good ones stay in force."),
      s.reload.error && el("pre", {}, s.reload.error),
      (s.reload.faults ?? []).length > 0 && el("pre", {}, s.reload.faults.slice(0, 20).map(faultLine).join("\n"))));
  }
  if (s.breaker && s.breaker !== "closed") alerts.push(el("div", { class: "notice bad" }, "The shared store is away: onStoreFailure decides about rates and replays."));
  if (s.draining) alerts.push(el("div", { class: "notice" }, "This server is draining: it stops soon."));
  const box = document.getElementById("alerts");
  const text = alerts.map((a) => a.textContent).join();
  if (box.textContent !== text) box.replaceChildren(...alerts); // said once, not at every reading
  const [kind, words] = breakers[s.breaker] ?? ["", ""];
  document.getElementById("footer").replaceChildren(
    `Revision ${s.revision} · ${number(s.webhooks)} endpoints · environment ${s.environment || "none"} · store ${s.store} `, s.breaker ? chip(kind, words) : "",
    ` · started `, moment(s.started), " ", hasToken() ? el("button", { onclick: forgetToken }, "Forget the token") : "");
}

// --- pages

const pages = [
  [/^#\/denials$/, denialsPage], [/^#\/secrets$/, secretsPage], [/^#\/incidents$/, incidentsPage],
  [/^#\/endpoint\/(.+)$/, endpointPage], [/^(#\/?)?$/, endpointsPage],
];

async function read(now) {
  clearTimeout(timer);
  if (!now && (document.hidden || document.querySelector("dialog[open]"))) {
    timer = setTimeout(read, every);
    return;
  }
  const hash = location.hash, turn = ++newest;
  const fresh = document.getElementById("fresh");
  try {
    const found = pages.map(([pattern, page]) => [pattern.exec(hash), page]).find(([match]) => match);
    const [status, content] = await Promise.all([
      get("api/v1/status"),
      found ? found[1](...found[0].slice(1).map(decodeURIComponent)) : [el("h1", {}, "There is no such page"), el("a", { href: "#/" }, "Endpoints")],
    ]);
    if (turn !== newest) return;
    showStatus(status);
    put(hash, content.flat().filter(Boolean));
    fresh.textContent = `read at ${clock(new Date().toISOString())} UTC`;
    fresh.className = "";
  } catch (error) {
    if (turn !== newest) return;
    if (error instanceof Unauthorized) {
      fresh.textContent = "";
      actions.signIn(error.message, refresh);
      return;
    }
    fresh.textContent = `${error.message} What stands here may be old.`;
    fresh.className = "chip bad";
    if (shown !== hash) put(hash, [el("p", { class: "notice bad" }, error.message)]);
  }
  timer = setTimeout(read, every);
}

// put shows a page. One that is there already keeps the focus and what is being typed.
function put(hash, content) {
  const focused = shown === hash && main.contains(document.activeElement) ? [...main.querySelectorAll("a, button, input")].indexOf(document.activeElement) : -1;
  const { selectionStart } = document.activeElement;
  main.replaceChildren(...content);
  if (focused >= 0) {
    const again = main.querySelectorAll("a, button, input")[focused];
    again?.focus({ preventScroll: true });
    if (again?.type === "search") again.setSelectionRange(selectionStart, selectionStart);
  }
  for (const a of document.querySelectorAll("nav a")) {
    const here = a.getAttribute("href") === (hash || "#/") || (hash.startsWith("#/endpoint/") && a.getAttribute("href") === "#/");
    if (here) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
  if (shown !== null && shown !== hash) {
    main.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
  shown = hash;
}

window.addEventListener("hashchange", refresh);
document.addEventListener("visibilitychange", () => document.hidden || refresh());
read(true);
