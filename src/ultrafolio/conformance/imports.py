"""The import path: conformance case 20 to 35, each bound to the presets of the kernels it speaks of."""

from __future__ import annotations

from ultrafolio.conformance.bench import EVERY, Bench, Engine, build, having, import_steps, none_broken
from ultrafolio.conformance.case import case
from ultrafolio.model.layout import IO_END, KILLED, MAPPED, SHARE, TOUCH, UNSHARE, pack
from ultrafolio.model.scenario import System

OWN_THEN_ALL = having(drain="own-then-all")
"""Presets that drain the own CPU first: kernels up to 6.13."""
ALL_AT_ONCE = having(drain="all")
"""Presets that drain every CPU at once: kernels from 6.14."""
SPLITTING = having(large="split")


@case(23)
def import_plain(engine: Engine) -> None:
    """A page without extra references: frozen, its bit set, imported, thawed, in one exit, under every preset."""
    for preset in EVERY:
        for state in ("non_secure", "exported"):
            bench = Bench(engine, build(preset, [0], [state], vcpu=[{}]))
            wanted = ["vcpu-run: FAULT", *import_steps(preset), "vcpu-again: DONE"]
            bench.expect(f"{preset}: touch of {state}", bench.go(0, TOUCH, 0), wanted)
            bench.expect(f"{preset}: page and bit", (bench.pages(), bench.bits()), (["SECURE"], [1]))
            mm = bench.state.mm[0]
            bench.expect("thawed and unlocked", (mm["frozen"], mm["locked"], mm["refs"]), (0, 0, 0))
            none_broken(bench)


@case(23, 58)
def import_order(engine: Engine) -> None:
    """The freeze comes before the bit, the bit before the call; all three under the folio lock."""
    bench = Bench(engine, build("per-page", [0], ["exported"], vcpu=[{}]))
    seen = []
    for rule in ("import-freeze", "import-arch", "import-call", "import-end"):
        bench.upto(0, rule, TOUCH, 0)
        mm = bench.state.mm[0]
        seen.append((rule, int(mm["locked"]), int(mm["frozen"]), int(mm["arch"]), bench.pages()[0]))
    wanted = [
        ("import-freeze", 1, 0, 0, "EXPORTED"), ("import-arch", 1, 1, 0, "EXPORTED"),
        ("import-call", 1, 1, 1, "EXPORTED"), ("import-end", 1, 1, 1, "SECURE"),
    ]  # fmt: skip
    bench.expect("lock, freeze, bit and state before each rule", seen, wanted)


@case(24)
def import_of_any_backing(engine: Engine) -> None:
    """What page cache and swap cache hold is expected and never blocks: any backing imports, also after a swap-in."""
    for preset in EVERY:
        for backing in ("anon", "shmem", "iomap"):
            system = build(preset, [0], ["secure"], memory={"backing": backing}, vcpu=[{}], reclaim=[{}])
            bench = Bench(engine, system)
            bench.go(1, TOUCH, 0)
            bench.expect(f"{preset}, {backing}: reclaimed", bench.log[-1], "reclaim-free: DONE")
            # a page that is not mapped is a fault of the guest's own, without the import mutex
            wanted = [
                "vcpu-run: FAULT",
                "import-map: ENXIO (swapped in)",
                "vcpu-again: FAULT",
                *import_steps(preset),
                "vcpu-again: DONE",
            ]
            bench.expect(f"{preset}, {backing}: touched again", bench.go(0, TOUCH, 0), wanted)
            bench.expect("page", bench.pages(), ["SECURE"])
            none_broken(bench)


@case(25)
def import_of_a_pinned_page(engine: Engine) -> None:
    """One extra reference: drain (own, again, all; from 6.14 all), busy, page and bit untouched; after it success."""
    for preset in OWN_THEN_ALL + ALL_AT_ONCE:
        bench = Bench(engine, build(preset, [0], ["exported"], vcpu=[{}], disk=[{"page": 0}]))
        bench.upto(1, "io-end")
        refused = [*import_steps(preset, "import-freeze"), "import-freeze: EBUSY"]
        if preset in OWN_THEN_ALL:
            again = [step for step in refused if step != "import-mutex: OK"]
            once = [*refused, "drain-own: OK", *again, "drain-all: EBUSY"]
        else:
            once = [*refused, "drain-all: EBUSY"]
        wanted = ["vcpu-run: FAULT", *once, "vcpu-again: FAULT", *once, "vcpu-again: FAULT"]
        bench.expect(f"{preset}: touch under a pin", bench.go(0, TOUCH, 0, limit=len(wanted)), wanted)
        bench.expect(f"{preset}: page and bit", (bench.pages(), bench.bits()), (["EXPORTED"], [0]))
        mm = bench.state.mm[0]
        bench.expect("unlocked, not frozen, still pinned", (mm["locked"], mm["frozen"], mm["pins"]), (0, 0, 1))
        bench.go(1)
        bench.expect(f"{preset}: after the I/O", bench.go(0)[-2:], ["import-end: SUCCESS", "vcpu-again: DONE"])
        none_broken(bench)


