"""selftest: the calls of a story, the C that makes them, what it says on this kernel and on one with the conversion."""

import json
import os
import random
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner

from checking import ROOT
from ultrafolio.calibrate import kvm
from ultrafolio.calibrate.sample import NotPossible
from ultrafolio.check.verdicts.replay import Step
from ultrafolio.cli import cli, main
from ultrafolio.export.selftest import calls, program, story
from ultrafolio.model import policies, scenario
from ultrafolio.model.layout import TOUCH, VCPU
from ultrafolio.names.find import found

POLICY = "gmem-7.4"
SCENARIOS = sorted((ROOT / "scenarios" / "guest_memfd").glob("*.toml"))
CC = shutil.which("gcc")
FLAGS = ("-Wall", "-Wextra", "-Werror", "-O1")
pytestmark = pytest.mark.skipif(not CC, reason="needs gcc")

EVERYTHING = """
title = "a title that ends */ a comment"
design = "guest_memfd"
[memory]
folios = [0, 0, 0, 0]
state = ["shared", "private", "shared", "shared"]
[[disk]]
page = 0
[[lru]]
page = [2]
cpu = 1
after = "disk"
[[speculative]]
page = [3]
after = "lru"
[[vmsplice]]
page = 3
after = "speculative"
[[user]]
page = [0]
process = 1
after = "speculative"
[[user]]
page = [1]
locked = true
after = "user 0"
[[vmm]]
page = 0
pages = 4
to = "private"
after = "user 1"
"""
HOLE = """
title = "a hole"
design = "guest_memfd"
[memory]
folios = [0, 0]
state = ["shared"]
[[user]]
page = [0]
[[hole]]
page = 0
pages = 2
after = "user"
"""


@cache
def told(file, policy=POLICY):
    made = found(file)
    return story.checked(made, str(file.relative_to(ROOT)), policies.find_any(policy, made.tables), policy)


def told_of(text, policy=POLICY):
    made = scenario.parse(tomllib.loads(text), "mine.toml")
    return story.checked(made, "mine.toml", policies.find_any(policy, made.tables), policy)


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """A library that answers in place of a kernel with the conversion."""
    made = tmp_path_factory.mktemp("fake") / "fake.so"
    source = ROOT / "tests" / "support" / "fake_conversion.c"
    quiet = ("-Wno-unused-result", "-Wno-sign-compare")
    subprocess.run([CC, *FLAGS, *quiet, "-shared", "-fPIC", "-o", made, source, "-ldl"], check=True)
    return made


@cache
def built(folder, text):
    """The program of a C text, compiled without a warning."""
    source = folder / f"{abs(hash(text))}.c"
    source.write_text(text)
    done = subprocess.run(
        [CC, *FLAGS, "-o", source.with_suffix(""), source], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return source.with_suffix("")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("selftest")


def run(path, **around):
    done = subprocess.run([path], capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **around})
    return done.returncode, done.stdout.splitlines(), done.stderr


def faked(path, fake, wrong=""):
    code, lines, said = run(path, LD_PRELOAD=str(fake), FAKE_WRONG=wrong)
    if "userfaultfd" in said or any("io_uring" in line for line in lines):
        pytest.skip(f"no userfaultfd or io_uring here: {said}")
    return code, lines


def bad(lines):
    return [line for line in lines if line.startswith("not ok")]


def plan(lines):
    """The results are those of the plan, in order."""
    assert lines[0] == "TAP version 13"
    first, last = next(line for line in lines if line.startswith("1..")).split("..")
    numbers = [int(line.removeprefix("not ").split()[1]) for line in lines if line.startswith(("ok ", "not ok "))]
    assert numbers == list(range(int(first), int(last) + 1))
    return numbers


