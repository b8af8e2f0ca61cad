"""The laboratory: `python -m services.lab`, told by ULTRAFOLIO_ variables (python -m services --help)."""

from typing import Any

from services.common.links import folder_of, keeper_of, store_of
from services.common.serve import Running, main, serve, traced
from services.common.settings import Settings
from services.lab.cutting import Keeper
from services.lab.jobs import Jobs
from services.lab.listing import News
from services.lab.replays import Films
from services.lab.servicer import Lab
from services.lab.web import Page
from ultrafolio.rpc.v1 import lab_pb2_grpc


def start(settings: Settings) -> Running:
    """Open the jobs and the shared state, and listen; the page is for whoever reaches its port."""
    store, folder = store_of(settings, "lab"), folder_of(settings, "lab")
    jobs = Jobs(folder / "sweeps", settings.redis_url("lab"), settings.files)
    keeper = Keeper(keeper_of(settings), folder / "archive")
    lab = Lab(store, jobs, keeper)
    register = [(lab_pb2_grpc.add_LabServiceServicer_to_server, lab)]
    running = serve("lab", register, settings, ready=store.ping, tracing=traced("lab", settings))
    keeper.tend(running.log)
    if settings.web_port >= 0:
        films = Films(store, folder / "streams")
        _with_page(running, Page(films, News(films, jobs), settings.host, settings.web_port, settings.hosts, keeper))
    return running


def _with_page(running: Running, page: Page) -> None:
    """Say where the page is, and end it with the service."""
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
