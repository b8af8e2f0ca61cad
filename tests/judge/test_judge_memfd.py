"""The rules of guest_memfd and KVM's own functions, if a tree of 6.12 is present."""

import functools
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from judged import TREES, made_up
from ultrafolio.cli import cli
from ultrafolio.engine.load import functions
from ultrafolio.errors import InputError
from ultrafolio.judge.build import Program, questions
from ultrafolio.judge.cut import Tree
from ultrafolio.judge.memfd.at_once import OTHER_KIND, Ruled, explain, together
from ultrafolio.judge.memfd.at_once import REASONS as AT_ONCE
from ultrafolio.judge.memfd.page import page
from ultrafolio.judge.memfd.pieces import MEMFD, NO_RULE, PIECES
from ultrafolio.judge.memfd.reasons import REASONS, reasons
from ultrafolio.judge.memfd.sequential import Sides
from ultrafolio.judge.memfd.starts import Doing, Start, pairs, plain, starts
from ultrafolio.judge.memfd.verdict import POLICY, judge
from ultrafolio.judge.memfd.ways import WAYS
from ultrafolio.judge.memfd.world import Numbers, World, numbers
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd.policy import PRESETS

TREE = TREES[1]
PAGE = Path(__file__).parents[2] / "docs/judged-guest-memfd.md"
COMMAND = "ultrafolio judge --design guest_memfd --tree linux-source-6.12 --every --markdown"
kvm = pytest.mark.skipif(not (TREE / "virt/kvm/guest_memfd.c").is_file(), reason=f"no {TREE.name} with virt/kvm here")
x86 = pytest.mark.skipif(
    not (TREE / "arch/x86/kvm/mmu/mmu.c").is_file(),
    reason=f"no {TREE.name} with arch/x86/kvm here (tools/kernel-trees.sh unpacks it)",
)


def made_rules(changed=None):
    return SimpleNamespace(**functions(lambda function: function, changed, design=GUEST_MEMFD))


@functools.cache
def judged():
    """What judging the tree finds, once."""
    return judge(Tree(str(TREE)))


@pytest.fixture(scope="module")
def program():
    """The judged functions, compiled once."""
    with Program(Tree(str(TREE)), MEMFD) as made:
        yield made


# ------------------------------------------------------------------------------------------- the judgement
@kvm
def test_every_difference_has_a_reason():
    found = judged()
    assert found.unnamed == [] and not found.broken and found.code == 1
    assert found.operated["hole"].equal >= 160
    assert {GUEST_MEMFD.rules[pc].name for pc, word in found.rules.items() if word == "differs"} <= {"convert-store"}


@x86
def test_each_reason_is_used():
    found = judged()
    used = {name for one in found.operated.values() for name in one.reasons}
    assert used == {reason.name for reason in REASONS} == set(found.shortest)
    assert set(found.operated) == set(WAYS) and found.not_judged == {}
    assert found.systems == 6 * 15 and set(found.ends) == {reason.name for reason in AT_ONCE}


@x86
def test_the_shortest_starts_of_what_the_rules_do_not_mean():
    shortest = {name: text.splitlines()[0] for name, (_, text) in judged().shortest.items()}
    assert shortest["keeps-the-frame"] == "to-shared of page 0 from page 0 private on snp"


@x86
def test_a_mixed_range_at_once(program):
    """Conversions of both pages, beside the operations that meet them: the rules have every end of the C."""
    sides = Sides(program, made_rules(), PRESETS[POLICY][1])
    ruled, start = Ruled(sides), Start(("private mapped", "shared mapped"))
    both = Doing("to-private", 0, 2)
    found = [together(sides, ruled, start, (both, Doing(operation))) for operation in WAYS]
    assert all(one.in_c.ends for one in found) and [end for one in found for end in one.missing] == []


@pytest.mark.slow
@x86
def test_two_and_three_at_once_from_every_start():
    found = judge(Tree(str(TREE)), every=True)
    text = PAGE.read_text()
    if f"| rule | held to | Linux {found.version} |" in text:
        assert page([found], COMMAND) == text
    assert found.missing == [] and not found.broken and found.systems > 2_000


