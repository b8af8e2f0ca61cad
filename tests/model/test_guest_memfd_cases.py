"""What each case of a conversion of guest_memfd must do, G1 to G50 by number."""

import pytest

from memfd_cases import system
from memfd_graphs import attributes, broken_properties, ends, graph, outcomes, steps
from plain_graph import explored
from ultrafolio.engine.load import mutant
from ultrafolio.errors import InputError
from ultrafolio.model import policies, scenario
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd import layout as at

HUGE = ("gmem-hugetlb-2025-05", "gmem-hugetlb-2025-12")


def test_g1_a_private_page_is_sigbus_for_the_host():
    found = graph("g01-to-private")
    assert outcomes(found, at.USER_LOOKUP) == {at.E_SIGBUS} and outcomes(found, at.CONVERT_END) == {at.SUCCESS}
    assert any(s.pt[0].present == at.MAPPED_PRIVATE and s.mm[0].private for s in found.states), "the guest reads it"


def test_g2_a_shared_page_may_be_touched():
    found = graph("g02-to-shared")
    assert outcomes(found, at.USER_LOOKUP) == {at.OK} and outcomes(found, at.CONVERT_END) == {at.SUCCESS}


def test_g3_nothing_is_done_where_nothing_is_to_do():
    found = graph("g03-nothing-to-do")
    assert outcomes(found, at.CONVERT_TEST) == {at.SUCCESS}
    assert not outcomes(found, at.CONVERT_UNMAP, at.CONVERT_ZAP, at.CONVERT_STORE, at.FAULT_SNAPSHOT)


def test_g4_a_pinned_page_refuses_the_whole_request_by_name():
    refusals = [
        (edge, after) for _, edge, after in steps(graph("g04-one-of-four-pinned")) if edge.outcome == at.E_AGAIN
    ]
    assert refusals and all(after.task[edge.actor].failed == 2 + 1 for edge, after in refusals)
    assert all(attributes(after) == [0, 0, 0, 0] for _, after in refusals)


def test_g5_each_page_alone_is_refused_only_where_it_is_pinned():
    found = graph("g05-each-alone", "asks-once")
    pinned = [s for s in ends(found) if s.mm[1].longs and all(s.actor[t].budget == 0 for t in range(1, 4))]
    assert pinned and all(attributes(s) == [1, 0, 1] for s in pinned)


def test_g6_a_mixed_range_is_legal():
    found = graph("g06-mixed-range")
    assert at.SUCCESS in outcomes(found, at.CONVERT_END)
    assert any(attributes(s) == [1, 1, 1] for s in ends(found))


def test_g7_and_g8_one_request_drains_what_it_must():
    own, other = graph("g07-own-batch", "asks-once"), graph("g08-other-batch", "asks-once")
    for found in (own, other):
        assert not outcomes(found, at.VMM_RETRY), "never refused"
    assert outcomes(own, at.CONVERT_DRAIN_OWN) and not outcomes(own, at.CONVERT_DRAIN_ALL)
    assert outcomes(other, at.CONVERT_DRAIN_OWN) and outcomes(other, at.CONVERT_DRAIN_ALL)


def test_g10_a_pin_is_refused_without_a_drain():
    pinned = [edge for before, edge, _ in steps(graph("g10-pinned-and-batched")) if before.mm[0].longs]
    assert any(edge.outcome == at.E_AGAIN for edge in pinned)
    assert not [edge for edge in pinned if edge.pc in (at.CONVERT_DRAIN_OWN, at.CONVERT_DRAIN_ALL)]


def test_g11_both_processes_are_unmapped():
    found = graph("g11-two-processes")
    unmapped = [(before, after) for before, edge, after in steps(found) if edge.pc == at.CONVERT_UNMAP]
    assert any(before.mm[0].users == 0b11 for before, _ in unmapped)
    assert all(after.mm[0].users == 0 for _, after in unmapped)
    assert {edge.actor for _, edge, _ in steps(found) if edge.outcome == at.E_SIGBUS} == {0, 1}


