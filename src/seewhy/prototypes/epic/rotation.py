"""Square matrices behind a feature map whose inverse is folded into the head: no logit changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import ModelError
from ...heads.head import Head
from ...heads.votes import Votes

Form = Literal["orthogonal", "invertible"]

TOLERANCE = 1e-4
"""Largest difference of a folded logit, as a part of the largest logit."""


def exponential(raw: Float[Tensor, "d d"], form: Form) -> Float[Tensor, "d d"]:
    """``U = exp(A − Aᵀ)`` (orthogonal) or ``U = exp(A)`` (invertible); the identity at ``A = 0``; differentiable.

    Example:
        >>> exponential(torch.tensor([[0.0, torch.pi / 2], [0.0, 0.0]]), "orthogonal").round().abs().tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    return torch.linalg.matrix_exp(raw - raw.T if form == "orthogonal" else raw)


def polar(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The orthogonal matrix nearest to this one, which maximises ``<U, A>`` (Schönemann 1966): ``P Qᵀ`` of its SVD."""
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right


@dataclass(frozen=True, eq=False)
class Rotation:
    """``U`` and its inverse.

    Attributes:
        matrix: row ``k`` reads channel ``k`` of the new map.
        inverse: its transpose where it is orthogonal.
        form: what it may be.
    """

    matrix: Float[Tensor, "d d"]
    inverse: Float[Tensor, "d d"]
    form: Form = "orthogonal"

    @classmethod
    def identity(cls, width: int) -> Rotation:
        return cls(torch.eye(width), torch.eye(width))

    @classmethod
    def orthogonal(cls, matrix: Float[Tensor, "d d"]) -> Rotation:
        return cls(matrix, matrix.T)

    @classmethod
    def of(cls, raw: Float[Tensor, "d d"], form: Form) -> Rotation:
        """Of the paper's parameters, in double precision."""
        with torch.no_grad():
            matrix = exponential(raw.double(), form)
            inverse = matrix.T if form == "orthogonal" else exponential(-raw.double(), form)
        return cls(matrix.float(), inverse.float(), form)

    @classmethod
    def random(cls, width: int, seed: int) -> Rotation:
        """A random orthogonal matrix, uniform: the control."""
        noise = torch.randn(width, width, generator=torch.Generator().manual_seed(seed))
        matrix, upper = torch.linalg.qr(noise)
        return cls.orthogonal(matrix * upper.diagonal().sign())

    @property
    def error(self) -> float:
        """Largest entry of ``U U⁻¹ − 1``."""
        return float((self.matrix @ self.inverse - torch.eye(len(self.matrix))).abs().max())


def folded_logits(
    head: Head, rotation: Rotation, pooled: Float[Tensor, "b d"], cells: Float[Tensor, "b s d"]
) -> Float[Tensor, "b k"]:
    """Logits of the folded head, from the rotated cells: ``A' mean(U Z) + b'`` with ``A' = A U⁻¹``.

    ``A`` is the head's weight where it is linear in the pooled vector. Where it normalises the vector first, or lets
    pictures or sentences vote, ``A`` is that picture's own (:meth:`seewhy.heads.head.Feature.slope`), and ``b'``
    holds what the picture adds to every cell alike.
    """
    logits = head(pooled)
    rotated = (cells @ rotation.matrix.T).mean(1)
    found = []
    for one, own, moved in zip(pooled, logits, rotated, strict=True):
        rows = head.scale * _rows(head, one)
        weight = head.feature.slope(one.expand(len(rows), -1), rows)
        found.append(weight @ rotation.inverse @ moved + (own - weight @ one))
    return torch.stack(found)


def _rows(head: Head, pooled: Float[Tensor, " d"]) -> Float[Tensor, "k c"]:
    """A row a class: the head's weights, weighed by what each counts in the vote on this picture, if there is one."""
    if head.votes is None:
        return head.weight
    scores = (head.feature(pooled[None]) @ head.weight.T).detach()
    if isinstance(head.votes, Votes):
        part = head.votes.within(scores)[0]
        rows = torch.zeros(head.votes.n_classes, head.weight.shape[1])
        return rows.index_add(0, head.votes.owner, part[:, None] * head.weight)
    with torch.enable_grad():
        leaf = scores.requires_grad_()
        logits = head.votes(leaf)[0]
        slopes = [torch.autograd.grad(logit, leaf, retain_graph=True)[0][0] for logit in logits]
    return torch.stack(slopes) @ head.weight


@dataclass(frozen=True)
class FoldCheck:
    """How near folded logits are to the model's own.

    Attributes:
        difference: largest difference, as a part of the largest logit.
        agreement: part of the pictures whose decision is the same.
        n: pictures it was measured on.
    """

    difference: float
    agreement: float
    n: int


def check_fold(
    head: Head, rotation: Rotation, pooled: Float[Tensor, "b d"], cells: Float[Tensor, "b s d"]
) -> FoldCheck:
    """Compare folded logits with the model's own."""
    with torch.no_grad():
        own, folded = head(pooled), folded_logits(head, rotation, pooled, cells)
    difference = float((own - folded).abs().max() / own.abs().max().clamp(min=1e-12))
    agreement = float((own.argmax(1) == folded.argmax(1)).float().mean())
    if not difference < TOLERANCE:
        raise ModelError(
            f"The folded head differs from the model by {difference:.1e} of its largest logit. Less than "
            f"{TOLERANCE:g} was expected. Use --form orthogonal, whose inverse is exact."
        )
    return FoldCheck(difference, agreement, len(own))
