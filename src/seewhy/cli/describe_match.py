"""``seewhy describe match``: which of its class's texts fits each picture (GIST)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import EncoderName, EngineName, Force, Json, Quiet, Store, n_texts, open_store, output
from .writer_options import Asked, asking

EXAMPLES = """
Examples:\n\n
  seewhy describe match photos/ --descriptions birds.json -o captions.jsonl\n\n
  seewhy describe match photos/ --descriptions birds.json -o captions.jsonl --writer gpt-4o-mini\n\n
  seewhy fit photos/ -o birds --method gist --captions captions.jsonl
"""


@asking(required=False, how="It shortens the texts; left out, they stay as they are.")
def match(
    data: Annotated[Path, typer.Argument(help="Pictures in classes: a folder or a table.", show_default=False)],
    output: Annotated[Path, output("The .jsonl.")],
    descriptions: Annotated[
        Path, typer.Option(help='Texts of each class: a JSON, {"class": ["text", …]}.', show_default=False)
    ],
    asked: Asked,
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    n_texts: Annotated[int, n_texts("Here of each picture.", 1)] = 5,
    force: Force = False,
    as_json: Json = False,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """For each picture, the texts of its own class that fit it best. Run again, it goes on where it was stopped."""
    from ..descriptions.base import Descriptions
    from ..encoders.find import encoder as find
    from ..language.matching import Caption, Match, match_to_file, say, short_prompt, specificity
    from ..pictures.samples import load_samples
    from ..storage.output import check_file
    from .terminal import Terminal
    from .terminal import say as show

    terminal = Terminal(quiet)
    check_file(output, force=force)
    samples, texts = load_samples(data), Descriptions.read(descriptions)
    desk = asked.desk(terminal)
    if asked.dry_run:
        prompts = (short_prompt(t) for c in texts.limited_to(samples.classes).texts.values() for t in c)
        asked.say(None if desk is None else desk.estimate(prompts), as_json)
        return
    for note in samples.notes:
        terminal.note(note)
    made = match_to_file(
        output,
        find(encoder, engine=engine),
        samples,
        texts,
        Match(n_texts),
        desk=desk,
        store=open_store(store),
        force=force,
    )
    written: list[Caption] = []
    for found in terminal.track(made, "Matching", len(samples)):
        if isinstance(found, Caption):
            written.append(found)
        else:
            terminal.failed(found)
    how_specific = specificity(written)
    if as_json:
        show(json.dumps({"file": str(output), "written": len(written), **how_specific}, ensure_ascii=False))
    else:
        show(f"{output}: {len(written)} pictures with texts. {say(how_specific)}.")
    raise typer.Exit(terminal.exit_code(len(written)))
