"""Groups of pictures that show the same object, and splits that keep groups together."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..clusters import connected, grouped, links, numbered
from ..heads.normalise import Normalise

CHANCE = 0.05
"""Expected number of false matches per picture."""
N_PAIRS = 40
"""Pairs of classes from which the number of false matches is estimated."""
N_DRAWN = 300
"""Number of pictures of each class in such a pair."""
FEWEST_ALIKE = 4
"""Smallest number of pictures from which a class may be said to show one object."""
MOST_LINKED = 4000
"""Largest number of pictures in a clustering; larger classes are split."""


@dataclass(frozen=True)
class Grouping:
    """The group of each picture; pictures of a group show the same object.

    Attributes:
        by: ``"looks"`` (similarity from ``threshold``), ``"given"`` (names) or ``"copies"`` (equal bytes).
        one_thing: classes whose pictures may all show one object.
    """

    groups: Int[Tensor, " n"]
    by: str
    threshold: float | None = None
    one_thing: tuple[int, ...] = ()


def group_by_looks(
    pooled: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    digests: Sequence[str],
    kinds: Int[Tensor, " n"] | None = None,
) -> Grouping:
    """Group similar pictures of a class by average linkage of their :class:`Individuality`.

    The threshold is estimated on pairs of different classes, which never show the same object. ``kinds`` divide the
    pictures in place of the classes.
    """
    copies, kinds = numbered(digests), labels if kinds is None else kinds
    own = Individuality(pooled, kinds)
    threshold = own.threshold()
    groups = copies.clone()
    if threshold is not None:
        for k in kinds.unique().tolist():
            for mine in (kinds == k).nonzero()[:, 0].split(MOST_LINKED):
                groups[mine] = len(labels) + mine[average_linkage(own.cosines(mine), threshold)]
    joined = connected(len(labels), links(groups), links(copies))
    return Grouping(joined, "looks", threshold, one_thing(pooled, labels))


def one_thing(pooled: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> tuple[int, ...]:
    """Return the classes in which every two pictures are more similar than any picture to one of another class.

    Such a class may show only one object. A class with one picture is included, one with two or three is not, because
    they may be similar by chance.
    """
    x = Normalise(0.5, l2=True)(pooled)
    x = torch.nn.functional.normalize(x - x.mean(0), dim=1)
    found = []
    for k in labels.unique().tolist():
        mine, others = x[labels == k], x[labels != k]
        if not (len(mine) == 1 or FEWEST_ALIKE <= len(mine) <= MOST_LINKED):
            continue
        nearest = float((mine @ others.T).max()) if len(others) else -1.0
        if float((mine @ mine.T).min()) > nearest or len(mine) == 1:
            found.append(k)
    return tuple(found)


class Individuality:
    """Whitened differences of pictures from the mean of their class.

        r = x - m_c
        W = Σ r rᵀ / n
        M = (W + tr(W)/d I)⁻¹

    - ``x``: the features of a picture; ``m_c`` is the mean of its class, and ``r`` the difference.
    - ``W``: the covariance within the classes that are not compared, from ``n`` pictures.
    - ``M``: the metric of the cosine between pictures, which gives little weight to common differences such as pose or
      light; ``d`` is the number of features, and ``I`` the identity.
    """

    def __init__(self, pooled: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> None:
        x = Normalise(0.5, l2=True)(pooled).double()
        count = labels.bincount().clamp(min=1)[:, None]
        mean = torch.zeros(len(count), x.shape[1], dtype=x.dtype).index_add_(0, labels, x) / count
        self.rest, self.labels = x - mean[labels], labels
        n, d = x.shape
        ridge = (self.rest.square().sum() / n / d).clamp(min=1e-12)
        self.products: Float[Tensor, "n n"] | None = None
        if n < d:  # R (RᵀR/n + λ I)⁻¹ Rᵀ = K (K/n + λ I)⁻¹ with K = R Rᵀ
            gram = self.rest @ self.rest.T
            self.products = torch.linalg.solve(gram / n + ridge * torch.eye(n, dtype=x.dtype), gram)
        else:
            self.within = self.rest.T @ self.rest / n + ridge * torch.eye(d, dtype=x.dtype)
            self.inverse = torch.linalg.inv(self.within)

    def cosines(self, of: Int[Tensor, " m"], some: Int[Tensor, " s"] | None = None) -> Float[Tensor, "s s"]:
        """Return the cosines between the pictures of one or more complete classes, or between ``some`` of them."""
        rest = self.rest[of]
        if len(of) < rest.shape[1]:
            # Woodbury: what W without these pictures would say, from what W with them says.
            eye = torch.eye(len(of), dtype=rest.dtype)
            known = self.products
            between = rest @ self.inverse @ rest.T if known is None else known[of][:, of]
            product = torch.linalg.inv(eye - between / len(self.rest)) - eye
            product = product if some is None else product[some][:, some]
        else:
            part = rest if some is None else rest[some]
            product = part @ torch.linalg.solve(self.within - rest.T @ rest / len(self.rest), part.T)
        length = product.diag().clamp(min=1e-12).sqrt()
        return product / length / length[:, None]

    def threshold(self) -> float | None:
        """Return the cosine above which a picture has, on average, :data:`CHANCE` false matches."""
        count = self.labels.bincount().double()
        present = (count > 1).nonzero()[:, 0].tolist()  # a picture does not differ from its own mean
        pairs = float((count * (count - 1)).sum())
        if len(present) < 2:
            return None
        draw = random.Random(0)
        cosines: dict[tuple[int, ...], Tensor] = {}
        sampled = [tuple(sorted(draw.sample(present, 2))) for _ in range(N_PAIRS)]
        for pair in set(sampled):
            mine, others = ((self.labels == k).nonzero()[:MOST_LINKED, 0] for k in pair)
            some = torch.cat([torch.arange(len(mine))[:N_DRAWN], len(mine) + torch.arange(len(others))[:N_DRAWN]])
            n = min(len(mine), N_DRAWN)
            cosines[pair] = self.cosines(torch.cat([mine, others]), some)[:n, n:].flatten()
        values = torch.cat([cosines[pair] for pair in sampled])
        place = min(len(values) - 1, int(CHANCE * float(count.sum()) / pairs * len(values)))
        return max(float(values.topk(place + 1).values[-1]), 1e-6)


def average_linkage(cosine: Float[Tensor, "n n"], threshold: float) -> Int[Tensor, " n"]:
    """Cluster rows by average linkage and return the first member of each row's cluster."""
    from scipy.cluster.hierarchy import fcluster, linkage  # takes a tenth of a second to import

    if len(cosine) < 2:
        return torch.arange(len(cosine))
    apart = 2 - (cosine + cosine.T).double().nan_to_num().numpy() / 2
    tree = linkage(apart[np.triu_indices(len(apart), 1)], "average")
    _, first, name = np.unique(fcluster(tree, 2 - threshold, "distance"), return_index=True, return_inverse=True)
    return torch.from_numpy(first[name])


