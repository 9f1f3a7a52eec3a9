"""``seewhy describe images``: long descriptions, checked and filled in by what is measured on the picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options
from .terminal import say
from .writer_options import Asked, asking

EXAMPLES = """
Examples:\n\n
  seewhy describe images photos/ -o descriptions.jsonl -m fruit\n\n
  seewhy describe images photos/ -o descriptions.jsonl --labels "apple, cup, plate" --drafts drafts.jsonl\n\n
  seewhy describe images photos/ -o descriptions.jsonl --writer gpt-4o-mini --dry-run
"""


@asking(required=False, how="It drafts (it must see) and rewrites; left out, rules do.")
def images(
    pictures: options.Pictures,
    output: Annotated[Path, options.output("The .jsonl; lines are added to it.")],
    asked: Asked,
    model: options.Model = None,
    labels: options.Labels = None,
    encoder: options.EncoderName = "lite0",
    engine: options.EngineName = "auto",
    drafts: Annotated[
        Path | None,
        typer.Option(help='Descriptions to correct, JSONL: {"image": …, "description": …}.', show_default=False),
    ] = None,
    check: Annotated[bool, typer.Option(help="Remove what nothing on the picture bears out.")] = True,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Probability a place needs to be an object.")] = 0.5,
    force: options.Force = False,
    as_json: options.Json = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """Describe pictures at length (Image Textualization). Run again, it goes on where it was stopped."""
    from ..language.textualize import DESCRIPTIONS, Drafter, estimate, offline, read_drafts, textualize_all
    from ..storage.journal import Journal
    from ..types import Failure
    from .terminal import Terminal

    terminal = Terminal(quiet)
    Journal(output, DESCRIPTIONS, force=force)  # somebody else's file is told before the work begins
    texts = None if drafts is None else read_drafts(drafts)
    desk = asked.desk(terminal)
    if asked.dry_run:
        asked.say(None if desk is None else estimate(options.picture_names(pictures), desk, texts), as_json)
        return
    classifier = options.resolve(model, labels, encoder, engine, None, options.open_store(store))
    textualizer = offline(classifier, desk=desk, check=check, threshold=threshold)
    by = [classifier.recipe, classifier.encoder.fingerprint[:12], *classifier.classes, check, threshold, texts]
    made_by = _seal([*by, None if desk is None else [desk.writer.model, desk.max_tokens]])
    done = 0
    drafter = Drafter(classifier, desk, texts)
    stream = textualize_all(options.picture_names(pictures), textualizer, drafter, output, made_by, force=force)
    for record in terminal.track(stream, "Describing"):
        if isinstance(record, Failure):
            terminal.failed(record)
            continue
        done += 1
        if as_json:
            say(json.dumps(record, ensure_ascii=False), flush=True)
        elif not quiet:
            say(f"{record['image']}: {record['description'] or '(nothing can be said)'}", flush=True)
    if not as_json:
        say(f"{output}: {done} described. Read them before you rely on them.")
    raise typer.Exit(terminal.exit_code(done))


def _seal(parts: list[Any]) -> str:
    """Names all that decides a description."""
    import hashlib

    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:16]
