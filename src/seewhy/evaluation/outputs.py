"""The JSON that evaluation answers with, as types."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from ..explanation.outputs import Failures, Interval, Model
from ..explanation.prediction import Unknowns
from ..explanation.verdict import Level
from ..results import Count, Doc, Share

Rows = list[dict[str, Any]]


class Picture(TypedDict):
    image: Annotated[str, Doc("file of these pictures")]
    fitted_on: Annotated[str | None, Doc("file that the classifier was fitted on")]
    same_bytes: Annotated[bool, Doc("whether they are the same, byte for byte")]
    agreement: Annotated[float | None, Doc("correlation of their details; `null` for the same bytes")]


class FittedOn(TypedDict):
    n_same_bytes: Annotated[Count, Doc("pictures that are the same file")]
    n_near: Annotated[Count, Doc("further near copies: saved again, scaled, cropped, mirrored or rotated")]
    n_compared: Annotated[Count, Doc("fitted pictures with stored details, among which near copies are sought")]
    accuracy_without: Annotated[Share | None, Doc("accuracy on the others; `null` if there are none")]
    pictures: Annotated[list[Picture], Doc("these pictures")]


class Expected(TypedDict):
    held_out_accuracy: Annotated[Share, Doc("accuracy on pictures held out with all others of the same object")]
    held_out_interval: Annotated[Interval | None, Doc("its 95 % interval")]
    n_held_out: Annotated[Count, Doc("pictures")]
    random_accuracy: Annotated[Share | None, Doc("accuracy with a random split")]
    expected_range: Annotated[Interval | None, Doc("accuracy that may be expected on another day")]


class PerClassRow(TypedDict):
    label: Annotated[str, Doc("class")]
    n: Annotated[Count, Doc("its pictures")]
    precision: Annotated[Share, Doc("share of pictures predicted as this class that have it")]
    recall: Annotated[Share, Doc("share of pictures of this class that are predicted as it")]
    f1: Annotated[Share, Doc("harmonic mean of the two")]


class Confusion(TypedDict):
    true: Annotated[str, Doc("class")]
    predicted: Annotated[str, Doc("class")]
    n: Annotated[Count, Doc("pictures")]
    examples: Annotated[list[str], Doc("file names, 5 at most")]


class Unknown(TypedDict):
    n: Annotated[Count, Doc("pictures of no class")]
    auroc: Annotated[Share | None, Doc("area under the ROC curve, these against labelled pictures")]
    auroc_probability: Annotated[Share | None, Doc("the same by the classifier's own probability")]
    found: Annotated[Share | None, Doc("share of these called unlike anything it knows")]
    sure: Annotated[Share | None, Doc("share of these called sure")]
    kept: Annotated[Share | None, Doc("share of labelled pictures not called so")]


class Trust(TypedDict):
    by: Annotated[Literal["held-out pictures", "its own probability"], Doc("what the decisions rest on")]
    level: Annotated[Share, Doc("as `--level` asked")]
    coverage: Annotated[Share, Doc("share of decisions that include the true class")]
    coverage_interval: Annotated[Interval, Doc("95 % interval (Wilson)")]
    set_size: Annotated[float, Doc("mean number of classes in a decision")]
    n_sure: Annotated[Count, Doc("pictures called sure")]
    sure_right: Annotated[Share | None, Doc("share of those that are right")]
    mean_probability: Annotated[
        Share | None, Doc("mean probability of being right, or `null`; compare with `accuracy`")
    ]
    auroc: Annotated[
        Share | None, Doc("how well doubt separates wrong decisions from right ones (area under the ROC curve)")
    ]
    auroc_probability: Annotated[Share | None, Doc("the same by the classifier's own probability")]
    aurc: Annotated[Share, Doc("area under risk against coverage")]
    aurc_probability: Annotated[Share, Doc("the same by the classifier's own probability")]
    aurc_best: Annotated[Share, Doc("the same with a perfect order")]
    aurc_chance: Annotated[Share, Doc("the same in random order")]
    risk_coverage: Annotated[
        Rows, Doc("at most 50 points: `coverage`, the share kept, and its `risk`, the share wrong")
    ]
    unseen: Annotated[Unknowns | None, Doc("decisions on classes left out of the fit")]
    unknown: Annotated[Unknown | None, Doc("with `--unknown`")]


class ThanRandom(TypedDict):
    lead: Annotated[float, Doc("mean of insertion less deletion, less the same for the shuffled map")]
    interval: Annotated[list[float], Doc("of `lead`, at 95 %, over drawings of pictures")]
    verdict: Annotated[Literal["better", "worse", "not shown"], Doc("`better` or `worse` where 0 is outside the")]
    sentence: Annotated[str, Doc("the same in words")]


class Outside(TypedDict):
    masks: Annotated[str, Doc("who drew the masks")]
    n: Annotated[int, Doc("number of pictures measured")]
    share: Annotated[Share | None, Doc("mean share of the positive heat outside the object")]
    area: Annotated[Share | None, Doc("mean share of the view outside it, which is the share by chance")]
    beyond: Annotated[float | None, Doc("the first less the second")]
    interval: Annotated[list[float] | None, Doc("of `beyond`, at 95 %, over drawings of pictures")]
    sentence: Annotated[str, Doc("the same in words")]


class Faithfulness(TypedDict):
    n: Annotated[Count, Doc("explained pictures")]
    n_zero: Annotated[Count, Doc("pictures on which nothing speaks for the class")]
    method: Annotated[str, Doc("registered name")]
    deletion: Annotated[Share | None, Doc("as in `explain`; this and the next three `null` where every map is zero")]
    deletion_random: Annotated[Share | None, Doc("as in `explain`")]
    insertion: Annotated[Share | None, Doc("as in `explain`")]
    insertion_random: Annotated[Share | None, Doc("as in `explain`")]
    match: Annotated[float | None, Doc("as in `explain`; `null` where every map is zero")]
    match_centre: Annotated[float | None, Doc("as in `explain`")]
    than_random: Annotated[ThanRandom, Doc("whether maps are better than shuffled ones")]
    verdicts: Annotated[dict[Level, Count], Doc("pictures by verdict")]
    average_drop: NotRequired[Annotated[float, Doc("with `--faithfulness`")]]
    average_drop_random: NotRequired[Annotated[float, Doc("with `--faithfulness`; of a random map")]]
    average_increase: NotRequired[Annotated[float, Doc("with `--faithfulness`")]]
    average_increase_random: NotRequired[Annotated[float, Doc("with `--faithfulness`; of a random map")]]
    average_gain: NotRequired[Annotated[float, Doc("with `--faithfulness`; part of what it could gain behind the map")]]
    average_gain_random: NotRequired[Annotated[float, Doc("with `--faithfulness`; of a random map")]]
    road: NotRequired[Annotated[float, Doc("with `--faithfulness`")]]
    road_random: NotRequired[Annotated[float, Doc("with `--faithfulness`; of a random map")]]
    sparsity: NotRequired[Annotated[float, Doc("with `--faithfulness`; how few places the map is on")]]
    sparsity_random: NotRequired[Annotated[float, Doc("with `--faithfulness`; of a random map")]]
    outside: NotRequired[Annotated[Outside, Doc("heat outside the objects")]]


class Like(TypedDict):
    held_out_precision: Annotated[Share, Doc("part of the neighbours shown on the explained pictures that carry the")]
    chance: Annotated[Share | None, Doc("the same at random, as found while fitting")]


class Words(TypedDict):
    accuracy: Annotated[Share, Doc("accuracy of the descriptions alone, on all pictures")]
    name_only: Annotated[Share, Doc("control: class names alone")]
    random_words: Annotated[Share, Doc("control: as many meaningless words, mean of 7 draws")]
    n: Annotated[Count, Doc("pictures")]


class EvaluateOutput(TypedDict):
    model: Annotated[Model, Doc("as in `explain`")]
    n: Annotated[Count, Doc("pictures judged")]
    accuracy: Annotated[Share, Doc("share of pictures predicted correctly")]
    accuracy_interval: Annotated[Interval, Doc("95 % interval (Wilson)")]
    fitted_on: Annotated[FittedOn | None, Doc("pictures that the classifier was fitted on")]
    expected: Annotated[Expected | None, Doc("accuracy that fit reported")]
    per_class: Annotated[list[PerClassRow], Doc("classes in these pictures")]
    calibration_error: Annotated[Share, Doc("mean gap between confidence and accuracy over 15 bins; 0 is perfect")]
    reliability: Annotated[Rows, Doc("bins that hold a picture: mean `confidence`, `accuracy`, `n` pictures")]
    confusions: Annotated[list[Confusion], Doc("most frequent first, 20 at most")]
    confusion_matrix: Annotated[dict[str, Any], Doc("`labels` that occur, and `counts`: rows true, columns predicted")]
    trust: Annotated[Trust, Doc("whether decisions keep their promise")]
    faithfulness: Annotated[Faithfulness | None, Doc("means over explained pictures, or `null` with `--n-explained 0`")]
    like: Annotated[Like | None, Doc("`null` without pictures of the user's")]
    words: Annotated[Words | None, Doc("`null` without descriptions")]
    notes: Annotated[list[str], Doc("notes on the data")]
    failures: Annotated[Failures, Doc("pictures that could not be read")]
    report: Annotated[str | None, Doc("path of the report, or `null` without `-o`")]


class Split(TypedDict):
    by: Annotated[Literal["looks", "given", "copies"], Doc("by `looks`, as `given` with `--group`")]
    threshold: Annotated[float | None, Doc("cosine from which two pictures count as the same thing")]
    n_groups: Annotated[Count, Doc("things")]
    unmeasured_classes: Annotated[list[str], Doc("classes with no picture held out, since all are of one thing")]
    one_thing_classes: Annotated[list[str], Doc("classes that may show one thing only, as far as looks tell")]


@with_config({"extra": "allow"})
class FitOutput(TypedDict):
    """The object of seewhy fit --json; a method adds figures of its own."""

    model: Annotated[str, Doc("the classifier's folder")]
    held_out_accuracy: Annotated[Share | None, Doc("on the held-out pictures while choosing")]
    held_out_interval: NotRequired[Annotated[Interval | None, Doc("its 95 % interval")]]
    expected_range: NotRequired[Annotated[Interval | None, Doc("accuracy that may be expected on another day")]]
    held_out_calibration_error: NotRequired[Annotated[Share | None, Doc("of the probabilities on the held-out")]]
    n_held_out: Annotated[Count, Doc("pictures")]
    random_accuracy: NotRequired[Annotated[Share | None, Doc("the accuracy that a part drawn at random would have")]]
    split: NotRequired[Annotated[Split, Doc("how those held out were kept apart from the others")]]
    n_pictures: Annotated[Count, Doc("pictures fitted on")]
    C: NotRequired[Annotated[float, Doc("with `linear`; the regularisation chosen, for a picture")]]
    temperature: NotRequired[Annotated[float, Doc("the logits are divided by it")]]
    measured_on: NotRequired[Annotated[Literal["a part of the pictures", "validation pictures"], Doc("the pictures")]]
    notes: Annotated[list[str], Doc("what the user should know about the data")]
    failures: Annotated[Failures, Doc("pictures that could not be read")]
