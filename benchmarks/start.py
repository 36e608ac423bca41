"""How long a start takes: the toy's first step, `shoal --help`, `shoal validate`, each beside its like.

The first step is timed from the command's start, Ray's start included: `shoal run` beside a script that trains
the same toy by stock Ray Tune with reused actors. Both sides are measured in turn, so that a slow minute of the
machine hits both; ratios are those of medians. The stages of `shoal run` say whose seconds they are. The last
line is one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from benchmarks.parts.first_step import INTERVAL, MEMBERS, STEPS, noted

ROOT = Path(__file__).parents[1]
SHOAL = [sys.executable, "-m", "shoal"]
MOST_SECONDS = 120.0  # that one program may take


def run_program(program: list[str], folder: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installation has compiled modules, ours as theirs
    done = subprocess.run(
        program, cwd=folder, env=environment, capture_output=True, text=True, timeout=MOST_SECONDS
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(program)} ended with {done.returncode}: {done.stdout}{done.stderr}")


def seconds_of(program: list[str]) -> float:
    """Return how long a program takes from its start to its end."""
    began = time.time()
    run_program(program, str(ROOT))
    return time.time() - began


def clocked_run(folder: str) -> dict[str, Any]:
    """Return the settings of the clocked toy."""
    unit = {"kind": "float", "low": 0.0, "high": 1.0}
    return {
        "name": "start",
        "trainable": "benchmarks.parts.first_step:Clocked",
        "code": str(ROOT),
        "directory": f"{folder}/run",
        "training": {"steps": STEPS},
        "hyperparameters": {"h0": unit, "h1": unit, "notes": {"kind": "constant", "value": folder}},
        "population": {"members": MEMBERS, "interval": INTERVAL},
        "cluster": {"broods": 1, "workers_per_brood": 2},
    }


def stages_of_shoal() -> dict[str, float]:
    """Return the seconds of each stage until the first step of `shoal run`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run.yaml")
        file.write_text(yaml.safe_dump(clocked_run(folder)))
        began = time.time()
        run_program([*SHOAL, "run", str(file)], folder)
        place = Path(folder)
        # the directory is made as soon as Ray is there
        ray, made, step = (
            Path(folder, "run/inputs.json").stat().st_mtime,
            noted(place, "made"),
            noted(place, "step"),
        )
    return {"imports and Ray": ray - began, "trial, controller, workers": made - ray, "members": step - made}


def stages_of_stock() -> dict[str, float]:
    """Return the seconds of each stage until the first step of stock Tune."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        run_program([sys.executable, "-m", "benchmarks.parts.first_step", folder], str(ROOT))
        ray, made, step = (noted(Path(folder), what) for what in ("ray", "made", "step"))
    return {"imports and Ray": ray - began, "trials": made - ray, "members": step - made}


def in_turn(repeats: int, *measures: Callable[[], Any]) -> list[list[Any]]:
    """Return what each measure gave, `repeats` times, taken in turn."""
    taken = [[measure() for measure in measures] for _ in range(repeats)]
    return [list(each) for each in zip(*taken, strict=True)]


def ratio(ours: list[float], theirs: list[float]) -> float:
    return round(statistics.median(ours) / statistics.median(theirs), 2)


def medians(stages: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(each[name] for each in stages), 2) for name in stages[0]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=["run", "commands"])
    arguments = parser.parse_args()
    result: dict[str, Any] = {"repeats": arguments.repeats, "cores": os.cpu_count()}
    if arguments.only != "run":
        toy = str(ROOT / "examples/toy.yaml")
        names = ("help", "typer", "validate", "pydantic", "needed")
        programs = (
            [*SHOAL, "--help"],
            [sys.executable, "-c", "import typer"],
            [*SHOAL, "validate", toy],
            [sys.executable, "-c", "import pydantic, yaml"],
            [sys.executable, "-c", "import pydantic, yaml, typer, numpy"],
        )
        measures = [lambda program=program: seconds_of(program) for program in programs]
        found = dict(zip(names, in_turn(arguments.repeats, *measures), strict=True))
        result |= {f"{name}_seconds": round(statistics.median(each), 3) for name, each in found.items()}
        result["help_over_typer"] = ratio(found["help"], found["typer"])
        result["validate_over_pydantic"] = ratio(found["validate"], found["pydantic"])
        result["validate_over_needed"] = ratio(found["validate"], found["needed"])
        print(result, flush=True)
    if arguments.only != "commands":
        ours, theirs = in_turn(arguments.repeats, stages_of_shoal, stages_of_stock)
        totals = [[sum(stages.values()) for stages in each] for each in (ours, theirs)]
        result["run_seconds"], result["stock_seconds"] = (round(statistics.median(each), 2) for each in totals)
        result["run_over_stock"] = ratio(*totals)
        result["run_stages"], result["stock_stages"] = medians(ours), medians(theirs)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
