"""``seewhy study background``: whether a model leans on what is around the object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from . import options
from .object_options import MasksFolder, ObjectBoxes, ObjectWords, SegmenterFolder, loaded_segmenter, mask_source
from .outputs import StudyFolder, answer, check_both
from .study_options import Labelled
from .terminal import Terminal, say

BACKGROUND_EXAMPLES = """
Examples:\n\n
  seewhy study background photos/ -m birds --masks masks/ -o study\n\n
  seewhy study background photos/ -m birds --object bird --boxes boxes.json -o study\n\n
  seewhy study background photos/ -m birds --object-segmenter seg --json\n\n
  seewhy study background photos.csv -m birds --boxes voc/
"""


def background(
    data: Labelled,
    model: options.Model = None,
    labels: options.Labels = None,
    encoder: options.EncoderName = "lite0",
    engine: options.EngineName = "auto",
    masks: MasksFolder = None,
    segmenter: SegmenterFolder = None,
    object_words: ObjectWords = None,
    boxes: ObjectBoxes = None,
    n_rounds: Annotated[int, typer.Option(min=1, help="Backgrounds of each kind that an object is laid on.")] = 3,
    n_per_class: Annotated[
        int | None, typer.Option(min=2, help="Pictures of a class at most; left out, all.", show_default=False)
    ] = None,
    output: StudyFolder = None,
    image_column: options.ImageColumn = "image",
    label_column: options.LabelColumn = "label",
    seed: Annotated[int, options.seed("Pictures, backgrounds, places and resampling.")] = 0,
    force: options.Force = False,
    as_json: options.Json = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """Does it use the background? Give pictures it was not fitted on. Stopped, it goes on where it was."""
    from ..dense.object_masks import WordMasks
    from ..pictures.boxes import load_boxes
    from ..pictures.samples import load_samples
    from ..studies.background import BackgroundStudy

    terminal = Terminal(quiet)
    check_both(output, "background", force)
    kept = options.open_store(store)
    classifier = options.resolve(model, labels, encoder, engine, None, kept)
    samples = load_samples(data, image=image_column, label=label_column).labelled()
    known = None if boxes is None else load_boxes(boxes)
    drawn = loaded_segmenter(segmenter, encoder, engine)
    names = [s.image for s in samples.items]
    source = mask_source(classifier, names, ("--masks", masks), drawn, object_words, boxes=known, store=kept)
    source = source or WordMasks(classifier.encoder, store=kept)
    study = BackgroundStudy(n_rounds=n_rounds, n_per_class=n_per_class, seed=seed)
    found = study.run(classifier, samples, source, output, boxes=known, progress=terminal)
    answer(found, output, "background", force, as_json, _print)
    raise typer.Exit(terminal.exit_code(found.data["n"]))


def _print(data: dict[str, Any]) -> None:
    """Versions down; then each class with the difference that its verdict is of."""
    from rich.console import Console
    from rich.table import Table

    from ..printable import printable

    shown = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("pictures", "right", "score"):
        shown.add_column(name, no_wrap=True, justify="left" if name == "pictures" else "right")
    for version in data["all"]["versions"]:
        cells = (f"{100 * version[m]['value']:.1f} ({_range(version[m]['interval'])})" for m in ("accuracy", "score"))
        shown.add_row(version["version"], *cells)
    Console(soft_wrap=True).print(shown)
    say("leans on the background, by the score on backgrounds of its own class less that on others:")
    for row in (*data["classes"], data["all"]):
        value = f"{100 * row['difference']['value']:+.1f} ({_range(row['difference']['interval'])})"
        say(f"  {printable(row['label'])} ({row['n']}): {row['verdict']}, {value}")


def _range(interval: Sequence[float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
