"""What every way of finding likenesses answers: patches of a bank for places of a picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from ..attributions.base import Explainable
from ..bounds import check_fields
from ..encoders.base import EncoderOutput
from ..explanation.similar import Display, Like
from ..heads.head import Target
from .bank import Patches
from .fitted import FittedBank, find_file

if TYPE_CHECKING:
    from .measure import Showing

STRANGER = "Do not rely on them if the picture is unlike anything the classifier knows."
RULE = (
    "Do not rely on the similar parts if the class explained has no more of them than a wrong class has on 19 of 20 "
    "held-out pictures. A wrong class is neither the true class nor the decision. Otherwise they are believable if, "
    "of held-out pictures with about as many, 90 % were predicted correctly. They are partly believable if half were, "
    "and more than by chance. They are at most partly believable for a class that is not the decision, or if hiding "
    "these places lowers the class's lead no more than hiding others. Do not rely on them if even the nearest are "
    "farther away than those of 19 of 20 held-out pictures. "
    f"{STRANGER}"
)


@dataclass(frozen=True)
class Query:
    """A picture for which similar parts are searched, and the class to explain.

    ``cells`` are its strongest cells, as (row, column), for methods that start from places. ``digest`` is that of its
    file, so that its own copy in the bank is never shown. ``share`` is each cell's share of what speaks for the target.
    """

    look: EncoderOutput
    target: Target
    cells: Sequence[tuple[int, int]] = ()
    digest: str = ""
    share: Float[Tensor, "h w"] | None = None


@dataclass(frozen=True)
class Match:
    """A patch of the bank, its similarity, -1…1, and the picture's share of the vote, if it voted."""

    patch: int
    similarity: float
    share: float | None = None


@dataclass(frozen=True)
class Group:
    """A place on the query, as (row, column), and the patches similar to it, the best first.

    ``share`` is its share of what speaks for the target, or of the vote. ``channel`` is the channel that the patches
    have in common, and ``contribution`` is its contribution to the target's logit minus the mean over classes.
    """

    cell: tuple[int, int]
    share: float
    matches: tuple[Match, ...]
    channel: int | None = None
    contribution: float | None = None

    @property
    def voted(self) -> bool:
        """Whether its patches stand for whole pictures that voted."""
        return any(m.share is not None for m in self.matches)

    @property
    def whole(self) -> bool:
        """Whether the card shows whole pictures, not patches that resemble one of the lettered regions."""
        return self.channel is not None or self.voted


class Prototypes(ABC):
    """A frozen dataclass whose fields are the method's parameters.

    Class attributes:
        name: registered name, the file's stem.
        spelt: as its paper writes it; empty where that is the name.
        paper: where it is from.
        needs: what it asks of the classifier.
        cost: in forward passes, beside the one that predicts.
        display: how a card shows what it finds.
        rule: how the verdict on what it finds follows from the figures.
        priority: where no method is named, the one with the highest that has a bank is taken; 0 is taken only by name.
        of_places: whether it can be asked about one place of a picture.
        shows: what it shows, for who asks it of a classifier that has none.
        recipe: the recipe whose classifiers bring its bank; any that keeps patches where empty.
        fitted_by: full name of what fits its bank (:class:`~seewhy.prototypes.fitted.Fitting`), where it has one of
            its own and searches no plain patches.
        kept_as: what that bank is; ``None`` for methods that search plain patches.
        small: settings with which it takes a moment, for tests and trials: ``cls(**cls.small)``.
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

    def __post_init__(self) -> None:
        check_fields(self)

    @abstractmethod
    def __call__(self, model: Explainable, bank: Patches, query: Query) -> list[Group]:
        """Places and what they are like, the largest share first."""

    @abstractmethod
    def activation(
        self, model: Explainable, bank: Patches, look: EncoderOutput, which: Int[Tensor, " p"]
    ) -> Float[Tensor, "b p h w"]:
        """How strongly patches of the bank, or the channels they stand for, respond in every cell of pictures."""

    @classmethod
    def bank_for(cls, model: Any, place: str | Path | None = None) -> Patches | None:
        """The bank to search for one classifier; ``None`` if there is none."""
        if cls.kept_as is not None:
            return cls.kept_as.of(model, place)
        return None if cls.recipe not in ("", model.recipe) else model.bank

    @classmethod
    def file_for(cls, model: Any, place: str | Path | None = None) -> Path | None:
        """The file that holds its bank, if it has a separate one."""
        return None if cls.kept_as is None else find_file(cls.name, model, place)

    def judge(self, showing: Showing) -> Like:
        """The evidence for a card, with how far to trust it."""
        from .measure import judge_neighbours

        return judge_neighbours(self, showing)
