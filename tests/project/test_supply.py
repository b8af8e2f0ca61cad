"""Pinned packages: each has a version and hashes, direct or indirect; and the tools that look for weaknesses."""

import re
import tomllib

import pytest

from running_cluster import ROOT

LOCKS = sorted((ROOT / "locks").glob("*.txt"))
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name_of(requirement):
    return re.match(r"[\w-]+", requirement)[0].lower().replace("_", "-")


def entries(lock):
    """Package -> (version, hashes) of a file with hashes."""
    text = lock.read_text().replace("\\\n", " ")
    made = {}
    for line in filter(None, text.splitlines()):
        words = line.split()
        name, version = words[0].split("==")
        made[name] = version.split(";")[0].strip(), [word for word in words if word.startswith("--hash=sha256:")]
    return made


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_package_has_a_version_and_hashes(lock):
    assert {file.stem for file in LOCKS} == {"audit", "dev", "image"}
    made = entries(lock)
    for name, (version, hashes) in made.items():
        assert re.fullmatch(r"[\w.+!]+", version) and hashes, name
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), name
        assert PINS.get(name, version) == version, f"{name}: another version than constraints.txt: locks/make"
    assert "://" not in lock.read_text(), "an index's address"


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("image", ("cluster", "workers", "web", "otel", "report")),
        ("audit", ("audit",)),
        ("dev", ("dev", "report", "cluster", "workers", "web", "otel", "bench", "prove")),
    ],
)
def test_what_the_project_asks_for_is_there(lock, extras):
    wanted = [*PROJECT["dependencies"], *(one for extra in extras for one in PROJECT["optional-dependencies"][extra])]
    made = entries(ROOT / f"locks/{lock}.txt")
    assert {name_of(one) for one in wanted} - {"ultrafolio"} <= made.keys(), "locks/make"
    assert len(made) > len(wanted), "indirect packages, too"


def test_the_image_is_installed_from_hashes_only():
    docker = (ROOT / "deploy/Dockerfile").read_text()
    for line in docker.replace("\\\n", " ").splitlines():
        if "pip install" in line:
            assert "--require-hashes" in line or "--no-deps ." in line, line
    assert "cyclonedx-py environment" in docker and "sbom.json" in docker
    assert (ROOT / ".ci/run").read_text().rstrip().endswith(".ci/audit")
