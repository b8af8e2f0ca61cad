// The story of a finding: played, stepped through, scrubbed.

const player = { steps: [], states: [], at: 0, cycle: 0, timer: 0 };

/** Show a finding's story from its begin. */
function tell(finding, system) {
  stop();
  const steps = [...(finding?.steps ?? []), ...(finding?.cycle ?? [])];
  Object.assign(player, { steps, states: [system.state, ...steps.map((step) => step.state)], at: 0,
    cycle: finding?.steps.length ?? 0 });
  const lines = steps.map((step, n) => made("li", { class: finding.cycle.length && n >= player.cycle ? "loop" : "" },
    made("button", { click: () => show(n + 1) }, story([step], n + 1).join("\n"))));
  element("steps").replaceChildren(...lines);
  Object.assign(element("time"), { max: String(steps.length) });
  show(0);
}

/** Show no story. */
function forget() {
  stop();
  Object.assign(player, { steps: [], states: [], at: 0, cycle: 0 });
  for (const id of ["steps", "pages", "now", "finding"]) element(id).replaceChildren();
  Object.assign(element("time"), { max: "0" });
}

/** Show the state after so many steps, if there is a story. */
function show(at) {
  const { states, steps } = player, before = states[Math.max(0, at - 1)];
  if (!states.length) return;
  element("steps").children[player.at - 1]?.classList.remove("now");
  player.at = at;
  element("time").value = String(at);
  element("now").textContent = `${at} of ${steps.length}`;
  element("pages").replaceChildren(drawnPages(states[at], before), drawnWaits(states[at]));
  const line = element("steps").children[at - 1], box = element("steps");
  if (!line) return;
  line.classList.add("now");
  if (line.offsetTop < box.scrollTop + box.offsetTop || line.offsetTop > box.scrollTop + box.offsetTop + box.clientHeight - 60) {
    box.scrollTop = line.offsetTop - box.offsetTop - 60;
  }
}

/** One step on or back; from the end of a cycle on to its begin. */
function move(by) {
  const { steps, cycle } = player, next = player.at + by;
  if (next > steps.length) return cycle < steps.length ? show(cycle + 1) : stop();
  show(Math.max(0, next));
}

function stop() {
  clearInterval(player.timer);
  player.timer = 0;
  element("play").textContent = "play";
}

function play() {
  if (player.timer) return stop();
  if (player.at === player.steps.length) show(0);
  element("play").textContent = "stop";
  player.timer = setInterval(() => move(1), 700);
}