@case(26)
def import_of_a_page_in_an_lru_batch(engine: Engine) -> None:
    """A batch of the own CPU costs no second exit up to 6.13; another CPU's is gone after drain-all."""
    for preset in OWN_THEN_ALL + ALL_AT_ONCE:
        for cpu in (0, 1):
            bench = Bench(engine, build(preset, [0], ["exported"], vcpu=[{"cpu": 0}], lru=[{"cpu": cpu}]))
            bench.step(1, TOUCH, 0)
            steps = bench.go(0, TOUCH, 0)
            exits = steps.count("vcpu-run: FAULT") + steps.count("vcpu-again: FAULT")
            wanted = 1 if preset in OWN_THEN_ALL and cpu == 0 else 2
            bench.expect(f"{preset}: exits with a batch of CPU {cpu}", exits, wanted)
            bench.expect("drained", steps.count("drain-all: EBUSY"), wanted - 1)
            bench.expect("page", bench.pages(), ["SECURE"])
            none_broken(bench)


@case(27, 58)
def import_under_writeback(engine: Engine) -> None:
    """Under writeback: unlock, sleep until it ends, touch again; never secure while the flag is set."""
    for preset in EVERY:
        bench = Bench(engine, build(preset, [0], ["exported"], vcpu=[{}], writeback=[{}]))
        bench.upto(1, "writeback-end", TOUCH, 0)
        # writeback took the write permission away, so the first exit is a write fault
        bench.upto(0, "vcpu-again", TOUCH, 0)
        sleep = [
            *import_steps(preset, "import-writeback"),
            "import-writeback: EAGAIN (writeback)",
            "wait-writeback: waits for the end of writeback",
        ]
        bench.expect(f"{preset}: the page is in writeback", bench.go(0), ["vcpu-again: FAULT", *sleep])
        bench.expect("not secure, not locked", (bench.pages(), int(bench.state.mm[0]["locked"])), (["EXPORTED"], 0))
        bench.expect("its end", bench.go(1), ["writeback-end: DONE"])
        wanted = ["wait-writeback: OK", "vcpu-again: FAULT", *import_steps(preset), "vcpu-again: DONE"]
        bench.expect(f"{preset}: after its end", bench.go(0), wanted)
        none_broken(bench)


@case(27)
def import_meets_the_folio_lock(engine: Engine) -> None:
    """A folio locked by writeback is busy, not waited for; it is tried at every touch."""
    for preset in EVERY:
        bench = Bench(engine, build(preset, [0], ["exported"], vcpu=[{}], writeback=[{}]))
        bench.upto(1, "writeback-flag", TOUCH, 0)
        # 6.10 to 6.13 wait for writeback then, of which there is none yet
        waits = ["wait-writeback: OK"] if preset in having(import_ref="waiting") else []
        tried = [*import_steps(preset, "import-trylock"), "import-trylock: EAGAIN", *waits]
        wanted = ["vcpu-run: FAULT", *tried, "vcpu-again: FAULT", *tried, "vcpu-again: FAULT"]
        bench.expect(f"{preset}: locked", bench.go(0, TOUCH, 0, limit=len(wanted)), wanted)


