"""Evaluation of a classifier and of its explanations on labelled pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import torch
from torch import Tensor

from ..classifiers.base import Classifier
from ..classifiers.certainty import check_level
from ..clusters import grouped
from ..encoders.stream import Views
from ..metrics.calibration import accuracy_interval, calibration_error, reliability
from ..pictures.object_masks import MaskSource
from ..pictures.samples import Sample, Samples, load_samples
from ..progress import Progress, shown
from ..report.blocks import Document
from ..report.paging import Page, frame_of
from ..report.plots import Display, draw_confusion
from ..storage.features import FeatureStore
from ..trust.base import LEVEL
from . import figures
from .document import document_of, shown_examples, small_copies

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

N_CONFUSIONS = 20
N_EXPLAINED = 32
"""Number of explained pictures if explanations are measured."""


@dataclass(frozen=True, repr=False)
class Report(Page):
    """The result of :func:`evaluate`; ``data`` is the JSON object that docs/json.md describes."""

    cards: Mapping[str, str] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        return float(self.data["accuracy"])

    @property
    def confusion(self) -> DataFrame:
        """The confusion matrix as a pandas ``DataFrame``: true classes in rows, predicted classes in columns."""
        matrix = self.data["confusion_matrix"]
        frame = frame_of(matrix["counts"], index=matrix["labels"], columns=matrix["labels"])
        return frame.rename_axis(index="true", columns="predicted")

    def plot(self, ax: Axes | None = None) -> Display:
        """Draw the confusion matrix on matplotlib axes."""
        matrix = self.data["confusion_matrix"]
        return draw_confusion(matrix["labels"], matrix["counts"], ax)

    def document(self) -> Document:
        return document_of(self.data, small_copies(shown_examples(self.data)), self.cards)


@shown("Evaluating the model")
def evaluate(
    classifier: Classifier,
    samples: Samples | str | Path,
    *,
    n_explained: int | None = None,
    store: FeatureStore | None = None,
    views: Views | None = None,
    seed: int = 0,
    faithfulness: bool = False,
    level: float = LEVEL,
    unknown: figures.Unknown | None = None,
    objects: MaskSource | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure accuracy, calibration and confusions, and optionally the faithfulness of explanations.

    Args:
        classifier: the classifier to evaluate.
        samples: labelled pictures, or their location. With groups, the interval of the accuracy takes into account
            that pictures of one group are alike.
        n_explained: number of random pictures on which explanations are measured; default: 32 with ``faithfulness`` or
            ``objects``, else none.
        store: cache of encoded pictures.
        views: function from a picture's index to its crops, over which the logits are averaged; default: the centre
            crop.
        seed: seed of the random pictures.
        faithfulness: whether to measure the faithfulness of maps and compare it with random maps.
        level: required probability, 0.5 to 1, that the predicted set of classes contains the true class.
        unknown: pictures of unknown classes, or their folder, to measure the share that is rejected.
        objects: source of object masks, to measure the share of heat outside the objects.
        progress: progress reporter.

    Raises:
        DataError: no label is one of the classifier's classes, or no picture can be read.
        InputError: ``level`` is out of range.
    """
    progress, level = progress or Progress(), check_level(level)
    data = samples if isinstance(samples, Samples) else load_samples(samples)
    items, strange = data.of(classifier.classes)
    progress.note_all((*data.notes, *strange))
    seen, logits = figures.look_at(classifier, items, store, views, progress)
    kept, pooled, labels = seen.items, seen.pooled, seen.labels
    strangers = None if unknown is None else figures.look_at_unknown(classifier, unknown, store, views, progress)
    confidence, predicted = logits.softmax(1).max(1)
    right = predicted == labels
    copies = figures.find_copies(classifier, seen, right)
    if note := figures.say(copies, classifier.measures.get("held_out_accuracy")):
        progress.note(note)
    bins = reliability(confidence, right)
    low, high = accuracy_interval(right, figures.groups_of(kept))
    if n_explained is None:
        n_explained = N_EXPLAINED if faithfulness or objects is not None else 0
    explained = figures.explained_of(classifier, kept, n_explained, seed, store, progress, objects)
    faithful = figures.faithfulness_figures(explained, seed)
    if faithful is not None and (outside := figures.outside_figures(explained, seed, progress)) is not None:
        faithful["outside"] = outside
    if faithfulness and faithful is not None and faithful["n"] > faithful["n_zero"]:
        faithful |= figures.further_figures(classifier, explained, progress)
    answers: dict[str, Any] = {
        "model": classifier.provenance(), "n": len(kept), "accuracy": round(float(right.float().mean()), 4),
        "accuracy_interval": [round(low, 4), round(high, 4)], "fitted_on": copies, "expected": _expected(classifier),
        "per_class": per_class_rows(classifier.classes, labels, predicted),
        "calibration_error": round(calibration_error(bins), 4),
        "reliability": [{k: round(v, 4) for k, v in vars(b).items()} for b in bins],
        "confusions": confusion_pairs(classifier.classes, kept, labels, predicted),
        "confusion_matrix": confusion_table(classifier.classes, labels, predicted),
        "trust": figures.trust_figures(classifier, pooled, logits, labels, level=level, unknown=strangers),
        "faithfulness": faithful, "like": figures.like_figures(explained),
        "words": figures.words_figures(classifier, pooled, labels, store, seed),
        "notes": list(progress.notes), "failures": [f.to_json() for f in progress.failures],
    }  # fmt: skip
    return Report(answers)


