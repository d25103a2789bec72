"use strict";
// The charts tab: inline SVG, each with its numbers as a table.
globalThis.Review ??= {};

Review.Charts = class {
  constructor(model, view) {
    this.model = model;
    this.view = view;
    this.panel = document.getElementById("charts");
    this.open = new Set(); // titles of tables that are open, which stay so when a threshold moves
    addEventListener("resize", () => this.later());
    this.later = Review.perFrame(() => { if (!this.panel.hidden) this.draw(); });
  }

  draw() {
    const { model } = this, { h } = Review, charts = [];
    const classes = Array.from({ length: model.classes }, (_, c) => c), tagged = classes.map((c) => model.counts(c).tagged);
    const used = classes.filter((c) => tagged[c] > 0).sort((a, b) => tagged[b] - tagged[a] || a - b);
    if (!model.images) { this.panel.replaceChildren(h("p", { class: "notice" }, "This run has no images, so there is nothing to draw.")); return; }
    this.width = Math.max(260, Math.min(640, this.panel.clientWidth - 72)); // so that letters keep their size on a phone
    charts.push(this.#bars("Tags per class", "Images that have each class as a tag, with your thresholds and corrections.", used.map((c) => [c, tagged[c]]), ["Class", "Images"], (value) => value.toLocaleString("en")));
    const masked = this.#coverage(classes);
    if (masked.some(([, share]) => share > 0)) charts.push(this.#bars("Coverage per class", "Mean share of the pixels, in images whose mask has the class.", masked.filter(([, share]) => share > 0).sort((a, b) => b[1] - a[1]), ["Class", "Mean share of pixels"], Review.percent));
    if (model.run.has_scores) charts.push(this.#histograms(used));
    if (used.length > 1) charts.push(this.#together(used));
    if (model.marks.some((mark) => mark & Review.flags.mask)) charts.push(this.#ignored());
    charts.push(this.#ranks());
    const top = this.panel.scrollTop;
    this.panel.replaceChildren(...charts, this.#about());
    this.panel.scrollTop = top;
  }

  #about() {
    const { run } = this.model, { h } = Review, facts = [];
    const add = (name, value) => { if (value) facts.push(h("dt", {}, name), h("dd", {}, value)); };
    add("Run", run.folder);
    add("Tags", run.rule);
    add("Model", [run.facts.model, run.facts.method && `class maps by ${run.facts.method}`].filter(Boolean).join(", "));
    add("Made by", Object.entries(run.facts.versions).map(([name, version]) => `${name} ${version}`).join(", "));
    add("Doubt", run.doubt.formula);
    return h("section", { class: "chart about-run" }, h("h2", {}, "This run"), h("dl", {}, facts));
  }

  #chart(title, text, picture, head, rows) {
    const { h } = Review, table = h("table", {}, h("thead", {}, h("tr", {}, head.map((cell) => h("th", { scope: "col" }, cell)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, place) => (place ? h("td", {}, String(cell)) : h("th", { scope: "row" }, String(cell))))))));
    const details = h("details", { open: this.open.has(title), ontoggle: () => (details.open ? this.open.add(title) : this.open.delete(title)) },
      h("summary", {}, `${title} as a table`), h("div", { class: "table-box", tabIndex: 0, role: "region", "aria-label": `${title}, table` }, table));
    return h("section", { class: "chart" }, h("h2", {}, title), h("p", { class: "quiet" }, text), picture, details);
  }

  // A picture that a screen reader skips: the table has the same.
  #picture(width, height, ...children) {
    return Review.svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true", class: "plot" }, ...children);
  }

  #text(x, y, text, extra = {}) {
    const element = Review.svg("text", { x, y, ...extra });
    element.textContent = text;
    return element;
  }

  #short(text, letters) {
    const all = [...text];
    return all.length > letters ? `${all.slice(0, letters - 1).join("")}…` : text;
  }

  #bars(title, text, pairs, head, format) {
    const shown = pairs.slice(0, 40), { svg } = Review, line = 24, { width } = this, left = Math.min(150, Math.round(0.33 * width)), most = Math.max(...shown.map(([, value]) => value), 1e-9);
    const rest = pairs.length > shown.length ? ` The picture has the first ${shown.length} of ${pairs.length}; the table has all.` : "";
    const parts = shown.flatMap(([c, value], place) => {
      const y = place * line + 4, long = ((width - left - 70) * value) / most;
      return [this.#text(left - 8, y + 13, this.#short(this.model.run.classes[c], Math.floor(left / 7)), { class: "label", "text-anchor": "end" }),
        svg("rect", { x: left, y, width: Math.max(1, long).toFixed(1), height: 16, rx: 2, class: "bar-own", fill: this.model.run.colours[c] }),
        this.#text(left + long + 6, y + 13, format(value), { class: "value" })];
    });
    const picture = shown.length ? this.#picture(width, shown.length * line + 8, ...parts) : Review.h("p", { class: "quiet" }, "No class has any.");
    return this.#chart(title, text + rest, picture, head, pairs.map(([c, value]) => [this.model.run.classes[c], format(value)]));
  }

  #coverage(classes) {
    const { model } = this, sum = new Float64Array(model.classes), count = new Int32Array(model.classes);
    for (const pairs of model.shares)
      for (let at = 0; at < pairs.length; at += 2) if (pairs[at] > 0) { sum[pairs[at] - 1] += pairs[at + 1] / 1e4; count[pairs[at] - 1]++; }
    return classes.map((c) => [c, count[c] ? sum[c] / count[c] : 0]);
  }

  #histograms(used) {
    const { model } = this, { svg, h } = Review, shown = used.slice(0, 60), parts = 40, box = h("div", { class: "small-plots" }), rows = [];
    for (const c of used) {
      const bins = Review.histogram(model, c, parts), known = bins.reduce((a, b) => a + b, 0);
      let above = 0;
      for (let at = c * model.images; at < (c + 1) * model.images; at++) if (model.levels[at] !== model.unknown && model.levels[at] >= model.handles[c]) above++;
      rows.push([model.run.classes[c], Review.score(model.value(model.handles[c])), known - above, above]);
      if (!shown.includes(c)) continue;
      const top = Math.log1p(Math.max(1, ...bins)), mark = (200 * Math.min(model.handles[c], model.highest)) / model.highest;
      box.append(h("figure", {}, this.#picture(200, 64, ...bins.map((count, place) => svg("rect", { x: place * 5, width: 4.2, y: (60 - (56 * Math.log1p(count)) / top).toFixed(1), height: ((56 * Math.log1p(count)) / top).toFixed(1), class: place * 5 + 2.5 >= mark ? "above" : "below" })),
        svg("path", { d: `M${mark.toFixed(1)} 0V60`, class: "mark" }), svg("path", { d: "M0 60.5H200", class: "axis" })),
      h("figcaption", {}, Review.swatch(model.run.colours[c]), h("span", { class: "label" }, model.run.classes[c]), h("span", { class: "quiet" }, Review.score(model.value(model.handles[c]))))));
    }
    return this.#chart("Scores per class", `Scores from ${Review.score(model.value(0))} to ${Review.score(model.value(model.highest))}; heights by the logarithm, the line is the threshold.`, box, ["Class", "Threshold", "Images below", "Images above"], rows);
  }

  #together(used) {
    const { model } = this, { svg } = Review, shown = used.slice(0, 30), k = shown.length, n = model.images, left = Math.min(130, Math.round(0.3 * this.width)), cell = Math.max(8, Math.min(28, Math.floor((this.width - left) / k))), letters = Math.floor(left / 7);
    const counts = shown.map((a) => shown.map((b) => {
      let both = 0;
      for (let i = 0; i < n; i++) both += model.tags[a * n + i] & model.tags[b * n + i];
      return both;
    }));
    let most = 1;
    for (let a = 0; a < k; a++) for (let b = 0; b < k; b++) if (a !== b) most = Math.max(most, counts[a][b]);
    const parts = [], rows = [];
    for (let a = 0; a < k; a++) {
      parts.push(this.#text(left - 6, left + a * cell + cell / 2 + 4, this.#short(model.run.classes[shown[a]], letters), { class: "label", "text-anchor": "end" }));
      parts.push(this.#text(0, 0, this.#short(model.run.classes[shown[a]], letters), { class: "label", transform: `translate(${left + a * cell + cell / 2 + 4} ${left - 6}) rotate(-90)` }));
      for (let b = 0; b < k; b++) {
        const isSelf = a === b, value = counts[a][b];
        parts.push(svg("rect", { x: left + b * cell, y: left + a * cell, width: cell - 1, height: cell - 1, rx: 2, class: isSelf ? "cell is-self" : "cell", "fill-opacity": isSelf ? 1 : value ? (0.15 + (0.85 * value) / most).toFixed(3) : 0.04 }));
        if (value && cell >= 20 && !isSelf) parts.push(this.#text(left + b * cell + cell / 2 - 0.5, left + a * cell + cell / 2 + 4, String(value), { class: value / most > 0.45 ? "cell-text is-light" : "cell-text", "text-anchor": "middle" }));
        if (a < b && value) rows.push([model.run.classes[shown[a]], model.run.classes[shown[b]], value]);
      }
    }
    rows.sort((a, b) => b[2] - a[2]);
    const size = left + k * cell + 4, rest = used.length > k ? ` The ${k} most frequent classes of ${used.length}.` : "";
    return this.#chart("Classes that occur together", `Images with both tags.${rest}`, this.#picture(Math.max(this.width, size), size, ...parts), ["Class", "Class", "Images with both"], rows);
  }

  #ignored() {
    const { model } = this, bins = new Array(20).fill(0), { svg } = Review;
    let masks = 0;
    for (let i = 0; i < model.images; i++) if (model.marks[i] & Review.flags.mask) { bins[Math.min(19, Math.floor(model.ignored[i] / 500))]++; masks++; }
    const part = (this.width - 40) / 20, isWide = part > 24;
    const most = Math.max(1, ...bins), parts = bins.flatMap((count, place) => [
      svg("rect", { x: 20 + place * part, width: 0.86 * part, y: (140 - (120 * count) / most).toFixed(1), height: ((120 * count) / most).toFixed(1), class: "above" }),
      count && isWide ? this.#text(20 + (place + 0.43) * part, (135 - (120 * count) / most).toFixed(1), count.toLocaleString("en"), { class: "value", "text-anchor": "middle" }) : this.#text(0, 0, "")]);
    for (const share of [0, 25, 50, 75, 100]) parts.push(this.#text(20 + share * part / 5, 158, `${share}\u202f%`, { class: "value", "text-anchor": "middle" }));
    parts.push(svg("path", { d: `M20 140.5H${this.width - 20}`, class: "axis" }));
    return this.#chart("Ignored share", `Images by the share of pixels that their mask leaves open, of ${Review.plural(masks, "mask")}.`, this.#picture(this.width, 166, ...parts), ["Ignored share", "Images"],
      bins.map((count, place) => [`${place * 5} to ${place * 5 + 5}\u202f%`, count]));
  }

  #ranks() {
    const { model } = this, sorted = Float64Array.from(model.doubts).sort().reverse(), n = sorted.length, { svg } = Review, points = Math.min(n, 300), long = this.width - 64, at = (rank) => sorted[Math.min(n - 1, Math.round(rank))];
    let line = "";
    for (let place = 0; place < points; place++) {
      const rank = points > 1 ? (place * (n - 1)) / (points - 1) : 0;
      line += `${place ? "L" : "M"}${(44 + (points > 1 ? (long * place) / (points - 1) : 0)).toFixed(1)} ${(140 - 130 * at(rank)).toFixed(1)}`;
    }
    const parts = [svg("path", { d: `M44 140.5H${44 + long}M44 10V140.5`, class: "axis" }), svg("path", { d: line, class: "line" })];
    for (const value of [0, 0.5, 1]) parts.push(this.#text(38, 144 - 130 * value, value.toFixed(1), { class: "value", "text-anchor": "end" }));
    for (const share of [0, 0.25, 0.5, 0.75, 1]) parts.push(this.#text(44 + long * share, 158, Math.max(1, Math.round(share * n)).toLocaleString("en"), { class: "value", "text-anchor": "middle" }));
    const rows = [...new Set([0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1].map((share) => Math.min(n - 1, Math.round(share * (n - 1)))))].map((rank) => [(rank + 1).toLocaleString("en"), at(rank).toFixed(3)]);
    return this.#chart("Doubt over rank", "The doubt of the images, the most doubtful first: where the line falls, reviewing begins to pay less.", this.#picture(this.width, 166, ...parts), ["Rank", "Doubt"], rows);
  }
};
