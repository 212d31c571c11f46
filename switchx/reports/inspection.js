"use strict";
// Shows the layer that is chosen: its experts, the text, its flows. Text is set as text, never as HTML.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const doc = JSON.parse(document.getElementById("inspection").textContent);
  const layers = doc.layers, pieces = doc.pieces, COLOURS = 64;
  const state = { layer: 0, only: null, at: null };
  const make = (parent, name, attributes, text) => {
    const node = parent.namespaceURI === SVG || name === "svg" ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  };
  const at = (id) => document.getElementById(id);
  const percent = (x) => (x === null ? "–" : x > 0 && x < 0.01 ? (100 * x).toFixed(1) + " %" : Math.round(100 * x) + " %");
  const colour = (expert) => "coloured e" + (expert % COLOURS);
  const whole = (n) => n.toLocaleString("en");

  // ---- pieces of text ----
  const blank = (piece) => { const found = /^<extra_id_(\d+)>$/.exec(piece); return found ? "⟨" + found[1] + "⟩" : null; };
  const shown = (n) => blank(pieces[n]) || pieces[n].replace(/\n/g, "↵\n");
  const named = (n) => blank(pieces[n]) || pieces[n].replace(/\n/g, "↵").replace(/ /g, "·");

  // ---- the tip ----
  const tip = make(document.body, "div", { class: "tip fixed", role: "status", hidden: "" });
  const tell = (lines, x, y) => {
    tip.hidden = !lines;
    if (!lines) return;
    tip.replaceChildren();
    lines.forEach((line, n) => make(tip, n ? "span" : "b", {}, line));
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - box.width - 8)) + "px";
    tip.style.top = (y + 18 + box.height > innerHeight ? Math.max(4, y - box.height - 10) : y + 18) + "px";
  };

  // ---- which layer, which expert ----
  const choose = (layer) => { state.layer = layer; state.only = null; all(); };
  const only = (expert) => { state.only = state.only === expert ? null : expert; bar(); mark(); };
  const bar = () => {
    const place = at("choose");
    place.replaceChildren();
    layers.forEach((layer, n) => {
      const button = make(place, "button", { type: "button", class: n === state.layer ? "chosen" : "", "aria-pressed": n === state.layer }, layer.name);
      button.addEventListener("click", () => choose(n));
    });
    make(place, "span", { class: "gap" });
    for (const one of layers[state.layer].experts) swatch(place, one.expert);
  };
  const swatch = (parent, expert) => {
    const button = make(parent, "button", { type: "button", class: "swatch " + colour(expert), "aria-pressed": state.only === expert, "aria-label": `expert ${expert}: show its tokens alone`, "data-expert": expert }, expert);
    button.addEventListener("click", () => only(expert));
    return button;
  };

  // ---- the experts ----
  const cards = () => {
    const place = at("cards"), layer = layers[state.layer], even = 1 / layer.load.length;
    const most = Math.max(...layer.load, 2 * even);
    place.replaceChildren();
    for (const one of layer.experts) {
      const card = make(place, "article", { class: "card " + colour(one.expert) + (one.has_job ? "" : " idle") });
      const head = make(card, "header");
      swatch(head, one.expert);
      make(head, "p", {}, one.job);
      const load = make(card, "div", { class: "load", role: "img", "aria-label": `load ${percent(one.load)}, even would be ${percent(even)}` });
      make(load, "i", { style: `width:${(100 * one.load) / most}%` });
      make(load, "b", { style: `left:${(100 * even) / most}%` });
      const facts = make(card, "dl");
      const fact = (name, value) => { make(facts, "dt", {}, name); make(facts, "dd", {}, value); };
      fact("load", `${percent(one.load)} of tokens (even: ${percent(even)})`);
      fact("gate", one.gate_mean === null ? "–" : one.gate_mean.toFixed(2));
      if (one.dropped >= 0.0005) fact("turned away", percent(one.dropped));
      if (one.nats !== null) fact("without it", Math.abs(one.nats) < 5e-5 ? "the loss is the same" : `loss ${one.nats < 0 ? "−" : "+"}${Math.abs(one.nats).toFixed(4)} nats`);
      const chips = make(card, "div", { class: "chips" });
      for (const [n, count, of] of one.typical.slice(0, 9)) chip(chips, n, count, of);
      const more = make(card, "details");
      make(more, "summary", {}, "in context, and its commonest tokens");
      for (const context of one.contexts) {
        const line = make(more, "p", { class: "context" });
        context.pieces.forEach((n, i) => (i === context.at ? make(line, "mark", { title: `gate ${context.gate.toFixed(2)}` }, shown(n)) : line.append(shown(n))));
      }
      const common = make(more, "div", { class: "chips" });
      for (const [n, count, of] of one.most) chip(common, n, count, of);
    }
  };
  const chip = (parent, n, count, of) => {
    const node = make(parent, "span", { class: "chip", title: `${whole(count)} of its ${whole(of)} occurrences` }, named(n) + " ");
    make(node, "small", {}, percent(count / of));
  };

  // ---- the text ----
  let tokens = [];
  const text = () => {
    const place = at("text"), layer = layers[state.layer];
    const stack = layer ? layer.stack : doc.text[0].decoder ? "decoder" : "encoder";
    const number = layers.slice(0, state.layer).filter((other) => other.stack === stack).length;
    let source = null;
    tokens = [];
    state.at = null;
    place.replaceChildren();
    for (const row of doc.text) {
      if (row.source !== source) make(place, "h4", {}, doc.sources[(source = row.source)].name);
      const line = make(place, "p"), part = row[stack], of = layer && part.layers[number];
      const read = layer ? part.pieces : part.writes.map((n, i) => (n < 0 ? part.pieces[i] : n));
      read.forEach((n, i) => {
        const token = make(line, "span", { class: "t" }, shown(n));
        const facts = { node: token, piece: n, i, part, of };
        if (of) {
          facts.expert = of.expert[i];
          facts.dropped = of.kept[i] === "0";
          if (facts.expert >= 0) token.className = "t " + colour(facts.expert) + (facts.dropped ? " dropped" : "");
          else token.className = "t dropped";
        } else {
          token.classList.add("nats");
          token.style.setProperty("--nats", Math.min(60, part.nats[i] * 8).toFixed(0));
        }
        tokens.push(facts);
      });
    }
  };
  const mark = () => {
    for (const { node, expert } of tokens) node.classList.toggle("off", state.only !== null && expert !== state.only);
  };
  const facts = ({ piece, i, part, of, expert, dropped }) => {
    const lines = [`“${named(piece)}”`];
    if (of && part.writes && part.writes[i] >= 0) lines.push(`to be written: “${named(part.writes[i])}”, ${part.nats[i].toFixed(2)} nats`);
    if (!of) return [...lines, `${part.nats[i].toFixed(2)} nats`];
    const likely = of.likely[i], prob = of.prob[i], last = likely.length - 1;
    if (expert < 0) lines.push("no expert took it");
    else if (dropped) lines.push(`expert ${expert} was full: it went past`);
    else lines.push(`expert ${expert}`);
    likely.forEach((e, n) => lines.push(`${n === last && last ? "runner-up" : "gate"}: expert ${e}, ${prob[n].toFixed(2)}`));
    return lines;
  };
  const point = (n, x, y) => {
    if (state.at !== null && tokens[state.at]) tokens[state.at].node.classList.remove("here");
    state.at = n;
    if (n === null) return tell(null);
    const { node } = tokens[n];
    node.classList.add("here");
    const box = node.getClientRects()[0];
    tell(facts(tokens[n]), x === undefined ? box.left : x, y === undefined ? box.bottom - 14 : y);
  };
  const listen = () => {
    const place = at("text");
    const follow = (event) => {
      const n = tokens.findIndex(({ node }) => node === event.target);
      point(n < 0 ? null : n, event.clientX, event.clientY);
    };
    place.addEventListener("pointermove", follow);
    place.addEventListener("pointerdown", follow);
    place.addEventListener("pointerleave", () => point(null));
    place.addEventListener("focusout", () => point(null));
    place.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") point(null);
      if (!step || !tokens.length) return;
      event.preventDefault();
      const next = Math.min(Math.max((state.at ?? -1) + step, 0), tokens.length - 1);
      tokens[next].node.scrollIntoView({ block: "nearest" });
      point(next);
    });
  };

  // ---- flows ----
  const HEIGHT = 360, NODE = 14, GAP = 5, MOST = 16;
  const flows = () => {
    const place = at("flows");
    if (!place) return;
    for (const stack of ["encoder", "decoder"]) {
      const steps = doc.flows.filter((one) => one.stack === stack);
      if (steps.length) sankey(make(place, "div"), stack, steps);
    }
  };
  const label = (column, n) => (column === 0 ? doc.kinds[n] : n < 0 ? "others" : "expert " + n);
  const sankey = (place, stack, steps) => {
    make(place, "h3", {}, stack);
    const names = ["kind of token", ...steps.map((one) => one.to)];
    const width = Math.max(680, 300 + 190 * steps.length), left = 150, right = 90;
    const x = (column) => left + (column * (width - left - right - NODE)) / steps.length;
    // Experts beyond the largest ones of a column are one node.
    const sums = names.map(() => new Map());
    steps.forEach((step, s) => step.flows.forEach(([a, b, count]) => {
      if (s === 0) sums[0].set(a, (sums[0].get(a) || 0) + count);
      sums[s + 1].set(b, (sums[s + 1].get(b) || 0) + count);
    }));
    const kept = sums.map((sum, c) => new Set([...sum].sort((a, b) => b[1] - a[1]).slice(0, c ? MOST : 99).map(([n]) => n)));
    const node = (column, n) => (kept[column].has(n) ? n : -1);
    const nodes = sums.map((sum, c) => {
      const found = new Map();
      for (const [n, count] of [...sum].sort((a, b) => a[0] - b[0])) found.set(node(c, n), (found.get(node(c, n)) || 0) + count);
      return found;
    });
    const total = [...nodes[0].values()].reduce((a, b) => a + b, 0);
    const most = Math.max(...nodes.map((column) => column.size));
    const scale = (HEIGHT - GAP * (most - 1)) / total;
    const svg = make(place, "svg", { viewBox: `0 0 ${width} ${HEIGHT + 34}`, role: "img", "aria-label": `flows of tokens in the ${stack}` });
    names.forEach((name, c) => make(svg, "text", { x: c ? x(c) + NODE / 2 : x(c) + NODE, y: 14, "text-anchor": c ? "middle" : "end", class: "tick" }, name));
    const place_of = nodes.map((column) => {
      let y = 24;
      return new Map([...column].map(([n, count]) => { const here = { y, count, out: y, into: y }; y += count * scale + GAP; return [n, here]; }));
    });
    const bands = make(svg, "g");
    steps.forEach((step, s) => {
      const together = new Map();
      for (const [a, b, count] of step.flows) { const key = node(s, a) + "," + node(s + 1, b); together.set(key, (together.get(key) || 0) + count); }
      const rows = [...together].map(([key, count]) => [...key.split(",").map(Number), count]).sort((p, q) => p[0] - q[0] || p[1] - q[1]);
      for (const [a, b, count] of rows) {
        const from = place_of[s].get(a), to = place_of[s + 1].get(b), h = count * scale;
        const [x0, x1] = [x(s) + NODE, x(s + 1)], middle = (x0 + x1) / 2;
        const d = `M${x0} ${from.out}C${middle} ${from.out} ${middle} ${to.into} ${x1} ${to.into}v${h}C${middle} ${to.into + h} ${middle} ${from.out + h} ${x0} ${from.out + h}Z`;
        from.out += h;
        to.into += h;
        const band = make(bands, "path", { class: "band " + colour(Math.max(b, 0)), d, "data-from": s + ":" + a, "data-to": s + 1 + ":" + b });
        const lines = [`${label(s, a)} → ${label(s + 1, b)}`, `${whole(count)} tokens`, `${percent(count / from.count)} of ${label(s, a)}`, `${percent(count / to.count)} of ${label(s + 1, b)}`];
        if (s === 0) lines.push(`of all tokens ${percent(from.count / total)} are ${label(0, a)}`);
        band.addEventListener("pointermove", (event) => tell(lines, event.clientX, event.clientY));
        band.addEventListener("pointerleave", () => tell(null));
      }
    });
    place_of.forEach((column, c) => column.forEach((one, n) => {
      const h = Math.max(one.count * scale, 1);
      const rect = make(svg, "rect", { class: c ? "node " + colour(Math.max(n, 0)) : "node coloured", x: x(c), y: one.y, width: NODE, height: h });
      const light = (on) => { for (const band of bands.children) if (band.dataset.from === c + ":" + n || band.dataset.to === c + ":" + n) band.classList.toggle("lit", on); };
      rect.addEventListener("pointermove", (event) => { light(true); tell([label(c, n), `${whole(one.count)} tokens, ${percent(one.count / total)}`], event.clientX, event.clientY); });
      rect.addEventListener("pointerleave", () => { light(false); tell(null); });
      if (h > 9) make(svg, "text", { x: c ? x(c) + NODE + 5 : x(c) - 6, y: one.y + h / 2 + 4, "text-anchor": c ? "start" : "end" }, c ? label(c, n).replace("expert ", "") : label(c, n));
    }));
  };

  // ---- sources ----
  const sources = () => {
    const place = at("sources");
    if (!place) return;
    place.replaceChildren();
    for (const one of layers[state.layer].load_by_source) {
      make(place, "p", {}, one.source);
      for (const [kind, loads] of [["found", one.load], ["alone", one.by_tokens_alone]]) {
        const strip = make(place, "div", { class: "strip " + kind, role: "img", "aria-label": loads.map(percent).join(", ") });
        loads.forEach((load, e) => {
          const part = make(strip, "i", { class: colour(e), style: `width:${100 * load}%` });
          const said = [`expert ${e}`, `${percent(one.load[e])} of ${one.source}`, `${percent(one.by_tokens_alone[e])} by its words alone`];
          part.addEventListener("pointermove", (event) => tell(said, event.clientX, event.clientY));
          part.addEventListener("pointerleave", () => tell(null));
        });
      }
    }
  };

  const all = () => { if (layers.length) { bar(); cards(); sources(); } text(); };
  listen();
  flows();
  all();
})();
