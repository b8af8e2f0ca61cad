"""Stories, runs and streams as Chrome traces: by the description of the format, and as Perfetto itself reads them."""

import itertools
import json

import pytest

import memfd_cases
import perfetto
import saved_streams
from checking import PATHS, checked, system
from perfetto import ERRORS, FLOWS, SLICES, needs_perfetto
from ultrafolio.cli import main
from ultrafolio.commands import pictured
from ultrafolio.conformance.suite import build
from ultrafolio.export.chrome import FIRST_THREAD, HOST, chrome, of_finding
from ultrafolio.export.heat import heat
from ultrafolio.export.timeline import STEP_NS, of_run, of_story

WAITS = {
    # a hang: the ring's pin, never released
    "03-virtio": ("whole-folio", [["pin-get", "import-freeze"]]),
    # a wait that ends: the story ends before the step that is refused
    "01-direct-io": ("whole-folio", [["pin-get", "import-writeback"]]),
}


def run(capsys, *words):
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    out = capsys.readouterr()
    return int(left.value.code or 0), out.out, out.err


def document(name):
    policy, _ = WAITS[name]
    return of_finding(checked(name, policy), system(name, policy))


def events(text, *phases):
    return [event for event in json.loads(text)["traceEvents"] if event["ph"] in phases]


def flows(text):
    """Names of the slices that each flow joins, in order, by the published description: the enclosing slice."""
    made = []
    for _, points in itertools.groupby(events(text, "s", "t", "f"), key=lambda event: event["id"]):
        made.append([])
        for point in points:
            (inside,) = [
                one["name"]
                for one in events(text, "X")
                if (one["pid"], one["tid"]) == (point["pid"], point["tid"])
                and one["ts"] <= point["ts"] < one["ts"] + one["dur"]
            ]
            made[-1].append(inside)
    return made


def is_a_trace(text):
    """Asserts what the description of the Trace Event Format demands of the events used here."""
    made = json.loads(text)
    assert set(made) == {"traceEvents", "displayTimeUnit", "otherData"} and made["displayTimeUnit"] in ("ms", "ns")
    threads = {(one["pid"], one["tid"]) for one in events(text, "M") if one["name"] == "thread_name"}
    ends = dict.fromkeys(threads, 0)
    for one in made["traceEvents"]:
        assert isinstance(one["pid"], int) and isinstance(one["tid"], int) and one["ph"] in "MXstf"
        if one["ph"] == "X":
            assert one["dur"] >= 0 and one["ts"] >= ends[one["pid"], one["tid"]] - 1e-6, "slices of a track overlap"
            ends[one["pid"], one["tid"]] = one["ts"] + one["dur"]
        if one["ph"] in "stf":
            assert (one["pid"], one["tid"]) in threads and one["bp"] == "e" and one["cat"] and one["name"]
    by_id = {}
    for one in events(text, "s", "t", "f"):
        by_id.setdefault((one["cat"], one["id"], one["name"]), []).append(one)
    for points in by_id.values():
        assert [one["ph"] for one in points] == ["s", *"t" * (len(points) - 2), "f"]
        assert sorted(points, key=lambda one: one["ts"]) == points


# ------------------------------------------------------------------------------------------------------- stories
@pytest.mark.parametrize("name", WAITS)
def test_a_story_has_a_track_an_actor_a_slice_a_step_and_a_flow_a_wait(name):
    policy, wanted = WAITS[name]
    text, worst = document(name), checked(name, policy).worst
    is_a_trace(text)
    steps = [*worst.steps, *worst.cycle]
    assert [(one["name"], one["tid"] - FIRST_THREAD, one["args"]["page"]) for one in events(text, "X")] == [
        (step.rule, step.actor, step.page) for step in steps
    ]
    assert flows(text) == wanted


def released():
    """A system in which a disk pins and unpins page 0, while a vCPU touches page 1 of the folio; and a path."""
    made = build("whole-folio", [1], ["shared", "secure"], vcpu=[{"touch": [1]}], disk=[{"page": 0}])
    path = [*[1 << 16] * 8, *[0] * 6, *[1 << 16] * 3]
    return made, path


