"use strict";
// The grid of cards. Only what is on the screen, and a row on either side, is in the document.
globalThis.Review ??= {};

Review.doubtful = 0.75; // chips of classes at least this doubtful are outlined

// What to show of an image's classes: its tags, those that a person removed, and the likeliest one that it just misses.
Review.chipsOf = (model, i) => {
  const n = model.images, chips = [];
  let near = -1, nearest = Review.doubtful;
  for (let c = 0; c < model.classes; c++) {
    const at = c * n + i, decided = model.decided[at];
    if (model.tags[at] || decided === 2) chips.push(c);
    else {
      const doubt = model.marginOf(c, i);
      if (doubt >= nearest && doubt < 1) { nearest = doubt; near = c; }
    }
  }
  const level = (c) => (model.levels[c * n + i] === model.unknown ? -1 : model.levels[c * n + i]);
  chips.sort((a, b) => level(b) - level(a) || a - b);
  return near >= 0 ? [...chips, near] : chips;
};

Review.chip = (model, c, i, onToggle) => {
  const { h } = Review, name = model.run.classes[c], on = model.has(c, i), decided = model.decided[c * model.images + i];
  const score = model.scoreOf(c, i), doubt = model.marginOf(c, i);
  const kind = `chip${on ? " is-on" : decided === 2 ? " is-removed" : " is-near"}${doubt >= Review.doubtful ? " is-doubtful" : ""}${decided ? " is-decided" : ""}`;
  const by = model.prior.get(i), said = by?.added[c] ?? by?.removed[c];
  const who = decided ? (said ? `, ${on ? "added" : "removed"} by ${said}` : on ? ", added by hand" : ", removed by hand") : "";
  const words = `${name}${score === null ? "" : `, score ${Review.score(score)}`}${doubt >= Review.doubtful ? ", doubtful" : ""}${who}`;
  return h("button", { type: "button", class: kind, "aria-pressed": String(on), "data-class": String(c),
    title: `${words}: click to ${on ? "remove" : "add"}`, onclick: (event) => { event.stopPropagation(); onToggle(c, i); } },
  decided ? h("span", { class: "dot", "aria-hidden": "true" }) : null, Review.swatch(model.run.colours[c]),
  h("span", { class: "chip-name" }, name), " ", score === null ? null : h("span", { class: "chip-score" }, Review.score(score)),
  h("span", { class: "sr" }, `${doubt >= Review.doubtful ? ", doubtful" : ""}${who}`));
};

