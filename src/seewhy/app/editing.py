"""Words that a reader changed, and what that does to one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..classifiers.base import Classifier
from ..classifiers.head import Projected
from ..classifiers.rewording import reworded, texts_of, words_decide
from ..descriptions.base import Descriptions
from ..errors import DataError
from ..store import FeatureStore

MOST_TEXTS = 50
MOST_SIGNS = 300


def with_texts(
    classifier: Classifier, changes: Mapping[str, Sequence[str]], store: FeatureStore | None = None
) -> Classifier:
    """The same classifier with other texts for some classes (:func:`seewhy.classifiers.rewording.reworded`).

    Args:
        classifier: with descriptions.
        changes: class → its new texts, all of them.
        store: where sentences are kept.

    Raises:
        DataError: there are no descriptions to change, no such class, or a class is left without texts, with too many
            or with too long ones.
    """
    if classifier.words is None:
        raise DataError("This classifier has no descriptions to edit. Start with --descriptions FILE.")
    for label in changes:
        classifier.index_of(label)
    wanted = Descriptions.of({**texts_of(classifier.words), **{k: list(v) for k, v in changes.items()}})
    for label in changes:
        _check(label, wanted.texts[label])
    return reworded(classifier, wanted, store)


def _check(label: str, texts: Sequence[str]) -> None:
    if len(texts) > MOST_TEXTS:
        raise DataError(f"{label!r} has {len(texts)} texts. At most {MOST_TEXTS} are taken. Leave some out.")
    longest = max(texts, key=len)
    if len(longest) > MOST_SIGNS:
        raise DataError(
            f"A text of {label!r} has {len(longest)} characters. At most {MOST_SIGNS} are taken. Shorten it."
        )


@dataclass(frozen=True)
class Moved:
    """What an edit did to one picture.

    Attributes:
        by_words: whether the words make the decision; else they are evidence and the scores are mean cosines.
        rows: class, score before, score after, the highest after first.
        before: the class chosen before.
        after: the class chosen now.
    """

    by_words: bool
    rows: tuple[tuple[str, float, float], ...]
    before: str
    after: str

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
    """How the words move the scores of one picture.

    Args:
        before: the classifier as it was given.
        after: with other words.
        pooled: the picture's features.
        labels: classes that are listed whatever they score.
        most: classes listed.
    """
    old, new = (_scores(c, pooled) for c in (before, after))
    ranked = new.argsort(descending=True, stable=True).tolist()
    asked = [before.index_of(label) for label in labels]
    shown = list(dict.fromkeys([*asked, int(old.argmax()), *ranked]))[:most]
    rows = sorted(((before.classes[i], float(old[i]), float(new[i])) for i in shown), key=lambda row: -row[2])
    return Moved(
        words_decide(before), tuple(rows), before.classes[int(old.argmax())], before.classes[int(new.argmax())]
    )


def _scores(classifier: Classifier, pooled: Float[Tensor, "1 d"]) -> Float[Tensor, " k"]:
    if words_decide(classifier):
        return classifier.head.probabilities(pooled)[0]
    assert classifier.words is not None
    return (Projected(classifier.encoder.text)(pooled) @ classifier.words.class_weight().T)[0]
