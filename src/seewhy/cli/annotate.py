"""``seewhy annotate``: people describe pictures, one after another, on a page of their own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .terminal import Terminal, say

if TYPE_CHECKING:
    from ..language.annotation.desk import AnnotationDesk
    from ..language.annotation.seeding import Seeder
    from ..language.annotation.store import AnnotationStore

EXAMPLES = """
Examples:\n
  seewhy annotate photos/ -o texts.sqlite\n
  seewhy annotate photos/ -o texts.sqlite -m birds --rounds 2\n
  seewhy annotate photos/ -o texts.sqlite --against other.jsonl\n
  seewhy annotate photos/ -o texts.sqlite --export descriptions.parquet\n
  seewhy annotate photos/ -o copy.sqlite --import descriptions.jsonl
"""


def annotate(
    pictures: options.Pictures,
    output: Annotated[Path, options.output("The SQLite file that everything is kept in, at every keystroke.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A saved model. A classifier that proposes objects and a first text; left out, and without --labels, "
            "nothing does.",
            show_default=False,
        ),
    ] = None,
    labels: options.Labels = None,
    descriptions: options.DescriptionFile = None,
    encoder: options.EncoderName = "lite0",
    engine: options.EngineName = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds after which a text is finished.")] = 3,
    min_edits: Annotated[
        float, typer.Option(min=0, max=1, help="Or when a round by another person changes less than this part of it.")
    ] = 0.05,
    host: options.Host = "127.0.0.1",
    port: options.Port = 8000,
    name: options.HostNames = None,
    against: Annotated[
        Path | None,
        typer.Option(help='Texts to compare with, JSONL: {"image": …, "description": …}.', show_default=False),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Write .jsonl, .parquet or .json (Label Studio) and stop.", show_default=False),
    ] = None,
    bring: Annotated[
        Path | None,
        typer.Option("--import", help="Take in .jsonl, or .json of Label Studio, and stop.", show_default=False),
    ] = None,
    force: options.Force = False,
    as_json: options.Json = False,
    kept_in: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """Describe pictures in rounds: objects in boxes, then the whole. Nothing that is typed is lost."""
    from ..language.annotation.desk import AnnotationDesk
    from ..language.annotation.formats import bring_in, check_export
    from ..language.annotation.formats import export as write
    from ..language.annotation.rounds import StopRule
    from ..language.annotation.store import AnnotationStore

    terminal = Terminal(quiet)
    if export is not None:
        check_export(export, force=force)
    store = AnnotationStore(output)
    rule = StopRule(rounds, min_edits)
    n = _list_pictures(store, pictures, terminal)
    if bring is not None:
        took, notes = bring_in(store, bring)
        for note in notes:
            terminal.note(note)
        _tell({"file": str(bring), "pictures": took}, f"{bring}: taken into {took} pictures of {output}", as_json)
    if export is not None:
        wrote = write(store, export, rule, force=force)
        _tell({"file": str(export), "pictures": wrote}, f"{export}: {wrote} pictures", as_json)
    if bring is not None or export is not None:
        store.close()
        raise typer.Exit(terminal.exit_code(n))
    desk = AnnotationDesk(store, rule, _seeder(model, labels, descriptions, encoder, engine, kept_in))
    if against is not None:
        terminal.note(_take_texts(store, against))
    _serve(desk, host, port, tuple(name or ()), n, as_json)


def _list_pictures(store: AnnotationStore, data: list[str], terminal: Terminal) -> int:
    """Make the pictures known; those that cannot be read are named."""
    from ..errors import DataError
    from ..language.annotation.desk import find_pictures
    from ..types import Failure
    from .options import picture_names

    found = []
    for one in terminal.track(find_pictures(picture_names(data)), "Reading"):
        if isinstance(one, Failure):
            terminal.failed(one)
        else:
            found.append(one)
    if not found:
        raise DataError(f"No picture in {', '.join(data)} can be read. At least one was expected. Give other files.")
    store.add_pictures(found)
    return len(found)


def _seeder(
    model: str | None, labels: str | None, descriptions: Path | None, encoder: str, engine: str, store: str | None
) -> Seeder | None:
    """What proposes; nothing, unless a model or classes were named."""
    from ..language.annotation.seeding import ClassifierSeeder
    from .options import open_store, resolve

    if model is None and labels is None:
        return None
    return ClassifierSeeder(resolve(model, labels, encoder, engine, descriptions, open_store(store)))


def _take_texts(store: AnnotationStore, path: Path) -> str:
    """Texts from elsewhere, found by the picture's file name."""
    from ..errors import DataError
    from ..storage.reading import json_lines, read_text

    keys: dict[str, list[str]] = {}
    for picture in store.pictures():
        keys.setdefault(Path(picture.name).name, []).append(picture.key)
    texts = []
    try:
        for row in json_lines(read_text(path)):
            texts += [(key, str(row["description"])) for key in keys.get(Path(str(row["image"])).name, ())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'{path} cannot be read: {error!r}. Lines of {{"image": …, "description": …}} were expected.'
        ) from error
    store.put_texts(path.stem, texts)
    return f"{len(texts)} texts of {path} to compare with"


def _serve(desk: AnnotationDesk, host: str, port: int, names: tuple[str, ...], n: int, as_json: bool) -> None:
    from ..errors import MissingExtraError
    from ..service.app import Settings, serve

    try:
        from ..service.app.annotate import make_annotation_app
    except ImportError as error:
        raise MissingExtraError("app", "The page") from error
    settings = Settings(host=host, port=port, names=names)

    def ready(address: str) -> None:
        _tell({"address": address, "pictures": n}, f"{n} pictures at {address} (stop with Ctrl-C)", as_json)
        if settings.is_open:
            say("seewhy: others on this network can read and write here; there is no password", file=sys.stderr)

    serve(make_annotation_app(desk, settings), settings, ready)
    desk.store.close()


def _tell(data: dict[str, object], line: str, as_json: bool) -> None:
    say(json.dumps(data, ensure_ascii=False) if as_json else line, flush=True)