def test_g12_an_entry_is_never_set_for_a_private_page():
    found = graph("g12-fault-in-flight")
    entered = [after for _, edge, after in steps(found) if edge.pc == at.USER_MAP]
    assert entered and not any(after.mm[0].private for after in entered)
    drained = [before for before, edge, _ in steps(found) if edge.outcome == at.E_AGAIN and edge.pc == at.CONVERT_COUNT]
    assert drained and all(before.task[0].drained == 2 for before in drained), "refused after a drain of all CPUs"


def test_g13_gup_backs_off_or_the_conversion_is_refused():
    found = graph("g13-gup-fast")
    assert outcomes(found, at.GUP_RECHECK) == {at.OK, at.E_RETRY} and at.E_AGAIN in outcomes(found, at.CONVERT_PINNED)
    assert not any(s.mm[0].private and s.mm[0].granted for s in found.states)


def test_g14_a_later_allocation_obeys_the_attribute():
    found = graph("g14-not-allocated")
    assert any(not before.mm[0].allocated for before, edge, _ in steps(found) if edge.pc == at.CONVERT_STORE)
    assert outcomes(found, at.USER_LOOKUP) == {at.E_SIGBUS}


def test_g15_a_hole_leaves_the_attribute():
    found = graph("g15-hole")
    assert outcomes(found, at.HOLE_END) == {at.DONE} and all(attributes(s) == [1] for s in found.states)
    freed = [after for _, edge, after in steps(found) if edge.pc == at.HOLE_PUNCH]
    assert freed and not any(s.mm[0].allocated or s.mm[0].users or s.pt[0].present for s in freed)
    assert outcomes(found, at.USER_LOOKUP) == {at.E_SIGBUS}, "the new page is as private as the old one"
    assert at.E_RETRY in outcomes(found, at.FAULT_MAP) and not mapped_and_freed(found)


def mapped_and_freed(found):
    """The states in which KVM maps a page that the file does not have."""
    return [s for s in found.states if any(s.pt[p].present and not m.allocated for p, m in enumerate(s.mm))]


def test_a_hole_that_is_no_invalidation_lets_a_fault_map_the_freed_page():
    punched = {"m.zapped, m.allocated = 1 - s.cfg[0].quiet_hole, 0": "m.allocated = 0"}
    ended = {"    s.vm[s.who[t].vm].fresh = 0\n": ""}
    for changed in (punched, ended):
        assert mapped_and_freed(explored(system("g15-hole", "gmem-7.4"), mutant(changed, GUEST_MEMFD)))


@pytest.mark.parametrize("beside", [{"pin": [{"page": 0}]}, {"user": [{"page": [0], "locked": True}]}])
def test_a_hole_beside_what_may_keep_a_page_is_refused(beside):
    """A page of a locked mapping enters a batch as it is unmapped: a hole would wait for it for ever, with the lock."""
    document = {"design": "guest_memfd", "memory": {"folios": [0]}, "hole": [{"page": 0}], **beside}
    with pytest.raises(InputError, match="may keep a page"):
        scenario.system(scenario.parse(document, "test"), policies.find_any("gmem-7.4"))


def test_g32_a_fault_starts_again_after_an_invalidation():
    found = graph("g32-fault-races")
    assert outcomes(found, at.FAULT_MAP) == {at.OK, at.E_RETRY}
    assert at.E_EXIT in outcomes(found, at.FAULT_ATTRIBUTE)


def test_g30_and_g31_a_vmm_that_only_lets_go_on_exits_for_ever_and_one_that_converts_does_not():
    for name in ("g30-access-of-the-other-kind", "g31-access-through-the-shared-alias"):
        for policy, ended in (("gmem-7.4", False), ("converts", True)):
            done = [s for s in graph(name, policy).states if s.actor[1].budget == 0 and s.task[1].pc == at.VMM_IDLE]
            runs = [s for s in done if s.task[0].pc == at.RUN and s.pt[0].present]
            assert done and bool(runs) == ended, (name, policy)


