"""Scores of a corpus's training rows by an exported model, made once in a stage of Ray Data and kept.

A row's score is the model's mean loss on it. The actors of the stage write the scores of each training file as
a Parquet file of the same name, `row_id` beside `score`, into `scores/MODEL-CONTENT` of the corpus. The cost of
scoring is noted there too, and each run that uses the scores reports it.
"""

import hashlib
import re
import time
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from numpy.typing import NDArray
from safetensors.numpy import load

from shoal.cluster.rows import TOKENS, as_rows, id_type
from shoal.cluster.session import capacity
from shoal.cluster.storage import Store
from shoal.policies.ranks import ranks
from shoal.search.config.sections import Data
from shoal.search.corpus.build import Manifest, load_corpus
from shoal.search.errors import InputError
from shoal.search.exported import check_exported, read_exported
from shoal.trainables.settings import DecoderShape

FOLDER, RECORD = "scores", "scored.json"  # the record is written last: if it is there, the scores are whole
KEY = "sampling.scorer"
KEPT_SCORE = "score_"  # the columns of a chosen corpus's files that hold scores begin so
CPUS = 0.5  # CPUs of an actor without a GPU; on a small machine no whole CPU may be free


class Scorer:
    """An actor of the stage: scores and writes the files that it is given."""

    def __init__(self, corpus: str, model: str, folder: str, length: int, device: str):
        import torch

        from shoal.trainables.decoder import trained_decoder

        torch.set_num_threads(1)
        shape = DecoderShape(**read_exported(KEY, model)["shape"])
        self.store, self.folder = Store(corpus), folder
        self.model = trained_decoder(shape, load(Store(model).read("model.safetensors")), length, device)

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        from shoal.trainables.scoring import row_losses

        began, rows = time.perf_counter(), 0
        for file in batch["file"].tolist():
            table = self.store.read_table(file, columns=["row_id", TOKENS])
            tokens = as_rows(table, id_type(self.model.shape.vocabulary))
            scored = pa.table({"row_id": table["row_id"], "score": row_losses(self.model, tokens)})
            self.store.write_table(f"{self.folder}/{file}", scored)
            rows += len(table)
        return {"rows": np.array([rows]), "seconds": np.array([time.perf_counter() - began])}


def score_corpus(data: Data, model: str, gpus: float = 0.0) -> dict[str, Any]:
    """Return the record of a corpus's scores by a model; score it on the connected Ray if there is none.

    Each actor has `gpus` GPUs, or part of a CPU; there are as many as the cluster has room for. Raises
    InputError where the model cannot score the corpus, or has changed since it did.
    """
    manifest, store = load_corpus(data), Store(data.corpus)
    folder = folder_of(model, manifest)
    if store.exists(f"{folder}/{RECORD}"):
        return checked_record(store.read_json(f"{folder}/{RECORD}"), folder, data, model)
    check_exported(KEY, model, manifest.tokenizer, manifest.vocabulary)
    files = [file for group in manifest.groups.values() for file in group.splits["train"].files]
    arguments = (data.corpus, model, folder, manifest.sequence_length, "cuda" if gpus else "cpu")
    began = time.perf_counter()
    done = on_actors(files, arguments, gpus)
    record = {
        "model": model,
        "weights": hex_digest(Store(model).read("model.safetensors")),
        "content": manifest.content,
        "rows": sum(each["rows"] for each in done),
        "passes": 1,  # forward passes over all training rows
        "seconds": round(time.perf_counter() - began, 3),
        "actor_seconds": round(sum(each["seconds"] for each in done), 3),
    }
    store.write_json(f"{folder}/{RECORD}", record)
    return record


