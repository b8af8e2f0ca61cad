"""`ultrafolio check --vary`: the verdict per size of a scenario, the first size that fails, the end of a series at a
limit."""

import json
import re
import shlex

import pytest

from checking import PATHS
from memfd_cases import STORIES
from ultrafolio.cli import main
from ultrafolio.errors import InputError
from ultrafolio.fields import Field
from ultrafolio.model import scenario, vary
from ultrafolio.model.layout import ACTOR_KINDS
from ultrafolio.model.scenario import document

ALONE = """
    title = "one vCPU imports a dirty iomap folio"
    [memory]
    folios = [1]
    backing = "iomap"
    state = ["non_secure"]
    [[vcpu]]
    touch = [0]
"""
"""Scenario 18 without its second vCPU."""
TWO_FOLIOS = {
    "memory": {"folios": [2, 1], "state": ["secure", "shared", "exported", "pinned_shared", "secure", "non_secure"],
               "owner": [0, 0, 0, 0, 1, 1], "refuses": [5]},
    "vcpu": [{"touch": [0, 5], "share": [1], "unshare": [4]}, {"guest": 1, "cpu": 2, "touch": [4]}],
    "disk": [{"page": 4, "pages": 2}], "lru": [{"page": [1, 4], "cpu": 3}],
}  # fmt: skip


@pytest.fixture
def typed(capsys):
    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main(["check", *map(str, words)])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "alone.toml"
    path.write_text(ALONE)
    return path


def records(out):
    return [json.loads(line) for line in out.splitlines()]


def sized(tables, **size):
    """The scenario at a size, as the document that the reader takes."""
    made = document(vary.sized(scenario.parse(tables, "test"), **size))
    scenario.parse(made, "test")
    return made


# ------------------------------------------------------------------------------------------------- ranges
@pytest.mark.parametrize(
    ("text", "values"),
    [("vcpus=1..4", [1, 2, 3, 4]), ("vcpus=16", [16]), ("order=0..0", [0]), ("order=9,0,2", [0, 2, 9])],
)
def test_a_range_is_read(text, values):
    assert vary.parse_range(text) == (text.split("=")[0], values)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "order=A..B"),
        ("vcpus", "vcpus=A..B"),
        ("vcpu=1", "did you mean 'vcpus'"),
        ("disks=1", "vcpus, order"),
        ("vcpus=", "1 to 16"),
        ("vcpus=0..2", "1 to 16"),
        ("vcpus=17", "1 to 16"),
        ("order=0..10", "0 to 9"),
        ("order=3..1", "ends before it begins"),
        ("order=1..", "order=A..B"),
        ("order=-1", "0 to 9"),
        ("order=1..2..3", "order=A,B,C"),
        ("order=1,,2", "order=A"),
        ("order=1,2,1", "each number once"),
        ("order=two", "0 to 9"),
        ("order= 1", "0 to 9"),
        ("order=0..1,3", "order=A..B"),
        ("order=" + "9" * 5000, "0 to"),
    ],
)
def test_a_range_that_means_nothing_is_refused_with_what_is_allowed(typed, file, text, hint):
    code, out, err = typed(file, "--policy", "split", "--vary", text)
    assert (code, out) == (2, "") and err.startswith("ultrafolio: --vary") and hint in err


def test_a_name_is_given_once():
    with pytest.raises(InputError, match="order once"):
        vary.sizes(["order=1", "order=2"])


def test_the_smallest_size_comes_first_however_they_are_given():
    wanted = [{"vcpus": n, "order": k} for n in (1, 3) for k in (0, 1)]
    assert vary.sizes(["order=0..1", "vcpus=3,1"]) == wanted
    assert vary.sizes(["order=0..1"]) == [{"order": 0}, {"order": 1}]


# ------------------------------------------------------------------------------------------------- vCPUs
def test_fewer_vcpus_are_the_first_ones():
    assert [v["touch"] for v in sized(TWO_FOLIOS, vcpus=1)["vcpu"]] == [[0, 5]]
    assert sized(TWO_FOLIOS, vcpus=2) == document(scenario.parse(TWO_FOLIOS, "test"))


