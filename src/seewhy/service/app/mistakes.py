"""The classifier's mistakes on labelled pictures, found while no reader waits."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ...classifiers.base import Classifier
from ...encoders.stream import Encoded, encode_stream
from ...explanation.result import HIDDEN, Json, Result
from ...language.annotation.labels import KEY
from ...pictures.samples import Sample, Samples
from ...storage.features import FeatureStore
from .base import paged
from .worker import IDLE, BusyError, Worker

CHUNK = 16
PAIRS_A_PAGE = 20
PICTURES_A_PAGE = 48

_logger = logging.getLogger(__name__)

Order = Literal["pairs", "surest", "least_sure"]


@dataclass(frozen=True)
class Mistake(Result):
    computed: ClassVar = ("doubt", "card")

    index: Annotated[int, HIDDEN]
    name: Annotated[str, Json("image")]
    true: str
    predicted: str
    score: float
    probability: float | None
    key: str
    measured_doubt: Annotated[float | None, HIDDEN] = None

    @property
    def doubt(self) -> float:
        return 1 - self.score if self.measured_doubt is None else self.measured_doubt

    @property
    def card(self) -> str:
        return f"/sample/{self.index}"


@dataclass(frozen=True)
class Listing:
    true: str | None = None
    predicted: str | None = None
    order: Order = "pairs"
    page: int = 1

    def takes(self, mistake: Mistake) -> bool:
        return self.true in (None, mistake.true) and self.predicted in (None, mistake.predicted)


class Mistakes:
    """Predicts labelled pictures in small batches, with the lowest priority."""

    def __init__(
        self,
        classifier: Classifier,
        samples: Samples,
        worker: Worker,
        store: FeatureStore | None,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        self.classifier = classifier
        self.items, _ = samples.of(classifier.classes)
        self.n_strange = len(samples) - len(self.items)
        known = set(classifier.classes)
        self.labels: tuple[str, ...] = tuple(c for c in samples.classes if c in known)
        self.n_done = self.n_right = self.n_failed = 0
        self.problem = ""
        self.found: list[Mistake] = []
        self._looked: list[tuple[int, Tensor]] = []
        self._worker = worker
        self._store = store
        self._done = done

    def start(self) -> None:
        """Start; each batch queues the next."""
        self._worker.do(self._piece, IDLE)

    def looked_at(self) -> tuple[list[int], Float[Tensor, "n d"] | None]:
        """Return positions and features of the pictures encoded so far, if there are descriptions to edit."""
        seen = self._looked[:]
        return [i for i, _ in seen], torch.cat([pooled for _, pooled in seen]) if seen else None

    def image_of(self, key: str, label: str) -> str | None:
        """Return the file of the mistake with this key and label, if any."""
        return next((self.items[m.index].image for m in self.found[:] if (m.key, m.true) == (key, label)), None)

    def _piece(self) -> None:
        """One step. Nobody waits for it, so it records its own errors."""
        try:
            self._step()
        except BusyError:
            return  # the page is being closed
        except Exception:
            _logger.exception("predicting the labelled pictures stopped")
            self.problem = (
                "SeeWhy stopped predicting these pictures. The server's log says why. "
                "Mend the cause and start the page again."
            )

    def _step(self) -> None:
        start = self.n_done
        part = self.items[start : start + CHUNK]
        encoder, names = self.classifier.encoder, [sample.image for sample in part]
        results = list(encode_stream(encoder, names, store=self._store, batch_size=CHUNK))
        for index, (sample, result) in enumerate(zip(part, results, strict=True), start):
            self._note(index, sample, result if isinstance(result, Encoded) else None)
        self.n_done = start + len(part)
        if self.n_done < len(self.items):
            self._worker.do(self._piece, IDLE)
        else:
            self._done()

    def _note(self, index: int, sample: Sample, seen: Encoded | None) -> None:
        if seen is None:
            self.n_failed += 1
            return
        if self.classifier.words is not None:
            self._looked.append((index, seen.pooled[:1]))
        p = self.classifier.head.probabilities(seen.pooled[:1])[0]
        top = self.classifier.prediction(seen.name, p, 1, seen.pooled[0])
        if top.label == sample.label:
            self.n_right += 1
        else:
            doubt = None if top.decision is None else top.decision.doubt
            name, key = Path(sample.image).name, seen.digest[:KEY]
            self.found.append(Mistake(index, name, sample.label, top.label, top.score, top.probability, key, doubt))

    def to_json(self, listing: Listing | None = None) -> dict[str, Any]:
        listing = listing or Listing()
        for label in (listing.true, listing.predicted):
            if label is not None:
                self.classifier.index_of(label)
        found = sorted(filter(listing.takes, self.found[:]), key=lambda m: (m.doubt, m.index))
        if listing.order == "pairs":
            page, pages, pairs = paged(_by_pair(found), listing.page, PAIRS_A_PAGE)
            listed: dict[str, Any] = {"confusions": pairs, "pictures": []}
        else:
            ordered = found if listing.order == "surest" else found[::-1]
            page, pages, one_by_one = paged(ordered, listing.page, PICTURES_A_PAGE)
            listed = {"confusions": [], "pictures": [m.to_json() for m in one_by_one]}
        n_seen = self.n_done - self.n_failed
        return {
            "n": len(self.items),
            "done": self.n_done,
            "right": self.n_right,
            "accuracy": round(self.n_right / n_seen, 4) if n_seen else None,
            "failed": self.n_failed,
            "unknown_class": self.n_strange,
            "problem": self.problem or None,
            "found": len(found),
            "order": listing.order,
            "page": page,
            "pages": pages,
            **listed,
        }


def _by_pair(found: Sequence[Mistake]) -> list[dict[str, Any]]:
    """The most frequent confusion first, and within it the most certain mistake."""
    groups: dict[tuple[str, str], list[Mistake]] = defaultdict(list)
    for mistake in found:
        groups[mistake.true, mistake.predicted].append(mistake)
    return [
        {"true": true, "predicted": predicted, "n": len(mistakes), "pictures": [m.to_json() for m in mistakes]}
        for (true, predicted), mistakes in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    ]
