"""In words, as a card shows it: descriptions of two classes, and how far to trust them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ..results import Doc, Share
from .result import OPTIONAL, Json, Result
from .verdict import Verdict


@dataclass(frozen=True)
class WordOrigin(Result):
    """What a description was written for, where that is not simply its class."""

    attribute: Annotated[str | None, Doc("what it is about, where it was written to part two classes"), OPTIONAL] = None
    against: Annotated[str | None, Doc("the class it was written to be distinguished from"), OPTIONAL] = None
    written_for: Annotated[str | None, Doc("the class it was written for, where another uses it"), OPTIONAL] = None

    def __str__(self) -> str:
        if self.written_for is not None:
            return f"written for {self.written_for}"
        against = None if self.against is None else f"against {self.against}"
        return ", ".join(part for part in (self.attribute, against) if part)


@dataclass(frozen=True)
class WordControl(Result):
    """How the words of a class do beside lists that were written about something else."""

    as_good: Annotated[
        Share, Doc("part of wrong assignments of lists to classes that fit the held-out pictures as well")
    ]
    class_beats: Annotated[
        Share | None, Doc("part of other lists that fit the class's held-out pictures less well than its own")
    ]
    picture_beats: Annotated[Share, Doc("part of other lists that fit this picture less well")]


@dataclass(frozen=True)
class Word(Result):
    text: Annotated[str, Doc("as written")]
    label: Annotated[str, Doc("its class")]
    score: Annotated[float, Doc("cosine of picture and text, −1…1")]
    score_other: Annotated[float, Doc("mean cosine of the picture with the other class's texts, −1…1")]
    separates: Annotated[
        Share | None,
        Doc("area under the ROC curve of this text between the two classes on held-out pictures"),
        OPTIONAL,
    ] = None
    origin: Annotated[WordOrigin | None, Json(inline=True)] = None
    adds: Annotated[
        float | None, Doc("what it adds to the lead of its class over the other, where a sum decides"), OPTIONAL
    ] = None

    def __str__(self) -> str:
        beside = f"other class {self.score_other:+.2f}" if self.adds is None else f"adds {self.adds:.2f}"
        return f"{self.label}: {self.text} ({self.score:+.2f}, {beside})"


@dataclass(frozen=True)
class Words(Result):
    """Descriptions of the predicted class and of the runner-up; its JSON is the measures beside them."""

    method: Annotated[str, Doc("registered name")]
    words: Annotated[tuple[Word, ...], Json(hidden=True)]
    decision: Annotated[str, Doc("the class the words alone choose")]
    accuracy: Annotated[Share | None, Doc("of the words alone"), Json(digits=17)]
    accuracy_on: Annotated[str, Doc("the pictures that was measured on")]
    would_change: Annotated[str, Json(hidden=True)]
    verdict: Annotated[Verdict, Doc("as above")]
    control: Annotated[WordControl | None, Doc("the words beside wrong ones; `null` without held-out pictures")] = None

    @property
    def remarks(self) -> tuple[str, ...]:
        return tuple(map(str, self.words[:3]))
