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
