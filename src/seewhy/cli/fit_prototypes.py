"""``seewhy fit-prototypes``: finds the pictures that stand for a classifier's channels, and what those rest on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .options import (
    EncoderName,
    EngineName,
    Json,
    Labels,
    Model,
    Quiet,
    Store,
    Strengths,
    because,
    held_out,
    method,
    open_store,
    output,
    resolve,
    seed,
)
from .terminal import say

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..prototypes.epic.bank import EPICBank
    from ..prototypes.epic.training import FitEPIC
    from ..prototypes.perturbations import Changes
    from ..storage.features import FeatureStore
    from .terminal import Terminal

EXAMPLES = """
Examples:\n
  seewhy fit-prototypes photos/ -m birds\n
  seewhy explain new.jpg -m birds\n
  seewhy explain new.jpg -m birds --like nearest\n
  seewhy fit-prototypes photos/ -o prototypes\n
  seewhy explain new.jpg --prototypes prototypes\n
  seewhy fit-prototypes photos/ -m birds --because\n
  seewhy fit-prototypes photos/ -m birds --method nearest --because\n
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
    method: Annotated[
        str,
        method(
            "epic finds prototypes; nearest, protopnet and voters have those that came with the classifier, so that "
            "only --because is left to do."
        ),
    ] = "epic",
    output: Annotated[Path | None, output("A folder; left out, MODEL/prototypes.")] = None,
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
    held_out: Annotated[float, held_out(True, "Half for each.", least=0.05)] = 0.25,
    max_seconds: Annotated[
        float | None, typer.Option(min=1, help="Stop adam after this long.", show_default=False)
    ] = None,
    seed: Annotated[int, seed("The parts and adam's order.")] = 0,
    because: Annotated[bool, because("Here every prototype, over the pictures.")] = False,
    strengths: Strengths = "calibrated",
    because_on: Annotated[
        int, typer.Option(min=1, help="Pictures that is measured on, spread over DATA (about 0.4 s each).")
    ] = 500,
    as_json: Json = False,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """Find prototypes for a classifier, whose decisions stay as they are. Stopped, it goes on where it was."""
    from ..prototypes import prototypes
    from ..prototypes.epic.training import FitEPIC
    from ..prototypes.perturbations import find_changes
    from .terminal import Terminal

    terminal = Terminal(quiet)
    kept = open_store(store)
    prototypes[method]
    changes = find_changes(strengths)
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
    folder = _folder(classifier, method, because, output)
    _check(folder, method, because)
    pictures = _pictures(data, classifier)
    said: dict[str, Any] = {}
    lines: list[str] = []
    if method == "epic":
        said, lines = _fitted(fit, classifier, pictures, folder, kept, terminal)
    if because:
        place = folder if method == "epic" else None
        said["because"] = _influences(classifier, method, place, folder, pictures, because_on, changes, terminal)
    if as_json:
        say(json.dumps(said, ensure_ascii=False))
    else:
        say(*lines)
        if because:
            _print_influences(said["because"])
    raise typer.Exit(terminal.exit_code(len(pictures) - len(terminal.failures)))


def _folder(classifier: Classifier, method: str, because: bool, output: Path | None) -> Path:
    """Where everything is kept."""
    from ..errors import InputError
    from ..prototypes.epic.bank import FOLDER
    from ..prototypes.find import find_prototypes

    if method != "epic":
        if not because:
            raise InputError(f"{method} has its prototypes already, and nothing was left to do. Add --because.")
        if output is not None:
            raise InputError(f"What {method} rests on is kept with the classifier, and {output} was given. Drop -o.")
        if find_prototypes(classifier, method) is None:
            raise InputError(f"This classifier was made without pictures of yours, so {method} has nothing to show.")
    folder = output or (None if classifier.folder is None else classifier.folder / FOLDER)
    if folder is None:
        raise InputError("No place was given for the prototypes of a classifier that has no folder. Name one with -o.")
    return folder


