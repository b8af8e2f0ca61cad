"""The machines that enforce the design guest_memfd, a module each, with the same verbs and facts.

A verb VERB of the machine NAME is the function NAME_VERB(s, page) of its module. The loader makes of them one function
VERB, which asks `cfg.machine`. A verb alone reads and writes what the hardware says of a page (`uv`); it returns OK, or
an outcome of its machine: what it costs whom. The host goes by that answer, as it does in the kernel.

A fact is a constant of each module; the rules read FACT[cfg.machine].
"""

from __future__ import annotations

from . import cca, pkvm, snp, software, tdx

MODULES = (software, snp, tdx, cca, pkvm)
"""In the order of cfg.machine."""
NAMES = tuple(module.__name__.rpartition(".")[2] for module in MODULES)
VERBS = {
    "prepare": "s, p",  # a fault looks the page up under the lock: kvm_arch_gmem_make_private
    "assign": "s, p",  # KVM maps the page as private
    "guest_access": "s, p, small",  # the guest uses the page as private, and accepts it where it must
    "turn": "s, p, shared",  # the guest shares the page, or unshares it, by a call to its hypervisor
    "host_access": "s, p, how",  # the host uses the page: by a process, the kernel, a copy, or a device
    "unmap": "s, p",  # KVM unmaps the page, which was private
    "make_shared": "s, p",  # the page becomes shared: kvm_arch_gmem_make_shared
    "reclaim": "s, p",  # the page leaves the file: kvm_arch_gmem_reclaim
    "join": "s, p",  # the hardware has one entry for the huge page that begins with the page
    "split": "s, p, memory",  # the hardware has an entry for each page of it
}
"""Verb -> its arguments."""
FACTS = (
    "LOSES_CONTENT",  # a conversion loses the content of the page
    "HAS_ENTRIES",  # the hardware has entries of its own, for single and huge pages
    "SPLITS_LATE",  # the entry of a huge page is split as a page of it is unmapped, and never before
    "GUEST_TURNS",  # the guest shares and unshares by itself
    "TABLE_PER_KIND",  # KVM has a page table for private pages, another for shared ones, and unmaps from either alone
    "BY_PAGE",  # the hardware takes a huge page page by page, and gives it back so
)


def facts() -> dict[str, tuple[bool, ...]]:
    """Returns each fact by machine, in the order of cfg.machine."""
    return {fact: tuple(getattr(module, fact) for module in MODULES) for fact in FACTS}


def dispatcher(verb: str) -> str:
    """Returns the source of the function that calls a verb of the machine of a state."""
    lines = [f"def {verb}({VERBS[verb]}):"]
    for number, name in enumerate(NAMES[1:], 1):
        lines += [f"    if s.cfg[0].machine == {number}:", f"        return {name}_{verb}({VERBS[verb]})"]
    return "\n".join([*lines, f"    return {NAMES[0]}_{verb}({VERBS[verb]})"]) + "\n"
