"""model.md §3 and §8 as they are written: each procedure's steps by name and outcome, and the two traces."""

from __future__ import annotations

from dataclasses import replace

from ultrafolio.conformance.bench import Bench, Engine, build, none_broken
from ultrafolio.conformance.case import case
from ultrafolio.model.layout import KILLED, SHARE, TOUCH, UNSHARE
from ultrafolio.model.policies import PRESETS

IMPORT = """
    import-map: OK
    import-large: OK
    import-trylock: OK
    import-writeback: OK
    import-freeze: OK
    import-arch: OK
    import-call: OK
    import-end: SUCCESS
    vcpu-again: DONE
"""
REFUSED = """
    import-map: OK
    import-large: OK
    import-trylock: OK
    import-writeback: OK
    import-freeze: EBUSY
"""


LARGE_LATE = """
    import-map: OK
    import-trylock: OK
    import-large: OK
    import-writeback: OK
    import-freeze: OK
    import-arch: OK
    import-call: OK
    import-end: SUCCESS
    vcpu-again: DONE
"""
"""The same in 7.x."""


@case()
def steps_of_an_import(engine: Engine) -> None:
    """Touch of an exported page: the exception, the import's steps, the touch again; then touches cost nothing."""
    bench = Bench(engine, build("per-page", [0], ["exported"], vcpu=[{}]))
    bench.expect_steps("import", bench.go(0), "vcpu-run: FAULT" + IMPORT)
    bench.expect_steps("touched again", bench.go(0), "vcpu-run: DONE")
    none_broken(bench)


@case()
def steps_of_direct_io_on_a_shared_page(engine: Engine) -> None:
    """Direct I/O on a shared page: reference, bit, pin shared, bit cleared, I/O, unpin; the page stays pinned."""
    bench = Bench(engine, build("per-page", [0], ["shared"], disk=[{"page": 0}]))
    wanted = """
        device-start: OK
        pin-get: OK
        accessible-test: OK
        accessible-pin: OK
        accessible-clear: OK
        pin-get: DONE
        io-start: OK
        io-end: OK
        unpin: DONE
    """
    bench.expect_steps("direct I/O", bench.go(0), wanted)
    bench.expect("page", bench.pages(), ["PINNED_SHARED"])
    none_broken(bench)


@case()
def steps_of_direct_io_on_secure_pages(engine: Engine) -> None:
    """Direct I/O on two secure pages: one page after the other, each pin fails and is followed by an export."""
    bench = Bench(engine, build("per-page", [1], ["secure"], disk=[{"page": 0, "pages": 2}]))
    page = """
        pin-get: OK
        accessible-test: OK
        accessible-pin: OK
        accessible-export: OK
        accessible-clear: OK
    """
    wanted = f"device-start: OK{page}{page.strip()}\npin-get: DONE\nio-start: OK\nio-end: OK\nunpin: OK\nunpin: DONE"
    bench.expect_steps("direct I/O", bench.go(0), wanted)
    bench.expect("pages", bench.pages(), ["EXPORTED", "EXPORTED"])
    none_broken(bench)


@case()
def steps_of_virtio_and_reboot(engine: Engine) -> None:
    """virtio: pinned from its configuration on; torn down only after the guest's reboot began; then the reset."""
    bench = Bench(engine, build("per-page", [0], ["shared"], vcpu=[{}], virtio=[{"page": 0}], reboot=[{}]))
    wanted = """
        device-start: OK
        pin-get: OK
        accessible-test: OK
        accessible-pin: OK
        accessible-clear: OK
        pin-get: DONE
        io-start: DONE
        ring-teardown: waits for the virtual machine to run
    """
    bench.expect_steps("configured", bench.go(1), wanted)
    bench.expect("pinned", int(bench.state.mm[0]["longs"]), 1)
    bench.expect_steps("reboot", bench.go(2), "reboot-start: OK\nreboot-quiet: waits for the device")
    bench.expect_steps("torn down", bench.go(1), "ring-teardown: OK\nunpin: DONE")
    bench.expect("page before the reset", (bench.pages(), int(bench.state.mm[0]["longs"])), (["PINNED_SHARED"], 0))
    bench.expect_steps("reset", bench.go(2), "reboot-quiet: OK\nreboot-reset: DONE")
    bench.expect_steps("the guest runs again", bench.go(0), "vcpu-run: FAULT" + IMPORT)
    none_broken(bench)


