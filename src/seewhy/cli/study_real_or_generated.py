"""``seewhy study real-or-generated``: photographs and made pictures told apart, and what that rests on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

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
from .options import EncoderName, EngineName, Force, ImageColumn, Json, LabelColumn, Quiet, saved, seed
from .outputs import StudyFolder, answer, check_both
from .study_options import HeldOut, TestPictures, learnt_and_tested
from .terminal import Terminal, say

REAL_EXAMPLES = """
Examples:\n\n
  seewhy study real-or-generated cifake/train --test cifake/test -o study --classifier real-or-made\n\n
  seewhy study real-or-generated pictures/ --generated dalle --unseen other=others/ --json\n\n
  seewhy study real-or-generated pictures/ --masks masks/ -o study\n\n
  seewhy study real-or-generated --make data/GENERATED --generator sd/ --classes "cat, ship" --count 500
"""
MODEL = "model"
"""Where the chosen network lies in the study's folder, unless another place is named."""


def real_or_generated(
    data: Annotated[
        Path | None,
        typer.Argument(help="Two classes, photographs and made pictures: two folders, or a table.", show_default=False),
    ] = None,
    generated: Annotated[
        str | None,
        typer.Option(help="The class of made pictures; left out, the one whose name says so.", show_default=False),
    ] = None,
    test: TestPictures = None,
    unseen: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FOLDER of another generator's pictures; may be given again.", show_default=False),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="A folder of masks named like the pictures. Asks whether it looks at the background.",
            show_default=False,
        ),
    ] = None,
    classifier: Annotated[
        Path | None,
        typer.Option(
            help="A folder for the chosen network, a classifier like any other. Left out, 'model' in that of -o.",
            show_default=False,
        ),
    ] = None,
    n_epochs: Annotated[int, typer.Option(min=1, help="Times the chosen network is shown all pictures.")] = 20,
    search_epochs: Annotated[int, typer.Option(min=1, help="The same for each of the 36 that are tried.")] = 4,
    n_networks: Annotated[int, typer.Option(min=1, help="Chosen networks that are told; the first is kept.")] = 3,
    n_search: Annotated[int, typer.Option("--search-networks", min=1, help="Networks of each of the 36.")] = 1,
    make: MakeFolder = None,
    generator: GeneratorFolder = None,
    classes: ClassNames = None,
    count: PerClass = 10,
    prompt: Prompt = "a photograph of a {}",
    denoising_steps: Denoising = None,
    guidance: Guidance = None,
    model: Annotated[
        str | None, saved("With --make, a classifier that is climbed. Left out, the encoder's own classes.")
    ] = None,
    side: Annotated[int, typer.Option(min=8, help="Pixels at which small networks see pictures.")] = 32,
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    held_out: HeldOut = 0.2,
    output: StudyFolder = None,
    image_column: ImageColumn = "image",
    label_column: LabelColumn = "label",
    seed: Annotated[int, seed("Divisions, first weights and resampling.")] = 0,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Can photographs and made pictures be told apart, and does it last? Stopped, it goes on where it was."""
    terminal = Terminal(quiet)
    if make is not None or data is None:
        _check_one(data, make)
        through = (model, encoder, engine)
        making = (generator, classes, count, prompt, denoising_steps, guidance, seed, through, as_json, terminal)
        make_pictures(make, *making)  # type: ignore[arg-type]
        return
    from ..classifiers.saving import ARCHIVE
    from ..encoders.find import encoder as find
    from ..studies.real_or_generated import RealOrGeneratedStudy

    check_both(output, "real-or-generated", force)
    place = output / MODEL if classifier is None and output is not None else classifier
    if place is not None:
        ARCHIVE.check(place)
    plain = RealOrGeneratedStudy()
    tried = replace(plain.search.recipe, n_epochs=search_epochs, side=side, seed=seed)
    study = replace(
        plain,
        generated=generated,
        search=replace(plain.search, recipe=tried, n_seeds=n_search),
        n_epochs=n_epochs,
        n_seeds=n_networks,
        held_out=held_out,
        seed=seed,
    )
    samples, tested = learnt_and_tested(data, test, image=image_column, label=label_column)
    found = study.run(
        find(encoder, engine=engine),
        samples,
        output,
        test=tested,
        unseen=dict(_named(one) for one in unseen or ()),
        masks=masks,
        progress=terminal,
    )
    if place is not None and found.classifier is not None:
        found.classifier.save(place)
    answer(found, output, "real-or-generated", force, as_json, _print)
    raise typer.Exit(terminal.exit_code(found.data["n"]))


def _check_one(data: Path | None, make: Path | None) -> None:
    """Either a study or the making of a set."""
    from ..errors import InputError

    if data is not None and make is not None:
        raise InputError(
            f"{data} and --make {make} were both given. Pictures to study, or a folder for pictures to be made, was "
            "expected. Make them first, and study them then."
        )
    if data is None and make is None:
        raise InputError(
            "No pictures were given. Two folders of photographs and made pictures, or --make with a folder, were "
            "expected. Name one of them."
        )


def _named(given: str) -> tuple[str, Any]:
    """``NAME=FOLDER`` → its name and its pictures."""
    from ..errors import InputError
    from ..pictures.samples import Sample, gathered
    from ..pictures.sources import list_pictures

    name, equals, folder = given.partition("=")
    if not equals or not name or not folder:
        raise InputError(
            f"--unseen was given {given!r}. NAME=FOLDER was expected. For example: --unseen upscaled=upscaled/"
        )
    return name, gathered([Sample(str(path), name) for path in list_pictures(folder)])


def _print(data: dict[str, Any]) -> None:
    """Judges down, versions across: the accuracy and both errors."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    shown.add_column("version", no_wrap=True)
    for row in data["judges"]:
        shown.add_column(row["judge"], justify="right")
    for k, first in enumerate(data["judges"][0]["cells"]):
        shown.add_row(first["version"], *(_cell(row["cells"][k]) for row in data["judges"]))
    console = Console(soft_wrap=True)
    console.print(shown)
    console.print("right, and in brackets photographs called made / made ones missed", highlight=False)
    for one in data["unseen"]:
        told = ", ".join(f"{judge} {part:.1%}" for judge, part in one["called_generated"].items())
        say(f"of {one['n']} pictures of {one['name']} are called made: {told}")


def _cell(cell: dict[str, Any]) -> str:
    return f"{cell['right']['value']:.1%} ({cell['false_alarms']:.0%} / {cell['missed']:.0%})"
