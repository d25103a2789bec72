"use strict";
// How doubtful an image is. The same numbers come from Python, `wsss.review.doubt`: same operations, same order.
globalThis.Review ??= {};

// Places of numbers, the highest first, in the order of the places among equals. A radix sort of the numbers' bits: with ten
// thousand of them it takes a tenth of the time of a sort that compares. Places must come in rising order.
Review.sorted = (values, places) => {
  const n = places.length, keys = new Float64Array(n);
  for (let k = 0; k < n; k++) keys[k] = values[places[k]] + 0; // + 0: of both zeros the positive one
  const bits = new Uint32Array(keys.buffer), isLittle = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;
  const low = new Uint32Array(n), high = new Uint32Array(n);
  for (let k = 0; k < n; k++) {
    const upper = bits[2 * k + (isLittle ? 1 : 0)], lower = bits[2 * k + (isLittle ? 0 : 1)];
    const isNegative = upper >>> 31; // bits that rise as the numbers fall
    high[k] = isNegative ? upper : upper ^ 0x7fffffff;
    low[k] = isNegative ? lower : ~lower;
  }
  let from = Uint32Array.from({ length: n }, (_, k) => k), to = new Uint32Array(n);
  const counts = new Uint32Array(2048);
  for (const [part, shift, mask] of [[low, 0, 2047], [low, 11, 2047], [low, 22, 1023], [high, 0, 2047], [high, 11, 2047], [high, 22, 1023]]) {
    counts.fill(0);
    for (let k = 0; k < n; k++) counts[(part[k] >>> shift) & mask]++;
    if (n === 0 || counts[(part[0] >>> shift) & mask] === n) continue; // all alike
    for (let digit = 0, sum = 0; digit <= mask; digit++) { const count = counts[digit]; counts[digit] = sum; sum += count; }
    for (let k = 0; k < n; k++) { const at = from[k]; to[counts[(part[at] >>> shift) & mask]++] = at; }
    [from, to] = [to, from];
  }
  return Array.from(from, (k) => places[k]);
};

Review.doubt = (() => {
  // Lowest and highest level of each class and of each image; what has none keeps Infinity and -Infinity.
  const bounds = (levels, images, classes, unknown) => {
    const low = new Float64Array(classes).fill(Infinity), high = new Float64Array(classes).fill(-Infinity);
    const imageLow = new Float64Array(images).fill(Infinity), imageHigh = new Float64Array(images).fill(-Infinity);
    for (let c = 0, at = 0; c < classes; c++)
      for (let i = 0; i < images; i++, at++) {
        const level = levels[at];
        if (level === unknown) continue;
        if (level < low[c]) low[c] = level;
        if (level > high[c]) high[c] = level;
        if (level < imageLow[i]) imageLow[i] = level;
        if (level > imageHigh[i]) imageHigh[i] = level;
      }
    return { low, high, imageLow, imageHigh };
  };

  // The threshold in force, as a level.
  const threshold = (d, c, i) => {
    if (d.relative === null || d.moved[c]) return d.handles[c];
    const low = d.relative.from_zero ? d.zero : d.imageLow[i];
    return Math.max(low + d.relative.t[c] * (d.imageHigh[i] - low), d.relative.floor);
  };

  // Doubt of one class of one image; 0 where the score is unknown or a person decided.
  const margin = (d, c, i) => {
    const at = c * d.images + i, level = d.levels[at];
    if (level === d.unknown || d.decided[at]) return 0;
    const t = threshold(d, c, i), distance = d.tags[at] ? level - t : t - level;
    if (!(distance > 0)) return 1;
    const below = t - d.low[c];
    return 1 - distance / (level < t ? below : Math.max(below, d.high[c] - t));
  };

  const rivalry = (d, i) => {
    let strongest = 0;
    const pairs = d.rivals[i];
    for (let place = 0; place < pairs.length; place += 3)
      if (d.tags[pairs[place] * d.images + i] && d.tags[pairs[place + 1] * d.images + i])
        strongest = Math.max(strongest, pairs[place + 2] / d.weights.parts);
    return strongest;
  };

  const combined = (d, best, i) => {
    if (d.settled[i]) return 0;
    const ignored = d.ignored[i] / d.weights.parts;
    return 1 - (1 - best) * (1 - d.weights.ignored * ignored) * (1 - d.weights.rivals * rivalry(d, i));
  };

  // The doubt of all images; `best` and `worst` are room for the highest doubt of a class, and which class it is.
  const all = (d, out, best, worst) => {
    best.fill(0);
    worst.fill(-1);
    for (let c = 0; c < d.classes; c++) {
      if (!(d.high[c] >= d.low[c])) continue;
      for (let i = 0; i < d.images; i++) {
        const value = margin(d, c, i);
        if (value > best[i]) { best[i] = value; worst[i] = c; }
      }
    }
    for (let i = 0; i < d.images; i++) out[i] = combined(d, best[i], i);
    return out;
  };

  const one = (d, i, out, best, worst) => {
    best[i] = 0;
    worst[i] = -1;
    for (let c = 0; c < d.classes; c++) {
      const value = margin(d, c, i);
      if (value > best[i]) { best[i] = value; worst[i] = c; }
    }
    out[i] = combined(d, best[i], i);
  };

  // What `all` gives after the threshold of one class has moved, from what it gave before: one class anew.
  const moved = (d, c, out, best, worst) => {
    for (let i = 0; i < d.images; i++) {
      const value = margin(d, c, i);
      if (worst[i] === c && value < best[i]) { one(d, i, out, best, worst); continue; }
      if (value > best[i] || (value === best[i] && value > 0 && c < worst[i])) { best[i] = value; worst[i] = c; }
      out[i] = combined(d, best[i], i);
    }
  };

  // Places of images, the most doubtful first, in the run's order among equals.
  const order = (values, places) => Review.sorted(values, places);

  return { bounds, threshold, margin, rivalry, all, moved, one, order };
})();
