"""Bad inputs of every command: the exit code, one message that names what is wrong, no traceback, nothing written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from checking import ROOT
from ultrafolio import cli
from ultrafolio.cli import main

FILES = {
    "empty.toml": b"", "binary.toml": bytes(range(256)), "cut.toml": b"[memory\n", "latin.toml": b"title = \"\xe9\"\n",
    "strange.toml": b"[strange]\nx = 1\n", "text.txt": b"no recording\n", "list.json": b"[]", "cut.json": b"{",
    "taken.toml": b"[policy.whole-folio]\nbase = \"split\"\n",
    "two.toml": b"[workload.a]\nrings = 1\n[workload.b]\nrings = 2\n",
    "huge.toml": b"[grid]\nseed = \"0-20000000000\"\norder = \"0-9\"\n",
    "axis.toml": b"[grid]\nsede = [1]\n", "none.toml": b"[grid]\norder = []\n",
    "actor.toml": b"[memory]\nfolios = [0]\n[[vcpus]]\n", "order.toml": b"[memory]\nfolios = [99]\n[[vcpu]]\n",
}  # fmt: skip
WRONG_FILES = (
    "absent.toml",
    "folder",
    "empty.toml",
    "binary.toml",
    "cut.toml",
    "latin.toml",
    "strange.toml",
    "text.txt",
    "absent/deep.toml",
    "list.json",
    "cut.json",
)
READERS = {
    "check": ["check", "{}"], "check one policy": ["check", "{}", "--policy", "per-page"],
    "check export": ["check", "{}", "--policy", "split", "--export", "promela"],
    "check vary": ["check", "{}", "--vary", "vcpus=1..2"], "run": ["run", "{}"],
    "sweep": ["sweep", "run", "{}", "-o", "out", "--no-report", "--workers", "0"],
    "explore": ["explore", "{}", "--policy", "per-page"], "trace verify": ["trace", "verify", "{}"],
    "trace minimise": ["trace", "minimise", "{}"], "trace validate": ["trace", "validate", "{}"],
    "report": ["report", "{}"], "sweep status": ["sweep", "status", "{}"], "sweep why": ["sweep", "why", "{}", "00"],
    "selftest": ["selftest", "{}"], "selftest of a policy": ["selftest", "{}", "--policy", "gmem-7.4"],
    "policy of a file": ["check", "03-virtio", "--policy", "{}#x"],
}  # fmt: skip
TABLE = [(name, [word.format(file) for word in words]) for name, words in READERS.items() for file in WRONG_FILES]
TABLE += [
    (f"{name} with an unknown option", [*name.split(), "--nope"])
    for name in (
        "check",
        "run",
        "sweep run",
        "sweep status",
        "sweep why",
        "sweep attach",
        "report",
        "policies",
        "trace verify",
        "trace validate",
        "trace minimise",
        "explore",
        "selftest",
        "scenario",
        "rules",
        "reference",
        "calibrate",
        "init",
        "doctor",
        "completion",
    )
]
TABLE += [
    (" ".join(words), words)
    for words in (
        line.split()
        for line in """
    chekc
    check
    check --policy
    check 03-virtio --policy whole-foli
    check 03-virtio --policy linux-99
    check 03-virtio --policy taken.toml#whole-folio
    check 03-virtio --policy absent.toml#x
    check 03-virtio --max-states 0
    check 03-virtio --max-states many
    check 03-virtio --memory -1
    check 03-virtio --threads 0
    check 03-virtio --threads 65
    check 03-virtio --format xml
    check 03-virtio --json --format tap
    check 03-virtio --vary vcpus
    check 03-virtio --vary vcpus=2..1
    check 03-virtio --vary cpus=1..2
    check 03-virtio --expect --safety
    check 03-virtio --export smv
    check 03-virtio --export promela
    check 03-virtio --diff-policy split
    check 03-virtio --diff-policy split per-page --policy split
    check 03-virtio --policy split --save absent/x.json
    check actor.toml
    check order.toml
    run --policy nope
    run --order 10
    run --order -1
    run --order x
    run --workload nope
    run --placement above
    run --costs nope
    run --costs absent.toml
    run --seed -1
    run --duration-us 0
    run --set rings
    run --set nope=1
    run --set rings=many
    run two.toml
    run two.toml --workload c
    run --trace folder
    run --trace absent/x.ndjson
    run taken.toml --policy whole-folio
    sweep
    sweep statsu
    sweep absent.toml
    sweep huge.toml -o out --no-report --workers 0
    sweep axis.toml -o out --no-report --workers 0
    sweep none.toml -o out --no-report --workers 0
    sweep seed --executor nope
    sweep seed --workers -1
    sweep seed --limit 0
    sweep seed --cell-seconds 0
    sweep seed --cell-memory 0
    sweep seed --rerun some
    sweep seed --workers 0 --cell-seconds 1 --no-report
    sweep seed --engine nope
    sweep pause absent
    sweep resume absent
    sweep revoke absent
    report
    policies nope
    trace
    trace nope
    trace verify
    explore
    explore 03-virtio --policy nope
    scenario
    scenario NOPE
    scenario DIO+self+self
    scenario absent.toml --short
    scenario --all 99
    scenario LPIN+neigh --words
    explore 03-virtio --goto nowhere
    selftest
    selftest 03-virtio
    selftest 03-virtio --policy whole-folio
    selftest g04-one-of-four-pinned --policy whole-folio
    selftest g04-one-of-four-pinned --policy nope
    selftest g04-one-of-four-pinned --policy gmem-7.4 -o absent/x.c
    selftest list.json --policy gmem-7.4
    calibrate --seconds 0
    calibrate --seconds x
    calibrate --seconds nan
    calibrate --no-costs --no-kernel
    calibrate --no-costs -o mine.toml
    calibrate --markdown
    calibrate --no-costs --json --markdown
    init
    init full
    init text.txt
    doctor nope
    completion
    completion tcsh
    check #a/b/c
    check 03-virtio --link --policy nope
    check 03-virtio --link --vary vcpus=1..2
    check 03-virtio --brief --vary vcpus=1..2
    check 03-virtio --brief --json
    run --brief --json
    run --policy gmem-7.4 --machine snp --set machine=tdx
    run --policy gmem-7.4 --machine snp --set holder=nope
    run --policy pkvm --machine snp
    check g16-vfio-pin --policy gmem-7.4 --vary order=2
    check g16-vfio-pin --policy split --vary vcpus=1..2
    check g16-vfio-pin --design s390
    check g16-vfio-pin --policy split --link
    check g16-vfio-pin --link --machine nope
    explore g16-vfio-pin --policy gmem-7.4 --machine all --export absent/x.html
    explore g16-vfio-pin --policy split --export x.html
    export --scenario #g16-vfio-pin/gmem-7.4/AAAA
    export
    export --page --scenario #a/b/c
    export --page -o absent/x.html
    export --page -o folder
    export --scenario nothing
    export --scenario #a/b/c
    export --nope
    judge
    judge --tree absent
    judge --tree folder
    judge --tree folder --citations
    judge --tree folder --source
    judge --tree folder --preset nope
    judge --tree folder --tree full
    judge --nope
    prove
    prove --policy nope
    prove --policy per-page --property 99
    prove --nope
    search --design nope
    search --require refs
    search --require refs=nope
    search --from nope
    search --workers -1
    search --nope
