"""What kernels do differently in an import, by version, and bugs that some of them have: each case names the kernel's
function. docs/kernel-fixes.md has the commits.
"""

from __future__ import annotations

from dataclasses import replace

from ultrafolio.conformance.bench import KERNELS, Bench, Engine, build, having, import_steps, none_broken
from ultrafolio.conformance.case import case
from ultrafolio.model.layout import TOUCH, UNSHARE
from ultrafolio.model.policies import find
from ultrafolio.model.policy import Policy

WAITING, HELD, MUTEX = having(import_ref="waiting"), having(import_ref="held"), having(import_lock="vm")


@case(35)
def order_of_an_import(engine: Engine) -> None:
    """make_folio_secure(): the export right behind the trylock, and where the test for a large folio is."""
    end = "import-freeze import-arch import-call import-end"
    early = f"import-map import-large import-trylock import-export import-writeback {end}"
    late = f"import-mutex import-map import-trylock import-export import-large import-writeback {end}"
    for preset in KERNELS:
        bench = Bench(engine, build(preset, [0], ["shared"], vcpu=[{"touch": []}, {"guest": 1, "touch": [0]}]))
        steps = [step.split(":")[0] for step in bench.go(1, TOUCH, 0)]
        wanted = late if preset in ("linux-7.0", "linux-7.1", "linux-7.2") else early
        bench.expect(f"{preset}: rules", steps, ["vcpu-run", *wanted.split(), "vcpu-again"])
        bench.expect("owner", int(bench.state.uv[0]["owner"]), 1)
        none_broken(bench)


@case(27, 30)
def lock_and_large_folio(engine: Engine) -> None:
    """A large folio that is locked: split_folio() sleeps for the lock up to 6.19, the trylock of 7.x fails first."""
    late = replace(find("refuse-large"), large_at="after-writeback")
    tried: dict[str | Policy, list[str]] = {
        "linux-6.12": ["import-map: OK", "import-large: OK", "split-lock: waits for the folio lock"],
        "linux-6.18": ["import-map: OK", "import-large: OK", "split-lock: waits for the folio lock"],
        "linux-6.9": ["import-map: OK", "import-large: EINVAL"],
        "linux-7.1": ["import-mutex: OK", "import-map: OK", "import-trylock: EAGAIN"],
        late: ["import-map: OK", "import-trylock: EAGAIN"],
    }
    for preset, wanted in tried.items():
        bench = Bench(engine, build(preset, [1], ["non_secure"], vcpu=[{}], writeback=[{}]))
        bench.upto(1, "writeback-flag", TOUCH, 0)
        bench.expect(f"{preset}", bench.go(0, TOUCH, 0, limit=1 + len(wanted)), ["vcpu-run: FAULT", *wanted])


@case(28)
def fault_of_an_import_itself(engine: Engine) -> None:
    """kvm_s390_faultin_gfn(): an import's own write fault is inside the mutex, a guest's own is not."""
    for preset in MUTEX:
        for what, mutex in ((UNSHARE, ["import-mutex: OK"]), (TOUCH, [])):
            state = "pinned_shared" if what == UNSHARE else "exported"
            bench = Bench(
                engine, build(preset, [0], [state], memory={"writable": False}, vcpu=[{"touch": [0], "unshare": [0]}])
            )
            wanted = [
                "vcpu-run: FAULT",
                *mutex,
                "import-map: ENXIO",
                "vcpu-again: FAULT",
                *import_steps(preset),
                "vcpu-again: DONE",
            ]
            bench.expect(f"{preset}: operation {what}", bench.go(0, what, 0), wanted)
            bench.expect("free", int(bench.state.vm[0]["mutex"]), 0)


