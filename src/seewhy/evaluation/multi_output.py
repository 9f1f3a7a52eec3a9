"""Evaluation of a model that makes several decisions about each picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..classifiers.base import looked_at
from ..classifiers.certainty import check_level
from ..classifiers.multi_output import LabelMeasure, MultiOutput
from ..encoders.stream import Encoded, Views
from ..errors import DataError
from ..metrics.calibration import accuracy_interval
from ..metrics.labels import average_precision, interval_of
from ..pictures.answers import Answers, load_answers
from ..pictures.samples import some
from ..progress import Progress, shown
from ..report.blocks import Block, Document, Section, Table, closing
from ..report.page import figure, percent
from ..report.paging import Page
from ..results import Doc, Share
from ..storage.features import FeatureStore
from ..trust.base import LEVEL
from .document import confusions_of
from .figures import groups_of
from .report import confusion_pairs, confusion_table, per_class_rows


@dataclass(frozen=True)
class EvaluatedLabel(LabelMeasure):
    """How well one label is given to the evaluated pictures."""

    covered: Annotated[Share | None, Doc("share of pictures with the label for which it is given or possible")]
    possible: Annotated[Share, Doc("share of all pictures for which it is given or possible")]


@dataclass(frozen=True, repr=False)
class MultiReport(Page):
    """The result of :func:`evaluate_multi`."""

    def document(self) -> Document:
        data, n = self.data, self.data["n"]
        sections: list[Block]
        if data["kind"] == "labels":
            headline = (
                f"Mean average precision {figure(data['mean_average_precision'])} over {len(data['labels'])} labels."
            )
            sections = [Section("Label by label, lowest average precision first", [_labels(data)])]
        else:
            headline = f"Every answer is right for {percent(data['all_right'])} of {n} pictures."
            sections = [
                Section(
                    f"{row['question']}: {percent(row['accuracy'])} of {row['n']} are right",
                    [*confusions_of(row, {}, {})],
                )
                for row in data["questions"]
            ]
        sections += closing(data)
        return Document("Evaluation", headline, sections, f"Evaluation on {n} pictures", [])


def _labels(data: Mapping[str, Any]) -> Table:
    rows = sorted(data["labels"], key=lambda row: row["average_precision"] or 0.0)
    columns = (
        "label", "pictures with it", "average precision", "95 % interval", "precision", "recall", "F1",
        f"given or possible, promised {percent(data['level'])}", "possible for",
    )  # fmt: skip
    table = [
        (
            row["label"], row["n_with"], figure(row["average_precision"]), _range(row["average_precision_interval"]),
            *(figure(row[k]) for k in ("precision", "recall", "f1", "covered")), percent(row["possible"]),
        )
        for row in rows
    ]  # fmt: skip
    return Table(columns, table)


def _range(ends: Any) -> str:
    return "–" if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}"


@shown("Evaluating the model")
def evaluate_multi(
    model: MultiOutput,
    answers: Answers | str | Path,
    *,
    store: FeatureStore | None = None,
    views: Views | None = None,
    level: float = LEVEL,
    progress: Progress | None = None,
) -> MultiReport:
    """Measure a model that makes several decisions, on pictures with known answers.

    Args:
        model: the model.
        answers: pictures with their answers, or a table with the columns ``label`` or, for questions, their names.
        store: cache of features.
        views: function from a picture's index to its crops, over which the logits are averaged.
        level: required probability that a label of a picture is among those given or possible.
        progress: progress reporter.

    Raises:
        DataError: no picture can be read, or none has a known answer.
    """
    progress, level = progress or Progress(), check_level(level)
    names = [*model.decisions]
    if not isinstance(answers, Answers):
        how: dict[str, Any] = {"names": names} if model.kind == "labels" else {"questions": names}
        answers = load_answers(answers, **how)
    progress.note_all(answers.notes)
    stream = looked_at(model.encoder, [s.source for s in answers.items], store, views, 32)
    found = [*progress.results(range(len(answers)), stream, "Looking at pictures")]
    if not found:
        raise DataError(f"None of {len(answers)} pictures can be read. The first error: {progress.failures[0].error}.")
    kept, seen = [i for i, _ in found], [one for _, one in found]
    items = [answers.items[i] for i in kept]
    given = {name: [answers.given[name][i] for i in kept] for name in names if name in answers.given}
    if (n := _n_known(model, seen)) > 0:
        progress.note(f"the model was fitted on {n} of these {len(seen)} pictures, so the figures are too high")
    groups = groups_of(items)
    groups = torch.arange(len(items)) if groups is None else groups
    figures = (_of_labels if model.kind == "labels" else _of_questions)(
        model, items, seen, given, groups, level, progress
    )
    provenance = {"decisions": ", ".join(names), "encoder": model.encoder.name, "aim": str(model.aim)}
    return MultiReport({
        "kind": model.kind, "model": provenance, "n": len(seen), **figures, "notes": list(progress.notes),
        "failures": [f.to_json() for f in progress.failures],
    })  # fmt: skip


def _n_known(model: MultiOutput, seen: list[Encoded]) -> int:
    """Return on how many of these pictures the model was fitted."""
    learnt = {digest for one in model.decisions.values() if one.known is not None for digest in one.known.by_digest}
    return sum(one.digest in learnt for one in seen)


def _of_labels(
    model: MultiOutput,
    _items: Any,
    seen: list[Encoded],
    given: Mapping[str, list[str]],
    groups: Tensor,
    level: float,
    _progress: Progress,
) -> dict[str, Any]:
    least, rows = model.least(level), []
    each: list[tuple[Float[Tensor, " n"], Bool[Tensor, " n"], Bool[Tensor, " n"]]] = []
    for name, answers in given.items():
        one, threshold = model.decisions[name], model.measures[name].threshold
        known = torch.tensor([bool(answer) for answer in answers])
        true = torch.tensor([answer == name for answer in answers])
        k = one.classes.index(name)
        p = torch.stack([one.probabilities_of(picture)[k] for picture in seen])
        named = torch.zeros_like(known) if threshold is None else p >= threshold
        if not bool(known.any()):
            continue
        measured = LabelMeasure.of(name, p[known], true[known], groups[known], threshold, named[known])
        possible = named | (p >= least[name])
        covered = float(possible[true].double().mean()) if bool(true.any()) else None
        share = float(possible[known].double().mean())
        rows.append(EvaluatedLabel(**vars(measured), covered=covered, possible=share).to_json())
        each.append((p, true, known))
    if not rows:
        raise DataError("The answer to no label is known. Fill in the column of labels, or name it with --column.")

    def mean(weights: Float[Tensor, " n"]) -> float:
        found = [average_precision(p[of], true[of], weights[of]) for p, true, of in each]
        found = [x for x in found if not math.isnan(x)]
        return sum(found) / len(found) if found else math.nan

    whole, ends = mean(torch.ones(len(seen))), interval_of(mean, groups)
    f1 = [row["f1"] for row in rows if row["f1"] is not None]
    return {
        "level": level, "mean_average_precision": None if math.isnan(whole) else round(whole, 4),
        "mean_average_precision_interval": None if math.isnan(ends[0]) else [round(end, 4) for end in ends],
        "macro_f1": round(sum(f1) / len(f1), 4) if f1 else None, "labels": rows,
    }  # fmt: skip


def _of_questions(
    model: MultiOutput,
    items: Any,
    seen: list[Encoded],
    given: Mapping[str, list[str]],
    groups: Tensor,
    _level: float,
    progress: Progress,
) -> dict[str, Any]:
    rows, all_right = [], torch.ones(len(seen), dtype=torch.bool)
    for name, answers in given.items():
        one = model.decisions[name]
        number = {label: k for k, label in enumerate(one.classes)}
        known = [i for i, answer in enumerate(answers) if answer in number]
        if others := {answer for answer in answers if answer} - {*number}:
            progress.note(f"left out {len(others)} answers to {name} that the model does not know: {some([*others])}")
        if not known:
            continue
        labels: Int[Tensor, " n"] = torch.tensor([number[answers[i]] for i in known])
        predicted = torch.stack([one.probabilities_of(seen[i]) for i in known]).argmax(1)
        right = predicted == labels
        all_right[[i for i, flag in zip(known, right.tolist(), strict=True) if not flag]] = False
        rows.append({
            "question": name, "n": len(known), "accuracy": round(float(right.double().mean()), 4),
            "accuracy_interval": [round(end, 4) for end in accuracy_interval(right, groups[known])],
            "held_out_accuracy": one.measures.get("held_out_accuracy"),
            "per_class": per_class_rows(one.classes, labels, predicted),
            "confusions": confusion_pairs(one.classes, [items[i] for i in known], labels, predicted),
            "confusion_matrix": confusion_table(one.classes, labels, predicted),
        })  # fmt: skip
    if not rows:
        raise DataError("None of these answers is one that the model knows. Use the same answers in both tables.")
    return {"all_right": round(float(all_right.double().mean()), 4), "questions": rows}
