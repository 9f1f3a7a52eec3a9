"""EPIC's prototypes as they are kept: the matrix, and for every channel the patches that excite it most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...attributions.base import Explainable
from ..bank import check_index
from ..fitted import FittedBank
from .rotation import TOLERANCE, Rotation


@dataclass(frozen=True, eq=False)
class EPICBank(FittedBank):
    """Prototypes of every channel, positive and negative, duplicates left out.

    Each patch's box is the cell at which its channel is strongest, grown by half a cell.

    Attributes:
        channels: channel of each patch; a channel's patches follow each other, strongest picture first.
        signs: 1 for positive prototypes, −1 for negative ones.
        purity: of each patch, the cosine of its features with the channel's direction, −1…1.
        rotation: the matrix and its inverse.
    """

    method = "epic"
    kinds = {
        "matrix": "float2",
        "inverse": "float2",
        "channels": "int1",
        "signs": "int1",
        "purity": "float1",
    }

    channels: Int[Tensor, " n"]
    signs: Int[Tensor, " n"]
    purity: Float[Tensor, " n"]
    rotation: Rotation

    def of_channel(self, channel: int, sign: int) -> list[int]:
        """Patches of a channel, strongest picture first."""
        return ((self.channels == channel) & (self.signs == sign)).nonzero()[:, 0].tolist()

    def own(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {
            "matrix": self.rotation.matrix,
            "channels": self.channels.int(),
            "signs": self.signs.to(torch.int8),
            "purity": self.purity.half(),
        }
        if self.rotation.form == "invertible":
            tensors["inverse"] = self.rotation.inverse
        return tensors, {"form": self.rotation.form}

    @classmethod
    def restore(cls, shared: Mapping[str, Any], tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Self:
        matrix = tensors["matrix"]
        if len({len(matrix), matrix.shape[1], *tensors.get("inverse", matrix).shape}) != 1:
            raise ValueError(f"its matrix is {tuple(matrix.shape)}")
        rotation = Rotation(matrix, tensors.get("inverse", matrix.T), facts["form"])
        if not rotation.error < TOLERANCE:
            raise ValueError(f"its matrix times its inverse is off by {rotation.error:.1e}")
        channels, signs, purity = tensors["channels"].long(), tensors["signs"].long(), tensors["purity"].float()
        bank = cls(**shared, channels=channels, signs=signs, purity=purity, rotation=rotation)
        check_index("the prototypes' channels", channels, len(matrix))
        if not len(channels) == len(signs) == len(purity) == len(bank.owner):
            raise ValueError(f"{len(channels)} channels for {len(bank.owner)} prototypes")
        return bank

    def check(self, model: Explainable) -> None:
        if len(self.rotation.matrix) != (width := model.head.weight.shape[1]):
            raise ValueError(f"a matrix {tuple(self.rotation.matrix.shape)} for {width} channels")

    def spoken(self) -> dict[str, Any]:
        """The prototypes of each channel by file name, digest and box."""
        pictures = [{"image": p.name, "sha256": p.digest, "class": p.label} for p in self.pictures]
        rows = zip(
            self.channels.tolist(), self.signs.tolist(), self.owner.tolist(), self.pixel_boxes.tolist(), strict=True
        )
        channels: dict[str, list[list[Any]]] = {}
        for channel, sign, owner, box in rows:
            channels.setdefault(f"{'+' if sign > 0 else '-'}{channel}", []).append([owner, box])
        return {"pictures": pictures, "prototypes": channels}

    def lines(self) -> list[str]:
        found = self.measures
        held, likeness, share = found["held_out"], found["likeness"], found["top_4_share"]
        low, high = held["gain_interval"]
        lines = [
            f"fitted to {found['n_fitted']} of {found['n_pictures']} pictures by {found['optimiser']}",
            f"logits change by {found['logit_difference']:.0e} of the largest at most; "
            f"{found['decisions_kept']:.0%} of the decisions stay",
            f"purity on {held['n']} pictures held out: {held['purity']:.3f}, before {held['before']:.3f}, random "
            f"rotation {held['random']:.3f}; gain {held['gain']:+.4f} (95 % {low:+.4f} to {high:+.4f})",
            f"the strongest 4 channels are {share['fitted']:.1%} of what speaks for a decision, "
            f"before {share['before']:.1%}",
        ]
        if likeness is not None:
            lines.append(
                f"prototypes shown for held-out pictures carry the predicted class {likeness['precision']:.0%} of the "
                f"time (chance {likeness['chance']:.0%})"
            )
        return lines
