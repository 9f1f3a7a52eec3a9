"""The base of objectives that learn from pictures as vectors, one for each view; and what several of them compute."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ...errors import InputError
from .pictures import Beside, PictureObjective


class Vectors(PictureObjective):
    """Sees each view of a picture as one vector; of any length, unless the objective says otherwise."""

    def state(self, width: int, n_classes: int, n_pictures: int, n_steps: int = 0) -> Beside:
        """What is learnt or kept beside the networks, new.

        Args:
            width: of the vectors.
            n_classes: of the pictures; 0 where they have none.
            n_pictures: that are trained on.
            n_steps: of the training; 0 where it is not known.
        """
        return Beside()

    def __call__(
        self,
        vectors: Float[Tensor, "b v d"],
        labels: Int[Tensor, " b"] | None = None,
        *,
        state: Beside | None = None,
        slow: Float[Tensor, "b s d"] | None = None,
        index: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, ""]:
        """The number to make small, checked.

        Args:
            vectors: of each picture's views.
            labels: class of each picture, for objectives that use it.
            state: what :meth:`state` made, as far as it has come; left out, new.
            slow: vectors of the last views by the slow copy, where the objective has one; left out, the network's own.
            index: number of each picture, by which it is known again; left out, they are counted.

        Raises:
            InputError: there is nothing to compare with, not a label for each picture, or a number is not finite.
        """
        n = len(vectors)
        fits = vectors.shape[0] * vectors.shape[1] > 1 and (labels is None or len(labels) == n)
        if not fits or (labels is None and self.needs_labels):
            given = "no labels" if labels is None else f"{len(labels)} labels"
            raise InputError(
                f"{self.name} was given vectors of the shape {tuple(vectors.shape)} and {given}. At least two views in "
                "all, and a label for each picture where it needs them, were expected. Give a larger batch."
            )
        if state is None:
            n_classes = 0 if labels is None else int(labels.max()) + 1
            state = self.state(vectors.shape[2], n_classes, n).to(vectors.device).requires_grad_(False)
        if slow is None and self.slow_views:
            slow = vectors[:, -self.slow_views :].detach()
        if index is None:
            index = torch.arange(n, device=vectors.device)
        with torch.autocast(vectors.device.type, enabled=False):
            return self.loss(_precise(vectors), labels, state, None if slow is None else _precise(slow), index)

    @abstractmethod
    def loss(
        self,
        vectors: Float[Tensor, "b v d"],
        labels: Int[Tensor, " b"] | None,
        state: Beside,
        slow: Float[Tensor, "b s d"] | None,
        index: Int[Tensor, " b"],
    ) -> Float[Tensor, ""]:
        """The number to make small."""


def _precise(vectors: Tensor) -> Tensor:
    return vectors if vectors.dtype == torch.float64 else vectors.float()


def contrast(vectors: Float[Tensor, "b v d"], alike: Bool[Tensor, "b b"], temperature: float) -> Float[Tensor, ""]:
    """Each view must find those of pictures like its own among all others, on average over those (SupCon's outer form).

    ``-mean_i 1/|P(i)| sum_{p in P(i)} log(exp(s_ip / t) / sum_{a != i} exp(s_ia / t))``; a view that nothing is like
    adds 0.

    Args:
        vectors: of each picture's views; only directions count.
        alike: which pictures are like which, themselves included.
        temperature: of the cosines.
    """
    b, v, _ = vectors.shape
    flat = normalize(vectors, dim=2).flatten(0, 1)
    own = torch.eye(b * v, dtype=torch.bool, device=flat.device)
    scores = (flat @ flat.T / temperature).masked_fill(own, float("-inf"))
    right = alike.repeat_interleave(v, 0).repeat_interleave(v, 1) & ~own
    chance = scores.log_softmax(1).masked_fill(~right, 0.0)
    return -(chance.sum(1) / right.sum(1).clamp(min=1)).mean()
