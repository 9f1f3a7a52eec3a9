"""The predictions for all labelled pictures, in columns that are filled in the background."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, Field
from torch import Tensor

from ...classifiers.base import Classifier
from ...classifiers.certainty import decide
from ...classifiers.known_pictures import too_high
from ...encoders.stream import Encoded, EncodeRequest, encode_stream
from ...errors import DataError, InputError
from ...explanation.prediction import Certainty, Prediction, Ranked
from ...language.annotation.labels import KEY
from ...language.annotation.records import OPEN
from ...pictures.samples import Sample, Samples
from ...spelling import nearest
from ...storage.features import FeatureStore
from ...studies.inspection.check import KINDS
from .tiles import Tiles, file_key, square
from .worker import IDLE, BusyError, Worker

CHUNK = 16
WAITING, READ, UNREADABLE = 0, 1, 2
STATES = ("waiting", "read", "unreadable")
VERDICTS: tuple[Certainty, ...] = get_args(Certainty)
SORTS = ("order", "label", "predicted", "score", "doubt", "likeness", "match")
Text = Annotated[str, Field(max_length=1000)]
Chance = Annotated[float, Field(ge=0, le=1)]
MOST_ROWS = 1000
"""Maximum number of rows in one answer."""

_logger = logging.getLogger(__name__)


def name_of(file: str) -> str:
    """Return the name of a file without its folders; bytes that are not UTF-8 are escaped."""
    return Path(file).name.encode("utf-8", "backslashreplace").decode("utf-8")


def with_unlabelled(data: Samples, others: Samples) -> Samples:
    """The labelled pictures, then the unlabelled ones; a file in both sets is labelled."""
    labelled = {os.path.abspath(s.image) for s in data.items}
    more = [replace(s, label="") for s in others.items if os.path.abspath(s.image) not in labelled]
    return replace(data, items=(*data.items, *more))


class Rows:
    """A table of predictions, which is filled in small batches at the lowest priority.

    A picture takes 70 bytes and its features in half precision; 50,000 pictures with 1,280 features take 130 MB.
    """

    def __init__(
        self,
        classifier: Classifier,
        samples: Samples,
        worker: Worker,
        store: FeatureStore | None,
        tiles: Tiles | None = None,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        samples.of(classifier.classes)  # refused where no label is one of the model's
        self.classifier = classifier
        self.items: Sequence[Sample] = samples.items
        self.digest = _digest(self.items)
        """An index means the same picture in another process if this is the same."""
        n = len(self.items)
        others = [c for c in samples.classes if c not in set(classifier.classes)]
        self.classes: tuple[str, ...] = (*classifier.classes, *others)
        """The classes of the model, followed by the unknown classes of the data."""
        number = {name: k for k, name in enumerate(self.classes)}
        self.label = np.array([number.get(s.label, -1) for s in self.items], np.int32)
        self.is_known = (self.label >= 0) & (self.label < len(classifier.classes))
        """Whether the picture's label is a class of the model."""
        self.state = np.zeros(n, np.uint8)
        self.predicted, self.second = np.full(n, -1, np.int32), np.full(n, -1, np.int32)
        """The likeliest class and the next likeliest."""
        self.verdict = np.zeros(n, np.uint8)
        columns = (np.full(n, np.nan, np.float32) for _ in range(5))
        self.score, self.second_score, self.probability, self.doubt, self.likeness = columns
        self.key = np.zeros(n, f"S{KEY}")
        self.findings = np.zeros(n, np.uint16)
        self.learnt = np.zeros(n, bool)
        """Whether the classifier was fitted on the picture or a copy of it."""
        self.features: Float[np.ndarray, "n d"] | None = None
        self.n_done = 0
        self.problem = ""
        self._worker, self._store, self.tiles, self._done = worker, store, tiles, done
        self.names = [name_of(s.image) for s in self.items]
        self._keys: list[bytes] = []
        self._titles: dict[int, str] = {}
        """The first line of each picture's card."""

    def start(self) -> None:
        """Start with the first batch; each batch queues the next one."""
        self._worker.do(self._piece, IDLE)

    @property
    def right(self) -> np.ndarray:
        """Mask of the pictures that are predicted correctly; false for pictures that are not encoded yet."""
        return (self.state == READ) & (self.predicted == self.label)

    @property
    def wrong(self) -> np.ndarray:
        return (self.state == READ) & (self.predicted != self.label) & self.is_known

    def fitted_on(self) -> dict[str, Any] | None:
        """Return how many labelled pictures the classifier was fitted on, and the accuracy on the others."""
        if self.classifier.known is None:
            return None
        judged = self.right | self.wrong
        n, fresh = int((judged & self.learnt).sum()), judged & ~self.learnt
        without = round(float(self.right[fresh].mean()), 4) if fresh.any() else None
        held_out = self.classifier.measures.get("held_out_accuracy")
        note = f"{too_high(f'{n:,} of these pictures', without, held_out)}." if n else ""
        return {"n": n, "accuracy_without": without, "held_out_accuracy": held_out, "sentence": note}

    def whole(self) -> np.ndarray:
        """Return the indices of the readable pictures; raise ``InputError`` until all pictures are predicted."""
        if left := len(self.items) - self.n_done:
            raise InputError(f"{left:,} pictures are not predicted yet. Wait until the grid shows all pictures.")
        if not len(index := (self.state == READ).nonzero()[0]):
            raise InputError("None of the pictures can be read. Give other pictures.")
        return index

    def pooled(self, index: np.ndarray) -> Float[Tensor, "m d"]:
        """Return the features of encoded pictures."""
        assert self.features is not None
        return torch.from_numpy(self.features[index]).float()

    def looked_at(self) -> tuple[np.ndarray, Float[Tensor, "n d"]]:
        """Return the indices and features of the encoded pictures whose label the model knows."""
        index = ((self.state == READ) & self.is_known).nonzero()[0]
        return index, self.pooled(index) if len(index) else torch.empty(0, 0)

    def read_check(self, findings: Sequence[Mapping[str, Any]]) -> None:
        """Add the findings of ``seewhy check``, by file name."""
        place = {s.image: i for i, s in enumerate(self.items)}
        bit = {kind: 1 << i for i, kind in enumerate(KINDS)}
        for one in findings:
            if (i := place.get(one["image"])) is not None:
                self.findings[i] |= bit[one["kind"]]

    def of_key(self, key: str, label: str) -> str | None:
        """Return the file of a picture with this key and label, or ``None``."""
        places = (self.key == key.encode("utf-8", "replace")).nonzero()[0].tolist()
        return next((self.items[i].image for i in places if self.items[i].label == label), None)

    def check_digest(self, digest: str) -> None:
        """Raise ``DataError`` if a client has its indices from other data; a client may leave out the digest."""
        if digest not in ("", self.digest):
            raise DataError(
                "The server was started again and the data have changed, so what is selected here may be other "
                "pictures. Reload the page. All decisions are kept."
            )

    def check_same(self, i: int, digest: str) -> None:
        """Raise ``DataError`` if a picture's file has changed since its prediction."""
        if self.state[i] == READ and self.key[i] != digest[:KEY].encode():
            raise DataError(
                f"{self.names[i]} has changed since the page was started. Its label and prediction belong to the "
                "earlier file. Start the page again; all decisions are kept."
            )

    def _piece(self) -> None:
        try:
            self._step()
        except BusyError:
            return  # the page is being closed
        except Exception:
            _logger.exception("predicting the labelled pictures stopped")
            self.problem = (
                "SeeWhy stopped predicting these pictures. The server's log says why. Fix the cause and "
                "start the page again."
            )

    def _step(self) -> None:
        start = self.n_done
        part = self.items[start : start + CHUNK]
        tiles, keys = self.tiles, [file_key(s.image) for s in part]
        stored = set() if tiles is None else tiles.known(keys)
        bare = [tiles is not None and key not in stored for key in keys]
        known = self.classifier.known
        known = known if known is not None and len(known.miniatures) else None
        request = EncodeRequest(
            pictures=lambda i: bare[i], miniatures=lambda digest: known is not None and digest not in known.by_digest
        )
        sources = [s.source for s in part]
        encoded = list(
            encode_stream(self.classifier.encoder, sources, store=self._store, batch_size=CHUNK, request=request)
        )
        fresh = [
            (k, square(e.picture.pixels))
            for k, e in zip(keys, encoded, strict=True)
            if isinstance(e, Encoded) and e.picture and k
        ]
        if tiles is not None and fresh:
            tiles.put(fresh)
        self._keys += keys
        self._note(start, encoded)
        self.n_done = start + len(part)
        if self.n_done < len(self.items):
            self._worker.do(self._piece, IDLE)
        else:
            self._done()

    def _note(self, start: int, encoded: Sequence[Any]) -> None:
        read = [(start + i, one) for i, one in enumerate(encoded) if isinstance(one, Encoded)]
        if read:
            self._predict(read)
        # Last, as readers in other threads take what is not waiting as whole.
        self.state[start : start + len(encoded)] = [READ if isinstance(one, Encoded) else UNREADABLE for one in encoded]

    def _predict(self, read: Sequence[tuple[int, Encoded]]) -> None:
        index = np.array([i for i, _ in read])
        pooled = torch.stack([one.pooled[0] for _, one in read])
        with torch.no_grad():
            logits = self.classifier.head(pooled)
        if (known := self.classifier.known) is not None:
            features = pooled if known.encoder == self.classifier.encoder.fingerprint else None
            twins = known.twins([one.digest for _, one in read], [one.miniature for _, one in read], features)
            self.learnt[index] = [twin is not None for twin in twins]
        top = logits.softmax(1).topk(min(2, logits.shape[1]))
        decisions = decide(self.classifier, pooled, logits.log_softmax(1))
        if self.features is None:
            self.features = np.zeros((len(self.items), pooled.shape[1]), np.float16)
        self.features[index] = pooled.numpy()
        self.predicted[index], self.second[index] = (top.indices[:, k].numpy() for k in (0, -1))
        self.score[index], self.second_score[index] = (top.values[:, k].numpy() for k in (0, -1))
        for (i, one), decision in zip(read, decisions, strict=True):
            self.key[i] = one.digest[:KEY].encode()
            first, second = (self.classes[int(column[i])] for column in (self.predicted, self.second))
            self._titles[i] = Prediction("", (Ranked(first, 0.0), Ranked(second, 0.0)), decision=decision).title
            if decision is None:
                self.doubt[i], self.verdict[i] = 1 - self.score[i], VERDICTS.index("not measured")
                continue
            self.verdict[i] = VERDICTS.index(decision.verdict)
            numbers = (decision.probability, decision.doubt, decision.fit)
            for column, value in zip((self.probability, self.doubt, self.likeness), numbers, strict=True):
                column[i] = np.nan if value is None else value
            if decision.doubt is None:
                self.doubt[i] = 1 - self.score[i]

    def tile_keys(self, index: Sequence[int]) -> list[bytes]:
        return [self._keys[i] if i < len(self._keys) else b"" for i in index]

    def tile(self, i: int) -> bytes:
        """Return the stored thumbnail of a picture as JPEG; empty if there is none."""
        return b"" if self.tiles is None else self.tiles.get(self.tile_keys([i]))[0]

    def to_json(self, index: Sequence[int], decided: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows of the given indices for the page."""
        kinds, rows = list(KINDS), []
        for i in index:
            key, label, predicted = self.key[i].decode(), int(self.label[i]), int(self.predicted[i])
            standing = decided.get(key, {})
            row = {
                "index": i, "image": self.names[i], "key": key, "state": STATES[self.state[i]],
                "label": self.classes[label] if label >= 0 else "",
                "predicted": self.classes[predicted] if predicted >= 0 else None, "title": self._titles.get(i),
                "right": bool(self.predicted[i] == label) if predicted >= 0 and label >= 0 else None,
                "verdict": VERDICTS[self.verdict[i]] if predicted >= 0 else None,
                "probability": number_or_none(self.probability[i]), "score": number_or_none(self.score[i]),
                "likeness": number_or_none(self.likeness[i]), "fitted_on": bool(self.learnt[i]),
                "findings": [kinds[b] for b in range(len(kinds)) if self.findings[i] >> b & 1],
                "decision": standing.get("decision", OPEN), "decided": standing.get("label", ""),
                "author": standing.get("author", ""), "number": standing.get("number", 0),
            }  # fmt: skip
            rows.append(row)
        return rows


def _digest(items: Sequence[Sample]) -> str:
    """Return a digest of the pictures' files and labels, in order."""
    digest = hashlib.sha256()
    for sample in items:
        digest.update(file_key(sample.image) + f"{sample.image}|{sample.label}|".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:KEY]


def number_or_none(value: np.floating[Any]) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


class View(BaseModel):
    """A filter and a sort order of the pictures, as in the address of the page.

    Attributes:
        label, predicted: class name.
        right: ``"right"`` or ``"wrong"``.
        verdict: certainty of the prediction.
        finding: a kind of :data:`~seewhy.studies.inspection.check.KINDS`.
        decision: decision of people, or ``"undecided"``.
        name: part of the file name.
        words: words by which pictures are sorted, best match first, if the encoder has a text encoder.
        least, most: range of the score of the predicted class.
        sort, descending: column of :data:`SORTS`, and direction.
    """

    label: Text = ""
    predicted: Text = ""
    right: Literal["", "right", "wrong"] = ""
    verdict: Text = ""
    finding: Text = ""
    decision: Text = ""
    name: Text = ""
    words: Text = ""
    least: Chance = 0.0
    most: Chance = 1.0
    sort: Text = "order"
    descending: bool = False

    def select(
        self, rows: Rows, decided: Mapping[str, Mapping[str, Any]], match: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the indices of the selected pictures, in order; ``match`` has the similarity of each to the words."""
        keep = np.ones(len(rows.items), bool)
        for name, column in (("label", rows.label), ("predicted", rows.predicted)):
            if asked := getattr(self, name):
                keep &= column == _class(rows, asked)
        if self.right:
            keep &= rows.right if self.right == "right" else rows.wrong
        if self.verdict:
            keep &= (rows.verdict == _place("verdict", self.verdict, VERDICTS)) & (rows.state == READ)
        if self.finding:
            keep &= (rows.findings >> _place("finding", self.finding, list(KINDS)) & 1).astype(bool)
        if self.name:
            keep &= np.char.find(np.char.lower(rows.names), self.name.lower()) >= 0
        if self.decision:
            standing = np.array([decided.get(k.decode(), {}).get("decision", OPEN) for k in rows.key])
            keep &= standing == self.decision
        if self.least > 0 or self.most < 1:
            keep &= (rows.score >= self.least) & (rows.score <= self.most)
        index = keep.nonzero()[0]
        by = "match" if match is not None and self.sort == "order" else self.sort
        return index[self._ordered(rows, by, match, index)]

    def _ordered(self, rows: Rows, by: str, match: np.ndarray | None, index: np.ndarray) -> np.ndarray:
        if by not in SORTS:
            raise DataError(f"The sort column must be one of {', '.join(SORTS)}, got {by!r}.")
        if by == "order":
            return np.arange(len(index))[:: -1 if self.descending else 1]
        columns = {
            "label": rows.label, "predicted": rows.predicted, "score": rows.score, "doubt": rows.doubt,
            "likeness": rows.likeness, "match": np.zeros(len(rows.items)) if match is None else -match,
        }  # fmt: skip
        values = columns[by][index].astype(np.float64)
        return np.argsort(-values if self.descending else values, kind="stable")  # NaN comes last either way


def _place(what: str, name: str, choices: Sequence[str]) -> int:
    if name not in choices:
        raise DataError(f"The {what} must be one of {', '.join(choices)}, got {name!r:.80}.")
    return choices.index(name)


def _class(rows: Rows, asked: str) -> int:
    if asked not in rows.classes:
        near = nearest(asked, rows.classes)
        meant = f"Did you mean {near[0]!r}?" if near else "Choose one of the list."
        raise DataError(f"No picture has the class {asked!r:.80}. {meant}")
    return rows.classes.index(asked)
