"""JSON types of boxes and masks."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from typing_extensions import TypedDict

from ..explanation.outputs import FailureOutput, Interval, Range
from ..results import Count, Doc, Share
from .regions import Detection, Segment

Drawn = Annotated[tuple[float, float] | None, Doc("95 % bootstrap interval over pictures")]
Predicted = Annotated[
    tuple[float, float] | None, Doc("95 % prediction interval for a new set with the same number of pictures")
]


class BoxFigures(TypedDict):
    ap: Annotated[float | None, Doc("average precision, mean over IoU thresholds from .50 to .95")]
    ap_interval: Drawn
    ap50: Annotated[float | None, Doc("average precision at an IoU threshold of .50")]
    ap50_interval: Drawn


class BoxGroup(BoxFigures):
    name: Annotated[str, Doc("base or novel")]
    n_classes: Annotated[Count, Doc("classes in the group")]


class BoxClass(BoxFigures):
    label: Annotated[str, Doc("the class")]
    n: Annotated[Count, Doc("number of boxes of the class")]
    novel: Annotated[bool, Doc("whether the class was named as novel")]
    precision: Annotated[list[float | None], Doc("precision at recalls 0, .01, …, 1, at an IoU threshold of .50")]


class BeatenControl(TypedDict):
    name: Annotated[str, Doc("name of the control")]
    ap50_best: Annotated[float | None, Doc("`ap50` of its best random draw")]
    real: Annotated[bool, Doc("whether the detector is significantly better")]


class BoxControl(BeatenControl):
    n_draws: Annotated[Count, Doc("number of random draws")]
    ap: Annotated[float | None, Doc("mean of `ap` over draws")]
    ap50: Annotated[float | None, Doc("mean of `ap50` over draws")]
    any_name: Annotated[float | None, Doc("AP50 of the first draw, regardless of class names")]
    above_best: Annotated[float | None, Doc("AP50 of the detector minus AP50 of the control's best draw")]
    above_best_interval: Drawn


class BoxConfusion(TypedDict):
    least: Annotated[float, Doc("lowest score of a box in the table")]
    labels: Annotated[list[str], Doc("labels of rows and columns; the last means no box")]
    table: Annotated[list[list[int]], Doc("rows are true boxes, columns detected ones")]


class EvaluateBoxesOutput(BoxFigures):
    """The JSON object of ``seewhy evaluate --json`` on pictures with boxes."""

    n_pictures: Annotated[Count, Doc("number of pictures")]
    n_boxes: Annotated[Count, Doc("number of true boxes, without ignored boxes")]
    n_found: Annotated[Count, Doc("number of predicted boxes")]
    classes: Annotated[list[str], Doc("classes of the data")]
    any_name: Annotated[BoxFigures, Doc("the same figures, regardless of class names")]
    groups: Annotated[list[BoxGroup], Doc("figures of base and novel classes, if novel classes were named")]
    per_class: Annotated[list[BoxClass], Doc("figures of each class")]
    controls: Annotated[list[BoxControl], Doc("results of the controls")]
    confusion: Annotated[BoxConfusion, Doc("confusion between classes")]
    n_draws: Annotated[Count, Doc("number of bootstrap resamples")]
    notes: Annotated[list[str], Doc("notes for the user")]
    report: NotRequired[Annotated[str | None, Doc("the HTML page")]]


class MaskClass(TypedDict):
    label: Annotated[str, Doc("the class")]
    iou: Annotated[float | None, Doc("intersection over union; `null` if no picture has a pixel of the class")]
    interval: Annotated[Interval | None, Doc("95 % bootstrap interval over pictures, or `null`")]
    share: Annotated[Share, Doc("share of the labelled pixels")]
    n_pictures: Annotated[Count, Doc("number of pictures with the class")]


class MaskRow(TypedDict):
    name: Annotated[str, Doc("name of the method or control")]
    what: Annotated[str, Doc("a description of it")]
    control: Annotated[bool, Doc("whether it is a control, which the model should exceed")]
    miou: Annotated[Share, Doc("as above")]
    interval: Annotated[Interval, Doc("95 % bootstrap interval over pictures")]
    difference: Annotated[float | None, Doc("model minus this row; `null` for the model")]
    difference_interval: Annotated[Range | None, Doc("95 % paired bootstrap interval of the difference, or `null`")]
    real: Annotated[bool | None, Doc("whether that interval excludes 0, or `null`")]


class MasksOutput(TypedDict):
    """The JSON object of ``seewhy evaluate --json`` on pictures with masks."""

    method: Annotated[str, Doc("registered name of the segmenter")]
    encoder: Annotated[str, Doc("the encoder")]
    fingerprint: Annotated[str, Doc("fingerprint of the encoder")]
    input: Annotated[list[int], Doc("height and width of the network's input")]
    n: Annotated[Count, Doc("number of pictures")]
    miou: Annotated[Share, Doc("mean intersection over union of the classes that occur")]
    interval: Annotated[Interval, Doc("95 % bootstrap interval over pictures")]
    accuracy: Annotated[Share, Doc("pixel accuracy")]
    above_shuffled: Annotated[float | None, Doc("`miou` divided by that of the best draw of shuffled names")]
    classes: Annotated[list[MaskClass], Doc("figures of each class, in the segmenter's order")]
    rows: Annotated[list[MaskRow], Doc("the model, its controls, and the best possible masks")]
    notes: Annotated[list[str], Doc("notes for the user")]
    failures: Annotated[list[FailureOutput], Doc("pictures that could not be used")]
    report: NotRequired[Annotated[str | None, Doc("the HTML page, or `null`")]]


class CalibratedClass(TypedDict):
    label: Annotated[str, Doc("the class")]
    n: Annotated[Count, Doc("number of boxes of the class")]
    threshold: Annotated[Share, Doc("score threshold of the class")]
    own: Annotated[
        bool, Doc("whether the threshold is of this class; with too few boxes, it is of all classes together")
    ]
    promised: Annotated[bool | None, Doc("whether the requested precision can be expected on new pictures")]
    precision: Annotated[Share | None, Doc("cross-validated precision")]
    precision_interval: Predicted
    recall: Annotated[Share | None, Doc("cross-validated recall")]
    recall_interval: Predicted
    ap50: Annotated[Share | None, Doc("cross-validated AP50 of the class; `null` with too few boxes")]


class Calibration(TypedDict):
    n_pictures: Annotated[Count, Doc("number of training pictures")]
    n_folds: Annotated[int, Doc("number of folds")]
    fewest: Annotated[int, Doc("smallest number of boxes for the figures of a class")]
    precision: Annotated[float | None, Doc("requested precision; `null` to maximise F1")]
    classes: Annotated[list[CalibratedClass], Doc("the classes, in the detector's order")]
    ap50: Annotated[float | None, Doc("cross-validated average precision at an IoU threshold of .50")]
    ap50_interval: Predicted
    controls: Annotated[list[BeatenControl], Doc("results of the controls")]
    methods: Annotated[list[dict[str, str | float]], Doc("`name` and cross-validated `ap50` of each method")]


class FitSegmenterOutput(TypedDict):
    """The JSON object of ``seewhy fit --task masks --json``."""

    model: Annotated[str, Doc("folder of the model")]
    method: Annotated[str, Doc("registered name of the method")]
    classes: Annotated[list[str], Doc("class names, in the order of the mask's values")]
    trained_on: Annotated[str, Doc("description of the training data")]
    failures: Annotated[list[FailureOutput], Doc("pictures that could not be used")]


class FitDetectorOutput(FitSegmenterOutput):
    """The JSON object of ``seewhy fit --task boxes --json``."""

    calibration: Annotated[Calibration, Doc("cross-validated figures")]


class RegionsOutput(TypedDict):
    image: Annotated[str, Doc("file name as given")]
    width: Annotated[int, Doc("width of the upright picture in pixels")]
    height: Annotated[int, Doc("height of the upright picture in pixels")]
    classes: Annotated[list[str], Doc("names to find, in the order of the mask's values")]
    not_found: Annotated[list[str], Doc("names that were not found")]
    presence: NotRequired[
        Annotated[dict[str, float], Doc("presence of each name, in standard deviations above other names")]
    ]
    method: Annotated[str, Doc("registered name of the method")]
    encoder: Annotated[str, Doc("the encoder, or the folder of the method's own weights")]
    fingerprint: Annotated[str, Doc("fingerprint of the encoder")]


class DetectionsOutput(RegionsOutput):
    """The boxes found in a picture."""

    detections: Annotated[list[Detection], Doc("detected boxes, highest score first")]
    measured: Annotated[str, Doc("measured quality of the detector, in words")]
    parameters: Annotated[dict[str, Any], Doc("parameters of the detector")]


DetectOutput = FailureOutput | DetectionsOutput
"""One line of ``seewhy detect --json``."""


class SegmentationOutput(RegionsOutput):
    """The segments of a picture."""

    segments: Annotated[list[Segment], Doc("the classes found, largest first")]
    unnamed: Annotated[Share, Doc("share of the pixels without a class")]
    input: Annotated[list[int], Doc("height and width of the network's input")]
    n_windows: Annotated[int, Doc("number of windows in which the picture was encoded")]
    grid: Annotated[list[int], Doc("height and width of the feature map")]
    mask: NotRequired[Annotated[str | None, Doc("file of the mask, a PNG whose values are indices into `classes`")]]


SegmentOutput = FailureOutput | SegmentationOutput
"""One line of ``seewhy segment --json``."""
