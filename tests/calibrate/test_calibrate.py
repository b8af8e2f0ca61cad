"""calibrate: samples become a profile that the simulator reads, and probes can both agree and differ."""

import contextlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ultrafolio.calibrate import measures, probes, profile, system
from ultrafolio.calibrate.sample import LEAST, Missing, NotPossible, Sample, sample, summary
from ultrafolio.cli import main
from ultrafolio.errors import install
from ultrafolio.model.layout import PAGE_SIZE
from ultrafolio.model.rule import RULES
from ultrafolio.sim import costs

ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def ultrafolio(*words, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-c", "from ultrafolio.cli import main; main()", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def made(name, ns):
    return Sample(name, "a thing", ns, ns - 1, ns + 1, ns + 10, 9)


def by_name(samples, missing=()):
    return {cost.name: cost for cost in profile.entries(samples, list(missing))}


def test_a_sample_is_the_median_and_the_quartiles_of_what_was_timed():
    times = iter([1000.0, 50, 10, 20, 30, 40])  # the first warms up
    assert sample("n", "w", lambda: next(times), seconds=0) == Sample("n", "w", 30, 20, 40, 30, LEAST)
    below = summary("n", "w", [-5.0, -5.0])
    assert (below.median, below.mean) == (0, 0)


def test_every_cost_has_a_source_and_what_is_assumed_keeps_its_default():
    nothing = by_name([], [Missing("crypto", "no package"), Missing("folio_64kB", "refused")])
    assert list(nothing) == list(costs.DEFAULTS)
    assert all(
        cost.source == "assumed" and cost.why and cost.ns == costs.DEFAULTS[cost.name][0] for cost in nothing.values()
    )
    assert (nothing["export_call"].why, nothing["split_page"].why) == ("no package", "refused")
    some = by_name([made("seal", 700), made("read_4kB", 90), made("drain_all", 500)])
    assert (some["export_call"].ns, some["swap_read"].ns, some["drain_all_spread"].ns) == (700, 90, 10)
    assert some["import_call"].source == "assumed"
    assert all(nothing[name].why == why for name, why in profile.UNMEASURED.items())


def test_splits_are_a_line_through_the_sizes_or_one_size_above_the_assumed_part():
    line = by_name([made(f"split_{pages * 4}kB", 2000 + 300 * pages) for pages in (4, 16, 512)])
    assert (line["split_fixed"].ns, line["split_page"].ns) == (2000, 300)
    one = by_name([made("split_64kB", costs.DEFAULTS["split_fixed"][0] + 16 * 40)])
    assert (one["split_fixed"].source, one["split_page"].ns) == ("assumed", 40)
    assert "--folio-sizes" in one["split_fixed"].why


def test_the_profile_is_what_the_simulator_reads(tmp_path):
    samples, missing = [made("seal", 700)], [Missing("folio", 'a "reason"\nin two lines')]
    text = profile.toml(profile.entries(samples, missing), samples, missing, 'calibrate --folder "a\nb"')
    (tmp_path / "mine.toml").write_text(text)
    assert costs.find("mine.toml", {}, tmp_path) == costs.from_table({"export_call": 700}, "")
    document = tomllib.loads(text)
    assert document["measured"]["seal"] == {"what": "a thing", "median": 700, "q1": 699, "q3": 701, "mean": 710, "n": 9}
    assert document["missing"] == {"folio": 'a "reason"\nin two lines'} and "\n" in document["command"]


@LINUX
def test_the_whole_command_measures_writes_and_leaves_nothing_behind(tmp_path):
    before = {path: path.read_text() for path in system.THP.glob("**/enabled")}
    done = ultrafolio("calibrate", "--seconds", "0.3", "-o", "mine.toml", "--json", cwd=tmp_path)
    assert done.returncode in (0, 1) and done.stderr == "", done.stderr
    record = json.loads(done.stdout)
    assert [cost["name"] for cost in record["costs"]] == list(costs.DEFAULTS)
    assert {"seal", "sha256", "fault_4kB"} <= {one["name"] for one in record["measured"]}
    assert all(one["q1"] <= one["median"] <= one["q3"] and one["n"] >= LEAST for one in record["measured"])
    told = {one["name"] for one in record["measured"]} | {one["name"] for one in record["missing"]}
    assert any(name.startswith(("read_4kB", "direct_io")) for name in told), "measured, or the reason"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]
    assert costs.find("mine.toml", {}, tmp_path) == {cost["name"]: cost["ns"] for cost in record["costs"]}
    assert {path: path.read_text() for path in before} == before
    run = ultrafolio("run", "--costs", "mine.toml", "--duration-us", "300", "--json", cwd=tmp_path)
    assert run.returncode == 0 and json.loads(run.stdout)["touches"] > 0


def test_bad_input_is_said_before_anything_is_measured(tmp_path):
    for words, says in (
        (["-o", "no/such/f.toml"], "-o: no folder"),
        (["--folder", "nowhere"], "no folder nowhere"),
        (["--seconds", "0"], "0.1<=x<=3600"),
    ):
        done = ultrafolio("calibrate", *words, cwd=tmp_path)
        assert done.returncode == 2 and says in done.stderr and done.stdout == "", done.stderr


