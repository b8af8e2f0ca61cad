"""The rules of guest_memfd and a kernel: the running one where it has /dev/kvm, and ones that answer wrongly."""

import json
import os
import platform
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

import rules_memfd
from fake_memfd import MUTANTS, FakeKernel
from ultrafolio.calibrate import child, kvm, measures, memfd_page, memfd_rows, probes, profile
from ultrafolio.calibrate.memfd import Running
from ultrafolio.calibrate.sample import NotPossible
from ultrafolio.cli import cli, main
from ultrafolio.engine.load import mutant
from ultrafolio.model import designs

ROOT = Path(__file__).parents[2]
RULES = {rule.name for rule in designs.GUEST_MEMFD.rules.values()}
CASES = {f"G{number}" for number in (*range(1, 9), *range(10, 17))}
NAMES = {probe.__name__ for _, _, _, probe in memfd_rows.ROWS}


@pytest.fixture(scope="module")
def running():
    try:
        return Running()
    except NotPossible as error:
        pytest.skip(f"the running kernel: {error}")


@pytest.fixture(scope="module")
def found(running):
    return memfd_rows.findings(running)


def test_rows_name_rules_that_exist_and_every_case_that_a_vmm_can_drive():
    told = {name for _, rules, _, _ in memfd_rows.ROWS for name in rules}
    assert told <= RULES and {case for case, _, _, _ in memfd_rows.ROWS if case} == CASES
    assert len(NAMES) == len(memfd_rows.ROWS)


def test_every_rule_has_a_result():
    assert set(memfd_rows.by_rule(memfd_rows.findings(FakeKernel()))) == RULES


# ------------------------------------------------------------------------------------------- the running kernel
def test_the_running_kernel_does_what_the_rules_say_or_lacks_what_is_named(found):
    assert not [one for one in found if one.verdict == probes.DIFFERS]
    assert all(one.saw for one in found)
    for one in found:
        assert one.verdict != probes.MISSING or one.saw.startswith("missing: KVM_CAP_")


def test_a_kernel_with_mmap_answers_of_touches_pins_and_holes(running, found):
    if running.capability("KVM_CAP_GUEST_MEMFD_FLAGS") & 3 != 3:
        pytest.skip("KVM_CAP_GUEST_MEMFD_FLAGS: no MMAP and INIT_SHARED (Linux 6.18)")
    said = memfd_rows.by_rule(found)
    assert {said[name] for name in ("user-lookup", "user-map", "hole-punch", "hole-end")} == {probes.AGREES}
    assert said["convert-lock"] == probes.AGREES or said["convert-lock"].startswith("missing: ")


def test_what_a_probe_opened_is_closed_and_what_it_started_has_ended(running):
    before = set(os.listdir("/proc/self/fd"))
    memfd_rows._finding(running, *next(row for row in memfd_rows.ROWS if row[3].__name__ == "two_processes"))
    memfd_rows._finding(running, *next(row for row in memfd_rows.ROWS if row[3].__name__ == "shared_touch"))
    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# ------------------------------------------------------------------------------------------- kernels that differ
def test_a_kernel_as_the_rules_have_it_agrees_in_every_row():
    made = memfd_rows.findings(FakeKernel())
    assert [(one.case, one.saw) for one in made if one.says and one.verdict != probes.AGREES] == []


OF_THE_RULES = [row for row in memfd_rows.ROWS if row[0] or row[3].__name__ in ("private_touch", "pin_private")]
"""Rows about what the rules decide: the cases, a private page. The others are about the call that enters the kernel."""


def asked_of_the_rules(row, rules=None):
    return memfd_rows._ask(row[3], rules_memfd.kernel(holes=row[3].__name__.startswith("hole"), rules=rules))


@pytest.mark.parametrize("row", OF_THE_RULES, ids=lambda row: row[3].__name__)
def test_what_a_row_asks_for_is_what_the_rules_do(row):
    verdict, saw = asked_of_the_rules(row)
    assert verdict == probes.AGREES, saw


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ("= page + 1, 0, 0, VMM_RETRY", "= k.start + 1, 0, 0, VMM_RETRY", {"one_pinned"}),
        ("s.cfg[0].drain != DRAIN_ONCE or", "s.cfg[0].drain == DRAIN_ONCE or", {"own_batch", "other_batch"}),
        (
            "m, in_place = s.mm[s.task[t].page + s.task[t].at], s.cfg[0].convert == IN_PLACE",
            "m, in_place = s.mm[s.task[t].page + s.task[t].at], False",
            {"to_private", "two_processes", "pin_private"},
        ),
    ],
)
def test_a_broken_rule_makes_its_rows_differ(old, new, wrong):
    rules = mutant({old: new}, designs.GUEST_MEMFD)
    for row in OF_THE_RULES:
        if row[3].__name__ in wrong:
            assert asked_of_the_rules(row, rules)[0] == probes.DIFFERS, row[0]


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_answer_is_a_difference(name):
    kernel, wrong = MUTANTS[name]
    rows = [row for row in memfd_rows.ROWS if row[3].__name__ in wrong]
    assert len(rows) == len(wrong)
    verdicts = {row[3].__name__: memfd_rows._ask(row[3], kernel())[0] for row in rows}
    assert verdicts == dict.fromkeys(wrong, probes.DIFFERS)