def test_g35_an_entry_that_is_no_longer_assigned_is_harmless():
    found = graph("g35-fault-meets-to-shared")
    assert {at.E_RETRY, at.E_EXIT} <= outcomes(found, at.FAULT_MAP, at.FAULT_ATTRIBUTE)
    late = [before for before, edge, _ in steps(found) if edge.pc == at.FAULT_MAP and before.uv[0].state == at.HW_HOST]
    assert late, "the page was taken back while the fault was under way"
    assert not outcomes(found, *range(at.DEAD)) & {at.E_OOPS, at.E_LEAKED}


def test_g37_vcpus_leave_the_guest_and_the_removal_succeeds():
    busy = [edge for before, edge, _ in steps(graph("g37-removal-while-a-vcpu-is-in-the-guest"))
            if edge.pc == at.CONVERT_ZAP and before.task[0].pc == at.AGAIN]  # fmt: skip
    assert busy and {edge.outcome for edge in busy} == {at.OK}
    assert broken_properties("g37-removal-while-a-vcpu-is-in-the-guest", policy="no-kick") == {9}


def test_g38_a_page_that_the_machine_keeps():
    """As queued the answer is 0, and a process maps the page; kept, the request is refused, and nobody maps it."""
    ignored, kept = graph("g38-removal-fails"), graph("g38-removal-fails", "keeps-it")
    assert outcomes(ignored, at.CONVERT_END) == {at.SUCCESS} and at.E_CHECK in outcomes(ignored, at.USER_MAP)
    assert at.E_LEAKED in outcomes(graph("g38-removal-fails", "keeps-it", "snp"), at.CONVERT_STORE)
    assert outcomes(kept, at.CONVERT_ZAP) == {at.E_DEAD} and not outcomes(kept, at.CONVERT_STORE)
    assert outcomes(kept, at.USER_LOOKUP) == {at.E_SIGBUS} and all(attributes(s) == [1] for s in kept.states)
    for machine, outcome in (("snp", at.E_REFAULT), ("cca", at.E_SIGBUS)):
        assert outcome in outcomes(graph("g38-removal-fails", machine=machine), at.USER_MAP)


def test_g40_and_g41_the_second_of_two_vcpus_faults_again():
    for machine in ("tdx", "cca"):
        found = graph("g40-two-vcpus-map-one-page", machine=machine)
        late = [before for before, e, _ in steps(found) if e.pc == at.FAULT_MAP and before.pt[0].present]
        assert late and at.DONE in outcomes(found, at.AGAIN)


def test_g42_a_granule_that_is_never_delegated_faults_without_end():
    assert outcomes(graph("g42-never-delegated"), at.FAULT_MAP) == {at.E_BUSY}


def test_g44_a_granule_that_is_kept_is_leaked_and_not_freed():
    found = graph("g44-undelegate-refuses")
    assert at.E_LEAKED in outcomes(found, at.HOLE_PUNCH)
    assert broken_properties("g44-undelegate-refuses", policy="frees-it") == {8}


def test_g45_the_host_touches_a_page_of_a_realm():
    found = graph("g45-host-touches-a-delegated-page")
    assert outcomes(found, at.ACCESS_IDLE) == {at.E_FAULTED, at.E_OOPS}
    assert outcomes(found, at.USER_LOOKUP) == {at.E_SIGBUS}
    assert outcomes(graph("g45-host-touches-a-delegated-page", machine="tdx"), at.ACCESS_IDLE) == {at.E_CHECK}


def test_g49_the_machine_is_told_before_a_page_is_freed():
    freed = [after for _, edge, after in steps(graph("g49-private-page-freed")) if edge.pc == at.HOLE_PUNCH]
    assert freed and all(s.uv[0].state == at.HW_HOST and not s.mm[0].allocated for s in freed)
    assert broken_properties("g49-private-page-freed", policy="frees-it") == {8}


