"""The super-networks of a worker. They share a teacher and their rows; each has its own sub-space."""

from collections.abc import Callable
from typing import Any

import torch

from shoal.policies.parts import part_of_member
from shoal.search.config.run import Run
from shoal.search.corpus.text import HeldOut
from shoal.search.distill.costs import spaces_of
from shoal.search.distill.teacher import open_teacher
from shoal.trainables.batches import NoBatches
from shoal.trainables.distill.elastic import Transformer
from shoal.trainables.distill.shared import SharedTeacher
from shoal.trainables.distill.spaces import SubSpace
from shoal.trainables.distill.supernet import DistillRecipe, Relation, SuperNetwork, Weights
from shoal.trainables.member import Batches, Member


def maker_of_networks(
    run: Run, batches: Callable[[], Batches], held_out: HeldOut, device: str
) -> Callable[[int, dict[str, Any]], Member]:
    """Return what makes a member; the teacher is loaded once for all, and asked once for each batch."""
    teacher, origin = open_teacher(run, device)
    if run.distilling.staged:
        from shoal.search.distill.stage import read_staged  # it loads Ray Data, which few runs need

        teacher.staged = read_staged(run, teacher, device)
    spaces = list(spaces_of(run, origin.shape).values())

    def make(number: int, values: dict[str, Any]) -> Member:
        space, seed = spaces[part_of_member(number, run.parts)], run.member_seed(number)
        return super_network(run, space, (teacher, origin), values, batches(), held_out, seed, device)

    return make


def super_network(
    run: Run,
    space: SubSpace,
    taught: tuple[SharedTeacher, Transformer],
    hyperparameters: dict[str, Any],
    batches: Batches,
    held_out: HeldOut,
    seed: int,
    device: str,
) -> SuperNetwork:
    chosen, (teacher, origin) = run.distilling, taught
    weights = Weights(**chosen.losses.model_dump())
    relation = Relation(chosen.relation_heads, chosen.relation, chosen.chunk, chosen.random, run.seed, weights)
    names = set(DistillRecipe.__dataclass_fields__)
    recipe = DistillRecipe(
        **run.training.model_dump(include=names), **chosen.model_dump(include={"tilt", "inplace"})
    )
    return SuperNetwork(
        space, origin, teacher, relation, recipe, hyperparameters, batches, held_out, seed, device
    )


def trained(
    run: Run,
    name: str,
    taught: tuple[SharedTeacher, Transformer],
    held_out: HeldOut,
    weights: Any,
    device: str = "cpu",
) -> SuperNetwork:
    """Return the super-network of a sub-space with weights of a checkpoint, to be scored and not trained."""
    space = spaces_of(run, taught[1].shape)[name]
    member = super_network(run, space, taught, {}, NoBatches(), held_out, 0, device)
    state = {key: torch.from_numpy(value.copy()) for key, value in weights.items()}
    member.module.load_state_dict(state)
    return member
