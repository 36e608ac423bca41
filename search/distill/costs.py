"""The sub-spaces of a run and the costs of their networks."""

from shoal.search.config.run import Run
from shoal.trainables.distill.cost import decoder_cost, encoder_cost
from shoal.trainables.distill.spaces import ElasticShape, Subnet, SubSpace


def spaces_of(run: Run, shape: ElasticShape) -> dict[str, SubSpace]:
    """Return the run's sub-spaces within a teacher of this shape."""
    return {
        name: settings.build(shape.layers, shape.head_width) for name, settings in run.distilling.spaces.items()
    }


def cost_of(run: Run, shape: ElasticShape, subnet: Subnet) -> dict[str, float]:
    """Return a network's cost in millions, for one row of the run's length."""
    count = encoder_cost if shape.family == "encoder" else decoder_cost
    cost = count(shape.cut(subnet), run.data.sequence_length)
    return {"macs": cost.macs / 1e6, "parameters": cost.parameters / 1e6}


def latency_of(run: Run, shape: ElasticShape, subnet: Subnet) -> float:
    """Return a network's time for one row on this machine, in ms: the least of five, with random weights."""
    import torch

    from shoal.trainables.distill.cost import latency
    from shoal.trainables.distill.families import NETWORKS

    alone = NETWORKS[shape.family](shape.cut(subnet))
    tokens = torch.zeros((1, run.data.sequence_length), dtype=torch.long)
    return min(latency(alone, alone.shape.whole, tokens, repeats=1) for _ in range(5))