def test_g17_a_split_waits_for_the_references_of_mappings_for_ever():
    found = graph("g17-one-reference-per-mapping", "reference-per-mapping")
    assert any(pc == at.CONVERT_RESTRUCTURE and out == at.W_REFS for r in found.refused for pc, out in r.values())
    assert not outcomes(found, at.CONVERT_RESTRUCTURE)


def test_g18_and_g20_the_kernel_spins_until_a_walker_is_done():
    for name in ("g18-walker-meets-a-split", "g20-merge-meets-a-walker"):
        for policy in HUGE:
            found = graph(name, policy)
            assert any(out == at.W_REFS for r in found.refused for _, out in r.values())
            assert at.SUCCESS in outcomes(found, at.CONVERT_END, at.CONVERT_STORE)
    merged = graph("g20-merge-meets-a-walker", HUGE[1])
    assert {m.order for s in ends(merged) if s.mm[1].private for m in s.mm} == {1}


def test_g19_a_pinned_neighbour_is_no_obstacle_and_nothing_is_merged():
    found = graph("g19-pinned-neighbour", HUGE[1])
    assert at.E_AGAIN not in outcomes(found, at.CONVERT_PINNED, at.CONVERT_COUNT)
    assert any(attributes(s) == [0, 1] for s in ends(found)) and all(not m.order for s in found.states for m in s.mm)


def test_g21_and_g33_the_rest_of_a_huge_page_stays_accepted():
    for machine in ("tdx", "snp", "cca"):
        found = graph("g21-part-of-a-huge-page", HUGE[1], machine)
        done = [s for s in found.states if attributes(s) == [1, 0]]
        assert done and all(s.uv[0].state == at.HW_PRIVATE and not s.uv[0].lost and not s.uv[0].large for s in done)
    assert broken_properties("g21-part-of-a-huge-page", policy=HUGE[0]) == {7}, "unmapped whole"


def test_g22_and_g23_an_entry_is_split_before_anything_is_lost_and_a_folio_after():
    early = graph("g22-no-memory-for-the-entry", HUGE[1])
    assert at.E_NOMEM in outcomes(early, at.CONVERT_ZAP) and at.SUCCESS in outcomes(early, at.CONVERT_STORE)
    assert not broken_properties("g22-no-memory-for-the-entry", policy=HUGE[1])
    late = graph("g23-no-memory-for-the-folio", HUGE[1])
    assert at.E_NOMEM in outcomes(late, at.CONVERT_RESTRUCTURE)
    assert 7 in broken_properties("g23-no-memory-for-the-folio", policy=HUGE[1])


def test_g24_one_huge_page_at_a_time_leaves_the_first_converted():
    whole, pieces = (graph("g24-second-huge-page-pinned", policy) for policy in HUGE)
    refused = [[s for _, e, s in steps(found) if e.outcome == at.E_AGAIN] for found in (whole, pieces)]
    assert {tuple(attributes(s)) for s in refused[0]} == {(0, 0, 0, 0)}
    assert {tuple(attributes(s)) for s in refused[1]} == {(1, 1, 0, 0)}
    assert all(s.task[1].failed - 1 in (2, 3) for some in refused for s in some)


def test_g25_the_rollback_of_the_first_huge_page_never_ends():
    found = graph("g25-rollback-in-the-first-huge-page", HUGE[0])
    stuck = [v for v, s in enumerate(found.states) if s.task[1].pc == at.CONVERT_ROLLBACK]
    assert stuck and all(found.refused[v][1] == (at.CONVERT_ROLLBACK, at.W_TABLE) for v in stuck)
    later = graph("g23-no-memory-for-the-folio", HUGE[0])
    assert at.E_NOMEM in outcomes(later, at.CONVERT_RESTRUCTURE), "a later piece is rolled back"


