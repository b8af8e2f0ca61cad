"""The parts of a sweep on Celery, each alone: chunks, result stores, a worker's decisions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs
from redis import Redis

from celery_workers import PLAN
from fake_cells import FAKE, FakeCells, make_plan, run
from ultrafolio.errors import InputError
from ultrafolio.redis_server import Server
from ultrafolio.sweep.distributed import chunking, worker
from ultrafolio.sweep.distributed.chunking import MAX_CHUNKS, MIN_CHUNKS, Sample, cut, measure, spread
from ultrafolio.sweep.distributed.job import Job, Record
from ultrafolio.sweep.distributed.result_store import FolderResults, ObjectResults, RedisResults, checked
from ultrafolio.sweep.distributed.worker import MAX_CELL_STARTS, MAX_CHUNK_STARTS, Refused, Worker, tallies_of
from ultrafolio.sweep.planfile import load
from ultrafolio.sweep.work import Work

SPANS = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 400)), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def client():
    with Server.start() as server, Redis.from_url(server.url) as client:
        yield client


def ranges(steps):
    """Ascending ranges with gaps, from pairs of gap and length."""
    found, at = [], 0
    for gap, length in steps:
        found.append(range(at + gap, at + gap + length))
        at += gap + length
    return found


@settings(max_examples=200, deadline=None)
@given(SPANS, st.lists(st.floats(0, 3), max_size=8), st.floats(0.01, 5))
def test_chunks_hold_every_index_once_and_in_order(steps, costs, target):
    spans = ranges(steps)
    indices = [index for span in spans for index in span]
    places = sorted(spread(spans, len(costs)))
    samples = [Sample(index, cost) for index, cost in zip(places, costs, strict=False)]
    chunks = cut(spans, samples, target)
    assert [index for spans in chunks for span in spans for index in span] == indices
    assert all(chunks), "no chunk is empty"


def test_chunks_last_equally_long_where_cells_do_not():
    samples = [Sample(250, 0.001), Sample(750, 0.1)]
    chunks = cut([range(1000)], samples, 2.0)
    seconds = [sum(0.001 if index < 501 else 0.1 for span in spans for index in span) for spans in chunks]
    assert max(seconds[:-1]) < 1.2 * min(seconds[:-1]) and 1 < max(seconds) < 2.2


@pytest.mark.parametrize(
    ("cells", "cost", "fewest", "most"),
    [
        (1_000_000, 1e-3, 490, 510),
        (1_000_000, 1.0, MAX_CHUNKS // 2, MAX_CHUNKS),
        (1000, 0.01, MIN_CHUNKS, MIN_CHUNKS + 2),
        (5, 1e-6, 1, 1),
    ],
)
def test_the_number_of_chunks(cells, cost, fewest, most):
    assert fewest <= len(cut([range(cells)], [Sample(0, cost)])) <= most


@settings(max_examples=100, deadline=None)
@given(SPANS, st.integers(1, 40))
def test_samples_are_spread_and_distinct(steps, number):
    spans = ranges(steps)
    found = list(spread(spans, number))
    assert len(found) == len(set(found)) == min(number, sum(map(len, spans)))
    assert all(any(index in span for span in spans) for index in found)


def test_cells_are_timed_in_a_process_that_may_die_or_hang(tmp_path, monkeypatch):
    monkeypatch.setattr(chunking, "CELL_TIMEOUT", 0.5)
    for trouble in ("kill = 1", "hang = 1"):
        text = f'[fixed]\nsleep_ms = 1\n{trouble}\n[grid]\npolicy = ["per-page"]\nseed = "1-9"'
        plan = load(make_plan(tmp_path, text))
        assert measure(Work(plan, FAKE, {}), [range(plan.size)]) == [Sample(0, 0.5)]
    plan = load(make_plan(tmp_path, '[fixed]\nsleep_ms = 20\n[grid]\npolicy = ["per-page"]\nseed = "1-9"'))
    samples = measure(Work(plan, FAKE, {}), [range(plan.size)])
    assert len(samples) > 3 and all(sample.seconds > 0.02 for sample in samples)


@pytest.mark.parametrize("kind", ["redis", "folder", "bucket"])
def test_a_deposit_keeps_returns_and_forgets(tmp_path, client, kind):
    def place(name):
        if kind == "redis":
            return RedisResults(client, f"ultrafolio:{{{name}}}:")
        if kind == "folder":
            return FolderResults(tmp_path / name)
        return ObjectResults(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), f"bucket/{name}")

    one, other = place("one"), place("other")
    one.put("a", b"\0data")
    one.put("b", b"")
    other.put("a", b"others'")
    assert (one.get("a"), one.get("b"), one.get("c")) == (b"\0data", b"", None)
    one.remove("a")
    one.remove("c")
    assert one.get("a") is None
    one.clear()
    one.clear()
    assert one.get("b") is None and other.get("a") == b"others'"


def test_a_deposit_of_no_known_kind_is_bad_input(tmp_path):
    assert checked("redis:") == "redis:" and checked(str(tmp_path)) == tmp_path.as_uri()
    with pytest.raises(InputError, match="unknown kind of result store"):
        checked("carrier-pigeon://loft")


class One:
    """A job of one chunk, and a worker for it."""

    def __init__(self, folder, client, name, text=PLAN, probe=None):
        self.plan = load(make_plan(folder, text))
        record = Record(str(self.plan.path), text, "engine-1", FAKE.COLUMNS, 1, 1, "redis:", probe or {})
        self.spans = [(0, self.plan.size)]
        self.job, self.client, self.record = Job(client, name), client, record
        self.job.submit(record, [self.spans])
        self.worker = Worker("me", FAKE, "engine-1")

    def work(self):
        try:
            return self.worker.work(self.job, 0, self.spans)
        finally:
            self.worker.end()

    def starts(self):
        return int(self.client.hget(f"ultrafolio:{{{self.job.name}}}:starts", 0) or 0)


def test_a_chunk_is_committed_once(tmp_path, client):
    one = One(tmp_path, client, "once")
    assert [one.work(), one.work()] == ["committed", "done before"]
    (end,) = one.job.log(0)
    tallies = tallies_of(one.job.result_store(one.record).get(end.part))
    assert sum(t.computed for t in tallies) == end.computed == one.plan.count == one.job.progress().computed
    one.job.undo_commit(end)
    one.job.undo_commit(end)
    assert one.job.progress().computed == 0 and one.work() == "committed"
    client.set("ultrafolio:{once}:state", "revoked")
    assert one.work() == "job is gone"


def test_two_workers_with_one_chunk_commit_it_once(tmp_path, client, monkeypatch):
    one, parts = One(tmp_path, client, "twice"), []
    real = Job.commit

    def late(job, end):
        if not parts:
            parts.append(end.part)
            one.worker.end()
            other = Worker("other", FAKE, "engine-1")
            assert other.work(job, 0, one.spans) == "committed"
            other.end()
        return real(job, end)

    monkeypatch.setattr(Job, "commit", late)
    assert one.work() == "committed by another"
    assert len(one.job.log(0)) == 1 and one.job.log(0)[0].worker == "other"
    assert one.job.result_store(one.record).get(parts[0]) is None, "the part that does not count is removed"


def test_errors_of_the_worker_are_not_blamed_on_cells(tmp_path, client, monkeypatch):
    one = One(tmp_path, client, "errors")
    monkeypatch.setattr(worker, "WorkerPool", lambda *_: 1 / 0)
    for _ in range(2 * MAX_CHUNK_STARTS):
        with pytest.raises(ZeroDivisionError):
            one.work()
    monkeypatch.undo()
    assert one.starts() == 0 and one.work() == "committed" and one.job.progress().failed == 7


def test_a_cell_that_takes_whole_workers_with_it_is_found_and_fails(tmp_path, client):
    """Supervisors die with their processes here: only what Redis counts is left of each attempt."""
    text = '[fixed]\nsleep_ms = 0\n[grid]\npolicy = ["per-page"]\nseed = "1-6"'
    one = One(tmp_path, client, "suspect", text)
    for _ in range(MAX_CHUNK_STARTS):
        one.job.start(0)
    for _ in range(MAX_CELL_STARTS):
        one.job.enter_cell(3)
    assert one.work() == "committed"
    (end,) = one.job.log(0)
    assert (end.computed, end.failed) == (6, 1)
    run(one.plan.path, tmp_path / "store", cells=FakeCells())
    tallies = tallies_of(one.job.result_store(one.record).get(end.part))
    assert [t.failed for t in tallies] == [0, 0, 0, 1, 0, 0]


def test_refusals(tmp_path, client):
    one = One(tmp_path, client, "refused")
    for engine, columns, says in (("engine-2", FAKE.COLUMNS, "its rules are engine-2"), ("engine-1", {}, "columns")):
        cells = FakeCells()
        cells.COLUMNS = columns
        with pytest.raises(Refused, match=says):
            Worker("old", cells, engine).work(one.job, 0, one.spans)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/recording.txt").write_text("another")
    key = Work(one.plan, FAKE, {}, "engine-1").key(one.plan.cell(0))[0]
    told = One(tmp_path, client, "recording", probe={"0": key})
    with pytest.raises(Refused, match="what the plan names differs there"):
        Worker("there", FAKE, "engine-1", tmp_path / "elsewhere").work(told.job, 0, told.spans)
    assert told.work() == "committed"
    assert one.job.progress().chunks == 0 and one.starts() == 0


def test_the_figures_of_the_guide_are_those_of_the_code():
    # docs/big-sweeps.md says them in words
    from ultrafolio.sweep.distributed import broker, chunking, queue
    from ultrafolio.sweep.local import processes

    assert (chunking.CHUNK_SECONDS, chunking.MIN_CHUNK_SECONDS) == (2.0, 0.1)
    assert (chunking.MIN_CHUNKS, chunking.MAX_CHUNKS) == (32, 20_000)
    assert (queue.QUIET_SECONDS, broker.VISIBILITY_SECONDS, broker.AWAY_SECONDS) == (20, 900, 60)
    assert processes.MAX_DEATHS == 2
    assert broker.QUEUE == "ultrafolio"
