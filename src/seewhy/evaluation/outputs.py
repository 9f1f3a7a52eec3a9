"""Types of the JSON that evaluation prints."""

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
    image: Annotated[str, Doc("file of the evaluation")]
    fitted_on: Annotated[str | None, Doc("file of the fit")]
    same_bytes: Annotated[bool, Doc("whether both are equal byte for byte")]
    agreement: Annotated[float | None, Doc("correlation of their details; `null` for equal bytes")]


class FittedOn(TypedDict):
    n_same_bytes: Annotated[Count, Doc("pictures that are equal files")]
    n_near: Annotated[Count, Doc("further near copies: saved again, scaled, cropped, mirrored or rotated")]
    n_compared: Annotated[Count, Doc("pictures of the fit with stored details, among which near copies are searched")]
    accuracy_without: Annotated[Share | None, Doc("accuracy on all other pictures; `null` if there are none")]
    pictures: Annotated[list[Picture], Doc("these pictures")]


class Expected(TypedDict):
    held_out_accuracy: Annotated[Share, Doc("accuracy if all pictures of an object are held out together")]
    held_out_interval: Annotated[Interval | None, Doc("its 95 % interval")]
    n_held_out: Annotated[Count, Doc("number of held-out pictures")]
    random_accuracy: Annotated[Share | None, Doc("accuracy for a random split")]
    expected_range: Annotated[Interval | None, Doc("accuracy to expect on another day")]


class PerClassRow(TypedDict):
    label: Annotated[str, Doc("the class")]
    n: Annotated[Count, Doc("pictures of the class")]
    precision: Annotated[Share, Doc("of the pictures given this class, the share that truly has it")]
    recall: Annotated[Share, Doc("of the pictures that truly have this class, the share found")]
    f1: Annotated[Share, Doc("harmonic mean of precision and recall")]


class Confusion(TypedDict):
    true: Annotated[str, Doc("true class")]
    predicted: Annotated[str, Doc("predicted class")]
    n: Annotated[Count, Doc("number of pictures")]
    examples: Annotated[list[str], Doc("up to 5 file names")]


class Unknown(TypedDict):
    n: Annotated[Count, Doc("pictures of no known class")]
    auroc: Annotated[Share | None, Doc("area under the ROC curve of these against labelled pictures")]
    auroc_probability: Annotated[Share | None, Doc("the same for the classifier's own probability")]
    found: Annotated[Share | None, Doc("share of these called unlike anything it knows")]
    sure: Annotated[Share | None, Doc("share of these called sure")]
    kept: Annotated[Share | None, Doc("share of labelled pictures not called unlike anything it knows")]


class Trust(TypedDict):
    by: Annotated[Literal["held-out pictures", "its own probability"], Doc("what the figures are based on")]
    level: Annotated[Share, Doc("the value of `--level`")]
    coverage: Annotated[Share, Doc("share of pictures whose true class is in the set of the decision")]
    coverage_interval: Annotated[Interval, Doc("95 % interval (Wilson)")]
    set_size: Annotated[float, Doc("mean number of classes in the set")]
    n_sure: Annotated[Count, Doc("pictures called sure")]
    sure_right: Annotated[Share | None, Doc("share of those that are right")]
    mean_probability: Annotated[Share | None, Doc("mean probability of being right; compare with `accuracy`")]
    auroc: Annotated[Share | None, Doc("area under the ROC curve of the doubt, for wrong against right decisions")]
    auroc_probability: Annotated[Share | None, Doc("the same for the classifier's own probability")]
    aurc: Annotated[Share, Doc("area under the curve of risk against coverage")]
    aurc_probability: Annotated[Share, Doc("the same for the classifier's own probability")]
    aurc_best: Annotated[Share, Doc("the same if every right decision came before every wrong one")]
    aurc_chance: Annotated[Share, Doc("the same in random order")]
    risk_coverage: Annotated[Rows, Doc("up to 50 points: `coverage` (share kept), `risk` (share wrong)")]
    unseen: Annotated[Unknowns | None, Doc("results on classes that were left out of a fit")]
    unknown: Annotated[Unknown | None, Doc("results on the pictures of `--unknown`")]


class ThanRandom(TypedDict):
    lead: Annotated[float, Doc("mean of insertion minus deletion, minus the same for the shuffled map")]
    interval: Annotated[list[float], Doc("95 % interval of `lead`, over resampled pictures")]
    verdict: Annotated[Literal["better", "worse", "not shown"], Doc("`better` or `worse` if the interval excludes 0")]
    sentence: Annotated[str, Doc("the same in words")]


class Outside(TypedDict):
    masks: Annotated[str, Doc("source of the masks")]
    n: Annotated[int, Doc("pictures measured")]
    share: Annotated[Share | None, Doc("mean share of the positive heat outside the object")]
    area: Annotated[Share | None, Doc("mean share of the picture outside the object: what chance gives")]
    beyond: Annotated[float | None, Doc("`share` minus `area`")]
    interval: Annotated[list[float] | None, Doc("95 % interval of `beyond`, over resampled pictures")]
    sentence: Annotated[str, Doc("the same in words")]


