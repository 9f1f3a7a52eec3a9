"""Options that mean the same in every verb."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .standard_input import standard_input
from .terminal import say

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..descriptions.base import Descriptions
    from ..pictures.samples import Samples
    from ..storage.features import FeatureStore

Pictures = Annotated[
    list[str],
    typer.Argument(help="Picture files and folders; - reads file names from standard input.", show_default=False),
]


def saved(what: str) -> Any:
    """``--model``, with what this verb takes for one, and does without it."""
    return typer.Option("--model", "-m", help=f"A saved model. {what}", show_default=False)


def labels(more: str = "") -> Any:
    names = "Your classes: names separated by commas, or a .txt with one per line."
    return typer.Option("--labels", "-l", help=names + more, show_default=False)


OTHERWISE = "Left out, what --labels names, or the encoder's own classes (lite0: ImageNet's)."
Model = Annotated[str | None, saved(f"A classifier. {OTHERWISE}")]
Labels = Annotated[str | None, labels(" Or a .json with descriptions.")]
Names = Annotated[str | None, labels()]
DescriptionFile = Annotated[
    Path | None,
    typer.Option("--descriptions", help='Texts of each class: a JSON, {"class": ["text", …]}.', show_default=False),
]
FollowUpFile = Annotated[
    Path | None,
    typer.Option(
        "--follow-up",
        help="Decide between the likeliest classes by what parts them: the file of seewhy describe pairs.",
        show_default=False,
    ),
]
DEFAULT_ENCODER = "lite0"
"""Of every verb; one that is the same is the same as none, and then a saved classifier's own embedded one is taken."""

EncoderName = Annotated[
    str,
    typer.Option(
        "--encoder",
        "-e",
        help="lite0, timm:NAME, torchvision:NAME, open_clip:MODEL/PRETRAINED, hf:ORG/NAME, file:PATH, or the folder "
        "of an adapted encoder. A saved classifier or index may name an embedded one; any other is named here.",
    ),
]
EncoderNames = Annotated[
    list[str] | None,
    typer.Option(
        "--encoder",
        "-e",
        help="lite0, timm:NAME, torchvision:NAME, open_clip:MODEL/PRETRAINED, hf:ORG/NAME, file:PATH, or the folder "
        "of an adapted encoder. Again for another; left out, lite0.",
        show_default=False,
    ),
]
Focus = Annotated[
    str | None,
    typer.Option(
        help="Look at every picture under this instruction, such as 'the colour', where the encoder takes one.",
        show_default=False,
    ),
]
EngineName = Annotated[
    str, typer.Option("--engine", help="auto, openvino, onnxruntime or torch; with a precision: openvino:f32.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per line, on standard output.")]
Store = Annotated[
    str | None,
    typer.Option(
        "--store", help="Feature store; left out, the one in the cache; 'none' keeps nothing.", show_default=False
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Write over a file that SeeWhy did not make; never over one that is read."),
]
Level = Annotated[
    float, typer.Option(help="How often the true class is to be among those that a decision names: 0.5 to below 1.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")]
Validation = Annotated[
    Path | None,
    typer.Option(
        "--validation",
        help="Labelled pictures of the same classes, never trained on, to choose and to measure on: a folder or a "
        "table. Left out, those that fit holds out.",
        show_default=False,
    ),
]
ImageColumn = Annotated[str, typer.Option(help="A table's column of file names.")]
LabelColumn = Annotated[str, typer.Option(help="A table's column of classes.")]
Group = Annotated[
    str | None,
    typer.Option(
        help="A table's column that says which pictures belong together (thing, visit, patient), or, for class "
        "folders, the word folder: those of one folder below a class. They are held out together, and an interval is "
        "as wide as their number allows.",
        show_default=False,
    ),
]
By = Annotated[
    str | None,
    typer.Option("--by", help="A table's column: what edited words change is told for each value.", show_default=False),
]
Crops = Annotated[
    str, typer.Option(help="center: the model's own crop; twelve: the picture, 5 crops, and all mirrored.")
]
Measure = Annotated[bool, typer.Option(help="Measure deletion and insertion (about one second a picture).")]
Strengths = Annotated[
    str, typer.Option(help="Of those changes: calibrated, to an equal change of the picture, or paper.")
]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 opens the page to the network.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")]
HostNames = Annotated[
    list[str] | None,
    typer.Option("--name", help="A host name to answer under, beside localhost and addresses.", show_default=False),
]
MaxUpload = Annotated[float, typer.Option(min=0.001, help="Largest request, in megabytes.")]
DecodeSeconds = Annotated[
    int, typer.Option(min=1, help="Computing that one picture may take to be decoded; then it is refused.")
]


def output(what: str, metavar: str | None = None) -> Any:
    """``-o``, with ``what`` this verb writes. Left out, a verb that reports writes nothing; others ask for a place."""
    return typer.Option("--output", "-o", help=f"Where to write. {what}", show_default=False, metavar=metavar)


def seed(of: str) -> Any:
    """``--seed`` of what this verb draws."""
    return typer.Option(help=f"Of what is drawn at random. {of}", min=-(2**63), max=2**63 - 1)


def held_out(default: str | bool, what: str, least: float) -> Any:
    """``--held-out``: a part, never pictures; those are ``--validation``."""
    return typer.Option(
        help=f"Part held out to choose and to measure on. {what}", min=least, max=0.9, show_default=default
    )


def method(what: str) -> Any:
    """``--method`` of the verbs that make something."""
    return typer.Option("--method", "-M", help=f"How it is made, by its name. {what}")


def also(what: str) -> Any:
    """``--also`` of the verbs that measure an adaptation."""
    return typer.Option(
        help=f"Labelled pictures of other things: are they still told by name? {what}", show_default=False
    )


def because(what: str) -> Any:
    """``--because`` of the verbs that have likenesses."""
    return typer.Option("--because", help=f"Also what likenesses rest on: hue, texture, shape and more. {what}")


def n_texts(what: str, least: int) -> Any:
    """``--n-texts`` of the verbs that write or choose them."""
    return typer.Option("--n-texts", min=least, help=f"Texts of each, at most. {what}")


def top(what: str, least: int) -> Any:
    """``--top`` of the verbs that list or compare classes."""
    return typer.Option(min=least, help=f"So many of a picture's likeliest classes. {what}")


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version as installed

        say(installed("seewhy"))
        raise typer.Exit


def version_option(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def open_store(name: str | None) -> FeatureStore | None:
    """The feature store named, or none; without the one in the cache, which nobody asked for, a run goes on."""
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
    from .adapt_names import names_in

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