""".strip().splitlines()
    )
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_table_has_two_hundred_rows_over_all_commands():
    assert len(TABLE) >= 200
    assert {words[0] for _, words in TABLE} >= set(cli._COMMANDS)


@pytest.mark.parametrize(("words"), [words for _, words in TABLE], ids=[" ".join(words)[:60] for _, words in TABLE])
def test_bad_input_is_exit_code_2_with_one_message_and_nothing_written(words, folder, capfd):
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit) as left:
        main(words)
    out, err = capfd.readouterr()
    assert left.value.code == 2, (left.value.code, out[-300:], err[-300:])
    assert "Traceback" not in err and err.strip() and not out.strip()
    assert sorted(Path().rglob("*")) == before


def test_what_no_command_expects_is_exit_code_4_and_its_traceback_is_saved(folder, capsys, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(cli.cli, "main", broken)
    with pytest.raises(SystemExit) as left:
        main(["check"])
    said = capsys.readouterr().err
    (file,) = folder.glob("ultrafolio-defect-*.json")
    assert left.value.code == 4 and str(file) in said and "Traceback" not in said
    assert "in broken" in file.read_text()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "not enough memory"),
        (ModuleNotFoundError("x", name="redis"), "pip install 'ultrafolio[cluster]'"),
        (UnicodeEncodeError("latin-1", "x", 0, 1, "no"), "PYTHONUTF8"),
        (OSError(28, "No space left", "f"), "disk is full"),
        (IsADirectoryError(21, "Is a directory", "f"), "a folder stands where a file belongs"),
    ],
)
def test_what_the_machine_refuses_is_exit_code_2_and_told(error, says, capsys, monkeypatch):
    def refused(*_, **__):
        raise error

    monkeypatch.setattr(cli.cli, "main", refused)
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 2 and says in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["rules"], ["policies"], ["doctor"], ["check", "03-virtio", "--policy", "split"]])
def test_a_full_device_for_the_output_is_exit_code_2(words):
    code = "from ultrafolio.cli import main; main()"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2 and "disk is full" in done.stderr and "Traceback" not in done.stderr, done.stderr
