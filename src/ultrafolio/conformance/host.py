"""The host's own accesses, adapter interrupts, reclaim by backing, I/O that never completes, and actors in an order."""

from __future__ import annotations

from dataclasses import replace

from ultrafolio.conformance.bench import EVERY, Bench, Engine, build, having, none_broken
from ultrafolio.conformance.case import case
from ultrafolio.model.layout import LRU, MAPPED, READ, SHARE, TOUCH, UNSHARE, WRITE
from ultrafolio.model.policies import find


@case(47)
def host_access(engine: Engine) -> None:
    """do_secure_storage_access(): 0x3d on a secure page; a reference, the page exported, and the access again.

    What the host may read costs nothing.
    """
    resolved = [
        "access-start: OK",
        "access-try: FAULT",
        "accessible-test: OK",
        "accessible-pin: OK",
        "accessible-export: OK",
        "accessible-clear: OK",
        "access-put: OK",
        "access-try: DONE",
    ]
    for preset in EVERY:
        bench = Bench(engine, build(preset, [0], ["secure"], vcpu=[{}], access=[{"read": [0]}]))
        bench.upto(1, "accessible-test", READ, 0)
        bench.expect(f"{preset}: references", int(bench.state.mm[0]["refs"]), 1)
        bench.go(1)
        bench.expect(f"{preset}: of a secure page", bench.log, resolved)
        bench.expect("page, bit", (bench.pages(), bench.bits()), (["EXPORTED"], [0]))
        bench.expect("references left", int(bench.state.mm[0]["refs"]), 0)
        bench.expect("the guest's touch", bench.go(0)[-1], "vcpu-again: DONE")
        for state in ("non_secure", "shared", "pinned_shared", "exported"):
            bench = Bench(engine, build(preset, [0], [state], access=[{"read": [0]}]))
            bench.expect(f"{preset}: of a page that is {state}", bench.go(0), ["access-start: OK", "access-try: DONE"])
            bench.expect("page", bench.pages(), [state.upper()])


@case(47)
def host_access_to_a_large_folio(engine: Engine) -> None:
    """The host's access makes the page accessible, or every page of the folio (`accessible`)."""
    for policy, pages in (("per-page", ["SECURE", "EXPORTED"]), ("whole-folio", ["EXPORTED", "EXPORTED"])):
        bench = Bench(engine, build(policy, [1], ["secure"], access=[{"read": [1]}]))
        bench.expect(f"{policy}: the end", bench.go(0)[-1], "access-try: DONE")
        bench.expect("pages", bench.pages(), pages)
        none_broken(bench)


@case(34, 47)
def host_access_that_fails(engine: Engine) -> None:
    """A page that cannot be made accessible: the access is refused, the bit stays, and the reference is dropped."""
    for preset in having(accessible="page"):
        bench = Bench(engine, build(preset, [0], ["secure"], memory={"refuses": [0]}, access=[{"write": [0]}]))
        bench.expect(f"{preset}: the end", bench.go(0)[-2:], ["accessible-export: EFAULT", "access-put: EFAULT"])
        mm = bench.state.mm[0]
        bench.expect("bit, references, bytes changed", (mm["arch"], mm["refs"], mm["altered"]), (1, 0, 0))


@case(34)
def host_writes_an_exported_page(engine: Engine) -> None:
    """A byte that the host writes into an exported page fails its import; one that it reads does not."""
    for op, last in ((WRITE, "import-call: EINVAL"), (READ, "vcpu-again: DONE")):
        bench = Bench(engine, build("per-page", [0], ["exported"], vcpu=[{}], access=[{"read": [0], "write": [0]}]))
        bench.go(1, op, 0)
        bench.expect(f"operation {op}, then the import", bench.go(0, TOUCH, 0)[-1], last)


