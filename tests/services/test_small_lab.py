"""A lab that runs for long stays small: polling is stored once, streams are cut, groups are archived and deleted."""

import json
import time
import urllib.request
from pathlib import Path

import grpc
import pytest

from running_cluster import ROOT, running
from services.lab import retention
from services.lab.replay import GroupReplay
from ultrafolio.cli import main as ultrafolio
from ultrafolio.commands.validate import stored
from ultrafolio.conformance.suite import build
from ultrafolio.errors import InputError
from ultrafolio.model import scenario
from ultrafolio.model.policies import find
from ultrafolio.rpc.client import stamp
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.v1 import common_pb2, guest_pb2, lab_pb2
from ultrafolio.state import checkpoint, validate
from ultrafolio.state.events import Again, Kept, Steps, decode, encode
from ultrafolio.state.redis import RedisStore
from ultrafolio.state.store import Event

MANY = {
    "memory": {"folios": [0, 0], "state": ["secure", "secure"]},
    "vcpu": [{"touch": [0], "share": [1], "unshare": [1], "starts": 255}],
}


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    with running(tmp_path_factory.mktemp("c")) as where:
        yield where


@pytest.fixture(scope="module")
def lab(where):
    with Cluster.at(where) as lab:
        yield lab


def hang(lab, name, seconds):
    """A group in which a vCPU polled for `seconds`."""
    story = scenario.read(ROOT / "scenarios/25-reboot-with-device.toml")
    lab.lay_out(name, scenario.system(story, find("whole-folio", story.tables)), story.title)
    lab.guest.Configure(stamp(guest_pb2.ConfigureRequest(group=name, actor=1, page=0)))
    touch = stamp(guest_pb2.TouchRequest(group=name, actor=0, page=1))
    assert lab.guest.Touch(touch, timeout=seconds).outcome == common_pb2.OUTCOME_WAITS


def share(lab):
    lab.guest.Share(stamp(guest_pb2.ShareRequest(group="cut", actor=0, page=1)))


def code(*words):
    """The command's exit code."""
    with pytest.raises(SystemExit) as ended:
        ultrafolio(words)
    return ended.value.code


def entries(lab, name):
    return [decode(event.data) for event in lab.store.history(name)]


def accepted(lab, name, events=None):
    verdict = validate.validate(events or lab.store.history(name), stored(lab.store, name))
    assert verdict.accepted, (verdict.at, verdict.why)
    return verdict


def test_rounds_of_polling_are_stored_once_with_their_number(lab):
    hang(lab, "short", 1.5)
    hang(lab, "long", 6)
    short, long = lab.store.length("short"), lab.store.length("long")
    assert long <= short + 1, "what is stored hardly depends on how long the vCPU hangs"
    again = [one for one in entries(lab, "long") if isinstance(one, Again)]
    assert [one.rounds for one in again][:2] == [1, 8] and len(again) <= 3
    assert accepted(lab, "long").steps > accepted(lab, "short").steps
    lab.guest.Reboot(stamp(guest_pb2.RebootRequest(group="long", actor=2)))
    made = entries(lab, "long")
    assert sum(isinstance(one, Again) for one in made) <= 3 and isinstance(made[-1], Steps)
    accepted(lab, "long")


def test_a_number_of_rounds_that_is_too_large_for_what_they_do_is_refused(lab):
    hang(lab, "liar", 1)
    events = list(lab.store.history("liar"))
    for again in (Again(65, 1), Again(0, 1), Again(1, 0), Again(1, 1 << 40), Again(len(events), 1)):
        lied = [*events[:-1], Event("9-0", encode(again))]
        assert not validate.validate(lied).accepted, again
    # not a round: its repetition leads to another state, and the rules refuse it
    assert not validate.validate([*events[:4], Event("9-0", encode(Again(1, 2)))]).accepted