def test_further_vcpus_are_copies_of_the_last_on_free_cpus():
    made = sized(TWO_FOLIOS, vcpus=5)
    was = sized(TWO_FOLIOS, vcpus=2)
    assert made["vcpu"][:2] == was["vcpu"] and made["disk"] == was["disk"] and made["memory"] == was["memory"]
    assert [v["cpu"] for v in made["vcpu"]] == [0, 2, 1, 4, 5], "3 is that of the LRU batch"
    assert all({**v, "cpu": 2} == was["vcpu"][1] for v in made["vcpu"][2:])
    kinds = [kind for kind, _ in vary.sized(scenario.parse(TWO_FOLIOS, "test"), vcpus=5).actors]
    assert kinds == sorted(kinds), "as the reader orders them"


def test_there_must_be_a_vcpu_and_a_free_cpu():
    with pytest.raises(InputError, match="no vCPU to copy"):
        sized({"memory": {"folios": [0]}, "disk": [{"page": 0}]}, vcpus=2)
    lru = [{"cpu": n} for n in range(1, 63)]
    full = {"memory": {"folios": [0]}, "vcpu": [{}], "lru": lru}
    assert [v["cpu"] for v in sized(full, vcpus=2)["vcpu"]] == [0, 63]
    with pytest.raises(InputError, match="no free CPU"):
        sized(full, vcpus=3)


@pytest.mark.parametrize(
    ("after", "possible"), [("", True), ("vcpu", True), ("vcpu 0", True), ("disk 1", True), ("vcpu 1", False)]
)
def test_an_actor_cannot_come_after_a_vcpu_that_is_left_out(after, possible):
    story = scenario.parse(TWO_FOLIOS, "test")
    story.actors[-1][1]["after"] = after
    if possible:
        assert vary.sized(story, vcpus=1).actors[-1][1]["after"] == after
    else:
        with pytest.raises(InputError, match="actor lru comes after vcpu 1, which does not exist with vcpus=1"):
            vary.sized(story, vcpus=1)
    assert vary.sized(story, vcpus=3).actors[-1][1]["after"] == after


# ------------------------------------------------------------------------------------------------- order
def test_at_a_larger_order_pages_keep_folio_and_place_and_patterns_go_on():
    made = sized(TWO_FOLIOS, order=3)
    memory = made["memory"]
    assert memory["folios"] == [3, 3]
    assert memory["state"] == ["secure", "shared", "exported", *["pinned_shared"] * 5, "secure", *["non_secure"] * 7]
    assert memory["owner"] == [0] * 8 + [1] * 8 and memory["refuses"] == [9]
    first, second = made["vcpu"]
    assert (first["touch"], first["share"], first["unshare"], second["touch"]) == ([0, 9], [1], [8], [8])
    assert (made["disk"][0]["page"], made["disk"][0]["pages"], made["lru"][0]["page"]) == (8, 2, [1, 8])


def test_at_a_smaller_order_patterns_are_cut():
    made = sized(TWO_FOLIOS, order=1)
    assert made["memory"]["folios"] == [1, 1]
    assert made["memory"]["state"] == ["secure", "shared", "secure", "non_secure"]
    assert made["memory"]["owner"] == [0, 0, 1, 1] and made["memory"]["refuses"] == [3]
    assert made["vcpu"][0]["touch"] == [0, 3] and made["disk"][0]["page"] == 2


def test_an_empty_list_still_means_all_pages_and_one_word_all_of_them():
    tables = {"memory": {"folios": [0, 0], "state": ["shared"]}, "vcpu": [{}], "writeback": [{}]}
    made = sized(tables, order=2)
    assert made["memory"]["state"] == ["shared"] and made["vcpu"][0]["touch"] == made["writeback"][0]["page"] == []