@case(38)
def adapter_interrupt(engine: Engine) -> None:
    """adapter_indicators_set(): a plain reference, which makes nothing accessible; since 7.2 a pin, which does.

    Only of a page that its guest shares (c9a568838086).
    """
    for preset in EVERY:
        pins = preset in having(interrupt="pin")
        bench = Bench(engine, build(preset, [0], ["shared"], vcpu=[{"unshare": [0]}], interrupt=[{"page": 0}]))
        bench.upto(1, "accessible-test" if pins else "plain-put")
        bench.expect(f"{preset}: references", int(bench.state.mm[0]["refs"]), 1)
        bench.expect("pins", int(bench.state.mm[0]["pins"]), int(pins))
        bench.go(1)
        bench.expect("page", bench.pages(), ["PINNED_SHARED" if pins else "SHARED"])
        bench.expect("references left", int(bench.state.mm[0]["refs"]), 0)
        bench.expect(
            "the unshare exits where it is pinned",
            bench.go(0, UNSHARE, 0)[0],
            f"vcpu-run: {'FAULT' if pins else 'DONE'}",
        )
        none_broken(bench)
        bench = Bench(engine, build(preset, [0], ["secure"], interrupt=[{"page": 0}]))
        bench.expect(f"{preset}: not shared", bench.go(0), ["device-start: waits for nothing to do"])


@case(42)
def ring_needs_a_shared_page(engine: Engine) -> None:
    """A ring is configured only on pages that its guest shares; another long-term pin needs no shared page.

    After a reboot it is configured once they are shared again.
    """
    idle = ["device-start: waits for nothing to do"]
    for state, may in (
        ("non_secure", False),
        ("secure", False),
        ("exported", False),
        ("shared", True),
        ("pinned_shared", True),
        ("exported_shared", True),
    ):
        bench = Bench(engine, build("per-page", [0], [state], virtio=[{"page": 0}], pin=[{"page": 0}]))
        bench.expect(f"a ring on a page that is {state}", bench.go(0) != idle, may)
        bench.expect(f"another pin of a page that is {state}", bench.go(1) != idle, True)
    bench = Bench(
        engine,
        build(
            "per-page",
            [0],
            ["shared"],
            vcpu=[{"touch": [0], "share": [0]}],
            virtio=[{"page": 0, "starts": 2}],
            reboot=[{}],
        ),
    )
    bench.upto(1, "ring-teardown")
    bench.step(2)
    bench.go(1)
    bench.go(2)
    bench.expect("after the reboot", (bench.pages(), bench.go(1)), (["NON_SECURE"], idle))
    bench.go(0, SHARE, 0)
    bench.expect("shared again", (bench.pages(), bench.go(1)[0]), (["SHARED"], "device-start: OK"))


@case()
def reclaim_asks_for_pins(engine: Engine) -> None:
    """shrink_folio_list(): pins of any page of an anon folio are asked for before the unmap; of shmem only after it.

    Then the unmap has exported the page under its pin.
    """
    for backing, pinned in (("anon", 0), ("anon", 1), ("shmem", 1), ("iomap", 1)):
        for kind in ("disk", "pin"):
            system = build(
                "per-page",
                [1],
                ["secure"],
                memory={"backing": backing},
                reclaim=[{"page": [1]}],
                **{kind: [{"page": pinned}]},
            )
            bench = Bench(engine, system)
            reclaim, device = (1, 0) if kind == "disk" else (0, 1)
            bench.upto(device, "io-end" if kind == "disk" else "ring-teardown")
            steps = bench.go(reclaim)
            if backing == "anon":
                bench.expect(f"{backing}, page {pinned} pinned", steps, ["reclaim-start: OK", "reclaim-lock: EAGAIN"])
                bench.expect("page 1", bench.pages()[1], "EXPORTED" if pinned else "SECURE")
                none_broken(bench)
                continue
            bench.expect(
                f"{backing}: kept only after its export", steps[-2:], ["reclaim-export: OK", "reclaim-swap: EBUSY"]
            )
            bench.expect("unmapped", int(bench.state.pt[1]["present"]), 0)


@case()
def reclaim_of_a_ring_on_shmem(engine: Engine) -> None:
    """As the kernel has it no race is needed: reclaim exports the page of a configured ring (property 10)."""
    for preset in EVERY:
        bench = Bench(
            engine,
            build(
                preset,
                [0],
                ["shared"],
                memory={"backing": "shmem"},
                virtio=[{"page": 0}],
                reclaim=[{"after": "virtio"}],
            ),
        )
        bench.upto(0, "ring-teardown")
        bench.go(1)
        bench.expect(f"{preset}: page, broken", (bench.pages(), bench.broken), (["EXPORTED"], [10]))


