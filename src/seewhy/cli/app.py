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

EXAMPLES = """
Examples:\n
  seewhy app -m birds\n
  seewhy app -m birds --data test/ --port 8080\n
  seewhy app -m birds --data test.csv --by country\n
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
    from ..app import Settings, make_app, serve
    from ..app.settings import MEGABYTE
    from ..storage.marks import DESCRIPTIONS
    from ..storage.output import check_file
    from .terminal import Terminal

    if save is not None:
        check_file(save, DESCRIPTIONS, force=force)
    terminal, kept = Terminal(quiet), options.open_store(store)
    classifier = options.resolve(model, labels, encoder, engine, descriptions, kept, follow_up)
    _check(classifier, save, data, by)
    if save is not None and save.exists():
        from ..app.editing import with_texts
        from ..descriptions.base import Descriptions

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
    served = make_app(classifier, settings, data=samples, store=kept)
    serve(served, settings, lambda url: say(f"SeeWhy is at {url} (Ctrl-C stops it)", flush=True))


def _check(classifier: Classifier, save: Path | None, data: Path | None, by: str | None) -> None:
    """Options that would do nothing.

    Raises:
        InputError: one was given.
    """
    from ..errors import InputError

    if save is not None and classifier.words is None:
        raise InputError(
            "--save was given, and this classifier has no descriptions to edit. Give some with --descriptions FILE."
        )
    if by is not None and data is None:
        raise InputError(f"--by {by} was given without pictures. A table was expected: --data FILE.")
