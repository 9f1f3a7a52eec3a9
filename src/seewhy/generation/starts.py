"""Where chains start: at facets of what is asked for, at noise, or at a picture."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ..metrics.clusters import k_means
from .conditions import Condition
from .generator import Generator
from .sampler import Hole

PART = 8
"""One in so many of the kept codes is a candidate for a facet."""
JITTER = 0.5
"""Of chains that start at one picture, as a part of the spread of codes."""


def facets(generator: Generator, condition: Condition, n: int, seed: int) -> Float[Tensor, "n d"]:
    """The means of ``n`` clusters among the kept codes whose pictures come nearest to what is asked for.

    Multifaceted Feature Visualisation (Nguyen, Yosinski & Clune 2016, arXiv:1602.03616) starts from the means of
    clusters of training pictures that excite a unit. Here they are found by the condition itself, so that neurons and
    sentences have facets as well as classes.
    """
    codes = generator.codes
    with torch.no_grad():
        found = [condition.objective(generator.network(part), "log_softmax") for part in codes.split(32)]
    return facets_among(codes, torch.cat(found), n, seed)


def facets_among(codes: Float[Tensor, "m d"], fits: Float[Tensor, " m"], n: int, seed: int) -> Float[Tensor, "n d"]:
    """The means of ``n`` clusters among the codes that fit best."""
    most = max(n, min(len(codes), max(4 * n, len(codes) // PART)))
    best = codes[fits.topk(min(most, len(codes))).indices]
    if len(best) <= n:
        return best[torch.arange(n) % len(best)]
    return k_means(best, n, torch.Generator().manual_seed(seed))


def noise(generator: Generator, n: int, seed: int) -> Float[Tensor, "n d"]:
    """Codes of independent units, each with the mean and spread that it has on training pictures.

    The authors draw from N(0, 1), which means this much for their codes alone.
    """
    codes = generator.codes
    draws = torch.Generator().manual_seed(seed)
    return codes.mean(0) + codes.std(0) * torch.randn(n, codes.shape[1], generator=draws)


def at_picture(generator: Generator, picture: Float[Tensor, "1 3 s s"], n: int, seed: int) -> Float[Tensor, "n d"]:
    """The picture's own code, and around it others."""
    with torch.no_grad():
        own = generator.read(picture)
    around = noise(generator, n, seed) - generator.codes.mean(0)
    around[0] = 0
    return own + JITTER * around


def in_hole(generator: Generator, hole: Hole, n: int, seed: int) -> Float[Tensor, "n d"]:
    """The code of the picture with its hole grey, as the authors begin; around it others."""
    grey = hole.picture.mean((2, 3), keepdim=True).expand_as(hole.picture)
    return at_picture(generator, hole.filled(grey), n, seed)


STARTS: Mapping[str, str] = {
    "facets": "the means of clusters of training codes that come nearest to it",
    "noise": "noise with the mean and spread of training codes",
    "picture": "the picture given, and codes around it",
}
"""How each is told."""
