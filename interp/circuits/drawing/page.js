(function () {
  "use strict";
  const $ = (id) => document.getElementById(id), NS = "http://www.w3.org/2000/svg";
  const data = JSON.parse($("data").textContent);
  const sheet = $("sheet"), card = $("card"), tip = $("tip"), slider = $("n"), field = $("number");
  const READS = { q: "queries", k: "keys", v: "values" };

  // -- text: always put in as text, controls written out --------------------------------
  const controls = /[\u0000-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
  const show = (token) => token.replace(/\n/g, "⏎").replace(/\t/g, "⇥")
    .replace(/^ +$/, (s) => "␣".repeat(s.length))
    .replace(controls, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0")) || "∅";
  const bare = (token) => show(token).trim() || "␣";
  function make(tag, parent, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    parent.appendChild(element);
    return element;
  }
  function draw(tag, parent, attributes, text) {
    const element = document.createElementNS(NS, tag);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (text !== undefined) element.textContent = text;
    parent.appendChild(element);
    return element;
  }
  const minus = (text) => text.replace("-", "−");
  const number = (x) => (x === null ? "–" : minus(Math.abs(x) >= 1e4 || (x !== 0 && Math.abs(x) < 1e-3) ? x.toExponential(2) : x.toPrecision(4)));
  const signed = (x) => (data.signed && x > 0 ? "+" : "") + number(x);
  const sign = (x) => (!data.signed || !x ? "" : x < 0 ? "neg" : "pos");

  // -- edges and nodes -------------------------------------------------------------------
  const edges = data.edges.map(([name, score, rank, member]) => {
    const [source, rest] = name.split("->"), [dest, position] = rest.split("@");
    const node = dest.split("<")[0], channel = dest.endsWith(">") ? dest.slice(-2, -1) : null;
    return { name, score, rank, member: member === 1, source, dest, node, channel, position: position || null };
  });
  const byName = new Map(edges.map((edge) => [edge.name, edge]));
  const roles = (node) => data.nodes[node].roles.map((role) => role[0]);
  const says = (edge) => (edge.channel ? edge.source + " → " + edge.node + ", read by its " + READS[edge.channel]
    : edge.source + " → " + edge.node) + (edge.position ? " at " + edge.position : "");

  // -- the drawings: what can be pointed at --------------------------------------------------
  const views = {};
  for (const root of sheet.querySelectorAll(".view")) {
    const svg = root.querySelector("svg"), marks = new Map(), hits = new Map(), nodes = new Map();
    const layer = document.createElementNS(NS, "g");
    layer.setAttribute("class", "hits");
    svg.insertBefore(layer, svg.querySelector(".nodes"));
    for (const path of svg.querySelectorAll(".edge")) {
      path.querySelector("title").remove();
      const name = path.dataset.edge;
      const hit = draw("path", layer, { d: path.getAttribute("d"), "stroke-width": Math.max(5, +path.getAttribute("stroke-width") + 3) });
      hit.dataset.hit = name;
      marks.set(name, path);
      hits.set(name, hit);
    }
    for (const group of svg.querySelectorAll(".node")) {
      const title = group.querySelector("title");
      group.setAttribute("aria-label", title.textContent);
      title.remove();
      nodes.set(group.dataset.node, group);
    }
    svg.querySelector(":scope > title").remove();
    const box = svg.viewBox.baseVal;
    const listed = data.views[root.dataset.view];
    views[root.dataset.view] = { root, svg, marks, hits, nodes, edges: listed.map((name) => byName.get(name)), width: box.width, height: box.height, n: listed.length };
  }
  const state = { view: "circuit", pinned: null, hovered: null, zoom: null };
  const view = () => views[state.view];
  const visible = () => view().edges.slice(0, view().n);

  // -- light: the same scale on paper and on a dark screen -----------------------------------
  const scales = {
    light: [[5, 48, 97], [33, 102, 172], [67, 147, 195], [146, 197, 222], [209, 216, 221], [244, 165, 130], [214, 96, 77], [178, 24, 43], [103, 0, 31]],
    dark: [[150, 205, 255], [110, 176, 240], [84, 145, 205], [66, 110, 155], [72, 80, 88], [155, 84, 80], [205, 104, 96], [242, 126, 114], [255, 170, 156]],
  };
  function shade(lean) {
    const stops = scales[document.documentElement.dataset.theme === "dark" ? "dark" : "light"];
    const strength = 0.38 + 0.5 * Math.abs(lean), x = (0.5 + (lean < 0 || Object.is(lean, -0) ? -1 : 1) * strength / 2) * (stops.length - 1);
    const i = Math.min(Math.floor(x), stops.length - 2);
    return "rgb(" + stops[i].map((c, j) => Math.round(c + (x - i) * (stops[i + 1][j] - c))).join(",") + ")";
  }
  function light(dark) {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    for (const path of sheet.querySelectorAll("[data-lean]")) path.style.stroke = dark ? shade(+path.dataset.lean) : "";
    if (looked) matrix();
  }

  // -- which edges are there ----------------------------------------------------------------
  function limit(n) {
    const now = view();
    now.n = Math.max(0, Math.min(now.edges.length, Math.round(n) || 0));
    const ends = new Set();
    now.edges.forEach((edge, i) => {
      const gone = i >= now.n;
      now.marks.get(edge.name).classList.toggle("gone", gone);
      now.hits.get(edge.name).classList.toggle("gone", gone);
      if (!gone) ends.add(edge.source).add(edge.node);
    });
    for (const [name, group] of now.nodes) group.classList.toggle("empty", !ends.has(name));
    slider.max = field.max = now.edges.length;
    slider.value = field.value = now.n;
    $("of").textContent = now.edges.length.toLocaleString("en") + " edges by " + data.ranking + (state.view === "circuit" ? " (the circuit)" : " (the graph)");
    slider.setAttribute("aria-valuetext", now.n + " edges");
    faithful();
    highlight();
    table();
    document.body.dataset.shown = String(now.n);
  }
  function choose(name) {
    state.view = name;
    for (const key in views) views[key].root.hidden = key !== name;
    for (const button of $("which").children) button.setAttribute("aria-pressed", String(button.dataset.view === name));
    if (state.pinned && !known(state.pinned)) pin(null);
    size();
    plot();
    limit(view().n);
  }
  const known = (thing) => (thing.kind === "node" ? view().nodes.has(thing.name) : view().marks.has(thing.name));

  // -- faithfulness: where it was measured, and nowhere else -----------------------------------
  let curve = data.curve; // of the edges in view, where there is one
  const share = (i) => curve.f[i].toFixed(3) + (curve.low.length && curve.low[i] !== null ? " [" + curve.low[i].toFixed(3) + ", " + curve.high[i].toFixed(3) + "]" : "");
  function faithful() {
    const out = $("faith"), n = view().n;
    out.textContent = "";
    document.body.dataset.faithfulness = "";
    if (!curve && data.own) {
      out.textContent = "The curve is of the circuit’s own first edges, and these are others.";
      return;
    }
    if (!curve) {
      out.textContent = "No curve was given: page(…, curve=…) shows faithfulness here.";
      return;
    }
    const at = curve.n.lastIndexOf(n);
    const otherwise = curve.other ? "The curve’s circuits were chosen by “" + curve.selection + "”, so they are not these edges."
      : curve !== data.own && state.view === "circuit" && !data.same.includes(n) ? "The curve is of the first edges of the graph, and these are others." : "";
    if (otherwise) out.textContent = otherwise;
    else if (at >= 0) {
      out.append("faithfulness ");
      make("b", out, "", share(at));
      out.append(" at " + n.toLocaleString("en") + " edges");
      document.body.dataset.faithfulness = String(curve.f[at]);
    } else {
      const above = curve.n.findIndex((other) => other > n), points = [];
      if (above !== 0) points.push(above < 0 ? curve.n.length - 1 : above - 1);
      if (above >= 0) points.push(above);
      const where = points.length === 2 ? "between measured points: " : above === 0 ? "before the first measured point: " : "after the last measured point: ";
      out.textContent = where + points.map((i) => share(i) + " at " + curve.n[i].toLocaleString("en")).join(", ");
    }
    $("curve").classList.toggle("other", otherwise !== "");
    marker(n, otherwise ? -1 : at);
  }
  let marker = () => {};
  function plot() {
    const now = (state.view === "circuit" && data.own) || data.curve;
    if (now === curve && $("curve").firstChild) return;
    curve = now;
    marker = () => {};
    $("curve").textContent = "";
    if (!curve) return;
    const W = 360, H = 128, left = 34, right = 10, top = 8, bottom = 24, svg = draw("svg", $("curve"), { viewBox: "0 0 " + W + " " + H, role: "img", "aria-label": "faithfulness by number of edges" });
    const most = Math.max(curve.n[curve.n.length - 1], 2);
    const x = (n) => left + 6 + (W - left - 6 - right) * Math.log(1 + n) / Math.log(1 + most);
    const all = curve.f.concat(curve.low, curve.high, [0, 1]).filter((v) => v !== null);
    const low = Math.min(...all), high = Math.max(...all), y = (f) => top + (H - top - bottom) * (high - f) / (high - low);
    for (const f of [0, 1]) {
      draw("line", svg, { class: f ? "grid" : "axis", x1: left, x2: W - right, y1: y(f), y2: y(f) });
      draw("text", svg, { x: left - 5, y: y(f) + 3.5, "text-anchor": "end" }, String(f));
    }
    let last = -99;
    for (const n of [1, 10, 100, 1000, 1e4, 1e5, most].filter((n) => n <= most).sort((a, b) => a - b)) {
      if (n !== most && x(most) - x(n) < 34) continue;
      if (x(n) - last < 26) continue;
      last = x(n);
      draw("text", svg, { x: x(n), y: H - 8, "text-anchor": n === most ? "end" : "middle", dx: n === most ? 6 : 0 }, n.toLocaleString("en"));
    }
    draw("polyline", svg, { class: "line", points: curve.n.map((n, i) => x(n).toFixed(1) + "," + y(curve.f[i]).toFixed(1)).join(" ") });
    const line = draw("line", svg, { class: "marker", y1: top - 4, y2: H - bottom + 4 });
    const dots = curve.n.map((n, i) => {
      if (curve.low.length && curve.low[i] !== null) draw("line", svg, { class: "band", x1: x(n), x2: x(n), y1: y(curve.low[i]), y2: y(curve.high[i]) });
      const dot = draw("circle", svg, { class: "dot", cx: x(n), cy: y(curve.f[i]), r: 3.6 });
      draw("title", dot, {}, n.toLocaleString("en") + " edges: " + share(i));
      dot.addEventListener("click", () => limit(n));
      return dot;
    });
    marker = (n, at) => {
      line.setAttribute("x1", x(Math.min(n, most)));
      line.setAttribute("x2", x(Math.min(n, most)));
      dots.forEach((dot, i) => dot.classList.toggle("here", i === at));
    };
  }

  // -- what is pointed at -------------------------------------------------------------------
  function highlight() {
    const thing = state.hovered || state.pinned, now = view();
    const near = new Set(), on = new Set();
    if (thing && known(thing)) {
      if (thing.kind === "node") near.add(thing.name);
      for (const edge of visible()) {
        if (thing.kind === "edge" ? edge.name === thing.name : edge.source === thing.name || edge.node === thing.name) {
          on.add(edge.name);
          near.add(edge.source).add(edge.node);
        }
      }
    }
    const focus = thing !== null && near.size > 0;
    now.svg.classList.toggle("focus", focus);
    for (const [name, path] of now.marks) path.classList.toggle("on", on.has(name));
    for (const [name, group] of now.nodes) {
      group.classList.toggle("near", near.has(name));
      group.classList.toggle("pinned", state.pinned !== null && state.pinned.kind === "node" && state.pinned.name === name);
    }
    for (const row of rows.values()) row.setAttribute("aria-selected", String(thing !== null && thing.kind === "edge" && row.dataset.edge === thing.name));
    describe(thing);
  }
  function summary(thing) {
    if (thing.kind === "node") {
      const own = roles(thing.name), of = data.nodes[thing.name].sum;
      return thing.name + (own.length ? ": " + own.join(", ") : "") + (of === null ? "" : "\noutgoing edges: " + signed(of));
    }
    const edge = byName.get(thing.name);
    return says(edge) + "\n" + (edge.score === null ? "no score" : "score " + signed(edge.score) + ", number " + edge.rank + " of " + data.scored.toLocaleString("en"));
  }
  function hover(thing, event) {
    const same = (a, b) => a === b || (a && b && a.kind === b.kind && a.name === b.name);
    if (!same(thing, state.hovered)) {
      state.hovered = thing;
      highlight();
    }
    tip.hidden = !thing || !event;
    if (!tip.hidden) {
      tip.textContent = summary(thing);
      const box = tip.getBoundingClientRect();
      tip.style.left = Math.min(event.clientX + 14, innerWidth - box.width - 8) + "px";
      tip.style.top = (event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 18) + "px";
    }
  }
  function pointed(target) {
    if (!(target instanceof Element)) return null;
    if (target.dataset.hit) return { kind: "edge", name: target.dataset.hit };
    const group = target.closest(".node");
    return group && sheet.contains(group) ? { kind: "node", name: group.dataset.node } : null;
  }
  sheet.addEventListener("mousemove", (event) => hover(pointed(event.target), event));
  sheet.addEventListener("mouseleave", () => hover(null));
  sheet.addEventListener("click", (event) => pin(pointed(event.target)));
  function pin(thing) {
    state.pinned = thing;
    state.hovered = null;
    tip.hidden = true;
    highlight();
    look(thing && thing.kind === "node" ? thing.name : thing ? byName.get(thing.name).node : null);
    document.body.dataset.pinned = thing ? thing.name : "";
  }

  // -- the card -------------------------------------------------------------------------------
  let described = "";
  function describe(thing) {
    const key = thing ? thing.kind + thing.name + state.view + view().n : "";
    if (key === described && card.firstChild) return;
    described = key;
    card.textContent = "";
    if (!thing) {
      make("p", card, "hint", "Point at a node or an edge; click to keep it. A head that is clicked shows where it looks. Score: " + data.what + ".");
      return;
    }
    make("h3", card, "", thing.name);
    if (thing.kind === "edge") {
      const edge = byName.get(thing.name), line = make("p", card);
      line.append(says(edge));
      score(edge.score, edge.rank ? " (number " + edge.rank + " of " + data.scored.toLocaleString("en") + " by " + data.ranking + ")" : "", data.what);
      for (const node of new Set([edge.source, edge.node])) chips(node, node + " ");
      make("p", card, "hint", edge.member ? "in the circuit" : "not in the circuit");
      return;
    }
    chips(thing.name, "");
    const own = data.nodes[thing.name];
    if (own.sum !== null) score(own.sum, "", "the sum of the scores of all its outgoing edges", "its outgoing edges together ");
    make("p", card, "hint", own.in ? "in the circuit" : "not in the circuit");
    const links = make("div", card, "links");
    list(links, "reads", visible().filter((edge) => edge.node === thing.name), (edge) => edge.source + (edge.channel ? " ⟨" + edge.channel + "⟩" : ""));
    list(links, "is read by", visible().filter((edge) => edge.source === thing.name), (edge) => edge.dest.replace("<", " ⟨").replace(">", "⟩"));
  }
  function score(value, beside, title, before) {
    const line = make("p", card);
    line.title = title;
    line.append(before || "score ");
    make("span", line, "value " + sign(value), value === null ? "–" : signed(value));
    line.append(beside);
  }
  function chips(node, before) {
    if (!data.nodes[node].roles.length) return;
    const line = make("p", card, "", before);
    for (const [role, colour] of data.nodes[node].roles) {
      const chip = make("span", line, "chip");
      make("i", chip).style.background = colour;
      chip.append(role);
    }
  }
  function list(parent, heading, found, label) {
    const box = make("div", parent);
    make("h2", box, "", heading + " " + found.length);
    const strong = found.slice().sort((a, b) => Math.abs(b.score || 0) - Math.abs(a.score || 0));
    for (const edge of strong.slice(0, 6)) {
      const button = make("button", box);
      button.type = "button";
      make("span", button, "", label(edge) + (edge.position ? " @" + edge.position : ""));
      make("span", button, "value " + sign(edge.score), edge.score === null ? "" : signed(edge.score));
      button.addEventListener("click", () => pin({ kind: "edge", name: edge.name }));
    }
    if (found.length > 6) make("p", box, "hint", "and " + (found.length - 6) + " more: search below");
  }

  // -- attention --------------------------------------------------------------------------------
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", code = new Uint8Array(128);
  for (let i = 0; i < 64; i++) code[digits.charCodeAt(i)] = i;
  let looked = null, query = 0, cell = null, grid = null;
  function pattern() {
    const prompt = data.prompts[$("prompt").value], text = prompt.heads[looked], n = prompt.tokens.length;
    const at = (q, k) => (prompt.ahead ? q * n + k : (q * (q + 1)) / 2 + k);
    const of = (q, k) => (k > q && !prompt.ahead ? 0 : (code[text.charCodeAt(2 * at(q, k))] * 64 + code[text.charCodeAt(2 * at(q, k) + 1)]) / 1000);
    return { tokens: prompt.tokens, n, of, ahead: prompt.ahead };
  }
  function look(head) {
    const some = head !== null && data.prompts.some((prompt) => head in prompt.heads);
    $("attention").hidden = !some;
    looked = some ? head : null;
    document.body.dataset.attention = looked || "";
    if (some) {
      matrix(true);
      $("attention").scrollIntoView({ block: "nearest" });
    }
    else if (head !== null && /^a/.test(head)) make("p", card, "hint", data.prompts.length ? "Patterns are kept for the circuit’s heads only." : "No patterns were kept: page(circuit, model=…, prompts=…) keeps them.");
  }
  function matrix(fresh) {
    grid = pattern();
    $("attention").querySelector("h2").textContent = "where " + looked + " looks";
    if (fresh) { query = grid.n - 1; cell = null; }
    paint();
    const line = $("tokens");
    line.textContent = "";
    grid.tokens.forEach((token, k) => {
      const span = make("span", line, k === query ? "chosen" : "", show(token)), seen = k <= query || grid.ahead;
      if (seen) span.style.background = "rgba(var(--blue), " + (0.75 * grid.of(query, k)).toFixed(3) + ")";
      span.title = seen ? grid.of(query, k).toFixed(3) : "";
      span.tabIndex = k === query ? 0 : -1;
      span.addEventListener("click", () => { query = k; cell = null; matrix(); });
    });
    readout();
  }
  $("tokens").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    query = Math.max(0, Math.min(grid.n - 1, query + step));
    cell = null;
    matrix();
    $("tokens").children[query].focus();
    event.preventDefault();
    event.stopPropagation();
  });
  function readout() {
    const quote = (k) => "“\u2068" + bare(grid.tokens[k]) + "\u2069” " + k;
    if (cell) {
      $("readout").textContent = quote(cell[0]) + " looks at " + quote(cell[1]) + ": " + grid.of(cell[0], cell[1]).toFixed(3);
      return;
    }
    const keys = grid.tokens.map((_, k) => k).filter((k) => k <= query || grid.ahead).sort((a, b) => grid.of(query, b) - grid.of(query, a) || a - b);
    $("readout").textContent = quote(query) + " looks at " + keys.slice(0, 3).map((k) => quote(k) + " (" + grid.of(query, k).toFixed(3) + ")").join(", ");
  }
  const MARGIN = 66;
  function geometry() {
    const side = Math.max(2, Math.min(20, Math.floor(290 / grid.n))), labels = side >= 9;
    return { side, margin: labels ? MARGIN : 4, every: labels ? 1 : 0 };
  }
  function paint() {
    const canvas = $("matrix"), { side, margin } = geometry(), extent = margin + side * grid.n + 1, scale = devicePixelRatio || 1;
    canvas.width = canvas.height = Math.round(extent * scale);
    canvas.style.width = extent + "px";
    const pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink"), soft = style.getPropertyValue("--line"), mark = style.getPropertyValue("--mark"), paper = style.getPropertyValue("--paper");
    const dark = document.documentElement.dataset.theme === "dark";
    const stops = dark ? [[20, 23, 26], [38, 62, 92], [60, 104, 152], [104, 164, 214], [206, 230, 250]] : [[255, 255, 255], [198, 219, 239], [107, 174, 214], [33, 113, 181], [8, 48, 107]];
    const colour = (share) => {
      const x = Math.min(Math.max(share, 0), 1) * (stops.length - 1), i = Math.min(Math.floor(x), stops.length - 2);
      return "rgb(" + stops[i].map((c, j) => Math.round(c + (x - i) * (stops[i + 1][j] - c))).join(",") + ")";
    };
    pen.scale(scale, scale);
    for (let q = 0; q < grid.n; q++) {
      for (let k = 0; k < grid.n; k++) {
        pen.fillStyle = k <= q || grid.ahead ? colour(grid.of(q, k)) : soft;
        pen.fillRect(margin + k * side, margin + q * side, side, side);
      }
    }
    pen.strokeStyle = dark ? "#14171a" : paper;
    pen.lineWidth = 0.5;
    if (side > 5) for (let i = 0; i <= grid.n; i++) {
      pen.strokeRect(margin + i * side, margin, 0, side * grid.n);
      pen.strokeRect(margin, margin + i * side, side * grid.n, 0);
    }
    if (margin === MARGIN) {
      pen.font = Math.min(11, side - 0.5) + "px system-ui, sans-serif";
      pen.fillStyle = ink;
      pen.textBaseline = "middle";
      grid.tokens.forEach((token, i) => {
        const label = bare(token).length > 10 ? bare(token).slice(0, 9) + "…" : bare(token), at = margin + (i + 0.5) * side;
        pen.textAlign = "right";
        pen.fillText(label, margin - 4, at, margin - 6);
        pen.save();
        pen.translate(at, margin - 4);
        pen.rotate(-Math.PI / 2);
        pen.textAlign = "left";
        pen.fillText(label, 0, 0, margin - 6);
        pen.restore();
      });
    }
    pen.strokeStyle = mark;
    pen.lineWidth = 1.5;
    const row = cell ? cell[0] : query;
    pen.strokeRect(margin, margin + row * side, side * grid.n, side);
  }
  $("matrix").addEventListener("mousemove", (event) => {
    const box = $("matrix").getBoundingClientRect(), { side, margin } = geometry(), zoom = (margin + side * grid.n + 1) / box.width;
    const k = Math.floor(((event.clientX - box.left) * zoom - margin) / side), q = Math.floor(((event.clientY - box.top) * zoom - margin) / side);
    const inside = q >= 0 && q < grid.n && k >= 0 && k < grid.n && (k <= q || grid.ahead);
    cell = inside ? [q, k] : null;
    paint();
    readout();
  });
  $("matrix").addEventListener("click", () => { if (cell) { query = cell[0]; matrix(); } });
  $("matrix").addEventListener("mouseleave", () => { cell = null; paint(); readout(); });

  // -- the table ----------------------------------------------------------------------------------
  const rows = new Map(), body = $("rows"), sort = { key: "rank", up: true };
  for (const edge of edges) {
    const row = document.createElement("tr");
    row.dataset.edge = edge.name;
    row.tabIndex = -1;
    if (edge.member) { row.className = "member"; row.title = "in the circuit"; }
    make("td", row, "", edge.rank === null ? "–" : String(edge.rank));
    make("td", row, "", edge.source);
    make("td", row, "", edge.dest + (edge.position ? " @" + edge.position : ""));
    make("td", row, "value " + sign(edge.score), edge.score === null ? "–" : signed(edge.score));
    edge.text = (edge.name + " " + roles(edge.source).concat(roles(edge.node)).join(" ")).toLowerCase();
    rows.set(edge.name, row);
  }
  const place = (node) => { const match = /^[am](\d+)(?:\.h(\d+))?/.exec(node); return match ? +match[1] * 1e3 + (node[0] === "m" ? 999 : +match[2]) : node === "logits" ? 1e9 : node === "embed" ? -2 : -1; };
  const keys = {
    rank: (edge) => (edge.rank === null ? Infinity : edge.rank), score: (edge) => (edge.score === null ? Infinity : edge.score),
    source: (edge) => place(edge.source), dest: (edge) => place(edge.node),
  };
  function table() {
    const needle = $("search").value.trim().toLowerCase(), words = needle.split(/\s+/).filter(Boolean), there = visible();
    const found = there.filter((edge) => words.every((word) => edge.text.includes(word)));
    const value = keys[sort.key], way = sort.up ? 1 : -1;
    found.sort((a, b) => { const x = value(a), y = value(b); return x === y ? (a.rank || 1e9) - (b.rank || 1e9) : x === Infinity ? 1 : y === Infinity ? -1 : way * (x - y); });
    body.replaceChildren(...found.map((edge) => rows.get(edge.name)));
    if (body.firstChild) {
      for (const row of body.children) row.tabIndex = -1;
      body.firstChild.tabIndex = 0;
    }
    $("count").textContent = (words.length ? found.length.toLocaleString("en") + " of " : "") + there.length.toLocaleString("en") + " edges" + (state.view === "graph" ? "; a bar marks the circuit’s own" : "");
    for (const button of document.querySelectorAll("[data-sort]")) {
      const head = button.parentElement;
      if (button.dataset.sort === sort.key) head.setAttribute("aria-sort", sort.up ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
  }
  const rowOf = (event) => (event.target instanceof Element ? event.target.closest("tr[data-edge]") : null);
  body.addEventListener("mouseover", (event) => { const row = rowOf(event); hover(row ? { kind: "edge", name: row.dataset.edge } : null); });
  body.addEventListener("mouseleave", () => hover(null));
  body.addEventListener("click", (event) => { const row = rowOf(event); if (row) pin({ kind: "edge", name: row.dataset.edge }); });
  body.addEventListener("keydown", (event) => {
    const row = rowOf(event), other = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (!row || (!other && event.key !== "Enter" && event.key !== " ")) return;
    const next = other ? row[other] : row;
    if (next) {
      row.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
      pin({ kind: "edge", name: next.dataset.edge });
    }
    event.preventDefault();
    event.stopPropagation();
  });
  for (const button of document.querySelectorAll("[data-sort]")) {
    button.addEventListener("click", () => {
      sort.up = sort.key === button.dataset.sort ? !sort.up : true;
      sort.key = button.dataset.sort;
      table();
    });
  }
  $("search").addEventListener("input", table);

  // -- size ---------------------------------------------------------------------------------------
  function size() {
    const now = view(), natural = (now.width * 96) / 72, room = sheet.clientWidth - 12;
    const fit = Math.min(room > 0 ? room : natural, 1.25 * natural);
    now.svg.style.width = (state.zoom === null ? fit : state.zoom * natural) + "px";
  }
  function zoom(factor) {
    const now = view(), current = now.svg.getBoundingClientRect().width / ((now.width * 96) / 72);
    state.zoom = Math.max(0.2, Math.min(6, current * factor));
    size();
  }
  $("in").addEventListener("click", () => zoom(1.25));
  $("out").addEventListener("click", () => zoom(0.8));
  $("fit").addEventListener("click", () => {
    const now = view(), whole = Math.min(sheet.clientWidth - 12, ((sheet.clientHeight - 8) * now.width) / now.height) / ((now.width * 96) / 72);
    state.zoom = state.zoom !== null && Math.abs(state.zoom - whole) < 1e-3 ? null : whole;
    size();
  });
  addEventListener("resize", size);

  // -- keys ---------------------------------------------------------------------------------------
  const centre = (group) => { const box = group.querySelector(".box"); return [+box.getAttribute("x") + box.getAttribute("width") / 2, +box.getAttribute("y") + box.getAttribute("height") / 2]; };
  function step(key) {
    const now = view(), names = [...now.nodes.keys()].filter((name) => !now.nodes.get(name).classList.contains("empty"));
    const current = state.hovered && state.hovered.kind === "node" ? state.hovered : state.pinned;
    if (!names.length) return;
    if (!current || current.kind !== "node" || !names.includes(current.name)) {
      hover({ kind: "node", name: names[names.length - 1] });
    } else {
      const [x, y] = centre(now.nodes.get(current.name)), across = key === "ArrowLeft" || key === "ArrowRight", way = key === "ArrowLeft" || key === "ArrowUp" ? -1 : 1;
      const far = (name) => {
        const [a, b] = centre(now.nodes.get(name));
        if (across) return Math.abs(b - y) < 6 && way * (a - x) > 0.1 ? way * (a - x) : Infinity;
        return way * (b - y) > 6 ? way * (b - y) * 1e4 + Math.abs(a - x) : Infinity;
      };
      const best = names.reduce((a, b) => (far(b) < far(a) ? b : a));
      if (far(best) < Infinity) hover({ kind: "node", name: best });
    }
    const group = state.hovered && now.nodes.get(state.hovered.name);
    if (group) group.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
    if (event.key === "Escape") {
      if (event.target === $("search")) { $("search").value = ""; table(); }
      pin(null);
    } else if (typing) return;
    else if (event.key === "/") $("search").focus();
    else if (event.key === "[" || event.key === "]") limit(view().n + (event.key === "]" ? 1 : -1));
    else if (document.activeElement === sheet && event.key.startsWith("Arrow")) step(event.key);
    else if (document.activeElement === sheet && (event.key === "Enter" || event.key === " ")) pin(state.hovered || state.pinned);
    else return;
    event.preventDefault();
  });
  slider.addEventListener("input", () => limit(+slider.value));
  field.addEventListener("change", () => limit(+field.value));

  // -- start ----------------------------------------------------------------------------------------
  const named = { circuit: "the circuit", graph: "the graph" };
  for (const key in views) {
    const button = make("button", $("which"), "", named[key] + ", " + views[key].edges.length.toLocaleString("en") + (key === "graph" && views[key].edges.length < data.scored ? " of " + data.scored.toLocaleString("en") : "") + " edges");
    button.type = "button";
    button.dataset.view = key;
    button.addEventListener("click", () => choose(key));
  }
  data.prompts.forEach((prompt, i) => {
    const text = prompt.tokens.map(show).join(""), option = make("option", $("prompt"), "", (i + 1) + ": " + (text.length > 42 ? text.slice(0, 41) + "…" : text));
    option.value = String(i);
  });
  $("prompt").addEventListener("change", () => matrix(true));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  light(dark.matches);
  dark.addEventListener("change", () => light(dark.matches));
  $("theme").addEventListener("click", () => light(document.documentElement.dataset.theme !== "dark"));
  $("bar").hidden = $("keys").hidden = $("side").hidden = false;
  choose("circuit");
  document.body.dataset.ready = String(edges.length);
})();
