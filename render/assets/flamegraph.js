"use strict";
// Zoom, search and details for one flame graph: the picture that this script element stands in.
// A frame is <g data-f="LENGTH START TOTAL"><title>NAME[ [MODULE]] (...)</title><rect/>[<text/>]</g>, in
// preorder; LENGTH is that of NAME. What is zoomed and searched is kept in the address, after "#".
(function () {
  const SVG = "http://www.w3.org/2000/svg";
  const HTML = "http://www.w3.org/1999/xhtml";
  const PADDING = 10;
  const script = document.currentScript;
  const svg = script && script.closest("svg.pyprof");
  const area = svg && svg.querySelector("g.frames");
  if (!area) {
    return;
  }
  const width = Number(area.dataset.width);
  const unit = area.dataset.unit;
  const growsUp = area.dataset.grows === "up";
  const alone = document.documentElement === svg;
  const keyPrefix = alone ? "" : svg.id + ".";

  // ---- frames

  const frames = [];
  for (const group of area.children) {
    frames.push(frameOf(group, frames.length));
  }
  connect(frames);
  const whole = frames[0];
  let zoomed = whole;
  let current = whole;
  let pattern = null;

  function frameOf(group, index) {
    const [length, start, total] = group.dataset.f.split(" ").map(Number);
    const title = group.querySelector("title").textContent;
    const rest = title.slice(length);
    return {
      group, index, start, total,
      name: title.slice(0, length),
      module: rest.slice(0, rest.lastIndexOf(" (")),
      rect: group.querySelector("rect"),
      label: group.querySelector("text"),
      names: null, parent: null, depth: 0, limit: index + 1, identity: "", matched: false,
    };
  }

  // Preorder: the parent is the last frame that has not ended left of this one.
  function connect(all) {
    const open = [];
    for (const frame of all) {
      while (open.length && open[open.length - 1].start + open[open.length - 1].total <= frame.start) {
        open.pop();
      }
      frame.parent = open.length ? open[open.length - 1] : null;
      frame.depth = open.length;
      frame.identity = identity(frame.parent ? frame.parent.identity : "", frame.name);
      open.push(frame);
    }
    for (let i = all.length - 1; i > 0; i--) {
      all[i].parent.limit = Math.max(all[i].parent.limit, all[i].limit);
    }
  }

  // A frame's place in the address: a 53-bit digest of the names from the root up to it.
  function identity(below, name) {
    let a = 0xdeadbeef;
    let b = 0x41c6ce57;
    const text = below + ";" + name;
    for (let i = 0; i < text.length; i++) {
      a = Math.imul(a ^ text.charCodeAt(i), 2654435761);
      b = Math.imul(b ^ text.charCodeAt(i), 1597334677);
    }
    a = Math.imul(a ^ (a >>> 16), 2246822507) ^ Math.imul(b ^ (b >>> 13), 3266489909);
    b = Math.imul(b ^ (b >>> 16), 2246822507) ^ Math.imul(a ^ (a >>> 13), 3266489909);
    return ((b >>> 0 & 0x1fffff) * 4294967296 + (a >>> 0)).toString(36);
  }

  // ---- lettering

  const cell = measuredCell();

  function measuredCell() {
    const probe = element(SVG, "text", svg, {});
    probe.textContent = "0".repeat(40);
    const length = probe.getComputedTextLength ? probe.getComputedTextLength() / 40 : 0;
    probe.remove();
    return length > 2 ? length : 7.23;
  }

  function cells(character) {
    return /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]/.test(character) || character > "\uffff" ? 2 : 1;
  }

  // The beginning of the text that takes at most `room` cells.
  function beginning(text, room) {
    let taken = 0;
    let result = "";
    for (const character of text) {
      taken += cells(character);
      if (taken > room) {
        return result;
      }
      result += character;
    }
    return result;
  }

  // The name and ever shorter forms of it: std::vector<int>::find(int), std::vector::find, …vector::find, …find.
  function shortNames(name) {
    let text = name.replaceAll("operator()", "operator");
    let before = "";
    if (!name.includes("::") || /operator *[<>[-]/.test(text)) {
      return [name];
    }
    while (text !== before) {
      before = text;
      text = text.replace(/<[^<>]*>|\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}/g, "");
    }
    const parts = text.trim().split("::").filter(Boolean);
    if (!parts.length || /[<>()[\]{}]/.test(text)) {
      return [name];
    }
    return [name, parts.join("::"), "…" + parts.slice(-2).join("::"), "…" + parts[parts.length - 1]];
  }

  function fitted(frame, space) {
    const room = Math.floor((space - 6) / cell);
    if (room < 3) {
      return "";
    }
    frame.names = frame.names || shortNames(frame.name);
    const fitting = frame.names.find((name) => beginning(name, room) === name);
    return fitting === undefined ? beginning(frame.names[frame.names.length - 1], room - 1) + "…" : fitting;
  }

  function percent(part, of) {
    const share = of ? 100 * part / of : 0;
    if (share === 0) {
      return "0%";
    }
    return share < 0.01 ? "<0.01%" : share.toFixed(share >= 1 ? 1 : 2) + "%";
  }

  function count(value) {
    const name = value === 1 && unit.endsWith("s") ? unit.slice(0, -1) : unit;
    return value.toLocaleString("en-US") + " " + name;
  }

  function element(space, name, parent, attributes) {
    const made = document.createElementNS(space, name);
    for (const key in attributes) {
      made.setAttribute(key, attributes[key]);
    }
    return parent.appendChild(made);
  }

  // ---- zoom

  function draw() {
    const below = new Set();
    for (let frame = zoomed.parent; frame; frame = frame.parent) {
      below.add(frame);
    }
    const scale = width / zoomed.total;
    for (const frame of frames) {
      const ancestor = below.has(frame);
      const shown = ancestor || (frame.index >= zoomed.index && frame.index < zoomed.limit);
      frame.group.classList.toggle("hidden", !shown);
      frame.group.classList.toggle("ancestor", ancestor);
      if (shown) {
        place(frame, ancestor ? 0 : (frame.start - zoomed.start) * scale, ancestor ? width : frame.total * scale);
      }
    }
    if (!visible(current)) {
      makeCurrent(zoomed);
    }
    resetButton.hidden = zoomed === whole;
    showMatched();
  }

  function place(frame, x, span) {
    frame.rect.setAttribute("x", x.toFixed(2));
    frame.rect.setAttribute("width", span.toFixed(2));
    const text = fitted(frame, span);
    if (!frame.label && text) {
      frame.label = element(SVG, "text", frame.group, { y: Number(frame.rect.getAttribute("y")) + 12 });
    }
    if (frame.label) {
      frame.label.setAttribute("x", (x + 3).toFixed(2));
      frame.label.textContent = text;
    }
  }

  function zoom(frame) {
    if (frame !== zoomed) {
      zoomed = frame;
      draw();
      show(current);
      remember("pushState");
    }
  }

  // ---- search

  const controls = controlsOf();
  const { input, caseButton, resetButton, output } = controls;

  function controlsOf() {
    const beside = svg.dataset.controls === "beside";
    const box = element(SVG, "foreignObject", svg, {
      x: beside ? width + PADDING - 640 : PADDING, y: beside ? 6 : 0, width: beside ? 640 : width, height: 28,
    });
    const row = element(HTML, "div", box, { class: "controls" });
    return {
      box,
      resetButton: button(row, "Reset zoom", { hidden: "" }),
      output: element(HTML, "output", row, { "aria-live": "polite" }),
      input: element(HTML, "input", row, {
        type: "search", placeholder: "Search: regular expr.", title: "Search names by regular expression (/ or Ctrl-F)",
        "aria-label": "Search frame names by regular expression", spellcheck: "false", autocomplete: "off",
      }),
      caseButton: button(row, "Aa", { title: "Match case", "aria-label": "Match case", "aria-pressed": "false" }),
    };
  }

  function button(row, text, attributes) {
    const made = element(HTML, "button", row, Object.assign({ type: "button" }, attributes));
    made.textContent = text;
    return made;
  }

  function matchesCase() {
    return caseButton.getAttribute("aria-pressed") === "true";
  }

  function search() {
    let wrong = "";
    pattern = null;
    try {
      pattern = input.value ? new RegExp(input.value, matchesCase() ? "u" : "iu") : null;
    } catch (error) {
      wrong = error.message;
    }
    input.setAttribute("aria-invalid", wrong ? "true" : "false");
    for (const frame of frames) {
      const matched = pattern !== null && frame !== whole && pattern.test(frame.name);
      if (matched !== frame.matched) {
        frame.matched = matched;
        frame.group.classList.toggle("matched", matched);
      }
    }
    showMatched(wrong);
  }

  function showMatched(wrong) {
    output.classList.toggle("wrong", Boolean(wrong));
    if (wrong) {
      output.textContent = "no regular expression";
      output.title = wrong;
      return;
    }
    output.textContent = pattern ? "matched " + percent(matchedValue(whole), whole.total) + ofZoomed(matchedValue(zoomed)) : "";
    output.title = pattern ? count(matchedValue(whole)) : "";
  }

  function ofZoomed(value) {
    return zoomed === whole ? "" : ", " + percent(value, zoomed.total) + " of zoomed";
  }

  // A stack counts once, however many of its frames match.
  function matchedValue(root) {
    for (let frame = root.parent; frame; frame = frame.parent) {
      if (frame.matched) {
        return root.total;
      }
    }
    let sum = 0;
    let covered = 0;
    for (let i = root.index; i < root.limit; i++) {
      if (frames[i].matched && frames[i].start >= covered) {
        sum += frames[i].total;
        covered = frames[i].start + frames[i].total;
      }
    }
    return sum;
  }

  function clearSearch() {
    input.value = "";
    search();
    remember("replaceState");
  }

  // ---- details line, at the lower edge of what the window shows

  const details = element(SVG, "g", svg, { class: "details" });
  const plate = element(SVG, "rect", details, { x: PADDING - 4, width: width + 8, rx: 3 });
  const HINT = "Point at a frame for details, click to zoom, / to search, arrow keys to walk";

  function show(frame) {
    const share = percent(frame.total, whole.total) + " of all";
    const zoomedShare = frame.index >= zoomed.index ? ofZoomed(frame.total) : "";
    write(frame.name + frame.module + " (" + count(frame.total) + ", " + share + zoomedShare + ")");
  }

  function write(text) {
    const room = Math.max(Math.floor(width / cell), 10);
    const lines = [];
    for (let rest = text; rest && lines.length < 12; rest = rest.slice(lines[lines.length - 1].length)) {
      lines.push(beginning(rest, room));
    }
    details.querySelectorAll("text").forEach((line) => line.remove());
    lines.forEach((line, number) => {
      element(SVG, "text", details, { x: PADDING, y: 14 + 16 * number }).textContent = line;
    });
    plate.setAttribute("height", 16 * lines.length + 5);
    stick();
  }

  function stick() {
    const box = svg.getBoundingClientRect();
    const windowHeight = window.visualViewport ? window.visualViewport.height : window.innerHeight;
    const height = svg.viewBox.baseVal.height;
    const visible = box.height ? (windowHeight - box.top) * height / box.height : height;
    const bottom = Math.max(Math.min(height, visible), 60);
    const y = bottom - Number(plate.getAttribute("height")) - 3;
    details.setAttribute("transform", "translate(0 " + y.toFixed(1) + ")");
  }

  // ---- state in the address

  function parameters() {
    return new URLSearchParams(location.hash.slice(1));
  }

  function remember(method) {
    const state = parameters();
    const values = {
      zoom: zoomed === whole ? "" : zoomed.identity, find: input.value, case: input.value && matchesCase() ? "1" : "",
    };
    for (const key in values) {
      if (values[key]) {
        state.set(keyPrefix + key, values[key]);
      } else {
        state.delete(keyPrefix + key);
      }
    }
    const text = state.toString();
    try {
      history[method](null, "", text ? "#" + text : location.pathname + location.search);
    } catch (error) {
      // A sandboxed frame has no address of its own; the picture works without.
    }
  }

  function restore() {
    const state = parameters();
    const wanted = state.get(keyPrefix + "zoom");
    zoomed = (wanted && frames.find((frame) => frame.identity === wanted)) || whole;
    input.value = state.get(keyPrefix + "find") || "";
    caseButton.setAttribute("aria-pressed", state.get(keyPrefix + "case") === "1" ? "true" : "false");
    search();
    draw();
  }

  // ---- events

  function frameAt(target) {
    const group = target.closest && target.closest("g[data-f]");
    return group && area.contains(group) ? frames.find((frame) => frame.group === group) : null;
  }

  function focus(frame) {
    if (frame) {
      makeCurrent(frame);
      frame.group.focus();
      show(frame);
    }
  }

  // The one frame that the tab key reaches; the arrow keys lead on from there.
  function makeCurrent(frame) {
    current.group.setAttribute("tabindex", "-1");
    current = frame;
    current.group.setAttribute("tabindex", "0");
  }

  function visible(frame) {
    return !frame.group.classList.contains("hidden");
  }

  function children(frame) {
    return frames.slice(frame.index + 1, frame.limit).filter((other) => other.parent === frame && visible(other));
  }

  function widestChild(frame) {
    return children(frame).reduce((best, other) => (best && best.total >= other.total ? best : other), null);
  }

  // The neighbour on the same level, also across parents.
  function neighbour(frame, step) {
    for (let i = frame.index + step; i >= 0 && i < frames.length; i += step) {
      if (frames[i].depth === frame.depth && visible(frames[i])) {
        return frames[i];
      }
    }
    return null;
  }

  const WALK = {
    ArrowUp: (frame) => (growsUp ? widestChild(frame) : frame.parent),
    ArrowDown: (frame) => (growsUp ? frame.parent : widestChild(frame)),
    ArrowLeft: (frame) => neighbour(frame, -1),
    ArrowRight: (frame) => neighbour(frame, 1),
    Home: () => whole,
  };

  function walk(event) {
    const frame = frameAt(event.target);
    if (!frame || event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    if (event.key === "Enter" || event.key === " ") {
      zoom(frame);
    } else if (WALK[event.key]) {
      focus(WALK[event.key](frame));
    } else {
      return;
    }
    event.preventDefault();
  }

  // In a page with other things, keys are ours only while the pointer or the focus is on the picture.
  function isOurs(event) {
    return alone || svg.contains(event.target) || svg.matches(":hover");
  }

  function shortcut(event) {
    const typing = /^(input|textarea|select)$/i.test(event.target.tagName || "") || event.target.isContentEditable;
    const find = (event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "f";
    const slash = event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey;
    if (!isOurs(event)) {
      return;
    }
    if ((find && document.activeElement !== input) || (slash && !typing)) {
      event.preventDefault();
      input.focus();
      input.select();
    } else if (event.key === "Escape" && (event.target === input || !typing)) {
      event.preventDefault();
      if (input.value) {
        clearSearch();
      } else {
        zoom(whole);
      }
    }
  }

  function listen() {
    area.addEventListener("click", (event) => {
      const frame = frameAt(event.target);
      if (frame) {
        focus(frame);
        zoom(frame);
      }
    });
    area.addEventListener("mouseover", (event) => {
      const frame = frameAt(event.target);
      if (frame) {
        show(frame);
      }
    });
    area.addEventListener("mouseleave", () => write(HINT));
    area.addEventListener("focusin", (event) => {
      const frame = frameAt(event.target);
      if (frame) {
        show(frame);
      }
    });
    area.addEventListener("keydown", walk);
    document.addEventListener("keydown", shortcut);
    resetButton.addEventListener("click", () => zoom(whole));
    input.addEventListener("input", () => {
      search();
      remember("replaceState");
    });
    caseButton.addEventListener("click", () => {
      caseButton.setAttribute("aria-pressed", matchesCase() ? "false" : "true");
      search();
      remember("replaceState");
    });
    window.addEventListener("popstate", restore);
    window.addEventListener("hashchange", restore);
    window.addEventListener("scroll", stick, { passive: true });
    window.addEventListener("resize", stick);
  }

  whole.group.setAttribute("tabindex", "0");
  listen();
  write(HINT);
  if (location.hash) {
    restore();
  }
})();
