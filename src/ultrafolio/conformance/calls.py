"""The ultravisor's calls, model.md §2.2: every call on every state, by the page's owner, another guest, or the host.

As in an engine, a thread at the rule that makes the call issues it.
"""

from __future__ import annotations

from typing import Any

from ultrafolio.conformance.bench import Bench, Engine, build
from ultrafolio.conformance.case import case
from ultrafolio.model.layout import (
    ACC_EXPORT,
    ACC_PIN,
    AGAIN,
    DONE,
    E_FATAL,
    E_NXIO,
    E_UV,
    EXPORTED,
    FAULT,
    IMPORT_CALL,
    IMPORT_EXPORT,
    KILLED,
    MAPPED,
    OK,
    PAGE_STATES,
    REBOOT_RESET,
    SECURE,
    SHARE,
    SWAPPED,
    SWAPPED_IN,
    TOUCH,
    UNMAPPED,
    UNSHARE,
    W_IDLE,
)
from ultrafolio.model.scenario import System

OWNER, OTHER = 0, 1
VARIANTS = ("non_secure", "secure", "shared", "pinned_shared", "exported", "exported shared")
"""The page states; an exported page remembers whether it was shared."""


def _page(variant: str, *, misc: bool = False, **memory: Any) -> System:
    """One page in a state, owned by guest 0. Threads: a vCPU of guest 0, one of guest 1, a disk, guest 0's reboot."""
    asks = {"touch": [0], "share": [0], "unshare": [0]}
    made = build(
        "per-page",
        [0],
        [variant.split()[0]],
        memory=memory,
        features={"ownership_transfer": misc},
        vcpu=[asks, {"guest": 1, **asks}],
        disk=[{"page": 0}],
        reboot=[{}],
        tamper=[{}],
    )
    made.state.uv["shared"] = variant.endswith(" shared")
    return made


def _issue(bench: Bench, system: System, actor: int, pc: int, call: int = TOUCH) -> int:
    """Let `actor` make a host call on page 0, from inside the rule that makes it."""
    state, task = system.state, system.state.task[actor]
    task["pc"], task["call"], task["end"] = pc, call, 1
    if pc == IMPORT_CALL:
        state.mm["locked"] = state.mm["frozen"] = state.mm["arch"] = 1
    elif pc == IMPORT_EXPORT:
        state.mm["locked"] = 1
    bench.engine.load(state)
    return bench.step(actor)


def _check(engine: Engine, system: System, actor: int, pc: int, call: int, what: str, wanted: tuple[Any, ...]) -> None:
    """Make the call and compare (outcome, page state, owner, exported as shared)."""
    bench = Bench(engine, system)
    outcome = _issue(bench, system, actor, pc, call)
    uv = bench.state.uv[0]
    got = (outcome, PAGE_STATES[uv["state"]].lower(), int(uv["owner"]), int(uv["shared"]))
    bench.expect(what, got, wanted)


def _same(variant: str) -> tuple[str, int, int]:
    """The page as it was: state, owner, exported as shared."""
    return variant.split()[0], 0, int(variant.endswith(" shared"))


@case()
def calls_import(engine: Engine) -> None:
    """Import: a new page cleared and secure, an exported one as before its export, own pages untouched."""
    own = {
        "non_secure": ("secure", 0, 0), "secure": ("secure", 0, 0), "shared": ("shared", 0, 0),
        "pinned_shared": ("pinned_shared", 0, 0), "exported": ("secure", 0, 0), "exported shared": ("shared", 0, 0),
    }  # fmt: skip
    for variant in VARIANTS:
        _check(engine, _page(variant), OWNER, IMPORT_CALL, TOUCH, f"import of own {variant}", (OK, *own[variant]))
    for variant in VARIANTS:
        new = variant == "non_secure" or variant.startswith("exported")
        wanted = (OK, "secure", 1, 0) if new else (E_FATAL, *_same(variant))
        _check(engine, _page(variant), OTHER, IMPORT_CALL, TOUCH, f"import of another's {variant}", wanted)


@case()
def calls_import_unmapped(engine: Engine) -> None:
    """A page unmapped since the import looked is not imported: it is faulted in, thawed and unlocked, touched again."""
    for present, outcome in ((UNMAPPED, E_NXIO), (SWAPPED, SWAPPED_IN)):
        for call in (TOUCH, UNSHARE):
            system = _page("exported")
            system.state.pt["present"] = present
            bench = Bench(engine, system)
            bench.expect("what the import meets", _issue(bench, system, OWNER, IMPORT_CALL, call), outcome)
            page, folio = bench.state.uv[0], bench.state.mm[0]
            bench.expect("the page", (page["state"], bench.state.pt[0]["present"]), (EXPORTED, MAPPED))
            bench.expect("frozen, locked, arch bit", (folio["frozen"], folio["locked"], folio["arch"]), (0, 0, 1))
            bench.expect("the thread", bench.state.task[OWNER]["pc"], AGAIN)


