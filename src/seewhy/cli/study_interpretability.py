"""``seewhy study interpretability``: how much of what encoders know a few concepts say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import options
from .outputs import StudyFolder, answer, check_both
from .study_options import Labelled
from .terminal import Terminal, say

if TYPE_CHECKING:
    from ..encoders.base import Encoder

INTERPRETABILITY_EXAMPLES = """
Examples:\n\n
  seewhy study interpretability photos/ -o study\n\n
  seewhy study interpretability photos/ --encoder lite0 --encoder lite2 --concepts words.txt\n\n
  seewhy study interpretability photos/ --encoder lite0 --encoder timm:resnet18.a1_in1k --judge lite0 --json\n\n
  seewhy study interpretability train/ --test test/ --library prototype --library random --n-concepts 50
"""


def interpretability(
    data: Labelled,
    encoder: options.EncoderNames = None,
    engine: options.EngineName = "auto",
    library: Annotated[
        list[str] | None,
        typer.Option(
            help="Where concepts come from: prototype, cluster, text or random; again for another. Left out, all.",
            show_default=False,
        ),
    ] = None,
    n_concepts: Annotated[int, typer.Option(min=2, help="Concepts of a library.")] = 200,
    concepts: Annotated[
        Path | None,
        typer.Option(
            help="What concepts in words say: a .txt with one per line, or a .json with descriptions. Left out, "
            "phrases from the glosses of ImageNet's classes.",
            show_default=False,
        ),
    ] = None,
    judge: Annotated[
        str, typer.Option(help="An encoder with words that judges for those without how well words fit a picture.")
    ] = "lite0",
    test: Annotated[
        Path | None,
        typer.Option(
            help="Labelled pictures of the same classes to test on. Left out, a quarter of DATA.", show_default=False
        ),
    ] = None,
    mask: Annotated[
        Literal["hard", "soft", "authors"],
        typer.Option(help="How few are kept: hard, soft, or authors, which keeps one fewer."),
    ] = "hard",
    layer_norm: Annotated[
        bool,
        typer.Option(
            "--layer-norm/--no-layer-norm", help="Normalise over a picture's concepts; without, each over the pictures."
        ),
    ] = True,
    grid: Annotated[
        int, typer.Option(min=1, help="Concepts are cells of pictures cut in so many rows and columns; 1: whole ones.")
    ] = 4,
    output: StudyFolder = None,
    image_column: options.ImageColumn = "image",
    label_column: options.LabelColumn = "label",
    seed: Annotated[int, options.seed("Parts, draws and resampling.")] = 0,
    force: options.Force = False,
    as_json: options.Json = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """How much of what encoders know do a few concepts say? Stopped, it goes on where it was."""
    from ..pictures.samples import load_samples
    from ..studies.concepts import LIBRARIES
    from ..studies.interpretability import InterpretabilityStudy

    terminal = Terminal(quiet)
    check_both(output, "interpretability", force)
    libraries = tuple(dict.fromkeys(library or LIBRARIES))
    study = InterpretabilityStudy(
        libraries,
        n_concepts,
        mask=mask,
        layer_norm=layer_norm,
        grid=grid,
        seed=seed,
    )
    samples, others = (
        None if place is None else load_samples(place, image=image_column, label=label_column) for place in (data, test)
    )
    assert samples is not None  # DATA must be given
    texts = _texts(concepts) if "text" in libraries else ()
    encoders = _encoders(encoder or ["lite0"], engine)
    found = study.run(
        encoders,
        samples,
        output,
        test=others,
        concepts=texts,
        judge=_judge(judge, engine, encoders) if "text" in libraries else None,
        store=options.open_store(store),
        progress=terminal,
    )
    answer(found, output, "interpretability", force, as_json, _print)
    raise typer.Exit(terminal.exit_code(found.data["n"]))


def _encoders(names: Sequence[str], engine: str) -> list[Encoder]:
    from ..encoders.find import encoder

    return [encoder(name, engine=engine) for name in dict.fromkeys(names)]


def _judge(name: str, engine: str, encoders: Sequence[Encoder]) -> Encoder | None:
    """The judge, where an encoder needs one."""
    from ..encoders.find import encoder
    from ..errors import InputError

    if all(one.has_text for one in encoders):
        return None
    found = encoder(name, engine=engine)
    if not found.has_text:
        raise InputError(f"The judge {name} has no words. An encoder with words was expected. Take lite0, say.")
    return found


def _texts(path: Path | None) -> tuple[str, ...]:
    """What concepts say, each once."""
    from ..descriptions.base import Descriptions
    from ..encoders.imagenet import imagenet_descriptions

    if path is None:
        return tuple(dict.fromkeys(t for texts in imagenet_descriptions().values() for t in texts))
    if path.suffix == ".json":
        return tuple(dict.fromkeys(t for texts in Descriptions.read(path).texts.values() for t in texts))
    return tuple(dict.fromkeys(line.strip() for line in options.lines_of(path, "concept") if line.strip()))


def _print(data: dict[str, Any]) -> None:
    """A line for each encoder and library."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("encoder", "concepts", "all features", "IIS", "less random", "right at .98", "mean"):
        shown.add_column(column, justify="left" if column in ("encoder", "concepts") else "right", no_wrap=True)
    whole = {one["encoder"]: one for one in data["encoders"]}
    for row in data["rows"]:
        own, less = whole[row["encoder"]], row.get("less_random")
        low, high = row["iis"]["interval"]
        shown.add_row(
            row["encoder"],
            row["library"],
            f"{own['accuracy']['value']:.1%}" + (" (below the floor)" if own["below_floor"] else ""),
            f"{row['iis']['value']:.3f} ({low:.3f} to {high:.3f})",
            "" if less is None else f"{less['value']:+.3f}{' *' if less['real'] else '  '}",
            f"{row['points'][-1]['accuracy']['value']:.1%}",
            f"{row['area']['value']:.1%}",
        )
    Console(soft_wrap=True, width=110).print(shown)
    say("* the interval of the difference leaves out 0; mean: of the accuracies themselves over the sparsities")
