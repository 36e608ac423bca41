"""What a swarm of `kind: mixture` costs with its small runs as members of one brood, or each as a Tune trial.

The same swarm (mixtures, steps, seeds) is trained by one brood on two workers, and with a brood (so a Tune
trial, a Train controller and a worker) for each run. Seconds are from the first trial's start to the last run's
end, on an embedded Ray that is there already. The last line is one JSON object.
"""

import argparse
import json
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks.scale import Clock
from shoal.cluster.session import session
from shoal.search.config.run import Run
from shoal.search.config.sections import Cluster, Data, Model
from shoal.search.config.swarm import Swarm
from shoal.search.corpus.build import prepare_corpus
from shoal.search.driver.population import train_population
from shoal.search.records import directory
from shoal.search.runs.mixture import as_population, design, with_small_model
from shoal.search.runs.proposal import losses_of

GROUPS = ("code", "docs", "law")
ROW = "{:<28}{:>10}{:>14}{:>18}"


def swarm_of(folder: str, corpus: str, runs: int, steps: int, cluster: Cluster) -> Run:
    """Return the swarm of a run of kind `mixture` on this cluster."""
    data = Data(corpus=corpus, groups=dict.fromkeys(GROUPS, "installed"), sequence_length=64, megabytes=1)
    small = Swarm(runs=runs, steps=steps, model=Model(layers=2, heads=2, width=32))
    run = Run(name="swarm", kind="mixture", directory=folder, data=data, swarm=small, cluster=cluster)
    return as_population(with_small_model(run), "swarm", steps, 1, design(run))


def measure(run: Run) -> dict[str, Any]:
    clock, began = Clock(), time.perf_counter()
    directory.create(run)
    with session():
        ready = time.perf_counter()
        train_population(run, clock)
        ended = time.perf_counter()
    return {
        "seconds": round(ended - ready, 2),
        "seconds_to_first_report": round(clock.times[0] - ready, 2),
        "seconds_with_ray": round(ended - began, 2),
        "losses": np.round(losses_of(run).mean(axis=1), 4).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.swarm", description=__doc__)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--full", action="store_true", help="24 runs of 200 steps: 24 trials need much memory")
    arguments = parser.parse_args()
    runs, steps = (24, 200) if arguments.full else (arguments.runs, arguments.steps)
    ways = {
        "members": Cluster(broods=1, workers_per_brood=2),
        "trials": Cluster(broods=runs),
    }
    results: dict[str, Any] = {"runs": runs, "steps": steps}
    print(ROW.format("each small run is", "seconds", "to 1st report", "with Ray's start"))
    with tempfile.TemporaryDirectory() as folder:
        for name, cluster in ways.items():
            run = swarm_of(f"{folder}/{name}", f"{folder}/corpus", runs, steps, cluster)
            prepare_corpus(run.data, lambda line: None)
            found = results[name] = measure(run)
            told = (found[key] for key in ("seconds", "seconds_to_first_report", "seconds_with_ray"))
            print(ROW.format("a member" if name == "members" else "a Tune trial", *told), flush=True)
    results["trials_over_members"] = round(results["trials"]["seconds"] / results["members"]["seconds"], 2)
    results["same_losses"] = bool(
        np.allclose(results["members"]["losses"], results["trials"]["losses"], atol=1e-3)
    )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