def test_a_stream_is_cut_to_a_window_and_validate_starts_at_its_checkpoint(lab, where, capsys):
    lab.lay_out_state("cut", build("per-page", **MANY).state, [], "many shares")
    for _ in range(30):
        share(lab)
        lab.guest.Unshare(stamp(guest_pb2.UnshareRequest(group="cut", actor=0, page=1)))
    whole = list(lab.store.history("cut"))
    before = accepted(lab, "cut", whole)
    assert checkpoint.cut(lab.store, "cut", 5, len(whole)) == "" and list(lab.store.history("cut")) == whole
    assert checkpoint.cut(lab.store, "cut", 5, 5) == ""
    left = list(lab.store.history("cut"))
    assert len(left) == 6 and isinstance(decode(left[0].data), Kept) and left[1:] == whole[-5:]
    assert accepted(lab, "cut", left).steps == before.steps
    assert list(lab.store.events("cut", whole[2].id))[0] == left[0], "a place that was cut off leads to the checkpoint"
    assert list(lab.store.events("cut", left[2].id)) == left[3:]
    replay = GroupReplay("cut")
    replay.feed(left)
    other = GroupReplay("cut")
    other.feed(whole)
    assert replay.error is None and len(replay.frames) == 5
    assert (replay._codes.codes == other._codes.codes).all()
    share(lab)
    accepted(lab, "cut")
    assert code("trace", "validate", where["redis"], "--group", "cut") == 0
    assert "accepted" in capsys.readouterr().out
    assert code("trace", "groups", where["redis"], "--cut", "cut", "--window", "1") == 0
    assert lab.store.length("cut") == 1
    accepted(lab, "cut")


def test_what_the_rules_refuse_is_not_cut(lab):
    hang(lab, "odd", 1)
    client = lab.store._client
    entry = client.lrange("uf:{odd}:log", 3, 3)[0]
    for _ in range(20):
        client.rpush("uf:{odd}:log", entry)
    assert "refuse" in checkpoint.cut(lab.store, "odd", 2, 2)
    assert not client.exists("uf:{odd}:checkpoint")


class Log(list):
    def warning(self, what, **more):
        self.append((what, more))


def kept_by(store, monkeypatch, until):
    """What a keeper logs, that looks at streams of more than four entries until something came about."""
    monkeypatch.setattr(retention, "EVERY_S", 0.05)
    monkeypatch.setattr(retention.checkpoint.cut, "__defaults__", (2, 4))
    log, one = Log(), retention.Retention(store, None)
    one.start_cutting(log)
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)
    one.close()
    return log


@pytest.mark.parametrize(
    ("name", "entry", "why"),
    [
        ("garbled", b"\0" * 8 + b"nonsense", "is no entry of a stream"),
        ("lying", b"", "the rules refuse entry"),
    ],
)
def test_why_a_stream_is_not_cut_is_listed_and_the_others_are_cut(lab, where, monkeypatch, capsys, name, entry, why):
    for group in (name, f"{name}-good"):
        hang(lab, group, 1)
    client = lab.store._client
    for _ in range(9):
        client.rpush(f"uf:{{{name}}}:log", entry or client.lrange(f"uf:{{{name}}}:log", 3, 3)[0])
    password = (Path(where["folder"]) / "redis/keeper.password").read_text().strip()
    store = RedisStore(f"unix://keeper:{password}@{where['redis'].split('@')[1]}", "keeper")
    log = kept_by(store, monkeypatch, lambda: name in lab.store.uncut() and lab.store.length(f"{name}-good") <= 4)
    assert [more["group"] for what, more in log if why in more["reason"]].count(name) == 1, "said once"
    sizes = {one.group: one.uncut for one in lab.lab.ListGroups(lab_pb2.ListGroupsRequest(sizes=True)).sizes}
    assert why in sizes[name] and sizes[f"{name}-good"] == ""
    assert code("trace", "groups", where["redis"]) == 0
    assert f"not cut, it grows: {sizes[name]}" in capsys.readouterr().out
    lab.lab.DeleteGroup(lab_pb2.DeleteGroupRequest(group=name, archive=True))
    assert name not in lab.store.uncut()


@pytest.mark.parametrize("user", ["guest", "host", "ultravisor", "lab"])
def test_a_parts_own_user_cannot_cut_a_stream(lab, where, user):
    hang(lab, f"of-{user}", 1)
    group, log = f"of-{user}", f"uf:{{of-{user}}}:log"
    there = lab.store._client.lrange(log, 0, -1)
    password = (Path(where["folder"]) / f"redis/{user}.password").read_text().strip()
    store = RedisStore(f"unix://{user}:{password}@{where['redis'].split('@')[1]}", user)
    client = store._client
    for change in (
        lambda: client.ltrim(log, 1, 0),
        lambda: client.delete(log),
        lambda: client.lpop(log),
        lambda: client.xadd(log, {"d": "x"}, maxlen=0),
        lambda: client.set(f"uf:{{{group}}}:checkpoint", "x"),
        lambda: client.eval("return redis.call('LTRIM', KEYS[1], 1, 0)", 1, log),
        lambda: client.rename(log, log + "2"),
        lambda: store.delete(group),
    ):
        with pytest.raises(Exception, match=r"(?i)permission|ACL"):
            change()
    assert lab.store._client.lrange(log, 0, -1) == there


