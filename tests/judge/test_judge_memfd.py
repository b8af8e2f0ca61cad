"""The rules of guest_memfd and KVM's own functions, if a tree of 6.12 is present."""

import functools

import pytest

from judged import TREES, made_up
from ultrafolio.errors import InputError
from ultrafolio.judge.build import questions
from ultrafolio.judge.cut import Tree
from ultrafolio.judge.memfd.pieces import MEMFD
from ultrafolio.judge.memfd.reasons import REASONS
from ultrafolio.judge.memfd.starts import starts
from ultrafolio.judge.memfd.verdict import judge
from ultrafolio.judge.memfd.world import World

TREE = TREES[1]
kvm = pytest.mark.skipif(not (TREE / "virt/kvm/guest_memfd.c").is_file(), reason=f"no {TREE.name} with virt/kvm here")


@functools.cache
def judged():
    """What judging the tree finds, once."""
    return judge(Tree(str(TREE)))


@kvm
def test_every_difference_has_a_reason():
    found = judged()
    assert {name: one.unnamed for name, one in found.operated.items() if one.unnamed} == {}
    assert found.operated["hole"].equal >= 90


def test_every_question_has_a_meaning():
    assert len(set(questions(MEMFD))) == len(questions(MEMFD))
    for name in questions(MEMFD):
        assert callable(getattr(World, name)), name


def test_starts_are_distinct():
    assert len(list(starts())) == len(set(starts()))


CAUGHT = {
    "a hole takes no lock": ("hole", "    vm.mutex = t + 1\n", ""),
    "a hole keeps its page": ("hole", "m.zapped, m.users, m.locking, m.allocated = 1, 0, 0, 0",
                              "m.zapped, m.users, m.locking = 1, 0, 0"),
    "a hole invalidates nothing": ("hole", "m.zapped, m.users, m.locking, m.allocated = 1, 0, 0, 0",
                                   "m.users, m.locking, m.allocated = 0, 0, 0"),
    "KVM keeps a page of a hole": ("hole", "        leave(s, p)\n    k.pc = HOLE_END", "    k.pc = HOLE_END"),
    "a hole's invalidation does not end": ("hole", "        s.mm[p].zapped = 0\n", "        pass\n"),
    "a hole keeps the lock": ("hole", "    unlock_alone(s, t)\n    s.task[t].start", "    s.task[t].start"),
}  # fmt: skip


@kvm
@pytest.mark.parametrize("name", CAUGHT)
def test_a_broken_rule_differs(name):
    operation, old, new = CAUGHT[name]
    assert judge(Tree(str(TREE)), changed={old: new}).operated[operation].unnamed, name


@kvm
def test_each_reason_is_used():
    used = {name for one in judged().operated.values() for name in one.reasons}
    assert used == {reason.name for reason in REASONS} == set(judged().shortest)


def test_a_tree_without_guest_memfd_is_refused(tmp_path):
    with pytest.raises(InputError, match="guest_memfd the judge has no pieces of"):
        judge(Tree(made_up(tmp_path)))