@pytest.mark.parametrize(
    ("table", "order", "reason"),
    [
        ({"vcpu": [{"touch": [5]}]}, 0, "page 1 of folio 1 does not exist at order 0"),
        ({"vcpu": [{"share": [2]}]}, 1, "page 2 of folio 0 does not exist at order 1"),
        ({"mapping": [{"page": [3]}]}, 1, "page 3 of folio 0 does not exist at order 1"),
        ({"disk": [{"page": 0, "pages": 3}]}, 1, "page 2 of folio 0 does not exist at order 1"),
        ({"disk": [{"page": 3, "pages": 2}]}, 3, "pages 3 to 4 of the scenario lie in several folios"),
    ],
)
def test_a_page_that_a_size_lacks_makes_it_not_possible(table, order, reason):
    tables = {"memory": {"folios": [2, 1]}, **table}
    with pytest.raises(InputError, match=reason):
        sized(tables, order=order)


def test_a_refused_page_and_a_page_too_far_are_named_too():
    with pytest.raises(InputError, match="page 1 of folio 1 does not exist at order 0"):
        sized(TWO_FOLIOS | {"vcpu": [{}]}, order=0)
    many = {"memory": {"folios": [0] * 9}, "vcpu": [{"touch": [8]}]}
    with pytest.raises(InputError, match="would be page 4096 at order 9, and 4095 is the last"):
        sized(many, order=9)


def test_page_fields_of_a_new_kind_of_actor_are_known_by_their_bounds(monkeypatch):
    pages = Field("ints", [], 0, 4095)
    new = {"read": pages, "write": pages, "page": Field("int", None, 0, 4095), "starts": Field("int", 1, 0, 255)}
    monkeypatch.setitem(scenario.ACTORS, "tamper", new)
    story = scenario.Scenario(
        "",
        {"folios": [1, 1], "state": ["secure"], "owner": [0], "refuses": []},
        {},
        [
            (ACTOR_KINDS.index("tamper"), {"read": [1, 2], "write": [3], "page": None, "starts": 3}),
            (ACTOR_KINDS.index("tamper"), {"read": [], "write": [], "page": 2, "starts": 2}),
        ],
    )
    assert [actor for _, actor in vary.sized(story, order=2).actors] == [
        {"read": [1, 4], "write": [5], "page": None, "starts": 3},
        {"read": [], "write": [], "page": 4, "starts": 2},
    ]


@pytest.mark.parametrize("name", PATHS)
def test_every_shipped_scenario_stays_one_at_every_size(name):
    """A size is possible, or is said not to be; a scenario at the size it has is itself."""
    story, tried = scenario.read(PATHS[name]), 0
    for size in vary.sizes(["vcpus=1..4", "order=0..4"]):
        try:
            made = vary.sized(story, **size)
        except InputError as error:
            assert error.what and error.value is None
            continue
        scenario.parse(document(made), name)
        assert {*made.memory["folios"]} == {size["order"]}
        tried += 1
    assert tried
    orders = {*story.memory["folios"]}
    if len(orders) == 1:
        assert vary.sized(story, order=orders.pop()) == story


@pytest.mark.parametrize("name", STORIES)
def test_a_scenario_of_guest_memfd_has_sizes_too(name):
    """Its folios have order 0 or 1; its lists of pages in [memory] and its actors keep their pages."""
    story, tried = STORIES[name], 0
    with pytest.raises(InputError, match="guest_memfd has no folio of order 2: 1 is the highest"):
        vary.sized(story, order=2)
    for size in vary.sizes(["vcpus=1..2", "order=0..1"]):
        try:
            made = vary.sized(story, **size)
        except InputError as error:
            assert error.what and error.value is None
            continue
        scenario.parse(document(made), name)
        tried += 1
    orders = {*story.memory["folios"]}
    assert len(orders) > 1 or vary.sized(story, order=orders.pop()) == story
    assert tried or not any(kind == ACTOR_KINDS.index("vcpu") for kind, _ in story.actors)


def test_pages_that_a_machine_refuses_keep_their_folio():
    tables = {"design": "guest_memfd", "memory": {"folios": [0, 0], "refuses": [1], "never": [0]}, "vcpu": [{}]}
    made = sized(tables, order=1)["memory"]
    assert (made["folios"], made["refuses"], made["never"]) == ([1, 1], [2], [0])


