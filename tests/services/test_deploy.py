"""docker-compose.yml and deploy/, compared with the schemas, the settings and the code, without an engine."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from services.common.settings import read
from services.launcher.keys import hand_out
from ultrafolio.state.acl import RIGHTS
from ultrafolio.state.roles import ROLE_OF_SERVICE
from ultrafolio.sweep.distributed.broker import QUEUE

ROOT = Path(__file__).parents[2]
BASE, OVERLAYS = ROOT / "deploy/k8s/base", ROOT / "deploy/k8s/overlays"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
SERVICES = {"ultravisor": "ultravisor", "host-mm": "host_mm", "guest": "guest", "lab": "lab"}
# variables of other programs of ours: workers.app, deploy/chaos.py
OTHERS = ("ULTRAFOLIO_BASE", "ULTRAFOLIO_VISIBILITY")
NAME = "app.kubernetes.io/name"
KEDA = {
    "ScaledObject": {
        "type": "object",
        "required": ["scaleTargetRef", "triggers"],
        "additionalProperties": False,
        "properties": {
            "scaleTargetRef": {"type": "object", "required": ["name"]},
            **{f"{word}": {"type": "integer", "minimum": 0}
               for word in ("minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod")},
            "advanced": {"type": "object"},
            "triggers": {"type": "array", "items": {
                "type": "object",
                "required": ["type", "metadata"],
                "additionalProperties": False,
                "properties": {
                    "type": {"const": "redis"},
                    "metadata": {"type": "object", "additionalProperties": {"type": "string"},
                                 "required": ["address", "listName", "listLength"]},
                    "authenticationRef": {"type": "object", "required": ["name"]},
                },
            }},
        },
    },
    "TriggerAuthentication": {
        "type": "object",
        "required": ["secretTargetRef"],
        "additionalProperties": False,
        "properties": {"secretTargetRef": {"type": "array", "items": {
            "type": "object", "required": ["parameter", "name", "key"], "additionalProperties": False,
            "properties": {word: {"type": "string"} for word in ("parameter", "name", "key")},
        }}},
    },
}  # fmt: skip


def documents(*files):
    return [one for file in files for one in yaml.safe_load_all(file.read_text()) if one]


MANIFESTS = documents(
    *(f for f in sorted(BASE.glob("*.yaml")) if f.name != "kustomization.yaml"), OVERLAYS / "dev/redis.yaml"
)
PODS = {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in MANIFESTS if one["kind"] == "Deployment"}


def one(kind, name):
    (found,) = [m for m in MANIFESTS if (m["kind"], m["metadata"]["name"]) == (kind, name)]
    return found


def known(manifest):
    """Validate one object with its schema; unknown fields are errors."""
    if manifest["apiVersion"].startswith("keda.sh/"):
        jsonschema.validate(manifest["spec"], KEDA[manifest["kind"]])
    else:
        kubernetes_validate.validate(manifest, "1.37", strict=True)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda m: f"{m['kind']}-{m['metadata']['name']}")
def test_a_manifest_is_valid(manifest):
    known(manifest)


def test_a_wrong_manifest_is_not():
    wrong = json.loads(json.dumps(one("Deployment", "guest")))
    wrong["spec"]["replicsa"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        known(wrong)
    scaled = json.loads(json.dumps(one("ScaledObject", "worker")))
    scaled["spec"]["triggers"][0]["metadata"]["listLength"] = 15
    with pytest.raises(jsonschema.ValidationError):
        known(scaled)


def environment(name):
    """Returns the variables of a Deployment's container; values from a secret or the pod are placeholders."""
    container = PODS[name]["containers"][0]
    values = dict(one("ConfigMap", "settings")["data"]) if container.get("envFrom") else {}
    given = {entry["name"]: entry.get("value") for entry in container.get("env", ())}
    return values | {key: value or "redis://given" for key, value in given.items()}


