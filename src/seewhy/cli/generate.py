"""``seewhy generate``: pictures that a network takes for a class, a sentence or a neuron, and what they are worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .options import EncoderName, EngineName, Json, Labels, Model, Quiet, output, resolve, seed
from .terminal import say

EXAMPLES = """
Examples:\n
  seewhy generate -m birds --generator gen --class wren -o made/\n
  seewhy generate -m birds --generator gen --class wren --judge timm:resnet18 -o made/\n
  seewhy generate --generator gen --text "a photo of a wren" --count 6 -o made/\n
  seewhy generate --generator gen --neuron 17 --json\n
  seewhy generate -m birds --generator gen --class wren --like photo.jpg -o made/\n
  seewhy generate -m birds --generator gen --class wren --inpaint photo.jpg --mask hole.png -o made/
"""


def generate(
    generator: Annotated[Path, typer.Option(help="A trained generator: its folder.", show_default=False)],
    model: Model = None,
    labels: Labels = None,
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    label: Annotated[
        str | None, typer.Option("--class", help="Make what the model takes for this class.", show_default=False)
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", "-t", help="What should be on it, in words.", show_default=False)
    ] = None,
    neuron: Annotated[
        int | None, typer.Option(help="A unit of the model's pooled features, by number.", show_default=False)
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="A picture to start at; alone, make what the model takes for it.", show_default=False),
    ] = None,
    inpaint: Annotated[str | None, typer.Option(help="A picture with a hole to fill in.", show_default=False)] = None,
    mask: Annotated[
        Path | None, typer.Option(help="A picture of the same size, white where the hole is.", show_default=False)
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="A saved classifier or an encoder with words that says what is on the pictures; not the one climbed.",
            show_default=False,
        ),
    ] = None,
    generator_encoder: Annotated[
        str | None,
        typer.Option(
            help="The encoder whose codes the generator turns round, where its name does not find it.",
            show_default=False,
        ),
    ] = None,
    n_pictures: Annotated[int, typer.Option("--count", min=1, help="So many different ones.")] = 4,
    start: Annotated[
        Literal["facets", "noise"],
        typer.Option(help="Where chains start: near training pictures that fit, or anywhere."),
    ] = "facets",
    n_steps: Annotated[int, typer.Option(min=1, help="Of each chain.")] = 200,
    eps1: Annotated[float, typer.Option(min=0, help="Weight of the prior; 0, none.")] = 0.1,
    eps2: Annotated[float, typer.Option(min=0, help="Weight of what is asked for.")] = 1.0,
    eps3: Annotated[float, typer.Option(min=0, help="Deviation of the noise.")] = 0.0,
    raw_steps: Annotated[
        bool, typer.Option("--raw-steps", help="Steps as the equation has them, not brought to one length.")
    ] = False,
    gradient: Annotated[
        Literal["log_softmax", "own_logit"], typer.Option(help="Of the logarithm of p, exact; or as released.")
    ] = "log_softmax",
    controls: Annotated[bool, typer.Option(help="Make the same without the prior, and in pixels.")] = True,
    output: Annotated[Path | None, output("A folder for the page, its JSON and the pictures.")] = None,
    seed: Annotated[int, seed("Starts and noise.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make pictures of what a model takes for a class, a text or a neuron."""
    from ..generation.generate import Asking, Question, check_place, make, save
    from ..generation.generator import load_generator
    from ..generation.sampler import PPGN
    from .terminal import Terminal

    terminal = Terminal(quiet)
    if output is not None:
        check_place(output)
    question = Question(label, text, neuron, like, inpaint, None if mask is None else str(mask))
    how = PPGN(eps1, eps2, eps3, n_steps=n_steps, gradient=gradient, normalise=not raw_steps)
    climbed = resolve(model, labels, encoder, engine, None, None)
    loaded = load_generator(generator, generator_encoder, own=climbed.encoder, engine=engine)
    made = make(
        loaded,
        question.condition(climbed),
        sampler=how,
        asking=Asking(n_pictures, start, controls, seed),
        judge=None if judge is None else judge_named(judge, engine),
        classes=climbed.classes,
        picture=question.start(loaded),
        hole=question.hole(loaded),
        progress=terminal,
    )
    page = None if output is None else save(made, output)
    if as_json:
        say(json.dumps(made.data, ensure_ascii=False))
        return
    say(made.data["sentence"])
    if page is not None:
        say(f"page: {page}")


def judge_named(name: str, engine: str) -> Any:
    """A saved classifier, or an encoder."""
    from ..classifiers.saving import load
    from ..encoders.find import encoder as find

    return load(name, engine=engine) if (Path(name) / "seewhy.json").is_file() else find(name, engine=engine)