def test_a_split_that_is_refused_ends_with_eagain_and_gives_the_lock_back():
    """Of a pfn walker the kernel waits in the split; refused, nobody waits there, and the page is shared in the end."""
    name, at_split = "g18-walker-meets-a-split", (at.CONVERT_RESTRUCTURE, at.W_REFS)
    spun, refused = graph(name, HUGE[1]), graph(name, "refuses-a-split")
    waits = [any(at_split in some.values() for some in found.refused) for found in (spun, refused)]
    assert waits == [True, False]
    assert outcomes(refused, at.CONVERT_RESTRUCTURE) == {at.OK, at.E_AGAIN}
    assert outcomes(spun, at.CONVERT_RESTRUCTURE) == {at.OK}
    assert any(not s.mm[1].private and s.task[1].pc == at.VMM_IDLE for s in refused.states)
    assert broken_properties("g17-one-reference-per-mapping", policy="refuses-a-split") == {7}
    assert broken_properties("g20-merge-meets-a-walker", policy="refuses-a-split") == {2}


def test_g27_one_of_two_allocates():
    found = graph("g27-two-allocate-one-huge-page", HUGE[1])
    assert outcomes(found, at.FAULT_LOOKUP) == {at.OK} and any(s.pt[0].large for s in found.states)
    assert broken_properties("g27-two-allocate-one-huge-page", policy="double-allocation") == {12}


def test_g27_a_fresh_folio_is_locked_then_split():
    """Only without a wake-up does a thread sleep while nobody is to unlock the folio; each split comes in the end."""
    lost, woken = (graph("g27-fresh-folio-is-split", policy) for policy in (HUGE[0], "with-a-wake-up"))
    for found in (lost, woken):
        assert {s.mm[0].order for s in found.states if s.mm[0].allocated == at.THERE} == {0, 1}
        assert {s.mm[0].order for s in found.states if s.mm[0].allocated in (0, at.LOCKED, at.UNWOKEN)} == {1}
        assert any(s.task[0].pc == at.FRESH_SPLIT and s.task[2].pc == at.PUT for s in found.states), "a walker meets it"
    for found, forgotten in ((lost, True), (woken, False)):
        unwoken = [v for v, s in enumerate(found.states) if s.mm[0].allocated == at.UNWOKEN]
        asleep = {out for v in unwoken for _, out in found.refused[v].values()}
        assert (at.W_MUTEX in asleep) == forgotten


def test_g27_a_process_that_finds_a_huge_folio_gets_sigbus_at_a_shared_page():
    found = graph("g27-process-finds-a-huge-folio", "with-a-wake-up")
    assert all(not s.mm[0].private for s in found.states)
    assert outcomes(found, at.USER_LOOKUP) == {at.OK, at.DONE, at.E_SIGBUS}
    single = graph("g27-process-finds-a-huge-folio", "gmem-7.4")
    assert outcomes(single, at.USER_LOOKUP) == {at.OK}


def double_allocation(**actors):
    """Returns the graph of actors on a huge page that is not allocated, its first page shared, under the variant
    double-allocation."""
    memory = {"folios": [1], "state": ["shared", "private"], "allocated": False}
    table = {"twice": {"base": HUGE[1], "variants": ["end-before-store", "double-allocation"]}}
    story = scenario.parse({"design": "guest_memfd", "memory": memory, "policy": table, **actors}, "it")
    return explored(scenario.system(story, policies.find_any("twice", story.tables)))


def test_a_fault_that_nobody_meets_allocates_once_under_double_allocation():
    assert outcomes(double_allocation(vcpu=[{"touch": [0]}]), at.FAULT_LOOKUP) == {at.OK, at.DONE}


def test_a_process_that_allocates_a_second_folio_is_told_so_and_not_sigbus():
    found = double_allocation(vcpu=[{"touch": [1]}], user=[{"page": [0]}])
    assert at.E_TWICE in {e.outcome for v, e, a in steps(found) if e.pc == at.USER_LOOKUP and a.mm[0].order}


