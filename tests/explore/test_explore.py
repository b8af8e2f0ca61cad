"""Walks of the state graph: paths equal those of the checker, refusals name their guard, expressions are safe."""

import json
import os
import re
import shlex
import signal

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from checking import PATHS, ROOT, checked, finding, naive, story
from test_guides import copy, shell  # noqa: F401
from ultrafolio.check.verdicts.replay import frozen
from ultrafolio.commands import explore as command
from ultrafolio.errors import InputError
from ultrafolio.explore import embed, page
from ultrafolio.explore.expression import compiled
from ultrafolio.explore.goto import Guide
from ultrafolio.explore.node import changes, node, properties
from ultrafolio.explore.serve import serve
from ultrafolio.explore.text import record, shown
from ultrafolio.explore.walk import MAX_STEPS, Walk, parse_path, path_text
from ultrafolio.model import layout, scenario
from ultrafolio.model.policies import find
from ultrafolio.waits.words import stalls

VIRTIO = "03-virtio"
STORIES = [(VIRTIO, "whole-folio"), (VIRTIO, "whole-folio-literal"), (VIRTIO, "refuse-large"), (VIRTIO, "split"),
           ("10-iomap-no-writeback", "split"), ("30-import-mutex", "import-lock"),
           ("13-mapped-twice", "per-page")]  # fmt: skip


def walk(name=VIRTIO, policy="whole-folio"):
    made = story(name)
    return Walk(made, str(PATHS[name].relative_to(ROOT)), find(policy, made.tables), policy)


# ------------------------------------------------------------------------------------------- paths
@pytest.mark.parametrize(("name", "policy"), STORIES)
def test_the_story_is_the_checkers(name, policy):
    guide, worst = Guide(walk(name, policy)), checked(name, policy).worst
    steps = [*worst.steps, *worst.cycle]
    trail = guide.walk.follow([*guide.story.path, *guide.story.loop])
    assert guide.story.exists == bool(steps)
    assert [move.by for move in trail.moves] == [step.by for step in steps]
    assert [move.step.outcome for move in trail.moves] == [step.outcome for step in steps]
    if steps:
        assert frozen(trail.here) == steps[-1].after
    if worst.cycle:
        assert frozen(trail.here) == frozen(trail.states[len(guide.story.path)])


@pytest.mark.parametrize(("name", "policy"), STORIES)
def test_the_walk_reaches_the_checkers_graph(name, policy):
    result, guide = checked(name, policy), Guide(walk(name, policy))
    made = embed.data([guide], "")["graphs"][0]
    assert len(made["nodes"]) == result.states and sum(len(n[4]) for n in made["nodes"]) == result.edges
    assert made["coverage"] == f"all {result.states} states of the graph"


@given(st.lists(st.integers(0, 3), max_size=12))
def test_a_path_means_the_same_again(indices):
    one, other = walk("09-split-early-pin", "split"), walk("09-split-early-pin", "split")
    path = []
    for index in indices:
        enabled = one.enabled(one.follow(path).here)
        path.append(index % len(enabled))
    assert frozen(one.follow(path).here) == frozen(other.follow(parse_path(path_text(path))).here)
    assert one.indices([move.by for move in one.follow(path).moves]) == tuple(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1..0", "not an index path"),
        ("a", "not an index path"),
        ("1.-1", "not an index path"),
        ("1" * 9, "not an index"),
        ("²", "not an index path"),
        (".".join(["0"] * (MAX_STEPS + 1)), "the path is too long"),
    ],
)
def test_what_is_no_path_is_refused(text, says):
    with pytest.raises(InputError, match=says):
        parse_path(text)


def test_an_index_that_is_not_there_is_explained():
    with pytest.raises(InputError) as caught:
        walk().follow([1, 1, 7])
    assert str(caught.value).splitlines()[0] == "index 7 at step 3: only 2 steps are enabled"
    assert "--path 1.1" in str(caught.value) and "0 to 1" in str(caught.value)


# ------------------------------------------------------------------------------------------- states
def test_a_refused_step_names_its_guard_its_condition_and_who_holds_it():
    graph = naive(walk("30-import-mutex", "import-lock").system)
    seen = walk("30-import-mutex", "import-lock")
    found = {move["guard"]: move for state in graph.states for move in node(seen, state)["refused"] if "meets" in move}
    mutex = found["W_MUTEX"]
    assert mutex["rule"] == "import-mutex" and mutex["why"] == "the VM's import mutex" and "mutex" in mutex["condition"]
    assert re.fullmatch(r"vcpu \d", mutex["meets"]["held"]) and mutex["meets"]["held"] not in mutex["what"]


