"""What ``seewhy adapt`` and ``seewhy pretrain`` share: their options, the run, and what they leave."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import open_store
from .terminal import Terminal, say

if TYPE_CHECKING:
    from ..training.adapt import Adapt, Adapted
    from ..training.cost import Cost
    from ..training.loop import Trained

PairsArgument = Annotated[
    str,
    typer.Argument(
        help="Pictures with texts: a table (image, text), JSONL, a folder of pictures with .txt files, or .tar shards.",
        show_default=False,
    ),
]
Objective = Annotated[
    str, typer.Option(help="What is made small, by its name. One that compares all pairs; see: seewhy methods.")
]
Epochs = Annotated[int, typer.Option(min=1, help="Times every picture is seen. Each time with one of its texts.")]
BatchSize = Annotated[int, typer.Option(min=2, help="Pictures at once. Pairs are compared with one another.")]
Rate = Annotated[
    float | None, typer.Option("--lr", min=1e-8, help="Highest learning rate.", show_default="by what is trained")
]
ValidationPairs = Annotated[
    str | None,
    typer.Option(
        "--validation-pairs",
        help="Pictures with texts, never trained on, to choose and to measure on. Left out, a tenth is held out.",
        show_default=False,
    ),
]
Tensorboard = Annotated[
    Path | None,
    typer.Option(help="A folder for TensorBoard. It needs the extra tensorboard.", show_default=False),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, and stop. A few steps are measured.")]


class Watched(Terminal):
    """Progress on standard error, and each step for TensorBoard where a folder is named.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, quiet: bool, folder: Path | None) -> None:
        super().__init__(quiet)
        self.writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            from ..errors import MissingExtraError

            raise MissingExtraError("tensorboard", "--tensorboard") from error
        self.writer = SummaryWriter(str(folder))

    def measured(self, step: int, terms: Mapping[str, float]) -> None:
        super().measured(step, terms)
        if self.writer is not None:
            for name, value in terms.items():
                self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def train_and_save(
    how: Adapt,
    pairs: str,
    validation: str | None,
    columns: Mapping[str, Any],
    looks: tuple[str, str],
    output: Path,
    *,
    store: str | None,
    terminal: Watched,
    as_json: bool,
    dry_run: bool,
) -> None:
    """The whole verb: read, train, choose, measure, save, say."""
    from ..encoders.adapted import check_place
    from ..encoders.find import encoder as find
    from ..pictures.pairs import load_pairs
    from ..storage.marks import CHECKPOINT
    from ..storage.output import check_checkpoint, make_folder, remove
    from ..studies.retrieval import measure_retrieval

    check_place(output)
    samples = load_pairs(pairs, **columns)
    chosen_on = None if validation is None else load_pairs(validation, **columns)
    for note in (*samples.notes, *(() if chosen_on is None else chosen_on.notes)):
        terminal.note(note)
    on = find(looks[0], engine=looks[1])
    if dry_run:
        from ..training.cost import estimate

        _say_cost(estimate(how, on, samples.items), as_json)
        return
    make_folder(output.parent)
    checkpoint = check_checkpoint(output.parent / f".{output.name}.checkpoint")
    kept = open_store(store)
    done = how.fit(
        on,
        samples.items,
        validation=None if chosen_on is None else chosen_on.items,
        store=kept,
        progress=terminal,
        checkpoint=checkpoint,
    )
    measured_on = type(samples)(done.held.items, samples.classes)
    report = measure_retrieval(done.adaptation.encoder(str(output)), measured_on, before=on, store=kept)
    report.data["run"] = run_of(done)
    report.data["notes"] = terminal.notes
    done.adaptation.save(output, files_of(done, report))
    remove(checkpoint, CHECKPOINT)
    terminal.close()
    if as_json:
        run = {**report.data["run"], "history": None}
        say(json.dumps({**report.data, "run": run, "encoder_folder": str(output)}, ensure_ascii=False))
    else:
        say(f"{output}: {how.objective}, {how.train}, {len(done.done.history)} steps, keep {done.adaptation.keep:g}")
        say_measures(report.rows)
        say(f"page: {output / 'run.html'}")
    raise typer.Exit(terminal.exit_code(len(samples)))


def run_of(done: Adapted) -> dict[str, Any]:
    """What a page says of the training."""
    return {
        "provenance": dict(done.adaptation.provenance),
        "history": list(done.done.history),
        "seconds_per_step": round(done.done.seconds_per_step, 4),
        "tried": [asdict(kept) for kept in done.tried],
    }


def files_of(done: Adapted, report: Any) -> dict[str, str]:
    """The page, its JSON, and the log of all steps as CSV."""
    document = json.dumps(report.data, indent=1, ensure_ascii=False)
    return {"run.html": report.to_html(), "run.json": document, "log.csv": log_of(done.done)}


def log_of(done: Trained) -> str:
    """Every step as CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["step", *done.history[0]])
    rows.writerows([i, *step.values()] for i, step in enumerate(done.history, 1))
    return text.getvalue()


def say_measures(rows: Sequence[Mapping[str, Any]]) -> None:
    """The table of before and after."""
    for row in rows:
        after = f"{100 * row['after']:5.1f}"
        if "difference" not in row:
            low, high = row["after_interval"]
            say(f"{row['measure']:<36} {after}  ({100 * low:.1f} to {100 * high:.1f})")
            continue
        low, high = row["difference_interval"]
        real = "real" if row["real"] else "not real"
        change = f"{100 * row['difference']:+5.1f} ({100 * low:+.1f} to {100 * high:+.1f}), {real}"
        say(f"{row['measure']:<36} {100 * row['before']:5.1f} -> {after}  {change}")


def _say_cost(cost: Cost, as_json: bool) -> None:
    if as_json:
        say(json.dumps({"dry_run": True, **asdict(cost)}))
        return
    say(f"{cost.n_pictures} pictures with {cost.n_texts} texts, {cost.n_weights:,} weights to train")
    say(f"looking and reading, if nothing is known yet: {_duration(cost.seconds_looking)}")
    say(f"training: {cost.n_steps} steps of {cost.seconds_per_step:.2f} s on this machine")
    say(f"in all: {_duration(cost.seconds)}")


def _duration(seconds: float) -> str:
    """In words.

    >>> _duration(43), _duration(620), _duration(9000)
    ('43 seconds', '10 minutes', '2.5 hours')
    """
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