def test_the_metadata_of_a_huge_page_stays_while_one_page_of_it_is_in_use():
    assert broken_properties("two-users-of-one-pamt", policy="pamt-race") == {9}
    assert not broken_properties("two-users-of-one-pamt")


def test_g29_a_part_that_was_never_written():
    assert broken_properties("g29-merged-but-not-written", policy="up-to-date-as-a-whole") == {11}
    assert not broken_properties("g29-merged-but-not-written", policy=HUGE[1])


def test_g39_a_guest_that_accepts_less_makes_kvm_split():
    found = graph("g39-guest-accepts-less", HUGE[1])
    assert any(s.pt[0].present and not s.pt[0].large and s.uv[0].state == at.HW_PRIVATE for s in found.states)
    ignored = graph("g39-guest-accepts-less", "ignores-the-level")
    assert not any(u.state == at.HW_PRIVATE for s in ignored.states for u in s.uv)


def test_g43_a_page_stays_mapped_without_memory_for_a_table():
    assert broken_properties("g43-no-memory-for-a-table", policy=HUGE[1]) >= {4}
    assert not broken_properties("g43-no-memory-for-a-table")


def test_g46_to_g48_a_pkvm_guest_and_its_host():
    found = graph("g46-unshare-under-dma", "pkvm")
    assert any(s.uv[0].state == at.HW_PRIVATE and s.io[0].dma for s in found.states), "nobody was asked"
    taken = graph("g47-kernel-takes-a-page", "pkvm")
    assert outcomes(taken, at.ACCESS_IDLE) == {at.E_STOLEN, at.DONE}, "taken; or shared in the meantime"
    assert at.E_POISONED in outcomes(taken, at.RUN)


def test_the_error_of_a_piece_can_lie_before_the_request():
    assert broken_properties("error-before-the-request", policy=HUGE[1]) == {2}
    assert not broken_properties("error-before-the-request", policy=HUGE[0])


def test_a_page_that_is_private_already_is_unmapped_with_its_piece():
    assert broken_properties("zapped-though-private", policy=HUGE[1]) == {7}
    assert not broken_properties("zapped-though-private", policy=HUGE[0])


def test_one_hook_for_a_free_and_a_conversion_destroys_the_content():
    assert broken_properties("one-hook-for-two-ends", policy="one-hook") == {7}
    assert not broken_properties("one-hook-for-two-ends")


def test_a_page_in_a_pipe_costs_a_drain_of_all_cpus_at_each_refusal():
    found = graph("page-in-a-pipe")
    refused = [before for before, edge, _ in steps(found) if edge.outcome == at.E_AGAIN and before.mm[0].granted]
    assert refused and all(s.task[0].drained == 2 for s in refused)


def test_two_backings_refuse_nothing_and_the_host_keeps_its_own_frame():
    found = graph("g16-vfio-pin", "gmem-two-backings")
    assert at.E_AGAIN not in {edge.outcome for edges in found.edges for edge in edges}
    assert any(s.mm[0].private and s.mm[0].granted for s in found.states)


def test_g36_kvms_own_reference_refuses_nothing_where_it_is_dropped():
    assert not outcomes(graph("g36-kvms-own-reference"), at.VMM_RETRY)
    assert outcomes(graph("g36-kvms-own-reference", "gmem-no-drain"), at.VMM_RETRY)


def test_g50_a_refusal_leaves_the_range_unmapped():
    refused = [after for _, edge, after in steps(graph("g50-unmapped-by-a-refusal")) if edge.outcome == at.E_AGAIN]
    assert any(not after.mm[0].users for after in refused) and not any(after.mm[0].private for after in refused)
    found = graph("g50-unmapped-by-a-refusal")
    assert any(e.pc == at.USER_MAP and before.actor[2].budget == 0 for before, e, _ in steps(found)), "faulted in again"