def test_enabled_and_refused_are_every_move():
    seen = walk("18-iomap-two-vcpus", "split-writeback")
    for state in naive(seen.system).states[::29]:
        made = node(seen, state)
        moves = seen.moves(state)
        assert len(made["enabled"]) + len(made["refused"]) == len(moves)
        assert [m.index for m in moves if m.index is not None] == list(range(len(made["enabled"])))
        assert all(move["guard"].startswith("W_") for move in made["refused"])


def test_a_step_that_meets_an_obstacle_says_who_holds_it():
    guide = Guide(walk())
    around = guide.walk.follow([*guide.story.path, *guide.story.loop])
    busy = [n for n, move in enumerate(around.moves) if move.outcome_word == "EBUSY"]
    assert busy
    made = node(guide.walk, around.states[busy[0]])["enabled"][around.path[busy[0]]]
    assert made["meets"]["held"] == "virtio 1's long-term pin on page 0, another page of the folio"


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        *STORIES,
        ("56-neighbour-of-an-expected-wait", "whole-folio"),
        ("17-iomap-endless-writeback", "per-page"),
        ("20-unshare-under-ring", "per-page"),
    ],
)
def test_who_waits_is_what_one_state_tells(name, policy):
    """In every state of the way to the counterexample and around its loop: text, record and file say the stalls."""
    (name,) = (known for known in PATHS if known[:2] == name[:2])
    guide = Guide(walk(name, policy))
    path, seen = [*guide.story.path, *guide.story.loop], set()
    held = embed.data([guide], "")
    for end in range(len(path) + 1):
        trail = guide.walk.follow(path[:end])
        told = stalls(trail.here)
        wanted = [
            {"actor": some.actor, "kind": some.kind}
            | {field: getattr(some.wait, field) for field in ("waiter", "waits_for", "held_by", "released_by")}
            for some in told
        ]
        made = record(guide.walk, trail, [])
        assert made["stalls"] == wanted
        text = " ".join(shown(guide.walk, made).split())
        assert all(f"{some.kind}: {some.wait.line()}" in text for some in told)
        seen |= {json.dumps(some) for some in wanted}
    in_file = {json.dumps(held["pool"][n]) for made in held["graphs"][0]["nodes"] for n in made[8]}
    assert seen <= in_file


def test_the_counterexample_of_a_ring_says_permanent_and_who_holds_it():
    guide = Guide(walk())
    text = shown(guide.walk, record(guide.walk, guide.walk.follow(guide.goto("counterexample").path), []))
    made = " ".join(text.split())
    assert "permanent: vcpu 0 (touch page 1) waits for the extra references of the folio of page 1" in made
    assert "held by virtio 1's long-term pin on page 0" in made


def test_the_difference_is_the_steps():
    guide = Guide(walk())
    trail = guide.walk.follow(guide.goto("uv[1].state == EXPORTED").path)
    before, here = (node(guide.walk, state) for state in trail.states[-2:])
    assert ("uv[1].state", "SECURE", "EXPORTED") in changes(guide.walk, before, here)
    assert not changes(guide.walk, here, here)
    text = shown(guide.walk, record(guide.walk, trail, []))
    line = text.splitlines().index("  page 1   S------ -> E------  folio of page 0")
    assert text.splitlines()[line + 1] == " " * 22 + "^"


def test_properties_here_and_earlier():
    guide = Guide(walk(VIRTIO, "whole-folio-literal"))
    number = finding(checked(VIRTIO, "whole-folio-literal"), "a page that is shared").name
    trail = guide.walk.follow(guide.story.path)

    def truth(at):
        made = properties(guide.walk, trail.moves[:at], node(guide.walk, trail.states[at]))
        return {one["name"]: (one["truth"], one["where"]) for one in made}

    last = len(trail.moves)
    assert truth(last)[number] == ("broken", "by the step that led here")
    assert truth(last - 1)[number] == ("holds", "")
    further = guide.walk.follow([*guide.story.path, 0])
    after = properties(guide.walk, further.moves, node(guide.walk, further.here))
    assert next(one["where"] for one in after if one["name"] == number) == f"broken by step {last}"
    pinning = {one["truth"] for n in range(last) for one in [{"truth": truth(n)["pin leads to granted or refused"][0]}]}
    assert pinning == {"holds", "waiting"}


def test_a_state_that_breaks_a_property_names_the_page():
    seen = walk()
    state = seen.follow([]).here
    state.mm[0].arch = 0
    try:
        broken = properties(seen, [], node(seen, state))[1]
    finally:
        state.mm[0].arch = 1
    assert (broken["truth"], broken["where"]) == ("broken", "page 1")


