"""Creates and destroys secure guests as KVM does: donations, configuration, processors, header, image.

The order of calls is kvm_s390_pv_init_vm, kvm_s390_pv_create_cpu, kvm_s390_pv_set_sec_parms, kvm_s390_pv_unpack and
KVM_PV_VERIFY (arch/s390/kvm/pv.c, v7.0), then that of kvm-unit-tests snippet_pv_init (kernel §1.5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import grpc
import msgspec

from services.host_mm.ultravisor_client import Created, Firmware, Guests, gone_guest
from ultrafolio.model.layout import PAGE_SIZE
from ultrafolio.rpc.client import request_id
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import common_pb2, ultravisor_pb2
from ultrafolio.rpc.v1 import host_mm_pb2 as pb
from ultrafolio.state.requests import derived, repeats
from ultrafolio.uvcall.calls import CPU_LOAD, CPU_STOPPED, RC_EXECUTED, RC_INV_GHANDLE
from ultrafolio.uvcall.uvcb import Block

MIB = 1 << 20
BASE = 2 << 30
"""Absolute address of the ultravisor's base storage: not below 2 GiB."""
FIRST, REGION, REGIONS = 16 * MIB, 8 * MIB, 250
"""Address of the guests' donated storage, bytes per guest, number of guests that fit below BASE."""
VARIABLE, AREAS, CPUS, CPU = 64 << 10, 1 * MIB, 2 * MIB, 5 * PAGE_SIZE
"""Within a region: variable storage behind the base storage, control area and address space, processors, of which each
has four pages of storage and one for its state description."""
MOST_CPUS = 248
"""KVM_S390_ESCA_CPU_SLOTS, v6.13."""
IN_USE = (0x106, 0x10A, 0x10B, 0x10D)
"""Create configuration: its address space element, or some of the storage, is another guest's."""