# ------------------------------------------------------------------------------------------- the C of every story
@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_a_story_builds_and_agrees_with_a_kernel_that_converts(file, folder, fake):
    text = program.program(told(file), "a command")
    assert text == program.program(told(file), "a command")
    assert text.startswith("// SPDX-License-Identifier: GPL-2.0\n")
    code, lines = faked(built(folder, text), fake)
    assert (code, bad(lines)) == (0, []) and plan(lines)
    skipped = [line for line in lines if "SKIP" in line]
    if program._foreign(told(file)):
        assert len(skipped) == plan(lines)[-1] and program._foreign(told(file)) in lines[-1]
    else:
        assert not [line for line in skipped if "on a private page" not in line and "the result of" not in line]


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_a_story_runs_for_what_this_kernel_has(file, folder):
    code, lines, said = run(built(folder, program.program(told(file), "a command")))
    if code == 4:
        assert lines[-1].startswith("1..0 # SKIP missing: ")
        pytest.skip(lines[-1])
    assert (code, bad(lines), said) == (0, [], "") and plan(lines)
    assert all("# SKIP missing: " in line for line in lines if "SKIP" in line)


def test_touches_and_pins_are_tested_on_a_kernel_with_mmap(folder):
    """On Linux 6.18 a test is not one skip after the other."""
    try:
        device = kvm.opened()
    except NotPossible as error:
        pytest.skip(str(error))
    flags = kvm.call(device, kvm.KVM_CHECK_EXTENSION, kvm.CAPABILITIES["KVM_CAP_GUEST_MEMFD_FLAGS"])
    os.close(device)
    if flags & 3 != 3:
        pytest.skip("KVM_CAP_GUEST_MEMFD_FLAGS: no MMAP and INIT_SHARED")
    _, lines, _ = run(
        built(folder, program.program(told(next(f for f in SCENARIOS if f.stem.startswith("g04"))), "a command"))
    )
    made = [line for line in lines if line.startswith("ok") and "SKIP" not in line]
    assert "ok 1 - pin 0 pins page 2: 0" in made and len(made) >= 5


@pytest.mark.parametrize(
    ("text", "lines"), [(EVERYTHING, ("pins page 0", "in the batch", "takes a reference", "locked")), (HOLE, ("hole",))]
)
def test_every_call_is_made(text, lines, folder, fake):
    made = program.program(told_of(text), "a command")
    used = {name for name in program._all_pieces() if f"static void check_{name.replace('-', '_')}(" in made}
    code, said = faked(built(folder, made), fake)
    assert (code, bad(said)) == (0, []), said
    assert all(word in made for word in lines) and used
    assert "* /" in made or "*/" not in told_of(text).title


@pytest.mark.parametrize(
    ("policy", "folios", "machine", "says"),
    [
        ("gmem-two-backings", [0, 0], "software", "a conversion in place"),
        ("gmem-hugetlb-2025-12", [1], "software", "huge pages of guest_memfd"),
        ("gmem-7.4", [0, 0], "snp", "a guest of the machine snp"),
    ],
)
def test_what_no_kernel_has_is_named_in_every_line(policy, folios, machine, says, folder, fake):
    text = f"""
title = "two pages"
design = "guest_memfd"
machine = "{machine}"
[memory]
folios = {folios}
[[vmm]]
page = 0
to = "shared"
"""
    code, lines = faked(built(folder, program.program(told_of(text, policy), "a command")), fake)
    assert code == 0 and len([line for line in lines if f"# SKIP missing: {says}" in line]) == 3


def test_a_reference_that_no_call_takes_is_skipped_with_what_depends_on_it(folder, fake):
    file = next(f for f in SCENARIOS if f.stem.startswith("g20"))
    made = [item for item in calls.calls(told(file).system, told(file).steps) if isinstance(item, calls.Call)]
    walker = [call for call in made if call.missing]
    assert {call.what for call in walker} <= {"reference", "put"}
    text = program.program(told(file), "a command")
    assert text.count("which no call takes") == len(walker)


def test_every_piece_is_used_by_a_story():
    used = set()
    for text in (EVERYTHING, HOLE):
        one = told_of(text)
        used |= program._needed(
            one, [item for item in calls.calls(one.system, one.steps) if isinstance(item, calls.Call)]
        )
    assert used | {"head", "state", "needs"} == set(program._all_pieces())