# --------------------------------------------------------------------------------------------- broken rules
STALE = "    stale = s.mm[k.page].zapped or not s.vm[s.who[t].vm].fresh >> t & 1\n"
PUNCHED = "m.zapped, m.allocated = 1 - s.cfg[0].quiet_hole, 0"
UNMAPPED = "was != (MAPPED if to_private(s, t) else MAPPED_PRIVATE) and not (was and both)"
CAUGHT = {
    "a hole takes no lock": ("hole", {
        "vm.mutex = t + 1 if alone else": "vm.mutex = vm.mutex if alone else"}),
    "a hole keeps its page": ("hole", {PUNCHED: "m.zapped = 1"}),
    "a hole invalidates nothing": ("hole", {PUNCHED: "m.allocated = 0"}),
    "a hole unmaps other memory": ("hole", {
        "if s.cfg[0].convert != TWO_BACKINGS:\n            m.users": "if True:\n            m.users"}),
    "KVM keeps a page of a hole": ("hole", {"        leave(s, p)\n    k.pc = HOLE_END": "    k.pc = HOLE_END"}),
    "a hole's invalidation does not end": ("hole", {"        s.mm[p].zapped = 0\n": "        pass\n"}),
    "a hole keeps the lock": ("hole", {"    unlock_alone(s, t)\n    s.task[t].start": "    s.task[t].start"}),
    "a hole gives no page back to its machine": ("hole", {"    if s.cfg[0].no_reclaim:\n": "    if True:\n"}),
    "a fault prepares nothing": ("fault-private", {"            prepare(s, q)\n": "            pass\n"}),
    "a fault takes no snapshot": ("fault-private", {"    s.vm[s.who[t].vm].fresh |= 1 << t\n": ""}),
    "the attribute is read before the snapshot": ("fault-private", {
        "k.page, k.call, k.pc = page, private, FAULT_SNAPSHOT": "k.page, k.call, k.pc = page, private, FAULT_ATTRIBUTE",
        "    return go_on(s, t, FAULT_ATTRIBUTE)\n": "    return go_on(s, t, FAULT_LOCK)\n",
        "E_EXIT)\n    return go_on(s, t, FAULT_LOCK)\n": "E_EXIT)\n    return go_on(s, t, FAULT_SNAPSHOT)\n",
    }),
    "a fault reads no attribute": ("fault-private", {"if s.mm[k.page].private != k.call and": "if 0 and"}),
    "a shared fault maps what is private": ("fault-shared", {"if s.mm[k.page].private != k.call and": "if 0 and"}),
    "a fault maps what is under invalidation": ("fault-private", {STALE: STALE.replace("s.mm[k.page].zapped", "0")}),
    "a fault drops its reference before it maps": ("fault-private", {
        "    if s.cfg[0].hold == HOLD_DROPPED:\n        let_go": "    if True:\n        let_go"}),
    "a fault keeps its reference": ("fault-private", {
        "    let_go(s, t)\n    s.vm[s.who[t].vm].fresh": "    s.vm[s.who[t].vm].fresh"}),
    "a conversion tests nothing": ("to-private", {
        "        if s.mm[p].private != to_private(s, t):\n            return piece": "        if True:\n            "
        "return piece"}),
    "a conversion unmaps the old kind only": ("to-private", {
        UNMAPPED: "was != (MAPPED if to_private(s, t) else MAPPED_PRIVATE)"}),
    "a conversion unmaps the new kind only": ("to-private", {
        UNMAPPED: "was != (MAPPED_PRIVATE if to_private(s, t) else MAPPED)"}),
    "a conversion to shared unmaps nothing": ("to-shared", {UNMAPPED: "not (was and to_private(s, t))"}),
    "a conversion invalidates nothing": ("to-shared", {
        "        s.mm[p].zapped = 1\n        outcome = zap": "        outcome = zap"}),
    "a conversion stores nothing": ("to-private", {
        "        s.mm[p].private = to_private(s, t)\n    k.pc": "        pass\n    k.pc"}),
    "the invalidation ends before the store": ("to-private", {
        "k.pc = CONVERT_END if s.cfg[0].end_first": "k.pc = CONVERT_END if True",
        "store_or_split(s)) if s.cfg[0].end_first else piece_over": "store_or_split(s)) if True else piece_over",
        "outcome = piece_over(s, t) if s.cfg[0].end_first": "outcome = piece_over(s, t) if True",
    }),
}  # fmt: skip


def differs(program, operation, changed):
    """Whether a broken rule makes an operation differ without a reason."""
    sides = Sides(program, made_rules(changed), PRESETS[POLICY][1])
    return any(reasons(pair, sides.again) is None for pair in sides.alone(operation))


@kvm
@pytest.mark.parametrize("name", [name for name, (operation, _) in CAUGHT.items() if operation == "hole"])
def test_a_broken_rule_of_a_hole_differs(name, program):
    assert differs(program, *CAUGHT[name]), name