# ------------------------------------------------------------------------------------------------- the command
def test_the_livelock_of_two_vcpus_is_found_from_a_file_with_one(typed, file):
    code, out, _ = typed(file, "--policy", "split-writeback", "--vary", "vcpus=1..2", "--vary", "order=0..2")
    rows = [line.split() for line in out.splitlines()]
    assert code == 1
    assert rows[0][:3] == ["size", "states", "verdict"]
    assert [row[:2] + row[3:4] for row in rows[1:7]] == [
        ["vcpus=1", "order=0", "holds"],
        ["vcpus=1", "order=1", "holds"],
        ["vcpus=1", "order=2", "holds"],
        ["vcpus=2", "order=0", "holds"],
        ["vcpus=2", "order=1", "violated,"],
        ["vcpus=2", "order=2", "violated,"],
    ]
    assert rows[5][4] == "livelock" and "vcpu 0 (touch page 0), held by vcpu 1" in " ".join(rows[5])
    assert "first that fails: vcpus=2 order=1 under split-writeback (livelock)" in out


def test_the_commands_of_a_table_give_the_story_and_the_table(typed, file):
    words = file, "--policy", "split-writeback", "--policy", "per-page", "--vary", "vcpus=1..2"
    code, out, _ = typed(*words)
    assert code == 1 and "none fails up to vcpus=2 under per-page" in out
    (line,) = re.findall(r"^reproduce: ultrafolio check (.+)$", out, re.MULTILINE)
    assert line == f"{file} --policy split-writeback --vary vcpus=2"
    code, story, _ = typed(*shlex.split(line))
    assert code == 1 and "-- from here for ever:" in story
    assert story.startswith("vcpus=2:\n") and story.rstrip().endswith(f"reproduce: ultrafolio check {line}")
    (line,) = re.findall(r"^reproduce the table: ultrafolio check (.+)$", out, re.MULTILINE)
    assert typed(*shlex.split(line))[1] == out


def test_a_record_has_its_size_and_its_own_command(typed, file):
    code, out, err = typed(file, "--policy", "split-writeback", "--vary", "vcpus=1,2", "--vary", "order=1", "--json")
    found = records(out)
    assert code == 1 and [record["size"] for record in found] == [{"vcpus": n, "order": 1} for n in (1, 2)]
    assert [record["verdict"] for record in found] == ["holds", "violated"] and found[1]["kind"] == "livelock"
    assert "first that fails: vcpus=2 order=1" in err
    assert typed(*shlex.split(found[1]["reproduce"])[2:])[1] == out.splitlines()[1] + "\n"


def test_a_size_that_is_not_possible_is_a_row(typed, file):
    file.write_text(ALONE.replace("[0]", "[1]"))
    words = file, "--policy", "per-page", "--vary", "order=0..1"
    code, out, _ = typed(*words)
    assert code == 0 and "not possible  page 1 of folio 0 does not exist at order 0" in out
    assert "none fails up to order=1 under per-page (1 of 2 sizes not possible)" in out
    first, second = records(typed(*words, "--json")[1])
    assert (first["verdict"], first["kind"], first["size"]) == ("not possible", None, {"order": 0})
    assert first["reason"] == "page 1 of folio 0 does not exist at order 0" and second["verdict"] == "holds"


def test_no_possible_size_is_bad_input(typed, file):
    file.write_text(ALONE.replace("[0]", "[1]"))
    for words in (["--vary", "order=0"], ["--vary", "order=0", "--vary", "vcpus=1..2"]):
        code, _, err = typed(file, "--policy", "per-page", *words)
        assert code == 2 and "no size is possible" in err and "page 1 of folio 0 does not exist at order 0" in err


