"use strict";
// The memory map on a canvas: pages as squares, folio by folio. Only what changed is drawn again, once a frame.

/** Counts for those who measure: squares drawn, passes over the canvas, layouts made. */
const drawn = { cells: 0, passes: 0, layouts: 0, longest: 0 };

class MemoryMap {
  constructor(canvas, picked) {
    this.canvas = canvas;
    this.picked = picked;
    this.film = null;
    this.page = -1;
    this.dirty = new Set();
    this.asked = 0;
    canvas.addEventListener("click", (event) => this.pick(this.under(event)));
    canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => { if (canvas.clientWidth !== this.width) this.layout(); }).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.layout());
  }

  show(film) {
    this.film = film;
    this.page = -1;
    this.layout();
  }

  /** These pages look different now. */
  changed(pages) {
    for (const p of pages) {
      if (Boolean(this.film.codes[p] & HEAD) !== this.heads[p]) { this.layout(); return; }
      this.dirty.add(p);
    }
    this.ask();
  }

  ask() {
    if (!this.asked && (this.dirty.size || this.all)) this.asked = requestAnimationFrame(() => this.draw());
  }

  /** Where every page stands: folios one after the other, with a gap between; large ones go on in the next row. */
  layout() {
    if (!this.film) return;
    drawn.layouts++;
    const pages = this.film.codes.length, width = this.canvas.clientWidth;
    const size = this.size = pages <= 64 ? 34 : pages <= 600 ? 20 : pages <= 3000 ? 12 : 8;
    const gap = Math.max(3, size >> 2), step = size + 1;
    this.x = new Int32Array(pages);
    this.y = new Int32Array(pages);
    this.heads = new Array(pages);
    let x = 1, y = 1;
    for (let p = 0; p < pages; p++) {
      this.heads[p] = Boolean(this.film.codes[p] & HEAD);
      if (p && this.heads[p]) x += gap;
      const length = this.heads[p] ? this.film.folio(p)[1] - p : 1;
      const fits = x + length * step <= width || length * step > width;
      if (x + step > width || (this.heads[p] && !fits)) { x = 1; y += step + gap; }
      this.x[p] = x;
      this.y[p] = y;
      x += step;
    }
    const ratio = devicePixelRatio || 1, height = y + step + 1;
    this.width = width;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.style.height = `${height}px`;
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.context.scale(ratio, ratio);
    this.colours = colours();
    this.all = true;
    this.ask();
  }

  draw() {
    const start = performance.now(), context = this.context;
    this.asked = 0;
    drawn.passes++;
    if (this.all) {
      context.fillStyle = this.colours.paper;
      context.fillRect(0, 0, this.width, this.canvas.height);
      for (let p = 0; p < this.film.codes.length; p++) this.cell(p);
    } else {
      for (const p of this.dirty) this.cell(p);
    }
    this.all = false;
    this.dirty.clear();
    drawn.longest = Math.max(drawn.longest, performance.now() - start);
  }

  cell(p) {
    drawn.cells++;
    square(this.context, this.colours, this.x[p], this.y[p], this.size, page(this.film.codes[p]), p === this.page);
    // the pages of a folio hang together
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
    if (p < 0 || p >= this.film.codes.length) return;
    for (const one of [this.page, p]) if (one >= 0) this.dirty.add(one);
    this.page = p;
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
    this.pick(Math.max(0, Math.min(this.film.codes.length - 1, to[event.key]())));
  }

  /** The page of a row that stands nearest below or above another. */
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
  return { states: [..."NSHPE"].map(get), paper: get("paper"), soft: get("soft"), mark: get("mark"), pick: get("pick") };
}

/** One page: colour and letter say its state; shapes, not colours, say what is on it. */
function square(context, shade, x, y, size, one, picked) {
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
    context.lineWidth = Math.max(1, size / 16);
    context.strokeRect(x + 1, y + 1, size - 3, size - 2);
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
  if (picked) {
    context.strokeStyle = shade.pick;
    context.lineWidth = Math.max(2, size / 10);
    const wide = context.lineWidth;
    context.strokeRect(x + wide / 2, y + wide / 2, size - 1 - wide, size - wide);
  }
}