def test_every_probe_has_a_kernel_under_which_it_differs():
    assert {name for _, wrong in MUTANTS.values() for name in wrong} == NAMES


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"KVM_CAP_GUEST_MEMFD": 0}, "missing: KVM_CAP_GUEST_MEMFD is 0"),
        ({"KVM_CAP_GUEST_MEMFD_FLAGS": 0}, "missing: KVM_CAP_GUEST_MEMFD_FLAGS is 0"),
        ({"KVM_CAP_VM_TYPES": 1}, "missing: KVM_CAP_VM_TYPES is 0x1"),
    ],
)
def test_a_capability_that_is_missing_is_named(answers, says):
    row = next(row for row in memfd_rows.ROWS if row[0] == "G4")
    verdict, saw = memfd_rows._ask(row[3], FakeKernel(**answers))
    assert verdict == probes.MISSING and saw.startswith(says)


def test_without_the_call_every_case_of_conversion_is_missing():
    kernel = FakeKernel()
    kernel.file = type("Old", (FakeKernel.file,), {"converts": lambda self: False})
    made = [one for one in memfd_rows.findings(kernel) if one.case and one.case != "G15"]
    assert {one.verdict for one in made} == {probes.MISSING}
    assert all(kvm.CONVERSION in one.saw for one in made)


# ------------------------------------------------------------------------------------------- children
def test_a_probe_that_does_not_answer_is_ended(monkeypatch):
    with pytest.raises(child.TooLong):
        child.apart(partial(time.sleep, 60), limit_s=0.2)
    with pytest.raises(child.Ended, match="SIGBUS"):
        child.apart(partial(signal.raise_signal, signal.SIGBUS))
    assert child.apart(lambda: ["x" * 200_000]) == ["x" * 200_000]
    monkeypatch.setattr(memfd_rows, "LIMIT_S", 0.2)
    monkeypatch.setattr(memfd_rows, "apart", partial(child.apart, limit_s=0.2))
    made = memfd_rows._finding(FakeKernel(), "G1", ("convert-lock",), "it answers", lambda kernel: time.sleep(60))
    assert made.verdict == probes.IMPOSSIBLE and "no answer within 0.2 s" in made.saw


def test_a_mistake_in_a_probe_is_no_answer_of_the_kernel():
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        memfd_rows._finding(FakeKernel(), "", (), "it answers", lambda kernel: 1 // 0)


# ------------------------------------------------------------------------------------------- the command
def printed(*words):
    return CliRunner().invoke(cli, ["calibrate", "--no-costs", *words], catch_exceptions=False)


def test_without_dev_kvm_it_is_skipped_with_the_reason(monkeypatch):
    monkeypatch.setattr(kvm, "DEVICE", "/nowhere/kvm")
    (one,) = memfd_rows.findings()
    assert one.verdict == probes.IMPOSSIBLE and set(one.rules) == RULES
    assert one.saw == "skipped: /nowhere/kvm: No such file or directory"
    made = json.loads(printed("--json").output)
    assert made["guest_memfd"]["capabilities"] == {}
    assert set(made["guest_memfd"]["rules"].values()) == {one.saw}


def test_the_record_has_the_kernel_and_each_rule(monkeypatch):
    monkeypatch.setattr(memfd_rows, "findings", partial(memfd_rows.findings, FakeKernel()))
    made = json.loads(printed("--json").output)
    assert made["guest_memfd"]["release"] == platform.release() and set(made["guest_memfd"]["rules"]) == RULES
    assert {one["case"] for one in made["kernel"]} == {*CASES, ""} and made["costs"] == []
    text = printed().output
    assert f"Linux {platform.release()}" in text and "agrees G4 vmm-start" in text


def test_a_difference_in_guest_memfd_is_exit_code_1(monkeypatch, capsys):
    monkeypatch.setattr(probes, "findings", lambda folder: [])
    for kernel, code in ((FakeKernel(), 0), (MUTANTS["done in part"][0](), 1)):
        with monkeypatch.context() as with_kernel:
            with_kernel.setattr(memfd_rows, "findings", partial(memfd_rows.findings, kernel))
            with pytest.raises(SystemExit) as left:
                main(["calibrate", "--no-costs"])
        assert left.value.code == code
        assert ("differs G4" in capsys.readouterr().out) == bool(code)


def test_nothing_is_measured_without_costs(monkeypatch):
    monkeypatch.setattr(measures, "measures", lambda: 1 // 0)
    assert "measured" not in printed().output


def test_the_page_has_the_rows_of_today():
    """What the kernel of the page did stays; what the rules say is that of today."""
    text = (ROOT / "docs" / "running-kernel.md").read_text()
    fresh = memfd_page.page(memfd_rows.findings(FakeKernel()), {}, profile.machine(), "")
    rows, wanted = (
        [line.split(" | ")[:3] for line in page.partition("## Rows")[2].partition("## Rules")[0].splitlines()]
        for page in (text, fresh)
    )
    assert rows == wanted, "run: ultrafolio calibrate --no-costs --markdown > docs/running-kernel.md"
    assert all(f"| `{name}` |" in text for name in RULES)
