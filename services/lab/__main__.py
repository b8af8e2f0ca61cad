"""The laboratory: `python -m services.lab`, configured by ULTRAFOLIO_ variables (python -m services --help)."""

from typing import Any

from services.common.links import folder_of, keeper_of, store_of
from services.common.serve import Running, main, serve, traced
from services.common.settings import Settings
from services.lab.jobs import Jobs
from services.lab.listing import Listing
from services.lab.replays import Replays
from services.lab.retention import Retention
from services.lab.servicer import Lab
from services.lab.web import Page
from ultrafolio.rpc.v1 import lab_pb2_grpc


def start(settings: Settings) -> Running:
    """Open the jobs and the shared state, and listen. The page has no access control beyond its port."""
    store, folder = store_of(settings, "lab"), folder_of(settings, "lab")
    jobs = Jobs(folder / "sweeps", settings.redis_url("lab"), settings.files)
    retention = Retention(keeper_of(settings), folder / "archive")
    lab = Lab(store, jobs, retention)
    register = [(lab_pb2_grpc.add_LabServiceServicer_to_server, lab)]
    running = serve("lab", register, settings, ready=store.ping, tracing=traced("lab", settings))
    retention.start_cutting(running.log)
    if settings.web_port >= 0:
        replays = Replays(store, folder / "streams")
        _with_page(
            running, Page(replays, Listing(replays, jobs), settings.host, settings.web_port, settings.hosts, retention)
        )
    return running


def _with_page(running: Running, page: Page) -> None:
    """Announce the page's address, and close the page with the service."""
    says, stop = running.announcement, running.stop

    def announcement() -> dict[str, Any]:
        return says() | {"web": f"http://{page.address}/"}

    def stop_both(grace_s: float | None = None) -> None:
        page.close()
        stop(grace_s)

    running.announcement, running.stop = announcement, stop_both  # type: ignore[method-assign]
    running.log.info("page", address=f"http://{page.address}/", loopback=running.settings.loopback)
    if not running.settings.loopback:
        running.log.warning("the page listens beyond this machine, and asks nobody who they are", host=page.address)


if __name__ == "__main__":
    main(start)
