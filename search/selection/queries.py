"""The file that holds the target's gradients times the inverse curvature: name, content, reading."""

from typing import Any

from shoal.cluster.storage import Store


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
