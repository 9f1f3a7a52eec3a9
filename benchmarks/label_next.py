"""Which unlabelled pictures to label next: published strategies on features and probabilities, without a second look.

Each orders the pool so that the first pictures are those to label first. ``loop.py`` measures what each brings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.clusters import k_means

MOST_CLUSTERS = 500
SMALLEST_CLUSTER = 6
N_NEIGHBOURS = 20
"""Of TypiClust, as in the authors' code: 5 or fewer pictures are no cluster."""


@dataclass(frozen=True)
class Pool:
    """The unlabelled pictures, and those that have labels.

    Attributes:
        features: of the unlabelled pictures, of unit length.
        probabilities: that the classifier gives their classes.
        labelled: features of the labelled pictures.
    """

    features: Float[Tensor, "n d"]
    probabilities: Float[Tensor, "n k"]
    labelled: Float[Tensor, "m d"]

    def __len__(self) -> int:
        return len(self.features)


Strategy = Callable[[Pool, int, torch.Generator], Int[Tensor, " b"]]
"""Of a pool, how many to choose, and the draws: their places, in the order in which they are to be labelled."""


def random(pool: Pool, n: int, draws: torch.Generator) -> Int[Tensor, " b"]:
    """Pictures drawn with equal chances: what every strategy has to beat."""
    return torch.randperm(len(pool), generator=draws)[:n]


def margin(pool: Pool, n: int, draws: torch.Generator) -> Int[Tensor, " b"]:
    """Pictures whose two likeliest classes are closest (Scheffer et al. 2001)."""
    top = pool.probabilities.topk(2, dim=1).values
    return (top[:, 0] - top[:, 1]).argsort(stable=True)[:n]


def core_set(pool: Pool, n: int, draws: torch.Generator) -> Int[Tensor, " b"]:
    """Pictures that leave none far from a labelled one (Sener and Savarese 2018, arXiv:1708.00489, algorithm 1).

    Greedy k-centre: the next picture is the one farthest from all that are labelled or chosen. The paper's second
    step, a mixed-integer program, is left out, as in the code of BADGE's authors.
    """
    nearest = torch.full((len(pool),), torch.inf)
    if len(pool.labelled):
        nearest = torch.cdist(pool.features, pool.labelled).amin(1)
    chosen: list[int] = []
    for _ in range(min(n, len(pool))):
        i = int(nearest.argmax())
        chosen.append(i)
        nearest = torch.minimum(nearest, torch.cdist(pool.features, pool.features[i : i + 1])[:, 0])
        nearest[chosen] = -torch.inf
    return torch.tensor(chosen, dtype=torch.long)


def badge(pool: Pool, n: int, draws: torch.Generator) -> Int[Tensor, " b"]:
    """Pictures that would change the classifier most, each in another way (Ash et al. 2020, arXiv:1906.03671).

    k-means++ on the gradients that the likeliest class as label would give the last layer, ``(p − onehot) ⊗ x``; their
    distances are computed from ``p`` and ``x`` alone, as in the authors' code. The first is the longest gradient.
    """
    p, x = pool.probabilities.double(), pool.features.double()
    slope = p.scatter_add(1, p.argmax(1, keepdim=True), -torch.ones(len(p), 1, dtype=p.dtype))
    size = slope.square().sum(1) * x.square().sum(1)
    chosen, nearest = [int(size.argmax())], torch.full_like(size, torch.inf)
    while len(chosen) < min(n, len(pool)):
        last = chosen[-1]
        square = size + size[last] - 2 * (slope @ slope[last]) * (x @ x[last])
        nearest = torch.minimum(nearest, square.clamp(min=0)).index_fill(0, torch.tensor(last), 0)
        left = nearest if bool((nearest > 0).any()) else torch.ones_like(nearest).index_fill(0, torch.tensor(chosen), 0)
        chosen.append(int(torch.multinomial(left, 1, generator=draws)))
    return torch.tensor(chosen[:n], dtype=torch.long)


def typical(pool: Pool, n: int, draws: torch.Generator) -> Int[Tensor, " b"]:
    """The most typical picture of each group that has no label yet (TypiClust, Hacohen et al. 2022, arXiv:2202.02794).

    All pictures are grouped by k-means into as many clusters as there are labels and choices, 500 at most. Clusters
    with the fewest labels come first, the larger before the smaller; of each, the picture whose nearest neighbours in
    it are nearest. Clusters of five pictures or fewer come when the others are empty, where the authors' code fails.
    """
    every, n_labelled = torch.cat([pool.labelled, pool.features]), len(pool.labelled)
    centres = k_means(every, min(n_labelled + n, MOST_CLUSTERS, len(every)), draws)
    return of_clusters(pool, torch.cdist(every, centres).argmin(1), n)


def of_clusters(pool: Pool, cluster: Int[Tensor, " a"], n: int) -> Int[Tensor, " b"]:
    """The most typical pictures of clusters, in turn; ``cluster`` has those of the labelled pictures first."""
    n_labelled, sizes = len(pool.labelled), cluster.bincount()
    labels = cluster[:n_labelled].bincount(minlength=len(sizes))
    small = (sizes < SMALLEST_CLUSTER).tolist()
    order = sorted(range(len(sizes)), key=lambda k: (int(labels[k]), -int(sizes[k]), k))
    left = {k: (cluster[n_labelled:] == k).nonzero()[:, 0] for k in order}
    chosen: list[int] = []
    while len(chosen) < min(n, len(pool)):
        among = [k for k in order if len(left[k]) and not small[k]] or [k for k in order if len(left[k])]
        for k in among:
            if len(chosen) < n:
                best = _most_typical(pool.features[left[k]])
                chosen.append(int(left[k][best]))
                left[k] = left[k][torch.arange(len(left[k])) != best]
    return torch.tensor(chosen, dtype=torch.long)


def _most_typical(features: Float[Tensor, "n d"]) -> int:
    """The place of the picture whose nearest neighbours are nearest, by the mean squared distance."""
    if len(features) < 2:
        return 0
    away = torch.cdist(features, features).square().fill_diagonal_(torch.inf)
    near = away.topk(min(N_NEIGHBOURS, len(features) // 2), dim=1, largest=False).values
    return int(near.mean(1).argmin())


STRATEGIES: Mapping[str, Strategy] = {
    "margin": margin,
    "core-set": core_set,
    "badge": badge,
    "typical": typical,
    "random": random,
}
