"""Several nodes on one machine: a job from outside, a node lost in the middle, and nothing lost of the run."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nodes import Nodes
from tests.test_ray import TOY, scores, start, wait_for_round, without_ray
from tests.watching import browse, needs_browser, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parent.parent
SHAPE = ["cluster={broods: 1, workers_per_brood: 2, cpus_per_worker: 0.4, placement: SPREAD}"]
LONG = [*SHAPE, "training.steps=6000"]


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


def ask(nodes: Nodes, *arguments: str) -> str:
    process = start(*arguments, RAY_API_SERVER_ADDRESS=nodes.address)
    said, _ = process.communicate(timeout=120)
    return said


def test_a_lost_node_costs_no_member_step(nodes, tmp_path) -> None:
    process = submit(nodes, tmp_path / "run", *LONG)
    wait_for_round(tmp_path / "run", 100, process)
    assert f"job {job_of(tmp_path / 'run')}: RUNNING" in ask(nodes, "status", job_of(tmp_path / "run"))
    hosts = [node for node in nodes.nodes[1:] if processes_of(nodes, node, "RayTrainWorker")]
    assert len(hosts) == 2  # a brood on each
    nodes.kill(hosts[0])
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    found = scores(tmp_path / "run")
    assert len(found) == 4 * 1500
    assert found == without_ray(TOY, *LONG)[1]
    assert "#/jobs/toy-" in said and "best member" in said
    assert "best member" in ask(nodes, "logs", str(tmp_path / "run"))
    nodes.nodes.remove(hosts[0])
    nodes.worker(1)


def test_a_node_that_is_told_to_go_leaves_a_checkpoint_behind(nodes, tmp_path) -> None:
    shape = "cluster={broods: 1, workers_per_brood: 2, cpus_per_worker: 0.4, placement: SPREAD, spot: true}"
    process = submit(nodes, tmp_path / "run", shape, "checkpoint.every=1000", "training.steps=400000")

    def kept() -> list[int]:
        return [int(place.parent.name[-6:]) for place in tmp_path.glob("run/checkpoints/*/decisions.json")]

    wait_until(lambda: (tmp_path / "run/metrics.parquet/part-000020.parquet").exists(), 100)
    nodes.drain(nodes.nodes[-1], seconds=10)
    wait_until(lambda: any(round_ % 1000 for round_ in kept()), 60, lambda: str(kept()))
    told = min(round_ for round_ in kept() if round_ % 1000)
    nodes.kill(nodes.nodes.pop())
    before = max(row[0] for row in scores(tmp_path / "run"))
    wait_until(lambda: scores(tmp_path / "run")[-1][0] > before + 100, 100)
    ask(nodes, "stop", str(tmp_path / "run"))
    process.communicate(timeout=60)
    nodes.worker(1)
    found = scores(tmp_path / "run")
    assert told < found[-1][0]
    assert found == without_ray(TOY, f"training.steps={4 * (found[-1][0] + 1)}")[1][: len(found)]


def test_broods_come_and_go_with_nodes(nodes, tmp_path) -> None:
    # a node of one CPU holds one brood and its trial, two nodes hold two
    shape = "cluster={broods: 2, broods_least: 1, workers_per_brood: 1, cpus_per_worker: 0.9}"
    nodes.kill(nodes.nodes.pop())
    process = submit(nodes, tmp_path / "run", shape, "training.steps=400000")
    wait_for_round(tmp_path / "run", 50, process)
    for change in ("room for 2 broods in place of 1", "room for 1 broods in place of 2"):
        if "2 broods in" in change:
            nodes.worker(1)
        else:
            nodes.kill(nodes.nodes.pop())
        wait_until(lambda said=change: said in ask(nodes, "logs", str(tmp_path / "run")), 150)
        reached = max(row[0] for row in scores(tmp_path / "run"))
        wait_for_round(tmp_path / "run", reached + 50, process)
    ask(nodes, "stop", str(tmp_path / "run"))
    process.communicate(timeout=60)
    nodes.worker(1)
    found = scores(tmp_path / "run")
    rounds = found[-1][0] + 1
    assert found == without_ray(TOY, f"training.steps={4 * rounds}")[1][: len(found)]


def test_a_dead_driver_is_submitted_again_and_goes_on(nodes, tmp_path) -> None:
    process = submit(nodes, tmp_path / "run", *LONG)
    wait_for_round(tmp_path / "run", 100, process)
    first = job_of(tmp_path / "run")
    for driver in processes_of(nodes, nodes.nodes[0], "search run"):
        os.kill(driver, signal.SIGKILL)
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert "its driver died; submitting it again" in said
    assert job_of(tmp_path / "run") != first
    assert scores(tmp_path / "run") == without_ray(TOY, *LONG)[1]
    # a third time finds it finished, which is no mistake
    again = submit(nodes, tmp_path / "run", *LONG)
    assert "is finished" in again.communicate(timeout=120)[0] and again.returncode == 0


def test_a_stopped_job_says_so_and_can_go_on(nodes, tmp_path) -> None:
    process = submit(nodes, tmp_path / "run", *SHAPE, "training.steps=400000")
    wait_for_round(tmp_path / "run", 20, process)
    assert "STOPPED" in ask(nodes, "stop", str(tmp_path / "run"))
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "was stopped. Submit it again" in said
    assert "interrupted" in (tmp_path / "run/summary.json").read_text()


@needs_browser
@pytest.mark.browser
def test_the_dashboard_shows_the_job_and_its_actors(nodes, tmp_path) -> None:
    process = submit(nodes, tmp_path / "run", *SHAPE, "training.steps=400000")
    wait_for_round(tmp_path / "run", 20, process)
    kept = Path(os.environ.get("SCREENSHOTS", tmp_path))
    job = job_of(tmp_path / "run")
    seen = browse(f"{nodes.address}/#/jobs", kept, "jobs")
    assert job in seen and "RUNNING" in seen
    actors = browse(f"{nodes.address}/#/actors", kept, "actors")
    assert "Mailbox" in actors and "RayTrainWorker" in actors
    browse(f"{nodes.address}/#/jobs/{job}", kept, "job")
    ask(nodes, "stop", job)
    process.communicate(timeout=60)


def test_a_cluster_with_a_token_lets_in_who_has_it(tmp_path) -> None:
    token = "t" * 40
    with Nodes(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token) as closed:
        closed.head(1)
        (tmp_path / "token").write_text(token)

        def knock(**variables: str) -> tuple[int, str]:
            process = start("status", "toy-1", "--address", closed.address, **variables)
            said, _ = process.communicate(timeout=60)
            return process.returncode, said

        code, said = knock(RAY_AUTH_MODE="disabled")
        assert code == 2 and "asks for a token: set RAY_AUTH_MODE=token" in said
        code, said = knock(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="w" * 40)
        assert code == 2 and "does not accept this token" in said
        code, said = knock(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"))
        assert code == 2 and "knows no such job" in said
        listening = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True).stdout
        ours = [
            line.split()[3]
            for line in listening.splitlines()
            if line.split()[3].endswith(f":{closed.dashboard}")
        ]
        assert all(place.startswith("127.0.0.1:") for place in ours)
