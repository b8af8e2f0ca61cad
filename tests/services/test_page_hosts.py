"""The page accepts only its own names in Host, at every listening address: another site's name is refused."""

import asyncio
import os
import threading
import time

import pytest

from services.lab.replays import KEPT_DAYS, MOST_SAVED, Replays
from services.lab.web import application


def test_saved_streams_expire(tmp_path):
    line = b'{"group":"g%d","id":"1-1","data":"","version":2}\n'
    replays = Replays(None, tmp_path)
    names = [replays.save(line % number)[0] for number in range(MOST_SAVED)]
    old = time.time() - KEPT_DAYS * 86_400 - 9
    for at, name in enumerate(names):
        os.utime(tmp_path / name, (old + 99 + at, old + 99 + at))
    os.utime(tmp_path / names[5], (old, old))
    assert replays.saved_groups(names[0]) == ["g0"], "opening it is using it"
    replays.save(line % 99)
    assert {file.name for file in tmp_path.iterdir()} >= {*names} - {names[5]} and not (tmp_path / names[5]).exists()
    replays.save(line % 100)
    assert not (tmp_path / names[1]).exists() and (tmp_path / names[0]).exists()
    os.utime(tmp_path / names[7], (old, old))
    Replays(None, tmp_path)
    assert not (tmp_path / names[7]).exists()


@pytest.mark.parametrize("listens", ["127.0.0.1", "0.0.0.0", "::", "10.0.0.7"])
@pytest.mark.parametrize(
    ("name", "hosts", "code"),
    [
        ("127.0.0.1", "", 200),
        ("localhost:8080", "", 200),
        ("rebind.attacker.example", "", 400),
        ("lab.example", "", 400),
        ("lab.example", "x.example, lab.example", 200),
        ("rebind.attacker.example", "lab.example", 400),
    ],
)
def test_accepted_host_names(tmp_path, listens, name, hosts, code):
    app = application(Replays(None, tmp_path), None, listens, threading.Event(), hosts)
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"host", name.encode())]}
    sent = []

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == code
