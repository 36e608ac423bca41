"""Real and generated pictures, and how strongly both are changed (AdaInf: Wang et al., 2024).

More rows want weaker changes. A population moves the share of the groups (`mixing: {policy: random}`, or
another one) and `strength`, from the paper's weak setting at 0 to SimCLR's at 1. Each member has its own;
none changes the score.
"""

import torch
from torch import nn
from torch.nn import functional

from shoal.trainables.network import Network

# name -> its number where strength is 0, and where it is 1
CHANGES = {"crop": (0.2, 0.08), "chance": (0.4, 0.8), "brightness": (0.4, 0.8), "contrast": (0.4, 0.8)}
CHANGES |= {"saturation": (0.4, 0.8), "hue": (0.1, 0.2)}


def changes(strength):
    return {name: weak + (strong - weak) * strength for name, (weak, strong) in CHANGES.items()}


def changed(images, strength):
    """Return pictures `(rows, 3, height, width)` in [0, 1], each cropped and coloured by draws of its own."""
    by, rows = changes(strength), len(images)
    side = (by["crop"] + (1 - by["crop"]) * torch.rand(rows)).sqrt()
    place = (torch.rand(2, rows) * 2 - 1) * (1 - side)
    nothing = torch.zeros(rows)
    first = torch.stack([side, nothing, place[0]], dim=-1)
    where = torch.stack([first, torch.stack([nothing, side, place[1]], dim=-1)], dim=1)
    x = functional.grid_sample(
        images, functional.affine_grid(where, list(images.shape), False), align_corners=False
    )
    drawn = (torch.rand(4, rows, 1, 1, 1) * 2 - 1) * (torch.rand(rows, 1, 1, 1) < by["chance"])
    x = x * (1 + by["brightness"] * drawn[0])
    x = x.mean(dim=(1, 2, 3), keepdim=True) * -by["contrast"] * drawn[1] + x * (1 + by["contrast"] * drawn[1])
    grey = x.mean(dim=1, keepdim=True)
    x = grey + (x - grey) * (1 + by["saturation"] * drawn[2])
    turn = by["hue"] * drawn[3]  # a part of the way to the next colour
    return ((1 - turn.abs()) * x + turn.abs() * x.roll(1, dims=1)).clamp(0, 1)


class Views(Network):
    """Learns to tell which two views are of one picture (SimCLR), without labels."""

    takes, by_row, searched = {"columns"}, True, {"strength"}
    strength: float = 1.0
    side: int = 8

    def build(self):
        inner = nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        return nn.Sequential(*inner, nn.Linear(64, 16))

    def loss(self, module, batch, numbers):
        one, other = (
            functional.normalize(module(changed(batch["image"], numbers["strength"])), dim=-1) for _ in range(2)
        )
        return functional.cross_entropy(one @ other.T / 0.2, torch.arange(len(one)), reduction="none")
