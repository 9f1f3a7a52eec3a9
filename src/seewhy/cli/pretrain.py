"""``seewhy pretrain``: both towers of an encoder learn from pictures with texts, from a start or from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import EncoderName, EngineName, Group, Json, Quiet, Store, output, seed
from .pairs import ImageColumn, LabelColumn, TextColumn
from .training_runs import (
    BatchSize,
    DryRun,
    Epochs,
    Instructions,
    Objective,
    PairsArgument,
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
  seewhy pretrain shards/ -o enc --encoder new:vit --epochs 30 --dry-run
"""


def pretrain(
    context: typer.Context,
    pairs: PairsArgument,
    output: Annotated[Path, output("The encoder's folder.")],
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    objective: Objective = "clip",
    epochs: Epochs = 20,
    batch_size: BatchSize = 256,
    lr: Rate = None,
    validation_pairs: ValidationPairs = None,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    instruction: Instructions = None,
    group: Group = None,
    tensorboard: Tensorboard = None,
    dry_run: DryRun = False,
    seed: Annotated[int, seed("Order, and which texts are drawn.")] = 0,
    as_json: Json = False,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """Train both towers, all of it kept; new:resnet and new:vit begin from nothing."""
    way, columns = way_given(context, all_of_it=True)
    watched = Watched(quiet, tensorboard)
    if way.stays:
        watched.note(way.stays)
    train_and_save(
        way,
        pairs,
        validation_pairs,
        columns,
        (encoder, engine),
        output,
        store=store,
        terminal=watched,
        as_json=as_json,
        dry_run=dry_run,
    )
