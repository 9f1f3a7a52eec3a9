"""How good is a classifier, and how far can its explanations be trusted? Answered on labelled pictures."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..classifiers.base import Classifier, HeldOut
from ..classifiers.certainty import check_level
from ..classifiers.words import words_alone
from ..descriptions.base import Descriptions, WordBank, name_only, random_words
from ..encoders.stream import Encoded, EncodeRequest, Views, encode_stream
from ..errors import DataError
from ..explanation.base import Explanation
from ..explanation.similar import Like
from ..metrics.calibration import accuracy_interval, calibration_error, reliability
from ..pictures.object_masks import MaskSource
from ..pictures.samples import Sample, Samples, load_samples
from ..progress import Progress
from ..report.blocks import Document
from ..report.paging import Page
from ..storage.features import FeatureStore
from ..threads import beside
from ..trust.base import LEVEL
from ..types import Failure
from .copies import Judged, find_copies, say
from .document import document_of, shown_examples
from .faithfulness import faithfulness_figures, further_figures, outside_figures
from .trust import Unknown, look_at_unknown, trust_figures

if TYPE_CHECKING:
    from collections.abc import Iterator

N_CONFUSIONS = 20
N_NOISE = 7
N_EXPLAINED = 32
"""Pictures whose explanations are measured, where that is asked for."""


@dataclass(frozen=True, repr=False)
class Report(Page):
    """What :func:`evaluate` found; ``data`` is the documented JSON (docs/json.md).

    Attributes:
        cards: addresses of cards by picture, relative to where the page will be; its confusions lead there.
    """

    cards: Mapping[str, str] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        return float(self.data["accuracy"])

    def document(self) -> Document:
        from .confusions import small_copies

        return document_of(self.data, small_copies(shown_examples(self.data)), self.cards)


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
    unknown: Unknown | None = None,
    objects: MaskSource | None = None,
    progress: Progress | None = None,
) -> Report:
    """Accuracy, per class, calibration, confusions, and, where asked, how faithful the explanations are.

    Args:
        classifier: what is judged.
        samples: labelled pictures, or where they are. Where they say which belong together, the interval of the
            accuracy is that of as many pictures as they are worth.
        n_explained: pictures drawn at random on which explanations are measured; left out, 32 with ``faithfulness`` or
            ``objects``, else none.
        store: where looks are kept.
        views: several crops a picture, whose logits are averaged.
        seed: of the draw.
        faithfulness: measure explanations, and their maps with further metrics beside a random map.
        level: how often the true class is to be among those that a decision names.
        unknown: pictures of no class, or their folder: how well are they told?
        objects: who says where the objects are, for the part of the heat outside them.
        progress: callback for progress and failures.

    Raises:
        DataError: no label is one of the classifier's classes, or no picture can be read.
        InputError: the level is not from 0.5 to below 1.
    """
    progress, level = progress or Progress(), check_level(level)
    data = samples if isinstance(samples, Samples) else load_samples(samples)
    items, strange = data.of(classifier.classes)
    for note in (*data.notes, *strange):
        progress.note(note)
    kept, logits, pooled, files = look_at(classifier, items, store, views, progress)
    labels = torch.tensor([classifier.index_of(s.label) for s in kept])
    strangers = None if unknown is None else look_at_unknown(classifier, unknown, store, views, progress)
    probabilities = logits.softmax(1)
    confidence, predicted = probabilities.max(1)
    right = predicted == labels
    copies = find_copies(classifier, files, pooled, right)
    if copies is not None and (said := say(copies)):
        progress.note(said)
    bins = reliability(confidence, right)
    low, high = accuracy_interval(right, groups_of(kept))
    if n_explained is None:
        n_explained = N_EXPLAINED if faithfulness or objects is not None else 0
    chosen = random.Random(seed).sample(range(len(kept)), min(n_explained, len(kept)))
    explained = _explained(classifier, [kept[i] for i in sorted(chosen)], store, progress, seed, objects)
    faithful = faithfulness_figures(explained, seed)
    if faithful is not None and (outside := outside_figures(explained, seed, progress)) is not None:
        faithful["outside"] = outside
    if faithfulness and faithful is not None and faithful["n"] > faithful["n_zero"]:
        faithful |= further_figures(classifier, explained, progress)
    return Report(
        {
            "model": classifier.provenance(),
            "n": len(kept),
            "accuracy": round(float(right.float().mean()), 4),
            "accuracy_interval": [round(low, 4), round(high, 4)],
            "fitted_on": copies,
            "expected": _expected(classifier),
            "per_class": _per_class(classifier.classes, labels, predicted),
            "calibration_error": round(calibration_error(bins), 4),
            "reliability": [{k: round(v, 4) for k, v in vars(b).items()} for b in bins],
            "confusions": _confusions(classifier.classes, kept, labels, predicted),
            "confusion_matrix": _matrix(classifier.classes, labels, predicted),
            "trust": trust_figures(classifier, pooled, logits, labels, level=level, unknown=strangers),
            "faithfulness": faithful,
            "like": _like(explained),
            "words": _words(classifier, pooled, labels, store, seed),
            "notes": list(progress.notes),
            "failures": [f.to_json() for f in progress.failures],
        }
    )


def groups_of(samples: Sequence[Sample]) -> Tensor | None:
    """A number for each group the user named, and one for each picture of none; ``None`` where none is named."""
    if not any(s.group is not None for s in samples):
        return None
    number: dict[Any, int] = {}
    return torch.tensor(
        [number.setdefault(i if s.group is None else s.group, len(number)) for i, s in enumerate(samples)]
    )


def _expected(classifier: Classifier) -> dict[str, Any] | None:
    """What fitting had said; ``None`` where nothing was held out then."""
    names = ("held_out_accuracy", "held_out_interval", "n_held_out", "random_accuracy", "expected_range")
    found = {name: classifier.measures.get(name) for name in names}
    return None if found["held_out_accuracy"] is None else found


def look_at(
    classifier: Classifier,
    items: Sequence[Sample],
    store: FeatureStore | None,
    views: Views | None,
    progress: Progress,
) -> tuple[list[Sample], Tensor, Tensor, list[Judged]]:
    """Logits, pooled features, and what tells each again, of every picture that can be read."""
    request = EncodeRequest(miniatures=True) if views is None else EncodeRequest(miniatures=True, views=views)
    stream: Iterator[Encoded | Failure] = encode_stream(
        classifier.encoder, [s.source for s in items], store=store, request=request
    )
    kept, logits, pooled, files = [], [], [], []
    for sample, seen in progress.results(items, stream, "Looking"):
        with beside(classifier.encoder.engine.name), torch.no_grad():
            logits.append(classifier.head(seen.pooled).mean(0))
        kept.append(sample)
        assert seen.miniature is not None
        files.append(Judged(sample.image, seen.digest, seen.miniature))
        pooled.append(seen.pooled[0])
    if not kept:
        raise DataError(f"None of the {len(items)} pictures can be read; the first: {progress.failures[0].error}.")
    return kept, torch.stack(logits), torch.stack(pooled), files


def _explained(
    classifier: Classifier,
    samples: Sequence[Sample],
    store: FeatureStore | None,
    progress: Progress,
    seed: int,
    objects: MaskSource | None,
) -> list[Explanation]:
    stream = classifier.explain_all([s.source for s in samples], store=store, seed=seed, objects=objects)
    made = progress.track(stream, "Measuring explanations", len(samples))
    return [e for e in made if isinstance(e, Explanation)]


def _per_class(classes: Sequence[str], labels: Tensor, predicted: Tensor) -> list[dict[str, Any]]:
    rows = []
    for k in labels.unique().tolist():
        hits, n, named = (int(v.sum()) for v in ((labels == k) & (predicted == k), labels == k, predicted == k))
        figures = {"precision": hits / max(named, 1), "recall": hits / n, "f1": 2 * hits / (n + named)}
        rows.append({"label": classes[k], "n": n, **{name: round(v, 4) for name, v in figures.items()}})
    return rows


def _confusions(
    classes: Sequence[str], samples: Sequence[Sample], labels: Tensor, predicted: Tensor
) -> list[dict[str, Any]]:
    pairs: dict[tuple[int, int], list[str]] = defaultdict(list)
    for sample, true, guess in zip(samples, labels.tolist(), predicted.tolist(), strict=True):
        if true != guess:
            pairs[true, guess].append(sample.image)
    most = sorted(pairs.items(), key=lambda p: (-len(p[1]), p[0]))[:N_CONFUSIONS]
    return [{"true": classes[t], "predicted": classes[g], "n": len(e), "examples": e[:5]} for (t, g), e in most]


def _matrix(classes: Sequence[str], labels: Tensor, predicted: Tensor) -> dict[str, Any]:
    """Counts, rows true and columns predicted, over the classes that occur in either."""
    present = torch.cat([labels, predicted]).unique()
    n, rows, columns = len(present), torch.searchsorted(present, labels), torch.searchsorted(present, predicted)
    counts = torch.bincount(rows * n + columns, minlength=n * n).view(n, n)
    return {"labels": [classes[k] for k in present.tolist()], "counts": counts.tolist()}


def _like(explained: Sequence[Explanation]) -> dict[str, Any] | None:
    """How often the neighbours shown on these pictures carry the predicted class."""
    shown = [(n.label == e.prediction.label) for e in explained if isinstance(e.like, Like) for n in e.like.neighbours]
    chances = [e.like.chance for e in explained if isinstance(e.like, Like) and e.like.chance is not None]
    if not shown:
        return None
    chance = round(sum(chances) / len(chances), 4) if chances else None
    return {"held_out_precision": round(sum(shown) / len(shown), 4), "chance": chance}


def _words(
    classifier: Classifier, pooled: Tensor, labels: Tensor, store: FeatureStore | None, seed: int
) -> dict[str, Any] | None:
    """Accuracy of the words alone beside its controls: the bare names, and meaningless words in equal number."""
    words = classifier.words
    if words is None:
        return None
    held = HeldOut(pooled, labels)
    texts: dict[str, list[str]] = {c: [] for c in words.classes}
    for text, owner in zip(words.texts, words.owner.tolist(), strict=True):
        texts[words.classes[owner]].append(text)
    described = Descriptions({c: tuple(t) for c, t in texts.items()})

    def accuracy(control: Any) -> float:
        bank = WordBank.build(classifier.encoder, Descriptions(control), with_names=False, store=store)
        return words_alone(replace(classifier, words=bank), held)

    noise = [accuracy(random_words(described, seed + i)) for i in range(N_NOISE)]
    return {
        "accuracy": words_alone(classifier, held),
        "name_only": accuracy(name_only(described)),
        "random_words": round(sum(noise) / len(noise), 4),
        "n": len(labels),
    }
