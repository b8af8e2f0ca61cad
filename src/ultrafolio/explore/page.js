"use strict";
// The page's controller: loads the state that the address names, shows it, and handles the controls.

const fill = (id, ...children) => $(id).replaceChildren(...children.flat());

let stories = [];
let at = { policy: 0, path: [], nodes: [] }, track = [], latest = 0;

const link = (policy, path) => `#/${encodeURIComponent(meta.policies[policy])}/${path.join(".")}`;
const moveAt = (nodes, path, step) => nodes[step].enabled[path[step]];

function go(policy, path) {
  if (location.hash === link(policy, path)) load();
  else location.hash = link(policy, path);
}

const command = (policy, path) => `${meta.commands[policy]}${path.length ? ` --path ${path.join(".")}` : ""}`;

/** The policy and the path in a link. */
function parse(hash) {
  const first = encodeURIComponent(meta.policies[0]);
  const [, name, text] = hash.match(/^#\/([^/]*)\/?(.*)$/) || [null, first, hash.slice(1)];
  let plain = name;
  try { plain = decodeURIComponent(name); } catch { /* refused below, as it stands */ }
  const policy = meta.policies.indexOf(plain), most = meta.max_steps;
  if (policy < 0) throw new Refusal(`no policy '${plain}' here\n  allowed  ${meta.policies.join(", ")}`);
  if (text.length > 5 * most || text.split(".").length > most) {
    throw new Refusal(`the path is too long\n  allowed  at most ${most} steps`);
  }
  if (!/^(\d{1,4}(\.\d{1,4})*)?$/.test(text)) {
    throw new Refusal(`'${text}' is not an index path\n  allowed  indices of steps with dots between, such as 3.1.0`);
  }
  return { policy, path: text ? text.split(".").map(Number) : [] };
}

const SILENT = "the server does not answer; trying again until it does";
const wait = (seconds) => new Promise((done) => { setTimeout(done, 1000 * seconds); });

/** The nodes from the start to the end of a path; only those that `known` lacks are requested. */
async function along(policy, path, known) {
  let kept = [];
  if (known && known.policy === policy) {
    const differs = path.findIndex((index, step) => known.path[step] !== index);
    kept = known.nodes.slice(0, differs < 0 ? path.length + 1 : differs + 1);
  }
  const got = await source.along(policy, path, kept.length);
  return { policy, path, nodes: [...kept, ...got.nodes] };
}

/** Show the state that the address names, or an error; retries while the server does not answer. */
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
      if (error instanceof Refusal) { say(error.message); return; }
      if (held) throw error;
      say(SILENT);
      await wait(1.5);
    }
  }
}

const say = (text) => { $("trouble").textContent = text; };
const whole = (story) => [...story.path, ...story.loop];

/** Whether a path is a prefix of the counterexample, once around its loop. */
function onStory(path) {
  const story = stories[at.policy];
  return story.exists && path.every((index, step) => whole(story)[step] === index);
}

// ------------------------------------------------------------------------------------------- showing it
function render() {
  const { policy, path, nodes } = at, here = nodes.at(-1), before = nodes.at(-2), story = stories[policy];
  const focused = [...$("enabled").querySelectorAll("button")].indexOf(document.activeElement);
  $("policy").value = String(policy);
  document.title = `${meta.policies[policy]} ${path.join(".") || "start"} · ${meta.title}`;
  $("verdict").classList.toggle("violated", story.verdict.startsWith("violated"));
  fill("verdict", strong(story.verdict), story.wait.map((line) => h("span", { class: "wait" }, line)));
  fill("said", said(here, before));
  fill("pages", pages(here, before));
  fill("stalls", stalls(here));
  fill("enabled", here.enabled.length ? here.enabled.map(step) : plain("None: nothing can happen here."));
  fill("refused", here.refused.length ? here.refused.map(refused) : plain("None."));
  fill("changed", before ? changes(before, here) : plain("Nothing yet."));
  fill("actors", h("tbody", {}, here.actors.map((doing, t) =>
    row(meta.actors[t], h("td", {}, before && before.actors[t] !== doing ? mark(doing) : doing)))));
  fill("properties", properties(here, path.map((_, n) => moveAt(nodes, path, n).broke)));
  fill("way", nodes.map((_, n) => way(n)));
  const current = $("way").querySelector("[aria-current]");
  $("way").scrollTop = current.offsetTop - $("way").offsetTop - $("way").clientHeight / 2;
  $("start").disabled = $("back").disabled = !path.length;
  $("on").disabled = track.length <= path.length;
  $("counterexample").disabled = $("loop").disabled = !story.exists;
  $("again").textContent = command(policy, path);
  $("coverage").textContent = held ? `This file holds ${held.graphs[policy].coverage}.` : "";
  if (focused < 0) return;
  const buttons = $("enabled").querySelectorAll("button");
  (buttons[Math.min(focused, buttons.length - 1)] || $("state-title")).focus();
}

