"""``seewhy predict``: decisions as a stream."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..printable import printable, spreadsheet_safe
from ..storage.marks import Columns, Lines, Mark, Record
from .options import (
    EncoderName,
    EngineName,
    FollowUpFile,
    Force,
    Json,
    Labels,
    Model,
    Pictures,
    Quiet,
    Store,
    open_store,
    picture_names,
    resolve,
)
from .terminal import say

if TYPE_CHECKING:
    from ..types import Failure, Prediction

COLUMNS = ("image", "label", "score", "error")
EXAMPLES = """
Examples:\n
  seewhy predict new/ -m birds --json > birds.jsonl\n
  seewhy predict photo.jpg --labels "wren, house sparrow, blue tit"\n
  find . -name "*.jpg" | seewhy predict - -m birds --csv
"""


MARKS: dict[str, Mark] = {
    "json": Lines((Record(("image", "label", "score", "top"), None), Record(("image", "error")))),
    "csv": Columns(COLUMNS[:3], frozenset(COLUMNS)),
}


def predict(
    pictures: Pictures,
    model: Model = None,
    labels: Labels = None,
    follow_up: FollowUpFile = None,
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated: image, label, score, error.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write to this file instead, whole or not at all.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes listed a picture (JSON).")] = 5,
    crops: Annotated[
        str, typer.Option(help="center: the model's own crop; twelve: the picture, 5 crops, and all mirrored.")
    ] = "center",
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures encoded at once.")] = 32,
    force: Force = False,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """Decide on pictures. One line a picture, in order; a broken one never stops the others."""
    from ..classifiers.views import predict_views
    from ..storage.output import check_file
    from ..types import Failure
    from .terminal import Terminal

    terminal = Terminal(quiet)
    form = "json" if as_json else "csv" if as_csv else "text"
    if output is not None and form == "text":
        form = "csv" if output.suffix.lower() == ".csv" else "json"
    if output is not None:
        check_file(output, MARKS[form], force=force)
    kept = open_store(store)
    classifier = resolve(model, labels, encoder, engine, None, kept, follow_up)
    stream = classifier.predict_all(
        picture_names(pictures, output), store=kept, views=predict_views(crops), batch_size=batch_size, top=top
    )
    done = 0

    def results() -> Iterator[Prediction | Failure]:
        nonlocal done
        for result in terminal.track(stream, "Predicting"):
            if isinstance(result, Failure):
                terminal.failed(result)
            else:
                done += 1
            yield result

    _write(results(), form, output, force)
    raise typer.Exit(terminal.exit_code(done))


def _write(results: Iterator[Prediction | Failure], form: str, output: Path | None, force: bool) -> None:
    lines = _LINES[form](results)
    if output is None:
        raw = form == "csv" and not sys.stdout.isatty()  # a quoted cell may go over lines
        for line in lines:
            if raw:
                sys.stdout.write(line)
                sys.stdout.flush()
            else:
                say(line.removesuffix("\n"))
        return
    from ..storage.output import write

    write(output, "".join(lines), MARKS[form], force=force)


def _json_lines(results: Iterator[Prediction | Failure]) -> Iterator[str]:
    for result in results:
        yield printable(json.dumps(result.to_json(), ensure_ascii=False)) + "\n"


def _csv_lines(results: Iterator[Prediction | Failure]) -> Iterator[str]:
    yield _row(list(COLUMNS))
    for result in results:
        data: dict[str, Any] = result.to_json()
        image, label, error = (spreadsheet_safe(data.get(key, "")) for key in ("image", "label", "error"))
        yield _row([image, label, data.get("score", ""), error])


def _row(values: list[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()


def _text_lines(results: Iterator[Prediction | Failure]) -> Iterator[str]:
    from ..types import Failure

    for result in results:
        if isinstance(result, Failure):
            yield f"{printable(result.image)}\tnot readable\n"
        else:
            yield f"{printable(result.image)}\t{printable(result.label)}\t{result.score:.1%}\n"


_LINES = {"json": _json_lines, "csv": _csv_lines, "text": _text_lines}
