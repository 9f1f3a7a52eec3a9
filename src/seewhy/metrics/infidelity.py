"""Infidelity (Yeh et al. 2019, arXiv 1901.09392)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..bounds import Count, NotNegative, SomePart
from . import metrics
from .base import AveragedMetric, Case, Maps, Score, read_in_batches, scores


@metrics.register
@dataclass(frozen=True)
class Infidelity(AveragedMetric):
    """Mean squared gap between the change a map predicts and the change that comes; low is good.

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

    name = "infidelity"
    paper = "Yeh et al. 2019, arXiv:1901.09392"
    needs = "a map and the model's logits"
    cost = "one per sample, shared by all maps"
    higher_is_better = False
    bounds = (0.0, float("inf"))
    reads = "logit"
    sign = "as it is"
    requires = ("logits",)
    small = {"n_samples": 8}

    perturbation: Literal["square", "gaussian"] = "square"
    n_samples: Count = 64
    side: SomePart = 0.25
    noise: NotNegative = 0.1
    normalised: bool = True
    batch_size: Count = 16
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        read, claims = case.reader("logit"), []

        def changed(index: Tensor) -> Tensor:
            pairs = [self._perturbation(case.pixels, i) for i in index.tolist()]
            change, weight = (torch.stack(part) for part in zip(*pairs, strict=True))
            claims.append(torch.einsum("bhw,mhw->mb", weight.double(), maps.double()))
            return case.pixels - change

        after = read_in_batches(read, changed, self.n_samples, self.batch_size)
        lost = (read(case.pixels[None]) - after).double()
        claimed = torch.cat(claims, 1)
        scale = (claimed * lost).mean(1, keepdim=True) / claimed.square().mean(1, keepdim=True).clamp(min=1e-30)
        plain, fitted = ((claimed * s - lost).square().mean(1) for s in (torch.ones_like(scale), scale))
        return scores(fitted if self.normalised else plain, plain=plain, normalised=fitted, scale=scale[:, 0])

    def _perturbation(self, pixels: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """``I``, and what each pixel of the map is multiplied by."""
        height, width = pixels.shape[1:]
        generator = torch.Generator().manual_seed(self.seed * self.n_samples + number)
        if self.perturbation == "gaussian":
            change = torch.randn(pixels.shape, generator=generator) * self.noise
            return change, change.sum(0)
        square = torch.zeros(height, width)
        rows, columns = max(1, round(self.side * height)), max(1, round(self.side * width))
        top = int(torch.randint(height - rows + 1, (), generator=generator))
        left = int(torch.randint(width - columns + 1, (), generator=generator))
        square[top : top + rows, left : left + columns] = 1
        return pixels * square, square