def test_a_flow_goes_on_to_the_step_that_releases():
    text = chrome(of_story(*released()), {})
    is_a_trace(text)
    assert flows(text) == [["pin-get", "import-freeze", "unpin"]]


def test_a_sleeper_has_a_flow_from_the_taking_to_the_release():
    """The second vCPU sleeps for the import mutex: no step of it is refused."""
    made = build("linux-7.0", [0], ["exported"], vcpu=[{}, {}])
    text = chrome(of_story(made, [0, 0, 1 << 16, *[0] * 10]), {})
    is_a_trace(text)
    assert flows(text) == [["import-mutex", "vcpu-run", "import-end"]]


def test_guests_and_the_host_are_processes():
    made = build("per-page", [0], ["secure"], vcpu=[{}], reclaim=[{}])
    text = chrome(of_story(made, [0]), {})
    named = {one["args"]["name"]: one["pid"] for one in events(text, "M") if one["name"].endswith("_name")}
    assert named == {"host MM": HOST, "guest 0": HOST + 1, "vcpu 0": HOST + 1, "reclaim 1": HOST}


def test_check_writes_the_worst_story(capsys):
    code, out, _ = run(capsys, "check", PATHS["03-virtio"], "--policy", "whole-folio", "--format", "chrome")
    made = json.loads(out)["otherData"]
    assert code == 1 and made["kind"] == "permanent" and "virtio 1's long-term pin" in made["wait"]
    again = run(capsys, "check", PATHS["03-virtio"], "--policy", "whole-folio", "--format", "chrome")[1]
    assert again == out, "not the same bytes"


def test_without_a_story_nothing_is_written(capsys):
    code, out, err = run(capsys, "check", PATHS["03-virtio"], "--policy", "per-page", "--format", "chrome")
    assert (code, out) == (0, "") and "no story" in err


def test_a_saved_counterexample_gives_the_same_steps(capsys, tmp_path):
    file = tmp_path / "hang.json"
    run(capsys, "check", PATHS["03-virtio"], "--policy", "whole-folio", "--save", file)
    code, out, _ = run(capsys, "trace", "show", file, "--format", "chrome")
    assert code == 0 and events(out, "X", "s", "f") == events(document("03-virtio"), "X", "s", "f")


# ---------------------------------------------------------------------------------------------------------- runs
ACTORS = [{"kind": "vcpu", "guest": 0}, {"kind": "vcpu", "guest": 0}]
RUN = [
    (0, 0, "import-mutex", "OK"), (5, 1, "import-mutex", "waits: the VM's import mutex"), (9, 0, "import-map", "OK"),
    (20, 0, "import-end", "SUCCESS"), (20, 1, "import-mutex", "OK"), (31, 1, "import-map", "OK"),
]  # fmt: skip


def records(rows):
    names = ("ns", "actor", "rule", "outcome")
    return [{"n": n, "page": 0, **dict(zip(names, row, strict=True))} for n, row in enumerate(rows)]


def test_in_a_run_a_slice_lasts_to_the_next_step_and_a_flow_ends_where_the_wait_does():
    made = of_run(ACTORS, records(RUN))
    assert [(one.name, one.actor, one.begin, one.end) for one in made.slices] == [
        ("import-mutex", 0, 0, 9), ("import-mutex", 1, 5, 20), ("import-map", 0, 9, 20), ("import-end", 0, 20, 31),
        ("import-mutex", 1, 20, 31), ("import-map", 1, 31, 31),
    ]  # fmt: skip
    assert [flow.points for flow in made.flows] == [[(1, 5), (0, 20)]]
    is_a_trace(chrome(made, {}))


def test_a_step_that_releases_something_else_ends_no_wait():
    other = [*RUN[:3], (20, 0, "writeback-end", "DONE"), *RUN[4:]]
    assert of_run(ACTORS, records(other)).flows == []


def simulated(capsys, tmp_path, *words):
    file = tmp_path / "steps.ndjson"
    run(capsys, "run", *words, "--trace", file)
    return file


