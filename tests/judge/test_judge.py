"""The rules agree with the kernel's C, if the trees of 6.1 and 6.12 are present."""

import functools
import re
from types import SimpleNamespace

import pytest

from judged import TREES, trees
from mutants import MUTANTS
from ultrafolio.engine.load import functions
from ultrafolio.judge.at_once import REASONS as AT_ONCE_REASONS
from ultrafolio.judge.build import Program
from ultrafolio.judge.concurrent import Ruled, together
from ultrafolio.judge.cut import Tree
from ultrafolio.judge.explained import REASONS, explain
from ultrafolio.judge.sequential import compare
from ultrafolio.judge.stands import STANDS
from ultrafolio.judge.starts import Doing, Start, build
from ultrafolio.judge.verdict import NAMED, judge
from ultrafolio.judge.watch import differences, without
from ultrafolio.model.fixes import order
from ultrafolio.model.layout import UNMAPPED, WRITING
from ultrafolio.model.policies import find


@pytest.fixture(scope="module")
def program():
    """The judged functions of 6.12, compiled once."""
    if not (TREES[1] / "mm/gup.c").is_file():
        pytest.skip("no linux-source-6.12 here")
    with Program(Tree(str(TREES[1]))) as made:
        yield made


# ------------------------------------------------------------------------------------------- the judgement
@functools.cache
def judged(tree):
    """What judging a whole tree finds, once."""
    return judge(Tree(str(tree)))


@trees
def test_no_difference_is_left_without_an_explanation(tree):
    found = judged(tree)
    assert found.missing == []
    assert {name: one.differ for name, one in found.operated.items() if one.differ} == {}
    assert found.operated["import"].equal > 400 and found.nodes > 10_000


@trees
def test_each_reason_is_used_or_is_of_the_other_tree(tree):
    used = {name for one in judged(tree).operated.values() for name in one.explained}
    other = {"walks-twice"} | ({"large-has-no-bit"} if tree.name == "linux-source-6.1" else set())
    assert used == {reason.name for reason in REASONS} - other