@case()
def steps_of_a_writeback(engine: Engine) -> None:
    """Writeback of a mixed folio: lock, flag, each page pinned or exported, unlock, I/O, end; under both bit units."""
    begin = "writeback-start: OK\nwriteback-lock: OK\nwriteback-flag: OK\naccessible-test: OK\n"
    end = "writeback-io: OK\nwriteback-end: DONE"
    pages = {
        "per-page": """
            accessible-pin: OK
            accessible-clear: OK
            accessible-pin: OK
            accessible-export: OK
            accessible-clear: OK
        """,
        "whole-folio": """
            accessible-pin: OK
            accessible-pin: OK
            accessible-export: OK
            accessible-clear: OK
        """,
        "whole-folio-literal": """
            accessible-pin: OK
            accessible-pin: OK
            accessible-export: OK
            accessible-export: OK
            accessible-clear: OK
        """,
    }
    for preset, middle in pages.items():
        bench = Bench(engine, build(preset, [1], ["shared", "secure"], vcpu=[{}], writeback=[{}]))
        bench.upto(1, "writeback-io")
        mm = bench.state.mm[0]
        bench.expect(
            "locked, flagged, clean, not writable",
            (mm["locked"], mm["writeback"], mm["dirty"], mm["writable"]),
            (1, 1, 0, 0),
        )
        bench.step(1)
        bench.expect("unlocked, I/O in flight", (bench.state.mm[0]["locked"], bench.state.mm[0]["writeback"]), (0, 2))
        bench.step(1)
        bench.expect_steps(f"{preset}: writeback", bench.log, begin + middle.strip() + "\n" + end)


@case()
def steps_of_an_unshare_under_a_pin(engine: Engine) -> None:
    """Unshare of a pinned page: the exit, a refused import each time; after the unpin the unpin call, then done."""
    bench = Bench(engine, build("per-page", [0], ["shared"], vcpu=[{"unshare": [0]}], disk=[{"page": 0}]))
    bench.upto(1, "io-end")
    once = REFUSED + "drain-own: OK" + REFUSED + "drain-all: EBUSY\nvcpu-again: FAULT"
    bench.expect_steps("refused twice", bench.go(0, limit=1 + 13 * 2), "vcpu-run: FAULT" + once + once)
    bench.go(1)
    bench.expect_steps("done", bench.go(0), IMPORT)
    bench.expect("page", bench.pages(), ["SECURE"])
    none_broken(bench)


@case()
def steps_of_a_share(engine: Engine) -> None:
    """Share of an exported page: its import first, then the share; share and unshare take a start, a touch does not."""
    bench = Bench(engine, build("per-page", [0], ["exported"], vcpu=[{"share": [0], "unshare": [0], "starts": 2}]))
    bench.expect_steps("share", bench.go(0, SHARE, 0), "vcpu-run: FAULT" + IMPORT)
    bench.expect("page", bench.pages(), ["SHARED"])
    bench.expect_steps("unshare", bench.go(0, UNSHARE, 0), "vcpu-run: DONE")
    bench.expect_steps("none left", bench.go(0, SHARE, 0), "vcpu-run: waits for nothing to do")
    bench.expect_steps("a touch", bench.go(0, TOUCH, 0), "vcpu-run: DONE")


