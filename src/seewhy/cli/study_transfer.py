"""``seewhy study transfer``: several encoders on the same pictures, and which differences are real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .outputs import StudyFolder, answer, check_both
from .study_options import HeldOut, Labelled, NSeeds, TestPictures, learnt_and_tested
from .terminal import Terminal

if TYPE_CHECKING:
    from ..encoders.base import Encoder

PER_CLASS = "Learn from so many pictures of each class."
N_CORRUPTED = "Test pictures that are also corrupted, at most; 0 for none."
TRANSFER_EXAMPLES = """
Examples:\n\n
  seewhy study transfer photos/ -e lite0 -e lite2\n\n
  seewhy study transfer train/ --test test/ -e lite0 -e timm:resnet50.a1_in1k -e adapted/ -o study\n\n
  seewhy study transfer photos/ -e lite0 -e lite2 --per-class 1 --per-class 4 --n-corrupted 0 --json\n\n
  seewhy study transfer photos.csv --group visit -e lite0 -e open_clip:ViT-B-32/openai
"""


def transfer(
    data: Labelled,
    encoder: options.EncoderNames = None,
    engine: options.EngineName = "auto",
    test: TestPictures = None,
    held_out: HeldOut = 0.2,
    per_class: Annotated[
        list[int] | None,
        typer.Option(min=1, help=f"{PER_CLASS} Left out, 1, 2, 4, 8 and 16.", show_default=False),
    ] = None,
    label_part: Annotated[
        list[float] | None,
        typer.Option(
            help="Learn from such a part of the labels, beside all. Left out, 0.01 and 0.1.", show_default=False
        ),
    ] = None,
    n_seeds: NSeeds = 5,
    n_corrupted: Annotated[int, typer.Option(min=0, help=N_CORRUPTED)] = 300,
    output: StudyFolder = None,
    group: options.Group = None,
    image_column: options.ImageColumn = "image",
    label_column: options.LabelColumn = "label",
    seed: Annotated[int, options.seed("Test pictures, subsets and resampling.")] = 0,
    force: options.Force = False,
    as_json: options.Json = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """Would another encoder be better? Several on the same pictures, with which differences are real; goes on where it
    was stopped."""
    from ..classifiers.linear.recipe import Linear
    from ..studies.transfer import TransferStudy

    terminal = Terminal(quiet)
    check_both(output, "transfer", force)
    study = TransferStudy(
        n_seeds=n_seeds,
        n_corrupted=n_corrupted,
        recipe=Linear(n_crops=0, seed=seed),
        held_out=held_out,
        seed=seed,
    )
    if per_class:
        study = replace(study, shots=tuple(per_class))
    if label_part:
        study = replace(study, parts=tuple(label_part))
    samples, tested = learnt_and_tested(data, test, image=image_column, label=label_column, group=group)
    found = study.run(
        encoders_named(encoder or ["lite0"], engine), samples, output, test=tested, store=options.open_store(store),
        progress=terminal,
    )  # fmt: skip
    answer(found, output, "transfer", force, as_json, print_comparison)
    raise typer.Exit(terminal.exit_code(found.data["n"]))


def encoders_named(names: Sequence[str], engine: str) -> dict[str, Encoder]:
    """Encoders by the names they were given."""
    from ..encoders.find import encoder as find
    from ..errors import InputError

    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise InputError(f"The encoder {twice[0]} was given twice. Each once was expected. Drop one.")
    return {name: find(name, engine=engine) for name in names}


def print_comparison(data: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..studies.pages import real_ones

    shown = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    shown.add_column("measure", no_wrap=True)
    for one in data["encoders"]:
        shown.add_column(one["name"], justify="right")
    shown.add_column("really better")
    family = None
    for table in data["measures"]:
        if table["family"] != family:
            family = table["family"]
            shown.add_row(f"[bold]{family}[/bold]")
        cells = [f"{r['value'] * 100:.1f} ± {(r['interval'][1] - r['interval'][0]) * 50:.1f}" for r in table["rows"]]
        shown.add_row(f"  {table['measure']}", *cells, "; ".join(real_ones(table)) or "–")
    Console(soft_wrap=True).print(shown)
