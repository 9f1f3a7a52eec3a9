"""``predict --parquet`` and ``explain --parquet``: decisions and explanations of many pictures, as Parquet.

A row for each picture, a file for each shard; what is asked travels to every process by its options.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import InputError
from ..scale.work import Opened, Row, Work, arrow
from ..types import Failure
from .options import resolve
from .scale_options import Spread, run_on
from .terminal import Terminal

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..evidence.explain import ExplainOptions
    from ..explanation.base import Explanation
    from ..explanation.prediction import Prediction


@dataclass(frozen=True)
class Asked:
    """The classifier that the options name."""

    model: str | None
    labels: str | None
    encoder: str
    engine: str
    descriptions: Path | None = None
    follow_up: Path | None = None
    validation: Path | None = None

    def classifier(self) -> Classifier:
        found = resolve(self.model, self.labels, self.encoder, self.engine, self.descriptions, None, self.follow_up)
        if self.validation is not None:
            from ..classifiers.words import measured_on
            from ..pictures.samples import load_samples
            from ..progress import Progress

            found = measured_on(found, load_samples(self.validation), None, Progress())
        return found


class _Deciding(Opened):
    """A classifier at work; ``rows`` makes results of pictures, ``row`` what is kept of one."""

    def __init__(
        self, classifier: Classifier, options: dict[str, Any], made: Any, row: Any, kinds: Any, *, once: bool = True
    ) -> None:
        about = classifier.encoder
        self.transform = about.transform if once else None
        self.identity = {
            "model": classifier.digest,
            "encoder": about.name,
            "fingerprint": about.fingerprint,
            "precision": about.engine.precision,
            **options,
        }
        self._made, self._row, self._kinds = made, row, kinds

    def columns(self) -> list[tuple[str, Any]]:
        return self._kinds()

    def results(self, sources: Iterator[Any]) -> Iterator[Row | Failure]:
        for result in self._made(sources):
            yield result if isinstance(result, Failure) else self._row(result)


@dataclass(frozen=True)
class Predict(Work):
    """Decisions; fields are those of ``seewhy predict``."""

    asked: Asked
    top: int = 5
    level: float = 0.9
    crops: str = "center"
    reject: bool = False
    batch_size: int = 32

    verb = "predict"

    def open(self) -> Opened:
        from ..classifiers.linear.jitter import predict_views

        classifier = self.asked.classifier()
        how: dict[str, Any] = {"top": self.top, "level": self.level, "batch_size": self.batch_size}
        made = partial(classifier.predict_all, views=predict_views(self.crops), **how)
        options = {"top": self.top, "level": self.level, "crops": self.crops, "reject": self.reject}
        return _Deciding(classifier, options, made, self._row, _predict_columns, once=self.crops == "center")

    def _row(self, result: Prediction) -> Row:
        from ..explanation.decision import UNKNOWN

        decision = result.decision
        unknown = self.reject and decision is not None and decision.is_unknown
        row = {**result.to_json(), **({"label": UNKNOWN} if unknown else {})}
        judged = row.pop("decision", {})
        row |= {"verdict": judged.get("verdict"), "right": judged.get("probability"), "set": None}
        if row["right"] is not None:
            row["set"] = judged["set"]
        del row["image"]
        return row


def _predict_columns() -> list[tuple[str, Any]]:
    pa = arrow()
    ranked = pa.list_(pa.struct([("label", pa.string()), ("score", pa.float64())]))
    kinds = [("label", pa.string()), ("score", pa.float64()), ("top", ranked), ("verdict", pa.string())]
    return [*kinds, ("right", pa.float64()), ("set", pa.list_(pa.string()))]


@dataclass(frozen=True)
class Explain(Work):
    """Explanations; the column ``explanation`` is the JSON that ``seewhy explain --json`` prints."""

    asked: Asked
    options: ExplainOptions
    explainer: Path | None = None

    verb = "explain"

    def open(self) -> Opened:
        from ..evidence.batch import Batch
        from ..evidence.explain import explain_all

        classifier, options = self.asked.classifier(), self.options
        if self.explainer is not None:
            from ..attributions.explainers import trained

            where = options.where if isinstance(options.where, str) else classifier.where
            options = replace(options, where=trained(where, self.explainer))
        decides = {"options": Batch(classifier, options, None).fingerprint()}

        def made(sources: Iterator[Any]) -> Iterator[Explanation | Failure]:
            return explain_all(classifier, sources, options)

        return _Deciding(classifier, decides, made, _explain_row, _explain_columns)


EVIDENCE = ("where", "like", "words")


def _explain_columns() -> list[tuple[str, Any]]:
    text, number = arrow().string(), arrow().float64()
    return [("label", text), ("score", number), *((name, text) for name in EVIDENCE), ("explanation", text)]


def _explain_row(shown: Explanation) -> Row:
    from ..explanation.verdict import Missing

    record = shown.to_json()
    del record["image"]
    found = ((name, getattr(shown, name)) for name in EVIDENCE)
    levels = {name: None if isinstance(one, Missing) else one.verdict.level for name, one in found}
    whole = json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    return {"label": record["label"], "score": record["score"], **levels, "explanation": whole}


ONE_BY_ONE = {
    **{name: f"--{name}" for name in ("typical", "judge", "segmenter", "detector", "known")},
    "object_mask": "--object-mask",
    "object_segmenter": "--object-segmenter",
    "object_words": "--object",
}
"""Options of ``explain`` for what is shown beside single pictures, by their parameters."""


def explain_many(asked: dict[str, Any]) -> NoReturn:
    """``seewhy explain --parquet``, by its options."""
    from ..evidence.explain import ExplainOptions
    from ..prototypes.perturbations import find_changes
    from .method_options import settings
    from .options import focused

    if beside := next((option for name, option in ONE_BY_ONE.items() if asked.get(name)), None):
        raise InputError(
            f"--parquet and {beside} were both given. What is shown beside single pictures has no "
            "place there. Drop one."
        )
    own = {f.name for f in fields(ExplainOptions)} & set(asked) - {"because", *ONE_BY_ONE}
    options = ExplainOptions(
        **{name: asked[name] for name in own},
        settings=settings(asked["setting"]),
    )
    if asked["because"]:
        options = replace(options, because=find_changes(asked["strengths"]).name)
    model = Asked(
        asked["model"],
        asked["labels"],
        focused(asked["encoder"], asked["focus"]),
        asked["engine"],
        asked["descriptions"],
        asked["follow_up"],
        asked["validation"],
    )
    spread = Spread(
        part=asked["shard"],
        column=asked["image_column"],
        **{name: asked[name] for name in ("per_shard", "workers", "threads", "cluster", "gpus", "decoders")},
    )
    work = Explain(model, options, asked["explainer"])
    into_parquet(work, asked["pictures"], asked["output"], spread, Terminal(asked["quiet"]), asked["as_json"])


def into_parquet(
    work: Work, pictures: list[str], output: Path | None, spread: Spread, terminal: Terminal, as_json: bool
) -> NoReturn:
    """Run the work on the one input that was named."""
    if len(pictures) != 1 or pictures[0] == "-":
        raise InputError(
            "--parquet was given with several inputs, or with names on standard input. One folder, table or place of "
            "shards was expected, which can be read again. Name it."
        )
    if output is None:
        raise InputError("--parquet was given, and no place for its files. A folder was expected. Name one with -o.")
    run_on(work, pictures[0], output, spread, terminal, as_json)
