// What page.py runs in node and in an empty tab of Chromium, beside the page's checker (`ultrafolio`).

/** The name of a policy in an entry of [expect], POLICY or POLICY@MACHINE: the machine stands in the text. */
const named = (entry) => entry.split("@")[0];

/** Explore a system to its end, whatever its size. Returns its states and edges. */
function explored({ policy, text }) {
  const story = ultrafolio.readScenario(text);
  const work = ultrafolio.exploring(ultrafolio.systemOf(story, ultrafolio.policyOf(named(policy), story)), 1e9);
  let turn;
  do turn = work.next(); while (!turn.done);
  return { states: turn.value.states.count, edges: turn.value.to.length };
}

/** Check a scenario, from its text to the words of its verdict. Returns its states and edges. */
function checked({ name, policy, text }) {
  const { result } = ultrafolio.checkText(name, named(policy), text);
  ultrafolio.result_text(result);
  return { states: result.states, edges: result.edges };
}

globalThis.works = { explored, checked };