@case(35)
def calls_import_ownership(engine: Engine) -> None:
    """Import of another guest's page: moved by the ownership-transfer feature if not secure; else exported first."""
    for variant in VARIANTS:
        wanted = (E_FATAL, *_same(variant)) if variant == "secure" else (OK, "secure", 1, 0)
        _check(engine, _page(variant, misc=True), OTHER, IMPORT_CALL, TOUCH, f"MISC import of {variant}", wanted)
    for variant in VARIANTS:
        system = _page(variant)
        bench = Bench(engine, system)
        _issue(bench, system, OTHER, IMPORT_EXPORT)
        bench.expect(f"after the export of {variant}", bench.go(OTHER, limit=5)[-1], "import-end: SUCCESS")
        uv = bench.state.uv[0]
        bench.expect(f"{variant} moved", (uv["state"], uv["owner"], uv["shared"]), (SECURE, 1, 0))


@case(34)
def calls_integrity(engine: Engine) -> None:
    """Import and unpin of an exported page of which a byte was changed fail and leave it exported."""
    for call, name in ((TOUCH, "import"), (UNSHARE, "unpin")):
        for variant in ("exported", "exported shared"):
            system = _page(variant)
            system.state.mm["altered"] = 1
            wanted = (E_FATAL if call == TOUCH else E_UV, *_same(variant))
            _check(engine, system, OWNER, IMPORT_CALL, call, f"{name} of a changed {variant}", wanted)
    system = _page("exported")
    system.state.mm["altered"] = 1
    _check(engine, system, OTHER, IMPORT_CALL, TOUCH, "to another guest it is new", (OK, "secure", 1, 0))


@case(20)
def calls_export(engine: Engine) -> None:
    """Export: encrypts a secure or shared page and remembers which; a page the host may read is left alone."""
    wanted = {
        "non_secure": ("non_secure", 0, 0), "secure": ("exported", 0, 0), "shared": ("exported", 0, 1),
        "pinned_shared": ("exported", 0, 1), "exported": ("exported", 0, 0), "exported shared": ("exported", 0, 1),
    }  # fmt: skip
    for variant in VARIANTS:
        _check(engine, _page(variant), 2, ACC_EXPORT, TOUCH, f"export of {variant}", (OK, *wanted[variant]))


@case()
def calls_pin(engine: Engine) -> None:
    """Pin shared: only a shared page; of any other it fails, and the export comes next."""
    for variant in VARIANTS:
        system = _page(variant)
        pinned = variant in ("shared", "pinned_shared")
        wanted = ("pinned_shared", 0, 0) if pinned else _same(variant)
        _check(engine, system, 2, ACC_PIN, TOUCH, f"pin of {variant}", (OK, *wanted))
        failed = int(engine.state().task[2]["pc"]) == ACC_EXPORT
        if failed == pinned:
            raise AssertionError(f"{engine.name}: pin of {variant}: export next is {failed}")


@case()
def calls_unpin(engine: Engine) -> None:
    """Unpin: completes the owner's unshare of any page but a non-secure one; another guest's is refused, not fatal."""
    for variant in VARIANTS:
        wanted = (E_UV, *_same(variant)) if variant == "non_secure" else (OK, "secure", 0, 0)
        _check(engine, _page(variant), OWNER, IMPORT_CALL, UNSHARE, f"unpin of own {variant}", wanted)
        wanted = (E_UV, *_same(variant))
        _check(engine, _page(variant), OTHER, IMPORT_CALL, UNSHARE, f"unpin of another's {variant}", wanted)


@case(21)
def calls_destroy(engine: Engine) -> None:
    """Destroy: zeros that the host may access; of a non-secure page a success, of another guest's page never."""
    for variant in VARIANTS:
        gone = (DONE, "non_secure", 0, 0)
        _check(engine, _page(variant), 3, REBOOT_RESET, TOUCH, f"destroy of {variant}", gone)
        theirs = _page(variant, owner=[1])
        kept = (DONE, variant.split()[0], int(variant != "non_secure"), int(variant.endswith(" shared")))
        _check(engine, theirs, 3, REBOOT_RESET, TOUCH, f"destroy of another's {variant}", kept)


