"""The JSON that studies answers with, as types."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from typing_extensions import TypedDict

from ..explanation.outputs import Difference, Failures, Interval, Model, Range, WordsCompared
from ..results import Count, Doc, Share


class StudyEditWordsOutput(WordsCompared):
    """The object of seewhy study edit-words --json."""

    model: Annotated[Model, Doc("as in `explain`")]
    notes: Annotated[list[str], Doc("what the user should know")]
    failures: Annotated[Failures, Doc("pictures that could not be read")]
    report: Annotated[str | None, Doc("path of the page, or `null` without `-o`")]


class RankingRow(TypedDict):
    method: Annotated[str, Doc("name")]
    won: Annotated[Count, Doc("real differences won against other methods")]
    lost: Annotated[Count, Doc("real differences lost")]
    compared: Annotated[Count, Doc("differences there are")]
    over_random: Annotated[list[str], Doc("metrics on which it really beats the random map")]
    under_random: Annotated[list[str], Doc("metrics on which the random map really beats it")]
    judged: Annotated[list[str], Doc("metrics on which it was compared with the random map")]


class Row(TypedDict):
    method: Annotated[str, Doc("name")]
    control: Annotated[bool, Doc("whether it is a control")]
    n: Annotated[Count, Doc("pictures")]
    value: Annotated[float, Doc("in the metric's unit")]
    interval: Annotated[Range, Doc("95 %, of the pictures drawn anew")]
    mean_map: NotRequired[Annotated[float, Doc("of the metrics that have it, the value of the mean map")]]


class Difference2(TypedDict):
    a: Annotated[str, Doc("one")]
    b: Annotated[str, Doc("the other")]
    control: Annotated[bool, Doc("whether the other is a control")]
    n: Annotated[Count, Doc("pictures that both were measured on")]
    difference: Annotated[float, Doc("`a` less `b`")]
    interval: Annotated[Range, Doc("95 %")]
    real: Annotated[bool, Doc("whether the interval leaves out 0, on ten pictures or more")]
    better: Annotated[str | None, Doc("of the two, where the difference is real")]


class Metric(TypedDict):
    metric: Annotated[str, Doc("its name here")]
    family: Annotated[str, Doc("what it measures")]
    higher_is_better: Annotated[bool, Doc("or lower")]
    n: Annotated[Count, Doc("pictures")]
    rows: Annotated[list[Row], Doc("a line for each method and control")]
    differences: Annotated[list[Difference2], Doc("every pair with a method in it")]
    settings: Annotated[dict[str, Any], Doc("the metric's")]


class StudyFaithfulnessOutput(TypedDict):
    """The object of seewhy study faithfulness --json."""

    study: Literal["faithfulness"]
    model: Annotated[Model, Doc("as in `explain`")]
    n: Annotated[Count, Doc("pictures")]
    methods: Annotated[list[str], Doc("in the order shown")]
    controls: Annotated[list[str], Doc("maps that know nothing of the picture or the class")]
    sentence: Annotated[str, Doc("the answer")]
    ranking: Annotated[list[RankingRow], Doc("best first")]
    same: Annotated[list[list[str]], Doc("methods whose maps were the same, in groups")]
    metrics: Annotated[list[Metric], Doc("a table for each metric")]
    fills: Annotated[dict[str, float] | None, Doc("two fills of deletion → Kendall's tau of the methods' order")]
    settings: Annotated[dict[str, Any], Doc("of the study")]
    notes: Annotated[list[str], Doc("what the user should know")]
    failures: Annotated[Failures, Doc("pictures that could not be read")]
    report: Annotated[str | None, Doc("path of the page, or `null` without `-o`")]


class Difference3(TypedDict):
    value: Annotated[float, Doc("mean over pictures")]
    interval: Annotated[list[float], Doc("Student's, not corrected")]


class Accuracy(TypedDict):
    value: Annotated[Share, Doc("on these pictures")]
    interval: Annotated[list[float], Doc("bootstrap over pictures")]
    change: Annotated[float, Doc("less that of the pictures as they are")]
    change_interval: Annotated[list[float], Doc("bootstrap over pictures, the same for both")]


class Version(TypedDict):
    version: Literal["original", "same class", "other classes", "blurred", "background alone", "object alone"]
    accuracy: Annotated[Accuracy, Doc("part that is right")]
    score: Annotated[Accuracy, Doc("mean probability of the true class")]


class Row2(TypedDict):
    """Of some pictures."""

    label: Annotated[str, Doc("class, or `all pictures`")]
    n: Annotated[Count, Doc("pictures")]
    difference: Annotated[Difference3, Doc("score on backgrounds of the same class")]
    versions: Annotated[list[Version], Doc("what becomes of the picture, in that order")]
    p_leans: Annotated[Share, Doc("of any difference above 0, one-sided, corrected over all rows (Holm)")]
    p_leans_not: Annotated[Share, Doc("of a difference of 0.05, one-sided, corrected likewise")]
    verdict: Annotated[Literal["yes", "no", "undecided"], Doc("whether it leans on the background")]


class Check(TypedDict):
    value: Annotated[float, Doc("mean over pictures")]
    interval: Annotated[list[float], Doc("Student's")]
    p: Annotated[Share, Doc("of any, one-sided")]
    hit: Annotated[bool, Doc("whether p is small")]


class Boxes(TypedDict):
    n: Annotated[Count, Doc("pictures with a box")]
    covered: Annotated[Share, Doc("part of the box that the mask covers")]
    within: Annotated[Share, Doc("part of the mask that lies within")]


class Masks(TypedDict):
    source: Annotated[str, Doc("who drew them")]
    by_hand: Annotated[bool, Doc("whether people did")]
    area: Annotated[Share, Doc("part of the view that they cover")]
    check: Annotated[Check, Doc("by how much more the score falls when the object is filled than when as much")]
    boxes: Annotated[Boxes, Doc("the objects' boxes, where they are known, else `null`")]


class LeftOutRow(TypedDict):
    image: Annotated[str, Doc("file name as given")]
    error: Annotated[str, Doc("why")]


class Settings(TypedDict):
    n_rounds: Annotated[int, Doc("backgrounds of each kind that an object was laid on")]
    n_per_class: Annotated[int | None, Doc("pictures of a class at most, or `null`")]
    level: Annotated[Share, Doc("of intervals, and 1 less what p must be below")]
    n_draws: Annotated[int, Doc("resampled sets of pictures")]
    seed: Annotated[int, Doc("of pictures, backgrounds, places and draws")]


class StudyBackgroundOutput(TypedDict):
    """The object of seewhy study background --json."""

    study: Literal["background"]
    sentence: Annotated[str, Doc("the answer")]
    n: Annotated[Count, Doc("pictures whose object is known")]
    verdict: Annotated[Literal["yes", "no", "undecided"], Doc("yes where any row says so")]
    all: Annotated[Row2, Doc("all pictures")]
    classes: Annotated[list[Row2], Doc("each class")]
    masks: Annotated[Masks, Doc("whose masks, and how good")]
    rule: Annotated[str, Doc("what makes a verdict")]
    left_out: Annotated[list[LeftOutRow], Doc("pictures without a usable mask")]
    classes_left_out: Annotated[list[str], Doc("classes with one usable picture")]
    settings: Annotated[Settings, Doc("how it was asked")]
    model: Annotated[Model, Doc("as in `explain`")]
    notes: Annotated[list[str], Doc("what the user should know")]
    failures: Annotated[Failures, Doc("pictures that could not be read")]
    report: Annotated[str | None, Doc("path of the page, or `null` without `-o`")]


class Arm(TypedDict):
    name: Annotated[str, Doc("for tables")]
    group: Annotated[Literal["with names", "without names", "chosen", "pictures"], Doc("what is tried")]
    draws: Annotated[Count | None, Doc("it is averaged over; `null` for what is not drawn")]
    value: Annotated[Share, Doc("accuracy")]
    interval: Annotated[Interval, Doc("95 %")]
    best: Annotated[Share, Doc("accuracy of the best draw")]
    oracle: NotRequired[Annotated[Share, Doc("accuracy at the best weight on the very pictures")]]
    less_names: NotRequired[Annotated[Difference, Doc("paired difference from the names")]]
    less_descriptions: NotRequired[Annotated[Difference, Doc("paired difference from the descriptions")]]


class Curves(TypedDict):
    weights: Annotated[list[float], Doc("of the name")]
    arms: Annotated[dict[str, list[Share]], Doc("accuracy at each weight, for every arm that has one")]


class Model2(TypedDict):
    encoder: Annotated[str, Doc("name")]
    fingerprint: Annotated[str, Doc("first 12 digits of the digest of weights and preprocessing")]


class StudyDescriptionSemanticsOutput(TypedDict):
    """The object of seewhy study description-semantics --json."""

    study: Literal["description-semantics"]
    sentence: Annotated[str, Doc("the answer")]
    n: Annotated[Count, Doc("pictures")]
    n_classes: Annotated[Count, Doc("classes")]
    n_texts: Annotated[Count, Doc("texts")]
    chance: Annotated[Share, Doc("one by the number of classes")]
    luck: Annotated[Share, Doc("how often lists dealt out to the classes at random do as well as the descriptions")]
    arms: Annotated[list[Arm], Doc("ways to decide")]
    curves: Annotated[Curves, Doc("accuracy by the weight of the name")]
    flaws: Annotated[list[str], Doc("what is wrong with the texts whatever the pictures")]
    model: Annotated[Model2, Doc("what was asked")]
    settings: Annotated[dict[str, Any], Doc("of the study")]
    notes: Annotated[list[str], Doc("what the user should know")]
    failures: Annotated[Failures, Doc("pictures that could not be read")]
    report: Annotated[str | None, Doc("path of the page, or `null` without `-o`")]


class Figure(TypedDict):
    """A number with its interval."""

    value: Annotated[float, Doc("the number")]
    interval: Annotated[Range, Doc("95 %, of the test pictures drawn anew")]


class Encoder(TypedDict):
    encoder: Annotated[str, Doc("name")]
    fingerprint: Annotated[str, Doc("first 12 digits of the digest of weights and preprocessing")]
    width: Annotated[Count, Doc("features")]
    accuracy: Annotated[Figure, Doc("of a linear layer on all features")]
    neighbours: Annotated[Share, Doc("accuracy of the ten nearest training pictures on those to choose on")]
    below_floor: Annotated[bool, Doc("whether it is set aside")]


class Point(TypedDict):
    sparsity: Annotated[Share, Doc("part left out")]
    kept: Annotated[Count, Doc("concepts of each picture")]
    used: Annotated[Count, Doc("different concepts that any test picture kept; of the first draw")]
    accuracy: Annotated[Figure, Doc("of a linear layer on the concepts kept")]
    arr: Annotated[Figure, Doc("accuracy retained: that by the accuracy of all features; may be above 1")]


class Row3(TypedDict):
    encoder: Annotated[str, Doc("name")]
    library: Annotated[str, Doc("where concepts come from")]
    words_of: Annotated[str | None, Doc("encoder whose words they are; `null` for other concepts")]
    n_concepts: Annotated[Count, Doc("in the library")]
    draws: Annotated[Count, Doc("averaged")]
    iis: Annotated[Figure, Doc("the score: area under `arr` over the sparsities; 0.98 is to lose nothing")]
    normalised: Annotated[Figure, Doc("the score by the range of the sparsities; 1 is to lose nothing")]
    area: Annotated[Figure, Doc("mean of the accuracies over the sparsities, without the denominator")]
    points: Annotated[list[Point], Doc("at each sparsity")]
    less_random: NotRequired[Annotated[Difference, Doc("paired difference of the score from that of random")]]


Correlation = TypedDict(
    "Correlation",
    {
        "library": Annotated[str, Doc("where concepts come from")],
        "of": Annotated[Literal["iis", "area"], Doc("one number")],
        "with": Annotated[Literal["accuracy", "neighbours"], Doc("the other")],
        "given": Annotated[Literal["accuracy", "iis of random", None], Doc("what is held")],
        "n": Annotated[Count, Doc("encoders")],
        "rho": Annotated[float | None, Doc("`null` where it is not defined")],
        "interval": Annotated[Range | None, Doc("95 %, of the encoders drawn anew")],
    },
)


class StudyInterpretabilityOutput(TypedDict):
    """The object of seewhy study interpretability --json."""

    study: Literal["interpretability"]
    sentence: Annotated[str, Doc("the answer")]
    n: Annotated[Count, Doc("test pictures")]
    n_train: Annotated[Count, Doc("pictures trained on")]
    n_selection: Annotated[Count, Doc("pictures that learning rate and epoch were chosen on")]
    n_classes: Annotated[Count, Doc("classes")]
    chance: Annotated[Share, Doc("one by the number of classes")]
    floor: Annotated[Share, Doc("accuracy of all features below which an encoder is set aside")]
    sparsities: Annotated[list[Share], Doc("parts of the concepts left out")]
    encoders: Annotated[list[Encoder], Doc("compared")]
    rows: Annotated[list[Row3], Doc("every encoder with every library")]
    correlations: Annotated[list[Correlation], Doc("Spearman's rho over the encoders above the floor")]
    settings: Annotated[dict[str, Any], Doc("of the study")]
    notes: Annotated[list[str], Doc("what the user should know")]
    failures: Annotated[Failures, Doc("pictures that could not be read")]
    report: Annotated[str | None, Doc("path of the page, or `null` without `-o`")]
