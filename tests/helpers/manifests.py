"""Kustomizations built and manifests validated without a cluster: what the API server would refuse."""

import copy
import functools
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1 as prometheus_operator
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

K8S = Path(__file__).parents[2] / "k8s"
KUBERNETES = "1.33"  # whose schemas the core kinds are held against
MONITORING = {kind: getattr(prometheus_operator, kind) for kind in ("PodMonitor", "PrometheusRule")}
SUBMISSION_MODES = {"K8sJobMode", "SidecarMode", "HTTPMode", "InteractiveMode"}


def build(folder: Path) -> list[dict[str, Any]]:
    """Return what `kubectl kustomize` makes of a folder, for the part of kustomize that ours use.

    That is `resources`, JSON6902 `patches` with a target's kind, and `configMapGenerator` of files.
    """
    settings = yaml.safe_load((folder / "kustomization.yaml").read_text())
    left = set(settings) - {
        "apiVersion",
        "kind",
        "resources",
        "patches",
        "configMapGenerator",
        "generatorOptions",
    }
    assert not left, f"{folder}: build() does not know {left}"
    found = []
    for name in settings.get("resources", []):
        place = folder / name
        found += build(place) if place.is_dir() else [d for d in yaml.safe_load_all(place.read_text()) if d]
    for entry in settings.get("configMapGenerator", []):
        assert settings["generatorOptions"]["disableNameSuffixHash"] is True
        data = {Path(name).name: (folder / name).read_text() for name in entry["files"]}
        labels = entry["options"]["labels"]
        meta = {"name": entry["name"], "labels": labels}
        found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
    for patch in settings.get("patches", []):
        targets = [each for each in found if each["kind"] == patch["target"]["kind"]]
        assert targets, f"{folder}: no {patch['target']['kind']} to patch"
        for target in targets:
            for operation in yaml.safe_load(patch["patch"]):
                apply(target, operation)
    return found


def apply(document: Any, operation: dict[str, Any]) -> None:
    """Carry out one add, replace or remove of RFC 6902."""
    *path, last = (part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:])
    here = document
    for part in path:
        here = here[int(part)] if isinstance(here, list) else here[part]
    key: Any = (len(here) if last == "-" else int(last)) if isinstance(here, list) else last
    if operation["op"] == "remove":
        del here[key]
    elif operation["op"] == "add" and isinstance(here, list):
        here.insert(key, copy.deepcopy(operation["value"]))
    else:
        assert operation["op"] == "add" or key in here, f"nothing to replace at {operation['path']}"
        here[key] = copy.deepcopy(operation["value"])


def problems(document: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a manifest: by the schemas, and by the operator's own checks."""
    kind = document["kind"]
    if kind in ("RayJob", "RayCluster"):
        for error in validator(kind).iter_errors(document):
            yield f"{kind} {'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"
        yield from operator_problems(document)
    elif kind in MONITORING:
        assert document["apiVersion"] == "monitoring.coreos.com/v1"
        # the deepest: every field may also be missing, so others say that neither is the case
        if error := best_match(Draft202012Validator(monitoring_schema(kind)).iter_errors(document)):
            yield f"{kind} {'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"
    else:
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{kind} {'.'.join(map(str, error.path))}: {error.message[:200]}"


def validator(kind: str) -> Draft202012Validator:
    schema = closed(json.loads(gzip.decompress((K8S / "schemas" / f"{kind.lower()}.json.gz").read_bytes())))
    schema["properties"]["metadata"] = {"type": "object"}  # the server's own
    return Draft202012Validator(schema)


@functools.cache
def monitoring_schema(kind: str) -> dict[str, Any]:
    """Return the schema of a kind of the Prometheus operator's, which refuses unknown fields."""
    schema: dict[str, Any] = MONITORING[kind].model_json_schema(by_alias=True)
    for part in (schema, *schema["$defs"].values()):
        if "properties" in part:
            part["additionalProperties"] = False
    return schema


def closed(schema: Any) -> Any:
    """Return an OpenAPI schema as JSON schema that refuses unknown fields, as strict validation does."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if made.pop("x-kubernetes-int-or-string", False):
        return {"type": ["integer", "string"]}
    for bound in ("exclusiveMinimum", "exclusiveMaximum"):
        if isinstance(made.get(bound), bool):
            del made[bound]
    known = made.get("properties")
    if made.get("type") == "object" and isinstance(known, dict):
        # the server fills in defaults before it asks what is missing
        filled = {key for key, value in known.items() if "default" in value}
        made["required"] = [key for key in made.get("required", []) if key not in filled]
        if not made.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    return made


def operator_problems(document: dict[str, Any]) -> Iterator[str]:
    """Yield what KubeRay's operator refuses although the schema lets it pass."""
    spec, name = document["spec"], document["metadata"]["name"]
    if len(name) > (47 if document["kind"] == "RayJob" else 53):
        yield f"name {name} is too long"
    if document["kind"] == "RayJob":
        if spec.get("submissionMode", "K8sJobMode") not in SUBMISSION_MODES:
            yield f"submissionMode {spec['submissionMode']}"
        if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
            yield "suspend needs shutdownAfterJobFinishes"
        if spec.get("backoffLimit") and spec.get("clusterSelector"):
            yield "backoffLimit with clusterSelector"
        spec = spec["rayClusterSpec"]
    if "rayVersion" not in spec:
        yield "rayVersion decides about probes and tokens: set it"
    pods = [spec["headGroupSpec"]["template"]["spec"]]
    for group in spec.get("workerGroupSpecs", []):
        pods.append(group["template"]["spec"])
        if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            yield f"group {group['groupName']}: replicas must lie between the least and the most"
    version = spec.get("autoscalerOptions", {}).get("version")
    if version == "v2" and {pod.get("restartPolicy", "Never") for pod in pods} != {"Never"}:
        yield "autoscaler v2 refuses pods that restart"
