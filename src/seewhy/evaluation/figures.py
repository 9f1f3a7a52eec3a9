"""Metrics of an evaluation besides accuracy: copies, trust, descriptions, and the faithfulness of maps."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..classifiers.base import Classifier, HeldOut
from ..classifiers.certainty import check_level, decide, trust_inputs
from ..classifiers.encoded_set import EncodedSet
from ..classifiers.known_pictures import too_high
from ..classifiers.words import texts_of, words_alone
from ..clusters import numbered
from ..descriptions.base import Descriptions, WordBank, name_only, random_words
from ..encoders.stream import Encoded, EncodeRequest, Views, encode_stream
from ..errors import DataError
from ..explanation.base import Explanation, Where
from ..explanation.similar import Like
from ..explanation.verdict import Level
from ..metrics.calibration import accuracy_interval
from ..pictures.datasets import pictures_of
from ..pictures.object_masks import MaskSource
from ..pictures.samples import Sample, Samples
from ..progress import Progress
from ..storage.features import FeatureStore
from ..threads import beside
from ..trust.base import LEVEL, Judgement
from ..trust.measure import RiskCoverage, auroc

Unknown = Samples | Iterable[Any] | str | Path
"""Pictures of unknown classes: samples, file names, or a folder."""
LEVELS: tuple[Level, ...] = ("believable", "partly", "do not rely", "not measured")
FURTHER = ("average_drop", "average_increase", "average_gain", "road", "sparsity")
N_DRAWS = 2000
"""Number of bootstrap resamples for an interval."""
N_FEWEST = 10
"""Smallest number of pictures for which a difference may be called real."""
N_NOISE = 7


def _encoded(
    classifier: Classifier, items: Sequence[Any], sources: Sequence[Any], store: FeatureStore | None,
    request: EncodeRequest, progress: Progress, what: str,
) -> Iterator[tuple[Any, Encoded, Tensor]]:  # fmt: skip
    """Yield each readable item with the encoding of its first view, and its logits, averaged over all views."""
    stream = encode_stream(classifier.encoder, sources, store=store, request=request)
    for item, encoded in progress.results(items, stream, what):
        with beside(classifier.encoder.engine.name), torch.no_grad():
            logits = classifier.head(encoded.pooled).mean(0)
        yield item, replace(encoded, pooled=encoded.pooled[:1]), logits


def look_at(
    classifier: Classifier, items: Sequence[Sample], store: FeatureStore | None, views: Views | None, progress: Progress
) -> tuple[EncodedSet, Float[Tensor, "n k"]]:
    """Return the readable samples and their logits."""
    request = EncodeRequest(miniatures=True) if views is None else EncodeRequest(miniatures=True, views=views)
    sources = [s.source for s in items]
    rows = list(_encoded(classifier, items, sources, store, request, progress, "Looking at pictures"))
    if not rows:
        raise DataError(
            f"None of the {len(items)} pictures can be read. The first error: {progress.failures[0].error}."
        )
    kept, encoded, logits = zip(*rows, strict=True)
    seen = EncodedSet(kept, encoded, classifier.classes, encoder=classifier.encoder.fingerprint)
    return seen, torch.stack(logits)


def look_at_unknown(
    classifier: Classifier, pictures: Unknown, store: FeatureStore | None, views: Views | None, progress: Progress
) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m k"]]:
    """Return pooled features and logits of pictures of unknown classes."""
    names, what = pictures_of(pictures), "Looking at pictures of no class"
    request = EncodeRequest() if views is None else EncodeRequest(views=views)
    rows = list(_encoded(classifier, names, names, store, request, progress, what))
    if not rows:
        raise DataError(f"None of the {len(names)} pictures of unknown classes can be read. Give a folder of pictures.")
    return torch.stack([encoded.pooled[0] for _, encoded, _ in rows]), torch.stack([own for *_, own in rows])


def groups_of(items: Sequence[Sample]) -> Int[Tensor, " n"] | None:
    """Return group numbers, with a new number for each picture without a group; ``None`` if no picture has a group."""
    return numbered([s.group or i for i, s in enumerate(items)]) if any(s.group for s in items) else None


def explained_of(
    classifier: Classifier,
    items: Sequence[Sample],
    n: int,
    seed: int,
    store: FeatureStore | None,
    progress: Progress,
    objects: MaskSource | None = None,
) -> list[Explanation]:
    drawn = sorted(random.Random(seed).sample(range(len(items)), min(n, len(items))))
    stream = classifier.explain_all([items[i].source for i in drawn], store=store, seed=seed, objects=objects)
    made = progress.track(stream, "Explaining pictures to measure on", len(drawn))
    return [card for card in made if isinstance(card, Explanation)]


def find_copies(classifier: Classifier, seen: EncodedSet, right: Bool[Tensor, " n"]) -> dict[str, Any] | None:
    """Return the evaluated pictures that the classifier was fitted on; ``None`` if these are unknown."""
    known = classifier.known
    if known is None:
        return None
    features = seen.pooled if known.encoder == classifier.encoder.fingerprint else None
    twins = known.twins(seen.digests, [one.miniature for one in seen.encoded], features)
    rows = [
        {"image": item.image, "fitted_on": twin[0], "same_bytes": twin[1] is None,
         "agreement": None if twin[1] is None else round(twin[1], 4)}
        for item, twin in zip(seen.items, twins, strict=True) if twin is not None
    ]  # fmt: skip
    fresh = right[[i for i, twin in enumerate(twins) if twin is None]]
    n_same = sum(bool(row["same_bytes"]) for row in rows)
    return {
        "n_same_bytes": n_same, "n_near": len(rows) - n_same, "n_compared": len(known.miniatures),
        "accuracy_without": round(float(fresh.float().mean()), 4) if len(fresh) else None, "pictures": rows,
    }  # fmt: skip


def say(copies: dict[str, Any] | None, held_out: float | None) -> str:
    """Return a note about copies; empty if there are none."""
    if copies is None or not copies["pictures"]:
        return ""
    same, near = copies["n_same_bytes"], copies["n_near"]
    kinds = [f"{same} as the same file"] * bool(same) + [f"{near} as near copies"] * bool(near)
    first = ", ".join(f"{row['image']} (fitted on: {row['fitted_on']})" for row in copies["pictures"][:3])
    which = f"{same + near} of these pictures ({' and '.join(kinds)})"
    return f"{too_high(which, copies['accuracy_without'], held_out)}. The first: {first}"


def with_texts(classifier: Classifier, texts: Any, store: FeatureStore | None) -> Classifier:
    """Return a copy of the classifier with other descriptions (class → texts)."""
    bank = WordBank.build(classifier.encoder, Descriptions(texts), with_names=False, store=store)
    return replace(classifier, words=bank)


def words_figures(
    classifier: Classifier, pooled: Tensor, labels: Tensor, store: FeatureStore | None, seed: int
) -> dict[str, Any] | None:
    """Return the accuracy of the descriptions and of two controls: class names only, and random words."""
    if classifier.words is None:
        return None
    held, described = HeldOut(pooled, labels), Descriptions(texts_of(classifier.words))

    def accuracy(texts: Any) -> float:
        return words_alone(with_texts(classifier, texts, store), held)

    noise = [accuracy(random_words(described, seed + i)) for i in range(N_NOISE)]
    return {
        "accuracy": words_alone(classifier, held),
        "name_only": accuracy(name_only(described)),
        "random_words": round(sum(noise) / len(noise), 4),
        "n": len(labels),
    }


def like_figures(explained: Sequence[Explanation]) -> dict[str, Any] | None:
    """Return the share of nearest neighbours that have the predicted class."""
    like = [(e.like, e.prediction.label) for e in explained if isinstance(e.like, Like)]
    shown = [n.label == label for one, label in like for n in one.neighbours]
    chances = [one.chance for one, _ in like if one.chance is not None]
    if not shown:
        return None
    chance = round(sum(chances) / len(chances), 4) if chances else None
    return {"held_out_precision": round(sum(shown) / len(shown), 4), "chance": chance}


def trust_figures(
    classifier: Classifier,
    pooled: Float[Tensor, "n d"],
    logits: Float[Tensor, "n k"],
    labels: Int[Tensor, " n"],
    *,
    level: float = LEVEL,
    unknown: tuple[Float[Tensor, "m d"], Float[Tensor, "m k"]] | None = None,
) -> dict[str, Any]:
    """Return the metrics of trust; without held-out pictures, doubt is 1 minus the predicted probability."""
    check_level(level)
    trust, right = classifier.measured_trust, logits.argmax(1) == labels
    own = 1 - logits.softmax(1).max(1).values
    judged = None if trust is None else trust.judge(trust_inputs(classifier, pooled, logits), level)
    doubt = own if judged is None else judged.doubt
    curve = RiskCoverage.of(doubt, right)
    by_own, areas = RiskCoverage.of(own, right), {"aurc_best": curve.best, "aurc_chance": curve.chance}
    areas |= {"aurc": curve.area, "aurc_probability": by_own.area}
    return {
        "by": "its own probability" if judged is None else "held-out pictures", "level": level,
        **_sets(classifier, judged, pooled, logits, labels, level),
        "auroc": _rounded(auroc(doubt[~right], doubt[right])),
        "auroc_probability": _rounded(auroc(own[~right], own[right])),
        **{name: round(area, 4) for name, area in areas.items()}, "risk_coverage": curve.at(),
        "unseen": None if trust is None else trust.unknowns.to_json(),
        "unknown": None if unknown is None else _unknown(classifier, judged, own, *unknown, level),
    }  # fmt: skip


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
        "coverage": _mean(inside), "coverage_interval": [round(low, 4), round(high, 4)], "set_size": round(size, 4),
        "n_sure": int(sure.sum()), "sure_right": _mean(right[sure]) if bool(sure.any()) else None,
        "mean_probability": None if judged is None else _mean(judged.probability),
    }  # fmt: skip


def _unknown(
    classifier: Classifier, judged: Judgement | None, own: Tensor, pooled: Tensor, logits: Tensor, level: float
) -> dict[str, Any]:
    theirs = 1 - logits.softmax(1).max(1).values
    figures = {"n": len(pooled), "auroc_probability": _rounded(auroc(theirs, own))}
    trust = classifier.measured_trust
    if trust is None or judged is None:
        return {**figures, "auroc": figures["auroc_probability"], "found": None, "sure": None, "kept": None}
    found = trust.judge(trust_inputs(classifier, pooled, logits), level)
    own_auroc = _rounded(auroc(found.unusual, judged.unusual))
    parts = {"found": _mean(found.unknown), "sure": _mean(found.sure), "kept": _mean(~judged.unknown)}
    return {**figures, "auroc": own_auroc, **parts}


def _mean(values: Tensor) -> float:
    return round(float(values.float().mean()), 4)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def faithfulness_figures(explained: Sequence[Explanation], seed: int) -> dict[str, Any] | None:
    """Return the metrics of the explanations, averaged over the pictures; each explains the predicted class.

    A map that is zero everywhere counts as no better than a random map.
    """
    shown = [e.where for e in explained if isinstance(e.where, Where)]
    maps = [m for m in shown if m.deletion is not None]
    if not shown:
        return None
    names = ("deletion", "deletion_random", "insertion", "insertion_random", "match", "match_centre")
    found = {n: torch.tensor([getattr(m, n) for m in maps], dtype=torch.double) for n in names}
    means = {n: round(float(v.mean()), 4) if maps else None for n, v in found.items()}
    own = found["insertion"] - found["deletion"]
    shuffled = found["insertion_random"] - found["deletion_random"]
    leads = torch.cat([own - shuffled, torch.zeros(len(shown) - len(maps), dtype=torch.double)])
    verdicts = {v: sum(m.verdict.level == v for m in shown) for v in LEVELS}
    counts = {"n": len(shown), "n_zero": len(shown) - len(maps), "method": shown[0].method}
    return {**counts, **means, "than_random": than_random(leads, seed), "verdicts": verdicts}


def than_random(leads: Float[Tensor, " n"], seed: int) -> dict[str, Any]:
    """Compare the maps with shuffled maps."""
    n, lead, (low, high) = len(leads), float(leads.mean()), mean_interval(leads, seed)
    enough = n >= N_FEWEST
    verdict = "better" if enough and low > 0 else "worse" if enough and high < 0 else "not shown"
    said = f"{'not shown to be better' if verdict == 'not shown' else verdict} than random ones"
    why = "" if enough else f" At least {N_FEWEST} pictures are needed."
    figures = (
        f"Compared with random maps, insertion minus deletion differs by {lead:+.2f} ({low:+.2f} to "
        f"{high:+.2f}) on {n} pictures.{why}"
    )
    sentence = f"The heat maps are {said}. {figures}".replace("-", "−")
    interval = [round(low, 4), round(high, 4)]
    return {"lead": round(lead, 4), "interval": interval, "verdict": verdict, "sentence": sentence}


def mean_interval(values: Float[Tensor, " n"], seed: int) -> tuple[float, float]:
    """Return the 95 % interval of a mean over pictures (percentile bootstrap)."""
    draws = torch.randint(len(values), (N_DRAWS, len(values)), generator=torch.Generator().manual_seed(seed))
    edges = torch.tensor([0.025, 0.975], dtype=torch.double)
    low, high = values.double()[draws].mean(1).quantile(edges).tolist()
    return low, high


def further_figures(classifier: Classifier, explained: Sequence[Explanation], progress: Progress) -> dict[str, Any]:
    """Return the means of further metrics for the maps and for shuffled maps."""
    from ..metrics import metrics
    from ..metrics.base import Case, shuffled

    judges = [metrics[name]() for name in FURTHER]
    maps = [e for e in explained if isinstance(e.where, Where) and e.where.deletion is not None]
    found: dict[str, list[float]] = defaultdict(list)
    for e in progress.track(maps, "Measuring how faithful the explanations are", len(maps)):
        assert isinstance(e.where, Where)
        heat = torch.from_numpy(e.where.heat)
        pixels = classifier.encoder.pixels([e.view])[0]
        case = Case.of(classifier, pixels, classifier.index_of(e.where.target))
        for judge in judges:
            ours, control = judge.measure(case, torch.cat([heat[None], shuffled(heat, 1, 0)]))
            found[judge.name].append(ours.value)
            found[f"{judge.name}_random"].append(control.value)
    return {name: round(sum(v) / len(v), 4) for name, v in found.items()}


def outside_figures(explained: Sequence[Explanation], seed: int, progress: Progress) -> dict[str, Any] | None:
    """Return the mean share of heat outside the object; ``beyond`` is this share minus the area outside the object."""
    found = [(e, e.where.outside) for e in explained if isinstance(e.where, Where) and e.where.outside is not None]
    if not found:
        return None
    if left := [f"{e.prediction.image}: {one.why}" for e, one in found if one.share is None]:
        progress.note(f"Heat outside the object was not measured on {len(left)} picture(s), such as {left[0]}")
    pairs = [(one.share, one.area) for _, one in found if one.share is not None and one.area is not None]
    data: dict[str, Any] = {"masks": found[0][1].masks, "n": len(pairs)}
    if not pairs:
        nothing = dict.fromkeys(("share", "area", "beyond", "interval"))
        return {**data, **nothing, "sentence": "How much of the heat lies outside the object was not measured."}
    share, area = torch.tensor(pairs, dtype=torch.double).unbind(1)
    low, high = mean_interval(share - area, seed)
    outer, chance, beyond = (round(float(v.mean()), 4) for v in (share, area, share - area))
    sentence = (
        f"{100 * outer:.0f} % of the heat lies outside the object; by chance it would be {100 * chance:.0f} %. The "
        f"difference is {100 * beyond:+.0f} points ({100 * low:+.0f} to {100 * high:+.0f}) on {len(pairs)} pictures."
    )
    interval = [round(low, 4), round(high, 4)]
    means = {"share": outer, "area": chance, "beyond": beyond, "interval": interval}
    return {**data, **means, "sentence": sentence}