@pytest.fixture
def mutexes(capsys, tmp_path):
    sets = ["vcpus=8", "pages=8", "imported=false", "writeback_us=100"]
    words = ["--policy", "linux-7.0", "--order", "2", "--duration-us", "100", "--seed", "5"]
    words += [word for one in sets for word in ("--set", one)]
    return simulated(capsys, tmp_path, *words)


def test_a_run_is_a_trace_with_its_waits(capsys, mutexes):
    code, out, _ = run(capsys, "trace", "show", mutexes, "--format", "chrome")
    is_a_trace(out)
    steps = [json.loads(line) for line in mutexes.read_text().splitlines()[1:]]
    assert code == 0 and len(events(out, "X")) == len(steps)
    waited = [step for step in steps if step["outcome"].startswith("waits: ")]
    begun = [(one["tid"] - FIRST_THREAD, round(one["ts"] * 1000)) for one in events(out, "s")]
    assert begun and set(begun) <= {(step["actor"], step["ns"]) for step in waited}


def test_only_the_first_steps_of_a_run_if_asked(capsys, mutexes):
    assert len(events(run(capsys, "trace", "show", mutexes, "--format", "chrome", "--first", 7)[1], "X")) == 7


def test_a_run_of_too_many_steps_is_refused_with_the_command_to_type(capsys, mutexes, monkeypatch):
    monkeypatch.setattr(pictured, "MOST_STEPS", 9)
    code, out, err = run(capsys, "trace", "show", mutexes, "--format", "chrome")
    assert (code, out) == (2, "") and "--first 9" in err


BAD_LINES = [
    "[]",
    '{"n": 0}',
    '{"n": 0, "ns": -1, "actor": 0, "rule": "vcpu-run", "page": 0}',
    '{"ns": 3, "actor": 0, "rule": "none", "page": 0, "outcome": "OK", "n": 1}',
    '{"ns": "x", "actor": 0, "rule": "split", "page": 0, "outcome": "OK", "n": 1}',
]


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_damaged_run_is_refused(capsys, mutexes, line):
    mutexes.write_text("\n".join([*mutexes.read_text().splitlines()[:2], line, ""]))
    code, out, err = run(capsys, "trace", "show", mutexes, "--format", "chrome")
    assert (code, out) == (2, "") and "damaged" in err and "Traceback" not in err


# ------------------------------------------------------------------------------------------------------- streams
def stream(tmp_path, choices=((1, 0, 0), (0, 1, 1)), name="g"):
    made = build("whole-folio", [1], ["shared", "secure"], vcpu=[{"touch": [1]}], disk=[{"page": 0}])
    file = tmp_path / "run.stream"
    written = saved_streams.stream(made, choices)
    file.write_bytes(saved_streams.saved(dict.fromkeys(name.split(), written)))
    return file, written


def test_a_stream_is_a_trace_with_the_times_of_its_entries(capsys, tmp_path):
    file, written = stream(tmp_path)
    code, out, _ = run(capsys, "trace", "show", file, "--format", "chrome")
    is_a_trace(out)
    slices = events(out, "X")
    assert code == 0 and len(slices) == len(written) - 3
    assert [one["ts"] for one in slices] == [STEP_NS / 1000, *(5000.0 * n for n in range(1, len(slices)))]
    assert slices[0]["args"]["entry"] == written[3].id


def test_a_stream_of_a_hang_has_its_wait(capsys, tmp_path):
    made = build("whole-folio", [1], ["shared", "secure"], vcpu=[{"touch": [1]}], virtio=[{"page": 0}])
    file = tmp_path / "hang.stream"
    file.write_bytes(saved_streams.saved({"g": saved_streams.hang(made, (1, 1, 0), (0, 1, 1))}))
    out = run(capsys, "trace", "show", file, "--format", "chrome")[1]
    assert flows(out) == [["pin-get", "import-freeze"]]


def test_a_stream_of_guest_memfd_has_the_steps_of_its_design(capsys, tmp_path):
    made = memfd_cases.system("g16-vfio-pin", "gmem-7.4", "snp")
    file = tmp_path / "hang.stream"
    file.write_bytes(saved_streams.saved({"g": saved_streams.hang(made, (1, 1, 0), (0, 3, 0), rounds=12)}))
    out = run(capsys, "trace", "show", file, "--format", "chrome")[1]
    assert {"gup-walk", "dma-ready", "convert-pinned", "vmm-retry"} <= {one["name"] for one in events(out, "X")}
    assert {one["args"]["outcome"] for one in events(out, "X") if one["name"] == "convert-pinned"} == {"-EAGAIN"}


