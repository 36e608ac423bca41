"""Held-out examples that have answers to choose from: they are kept as texts beside the rows."""

import hashlib
from collections.abc import Sequence

import pyarrow as pa

from shoal.cluster.storage import Store
from shoal.search.config.sections import Data
from shoal.search.corpus.documents import Document
from shoal.search.corpus.examples import choices_of, parts_of


def write_questions(
    store: Store, stage: str, group: str, split: str, documents: Sequence[Document], settings: Data
) -> list[str] | None:
    """Write the questions of a split's documents to the folder `stage`; return the files' final names.

    None where they are no questions: training examples, and those of formats without choices.
    """
    if split == "train" or not documents or getattr(settings.format, "choices", None) is None:
        return None
    parts = [parts_of(document) for document in documents]
    table = pa.table(
        {
            "prompt": pa.array([prompt for prompt, _ in parts], pa.string()),
            "answer": pa.array([answer for _, answer in parts], pa.string()),
            "choices": pa.array([choices_of(document) for document in documents], pa.list_(pa.string())),
        }
    )
    named = hashlib.blake2b(b"".join(document.digest for document in documents), digest_size=8).hexdigest()
    file = f"{group}/{split}/questions-{named}.parquet"
    store.write_table(f"{stage}/{file}", table)
    return [file]