@case(28)
def import_of_a_page_not_mapped_writable(engine: Engine) -> None:
    """Read-only, unmapped or swapped out: a write fault first, then touched again; an iomap folio becomes dirty."""
    for preset in EVERY:
        for what in ("read-only", "unmapped", "swapped"):
            memory = {"backing": "iomap", "writable": what != "read-only", "dirty": False}
            system = build(preset, [0], ["exported"], memory=memory, vcpu=[{}])
            system.state.pt["present"] = {"read-only": 1, "unmapped": 0, "swapped": 2}[what]
            bench = Bench(engine, system)
            error = "ENXIO (swapped in)" if what == "swapped" else "ENXIO"
            wanted = [
                "vcpu-run: FAULT",
                f"import-map: {error}",
                "vcpu-again: FAULT",
                *import_steps(preset),
                "vcpu-again: DONE",
            ]
            bench.expect(f"{preset}: {what}", bench.go(0, TOUCH, 0), wanted)
            mm, present = bench.state.mm[0], bench.state.pt["present"][0]
            bench.expect("mapped, writable, dirty", (present, mm["writable"], mm["dirty"]), (MAPPED, 1, 1))


@case(30)
def import_of_a_large_folio(engine: Engine) -> None:
    """A large folio: refused and fatal; split and imported at once; split and falsely reported; split and retried."""
    found = {}
    for preset in ("refuse-large", "linux-6.4", *SPLITTING, "per-page"):
        bench = Bench(engine, build(preset, [2], ["non_secure"], vcpu=[{}]))
        steps = bench.go(0, TOUCH, 1)
        exits = steps.count("vcpu-run: FAULT") + steps.count("vcpu-again: FAULT")
        orders = {int(order) for order in bench.state.mm["order"]}
        found[preset] = (exits, steps[-1], bench.pages()[1], orders, bench.broken)
        alone = [page for page in bench.pages() if page == "NON_SECURE"]
        bench.expect(f"{preset}: the other pages", len(alone), 4 if preset in having(large="refuse") else 3)
    done = "vcpu-again: DONE"
    wanted = {
        **dict.fromkeys(("refuse-large", "linux-6.4"), (1, "import-large: EINVAL", "NON_SECURE", {2}, [])),
        **dict.fromkeys(having(large="split", after_split="again"), (1, done, "SECURE", {0}, [])),
        **dict.fromkeys(having(large="split", after_split="false-success"), (2, done, "SECURE", {0}, [9])),
        **dict.fromkeys(having(large="split", after_split="retry"), (2, done, "SECURE", {0}, [])),
        "per-page": (1, done, "SECURE", {2}, []),
    }
    if found != wanted:
        wrong = {preset: found[preset] for preset in wanted if found[preset] != wanted[preset]}
        raise AssertionError(f"{engine.name}: exits, last step, page, orders, broken: {wrong}")


@case(30)
def import_of_a_large_folio_up_to_6_9(engine: Engine) -> None:
    """The count of one page of a large folio is never what 5.7 to 6.9 expect: touched again for ever, without a pin."""
    for preset in having(large="never"):
        bench = Bench(engine, build(preset, [2], ["non_secure"], vcpu=[{}]))
        tried = bench.go(0, TOUCH, 1, limit=120)
        freezes = {step for step in tried if step.startswith("import-freeze")}
        bench.expect(f"{preset}: freezes", freezes, {"import-freeze: EBUSY"})
        bench.expect("exits", tried.count("vcpu-again: FAULT") > 5, True)
        bench.expect("pages, references", (bench.pages()[1], int(bench.state.mm[0]["refs"])), ("NON_SECURE", 0))


@case(31)
def import_of_a_large_folio_with_a_pin(engine: Engine) -> None:
    """A pin on another sub-page refuses the split for as long as it lives, short or long; then it succeeds."""
    for preset in SPLITTING:
        for kind in ("disk", "pin"):
            system = build(preset, [2], ["non_secure"], vcpu=[{}], reboot=[{}], **{kind: [{"page": 3}]})
            bench = Bench(engine, system)
            pinner = 1 if kind == "disk" else 2
            bench.upto(pinner, "io-end" if kind == "disk" else "ring-teardown")
            tried = bench.fails_for_ever(0, TOUCH, 0)
            splits = {step for step in tried if step.startswith("split: ")}
            bench.expect(f"{preset}: always refused", splits, {"split: EBUSY"})
            bench.expect("page, order", (bench.pages()[0], int(bench.state.mm[0]["order"])), ("NON_SECURE", 2))
            if kind == "pin":
                bench.expect("only a reboot tears it down", bench.go(pinner)[-1][:21], "ring-teardown: waits ")
                continue
            bench.go(pinner)
            bench.expect(f"{preset}: after the unpin", bench.go(0)[-1], "vcpu-again: DONE")
            bench.expect("page, order", (bench.pages()[0], int(bench.state.mm[0]["order"])), ("SECURE", 0))


