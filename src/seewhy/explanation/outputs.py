"""Parts that several outputs share, and the JSON of decisions and explanations."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from typing_extensions import TypedDict

from ..results import Count, Doc, Share
from .prediction import Decision


class ClassScore(TypedDict):
    """A class with its probability."""

    label: Annotated[str, Doc("class")]
    score: Annotated[Share, Doc("the classifier's own score of it; those of all classes add up to 1")]


class Missing(TypedDict):
    """Why an evidence is not there."""

    missing: Annotated[str, Doc("why there is none")]
    cure: Annotated[str, Doc("what it would take")]


class Characteristics(TypedDict):
    """A number for each property of the pictures that was changed."""

    hue: NotRequired[Annotated[float, Doc("of the hue")]]
    saturation: NotRequired[Annotated[float, Doc("of the saturation")]]
    contrast: NotRequired[Annotated[float, Doc("of the contrast")]]
    brightness: NotRequired[Annotated[float, Doc("of the brightness")]]
    texture: NotRequired[Annotated[float, Doc("of the texture")]]
    shape: NotRequired[Annotated[float, Doc("of the shape")]]


Verdict = Annotated[
    Literal["believable", "partly", "do not rely", "not measured"], Doc("How far to believe an evidence.")
]


PixelBox = Annotated[tuple[Count, Count, Count, Count], Doc("[left, top, right, bottom]")]


PartBox = Annotated[tuple[Share, Share, Share, Share], Doc("[left, top, right, bottom]")]


Interval = Annotated[tuple[Share, Share], Doc("[low, high]")]


Range = Annotated[tuple[float, float], Doc("[low, high]")]


Map = Annotated[list[list[float]], Doc("rows of numbers")]


class FailureOutput(TypedDict):
    """A picture that failed."""

    image: Annotated[str, Doc("file name as given")]
    error: Annotated[str, Doc("why it could not be read, and what to do")]


Failures = Annotated[list[FailureOutput], Doc("pictures that could not be read")]


class Difference(TypedDict):
    """A paired difference."""

    value: Annotated[float, Doc("the difference")]
    interval: Annotated[Range, Doc("its interval")]
    real: Annotated[bool, Doc("whether the interval leaves out 0")]


class BeforeAfter(TypedDict):
    """Accuracy before and after, and the difference."""

    before: Annotated[Share, Doc("as it was")]
    after: Annotated[Share, Doc("as it is")]
    difference: Annotated[float, Doc("after less before")]
    interval: Annotated[Range, Doc("of the difference")]
    real: Annotated[bool, Doc("whether the interval leaves out 0")]


Model = TypedDict(
    "Model",
    {
        "classifier": Annotated[str, Doc("registered name")],
        "encoder": Annotated[str, Doc("name")],
        "engine": Annotated[str, Doc("name and precision; where a saved classifier was fitted in another, that too")],
        "trained on": Annotated[str, Doc("one line")],
        "classes": Annotated[str, Doc("how many")],
        "fingerprint": Annotated[str, Doc("first 12 digits of the digest of weights and preprocessing")],
    },
)


class Change(TypedDict):
    label: Annotated[str, Doc("class")]
    before: Annotated[str | None, Doc("the text as it was")]
    after: Annotated[str | None, Doc("as it is, or `null` where it was taken out")]


class Group(TypedDict):
    group: Annotated[str, Doc("value")]
    n: Annotated[Count, Doc("its pictures")]
    before: Annotated[Share, Doc("as above")]
    after: Annotated[Share, Doc("as above")]
    difference: Annotated[float, Doc("as above")]
    interval: Annotated[Range, Doc("as above")]
    real: Annotated[bool, Doc("as above")]


class PerClassRow(TypedDict):
    label: Annotated[str, Doc("class")]
    n: Annotated[Count, Doc("its pictures")]
    right_before: Annotated[Count, Doc("of them right")]
    right_after: Annotated[Count, Doc("of them right")]
    chosen_before: Annotated[Count, Doc("pictures given this class")]
    chosen_after: Annotated[Count, Doc("pictures given this class")]


class Flip(TypedDict):
    image: Annotated[str, Doc("file name")]
    label: Annotated[str, Doc("its class")]
    before: Annotated[str, Doc("decision")]
    after: Annotated[str, Doc("decision")]
    kind: Annotated[Literal["broken", "mended", "other"], Doc("what became of it")]
    group: NotRequired[Annotated[str, Doc("with `--by`; its group")]]
    card: NotRequired[Annotated[str, Doc("on the page; the address that shows the picture")]]


class WordsCompared(TypedDict):
    """What a change of words changes."""

    study: Literal["edit-words"]
    sentence: Annotated[str, Doc("the answer")]
    decides: Annotated[bool, Doc("whether the words make the decision; else what the words alone choose is compared")]
    changes: Annotated[list[Change], Doc("texts that were changed")]
    accuracy: Annotated[BeforeAfter, Doc("on all pictures")]
    groups: Annotated[list[Group], Doc("the same for each value of `--by`")]
    gap: Annotated[BeforeAfter | None, Doc("the same for the distance between the best and the worst group")]
    per_class: Annotated[list[PerClassRow], Doc("classes that moved")]
    flips: Annotated[list[Flip], Doc("pictures whose decision turns over")]
    n: Annotated[Count, Doc("pictures")]
    settings: Annotated[dict[str, Any], Doc("of the study")]


class PredictionOutput(TypedDict):
    """The decision on one picture."""

    image: Annotated[str, Doc("file name as given")]
    label: Annotated[str, Doc("the decision")]
    score: Annotated[Share, Doc("the classifier's own score of it, measured on nothing")]
    top: Annotated[list[ClassScore], Doc("classes by falling probability, `--top` of them")]
    decision: NotRequired[Annotated[Decision, Doc("how far to trust it ([concepts](concepts.md#the-decision))")]]


class Recent(PredictionOutput):
    """One of the reader's last pictures."""

    id: Annotated[str, Doc("of the picture while it is kept")]
    card: Annotated[str, Doc("the card's address")]


