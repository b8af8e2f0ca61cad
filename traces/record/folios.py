"""Holds folios of many sizes: 8 MiB a size, faulted in while only that size is enabled.

Run as root. Prints READY when every setting is as it was before, and holds the memory until its input ends.
"""

import mmap
import sys
from pathlib import Path

SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")
SIZES = [16, 32, 64, 128, 256, 512, 1024, 2048]


def setting(size: int) -> Path:
    return SETTINGS / f"hugepages-{size}kB" / "enabled"


before = {size: setting(size).read_text().split("[")[1].split("]")[0] for size in SIZES}
held = []
try:
    for only in SIZES:
        for size in SIZES:
            setting(size).write_text("madvise" if size == only else "never")
        memory = mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, len(memory), 4096):
            memory[at] = 1
        held.append(memory)
finally:
    for size, value in before.items():
        setting(size).write_text(value)
print("READY", flush=True)
sys.stdin.read()
