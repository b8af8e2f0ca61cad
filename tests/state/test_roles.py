"""The table of roles fits the model and the services that there are."""

from pathlib import Path

import pytest

import services
from services.common import rights
from ultrafolio.model.designs import DESIGNS
from ultrafolio.model.layout import OWNERS
from ultrafolio.state.roles import PARTS, ROLE_OF_ACTOR, ROLE_OF_SERVICE, ROLES
from ultrafolio.state.sections import sections


def test_each_rule_is_run_by_one_role():
    actors = [actor for role in ROLES for actor in role.runs]
    ran = {rule.actor for design in DESIGNS.values() for rule in design.rules.values()}
    assert len(actors) == len(set(actors)) and ran <= set(ROLE_OF_ACTOR)


def test_the_owner_of_a_section_may_write_it():
    writes = {role.name: role.s390.writes for role in PARTS}
    assert all(section in writes[ROLE_OF_ACTOR[owner]] for section, owner in OWNERS.items())


@pytest.mark.parametrize(("design", "two"), [("s390", {"io", "pc"}), ("guest_memfd", {"pc", "thread", "wanted"})])
def test_only_what_passes_between_roles_has_two_writers(design, two):
    stored = sections(DESIGNS[design])
    assert {name for name in stored.dtypes if sum(name in of.writes for of in stored.touched.values()) != 1} == two


def test_a_section_of_one_name_is_written_by_the_same_roles_in_every_design():
    """A role's Redis user has the rights of all designs: a name that two share may give neither more than it has."""
    touched = [sections(design).touched for design in DESIGNS.values()]
    for role in touched[0]:
        here, there = (set(of[role].writes) for of in touched)
        shared = {name for name in sections(DESIGNS["guest_memfd"]).dtypes if name in sections().dtypes}
        assert (there & shared) <= here, role


def test_each_service_has_a_role():
    folders = {path.parent.name for path in Path(services.__file__).parent.glob("*/__main__.py")}
    assert folders == set(ROLE_OF_SERVICE)


def test_only_roles_of_the_table_may_call():
    assert {name for rule in rights.TABLE.values() for name in rule.roles} <= {role.name for role in ROLES}