@case(31)
def pin_after_the_split(engine: Engine) -> None:
    """A folio imported before it is pinned is split already: the pin harms no neighbour."""
    for preset in SPLITTING:
        bench = Bench(engine, build(preset, [2], ["non_secure"], vcpu=[{}], disk=[{"page": 3}]))
        bench.go(0, TOUCH, 0)
        bench.upto(1, "io-end")
        bench.expect(f"{preset}: a neighbour", bench.go(0, TOUCH, 1)[-1], "vcpu-again: DONE")
        bench.expect(f"{preset}: the first", bench.go(0, TOUCH, 0), ["vcpu-run: DONE"])


@case(32)
def import_of_a_dirty_iomap_folio(engine: Engine) -> None:
    """A dirty iomap folio never splits up to 6.15; from 6.16 one write-back and a second split cure it in one call."""
    for preset in SPLITTING:
        bench = Bench(engine, build(preset, [2], ["non_secure"], memory={"backing": "iomap"}, vcpu=[{}]))
        steps = bench.go(0, TOUCH, 0, limit=120)
        if preset in having(split_writeback=0):
            bench.expect(f"{preset}: splits refused", steps.count("split: EBUSY (dirty)") > 10, True)
            bench.expect("page, order", (bench.pages()[0], int(bench.state.mm[0]["order"])), ("NON_SECURE", 2))
            continue
        split = steps.index("split: DONE")
        bench.expect(f"{preset}: exits up to the split", steps[:split].count("vcpu-again: FAULT"), 0)
        bench.expect("write-backs", steps.count("writeback-end: DONE"), 1)
        bench.expect("the end", (steps[-1], bench.pages()[0]), ("vcpu-again: DONE", "SECURE"))
        none_broken(bench)


@case(32)
def background_writeback_does_not_cure(engine: Engine) -> None:
    """Cleaned by background writeback, the folio splits up to 6.15 only if no write fault comes first, and one does."""
    bench = Bench(
        engine,
        build("linux-6.12", [2], ["non_secure"], memory={"backing": "iomap"}, vcpu=[{}], writeback=[{"starts": 255}]),
    )
    bench.upto(0, "vcpu-again", TOUCH, 0)
    for _ in range(3):
        bench.go(1, TOUCH, 0)
        bench.expect("clean", int(bench.state.mm[0]["dirty"]), 0)
        wanted = [
            "vcpu-again: FAULT",
            "import-map: ENXIO",
            "vcpu-again: FAULT",
            "import-map: OK",
            "import-large: OK",
            "split-lock: OK",
            "split: EBUSY (dirty)",
        ]
        bench.expect("dirty again before the split", bench.go(0, limit=len(wanted)), wanted)


@case(34)
def import_refused_by_the_ultravisor(engine: Engine) -> None:
    """A refused import is fatal; folio thawed and unlocked, mutex free; the bit stays set, over-indicating."""
    for preset in EVERY:
        bench = Bench(engine, build(preset, [0], ["exported"], memory={"refuses": [0]}, vcpu=[{}, {}]))
        wanted = ["vcpu-run: FAULT", *import_steps(preset, "import-call"), "import-call: EINVAL"]
        bench.expect(f"{preset}: refused", bench.go(0, TOUCH, 0), wanted)
        mm = bench.state.mm[0]
        bench.expect("bit, locked, frozen", (mm["arch"], mm["locked"], mm["frozen"]), (1, 0, 0))
        bench.expect("the machine", (int(bench.state.vm[0]["life"]), int(bench.state.vm[0]["mutex"])), (KILLED, 0))
        stopped = ["vcpu-run: waits for the virtual machine to run"]
        bench.expect("its other vCPU", bench.go(1, TOUCH, 0), stopped)


@case(34)
def import_of_a_changed_page(engine: Engine) -> None:
    """A byte of an exported page changed by the host: its import is fatal, and the guest never sees it."""
    bench = Bench(engine, build("per-page", [0], ["exported"], vcpu=[{}], tamper=[{}]))
    bench.step(1, TOUCH, 0)
    bench.expect("the import", bench.go(0, TOUCH, 0)[-1], "import-call: EINVAL")
    bench.expect("the page", bench.pages(), ["EXPORTED"])