class Faithfulness(TypedDict):
    n: Annotated[Count, Doc("number of explained pictures")]
    n_zero: Annotated[Count, Doc("pictures on whose map nothing speaks for the class")]
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
    average_gain: NotRequired[Annotated[float, Doc("with `--faithfulness`; share of the possible gain behind the map")]]
    average_gain_random: NotRequired[Annotated[float, Doc("with `--faithfulness`; of a random map")]]
    road: NotRequired[Annotated[float, Doc("with `--faithfulness`")]]
    road_random: NotRequired[Annotated[float, Doc("with `--faithfulness`; of a random map")]]
    sparsity: NotRequired[Annotated[float, Doc("with `--faithfulness`; how concentrated the map is")]]
    sparsity_random: NotRequired[Annotated[float, Doc("with `--faithfulness`; of a random map")]]
    outside: NotRequired[Annotated[Outside, Doc("heat outside the objects")]]


class Like(TypedDict):
    held_out_precision: Annotated[Share, Doc("share of the neighbours shown that have the predicted class")]
    chance: Annotated[Share | None, Doc("the same for random neighbours, measured during the fit")]


class Words(TypedDict):
    accuracy: Annotated[Share, Doc("accuracy of the descriptions alone, on all pictures")]
    name_only: Annotated[Share, Doc("control: each class by its name only")]
    random_words: Annotated[Share, Doc("control: as many meaningless words, mean of 7 draws")]
    n: Annotated[Count, Doc("pictures")]


class EvaluateOutput(TypedDict):
    model: Annotated[Model, Doc("as in `explain`")]
    n: Annotated[Count, Doc("pictures judged")]
    accuracy: Annotated[Share, Doc("share of right decisions")]
    accuracy_interval: Annotated[Interval, Doc("95 % interval (Wilson)")]
    fitted_on: Annotated[FittedOn | None, Doc("which of these pictures the classifier was fitted on")]
    expected: Annotated[Expected | None, Doc("what the fit predicted")]
    per_class: Annotated[list[PerClassRow], Doc("figures of each class that occurs")]
    calibration_error: Annotated[Share, Doc("mean gap between confidence and accuracy over 15 bins; 0 is perfect")]
    reliability: Annotated[Rows, Doc("for each bin with pictures: mean `confidence`, `accuracy`, `n` pictures")]
    confusions: Annotated[list[Confusion], Doc("up to 20, most frequent first")]
    confusion_matrix: Annotated[dict[str, Any], Doc("`labels` that occur, and `counts`: rows true, columns predicted")]
    trust: Annotated[Trust, Doc("whether decisions keep their promises")]
    faithfulness: Annotated[Faithfulness | None, Doc("means over explained pictures; `null` with `--n-explained 0`")]
    like: Annotated[Like | None, Doc("`null` if the classifier has no pictures of yours")]
    words: Annotated[Words | None, Doc("`null` without descriptions")]
    notes: Annotated[list[str], Doc("notes on the data")]
    failures: Annotated[Failures, Doc("pictures that could not be read")]
    report: Annotated[str | None, Doc("path of the report, or `null` without `-o`")]


class Split(TypedDict):
    by: Annotated[Literal["looks", "given", "copies"], Doc("`looks` (by appearance), or `given` with `--group`")]
    threshold: Annotated[float | None, Doc("cosine from which two pictures count as the same object")]
    n_groups: Annotated[Count, Doc("number of objects")]
    unmeasured_classes: Annotated[list[str], Doc("classes without held-out pictures, because all show one object")]
    one_thing_classes: Annotated[list[str], Doc("classes that may show only one object, judged by appearance")]


@with_config({"extra": "allow"})
class FitOutput(TypedDict):
    """The JSON object that ``seewhy fit --json`` prints; a method adds figures of its own."""

    model: Annotated[str, Doc("the classifier's folder")]
    held_out_accuracy: Annotated[Share | None, Doc("accuracy on the held-out pictures")]
    held_out_interval: NotRequired[Annotated[Interval | None, Doc("its 95 % interval")]]
    expected_range: NotRequired[Annotated[Interval | None, Doc("accuracy to expect on another day")]]
    held_out_calibration_error: NotRequired[Annotated[Share | None, Doc("calibration error on the held-out pictures")]]
    n_held_out: Annotated[Count, Doc("number of held-out pictures")]
    random_accuracy: NotRequired[Annotated[Share | None, Doc("accuracy for a random split")]]
    split: NotRequired[Annotated[Split, Doc("how pictures were held out")]]
    n_pictures: Annotated[Count, Doc("pictures fitted on")]
    C: NotRequired[Annotated[float, Doc("with `linear`; the regularisation chosen, per picture")]]
    temperature: NotRequired[Annotated[float, Doc("divisor of the logits")]]
    measured_on: NotRequired[
        Annotated[Literal["a part of the pictures", "validation pictures"], Doc("the pictures measured on")]
    ]
    notes: Annotated[list[str], Doc("what the user should know about the data")]
    failures: Annotated[Failures, Doc("pictures that could not be read")]
