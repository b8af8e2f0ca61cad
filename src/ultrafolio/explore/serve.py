"""Serve the explorer's page on this machine with Starlette; states are JSON by index path."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from ultrafolio.errors import InputError, install
from ultrafolio.web.pages import HEADERS, address_of, listening

from .goto import Guide
from .node import node
from .page import SCRIPTS, STYLE, asset, meta, served
from .walk import MAX_STEPS, parse_path

PORT = 8371


def application(guides: Sequence[Guide], command: str) -> Any:
    """The ASGI application. Raises InputError if Starlette is not installed."""
    try:
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import JSONResponse, Response
        from starlette.routing import Route
    except ImportError:
        raise _without("starlette") from None
    walks, one_at_a_time = [guide.walk for guide in guides], threading.Lock()
    answers: dict[str, Callable[[Guide, Any], Any]] = {"story": _story, "along": _along, "search": _search}

    def api(request: Request) -> Response:
        answer, number = answers.get(request.path_params["what"]), request.path_params["policy"]
        if answer is None or number >= len(guides):
            return JSONResponse({"error": "there is no such address here"}, 404)
        try:
            with one_at_a_time:
                return JSONResponse(answer(guides[number], request.query_params))
        except InputError as error:
            return JSONResponse({"error": str(error)}, 400)

    def text(content: str, kind: str) -> Callable[[Request], Response]:
        return lambda request: Response(content, media_type=kind, headers=HEADERS)

    return Starlette(
        routes=[
            Route("/", text(served(walks), "text/html")),
            Route(f"/{STYLE}", text(asset(STYLE), "text/css")),
            *(Route(f"/{name}", text(asset(name), "text/javascript")) for name in SCRIPTS),
            Route("/api/meta", lambda request: JSONResponse(meta(walks, command))),
            Route("/api/{policy:int}/{what}", api),
        ]
    )


def _story(guide: Guide, asked: Any) -> Any:
    return asdict(guide.story)


def _along(guide: Guide, asked: Any) -> Any:
    """The nodes on a path, those before number `from` left out."""
    first = asked.get("from", "0")
    if not (first.isascii() and first.isdigit() and len(first) < 6):
        raise InputError("from", value=first, allowed=f"0 to {MAX_STEPS}")
    trail = guide.walk.follow(parse_path(asked.get("path", "")))
    return {"nodes": [node(guide.walk, state) for state in trail.states[int(first) :]]}


def _search(guide: Guide, asked: Any) -> Any:
    found = guide.search(asked.get("expression", ""))
    return {"path": found.path, "message": found.message}


def _without(package: str) -> InputError:
    return InputError(
        f"{package} is not installed",
        allowed=f"the extra `web`: {install('web')}",
        cause="--serve needs it; --path, --goto and --export do not",
    )


def serve(guides: Sequence[Guide], command: str, host: str, port: int, said: Callable[[str], None]) -> None:
    """Serve until interrupted. Calls `said` with the address once it answers and an interrupt ends it. Raises
    InputError if it cannot listen."""
    try:
        import uvicorn
    except ImportError:
        raise _without("uvicorn") from None
    app = application(guides, command)
    what, allowed = f"cannot listen on {host} port {port}", "a free port; --port 0 takes any"
    with contextlib.closing(listening(host, port, what, allowed)) as listener:

        class Server(uvicorn.Server):
            """Tells the address once the handlers of signals are installed: an interrupt before that can be lost."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                said(f"http://{address_of(host, listener)}/")

        Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)).run(sockets=[listener])
