"use strict";
// The memory map on a canvas: pages as squares, folio by folio. Redraws only changed pages, once per display frame.

/** Sizes of a square, pixels; the map uses the largest at which all pages fit. */
const SIZES = [34, 20, 12, 8, 6];

/** Counters for measurements: squares drawn, passes over the canvas, layouts, longest pass in ms. */
const drawn = { cells: 0, passes: 0, layouts: 0, longest: 0 };

/** The pages on one canvas, rings around some of them on a second canvas above it. */
class MemoryMap {
  constructor(canvas, over, picked) {
    this.canvas = canvas;
    this.over = over;
    this.picked = picked;
    this.replay = null;
    this.page = -1;
    this.rings = new Map();
    this.dirty = new Set();
    this.asked = 0;
    canvas.addEventListener("click", (event) => this.pick(this.under(event)));
    canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => { if (canvas.clientWidth !== this.width) this.layout(); }).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.layout());
  }

  show(replay) {
    this.replay = replay;
    this.page = -1;
    this.rings = new Map();
    this.layout();
  }

  /** Rings around pages: a Map from page to the name of a colour. */
  ring(rings) {
    this.rings = rings;
    this.ringed = false;
    this.ask();
  }

  /** Redraw these pages. */
  changed(pages) {
    for (const p of pages) {
      if (Boolean(this.replay.codes[p] & HEAD) !== this.heads[p]) { this.layout(); return; }
      this.dirty.add(p);
    }
    this.ask();
  }

  ask() {
    if (!this.asked && (this.dirty.size || this.all || !this.ringed)) this.asked = requestAnimationFrame(() => this.draw());
  }

  layout() {
    if (!this.replay) return;
    drawn.layouts++;
    const pages = this.replay.codes.length, width = this.width = this.canvas.clientWidth;
    this.heads = Array.from(this.replay.codes, (code) => Boolean(code & HEAD));
    this.x = new Int32Array(pages);
    this.y = new Int32Array(pages);
    const room = parseFloat(getComputedStyle(this.canvas.parentElement).maxHeight) - 16;
    let height = Infinity;
    for (let at = 0; at < SIZES.length && height > room; at++) height = this.place(SIZES[at], width);
    const ratio = devicePixelRatio || 1;
    for (const one of [this.canvas, this.over]) {
      one.width = Math.round(width * ratio);
      one.height = Math.round(height * ratio);
      one.style.height = `${height}px`;
    }
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.above = this.over.getContext("2d");
    for (const context of [this.context, this.above]) context.scale(ratio, ratio);
    this.colours = colours();
    this.all = true;
    this.ringed = false;
    this.ask();
  }

  /** Place every page: folios in order, with a gap between; large ones continue in the next row. Returns the height. */
  place(size, width) {
    const gap = Math.max(2, size >> 2), step = size + 1, edge = 3;
    this.size = size;
    let x = edge, y = edge;
    for (let p = 0; p < this.x.length; p++) {
      if (p && this.heads[p]) x += gap;
      const length = this.heads[p] ? this.replay.folio(p)[1] - p : 1;
      const fits = x + length * step <= width || length * step > width;
      if (x + step > width || (this.heads[p] && !fits)) { x = edge; y += step + gap; }
      this.x[p] = x;
      this.y[p] = y;
      x += step;
    }
    return y + step + edge;
  }

  draw() {
    const start = performance.now(), context = this.context;
    this.asked = 0;
    drawn.passes++;
    if (this.all) {
      context.fillStyle = this.colours.paper;
      context.fillRect(0, 0, this.width, this.canvas.height);
      for (let p = 0; p < this.replay.codes.length; p++) this.cell(p);
    } else {
      for (const p of this.dirty) this.cell(p);
    }
    if (!this.ringed) this.drawRings();
    this.all = false;
    this.dirty.clear();
    drawn.longest = Math.max(drawn.longest, performance.now() - start);
  }

  drawRings() {
    this.ringed = true;
    this.above.clearRect(0, 0, this.width, this.over.height);
    const rings = new Map(this.rings);
    if (this.page >= 0) rings.set(this.page, "pick");
    for (const [p, name] of rings) halo(this.above, this.colours[name], this.x[p], this.y[p], this.size);
  }

  cell(p) {
    drawn.cells++;
    square(this.context, this.colours, this.x[p], this.y[p], this.size, page(this.replay.codes[p]));
    // a line joins the pages of a folio
    if (this.heads[p + 1] === false && this.y[p + 1] === this.y[p]) {
      this.context.fillStyle = this.colours.soft;
      this.context.fillRect(this.x[p] + this.size, this.y[p] + (this.size >> 1) - 1, 1, Math.max(2, this.size >> 3));
    }
  }

  under(event) {
    const box = this.canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const over = (at, start) => at >= start && at <= start + this.size;
    return this.x.findIndex((left, p) => over(x, left) && over(y, this.y[p]));
  }

  pick(p) {
    if (p < 0 || p >= this.replay.codes.length) return;
    this.page = p;
    this.ringed = false;
    const view = this.canvas.parentElement, high = view.clientHeight - 4 * this.size;
    const hidden = this.y[p] < view.scrollTop || this.y[p] > view.scrollTop + high;
    if (hidden) view.scrollTop = this.y[p] - view.clientHeight / 2;
    this.ask();
    this.picked(p);
  }

  key(event) {
    const row = (by) => {
      const p = Math.max(0, this.page), ahead = this.y.findIndex((y) => y > this.y[p]);
      if (by > 0) return ahead < 0 ? p : Math.max(ahead, this.nearest(p, this.y[ahead]));
      const above = this.y.findLastIndex((y) => y < this.y[p]);
      return above < 0 ? p : this.nearest(p, this.y[above]);
    };
    const to = {
      ArrowLeft: () => this.page - 1, ArrowRight: () => this.page + 1, ArrowUp: () => row(-1), ArrowDown: () => row(1),
    };
    if (!to[event.key] || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.pick(Math.max(0, Math.min(this.replay.codes.length - 1, to[event.key]())));
  }

  /** Returns the page of row y that is nearest to page p. */
  nearest(p, y) {
    let best = -1;
    for (let q = 0; q < this.x.length; q++) {
      if (this.y[q] === y && (best < 0 || Math.abs(this.x[q] - this.x[p]) < Math.abs(this.x[best] - this.x[p]))) best = q;
    }
    return best;
  }
}