@case()
def steps_of_a_reclaim(engine: Engine) -> None:
    """Reclaim: unmap, export, swap, free; the next touch swaps in and imports the content of before."""
    for state in ("secure", "shared"):
        bench = Bench(engine, build("per-page", [0], [state], vcpu=[{}], reclaim=[{}]))
        wanted = """
            reclaim-start: OK
            reclaim-lock: OK
            reclaim-unmap: OK
            reclaim-export: OK
            reclaim-swap: OK
            reclaim-free: DONE
        """
        bench.expect_steps("reclaim", bench.go(1), wanted)
        bench.expect("page, bit", (bench.pages(), bench.bits()), (["EXPORTED"], [0]))
        swapped = "vcpu-run: FAULT\nimport-map: ENXIO (swapped in)\nvcpu-again: FAULT" + IMPORT
        bench.expect_steps("touched", bench.go(0), swapped)
        bench.expect("as it was before its export", bench.pages(), [state.upper()])
        none_broken(bench)


@case()
def steps_of_a_split(engine: Engine) -> None:
    """Import of a large folio: split and go on in the call; touch again; or, in 6.14, report what is not so."""
    begin = "vcpu-run: FAULT\nimport-map: OK\nimport-large: OK\nsplit-lock: OK\n"
    wanted = {
        "split": begin + "split: DONE" + IMPORT,
        "split-false-success": begin + "split: SUCCESS\nvcpu-again: FAULT" + IMPORT,
        "split-writeback": begin + "split: DONE\nvcpu-again: FAULT" + IMPORT,
    }
    for preset, steps in wanted.items():
        bench = Bench(engine, build(preset, [1], ["non_secure"], vcpu=[{}]))
        bench.expect_steps(preset, bench.go(0), steps)
        bench.expect("broken", bench.broken, [9] if preset == "split-false-success" else [])


@case()
def steps_of_a_refused_split(engine: Engine) -> None:
    """Split refused by a pin: drained as for an import, busy; refused by a dirty iomap folio: busy at once."""
    bench = Bench(engine, build("split", [1], ["non_secure"], vcpu=[{}], disk=[{"page": 1}]))
    bench.upto(1, "io-end")
    once = "import-map: OK\nimport-large: OK\nsplit-lock: OK\nsplit: EBUSY\n"
    wanted = "vcpu-run: FAULT\n" + once + "drain-own: OK\n" + once + "drain-all: EBUSY\nvcpu-again: FAULT"
    bench.expect_steps("by a pin", bench.go(0, TOUCH, 0, limit=12), wanted)
    bench = Bench(engine, build("split", [1], ["non_secure"], memory={"backing": "iomap"}, vcpu=[{}]))
    once = "import-map: OK\nimport-large: OK\nsplit-lock: OK\nsplit: EBUSY (dirty)\nvcpu-again: FAULT\n"
    bench.expect_steps("dirty iomap", bench.go(0, TOUCH, 0, limit=11), "vcpu-run: FAULT\n" + once * 2)


@case()
def steps_of_a_split_with_writeback(engine: Engine) -> None:
    """split_writeback = 1: written back and split again in the same call; the write fault comes after the split."""
    bench = Bench(engine, build("split-writeback", [1], ["non_secure"], memory={"backing": "iomap"}, vcpu=[{}]))
    wanted = """
        vcpu-run: FAULT
        import-map: OK
        import-large: OK
        split-lock: OK
        split: OK
        writeback-lock: OK
        writeback-flag: OK
        accessible-test: OK
        writeback-io: OK
        writeback-end: DONE
        split-lock: OK
        split: DONE
        vcpu-again: FAULT
        import-map: ENXIO
        vcpu-again: FAULT
    """
    bench.expect_steps("import", bench.go(0, TOUCH, 0), wanted.strip() + IMPORT)
    none_broken(bench)


@case()
def steps_of_draining(engine: Engine) -> None:
    """A batch of the own CPU and one of another: the own is drained and the call goes on, then all, then busy."""
    system = build("per-page", [0, 0], ["exported"], vcpu=[{"cpu": 0}], lru=[{"cpu": 0}, {"cpu": 1}])
    bench = Bench(engine, system)
    bench.step(1, TOUCH, 0)
    bench.step(2, TOUCH, 1)
    bench.expect_steps("own CPU", bench.go(0, TOUCH, 0), "vcpu-run: FAULT" + REFUSED + "drain-own: OK" + IMPORT)
    bench.expect("the other CPU's is left alone", [int(b) for b in bench.state.mm["batch"]], [0, 2])
    wanted = "vcpu-run: FAULT" + REFUSED + "drain-own: OK" + REFUSED + "drain-all: EBUSY\nvcpu-again: FAULT" + IMPORT
    bench.expect_steps("another CPU", bench.go(0, TOUCH, 1), wanted)
    none_broken(bench)


