"""A new folio group, orders to its actors, and the output of the example scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import ROOT
from step_printer import StepPrinter

from ultrafolio.export.text import paragraph
from ultrafolio.model import scenario
from ultrafolio.model.policies import find_any
from ultrafolio.rpc.client import request_id
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.v1 import common_pb2, guest_pb2, host_mm_pb2


def system_of(file: str, policy: str) -> tuple[str, scenario.System]:
    """Returns title and system of a scenario file, in this folder or the checkout. InputError: a bad file or policy."""
    story = scenario.read(Path(file) if Path(file).exists() else ROOT / file)
    return story.title, scenario.system(story, find_any(policy, story.tables))


class Group:
    """A new folio group, laid out from a scenario file under a policy, and orders to its actors."""

    def __init__(self, lab: Cluster, file: str, policy: str, name: str | None = None) -> None:
        title, self.system = system_of(file, policy)
        self.lab = lab
        self.name = name or f"{Path(file).stem}-{policy}-{request_id()[:8]}"
        lab.lay_out(self.name, self.system, title)
        self._printer = StepPrinter(lab, self.name, self.system)
        print(paragraph(f"== {Path(file).stem} under {policy}: {title}"))

    def touch(self, vcpu: int, page: int, *, seconds: float = 10, **more: Any) -> guest_pb2.TouchResponse:
        request = guest_pb2.TouchRequest(group=self.name, actor=vcpu, page=page, request_id=request_id(), **more)
        return self.lab.guest.Touch(request, timeout=seconds)

    def unshare(self, vcpu: int, page: int, *, seconds: float = 10) -> guest_pb2.UnshareResponse:
        request = guest_pb2.UnshareRequest(group=self.name, actor=vcpu, page=page, request_id=request_id())
        return self.lab.guest.Unshare(request, timeout=seconds)

    def convert(self, vmm: int, page: int, *, private: bool, seconds: float = 10) -> guest_pb2.ConvertResponse:
        request = guest_pb2.ConvertRequest(
            group=self.name, actor=vmm, page=page, private=private, request_id=request_id()
        )
        return self.lab.guest.Convert(request, timeout=seconds)

    def release(self, pin: int) -> guest_pb2.ReleaseResponse:
        request = guest_pb2.ReleaseRequest(group=self.name, actor=pin, request_id=request_id())
        return self.lab.guest.Release(request)

    def direct_io(self, disk: int, page: int, **more: Any) -> guest_pb2.DirectIoResponse:
        request = guest_pb2.DirectIoRequest(group=self.name, actor=disk, page=page, request_id=request_id(), **more)
        return self.lab.guest.DirectIo(request)

    def configure(self, ring: int, page: int) -> guest_pb2.ConfigureResponse:
        request = guest_pb2.ConfigureRequest(group=self.name, actor=ring, page=page, request_id=request_id())
        return self.lab.guest.Configure(request)

    def reboot(self, actor: int) -> guest_pb2.RebootResponse:
        request = guest_pb2.RebootRequest(group=self.name, actor=actor, request_id=request_id())
        return self.lab.guest.Reboot(request)

    def start(self, actor: int, page: int) -> host_mm_pb2.StartResponse:
        request = host_mm_pb2.StartRequest(group=self.name, actor=actor, page=page, request_id=request_id())
        return self.lab.host.Start(request)

    def print_steps(self, legend: bool = False) -> None:
        """Print the steps since the last call, a column per role."""
        print(
            "\n".join(
                ["", *self._printer.lines(), *(["", paragraph(self._printer.words.LEGEND)] if legend else []), ""]
            )
        )

    def show_page(self, page: int) -> None:
        """Print the host's view of a page: an exception, or its first bytes."""
        seen = self.lab.host.ReadPage(host_mm_pb2.ReadPageRequest(group=self.name, page=page))
        text = f"exception {seen.exception:#x}" if seen.exception else show(seen.data)
        print(f"the host reads page {page}: {text}")

    def explain(self) -> None:
        """Print the present waits, as the host explains them: waiter, obstacle, holder."""
        waits = self.lab.host.Explain(host_mm_pb2.ExplainRequest(group=self.name)).waits
        for wait in waits:
            kind = common_pb2.StallClass.Name(wait.stall_class).removeprefix("STALL_CLASS_").lower().replace("_", "-")
            print(paragraph(f"{wait.waiter} waits for: {wait.waits_for} ({kind})"))
            print(paragraph(f"held by: {wait.held_by}"))
            print(paragraph(f"released by: {wait.released_by}"))
        if not waits:
            print("nobody waits")


def show(data: bytes) -> str:
    """Returns printable text as it is, a description of other bytes."""
    text = data.rstrip(b"\0")
    if not text:
        return "zeros"
    return repr(text.decode()) if text.isascii() and text.decode().isprintable() else "cipher text"


def outcome(answer: Any) -> str:
    """Returns an order's outcome, as a word."""
    return common_pb2.Outcome.Name(answer.outcome).removeprefix("OUTCOME_").lower()
