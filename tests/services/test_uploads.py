"""An uploaded recording reaches the workers, as docker-compose.yml and the manifests mount it there."""

from pathlib import Path

import pytest
import yaml

from services.lab.jobs import Jobs
from test_deploy import COMPOSE, OVERLAYS, PODS, ROOT, environment, one
from ultrafolio import files
from ultrafolio.sweep import planfile
from ultrafolio.sweep.cells import simulator
from ultrafolio.sweep.distributed.job import Record
from ultrafolio.sweep.distributed.worker import Refused, Worker
from ultrafolio.sweep.work import Work

LINES = b"==1== Lackey, an example Valgrind tool\nI  04000000,3\n S 1ffe0000,8\n L 1ffe2000,8\n"
PLAN = '[grid]\nseed = [1, 2]\n[fixed]\nworkload = "mine"\npolicy = "per-page"\n[workload.mine]\ntouches = "{}"\n'


def record_of(jobs, path):
    """What the lab queues for a plan that names an uploaded recording, and the plan's text."""
    job, _ = jobs.submit(PLAN.format(path), "mine.toml")
    file = jobs.folder(job) / "plan.toml"
    with files.bound(jobs.files):
        work = Work(planfile.load(file), simulator(), {})
        probe = {"0": work.key(work.plan.cell(0))[0]}
    return Record(str(file), file.read_text(), simulator().engine_digest(), simulator().COLUMNS, 2, 1, "redis:", probe)


def mounted(variables, mounts):
    """A worker with these variables, each folder of its container being one here; and the files that it may open."""

    def here(path):
        inside = next(folder for folder in sorted(mounts, reverse=True) if Path(path).is_relative_to(folder))
        return mounts[inside] / Path(path).relative_to(inside)

    folders = [here(folder) for folder in variables["ULTRAFOLIO_FILES"].split(":")]
    return Worker("w", simulator(), simulator().engine_digest(), here(variables["ULTRAFOLIO_BASE"])), folders


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_a_worker_elsewhere_reads_what_was_uploaded_and_nothing_else(tmp_path, where, monkeypatch):
    monkeypatch.setattr("services.lab.following.Following.follow", lambda self, job: None)
    volume = tmp_path / "volume"
    jobs = Jobs(volume / "sweeps", "unix:///nowhere")
    path, _ = jobs.recordings.keep([LINES])
    record = record_of(jobs, path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(volume)
    variables = COMPOSE["worker"]["environment"] if where == "compose" else environment("worker")
    worker, folders = mounted(variables, {"/data": elsewhere, "/app": ROOT})
    with files.bound(folders):
        assert worker._accept(record).count == 2
        with pytest.raises(Refused, match="no regular file beneath"):
            worker._accept(Record(**(vars_of(record) | {"text": PLAN.format("../x/plan.toml")})))
        kept = next(jobs.recordings.folder.iterdir())
        kept.write_bytes(LINES + b" L 1ffe4000,8\n")
        with pytest.raises(Refused, match="differs there"):
            worker._accept(record)
        kept.unlink()
        with pytest.raises(Refused, match="does not resolve there"):
            worker._accept(record)


def vars_of(record):
    return {name: getattr(record, name) for name in record.__struct_fields__}


def claims(name):
    return [volume["persistentVolumeClaim"] for volume in PODS[name]["volumes"] if "persistentVolumeClaim" in volume]


def test_the_manifests_give_workers_the_labs_volume_to_read():
    volumes = {name: {volume["name"]: volume for volume in PODS[name]["volumes"]} for name in ("lab", "worker")}
    (claim,) = claims("worker")
    assert claim == {"claimName": volumes["lab"]["data"]["persistentVolumeClaim"]["claimName"], "readOnly": True}
    (mount,) = [m for m in PODS["worker"]["containers"][0]["volumeMounts"] if m["name"] == "sweeps"]
    assert mount["readOnly"] and environment("worker")["ULTRAFOLIO_BASE"].startswith(f"{mount['mountPath']}/")
    assert "sweeps:/data:ro" in COMPOSE["worker"]["volumes"] and "sweeps:/data" in COMPOSE["lab"]["volumes"]
    data = one("ConfigMap", "settings")["data"]["ULTRAFOLIO_DATA"]
    assert data == mount["mountPath"], "the lab keeps its folder there, too"


def test_what_several_machines_mount_can_be_mounted_by_them():
    """Claims of parts that production has on several machines."""
    said = yaml.safe_load((OVERLAYS / "production/kustomization.yaml").read_text())
    patched = {}
    for patch in said["patches"]:
        change = yaml.safe_load((OVERLAYS / "production" / patch["path"]).read_text())
        if change["kind"] == "PersistentVolumeClaim":
            patched[change["metadata"]["name"]] = change["spec"]["accessModes"]
    wanted = [claim["claimName"] for name in ("guest", "worker", "ultravisor", "host-mm") for claim in claims(name)]
    assert patched == {name: ["ReadWriteMany"] for name in wanted}
