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
from .fit import recipe_from
from .session import Session
from .terminal import Terminal

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..learning.outputs import Cost
    from ..learning.way import Way

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
    """Teach an encoder your own pictures and words. Run again, it goes on where it was stopped."""
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
    """Train an encoder, all of it kept; new:resnet, new:vit and new:vit_swl begin from nothing."""
    way = _way(session, objective, instruction, all_of_it=True)
    watched = Watched(session.quiet, tensorboard)
    if way.stays:
        watched.note(way.stays)
    _train_and_save(session, way, pairs, validation, output, watched, dry_run)


class Watched(Terminal):
    """Progress on standard error, and each step for TensorBoard where a folder is named."""

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
    from ..learning.adapt import Adapt
    from ..learning.api import way_of
    from ..learning.objectives import objectives
    from ..learning.pretrain import Pretrain
    from ..parameters import configured, hints_of, value_of

    context = session.context
    settings = {name: context.params[name] for name in session.was_given(n for n in BY_OPTION if n in context.params)}
    names = {**hints_of(Pretrain), **hints_of(Adapt)}
    for name in [name for name in session.settings if name in BY_SET]:
        settings[name] = value_of(objective, name, session.settings.pop(name), names[name])
    if session.seed_given is not None:
        settings["seed"] = session.seed_given
    if instruction:
        settings["instructions"] = by_column(instruction)
    if session.settings:
        made: Any = configured(objectives[objective], session.settings)
        settings["settings"] = {name: getattr(made, name) for name in session.settings}
    return way_of(objective, settings, _columns(session), all_of_it=all_of_it, spelt=_spelt)


def _columns(session: Session) -> dict[str, Any]:
    return {name: value for name, value in session.pair_columns().items() if value is not None}


def _spelt(name: str) -> str:
    if name in ("image", "text", "label"):
        return f"--column {name}"
    named = {"instructions": "--instruction", "settings": "--set"}
    return named.get(name, f"--set {name}" if name in BY_SET else f"--{name.replace('_', '-')}")


def by_column(given: Sequence[str]) -> dict[str, list[str]]:
    """Column → wordings.

    >>> by_column(["colour=the colour", "kind=its kind", "colour=what colour is it?"])
    {'colour': ['the colour', 'what colour is it?'], 'kind': ['its kind']}
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
    from ..learning.encoders.adapted import check_place
    from ..studies.adapting import files_of, run_report, title_of

    check_place(output)
    read = way.read(pairs, _columns(session), watched)
    chosen_on = None if validation is None else way.read(str(validation), _columns(session), watched)
    encoder, store = session.encoder(), session.store
    if dry_run:
        from ..learning.cost import estimate

        _say_cost(session, estimate(way, encoder, read, validation=chosen_on is not None))
    with session.checkpoint(output) as checkpoint:
        done = way.fit(encoder, read, validation=chosen_on, store=store, progress=watched, checkpoint=checkpoint)
        report = run_report(done, str(output), store=store, notes=watched.notes, progress=watched)
        report.data["failures"] = [failure.to_json() for failure in watched.failures]
        done.adaptation.save(output, files_of(done, report))
    watched.close()
    session.say(
        {**report.data, "run": {**report.data["run"], "history": None}, "encoder_folder": str(output)},
        f"{output}: {title_of(done.adaptation.provenance)}",
        *measure_lines(report.data["measures"]),
        f"page: {output / 'run.html'}",
    )
    raise typer.Exit(watched.exit_code(len(read)))


def measure_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
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
    texts = f" with {cost.n_texts} texts" if cost.n_texts else ""
    session.say(
        asdict(cost),
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
    with session.checkpoint(output) as checkpoint:
        made = adapt_names(recipe, on, data, old=old, store=session.store, progress=terminal, checkpoint=checkpoint)
        made = replace(made, trust=made.measured_trust)
        made.save(output)
    terminal.close()
    document = _document(made, output, terminal)
    head = f"{len(made.classes)} classes, {document['n_pictures']} pictures, keep {document['keep']:g}"
    session.say(document, f"{output}: {made.recipe}, {head}", *measure_lines(document["measures"]))
    raise typer.Exit(terminal.exit_code(document["n_pictures"] + len(terminal.failures)))


def _document(made: Classifier, output: Path, terminal: Watched) -> dict[str, Any]:
    measures = made.measures
    told = {name: measures[name] for name in ("n_pictures", "n_held_out", "n_chosen_on", "shots", "keep", "tried")}
    return {
        "model": str(output),
        "method": made.recipe,
        "classes": list(made.classes),
        **told,
        "measures": measures["forgetting"],
        "parameters": made.parameters,
        "notes": terminal.notes,
        "failures": [failure.to_json() for failure in terminal.failures],
    }
