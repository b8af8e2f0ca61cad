"""Access rights: every rule reads and writes only the sections of its own part, with listed exceptions."""

import ast
from pathlib import Path

import pytest

from ultrafolio.engine import load
from ultrafolio.engine.load import dispatcher, interpreted
from ultrafolio.engine.tables import RULE_MODULES
from ultrafolio.model import layout
from ultrafolio.model.layout import OWNERS
from ultrafolio.model.properties import PROPERTIES, SEED
from ultrafolio.model.rule import RULES
from ultrafolio.state.crossing import WALLS as OF_DESIGNS
from ultrafolio.state.sections import sections

WALLS = OF_DESIGNS["s390"]
SECTIONS = {"cfg", "who", *OWNERS}
OTHERS = {"ultravisor": {"uv"}, "guest": {"actor"}}
"""The modules of rules that are not the host's, and what they may use."""


def allowed(module):
    """The sections that the functions of a module of rules may use."""
    return OTHERS.get(module, {"mm", "pt", "vm", "task"})


EXCEPTIONS = {
    # an actor's budget is its own, whoever starts it
    "spend": {"actor"},
    # the hardware: page tables, and the bytes of the page that a call encrypts or decrypts
    "hw_guest": {"uv", "pt"},
    "uv_import": {"uv", "mm"},
    "uv_export": {"uv", "mm"},
    "uv_unpin": {"uv", "mm"},
    # the program counter passes between the parts
    "execute": {"actor", "task"},
    "vcpu_again": {"actor", "task"},
    # devices: their I/O, and the program counter
    "io_start": {"actor", "io", "task"},
    "io_end": {"actor", "io"},
    # the write to swap is I/O too
    "reclaim_swap": {"pt", "task", "io"},
    "reclaim_free": {"mm", "pt", "task", "io"},
}


def functions():
    for module in RULE_MODULES:
        name = module.__name__.rsplit(".", 1)[1]
        if name == "properties":
            continue
        for node in ast.parse(Path(module.__file__).read_text()).body:
            if isinstance(node, ast.FunctionDef):
                yield name, node


def sections_of(node):
    return {
        n.attr
        for n in ast.walk(node)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "s"
    } - {"cfg", "who"}


@pytest.mark.parametrize(("module", "node"), list(functions()), ids=lambda v: getattr(v, "name", v))
def test_a_function_stays_within_its_walls(module, node):
    assert sections_of(node) <= EXCEPTIONS.get(node.name, allowed(module))


def test_every_exception_is_needed():
    found = {node.name: (module, sections_of(node)) for module, node in functions()}
    for name, excepted in EXCEPTIONS.items():
        module, used = found[name]
        assert used == excepted, f"{name} uses {used}"
        assert used - allowed(module), f"{name} needs no exception"


def called(node):
    return {n.func.id for n in ast.walk(node) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}


def reached(role):
    """The functions that run in a role's process: its rules, and what they call on this side of its walls."""
    known = {node.name: node for _, node in functions()}
    mine = {"guest": ("guest", "device"), "host": ("host", "fault")}[role]
    left, seen = [rule.function.__name__ for rule in RULES.values() if rule.actor in mine], {}
    while left:
        name = left.pop()
        if name in known and name not in seen and name not in WALLS[role]:
            seen[name] = known[name]
            left += called(known[name])
    return seen.values()


@pytest.mark.parametrize("role", WALLS)
def test_what_a_role_runs_needs_only_what_it_may_read(role):
    may = {"work": "actor", "pc": "task"}
    for node in reached(role):
        assert sections_of(node) <= {may.get(name, name) for name in sections().touched[role].reads}, node.name
        # of a thread's record the guest knows the program counter, which passes between the parts
        for n in ast.walk(node) if role == "guest" else ():
            if isinstance(n, ast.Attribute) and ast.unparse(n).startswith("s.task["):
                assert n.attr == "pc", f"{node.name}: {ast.unparse(n)}"
        assert role == "host" or not [
            n for n in ast.walk(node) if isinstance(n, ast.Assign) and ast.unparse(n.value).startswith("s.task[")
        ], node.name


