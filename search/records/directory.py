"""The run directory: made once, recognised later, and what it says of its run."""

import json
import re
from typing import Any

import numpy as np
import pyarrow.lib
import yaml
from numpy.typing import NDArray
from safetensors.numpy import save

from cluster import checkpoints
from cluster.driver import ADDRESS, running_in
from cluster.storage import Store
from policies.standings import rank
from search.config.run import Run
from search.errors import InputError
from search.load import check, dump
from search.records.tables import METRICS
from trainables.tokenizer import tokenizer_of

SETTINGS, SUMMARY, JOB = "run.yaml", "summary.json", "job.json"
MOVABLE = {"directory", "cluster"}  # what may change when a run goes on elsewhere
UNPACKED = re.compile(r"^.*/_ray_pkg_[0-9a-f]+/")  # a job's working directory, elsewhere in every Ray session


def create(run: Run) -> Store:
    """Make the directory of a new run and write its resolved configuration."""
    refuse_existing(run)
    try:
        store = Store(run.directory)
        store.write(SETTINGS, dump(run))
    except (OSError, pyarrow.lib.ArrowException) as error:
        raise InputError(f"directory: {run.directory} cannot be written: {reason(error)}.") from error
    return store


def holds_run(directory: str) -> bool:
    """Say whether a run was begun in a directory; raises InputError if it cannot be read."""
    try:
        return Store(directory).exists(SETTINGS)
    except (OSError, pyarrow.lib.ArrowException) as error:
        raise InputError(f"directory: {directory} cannot be read: {reason(error)}.") from error


def same_run(given: Run) -> Run:
    """Return the run that its directory holds, on the given cluster; refuses one of other settings."""
    there, store = open_run(given.directory)
    ours, theirs = (flat(run.model_dump(mode="json", exclude=MOVABLE)) for run in (given, there))
    differ = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if differ:
        said = f"{differ[0]} is {theirs.get(differ[0])} there, {ours.get(differ[0])} here"
        raise InputError(
            f"{given.directory} holds a run of other settings: {said}. Give another place with directory=..., "
            f"or change the file back."
        )
    store.write(SETTINGS, dump(given))
    return given


