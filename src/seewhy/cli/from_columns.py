"""``seewhy adapt`` by a table's columns: answers to instructions, or names of classes beside captions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from .options import open_store
from .terminal import say
from .training_runs import Watched, log_of, say_measures

if TYPE_CHECKING:
    from ..training.from_columns import FromColumns, Taught

Instructions = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN=WORDS",
        help="An instruction, and the table's column that answers it, as colour='the colour'; again for another, or "
        "for another wording of the same.",
        show_default=False,
    ),
]
NOT_BY_COLUMNS = ("train", "may_forget", "validation_pairs", "dry_run")
SETTINGS = ("epochs", "batch_size", "lr", "seed")
"""Left out, the training's own."""


@dataclass(frozen=True)
class Form:
    """A training by columns, as the options give it."""

    how: FromColumns
    seed: int


def form_of(objective: str, context: typer.Context) -> Form | None:
    """The training of an objective that learns from columns; ``None`` for one that learns from pairs.

    Raises:
        InputError: an option is missing, does not fit, or is not of the form.
    """
    from ..objectives import objectives
    from ..training.from_columns import ByClassesAndCaptions, ByInstructions
    from ..training.instructed import Instruct
    from ..training.prefixed import Prefixing

    options, chosen = context.params, objectives[objective]
    settings = {name: options[name] for name in given_among(context, SETTINGS)}
    if chosen is ByInstructions.objective:
        refuse(objective, given_among(context, (*NOT_BY_COLUMNS, "text_column", "label_column")))
        how: FromColumns = ByInstructions(by_column(options["instruction"] or ()), Instruct(**settings))
    elif chosen is ByClassesAndCaptions.objective:
        refuse(objective, given_among(context, (*NOT_BY_COLUMNS, "instruction")))
        how = ByClassesAndCaptions(options["label_column"], options["text_column"] or None, Prefixing(**settings))
    else:
        return None
    return Form(how, options["seed"])


def given_among(context: typer.Context, names: Sequence[str]) -> list[str]:
    """Those that a person gave."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def refuse(objective: str, names: Sequence[str]) -> None:
    """Refuse an option that an objective has no use for."""
    from ..errors import InputError

    if names:
        option = f"--{names[0].replace('_', '-')}"
        raise InputError(
            f"{option} was given with the objective {objective!r}, which has no use for it. An objective that has, or "
            "none of it, was expected. Drop it, or take another objective."
        )


def by_column(given: Sequence[str]) -> dict[str, list[str]]:
    """Column → wordings.

    >>> by_column(["colour=the colour", "kind=its kind", "colour=what colour is it?"])
    {'colour': ['the colour', 'what colour is it?'], 'kind': ['its kind']}

    Raises:
        InputError: one is not of the form.
    """
    from ..errors import InputError

    found: dict[str, list[str]] = {}
    for one in given:
        column, _, words = (part.strip() for part in one.partition("="))
        if not (column and words):
            raise InputError(
                f"--instruction was given {one!r}. COLUMN=WORDS was expected. For example: colour='the colour'"
            )
        found.setdefault(column, []).append(words)
    return found


def teach_and_save(
    form: Form,
    pairs: str,
    columns: Mapping[str, Any],
    looks: tuple[str, str],
    output: Path,
    keep: float | None,
    store: str | None,
    terminal: Watched,
    as_json: bool,
) -> NoReturn:
    """The whole verb: read, look, train, measure, save, say."""
    from ..encoders.adapted import check_place
    from ..encoders.find import encoder as find
    from ..storage.marks import CHECKPOINT
    from ..storage.output import check_checkpoint, make_folder, remove

    check_place(output)
    on = find(looks[0], engine=looks[1])
    make_folder(output.parent)
    checkpoint = check_checkpoint(output.parent / f".{output.name}.checkpoint")
    done = form.how.fit(
        on,
        pairs,
        **columns,
        keep=1.0 if keep is None else keep,
        seed=form.seed,
        store=open_store(store),
        progress=terminal,
        checkpoint=checkpoint,
    )
    told = document(done, terminal, output)
    done.adaptation.save(
        output, {"run.json": json.dumps(told, indent=1, ensure_ascii=False), "log.csv": log_of(done.done)}
    )
    remove(checkpoint, CHECKPOINT)
    terminal.close()
    if as_json:
        say(json.dumps({**told, "history": None}, ensure_ascii=False))
    else:
        objective = form.how.objective.name
        say(f"{output}: {objective}, {len(done.done.history)} steps; named right of {done.n_held} held-out pictures")
        say_measures(told["measures"])
    raise typer.Exit(terminal.exit_code(told["n_pictures"] + len(terminal.failures)))


def document(done: Taught, terminal: Watched, output: Path) -> dict[str, Any]:
    """What ``--json`` says, with every step."""
    from ..studies.retrieval import groups_of, measure_row

    rows = [
        measure_row(measure, (before, after), groups_of(items), 0)
        for measure, (items, before, after) in done.named.items()
    ]
    provenance = dict(done.adaptation.provenance)
    return {
        "encoder_folder": str(output),
        "n_pictures": provenance["n_pictures"] + done.n_held,
        "n_held_out": done.n_held,
        "keep": done.adaptation.keep,
        "measures": rows,
        "provenance": provenance,
        "history": list(done.done.history),
        "seconds_per_step": round(done.done.seconds_per_step, 4),
        "notes": terminal.notes,
        "failures": [failure.to_json() for failure in terminal.failures],
    }
