"""The built-in classifier: images, tables or frozen features, trained by any objective on logits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shoal.trainables.arrays import pieces, to_tensors
from shoal.trainables.class_networks import (
    ClassNetwork,
    body_of,
    memory_of,
    move_memory,
    network_inputs,
    sees_images,
)
from shoal.trainables.class_rescaling import Learnt, Weigher
from shoal.trainables.class_scores import auroc, macro_f1, share_of_hits
from shoal.trainables.class_steps import ascend, look_ahead, worst
from shoal.trainables.classifier_settings import AUGMENTED, OF_OBJECTIVES, ClassifierSettings
from shoal.trainables.few_shot import few_shot
from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.judged import JUDGED_TOGETHER
from shoal.trainables.member import SavedState, copies
from shoal.trainables.network import Network
from shoal.trainables.objectives.interface import Sizes
from shoal.trainables.objectives.weighted import Weighted
from shoal.trainables.searched_numbers import FloatOrTensor, cross_entropy

POOLED = {"macro_f1": macro_f1, "auroc": auroc}  # scores of all rows together


@dataclass(frozen=True)
class ClassFacts:
    """What a run knows of its rows."""

    inputs: tuple[str, ...]  # columns, in their order
    columns: tuple[str, ...]  # all columns
    classes: int
    groups: int  # values of the column of groups; 0 without one
    rows: int  # a batch has so many
    prior: Tensor  # (classes,), shares in the training rows
    centre: Tensor  # mean of the inputs
    spread: Tensor  # their deviation, above 0


class Classifier(Network):
    """Classifies rows of columns. Its score comes from its predictions alone, and from no searched number."""

    takes = frozenset({"columns"})
    by_row = True
    searched = frozenset({*AUGMENTED, "objective"})
    of_objectives = OF_OBJECTIVES
    settings: ClassifierSettings
    losses: Weighted
    facts: ClassFacts
    rescaling: Any = None  # numbers and features by which it learns the weights of rows (STORM)

    def own_numbers(self, chosen: Mapping[str, Any]) -> dict[str, float]:
        own = {name: float(chosen.get(name, getattr(self.settings, name))) for name in AUGMENTED}
        return own | self.losses.numbers(chosen.get("objective", {}))

    def build(self) -> nn.Module:
        known = self.facts
        shape = known.centre.shape if known.centre.dim() == 3 else (known.centre.numel(),)
        body = body_of(self.settings, shape, styled="styles" in self.losses.needs)
        sizes = Sizes(known.classes, known.rows, known.groups, int(body.width))  # type: ignore[arg-type]
        if problem := predicts(self.losses) or self.losses.misfit(sizes):
            raise ValueError(f"objective: {problem}.")
        made = ClassNetwork(
            body,
            self.settings,
            self.losses.needs,
            known.classes,
            known.groups,
            known.prior if self.settings.bias == "prior" else None,
            known.centre.clone(),
            known.spread.clone(),
            self.losses.start(sizes),
        )
        self.learnt = None
        if "teacher" in self.losses.needs:
            made.teach()
        if self.rescaling is not None:
            made.weigher = Weigher(self.rescaling.wide, known.classes)
            self.learnt = Learnt(self, self.rescaling)
        return made

    def weights(self) -> dict[str, nn.Parameter]:
        # the network that weighs rows has an optimiser of its own
        return {name: each for name, each in super().weights().items() if not name.startswith("weigher.")}

    @copies
    def progress(self) -> SavedState:
        last = {} if self.learnt is None else {"learnt": self.learnt.last}
        return handed_out(super().progress) | last

    @copies
    def load_progress(self, state: SavedState) -> None:
        hand_in(super().load_progress, {name: each for name, each in state.items() if name != "learnt"})
        if self.learnt is not None:
            self.learnt.last = dict(state["learnt"])

    def inputs(self, batch: Mapping[str, Tensor]) -> Tensor:
        return network_inputs(batch, self.facts.inputs, sees_images(self.settings))

    def roles(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the columns that have a role, by role."""
        there = {role: batch[name] for role, name in self.settings.roles.items() if name in batch}
        return {role: values.float() if role == "shares" else values.long() for role, values in there.items()}

    @property
    def alone(self) -> bool:
        # a stack would have to carry the statistics of a model's norms
        apart = self.settings.network == "timm" or self.rescaling is not None
        return super().alone or self.losses.alone or apart

    def loss(self, module: nn.Module, batch: Any, numbers: Mapping[str, FloatOrTensor]) -> Tensor:
        inputs, needs, roles = self.inputs(batch), self.losses.needs, self.roles(batch)
        network: Any = module
        out = self.trained_on(module, inputs, roles, numbers)
        if "view" in needs:
            out["view"] = module(inputs, numbers, True)["embedding"]
        if "plain" in needs:
            with torch.no_grad():
                out["plain"] = module(inputs, numbers, False)["logits"]
        if "teacher" in needs:
            out["teacher"] = network.taught(network.prepared(inputs, numbers, False))
        if "gate" in needs:
            # a partner class for each row: the class of another one, drawn anew at each step
            roles["partner"] = roles["label"][torch.rand_like(out["logits"][:, 0]).argsort()]
            out["gate"] = network.gates(roles["label"], roles["partner"])
        state = memory_of(module) if self.losses.stateful else {}
        losses, signals = self.losses.loss(out, roles, numbers, state)
        if state and module.training:
            move_memory(module, self.losses.after(state, signals, numbers))
        return losses

    def trained_on(
        self, module: Any, inputs: Tensor, roles: Mapping[str, Tensor], numbers: Mapping[str, FloatOrTensor]
    ) -> dict[str, Tensor]:
        """Return what the network finds in augmented rows, which an objective may move, or their styles."""
        kind = self.losses.mover
        if "styles" in self.losses.needs and module.training:
            own = self.losses.own("adversarial_style", numbers)
            term: Any = self.losses.terms["adversarial_style"]
            x = module.prepared(inputs, numbers, True)

            def mean_loss() -> Tensor:
                return cross_entropy(module.heads_on(x, numbers)["logits"], roles["label"]).mean()

            ascend(module, mean_loss, float(own["strength"]), float(own["ascent"]), term.ascents)
            styled: dict[str, Tensor] = module.heads_on(x, numbers)
            return styled
        if not kind:
            found: dict[str, Tensor] = module(inputs, numbers, True)
            return found
        x, told = module.prepared(inputs, numbers, True), {**numbers, **self.losses.own(kind, numbers)}
        apart = x.new_zeros(len(x))
        if module.training:
            x, apart = worst(self.losses.terms[kind], module, x, roles, told)
        return module.heads_on(x, numbers) | {"moved": apart}

    def objective(
        self, module: nn.Module, batch: Any, numbers: Mapping[str, FloatOrTensor]
    ) -> tuple[Tensor, Tensor]:
        if self.learnt is not None:
            self.rows_now = batch["rows"]
        return super().objective(module, batch, numbers)

    def backward(self, batch: Any) -> tuple[Tensor, Tensor]:
        if "teacher" in self.losses.needs:
            look_ahead(self, self.losses.terms["future_teacher"], batch)
        return self.one_backward(batch)

    def one_backward(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Compute the gradients of one pass of a batch."""
        return super().backward(batch)

    def weigh(self, losses: Tensor, given: Any) -> Tensor:
        weights = super().weigh(losses, given)
        return weights if self.learnt is None else weights * self.learnt.weights(self.rows_now)

    def values(self, module: nn.Module, rows: Any) -> Tensor:
        """Return what rows are predicted by, `(rows, classes)`."""
        parts = pieces(rows, JUDGED_TOGETHER)
        state = memory_of(module) if self.losses.stateful else {}
        found = [self.losses.predict(module(self.inputs(part), self.sober, False), state) for part in parts]
        return torch.cat(found).float()

    def known(self, rows: Any) -> Tensor:
        """Return the weight of each row: 0 where its label is not known."""
        roles = self.roles(rows)
        unknown = roles.get("unlabelled", torch.zeros_like(roles["label"]))
        return 1 - unknown.double()

    def probe(self, values: Tensor, rows: Any) -> Tensor:
        """Return the plain cross-entropy of each row, whose mean is over the rows of a known label."""
        weights = self.known(rows)
        label = torch.where(weights > 0, self.roles(rows)["label"], 0)
        return cross_entropy(values, label) * (weights / weights.mean().clamp(min=1e-12)).float()

    def row_losses(self, module: nn.Module, rows: Mapping[str, Any]) -> dict[str, Tensor]:
        return {group: self.probe(self.values(module, each), each) for group, each in rows.items()}

    def parts(self, module: nn.Module, batch: Any) -> Tensor:
        return self.probe(self.values(module, batch), batch)[:, None]

    def score(self, module: nn.Module, rows: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the score of the settings on the target groups, and each group's cross-entropy."""
        values = {group: self.values(module, each) for group, each in rows.items()}
        losses = {group: self.probe(values[group], each).mean().double() for group, each in rows.items()}
        chosen = {name: rows[name] for name in (rows if self.targets is None else self.targets)}
        if self.settings.score == "few_shot":
            return self.few_shot(module, chosen), losses
        return self.score_of(
            self.settings.score, {name: (values[name], each) for name, each in chosen.items()}
        ), losses

    def few_shot(self, module: nn.Module, groups: Mapping[str, Any]) -> Tensor:
        """Return how well the classes of held-out rows are told apart by a few of them."""
        parts = [part for rows in groups.values() for part in pieces(rows, JUDGED_TOGETHER)]
        features = torch.cat(
            [module(self.inputs(part), self.sober, False)["features"] for part in parts]
        ).float()
        labels = torch.cat([self.roles(rows)["label"] for rows in groups.values()])
        known = torch.cat([self.known(rows) for rows in groups.values()])
        return few_shot(features, labels, known, self.settings.ways, self.settings.shots)

    def score_of(self, name: str, groups: Mapping[str, tuple[Tensor, Any]]) -> Tensor:
        """Return one score of values and rows by group."""
        labels = {group: self.roles(rows)["label"] for group, (_, rows) in groups.items()}
        weights = {group: self.known(rows) for group, (_, rows) in groups.items()}
        labels = {group: torch.where(weights[group] > 0, each, 0) for group, each in labels.items()}
        if name in POOLED:
            values = torch.cat([each for each, _ in groups.values()])
            return POOLED[name](values, torch.cat(list(labels.values())), torch.cat(list(weights.values())))
        each = [share_of_hits(values, labels[group], weights[group]) for group, (values, _) in groups.items()]
        there = torch.stack([weights[group].sum() > 0 for group in groups])
        found = torch.stack(each)
        if name == "worst_group":
            return torch.where(there, found, torch.ones_like(found)).min()
        return (found * there).sum() / there.sum().clamp(min=1)

    def measure(self, split: str = "validation") -> dict[str, float]:
        """Return `accuracy_GROUP` of each group, and the scores of all rows together."""
        if split not in self.held_out:
            return {}
        self.module.eval()
        with torch.no_grad(), self.computing():
            held_out = to_tensors(self.held_out[split], self.device)
            groups = {group: (self.values(self.module, rows), rows) for group, rows in held_out.items()}
            found = {
                f"accuracy_{group}": self.score_of("accuracy", {group: each}) for group, each in groups.items()
            }
            names = [*POOLED, *(["worst_group"] if len(groups) > 1 else [])]
            found |= {name: self.score_of(name, groups) for name in names}
            if self.settings.score == "few_shot":
                found["few_shot"] = self.few_shot(self.module, held_out)
        return {name: value.item() for name, value in found.items()}


def predicts(losses: Weighted) -> str:
    """Return why a classifier of these objectives could predict nothing, or nothing."""
    if "logits" in losses.needs:
        return ""
    return f"{', '.join(losses.terms)} trains no prediction; add one that does, such as cross_entropy"
