"use strict";
// One interface over two sources of the same data: a server that walks, or the part of a graph that a file holds.
// No rule is here: a step is an edge that the source already has.

const $ = (id) => document.getElementById(id);
const held = $("data") ? JSON.parse($("data").textContent) : null;

/** An element; attributes that are false are left out; text is only ever text. */
function h(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== false && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== "" && child !== null && child !== undefined));
  return made;
}

const fill = (id, ...children) => $(id).replaceChildren(...children.flat());
const plural = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
class Refusal extends Error {}

// ------------------------------------------------------------------------------------------- sources
const served = {
  async get(address) {
    const answer = await fetch(address);
    const body = await answer.json();
    if (!answer.ok) throw new Refusal(body.error);
    return body;
  },
  meta() { return this.get("api/meta"); },
  story(p) { return this.get(`api/${p}/story`); },
  along(p, path, from) { return this.get(`api/${p}/along?path=${path.join(".")}&from=${from}`); },
  search(p, text) { return this.get(`api/${p}/search?expression=${encodeURIComponent(text)}`); },
};

const embedded = {
  async meta() { return held.meta; },
  async story(p) { return held.graphs[p].story; },
  node(p, number) {
    const pool = held.pool, [rows, flags, folio, actors, moves, refused, broken, pending] = held.graphs[p].nodes[number];
    const state = {};
    let at = 0;
    for (const [name, n] of Object.entries(held.sizes)) { state[name] = rows.slice(at, at + n).map((i) => pool[i]); at += n; }
    return {
      id: number, state, flags: pool[flags], folio: pool[folio], actors: actors.map((i) => pool[i]), broken, pending,
      enabled: moves.map(([i, to]) => ({ ...pool[i], to })), refused: refused.map((i) => pool[i]),
    };
  },
  async along(p, path, from) {
    let here = this.node(p, 0);
    const nodes = [here];
    path.forEach((index, step) => {
      const move = here.enabled[index];
      if (!move) {
        const n = here.enabled.length;
        throw new Refusal(`index ${index} at step ${step + 1}: ${n ? `only ${plural(n, "step")} ${n === 1 ? "is" : "are"}` : "no step is"} enabled`);
      }
      if (move.to < 0) {
        throw new Refusal(`step ${step + 1} leads out of this file: ${held.graphs[p].coverage}\nwalk on with: ${command(p, path)}`);
      }
      nodes.push(here = this.node(p, move.to));
    });
    return { nodes: nodes.slice(from) };
  },
  async search(p, text) {
    const holds = compile(meta, text, this.node(p, 0).state), graph = held.graphs[p];
    const came = new Map([[0, null]]);
    for (const number of came.keys()) {
      if (holds(this.node(p, number).state)) {
        const path = [];
        for (let at = number; came.get(at); at = came.get(at)[0]) path.unshift(came.get(at)[1]);
        return { path, message: `the nearest of the ${plural(graph.nodes.length, "state")} in this file: ${plural(path.length, "step")}` };
      }
      graph.nodes[number][4].forEach(([, to], index) => { if (to >= 0 && !came.has(to)) came.set(to, [number, index]); });
    }
    return { path: null, message: `none of the ${plural(graph.nodes.length, "state")} in this file satisfies it` };
  },
};

// ------------------------------------------------------------------------------------------- where we are
const source = held ? embedded : served;
let meta, stories = [];
let at = { policy: 0, path: [], nodes: [] }, track = [], latest = 0;

const link = (policy, path) => `#/${encodeURIComponent(meta.policies[policy])}/${path.join(".")}`;
const moveAt = (nodes, path, step) => nodes[step].enabled[path[step]];
const go = (policy, path) => { const to = link(policy, path); if (location.hash === to) load(); else location.hash = to; };
const command = (policy, path) => `${meta.commands[policy]}${path.length ? ` --path ${path.join(".")}` : ""}`;

