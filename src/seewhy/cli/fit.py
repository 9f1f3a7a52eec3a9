"""``seewhy fit``: the user's pictures become a classifier."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import options
from .method_options import Set
from .terminal import say

if TYPE_CHECKING:
    from ..classifiers import Recipe

PART = r"\.(plain|[0-9.]+(e-?[0-9]+)?)"
EXAMPLES = """
Examples:\n
  seewhy fit photos/ -o birds\n
  seewhy fit birds.csv -o birds --descriptions birds.json\n
  seewhy fit train/ -o birds --validation val/\n
  seewhy fit photos/ -o birds --encoder open_clip:ViT-B-32/openai --solver svm\n
  seewhy fit photos/ -o birds --method neighbours --set k=20\n
  seewhy fit photos/ -o birds --method gist --descriptions birds.json
"""


def fit(
    data: Annotated[
        Path,
        typer.Argument(
            help="A folder with one folder per class, or a .csv, .tsv, .jsonl or .parquet table.", show_default=False
        ),
    ],
    output: Annotated[Path, options.output("The classifier's folder.")],
    method: Annotated[str, options.method("See: seewhy methods.")] = "linear",
    setting: Set = None,
    encoder: options.EncoderName = "lite0",
    engine: options.EngineName = "auto",
    descriptions: options.DescriptionFile = None,
    captions: Annotated[
        Path | None,
        typer.Option(
            help="Texts of each picture, a .jsonl, for methods that train with them. See: seewhy describe match.",
            show_default=False,
        ),
    ] = None,
    solver: Annotated[
        Literal["logistic", "svm"] | None, typer.Option(help="The linear classifier.", show_default="logistic")
    ] = None,
    n_crops: Annotated[
        int | None,
        typer.Option(
            min=0, help="Random crops and flips a picture, beside the picture itself.", show_default="the method's own"
        ),
    ] = None,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Weigh classes alike, whatever their number of pictures.")
    ] = False,
    held_out: Annotated[
        float | None, options.held_out("the method's own", "--validation takes its place.", least=0)
    ] = None,
    split: Annotated[
        Literal["grouped", "random"] | None,
        typer.Option(
            help="grouped: pictures of the same thing are held out together; random: each by itself, which flatters.",
            show_default="grouped",
        ),
    ] = None,
    group: options.Group = None,
    image_column: options.ImageColumn = "image",
    label_column: options.LabelColumn = "label",
    validation: options.Validation = None,
    seed: Annotated[int | None, options.seed("Splits and crops.")] = None,
    as_json: options.Json = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """Make a classifier of your pictures. Run again, it goes on where it was stopped."""
    from ..classifiers.figures import held_out_lines
    from ..classifiers.saving import ARCHIVE
    from ..encoders.find import encoder as find
    from ..language.matching import read_captions
    from ..pictures.samples import load_samples
    from ..storage.output import check_checkpoint, make_folder
    from .method_options import settings
    from .terminal import Terminal

    terminal = Terminal(quiet)
    ARCHIVE.check(output)
    named: dict[str, Any] = {"solver": solver, "n_crops": n_crops, "held_out": held_out, "seed": seed}
    named |= {"split": split}
    named |= {"class_weight": "balanced" if balanced else None}
    recipe = recipe_from(method, {name: v for name, v in named.items() if v is not None}, settings(setting))
    words = options.read_descriptions(descriptions)
    samples = load_samples(data, image=image_column, label=label_column, group=group)
    chosen_on = None if validation is None else load_samples(validation, image=image_column, label=label_column)
    checkpoint = output.parent / f".{output.name}.checkpoint"
    if output.parent.is_dir():
        check_checkpoint(checkpoint)
    said = None if captions is None else read_captions(captions)
    recipe.check_given(descriptions=words, captions=said)
    keeps = "checkpoint" in recipe.takes
    if keeps:
        make_folder(output.parent)
    classifier = recipe.fit(
        find(encoder, engine=engine),
        samples,
        validation=chosen_on,
        descriptions=words,
        captions=said,
        store=options.open_store(store),
        progress=terminal,
        checkpoint=checkpoint if keeps else None,
    )
    classifier = classifier.with_trust(terminal)
    classifier.save(output)
    if keeps:
        remove_checkpoints(checkpoint)
    measures = classifier.measures
    if as_json:
        say(json.dumps({"model": str(output), **measures}, ensure_ascii=False))
    else:
        say(f"{output}: {len(classifier.classes)} classes, {classifier.trained_on}")
        for line in held_out_lines(measures):
            say(line)
    raise typer.Exit(terminal.exit_code(measures.get("n_pictures", len(samples))))


def remove_checkpoints(checkpoint: Path) -> None:
    """What this fit would have gone on from: the file itself, and those of its parts, named by a rate or ``plain``."""
    import os

    from ..storage.marks import CHECKPOINT
    from ..storage.output import remove

    for name in os.listdir(checkpoint.parent):
        if name == checkpoint.name or re.fullmatch(re.escape(checkpoint.name) + PART, name):
            remove(checkpoint.parent / name, CHECKPOINT)


def recipe_from(name: str, named: dict[str, Any], given: dict[str, str]) -> Any:
    """The recipe with its fields, from options of their own and from ``--set``."""
    from typing import cast

    from ..classifiers import classifiers
    from ..errors import InputError
    from ..parameters import configured, settings_of

    found: type[Recipe] = classifiers[name]
    if not hasattr(found, "fit"):
        able = ", ".join(n for n in classifiers if hasattr(classifiers[n], "fit"))
        raise InputError(f"{name} is not made from pictures. One of {able} was expected. Use it with explain --labels.")
    known = [s.name for s in settings_of(cast(Any, found))]
    option = {"class_weight": "--balanced"}
    for field in named:
        if field not in known:
            written = option.get(field, "--" + field.replace("_", "-"))
            raise InputError(f"{name} was given {written}. It has {', '.join(known)}. Leave it out.")
        if field in given:
            raise InputError(f"{field} was given twice, as an option and with --set. Keep one of them.")
    return configured(cast(Any, found), {**named, **given})