@x86
@pytest.mark.parametrize("name", [name for name, (operation, _) in CAUGHT.items() if operation != "hole"])
def test_a_broken_rule_of_a_fault_or_a_conversion_differs(name, program):
    assert differs(program, *CAUGHT[name]), name


AT_ONCE_CAUGHT = {
    "an old snapshot is good": ("to-shared", {STALE: "    stale = s.mm[k.page].zapped\n"}),
    "an invalidation makes no snapshot old": ("to-shared", {"    s.vm[s.who[t].vm].fresh = 0\n": ""}),
}


@x86
@pytest.mark.parametrize("name", AT_ONCE_CAUGHT)
def test_a_rule_that_is_wrong_only_beside_another_thread_has_ends_that_the_c_has_not(name, program):
    operation, changed = AT_ONCE_CAUGHT[name]
    assert not differs(program, "fault-private", changed)
    start, doing = Start(("private mapped",)), (Doing(operation), Doing("fault-private"))
    found = []
    for rules in (made_rules(), made_rules(changed)):
        sides = Sides(program, rules, PRESETS[POLICY][1])
        found.append(together(sides, Ruled(sides), start, doing))
    right, wrong = found
    assert len(wrong.unreached) > len(right.unreached)
    assert any("mapped" in end[0] for end in wrong.unreached)


# -------------------------------------------------------------------------------------------- changed trees
GMEM, MAIN, MMU = "virt/kvm/guest_memfd.c", "virt/kvm/kvm_main.c", "arch/x86/kvm/mmu/mmu.c"
LOST = {
    "the sequence stands": (MAIN, "\tkvm->mmu_invalidate_seq++;\n", "", "to-shared"),
    "the test under the MMU lock": (
        MMU, "\tif (is_page_fault_stale(vcpu, fault))\n\t\tgoto out_unlock;\n\n\tr = kvm_tdp_mmu_map", "\tr = "
        "kvm_tdp_mmu_map", "to-shared"),
    "the lock of the slots": (MAIN, "\tmutex_lock(&kvm->slots_lock);\n\n\t/* Nothing to do", "\t/* Nothing to do", ""),
    "the test for nothing to do": (
        MAIN, "\tif (kvm_range_has_memory_attributes(kvm, start, end, ~0, attributes))\n\t\tgoto out_unlock;\n", "",
        ""),
    "a freed folio is not given back": (GMEM, "\tkvm_arch_gmem_invalidate(pfn, pfn + (1ul << order));\n", "", ""),
    "a hole's begin": (
        GMEM, "\tlist_for_each_entry(gmem, gmem_list, entry)\n\t\tkvm_gmem_invalidate_begin(gmem, start, end);\n\n"
        "\ttruncate", "\ttruncate", ""),
    "a hole's lock": (
        GMEM, "\tfilemap_invalidate_lock(inode->i_mapping);\n\n\tlist_for_each", "\tlist_for_each", ""),
}  # fmt: skip


def changed_tree(folder, path, old, new):
    """A tree with the files of all pieces, of which one is changed."""
    for name in {place.path for piece in PIECES for place in piece.places} | {"Makefile"}:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        text = (TREE / name).read_text()
        if name == path:
            assert old in text, old
            text = text.replace(old, new, 1)
        (folder / name).write_text(text)
    return Tree(str(folder))


@x86
@pytest.mark.parametrize("name", LOST)
def test_a_changed_function_differs(tmp_path, name):
    path, old, new, beside = LOST[name]
    tree = changed_tree(tmp_path, path, old, new)
    if not beside:
        operations = ("hole",) if path == GMEM else ("to-private",)
        assert judge(tree, together_too=False, able=operations).unnamed
        return
    with Program(tree, MEMFD) as made:
        sides = Sides(made, made_rules(), PRESETS[POLICY][1])
        ruled = Ruled(sides)
        found = together(sides, ruled, Start(("private mapped",)), (Doing(beside), Doing("fault-private")))
        assert any(explain(found, end, ruled) is None for end in found.missing) and OTHER_KIND in found.broken


@kvm
def test_what_a_tree_lacks_is_said_and_the_rest_is_judged(tmp_path):
    for name in {place.path for piece in PIECES for place in piece.places if "x86" not in place.path} | {"Makefile"}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((TREE / name).read_text())
    found = judge(Tree(str(tmp_path)), together_too=False)
    assert set(found.operated) == {"hole"} and found.unnamed == []
    assert set(found.not_judged) == set(WAYS) - {"hole"}
    assert all("this tree has no" in why and "arch/x86" in why for why in found.not_judged.values())


