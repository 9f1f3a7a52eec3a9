"""Features of a class that has no pictures, from its name and the classes near it (OGEN, section 3.2)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize


class FeatureGenerator(nn.Module):
    """``G(Q, K, V) = normalise(MHA(Q, K, V) + MLP(Q))``, with names as queries and keys and pictures as values.

    Args:
        width: of names and pictures.
        n_heads: of the attention; 1 where the width is no multiple of it.
        dropout: of the attention.
    """

    def __init__(self, width: int, n_heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        heads = n_heads if width % n_heads == 0 else 1
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(
        self, query: Float[Tensor, "b q d"], key: Float[Tensor, "b k d"], value: Float[Tensor, "b k d"]
    ) -> Float[Tensor, "n d"]:
        """One unit vector per query, all batches in a row."""
        found, _ = self.attention(query, key, value)
        return normalize(self.mlp(query) + found, dim=-1).flatten(0, 1)


@torch.no_grad()
def statistics(
    image: Float[Tensor, "n d"], labels: Tensor, n_classes: int
) -> tuple[Float[Tensor, "c d"], Float[Tensor, "c d"]]:
    """Mean and standard deviation of each class's pictures; 0 for one of a single picture."""
    own = [image[labels == c] for c in range(n_classes)]
    return torch.stack([x.mean(0) for x in own]), torch.stack([x.std(0, correction=0) for x in own])


def neighbours(mean: Float[Tensor, "c d"], k: int) -> Tensor:
    """The ``k`` nearest other classes of each, by the product of means."""
    near = mean @ mean.T
    return near.fill_diagonal_(-torch.inf).topk(min(k, len(mean) - 1)).indices