@case()
def own_reference_of_an_import(engine: Engine) -> None:
    """folio_get() in make_hva_secure(): an import holds a reference, from 6.14 on throughout, before as it waits.

    Another import of the page is refused meanwhile, unless the mutex of 7.x keeps it away.
    """
    for preset in KERNELS:
        bench = Bench(engine, build(preset, [0], ["exported"], vcpu=[{}, {"cpu": 1}], writeback=[{}]))
        bench.upto(2, "writeback-end", TOUCH, 0)
        bench.upto(0, "vcpu-again", TOUCH, 0)
        bench.upto(0, "wait-writeback")
        own = preset in WAITING or preset in HELD
        bench.expect(f"{preset}: references while it waits", int(bench.state.mm[0]["refs"]), int(own))
        bench.go(2)
        if preset in MUTEX:
            waits = "import-mutex: waits for the VM's import mutex"
            bench.expect(f"{preset}: the other", bench.go(1, TOUCH, 0), ["vcpu-run: FAULT", waits])
        else:
            met = bench.upto(1, "vcpu-again", TOUCH, 0)
            wanted = (own, "drain-all: EBUSY" if own else "import-end: SUCCESS")
            bench.expect(f"{preset}: the other", ("import-freeze: EBUSY" in met, met[-1]), wanted)
        bench.expect("the first", bench.go(0)[-1], "vcpu-again: DONE")
        bench.expect("the other, then", bench.go(1)[-1], "vcpu-again: DONE")
        bench.expect("references left", int(bench.state.mm[0]["refs"]), 0)
        none_broken(bench)


@case()
def page_table_lock_of_an_import(engine: Engine) -> None:
    """folio_walk_start() in make_hva_secure(): two imports of one page exclude each other from the walk to the call.

    Imports of two pages do not. 7.0 walks without the lock.
    """
    without = replace(find("linux-7.0"), import_lock="none")
    presets: list[str | Policy] = [*(p for p in HELD if p not in MUTEX), without]
    for preset in presets:
        bench = Bench(engine, build(preset, [0, 0], ["exported"], vcpu=[{}, {"cpu": 1}]))
        bench.upto(0, "import-trylock", TOUCH, 0)
        bench.expect("another page", bench.go(1, TOUCH, 1)[-1], "vcpu-again: DONE")
        met = bench.go(1, TOUCH, 0, limit=2)
        if preset is without:
            bench.expect("without the lock", met, ["vcpu-run: FAULT", "import-map: OK"])
            continue
        bench.expect(f"{preset}: the other", met, ["vcpu-run: FAULT", "import-map: waits for the page-table lock"])
        bench.go(0)
        bench.expect("afterwards", bench.go(1)[-1], "vcpu-again: DONE")
        bench.expect("no lock is left", [int(n) for n in bench.state.mm["walked"]], [0, 0])
        none_broken(bench)


@case(27)
def wait_after_a_failed_trylock(engine: Engine) -> None:
    """gmap_make_secure() of 6.10 to 6.13: after a failed trylock it waits for writeback; others are busy at once."""
    for preset in KERNELS:
        bench = Bench(engine, build(preset, [0], ["exported"], vcpu=[{}], writeback=[{}]))
        bench.upto(1, "writeback-io", TOUCH, 0)
        tried = [*import_steps(preset, "import-trylock"), "import-trylock: EAGAIN"]
        after = "wait-writeback: waits for the end of writeback" if preset in WAITING else "vcpu-again: FAULT"
        # writeback took the write permission away, so the first exit is a write fault
        wanted = ["vcpu-run: FAULT", "import-map: ENXIO", "vcpu-again: FAULT", *tried, after]
        bench.expect(f"{preset}: locked, in writeback", bench.go(0, TOUCH, 0, limit=len(wanted)), wanted)
        bench.expect("references", int(bench.state.mm[0]["refs"]), int(preset in WAITING))
        bench.go(1)
        bench.expect(f"{preset}: after its end", bench.go(0)[-1], "vcpu-again: DONE")
        bench.expect("references left", int(bench.state.mm[0]["refs"]), 0)


