"""``seewhy study``: questions about a model, answered on many pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import EncoderName, EngineName, Json, Labels, Model, Pictures, Quiet, picture_names, resolve

if TYPE_CHECKING:
    from ..studies.findings import Findings

EXAMPLES = """
Examples:\n\n
  seewhy study faithfulness photos/ -m birds\n\n
  seewhy study faithfulness photos/ --methods grad_cam,rise --metrics deletion,road -o study\n\n
  seewhy study faithfulness photos/ --masks masks/ --json > study.json
"""
app = typer.Typer(help="Questions about a model, answered on many pictures.", no_args_is_help=True)


@app.command("faithfulness", epilog=EXAMPLES)
def faithfulness(
    pictures: Pictures,
    model: Model = None,
    labels: Labels = None,
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    methods: Annotated[
        str | None,
        typer.Option(
            help="Attributions, separated by commas, or 'all'; left out, those that need no forward pass of their own.",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Metrics, separated by commas; left out, the usual ones. See: seewhy methods.", show_default=False
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="A folder of masks named like the pictures, for metrics of localisation.", show_default=False
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of report, table and progress.")] = Path(
        "study"
    ),
    seed: Annotated[int, typer.Option(help="Of the resampling.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Which explanations of this model can be believed? Stopped, it goes on where it was."""
    from ..studies.faithfulness import FaithfulnessStudy, chosen_methods, chosen_metrics
    from .terminal import Terminal

    terminal = Terminal(quiet)
    study = FaithfulnessStudy(
        chosen_methods(_names(methods)),
        chosen_metrics(_names(metrics), with_masks=masks is not None),
        masks=masks,
        seed=seed,
    )
    classifier = resolve(model, labels, encoder, engine, None, None)
    found = study.run(classifier, list(picture_names(pictures)), output, terminal)
    found.save(output / "study.json")
    page = found.save(output / "study.html")
    if as_json:
        print(json.dumps({**found.data, "report": str(page)}, ensure_ascii=False))
    else:
        _print(found, page)
    raise typer.Exit(terminal.exit_code(found.data["n"]))


def _names(option: str | None) -> list[str] | None:
    return None if option is None else [n.strip() for n in option.split(",") if n.strip()]


def _print(found: Findings, page: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    tables = found.data["metrics"]
    shown = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    shown.add_column("")
    for table in tables:
        shown.add_column(f"{table['metric']} {'↑' if table['higher_is_better'] else '↓'}", justify="right")
    for i, row in enumerate(tables[0]["rows"]):
        cells = [t["rows"][i] for t in tables]
        name = f"[dim]{row['method']} (control)[/dim]" if row["control"] else row["method"]
        half = [(c["interval"][1] - c["interval"][0]) / 2 for c in cells]
        shown.add_row(name, *(f"{c['value']:.3g} ± {h:.2g}" for c, h in zip(cells, half, strict=True)))
    console = Console(soft_wrap=True)
    console.print(shown)
    console.print(found.sentence, highlight=False)
    if found.data["fills"]:
        taus = ", ".join(f"{pair} {tau:.2f}" for pair, tau in found.data["fills"].items())
        console.print(f"agreement of the methods' order between fills (Kendall's tau): {taus}", highlight=False)
    console.print(f"report: {page}", highlight=False)
