"""The run directory: it is made once and recognised later, and says how its run stands."""

import json
import os
import re
import shlex
from typing import Any

import numpy as np
import pyarrow.lib
from numpy.typing import NDArray
from safetensors.numpy import save

from cluster import checkpoints
from cluster.driver import ADDRESS, running_in
from cluster.storage import Store
from policies.standings import rank
from search.config.places import escaped
from search.config.run import Run
from search.errors import InputError
from search.load import check, dump, parse
from search.records.tables import METRICS
from search.tokenizers import open_tokenizer

SETTINGS, SUMMARY, JOB = "run.yaml", "summary.json", "job.json"
MOVABLE = {"code", "directory", "cluster"}  # these may change when a run goes on elsewhere
UNPACKED = re.compile(r"^.*/_ray_pkg_[0-9a-f]+/")  # every Ray session unpacks a job's files into another folder


def create(run: Run) -> Store:
    """Make the directory of a new run and write its resolved configuration."""
    refuse_existing(run)
    try:
        store = Store(run.directory)
        store.write(SETTINGS, dump(run))
    except (OSError, pyarrow.lib.ArrowException) as error:
        raise InputError(f"directory: {run.directory} cannot be written: {error_reason(error)}.") from error
    return store


def holds_run(directory: str) -> bool:
    """Say whether a run was begun in a directory; raises InputError if it cannot be read."""
    try:
        return Store(directory).exists(SETTINGS)
    except (OSError, pyarrow.lib.ArrowException) as error:
        raise InputError(f"directory: {directory} cannot be read: {error_reason(error)}.") from error


def same_run(given: Run) -> Run:
    """Return the given run, whose directory must hold the same one; its cluster may be another.

    Raises InputError if any other setting differs. The new configuration is written into the directory.
    """
    there, store = open_run(given.directory)
    ours, theirs = (flat_settings(run.model_dump(exclude=MOVABLE)) for run in (given, there))
    differ = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if differ:
        said = f"{differ[0]} is {theirs.get(differ[0])} there, {ours.get(differ[0])} here"
        raise InputError(
            f"{given.directory} holds a run of other settings: {said}. Give another place with directory=..., "
            f"or change the file back."
        )
    store.write(SETTINGS, dump(given))
    return given


def flat_settings(values: Any, place: str = "") -> dict[str, Any]:
    """Return nested settings by their key paths; paths in a job's working directory are relative to it."""
    if not isinstance(values, dict) or not values:
        return {place: UNPACKED.sub("", values) if isinstance(values, str) else values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat_settings(value, f"{place}.{key}" if place else key)
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
        way_on = f"continue it with `shoal resume {shlex.quote(run.directory)}`"
        raise InputError(
            f"{run.directory} already holds a run: {way_on}, "
            f"give another place with directory=..., or delete it."
        )


def open_run(directory: str) -> tuple[Run, Store]:
    """Return the run of a directory; raises InputError if it holds none, or one of a newer format."""
    try:
        # a command that trains on hands the place to workers, which have another working folder
        store = Store(directory if "://" in directory else os.path.abspath(os.path.expanduser(directory)))
        text = store.read(SETTINGS).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{directory}/{SETTINGS}: is not UTF-8 text, so no run wrote it.") from error
    except FileNotFoundError as error:
        raise InputError(f"{directory} is not a run directory: it has no {SETTINGS}.") from error
    except (OSError, pyarrow.lib.ArrowException) as error:
        raise InputError(f"{directory} cannot be read: {error_reason(error)}.") from error
    values = parse(text, f"{directory}/{SETTINGS}")
    # a run directory may have been moved since it was written
    here = {"directory": escaped("directory", store.uri)}
    run = check(values | here, f"{directory}/{SETTINGS}")
    return run, store


def summary(store: Store) -> dict[str, Any]:
    """Return the summary that the run wrote last; it may be empty until the run is finished."""
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
    """Return a member's weights by name; sharded weights are put together."""
    parts = [
        checkpoints.load_member(store, row["round"], row["member"], (part, run.shares))
        for part in range(run.shares)
    ]
    whole: dict[str, NDArray[Any]] = dict(parts[0]["weights"])
    for name in parts[0].get("shared", []):
        whole[name] = np.concatenate([part["weights"][name] for part in parts])
    return whole


def export_member(run: Run, store: Store, member: int | None = None, to: Store | None = None) -> str:
    """Write a member (the best one by default) as safetensors with a JSON config; return the folder."""
    row = member_of(run, store, member)
    weights = whole_weights(run, store, row)
    config = {
        "format": run.format,
        "trainable": run.trainable,
        "shape": exported_shape(run),
        "tokenizer": run.data.tokenizer,
        "run": run.name,
        "member": row["member"],
        "step": row["step"],
    }
    target = to or Store(f"{store.uri}/best")
    target.write("model.safetensors", save(weights))
    target.write("config.json", json.dumps(config, indent=2) + "\n")
    return target.uri


def exported_shape(run: Run) -> dict[str, Any]:
    """Return the arguments of `trainables.settings.DecoderShape` for the network of exported weights.

    For a run of kind distill they are its teacher and its spaces; a run that reads no text has none.
    """
    if not run.reads_text:
        return {}
    if run.distill is not None:
        return {"teacher": run.distill.teacher, "spaces": run.distill.model_dump()["spaces"]}
    vocabulary = open_tokenizer(run.data.tokenizer).vocabulary
    return {"vocabulary": vocabulary, "sequence_length": run.data.sequence_length, **run.model.model_dump()}


def error_reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error).splitlines()[0]


STRATIFIED = "stratified"
CONTROLS = {"baseline": "without exploits", STRATIFIED: "in equal shares"}  # folder -> name in reports
