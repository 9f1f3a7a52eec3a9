"""The explanation of a picture, a result with several kinds of evidence."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

import numpy as np

from ..arguments import checked
from ..errors import DataError
from ..printable import percent
from ..results import Doc
from .kinds import Neuron, Perceived, Region, Typical, Where, Word, Words
from .part import Part
from .prediction import Prediction
from .result import Json, Result, plain
from .similar import Display, Like
from .verdict import Level, Missing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..report.plots import Display as Drawing

__all__ = [
    "AGREE", "IN_PART", "TOO_LITTLE", "Agreement", "Answer", "Explanation", "Neuron", "Region", "Subject", "Where",
    "Word", "Words",
]  # fmt: skip


@dataclass(frozen=True)
class Subject(Result):
    """The class or difference that an explanation is about."""

    computed: ClassVar = ("is_decision", "said")

    decision: Annotated[str, Json(hidden=True)]
    label: Annotated[str, Doc("the class that similar parts and descriptions are about: `--target`, or the decision")]
    contrast: Annotated[str | None, Doc("the class with which it is compared")] = None
    asked_contrast: Annotated[str | None, Json(hidden=True)] = None
    """The requested contrast class; ``contrast`` differs if this is the decision."""
    sentence: Annotated[str | None, Doc("the explained sentence, if any, in quotation marks")] = None
    contrast_sentence: Annotated[str | None, Doc("the sentence with which it is compared")] = None
    against: Annotated[bool, Doc("whether the map shows evidence against the target")] = False
    unknown: Annotated[bool, Json(hidden=True)] = False
    """Whether the picture is rejected as unknown."""

    @property
    def is_decision(self) -> Annotated[bool, Doc("whether all evidence is about the decision")]:
        return self.label == self.decision and not (self.contrast or self.sentence or self.against)

    @property
    def of_class(self) -> str:
        return self.label if self.contrast is None else f"{self.label} rather than {self.contrast}"

    @property
    def of_goal(self) -> str:
        """The explained class or difference, in words."""
        if self.sentence is None:
            return self.of_class
        return (
            self.sentence if self.contrast_sentence is None else f"{self.sentence} rather than {self.contrast_sentence}"
        )

    @property
    def of_regions(self) -> str:
        """The class or difference that the lettered regions support, in words."""
        return f"anything but {self.of_goal}" if self.against else self.of_goal

    @property
    def regions_are_of_class(self) -> bool:
        """Whether the lettered regions support the explained class."""
        return self.sentence is None and not self.against

    @property
    def said(self) -> Annotated[str, Doc("the subject of the evidence in words; empty if it is the decision")]:
        if self.is_decision:
            return ""
        decided = f"the decision is {self.decision}"
        if self.sentence is not None:
            side = "against" if self.against else "for"
            rest = f"The similar parts and the descriptions are about the decision, {self.decision}."
            return f"As requested, the map shows the evidence {side} {self.of_goal}. {rest}"
        if self.asked_contrast is not None and self.asked_contrast != self.contrast:
            return (
                f"You asked why the decision is not {self.asked_contrast}, but it is {self.asked_contrast}. So the "
                f"evidence is about {self.of_class}, the next most probable class."
            )
        if self.against:
            return f"As requested, the map shows the evidence against {self.of_class}; {decided}."
        return f"As requested, the evidence is about {self.of_class}; {decided}."


AGREE, IN_PART = 0.7, 0.4
WHOLE = 0.99
"""Share of a picture from which the rest does not matter."""
TOO_LITTLE = "There is too little evidence of different kinds to compare."


@dataclass(frozen=True)
class Agreement:
    """The mean agreement between kinds of evidence, or ``None`` for fewer than two terms."""

    score: float | None
    parts: dict[str, float]
    sentence: str
    about: str | None = None
    notes: str = ""
    """Further remarks, which a page hides behind a click."""

    @property
    def level(self) -> Level:
        if self.score is None:
            return "not measured"
        return "believable" if self.score >= AGREE else "partly" if self.score >= IN_PART else "do not rely"

    def headline(self, percent: str) -> str:
        """Return the score in words, for example ``100 % agreement about dog``."""
        return f"{percent} agreement" + ("" if self.about is None else f" about {self.about}")


class Answer(NamedTuple):
    """A kind of evidence with its key and title."""

    key: str
    title: str
    evidence: Any

    @property
    def level(self) -> Level:
        return "not measured" if isinstance(self.evidence, Missing) else self.evidence.verdict.level


@dataclass(frozen=True)
class Explanation:
    """A prediction with its evidence: a heat map, similar patches of the training pictures, and descriptions.

    Attributes:
        prediction: the predicted class, or several classes, with its reliability.
        view: the network's input picture, uint8 ``(h, w, 3)``.
        model: provenance, for example ``{"classifier": "linear", "encoder": "lite0", "trained_on": "970 pictures"}``.
        seen: the reconstructed picture that was classified instead of the original; ``None`` if there is none.
        subject: the class, or difference between two classes, that the evidence explains; ``None`` means the predicted
            class.
        typical: generated typical pictures of the class; ``None`` if not requested.
        part: the explained box or segment; ``None`` for the whole picture.
        in_view: the share of the picture's area that ``view`` shows. The network knows nothing of the rest.
    """

    prediction: Prediction
    view: np.ndarray
    where: Where | Missing
    like: Like | Missing
    words: Words | Missing
    agreement: Agreement
    model: dict[str, str] = field(default_factory=dict)
    seen: Perceived | None = None
    subject: Subject | None = None
    typical: Typical | None = None
    part: Part | None = None
    in_view: float = 1.0

    def __repr__(self) -> str:
        kinds = {"where": self.where, "like": self.like, "words": self.words}
        told = (f"{k}: {'missing' if isinstance(e, Missing) else e.verdict.level}" for k, e in kinds.items())
        return f"Explanation({self.prediction!r}\n  {'; '.join(told)})"

    @property
    def answers(self) -> tuple[Answer, ...]:
        like = Display.title if isinstance(self.like, Missing) else self.like.display.title
        title = "" if self.typical is None else f"Generated: {self.typical.label}"
        every = (
            Answer("seen", "What it saw", self.seen),
            Answer("part", "Inside it, or outside", None if self.part is None else self.part.outside),
            Answer("where", "Where it looked", self.where),
            Answer("like", like, self.like),
            Answer("words", "In words", self.words),
            Answer("typical", title, self.typical),
        )
        return tuple(answer for answer in every if answer.evidence is not None)

    @property
    def aside(self) -> str:
        """The class or difference that the evidence explains, in words; empty if it is the predicted class."""
        return "" if self.subject is None else self.subject.said

    @property
    def cut(self) -> str:
        """What share of a picture the network looks at, in words; empty if it looks at all of it."""
        if self.in_view > WHOLE:
            return ""
        return f"The network looks at the centre only, {percent(self.in_view, ' ')} of this picture."

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``seewhy explain --json`` prints (docs/json.md)."""
        like, words, agreement = self.like, self.words, self.agreement
        data = self.prediction.to_json() | {"where": self.where.to_json()}
        if isinstance(like, Missing):
            data |= {"like": [], "like_missing": like.to_json()}
        else:
            data |= {"like": plain(like.neighbours), "like_measured": like.to_json()}
        if isinstance(words, Missing):
            data |= {"words": [], "words_missing": words.to_json()}
        else:
            data |= {"words": plain(words.words), "words_measured": words.to_json()}
        about = agreement.about or self.prediction.label
        data |= {"agreement": agreement.score, "agreement_parts": plain(agreement.parts), "agreement_about": about}
        others = {"subject": self.subject, "typical": self.typical, "part": self.part, "seen": self.seen}
        present = {name: plain(result) for name, result in others.items() if result is not None}
        return {**data, "in_view": round(self.in_view, 4), "model": dict(self.model), **present}

    def without_folders(self) -> Explanation:
        """Return a copy that names similar pictures by file name, without folders."""
        if isinstance(self.like, Missing):
            return self
        near = tuple(replace(one, image=Path(one.image).name) for one in self.like.neighbours)
        return replace(self, like=replace(self.like, neighbours=near))

    def to_html(self) -> str:
        from ..report import render_html

        return render_html(self)

    def to_png(self) -> bytes:
        from ..report import render_png

        return render_png(self)

    @checked
    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the card as ``.html``, ``.png`` or ``.json``; ``force`` overwrites files of other programs."""
        from ..report import save

        return save(self, Path(path), force=force)

    def show(self) -> None:
        """Open the card in the web browser."""
        from ..report import open_in_browser

        open_in_browser(self)

    def plot(self, ax: Axes | None = None) -> Drawing:
        """Draw the heat map over the picture on matplotlib axes."""
        from ..report.plots import draw_heat

        if isinstance(self.where, Missing):
            raise DataError(f"There is no heat map to plot: {self.where.reason}")
        return draw_heat(self.view, self.where.heat, self.where.target, ax)

    def _repr_html_(self) -> str:
        from ..report import framed, render_html

        return framed(render_html(self), f"SeeWhy card: {self.prediction.label}")
