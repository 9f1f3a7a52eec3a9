"""The JSON that evidence answers with, as types."""

from __future__ import annotations

from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from ..explanation.base import Subject
from ..explanation.outputs import FailureOutput, Missing, Model, PredictionOutput, Run
from ..explanation.part import Part
from ..explanation.pictures import Perceived, Typical
from ..explanation.similar import Like, Likeness
from ..explanation.where import Where
from ..explanation.words import Word, Words
from ..results import Doc, Share


class AgreementParts(TypedDict):
    neighbours: NotRequired[Annotated[Share, Doc("part of the neighbours that carry the class of `agreement_about`")]]
    words: NotRequired[Annotated[Share, Doc("1 when the words choose that class, else 0")]]
    place: NotRequired[Annotated[float, Doc("rank correlation of the two maps, cut at 0")]]


class ExplanationOutput(PredictionOutput):
    """One picture explained, as a saved card's .json."""

    where: Annotated[Where, Doc("the heat map and its measures")]
    like: Annotated[list[Likeness], Doc("patches of the user's pictures; empty without them")]
    like_measured: NotRequired[Annotated[Like, Doc("there when `like` could be made")]]
    like_missing: NotRequired[Annotated[Missing, Doc("there instead of `like_measured`")]]
    words: Annotated[list[Word], Doc("descriptions of the target class, then of the other one")]
    words_measured: NotRequired[Annotated[Words, Doc("there when there are words")]]
    words_missing: NotRequired[Annotated[Missing, Doc("there instead of `words_measured`")]]
    agreement: Annotated[Share | None, Doc("mean of the parts below")]
    agreement_parts: Annotated[AgreementParts, Doc("the parts that exist")]
    agreement_about: Annotated[str, Doc("the class the agreement is about")]
    subject: NotRequired[Annotated[Subject, Doc("what the evidence is about")]]
    part: NotRequired[Annotated[Part, Doc("the box or segment that is explained")]]
    model: Annotated[Model, Doc("where the decision comes from")]
    seen: NotRequired[Annotated[Perceived, Doc("of a [perceiver](methods/perceptual.md)")]]
    typical: NotRequired[Annotated[Typical, Doc("with `--typical`; pictures that a generator made")]]


class ExplainOutput2(ExplanationOutput):
    card: Annotated[str | None, Doc("path of the card, or `null` without `-o`")]


ExplainOutput = Run | FailureOutput | ExplainOutput2
"""A line of seewhy explain --json."""