def test_a_tree_without_guest_memfd_is_refused(tmp_path):
    with pytest.raises(InputError, match="guest_memfd the judge has no pieces of"):
        judge(Tree(made_up(tmp_path)))


# ------------------------------------------------------------------------------------------------ the shim
def test_every_question_has_a_meaning():
    assert len(set(questions(MEMFD))) == len(questions(MEMFD))
    for name in questions(MEMFD):
        assert callable(getattr(World, name)), name


def test_numbers_go_back_as_they_came():
    for one in (Numbers(), Numbers(1, 0, 2, 0), Numbers(2, 1, 7, 40_000)):
        assert numbers(one.packed()) == one


def test_starts_are_distinct():
    assert len(list(starts())) == len(set(starts())) and set(plain(True)) <= set(starts())
    for start in plain(True):
        found = list(pairs(start))
        assert len(found) == len(set(found)) == (15 if len(start.pages) == 1 else 91)


def test_every_operation_is_a_way_and_every_function_without_a_rule_is_no_piece():
    assert [one.name for one in MEMFD.operations] == list(WAYS)
    assert not set(NO_RULE) & {place.function for piece in PIECES for place in piece.places}


# --------------------------------------------------------------------------------------------- the command
@x86
def test_the_command_says_what_differs():
    done = CliRunner().invoke(
        cli, ["judge", "--tree", str(TREE), "--design", "guest_memfd", "--alone"], standalone_mode=False
    )
    assert done.return_value == 1, done.output
    assert done.output.splitlines()[-1] == "the rules differ from the kernel's C: keeps-the-frame"


@kvm
def test_the_command_as_json_and_as_a_page():
    call = ["judge", "--tree", str(TREE), "--design", "guest_memfd", "--alone"]
    made = json.loads(CliRunner().invoke(cli, [*call, "--json"], standalone_mode=False).output)
    assert made["design"] == "guest_memfd" and made["rules"]["hole-lock"] == "equal" and not made["agrees"]
    printed = CliRunner().invoke(cli, [*call, "--markdown"], standalone_mode=False).output
    assert f"Made by `ultrafolio judge --design guest_memfd --tree {TREE.name} --alone --markdown`." in printed
    for rule in GUEST_MEMFD.rules.values():
        assert printed.count(f"\n| {rule.name} | ") == 1


@x86
def test_citations_that_the_tree_lacks():
    """What is queued for 7.4 is not there; what the judged rules cite is."""
    call = ["judge", "--tree", str(TREE), "--design", "guest_memfd", "--citations"]
    done = CliRunner().invoke(cli, call, standalone_mode=False)
    gone = re.findall(r"^(\w+): not in Linux", done.output, re.M)
    assert done.return_value == 0 and {"kvm_gmem_is_private_gfn", "kvm_gmem_fault_user_mapping"} <= set(gone)
    assert not {"kvm_gmem_punch_hole", "kvm_gmem_get_pfn", "is_page_fault_stale", "gup_fast_pte_range"} & set(gone)
    assert not {"kvm_mmu_faultin_pfn", "kvm_faultin_pfn", "kvm_gmem_free_folio"} & set(gone)


def test_the_page_is_of_its_command_and_names_every_rule_reason_and_piece():
    text = PAGE.read_text()
    assert f"Made by `{COMMAND}`." in text and len(re.findall(r"^\| Linux \S+ \| [a-z-]+ \|", text, re.M)) == len(WAYS)
    names = [rule.name for rule in GUEST_MEMFD.rules.values()] + [piece.name for piece in PIECES]
    for name in names + [reason.name for reason in (*REASONS, *AT_ONCE)]:
        assert f"\n| {name} | " in text, name
    table = text[text.index("## Rules") : text.index("## Reasons")]
    words = re.findall(r"\| (\w+)[^|]*\|$", table, re.M)[1:]
    assert len(words) == len(GUEST_MEMFD.rules) and set(words) == {"equal", "explained", "differs", "not"}


@pytest.mark.parametrize("also", [["--preset", "gmem-7.4"], ["--three", "plain"], ["--brief"]])
def test_options_of_the_other_design_are_refused(also):
    call = ["judge", "--tree", "nowhere", "--design", "guest_memfd", *also]
    done = CliRunner().invoke(cli, call, standalone_mode=False)
    assert isinstance(done.exception, InputError) and done.exception.value == also[0]
