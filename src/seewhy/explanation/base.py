"""Explanation = decision + where + like what + in words, each with its measure.

Pure data: what is shown on a card, in JSON and in a notebook. Nothing here computes evidence.
Every evidence is either present or replaced by :class:`Missing`, which says what it would need.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..arguments import checked
from ..types import FractionBox, PixelBox
from .measures import WordControl, WordOrigin
from .outside import Outside
from .part import Part, PartBox
from .prediction import Prediction
from .similar import Display, Like
from .subject import Subject
from .verdict import Level, Missing, Verdict

if TYPE_CHECKING:
    from .perceived import Perceived
    from .typical import Typical


@dataclass(frozen=True)
class Region:
    """A lettered part of the picture.

    Attributes:
        letter: ``"A"``, ``"B"``, …, the same in every evidence.
        box: on the view, as fractions.
        query_box: the same on the upright original, in pixels.
        share: part of what speaks for the class, 0…1 (see docs/concepts.md#share).
    """

    letter: str
    box: FractionBox
    query_box: PixelBox
    share: float


@dataclass(frozen=True)
class Neuron:
    """One channel of the last feature map that the decision rests on.

    Attributes:
        channel: its number.
        share: what it adds to the target's logit, as a part of all that is added; below 0 where it speaks against.
        name: the word the network reads from it, or ``None`` where none leans on it more than by chance.
        strength: how much the nearest word leans on it, in standard deviations over the channels.
        box: where it is strongest, on the upright original, in pixels.
    """

    channel: int
    share: float
    name: str | None
    strength: float
    box: PixelBox

    def __str__(self) -> str:
        name = self.name or "no name beyond chance"
        return f"neuron {self.channel} {self.share:+.1%} {name}, strongest at {self.box}"

    def to_json(self) -> dict[str, Any]:
        return {
            "channel": self.channel,
            "share": round(self.share, 4),
            "name": self.name,
            "strength": round(self.strength, 2),
            "box": list(self.box),
        }


@dataclass(frozen=True)
class Where:
    """A heat map and how faithful it is on this very picture.

    Attributes:
        method: registered name, for example ``"grad_cam"``.
        target: the class the map speaks for.
        contrast: the class it speaks against, if one was given.
        heat: signed map at the network's own resolution, ``(h, w)``; positive speaks for the target.
        regions: the strongest cells, lettered.
        steps: fractions of the picture changed, 0…1, for the curves below.
        deletion_curve, insertion_curve: probability of the target, or of it rather than the contrast, as the hottest
            pixels go / come first.
        deletion_random_curve, insertion_random_curve: the same for a shuffled copy.
        deletion, insertion, deletion_random, insertion_random: areas under them (trapezoid, 0…1).
        match: how well the heat goes with what hiding halves of the picture does, −1…1.
        match_centre: the same of a bump in the middle.
        rival: the most probable class beside those explained, where the verdict hangs on its map.
        match_lead: how well what the map has more than the rival's goes with what hiding does to the lead over it.
        neurons: the channels that add most to the target and those that take most from it, if they were asked for.
        outside: what of the heat lies outside the object, where somebody says where that is.
    """

    method: str
    target: str
    contrast: str | None
    heat: np.ndarray = field(repr=False)
    regions: tuple[Region, ...]
    verdict: Verdict
    steps: tuple[float, ...] = field(default=(), repr=False)
    deletion_curve: tuple[float, ...] = field(default=(), repr=False)
    insertion_curve: tuple[float, ...] = field(default=(), repr=False)
    deletion_random_curve: tuple[float, ...] = field(default=(), repr=False)
    insertion_random_curve: tuple[float, ...] = field(default=(), repr=False)
    deletion: float | None = None
    insertion: float | None = None
    deletion_random: float | None = None
    insertion_random: float | None = None
    match: float | None = None
    match_centre: float | None = None
    rival: str | None = None
    match_lead: float | None = None
    neurons: tuple[Neuron, ...] = ()
    outside: Outside | None = None

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is said below the verdict in a terminal."""
        outside = () if self.outside is None else (self.outside.sentence,)
        return (*outside, *map(str, self.neurons))

    @property
    def is_zero(self) -> bool:
        """True when nothing on the picture speaks for the target: said on the card, never drawn."""
        return not bool((self.heat > 0).any())

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "target": self.target,
            "contrast": self.contrast,
            "deletion": self.deletion,
            "insertion": self.insertion,
            "deletion_random": self.deletion_random,
            "insertion_random": self.insertion_random,
            "match": self.match,
            "match_centre": self.match_centre,
            "rival": self.rival,
            "match_lead": self.match_lead,
            "all_zero": self.is_zero,
            "heat": [[round(float(v), 5) for v in row] for row in _coarse(self.heat)],
            "regions": [
                {"letter": r.letter, "box": list(r.query_box), "share": round(r.share, 4)} for r in self.regions
            ],
            "verdict": self.verdict.level,
            **({"neurons": [n.to_json() for n in self.neurons]} if self.neurons else {}),
            **({} if self.outside is None else {"outside": self.outside.to_json()}),
        }


