// Elements. What comes from the server is always text, never markup.

const svgNames = new Set(["svg", "rect", "line", "text", "title", "g", "path"]);

function make(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const el = (name, attributes = {}, ...children) => make(document.createElement(name), attributes, children);

export function svg(name, attributes = {}, ...children) {
  if (!svgNames.has(name)) throw new Error(`no such element: ${name}`);
  return make(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

// table is a table with a header; on a phone each row becomes a block whose cells are labelled.
// A column is {name, number, cell(row)}; the first one heads its row.
export function table(caption, columns, rows) {
  return el("table", { "aria-label": caption },
    el("thead", {}, el("tr", {}, columns.map((c) => el("th", { scope: "col", class: c.number ? "number" : null }, c.name)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, columns.map((c, i) =>
      i === 0 ? el("th", { scope: "row" }, c.cell(row)) : el("td", { class: c.number ? "number" : null, "data-label": c.name }, c.cell(row)))))));
}

export const chip = (kind, text, title) => el("span", { class: `chip ${kind}`, title }, text);

const count = new Intl.NumberFormat("en");
export const number = (n) => count.format(n);

export function ago(time, now = Date.now()) {
  const seconds = Math.round((now - Date.parse(time)) / 1000);
  return seconds < 0 ? `in ${span(-seconds)}` : `${span(seconds)} ago`;
}

export function span(seconds) {
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * length) return `${Math.floor(seconds / length)} ${unit}`;
  }
  return `${seconds} s`;
}

export const moment = (time) => el("time", { datetime: time, title: time }, ago(time));

export const clock = (time) => new Date(time).toISOString().slice(11, 19);
