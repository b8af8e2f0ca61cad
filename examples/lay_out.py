"""Lay out a folio group from a scenario under a policy, and print how to reach it.

    python examples/lay_out.py SCENARIO POLICY [where.json [NAME]]

POLICY is a preset, or a block of the scenario file. Without where.json the group is deleted at the end of this script.
"""

import sys

from common import cluster, main, where
from group import Group, system_of

from ultrafolio.errors import InputError
from ultrafolio.model import designs
from ultrafolio.model.designs import S390
from ultrafolio.model.guest_memfd.scenario import STATES
from ultrafolio.model.layout import OPS, PAGE_STATES


def story() -> None:
    if len(sys.argv) < 3:
        raise InputError(
            "arguments",
            value=" ".join(sys.argv[1:]),
            allowed="SCENARIO POLICY [where.json [NAME]]",
            then="python examples/lay_out.py scenarios/03-virtio.toml whole-folio where.json",
        )
    system_of(sys.argv[1], sys.argv[2])  # reports bad arguments before a cluster is started
    with cluster(where(3)) as lab:
        group = Group(lab, sys.argv[1], sys.argv[2], where(4))
        state = lab.state(group.name)
        print(f"group {group.name}")
        design = designs.of(state)
        for page, order in enumerate(state.mm["order"]):
            word = PAGE_STATES[state.uv["state"][page]] if design is S390 else STATES[not state.mm["private"][page]]
            print(f"page {page}: {word}, folio of order {order}")
        for actor, choices in enumerate(group.system.choices):
            kind = design.kinds[state.who["kind"][actor]]
            may = [f"{OPS[op] if kind in ('vcpu', 'vmm', 'access') else 'page'} {page}" for op, page in choices]
            print(f"actor {actor}: {kind}" + (f", may choose {', '.join(may)}" if kind != "reboot" else ""))


if __name__ == "__main__":
    main(story)
