"""The JSON Schemas accept every shipped file, and refuse the kinds and bounds that the readers refuse."""

import json
import tomllib

import jsonschema
import pytest
from click.testing import CliRunner

from checking import ROOT
from test_cli import FILES
from ultrafolio.cli import cli
from ultrafolio.commands import schema
from ultrafolio.errors import InputError
from ultrafolio.fields import Field, take
from ultrafolio.model import policies, scenario
from ultrafolio.sim import config, costs
from ultrafolio.sweep import planfile

SHIPPED = [("scenario", path) for path in sorted((ROOT / "scenarios").glob("*.toml"))]
SHIPPED += [("scenario", path) for path in sorted((ROOT / "scenarios/guest_memfd").glob("*.toml"))]
SHIPPED += [("plan", path) for path in sorted((ROOT / "sweeps").glob("*.toml"))]
SHIPPED += [("costs", path) for path in sorted((ROOT / "profiles").glob("*.toml"))]
BEYOND = {"alignment", "page", "device past the end", "states"}
"""Scenarios that the reader refuses (test_cli) and a schema cannot."""


def accepts(kind, document):
    return jsonschema.Draft202012Validator(schema.schema(kind)).is_valid(document)


@pytest.mark.parametrize("kind", schema.KINDS)
def test_a_schema_is_one_and_the_command_prints_it(kind):
    made = schema.schema(kind)
    jsonschema.Draft202012Validator.check_schema(made)
    printed = CliRunner().invoke(cli, ["reference", kind, "--schema"], catch_exceptions=False).output
    assert json.loads(printed) == made


@pytest.mark.parametrize(("kind", "file"), SHIPPED, ids=[path.stem for _, path in SHIPPED])
def test_a_shipped_file_is_valid(kind, file):
    jsonschema.validate(tomllib.loads(file.read_text()), schema.schema(kind), jsonschema.Draft202012Validator)


@pytest.mark.parametrize("name", FILES)
def test_what_the_reader_refuses_of_a_scenario_the_schema_refuses(name):
    try:
        document = tomllib.loads(FILES[name][0])
    except (ValueError, RecursionError):
        return  # no TOML: a schema is not asked
    with pytest.raises(InputError):
        scenario.parse(dict(document), name)
    if accepts("scenario", document):
        assert name in BEYOND


VALUES = {"int": (0, -1, 2**40, 1.5, "x", True, [1]), "number": (0, 0.5, -0.1, "x", True), "bool": (True, 1, "true"),
          "text": ("", "x", 1), "choice": ("", "x", 1), "ints": ([], [0], [-1], [2**40], ["x"], [True], 1),
          "texts": ([], ["x"], [1], "x"), "table": ({}, [], "x")}  # fmt: skip
FIELDS = {
    "memory": scenario.MEMORY,
    "features": scenario.FEATURES,
    **scenario.ACTORS,
    "workload": config.WORKLOAD,
    "policy": policies.FIELDS,
}


@pytest.mark.parametrize("table", FIELDS)
def test_every_field_takes_what_the_reader_takes(table):
    """Each field of each table, with values inside and outside of its kind and bounds."""
    tried = 0
    for name, field in FIELDS[table].items():
        known = Field(field.kind, None, field.low, field.high, field.choices)
        edges = [field.low, field.low - 1, field.high, field.high + 1]
        values = [*VALUES[field.kind], *field.choices, *edges, *([int(edge)] for edge in edges)]
        for value in [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]:
            try:
                take({name: value}, "here", {name: known})
                taken = True
            except InputError:
                taken = False
            assert jsonschema.Draft202012Validator(schema.of_field(field)).is_valid(value) == taken, (name, value)
            tried += 1
    assert tried >= 10


def test_a_plan_and_a_profile_with_an_unknown_name_are_refused(tmp_path):
    plan = {"grid": {"seed": "1-2"}}
    assert accepts("plan", plan) and not accepts("plan", {**plan, "fixed": {"sede": 1}})
    assert not accepts("plan", {"grid": {}}) and not accepts("plan", {"grid": {"seed": []}})
    with pytest.raises(InputError):
        planfile.parse("[grid]\nseed = []\n", tmp_path / "p.toml")
    assert accepts("costs", {"costs": {"read": 1}}) and not accepts("costs", {"costs": {"reads": 1}})
    with pytest.raises(InputError):
        costs.from_table({"reads": 1}, "here")
    (tmp_path / "empty.toml").write_text("title = 'no costs'\n")
    with pytest.raises(InputError, match="no \\[costs\\]"):
        costs.find("empty.toml", {}, tmp_path)
    assert accepts("policy", {"policy": {"mine": {"base": "split"}}})
    assert not accepts("policy", {"policy": {"mine": {"bas": "split"}}})
    assert accepts("policy", {"policy": {"mine": {"base": "gmem-7.4", "iommu": "first"}}})
    assert not accepts("policy", {"policy": {"mine": {"base": "gmem-7.4", "iommu": "firs"}}})


@pytest.mark.parametrize(
    ("changed", "fits"),
    [
        ({}, True),
        ({"machine": "snp"}, True),
        ({"machine": "s390-uv"}, False),
        ({"design": "s390"}, True),
        ({"features": {"one_address_space": True}}, False),
        ({"memory": {"folios": [2]}}, False),
        ({"memory": {"folios": [0], "state": ["secure"]}}, False),
        ({"vmm": [{"page": 0, "to": "private", "cpu": 63}]}, True),
        ({"vmm": [{"page": 0}]}, False),
        ({"virtio": [{"page": 0}]}, False),
        ({"policy": {"mine": {"base": "gmem-7.4", "retries": 3}}}, True),
    ],
)
def test_a_scenario_of_guest_memfd_is_one_of_its_design(changed, fits):
    """The schema refuses what the reader refuses."""
    made = {"design": "guest_memfd", "memory": {"folios": [0]}, "vcpu": [{"touch": [0]}], **changed}
    assert accepts("scenario", made) == fits
    try:
        scenario.parse(made, "x")
        taken = True
    except InputError:
        taken = False
    assert taken == fits
