"""Executions as a kernel would record them: ftrace's text, by a table of its own, without the rules' facts.

No machine with secure guests is at hand, so these are the specimens; the forms of the lines are those of the kernel's
headers (page_ref.h, kprobetrace.rst).
"""

from dataclasses import dataclass

from ultrafolio.check.verdicts.replay import replay
from ultrafolio.model.layout import MM, UV

FRAME, PAGE = 0x8000, 4096
_ORDER, _PINS, _LONGS = ((MM.names or ()).index(name) for name in ("order", "pins", "longs"))
_STATE = (UV.names or ()).index("state")
EXPORTED, PINNED = 4, 3


@dataclass
class Line:
    """A line: what it shows, of which thread."""

    tid: int
    text: str


def _ref(event, frame, value, result=None):
    told = "" if result is None else f" ret={result}"
    page = f"pfn={frame:#x} flags=locked|uptodate|lru count=3 mapcount=1 mapping=00000000a1b2c3d4 mt=1"
    return f"{event}: {page} val={value}{told}"


def _call(function, page, ok, *, error="0xffffffea"):
    address = (FRAME + page) * PAGE
    return [
        f"p_{function}: ({function}+0x0/0x88) paddr={address:#x}",
        f"r_{function}: (arch_make_folio_accessible+0x6c/0x110 <- {function}) ret={'0x0' if ok else error}",
    ]


def shown(step):
    """The lines of a step, without their heads."""
    before, after, page = step.before, step.after, step.page
    head = page >> before[1][page][_ORDER] << before[1][page][_ORDER]
    rule, outcome = step.rule, step.outcome_word
    if rule == "import-freeze":
        return [_ref("page_ref_freeze", FRAME + head, 3, int(outcome == "OK"))]
    if rule == "import-end" or (rule == "import-call" and outcome != "OK"):
        return [_ref("page_ref_unfreeze", FRAME + head, 3)]
    lines = []
    if rule == "accessible-pin":
        lines += _call("uv_pin_shared", page, after[0][page][_STATE] == PINNED)
    if rule in ("accessible-export", "import-export", "reclaim-export"):
        lines += _call("uv_convert_from_secure", page, True)
    change = sum(m[_PINS] + m[_LONGS] for m in after[1]) - sum(m[_PINS] + m[_LONGS] for m in before[1])
    if change > 0:
        lines.append(_ref("page_ref_mod", FRAME + page, 1024))
    if change < 0:
        lines.append(_ref("page_ref_mod_and_test", FRAME + page, -1024, 0))
    if rule == "writeback-flag":
        lines.append(f"p_wb: (__folio_start_writeback+0x0/0x2a0) folio={0x3D200000 + 64 * head:#x}")
    if rule == "writeback-end":
        lines.append(f"p_wb_end: (folio_end_writeback+0x0/0x90) folio={0x3D200000 + 64 * head:#x}")
    if rule == "split":
        result = "0x0" if outcome in ("DONE", "SUCCESS") else "0xfffffff5"
        lines += [f"p_split: (split_huge_page_to_list_to_order+0x0/0x9c0) page={0x3D200000 + 64 * page:#x}"]
        lines += [_ref("page_ref_freeze", FRAME + head, 3, 1)] if result == "0x0" else []
        lines += [f"r_split: (gmap_make_secure+0x88/0x300 <- split_huge_page_to_list_to_order) ret={result}"]
    return lines


def lines(system, path, again=()):
    """The lines of an execution (actor << 16 | choice), and once more those of `again`, a cycle."""
    return of_steps(replay(system, [*path, *again])[0])


def of_steps(steps):
    """The lines of steps, one after another."""
    return [Line(4000 + step.actor, text) for step in steps for text in shown(step)]


def text(some):
    """The file: heads as in ftrace's trace file."""
    body = ""
    for n, line in enumerate(some):
        seconds = f"{70 + n // 1000}.{n % 1000:03}{line.tid % 1000:03}"
        body += f"             CPU-{line.tid}    [00{line.tid % 4}] d..1.  {seconds}: {line.text}\n"
    return "# tracer: nop\n#\n" + body
