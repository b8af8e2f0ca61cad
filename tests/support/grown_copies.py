"""Helpers of the tests of growth: a copy of the package, and entries added to its tables as a developer would."""

import ast
import os
import shutil
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "ultrafolio"


class Copy:
    """A copy of the package in `folder`, to be changed: each method edits one file, given relative to the package."""

    def __init__(self, folder):
        self.folder, self.package = folder, folder / "ultrafolio"
        shutil.copytree(PACKAGE, self.package, copy_function=os.symlink)

    def _change(self, file, spots):
        """Write `text` at each (line, byte, text, bytes that it replaces), the last one first."""
        lines = self._text(file).encode().splitlines(keepends=True)
        for line, byte, text, old in sorted(spots, reverse=True):
            row = lines[line - 1]
            lines[line - 1] = row[:byte] + text.encode() + row[byte + old :]
        self._write(file, b"".join(lines).decode())

    def _text(self, file):
        return (self.package / file).read_text(encoding="utf-8")

    def _write(self, file, text):
        (self.package / file).unlink()
        (self.package / file).write_text(text, encoding="utf-8")

    def _named(self, file, form, name):
        return next(n for n in ast.parse(self._text(file)).body if isinstance(n, form) and n.name == name)

    def replace(self, file, old, new):
        text = self._text(file)
        assert text.count(old) == 1, (file, old)
        self._write(file, text.replace(old, new))

    def append(self, file, text):
        self._write(file, self._text(file) + "\n\n" + text)

    def imports(self, file, line):
        """Put an import below the first one."""
        self._write(file, self._text(file).replace("import annotations\n", f"import annotations\n\n{line}\n", 1))

    def entry(self, file, table, text, key=None):
        """Add an entry to a tuple or dictionary, or to the tuple at its `key`."""
        value = next(node.value for node in ast.parse(self._text(file)).body if _assigns(node, table))
        if key is not None:
            value = value.values[[name.value for name in value.keys].index(key)]
        last = value.values[-1] if isinstance(value, ast.Dict) else value.elts[-1]
        self._change(file, [(last.end_lineno, last.end_col_offset, f", {text}", 0)])

    def number(self, file, beside, *names, before=None):
        """Give names the next numbers of the statement that numbers `beside`; those from `before` on move up."""
        node = next(n for n in ast.parse(self._text(file)).body if isinstance(n, ast.Assign) and _numbers(n, beside))
        target, arguments = node.targets[0].elts, node.value.args
        end, down = arguments[min(1, len(arguments) - 1)], len(arguments) == 3
        count, old = ast.literal_eval(end) + (-len(names) if down else len(names)), end.end_col_offset - end.col_offset
        spot = next((n for n in target if n.id == before), None)
        text = "".join(f"{name}, " for name in names) if spot else "".join(f", {name}" for name in names)
        at = (spot.lineno, spot.col_offset) if spot else (target[-1].end_lineno, target[-1].end_col_offset)
        self._change(file, [(*at, text, 0), (end.lineno, end.col_offset, str(count), old)])

    def first(self, file, function, line):
        """Put a statement at the start of a function."""
        node = self._named(file, ast.FunctionDef, function)
        body = node.body[1] if isinstance(node.body[0], ast.Expr) else node.body[0]
        self._change(file, [(body.lineno, 0, f"    {line}\n", 0)])

    def field(self, file, kind, line):
        """Add a field to a dataclass."""
        node = self._named(file, ast.ClassDef, kind)
        last = [n for n in node.body if isinstance(n, ast.AnnAssign)][-1]
        self._change(file, [(last.end_lineno, last.end_col_offset, f"\n    {line}", 0)])


def _assigns(node, table):
    if isinstance(node, ast.AnnAssign):
        return isinstance(node.target, ast.Name) and node.target.id == table
    return isinstance(node, ast.Assign) and any(isinstance(n, ast.Name) and n.id == table for n in node.targets)


