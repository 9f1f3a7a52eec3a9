"""``seewhy adapt`` and ``seewhy pretrain``: an encoder learns from pictures with texts, alone, or by classes' names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import typer

from ..bounds import Count, Part
from ..errors import InputError, MissingExtraError
from ..progress import duration
from . import options
from .fit import recipe_from, remove_checkpoints
from .session import Session
from .terminal import Terminal

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..learning.cost import Cost
    from ..learning.way import Way

ADAPT_EXAMPLES = """
seewhy adapt captions.jsonl -o enc
seewhy adapt captions.jsonl -o enc --keep 0.3 --validation dev.jsonl
seewhy adapt products.csv -o enc --column text=title --objective siglip
seewhy adapt captions.jsonl -o enc --train towers --epochs 2 --dry-run
seewhy adapt products.csv -o enc --objective focallens --instruction colour="the colour"
seewhy adapt products.csv -o enc --objective prefix --column text=title --column label=kind
seewhy explain photo.jpg --encoder enc --labels "a dog,a cat"
seewhy adapt photos/ -o birds --method coop --shots 4
seewhy adapt photos/ -o birds --method ogen --base-to-new --also others/
seewhy predict new/ -m birds --labels "a wren,a robin"
"""
PRETRAIN_EXAMPLES = """
seewhy pretrain captions.jsonl -o enc --encoder new:resnet
seewhy pretrain captions.jsonl -o enc --encoder lite0 --objective siglip
seewhy pretrain products.csv -o enc --objective prefix --column text=title --column label=kind
seewhy pretrain shards/ -o enc --encoder new:vit --epochs 30 --dry-run
seewhy pretrain captions.jsonl -o enc --objective dito --encoder new:vit_swl
seewhy pretrain photos/ -o enc --objective simclr
seewhy pretrain photos/ -o enc --objective supcon --projection fixed
seewhy pretrain streets/ -o enc --objective pixpro --set instance_weight=1 --set pyramid=true --encoder new:resnet
seewhy pretrain digits/ -o enc --objective look --set k=10 --encoder new:resnet/32 --augmentation whole
"""
NAMES_ONLY = ("model", "shots", "base_to_new", "new_names", "also")
"""Options that mean nothing without a method."""
NOT_BY_NAMES = ("objective", "train", "instruction")
"""Options that mean nothing with one."""
BY_OPTION = ("train", "keep", "epochs", "projection", "augmentation")
"""Options that are settings of a training; left out, its own."""
BY_SET = ("may_forget", "batch_size", "lr", "projection_width", "kappa", "effective", "keep_head", "pyramid")
"""Settings of a training; others are those of the objective."""


def adapt(
    session: Session,
    pairs: str,
    *,
    output: Path,
    method: str | None = None,
    objective: str = "clip",
    train: Literal["heads", "image", "text", "towers"] = "heads",
    epochs: Count = 12,
    validation: Path | None = None,
    keep: Part | None = None,
    dry_run: bool = False,
    shots: Count | None = None,
    model: str | None = None,
    base_to_new: bool = False,
    new_names: str | None = None,
    also: list[Path] | None = None,
    instruction: list[str] | None = None,
    tensorboard: Path | None = None,
) -> None:
    """Teach an encoder your own pictures and words. Run again, it goes on where it was stopped.

    Args:
        pairs: Pictures with texts: a table (image, text), JSONL, a folder of pictures with .txt files, or .tar
            shards. With --method, labelled pictures.
        output: The adapted encoder's folder; with --method, the classifier's.
        method: It learns, of labelled pictures, what stands before their classes' names: coop, for one.
        train: What learns. Small heads behind frozen towers, the picture tower, the words tower, or both.
        validation: Pictures of the same kind, with texts or labels where these are learnt from, never trained
            on, to choose and to measure on. Left out, a tenth is held out.
        keep: How much of what was learnt is kept: 0 none, 1 all. Left out, chosen on held-out pictures.
        dry_run: Say what it would cost, and stop. A few steps are measured.
        shots: Pictures of each class to train on, with --method. Left out, all.
        model: With --method, a classifier, which is adapted and compared with. Left out, --encoder.
        base_to_new: Learn the first half of the classes, with --method, and measure on the rest as well.
        new_names: Names to learn for without a picture, with --method: separated by commas, or a .txt with one
            per line. Left out, no name beyond the classes' own is read.
        instruction (COLUMN=WORDS): An instruction, and the table's column that answers it, as colour='the
            colour'; again for another, or for another wording of the same.
    """
    if method is not None:
        _adapt_names(session, pairs, output, method, validation, tensorboard)
    for name in session.was_given(NAMES_ONLY):
        raise InputError(
            f"--{name.replace('_', '-')} was given without --method. A method that learns classes by their "
            "names was expected beside it. Give --method coop, say, or drop it."
        )
    way = _way(session, objective, instruction, all_of_it=False)
    _train_and_save(session, way, pairs, validation, output, Watched(session.quiet, tensorboard), dry_run)


def pretrain(
    session: Session,
    pairs: str,
    *,
    output: Path,
    objective: str = "clip",
    epochs: Count = 20,
    validation: Path | None = None,
    dry_run: bool = False,
    augmentation: Literal["simclr", "byol", "crops", "whole"] = "simclr",
    projection: Literal["none", "linear", "mlp", "fixed"] = "mlp",
    instruction: list[str] | None = None,
    tensorboard: Path | None = None,
) -> None:
    """Train an encoder, all of it kept; new:resnet, new:vit and new:vit_swl begin from nothing.

    Args:
        pairs: Pictures with texts: a table (image, text), JSONL, a folder of pictures with .txt files, or .tar
            shards. For objectives without words: class folders, a table (image, label), or just pictures.
        output: The encoder's folder.
        validation: Pictures of the same kind, with texts or labels where these are learnt from, never trained
            on, to choose and to measure on. Left out, a tenth is held out.
        dry_run: Say what it would cost, and stop. A few steps are measured.
        augmentation: What is done to views. Crops with colours, crops alone, or small cuts for digits.
        projection: What stands behind the encoder meanwhile. Without words; fixed learns nothing.
        instruction (COLUMN=WORDS): An instruction, and the table's column that answers it, as colour='the
            colour'; again for another, or for another wording of the same.
    """
    way = _way(session, objective, instruction, all_of_it=True)
    watched = Watched(session.quiet, tensorboard)
    if way.stays:
        watched.note(way.stays)
    _train_and_save(session, way, pairs, validation, output, watched, dry_run)


class Watched(Terminal):
    """Progress on standard error, and each step for TensorBoard where a folder is named.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, quiet: bool, folder: Path | None) -> None:
        super().__init__(quiet)
        self.writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("tensorboard", "--tensorboard") from error
        self.writer = SummaryWriter(str(folder))

    def measured(self, step: int, terms: Mapping[str, float]) -> None:
        super().measured(step, terms)
        if self.writer is not None:
            for name, value in terms.items():
                self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _way(session: Session, objective: str, instruction: list[str] | None, *, all_of_it: bool) -> Way:
    """The training that a person's options name; what is left out is the training's own.

    Raises:
        InputError: an option is missing, or the objective has no use for it.
    """
    from ..learning.api import way_of
    from ..learning.objectives import objectives
    from ..parameters import configured

    context = session.context
    settings = {name: context.params[name] for name in session.was_given(n for n in BY_OPTION if n in context.params)}
    settings |= _training_settings(session, objective)
    if instruction:
        settings["instructions"] = by_column(instruction)
    if session.settings:
        made: Any = configured(objectives[objective], session.settings)
        settings["settings"] = {name: getattr(made, name) for name in session.settings}
    columns = {name: value for name, value in session.pair_columns().items() if value is not None}
    return way_of(objective, settings, columns, all_of_it=all_of_it, spelt=_spelt)