CAUGHT = {
    "no test for writeback": (
         "    if s.mm[head(s, k.page)].writeback != NO_WRITEBACK:\n"
         "        unlock",
         "    if 0:\n"
         "        unlock",
    ),
    "no freeze": (
         "    s.mm[counted(s, k.page)].frozen = 1\n",
         "",
    ),
    "no bit before the call": (
         "    set_arch(s, s.task[t].page)\n",
         "",
    ),
    "no count of references": (
         "extra_refs(s, k.page) > k.ref or never_matches",
         "never_matches",
    ),
    "no thaw after a failure": (
         "    thaw(s, t)\n"
         "    if rc == UV_BUSY",
         "    if rc == UV_BUSY",
    ),
    "an unshare exports first": (
         " and k.call != UNSHARE",
         "",
    ),
    "a refused unshare is fatal": (
         "    if s.task[t].call == UNSHARE:\n"
         "        leave(s, t)\n"
         "        return E_UV\n",
         "",
    ),
    "no export before a foreign import": (
         "    if foreign:\n"
         "        k.pc = IMPORT_EXPORT",
         "    if False:\n"
         "        k.pc = IMPORT_EXPORT",
    ),
    "no own reference": (
         "        k.ref = 1\n"
         "        get_ref(s, k.page, 2)\n",
         "        pass\n",
    ),
    "the own reference stays": (
         "        k.ref = 0\n"
         "        put_ref(s, k.page, 2)\n",
         "        k.ref = 0\n",
    ),
    "a dirty folio is split": (
         "if m.dirty and m.backing == IOMAP:",
         "if 0:",
    ),
    "references before dirt": (
         "    if m.writeback != NO_WRITEBACK:\n"
         "        if s.cfg[0].import_ref",
         "    if m.refs > k.ref:\n"
         "        return too_many_refs(s, t)\n"
         "    if m.writeback != NO_WRITEBACK:\n"
         "        if s.cfg[0].import_ref",
    ),
    "a pin that is not made accessible": (
         "make_accessible(s, t, p, unit != ACC_UNIT_PAGE, PIN_GET)",
         "pass",
    ),
    "an export without a pin": (
         "    if uv_pin(s, k.i) == UV_OK:\n"
         "        return page_done(s, t)\n"
         "    k.failed = k.i + 1\n",
         "    k.failed = 0\n",
    ),
    "writeback that is not made accessible": (
         "make_accessible(s, t, s.task[t].page, True, WB_IO)",
         "s.task[t].pc = WB_IO",
    ),
    "reclaim does not ask for pins first": (
         "    if h.backing == ANON and pinned(s, k.page):\n",
         "    if False:\n",
    ),
    "reclaim asks for pins of all memory first": (
         "    if h.backing == ANON and pinned(s, k.page):\n",
         "    if pinned(s, k.page):\n",
    ),
    "an unmap clears the bit though its export was refused": (
         "    if uv_export(s, k.i) != UV_OK:\n"
         "        unlock(s, k.page)\n",
         "    if uv_export(s, k.i) != UV_OK:\n"
         "        clear_arch(s, k.i)\n"
         "        unlock(s, k.page)\n",
    ),
    "a fast pin clears the bit of a page that it skips": (
         "    if k.then == PIN_GET and s.cfg[0].gup_skips:\n",
         "    if k.then == PIN_GET and s.cfg[0].gup_skips:\n"
         "        clear_arch(s, k.i)\n",
    ),
    "a pin does not map its page": (
         "    s.pt[p].present = MAPPED\n"
         "    get_ref(s, p, is_long(s, t))\n",
         "    get_ref(s, p, is_long(s, t))\n",
    ),
    "writeback that waits makes its folio dirty": (
         "    if h.writeback != NO_WRITEBACK:\n"
         "        return W_WRITEBACK\n"
         "    h.locked = 1\n",
         "    if h.writeback != NO_WRITEBACK:\n"
         "        h.dirty = 1\n"
         "        return W_WRITEBACK\n"
         "    h.locked = 1\n",
    ),
    "an unmap that clears no bit": (
         "    if s.cfg[0].track != TRACK_FOLIO or s.mm[k.page].order == 0:\n"
         "        clear_arch(s, k.i)\n",
         "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CAUGHT)
def test_a_broken_rule_differs(program, name):
    rules = SimpleNamespace(**functions(lambda function: function, dict([CAUGHT[name]])))
    alone = [one.name for one in program.made.operations]
    assert any(explain(pair) is None for pair in compare(program, rules, find("linux-6.12"), alone)), name


def test_a_rule_that_is_wrong_only_beside_another_thread_has_ends_that_the_c_has_not(program):
    changed = {"    if s.mm[head(s, k.page)].backing == ANON and pinned(s, k.page):\n": "    if False:\n"}
    rules, wrong = (SimpleNamespace(**functions(lambda function: function, change)) for change in (None, changed))
    alone = [one.name for one in program.made.operations]
    assert all(explain(pair) is not None for pair in compare(program, wrong, find("linux-6.12"), alone, False))
    start = NAMED["shared-anon"]
    right, found = (together(program, Ruled(r, find("linux-6.12")), start, ("pin", "reclaim")) for r in (rules, wrong))
    assert len(found.unreached) > len(right.unreached)


AT_ONCE = {
    "fault-is-a-step": (
        ("import", "import"), Start(present=UNMAPPED), "    set_arch(s, s.task[t].page)\n", "",
    ),
    "lock-before-test": (
        ("import", "writeback"), Start(writeback=WRITING),
        "    if s.mm[head(s, s.task[t].page)].writeback != NO_WRITEBACK:\n        return W_WRITEBACK\n", "",
    ),
    "skip-needs-two-tables": (
        ("pin", "pin"), Start(arch=1, refuses=1), *CAUGHT["a pin that is not made accessible"],
    ),
    "late-is-told-later": (
        ("import", "reclaim"), Start(refuses=1), "    set_arch(s, s.task[t].page)\n", "",
    ),
    "put-after-unlock": (("import", "import"), Start(order=1), "    if m.refs > k.ref:\n", "    if True:\n"),
}  # fmt: skip
"""For each reason a system that needs it, and a broken rule that it must not cover there."""


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_reason_at_once_is_needed_and_covers_no_broken_rule(program, name):
    operations, start, old, new = AT_ONCE[name]
    assert unexplained(program, operations, start, {}) == []
    assert unexplained(program, operations, start, {}, without=name)
    assert unexplained(program, operations, start, {old: new})


def unexplained(program, operations, start, changed, without=""):
    """The ends of the C that the rules lack, and that no reason but `without` explains."""
    rules = SimpleNamespace(**functions(lambda function: function, changed))
    ruled, fixed = (Ruled(rules, find(name)) for name in ("linux-6.12", "linux-6.12+d16a74f0f266"))
    found = together(program, ruled, start, operations)
    others = [reason for reason in AT_ONCE_REASONS if reason.name != without]
    return [end for end in found.missing if not any(reason.holds(found, end, ruled, fixed) for reason in others)]


def test_every_reason_at_once_has_a_system():
    assert [reason.name for reason in AT_ONCE_REASONS] == list(AT_ONCE)


def test_an_end_that_the_c_cannot_have_is_named_by_what_differs():
    one, other = Start(), Start(arch=1, locked=1)
    a, b = (build(start, find("per-page"), [Doing("import", 0)]).key("uv", "mm", "pt", "io") for start in (one, other))
    assert differences(a, b) == ["arch of page 0 is 0, in the C 1", "locked of page 0 is 0, in the C 1"]
    assert differences(without(a, "locked", "arch"), without(b, "locked", "arch")) == []


@pytest.mark.skipif(not (TREES[1] / "mm/gup.c").is_file(), reason="no linux-source-6.12 here")
def test_three_at_once_from_a_named_start():
    found = judge(Tree(str(TREES[1])), whole=False, three=["exported"], able=("import", "pin"))
    assert found.at_once == (3 * 8 + 4, 8) and found.missing == []


def test_what_is_beyond_the_limit_is_not_judged(program, monkeypatch):
    monkeypatch.setattr("ultrafolio.judge.concurrent.MOST_NODES", 20)
    found = judge(Tree(str(TREES[1])), whole=False, able=("import",))
    assert set(found.not_judged) == {f"import and import from {start}" for start in NAMED.values()} and found.code == 3


@pytest.mark.slow
@trees
def test_two_at_once_from_every_start(tree):
    found = judge(Tree(str(tree)), whole=False, every=True)
    assert found.missing == [] and found.at_once[0] > 8_000


@pytest.mark.skipif(not (TREES[1] / "mm/gup.c").is_file(), reason="no linux-source-6.12 here")
def test_rules_without_an_end_of_the_c_are_told():
    changed = dict([CAUGHT["a refused unshare is fatal"]])
    found = judge(Tree(str(TREES[1])), whole=False, able=["unshare"], changed=changed)
    assert any(text.startswith("unshare and unshare from plain") for text in found.missing) and not found.agrees


@trees
def test_the_table_of_places_is_right_for_the_trees_at_hand(tree):
    made = Tree(str(tree))
    seen = 0
    for _, versions, path, names in STANDS:
        first, last = versions.split("-")
        if not order(first) <= order(made.base) <= order(last):
            continue
        found = re.findall(r"[a-z0-9_]+_[a-z0-9_]+", names)
        assert any(made.function(path, name) for name in found), (path, names)
        seen += 1
    assert seen >= 8


def test_the_broken_rules_are_those_of_the_other_tests():
    known = {old for changes, _ in MUTANTS.values() for old in changes}
    assert sum(1 for old, _ in CAUGHT.values() if old in known) >= 10