def test_streams_of_two_groups_are_refused(capsys, tmp_path):
    code, _, err = run(capsys, "trace", "show", stream(tmp_path, name="g h")[0], "--format", "chrome")
    assert code == 2 and "--group" in err


def test_a_stream_that_the_rules_refuse_is_refused(capsys, tmp_path):
    file, _ = stream(tmp_path)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:5], *lines[6:]]))
    code, out, err = run(capsys, "trace", "show", file, "--format", "chrome")
    assert (code, out) == (2, "") and "the rules refuse entry" in err and "trace validate" in err


# -------------------------------------------------------------------------------------------------------- a reader
@needs_perfetto
def test_perfetto_reads_the_slices_and_the_flows_of_a_story(tmp_path):
    file, made = tmp_path / "story.json", of_story(*released())
    file.write_text(chrome(made, {}))
    slices, joined, errors = perfetto.asked(file, SLICES, FLOWS, ERRORS)
    assert slices == [[one.name, one.begin, one.end - one.begin, f"{'vcpu' if one.actor == 0 else 'disk'} {one.actor}",
                       "guest 0"] for one in made.slices]  # fmt: skip
    (flow,) = made.flows
    ((_, began), (_, met), (_, ended)) = flow.points
    assert joined == [["pin-get", began, "import-freeze", met], ["import-freeze", met, "unpin", ended]]
    assert errors == []


@needs_perfetto
def test_perfetto_reads_a_run_and_a_stream(capsys, tmp_path, mutexes):
    for file in (mutexes, stream(tmp_path)[0]):
        out = run(capsys, "trace", "show", file, "--format", "chrome")[1]
        (tmp_path / "read.json").write_text(out)
        slices, joined, errors = perfetto.asked(tmp_path / "read.json", SLICES, FLOWS, ERRORS)
        assert len(slices) == len(events(out, "X")) and errors == []
        assert len(joined) == len(events(out, "t", "f")), "a flow that Perfetto binds to no slice"


@needs_perfetto
def test_perfetto_notices_a_flow_that_no_slice_encloses(tmp_path):
    made = of_story(*released())
    made.flows[0].points[1] = (0, 10**9)
    (tmp_path / "wrong.json").write_text(chrome(made, {}))
    joined = [[start, end] for start, _, end, _ in perfetto.asked(tmp_path / "wrong.json", FLOWS)[0]]
    assert joined != [["pin-get", "import-freeze"], ["import-freeze", "unpin"]]


# ----------------------------------------------------------------------------------------------------- heat lines
@pytest.mark.parametrize(
    ("counts", "digits", "about"),
    [
        ({0: 5, 1: 5}, "00", "5, 5, column size: 4.000 KiB"),
        ({0: 0, 1: 9, 3: 18}, "0409", "0, 18, column size: 4.000 KiB"),
        ({10: 1000, 169: 1}, "9" + "0" * 79, "0, 1,000, column size: 8.000 KiB"),
    ],
)
def test_a_heat_line(counts, digits, about):
    assert heat(counts) == f"heatmap: {digits}\n# min/max temperatures: {about}"


def test_the_heat_of_a_run_counts_the_steps_of_its_pages(capsys, mutexes):
    code, out, _ = run(capsys, "trace", "show", mutexes, "--format", "heat")
    pages = [json.loads(line)["page"] for line in mutexes.read_text().splitlines()[1:]]
    assert code == 0 and out.rstrip("\n") == heat({page: pages.count(page) for page in set(pages)})
    line, about = out.splitlines()
    assert len(line) <= len("heatmap: ") + 80 and about.startswith("# min/max temperatures: ")


def test_no_heat_without_a_page():
    assert heat({}) == "heatmap: n/a (no page)"


def test_formats_that_say_different_things_are_refused(capsys, mutexes):
    assert run(capsys, "trace", "show", mutexes, "--format", "heat", "--json")[0] == 2