@case(34)
def calls_refused(engine: Engine) -> None:
    """If the ultravisor refuses every call for a page, each call leaves it unchanged."""
    for variant in VARIANTS:
        for actor, pc, call in (
            (OWNER, IMPORT_CALL, TOUCH),
            (OWNER, IMPORT_CALL, UNSHARE),
            (2, ACC_PIN, TOUCH),
            (2, ACC_EXPORT, TOUCH),
            (OWNER, IMPORT_EXPORT, TOUCH),
        ):
            system = _page(variant, refuses=[0])
            bench = Bench(engine, system)
            _issue(bench, system, actor, pc, call)
            uv = bench.state.uv[0]
            got = (PAGE_STATES[uv["state"]].lower(), int(uv["owner"]), int(uv["shared"]))
            bench.expect(f"refused call in rule {pc} on {variant}", got, _same(variant))


def _instruction(engine: Engine, variant: str, vcpu: int, op: int, present: int = 1) -> tuple[int, str]:
    """A vCPU's instruction on the page: the outcome of the step, and the page state after."""
    system = _page(variant)
    system.state.pt["present"] = present
    bench = Bench(engine, system)
    outcome = bench.step(vcpu, op, 0)
    if op != UNSHARE and outcome == FAULT and int(bench.state.task[vcpu]["call"]) != TOUCH:
        raise AssertionError(f"{engine.name}: {variant}: an exception asks for an import, not for an unpin")
    killed = int(bench.state.vm[vcpu]["life"]) == KILLED
    bench.expect(f"{variant}: the guest is gone exactly where the outcome is fatal", killed, outcome == E_FATAL)
    return outcome, PAGE_STATES[bench.state.uv[0]["state"]].lower()


@case()
def access_by_the_guest(engine: Engine) -> None:
    """The hardware's view: secure, shared and pinned shared pages are the owner's; the rest is an exception."""
    for variant in VARIANTS:
        mine = variant in ("secure", "shared", "pinned_shared")
        wanted = {"owner": DONE if mine else FAULT, "other": E_FATAL if variant == "secure" else FAULT}
        for vcpu, who in enumerate(wanted):
            got = _instruction(engine, variant, vcpu, TOUCH)
            if got != (wanted[who], variant.split()[0]):
                raise AssertionError(f"{engine.name}: touch of {variant} by {who}: {got}, wanted {wanted[who]}")
        if _instruction(engine, variant, OWNER, TOUCH, present=0)[0] != FAULT:
            raise AssertionError(f"{engine.name}: touch of a {variant} page that is not mapped did not fault")


@case()
def access_by_the_host(engine: Engine) -> None:
    """The host cannot change a byte of a secure page; of an exported one it can."""
    for variant, wanted in (("secure", W_IDLE), ("exported", OK)):
        bench = Bench(engine, _page(variant))
        bench.expect(f"a byte of a page that is {variant}", bench.step(4, TOUCH, 0), wanted)


@case(50)
def calls_share_and_unshare(engine: Engine) -> None:
    """Share and unshare by the guest: no exit, but for a pinned shared page's unshare; 0x3e first where no access."""
    fault = {"non_secure", "exported", "exported shared"}
    share = {"secure": (DONE, "shared"), "shared": (DONE, "shared"), "pinned_shared": (DONE, "pinned_shared")}
    unshare = {"secure": (DONE, "secure"), "shared": (DONE, "secure"), "pinned_shared": (FAULT, "pinned_shared")}
    for op, table in ((SHARE, share), (UNSHARE, unshare)):
        for variant in VARIANTS:
            stays = variant.split()[0]
            own = (FAULT, stays) if variant in fault else table[variant]
            other = (E_FATAL if variant == "secure" else FAULT, stays)
            for vcpu, wanted in ((OWNER, own), (OTHER, other)):
                got = _instruction(engine, variant, vcpu, op)
                if got != wanted:
                    raise AssertionError(f"{engine.name}: call {op} on {variant} by guest {vcpu}: {got}, not {wanted}")


@case()
def reset_takes_all_pages(engine: Engine) -> None:
    """A reboot's unshare-all and destroy reach every page of the machine in one step, and no page of another."""
    states = ["non_secure", "secure", "shared", "pinned_shared", "exported"]
    system = build(
        "per-page", [0] * 10, states * 2, memory={"owner": [0] * 5 + [1] * 5}, vcpu=[{}, {"guest": 1}], reboot=[{}]
    )
    bench = Bench(engine, system)
    bench.go(2, TOUCH)
    wanted = ["NON_SECURE"] * 5 + [word.upper() for word in states]
    bench.expect("pages after the reboot of guest 0", bench.pages(), wanted)
    bench.expect("owners", [int(o) for o in bench.state.uv["owner"]], [0] * 6 + [1] * 4)
    bench.expect("a touch finds it running, its page cleared", bench.step(0, TOUCH, 1), FAULT)
