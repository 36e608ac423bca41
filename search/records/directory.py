"""The run directory: it is made once and opened later, and tells the status of its run."""

import json
import os
import re
import shlex
from typing import Any

import numpy as np
import pyarrow.lib
from numpy.typing import NDArray
from safetensors.numpy import save

from shoal.cluster import checkpoints, lease
from shoal.cluster.storage import BrokenFile, Store, reason
from shoal.cluster.this_job import ADDRESS, running_in
from shoal.search.config.places import absolute, escaped
from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.search.load import checked_run, dump, parse
from shoal.search.messages import Row
from shoal.search.records import inputs
from shoal.search.records.last import member_of, read_last_rows, read_settled
from shoal.search.tokenizers import open_tokenizer
from shoal.trainables.classifier_settings import ClassifierSettings
from shoal.trainables.coding import coded_size
from shoal.trainables.recipes.densities import without_masks

SETTINGS, SUMMARY, JOB = "run.yaml", "summary.json", "job.json"
TRACKED = "track.json"  # how far each tracker was told of the run
MOVABLE = {"code", "declared", "directory", "cluster", "track"}  # these may change when a run goes on elsewhere
UNPACKED = re.compile(r"^.*/_ray_pkg_[0-9a-f]+/")  # every Ray session unpacks a job's files into another folder


def create(run: Run) -> Store:
    """Make the directory of a new run and write its resolved configuration."""
    refuse_existing(run)
    noted = inputs.inputs_of(run)
    _write(run, inputs.INPUTS, json.dumps(noted, indent=2) + "\n")
    return _write(run, SETTINGS, dump(run))


def check_place(run: Run) -> None:
    """Raise InputError if a run's directory cannot be written; checked before minutes of work, not after."""
    _write(run, ".probe", b"").delete(".probe")


def _write(run: Run, name: str, content: bytes | str) -> Store:
    try:
        store = Store(run.directory)
        store.write(name, content)
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
    """Return the given run with the rows of the one in its directory, which must be the same.

    The cluster may differ, and so may places with the same content. Raises InputError if anything else
    differs. The new configuration is written into the directory.
    """
    there, store, _ = recorded(given.directory)
    given = on_chosen_rows(given, there)
    data = given.data.model_copy(update={"content": given.data.content or there.data.content})
    given = given.model_copy(update={"data": data})
    known = inputs.check_same(given, store)
    ours, theirs = (flat_settings(run.model_dump(exclude=MOVABLE)) for run in (given, there))
    differ = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    differ = [key for key in differ if not known(key)]
    if data.content is not None and data.content == there.data.content:
        # the rows are equal, so their sources and their place may differ
        groups = {f"data.groups.{name}" for name in given.data.groups.keys() & there.data.groups.keys()}
        differ = [key for key in differ if key not in groups | {"data.corpus"}]
    if differ:
        said = f"{differ[0]} is {theirs.get(differ[0])} there, {ours.get(differ[0])} here"
        raise InputError(
            f"{given.directory} holds a run with other settings: {said}. Give another place with "
            f"directory=..., or change the file back."
        )
    store.write(SETTINGS, dump(given))
    return given


def on_chosen_rows(given: Run, there: Run) -> Run:
    """Return the given run on the rows that the one in its directory chose, if both choose rows."""
    if given.selection is None or there.selection is None or not there.selection.chosen:
        return given
    kept = {"chosen": there.selection.chosen, "corpus": there.selection.corpus}
    groups = {name: source for name, source in given.data.groups.items() if name in there.data.groups}
    changes: dict[str, Any] = {"corpus": there.data.corpus, "groups": groups}
    if given.data.proportions is None:
        changes["proportions"] = there.data.proportions
    data = given.data.model_copy(update=changes)
    return given.model_copy(update={"data": data, "selection": given.selection.model_copy(update=kept)})


