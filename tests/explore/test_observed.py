"""Kernel events against the rules: what an execution shows is accepted, what none shows is refused and told why."""

import json
import random

import pytest

import kernel_traces
import mutations
from checking import PATHS, checked, system
from ultrafolio.check.verdicts.replay import NotCertified, copied, replay, take
from ultrafolio.cli import main
from ultrafolio.conformance.suite import build
from ultrafolio.engine.interp import to_lists
from ultrafolio.explore import observed
from ultrafolio.explore.observed import Event, Search
from ultrafolio.model import layout
from ultrafolio.model.rule import RULES
from ultrafolio.trace import kernel

BASES = ["--page0", f"pfn={kernel_traces.FRAME:#x}", "--page0", "page=0x3d200000"]


def validated(capsys, file, name, policy, *words):
    with pytest.raises(SystemExit) as left:
        main(["trace", "validate", str(file), "--scenario", str(PATHS.get(name, name)), "--policy", policy, *words])
    out = capsys.readouterr()
    return int(left.value.code or 0), out.out, out.err


def path_of(name, policy):
    worst = checked(name, policy).worst
    return [step.by for step in worst.steps], [step.by for step in worst.cycle]


@pytest.fixture
def hang(tmp_path):
    """The mail's hang as a recording, twice around its cycle."""
    path, cycle = path_of("03-virtio", "whole-folio")
    lines = kernel_traces.lines(system("03-virtio", "whole-folio"), path, cycle * 2)
    file = tmp_path / "hang.txt"
    file.write_text(kernel_traces.text(lines))
    return file


def rewritten(file, old, new, count=1):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, count))


# ------------------------------------------------------------------------------------------------------ accepted
def test_a_hang_is_accepted_and_its_wait_told(capsys, hang):
    code, out, _ = validated(capsys, hang, "03-virtio", "whole-folio")
    assert code == 0 and "accepted: 8 events" in out
    assert (
        "in a wait (permanent, waiting): vcpu 0 (touch page 1)" in out and "virtio 1's long-term pin on page 0" in out
    )


def test_the_same_as_json(capsys, hang):
    made = json.loads(validated(capsys, hang, "03-virtio", "whole-folio", "--json")[1])
    assert made["accepted"] and made["shown"] == made["events"] == 8 and made["waits"] and made["refused"] is None


def test_text_of_perf_is_the_same(capsys, hang, tmp_path):
    lines = []
    for line in hang.read_text().splitlines()[2:]:
        head, _, rest = line.partition(": ")
        tid, seconds = head.split("-")[1].split()[0], head.split()[-1]
        event = "page_ref:" + rest if rest.startswith("page_ref") else "kprobes:" + rest
        lines.append(f"CPU 0/KVM {tid} [001] {seconds}: {event}")
    file = tmp_path / "perf.txt"
    file.write_text("\n".join(lines) + "\n")
    assert validated(capsys, file, "03-virtio", "whole-folio")[0] == 0


WALKED = [
    ("03-virtio", "whole-folio"), ("03-virtio", "split"), ("04-writeback", "whole-folio"),
    ("09-split-early-pin", "split"),
    ("18-iomap-two-vcpus", "split-writeback"),
    ("51-reclaim-under-a-pin", "split"), ("01-direct-io", "per-page"),
    ("08-unshare-under-pin", "folio-bitmap"), ("42-pin-meets-freeze", "linux-7.1"), ("07-over-indication", "split"),
]  # fmt: skip


def possible(made, state):
    """Every step that is possible in a state: (the step, the state after it)."""
    for t, choices in enumerate(made.choices):
        for choice in range(max(1, len(choices))):
            after = copied(state)
            try:
                yield take(made, after, t << 16 | choice), after
            except NotCertified:
                continue


def walk(made, draw, most):
    """The steps of a random execution."""
    state, taken = to_lists(made.state), []
    for _ in range(most):
        moves = list(possible(made, state))
        if not moves:
            break
        step, state = draw.choice(moves)
        taken.append(step)
    return taken


