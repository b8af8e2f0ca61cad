"""docs/reference.md equals the output of the code, and covers every command, field and service."""

import json
from pathlib import Path

import pyarrow.parquet
import pytest
from click.testing import CliRunner

from ultrafolio.cli import cli, main
from ultrafolio.commands import reference
from ultrafolio.model import policies, scenario
from ultrafolio.model.guest_memfd import policy as memfd_policy
from ultrafolio.model.guest_memfd import scenario as memfd
from ultrafolio.sim import config, costs
from ultrafolio.sim.cell import COLUMNS
from ultrafolio.sim.words import COLUMN_MEANING

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference.md"


def printed(*words):
    return CliRunner().invoke(cli, ["reference", *words], catch_exceptions=False).output


def test_the_page_is_fresh():
    assert PAGE.read_text() == printed(), "run: ultrafolio reference > docs/reference.md"


def test_every_field_of_guest_memfd_is_there():
    text = PAGE.read_text().partition("### Scenarios of guest_memfd")[2].partition("\n## ")[0]
    names = {name for table in (memfd.MEMORY, *memfd.ACTORS.values()) for name in table} | {*memfd.STATES}
    assert not [name for name in names if f"| `{name}` |" not in text]
    assert all(f"### [[{name}]] of guest_memfd" in text for name in memfd.ACTORS)
    assert all(f"| `{name}` |" in PAGE.read_text() for name in (*memfd_policy.PRESETS, *memfd_policy.MEANING))


def test_every_field_and_method_is_there():
    text = PAGE.read_text()
    names = {
        *policies.PRESETS,
        *policies.FIELDS,
        *scenario.MEMORY,
        *scenario.FEATURES,
        *config.AXES,
        *config.WORKLOAD,
        *costs.DEFAULTS,
    } - {"tables"}
    missing = {name for table in scenario.ACTORS.values() for name in [*table, *names] if f"`{name}`" not in text}
    assert not missing
    assert all(f"### [[{name}]]" in text for name in scenario.ACTORS)
    protos = [
        line.split()[1].split("(")[0]
        for file in (ROOT / "protos").rglob("*.proto")
        for line in file.read_text().splitlines()
        if line.startswith("  rpc ")
    ]
    assert len(protos) > 20 and not [name for name in protos if f"| `{name}` |" not in text]


def test_the_commands_alone_as_json():
    made = [json.loads(line) for line in printed("--json").splitlines()]
    assert {"check", "sweep run", "trace validate", "reference"} <= {one["command"] for one in made}
    assert all(option["help"] for one in made for option in one["options"])


def test_every_part_is_printed_alone_and_has_its_words():
    whole = PAGE.read_text()
    for part in reference.PARTS:
        assert printed(part).strip() in whole
    assert set(COLUMN_MEANING) == set(COLUMNS)
    assert all(f"| `{state}` |" in printed("scenario") for state in scenario.STATES)


def test_the_columns_of_a_store_are_the_columns_that_stand_there(tmp_path):
    (tmp_path / "p.toml").write_text("[grid]\nseed = [1]\n[fixed]\nduration_us = 1\n")
    with pytest.raises(SystemExit):
        main(["sweep", str(tmp_path / "p.toml"), "-o", str(tmp_path / "s"), "--no-report", "--workers", "0", "--quiet"])
    made = pyarrow.parquet.read_schema(tmp_path / "s" / "results.parquet")
    assert set(made.names[:2]) == {"seed", "duration_us"} and made.names[2:] == [*reference.ROW, *COLUMNS]
    assert {name.decode() for name in made.metadata} >= {"ultrafolio.plan", "ultrafolio.title", "ultrafolio.engine"}
    text = printed("results")
    for name in [*reference.ROW, *COLUMNS]:
        kind = str(made.field(name).type).replace("list<element: int64>", "list of int64")
        assert f"| `{name}` | {kind} |" in text
