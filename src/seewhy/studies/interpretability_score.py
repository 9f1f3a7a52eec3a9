"""The Inherent Interpretability Score: accuracy that is left when only a few concepts of a picture may be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from ..errors import DataError
from ..heads.sparse_concepts import SPARSITIES, Mask, n_kept, sparsify


@dataclass(frozen=True)
class Parts:
    """What is trained on, what the learning rate and epoch are chosen on, and what is reported: three sets."""

    train: Bool[Tensor, " n"]
    selection: Bool[Tensor, " n"]
    test: Bool[Tensor, " n"]


@dataclass(frozen=True)
class HeadTraining:
    """A linear layer under cross entropy, trained as in the authors' scripts.

    Adam, the rate multiplied by ``decay`` each epoch, weights from a normal distribution cut at two units. Unlike
    theirs, the rate and the epoch are chosen on pictures of their own rather than on those reported, and a small set
    has more steps than ``n_epochs`` of it: 30 epochs of 1,000 pictures are 30 steps, which train nothing.

    Args:
        rates: learning rates tried, all three of the authors' grid (their shipped run uses 0.01 alone).
        n_epochs: of the authors.
        least_steps: on small sets, epochs are added until there are so many.
        batch_size: of the authors.
        decay: of the authors.
        std: of the first weights, of the authors.
        seed: of first weights and order.
    """

    rates: tuple[float, ...] = (1e-3, 1e-2, 1e-1)
    n_epochs: int = 30
    least_steps: int = 300
    batch_size: int = 1024
    decay: float = 0.99
    std: float = 0.02
    seed: int = 0

    def __call__(self, x: Float[Tensor, "n d"], labels: Int[Tensor, " n"], parts: Parts) -> Bool[Tensor, " t"]:
        """Which test rows the best layer is right on, the best by the rows to choose on."""
        if not bool(torch.isfinite(x).all()):
            row = int((~torch.isfinite(x).all(1)).nonzero()[0])
            raise DataError(
                f"The features of row {row} are NaN or infinite. Finite numbers were expected. Leave the picture out, "
                "or encode it again."
            )
        k, d = int(labels.max()) + 1, x.shape[1]
        draws = torch.Generator().manual_seed(self.seed)
        start = torch.nn.init.trunc_normal_(torch.empty(k, d), std=self.std, a=-2, b=2, generator=draws)
        layers = _Layers(start, self.rates)
        own, truth = x[parts.train], one_hot(labels[parts.train], k).to(x).repeat(1, len(self.rates))
        batches = -(-len(own) // self.batch_size)
        n_epochs = max(self.n_epochs, -(-self.least_steps // batches))
        every = max(1, n_epochs // self.n_epochs)  # as many looks at what is chosen on as theirs
        for epoch in range(n_epochs):
            for rows in torch.randperm(len(own), generator=draws).split(self.batch_size):
                layers.step(own[rows], truth[rows], self.decay**epoch)
            if (epoch + 1) % every == 0:
                layers.choose(x[parts.selection], labels[parts.selection])
        return layers.best(x[parts.test]).argmax(1) == labels[parts.test]


class _Layers:
    """Linear layers of one start, each with its learning rate; they share every product with the pictures.

    Adam is written out, since the gradient is a formula and a study trains hundreds of small layers: ten times as fast
    as with ``torch.optim`` and a tape.
    """

    BETAS, EPS = (0.9, 0.999), 1e-8

    def __init__(self, start: Float[Tensor, "k d"], rates: Sequence[float]) -> None:
        self.n, self.k = len(rates), len(start)
        self.weight = torch.cat([start, torch.zeros(self.k, 1)], 1).repeat(self.n, 1)  # the last column is the bias
        self.rates = torch.tensor(rates).repeat_interleave(self.k)[:, None]
        self.mean, self.square = torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        self.steps = 0
        self.found = [(-1.0, 0.0)] * self.n
        self.kept = self.weight.clone()

    def step(self, x: Float[Tensor, "b d"], truth: Float[Tensor, "b l"], decay: float) -> None:
        """One step of Adam on the mean cross entropy of each layer."""
        given = (self.logits(x).softmax(2).flatten(1) - truth) / len(x)
        gradient = torch.cat([given.T @ x, given.sum(0)[:, None]], 1)
        self.steps += 1
        first, second = self.BETAS
        self.mean.lerp_(gradient, 1 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        size = (self.square / (1 - second**self.steps)).sqrt_().add_(self.EPS)
        self.weight -= self.rates * (decay / (1 - first**self.steps)) * self.mean / size

    def logits(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b l k"]:
        return torch.addmm(self.weight[:, -1], x, self.weight[:, :-1].T).unflatten(1, (self.n, self.k))

    def choose(self, x: Float[Tensor, "b d"], labels: Int[Tensor, " b"]) -> None:
        """Keep each layer where it is better than before: more right, or as many with less loss."""
        for i, logits in enumerate(self.logits(x).unbind(1)):
            now = float((logits.argmax(1) == labels).float().mean()), -float(cross_entropy(logits, labels))
            if now > self.found[i]:
                self.found[i] = now
                self.kept[i * self.k : (i + 1) * self.k] = self.weight[i * self.k : (i + 1) * self.k]

    def best(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Logits of the best of all that were kept."""
        i = max(range(self.n), key=self.found.__getitem__)
        weight = self.kept[i * self.k : (i + 1) * self.k]
        return torch.addmm(weight[:, -1], x, weight[:, :-1].T)


def standardised(x: Float[Tensor, "n d"], train: Bool[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """Less the mean of the rows trained on, by their standard deviation; what never changes there is left at 0."""
    spread = x[train].std(0, correction=0)
    return torch.where(spread > 1e-6 * x[train].abs().amax(0), (x - x[train].mean(0)) / spread.clamp(min=1e-30), 0.0)


def iis(
    accuracies: Float[Tensor, "*n s"],
    reference: Float[Tensor, "*n"],
    sparsities: Sequence[float] = SPARSITIES,
    *,
    normalised: bool = False,
) -> Float[Tensor, "*n"]:
    """``Σ (ARR_i + ARR_{i+1}) / 2 · (s_{i+1} - s_i)`` with ``ARR(s) = accuracy(s) / reference`` (equation 7).

    It is not divided by the range, so that a representation that loses nothing scores 0.98; above that it gains. Never
    clipped.

    Example:
        >>> round(float(iis(torch.full((8,), 0.5), torch.tensor(0.5))), 4)
        0.98
    """
    whole = torch.trapezoid(accuracies / reference[..., None].clamp(min=1e-12), accuracies.new_tensor(sparsities))
    return whole / (sparsities[-1] - sparsities[0]) if normalised else whole


@dataclass(frozen=True)
class Measured:
    """What one set of concepts is worth to one encoder."""

    right: Bool[Tensor, "t s"]
    kept: tuple[int, ...]
    used: tuple[int, ...]


def measure(
    scores: Float[Tensor, "n m"],
    labels: Int[Tensor, " n"],
    parts: Parts,
    *,
    sparsities: Sequence[float] = SPARSITIES,
    mask: Mask = "hard",
    training: HeadTraining | None = None,
) -> Measured:
    """Train a layer at every sparsity."""
    training = training or HeadTraining()
    right, used = [], []
    for sparsity in sparsities:
        sparse = sparsify(scores, sparsity, mask)
        right.append(training(sparse, labels, parts))
        used.append(int((sparse[parts.test] != 0).any(0).sum()))
    kept = tuple(n_kept(scores.shape[1], s, mask) for s in sparsities)
    return Measured(torch.stack(right, 1), kept, tuple(used))
