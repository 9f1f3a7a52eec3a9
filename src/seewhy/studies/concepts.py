"""Concept libraries, and the accuracy that remains with only a few concepts per picture (IIS)."""

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

from ..encoders.base import Encoder
from ..encoders.stream import EncodeRequest, encode_stream, encode_texts
from ..errors import DataError
from ..heads.head import Projected
from ..heads.sparse_concepts import SPARSITIES, Mask, concept_scores, n_kept, sparsify
from ..metrics.clusters import k_means
from ..storage.features import FeatureStore
from ..types import Crop, Failure


@dataclass(frozen=True)
class Parts:
    """The pictures for training, for choosing learning rate and epoch, and for the report."""

    train: Bool[Tensor, " n"]
    selection: Bool[Tensor, " n"]
    test: Bool[Tensor, " n"]


@dataclass(frozen=True)
class HeadTraining:
    """A linear layer with cross entropy, trained by Adam; defaults follow the authors' scripts.

    Unlike theirs, the rate (of ``rates``, their grid) and the epoch are chosen on separate pictures. A small set trains
    for at least ``least_steps``: 30 epochs of 1,000 pictures are 30 steps, which train nothing. The rate is multiplied
    by ``decay`` each epoch. Weights start from a normal distribution cut at two units.
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
                f"The features of row {row} are NaN or infinite. Expected finite numbers. Leave the picture out, or "
                "encode it again."
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
    """Linear layers of one start, each with its learning rate; they share every product with the pictures. Adam is
    written out, as the gradient is a formula: ten times as fast as with ``torch.optim`` and a tape."""

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
        i = max(range(self.n), key=self.found.__getitem__)
        weight = self.kept[i * self.k : (i + 1) * self.k]
        return torch.addmm(weight[:, -1], x, weight[:, :-1].T)


def standardised(x: Float[Tensor, "n d"], train: Bool[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """Subtract the mean of the training rows and divide by their standard deviation; constant columns become 0."""
    spread = x[train].std(0, correction=0)
    return torch.where(spread > 1e-6 * x[train].abs().amax(0), (x - x[train].mean(0)) / spread.clamp(min=1e-30), 0.0)


def iis(
    accuracies: Float[Tensor, "*n s"],
    reference: Float[Tensor, "*n"],
    sparsities: Sequence[float] = SPARSITIES,
    *,
    normalised: bool = False,
) -> Float[Tensor, "*n"]:
    """Return ``Σ (ARR_i + ARR_{i+1}) / 2 · (s_{i+1} - s_i)`` with ``ARR(s) = accuracy(s) / reference`` (equation 7).
    It is not divided by the range, so a representation that loses nothing scores 0.98, and a higher score is a gain.
    The score is never clipped.
    """
    whole = torch.trapezoid(accuracies / reference[..., None].clamp(min=1e-12), accuracies.new_tensor(sparsities))
    return whole / (sparsities[-1] - sparsities[0]) if normalised else whole


@dataclass(frozen=True)
class Measured:
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
    training: HeadTraining,
) -> Measured:
    """Train a linear layer at every sparsity."""
    sparse = [sparsify(scores, sparsity, mask) for sparsity in sparsities]
    used = tuple(int((one[parts.test] != 0).any(0).sum()) for one in sparse)
    kept = tuple(n_kept(scores.shape[1], s, mask) for s in sparsities)
    return Measured(torch.stack([training(one, labels, parts) for one in sparse], 1), kept, used)


PICTURES = 10
"""Pictures per class from which pieces are cut, as in the authors' scripts."""
ALIGNED = 0.45
"""Least agreement of a concept's projection with the judge on other pictures, as in the paper."""
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class Looked:
    """Everything that a library can be made from."""

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
        """Return every picture's values along these directions."""
        values = concept_scores(self.pooled, directions, over_concepts=self.layer_norm)
        return values if self.layer_norm else standardised(values, self.parts.train)

    def draws(self, seed: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 1000 + seed)

    @cached_property
    def pieces(self) -> Float[Tensor, "p d"]:
        """Return cells of training pictures, drawn evenly over the classes and encoded separately, as unit vectors."""
        cells: list[Crop | None] = [None]  # the whole picture, as it is always seen
        if self.grid > 1:
            edges = [i / self.grid for i in range(self.grid + 1)]
            sides = list(itertools.pairwise(edges))
            cells = [Crop((left, top, right, low)) for top, low in sides for left, right in sides]
        boxes = [(r, b) for r in _by_class(self.labels, self.parts.train, self.draws(), PICTURES) for b in cells]
        if len(boxes) > self.n_pieces:  # spread over all pictures, not the first ones
            chosen = torch.randperm(len(boxes), generator=self.draws(1))[: self.n_pieces].sort().values
            boxes = [boxes[i] for i in chosen.tolist()]
        views: dict[int, list[Crop | None]] = {}
        for row, box in boxes:
            views.setdefault(row, []).append(box)
        of = list(views)
        request = EncodeRequest(views=lambda i: views[of[i]])
        stream = encode_stream(self.encoder, [self.sources[r] for r in of], store=self.store, request=request)
        seen = [one.pooled for one in stream if not isinstance(one, Failure)]
        found = torch.cat(seen) if seen else torch.empty(0, self.pooled.shape[1])
        if len(found) < self.n_concepts:
            raise DataError(
                f"The pictures give {len(found)} pieces, and {self.n_concepts} concepts were asked for. Expected as "
                f"many pieces as concepts. Give more pictures, or use --set n_concepts={max(2, len(found))}."
            )
        return normalize(found, dim=1)


