"""MaskCLIP's two ways of mending a map of scores without training (Zhou et al. 2022, section 3.3)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

Normalised = Literal["channels", "positions"]
"""Over what keys are of unit length: each cell's over its channels, as the paper has cosines; or each channel over the
cells, as the released code does."""
ABSENT = -100.0
"""The cosine of a class that is taken to be absent, as in the released code."""


def denoise(scores: Float[Tensor, "b k h w"], threshold: float, scale: float = 100.0) -> Float[Tensor, "b k h w"]:
    """Prompt denoising: a class that no cell of the picture is sure of is taken to be absent.

    Args:
        scores: cosines.
        threshold: least probability that some cell must give the class; 0 leaves all.
        scale: cosines are multiplied with it before the softmax.

    Example:
        >>> scores = torch.tensor([[[[0.3, 0.1]], [[0.1, 0.2]], [[0.0, 0.0]]]])
        >>> denoise(scores, 0.5)[0, :, 0].amax(1).tolist()
        [0.30000001192092896, 0.20000000298023224, -100.0]
    """
    if threshold <= 0:
        return scores
    surest = (scale * scores).softmax(1).amax((2, 3), keepdim=True)
    return scores.masked_fill(surest < threshold, ABSENT)


def smooth(
    scores: Float[Tensor, "b k h w"],
    keys: Float[Tensor, "b c h w"],
    threshold: float,
    normalised: Normalised = "channels",
    scale: float = 100.0,
) -> Float[Tensor, "b k h w"]:
    """Key smoothing: a cell that is sure of nothing takes the answers of cells with keys like its own.

    ``p_i ← Σ_j cos(k_i, k_j) p_j`` where ``max p_i < threshold`` (paper, equation 3). The released code calls
    ``normalize(k, p=2)`` on ``(b, cells, channels)``, which divides over the cells: ``normalised="positions"``.

    Args:
        scores: cosines.
        keys: what is compared.
        threshold: cells whose best probability is below are smoothed; 0 smoothes none and leaves cosines.
        normalised: over what keys have unit length.
        scale: cosines are multiplied with it before the softmax.

    Returns:
        Probabilities; those of smoothed cells are sums, not 1 in all. Cosines where nothing was to be done.
    """
    if threshold <= 0:
        return scores
    b, k, h, w = scores.shape
    given = (scale * scores).softmax(1).flatten(2).transpose(1, 2)
    vectors = normalize(keys.flatten(2).transpose(1, 2), dim=2 if normalised == "channels" else 1)
    weights = vectors @ vectors.transpose(1, 2)
    unsure = given.amax(2, keepdim=True) < threshold
    mended = torch.where(unsure, weights @ given, given)
    return mended.transpose(1, 2).reshape(b, k, h, w)
