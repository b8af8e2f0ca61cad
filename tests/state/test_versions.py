"""docs/formats.md names the version of every file format, and the readers refuse others by name."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from ultrafolio import fields
from ultrafolio.check.verdicts import verdict
from ultrafolio.errors import InputError
from ultrafolio.export import history, trace_file
from ultrafolio.fields import read_toml
from ultrafolio.model import policies, scenario
from ultrafolio.search import files
from ultrafolio.state import validate
from ultrafolio.sweep import planfile, store
from ultrafolio.sweep.distributed.job import Record
from ultrafolio.sweep.distributed.ticket import TICKET_VERSION, Ticket, read_ticket
from ultrafolio.trace import events

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "formats.md").read_text()
SCENARIO = (ROOT / "scenarios" / "03-virtio.toml").read_text()
PLAN = (ROOT / "sweeps" / "seed.toml").read_text()


@dataclass
class Row:
    field: str
    written: str
    read: str
    reader: str


def rows():
    section = PAGE.split("## 1.")[1].split("## 2.")[0]
    found = [[cell.strip() for cell in row.strip("|").split("|")] for row in section.splitlines() if row[:2] == "| "]
    return {name: Row(*rest) for name, *rest in found[2:]}


ROWS = rows()


def row(start):
    (found,) = [made for name, made in ROWS.items() if name.startswith(start)]
    return found


def written(module, pattern):
    """The version that a module's source writes."""
    return re.search(pattern, Path(module.__file__).read_text())[1]


def test_the_table_says_what_is_written():
    assert row("counterexample").written == str(trace_file.VERSION)
    assert row("trace of a run").written == written(events, r'"ultrafolio-trace", "version": (\d+)')
    assert row("defect").written == written(verdict, r'"ultrafolio-defect",\s+"version": (\d+)')
    assert row("stream").written == str(validate.STREAM_VERSION)
    assert row("store").written == str(store.FORMAT)
    assert row("job").written == str(TICKET_VERSION)
    assert row("verdicts").written == row("verdicts").read == str(history.VERSION)
    assert row("table").written == row("table").read == str(files.VERSION)
    assert len(ROWS) == 11


def test_the_table_says_what_is_read():
    assert row("scenario,").read == row("plan").read == str(fields.VERSION)
    read = trace_file.TOP["version"]
    assert row("counterexample").read == ", ".join(str(n) for n in range(int(read.low), int(read.high) + 1))
    assert row("stream").read == ", ".join(map(str, validate.READ_VERSIONS))
    for name in ("store", "job"):
        assert row(name).read == row(name).written


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (SCENARIO, scenario.read),
        (PLAN, lambda file: planfile.parse(file.read_text(), file)),
        ('[policy.mine]\nbase = "split"\n', lambda file: policies.find(str(file))),
    ],
    ids=["scenario", "plan", "policy"],
)
def test_a_toml_file_says_its_version_or_none(tmp_path, text, read):
    file = tmp_path / "some.toml"
    for head in ("", "version = 1\n"):
        file.write_text(head + text)
        read(file)
    for wrong in ("2", "0", '"1"', "true"):
        file.write_text(f"version = {wrong}\n{text}")
        with pytest.raises(InputError, match=r"version[^\n]*\n  value .*\n  allowed  1"):
            read(file)


def test_a_version_is_not_handed_to_who_reads_the_document(tmp_path):
    file = tmp_path / "some.toml"
    file.write_text("version = 1\n[memory]\nfolios = [1]\n")
    assert read_toml(file) == {"memory": {"folios": [1]}}


def test_a_stream_of_another_version_is_refused(tmp_path):
    file = tmp_path / "some.stream"
    line = {"group": "g", "id": "1-0", "data": ""}
    file.write_text(json.dumps(line) + "\n" + json.dumps(line | {"version": 2}) + "\n")
    assert len(validate.read(file)["g"]) == 2
    file.write_text(json.dumps(line | {"version": 3}) + "\n")
    with pytest.raises(InputError, match="another version"):
        validate.read(file)


def test_a_job_of_another_version_is_refused(tmp_path):
    record = Record("plan.toml", "", "engine", {}, 0, 0, "redis", {})
    ticket = Ticket("j", "s", "c", 1, "redis://x", record, [], 0)
    assert ticket.version == TICKET_VERSION, "a file without a version is of this one"
    file = tmp_path / "job.json"
    file.write_bytes(msgspec.json.encode(ticket))
    assert read_ticket(tmp_path) == ticket
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(ticket, version=2)))
    with pytest.raises(InputError, match="another version"):
        read_ticket(tmp_path)
