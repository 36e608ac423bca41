"""An embedder's encoder as a folder that sentence-transformers loads, and transformers too."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.cluster.storage import Store
from shoal.search.config.objective import embedder_settings
from shoal.search.config.places import unpackaged
from shoal.search.config.run import Run
from shoal.search.records.pretrained import TOKENIZER_FILES, pieces_of

TRANSFORMER, POOLING, NORMALISED = "", "1_Pooling", "2_Normalize"
MODULES = {
    TRANSFORMER: "sentence_transformers.models.Transformer",
    POOLING: "sentence_transformers.models.Pooling",
    NORMALISED: "sentence_transformers.models.Normalize",
}
TOLD, WEIGHTS = "shoal.json", "model.safetensors"


def exports_sentences(run: Run) -> bool:
    """Say whether a run's members are encoders of transformers, one for queries and positives."""
    if run.trainable != "embedder":
        return False
    settings = embedder_settings(run)
    folder = Path(unpackaged("settings.encoder", settings.encoder))
    if not settings.encoder or settings.towers == "two" or not (folder / "config.json").exists():
        return False
    return "trainable" not in json.loads((folder / "config.json").read_text())


def export_sentences(
    run: Run, weights: Mapping[str, NDArray[Any]], told: Mapping[str, Any], target: Store
) -> str:
    """Write a member's encoder; return the name of the file of its weights. `told` is kept beside it.

    Its embeddings are means of last states, of length 1, as those of the member are compared.
    """
    import torch

    from shoal.trainables.text_tower import open_encoder

    settings = embedder_settings(run)
    module: Any = open_encoder(unpackaged("settings.encoder", settings.encoder))
    known = dict(module.named_parameters())
    before = "query.encoder."
    with torch.no_grad():
        for name, weight in weights.items():
            if (own := name.removeprefix(before)) in known:
                known[own].copy_(torch.from_numpy(np.array(weight)))
    with tempfile.TemporaryDirectory() as folder:
        module.save_pretrained(folder)
        for file in sorted(Path(folder).iterdir()):
            target.write_pieces(file.name, pieces_of(file))
    column = run.data.columns[settings.query]
    for name in TOKENIZER_FILES:
        if (found := Path(unpackaged("data.tokenizer", column.tokenizer), name)).exists():
            target.write(name, found.read_bytes())
    write_modules(target, module.config.hidden_size, column.length)
    target.write_json(TOLD, dict(told))
    return WEIGHTS


def write_modules(target: Store, width: int, length: int) -> None:
    """Write what sentence-transformers reads: its modules, how states are pooled, and the longest text."""
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": kind}
        for place, (path, kind) in enumerate(MODULES.items())
    ]
    target.write_json("modules.json", modules)
    target.write_json("sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    pooling = {
        "word_embedding_dimension": width,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    target.write_json(f"{POOLING}/config.json", pooling)
