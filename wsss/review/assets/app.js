"use strict";
// Puts the parts together: the top bar, keys, saving, and what one part has to tell the others.
globalThis.Review ??= {};

Review.App = class {
  constructor(run, chunks) {
    this.model = new Review.Model(run, chunks);
    this.view = new Review.View(this.model);
    this.tastes = { theme: "", mode: "fill", opacity: 60, single: false, keys: true, by: "", ...(Review.store.read("tagclip-review") ?? {}) };
    if (!["fill", "outline", "maps", "none"].includes(this.tastes.mode)) this.tastes.mode = "fill";
    this.key = `tagclip-review:${run.id}`;
    this.#restore();
    this.settings = this.tastes;
    const actions = {
      open: (i) => this.detail.open(i), toggleTag: (c, i) => this.toggleTag(c, i), toggleState: (i, state) => this.toggleState(i, state),
      checkAndNext: () => this.checkAndNext(), step: (by) => this.step(by), settingsChanged: (cheap) => this.settingsChanged(cheap),
      detailClosed: () => this.grid.go(this.grid.at),
    };
    this.rail = new Review.Rail(this.model, this.view, () => this.refresh());
    this.grid = new Review.Grid(this.model, this.view, this.settings, actions);
    this.detail = new Review.Detail(this.model, this.grid, this.settings, actions);
    this.charts = new Review.Charts(this.model, this.view);
    this.reorder = Review.perFrame(() => this.refresh());
    this.keep = Review.perFrame(() => { clearTimeout(this.timer); this.timer = setTimeout(() => this.store(), 250); });
    this.#tools();
    this.#top();
    this.#keys();
    this.model.onChange((change) => this.changed(change));
    this.rail.update();
    this.rail.showFilters();
    this.applySettings();
    this.refresh();
    this.showCounts();
  }

  // ---- what outlives a reload

  #restore() {
    const kept = Review.store.read(this.key);
    if (kept === null || typeof kept !== "object") return;
    const strange = this.model.take(kept);
    this.model.dirty = Boolean(kept.unsaved) && this.model.hasCorrections;
    if (strange) setTimeout(() => Review.toast(8, `${Review.plural(strange, "earlier correction")} of classes or images that this run does not have: left out.`), 0);
  }

  store() {
    const { model } = this;
    const state = model.hasCorrections ? { ...model.corrections(""), unsaved: model.dirty } : null;
    if (!Review.store.write(this.key, state) && model.dirty && !this.warned) {
      this.warned = true;
      Review.toast(12, "This browser cannot keep your work over a reload. Save often.");
    }
  }

  storeTastes() {
    Review.store.write("tagclip-review", this.tastes);
  }

  // ---- changes

  changed(change) {
    if (change.kind === "image") {
      this.rail.update(change);
      this.grid.update(change.image);
      if (this.detail.image === change.image) this.detail.update();
      this.showStale();
    } else if (change.kind === "thresholds") {
      this.rail.update(change);
      this.reorder();
      if (this.detail.isOpen) this.detail.update();
    }
    this.charts.later();
    this.showCounts();
    this.keep();
  }

  // Filters and sorts anew. place: of the image that is the current one then; without it, the one that is it now.
  refresh(place) {
    const image = this.grid.image;
    this.view.update();
    this.grid.reset(place === undefined ? image : this.view.places[place]);
    const count = this.view.places.length, all = this.model.images;
    Review.setText(document.getElementById("shown"), count === all ? Review.plural(count, "image") : `${count.toLocaleString("en")} of ${Review.plural(all, "image")}`);
    this.showEmpty(count);
    this.showStale();
    document.getElementById("clear-filters").hidden = !this.view.isFiltered;
  }

  showEmpty(count) {
    const empty = document.getElementById("empty"), { h } = Review;
    empty.hidden = count > 0;
    document.getElementById("scroller").classList.toggle("is-empty", count === 0);
    if (count > 0) return;
    if (!this.model.images) empty.replaceChildren(h("h2", {}, "This run has no images"), h("p", {}, "Run `tagclip run` on a folder that has some, then `tagclip review` again."));
    else empty.replaceChildren(h("h2", {}, "No image matches"), h("p", {}, "The filters leave nothing over."), h("button", { type: "button", class: "button", onclick: () => this.rail.clear() }, "Clear the filters"));
  }

  showStale() {
    // Decisions change doubts; the order stays until it is asked for, so that no image runs away.
    this.again.hidden = !(this.view.sort === "doubt" && this.model.past.some((step) => step.kind === "image") && this.view.stale);
  }

  showCounts() {
    const { model } = this, totals = model.totals(), { h } = Review, parts = [Review.plural(model.images, "image")];
    for (const [key, word] of [["checked", "checked"], ["corrected", "corrected"], ["rejected", "rejected"], ["failed", "failed"]]) if (totals[key]) parts.push(`${totals[key].toLocaleString("en")} ${word}`);
    const words = parts.join(" ");
    if (this.words !== words) document.getElementById("counts").replaceChildren(...parts.map((part) => h("span", {}, part)));
    this.words = words;
    document.getElementById("undo").disabled = !model.past.length;
    document.getElementById("redo").disabled = !model.future.length;
    document.getElementById("save").disabled = !model.hasCorrections && !model.dirty;
    document.getElementById("save").classList.toggle("is-unsaved", model.dirty);
    const title = `${model.dirty ? "* " : ""}${model.run.name} – review`;
    if (document.title !== title) document.title = title;
  }

  toggleTag(c, i) {
    const on = this.model.toggleTag(c, i);
    this.view.stale = true;
    this.showStale();
    Review.say(`${this.model.run.classes[c]} ${on ? "added" : "removed"}`);
  }

  toggleState(i, state) {
    if (i === undefined || i < 0) return;
    const next = this.model.state(i) === state ? null : state;
    this.view.stale = true;
    this.model.setState(i, next);
    Review.say(next === null ? "Neither checked nor rejected" : next === "checked" ? "Checked" : "Rejected");
  }

  checkAndNext() {
    const i = this.current();
    if (i === undefined) return;
    if (this.model.state(i) !== "checked") this.toggleState(i, "checked");
    this.step(1);
  }

  current() {
    return this.detail.isOpen ? this.detail.image : this.grid.image;
  }

  step(by) {
    const { grid, detail, view } = this;
    const from = detail.isOpen ? view.places.indexOf(detail.image) : grid.at, to = from + by;
    if (to < 0 || to >= view.places.length) { Review.say(by > 0 ? "This is the last image" : "This is the first image"); return; }
    grid.go(to, !detail.isOpen);
    if (detail.isOpen) detail.open(view.places[to]);
  }

  // ---- tools over the grid

  #tools() {
    const { h } = Review, box = document.getElementById("grid-tools");
    this.modes = Review.modeControl(this.settings, "mode", (cheap) => this.settingsChanged(cheap));
    const sorts = [["doubt", "Most doubtful first"], ["name", "Name"], ["score", "Score"], ["coverage", "Coverage"], ["ignored", "Ignored share"], ["confidence", "Least confident first"], ["random", "Random"]]
      .filter(([key]) => (key !== "score" || this.model.run.has_scores) && (key !== "confidence" || this.model.hasConfidence) && ((key !== "coverage" && key !== "ignored") || this.model.marks.some((mark) => mark & Review.flags.mask)));
    this.sort = h("select", { id: "sort", "aria-label": "Order", onchange: () => { this.view.sort = this.sort.value; if (this.grid.top > 0) this.grid.scrollTo(0); this.refresh(0); } }, sorts.map(([value, text]) => h("option", { value }, text)));
    this.turn = h("button", { type: "button", class: "icon-button", "aria-label": "Reverse the order", "aria-pressed": "false", title: "Reverse the order", onclick: () => {
      this.view.reversed = !this.view.reversed;
      this.turn.setAttribute("aria-pressed", String(this.view.reversed));
      this.turn.replaceChildren(Review.icon(this.view.reversed ? "up" : "down"));
      this.refresh();
    } }, Review.icon("down"));
    this.again = h("button", { type: "button", class: "text-button", hidden: true, title: "Your decisions have changed some doubts", onclick: () => this.refresh() }, "Sort again");
    this.single = h("button", { type: "button", class: "toggle", "aria-pressed": String(this.settings.single), title: "Show only the chosen class in masks and maps", onclick: () => { this.settings.single = !this.settings.single; this.settingsChanged(); } }, "One class");
    box.append(this.again, h("div", { class: "sort" }, this.sort, this.turn, this.single), this.modes.element);
  }

  settingsChanged(cheap = false) {
    this.applySettings();
    this.storeTastes();
    if (cheap) return;
    this.grid.repaint();
    if (this.detail.isOpen) this.detail.repaint();
  }

  applySettings() {
    document.documentElement.style.setProperty("--overlay", String(this.settings.opacity / 100));
    this.modes.show();
    this.detail.modes.show();
    this.single.setAttribute("aria-pressed", String(this.settings.single));
    if (this.tastes.theme) document.documentElement.dataset.theme = this.tastes.theme;
    else delete document.documentElement.dataset.theme;
  }

  // ---- top bar

  #top() {
    const click = (id, work) => document.getElementById(id).addEventListener("click", work);
    click("undo", () => this.undo());
    click("redo", () => this.redo());
    click("help", () => this.help());
    click("save", () => this.save());
    click("theme", () => {
      const isDark = matchMedia("(prefers-color-scheme: dark)").matches, shown = this.tastes.theme || (isDark ? "dark" : "light");
      const other = shown === "dark" ? "light" : "dark";
      this.tastes.theme = other === (isDark ? "dark" : "light") ? "" : other; // back to what the system says, if that is it
      this.applySettings();
      this.storeTastes();
      Review.say(`${other} colours`);
    });
    document.getElementById("search").addEventListener("input", (event) => { this.view.filters.search = event.target.value.trim(); this.reorder(); });
    const openRail = (open) => {
      document.body.classList.toggle("rail-open", open);
      document.getElementById("open-rail").setAttribute("aria-expanded", String(open));
      document.getElementById(open ? "close-rail" : "open-rail").focus();
    };
    click("open-rail", () => openRail(true));
    click("close-rail", () => openRail(false));
    for (const name of ["images", "charts"]) click(`tab-${name}`, () => this.showTab(name));
    document.querySelector(".tabs").addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      event.preventDefault();
      event.stopPropagation();
      const name = document.getElementById("charts").hidden ? "charts" : "images";
      this.showTab(name);
      document.getElementById(`tab-${name}`).focus();
    });
    addEventListener("beforeunload", (event) => { this.detail.keepNote(); this.store(); if (this.model.dirty) event.preventDefault(); });
    addEventListener("pagehide", () => this.store());
  }

  showTab(name) {
    for (const other of ["images", "charts"]) {
      const tab = document.getElementById(`tab-${other}`);
      tab.setAttribute("aria-selected", String(other === name));
      tab.tabIndex = other === name ? 0 : -1;
      document.getElementById(other).hidden = other !== name;
    }
    document.querySelector(".tools").classList.toggle("is-charts", name === "charts");
    if (name === "charts") this.charts.draw();
    else { this.grid.measure(); this.grid.render(); }
  }

  undo() {
    const step = this.model.undo();
    this.view.stale = true;
    this.showStale();
    if (step) Review.say(`Undone: ${step.text}`);
  }

  redo() {
    const step = this.model.redo();
    this.view.stale = true;
    this.showStale();
    if (step) Review.say(`Done again: ${step.text}`);
  }

  save() {
    this.detail.keepNote();
    if (document.getElementById("save").disabled) return;
    const { h } = Review, saved = new Date().toISOString().replace(/\.\d+Z$/, "Z");
    this.model.by = this.tastes.by;
    const text = `${JSON.stringify(this.model.corrections(saved), null, 1)}\n`;
    const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    const link = h("a", { href: address, download: "corrections.json" });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 60000);
    this.model.markSaved();
    this.store();
    Review.toast(12, h("p", {}, "corrections.json is with your downloads. Masks follow with:"), h("code", {}, Review.command(this.model.run)));
  }

  help() {
    const { h } = Review, dialog = document.getElementById("about");
    const keys = [["j / k, arrows", "next, previous image"], ["Enter", "open the image"], ["Esc", "close"], ["c", "checked, and on to the next"], ["x", "reject, or take that back"],
      ["1 … 9", "add or remove the nine best classes"], ["t", "threshold of the chosen class"], ["o", "masks, outline, maps, none"], ["z, Shift+z", "undo, redo"],
      ["/", "search"], ["s", "save"], ["+ − 0", "zoom, in an open image"], ["?", "this help"]];
    const by = h("input", { id: "by", type: "text", value: this.tastes.by, maxLength: 200, autocomplete: "name", oninput: () => { this.tastes.by = by.value.trim(); this.storeTastes(); } });
    const single = h("input", { id: "single-keys", type: "checkbox", checked: this.tastes.keys, onchange: () => { this.tastes.keys = single.checked; this.storeTastes(); } });
    const file = h("input", { id: "load", type: "file", accept: ".json,application/json", onchange: () => this.#load(file) });
    dialog.replaceChildren(
      h("header", { class: "detail-top" }, h("h2", { id: "about-title" }, "Help"), h("button", { type: "button", class: "icon-button", "aria-label": "Close", onclick: () => dialog.close() }, Review.icon("cross"))),
      h("div", { class: "about-body" },
        h("p", {}, "Images come with the most doubtful first. Click a tag to remove it; open an image to see all classes and to add one. Move a threshold to change a class everywhere. Your work stays in this browser until you save it; Save writes corrections.json, from which masks, exports and trainings follow:"),
        h("code", {}, Review.command(this.model.run)),
        h("h3", {}, "Keys"), h("table", { class: "keys" }, h("tbody", {}, keys.map(([key, text]) => h("tr", {}, h("th", { scope: "row" }, h("kbd", {}, key)), h("td", {}, text))))),
        h("p", {}, h("label", { class: "check-label" }, single, " Keys of a single letter or figure")),
        h("h3", {}, "Corrections"),
        h("p", {}, h("label", { htmlFor: "by" }, "Your name, written into corrections.json "), by),
        h("p", {}, h("label", { htmlFor: "load" }, "Continue from a saved corrections.json "), file),
        h("h3", {}, "Signs"),
        h("ul", { class: "signs" }, h("li", {}, h("span", { class: "chip is-on is-doubtful" }, "cat"), " doubtful: near its threshold"), h("li", {}, h("span", { class: "chip is-near is-doubtful" }, "dog"), " no tag, but nearly one"),
          h("li", {}, h("span", { class: "chip is-on is-decided" }, h("span", { class: "dot" }), "sofa"), " added by hand"), h("li", {}, h("span", { class: "chip is-removed is-decided" }, h("span", { class: "dot" }), "bird"), " removed by hand"),
          h("li", {}, h("span", { class: "swatch is-hatched" }), " ignored pixels"))));
    dialog.showModal();
  }

  async #load(file) {
    try {
      const corrections = JSON.parse(await file.files[0].text());
      if (corrections?.format !== 1 || typeof corrections.images !== "object") throw new Error("not a corrections.json");
      const isOther = corrections.run?.id !== this.model.run.id;
      const strange = this.model.take(corrections);
      this.model.markTaken();
      this.store();
      document.getElementById("about").close();
      Review.toast(8, `Corrections taken${isOther ? " from another run" : ""}${strange ? `; ${strange} of classes or images that this run does not have left out` : ""}.`);
    } catch (error) {
      Review.toast(8, `This file is no corrections.json of this page: ${error.message}`);
    }
  }

  // ---- keys

  #keys() {
    document.addEventListener("keydown", (event) => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
      const { target, key } = event, isTyping = target.matches?.("input:not([type=radio]):not([type=checkbox]):not([type=range]):not([type=file]), textarea, select");
      if (key === "Escape" && isTyping && !document.querySelector("dialog[open]")) { target.blur(); return; }
      if (isTyping || document.getElementById("about").open) return;
      if (key === "Escape" && document.body.classList.contains("rail-open")) { document.getElementById("close-rail").click(); return; }
      if (this.#special(event) || (this.tastes.keys && this.#letter(event))) event.preventDefault();
    });
  }

  #special(event) {
    const { key, target } = event, { grid, detail } = this, inGrid = grid.list.contains(target) || target === document.body || target === grid.scroller;
    if (detail.isOpen) {
      const onStage = target === detail.stage || target === document.body || target === detail.dialog;
      if (onStage && key === "ArrowRight") { this.step(1); return true; }
      if (onStage && key === "ArrowLeft") { this.step(-1); return true; }
      if (key === "+" || key === "=") { detail.zoomBy(1.4); return true; }
      if (key === "-") { detail.zoomBy(1 / 1.4); return true; }
      if (key === "0") { detail.fit(); return true; }
      return false;
    }
    if (!inGrid || document.getElementById("images").hidden) return false;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: grid.columns, ArrowUp: -grid.columns, PageDown: grid.columns * grid.page, PageUp: -grid.columns * grid.page, Home: -Infinity, End: Infinity };
    if (key in steps) { grid.go(grid.at + steps[key]); return true; }
    if (key === "Enter" && !target.matches("button")) { detail.open(grid.image); return true; }
    return false;
  }

  #letter(event) {
    const { key } = event, { grid, detail, model } = this, i = this.current(), hasImage = i !== undefined && i >= 0 && (detail.isOpen || !document.getElementById("images").hidden);
    if (/^[1-9]$/.test(key)) {
      const c = hasImage ? model.ranked(i)[Number(key) - 1] : undefined;
      if (c !== undefined) this.toggleTag(c, i);
      return true;
    }
    switch (key) {
      case "j": this.step(1); return true;
      case "k": this.step(-1); return true;
      case "c": if (hasImage) this.checkAndNext(); return true;
      case "x": if (hasImage) this.toggleState(i, "rejected"); return true;
      case "t": if (!detail.isOpen) this.rail.focusThreshold(); return true;
      case "o": {
        const modes = ["fill", "outline", "maps", "none"];
        this.settings.mode = modes[(modes.indexOf(this.settings.mode) + 1) % modes.length];
        this.settingsChanged();
        Review.say(`Overlay: ${{ fill: "masks", outline: "outline", maps: "maps", none: "none" }[this.settings.mode]}`);
        return true;
      }
      case "z": this.undo(); return true;
      case "Z": this.redo(); return true;
      case "s": this.save(); return true;
      case "/": if (!detail.isOpen) { document.getElementById("search").focus(); document.getElementById("search").select(); } return true;
      case "?": if (!detail.isOpen) this.help(); return true;
      default: return false;
    }
  }
};

// The command that takes the corrections, with the folder in quotes where a shell wants them.
Review.command = (run) => {
  const quoted = /^[\w@%+=:,./-]+$/.test(run.folder) ? run.folder : `'${run.folder.replaceAll("'", "'\\''")}'`;
  return `tagclip mask --run ${quoted} --corrections corrections.json`;
};

Review.start = () => {
  const problem = (text) => document.getElementById("main").replaceChildren(Review.h("p", { class: "notice" }, text));
  if (typeof REVIEW === "undefined") { problem("The data of this page is missing (data/run.js): make it again with `tagclip review`."); return; }
  const { run, chunks } = REVIEW;
  const isWhole = chunks.filter(Boolean).length === run.chunks && chunks.every((chunk) => chunk && chunk.build === run.build);
  if (!isWhole) { problem("The data of this page is not of one piece: it was being written, or files are missing. Run `tagclip review` again, then reload."); return; }
  Review.app = new Review.App(run, chunks);
  performance.mark("review-ready");
  // Sorting by name takes a moment with many images: done before anybody asks.
  (globalThis.requestIdleCallback ?? ((work) => setTimeout(work, 500)))(() => Review.app.view.names());
};
Review.start();