def _training_settings(session: Session, objective: str) -> dict[str, Any]:
    """What ``--set`` and ``--seed`` say of the training itself."""
    from ..learning.adapt import Adapt
    from ..learning.pretrain import Pretrain
    from ..parameters import hints_of, value_of

    hints = {**hints_of(Pretrain), **hints_of(Adapt)}
    names = [name for name in [*session.settings] if name in BY_SET]
    values = {name: value_of(objective, name, session.settings.pop(name), hints[name]) for name in names}
    return values if session.seed_given is None else {**values, "seed": session.seed_given}


def _spelt(name: str) -> str:
    """How a person writes a setting or a column."""
    if name in ("image", "text", "label"):
        return f"--column {name}"
    named = {"instructions": "--instruction", "settings": "--set"}
    return named.get(name, f"--set {name}" if name in BY_SET else f"--{name.replace('_', '-')}")


def by_column(given: Sequence[str]) -> dict[str, list[str]]:
    """Column → wordings.

    >>> by_column(["colour=the colour", "kind=its kind", "colour=what colour is it?"])
    {'colour': ['the colour', 'what colour is it?'], 'kind': ['its kind']}

    Raises:
        InputError: one is not of the form.
    """
    wordings: dict[str, list[str]] = {}
    for text in given:
        column, _, words = (part.strip() for part in text.partition("="))
        if not (column and words):
            raise InputError(
                f"--instruction was given {text!r}. COLUMN=WORDS was expected. For example: colour='the colour'"
            )
        wordings.setdefault(column, []).append(words)
    return wordings


