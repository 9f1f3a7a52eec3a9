"""``seewhy fit-prototypes``: finds the pictures that stand for a classifier's channels, and what those rest on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import options
from .method_options import Set
from .terminal import say

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..prototypes import Prototypes
    from ..prototypes.fitted import FittedBank, Fitting
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
    model: options.Model = None,
    labels: options.Labels = None,
    encoder: options.EncoderName = "lite0",
    engine: options.EngineName = "auto",
    method: Annotated[
        str,
        options.method("Of those that came with the classifier only --because is left to do. See: seewhy methods."),
    ] = "epic",
    output: Annotated[Path | None, options.output("A folder; left out, MODEL/prototypes.")] = None,
    setting: Set = None,
    optimiser: Annotated[
        Literal["procrustes", "adam"] | None,
        typer.Option(help="procrustes: ours, fast; adam: the paper's, hours.", show_default="procrustes"),
    ] = None,
    form: Annotated[
        Literal["orthogonal", "invertible"] | None,
        typer.Option(help="Of the matrix; invertible needs adam.", show_default="orthogonal"),
    ] = None,
    n_prototypes: Annotated[
        int | None, typer.Option(min=1, help="Pictures a channel fitted to; left out, chosen.", show_default=False)
    ] = None,
    shrinkage: Annotated[
        float | None, typer.Option(min=0, help="Towards no rotation; left out, chosen.", show_default=False)
    ] = None,
    n_rotated: Annotated[
        int | None, typer.Option(min=2, help="Channels rotated; left out, chosen.", show_default=False)
    ] = None,
    n_kept: Annotated[
        int | None, typer.Option(min=1, help="Prototypes kept of each channel and sign.", show_default="8")
    ] = None,
    held_out: Annotated[float | None, options.held_out("0.25", "Half for each.", least=0.05)] = None,
    max_seconds: Annotated[
        float | None, typer.Option(min=1, help="Stop adam after this long.", show_default=False)
    ] = None,
    seed: Annotated[int | None, options.seed("The parts and adam's order.")] = None,
    because: Annotated[bool, options.because("Here every prototype, over the pictures.")] = False,
    strengths: options.Strengths = "calibrated",
    because_on: Annotated[
        int, typer.Option(min=1, help="Pictures that is measured on, spread over DATA (about 0.4 s each).")
    ] = 500,
    as_json: options.Json = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """Find prototypes for a classifier, whose decisions stay as they are. Stopped, it goes on where it was."""
    from ..prototypes import prototypes
    from ..prototypes.perturbations import find_changes
    from .method_options import settings
    from .terminal import Terminal

    terminal = Terminal(quiet)
    kept = options.open_store(store)
    found = prototypes[method]
    changes = find_changes(strengths)
    named: dict[str, Any] = {"optimiser": optimiser, "form": form, "n_prototypes": n_prototypes, "seed": seed}
    named |= {"shrinkage": shrinkage, "n_rotated": n_rotated, "n_kept": n_kept, "held_out": held_out}
    named |= {"max_seconds": max_seconds}
    fit = _fitting(found, {name: v for name, v in named.items() if v is not None}, settings(setting))
    classifier = options.resolve(model, labels, encoder, engine, None, kept)
    folder = _folder(classifier, found, because, output)
    _check(folder, found, because)
    pictures = _pictures(data, classifier)
    said: dict[str, Any] = {}
    lines: list[str] = []
    if fit is not None:
        said, lines = _fitted(fit, found, classifier, pictures, folder, kept, terminal)
    if because:
        place = None if fit is None else folder
        said["because"] = _influences(classifier, method, place, folder, pictures, because_on, changes, terminal)
    if as_json:
        say(json.dumps(said, ensure_ascii=False))
    else:
        say(*lines)
        if because:
            _print_influences(said["because"])
    raise typer.Exit(terminal.exit_code(len(pictures) - len(terminal.failures)))


def _fitting(found: type[Prototypes], named: dict[str, Any], given: dict[str, str]) -> Fitting | None:
    """What fits the method's prototypes, from options of their own and from ``--set``; nothing where none does."""
    from pkgutil import resolve_name
    from typing import cast

    from ..errors import InputError
    from ..parameters import configured, settings_of

    if not found.fitted_by:
        if named or given:
            first = next(iter({**named, **given})).replace("_", "-")
            raise InputError(f"{found.name} is not fitted, and {first} was given. Leave it out.")
        return None
    kind = cast(Any, resolve_name(found.fitted_by))
    known = [s.name for s in settings_of(kind)]
    for field in named:
        if field not in known:
            written = "--" + field.replace("_", "-")
            raise InputError(f"{found.name} was given {written}. It has {', '.join(known)}. Leave it out.")
        if field in given:
            raise InputError(f"{field} was given twice, as an option and with --set. Keep one of them.")
    return cast("Fitting", configured(kind, {**named, **given}))


