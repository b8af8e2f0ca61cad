"""The verdict lines of versions of the rules: what is saved is what is compared, and every difference is named."""

import json
import shutil
import subprocess
import sys

import pytest

from checking import PATHS, ROOT, checked, story
from test_observation import run
from ultrafolio.errors import InputError
from ultrafolio.export.history import KINDS, changes, history, read
from ultrafolio.export.observation import hash_of, of_result, question_of, rules_digest
from ultrafolio.model.policies import find

ASKED = [("03-virtio", "whole-folio"), ("03-virtio", "split"), ("01-direct-io", "whole-folio")]


def lines():
    return [
        (
            question_of(story(name), find(policy)),
            of_result(checked(name, policy), name, hash_of(story(name), find(policy)), "check"),
        )
        for name, policy in ASKED
    ]


@pytest.fixture(scope="module")
def made():
    return history(rules_digest(), lines())


def test_a_file_is_read_as_it_was_made(made):
    assert read(made.text(), "a file") == made and len(made.entries) == len(ASKED)
    assert made.text() == history(rules_digest(), reversed(lines())).text(), "the same lines, the same bytes"


def edited(made, old, new):
    assert made.text().count(old) == 1
    return read(made.text().replace(old, new), "edited")


def gone(made, name):
    kept = [line for line in made.text().splitlines(True) if f" {name} " not in line]
    return read("".join(kept), "shorter")


def test_each_kind_of_difference_is_named(made):
    hangs, holds = "Hangs 62 110 vcpu0<-pin:virtio1@0", "Observation 03-virtio split Holds"
    cases = {
        "verdict": edited(made, hangs, hangs.replace("Hangs", "Waits")),
        "facts": edited(made, hangs, hangs.replace("virtio1", "virtio2")),
        "graph": edited(made, hangs, hangs.replace("62", "63")),
        "question": edited(made, question_of(story("03-virtio"), find("split")), "0" * 16),
        "new": made,
        "gone": gone(made, "01-direct-io"),
    }
    assert list(cases) == list(KINDS) and holds in made.text()
    for kind, after in cases.items():
        before = gone(made, "01-direct-io") if kind == "new" else made
        found = changes(before, after)
        assert [change.kind for change in found] == [kind], kind
        assert found[0].anew == (kind == "question")
        assert (found[0].before is None, found[0].after is None) == (kind == "new", kind == "gone")
    assert changes(made, made) == [] == changes(made, history("0" * 32, lines()))


def test_another_question_does_not_hide_another_word(made):
    after = edited(made, question_of(story("03-virtio"), find("whole-folio")), "0" * 16)
    after = read(after.text().replace("Hangs 62", "Holds 62"), "edited")
    (found,) = changes(made, after)
    assert found.kind == "verdict" and found.anew and "another question" in str(found)


def test_two_scenarios_of_one_name_are_refused():
    with pytest.raises(InputError, match="two scenarios of one name"):
        history("0" * 32, [*lines(), lines()[0]])


