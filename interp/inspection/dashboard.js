(function () {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent), all = data.features, words = data.words;
  const main = document.querySelector("main"), list = $("list"), rows = $("rows"), card = $("card");
  const search = $("search"), scope = $("scope"), sort = $("sort"), direction = $("direction");
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const code = new Uint8Array(128);
  for (let i = 0; i < 64; i++) code[digits.charCodeAt(i)] = i;
  const byName = new Map(all.map((f, i) => [f.n, i]));
  const STEPS = 62, HEIGHT = 44;

  // -- text: always put in as text, controls written out --------------------------------
  const controls = /[\u0000-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
  const shown = words.map((word) => word.replace(/\n/g, "⏎").replace(/\t/g, "⇥")
    .replace(controls, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0")) || "∅");
  const lower = words.map((word) => word.toLowerCase());
  const own = (i) => (i < 0 ? "" : shown[i].trim() || "␣");
  function make(tag, parent, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    parent.appendChild(element);
    return element;
  }
  const number = (x, n) => (x === null || x === undefined ? "–" : Math.abs(x) >= 1e4 || (x !== 0 && Math.abs(x) < 1e-3) ? x.toExponential(1) : x.toPrecision(n || 3));
  const percent = (x) => (x === null ? "–" : (100 * x).toPrecision(100 * x >= 99.95 ? 3 : 2) + "%");

  // A window: of each token its word and its level, -1 where no token stands.
  function windows(f) {
    if (f.cells) return f.cells;
    const wide = data.wide + 1, n = f.e.length / wide, word = new Int32Array(n), level = new Uint8Array(n);
    for (let i = 0; i < n; i++) {
      let w = 0;
      for (let j = 0; j < data.wide; j++) w = w * 64 + code[f.e.charCodeAt(i * wide + j)];
      level[i] = code[f.e.charCodeAt(i * wide + data.wide)];
      word[i] = level[i] === 63 ? -1 : w;
    }
    return (f.cells = { word: word, level: level });
  }

  // -- which features, in which order ----------------------------------------------------
  let order = [], current = -1, query = "", hits = new Set();
  function matches(f, where) {
    const ends = (pair) => pair !== null && pair[0].some((w) => hits.has(w));
    if (where !== "active" && where !== "embedding" && (ends(f.u) || ends(f.d))) return true;
    if (where !== "active" && where !== "logits" && ends(f.b)) return true;
    if (where === "logits" || where === "embedding") return false;
    const cells = windows(f);
    for (let i = 0; i < cells.word.length; i++) {
      if ((where === "any" || cells.level[i] > 0) && hits.has(cells.word[i])) return true;
    }
    return false;
  }
  // How much of what is strongest matches: what is about a token comes before what mentions it.
  function weight(f) {
    const cells = windows(f), width = data.window;
    let n = hits.has(f.w) ? 2 : 0;
    for (let i = 0; i < f.s[0]; i++) if (hits.has(cells.word[i * width + data.before])) n += 1 / f.s[0];
    return n;
  }
  function arrange() {
    query = search.value;
    const needle = query.toLowerCase(), plain = needle.trim(), where = scope.value;
    hits = new Set();
    if (plain) lower.forEach((word, i) => { if (word.includes(needle)) hits.add(i); });
    order = all.map((_, i) => i);
    if (plain) {
      const named = (f) => f.n.toLowerCase() === plain || f.n.split("F")[1] === plain;
      const weights = new Map();
      order = order.filter((i) => {
        const yes = named(all[i]) || (hits.size > 0 && matches(all[i], where));
        if (yes) weights.set(i, named(all[i]) ? 9 : weight(all[i]));
        return yes;
      });
      order.sort((a, b) => weights.get(b) - weights.get(a) || a - b);
    }
    sort.options[0].textContent = plain ? "by match" : "by number";
    const key = sort.value, sign = direction.textContent === "↑" ? 1 : -1;
    if (key !== "number") order.sort((a, b) => sign * ((all[a][key] === null ? -1e99 : all[a][key]) - (all[b][key] === null ? -1e99 : all[b][key])) || a - b);
    else if (!plain && sign < 0) order.reverse();
    $("count").textContent = order.length === all.length ? all.length.toLocaleString("en") + " features"
      : order.length.toLocaleString("en") + " of " + all.length.toLocaleString("en") + " features";
    rows.style.height = order.length * HEIGHT + "px";
    list.scrollTop = 0;
    paint();
  }

  // -- the list: only what is in view exists ---------------------------------------------
  function paint() {
    const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - 4);
    const last = Math.min(order.length, first + Math.ceil((list.clientHeight || 600) / HEIGHT) + 9);
    rows.textContent = "";
    for (let at = first; at < last; at++) {
      const i = order[at], f = all[i], item = make("div", rows, "item");
      item.style.top = at * HEIGHT + "px";
      item.id = "item-" + i;
      item.setAttribute("role", "option");
      item.setAttribute("aria-selected", String(i === current));
      const line = make("div", item, "line");
      make("span", line, "name", f.n);
      make("span", line, "number", f.f ? percent(f.f / data.tokens) + " · max " + number(f.x) : "never active");
      const text = make("div", item, "words");
      if (f.w >= 0) make("b", text, "", own(f.w));
      if (f.u) text.append("  → " + f.u[0].slice(0, 4).map(own).join(" "));
      item.addEventListener("click", () => choose(i));
    }
    list.setAttribute("aria-activedescendant", current < 0 ? "" : "item-" + current);
  }
  list.addEventListener("scroll", paint);
  window.addEventListener("resize", () => { paint(); fade(); });
  function reveal(at) {
    const top = at * HEIGHT, space = list.clientHeight || 600;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + HEIGHT > list.scrollTop + space) list.scrollTop = top + HEIGHT - space;
  }
  function choose(i, silent) {
    current = i;
    draw(all[i]);
    reveal(order.indexOf(i));
    paint();
    if (!silent) try { history.replaceState(null, "", "#" + all[i].n); } catch (refused) { /* in a frame */ }
    document.body.dataset.shown = all[i].n;
  }
  function move(step) {
    if (!order.length) return;
    const at = order.indexOf(current);
    choose(order[at < 0 ? (step < 0 ? order.length - 1 : 0) : Math.min(order.length - 1, Math.max(0, at + step))]);
  }

  // -- the card ---------------------------------------------------------------------------
  function draw(f) {
    card.textContent = "";
    card.scrollTop = 0;
    const head = make("h2", card, "", f.n);
    make("a", head, "", f.t).href = "#" + f.n;
    if (!f.f) { make("p", card, "hint", "Never active in " + data.tokens.toLocaleString("en") + " tokens."); }
    statistics(f);
    const panes = make("div", card, "panes");
    if (f.f) histogram(f, panes);
    bars(panes, "logits it raises", f.u, "red", data.notes.logits);
    bars(panes, "logits it lowers", f.d, "blue", data.notes.logits);
    bars(panes, "embeddings exciting it", f.b, "red", data.notes.embed);
    near(f);
    const bounds = (i) => number(f.x * i / data.intervals) + " to " + number(f.x * (i + 1) / data.intervals);
    let start = 0;
    f.s.forEach((count, stratum) => {
      if (count) {
        const level = data.intervals - stratum;
        passages(f, start, count, stratum === 0 ? "strongest, one of each document" : "drawn at random where it is " + bounds(level));
      }
      start += count;
    });
    for (const note of [f.u ? null : data.notes.logits, f.b ? null : data.notes.embed]) if (note) make("p", card, "hint", note);
    if (f.f) make("p", card, "hint", "Shade: activation as a share of this feature’s largest; point at a token for its value (to 1/62 of the largest). The underlined token is the example’s own.");
    fade();
  }
  function statistics(f) {
    const stats = make("div", card, "stats");
    const stat = (value, label, beside, title) => {
      const box = make("div", stats);
      make("b", box, "", value);
      make("span", box, "", label);
      if (beside) make("i", box, "", beside);
      if (title) box.title = title;
    };
    stat(percent(f.f / data.tokens), "of tokens", f.f ? "1 in " + Math.round(data.tokens / f.f).toLocaleString("en") : "");
    if (f.f) {
      stat(number(f.x), "largest activation", "mean " + number(f.m) + " where active");
      stat(percent(f.c), "of the strongest are “" + own(f.w) + "”",
        "random directions: " + percent(data.random[0]) + ", 99% below " + percent(data.random[1]),
        "Concentration: share of the most frequent token among the strongest examples. Tokens drawn at random from the corpus: 99% below " + percent(data.chance[f.s[0] - 1]) + ".");
    }
    if (f.q !== null) stat(number(f.q), "kurtosis of the logits", "random directions: " + number(data.sharp[0], 2) + ", 99% below " + number(data.sharp[1], 2), "Excess kurtosis over the vocabulary: 0 = as Gaussian, large = a few tokens stand out.");
  }
  function histogram(f, parent) {
    const pane = make("div", parent, "pane");
    make("h3", pane, "", "positive activations");
    const ns = "http://www.w3.org/2000/svg", svg = document.createElementNS(ns, "svg");
    const shape = (tag, attributes) => {
      const element = document.createElementNS(ns, tag);
      for (const key in attributes) element.setAttribute(key, attributes[key]);
      svg.appendChild(element);
      return element;
    };
    svg.setAttribute("viewBox", "0 0 400 118");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", "histogram of activations, logarithmic height");
    const top = Math.log10(Math.max(...f.h) + 1), width = 400 / f.h.length;
    for (let i = 1; i < data.intervals; i++) shape("line", { class: "cut", x1: 400 * i / data.intervals, x2: 400 * i / data.intervals, y1: 0, y2: 116 });
    f.h.forEach((count, i) => {
      const height = 112 * Math.log10(count + 1) / top;
      const bar = shape("rect", { class: "bar", x: i * width + 0.6, y: 116 - height, width: width - 1.2, height: height });
      const title = document.createElementNS(ns, "title");
      title.textContent = count + " tokens, " + number(f.x * i / f.h.length) + " to " + number(f.x * (i + 1) / f.h.length);
      bar.appendChild(title);
    });
    shape("line", { class: "axis", x1: 0, x2: 400, y1: 116.5, y2: 116.5 });
    pane.appendChild(svg);
    const ticks = make("div", pane, "ticks");
    make("span", ticks, "", "0");
    make("span", ticks, "", "log scale, most " + Math.max(...f.h).toLocaleString("en"));
    make("span", ticks, "", number(f.x));
  }
  function bars(parent, heading, pair, colour, note) {
    if (!pair) return;
    const pane = make("div", parent, "pane"), most = Math.max(...pair[1].map(Math.abs)) || 1;
    make("h3", pane, "", heading).title = note || "";
    const grid = make("div", pane, "bars");
    pair[0].forEach((w, i) => {
      const word = make("div", grid, "word");
      const fill = make("div", word, "fill");
      fill.style.width = 100 * Math.abs(pair[1][i]) / most + "%";
      fill.style.background = "rgba(var(--" + colour + "), .22)";
      make("span", word, "", shown[w]);
      make("div", grid, "value", (pair[1][i] > 0 ? "+" : "") + pair[1][i].toFixed(2));
    });
  }
  function near(f) {
    const grid = make("dl", card, "near");
    for (const [label, pair, title] of [
      ["writes like", f.nd, "cosine of decoder directions, of all features of this part"],
      ["reads like", f.ne, "cosine of encoder directions, of all features of this part"],
      ["fires with", f.nc, data.notes.correlation]]) {
      if (!pair[0].length) continue;
      make("dt", grid, "", label).title = title;
      const cell = make("dd", grid);
      pair[0].forEach((name, i) => {
        const one = make("span", cell), known = byName.has(name);
        const link = make(known ? "a" : "span", one, "", name);
        if (known) {
          link.href = "#" + name;
          const token = all[byName.get(name)].w;
          if (token >= 0) link.title = own(token);
        }
        one.append(" ");
        make("i", one, "", pair[1][i].toFixed(2));
      });
    }
  }
  function passages(f, start, count, heading) {
    const section = make("section", card, "examples"), cells = windows(f), width = data.window;
    make("h3", section, "", heading);
    for (let e = start; e < start + count; e++) {
      const line = make("div", section, "passage");
      make("div", line, "strength", number(f.v[e], 4)).title = "document " + f.p[2 * e] + ", token " + f.p[2 * e + 1];
      const left = make("div", line, "text left"), right = make("div", line, "text");
      for (let j = 0; j < width; j++) {
        const w = cells.word[e * width + j], level = cells.level[e * width + j];
        if (w < 0) continue;
        const span = make("span", j < data.before ? left : right, "", shown[w]);
        if (level) span.style.background = "rgba(var(--red), " + (0.08 + 0.72 * level / STEPS).toFixed(2) + ")";
        span.title = shown[w] + "  " + (j === data.before ? number(f.v[e], 4) : level ? "≈ " + number(f.x * level / STEPS) : "0");
        if (j === data.before) span.classList.add("own");
        if (hits.has(w)) span.classList.add("found");
      }
    }
  }

  // Context that there is no room for fades out, and what stands before the token stays beside it.
  function fade() {
    for (const left of card.querySelectorAll(".left")) {
      left.classList.toggle("cut", left.firstChild !== null && left.firstChild.offsetLeft < left.offsetLeft);
    }
  }

  // -- keys, links, light -----------------------------------------------------------------
  function follow() {
    let name = location.hash.slice(1);
    try { name = decodeURIComponent(name); } catch (odd) { /* as it is */ }
    if (!byName.has(name)) return false;
    const i = byName.get(name);
    if (!order.includes(i)) { search.value = ""; arrange(); }
    choose(i, true);
    return true;
  }
  window.addEventListener("hashchange", follow);
  search.addEventListener("input", () => { arrange(); if (order.length) choose(order[0]); else card.textContent = "", make("p", card, "none", "Nothing found."), document.body.dataset.shown = ""; });
  scope.addEventListener("change", () => search.dispatchEvent(new Event("input")));
  sort.addEventListener("change", () => {
    direction.textContent = sort.value === "number" ? "↑" : "↓";
    arrange();
    if (order.length) choose(order[0]);
  });
  direction.addEventListener("click", () => { direction.textContent = direction.textContent === "↑" ? "↓" : "↑"; arrange(); if (order.length) choose(order[0]); });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLSelectElement) return;
    const typing = event.target === search;
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, j: 1, k: -1, Home: -1e9, End: 1e9 }[event.key];
    if (step !== undefined && (!typing || event.key.startsWith("Arrow") || event.key.startsWith("Page"))) move(step);
    else if (event.key === "/" && !typing) search.focus();
    else if (event.key === "Escape" && typing) { search.value = ""; search.dispatchEvent(new Event("input")); list.focus(); }
    else if (event.key === "Enter" && typing) list.focus();
    else return;
    event.preventDefault();
  });
  const root = document.documentElement, dark = window.matchMedia("(prefers-color-scheme: dark)");
  const light = (on) => { root.dataset.theme = on ? "dark" : "light"; };
  light(dark.matches);
  dark.addEventListener("change", () => light(dark.matches));
  $("theme").addEventListener("click", () => light(root.dataset.theme !== "dark"));

  main.hidden = false;
  main.classList.toggle("single", all.length === 1);
  arrange();
  if (!follow()) choose(0, true);
  document.body.dataset.ready = String(all.length);
})();
