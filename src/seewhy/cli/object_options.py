"""Options that say where the object is, for whatever asks about what lies around it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import encoder_given

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..dense.finders import Segmenter
    from ..pictures.boxes.base import BoxData
    from ..pictures.object_masks import MaskSource
    from ..pictures.samples import Samples
    from ..storage.features import FeatureStore

SegmenterFolder = Annotated[
    Path | None,
    typer.Option(
        "--object-segmenter",
        help="A saved segmenter, which draws the masks: of each class by its name, or of --object.",
        show_default=False,
    ),
]
MasksFolder = Annotated[
    Path | None,
    typer.Option(
        "--masks", help="A folder of masks named like the pictures. The object is not black.", show_default=False
    ),
]
ObjectBoxes = Annotated[
    Path | None,
    typer.Option(
        "--boxes",
        help="Boxes of the objects: COCO, YOLO, VOC or a table. Without masks, they are the masks; with masks, "
        "they say how much of the object those cover.",
        show_default=False,
    ),
]
ObjectWords = Annotated[
    str | None,
    typer.Option(
        "--object", help="Words for the object, separated by commas, by which it is found.", show_default=False
    ),
]


def loaded_segmenter(folder: Path | None, encoder: str, engine: str) -> Segmenter | None:
    """The segmenter named, if one is."""
    from ..dense.saving import load_segmenter

    return None if folder is None else load_segmenter(folder, encoder=encoder_given(encoder), engine=engine)


def mask_source(
    classifier: Classifier,
    pictures: Iterable[str],
    masks: tuple[str, Path | None],
    segmenter: Segmenter | None,
    words: str | None,
    *,
    boxes: BoxData | None = None,
    store: FeatureStore | None = None,
) -> MaskSource | None:
    """Who says where the objects are: masks, else a segmenter, else words, else boxes; ``None`` where nobody does."""
    from ..dense.object_masks import SegmenterMasks, WordMasks
    from ..errors import InputError
    from ..pictures.object_masks import BoxMasks, MaskFiles

    names = tuple(w for w in map(str.strip, (words or "").split(",")) if w)
    if masks[1] is not None:
        if segmenter is not None or names:
            other = "--object-segmenter" if segmenter is not None else "--object"
            raise InputError(
                f"{masks[0]} and {other} were both given. One of them was expected, as one says where the object is. "
                "Drop one."
            )
        return MaskFiles.of(masks[1], classifier.encoder.transform, pictures)
    if segmenter is not None:
        return SegmenterMasks(segmenter, names)
    if names:
        return WordMasks(classifier.encoder, names, store=store)
    return None if boxes is None else BoxMasks(boxes)


def masks_of(
    classifier: Classifier,
    samples: Samples,
    drawn: tuple[Path | None, Path | None, str | None],
    encoder: str,
    engine: str,
    store: FeatureStore | None,
) -> MaskSource | None:
    """Who says where the objects of these pictures are: masks, a folder of a segmenter, or words."""
    mask, folder, words = drawn
    segmenter, names = loaded_segmenter(folder, encoder, engine), [s.image for s in samples.items]
    return mask_source(classifier, names, ("--object-mask", mask), segmenter, words, store=store)


def with_objects(
    classifier: Classifier,
    pictures: Iterator[str],
    mask: Path | None,
    segmenter: Segmenter | None,
    words: str | None,
    store: FeatureStore | None,
) -> tuple[Iterable[str], MaskSource | None]:
    """The pictures to be explained, and who says where their objects are, if anybody does.

    Names may come one by one for as long as somebody types them; only masks in files want all of them first.
    """
    names = pictures if mask is None else list(pictures)
    return names, mask_source(classifier, names, ("--object-mask", mask), segmenter, words, store=store)
