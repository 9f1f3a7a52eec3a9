"""``predict --parquet``, ``explain --parquet`` and ``index --parquet``: write results of many pictures to Parquet.

The output has one row per picture and one file per shard.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from ..bounds import Checked, Count, NotNegative
from ..errors import InputError
from ..scale.work import Model, Opened, Row, Work, arrow
from ..threads import n_cores
from ..types import Failure
from .predict import rejecting

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..evidence.explain import ExplainOptions
    from ..explanation.base import Explanation
    from ..explanation.outputs import Run
    from ..explanation.prediction import Prediction
    from ..scale.inputs import Input
    from .options import ClassifierChoice
    from .session import Session


@dataclass(frozen=True)
class Spread(Checked):
    """Settings for splitting a run into files, threads and GPUs.

    Args:
        per_shard: number of pictures per output file, if the input has no shards. After an interruption, at most one
            file is computed again.
        threads: number of threads for engine, decoding and torch together; default: the number of cores.
        gpus: with --cluster, number of GPUs per worker; with 0.5, two workers share a GPU.
    """

    noun = "the run"

    per_shard: Count = 2048
    threads: Count | None = None
    gpus: NotNegative = 0.0

    def cluster(self, address: str | None, workers: int) -> Any:
        if address is None:
            return None
        from ..scale.on_ray import Cluster

        here = self.threads or n_cores() if address == "local" else (self.threads or 1) * workers
        return Cluster(address, workers, max(1, here // workers), self.gpus)

    def input(self, session: Session, source: str) -> Input:
        from ..scale.inputs import find_input

        return find_input(source, per_shard=self.per_shard, column=session.columns.get("image"))


def _model(classifier: Classifier, decides: dict[str, Any], columns: list[tuple[str, Any]]) -> Model:
    encoder = classifier.encoder
    about = {"encoder": encoder.name, "fingerprint": encoder.fingerprint, "precision": encoder.engine.precision}
    return Model({"model": classifier.digest, **about, **decides}, tuple(columns))


@dataclass(frozen=True)
class Predict(Work):
    """Predict pictures; the columns are the fields of ``seewhy predict --json``."""

    chosen: ClassifierChoice
    top: int = 5
    level: float = 0.9
    crops: str = "center"
    reject: bool = False
    batch_size: int = 32

    verb = "predict"

    def open(self) -> Opened:
        from ..classifiers.linear.jitter import predict_views

        classifier, views = self.chosen.classifier(), predict_views(self.crops)
        how: dict[str, Any] = {"top": self.top, "level": self.level, "batch_size": self.batch_size}

        def results(sources: Iterator[Any]) -> Iterator[Row | Failure]:
            predictions = classifier.predict_all(sources, views=views, **how)
            yield from map(_predict_row, rejecting(predictions) if self.reject else predictions)

        decides = {"top": self.top, "level": self.level, "crops": self.crops, "reject": self.reject}
        pa = arrow()
        ranked = pa.list_(pa.struct([("label", pa.string()), ("score", pa.float64())]))
        kinds = [("label", pa.string()), ("score", pa.float64()), ("top", ranked), ("verdict", pa.string())]
        kinds += [("right", pa.float64()), ("set", pa.list_(pa.string()))]
        return Opened(_model(classifier, decides, kinds), results)


def _predict_row(result: Prediction | Failure) -> Row | Failure:
    if isinstance(result, Failure):
        return result
    row = result.to_json()
    judged = row.pop("decision", {})
    row |= {"verdict": judged.get("verdict"), "right": judged.get("probability")}
    row["set"] = judged["set"] if result.is_measured else None
    del row["image"]
    return row


@dataclass(frozen=True)
class Explain(Work):
    """Explain pictures; the column ``explanation`` is the JSON of ``seewhy explain --json``."""

    chosen: ClassifierChoice
    options: ExplainOptions
    explainer: Path | None = None

    verb = "explain"

    def open(self) -> Opened:
        from ..evidence.batch import Batch
        from ..evidence.explain import explain_all

        classifier, options = self.chosen.classifier(), self.options
        if self.explainer is not None:
            from ..attributions.explainers import trained

            where = options.where if isinstance(options.where, str) else classifier.where
            options = replace(options, where=trained(where, self.explainer))
        decides = {"options": Batch(classifier, options, None).fingerprint()}

        text, number = arrow().string(), arrow().float64()
        kinds = [("label", text), ("score", number), *((name, text) for name in EVIDENCE), ("explanation", text)]
        model = _model(classifier, decides, kinds)
        return Opened(model, lambda sources: map(_explain_row, explain_all(classifier, sources, options=options)))


EVIDENCE = ("where", "like", "words")


def _explain_row(explanation: Explanation | Failure) -> Row | Failure:
    from ..explanation.verdict import Missing

    if isinstance(explanation, Failure):
        return explanation
    record = explanation.to_json()
    del record["image"]
    evidence = ((name, getattr(explanation, name)) for name in EVIDENCE)
    levels = {name: None if isinstance(e, Missing) else e.verdict.level for name, e in evidence}
    whole = json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    return {"label": record["label"], "score": record["score"], **levels, "explanation": whole}


def into_parquet(session: Session, work: Work, spread: Spread) -> NoReturn:
    """Run the work on one input, print the report, and exit."""
    from ..scale.run import Part, run

    o = session.given
    pictures = [str(place) for place in (o.data if session.verb == "index" else o.pictures)]
    if len(pictures) != 1 or pictures[0] == "-":
        raise InputError("--parquet requires one folder, table or address of shards as input.")
    if o.output is None:
        raise InputError("--parquet requires an output folder. Give one with -o.")
    session.finish_settings()
    session.resumes.append(o.output)
    report = run(
        work, spread.input(session, pictures[0]), o.output, part=Part.read(o.shard), workers=o.workers,
        threads=spread.threads, cluster=spread.cluster(o.cluster, o.workers), progress=session.terminal,
    )  # fmt: skip
    session.say(report.to_json(), *([] if session.as_json else _lines(report)))
    raise typer.Exit(1 if report.unread or (report.failed and session.is_strict) else 0)


def _lines(report: Run) -> list[str]:
    there = f", {report.there:,} existed before" if report.there else ""
    of = f" of the {report.n_part:,} in this part" if report.n_part < report.n_shards else f" of {report.n_shards:,}"
    lines = [f"{report.output}: {report.done:,} shards done{of}{there}; {report.rows:,} rows"]
    if report.changed:
        lines.append(f"  processed again: {report.changed:,}, because their pictures were replaced")
    if report.failed:
        lines.append(f"  not readable: {report.failed:,}; the column error has the reasons")
    if report.unread:
        lines.append(f"  shards left out: {len(report.unread):,}; run the same command to try them again")
    return lines
