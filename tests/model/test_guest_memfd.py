"""The rules of the design guest_memfd: rules broken once each, walls, and the form."""

import ast
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from lines import code_lines
from memfd_cases import SHIPPED, STORIES
from memfd_graphs import broken_properties, graph
from plain_graph import explored
from ultrafolio.commands import rules as command
from ultrafolio.engine.load import mutant
from ultrafolio.errors import InputError
from ultrafolio.model import policies, scenario
from ultrafolio.model import rules as shared_rules
from ultrafolio.model.designs import DESIGNS, GUEST_MEMFD, S390
from ultrafolio.model.guest_memfd import layout as at
from ultrafolio.model.guest_memfd import machines
from ultrafolio.model.guest_memfd.machines import content
from ultrafolio.model.guest_memfd.scenario import MEMORY
from ultrafolio.model.guest_memfd.table import SHARED
from ultrafolio.model.rule import RULES

DOCS = Path(__file__).parents[2] / "docs"
OWN = [module for module in GUEST_MEMFD.modules if module.__name__.rpartition(".")[0].endswith(".guest_memfd")]
HUGE = ("gmem-hugetlb-2025-05", "gmem-hugetlb-2025-12")
MACHINES = (*machines.NAMES, "content")


# ------------------------------------------------------------------------------------------------- broken once each
def test_every_step_fires_somewhere():
    fired = set()
    for name, story in STORIES.items():
        for policy in ("gmem-7.4", *story.tables, *(("gmem-hugetlb-2025-05",) if any(story.memory["folios"]) else ())):
            fired |= {edge.pc for edges in graph(name, policy).edges for edge in edges}
    assert fired | {at.CONVERT_ROLLBACK} == set(GUEST_MEMFD.rules), "a loop without end is no step"


