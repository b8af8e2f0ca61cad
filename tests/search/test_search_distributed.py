"""A search on 1, 2 or 4 processes and on Celery, interrupted or not: the same verdicts. What a worker refuses."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

import ultrafolio as uf
from celery_workers import Workers
from fake_cells import FAKE, wait_for
from patience import NEVER
from ultrafolio import shipped
from ultrafolio.api.searching import Failed, Interrupted
from ultrafolio.commands.sweep import sweep as sweep_command
from ultrafolio.errors import Defect, InputError
from ultrafolio.model.scenario import document
from ultrafolio.redis_server import Server
from ultrafolio.search import cell, space, table
from ultrafolio.search import files as stored
from ultrafolio.search.asking.ask import PASSES, Answer
from ultrafolio.search.cell import Verdicts
from ultrafolio.sweep.cells import SEARCH
from ultrafolio.sweep.distributed.job import Job, Record
from ultrafolio.sweep.distributed.queue import Queue
from ultrafolio.sweep.distributed.ticket import read_ticket
from ultrafolio.sweep.distributed.worker import Refused, Worker
from ultrafolio.sweep.local.processes import InProcess
from ultrafolio.sweep.planfile import load, parse

FILES = ("g07-own-batch", "g42-never-delegated", "g38-removal-fails", "g39-guest-accepts-less")
GMEM = space.of("guest_memfd")


@pytest.fixture(scope="module")
def server():
    with Server.start() as found:
        yield found


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The answer of one process, and the folder of its tables."""
    folder = tmp_path_factory.mktemp("reference")
    return search(folder, workers=0).json(), files(folder)


def search(out, **options):
    return uf.search(*FILES, start="gmem-7.4", out=out, **options)


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


class Leaving(Queue):
    """A client that leaves after the first part."""

    def run(self, work, span, segment, stopped):
        computed = []

        def leaves():
            return stopped() or bool(computed)

        for tally in super().run(work, span, segment, leaves):
            computed.extend(range(tally.computed))
            yield tally


class OneByOne(InProcess):
    """This process, a scenario at a time, interrupted after so many."""

    def __init__(self, most):
        self.most = most

    def run(self, work, span, segment, stopped):
        computed = 0
        with segment("0") as own:
            for index in span:
                if computed < self.most:
                    tally = work.do(range(index, index + 1), own, stopped, lambda at: None)
                    computed += tally.computed
                    yield tally


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_processes_give_the_same_bytes(tmp_path, reference, workers):
    assert (search(tmp_path, workers=workers).json(), files(tmp_path)) == reference


