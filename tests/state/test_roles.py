"""The table of roles fits the model and the services that there are."""

from pathlib import Path

import services
from services.common import rights
from ultrafolio.model.layout import OWNERS
from ultrafolio.model.rule import RULES
from ultrafolio.state.roles import PARTS, ROLE_OF_ACTOR, ROLE_OF_SERVICE, ROLES
from ultrafolio.state.sections import DTYPES


def test_each_rule_is_run_by_one_role():
    actors = [actor for role in ROLES for actor in role.runs]
    assert len(actors) == len(set(actors)) and {rule.actor for rule in RULES.values()} <= set(ROLE_OF_ACTOR)


def test_the_owner_of_a_section_may_write_it():
    writes = {role.name: role.writes for role in PARTS}
    assert all(section in writes[ROLE_OF_ACTOR[owner]] for section, owner in OWNERS.items())


def test_only_io_and_the_program_counters_have_two_writers():
    shared = {name for name in DTYPES if sum(name in role.writes for role in PARTS) != 1}
    assert shared == {"io", "pc"}


def test_each_service_has_a_role():
    folders = {path.parent.name for path in Path(services.__file__).parent.glob("*/__main__.py")}
    assert folders == set(ROLE_OF_SERVICE)


def test_only_roles_of_the_table_may_call():
    assert {name for rule in rights.TABLE.values() for name in rule.roles} <= {role.name for role in ROLES}
