"""What a trained classifier makes of rows: their losses, the chances of each class, and their embeddings."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shoal.trainables.class_networks import ClassNetwork, body_of, memory_of, network_inputs, sees_images
from shoal.trainables.classifier_settings import ClassifierSettings
from shoal.trainables.objectives.weighted import Weighted
from shoal.trainables.searched_numbers import cross_entropy

ROWS_PER_PASS = 256
RowColumns = Mapping[str, NDArray[Any]]  # name -> (rows, ...)
TRAINED_BY = ("teacher.", "weigher.", "body.styles.")  # weights that only training looks at
NO_DROPOUT = {"dropout": 0.0}


class ClassJudge:
    """A trained classifier by its weights; `inputs` names the columns that its network sees."""

    def __init__(
        self,
        settings: ClassifierSettings,
        losses: Weighted,
        weights: Mapping[str, NDArray[Any]],
        inputs: tuple[str, ...],
        device: str = "cpu",
    ):
        tensors = {
            name: torch.from_numpy(np.array(value))
            for name, value in weights.items()
            if not name.startswith(TRAINED_BY)
        }
        centre, classes = tensors["centre"], len(tensors["head.weight"])
        heads = {name.split(".")[1] for name in tensors if name.startswith("heads.")}
        memory = {
            name.removeprefix("memory."): value for name, value in tensors.items() if name.startswith("memory.")
        }
        shape = centre.shape if centre.dim() == 3 else (centre.numel(),)
        self.module = ClassNetwork(
            body_of(replace(settings, weights=""), shape),  # its weights are among those given
            settings,
            losses.needs,
            classes,
            len(heads),
            None,
            centre.clone(),
            tensors["spread"].clone(),
            memory,
        )
        self.module.load_state_dict(tensors)
        self.module.eval().to(device)
        self.settings, self.objective, self.names, self.device = settings, losses, inputs, device
        self.classes = classes

    def losses(self, rows: RowColumns) -> NDArray[np.float32]:
        """Return the cross-entropy of each row in nats, `(rows,)`; NaN where the label is not known."""
        found = torch.from_numpy(self.values(rows))
        label = torch.from_numpy(rows[self.settings.label].astype(np.int64))
        unknown = rows.get(self.settings.unlabelled, np.zeros(len(label)))
        known = torch.from_numpy(np.asarray(unknown) == 0) & (label >= 0) & (label < self.classes)
        each = cross_entropy(found, torch.where(known, label, 0))
        return np.asarray(each.masked_fill(~known, float("nan")).numpy())

    def chances(self, rows: RowColumns) -> NDArray[np.float32]:
        """Return the chance of each class, `(rows, classes)`."""
        return np.asarray(torch.from_numpy(self.values(rows)).softmax(dim=1).numpy())

    def values(self, rows: RowColumns) -> NDArray[np.float32]:
        """Return what rows are predicted by, `(rows, classes)`."""
        predict, state = self.objective.predict, memory_of(self.module)
        return self.each(rows, lambda inputs: predict(self.module(inputs, NO_DROPOUT, False), state))

    def states(self, rows: RowColumns) -> NDArray[np.float32]:
        """Return what the heads look at, `(rows, width)`."""
        module = self.module
        return self.each(
            rows, lambda inputs: module.body((inputs - module.centre) / module.spread, NO_DROPOUT["dropout"])
        )

    def each(self, rows: RowColumns, judged: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found = [judged(inputs).float().cpu() for inputs in self.parts(rows)]
        return np.asarray(torch.cat(found).numpy()).copy()

    def parts(self, rows: RowColumns) -> Iterator[Tensor]:
        """Yield what the network sees of the rows, part by part."""
        total = len(next(iter(rows.values())))
        for start in range(0, max(total, 1), ROWS_PER_PASS):
            given = {name: np.array(rows[name][start : start + ROWS_PER_PASS]) for name in self.names}
            tensors = {name: torch.from_numpy(value).to(self.device) for name, value in given.items()}
            yield network_inputs(tensors, self.names, sees_images(self.settings))