def _train_and_save(
    session: Session, way: Way, pairs: str, validation: Path | None, output: Path, watched: Watched, dry_run: bool
) -> NoReturn:
    """Read, train, choose, measure, save, say."""
    from ..learning.encoders.adapted import check_place
    from ..storage.marks import CHECKPOINT
    from ..storage.output import check_checkpoint, make_folder, remove
    from ..studies.adapting import files_of, run_report, title_of

    check_place(output)
    columns = {name: value for name, value in session.pair_columns().items() if value is not None}
    read = way.read(pairs, columns, watched)
    chosen_on = None if validation is None else way.read(str(validation), columns, watched)
    encoder = session.encoder()
    if dry_run:
        from ..learning.cost import estimate

        _say_cost(session, estimate(way, encoder, read, validation=chosen_on is not None))
    make_folder(output.parent)
    checkpoint = check_checkpoint(output.parent / f".{output.name}.checkpoint")
    store = session.store
    done = way.fit(encoder, read, validation=chosen_on, store=store, progress=watched, checkpoint=checkpoint)
    report = run_report(done, str(output), store=store, notes=watched.notes, progress=watched)
    report.data["failures"] = [failure.to_json() for failure in watched.failures]
    done.adaptation.save(output, files_of(done, report))
    remove(checkpoint, CHECKPOINT)
    watched.close()
    run = {**report.data["run"], "history": None}
    session.say(
        {**report.data, "run": run, "encoder_folder": str(output)},
        f"{output}: {title_of(done.adaptation.provenance)}",
        *measure_lines(report.data["measures"]),
        f"page: {output / 'run.html'}",
    )
    raise typer.Exit(watched.exit_code(len(read)))


