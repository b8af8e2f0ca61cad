"""The C file of a story: pieces.c as far as the calls need it, and a main() that makes them one by one."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from importlib import resources

from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd import layout as memfd
from ultrafolio.nouns import plural

from .calls import BATCH, CONVERT, EAGAIN, EFAULT, HOLE, PIN, PUT, REFERENCE, SIGBUS, SUCCESS, TOUCH, UNPIN, Call, Other
from .calls import calls as calls_of
from .story import Story

_WIDTH = 100
_CODES = {SUCCESS: "0", EAGAIN: "-EAGAIN", SIGBUS: "SIGBUS", EFAULT: "-EFAULT"}
_KERNEL = {rule.name: rule.kernel for rule in GUEST_MEMFD.rules.values()}
_ACTOR = {rule.name: rule.actor for rule in GUEST_MEMFD.rules.values()}
_WHOSE = {"guest": "guest step", "vmm": "the VMM decides", "host": "kernel step", "device": "device step"}
_PIECES = {
    TOUCH: ("touch",), PIN: ("pin",), UNPIN: ("pin", "unpin"), CONVERT: ("convert", "request"), HOLE: ("hole",),
    BATCH: ("touch", "cpu", "batch"), REFERENCE: ("reference",), PUT: ("reference", "put"),
}  # fmt: skip


def program(story: Story, command: str) -> str:
    """The C file. command: the command line that makes it."""
    items = calls_of(story.system, story.steps)
    made = [item for item in items if isinstance(item, Call)]
    pieces = _needed(story, made)
    lines = [_heading(story, items, command), _piece("head"), *_numbers(story, made), _piece("state")]
    lines += [text for name, text in _all_pieces().items() if name in pieces]
    return "\n".join([*lines, "", *_main(story, items, pieces)]) + "\n"


# ------------------------------------------------------------------------------------------- pieces
@functools.cache
def _all_pieces() -> dict[str, str]:
    """The pieces of pieces.c by name, in the order in which they stand there."""
    text = (resources.files(__package__) / "pieces.c").read_text(encoding="utf-8")
    parts = re.split(r"^/\* piece: ([\w-]+) \*/\n", text, flags=re.MULTILINE)[1:]
    return {name: body.rstrip("\n") for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _foreign(story: Story) -> str:
    """What a kernel must have for any test of the story, beside guest_memfd with the conversion; "" for nothing."""
    cfg = story.system.state.cfg[0]
    if cfg["convert"] != memfd.IN_PLACE:
        return "a conversion in place: this policy has another one"
    if cfg["block"]:
        return "huge pages of guest_memfd"
    # the first machine is `software`, which needs nothing of the hardware
    machine = GUEST_MEMFD.machines[cfg["machine"]]
    return "" if machine == GUEST_MEMFD.machines[0] else f"a guest of the machine {machine}"


def _piece(name: str) -> str:
    return _all_pieces()[name]


def _needed(story: Story, made: Sequence[Call]) -> set[str]:
    """The names of the pieces that these calls use, with those that each test has; head and state stand apart."""
    names = {"touch", "setup"} | ({"needs"} if _foreign(story) else set())
    for call in made:
        if call.missing:
            continue
        names.update(_PIECES[call.what])
        names.update({"cpu"} if call.what == CONVERT else ())
        names.update({"process"} if _by_another(call) else {"lock"} if _is_locked(call) else ())
    names.update({"allocate"} if any(_allocated(story)) else ())
    names.update({"start-private", "convert"} if _is_mixed(story) else ())
    return names


def _by_another(call: Call) -> bool:
    """Whether another process makes the call."""
    return call.what == TOUCH and call.process > 0


def _is_locked(call: Call) -> bool:
    return call.what == TOUCH and call.locked and not _by_another(call)


def _private(story: Story) -> list[bool]:
    """Whether each page is private at the start."""
    return [bool(private) for private in story.system.state.mm["private"]]


def _is_mixed(story: Story) -> bool:
    return len(set(_private(story))) > 1


def _allocated(story: Story) -> list[bool]:
    """Whether each page is allocated before the first call: not one that enters a batch, which its first touch does."""
    state = story.system.state
    batched: set[int] = set()
    for choices, who in zip(story.system.choices, state.who, strict=True):
        if GUEST_MEMFD.kinds[who["kind"]] == "lru":
            batched.update(page for _, page in choices)
    return [bool(page["allocated"]) and number not in batched for number, page in enumerate(state.mm)]


def _numbers(story: Story, made: Sequence[Call]) -> list[str]:
    """The lines that define the numbers of this test."""
    foreign = _foreign(story)
    flags = "GUEST_MEMFD_FLAG_MMAP" if all(_private(story)) else "GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED"
    numbers: dict[str, int | str] = {"PAGES": len(story.system.state.mm), "FLAGS": f"({flags})"}
    numbers |= {"NEEDS": f'"{foreign}"'} if foreign else {}
    if any(call.what in (PIN, UNPIN, REFERENCE, PUT) for call in made):
        numbers["ACTORS"] = len(story.system.choices)
    if any(_by_another(call) for call in made):
        numbers["PROCESSES"] = 1 + max(call.process for call in made if _by_another(call))
    return [f"#define {name} {value}" for name, value in numbers.items()]


# ------------------------------------------------------------------------------------------- comments
def _heading(story: Story, items: Sequence[Call | Other], command: str) -> str:
    """The comment at the top."""
    made = sum(isinstance(item, Call) for item in items)
    told = [
        story.title, "",
        f"Scenario {story.scenario}, policy {story.policy}: {story.verdict}.", *story.wait, "",
        f"{plural(made, 'call')} of the story, each where the story ends it. Every answer is that of the rules for "
        "these calls, one after the other. Steps of the kernel, the guest and the VMM stand in comments.",
        "A test that this kernel cannot make is skipped: # SKIP missing: what it lacks.", "",
        "Build: gcc -Wall -o story story.c. Made by:",
    ]  # fmt: skip
    lines = ["// SPDX-License-Identifier: GPL-2.0", "/*"]
    for text in told:
        lines += [f" * {line}".rstrip() for line in _wrapped(text)]
    return "\n".join([*lines, f" * {_harmless(command)}", " */"])


def _harmless(text: str) -> str:
    """The text in one line that neither begins nor ends a comment."""
    return " ".join(text.replace("*/", "* /").replace("/*", "/ *").splitlines())


def _wrapped(text: str, width: int = _WIDTH) -> list[str]:
    """The words of a text in lines that end no comment; at least one line."""
    lines = [""]
    for word in _harmless(text).split():
        if lines[-1] and len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".lstrip()
    return lines


def _comment(texts: Iterable[str]) -> list[str]:
    """A comment of these sentences, in one line where they fit."""
    lines = []
    for text in texts:
        first, *rest = _wrapped(text, _WIDTH - 14)
        lines += [first, *(f"  {line}" for line in rest)]
    if len(lines) == 1:
        return [f"\t/* {lines[0]} */"]
    return ["\t/*", *(f"\t * {line}" for line in lines), "\t */"]


def _steps(call: Call) -> list[str]:
    """The kernel steps of a call in words."""
    return [
        f"{_WHOSE[_ACTOR[step.rule]]}: {step.rule}: {_KERNEL[step.rule]}" + _told(step.outcome_word)
        for step in call.steps
    ]


def _told(outcome: str) -> str:
    return "" if outcome in ("OK", "DONE", "0") else f": {outcome}"


def _differs(call: Call) -> list[str]:
    """What was otherwise in the story."""
    told = []
    if call.inside:
        told.append(
            f"In the story this call has steps inside it of {', '.join(call.inside)}: no process can place them."
        )
    if call.story == "no answer":
        told.append("The story ends before its answer.")
    elif call.story:
        told.append(f"In the story the answer is {call.story}.")
    return told


# ------------------------------------------------------------------------------------------- main
def _main(story: Story, items: Sequence[Call | Other], pieces: set[str]) -> list[str]:
    """The lines of main()."""
    made = [item for item in items if isinstance(item, Call)]
    last = made[-1].attributes if made else tuple(_private(story))
    lines = ["int main(void)", "{"]
    lines += ["\tstruct sigaction action = { .sa_handler = on_sigbus };", ""]
    lines += ['\tprintf("TAP version 13\\n");', "\tsetvbuf(stdout, NULL, _IOLBF, 0);", "\tsetup();"]
    lines += ["\tneeds();"] if "needs" in pieces else []
    lines += ["\tsigaction(SIGBUS, &action, NULL);"]
    lines += [f"\tallocate({page});" for page, there in enumerate(_allocated(story)) if there]
    lines += ["\tdrain();"] if "allocate" in pieces else []
    lines += [
        f"\tstart_private({page});" for page, it in enumerate(_private(story)) if it and "start-private" in pieces
    ]
    lines += [f"\tstart_process({number});" for number in sorted({call.process for call in made if _by_another(call)})]
    lines += [f'\tprintf("1..{len(made) + len(last)}\\n");']
    others: list[Other] = []
    for item in items:
        if isinstance(item, Other):
            others.append(item)
            continue
        lines += ["", *_comment([*_between(others), *_steps(item), *_differs(item)]), *_check(item)]
        others = []
    lines += ["", *_comment([*_between(others), "The attribute of each page, by the rules."])]
    for page, private in enumerate(last):
        wanted = "SIGBUS" if private else "0"
        lines.append(
            f'\tcheck_touch("page {page} is {"private" if private else "shared"}: {wanted}", {page}, {wanted});'
        )
    return [*lines, "", "\treturn failures ? KSFT_FAIL : KSFT_PASS;", "}"]


def _between(others: Sequence[Other]) -> list[str]:
    """Steps that are not driven, in words."""
    return [
        f"{_WHOSE[_ACTOR[one.rule]]}, {one.name}: {one.rule}: "
        + (f"not made: {one.why}" if one.why else _KERNEL[one.rule])
        for one in others
    ]


def _check(call: Call) -> list[str]:
    """The lines that make a call and test its answer."""
    name, pages = f"{call.name} {_about(call)}: {call.answer}", f"{call.page}, {call.pages}"
    if call.missing:
        return [f'\tskip("{name}", {pages}, "{call.missing}");']
    code = _CODES[call.answer]
    if call.what == CONVERT:
        name += f" at page {call.at}" if call.at >= 0 else ""
        flags = f"{_bool(call.private)}, {code}, {call.at}, {_bool(call.changes)}"
        return [f"\trun_on({call.cpu});", f'\tcheck_convert("{name}", {pages}, {flags});']
    given = {
        TOUCH: f"{call.page}, {code}",
        PIN: f"{call.actor}, {pages}, {code}",
        UNPIN: f"{call.actor}, {pages}",
        HOLE: pages,
        BATCH: f"{call.cpu}, {call.page}",
        REFERENCE: f"{call.actor}, {call.page}, {code}",
        PUT: f"{call.actor}, {call.page}",
    }[call.what]
    if _by_another(call):
        return [f'\tcheck_touch_by("{name}", {call.process}, {given});']
    if _is_locked(call):
        return [f'\tcheck_locked_touch("{name}", {given});']
    return [f'\tcheck_{call.what}("{name}", {given});']


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _about(call: Call) -> str:
    """What a call is about, in words."""
    pages = f"page {call.page}" if call.pages == 1 else f"pages {call.page} to {call.page + call.pages - 1}"
    return {
        TOUCH: f"touches {pages}", PIN: f"pins {pages}", UNPIN: f"ends its pin of {pages}",
        CONVERT: f"asks for {pages} as {'private' if call.private else 'shared'}", HOLE: f"punches a hole of {pages}",
        BATCH: f"has {pages} in the batch of CPU {call.cpu}", REFERENCE: f"takes a reference on {pages}",
        PUT: f"drops its reference on {pages}",
    }[call.what]  # fmt: skip
