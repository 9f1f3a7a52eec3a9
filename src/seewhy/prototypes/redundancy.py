"""Which prototypes say the same: alike in direction, in the pictures they come from, and in what they rest on."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


def redundant(
    vectors: Float[Tensor, "p c"],
    pictures: Sequence[Collection[int]],
    influences: Float[Tensor, "p m"] | None = None,
    *,
    cosine: float = 0.95,
    overlap: float = 0.5,
    difference: float = 0.1,
) -> list[tuple[int, ...]]:
    """Groups of prototypes that repeat each other, each led by the first, in order; most groups have one member.

    A prototype joins the first group whose leader it repeats: their vectors' cosine is at least ``cosine``, the
    pictures they are most like overlap by at least ``overlap`` (the size of the intersection divided by that of the
    union), and no relative influence differs by more than ``difference``. Ours; the paper has no such rule.

    Example:
        >>> import torch
        >>> redundant(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1]]), [{1, 2}, {1, 2}, {2, 1}])
        [(0, 2), (1,)]
    """
    alike = normalize(vectors, dim=1) @ normalize(vectors, dim=1).T >= cosine
    if influences is not None:
        alike &= (influences[:, None] - influences[None]).abs().amax(2) <= difference
    groups: list[list[int]] = []
    for i in range(len(vectors)):
        leader = next((g for g in groups if alike[g[0], i] and _overlap(pictures[g[0]], pictures[i]) >= overlap), None)
        if leader is None:
            groups.append([i])
        else:
            leader.append(i)
    return [tuple(g) for g in groups]


def _overlap(a: Collection[int], b: Collection[int]) -> float:
    """Jaccard's index; of two that come from nowhere 1."""
    union = set(a) | set(b)
    return len(set(a) & set(b)) / len(union) if union else 1.0