def test_every_wall_is_met():
    for role, walls in WALLS.items():
        assert set(walls) <= {name for node in reached(role) for name in called(node)}


def test_the_host_never_reads_a_page_state():
    for module, node in functions():
        if module not in OTHERS:
            assert "uv" not in sections_of(node), node.name


def test_policy_and_configuration_are_never_written():
    for _, node in functions():
        for n in ast.walk(node):
            if isinstance(n, ast.Assign | ast.AugAssign):
                targets = n.targets if isinstance(n, ast.Assign) else [n.target]
                for target in targets:
                    text = ast.unparse(target)
                    assert not text.startswith(("s.cfg", "s.who", "who.", "c.")), f"{node.name}: {text}"


def test_rule_order_is_complete_and_fixed():
    assert sorted(RULES) == list(range(layout.DEAD))
    for pc, rule in RULES.items():
        assert getattr(layout, [n for n, v in vars(layout).items() if n.isupper() and v == pc and n in NAMES][0]) == pc
        assert rule.name == rule.function.__name__.replace("_", "-")
    assert len({rule.name for rule in RULES.values()}) == len(RULES)


NAMES = {
    target.id
    for node in ast.parse(Path(layout.__file__).read_text()).body
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and node.targets[0].elts[-1].id == "DEAD"
    for target in node.targets[0].elts
}


def mail():
    """The text of the mail without its marks of quotation, on one line."""
    text = Path(__file__).parents[1].joinpath("support/data/seed.txt").read_text()
    return " ".join(text.replace(">", " ").split())


def test_every_rule_says_where_it_comes_from():
    seed = mail()
    for rule in RULES.values():
        assert rule.kernel, rule.name
        assert rule.about.endswith("."), rule.name
        if rule.seed:
            assert rule.seed.lower() in seed.lower(), f"{rule.name}: not a sentence of the mail: {rule.seed}"
        assert rule.actor in ("guest", "host", "device", "fault")
        assert not (rule.chooses and rule.fair), f"{rule.name}: starts of work are nobody's duty"


def test_every_property_quotes_the_mail():
    seed = mail()
    assert len(PROPERTIES) == len(SEED)
    assert [PROPERTIES[n] for n in range(1, len(SEED)) if not SEED[n]] == [PROPERTIES[9]], "the mail knows no success"
    for quote in SEED[1:]:
        assert quote in seed


def test_only_the_listed_steps_are_unfair():
    unfair = {rule.name for rule in RULES.values() if not rule.fair}
    assert unfair == {
        "vcpu-run",
        "device-start",
        "ring-teardown",
        "writeback-start",
        "reclaim-start",
        "lru-add",
        "mapping-get",
        "speculative-get",
        "reboot-start",
        "tamper",
        "access-start",
    }


def test_the_rules_are_written_in_the_small_subset():
    allowed = (
        ast.FunctionDef, ast.arguments, ast.arg, ast.Expr, ast.Constant, ast.Assign, ast.AugAssign, ast.Name, ast.Load,
        ast.Store, ast.Attribute, ast.Subscript, ast.If, ast.IfExp, ast.For, ast.Break, ast.Return, ast.Compare,
        ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.BinOp, ast.Add, ast.Sub, ast.LShift, ast.RShift,
        ast.Call, ast.Tuple, ast.Eq, ast.NotIn, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.keyword, ast.In,
    )  # fmt: skip
    for _, node in functions():
        node.decorator_list = []
        for n in ast.walk(node):
            assert isinstance(n, allowed), f"{node.name}: {ast.unparse(n)} ({type(n).__name__})"
            if isinstance(n, ast.For):
                assert isinstance(n.iter, ast.Call) and n.iter.func.id == "range", node.name


def test_the_dispatcher_reaches_every_rule():
    source = dispatcher()
    for rule in RULES.values():
        assert f"return {rule.function.__name__}(" in source
    assert interpreted().step


def test_a_second_function_of_the_same_name_is_refused():
    space = load.functions(lambda function: function)
    with pytest.raises(ValueError, match="a second function with the name"):
        load.add_functions(space, RULE_MODULES[0], lambda function: function)
