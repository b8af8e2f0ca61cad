"""The ultravisor: `python -m services.ultravisor`, configured by ULTRAFOLIO_ variables (python -m services --help)."""

from services.common.links import folder_of, store_of
from services.common.moved import prepare
from services.common.serve import Running, main, serve, traced
from services.common.settings import Settings
from services.ultravisor.contents import Contents
from services.ultravisor.servicer import Ultravisor
from ultrafolio.rpc.v1 import ultravisor_pb2_grpc


def start(settings: Settings) -> Running:
    """Open the machine's memory and the shared state, and listen."""
    store, folder = store_of(settings, "ultravisor"), folder_of(settings, "ultravisor")
    prepare(folder, settings.replica)
    ultravisor = Ultravisor(store, Contents(folder), settings.replica)
    register = [(ultravisor_pb2_grpc.add_UltravisorServiceServicer_to_server, ultravisor)]
    return serve("ultravisor", register, settings, ready=store.ping, tracing=traced("ultravisor", settings))


if __name__ == "__main__":
    main(start)