def measure_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of before and after."""
    lines = []
    for row in rows:
        after = f"{100 * row['after']:5.1f}"
        if "difference" not in row:
            low, high = row["after_interval"]
            lines.append(f"{row['measure']:<36} {after}  ({100 * low:.1f} to {100 * high:.1f})")
            continue
        low, high = row["difference_interval"]
        real = "real" if row["real"] else "not real"
        change = f"{100 * row['difference']:+5.1f} ({100 * low:+.1f} to {100 * high:+.1f}), {real}"
        lines.append(f"{row['measure']:<36} {100 * row['before']:5.1f} -> {after}  {change}")
    return lines


def _say_cost(session: Session, cost: Cost) -> NoReturn:
    """What a training would cost."""
    texts = f" with {cost.n_texts} texts" if cost.n_texts else ""
    session.say(
        {"dry_run": True, **asdict(cost)},
        f"{cost.n_pictures} pictures{texts}, {cost.n_weights:,} weights to train",
        f"looking and reading, if nothing is known yet: {duration(cost.seconds_looking)}",
        f"training: {cost.n_steps} steps of {cost.seconds_per_step:.2f} s on this machine",
        f"in all: {duration(cost.seconds)}",
    )
    raise typer.Exit


def _adapt_names(
    session: Session, pairs: str, output: Path, method: str, validation: Path | None, tensorboard: Path | None
) -> NoReturn:
    """Learn what stands before the names of a few classes: read, look, train, choose, measure, save, say."""
    from ..classifiers.saving import ARCHIVE
    from ..storage.output import check_checkpoint, make_folder
    from ..studies.forgetting import AdaptingData, adapt_names

    terminal, given = Watched(session.quiet, tensorboard), session.context.params
    if unused := [*session.was_given(NOT_BY_NAMES), *(["column text"] if "text" in session.columns else [])]:
        raise InputError(
            f"--{unused[0]} was given with the method {method!r}, which has no use for it. A method "
            "that has, or none of it, was expected. Drop it, or leave --method out."
        )
    ARCHIVE.check(output)
    named = {name: given[name] for name in session.was_given(("keep", "epochs", "shots"))}
    recipe = recipe_from(session, method, **named)
    old = None if given["model"] is None else session.saved(given["model"])
    on = session.encoder() if old is None else old.encoder if old.network is None else old.network.base
    data = AdaptingData(
        session.samples(pairs, group=session.group),
        validation=None if validation is None else session.samples(validation),
        base_to_new=given["base_to_new"],
        new_names=() if given["new_names"] is None else tuple(options.names_in(given["new_names"])),
        also={str(place): session.samples(place) for place in given["also"] or ()},
    )
    if given["dry_run"]:
        _say_cost(session, recipe.estimate(on, data.samples))
    make_folder(output.parent)
    checkpoint = check_checkpoint(output.parent / f".{output.name}.checkpoint")
    made = adapt_names(recipe, on, data, old=old, store=session.store, progress=terminal, checkpoint=checkpoint)
    made = replace(made, trust=made.measured_trust)
    made.save(output)
    remove_checkpoints(checkpoint)
    terminal.close()
    document = _document(made, output, terminal)
    session.say(document, *_names_lines(made, document, output))
    raise typer.Exit(terminal.exit_code(document["n_pictures"] + len(terminal.failures)))


def _document(made: Classifier, output: Path, terminal: Watched) -> dict[str, Any]:
    """What ``--json`` says."""
    measures = made.measures
    told = {name: measures[name] for name in ("n_pictures", "n_held_out", "n_chosen_on", "shots", "keep", "tried")}
    return {
        "model": str(output),
        "method": made.recipe,
        "classes": list(made.classes),
        **told,
        "measures": measures["forgetting"],
        "prompt": measures["prompt"],
        "parameters": made.parameters,
        "notes": terminal.notes,
        "failures": [failure.to_json() for failure in terminal.failures],
    }


def _names_lines(made: Classifier, document: dict[str, Any], output: Path) -> list[str]:
    from ..learning.adaptation.prompt_recipe import prompt_lines

    head = f"{len(made.classes)} classes, {document['n_pictures']} pictures, keep {document['keep']:g}"
    return [
        f"{output}: {made.recipe}, {head}",
        *measure_lines(document["measures"]),
        *prompt_lines(document["prompt"]),
    ]
