"""Making pages accessible, unshare, and exceptions: conformance case 36 to 52."""

from __future__ import annotations

from ultrafolio.conformance.bench import EVERY, Bench, Engine, build, having, none_broken
from ultrafolio.conformance.case import case
from ultrafolio.model.layout import E_LATE, TOUCH, UNSHARE, WRITING

PAGE_BY_PAGE = having(accessible="page", large=("direct", "split"))
"""Presets under which a pin makes one page accessible, of a folio whose pages were imported."""
IMPORTED = having(large=("direct", "split"))
"""Presets under which imported pages may be in what was a large folio."""
SHARES_FOLIO = ("whole-folio", "whole-folio-literal")


@case(36)
def pin_of_a_secure_page(engine: Engine) -> None:
    """Pinned, a secure page is exported and its bit cleared; its neighbours stay as they are."""
    for preset in PAGE_BY_PAGE:
        bench = Bench(engine, build(preset, [2], ["secure"], disk=[{"page": 1}]))
        steps = bench.upto(0, "io-end")
        wanted = [
            "device-start: OK",
            "pin-get: OK",
            "accessible-test: OK",
            "accessible-pin: OK",
            "accessible-export: OK",
            "accessible-clear: OK",
            "pin-get: DONE",
            "io-start: OK",
        ]
        bench.expect(f"{preset}: steps", steps, wanted)
        bench.expect(f"{preset}: pages", bench.pages(), ["SECURE", "EXPORTED", "SECURE", "SECURE"])
        bench.expect(f"{preset}: bits", bench.bits(), [1, 0, 1, 1])
        none_broken(bench)


@case(37)
def pin_of_a_shared_page(engine: Engine) -> None:
    """Pinned, a shared page is pinned shared and its bit cleared; the guest still has it."""
    for preset in PAGE_BY_PAGE:
        bench = Bench(engine, build(preset, [1], ["shared", "secure"], vcpu=[{}], disk=[{"page": 0}]))
        steps = bench.upto(1, "io-end")
        wanted = [
            "device-start: OK",
            "pin-get: OK",
            "accessible-test: OK",
            "accessible-pin: OK",
            "accessible-clear: OK",
            "pin-get: DONE",
            "io-start: OK",
        ]
        bench.expect(f"{preset}: steps", steps, wanted)
        bench.expect(f"{preset}: pages", (bench.pages(), bench.bits()), (["PINNED_SHARED", "SECURE"], [0, 1]))
        bench.expect(f"{preset}: the guest's touch", bench.go(0, TOUCH, 0), ["vcpu-run: DONE"])
        none_broken(bench)


@case(38)
def plain_references_make_nothing_accessible(engine: Engine) -> None:
    """A reference without FOLL_PIN (pfn walker, other mapping, LRU) makes no call: page and bit as before."""
    for preset in IMPORTED:
        for kind in ("speculative", "mapping", "lru"):
            bench = Bench(engine, build(preset, [1], ["shared", "secure"], **{kind: [{}]}))
            before = bench.bits()
            bench.go(0, TOUCH, 1, limit=1)
            bench.expect(f"{preset}: references", sum(int(n) for n in bench.state.mm["refs"]), 1)
            bench.expect(f"{preset}, {kind}", (bench.pages(), bench.bits()), (["SHARED", "SECURE"], before))


@case(39)
def a_clear_bit_saves_the_call(engine: Engine) -> None:
    """Where the bit is clear no call is made at all: even a page on which every call fails is pinned."""
    for preset in EVERY:
        bench = Bench(engine, build(preset, [0], ["exported"], memory={"refuses": [0]}, disk=[{"page": 0}]))
        wanted = ["device-start: OK", "pin-get: OK", "accessible-test: OK", "pin-get: DONE", "io-start: OK"]
        bench.expect(preset, bench.upto(0, "io-end"), wanted)