@case()
def pin_between_test_and_unmap(engine: Engine) -> None:
    """try_to_unmap_one(): a pin between the test and the unmap is seen once the entry is cleared, and it is put back.

    Clearing it has exported the page (folio_try_share_anon_rmap_pte()).
    """
    for preset in ("per-page", "linux-6.18", "linux-7.1"):
        bench = Bench(engine, build(preset, [0], ["shared"], disk=[{"page": 0}], reclaim=[{}]))
        bench.upto(1, "reclaim-unmap")
        bench.upto(0, "io-end")
        bench.expect(f"{preset}: reclaim", bench.go(1), ["reclaim-unmap: OK", "reclaim-export: EBUSY"])
        bench.expect("page, mapped", (bench.pages(), int(bench.state.pt[0]["present"])), (["EXPORTED"], MAPPED))
        mm = bench.state.mm[0]
        bench.expect("unlocked, still pinned", (int(mm["locked"]), int(mm["pins"])), (0, 1))
        bench.expect("exported under its pin", bench.broken, [10])


@case(39)
def own_bit_of_the_page_asked_for(engine: Engine) -> None:
    """make_folio_accessible(): with a bit per page it asks that of the page that is pinned, however wide its loop is.

    A bit per folio, and a summary of bits, speak for all pages.
    """
    wide = replace(find("per-page"), accessible="folio")
    for policy, exported in ((wide, False), (replace(wide, track="folio+bitmap"), True), (find("whole-folio"), True)):
        bench = Bench(engine, build(policy, [1], ["exported", "secure"], disk=[{"page": 0}]))
        bench.upto(0, "io-end")
        bench.expect(f"track {policy.track}", bench.pages(), ["EXPORTED", "EXPORTED" if exported else "SECURE"])
    bench = Bench(engine, build(wide, [1], ["secure", "exported"], disk=[{"page": 0}]))
    bench.upto(0, "io-end")
    bench.expect("its own bit is set: the folio's", (bench.pages(), bench.bits()), (["EXPORTED", "EXPORTED"], [0, 0]))
    bench = Bench(engine, build(wide, [1], ["exported", "secure"], writeback=[{}]))
    bench.go(0, TOUCH, 0)
    bench.expect("writeback makes all accessible", bench.pages(), ["EXPORTED", "EXPORTED"])


@case()
def io_that_never_completes(engine: Engine) -> None:
    """`completes = false`: direct I/O and writeback stay in flight for ever."""
    bench = Bench(engine, build("per-page", [0, 0], ["shared"], disk=[{"page": 0, "completes": False}, {"page": 1}]))
    bench.expect("the one", bench.go(0)[-1], "io-end: waits for the I/O to complete")
    bench.expect("in flight", [int(n) for n in bench.state.io["flying"]], [1, 0])
    bench.expect("the other", bench.go(1)[-1], "unpin: DONE")
    bench = Bench(engine, build("per-page", [0], ["exported"], vcpu=[{}], writeback=[{"completes": False}]))
    bench.expect("writeback", bench.go(1)[-1], "writeback-end: waits for the I/O to complete")
    bench.expect("an import", bench.go(0)[-1], "wait-writeback: waits for the end of writeback")
    bench.expect("and again", bench.go(1), ["writeback-end: waits for the I/O to complete"])


@case()
def actors_in_an_order(engine: Engine) -> None:
    """`after`: an actor starts only once the one that it names has finished once, be it the host's or a guest's."""
    idle = ["lru-add: waits for nothing to do"]
    for first, last in {
        "disk": "unpin",
        "virtio": "pin-get",
        "reclaim": "reclaim-free",
        "access": "access-try",
        "writeback": "writeback-end",
        "speculative": "plain-put",
    }.items():
        asks = {"page": 0} if first in ("disk", "virtio") else {}
        system = build("per-page", [0, 0], ["shared"], lru=[{"page": [1], "after": first}], **{first: [asks]})
        bench = Bench(engine, system)
        lru = system.state.who["kind"].tolist().index(LRU)
        bench.upto(1 - lru, last)
        bench.expect(f"before the end of {first}", bench.go(lru), idle)
        bench.go(1 - lru)
        bench.expect(f"after {first}", bench.go(lru), ["lru-add: OK"])
    bench = Bench(engine, build("per-page", [0, 0], ["exported"], vcpu=[{}], lru=[{"page": [1], "after": "vcpu"}]))
    bench.expect("before the guest's import", bench.go(1), idle)
    bench.go(0, TOUCH, 0)
    bench.expect("after it", bench.go(1), ["lru-add: OK"])
