"""Rights of each Redis user, on a real server: every role, every kind of key, reading and writing."""

import shutil

import pytest
import redis

from ultrafolio import redis_server
from ultrafolio.errors import InputError
from ultrafolio.state import acl
from ultrafolio.state.redis import RedisStore
from ultrafolio.state.sections import every_section, sections
from ultrafolio.state.store import Commit, Patch

# w reads and writes, r reads, a appends only, - neither; one column per user
TABLE = """
                        ultravisor  host  guest  lab  keeper
uf:{g}:uv               w           -     -      -    -
uf:{g}:seal             w           -     -      -    -
uf:{g}:kind             r           -     w      -    -
uf:{g}:pt               r           w     -      -    -
uf:{g}:mm               -           w     -      -    -
uf:{g}:vm               -           w     r      -    -
uf:{g}:task             -           w     -      -    -
uf:{g}:work             -           w     -      -    -
uf:{g}:thread           -           w     w      -    -
uf:{g}:wanted           -           w     w      -    -
uf:{g}:pc               r           w     w      -    -
uf:{g}:actor            -           r     w      -    -
uf:{g}:io               -           w     w      -    -
uf:{g}:meta             r           w     r      r    -
uf:{g}:turn             w           w     w      -    -
uf:{g}:journal          w           w     w      -    -
uf:{g}:did              w           w     w      -    -
uf:{g}:log              a           a     a      r    r
uf:{g}:poll             w           w     w      r    r
uf:{g}:bell             w           w     w      r    r
uf:{g}:checkpoint       -           -     -      r    w
uf:{g}:reply:ultravisor:1 w           -     -      -    -
uf:{g}:reply:host:1     -           w     -      -    -
uf:{g}:order:host       -           w     -      -    -
uf:{g}:owner:ultravisor w           -     -      -    -
uf:{g}:owner:host       r           w     r      -    -
uf:{g}:reply:guest:1    -           -     w      -    -
uf:groups               w           w     w      r    w
uf:deleted              r           r     r      -    w
uf:machine:storage      w           -     -      -    -
uf:ultravisor:x         w           -     -      -    -
uf:host:x               -           w     -      -    -
uf:guest:x              -           -     w      -    -
uf:lease:ultravisor:x   w           -     -      -    -
uf:lease:host:x         -           w     -      -    -
uf:lease:guest:x        -           -     w      -    -
uf:lease:lab:x          -           -     -      w    -
ultrafolio:{j}:done     -           -     -      w    -
ultrafolio              -           -     -      w    -
celery                  -           -     -      w    -
_kombu.binding.celery   -           -     -      w    -
unacked                 -           -     -      w    -
something:else          -           -     -      -    -
"""
TOUCHED = sections().touched
"""What each role touches of a group of s390."""
HEAD, *ROWS = [line.split() for line in TABLE.strip().split("\n")]
SETS = "uf:groups", "uf:deleted"
CELLS = [(user, key, right) for key, *rights in ROWS for user, right in zip(HEAD, rights, strict=True)]
SCRIPTS = {"get": "return redis.call('GET', {0})", "set": "return redis.call('SET', {0}, 'x')",
           "rpush": "return redis.call('RPUSH', {0}, 'x')", "llen": "return redis.call('LLEN', {0})",
           "smembers": "return redis.call('SMEMBERS', {0})", "sadd": "return redis.call('SADD', {0}, 'x')"}  # fmt: skip


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    folder = tmp_path_factory.mktemp("acl")
    passwords = acl.new_passwords()
    (folder / "users.acl").write_text(acl.acl_file(passwords))
    with redis_server.Server.start(folder, acl_file=folder / "users.acl") as running:
        clients = {user: redis.Redis.from_url(running.url_of(user, passwords[user])) for user in passwords}
        yield running, clients
        for client in clients.values():
            client.close()


@pytest.fixture
def keys(users):
    admin = users[1][acl.ADMIN]
    admin.flushall()
    for key, *_ in ROWS:
        if key.endswith(":log"):
            admin.rpush(key, "first")
        elif key in SETS:
            admin.sadd(key, "g")
        else:
            admin.set(key, "text")
    return users[1]


