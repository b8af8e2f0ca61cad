"""docs/reference.md is what the code takes now, and says it of every command, field and service."""

import json
from pathlib import Path

from click.testing import CliRunner

from ultrafolio.cli import cli
from ultrafolio.model import policies, scenario
from ultrafolio.sim import config, costs

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference.md"


def printed(*words):
    return CliRunner().invoke(cli, ["reference", *words], catch_exceptions=False).output


def test_the_page_is_fresh():
    assert PAGE.read_text() == printed(), "run: ultrafolio reference > docs/reference.md"


def test_every_field_and_method_is_there():
    text = PAGE.read_text()
    names = {*policies.PRESETS, *policies.FIELDS, *scenario.MEMORY, *scenario.FEATURES, *config.AXES, *config.WORKLOAD,
             *costs.DEFAULTS} - {"tables"}  # fmt: skip
    missing = {name for table in scenario.ACTORS.values() for name in [*table, *names] if f"`{name}`" not in text}
    assert not missing
    assert all(f"### [[{name}]]" in text for name in scenario.ACTORS)
    protos = [line.split()[1].split("(")[0] for file in (ROOT / "protos").rglob("*.proto")
              for line in file.read_text().splitlines() if line.startswith("  rpc ")]  # fmt: skip
    assert len(protos) > 20 and not [name for name in protos if f"| `{name}` |" not in text]


def test_the_commands_alone_as_json():
    made = [json.loads(line) for line in printed("--json").splitlines()]
    assert {"check", "sweep run", "trace validate", "reference"} <= {one["command"] for one in made}
    assert all(option["help"] for one in made for option in one["options"])
