"""Pictures of the user's own, with boxes, masks or classes, that boxes and segments are likened to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
import torch

from ..classifiers.base import Classifier
from ..descriptions.base import Words
from ..encoders.stream import Encoded
from ..errors import DataError, ImageError
from ..evidence.explain import ExplainOptions
from ..explanation.base import Explanation
from ..explanation.part import PartBox
from ..keywords import ExplainKeywords
from ..pictures.boxes import BoxedPicture, box_formats, load_boxes
from ..pictures.images import upright_size
from ..pictures.pixel_classes import MaskedPicture, MaskedPictures, is_masked, load_masks
from ..pictures.samples import load_samples
from ..progress import Progress
from ..prototypes.bank import PatchBank
from ..prototypes.measure import Labelled, LikenessMeasure, trials
from ..prototypes.nearest import NearestPatches
from ..storage.features import FeatureStore
from ..types import Failure
from .detector import Detector
from .part_encoder import PartEngine, WholePicture, part_encoder, part_picture, place_of
from .part_evidence import MOST, PartExplainer, parts_of
from .segmenter import Segmenter

MOST_PICTURES, MOST_PARTS = 120, 6
"""Pictures that are looked at, and parts of one picture that are taken, evenly over the classes."""


class Example(NamedTuple):
    """One known thing in a picture; the whole of it where there is neither box nor mask."""

    label: str
    box: PartBox
    mask: np.ndarray | None = None


def with_examples(explainer: PartExplainer, source: str | Path, progress: Progress | None = None) -> PartExplainer:
    """The same, with patches of known things to liken others to, and how far such likenesses can be trusted.

    Cost: one look for each picture, :data:`MOST_PICTURES` at most. Every other picture's parts are looked up among the
    rest's to measure how often neighbours carry the class; the bank that cards use has all of them. A picture's own
    patches are known by its file and never shown for it; other near-duplicates are not looked for.
    """
    progress, classes = progress or Progress(), explainer.finder.classes
    given = list(_given(Path(source), isinstance(explainer.finder, Detector)))
    chosen = given[:: max(1, -(-len(given) // MOST_PICTURES))]
    seen: list[Known] = []
    others: set[str] = set()
    for number, (image, data) in enumerate(progress.track(chosen, "Looking at examples", len(chosen))):
        try:
            examples = data(upright_size(image))
            others |= {e.label for e in examples} - set(classes)
            seen += _looked(explainer, image, _spread([e for e in examples if e.label in classes]), number)
        except ImageError as error:
            progress.failed(Failure(error.path, error.reason))
    if others:
        progress.note(f"{len(others)} class(es) of the examples are not looked for: {', '.join(sorted(others)[:5])}")
    if not seen:
        raise DataError(
            f"{source} has no example of {', '.join(classes[:5])}. Pictures with boxes, masks or folders of these "
            "names were expected. Name the classes alike."
        )
    half, held = ([one for one in seen if one.number % 2 == odd] for odd in (0, 1))
    model = replace(explainer.model, bank=_bank(seen), likeness=_measured(half, held, len(classes)))
    return replace(explainer, model=model)


class Known(NamedTuple):
    """An example after the trunk, its class, of which picture it is, and the part as a classifier sees it."""

    seen: Encoded
    label: int
    number: int
    model: Classifier


def _looked(explainer: PartExplainer, image: str, examples: list[Example], number: int) -> Iterator[Known]:
    if not examples:
        return
    whole = WholePicture(explainer.score, image)
    for example in examples:
        place = place_of(whole, example.box, example.mask)
        model = replace(explainer.model, encoder=part_encoder(PartEngine(whole, place)), head=place.head)
        features = place.cut(whole.own_cells)
        picture = part_picture(whole, place)[0]
        found = Encoded(image, picture.digest, features.mean((2, 3)), features[0], picture)
        yield Known(found, explainer.score.classes.index(example.label), number, model)


def _bank(known: list[Known]) -> PatchBank:
    built = PatchBank.build(known[0].model, [one.seen for one in known], [one.label for one in known])
    # Things of one class are as alike as copies of a picture are; copies are told by their bytes alone.
    return replace(built, pooled=torch.zeros_like(built.pooled))


def _measured(half: list[Known], held: list[Known], n_classes: int) -> LikenessMeasure | None:
    """How often neighbours carry the predicted class; no neighbour can of a part that is taken for nothing."""
    if not half:
        return None
    bank = _bank(half)
    real = [one for one in held if int(one.model.head(one.seen.pooled).argmax()) < n_classes]
    found = (trials(one.model, NearestPatches(), bank, [Labelled(one.seen, one.label)], len(real)) for one in real)
    return LikenessMeasure.of([one for some in found for one in some])


def explain_parts(
    finder: Detector | Segmenter,
    picture: Any,
    most: int = MOST,
    descriptions: Words | None = None,
    known: str | Path | None = None,
    store: FeatureStore | None = None,
    **options: Unpack[ExplainKeywords],
) -> list[Explanation]:
    """Find what is in a picture, and explain it."""
    explainer = PartExplainer.of(finder, descriptions, store)
    if known is not None:
        explainer = with_examples(explainer, known)
    found = explainer.find(picture)
    numbers = range(1, min(most, len(parts_of(found))) + 1)
    return list(explainer.explain(picture, found, ExplainOptions(**options), numbers))


def _given(source: Path, boxes_first: bool) -> Iterator[tuple[str, Callable[[tuple[int, int]], list[Example]]]]:
    """Pictures, and what gives the known things of each once its size is known."""
    boxed = any(box_formats[name]().knows(source) for name in box_formats)
    if boxed and (boxes_first or not is_masked(source)):
        for picture in load_boxes(source).present().pictures:
            yield picture.image, partial(_of_boxes, picture)
    elif is_masked(source):
        data = load_masks(source)
        for item in data.items:
            yield item.image, partial(_of_masks, data, item)
    else:
        for sample in load_samples(source).items:
            yield sample.image, partial(_of_class, sample.label)


def _of_boxes(picture: BoxedPicture, size: tuple[int, int]) -> list[Example]:
    return [Example(one.label, one.box) for one in picture.boxes]


def _of_class(label: str, size: tuple[int, int]) -> list[Example]:
    return [Example(label, (0.0, 0.0, float(size[0]), float(size[1])))]


def _of_masks(data: MaskedPictures, item: MaskedPicture, size: tuple[int, int]) -> list[Example]:
    truth, _ = data.truth(item, size)
    whole = (0.0, 0.0, float(size[0]), float(size[1]))
    return [Example(data.classes[k], whole, truth == k) for k in np.unique(truth) if k < len(data.classes)]


def _spread(examples: list[Example]) -> list[Example]:
    """At most :data:`MOST_PARTS`, one of each class before two of any."""
    turn: Counter[str] = Counter()
    ordered = []
    for example in examples:
        turn[example.label] += 1
        ordered.append((turn[example.label], example))
    return [example for _, example in sorted(ordered, key=lambda one: one[0])[:MOST_PARTS]]
