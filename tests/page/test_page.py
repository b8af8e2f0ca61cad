"""The checker that is translated to JavaScript against the interpreter: graphs, verdicts, classes and every word."""

import ast
import functools
import json
import re
import tomllib

import numpy as np
import pytest

from checking import PATHS, naive, story
from drawn_cases import case, fitting
from memfd_cases import SHIPPED, STORIES, on
from node import NEEDED
from paged import answers, link_of
from test_broken_rules import BROKEN
from test_second_opinion import ANSWERS, TABLES
from ultrafolio.check.search.graph import explore
from ultrafolio.check.verdicts.verdict import check
from ultrafolio.engine.load import mutant
from ultrafolio.errors import InputError
from ultrafolio.export.observation import hash_of, of_result
from ultrafolio.export.text_in import result_text
from ultrafolio.model import scenario
from ultrafolio.model.designs import DESIGNS, S390
from ultrafolio.model.layout import OWNERS, TASK
from ultrafolio.model.policies import PRESETS, find, find_any
from ultrafolio.page import build, link, sources, tables
from ultrafolio.page.names import Names, Untranslatable, fields_of
from ultrafolio.page.statements import Function

SMALL, FEW = 3_000, 50
FIELDS = ("verdict", "kind", "depth", "states", "edges")
EVERY = [(name, policy, wanted) for name in PATHS for policy, wanted in story(name).expect.items()]
PAIRS = [row for row in EVERY if row[2]["states"] <= SMALL]


def linked(name, policy):
    return link_of(story(name), name, find(policy, story(name).tables), policy)


@NEEDED
def test_every_shipped_pair_has_the_graph_and_the_class_that_its_file_expects():
    assert len(EVERY) > 600 and {policy for _, policy, _ in EVERY} >= set(PRESETS)
    for (name, policy, wanted), found in zip(EVERY, answers([linked(n, p) for n, p, _ in EVERY]), strict=True):
        assert {field: found[field] for field in FIELDS} == wanted, f"{name} under {policy}"


def same_text(pairs):
    found = answers([linked(name, policy) for name, policy in pairs])
    for (name, policy), answer in zip(pairs, found, strict=True):
        chosen = find(policy, story(name).tables)
        result = check(story(name), name, chosen, policy)
        assert answer["text"] == result_text(result), f"{name} under {policy}"
        assert answer["line"] == of_result(result, name, hash_of(story(name), chosen), "page")


@NEEDED
def test_the_text_is_that_of_the_command():
    few = [(name, policy) for name, policy, wanted in PAIRS if wanted["states"] <= 150][::6]
    kinds = {wanted["kind"] for name, policy, wanted in PAIRS if (name, policy) in few}
    assert kinds == {"safety", "fatal", "permanent", "livelock", "transient", "null"}
    same_text(few)


@NEEDED
@pytest.mark.slow
def test_the_text_of_every_small_pair_is_that_of_the_command():
    same_text([(name, policy) for name, policy, _ in PAIRS])


@NEEDED
def test_the_answers_written_by_hand_have_the_same_text():
    """Cases of each class that no shipped scenario has: a mutex whose holder might wake, a batch that nobody drains."""
    wanted, texts = [], []
    for name, (document, chosen, _, _) in ANSWERS.items():
        for policy in chosen:
            read, found = scenario.parse(document, name), find(policy, TABLES)
            wanted.append(link_of(read, name, found, policy))
            texts.append(result_text(check(read, name, found, policy)))
    for text, answer in zip(texts, answers(wanted), strict=True):
        assert without_command(answer["text"]) == without_command(text)


# ------------------------------------------------------------------------------------------------- random systems
@functools.cache
def drawn(number):
    return fitting(number, lambda made: explore(made.system(), max_states=SMALL).complete)[0]


def agree(cases):
    """The page says of these random systems what the checker says, word by word. Returns the kinds of verdicts."""
    wanted, texts, lines, kinds = [], [], [], set()
    for made in cases:
        read = scenario.parse(made.document, made.name)
        wanted.append(link_of(read, made.name, made.policy, "drawn"))
        result = check(read, made.name, made.policy, "drawn")
        texts.append(result_text(result))
        lines.append(of_result(result, made.name, hash_of(read, made.policy), "page"))
        kinds.add(result.worst.kind)
    for made, text, line, answer in zip(cases, texts, lines, answers(wanted), strict=True):
        assert without_command(answer["text"]) == without_command(text), made.name
        assert answer["line"] == line, made.name
    return kinds


