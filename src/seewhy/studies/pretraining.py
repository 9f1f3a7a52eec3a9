"""What an encoder tells of held-out pictures before and after a training on pictures: by neighbours, and by a probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from ..classifiers.linear.solvers import fit_logistic
from ..encoders.base import Encoder
from ..learning.pooled import encode_pictures
from ..learning.pretrain import PooledSet, Pretrained
from ..pictures.samples import split
from ..progress import Progress
from ..report.adaptation import render_pretraining
from ..report.paging import Page
from ..storage.features import FeatureStore
from .retrieval import groups_of, measure_row

K = 20
"""Neighbours that vote."""
TEMPERATURE = 0.07
"""Of their votes (Wu et al. 2018, arXiv 1805.01978)."""
CS = (0.01, 0.1, 1.0, 10.0)
"""Strengths of a probe, one of which is chosen on a part of the training pictures."""
MOST = 5000
"""Training pictures that neighbours and probes are taken from, at most."""


class PretrainingReport(Page):
    """What :func:`measure_pretraining` found, with the run it is of."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One measure each, before and after."""
        found: list[dict[str, Any]] = self.data["measures"]
        return found

    def to_html(self) -> str:
        return render_pretraining(self.data)


def measure_pretraining(
    done: Pretrained, encoder: Encoder, *, store: FeatureStore | None = None, progress: Progress | None = None
) -> PretrainingReport:
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
    return PretrainingReport(
        {
            "encoder": encoder.describe(),
            "before": done.adaptation.base.describe(),
            "n_pictures": len(done.train),
            "n_held_out": len(done.held),
            "classes": sorted(known),
            "measures": rows,
            "notes": [],
            "failures": [failure.to_json() for failure in progress.failures],
        }
    )


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
    """The class by logistic regression on standardised vectors.

    Args:
        known: what it is fitted on.
        labels: of it.
        asked: what is told.
        n_classes: of the labels.
        inner: which of the known ones its strength is chosen on; none takes the middle.
    """
    mean, scale = known.mean(0), known.std(0, unbiased=False).clamp(min=1e-6)
    x, z = (known - mean) / scale, (asked - mean) / scale
    best = CS[1]
    if inner.any() and len(labels[~inner].unique()) > 1:
        fits = [fit_logistic(x[~inner], labels[~inner], n_classes, c) for c in CS]
        right = [float((fit.logits(x[inner]).argmax(1) == labels[inner]).float().mean()) for fit in fits]
        best = CS[right.index(max(right))]
    return fit_logistic(x, labels, n_classes, best).logits(z).argmax(1)