class Mistake(TypedDict):
    """A wrong decision."""

    image: Annotated[str, Doc("file name")]
    key: Annotated[str, Doc("first 16 digits of the SHA-256 of its bytes, which name it in `/decide`")]
    true: Annotated[str, Doc("its class")]
    predicted: Annotated[str, Doc("what it was taken for")]
    score: Annotated[Share, Doc("the classifier's own score of the wrong class")]
    probability: Annotated[Share | None, Doc("that the decision is right, as its card says it")]
    doubt: Annotated[float, Doc("that the decision is wrong, above 1 where the picture is unlike anything it knows")]
    card: Annotated[str, Doc("the address that shows it")]


class Round(TypedDict):
    """One round of annotation."""

    round: Annotated[Count, Doc("from 1")]
    n: Annotated[Count, Doc("pictures that have it")]
    words: Annotated[float, Doc("of the text after it")]
    seconds: Annotated[float, Doc("active time it took")]
    edited: Annotated[Share, Doc("part of the words it changed")]


class Preference(TypedDict):
    """A net preference with its interval."""

    value: Annotated[float, Doc("net preference")]
    low: Annotated[float, Doc("its 95 % interval from")]
    high: Annotated[float, Doc("to")]
    n: Annotated[Count, Doc("comparisons")]


class Reliability(TypedDict):
    """How far people agree."""

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


class UnreadRow(TypedDict):
    shard: Annotated[str, Doc("its name")]
    error: Annotated[str, Doc("why, and what to do")]


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
    unread: Annotated[list[UnreadRow], Doc("shards that could not be read to their end, of which nothing is written")]


class LabelDecision(TypedDict):
    """What stands on the label of a picture."""

    decision: Annotated[Literal["corrected", "confirmed", "later", "dropped", "open"], Doc("what was decided")]
    label: Annotated[str, Doc("the label it is to have; empty with `open`")]
    given: Annotated[str, Doc("the label that the data gave it then")]
    author: Annotated[str, Doc("who decided")]
    number: Annotated[int, Doc("of the decision, from 1; what comes next says which it saw")]
    made: Annotated[str, Doc("when, UTC, ISO 8601")]
    undone: Annotated[bool, Doc("whether it goes back to an earlier one")]


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
