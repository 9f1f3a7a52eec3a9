"""What fits that never saw a picture's group say of it: for every picture, by several fits (out-of-fold)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..heads.normalise import Normalise
from .base import HeldOut
from .holdout import MAX_HELD_OUT, Pictures, some_of
from .linear.solvers import LinearFit


@dataclass(frozen=True)
class Rows:
    """Pictures as a linear classifier is fitted on them: one row a view.

    Attributes:
        x: features.
        y: class of each.
        picture: that each is a view of.
        fold: that it is held out in; -1 for never.
        own: whether it is the picture's own crop, by which it is predicted.
        final: whether it is trained on in the end.
        rounds: fold of each picture.
    """

    x: Float[Tensor, "r d"]
    y: Int[Tensor, " r"]
    picture: Int[Tensor, " r"]
    fold: Int[Tensor, " r"]
    own: Bool[Tensor, " r"]
    final: Bool[Tensor, " r"]
    rounds: Int[Tensor, " n"]

    @classmethod
    def of(cls, pictures: Pictures, feature: Normalise) -> Rows:
        """All views of these pictures."""
        x, y, picture = pictures.rows(torch.ones_like(pictures.held))
        own = torch.cat([torch.ones(1, dtype=torch.bool), picture[1:] != picture[:-1]])
        rounds = pictures.folds
        if rounds is None or pictures.validation:
            rounds = torch.where(pictures.held, 0, -1)
        rounds = rounds.unique(return_inverse=True)[1] - int(bool((rounds < 0).any()))
        return cls(feature(x), y, picture, rounds[picture], own, pictures.final[picture], rounds)

    def logits(self, fits: Sequence[LinearFit]) -> Float[Tensor, "n k"]:
        """Of each picture by the fit that held it out; NaN where none did."""
        found = torch.full((len(self.rounds), len(fits[0].bias)), torch.nan)
        for number, fit in enumerate(fits):
            asked = self.own & (self.fold == number)
            found[self.picture[asked]] = fit.logits(self.x[asked])
        return found


@dataclass(frozen=True)
class Choice:
    """What was chosen on held-out pictures.

    Attributes:
        c: of a picture: a row's times the number of its views.
        fit: to be used.
        trial: without the first fold.
        temperature: by which logits are divided.
        index: of the pictures that were held out.
        logits: of these, divided by the temperature.
        random_accuracy: what a part drawn at random would have said; ``None`` where it is the same.
    """

    c: float
    fit: LinearFit
    trial: LinearFit
    temperature: float = 1.0
    index: Int[Tensor, " m"] | None = None
    logits: Float[Tensor, "m k"] | None = None
    random_accuracy: float | None = None

    def held_out(self, pictures: Pictures, most: int = MAX_HELD_OUT) -> HeldOut | None:
        """Those pictures, each by its own crop alone, with what was said of them."""
        if self.index is None or self.logits is None:
            return None
        some = some_of(torch.ones_like(self.index, dtype=torch.bool), most)
        return replace(pictures.own_crops(self.index[some]), logits=self.logits[some])
