"""Several nodes on one machine: a job from outside, what happens to its nodes, and nothing lost of the run."""

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.search.load import load_run
from tests.helpers.listening import addresses
from tests.helpers.nodes import Nodes
from tests.helpers.runs import TOY, scores, start, without_ray
from tests.helpers.watching import Browser, Prometheus, needs_browser, needs_prometheus, wait_until
from tests.search.worker.test_asynchronous import check_lineage

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
# a head that is back takes jobs before its nodes are
SPREAD = "broods: 1, workers_per_brood: 2, cpus_per_worker: 0.4, placement: SPREAD, patience: 120"
SHAPE = [f"cluster={{{SPREAD}}}"]
LONG = [*SHAPE, "training.steps=6000"]
ENDLESS = "training.steps=400000"
PATIENCE = 500  # seconds: on a machine that others load, all of it takes many times longer


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A head that does no work and two workers of one CPU each, either of which can hold the whole run."""
    with Nodes() as made:
        made.head(0)
        made.worker(1)
        made.worker(1)
        yield made


def submit(nodes: Nodes, directory: Path, *changes: str) -> "subprocess.Popen[str]":
    place = (f"directory={directory}", "--address", nodes.address, "--working-dir", str(ROOT))
    return start("submit", TOY, *changes, *place)


def processes_of(nodes: Nodes, node: "subprocess.Popen[bytes]", word: str) -> list[int]:
    found = []
    for process in nodes.of(node):
        said = subprocess.run(["ps", "-o", "args=", "-p", str(process)], capture_output=True, text=True).stdout
        found += [process] if word in said else []
    return found


def job_of(directory: Path) -> str:
    return (directory / "job.json").read_text().split('"')[3]


def driver_log(nodes: Nodes, directory: Path) -> str:
    """Return what the driver of a run's job has printed, from the head's own files."""
    head = nodes.folder / str(nodes.numbers[nodes.nodes[0].pid])
    (log,) = head.glob(f"session_2*/logs/job-driver-{job_of(directory)}.log")
    return log.read_text()


def ask(nodes: Nodes, *arguments: str) -> str:
    process = start(*arguments, RAY_API_SERVER_ADDRESS=nodes.address)
    said, _ = process.communicate(timeout=PATIENCE)
    return said


def reached(directory: Path) -> int:
    """Return the last round that a run has recorded."""
    parts = [each.name for each in directory.glob("metrics.parquet/part-*.parquet")]
    return int(max(parts)[5:11]) if parts else 0


def wait_for(directory: Path, round_: int, process: "subprocess.Popen[str]", seconds: float = PATIENCE) -> None:
    """Wait until a run has recorded this round."""

    def there() -> bool:
        assert process.poll() is None or reached(directory) >= round_, process.communicate()[0]
        return reached(directory) >= round_

    wait_until(there, seconds, lambda: f"round {reached(directory)}")


def stopped(nodes: Nodes, directory: Path, process: "subprocess.Popen[str]") -> str:
    """Stop a run's job by its directory; return what whoever had submitted it was told."""
    assert "STOPPED" in ask(nodes, "stop", str(directory))
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    return said