@case()
def steps_under_the_import_mutex(engine: Engine) -> None:
    """Two vCPUs, two pages: the second import waits until the first ends, also while that waits for writeback."""
    vcpus = [{"touch": [0]}, {"touch": [1]}]
    system = build("import-lock", [0, 0], ["exported"], vcpu=vcpus, writeback=[{"page": [0]}])
    bench = Bench(engine, system)
    bench.upto(2, "writeback-end")
    bench.expect_steps("a fault of its own", bench.upto(0, "vcpu-again"), "vcpu-run: FAULT\nimport-map: ENXIO")
    bench.upto(0, "wait-writeback")
    waits = "waits for the VM's import mutex"
    bench.expect_steps("the other", bench.go(1), f"vcpu-run: FAULT\nimport-mutex: {waits}")
    bench.expect("held by", int(bench.state.vm[0]["mutex"]), 1)
    bench.go(2)
    bench.expect_steps("the first leaves", [bench.go(0, limit=1)[0]], "wait-writeback: OK")
    bench.expect_steps("the other", bench.go(1), "import-mutex: OK" + LARGE_LATE)
    bench.expect_steps("the first", bench.go(0), "vcpu-again: FAULT\nimport-mutex: OK" + LARGE_LATE)
    bench.expect("free", int(bench.state.vm[0]["mutex"]), 0)
    none_broken(bench)


# -------------------------------------------------------------------------------------------- the two traces
def _row(bench: Bench) -> str:
    """A line of a trace: states of the two pages, bits, extra references of the folio."""
    return f"{' '.join(bench.pages())} | {' '.join(map(str, bench.bits()))} | {int(bench.state.mm[0]['refs'])}"


@case()
def trace_of_point_3(engine: Engine) -> None:
    """whole-folio, a ring page and its neighbour: the trace of model.md §8.14."""
    bench = Bench(engine, build("whole-folio", [1], ["shared", "secure"], vcpu=[{"touch": [1]}], virtio=[{"page": 0}]))
    bench.expect("start", _row(bench), "SHARED SECURE | 1 0 | 0")
    bench.upto(1, "accessible-test")
    bench.expect("configure: reference taken", _row(bench), "SHARED SECURE | 1 0 | 1")
    bench.expect("long-term", int(bench.state.mm[0]["longs"]), 1)
    bench.step(1)
    bench.step(1)
    bench.expect("accessible: pin 0", _row(bench), "PINNED_SHARED SECURE | 1 0 | 1")
    bench.upto(1, "accessible-clear")
    bench.expect("pin 1 fails; export 1", _row(bench), "PINNED_SHARED EXPORTED | 1 0 | 1")
    bench.step(1)
    bench.expect("bit cleared", _row(bench), "PINNED_SHARED EXPORTED | 0 0 | 1")
    bench.go(1)
    once = REFUSED + "drain-own: OK" + REFUSED + "drain-all: EBUSY\nvcpu-again: FAULT"
    steps = bench.go(0, limit=1 + 13 * 3)
    bench.expect_steps("touch, import refused, drain, touch again", steps, "vcpu-run: FAULT" + once * 3)
    bench.expect("and so on", _row(bench), "PINNED_SHARED EXPORTED | 0 0 | 1")
    none_broken(bench)