def test_what_cannot_be_measured_is_named_with_its_reason(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    settings = measures.Settings(tmp_path / "gone")
    assert measures.take("crypto", measures.crypto, settings, 0)[1] == [
        Missing("crypto", f"the package cryptography is missing: {install('cluster')}")
    ]
    made_, lost = measures.take("direct_io", measures.direct_io, settings, 0)
    assert made_ == [] and "no file can be made in" in lost[0].reason
    monkeypatch.setattr(system, "THP", tmp_path)
    assert list(measures.measures()) == ["crypto", "hashing", "fault", "folio", "drain", "direct_io", "writeback"]
    assert "Linux 6.10" in measures.take("folio", measures.measures()["folio"], settings, 0)[1][0].reason


def test_a_setting_is_changed_only_when_asked_and_put_back(monkeypatch, tmp_path):
    size, monkey = tmp_path / "hugepages-64kB", monkeypatch.setattr
    size.mkdir()
    (tmp_path / "enabled").write_text("always [madvise] never")
    (size / "enabled").write_text("always inherit madvise [never]")
    monkey(system, "THP", tmp_path)
    with pytest.raises(NotPossible, match="not offered"), system.offered(64):
        pass
    with pytest.raises(ZeroDivisionError), system.offered(64, change=True):
        assert (size / "enabled").read_text() == "madvise"
        raise ZeroDivisionError
    assert (size / "enabled").read_text() == "never"
    (size / "enabled").write_text("always [inherit] madvise never")
    with system.offered(64):
        assert (size / "enabled").read_text() == "always [inherit] madvise never"


def test_every_rule_is_held_against_the_kernel_or_has_a_reason():
    told = [name for rules, _, _ in probes.PROBES for name in rules]
    others = [name for names in probes._OTHERS.values() for name in names]
    assert {*told, *others} == {rule.name for rule in RULES.values()}
    assert not set(told) & set(others) and len(others) == len(set(others))


@pytest.fixture(scope="module")
def flags():
    try:
        with system.PageFlags() as opened, system.Region(PAGE_SIZE) as region:
            region.bytes[0] = 1
            opened.at(region.address)
            yield opened
    except NotPossible as error:
        pytest.skip(f"the kernel's page flags: {error}")


TRIED = [probe for _, _, probe in probes.PROBES if probe is not probes.split_dirty_file]


@pytest.mark.parametrize("probe", TRIED, ids=lambda probe: probe.__name__)
def test_a_probe_agrees_with_this_kernel(probe, flags, tmp_path):
    try:
        right, saw = probe(flags, tmp_path)
    except NotPossible as error:
        pytest.skip(f"not possible here: {error}")
    assert right, saw
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def not_held(*_):
    yield


@pytest.mark.parametrize(
    ("probe", "holder"),
    [
        (probes.split_under_pin, "pinned"),
        (probes.split_under_reference, "referenced"),
        (probes.freeze_in_reclaim, "referenced"),
        (probes.freeze_in_seal, "pinned"),
    ],
    ids=lambda given: getattr(given, "__name__", given),
)
def test_a_probe_differs_where_nothing_holds_the_page(probe, holder, flags, monkeypatch, tmp_path):
    monkeypatch.setattr(system, holder, not_held)
    try:
        right, saw = probe(flags, tmp_path)
    except NotPossible as error:
        pytest.skip(f"not possible here: {error}")
    assert not right, saw


def test_a_probe_differs_where_the_flags_say_something_else(flags, monkeypatch, tmp_path):
    monkeypatch.setattr(system.PageFlags, "of", lambda self, frame: {"LRU"})
    seen = [
        probes._finding(rules, says, probe, tmp_path)
        for rules, says, probe in probes.PROBES
        if probe in (probes.drain_own, probes.drain_all, probes.writeback, probes.page_types)
    ]
    assert {one.verdict for one in seen} <= {probes.DIFFERS, probes.IMPOSSIBLE}
    assert any(one.verdict == probes.DIFFERS for one in seen)


def test_a_difference_is_exit_code_1(monkeypatch, tmp_path, capsys):
    found = [probes.Finding(("split",), "it splits", "it does not", probes.DIFFERS)]
    monkeypatch.setattr(probes, "findings", lambda folder: found)
    monkeypatch.setattr(measures, "measures", dict)
    for words, code in (([], 1), (["--no-kernel"], 0)):
        with pytest.raises(SystemExit) as left:
            main(["calibrate", "--folder", str(tmp_path), *words])
        assert left.value.code == code
        assert ("differs split" in capsys.readouterr().out) == bool(code)


def test_a_kernel_without_page_flags_is_not_possible_and_no_difference(monkeypatch, tmp_path):
    def refused(*_):
        raise NotPossible("needs root")

    monkeypatch.setattr(system.PageFlags, "_files", property(refused))
    found = probes.findings(tmp_path)
    assert {one.verdict for one in found if one.saw == "needs root"} == {probes.IMPOSSIBLE}
    assert probes.DIFFERS not in {one.verdict for one in found}
    seen = {rule for one in found if one.verdict == probes.AGREES for rule in one.rules}
    assert seen <= {"import-freeze", "reclaim-free", "drain-all"}, "these look at no page flags"
    assert {name for one in found for name in one.rules} == {rule.name for rule in RULES.values()}