def test_celery_gives_the_same_bytes(tmp_path, reference):
    """A Redis and two workers that the command starts and ends."""
    program = Path(sys.executable).with_name("ultrafolio")
    words = [program, "search", *FILES, "--from", "gmem-7.4", "--executor", "celery", "--workers", "2", "--json"]
    done = subprocess.run([*words, "--out", "out"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "queued are 4 cells" in done.stderr
    assert (done.stdout, files(tmp_path / "out")) == (reference[0] + "\n", reference[1])


def test_an_interrupted_search_on_celery_is_come_back_to(tmp_path, server, reference):
    out = tmp_path / "out"
    with Workers(server.url, tmp_path, 2):
        with pytest.raises(Interrupted) as left:
            search(out, executor=lambda folder: Leaving(folder, server.url, print))
        assert left.value.detached and len(list(out.glob("*.search"))) < len(FILES)
        ticket = read_ticket(left.value.detached)
        job = Job(Redis.from_url(server.url), ticket.job)
        wait_for(lambda: job.progress().computed == len(FILES))
        said = []
        found = search(out, executor=lambda folder: Queue(folder, server.url, said.append))
    assert said == [f"coming back to job {ticket.job}"]
    assert (found.json(), files(out)) == reference
    assert job.record() is None, "the last client cleans up"


def test_an_interrupted_search_asks_only_the_rest(tmp_path, reference, monkeypatch):
    asked, whole = [], table.fill
    monkeypatch.setattr(
        table, "fill", lambda made, story, *rest: (asked.append(story.title), whole(made, story, *rest))
    )
    with pytest.raises(Interrupted) as left:
        search(tmp_path, executor=lambda folder: OneByOne(2))
    assert left.value.detached is None
    first = asked.copy()
    (tmp_path / f"{FILES[0]}.search").unlink()  # as after a kill between the row and its table
    assert (search(tmp_path, workers=0).json(), files(tmp_path)) == reference
    assert len(first) == 2
    assert sorted(asked) == sorted(set(asked)) and len(asked) == len(FILES)


def test_ctrl_c_stores_what_is_computed_and_the_same_command_resumes(tmp_path):
    """The scenarios take seconds each in plain Python, so that Ctrl-C comes before their end."""
    program = str(Path(sys.executable).with_name("ultrafolio"))
    words = ["search", "29-lru-other-cpu", "14-first-import", "--workers", "1", "--out", "out", "--json"]
    client = subprocess.Popen([program, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, start_new_session=True)  # fmt: skip
    wait_for(lambda: list(tmp_path.glob(f"out/{stored.STORES}/*/segments/*.arrows")))
    os.killpg(client.pid, signal.SIGINT)
    _, err = client.communicate(timeout=NEVER)
    assert client.returncode == 130, err
    assert "what was computed is stored: repeat the command" in err
    assert [file.name for file in tmp_path.glob("out/*.search")] == ["29-lru-other-cpu.search"]


def test_a_folder_is_needed_for_celery():
    program = Path(sys.executable).with_name("ultrafolio")
    done = subprocess.run([program, "search", *FILES, "--executor", "celery"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--out DIR beside it" in done.stderr


class Broken(InProcess):
    """This process, in which a scenario's cells end so."""

    def __init__(self, text):
        self.text = text

    def run(self, work, span, segment, stopped):
        def row(index, *rest):
            made = whole(index, *rest)
            return made if index != 1 else type(made)(index, made.key, "failed", self.text, made.config, 0, {})

        whole, work.row = work.row, row
        return super().run(work, span, segment, stopped)


def test_a_scenario_that_kills_its_worker_is_named_and_asked_again(tmp_path, reference):
    with pytest.raises(Failed, match=r"g42-never-delegated: no verdicts[^$]*WorkerDied"):
        search(tmp_path, executor=lambda folder: Broken("WorkerDied: signal 9"))
    assert not list((tmp_path / stored.STORES).iterdir())
    assert (search(tmp_path, workers=0).json(), files(tmp_path)) == reference


def test_a_contradiction_in_a_worker_is_a_defect(tmp_path):
    with pytest.raises(Defect, match="contradict"):
        search(tmp_path, executor=lambda folder: Broken("Defect: two answers contradict each other"))


def test_verdicts_of_a_worker_are_held_against_what_is_known(tmp_path, monkeypatch):
    search(tmp_path, workers=0, require=["stuck=ignored"])
    known = GMEM.box([("stuck", ["ignored"]), ("convert", ["in-place"])])
    answer = GMEM.first_in(known), Answer(PASSES, known)
    monkeypatch.setattr(table, "fill", lambda made, *rest: made.answers.append(answer))
    with pytest.raises(Defect, match="contradict each other"):
        search(tmp_path, workers=0)


ZEROS = [0] * len(GMEM.axes)


@pytest.mark.parametrize(
    "answers",
    [
        *("", "no JSON", "[" * 5000, "[1]", "[]" + " " * 9_999),
        json.dumps([[ZEROS[1:], 2, "1", "", 0]]),
        json.dumps([[[9, *ZEROS[1:]], 2, "1", "", 0]]),
        json.dumps([[ZEROS, 7, "1", "", 0]]),
        json.dumps([[ZEROS, 2, f"{GMEM.full + 1:x}", "", 0]]),
        json.dumps([[ZEROS, 2, 1, "", 0]]),
    ],
)
def test_what_is_no_verdict_is_refused(tmp_path, answers, monkeypatch):
    monkeypatch.setattr(stored, "LARGEST", 10_000)

    class Odd(InProcess):
        def run(self, work, span, segment, stopped):
            work.cells.run = lambda config, base: {"answers": answers}
            return super().run(work, span, segment, stopped)

    with pytest.raises(Failed, match="what was computed is no verdict"):
        search(tmp_path, executor=lambda folder: Odd())


# ----------------------------------------------------------------------------------------------------- the plan
def stories(design):
    made = [(file.stem, uf.Scenario.find(file).story) for file in shipped.shipped("scenarios", below=True)]
    return [(name, story) for name, story in made if story.design == design]


@pytest.mark.parametrize("design", ["s390", "guest_memfd"])
def test_the_plan_holds_every_scenario_as_it_is(design):
    of, some = space.of(design), stories(design)
    box = of.full & ~of.axes[0].bit(0)
    plan = parse(cell.plan(some, of, box, 4_000), Path("p.toml"), [SEARCH])
    assert plan.count == len(some)
    for (_, story), (_, point) in zip(some, plan.cells(), strict=True):
        made = Verdicts("").resolve(plan.handed(point), Path("/nowhere"))
        assert made["scenario"] == document(story)
        assert of.box(made["within"].items()) == box
        assert made["max_states"] == 4_000


def test_a_name_may_hold_any_character():
    story = stories("guest_memfd")[0][1]
    plan = parse(cell.plan([('a"b\\\x7f\u2028é\n', story)], GMEM, GMEM.full, 9), Path("p.toml"), [SEARCH])
    assert [point["scenario"] for _, point in plan.cells()] == ['a"b\\\x7f\u2028é\n']


def test_a_sweep_refuses_the_plan_of_a_search(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(cell.plan(stories("guest_memfd")[:2], GMEM, GMEM.full, 9))
    with pytest.raises(InputError, match="ultrafolio search"):
        load(path)
    with pytest.raises(InputError, match="another kind"):
        sweep_command.main(["run", str(path), "--no-report"], standalone_mode=False)


def resolved(story, within=None, **axes):
    tables = {"scenario": {"one": story}, "within": within or {}}
    return Verdicts("").resolve({"scenario": "one", "tables": tables, **axes}, Path("/"))


@pytest.mark.parametrize(
    "story, within, axes, said",
    [
        (3, {}, {}, "a scenario of a search"),
        ({"memory": {"folios": [0]}, "policy": {"x": {"base": "/etc/passwd"}}}, {}, {}, "memory, features and actors"),
        ({"memory": {"folios": [0]}, "vcpu": [{}] * (cell.MOST_ACTORS + 1)}, {}, {}, "at most 64"),
        ({"memory": {"folios": [9] * 9}, "vcpu": [{}]}, {}, {}, "at most 4,096"),
        ({"memory": {"folios": [10**9]}, "vcpu": [{}]}, {}, {}, "at most 4,096"),
        ({"memory": 1, "vcpu": [{}]}, {}, {}, "memory"),
        ({"memory": {"folios": [0]}, "vcpu": [{}]}, {"refs": "folio"}, {}, "a list of words"),
        ({"memory": {"folios": [0]}, "vcpu": [{}]}, {"size": ["1"]}, {}, "no choice"),
        ({"memory": {"folios": [0]}, "vcpu": [{}]}, {"refs": ["none"]}, {}, "no value"),
        ({"memory": {"folios": [0]}, "vcpu": [{}]}, {}, {"max_states": 0}, "max_states"),
        ({"memory": {"folios": [0]}, "vcpu": [{}]}, {}, {"workload": "x"}, "unknown field"),
        ({"memory": {"folios": [0]}, "vcpu": [{}]}, {}, {"scenario": "/etc/passwd"}, "scenario"),
    ],
)
def test_what_a_plan_may_not_hold(story, within, axes, said):
    with pytest.raises(InputError, match=said):
        resolved(story, within, **axes)


def job_of(client, name, text, engine):
    record = Record("/nowhere/plan.toml", text, engine, Verdicts("").COLUMNS, 1, 1, "redis:", {"0": ""}, asks=SEARCH)
    job = Job(client, name)
    job.submit(record, [[(0, 1)]])
    return job


@pytest.mark.parametrize(
    "change, said",
    [
        (
            ('"g01-to-private" = {', '"g01-to-private" = {"policy" = {"x" = {"base" = "SECRET#x"}}, '),
            "a scenario of a search",
        ),
        (('asks = "search"', 'asks = "runs"'), "another kind"),
        (('"scenario" = ["g01-to-private"]', '"scenario" = ["SECRET"]'), "scenario"),
    ],
)
def test_a_worker_opens_no_file_for_a_search_and_quotes_none(tmp_path, server, change, said):
    secret = tmp_path / "secret.toml"
    secret.write_text('[policy.x]\nrefs = "hidden words"\n')
    some = [one for one in stories("guest_memfd") if one[0] == "g01-to-private"]
    text = cell.plan(some, GMEM, GMEM.full, 9)
    assert change[0] in text
    changed = text.replace(change[0], change[1].replace("SECRET", str(secret)))
    engine = Verdicts("").engine_digest()
    with Redis.from_url(server.url) as client:
        job = job_of(client, said.replace(" ", "-"), changed, engine)
        with pytest.raises(Refused) as refused:
            Worker("me", FAKE, "engine-1", searches=engine).work(job, 0, [(0, 1)])
    assert said in str(refused.value)
    assert "hidden" not in str(refused.value)


def test_a_worker_with_other_rules_refuses_a_search(server):
    with Redis.from_url(server.url) as client:
        job = job_of(client, "rules", cell.plan(stories("guest_memfd")[:1], GMEM, GMEM.full, 9), "others")
        with pytest.raises(Refused, match="its rules are mine, the job's are others"):
            Worker("me", FAKE, "others", searches="mine").work(job, 0, [(0, 1)])


def test_the_status_of_a_search(tmp_path):
    """sweep status counts the scenarios of a search that is under way; attaching is refused."""
    with pytest.raises(Interrupted):
        search(tmp_path, executor=lambda folder: OneByOne(1))
    (store,) = (tmp_path / stored.STORES).iterdir()
    program = Path(sys.executable).with_name("ultrafolio")
    done = subprocess.run([program, "sweep", "status", store, "--json"], capture_output=True, text=True)
    assert (json.loads(done.stdout)["ok"], json.loads(done.stdout)["to_run"]) == (1, 3), done.stderr
