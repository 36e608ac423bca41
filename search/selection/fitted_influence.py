"""The target's gradients times the inverse curvature, found once and kept beside the scores."""

from typing import Any

import numpy as np

from shoal.cluster.storage import Store
from shoal.search.errors import InputError
from shoal.search.selection.corpora import TokenRows
from shoal.search.selection.interface import Scoring
from shoal.search.selection.model_scorers import reader_of


def fit_influence(scoring: Scoring, rows: TokenRows, targets: dict[str, TokenRows]) -> int:
    """Measure the curvature on rows of the pool; write what rows are to be multiplied with, for each target.

    Returns how many rows were measured; 0 if the file is there already. Raises InputError where `layers` names
    no layer.
    """
    import torch
    from safetensors.numpy import save

    from shoal.trainables.influence.ekfac import fit_factors, mean_query, rows_at_once, solved_queries
    from shoal.trainables.influence.likelihoods import NextTokens
    from shoal.trainables.influence.traces import traced_layers
    from shoal.trainables.scoring import passes

    store, file = Store(scoring.fitted[0]), scoring.fitted[1]
    if store.exists(file):
        return 0
    reader, settings = reader_of(scoring), scoring.settings
    try:
        layers = traced_layers(reader.module, settings.layers)
    except ValueError as error:
        raise InputError(f"{scoring.key}.{error}") from error

    def batches(tokens: TokenRows) -> list[Any]:
        parts = [part for _, part in reader.parts(tokens)]
        at_once = rows_at_once(layers)
        return [each for part in parts for _, each in passes(reader.module, part, at_once)]

    likelihood = NextTokens(reader.module)
    factors = fit_factors(likelihood, layers, batches(rows), torch.Generator().manual_seed(0))
    found = {}
    for number, tokens in enumerate(targets.values()):
        if settings.over == "mean":
            queries = mean_query(likelihood, layers, factors, batches(tokens))
        else:
            queries = solved_queries(likelihood, layers, factors, batches(tokens), settings.rank)
        for name, query in queries.items():
            for side, values in zip(("left", "right"), query, strict=True):
                if values is not None:
                    found[f"{number}/{side}/{name}"] = np.ascontiguousarray(values.cpu().numpy())
    store.write(file, save(found))
    return len(rows)
