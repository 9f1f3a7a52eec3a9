"""``seewhy fit-generator``: trains what turns an encoder's codes back into pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import EncoderName, EngineName, Json, Quiet, output, seed
from .terminal import say

EXAMPLES = """
Examples:\n
  seewhy fit-generator photos/ -o gen --reads 96\n
  seewhy generate -m birds --generator gen --class wren -o made/\n
  seewhy fit-generator digits/ -o gen --encoder enc --pixels 32 --steps 3000\n
  seewhy fit-generator photos/ -o gen --gan 0.01
"""


def fit_generator(
    data: Annotated[
        str,
        typer.Argument(
            help="Class folders, a folder of pictures, or a table. Classes are not used.", show_default=False
        ),
    ],
    output: Annotated[Path, output("The generator's folder.")],
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    pixels: Annotated[int, typer.Option(help="Side of what is made: 16, 32, 64 or 128.")] = 64,
    reads: Annotated[
        int | None,
        typer.Option(help="Side at which the encoder reads made pictures. Less is faster.", show_default="its own"),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Batches in all, instead of epochs.", show_default="2000")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 32,
    lr: Annotated[float, typer.Option(min=1e-8, help="Highest learning rate.")] = 1e-3,
    h1: Annotated[float, typer.Option(min=0, help="Weight of the encoder's features beside that of pixels.")] = 0.05,
    gan: Annotated[float, typer.Option(min=0, help="Weight of a network that tells made from real; 0, none.")] = 0.0,
    seed: Annotated[int, seed("Weights, order and what is held out.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a generator on pictures; run again, it goes on where it was stopped."""
    from ..encoders.find import encoder as find
    from ..generation.generator import check_generator
    from ..generation.training import FitGenerator, recipe_of
    from ..pictures.unlabelled import load_pictures
    from ..storage.marks import CHECKPOINT
    from ..storage.output import check_checkpoint, make_folder, remove
    from .terminal import Terminal

    terminal = Terminal(quiet)
    fit = FitGenerator(pixels, reads, h1=h1, gan=gan, n_steps=steps or 2000, batch_size=batch_size, lr=lr, seed=seed)
    folder = make_folder(check_generator(output))
    checkpoint = check_checkpoint(folder / ".generator.checkpoint")
    pictures = load_pictures(data)
    made = fit.fit(find(encoder, engine=engine), pictures.items, checkpoint=checkpoint, progress=terminal)
    path = made.save(folder)
    remove(checkpoint, CHECKPOINT)
    if as_json:
        say(json.dumps({"generator": str(path), "encoder": made.read.encoder.name, **made.facts}, ensure_ascii=False))
    else:
        say(f"{path}: {recipe_of(made.facts)}")
    raise typer.Exit(terminal.exit_code(len(pictures.items)))
