"use strict";
// The left rail: a row per class with its histogram and threshold, and the filters.
globalThis.Review ??= {};

Review.Rail = class {
  constructor(model, view, refresh) {
    this.model = model;
    this.view = view;
    this.refresh = refresh;
    this.rows = [];
    this.drag = null;
    this.list = document.getElementById("classes");
    this.#build();
    this.#buildFilters();
    document.getElementById("reset-thresholds").addEventListener("click", () =>
      model.resetThresholds(Array.from({ length: model.classes }, (_, c) => c)));
    document.getElementById("clear-filters").addEventListener("click", () => this.clear());
    if (model.classes > 12) {
      document.getElementById("class-search-box").hidden = false;
      document.getElementById("class-search").addEventListener("input", (event) => this.#find(event.target.value));
    }
  }

  #build() {
    const { model } = this, { h } = Review, fragment = document.createDocumentFragment();
    for (let c = 0; c < model.classes; c++) {
      const name = model.run.classes[c], hasScores = model.run.has_scores && model.doubtInput.high[c] >= 0;
      const row = {
        count: h("span", { class: "count" }),
        gained: h("span", { class: "delta" }),
        name: h("button", { type: "button", class: "class-name", "aria-pressed": "false", title: `Show images with ${name}`,
          onclick: () => this.choose(c) }, Review.swatch(model.run.colours[c]), h("span", { class: "label" }, name)),
      };
      row.element = h("li", { class: "class" }, h("div", { class: "class-head" }, row.name, row.gained, row.count));
      if (hasScores) this.#addThreshold(row, c, name);
      this.rows.push(row);
      fragment.append(row.element);
    }
    this.list.append(fragment);
    for (let c = 0; c < model.classes; c++) this.updateClass(c);
  }

  #addThreshold(row, c, name) {
    const { model } = this, { h } = Review;
    row.range = h("input", { type: "range", class: "handle", min: 0, max: model.highest, step: model.grain,
      "aria-label": `Threshold of ${name}`,
      oninput: () => { this.drag = model.setThreshold(c, Number(row.range.value), this.drag); },
      onchange: () => { this.drag = null; },
      onkeydown: (event) => this.#arrow(event, c) });
    row.number = h("input", { type: "number", class: "number", step: 0.01, min: model.value(0), max: model.value(model.run.scale.highest),
      "aria-label": `Threshold of ${name} as a number`, title: "Threshold",
      onchange: () => {
        const value = Number(row.number.value);
        if (row.number.value.trim() !== "" && Number.isFinite(value)) model.setThreshold(c, model.nearest(value));
        this.updateClass(c);
      } });
    row.reset = h("button", { type: "button", class: "icon-button small", title: "Back to the run's own tags",
      "aria-label": `Reset the threshold of ${name}`, onclick: () => { model.resetThresholds([c]); row.range.focus(); } },
    Review.icon("reset"));
    row.element.append(h("div", { class: "threshold" },
      h("div", { class: "histogram" }, this.#histogram(c), row.range), row.number, row.reset));
  }

  // A step of the arrow keys is a hundredth of the axis, with Shift the smallest one.
  #arrow(event, c) {
    const { model } = this, sign = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (sign === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    const step = model.grain * (event.shiftKey ? 1 : Math.max(1, Math.round(model.highest / model.grain / 100)));
    const level = Math.round(model.handles[c] / model.grain) * model.grain + sign * step;
    model.setThreshold(c, Math.min(level, model.highest));
  }

  // Bars for the scores of a class, higher by the logarithm: most images show no object of most classes.
  #histogram(c) {
    const { model } = this, bins = Review.histogram(model, c, 48);
    const top = Math.log1p(Math.max(1, ...bins)), width = 100 / bins.length;
    let bars = "";
    bins.forEach((count, place) => {
      if (!count) return;
      const height = Math.max(1.5, (22 * Math.log1p(count)) / top);
      bars += `M${(place * width).toFixed(2)} 24h${(width * 0.86).toFixed(2)}v-${height.toFixed(1)}h-${(width * 0.86).toFixed(2)}z`;
    });
    const clip = `clip-${c}`;
    const rect = Review.svg("rect", { x: 0, y: 0, width: 100, height: 24 });
    this.clips ??= [];
    this.clips[c] = rect;
    return Review.svg("svg", { viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true", class: "bars" },
      Review.svg("clipPath", { id: clip }, rect),
      Review.svg("path", { d: bars, class: "below" }),
      Review.svg("path", { d: bars, class: "above", "clip-path": `url(#${clip})` }),
      Review.svg("path", { d: "M0 24h100", class: "axis" }));
  }

  updateClass(c) {
    const { model } = this, row = this.rows[c], { tagged, gained, lost } = model.counts(c);
    Review.setText(row.count, tagged.toLocaleString("en"));
    row.count.title = Review.plural(tagged, "image");
    Review.setText(row.gained, gained || lost ? `+${gained} \u2212${lost}` : "");
    row.gained.title = gained || lost ? `${gained} tags gained, ${lost} lost` : "";
    row.element.classList.toggle("is-empty", tagged === 0);
    row.element.classList.toggle("is-moved", Boolean(model.moved[c]));
    if (row.range === undefined) return;
    const level = Math.min(model.handles[c], model.highest);
    if (Number(row.range.value) !== level) row.range.value = level;
    row.range.setAttribute("aria-valuetext", `${model.value(model.handles[c])}, ${Review.plural(tagged, "image")}`);
    const text = String(Number(model.value(model.handles[c]).toFixed(4)));
    if (row.number.value !== text) row.number.value = text;
    row.reset.hidden = !model.moved[c];
    this.clips[c].setAttribute("x", ((100 * level) / model.highest).toFixed(2));
  }

  update(change) {
    const classes = change?.classes ?? this.rows.keys();
    for (const c of classes) this.updateClass(c);
    document.getElementById("reset-thresholds").hidden = !this.model.moved.some(Boolean);
  }

  choose(c) {
    const { filters } = this.view;
    filters.class = filters.class === c ? -1 : c;
    filters.has = "with";
    this.showFilters();
    this.refresh();
  }

  focusThreshold() {
    const { filters } = this.view, row = this.rows[Math.max(0, filters.class)];
    if (row?.range === undefined) return;
    document.body.classList.add("rail-open");
    row.element.scrollIntoView({ block: "nearest" });
    row.range.focus();
  }

  #find(text) {
    const wanted = text.trim().toLocaleLowerCase();
    this.rows.forEach((row, c) => { row.element.hidden = !this.model.run.classes[c].toLocaleLowerCase().includes(wanted); });
  }

  // ---- filters

  #buildFilters() {
    const { h } = Review, { model } = this, box = document.getElementById("filters");
    this.controls = [];
    const has = h("div", { class: "segments", role: "group", "aria-label": "Images with or without the chosen class" });
    for (const [value, text] of [["with", "With it"], ["without", "Without"], ["any", "All"]]) {
      const button = h("button", { type: "button", "aria-pressed": "false", onclick: () => { this.view.filters.has = value; this.showFilters(); this.refresh(); } }, text);
      this.controls.push(() => Review.setAttribute(button, "aria-pressed", String(this.view.filters.has === value)));
      has.append(button);
    }
    this.classBox = h("div", { class: "filter", hidden: true }, this.classTitle = h("p", { class: "filter-title" }), has);
    box.append(this.classBox);
    const show = h("div", { class: "toggles", role: "group", "aria-label": "Show only" });
    const kinds = [["unchecked", "Unchecked"], ["checked", "Checked"], ["corrected", "Corrected"], ["rejected", "Rejected"],
      ["untagged", "Without tags"], ["failed", "Failed"], ["noted", "With a note"]];
    for (const [kind, text] of kinds) {
      const button = h("button", { type: "button", class: "toggle", "aria-pressed": "false", onclick: () => {
        const chosen = this.view.filters.show;
        if (!chosen.delete(kind)) chosen.add(kind);
        this.showFilters();
        this.refresh();
      } }, text);
      this.controls.push(() => Review.setAttribute(button, "aria-pressed", String(this.view.filters.show.has(kind))));
      show.append(button);
    }
    box.append(h("div", { class: "filter" }, show));
    if (model.run.has_scores) this.#addRange(box, "score", "Score", "of the chosen class, or the image's best", model.value(model.run.scale.highest));
    if (model.marks.some((mark) => mark & Review.flags.mask)) {
      this.#addRange(box, "coverage", "Coverage, %", "pixels of any class", 1);
      this.#addRange(box, "ignored", "Ignored, %", "pixels that the mask is not sure of", 1);
      if (model.hasConfidence) this.#addRange(box, "confidence", "Confidence, %", "mean probability of the mask's labels", 1);
    }
  }

  #addRange(box, key, title, hint, highest) {
    const { h } = Review, factor = key === "score" ? 1 : 100;
    const field = (place, label) => {
      const input = h("input", { type: "number", min: 0, max: Math.round(factor * highest * 100) / 100, step: key === "score" ? 0.05 : 5,
        "aria-label": `${title.replace(", %", " in percent")}, ${label}`, placeholder: place ? "max" : "min",
        oninput: () => {
          const value = Number(input.value) / factor;
          this.view.filters[key][place] = input.value.trim() === "" || !Number.isFinite(value) ? (place ? Math.max(1, highest) : 0) : value;
          this.showFilters(input);
          this.refresh();
        } });
      this.controls.push((typed) => {
        if (input === typed) return;
        const value = this.view.filters[key][place];
        input.value = (place ? value >= 1 : value <= 0) ? "" : String(Math.round(1e4 * factor * value) / 1e4);
      });
      return input;
    };
    box.append(h("div", { class: "filter range" }, h("p", { class: "filter-title", title: hint }, title), field(0, "at least"), h("span", { "aria-hidden": "true" }, "–"), field(1, "at most")));
  }

  showFilters(typed = null) {
    const { filters } = this.view, c = filters.class;
    for (const show of this.controls) show(typed);
    this.rows.forEach((row, place) => {
      Review.setAttribute(row.name, "aria-pressed", String(place === c));
      row.element.classList.toggle("is-chosen", place === c);
    });
    this.classBox.hidden = c < 0;
    if (c >= 0) this.classTitle.textContent = this.model.run.classes[c];
    document.getElementById("clear-filters").hidden = !this.view.isFiltered;
  }

  clear() {
    this.view.filters = Review.View.noFilters();
    document.getElementById("search").value = "";
    this.showFilters();
    this.refresh();
  }
};

// How many images have a score of a class in each of some equal parts of the axis.
Review.histogram = (model, c, parts) => {
  const bins = new Array(parts).fill(0), from = c * model.images, scale = parts / (model.highest + 1);
  for (let at = from; at < from + model.images; at++) {
    const level = model.levels[at];
    if (level !== model.unknown) bins[Math.min(parts - 1, Math.floor(level * scale))]++;
  }
  return bins;
};
