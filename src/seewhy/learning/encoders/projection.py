"""Projection heads between an encoder and its loss."""

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
"""Smallest weight of a coordinate that counts as effective, relative to the first weight."""
FADED = 1e-6
"""Relative weight below which a coordinate gets almost no gradient."""


class Reweighted(nn.Module):
    """Fixed weights of coordinates: ``z_i = h_i / kappa^(i-1)`` for input ``h`` (Xue et al. 2024, arXiv 2403.11391)."""

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
        form: ``"none"``; ``"linear"``; ``"mlp"``, with one hidden layer of the encoder's width (SimCLR, SupCon); or
            ``"fixed"``, fixed weights of the coordinates that decrease geometrically.
        width: output dimensions of ``"linear"`` and ``"mlp"``.
        kappa: with ``"fixed"``, ratio of each weight to the next, at least 1; default: computed from ``effective``.
        effective: with ``"fixed"``, number of coordinates whose weight is at least a thousandth of the first, which is
            ``ln 1000 / ln kappa``; default: half of the coordinates.
        normalised: whether an ``"mlp"`` has a hidden layer of twice the width with batch normalisation (PixPro, BYOL).
    """

    form: Form = "mlp"
    width: int = 128
    kappa: float | None = None
    effective: float | None = None
    normalised: bool = False

    def __post_init__(self) -> None:
        if self.form not in get_args(Form) or self.width < 1:
            raise InputError(
                "`projection` must be 'none', 'linear', 'mlp' or 'fixed', and its `width` at least 1, got "
                f"{self.form!r} and width={self.width}."
            )
        if (self.kappa is not None and self.kappa < 1) or (self.effective is not None and self.effective <= 0):
            raise InputError(
                "In a fixed projection, `kappa` must be at least 1 and `effective` greater than 0, got "
                f"kappa={self.kappa} and effective={self.effective}."
            )

    def kappa_for(self, width: int) -> float:
        effective = self.effective or max(1.0, width / 2)
        kappa = self.kappa or (1 / TOLERANCE) ** (1 / effective)
        if (width - 1) * math.log(kappa) > -math.log(torch.finfo(torch.float32).tiny):
            most = math.floor(1e4 * math.exp(-math.log(torch.finfo(torch.float32).tiny) / (width - 1))) / 1e4
            raise InputError(
                f"`kappa` must be at most {most:.4f} for a fixed projection of {width} coordinates, got {kappa:.4g}: "
                "the last weights would be 0 in single precision. Lower `kappa`, or raise `effective`."
            )
        return kappa

    def build(self, width: int, progress: Progress | None = None) -> nn.Module:
        """Return the untrained head for input of this width."""
        if self.form == "fixed" and progress is not None:
            log_kappa = math.log(self.kappa_for(width))
            n = width if log_kappa == 0 else min(width, math.floor(-math.log(FADED) / log_kappa) + 1)
            if n < width:
                progress.note(
                    f"{width - n} of {width} coordinates of the fixed projection have weights below a millionth of the "
                    "first weight and will hardly learn; lower kappa, or raise effective"
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
        """Return the fields for :func:`restored`, as JSON."""
        kappa = self.kappa_for(width) if self.form == "fixed" else None
        return {"form": self.form, "width": self.width, "kappa": kappa, "behind": width}

    def out_width(self, width: int) -> int:
        return width if self.form in ("none", "fixed") else self.width


def restored(facts: Any) -> nn.Module:
    """Build a head from its fields, without weights."""
    behind, width = sizes_of(facts, "behind", "width")
    return Projection(facts["form"], width, facts["kappa"]).build(behind)
