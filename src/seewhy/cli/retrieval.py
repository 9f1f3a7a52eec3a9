"""What ``seewhy evaluate --retrieval`` does: an encoder's pictures and texts find one another, or do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from .options import open_store
from .outputs import deliver, report_line
from .terminal import say
from .training_runs import say_measures


def run_retrieval(
    data: str,
    encoder: str,
    engine: str,
    columns: Mapping[str, Any],
    also: Sequence[Path] | None,
    path: Path | None,
    seed: int,
    force: bool,
    as_json: bool,
    store: str | None,
    quiet: bool,
) -> None:
    """Measure, write and say."""
    from ..encoders.adapted import is_adapted, open_adaptation
    from ..encoders.find import encoder as find
    from ..pictures.pairs import load_pairs
    from ..pictures.samples import load_samples
    from ..studies.adapting import measure_retrieval
    from .terminal import Terminal

    terminal = Terminal(quiet)
    others = {str(place): load_samples(place) for place in also or ()}
    pairs = load_pairs(data, **columns)
    looks = find(encoder, engine=engine)
    trained_on: tuple[str, ...] = ()
    folder, _, _ = encoder.removeprefix("adapted:").partition("@")
    if is_adapted(folder):
        trained_on = open_adaptation(folder, engine=engine, base=looks.base).trained_on
    report = measure_retrieval(
        looks, pairs, also=others, trained_on=trained_on, store=open_store(store), seed=seed, progress=terminal
    )

    def show() -> None:
        say_measures(report.rows)
        say(*report_line(None if path is None else str(path)))

    deliver(report, path, force, as_json, show)
    raise typer.Exit(terminal.exit_code(report.data["n_pictures"]))