def is_a_plain_loops(directory: Path) -> None:
    """What a run that was stopped has recorded is what a plain loop says."""
    found = scores(directory)
    rounds = found[-1][0]
    assert [row[:2] for row in found] == [(1 + place // 4, place % 4) for place in range(4 * rounds)]
    # nobody copies after the last round, so the loop is one round longer
    assert found == without_ray(TOY, f"training.steps={4 * (rounds + 1)}")[1][: len(found)]


def test_a_lost_node_costs_no_member_step(nodes, tmp_path) -> None:
    process = submit(nodes, tmp_path / "run", *LONG)
    wait_for(tmp_path / "run", 100, process)
    assert f"job {job_of(tmp_path / 'run')}: RUNNING" in ask(nodes, "status", job_of(tmp_path / "run"))
    hosts = [node for node in nodes.nodes[1:] if processes_of(nodes, node, "RayTrainWorker")]
    assert len(hosts) == 2  # a worker of the brood on each
    nodes.kill(hosts[0])
    said, _ = process.communicate(timeout=PATIENCE)
    nodes.worker(1)
    assert process.returncode == 0, said
    found = scores(tmp_path / "run")
    assert len(found) == 4 * 1500
    assert found == without_ray(TOY, *LONG)[1]
    assert "#/jobs/toy-" in said and "best member" in said
    assert "best member" in ask(nodes, "logs", str(tmp_path / "run"))


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_a_brood_that_is_told_to_go_hands_over(nodes, tmp_path, mode: str) -> None:
    # a loss without warning would end this run
    changes = [f"cluster={{{SPREAD}, spot: true, restarts: 0}}", f"population.mode={mode}"]
    # toys that wait for nobody train thousands of steps a second
    every, steps = (1000, 400000) if mode == "synchronous" else (1, 100000000)
    changes += [f"checkpoint.every={every}", f"training.steps={steps}"]
    process = submit(nodes, tmp_path / "run", *changes)

    def kept() -> list[int]:
        return [int(place.parent.name[-6:]) for place in tmp_path.glob("run/checkpoints/*/decisions.json")]

    wait_for(tmp_path / "run", 20, process)
    nodes.drain(nodes.nodes[-1], seconds=30)
    if mode == "synchronous":  # without the notice there would be none before round 1000
        wait_until(lambda: any(round_ % every for round_ in kept()), 90, lambda: str(kept()))
    # the brood leaves by the deadline; a node that is told to go and idle ends itself
    gone = nodes.nodes[-1]
    wait_until(lambda: not processes_of(nodes, gone, "RayTrainWorker"), PATIENCE)
    nodes.kill(gone)
    wait_for(tmp_path / "run", reached(tmp_path / "run") + 100, process)
    stopped(nodes, tmp_path / "run", process)
    nodes.worker(1)
    if mode == "synchronous":
        is_a_plain_loops(tmp_path / "run")
    else:
        check_lineage(load_run(str(tmp_path / "run/run.yaml")))


def test_broods_come_and_go_with_nodes(nodes, tmp_path) -> None:
    # a node of one CPU holds one brood, two nodes hold two
    shape = "cluster={broods: 2, broods_least: 1, workers_per_brood: 1, cpus_per_worker: 0.9}"
    nodes.kill(nodes.nodes[-1])
    process = submit(nodes, tmp_path / "run", shape, ENDLESS)
    wait_for(tmp_path / "run", 50, process)
    for change in ("room for 2 broods in place of 1", "room for 1 broods in place of 2"):
        if "2 broods in" in change:
            nodes.worker(1)
        else:
            nodes.kill(nodes.nodes[-1])
        wait_until(lambda said=change: said in driver_log(nodes, tmp_path / "run"), PATIENCE)
        wait_for(tmp_path / "run", reached(tmp_path / "run") + 50, process)
    stopped(nodes, tmp_path / "run", process)
    nodes.worker(1)
    is_a_plain_loops(tmp_path / "run")


def test_a_dead_driver_is_submitted_again_and_goes_on(nodes, tmp_path) -> None:
    process = submit(nodes, tmp_path / "run", *LONG)
    wait_for(tmp_path / "run", 100, process)
    first = job_of(tmp_path / "run")
    for driver in processes_of(nodes, nodes.nodes[0], "search run"):
        os.kill(driver, signal.SIGKILL)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert "its driver died; submitting it again" in said
    assert job_of(tmp_path / "run") != first
    assert scores(tmp_path / "run") == without_ray(TOY, *LONG)[1]
    # a third time finds it finished, which is no mistake
    again = submit(nodes, tmp_path / "run", *LONG)
    assert "is finished" in again.communicate(timeout=PATIENCE)[0] and again.returncode == 0


def test_a_cluster_that_died_and_came_back_goes_on(nodes, tmp_path) -> None:
    process = submit(nodes, tmp_path / "run", *LONG)
    wait_for(tmp_path / "run", 100, process)
    for node in nodes.nodes[::-1]:
        nodes.kill(node)
    for cpus in (0, 1, 1):
        (nodes.worker if cpus else nodes.head)(cpus)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert "lost the head" in said and "was lost with the head; submitting it again" in said
    assert scores(tmp_path / "run") == without_ray(TOY, *LONG)[1]


def test_a_stopped_job_says_so_and_can_go_on(nodes, tmp_path) -> None:
    given = ("--metadata", "team=fish", "--resource", "driver=0.5")
    process = submit(nodes, tmp_path / "run", *SHAPE, ENDLESS, *given)
    wait_for(tmp_path / "run", 20, process)
    with urllib.request.urlopen(f"{nodes.address}/api/jobs/{job_of(tmp_path / 'run')}") as answer:
        told = json.loads(answer.read())["metadata"]
    assert told["name"] == "toy" and told["team"] == "fish"
    assert told["shoal_directory"] == str(tmp_path / "run")
    assert processes_of(nodes, nodes.nodes[0], "search run")  # the only node with that resource
    assert "was stopped. Submit it again" in stopped(nodes, tmp_path / "run", process)
    assert "interrupted" in (tmp_path / "run/summary.json").read_text()
    before = reached(tmp_path / "run")
    again = submit(nodes, tmp_path / "run", *SHAPE, ENDLESS, "--no-wait")
    said, _ = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0 and "follow it with `shoal logs --follow toy-" in said
    wait_until(lambda: reached(tmp_path / "run") > before + 20, PATIENCE)
    assert "STOPPED" in ask(nodes, "stop", str(tmp_path / "run"))
    is_a_plain_loops(tmp_path / "run")


@needs_browser
@needs_prometheus
@pytest.mark.browser
def test_a_browser_shows_the_job_its_actors_and_its_metrics(nodes, tmp_path) -> None:
    process = submit(nodes, tmp_path / "run", *SHAPE, ENDLESS)
    wait_for(tmp_path / "run", 20, process)
    kept = Path(os.environ.get("SCREENSHOTS", tmp_path))
    job = job_of(tmp_path / "run")
    found = nodes.folder / str(nodes.numbers[nodes.nodes[0].pid]) / "prom_metrics_service_discovery.json"
    with Browser(tmp_path) as browser, Prometheus(tmp_path, found) as prometheus:
        browser.open(f"{nodes.address}/#/jobs")
        browser.shows(job, "RUNNING")
        browser.picture(kept / "jobs.png")
        browser.open(f"{nodes.address}/#/jobs/{job}")
        browser.shows(job, "best score")  # its log
        browser.click("Actor Table")
        browser.shows("Mailbox", "RayTrainWorker")
        browser.picture(kept / "job.png")
        browser.open(f"{nodes.address}/#/actors")
        browser.shows("Mailbox", "RayTrainWorker")
        browser.picture(kept / "actors.png")
        # Ray's page of metrics shows Grafana's panels; Prometheus has a page of its own, which asks once
        wait_until(lambda: prometheus.ask("query", query="ray_shoal_step"), 120)
        browser.open(f"{prometheus.url}/graph?g0.expr=max+by(run)(ray_shoal_step)&g0.tab=0&g0.range_input=30s")
        browser.shows('{run="toy"}')
        browser.picture(kept / "metrics.png")
    stopped(nodes, tmp_path / "run", process)


def test_a_cluster_with_a_token_lets_in_who_has_it(tmp_path) -> None:
    token = "t" * 40
    with Nodes(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token) as closed:
        head = closed.head(1)
        (tmp_path / "token").write_text(token)
        sent = ("submit", TOY, f"directory={tmp_path}/run", "--working-dir", str(ROOT), "training.steps=40")

        def knock(*command: str, **variables: str) -> tuple[int, str]:
            process = start(*command, "--address", closed.address, **variables)
            said, _ = process.communicate(timeout=PATIENCE)
            return process.returncode, said

        for command in (sent, ("status", "toy-1")):
            code, said = knock(*command, RAY_AUTH_MODE="disabled")
            assert code == 2 and "asks for a token: set RAY_AUTH_MODE=token" in said and said.count("\n") == 1
            code, said = knock(*command, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="w" * 40)
            assert code == 2 and "does not accept this token" in said and said.count("\n") == 1
        key = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
        code, said = knock("status", "toy-1", **key)
        assert code == 2 and "knows no such job" in said
        code, said = knock(*sent, "cluster={broods: 1, cpus_per_worker: 0.8}", **key)
        assert code == 0 and "best member" in said, said
        hosts = {place for place in addresses(closed.of(head)) if place.endswith(f":{closed.dashboard}")}
        assert hosts == {f"127.0.0.1:{closed.dashboard}"}