def flat(values: Any, place: str = "") -> dict[str, Any]:
    """Return nested settings by their key paths; places in a job's working directory as they lie in it."""
    if not isinstance(values, dict) or not values:
        return {place: UNPACKED.sub("", values) if isinstance(values, str) else values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{place}.{key}" if place else key)
    return found


def note_job(store: Store) -> None:
    """Write down which Ray job the run is, so that it can be followed and stopped by its directory."""
    job = running_in()
    if "job_submission_id" in job:
        store.write_json(JOB, {"job": job["job_submission_id"], "address": job.get(ADDRESS, "")})


def job_of(directory: str) -> dict[str, str]:
    """Return the id and address of the job that last ran here; nothing if none did."""
    store = Store(directory)
    return dict(store.read_json(JOB)) if store.exists(JOB) else {}


def refuse_existing(run: Run) -> None:
    """Raise InputError if the run's directory cannot be read or already holds a run."""
    if holds_run(run.directory):
        raise InputError(
            f"{run.directory} already holds a run: continue it with `shoal resume {run.directory}`, "
            f"give another place with directory=..., or delete it."
        )


def open_run(directory: str) -> tuple[Run, Store]:
    """Return the run of a directory; refuses one that is not a run, or of a newer format."""
    try:
        store = Store(directory)
        text = store.read(SETTINGS).decode()
    except FileNotFoundError as error:
        raise InputError(f"{directory} is not a run directory: it has no {SETTINGS}.") from error
    except (OSError, pyarrow.lib.ArrowException) as error:
        raise InputError(f"{directory} cannot be read: {reason(error)}.") from error
    values = yaml.safe_load(text)
    if not isinstance(values, dict):
        raise InputError(f"{directory}/{SETTINGS} is not a run's configuration.")
    # a run directory may have been moved since it was written
    run = check(values | {"directory": store.uri}, f"{directory}/{SETTINGS}")
    return run, store


def summary(store: Store) -> dict[str, Any]:
    """Return what the run last said of itself; an unfinished one may have said nothing."""
    return dict(store.read_json(SUMMARY)) if store.exists(SUMMARY) else {}


def state_of(path: str) -> tuple[str, ...]:
    """Return a run's name, status, step, best score, best member and exploits, for a table."""
    run, store = open_run(path)
    said = summary(store)
    step, best, exploits, score = 0, "-", "-", "-"
    last = checkpoints.latest(store, range(run.population.members), run.shares)
    if last is not None:
        rows, number = last_rows(run, store)
        step = min(row["step"] for row in rows.values())
        best, score = str(number), f"{rows[number]['score']:.4f}"
        exploits = str(checkpoints.load_decisions(store, last)["exploits"])
    return run.name, said.get("status", "not begun"), f"{step}/{run.training.steps}", score, best, exploits


def last_rows(run: Run, store: Store) -> tuple[dict[int, dict[str, Any]], int]:
    """Return each member's metrics at its last checkpoint, and the number of the best one."""
    last = checkpoints.latest(store, range(run.population.members), run.shares)
    if last is None:
        raise InputError(f"{run.directory} has no checkpoint yet: run or resume it first.")
    saved = checkpoints.load_decisions(store, last)["saved"]
    rows = store.read_table(METRICS).to_pylist()
    found = {row["member"]: row for row in rows if row["round"] == saved[row["member"]]}
    return found, rank({member: row["score"] for member, row in found.items()})[0]


def member_of(run: Run, store: Store, member: int | None) -> dict[str, Any]:
    """Return the last metrics of a member, the best one by default; raises InputError if there is none."""
    rows, best = last_rows(run, store)
    chosen = best if member is None else member
    if chosen not in rows:
        raise InputError(f"member must be one of {', '.join(map(str, sorted(rows)))}, got {chosen}.")
    return rows[chosen]


def whole_weights(run: Run, store: Store, row: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Return a member's weights by name; the parts of what lies in shares put together."""
    parts = [
        checkpoints.load_member(store, row["round"], row["member"], (part, run.shares))
        for part in range(run.shares)
    ]
    whole = named(parts[0]["weights"])
    for name in parts[0].get("shared", []):
        whole[name] = np.concatenate([part["weights"][name] for part in parts])
    return whole


def named(weights: Any, name: str = "") -> dict[str, NDArray[Any]]:
    """Return a nest of arrays as arrays by name: those within others as `outer.inner`."""
    if isinstance(weights, dict | list | tuple):
        pairs = weights.items() if isinstance(weights, dict) else enumerate(weights)
        inner = [named(value, f"{name}.{key}" if name else str(key)) for key, value in pairs]
        return {key: value for each in inner for key, value in each.items()}
    return {name or "weights": np.asarray(weights)}


def export(run: Run, store: Store, member: int | None = None, to: Store | None = None) -> str:
    """Write a member (the best one by default) as safetensors with a JSON config; return the folder."""
    row = member_of(run, store, member)
    weights = whole_weights(run, store, row)
    config = {
        "format": run.format,
        "trainable": run.trainable,
        "shape": shape_of(run),
        "tokenizer": run.data.tokenizer,
        "run": run.name,
        "member": row["member"],
        "step": row["step"],
    }
    target = to or Store(f"{store.uri}/best")
    target.write("model.safetensors", save(weights))
    target.write("config.json", json.dumps(config, indent=2) + "\n")
    return target.uri


def shape_of(run: Run) -> dict[str, Any]:
    """Return what `trainables.decoder.Shape` takes to build the network around exported weights."""
    if not run.reads_text:
        return {}
    if run.distill is not None:
        return {"teacher": run.distill.teacher, "spaces": run.distill.model_dump()["spaces"]}
    vocabulary = tokenizer_of(run.data.tokenizer).vocabulary
    return {"vocabulary": vocabulary, "sequence_length": run.data.sequence_length, **run.model.model_dump()}


def reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error).splitlines()[0]


STRATIFIED = "stratified"
CONTROLS = {"baseline": "without exploits", STRATIFIED: "in equal shares"}  # folder -> what it is called
