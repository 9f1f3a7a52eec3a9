"""``seewhy pretrain``: an encoder learns from pictures with texts or alone, from a start or from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .method_options import Set
from .options import EncoderName, EngineName, Group, Json, Quiet, Store, output, seed
from .pairs import ImageColumn, LabelColumn, TextColumn
from .training_runs import (
    Augment,
    BatchSize,
    DryRun,
    Epochs,
    Instructions,
    Objective,
    Rate,
    Tensorboard,
    ValidationPairs,
    Watched,
    train_and_save,
    way_given,
)

EXAMPLES = """
Examples:\n
  seewhy pretrain captions.jsonl -o enc --encoder new:resnet\n
  seewhy pretrain captions.jsonl -o enc --encoder lite0 --objective siglip\n
  seewhy pretrain products.csv -o enc --objective prefix --text-column title --label-column kind\n
  seewhy pretrain shards/ -o enc --encoder new:vit --epochs 30 --dry-run\n
  seewhy pretrain captions.jsonl -o enc --objective dito --encoder new:vit_swl\n
  seewhy pretrain photos/ -o enc --objective simclr\n
  seewhy pretrain photos/ -o enc --objective supcon --projection fixed\n
  seewhy pretrain streets/ -o enc --objective pixpro --set instance_weight=1 --pyramid --encoder new:resnet\n
  seewhy pretrain digits/ -o enc --objective look --set k=10 --encoder new:resnet/32 --augmentation whole
"""
Data = Annotated[
    str,
    typer.Argument(
        help="Pictures with texts: a table (image, text), JSONL, a folder of pictures with .txt files, or .tar shards. "
        "For objectives without words: class folders, a table (image, label), or just pictures.",
        show_default=False,
    ),
]
Held = Annotated[
    Path | None,
    typer.Option(
        "--validation",
        help="Labelled pictures of the same classes, never trained on, to choose and to measure on: a folder or a "
        "table. Without labels where none are learnt from. Left out, a tenth is held out.",
        show_default=False,
    ),
]


def pretrain(
    context: typer.Context,
    pairs: Data,
    output: Annotated[Path, output("The encoder's folder.")],
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    objective: Objective = "clip",
    setting: Set = None,
    projection: Annotated[
        Literal["none", "linear", "mlp", "fixed"],
        typer.Option(help="What stands behind the encoder meanwhile. Without words; fixed learns nothing."),
    ] = "mlp",
    projection_width: Annotated[int, typer.Option(min=1, help="Of what a linear one or an mlp gives.")] = 128,
    kappa: Annotated[
        float | None,
        typer.Option(min=1, help="Of a fixed one, how fast weights fall.", show_default="by --effective"),
    ] = None,
    effective: Annotated[
        float | None,
        typer.Option(min=0.001, help="Of a fixed one, coordinates that count.", show_default="half of them"),
    ] = None,
    keep_head: Annotated[
        bool, typer.Option("--keep-head", help="The encoder ends behind the projection. Otherwise before it.")
    ] = False,
    pyramid: Annotated[
        bool,
        typer.Option(
            "--pyramid", help="Train a feature pyramid on the stages too, and keep it. For objectives of cells."
        ),
    ] = False,
    augmentation: Augment = "simclr",
    epochs: Epochs = 20,
    batch_size: BatchSize = 256,
    lr: Rate = None,
    validation: Held = None,
    validation_pairs: ValidationPairs = None,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    instruction: Instructions = None,
    group: Group = None,
    tensorboard: Tensorboard = None,
    dry_run: DryRun = False,
    seed: Annotated[int, seed("Weights, order, and which texts and views are drawn.")] = 0,
    as_json: Json = False,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """Train an encoder, all of it kept; new:resnet, new:vit and new:vit_swl begin from nothing."""
    way, columns = way_given(context, all_of_it=True)
    watched = Watched(quiet, tensorboard)
    if way.stays:
        watched.note(way.stays)
    train_and_save(
        way,
        pairs,
        held(validation, validation_pairs),
        columns,
        (encoder, engine),
        output,
        store=store,
        terminal=watched,
        as_json=as_json,
        dry_run=dry_run,
    )


def held(validation: Path | None, validation_pairs: str | None) -> str | None:
    """What is measured on, by whichever of the two options was given.

    Raises:
        InputError: both were.
    """
    if validation is None or validation_pairs is None:
        return validation_pairs if validation is None else str(validation)
    from ..errors import InputError

    raise InputError(
        "Both --validation and --validation-pairs were given. One of them was expected: pictures with texts are given "
        "to --validation-pairs, all others to --validation. Drop one."
    )
