"""Pictures that are like none of the classes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...trust.gaussian import Gaussian
from ...trust.measure import trust_features

FAR = 4.5
"""Robust standard deviations above the median from which a picture is a stranger: 3 of 972 groceries are; of pictures
laid among them, all of 20 ImageNet photographs and 5 of 20 product photographs on white."""
LEAST = 30
"""Pictures below which a spread says nothing."""


def strangeness(
    pooled: Float[Tensor, "n d"], labels: Int[Tensor, " n"], folds: Int[Tensor, " n"], n_classes: int
) -> Float[Tensor, " n"]:
    """How far each picture lies from the nearest class, less from all, in robust standard deviations above the median.

    The relative Mahalanobis distance (Ren et al. 2021, arXiv:2106.09022) by Gaussians that saw no picture of its fold,
    as verdicts measure it; 0 throughout where there are too few pictures.
    """
    if len(labels) < LEAST or len(labels.unique()) < 2:
        return torch.zeros(len(labels))
    features, found = trust_features(pooled), torch.zeros(len(labels))
    for fold in folds.unique().tolist():
        mine = folds == fold
        found[mine] = Gaussian.fit(features[~mine], labels[~mine], n_classes).relative(features[mine])
    centre = found.median()
    spread = 1.4826 * (found - centre).abs().median()
    return (found - centre) / spread.clamp(min=1e-9)
