"""A run as KubeRay manifests: a RayJob with the run's file beside it, or a RayCluster to submit jobs to.

`k8s/base` holds what this writes for the toy; a test keeps the two alike.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from shoal.search import notation
from shoal.search.config.places import refuse_variables
from shoal.search.config.run import Run
from shoal.search.errors import InputError

KubernetesManifest = dict[str, Any]

LABELS = {"app.kubernetes.io/name": "shoal", "app.kubernetes.io/part-of": "shoal"}
LONGEST_NAME = 47  # letters of a RayJob's name, from which the operator builds longer names
FILE = "/etc/shoal/run.yaml"
RUNS_MOUNT = "/runs"  # the claim is mounted here
AUTH, STORAGE, REDIS = "shoal-auth", "shoal-storage", "shoal-redis"  # names of secrets, which are never read
SECONDS_TO_DRAIN = 90
HOURS_OF_A_RUN = 72
HEAD_RESOURCES = {"cpu": "2", "memory": "8Gi"}
TMP_GIGABYTES, MEMORY_PER_CPU = 4, 2  # GiB


@dataclass(frozen=True)
class KubernetesSettings:
    """Where on Kubernetes a run is placed, and what its pods are given."""

    image: str = "shoal:0.1.0"
    claim: str | None = None  # PersistentVolumeClaim that is mounted at /runs
    namespace: str | None = None
    queue: str | None = None  # name of a queue of Kueue
    gpus: bool = False  # whether a cluster also has a group of GPU workers


def render_job(run: Run, values: Mapping[str, Any], settings: KubernetesSettings) -> list[KubernetesManifest]:
    """Return the ConfigMap with the run's file, and its RayJob.

    Raises InputError where the run would be written to a place that its pods lose.
    """
    name = job_name(run)
    check_storage(values, settings)
    cluster = cluster_spec(groups_of(run), settings, config=name)
    spec: KubernetesManifest = {
        "entrypoint": f"shoal run {FILE} --resume auto",
        "submissionMode": "K8sJobMode",
        "backoffLimit": 3,  # each retry is a new cluster that goes on from the run directory
        "activeDeadlineSeconds": HOURS_OF_A_RUN * 3600,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 600,
        "metadata": {"name": run.name, "shoal_directory": str(values["directory"])},
        "rayClusterSpec": cluster,
    }
    labels = LABELS | ({"kueue.x-k8s.io/queue-name": settings.queue} if settings.queue else {})
    if settings.queue:
        spec["suspend"] = True  # Kueue ends this when it admits the job
    text = notation.write_yaml(dict(values))
    config: KubernetesManifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta(name, settings, LABELS),
    }
    job = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": meta(name, settings, labels), "spec": spec}
    return [config | {"data": {"run.yaml": text}}, job]


def render_cluster(name: str, settings: KubernetesSettings, most: int = 8) -> KubernetesManifest:
    """Return a RayCluster for submitted jobs. Idle it is only a head; each group grows to `most` workers."""
    groups = [group("cpu", 0, most, cpus=4)]
    if settings.gpus:
        groups.append(group("gpu", 0, most, cpus=8, gpus=1))
    spec = cluster_spec(groups, settings)
    spec["gcsFaultToleranceOptions"] = {
        "redisAddress": f"{REDIS}:6379",
        "redisPassword": {"valueFrom": {"secretKeyRef": {"name": REDIS, "key": "password"}}},
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": meta(name, settings, LABELS),
        "spec": spec,
    }


def job_name(run: Run) -> str:
    name = re.sub(r"[^a-z0-9-]", "-", f"shoal-{run.name}".lower()).strip("-")
    if len(name) > LONGEST_NAME:
        raise InputError(
            f"name: a RayJob's name may have {LONGEST_NAME} letters, but {name} has {len(name)}; "
            f"shorten it to {LONGEST_NAME - len('shoal-')}."
        )
    return name


def check_storage(values: Mapping[str, Any], settings: KubernetesSettings) -> None:
    data = values.get("data") or {}
    places = {"directory": values.get("directory")}
    if data.get("groups"):
        places["data.corpus"] = data.get("corpus")
    for key, kept in places.items():
        refuse_variables(key, kept)
        if kept and ("://" in kept or (settings.claim and kept.startswith(f"{RUNS_MOUNT}/"))):
            continue
        raise InputError(
            f"{key}: has no storage that outlives a pod: give a URI, such as {key}=s3://bucket/runs, or "
            f"name a volume with --claim NAME and a place on it, such as {key}={RUNS_MOUNT}/demo; got {kept!r}."
        )


def groups_of(run: Run) -> list[KubernetesManifest]:
    """Return worker groups in which one pod holds one Ray Train worker and room for reading data."""
    each, workers = run.cluster, run.cluster.broods * run.workers_per_brood
    cpus = math.ceil((each.cpus_per_worker or 4.0) + 0.5)
    if not each.gpus_per_worker:
        return [group("cpu", workers, workers, cpus)]
    return [group("gpu", workers, workers, cpus, math.ceil(each.gpus_per_worker))]


def group(name: str, first: int, most: int, cpus: int, gpus: int = 0) -> KubernetesManifest:
    """Return a worker group whose pods request all that they may use.

    It is not complete: `cluster_spec` replaces its `resources` by the template of a pod.
    """
    resources = {"cpu": str(cpus), "memory": f"{MEMORY_PER_CPU * cpus}Gi"}
    if gpus:
        resources["nvidia.com/gpu"] = str(gpus)
    return {
        "groupName": name,
        "replicas": first,
        "minReplicas": 0,
        "maxReplicas": most,
        "idleTimeoutSeconds": 300,
        "rayStartParams": {},
        "resources": resources,
    }


def cluster_spec(
    groups: Sequence[KubernetesManifest], settings: KubernetesSettings, config: str | None = None
) -> KubernetesManifest:
    filled = []
    for each in groups:
        wanted = each["resources"]
        tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        extra = {"tolerations": tolerations} if "nvidia.com/gpu" in wanted else {}
        worker = container("ray-worker", wanted, settings, None) | {"lifecycle": drain()}
        pod = pod_spec(worker, settings, None, token=False) | extra
        pod["terminationGracePeriodSeconds"] = SECONDS_TO_DRAIN + 30
        rest = {key: value for key, value in each.items() if key != "resources"}
        filled.append(rest | {"template": {"metadata": {"labels": LABELS}, "spec": pod}})
    ports = {"gcs": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080}
    ports |= {"as-metrics": 44217, "dash-metrics": 44227}
    head = container("ray-head", HEAD_RESOURCES, settings, config)
    head["ports"] = [{"name": name, "containerPort": port} for name, port in ports.items()]
    return {
        "rayVersion": version("ray"),
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": 300,
            "resources": {"requests": AUTOSCALER_RESOURCES, "limits": AUTOSCALER_RESOURCES},
            "securityContext": CONTAINER_SECURITY,
        },
        "authOptions": {"mode": "token", "secretName": AUTH},
        "headGroupSpec": {
            # the driver runs on the head, the one node that must not be preempted; members run elsewhere
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},  # only the pod network reaches it
            "serviceType": "ClusterIP",
            "template": {"metadata": {"labels": LABELS}, "spec": pod_spec(head, settings, config, token=True)},
        },
        "workerGroupSpecs": filled,
    }


AUTOSCALER_RESOURCES = {"cpu": "500m", "memory": "512Mi"}
CONTAINER_SECURITY: KubernetesManifest = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def pod_spec(
    main: KubernetesManifest, settings: KubernetesSettings, config: str | None, token: bool
) -> KubernetesManifest:
    """Return a pod without rights; only the head's autoscaler needs the API server, so only it has a token."""
    volumes: list[KubernetesManifest] = [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": f"{TMP_GIGABYTES}Gi"}},
    ]
    if settings.claim:
        volumes.append({"name": "runs", "persistentVolumeClaim": {"claimName": settings.claim}})
    if config:
        volumes.append({"name": "run", "configMap": {"name": config}})
    return {
        "restartPolicy": "Never",  # autoscaler v2 replaces pods
        "automountServiceAccountToken": token,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [main],
        "volumes": volumes,
    }