# ------------------------------------------------------------------------------------------- in step
def test_policies_in_step():
    lead, other = Guide(walk()), walk(VIRTIO, "split")
    followed = other.in_step(lead.walk.follow(lead.story.path))
    trail = other.follow(followed.path)
    missed = [number for first, last, _ in followed.skipped for number in range(first, last + 1)]
    wanted = [m for n, m in enumerate(lead.walk.follow(lead.story.path).moves, 1) if n not in missed]
    assert [(m.actor, m.op, m.page) for m in trail.moves] == [(m.actor, m.op, m.page) for m in wanted]
    assert followed.skipped == [(8, 9, "virtio 1 ring-teardown waits for the guest's reboot or shutdown")]
    ends = [trail.here.uv[1].state, lead.walk.follow(lead.story.path).here.uv[1].state]
    assert ends == [layout.SECURE, layout.EXPORTED]


def test_in_step_with_itself_nothing_is_skipped():
    guide = Guide(walk("09-split-early-pin", "split"))
    trail = guide.walk.follow(guide.story.path)
    assert walk("09-split-early-pin", "split").in_step(trail) == type(walk().in_step(trail))(guide.story.path, [])


# ------------------------------------------------------------------------------------------- questions
QUESTIONS = ["uv[1].state == EXPORTED", "uv[1].state == EXPORTED and mm[0].longs > 0", "not actor[0].op == NOTHING",
             "1 < task[0].pc <= IMPORT_FREEZE", "mm[0].refs - 1 == 0 or vm[0].mutex", "-(mm[0].refs + 2) * 3 < -6",
             "task[0].tries == 3", "mm[0].refs", "not (uv[0].state == SHARED)", "2 == 2 == 2 and pt[0].present",
             "-" * 299 + "1"]  # fmt: skip


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_search_finds_a_nearest_state(question):
    guide, graph = Guide(walk()), naive(walk().system)

    def plainly(state):  # the layout's constants and the sections are all that an expression can name
        return eval(question, {"__builtins__": {}, **vars(layout), **state._asdict()})

    depths = [depth for depth, state in zip(graph.depth, graph.states, strict=True) if plainly(state)]
    found = guide.goto(question)
    assert (found.path is None) == (not depths)
    if depths:
        assert len(found.path) == min(depths) and plainly(guide.walk.follow(found.path).here)
    else:
        assert found.message.startswith(f"none of {len(graph.depth)} reachable states") and found.complete


WRONG = [
    ("uv[1].stat == 1", 7, "no field 'stat' in uv", "did you mean state?"),
    ("uv[7].state", 4, "no uv[7]", "uv[0] to uv[1]"),
    ("uv[-1].state", 4, "no uv[-1]", "uv[0] to uv[1]"),
    ("uv[True].state", 4, "no uv[True]", "uv[0] to uv[1]"),
    ("mm[0].pins > 0 and vu[0].state", 20, "no section 'vu'", "uv, mm, vm"),
    ("uv[0].state == EXPORTD", 16, "'EXPORTD' is no constant", "did you mean EXPORTED?"),
    ("uv == 1", 1, "'uv' is no constant", "did you mean uv[0].state?"),
    ("__import__('os')", 1, "\"__import__('os')\" is not allowed", "comparisons|constants"),
    ("uv[0].__class__", 7, "no field '__class__' in uv", "state"),
    ("1 if 1 else 2", 1, "'1 if 1 else 2' is not allowed", "and, or, not"),
    ("2 ** 99", 1, "is not allowed", "+ - *"),
    ("(lambda: 1)()", 1, "is not allowed", "sections uv, mm"),
    ("'x'", 1, "is not allowed", "whole numbers"),
    ("1.5", 1, "is not allowed", "whole numbers"),
    ("uv[0].state ==", 15, "this cannot be read", "comparisons|constants"),
    ("", 1, "this cannot be read", "constants"),
    ("(" * 250 + "1" + ")" * 49, None, "this cannot be read", "constants"),
    ("1+" * 150, None, "this cannot be read", "constants"),
    ("not " * 70 + "\0", None, "this cannot be read", "constants"),
    ("1" * 301, None, "the expression is too long", "at most 300"),
]


