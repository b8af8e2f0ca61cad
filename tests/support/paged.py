"""What tests of the page share: its checker in node, without a browser."""

import functools
import json
import subprocess
import tempfile
from pathlib import Path

from node import NODE
from ultrafolio.page import build, link

PROGRAM = """
const wanted = JSON.parse(require("fs").readFileSync(0, "utf8"));
async function answer({ link, text, name, policy }) {
  try {
    if (link) ({ name, policy, text } = await ultrafolio.readLink(link));
    const command = await ultrafolio.commandOf(name, policy, text);
    const found = ultrafolio.checkText(name, policy, text, command), { result, graph } = found;
    const { verdict, worst, states, edges, depth, complete } = result;
    return { verdict, kind: worst.kind ?? "null", depth, states, edges, complete,
      text: ultrafolio.result_text(result), line: await ultrafolio.observed(found), first: [...graph.states.at(0)] };
  } catch (error) {
    return error instanceof ultrafolio.Refused ? { refused: error.message, line: error.line } : { defect: error.stack };
  }
}
(async () => {
  const made = [];
  for (const one of wanted) made.push(await answer(one));
  console.log(JSON.stringify(made));
})();
"""
"""Answers each wanted {link}, or {name, policy, text}, with its verdict and text, or with why it is refused."""


def answers(wanted, changed=None):
    """What the page's checker says of each wanted scenario; `changed` replaces source text of the rules."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.js"
        file.write_text(_script(tuple((changed or {}).items()), build.MOST_STATES) + PROGRAM, encoding="utf-8")
        done = subprocess.run([NODE, str(file)], input=json.dumps(wanted), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert len(found) == len(wanted) and not [one["defect"] for one in found if "defect" in one], found
    return found


@functools.cache
def _script(changed, most_states):
    """The script, made once for the same rules and the same bound."""
    assert most_states == build.MOST_STATES
    return build.script(dict(changed), page=False)


def link_of(story, name, policy, policy_name):
    return {"link": link.link(story, name, policy, policy_name)}
