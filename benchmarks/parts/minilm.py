"""What the benchmark of distillation trains: MiniLM's super-networks, single students, their tuning."""

import copy
import os
import time
from dataclasses import dataclass

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

from benchmarks.parts.sentences import LENGTH, installed, minilm, sentiment
from shoal.trainables.batches import Shuffled
from shoal.trainables.distill.cost import encoder_cost
from shoal.trainables.distill.elastic import extract
from shoal.trainables.distill.encoder import ElasticEncoder
from shoal.trainables.distill.proxy import Labelled, Tuning, accuracy, tune
from shoal.trainables.distill.shared import SharedTeacher
from shoal.trainables.distill.spaces import Subnet, SubSpace
from shoal.trainables.distill.supernet import DistillRecipe, Relation, SuperNetwork
from shoal.trainables.distill.teachers import load_teacher
from shoal.trainables.folder_tokenizer import FolderTokenizer

MINILM = {"layers": 6, "head_width": 32}
SPACES = {
    "tiny": SubSpace((2, 3), (2, 3), (64, 96), (2.0, 3.0), **MINILM),
    "small": SubSpace((3, 4), (3, 4), (96, 128), (2.0, 3.0), **MINILM),
    "base": SubSpace((3, 4), (5, 6), (160, 192), (2.0, 3.0), **MINILM),
}
LARGE = SubSpace((2, 3, 4), (2, 3, 4, 5, 6), (64, 96, 128, 160, 192), (2.0, 3.0), **MINILM)
BATCH, HELD_OUT = 32, 256


@dataclass(frozen=True)
class Setting:
    steps: int  # of each sub-space, and of each student that is distilled by itself
    rate: float
    labels: int  # labelled sentences of a fine-tuning
    epochs: int
    seeds: int  # of fine-tuning
    budgets: int


class Family:
    """The teacher, the text, and everything that is trained on them."""

    def __init__(self, data: str, setting: Setting, seed: int):
        teacher, origin = load_teacher(minilm())
        assert isinstance(origin, ElasticEncoder)
        pieces = FolderTokenizer(minilm())
        self.setting, self.seed, self.origin = setting, seed, origin
        train = sentiment(data, "train", pieces)
        tests = [sentiment(data, split, pieces) for split in ("dev", "test")]
        self.test = Labelled(*(np.concatenate(parts) for parts in zip(*tests, strict=True)))
        self.labelled = Labelled(*(part[: setting.labels] for part in train))
        docs = installed(len(train.tokens) + HELD_OUT, pieces)
        self.text = [np.concatenate((docs[i][:-HELD_OUT], train[i])) for i in (0, 1)]
        self.held_out = {
            "validation": {
                "docs": tuple(docs[i][-HELD_OUT:] for i in (0, 1)),
                "reviews": tuple(self.test[i][:HELD_OUT] for i in (0, 1)),
            }
        }
        self.shared = SharedTeacher(teacher, megabytes=3000)
        self.seconds: dict[str, float] = {}

    def distil(self, name: str, space: SubSpace, steps: int) -> SuperNetwork:
        """Train a super-network; all see the same batches."""
        recipe = DistillRecipe(
            steps=steps, warmup=steps // 10, learning_rate=self.setting.rate, weight_decay=0.01
        )
        rows = Shuffled(tuple(self.text), BATCH, self.seed)
        member = SuperNetwork(
            space, self.origin, self.shared, Relation(), recipe, {}, rows, self.held_out, self.seed
        )
        before, began = -member.evaluate()[0], time.perf_counter()
        member.train(steps)
        self.seconds[name] = time.perf_counter() - began
        after = -member.evaluate()[0]
        print(f"{name}: loss {before:.4f} to {after:.4f} in {self.seconds[name]:.0f} s", flush=True)
        return member

    def alone(self, name: str, subnet: Subnet) -> SuperNetwork:
        """Distil one network by itself, for as many steps."""
        space = SubSpace(
            (len(subnet.layers),), (subnet.heads,), (subnet.width,), (subnet.inner / subnet.width,), **MINILM
        )
        assert space.largest == subnet
        return self.distil(name, space, self.setting.steps)

    def scratch(self, subnet: Subnet) -> ElasticEncoder:
        """Return a network of this shape with random weights, as BERT draws them."""
        torch.manual_seed(self.seed)
        network = ElasticEncoder(self.origin.shape.cut(subnet))
        for weight in network.parameters():
            if weight.dim() == 2:
                torch.nn.init.normal_(weight, 0.0, 0.02)
        return network

    def truncated(self, subnet: Subnet) -> ElasticEncoder:
        return extract(self.origin, subnet)

    def tuned(self, network: ElasticEncoder, seeds: int | None = None) -> list[float]:
        """Fine-tune copies of a network on SST-2; return the test accuracy of each seed."""
        began, found = time.perf_counter(), []
        steps = self.setting.epochs * (len(self.labelled.tokens) // BATCH)
        for seed in range(seeds or self.setting.seeds):
            own = copy.deepcopy(network)
            head = tune(own, self.labelled, Tuning(steps, BATCH), seed)
            found.append(round(accuracy(own, head, self.test), 4))
        self.seconds["tuning"] = self.seconds.get("tuning", 0.0) + time.perf_counter() - began
        return found

    def macs(self, subnet: Subnet) -> int:
        return encoder_cost(self.origin.shape.cut(subnet), LENGTH).macs

    def parameters(self, subnet: Subnet) -> int:
        return encoder_cost(self.origin.shape.cut(subnet), LENGTH).parameters

    def super_macs(self, space: SubSpace, steps: int) -> float:
        """Return what the students cost in a super-network's training, for a row of each batch."""
        drawn = np.mean([self.macs(subnet) for subnet in space])
        return 3.0 * steps * (self.macs(space.largest) + self.macs(space.smallest) + 2 * float(drawn))

    def teacher_macs(self, steps: int) -> float:
        return float(steps * encoder_cost(self.origin.shape, LENGTH).macs)