def without_command(text):
    return re.sub(r"^reproduce: .*", "", text, flags=re.MULTILINE)


@NEEDED
def test_random_systems_have_the_same_text():
    agree([drawn(number) for number in range(FEW)])


@NEEDED
def test_a_system_begins_in_the_same_state():
    """Every field of every record, under policies that begin differently and random ones."""
    begins = ("split", "refuse-large", "whole-folio")
    made = [(story(name), name, find(policy), policy) for name in PATHS for policy in begins]
    for number in range(FEW):
        found = drawn(number)
        made.append((scenario.parse(found.document, found.name), found.name, found.policy, "drawn"))
    for (read, name, policy, policy_name), answer in zip(made, answers([link_of(*one) for one in made]), strict=True):
        state = scenario.system(read, policy).state
        rows = [value for section in OWNERS for row in getattr(state, section).tolist() for value in row]
        assert answer["first"][: len(rows)] == rows, f"{name} under {policy_name}"


# ---------------------------------------------------------------------------------------------- the translation
CHANGED = [name for name, (_, _, changed, _) in BROKEN.items() if changed]


@NEEDED
@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_rule_changes_the_page(name):
    """The graph under a rule broken on purpose is that of the interpreter with the same rule."""
    _, policy, changed, document = BROKEN[name]
    read = scenario.parse(
        {
            kind: tables if kind in ("memory", "features") else [{**one, "starts": 1} for one in tables]
            for kind, tables in document.items()
        },
        name,
    )
    (found,) = answers([link_of(read, "broken", find(policy), policy)], changed)
    graph = naive(scenario.system(read, find(policy)), rules=mutant(changed))
    assert (found["states"], found["edges"]) == (len(graph.states), sum(map(len, graph.edges)))


def test_changed_rules_are_not_those_that_are_shipped():
    assert sources.translated(BROKEN[CHANGED[0]][2]) != sources.translated()


@pytest.mark.parametrize(
    "form",
    [
        "k.i = k.i ** 2",
        "k.i = max([k.i], key=len)",
        "import os",
        "del k",
        "k.nothing = 1",
        "for q in range(3):\n        pass\n    k.i = q",
        "with s as x:\n        pass",
    ],
)
def test_a_form_of_python_that_is_not_known_is_refused(form):
    """Nothing is left out or guessed; the error names the function."""
    old = "    s.task[t].pc = UNPIN\n    return OK\n"
    with pytest.raises(Untranslatable, match="take_unpin"):
        sources.translated({old: f"    k = s.task[t]\n    {form}\n{old}"})


def test_a_record_goes_through_a_list_and_a_variable_hides_it():
    """Of a record its place stands in the list; a comprehension's own variable is no record of that name."""
    text = (
        "def f(s, t):\n    k = s.task[t]\n    ks = [s.task[a] for a in range(3)]\n"
        "    return [k + 1 for k in range(2)], [k.then for k in ks], k.then\n"
    )
    names, then = Names(fields=fields_of(S390)), list(TASK.names).index("then")
    (node,) = ast.parse(text).body
    made = Function(names, {}, "f", plain=False).written(node)
    assert f"ks = list(range(3)).map((a) => o_task + a * {len(TASK.names)});" in made
    assert f"[list(range(2)).map((k) => plus(k, 1)), list(ks).map((k) => s[k + {then}]), s[k + {then}]]" in made


def test_what_is_changed_must_stand_there_once():
    with pytest.raises(ValueError, match="not found exactly once"):
        sources.translated({"no such text": ""})


@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)
def test_every_rule_and_every_function_of_waits_is_translated(design):
    """Of the modules that a design shares with s390 its steps, and what its own modules call."""
    text = "\n".join(sources.translated()[design.name].written.values())
    made = {rule.function.__name__ for rule in design.rules.values()}
    for module in sources.modules(design):
        if design is S390 or module not in S390.modules:
            made |= set(re.findall(r"^@(?:fn|rule\((?:.|\n)*?\).*)\ndef (\w+)", sources.text_of(module), re.MULTILINE))
    assert len(made) > 100
    for name in made:
        assert re.search(rf"^function {name}_?\(", text, re.MULTILINE), name


# -------------------------------------------------------------------------------------------------------- the file
def test_the_page_is_one_small_file_that_loads_nothing():
    text = build.page()
    assert len(text.encode()) <= 230_000
    assert text.count("<script") == text.count("</script>") == 1 and "default-src 'none'" in text
    assert not re.search(r"""(?:src|href)=["'][^"'#]|@import|url\(|fetch\(|https?://""", text)
    assert build.page() == text


