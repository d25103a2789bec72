"use strict";
// Label maps and class maps: loaded when they are needed, painted on a canvas in any colour, opacity and choice of classes.
globalThis.Review ??= {};

Review.overlays = (() => {
  const MOST_KEPT = 60, MOST_LOADING = 6;
  const kept = new Map(), waiting = [];
  let loading = 0;

  // One small script that assigns to REVIEW: from disk there is no other way to read a file.
  const script = (address) => new Promise((resolve) => {
    const element = document.createElement("script");
    element.src = address;
    element.onload = () => { element.remove(); resolve(true); };
    element.onerror = () => { element.remove(); resolve(false); };
    document.head.append(element);
  });

  const next = () => {
    while (loading < MOST_LOADING && waiting.length) {
      const { work, wanted, resolve } = waiting.pop(); // the latest first: it is what is on the screen now
      if (!wanted()) { resolve(undefined); continue; }
      loading++;
      work().then(resolve, () => resolve(null)).finally(() => { loading--; next(); });
    }
  };

  const queued = (work, wanted) => new Promise((resolve) => { waiting.push({ work, wanted, resolve }); queueMicrotask(next); });

  const read = async (model, i) => {
    const number = model.thumbs[i];
    if (!(await script(model.file(i, ".js")))) return null;
    const stored = REVIEW.overlays[number];
    delete REVIEW.overlays[number];
    if (stored === undefined) return null;
    await Review.turn();
    const mask = stored.mask && { ...(await Review.png.decode(stored.mask.png)), labels: stored.mask.labels };
    const maps = stored.maps && { ...(await Review.png.decode(stored.maps.png)), classes: stored.maps.classes };
    if (maps) maps.height /= maps.classes.length;
    return { mask: mask ?? null, maps: maps ?? null };
  };

  // {mask, maps} of an image; null where there is none, undefined where it was no longer wanted.
  const get = (model, i, wanted) => {
    if (!(model.marks[i] & (Review.flags.mask | Review.flags.maps))) return Promise.resolve(null);
    let found = kept.get(i);
    if (found === undefined) {
      found = queued(() => read(model, i), wanted).then((overlay) => {
        if (overlay === undefined) kept.delete(i);
        return overlay;
      });
    } else kept.delete(i);
    kept.set(i, found);
    if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
    return found;
  };

  // The label map at the photo's own size, for the one image that is open.
  const full = async (model, i) => {
    if (!(model.marks[i] & Review.flags.full)) return null;
    if (!(await script(model.file(i, ".full.js")))) return null;
    const number = model.thumbs[i], stored = REVIEW.masks[number];
    delete REVIEW.masks[number];
    return stored === undefined ? null : { ...(await Review.png.decode(stored.png)), labels: stored.labels };
  };

  const littleEndian = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;
  const pack = (r, g, b, a) => littleEndian
    ? ((a << 24) | (b << 16) | (g << 8) | r) >>> 0 : ((r << 24) | (g << 16) | (b << 8) | a) >>> 0;
  const channels = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

  const WHITE = pack(255, 255, 255, 235), SHADE = pack(0, 0, 0, 150), HATCH = pack(255, 255, 255, 190);
  const VEIL = pack(20, 20, 20, 70);

  // Paints a label map. mode: "fill" or "outline"; hidden: labels that are not shown.
  const paintMask = (canvas, mask, colours, mode, hidden) => {
    const { width, height, values, labels } = mask;
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d"), image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer), count = labels.length;
    const shown = Uint8Array.from(labels, (label) => Number(label !== 0 && !hidden.has(label)));
    const table = Uint32Array.from(labels, (label) => (label > 0 ? pack(...channels(colours[label - 1]), 255) : 0));
    const ignored = labels.indexOf(Review.ignored);
    const thick = Math.max(1, Math.round(Math.max(width, height) / 480));
    const stripe = 4 * thick + 4, light = Math.round(stripe / 3);
    for (let y = 0, at = 0; y < height; y++)
      for (let x = 0; x < width; x++, at++) {
        const value = values[at];
        if (value >= count || !shown[value]) continue;
        if (value === ignored) {
          if (mode === "fill") pixels[at] = (x + y) % stripe < light ? HATCH : VEIL;
        } else if (mode === "fill") pixels[at] = table[value];
      }
    // Outlines: white inside the class in "fill"; in "outline" the class's colour with a dark line around it.
    const edge = (at, x, y, reach) => {
      const value = values[at];
      return (x >= reach && values[at - reach] !== value) || (x < width - reach && values[at + reach] !== value)
        || (y >= reach && values[at - reach * width] !== value) || (y < height - reach && values[at + reach * width] !== value);
    };
    const line = mode === "fill" ? thick : 2 * thick;
    for (let y = 0, at = 0; y < height; y++)
      for (let x = 0; x < width; x++, at++) {
        const value = values[at];
        if (value >= count || !shown[value] || value === ignored) continue;
        if (mode === "outline") {
          if (edge(at, x, y, thick)) pixels[at] = SHADE;
          else if (edge(at, x, y, line + thick)) pixels[at] = table[value];
        } else if (edge(at, x, y, line)) pixels[at] = WHITE;
      }
    context.putImageData(image, 0, 0);
  };

  // Heat: see-through where a map is low, over yellow to red where it is high.
  const HEAT = (() => {
    const stops = [[0, 40, 60, 190, 0], [0.25, 30, 160, 230, 110], [0.5, 120, 220, 90, 165], [0.75, 255, 190, 30, 205], [1, 225, 30, 20, 235]];
    return Uint32Array.from({ length: 256 }, (_, value) => {
      const share = value / 255, after = stops.findIndex(([stop]) => stop >= share), high = stops[Math.max(1, after)];
      const low = stops[Math.max(1, after) - 1], part = (share - low[0]) / (high[0] - low[0]);
      return pack(...[1, 2, 3, 4].map((channel) => Math.round(low[channel] + part * (high[channel] - low[channel]))));
    });
  })();

  // Paints the highest of some class maps.
  const paintMaps = (canvas, maps, isShown) => {
    const { width, height, values, classes } = maps, size = width * height;
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d"), image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer), highest = new Uint8Array(size);
    classes.forEach((name, place) => {
      if (!isShown(name)) return;
      for (let at = 0; at < size; at++) highest[at] = Math.max(highest[at], values[place * size + at]);
    });
    for (let at = 0; at < size; at++) pixels[at] = HEAT[highest[at]];
    context.putImageData(image, 0, 0);
  };

  const clear = (canvas) => { canvas.width = canvas.height = 1; };

  // Paints what a mode asks for; whether there was anything.
  const paint = (canvas, overlay, colours, mode, hidden = new Set(), isShown = () => true) => {
    if (overlay && mode === "maps" && overlay.maps) paintMaps(canvas, overlay.maps, isShown);
    else if (overlay && (mode === "fill" || mode === "outline") && overlay.mask) paintMask(canvas, overlay.mask, colours, mode, hidden);
    else { clear(canvas); return false; }
    return true;
  };

  return { get, full, paint, paintMask, paintMaps, clear };
})();
