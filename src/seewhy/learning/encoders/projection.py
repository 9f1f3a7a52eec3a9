"""The layers between an encoder and its objective, which the saved encoder omits by default."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...errors import InputError
from ...progress import Progress
from .delta import sizes_of

Form = Literal["none", "linear", "mlp", "fixed"]
TOLERANCE = 1e-3
"""Least weight, relative to the first coordinate, of a coordinate that counts."""
FADED = 1e-6
"""Weight below which a coordinate gets almost no gradient."""


class Reweighted(nn.Module):
    """``z_i = h_i / kappa^(i-1)``, without learning (Xue et al. 2024, arXiv 2403.11391)."""

    weight: Tensor

    def __init__(self, width: int, kappa: float) -> None:
        super().__init__()
        self.register_buffer("weight", kappa ** -torch.arange(width, dtype=torch.float64).float(), persistent=True)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return x * self.weight


@dataclass(frozen=True)
class Projection:
    """A projection head.

    Args:
        form: ``"none"``; ``"linear"``; ``"mlp"``, a layer as wide as the encoder, ReLU and a layer (SimCLR,
            SupCon); ``"fixed"``, which scales coordinates down one after another and learns nothing.
        width: dimensions of the output; ``"none"`` and ``"fixed"`` keep the encoder's.
        kappa: factor from one coordinate to the next of ``"fixed"``; default: from ``effective``.
        effective: coordinates with at least a thousandth of the first one's weight, ``ln 1000 / ln kappa``;
            default: half.
        normalised: whether an ``"mlp"`` is twice as wide inside and normalises there over the batch (PixPro,
            BYOL).
    """

    form: Form = "mlp"
    width: int = 128
    kappa: float | None = None
    effective: float | None = None
    normalised: bool = False

    def __post_init__(self) -> None:
        if self.form not in get_args(Form) or self.width < 1:
            raise InputError(
                f"The projection was given form={self.form!r}, width={self.width}. Expected 'none', 'linear', "
                "'mlp' or 'fixed', and a width from 1. Change them."
            )
        if (self.kappa is not None and self.kappa < 1) or (self.effective is not None and self.effective <= 0):
            raise InputError(
                f"The projection was given kappa={self.kappa}, effective={self.effective}. Expected kappa from 1, "
                "and effective above 0. Change them."
            )

    def kappa_for(self, width: int) -> float:
        """Return the factor between the weights of two consecutive coordinates."""
        effective = self.effective or max(1.0, width / 2)
        kappa = self.kappa or (1 / TOLERANCE) ** (1 / effective)
        if (width - 1) * math.log(kappa) > -math.log(torch.finfo(torch.float32).tiny):
            most = math.floor(1e4 * math.exp(-math.log(torch.finfo(torch.float32).tiny) / (width - 1))) / 1e4
            raise InputError(
                f"A fixed projection of {width} coordinates was given kappa={kappa:.4g}, which makes the last "
                f"weights 0 in single precision. Expected at most {most:.4f}. Lower kappa, or raise effective."
            )
        return kappa

    def build(self, width: int, progress: Progress | None = None) -> nn.Module:
        """Return the head for vectors of this width, with random weights."""
        if self.form == "fixed" and progress is not None:
            log_kappa = math.log(self.kappa_for(width))
            n = width if log_kappa == 0 else min(width, math.floor(-math.log(FADED) / log_kappa) + 1)
            if n < width:
                progress.note(
                    f"the fixed projection weighs {width - n} of {width} coordinates below a millionth of the "
                    "first, so they hardly learn; lower kappa, or raise effective"
                )
        if self.form == "none":
            return nn.Identity()
        if self.form == "fixed":
            return Reweighted(width, self.kappa_for(width))
        if self.form != "mlp":
            return nn.Linear(width, self.width)
        inner = 2 * width if self.normalised else width
        norm = [nn.BatchNorm1d(inner)] if self.normalised else []
        return nn.Sequential(nn.Linear(width, inner), *norm, nn.ReLU(), nn.Linear(inner, self.width))

    def facts(self, width: int) -> dict[str, Any]:
        """Return the facts from which :func:`restored` builds it again, as JSON."""
        kappa = self.kappa_for(width) if self.form == "fixed" else None
        return {"form": self.form, "width": self.width, "kappa": kappa, "behind": width}

    def out_width(self, width: int) -> int:
        """Return the width of the output."""
        return width if self.form in ("none", "fixed") else self.width


def restored(facts: Any) -> nn.Module:
    """Build a head from its facts, without its weights."""
    behind, width = sizes_of(facts, "behind", "width")
    return Projection(facts["form"], width, facts["kappa"]).build(behind)
