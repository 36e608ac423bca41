"""The target's gradients times the inverse curvature, found once and kept beside the scores."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.cluster.storage import Store
from shoal.search.errors import InputError
from shoal.search.selection.interface import Scoring
from shoal.search.selection.model_scorers import reader_of

Tokens = NDArray[np.unsignedinteger]


def fit_influence(scoring: Scoring, rows: Tokens, targets: dict[str, Tokens]) -> int:
    """Measure the curvature on rows of the pool; write what rows are to be multiplied with, for each target.

    Returns how many rows were measured; 0 if the file is there already. Raises InputError where `layers` names
    no layer.
    """
    import torch
    from safetensors.numpy import save

    from shoal.trainables.influence.ekfac import fit_factors, mean_query, rows_at_once, solved_queries
    from shoal.trainables.influence.likelihoods import NextTokens
    from shoal.trainables.influence.traces import linear_layers
    from shoal.trainables.scoring import passes

    store, file = Store(scoring.fitted[0]), scoring.fitted[1]
    if store.exists(file):
        return 0
    reader, settings = reader_of(scoring), scoring.settings
    try:
        layers = linear_layers(reader.module, settings.layers)
    except ValueError as error:
        raise InputError(f"{scoring.key}.{error}") from error

    def batches(tokens: Tokens) -> list[Any]:
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


def read_queries(store: Store, file: str, device: str) -> list[dict[str, Any]]:
    """Return the queries of each target, by layer."""
    import torch
    from safetensors.numpy import load

    from shoal.trainables.influence.ekfac import Query

    stored = {name: torch.from_numpy(values).to(device) for name, values in load(store.read(file)).items()}
    found: list[dict[str, Any]] = []
    for name, left in stored.items():
        number, side, layer = name.split("/", 2)
        while len(found) <= int(number):
            found.append({})
        if side == "left":
            found[int(number)][layer] = Query(left, stored.get(f"{number}/right/{layer}"))
    return found
