// The page: reads its address, checks, shows the verdict; what is edited becomes the address again.

const here = { name: "", policy: "", text: "", link: "", command: "", mail: "", checked: null, turn: 0 };

/** Read the address and check what it says; without one, the first shipped scenario. */
async function opened() {
  if (location.hash === here.link && here.link) return;
  try {
    if (location.hash.length > 1) return await check(await readLink(location.hash));
    const texts = await shippedTexts(), name = texts["03-virtio"] ? "03-virtio" : Object.keys(texts)[0];
    await check({ name, policy: "whole-folio", text: texts[name][0] });
  } catch (error) {
    refuse(error);
  }
}

/** Check a scenario's text under a policy, drawing between; a later call ends an earlier one. */
async function check({ name, policy, text }) {
  const turn = ++here.turn;
  Object.assign(here, { name, policy, text, checked: null });
  if (element("text").value !== text) element("text").value = text;
  offerChoices(text, policy, Object.keys((await shippedOf(name))[1]));
  if (turn !== here.turn) return;
  element("wrong").textContent = "";
  try {
    const story = readScenario(text);
    policyOf(policy, story);
    forget();
    here.link = await madeLink(name, policy, text);
    here.command = await commandOf(name, policy, text);
    element("link").href = element("link").textContent = here.link;
    if (location.hash !== here.link) location.replace(here.link);
    const work = checking(name, policy, text, here.command);
    for (let drawn = performance.now(); ;) {
      const { done, value } = work.next();
      if (turn !== here.turn) return;
      if (done) return verdict(value);
      if (performance.now() - drawn < 40) continue;
      say("", plural(value, "state"), "");
      await new Promise((go) => setTimeout(go));
      drawn = performance.now();
    }
  } catch (error) {
    if (turn === here.turn) refuse(error);
  }
}

/** Offer the policies of a text's design, those that the text or the shipped scenario of its name has, and the machines. */
function offerChoices(text, policy, own) {
  const known = designOf(text), machine = machineOf(text) ?? known.machines[0], inText = policiesIn(text);
  const names = new Set([...Object.keys(known.policies), ...own, ...inText, policy]);
  offer(element("policy"), [...names].map((found) => [found, found]), policy);
  offer(element("machine"), known.machines.map((found) => [found, found]), machine);
  element("on-machine").hidden = known.machines.length === 1;
}

/** The tables of the design that a text names; where it names none that there is, those of the first. */
const designOf = (text) => DESIGNS[text.match(/^design\s*=\s*"(\w+)"/m)?.[1]] ?? Object.values(DESIGNS)[0];
const policiesIn = (text) => [...text.matchAll(/^\[policy\.(?:"([^"]*)"|([\w-]+))\]/gm)].map((found) => found[1] ?? found[2]);

function say(kind, words, more) {
  element("verdict").className = kind;
  element("verdict").textContent = words;
  element("wait").textContent = more;
}

/** Show a result: the verdict, the wait, the story, the text. */
function verdict({ story, result, graph }) {
  here.checked = { result, graph };
  element("title").textContent = story.title || here.name;
  document.title = `${result.heading()} — ultrafolio`;
  if (!graph.complete) {
    say("unknown", `unknown: more than ${plural(result.states - 1, "state")}, too large for a browser`, `type: ${here.command}`);
  } else {
    say(result.verdict, result.heading(), result.worst.wait ? result.worst.wait.line() : result.worst.name);
  }
  observed({ story, result }).then((line) => (element("observation").textContent = line));
  here.mail = result_text(result);
  element("mail").textContent = here.mail;
  const told = result.findings.filter((finding) => finding.steps.length || finding.cycle.length);
  const words = (finding) => [finding.verdict, finding.kind, finding.waiter].filter(Boolean).join(", ");
  offer(element("finding"), told.map((finding) => [String(result.findings.indexOf(finding)), `${finding.name} (${words(finding)})`]),
    String(result.findings.indexOf(result.worst)));
  tell(result.worst, graph.system);
  document.documentElement.dataset.done = here.link;
}

/** Say what is wrong with the address, or with a line of the text. */
function refuse(error) {
  const at = error.line >= 0 ? `line ${error.line + 1}: ` : "";
  if (!(error instanceof Refused)) console.error(error);
  element("wrong").textContent = `${at}${error.message}`;
  say("unknown", "not checked", error instanceof Refused ? "" : "a defect of the page");
  document.documentElement.dataset.done = "refused";
}

/** What stands in the text field and the select elements now, after a short rest. */
function edited() {
  clearTimeout(here.typing);
  here.typing = setTimeout(() => {
    const text = element("text").value, same = text === here.text;
    const name = same || here.name.endsWith("-edited") ? here.name : `${here.name}-edited`;
    check({ name, policy: element("policy").value, text });
  }, 250);
}

/** Check under the policy and on the machine that are chosen; a policy of the shipped scenario's own comes into the text. */
async function chosen() {
  const { name } = here, policy = element("policy").value, own = (await shippedOf(name))[1][policy];
  const text = element("text").value, asked = own && !policiesIn(text).includes(policy) ? text + own : text;
  const known = designOf(asked), machine = element("machine").value;
  check({ name, policy, text: known.machines.length > 1 ? onMachine(asked, machine) : asked });
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = made("textarea", {});
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  element("copied").textContent = `${what} copied`;
}

const copyText = () => copy(here.mail, "text");
const copyLink = () => copy(location.href, "link");
const KEYS = { " ": play, ArrowLeft: () => move(-1), ArrowRight: () => move(1), Home: () => show(0),
  End: () => show(player.steps.length), c: copyText, l: copyLink };

function listen() {
  const on = (id, event, action) => element(id).addEventListener(event, action);
  on("play", "click", play), on("back", "click", () => move(-1)), on("on", "click", () => move(1));
  on("time", "input", () => (stop(), show(Number(element("time").value))));
  on("finding", "change", () => tell(here.checked.result.findings[Number(element("finding").value)], here.checked.graph.system));
  on("text", "input", edited), on("policy", "change", chosen), on("machine", "change", chosen);
  on("copy-text", "click", copyText), on("copy-link", "click", copyLink);
  on("shipped", "change", async () => {
    const name = element("shipped").value;
    if (!name) return;
    const [text] = (await shippedTexts())[name], { policies, policy } = designOf(text);
    check({ name, policy: policies[here.policy] ? here.policy : policy.base.default, text });
  });
  addEventListener("hashchange", opened);
  addEventListener("keydown", (event) => {
    const typing = ["TEXTAREA", "SELECT"].includes(event.target.tagName);
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
    if (event.key === " " && event.target.tagName === "BUTTON") return;
    event.preventDefault();
    KEYS[event.key]();
  });
  shippedTexts().then((texts) => element("shipped").append(...Object.entries(DESIGNS).map(([label, known]) =>
    made("optgroup", { label }, ...Object.keys(texts).filter((name) => designOf(texts[name][0]) === known)
      .map((name) => made("option", {}, name))))));
}

listen();
opened();
