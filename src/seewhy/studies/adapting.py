"""What a training of an encoder gained and forgot on held-out pictures: its page, and the files beside it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import singledispatch
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from ..classifiers.linear.solvers import fit_logistic
from ..encoders.base import Encoder
from ..encoders.paired_heads import PairedHeads
from ..learning.adapt import Adapted, agrees
from ..learning.from_columns import Judged, Taught
from ..learning.pooled import encode_pictures
from ..learning.pretrain import PooledSet, Pretrained
from ..learning.way import AGREES, AGREES_AS_NEW, Finished
from ..pictures.samples import Samples, split
from ..progress import Progress
from ..storage.features import FeatureStore
from ..training.loop import Trained
from .adaptation_page import AdaptationReport, adaptation_page, pretraining_page
from .bootstrap import accuracy_sums, groups_of, measure_row
from .retrieval import N_EXAMPLES, measure_retrieval
from .study import beside

K = 20
"""Neighbours that vote."""
TEMPERATURE = 0.07
"""Of their votes (Wu et al. 2018, arXiv 1805.01978)."""
CS = (0.01, 0.1, 1.0, 10.0)
"""Strengths of a probe, one of which is chosen on a part of the training pictures."""
MOST = 5000
"""Training pictures that neighbours and probes are taken from, at most."""


def run_report(
    done: Finished[Any, Any],
    name: str = "adapted",
    *,
    store: FeatureStore | None = None,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> AdaptationReport:
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
) -> AdaptationReport:
    """What a finished training gives on the pictures held out to measure on, and what was before."""
    raise TypeError(f"a training that ended as {type(done).__name__} has no page")


@measured.register
def _(done: Adapted, name: str, store: FeatureStore | None, progress: Progress | None) -> AdaptationReport:
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
def _(done: Pretrained, name: str, store: FeatureStore | None, progress: Progress | None) -> AdaptationReport:
    return measure_pretraining(done, done.adaptation.encoder(name), store=store, progress=progress)


@measured.register
def _(done: Taught, name: str, store: FeatureStore | None, progress: Progress | None) -> AdaptationReport:
    rows = [
        measure_row(measure, (j.right(j.before), j.right(j.after)), groups_of(j.items), 0)
        for measure, j in done.judged.items()
    ]
    said = {measure: j for measure, j in done.judged.items() if measure != AGREES}
    n_texts = len({text for texts in done.held.said.values() for several in texts for text in several})
    data = {
        "encoder": done.adaptation.encoder(name).describe(),
        "before": done.adaptation.base.describe(),
        "n_pictures": len(done.held),
        "n_texts": n_texts,
        "measures": rows,
        "examples": [e for m, j in said.items() for e in _examples(m, j, max(2, N_EXAMPLES // len(said)))],
        "notes": [],
        "failures": [],
    }
    return AdaptationReport(data, adaptation_page)


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


def files_of(done: Finished[Any, Any], report: AdaptationReport) -> dict[str, str]:
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


def measure_pretraining(
    done: Pretrained, encoder: Encoder, *, store: FeatureStore | None = None, progress: Progress | None = None
) -> AdaptationReport:
    """How often held-out pictures are told right, before and after, where all have classes.

    Neighbours and the probe are those of the pictures trained on. The strength of the probe is chosen on a part of
    those. Intervals come from resampling held-out pictures, the same ones before and after; with groups, whole groups.
    """
    progress = progress or Progress()
    rows: list[dict[str, Any]] = []
    own = done.train.only(range(0, len(done.train), -(-len(done.train) // MOST)))
    known = set(own.classes)
    held = done.held.only([i for i, item in enumerate(done.held.items) if item.label in known])
    if len(known) > 1 and len(held):
        seed = int(done.adaptation.provenance["seed"])
        both = ((own, held), _anew(encoder, own, held, store, progress))
        told = [_right(*seen, sorted(known), seed) for seen in both]
        groups = groups_of(held.items)
        rows = [measure_row(name, [one[name] for one in told], groups, 0) for name in told[0]]
    data = {
        "encoder": encoder.describe(),
        "before": done.adaptation.base.describe(),
        "n_pictures": len(done.train),
        "n_held_out": len(done.held),
        "classes": sorted(known),
        "measures": rows,
        **beside(progress),
    }
    return AdaptationReport(data, pretraining_page)


def _anew(
    encoder: Encoder, own: PooledSet, held: PooledSet, store: FeatureStore | None, progress: Progress
) -> tuple[PooledSet, PooledSet]:
    """The same pictures as the trained encoder sees them."""
    both = encode_pictures(encoder, [*own.items, *held.items], store, progress)
    return both.only(range(len(own))), both.only(range(len(own), len(both)))


def _right(own: PooledSet, held: PooledSet, classes: Sequence[str], seed: int) -> dict[str, Float[Tensor, "n 2"]]:
    """Measure → whether each held-out picture is told right, and 1."""
    number = {name: i for i, name in enumerate(classes)}
    y, true = (torch.tensor([number[item.label] for item in seen.items]) for seen in (own, held))
    inner = torch.tensor(split([item.label for item in own.items], own.digests, 0.2, seed))
    found = {
        f"class by {min(K, len(own))} neighbours": neighbours(own.pooled, y, held.pooled, len(classes)) == true,
        "class by a linear probe": probe(own.pooled, y, held.pooled, len(classes), inner) == true,
    }
    return {name: torch.stack([right.float(), torch.ones(len(held))], 1) for name, right in found.items()}


def neighbours(
    known: Float[Tensor, "n d"], labels: Int[Tensor, " n"], asked: Float[Tensor, "m d"], n_classes: int, k: int = K
) -> Int[Tensor, " m"]:
    """The class with the most weight among the nearest, by cosines.

    Example:
        >>> neighbours(torch.eye(2), torch.tensor([0, 1]), torch.tensor([[0.2, 0.9]]), 2).tolist()
        [1]
    """
    near, where = (normalize(asked, dim=1) @ normalize(known, dim=1).T).topk(min(k, len(known)), 1)
    weights = (near / TEMPERATURE - near[:, :1] / TEMPERATURE).exp()
    return (one_hot(labels[where], n_classes) * weights[:, :, None]).sum(1).argmax(1)


def probe(
    known: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    asked: Float[Tensor, "m d"],
    n_classes: int,
    inner: Tensor,
) -> Int[Tensor, " m"]:
    """The class by logistic regression on standardised vectors."""
    mean, scale = known.mean(0), known.std(0, unbiased=False).clamp(min=1e-6)
    x, z = (known - mean) / scale, (asked - mean) / scale
    best = CS[1]
    if inner.any() and len(labels[~inner].unique()) > 1:
        fits = [fit_logistic(x[~inner], labels[~inner], n_classes, c) for c in CS]
        right = [float((fit.logits(x[inner]).argmax(1) == labels[inner]).float().mean()) for fit in fits]
        best = CS[right.index(max(right))]
    return fit_logistic(x, labels, n_classes, best).logits(z).argmax(1)
