"""``seewhy index``: pictures become searchable."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import options
from .terminal import say
from .verify import Verify, say_verified

if TYPE_CHECKING:
    from ..retrieval import Index
    from ..retrieval.settings import Settings
    from ..retrieval.writing import Entry
    from ..storage.verification import Verification

EXAMPLES = """
Examples:\n
  seewhy index photos/ -o library\n
  seewhy index vectors/ -o library\n
  seewhy index more/ -o library --add\n
  seewhy index -o library --forget photos/old --forget-missing\n
  seewhy index --verify library\n
  seewhy index photos/ -o library --encoder open_clip:ViT-B-32/openai --whiten 256\n
  seewhy index photos/ -o by-colour --encoder enc --focus "the colour"
"""


def index(
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Pictures, folders, class folders, tables with classes, or what seewhy embed wrote, s3:// as well.",
            metavar="DATA|ADDRESS",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path | None, options.output("The index's folder.")] = None,
    encoder: options.EncoderName = "lite0",
    focus: options.Focus = None,
    model: Annotated[str | None, options.saved("A classifier, whose encoder looks. Left out, --encoder.")] = None,
    engine: options.EngineName = "auto",
    add: Annotated[bool, typer.Option("--add", help="Only add to an index that is there, with its settings.")] = False,
    forget: Annotated[
        list[Path] | None, typer.Option(help="Forget a picture, or all below a folder.", show_default=False)
    ] = None,
    forget_missing: Annotated[
        bool, typer.Option("--forget-missing", help="Forget pictures whose files are gone.")
    ] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Fit whitening and approximate search anew, and clear away what is gone.")
    ] = False,
    verify: Verify = None,
    parts: Annotated[
        Literal["none", "spatial", "jitter"],
        typer.Option(help="Keep overlapping parts of each picture, or its crops, and compare them too."),
    ] = "none",
    levels: Annotated[int, typer.Option(min=1, max=5, help="Levels of a picture's spatial parts. 4 are 30 parts.")] = 4,
    whiten: Annotated[int, typer.Option(min=0, help="Components of PCA whitening; 0 leaves vectors as they are.")] = 0,
    words: Annotated[bool, typer.Option(help="Make the index searchable by words, if the encoder can.")] = True,
    approximate_from: Annotated[int, typer.Option(help="Pictures from which search is approximate.")] = 200_000,
    image_column: options.ImageColumn = "image",
    label_column: options.LabelColumn = "label",
    as_json: options.Json = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """Make pictures searchable, or change what is. Pictures that are there are not looked at again."""
    from ..errors import InputError
    from ..retrieval.index import check_place
    from ..retrieval.settings import Settings
    from ..retrieval.writing import Change
    from ..scale.reading import add_run, is_run
    from .terminal import Terminal

    if verify is not None:
        if data or output or forget or forget_missing or rebuild:
            raise InputError("--verify and a change were both given. The index alone was expected. Drop one.")
        say_verified(_verified(verify), as_json)
    if output is None:
        raise InputError("No index was named. The folder of one was expected. Name it with -o.")
    if not (data or forget or forget_missing or rebuild):
        raise InputError(
            "Nothing was named. Pictures to add were expected, or --forget, --forget-missing, --rebuild or --verify."
        )
    terminal = Terminal(quiet)
    check_place(output)
    settings = Settings(parts=parts, levels=levels, whiten=whiten, words=words, approximate_from=approximate_from)
    runs = [folder for folder in data or [] if is_run(folder)]
    others = [one for one in data or [] if one not in runs]
    entries = list(_entries(others, image_column, label_column))  # a wrong name is told before the work begins
    opened = _opened(output, options.focused(encoder, focus), model, engine, settings, only_there=add or not data)
    removed = opened.remove(forget, progress=terminal) if forget else 0
    if forget_missing:
        removed += opened.remove_missing(progress=terminal)
    change = (
        opened.add(entries, store=options.open_store(store), progress=terminal, total=len(entries)) if entries else None
    )
    for folder in runs:
        change = (change or Change()) + add_run(opened, folder, terminal)
    if rebuild:
        opened.rebuild(progress=terminal)
    told = {"index": str(output), **(vars(change) if change else {}), "removed": removed, **opened.describe()}
    _tell(told, as_json, terminal.notes, terminal.failures)
    raise typer.Exit(terminal.exit_code(told["n"]))


def _verified(folder: Path) -> Verification:
    from ..retrieval import Index

    opened = Index.open(folder)
    try:
        return opened.verify()
    finally:
        opened.close()


def _opened(output: Path, encoder: str, model: str | None, engine: str, settings: Settings, only_there: bool) -> Index:
    """The index: one that is there with what it was made with, or a new one."""
    from ..encoders.find import encoder as find
    from ..retrieval import Index

    if only_there:
        return Index.open(output, options.encoder_given(encoder), engine=engine)
    if model is not None:
        from ..classifiers.saving import load

        return Index.create(
            output, load(model, engine=engine, encoder=options.encoder_given(encoder)).encoder, settings
        )
    return Index.create(output, find(encoder, engine=engine), settings)


def _entries(data: Sequence[Path], image_column: str, label_column: str) -> Iterator[Entry]:
    """Pictures with classes: of a table its column, of a folder the folder next below it."""
    from ..pictures.samples import TABLES, load_samples
    from ..pictures.sources import list_pictures
    from ..retrieval.writing import Entry

    for source in data:
        if source.suffix.lower() in TABLES:
            samples = load_samples(source, image=image_column, label=label_column)
            yield from (Entry(s.image, s.label) for s in samples.items)
            continue
        for name in list_pictures([source]):
            inside = Path(name).relative_to(source).parts if source.is_dir() else ()
            yield Entry(name, inside[0] if len(inside) > 1 else "")


def _tell(told: dict[str, Any], as_json: bool, notes: Sequence[str], failures: Sequence[Any]) -> None:
    if as_json:
        found = {**told, "notes": list(notes), "failures": [f.to_json() for f in failures]}
        say(json.dumps(found, ensure_ascii=False))
        return
    changes = [f"{told[key]:,} {key}" for key in ("added", "updated", "unchanged", "removed") if told.get(key)]
    classes = f" in {told['labels']} classes" if told["labels"] else ""
    say(f"{told['index']}: {told['n']:,} pictures{classes}" + (f" ({', '.join(changes)})" if changes else ""))
