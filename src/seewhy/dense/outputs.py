"""Types of the JSON for boxes and masks."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from typing_extensions import TypedDict

from ..explanation.outputs import FailureOutput, Interval, Range
from ..results import Count, Doc, Share

Drawn = Annotated[tuple[float, float] | None, Doc("at 95 %, over drawings of pictures")]


class BoxFigures(TypedDict):
    ap: Annotated[float | None, Doc("average precision, mean over overlaps from .50 to .95")]
    ap_interval: Drawn
    ap50: Annotated[float | None, Doc("average precision at an overlap of half")]
    ap50_interval: Drawn


class BoxGroup(BoxFigures):
    name: Annotated[str, Doc("base or novel")]
    n_classes: Annotated[Count, Doc("classes in the group")]


class BoxClass(BoxFigures):
    label: Annotated[str, Doc("the class")]
    n: Annotated[Count, Doc("boxes of the class")]
    novel: Annotated[bool, Doc("whether the class was named as novel")]
    precision: Annotated[list[float | None], Doc("precision at recalls 0, .01, …, 1, at an overlap of half")]


class BeatenControl(TypedDict):
    name: Annotated[str, Doc("what the control knows")]
    ap50_best: Annotated[float | None, Doc("`ap50` of its best random draw")]
    real: Annotated[bool, Doc("whether the detector is shown to be better")]


class BoxControl(BeatenControl):
    n_draws: Annotated[Count, Doc("number of random draws")]
    ap: Annotated[float | None, Doc("mean over draws")]
    ap50: Annotated[float | None, Doc("mean over draws")]
    any_name: Annotated[float | None, Doc("AP50 of the first draw if any name counts as right")]
    above_best: Annotated[float | None, Doc("AP50 of the detector minus the best of the control")]
    above_best_interval: Drawn


class BoxConfusion(TypedDict):
    least: Annotated[float, Doc("lowest score that counts")]
    labels: Annotated[list[str], Doc("labels of rows and columns; the last means no box")]
    table: Annotated[list[list[int]], Doc("rows are true boxes, columns detected ones")]


class EvaluateBoxesOutput(BoxFigures):
    """Quality of boxes: the JSON object of ``seewhy evaluate --json`` with boxes."""

    n_pictures: Annotated[Count, Doc("pictures judged")]
    n_boxes: Annotated[Count, Doc("boxes on them, without ignored ones")]
    n_found: Annotated[Count, Doc("boxes that the detector drew")]
    classes: Annotated[list[str], Doc("classes of the data")]
    any_name: Annotated[BoxFigures, Doc("the same figures if any name counts as right")]
    groups: Annotated[list[BoxGroup], Doc("figures of base and novel classes, if some were named")]
    per_class: Annotated[list[BoxClass], Doc("figures of each class, in order")]
    controls: Annotated[list[BoxControl], Doc("what detectors reach that know less")]
    confusion: Annotated[BoxConfusion, Doc("which classes are confused")]
    n_draws: Annotated[Count, Doc("resampled sets of pictures, for the intervals")]
    notes: Annotated[list[str], Doc("what the user should know")]
    report: NotRequired[Annotated[str | None, Doc("the HTML page")]]


class MaskClass(TypedDict):
    label: Annotated[str, Doc("the class")]
    iou: Annotated[float | None, Doc("intersection over union; `null` if no picture has a pixel of the class")]
    interval: Annotated[Interval | None, Doc("95 % interval over pictures (bootstrap); `null` as above")]
    share: Annotated[Share, Doc("share of the judged pixels")]
    n_pictures: Annotated[Count, Doc("pictures with a pixel of the class")]


class MaskRow(TypedDict):
    name: Annotated[str, Doc("what made the masks")]
    what: Annotated[str, Doc("a description of it")]
    control: Annotated[bool, Doc("whether it is a control that the model should beat")]
    miou: Annotated[Share, Doc("as above")]
    interval: Annotated[Interval, Doc("95 % interval over pictures (bootstrap)")]
    difference: Annotated[float | None, Doc("model minus this row; `null` for the model")]
    difference_interval: Annotated[Range | None, Doc("95 % interval, on the same pictures; `null` as above")]
    real: Annotated[bool | None, Doc("whether that interval excludes 0; `null` as above")]


class MasksOutput(TypedDict):
    """Quality of masks: the JSON object of ``seewhy evaluate --json`` on pictures with masks."""

    method: Annotated[str, Doc("registered name of the segmenter")]
    encoder: Annotated[str, Doc("the encoder")]
    fingerprint: Annotated[str, Doc("fingerprint of the encoder")]
    input: Annotated[list[int], Doc("height and width of the network's input")]
    n: Annotated[Count, Doc("pictures judged")]
    miou: Annotated[Share, Doc("mean intersection over union of the classes that have a pixel")]
    interval: Annotated[Interval, Doc("95 % interval over pictures (bootstrap)")]
    accuracy: Annotated[Share, Doc("share of the pixels that are right")]
    above_shuffled: Annotated[float | None, Doc("`miou` divided by that of the best draw of shuffled names")]
    classes: Annotated[list[MaskClass], Doc("in the segmenter's order")]
    rows: Annotated[list[MaskRow], Doc("the model, its controls, and the best possible masks")]
    notes: Annotated[list[str], Doc("what the user should know")]
    failures: Annotated[list[FailureOutput], Doc("pictures that could not be used")]
    report: NotRequired[Annotated[str | None, Doc("the HTML page, or `null`")]]


class CalibratedClass(TypedDict):
    label: Annotated[str, Doc("the class")]
    n: Annotated[Count, Doc("boxes of the class on the pictures")]
    threshold: Annotated[Share, Doc("lowest score at which a box is kept")]
    own: Annotated[
        bool, Doc("whether the threshold is of this class alone; with too few boxes it is of all classes together")
    ]
    promised: Annotated[bool | None, Doc("whether new pictures can be expected to reach the requested precision")]
    precision: Annotated[Share | None, Doc("precision, with thresholds chosen on the other folds")]
    precision_interval: Annotated[tuple[float, float] | None, Doc("what as many new pictures reach in 19 of 20 cases")]
    recall: Annotated[Share | None, Doc("recall, with thresholds chosen on the other folds")]
    recall_interval: Annotated[tuple[float, float] | None, Doc("what as many new pictures reach in 19 of 20 cases")]
    ap50: Annotated[Share | None, Doc("AP50 of the class out of fold; `null` with too few boxes")]


class Calibration(TypedDict):
    n_pictures: Annotated[Count, Doc("pictures it was fitted on, each measured by a detector of the other folds")]
    n_folds: Annotated[int, Doc("number of folds")]
    fewest: Annotated[int, Doc("least number of boxes for a statement on a class")]
    precision: Annotated[float | None, Doc("the requested precision; `null` for the largest F1")]
    classes: Annotated[list[CalibratedClass], Doc("the classes, in the detector's order")]
    ap50: Annotated[float | None, Doc("average precision out of fold, at an overlap of half")]
    ap50_interval: Annotated[tuple[float, float] | None, Doc("what as many new pictures reach in 19 of 20 cases")]
    controls: Annotated[list[BeatenControl], Doc("what detectors reach on the same pictures that know less")]
    methods: Annotated[list[dict[str, str | float]], Doc("`name` and `ap50` out of fold of each method tried")]


class FitSegmenterOutput(TypedDict):
    """The JSON object that ``seewhy fit --task masks --json`` prints."""

    model: Annotated[str, Doc("its folder")]
    method: Annotated[str, Doc("its registered name")]
    classes: Annotated[list[str], Doc("the classes, in the order of a mask's values")]
    trained_on: Annotated[str, Doc("what it was trained on")]
    failures: Annotated[list[FailureOutput], Doc("pictures that could not be used")]


class FitDetectorOutput(FitSegmenterOutput):
    """The JSON object that ``seewhy fit --task boxes --json`` prints."""

    calibration: Annotated[Calibration, Doc("its figures on pictures that it was not fitted on")]


class Detection(TypedDict):
    label: Annotated[str, Doc("the name searched for")]
    score: Annotated[Share, Doc("the detector's own score; not calibrated")]
    box: Annotated[tuple[float, float, float, float], Doc("left, top, right, bottom in pixels of the upright picture")]
    made_of: NotRequired[Annotated[dict[str, float], Doc("the numbers that make up the score")]]


class RegionsOutput(TypedDict):
    image: Annotated[str, Doc("file name as given")]
    width: Annotated[int, Doc("width of the upright picture in pixels")]
    height: Annotated[int, Doc("height of the upright picture in pixels")]
    classes: Annotated[list[str], Doc("names searched for, in the order of a mask's values")]
    not_found: Annotated[list[str], Doc("names that were searched for and not found")]
    presence: NotRequired[Annotated[dict[str, float], Doc("for each name, how far it stands out among other names")]]
    method: Annotated[str, Doc("registered name of the method")]
    encoder: Annotated[str, Doc("the encoder, or the folder of the method's own weights")]
    fingerprint: Annotated[str, Doc("fingerprint of the encoder")]


class DetectionsOutput(RegionsOutput):
    """A picture with boxes around the objects found in it."""

    detections: Annotated[list[Detection], Doc("detected boxes, highest score first")]
    measured: Annotated[str, Doc("what the detector reached and on which pictures, in words")]
    parameters: Annotated[dict[str, Any], Doc("parameters of the detector")]


DetectOutput = FailureOutput | DetectionsOutput
"""A line that ``seewhy detect --json`` prints."""


class Segment(TypedDict):
    label: Annotated[str, Doc("the class")]
    area: Annotated[int, Doc("area in pixels")]
    share: Annotated[Share, Doc("share of the picture's pixels")]
    box: Annotated[list[Count], Doc("the box around it: left, top, right, bottom in pixels")]
    score: Annotated[Share, Doc("mean probability of the class over its pixels; not calibrated")]
    rle: Annotated[dict[str, list[int] | str], Doc("the mask in COCO's form: `size`, and packed run lengths `counts`")]


class SegmentationOutput(RegionsOutput):
    """A picture in which every pixel has a class."""

    segments: Annotated[list[Segment], Doc("the classes found, largest first")]
    unnamed: Annotated[Share, Doc("share of the pixels without a class")]
    input: Annotated[list[int], Doc("height and width of the network's input")]
    n_windows: Annotated[int, Doc("windows in which the picture was encoded")]
    grid: Annotated[list[int], Doc("height and width of the map in cells")]
    mask: NotRequired[Annotated[str | None, Doc("file of the mask, a PNG whose values are positions in `classes`")]]


SegmentOutput = FailureOutput | SegmentationOutput
"""A line that ``seewhy segment --json`` prints."""