def _check(folder: Path, method: str, because: bool) -> None:
    """See that nothing lies where the results will, but earlier ones.

    Raises:
        ForeignFileError: something does.
    """
    from ..prototypes.bank_influences import file_of
    from ..prototypes.epic.bank import check_bank
    from ..storage.output import check_checkpoint

    check_bank(folder)
    checkpoints = [".epic.checkpoint"]
    if because:
        check_bank(folder, file_of(method))
        checkpoints.append(f".{method}.because.checkpoint")
    if folder.is_dir():
        for name in checkpoints:
            check_checkpoint(folder / name)


def _fitted(
    fit: FitEPIC,
    classifier: Classifier,
    pictures: list[tuple[str, int | None]],
    folder: Path,
    store: FeatureStore | None,
    terminal: Terminal,
) -> tuple[dict[str, Any], list[str]]:
    """EPIC's prototypes for JSON and for people; those that are there, of the same making, are not made again."""
    from ..prototypes.epic.bank import FILE
    from ..storage.marks import CHECKPOINT
    from ..storage.output import remove
    from ..types import Failure

    path, bank = folder / FILE, _there(folder, fit.seal(classifier, pictures))
    known = bank is not None
    if bank is None:
        checkpoint = folder / ".epic.checkpoint"
        bank = fit.fit(classifier, pictures, store=store, checkpoint=checkpoint, progress=terminal)
        bank.save(folder)
        remove(checkpoint, CHECKPOINT)
    lines = _lines(path, bank.measures)
    if known:
        for failure in bank.measures["failures"]:
            terminal.failed(Failure(**failure))
        lines.insert(0, "These prototypes were there already, of the same pictures and settings:")
    return {"prototypes": str(path), "kept": known, **bank.measures}, lines


def _there(folder: Path, seal: str) -> EPICBank | None:
    """What an earlier call left, if it would be made again as it is."""
    from ..errors import ModelError
    from ..prototypes.epic.bank import FILE, load_bank

    try:
        bank = load_bank(folder / FILE)
    except ModelError:
        return None  # there is none, or it is damaged
    return bank if bank.made_from == seal else None


def _influences(
    classifier: Classifier,
    method: str,
    place: Path | None,
    folder: Path,
    pictures: list[tuple[str, int | None]],
    n: int,
    changes: Changes,
    terminal: Terminal,
) -> dict[str, Any]:
    """What the prototypes rest on, for JSON."""
    from ..prototypes.bank_influences import file_of, measure_bank
    from ..prototypes.find import find_prototypes

    found = find_prototypes(classifier, method, place)
    assert found is not None
    step = max(1.0, len(pictures) / n)
    names = [pictures[int(i * step)][0] for i in range(min(n, len(pictures)))]
    influences, known = measure_bank(classifier, *found, names, folder, changes, progress=terminal)
    return {"file": str(folder / file_of(method)), "kept": known, **influences.summary()}


def _print_influences(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"What {found['n_prototypes']} prototypes rest on, over {found['n_pictures']} pictures"
    table = Table(title=title, title_justify="left")
    for head in ("changed", "by", "similarity lost", "matters most to", "most of all to"):
        table.add_column(head, justify="right" if head in ("by", "similarity lost", "matters most to") else "left")
    for row in found["properties"]:
        strongest = ", ".join(f"{one['prototype']} ({one['lost']:+.0%})" for one in row["strongest"])
        change = f"{row['change']:.1f}"
        table.add_row(row["name"], change, f"{row['mean']:+.1%}", f"{row['first']:.0%}", strongest)
    console = Console(soft_wrap=True)
    console.print(table)
    if found["strengths"] == "paper":
        console.print("The paper's strengths change a picture by different amounts: rows cannot be compared.")
    say(f"{'kept' if found['kept'] else 'written'}: {found['file']}")


def _pictures(data: Path, classifier: Classifier) -> list[tuple[str, int | None]]:
    """File names with the index of their class, where it is one of the classifier's."""
    from ..pictures.listing import list_pictures
    from ..pictures.samples import TABLES, load_samples

    index = {name: i for i, name in enumerate(classifier.classes)}
    if data.suffix.lower() in TABLES:
        return [(s.image, index.get(s.label)) for s in load_samples(data).items]
    return [(name, index.get(Path(name).parent.name)) for name in list_pictures([data])]


def _lines(path: Path, found: dict[str, Any]) -> list[str]:
    """The bank's figures for people."""
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