def _by_class(labels: Int[Tensor, " n"], among: Tensor, draws: torch.Generator, most: int) -> list[int]:
    """Rows in turn from every class, drawn at random; at most so many of each."""
    order = torch.randperm(len(labels), generator=draws)
    by: dict[int, list[int]] = {}
    for row in order[among[order]].tolist():
        by.setdefault(int(labels[row]), []).append(row)
    return [rows[i] for i in range(most) for _, rows in sorted(by.items()) if i < len(rows)]


@dataclass(frozen=True)
class Concepts:
    scores: Float[Tensor, "n m"]
    names: tuple[str, ...] = ()
    words_of: str | None = None
    notes: tuple[str, ...] = ()


def prototype(looked: Looked, seed: int) -> Concepts:
    """Use random pieces of training pictures; the authors' code takes the first ``M``, which come from one or two
    classes.
    """
    order = torch.randperm(len(looked.pieces), generator=looked.draws(2 + seed))
    return Concepts(looked.along(looked.pieces[order[: looked.n_concepts]]))


def cluster(looked: Looked, seed: int) -> Concepts:
    """Use the centres of k-means over the pieces."""
    return Concepts(looked.along(k_means(looked.pieces, looked.n_concepts, looked.draws(3 + seed))))


def text(looked: Looked, seed: int) -> Concepts:
    """Use sentences, through the encoder's own text half or, if it has none, through a judge with one.

    With its own text half: the cosine of picture and sentence, standardised over the training pictures. With a judge:
    a linear map from the features to the judge's cosines, by ridge regression, with its strength chosen on separate
    rows. Sentences on which map and judge agree by 0.45 or less there are left out. The authors' loss for this map
    has a sign that makes it disagree with the judge, which an area under the ROC curve does not show.
    """
    order = torch.randperm(len(looked.texts), generator=looked.draws(4 + seed))[: looked.n_concepts].tolist()
    texts = [looked.texts[i] for i in order]
    if len(texts) < 2:
        raise DataError(
            f"{len(texts)} sentence was given as a concept. Expected two or more. Add some with --concepts."
        )
    if looked.encoder.has_text and looked.judge is None:
        joint = Projected(looked.encoder.text)(looked.pooled).detach()
        values = joint @ encode_texts(looked.encoder, texts, looked.store).T
        return Concepts(standardised(values, looked.parts.train), tuple(texts), looked.encoder.name)
    if looked.judge is None:
        raise DataError(
            f"The encoder {looked.encoder.name} has no words, and no judge was given. Expected an encoder with words. "
            "Add --judge lite0."
        )
    judge, seen = looked.judge
    target = Projected(judge.text)(seen).detach() @ encode_texts(judge, texts, looked.store).T
    values, agree = _projected(looked, standardised(target, looked.parts.train))
    keep = (agree > ALIGNED).nonzero()[:, 0]
    if len(keep) < 2:
        raise DataError(
            f"The features of {looked.encoder.name} predict only {len(keep)} of {len(texts)} sentences as "
            f"{judge.name} sees them. Expected two or more. Give other concepts or another judge."
        )
    note = (
        f"{len(texts) - len(keep)} of {len(texts)} sentences were left out for {looked.encoder.name}: its features do "
        f"not predict them as {judge.name} sees them."
    )
    notes = (note,) if len(keep) < len(texts) else ()
    return Concepts(values[:, keep], tuple(texts[i] for i in keep.tolist()), judge.name, notes)


def _projected(looked: Looked, target: Float[Tensor, "n m"]) -> tuple[Float[Tensor, "n m"], Float[Tensor, " m"]]:
    """Ridge regression to the judge's numbers, and how well it agrees (correlation) on the rows to choose on."""
    train, choose = looked.parts.train, looked.parts.selection
    x = standardised(looked.pooled, train).double()
    values, axes = torch.linalg.eigh(x[train].T @ x[train] / int(train.sum()))
    along, wanted = x @ axes, (x[train] @ axes).T @ target[train].double() / int(train.sum())
    best: tuple[float, Tensor, Tensor] | None = None
    for ridge in RIDGES:
        found = standardised((along @ (wanted / (values.clamp(min=0) + ridge)[:, None])).float(), train)
        a, b = (of[choose] - of[choose].mean(0) for of in (found, target))
        agree = (a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0)).clamp(min=1e-12)
        if best is None or float(agree.mean()) > best[0]:
            best = float(agree.mean()), found, agree
    assert best is not None  # there are ridges
    return best[1], best[2]


def random(looked: Looked, seed: int) -> Concepts:
    """Use random directions, as a control."""
    size = (looked.n_concepts, looked.pooled.shape[1])
    return Concepts(looked.along(torch.randn(size, generator=looked.draws(5 + seed))))


LIBRARIES: Mapping[str, Callable[[Looked, int], Concepts]] = {f.__name__: f for f in (prototype, cluster, text, random)}
CONTROL = random.__name__
