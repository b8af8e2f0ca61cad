"""The lab's page: Starlette in a thread of the lab's process. Changes are sent as server-sent events.

/                      the page; its style and scripts beside it
/live?group=&saved=    events: `listing` (groups, sweeps), and of one replay `base`, `frames`, `end`; the id of an event
                       `frames` is its last entry, from which a page continues after it lost the connection
/saved                 POST of a saved stream: its name and groups;  /saved/NAME: its groups
/groups/NAME           DELETE removes a group for ever; POST of …/archive saves its stream in the lab's folder
/sweeps/JOB/plots      the report's plots of a sweep's cells so far;  …/NAME.svg
"""

from __future__ import annotations

import asyncio
import contextlib
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

from services.lab.listing import Listing
from services.lab.replay import GroupReplay
from services.lab.replays import MAX_BYTES, Replays
from services.lab.retention import Retention
from ultrafolio.errors import InputError
from ultrafolio.state.store import StoreUnavailable
from ultrafolio.web.pages import ELEMENTS, HEADERS, LOOPBACK, address_of, listening, script

FOLDER = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
LOOK_S = 0.1
NO_RETENTION = Retention(None, Path())
"""For a page that may not archive or delete."""
BEAT_S = 2.0
MOST_UPLOADS = 2
"""Saved streams that the page takes at a time; others wait."""
MOST_CONNECTIONS = 256
"""Connections to the page at a time; one more is answered 503."""
MOST_FRAMES = 500
"""Frames in one event: the page draws a long replay in between."""


async def _uploaded(request: Request) -> bytes:
    """Returns the stream that a browser sends; of one over MAX_BYTES a part that is over it, too."""
    # a form of another site cannot send this content type without a CORS preflight
    if request.headers.get("content-type") != "application/x-ndjson":
        raise InputError(
            "the content type of the uploaded file",
            value=request.headers.get("content-type"),
            allowed="application/x-ndjson, a saved stream",
            then="open the file in the lab's page",
        )
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > MAX_BYTES:
            break
    return bytes(data)


def application(
    replays: Replays,
    listing: Listing,
    host: str,
    ending: threading.Event,
    hosts: str = "",
    retention: Retention = NO_RETENTION,
) -> Starlette:
    """Returns the ASGI application. `ending`: set to end the streams;  `hosts`: further accepted names in Host."""

    async def live(request: Request) -> Response:
        group, saved = request.query_params.get("group", ""), request.query_params.get("saved", "")
        seen = request.headers.get("last-event-id") or request.query_params.get("after", "")
        stream = _stream(replays, listing, saved, group, seen, ending)
        return StreamingResponse(stream, media_type="text/event-stream", headers=HEADERS)

    uploads = asyncio.Semaphore(MOST_UPLOADS)

    async def save(request: Request) -> Response:
        async with uploads:
            name, groups = await run_in_threadpool(replays.save, await _uploaded(request))
        return JSONResponse({"saved": name, "groups": groups})

    def saved_groups(request: Request) -> Response:
        return JSONResponse({"groups": replays.saved_groups(request.path_params["name"])})

    return Starlette(
        routes=[
            *(
                Route("/" if file.name == "index.html" else f"/{file.name}", _file(file))
                for file in FOLDER.iterdir()
                if file.suffix in KINDS
            ),
            Route(f"/{ELEMENTS}", _text(script(), ".js")),
            Route("/live", live),
            Route("/saved", save, methods=["POST"]),
            Route("/saved/{name}", saved_groups),
            *_group_routes(retention),
            *_plot_routes(listing),
        ],
        # refuses another site's name that resolves to this address (DNS rebinding)
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=_names(host, hosts))],
        exception_handlers={InputError: _refused, StoreUnavailable: _unavailable, 404: _not_found},
    )


def _group_routes(retention: Retention) -> list[Route]:
    """Returns the routes that archive and delete a group."""

    def archive(request: Request) -> Response:
        # a form of another site cannot send this content type without a CORS preflight
        if request.headers.get("content-type") != "application/json":
            raise InputError("kind of the request", value=request.headers.get("content-type"), allowed="JSON")
        return JSONResponse(retention.archive(request.path_params["group"])._asdict())

    def delete(request: Request) -> Response:
        retention.delete(request.path_params["group"])
        return JSONResponse({"deleted": request.path_params["group"]})

    return [
        Route("/groups/{group}/archive", archive, methods=["POST"]),
        Route("/groups/{group}", delete, methods=["DELETE"]),
    ]