@case(40)
def the_posted_loops(engine: Engine) -> None:
    """The posted patch: pins until one fails, then exports every page, those it just pinned too (property 3)."""
    for shared in ([3], [0, 1, 2]):
        state = ["shared" if page in shared else "secure" for page in range(16)]
        bench = Bench(engine, build("whole-folio-literal", [4], state, disk=[{"page": 3}]))
        steps = bench.upto(0, "io-end")
        pins = 1 + (len(shared) if shared[0] == 0 else 0)
        wanted = [
            "device-start: OK",
            "pin-get: OK",
            "accessible-test: OK",
            *["accessible-pin: OK"] * pins,
            *["accessible-export: OK"] * 16,
            "accessible-clear: OK",
            "pin-get: DONE",
            "io-start: OK",
        ]
        bench.expect(f"shared {shared}: steps", steps, wanted)
        bench.expect("pages, bits", (bench.pages(), bench.bits()), (["EXPORTED"] * 16, [0] * 16))
        # also the ring's own page: its device then reads cipher text (property 11)
        bench.expect("a page shared throughout was exported", bench.broken, [3, 11] if 3 in shared else [3])
    bench = Bench(engine, build("whole-folio-literal", [4], ["shared"], disk=[{"page": 3}]))
    steps = bench.upto(0, "io-end")
    bench.expect("all shared: no export", [s for s in steps if "export" in s], [])
    bench.expect("all shared", (bench.pages(), bench.broken), (["PINNED_SHARED"] * 16, []))


@case(40)
def the_intended_result(engine: Engine) -> None:
    """What the proposal means: the shared page pinned shared, the rest exported, one bit for all."""
    state = ["shared" if page == 3 else "secure" for page in range(16)]
    bench = Bench(engine, build("whole-folio", [4], state, disk=[{"page": 3}]))
    steps = bench.upto(0, "io-end")
    counts = (steps.count("accessible-pin: OK"), steps.count("accessible-export: OK"))
    bench.expect("pins and exports", counts, (16, 15))
    wanted = ["PINNED_SHARED" if page == 3 else "EXPORTED" for page in range(16)]
    bench.expect("pages", (bench.pages(), bench.bits()), (wanted, [0] * 16))
    none_broken(bench)


@case(41)
def neighbour_of_direct_io(engine: Engine) -> None:
    """The folio made accessible, a neighbour's touch fails for as long as the I/O's pin lives, then succeeds."""
    for preset in SHARES_FOLIO:
        state = ["shared" if page == 3 else "secure" for page in range(16)]
        bench = Bench(engine, build(preset, [4], state, vcpu=[{}], disk=[{"page": 3}]))
        bench.upto(1, "io-end")
        tried = bench.fails_for_ever(0, TOUCH, 7)
        bench.expect(f"{preset}: imports", "import-arch: OK" in tried, False)
        bench.expect("a freeze refused", "import-freeze: EBUSY" in tried, True)
        bench.go(1)
        bench.expect(f"{preset}: after the unpin", bench.go(0)[-2:], ["import-end: SUCCESS", "vcpu-again: DONE"])


@case(42)
def neighbour_of_a_virtio_ring(engine: Engine) -> None:
    """The same beside a virtio ring: nothing but the guest's reboot or shutdown ends it."""
    for preset in SHARES_FOLIO:
        for shutdown in (False, True):
            state = ["shared" if page == 3 else "secure" for page in range(16)]
            bench = Bench(
                engine, build(preset, [4], state, vcpu=[{}], virtio=[{"page": 3}], reboot=[{"shutdown": shutdown}])
            )
            bench.upto(1, "ring-teardown")
            tried = bench.fails_for_ever(0, TOUCH, 7)
            bench.expect(f"{preset}: imports", "import-arch: OK" in tried, False)
            bench.expect("the device stays", bench.go(1), ["ring-teardown: waits for the virtual machine to run"])
            bench.step(2, 0 if shutdown else TOUCH)
            bench.go(0)
            bench.expect("torn down", bench.go(1), ["ring-teardown: OK", "unpin: DONE"])
            bench.expect("reset", bench.go(2), ["reboot-quiet: OK", "reboot-reset: DONE"])
            bench.expect("pages", bench.pages(), ["NON_SECURE"] * 16)
            after = bench.go(0, TOUCH, 7)[-1]
            stopped = "vcpu-run: waits for the virtual machine to run"
            bench.expect("the touch after it", after, stopped if shutdown else "vcpu-again: DONE")