Review.Grid = class {
  // actions: open(i), toggleTag(c, i), toggleState(i, state)
  constructor(model, view, settings, actions) {
    this.model = model;
    this.view = view;
    this.settings = settings;
    this.actions = actions;
    this.scroller = document.getElementById("scroller");
    this.list = document.getElementById("cards");
    this.cards = new Map(); // place in the view -> card
    this.spare = [];
    this.at = 0; // place in the view of the current image
    this.unpainted = new Set(); // cards whose pictures are still to be drawn
    this.follow = Review.perFrame(() => this.render());
    this.scroller.addEventListener("scroll", this.follow, { passive: true });
    new ResizeObserver(() => { this.measure(); this.render(); }).observe(this.scroller);
    this.measure();
  }

  measure() {
    const width = this.scroller.clientWidth - 32, narrow = width < 560, gap = narrow ? 8 : 16;
    this.columns = Math.max(1, Math.floor((width + gap) / ((narrow ? 156 : 232) + gap)));
    this.cardWidth = Math.floor((width - gap * (this.columns - 1)) / this.columns);
    this.pictureHeight = Math.round(this.cardWidth * 0.72);
    this.cardHeight = this.pictureHeight + 104;
    this.rowHeight = this.cardHeight + gap;
    this.gap = gap;
    this.page = Math.max(1, Math.floor(this.scroller.clientHeight / this.rowHeight));
  }

  get image() {
    return this.view.places[this.at];
  }

  // Shows the view anew; the current image stays the current one where it is still there.
  reset(image) {
    const place = image === undefined ? -1 : this.view.places.indexOf(image);
    const hadFocus = this.list.contains(document.activeElement);
    this.at = Math.max(0, place);
    this.recycle();
    this.render();
    if (hadFocus) this.cards.get(this.at)?.picture.focus({ preventScroll: true });
  }

  recycle() {
    for (const card of this.cards.values()) this.#retire(card);
    this.cards.clear();
  }

  #retire(card) {
    card.element.hidden = true;
    this.spare.push(card);
  }

  #drop(card) {
    card.image = -1;
    Review.overlays.clear(card.photo);
    Review.overlays.clear(card.canvas);
    card.element.remove();
  }

  // A card that is not shown: the one that has this image already, if there is one.
  #take(i) {
    const same = this.spare.findIndex((card) => card.image === i);
    if (same >= 0) return this.spare.splice(same, 1)[0];
    const card = this.spare.shift() ?? this.#newCard();
    card.image = -1;
    return card;
  }

  render() {
    const count = this.view.places.length, rows = Math.ceil(count / this.columns);
    this.list.style.height = `${Math.max(0, rows * this.rowHeight - this.gap)}px`;
    if (this.scroller.clientHeight === 0) return;
    const top = this.scroller.scrollTop, bottom = top + this.scroller.clientHeight;
    const first = Math.max(0, Math.floor(top / this.rowHeight) - 1) * this.columns;
    const last = Math.min(count, (Math.ceil(bottom / this.rowHeight) + 1) * this.columns);
    for (const [place, card] of this.cards)
      if (place < first || place >= last) {
        this.cards.delete(place);
        this.#retire(card);
      }
    // The document has the cards in the order of the view, for those who hear it.
    let after = null;
    for (let place = last - 1; place >= first; place--) {
      let card = this.cards.get(place);
      if (card === undefined) {
        card = this.#take(this.view.places[place]);
        this.cards.set(place, card);
        this.list.insertBefore(card.element, after);
        this.#put(card, place, count, true);
      } else this.#put(card, place, count, false);
      after = card.element;
    }
    // Cards to spare keep their pictures for a while, but not many: pictures are what takes memory.
    const most = 2 * this.columns;
    if (this.spare.length > most) for (const card of this.spare.splice(0, this.spare.length - most)) this.#drop(card);
  }

  #newCard() {
    const { h } = Review, card = { image: -1, shape: "" };
    // A canvas, not an image: browsers keep what they decoded of images long after they have left the screen.
    card.photo = h("canvas", { class: "photo", "aria-hidden": "true", width: 1, height: 1 });
    card.canvas = h("canvas", { class: "overlay", "aria-hidden": "true", width: 1, height: 1 });
    card.frame = h("span", { class: "frame" }, card.photo, card.canvas);
    card.missing = h("span", { class: "missing" });
    card.badge = h("span", { class: "badge" });
    card.picture = h("button", { type: "button", class: "picture", tabIndex: -1, onclick: () => this.actions.open(card.image),
      onfocus: () => this.#focused(card) }, card.frame, card.missing, card.badge);
    card.name = h("span", { class: "name" });
    card.check = h("button", { type: "button", class: "mark check", "aria-label": "Checked", title: "Checked (c)", tabIndex: -1,
      onclick: () => this.actions.toggleState(card.image, "checked") }, Review.icon("check"));
    card.reject = h("button", { type: "button", class: "mark reject", "aria-label": "Reject", title: "Reject (x)", tabIndex: -1,
      onclick: () => this.actions.toggleState(card.image, "rejected") }, Review.icon("reject"));
    card.chips = h("div", { class: "chips" });
    card.element = h("li", { class: "card", hidden: true }, card.picture,
      h("div", { class: "line" }, card.name, card.check, card.reject), card.chips);
    this.list.append(card.element);
    return card;
  }

  #focused(card) {
    for (const [place, other] of this.cards) if (other === card) this.#current(place);
  }

  #current(place) {
    const before = this.cards.get(this.at);
    this.at = place;
    for (const card of [before, this.cards.get(place)]) if (card) this.#markCurrent(card, card === this.cards.get(place));
  }

  #markCurrent(card, isCurrent) {
    card.element.classList.toggle("is-current", isCurrent);
    for (const button of card.element.querySelectorAll("button")) button.tabIndex = isCurrent ? 0 : -1;
  }

  #put(card, place, count, isNew) {
    const i = this.view.places[place], { element } = card;
    const shape = `${this.columns} ${this.cardWidth} ${place}`;
    if (card.shape !== shape) {
      card.shape = shape;
      element.style.width = `${this.cardWidth}px`;
      element.style.height = `${this.cardHeight}px`;
      const x = (place % this.columns) * (this.cardWidth + this.gap), y = Math.floor(place / this.columns) * this.rowHeight;
      element.style.transform = `translate(${x}px, ${y}px)`;
      card.picture.style.height = `${this.pictureHeight}px`;
      if (card.image === i) this.#shape(card, i);
    }
    element.hidden = false;
    element.setAttribute("aria-posinset", place + 1);
    element.setAttribute("aria-setsize", count);
    if (card.image !== i) {
      card.image = i;
      this.#picture(card, i);
      this.fill(card, i);
    } else if (isNew) this.fill(card, i);
    this.#markCurrent(card, place === this.at);
  }

  // The frame has the photo's own proportions, so that photo and overlay lie exactly over each other.
  #shape(card, i) {
    const isDrawn = card.photo.width > 1, height = this.model.heights[i] || (isDrawn && card.photo.height) || 3;
    const width = this.model.widths[i] || (isDrawn && card.photo.width) || 4;
    const factor = Math.min(this.cardWidth / width, this.pictureHeight / height);
    card.frame.style.width = `${Math.round(width * factor)}px`;
    card.frame.style.height = `${Math.round(height * factor)}px`;
  }

  #picture(card, i) {
    const { model } = this, hasPhoto = model.marks[i] & Review.flags.thumb;
    this.#shape(card, i);
    Review.overlays.clear(card.photo);
    card.missing.textContent = hasPhoto ? "" : model.marks[i] & Review.flags.gone ? "The photo is not there any more" : "The photo cannot be read";
    card.missing.hidden = Boolean(hasPhoto);
    Review.overlays.clear(card.canvas);
    this.#paintLater(card);
  }

  // The words of a card come with the next frame, its pictures after it: an answer is never late for their sake.
  #paintLater(card) {
    if (!this.unpainted.size) requestAnimationFrame(() => setTimeout(() => this.#paint(), 0));
    this.unpainted.add(card);
  }

  async #paint() {
    const start = performance.now();
    for (const card of this.unpainted) {
      this.unpainted.delete(card);
      if (!card.element.isConnected || card.element.hidden) card.image = -1;
      else {
        if (this.model.marks[card.image] & Review.flags.thumb) await this.#draw(card, card.image);
        this.#overlay(card, card.image);
      }
      if (performance.now() - start > 8 && this.unpainted.size) {
        requestAnimationFrame(() => setTimeout(() => this.#paint(), 0));
        return;
      }
    }
  }

  async #draw(card, i) {
    const image = new Image();
    image.src = this.model.file(i, ".webp");
    await new Promise((resolve) => { image.onload = image.onerror = resolve; });
    if (card.image !== i || !image.naturalWidth) return;
    const bitmap = await createImageBitmap(image).catch(() => null);
    if (bitmap === null) return;
    if (card.image === i) {
      card.photo.width = bitmap.width;
      card.photo.height = bitmap.height;
      card.photo.getContext("2d").drawImage(bitmap, 0, 0);
      if (!this.model.heights[i]) this.#shape(card, i);
    }
    bitmap.close();
  }

  async #overlay(card, i) {
    const { mode } = this.settings;
    if (mode === "none") { Review.overlays.clear(card.canvas); return; }
    const overlay = await Review.overlays.get(this.model, i, () => card.image === i);
    if (card.image !== i || this.settings.mode !== mode) return;
    card.canvas.classList.toggle("is-heat", mode === "maps");
    Review.overlays.paint(card.canvas, overlay, this.model.run.colours, mode, this.hidden(), (c) => this.isShown(c));
  }

  // One class at a time: the chosen one.
  hidden() {
    if (!this.settings.single || this.view.filters.class < 0) return new Set();
    const only = this.view.filters.class + 1;
    return new Set([Review.ignored, ...Array.from({ length: this.model.classes }, (_, c) => c + 1)].filter((label) => label !== only));
  }

  isShown(c) {
    return !this.settings.single || this.view.filters.class < 0 || c === this.view.filters.class;
  }

  repaint() {
    for (const card of this.cards.values()) this.#overlay(card, card.image);
  }

  fill(card, i) {
    const { model } = this, id = model.ids[i], state = model.state(i), failure = model.failed.get(i);
    const { element } = card, words = [id];
    card.name.textContent = id;
    card.name.title = id;
    element.classList.toggle("is-rejected", state === "rejected");
    element.classList.toggle("is-checked", state === "checked");
    card.check.setAttribute("aria-pressed", String(state === "checked"));
    card.reject.setAttribute("aria-pressed", String(state === "rejected"));
    const badge = state === "rejected" ? "Rejected" : failure ? "Failed" : model.note(i) !== "" ? "Note" : "";
    card.badge.textContent = badge;
    card.badge.hidden = badge === "";
    if (state !== null) words.push(state);
    if (failure) words.push("failed");
    const tags = model.tagsOf(i).map((c) => model.run.classes[c]);
    card.picture.setAttribute("aria-label", `Open ${words.join(", ")}: ${tags.length ? tags.join(", ") : "no tags"}`);
    this.#chips(card, i, failure);
  }

  #chips(card, i, failure) {
    const { model } = this, toggle = (c, image) => this.actions.toggleTag(c, image), room = this.cardWidth - 16, found = [];
    const chips = Review.chipsOf(model, i), focused = card.chips.contains(document.activeElement) ? document.activeElement.dataset.class : null;
    let line = 0, used = 0;
    for (const [place, c] of chips.entries()) {
      const width = Math.min(room, 62 + 6.6 * model.run.classes[c].length);
      if (used && used + width > room) { line++; used = 0; }
      const isLast = place === chips.length - 1;
      if (line > 1 || (line === 1 && !isLast && used + width > room - 36)) {
        found.push(Review.h("button", { type: "button", class: "chip more", "aria-label": `${chips.length - place} more classes`, title: "All classes",
          onclick: () => this.actions.open(card.image) }, `+${chips.length - place}`));
        break;
      }
      used += width + 4;
      found.push(Review.chip(model, c, i, toggle));
    }
    if (!chips.length) found.push(Review.h("span", { class: "no-tags", title: failure ? failure[2] : "" }, failure ? `Failed: ${failure[2]}` : "No tags"));
    card.chips.replaceChildren(...found);
    const isCurrent = this.cards.get(this.at) === card;
    for (const button of card.chips.querySelectorAll("button")) button.tabIndex = isCurrent ? 0 : -1;
    if (focused !== null) (card.chips.querySelector(`[data-class="${focused}"]`) ?? card.picture).focus({ preventScroll: true });
  }

  // What an image, or all of them, say now.
  update(image) {
    for (const card of this.cards.values()) if (image === undefined || card.image === image) this.fill(card, card.image);
  }

  go(place, focus = true) {
    const count = this.view.places.length;
    if (!count) return;
    place = Math.min(Math.max(place, 0), count - 1);
    const top = Math.floor(place / this.columns) * this.rowHeight, { scrollTop, clientHeight } = this.scroller;
    if (top < scrollTop) this.scroller.scrollTop = top;
    else if (top + this.cardHeight + 32 > scrollTop + clientHeight) this.scroller.scrollTop = top + this.cardHeight + 32 - clientHeight;
    this.#current(place);
    this.render();
    if (focus) this.cards.get(place)?.picture.focus({ preventScroll: true });
  }
};
