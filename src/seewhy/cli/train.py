"""``seewhy adapt`` and ``seewhy pretrain``: train encoders on pictures, texts or class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import typer

from ..bounds import Count, Part
from ..errors import InputError
from ..parameters import configured, hints_of, value_of
from ..progress import duration
from . import options
from .fit import recipe_from
from .session import Session, assignments
from .terminal import Terminal

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..learning.way import Cost, Way

NAMES_ONLY = ("model", "shots", "base_to_new", "new_names", "also")
"""Options that require ``--method``."""
NOT_BY_NAMES = ("objective", "train", "instruction", "dry_run")
"""Options that cannot be combined with ``--method``."""
BY_OPTION = ("train", "keep", "epochs", "projection", "augmentation")
"""Options that are settings of a training; by default, the training's own."""
BY_SET = ("may_forget", "batch_size", "lr", "projection_width", "kappa", "effective", "keep_head", "pyramid")
"""Settings of a training; all others are settings of the objective."""


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
) -> None:
    """Adapt an encoder to your own pictures and texts. Run again to continue a stopped run."""
    if method is not None:
        _adapt_names(session)
    for name in session.was_given(NAMES_ONLY):
        raise InputError(
            f"--{name.replace('_', '-')} requires --method. Add --method coop, for example, or leave it out."
        )
    _train_and_save(session, _way(session, all_of_it=False))


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
) -> None:
    """Train an encoder; new:resnet, new:vit and new:vit_swl start from random weights."""
    way = _way(session, all_of_it=True)
    if way.stays:
        session.terminal.note(way.stays)
    _train_and_save(session, way)


def _way(session: Session, *, all_of_it: bool) -> Way:
    from ..learning.adapt import Adapt
    from ..learning.api import way_of
    from ..learning.objectives import objectives
    from ..learning.pretrain import Pretrain

    options_given = vars(session.given)
    objective, instruction = session.given.objective, session.given.instruction
    settings = {name: options_given[name] for name in session.was_given(n for n in BY_OPTION if n in options_given)}
    names = {**hints_of(Pretrain), **hints_of(Adapt)}
    for name in [name for name in session.settings if name in BY_SET]:
        settings[name] = value_of(objective, name, session.settings.pop(name), names[name])
    if session.seed_given is not None:
        settings["seed"] = session.seed_given
    if instruction:
        settings["instructions"] = by_column(instruction)
    if session.settings:
        with session.options_told():
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
    """Return the wordings of each column.

    >>> by_column(["colour=the colour", "kind=its kind", "colour=what colour is it?"])
    {'colour': ['the colour', 'what colour is it?'], 'kind': ['its kind']}
    """
    wordings: dict[str, list[str]] = {}
    for column, words in assignments("--instruction", given, "COLUMN=WORDS", "colour='the colour'"):
        wordings.setdefault(column, []).append(words)
    return wordings


def _train_and_save(session: Session, way: Way) -> NoReturn:
    from ..learning.encoders.adapted import check_place
    from ..studies.adapting import files_of, run_report, title_of

    o, terminal, store = session.given, session.terminal, session.store
    output, validation = o.output, o.validation
    check_place(output)
    read = way.read(o.pairs, _columns(session), terminal)
    chosen_on = None if validation is None else way.read(str(validation), _columns(session), terminal)
    encoder = session.encoder()
    if o.dry_run:
        from ..learning.way import estimate

        _say_cost(session, estimate(way, encoder, read, validation=chosen_on is not None))
    with session.checkpoint(output) as checkpoint:
        done = way.fit(encoder, read, validation=chosen_on, store=store, progress=terminal, checkpoint=checkpoint)
        report = run_report(done, str(output), store=store, notes=terminal.notes, progress=terminal)
        report.data["failures"] = [failure.to_json() for failure in terminal.failures]
        done.adaptation.save(output, files_of(done, report))
    session.say(
        {**report.data, "run": {**report.data["run"], "history": None}, "encoder_folder": str(output)},
        f"{output}: {title_of(done.adaptation.provenance)}",
        *measure_lines(report.data["measures"]),
        f"page: {output / 'run.html'}",
    )
    session.end(len(read))


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
        f"encoding pictures and texts, unless cached: {duration(cost.seconds_looking)}",
        f"training: {cost.n_steps} steps of {cost.seconds_per_step:.2f} s on this machine",
        f"in all: {duration(cost.seconds)}",
    )
    raise typer.Exit


def _adapt_names(session: Session) -> NoReturn:
    """Train a prompt for class names, measure it and save the classifier."""
    from ..classifiers.saving import ARCHIVE
    from ..studies.forgetting import AdaptingData, adapt_names

    o, terminal = session.given, session.terminal
    output = o.output
    if unused := [*session.was_given(NOT_BY_NAMES), *(["column text"] if "text" in session.columns else [])]:
        raise InputError(
            f"--{unused[0].replace('_', '-')} cannot be combined with --method {o.method}. Use only one of them."
        )
    ARCHIVE.check(output)
    named = {name: getattr(o, name) for name in session.was_given(("keep", "epochs", "shots"))}
    recipe = recipe_from(session, o.method, **named)
    old = None if o.model is None else session.saved(o.model)
    on = session.encoder() if old is None else old.base
    data = AdaptingData(
        session.samples(o.pairs, group=session.group),
        validation=None if o.validation is None else session.samples(o.validation),
        base_to_new=o.base_to_new,
        new_names=None if o.new_names is None else tuple(options.names_in(o.new_names)),
        also={str(place): session.samples(place) for place in o.also or ()},
    )
    with session.checkpoint(output) as checkpoint:
        classifier = adapt_names(
            recipe, on, data, old=old, store=session.store, progress=terminal, checkpoint=checkpoint
        )
        classifier = replace(classifier, trust=classifier.measured_trust)
        classifier.save(output)
    document = _document(classifier, output, terminal)
    head = f"{len(classifier.classes)} classes, {document['n_pictures']} pictures, keep {document['keep']:g}"
    session.say(document, f"{output}: {classifier.recipe}, {head}", *measure_lines(document["measures"]))
    session.end(document["n_pictures"] + len(terminal.failures))


def _document(classifier: Classifier, output: Path, terminal: Terminal) -> dict[str, Any]:
    measures = classifier.measures
    counts = {name: measures[name] for name in ("n_pictures", "n_held_out", "n_chosen_on", "shots", "keep", "tried")}
    return {
        "model": str(output), "method": classifier.recipe, "classes": list(classifier.classes), **counts,
        "measures": measures["forgetting"], "parameters": classifier.parameters, "notes": terminal.notes,
        "failures": [failure.to_json() for failure in terminal.failures],
    }  # fmt: skip
