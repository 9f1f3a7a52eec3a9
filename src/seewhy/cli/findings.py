"""``seewhy predict --finding``: what is there and what is not, each by sentences that say so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..printable import printable, spreadsheet_safe
from .options import open_store, picture_names
from .outputs import csv_row, write_lines
from .terminal import Terminal

if TYPE_CHECKING:
    from ..classifiers.prompt_pairs import Findings
    from ..types import Failure

Finding = Annotated[
    list[str] | None,
    typer.Option(
        "--finding",
        help="Something that may be in a picture, such as 'pleural effusion'; again for another. Each is asked by "
        "itself: 'pleural effusion' against 'no pleural effusion' and 'no sign of pleural effusion'.",
        show_default=False,
    ),
]
Absent = Annotated[
    list[str] | None,
    typer.Option(
        "--absent", help="Says that a finding is not there, with {} for it; again for another.", show_default=False
    ),
]
COLUMNS = ("image", "finding", "probability", "margin", "error")
WITHOUT = ("model", "labels", "follow_up", "validation", "reject", "level", "top", "crops", "batch_size")
"""Options of ``predict`` that findings have no use for."""


def predict_findings(
    pictures: list[str],
    findings: Sequence[str],
    absent: Sequence[str] | None,
    looks: tuple[str, str],
    form: str,
    output: Path | None,
    *,
    store: str | None,
    force: bool,
    quiet: bool,
) -> None:
    """One line per picture, or per picture and finding."""
    from ..classifiers.prompt_pairs import PromptPairs
    from ..encoders.find import encoder as find
    from ..storage.output import check_file
    from ..types import Failure

    terminal = Terminal(quiet)
    if output is not None:
        check_file(output, force=force)
    pairs = PromptPairs(absent=tuple(absent)) if absent else PromptPairs()
    stream = pairs(find(looks[0], engine=looks[1]), picture_names(pictures, output), findings, store=open_store(store))
    done = 0

    def results() -> Iterator[Findings | Failure]:
        nonlocal done
        for result in terminal.track(stream, "Looking"):
            if isinstance(result, Failure):
                terminal.failed(result)
            else:
                done += 1
            yield result

    write_lines(_LINES[form](results()), form, output if form in ("json", "csv") else None, force)
    raise typer.Exit(terminal.exit_code(done))


def _json_lines(results: Iterator[Findings | Failure]) -> Iterator[str]:
    for result in results:
        yield printable(json.dumps(result.to_json(), ensure_ascii=False)) + "\n"


def _csv_lines(results: Iterator[Findings | Failure]) -> Iterator[str]:
    yield csv_row(list(COLUMNS))
    for result in results:
        data = result.to_json()
        image = spreadsheet_safe(data["image"])
        if "error" in data:
            yield csv_row([image, "", "", "", spreadsheet_safe(data["error"])])
        for one in data.get("findings", ()):
            yield csv_row([image, spreadsheet_safe(one["finding"]), one["probability"], one["margin"], ""])


def _text_lines(results: Iterator[Findings | Failure]) -> Iterator[str]:
    from ..types import Failure

    for result in results:
        if isinstance(result, Failure):
            yield f"{printable(result.image)}\tnot readable\n"
        else:
            said = "\t".join(f"{printable(one.name)} {one.probability:.1%}" for one in result.found)
            yield f"{printable(result.picture)}\t{said}\n"


_LINES = {"json": _json_lines, "csv": _csv_lines, "text": _text_lines}