@pytest.mark.parametrize(("name", "policy"), WALKED)
def test_every_execution_is_accepted(tmp_path, name, policy):
    """By a table of its own, an execution is written as a kernel would record it."""
    made = system(name, policy)
    for seed in range(2):
        steps = walk(made, random.Random(seed), 40)
        lines = kernel_traces.of_steps(steps)
        file = tmp_path / f"{seed}.txt"
        file.write_text(kernel_traces.text(lines))
        if lines:
            seen = kernel.read(file, [])
            assert search(made, seen).accepted, [(step.rule, step.actor, step.outcome_word) for step in steps]


def search(made, seen):
    first = {"pfn": kernel_traces.FRAME, "page": 0x3D200000}
    events = [Event(one.name, kernel.page_of(one, first), one.tid, one.succeeded, one.text) for one in seen]
    return Search(made, {event.name for event in events}).run(events)


def test_of_the_events_of_a_step_the_optional_ones_may_be_missing():
    """The first may come, and each behind optional ones; none before one that must come."""
    must, may = (observed.Shown(name, 0, 0, None, optional) for name, optional in (("a", False), ("b", True)))
    assert list(observed.first_of((must, may))) == [(must, (may,))]
    assert list(observed.first_of((may, must, may))) == [(may, (must, may)), (must, (may,))]


# ------------------------------------------------------------------------------------------------------- refused
def test_a_policy_that_would_not_do_so_is_refused_at_the_first_event_that_differs(capsys, hang):
    code, out, _ = validated(capsys, hang, "03-virtio", "per-page", *BASES)
    assert code == 1 and "not accepted after 2 of 8 events: line 7: " in out and "uv_pin_shared" in out


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("val=3 ret=0", "val=3 ret=1", "vcpu 0 import-freeze: the rules say EBUSY, the recording shows a success"),
        ("ret=0xffffffea", "ret=0x0", "virtio 1 accessible-pin: the rules say OK, the recording shows a success"),
        ("paddr=0x8001000", "paddr=0x8000000", "the rules say OK of page 1, the recording names page 0"),
    ],
)
def test_a_result_or_a_page_that_no_execution_shows_is_told(capsys, hang, old, new, told):
    rewritten(hang, old, new)
    code, out, _ = validated(capsys, hang, "03-virtio", "whole-folio", *BASES)
    assert code == 1 and told in out


def test_the_guard_that_refuses_is_told():
    """Two vCPUs import under one mutex: while the first holds it, the second cannot freeze."""
    made = build("linux-7.0", [0, 0], ["exported"], vcpu=[{"touch": [0]}, {"touch": [1]}])
    frozen = [Event("page_ref_freeze", page, 7 + page, True, "") for page in (0, 1)]
    answer = Search(made, {"page_ref_freeze", "page_ref_unfreeze"}).run(frozen)
    assert (answer.accepted, answer.shown) == (False, 1)
    assert "vcpu 0 import-end: it shows page_ref_unfreeze first" in answer.why
    assert "vcpu 1 import-mutex: W_MUTEX, waits for the VM's import mutex, where vm.mutex" in answer.why


def test_a_thread_is_one_vcpu(capsys, hang):
    """The import's second freeze of another thread: there is no second vCPU."""
    text = hang.read_text()
    at = text.rindex("CPU-4000")
    hang.write_text(text[:at] + "CPU-4009" + text[at + 8 :])
    code, out, _ = validated(capsys, hang, "03-virtio", "whole-folio", *BASES)
    assert code == 1 and "after 7 of 8 events" in out and "thread 4009 is another vCPU" in out


@pytest.mark.parametrize("drop", range(8))
def test_the_plain_search_agrees_on_a_missing_event(hang, drop):
    """Without one event: accepted exactly where an execution shows the rest, by a search over whole lines."""
    made = system("03-virtio", "whole-folio")
    path, cycle = path_of("03-virtio", "whole-folio")
    units = [kernel_traces.shown(step) for step in replay(made, [*path, *cycle, *cycle])[0]]
    units = [unit for unit in units if unit]
    left = [unit for n, unit in enumerate(units) if n != drop]
    lines = [kernel_traces.Line(4000 if "freeze" in text else 4001, text) for unit in left for text in unit]
    hang.write_text(kernel_traces.text(lines))
    assert search(made, kernel.read(hang, [])).accepted == plainly_shown(made, left)


