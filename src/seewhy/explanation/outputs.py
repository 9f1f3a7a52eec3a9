"""Parts that several outputs share, and the JSON of decisions and explanations."""

from __future__ import annotations

from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from ..results import Count, Doc, Share
from .base import Subject
from .part import Part
from .pictures import Perceived, Typical
from .prediction import Decision
from .similar import Like, Likeness
from .where import Where
from .words import Word, Words


class ClassScore(TypedDict):
    label: Annotated[str, Doc("class")]
    score: Annotated[Share, Doc("the classifier's own score of it; those of all classes add up to 1")]


PartBox = Annotated[tuple[Share, Share, Share, Share], Doc("[left, top, right, bottom]")]

Interval = Annotated[tuple[Share, Share], Doc("[low, high]")]

Range = Annotated[tuple[float, float], Doc("[low, high]")]


class FailureOutput(TypedDict):
    """A picture that failed."""

    image: Annotated[str, Doc("file name as given")]
    error: Annotated[str, Doc("why it could not be read, and what to do")]


Failures = Annotated[list[FailureOutput], Doc("pictures that could not be read")]


class Difference(TypedDict):
    value: Annotated[float, Doc("the difference")]
    interval: Annotated[Range, Doc("its interval")]
    real: Annotated[bool, Doc("whether the interval leaves out 0")]


Model = dict[str, str]
"""What decides, in words: classifier, encoder, engine, trained on, classes, fingerprint."""


class PredictionOutput(TypedDict):
    """The decision on one picture."""

    image: Annotated[str, Doc("file name as given")]
    label: Annotated[str, Doc("the decision")]
    score: Annotated[Share, Doc("the classifier's own score of it, measured on nothing")]
    top: Annotated[list[ClassScore], Doc("classes by falling probability, `--top` of them")]
    decision: NotRequired[Annotated[Decision, Doc("how far to trust it ([concepts](concepts.md#the-decision))")]]


class Round(TypedDict):
    round: Annotated[Count, Doc("from 1")]
    n: Annotated[Count, Doc("pictures that have it")]
    words: Annotated[float, Doc("of the text after it")]
    seconds: Annotated[float, Doc("active time it took")]
    edited: Annotated[Share, Doc("part of the words it changed")]


class Preference(TypedDict):
    value: Annotated[float, Doc("net preference")]
    low: Annotated[float, Doc("its 95 % interval from")]
    high: Annotated[float, Doc("to")]
    n: Annotated[Count, Doc("comparisons")]


class Reliability(TypedDict):
    alpha: Annotated[float | None, Doc("Krippendorff's")]
    same: Annotated[Share, Doc("part of pairs of people on the same side")]
    pairs: Annotated[Count, Doc("pairs of texts")]
    n: Annotated[Count, Doc("comparisons")]


class Measure(TypedDict):
    measure: Annotated[str, Doc("what is measured: R@1, R@5, R@10 either way, classes by name, calibration error")]
    n: Annotated[Count, Doc("pictures")]
    after: Annotated[Share, Doc("now")]
    after_interval: Annotated[Interval, Doc("95 % interval over pictures; over groups where they were named")]
    before: NotRequired[Annotated[Share, Doc("by the encoder it was adapted from")]]
    before_interval: NotRequired[Annotated[Interval, Doc("of that")]]
    difference: NotRequired[Annotated[float, Doc("after less before, on the same pictures")]]
    difference_interval: NotRequired[Annotated[tuple[float, float], Doc("its 95 % interval")]]
    real: NotRequired[Annotated[bool, Doc("whether that interval leaves out 0")]]


class Run(TypedDict):
    """What a run into a folder of Parquet files did."""

    output: Annotated[str, Doc("the run's folder")]
    n_shards: Annotated[Count, Doc("of the whole input")]
    n_part: Annotated[Count, Doc("of the part that `--shard` names")]
    done: Annotated[Count, Doc("shards done now")]
    there: Annotated[Count, Doc("shards of this part that were there")]
    changed: Annotated[Count, Doc("shards that were there, of pictures that have been replaced since")]
    rows: Annotated[Count, Doc("written now")]
    failed: Annotated[Count, Doc("pictures among them that could not be read; why is in the column `error`")]
    unread: Annotated[list[dict[str, str]], Doc("each `shard` that could not be read to its end, and its `error`")]


class Finding(TypedDict):
    finding: Annotated[str, Doc("what is looked for")]
    probability: Annotated[Share, Doc("that it is there rather than not")]
    margin: Annotated[float, Doc("cosine with the sentences that say so, less that with those that deny it")]


class FindingsOutput(TypedDict):
    """A line of seewhy predict --finding --json."""

    image: Annotated[str, Doc("file name as given")]
    findings: Annotated[list[Finding], Doc("each by itself, in the order asked")]


class DryRunOutput(TypedDict):
    """What a run with --dry-run would ask of a writer; with nobody to ask, n_prompts alone."""

    n_prompts: Annotated[Count, Doc("questions in all")]
    n_known: NotRequired[Annotated[Count, Doc("answered by an earlier run")]]
    tokens_in: NotRequired[Annotated[Count, Doc("of the questions that are left, guessed")]]
    tokens_out: NotRequired[Annotated[Count, Doc("of their answers, at most")]]
    cost: NotRequired[Annotated[float, Doc("at most, in the unit of `--set price_in` and `--set price_out`")]]


PredictOutput = Run | FailureOutput | FindingsOutput | PredictionOutput
"""A line of seewhy predict --json."""


class ExplanationOutput(PredictionOutput):
    """One picture explained, as a saved card's .json."""

    where: Annotated[Where, Doc("the heat map and its measures")]
    like: Annotated[list[Likeness], Doc("patches of the user's pictures; empty without them")]
    like_measured: NotRequired[Annotated[Like, Doc("there when `like` could be made")]]
    like_missing: NotRequired[Annotated[dict[str, str], Doc("in its place: why it is `missing`, and the `cure`")]]
    words: Annotated[list[Word], Doc("descriptions of the target class, then of the other one")]
    words_measured: NotRequired[Annotated[Words, Doc("there when there are words")]]
    words_missing: NotRequired[Annotated[dict[str, str], Doc("instead of `words_measured`, likewise")]]
    agreement: Annotated[Share | None, Doc("mean of the parts below")]
    agreement_parts: Annotated[dict[str, float], Doc("those that exist of `neighbours`, `words` and `place`")]
    agreement_about: Annotated[str, Doc("the class the agreement is about")]
    subject: NotRequired[Annotated[Subject, Doc("what the evidence is about")]]
    part: NotRequired[Annotated[Part, Doc("the box or segment that is explained")]]
    model: Annotated[Model, Doc("where the decision comes from")]
    seen: NotRequired[Annotated[Perceived, Doc("of a [perceiver](methods/perceptual.md)")]]
    typical: NotRequired[Annotated[Typical, Doc("with `--typical`; pictures that a generator made")]]


class ExplainedPicture(ExplanationOutput):
    card: Annotated[str | None, Doc("path of the card, or `null` without `-o`")]


ExplainOutput = Run | FailureOutput | ExplainedPicture
"""A line of seewhy explain --json."""
