"""``seewhy adapt --method``: what stands before the names of a few classes is learnt, and what it costs is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from .options import also, encoder_given, lines_of, method, open_store
from .terminal import say
from .training_runs import Watched, say_cost, say_measures

if TYPE_CHECKING:
    from ..classifiers.base import Classifier

Method = Annotated[
    str | None,
    method("It learns, of labelled pictures, what stands before their classes' names: coop, for one."),
]
Shots = Annotated[
    int | None,
    typer.Option(min=1, help="Pictures of each class to train on, with --method. Left out, all.", show_default=False),
]
BaseToNew = Annotated[
    bool,
    typer.Option(
        "--base-to-new", help="Learn the first half of the classes, with --method, and measure on the rest as well."
    ),
]
NewNames = Annotated[
    str | None,
    typer.Option(
        "--new-names",
        help="Names to learn for without a picture, with --method: separated by commas, or a .txt with one per line. "
        "Left out, no name beyond the classes' own is read.",
        show_default=False,
    ),
]
Also = Annotated[
    list[Path] | None,
    also("With --method; again for another set."),
]
NAMES_ONLY = ("setting", "model", "shots", "base_to_new", "new_names", "also", "validation")
"""Options that mean nothing without a method."""
NOT_BY_NAMES = ("objective", "train", "validation_pairs", "text_column", "instruction")
"""Options that mean nothing with one."""
SETTINGS = ("keep", "may_forget", "epochs", "batch_size", "lr", "shots", "seed")
"""Left out, the method's own."""


def given_among(context: typer.Context, names: Sequence[str]) -> list[str]:
    """Those that a person gave."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def refuse_without_method(context: typer.Context) -> None:
    """Refuse options of a method where none was named."""
    from ..errors import InputError

    names = given_among(context, NAMES_ONLY)
    if names:
        raise InputError(
            f"--{OPTIONS.get(names[0], names[0])} was given without --method. A method that learns classes by their "
            "names was expected beside it. Give --method coop, say, or drop it."
        )


OPTIONS = {"setting": "set", "base_to_new": "base-to-new", "new_names": "new-names"}


def adapt_and_save(context: typer.Context, method: str, terminal: Watched) -> NoReturn:
    """The whole verb: read, look, train, choose, measure, save, say."""
    from ..classifiers.saving import ARCHIVE
    from ..storage.output import check_checkpoint, make_folder
    from ..studies.forgetting import adapt_names
    from .fit import recipe_from, remove_checkpoints
    from .method_options import settings

    given = context.params
    _refuse_with_method(context, method)
    output: Path = given["output"]
    ARCHIVE.check(output)
    named = {name: given[name] for name in given_among(context, SETTINGS)}
    recipe = recipe_from(method, named, settings(given["setting"]))
    old, on = _begun(given)
    data = _data(given)
    if given["dry_run"]:
        say_cost(recipe.estimate(on, data.samples), given["as_json"])
        raise typer.Exit
    make_folder(output.parent)
    checkpoint = check_checkpoint(output.parent / f".{output.name}.checkpoint")
    made = adapt_names(
        recipe, on, data, old=old, store=open_store(given["store"]), progress=terminal, checkpoint=checkpoint
    )
    made = replace(made, trust=made.measured_trust)
    made.save(output)
    remove_checkpoints(checkpoint)
    terminal.close()
    told = document(made, output, terminal)
    if given["as_json"]:
        say(json.dumps(told, ensure_ascii=False))
    else:
        _say(made, told, output)
    raise typer.Exit(terminal.exit_code(told["n_pictures"] + len(terminal.failures)))


def _refuse_with_method(context: typer.Context, method: str) -> None:
    from ..errors import InputError

    names = given_among(context, NOT_BY_NAMES)
    if names:
        raise InputError(
            f"--{names[0].replace('_', '-')} was given with the method {method!r}, which has no use for it. A method "
            "that has, or none of it, was expected. Drop it, or leave --method out."
        )


def _begun(given: dict[str, Any]) -> tuple[Classifier | None, Any]:
    """The saved classifier that is named, if one is, and the encoder that is adapted."""
    from ..classifiers.saving import load
    from ..encoders.find import encoder as find

    if given["model"] is None:
        return None, find(given["encoder"], engine=given["engine"])
    old = load(given["model"], engine=given["engine"], encoder=encoder_given(given["encoder"]))
    return old, old.encoder if old.network is None else old.network.base


def _data(given: dict[str, Any]) -> Any:
    from ..pictures.samples import load_samples
    from ..studies.forgetting import AdaptingData

    columns = {"image": given["image_column"] or "image", "label": given["label_column"] or "label"}
    validation = given["validation"]
    return AdaptingData(
        load_samples(given["pairs"], **columns, group=given["group"]),
        validation=None if validation is None else load_samples(validation, **columns),
        base_to_new=given["base_to_new"],
        new_names=tuple(names_in(given["new_names"])) if given["new_names"] is not None else (),
        also={str(place): load_samples(place) for place in given["also"] or ()},
    )


def names_in(text: str) -> list[str]:
    """Names separated by commas, or those of a .txt with one per line.

    >>> names_in("a wren, a robin")
    ['a wren', 'a robin']
    """
    names = lines_of(Path(text), "class") if text.lower().endswith(".txt") else text.split(",")
    return [name.strip() for name in names if name.strip()]


def document(made: Classifier, output: Path, terminal: Watched) -> dict[str, Any]:
    """What ``--json`` says."""
    measures = made.measures
    return {
        "model": str(output),
        "method": made.recipe,
        "classes": list(made.classes),
        "n_pictures": measures["n_pictures"],
        "n_held_out": measures["n_held_out"],
        "n_chosen_on": measures["n_chosen_on"],
        "shots": measures["shots"],
        "keep": measures["keep"],
        "tried": measures["tried"],
        "measures": measures["forgetting"],
        "prompt": measures["prompt"],
        "parameters": made.parameters,
        "notes": terminal.notes,
        "failures": [failure.to_json() for failure in terminal.failures],
    }


def _say(made: Classifier, told: dict[str, Any], output: Path) -> None:
    from ..learning.adaptation.nearest_words import prompt_lines

    say(f"{output}: {made.recipe}, {len(made.classes)} classes, {told['n_pictures']} pictures, keep {told['keep']:g}")
    say_measures(told["measures"])
    for line in prompt_lines(told["prompt"]):
        say(line)
