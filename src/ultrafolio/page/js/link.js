// What an address says after its "#": NAME/POLICY/TEXT, the text of a scenario deflated and in letters of base64url.

/** {name, policy, text} of a fragment. Refused for any other. */
async function readLink(fragment) {
  const parts = fragment.replace(/^#/, "").split("/");
  if (parts.length !== 3) throw new Refused("the address has no scenario: #NAME/POLICY/TEXT is expected after the page");
  try {
    const [name, policy] = parts.slice(0, 2).map(decodeURIComponent);
    return { name, policy, text: await unpacked(parts[2], MOST_TEXT) };
  } catch (error) {
    throw error instanceof Refused ? error : new Refused("the address is damaged: its last part is no packed scenario");
  }
}

const MOST_TEXT = 65536;

/** The text of at most so many bytes in deflated letters of base64url. Refused where there are more. */
async function unpacked(letters, most) {
  const bytes = Uint8Array.from(atob(letters.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const text = await streamed(new DecompressionStream("deflate-raw"), bytes, most);
  return new TextDecoder("utf-8", { fatal: true }).decode(text);
}

/** What a stream makes of these bytes. Refused where that is more than so many. */
async function streamed(stream, bytes, most) {
  const writer = stream.writable.getWriter(), reader = stream.readable.getReader(), parts = [];
  writer.write(bytes).then(() => writer.close()).catch(() => {}); // the reader meets the same error
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if ((size += value.length) > most) throw new Refused(`the scenario is larger than ${most} bytes`);
    parts.push(value);
  }
  const made = new Uint8Array(size);
  parts.reduce((at, part) => (made.set(part, at), at + part.length), 0);
  return made;
}

/** The shipped scenarios: {name: [text, {policy: what a policy of its own adds to it}]}. */
const shippedTexts = () => (shippedOnce ??= unpacked(SHIPPED, 1 << 20).then(JSON.parse));
let shippedOnce;

/** [text, {policy: what it adds}] of the shipped scenario of this name; of none an empty text. */
async function shippedOf(name) {
  const texts = await shippedTexts();
  return Object.hasOwn(texts, name) ? texts[name] : ["", {}];
}

/** The fragment of a scenario's text under a policy. */
async function madeLink(name, policy, text) {
  const packed = await streamed(new CompressionStream("deflate-raw"), new TextEncoder().encode(text), Infinity);
  const letters = btoa(String.fromCharCode(...packed)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  return `#${encodeURIComponent(name)}/${encodeURIComponent(policy)}/${letters}`;
}

/** What to type for the verdict of this scenario: its name where it is a shipped one, on any machine, else its link. */
async function commandOf(name, policy, text) {
  const [known, own] = await shippedOf(name), whole = known + (own[policy] ?? "");
  const machine = machineOf(text), asked = ["ultrafolio", "check", name, "--policy", policy];
  if (text === whole) return shellLine(asked);
  if (machine && text === onMachine(whole, machine)) return shellLine([...asked, "--machine", machine]);
  return shellLine(["ultrafolio", "check", await madeLink(name, policy, text)]);
}

/** The machine that a text names, or undefined; and the text with another one in its place, or beside its design. */
const MACHINE = /^machine\s*=\s*"(\w+)"/m;
const machineOf = (text) => text.match(MACHINE)?.[1];
const onMachine = (text, machine) => text.replace(machineOf(text) ? MACHINE : /^(design\s*=.*)$/m,
  (found) => `${machineOf(text) ? "" : `${found}\n`}machine = "${machine}"`);

/** The line that decides, as export/observation.py writes it; its hash needs a browser that computes SHA-256. */
async function observed({ story, result }) {
  const actors = story.actors.map(([kind, fields]) => [story.known.kinds[kind], fields]), { design, machine } = story;
  const asked = { memory: story.memory, features: story.features, actors, policy: policyOf(result.policy, story), rules: DIGEST,
    ...(design === "s390" ? {} : { design, machine }) };
  return of_result(result, result.scenario, await hashedText(asked), "page");
}

async function hashedText(asked) {
  if (!globalThis.crypto?.subtle) return "none";
  const ordered = (_, value) => (value && typeof value === "object" && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))) : value);
  const bytes = new TextEncoder().encode(JSON.stringify(asked, ordered));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest.subarray(0, 8)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The verdict on a scenario's text: {story, result, graph}. Refused where the text or the policy is wrong. */
function checkText(name, policy, text, command = "") {
  const work = checking(name, policy, text, command);
  for (;;) {
    const { done, value } = work.next();
    if (done) return value;
  }
}

/** The same, step by step, so that a page can draw between: each time it yields the number of states found. */
function* checking(name, policy, text, command) {
  const story = readScenario(text), system = systemOf(story, policyOf(policy, story));
  const graph = yield* exploring(system, MOST_STATES);
  return { story, graph, result: resultOf(graph, story, name, policy, command) };
}