def test_a_limit_is_named_and_ends_the_series_of_its_policy(typed, file):
    words = file, "--policy", "import-lock", "--policy", "refuse-large", "--vary", "vcpus=1..4", "--max-states", 100
    code, out, err = typed(*words, "--json")
    found = records(out)
    assert code == 1
    assert [(r["policy"], r["size"]["vcpus"], r["verdict"]) for r in found if r["policy"] == "import-lock"] == [
        ("import-lock", 1, "holds"),
        ("import-lock", 2, "unknown"),
    ]
    assert "refuse-large" in {r["policy"] for r in found}, "another policy's series goes on"
    assert (
        "none fails up to vcpus=1 under import-lock; limit of 100 states reached at vcpus=2, the 2 sizes after it "
        "were not tried"
    ) in err
    code, out, _ = typed(file, "--policy", "import-lock", "--vary", "vcpus=1..2", "--max-states", 100)
    assert code == 3 and "unknown  limit of 100 states reached" in out


def test_a_failure_before_the_limit_is_still_the_first(typed, file):
    code, out, _ = typed(file, "--policy", "split-writeback", "--vary", "vcpus=2..4", "--max-states", 2000)
    assert code == 1
    assert (
        "first that fails: vcpus=2 under split-writeback (livelock); limit of 2000 states reached at vcpus=3, "
        "the size after it was not tried"
    ) in out
    assert "--max-states 2000 --vary vcpus=2\n" in out


def test_more_actors_than_can_be_checked_are_a_limit(typed, file):
    file.write_text("[memory]\nfolios = [0]\n[[vcpu]]\n" + "[[mapping]]\nstarts = 0\n" * 62)
    code, out, _ = typed(file, "--policy", "per-page", "--vary", "vcpus=1..3")
    assert code == 3
    assert (
        "none fails up to vcpus=1 under per-page; limit of 63 actors reached: it would have 64 at vcpus=2, "
        "the size after it was not tried"
    ) in out


def test_safety_alone_says_nothing_of_waiting(typed, file):
    code, out, _ = typed(file, "--policy", "split-writeback", "--vary", "vcpus=1..2", "--safety")
    assert code == 0 and "leads-to properties were not asked for" in out


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--all"], "--all"),
        (["--expect"], "--expect"),
        (["--export", "promela"], "--export"),
        (["--save", "trace.json"], "--save"),
        (["--diff-policy", "split", "import-lock"], "--diff-policy"),
        (["--format", "mermaid"], "--format"),
        ([PATHS["03-virtio"]], "2 files"),
    ],
)
def test_what_is_not_about_sizes_is_refused_with_the_reason(typed, file, words, hint):
    code, out, err = typed(file, "--vary", "vcpus=1..2", *words)
    assert (code, out) == (2, "") and err.startswith("ultrafolio: --vary") and hint in err


def test_vary_needs_a_file_too(typed):
    code, out, err = typed("--vary", "vcpus=1..2")
    assert (code, out) == (2, "") and "no scenario given" in err


def test_sizes_of_guest_memfd_are_checked_on_each_machine(typed):
    """Under presets with huge pages too, since one of the sizes has them; each row's command gives its record."""
    words = "g16-vfio-pin", "--vary", "order=0..1", "--machine", "all", "--json"
    code, out, err = typed(*words)
    found = records(out)
    series = {(r["policy"], r["scope"]["machine"]) for r in found}
    assert code == 1 and len(found) == 2 * len(series) and ("gmem-hugetlb-2025-12", "snp") in series
    assert ("pkvm", "pkvm") in series and ("pkvm", "snp") not in series, "a policy for one machine"
    assert "first that fails: order=0 under gmem-7.4 on tdx (vmm-bound)" in err
    for record in found:
        if record["scope"]["machine"] == "cca":
            assert "--machine cca --vary order=" in record["reproduce"]
    assert typed(*shlex.split(found[-1]["reproduce"])[2:])[1] == out.splitlines()[-1] + "\n"
    code, out, _ = typed("g16-vfio-pin", "--policy", "gmem-7.4", "--vary", "order=1..2", "--machine", "snp")
    said = " ".join(out.split())
    assert code == 1 and "order=2 not possible a scenario of the design guest_memfd has no folio of order 2" in said
    assert "machine" not in out.splitlines()[0], "the rows are of one"


def test_a_policy_of_another_design_is_refused_once(typed):
    code, out, err = typed("g16-vfio-pin", "--policy", "split", "--vary", "vcpus=1..2")
    assert (code, out) == (2, "") and "a policy of another design" in err
