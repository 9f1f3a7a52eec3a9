"""``seewhy drift``: are new pictures like those that a model was fitted on?"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from . import options
from .audit import TrainPictures
from .outputs import StudyFolder, check_both, report_line, save_both
from .terminal import Terminal, say

EXAMPLES = """
Examples:\n
  seewhy drift new/ -m birds\n
  seewhy drift new/ -m birds -o drift\n
  seewhy drift new/ -m birds --train photos/ --json\n\n
Exit codes: 0 no drift is shown, 1 there is drift, 2 wrong use.
"""


def drift(
    pictures: options.Pictures,
    model: Annotated[
        str | None, options.saved("A classifier. Left out, the embedded ImageNet one, and then --train is needed.")
    ] = None,
    train: TrainPictures = None,
    alpha: Annotated[float, typer.Option(help="The p value below which there is drift.")] = 0.01,
    encoder: options.EncoderName = "lite0",
    engine: options.EngineName = "auto",
    output: StudyFolder = None,
    seed: Annotated[int, options.seed("Pictures that are compared, and permutations.")] = 0,
    force: options.Force = False,
    as_json: options.Json = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """Are new pictures like those that it was fitted on? They need no classes."""
    from ..pictures.samples import Sample, load_samples
    from ..studies.auditing.audit import with_known
    from ..studies.auditing.drift import DriftTest

    terminal = Terminal(quiet)
    test = DriftTest(alpha=alpha, seed=seed)
    check_both(output, "drift", force)
    kept = options.open_store(store)
    classifier = options.resolve(model, None, encoder, engine, None, kept)
    if train is not None:
        classifier = with_known(classifier, load_samples(train), kept, terminal)
    names = options.picture_names(pictures, output)
    found = test.run(classifier, [Sample(name) for name in names], store=kept, progress=terminal)
    page = save_both(found, output, "drift", force)
    if as_json:
        say(json.dumps({**found.data, "report": page}, ensure_ascii=False))
    else:
        for row in found.data["pictures"][:10]:
            say(f"{row['image']}\t{row['cosine']:.3f}\t{'far' if row['far'] else ''}\tnearest: {row['nearest']}")
        say(found.sentence, *report_line(page))
    raise typer.Exit(int(found.data["drift"] == "yes"))