def _coarse(heat: np.ndarray, most: int = 32) -> np.ndarray:
    """At most ``most`` rows and columns, by the mean of blocks as equal as may be: a pixel map would drown the JSON."""
    rows, columns = (min(side, most) for side in heat.shape)
    blocks = [np.array_split(row, columns, 1) for row in np.array_split(heat, rows, 0)]
    return np.array([[block.mean() for block in row] for row in blocks])


@dataclass(frozen=True)
class Word:
    """One description.

    Attributes:
        text: as the user wrote it.
        label: the class it belongs to.
        score: cosine of the picture with the sentence, -1…1.
        score_other: mean cosine of the picture with the descriptions of the class it is weighed against.
        separates: area under the ROC curve of this sentence between the two classes on held-out pictures.
        origin: what it was written for, where that is not simply its class.
        adds: what it adds to the lead of its class over the other, where the decision is a sum.
    """

    text: str
    label: str
    score: float
    score_other: float
    separates: float | None = None
    origin: WordOrigin | None = None
    adds: float | None = None

    def __str__(self) -> str:
        beside = f"other class {self.score_other:+.2f}" if self.adds is None else f"adds {self.adds:.2f}"
        return f"{self.label}: {self.text} ({self.score:+.2f}, {beside})"

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {
            "text": self.text,
            "label": self.label,
            "score": round(self.score, 4),
            "score_other": round(self.score_other, 4),
        }
        if self.separates is not None:
            data["separates"] = round(self.separates, 4)
        if self.adds is not None:
            data["adds"] = round(self.adds, 4)
        return data if self.origin is None else {**data, **self.origin.to_json()}


