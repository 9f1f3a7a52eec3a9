"""How far neighbours can be trusted: how often they carry the predicted class on held-out pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..attributions.base import Explainable
from ..attributions.shares import cell_evidence, shares, strongest_cells
from ..encoders.base import EncoderOutput
from ..encoders.stream import Encoded
from ..heads.head import Target
from .bank import Patches
from .base import Group, Prototypes, Query


@dataclass(frozen=True)
class LikenessMeasure:
    """How far neighbours can be trusted.

    Attributes:
        precision: share of neighbours that carry the predicted class, over held-out pictures, 0…1.
        chance: the same for patches drawn at random from the bank.
        n: held-out pictures it rests on.
    """

    precision: float
    chance: float
    n: int


def predicted_share(bank: Patches, groups: Sequence[Group], predicted: int) -> float | None:
    """Share of these patches that carry the predicted class; ``None`` without any."""
    labels = [bank.pictures[int(bank.owner[m.patch])].label for group in groups for m in group.matches]
    return sum(label == predicted for label in labels) / len(labels) if labels else None


def measure_likeness(
    model: Explainable, method: Prototypes, bank: Patches, held_out: Sequence[Encoded], n_regions: int = 3
) -> LikenessMeasure | None:
    """Search the bank for the regions of each held-out picture, as a card would."""
    frequency = torch.bincount(bank.labels, minlength=len(model.head.bias)).float()
    frequency /= frequency.sum()
    found, by_chance = [], []
    for seen in held_out:
        if seen.features is None:
            continue
        look = EncoderOutput(seen.features[None], seen.pooled[:1])
        predicted = int(model.head.probabilities(look.pooled).argmax())
        target = Target(torch.tensor([predicted]))
        cells = strongest_cells(shares(cell_evidence(model, look, target))[0], n_regions)
        groups = method(model, bank, Query(look, target, cells, seen.digest))
        precision = predicted_share(bank, groups, predicted)
        if precision is not None:
            found.append(precision)
            by_chance.append(float(frequency[predicted]))
    if not found:
        return None
    return LikenessMeasure(sum(found) / len(found), sum(by_chance) / len(found), len(found))