@pytest.mark.parametrize(
    ("wrong", "name", "says"),
    [
        ("no-refusal", "g04", "vmm 1 asks for pages 0 to 3 as private: -EAGAIN at page 2"),
        ("page-0", "g04", "vmm 1 asks for pages 0 to 3 as private: -EAGAIN at page 2"),
        ("done-in-part", "g04", "page 0 is shared: 0"),
        ("not-stored", "g01", "user 1 touches page 0: SIGBUS"),
        ("not-stored", "g05", "page 0 is private: SIGBUS"),
    ],
)
def test_a_kernel_that_answers_wrongly_fails(wrong, name, says, folder, fake):
    file = next(file for file in SCENARIOS if file.stem.startswith(name))
    code, lines = faked(built(folder, program.program(told(file), "a command")), fake, wrong)
    assert code == 1 and any(line.endswith(says) for line in bad(lines)), lines
    assert any(line.startswith("# the rules: ") for line in lines)


# ------------------------------------------------------------------------------------------- the calls
def made_of(file):
    one = told(next(f for f in SCENARIOS if f.stem.startswith(file)))
    return one, [item for item in calls.calls(one.system, one.steps) if isinstance(item, calls.Call)]


def test_a_call_has_the_answer_of_the_rules_and_the_page_that_it_names():
    _, made = made_of("g05")
    assert [(call.what, call.page, call.answer, call.at) for call in made] == [
        ("pin", 1, "0", -1), ("convert", 0, "0", -1), ("convert", 1, "-EAGAIN", 1), ("convert", 1, "-EAGAIN", 1)
    ]  # fmt: skip
    assert made[1].attributes == (True, False, False) and made[1].changes and not made[2].changes


def test_a_call_inside_which_another_acts_stands_where_it_ends_and_says_so():
    """A pin of the rules, all of whose steps but the last come before a whole conversion."""
    file = next(f for f in SCENARIOS if f.stem.startswith("g16"))
    one, made = told(file), made_of("g16")[1]
    pin, convert = made[0].steps, made[1].steps
    rest = [step for step in one.steps if step.actor != pin[0].actor and step.rule == "vcpu-run"][:1]
    shuffled = [pin[0], *rest, *convert, *pin[1:]]
    again = [item for item in calls.calls(one.system, shuffled) if isinstance(item, calls.Call)]
    assert [call.what for call in again] == ["pin"] or [call.what for call in again] == ["convert", "pin"]
    assert again[-1].inside == ("vcpu 0",)


def test_each_step_of_a_story_is_a_call_or_a_comment():
    one, _ = made_of("g01")
    items = calls.calls(one.system, one.steps)
    steps = sum(len(item.steps) if isinstance(item, calls.Call) else 1 for item in items)
    assert steps == len(one.steps) and all(isinstance(step, Step) for step in one.steps)
    text = program.program(one, "a command")
    words = " ".join(" ".join(line.strip(" *\t") for line in text.splitlines()).split())
    for step in one.steps:
        assert f"{step.rule}: " in words


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_in_a_story_that_holds_every_actor_of_the_host_acts(file):
    one = told(file)
    if one.loop or one.verdict != "holds":
        pytest.skip("a counterexample ends where it is one")
    acted = {step.actor for step in one.steps}
    assert acted >= {t for t, who in enumerate(one.system.state.who) if who["kind"] != VCPU}
    asks = {t for t, ops in enumerate(one.system.choices) if any(op != TOUCH for op, _ in ops)}
    made = {item.actor for item in calls.calls(one.system, one.steps) if isinstance(item, calls.Call)}
    assert made >= asks


# ------------------------------------------------------------------------------------------- the command
def printed(*words):
    return CliRunner().invoke(cli, list(words), catch_exceptions=False).output


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    where = tmp_path / "story.json"
    where.write_text(printed("check", "g04-one-of-four-pinned", "--policy", POLICY, "--json"))
    return where


def without_command(text):
    return [line for line in text.splitlines() if not line.startswith(" * ultrafolio selftest ")]


