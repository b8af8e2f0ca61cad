"use strict";
// The memory map on a canvas: pages as squares, folio by folio. Redraws only changed pages, once per display frame.

/** Sizes of a square, pixels; the map uses the largest at which all pages fit, else the last. */
const SIZES = [34, 20, 12, 8, 6, 3, 2];
/** Squares of this size or less touch each other, have no shapes, and are written as pixels of an image. */
const TINY = 3;
/** A range with more pages than this is drawn with all others. */
const MANY = 4096;

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
    this.rings = [];
    this.dirty = [];
    this.asked = 0;
    canvas.addEventListener("click", (event) => this.pick(this.under(event)));
    canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => { if (canvas.clientWidth !== this.width) this.layout(); }).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.layout());
  }

  show(replay) {
    this.replay = replay;
    this.page = -1;
    this.rings = [];
    this.layout();
  }

  /** Rings around ranges of pages: [first page, page after the last, name of a colour], the last one on top. */
  ring(rings) {
    this.rings = rings;
    this.ringed = false;
    this.ask();
  }

  /** Redraw these ranges of pages. */
  changed(ranges) {
    const { codes, head } = this.replay;
    for (const [first, end] of ranges) {
      for (let p = first; p < end; p++) {
        if ((codes[p] & head ? 1 : 0) !== this.heads[p]) { this.layout(); return; }
      }
      this.all ||= end - first > MANY;
    }
    this.dirty.push(...ranges);
    this.ask();
  }

  ask() {
    if (!this.asked && (this.dirty.length || this.all || !this.ringed)) this.asked = requestAnimationFrame(() => this.draw());
  }

  layout() {
    if (!this.replay) return;
    drawn.layouts++;
    const pages = this.replay.codes.length, width = this.width = this.canvas.clientWidth;
    this.heads = Uint8Array.from(this.replay.codes, (code) => (code & this.replay.head ? 1 : 0));
    this.x = new Int32Array(pages);
    this.y = new Int32Array(pages);
    const room = parseFloat(getComputedStyle(this.canvas.parentElement).maxHeight) - 16;
    let height = Infinity;
    for (let at = 0; at < SIZES.length && height > room; at++) height = this.place(SIZES[at], width);
    this.tiny = this.size <= TINY;
    $("tiny").hidden = !this.tiny;
    const ratio = this.tiny ? 1 : devicePixelRatio || 1;
    for (const one of [this.canvas, this.over]) {
      one.width = Math.round(width * ratio);
      one.height = Math.round(height * ratio);
      one.style.height = `${height}px`;
    }
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.above = this.over.getContext("2d");
    for (const context of [this.context, this.above]) context.scale(ratio, ratio);
    this.colours = colours();
    this.dots = this.tiny && new Dots(this.context, this.colours, this.size);
    this.all = true;
    this.ringed = false;
    this.ask();
  }

  /** Place every page: folios in order, with a gap between; large ones continue in the next row. Returns the height. */
  place(size, width) {
    const tiny = size <= TINY, gap = tiny ? 1 : Math.max(2, size >> 2), step = tiny ? size : size + 1, edge = 3;
    this.size = size;
    let x = edge, y = edge;
    for (let p = 0; p < this.x.length; p++) {
      if (p && this.heads[p]) x += gap;
      const length = this.heads[p] ? this.folioEnd(p) - p : 1;
      const fits = x + length * step <= width || length * step > width;
      if (x + step > width || (this.heads[p] && !fits)) { x = edge; y += step + (tiny && !this.heads[p] ? 0 : gap); }
      this.x[p] = x;
      this.y[p] = y;
      x += step;
    }
    return y + step + edge;
  }

  /** Returns the page after the folio whose head is page p. */
  folioEnd(p) {
    const next = this.heads.indexOf(1, p + 1);
    return next < 0 ? this.heads.length : next;
  }

  draw() {
    const start = performance.now(), context = this.context, pages = this.replay.codes.length;
    this.asked = 0;
    drawn.passes++;
    if (this.all) {
      context.fillStyle = this.colours.paper;
      context.fillRect(0, 0, this.width, this.canvas.height);
    }
    for (const [first, end] of this.all ? [[0, pages]] : merged(this.dirty)) {
      drawn.cells += end - first;
      if (this.tiny) this.dots.draw(this, first, end);
      else for (let p = first; p < end; p++) this.cell(p);
    }
    if (!this.ringed) this.drawRings();
    this.all = false;
    this.dirty = [];
    drawn.longest = Math.max(drawn.longest, performance.now() - start);
  }

  drawRings() {
    this.ringed = true;
    this.above.clearRect(0, 0, this.width, this.over.height);
    const rings = this.page < 0 ? this.rings : [...this.rings, [this.page, this.page + 1, "pick"]];
    for (const [first, end, name] of rings) {
      for (let p = first; p < end;) {
        // pages that stand side by side have one ring
        const from = p, y = this.y[p];
        do p++; while (p < end && this.y[p] === y);
        halo(this.above, this.colours[name], this.x[from], y, this.x[p - 1] - this.x[from] + this.size, this.size);
      }
    }
  }

  cell(p) {
    square(this.context, this.colours, this.x[p], this.y[p], this.size, page(this.replay.codes[p]));
    // a line joins the pages of a folio
    if (this.heads[p + 1] === 0 && this.y[p + 1] === this.y[p]) {
      this.context.fillStyle = this.colours.soft;
      this.context.fillRect(this.x[p] + this.size, this.y[p] + (this.size >> 1) - 1, 1, Math.max(2, this.size >> 3));
    }
  }

  under(event) {
    const box = this.canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const over = (at, start) => at >= start && (this.tiny ? at < start + this.size : at <= start + this.size);
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
  return { ...named, states: [...look.colours].map(get) };
}

