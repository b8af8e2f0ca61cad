"use strict";
// Panels of the page, each made from a replay alone. Data from outside becomes text, never markup.

const body = (id) => $(id).querySelector("tbody");

// ------------------------------------------------------------------------------------------- the map in words
const RINGS = [["named in a wait", "bad"], ["changed by this entry", "step"]];

/** Draw the legend of the look with the map's own functions, each sign with the number of its pages. */
function legend() {
  const shade = colours(), plain = page(0);
  const entry = (name, one, ring) => {
    const canvas = h("canvas", { width: 44, height: 44, "aria-hidden": "true" });
    const context = canvas.getContext("2d");
    context.scale(2, 2);
    square(context, shade, 2, 2, 18, { ...plain, ...one });
    if (ring) halo(context, shade[ring], 2, 2, 18, 18);
    return h("li", {}, canvas, `${name} `, !ring && h("b", {}));
  };
  $("counts").replaceChildren(...look.states.map((name, state) => entry(name, { state })),
    ...look.signs.map(([name, , field, mask]) => entry(name, { [field]: mask })),
    ...RINGS.map(([name, ring]) => entry(name, {}, ring)));
}

/** Returns a button that chooses a page on the map. */
function toPage(p, words) {
  const go = () => {
    map.pick(p);
    $("maphold").scrollIntoView({ block: "nearest" });
  };
  return h("button", { type: "button", class: "page", click: go }, words);
}

const PAGE = /\b(page \d+)/;
const paged = (text) => text.split(PAGE).map((part, i) => (i % 2 ? toPage(Number(part.slice(5)), part) : part));

/** Returns the rings of the map: pages changed by the entry, and pages named in waits. */
function rings(list, frame) {
  const made = frame ? ranges(frame.runs).map((range) => [...range, "step"]) : [];
  for (const one of list) {
    for (const found of `${one.waiter} ${one.held}`.matchAll(/\bpage (\d+)/g)) {
      made.push([Number(found[1]), Number(found[1]) + 1, "bad"]);
    }
  }
  return made;
}

/** Fill the counts of pages by state and sign, and the table of folios that are held or worked on. */
function tables(replay) {
  const counts = new Array(look.states.length).fill(0), on = new Map(look.signs.map(([name]) => [name, 0])), busy = [];
  const { codes } = replay;
  let head = 0, words = new Map();
  const close = (end) => {
    if (words.size) { busy.push([head, end, words]); words = new Map(); }
  };
  for (let p = 0; p < codes.length;) {
    const first = p, code = codes[p], one = page(code);
    if (one.head) { close(p); head = p; }
    // pages of one code that are no heads are looked at once
    do p++; while (p < codes.length && codes[p] === code && !one.head);
    counts[one.state] += p - first;
    for (const sign of look.signs) {
      const [name] = sign;
      if (!has(one, sign)) continue;
      on.set(name, on.get(name) + p - first);
      if (!words.has(name)) words.set(name, []);
      words.get(name).push([first, p]);
    }
  }
  close(codes.length);
  $("counts").querySelectorAll("b").forEach((place, i) => { place.textContent = [...counts, ...on.values()][i]; });
  const told = busy.slice(0, MOST).map(([first, end, found]) => [first, end,
    [...found].map(([name, pages]) => `${name}: ${listed(pages)}`).join("; ")]);
  // an unchanged table keeps the keyboard focus
  if ($("folios").dataset.key === JSON.stringify([told, busy.length])) return;
  $("folios").dataset.key = JSON.stringify([told, busy.length]);
  const rows = told.map(([first, end, what]) => h("tr", {}, h("th", { scope: "row" },
    toPage(first, end - first > 1 ? `pages ${first}–${end - 1}` : `page ${first}`)), h("td", {}, what)));
  if (busy.length > MOST) rows.push(h("tr", {}, h("td", { colspan: 2 }, `and ${plural(busy.length - MOST, "more folio")}`)));
  body("folios").replaceChildren(...(rows.length ? rows : [h("tr", {}, h("td", {}, "none"))]));
}

