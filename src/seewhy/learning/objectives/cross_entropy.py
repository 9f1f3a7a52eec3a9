"""The plain cross entropy of a layer of classes: what supervised pre-training is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ...bounds import Count, OpenPart
from . import objectives
from .pictures import Beside, Classes, Vectors, Views


class Layer(Beside):
    """A linear layer from vectors to classes, which is trained beside the network."""

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
        >>> import torch
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
        return functional.cross_entropy(scores, each, label_smoothing=self.label_smoothing)
