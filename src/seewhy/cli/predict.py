"""``seewhy predict``: decisions as a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..printable import percent, printable, spreadsheet_safe
from . import options
from .findings import WITHOUT, Absent, Finding, predict_findings
from .outputs import csv_row, refuse_beside, write_lines
from .scale_options import (
    ClusterOption,
    Decoders,
    Gpus,
    Parquet,
    PartOption,
    PerShard,
    Spread,
    Threads,
    WorkersOption,
)

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..explanation.prediction import Prediction
    from ..types import Failure

COLUMNS = ("image", "label", "score", "error", "verdict", "right", "set")
EXAMPLES = """
Examples:\n
  seewhy predict new/ -m birds --json > birds.jsonl\n
  seewhy predict photo.jpg --labels "wren, house sparrow, blue tit"\n
  find . -name "*.jpg" | seewhy predict - -m birds --csv\n
  seewhy predict new/ -m birds --reject --level 0.95\n
  seewhy predict xrays/ --finding "pleural effusion" --finding pneumonia --encoder enc\n
  seewhy predict photos/ -m birds --parquet -o decisions/ --shard 3/16\n
  seewhy predict photo.jpg --labels "red, blue" --encoder enc --focus "the colour"
"""


def predict(
    context: typer.Context,
    pictures: options.Pictures,
    model: options.Model = None,
    labels: options.Labels = None,
    follow_up: options.FollowUpFile = None,
    finding: Finding = None,
    absent: Absent = None,
    encoder: options.EncoderName = "lite0",
    focus: options.Focus = None,
    engine: options.EngineName = "auto",
    as_json: options.Json = False,
    validation: options.Validation = None,
    level: options.Level = 0.9,
    reject: Annotated[
        bool, typer.Option("--reject", help="Label pictures that are unlike anything it was trained on 'unknown'.")
    ] = False,
    as_csv: Annotated[
        bool,
        typer.Option(
            "--csv",
            help="Comma-separated: image, label, score (the classifier's own), error, verdict, right (how probable it "
            "is that the decision is right, as the card says), set.",
        ),
    ] = False,
    output: Annotated[
        Path | None, options.output("This file instead of standard output, whole or not at all.", "FILE|ADDRESS")
    ] = None,
    top: Annotated[int, options.top("The JSON lists them.", 1)] = 5,
    crops: options.Crops = "center",
    parquet: Parquet = False,
    shard: PartOption = "1/1",
    per_shard: PerShard = 2048,
    workers: WorkersOption = 1,
    threads: Threads = None,
    cluster: ClusterOption = None,
    gpus: Gpus = 0.0,
    decoders: Decoders = 0,
    image_column: options.ImageColumn = "image",
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 32,
    force: options.Force = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """Decide on pictures. One line per picture, in order; a broken one never stops the others."""
    from ..classifiers.certainty import check_level
    from ..classifiers.linear.jitter import predict_views
    from ..classifiers.words import measured_on
    from ..pictures.samples import load_samples
    from ..storage.output import check_file
    from ..types import Failure
    from .scaled import Asked, Predict, into_parquet
    from .terminal import Terminal

    if parquet:
        asked = Asked(model, labels, options.focused(encoder, focus), engine, None, follow_up, validation)
        spread = Spread(shard, per_shard, image_column, workers, threads, cluster, gpus, decoders)
        work = Predict(asked, top, level, crops, reject, batch_size)
        into_parquet(work, pictures, output, spread, Terminal(quiet), as_json)
    form = "json" if as_json else "csv" if as_csv else "text"
    if output is not None and form == "text":
        form = "csv" if output.suffix.lower() == ".csv" else "json"
    if finding or absent:
        refuse_beside(context, "finding", WITHOUT)
        looks = options.focused(encoder, focus), engine
        predict_findings(pictures, finding or (), absent, looks, form, output, store=store, force=force, quiet=quiet)
    terminal = Terminal(quiet)
    check_level(level)
    if output is not None:
        check_file(output, force=force)
    kept = options.open_store(store)
    classifier = options.resolve(model, labels, options.focused(encoder, focus), engine, None, kept, follow_up)
    if validation is not None:
        classifier = measured_on(classifier, load_samples(validation), kept, terminal)
    if reject:
        _check_rejects(classifier)
    wanted: dict[str, Any] = {"views": predict_views(crops), "batch_size": batch_size, "top": top, "level": level}
    stream = classifier.predict_all(options.picture_names(pictures, output), store=kept, **wanted)
    done = 0

    def results() -> Iterator[Prediction | Failure]:
        nonlocal done
        for result in terminal.track(stream, "Predicting"):
            if isinstance(result, Failure):
                terminal.failed(result)
            else:
                done += 1
                if reject and result.decision is not None and result.decision.is_unknown:
                    result = replace(result, rejected=True)
            yield result

    write_lines(_LINES[form](results()), form, output if form in ("json", "csv") else None, force)
    raise typer.Exit(terminal.exit_code(done))


def _check_rejects(classifier: Classifier) -> None:
    """Refuse to reject where nothing says what is unknown."""
    from ..classifiers.certainty import why_unmeasured
    from ..errors import InputError

    if classifier.measured_trust is None:
        raise InputError(f"--reject was given, and what is unknown cannot be told: {why_unmeasured(classifier)}")


def _json_lines(results: Iterator[Prediction | Failure]) -> Iterator[str]:
    for result in results:
        yield printable(json.dumps(result.to_json(), ensure_ascii=False)) + "\n"


def _csv_lines(results: Iterator[Prediction | Failure]) -> Iterator[str]:
    yield csv_row(list(COLUMNS))
    for result in results:
        data: dict[str, Any] = result.to_json()
        image, label, error = (spreadsheet_safe(data.get(key, "")) for key in ("image", "label", "error"))
        decision = data.get("decision", {})
        right = decision.get("probability")
        judged = [decision.get("verdict", ""), "" if right is None else right, "; ".join(decision.get("set", ()))]
        yield csv_row([image, label, data.get("score", ""), error, *judged[:2], spreadsheet_safe(judged[2])])


def _text_lines(results: Iterator[Prediction | Failure]) -> Iterator[str]:
    from ..explanation.decision import UNKNOWN
    from ..types import Failure

    for result in results:
        if isinstance(result, Failure):
            yield f"{printable(result.image)}\tnot readable\n"
        else:
            label, right = UNKNOWN if result.rejected else result.label, result.probability
            said = "–" if right is None else percent(right)
            yield f"{printable(result.image)}\t{printable(label)}\t{said}{_judged(result)}\n"


def _judged(result: Prediction) -> str:
    """The verdict as a column of its own, with the classes it may be."""
    from ..classifiers.certainty import listed

    d = result.decision
    if d is None or d.probability is None:
        return ""
    return f"\t{d.verdict}" + (f": {printable(listed(d.classes))}" if d.verdict == "one of few" else "")


_LINES = {"json": _json_lines, "csv": _csv_lines, "text": _text_lines}
