"""The page answers to names that are its own, wherever it listens: another site's name that leads here gets nothing."""

import asyncio
import threading

import pytest

from services.lab.films import Films
from services.lab.web import application


@pytest.mark.parametrize("listens", ["127.0.0.1", "0.0.0.0", "::", "10.0.0.7"])
@pytest.mark.parametrize(("name", "hosts", "code"), [
    ("127.0.0.1", "", 200), ("localhost:8080", "", 200), ("rebind.attacker.example", "", 400),
    ("lab.example", "", 400), ("lab.example", "x.example, lab.example", 200),
    ("rebind.attacker.example", "lab.example", 400),
])  # fmt: skip
def test_names_that_are_answered(tmp_path, listens, name, hosts, code):
    app = application(Films(None, tmp_path), None, listens, threading.Event(), hosts)
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"host", name.encode())]}
    sent = []

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == code