def container(
    name: str, resources: Mapping[str, str], settings: KubernetesSettings, config: str | None
) -> KubernetesManifest:
    mounts = [{"name": "shm", "mountPath": "/dev/shm"}, {"name": "tmp", "mountPath": "/tmp"}]
    if settings.claim:
        mounts.append({"name": "runs", "mountPath": RUNS_MOUNT})
    if config:
        mounts.append({"name": "run", "mountPath": FILE.rpartition("/")[0]})
    return {
        "name": name,
        "image": settings.image,
        "env": [{"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "60"}, {"name": "HOME", "value": "/tmp"}],
        # a secret with credentials for a bucket may exist
        "envFrom": [{"secretRef": {"name": STORAGE, "optional": True}}],
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "securityContext": CONTAINER_SECURITY,
        "startupProbe": probe(60),
        "readinessProbe": probe(10),
        "livenessProbe": probe(24),
        "volumeMounts": mounts,
    }


def probe(failures: int) -> KubernetesManifest:
    """Return a probe that asks the node's own agent every 5 s, which answers without a token."""
    request = {"path": "/api/healthz", "port": 52365}
    return {"httpGet": request, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": failures}


def drain() -> KubernetesManifest:
    """Return the hook that tells Ray that a pod will end, in time to write checkpoints."""
    command = (
        "ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message preStop "
        f"--deadline-remaining-seconds {SECONDS_TO_DRAIN} && sleep {SECONDS_TO_DRAIN}"
    )
    return {"preStop": {"exec": {"command": ["/bin/sh", "-c", command]}}}


def meta(name: str, settings: KubernetesSettings, labels: Mapping[str, str]) -> KubernetesManifest:
    where = {"namespace": settings.namespace} if settings.namespace else {}
    return {"name": name, **where, "labels": dict(labels)}
