"""What rotating is worth, measured on pictures that neither fitted nor chose it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...attributions.base import Explainable
from ...encoders.base import EncoderOutput
from ...heads.head import Target
from .choice import N_MEASURED, half_samples
from .method import contributions
from .purity import FLOOR, Maps
from .rotation import Rotation

N_DRAWS = 200


@dataclass(frozen=True)
class PurityTable:
    """Every picture × every channel.

    Attributes:
        activation: mean of the channel over the picture.
        purity: at the cell where it is strongest.
    """

    activation: Float[Tensor, "n d"]
    purity: Float[Tensor, "n d"]

    @classmethod
    def of(cls, maps: Maps, rotation: Rotation) -> PurityTable:
        rows = []
        for i in range(len(maps)):
            moved = maps[i] @ rotation.matrix.T
            top, at = moved.max(0)
            rows.append(top / moved.norm(dim=1)[at].clamp(min=FLOOR))
        return cls(maps.pooled @ rotation.matrix.T, torch.stack(rows))

    def by_channel(self, of: Tensor | None = None, m: int = N_MEASURED) -> Float[Tensor, " d"]:
        """Mean purity of each channel's ``m`` strongest pictures, among those given."""
        activation, purity = (self.activation, self.purity) if of is None else (self.activation[of], self.purity[of])
        top = activation.topk(min(m, len(activation)), dim=0).indices
        return purity.gather(0, top).mean(0)


def compare(maps: Maps, rotation: Rotation, seed: int) -> dict[str, Any]:
    """Purity with the rotation, without, and with a random one; the gain and its 95 % interval.

    The interval spreads round the gain as the gain does over random halves of the pictures, which is how much it
    would differ on other pictures of the kind.
    """
    width = maps.pooled.shape[1]
    fitted = PurityTable.of(maps, rotation)
    plain = PurityTable.of(maps, Rotation.identity(width))
    random = PurityTable.of(maps, Rotation.random(width, seed))
    gains = torch.stack(
        [(fitted.by_channel(h) - plain.by_channel(h)).mean() for h in half_samples(len(maps), N_DRAWS, seed)]
    )
    after, before = float(fitted.by_channel().mean()), float(plain.by_channel().mean())
    spread = (gains - gains.mean()).quantile(torch.tensor([0.025, 0.975]))
    low, high = (after - before + spread).tolist()
    return {
        "n": len(maps),
        "purity": round(after, 4),
        "before": round(before, 4),
        "random": round(float(random.by_channel().mean()), 4),
        "gain": round(after - before, 4),
        "gain_interval": [round(low, 4), round(high, 4)],
    }


def top_share(model: Explainable, rotation: Rotation, pooled: Float[Tensor, "n d"], n: int = 4) -> float:
    """Mean part that the ``n`` strongest channels have of everything that speaks for the decision, 0…1."""
    with torch.no_grad():
        target = Target(model.head(pooled).argmax(1))
        parts = contributions(model, rotation, EncoderOutput(pooled, pooled), target).clamp(min=0)
    return float((parts.topk(min(n, parts.shape[1]), dim=1).values.sum(1) / parts.sum(1).clamp(min=1e-12)).mean())


def coherence(pooled: Float[Tensor, "n d"], rotation: Rotation, labels: Tensor, m: int = N_MEASURED) -> float:
    """Part of a channel's ``m`` prototypes that carry their commonest class, mean over channels."""
    top = (pooled @ rotation.matrix.T).topk(min(m, len(pooled)), dim=0).indices
    mine = labels[top]
    return float((mine == mine.mode(0).values).float().mean())
