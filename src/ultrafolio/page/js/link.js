// What an address says after its "#": NAME/POLICY/TEXT, the text of a scenario deflated and in letters of base64url.

/** {name, policy, text} of a fragment. Refused for any other. */
async function readLink(fragment) {
  const parts = fragment.replace(/^#/, "").split("/");
  if (parts.length !== 3) throw new Refused("the address has no scenario: #NAME/POLICY/TEXT is expected after the page");
  try {
    const [name, policy] = parts.slice(0, 2).map(decodeURIComponent);
    const packed = Uint8Array.from(atob(parts[2].replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
    return { name, policy, text: await through(new DecompressionStream("deflate-raw"), packed, MOST_TEXT) };
  } catch (error) {
    throw error instanceof Refused ? error : new Refused("the address is damaged: its last part is no packed scenario");
  }
}

const MOST_TEXT = 65536;

/** Bytes through a stream, as text of at most so many bytes. */
async function through(stream, bytes, most) {
  const writer = stream.writable.getWriter(), reader = stream.readable.getReader(), parts = [];
  writer.write(bytes).catch(() => {});
  writer.close().catch(() => {});
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if ((size += value.length) > most) throw new Refused(`the scenario is larger than ${most} bytes`);
    parts.push(value);
  }
  return new TextDecoder("utf-8", { fatal: true }).decode(await new Blob(parts).arrayBuffer());
}

/** The fragment of a scenario's text under a policy. */
async function madeLink(name, policy, text) {
  const stream = new CompressionStream("deflate-raw"), writer = stream.writable.getWriter();
  writer.write(new TextEncoder().encode(text));
  writer.close();
  const packed = new Uint8Array(await new Response(stream.readable).arrayBuffer());
  const letters = btoa(String.fromCharCode(...packed)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  return `#${encodeURIComponent(name)}/${encodeURIComponent(policy)}/${letters}`;
}

/** The verdict on a scenario's text: {story, result, graph}. Refused where the text or the policy is wrong. */
function checkText(name, policy, text, most = MOST_STATES) {
  const story = readScenario(text);
  return { story, ...checked(story, name, policyOf(policy, story), policy, most) };
}
