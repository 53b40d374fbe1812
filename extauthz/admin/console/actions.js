// Incident actions. Each says what will happen, and asks before it does.

import { act, setToken } from "./api.js";
import { el } from "./dom.js";

const person = "hookauthz-person";

// ask shows a form in a dialog. submit gets the values of its fields; what it throws is shown, and the form stays. What it returns are notes.
export function ask({ title, text, fields, confirm, danger }, submit) {
  const problem = el("p", { role: "alert", class: "notice bad", hidden: true });
  const button = el("button", { class: danger ? "danger" : "primary", type: "submit" }, confirm);
  const form = el("form", { method: "dialog" },
    el("h2", { id: "dialog-title" }, title),
    text && el("p", {}, text),
    fields,
    problem,
    el("menu", {}, el("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), button));
  const dialog = el("dialog", { "aria-labelledby": "dialog-title", onclose: () => dialog.remove() }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      const notes = await submit(Object.fromEntries(new FormData(form)));
      dialog.close();
      if (notes?.length > 0) tell(notes);
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    }
    button.disabled = false;
  });
  document.body.append(dialog);
  dialog.showModal();
}

// tell shows what is to be known of an action that is done.
function tell(notes) {
  const dialog = el("dialog", { "aria-labelledby": "dialog-title", onclose: () => dialog.remove() }, el("form", { method: "dialog" },
    el("h2", { id: "dialog-title" }, "It is done, but note"),
    el("ul", {}, notes.map((note) => el("li", {}, note))),
    el("menu", {}, el("button", { class: "primary", type: "submit" }, "Close"))));
  document.body.append(dialog);
  dialog.showModal();
}

const field = (name, label, attributes = {}) => el("label", {}, el("span", {}, label), el("input", { name, required: true, autocomplete: "off", ...attributes }));

const durations = [["15m", "15 minutes"], ["1h", "1 hour"], ["4h", "4 hours"], ["24h", "1 day"], ["168h", "7 days"]];
const forHow = (chosen) => el("label", {}, el("span", {}, "For how long"),
  el("select", { name: "for" }, durations.map(([value, text]) => el("option", { value, selected: value === chosen }, text))));

const whyAndWho = () => [
  field("why", "Why (goes into the audit file)", { maxlength: 256 }),
  field("by", "Your name", { maxlength: 64, value: sessionStorage.getItem(person) ?? "" }),
];

// perform sends an action with what the form says, and then shows the page anew. It gives what else the server says.
const perform = (action, done) => async (values) => {
  if (values.by) sessionStorage.setItem(person, values.by);
  const { sure, ...rest } = values;
  const { notes = [], pending } = await act({ ...action, ...rest });
  done();
  return pending ? [...notes, `It is in force on this server, but not kept yet: ${pending}`] : notes;
};

export const pause = (endpoint, done) => ask({
  title: `Pause ${endpoint}`,
  text: "Every delivery to it gets 503 with Retry-After, and senders that repeat come again later. It ends by itself.",
  fields: [forHow("1h"), whyAndWho()],
  confirm: "Pause", danger: true,
}, perform({ action: "pause", endpoint }, done));

export const unpause = (endpoint, done) => ask({
  title: `End the pause of ${endpoint}`,
  text: "Deliveries are decided about again at once.",
  fields: [whyAndWho()], confirm: "End the pause",
}, perform({ action: "unpause", endpoint }, done));

export const revoke = (endpoint, version, done) => ask({
  title: `Revoke version ${version} of ${endpoint}`,
  text: "A delivery signed with it is denied as secret_expired from now on. A sender without a newer secret is shut out.",
  fields: [el("label", { class: "check" }, el("input", { type: "checkbox", name: "sure", required: true }), `The sender has another secret than ${version}, or must be shut out.`), whyAndWho()],
  confirm: "Revoke", danger: true,
}, perform({ action: "revoke", endpoint, version }, done));

export const restore = (endpoint, version, done) => ask({
  title: `Restore version ${version} of ${endpoint}`,
  text: "It counts again as its policy says: where its secret is still there, what is signed with it passes.",
  fields: [whyAndWho()], confirm: "Restore",
}, perform({ action: "restore", endpoint, version }, done));

export const block = (address, done) => ask({
  title: "Block an address",
  text: "Deliveries from it are denied as source_denied at every endpoint. It ends by itself.",
  fields: [field("address", "Address or prefix, such as 192.0.2.7 or 2001:db8::/64", { value: address ?? "", spellcheck: "false" }), forHow("1h"), whyAndWho()],
  confirm: "Block", danger: true,
}, perform({ action: "block" }, done));

export const unblock = (address, done) => ask({
  title: `Unblock ${address}`,
  text: "Deliveries from it are decided about again at once.",
  fields: [whyAndWho()], confirm: "Unblock",
}, perform({ action: "unblock", address }, done));

export const signIn = (why, done) => ask({
  title: "A token is needed",
  text: why,
  fields: [field("token", "Token of the admin listener; it stays in this tab", { type: "password" })],
  confirm: "Go on",
}, async ({ token }) => {
  setToken(token);
  done();
});
