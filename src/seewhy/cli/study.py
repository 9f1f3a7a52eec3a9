"""``seewhy study``: questions about a model, answered on many pictures."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .outputs import Guarded, StudyFolder, check_both, report_line, save_both
from .study_background import BACKGROUND_EXAMPLES, background
from .study_base_to_new import BASE_TO_NEW_EXAMPLES, base_to_new
from .study_interpretability import INTERPRETABILITY_EXAMPLES, interpretability
from .study_real_or_generated import REAL_EXAMPLES, real_or_generated
from .study_scaling import SCALING_EXAMPLES, scaling
from .study_transfer import TRANSFER_EXAMPLES, transfer
from .terminal import Terminal, say

if TYPE_CHECKING:
    from ..studies.study import Findings

EXAMPLES = """
Examples:\n\n
  seewhy study faithfulness photos/ -m birds\n\n
  seewhy study faithfulness photos/ --methods grad_cam,rise:50 --metrics deletion,road:20 -o study\n\n
  seewhy study faithfulness photos/ --methods all --metrics all --n-pictures 200\n\n
  seewhy study faithfulness photos/ --masks masks/ --json > study.json
"""
app = typer.Typer(help="Questions about a model, answered on many pictures.", no_args_is_help=True)
app.command("scaling", cls=Guarded, epilog=SCALING_EXAMPLES)(scaling)
app.command("transfer", cls=Guarded, epilog=TRANSFER_EXAMPLES)(transfer)
app.command("base-to-new", cls=Guarded, epilog=BASE_TO_NEW_EXAMPLES)(base_to_new)
app.command("interpretability", cls=Guarded, epilog=INTERPRETABILITY_EXAMPLES)(interpretability)
app.command("background", cls=Guarded, epilog=BACKGROUND_EXAMPLES)(background)
app.command("real-or-generated", cls=Guarded, epilog=REAL_EXAMPLES)(real_or_generated)
NAME_WIDTH, CELL_WIDTH = 30, 18
"""Characters of a method's name and of a number with its interval."""


@app.command("faithfulness", cls=Guarded, epilog=EXAMPLES)
def faithfulness(
    pictures: options.Pictures,
    model: options.Model = None,
    labels: options.Labels = None,
    encoder: options.EncoderName = "lite0",
    engine: options.EngineName = "auto",
    methods: Annotated[
        str | None,
        typer.Option(
            help="Attributions, separated by commas, or 'all'; NAME:50 is measured on 50 pictures at most. "
            "Left out, those that need no forward pass of their own.",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Metrics, separated by commas, or 'all'; NAME:50 is measured on 50 pictures at most. "
            "Left out, the usual ones. See: seewhy methods.",
            show_default=False,
        ),
    ] = None,
    n_pictures: Annotated[
        int | None, typer.Option(min=1, help="So many of the pictures; left out, all.", show_default=False)
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="A folder of masks named like the pictures. For metrics of localisation.", show_default=False
        ),
    ] = None,
    output: StudyFolder = None,
    seed: Annotated[int, options.seed("The pictures' order and the resampling.")] = 0,
    force: options.Force = False,
    as_json: options.Json = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """Which explanations of this model can be believed? Stopped, it goes on where it was."""
    from ..storage.output import working_folder
    from ..studies.faithfulness import FaithfulnessStudy

    terminal = Terminal(quiet)
    check_both(output, "study", force)
    study = FaithfulnessStudy.of(methods, metrics, masks=masks, seed=seed)
    classifier = options.resolve(model, labels, encoder, engine, None, options.open_store(store))
    # In random order, so that what is measured on the first few is measured on a sample.
    names = list(options.picture_names(pictures))
    random.Random(seed).shuffle(names)
    with working_folder(output) as folder:
        found = study.run(classifier, names[:n_pictures], folder, terminal)
    page = save_both(found, output, "study", force)
    if as_json:
        say(json.dumps({**found.data, "report": page}, ensure_ascii=False))
    else:
        _print(found, page)
    raise typer.Exit(terminal.exit_code(found.data["n"]))


def _print(found: Findings, page: str | None) -> None:
    """Methods down, metrics across, as many at once as the terminal is wide; then the sentence."""
    from rich.console import Console
    from rich.table import Table

    data = found.data
    tables, console = data["metrics"], Console(soft_wrap=True)
    order = [line["method"] for line in data["ranking"]] + data["controls"]
    at_once = max(1, (console.width - NAME_WIDTH) // CELL_WIDTH)
    for first in range(0, len(tables), at_once):
        shown = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
        shown.add_column("method", no_wrap=True)
        for table in tables[first : first + at_once]:
            better = "↑" if table["higher_is_better"] else "↓"
            shown.add_column(f"{table['metric']} {better}\nn={table['n']}", justify="right")
        for name in order:
            cells = [_value(table, name) for table in tables[first : first + at_once]]
            if any(cell != "–" for cell in cells):
                shown.add_row(name + (" (control)" if name in data["controls"] else ""), *cells)
        console.print(shown)
        console.print()
    say(found.sentence)
    for group in data["same"]:
        console.print(f"the same maps: {', '.join(group)}", highlight=False)
    if data["fills"]:
        taus = ", ".join(f"{pair} {tau:.2f}" for pair, tau in data["fills"].items())
        console.print(f"agreement of the methods' order between fills (Kendall's tau): {taus}", highlight=False)
    say(*report_line(page))


def _value(table: dict[str, Any], method: str) -> str:
    row = next((r for r in table["rows"] if r["method"] == method), None)
    return "–" if row is None else _cell(row, table["n"])


def _cell(row: dict[str, Any], n: int) -> str:
    low, high = row["interval"]
    fewer = f" n={row['n']}" if row["n"] != n else ""
    return f"{row['value']:.3g} ± {(high - low) / 2:.2g}{fewer}"
