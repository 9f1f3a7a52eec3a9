"""``seewhy study description-semantics`` and ``edit-words``: what words are worth, and what changing them does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .outputs import StudyFolder, answer, check_both
from .study_options import Labelled
from .terminal import Terminal, say

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..descriptions.base import Descriptions

SEMANTICS_EXAMPLES = """
Examples:\n\n
  seewhy study description-semantics photos/ --labels birds.json\n\n
  seewhy study description-semantics photos/ -m birds -o study\n\n
  seewhy study description-semantics photos/ --labels birds.json --encoder open_clip:ViT-B-32/openai --json
"""
EDIT_EXAMPLES = """
Examples:\n\n
  seewhy study edit-words photos/ --labels birds.json --remove "red beak"\n\n
  seewhy study edit-words photos.csv -m birds --replace "red=orange" --by country\n\n
  seewhy study edit-words photos/ --labels birds.json --remove "on a branch" --class robin -o edited
"""


def description_semantics(
    data: Labelled,
    model: options.Model = None,
    labels: options.Labels = None,
    descriptions: options.DescriptionFile = None,
    encoder: options.EncoderName = "lite0",
    engine: options.EngineName = "auto",
    output: StudyFolder = None,
    n_noise: Annotated[int, typer.Option(min=2, help="Draws of every control.")] = 7,
    n_classes: Annotated[int, typer.Option(min=2, help="Classes in question, where descriptions are chosen.")] = 3,
    n_chosen: Annotated[int, typer.Option(min=1, help="Descriptions chosen for each.")] = 5,
    image_column: options.ImageColumn = "image",
    label_column: options.LabelColumn = "label",
    seed: Annotated[int, options.seed("Halves, draws and resampling.")] = 0,
    force: options.Force = False,
    as_json: options.Json = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """Do these words help: by what they say, or only by being several? Stopped, it goes on where it was."""
    from ..pictures.samples import load_samples
    from ..studies.description_semantics import DescriptionSemanticsStudy

    terminal = Terminal(quiet)
    check_both(output, "description-semantics", force)
    kept = options.open_store(store)
    classifier = options.resolve(model, labels, encoder, engine, descriptions, kept)
    samples = load_samples(data, image=image_column, label=label_column)
    study = DescriptionSemanticsStudy(n_noise, n_classes, n_chosen, seed)
    found = study.run(classifier.encoder, described_by(classifier), samples, output, store=kept, progress=terminal)
    answer(found, output, "description-semantics", force, as_json, _print_arms)
    raise typer.Exit(terminal.exit_code(found.data["n"]))


def described_by(classifier: Classifier) -> Descriptions:
    """A classifier's descriptions, as people wrote them."""
    from ..classifiers.recipe import recipe_of
    from ..classifiers.words import texts_of
    from ..descriptions.base import Descriptions
    from ..errors import DataError

    if classifier.words is None or recipe_of(classifier.recipe).words_are != "given":
        raise DataError(
            "This classifier has no descriptions of its classes. Give some: --labels classes.json, or a model with "
            "--descriptions FILE."
        )
    return Descriptions.of(texts_of(classifier.words))


def _print_arms(data: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("arm", "", "right", "interval", "less names", "less descriptions"):
        shown.add_column(column, justify="left" if column in ("arm", "") else "right")
    for arm in data["arms"]:
        low, high = arm["interval"]
        cells = [_difference(arm.get(key)) for key in ("less_names", "less_descriptions")]
        shown.add_row(arm["name"], arm["group"], f"{arm['value']:.1%}", f"{low:.1%} to {high:.1%}", *cells)
    Console(soft_wrap=True).print(shown)
    say("* the interval of the difference leaves out 0")


def _difference(found: dict[str, Any] | None) -> str:
    return "" if found is None else f"{found['value'] * 100:+.1f}{' *' if found['real'] else '  '}"


def edit_words(
    data: Labelled,
    model: options.Model = None,
    labels: options.Labels = None,
    descriptions: options.DescriptionFile = None,
    encoder: options.EncoderName = "lite0",
    engine: options.EngineName = "auto",
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", help="Take out every description that has this phrase.", show_default=False),
    ] = None,
    replace: Annotated[
        list[str] | None,
        typer.Option("--replace", help="OLD=NEW: say NEW where a description says OLD.", show_default=False),
    ] = None,
    of_class: Annotated[
        str | None, typer.Option("--class", help="Only descriptions of this class.", show_default=False)
    ] = None,
    by: options.By = None,
    output: StudyFolder = None,
    image_column: options.ImageColumn = "image",
    label_column: options.LabelColumn = "label",
    force: options.Force = False,
    as_json: options.Json = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """Take words out or say them otherwise: what changes, for whom, on which pictures?"""
    from ..descriptions.edits import Edit
    from ..studies.edit_words import EditWordsStudy

    terminal = Terminal(quiet)
    check_both(output, "edit-words", force)
    kept = options.open_store(store)
    study = EditWordsStudy(Edit(tuple(remove or ()), tuple(map(_old_new, replace or ())), of_class))
    classifier = options.resolve(model, labels, encoder, engine, descriptions, kept)
    samples = options.grouped_samples(data, image_column, label_column, by)
    found = study.run(classifier, samples, store=kept, progress=terminal)
    answer(found, output, "edit-words", force, as_json, _print_changes)
    raise typer.Exit(terminal.exit_code(found.data["n"]))


def _print_changes(data: dict[str, Any]) -> None:
    for change in data["changes"][:20]:
        say(f"{change['label']}: {change['before']} → {change['after'] or 'taken out'}")


def _old_new(text: str) -> tuple[str, str]:
    from ..errors import InputError

    old, sign, new = text.partition("=")
    if not sign:
        raise InputError(f"{text!r} was given. Two phrases with = between were expected, like --replace red=orange.")
    return old.strip(), new.strip()
