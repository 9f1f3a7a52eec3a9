"""Words that a reader changed, and what that does to one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ...classifiers.base import Classifier
from ...classifiers.words import measured_by, reworded, texts_of, words_decide
from ...descriptions.base import Change, Descriptions
from ...errors import DataError
from ...heads.head import Projected
from ...pictures.samples import Sample
from ...storage.features import FeatureStore
from ...studies.words_compared import WordsCompared

MOST_TEXTS = 50
MOST_SIGNS = 300
MOST_TOGETHER = 500
"""Texts of one edit."""


def with_texts(
    classifier: Classifier, changes: Mapping[str, Sequence[str]], store: FeatureStore | None = None
) -> Classifier:
    """The same classifier with other texts for some classes (:func:`seewhy.classifiers.words.reworded`)."""
    if classifier.words is None:
        raise DataError("This classifier has no descriptions to edit. Start with --descriptions FILE.")
    for label in changes:
        classifier.index_of(label)
    if (n := sum(map(len, changes.values()))) > MOST_TOGETHER:
        raise DataError(f"{n} texts came at once. At most {MOST_TOGETHER} are taken. Send fewer classes at a time.")
    wanted = Descriptions.of({**texts_of(classifier.words), **{k: list(v) for k, v in changes.items()}})
    for label in changes:
        texts = wanted.texts[label]
        if len(texts) > MOST_TEXTS:
            raise DataError(f"{label!r} has {len(texts)} texts. At most {MOST_TEXTS} are taken. Leave some out.")
        if (longest := max(map(len, texts))) > MOST_SIGNS:
            raise DataError(
                f"A text of {label!r} has {longest} characters. At most {MOST_SIGNS} are taken. Shorten it."
            )
    edited = reworded(classifier, wanted, store)
    if classifier.words.nameless is None or edited.held_out is None:
        return edited
    return measured_by(edited, edited.held_out, store)  # still without the classes' names


@dataclass(frozen=True)
class Moved:
    by_words: bool
    rows: tuple[tuple[str, float, float], ...]
    before: str
    after: str

    @property
    def bars(self) -> list[tuple[str, float, float, float, float, float]]:
        """The rows, each with where its tick, and its bar from where and how far, lies in 0…1."""
        values = [v for _, before, after in self.rows for v in (before, after)]
        low, high = min(0.0, *values), max(0.0, *values)
        span = (high - low) or 1.0
        return [
            (label, before, now, (before - low) / span, (min(0.0, now) - low) / span, abs(now) / span)
            for label, before, now in self.rows
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "score_is": "probability" if self.by_words else "mean cosine of the class's texts",
            "before": self.before,
            "after": self.after,
            "classes": [{"label": c, "before": round(b, 4), "after": round(a, 4)} for c, b, a in self.rows],
        }


def moved(
    before: Classifier, after: Classifier, pooled: Float[Tensor, "1 d"], labels: Sequence[str], most: int = 6
) -> Moved:
    old, new = (_scores(c, pooled) for c in (before, after))
    ranked = new.argsort(descending=True, stable=True).tolist()
    asked = [before.index_of(label) for label in labels]
    shown = list(dict.fromkeys([*asked, int(old.argmax()), *ranked]))[:most]
    rows = sorted(((before.classes[i], float(old[i]), float(new[i])) for i in shown), key=lambda row: -row[2])
    return Moved(
        words_decide(before), tuple(rows), before.classes[int(old.argmax())], before.classes[int(new.argmax())]
    )


def on_pictures(
    before: Classifier,
    after: Classifier,
    samples: Sequence[Sample],
    numbers: Sequence[int],
    pooled: Float[Tensor, "n d"],
) -> dict[str, Any]:
    """What other words change on labelled pictures: the study ``edit-words`` of this one edit."""
    # The study knows pictures by a name; here their numbers, as two files may have one name.
    numbered = [replace(sample, image=str(i)) for i, sample in zip(numbers, samples, strict=True)]
    names = {str(i): Path(sample.image).name for i, sample in zip(numbers, samples, strict=True)}
    found = WordsCompared()(before, after, changes_between(before, after), numbered, pooled)
    flips = [{**flip, "image": names[flip["image"]], "card": f"/sample/{flip['image']}"} for flip in found["flips"]]
    return {**found, "flips": flips}


def changes_between(before: Classifier, after: Classifier) -> list[Change]:
    """Sentences that went and came, class by class; one that went stands beside one that came, while there are any."""
    assert before.words is not None
    assert after.words is not None
    old, new = texts_of(before.words), texts_of(after.words)
    rows: list[Change] = []
    for label, texts in old.items():
        gone = [text for text in texts if text not in new[label]]
        come = [text for text in new[label] if text not in texts]
        rows += [Change(label, was or "", now) for was, now in zip_longest(gone, come)]
    return rows


def _scores(classifier: Classifier, pooled: Float[Tensor, "1 d"]) -> Float[Tensor, " k"]:
    if words_decide(classifier):
        return classifier.head.probabilities(pooled)[0]
    assert classifier.words is not None
    return (Projected(classifier.encoder.text)(pooled) @ classifier.words.class_weight().T)[0]