def plainly_shown(made, units):
    """Whether some execution shows exactly these units of lines: a search over (state, how many are shown)."""
    start = to_lists(made.state)
    queue, seen = [(start, 0)], set()
    names = {text.split(":")[0] for unit in units for text in unit}
    while queue:
        state, at = queue.pop()
        if at == len(units):
            return True
        for step, after in possible(made, state):
            unit = [text for text in kernel_traces.shown(step) if text.split(":")[0] in names]
            then = at + (unit == units[at]) if unit else at
            if (not unit or then > at) and (step.after, then) not in seen:
                seen.add((step.after, then))
                queue.append((after, then))
    return False


# --------------------------------------------------------------------------------------------------- bad inputs
def test_what_is_no_recording_of_the_kernel_is_refused(capsys, tmp_path):
    file = tmp_path / "no.txt"
    file.write_text("hello\n")
    code, out, err = validated(capsys, file, "03-virtio", "split")
    assert (code, out) == (2, "") and "not a recording of kernel events" in err


def test_a_recording_without_these_events_is_refused(capsys, tmp_path):
    file = tmp_path / "other.txt"
    file.write_text("  a-1  [000]  1.000001: sched_wakeup: comm=x pid=3\n")
    code, _, err = validated(capsys, file, "03-virtio", "split")
    assert code == 2 and "sched_wakeup" in err and "page_ref_freeze" in err


def test_another_page_zero_leaves_nothing(capsys, hang):
    code, _, err = validated(capsys, hang, "03-virtio", "whole-folio", "--page0", "pfn=0x9999")
    assert code == 2 and "--page0" in err


@pytest.mark.parametrize("words", [["--page0", "frame=1"], ["--page0", "pfn=x"], ["--group", "g"]])
def test_options_that_do_not_fit_are_refused(capsys, hang, words):
    assert validated(capsys, hang, "03-virtio", "whole-folio", *words)[0] == 2


def test_a_limit_is_unknown(capsys, hang, monkeypatch):
    monkeypatch.setattr(observed, "MOST_SITUATIONS", 9)
    code, out, _ = validated(capsys, hang, "03-virtio", "whole-folio", *BASES)
    assert code == 3 and "unknown" in out


def test_too_many_events_are_refused(capsys, hang, monkeypatch):
    monkeypatch.setattr(kernel, "MOST_EVENTS", 3)
    code, _, err = validated(capsys, hang, "03-virtio", "whole-folio")
    assert code == 2 and "more than 3 events" in err


def test_mutations_never_end_in_a_traceback(capsys, hang, request):
    data, draw = hang.read_bytes(), random.Random(7)
    ends = set()
    for _ in range(5000 if request.config.getoption("--long") else 60):
        hang.write_bytes(mutations.mutated(draw, data, data))
        code, _, err = validated(capsys, hang, "03-virtio", "whole-folio", *BASES)
        assert code in (0, 1, 2) and "Traceback" not in err
        ends.add(code)
    assert ends == {0, 1, 2}


# --------------------------------------------------------------------------------------------------------- facts
def test_every_fact_names_outcomes_of_the_layout():
    for rule in RULES.values():
        for word in rule.traced:
            _, _, outcomes = word.partition("@")
            assert all(hasattr(layout, one) for one in outcomes.split(",") if one), rule.name
    shown = {rule.name: rule.shown for rule in RULES.values() if rule.shown}
    assert shown["import-freeze"] == ["page_ref_freeze"] * 2 and len(shown) > 12


def test_freezes_inside_a_split_are_left_out(tmp_path):
    made = system("09-split-early-pin", "split")
    path, cycle = path_of("09-split-early-pin", "split")
    file = tmp_path / "split.txt"
    lines = kernel_traces.lines(made, path, cycle)
    inside = next(n for n, line in enumerate(lines) if line.text.startswith("p_split")) + 1
    lines.insert(inside, kernel_traces.Line(lines[inside].tid, kernel_traces._ref("page_ref_freeze", 0x8000, 3, 1)))
    file.write_text(kernel_traces.text(lines))
    notes = []
    assert [one.name for one in kernel.read(file, notes)].count("page_ref_freeze") == 0
    assert "page_ref_freeze of a split" in notes[0]
    assert search(made, kernel.read(file, [])).accepted
