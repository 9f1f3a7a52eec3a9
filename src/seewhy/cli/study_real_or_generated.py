"""``seewhy study real-or-generated --make``: pictures made with a generator, to be told from photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .make_pictures import (
    ClassNames,
    Denoising,
    GeneratorFolder,
    Guidance,
    MakeFolder,
    PerClass,
    Prompt,
    make_pictures,
)
from .options import EncoderName, EngineName, Json, Quiet, saved, seed
from .terminal import Terminal

REAL_EXAMPLES = """
Examples:\n\n
  seewhy study real-or-generated --make data/GENERATED --generator sd/ --classes "cat, ship" --count 500
"""


def real_or_generated(
    data: Annotated[Path | None, typer.Argument(hidden=True)] = None,
    make: MakeFolder = None,
    generator: GeneratorFolder = None,
    classes: ClassNames = None,
    count: PerClass = 10,
    prompt: Prompt = "a photograph of a {}",
    denoising_steps: Denoising = None,
    guidance: Guidance = None,
    model: Annotated[str | None, saved("A classifier that is climbed. Left out, the encoder's own classes.")] = None,
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    seed: Annotated[int, seed("Every picture.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make the set of pictures; the study of CIFAKE itself is reproductions/cifake.py."""
    from ..errors import InputError

    if data is not None or make is None:
        raise InputError(
            f"{'No folder' if data is None else data} was given. --make with a folder for made pictures was expected; "
            "photographs and made pictures are told apart by reproductions/cifake.py. Name a folder, or run that."
        )
    through, terminal = (model, encoder, engine), Terminal(quiet)
    making = (generator, classes, count, prompt, denoising_steps, guidance, seed, through, as_json, terminal)
    make_pictures(make, *making)  # type: ignore[arg-type]
