"""``seewhy describe``: descriptions, written by a language model of your choice and kept in files you edit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from . import options
from .describe_images import EXAMPLES as IMAGES_EXAMPLES
from .describe_images import images
from .describe_match import EXAMPLES as MATCH_EXAMPLES
from .describe_match import match
from .outputs import Guarded
from .terminal import Terminal, say
from .writer_options import Asked, asking

EXAMPLES = """
Examples:\n\n
  seewhy describe classes "wren, robin" -o birds.json --writer gpt-4o-mini --kind birds --dry-run\n\n
  seewhy describe classes names.txt -o birds.json --writer llama3.1 --base-url http://localhost:11434/v1\n\n
  seewhy describe pairs photos/ -m birds -o pairs.json --writer gpt-4o-mini\n\n
  seewhy explain photo.jpg --labels birds.json
"""
app = typer.Typer(help="Descriptions, written by a language model of your choice.", no_args_is_help=True)
app.command("match", cls=Guarded, epilog=MATCH_EXAMPLES)(match)
app.command("images", cls=Guarded, epilog=IMAGES_EXAMPLES)(images)
Output = Annotated[Path, options.output("The .json.")]
Kind = Annotated[str, typer.Option(help="What the classes are, in the plural: birds, screws, cell types.")]


@app.command("classes", cls=Guarded, epilog=EXAMPLES)
@asking(required=True)
def classes(
    names: Annotated[
        str,
        typer.Argument(
            help="Names separated by commas, a .txt with one per line, or a folder with one folder per class.",
            show_default=False,
        ),
    ],
    output: Output,
    asked: Asked,
    kind: Kind = "",
    n_texts: Annotated[int, options.n_texts("Here of each class.", 2)] = 6,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Visual descriptors of each class. What a model wrote is to be read and edited: the file is yours."""
    from ..language.questions import as_descriptions, class_prompt, write_classes
    from ..language.writers import WriterError
    from ..storage.output import check_file

    terminal = Terminal(quiet)
    check_file(output, force=force)
    labels = _names(names)
    desk = asked.desk(terminal)
    assert desk is not None
    if asked.dry_run:
        asked.say(desk.estimate(class_prompt(label, kind, n_texts) for label in labels), as_json)
        return
    written = list(terminal.track(write_classes(desk, labels, kind, n_texts), "Asking", len(labels)))
    failed = {label: str(texts) for label, texts in written if isinstance(texts, WriterError)}
    if len(failed) < len(written):
        as_descriptions(written).write(output, force=force)
    _report(output, len(written) - len(failed), failed, as_json)


@app.command("pairs", cls=Guarded, epilog=EXAMPLES)
@asking(required=True)
def pairs(
    data: Annotated[
        Path, typer.Argument(help="Pictures on which the model is watched: a folder or a table.", show_default=False)
    ],
    output: Output,
    asked: Asked,
    model: options.Model = None,
    labels: options.Labels = None,
    encoder: options.EncoderName = "lite0",
    engine: options.EngineName = "auto",
    kind: Kind = "",
    n_texts: Annotated[int, options.n_texts("Here of each pair.", 1)] = 5,
    most: Annotated[int, typer.Option(min=1, help="Pairs, those confused most often first.")] = 50,
    top: Annotated[int, options.top("They count as confusable.", 2)] = 3,
    force: options.Force = False,
    as_json: options.Json = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """What parts the classes that a model confuses, pair by pair."""
    from ..errors import DataError
    from ..language.questions import Pair, confusable_pairs, pair_prompt, write_pairs, write_pairs_file
    from ..pictures.sources import list_pictures
    from ..storage.output import check_file
    from .options import resolve

    terminal = Terminal(quiet)
    check_file(output, force=force)
    desk = asked.desk(terminal)  # a mistake in its options is found before the pictures are looked at
    assert desk is not None
    kept = options.open_store(store)
    classifier = resolve(model, labels, encoder, engine, None, kept)
    pictures = list(list_pictures([data]))
    stream = classifier.predict_all(pictures, store=kept, top=top)
    seen = [one for _, one in terminal.results(pictures, stream, "Looking")]
    if not seen:
        raise DataError(f"None of the {len(pictures)} pictures in {data} can be read. Some were expected. Give others.")
    chosen = confusable_pairs(seen, most)
    if asked.dry_run:
        asked.say(desk.estimate(pair_prompt(a, b, kind, n_texts) for a, b in chosen), as_json)
        return
    written = list(terminal.track(write_pairs(desk, chosen, kind, n_texts), "Asking", len(chosen)))
    found = [pair for _, pair in written if isinstance(pair, Pair)]
    failed = {" and ".join(names): str(pair) for names, pair in written if not isinstance(pair, Pair)}
    if found:
        write_pairs_file(output, found, force=force)
    _report(output, len(found), failed, as_json)


def _names(given: str) -> list[str]:
    """Class names of an argument."""
    from ..classifiers.base import check_names
    from ..pictures.samples import load_samples

    path = Path(given)
    if path.is_dir():
        return list(load_samples(path).classes)
    if given.lower().endswith(".txt"):
        return list(check_names(options.lines_of(path, "class")))
    return list(check_names(given.split(",")))


def _report(output: Path, n: int, failed: dict[str, str], as_json: bool) -> None:
    """What was written, what was not and why; exit code 1 when something is missing."""
    import sys

    for label, reason in failed.items():
        say(f"seewhy: nothing for {label!r}: {reason}", file=sys.stderr)
    if as_json:
        say(json.dumps({"file": str(output) if n else None, "written": n, "failed": failed}, ensure_ascii=False))
    elif n:
        say(f"{output}: {n} written. Read it and edit it before you rely on it.")
    raise typer.Exit(int(bool(failed)))
