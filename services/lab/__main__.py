"""The laboratory: `python -m services.lab`, told by ULTRAFOLIO_ variables (python -m services --help)."""

from services.lab.jobs import Jobs
from services.lab.servicer import Lab
from services.links import folder_of, store_of
from services.serve import Running, main, serve, traced
from services.settings import Settings
from ultrafolio.rpc.v1 import lab_pb2_grpc


def start(settings: Settings) -> Running:
    """Open the jobs and the shared state, and listen."""
    store = store_of(settings, "lab")
    lab = Lab(store, Jobs(folder_of(settings, "lab") / "sweeps", settings.redis_url("lab")))
    register = [(lab_pb2_grpc.add_LabServiceServicer_to_server, lab)]
    return serve("lab", register, settings, ready=store.ping, tracing=traced("lab", settings))


if __name__ == "__main__":
    main(start)
