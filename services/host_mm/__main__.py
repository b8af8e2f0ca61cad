"""The host MM service: `python -m services.host_mm`, set by ULTRAFOLIO_ variables (python -m services --help)."""

from services.common.disk import Disk
from services.common.links import channel_to, folder_of, store_of
from services.common.moved import prepare
from services.common.serve import Running, main, serve, traced
from services.common.settings import Settings
from services.host_mm.servicer import HostMm
from services.host_mm.swap import Swap
from services.host_mm.threads import Threads
from services.host_mm.ultravisor_client import Firmware, Guests
from services.host_mm.unfinished import UnfinishedThreads
from ultrafolio.rpc.v1 import host_mm_pb2_grpc, ultravisor_pb2_grpc
from ultrafolio.state.turn import Group


def start(settings: Settings) -> Running:
    """Connect to the ultravisor and to the shared state, and listen."""
    tracing = traced("host_mm", settings)
    store = store_of(settings, "host_mm")
    stub = ultravisor_pb2_grpc.UltravisorServiceStub(channel_to(settings, "host_mm", "ultravisor", tracing))
    folder = folder_of(settings, "host_mm")
    prepare(folder, settings.replica)
    firmware = Firmware(stub, Guests(store))
    threads = Threads(firmware.read_pages, firmware.would_end, UnfinishedThreads(store))
    host = HostMm(store, firmware, threads, Swap(Disk(folder / "swap")), settings.replica)
    host.groups.tend(Group.refresh)
    threads.look_after(host.groups)
    register = [(host_mm_pb2_grpc.add_HostMmServiceServicer_to_server, host)]
    return serve("host_mm", register, settings, ready=store.ping, tracing=tracing)


if __name__ == "__main__":
    main(start)
