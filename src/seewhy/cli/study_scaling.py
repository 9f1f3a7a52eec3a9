"""``seewhy study scaling``: how many more pictures are needed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import options
from .outputs import StudyFolder, answer, check_both
from .study_options import HeldOut, Labelled, NSeeds, TestPictures, learnt_and_tested
from .terminal import Terminal

if TYPE_CHECKING:
    from ..classifiers.linear.recipe import Linear
    from ..encoders.base import Encoder

SCALING_EXAMPLES = """
Examples:\n\n
  seewhy study scaling photos/ --target 0.95\n\n
  seewhy study scaling train/ --test test/ -m birds --target 0.95 -o study\n\n
  seewhy study scaling photos/ --also-encoder lite2 --noise 0.2 --json\n\n
  seewhy study scaling photos.csv --group visit --target 0.99 --beyond 16
"""


def scaling(
    data: Labelled,
    model: Annotated[
        str | None,
        options.saved("A classifier by linear: of its encoder and settings. Left out, --encoder."),
    ] = None,
    encoder: options.EncoderName = "lite0",
    engine: options.EngineName = "auto",
    target: Annotated[
        float | None,
        typer.Option(help="The accuracy wanted, like 0.95; left out, what a doubling brings.", show_default=False),
    ] = None,
    test: TestPictures = None,
    held_out: HeldOut = 0.2,
    beyond: Annotated[
        float, typer.Option(min=1, help="Foretell up to so many times as many pictures as were learnt from.")
    ] = 4.0,
    n_sizes: Annotated[int, typer.Option(min=3, help="Sizes of subsets, up to all pictures.")] = 7,
    n_seeds: NSeeds = 5,
    draws: Annotated[
        Literal["nested", "independent"],
        typer.Option(help="nested: small subsets lie in larger ones; independent: each is drawn anew."),
    ] = "nested",
    noise: Annotated[
        list[float] | None,
        typer.Option(help="A part of the labels that is made wrong, for a curve of its own.", show_default=False),
    ] = None,
    of_classes: Annotated[
        list[int] | None, typer.Option(help="So many of the classes, for a curve of its own.", show_default=False)
    ] = None,
    also_encoder: Annotated[
        list[str] | None, typer.Option(help="Another encoder, for a curve of its own.", show_default=False)
    ] = None,
    n_crops: Annotated[
        int, typer.Option(min=0, help="Random crops and flips a picture, beside the picture itself.")
    ] = 0,
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
    """How many more pictures are needed for an accuracy? Stopped, it goes on where it was."""
    from ..studies.scaling import ScalingStudy

    terminal = Terminal(quiet)
    check_both(output, "scaling", force)
    encoders, recipe = _asked(model, encoder, also_encoder or [], engine)
    study = ScalingStudy(
        target=target,
        n_sizes=n_sizes,
        n_seeds=n_seeds,
        draws=draws,
        recipe=replace(recipe, n_crops=n_crops, seed=seed),
        held_out=held_out,
        beyond=beyond,
        noise=tuple(noise or ()),
        n_classes=tuple(of_classes or ()),
        seed=seed,
    )
    samples, tested = learnt_and_tested(data, test, image=image_column, label=label_column, group=group)
    found = study.run(encoders, samples, output, test=tested, store=options.open_store(store), progress=terminal)
    answer(found, output, "scaling", force, as_json, _print)
    raise typer.Exit(terminal.exit_code(found.data["n"]))


def _asked(model: str | None, name: str, others: list[str], engine: str) -> tuple[dict[str, Encoder], Linear]:
    """Encoders by name, the model's first, and what is fitted on their features."""
    from ..classifiers.linear.recipe import Linear
    from ..encoders.find import encoder as find

    recipe: Any = Linear()
    if model is not None:
        from ..classifiers.saving import load
        from ..errors import DataError

        saved = load(model, engine=engine, encoder=options.encoder_given(name))
        if saved.recipe != recipe.name:
            raise DataError(
                f"{model} is a classifier by {saved.recipe}. One by linear was expected, which is what is fitted on "
                "more and more pictures. Give its encoder with --encoder instead."
            )
        recipe, found = Linear(**saved.parameters), {saved.encoder.name: saved.encoder}
    else:
        found = {name: find(name, engine=engine)}
    return {**found, **{other: find(other, engine=engine) for other in others}}, recipe


def _print(data: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    for arm in data["arms"]:
        shown = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), title=arm["name"], title_justify="left")
        for column in ("pictures", "right", "90 %", ""):
            shown.add_column(column, justify="left" if column == "" else "right")
        for kind, rows in (("measured", arm["points"]), ("foretold", arm["predictions"])):
            for row in rows:
                low, high = row["interval_90"]
                shown.add_row(f"{row['n']:,}", f"{row['accuracy']:.1%}", f"{low:.1%} to {high:.1%}", kind)
        Console(soft_wrap=True).print(shown)
