"""Hostile requests to every method, and hostile plans and scenarios: refused in words, within bounds."""

import contextlib
import os
import random
import re
import time
from functools import partial
from pathlib import Path

import grpc
import pytest

import memfd_cases
from running_cluster import ROOT, running
from services.common.probe import serving
from services.lab.jobs import Jobs
from test_fuzz_services import NOT_CLEAR, filled
from ultrafolio.errors import InputError
from ultrafolio.model import policies, scenario
from ultrafolio.model.layout import blank
from ultrafolio.rpc.client import connect
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import guest_pb2, host_mm_pb2, lab_pb2, ultravisor_pb2

METHODS = [
    (name, method)
    for name, file, service in (
        ("ultravisor", ultravisor_pb2, "UltravisorService"),
        ("host_mm", host_mm_pb2, "HostMmService"),
        ("guest", guest_pb2, "GuestService"),
        ("lab", lab_pb2, "LabService"),
    )
    for method in file.DESCRIPTOR.services_by_name[service].methods
]
LIMITS_MIB = {"ultravisor": 512, "host_mm": 512, "guest": 512, "lab": 2048}
"""As in docker-compose.yml."""
ROLES = ("lab", "host", "guest", "guest:0", "device")
EVERY = 200
"""Messages between two checks of the parts."""
SHORT_S = 2.0


def send(channel, method, messages):
    """Returns the status of a call with these bytes as its request or requests."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    try:
        if method.client_streaming:
            channel.stream_unary(path)(iter(messages), timeout=1)
        elif method.server_streaming:
            for number, _ in enumerate(channel.unary_stream(path)(messages[0], timeout=1)):
                if number > 20:
                    break
        else:
            channel.unary_unary(path)(messages[0], timeout=1)
    except StatusError as error:
        assert error.what and error.reason
        return error.code
    return grpc.StatusCode.OK


def changed(choose, data):
    """Returns a message's bytes, in a tenth of all cases with a damaged framing."""
    if not data or choose.random() < 0.9:
        return data
    at = choose.randrange(len(data))
    return choose.choice((data[:at], data[:at] + bytes([choose.randrange(256)]) + data[at + 1 :], data + data[at:]))


def queued(pids):
    """Returns for each thread of these processes the seconds for which it was ready to run and had no processor."""
    found = {}
    for pid in pids:
        for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                found[pid, file.parent.name] = int(file.read_text().split()[1]) / 1e9
    return found


def queued_since(before, pids):
    """Returns the seconds for which the thread of these processes that waited longest had no processor."""
    return max(seconds - before.get(thread, seconds) for thread, seconds in queued(pids).items())


def asked_shortly(lab, slowest, pids):
    """Each part answers a short call. Returns the seconds of the slowest, without those for which other programs had
    the processor that a part, the store or this test asked for."""
    calls = (lambda: lab.ultravisor.HostKey(ultravisor_pb2.HostKeyRequest(), timeout=60),
             lambda: lab.host.Explain(host_mm_pb2.ExplainRequest(group="fuzzed"), timeout=60),
             lambda: lab.guest.Touch(guest_pb2.TouchRequest(group="nobody"), timeout=60),
             lambda: lab.lab.ListGroups(lab_pb2.ListGroupsRequest(), timeout=60))  # fmt: skip
    for call in calls:
        before, begun = queued(pids), time.monotonic()
        try:
            call()
        except StatusError as error:
            assert error.code not in (*NOT_CLEAR, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), error
        seconds = time.monotonic() - begun
        slowest = max(slowest, seconds - queued_since(before, pids))
    return slowest


def laid_out(lab, choose, group):
    """Lay out a group: of blank pages, or a drawn scenario of one of the designs. Returns its name."""
    if choose.random() < 0.3:
        lab.lay_out_state(group, blank(8, 2, 1), [], "a group to be fuzzed")
    elif choose.random() < 0.5:
        lab.lay_out(group, memfd_cases.system(*choose.choice(memfd_cases.SHIPPED)), "a group to be fuzzed")
    else:
        story = scenario.read(choose.choice(sorted((ROOT / "scenarios").glob("*.toml"))))
        policy = policies.find_any(choose.choice(list(policies.PRESETS)), story.tables)
        lab.lay_out(group, scenario.system(story, policy), "a group to be fuzzed")
    return group


