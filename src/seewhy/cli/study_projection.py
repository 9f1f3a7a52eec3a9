"""``seewhy study projection-head``: what an encoder keeps before its projection head, and loses behind it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .options import EncoderName, EngineName, Force, Group, ImageColumn, Json, LabelColumn, Quiet, Store, open_store
from .options import seed as seed_option
from .outputs import StudyFolder, answer, check_both
from .study_options import HeldOut, Labelled, NSeeds, TestPictures, learnt_and_tested
from .study_transfer import N_CORRUPTED, PER_CLASS, print_comparison
from .terminal import Terminal
from .training_runs import Augment, BatchSize, Epochs, Objective, Rate

PROJECTION_EXAMPLES = """
Examples:\n\n
  seewhy study projection-head photos/ -o study\n\n
  seewhy study projection-head digits/ -e new:resnet/32 --augmentation whole --head none --head mlp\n\n
  seewhy study projection-head train/ --test test/ --objective supcon --epochs 5 -o study --json
"""


def projection_head(
    data: Labelled,
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    objective: Objective = "simclr",
    head: Annotated[
        list[str] | None,
        typer.Option(
            help="A kind of projection head: none, linear, mlp or fixed. Again for another; left out, all of them.",
            show_default=False,
        ),
    ] = None,
    augmentation: Augment = "simclr",
    epochs: Epochs = 20,
    batch_size: BatchSize = 256,
    lr: Rate = None,
    test: TestPictures = None,
    held_out: HeldOut = 0.2,
    per_class: Annotated[
        list[int] | None, typer.Option(min=1, help=f"{PER_CLASS} Left out, 4 and 16.", show_default=False)
    ] = None,
    n_seeds: NSeeds = 5,
    n_corrupted: Annotated[int, typer.Option(min=0, help=N_CORRUPTED)] = 0,
    output: StudyFolder = None,
    group: Group = None,
    image_column: ImageColumn = "image",
    label_column: LabelColumn = "label",
    seed: Annotated[int, seed_option("Weights, order, views, test pictures and subsets.")] = 0,
    force: Force = False,
    as_json: Json = False,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """What does an encoder keep before its projection head, and lose behind it? Stopped, it goes on where it was."""
    from ..classifiers.linear.recipe import Linear
    from ..encoders.find import encoder as find
    from ..studies.projection_head import ProjectionHeadStudy
    from ..studies.transfer import TransferStudy

    terminal = Terminal(quiet)
    check_both(output, "projection-head", force)
    given: dict[str, Any] = {"heads": tuple(head)} if head else {}
    study = ProjectionHeadStudy(
        objective,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        augmentation=augmentation,
        probes=TransferStudy(
            tuple(per_class or (4, 16)),
            (0.1,),
            n_seeds,
            n_corrupted,
            Linear(n_crops=0, seed=seed),
            held_out,
            seed=seed,
        ),
        **given,
    )
    samples, tested = learnt_and_tested(data, test, image=image_column, label=label_column, group=group)
    found = study.run(
        find(encoder, engine=engine), samples, output, test=tested, store=open_store(store), progress=terminal
    )
    answer(found, output, "projection-head", force, as_json, print_comparison)
    raise typer.Exit(terminal.exit_code(found.data["n"]))