const MOST = 12;

/** Returns ranges of pages in words, the first eight pages of them by number. */
function listed(pages) {
  const count = pages.reduce((sum, [first, end]) => sum + end - first, 0), named = [];
  for (const [first, end] of pages) for (let p = first; p < end && named.length < 8; p++) named.push(p);
  return `page${count > 1 ? "s" : ""} ${named.join(", ")}${count > named.length ? `, and ${count - named.length} more` : ""}`;
}

/** Returns one page in words. */
function described(replay, p) {
  const one = page(replay.codes[p]), [first, end] = replay.folio(p), rest = marks(one);
  const folio = end - first > 1 ? `in the folio of pages ${first} to ${end - 1}` : "a folio of its own";
  return `Page ${p}: ${look.states[one.state]}, ${folio}${rest.length ? `; ${rest.join(", ")}` : ""}.`;
}

// ------------------------------------------------------------------------------------------- who waits for whom
const HANGS = { permanent: "A hang", fatal: "The end of a machine", "vmm-bound": "A hang, unless the VMM ends it" };
const KINDS = {
  expected: "expected, and the purpose of pin shared", "vmm-bound": "vmm-bound: the VMM may end it, and need not",
};

/** Show the waits in words and as boxes; the heading names the first that is a hang. */
function waiting(list) {
  if (waiting.told === list) return;
  waiting.told = list;
  const worst = list.find((one) => one.kind in HANGS);
  $("hang").className = worst ? "hang" : "";
  $("hang").textContent = worst
    ? `${HANGS[worst.kind]}: ${worst.waiter} waits ${worst.kind === "fatal" ? "for" : "for ever for"} ${worst.waits}.`
    : list.length ? "Nothing hangs; these wait:" : "Nobody waits.";
  $("waits").replaceChildren(...list.map(chain));
}

function chain(one) {
  const box = (label, text, more) => h("li", {}, h("small", {}, label), paged(text), more && h("small", {}, more));
  const lists = { class: `wait ${one.kind}`, "aria-label": `wait of ${one.waiter}` };
  return h("ul", lists, box("waits", one.waiter, KINDS[one.kind] || one.kind), box("for", one.waits), box("held by", one.held),
    box("released by", one.released));
}

// ------------------------------------------------------------------------------------------- ladder
const COLUMNS = ["guest", "host", "ultravisor", "device"];
const PLAIN = ["OK", "DONE"];

/** Name the ladder's columns as the look does. */
function heads() {
  const names = ["entry", ...look.columns];
  $("ladder").querySelectorAll("th[scope=col]").forEach((place, i) => { place.textContent = names[i]; });
}

/** Show the last steps up to frame n, the latest last, a column per role; a repeated round is shown once. */
function ladder(replay, n, most = 32) {
  let rows = [];
  for (let at = n; at > replay.base.n && rows.length < most;) {
    const [period, times] = round(replay, at), told = [];
    const since = at - period * times;
    if (times > 1) told.push(note(`the same round ${times} times, since entry ${since + 1}; its last time:`, "round"));
    for (let m = at - period + 1; m <= at; m++) told.push(...entry(replay.frame(m), m === n));
    rows = [...told, ...rows];
    at = since;
  }
  body("ladder").replaceChildren(...(rows.length ? rows : [note("None before this.", "round")]));
}

const note = (text, kind) => h("tr", {}, h("td", { colspan: 5, class: kind }, text));

/** Returns [entries of the round that ends at entry `at`, its repetitions in a row]. */
function round(replay, at) {
  const key = (m) => (m > replay.base.n ? replay.frame(m).key : -m - 2);
  for (let period = 1; period <= 4; period++) {
    let back = period;
    while (key(at - back) === key(at - back + period)) back++;
    if (back >= 2 * period) return [period, Math.floor(back / period)];
  }
  return [1, 1];
}

function entry(frame, now) {
  const made = frame.steps.map((step, i) => rung(frame, step, i, now));
  return frame.broken.length ? [...made, note(`breaks: ${frame.broken.join("; ")}`, "broken")] : made;
}

