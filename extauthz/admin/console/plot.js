// Plots of counts over time, as stacked bars.

import { el, number, svg } from "./dom.js";

const height = 220, left = 64, bottom = 26, top = 10;
const narrow = window.matchMedia("(max-width: 44rem)");

// merge adds neighbours up, so that there are few enough bars to see.
function merge(counts, by) {
  const out = [];
  for (let i = 0; i < counts.length; i += by) out.push(counts.slice(i, i + by).reduce((a, b) => a + b, 0));
  return out;
}

// ceiling is a round number that is not below n.
function ceiling(n) {
  const power = 10 ** Math.floor(Math.log10(Math.max(n, 1)));
  return [1, 2, 5, 10].map((m) => m * power).find((m) => m >= n);
}

// plot draws series of {name, kind, counts}, the oldest count first. stepSeconds is the length of one count, and end when the last one ends.
export function plot(title, series, stepSeconds, end) {
  const width = narrow.matches ? 400 : 1080;
  const steps = series.length ? series[0].counts.length : 0;
  const by = Math.max(1, Math.round(steps / 60));
  const bars = series.map((s) => ({ ...s, counts: merge(s.counts, by) }));
  const n = bars.length ? bars[0].counts.length : 0;
  const totals = Array.from({ length: n }, (_, i) => bars.reduce((sum, s) => sum + s.counts[i], 0));
  const most = ceiling(Math.max(1, ...totals));
  const sum = totals.reduce((a, b) => a + b, 0);
  const seconds = by * stepSeconds;
  const x = (i) => left + (i * (width - left - 4)) / n;
  const y = (v) => top + (1 - v / most) * (height - top - bottom);
  const drawing = svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${title}: ${number(sum)} in the last ${Math.round((steps * stepSeconds) / 60)} minutes, at most ${number(Math.max(0, ...totals))} in ${seconds} s` });
  for (const v of [0, most / 2, most]) {
    drawing.append(svg("line", { x1: left, x2: width - 4, y1: y(v), y2: y(v) }), svg("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, number(v)));
  }
  for (const share of narrow.matches ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]) {
    const at = new Date(end - (1 - share) * steps * stepSeconds * 1000).toISOString().slice(11, 16);
    drawing.append(svg("text", { x: x(share * n), y: height - 6, "text-anchor": share === 0 ? "start" : share === 1 ? "end" : "middle" }, at));
  }
  const base = new Array(n).fill(0);
  for (const s of bars) {
    s.counts.forEach((count, i) => {
      if (count === 0) return;
      const from = new Date(end - (n - i) * seconds * 1000).toISOString().slice(11, 19);
      drawing.append(svg("rect", { class: s.kind, x: x(i) + 0.5, width: Math.max(1, x(1) - x(0) - 1), y: y(base[i] + count), height: y(base[i]) - y(base[i] + count) },
        svg("title", {}, `${s.name}: ${number(count)} in ${seconds} s from ${from} UTC`)));
      base[i] += count;
    });
  }
  const legend = el("ul", { class: "legend" }, series.map((s) => el("li", {},
    svg("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, svg("rect", { class: s.kind, width: 10, height: 10 })),
    `${s.name} `, el("span", { class: "dim" }, number(s.counts.reduce((a, b) => a + b, 0))))));
  return el("div", { class: "card" }, drawing, legend);
}

// spark is a plot without words: those of the table beside it say as much.
export function spark(series) {
  const n = series[0].counts.length;
  const totals = Array.from({ length: n }, (_, i) => series.reduce((sum, s) => sum + s.counts[i], 0));
  const most = Math.max(1, ...totals);
  const drawing = svg("svg", { class: "spark", viewBox: `0 0 ${n} 20`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const base = new Array(n).fill(0);
  for (const s of series) {
    s.counts.forEach((count, i) => {
      if (count === 0) return;
      const h = (20 * count) / most;
      drawing.append(svg("rect", { class: s.kind, x: i, width: 0.9, y: 20 - base[i] - h, height: h }));
      base[i] += h;
    });
  }
  return drawing;
}
