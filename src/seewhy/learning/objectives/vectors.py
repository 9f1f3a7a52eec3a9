"""Objectives over views of pictures as vectors, without words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from ...bounds import Bound, Count, Natural, NotNegative, OpenPart, Part, Positive
from ...heads.sparse_concepts import concept_scores, n_kept, sparsify
from . import objectives
from .pictures import Beside, Classes, Vectors, Views
from .queue import Queue, log_sums


class Layer(Beside):
    """A linear layer from vectors to classes."""

    def __init__(self, width: int, n_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, n_classes)


@objectives.register
@dataclass(frozen=True)
class CrossEntropy(Vectors):
    """A linear layer behind the network tells each picture's class; it is left out of what is saved.

    ``mean_i -log softmax(W z_i + b)[y_i]`` over all views. Vectors keep their length. Equal to torch's.

    Args:
        label_smoothing: part of the right answer that is spread over all classes.
        n_views: of each picture; one, as is usual.

    Example:
        >>> layer = Layer(2, 2)
        >>> _ = layer.layer.weight.data.copy_(torch.eye(2)), layer.layer.bias.data.zero_()
        >>> loss = CrossEntropy()(torch.eye(2)[:, None], torch.tensor([0, 1]), state=layer)
        >>> round(float(loss.detach()), 4)  # log(1 + exp(-1))
        0.3133
    """

    name: ClassVar[str] = "cross_entropy"
    spelt: ClassVar[str] = "cross entropy"
    paper: ClassVar[str] = "the usual baseline"
    needs: ClassVar[str] = "pictures with a class each"
    needs_labels: ClassVar[bool] = True

    label_smoothing: OpenPart = 0.0
    n_views: Count = 1

    def state(self, width: int, n_classes: int, n_pictures: int, n_steps: int = 0) -> Beside:
        return Layer(width, n_classes)

    def loss(
        self, vectors: Views, labels: Classes, state: Beside, slow: Tensor | None, index: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        assert isinstance(state, Layer)
        assert labels is not None
        scores = state.layer(vectors.flatten(0, 1).to(state.layer.weight))
        each = labels.repeat_interleave(vectors.shape[1])
        state.watched = {"right": (scores.argmax(1) == each).float().mean()}
        return cross_entropy(scores, each, label_smoothing=self.label_smoothing)


class Layers(Beside):
    """A layer on vectors, one on concepts, and the concepts: a vector each, and whose picture's it is."""

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
        """Concepts whose pictures are in the batch become what the network makes of these now."""
        is_own = self.owner[:, None] == index
        fresh = normalize(vectors.detach().mean(1), dim=1)[is_own.int().argmax(1)].to(self.concepts)
        self.concepts = torch.where(is_own.any(1)[:, None], fresh, self.concepts)