@case(20, 34)
def export_does_not_launder_a_changed_page(engine: Engine) -> None:
    """An export of an exported page is no-op: a byte changed before it still fails the import after it."""
    ways = {
        "export before import": build("per-page", [0], ["exported"], vcpu=[{}, {"guest": 1}], tamper=[{}]),
        "reclaim": build("per-page", [0], ["exported"], vcpu=[{}], reclaim=[{}], tamper=[{}]),
        "writeback": build("whole-folio", [1], ["exported", "secure"], vcpu=[{}], writeback=[{}], tamper=[{}]),
    }
    for way, system in ways.items():
        bench = Bench(engine, system)
        last = len(system.state.task) - 1
        bench.step(last, TOUCH, 0)
        if way != "export before import":
            bench.go(1, TOUCH, 0)
        bench.expect(f"{way}, then the import", bench.go(0, TOUCH, 0)[-1], "import-call: EINVAL")
        bench.expect("the page", bench.pages()[0], "EXPORTED")


@case(35)
def export_before_import(engine: Engine) -> None:
    """Two secure VMs in one address space, no MISC: an export comes before the import, but not before an unpin."""
    cases = {(True, False): True, (True, True): False, (False, False): False, (False, True): False}
    for preset in ("per-page", "linux-6.3", "linux-6.9", "linux-6.12", "linux-6.18", "import-lock", "linux-7.1"):
        for (one_space, misc), exported in cases.items():
            features = {"one_address_space": one_space, "ownership_transfer": misc}
            bench = Bench(
                engine,
                build(
                    preset,
                    [0],
                    ["non_secure"],
                    features=features,
                    vcpu=[{"share": [0], "unshare": [0], "starts": 9}, {"guest": 1}],
                    disk=[{"page": 0}],
                ),
            )
            wanted = ["vcpu-run: FAULT", *import_steps(preset, foreign=exported), "vcpu-again: DONE"]
            bench.expect(f"{preset}: one space {one_space}, MISC {misc}", bench.go(0, TOUCH, 0), wanted)
            bench.expect("page", bench.pages(), ["SECURE"])
            bench.go(0, SHARE, 0)
            bench.go(2)
            bench.expect("pinned", bench.pages(), ["PINNED_SHARED"])
            steps = bench.go(0, UNSHARE, 0)
            bench.expect("never before an unpin", ("import-export: OK" in steps, bench.pages()), (False, ["SECURE"]))
            none_broken(bench)


@case(35)
def import_without_export_up_to_5_19(engine: Engine) -> None:
    """Up to 5.19 no export comes before the import of a page that another guest shared, and the import is fatal."""
    for preset, last in (("linux-6.3~72b1daff2671", "import-call: EINVAL"), ("linux-6.3", "vcpu-again: DONE")):
        bench = Bench(engine, build(preset, [0], ["shared"], vcpu=[{"guest": 1, "touch": [0]}]))
        bench.expect(preset, bench.go(0, TOUCH, 0)[-1], last)
        bench.expect("owner", int(bench.state.uv[0]["owner"]), int(last == "vcpu-again: DONE"))


@case(20)
def two_pins_at_once(engine: Engine) -> None:
    """Two pins of one page, in every order of their steps: both make it accessible, one call or two, no error."""
    for state, after in (("secure", "EXPORTED"), ("shared", "PINNED_SHARED")):
        system = build("per-page", [0], [state], disk=[{"page": 0}, {"page": 0}])
        todo, seen, ends = [system], {pack(system.state)}, 0
        while todo:
            at = todo.pop()
            moved = [disk for disk in (0, 1) if at.state.task[disk]["pc"] != IO_END]
            for disk in moved:
                bench = Bench(engine, at)
                bench.step(disk)
                bench.expect(
                    "no error, nothing broken", (bench.log[-1].split()[-1] in ("OK", "DONE"), bench.broken), (True, [])
                )
                if pack(bench.state) not in seen:
                    seen.add(pack(bench.state))
                    todo.append(System(bench.state, at.choices))
            if not moved:
                ends += 1
                bench = Bench(engine, at)
                bench.expect("both in flight", int(bench.state.io[0]["flying"]), 2)
                bench.expect("page, bit", (bench.pages(), bench.bits()), ([after], [0]))
        if not ends:
            raise AssertionError(f"{engine.name}: {state}: the two never came to the end of their pins")
