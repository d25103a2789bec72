"use strict";
// What the page knows: the run as it was stored, what the person says of it, and what follows. Nothing is drawn here.
globalThis.Review ??= {};

Review.flags = { mask: 1, maps: 2, full: 4, thumb: 8, gone: 16 };
Review.ignored = -1; // label of ignored pixels; 0 is the background, c + 1 is class c

Review.Model = class {
  // run: REVIEW.run; chunks: REVIEW.chunks, given back to the browser's memory as they are read.
  constructor(run, chunks) {
    this.run = run;
    this.images = run.images;
    this.classes = run.classes.length;
    this.unknown = run.unknown;
    this.index = new Map(run.classes.map((name, place) => [name, place]));
    this.listeners = [];
    this.past = [];
    this.future = [];
    this.said = new Map(); // image -> {add: Set, remove: Set, state, note}: what is new; state and note undefined: not said
    this.by = "";
    this.dirty = false;
    this.#read(chunks);
    this.handles = Int32Array.from(run.handles);
    this.moved = new Uint8Array(this.classes);
    // Thresholds that an earlier round of corrections has moved: in force like those moved now, but no news.
    this.before = Uint8Array.from({ length: this.classes }, (_, c) => Number(run.moved_before.includes(c)));
    this.inForce = this.before.slice();
    const bounds = Review.doubt.bounds(this.levels, this.images, this.classes, this.unknown);
    this.doubtInput = {
      images: this.images, classes: this.classes, unknown: this.unknown, levels: this.levels, tags: this.tags,
      decided: this.decided, settled: this.settled, ignored: this.ignored, rivals: this.rivals, handles: this.handles,
      moved: this.inForce, relative: run.relative, zero: -run.scale.base, weights: run.doubt, ...bounds,
    };
    this.doubts = new Float64Array(this.images);
    this.best = new Float64Array(this.images);
    this.worst = new Int32Array(this.images);
    this.highest = this.#axis(bounds.high);
    // Levels between two places of a dragged handle: round numbers, and at least 200 places.
    this.grain = [50, 25, 10, 5, 2].find((step) => this.highest / step >= 200) ?? 1;
    for (let i = 0; i < this.images; i++) this.#settle(i);
    this.#allDoubts();
  }

  #read(chunks) {
    const n = this.images, c = this.classes;
    this.ids = [];
    this.photos = [];
    this.heights = new Int32Array(n);
    this.widths = new Int32Array(n);
    this.thumbs = new Int32Array(n);
    this.marks = new Uint8Array(n);
    this.shares = [];
    this.rivals = [];
    this.ignored = new Int32Array(n); // ten-thousandths of the pixels
    this.coverage = new Int32Array(n);
    this.confidence = new Int32Array(n); // mean probability of the mask's labels; -1: not known
    this.failed = new Map();
    this.prior = new Map(); // image -> what a person said before this page was made
    this.problems = new Map();
    this.levels = new Uint16Array(n * c).fill(this.unknown);
    this.base = new Uint8Array(n * c); // class by class, as all of these tables: the run's tags
    this.tags = new Uint8Array(n * c); // the tags that count now
    this.decided = new Uint8Array(n * c); // 1: a person added it, 2: removed it
    this.settled = new Uint8Array(n);
    let at = 0;
    chunks.forEach((chunk, place) => {
      const part = chunk.images, first = at;
      this.#readScores(part.scores, first, part.id.length);
      part.id.forEach((id, row) => {
        this.ids.push(id);
        this.photos.push(part.photo[row]);
        this.heights[at] = part.size[2 * row];
        this.widths[at] = part.size[2 * row + 1];
        this.thumbs[at] = part.thumb[row];
        this.marks[at] = part.flags[row];
        this.shares.push(part.shares[row]);
        this.rivals.push(part.rivals[row]);
        this.confidence[at] = part.confidence[row];
        for (let pair = 0; pair < part.shares[row].length; pair += 2) {
          const label = part.shares[row][pair], share = part.shares[row][pair + 1];
          if (label === Review.ignored) this.ignored[at] = share;
          else if (label > 0) this.coverage[at] += share;
        }
        for (const tag of part.tags[row]) this.base[tag * n + at] = 1;
        at++;
      });
      for (const [row, failure] of Object.entries(part.failed)) this.failed.set(first + Number(row), failure);
      for (const [row, problem] of Object.entries(part.problems)) this.problems.set(first + Number(row), problem);
      for (const [row, said] of Object.entries(part.said)) this.prior.set(first + Number(row), said);
      chunks[place] = null;
    });
    this.tags.set(this.base);
    this.hasConfidence = this.confidence.some((value) => value >= 0);
    this.place = new Map(this.ids.map((id, i) => [id, i]));
    for (const [i, said] of this.prior) {
      for (const tag of Object.keys(said.added)) this.decided[Number(tag) * n + i] = 1;
      for (const tag of Object.keys(said.removed)) this.decided[Number(tag) * n + i] = 2;
    }
  }

  #readScores(base64, first, count) {
    if (base64 === "") return;
    const bytes = Review.png.bytesOf(base64), n = this.images, c = this.classes;
    for (let row = 0, from = 0; row < count; row++)
      for (let tag = 0; tag < c; tag++, from += 2) this.levels[tag * n + first + row] = bytes[from] | (bytes[from + 1] << 8);
  }

  // Where the axis of the scores ends: a little above the highest, so that handles stay on it.
  #axis(high) {
    let top = 1;
    for (let c = 0; c < this.classes; c++) top = Math.max(top, high[c], this.handles[c]);
    return Math.min(this.run.scale.highest, Math.ceil(top * 1.02));
  }

  // ---- scores and thresholds

  // The value of a level, as the command line reads it; see ScoreScale.value.
  value(level) {
    return Number(((this.run.scale.base + level) * this.run.scale.step).toFixed(this.run.scale.digits));
  }

  nearest(value) {
    const level = Math.round(value / this.run.scale.step) - this.run.scale.base;
    return Math.min(Math.max(level, 0), this.run.scale.highest);
  }

  scoreOf(c, i) {
    const level = this.levels[c * this.images + i];
    return level === this.unknown ? null : this.value(level);
  }

  // ---- tags

  has(c, i) {
    return this.tags[c * this.images + i] === 1;
  }

  // The tag that the run and the thresholds give, whatever a person says of this image now; what was said before counts.
  #given(c, i) {
    const at = c * this.images + i, prior = this.prior.get(i);
    if (prior !== undefined) {
      if (String(c) in prior.added) return 1;
      if (String(c) in prior.removed) return 0;
    }
    if (!this.moved[c] || this.levels[at] === this.unknown) return this.base[at];
    return this.levels[at] >= this.handles[c] ? 1 : 0;
  }

  #retag(c, i) {
    const at = c * this.images + i, said = this.said.get(i), prior = this.prior.get(i);
    if (said?.add.has(c)) { this.tags[at] = 1; this.decided[at] = 1; return; }
    if (said?.remove.has(c)) { this.tags[at] = 0; this.decided[at] = 2; return; }
    this.decided[at] = prior === undefined ? 0 : String(c) in prior.added ? 1 : String(c) in prior.removed ? 2 : 0;
    this.tags[at] = this.#given(c, i);
  }

  tagsOf(i) {
    const found = [];
    for (let c = 0; c < this.classes; c++) if (this.tags[c * this.images + i]) found.push(c);
    return found;
  }

  // All classes, the best score first; unknown scores last, tags before others.
  ranked(i) {
    const n = this.images, rank = (c) => {
      const level = this.levels[c * n + i];
      return level === this.unknown ? -1 : level;
    };
    return Array.from({ length: this.classes }, (_, c) => c)
      .sort((a, b) => rank(b) - rank(a) || this.base[b * n + i] - this.base[a * n + i] || a - b);
  }

  marginOf(c, i) {
    return Review.doubt.margin(this.doubtInput, c, i);
  }

  counts(c) {
    let tagged = 0, gained = 0, lost = 0;
    const from = c * this.images, to = from + this.images;
    for (let at = from; at < to; at++) {
      tagged += this.tags[at];
      if (this.tags[at] > this.base[at]) gained++;
      else if (this.tags[at] < this.base[at]) lost++;
    }
    return { tagged, gained, lost };
  }

  // ---- states

  state(i) {
    const said = this.said.get(i);
    return said?.state !== undefined ? said.state : this.prior.get(i)?.state ?? null;
  }

  note(i) {
    const said = this.said.get(i);
    return said?.note !== undefined ? said.note : this.prior.get(i)?.note ?? "";
  }

  isCorrected(i) {
    const said = this.said.get(i), prior = this.prior.get(i);
    if (said !== undefined && (said.add.size || said.remove.size)) return true;
    return prior !== undefined && (Object.keys(prior.added).length > 0 || Object.keys(prior.removed).length > 0);
  }

  isUntagged(i) {
    for (let c = 0; c < this.classes; c++) if (this.tags[c * this.images + i]) return false;
    return true;
  }

  totals() {
    const totals = { checked: 0, corrected: 0, rejected: 0, failed: this.failed.size, untagged: 0 };
    const seen = new Set([...this.said.keys(), ...this.prior.keys()]);
    for (const i of seen) {
      const state = this.state(i);
      if (state === "checked") totals.checked++;
      if (state === "rejected") totals.rejected++;
      if (this.isCorrected(i)) totals.corrected++;
    }
    return totals;
  }

  #settle(i) {
    this.settled[i] = this.state(i) !== null || (this.failed.has(i) && this.isUntagged(i)) ? 1 : 0;
  }

  #allDoubts() {
    Review.doubt.all(this.doubtInput, this.doubts, this.best, this.worst);
  }

  // ---- changes, each with its way back

  #entry(i) {
    const said = this.said.get(i);
    return said === undefined
      ? { add: new Set(), remove: new Set(), state: undefined, note: undefined }
      : { add: new Set(said.add), remove: new Set(said.remove), state: said.state, note: said.note };
  }

  #put(i, entry) {
    const before = this.said.get(i), touched = new Set();
    for (const said of [before, entry]) if (said) for (const c of [...said.add, ...said.remove]) touched.add(c);
    const prior = this.prior.get(i);
    if (entry.state === (prior?.state ?? null)) entry.state = undefined;
    if (entry.note === (prior?.note ?? "")) entry.note = undefined;
    const empty = !entry.add.size && !entry.remove.size && entry.state === undefined && entry.note === undefined;
    if (empty) this.said.delete(i);
    else this.said.set(i, entry);
    for (const c of touched) this.#retag(c, i);
    this.#settle(i);
    Review.doubt.one(this.doubtInput, i, this.doubts, this.best, this.worst);
    return touched;
  }

  #change(step) {
    this.past.push(step);
    this.future = [];
    this.#apply(step, step.after);
  }

  #apply(step, values) {
    this.dirty = true;
    if (step.kind === "image") {
      const touched = this.#put(step.image, { ...values, add: new Set(values.add), remove: new Set(values.remove) });
      this.#tell({ kind: "image", image: step.image, classes: touched });
    } else {
      for (const [c, level, moved] of values) this.#move(c, level, moved);
      if (values.length === 1) Review.doubt.moved(this.doubtInput, values[0][0], this.doubts, this.best, this.worst);
      else this.#allDoubts();
      this.#tell({ kind: "thresholds", classes: new Set(values.map(([c]) => c)) });
    }
  }

  toggleTag(c, i) {
    const after = this.#entry(i), wanted = !this.has(c, i), before = this.#entry(i);
    after.add.delete(c);
    after.remove.delete(c);
    if (this.#given(c, i) !== Number(wanted)) (wanted ? after.add : after.remove).add(c);
    this.#change({ kind: "image", image: i, before, after, text: `${wanted ? "added" : "removed"} ${this.run.classes[c]}` });
    return wanted;
  }

  setState(i, state) {
    const before = this.#entry(i), after = this.#entry(i);
    after.state = state;
    this.#change({ kind: "image", image: i, before, after, text: state ?? "neither checked nor rejected" });
  }

  setNote(i, note) {
    if (note === this.note(i)) return;
    const before = this.#entry(i), after = this.#entry(i);
    after.note = note;
    this.#change({ kind: "image", image: i, before, after, text: "note" });
  }

  #move(c, level, moved) {
    this.handles[c] = level;
    this.moved[c] = moved ? 1 : 0;
    this.inForce[c] = this.moved[c] | this.before[c];
    // As little work as can be: ten thousand images between two frames.
    const { levels, tags, base, decided, unknown } = this, from = c * this.images, to = from + this.images;
    for (let at = from; at < to; at++)
      if (decided[at] === 0) tags[at] = moved && levels[at] !== unknown ? +(levels[at] >= level) : base[at];
  }

  // Moves a threshold. While a handle is dragged, `last` is the step that began the drag: it grows, and is undone at once.
  setThreshold(c, level, last = null) {
    level = Math.min(Math.max(level, 0), this.run.scale.highest);
    const moved = level !== this.run.handles[c];
    if (level === this.handles[c] && moved === Boolean(this.moved[c])) return last;
    if (last !== null && this.past.at(-1) === last) {
      last.after = [[c, level, moved]];
      this.#apply(last, last.after);
      return last;
    }
    const step = {
      kind: "thresholds", before: [[c, this.handles[c], Boolean(this.moved[c])]], after: [[c, level, moved]],
      text: `threshold of ${this.run.classes[c]}`,
    };
    this.#change(step);
    return step;
  }

  resetThresholds(classes) {
    const moved = classes.filter((c) => this.moved[c]);
    if (!moved.length) return;
    this.#change({
      kind: "thresholds", text: "thresholds as the run has them",
      before: moved.map((c) => [c, this.handles[c], true]), after: moved.map((c) => [c, this.run.handles[c], false]),
    });
  }

  undo() {
    const step = this.past.pop();
    if (step === undefined) return null;
    this.future.push(step);
    this.#apply(step, step.before);
    return step;
  }

  redo() {
    const step = this.future.pop();
    if (step === undefined) return null;
    this.past.push(step);
    this.#apply(step, step.after);
    return step;
  }

  // ---- corrections.json

  get hasCorrections() {
    return this.said.size > 0 || this.moved.some(Boolean);
  }

  corrections(saved) {
    const names = (classes) => [...classes].sort((a, b) => a - b).map((c) => this.run.classes[c]);
    const thresholds = {}, images = {};
    // An id or a class may be called "__proto__", which an assignment would not store.
    const store = (target, key, value) => Object.defineProperty(target, key, { value, enumerable: true });
    for (let c = 0; c < this.classes; c++)
      if (this.moved[c]) store(thresholds, this.run.classes[c], this.value(this.handles[c]));
    for (const i of [...this.said.keys()].sort((a, b) => a - b)) {
      // State and note as they stand: of an image that is named here, they replace those of an earlier round.
      const said = this.said.get(i), one = { add: names(said.add), remove: names(said.remove), state: this.state(i), note: this.note(i) };
      store(images, this.ids[i], one);
    }
    const run = { id: this.run.id, manifest_sha256: this.run.manifest_sha256 };
    return { format: 1, run, by: this.by, saved, thresholds, images };
  }

  // Takes what `corrections` gave, of this run or an earlier state of it; says how much of it is of no use here.
  take(corrections) {
    let strange = 0;
    const known = (names) => (names ?? []).map((name) => this.index.get(name)).filter((c) => c !== undefined || !++strange);
    for (const [name, value] of Object.entries(corrections.thresholds ?? {})) {
      const c = this.index.get(name);
      if (c === undefined || typeof value !== "number") { strange++; continue; }
      const level = this.nearest(value);
      this.#move(c, level, level !== this.run.handles[c]);
      const { gained, lost } = this.counts(c);
      // What a later run has taken over is no news.
      if (!gained && !lost && corrections.run?.manifest_sha256 !== this.run.manifest_sha256) this.#move(c, this.run.handles[c], false);
    }
    for (const [id, said] of Object.entries(corrections.images ?? {})) {
      const i = this.place.get(id);
      if (i === undefined) { strange++; continue; }
      const entry = { add: new Set(known(said.add)), remove: new Set(known(said.remove)), state: said.state, note: said.note };
      for (const c of [...entry.add]) if (this.#given(c, i)) entry.add.delete(c);
      for (const c of [...entry.remove]) if (!this.#given(c, i)) entry.remove.delete(c);
      this.#put(i, entry);
    }
    if (typeof corrections.by === "string") this.by = corrections.by;
    this.#allDoubts();
    return strange;
  }

  onChange(listener) {
    this.listeners.push(listener);
  }

  #tell(change) {
    for (const listener of this.listeners) listener(change);
  }

  markSaved() {
    this.dirty = false;
    this.#tell({ kind: "saved" });
  }

  markTaken() {
    this.dirty = true;
    this.past = [];
    this.future = [];
    this.#tell({ kind: "thresholds", classes: new Set(Array.from({ length: this.classes }, (_, c) => c)) });
  }

  // ---- where pictures are

  file(i, suffix) {
    const number = this.thumbs[i];
    return `thumbs/${String(Math.floor(number / 1000)).padStart(4, "0")}/${String(number % 1000).padStart(3, "0")}${suffix}`;
  }

  // Where the photo itself may be, the likeliest place first.
  photoAddresses(i) {
    const link = this.photos[i];
    if (link === 0) return [];
    if (!link.startsWith(".") || link.includes("/")) return [link];
    const path = (this.ids[i] + link).split("/").map(encodeURIComponent).join("/");
    return this.run.photo_roots.map((root) => root + path);
  }
};

