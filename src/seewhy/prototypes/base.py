"""Base class of prototype methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from ..attributions.base import Explainable
from ..bounds import Checked
from ..encoders.base import EncoderOutput
from ..explanation.similar import Display, Like
from ..heads.head import Target
from .bank import Patches
from .fitted import FittedBank, find_file

if TYPE_CHECKING:
    from .measure import Showing

STRANGER = "Do not rely on them if the picture is unlike anything the classifier knows."
RULE = (
    "SeeWhy computes how many of the similar parts shown are of the explained class. Do not rely on the similar parts "
    "if a wrong class often reaches this share: on more than 1 in 20 held-out pictures. A wrong class is neither the "
    "true class nor the decision. Otherwise the similar parts are believable if 90 % of held-out pictures with about "
    "the same share were predicted correctly. They are partly believable if half of these pictures were predicted "
    "correctly and this is better than chance. They are at most partly believable if the explained class is not the "
    "decision, or if hiding these places lowers the logit of the class (minus the mean over classes) no more than "
    "hiding other places. Do not rely on the similar parts if even the nearest parts are less similar than on 19 of 20 "
    f"held-out pictures. {STRANGER}"
)


@dataclass(frozen=True)
class Query:
    """A picture for which similar patches are searched, and the class to explain.

    Attributes:
        cells: strongest grid cells ``(row, column)``, for methods that start from regions.
        digest: digest of the picture's file, to exclude its copy in the bank.
        share: fraction of the evidence for the target that each grid cell contributes.
    """

    look: EncoderOutput
    target: Target
    cells: Sequence[tuple[int, int]] = ()
    digest: str = ""
    share: Float[Tensor, "h w"] | None = None


@dataclass(frozen=True)
class Match:
    """A patch of the bank, its similarity (-1 to 1), and its share of the vote (0 to 1)."""

    patch: int
    similarity: float
    share: float | None = None


@dataclass(frozen=True)
class Group:
    """A grid cell ``(row, column)`` of the query, and similar patches, most similar first.

    Attributes:
        share: share of the evidence for the target, or of the vote.
        channel: channel that the patches have in common.
        contribution: contribution of the channel to the target's logit minus the mean over classes.
    """

    cell: tuple[int, int]
    share: float
    matches: tuple[Match, ...]
    channel: int | None = None
    contribution: float | None = None

    @property
    def voted(self) -> bool:
        """Whether the patches represent whole pictures that voted."""
        return any(m.share is not None for m in self.matches)

    @property
    def whole(self) -> bool:
        """Whether the card shows whole pictures instead of patches."""
        return self.channel is not None or self.voted


class Prototypes(Checked, ABC):
    """Base class of prototype methods, frozen dataclasses whose fields are the parameters.

    Class attributes:
        name: registered name, equal to the file's stem.
        spelt: displayed name, if it differs.
        paper: reference of the paper.
        needs: requirements on the classifier.
        cost: number of forward passes, in addition to the pass for the prediction.
        display: how a card shows the results.
        rule: text of the rule by which the verdict is decided.
        priority: order in which methods are tried if none is named; 0 for methods that must be named.
        of_places: whether the method can explain a single region.
        shows: what the method shows, for error messages.
        recipe: the only kind of classifier that has such a bank; empty for any kind with patches.
        fitted_by: full name of the class that fits the bank (:class:`~seewhy.prototypes.fitted.Fitting`); empty if none
            is needed.
        kept_as: class of the fitted bank; ``None`` for plain patches.
        small: fast settings for tests: ``cls(**cls.small)``.
    """

    name: ClassVar[str]
    spelt: ClassVar[str] = ""
    paper: ClassVar[str]
    needs: ClassVar[str]
    cost: ClassVar[str]
    stochastic: ClassVar[bool] = False
    display: ClassVar[Display] = Display()
    rule: ClassVar[str] = RULE
    priority: ClassVar[int] = 0
    of_places: ClassVar[bool] = True
    shows: ClassVar[str] = "patches of your pictures"
    recipe: ClassVar[str] = ""
    fitted_by: ClassVar[str] = ""
    kept_as: ClassVar[type[FittedBank] | None] = None
    small: ClassVar[Mapping[str, Any]] = {}

    @abstractmethod
    def __call__(self, model: Explainable, bank: Patches, query: Query) -> list[Group]:
        """Return regions with similar patches, largest share first."""

    @abstractmethod
    def activation(
        self, model: Explainable, bank: Patches, look: EncoderOutput, which: Int[Tensor, " p"]
    ) -> Float[Tensor, "b p h w"]:
        """Return, for every grid cell, the similarity to the given patches or the activation of their channels."""

    @classmethod
    def bank_for(cls, model: Any, place: str | Path | None = None) -> Patches | None:
        """Return the patch bank of a classifier, or ``None`` if it has none."""
        if cls.kept_as is not None:
            return cls.kept_as.of(model, place)
        return None if cls.recipe not in ("", model.recipe) else model.bank

    @classmethod
    def file_for(cls, model: Any, place: str | Path | None = None) -> Path | None:
        """Return the separate file of a classifier's bank, or ``None``."""
        return None if cls.kept_as is None else find_file(cls.name, model, place)

    def judge(self, showing: Showing) -> Like:
        """Return the evidence for a card with its verdict."""
        from .measure import judge_neighbours

        return judge_neighbours(self, showing)
