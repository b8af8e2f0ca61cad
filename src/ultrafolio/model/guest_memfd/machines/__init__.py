"""The machines that enforce the design guest_memfd, a module each, with the same verbs.

A verb VERB of the machine NAME is the function NAME_VERB(s, page) of its module. The loader makes of them one function
VERB, which asks `cfg.machine`. A verb alone reads and writes what the hardware says of a page (`uv`); it returns OK, or
an outcome of its machine: what it costs whom. The host goes by that answer, as it does in the kernel.

prepare a fault looks the page up under the lock (kvm_arch_gmem_make_private) assign KVM maps the page as private
guest_access the guest uses the page as private, and accepts it where it must turn the guest shares the page, or
unshares it, by a call to its hypervisor host_access the host uses the page: by a process, the kernel, a copy, or a
device unmap KVM unmaps the page, which was private make_shared the page becomes shared (kvm_arch_gmem_make_shared)
reclaim the page leaves the file (kvm_arch_gmem_reclaim) join, split one entry for the huge page that begins with the
page, or one for each page"""

from __future__ import annotations

from . import cca, pkvm, snp, software, tdx

MODULES = (software, snp, tdx, cca, pkvm)
"""In the order of cfg.machine."""
NAMES = tuple(module.__name__.rpartition(".")[2] for module in MODULES)
VERBS = {
    "prepare": "s, p",
    "assign": "s, p",
    "guest_access": "s, p, small",
    "turn": "s, p, shared",
    "host_access": "s, p, how",
    "unmap": "s, p",
    "make_shared": "s, p",
    "reclaim": "s, p",
    "join": "s, p",
    "split": "s, p, memory",
}
"""Verb -> its arguments."""


def dispatcher(verb: str) -> str:
    """Returns the source of the function that calls a verb of the machine of a state."""
    lines = [f"def {verb}({VERBS[verb]}):"]
    for number, name in enumerate(NAMES[1:], 1):
        lines += [f"    if s.cfg[0].machine == {number}:", f"        return {name}_{verb}({VERBS[verb]})"]
    return "\n".join([*lines, f"    return {NAMES[0]}_{verb}({VERBS[verb]})"]) + "\n"