function rung(frame, [column, what, outcome, calls], i, now) {
  const cells = COLUMNS.map((name) => {
    const asked = calls.filter(([to]) => to === name).map(([, call, answer]) =>
      h("span", { class: "call" }, `→ ${call}${answer && `: ${answer}`}`));
    if (name !== column) return h("td", {}, asked);
    const word = !PLAIN.includes(outcome) && h("span", { class: /^-?E|BUG/.test(outcome) && "met" }, ` ${outcome}`);
    return h("td", {}, h("span", {}, what, word && ":", word), asked);
  });
  return h("tr", { class: now && "now" }, h("td", {}, i ? "" : link(frame.n)), cells);
}

const link = (n) => h("a", { href: hashOf(n) }, n);

// ------------------------------------------------------------------------------------------- sweeps
const shownPlots = new Map();
const DRAWN_EVERY = 3000;

function sweeps(list) {
  const known = new Map([...$("jobs").children].map((item) => [item.dataset.job, item]));
  const items = list.map((one) => sweep(one, known.get(one.job)));
  $("jobs").replaceChildren(...(items.length ? items : [h("li", {}, "None yet.")]));
}

function sweep(one, item) {
  const made = item || h("li", { "data-job": one.job }, h("p", {}), h("progress", { max: one.cells }), h("pre", {}));
  const [text, bar, why] = made.children, name = one.name || one.job;
  text.textContent = `${name}: ${one.state}, ${one.done} of ${plural(one.cells, "cell")}`
    + (one.quarantined ? `, ${one.quarantined} given up` : "");
  bar.value = one.done;
  bar.setAttribute("aria-label", `progress of ${name}`);
  why.textContent = one.why;
  why.hidden = !one.why;
  if (!shownPlots.has(one.job)) shownPlots.set(one.job, new Plots(one.job));
  const plots = shownPlots.get(one.job);
  if (plots.element.parentElement !== made) made.append(plots.element);
  plots.grown(one.done, one.state === "done");
  return made;
}

/** A sweep's plots, drawn by the lab when they are opened, and again while the sweep runs. */
class Plots {
  constructor(job) {
    this.job = job;
    this.place = h("div", { role: "status" });
    this.element = h("details", {}, h("summary", {}, "Plots"), this.place);
    this.element.addEventListener("toggle", () => this.look());
    this.wanted = "0";
    this.drawn = "";
    this.busy = false;
  }

  grown(cells, done) {
    this.wanted = `${cells}${done}`;
    this.look();
  }

  async look() {
    if (!this.element.open || this.busy || this.drawn === this.wanted) return;
    this.busy = true;
    const wanted = this.wanted;
    if (!this.drawn) this.place.textContent = "drawing…";
    const got = await fetch(`sweeps/${this.job}/plots`).then((answer) => answer.json())
      .catch(() => ({ error: "the lab does not answer" }));
    this.drawn = wanted;
    this.show(got);
    setTimeout(() => { this.busy = false; this.look(); }, DRAWN_EVERY);
  }

  show({ error, cells, plots }) {
    if (error) { this.place.textContent = error; return; }
    const of = h("p", { class: "soft" }, `Of ${plural(cells, "cell")}.`);
    const known = new Map([...this.place.querySelectorAll("figure")].map((one) => [one.dataset.name, one]));
    this.place.replaceChildren(of, ...plots.map((plot) => this.figure(plot, cells, known.get(plot.name))));
  }

  /** Returns a plot's figure; an existing one stays visible until the new image is loaded. */
  figure({ name, alt, title, caption }, cells, known) {
    const made = known || h("figure", { "data-name": name }, h("img", {}), h("figcaption", {}));
    const [image, text] = made.children;
    image.alt = alt;
    image.src = `sweeps/${this.job}/${name}.svg?cells=${cells}`;
    text.replaceChildren(h("strong", {}, title), ` ${caption}`);
    return made;
  }
}