def test_groups_are_listed_archived_and_deleted(lab, where, tmp_path, capsys):
    hang(lab, "old", 1)
    sizes = {one.group: one for one in lab.lab.ListGroups(lab_pb2.ListGroupsRequest(sizes=True)).sizes}
    assert sizes["old"].entries == lab.store.length("old") and sizes["old"].bytes > 1000
    events = list(lab.store.history("old"))
    gone = lab.lab.DeleteGroup(lab_pb2.DeleteGroupRequest(group="old", archive=True))
    file = Path(where["folder"]) / "lab/archive" / gone.archive.file
    assert validate.read(file) == {"old": events} and gone.archive.entries == len(events)
    assert "old" not in lab.lab.ListGroups(lab_pb2.ListGroupsRequest()).groups
    assert not list(lab.store._client.scan_iter("uf:{old}:*", count=1000)) or all(
        b":reply:" in key for key in lab.store._client.scan_iter("uf:{old}:*", count=1000)
    )
    with pytest.raises(InputError) as caught:
        lab.guest.Touch(stamp(guest_pb2.TouchRequest(group="old", actor=0, page=1)), timeout=5)
    assert caught.value.code is grpc.StatusCode.NOT_FOUND
    with pytest.raises(InputError) as caught:
        hang(lab, "old", 1)
    assert caught.value.reason == "GROUP_EXISTS", "parts know the name: it is not used again"
    with pytest.raises(InputError):
        lab.lab.ArchiveGroup(lab_pb2.ArchiveGroupRequest(group="old"))


def test_the_command_does_the_same(lab, where, tmp_path, capsys):
    hang(lab, "mine", 1)
    url = where["redis"]
    assert code("trace", "groups", url, "--json") == 0
    assert "mine" in [json.loads(line)["group"] for line in capsys.readouterr().out.splitlines()]
    assert code("trace", "groups", url, "--archive", "mine", "--save", str(tmp_path / "m"), "--delete", "mine") == 0
    assert code("trace", "validate", str(tmp_path / "m")) == 0
    assert code("trace", "groups", url, "--delete", "mine") == 2


def test_the_page_does_the_same_and_for_itself_only(lab, where):
    hang(lab, "shown", 1)
    web = next(part["web"] for part in where["services"] if part["service"] == "lab")

    def ask(path, method, **headers):
        request = urllib.request.Request(web + path, method=method, headers=headers)
        try:
            return json.loads(urllib.request.urlopen(request, timeout=20).read())
        except urllib.error.HTTPError as error:
            return error.code

    assert ask("groups/shown/archive", "POST", **{"Content-Type": "text/plain"}) == 400
    assert ask("groups/shown", "DELETE", Host="rebind.attacker.example") == 400
    assert ask("groups/shown/archive", "POST", **{"Content-Type": "application/json"})["entries"] > 3
    assert ask("groups/shown", "DELETE") == {"deleted": "shown"}
    assert ask("groups/shown", "DELETE") == 400
    assert "shown" not in lab.store.groups()


class Away:
    """A store that does not answer the first two times, and has no group then."""

    def __init__(self):
        self.asked = 0

    def groups(self):
        self.asked += 1
        if self.asked < 3:
            raise ConnectionError("away")
        return []


def test_what_keeps_the_lab_from_cutting_is_logged_and_it_goes_on(monkeypatch):
    store = Away()
    log = kept_by(store, monkeypatch, lambda: store.asked >= 5)
    assert log == [("streams are not looked at", {"reason": "ConnectionError: away"})] * 2


def test_the_lab_cuts_by_itself(lab, monkeypatch):
    hang(lab, "kept", 1)
    kept_by(lab.store, monkeypatch, lambda: lab.store.length("kept") <= 4)
    accepted(lab, "kept")