def _numbers(node, beside):
    """Whether a statement is `A, B, C = range(...)` with this name."""
    target = node.targets[0]
    return isinstance(target, ast.Tuple) and beside in [name.id for name in target.elts]


# ---------------------------------------------------------------------------------------------- the entries
LAYOUT, RULES = "model/layout.py", "model/rules/references.py"
KICKS = '''
@rule(KICK_IDLE, takers="kicker", cost="kick", fair=UNFAIR, chooses=True, kernel="none")
def kick_start(s, t, op, page):
    """Somebody is about to kick a page."""
    if not spend(s, t):
        return W_IDLE
    s.task[t].page, s.task[t].pc = page, KICK
    return KICKED


@rule(KICK, takers="kicker", tells_page=True, kernel="none")
def kick_page(s, t):
    """The page is kicked, once its folio is not locked."""
    k = s.task[t]
    if s.mm[head(s, k.page)].locked:
        return W_KICK
    k.page, k.pc = 0, KICK_IDLE
    return KICKED
'''


def add_outcome(copy):
    copy.number(LAYOUT, "OK", "KICKED")
    copy.entry(LAYOUT, "OUTCOMES", '"KICKED"')


def add_wait(copy):
    copy.number(LAYOUT, "W_IDLE", "W_KICK")
    copy.entry(LAYOUT, "WAITS", '"nobody to lock the folio"')


def tell_waits(copy):
    """No obstacle leads to the new outcome or the new wait, and the new kind owes nothing."""
    copy.entry("waits/tables.py", "UNOBSTRUCTED", "_layout.KICKED, _layout.W_KICK")
    copy.entry("waits/words.py", "_OWES_NOTHING", "layout.KICKER")


def free_wait(copy):
    """The simulator hears what ends the new wait."""
    copy.imports("sim/records.py", "from ultrafolio.model.layout import W_KICK")
    copy.entry("sim/records.py", "FREES", "-W_KICK", key="lock")


def add_rules(copy):
    copy.number(LAYOUT, "DEAD", "KICK_IDLE", "KICK", before="DEAD")
    copy.append(RULES, KICKS)
    copy.entry("sim/costs.py", "DEFAULTS", '"kick": (777, "a kick: assumed")')


def add_kind(copy):
    copy.number(LAYOUT, "VCPU", "KICKER")
    copy.entry(LAYOUT, "ACTOR_KINDS", '"kicker"')
    copy.entry(LAYOUT, "IDLE_PC", "KICK_IDLE")


def tell_kind(copy):
    """Scenario files and folding hear of the new kind."""
    copy.entry("model/scenario.py", "ACTORS", '"kicker": {"page": _PAGES, "starts": _STARTS, "after": _AFTER}')
    copy.imports("check/kinds.py", "from ultrafolio.model.layout import KICKER")
    copy.entry("check/kinds.py", "WORKERS", "KICKER")


def add_choice(copy):
    copy.entry("model/policy.py", "CHOICES", '"kick": ("no", "yes")')
    copy.entry("model/policy.py", "MEANING", '"kick": "whether a kick is a break"')
    copy.field("model/policy.py", "Policy", 'kick: str = "no"')


def add_cfg(copy):
    copy.replace(LAYOUT, "np.dtype([*_CFG, ", 'np.dtype([*_CFG, ("kick", np.uint8), ')


def add_property(copy, number):
    copy.entry("model/properties.py", "PROPERTIES", '"nobody kicks"')
    copy.entry("model/properties.py", "SEED", '""')
    break_property(copy, number)


def break_property(copy, number):
    copy.first("model/properties.py", "broken", f"if pc == KICK and s.cfg[0].kick:\n        return {number}")


def grown(folder, number):
    """A copy with one more of everything: an actor that kicks a page in two steps, waits for the folio lock with a
    reason of its own, has an outcome of its own, and breaks property `number` under a choice of its own."""
    copy = Copy(folder)
    for add in (add_outcome, add_wait, tell_waits, free_wait, add_rules, add_kind, tell_kind, add_choice, add_cfg):
        add(copy)
    add_property(copy, number)
    return copy
