"""How often a picture finds a text of its own among all, and a text its picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

DEPTHS = (1, 5, 10)
"""Places among which a hit counts: R@1, R@5, R@10."""
ROWS = 1024
"""Texts or pictures that are compared with all others at once."""


@dataclass(frozen=True, eq=False)
class Ranks:
    """How many others are as near as what belongs together; 0 is the first place."""

    image_to_text: Int[Tensor, " p"]
    text_to_image: Int[Tensor, " m"]
    owner: Int[Tensor, " m"]

    def recall(self, depth: int) -> tuple[float, float]:
        """Part of the pictures, and part of the texts, with what belongs to them among the first.

        >>> ranks(torch.eye(2), torch.eye(2), torch.tensor([0, 1])).recall(1)
        (1.0, 1.0)
        """
        return float((self.image_to_text < depth).float().mean()), float((self.text_to_image < depth).float().mean())


@torch.no_grad()
def ranks(image: Float[Tensor, "p d"], text: Float[Tensor, "m d"], owner: Int[Tensor, " m"]) -> Ranks:
    """Compare every picture with every text by the cosine.

    A tie counts against: vectors that are all the same find nothing. Other texts of a picture's own are no rivals.
    """
    x, y = normalize(image, dim=1), normalize(text, dim=1)
    own = (x[owner] * y).sum(1)
    best = torch.full((len(x),), -torch.inf, dtype=own.dtype).scatter_reduce(0, owner, own, "amax")
    to_image = []
    for start in range(0, len(y), ROWS):
        scores, mine = y[start : start + ROWS] @ x.T, owner[start : start + ROWS, None]
        to_image.append((scores >= scores.gather(1, mine)).sum(1) - 1)
    to_text = []
    for start in range(0, len(x), ROWS):
        rows = torch.arange(start, min(start + ROWS, len(x)))
        scores = (x[rows] @ y.T).masked_fill(owner[None] == rows[:, None], -torch.inf)
        to_text.append((scores >= best[rows, None] - 1e-6).sum(1))
    return Ranks(torch.cat(to_text), torch.cat(to_image), owner)


def recall(image: Float[Tensor, "n d"], text: Float[Tensor, "n d"]) -> float:
    """Part of the pictures whose nearest text is as near as their own; 1 is best, ``1 / n`` by chance."""
    scores = normalize(image, dim=1) @ normalize(text, dim=1).T
    return float((scores.diagonal() >= scores.amax(1) - 1e-6).float().mean())
