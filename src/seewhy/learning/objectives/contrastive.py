"""The base of objectives that compare every picture of a batch with every text of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import cast

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, normalize
from torch.utils.checkpoint import checkpoint

from ...errors import InputError
from .base import Objective

BLOCK = 2**21
"""Most scores that are held at once; more are made row by row, and once again for the gradient."""


Labels = Shaped[Tensor, "n ..."] | tuple[Shaped[Tensor, "n ..."], Shaped[Tensor, "n ..."]]
"""Of pairs; or of pictures and of texts."""


class Temperature(nn.Module, ABC):
    """Cosines → scores, with what is learnt of that; the task that uses it owns it."""

    @abstractmethod
    def forward(self, cosine: Float[Tensor, "*a n"]) -> Float[Tensor, "*a n"]:
        """The scores."""

    @abstractmethod
    def hold(self) -> None:
        """Back into the bounds, after a step."""


class Fixed(Temperature):
    """``scale`` times the cosine; nothing is learnt."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, cosine: Float[Tensor, "*a n"]) -> Float[Tensor, "*a n"]:
        return self.scale * cosine

    def hold(self) -> None:
        return None


class Learnt(Temperature):
    """``exp(log_scale)`` times the cosine, and a bias where one is given; both are learnt.

    Args:
        scale: at first.
        most: of the scale; the least is 1.
        bias: at first; ``None`` for none.
    """

    def __init__(self, scale: float, most: float, bias: float | None = None) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.most = math.log(most)
        self.bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)))

    @staticmethod
    def takes(temperature: float, max_scale: float) -> bool:
        """Whether a temperature, the inverse of the first scale, and the largest scale go together."""
        return 1 <= max_scale < float("inf") and 1 / max_scale <= temperature <= 1

    def forward(self, cosine: Float[Tensor, "*a n"]) -> Float[Tensor, "*a n"]:
        scores = self.log_scale.exp() * cosine
        return scores if self.bias is None else scores + self.bias

    @torch.no_grad()
    def hold(self) -> None:
        self.log_scale.clamp_(0.0, self.most)


class Contrastive(Objective):
    """Rows of scores, of each picture over all texts and of each text over all pictures.

    The method says what a row costs, and how much each direction counts; the base makes the scores, in single
    precision or better, and never more than :data:`BLOCK` at once, so that memory grows with the batch and not with its
    square. A loss is the mean over rows.
    """

    @abstractmethod
    def state(self) -> Temperature:
        """What makes scores of cosines, new; its parameters are learnt beside the networks."""

    @abstractmethod
    def weights(self) -> tuple[float, float]:
        """Of pictures over texts, and of texts over pictures; a direction of weight 0 is not computed."""

    @abstractmethod
    def rows(
        self,
        scores: Float[Tensor, "a n"],
        own: Int[Tensor, " a"],
        labels: tuple[Shaped[Tensor, "a ..."], Shaped[Tensor, "n ..."]] | None,
    ) -> Float[Tensor, " a"]:
        """What each row costs.

        Args:
            scores: of some rows over all columns.
            own: the column that belongs to each row.
            labels: of rows and of columns, where they were given.
        """

    def __call__(
        self,
        image: Float[Tensor, "n d"],
        text: Float[Tensor, "n d"] | Float[Tensor, "n k d"],
        labels: Labels | None = None,
        state: nn.Module | None = None,
        *,
        share: tuple[int, int] | None = None,
    ) -> Float[Tensor, ""]:
        """The number to make small, checked.

        Args:
            image: one row a pair; of any length, only directions count.
            text: one row a pair, or several texts of each picture: the loss is then the mean over the first texts of
                all pictures, their second ones and so on, so that texts of one picture are never compared. Of any
                length.
            labels: of each pair, for forms that treat pairs of one class apart; two where pictures have others than
                their texts.
            state: what :meth:`state` made, as far as it has been learnt; left out, as it is at first.
            share: first row that counts, and the one behind the last, where other processes count the others; all are
                compared with. Left out, all count.

        Raises:
            InputError: there are no pairs, or not as many rows of one kind as of the other, or of other widths.
        """
        sides = None if labels is None else labels if isinstance(labels, tuple) else (labels, labels)
        _check(self.name, image, text, sides)
        scored = self.state().to(image.device).requires_grad_(False) if state is None else cast(Temperature, state)
        first, last = share or (0, len(image))
        texts = (text,) if text.ndim == 2 else text.unbind(1)
        with torch.autocast(image.device.type, enabled=False):
            x, *ys = (_unit(side) for side in (image, *texts))
            total = x.new_zeros(())
            for y in ys:
                for weight, rows, columns, of in zip(
                    self.weights(), (x, y), (y, x), (sides, sides and sides[::-1]), strict=True
                ):
                    if weight:
                        total = total + weight * self._direction(rows, columns, of, scored, first, last)
        return total / ((last - first) * len(ys))

    def _direction(
        self,
        rows: Float[Tensor, "n d"],
        columns: Float[Tensor, "n d"],
        labels: tuple[Tensor, Tensor] | None,
        state: Temperature,
        first: int,
        last: int,
    ) -> Float[Tensor, ""]:
        """The sum of the rows that count, by blocks."""
        size = max(1, BLOCK // len(columns))
        if last - first <= size:
            return self._block(rows, columns, labels, state, first, last)
        parts = [
            checkpoint(self._block, rows, columns, labels, state, i, min(i + size, last), use_reentrant=False)
            for i in range(first, last, size)
        ]
        return torch.stack(parts).sum()

    def _block(
        self,
        rows: Tensor,
        columns: Tensor,
        labels: tuple[Tensor, Tensor] | None,
        state: Temperature,
        first: int,
        last: int,
    ) -> Float[Tensor, ""]:
        own = torch.arange(first, last, device=rows.device)
        of = None if labels is None else (labels[0][first:last], labels[1])
        return self.rows(state(rows[first:last] @ columns.T), own, of).sum()


def focal_costs(
    scores: Float[Tensor, "a n"], own: Int[Tensor, " a"], alpha: float, gamma: float
) -> Float[Tensor, " a"]:
    """Every picture beside every text as a question of its own, of which those that are answered well count little.

    ``2 sum_j w_j (1 - p_j)^gamma (-log p_j)``, ``p = sigmoid(s)`` for the own one and ``sigmoid(-s)`` for all others;
    ``w`` is ``alpha`` and ``1 - alpha``.
    """
    pairs = torch.zeros_like(scores, dtype=torch.bool).scatter(1, own[:, None], True)
    right = torch.where(pairs, scores, -scores)
    cost = -(gamma * logsigmoid(-right)).exp() * logsigmoid(right)
    return 2 * torch.where(pairs, alpha * cost, (1 - alpha) * cost).sum(1)


def _unit(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return normalize(vectors if vectors.dtype == torch.float64 else vectors.float(), dim=1)


def _check(name: str, image: Tensor, text: Tensor, labels: tuple[Tensor, Tensor] | None) -> None:
    fits = len(image) > 0 and text.ndim in (2, 3) and text.numel() > 0 and len(text) == len(image)
    if not fits or text.shape[-1] != image.shape[1] or any(len(side) != len(image) for side in labels or ()):
        given = f"{tuple(image.shape)}, {tuple(text.shape)}"
        given += "" if labels is None else f", {' and '.join(dict.fromkeys(str(len(side)) for side in labels))}"
        raise InputError(
            f"{name} was given pictures, texts and labels of the shapes {given}. One row of each a pair, as wide as "
            "one another, was expected. Give a batch of pairs."
        )
