"""What adapting an encoder gained and forgot on held-out pictures: the page of a run, and the files beside it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import singledispatch
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..encoders.paired_heads import PairedHeads
from ..learning.adapt import Adapted, agrees
from ..learning.from_columns import Judged, Taught
from ..learning.pretrain import Pretrained
from ..learning.way import AGREES, AGREES_AS_NEW, Finished
from ..pictures.samples import Samples
from ..progress import Progress
from ..storage.features import FeatureStore
from ..training.loop import Trained
from .bootstrap import accuracy_sums, groups_of, measure_row
from .pretraining import PretrainingReport, measure_pretraining
from .retrieval import N_EXAMPLES, RetrievalReport, measure_retrieval


def run_report(
    done: Finished[Any, Any],
    name: str = "adapted",
    *,
    store: FeatureStore | None = None,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> RetrievalReport | PretrainingReport:
    """The page of a training that :func:`seewhy.adapt` or :func:`seewhy.pretrain` gave; ``save("run.html")`` writes it.

    Args:
        done: the training.
        name: of the adapted encoder.
        store: where looks are kept.
        notes: what was said meanwhile.
        progress: hears of progress.
    """
    report = measured(done, name, store, progress)
    report.data["run"] = {
        "provenance": dict(done.adaptation.provenance),
        "history": list(done.done.history),
        "seconds_per_step": round(done.done.seconds_per_step, 4),
        "tried": [asdict(kept) for kept in done.tried],
    }
    if isinstance(done, Adapted | Taught) and done.tried:
        report.data["run"]["tried_apart"] = done.chosen_on is not done.held
        report.data["run"]["tried_named"] = AGREES_AS_NEW if _guarded(done) else AGREES
    report.data["notes"] = [*notes]
    return report


@singledispatch
def measured(
    done: Finished[Any, Any], name: str, store: FeatureStore | None, progress: Progress | None
) -> RetrievalReport | PretrainingReport:
    """What a finished training gives on the pictures held out to measure on, and what was before."""
    raise TypeError(f"a training that ended as {type(done).__name__} has no page")


@measured.register
def _(done: Adapted, name: str, store: FeatureStore | None, progress: Progress | None) -> RetrievalReport:
    classes = tuple(sorted({item.label for item in done.held.items} - {""}))
    held = Samples(done.held.items, classes)
    after, before = done.adaptation.encoder(name), done.adaptation.base
    report = measure_retrieval(after, held, before=before, store=store, progress=progress)
    if _guarded(done):
        both = [found for keep in (0.0, done.adaptation.keep) if (found := _as_new(done, keep)) is not None]
        if both:
            report.data["measures"].append(measure_row(AGREES_AS_NEW, both, groups_of(done.held.items), 0))
    return report


def _guarded(done: Finished[Any, Any]) -> bool:
    """Whether own classes' names keep their place, so that they do not say what becomes of others."""
    return isinstance(done.adaptation.trained, PairedHeads) and done.adaptation.trained.heard is not None


def _as_new(done: Adapted, keep: float) -> Float[Tensor, "p 2"] | None:
    heads: Any = done.adaptation.trained
    found = agrees(heads, keep, done.adaptation.base, done.held.pooled)
    return None if found is None else accuracy_sums(found)


@measured.register
def _(done: Pretrained, name: str, store: FeatureStore | None, progress: Progress | None) -> PretrainingReport:
    return measure_pretraining(done, done.adaptation.encoder(name), store=store, progress=progress)


@measured.register
def _(done: Taught, name: str, store: FeatureStore | None, progress: Progress | None) -> RetrievalReport:
    rows = [
        measure_row(measure, (j.right(j.before), j.right(j.after)), groups_of(j.items), 0)
        for measure, j in done.judged.items()
    ]
    said = {measure: j for measure, j in done.judged.items() if measure != AGREES}
    n = len(done.held)
    return RetrievalReport(
        {
            "encoder": done.adaptation.encoder(name).describe(),
            "before": done.adaptation.base.describe(),
            "n_pictures": n,
            "n_texts": len({text for texts in done.held.said.values() for several in texts for text in several}),
            "measures": rows,
            "examples": [e for m, j in said.items() for e in _examples(m, j, max(2, N_EXAMPLES // len(said)))],
            "notes": [],
            "failures": [],
        }
    )


def _examples(measure: str, judged: Judged, n: int) -> list[dict[str, Any]]:
    """Values, drawn at random, each with the three pictures nearest to it, before and after."""
    drawn = torch.randperm(len(judged.own), generator=torch.Generator().manual_seed(0)).tolist()
    found: dict[int, dict[str, Any]] = {}
    for row in drawn:
        value = int(judged.own[row])
        if value in found or len(found) == n:
            continue
        own = [judged.items[i].image for i in (judged.own == value).nonzero()[:, 0].tolist()]
        one: dict[str, Any] = {"text": judged.words[value], "measure": measure, "own": own}
        one["picture"] = judged.items[row].image
        for when, scores in (("before", judged.before), ("after", judged.after)):
            one[when] = _nearest(judged, scores[:, value], value)
        found[value] = one
    return list(found.values())


def _nearest(judged: Judged, scores: Float[Tensor, " m"], value: int) -> dict[str, Any]:
    """The three nearest pictures, and the place of the first that has the value; a tie counts against."""
    is_own = judged.own == value
    place = 1 + int((scores[~is_own] >= scores[is_own].max()).sum())
    near = scores.topk(min(3, len(scores))).indices.tolist()
    return {"place": place, "nearest": [judged.items[i].image for i in near]}


def files_of(done: Finished[Any, Any], report: RetrievalReport | PretrainingReport) -> dict[str, str]:
    """The page, its JSON, and the log of all steps as CSV."""
    document = json.dumps(report.data, indent=1, ensure_ascii=False)
    return {"run.html": report.to_html(), "run.json": document, "log.csv": log_of(done.done)}


def log_of(done: Trained) -> str:
    """Every step as CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["step", *done.history[0]])
    rows.writerows([i, *step.values()] for i, step in enumerate(done.history, 1))
    return text.getvalue()


def title_of(provenance: Mapping[str, Any]) -> str:
    """What was trained, in a line."""
    learns = dict.fromkeys((provenance["objective"], provenance["train"]))
    return f"{', '.join(learns)}, {provenance['n_steps']} steps, keep {provenance['keep']:g}"
