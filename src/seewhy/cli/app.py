"""``seewhy app``: the page."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import DescriptionFile, EncoderName, EngineName, Labels, Model, Quiet, Store, open_store, resolve

EXAMPLES = """
Examples:\n
  seewhy app -m birds\n
  seewhy app -m birds --data test/ --port 8080\n
  seewhy app --labels classes.json --save classes.json\n
  seewhy app -m birds --host 0.0.0.0 --name birds.example.org
"""


def app(
    model: Model = None,
    labels: Labels = None,
    descriptions: DescriptionFile = None,
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled pictures: browse what the model gets wrong.", show_default=False),
    ] = None,
    image_column: Annotated[str, typer.Option(help="A table's column of file names.")] = "image",
    label_column: Annotated[str, typer.Option(help="A table's column of classes.")] = "label",
    save: Annotated[
        Path | None,
        typer.Option(
            help="Write edited descriptions here, and go on from them; left out, edits last for the session.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 opens the page to the network.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    name: Annotated[
        list[str] | None,
        typer.Option(help="A host name to answer under, beside localhost and addresses.", show_default=False),
    ] = None,
    max_upload: Annotated[float, typer.Option(min=0.001, help="Largest request, in megabytes.")] = 20.0,
    measure: Annotated[bool, typer.Option(help="Measure deletion and insertion (about one second a card).")] = True,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """Serve the page: drop a picture, see the card, point at words and heat, edit words, compare, browse mistakes."""
    from ..app import Settings, make_app, serve
    from ..app.settings import MEGABYTE
    from ..data import load_samples
    from .terminal import Terminal

    terminal, kept = Terminal(quiet), open_store(store)
    classifier = resolve(model, labels, encoder, engine, descriptions, kept)
    if save is not None and save.exists():
        from ..app.editing import with_texts
        from ..descriptions.base import Descriptions

        classifier = with_texts(classifier, Descriptions.read(save).texts, kept)
    settings = Settings(
        host=host,
        port=port,
        names=tuple(name or ()),
        max_upload=round(max_upload * MEGABYTE),
        measure=measure,
        save=save,
    )
    if not _is_loopback(host):
        print(
            f"seewhy: {host} can be reached by other machines, and whoever reaches it may use the page: it has no "
            "passwords. Leave --host out to keep it to this one.",
            file=sys.stderr,
        )
    samples = None if data is None else load_samples(data, image=image_column, label=label_column)
    for note in () if samples is None else samples.notes:
        terminal.note(note)
    served = make_app(classifier, settings, data=samples, store=kept)
    serve(served, settings, lambda url: print(f"SeeWhy is at {url} (Ctrl-C stops it)", flush=True))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
