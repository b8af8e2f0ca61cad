"use strict";
// The connection to the lab, the shown entry, and navigation. The address names the entry: #group@entry.

let replay = null, at = { saved: "", group: "", n: null }, source = null, again = 0, listing = null, ended = false;
let savedGroups = [];
const NO_PAGE = $("picked").textContent;
const map = new MemoryMap($("map"), $("rings"), (p) => { $("picked").textContent = described(replay, p); });

/** Returns the address of an entry; n null: live. */
function hashOf(n) {
  const saved = at.saved && `${at.saved}/`;
  return `#${saved}${at.group}${n === null ? "" : `@${n}`}`;
}

/** Parses an address, null if it is malformed. */
function parse(hash) {
  const found = hash.match(/^#(?:([0-9a-f]{16})\/)?([A-Za-z0-9_.-]{1,64})(?:@(\d{1,9}))?$/);
  return found && { saved: found[1] || "", group: found[2], n: found[3] === undefined ? null : Number(found[3]) };
}

const say = (text) => { $("trouble").textContent = text; };

function line(text, lost = false) {
  $("line").textContent = text;
  $("line").className = lost ? "lost" : "";
}

/** Show that the connection works; `away`: why the lab cannot read the shared state, or "". */
const fine = (away = "") => line(away || (at.saved && ended ? "a saved stream" : "connected"), Boolean(away));

// ------------------------------------------------------------------------------------------- connection
/** Listen to the lab; after a lost connection continue from the last entry received. */
function listen() {
  clearTimeout(again);
  if (source) source.close();
  const after = replay ? `&after=${replay.last}` : "";
  const mine = source = new EventSource(`live?group=${encodeURIComponent(at.group)}&saved=${at.saved}${after}`);
  const on = (kind, take) => mine.addEventListener(kind, (event) => { if (mine === source) take(JSON.parse(event.data)); });
  mine.onopen = () => fine();
  mine.onerror = () => {
    if (mine !== source) return;
    line("the lab does not answer; trying again until it does", true);
    // replaces the browser's reconnection, which may give up, and would repeat the first request's entry
    mine.close();
    again = setTimeout(listen, 1000);
  };
  on("listing", take);
  on("beat", ({ away }) => fine(away));
  on("base", begin);
  on("frames", (frames) => { replay.add(frames); settle(); });
  on("end", (trouble) => { finish(trouble); });
  on("refused", ({ error }) => { stop(); say(error); });
}

function take(now) {
  listing = now;
  fine(now.away);
  options();
  sweeps(now.sweeps);
  if (!at.group && !location.hash && now.groups.length) location.replace(`#${now.groups.at(-1)}`);
}

function options() {
  const groups = at.saved ? savedGroups : listing ? listing.groups : [];
  const names = at.group && !groups.includes(at.group) ? [at.group, ...groups] : groups;
  const key = JSON.stringify([at.saved, names]);
  if ($("group").dataset.key !== key) {
    $("group").dataset.key = key;
    $("group").replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    if (!names.length) $("group").append(h("option", { value: "" }, "none yet"));
  }
  $("group").value = at.group;
}

/** Start a replay, or restart it if the lab cannot continue from the last entry received. */
function begin(base) {
  replay = new GroupReplay(base);
  ended = false;
  $("title").textContent = base.machine ? `${base.title}, on the machine ${base.machine}` : base.title;
  $("picked").textContent = NO_PAGE;
  legend();
  heads();
  $("replay").hidden = false;
  map.show(replay);
  settle();
}

function finish(trouble) {
  ended = true;
  if (source) { source.close(); source = null; listenForListing(); }
  if (!trouble) { settle(); return; }
  const may = trouble.enabled.length ? `\nwhat the rules would have allowed there:\n  ${trouble.enabled.join("\n  ")}` : "";
  say(`${trouble.text}${may}`);
  if (replay) settle();
}

/** Listen to groups and sweeps only, after the replay has ended. */
function listenForListing() {
  const mine = source = new EventSource("live");
  mine.addEventListener("listing", (event) => { if (mine === source) take(JSON.parse(event.data)); });
  mine.onopen = () => fine();
  mine.onerror = () => {
    if (mine !== source) return;
    line("the lab does not answer; trying again until it does", true);
    mine.close();
    again = setTimeout(listenForListing, 1000);
  };
}

function stop() {
  replay = null;
  $("replay").hidden = true;
  $("title").textContent = "";
}

// ------------------------------------------------------------------------------------------- address
/** Show the entry that the address names. */
function open() {
  const wanted = parse(location.hash);
  if (!wanted) {
    if (!location.hash) { at = { saved: "", group: "", n: null }; stop(); listen(); return; }
    stop();
    say(`this address names no place: ${decode(location.hash)}\n  allowed  #group, #group@entry, or those of a saved stream`);
    at = { saved: "", group: "", n: null };
    listen();
    return;
  }
  const same = replay && wanted.saved === at.saved && wanted.group === at.group;
  const other = wanted.saved !== at.saved;
  at = wanted;
  if (same) { settle(); return; }
  say("");
  stop();
  if (other) listGroups();
  options();
  listen();
}

const decode = (text) => { try { return decodeURIComponent(text); } catch { return text; } };

async function listGroups() {
  savedGroups = [];
  if (!at.saved) return;
  const got = await fetch(`saved/${at.saved}`).then((answer) => answer.json()).catch(() => ({}));
  savedGroups = got.groups || [];
  options();
}

/** Go to the entry in `at`, or to the last one. */
function settle() {
  if (!replay) return;
  let n = at.n === null ? replay.end : at.n;
  if (n > replay.end && !ended && replay.end === 0 && at.n !== null) n = replay.end;
  const outside = n < replay.base.n || n > replay.end;
  if (outside) {
    const wait = n > replay.end && !ended ? " yet" : "";
    say(`there is no entry ${n}${wait}\n  allowed  ${replay.base.n} to ${replay.end}`);
    n = Math.max(replay.base.n, Math.min(replay.end, n));
    replay.astray = true;
  } else if (replay.astray) {
    say("");
    replay.astray = false;
  }
  const changed = replay.go(n);
  map.ring(rings(replay.waitsAt(n), replay.frame(n)));
  if (changed.length) map.changed(changed);
  if (!settle.asked) settle.asked = requestAnimationFrame(render);
}

/** Update the panels, once per display frame. */
function render() {
  settle.asked = 0;
  if (!replay) return;
  const n = replay.n, frame = replay.frame(n);
  $("time").min = replay.base.n;
  $("time").max = replay.end;
  $("time").value = n;
  $("time").setAttribute("aria-valuetext", `entry ${n} of ${replay.end}`);
  $("place").textContent = `entry ${n} of ${replay.end}${frame ? ` · ${when(frame.id)} · ${frame.role}` : " · as laid out"}`;
  $("live").setAttribute("aria-pressed", String(at.n === null));
  $("live").textContent = at.saved ? "End" : "Live";
  $("first").disabled = $("back").disabled = n === replay.base.n;
  $("on").disabled = n === replay.end;
  waiting(replay.waitsAt(n));
  tables(replay);
  ladder(replay, n);
  if (map.page >= 0) $("picked").textContent = described(replay, map.page);
  document.title = `${at.group}${at.n === null ? "" : `@${at.n}`} · Ultrafolio lab`;
}

/** Returns the time in an entry's id. */
function when(id) {
  const [number, at] = id.split("-").map(Number);
  // streams of version 1 begin with the time
  const made = new Date(at > 1e11 ? at : number);
  return Number.isNaN(made.getTime()) ? id : made.toISOString().slice(11, 23);
}

// ------------------------------------------------------------------------------------------- moving
/** Go to entry n, or live (null), and replace the address without a new history entry. */
function move(n) {
  if (!replay) return;
  at.n = n === null ? null : Math.max(replay.base.n, Math.min(replay.end, n));
  history.replaceState(null, "", hashOf(at.n));
  settle();
}

const keys = {
  ArrowLeft: () => move(replay.n - 1), ArrowRight: () => move(replay.n + 1), PageUp: () => move(replay.n - 20),
  PageDown: () => move(replay.n + 20), Home: () => move(replay.base.n), End: () => move(null), l: () => move(null),
};

function key(event) {
  const busy = ["SELECT", "CANVAS"].includes(document.activeElement.tagName) || document.activeElement.closest(".scroll");
  if (!replay || !keys[event.key] || busy || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  keys[event.key]();
}

async function upload() {
  const [file] = $("file").files;
  if (!file) return;
  say("");
  try {
    const answer = await fetch("saved", { method: "POST", body: file, headers: { "Content-Type": "application/x-ndjson" } });
    const got = await answer.json();
    if (!answer.ok) { say(got.error); return; }
    savedGroups = got.groups;
    location.hash = `#${got.saved}/${got.groups[0]}`;
  } catch {
    say("the lab did not take the file: it does not answer, or the file is too long for it");
  } finally {
    $("file").value = "";
  }
}

/** Save the group's stream in the lab's folder; with `remove`, delete the group after that. */
async function keep(remove) {
  if (!at.group || at.saved) { say("choose a folio group of the cluster"); return; }
  if (remove && !confirm(`Remove folio group ${at.group} for ever? Its stream is archived first.`)) return;
  const place = `groups/${encodeURIComponent(at.group)}`;
  try {
    const saved = await fetch(`${place}/archive`, { method: "POST", headers: { "Content-Type": "application/json" } });
    const got = await saved.json();
    if (!saved.ok) { say(got.error); return; }
    say(`archived: ${got.file}, ${got.entries} ${got.entries === 1 ? "entry" : "entries"}, SHA-256 ${got.digest}`);
    if (!remove) return;
    const gone = await fetch(place, { method: "DELETE" });
    if (!gone.ok) { say((await gone.json()).error); return; }
    location.hash = "";
  } catch {
    say("the lab does not answer");
  }
}

$("time").addEventListener("input", () => move(Number($("time").value)));
$("first").addEventListener("click", () => move(replay.base.n));
$("back").addEventListener("click", () => move(replay.n - 1));
$("on").addEventListener("click", () => move(replay.n + 1));
$("live").addEventListener("click", () => move(null));
$("group").addEventListener("change", () => { location.hash = `#${at.saved && `${at.saved}/`}${$("group").value}`; });
$("file").addEventListener("change", upload);
$("archive").addEventListener("click", () => keep(false));
$("delete").addEventListener("click", () => keep(true));
window.addEventListener("hashchange", open);
document.addEventListener("keydown", key);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (look) legend(); });
$("reach").textContent = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname)
  ? "This page listens on this machine only." : `This page can be reached from other machines, as ${location.host}.`;
open();
