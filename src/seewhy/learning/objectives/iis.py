"""Interpretability maximisation (Shen et al. 2025, arXiv 2510.24105): right with all features and with few concepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from ...bounds import Bound, Count, NotNegative
from ...heads.sparse_concepts import concept_scores, n_kept, sparsify
from . import objectives
from .pictures import Beside, Classes, Vectors, Views


class Layers(Beside):
    """A layer on vectors, one on concepts, and the concepts: a vector each, and whose picture's it is."""

    owner: Tensor
    concepts: Tensor

    def __init__(self, width: int, n_classes: int, n_pictures: int, n_concepts: int, moves: bool) -> None:
        super().__init__()
        self.moves = moves
        n = min(n_concepts, n_pictures) if moves else n_concepts
        self.whole, self.sparse = nn.Linear(width, n_classes), nn.Linear(n, n_classes)
        self.register_buffer("owner", torch.randperm(n_pictures)[:n] if moves else torch.full((n,), -1))
        # Until its picture has come by, a concept is a random direction.
        self.register_buffer("concepts", normalize(torch.randn(n, width), dim=1))

    def follow(self, vectors: Float[Tensor, "b v d"], index: Int[Tensor, " b"]) -> None:
        """Concepts whose pictures are in the batch become what the network makes of these now."""
        if not self.moves:
            return
        with torch.no_grad():
            is_own = self.owner[:, None] == index
            place = is_own.int().argmax(1)
            fresh = normalize(vectors.detach().mean(1), dim=1)[place].to(self.concepts)
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
        state.follow(vectors, index)
        each = labels.repeat_interleave(vectors.shape[1])
        flat = vectors.flatten(0, 1).to(state.whole.weight)
        whole = state.whole(flat)
        sparse = state.sparse(sparsify(concept_scores(flat, state.concepts), self.sparsity))
        state.watched = {
            name: (scores.argmax(1) == each).float().mean() for name, scores in (("right", whole), ("few", sparse))
        }
        return cross_entropy(whole, each) + self.weight * cross_entropy(sparse, each)
