"""Infidelity (Yeh et al. 2019, arXiv 1901.09392)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from . import metrics
from .base import AveragedMetric, Case, Score, read_in_batches


@metrics.register
@dataclass(frozen=True)
class Infidelity(AveragedMetric):
    """Mean squared gap between the change a map foretells and the change that comes; low is good.

    ``E_I [(Iᵀφ - (f(x) - f(x - I)))²]``; with ``normalised`` the map is first scaled by the factor that suits it best,
    ``β = E[(Iᵀφ) d] / E[(Iᵀφ)²]``, so that maps in other units than the output's can be judged. ``parts`` has both.

    Args:
        perturbation: ``"square"``, a random square of the picture set to the mean colour, for maps that share out the
            output (``Iᵀφ`` is then the map's sum in the square); ``"gaussian"``, noise on every pixel, for maps that
            are gradients (``Iᵀφ = Σ_ij φ_ij Σ_c I_cij``).
        n_samples: perturbations.
        side: of the square, as a part of the picture's.
        noise: standard deviation of the Gaussian, in normalised units.
        normalised: which of the two is the value.
        batch_size: pictures a forward pass sees.
        seed: of the perturbations.
    """

    name: ClassVar[str] = "infidelity"
    paper: ClassVar[str] = "Yeh et al. 2019, arXiv:1901.09392"
    needs: ClassVar[str] = "a map and the model's logits"
    cost: ClassVar[str] = "one per sample, shared by all maps"
    higher_is_better: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    reads: ClassVar[str] = "logit"
    sign: ClassVar[str] = "as it is"
    requires: ClassVar[tuple[str, ...]] = ("logits",)
    small: ClassVar = {"n_samples": 8}

    perturbation: Literal["square", "gaussian"] = "square"
    n_samples: int = 64
    side: float = 0.25
    noise: float = 0.1
    normalised: bool = True
    batch_size: int = 16
    seed: int = 0

    def score(self, case: Case, maps: Float[Tensor, "m h w"]) -> list[Score]:
        read, claims = case.reader("logit"), []

        def changed(index: Tensor) -> Tensor:
            change, weight = self._perturbations(case.pixels, index)
            claims.append(torch.einsum("bhw,mhw->mb", weight.double(), maps.double()))
            return case.pixels - change

        after = read_in_batches(read, changed, self.n_samples, self.batch_size)
        lost = (read(case.pixels[None]) - after).double()
        said = torch.cat(claims, 1)
        scale = (said * lost).mean(1, keepdim=True) / (said * said).mean(1, keepdim=True).clamp(min=1e-30)
        plain, fitted = ((said * s - lost).square().mean(1) for s in (torch.ones_like(scale), scale))
        chosen = fitted if self.normalised else plain
        return [
            Score(float(v), {"plain": float(p), "normalised": float(f), "scale": float(s)}, (float(v),))
            for v, p, f, s in zip(chosen, plain, fitted, scale[:, 0], strict=True)
        ]

    def _perturbations(self, pixels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """``I``, and what each pixel of the map is multiplied by."""
        height, width = pixels.shape[1:]
        changes, weights = [], []
        for i in index.tolist():
            generator = torch.Generator().manual_seed(self.seed * self.n_samples + i)
            if self.perturbation == "gaussian":
                change = torch.randn(pixels.shape, generator=generator) * self.noise
                changes.append(change)
                weights.append(change.sum(0))
                continue
            square = torch.zeros(height, width)
            rows, columns = max(1, round(self.side * height)), max(1, round(self.side * width))
            top = int(torch.randint(height - rows + 1, (), generator=generator))
            left = int(torch.randint(width - columns + 1, (), generator=generator))
            square[top : top + rows, left : left + columns] = 1
            changes.append(pixels * square)
            weights.append(square)
        return torch.stack(changes), torch.stack(weights)
