"""Huge pages of guest_memfd: what P.merge decides, and what who splits a fresh folio waits for."""

import pytest

from memfd_cases import system
from plain_graph import explored
from ultrafolio.check.verdicts.verdict import check
from ultrafolio.engine.interp import to_lists
from ultrafolio.model import policies, scenario
from ultrafolio.model.guest_memfd import layout as at
from ultrafolio.waits import tables, telling

HUGE = ("gmem-hugetlb-2025-05", "gmem-hugetlb-2025-12")


@pytest.mark.parametrize("base", HUGE)
def test_under_on_free_no_step_merges_a_folio(base):
    """Of two huge pages, each with a shared page, where all become private; the same steps merge under on-private."""
    memory = {"folios": [1, 1], "state": ["private", "shared", "shared", "private"]}
    document = {"design": "guest_memfd", "memory": memory, "vcpu": [{"touch": [0]}],
                "vmm": [{"page": 0, "pages": 4, "to": "private"}, {"page": 3, "to": "shared"}]}  # fmt: skip
    story = scenario.parse(document, "it")
    rises = {}
    for merge in ("on-private", "on-free"):
        found = explored(scenario.system(story, policies.find_any(f"{base},merge={merge}")))
        orders = [[m.order for m in s.mm] for s in found.states]
        pairs = [(orders[v], orders[e.to]) for v, edges in enumerate(found.edges) for e in edges]
        rises[merge] = sum(after > before for one in pairs for before, after in zip(*one, strict=True))
        assert any(s.mm[p].private for s in found.states for p in (1, 2))
    assert rises["on-private"] and not rises["on-free"]


def test_only_who_splits_a_fresh_folio_waits_for_its_references():
    """Another actor's request at the same huge page waits for those of its own pages."""
    state = to_lists(system("g29-merged-but-not-written", HUGE[1]).state)
    user, vmm = (list(at.KINDS[w.kind] for w in state.who).index(kind) for kind in ("user", "vmm"))
    state.task[user].pc = at.FRESH_SPLIT
    said = [telling.of(state).what_for(state, t, tables.OB_REFS, 0, False) for t in (user, vmm)]
    assert "fresh folio of page 0" in said[0] and "request that begins with page 0" in said[1]


@pytest.mark.parametrize("merge", ["on-private", "on-free"])
def test_a_request_to_private_that_merges_nothing_is_held_by_those_of_its_own_page(merge):
    """Page 1 stays shared, under I/O that never completes; the VMM may end the pin of page 0, which is asked for."""
    refuses = {"base": HUGE[1], "merge": merge, "variants": ["end-before-store", "refuses-a-split"]}
    document = {"design": "guest_memfd", "memory": {"folios": [1], "state": ["shared"]}, "policy": {"it": refuses},
                "pin": [{"page": 0}], "disk": [{"page": 1, "completes": False}],
                "vmm": [{"page": 0, "to": "private", "after": "pin"}]}  # fmt: skip
    story = scenario.parse(document, "it")
    worst = check(story, "it", policies.find_any("it", story.tables), "it").worst
    assert (worst.kind, worst.wait.held_by) == ("vmm-bound", "pin 1's long-term pin on page 0")
