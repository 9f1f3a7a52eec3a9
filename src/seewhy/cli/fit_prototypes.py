"""``seewhy fit-prototypes``: finds the pictures that stand for a classifier's channels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .options import EncoderName, EngineName, Json, Labels, Model, Quiet, Store, open_store, resolve

if TYPE_CHECKING:
    from ..classifiers.base import Classifier

EXAMPLES = """
Examples:\n
  seewhy fit-prototypes photos/ -m birds\n
  seewhy explain new.jpg -m birds\n
  seewhy explain new.jpg -m birds --like nearest\n
  seewhy fit-prototypes photos/ -o prototypes\n
  seewhy explain new.jpg --prototypes prototypes\n
  seewhy fit-prototypes photos/ -m birds --optimiser adam --form invertible --max-seconds 600
"""


def fit_prototypes(
    data: Annotated[
        Path,
        typer.Argument(
            help="A folder of pictures, or a table. Folders named after the model's classes give the classes; other "
            "pictures have the class the model decides for.",
            show_default=False,
        ),
    ],
    model: Model = None,
    labels: Labels = None,
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    method: Annotated[Literal["epic"], typer.Option(help="How prototypes are found.")] = "epic",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A folder; left out, MODEL/prototypes.", show_default=False),
    ] = None,
    optimiser: Annotated[
        Literal["procrustes", "adam"], typer.Option(help="procrustes: ours, fast; adam: the paper's, hours.")
    ] = "procrustes",
    form: Annotated[
        Literal["orthogonal", "invertible"], typer.Option(help="Of the matrix; invertible needs adam.")
    ] = "orthogonal",
    n_prototypes: Annotated[
        int | None, typer.Option(min=1, help="Pictures a channel fitted to; left out, chosen.", show_default=False)
    ] = None,
    shrinkage: Annotated[
        float | None, typer.Option(min=0, help="Towards no rotation; left out, chosen.", show_default=False)
    ] = None,
    n_rotated: Annotated[
        int | None, typer.Option(min=2, help="Channels rotated; left out, chosen.", show_default=False)
    ] = None,
    n_kept: Annotated[int, typer.Option(min=1, help="Prototypes kept of each channel and sign.")] = 8,
    held_out: Annotated[
        float, typer.Option(min=0.05, max=0.9, help="Part held out, half to choose on and half to measure on.")
    ] = 0.25,
    max_seconds: Annotated[
        float | None, typer.Option(min=1, help="Stop adam after this long.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the parts and of adam's order.")] = 0,
    as_json: Json = False,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """Find prototypes for a classifier, whose decisions stay as they are. Stopped, it goes on where it was."""
    from ..errors import InputError
    from ..prototypes.epic_bank import FOLDER
    from ..prototypes.epic_training import FitEPIC
    from .terminal import Terminal

    terminal = Terminal(quiet)
    kept = open_store(store)
    fit = FitEPIC(
        optimiser=optimiser,
        form=form,
        n_prototypes=n_prototypes,
        shrinkage=shrinkage,
        n_rotated=n_rotated,
        n_kept=n_kept,
        held_out=held_out,
        max_seconds=max_seconds,
        seed=seed,
    )
    classifier = resolve(model, labels, encoder, engine, None, kept)
    folder = output or (None if classifier.folder is None else classifier.folder / FOLDER)
    if folder is None:
        raise InputError("No place was given for the prototypes of a classifier that has no folder. Name one with -o.")
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f".{method}.checkpoint"
    bank = fit.fit(classifier, _pictures(data, classifier), store=kept, checkpoint=checkpoint, listener=terminal)
    path = bank.save(folder)
    checkpoint.unlink(missing_ok=True)
    if as_json:
        print(json.dumps({"prototypes": str(path), **bank.measures}, ensure_ascii=False))
    else:
        print("\n".join(_lines(path, bank.measures)))
    raise typer.Exit(terminal.exit_code(bank.measures["n_pictures"]))


def _pictures(data: Path, classifier: Classifier) -> list[tuple[str, int | None]]:
    """File names with the index of their class, where it is one of the classifier's."""
    from ..data import TABLES, load_samples
    from ..listing import list_pictures

    index = {name: i for i, name in enumerate(classifier.classes)}
    if data.suffix.lower() in TABLES:
        return [(s.image, index.get(s.label)) for s in load_samples(data).items]
    return [(name, index.get(Path(name).parent.name)) for name in list_pictures([data])]


def _lines(path: Path, found: dict[str, Any]) -> list[str]:
    held, likeness, share = found["held_out"], found["likeness"], found["top_4_share"]
    low, high = held["gain_interval"]
    lines = [
        f"{path}: fitted to {found['n_fitted']} of {found['n_pictures']} pictures by {found['optimiser']}",
        f"logits change by {found['logit_difference']:.0e} of the largest at most; "
        f"{found['decisions_kept']:.0%} of the decisions stay",
        f"purity on {held['n']} pictures held out: {held['purity']:.3f}, before {held['before']:.3f}, random rotation "
        f"{held['random']:.3f}; gain {held['gain']:+.4f} (95 % {low:+.4f} to {high:+.4f})",
        f"the strongest 4 channels are {share['fitted']:.1%} of what speaks for a decision, "
        f"before {share['before']:.1%}",
    ]
    if likeness is not None:
        lines.append(
            f"prototypes shown for held-out pictures carry the predicted class {likeness['precision']:.0%} of the time "
            f"(chance {likeness['chance']:.0%})"
        )
    return lines
