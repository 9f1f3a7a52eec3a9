"""Nearest patches as prototypes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..attributions.base import Explainable
from ..attributions.shares import cell_evidence, shares
from ..bounds import Count
from ..encoders.base import EncoderOutput
from . import prototypes
from .bank import PatchBank, Patches, patch_vector, patch_vectors
from .base import Group, Match, Prototypes, Query

FIRST = 8
"""Candidates to sort per displayed patch."""


@prototypes.register
@dataclass(frozen=True)
class NearestPatches(Prototypes):
    """The most similar patches of your pictures for each region of a picture.

    The similarity is the cosine of the vectors from :func:`seewhy.prototypes.bank.patch_vector`.

    Args:
        n_neighbours: number of patches per region.
        duplicate: pooled cosine above which pictures are duplicates; duplicates of the query or of displayed pictures
            are skipped.
    """

    name = "nearest"
    paper = "Nearest neighbours in feature space"
    needs = "a classifier fitted on pictures"
    cost = "0"
    priority = 1

    n_neighbours: Count = 4
    duplicate: float = 0.98

    def __call__(self, model: Explainable, bank: Patches, query: Query) -> list[Group]:
        known = patches(bank)
        grid = model.encoder.layout.to_grid(query.look.features)[0]
        share = query.share
        if share is None:
            share = shares(cell_evidence(model, query.look, query.target))[0]
        banned = known.copies(query.look.pooled[0], query.digest, self.duplicate)
        if not query.cells:
            return []
        similarity = torch.stack([patch_vector(grid, cell) for cell in query.cells]) @ known.vectors.T
        groups = []
        for cell, near in zip(query.cells, similarity, strict=True):
            candidates = _descending(near, first=FIRST * self.n_neighbours)
            shown = known.distinct(candidates, banned, self.n_neighbours, self.duplicate)
            groups.append(Group(cell, float(share[cell]), tuple(Match(patch, float(near[patch])) for patch in shown)))
        return groups

    def activation(
        self, model: Explainable, bank: Patches, look: EncoderOutput, which: Int[Tensor, " p"]
    ) -> Float[Tensor, "b p h w"]:
        """Return the cosine of each grid cell with each patch, -1 to 1."""
        vectors = patch_vectors(model.encoder.layout.to_grid(look.features))
        return torch.einsum("pc,bchw->bphw", patches(bank).vectors[which], vectors)


def _descending(values: Float[Tensor, " n"], first: int) -> Iterator[int]:
    """Yield indices in descending order of value; values beyond the largest ``first`` are sorted only when needed."""
    if first < len(values):
        most = (values >= values.topk(first).values[-1]).nonzero()[:, 0]
        yield from most[values[most].argsort(descending=True, stable=True)].tolist()
    else:
        most = torch.tensor([], dtype=torch.long)
    yield from values.argsort(descending=True, stable=True)[len(most) :].tolist()


def patches(bank: Patches) -> PatchBank:
    if not isinstance(bank, PatchBank):
        raise TypeError(f"nearest needs a PatchBank, not {type(bank).__name__}")
    return bank