def flat_settings(values: Any, place: str = "") -> dict[str, Any]:
    """Return nested settings by their key paths; paths in a job's working directory are relative to it."""
    if not isinstance(values, dict) or not values:
        return {place: UNPACKED.sub("", values) if isinstance(values, str) else values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat_settings(value, f"{place}.{key}" if place else key)
    return found


def note_job(store: Store) -> None:
    """Write down the run's Ray job, so that it can be followed and stopped by its directory."""
    job = running_in()
    if "job_submission_id" in job:
        store.write_json(JOB, {"job": job["job_submission_id"], "address": job.get(ADDRESS, "")})


def job_of(directory: str) -> dict[str, str]:
    """Return the id and address of the job that last ran here; nothing if none did."""
    store = Store(directory)
    return dict(store.read_json(JOB, "job", "address")) if store.exists(JOB) else {}


def refuse_existing(run: Run) -> None:
    """Raise InputError if the run's directory cannot be read or already holds a run."""
    if holds_run(run.directory):
        way_on = f"continue it with `shoal resume {shlex.quote(run.directory)}`"
        raise InputError(
            f"{run.directory} already holds a run: {way_on}, "
            f"give another place with directory=..., or delete it."
        )


def open_run(directory: str) -> tuple[Run, Store]:
    """Return the run of a directory; raises InputError if it holds none, or one of a newer format.

    The directory may have moved since it was written, together with the files beside it.
    """
    run, store, before = recorded(directory)
    return inputs.moved(run, before), store


def going_on(directory: str) -> tuple[Run, Store]:
    """Return the run of a directory that is to train on; its inputs may have moved, but not changed.

    Raises InputError if an input has other content now.
    """
    run, store, before = recorded(directory)
    found = inputs.moved(inputs.at_home(run, store, before), before)
    if found != run or before != run.directory:
        store.write(SETTINGS, dump(found))
    return found, store


def recorded(directory: str) -> tuple[Run, Store, str]:
    """Return a directory's run with its places as written, the store, and the directory's place back then."""
    try:
        # workers get this place, and have another working folder
        store = Store(directory if "://" in directory else os.path.abspath(os.path.expanduser(directory)))
        text = store.read(SETTINGS).decode()
    except FileNotFoundError as error:
        raise InputError(f"{directory} is not a run directory: it has no {SETTINGS}.") from error
    except UnicodeDecodeError as error:
        raise BrokenFile(f"{directory}/{SETTINGS}", reason(error)) from error
    except (OSError, pyarrow.lib.ArrowException) as error:
        raise InputError(f"{directory} cannot be read: {reason(error)}.") from error
    values = parse(text, f"{directory}/{SETTINGS}")
    run = checked_run(values | {"directory": escaped("directory", store.uri)}, f"{directory}/{SETTINGS}")
    before = values.get("directory")
    return run, store, absolute("directory", before) if isinstance(before, str) and before else run.directory


def way_out(broken: BrokenFile) -> str:
    """Return what the user can do about a broken file of a run."""
    if os.path.basename(broken.path) in (SUMMARY, JOB, lease.LEASE, lease.BEAT):
        return "Delete it: a run goes on without it."
    if f"/{checkpoints.CHECKPOINT_FOLDER}/" in broken.path or ".parquet" in broken.path:
        return "`shoal resume` goes back to the newest round that is whole."
    return "Put it back as it was."


def summary(store: Store) -> dict[str, Any]:
    """Return the summary that the run wrote last; it may be empty until the run is finished.

    A run whose status is `running` but whose driver is gone counts as stopped.
    """
    said = dict(store.read_json(SUMMARY, "status")) if store.exists(SUMMARY) else {}
    return said | {"status": "stopped"} if said.get("status") == "running" and not lease.alive(store) else said


def state_of(path: str) -> tuple[str, ...]:
    """Return a run's name, status, step, best score, best member and exploits, for a table."""
    run, store = open_run(path)
    return read_settled(lambda: _state_of(run, store))


def _state_of(run: Run, store: Store) -> tuple[str, ...]:
    said = summary(store)
    step, best, exploits, score = 0, "-", "-", "-"
    last = checkpoints.latest(store, range(run.population.members), run.shares)
    if last is not None and any(checkpoints.load_decisions(store, last)["saved"]):
        rows, number = read_last_rows(run, store, last)
        step = min(row.step for row in rows.values())
        best, score = str(number), f"{rows[number].score:.4f}"
        exploits = str(checkpoints.load_decisions(store, last)["exploits"])
    return run.name, said.get("status", "not begun"), f"{step}/{run.training.steps}", score, best, exploits


def whole_weights(run: Run, store: Store, row: Row) -> dict[str, NDArray[Any]]:
    """Return a member's weights by name; sharded weights are put together."""
    parts = [
        checkpoints.load_member(store, row.round, row.member, (part, run.shares)) for part in range(run.shares)
    ]
    if "weights" not in parts[0]:
        raise InputError(f"{run.trainable}: its state() returns no `weights`, so none can be read.")
    whole = arrays_by_name(parts[0]["weights"])
    for name in parts[0].get("shared", []):
        whole[name] = np.concatenate([part["weights"][name] for part in parts])
    return whole


def arrays_by_name(weights: Any, name: str = "") -> dict[str, NDArray[Any]]:
    """Return the arrays of a nest by name; inner ones are named `outer.inner`."""
    if isinstance(weights, dict | list | tuple):
        pairs = weights.items() if isinstance(weights, dict) else enumerate(weights)
        inner = [arrays_by_name(value, f"{name}.{key}" if name else str(key)) for key, value in pairs]
        return {key: value for each in inner for key, value in each.items()}
    return {name or "weights": np.asarray(weights)}


def export_member(
    run: Run, store: Store, member: int | None = None, to: Store | None = None, merge: bool = False
) -> str:
    """Write a member (the best one by default) as safetensors with a JSON config; return the file of weights.

    With `merge` an adapter is added to the weights of its base.
    """

    def read() -> tuple[Row, dict[str, NDArray[Any]]]:
        chosen = member_of(run, store, member)
        return chosen, whole_weights(run, store, chosen)

    row, found = read_settled(read)
    weights = without_masks(found)
    config = {
        "format": run.format,
        "trainable": run.trainable,
        "shape": exported_shape(run),
        **({"settings": run.settings} if run.own or run.settings else {}),
        **({"objective": run.model_dump(include={"objective"})["objective"]} if run.objective else {}),
        **({"classes": names} if (names := class_names(run)) else {}),
        **({"inputs": seen} if (seen := class_inputs(run)) else {}),
        "tokenizer": run.data.tokenizer,
        "run": run.name,
        "member": row.member,
        "step": row.step,
    }
    if uses_prior(run):
        config["coded"] = coded_size(weights)._asdict()
    target = to or Store(f"{store.uri}/best")
    if run.pretrained:
        from shoal.search.records.pretrained import export_pretrained  # it loads torch, which few commands need

        return f"{target.uri}/{export_pretrained(run, weights, config, target, merge)}"
    if run.trainable == "embedder":
        from shoal.search.records.sentences import export_sentences, exports_sentences

        if exports_sentences(run) and not merge:
            return f"{target.uri}/{export_sentences(run, weights, config, target)}"
    if merge:
        raise InputError(f"--merge: only a causal_lm has an adapter to merge, got {run.trainable}.")
    target.write("model.safetensors", as_safetensors(weights))
    target.write("config.json", json.dumps(config, indent=2) + "\n")
    return f"{target.uri}/model.safetensors"


def uses_prior(run: Run) -> bool:
    """Say whether a prior makes weights that take fewer bits once they are coded."""
    chosen = [set(run.hyperparameters), set(run.population.parts)]
    chosen += [set(start.hyperparameters) for start in run.starts]
    chosen += [set(entry.hyperparameters) for entry in run.schedule]
    return bool(run.training.prior) or "prior" in set().union(*chosen)


def note_coded_size(run: Run, store: Store) -> None:
    """Write down what the best member takes once it is coded, if a prior aims at that."""
    if uses_prior(run):
        weights = whole_weights(run, store, member_of(run, store, None))
        store.write_json(SUMMARY, summary(store) | {"coded": coded_size(weights)._asdict()})


def as_safetensors(weights: dict[str, NDArray[Any]]) -> bytes:
    for name, weight in weights.items():
        try:
            save({name: weight[:0] if weight.ndim else weight})
        except Exception as error:  # safetensors raises its own errors
            raise InputError(f"{name}: weights of {weight.dtype} cannot be exported as safetensors.") from error
    return save(weights)


def class_names(run: Run) -> list[Any]:
    """Return the names of a classifier's classes, or nothing where they have none."""
    if run.trainable != "classifier":
        return []
    label = run.data.columns.get(str(run.settings.get("label", ClassifierSettings.label)))
    return list(getattr(label, "names", None) or ())


def class_inputs(run: Run) -> list[str]:
    """Return the columns that a classifier's network sees, in their order, as far as the file says them."""
    if run.trainable != "classifier" or not run.data.columns:
        return []
    from shoal.search.config.objective import class_settings, inputs_among

    return list(inputs_among(class_settings(run), run.data.columns))


def exported_shape(run: Run) -> dict[str, Any]:
    """Return the arguments of `shoal.trainables.settings.DecoderShape` for the network of exported weights.

    For a run of kind distill they are its teacher and its spaces; other members than decoders have none.
    """
    if run.distill is not None:
        return {"teacher": run.distill.teacher, "spaces": run.distill.model_dump()["spaces"]}
    if run.trainable != "decoder":
        return {}
    vocabulary = open_tokenizer(run.data.tokenizer).vocabulary
    return {"vocabulary": vocabulary, "sequence_length": run.data.sequence_length, **run.model.shape}


STRATIFIED = "stratified"
CONTROLS = {"baseline": "without exploits", STRATIFIED: "in equal shares"}  # folder -> name in reports