@case()
def trace_of_point_12(engine: Engine) -> None:
    """folio-bitmap: the pin harms no neighbour until a writeback or, on shmem, a reclaim; folio-bitmap-pins: never."""
    for preset, hangs in (("folio-bitmap", True), ("folio-bitmap-pins", False)):
        for exporter in ("writeback", "reclaim"):
            bench = Bench(
                engine,
                build(
                    preset,
                    [1],
                    ["shared", "secure"],
                    memory={"backing": "shmem"},
                    vcpu=[{"touch": [1]}],
                    virtio=[{"page": 0}],
                    **{exporter: [{"page": [1]}]},
                ),
            )
            bench.expect("start", _row(bench), "SHARED SECURE | 1 1 | 0")
            bench.go(1)
            bench.expect("configured", _row(bench), "PINNED_SHARED SECURE | 0 1 | 1")
            bench.expect_steps("the touch of page 1", bench.go(0), "vcpu-run: DONE")
            bench.go(2)
            # the pin keeps a folio's page from being swapped, but only after its export
            kept = exporter == "reclaim" and hangs
            bench.expect(f"{exporter} is over", bench.log[-1].split(": ")[1], "EBUSY" if kept else "DONE")
            bench.expect("page 1 exported", _row(bench), "PINNED_SHARED EXPORTED | 0 0 | 1")
            steps = bench.go(0, limit=200)
            bench.expect(f"{preset}: freezes refused", steps.count("import-freeze: EBUSY") > 20, hangs)
            after = "PINNED_SHARED EXPORTED | 0 0 | 1" if hangs else "PINNED_SHARED SECURE | 0 1 | 1"
            bench.expect(f"{preset}: after the touch", _row(bench), after)
            none_broken(bench)


@case()
def hang_of_the_ring_page_itself(engine: Engine) -> None:
    """Unsharing a page pinned for a device's lifetime waits until the device is gone, under every policy (point 8)."""
    for preset in ("per-page", "whole-folio", "split", "import-lock", "folio-bitmap-pins"):
        vcpu = [{"unshare": [0]}]
        bench = Bench(engine, build(preset, [0], ["shared"], vcpu=vcpu, virtio=[{"page": 0}], reboot=[{}]))
        bench.upto(1, "ring-teardown")
        bench.fails_for_ever(0)
        bench.expect(f"{preset}: page", bench.pages(), ["PINNED_SHARED"])
        bench.step(2)
        bench.go(0)
        bench.go(1)
        bench.expect("only the reboot ends it", bench.go(2)[-1], "reboot-reset: DONE")


@case()
def mapped_twice(engine: Engine) -> None:
    """A plain get of another mapping meets a frozen folio under every policy (point 13); a pfn walker waits."""
    for preset in ("per-page", "whole-folio", "split", "import-lock", "folio-bitmap-pins"):
        for kind, wanted in (
            ("mapping", "mapping-get: frozen count touched"),
            ("speculative", "speculative-get: waits for the folio to thaw"),
        ):
            bench = Bench(engine, build(preset, [0], ["exported"], vcpu=[{}], **{kind: [{}]}))
            bench.upto(0, "import-call")
            bench.step(1)
            bench.expect(f"{preset}: {kind}", bench.log[-1], wanted)
            bench.expect("broken", bench.broken, [5] if kind == "mapping" else [])


@case()
def two_ways_to_be_busy(engine: Engine) -> None:
    """on_busy: sleep until the reference is dropped; or give up after P.give_up tries, which is fatal."""
    for on_busy in ("sleep", "give-up"):
        policy = replace(PRESETS["per-page"][1], on_busy=on_busy, give_up=3)
        bench = Bench(engine, build(policy, [0], ["exported"], vcpu=[{}], disk=[{"page": 0}]))
        bench.upto(1, "io-end")
        once = REFUSED + "drain-own: OK" + REFUSED
        steps = bench.go(0)
        if on_busy == "give-up":
            again = once + "drain-all: EBUSY\nvcpu-again: FAULT"
            bench.expect_steps("three tries", steps, "vcpu-run: FAULT" + again * 2 + once + "drain-all: EINVAL")
            bench.expect("killed", int(bench.state.vm[0]["life"]), KILLED)
            continue
        asleep = "drain-all: EBUSY\nsleep-refs: waits for the extra references to go"
        bench.expect_steps("asleep", steps, "vcpu-run: FAULT" + once + asleep)
        bench.go(1)
        bench.expect_steps("awake", bench.go(0), "sleep-refs: OK\nvcpu-again: FAULT" + IMPORT)