@case()
def pin_meets_a_frozen_count(engine: Engine) -> None:
    """try_grab_folio() meets a count that an import froze: it waits for the page-table lock, which 7.0 does not hold.

    There it fails with a warning (42546fc642e9).
    """
    for preset in KERNELS:
        system = build(preset, [0], ["exported"], vcpu=[{}], disk=[{"page": 0}], access=[{}])
        bench = Bench(engine, system)
        bench.upto(0, "import-call", TOUCH, 0)
        bug = preset == "linux-7.0"
        met = "pin-get: frozen count touched" if bug else "pin-get: waits for the folio to thaw"
        bench.expect(preset, bench.go(1), ["device-start: OK", met])
        bench.expect("broken", bench.broken, [5] if bug else [])
        bench.expect("pins", int(bench.state.mm[0]["pins"]), 0)
        bench.go(0)
        bench.expect(
            f"{preset}: after the thaw",
            bench.go(1)[-1],
            "device-start: waits for nothing to do" if bug else "unpin: DONE",
        )


@case()
def page_unmapped_under_an_import(engine: Engine) -> None:
    """kvm_s390_faultin_gfn(): unmapped between the walk and the call, a page is faulted in, and touched again.

    7.0 reports success (9a1dfbbd3506), and keeps a reference where memory is short (6ae67dcac742). 6.14-rc made its
    call on a frame that was freed (d8dfda5af0be).
    """
    wanted = {
        "linux-6.12": ("import-call: ENXIO (swapped in)", 0, []), "linux-6.18": ("import-call: ENXIO", 0, []),
        "linux-7.0": ("import-call: SUCCESS", 0, [9]), "linux-7.1": ("import-call: ENXIO", 0, []),
        "linux-7.1~9a1dfbbd3506~6ae67dcac742": ("import-call: SUCCESS", 1, [9]),
        "linux-6.14~d8dfda5af0be": ("import-call: EINVAL", 0, []),
    }  # fmt: skip
    for preset, (outcome, left, broken) in wanted.items():
        bench = Bench(engine, build(preset, [0], ["exported"], vcpu=[{}], reclaim=[{}]))
        bench.upto(0, "import-trylock", TOUCH, 0)
        bench.go(1)
        bench.upto(0, "import-call")
        bench.step(0)
        bench.expect(preset, bench.log[-1], outcome)
        bench.expect("references left", int(bench.state.mm[0]["refs"]), left)
        bench.expect("properties broken", bench.broken, broken)
        if outcome != "import-call: EINVAL":
            steps = bench.go(0, limit=60)
            bench.expect("imported in the end", steps[-1] == "vcpu-again: DONE", not left)


@case(36)
def pin_goes_on_past_a_failed_page(engine: Engine) -> None:
    """gup_fast_pte_range(): up to 6.17 a page that could not be made accessible is passed over.

    All pages are reported pinned, and I/O meets a secure page (d16a74f0f266).
    """
    for preset, bug in (("linux-6.17~d16a74f0f266", True), ("linux-6.12", True), ("linux-6.18", False)):
        system = build(preset, [0, 0], ["secure"], memory={"refuses": [0]}, disk=[{"page": 0, "pages": 2}])
        bench = Bench(engine, system)
        bench.upto(0, "io-end") if bug else bench.go(0)
        bench.expect(f"{preset}: pins", [int(n) for n in bench.state.mm["pins"]], [1, 1] if bug else [0, 0])
        bench.expect(
            "pages, broken",
            (bench.pages(), bench.broken),
            (["SECURE", "EXPORTED"], [1]) if bug else (["SECURE", "SECURE"], []),
        )


@case()
def export_by_an_unmap(engine: Engine) -> None:
    """uv_convert_from_secure_pte() in ptep_clear_flush(): one entry's page is exported, since 7.0 its whole folio.

    One page is unmapped in either case (21401ce49706).
    """
    for unit, pages in (("page", ["SECURE", "EXPORTED"]), ("folio", ["EXPORTED", "EXPORTED"])):
        policy = replace(find("per-page"), unmap=unit)
        bench = Bench(engine, build(policy, [1], ["secure"], reclaim=[{"page": [1]}]))
        steps = bench.go(0)
        bench.expect(f"{unit}: exports", steps.count("reclaim-export: OK"), len([p for p in pages if p == "EXPORTED"]))
        bench.expect("pages", bench.pages(), pages)
        bench.expect("bits", bench.bits(), [int(page == "SECURE") for page in pages])
        bench.expect("mapped", [int(n) for n in bench.state.pt["present"]], [1, 2])