SNAPSHOT_LATE = {
    "k.page, k.call, k.pc = page, private, FAULT_SNAPSHOT": "k.page, k.call, k.pc = page, private, FAULT_ATTRIBUTE",
    "    return go_on(s, t, FAULT_ATTRIBUTE)\n": "    return go_on(s, t, FAULT_LOCK)\n",
    "E_EXIT)\n    return go_on(s, t, FAULT_LOCK)\n": "E_EXIT)\n    return go_on(s, t, FAULT_SNAPSHOT)\n",
}
STORED_FIRST = {
    "            return piece(s, t)\n    return piece_over": "            for q in range(k.page, k.page + k.n):\n"
    "                s.mm[q].private = to_private(s, t)\n            return piece(s, t)\n    return piece_over"
}
PUNCHED = {"m.zapped, m.allocated = 1 - s.cfg[0].quiet_hole, 0": "m.allocated = 0"}
UNMAPS_ALL = {
    "    for p in range(k.start, k.end):\n        s.mm[p].zapped = 1\n        outcome = zap(s, t, p)\n": "    for p in "
    "range(s.cfg[0].pages):\n        s.mm[p].zapped = 1\n        outcome = zap(s, t, p)\n"
}
ONE_ENTRY = '    """One entry of the S-EPT maps the huge page at `p`."""\n'
BROKEN = {
    # property, scenario, source text that is replaced
    "the attribute is stored before the references are asked": (1, "g04-one-of-four-pinned", STORED_FIRST),
    "a refusal without a page": (2, "g04-one-of-four-pinned", {"= page + 1, 0, 0, VMM_RETRY": "= 0, 0, 0, VMM_RETRY"}),
    "references are not counted": (
        3, "g12-fault-in-flight", {"if extra_refs(s, k.i) == 0 and not s.mm[k.i].users:": "if True:"}),
    "GUP takes no second look": (3, "g13-gup-fast", {
        "    if not maps(s, t, p):\n        put_ref": "    if False:\n        put_ref",
        "if extra_refs(s, k.i) == 0 and not s.mm[k.i].users:": "if True:",
        "in_use = pinned(s, k.i) or s.mm[k.i].users": "in_use = False"}),
    "a user's fault does not read the attribute": (
        3, "g01-to-private", {
            "m, in_place = s.mm[s.task[t].page + s.task[t].at], s.cfg[0].convert == IN_PLACE":
            "m, in_place = s.mm[s.task[t].page + s.task[t].at], False"}),
    "a fault is mapped without a look at the sequence": (
        4, "g32-fault-races", {"    stale = s.mm[k.page].zapped or": "    stale = False and"}),
    "an invalidation makes no snapshot old": (
        4, "g32-fault-races", {"    s.vm[s.who[t].vm].fresh = 0\n": ""}),
    "a hole is no invalidation": (5, "g15-hole", PUNCHED),
    "a private page is found shared by a process": (6, "g38-removal-fails", {}),
    "a conversion unmaps the pages beside it": (7, "g37-removal-while-a-vcpu-is-in-the-guest", UNMAPS_ALL),
    "a private page is freed, and its machine not told": (
        8, "g49-private-page-freed", {"    if s.cfg[0].no_reclaim:": "    if True:"}),
    "no vCPU leaves the guest": (
        9, "g37-removal-while-a-vcpu-is-in-the-guest", {"(s.cfg[0].no_kick and tdx_in_guest(s))": "tdx_in_guest(s)"}),
    "an entry of a huge page that the hardware has not": (
        10, "g39-guest-accepts-less", {ONE_ENTRY + "    set_entries(s, p, 1)\n": ONE_ENTRY}),
    "a merge takes all of it for written": (
        11, "g29-merged-but-not-written", {"TAKEN_FOR_WRITTEN if s.cfg[0].merge_whole else": "TAKEN_FOR_WRITTEN or"}),
    "nothing keeps two allocations apart": (
        12, "g27-two-allocate-one-huge-page", {"s.cfg[0].looks_first and": ""}),
    "the snapshot comes after the attribute": (4, "g32-fault-races", SNAPSHOT_LATE),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_rule_is_found(what):
    number, name, changed = BROKEN[what]
    policy = "gmem-hugetlb-2025-12" if number >= 10 else "gmem-7.4"
    assert number in broken_properties(name, mutant(changed, GUEST_MEMFD), policy)
    assert not changed or not broken_properties(name, policy=policy), "and the rule as it is is sound"


def test_every_property_has_a_broken_rule():
    assert {case[0] for case in BROKEN.values()} == set(range(1, len(GUEST_MEMFD.properties)))


FAILS = {
    # property: scenario, policy that ships with it, machine
    1: ("g24-second-huge-page-pinned", "gmem-hugetlb-2025-12", "software"),
    2: ("g36-kvms-own-reference", "gmem-no-drain", "software"),
    3: ("g12-fault-in-flight", "no-reference-test", "software"),
    4: ("g32-fault-races", "end-before-store", "software"),
    5: ("g15-hole", "quiet-hole", "software"),
    6: ("g47-kernel-takes-a-page", "gmem-7.4", "tdx"),
    7: ("g23-no-memory-for-the-folio", "gmem-hugetlb-2025-05", "tdx"),
    8: ("g38-removal-fails", "gmem-7.4", "snp"),
    9: ("g37-removal-while-a-vcpu-is-in-the-guest", "no-kick", "tdx"),
    10: ("g43-no-memory-for-a-table", "gmem-hugetlb-2025-12", "cca"),
    11: ("g29-merged-but-not-written", "up-to-date-as-a-whole", "software"),
    12: ("g27-two-allocate-one-huge-page", "double-allocation", "software"),
}


@pytest.mark.parametrize("number", range(1, len(GUEST_MEMFD.properties)))
def test_every_property_fails_under_a_shipped_policy(number):
    name, policy, machine = FAILS[number]
    story = scenario.on_machine(STORIES[name], machine, name)
    system = scenario.system(story, policies.find_any(policy, story.tables))
    assert number in {edge.broke for edges in explored(system).edges for edge in edges}


def test_the_published_bugs_are_found():
    """B1, the batch of an idle CPU, is a wait (scenario g09); B4 and the early end of the invalidation are unsafe."""
    assert broken_properties("g36-kvms-own-reference", policy="gmem-no-drain") == {2}
    assert broken_properties("g32-fault-races", policy="end-before-store") == {4}


# ---------------------------------------------------------------------------------------------------------- the form
SECTIONS = {
    "guest": {"actor", "uv", "pt", "task"},
    **{name: {"uv"} for name in MACHINES},
    "vmm": {"actor", "io", "task"},
}
HOST = {"mm", "pt", "vm", "task"}
DEVICE = {"pin_start", "dma_ready", "io_end", "dma_unmap", "dma_unmap_asked"}
EXCEPTIONS = {
    "user_lookup": HOST | {"actor"},  # the pin is over: its actor is told
    "pipe_read": HOST | {"actor"},
    "tdx_in_guest": {"task"},  # whether a vCPU is in TD entry, which its program counter says
}


def functions():
    for module in (*OWN, *machines.MODULES, content):
        name = module.__name__.rsplit(".", 1)[1]
        for node in ast.parse(Path(module.__file__).read_text()).body:
            if isinstance(node, ast.FunctionDef) and name != "properties":
                yield name, node


@pytest.mark.parametrize(("module", "node"), list(functions()), ids=lambda v: getattr(v, "name", v))
def test_a_function_stays_within_its_walls(module, node):
    used = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "s"}
    may = {"actor", "io", "task"} if node.name in DEVICE else SECTIONS.get(module, HOST)
    assert used - {"cfg", "who"} <= EXCEPTIONS.get(node.name, may)


