"""Objectives on the vectors of views of pictures, without texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from ...bounds import Bound, Count, Natural, NotNegative, OpenPart, Part, Positive, SomePart
from ...heads.sparse_concepts import concept_scores, n_kept, sparsify
from . import objectives
from .pictures import Beside, Queue, Vectors, Views, log_sums, nearest, own_places


class Layer(Beside):
    def __init__(self, width: int, n_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, n_classes)


@objectives.register
@dataclass(frozen=True)
class CrossEntropy(Vectors):
    """Cross entropy of a linear classifier on top of the network.

    The loss is averaged over all views. Vectors are not normalised. The linear classifier is not saved.

    Args:
        label_smoothing: label smoothing, 0 to 1.
        n_views: views per picture, at least 1.
    """

    name: ClassVar[str] = "cross_entropy"
    spelt: ClassVar[str] = "cross entropy"
    paper: ClassVar[str] = "the usual baseline"
    needs: ClassVar[str] = "labelled pictures"
    needs_labels: ClassVar[bool] = True

    label_smoothing: OpenPart = 0.0
    n_views: Count = 1

    def state(self, width: int, n_classes: int, n_pictures: int, n_steps: int = 0) -> Beside:
        return Layer(width, n_classes)

    def loss(self, vectors: Views, labels: Any, state: Any, slow: Any, index: Any) -> Float[Tensor, ""]:
        scores = state.layer(vectors.flatten(0, 1).to(state.layer.weight))
        each = labels.repeat_interleave(vectors.shape[1])
        state.watched = {"right": (scores.argmax(1) == each).float().mean()}
        return cross_entropy(scores, each, label_smoothing=self.label_smoothing)


class Layers(Beside):
    """Two linear classifiers, one on vectors and one on similarities with concepts, and the vectors of the concepts."""

    owner: Tensor
    concepts: Tensor

    def __init__(self, width: int, n_classes: int, n_pictures: int, n_concepts: int, moves: bool) -> None:
        super().__init__()
        n = min(n_concepts, n_pictures) if moves else n_concepts
        self.whole, self.sparse = nn.Linear(width, n_classes), nn.Linear(n, n_classes)
        self.register_buffer("owner", torch.randperm(n_pictures)[:n] if moves else torch.full((n,), -1))
        # Until its picture has come by, a concept is a random direction.
        self.register_buffer("concepts", normalize(torch.randn(n, width), dim=1))

    @torch.no_grad()
    def follow(self, vectors: Float[Tensor, "b v d"], index: Int[Tensor, " b"]) -> None:
        """Update the concepts whose pictures are in the batch to the current vectors of these pictures."""
        is_own = self.owner[:, None] == index
        fresh = normalize(vectors.detach().mean(1), dim=1)[is_own.int().argmax(1)].to(self.concepts)
        self.concepts = torch.where(is_own.any(1)[:, None], fresh, self.concepts)


@objectives.register
@dataclass(frozen=True)
class IIS(Vectors):
    """Cross entropy of two linear classifiers, one on vectors and one on sparse similarities with concepts.

        L = CE(g(z), y) + w CE(g'(sparse_s(LayerNorm(z Cᵀ))), y)

    * ``CE``: cross entropy; ``w`` is the weight of the second term.
    * ``z``, ``y``: vector and class of a picture.
    * ``C``: vectors of the ``M`` concepts.
    * ``sparse_s``: sets all but the ``M - floor(sM)`` values of largest magnitude to 0.
    * ``g``, ``g'``: linear layers, which are not saved.

    Concepts are ``M`` random training pictures. A concept is updated whenever its picture is in the batch; gradients do
    not pass into concepts. With ``concepts="random"``, the concepts are fixed random directions.

    Where SeeWhy differs: the paper's concepts are crops. The authors' code does not include this training, so equation
    8 and the defaults are taken from quotes in reviews. The authors' ``w``, and how often they update the concepts, are
    unknown.

    Args:
        n_concepts: number of concepts ``M``; the default is the best value in the paper's ablation.
        sparsity: fraction ``s`` of the similarities that is set to 0, 0 to 1; the default is the best value in the
            paper's ablation.
        weight: weight ``w`` of the second term, at least 0; 0 is plain cross entropy.
        concepts: ``"pictures"``, or ``"random"`` as a baseline.
        n_views: views per picture, at least 1.
    """

    name: ClassVar[str] = "iis"
    spelt: ClassVar[str] = "interpretability maximisation"
    paper: ClassVar[str] = "Shen et al. 2025, arXiv:2510.24105"
    needs: ClassVar[str] = "labelled pictures"
    needs_labels: ClassVar[bool] = True
    small: ClassVar = {"n_concepts": 4}

    n_concepts: Annotated[int, Bound(2)] = 200
    sparsity: float = 0.1
    weight: NotNegative = 1.0
    concepts: Literal["pictures", "random"] = "pictures"
    n_views: Count = 1

    def check(self) -> None:
        n_kept(self.n_concepts, self.sparsity)

    def state(self, width: int, n_classes: int, n_pictures: int, n_steps: int = 0) -> Beside:
        return Layers(width, n_classes, n_pictures, self.n_concepts, self.concepts == "pictures")

    def loss(self, vectors: Views, labels: Any, state: Any, slow: Any, index: Any) -> Float[Tensor, ""]:
        if self.concepts == "pictures":
            state.follow(vectors, index)
        each = labels.repeat_interleave(vectors.shape[1])
        flat = vectors.flatten(0, 1).to(state.whole.weight)
        whole = state.whole(flat)
        sparse = state.sparse(sparsify(concept_scores(flat, state.concepts), self.sparsity))
        state.watched = {
            name: (scores.argmax(1) == each).float().mean() for name, scores in (("right", whole), ("few", sparse))
        }
        return cross_entropy(whole, each) + self.weight * cross_entropy(sparse, each)


def contrast(vectors: Views, alike: Bool[Tensor, "b b"], temperature: float) -> Float[Tensor, ""]:
    """Return the supervised contrastive loss, averaged over all views ``i``.

        -mean_i 1/|P(i)| sum_{p in P(i)} log(exp(s_ip / t) / sum_{a != i} exp(s_ia / t))

    ``s_ip`` is the similarity of views ``i`` and ``p``, ``t`` the temperature, and ``P(i)`` the set of views that
    ``alike`` pairs with ``i``. Views with an empty ``P(i)`` contribute 0.
    """
    b, v, _ = vectors.shape
    flat = normalize(vectors, dim=2).flatten(0, 1)
    own = torch.eye(b * v, dtype=torch.bool, device=flat.device)
    scores = (flat @ flat.T / temperature).masked_fill(own, float("-inf"))
    right = alike.repeat_interleave(v, 0).repeat_interleave(v, 1) & ~own
    chance = scores.log_softmax(1).masked_fill(~right, 0.0)
    return -(chance.sum(1) / right.sum(1).clamp(min=1)).mean()


@objectives.register
@dataclass(frozen=True)
class SimCLR(Vectors):
    """Contrastive loss between views of the same picture (NT-Xent), without classes.

        L_i = -log(exp(s_ij / t) / sum_{k != i} exp(s_ik / t))

    * ``i``, ``j``: two views of the same picture; ``k`` is any other view. The loss is averaged over all views ``i``.
    * ``s_ij``: cosine of views ``i`` and ``j``.
    * ``t``: temperature.

    Follows equation 1 of the paper. Loss and gradients equal ``SupConLoss`` of SupContrast without labels.

    Args:
        temperature: temperature ``t`` (paper: 0.1 to 0.5; the default is SupContrast's).
        n_views: views per picture, at least 2.

    Example:
        >>> views = torch.eye(2)[:, None].repeat(1, 2, 1)
        >>> round(float(SimCLR(temperature=1.0)(views)), 4)  # log(e + 2) - 1
        0.5514
    """

    name: ClassVar[str] = "simclr"
    spelt: ClassVar[str] = "SimCLR"
    paper: ClassVar[str] = "Chen et al. 2020, arXiv:2002.05709"
    needs: ClassVar[str] = "pictures"

    temperature: Positive = 0.5
    n_views: Annotated[int, Bound(2)] = 2

    def loss(self, vectors: Views, labels: Any, state: Any, slow: Any, index: Any) -> Float[Tensor, ""]:
        return contrast(vectors, torch.eye(len(vectors), dtype=torch.bool, device=vectors.device), self.temperature)


@objectives.register
@dataclass(frozen=True)
class SupCon(Vectors):
    """Supervised contrastive loss between views of the same class.

        L_i = -1/|P(i)| sum_{p in P(i)} log(exp(s_ip / t) / sum_{a != i} exp(s_ia / t))

    * ``P(i)``: the other views with the class of view ``i``; ``a`` is any other view. The loss is averaged over all
      views ``i``.
    * ``s_ip``: cosine of views ``i`` and ``p``.
    * ``t``: temperature.

    Follows equation 2 of the paper, with the sum outside the logarithm. Loss and gradients equal ``SupConLoss`` of
    SupContrast, which also multiplies by ``temperature / base_temperature``.

    With ``n_store``, views are compared with a queue of vectors from a moving average of the network (section 4.4 and
    MoCo). The moving average encodes the last view of each picture.

    Args:
        temperature: temperature ``t`` (paper: 0.1).
        base_temperature: base temperature of the authors' code; default: not used.
        n_views: views per picture, at least 1.
        n_store: number of pictures in the queue, at least 0; with 0, the views of the batch are compared with each
            other.
        momentum: momentum of the moving average at the start, 0 to 1; it increases to 1.
    """

    name: ClassVar[str] = "supcon"
    spelt: ClassVar[str] = "SupCon"
    paper: ClassVar[str] = "Khosla et al. 2020, arXiv:2004.11362"
    needs: ClassVar[str] = "labelled pictures"
    needs_labels: ClassVar[bool] = True

    temperature: Positive = 0.1
    base_temperature: Positive | None = None
    n_views: Count = 2
    n_store: Natural = 0
    momentum: Part = 0.999

    def check(self) -> None:
        if self.n_store and self.n_views < 2:
            raise self.refusal("n_store", "n_views", expected="n_views must be at least 2 with a queue")

    @property
    def slow_views(self) -> int:
        return 1 if self.n_store else 0

    def state(self, width: int, n_classes: int, n_pictures: int, n_steps: int = 0) -> Beside:
        return Queue(min(self.n_store, n_pictures), width) if self.n_store else Beside()

    def loss(self, vectors: Views, labels: Any, state: Any, slow: Any, index: Any) -> Float[Tensor, ""]:
        factor = 1.0 if self.base_temperature is None else self.temperature / self.base_temperature
        if slow is None:
            return factor * contrast(vectors, labels[:, None] == labels, self.temperature)
        state.add(normalize(slow[:, -1], dim=1), labels, index)
        store, classes, _ = state.held()
        query = normalize(vectors[:, :-1], dim=2)
        each = labels.repeat_interleave(query.shape[1])
        return factor * against_store(query.flatten(0, 1), each, store, classes, self.temperature)


def against_store(
    query: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    store: Float[Tensor, "n d"],
    classes: Int[Tensor, " n"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Return the supervised contrastive loss against stored vectors; views whose class is not stored contribute 0."""
    n_classes = int(torch.maximum(classes.max(), labels.max())) + 1
    sums = store.new_zeros(n_classes, store.shape[1]).index_add_(0, classes, store)
    count = torch.bincount(classes, minlength=n_classes)[labels]
    means = sums[labels] / count.clamp(min=1)[:, None]
    (whole,) = log_sums(query.to(store), store, 1 / temperature)
    return torch.where(count > 0, whole - (query * means).sum(1) / temperature, 0.0).mean()


class Neighbours(Queue):
    """A queue of candidate neighbours, a step counter, and the linear classifier of the warm-up."""

    steps: Tensor

    def __init__(self, size: int, width: int, n_classes: int | None, cold_steps: int = 0) -> None:
        super().__init__(size, width)
        self.cold_steps = cold_steps
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.layer = None if n_classes is None else nn.Linear(width, n_classes)

    def after_step(self) -> None:
        self.steps += 1


@objectives.register
@dataclass(frozen=True)
class LOOK(Vectors):
    """Leave-one-out k-nearest-neighbour loss, which is low if most neighbours of a picture have the same class.

        P(c|i) = sum_{j in N_k(i), y_j = c} w_ij / sum_{j in N_k(i)} w_ij
        w_ij   = exp(cos(z_i, z_j) / t)
        L      = -mean_i log(P(y_i|i) + eps)

    * ``P(c|i)``: probability of class ``c`` for picture ``i`` from the weights ``w_ij`` of its neighbours.
    * ``N_k(i)``: the ``k`` nearest stored vectors, without other views of picture ``i``.
    * ``z_i``, ``y_i``: vector and class of picture ``i``.
    * ``t``: temperature.

    A class may form several clusters, because only the ``k`` nearest pictures are pulled closer. The stored vectors are
    a queue from a moving average of the network, including the current batch.

    The authors published no code, and the full paper was not available. The loss follows the abstract and related
    methods. Initialisation, queue, ``k``, temperature and momentum are SeeWhy's choice. On drawn shapes, networks with
    random initial weights collapsed to one point with ``cold="none"`` and ``cold="own_class"``.

    A step takes one additional forward pass for each view that the moving average encodes, and one matrix product with
    the stored vectors.

    Args:
        k: number of neighbours, at least 0; 0 uses all stored vectors (the form of SupCon with the sum inside the
            logarithm).
        temperature: temperature ``t`` of the cosines.
        eps: constant added to the probability, which keeps the loss finite.
        cold: how training starts, while few neighbours have the right class. ``"wide"``: ``k`` decreases from the
            number of stored vectors. ``"warm_up"``: cross entropy of a linear classifier. ``"own_class"``: the nearest
            picture of the same class is added to the neighbours. ``"none"``: no change, so a picture without a
            neighbour of the same class has no gradient.
        cold_part: fraction of the steps that ``"wide"`` and ``"warm_up"`` last, 0 to 1.
        n_store: number of stored pictures, at most the number of training pictures.
        momentum: momentum of the moving average at the start, 0 to 1; it increases to 1. With 0, the network itself is
            used instead of a moving average.
        n_views: number of views per picture; the moving average encodes the last one.
    """

    name: ClassVar[str] = "look"
    spelt: ClassVar[str] = "LOOK"
    paper: ClassVar[str] = "Feng et al. 2021, arXiv:2110.06014"
    needs: ClassVar[str] = "labelled pictures"
    cost: ClassVar[str] = "1, of a slow copy"
    needs_labels: ClassVar[bool] = True

    k: Natural = 20
    temperature: Positive = 0.1
    eps: NotNegative = 1e-4
    cold: Literal["none", "own_class", "wide", "warm_up"] = "wide"
    cold_part: SomePart = 0.4
    n_store: Annotated[int, Bound(2)] = 65536
    momentum: Part = 0.99
    n_views: Count = 1

    @property
    def slow_views(self) -> int:
        return 1

    def state(self, width: int, n_classes: int, n_pictures: int, n_steps: int = 0) -> Beside:
        cold = round(self.cold_part * n_steps) if self.cold in ("wide", "warm_up") else 0
        layer_of = n_classes if self.cold == "warm_up" else None
        return Neighbours(min(self.n_store, n_pictures), width, layer_of, cold)

    def loss(self, vectors: Views, labels: Any, state: Any, slow: Any, index: Any) -> Float[Tensor, ""]:
        state.add(normalize(slow[:, -1], dim=1), labels, index)
        (store, classes, numbers), v = state.held(), vectors.shape[1]
        query, each = normalize(vectors, dim=2).flatten(0, 1).to(store), labels.repeat_interleave(v)
        begun = int(state.steps) < state.cold_steps
        without = own_places(index.repeat_interleave(v), numbers)
        k = self._k(int(state.steps), state.cold_steps, len(store))
        if k >= len(store):
            chance = soft_votes(query, each, store, classes, self.temperature, without)
            state.watched = {"own_class": chance.detach().mean()}
            if self.k:
                state.watched["neighbours"] = chance.new_tensor(float(len(store)))
        else:
            own = self.cold == "own_class"
            chance, n = votes(query, each, store, classes, k, self.temperature, without, own)
            state.watched = {"own_class": chance.detach().mean(), "neighbours": n.mean()}
        loss = -(chance + self.eps).log().mean()
        if state.layer is not None and begun:
            loss = 0.0 * loss + cross_entropy(state.layer(vectors.flatten(0, 1).to(state.layer.weight)), each)
        return loss

    def _k(self, step: int, cold_steps: int, n: int) -> int:
        """Return the number of neighbours at a step if ``n`` vectors are stored."""
        k = min(self.k or n, n)
        if self.cold != "wide" or step >= cold_steps:
            return k
        return round(n * (k / n) ** (step / cold_steps))


def votes(
    query: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    store: Float[Tensor, "n d"],
    classes: Int[Tensor, " n"],
    k: int,
    temperature: float,
    without: tuple[Tensor, Tensor],
    own_class: bool = False,
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Return the weight of each query's class among its ``k`` nearest neighbours, and the perplexity of the weights."""
    near, where = nearest(query, store, k, without)
    right = classes[where] == labels[:, None]
    counts = near.isfinite()
    if own_class:
        has = (right & counts).any(1, keepdim=True)
        best, _ = nearest(query, store, 1, without, (labels, classes))
        near = torch.cat([near, best.masked_fill(has, float("-inf"))], 1)
        right, counts = torch.cat([right, torch.ones_like(right[:, :1])], 1), near.isfinite()
    scores = torch.where(counts, near, 0.0) / temperature
    top = scores.detach().masked_fill(~counts, float("-inf")).amax(1, keepdim=True).clamp(min=-1e30)
    weights = torch.where(counts, (scores - top).exp(), 0.0)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-30)
    entropy = -(weights.detach() * weights.detach().clamp(min=1e-30).log()).sum(1)
    return (weights * right).sum(1), entropy.exp()


def soft_votes(
    query: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    store: Float[Tensor, "n d"],
    classes: Int[Tensor, " n"],
    temperature: float,
    without: tuple[Tensor, Tensor],
) -> Float[Tensor, " b"]:
    """Return the weight of each query's class among all stored vectors."""
    whole, own = log_sums(query, store, 1 / temperature, without, (labels, classes))
    has = own.isfinite()
    return torch.where(has, (torch.where(has, own, 0.0) - torch.where(has, whole, 0.0)).exp(), 0.0)
