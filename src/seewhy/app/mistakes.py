"""What the classifier gets wrong on labelled pictures, found while nobody waits."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..classifiers.base import Classifier
from ..data import Sample, Samples
from ..errors import DataError
from ..store import FeatureStore
from ..types import Prediction
from .worker import IDLE, Worker

CHUNK = 16


@dataclass(frozen=True)
class Mistake:
    """One picture that was decided wrongly.

    Attributes:
        index: of the picture among those given; addresses name it by this number alone.
        name: of the file, without its folder.
        score: probability of the wrong class.
    """

    index: int
    name: str
    score: float


class Mistakes:
    """Goes through labelled pictures in small pieces, least urgent of all.

    Args:
        classifier: what decides.
        samples: labelled pictures.
        worker: the thread it runs in.
        store: where looks are found and kept; what an evaluation saw is not looked at again.

    Raises:
        DataError: no label is one of the classifier's classes.
    """

    def __init__(self, classifier: Classifier, samples: Samples, worker: Worker, store: FeatureStore | None) -> None:
        self.classifier = classifier
        self.items: tuple[Sample, ...] = tuple(s for s in samples.items if s.label in classifier.classes)
        self.n_strange = len(samples) - len(self.items)
        if not self.items:
            raise DataError(
                f"None of the labels ({', '.join(map(repr, samples.classes[:3]))}, …) is one of the classifier's "
                f"classes ({', '.join(map(repr, classifier.classes[:3]))}, …). Name them alike."
            )
        self.n_done = self.n_right = self.n_failed = 0
        self.problem = ""
        self._pairs: dict[tuple[str, str], list[Mistake]] = defaultdict(list)
        self._worker = worker
        self._store = store

    def start(self) -> None:
        """Begin; each piece asks for the next."""
        self._worker.do(self._piece, IDLE)

    def _piece(self) -> None:
        start = self.n_done
        part = self.items[start : start + CHUNK]
        try:
            results = list(self.classifier.predict_all([s.image for s in part], store=self._store, top=1))
        except Exception as error:
            self.problem = "Going through the pictures stopped; the server's log says why."
            raise error
        for index, (sample, result) in enumerate(zip(part, results, strict=True), start):
            self._note(index, sample, result if isinstance(result, Prediction) else None)
        self.n_done = start + len(part)
        if self.n_done < len(self.items):
            self._worker.do(self._piece, IDLE)

    def _note(self, index: int, sample: Sample, found: Prediction | None) -> None:
        if found is None:
            self.n_failed += 1
        elif found.label == sample.label:
            self.n_right += 1
        else:
            mistake = Mistake(index, Path(sample.image).name, found.score)
            self._pairs[sample.label, found.label].append(mistake)

    def to_json(self) -> dict[str, Any]:
        """So far: most frequent confusion first, and within it the most certain mistake."""
        pairs = sorted(self._pairs.items(), key=lambda pair: (-len(pair[1]), pair[0]))
        n_seen = self.n_done - self.n_failed
        return {
            "n": len(self.items),
            "done": self.n_done,
            "right": self.n_right,
            "accuracy": round(self.n_right / n_seen, 4) if n_seen else None,
            "failed": self.n_failed,
            "unknown_class": self.n_strange,
            "problem": self.problem or None,
            "confusions": [
                {
                    "true": true,
                    "predicted": predicted,
                    "n": len(found),
                    "pictures": [
                        {"image": m.name, "score": round(m.score, 4), "card": f"/sample/{m.index}"}
                        for m in sorted(found, key=lambda m: (-m.score, m.index))
                    ],
                }
                for (true, predicted), found in pairs
            ],
        }
