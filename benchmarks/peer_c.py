"""The C program: write its layout.h from our dtypes, build it, and run it on a new state."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
from workloads import End, Fresh, digests

from ultrafolio.model import layout as model
from ultrafolio.model.bounds import fits
from ultrafolio.model.layout import State
from ultrafolio.sim import records as sim
from ultrafolio.sim.records import World
from ultrafolio.waits import tables

FLAGS = ("-std=gnu11", "-O3", "-march=native", "-Wall", "-Wextra", "-Werror")
C_TYPES = {"uint8": "uint8_t", "int8": "int8_t", "int16": "int16_t", "int32": "int32_t", "int64": "int64_t"}


def compiler() -> str | None:
    """The C compiler: $CC, cc or gcc; None if there is none."""
    found = (shutil.which(name) for name in (os.environ.get("CC", ""), "cc", "gcc") if name)
    return next(filter(None, found), None)


def header(fresh: Fresh) -> str:
    """layout.h: the constants, records and arrays of model/layout.py and sim/records.py in C. Raises Outgrown for more
    reasons to wait than peer.c has bits for."""
    fits("reasons to wait, a bit each of an unsigned int", sim.REASONS, 32, "benchmarks/peer.c: wake")
    lines = ["/* Written by peer_c.py from the dtypes of ultrafolio. */", "#pragma pack(push, 1)"]
    for module in (model, sim, tables):
        lines += _constants(module)
    arrays = []
    for name, array in {**fresh.state._asdict(), **fresh.world._asdict()}.items():
        kind = C_TYPES.get(array.dtype.name) or name.capitalize()
        if array.dtype.names:
            fields = " ".join(f"{C_TYPES[array.dtype[f].name]} {f};" for f in array.dtype.names)
            lines.append(f"typedef struct {{ {fields} }} {kind};")
        arrays.append((name, kind))
    lines.append("#pragma pack(pop)")
    lines.append("#define ARRAYS(X) " + " ".join(f"X({name}, {kind})" for name, kind in arrays))
    members = " ".join(f"{kind} *{name}; int64_t {name}_count;" for name, kind in arrays)
    return "\n".join([*lines, f"typedef struct {{ {members} }} Model;", ""])


def _constants(module: ModuleType) -> Iterator[str]:
    for name, value in vars(module).items():
        if not name.isupper():
            continue
        if isinstance(value, int):
            yield f"#define {name} ({value}{'LL' if value >= 1 << 31 else ''})"
        elif isinstance(value, tuple) and all(isinstance(v, int) for v in value):
            kind = "uint16_t" if min(value) >= 0 and max(value) < 1 << 16 else "int64_t"
            yield f"static const {kind} {name}[] = {{{', '.join(map(str, value))}}};"


class PeerC:
    """The compiled program in `folder`; an Implementation. RuntimeError when it does not build or run."""

    def __init__(self, folder: Path, fresh: Fresh) -> None:
        cc = compiler()
        if cc is None:
            raise RuntimeError("no C compiler: neither $CC, cc nor gcc")
        self.folder = folder
        self.program = folder / "peer"
        (folder / "layout.h").write_text(header(fresh))
        source = Path(__file__).with_name("peer.c")
        _run([cc, *FLAGS, f"-I{folder}", str(source), "-o", str(self.program)])

    def __call__(self, fresh: Fresh, events: int) -> End:
        before, after = self.folder / "before", self.folder / "after"
        arrays = [*fresh.state, *fresh.world]
        with open(before, "wb") as file:
            for array in arrays:
                file.write(np.int64(array.nbytes).tobytes())
                file.write(array.tobytes())
        ns = int(_run([str(self.program), str(before), str(after), str(events)]))
        read: list[np.ndarray] = []
        with open(after, "rb") as file:
            for array in arrays:
                read.append(np.frombuffer(file.read(array.nbytes), array.dtype))
        count = len(fresh.state)
        return End(ns, digests(State(*read[:count]), World(*read[count:])))


def _run(command: list[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
    return done.stdout
