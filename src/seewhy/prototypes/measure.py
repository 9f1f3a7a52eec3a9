"""How far neighbours can be trusted: how often they carry the predicted class on held-out pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..attributions.base import Explainable
from ..attributions.shares import cell_evidence, shares, strongest_cells
from ..classifiers.head import Target
from ..encoders.base import Look
from ..features import Seen
from .bank import PatchBank
from .base import Match, Prototypes


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


def predicted_share(bank: PatchBank, matches: Sequence[Sequence[Match]], predicted: int) -> float | None:
    """Share of these neighbours that carry the predicted class; ``None`` without neighbours."""
    labels = [bank.pictures[int(bank.owner[m.patch])].label for group in matches for m in group]
    return sum(label == predicted for label in labels) / len(labels) if labels else None


def measure_likeness(
    model: Explainable, method: Prototypes, bank: PatchBank, held_out: Sequence[Seen], n_regions: int = 3
) -> LikenessMeasure | None:
    """Search the bank for the regions of each held-out picture, as a card would."""
    frequency = torch.bincount(bank.labels, minlength=len(model.head.bias)).float()
    frequency /= frequency.sum()
    found, by_chance = [], []
    for seen in held_out:
        if seen.features is None:
            continue
        look = Look(seen.features[None], seen.pooled[:1])
        predicted = int(model.head.probabilities(look.pooled).argmax())
        share = shares(cell_evidence(model, look, Target(torch.tensor([predicted]))))[0]
        grid = model.encoder.layout.to_grid(look.features)[0]
        matches = method(bank, grid, seen.pooled[0], strongest_cells(share, n_regions), seen.digest)
        precision = predicted_share(bank, matches, predicted)
        if precision is not None:
            found.append(precision)
            by_chance.append(float(frequency[predicted]))
    if not found:
        return None
    return LikenessMeasure(sum(found) / len(found), sum(by_chance) / len(found), len(found))