@objectives.register
@dataclass(frozen=True)
class IIS(Vectors):
    """A linear layer on the vectors and one on few concept similarities must both tell the class.

    ``L = CE(g(z), y) + w CE(g'(sparse_s(LayerNorm(z Cᵀ))), y)`` (equation 8 as reviews quote it; this training is not
    in the released code, and ``w`` is not known). Each picture keeps the ``M - floor(sM)`` concepts that are largest in
    size; the gradient goes through those and not into the concepts. Both layers are left out of what is saved.

    Concepts are ``M`` training pictures, drawn once, each as the network sees it now: whenever it comes by, its concept
    is replaced. The paper's are pieces of pictures encoded by the network, how often is not known. With
    ``concepts="random"`` they are directions that never change: what the second term does without any concept.

    Args:
        n_concepts: ``M``; the best of the paper's ablation, as a review quotes it.
        sparsity: ``s``; likewise.
        weight: ``w`` of the second term; 0 is the plain cross entropy with the same start and order.
        concepts: ``"pictures"`` or ``"random"``.
        n_views: of each picture.

    Example:
        >>> layers = Layers(2, 2, 2, 2, True).requires_grad_(False)
        >>> for layer in (layers.whole, layers.sparse):
        ...     _ = layer.weight.copy_(torch.eye(2)), layer.bias.zero_()
        >>> layers.owner.copy_(torch.tensor([0, 1])).tolist()
        [0, 1]
        >>> loss = IIS(n_concepts=2)(torch.eye(2)[:, None], torch.tensor([0, 1]), state=layers)
        >>> round(float(loss), 3)  # log(1 + exp(-1)) and, the concepts at 1 and -1, log(1 + exp(-2))
        0.44
    """

    name: ClassVar[str] = "iis"
    spelt: ClassVar[str] = "interpretability maximisation"
    paper: ClassVar[str] = "Shen et al. 2025, arXiv:2510.24105"
    needs: ClassVar[str] = "pictures with a class each"
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

    def loss(
        self, vectors: Views, labels: Classes, state: Beside, slow: Tensor | None, index: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        assert isinstance(state, Layers)
        assert labels is not None
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
    """Each view must find those of pictures like its own among all others, on average over those (SupCon's outer form).

    ``-mean_i 1/|P(i)| sum_{p in P(i)} log(exp(s_ip / t) / sum_{a != i} exp(s_ia / t))``; a view that nothing is like
    adds 0. ``alike`` says which pictures are like which, themselves included.
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
    """Each view of a picture must find its other view among all views of the batch, without any class.

    NT-Xent (equation 1): ``-log(exp(s_ij / t) / sum_{k != i} exp(s_ik / t))`` for the two views ``i``, ``j`` of a
    picture, on average over all views; ``s`` are cosines.

    Equal to ``SupConLoss`` of SupContrast without labels, in loss and gradients. The default temperature is that of
    SupContrast's command for SimCLR; the paper finds 0.1 to 0.5 best, by batch and epochs.

    Args:
        temperature: of the cosines.
        n_views: of each picture; with more than two each must find all others.

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

    def loss(
        self, vectors: Views, labels: Classes, state: Beside, slow: Tensor | None, index: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        return contrast(vectors, torch.eye(len(vectors), dtype=torch.bool, device=vectors.device), self.temperature)


@objectives.register
@dataclass(frozen=True)
class SupCon(Vectors):
    """Each view must find all views of its own class among all views of the batch, or of a queue.

    ``L_i = -1/|P(i)| sum_{p in P(i)} log(exp(s_ip / t) / sum_{a != i} exp(s_ia / t))``, on average over views ``i``
    (equation 2, the sum outside of the logarithm); ``P(i)`` are the other views of its class, ``s`` cosines.

    Equal to ``SupConLoss`` of SupContrast in loss and gradients, which also multiplies by ``temperature /
    base_temperature``. With ``n_store`` the pictures are compared with as many earlier ones by a slow copy of the
    network (the paper's section 4.4 and MoCo): then the last view goes through the slow copy and the others must find
    their class in the queue, their own picture's other views among it. Memory does not grow with the queue.

    Args:
        temperature: of the cosines; the paper's 0.1.
        base_temperature: the authors' factor of the loss is ``temperature`` through this; left out, there is none.
        n_views: of each picture.
        n_store: pictures of the queue; 0 compares within the batch.
        momentum: of the slow copy at first; it rises to 1.

    Example:
        >>> views = torch.eye(2)[:, None]
        >>> round(float(SupCon(temperature=1.0)(views.repeat(2, 1, 1), torch.tensor([0, 1, 0, 1]))), 4)
        0.5514
    """

    name: ClassVar[str] = "supcon"
    spelt: ClassVar[str] = "SupCon"
    paper: ClassVar[str] = "Khosla et al. 2020, arXiv:2004.11362"
    needs: ClassVar[str] = "pictures with a class each"
    needs_labels: ClassVar[bool] = True

    temperature: Positive = 0.1
    base_temperature: Positive | None = None
    n_views: Count = 2
    n_store: Natural = 0
    momentum: Part = 0.999

    def check(self) -> None:
        if self.n_store and self.n_views < 2:
            raise self.refusal("n_store", "n_views", expected="Two views or more with a queue were")

    @property
    def slow_views(self) -> int:
        return 1 if self.n_store else 0

    def state(self, width: int, n_classes: int, n_pictures: int, n_steps: int = 0) -> Beside:
        return Queue(min(self.n_store, n_pictures), width) if self.n_store else Beside()

    def loss(
        self, vectors: Views, labels: Classes, state: Beside, slow: Tensor | None, index: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        assert labels is not None
        factor = 1.0 if self.base_temperature is None else self.temperature / self.base_temperature
        if slow is None:
            return factor * contrast(vectors, labels[:, None] == labels, self.temperature)
        assert isinstance(state, Queue)
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
    """The same loss over a store that does not learn; a query whose class is not in it adds 0.

    The mean over a class is a product with the class's mean, so that scores are made once, for the sum of all.
    """
    n_classes = int(torch.maximum(classes.max(), labels.max())) + 1
    sums = store.new_zeros(n_classes, store.shape[1]).index_add_(0, classes, store)
    count = torch.bincount(classes, minlength=n_classes)[labels]
    means = sums[labels] / count.clamp(min=1)[:, None]
    (whole,) = log_sums(query.to(store), store, 1 / temperature)
    return torch.where(count > 0, whole - (query * means).sum(1) / temperature, 0.0).mean()