# ----------------------------------------------------------------------------------------------------------- links
def test_a_policy_is_looked_for_in_no_other_file(tmp_path):
    """A link names no file of the machine that reads it."""
    file = tmp_path / "mine.toml"
    file.write_text('[policy.mine]\nbase = "split"\n')
    address = linked("03-virtio", "split")["link"].replace("/split/", f"/{str(file).replace('/', '%2F')}%23mine/")
    with pytest.raises(InputError, match="unknown policy"):
        link.opened(address)


@pytest.mark.parametrize("name", PATHS)
def test_a_link_is_read_as_the_scenario_and_the_policy_that_it_was_made_of(name):
    for policy in (*PRESETS, "linux-6.17", "linux-7.1~42546fc642e9"):
        found = link.opened("https://example.org/page.html" + link.link(story(name), name, find(policy), policy))
        assert scenario.document(found.story) == scenario.document(story(name))
        assert (found.name, found.policy, found.known) == (name, policy, True)
        assert find(policy, found.story.tables) == find(policy)


@pytest.mark.parametrize(("name", "policy", "machine"), [one for n, one in enumerate(SHIPPED) if n % 7 == 0])
def test_a_link_of_guest_memfd_is_read_as_what_it_was_made_of(name, policy, machine):
    made = on(name, machine)
    chosen = find_any(policy, made.tables)
    found = link.opened(link.link(made, name, chosen, policy))
    assert (
        scenario.document(found.story) == scenario.document(made)
        and find_any(found.policy, found.story.tables) == chosen
    )
    assert found.known == (made.machine == STORIES[name].machine), "another machine than the shipped scenario's"


def test_links_of_random_scenarios_and_policies_lose_nothing():
    read = 0
    for number in range(300):
        try:
            made = case(number)
            wanted = scenario.parse(made.document, made.name)
        except InputError:
            continue
        found = link.opened(link.link(wanted, made.name, made.policy, "a policy/of # mine"))
        assert scenario.document(found.story) == scenario.document(wanted) and not found.known
        assert (found.name, find(found.policy, found.story.tables)) == (made.name, made.policy)
        read += 1
    assert read > 200