def hold_out_groups(labels: Int[Tensor, " n"], groups: Int[Tensor, " n"], fraction: float, seed: int) -> Tensor:
    """Return a mask of held-out pictures: a share of each class, in whole groups."""
    held = torch.zeros(len(labels), dtype=torch.bool)
    if fraction <= 0:
        return held
    for k in labels.unique().tolist():
        names, sizes = groups[labels == k].unique(return_counts=True)
        size = dict(zip(names.tolist(), sizes.tolist(), strict=True))
        order = list(size)
        random.Random(f"{seed}|{k}").shuffle(order)
        wanted, n, chosen = fraction * sum(size.values()), 0, []
        for name in order[:-1]:
            if n and abs(n + size[name] - wanted) >= abs(n - wanted):
                continue
            chosen.append(name)
            n += size[name]
            if n >= wanted:
                break
        held |= (labels == k) & torch.isin(groups, torch.tensor(chosen, dtype=groups.dtype))
    return held


def group_folds(labels: Int[Tensor, " n"], groups: Int[Tensor, " n"], n_folds: int, seed: int) -> Int[Tensor, " n"]:
    """Return the fold of each picture, with whole groups in balanced folds.

    A class whose pictures would all be in one fold is only used for training (fold -1).
    """
    order = torch.randperm(int(groups.max()) + 1, generator=torch.Generator().manual_seed(seed)).tolist()
    members = grouped((group, i) for i, group in enumerate(groups.tolist()))
    of, size = labels.tolist(), labels.bincount().tolist()
    placed: dict[int, list[float]] = {k: [0.0] * n_folds for k in set(of)}
    total = [0] * n_folds
    fold = torch.full((len(labels),), -1)
    for group in sorted(members, key=lambda g: (-len(members[g]), order[g])):
        mine = members[group]
        load = [sum(placed[of[i]][f] / size[of[i]] for i in mine) for f in range(n_folds)]
        best = min(range(n_folds), key=lambda f: (round(load[f], 9), total[f]))
        for i in mine:
            placed[of[i]][best] += 1
        total[best] += len(mine)
        fold[mine] = best
    lone = {k for k, counts in placed.items() if sum(c > 0 for c in counts) < 2}
    for mine in members.values():
        if any(of[i] in lone for i in mine):
            fold[mine] = -1
    return fold
