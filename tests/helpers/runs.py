"""Whole runs for tests: started as a person would start them, and read back."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from examples.loop import train as plain_train
from shoal.cluster import checkpoints
from shoal.cluster.storage import Store
from shoal.policies import population
from shoal.search.load import load_run
from shoal.search.records.lineage import read_lineage

ROOT = Path(__file__).parents[2]
TOY = str(ROOT / "examples/toy.yaml")
STARTED: list[subprocess.Popen[str]] = []


def start(*arguments: str, folder: Path = ROOT, **variables: str) -> subprocess.Popen[str]:
    """Start the command line in a process group of its own."""
    program = [
        sys.executable,
        "-c",
        "from shoal.search.cli import run_command_line; run_command_line()",
        *arguments,
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    process = subprocess.Popen(
        program,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    STARTED.append(process)
    return process


def end_started() -> None:
    """End what a test that failed or ran out of time has left behind, and the Ray below it."""
    while STARTED:
        process = STARTED.pop()
        if process.poll() is not None:
            continue
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C, upon which a run stops its Ray
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def shoal(*arguments: str, folder: Path = ROOT, **variables: str) -> str:
    process = start(*arguments, folder=folder, **variables)
    said, _ = process.communicate(timeout=1120)
    assert process.returncode == 0, said
    return said


def wait_for_round(directory: Path, round_: int, process: subprocess.Popen[str]) -> None:
    """Wait until a run has checkpointed this round."""
    deadline = time.monotonic() + 800
    while not (directory / "checkpoints" / f"round-{round_:06d}" / "decisions.json").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def events(directory: Path) -> list:
    return read_lineage(Store(str(directory)))


def scores(directory: Path) -> list[tuple[int, int, float]]:
    rows = Store(str(directory)).read_table("metrics.parquet").to_pylist()
    return sorted((row["round"], row["member"], row["score"]) for row in rows)


def members(directory: Path, count: int) -> list[dict]:
    store = Store(str(directory))
    last = checkpoints.latest(store, range(count))
    return [checkpoints.load_member(store, last, member)["weights"] for member in range(count)]


def same_weights(first: list[dict], second: list[dict]) -> bool:
    return all(
        np.array_equal(one[name], other[name]) for one, other in zip(first, second, strict=True) for name in one
    )


def without_ray(path: str, *changes: str) -> tuple[list[population.Order], list[tuple[int, int, float]]]:
    """Run the toy of a file as the plain loop of the examples: the reference that Ray has to equal."""
    run = load_run(path, changes)
    given = run.population
    loop = plain_train(run.space(), run.rules(), given.members, run.training.steps, given.interval, run.seed)
    rounds = list(enumerate(loop, 1))
    copies = [order for _, (_, orders) in rounds for order in orders]
    return copies, [(round_, each.member, each.score) for round_, (reports, _) in rounds for each in reports]


def write_texts(folder: Path) -> Path:
    """Write two small groups of text that differ."""
    rng = np.random.default_rng(0)
    for group, alphabet in (("letters", "abcdefgh "), ("digits", "0123456789\n")):
        (folder / group).mkdir()
        for i in range(60):
            (folder / group / f"{i}.txt").write_text("".join(rng.choice(list(alphabet), 800)))
    return folder


def small_run(texts: Path, directory: Path) -> list[str]:
    return [
        str(ROOT / "examples/demo.yaml"),
        f"directory={directory}",
        f"data.corpus={texts}/corpus",
        f"data.groups={{letters: '{texts}/letters', digits: '{texts}/digits'}}",
        "data.sequence_length=32",
        # probes of four steps that ready points cut
        "mixing.policy={kind: aioli, every: 12, probe_share: 0.6, sweeps: 1, noise: 0, prior_steps: 3}",
        "data.validation=0.2",
        "data.test=0.2",
        "model={layers: 1, heads: 2, width: 16}",
        "training={steps: 40, batch: 4, warmup: 2, evaluation_rows: 8, dropout: 0.1}",
        "population={members: 4, interval: 4, exploit: {kind: truncation, fraction: 0.5}}",
        # in a stack, what dropout drops depends on who is in it, so a replay would not be the same
        "cluster.stack=false",
    ]