@pytest.mark.parametrize(("text", "column", "what", "allowed"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_expression_names_column_and_what_is_allowed(text, column, what, allowed):
    with pytest.raises(InputError) as caught:
        compiled(text, walk().system.state)
    said = str(caught.value)
    assert what in said and any(word in said for word in allowed.split("|"))
    if column:
        assert f"expression, column {column}: " in said


# ------------------------------------------------------------------------------------------- the command
def run(*words):
    done = CliRunner().invoke(command.explore, [str(ROOT / "scenarios/03-virtio.toml"), *words], standalone_mode=False)
    if done.exception:
        raise done.exception
    return done


def test_exit_codes():
    assert run("--policy", "whole-folio").return_value == 0
    assert run("--policy", "whole-folio", "--goto", "task[0].tries == 99").return_value == 1
    assert run("--policy", "per-page", "--goto", "counterexample").return_value == 1
    assert run("--policy", "whole-folio", "--goto", "task[0].tries == 99", "--max-states", "5").return_value == 3
    wrong = (
        ["--path", "0", "--goto", "loop"],
        ["--serve", "--json"],
        ["--policy", "whole-folio"],
        ["--path", "x"],
        ["--export", "no/such/folder/x.html"],
    )
    for words in wrong:
        with pytest.raises(InputError):
            run("--policy", "whole-folio", *words)


def test_json_says_what_reproduces_it():
    made = json.loads(run("--policy", "whole-folio", "--policy", "split", "--goto", "loop", "--json").stdout)
    words = shlex.split(made["reproduce"])
    assert words[:2] == ["ultrafolio", "explore"]
    again = CliRunner().invoke(command.explore, [*words[2:], "--json"], standalone_mode=False)
    assert json.loads(again.stdout) == made
    assert made["in_step"][0]["policy"] == "split" and made["steps"] == len(made["way"]) > 0


def test_elsewhere_than_loopback_is_warned_of(monkeypatch):
    told = []
    monkeypatch.setattr(command, "serve", lambda guides, words, host, port, said: told.append(said("http://there/")))
    here, there = run("--policy", "split", "--serve"), run("--policy", "split", "--serve", "--host", "0.0.0.0")
    assert "this machine only" in here.stdout and not here.stderr
    assert "warning: listening on 0.0.0.0" in there.stderr and len(told) == 2


def test_an_interrupt_ends_the_service_from_the_address_on():
    """When the address is told, the handler of SIGINT is uvicorn's: an interrupt before that could be lost."""
    pytest.importorskip("uvicorn")
    handlers = []

    def said(address):
        handlers.append(signal.getsignal(signal.SIGINT))
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            serve([Guide(walk())], "explore --serve", "127.0.0.1", 0, said)
    finally:
        signal.signal(signal.SIGINT, before)
    assert handlers != [signal.default_int_handler]


# ------------------------------------------------------------------------------------------- files
def test_an_export_is_the_same_bytes_and_names_its_command(copy):  # noqa: F811
    words = "ultrafolio explore scenarios/03-virtio.toml --policy whole-folio --policy split --export hang.html"
    made = []
    for seed in "12":
        done = shell(f"PYTHONHASHSEED={seed} {words}", copy)
        assert done.returncode == 0, done.stderr
        made.append((copy / "hang.html").read_bytes())
    assert made[0] == made[1] and words.encode() in made[0]
    assert not re.search(rb"""(src|href)=["'](?!data:)|@import|https?://""", made[0].split(b'id="data"')[0])


def test_a_file_of_a_large_graph_ends_where_it_says(tmp_path):
    guide = Guide(walk("02-direct-io-larger", "whole-folio"))
    made = embed.data([guide], "x", max_bytes=60_000)
    graph = made["graphs"][0]
    held = len(graph["nodes"])
    within = re.fullmatch(
        rf"{held} of 1859 states: the story, everything within (\d+) steps of it, and some beyond", graph["coverage"]
    )
    assert within and int(within[1]) >= 1
    at, edges = 0, [node[4] for node in graph["nodes"]]
    for index in [*graph["story"]["path"], *graph["story"]["loop"]]:
        at = edges[at][index][1]
        assert at >= 0
    assert any(target == -1 for moves in edges for _, target in moves) and all(t < held for m in edges for _, t in m)
    assert 60_000 < len(page.alone([guide.walk], made)) < 60_000 + 80_000


def test_a_script_in_a_title_is_text():
    title = "</title></script><script>document.title='owned'</script>{{data}}"
    made = scenario.parse({"title": title, "memory": {"folios": [0]}, "vcpu": [{"touch": [0]}]}, "x.toml")
    one = Walk(made, "x.toml", find("split"), "split")
    for text in (page.served([one]), page.alone([one], embed.data([Guide(one)], "x"))):
        assert "<script>document.title" not in text and "&lt;/title&gt;&lt;/script&gt;" in text
        assert text.count("</title>") == 1
