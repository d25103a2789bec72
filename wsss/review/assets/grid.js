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

// A chip of a card. It is made once and says one class after another: making elements anew is what takes a browser's time.
Review.Chip = class {
  constructor(onToggle) {
    const { h } = Review;
    this.dot = h("span", { class: "dot", "aria-hidden": "true", hidden: true });
    this.swatch = Review.swatch("transparent");
    this.name = h("span", { class: "chip-name" }, "-");
    this.score = h("span", { class: "chip-score" }, "-");
    this.more = h("span", { class: "sr" }, "");
    this.element = h("button", { type: "button", class: "chip", onclick: (event) => { event.stopPropagation(); onToggle(this.c); } },
      this.dot, this.swatch, this.name, " ", this.score, this.more);
  }

  show(model, c, i) {
    const name = model.run.classes[c], on = model.has(c, i), decided = model.decided[c * model.images + i];
    const score = model.scoreOf(c, i), isDoubtful = model.marginOf(c, i) >= Review.doubtful, { element } = this;
    const by = decided ? model.prior.get(i) : undefined, said = by?.added[c] ?? by?.removed[c];
    const kind = `chip${on ? " is-on" : decided === 2 ? " is-removed" : " is-near"}${isDoubtful ? " is-doubtful" : ""}${decided ? " is-decided" : ""}`;
    const who = decided ? (said ? `, ${on ? "added" : "removed"} by ${said}` : on ? ", added by hand" : ", removed by hand") : "";
    const state = `${c} ${kind} ${score} ${who}`;
    if (this.state === state) return;
    this.state = state;
    if (this.c !== c) {
      this.c = c;
      this.swatch.style.background = model.run.colours[c];
      element.dataset.class = String(c);
      Review.setText(this.name, name);
    }
    if (element.className !== kind) element.className = kind;
    Review.setAttribute(element, "aria-pressed", String(on));
    const words = `${name}${score === null ? "" : `, score ${Review.score(score)}`}${isDoubtful ? ", doubtful" : ""}${who}`;
    element.title = `${words}: click to ${on ? "remove" : "add"}`;
    this.dot.hidden = !decided;
    this.score.hidden = score === null;
    if (score !== null) Review.setText(this.score, Review.score(score));
    Review.setText(this.more, `${isDoubtful ? ", doubtful" : ""}${who}`);
    element.hidden = false;
  }

  hide() {
    if (this.element.hidden) return;
    this.state = "";
    this.c = -1;
    this.element.hidden = true;
    this.element.removeAttribute("data-class");
  }
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
    this.spare = []; // cards that are not shown
    this.at = 0; // place in the view of the current image
    this.unpainted = new Set(); // cards whose pictures are still to be drawn
    this.waiting = 0; // timer of what comes after the words, and when it was first put off
    this.since = 0;
    const follow = Review.perFrame(() => { this.top = this.scroller.scrollTop; this.render(); });
    this.scroller.addEventListener("scroll", follow, { passive: true });
    new ResizeObserver(() => { this.measure(); this.render(); }).observe(this.scroller);
    this.measure();
  }

  // Where things are. Kept, because asking the browser after a change makes it lay out the page at once.
  measure() {
    this.top = this.scroller.scrollTop;
    this.seen = this.scroller.clientHeight;
    const width = this.scroller.clientWidth - 32, narrow = width < 560, gap = narrow ? 8 : 16;
    this.columns = Math.max(1, Math.floor((width + gap) / ((narrow ? 156 : 232) + gap)));
    this.cardWidth = Math.floor((width - gap * (this.columns - 1)) / this.columns);
    this.pictureHeight = Math.round(this.cardWidth * 0.72);
    this.cardHeight = this.pictureHeight + 104;
    this.rowHeight = this.cardHeight + gap;
    this.gap = gap;
    this.page = Math.max(1, Math.floor(this.seen / this.rowHeight));
  }

  get image() {
    return this.view.places[this.at];
  }

  // Shows the view anew; the current image stays the current one where it is still there.
  reset(image) {
    const place = image === undefined ? -1 : this.view.places.indexOf(image);
    const hadFocus = this.list.contains(document.activeElement);
    this.at = Math.max(0, place);
    const before = [...this.cards].sort((a, b) => a[0] - b[0]).map(([, card]) => card);
    this.cards.clear();
    this.render(before);
    if (hadFocus) this.cards.get(this.at)?.picture.focus({ preventScroll: true });
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

  // Shows the cards on the screen and, unless the view is new, those of a row on either side.
  // before: of a view that is new, the cards of the one before, in their order.
  render(before = null) {
    const count = this.view.places.length, rows = Math.ceil(count / this.columns);
    const height = Math.max(0, rows * this.rowHeight - this.gap), beyond = before === null ? 1 : 0;
    if (this.height !== height) { this.height = height; this.list.style.height = `${height}px`; }
    if (this.seen === 0) { for (const card of before ?? []) this.#retire(card); return; }
    this.top = Math.min(this.top, Math.max(0, height + 32 - this.seen)); // as the browser will have it
    const first = Math.max(0, Math.floor(this.top / this.rowHeight) - beyond) * this.columns;
    const last = Math.min(count, (Math.ceil((this.top + this.seen) / this.rowHeight) + beyond) * this.columns);
    for (const [place, card] of this.cards)
      if (place < first || place >= last) {
        this.cards.delete(place);
        this.#retire(card);
      }
    // Cards that have an image already keep it; of the others, each stays where it is in the document if it can.
    const holders = new Map(), free = [];
    for (const card of [...this.spare, ...(before ?? [])]) if (card.image >= 0) holders.set(card.image, card);
    const wanted = new Set();
    for (let place = first; place < last; place++) {
      const holder = this.cards.has(place) ? undefined : holders.get(this.view.places[place]);
      if (holder !== undefined) wanted.add(holder);
    }
    for (const card of before ?? []) if (!wanted.has(card)) free.push(card);
    const spare = this.spare.filter((card) => !wanted.has(card));
    // The document has the cards in the order of the view, for those who hear it.
    let after = null;
    for (let place = last - 1; place >= first; place--) {
      let card = this.cards.get(place);
      const isNew = card === undefined;
      if (isNew) {
        const holder = holders.get(this.view.places[place]);
        card = holder !== undefined && wanted.has(holder) ? holder : free.pop() ?? spare.shift() ?? this.#newCard();
        this.cards.set(place, card);
      }
      let next = card.element.nextElementSibling;
      while (next !== null && next !== after && next.hidden) next = next.nextElementSibling;
      if (next !== after || !card.element.isConnected) this.list.insertBefore(card.element, after);
      this.#put(card, place, count, isNew);
      after = card.element;
    }
    this.spare = spare;
    for (const card of free) this.#retire(card);
    // Cards to spare keep their pictures for a while, but not many: pictures are what takes memory.
    const most = 2 * this.columns;
    if (before === null && this.spare.length > most) for (const card of this.spare.splice(0, this.spare.length - most)) this.#drop(card);
    if (before !== null) this.#later();
  }

  // Words first. Pictures, and rows beyond the screen, follow once the view has been still for a moment, or after a while.
  #later() {
    const now = performance.now();
    if (!this.waiting) this.since = now;
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => { this.waiting = 0; this.top = this.scroller.scrollTop; this.render(); this.#paint(); }, Math.max(0, Math.min(40, this.since + 250 - now)));
  }

  #newCard() {
    const { h } = Review, card = { image: -1, shape: "" };
    // A canvas, not an image: browsers keep what they decoded of images long after they have left the screen.
    card.photo = h("canvas", { class: "photo", "aria-hidden": "true", width: 1, height: 1 });
    card.canvas = h("canvas", { class: "overlay", "aria-hidden": "true", width: 1, height: 1 });
    card.frame = h("span", { class: "frame" }, card.photo, card.canvas);
    card.missing = h("span", { class: "missing" });
    card.badge = h("span", { class: "badge" });
    card.chipList = [];
    card.extra = h("button", { type: "button", class: "chip more", title: "All classes", hidden: true, onclick: () => this.actions.open(card.image) }, "-");
    card.none = h("span", { class: "no-tags", hidden: true }, "-");
    card.picture = h("button", { type: "button", class: "picture", tabIndex: -1, onclick: () => this.actions.open(card.image),
      onfocus: () => this.#focused(card) }, card.frame, card.missing, card.badge);
    card.folder = h("span", { class: "folder" }, "");
    card.base = h("span", { class: "base" }, "");
    card.name = h("span", { class: "name" }, card.folder, card.base);
    card.check = h("button", { type: "button", class: "mark check", "aria-label": "Checked", title: "Checked (c)", tabIndex: -1,
      onclick: () => this.actions.toggleState(card.image, "checked") }, Review.icon("check"));
    card.reject = h("button", { type: "button", class: "mark reject", "aria-label": "Reject", title: "Reject (x)", tabIndex: -1,
      onclick: () => this.actions.toggleState(card.image, "rejected") }, Review.icon("reject"));
    card.chips = h("div", { class: "chips" }, card.extra, card.none);
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
    for (const button of this.#buttons(card)) if (button.tabIndex !== (isCurrent ? 0 : -1)) button.tabIndex = isCurrent ? 0 : -1;
  }

  #buttons(card) {
    return [card.picture, card.check, card.reject, card.extra, ...card.chipList.map((chip) => chip.element)];
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
    Review.setAttribute(element, "aria-posinset", String(place + 1));
    Review.setAttribute(element, "aria-setsize", String(count));
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
    Review.setText(card.missing, hasPhoto ? "" : model.marks[i] & Review.flags.gone ? "The photo is not there any more" : "The photo cannot be read");
    card.missing.hidden = Boolean(hasPhoto);
    // Nothing of the image before; it is hidden and not cleared, which is less work.
    card.photo.classList.add("is-old");
    card.canvas.classList.add("is-old");
    this.unpainted.add(card);
    if (!this.waiting) this.#paintSoon();
  }

  #paintSoon() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => setTimeout(() => { this.asked = false; if (!this.waiting) this.#paint(); }, 0));
  }

  #paint() {
    for (const card of this.unpainted) {
      if (!card.element.isConnected || card.element.hidden) card.image = -1;
      else {
        if (this.model.marks[card.image] & Review.flags.thumb) this.#draw(card, card.image);
        this.#overlay(card, card.image);
      }
    }
    this.unpainted.clear();
  }

  async #draw(card, i) {
    const image = new Image();
    image.src = this.model.file(i, ".webp");
    await new Promise((resolve) => { image.onload = image.onerror = resolve; });
    if (card.image !== i || !image.naturalWidth) return;
    await Review.turn();
    if (card.image !== i) return;
    const bitmap = await createImageBitmap(image).catch(() => null);
    if (bitmap === null) return;
    if (card.image === i) {
      card.photo.width = bitmap.width;
      card.photo.height = bitmap.height;
      card.photo.getContext("2d").drawImage(bitmap, 0, 0);
      card.photo.classList.remove("is-old");
      if (!this.model.heights[i]) this.#shape(card, i);
    }
    bitmap.close();
  }

  async #overlay(card, i) {
    const { mode } = this.settings;
    if (mode === "none") { Review.overlays.clear(card.canvas); return; }
    const overlay = await Review.overlays.get(this.model, i, () => card.image === i);
    await Review.turn();
    if (card.image !== i || this.settings.mode !== mode) return;
    if (overlay === undefined) { this.#overlay(card, i); return; } // it was given up, and is wanted again
    card.canvas.classList.toggle("is-heat", mode === "maps");
    Review.overlays.paint(card.canvas, overlay, this.model.run.colours, mode, this.hidden(), (c) => this.isShown(c));
    card.canvas.classList.remove("is-old");
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
    if (card.name.title !== id) {
      const end = id.lastIndexOf("/") + 1;
      Review.setText(card.folder, id.slice(0, end));
      Review.setText(card.base, id.slice(end));
      card.name.title = id;
    }
    element.classList.toggle("is-rejected", state === "rejected");
    element.classList.toggle("is-checked", state === "checked");
    Review.setAttribute(card.check, "aria-pressed", String(state === "checked"));
    Review.setAttribute(card.reject, "aria-pressed", String(state === "rejected"));
    const badge = state === "rejected" ? "Rejected" : failure ? "Failed" : model.note(i) !== "" ? "Note" : "";
    Review.setText(card.badge, badge);
    card.badge.hidden = badge === "";
    if (state !== null) words.push(state);
    if (failure) words.push("failed");
    const tags = model.tagsOf(i).map((c) => model.run.classes[c]);
    Review.setAttribute(card.picture, "aria-label", `Open ${words.join(", ")}: ${tags.length ? tags.join(", ") : "no tags"}`);
    this.#chips(card, i, failure);
  }

  #chips(card, i, failure) {
    const { model } = this, room = this.cardWidth - 16, chips = Review.chipsOf(model, i);
    const focused = card.chipList.find((chip) => chip.element === document.activeElement)?.c;
    let line = 0, used = 0, shown = 0;
    for (const [place, c] of chips.entries()) {
      const width = Math.min(room, 62 + 6.6 * model.run.classes[c].length);
      if (used && used + width > room) { line++; used = 0; }
      const isLast = place === chips.length - 1;
      if (line > 1 || (line === 1 && !isLast && used + width > room - 36)) break;
      used += width + 4;
      shown++;
    }
    const isCurrent = this.cards.get(this.at) === card;
    for (let place = 0; place < shown; place++) {
      let chip = card.chipList[place];
      if (chip === undefined) {
        chip = new Review.Chip((c) => this.actions.toggleTag(c, card.image));
        chip.element.tabIndex = isCurrent ? 0 : -1;
        card.chipList.push(chip);
        card.extra.before(chip.element);
      }
      chip.show(model, chips[place], i);
    }
    for (let place = shown; place < card.chipList.length; place++) card.chipList[place].hide();
    const rest = chips.length - shown;
    card.extra.hidden = rest === 0;
    if (rest) {
      Review.setText(card.extra, `+${rest}`);
      Review.setAttribute(card.extra, "aria-label", `${rest} more classes`);
    }
    card.none.hidden = chips.length > 0;
    if (!chips.length) {
      card.none.title = failure ? failure[2] : "";
      Review.setText(card.none, failure ? `Failed: ${failure[2]}` : "No tags");
    }
    if (focused !== undefined) (card.chipList.find((chip) => chip.c === focused)?.element ?? card.picture).focus({ preventScroll: true });
  }

  // What an image, or all of them, say now.
  update(image) {
    for (const card of this.cards.values()) if (image === undefined || card.image === image) this.fill(card, card.image);
  }

  go(place, focus = true) {
    const count = this.view.places.length;
    if (!count) return;
    place = Math.min(Math.max(place, 0), count - 1);
    const above = Math.floor(place / this.columns) * this.rowHeight, below = above + this.cardHeight + 32 - this.seen;
    if (above < this.top) this.scrollTo(above);
    else if (below > this.top) this.scrollTo(below);
    this.#current(place);
    this.render();
    if (focus) this.cards.get(place)?.picture.focus({ preventScroll: true });
  }

  scrollTo(top) {
    this.scroller.scrollTop = top;
    this.top = this.scroller.scrollTop;
  }
};
