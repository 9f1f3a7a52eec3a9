"""Arguments and options that several commands share."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError, EmptyFolderError, InputError
from ..progress import Progress
from ..storage.output import check_apart
from .session import DEFAULT_ENCODER, Session, not_both
from .terminal import standard_input

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..descriptions.base import Descriptions
    from ..pictures.boxes import BoxData
    from ..pictures.object_masks import MaskSource
    from ..pictures.samples import Samples
    from ..storage.features import FeatureStore


def open_store(name: str | None) -> FeatureStore | None:
    """Open the feature store; if the default store fails, return ``None`` so that the run continues without it."""
    from ..storage.features import FeatureStore

    if name == "none":
        return None
    try:
        return FeatureStore(name)
    except DataError as error:
        if name is not None:
            raise
        logging.getLogger("seewhy").warning("%s This run continues without it.", error)
        return None


def picture_names(pictures: list[str], output: Path | None = None) -> Iterator[str]:
    """Yield the named files and the pictures in named folders; ``-`` reads names from standard input."""
    from ..pictures.sources import list_pictures

    alone = len(pictures) == 1
    for one in pictures:
        if one == "-":
            names = list_pictures(_lines(output))
            first = next(names, None)
            if first is not None:
                yield first
                yield from names
            elif alone:
                raise DataError("Standard input has no file names. Check the command before the pipe.")
        else:
            yield from _listed(one, alone)


def _lines(output: Path | None) -> Iterator[str]:
    for line in standard_input():
        if name := line.rstrip("\r\n"):
            if output is not None:
                check_apart(output, [Path(name)])
            yield name


def _listed(one: str, alone: bool) -> Iterator[str]:
    """Yield the pictures in a folder; a folder without pictures is yielded itself if there are other arguments."""
    from ..pictures.sources import list_pictures

    try:
        yield from list_pictures([one])
    except EmptyFolderError:
        if alone:
            raise
        yield one


def check_device(device: str) -> None:
    """Check that torch supports the device."""
    import torch

    seen = "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("auto", seen):
        raise InputError(
            f"--device must be auto or {seen} here (torch {torch.__version__}), got {device}. For "
            "cuda install torch with CUDA; for cpu hide the GPU with CUDA_VISIBLE_DEVICES=."
        )


def read_descriptions(path: Path | None) -> Descriptions | None:
    from ..descriptions.base import Descriptions

    return None if path is None else Descriptions.read(path)


def grouped_samples(data: Path, image: str, label: str, group: str | None) -> Samples:
    """Load labelled pictures; the text of each is its value in the column of groups, if one is given."""
    from ..pictures.samples import load_samples

    samples = load_samples(data, image=image, label=label, text=group or "text")
    if group is None:  # a table's texts are no groups
        return replace(samples, items=tuple(replace(s, texts=()) for s in samples.items))
    if not any(s.text for s in samples.items):
        raise DataError(f"{data} must be a table with the column {group!r}.")
    return samples


@dataclass(frozen=True)
class ClassifierChoice:
    """The options that select a classifier, which another process can open too."""

    model: str | None
    labels: str | None
    encoder: str
    engine: str
    columns: Mapping[str, str] = field(default_factory=dict)
    """Names of the columns of ``validation``."""
    descriptions: Path | None = None
    follow_up: Path | None = None
    validation: Path | None = None

    def classifier(self, store: FeatureStore | None = None, progress: Progress | None = None) -> Classifier:
        progress = progress or Progress()
        with progress.doing(f"Loading {self.model or f'the encoder {self.encoder}'}"):
            chosen = self.opened(store)
        if self.validation is None:
            return chosen
        from ..classifiers.words import measured_on
        from ..pictures.samples import load_samples

        return measured_on(chosen, load_samples(self.validation, **self.columns), store, progress)

    def opened(self, store: FeatureStore | None) -> Classifier:
        if self.follow_up is not None:
            if self.descriptions is not None:
                raise not_both("--follow-up", "--descriptions")
            from ..classifiers.follow_up import FollowUp
            from ..language.questions import read_pairs

            pairs = read_pairs(self.follow_up)
            return FollowUp().after(replace(self, follow_up=None).opened(store), pairs, store)
        words = read_descriptions(self.descriptions)
        if self.model is not None:
            from ..classifiers.saving import load

            own = None if self.encoder == DEFAULT_ENCODER else self.encoder
            chosen = load(self.model, engine=self.engine, encoder=own)
            if self.labels is not None:
                chosen = named_by(chosen, self.labels)
        else:
            from ..classifiers.unfitted import Described, Pretrained, ZeroShot
            from ..descriptions.base import Descriptions
            from ..encoders.find import encoder

            looking = encoder(self.encoder, engine=self.engine)
            if self.labels is None:
                return Pretrained().build(looking, words, store)
            if self.labels.lower().endswith(".json"):
                chosen = Described().build(looking, Descriptions.read(self.labels), store)
            else:
                chosen = ZeroShot().build(looking, label_names(self.labels), store)
        return chosen if words is None else chosen.with_descriptions(words, store)


def named_by(model: Classifier, labels: str) -> Classifier:
    from ..classifiers.network import NamesClasses

    if not isinstance(model.network, NamesClasses):
        raise not_both("--model", "--labels", "a saved classifier has its own classes")
    return model.network.classifier(names_in(labels))


def lines_of(path: Path, what: str) -> list[str]:
    """Return the lines of a text file, with one ``what`` per line."""
    from ..storage.reading import read_text, readable

    with readable(path, f"Write one {what} per line, in UTF-8."):
        return read_text(path).splitlines()


def names_in(text: str) -> list[str]:
    """Return names separated by commas, or the lines of a .txt file.

    >>> names_in("a wren, a robin")
    ['a wren', 'a robin']
    """
    return [name.strip() for name in label_names(text) if name.strip()]


def label_names(labels: str) -> list[str]:
    """Return the names unchanged, including empty ones."""
    return lines_of(Path(labels), "class") if labels.lower().endswith(".txt") else labels.split(",")


def objects_of(
    session: Session, classifier: Classifier, names: Iterable[str]
) -> tuple[MaskSource | None, BoxData | None]:
    """Return the source of object masks (masks, otherwise a segmenter, words or boxes), and the boxes."""
    from ..dense.by_words import SegmenterMasks, WordMasks
    from ..dense.saving import is_segmenter, load_segmenter
    from ..pictures.boxes import has_boxes, load_boxes
    from ..pictures.object_masks import BoxMasks, MaskFiles

    kinds: dict[str, str] = {}
    for place in session.given.masks or ():
        boxed = has_boxes(Path(place))
        kinds["segmenter" if is_segmenter(place) else "boxes" if boxed else "masks"] = place
    wanted = tuple(w for w in map(str.strip, (session.given.object_ or "").split(",")) if w)
    if "masks" in kinds and ("segmenter" in kinds or wanted):
        other = "--object" if wanted else f"--masks {kinds['segmenter']}"
        raise not_both(f"--masks {kinds['masks']}", other, "both give the position of the object")
    boxes = load_boxes(kinds["boxes"]) if "boxes" in kinds else None
    if "masks" in kinds:
        return MaskFiles.of(Path(kinds["masks"]), classifier.encoder.transform, names), boxes
    if "segmenter" in kinds:
        drawn = load_segmenter(kinds["segmenter"], encoder=session.own_encoder, engine=session.engine)
        return SegmenterMasks(drawn, wanted), boxes
    if wanted:
        return WordMasks(classifier.encoder, wanted, store=session.store), boxes
    return (None if boxes is None else BoxMasks(boxes)), boxes
