"""Files that plans name: a bound process opens only files beneath its folders, and quotes no content."""

import gzip
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from services.lab import recordings
from services.lab.jobs import Jobs
from services.lab.recordings import Recordings
from ultrafolio import files
from ultrafolio.errors import InputError
from ultrafolio.sim import cell
from ultrafolio.sweep.work import one_line

ROOT = Path(__file__).parents[2]
LINES = b" L 1000,8\n S 2000,8\n"
SECRET = "the admin password is hunter2"


@pytest.fixture
def given(tmp_path):
    """A folder that was given, a secret beside it, and ways that lead from one to the other."""
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "good").write_bytes(LINES)
    (folder / "text").write_text(SECRET)
    (tmp_path / "secret").write_text(SECRET)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "out").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    return folder


WAYS = [
    "../secret",
    "link",
    "out/secret",
    "/etc/passwd",
    "../given/../secret",
    "pipe",
    ".",
    "/dev/zero",
    "/proc/self/environ",
    "absent",
    "a\0b",
    "x" * 5000,
]


def refusal(call):
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("field", ["touches", "requests", "orders"])
def test_a_recording_out_of_the_folder_is_refused(given, way, field):
    with files.bound([given]):
        said = refusal(lambda: cell.resolve({field: way}, given))
    assert "no regular file beneath the folders" in said and SECRET not in said


@pytest.mark.parametrize("way", [f"{way}.toml" for way in WAYS])
def test_a_profile_out_of_the_folder_is_refused(given, way):
    (given.parent / "secret.toml").write_text(SECRET)
    (given / "link.toml").symlink_to(given.parent / "secret.toml")
    with files.bound([given]):
        said = refusal(lambda: cell.resolve({"costs": way}, given))
    assert "no regular file beneath the folders" in said and SECRET not in said


def test_what_is_there_and_what_is_not_are_refused_alike(given):
    with files.bound([given]):
        there, not_there = (refusal(lambda way=way: files.named(given, way)) for way in ("../secret", "../secreT"))
    assert there.replace("secret", "secreT") == not_there


def test_an_error_of_reading_quotes_nothing(given):
    (given / "text.toml").write_text(SECRET)
    with files.bound([given]):
        config = cell.resolve({"touches": "text", "duration_us": 1}, given)
        said = refusal(lambda: cell.run(config, given))
        assert SECRET not in said and str(given) not in said and "hunter2" not in said
        said = refusal(lambda: cell.resolve({"costs": "text.toml"}, given))
        assert "hunter2" not in said
    # a user's own command says which line it is
    assert "hunter2" in refusal(lambda: cell.run(config, given))


def test_a_row_quotes_nothing_wherever_it_is_computed():
    error = InputError("a: line 3 is malformed", value=SECRET, allowed="a line")
    assert one_line(error) == "InputError: a: line 3 is malformed allowed a line"


def test_a_thread_is_bound_for_itself(given):
    inside, over = threading.Event(), threading.Event()

    def other():
        with files.bound([given]):
            inside.set()
            over.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    assert files.named(given, "../secret").is_file()
    over.set()
    thread.join()


def test_what_is_given_is_read(given):
    with files.bound([given]):
        assert cell.resolve({"touches": "good"}, given)["workload"]["touches"][0] == "good"
    assert files.given("") == files.SHIPPED and files.given("/a:/b") == (Path("/a"), Path("/b"))


def test_a_submitted_plan_names_no_other_file(tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    jobs = Jobs(tmp_path / "sweeps", "unix:///nowhere")
    plan = '[grid]\nseed = [1]\n[fixed]\nworkload = "w"\n[workload.w]\ntouches = "{}"\n'
    for way in (str(tmp_path / "secret"), "../../secret", "/etc/passwd", "../traces/../../secret"):
        said = refusal(lambda way=way: jobs.submit(plan.format(way), "p"))
        assert "no regular file beneath" in said and "hunter2" not in said
    assert list(jobs.names()) == []


def test_a_worker_reads_files_beneath_its_folders_only():
    program = """
from pathlib import Path
from ultrafolio import files
from ultrafolio.sweep import cells
from workers import tasks
tasks.simulator = lambda: type("Fake", (), {"warm": lambda: None, "engine_digest": lambda: ""})
tasks.prepare()
assert files.named(files.SHIPPED[0], "README.md")
files.named(Path("/"), "etc/passwd")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert "no regular file beneath the folders" in done.stderr, done.stderr


# ---------------------------------------------------------------------------------------------------- uploads
@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "LARGEST", 4096)
    monkeypatch.setattr(recordings, "LARGEST_UNPACKED", 8192)
    monkeypatch.setattr(recordings, "MOST_BYTES", 6000)
    return Recordings(tmp_path / "recordings")


def whole(size):
    return (LINES * (size // len(LINES) + 1))[:size]


def test_an_upload_is_kept_by_its_digest(kept):
    path, size = kept.keep([LINES[:7], LINES[7:]])
    digest = hashlib.blake2b(LINES, digest_size=16).hexdigest()
    assert (path, size) == (f"../recordings/{digest}", len(LINES))
    assert (kept.folder / digest).read_bytes() == LINES
    assert kept.keep([LINES]) == (path, size) and len(list(kept.folder.iterdir())) == 1


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (whole(4097), "too large"),
        (gzip.compress(whole(8193)), "too large"),
        (b"\x1f\x8b nonsense", "damaged"),
        (SECRET.encode(), "not known"),
        (b"", "empty"),
    ],
    ids=["large", "large when unpacked", "damaged", "unknown", "empty"],
)
def test_an_upload_that_is_refused_leaves_nothing(kept, data, what):
    said = refusal(lambda: kept.keep([data]))
    assert what in said and "hunter2" not in said
    assert not list(kept.folder.iterdir())


def test_uploads_have_a_bound_each_and_in_all(kept):
    kept.keep([whole(4096)])
    assert "in all" in refusal(lambda: kept.keep([whole(1905)]))
    kept.keep([whole(1904)])
