"""Run by test_growth.py over a grown copy of the package: what each engine makes of the kicker, as one JSON object."""

import itertools
import json
import shutil
import sys
import tempfile
from pathlib import Path

from checking import naive
from store_cases import Stored
from ultrafolio.check.search.graph import explore
from ultrafolio.check.verdicts.replay import copied, frozen
from ultrafolio.check.verdicts.verdict import WHOLE, Extent, check
from ultrafolio.conformance.suite import Interpreter, agree
from ultrafolio.export.promela.program import export
from ultrafolio.model import layout, scenario
from ultrafolio.model.policies import from_table
from ultrafolio.model.properties import PROPERTIES
from ultrafolio.model.rule import RULES
from ultrafolio.sim import build, cell, costs
from ultrafolio.sim import records as sim
from ultrafolio.sim.config import resolve
from ultrafolio.sim.load import compiled
from ultrafolio.state.memory import Memory, MemoryStore
from ultrafolio.state.validate import validate

KICKER, LAST = layout.ACTOR_KINDS.index("kicker"), len(PROPERTIES) - 1
COST_NS = 3210


def story(memory, pages, starts=2):
    return scenario.parse(
        {"memory": memory, "vcpu": [{"touch": pages}], "kicker": [{"page": pages, "starts": starts}]}, "a test"
    )


ONE = story({"folios": [0], "state": ["exported"]}, [0])
LIKE = story({"folios": [2], "state": ["exported"]}, [1, 2], 1)


def policy(kick):
    return from_table({"base": "per-page", "kick": kick}, "a test")


def checked(full):
    made = {}
    for kick in ("no", "yes"):
        result = check(ONE, "one", policy(kick), kick, WHOLE if full else Extent(safety=True))
        made[kick] = {
            "states": result.states, "edges": result.edges, "kicks": result.fired["kick-page"],
            "violated": [f.name for f in result.findings if f.verdict == "violated"],
            "story": [[step.rule, step.outcome_word] for step in result.worst.steps if result.worst.kind == "safety"],
        }  # fmt: skip
    return made


def turned(state):
    """The state with pages 1 and 2 in each other's place."""
    made, other = copied(state), {1: 2, 2: 1}
    for section in (made.uv, made.mm, made.io, made.pt):
        section[1], section[2] = section[2], section[1]
    for record in (*made.task, *made.actor):
        record.page = other.get(record.page, record.page)
    return made


def folded():
    system = scenario.system(LIKE, policy("yes"))
    graph, plain = explore(system, edges=False, fold=True), naive(system)
    apart = {min(frozen(state), frozen(turned(state))) for state in plain.states}
    return {
        "states": graph.states,
        "of": len(plain.states),
        "apart": len(apart),
        "broken": [n for n, found in enumerate(graph.space.found) if found["state"] >= 0],
    }


def simulated():
    """Over some seeds: kicks begun and done, refusals, violations by property, ns from a start to the next try,
    and what a profile has for the outcome."""
    begun = done = refused = 0
    broken, pauses, outcomes, usual = [0] * len(PROPERTIES), set(), set(), set()
    system, profile = scenario.system(ONE, policy("yes")), costs.from_table({}, "default")
    for seed in range(12):
        state, around = build.from_system(system, profile, seed=seed, duration_us=400, trace=4096)
        slot = layout.KICK_IDLE * sim.OUTCOME_SLOTS + layout.KICKED
        usual.add(int(around.cost[slot]))
        around.cost[slot] = COST_NS
        compiled()(state, around, 4000)
        events = around.event[: int(around.clock["traced"][0])]
        mine = events[events["actor"] == 1].tolist()
        for (start, *_, rule, outcome), (after, *_) in itertools.pairwise(mine):
            if rule == layout.KICK_IDLE and outcome == layout.KICKED:
                pauses.add(after - start)
        outcomes |= set(events["outcome"].tolist())
        refused += int((events["outcome"] == layout.W_KICK).sum())
        begun += int(around.fired[layout.KICK_IDLE])
        done += int(around.fired[layout.KICK])
        broken = [a + int(b) for a, b in zip(broken, around.broken, strict=True)]
    columns = cell.run(resolve({"duration_us": 100, "pages": 64}, Path()), Path())
    return {
        "begun": begun,
        "done": done,
        "refused": refused,
        "broken": broken,
        "pauses": sorted(pauses),
        "said": layout.KICKED in outcomes,
        "usual": sorted(usual),
        "columns": len(columns["broken"]),
    }


def stored():
    memory = Memory()
    stores = {role: MemoryStore(memory, role) for role in ("ultravisor", "host", "guest", "admin")}
    with tempfile.TemporaryDirectory() as folder:
        engine = Stored(stores, Path(folder))
        agree(Interpreter(), engine, scenario.system(ONE, policy("yes")), 3, 60)
        verdict = validate(stores["admin"].history(engine.group), engine.state)
    return {"accepted": verdict.accepted, "why": verdict.why, "broken": sorted({name for _, name in verdict.broken})}


def exported(full):
    system = scenario.system(ONE, policy("yes"))
    text = export(system, properties=True)
    made = {
        "asserts": f"assert(my_broken != {LAST})" in text,
        "waits": "kick-page" in text,
        "names": f"property {LAST}: {PROPERTIES[LAST]}" in text,
    }
    if full and not any(shutil.which(tool) is None for tool in ("spin", "gcc")):
        import check_spin

        check_spin.made = lambda *_: system
        with tempfile.TemporaryDirectory() as folder:
            check_spin.build(Path(folder), "", "")
            counted = check_spin.spin(Path(folder), 18)
            made["spin"] = {name: counted[name] for name in ("states", "edges", "wrong")}
    return made


def main(full):
    plain = naive(scenario.system(ONE, policy("yes")))
    print(
        json.dumps(
            {
                "tables": {
                    "rules": len(RULES) == layout.DEAD,
                    "slots": sim.OUTCOME_SLOTS,
                    "outcome": layout.KICKED,
                    "wait": -layout.W_KICK,
                    "parked": [sim.PARKED, sim.PARKED_DIRTY],
                    "last": LAST,
                },
                "interpreter": {
                    "states": len(plain.states),
                    "edges": sum(map(len, plain.edges)),
                    "broke": sorted(plain.broke),
                },
                "checker": checked(full),
                "folded": folded(),
                "simulator": simulated(),
                "store": stored(),
                "promela": exported(full),
            }
        )
    )


main("--full" in sys.argv)