def test_a_damaged_file_is_refused_at_its_line(made):
    """Every line cut, doubled or changed: refused, or read as what it then says."""
    rows = made.text().splitlines(True)
    for at, row in enumerate(rows):
        for wrong in (row[:-1] + "x\n", row[1:], row[: len(row) // 2] + "\n", row * 2, row.replace(" ", "  ", 1)):
            text = "".join([*rows[:at], wrong, *rows[at + 1 :]])
            with pytest.raises(InputError) as refused:
                read(text, "the file")
            assert f"the file, line {at + 1}" in refused.value.what or wrong == row * 2, (at, wrong)
    for cut in range(len(made.text())):
        text = made.text()[:cut]
        if not text.endswith("\n") or text.count("\n") < 2:
            with pytest.raises(InputError):
                read(text, "the file")


@pytest.mark.parametrize("head", ["ultrafolio history 2", "something", ""])
def test_another_version_of_the_format_is_refused(made, head):
    with pytest.raises(InputError) as refused:
        read(made.text().replace("ultrafolio history 1", head, 1), "the file")
    assert refused.value.allowed == "ultrafolio history 1"
    assert ("another ultrafolio" in refused.value.cause) == head.endswith("2")


# ------------------------------------------------------------------------------------------- the command
def typed(capsys, folder, *words):
    return run(
        capsys, "check", "03-virtio", "--policy", "split", "--policy", "whole-folio", "--history", folder, *words
    )


def test_the_first_version_is_saved_and_the_second_compared(capsys, tmp_path):
    folder = tmp_path / "verdicts"
    assert typed(capsys, folder)[0] == 0
    (file,) = folder.iterdir()
    assert file.name == f"0001-{rules_digest()[:12]}.history" and len(read(file.read_text(), "it").entries) == 2
    code, out, _ = typed(capsys, folder)
    assert code == 0 and "nothing differs" in out and list(folder.iterdir()) == [file]
    file.write_text(
        file.read_text().replace("Hangs 62", "Holds 62").replace(f"rules {rules_digest()}", "rules " + "0" * 32)
    )
    code, out, _ = typed(capsys, folder)
    assert code == 1 and "other rules" in out and "verdict  03-virtio whole-folio: Holds 62" in out
    assert sorted(one.name[:5] for one in folder.iterdir()) == ["0001-", "0002-"]
    assert typed(capsys, folder)[0] == 0


def test_the_same_as_json(capsys, tmp_path):
    code, out, _ = typed(capsys, tmp_path, "--json")
    first = json.loads(out)
    assert code == 0 and first["before"] is None and first["changes"] == [] and first["lines"] == 2
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text().replace("Hangs 62", "Hangs 63"))
    code, out, _ = typed(capsys, tmp_path, "--json")
    record = json.loads(out)
    assert code == 1 and record["before"] == str(file) and record["rules"] == [rules_digest()] * 2
    (change,) = record["changes"]
    assert (change["kind"], change["scenario"], change["policy"]) == ("graph", "03-virtio", "whole-folio")
    assert (change["before"]["states"], change["after"]["states"]) == (63, 62)


def test_an_unknown_verdict_has_a_status_of_its_own(capsys, tmp_path):
    assert typed(capsys, tmp_path, "--max-states", "5")[0] == 3
    assert typed(capsys, tmp_path, "--max-states", "5")[0] == 3
    assert typed(capsys, tmp_path)[0] == 1


def test_a_policy_with_a_space_in_its_name_has_a_line(capsys, tmp_path):
    file, folder = tmp_path / "mine.toml", tmp_path / "verdicts"
    file.write_text(PATHS["03-virtio"].read_text() + '[policy."a b"]\n[policy."a\\tb"]\n')
    words = "check", file, "--policy", "a b", "--history", folder
    assert run(capsys, *words)[0] == run(capsys, *words)[0] == 0
    (kept,) = folder.iterdir()
    assert list(read(kept.read_text(), "it").entries) == [("mine", "a-b")]
    code, _, err = run(capsys, "check", file, "--policy", "a\tb", "--history", folder)
    assert code == 2 and "Traceback" not in err and list(folder.iterdir()) == [kept]


@pytest.mark.parametrize(
    "also",
    [["--expect"], ["--brief"], ["--link"], ["--safety"], ["--format", "tap"], ["--export", "promela"],
     ["--save", "x.json"], ["--vary", "order=1"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_what_saves_no_whole_verdict_is_refused(capsys, tmp_path, also):
    code, _, err = typed(capsys, tmp_path / "new", *also)
    assert code == 2 and "Traceback" not in err and not (tmp_path / "new").exists()


def test_a_bad_folder_is_refused_before_the_work(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "0001-0123456789ab.history").write_text("something else\n")
    for folder in (tmp_path / "file", tmp_path / "none" / "deeper", tmp_path / "kept"):
        code, out, err = typed(capsys, folder)
        assert code == 2 and out == "" and "Traceback" not in err, err
    assert not (tmp_path / "none").exists() and len(list((tmp_path / "kept").iterdir())) == 1


def test_a_changed_rule_is_seen(tmp_path):
    """Two versions of the package: in the second a pin is no obstacle, so what hung holds."""
    other = tmp_path / "other"
    shutil.copytree(ROOT / "src", other / "src")
    shutil.copytree(ROOT / "scenarios", other / "scenarios")
    test = "extra_refs(s, k.page) > k.ref or never_matches"
    rules = (other / "src/ultrafolio/model/rules").rglob("*.py")
    rule = next(file for file in rules if test in file.read_text())
    rule.write_text(rule.read_text().replace(test, "never_matches"))
    words = [sys.executable, "-m", "ultrafolio", "check", "03-virtio", "--history", str(tmp_path / "verdicts")]
    words += ["--policy", "whole-folio", "--policy", "per-page"]
    codes, out = [], ""
    for where in (ROOT, other):
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False,
                              env={"PYTHONPATH": str(where / "src"), "NUMBA_DISABLE_JIT": "1", "PATH": ""})  # fmt: skip
        codes, out = [*codes, done.returncode], done.stdout + done.stderr
    assert codes == [0, 1] and "other rules" in out
    assert "verdict  03-virtio whole-folio: Hangs 62 110 vcpu0<-pin:virtio1@0 -> Unsafe" in out
    assert "03-virtio per-page" not in out
