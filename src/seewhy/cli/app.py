"""``seewhy app``: the page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .terminal import say

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..language.annotation.labels import Corrections
    from ..pictures.samples import Samples

EXAMPLES = """
Examples:\n
  seewhy app -m birds\n
  seewhy app -m birds --data test/ --port 8080\n
  seewhy app -m birds --data test.csv --by country\n
  seewhy app -m birds --data test.csv --decisions decided/\n
  seewhy app --data test.csv --decisions decided/ --export corrected.csv\n
  seewhy app --labels classes.json --save edited.json\n
  seewhy app -m birds --host 0.0.0.0 --name birds.example.org
"""


def app(
    model: options.Model = None,
    labels: options.Labels = None,
    descriptions: options.DescriptionFile = None,
    follow_up: options.FollowUpFile = None,
    encoder: options.EncoderName = "lite0",
    engine: options.EngineName = "auto",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Labelled pictures: browse what the model gets wrong, and what edited words change.",
            show_default=False,
        ),
    ] = None,
    image_column: options.ImageColumn = "image",
    label_column: options.LabelColumn = "label",
    by: options.By = None,
    decisions: Annotated[
        Path | None,
        typer.Option(
            help="Correct, confirm or put off the labels of --data beside the mistakes; what is decided is kept in "
            "this folder (decisions.sqlite), which may be that of a check. Left out, nothing can be decided.",
            show_default=False,
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            help="Write --data with what was decided in --decisions as .csv and stop; --data is only read.",
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            help="Keep edited descriptions in this file, and go on from them; left out, edits last for the session.",
            show_default=False,
        ),
    ] = None,
    host: options.Host = "127.0.0.1",
    port: options.Port = 8000,
    name: options.HostNames = None,
    max_upload: options.MaxUpload = 20.0,
    decode_seconds: options.DecodeSeconds = 10,
    measure: options.Measure = True,
    force: options.Force = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """Serve the page: drop a picture, see the card, point at words and heat, edit words, compare, browse mistakes."""
    from ..service.app import Settings, make_app, serve
    from ..service.app.settings import MEGABYTE
    from ..storage.output import check_file
    from .terminal import Terminal

    if export is not None:
        _export(export, data, decisions, (image_column, label_column), force)
        return
    if save is not None:
        check_file(save, force=force)
    terminal, kept = Terminal(quiet), options.open_store(store)
    classifier = options.resolve(model, labels, encoder, engine, descriptions, kept, follow_up)
    _check(classifier, save, data, by, decisions)
    if save is not None and save.exists():
        from ..descriptions.base import Descriptions
        from ..service.app.words import with_texts

        classifier = with_texts(classifier, Descriptions.read(save).texts, kept)
    settings = Settings(
        host=host,
        port=port,
        names=tuple(name or ()),
        max_upload=round(max_upload * MEGABYTE),
        decode_seconds=decode_seconds,
        measure=measure,
        save=save,
        force=force,
    )
    if settings.is_open:
        say(
            f"seewhy: {host} can be reached by other machines, and whoever reaches it may use the page: it has no "
            "passwords. Leave --host out to keep it to this one.",
            file=sys.stderr,
        )
    samples = None if data is None else options.grouped_samples(data, image_column, label_column, by)
    for note in () if samples is None else samples.notes:
        terminal.note(note)
    corrections = None
    if data is not None and samples is not None and decisions is not None:
        corrections = _corrections(data, samples, decisions, classifier.classes, (image_column, label_column))
    served = make_app(classifier, settings, data=samples, store=kept, corrections=corrections)
    serve(served, settings, lambda url: say(f"SeeWhy is at {url} (Ctrl-C stops it)", flush=True))


def _corrections(
    data: Path, samples: Samples, folder: Path, classes: tuple[str, ...], columns: tuple[str, str]
) -> Corrections:
    """What is decided on; a picture may get a label of the model or of the data."""
    from ..language.annotation.labels import Corrections, LabelledData, open_decisions

    known = tuple(dict.fromkeys((*classes, *samples.classes)))
    return Corrections(LabelledData(data, samples.items, *columns), open_decisions(folder, known))


def _export(path: Path, data: Path | None, decisions: Path | None, columns: tuple[str, str], force: bool) -> None:
    """The corrected table, for which no model is needed."""
    from ..errors import InputError
    from ..language.annotation.labels import LabelledData, check_corrected, open_decisions
    from ..pictures.samples import load_samples
    from .correcting import export_corrected

    if data is None or decisions is None:
        raise InputError(
            f"--export {path} was given without the data or what was decided on them. --data and --decisions were "
            "expected. Give both."
        )
    check_corrected(path, data, force)
    samples = load_samples(data, image=columns[0], label=columns[1])
    kept = open_decisions(decisions, samples.classes, new=False)
    export_corrected(path, LabelledData(data, samples.items, *columns), kept, force)


def _check(
    classifier: Classifier, save: Path | None, data: Path | None, by: str | None, decisions: Path | None
) -> None:
    """Options that would do nothing."""
    from ..errors import InputError

    if save is not None and classifier.words is None:
        raise InputError(
            "--save was given, and this classifier has no descriptions to edit. Give some with --descriptions FILE."
        )
    if decisions is not None and data is None:
        raise InputError(f"--decisions {decisions} was given without pictures. Labelled ones were expected: --data.")
    if by is not None and data is None:
        raise InputError(f"--by {by} was given without pictures. A table was expected: --data FILE.")
