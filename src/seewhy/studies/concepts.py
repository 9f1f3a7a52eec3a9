"""Concept libraries, and the accuracy of a linear classifier on a few concepts per picture (IIS)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot

from ..clusters import grouped, k_means
from ..encoders.base import Encoder
from ..encoders.stream import EncodeRequest, encode_stream, encode_texts
from ..errors import DataError
from ..heads.head import Projected
from ..heads.sparse_concepts import SPARSITIES, Mask, concept_scores, n_kept, sparsify
from ..storage.features import FeatureStore
from ..types import Crop, Failure


@dataclass(frozen=True)
class Parts:
    """Masks of the pictures for training, for choosing learning rate and epoch, and for testing."""

    train: Bool[Tensor, " n"]
    selection: Bool[Tensor, " n"]
    test: Bool[Tensor, " n"]


@dataclass(frozen=True)
class HeadTraining:
    """Training of a linear layer by Adam with cross entropy; the defaults follow the authors' scripts.

    Where we differ: the learning rate (one of ``rates``) and the epoch are chosen on separate pictures. Training has at
    least ``least_steps`` steps. The learning rate is multiplied by ``decay`` after each epoch.
    """

    rates: tuple[float, ...] = (1e-3, 1e-2, 1e-1)
    n_epochs: int = 30
    least_steps: int = 300
    batch_size: int = 1024
    decay: float = 0.99
    std: float = 0.02
    seed: int = 0

    def __call__(self, x: Float[Tensor, "n d"], labels: Int[Tensor, " n"], parts: Parts) -> Bool[Tensor, " t"]:
        """Train at every learning rate and return which test rows the best layer predicts correctly."""
        if not bool(torch.isfinite(x).all()):
            row = int((~torch.isfinite(x).all(1)).nonzero()[0])
            raise DataError(
                f"Features must be finite, and row {row} has NaN or infinite values. Leave this picture out, or encode "
                "it again."
            )
        k, d = int(labels.max()) + 1, x.shape[1]
        draws = torch.Generator().manual_seed(self.seed)
        start = torch.nn.init.trunc_normal_(torch.empty(k, d), std=self.std, a=-2, b=2, generator=draws)
        layers = _Layers(start, self.rates)
        own, truth = x[parts.train], one_hot(labels[parts.train], k).to(x).repeat(1, len(self.rates))
        batches = -(-len(own) // self.batch_size)
        n_epochs = max(self.n_epochs, -(-self.least_steps // batches))
        every = max(1, n_epochs // self.n_epochs)  # as many evaluations as in the authors' script
        for epoch in range(n_epochs):
            for rows in torch.randperm(len(own), generator=draws).split(self.batch_size):
                layers.step(own[rows], truth[rows], self.decay**epoch)
            if (epoch + 1) % every == 0:
                layers.choose(x[parts.selection], labels[parts.selection])
        return layers.best(x[parts.test]).argmax(1) == labels[parts.test]


class _Layers:
    """Linear layers with the same initial weights and different learning rates, trained together by Adam.

    The gradient is computed in closed form, which is ten times as fast as autograd with ``torch.optim``.
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
        """Take one Adam step on the cross entropy of each layer."""
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
        """Save each layer whose accuracy is higher than before, or equal with a lower loss."""
        for i, logits in enumerate(self.logits(x).unbind(1)):
            now = float((logits.argmax(1) == labels).float().mean()), -float(cross_entropy(logits, labels))
            if now > self.found[i]:
                self.found[i] = now
                self.kept[i * self.k : (i + 1) * self.k] = self.weight[i * self.k : (i + 1) * self.k]

    def best(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        i = max(range(self.n), key=self.found.__getitem__)
        weight = self.kept[i * self.k : (i + 1) * self.k]
        return torch.addmm(weight[:, -1], x, weight[:, :-1].T)


def standardised(x: Float[Tensor, "n d"], train: Bool[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """Standardise columns by mean and standard deviation of the training rows; constant columns become 0."""
    spread = x[train].std(0, correction=0)
    return torch.where(spread > 1e-6 * x[train].abs().amax(0), (x - x[train].mean(0)) / spread.clamp(min=1e-30), 0.0)


def iis(
    accuracies: Float[Tensor, "*n s"],
    reference: Float[Tensor, "*n"],
    sparsities: Sequence[float] = SPARSITIES,
    *,
    normalised: bool = False,
) -> Float[Tensor, "*n"]:
    """Return the interpretability score of equation 7, from the accuracy at each sparsity ``s``.

    With ``ARR(s) = accuracy(s) / reference``::

        Σ_i (ARR_i + ARR_{i+1}) / 2 · (s_{i+1} - s_i)

    With the default sparsities, a representation that loses no accuracy has the score 0.98, or 1 with ``normalised``.
    """
    whole = torch.trapezoid(accuracies / reference[..., None].clamp(min=1e-12), accuracies.new_tensor(sparsities))
    return whole / (sparsities[-1] - sparsities[0]) if normalised else whole


def measure(
    scores: Float[Tensor, "n m"],
    labels: Int[Tensor, " n"],
    parts: Parts,
    *,
    sparsities: Sequence[float] = SPARSITIES,
    mask: Mask = "hard",
    training: HeadTraining,
) -> tuple[Bool[Tensor, "t s"], list[int], list[int]]:
    """Train a linear layer at every sparsity; return which test pictures are right, and the concepts kept and used."""
    sparse = [sparsify(scores, sparsity, mask) for sparsity in sparsities]
    used = [int((one[parts.test] != 0).any(0).sum()) for one in sparse]
    kept = [n_kept(scores.shape[1], s, mask) for s in sparsities]
    return torch.stack([training(one, labels, parts) for one in sparse], 1), kept, used


PICTURES = 10
"""Number of pictures per class from which crops are taken, as in the authors' scripts."""
ALIGNED = 0.45
"""Smallest correlation of a concept's predicted scores with the judge's, as in the paper."""
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class Looked:
    """The features, labels and options from which concept libraries are built."""

    encoder: Encoder
    pooled: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    sources: Sequence[Any]
    parts: Parts
    n_concepts: int = 200
    grid: int = 4
    n_pieces: int = 2000
    texts: tuple[str, ...] = ()
    judge: tuple[Encoder, Float[Tensor, "n _"]] | None = None
    layer_norm: bool = True
    seed: int = 0
    store: FeatureStore | None = field(default=None, repr=False)

    def along(self, directions: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        """Return the standardised projections of all pictures on these directions."""
        values = concept_scores(self.pooled, directions, over_concepts=self.layer_norm)
        return values if self.layer_norm else standardised(values, self.parts.train)

    def draws(self, seed: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 1000 + seed)

    @cached_property
    def pieces(self) -> Float[Tensor, "p d"]:
        """Encoded crops of training pictures, drawn evenly over the classes, as unit vectors."""
        cells: list[Crop | None] = [None]  # the whole picture, as it is always seen
        if self.grid > 1:
            edges = [i / self.grid for i in range(self.grid + 1)]
            sides = list(itertools.pairwise(edges))
            cells = [Crop((left, top, right, low)) for top, low in sides for left, right in sides]
        boxes = [(r, b) for r in _by_class(self.labels, self.parts.train, self.draws(), PICTURES) for b in cells]
        if len(boxes) > self.n_pieces:  # spread over all pictures, not the first ones
            chosen = torch.randperm(len(boxes), generator=self.draws(1))[: self.n_pieces].sort().values
            boxes = [boxes[i] for i in chosen.tolist()]
        views = grouped(boxes)
        of = list(views)
        request = EncodeRequest(views=lambda i: views[of[i]])
        stream = encode_stream(self.encoder, [self.sources[r] for r in of], store=self.store, request=request)
        seen = [one.pooled for one in stream if not isinstance(one, Failure)]
        found = torch.cat(seen) if seen else torch.empty(0, self.pooled.shape[1])
        if len(found) < self.n_concepts:
            raise DataError(
                f"`n_concepts` must be at most {len(found)}, the number of crops of your pictures, got "
                f"{self.n_concepts}. Give more pictures, or use --set n_concepts={max(2, len(found))}."
            )
        return normalize(found, dim=1)


def _by_class(labels: Int[Tensor, " n"], among: Tensor, draws: torch.Generator, most: int) -> list[int]:
    """Return random rows, one from every class in turn, up to ``most`` per class."""
    order = torch.randperm(len(labels), generator=draws)
    by = grouped((int(labels[row]), row) for row in order[among[order]].tolist())
    return [rows[i] for i in range(most) for _, rows in sorted(by.items()) if i < len(rows)]


@dataclass(frozen=True)
class Concepts:
    scores: Float[Tensor, "n m"]
    words_of: str | None = None
    notes: tuple[str, ...] = ()


def prototype(looked: Looked, seed: int) -> Concepts:
    """Use random crops of training pictures as concepts; the authors' code takes the first ``M``."""
    order = torch.randperm(len(looked.pieces), generator=looked.draws(2 + seed))
    return Concepts(looked.along(looked.pieces[order[: looked.n_concepts]]))


def cluster(looked: Looked, seed: int) -> Concepts:
    """Use the k-means centres of the crops as concepts."""
    return Concepts(looked.along(k_means(looked.pieces, looked.n_concepts, looked.draws(3 + seed))))


def text(looked: Looked, seed: int) -> Concepts:
    """Use sentences as concepts.

    With an image-text encoder, the value is the cosine of picture and sentence, standardised over the training
    pictures. With any other encoder, ridge regression predicts from the features the cosines of a judge, which is an
    image-text encoder. A sentence is left out if the prediction correlates with the judge's cosines by 0.45 or less on
    separate pictures. In the authors' code, the loss of this regression has the wrong sign.
    """
    order = torch.randperm(len(looked.texts), generator=looked.draws(4 + seed))[: looked.n_concepts].tolist()
    texts = [looked.texts[i] for i in order]
    if len(texts) < 2:
        raise DataError(f"At least two concepts are needed, got {len(texts)}. Add some with --concepts.")
    if looked.encoder.has_text and looked.judge is None:
        joint = Projected(looked.encoder.text)(looked.pooled).detach()
        values = joint @ encode_texts(looked.encoder, texts, looked.store).T
        return Concepts(standardised(values, looked.parts.train), looked.encoder.name)
    if looked.judge is None:
        raise DataError(
            f"The encoder {looked.encoder.name} reads no text. Name an encoder that does, such as --judge lite0."
        )
    judge, seen = looked.judge
    target = Projected(judge.text)(seen).detach() @ encode_texts(judge, texts, looked.store).T
    values, agree = _projected(looked, standardised(target, looked.parts.train))
    keep = (agree > ALIGNED).nonzero()[:, 0]
    if len(keep) < 2:
        raise DataError(
            f"The features of {looked.encoder.name} predict the scores of only {len(keep)} of {len(texts)} sentences. "
            f"At least two are needed. Give other concepts, or another judge than {judge.name}."
        )
    note = (
        f"{len(texts) - len(keep)} of {len(texts)} sentences were left out, because the features of "
        f"{looked.encoder.name} do not predict the scores that {judge.name} gives them."
    )
    notes = (note,) if len(keep) < len(texts) else ()
    return Concepts(values[:, keep], judge.name, notes)


def _projected(looked: Looked, target: Float[Tensor, "n m"]) -> tuple[Float[Tensor, "n m"], Float[Tensor, " m"]]:
    """Fit ridge regression to the judge's cosines; return predictions and their correlations on the selection set."""
    train, choose = looked.parts.train, looked.parts.selection
    x = standardised(looked.pooled, train).double()
    values, axes = torch.linalg.eigh(x[train].T @ x[train] / int(train.sum()))
    along, wanted = x @ axes, (x[train] @ axes).T @ target[train].double() / int(train.sum())
    fits = []
    for ridge in RIDGES:
        found = standardised((along @ (wanted / (values.clamp(min=0) + ridge)[:, None])).float(), train)
        a, b = (of[choose] - of[choose].mean(0) for of in (found, target))
        fits.append((found, (a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0)).clamp(min=1e-12)))
    return max(fits, key=lambda fit: float(fit[1].mean()))


def random(looked: Looked, seed: int) -> Concepts:
    """Use random directions as concepts, for comparison."""
    size = (looked.n_concepts, looked.pooled.shape[1])
    return Concepts(looked.along(torch.randn(size, generator=looked.draws(5 + seed))))


LIBRARIES: Mapping[str, Callable[[Looked, int], Concepts]] = {f.__name__: f for f in (prototype, cluster, text, random)}
CONTROL = random.__name__
