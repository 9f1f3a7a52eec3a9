"""``seewhy fit``: the user's pictures become a classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import DescriptionFile, EncoderName, EngineName, Json, Quiet, Store, open_store, read_descriptions

EXAMPLES = """
Examples:\n
  seewhy fit photos/ -o birds\n
  seewhy fit birds.csv -o birds --descriptions birds.json\n
  seewhy fit train/ -o birds --validation val/\n
  seewhy fit photos/ -o birds --encoder open_clip:ViT-B-32/openai --solver svm
"""


def fit(
    data: Annotated[
        Path,
        typer.Argument(
            help="A folder with one folder a class, or a .csv, .tsv, .jsonl or .parquet table.", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The classifier's folder.", show_default=False)],
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    descriptions: DescriptionFile = None,
    solver: Annotated[Literal["logistic", "svm"], typer.Option(help="The linear classifier.")] = "logistic",
    n_crops: Annotated[
        int, typer.Option(min=0, help="Random crops and flips a picture, beside the picture itself.")
    ] = 8,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Weigh classes alike, whatever their number of pictures.")
    ] = False,
    held_out: Annotated[float, typer.Option(min=0, max=0.9, help="Part held out to choose and to measure.")] = 0.2,
    image_column: Annotated[str, typer.Option(help="A table's column of file names.")] = "image",
    label_column: Annotated[str, typer.Option(help="A table's column of classes.")] = "label",
    validation: Annotated[
        Path | None,
        typer.Option(
            help="Pictures of the same classes to choose and to measure on, never trained on; a folder or a table. "
            "Takes the place of --held-out.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of splits and crops.")] = 0,
    as_json: Json = False,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """Make a classifier of your pictures, on frozen features. Run again, it goes on where it was stopped."""
    from ..classifiers.linear import Linear
    from ..data import load_samples
    from ..encoders.find import encoder as find
    from .terminal import Terminal

    terminal = Terminal(quiet)
    words = read_descriptions(descriptions)
    samples = load_samples(data, image=image_column, label=label_column)
    chosen_on = None if validation is None else load_samples(validation, image=image_column, label=label_column)
    recipe = Linear(
        solver=solver, n_crops=n_crops, class_weight="balanced" if balanced else None, held_out=held_out, seed=seed
    )
    classifier = recipe.fit(
        find(encoder, engine=engine),
        samples,
        validation=chosen_on,
        descriptions=words,
        store=open_store(store),
        listener=terminal,
    )
    classifier.save(output)
    if as_json:
        print(json.dumps({"model": str(output), **classifier.measures}, ensure_ascii=False))
    else:
        print(f"{output}: {len(classifier.classes)} classes, {classifier.trained_on}")
        accuracy = classifier.measures["held_out_accuracy"]
        if accuracy is not None:
            held = "validation pictures" if validation else "pictures held out while choosing"
            print(f"right on {accuracy:.1%} of {classifier.measures['n_held_out']} {held}")
    raise typer.Exit(terminal.exit_code(classifier.measures["n_pictures"]))
