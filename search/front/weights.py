"""How many numbers a member holds, as far as that shows before it is made."""

from typing import Any, NamedTuple

import numpy as np

from shoal.policies.space import sample_space
from shoal.search.config.run import Run
from shoal.search.config.sections import Model
from shoal.search.members.classes import class_of
from shoal.search.records.directory import arrays_by_name
from shoal.search.tokenizers import open_tokenizer

FLOAT, HALF = 4, 2  # bytes of a number in float32 and in bfloat16


class MemberWeights(NamedTuple):
    """What one member holds. Of a distill run it is the largest of the sub-spaces."""

    trained: int  # numbers
    frozen_bytes: int = 0  # weights that each member has of its own and does not train
    shared_bytes: int = 0  # a base or a teacher, which a worker holds once for all of its members


def weights_of(run: Run, model: Model) -> MemberWeights | None:
    """Return what a member holds; None where that is known only once it is made with its rows."""
    if run.kind == "distill":
        return of_super_network(run)
    if run.trainable == "toy":
        return MemberWeights(2)
    if run.trainable == "decoder":
        return MemberWeights(decoder_weights(run, model))
    if run.trainable == "causal_lm":
        return of_pretrained(run)
    return None if run.takes_rows else of_own_class(run)


def of_own_class(run: Run) -> MemberWeights | None:
    made = class_of(run)
    values = sample_space(run.space(), np.random.default_rng(0))
    try:
        member: Any = made(run.training.build(), values, run.seed, "cpu")
        found = member.state()["weights"]
    except Exception:  # the user's own code, which may need rows or a worker, says so when it trains
        return None
    return MemberWeights(sum(weight.size for weight in arrays_by_name(found).values()))


def decoder_weights(run: Run, model: Model) -> int:
    """Count the decoder's weights on torch's device `meta`, which allocates none."""
    import torch

    from shoal.trainables.decoder import Decoder
    from shoal.trainables.settings import DecoderShape

    shape = DecoderShape(
        vocabulary=open_tokenizer(run.data.tokenizer).vocabulary,
        sequence_length=run.data.sequence_length,
        **model.shape,
    )
    with torch.device("meta"):
        return sum(weight.numel() for weight in Decoder(shape).parameters())


def of_pretrained(run: Run) -> MemberWeights:
    """Count an adapter beside its frozen base, or a whole model beside what of it is frozen."""
    from torch import nn

    from shoal.search.models import outline_of, settings_of
    from shoal.trainables.pretrained.low_rank import is_target, linear_sizes
    from shoal.trainables.recipes.frozen import matching

    given = settings_of(run)
    module = outline_of(given.path)
    sizes = {name: weight.numel() for name, weight in module.named_parameters()}
    if given.adapter is None:
        frozen = sum(sizes[name] for name in matching(set(sizes), given.freeze, "freeze"))
        return MemberWeights(sum(sizes.values()) - frozen, frozen_bytes=frozen * FLOAT)
    tables = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    layers = {id(part.weight) for part in module.modules() if isinstance(part, nn.Linear)} - tables
    # linear layers of a frozen base lie in memory as they compute
    narrow = HALF if run.training.precision == "bfloat16" else FLOAT
    base = sum(weight.numel() * (narrow if id(weight) in layers else FLOAT) for weight in module.parameters())
    seats = [
        sum(ends)
        for name, ends in linear_sizes(module).items()
        if any(is_target(name, target) for target in given.adapter.targets)
    ]
    return MemberWeights(given.adapter.rank * sum(seats), shared_bytes=base)


def of_super_network(run: Run) -> MemberWeights:
    """Count the largest super-network, and the teacher beside it."""
    import torch

    from shoal.search.distill.card import card_of, read_teacher
    from shoal.search.distill.costs import spaces_of
    from shoal.trainables.distill.families import NETWORKS

    shape = read_teacher(run).shape
    assert shape is not None, "a teacher of another kind is refused before"

    def numbers(cut: Any) -> int:
        with torch.device("meta"):
            return sum(weight.numel() for weight in NETWORKS[cut.family](cut).parameters())

    project = run.distilling.losses.hidden > 0  # a projection to the teacher's width trains too
    largest = max(
        numbers(shape.cut(space.whole)) + project * space.whole.width * shape.width
        for space in spaces_of(run, shape).values()
    )
    others = [card_of(name, "distill.ensemble").shape for name in run.distilling.ensemble]
    teachers = [numbers(each) for each in (shape, *filter(None, others))]
    return MemberWeights(largest, shared_bytes=sum(teachers) * FLOAT)