def test_a_link_is_short():
    lengths = sorted(len(linked(name, policy)["link"]) for name, policy, _ in PAIRS)
    assert lengths[len(lengths) // 2] <= 200 and lengths[-1] <= 300


def damaged():
    whole = linked("03-virtio", "whole-folio")["link"]
    yield from ("", "#", "#a/b", "#a/b/c", "#a/b/c/d", whole[:-9], whole[:60] + "!" + whole[61:], whole + "é")
    yield "#a/b/" + link.packed("not toml [")
    yield "#a/b/" + link.packed("x" * (link.MOST_TEXT + 1))
    yield "#a/b/" + link.packed("[memory]\nfolios = [0]\n")
    yield "#a/b/gIA"


@pytest.mark.parametrize("address", list(damaged()), ids=lambda text: text[:20] or "empty")
def test_a_damaged_link_is_refused(address):
    with pytest.raises(InputError):
        link.opened(address)


@NEEDED
def test_the_page_refuses_the_same_links():
    found = answers([{"link": address} if address else {"link": "#"} for address in damaged()])
    assert all("refused" in one for one in found), found


TEXT = '[memory]\nfolios = [1]\nstate = ["shared", "secure"]\n[[vcpu]]\ntouch = [1]\n[[virtio]]\npage = 0\n'
WRONG = {
    "a word that is no table": (TEXT + "[strange]\nx = 1\n", 7),
    "a field that is not there": (TEXT + "size = 1\n", 7),
    "a field twice": (TEXT + "page = 0\n", 7),
    "no value": (TEXT + "pages =\n", 7),
    "a bare word": (TEXT + "after = disk\n", 7),
    "too large": (TEXT + "pages = 513\n", 7),
    "no whole number": (TEXT + "pages = 1.5\n", 7),
    "true": (TEXT + "pages = true\n", 7),
    "half a line": (TEXT + "pages\n", 7),
    "no such page": (TEXT.replace("touch = [1]", "touch = [2]"), -1),
    "no such state": (TEXT.replace('"secure"', '"open"'), 2),
    "two states of one page": (TEXT.replace("[1]\nstate", "[0]\nstate"), 2),
    "nobody acts": ("[memory]\nfolios = [0]\n", -1),
    "no memory": ("[[vcpu]]\n", -1),
    "nothing": ("", -1),
    "folios in the wrong order": (TEXT.replace("[1]\nstate", "[0, 1]\nstate"), 1),
    "after nobody": (TEXT + 'after = "disk"\n', 7),
    "after itself": (TEXT + 'after = "virtio"\n', 7),
    "one bracket": (TEXT.replace("[[vcpu]]", "[vcpu]"), 3),
    "a needed field": (TEXT.replace("page = 0\n", ""), 5),
    "a circle": (TEXT.replace("touch = [1]", 'after = "virtio"') + 'after = "vcpu"\n', 4),
}


@NEEDED
def test_a_wrong_text_is_refused_with_its_line_as_the_command_refuses_it():
    found = answers([{"name": "x", "policy": "split", "text": text} for text, _ in WRONG.values()])
    for (name, (text, line)), answer in zip(WRONG.items(), found, strict=True):
        assert "refused" in answer and answer["line"] == line, (name, answer)
        with pytest.raises((InputError, tomllib.TOMLDecodeError)):
            scenario.parse(tomllib.loads(text), name)


@NEEDED
def test_a_design_or_a_machine_that_there_is_not_is_refused():
    """Fields of a scenario may be those of another design; the verdict would be of other rules."""
    heads = {
        'design = "s390"\nmachine = "s390-uv"\n': None,
        'machine = "software"\n': 0,
        "design = 1\n": 0,
        'design = "guest"\n': 0,
        'design = "guest_memfd"\nmachine = "software"\n': 7,
        'design = "guest_memfd"\nmachine = "s390-uv"\n': 1,
    }
    found = answers([{"name": "x", "policy": "split", "text": head + TEXT} for head in heads])
    assert [one.get("line") if "refused" in one else None for one in found] == list(heads.values())
    assert found[0]["verdict"] == "holds" and found[3]["refused"] == 'design is "guest"; allowed: s390, guest_memfd'
    assert "virtio" in found[4]["refused"] and "guest_memfd" in found[4]["refused"]


@NEEDED
def test_a_policy_that_does_not_exist_is_refused():
    table = '[policy.mine]\nbase = "split"\n'
    wrong = ["nope", "mine"]
    texts = [
        TEXT,
        TEXT + table + 'refs = "none"\n',
        TEXT + table + 'variants = ["nope"]\n',
        TEXT + '[policy.split]\nbase = "split"\n',
        TEXT + '[policy.mine]\nbase = "nope"\n',
    ]
    names = [wrong[0], "mine", "mine", "split", "mine"]
    found = answers([{"name": "x", "policy": name, "text": text} for name, text in zip(names, texts, strict=True)])
    assert all("refused" in one for one in found), found
    (right,) = answers([{"name": "x", "policy": "mine", "text": TEXT + table + 'refs = "page" # a comment\n'}])
    assert (
        right["states"]
        == check(
            scenario.parse(tomllib.loads(TEXT), "x"),
            "x",
            find("mine", {"mine": {"base": "split", "refs": "page"}}),
            "mine",
        ).states
    )


@NEEDED
def test_a_system_beyond_the_bound_is_told_and_not_judged(monkeypatch):
    monkeypatch.setattr(build, "MOST_STATES", 40)
    (found,) = answers([linked("03-virtio", "whole-folio")])
    assert found["verdict"] == "unknown" and not found["complete"] and found["states"] > 40
    assert "reproduce: ultrafolio check 03-virtio --policy whole-folio" in found["text"]


@NEEDED
def test_an_edited_scenario_is_told_with_a_command_that_takes_it():
    text = TEXT.replace("page = 0", "page = 1")
    (found,) = answers([{"name": "mine", "policy": "split", "text": text}])
    (command,) = re.findall(r"reproduce: ultrafolio check '(#.*)'", found["text"])
    back = link.opened(command)
    assert (back.name, back.policy, back.known) == ("mine", "split", False)
    assert scenario.document(back.story) == scenario.document(scenario.parse(tomllib.loads(text), "mine"))


def test_numbers_of_the_state_fit_in_sixteen_bits():
    """The page keeps every field in 16 bits with a sign: the largest that the readers accept fit."""
    most = {
        field.high
        for known in scenario.TABLES.values()
        for table in (known.memory, *known.actors.values())
        for field in table.values()
        if field.kind in ("int", "ints")
    }
    assert max(most) + 512 < np.iinfo(np.int16).max
    assert json.loads(json.dumps(tables.of_all())), "the tables are JSON"
