"""``seewhy fit-explainer``: trains a network that explains a classifier in one forward pass."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from . import options
from .terminal import say

EXAMPLES = """
Examples:\n
  seewhy fit-explainer photos/ -m birds\n
  seewhy explain new.jpg -m birds --where t_tame\n
  seewhy fit-explainer photos/ -m birds --steps 2000 --size 160\n
  seewhy fit-explainer photos/ -o explainer --method l_cam\n
  seewhy explain new.jpg --where t_tame --explainer explainer/l_cam.safetensors
"""


def fit_explainer(
    data: Annotated[
        Path, typer.Argument(help="A folder of pictures, or a table; labels are not used.", show_default=False)
    ],
    model: options.Model = None,
    labels: options.Labels = None,
    encoder: options.EncoderName = "lite0",
    engine: options.EngineName = "auto",
    method: Annotated[str, options.method("t_tame, or one of its ancestors: tame, l_cam.")] = "t_tame",
    output: Annotated[Path | None, options.output("A folder; left out, MODEL/explainers.")] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            help="Layers to read, separated by commas; 'last' is the trunk's output; left out, found and printed.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Times every picture is seen. The authors' 8.")] = 8,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Batches in all, instead of epochs.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=2, help="Pictures at once. The authors' 32.")] = 32,
    lr: Annotated[float, typer.Option(min=1e-8, help="Highest learning rate.")] = 2e-3,
    size: Annotated[
        int | None,
        typer.Option(min=16, help="Side of the training pictures; left out, the network's own.", show_default=False),
    ] = None,
    paper: Annotated[bool, typer.Option("--paper", help="The authors' optimiser, batch and rate.")] = False,
    seed: Annotated[int, options.seed("Weights, order and crops.")] = 0,
    as_json: options.Json = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """Train an explainer on pictures without labels; run again, it goes on where it was stopped."""
    from ..attributions.explainers import check_explainer
    from ..attributions.t_tame_training import FitTTAME, explainer_folder
    from ..pictures.samples import TABLES, load_samples
    from ..pictures.sources import list_pictures
    from ..storage.marks import CHECKPOINT
    from ..storage.output import check_checkpoint, make_folder, remove
    from .terminal import Terminal

    terminal = Terminal(quiet)
    classifier = options.resolve(model, labels, encoder, engine, None, options.open_store(store))
    folder = explainer_folder(classifier, output)
    if data.suffix.lower() in TABLES:
        pictures = [sample.image for sample in load_samples(data).items]
    else:
        pictures = list(list_pictures([data]))
    named = None if layers is None else tuple(name.strip() for name in layers.split(",") if name.strip())
    fit = FitTTAME(variant=cast(Any, method), layers=named, size=size)
    n_steps = steps or epochs * math.ceil(len(pictures) / batch_size)
    how = fit.paper_training(n_steps, seed) if paper else fit.training(n_steps, batch_size, seed, lr)
    checkpoint = check_checkpoint(make_folder(check_explainer(folder, method)) / f".{method}.checkpoint")
    explainer = fit.fit(classifier, pictures, how, checkpoint=checkpoint, progress=terminal)
    path = explainer.save(folder)
    remove(checkpoint, CHECKPOINT)
    if as_json:
        say(json.dumps({"explainer": str(path), **explainer.trained}, ensure_ascii=False))
    else:
        final = explainer.trained["final"]
        say(f"{path}: {n_steps} steps on {len(pictures)} pictures, layers {', '.join(explainer.layers)}")
        say(
            f"behind its masks, which show {final['mean_mask']:.0%} of a picture on average, "
            f"{final['agree']:.0%} of the training pictures keep their class"
        )
    raise typer.Exit(terminal.exit_code(len(pictures)))