def allowed(call, *args):
    """Whether the server lets the user do it. A script's refusal is an error of the script."""
    try:
        call(*args)
    except redis.exceptions.NoPermissionError:
        return False
    except redis.exceptions.ResponseError as error:
        assert "ACL failure in script" in str(error)
        return False
    return True


def names(key):
    if key.endswith(":log"):
        return "llen", "rpush"
    return ("smembers", "sadd") if key in SETS else ("get", "set")


def test_the_table_has_every_section():
    assert {f"uf:{{g}}:{name}" for name in every_section()} <= {key for key, *_ in ROWS}
    assert set(HEAD) == set(acl.RIGHTS)


@pytest.mark.parametrize(("user", "key", "right"), CELLS)
def test_every_user_and_key(keys, user, key, right):
    client, admin = keys[user], keys[acl.ADMIN]
    read, write = names(key)
    before = admin.dump(key)
    writing = {"rpush": (key, "x"), "sadd": (key, "x"), "set": (key, "x")}[write]
    assert allowed(getattr(client, read), key) == (right in "rw")
    assert allowed(getattr(client, write), *writing) == (right in "wa")
    assert (admin.dump(key) != before) == (right in "wa")
    if right == "a":
        cuts = lambda k: client.ltrim(k, 1, 0), lambda k: client.xadd(k, {"d": "x"}, maxlen=0)
        for change in (*cuts, client.delete, lambda k: client.set(k, "x"), lambda k: client.rename(k, k + "2")):
            assert not allowed(change, key)


@pytest.mark.parametrize("where", ["KEYS[1]", "ARGV[1]"])
def test_a_script_may_do_no_more(keys, where):
    for user, key, right in CELLS:
        read, write = names(key)
        run, args = keys[user].eval, (1, key) if where == "KEYS[1]" else (0, key)
        assert allowed(run, SCRIPTS[read].format(where), *args) == (right in "rw"), (user, key)
        assert allowed(run, SCRIPTS[write].format(where), *args) == (right in "wa"), (user, key)


def test_the_store_commits_with_each_parts_rights(users):
    running, clients = users
    clients[acl.ADMIN].flushall()
    passwords = acl.new_passwords()
    for role in acl.PARTS:
        clients[acl.ADMIN].execute_command("ACL", "SETUSER", role, ">" + passwords[role])
        store = RedisStore(running.url_of(role, passwords[role]), role)
        mine = TOUCHED[role].writes if role != "guest" else ("actor",)
        assert store.create("h", dict.fromkeys(mine, b"0123"), b"made")
        store.close()
    for role in acl.PARTS:
        store, own = RedisStore(running.url_of(role, passwords[role]), role), TOUCHED[role].writes[0]
        read = {name: -1 for name in TOUCHED[role].reads}
        answer = store.commit("h", Commit("1", role, cached=read, patches=[Patch(own, 1, b"x")], events=[b"step"]))
        assert answer.status == "done" and answer.revisions[own] == 2 and store.read("h", [own]) == {own: b"0x23"}
        assert clients[acl.ADMIN].lindex("uf:{h}:log", -1)[8:] == b"step"
        with pytest.raises(redis.exceptions.NoPermissionError):
            list(store.events("h"))
        assert store.groups() == ["h"]
        for other in acl.PARTS:
            foreign = next((name for name in TOUCHED[other].writes if name not in TOUCHED[role].writes), None)
            if foreign:
                with pytest.raises(redis.exceptions.RedisError):
                    store.commit("h", Commit("2", role, patches=[Patch(foreign, 0, b"y")]))
        store.close()
    keys = [f"uf:{{h}}:{name}" for name in sections().dtypes]
    assert all(value[8:9] == b"0" for value in clients[acl.ADMIN].mget(keys))


