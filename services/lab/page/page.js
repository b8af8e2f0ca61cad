"use strict";
// The line to the lab, where the reader is, and the ways on. The address names the place: #group@entry.

let film = null, at = { saved: "", group: "", n: null }, source = null, again = 0, news = null, ended = false;
let savedGroups = [];
const map = new MemoryMap($("map"), $("rings"), (p) => { $("picked").textContent = described(film, p); });

/** How a place is written in the address; n null: live. */
function hashOf(n) {
  const saved = at.saved && `${at.saved}/`;
  return `#${saved}${at.group}${n === null ? "" : `@${n}`}`;
}

/** What an address names, or null where it names nothing. */
function parse(hash) {
  const found = hash.match(/^#(?:([0-9a-f]{16})\/)?([A-Za-z0-9_.-]{1,64})(?:@(\d{1,9}))?$/);
  return found && { saved: found[1] || "", group: found[2], n: found[3] === undefined ? null : Number(found[3]) };
}

const say = (text) => { $("trouble").textContent = text; };

function line(text, lost = false) {
  $("line").textContent = text;
  $("line").className = lost ? "lost" : "";
}

/** The line stands; `away`: what the lab itself cannot reach. */
const fine = (away = "") => line(away || (at.saved && ended ? "a saved stream" : "connected"), Boolean(away));

// ------------------------------------------------------------------------------------------- the line
/** Listen to the lab; where the line breaks, go on from the last entry that was seen. */
function listen() {
  clearTimeout(again);
  if (source) source.close();
  const after = film ? `&after=${film.last}` : "";
  const mine = source = new EventSource(`live?group=${encodeURIComponent(at.group)}&saved=${at.saved}${after}`);
  const on = (kind, take) => mine.addEventListener(kind, (event) => { if (mine === source) take(JSON.parse(event.data)); });
  mine.onopen = () => fine();
  mine.onerror = () => {
    if (mine !== source) return;
    line("the lab does not answer; trying again until it does", true);
    // what the browser gives up, and what it would ask for again with an old entry, is asked for anew
    mine.close();
    again = setTimeout(listen, 1000);
  };
  on("news", take);
  on("beat", ({ away }) => fine(away));
  on("base", begin);
  on("frames", (frames) => { film.add(frames); settle(); });
  on("end", (trouble) => { finish(trouble); });
  on("refused", ({ error }) => { stop(); say(error); });
}

function take(now) {
  news = now;
  fine(now.away);
  options();
  sweeps(now.sweeps);
  if (!at.group && !location.hash && now.groups.length) location.replace(`#${now.groups.at(-1)}`);
}

function options() {
  const groups = at.saved ? savedGroups : news ? news.groups : [];
  const names = at.group && !groups.includes(at.group) ? [at.group, ...groups] : groups;
  const key = JSON.stringify([at.saved, names]);
  if ($("group").dataset.key !== key) {
    $("group").dataset.key = key;
    $("group").replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    if (!names.length) $("group").append(h("option", { value: "" }, "none yet"));
  }
  $("group").value = at.group;
}

/** A film begins, or begins anew where the lab does not know what was seen. */
function begin(base) {
  film = new Film(base);
  ended = false;
  $("title").textContent = base.title;
  $("film").hidden = false;
  map.show(film);
  settle();
}

function finish(trouble) {
  ended = true;
  if (source) { source.close(); source = null; listenForNews(); }
  if (!trouble) { settle(); return; }
  const may = trouble.enabled.length ? `\nwhat the rules would have allowed there:\n  ${trouble.enabled.join("\n  ")}` : "";
  say(`${trouble.text}${may}`);
  if (film) settle();
}

/** A film that ended needs no line of its own; groups and sweeps still do. */
function listenForNews() {
  const mine = source = new EventSource("live");
  mine.addEventListener("news", (event) => { if (mine === source) take(JSON.parse(event.data)); });
  mine.onopen = () => fine();
  mine.onerror = () => {
    if (mine !== source) return;
    line("the lab does not answer; trying again until it does", true);
    mine.close();
    again = setTimeout(listenForNews, 1000);
  };
}

function stop() {
  film = null;
  $("film").hidden = true;
  $("title").textContent = "";
}

// ------------------------------------------------------------------------------------------- where the reader is
/** Show what the address names. */
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
  const same = film && wanted.saved === at.saved && wanted.group === at.group;
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

/** Go to the entry that the address names, or to the end. */
function settle() {
  if (!film) return;
  let n = at.n === null ? film.end : at.n;
  if (n > film.end && !ended && film.end === 0 && at.n !== null) n = film.end;
  const outside = n < film.base.n || n > film.end;
  if (outside) {
    const wait = n > film.end && !ended ? " yet" : "";
    say(`there is no entry ${n}${wait}\n  allowed  ${film.base.n} to ${film.end}`);
    n = Math.max(film.base.n, Math.min(film.end, n));
    film.astray = true;
  } else if (film.astray) {
    say("");
    film.astray = false;
  }
  const changed = film.go(n);
  map.ring(rings(film.waitsAt(n), film.frame(n)));
  if (changed.size) map.changed(changed);
  if (!settle.asked) settle.asked = requestAnimationFrame(render);
}

/** What goes with the entry, once a frame however many events came. */
function render() {
  settle.asked = 0;
  if (!film) return;
  const n = film.n, frame = film.frame(n);
  $("time").min = film.base.n;
  $("time").max = film.end;
  $("time").value = n;
  $("time").setAttribute("aria-valuetext", `entry ${n} of ${film.end}`);
  $("place").textContent = `entry ${n} of ${film.end}${frame ? ` · ${when(frame.id)} · ${frame.role}` : " · as laid out"}`;
  $("live").setAttribute("aria-pressed", String(at.n === null));
  $("live").textContent = at.saved ? "End" : "Live";
  $("first").disabled = $("back").disabled = n === film.base.n;
  $("on").disabled = n === film.end;
  waiting(film.waitsAt(n));
  tables(film);
  ladder(film, n);
  if (map.page >= 0) $("picked").textContent = described(film, map.page);
  document.title = `${at.group}${at.n === null ? "" : `@${at.n}`} · Ultrafolio lab`;
}

/** The time in a stream's id. */
function when(id) {
  const [number, at] = id.split("-").map(Number);
  // streams of version 1 begin with the time
  const made = new Date(at > 1e11 ? at : number);
  return Number.isNaN(made.getTime()) ? id : made.toISOString().slice(11, 23);
}

// ------------------------------------------------------------------------------------------- moving
/** Go to entry n, or live with null; the address follows, without a place in the history for each. */
function move(n) {
  if (!film) return;
  at.n = n === null ? null : Math.max(film.base.n, Math.min(film.end, n));
  history.replaceState(null, "", hashOf(at.n));
  settle();
}

const keys = {
  ArrowLeft: () => move(film.n - 1), ArrowRight: () => move(film.n + 1), PageUp: () => move(film.n - 20),
  PageDown: () => move(film.n + 20), Home: () => move(film.base.n), End: () => move(null), l: () => move(null),
};

function key(event) {
  const busy = ["SELECT", "CANVAS"].includes(document.activeElement.tagName) || document.activeElement.closest(".scroll");
  if (!film || !keys[event.key] || busy || event.ctrlKey || event.metaKey || event.altKey) return;
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
$("first").addEventListener("click", () => move(film.base.n));
$("back").addEventListener("click", () => move(film.n - 1));
$("on").addEventListener("click", () => move(film.n + 1));
$("live").addEventListener("click", () => move(null));
$("group").addEventListener("change", () => { location.hash = `#${at.saved && `${at.saved}/`}${$("group").value}`; });
$("file").addEventListener("change", upload);
$("archive").addEventListener("click", () => keep(false));
$("delete").addEventListener("click", () => keep(true));
window.addEventListener("hashchange", open);
document.addEventListener("keydown", key);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", legend);
$("reach").textContent = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname)
  ? "This page listens on this machine only." : `This page can be reached from other machines, as ${location.host}.`;
legend();
open();
