"""Types of the JSON output of ``seewhy evaluate`` and ``seewhy fit``."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from ..classifiers.multi_output import LabelMeasure
from ..explanation.outputs import Failures, Interval, Model
from ..explanation.prediction import Unknowns
from ..explanation.verdict import Level
from ..results import Count, Doc, Share
from .multi_output import EvaluatedLabel

Rows = list[dict[str, Any]]


class Picture(TypedDict):
    image: Annotated[str, Doc("file of the evaluated picture")]
    fitted_on: Annotated[str | None, Doc("file of the training picture")]
    same_bytes: Annotated[bool, Doc("whether both are equal byte for byte")]
    agreement: Annotated[float | None, Doc("correlation of the two thumbnails; `null` for equal bytes")]


class FittedOn(TypedDict):
    n_same_bytes: Annotated[Count, Doc("pictures that are equal files")]
    n_near: Annotated[Count, Doc("other copies: saved again, scaled, cropped, mirrored or rotated")]
    n_compared: Annotated[Count, Doc("training pictures with stored thumbnails, in which near copies are searched")]
    accuracy_without: Annotated[Share | None, Doc("accuracy on all other pictures; `null` if there are none")]
    pictures: Annotated[list[Picture], Doc("the copies")]


class Expected(TypedDict):
    held_out_accuracy: Annotated[Share, Doc("accuracy with all pictures of an object in the same split")]
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
    n: Annotated[Count, Doc("number of pictures of unknown classes")]
    auroc: Annotated[
        Share | None,
        Doc("area under the ROC curve of the doubt, for pictures of unknown classes against labelled pictures"),
    ]
    auroc_probability: Annotated[Share | None, Doc("the same for the classifier's own probability")]
    found: Annotated[Share | None, Doc("share of the pictures of unknown classes that is rejected as unknown")]
    sure: Annotated[Share | None, Doc("share of the pictures of unknown classes that is called sure")]
    kept: Annotated[Share | None, Doc("share of labelled pictures that is not called unknown")]


class Trust(TypedDict):
    by: Annotated[Literal["held-out pictures", "its own probability"], Doc("source of the doubt")]
    level: Annotated[Share, Doc("the value of `--level`")]
    coverage: Annotated[Share, Doc("share of pictures whose true class is in the set of the decision")]
    coverage_interval: Annotated[Interval, Doc("95 % interval (Wilson)")]
    set_size: Annotated[float, Doc("mean number of classes in the set")]
    n_sure: Annotated[Count, Doc("pictures called sure")]
    sure_right: Annotated[Share | None, Doc("accuracy on pictures called sure")]
    mean_probability: Annotated[
        Share | None, Doc("mean predicted probability of a right decision; compare with `accuracy`")
    ]
    auroc: Annotated[Share | None, Doc("area under the ROC curve of the doubt as a detector of wrong decisions")]
    auroc_probability: Annotated[Share | None, Doc("the same for the classifier's own probability")]
    aurc: Annotated[Share, Doc("area under the risk-coverage curve")]
    aurc_probability: Annotated[Share, Doc("the same for the classifier's own probability")]
    aurc_best: Annotated[Share, Doc("the same for the best possible order")]
    aurc_chance: Annotated[Share, Doc("the same in random order")]
    risk_coverage: Annotated[
        Rows, Doc("up to 50 points: `coverage` (share of decisions kept), `risk` (share of these that is wrong)")
    ]
    unseen: Annotated[Unknowns | None, Doc("results on classes that were left out of a fit")]
    unknown: Annotated[Unknown | None, Doc("results on the pictures of `--unknown`")]


class ThanRandom(TypedDict):
    lead: Annotated[float, Doc("mean of insertion minus deletion, minus the same mean for shuffled maps")]
    interval: Annotated[list[float], Doc("95 % interval of `lead`, over resampled pictures")]
    verdict: Annotated[Literal["better", "worse", "not shown"], Doc("`better` or `worse` if the interval excludes 0")]
    sentence: Annotated[str, Doc("the same in words")]


class Outside(TypedDict):
    masks: Annotated[str, Doc("source of the masks")]
    n: Annotated[int, Doc("pictures measured")]
    share: Annotated[Share | None, Doc("mean share of the positive heat outside the object")]
    area: Annotated[Share | None, Doc("mean share of the picture outside the object, which a uniform map would get")]
    beyond: Annotated[float | None, Doc("`share` minus `area`")]
    interval: Annotated[list[float] | None, Doc("95 % interval of `beyond`, over resampled pictures")]
    sentence: Annotated[str, Doc("the same in words")]


class Faithfulness(TypedDict):
    n: Annotated[Count, Doc("number of explained pictures")]
    n_zero: Annotated[Count, Doc("pictures whose map is zero everywhere")]
    method: Annotated[str, Doc("registered name")]
    deletion: Annotated[Share | None, Doc("as in `explain`; `null` if every map is zero; so are the next three keys")]
    deletion_random: Annotated[Share | None, Doc("as in `explain`")]
    insertion: Annotated[Share | None, Doc("as in `explain`")]
    insertion_random: Annotated[Share | None, Doc("as in `explain`")]
    match: Annotated[float | None, Doc("as in `explain`; `null` if every map is zero")]
    match_centre: Annotated[float | None, Doc("as in `explain`")]
    than_random: Annotated[ThanRandom, Doc("whether maps are better than shuffled ones")]
    verdicts: Annotated[dict[Level, Count], Doc("pictures by verdict")]
    average_drop: NotRequired[Annotated[float, Doc("with `--faithfulness`")]]
    average_drop_random: NotRequired[Annotated[float, Doc("with `--faithfulness`; of a random map")]]
    average_increase: NotRequired[Annotated[float, Doc("with `--faithfulness`")]]
    average_increase_random: NotRequired[Annotated[float, Doc("with `--faithfulness`; of a random map")]]
    average_gain: NotRequired[Annotated[float, Doc("with `--faithfulness`")]]
    average_gain_random: NotRequired[Annotated[float, Doc("with `--faithfulness`; of a random map")]]
    road: NotRequired[Annotated[float, Doc("with `--faithfulness`")]]
    road_random: NotRequired[Annotated[float, Doc("with `--faithfulness`; of a random map")]]
    sparsity: NotRequired[Annotated[float, Doc("with `--faithfulness`; how concentrated the map is")]]
    sparsity_random: NotRequired[Annotated[float, Doc("with `--faithfulness`; of a random map")]]
    outside: NotRequired[Annotated[Outside, Doc("heat outside the objects")]]


class Like(TypedDict):
    held_out_precision: Annotated[Share, Doc("share of nearest neighbours with the predicted class")]
    chance: Annotated[Share | None, Doc("the same for random pictures, measured during the fit")]


class Words(TypedDict):
    accuracy: Annotated[Share, Doc("accuracy of the descriptions alone, on all pictures")]
    name_only: Annotated[Share, Doc("accuracy of the class names only, as a control")]
    random_words: Annotated[Share, Doc("mean accuracy of random words over 7 draws, as a control")]
    n: Annotated[Count, Doc("pictures")]


class EvaluateOutput(TypedDict):
    model: Annotated[Model, Doc("as in `explain`")]
    n: Annotated[Count, Doc("number of evaluated pictures")]
    accuracy: Annotated[Share, Doc("share of right decisions")]
    accuracy_interval: Annotated[Interval, Doc("95 % interval (Wilson)")]
    fitted_on: Annotated[FittedOn | None, Doc("which of these pictures the classifier was fitted on")]
    expected: Annotated[Expected | None, Doc("accuracy measured during the fit")]
    per_class: Annotated[list[PerClassRow], Doc("metrics of each class that occurs")]
    calibration_error: Annotated[Share, Doc("mean gap between confidence and accuracy over 15 bins; 0 is perfect")]
    reliability: Annotated[Rows, Doc("for each bin with pictures: mean `confidence`, `accuracy`, `n` pictures")]
    confusions: Annotated[list[Confusion], Doc("up to 20, most frequent first")]
    confusion_matrix: Annotated[dict[str, Any], Doc("`labels` that occur, and `counts`: rows true, columns predicted")]
    trust: Annotated[Trust, Doc("calibration of decisions and of doubt")]
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


class WeakClass(TypedDict):
    label: Annotated[str, Doc("a class")]
    n_right: Annotated[Count, Doc("number of its held-out pictures that were predicted correctly")]
    n: Annotated[Count, Doc("number of its held-out pictures")]


class FitAnswersOutput(TypedDict):
    """JSON output of ``seewhy fit --task labels --json``, and with ``--questions``."""

    model: Annotated[str, Doc("the model's folder")]
    kind: Annotated[Literal["labels", "questions"], Doc("what the decisions are about")]
    encoder: Annotated[str, Doc("the encoder")]
    tuned: Annotated[bool, Doc("whether the encoder was trained for these decisions")]
    left_out: Annotated[dict[str, str], Doc("labels or questions that could not be learnt → why")]
    aim: NotRequired[Annotated[str, Doc("what the thresholds of the labels were chosen for")]]
    mean_average_precision: NotRequired[Annotated[Share | None, Doc("mean over the labels, on held-out pictures")]]
    labels: NotRequired[Annotated[list[LabelMeasure], Doc("figures of each label, on held-out pictures")]]
    questions: NotRequired[Annotated[Rows, Doc("figures of each question, as `fit` gives them, with its `classes`")]]
    failures: Annotated[Failures, Doc("pictures that could not be read")]


class EvaluatedQuestion(TypedDict):
    question: Annotated[str, Doc("the question")]
    n: Annotated[Count, Doc("number of pictures whose answer is known")]
    accuracy: Annotated[Share, Doc("share of right answers")]
    accuracy_interval: Annotated[Interval, Doc("its 95 % interval")]
    held_out_accuracy: Annotated[Share | None, Doc("accuracy measured by the fit")]
    per_class: Annotated[list[PerClassRow], Doc("precision and recall of each answer")]
    confusions: Annotated[list[Confusion], Doc("the most frequent confusions")]
    confusion_matrix: Annotated[dict[str, Any], Doc("as `evaluate` gives it")]


class EvaluateAnswersOutput(TypedDict):
    """JSON output of ``seewhy evaluate --json`` for a model that makes several decisions."""

    kind: Annotated[Literal["labels", "questions"], Doc("what the decisions are about")]
    model: Annotated[Model, Doc("the model")]
    n: Annotated[Count, Doc("number of pictures")]
    level: NotRequired[Annotated[Share, Doc("promised share of `covered`")]]
    mean_average_precision: NotRequired[Annotated[Share | None, Doc("mean over the labels")]]
    mean_average_precision_interval: NotRequired[Annotated[Interval | None, Doc("its 95 % interval")]]
    macro_f1: NotRequired[Annotated[Share | None, Doc("mean F1 over the labels")]]
    labels: NotRequired[Annotated[list[EvaluatedLabel], Doc("figures of each label")]]
    all_right: NotRequired[Annotated[Share, Doc("share of pictures of which every known answer is right")]]
    questions: NotRequired[Annotated[list[EvaluatedQuestion], Doc("figures of each question")]]
    notes: Annotated[list[str], Doc("notes on the data")]
    failures: Annotated[Failures, Doc("pictures that could not be read")]
    report: NotRequired[Annotated[str | None, Doc("the page, with `-o`")]]


@with_config({"extra": "allow"})
class FitOutput(TypedDict):
    """JSON output of ``seewhy fit --json``; each method adds more fields."""

    model: Annotated[str, Doc("the classifier's folder")]
    held_out_accuracy: Annotated[Share | None, Doc("accuracy on the held-out pictures")]
    held_out_interval: NotRequired[Annotated[Interval | None, Doc("its 95 % interval")]]
    expected_range: NotRequired[Annotated[Interval | None, Doc("accuracy to expect on another day")]]
    held_out_calibration_error: NotRequired[Annotated[Share | None, Doc("calibration error on the held-out pictures")]]
    weak_classes: NotRequired[
        Annotated[list[WeakClass], Doc("classes predicted correctly on less than half of their held-out pictures")]
    ]
    n_held_out: Annotated[Count, Doc("number of held-out pictures")]
    random_accuracy: NotRequired[Annotated[Share | None, Doc("accuracy for a random split")]]
    random_interval: NotRequired[Annotated[Interval | None, Doc("95 % interval of `random_accuracy`")]]
    split: NotRequired[Annotated[Split, Doc("how pictures were held out")]]
    unmeasured: Annotated[str | None, Doc("why decisions will not be measured, and what to add; `null` if they are")]
    n_pictures: Annotated[Count, Doc("number of training pictures")]
    C: NotRequired[Annotated[float, Doc("with `linear`; the chosen inverse regularisation strength, per picture")]]
    temperature: NotRequired[Annotated[float, Doc("temperature by which logits are divided")]]
    measured_on: NotRequired[
        Annotated[Literal["a part of the pictures", "validation pictures"], Doc("source of the held-out pictures")]
    ]
    notes: Annotated[list[str], Doc("notes on the data")]
    failures: Annotated[Failures, Doc("pictures that could not be read")]
