(function (root) {
  "use strict";
  // Everything is found below `root`, the section this script stands in: views do not meet.
  const data = JSON.parse(root.querySelector("script.data").textContent);
  const tokens = data.tokens, names = data.names, n = tokens.length;
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const code = new Uint8Array(128);
  for (let i = 0; i < 64; i++) code[digits.charCodeAt(i)] = i;

  // Two characters for each share in thousandths, a row for each query up to itself.
  function decode(text) {
    const out = new Float32Array(text.length / 2);
    for (let i = 0; i < out.length; i++) {
      out[i] = (code[text.charCodeAt(2 * i)] * 64 + code[text.charCodeAt(2 * i + 1)]) / 1000;
    }
    return out;
  }
  const plain = data.patterns.map(decode);
  const at = (query, key) => (query * (query + 1)) / 2 + key;

  // The share of each key in the row's sum of attention × length of what the key writes.
  function weighted(pattern, lengths) {
    const out = new Float32Array(pattern.length);
    for (let q = 0; q < n; q++) {
      let sum = 0;
      for (let k = 0; k <= q; k++) sum += out[at(q, k)] = pattern[at(q, k)] * lengths[k];
      for (let k = 0; k <= q && sum > 0; k++) out[at(q, k)] /= sum;
    }
    return out;
  }
  let byValue = null, patterns = plain;

  const stops = [[255, 255, 255], [222, 235, 247], [158, 202, 225], [66, 146, 198], [8, 81, 156], [8, 48, 107]];
  function colour(share) {
    const x = Math.min(Math.max(share, 0), 1) * (stops.length - 1), i = Math.min(Math.floor(x), stops.length - 2);
    return stops[i].map((c, j) => Math.round(c + (x - i) * (stops[i + 1][j] - c)));
  }
  const css = (share) => "rgb(" + colour(share).join(",") + ")";

  function make(tag, parent, options) {
    const element = Object.assign(document.createElement(tag), options || {});
    parent.appendChild(element);
    return element;
  }
  // Controls are written out: one that turns the direction of text would turn all that follows.
  const controls = /[\u0000-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
  function show(token) {
    return token.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/^ +$/, (s) => "␣".repeat(s.length))
      .replace(controls, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0")) || "∅";
  }
  function bitmap(pattern) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = n;
    const context = canvas.getContext("2d"), image = context.createImageData(n, n);
    for (let q = 0; q < n; q++) {
      for (let k = 0; k < n; k++) {
        const rgb = k <= q ? colour(pattern[at(q, k)]) : [244, 244, 244];
        image.data.set([rgb[0], rgb[1], rgb[2], 255], 4 * (q * n + k));
      }
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  // -- controls ------------------------------------------------------------------------
  const bar = make("div", root, { className: "bar" });
  const all = make("button", bar, { type: "button", textContent: "mean of all heads", className: "all" });
  const which = make("label", bar), select = make("select", which);
  which.prepend("a token ");
  make("option", select, { value: "query", textContent: "looks at earlier tokens" });
  make("option", select, { value: "key", textContent: "is looked at by later tokens" });
  if (data.lengths) {
    const label = make("label", bar), box = make("input", label, { type: "checkbox", className: "value" });
    label.append("weighted by the length of what each token's value writes");
    box.addEventListener("change", () => {
      byValue = byValue || plain.map((pattern, i) => weighted(pattern, data.lengths[i]));
      patterns = box.checked ? byValue : plain;
      thumbnails();
      draw();
    });
  }
  const legend = make("span", bar);
  legend.append("0 ");
  const scale = make("span", legend, { className: "scale" });
  scale.style.background = "linear-gradient(90deg," + [0, 0.2, 0.4, 0.6, 0.8, 1].map(css).join(",") + ")";
  legend.append(" 1");

  // -- tokens --------------------------------------------------------------------------
  const text = make("div", root, { className: "text" });
  const readout = make("p", root, { className: "readout" });
  readout.setAttribute("aria-live", "polite");
  let fixed = null, hovered = n - 1, cell = null;
  const spans = tokens.map((token, i) => {
    const span = make("span", text, { textContent: show(token), tabIndex: i === n - 1 ? 0 : -1 });
    span.setAttribute("role", "button");
    span.setAttribute("aria-label", "token " + i + ", " + show(token));
    const point = () => { if (fixed === null) { hovered = i; cell = null; paint(); } };
    span.addEventListener("mouseenter", point);
    span.addEventListener("focus", point);
    const hold = () => { fixed = fixed === i ? null : i; hovered = i; cell = null; paint(); };
    span.addEventListener("click", hold);
    span.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step !== undefined && spans[i + step]) {
        if (fixed !== null) fixed = i + step;
        hovered = i + step;
        spans[i + step].focus();
        paint();
        event.preventDefault();
      } else if (event.key === "Enter" || event.key === " ") {
        hold();
        event.preventDefault();
      }
    });
    return span;
  });
  select.addEventListener("change", () => { cell = null; paint(); });

  // -- heads ---------------------------------------------------------------------------
  const chosen = new Set([0]);
  const panes = make("div", root, { className: "panes" });
  const grid = make("div", panes, { className: "heads" });
  const buttons = names.map((name, i) => {
    const button = make("button", grid, { type: "button", title: name });
    make("canvas", button);
    make("span", button, { textContent: name });
    button.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) {
        if (!chosen.delete(i)) chosen.add(i);
        if (!chosen.size) chosen.add(i);
      } else {
        chosen.clear();
        chosen.add(i);
      }
      draw();
    });
    return button;
  });
  all.addEventListener("click", () => {
    names.forEach((_, i) => chosen.add(i));
    draw();
  });
  function thumbnails() {
    buttons.forEach((button, i) => {
      const canvas = button.querySelector("canvas"), size = Math.min(n, 112);
      canvas.width = canvas.height = size;
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = n > size;
      context.drawImage(bitmap(patterns[i]), 0, 0, size, size);
    });
  }

  // -- matrix --------------------------------------------------------------------------
  const matrix = make("canvas", panes, { className: "matrix" });
  matrix.setAttribute("role", "img");
  make("p", root, {
    className: "hint",
    textContent: "Rows are queries, from the top; columns are keys. Point at a token or a cell; click a token to hold it. " +
      "Ctrl-click heads to average some.",
  });
  const side = data.side;
  const labelled = side >= 11, ratio = Math.max(window.devicePixelRatio || 1, 1);
  const labels = tokens.map((token) => { const s = show(token).trim() || "␣"; return s.length > 14 ? s.slice(0, 13) + "…" : s; });
  let margin = 4, shown = plain[0], picture = null;
  const pen = matrix.getContext("2d");
  if (labelled) {
    pen.font = "11px system-ui, sans-serif";
    margin = 10 + Math.max(...labels.map((label) => pen.measureText(label).width));
  }
  const extent = margin + side * n + 4;
  matrix.width = matrix.height = Math.round(extent * ratio);
  matrix.style.width = matrix.style.height = extent + "px";

  function mean() {
    if (chosen.size === 1) return patterns[chosen.values().next().value];
    const out = new Float32Array(plain[0].length);
    chosen.forEach((i) => { for (let j = 0; j < out.length; j++) out[j] += patterns[i][j] / chosen.size; });
    return out;
  }
  function draw() {
    shown = mean();
    picture = bitmap(shown);
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(chosen.has(i))));
    const label = chosen.size === 1 ? names[chosen.values().next().value] : "mean of " + chosen.size + " heads";
    root.dataset.shown = label;
    matrix.setAttribute("aria-label", "attention pattern, " + label);
    paint();
  }
  function paint() {
    const token = fixed === null ? hovered : fixed, asQuery = select.value === "query";
    const share = (i) => asQuery ? (i <= token ? shown[at(token, i)] : null) : (i >= token ? shown[at(i, token)] : null);
    const found = [];
    spans.forEach((span, i) => {
      const value = share(i);
      span.style.background = value === null ? "" : css(value);
      span.style.color = value === null ? "#aaa" : value > 0.55 ? "#fff" : "#222";
      span.classList.toggle("chosen", i === token);
      span.title = value === null ? "" : value.toFixed(3);
      if (value !== null) found.push([value, i]);
    });
    found.sort((a, b) => b[0] - a[0]);
    const quoted = (i) => {
      const word = show(tokens[i]).trim();  // right-to-left words are isolated, else numbers beside them swap
      return "“" + (/[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/.test(word) ? "\u2068" + word + "\u2069" : word) + "” " + i;
    };
    readout.textContent = cell
      ? root.dataset.shown + ": " + quoted(cell[0]) + " → " + quoted(cell[1]) + ": " + shown[at(cell[0], cell[1])].toFixed(3)
      : root.dataset.shown + ": " + quoted(token) + (asQuery ? " looks at " : " is looked at by ") +
        found.slice(0, 4).map((f) => quoted(f[1]) + " (" + f[0].toFixed(3) + ")").join(", ");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, extent, extent);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(picture, margin, margin, side * n, side * n);
    pen.strokeStyle = "#ccc";
    pen.lineWidth = 1;
    pen.strokeRect(margin - 0.5, margin - 0.5, side * n + 1, side * n + 1);
    if (labelled) {
      pen.font = "11px system-ui, sans-serif";
      pen.textBaseline = "middle";
      labels.forEach((label, i) => {
        pen.fillStyle = i === token ? "#d1495b" : "#444";
        pen.textAlign = "right";
        pen.fillText(label, margin - 5, margin + (i + 0.5) * side);
        pen.save();
        pen.translate(margin + (i + 0.5) * side, margin - 5);
        pen.rotate(-Math.PI / 2);
        pen.textAlign = "left";
        pen.fillText(label, 0, 0);
        pen.restore();
      });
    }
    pen.strokeStyle = "#d1495b";
    if (asQuery) pen.strokeRect(margin, margin + token * side, side * n, side);
    else pen.strokeRect(margin + token * side, margin, side, side * n);
  }
  matrix.addEventListener("mousemove", (event) => {
    const box = matrix.getBoundingClientRect(), zoom = extent / box.width;
    const key = Math.floor(((event.clientX - box.left) * zoom - margin) / side);
    const query = Math.floor(((event.clientY - box.top) * zoom - margin) / side);
    cell = query >= 0 && query < n && key >= 0 && key <= query ? [query, key] : null;
    if (fixed === null && cell) hovered = select.value === "query" ? query : key;
    paint();
  });
  matrix.addEventListener("mouseleave", () => { cell = null; paint(); });

  thumbnails();
  draw();
  root.dataset.drawn = String(names.length);
})(document.currentScript.parentElement);
