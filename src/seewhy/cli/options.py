"""Arguments and options that mean the same in several verbs, and what they name."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .session import DEFAULT_ENCODER, Session
from .standard_input import standard_input

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..descriptions.base import Descriptions
    from ..pictures.boxes.base import BoxData
    from ..pictures.object_masks import MaskSource
    from ..pictures.samples import Samples
    from ..storage.features import FeatureStore


def option(help: str, *names: str, **how: Any) -> Any:
    """An option that shows no default."""
    return typer.Option(*names, help=help, show_default=False, **how)


def argument(help: str, **how: Any) -> Any:
    return typer.Argument(help=help, show_default=False, **how)


def saved(what: str) -> Any:
    """``--model``, with what this verb takes for one, and does without it."""
    return option(f"A saved model. {what}", "--model", "-m")


def labels(more: str = "") -> Any:
    names = "Your classes: names separated by commas, or a .txt with one per line."
    return option(names + more, "--labels", "-l")


def output(what: str, metavar: str | None = None) -> Any:
    """``-o``, with ``what`` this verb writes. Left out, a verb that reports writes nothing; others ask for a place."""
    return option(f"Where to write. {what}", "--output", "-o", metavar=metavar)


def method(what: str) -> Any:
    """``--method`` of the verbs that make or find something."""
    return option(f"How it is made, by its name. {what}", "--method", "-M")


Pictures = Annotated[list[str], argument("Picture files and folders; - reads file names from standard input.")]
Labelled = Annotated[Path, argument("Labelled pictures: a folder with one folder per class, or a table.")]
OTHERWISE = "Left out, what --labels names, or the encoder's own classes (lite0: ImageNet's)."
Model = Annotated[str | None, saved(f"A classifier. {OTHERWISE}")]
Labels = Annotated[str | None, labels(" Or a .json with descriptions.")]
Names = Annotated[str | None, labels()]
DescriptionFile = Annotated[
    Path | None, option('Texts of each class: a JSON, {"class": ["text", …]}.', "--descriptions")
]
FollowUpFile = Annotated[
    Path | None,
    option(
        "Decide between the likeliest classes by what parts them: the file of seewhy describe write --pairs.",
        "--follow-up",
    ),
]
Level = Annotated[
    float, typer.Option(help="How often the true class is to be among those that a decision names: 0.5 to below 1.")
]
Validation = Annotated[
    Path | None,
    option(
        "Labelled pictures of the same classes, never trained on, to choose and to measure on: a folder or a table. "
        "Left out, those that fit holds out.",
        "--validation",
    ),
]
TestPictures = Annotated[
    Path | None,
    option("Labelled pictures of the same classes to test on. Left out, a part of the pictures.", "--test"),
]
StudyFolder = Annotated[
    Path | None, output("A folder for the report, its JSON and what it is made from; left out, it is only printed.")
]
Measure = Annotated[bool, typer.Option(help="Measure deletion and insertion (about one second a picture).")]
Crops = Annotated[
    str, typer.Option(help="center: the model's own crop; twelve: the picture, 5 crops, and all mirrored.")
]
Also = Annotated[
    list[Path] | None, option("Labelled pictures of other things: are they still told by name? Again for another set.")
]
Masks = Annotated[
    list[str] | None,
    option(
        "Where the objects are: a mask or a folder of masks named like the pictures, boxes (COCO, YOLO, VOC, a table), "
        "or a saved segmenter, which draws each class by its name, or --object.",
        "--masks",
    ),
]
ObjectWords = Annotated[
    str | None, option("Words for the object, separated by commas, by which it is found.", "--object")
]
DetectorName = "word_regions; with a folder of weights owlv2:PATH, grounding_dino:PATH."
Because = Annotated[bool, typer.Option("--because", help="Also what likenesses rest on: hue, texture, shape and more.")]
Parquet = Annotated[
    bool,
    typer.Option(
        "--parquet",
        help="Many pictures: -o names a folder of Parquet files, one for each shard of the one input.",
        rich_help_panel="Many pictures",
    ),
]
Part = Annotated[
    str,
    option(
        "Which part of the input, of how many: 3/16. Always the same pictures, whoever else runs; for Slurm arrays and "
        "xargs.",
        "--shard",
        rich_help_panel="Many pictures",
    ),
]
Workers = Annotated[
    int,
    option("Processes on this machine, which share its cores.", "--workers", min=1, rich_help_panel="Many pictures"),
]
OnCluster = Annotated[
    str | None,
    option(
        "On Ray: local, this machine; auto, or HOST:PORT, the cluster that this machine belongs to. --workers are then "
        "actors there, each with its threads.",
        "--cluster",
        rich_help_panel="Many pictures",
    ),
]
Host = Annotated[
    str,
    typer.Option(help="Address to listen on; 0.0.0.0 opens the page to the network.", rich_help_panel="The page"),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.", rich_help_panel="The page")]
HostNames = Annotated[
    list[str] | None,
    option("A host name to answer under, beside localhost and addresses.", "--name", rich_help_panel="The page"),
]


def open_store(name: str | None) -> FeatureStore | None:
    """The feature store named, or none; without the one in the cache, which nobody asked for, a run goes on.

    Raises:
        DataError: the one that was named cannot be used.
    """
    from ..errors import DataError
    from ..storage.features import FeatureStore

    if name == "none":
        return None
    try:
        return FeatureStore(name)
    except DataError as error:
        if name is not None:
            raise
        logging.getLogger("seewhy").warning("%s This run goes on without it.", error)
        return None


def picture_names(pictures: list[str], output: Path | None = None) -> Iterator[str]:
    """Files, and the pictures in folders; ``-`` stands for the names on standard input."""
    from ..errors import DataError
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
                raise DataError("Standard input is empty. File names were expected, one a line. Check what gives them.")
        else:
            yield from _listed(one, alone)


def _lines(output: Path | None) -> Iterator[str]:
    from ..storage.output import check_apart

    for line in standard_input():
        if name := line.rstrip("\r\n"):
            if output is not None:
                check_apart(output, [Path(name)])
            yield name


def _listed(one: str, alone: bool) -> Iterator[str]:
    """The pictures in a folder; one without any is handed on among others, so that it is named and the rest goes on."""
    from ..errors import EmptyFolderError
    from ..pictures.sources import list_pictures

    try:
        yield from list_pictures([one])
    except EmptyFolderError:
        if alone:
            raise
        yield one


def read_descriptions(path: Path | None) -> Descriptions | None:
    from ..descriptions.base import Descriptions

    return None if path is None else Descriptions.read(path)


def grouped_samples(data: Path, image: str, label: str, group: str | None) -> Samples:
    """Labelled pictures; the text of each is its value in the column of groups, if one is named."""
    from dataclasses import replace

    from ..errors import DataError
    from ..pictures.samples import load_samples

    samples = load_samples(data, image=image, label=label, text=group or "text")
    if group is None:  # a table's texts are no groups
        return replace(samples, items=tuple(replace(s, texts=()) for s in samples.items))
    if not any(s.text for s in samples.items):
        raise DataError(f"{data} has no column {group!r}. A table with that column was expected. Name one it has.")
    return samples


def focused(encoder: str, focus: str | None) -> str:
    """The encoder's name, with the instruction that it looks under."""
    return encoder if focus is None else f"{encoder}#{focus}"


