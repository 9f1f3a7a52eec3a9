"""Do decisions keep what they promise? Coverage, set sizes, risk against coverage, and pictures of no class."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..classifiers.base import Classifier
from ..classifiers.certainty import check_level, decide, trust_inputs
from ..encoders.stream import EncodeRequest, Views, encode_stream
from ..errors import DataError
from ..metrics.calibration import accuracy_interval
from ..pictures.datasets import pictures_of
from ..pictures.samples import Samples
from ..progress import Progress
from ..storage.features import FeatureStore
from ..threads import beside
from ..trust.base import LEVEL, Judgement
from ..trust.selective import RiskCoverage, auroc

Unknown = Samples | Iterable[Any] | str | Path
"""Pictures of no class: samples, file names, or a folder."""


def trust_figures(
    classifier: Classifier,
    pooled: Float[Tensor, "n d"],
    logits: Float[Tensor, "n k"],
    labels: Int[Tensor, " n"],
    *,
    level: float = LEVEL,
    unknown: tuple[Float[Tensor, "m d"], Float[Tensor, "m k"]] | None = None,
) -> dict[str, Any]:
    """What is printed and kept of it; where nothing was held out, by the classifier's own probability."""
    check_level(level)
    trust, right = classifier.measured_trust, logits.argmax(1) == labels
    own = 1 - logits.softmax(1).max(1).values
    judged = None if trust is None else trust.judge(trust_inputs(classifier, pooled, logits), level)
    doubt = own if judged is None else judged.doubt
    curve = RiskCoverage.of(doubt, right)
    figures: dict[str, Any] = {
        "by": "its own probability" if judged is None else "held-out pictures",
        "level": level,
        **_sets(classifier, judged, pooled, logits, labels, level),
        "auroc": _rounded(auroc(doubt[~right], doubt[right])),
        "auroc_probability": _rounded(auroc(own[~right], own[right])),
        "aurc": round(curve.area, 4),
        "aurc_probability": round(RiskCoverage.of(own, right).area, 4),
        "aurc_best": round(curve.best, 4),
        "aurc_chance": round(curve.chance, 4),
        "risk_coverage": curve.at(),
        "unseen": None if trust is None else trust.unknowns.to_json(),
        "unknown": None,
    }
    if unknown is not None:
        figures["unknown"] = _unknown(classifier, judged, own, *unknown, level)
    return figures


def _sets(
    classifier: Classifier, judged: Judgement | None, pooled: Tensor, logits: Tensor, labels: Tensor, level: float
) -> dict[str, Any]:
    if judged is None:
        names = [set(d.classes) for d in decide(classifier, pooled, logits, level)]
        inside = torch.tensor([classifier.classes[k] in s for k, s in zip(labels.tolist(), names, strict=True)])
        size, sure = sum(map(len, names)) / len(names), torch.zeros(len(labels), dtype=torch.bool)
    else:
        inside = judged.sets.gather(1, labels[:, None])[:, 0]
        size, sure = float(judged.sets.sum(1).float().mean()), judged.sure
    low, high = accuracy_interval(inside)
    right = logits.argmax(1) == labels
    return {
        "coverage": round(float(inside.float().mean()), 4),
        "coverage_interval": [round(low, 4), round(high, 4)],
        "set_size": round(size, 4),
        "n_sure": int(sure.sum()),
        "sure_right": round(float(right[sure].float().mean()), 4) if bool(sure.any()) else None,
        "mean_probability": None if judged is None else round(float(judged.probability.mean()), 4),
    }


def _unknown(
    classifier: Classifier, judged: Judgement | None, own: Tensor, pooled: Tensor, logits: Tensor, level: float
) -> dict[str, Any]:
    theirs = 1 - logits.softmax(1).max(1).values
    figures = {"n": len(pooled), "auroc_probability": _rounded(auroc(theirs, own))}
    trust = classifier.measured_trust
    if trust is None or judged is None:
        return {**figures, "auroc": figures["auroc_probability"], "found": None, "sure": None, "kept": None}
    found = trust.judge(trust_inputs(classifier, pooled, logits), level)
    return {
        **figures,
        "auroc": _rounded(auroc(found.unusual, judged.unusual)),
        "found": round(float(found.unknown.float().mean()), 4),
        "sure": round(float(found.sure.float().mean()), 4),
        "kept": round(float((~judged.unknown).float().mean()), 4),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def look_at_unknown(
    classifier: Classifier, pictures: Unknown, store: FeatureStore | None, views: Views | None, progress: Progress
) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m k"]]:
    """Features and logits of pictures of no class."""
    names = pictures_of(pictures)
    stream = encode_stream(
        classifier.encoder, names, store=store, request=EncodeRequest() if views is None else EncodeRequest(views=views)
    )
    pooled, logits = [], []
    for _, seen in progress.results(names, stream, "Looking at pictures of no class"):
        with beside(classifier.encoder.engine.name), torch.no_grad():
            logits.append(classifier.head(seen.pooled).mean(0))
        pooled.append(seen.pooled[0])
    if not pooled:
        raise DataError(f"None of the {len(names)} pictures of no class can be read. Give a folder of pictures.")
    return torch.stack(pooled), torch.stack(logits)
