"""What ``seewhy adapt`` and ``seewhy pretrain`` share: their options, the run, and what they leave."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from ..progress import duration
from .options import open_store
from .terminal import Terminal, say

if TYPE_CHECKING:
    from ..learning.cost import Cost
    from ..learning.way import Way

PairsArgument = Annotated[
    str,
    typer.Argument(
        help="Pictures with texts: a table (image, text), JSONL, a folder of pictures with .txt files, or .tar shards.",
        show_default=False,
    ),
]
Objective = Annotated[str, typer.Option(help="What is made small, by its name. See: seewhy methods.")]
Epochs = Annotated[int, typer.Option(min=1, help="Times every picture is seen. Each time with one of its texts.")]
BatchSize = Annotated[int, typer.Option(min=2, help="Pictures at once. Pairs are compared with one another.")]
Augment = Annotated[
    Literal["simclr", "byol", "crops", "whole"],
    typer.Option(help="What is done to views. Crops with colours, crops alone, or small cuts for digits."),
]
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
Instructions = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN=WORDS",
        help="An instruction, and the table's column that answers it, as colour='the colour'; again for another, or "
        "for another wording of the same.",
        show_default=False,
    ),
]
NAMES = {
    "image_column": "image",
    "text_column": "text",
    "label_column": "label",
    "instruction": "instructions",
    "setting": "settings",
}
"""Options, by what a training calls them, where that is something else."""
COLUMNS = ("image", "text", "label", "group")
SETTINGS = (
    *("instructions", "train", "keep", "may_forget", "epochs", "batch_size", "lr", "seed", "settings"),
    *("projection", "projection_width", "kappa", "effective", "keep_head", "pyramid", "augmentation"),
)
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, and stop. A few steps are measured.")]


class Watched(Terminal):
    """Progress on standard error, and each step for TensorBoard where a folder is named."""

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


def way_given(context: typer.Context, *, all_of_it: bool = False) -> tuple[Way, dict[str, str]]:
    """The training and the table's columns that a person's options name."""
    from ..learning.ways import way_of

    options = context.params
    given = {
        name: options[option]
        for option in options
        if (source := context.get_parameter_source(option)) is not None and source.name == "COMMANDLINE"
        for name in [NAMES.get(option, option)]
    }
    columns = {name: value for name, value in given.items() if name in COLUMNS}
    settings = {name: value for name, value in given.items() if name in SETTINGS}
    if "instructions" in settings:
        settings["instructions"] = by_column(settings["instructions"])
    if "settings" in settings:
        settings["settings"] = objective_settings(options["objective"], settings["settings"])
    way = way_of(options["objective"], settings, columns, all_of_it=all_of_it, spelt=_option)
    return way, columns


def objective_settings(objective: str, given: list[str]) -> dict[str, Any]:
    """An objective's fields, read from text."""
    from ..learning.objectives import objectives
    from ..parameters import configured
    from .method_options import settings

    named = settings(given)
    made: Any = configured(cast(Any, objectives[objective]), named)
    return {name: getattr(made, name) for name in named}


def _option(name: str) -> str:
    written = {name: option for option, name in NAMES.items()}.get(name, name).replace("setting", "set")
    return f"--{written.replace('_', '-')}"


def by_column(given: Sequence[str]) -> dict[str, list[str]]:
    """Column → wordings.

    >>> by_column(["colour=the colour", "kind=its kind", "colour=what colour is it?"])
    {'colour': ['the colour', 'what colour is it?'], 'kind': ['its kind']}
    """
    from ..errors import InputError

    found: dict[str, list[str]] = {}
    for one in given:
        column, _, words = (part.strip() for part in one.partition("="))
        if not (column and words):
            raise InputError(
                f"--instruction was given {one!r}. COLUMN=WORDS was expected. For example: colour='the colour'"
            )
        found.setdefault(column, []).append(words)
    return found


def train_and_save(
    how: Way,
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
    from ..storage.marks import CHECKPOINT
    from ..storage.output import check_checkpoint, make_folder, remove
    from ..studies.adapting import files_of, run_report, title_of

    check_place(output)
    read = how.read(pairs, columns, terminal)
    chosen_on = None if validation is None else how.read(validation, columns, terminal)
    on = find(looks[0], engine=looks[1])
    if dry_run:
        from ..learning.cost import estimate

        say_cost(estimate(how, on, read, validation=chosen_on is not None), as_json)
        return
    make_folder(output.parent)
    checkpoint = check_checkpoint(output.parent / f".{output.name}.checkpoint")
    kept = open_store(store)
    done = how.fit(on, read, validation=chosen_on, store=kept, progress=terminal, checkpoint=checkpoint)
    report = run_report(done, str(output), store=kept, notes=terminal.notes, progress=terminal)
    report.data["failures"] = [failure.to_json() for failure in terminal.failures]
    done.adaptation.save(output, files_of(done, report))
    remove(checkpoint, CHECKPOINT)
    terminal.close()
    if as_json:
        run = {**report.data["run"], "history": None}
        say(json.dumps({**report.data, "run": run, "encoder_folder": str(output)}, ensure_ascii=False))
    else:
        say(f"{output}: {title_of(done.adaptation.provenance)}")
        say_measures(report.rows)
        say(f"page: {output / 'run.html'}")
    raise typer.Exit(terminal.exit_code(len(read)))


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


def say_cost(cost: Cost, as_json: bool) -> None:
    """What a training would cost."""
    if as_json:
        say(json.dumps({"dry_run": True, **asdict(cost)}))
        return
    texts = f" with {cost.n_texts} texts" if cost.n_texts else ""
    say(f"{cost.n_pictures} pictures{texts}, {cost.n_weights:,} weights to train")
    say(f"looking and reading, if nothing is known yet: {duration(cost.seconds_looking)}")
    say(f"training: {cost.n_steps} steps of {cost.seconds_per_step:.2f} s on this machine")
    say(f"in all: {duration(cost.seconds)}")
