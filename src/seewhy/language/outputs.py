"""The JSON that language answers with, as types."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from typing_extensions import TypedDict

from ..explanation.outputs import DryRunOutput, Preference, Reliability, Round
from ..results import Count, Doc, Share
from .annotation.records import BoxedObject, Version
from .pairs.checking import Checked


class Picture(TypedDict):
    key: Annotated[str, Doc("names it in addresses")]
    name: Annotated[str, Doc("file name")]
    objects: Annotated[Count, Doc("boxes of the last version")]
    object_rounds: Annotated[Count, Doc("rounds by people")]
    rounds: Annotated[Count, Doc("of the text on the whole picture")]
    words: Annotated[Count, Doc("of the text on the whole picture")]
    authors: Annotated[list[str], Doc("of all rounds")]
    last_author: Annotated[str | None, Doc("of the last text")]
    seconds: Annotated[float, Doc("active time")]
    finished: Annotated[str | None, Doc("why it counts as finished")]


class AnnotatePicturesOutput(TypedDict):
    """GET / of the page of seewhy app --annotate."""

    n: Annotated[Count, Doc("pictures")]
    finished: Annotated[Count, Doc("of them finished")]
    begun: Annotated[Count, Doc("of them begun")]
    seconds: Annotated[float, Doc("active time of all rounds")]
    show: Annotated[Literal["all", "open", "finished"], Doc("which pictures are listed")]
    found: Annotated[Count, Doc("how many they are")]
    page: Annotated[Count, Doc("of this page, from 1")]
    pages: Annotated[Count, Doc("of 60 pictures")]
    pictures: Annotated[list[Picture], Doc("those of this page")]


class CorrectedOutput(TypedDict):
    """The object of seewhy check --export --json."""

    file: Annotated[str, Doc("the corrected table")]
    corrected: Annotated[Count, Doc("rows that have another label")]
    confirmed: Annotated[Count, Doc("rows whose label was confirmed")]
    later: Annotated[Count, Doc("rows put off")]
    dropped: Annotated[Count, Doc("rows left out")]
    outdated: Annotated[Count, Doc("rows with a decision on a label that the data no longer give the picture or a")]
    n: Annotated[Count, Doc("rows of the table")]


class DescribePairsOutput2(TypedDict):
    file: Annotated[str | None, Doc("the file, `null` where nothing was written")]
    written: Annotated[Count, Doc("classes, or pairs of classes, that have texts now")]
    failed: Annotated[dict[str, str], Doc("class, or pair, → why it has none")]


DescribeClassesOutput = DescribePairsOutput = DryRunOutput | DescribePairsOutput2
"""The object of seewhy describe write --json, with --pairs too."""


class AnnotateFiguresOutput(TypedDict):
    """GET /figures of the page of seewhy app --annotate."""

    rounds: Annotated[dict[str, list[Round]], Doc("by task, round by round, means over the pictures that have it")]
    against: Annotated[dict[str, dict[str, Preference]], Doc("net preference for the last round")]
    agreement: Annotated[dict[str, Reliability], Doc("by dimension, on pairs of texts that several people compared")]
    judged: Annotated[Count, Doc("comparisons")]
    judged_by_authors: Annotated[Count, Doc("those by a person who wrote one of the two texts")]


PairsCheckOutput = Checked
"""The object of seewhy check --texts --json."""


class DescribeMatchOutput2(TypedDict):
    file: Annotated[str, Doc("the file")]
    written: Annotated[Count, Doc("pictures with texts")]
    distinct: Annotated[float, Doc("texts that are the best of some picture, mean over classes")]
    commonest: Annotated[Share, Doc("part of the pictures that have the class's commonest best text")]
    entropy: Annotated[float, Doc("of that choice in bits; 0 is one text for the class")]
    n_pictures: Annotated[Count, Doc("pictures")]
    n_classes: Annotated[Count, Doc("classes")]


DescribeMatchOutput = DryRunOutput | DescribeMatchOutput2
"""The object of seewhy describe match --json."""


class Judgement(TypedDict):
    author: Annotated[str, Doc("who judged")]
    first: Annotated[str, Doc("one text")]
    second: Annotated[str, Doc("the other")]
    swapped: Annotated[bool, Doc("the second stood on the left")]
    answers: Annotated[dict[str, int], Doc("by question, from 2 to −2 for the first text")]
    seconds: Annotated[float, Doc("active time")]
    made: Annotated[str, Doc("UTC, ISO 8601")]


class AnnotationOutput(TypedDict):
    """A line of seewhy app --annotate --export FILE.jsonl."""

    format: Annotated[Count, Doc("1")]
    image: Annotated[str, Doc("file name as given")]
    digest: Annotated[str, Doc("SHA-256 of its bytes")]
    width: Annotated[Count, Doc("upright, in pixels")]
    height: Annotated[Count, Doc("upright, in pixels")]
    objects: Annotated[list[BoxedObject], Doc("of the last version")]
    text: Annotated[str, Doc("on the whole picture, of the last version")]
    left_out: Annotated[list[str], Doc("labels of objects that the text does not name")]
    finished: Annotated[str | None, Doc("why it counts as finished")]
    versions: Annotated[list[Version], Doc("all")]
    judgements: Annotated[list[Judgement], Doc("the last of each person on each pair of texts")]


class AnnotateOutput(TypedDict):
    """The object of seewhy app --annotate --json: what was written or taken in, or where the page is."""

    file: NotRequired[Annotated[str, Doc("with `--export`; the file")]]
    address: NotRequired[Annotated[str, Doc("of the page, without them")]]
    pictures: Annotated[Count, Doc("how many")]


class DescribeImagesOutput2(TypedDict):
    image: Annotated[str, Doc("file name as given")]
    digest: Annotated[str, Doc("SHA-256 of its bytes")]
    width: Annotated[Count, Doc("upright, in pixels")]
    height: Annotated[Count, Doc("upright, in pixels")]
    draft: Annotated[str, Doc("the text before")]
    description: Annotated[str, Doc("the text after")]
    obj_from_desc: Annotated[list[str], Doc("objects that the draft names")]
    del_obj_from_desc: Annotated[list[str], Doc("of them, those that nothing on the picture bears out")]
    extr_obj_from_img: Annotated[list[str], Doc("objects found, with their colours, the surest first")]
    bounding_boxes: list[tuple[float, float, float, float]]
    size: Annotated[list[Count | None], Doc("of each, in pixels")]
    object_depth: Annotated[list[Share | None], Doc("of each, 0 far to 1 near")]
    score: Annotated[list[Share], Doc("of each, by the detector, 0…1")]
    added: Annotated[list[str], Doc("labels of those the draft did not name")]
    kept: Annotated[str, Doc("why the draft was left as it is, or empty")]
    made_by: Annotated[str, Doc("names the model, the drafts and the settings")]
    known: NotRequired[Annotated[bool, Doc("true for a line that was there already")]]


DescribeImagesOutput = DryRunOutput | DescribeImagesOutput2
"""A line of seewhy describe images --json."""


class PairsCleanOutput(TypedDict):
    """The object of seewhy check --texts -o --json."""

    file: Annotated[str, Doc("the kept pairs")]
    removed_file: Annotated[str, Doc("the others, with the reasons")]
    pictures: Annotated[Count, Doc("that are kept")]
    pairs: Annotated[Count, Doc("that are kept")]
    removed: Annotated[Count, Doc("pairs that are taken out")]