def test_a_record_of_check_gives_the_test_of_its_scenario(record, tmp_path):
    from_record = printed("selftest", str(record))
    direct = printed("selftest", "g04-one-of-four-pinned", "--policy", POLICY)
    assert without_command(from_record) == without_command(direct)
    made = json.loads(printed("selftest", str(record), "-o", str(tmp_path / "x.c"), "--json"))
    assert made["calls"] == 3 and made["bytes"] == (tmp_path / "x.c").stat().st_size


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda made: made["trace"].pop(0), "the rules do not have this story"),
        (lambda made: made["trace"][0].update(page=3), "the rules do not have this story"),
        (lambda made: made["trace"][0].update(by=-1), "a step is"),
        (lambda made: made["trace"][3].update(by=77 << 16), "the rules do not have this story"),
        (lambda made: made["trace"].append("x"), "a step is"),
        (lambda made: made.pop("policy"), "no field policy"),
        (lambda made: made.update(trace=7), "trace is 7"),
        (lambda made: made.update(policy="nope"), "nope"),
        (lambda made: made.update(policy="split"), "a policy of another design"),
        (lambda made: made.update(scenario="03-virtio"), "design"),
        (lambda made: made.update(format="ultrafolio-trace"), "--save"),
        (lambda made: made.pop("waiter"), "waiter"),
        (lambda made: made.update(kind=[1]), "kind"),
    ],
)
def test_a_record_that_was_changed_is_refused(change, says, record, capsys):
    made = json.loads(record.read_text())
    change(made)
    record.write_text(json.dumps(made))
    with pytest.raises(SystemExit) as left:
        main(["selftest", str(record)])
    out, err = capsys.readouterr()
    assert left.value.code == 2 and out == "" and says in err and "next" in err, err


def test_a_record_with_a_changed_byte_is_a_story_or_bad_input(record, request, capsys):
    whole, draw = record.read_bytes(), random.Random(7)
    codes = set()
    for _ in range(2000 if request.config.getoption("--long") else 40):
        at = draw.randrange(len(whole))
        record.write_bytes(whole[:at] + bytes([draw.randrange(256)]) + whole[at + draw.randrange(3) :])
        with pytest.raises(SystemExit) as left:
            main(["selftest", str(record)])
        codes.add(left.value.code)
        assert "Traceback" not in capsys.readouterr().err
    assert codes == {0, 2}


def test_two_records_are_not_one_story(record, capsys):
    record.write_text(record.read_text() * 2)
    with pytest.raises(SystemExit) as left:
        main(["selftest", str(record)])
    assert left.value.code == 2 and "more than one record" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "policy", "verdict"),
    [
        ("g16-vfio-pin", POLICY, "violated, vmm-bound"),
        ("g36-kvms-own-reference", "gmem-no-drain", "violated, safety"),
        ("g16-vfio-pin", "unmap-first", "holds"),
    ],
)
def test_a_saved_trace_gives_the_test_of_its_scenario(name, policy, verdict, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    file = tmp_path / "story.json"
    record = tmp_path / "record.json"
    record.write_text(printed("check", name, "--policy", policy, "--json"))
    printed("check", name, "--policy", policy, "--save", str(file))
    made = printed("selftest", str(file))
    assert without_command(made) == without_command(printed("selftest", str(record)))
    assert f" {verdict}" in made
    changed = json.loads(file.read_text())
    changed["path"][1] += 1 << 16
    file.write_text(json.dumps(changed))
    with pytest.raises(SystemExit) as left:
        main(["selftest", str(file)])
    said = capsys.readouterr().err
    assert left.value.code == 2 and "the rules do not have this story" in said and "--save story.json" in said


@pytest.mark.parametrize(("save", "policy"), [(False, "whole-folio"), (False, POLICY), (True, "whole-folio")])
def test_a_story_of_s390_is_refused_with_what_to_type(save, policy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    words = ["selftest", "03-virtio", "--policy", policy]
    if save:
        file = str(tmp_path / "hang.json")
        printed("check", "03-virtio", "--policy", "whole-folio", "--save", file)
        words = ["selftest", file]
    with pytest.raises(SystemExit) as left:
        main(words)
    said = capsys.readouterr().err
    assert left.value.code == 2 and "a story of the design s390" in said and "--format ktap" in said


def test_the_guide_names_every_kind_of_call():
    text = (Path(ROOT) / "docs" / "from-a-story-to-a-kernel-test.md").read_text()
    for word in ("SIGBUS", "mlock2", "io_uring", "LRU batch", "vmsplice", "KVM_SET_MEMORY_ATTRIBUTES2", "fallocate"):
        assert word in text
