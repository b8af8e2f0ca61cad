"""The command line: bad input ends with exit 2 and one clear message; a run prints its result."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ultrafolio import api
from ultrafolio.cli import main
from ultrafolio.fields import MOST_BYTES
from ultrafolio.model import kernels
from ultrafolio.model.guest_memfd import policy as memfd
from ultrafolio.model.layout import OUTCOMES
from ultrafolio.model.policies import PRESETS
from ultrafolio.model.rule import RULES
from ultrafolio.page.link import packed

ROOT = Path(__file__).parents[2]


def ultrafolio(*words, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-c", "from ultrafolio.cli import main; main()", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


BAD = {
    "no such command": (["fly"], "unknown command"),
    "policy": (["run", "--policy", "whol-folio"], "did you mean 'whole-folio'"),
    "order": (["run", "--order", "12"], "from 0 to 9"),
    "order is a word": (["run", "--order", "big"], "not a valid integer"),
    "placement": (["run", "--placement", "alined"], "did you mean 'aligned'"),
    "workload": (["run", "--workload", "sqlite"], "unknown workload"),
    "costs": (["run", "--costs", "z17"], "unknown cost profile"),
    "field": (["run", "--set", "ring=2"], "did you mean 'rings'"),
    "field value": (["run", "--set", "rings=two"], "an integer from 0 to 4096"),
    "field bound": (["run", "--set", "vcpus=5000"], "from 1 to 1024"),
    "recording": (["run", "--set", "touches=none.gz"], "recording cannot be read"),
    "recording of another kind": (["run", "--set", "touches=traces/folios.mthp"], "folios.mthp"),
    "file": (["run", "nothing.toml"], "no such file"),
    "trace folder": (["run", "--trace", "no/such/folder/t"], "trace cannot be written"),
    "scenario with order": (["run", "scenarios/03-virtio.toml", "--order", "2"], "its own memory"),
    "policies file": (["policies", "scenarios/03-virtio.toml"], "no policy in it"),
    "plan": (["sweep", "pyproject.toml"], "grid"),
    "store": (["report", "docs"], "docs"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_message(name):
    words, says = BAD[name]
    done = ultrafolio(*words)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr and done.stdout == ""
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 8


FILES = {
    "not TOML": ("[memory\n", "not TOML"),
    "a number too long": (f"x = {'9' * 5000}\n", "not TOML"),
    "arrays too deep": (f"x = {'[' * 5000}\n", "not TOML"),
    "too large": ("#" * (MOST_BYTES + 1), "too large"),
    "expectation": ("[memory]\nfolios=[0]\n[[vcpu]]\n[expect]\nper-page=1\n", "[expect] per-page"),
    "unknown table": ("[memory]\nfolios=[0]\n[[vcpus]]\n", "did you mean 'vcpu'"),
    "unknown field": ("[memory]\nfolios=[0]\n[[vcpu]]\ntuch=[0]\n", "did you mean 'touch'"),
    "one bracket": ("[memory]\nfolios=[0]\n[vcpu]\n", "two brackets"),
    "no actors": ("[memory]\nfolios=[0]\n", "nobody acts"),
    "no folios": ("[memory]\n[[vcpu]]\n", "'folios' is missing"),
    "alignment": ("[memory]\nfolios=[0,1]\n[[vcpu]]\n", "naturally aligned"),
    "page": ("[memory]\nfolios=[1]\n[[vcpu]]\ntouch=[2]\n", "page 2 does not exist"),
    "device past the end": ("[memory]\nfolios=[1]\n[[disk]]\npage=1\npages=2\n", "page 2 does not exist"),
    "state": ('[memory]\nfolios=[0]\nstate=["secret"]\n[[vcpu]]\n', "pinned_shared"),
    "states": ('[memory]\nfolios=[2]\nstate=["secure","secure"]\n[[vcpu]]\n', "one for each page, in all 4"),
    "policy block": ('[memory]\nfolios=[0]\n[[vcpu]]\n[policy.mine]\ntrack="pages"\n', "did you mean 'page'"),
    "bool for int": ("[memory]\nfolios=[0]\n[[vcpu]]\nguest=true\n", "an integer"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("command", ["run", "check"])
def test_a_bad_scenario_says_what_is_wrong_where(name, command, tmp_path):
    text, says = FILES[name]
    (tmp_path / "s.toml").write_text(text)
    done = ultrafolio(command, "s.toml", "--policy", "per-page", cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == "" and [f.name for f in tmp_path.iterdir()] == ["s.toml"]


def test_a_costs_file_with_an_unknown_name(tmp_path):
    (tmp_path / "mine.toml").write_text("[costs]\nexport = 3\n")
    done = ultrafolio("run", "--costs", "mine.toml", cwd=tmp_path)
    assert done.returncode == 2 and "did you mean 'export_call'" in done.stderr


def test_a_run_tells_its_verdict_by_exit_code_and_json():
    words = ["run", "--order", "3", "--set", "rings=1", "--set", "pages=256", "--duration-us", "3000", "--json"]
    hung = ultrafolio(*words, "--policy", "whole-folio")
    result = json.loads(hung.stdout)
    assert hung.returncode == 1 and result["hang_permanent"] > 0 and result["hangs"][0].startswith("permanent: vcpu")
    sound = ultrafolio(*words, "--policy", "per-page")
    assert sound.returncode == 0 and json.loads(sound.stdout)["hangs"] == []


def test_the_trace_has_a_line_a_step_and_is_the_same_for_the_same_seed(tmp_path):
    words = ["run", str(ROOT / "scenarios/03-virtio.toml"), "--policy", "whole-folio", "--duration-us", "300"]
    for name in ("a", "b"):
        assert ultrafolio(*words, "--trace", name, cwd=tmp_path).returncode == 1
    texts = [(tmp_path / name).read_text() for name in ("a", "b")]
    header, *steps = [json.loads(line) for line in texts[0].splitlines()]
    assert texts[0] == texts[1] and header["format"] == "ultrafolio-trace" and len(steps) > 20
    assert [step["n"] for step in steps] == list(range(len(steps)))
    assert {step["rule"] for step in steps} <= {rule.name for rule in RULES.values()}
    assert any(step["outcome"] == OUTCOMES[6] for step in steps), "the import met the pin"
    other = ultrafolio(*words, "--seed", "2", "--trace", "c", cwd=tmp_path)
    assert other.returncode in (0, 1) and (tmp_path / "c").read_text() != texts[0]


def test_policies_lists_the_presets_and_the_users_own(tmp_path):
    (tmp_path / "mine.toml").write_text('[policy.mine]\nbase = "split"\nrefs = "page"\n')
    listed = ultrafolio("policies", "mine.toml", "--json", cwd=tmp_path).stdout
    rows = [json.loads(line) for line in listed.splitlines()]
    assert [row["policy"] for row in rows] == [*PRESETS, *kernels.names(), *memfd.PRESETS, "mine.toml#mine"]
    assert {row["design"] for row in rows if row["policy"] in memfd.PRESETS} == {"guest_memfd"}
    assert (rows[-1]["large"], rows[-1]["refs"]) == ("split", "page")
    shown = ultrafolio("policies").stdout
    assert all(name in shown for name in (*PRESETS, *memfd.PRESETS))
    run = ultrafolio("run", "--policy", "mine.toml#mine", "--duration-us", "500", "--json", cwd=tmp_path)
    assert run.returncode == 0 and json.loads(run.stdout)["touches"] > 0


def test_out_of_memory_is_unknown_with_the_states_reached():
    words = ["check", "benchmarks/four-pages.toml", "--policy", "whole-folio", "--safety", "--memory"]
    short = ultrafolio(*words, "8")
    assert short.returncode == 3 and "limit of 8 MiB reached with" in " ".join(short.stdout.split())
    assert ": holds" not in short.stdout
    assert ": unknown" not in ultrafolio(*words, "1000").stdout


def test_help_is_printed_where_numba_is_not_installed():
    script = "import sys\nsys.modules['numba'] = None\nfrom ultrafolio.cli import main\nmain(['--help'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "ultrafolio sweep sweeps/seed.toml" in done.stdout


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000], ids=["a number too long", "lists too deep"])
def test_what_json_and_toml_cannot_hold_is_bad_input_wherever_it_is_read(value, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("x.toml").write_text(f"x = {value}\n")
    Path("x.json").write_text(f'{{"format": {value}')
    address = f"#a/split/{packed(f'x = {value}')}"
    for words in (
        ["check", address],
        ["check", "x.toml"],
        ["sweep", "x.toml"],
        ["policies", "x.toml"],
        ["trace", "verify", "x.json"],
        ["run", "--set", f"pages={value}"],
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 2, words[:2]
        assert "unexpectedly" not in capsys.readouterr().err, words[:2]
    with pytest.raises(api.InputError):
        api.Scenario.parse(f"x = {value}")
    assert list(tmp_path.glob("ultrafolio-defect*")) == []
