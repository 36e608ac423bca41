"""The commands around a cluster: `shoal k8s` writes manifests, `shoal grafana` sets up a dashboard."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from shoal.search.errors import InputError
from shoal.search.output import print_plainly

k8s = typer.Typer(
    help="Write manifests for KubeRay; `kubectl apply -f -` takes them, or --apply.", no_args_is_help=True
)

ImageOption = Annotated[str, typer.Option(help="Image with Shoal in it: see the Dockerfile.")]
ClaimOption = Annotated[str | None, typer.Option(help="PersistentVolumeClaim to mount at /runs.")]
NamespaceOption = Annotated[str | None, typer.Option(help="Namespace to write into the manifests.")]
ApplyOption = Annotated[bool, typer.Option("--apply", help="Apply them with kubectl instead of printing them.")]


@k8s.command(epilog="Example: shoal k8s render examples/demo.yaml directory=s3://bucket/demo")
def render(
    file: Annotated[str, typer.Argument(help="YAML file of the run.", metavar="FILE")],
    changes: Annotated[
        list[str] | None, typer.Argument(help="Changes to it.", metavar="[key=value ...]")
    ] = None,
    image: ImageOption = "shoal:0.1.0",
    claim: ClaimOption = None,
    namespace: NamespaceOption = None,
    queue: Annotated[str | None, typer.Option(help="Queue of Kueue that admits the job.")] = None,
    apply: ApplyOption = False,
) -> None:
    """Print a RayJob for a run, and the ConfigMap that holds the run's file."""
    from shoal.search.load import load_run, load_values
    from shoal.search.platform.kubernetes import KubernetesSettings, render_job

    settings = KubernetesSettings(image=image, claim=claim, namespace=namespace, queue=queue)
    deliver(render_job(load_run(file, changes or []), load_values(file, changes or []), settings), apply)


@k8s.command(epilog="Example: shoal k8s cluster --claim shoal-runs --gpus")
def cluster(
    name: Annotated[str, typer.Option(help="The RayCluster's name.")] = "shoal",
    most: Annotated[int, typer.Option(min=1, help="Largest number of workers in a group.")] = 8,
    gpus: Annotated[bool, typer.Option("--gpus", help="Add a group of GPU workers.")] = False,
    image: ImageOption = "shoal:0.1.0",
    claim: ClaimOption = None,
    namespace: NamespaceOption = None,
    apply: ApplyOption = False,
) -> None:
    """Print a RayCluster that `shoal submit` sends jobs to."""
    from shoal.search.platform.kubernetes import KubernetesSettings, render_cluster

    settings = KubernetesSettings(image=image, claim=claim, namespace=namespace, gpus=gpus)
    deliver([render_cluster(name, settings, most)], apply)


grafana = typer.Typer(help="Set up Shoal's dashboard in Grafana.", no_args_is_help=True)


@grafana.callback()
def sub_commands() -> None:
    """Make `install` a subcommand: Typer drops the name of a command that is alone."""


@grafana.command(
    "install", epilog="Example: GRAFANA_TOKEN=... shoal grafana install --url http://127.0.0.1:3000"
)
def install_dashboard(
    url: Annotated[str, typer.Option(help="Grafana's address.")],
    prometheus: Annotated[
        str, typer.Option(help="Prometheus's address, as Grafana's server sees it.")
    ] = "http://localhost:9090",
    token_file: Annotated[
        Path | None, typer.Option(help="File that holds a service account's token; GRAFANA_TOKEN without it.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the dashboard.")] = False,
) -> None:
    """Create the folder, the data source and the dashboard, or update them."""
    from shoal.cluster import grafana as server
    from shoal.cluster.dashboard import dashboard

    if dry_run:
        sys.stdout.write(json.dumps(dashboard(), indent=2) + "\n")
        return
    token = token_of(token_file)
    try:
        for line in server.install(server.open_grafana(url, token), prometheus):
            print_plainly(line)
    except server.GrafanaRefused as error:
        raise InputError(f"--url: {error}") from error


def token_of(file: Path | None) -> str:
    """Return Grafana's token; on the command line, every user of the machine could read it."""
    if file is None:
        if token := os.environ.get("GRAFANA_TOKEN", "").strip():
            return token
        raise InputError("no token: set GRAFANA_TOKEN, or name a file that holds it with --token-file.")
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(f"--token-file: {file} cannot be read: {error.strerror}.") from error


def deliver(manifests: Sequence[dict[str, Any]], applied: bool) -> None:
    """Print manifests, or apply them to kubectl's current cluster."""
    from shoal.search.platform.manifest_text import as_text

    text = as_text(manifests)
    if not applied:
        sys.stdout.write(text)
        return
    from shoal.cluster import kubectl

    rays = {each["kind"] for each in manifests if each["apiVersion"] == "ray.io/v1"}
    try:
        sys.stdout.write(kubectl.apply(text, rays))
    except kubectl.KubernetesRefused as error:
        raise InputError(f"--apply: {error}") from error
