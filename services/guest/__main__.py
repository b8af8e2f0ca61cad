"""The guest service: `python -m services.guest`, configured by ULTRAFOLIO_ variables (python -m services --help)."""

from services.common.disk import Disk
from services.common.links import channel_to, folder_of, store_of
from services.common.serve import Running, main, serve, traced
from services.common.settings import Settings
from services.guest.devices import Devices
from services.guest.peers import Parts
from services.guest.servicer import Guest
from services.guest.vcpu import Machine
from ultrafolio.rpc.v1 import guest_pb2_grpc, host_mm_pb2_grpc, ultravisor_pb2_grpc
from ultrafolio.state.turn import Group


def start(settings: Settings) -> Running:
    """Connect to the other parts and to the shared state, and listen."""
    tracing = traced("guest", settings)
    store = store_of(settings, "guest")
    parts = Parts(
        ultravisor_pb2_grpc.UltravisorServiceStub(channel_to(settings, "guest", "ultravisor", tracing)),
        ultravisor_pb2_grpc.UltravisorServiceStub(channel_to(settings, "guest", "ultravisor", tracing, "device")),
        host_mm_pb2_grpc.HostMmServiceStub(channel_to(settings, "guest", "host_mm", tracing)),
    )
    guest = Guest(store, parts, Machine(parts), Devices(parts, Disk(folder_of(settings, "guest") / "disk")))
    guest.groups.tend(Group.refresh)
    register = [(guest_pb2_grpc.add_GuestServiceServicer_to_server, guest)]
    return serve("guest", register, settings, ready=store.ping, tracing=tracing)


if __name__ == "__main__":
    main(start)
