"""``seewhy pretrain``: both towers of an encoder learn from pictures with texts, from a start or from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from .options import EncoderName, EngineName, Group, Json, Quiet, Store, output, seed
from .pairs import ImageColumn, TextColumn
from .training_runs import (
    BatchSize,
    DryRun,
    Epochs,
    Objective,
    PairsArgument,
    Rate,
    Tensorboard,
    ValidationPairs,
    Watched,
    train_and_save,
)

EXAMPLES = """
Examples:\n
  seewhy pretrain captions.jsonl -o enc --encoder new:resnet\n
  seewhy pretrain captions.jsonl -o enc --encoder lite0 --objective siglip\n
  seewhy pretrain shards/ -o enc --encoder new:vit --epochs 30 --dry-run
"""


def pretrain(
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
    group: Group = None,
    tensorboard: Tensorboard = None,
    dry_run: DryRun = False,
    seed: Annotated[int, seed("Order, and which texts are drawn.")] = 0,
    as_json: Json = False,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """Train both towers, all of it kept; new:resnet and new:vit begin from nothing."""
    from ..training.adapt import Adapt

    how = Adapt(objective=objective, train="towers", keep=1.0, epochs=epochs, batch_size=batch_size, lr=lr, seed=seed)
    train_and_save(
        how,
        pairs,
        validation_pairs,
        {"image": image_column, "text": text_column, "group": group},
        (encoder, engine),
        output,
        store=store,
        terminal=Watched(quiet, tensorboard),
        as_json=as_json,
        dry_run=dry_run,
    )
