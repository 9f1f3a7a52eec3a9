"""``seewhy study real-or-generated --make``: the set of made pictures itself, every one with its seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import resolve
from .terminal import Terminal, say

MakeFolder = Annotated[
    Path | None,
    typer.Option(
        "--make",
        help="Instead of a study, make pictures with --generator into this folder; run again, it goes on.",
        show_default=False,
    ),
]
ClassNames = Annotated[
    str | None, typer.Option("--classes", help="Names of what is made, separated by commas.", show_default=False)
]
GeneratorFolder = Annotated[
    Path | None,
    typer.Option(
        "--generator", help="The folder of a diffusers pipeline, or of a trained generator.", show_default=False
    ),
]
PerClass = Annotated[int, typer.Option("--count", min=1, help="So many different ones.")]
Prompt = Annotated[str, typer.Option("--prompt", help="Sentence for the pipeline; {} is the class's name.")]
Denoising = Annotated[
    int | None,
    typer.Option("--denoising-steps", min=1, help="Of the pipeline, or of the walk.", show_default="its own"),
]
Guidance = Annotated[
    float | None, typer.Option(min=0, help="How much the prompt weighs in a pipeline.", show_default="its own")
]


def make_pictures(
    folder: Path,
    generator: Path | None,
    classes: str | None,
    count: int,
    prompt: str,
    steps: int | None,
    guidance: float | None,
    seed: int,
    through: tuple[str | None, str, str],
    as_json: bool,
    terminal: Terminal,
) -> None:
    """Make the set and say where it is."""
    from ..errors import InputError
    from ..generation.generator import load_generator
    from ..generation.made_set import MadeSet, OfGenerator, Source, check_set, is_pipeline, load_pipeline
    from ..generation.sampler import PPGN

    if generator is None:
        raise InputError(
            "--make was given without --generator. The folder of a diffusers pipeline, or of a trained generator, was "
            "expected. Name one."
        )
    names = tuple(filter(None, (one.strip() for one in (classes or "").split(","))))
    asked = MadeSet(names, count, prompt, seed)
    check_set(folder)
    made: Source
    if is_pipeline(generator):
        made = load_pipeline(generator, steps=steps, guidance=guidance)
    else:
        model, encoder, engine = through
        climbed = resolve(model, None, encoder, engine, None, None) if names and model else None
        loaded = load_generator(generator, own=None if climbed is None else climbed.encoder, engine=engine)
        if names and climbed is None and not loaded.read.encoder.has_text:
            climbed = resolve(None, None, encoder, engine, None, None)
        made = OfGenerator(loaded, climbed, PPGN() if steps is None else PPGN(n_steps=steps))
    found = asked.make(made, folder, terminal)
    if as_json:
        say(json.dumps(found, ensure_ascii=False))
    else:
        say(f"{found['n_new']} of {found['n']} pictures made by {found['generator']}; seeds: {found['table']}")
