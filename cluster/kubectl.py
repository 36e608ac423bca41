"""Manifests handed to a Kubernetes cluster through kubectl, whose complaints become one line."""

import json
import subprocess
from collections.abc import Collection

SECONDS_FOR_KUBECTL = 15
INSTALL = "install KubeRay's operator first: helm install kuberay-operator kuberay/kuberay-operator"


class KubernetesRefused(RuntimeError):
    """Kubernetes does not answer, or does not take what it was given; one line says why."""


def apply(manifests: str, kinds: Collection[str]) -> str:
    """Apply manifests to kubectl's current context and return what it says; `kinds` are KubeRay's among them.

    Raises Refused before anything is applied where the cluster does not know a kind.
    """
    missing = sorted(set(kinds) - _known())
    if missing:
        names = " and no ".join(missing)
        raise KubernetesRefused(
            f"the Kubernetes cluster has no {names} (CRDs of ray.io/v1 are missing): {INSTALL}."
        )
    return _kubectl("apply", "--filename", "-", given=manifests)


def _known() -> set[str]:
    """Return the kinds of KubeRay that the cluster knows."""
    try:
        found = json.loads(_kubectl("get", "--raw", "/apis/ray.io/v1"))
    except KubernetesRefused as error:
        if "NotFound" in str(error):  # kubectl says so where an API group is not there
            return set()
        raise
    return {each["kind"] for each in found["resources"]}


def _kubectl(*arguments: str, given: str = "") -> str:
    command = ["kubectl", f"--request-timeout={SECONDS_FOR_KUBECTL}s", *arguments]
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120)
    except FileNotFoundError as error:
        raise KubernetesRefused(
            "kubectl is needed to reach a Kubernetes cluster, and there is none here."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise KubernetesRefused("kubectl has not come back within 120 s.") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise KubernetesRefused(f"kubectl says: {said[-1]}")
    return done.stdout