def on_actors(files: list[str], arguments: tuple[Any, ...], gpus: float) -> list[dict[str, Any]]:
    """Give the files out to a pool of actors, as a stage of Ray Data; return what they say of each."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    had = capacity()
    actors = int(had.get("GPU", 0.0) / gpus) if gpus else int(had["CPU"])
    names = ray.data.from_items([{"file": file} for file in files], override_num_blocks=len(files))
    stage = names.map_batches(
        Scorer,
        fn_constructor_args=arguments,
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=max(1, min(actors, len(files)))),
        num_gpus=gpus or None,
        num_cpus=None if gpus else CPUS,
    )
    return list(stage.take_all())


def read_scores(data: Data, model: str) -> dict[str, NDArray[np.float32]]:
    """Return the score of each training row of each group, `(rows,)`, rows in the order of the files."""
    manifest, store = load_corpus(data), Store(data.corpus)
    folder = folder_of(model, manifest)
    found = {}
    for name, group in manifest.groups.items():
        parts = []
        for file in group.splits["train"].files:
            rows = store.read_table(file, columns=["row_id"])["row_id"].to_numpy()
            scored = store.read_table(f"{folder}/{file}")
            parts.append(matched(rows, scored["row_id"].to_numpy(), scored["score"].to_numpy()))
        found[name] = np.concatenate(parts)
    return found


def read_kept_scores(data: Data, name: str | tuple[str, ...]) -> dict[str, NDArray[np.float32]]:
    """Return a score that a selection has kept beside each group's rows, in the order of the files.

    Several scores are put into ranks over all groups, from 0 to 1, as columns: their units differ. Groups of
    which nothing was chosen, since nobody trains on them, have none.
    """
    if isinstance(name, str):
        return kept_scores(data, name)
    each = [kept_scores(data, one) for one in name]
    ranked = [in_ranks(scores) for scores in each]
    return {group: np.stack([scores[group] for scores in ranked], axis=1) for group in each[0]}


def in_ranks(scores: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Return ranks over all groups from 0 to 1; a row whose score is not finite has NaN."""
    whole = np.concatenate(list(scores.values()))
    known = np.isfinite(whole)
    found = np.full(len(whole), np.nan, np.float32)
    found[known] = ranks(whole[known]) / max(int(known.sum()) - 1, 1)
    cuts = np.cumsum([len(values) for values in scores.values()])[:-1]
    return dict(zip(scores, np.split(found, cuts), strict=True))


def kept_scores(data: Data, name: str) -> dict[str, NDArray[np.float32]]:
    manifest, store = load_corpus(data), Store(data.corpus)
    found, had = {}, set[str]()
    for group, splits in manifest.groups.items():
        parts = []
        for file in splits.splits["train"].files:
            table = store.read_table(file, columns=[f"{KEPT_SCORE}{name}"])
            parts += [table[each].to_numpy() for each in table.column_names]
            if not parts:
                had |= {each for each in store.read_table(file).column_names if each.startswith(KEPT_SCORE)}
                break
        if parts:
            found[group] = np.concatenate(parts).astype(np.float32)
    if not found:
        known = ", ".join(sorted(each.removeprefix(KEPT_SCORE) for each in had)) or "none"
        raise InputError(
            f"sampling.score: {data.corpus} has no score {name} beside its rows, but has {known}; `selection:` "
            f"keeps those of its scores that hold a number a row."
        )
    return found


def cost(data: Data, model: str) -> dict[str, Any]:
    """Return the record of finished scores: their model, rows, passes and seconds."""
    return dict(Store(data.corpus).read_json(f"{folder_of(model, load_corpus(data))}/{RECORD}"))


def matched(
    rows: NDArray[np.int64], ids: NDArray[np.int64], scores: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the score of each of these rows by its id; NaN for a row without one."""
    order = np.argsort(ids)
    place = order[np.searchsorted(ids, rows, sorter=order).clip(max=len(ids) - 1)]
    return np.where(ids[place] == rows, scores[place], np.float32(np.nan))


def folder_of(model: str, manifest: Manifest) -> str:
    """Return the folder of a corpus's scores by a model; other corpora have other folders."""
    return f"{FOLDER}/{re.sub(r'[^A-Za-z0-9]+', '-', model).strip('-')}-{manifest.content[:12]}"


def checked_record(record: dict[str, Any], folder: str, data: Data, model: str) -> dict[str, Any]:
    """Raise InputError if the model has other weights than those that scored; it may be gone."""
    store = Store(model)
    there = store.exists("model.safetensors")
    if not there or hex_digest(store.read("model.safetensors")) == record["weights"]:
        return record
    raise InputError(
        f"sampling.scorer: {data.corpus}/{folder} has scores of this corpus by other weights than {model} now "
        f"has; delete that folder to score again."
    )


def hex_digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
