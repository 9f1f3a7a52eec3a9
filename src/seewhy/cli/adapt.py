"""``seewhy adapt``: an encoder learns from pictures with texts, or a few classes by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .adapt_names import Also, BaseToNew, Method, NewNames, Shots, adapt_and_save, refuse_without_method
from .method_options import Set
from .options import EncoderName, EngineName, Group, Json, Quiet, Store, Validation, output, saved, seed
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
  seewhy adapt captions.jsonl -o enc\n
  seewhy adapt captions.jsonl -o enc --keep 0.3 --validation-pairs dev.jsonl\n
  seewhy adapt products.csv -o enc --text-column title --objective siglip\n
  seewhy adapt captions.jsonl -o enc --train towers --epochs 2 --dry-run\n
  seewhy adapt products.csv -o enc --objective focallens --instruction colour="the colour"\n
  seewhy adapt products.csv -o enc --objective prefix --text-column title --label-column kind\n
  seewhy explain photo.jpg --encoder enc --labels "a dog,a cat"\n
  seewhy adapt photos/ -o birds --method coop --shots 4\n
  seewhy adapt photos/ -o birds --method ogen --base-to-new --also others/\n
  seewhy predict new/ -m birds --labels "a wren,a robin"
"""


def adapt(
    context: typer.Context,
    pairs: PairsArgument,
    output: Annotated[Path, output("The adapted encoder's folder; with --method, the classifier's.")],
    method: Method = None,
    setting: Set = None,
    model: Annotated[
        str | None, saved("With --method, a classifier, which is adapted and compared with. Left out, --encoder.")
    ] = None,
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    objective: Objective = "clip",
    train: Annotated[
        Literal["heads", "image", "text", "towers"],
        typer.Option(
            help="What learns. Small heads behind frozen towers, the picture tower, the words tower, or both."
        ),
    ] = "heads",
    keep: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="How much of what was learnt is kept: 0 none, 1 all. Left out, chosen on held-out pictures.",
            show_default=False,
        ),
    ] = None,
    may_forget: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Most that a chosen --keep may cost. Of the agreement with the encoder's own classes, by their names.",
        ),
    ] = 0.1,
    epochs: Epochs = 12,
    batch_size: BatchSize = 512,
    lr: Rate = None,
    shots: Shots = None,
    base_to_new: BaseToNew = False,
    new_names: NewNames = None,
    also: Also = None,
    validation: Validation = None,
    validation_pairs: ValidationPairs = None,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    instruction: Instructions = None,
    group: Group = None,
    tensorboard: Tensorboard = None,
    dry_run: DryRun = False,
    seed: Annotated[int, seed("Weights, order, and which texts are drawn.")] = 0,
    as_json: Json = False,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """Teach an encoder your own pictures and words. Run again, it goes on where it was stopped."""
    if method is not None:
        adapt_and_save(context, method, Watched(quiet, tensorboard))
    refuse_without_method(context)
    way, columns = way_given(context)
    train_and_save(
        way,
        pairs,
        validation_pairs,
        columns,
        (encoder, engine),
        output,
        store=store,
        terminal=Watched(quiet, tensorboard),
        as_json=as_json,
        dry_run=dry_run,
    )
