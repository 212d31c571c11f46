"use strict";
// Draws the figures of the document in this page, and sorts its tables. No library, no network.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const report = read("report");
  report.time = read("time");
  const groups = new Map(report.groups.map((group) => [group.name, group]));
  const hidden = new Set();
  const figures = [...report.figures, ...report.time.figures, ...report.laws.flatMap((law) => law.figures)];
  const NAMES = { step: "step", tokens: "tokens", flops: "training FLOPs", seconds: "training time (s)" };

  const make = (parent, name, attributes, text) => {
    const node = document.createElementNS(parent.namespaceURI === SVG || name === "svg" ? SVG : "http://www.w3.org/1999/xhtml", name);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  };
  const coloured = (node, group) => {
    const found = groups.get(group);
    if (found) {
      node.style.setProperty("--light", found.light);
      node.style.setProperty("--dark", found.dark);
    }
    node.classList.add("coloured");
    return node;
  };

  // ---- numbers ----
  const SUPER = "⁰¹²³⁴⁵⁶⁷⁸⁹";
  const power = (n) => (n < 0 ? "⁻" : "") + [...String(Math.abs(n))].map((d) => SUPER[d]).join("");
  const number = (x, digits = 4) => {
    const size = Math.abs(x);
    if (x === 0) return "0";
    if (size >= 1e13 || size < 1e-4) {
      const n = Math.floor(Math.log10(size) + 1e-9), m = Number((x / 10 ** n).toPrecision(digits));
      return (m === 1 ? "" : m + "·") + "10" + power(n);
    }
    for (const [unit, word] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e4, "k"]])
      if (size >= unit) { const by = word === "k" ? 1e3 : unit; return Number((x / by).toPrecision(digits)) + word; }
    return String(Number(x.toPrecision(digits)));
  };

  // ---- what is drawn ----
  const factor = (run, of) =>
    of === "tokens" ? run.tokens_per_step : of === "flops" ? run.flops_per_step
      : of === "seconds" ? report.time.seconds_per_step[run.name] : 1;
  const shown = (name) => name === null || name === undefined || !hidden.has(name);
  const scaled = (group, of) => factor(report.runs.find((run) => run.group === group), of);
  const seriesOf = (figure, of) => {
    if (figure.curve === null)
      return figure.series.filter((s) => shown(s.group)).map((s) => ({ ...s, points: s.points }));
    const wanted = new Set(figure.groups.filter(shown));
    return report.runs.filter((run) => wanted.has(run.group) && run.curves[figure.curve]).map((run) => {
      const { step, value } = run.curves[figure.curve], by = factor(run, of);
      return { name: run.name, group: run.group, style: "curve", points: step.map((s, i) => ({ x: s * by, y: value[i], run: run.name })) };
    });
  };

  // ---- scales ----
  const scale = (values, log, from, to, padded) => {
    const kept = values.filter((v) => Number.isFinite(v) && (!log || v > 0));
    let low = Math.min(...[kept.reduce((a, b) => Math.min(a, b), Infinity)]);
    let high = kept.reduce((a, b) => Math.max(a, b), -Infinity);
    if (!kept.length) [low, high] = log ? [1, 10] : [0, 1];
    const f = log ? Math.log10 : (v) => v;
    let a = f(low), b = f(high);
    if (a === b) { const by = log ? 0.3 : Math.abs(a) * 0.1 || 1; a -= by; b += by; }
    const pad = (b - a) * padded;
    if (!log && a >= 0 && a < pad) b += pad, a = 0; // nothing here is below 0
    else { a -= pad; b += pad; }
    const at = (v) => from + ((f(v) - a) / (b - a)) * (to - from);
    at.ticks = log && b - a > 0.35 ? logTicks(a, b) : niceTicks(log ? 10 ** a : a, log ? 10 ** b : b, log);
    at.bottom = from;
    at.has = (v) => Number.isFinite(v) && (!log || v > 0);
    return at;
  };
  const niceTicks = (low, high, log) => {
    const rough = (high - low) / 5, unit = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((n) => n * unit >= rough) * unit;
    const ticks = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++)
      if (!log || n > 0) ticks.push(Number((n * step).toPrecision(12)));
    return ticks;
  };
  const logTicks = (a, b) => {
    const multiples = b - a > 3 ? [1] : b - a > 1.8 ? [1, 3] : b - a > 0.9 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 6, 8], ticks = [];
    const every = Math.ceil((b - a) / 7);
    for (let n = Math.floor(a); n <= b; n++)
      for (const m of multiples) {
        const t = m * 10 ** n, l = Math.log10(t);
        if (l >= a - 1e-9 && l <= b + 1e-9 && (multiples.length > 1 || n % every === 0)) ticks.push(t);
      }
    return ticks;
  };

  // ---- one figure ----
  const draw = (view) => {
    const { figure, plot } = view;
    const width = Math.max(plot.clientWidth, 260), narrow = width < 520;
    const height = Math.round(Math.min(Math.max(width * 0.56, 240), 460));
    const names = figure.x.names, longest = Math.min(Math.max(0, ...names.map((n) => n.length)), 24);
    const edge = { left: 62, right: 16, top: 14, bottom: 46 + longest * 6 };
    const series = seriesOf(figure, view.of);
    const points = series.flatMap((s) => s.points);
    const levels = figure.levels.filter((l) => shown(l.group));
    const heights = points.flatMap((p) => [p.y, p.low, p.high].filter((v) => v !== null && v !== undefined)).concat(levels.map((l) => l.y), series.some((s) => s.style === "bars") ? [0] : []);
    const widths = series.flatMap((s) => s.points.flatMap((p) => [p.x - (s.width || 0) / 2, p.x + (s.width || 0) / 2]));
    const x = scale(names.length ? [-0.8, names.length - 0.2] : widths, view.xlog, edge.left, width - edge.right, names.length ? 0 : figure.curve === null ? 0.05 : 0.01);
    const y = scale(heights, view.ylog, height - edge.bottom, edge.top, 0.04);
    plot.querySelector("svg")?.remove();
    const svg = make(plot, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0, "aria-label": figure.title + ". Arrow keys go from point to point." });
    const clip = make(make(svg, "defs"), "clipPath", { id: "clip-" + figure.id });
    make(clip, "rect", { x: edge.left, y: 0, width: width - edge.left - edge.right, height: height - edge.bottom + 4 });
    axes(svg, x, y, width, height, edge, figure, view, narrow);
    const inner = make(svg, "g", { "clip-path": `url(#clip-${figure.id})` });
    for (const level of levels) {
      if (!y.has(level.y)) continue;
      coloured(make(inner, "line", { class: "level", x1: edge.left, x2: width - edge.right, y1: y(level.y), y2: y(level.y) }), level.group);
      if (levels.length === 1) make(inner, "text", { class: "note", x: edge.left + 6, y: y(level.y) - 5 }, level.text);
    }
    view.lines = [];
    view.drawn = series.map((s) => drawSeries(view, inner, s, x, y)).filter((s) => s.spots.length);
    const taken = [];
    for (const mark of figure.marks.filter((m) => shown(m.group))) {
      const at = { x: x(mark.step * scaled(mark.group, view.of)), y: y(mark.y) };
      if (!Number.isFinite(at.x) || !Number.isFinite(at.y)) continue;
      coloured(make(inner, "circle", { class: "mark", cx: at.x, cy: at.y, r: 5 }), mark.group);
      let below = at.y + 19;
      while (taken.some(([x0, y0]) => Math.abs(x0 - at.x) < 46 && Math.abs(y0 - below) < 14)) below += 15;
      if (below > height - edge.bottom - 3) below = at.y - 10;
      taken.push([at.x, below]);
      make(inner, "text", { class: "mark-text", x: at.x, y: below, "text-anchor": "middle" }, mark.text);
    }
    if (view.lines.length > 1 && view.lines.length <= 6)
      for (const [name, spot] of view.lines) make(inner, "text", { class: "note", x: spot.px + 9, y: spot.py - 3 }, name);
    view.ring = make(svg, "circle", { class: "ring", r: 6, visibility: "hidden" });
  };

  const axes = (svg, x, y, width, height, edge, figure, view, narrow) => {
    const names = figure.x.names, every = Math.ceil((12 * names.length) / (width - edge.left - edge.right));
    for (const [n, name] of names.entries()) {
      if (n % every) continue;
      const at = `translate(${x(n) + 4} ${height - edge.bottom + 8}) rotate(-90)`;
      make(svg, "text", { class: "tick", transform: at, "text-anchor": "end" }, name.length > 24 ? name.slice(0, 23) + "…" : name);
    }
    let ticks = names.length ? [] : x.ticks;
    while (ticks.length > (narrow ? 5 : 9)) ticks = ticks.filter((_, i) => i % 2 === 0);
    for (const t of ticks) {
      make(svg, "line", { class: "grid", x1: x(t), x2: x(t), y1: edge.top, y2: height - edge.bottom });
      make(svg, "text", { class: "tick", x: x(t), y: height - edge.bottom + 18, "text-anchor": "middle" }, number(t));
    }
    const counts = figure.series.some((s) => s.style === "bars");
    for (const t of y.ticks.filter((t) => !counts || Number.isInteger(t))) {
      make(svg, "line", { class: "grid", x1: edge.left, x2: width - edge.right, y1: y(t), y2: y(t) });
      make(svg, "text", { class: "tick", x: edge.left - 7, y: y(t) + 4, "text-anchor": "end" }, number(t));
    }
    make(svg, "line", { class: "axis", x1: edge.left, x2: width - edge.right, y1: height - edge.bottom, y2: height - edge.bottom });
    make(svg, "text", { class: "label", x: (edge.left + width - edge.right) / 2, y: height - 8, "text-anchor": "middle" }, figure.curve === null ? figure.x.label : NAMES[view.of]);
    make(svg, "text", { class: "label", transform: `translate(14 ${(edge.top + height - edge.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, figure.y.label);
  };

  const drawSeries = (view, parent, series, x, y) => {
    const spots = series.points.filter((p) => x.has(p.x) && y.has(p.y)).map((p) => ({ ...p, px: x(p.x), py: y(p.y), name: p.run || series.name }));
    const node = coloured(make(parent, "g", { class: "series " + series.style }), series.group);
    if (series.style === "band") {
      const whole = spots.filter((s) => y.has(s.low) && y.has(s.high));
      const edge = (list, of) => list.map((s) => s.px.toFixed(1) + " " + y(s[of]).toFixed(1)).join("L");
      if (whole.length) make(node, "path", { d: "M" + edge(whole, "high") + "L" + edge([...whole].reverse(), "low") + "Z" });
      return { node, spots: [] };
    }
    if (series.style === "curve" || series.style === "line") {
      const path = spots.map((s, i) => (i ? "L" : "M") + s.px.toFixed(1) + " " + s.py.toFixed(1)).join("");
      make(node, "path", { d: path || "M0 0", "stroke-dasharray": series.style === "curve" ? groups.get(series.group)?.dash || "none" : "4 4" });
      if (series.style === "curve" && spots.length === 1) make(node, "circle", { cx: spots[0].px, cy: spots[0].py, r: 3 });
      if (series.style === "line" && series.name && spots.length) view.lines.push([series.name, spots[0]]);
      return { node, spots: series.style === "curve" ? spots : [] };
    }
    if (series.style === "stems") {
      for (const s of spots) make(node, "path", { class: "bar", d: `M${s.px} ${y(s.low)}V${y(s.high)}` });
      return { node, spots: [] };
    }
    if (series.style === "bars") {
      for (const s of spots) {
        const [left, right] = [x(s.x - series.width / 2), x(s.x + series.width / 2)], bottom = y.has(0) ? y(0) : y.bottom;
        make(node, "rect", { x: left + 0.5, y: s.py, width: Math.max(right - left - 1, 0.5), height: Math.max(bottom - s.py, 0) });
      }
      return { node, spots };
    }
    for (const s of spots) {
      if (s.low !== null && s.low !== undefined) make(node, "path", { class: "bar", d: `M${s.px} ${y(s.low)}V${y(s.high)}M${s.px - 4} ${y(s.low)}h8M${s.px - 4} ${y(s.high)}h8` });
      make(node, "circle", { cx: s.px, cy: s.py, r: { means: 5, points: 4 }[series.style] || 2.5 });
    }
    return { node, spots };
  };

  // ---- hover ----
  const point = (view, spot, series) => {
    for (const one of view.drawn) one.node.classList.toggle("faded", spot !== null && one !== series);
    view.tip.hidden = spot === null;
    view.ring.setAttribute("visibility", spot ? "visible" : "hidden");
    if (!spot) return;
    series.node.classList.remove("faded");
    view.ring.setAttribute("cx", spot.px);
    view.ring.setAttribute("cy", spot.py);
    view.tip.replaceChildren();
    make(view.tip, "b", {}, spot.name);
    const label = view.figure.curve === null ? view.figure.x.label : NAMES[view.of];
    const names = view.figure.x.names;
    make(view.tip, "span", {}, `${label}: ${names.length ? names[spot.x] : number(spot.x, 6)}`);
    make(view.tip, "span", {}, `${view.figure.y.label}: ${number(spot.y, 5)}` + (spot.low === null || spot.low === undefined ? "" : ` (${number(spot.low)} to ${number(spot.high)})`));
    const box = view.plot.clientWidth, ratio = box / view.plot.querySelector("svg").viewBox.baseVal.width;
    const left = spot.px * ratio, beyond = left > box / 2;
    view.tip.style.left = beyond ? "auto" : left + 12 + "px";
    view.tip.style.right = beyond ? box - left + 12 + "px" : "auto";
    view.tip.style.top = Math.max(spot.py * ratio - 20, 0) + "px";
  };
  const nearest = (view, px, py, most) => {
    let best = null, least = most * most;
    for (const series of view.drawn)
      for (const spot of series.spots) {
        const d = (spot.px - px) ** 2 + (spot.py - py) ** 2;
        if (d < least) { least = d; best = [spot, series]; }
      }
    return best;
  };
  const follow = (view, event) => {
    const box = view.plot.querySelector("svg").getBoundingClientRect();
    const by = view.plot.querySelector("svg").viewBox.baseVal.width / box.width;
    const found = nearest(view, (event.clientX - box.left) * by, (event.clientY - box.top) * by, 40);
    found ? point(view, ...found) : point(view, null);
  };
  const walk = (view, event) => {
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (event.key === "Escape") return point(view, null);
    if (!step || !view.drawn.length) return;
    event.preventDefault();
    const wrap = (n, of) => (n + of) % of;
    view.at = view.at || [0, -1];
    view.at[0] = wrap(view.at[0] + step[0], view.drawn.length);
    const series = view.drawn[view.at[0]];
    view.at[1] = wrap(Math.min(view.at[1], series.spots.length - 1) + step[1], series.spots.length);
    point(view, series.spots[view.at[1]], series);
  };

  // ---- controls ----
  const toggle = (parent, text, on, act) => {
    const button = make(parent, "button", { type: "button", "aria-pressed": on }, text);
    button.addEventListener("click", () => act(button.getAttribute("aria-pressed") !== "true", button));
    return button;
  };
  const press = (button, on) => button.setAttribute("aria-pressed", on);
  const views = [];
  for (const plot of document.querySelectorAll(".plot")) {
    const figure = figures.find((f) => f.id === plot.dataset.figure);
    const view = { figure, plot, of: figure.x.of, xlog: figure.x.log, ylog: figure.y.log, drawn: [] };
    const bar = plot.previousElementSibling;
    const choices = figure.x.choices.map((of) => toggle(bar, NAMES[of], of === view.of, (_, pressed) => {
      view.of = of;
      for (const other of choices) press(other, other === pressed);
      draw(view);
    }));
    for (const axis of figure.x.names.length ? ["y"] : ["x", "y"])
      toggle(bar, `${axis} logarithmic`, view[axis + "log"], (on, button) => { view[axis + "log"] = on; press(button, on); draw(view); });
    view.tip = make(plot, "div", { class: "tip", role: "status", hidden: "" });
    plot.addEventListener("pointermove", (event) => follow(view, event));
    plot.addEventListener("pointerdown", (event) => follow(view, event));
    plot.addEventListener("pointerleave", () => point(view, null));
    plot.addEventListener("keydown", (event) => walk(view, event));
    plot.addEventListener("focusout", () => point(view, null));
    draw(view);
    views.push(view);
  }
  const redraw = () => views.forEach(draw);
  let width = 0;
  new ResizeObserver(() => { if (document.body.clientWidth !== width) { width = document.body.clientWidth; redraw(); } }).observe(document.body);

  const legend = document.getElementById("legend");
  if (legend) {
    const keys = new Map();
    const all = (on) => { hidden.clear(); for (const [name, key] of keys) { if (!on) hidden.add(name); press(key, on); } redraw(); };
    make(legend, "button", { type: "button", class: "all" }, "all").addEventListener("click", () => all(true));
    make(legend, "button", { type: "button", class: "all" }, "none").addEventListener("click", () => all(false));
    for (const group of report.groups) {
      const key = toggle(legend, "", true, (on) => { hidden[on ? "delete" : "add"](group.name); press(key, on); redraw(); });
      coloured(key, group.name).classList.add("key");
      make(make(key, "svg", { viewBox: "0 0 28 10", width: 28, height: 10, "aria-hidden": "true" }), "path", { d: "M0 5H28", "stroke-dasharray": group.dash || "none" });
      make(key, "span", {}, group.name + (group.runs.length > 1 ? ` (${group.runs.length} seeds)` : ""));
      keys.set(group.name, key);
    }
  }

  // ---- tables ----
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending", body = table.tBodies[0];
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => { const cell = row.cells[column]; return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value); };
      const compare = (a, b) => {
        const [x, y] = [value(a), value(b)], words = typeof x === "string", words2 = typeof y === "string";
        if (words !== words2) return words ? 1 : -1; // what has no number stands last
        return (up ? 1 : -1) * (words ? x.localeCompare(y, undefined, { numeric: true }) : x - y);
      };
      body.append(...[...body.rows].sort(compare));
    }));
  }
})();
