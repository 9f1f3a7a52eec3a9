"""The JSON that boxes and masks are answered with, as types."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from typing_extensions import TypedDict

from ..explanation.outputs import FailureOutput, Interval, Range
from ..results import Count, Doc, Share

Drawn = Annotated[tuple[float, float] | None, Doc("at 95 %, over drawings of pictures")]


class BoxFigures(TypedDict):
    ap: Annotated[float | None, Doc("average precision, the mean over overlaps .50 to .95")]
    ap_interval: Drawn
    ap50: Annotated[float | None, Doc("the same where half is overlap enough")]
    ap50_interval: Drawn


class BoxGroup(BoxFigures):
    name: Annotated[str, Doc("base or novel")]
    n_classes: Annotated[Count, Doc("in it")]


class BoxClass(BoxFigures):
    label: Annotated[str, Doc("the class")]
    n: Annotated[Count, Doc("boxes of it")]
    novel: Annotated[bool, Doc("whether it was named as such")]
    precision: Annotated[list[float | None], Doc("at recalls 0, .01, …, 1, at an overlap of half")]


class BeatenControl(TypedDict):
    name: Annotated[str, Doc("what it knows")]
    ap50_best: Annotated[float | None, Doc("of the best drawing")]
    real: Annotated[bool, Doc("whether the detector is shown to be above it")]


class BoxControl(BeatenControl):
    n_draws: Annotated[Count, Doc("drawings")]
    ap: Annotated[float | None, Doc("mean over drawings")]
    ap50: Annotated[float | None, Doc("mean over drawings")]
    any_name: Annotated[float | None, Doc("AP50 where any name is right, of the first drawing")]
    above_best: Annotated[float | None, Doc("the detector's AP50 less that")]
    above_best_interval: Drawn


class BoxConfusion(TypedDict):
    least: Annotated[float, Doc("score from which a box counts")]
    labels: Annotated[list[str], Doc("of rows and columns; the last is nothing")]
    table: Annotated[list[list[int]], Doc("rows are what is there, columns what was found")]


class EvaluateBoxesOutput(BoxFigures):
    """How good boxes are: the object of seewhy evaluate --json with boxes."""

    n_pictures: Annotated[Count, Doc("judged")]
    n_boxes: Annotated[Count, Doc("on them, without ignored ones")]
    n_found: Annotated[Count, Doc("boxes that the detector found")]
    classes: Annotated[list[str], Doc("of the data")]
    any_name: Annotated[BoxFigures, Doc("the same where any name is right")]
    groups: Annotated[list[BoxGroup], Doc("base and novel classes, where some were named")]
    per_class: Annotated[list[BoxClass], Doc("in the order of the classes")]
    controls: Annotated[list[BoxControl], Doc("what less knowledge reaches")]
    confusion: Annotated[BoxConfusion, Doc("what is taken for what")]
    n_draws: Annotated[Count, Doc("of pictures, for the intervals")]
    notes: Annotated[list[str], Doc("what the user should know")]
    report: NotRequired[Annotated[str | None, Doc("where the page is")]]


class MaskClass(TypedDict):
    label: Annotated[str, Doc("the class")]
    iou: Annotated[float | None, Doc("intersection over union; `null` where no picture has a pixel of it")]
    interval: Annotated[Interval | None, Doc("95 % interval over pictures (bootstrap); `null` as above")]
    share: Annotated[Share, Doc("part of the pixels that count")]
    n_pictures: Annotated[Count, Doc("pictures with a pixel of it")]


class MaskRow(TypedDict):
    name: Annotated[str, Doc("what made the masks")]
    what: Annotated[str, Doc("what that is")]
    control: Annotated[bool, Doc("whether it must be beaten")]
    miou: Annotated[Share, Doc("as above")]
    interval: Annotated[Interval, Doc("95 % interval over pictures (bootstrap)")]
    difference: Annotated[float | None, Doc("of the model from it; `null` for the model")]
    difference_interval: Annotated[Range | None, Doc("95 % interval, on the same pictures; `null` as above")]
    real: Annotated[bool | None, Doc("whether that leaves out 0; `null` as above")]


class MasksOutput(TypedDict):
    """How good masks are: the object of seewhy evaluate --json on pictures with masks."""

    method: Annotated[str, Doc("registered name of the segmenter")]
    encoder: Annotated[str, Doc("what looked")]
    fingerprint: Annotated[str, Doc("of the encoder")]
    input: Annotated[list[int], Doc("height and width of the network's input")]
    n: Annotated[Count, Doc("pictures judged")]
    miou: Annotated[Share, Doc("intersection over union, the mean over classes that have a pixel")]
    interval: Annotated[Interval, Doc("95 % interval over pictures (bootstrap)")]
    accuracy: Annotated[Share, Doc("part of the pixels that are right")]
    above_shuffled: Annotated[float | None, Doc("how many times the best draw of shuffled names")]
    classes: Annotated[list[MaskClass], Doc("in the segmenter's order")]
    rows: Annotated[list[MaskRow], Doc("the model, its controls, and what could be had")]
    notes: Annotated[list[str], Doc("what the user should know")]
    failures: Annotated[list[FailureOutput], Doc("pictures that could not be used")]
    report: NotRequired[Annotated[str | None, Doc("where the report was written, or `null`")]]


class CalibratedClass(TypedDict):
    label: Annotated[str, Doc("the class")]
    n: Annotated[Count, Doc("boxes of it on the pictures")]
    threshold: Annotated[Share, Doc("score from which a box is kept")]
    own: Annotated[bool, Doc("whether it is from this class alone; else from all together, as it has too few boxes")]
    promised: Annotated[bool | None, Doc("whether the precision asked for is to be expected of new pictures")]
    precision: Annotated[Share | None, Doc("precision of thresholds chosen on the other folds")]
    precision_interval: Annotated[tuple[float, float] | None, Doc("of as many new pictures, in 19 of 20 cases")]
    recall: Annotated[Share | None, Doc("recall of thresholds chosen on the other folds")]
    recall_interval: Annotated[tuple[float, float] | None, Doc("of as many new pictures, in 19 of 20 cases")]
    ap50: Annotated[Share | None, Doc("of this class out of fold; `null` where it has too few boxes")]


class Calibration(TypedDict):
    n_pictures: Annotated[Count, Doc("that it was fitted on, each measured by a detector of the other folds")]
    n_folds: Annotated[int, Doc("parts of the pictures")]
    fewest: Annotated[int, Doc("boxes of a class without which nothing is said of it")]
    precision: Annotated[float | None, Doc("that was asked for; `null` where F1 was to be largest")]
    classes: Annotated[list[CalibratedClass], Doc("in the detector's order")]
    ap50: Annotated[float | None, Doc("average precision out of fold, where half is overlap enough")]
    ap50_interval: Annotated[tuple[float, float] | None, Doc("of as many new pictures, in 19 of 20 cases")]
    controls: Annotated[list[BeatenControl], Doc("what less knowledge reaches on the same pictures")]
    methods: Annotated[list[dict[str, str | float]], Doc("`name` and `ap50` out of fold of those that were tried")]


class FitSegmenterOutput(TypedDict):
    """The object of seewhy fit --task masks --json."""

    model: Annotated[str, Doc("its folder")]
    method: Annotated[str, Doc("its registered name")]
    classes: Annotated[list[str], Doc("what it finds, in the order of a mask's values")]
    trained_on: Annotated[str, Doc("what it was trained on")]
    failures: Annotated[list[FailureOutput], Doc("pictures that could not be used")]


class FitDetectorOutput(FitSegmenterOutput):
    """The object of seewhy fit --task boxes --json."""

    calibration: Annotated[Calibration, Doc("what it reaches on pictures that it has not learnt from")]


class Detection(TypedDict):
    label: Annotated[str, Doc("the name that was looked for")]
    score: Annotated[Share, Doc("how sure the detector is, in its own measure; not calibrated")]
    box: Annotated[tuple[float, float, float, float], Doc("left, top, right, bottom in pixels of the upright picture")]
    made_of: NotRequired[Annotated[dict[str, float], Doc("numbers that the score was made of")]]


class RegionsOutput(TypedDict):
    image: Annotated[str, Doc("file name as given")]
    width: Annotated[int, Doc("pixels of the upright picture")]
    height: Annotated[int, Doc("pixels of the upright picture")]
    classes: Annotated[list[str], Doc("what was looked for, in the order of a mask's values")]
    not_found: Annotated[list[str], Doc("names that were looked for and are not there")]
    presence: NotRequired[Annotated[dict[str, float], Doc("of each name, how far it stands out among other names")]]
    method: Annotated[str, Doc("registered name of what found them")]
    encoder: Annotated[str, Doc("what looked: an encoder, or the folder of a method's own weights")]
    fingerprint: Annotated[str, Doc("of what looked")]


class DetectionsOutput(RegionsOutput):
    """A picture with boxes around what was found in it."""

    detections: Annotated[list[Detection], Doc("what was found, surest first")]
    measured: Annotated[str, Doc("what the detector reached, and where, in words")]
    parameters: Annotated[dict[str, Any], Doc("of the detector")]


DetectOutput = FailureOutput | DetectionsOutput
"""A line of seewhy detect --json."""


class Segment(TypedDict):
    label: Annotated[str, Doc("the class")]
    area: Annotated[int, Doc("pixels")]
    share: Annotated[Share, Doc("part of the picture's pixels")]
    box: Annotated[list[Count], Doc("left, top, right, bottom around them, in pixels")]
    score: Annotated[Share, Doc("mean probability of the class over its pixels; not calibrated")]
    rle: Annotated[dict[str, list[int] | str], Doc("the mask as COCO writes it: `size`, and `counts` of runs, packed")]


class SegmentationOutput(RegionsOutput):
    """A picture whose every pixel has a class."""

    segments: Annotated[list[Segment], Doc("the classes found, largest first")]
    unnamed: Annotated[Share, Doc("part of the picture's pixels that is none of the classes")]
    input: Annotated[list[int], Doc("height and width of the network's input")]
    n_windows: Annotated[int, Doc("windows that the picture was looked at in")]
    grid: Annotated[list[int], Doc("height and width of the whole in cells")]
    mask: NotRequired[Annotated[str | None, Doc("file of the mask, a PNG whose values are places among the classes")]]


SegmentOutput = FailureOutput | SegmentationOutput
"""A line of seewhy segment --json."""