def settings_of(variables):
    return read({key: value for key, value in variables.items() if key not in OTHERS})


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_reads_what_it_is_given(name):
    for variables in (environment(name), COMPOSE[name]["environment"]):
        settings = settings_of(variables)
        assert (settings.port, settings.metrics_port, settings.tls, settings.host) == (50051, 9464, "/keys", "0.0.0.0")
        role = ROLE_OF_SERVICE[SERVICES[name]]
        assert settings.redis_password_file == f"/keys/{role}.password"
    container = PODS[name]["containers"][0]
    page = {"page": 8080} if name == "lab" else {}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 50051, "metrics": 9464} | page
    assert page == {} or settings.web_port == 8080
    assert container["command"] == ["python", "-m", f"services.{SERVICES[name]}"]
    assert f"services.{SERVICES[name]}" in " ".join(COMPOSE[name]["command"])
    for probe in (container["readinessProbe"]["exec"]["command"], COMPOSE[name]["healthcheck"]["test"]):
        assert probe[-6:] == ["services.common.probe", "127.0.0.1:50051", "--tls", "/keys", "--role", role]


@pytest.mark.parametrize(("name", "volume"), [("ultravisor", "memory"), ("host-mm", "swap")])
def test_two_replicas_share_the_groups(name, volume):
    """Each has a name of its own, and the folder of the others."""
    assert one("Deployment", name)["spec"]["replicas"] == COMPOSE[name]["deploy"]["replicas"] == 2
    for variables in (environment(name), COMPOSE[name]["environment"]):
        assert settings_of({**variables, "ULTRAFOLIO_INSTANCE": "of this pod"}).replica == "of this pod"
    (instance,) = [e for e in PODS[name]["containers"][0]["env"] if e["name"] == "ULTRAFOLIO_INSTANCE"]
    assert instance["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert f"ULTRAFOLIO_INSTANCE={name}-$$HOSTNAME exec" in COMPOSE[name]["command"][-1]
    assert f"{volume}:/data" in COMPOSE[name]["volumes"]
    assert {"name": "data", "persistentVolumeClaim": {"claimName": volume}} in PODS[name]["volumes"]
    (claim,) = documents(OVERLAYS / f"production/{volume}.yaml")
    assert claim["metadata"]["name"] == volume and claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert one("Service", name)["spec"]["clusterIP"] == "None", "the name has every replica's address"
    for caller in ("guest", "lab"):
        assert (
            settings_of({**environment(caller)}).replicated and settings_of(COMPOSE[caller]["environment"]).replicated
        )


def test_an_unknown_variable_would_be_found():
    with pytest.raises(Exception, match="unknown variable"):
        settings_of({**environment("guest"), "ULTRAFOLIO_REDIZ": "x"})


def test_secrets_are_those_that_are_made(tmp_path):
    hand_out(tmp_path)
    made = {f"{folder.name}-keys": {file.name for file in folder.iterdir()} for folder in tmp_path.iterdir()}
    for name, pod in PODS.items():
        role = ROLE_OF_SERVICE.get(SERVICES.get(name, ""), name)
        for volume in pod["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["secretName"] == f"{role}-keys" and f"{role}-keys" in made
    assert {"lab.password", "ca.crt", "lab.key"} <= made["lab-keys"]
    sources = [e.get("valueFrom", {}) for pod in PODS.values() for e in pod["containers"][0].get("env", ())]
    wanted = [source["secretKeyRef"] for source in sources if "secretKeyRef" in source]
    wanted += one("TriggerAuthentication", "queue")["spec"]["secretTargetRef"]
    assert len(wanted) == 3 and all(secret["key"] in made[secret["name"]] for secret in wanted)
    # only the administrator gets others' passwords; the lab also gets the keeper's
    for folder in ("ultravisor", "host", "guest", "lab", "worker"):
        passwords = {file.read_text().strip() for file in (tmp_path / folder).glob("*.password")}
        others = {(tmp_path / "admin" / f"{u}.password").read_text().strip() for u in (*RIGHTS, "admin") if u != folder}
        others -= {(tmp_path / "admin/keeper.password").read_text().strip()} if folder == "lab" else set()
        assert not passwords & others
    text = (tmp_path / "worker/redis.url").read_text()
    assert text.startswith("redis://lab:") and not text.endswith("\n")
    where = json.loads((tmp_path / "admin/where.json").read_text())
    assert {part["address"].split(":")[0] for part in where["services"]} == set(SERVICES) and "://admin:" in where[
        "redis"
    ]
    before = {file: file.read_bytes() for file in tmp_path.glob("*/*")}
    hand_out(tmp_path)
    assert {file: file.read_bytes() for file in tmp_path.glob("*/*")} == before, "a second start keeps every secret"


@pytest.mark.parametrize("name", PODS)
def test_a_pod_may_do_little(name):
    pod, container = PODS[name], PODS[name]["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"]
    assert pod["automountServiceAccountToken"] is False
    rights = container["securityContext"]
    assert rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"]
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert {"cpu", "memory"} == set(container["resources"]["limits"]) == set(container["resources"]["requests"])
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert container["livenessProbe"]
    assert container["image"] == ("redis:7" if name == "redis" else "ultrafolio")


@pytest.mark.parametrize("name", COMPOSE)
def test_a_container_may_do_little(name):
    part = COMPOSE[name]
    assert part["read_only"] is True and part["cap_drop"] == ["ALL"]
    assert part["security_opt"] == ["no-new-privileges:true"] and not part.get("privileged")
    assert {"mem_limit", "cpus", "pids_limit"} <= set(part)
    assert part["image"] == "ultrafolio:local" or part["user"].split(":")[0] != "0"
    for port in part.get("ports", ()):
        assert port.startswith("127.0.0.1:")
    words = json.dumps(part)
    # no socket of the engine, no URL with a password, no plain password
    assert "docker.sock" not in words and not re.search(r'://[^/"]*@', words)
    assert not [name for name in part.get("environment", {}) if name.endswith(("PASSWORD", "SECRET", "TOKEN"))]
    volumes = {volume.split(":")[0] for volume in part.get("volumes", ())}
    assert ("keys-admin" in volumes) == (name in ("keys", "client", "chaos"))


def test_the_image_runs_as_an_unprivileged_user():
    text = (ROOT / "deploy/Dockerfile").read_text()
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == ["10001:10001"]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().split("\n") if line.startswith("!")}
    for words in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for source in words.split()[:-1]:
            assert source in allowed and (ROOT / source).exists(), source


def selected(selector, labels):
    expressions = selector.get("matchExpressions", ())
    return all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items()) and all(
        e["operator"] == "In" and labels.get(e["key"]) in e["values"] for e in expressions
    )


