"use strict";
// One image at a time: the photo itself with zoom and pan, the mask at full size, all classes, a note.
globalThis.Review ??= {};

Review.Detail = class {
  constructor(model, grid, settings, actions) {
    this.model = model;
    this.grid = grid;
    this.settings = settings;
    this.actions = actions;
    this.dialog = document.getElementById("detail");
    this.image = -1;
    this.hidden = new Set(); // labels that are not shown
    this.heat = -1; // class whose map is shown; -1: all tags
    this.scale = 1;
    this.x = this.y = 0;
    this.#build();
  }

  get isOpen() {
    return this.dialog.open;
  }

  #build() {
    const { h, icon } = Review, button = (name, label, keys, work) => h("button", { type: "button", class: "icon-button",
      "aria-label": label, title: keys ? `${label} (${keys})` : label, onclick: work }, icon(name));
    this.name = h("h2", { id: "detail-name" });
    this.place = h("p", { class: "detail-place" });
    this.check = h("button", { type: "button", class: "button", title: "Checked, and on to the next (c)", onclick: () => this.actions.checkAndNext() }, icon("check"), h("span", {}, "Checked"));
    this.reject = h("button", { type: "button", class: "button", title: "Take this image out of the data set (x)", onclick: () => this.actions.toggleState(this.image, "rejected") }, icon("reject"), h("span", {}, "Reject"));
    this.photo = h("img", { class: "photo", alt: "", draggable: false });
    this.small = h("img", { class: "photo", alt: "", draggable: false });
    this.canvas = h("canvas", { class: "overlay", "aria-hidden": "true", width: 1, height: 1 });
    this.content = h("div", { class: "content" }, this.small, this.photo, this.canvas);
    this.stage = h("div", { class: "stage", tabIndex: 0, role: "img", "aria-label": "Photo" }, this.content);
    this.zoomText = h("span", { class: "zoom-text", "aria-live": "off" });
    this.remark = h("p", { class: "remark", hidden: true });
    const zoom = h("div", { class: "zoom", role: "group", "aria-label": "Zoom" },
      button("minus", "Zoom out", "-", () => this.zoomBy(1 / 1.4)), this.zoomText, button("plus", "Zoom in", "+", () => this.zoomBy(1.4)),
      button("fit", "Whole photo", "0", () => this.fit()));
    this.modes = Review.modeControl(this.settings, "detail-mode", () => this.actions.settingsChanged());
    this.legend = h("ul", { class: "legend", role: "list" });
    this.classes = h("ul", { class: "scores", role: "list" });
    this.find = h("input", { type: "search", placeholder: "Find a class", "aria-label": "Find a class in the list", autocomplete: "off", oninput: () => this.#filterClasses() });
    this.note = h("textarea", { id: "note", rows: 2, maxLength: 10000, placeholder: "A remark about this image", onchange: () => this.model.setNote(this.image, this.note.value) });
    this.reason = h("p", { class: "reason" });
    this.history = h("p", { class: "reason", hidden: true });
    this.dialog.append(
      h("header", { class: "detail-top" },
        h("div", { class: "detail-title" }, this.name, this.place),
        h("div", { class: "actions" }, this.check, this.reject,
          button("left", "Previous image", "k", () => this.actions.step(-1)), button("right", "Next image", "j", () => this.actions.step(1)),
          button("cross", "Close", "Esc", () => this.close()))),
      h("div", { class: "detail-body" },
        h("div", { class: "viewer" }, this.stage, zoom, this.remark),
        h("div", { class: "side", tabIndex: 0, role: "region", "aria-label": "Tags, legend and note" },
          h("section", {}, this.reason, this.history),
          h("section", { "aria-label": "Overlay" }, this.modes.element, this.legend),
          h("section", { class: "score-section" }, h("div", { class: "rail-head" }, h("h3", {}, "Classes by score"), this.model.classes > 20 ? this.find : null), this.classes),
          h("section", {}, h("label", { htmlFor: "note", class: "note-label" }, "Note"), this.note))));
    this.dialog.addEventListener("close", () => this.#closed());
    this.dialog.addEventListener("cancel", () => { this.keepNote(); });
    this.#listen();
    new ResizeObserver(() => { if (this.isOpen) this.#layout(); }).observe(this.stage);
  }

  open(i) {
    if (i === undefined) return;
    this.keepNote();
    const isOther = i !== this.image;
    this.image = i;
    if (!this.isOpen) {
      this.dialog.showModal();
      this.stage.focus({ preventScroll: true });
    }
    if (isOther) {
      this.hidden = new Set();
      this.heat = -1;
      this.overlay = null;
      this.find.value = "";
    }
    this.#load(i);
    this.update();
    this.fit();
    this.dialog.querySelector(".side").scrollTop = 0;
  }

  close() {
    this.keepNote();
    this.dialog.close();
  }

  keepNote() {
    if (this.image >= 0 && this.isOpen) this.model.setNote(this.image, this.note.value);
  }

  #closed() {
    this.photo.removeAttribute("src");
    Review.overlays.clear(this.canvas);
    this.image = -1;
    this.actions.detailClosed();
  }

  // ---- pictures

  #load(i) {
    const { model } = this, addresses = model.photoAddresses(i), hasThumb = model.marks[i] & Review.flags.thumb;
    this.height = model.heights[i];
    this.width = model.widths[i];
    this.small.hidden = !hasThumb;
    if (hasThumb) this.small.src = model.file(i, ".webp");
    this.photo.hidden = true;
    this.photo.onload = () => {
      if (this.image !== i) return;
      this.photo.hidden = false;
      if (!this.height) { this.height = this.photo.naturalHeight; this.width = this.photo.naturalWidth; this.fit(); }
    };
    const only = hasThumb ? "this is its thumbnail" : "there is no thumbnail of it either";
    this.photo.onerror = () => {
      if (this.image !== i) return;
      if (addresses.length) this.photo.src = addresses.shift();
      else this.#remark(`The photo cannot be shown here (it was moved, or this browser does not read its format): ${only}.`);
    };
    this.#remark("");
    if (model.marks[i] & Review.flags.gone) this.#remark(`The photo is not there any more: ${only}.`);
    else if (model.problems.has(i)) this.#remark(`The photo cannot be read: ${model.problems.get(i)}`);
    else if (!addresses.length) this.#remark(`The browser would turn the photo, and the run did not: ${only}.`);
    if (!addresses.length || model.marks[i] & Review.flags.gone) this.photo.removeAttribute("src");
    else this.photo.src = addresses.shift();
    if (!this.height) { this.height = 3; this.width = 4; this.small.onload = () => { if (this.image === i && !this.model.heights[i]) { this.height = this.small.naturalHeight; this.width = this.small.naturalWidth; this.fit(); } }; } else this.small.onload = null;
    this.#overlays(i);
  }

  #remark(text) {
    this.remark.textContent = text;
    this.remark.hidden = text === "";
  }

  async #overlays(i) {
    Review.overlays.clear(this.canvas);
    const overlay = await Review.overlays.get(this.model, i, () => this.image === i);
    if (this.image !== i) return;
    this.overlay = overlay ?? null;
    this.repaint();
    this.#legend(i);
    const mask = await Review.overlays.full(this.model, i);
    if (this.image !== i || mask === null) return;
    this.overlay = { mask, maps: overlay?.maps ?? null };
    this.repaint();
  }

  repaint() {
    const { mode } = this.settings;
    this.canvas.classList.toggle("is-heat", mode === "maps");
    const isShown = (c) => (this.heat < 0 ? !this.hidden.has(c + 1) : c === this.heat);
    Review.overlays.paint(this.canvas, this.overlay, this.model.run.colours, mode, this.hidden, isShown);
    this.modes.show();
  }

  // ---- zoom and pan

  #listen() {
    const { stage } = this, fingers = new Map();
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = stage.getBoundingClientRect();
      this.zoomBy(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    stage.addEventListener("dblclick", (event) => {
      const box = stage.getBoundingClientRect();
      if (this.scale > 1.01) this.fit();
      else this.zoomBy(3, event.clientX - box.left, event.clientY - box.top);
    });
    stage.addEventListener("pointerdown", (event) => {
      stage.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
    });
    stage.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (before === undefined) return;
      const box = stage.getBoundingClientRect(), other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
      if (other) {
        const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
        this.zoomBy(apart([event.clientX, event.clientY]) / apart(before), (event.clientX + other[0]) / 2 - box.left, (event.clientY + other[1]) / 2 - box.top);
      } else this.panBy(event.clientX - before[0], event.clientY - before[1]);
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
    });
    for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, (event) => fingers.delete(event.pointerId));
  }

  #layout() {
    const box = this.stage.getBoundingClientRect(), factor = Math.min(box.width / this.width, box.height / this.height);
    this.shownWidth = this.width * factor;
    this.shownHeight = this.height * factor;
    this.content.style.width = `${this.shownWidth}px`;
    this.content.style.height = `${this.shownHeight}px`;
    this.#place();
  }

  fit() {
    this.scale = 1;
    this.x = this.y = 0;
    this.#layout();
  }

  zoomBy(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    const scale = Math.min(Math.max(this.scale * factor, 1), 24), change = scale / this.scale;
    const middleX = this.stage.clientWidth / 2, middleY = this.stage.clientHeight / 2;
    this.x = (this.x - (x - middleX)) * change + (x - middleX);
    this.y = (this.y - (y - middleY)) * change + (y - middleY);
    this.scale = scale;
    this.#place();
  }

  panBy(x, y) {
    this.x += x;
    this.y += y;
    this.#place();
  }

  #place() {
    const free = (shown, room) => Math.max(0, (shown * this.scale - room) / 2);
    const right = free(this.shownWidth, this.stage.clientWidth), down = free(this.shownHeight, this.stage.clientHeight);
    this.x = Math.min(Math.max(this.x, -right), right);
    this.y = Math.min(Math.max(this.y, -down), down);
    this.content.style.transform = `translate(-50%, -50%) translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.stage.classList.toggle("is-zoomed", this.scale > 1.01);
    this.zoomText.textContent = `${Math.round(100 * this.scale)}\u202f%`;
    this.canvas.classList.toggle("is-close", this.scale * this.shownWidth > 2 * this.canvas.width && this.settings.mode !== "maps");
  }

  // ---- words

  update() {
    const { model, image: i } = this;
    if (i < 0) return;
    const state = model.state(i), place = this.grid.view.places.indexOf(i), id = model.ids[i];
    this.name.textContent = id;
    this.name.title = id;
    this.place.textContent = place < 0 ? "" : `${(place + 1).toLocaleString("en")} of ${this.grid.view.places.length.toLocaleString("en")}`;
    const tags = model.tagsOf(i).map((c) => model.run.classes[c]).join(", ");
    this.stage.setAttribute("aria-label", `Photo ${id}: ${tags || "no tags"}`);
    this.check.setAttribute("aria-pressed", String(state === "checked"));
    this.reject.setAttribute("aria-pressed", String(state === "rejected"));
    if (document.activeElement !== this.note) this.note.value = model.note(i);
    this.#words(i);
    this.#legend(i);
    this.#scores(i);
  }

  #words(i) {
    const { model } = this, failure = model.failed.get(i), worst = model.worst[i], parts = [];
    if (failure) parts.push(`Failed (${failure[0] || "unknown stage"}): ${failure[2]}`);
    else if (model.settled[i]) parts.push("Doubt 0: you have decided.");
    else {
      parts.push(`Doubt ${model.doubts[i].toFixed(2)}.`);
      if (worst >= 0 && model.run.has_scores) {
        const threshold = model.value(Review.doubt.threshold(model.doubtInput, worst, i));
        parts.push(`Closest call: ${model.run.classes[worst]}, score ${Review.score(model.scoreOf(worst, i))}, threshold ${Review.score(threshold)}.`);
      }
      if (model.ignored[i] >= 100) parts.push(`${Review.percent(model.ignored[i] / 1e4)} of the mask is ignored.`);
      if (model.confidence[i] >= 0) parts.push(`Mean confidence of the mask: ${Review.percent(model.confidence[i] / 1e4)}.`);
      const rivals = Review.doubt.rivalry(model.doubtInput, i);
      if (rivals >= 0.05) parts.push(`Two of its tags share ${Review.percent(rivals)} of their maps.`);
    }
    this.reason.textContent = parts.join(" ");
    const prior = model.prior.get(i), list = (said) => Object.entries(said).map(([c, by]) => `${model.run.classes[c]}${by ? ` (${by})` : ""}`).join(", ");
    const before = [];
    if (prior) {
      if (Object.keys(prior.added).length) before.push(`added ${list(prior.added)}`);
      if (Object.keys(prior.removed).length) before.push(`removed ${list(prior.removed)}`);
      if (prior.state) before.push(`${prior.state}${prior.by ? ` (${prior.by})` : ""}`);
      before.push(`the machine said ${prior.machine.map((c) => model.run.classes[c]).join(", ") || "nothing"}`);
    }
    this.history.hidden = !before.length;
    this.history.textContent = `Corrected before: ${before.join("; ")}.`;
  }

  #legend(i) {
    const { model } = this, { h } = Review, pairs = model.shares[i], rows = [], seen = new Set();
    const focused = this.legend.contains(document.activeElement) ? document.activeElement.id : null;
    const row = (label, share, name, colour) => {
      const isOn = !this.hidden.has(label), c = label - 1, hasMap = label > 0 && this.overlay?.maps?.classes.includes(c);
      const eye = label === 0 ? h("span", { class: "swatch is-blank", "aria-hidden": "true" })
        : h("input", { type: "checkbox", id: `show-${label}`, checked: isOn, "aria-label": `Show ${name}`, onchange: () => { if (!this.hidden.delete(label)) this.hidden.add(label); this.repaint(); this.#legend(i); } });
      const swatch = colour ? Review.swatch(colour) : label === Review.ignored ? h("span", { class: "swatch is-hatched", "aria-hidden": "true" }) : null;
      rows.push(h("li", {}, eye, swatch, h("span", { class: "legend-name" }, name), h("span", { class: "legend-share" }, share === null ? "" : Review.percent(share / 1e4)),
        hasMap ? h("button", { type: "button", id: `heat-${label}`, class: "text-button", "aria-pressed": String(this.heat === c && this.settings.mode === "maps"), title: `Show the map of ${name} alone`, onclick: () => { this.heat = this.heat === c && this.settings.mode === "maps" ? -1 : c; this.settings.mode = "maps"; this.actions.settingsChanged(); this.#legend(i); } }, "Map")
          : label > 0 ? h("button", { type: "button", id: `only-${label}`, class: "text-button", title: `Show ${name} alone`, onclick: () => this.#only(label, pairs, i) }, "Only") : h("span", {})));
      seen.add(label);
    };
    for (let at = 0; at < pairs.length; at += 2) {
      const label = pairs[at];
      row(label, pairs[at + 1], label === Review.ignored ? "ignored" : label === 0 ? "background" : model.run.classes[label - 1], label > 0 ? model.run.colours[label - 1] : null);
    }
    for (const c of this.overlay?.maps?.classes ?? []) if (!seen.has(c + 1)) row(c + 1, pairs.length ? 0 : null, model.run.classes[c], model.run.colours[c]);
    if (!rows.length) rows.push(h("li", { class: "quiet" }, "No mask: this run has tags only, or the mask is missing."));
    this.legend.replaceChildren(...rows);
    if (focused) document.getElementById(focused)?.focus();
  }

  #only(label, pairs, i) {
    const labels = pairs.filter((_, at) => at % 2 === 0 && pairs[at] !== 0), others = labels.filter((other) => other !== label);
    const isAlone = others.length > 0 && others.every((other) => this.hidden.has(other)) && !this.hidden.has(label);
    this.hidden = new Set(isAlone ? [] : others);
    this.repaint();
    this.#legend(i);
  }

  #scores(i) {
    const { model } = this, { h } = Review, top = model.highest, focused = this.classes.contains(document.activeElement) ? document.activeElement.dataset.class : null;
    const rows = model.ranked(i).map((c, place) => {
      const on = model.has(c, i), level = model.levels[c * model.images + i], known = level !== model.unknown, decided = model.decided[c * model.images + i];
      const name = model.run.classes[c], bar = h("span", { class: "bar", "aria-hidden": "true" });
      if (known) {
        const fill = h("span", { class: "bar-fill" }), mark = h("span", { class: "bar-mark" });
        fill.style.width = `${Math.min(100, (100 * level) / top)}%`;
        mark.style.left = `${Math.min(100, (100 * Review.doubt.threshold(model.doubtInput, c, i)) / top)}%`;
        bar.append(fill, mark);
      }
      const score = known ? Review.score(model.value(level)) : "", by = decided === 1 ? ", added by hand" : decided === 2 ? ", removed by hand" : "";
      return h("li", { "data-name": name.toLocaleLowerCase() }, h("button", { type: "button", class: `score${on ? " is-on" : ""}`, "aria-pressed": String(on), "data-class": String(c),
        title: `Click to ${on ? "remove" : "add"} ${name}`, onclick: () => this.actions.toggleTag(c, i) },
      h("span", { class: "tick", "aria-hidden": "true" }, on ? Review.icon("check") : null), Review.swatch(model.run.colours[c]),
      h("span", { class: "score-name" }, name), decided ? h("span", { class: "dot", "aria-hidden": "true" }) : null, bar,
      h("span", { class: "score-value" }, score), by === "" ? null : h("span", { class: "sr" }, by), h("kbd", { class: place < 9 ? "" : "is-blank", "aria-hidden": "true" }, place < 9 ? String(place + 1) : "")));
    });
    this.classes.replaceChildren(...rows);
    this.#filterClasses();
    if (focused !== null) this.classes.querySelector(`[data-class="${focused}"]`)?.focus({ preventScroll: true });
  }

  #filterClasses() {
    const wanted = this.find.value.trim().toLocaleLowerCase();
    for (const row of this.classes.children) row.hidden = !row.dataset.name.includes(wanted);
  }
};

// Fill, outline, maps or none, one class only, and how strong: the same control over the grid and in the dialog.
Review.modeControl = (settings, name, changed) => {
  const { h } = Review, inputs = [];
  const group = h("div", { class: "segments", role: "radiogroup", "aria-label": "Overlay" });
  for (const [value, text] of [["fill", "Masks"], ["outline", "Outline"], ["maps", "Maps"], ["none", "None"]]) {
    const input = h("input", { type: "radio", name, value, class: "sr", onchange: () => { settings.mode = value; changed(); } });
    inputs.push(input);
    group.append(h("label", { class: "segment" }, input, h("span", {}, text)));
  }
  const opacity = h("input", { type: "range", min: 10, max: 100, step: 5, class: "opacity", "aria-label": "Strength of the overlay", title: "Strength of the overlay",
    oninput: () => { settings.opacity = Number(opacity.value); changed(true); } });
  const element = h("div", { class: "modes" }, group, opacity);
  const show = () => {
    for (const input of inputs) input.checked = input.value === settings.mode;
    opacity.value = settings.opacity;
    opacity.disabled = settings.mode === "none";
  };
  show();
  return { element, show };
};
