"""The commands for what runs around a cluster: `shoal k8s`, which writes manifests."""

import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer
import yaml

k8s = typer.Typer(help="Write manifests for KubeRay; `kubectl apply -f -` takes them.", no_args_is_help=True)

Image = Annotated[str, typer.Option(help="Image with Shoal in it: see the Dockerfile.")]
Claim = Annotated[str | None, typer.Option(help="PersistentVolumeClaim to mount at /runs.")]
Namespace = Annotated[str | None, typer.Option(help="Namespace to write into the manifests.")]


@k8s.command(epilog="Example: shoal k8s render examples/demo.yaml directory=s3://bucket/demo")
def render(
    file: Annotated[str, typer.Argument(help="YAML file of the run.", metavar="FILE")],
    changes: Annotated[
        list[str] | None, typer.Argument(help="Changes to it.", metavar="[key=value ...]")
    ] = None,
    image: Image = "shoal:0.1.0",
    claim: Claim = None,
    namespace: Namespace = None,
    queue: Annotated[str | None, typer.Option(help="Kueue's queue that admits the job.")] = None,
) -> None:
    """Print a RayJob for a run, and the ConfigMap that holds the run's file."""
    from search.kubernetes import Place, render_job
    from search.load import load_run, load_values

    place = Place(image=image, claim=claim, namespace=namespace, queue=queue)
    write(render_job(load_run(file, changes or []), load_values(file, changes or []), place))


@k8s.command(epilog="Example: shoal k8s cluster --claim shoal-runs --gpus")
def cluster(
    name: Annotated[str, typer.Option(help="The RayCluster's name.")] = "shoal",
    most: Annotated[int, typer.Option(min=1, help="Most workers of a group.")] = 8,
    gpus: Annotated[bool, typer.Option("--gpus", help="Also a group of GPU workers.")] = False,
    image: Image = "shoal:0.1.0",
    claim: Claim = None,
    namespace: Namespace = None,
) -> None:
    """Print a RayCluster that `shoal submit` sends jobs to."""
    from search.kubernetes import Place, render_cluster

    write([render_cluster(name, Place(image=image, claim=claim, namespace=namespace, gpus=gpus), most)])


class Dumper(yaml.SafeDumper):
    """Writes every mapping out, without anchors, and a text of several lines as one."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


Dumper.add_representer(str, _text)


def write(manifests: Iterable[dict[str, Any]]) -> None:
    sys.stdout.write(yaml.dump_all(manifests, Dumper=Dumper, sort_keys=False, width=110))