// Which images are shown, and in which order.
Review.View = class {
  constructor(model) {
    this.model = model;
    this.filters = Review.View.noFilters();
    this.sort = "doubt";
    this.reversed = false;
    this.places = [];
    this.stale = false;
    this.byName = null;
    this.ranks = {};
  }

  static noFilters() {
    return { class: -1, has: "with", show: new Set(), score: [0, 1], coverage: [0, 1], ignored: [0, 1], confidence: [0, 1], search: "" };
  }

  get isFiltered() {
    const f = this.filters, whole = (range) => range[0] <= 0 && range[1] >= 1;
    return f.class >= 0 || f.show.size > 0 || f.search !== "" || !whole(f.score) || !whole(f.coverage) || !whole(f.ignored) || !whole(f.confidence);
  }

  // The rank of every image by name, with numbers in names compared as numbers. It takes a while, so once.
  names() {
    if (this.byName === null) {
      const { compare } = new Intl.Collator("en", { numeric: true }), ids = this.model.ids;
      const places = ids.map((_, i) => i).sort((a, b) => compare(ids[a], ids[b]) || a - b);
      this.byName = new Int32Array(ids.length);
      places.forEach((i, rank) => { this.byName[i] = rank; });
    }
    return this.byName;
  }

  update() {
    const { model, filters } = this, n = model.images, found = [];
    const search = filters.search.toLocaleLowerCase(), c = filters.class;
    const share = (values, range) => range[0] <= 0 && range[1] >= 1
      ? null : (i) => values[i] >= range[0] * 10000 - 0.5 && values[i] <= range[1] * 10000 + 0.5;
    const coverage = share(model.coverage, filters.coverage), ignored = share(model.ignored, filters.ignored), confidence = share(model.confidence, filters.confidence);
    const [low, high] = filters.score, byScore = low > 0 || high < 1;
    const { tags } = model, from = c * n, wanted = filters.has === "with" ? 1 : 0, byClass = c >= 0 && filters.has !== "any";
    for (let i = 0; i < n; i++) {
      if (byClass && tags[from + i] !== wanted) continue;
      if (search !== "" && !model.ids[i].toLocaleLowerCase().includes(search)) continue;
      if (coverage !== null && !coverage(i)) continue;
      if (ignored !== null && !ignored(i)) continue;
      if (confidence !== null && !confidence(i)) continue;
      if (filters.show.size > 0 && !this.#isShown(i)) continue;
      if (byScore) {
        const level = this.level(i);
        if (level < 0) continue;
        const value = model.value(level);
        if (value < low || value > high) continue;
      }
      found.push(i);
    }
    this.places = this.#order(found);
    this.stale = false;
  }

  #isShown(i) {
    const { show } = this.filters, { model } = this, state = model.state(i);
    return (show.has("unchecked") && state === null && !model.failed.has(i)) || (show.has("checked") && state === "checked")
      || (show.has("rejected") && state === "rejected") || (show.has("corrected") && model.isCorrected(i))
      || (show.has("failed") && model.failed.has(i)) || (show.has("untagged") && model.isUntagged(i) && !model.failed.has(i))
      || (show.has("noted") && model.note(i) !== "");
  }

  // The level that filter and sort by score look at: of the chosen class, or the highest of all classes; -1 for none.
  level(i) {
    const { model, filters } = this, n = model.images;
    if (filters.class >= 0) {
      const level = model.levels[filters.class * n + i];
      return level === model.unknown ? -1 : level;
    }
    const level = model.doubtInput.imageHigh[i];
    return level === -Infinity ? -1 : level;
  }

  #order(found) {
    const { model } = this;
    let keys = this.sort === "doubt" ? model.doubts : model[this.sort]; // the highest first
    if (this.sort === "name" || this.sort === "random") {
      this.ranks[this.sort] ??= (this.sort === "name" ? this.names() : Review.View.random(model.images)).map((rank) => -rank);
      keys = this.ranks[this.sort];
    } else if (this.sort === "confidence") {
      keys = this.ranks.confidence ??= Float64Array.from(model.confidence, (value) => (value < 0 ? -Infinity : -value)); // the lowest first
    } else if (this.sort === "score") {
      keys = new Float64Array(model.images);
      for (const i of found) keys[i] = this.level(i);
    }
    const ordered = Review.sorted(keys, found);
    return this.reversed ? ordered.reverse() : ordered;
  }

  // The same order at every visit: a shuffle with a fixed seed (mulberry32).
  static random(count) {
    let seed = 20240917;
    const next = () => {
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    return Float64Array.from({ length: count }, next);
  }
};

// What outlives a reload, in the browser's own store: unsaved work under the run's id, tastes under none.
Review.store = (() => {
  const read = (key) => {
    try {
      return JSON.parse(localStorage.getItem(key) ?? "null");
    } catch {
      return null;
    }
  };
  const write = (key, value) => {
    try {
      if (value === null) localStorage.removeItem(key);
      else localStorage.setItem(key, JSON.stringify(value));
      return true;
    } catch {
      return false;
    }
  };
  return { read, write };
})();