@pytest.mark.parametrize("user", HEAD)
def test_no_other_command_reads(keys, user):
    client, secret = keys[user], "uf:{g}:seal" if user != "ultravisor" else "uf:{g}:mm"
    ways = [
        client.scan, client.keys, lambda: client.dump(secret), lambda: client.copy(secret, "celery2"),
        lambda: client.rename(secret, "uf:host:mine"), lambda: client.strlen(secret), lambda: client.type(secret),
        lambda: client.sort(secret), lambda: client.object("encoding", secret), lambda: client.execute_command("SYNC"),
        lambda: client.execute_command("MONITOR"), lambda: client.migrate("127.0.0.1", 1, secret, 0, 1),
        lambda: client.config_get("*"), lambda: client.acl_setuser(user, enabled=True, keys=["*"]), client.flushall,
        client.client_list, client.bgsave, lambda: client.execute_command("OBJECT", "FREQ", secret),
        lambda: client.execute_command("BITOP", "OR", "uf:host:mine", secret), lambda: client.getrange(secret, 0, 9),
        lambda: client.eval("return redis.pcall('GET', 'uf:{g}:" + secret[7:] + "')", 0),
    ]  # fmt: skip
    # the lab may look at the names of keys and at nothing in them, as Celery does
    names_only = ways[:1] if user == "lab" else []
    assert [way for way in ways if allowed(way)] == names_only


def test_the_default_user_is_off_and_a_wrong_password_gets_nothing(users):
    running, _ = users
    for url in (running.url, running.url_of("host", "guess"), running.url_of("nobody", "x")):
        with redis.Redis.from_url(url) as client, pytest.raises(redis.exceptions.AuthenticationError):
            client.ping()


def test_names_of_groups_cannot_reach_into_the_patterns(keys):
    crooked = "x}:reply:host:"
    keys[acl.ADMIN].set(f"uf:{{{crooked}}}:uv", "secret")
    assert allowed(keys["host"].get, f"uf:{{{crooked}}}:uv"), "why there is group_name"
    for name in (crooked, "", "a:b", "a{b", "a" * 65, "a\n", "*"):
        with pytest.raises(InputError, match="name of a folio group"):
            acl.group_name(name)
    assert acl.group_name("hang.03_x-1") == "hang.03_x-1"


def test_the_file_has_no_password():
    passwords = acl.new_passwords()
    text = acl.acl_file(passwords)
    assert len(set(passwords.values())) == len(passwords) and not any(word in text for word in passwords.values())
    with pytest.raises(InputError, match="some are missing"):
        acl.acl_file(passwords | {"host": ""})


@pytest.mark.parametrize("program", [redis_server.binary(), shutil.which("redis-server")], ids=["embedded", "redis"])
def test_a_restarted_server_knows_what_users_changed_in_transactions(program, tmp_path, monkeypatch):
    """Replaying its append-only file, a server is the user `default`, whose rights must not stand in the way."""
    if program is None:
        pytest.skip("no redis-server is installed; the embedded server is another one")
    monkeypatch.setattr(redis_server, "binary", lambda: program)
    passwords = acl.new_passwords()
    (tmp_path / "users.acl").write_text(acl.acl_file(passwords))
    with redis_server.Server.start(tmp_path, append_only=True, acl_file=tmp_path / "users.acl") as running:
        lab = redis.Redis.from_url(running.url_of("lab", passwords["lab"]))
        with lab.pipeline(transaction=True) as pipe:
            pipe.set("uf:lab:a", "1").set("uf:lab:b", "2").execute()
        running.kill()
        running.restart()
        assert lab.mget("uf:lab:a", "uf:lab:b") == [b"1", b"2"]
        lab.close()


def test_celerys_transport_works_with_the_labs_rights(users):
    users[1][acl.ADMIN].flushall()
    import kombu

    running, _ = users
    url = running.url.replace("unix://", "redis+socket://").replace("?db=0", "?virtual_host=0")
    password = acl.new_passwords()
    users[1][acl.ADMIN].execute_command("ACL", "SETUSER", "lab", ">" + password["lab"])
    head, _, path = url.partition("://")
    with kombu.Connection(f"{head}://lab:{password['lab']}@{path}") as connection:
        queue = connection.SimpleQueue("celery")
        queue.put({"cell": 1}, serializer="json")
        message = queue.get(timeout=5)
        assert message.payload == {"cell": 1}
        message.ack()
        queue.close()