@case(43)
def neighbour_page_by_page(engine: Engine) -> None:
    """Page by page, the neighbour is still secure: its touch is no exit at all."""
    for preset in PAGE_BY_PAGE:
        for device in ("disk", "virtio"):
            state = ["shared" if page == 3 else "secure" for page in range(16)]
            bench = Bench(engine, build(preset, [4], state, vcpu=[{}], **{device: [{"page": 3}]}))
            bench.upto(1, "io-end" if device == "disk" else "ring-teardown")
            bench.expect(f"{preset}, {device}", bench.go(0, TOUCH, 7), ["vcpu-run: DONE"])


@case(44)
def writeback_makes_all_accessible(engine: Engine) -> None:
    """Writeback makes every page of the folio accessible under every policy; after its end they are imported again."""
    for preset in IMPORTED:
        bench = Bench(
            engine, build(preset, [2], ["secure", "shared", "exported", "secure"], vcpu=[{}], writeback=[{"starts": 9}])
        )
        whole = int(bench.state.mm[0]["order"]) == 2
        # a folio that was split is written back page by page
        for page in [0] if whole else range(4):
            bench.upto(1, "writeback-end", TOUCH, page)
            bench.expect(f"{preset}: in flight", int(bench.state.mm[page]["writeback"]), WRITING)
            if whole:
                secure = [p for p in bench.pages() if p == "SECURE"]
                bench.expect(f"{preset}: no I/O on secure pages", secure, [])
            bench.go(1)
        exported_shared = preset == "whole-folio-literal"
        wanted = ["EXPORTED", "EXPORTED" if exported_shared else "PINNED_SHARED", "EXPORTED", "EXPORTED"]
        bench.expect(f"{preset}: pages", bench.pages(), wanted)
        bench.expect(f"{preset}: bits", bench.bits(), [0, 0, 0, 0])
        for page in range(4):
            bench.expect(f"{preset}: touch {page}", bench.go(0, TOUCH, page)[-1][-4:], "DONE")
        bench.expect(f"{preset}: broken", bench.broken, [3] if exported_shared else [])


@case(44)
def writeback_too_late(engine: Engine) -> None:
    """One page pinned, the rest fails at writeback: too late to recover, a violation of property 8."""
    for preset in ("per-page", "folio-bitmap", "whole-folio"):
        system = build(preset, [1], ["shared", "secure"], memory={"refuses": [1]}, disk=[{"page": 0}], writeback=[{}])
        bench = Bench(engine, system)
        if preset != "whole-folio":
            bench.upto(0, "io-end")
            bench.expect(f"{preset}: one page of the folio", bench.pages(), ["PINNED_SHARED", "SECURE"])
        bench.upto(1, "accessible-export", TOUCH, 0)
        bench.expect(f"{preset}: the failure", bench.step(1), E_LATE)
        bench.expect(f"{preset}: broken", bench.broken, [8])
        bit = bench.bits()[0 if preset == "whole-folio" else 1]
        bench.expect("the bit of the page that failed", bit, 1)


@case(46)
def whole_folio_fails_at_a_page(engine: Engine) -> None:
    """A folio made accessible with a failing page k: those before k converted, the bit set, an error, no pin left."""
    for preset in SHARES_FOLIO:
        system = build(preset, [2], ["secure"], memory={"refuses": [2]}, vcpu=[{}], disk=[{"page": 0}])
        bench = Bench(engine, system)
        steps = bench.go(1)
        bench.expect(f"{preset}: the error, and the reference is gone", steps[-1], "accessible-export: EFAULT")
        bench.expect(f"{preset}: pages", bench.pages(), ["EXPORTED", "EXPORTED", "SECURE", "SECURE"])
        bench.expect(f"{preset}: bit", bench.bits(), [1, 0, 0, 0])
        bench.expect("references", int(bench.state.mm[0]["refs"]), 0)
        bench.expect(f"{preset}: a converted page comes back", bench.go(0, TOUCH, 1)[-1], "vcpu-again: DONE")
        none_broken(bench)