def _plot_routes(listing: Listing) -> list[Route]:
    """Returns the routes of a sweep's plots."""

    def plots(request: Request) -> Response:
        return JSONResponse(listing.plots(request.path_params["job"]))

    def plot(request: Request) -> Response:
        svg = listing.plot(request.path_params["job"], request.path_params["name"])
        return Response(
            svg,
            media_type="image/svg+xml",
            headers=HEADERS | {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )

    return [Route("/sweeps/{job}/plots", plots), Route("/sweeps/{job}/{name}.svg", plot)]


def _file(file: Path) -> Callable[[Request], Response]:
    """Returns a handler that answers with a file's content."""
    return lambda request: Response(file.read_bytes(), media_type=KINDS[file.suffix], headers=HEADERS)


def _text(content: str, suffix: str) -> Callable[[Request], Response]:
    """Returns a handler that answers with this text, of the type of files with this suffix."""
    return lambda request: Response(content, media_type=KINDS[suffix], headers=HEADERS)


def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


def _unavailable(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the shared state does not answer"}, 503)


def _not_found(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "there is no such address here"}, 404)


# ------------------------------------------------------------------------------------------------- events
def _event(kind: str, data: Any, identity: str = "") -> bytes:
    """Returns one event; the JSON has no line breaks."""
    head = f"id: {identity}\n" if identity else ""
    return f"{head}event: {kind}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"


async def _stream(
    replays: Replays, listing: Listing, saved: str, group: str, seen: str, ending: threading.Event
) -> AsyncIterator[bytes]:
    """Yields the events of one page until it disconnects."""
    yield b"retry: 1000\n\n"
    said, replay, asked, ended, beat = None, None, False, False, time.monotonic()
    try:
        while not ending.is_set():
            out, behind = b"", False
            now = await run_in_threadpool(listing.now)
            if now != said:
                said = now
                out += _event("listing", now)
            if group and replay is None and not ended:
                try:
                    view, asked = replays.replay if asked else replays.view, True
                    replay = await run_in_threadpool(view, saved, group)
                except InputError as error:
                    ended = True
                    out += _event("refused", {"error": str(error)})
                except StoreUnavailable:
                    replay = None
            if replay is not None and not ended:
                done = (replay.complete, replay.error)
                piece, seen, behind = _piece(replay, seen)
                out += piece
                if not behind and any(done):
                    ended = True
                    out += _event("end", replay.error)
            if not out and time.monotonic() - beat > BEAT_S:
                out = _event("beat", {"away": replays.away})
            if out:
                beat = time.monotonic()
                yield out
            if not behind:
                await asyncio.sleep(LOOK_S)
    finally:
        if asked:
            replays.left(saved, group)


def _piece(replay: GroupReplay, seen: str) -> tuple[bytes, str, bool]:
    """Returns the events after entry `seen`, the last entry in them, and whether more are ready."""
    base, frames, goes_on = replay.since(seen)
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
    """Serves the page. `address` is host:port."""

    def __init__(
        self,
        replays: Replays,
        listing: Listing,
        host: str,
        port: int,
        hosts: str = "",
        retention: Retention = NO_RETENTION,
    ) -> None:
        """Listen. Raises InputError if the address cannot be bound."""
        self._ending = threading.Event()
        what = "ULTRAFOLIO_WEB_PORT: cannot listen there"
        self._listener = listening(host, port, what, "a free port, 0 or -1")
        self.address = address_of(host, self._listener)
        app = application(replays, listing, host, self._ending, hosts, retention)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
            limit_concurrency=MOST_CONNECTIONS,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="page", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        # the service handles signals
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
        self._server.run(sockets=[self._listener])

    def close(self) -> None:
        """End all streams, and stop."""
        self._ending.set()
        self._server.should_exit = True
        self._thread.join(5)
        self._listener.close()


def _names(host: str, hosts: str) -> list[str]:
    """Returns the accepted names in Host: loopback's, the listening address, and `hosts`."""
    everywhere = "0.0.0.0", "::"  # nosec B104 (nothing is bound here)
    own = [] if host in everywhere else [f"[{host}]" if ":" in host else host]
    return [*LOOPBACK, "[::1]", *own, *(name.strip() for name in hosts.split(",") if name.strip())]
