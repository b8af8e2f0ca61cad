"use strict";
// Parts of the page, each made from nodes only. Data become text nodes, never markup.

let meta;

const small = (...children) => h("small", {}, ...children);
const strong = (text) => h("strong", {}, text);
const code = (text) => h("code", {}, text);
const mark = (text) => h("mark", {}, text);
const plain = (text) => h("p", {}, text);
const row = (head, ...cells) => h("tr", {}, h("th", { scope: "row" }, head), ...cells);

// ------------------------------------------------------------------------------------------- pages
/** A page's flags as letters; the count of references is one item. */
function letters(flags) {
  const plus = flags.indexOf("+");
  return plus < 0 ? [...flags] : [...flags.slice(0, plus), flags.slice(plus)];
}

/** A page's flags, with changed ones marked. */
function flagged(now, was) {
  const old = letters(was), shown = letters(now);
  if (old.length > shown.length) shown.push("+0");
  return h("span", { class: "flags" }, shown.map((letter, i) => (letter === old[i] ? letter : mark(letter))));
}

/** What a page is, as the number of the field that says so in the design. */
function valueOf(node, p) {
  const [section, field] = meta.state;
  return node.state[section][p][meta.sections[section].indexOf(field)];
}

/** The same in words. */
const stateOf = (node, p) => meta.words[meta.state.slice(0, 2).join(".")][valueOf(node, p)];

/** All pages, folio by folio, with differences from the previous node marked. */
function pages(here, before = here) {
  const cell = (p) => h("div", { class: `cell ${meta.state[2][valueOf(here, p)]}`, "data-page": p },
    h("b", {}, `page ${p}: ${stateOf(here, p)}`), flagged(here.flags[p], before.flags[p]));
  const folio = (head) => {
    const mine = here.folio.flatMap((other, p) => (other === head ? [p] : []));
    return h("div", { class: "folio", role: "group", "aria-label": `folio of page ${head}` },
      h("div", { class: "soft" }, `folio, ${plural(mine.length, "page")}`),
      h("div", { class: "cells" }, mine.map(cell)));
  };
  return h("div", { class: "folios" }, [...new Set(here.folio)].map(folio));
}

/** The pages whose state changed, in words, for screen readers. */
function turned(before, here) {
  const changed = here.flags.map((_, p) => p).filter((p) => stateOf(before, p) !== stateOf(here, p));
  return changed.map((p) => `; page ${p} ${stateOf(before, p)} → ${stateOf(here, p)}`).join("");
}

// ------------------------------------------------------------------------------------------- waits
/** A line for each actor that waits in a node: class, obstacle, holder. */
function stalls(here) {
  const line = ({ kind, waiter, waits_for: what, held_by: held, released_by: released }) => h("li", { "data-kind": kind },
    strong(kind), `: ${waiter} waits for ${what}; held by ${held}; released by ${released}`);
  return here.stalls.length ? here.stalls.map(line) : [h("li", {}, "Nobody.")];
}

// ------------------------------------------------------------------------------------------- steps
function origin(rule) {
  const { about, kernel, seed } = meta.rules[rule];
  const words = about.split("`").map((part, i) => i % 2 ? code(part) : part);
  return small(words, h("br", {}), kernel, seed && ` — “${seed}”`);
}

/** An enabled step; `next`: it is the next step of the path; `click` takes it. */
function enabled(move, index, next, click) {
  const { what, outcome, broke, meets, to } = move;
  return h("li", {}, h("button", { type: "button", "data-index": index, click },
    strong(what), ` ${outcome}${next ? " →" : ""}`,
    broke > 0 && h("span", { class: "broken" }, ` breaks: ${meta.properties[broke]}`),
    meets && small(`meets ${meets.for}; held by ${meets.held}`),
    to === -1 && small("leads out of this file")), origin(move.rule));
}

function refused({ what, why, guard, condition, meets, rule }) {
  return h("li", {}, strong(what), ` waits for ${why} `, code(guard), small(
    condition ? ["refuses where ", code(condition), ". "] : [],
    meets && `Held by ${meets.held}; released by ${meets.released}. `,
    meta.rules[rule] && meta.rules[rule].kernel));
}

/** A line for every field that differs between two nodes. */
function changes(before, here) {
  const lines = [], word = (field, value) => (meta.words[field] || [])[value] || String(value);
  for (const [section, fields] of Object.entries(meta.sections)) {
    here.state[section].forEach((values, i) => fields.forEach((field, c) => {
      const was = before.state[section][i][c], name = `${section}.${field}`;
      if (was === values[c]) return;
      const now = mark(word(name, values[c]));
      lines.push(h("li", {}, code(`${section}[${i}].${field}`), ` ${word(name, was)} → `, now));
    }));
  }
  return lines;
}

// ------------------------------------------------------------------------------------------- properties
const TRUTHS = { holds: "✓ holds", broken: "✗ broken", waiting: "… waiting" };
const IDLE = "✓ none pending"; // said of a leads-to in a state: it may still fail on the way from there

/** Every property's truth in a node; `broke`: for each step of the path, the number of the property it broke, or 0. */
function properties(here, broke) {
  const line = (name, truth, where, says = TRUTHS[truth]) =>
    row([name, where && small(where)], h("td", { class: truth }, says));
  const always = meta.properties.slice(1).map((name, i) => {
    const on = here.broken.filter(([n]) => n === i + 1).map(([, page]) => `page ${page}`);
    const last = broke.lastIndexOf(i + 1) + 1, now = on.length > 0 || (last > 0 && last === broke.length);
    const when = now ? "by the step that led here" : last > 0 ? `broken by step ${last}` : "";
    return line(name, now ? "broken" : "holds", on.join(", ") || when);
  });
  const leads = meta.leads_to.map((name, n) => {
    const who = here.pending.filter(([m]) => m === n).map(([, t]) => `${meta.actors[t]} (${here.actors[t]})`);
    return line(name, who.length ? "waiting" : "holds", who.join("; "), who.length ? TRUTHS.waiting : IDLE);
  });
  return h("tbody", {}, always, leads);
}