@dataclass(frozen=True)
class Words:
    """Descriptions of the predicted class and of the runner-up.

    Attributes:
        words: those of the predicted class first.
        decision: the class the words alone would choose.
        accuracy: of the words alone on held-out pictures, 0…1.
        accuracy_on: which pictures that was measured on.
        would_change: what would have to hold for the runner-up to win.
        control: how they do beside wrong words; ``None`` without held-out pictures.
    """

    method: str
    words: tuple[Word, ...]
    decision: str
    accuracy: float | None
    accuracy_on: str
    would_change: str
    verdict: Verdict
    control: WordControl | None = None

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is said below the verdict in a terminal."""
        return tuple(map(str, self.words[:3]))


TOO_LITTLE = "Too little evidence of different kinds to compare."


@dataclass(frozen=True)
class Agreement:
    """Do the three kinds of evidence tell the same story?

    Attributes:
        score: mean of the parts that exist, 0…1, or None when fewer than two evidences are there.
        parts: name → 0…1.
        sentence: one line for the card.
        about: the class the parts are about, where it is not the decision; ``None`` where it is.
    """

    score: float | None
    parts: dict[str, float]
    sentence: str
    about: str | None = None

    def headline(self, percent: str) -> str:
        """The score in words, with what it is about: ``100 % agreement about dog``."""
        return f"{percent} agreement" + ("" if self.about is None else f" about {self.about}")


class Answer(NamedTuple):
    """One kind of evidence, by its key and the title it stands under."""

    key: str
    title: str
    evidence: Any

    @property
    def level(self) -> Level:
        """How far to believe it; of one that is missing, not measured."""
        return "not measured" if isinstance(self.evidence, Missing) else self.evidence.verdict.level


@dataclass(frozen=True)
class Explanation:
    """One look, three answers, each one measured.

    Attributes:
        prediction: the decision.
        view: what the network saw, uint8 ``(h, w, 3)``.
        model: provenance, for example ``{"classifier": "linear", "encoder": "lite0", "trained_on": "970 pictures"}``.
        seen: what a perceiver classified in place of the picture.
        subject: what the evidence is about; ``None`` where that was not recorded, and is the decision.
        typical: what would be a typical picture of the class, if that was asked.
        part: the box or segment that is explained; ``None`` where it is the whole picture.
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

    @property
    def box(self) -> PartBox | None:
        """Left, top, right, bottom of what is explained, in pixels of the picture; ``None`` of a whole picture."""
        return None if self.part is None else self.part.box

    @property
    def mask(self) -> np.ndarray | None:
        """The pixels of an explained segment, ``(height, width)`` of booleans; else ``None``."""
        return None if self.part is None else self.part.mask

    def __repr__(self) -> str:
        kinds = {"where": self.where, "like": self.like, "words": self.words}
        told = (f"{k}: {'missing' if isinstance(e, Missing) else e.verdict.level}" for k, e in kinds.items())
        return f"Explanation({self.prediction!r}\n  {'; '.join(told)})"

    @property
    def answers(self) -> tuple[Answer, ...]:
        """Every kind of evidence that was asked for, in the order of the card."""
        like = Display.title if isinstance(self.like, Missing) else self.like.display.title
        made = "" if self.typical is None else f"A typical {self.typical.label}, made"
        every = (
            Answer("seen", "What it saw", self.seen),
            Answer("part", "Inside it, or outside", None if self.part is None else self.part.outside),
            Answer("where", "Where it looked", self.where),
            Answer("like", like, self.like),
            Answer("words", "In words", self.words),
            Answer("typical", made, self.typical),
        )
        return tuple(answer for answer in every if answer.evidence is not None)

    @property
    def aside(self) -> str:
        """What the evidence is about where that is not simply the decision; else nothing."""
        return "" if self.subject is None else self.subject.said

    def to_json(self) -> dict[str, Any]:
        """The documented, stable form of ``explain --json`` (docs/json.md)."""
        like, words = self.like, self.words
        data = self.prediction.to_json() | {"where": self.where.to_json()}
        if isinstance(like, Missing):
            data["like"], data["like_missing"] = [], like.to_json()
        else:
            data["like"] = [n.to_json() for n in like.neighbours]
            data["like_measured"] = like.measured()
        if isinstance(words, Missing):
            data["words"], data["words_missing"] = [], words.to_json()
        else:
            data["words"] = [w.to_json() for w in words.words]
            data["words_measured"] = {
                "method": words.method,
                "decision": words.decision,
                "accuracy": words.accuracy,
                "accuracy_on": words.accuracy_on,
                "control": None if words.control is None else words.control.to_json(),
                "verdict": words.verdict.level,
            }
        data["agreement"], data["model"] = self.agreement.score, dict(self.model)
        data["agreement_parts"] = {k: round(v, 4) for k, v in self.agreement.parts.items()}
        data["agreement_about"] = self.agreement.about or self.prediction.label
        if self.subject is not None:
            data["subject"] = self.subject.to_json()
        if self.typical is not None:
            data["typical"] = self.typical.to_json()
        if self.part is not None:
            data["part"] = self.part.to_json()
        return data if self.seen is None else data | {"seen": self.seen.to_json()}

    def without_folders(self) -> Explanation:
        """The same with the names of the user's pictures alone, not the folders they lie in on this machine."""
        if isinstance(self.like, Missing):
            return self
        near = tuple(replace(one, image=Path(one.image).name) for one in self.like.neighbours)
        return replace(self, like=replace(self.like, neighbours=near))

    def to_html(self) -> str:
        """The card: one self-contained page."""
        from ..report import render_html

        return render_html(self)

    def to_png(self) -> bytes:
        """The card as a still picture."""
        from ..report import render_png

        return render_png(self)

    @checked
    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the card; the ending decides: ``.html``, ``.png`` or ``.json``.

        Args:
            path: where; over an earlier card, not over a file that SeeWhy did not make.
            force: over any file.
        """
        from ..report import save

        return save(self, Path(path), force=force)

    def show(self) -> None:
        """Open the card in the web browser (in a notebook, the object displays itself)."""
        from ..report import open_in_browser

        open_in_browser(self)

    def _repr_html_(self) -> str:
        from ..report import render_notebook

        return render_notebook(self)