def allowed(source, target, port):
    """Whether the policies let pods named `source` reach pods named `target`: both sides must allow it."""

    def agree(direction, whose, peer_of, other):
        for policy in (m["spec"] for m in MANIFESTS if m["kind"] == "NetworkPolicy"):
            if direction.title() not in policy["policyTypes"] or not selected(policy["podSelector"], {NAME: whose}):
                continue
            for rule in policy.get(direction, ()):
                peers = [p["podSelector"] for p in rule[peer_of] if "podSelector" in p]
                ports = {p["port"] for p in rule["ports"]}
                if port in ports and any(selected(peer, {NAME: other}) for peer in peers):
                    return True
        return False

    return agree("egress", source, "to", target) and agree("ingress", target, "from", source)


def test_policies_allow_only_the_needed_connections():
    must = set()
    for name in PODS:
        addresses = [v for k, v in environment(name).items() if k in ("ULTRAFOLIO_ULTRAVISOR", "ULTRAFOLIO_HOST_MM")]
        must |= {(name, address.split(":")[0], 50051) for address in addresses}
        must |= {(name, "redis", 6379)} if "ULTRAFOLIO_REDIS" in environment(name) else set()
    must |= {("client", name, 50051) for name in SERVICES} | {("client", "redis", 6379)}
    assert ("guest", "host-mm", 50051) in must and ("worker", "redis", 6379) in must
    names = [*PODS, "client", "stranger"]
    may = {(a, b, port) for a in names for b in names for port in (50051, 6379, 9464) if allowed(a, b, port)}
    assert may == must
    everybody = one("NetworkPolicy", "nobody")["spec"]
    assert everybody == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_workers_scale_by_the_queue():
    scaled = one("ScaledObject", "worker")["spec"]
    assert scaled["scaleTargetRef"]["name"] in PODS and "replicas" not in one("Deployment", "worker")["spec"]
    assert scaled["triggers"][0]["metadata"]["listName"] == QUEUE
    assert scaled["cooldownPeriod"] >= PODS["worker"]["terminationGracePeriodSeconds"] >= 60
    budget = one("PodDisruptionBudget", "worker")["spec"]["selector"]["matchLabels"]
    assert budget == one("Deployment", "worker")["spec"]["selector"]["matchLabels"]
    inside = COMPOSE["worker"]["command"][-1].split()
    flags = {word for word in inside if word.startswith("--without")}
    assert flags and flags <= set(PODS["worker"]["containers"][0]["command"])


