"""The lab's page: Starlette in a thread of the lab's process. What happens goes out as server-sent events.

/                      the page; its style and scripts beside it
/live?group=&saved=    events: `news` (groups, sweeps), and of one film `base`, `frames`, `end`; an event of frames
                       has the last entry as its id, so that a page that lost the line goes on where it was
/saved                 POST of a saved stream: its name and groups;  /saved/NAME: its groups
/groups/NAME           DELETE removes a group for ever; POST of …/archive saves its stream in the lab's folder
/sweeps/JOB/plots      what the report draws of a sweep, as far as it is;  …/NAME.svg
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from services.common.settings import LOOPBACK
from services.lab.cutting import Keeper
from services.lab.listing import News
from services.lab.replay import Film
from services.lab.replays import MAX_BYTES, Films
from ultrafolio.errors import InputError
from ultrafolio.state.store import StoreUnavailable

FOLDER = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
LOOK_S = 0.1
NO_KEEPER = Keeper(None, Path())
"""Of a page that may archive and delete nothing."""
BEAT_S = 2.0
MOST_FRAMES = 500
"""Of one event: a long film arrives in pieces, and the page draws between them."""
_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
}


def application(
    films: Films, news: News, host: str, ending: threading.Event, hosts: str = "", keeper: Keeper = NO_KEEPER
) -> Starlette:
    """The ASGI application. `ending`: set when streams are to end; `hosts`: further names that it answers to."""

    async def live(request: Request) -> Response:
        group, saved = request.query_params.get("group", ""), request.query_params.get("saved", "")
        seen = request.headers.get("last-event-id") or request.query_params.get("after", "")
        stream = _stream(films, news, saved, group, seen, ending)
        return StreamingResponse(stream, media_type="text/event-stream", headers=_HEADERS)

    async def save(request: Request) -> Response:
        # a form of another site cannot send this kind without asking first
        if request.headers.get("content-type") != "application/x-ndjson":
            raise InputError("kind of the file", value=request.headers.get("content-type"), allowed="a saved stream")
        data = bytearray()
        async for piece in request.stream():
            data += piece
            if len(data) > MAX_BYTES:
                break
        name, groups = await run_in_threadpool(films.keep, bytes(data))
        return JSONResponse({"saved": name, "groups": groups})

    def saved_groups(request: Request) -> Response:
        return JSONResponse({"groups": films.saved_groups(request.path_params["name"])})

    def archive(request: Request) -> Response:
        # a form of another site cannot send this kind without asking first
        if request.headers.get("content-type") != "application/json":
            raise InputError("kind of the request", value=request.headers.get("content-type"), allowed="JSON")
        return JSONResponse(keeper.archive(request.path_params["group"])._asdict())

    def delete(request: Request) -> Response:
        keeper.delete(request.path_params["group"])
        return JSONResponse({"deleted": request.path_params["group"]})

    def plots(request: Request) -> Response:
        return JSONResponse(news.plots(request.path_params["job"]))

    def plot(request: Request) -> Response:
        svg = news.plot(request.path_params["job"], request.path_params["name"])
        return Response(
            svg,
            media_type="image/svg+xml",
            headers=_HEADERS | {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )

    return Starlette(
        routes=[
            *(
                Route("/" if file.name == "index.html" else f"/{file.name}", _file(file))
                for file in FOLDER.iterdir()
                if file.suffix in KINDS
            ),
            Route("/live", live),
            Route("/saved", save, methods=["POST"]),
            Route("/saved/{name}", saved_groups),
            Route("/groups/{group}/archive", archive, methods=["POST"]),
            Route("/groups/{group}", delete, methods=["DELETE"]),
            Route("/sweeps/{job}/plots", plots),
            Route("/sweeps/{job}/{name}.svg", plot),
        ],
        # another site's name that leads here is not ours
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=_names(host, hosts))],
        exception_handlers={InputError: _refused, StoreUnavailable: _away, 404: _nowhere},
    )


def _file(file: Path) -> Callable[[Request], Response]:
    return lambda request: Response(file.read_bytes(), media_type=KINDS[file.suffix], headers=_HEADERS)


def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


def _away(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the shared state does not answer"}, 503)


def _nowhere(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "there is no such address here"}, 404)


# ------------------------------------------------------------------------------------------------- events
def _event(kind: str, data: Any, identity: str = "") -> bytes:
    """One event; JSON has no line ends of its own."""
    head = f"id: {identity}\n" if identity else ""
    return f"{head}event: {kind}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"


async def _stream(
    films: Films, news: News, saved: str, group: str, seen: str, ending: threading.Event
) -> AsyncIterator[bytes]:
    """Everything that one page is to know, until it goes."""
    yield b"retry: 1000\n\n"
    said, film, ended, beat = None, None, False, time.monotonic()
    while not ending.is_set():
        out = b""
        now = await run_in_threadpool(news.now)
        if now != said:
            said = now
            out += _event("news", now)
        if group and film is None and not ended:
            try:
                film = await run_in_threadpool(films.film, saved, group)
            except InputError as error:
                ended = True
                out += _event("refused", {"error": str(error)})
            except StoreUnavailable:
                film = None
        if film is not None and not ended:
            films.asked(film)
            done = (film.whole, film.trouble)
            piece, seen, behind = _piece(film, seen)
            out += piece
            if not behind and any(done):
                ended = True
                out += _event("end", film.trouble)
        if not out and time.monotonic() - beat > BEAT_S:
            out = _event("beat", {"away": films.away})
        if out:
            beat = time.monotonic()
            yield out
        if not (film and behind):
            await asyncio.sleep(LOOK_S)


def _piece(film: Film, seen: str) -> tuple[bytes, str, bool]:
    """What comes after the entry `seen` as events, the last entry in them, and whether there is more at once."""
    base, frames, goes_on = film.since(seen)
    if base is None:
        return b"", seen, False
    out = b""
    if not goes_on:
        out, seen = _event("base", base, base.id), base.id
    now = frames[:MOST_FRAMES]
    if now:
        seen = now[-1].id
        out += _event("frames", now, seen)
    return out, seen, len(frames) > len(now)


# ------------------------------------------------------------------------------------------------- serving
class Page:
    """The page, served. `address` is host:port."""

    def __init__(
        self, films: Films, news: News, host: str, port: int, hosts: str = "", keeper: Keeper = NO_KEEPER
    ) -> None:
        """Listen. InputError if it cannot be listened there."""
        self._ending = threading.Event()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind((host, port))
            self._listener.listen()
        except OSError as error:
            self._listener.close()
            raise InputError(
                "ULTRAFOLIO_WEB_PORT: cannot listen there",
                value=port,
                allowed="a free port, 0 or -1",
                cause=error.strerror or "",
                then=f"ss -ltnp | grep :{port}",
            ) from None
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{shown}:{self._listener.getsockname()[1]}"
        app = application(films, news, host, self._ending, hosts, keeper)
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="page", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        # signals are the service's own affair
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
        self._server.run(sockets=[self._listener])

    def close(self) -> None:
        """End all streams, and stop."""
        self._ending.set()
        self._server.should_exit = True
        self._thread.join(5)
        self._listener.close()


def _names(host: str, hosts: str) -> list[str]:
    """The names in Host that are answered: loopback's, that of the address it listens on, and those given."""
    everywhere = "0.0.0.0", "::"  # nosec B104 (nothing is bound here)
    own = [] if host in everywhere else [f"[{host}]" if ":" in host else host]
    return [*LOOPBACK, "[::1]", *own, *(name.strip() for name in hosts.split(",") if name.strip())]
