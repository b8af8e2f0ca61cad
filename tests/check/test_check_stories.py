"""The stories of the checker: certified step by step, refused after a change; and the findings of the scenarios."""

import pytest

from checking import PATHS, checked, finding, graph, story, system
from ultrafolio.check.verdicts.replay import NotCertified, certify_lasso, certify_violation, replay
from ultrafolio.model.layout import IMPORT_MUTEX, OUTCOMES, WAIT_WRITEBACK

PAIRS = [(name, policy) for name in PATHS for policy in story(name).expect]


def steps_of(finding):
    return [step.by for step in finding.steps], [step.by for step in finding.cycle]


@pytest.mark.parametrize(("name", "policy"), PAIRS)
def test_every_story_can_be_replayed_from_its_numbers(name, policy):
    made = system(name, policy)
    for number, told in enumerate(checked(name, policy).findings, 1):
        stem, cycle = steps_of(told)
        if told.kind == "safety":
            certify_violation(made, stem, number)
        elif told.kind in ("permanent", "livelock", "fatal"):
            assert told.wait.waiter.split()[1] == str(told.actor)
            certify_lasso(made, stem, cycle, told.actor)
        elif told.kind:
            replay(made, stem)


def test_a_violation_is_refused_when_it_is_not_one():
    made = system("11-posted-loops", "whole-folio-literal")
    stem, _ = steps_of(checked("11-posted-loops", "whole-folio-literal").findings[2])
    certify_violation(made, stem, 3)
    for path in (stem[:-1], [], stem[1:], [*stem[:-1], stem[-1] + (9 << 16)]):
        with pytest.raises(NotCertified):
            certify_violation(made, path, 3)
    for by, said in ((-1, "no actor -1"), (9 << 16, "no actor 9"), (stem[0] + 7, "has no choice 7 there")):
        with pytest.raises(NotCertified, match=said):
            replay(made, [by])
    with pytest.raises(NotCertified, match="does not break property 4"):
        certify_violation(made, stem, 4)
    with pytest.raises(NotCertified, match="property 3"):
        certify_violation(system("11-posted-loops", "whole-folio"), stem, 3)


def test_a_lasso_that_cannot_be_replayed_is_refused():
    made = system("03-virtio", "whole-folio")
    stem, cycle = steps_of(checked("03-virtio", "whole-folio").worst)
    certify_lasso(made, stem, cycle, 0)
    with pytest.raises(NotCertified, match="does not close"):
        certify_lasso(made, stem, cycle[:-1], 0)
    with pytest.raises(NotCertified, match="waits for"):
        certify_lasso(made, [*stem, 1 << 16], cycle, 0)
    with pytest.raises(NotCertified, match="actor 1 does not wait"):
        certify_lasso(made, stem, cycle, 1)
    with pytest.raises(NotCertified, match="fair steps are enabled"):
        certify_lasso(made, stem, [], 0)
    with pytest.raises(NotCertified):
        certify_lasso(system("03-virtio", "per-page"), stem, cycle, 0)


def test_a_cycle_that_starves_a_fair_step_is_refused():
    made, told = system("01-direct-io", "whole-folio"), finding(checked("01-direct-io", "whole-folio"), "touch")
    assert told.kind == "transient"
    path, seen = [step.by for step in told.steps], {}
    for _ in range(40):  # only the waiter steps, until it is in its first state again
        here = replay(made, path)[0][-1].after
        if here in seen:
            break
        seen[here] = len(path)
        path.append(0)
    with pytest.raises(NotCertified, match="not fair to"):
        certify_lasso(made, path[: seen[here]], path[seen[here] :], 0)


def test_resting_for_ever_is_told_without_a_cycle():
    told = checked("36-patience", "sleeps").worst
    assert told.kind == "permanent" and told.cycle == []
    assert checked("36-patience", "whole-folio").worst.cycle, "the kernel never sleeps on it"


def test_two_vcpus_livelock_without_any_background_writeback():
    told = checked("18-iomap-two-vcpus", "split-writeback").worst
    assert told.kind == "livelock" and {step.actor for step in told.cycle} == {0, 1}
    assert OUTCOMES.index("EBUSY (dirty)") in {step.outcome for step in told.cycle}
    assert {step.rule for step in told.cycle} >= {"split", "writeback-flag", "import-map"}
    assert checked("18-iomap-two-vcpus", "import-lock").worst.kind == "livelock", "a write fault takes no import mutex"


def test_the_import_mutex_is_held_over_a_writeback():
    explored = graph("31-import-mutex-writeback", "import-lock")
    tasks = [explored.unpack(number).task["pc"].tolist() for number in range(explored.states)]
    assert any(pcs[0] == WAIT_WRITEBACK and pcs[1] == IMPORT_MUTEX for pcs in tasks)
    told = finding(checked("31-import-mutex-writeback", "import-lock"), "touch")
    assert (told.kind, told.wait.waits_for) == ("transient", "the VM's import mutex")


def test_the_own_drain_comes_first_and_suffices_for_the_own_cpu():
    own, other = (checked(name, "per-page").fired for name in ("28-lru-own-cpu", "29-lru-other-cpu"))
    assert own["drain-own"] and not own["drain-all"]
    assert other["drain-own"] and other["drain-all"]
    told = checked("29-lru-other-cpu", "never-drains").worst
    assert (told.kind, told.wait.released_by) == ("permanent", "a drain, which this policy does not do")


def test_an_export_goes_first_unless_ownership_can_be_transferred():
    for name, exported in (("23-foreign-page", True), ("24-foreign-page-transfer", False)):
        for policy in ("per-page", "split", "import-lock"):
            assert bool(checked(name, policy).fired["import-export"]) == exported


def test_the_ring_in_a_folio_of_private_pages_is_what_hangs():
    aligned = checked("32-bounce-pool-aligned", "whole-folio")
    unaligned = checked("33-bounce-pool-unaligned", "whole-folio")
    assert (aligned.verdict, aligned.worst.kind) == ("holds", None)
    assert unaligned.worst.wait.waiter == "vcpu 0 (touch page 0)"
    assert unaligned.worst.wait.held_by == "virtio 2's long-term pin on page 1, another page of the folio"


def test_one_writeback_turns_the_bitmap_into_a_hang_and_counting_per_page_does_not():
    told = checked("12-bitmap-writeback", "folio-bitmap").worst
    assert told.kind == "permanent" and "another page of the folio" in told.wait.held_by
    assert checked("12-bitmap-writeback", "folio-bitmap-pins").worst.kind == "transient"


def test_a_refused_import_is_told_as_fatal():
    pairs = ("34-tampered-page", "per-page"), ("14-first-import", "refuse-large"), ("36-patience", "gives-up")
    for name, policy in pairs:
        told = checked(name, policy).worst
        assert told.kind == "fatal" and "VMM was told" in told.wait.waits_for


def test_no_policy_serves_a_page_whose_content_was_changed():
    for policy in story("34-tampered-page").expect:
        assert finding(checked("34-tampered-page", policy), "an import yields").verdict == "holds"