class Boot:
    """Creates, fills, starts and destroys guests for the owner of their group. Raises NotOwner once another host is."""

    def __init__(self, firmware: Firmware, guests: Guests) -> None:
        self._firmware, self._guests = firmware, guests

    def create(self, request: pb.CreateGuestRequest, memory: int) -> pb.CreateGuestResponse:
        """Configuration, processors and header, or nothing; `memory` in bytes."""
        known = self._guests.find(request.group, request.vm)
        if known and request.request_id and repeats(request.request_id, known.request):
            return pb.CreateGuestResponse(configuration=known.configuration, cpus=known.cpus, answer=_answer(None))
        if known and not known.started:  # left by an interrupted boot
            self.destroy(request.group, request.vm)
        self._initialise()
        name = request.request_id or request_id()
        origin, made = self._configuration(request, name, memory)
        if made.rc != RC_EXECUTED:
            return pb.CreateGuestResponse(answer=_answer(made))
        guest, answers = Created(made.fields["guest_handle"], [], _asce(origin), request.request_id), []
        guest = msgspec.structs.replace(guest, epoch=self._firmware.epoch)
        for number in range(request.cpus):
            answers.append(self._cpu(guest.configuration, origin, number, name))
            if answers[-1].rc == RC_EXECUTED:
                guest.cpus.append(answers[-1].fields["cpu_handle"])
        answers.append(self._header(guest, origin, request.header))
        refused = next((answer for answer in answers if answer.rc != RC_EXECUTED), None)
        if refused:
            self._take_down(guest)
            return pb.CreateGuestResponse(answer=_answer(refused))
        self._guests.keep(request.group, request.vm, guest)
        return pb.CreateGuestResponse(configuration=guest.configuration, cpus=guest.cpus, answer=_answer(answers[-1]))

    def _initialise(self) -> None:
        """Issue Query, then Initialise. Repeating Initialise has no effect, so its state is not checked first."""
        length = self._firmware.execute("query").fields["uv_base_stor_len"]
        self._firmware.execute("initialise", stor_origin=BASE, stor_len=length)

    def _configuration(self, request: pb.CreateGuestRequest, name: str, memory: int) -> tuple[int, Block]:
        """Create the configuration, in the first free region after the one that its name hashes to."""
        digest = hashlib.blake2b(f"{request.group}/{request.vm}".encode(), digest_size=4).digest()
        for probe in range(REGIONS):
            origin = FIRST + (int.from_bytes(digest, "big") + probe) % REGIONS * REGION
            made = self._firmware.execute(
                "create_configuration",
                group=request.group,
                vm=request.vm,
                request=derived(name, origin),
                conf_base_stor=origin,
                conf_var_stor=origin + VARIABLE,
                guest_stor_len=memory,
                sca=origin + AREAS,
                asce=_asce(origin),
            )
            if made.rc not in IN_USE:
                break
        return origin, made

    def _cpu(self, configuration: int, origin: int, number: int, name: str) -> Block:
        """Create a vCPU. Returns the answered control block."""
        storage = origin + CPUS + number * CPU
        return self._firmware.execute(
            "create_cpu",
            request=derived(name, configuration, number),
            guest_handle=configuration,
            number=number,
            stor_origin=storage,
            state_origin=storage + 4 * PAGE_SIZE,
        )

    def _header(self, guest: Created, origin: int, header: bytes) -> Block:
        """Set the parameters of a guest from its SE header. Returns the answered control block."""
        return self._firmware.execute(
            "set_parameters",
            operand=header,
            guest_handle=guest.configuration,
            header_origin=origin + AREAS + 2 * PAGE_SIZE,
            header_len=len(header),
        )

    def place(self, request: pb.UnpackRequest, vm: int) -> int:
        """Write encrypted pages to the guest's addresses, and let the vCPU's imports of them unpack. Returns the number
        of pages written. Raises StatusError if the guest is not being booted."""
        data, group = request.image, request.group
        guest = self._guests.find(group, vm)
        if guest is None or guest.started:
            raise StatusError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "NOT_BOOTING",
                f"virtual machine {vm} of {group}",
                value="it runs" if guest else "it was not created",
                allowed="between CreateGuest and StartGuest",
            )
        pages = range(request.page, request.page + len(data) // PAGE_SIZE)
        offsets = range(0, len(data), PAGE_SIZE)
        accesses = [
            ultravisor_pb2.PageAccess(page=page, data=data[at : at + PAGE_SIZE])
            for page, at in zip(pages, offsets, strict=True)
        ]
        seen = self._firmware.send(
            self._firmware.stub.Access, ultravisor_pb2.AccessRequest(group=group, accesses=accesses)
        ).outcomes
        waits = {page: (request.tweak, request.offset + at) for page, at in zip(pages, offsets, strict=True)}
        self._guests.unpacking.setdefault((group, request.actor), {}).update(waits)
        return sum(not one.exception for one in seen)

    def start(self, group: str, vm: int, prefix: int, actors: Sequence[int]) -> common_pb2.UltravisorAnswer:
        """Verify the image, load the first processor, enter it with its prefix area at address `prefix`. `actors`: the
        vCPUs, which stop unpacking. Returns the ultravisor's answer to the last call."""
        guest = self._guests.find(group, vm)
        if guest is None:
            return common_pb2.UltravisorAnswer(call="verify", rc=RC_INV_GHANDLE)
        for actor in actors:
            self._guests.unpacking.pop((group, actor), None)
        if not guest.started:
            verified = self._firmware.execute("verify", guest_handle=guest.configuration)
            if verified.rc != RC_EXECUTED:
                return _answer(verified)
            self._guests.keep(group, vm, msgspec.structs.replace(guest, started=True, epoch=self._firmware.epoch))
        self._firmware.execute("cpu_set_state", cpu_handle=guest.cpus[0], state=CPU_LOAD)
        entry = ultravisor_pb2.EnterRequest(
            configuration=guest.configuration, cpu=guest.cpus[0], asce=guest.asce, prefix=prefix
        )
        entered = self._firmware.send(self._firmware.stub.Enter, entry).interception
        return common_pb2.UltravisorAnswer(call="enter", rc=RC_EXECUTED, interception=entered)

    def destroy(self, group: str, vm: int) -> common_pb2.UltravisorAnswer:
        """Destroy a guest. If a call fails the guest stays recorded, for another try."""
        guest = self._guests.find(group, vm)
        if guest is None:
            return common_pb2.UltravisorAnswer(call="destroy_configuration", rc=RC_INV_GHANDLE)
        gone = self._take_down(guest)
        if gone.rc in (RC_EXECUTED, RC_INV_GHANDLE):
            self._guests.keep(group, vm, gone_guest(self._firmware.epoch))
        return _answer(gone)

    def _take_down(self, guest: Created) -> Block:
        """Stop and destroy the guest's vCPUs, then its configuration. Returns the last answered control block."""
        for cpu in guest.cpus:
            self._firmware.execute("cpu_set_state", cpu_handle=cpu, state=CPU_STOPPED)
            self._firmware.execute("destroy_cpu", cpu_handle=cpu)
        return self._firmware.execute("destroy_configuration", guest_handle=guest.configuration)


def _asce(origin: int) -> int:
    """Returns the address space control element of the guest in this region, private (bit 55)."""
    return origin + AREAS + PAGE_SIZE | 0x100


def _answer(block: Block | None) -> common_pb2.UltravisorAnswer:
    """Returns the answer of a call, success for None (answered before)."""
    return common_pb2.UltravisorAnswer(call=block.name if block else "set_parameters", rc=block.rc if block else 1)
