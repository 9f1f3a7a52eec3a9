"""``seewhy predict``: classify pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..bounds import Count
from ..errors import InputError
from ..printable import csv_row, percent, printable, spreadsheet_safe
from ..storage.output import check_file
from ..types import Failure
from .places import write_lines
from .session import Session, not_both

if TYPE_CHECKING:
    from ..explanation.prediction import Prediction

COLUMNS = ("image", "label", "score", "error", "verdict", "right", "set")
FINDING_COLUMNS = ("image", "finding", "probability", "margin", "error")
SEVERAL_COLUMNS = ("image", "decision", "answer", "probability", "possible", "verdict", "error")
OF_ONE_DECISION = ("labels", "follow_up", "validation", "reject", "parquet", "finding", "absent")
"""Options that cannot be combined with a model of several decisions."""
NOT_BESIDE_FINDINGS = ("model", "labels", "follow_up", "validation", "reject", "level", "top", "crops")
"""Options that cannot be combined with ``--finding``."""


def predict(
    session: Session,
    pictures: list[str],
    *,
    model: str | None = None,
    labels: str | None = None,
    output: Path | None = None,
    csv: bool = False,
    level: float = 0.9,
    reject: bool = False,
    validation: Path | None = None,
    follow_up: Path | None = None,
    finding: list[str] | None = None,
    absent: list[str] | None = None,
    top: Count = 5,
    crops: str = "center",
    parquet: bool = False,
    shard: str = "1/1",
    workers: Count = 1,
    cluster: str | None = None,
) -> None:
    """Classify pictures: one line per picture, in order. A broken picture never stops the others."""
    from ..classifiers.certainty import check_level
    from ..classifiers.linear.jitter import predict_views

    (batch_size,) = session.take("batch_size")
    model_of_several = session.several(model, *OF_ONE_DECISION)
    if parquet:
        from .many import Predict, Spread, into_parquet

        chosen = session.choice(model, labels, None, follow_up, validation)
        work = Predict(chosen, top, level, crops, reject, batch_size)
        into_parquet(session, work, session.make(Spread))
    session.finish_settings()
    form = "json" if session.as_json else "csv" if csv else "text"
    if output is not None and form == "text":
        form = "csv" if output.suffix.lower() == ".csv" else "json"
    if finding or absent:
        _findings(session, form)
    check_level(level)
    if output is not None:
        check_file(output, force=session.force)
    names, views = session.pictures(pictures, output), predict_views(crops)
    how: dict[str, Any] = {"store": session.store, "views": views, "batch_size": batch_size, "top": top, "level": level}
    if model_of_several is not None:
        _write(session, model_of_several.predict_all(names, **how), "several", form, output)
    classifier = session.classifier(model, labels, None, follow_up, validation)
    if reject and classifier.measured_trust is None:
        from ..classifiers.certainty import why_unmeasured

        raise InputError(
            f"--reject requires a classifier that can recognise unknown pictures: {why_unmeasured(classifier)}"
        )
    stream = classifier.predict_all(names, **how)
    _write(session, rejecting(stream) if reject else stream, "predictions", form, output)


def rejecting(stream: Iterator[Prediction | Failure]) -> Iterator[Prediction | Failure]:
    for result in stream:
        if not isinstance(result, Failure) and result.decision is not None and result.decision.is_unknown:
            yield replace(result, rejected=True)
        else:
            yield result


def _findings(session: Session, form: str) -> NoReturn:
    """Print the findings, one line per picture, or per picture and finding in CSV."""
    from ..classifiers.prompt_pairs import PromptPairs

    for name in session.was_given(NOT_BESIDE_FINDINGS):
        raise not_both("--finding", f"--{name.replace('_', '-')}")
    o = session.given
    if o.output is not None:
        check_file(o.output, force=session.force)
    pairs = PromptPairs(absent=tuple(o.absent)) if o.absent else PromptPairs()
    stream = pairs(session.encoder(), session.pictures(o.pictures, o.output), o.finding or [], store=session.store)
    _write(session, stream, "findings", form, o.output)


def _write(session: Session, stream: Iterator[Any], kind: str, form: str, output: Path | None) -> NoReturn:
    """Write the results one by one, and report failures."""

    def results() -> Iterator[Any]:
        for result in session.terminal.track(stream, "Looking at pictures", session.n_pictures):
            if isinstance(result, Failure):
                session.terminal.failed(result)
            else:
                session.n_results += 1
            yield result

    lines = {"json": _json_lines, "csv": _csv_lines, "text": _text_lines}[form]
    write_lines(lines(results(), kind), form, output if form in ("json", "csv") else None, session.force)
    session.end()


def _json_lines(results: Iterator[Any], kind: str) -> Iterator[str]:
    for result in results:
        yield printable(json.dumps(result.to_json(), ensure_ascii=False)) + "\n"


def _csv_lines(results: Iterator[Any], kind: str) -> Iterator[str]:
    is_findings = kind == "findings"
    yield csv_row(list({"findings": FINDING_COLUMNS, "several": SEVERAL_COLUMNS}.get(kind, COLUMNS)))
    for result in results:
        data: dict[str, Any] = result.to_json()
        image, label, error = (spreadsheet_safe(data.get(key, "")) for key in ("image", "label", "error"))
        if is_findings and error:
            yield csv_row([image, "", "", "", error])
        elif kind == "several":
            rows = [("", "", "", "", "")] if error else result.rows()
            for name, answer, probability, possible, verdict in rows:
                safe = map(spreadsheet_safe, (name, answer))
                yield csv_row([image, *safe, probability, spreadsheet_safe(possible), verdict, error])
        elif is_findings:
            for row in data["findings"]:
                yield csv_row([image, spreadsheet_safe(row["finding"]), row["probability"], row["margin"], ""])
        else:
            decision = data.get("decision", {})
            right = decision.get("probability")
            judged = [decision.get("verdict", ""), "" if right is None else right]
            named = spreadsheet_safe("; ".join(decision.get("set", ())))
            yield csv_row([image, label, data.get("score", ""), error, *judged, named])


def _text_lines(results: Iterator[Any], kind: str) -> Iterator[str]:
    for result in results:
        if isinstance(result, Failure):
            yield f"{printable(result.image)}\tnot readable\n"
        elif kind == "findings":
            findings = "\t".join(f"{printable(f.name)} {100 * f.probability:.1f} %" for f in result.found)
            yield f"{printable(result.picture)}\t{findings}\n"
        elif kind == "several":
            yield "\t".join(map(printable, [result.image, *result.parts])) + "\n"
        else:
            yield _decision_line(result)


def _decision_line(result: Prediction) -> str:
    from ..classifiers.certainty import listed
    from ..explanation.prediction import UNKNOWN

    label, right, d = UNKNOWN if result.rejected else result.label, result.probability, result.decision
    figure, judged = "–" if right is None else percent(right), ""
    if d is not None:
        figure = f"score {figure}" if d.verdict == "not measured" else figure
        is_several = d.verdict == "not sure" and len(result.names) > 1
        judged = f"\t{d.verdict}" + (f": {printable(listed(result.names))}" if is_several else "")
    return f"{printable(result.image)}\t{printable(label)}\t{figure}{judged}\n"