def _folder(classifier: Classifier, found: type[Prototypes], because: bool, output: Path | None) -> Path:
    """Where everything is kept."""
    from ..errors import InputError
    from ..prototypes.find import find_prototypes
    from ..prototypes.fitted import FOLDER

    method = found.name
    if not found.fitted_by:
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


def _check(folder: Path, found: type[Prototypes], because: bool) -> None:
    """See that nothing lies where the results will, but earlier ones."""
    from ..prototypes.bank_influences import file_of
    from ..prototypes.fitted import check_bank, file_name
    from ..storage.output import check_checkpoint

    checkpoints = []
    if found.fitted_by:
        check_bank(folder, file_name(found.name))
        checkpoints.append(f".{found.name}.checkpoint")
    if because:
        check_bank(folder, file_of(found.name))
        checkpoints.append(f".{found.name}.because.checkpoint")
    if folder.is_dir():
        for name in checkpoints:
            check_checkpoint(folder / name)


def _fitted(
    fit: Fitting,
    found: type[Prototypes],
    classifier: Classifier,
    pictures: list[tuple[str, int | None]],
    folder: Path,
    store: FeatureStore | None,
    terminal: Terminal,
) -> tuple[dict[str, Any], list[str]]:
    """The prototypes for JSON and for people; those that are there, of the same making, are not made again."""
    from dataclasses import replace

    from ..attributions.explainers import classifier_digest
    from ..prototypes.fitted import file_name
    from ..storage.marks import CHECKPOINT
    from ..storage.output import remove
    from ..types import Failure

    seal, path = fit.seal(classifier, pictures), folder / file_name(found.name)
    bank = _there(found, path, seal)
    known = bank is not None
    if bank is None:
        checkpoint = folder / f".{found.name}.checkpoint"
        bank = fit.fit(classifier, pictures, store=store, checkpoint=checkpoint, progress=terminal)
        bank = replace(bank, classifier=classifier_digest(classifier), made_from=seal)
        bank.save(folder)
        remove(checkpoint, CHECKPOINT)
    first, *rest = bank.lines()
    lines = [f"{path}: {first}", *rest]
    if known:
        for failure in bank.measures.get("failures", ()):
            terminal.failed(Failure(**failure))
        lines.insert(0, "These prototypes were there already, of the same pictures and settings:")
    return {"prototypes": str(path), "kept": known, **bank.measures}, lines


def _there(found: type[Prototypes], path: Path, seal: str) -> FittedBank | None:
    """What an earlier call left, if it would be made again as it is."""
    from ..errors import ModelError

    if found.kept_as is None:
        return None
    try:
        bank = found.kept_as.load(path)
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
    from ..pictures.samples import TABLES, load_samples
    from ..pictures.sources import list_pictures

    index = {name: i for i, name in enumerate(classifier.classes)}
    if data.suffix.lower() in TABLES:
        return [(s.image, index.get(s.label)) for s in load_samples(data).items]
    return [(name, index.get(Path(name).parent.name)) for name in list_pictures([data])]