function parse(hash) {
  const [, name, text] = hash.match(/^#\/([^/]*)\/?(.*)$/) || [null, encodeURIComponent(meta.policies[0]), hash.replace(/^#\/?/, "")];
  let plain = name;
  try { plain = decodeURIComponent(name); } catch { /* shown as it stands, below */ }
  const policy = meta.policies.indexOf(plain);
  if (policy < 0) throw new Refusal(`no policy '${plain}' here\n  allowed  ${meta.policies.join(", ")}`);
  if (text.length > 5 * meta.max_steps || text.split(".").length > meta.max_steps) throw new Refusal(`the path is too long\n  allowed  at most ${meta.max_steps} steps`);
  if (!/^(\d{1,4}(\.\d{1,4})*)?$/.test(text)) throw new Refusal(`'${text}' is not an index path\n  allowed  indices of steps with dots between, such as 3.1.0`);
  return { policy, path: text ? text.split(".").map(Number) : [] };
}

const wait = (seconds) => new Promise((done) => { setTimeout(done, 1000 * seconds); });

/** The nodes from start to the end of a path; those that `known` holds already are not asked for. */
async function along(policy, path, known) {
  let same = 0;
  if (known && known.policy === policy) while (same < path.length && same < known.path.length && path[same] === known.path[same]) same++;
  const kept = known && known.policy === policy ? known.nodes.slice(0, same + 1) : [];
  const got = await source.along(policy, path, kept.length);
  return { policy, path, nodes: [...kept, ...got.nodes] };
}

async function load() {
  const mine = ++latest;
  for (;;) {
    try {
      const { policy, path } = parse(location.hash);
      const found = await along(policy, path, at);
      stories[policy] = stories[policy] || await source.story(policy);
      if (mine !== latest) return;
      at = found;
      if (!path.every((index, step) => track[step] === index)) track = path;
      if (track.length <= path.length) track = onStory(path) ? whole(stories[policy]) : path;
      say("");
      render();
      await follow(mine);
      return;
    } catch (error) {
      if (mine !== latest) return;
      say(error instanceof Refusal ? error.message : "the server does not answer; trying again until it does");
      if (error instanceof Refusal || held) { if (!(error instanceof Refusal)) throw error; return; }
      await wait(1.5);
    }
  }
}

const say = (text) => { $("trouble").textContent = text; };
const whole = (story) => [...story.path, ...story.loop];
const onStory = (path) => stories[at.policy].exists && path.every((index, step) => whole(stories[at.policy])[step] === index);

// ------------------------------------------------------------------------------------------- showing it
function render() {
  const { policy, path, nodes } = at, here = nodes.at(-1), before = path.length ? nodes.at(-2) : null;
  const step = path.length ? moveAt(nodes, path, path.length - 1) : null, story = stories[policy];
  const focused = [...$("enabled").querySelectorAll("button")].indexOf(document.activeElement);
  $("policy").value = String(policy);
  document.title = `${meta.policies[policy]} ${path.join(".") || "start"} · ${meta.title}`;
  fill("verdict", h("strong", {}, story.verdict), story.wait.map((line) => h("span", { class: "wait" }, line)));
  const again = nodes.slice(0, -1).findIndex((node) => same(node, here));
  fill("said", path.length ? `After ${plural(path.length, "step")}: ` : "The initial state", step ? [h("strong", {}, step.what), `, ${step.outcome}`] : "",
    step && step.meets ? `; it met ${step.meets.for}, held by ${step.meets.held}` : "", before ? turned(before, here) : "", again >= 0 ? `. The same state as after ${plural(again, "step")}` : "", ".");
  fill("pages", pages(here, before));
  fill("enabled", here.enabled.length ? here.enabled.map((move, index) => enabled(move, index)) : h("p", {}, "None: nothing can happen here."));
  fill("refused", here.refused.length ? here.refused.map(refused) : h("p", {}, "None."));
  fill("changed", before ? changes(before, here).map(([field, was, now]) => h("li", {}, h("code", {}, field), ` ${was} → `, h("mark", {}, now))) : h("p", {}, "Nothing yet."));
  fill("actors", h("tbody", {}, here.actors.map((doing, t) => h("tr", {}, h("th", { scope: "row" }, meta.actors[t]),
    h("td", {}, before && before.actors[t] !== doing ? h("mark", {}, doing) : doing)))));
  fill("properties", h("tbody", {}, properties(here).map(({ name, truth, where }) => h("tr", {}, h("th", { scope: "row" }, name, where ? h("small", {}, where) : ""),
    h("td", { class: truth }, { holds: "✓ holds", broken: "✗ broken", waiting: "… waiting" }[truth])))));
  fill("way", nodes.map((_, n) => way(n)));
  const current = $("way").querySelector("[aria-current]");
  $("way").scrollTop = current.offsetTop - $("way").offsetTop - $("way").clientHeight / 2;
  $("start").disabled = $("back").disabled = !path.length;
  $("on").disabled = track.length <= path.length;
  $("counterexample").disabled = $("loop").disabled = !story.exists;
  $("again").textContent = command(policy, path);
  $("coverage").textContent = held ? `This file holds ${held.graphs[policy].coverage}.` : "";
  if (focused >= 0) ($("enabled").querySelectorAll("button")[Math.min(focused, here.enabled.length - 1)] || $("state-title")).focus();
}

/** The pages whose state the last step changed, in words, for those who hear the page. */
function turned(before, here) {
  const state = meta.sections.uv.indexOf("state"), name = (node, p) => meta.words["uv.state"][node.state.uv[p][state]];
  return here.flags.flatMap((_, p) => (name(before, p) === name(here, p) ? [] : [`; page ${p} ${name(before, p)} → ${name(here, p)}`])).join("");
}

const same = (a, b) => a.id === b.id;

/** A page's flags, the changed letters marked. */
function flags(now, was) {
  const split = (text) => { const plus = text.indexOf("+"); return plus < 0 ? [...text] : [...text.slice(0, plus), text.slice(plus)]; };
  const old = was === undefined ? null : split(was), letters = split(now);
  if (old && old.length > letters.length) letters.push("+0");
  return h("span", { class: "flags" }, letters.map((letter, i) => (old && letter !== old[i] ? h("mark", {}, letter) : letter)));
}

function pages(here, before) {
  const folios = [...new Set(here.folio)], state = meta.sections.uv.indexOf("state");
  const cell = (p) => h("div", { class: `cell ${here.flags[p][0]}`, "data-page": p }, h("b", {}, `page ${p}: ${meta.words["uv.state"][here.state.uv[p][state]]}`),
    flags(here.flags[p], before ? before.flags[p] : undefined));
  return h("div", { class: "folios" }, folios.map((head) => {
    const mine = here.folio.flatMap((other, p) => (other === head ? [p] : []));
    return h("div", { class: "folio", role: "group", "aria-label": `folio of page ${head}` }, h("div", { class: "soft" }, `folio, ${plural(mine.length, "page")}`),
      h("div", { class: "cells" }, mine.map(cell)));
  }));
}

const about = (rule) => meta.rules[rule] || { about: "", kernel: "", seed: "", fair: "" };
const origin = (rule) => h("small", {}, about(rule).about, h("br"), about(rule).kernel, about(rule).seed ? ` — “${about(rule).seed}”` : "");

function enabled(move, index) {
  const next = track.length > at.path.length && track[at.path.length] === index;
  return h("li", {}, h("button", { type: "button", "data-index": index, click: () => go(at.policy, [...at.path, index]) },
    h("strong", {}, move.what), ` ${move.outcome}${next ? " →" : ""}`, move.broke ? h("span", { class: "broken" }, ` breaks: ${meta.properties[move.broke]}`) : "",
    move.to === -1 ? h("small", {}, "leads out of this file") : "", move.meets ? h("small", {}, `meets ${move.meets.for}; held by ${move.meets.held}`) : ""), origin(move.rule));
}

const refused = (move) => h("li", {}, h("strong", {}, move.what), ` waits for ${move.why} `, h("code", {}, move.guard),
  h("small", {}, move.condition ? ["refuses where ", h("code", {}, move.condition), ". "] : "", move.meets ? `Held by ${move.meets.held}; released by ${move.meets.released}. ` : "", about(move.rule).kernel));

function changes(before, here) {
  const found = [], word = (field, value) => (meta.words[field] || [])[value] || String(value);
  for (const [section, fields] of Object.entries(meta.sections)) {
    here.state[section].forEach((row, i) => fields.forEach((field, c) => {
      const old = before.state[section][i][c], key = `${section}.${field}`;
      if (old !== row[c]) found.push([`${section}[${i}].${field}`, word(key, old), word(key, row[c])]);
    }));
  }
  return found;
}

function properties(here) {
  const { path, nodes } = at, broke = path.map((_, step) => moveAt(nodes, path, step).broke);
  const always = meta.properties.slice(1).map((name, i) => {
    const number = i + 1, on = here.broken.filter(([n]) => n === number).map(([, page]) => `page ${page}`);
    const last = broke.lastIndexOf(number) + 1, now = on.length > 0 || (last > 0 && last === path.length);
    return { name, truth: now ? "broken" : "holds", where: on.join(", ") || (now ? "by the step that led here" : last ? `broken by step ${last}` : "") };
  });
  return [...always, ...meta.leads_to.map((name, n) => {
    const who = here.pending.filter(([which]) => which === n).map(([, t]) => `${meta.actors[t]} (${here.actors[t]})`);
    return { name, truth: who.length ? "waiting" : "holds", where: who.join("; ") };
  })];
}

/** A line of the way: the step that led to state n, as a link to it. */
function way(n) {
  const { policy, path, nodes } = at, story = stories[policy];
  const text = n ? `${moveAt(nodes, path, n - 1).what}: ${moveAt(nodes, path, n - 1).outcome}` : "start";
  const inLoop = story.loop.length && n > story.path.length && onStory(path);
  return h("li", { class: inLoop ? "loop" : false }, h("a", { href: link(policy, path.slice(0, n)), "aria-current": n === path.length ? "step" : false }, text),
    inLoop && n === story.path.length + 1 ? h("small", {}, "from here for ever") : "");
}

// ------------------------------------------------------------------------------------------- policies in step
/** Walk every other policy by the same actors' same choices; a step that cannot be taken there is skipped, with why. */
async function follow(mine) {
  $("others").hidden = meta.policies.length < 2;
  const columns = [];
  for (let p = 0; p < meta.policies.length; p++) {
    if (p === at.policy) continue;
    const skipped = [];
    let mineOf = await along(p, [], null);
    for (let step = 0; step < at.path.length; step++) {
      const wanted = moveAt(at.nodes, at.path, step), here = mineOf.nodes.at(-1);
      const alike = (move) => move.actor === wanted.actor && move.op === wanted.op && move.page === wanted.page;
      const index = here.enabled.findIndex(alike);
      if (index < 0) { skip(skipped, step + 1, whyNot(here, wanted, here.refused.find(alike))); continue; }
      try {
        mineOf = await along(p, [...mineOf.path, index], mineOf);
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        skip(skipped, step + 1, "it would lead out of this file");
      }
      if (mine !== latest) return;
    }
    columns.push(column(mineOf, skipped));
  }
  fill("followers", columns);
}

/** Note that a leading step could not be taken; one more for the same reason widens the last note. */
function skip(skipped, step, why) {
  const last = skipped.at(-1);
  if (last && last.last === step - 1 && last.why === why) last.last = step;
  else skipped.push({ step, last: step, why });
}

function whyNot(here, wanted, refusal) {
  const who = meta.actors[wanted.actor];
  if (refusal) return `${refusal.what} waits for ${refusal.why}`;
  return wanted.op === "nothing" ? `${who} has begun nothing to go on with` : `${who} has begun something else: it is ${here.actors[wanted.actor]}`;
}

function column(walked, skipped) {
  const here = walked.nodes.at(-1), taken = walked.path.length;
  return h("section", { "aria-label": meta.policies[walked.policy], "data-policy": meta.policies[walked.policy] },
    h("p", {}, h("a", { href: link(walked.policy, walked.path) }, meta.policies[walked.policy]), `: took ${taken} of ${plural(at.path.length, "step")}`),
    pages(here, undefined), h("ul", {}, here.actors.map((doing, t) => h("li", {}, `${meta.actors[t]} ${doing}`))),
    skipped.length ? h("ul", { class: "soft" }, skipped.map((one) => h("li", {}, `could not take ${one.last > one.step ? `steps ${one.step} to ${one.last}` : `step ${one.step}`}: ${one.why}`))) : "");
}

// ------------------------------------------------------------------------------------------- controls
function toStory(looped) {
  const story = stories[at.policy];
  if (!story || !story.exists) return;
  $("found").textContent = looped && !story.loop.length ? "No step repeats: it ends, or rests, where the counterexample does." : "";
  track = whole(story);
  go(at.policy, looped ? track : story.path);
}

async function search(event) {
  event.preventDefault();
  const text = $("expression").value.trim();
  if (!text) return;
  $("found").textContent = "searching…";
  try {
    const found = await source.search(at.policy, text);
    $("found").textContent = found.message;
    if (found.path) { track = found.path; go(at.policy, found.path); }
  } catch (error) {
    $("found").textContent = error instanceof Refusal ? error.message : "the server does not answer";
    if (!(error instanceof Refusal) && held) throw error;
  }
}

const back = () => { if (at.path.length) go(at.policy, at.path.slice(0, -1)); };
const on = () => { if (track.length > at.path.length) go(at.policy, track.slice(0, at.path.length + 1)); };
const start = () => go(at.policy, []);

function choose(by) {
  const buttons = [...$("enabled").querySelectorAll("button")], now = buttons.indexOf(document.activeElement);
  if (buttons.length) buttons[Math.max(0, Math.min(buttons.length - 1, now + by))].focus();
}

const keys = {
  ArrowLeft: back, Backspace: back, ArrowRight: on, Home: start, ArrowDown: () => choose(1), ArrowUp: () => choose(-1),
  c: () => toStory(false), l: () => toStory(true), "/": () => $("expression").focus(),
};

function key(event) {
  const typing = ["INPUT", "SELECT"].includes(document.activeElement.tagName);
  if (typing && event.key === "Escape") $("state-title").focus();
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !at.nodes.length) return;
  const step = /^\d$/.test(event.key) ? Number(event.key) : -1;
  if (step >= 0 && step < at.nodes.at(-1).enabled.length) go(at.policy, [...at.path, step]);
  else if (keys[event.key]) keys[event.key]();
  else return;
  event.preventDefault();
}

async function begin() {
  for (;;) {
    try { meta = await source.meta(); break; } catch { say("the server does not answer; trying again until it does"); await wait(1.5); }
  }
  $("scenario").textContent = meta.scenario;
  $("legend").textContent = meta.legend;
  $("made").textContent = held ? `This file was made by: ${meta.command}` : "";
  fill("policy", meta.policies.map((name, i) => h("option", { value: i }, name)));
  $("policy").addEventListener("change", () => { track = []; go(Number($("policy").value), []); });
  $("start").addEventListener("click", start);
  $("back").addEventListener("click", back);
  $("on").addEventListener("click", on);
  $("counterexample").addEventListener("click", () => toStory(false));
  $("loop").addEventListener("click", () => toStory(true));
  $("search").addEventListener("submit", search);
  window.addEventListener("hashchange", load);
  document.addEventListener("keydown", key);
  load();
}

begin();