def encoder_given(encoder: str) -> str | None:
    """The encoder, if a person named one."""
    return None if encoder == DEFAULT_ENCODER else encoder


def resolve(
    model: str | None,
    labels: str | None,
    encoder: str,
    engine: str,
    descriptions: Path | None,
    store: FeatureStore | None,
    follow_up: Path | None = None,
) -> Classifier:
    """The classifier the options name."""
    from ..errors import InputError

    if follow_up is not None:
        if descriptions is not None:
            raise InputError(
                "--follow-up and --descriptions were both given. The sentences that decide are the words: drop one."
            )
        from ..classifiers.follow_up import FollowUp
        from ..language.questions import read_pairs

        pairs = read_pairs(follow_up)
        return FollowUp().after(resolve(model, labels, encoder, engine, None, store), pairs, store)
    words = read_descriptions(descriptions)
    if model is not None:
        from ..classifiers.saving import load

        found = load(model, engine=engine, encoder=encoder_given(encoder))
        if labels is not None:
            found = named_by(found, labels)
        return found if words is None else found.with_descriptions(words, store)
    from ..encoders.find import encoder as find

    looked = find(encoder, engine=engine)
    if labels is None:
        from ..classifiers.pretrained import Pretrained

        return Pretrained().build(looked, words, store)
    named = from_labels(labels, looked, store)
    return named if words is None else named.with_descriptions(words, store)


