"""The notebook in examples/ prints what is stored in it; it is run as plain Python, cell after cell."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "library.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
RUN = """
import contextlib, io, json, sys
names, printed = {}, []
for source in json.load(sys.stdin):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(source, names)
    printed.append(out.getvalue())
print(json.dumps(printed))
"""


def stored(cell):
    """What a cell printed when it was stored; it has no other output."""
    assert [output["name"] for output in cell["outputs"]] == ["stdout"]
    return "".join(cell["outputs"][0]["text"])


def test_every_cell_prints_what_is_stored(tmp_path):
    (tmp_path / "examples").mkdir()
    (tmp_path / "scenarios").symlink_to(ROOT / "scenarios")
    sources = json.dumps(["".join(cell["source"]) for cell in CODE])
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=sources,
        cwd=tmp_path / "examples",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [stored(cell) for cell in CODE]
    assert not list((tmp_path / "examples").iterdir()), "it leaves files behind"


def test_it_is_a_notebook_that_was_run_from_top_to_bottom_and_names_no_machine():
    document = json.loads(NOTEBOOK.read_text())
    assert (document["nbformat"], document["metadata"]["language_info"]["name"]) == (4, "python")
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)
    assert not re.search(r"[\"' (]/(home|root|tmp|work|usr)\b", NOTEBOOK.read_text())
