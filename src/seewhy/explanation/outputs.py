"""Parts that several outputs share, and the JSON of decisions and explanations."""

from __future__ import annotations

from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from ..results import Count, Doc, Share
from .base import Subject
from .kinds import Perceived, Typical, Where, Word, Words
from .part import Part
from .prediction import Decision
from .similar import Like, Likeness


class ClassScore(TypedDict):
    label: Annotated[str, Doc("class")]
    score: Annotated[Share, Doc("the classifier's own score; over all classes it adds up to 1")]


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
    real: Annotated[bool, Doc("whether the interval excludes 0")]


Model = dict[str, str]
"""What decides, in words: classifier, encoder, engine, trained on, classes, fingerprint."""


class PredictionOutput(TypedDict):
    """The decision on one picture."""

    image: Annotated[str, Doc("file name as given")]
    label: Annotated[str, Doc("the decision")]
    score: Annotated[Share, Doc("the classifier's own score of the decision, not measured on pictures")]
    top: Annotated[list[ClassScore], Doc("the `--top` most probable classes")]
    decision: NotRequired[Annotated[Decision, Doc("how far to trust it ([concepts](concepts.md#the-decision))")]]


class Measure(TypedDict):
    measure: Annotated[str, Doc("what is measured: R@1, R@5, R@10 either way, classes by name, calibration error")]
    n: Annotated[Count, Doc("number of pictures")]
    after: Annotated[Share, Doc("figure now")]
    after_interval: Annotated[Interval, Doc("95 % interval over pictures, or over groups if they were named")]
    before: NotRequired[Annotated[Share, Doc("figure of the encoder it was adapted from")]]
    before_interval: NotRequired[Annotated[Interval, Doc("its interval")]]
    difference: NotRequired[Annotated[float, Doc("after minus before, on the same pictures")]]
    difference_interval: NotRequired[Annotated[tuple[float, float], Doc("its 95 % interval")]]
    real: NotRequired[Annotated[bool, Doc("whether that interval excludes 0")]]


class Run(TypedDict):
    """The result of a run into a folder of Parquet files."""

    output: Annotated[str, Doc("the run's folder")]
    n_shards: Annotated[Count, Doc("shards of the whole input")]
    n_part: Annotated[Count, Doc("shards of the part that `--shard` names")]
    done: Annotated[Count, Doc("shards written now")]
    there: Annotated[Count, Doc("shards of this part that existed already")]
    changed: Annotated[Count, Doc("existing shards with pictures that have changed since")]
    rows: Annotated[Count, Doc("rows written now")]
    failed: Annotated[Count, Doc("pictures among them that could not be read; the column `error` says why")]
    unread: Annotated[list[dict[str, str]], Doc("each `shard` that could not be read completely, and its `error`")]


class Finding(TypedDict):
    finding: Annotated[str, Doc("the finding searched for")]
    probability: Annotated[Share, Doc("probability that it is present")]
    margin: Annotated[float, Doc("cosine with affirming sentences minus that with denying ones")]


class FindingsOutput(TypedDict):
    """A line that ``seewhy predict --finding --json`` prints."""

    image: Annotated[str, Doc("file name as given")]
    findings: Annotated[list[Finding], Doc("each finding, in the order given")]


class DryRunOutput(TypedDict):
    """What a run with --dry-run would ask of a writer; with nobody to ask, n_prompts alone."""

    n_prompts: Annotated[Count, Doc("number of questions")]
    n_known: NotRequired[Annotated[Count, Doc("questions answered by an earlier run")]]
    tokens_in: NotRequired[Annotated[Count, Doc("estimated tokens of the remaining questions")]]
    tokens_out: NotRequired[Annotated[Count, Doc("tokens of their answers, at most")]]
    cost: NotRequired[Annotated[float, Doc("highest cost, in the unit of `--set price_in` and `--set price_out`")]]


PredictOutput = Run | FailureOutput | FindingsOutput | PredictionOutput
"""A line that ``seewhy predict --json`` prints."""


class ExplanationOutput(PredictionOutput):
    """One picture explained, as a saved card's .json."""

    where: Annotated[Where, Doc("the heat map and its figures")]
    like: Annotated[list[Likeness], Doc("similar parts of your pictures; empty without pictures")]
    like_measured: NotRequired[Annotated[Like, Doc("figures of `like`")]]
    like_missing: NotRequired[
        Annotated[dict[str, str], Doc("instead of `like_measured`: why it is `missing`, and the `cure`")]
    ]
    words: Annotated[list[Word], Doc("descriptions of the class explained, then of the other one")]
    words_measured: NotRequired[Annotated[Words, Doc("figures of `words`")]]
    words_missing: NotRequired[
        Annotated[dict[str, str], Doc("instead of `words_measured`: why they are missing, and the cure")]
    ]
    agreement: Annotated[Share | None, Doc("mean of the parts below")]
    agreement_parts: Annotated[dict[str, float], Doc("the parts measured: `neighbours`, `words` and `place`")]
    agreement_about: Annotated[str, Doc("the class of the agreement")]
    subject: NotRequired[Annotated[Subject, Doc("what the evidence is about")]]
    part: NotRequired[Annotated[Part, Doc("the box or segment explained")]]
    model: Annotated[Model, Doc("what made the decision")]
    seen: NotRequired[Annotated[Perceived, Doc("what a [perceiver](methods/perceptual.md) saw")]]
    typical: NotRequired[Annotated[Typical, Doc("with `--typical`; generated pictures of the class")]]


class ExplainedPicture(ExplanationOutput):
    card: Annotated[str | None, Doc("path of the card, or `null` without `-o`")]


ExplainOutput = Run | FailureOutput | ExplainedPicture
"""A line that ``seewhy explain --json`` prints."""