/** Returns the ranges in order, those that overlap or follow each other as one. */
function merged(ranges) {
  const made = [];
  for (const [first, end] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const last = made.at(-1);
    if (last && first <= last[1]) last[1] = Math.max(last[1], end);
    else made.push([first, end]);
  }
  return made;
}

/** Tiny squares as pixels: the colour of the state, mixed with that of signs where there is an outline; one pixel for
    any other sign. */
class Dots {
  constructor(context, shade, size) {
    this.context = context;
    this.size = size;
    this.looks = new Map();
    const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const pixel = (colour, mixed = 0) => {
      for (const [one, share] of [[colour, 1], [shade.mark, mixed]]) {
        probe.globalAlpha = share;
        probe.fillStyle = one;
        probe.fillRect(0, 0, 1, 1);
      }
      return new Uint32Array(probe.getImageData(0, 0, 1, 1).data.buffer)[0];
    };
    this.states = [0, 0.35].map((mixed) => shade.states.map((colour) => pixel(colour, mixed)));
    this.mark = pixel(shade.mark);
    this.paper = pixel(shade.paper);
  }

  /** Returns the colours of a page's square and of its first pixel. */
  look(code) {
    if (!this.looks.has(code)) {
      const one = page(code), shapes = look.signs.filter((sign) => has(one, sign)).map(([, shape]) => shape);
      const colour = this.states[Number(shapes.includes("outline"))][one.state];
      this.looks.set(code, [colour, shapes.some((shape) => shape !== "outline") ? this.mark : colour]);
    }
    return this.looks.get(code);
  }

  /** Draw the pages of a map from `first` to before `end`, row by row. */
  draw({ x, y, replay: { codes }, width }, first, end) {
    const { size } = this;
    for (let p = first; p < end;) {
      const from = p, top = y[p];
      do p++; while (p < end && y[p] === top);
      const left = x[from], image = this.context.createImageData(x[p - 1] - left + size, size);
      const pixels = new Uint32Array(image.data.buffer).fill(this.paper);
      let code = codes[from], [whole, corner] = this.look(code);
      for (let q = from; q < p; q++) {
        if (codes[q] !== code) [whole, corner] = this.look(code = codes[q]);
        for (let row = 0; row < size; row++) {
          const at = row * image.width + x[q] - left;
          pixels.fill(whole, at, at + size);
        }
        pixels[x[q] - left] = corner;
      }
      this.context.putImageData(image, left, top);
    }
  }
}

/** Draw one page: colour and letter for its state, shapes for the signs of the look. */
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
    context.fillText(look.letters[one.state], x + size / 2 - 0.5, y + size / 2 + 1);
  }
  const there = (shape) => look.signs.some((sign) => sign[1] === shape && has(one, sign));
  if (there("outline")) {
    // on whole pixels; on small squares at the edge, so that the colour stays visible
    const wide = context.lineWidth = Math.max(1, Math.round(size / 16)), at = (size >= 12 ? 1 : 0) + wide / 2;
    context.globalAlpha = size >= 12 ? 1 : 0.6;
    context.strokeRect(x + at, y + at, size - 1 - 2 * at, size - 2 * at);
    context.globalAlpha = 1;
  }
  if (there("corner")) context.fillRect(x, y, unit, unit);
  if (there("dot")) {
    context.beginPath();
    context.arc(x + size - 1 - unit / 2, y + unit / 2, unit / 2, 0, 7);
    context.fill();
  }
  if (there("bar")) context.fillRect(x, y + size - Math.max(2, unit >> 1), size - 1, Math.max(2, unit >> 1));
  if (there("triangle")) {
    context.beginPath();
    context.moveTo(x + size - 1, y + size);
    context.lineTo(x + size - 1 - unit * 1.5, y + size);
    context.lineTo(x + size - 1, y + size - unit * 1.5);
    context.fill();
  }
}

/** Draw a ring around pages side by side; around small ones with a glow, so that it is visible. */
function halo(context, colour, x, y, width, size) {
  context.strokeStyle = colour;
  const ring = (wide, seen) => {
    context.globalAlpha = seen;
    context.lineWidth = wide;
    context.strokeRect(x - wide / 2, y - wide / 2, width - 1 + wide, size + wide);
  };
  if (size < 12) ring(7, 0.4);
  ring(Math.max(2, size / 12), 1);
}