@case(36, 39)
def pin_fails(engine: Engine) -> None:
    """A pin that cannot make its page accessible is an error to its caller: the bit stays, the reference goes."""
    for preset in ("per-page", "split", "folio-bitmap"):
        system = build(preset, [1], ["secure"], memory={"refuses": [1]}, disk=[{"page": 0, "pages": 2}])
        bench = Bench(engine, system)
        bench.upto(0, "accessible-export")
        bench.upto(0, "unpin")
        bench.expect(f"{preset}: the error", bench.log[-1], "accessible-export: EFAULT")
        bench.expect("the failing page's is given back at once", [int(n) for n in bench.state.mm["pins"]], [1, 0])
        steps = bench.go(0)
        bench.expect("both given back", [int(n) for n in bench.state.mm["pins"]], [0, 0])
        bench.expect("pages, bits", (bench.pages(), bench.bits()), (["EXPORTED", "SECURE"], [0, 1]))
        bench.expect("no I/O", "io-start: OK" in steps, False)


@case(50)
def unshare_of_an_unpinned_page(engine: Engine) -> None:
    """The unshare of a page the host has not pinned is no exit; the bit stays set."""
    for preset in EVERY:
        bench = Bench(engine, build(preset, [0], ["shared"], vcpu=[{"unshare": [0]}]))
        bench.expect(preset, bench.go(0, UNSHARE, 0), ["vcpu-run: DONE"])
        bench.expect("page, bit", (bench.pages(), bench.bits()), (["SECURE"], [1]))
        none_broken(bench)


@case(51)
def unshare_of_a_pinned_page(engine: Engine) -> None:
    """Pinned shared, no reference left: the unshare exits, the unpin succeeds, the page is secure, its bit set."""
    for preset in EVERY:
        bench = Bench(engine, build(preset, [0], ["shared"], vcpu=[{"unshare": [0]}], disk=[{"page": 0}]))
        bench.go(1)
        bench.expect("pinned, though the last Linux pin is gone", bench.pages(), ["PINNED_SHARED"])
        steps = bench.go(0, UNSHARE, 0)
        wanted = ["import-arch: OK", "import-call: OK", "import-end: SUCCESS", "vcpu-again: DONE"]
        bench.expect(f"{preset}: the exit", (steps[0], steps[-4:]), ("vcpu-run: FAULT", wanted))
        bench.expect("page, bit", (bench.pages(), bench.bits()), (["SECURE"], [1]))
        none_broken(bench)


@case(52)
def unshare_under_a_pin(engine: Engine) -> None:
    """With a reference left the unpin is not made: busy, the vCPU repeats its unshare, the page stays as it is."""
    for preset in EVERY:
        for device in ("disk", "virtio"):
            bench = Bench(engine, build(preset, [0], ["shared"], vcpu=[{"unshare": [0]}], **{device: [{"page": 0}]}))
            bench.upto(1, "io-end" if device == "disk" else "ring-teardown")
            steps = bench.fails_for_ever(0, UNSHARE, 0)
            bench.expect(f"{preset}: calls made", [s for s in steps if s.startswith("import-call")], [])
            bench.expect("page, bit", (bench.pages(), bench.bits()), (["PINNED_SHARED"], [0]))
            if device == "disk":
                bench.go(1)
                bench.expect(f"{preset}: after the I/O", bench.go(0)[-1], "vcpu-again: DONE")
                bench.expect("page", bench.pages(), ["SECURE"])
            none_broken(bench)


@case(37)
def unshare_beats_the_pin(engine: Engine) -> None:
    """The guest unshares between the pin's reference and its call: the page is exported, no I/O meets a secure one."""
    bench = Bench(engine, build("per-page", [0], ["shared"], vcpu=[{"unshare": [0]}], disk=[{"page": 0}]))
    bench.upto(1, "accessible-pin")
    bench.expect("the unshare", bench.go(0, UNSHARE, 0), ["vcpu-run: DONE"])
    bench.upto(1, "io-end")
    bench.expect("pages", bench.pages(), ["EXPORTED"])
    none_broken(bench)
