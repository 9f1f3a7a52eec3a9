"""Types of the JSON output of language commands."""

from __future__ import annotations

from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from ..explanation.outputs import DryRunOutput
from ..results import Count, Doc, Share
from .annotation.records import BoxedObject, Judgement, Version
from .pairs.checking import Checked


class CorrectedOutput(TypedDict):
    """The JSON object that ``seewhy check --export --json`` prints."""

    file: Annotated[str, Doc("the corrected table")]
    changed: Annotated[Count, Doc("rows with another label")]
    kept: Annotated[Count, Doc("rows whose label was kept")]
    postponed: Annotated[Count, Doc("rows postponed")]
    left_out: Annotated[Count, Doc("rows removed")]
    outdated: Annotated[Count, Doc("rows with a decision on a label or class that the data no longer contain")]
    n: Annotated[Count, Doc("rows of the table")]


class DescribePairsOutput2(TypedDict):
    file: Annotated[str | None, Doc("the file; `null` if nothing was written")]
    written: Annotated[Count, Doc("classes, or pairs of classes, that now have texts")]
    failed: Annotated[dict[str, str], Doc("for each class or pair without texts, the reason")]


DescribeClassesOutput = DescribePairsOutput = DryRunOutput | DescribePairsOutput2
"""The JSON object that ``seewhy describe write --json`` prints, with or without ``--pairs``."""


PairsCheckOutput = Checked
"""The JSON object that ``seewhy check --texts --json`` prints."""


class DescribeMatchOutput2(TypedDict):
    file: Annotated[str, Doc("the file")]
    written: Annotated[Count, Doc("pictures with texts")]
    distinct: Annotated[float, Doc("number of texts that are the best of some picture, mean over classes")]
    commonest: Annotated[Share, Doc("share of the pictures that have the commonest best text of their class")]
    entropy: Annotated[float, Doc("entropy of the best texts in bits; 0 means one text for the whole class")]
    n_pictures: Annotated[Count, Doc("number of pictures")]
    n_classes: Annotated[Count, Doc("number of classes")]


DescribeMatchOutput = DryRunOutput | DescribeMatchOutput2
"""The JSON object that ``seewhy describe match --json`` prints."""


class AnnotationOutput(TypedDict):
    """A line of the file that ``seewhy app --annotate --export FILE.jsonl`` writes."""

    format: Annotated[Count, Doc("version of the format, 1")]
    image: Annotated[str, Doc("file name as given")]
    digest: Annotated[str, Doc("SHA-256 of the file")]
    width: Annotated[Count, Doc("width of the upright picture in pixels")]
    height: Annotated[Count, Doc("height of the upright picture in pixels")]
    objects: Annotated[list[BoxedObject], Doc("objects of the last version")]
    text: Annotated[str, Doc("text on the whole picture, from the last version")]
    left_out: Annotated[list[str], Doc("objects that the text does not name")]
    finished: Annotated[str | None, Doc("reason why the text is finished, or `null`")]
    versions: Annotated[list[Version], Doc("all versions")]
    judgements: Annotated[list[Judgement], Doc("the last judgement of each person on each pair of texts")]


class AnnotateOutput(TypedDict):
    """The JSON object that ``seewhy app --annotate --json`` prints."""

    file: NotRequired[Annotated[str, Doc("with `--export`: the file")]]
    address: NotRequired[Annotated[str, Doc("address of the page, without `--export`")]]
    pictures: Annotated[Count, Doc("number of pictures")]


class DescribeImagesOutput2(TypedDict):
    image: Annotated[str, Doc("file name as given")]
    digest: Annotated[str, Doc("SHA-256 of the file")]
    width: Annotated[Count, Doc("width of the upright picture in pixels")]
    height: Annotated[Count, Doc("height of the upright picture in pixels")]
    draft: Annotated[str, Doc("text before the correction")]
    description: Annotated[str, Doc("text after the correction")]
    obj_from_desc: Annotated[list[str], Doc("objects that the draft names")]
    del_obj_from_desc: Annotated[list[str], Doc("objects of the draft that the picture does not confirm")]
    extr_obj_from_img: Annotated[list[str], Doc("objects found with their colours, highest score first")]
    bounding_boxes: list[tuple[float, float, float, float]]
    size: Annotated[list[Count | None], Doc("size of each object in pixels")]
    object_depth: Annotated[list[Share | None], Doc("depth of each object, from 0 (far) to 1 (near)")]
    score: Annotated[list[Share], Doc("score of each object by the detector, 0…1")]
    added: Annotated[list[str], Doc("objects that the draft did not name")]
    kept: Annotated[str, Doc("why the draft was not changed, or empty")]
    made_by: Annotated[str, Doc("the model, the drafts and the settings")]
    known: NotRequired[Annotated[bool, Doc("whether the file had the picture already")]]


DescribeImagesOutput = DryRunOutput | DescribeImagesOutput2
"""A line that ``seewhy describe images --json`` prints."""


class PairsCleanOutput(TypedDict):
    """The JSON object that ``seewhy check --texts -o --json`` prints."""

    file: Annotated[str, Doc("file of the pairs kept")]
    removed_file: Annotated[str, Doc("file of the removed pairs, with reasons")]
    pictures: Annotated[Count, Doc("pictures kept")]
    pairs: Annotated[Count, Doc("pairs kept")]
    removed: Annotated[Count, Doc("pairs removed")]
