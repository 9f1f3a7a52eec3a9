"""JSON types of decisions and explanations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from ..results import Count, Doc, Share
from ..types import Failure as FailureOutput
from .base import Subject
from .kinds import Perceived, Typical, Where, Word, Words
from .part import Part
from .prediction import Decision, LabelDecision
from .prediction import Findings as FindingsOutput
from .result import Result
from .similar import Like, Likeness


class ClassScore(TypedDict):
    label: Annotated[str, Doc("class")]
    score: Annotated[Share, Doc("score of the classifier; scores of all classes sum to 1")]


Interval = Annotated[tuple[Share, Share], Doc("[low, high]")]

Range = Annotated[tuple[float, float], Doc("[low, high]")]


Failures = Annotated[list[FailureOutput], Doc("pictures that could not be read")]


Model = dict[str, str]
"""Provenance in words: classifier, encoder, engine, training pictures, classes, fingerprint."""


class PredictionOutput(TypedDict):
    """The predicted class of a picture, with its score."""

    image: Annotated[str, Doc("file name as given")]
    label: Annotated[str, Doc("the decision")]
    score: Annotated[Share, Doc("score of the classifier for the decision, not calibrated")]
    top: Annotated[list[ClassScore], Doc("the `--top` most probable classes")]
    decision: NotRequired[
        Annotated[Decision, Doc("reliability of the decision ([concepts](concepts.md#the-decision))")]
    ]


class Measure(TypedDict):
    measure: Annotated[
        str, Doc("name of the metric: R@1, R@5, R@10 in both directions, classes by name, calibration error")
    ]
    n: Annotated[Count, Doc("number of pictures")]
    after: Annotated[Share, Doc("value of the metric")]
    after_interval: Annotated[Interval, Doc("95 % interval over pictures, or over groups if they were given")]
    before: NotRequired[Annotated[Share, Doc("value for the original encoder")]]
    before_interval: NotRequired[Annotated[Interval, Doc("its interval")]]
    difference: NotRequired[Annotated[float, Doc("difference from the original encoder, on the same pictures")]]
    difference_interval: NotRequired[Annotated[tuple[float, float], Doc("its 95 % interval")]]
    real: NotRequired[Annotated[bool, Doc("whether that interval excludes 0")]]


@dataclass
class Run(Result):
    """The result of a run that writes Parquet files to a folder."""

    output: Annotated[str, Doc("the run's folder")]
    n_shards: Annotated[Count, Doc("number of shards of the whole input")] = 0
    n_part: Annotated[Count, Doc("number of shards of the part that `--shard` names")] = 0
    done: Annotated[Count, Doc("number of shards written")] = 0
    there: Annotated[Count, Doc("number of shards of this part that already existed")] = 0
    changed: Annotated[Count, Doc("number of existing shards whose pictures have changed")] = 0
    rows: Annotated[Count, Doc("number of rows written")] = 0
    failed: Annotated[Count, Doc("number of rows with an unreadable picture; the column `error` has the reason")] = 0
    unread: Annotated[list[dict[str, str]], Doc("each `shard` with read errors, and its `error`")] = field(
        default_factory=list
    )


class DryRunOutput(TypedDict):
    """The estimated work of a run with --dry-run."""

    n_prompts: Annotated[Count, Doc("number of questions")]
    n_known: NotRequired[Annotated[Count, Doc("number of questions already answered")]]
    tokens_in: NotRequired[Annotated[Count, Doc("estimated number of input tokens of the remaining questions")]]
    tokens_out: NotRequired[Annotated[Count, Doc("largest number of output tokens")]]
    cost: NotRequired[Annotated[float, Doc("largest cost, in the unit of `--set price_in` and `--set price_out`")]]


class LabelsOutput(TypedDict):
    """The labels of a picture."""

    image: Annotated[str, Doc("file name as given")]
    labels: Annotated[list[str], Doc("the labels that are given, most probable first")]
    decisions: Annotated[list[LabelDecision], Doc("the decision about each label")]


class QuestionOutput(TypedDict):
    question: Annotated[str, Doc("the question")]
    label: Annotated[str, Doc("the answer")]
    score: Annotated[Share, Doc("score of the classifier for the answer, not calibrated")]
    top: Annotated[list[ClassScore], Doc("the `--top` most probable answers")]
    decision: NotRequired[Annotated[Decision, Doc("reliability of the answer")]]


class AnswersOutput(TypedDict):
    """The answers to several questions about a picture."""

    image: Annotated[str, Doc("file name as given")]
    answers: Annotated[dict[str, str], Doc("question → answer")]
    decisions: Annotated[list[QuestionOutput], Doc("the decision about each question")]


PredictOutput = Run | FailureOutput | FindingsOutput | LabelsOutput | AnswersOutput | PredictionOutput
"""One line of ``seewhy predict --json``."""


class ExplanationOutput(PredictionOutput):
    """The explanation of a picture, as in a saved card's .json."""

    where: Annotated[Where, Doc("the heat map and its figures")]
    like: Annotated[list[Likeness], Doc("similar parts of your pictures; empty without pictures")]
    like_measured: NotRequired[Annotated[Like, Doc("figures of `like`")]]
    like_missing: NotRequired[
        Annotated[dict[str, str], Doc("instead of `like_measured`: the reason (`missing`) and the `cure`")]
    ]
    words: Annotated[list[Word], Doc("descriptions of the explained class, then of the other class")]
    words_measured: NotRequired[Annotated[Words, Doc("figures of `words`")]]
    words_missing: NotRequired[
        Annotated[dict[str, str], Doc("instead of `words_measured`: the reason (`missing`) and the `cure`")]
    ]
    agreement: Annotated[Share | None, Doc("mean of `agreement_parts`")]
    agreement_parts: Annotated[dict[str, float], Doc("agreement of `neighbours`, `words` and `place`, where measured")]
    agreement_about: Annotated[str, Doc("the class to which the agreement refers")]
    subject: NotRequired[Annotated[Subject, Doc("the subject of the evidence")]]
    part: NotRequired[Annotated[Part, Doc("the explained box or segment")]]
    in_view: Annotated[Share, Doc("share of the picture's area that the network looks at")]
    model: Annotated[Model, Doc("provenance of the decision")]
    seen: NotRequired[Annotated[Perceived, Doc("result of the method [perceptual](methods/perceptual.md)")]]
    typical: NotRequired[Annotated[Typical, Doc("with `--typical`; generated pictures of the class")]]


class ExplainedPicture(ExplanationOutput):
    card: Annotated[str | None, Doc("path of the card, or `null` without `-o`")]
    question: NotRequired[Annotated[str, Doc("the label or question, for a model that makes several decisions")]]


ExplainOutput = Run | FailureOutput | ExplainedPicture
"""One line of ``seewhy explain --json``."""