def _expected(classifier: Classifier) -> dict[str, Any] | None:
    names = ("held_out_accuracy", "held_out_interval", "n_held_out", "random_accuracy", "expected_range")
    found = {name: classifier.measures.get(name) for name in names}
    return None if found["held_out_accuracy"] is None else found


def per_class_rows(classes: Sequence[str], labels: Tensor, predicted: Tensor) -> list[dict[str, Any]]:
    rows = []
    for k in labels.unique().tolist():
        hits, n, named = (int(v.sum()) for v in ((labels == k) & (predicted == k), labels == k, predicted == k))
        figures = {"precision": hits / max(named, 1), "recall": hits / n, "f1": 2 * hits / (n + named)}
        rows.append({"label": classes[k], "n": n, **{name: round(v, 4) for name, v in figures.items()}})
    return rows


def confusion_pairs(
    classes: Sequence[str], samples: Sequence[Sample], labels: Tensor, predicted: Tensor
) -> list[dict[str, Any]]:
    each = zip(samples, labels.tolist(), predicted.tolist(), strict=True)
    pairs = grouped(((true, guess), sample.image) for sample, true, guess in each if true != guess)
    most = sorted(pairs.items(), key=lambda p: (-len(p[1]), p[0]))[:N_CONFUSIONS]
    return [{"true": classes[t], "predicted": classes[g], "n": len(e), "examples": e[:5]} for (t, g), e in most]


def confusion_table(classes: Sequence[str], labels: Tensor, predicted: Tensor) -> dict[str, Any]:
    """Return the confusion matrix of the classes that occur: true classes in rows, predicted classes in columns."""
    present = torch.cat([labels, predicted]).unique()
    n, rows, columns = len(present), torch.searchsorted(present, labels), torch.searchsorted(present, predicted)
    counts = torch.bincount(rows * n + columns, minlength=n * n).view(n, n)
    return {"labels": [classes[k] for k in present.tolist()], "counts": counts.tolist()}


def write_cards(
    report: Report, classifier: Classifier, folder: Path, *, store: FeatureStore | None, progress: Progress
) -> dict[str, Path]:
    """Write a card for each wrong prediction in the report; existing cards are reused."""
    from ..evidence.batch import Batch, Done
    from ..evidence.explain import ExplainOptions

    wrong = shown_examples(report.data)
    if not wrong:
        return {}
    batch = Batch(classifier, ExplainOptions(), folder, store=store)
    stream = progress.track(batch.run(wrong), "Making cards", len(wrong))
    return {done.record["image"]: Path(done.record["card"]) for done in stream if isinstance(done, Done)}


def address(card: Path, page: Path) -> str:
    return quote(Path(os.path.relpath(card, page.parent)).as_posix(), errors="surrogateescape")
