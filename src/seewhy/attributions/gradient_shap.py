"""Gradient SHAP, or expected gradients (Lundberg & Lee 2017; Erion et al. 2019, arXiv 1906.10670), as in Captum."""

from dataclasses import dataclass
from typing import Any

import numpy as np
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
        # Captum's own class draws from numpy's global generator, which other threads use.
        random, total = np.random.RandomState(self.seed), torch.zeros_like(picture)
        for start in range(0, self.n_samples, self.batch_size):
            n = min(self.batch_size, self.n_samples - start)
            drawn, share = baselines[random.choice(len(baselines), n)], torch.from_numpy(random.uniform(0, 1, n))
            share = share.to(picture).reshape(-1, 1, 1, 1)
            points = (picture * share + drawn * (1 - share)).detach().requires_grad_()
            total = total + ((picture - drawn) * torch.autograd.grad(forward(points).sum(), points)[0]).sum(0).detach()
        return total / self.n_samples
