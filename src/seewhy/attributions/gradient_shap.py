"""Gradient SHAP, or expected gradients (Lundberg & Lee 2017; Erion et al. 2019, arXiv 1906.10670), through Captum."""

from dataclasses import dataclass
from typing import Any

import torch

from ..bounds import Count
from . import attributions
from .captum_base import CaptumGradients, Encoder, Forward, Pixels


@attributions.register
@dataclass(frozen=True)
class GradientShap(CaptumGradients):
    """Integrated gradients, averaged over three uniform baselines: black, the mean colour and white.

        S = E over x′ and a of (x − x′) ⊙ ∂y/∂x (x′ + a (x − x′))        (paper, equation 2)

    ``S`` is the map, ``E`` the expectation, ``x`` the picture, ``y`` the target's logit, ``x′`` a baseline and ``a`` a
    random number from 0 to 1. Where we differ: the baselines are a black, a mean-coloured and a white picture; the
    paper draws them from the training pictures.

    Args:
        n_samples: number of random samples.
        seed: seed of the samples.
    """

    name = "gradient_shap"
    paper = "Erion et al. 2019, arXiv:1906.10670"
    cost = "48 forward and 48 backward"
    stochastic = True
    small = {"n_samples": 6}

    n_samples: Count = 48
    seed: int = 0

    def run(self, captum: Any, forward: Forward, picture: Pixels, encoder: Encoder) -> Pixels:
        mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (encoder.transform.mean, encoder.transform.std))
        plain = torch.cat([(level - mean) / std for level in (torch.zeros(()), mean, torch.ones(()))])
        baselines = plain.expand(-1, -1, *picture.shape[2:])
        method, total = captum.GradientShap(forward), torch.zeros_like(picture)
        for start in range(0, self.n_samples, self.batch_size):
            n = min(self.batch_size, self.n_samples - start)
            total = total + n * method.attribute(picture, baselines, n_samples=n).detach()
        return total / self.n_samples