def named_by(model: Classifier, labels: str) -> Classifier:
    """Other classes by their names, where a saved classifier tells any."""
    from ..classifiers.network import NamesClasses
    from ..errors import InputError

    if not isinstance(model.network, NamesClasses):
        raise InputError("--model and --labels were both given. A saved classifier has its own classes: drop one.")
    return model.network.classifier(names_in(labels))


def from_labels(labels: str, encoder: object, store: FeatureStore | None) -> Classifier:
    """A classifier from names or from descriptions."""
    from ..classifiers.described import Described
    from ..classifiers.zero_shot import ZeroShot
    from ..descriptions.base import Descriptions
    from ..encoders.base import Encoder

    assert isinstance(encoder, Encoder)
    if labels.lower().endswith(".json"):
        return Described().build(encoder, Descriptions.read(labels), store)
    if labels.lower().endswith(".txt"):
        return ZeroShot().build(encoder, lines_of(Path(labels), "class"), store)
    return ZeroShot().build(encoder, labels.split(","), store)


def lines_of(path: Path, what: str) -> list[str]:
    """The lines of a text file of the person's; each is one of ``what``. DataError where it cannot be read."""
    from ..errors import DataError
    from ..storage.reading import read_text, reason

    try:
        return read_text(path).splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}. Write one {what} a line, in UTF-8.") from error


def names_in(text: str) -> list[str]:
    """Names separated by commas, or those of a .txt with one per line.

    >>> names_in("a wren, a robin")
    ['a wren', 'a robin']
    """
    names = lines_of(Path(text), "class") if text.lower().endswith(".txt") else text.split(",")
    return [name.strip() for name in names if name.strip()]


def label_names(labels: str) -> list[str]:
    """The same as they were typed, for whoever refuses empty ones."""
    return lines_of(Path(labels), "class") if labels.lower().endswith(".txt") else labels.split(",")


def objects_of(
    session: Session, classifier: Classifier, names: Iterable[str], masks: list[str] | None, words: str | None
) -> tuple[MaskSource | None, BoxData | None]:
    """Who says where the objects are: masks, else a segmenter, else words, else boxes; and the boxes, if there are any.

    Raises:
        InputError: masks were given, and who else should draw some.
    """
    from ..dense.object_masks import SegmenterMasks, WordMasks
    from ..dense.saving import is_segmenter, load_segmenter
    from ..errors import InputError
    from ..pictures.boxes import has_boxes, load_boxes
    from ..pictures.object_masks import BoxMasks, MaskFiles

    kinds: dict[str, str] = {}
    for place in masks or ():
        boxed = has_boxes(Path(place))
        kinds["segmenter" if is_segmenter(place) else "boxes" if boxed else "masks"] = place
    wanted = tuple(w for w in map(str.strip, (words or "").split(",")) if w)
    if "masks" in kinds and ("segmenter" in kinds or wanted):
        other = "--object" if wanted else f"--masks {kinds['segmenter']}"
        raise InputError(
            f"--masks {kinds['masks']} and {other} were both given. One of them was expected, as one says where the "
            "object is. Drop one."
        )
    boxes = load_boxes(kinds["boxes"]) if "boxes" in kinds else None
    if "masks" in kinds:
        return MaskFiles.of(Path(kinds["masks"]), classifier.encoder.transform, names), boxes
    if "segmenter" in kinds:
        drawn = load_segmenter(kinds["segmenter"], encoder=session.own_encoder, engine=session.engine)
        return SegmenterMasks(drawn, wanted), boxes
    if wanted:
        return WordMasks(classifier.encoder, wanted, store=session.store), boxes
    return (None if boxes is None else BoxMasks(boxes)), boxes