/** The last step as a sentence. */
function said(here, before) {
  if (!before) return ["The initial state."];
  const { path, nodes } = at, last = moveAt(nodes, path, path.length - 1);
  const again = nodes.slice(0, -1).findIndex((node) => node.id === here.id);
  return [
    `After ${plural(path.length, "step")}: `, strong(last.what), `, ${last.outcome}`,
    last.meets ? `; it met ${last.meets.for}, held by ${last.meets.held}` : "", turned(before, here),
    again < 0 ? "." : `. The same state as after ${plural(again, "step")}.`,
  ];
}

function step(move, index) {
  const { policy, path } = at;
  return enabled(move, index, track[path.length] === index, () => go(policy, [...path, index]));
}

/** A line of the path: the step that led to state n, as a link to it. */
function way(n) {
  const { policy, path, nodes } = at, story = stories[policy], last = n && moveAt(nodes, path, n - 1);
  const looped = story.loop.length > 0 && n > story.path.length && onStory(path);
  const link_ = { href: link(policy, path.slice(0, n)), "aria-current": n === path.length && "step" };
  return h("li", { class: looped && "loop" }, h("a", link_, n ? `${last.what}: ${last.outcome}` : "start"),
    looped && n === story.path.length + 1 && small("from here for ever"));
}

// ------------------------------------------------------------------------------------------- policies in step
/** Repeat the path under every other policy with the same actors and choices; skip steps that are not enabled. */
async function follow(mine) {
  $("others").hidden = meta.policies.length < 2;
  const columns = [];
  for (let policy = 0; policy < meta.policies.length; policy++) {
    if (policy !== at.policy) columns.push(column(...await inStep(policy, mine)));
    if (mine !== latest) return;
  }
  fill("followers", columns);
}

/** The nodes of another policy's walk, and {step, last, why} of the skipped steps. */
async function inStep(policy, mine) {
  const skipped = [];
  let walked = await along(policy, [], null);
  for (let n = 0; n < at.path.length && mine === latest; n++) {
    const wanted = moveAt(at.nodes, at.path, n), here = walked.nodes.at(-1);
    const alike = (move) => move.actor === wanted.actor && move.op === wanted.op && move.page === wanted.page;
    const index = here.enabled.findIndex(alike);
    if (index < 0) skip(skipped, n + 1, whyNot(here, wanted, here.refused.find(alike)));
    else if (here.enabled[index].to === -1) skip(skipped, n + 1, "it would lead out of this file");
    else walked = await along(policy, [...walked.path, index], walked);
  }
  return [walked, skipped];
}

/** Record a skipped step; extends the last record if the reason is the same. */
function skip(skipped, step, why) {
  const last = skipped.at(-1);
  if (last && last.last === step - 1 && last.why === why) last.last = step;
  else skipped.push({ step, last: step, why });
}

function whyNot(here, wanted, refusal) {
  const who = meta.actors[wanted.actor];
  if (refusal) return `${refusal.what} waits for ${refusal.why}`;
  if (wanted.op === "nothing") return `${who} has begun nothing to go on with`;
  return `${who} has begun something else: it is ${here.actors[wanted.actor]}`;
}

function column({ policy, path, nodes }, skipped) {
  const here = nodes.at(-1), name = meta.policies[policy];
  const steps = ({ step, last }) => (last > step ? `steps ${step} to ${last}` : `step ${step}`);
  const took = `: took ${path.length} of ${plural(at.path.length, "step")}`;
  return h("section", { "aria-label": name, "data-policy": name },
    h("p", {}, h("a", { href: link(policy, path) }, name), took),
    pages(here), h("ul", {}, here.actors.map((doing, t) => h("li", {}, `${meta.actors[t]} ${doing}`))),
    here.stalls.length > 0 && h("ul", { class: "stalls" }, stalls(here)),
    skipped.length > 0 && h("ul", { class: "soft" },
      skipped.map((one) => h("li", {}, `could not take ${steps(one)}: ${one.why}`))));
}

// ------------------------------------------------------------------------------------------- controls
function toStory(looped) {
  const story = stories[at.policy];
  if (!story || !story.exists) return;
  const none = looped && !story.loop.length;
  $("found").textContent = none ? "No step repeats: it ends, or rests, where the counterexample does." : "";
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
    try {
      meta = await source.meta();
      break;
    } catch {
      say(SILENT);
      await wait(1.5);
    }
  }
  $("scenario").textContent = meta.scenario;
  $("legend").textContent = meta.legend;
  $("expression").placeholder = meta.example;
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