def fuzz(folder, seed, number):
    """Send `number` messages. Returns {codes, MiB per part, seconds of the slowest short call}."""
    choose, codes, slowest = random.Random(seed), {}, 0.0
    with running(folder) as where, Cluster.at(where) as lab:
        groups: list[str] = []
        at = {part["service"]: part for part in where["services"]}
        store = int(lab.store._client.info("server")["process_id"])
        pids = [os.getpid(), store, *(int(part["pid"]) for part in at.values())]
        channels = {(name, role): connect(part["address"], role) for name, part in at.items() for role in ROLES}
        for count in range(number):
            if count % EVERY == 0:
                slowest = asked_shortly(lab, slowest, pids)
                groups = [*groups[-2:], laid_out(lab, choose, f"fuzzed-{count}")]
            name, method = choose.choice(METHODS)
            shape = method.input_type._concrete_class
            messages = [
                changed(choose, filled(choose, shape, choose.choice(groups)).SerializeToString())
                for _ in range(choose.randrange(1, 4) if method.client_streaming else 1)
            ]
            code = send(channels[name, choose.choice(ROLES)], method, messages)
            assert code not in NOT_CLEAR, (count, method.name, messages)
            codes[code.name] = codes.get(code.name, 0) + 1
        peaks = {}
        for name, part in at.items():
            assert serving(part["address"]), name
            text = Path(f"/proc/{part['pid']}/status").read_text()
            peaks[name] = int(re.search(r"VmHWM:\s+(\d+)", text)[1]) >> 10
            assert peaks[name] < LIMITS_MIB[name]
        for channel in channels.values():
            channel.close()
    print(codes, peaks, f"slowest short call {slowest:.2f} s")
    return codes, slowest


def test_requests_to_every_method(tmp_path):
    codes, _ = fuzz(tmp_path, 14, 1500)
    assert codes["OK"] > 30 and codes["INVALID_ARGUMENT"] > 300 and codes["PERMISSION_DENIED"] > 200


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_requests_to_every_method_for_long(tmp_path):
    _, slowest = fuzz(tmp_path, 100_000, 100_000)
    assert slowest < SHORT_S


# ------------------------------------------------------------------------------------------ plans and scenarios
SNIPPETS = [
    "0-2000000000", "-1", "1e400", "nan", "9" * 400, '"\\u0000"', "[]", "{}", "[[skip]]", "[grid]", "'''", "= ", "\n",
    'touches = "/etc/shadow"', 'touches = "../../../../etc/shadow"', 'seed = "0-999999999999"', "[" * 300, "{a={b={}}}",
    "1979-05-27", "true", '"../recordings/x"', "\u202e", '"=SUM(1)"', "folios = [40]", "starts = 4294967296",
    ".a" * 900, "[x" + ".a" * 20 + "]\n", "x" + ".a" * 5000 + "=1\n",
]  # fmt: skip


def mutant(choose, text, others):
    """Returns a text with one to four faults."""
    for _ in range(choose.randrange(1, 5)):
        at, to = sorted(choose.randrange(len(text) + 1) for _ in range(2))
        to = min(to, at + 40)
        words = re.findall(r"[\w.]+", text) or ["x"]
        word, other, snippet = choose.choice(words), choose.choice(words), choose.choice(SNIPPETS)
        text = choose.choice(
            (
                text[:at] + text[to:],
                text[:to] + text[at:],
                text[:at] + snippet + text[to:],
                text.replace(word, snippet, 1),
                text.replace(word, other, 1),
                text[:at] + choose.choice(others)[:200] + text[at:],
            )
        )
    return text


def refused(read, texts, choose, number):
    """Returns the numbers of mutants refused, each with an InputError, and accepted."""
    counts = [0, 0]
    for _ in range(number):
        text = mutant(choose, choose.choice(texts), texts)
        try:
            read(text)
        except InputError as error:
            assert error.what
            assert "root:" not in str(error), "a line of another file"
            counts[0] += 1
        else:
            counts[1] += 1
    return counts


def plans(folder, seed, number):
    jobs = Jobs(folder / "sweeps", "unix:///nowhere")
    texts = [file.read_text() for file in sorted((ROOT / "sweeps").glob("*.toml"))]
    return refused(partial(tried, jobs), texts, random.Random(seed), number)


def tried(jobs, text):
    """Check a plan as the lab does, without making it a job."""
    folder = jobs._folder / "0123456789abcdef"
    jobs._tried(text, folder)
    folder.rmdir()


def scenarios(folder, seed, number):
    texts = [file.read_text() for file in sorted((ROOT / "scenarios").glob("*.toml"))]

    def read(text):
        (folder / "s.toml").write_text(text, encoding="utf-8")
        scenario.read(folder / "s.toml")

    return refused(read, texts, random.Random(seed), number)


@pytest.mark.parametrize("kind", [plans, scenarios])
def test_hostile_texts_are_refused_in_words(tmp_path, kind):
    bad, good = kind(tmp_path, 7, 400)
    assert bad > 200 and good > 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", [plans, scenarios])
def test_hostile_texts_for_long(tmp_path, kind):
    bad, good = kind(tmp_path, 10_000, 5000)
    print(kind.__name__, bad, good)
    assert bad > 1000 and good > 20