@pytest.mark.parametrize("overlay", ["dev", "production"])
def test_an_overlay_names_what_there_is(overlay):
    folder = OVERLAYS / overlay
    said = yaml.safe_load((folder / "kustomization.yaml").read_text())
    files = said["resources"] + [patch["path"] for patch in said["patches"] if "path" in patch]
    assert all((folder / file).exists() for file in files)
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(f.name for f in BASE.glob("*.yaml") if f.name != "kustomization.yaml")
    names = {(m["kind"], m["metadata"]["name"]) for m in MANIFESTS}
    for patch in said["patches"]:
        if "path" in patch:
            (patched,) = documents(folder / patch["path"])
            assert (patched["kind"], patched["metadata"]["name"]) in names


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed: its kustomize renders the overlays")
@pytest.mark.parametrize("overlay", ["dev", "production"])
def test_an_overlay_renders(overlay):
    words = ["kubectl", "kustomize", str(OVERLAYS / overlay)]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    rendered = list(yaml.safe_load_all(text))
    for manifest in rendered:
        known(manifest)
        assert manifest["metadata"]["namespace"] == "ultrafolio"
    assert {m["metadata"]["name"] for m in rendered if m["kind"] == "Deployment"} >= {*SERVICES, "worker"}


def test_the_dashboard_queries_existing_metrics():
    board = json.loads((ROOT / "deploy/grafana/dashboards/ultrafolio.json").read_text())
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["datasources"][0]["uid"]}
    alerts = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"][0]["rules"]
    expressions = [t["expr"] for p in board["panels"] for t in p["targets"]] + [rule["expr"] for rule in alerts]
    files = ("services/common/metrics.py", "services/common/serve.py", "workers/metrics.py")
    code = "".join((ROOT / f).read_text() for f in files)
    made = set(re.findall(r'"(ultrafolio_[a-z_]+)"', code))
    for name in {name for text in expressions for name in re.findall(r"ultrafolio_[a-z_]+", text)}:
        assert re.sub(r"_(total|bucket|count)$", "", name) in made, name


def test_prometheus_finds_every_part():
    jobs = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    names = {name for job in jobs for dns in job.get("dns_sd_configs", ()) for name in dns["names"]}
    assert names == {*SERVICES, "sweep-metrics"} and names <= set(COMPOSE)
    for name in names:
        assert COMPOSE[name]["environment"]["ULTRAFOLIO_HOST"] == "0.0.0.0", "Prometheus is another container"


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (of prometheus) is not installed")
@pytest.mark.parametrize("words", [["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]])
def test_prometheus_takes_its_rules(words):
    done = subprocess.run(["promtool", *words], cwd=ROOT / "deploy/prometheus", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