def test_the_host_reads_neither_the_hardware_nor_how_the_guest_uses_a_page():
    used = {module for module, node in functions() if "s.uv" in ast.unparse(node)}
    assert used == {"guest", "snp", "tdx", "cca", "pkvm", "content"}
    guest = [node for module, node in functions() if module == "guest"]
    fields = {n.attr for node in guest for n in ast.walk(node) if isinstance(n, ast.Attribute)
              and ast.unparse(n.value).startswith("s.uv[")}  # fmt: skip
    assert fields == {"shared"}, "the guest learns of the hardware by an access"


def test_every_machine_has_every_verb_and_a_page_state_is_one_of_its_own():
    for module, name in zip(machines.MODULES, machines.NAMES, strict=True):
        made = {
            node.name for node in ast.parse(Path(module.__file__).read_text()).body if isinstance(node, ast.FunctionDef)
        }
        assert {f"{name}_{verb}" for verb in machines.VERBS} <= made
        assert module.ABOUT and module.SIZES and set(module.STATES) <= set(range(len(at.HW_WORDS)))
        assert code_lines(Path(module.__file__)) < 100
    for name, policy, machine in SHIPPED:
        if policy != "gmem-7.4":
            continue
        found = {u.state for s in graph(name, policy, machine).states for u in s.uv}
        assert found <= set(machines.MODULES[machines.NAMES.index(machine)].STATES), (name, policy, machine)


def test_what_a_machine_is_stands_in_its_module():
    """The rules call its verbs and read its facts; they ask for no machine by its number."""
    assert set(machines.facts()) == {*machines.FACTS} <= set(GUEST_MEMFD.constants)
    for module in (*OWN, content):
        asked = [
            node
            for node in ast.walk(ast.parse(Path(module.__file__).read_text()))
            if isinstance(node, ast.Compare) and ast.unparse(node.left).endswith(".machine")
        ]
        assert not asked, (module.__name__, [ast.unparse(node) for node in asked])


def test_the_rules_are_short_and_name_their_kernel():
    length = {module.__name__.rpartition(".")[2]: code_lines(Path(module.__file__)) for module in OWN}
    assert length.pop("properties") < 150 and sum(length.values()) < 700, "the steps, and what is asked of them"
    assert not [
        rule.name
        for rule in GUEST_MEMFD.rules.values()
        if not re.search(r"\bv[5-7]\.\d+|queued for 7\.4|(RFC|QEMU|branch|handler)\b.*202[56]", rule.kernel)
    ]


def test_both_designs_take_the_shared_steps():
    assert all(GUEST_MEMFD.rules[pc] is RULES[pc] for pc in SHARED) and S390.rules is RULES
    shared = {module for module in GUEST_MEMFD.modules if module in shared_rules.MODULES}
    assert shared and not [m for m in OWN if m in S390.modules]
    assert set(DESIGNS) == {"s390", "guest_memfd"}


def test_the_page_of_rules_is_fresh():
    printed = CliRunner().invoke(command.rules, ["--design", "guest_memfd"], catch_exceptions=False).output
    assert (DOCS / "rules-guest-memfd.md").read_text() == printed, (
        "run: ultrafolio rules --design guest_memfd > docs/rules-guest-memfd.md"
    )


def test_the_table_of_cases_names_every_scenario():
    text = (DOCS / "conformance.md").read_text().split("## Conversion in guest_memfd")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| ([^|]+) \|$", text, re.M)[1:]
    named = [word for _, where in rows for word in re.findall(r"`([a-z0-9-]+-[a-z0-9-]+)`", where)]
    assert sorted(named) == sorted(STORIES)
    assert all("`" in where or where.startswith("outside: ") for _, where in rows)


def test_a_scenario_names_design_and_machine():
    document = {"memory": {"folios": [0]}, "vmm": [{"page": 0, "to": "private"}]}
    with pytest.raises(InputError, match="no actor of the design s390"):
        scenario.parse(document, "test")
    with pytest.raises(InputError, match="machine"):
        scenario.parse(document | {"design": "guest_memfd", "machine": "s390-uv"}, "test")
    made = scenario.parse(document | {"design": "guest_memfd"}, "test")
    assert (made.design, made.machine) == ("guest_memfd", "software")
    assert scenario.parse(scenario.document(made), "test").actors == made.actors
    with pytest.raises(InputError, match="too many vCPUs"):
        many = {"design": "guest_memfd", "memory": {"folios": [0]}, "vcpu": [{}] * 17}
        scenario.system(scenario.parse(many, "test"), policies.find_any("gmem-7.4"))


@pytest.mark.parametrize("name", sorted(name for name, field in MEMORY.items() if field == MEMORY["refuses"]))
def test_a_page_that_memory_names_exists(name):
    with pytest.raises(InputError, match="page 9 does not exist"):
        scenario.parse({"design": "guest_memfd", "memory": {"folios": [0], name: [9]}, "vcpu": [{}]}, "it")
