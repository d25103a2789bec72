"use strict";
// What all parts of the page share: the one namespace, elements made from text, numbers as words.
globalThis.Review ??= {};

// An element with properties and children. Text is always inserted as text: names of files and classes may hold anything.
Review.h = (tag, properties = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element && !name.startsWith("aria-") && name !== "list" && name !== "role") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
};

Review.svg = (tag, attributes = {}, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.flat());
  return element;
};

Review.icon = (name) =>
  Review.svg("svg", { class: "icon", "aria-hidden": "true" }, Review.svg("use", { href: `#i-${name}` }));

Review.swatch = (colour) => {
  const element = Review.h("span", { class: "swatch", "aria-hidden": "true" });
  element.style.background = colour;
  return element;
};

Review.percent = (share) => {
  const value = 100 * share;
  return `${value >= 10 || value === 0 ? Math.round(value) : value.toFixed(1)}\u202f%`;
};

Review.score = (value) => value.toFixed(Math.abs(value) < 0.0095 && Math.abs(value) >= 0.0005 ? 3 : 2);

Review.plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

Review.say = (text) => {
  const live = document.getElementById("live");
  live.textContent = live.textContent === text ? `${text}\u00a0` : text;
};

let toastTimer = 0;
Review.toast = (seconds, ...content) => {
  const toast = document.getElementById("toast");
  toast.replaceChildren(...content);
  toast.hidden = false;
  // Above an open dialog, which everything else lies below.
  const host = document.querySelector("dialog[open]") ?? document.body;
  if (toast.parentElement !== host) host.append(toast);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { toast.hidden = true; document.body.append(toast); }, 1000 * seconds);
};

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

// Small pieces of work, as many between two frames as fit into some milliseconds: `await Review.turn()` before each.
Review.turn = (() => {
  const waiting = [], most = 8; // milliseconds
  let asked = false;
  const run = async () => {
    asked = false;
    const start = performance.now();
    while (waiting.length && performance.now() - start < most) {
      waiting.shift()();
      await null; // the piece itself
    }
    if (waiting.length) ask();
  };
  const ask = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => setTimeout(run, 0));
  };
  return () => new Promise((resolve) => { waiting.push(resolve); ask(); });
})();

// Text of an element, changed only where it differs: the browser lays out anew whatever is set.
Review.setText = (element, text) => {
  if (element.firstChild?.nodeType === Node.TEXT_NODE && element.childNodes.length === 1) {
    if (element.firstChild.data !== text) element.firstChild.data = text;
  } else if (element.textContent !== text) element.textContent = text;
};

Review.setAttribute = (element, name, value) => {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
};

// Runs a function once before the next frame, however often it is asked for until then.
Review.perFrame = (work) => {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; work(); });
  };
};