function colours() {
  const style = getComputedStyle(document.documentElement), get = (name) => style.getPropertyValue(`--${name}`).trim();
  const named = Object.fromEntries(["paper", "soft", "mark", "pick", "bad", "step"].map((name) => [name, get(name)]));
  return { ...named, states: [..."NSHPE"].map(get) };
}

/** Draw one page: colour and letter for its state, shapes for pins, writeback and I/O. */
function square(context, shade, x, y, size, one) {
  context.fillStyle = shade.paper;
  context.fillRect(x - 1, y - 1, size + 1, size + 2);
  context.fillStyle = shade.states[one.state];
  context.fillRect(x, y, size - 1, size);
  context.fillStyle = context.strokeStyle = shade.mark;
  const unit = Math.max(2, Math.round(size / 5));
  if (size >= 18) {
    context.font = `600 ${Math.round(size / 2)}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    context.textAlign = "center";
    context.fillText(LETTERS[one.state], x + size / 2 - 0.5, y + size / 2 + 1);
  }
  if (one.over) {
    // on whole pixels; on small squares at the edge, so that the colour stays visible
    const wide = context.lineWidth = Math.max(1, Math.round(size / 16)), at = (size >= 12 ? 1 : 0) + wide / 2;
    context.globalAlpha = size >= 12 ? 1 : 0.6;
    context.strokeRect(x + at, y + at, size - 1 - 2 * at, size - 2 * at);
    context.globalAlpha = 1;
  }
  if (one.longs) context.fillRect(x, y, unit, unit);
  if (one.pins) {
    context.beginPath();
    context.arc(x + size - 1 - unit / 2, y + unit / 2, unit / 2, 0, 7);
    context.fill();
  }
  if (one.writeback) context.fillRect(x, y + size - Math.max(2, unit >> 1), size - 1, Math.max(2, unit >> 1));
  if (one.flying) {
    context.beginPath();
    context.moveTo(x + size - 1, y + size);
    context.lineTo(x + size - 1 - unit * 1.5, y + size);
    context.lineTo(x + size - 1, y + size - unit * 1.5);
    context.fill();
  }
}

/** Draw a ring around a page; around a small one with a glow, so that it is visible. */
function halo(context, colour, x, y, size) {
  context.strokeStyle = colour;
  const ring = (wide, seen) => {
    context.globalAlpha = seen;
    context.lineWidth = wide;
    context.strokeRect(x - wide / 2, y - wide / 2, size - 1 + wide, size + wide);
  };
  if (size < 12) ring(7, 0.4);
  ring(Math.max(2, size / 12), 1);
}
