"""The state of the web pages: the classifier, the worker, and the readers with their descriptions."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from torch import Tensor

from ...classifiers.base import Classifier, HeldOut
from ...classifiers.words import measured_by, reworded, texts_of, words_decide
from ...descriptions.base import Change, Descriptions
from ...encoders.stream import Encoded
from ...errors import DataError, ImageError, InputError
from ...evidence.explain import ExplainOptions, explain_seen, runner_up
from ...explanation.base import Explanation
from ...explanation.verdict import Missing
from ...heads.head import Projected
from ...language.annotation.labels import Corrections
from ...pictures.samples import Sample, Samples
from ...storage.features import FeatureStore
from ...studies.words_compared import compare_words
from ...types import Failure
from .rows import Rows, name_of
from .settings import Settings
from .tiles import Tiles
from .worker import LATER, SOON, Worker

T = TypeVar("T")
MOST_TEXTS = 50
MOST_SIGNS = 300
MOST_TOGETHER = 500
"""Maximum number of texts in one edit."""
N_EXPLANATIONS = 6


class Bounded(Generic[T]):
    """A thread-safe cache that drops the least recently used item."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._items: OrderedDict[object, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object) -> T | None:
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
            return self._items.get(key)

    def put(self, key: object, value: T) -> None:
        with self._lock:
            self._items[key] = value
            self._items.move_to_end(key)
            while len(self._items) > self.most:
                self._items.popitem(last=False)

    def values(self) -> list[T]:
        with self._lock:
            return list(self._items.values())

    def __len__(self) -> int:
        return len(self._items)


@dataclass(frozen=True)
class Shown:
    id: str
    seen: Encoded
    label: str | None = None
    explanations: Bounded[Explanation] = field(default_factory=lambda: Bounded(N_EXPLANATIONS))


@dataclass
class Reader:
    id: str
    recent: deque[str]
    edited: Classifier | None = None
    version: int = 0
    effect: dict[str, Any] | None = None
    """The effect of the edit on labelled pictures."""


class State:
    def __init__(
        self,
        classifier: Classifier,
        settings: Settings,
        data: Samples | None,
        store: FeatureStore | None,
        corrections: Corrections | None = None,
    ) -> None:
        self.classifier = classifier
        self.settings = settings
        self.store = store
        self.corrections = corrections
        self.pictures: Bounded[Shown] = Bounded(settings.n_pictures)
        self.readers: Bounded[Reader] = Bounded(settings.n_sessions)
        self.editors: Bounded[Reader] = Bounded(settings.n_sessions)
        self.worker = Worker(classifier.encoder, settings)
        self.measured = 0
        self.rows = None
        if data is not None:
            self.rows = Rows(classifier, data, self.worker, store, Tiles(), self._measure_words)

    def _measure_words(self) -> None:
        """Measure the descriptions of a classifier without held-out pictures, on the labelled pictures."""
        assert self.rows is not None
        numbers, pooled = self.rows.looked_at()
        if not len(numbers) or self.classifier.words is None or self.classifier.held_out is not None:
            return
        held = HeldOut(pooled, torch.from_numpy(self.rows.label[numbers]).long())
        self.classifier = measured_by(self.classifier, held, self.store)
        self.measured += 1
        for author in self.editors.values():
            if author.edited is not None:
                author.edited = measured_by(author.edited, held, self.store)

    async def compute(self, job: Callable[[], T], urgency: int = SOON) -> T:
        """Run a job in the computing thread, and return its result."""
        return await asyncio.wrap_future(self.worker.do(job, urgency))

    def reader(self, request: Request) -> Reader:
        """Return the reader of a request, by its cookie, or a new reader."""
        cookie = request.cookies.get(_cookie(request))
        known = self.editors.get(cookie) or self.readers.get(cookie)
        return known or Reader(secrets.token_urlsafe(16), deque(maxlen=self.settings.n_recent))

    def remember(self, reader: Reader) -> None:
        """Store a reader who has added a picture or edited descriptions."""
        (self.readers if reader.edited is None else self.editors).put(reader.id, reader)

    def recent(self, reader: Reader) -> list[Shown]:
        """Return the reader's latest pictures that are still stored, newest first."""
        return [shown for id in reader.recent if (shown := self.pictures.get(id)) is not None]

    async def see(self, source: bytes | str, name: str) -> Encoded:
        """Decode and encode a picture."""
        result = await self.worker.see(source, name)
        if isinstance(result, Failure):
            raise ImageError(name, result.error)
        return result

    async def see_sample(self, index: int) -> Encoded:
        """Encode one of the pictures of ``--data``, if it is still the one that was predicted."""
        path = self.sample(index).image
        try:
            encoded = await self.see(path, name_of(path))
        except ImageError as error:
            if os.path.exists(path):
                raise
            raise DataError(
                f"{name_of(path)} is no longer in its folder. Restore the file, or start the page again; all "
                "decisions are kept."
            ) from error
        assert self.rows is not None
        self.rows.check_same(index, encoded.digest)
        return encoded

    def keep(self, encoded: Encoded, reader: Reader, label: str | None = None) -> Shown:
        """Keep a picture for a reader, with its label if known."""
        shown = Shown(secrets.token_urlsafe(16), encoded, label)
        self.pictures.put(shown.id, shown)
        reader.recent.appendleft(shown.id)
        self.remember(reader)
        return shown

    def shown(self, id: str) -> Shown:
        shown = self.pictures.get(id)
        if shown is None:
            raise HTTPException(
                404, "This picture is no longer in the server's memory. Add it again on the start page."
            )
        return shown

    def of(self, reader: Reader) -> Classifier:
        """Return the classifier with the reader's descriptions."""
        return reader.edited or self.classifier

    async def explain(
        self,
        shown: Shown,
        reader: Reader,
        target: str | None = None,
        contrast: str | None = None,
        measure: bool = False,
    ) -> Explanation:
        """Return the explanation of a picture, computed once; faithfulness only if requested and allowed."""
        if target is not None and target == contrast:
            raise InputError(f"The class {target!r} cannot be compared with itself. Choose another class.")
        options = ExplainOptions(target=target, contrast=contrast, measure=measure and self.settings.measure)
        classifier = self.of(reader)
        key = (self.measured, (reader.id, reader.version) if reader.edited is not None else None, options)

        def make() -> Explanation:
            made = shown.explanations.get(key)
            if made is None:
                made = next(explain_seen(classifier, [shown.seen], options)).without_folders()
                shown.explanations.put(key, made)
            return made

        return await self.compute(make, LATER if options.measure else SOON)

    def take_words(self, reader: Reader, edited: Classifier | None) -> None:
        """Set the reader's descriptions; ``None`` restores the original descriptions."""
        reader.edited, reader.version, reader.effect = edited, reader.version + 1, None

    async def effect(self, reader: Reader) -> dict[str, Any]:
        """Return the effect of the reader's edit on the labelled pictures, or why it is unknown."""
        rows = self.rows
        if rows is None:
            return Missing(
                "There are no labelled pictures to compare on.", "Start the page with --data FOLDER."
            ).to_json()

        def make() -> dict[str, Any]:
            if reader.edited is None:
                return Missing("You have not edited any descriptions.", "Edit some on a card first.").to_json()
            numbers, pooled = rows.looked_at()
            if not len(numbers):
                return Missing(
                    "No labelled picture has been predicted yet.", "Reload this page in a few seconds."
                ).to_json()
            if reader.effect is None or reader.effect["n"] != len(numbers):
                samples = {i: rows.items[i] for i in numbers.tolist()}
                reader.effect = on_pictures(self.classifier, reader.edited, samples, pooled)
            return {**reader.effect, "fitted_on": rows.fitted_on()}

        return await self.compute(make)

    def sample(self, index: int) -> Sample:
        if self.rows is None or not 0 <= index < len(self.rows.items):
            raise HTTPException(
                404, "There is no picture with this number in --data. Choose one on the page of mistakes."
            )
        return self.rows.items[index]

    def bar(self, here: str) -> dict[str, Any]:
        browse = "" if self.rows is None else self.rows.digest
        return {"here": here, "browse": browse, "corrects": self.corrections is not None}

    def decided(self) -> dict[str, dict[str, Any]]:
        """Return the current decision on each picture, by key."""
        return {} if self.corrections is None else self.corrections.decisions.standing()

    def card_json(self, shown: Shown, e: Explanation, reader: Reader, measured: bool) -> dict[str, Any]:
        about = {"id": shown.id, "card": f"/card/{shown.id}", "measured": measured, "edited": reader.edited is not None}
        return {**about, "labelled": shown.label, **e.to_json()}


def signed(response: Response, request: Request, reader: Reader) -> Response:
    """Return the response with a cookie that identifies the reader."""
    response.set_cookie(_cookie(request), reader.id, httponly=True, samesite="strict")
    return response


def _cookie(request: Request) -> str:
    """Return a cookie name for this port, because browsers send cookies to all ports of a machine."""
    server = request.scope.get("server")
    return f"seewhy-{server[1] if server else 0}"


def classes_of(
    classifier: Classifier, seen: Encoded, target: str | None, contrast: str | None
) -> tuple[int, int, int | None]:
    """Return the indices of the explained class, the class that it is compared with, and the requested contrast."""
    probabilities = classifier.head.probabilities(seen.pooled[:1])[0]
    one = int(probabilities.argmax()) if target is None else classifier.index_of(target)
    against = None if contrast is None else classifier.index_of(contrast)
    return one, runner_up(probabilities, one) if against is None else against, against


def with_texts(
    classifier: Classifier, changes: Mapping[str, Sequence[str]], store: FeatureStore | None = None
) -> Classifier:
    """Return the classifier with other texts for some classes (:func:`seewhy.classifiers.words.reworded`)."""
    if classifier.words is None:
        raise DataError("This classifier has no descriptions to edit. Start the page with --descriptions FILE.")
    for label in changes:
        classifier.index_of(label)
    if (n := sum(map(len, changes.values()))) > MOST_TOGETHER:
        raise DataError(f"An edit may have at most {MOST_TOGETHER} texts, got {n}. Edit fewer classes at a time.")
    wanted = Descriptions.of({**texts_of(classifier.words), **{k: list(v) for k, v in changes.items()}})
    for label in changes:
        texts = wanted.texts[label]
        if len(texts) > MOST_TEXTS:
            raise DataError(f"A class may have at most {MOST_TEXTS} texts, got {len(texts)} for {label!r}.")
        if (longest := max(map(len, texts))) > MOST_SIGNS:
            raise DataError(f"A text may have at most {MOST_SIGNS} characters, got {longest} for a text of {label!r}.")
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
        """Return each table row with the position of its tick and the start and length of its bar, from 0 to 1."""
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
    was, now = (before.classes[int(scores.argmax())] for scores in (old, new))
    return Moved(words_decide(before), tuple(rows), was, now)


def on_pictures(
    before: Classifier, after: Classifier, samples: Mapping[int, Sample], pooled: Float[Tensor, "n d"]
) -> dict[str, Any]:
    """Measure the effect of edited descriptions on labelled pictures."""
    # The study identifies pictures by name; two files may share one, so their numbers are used.
    numbered = [replace(sample, image=str(i)) for i, sample in samples.items()]
    names = {str(i): name_of(sample.image) for i, sample in samples.items()}
    found = compare_words(before, after, changes_between(before, after), numbered, pooled)
    flips = [{**flip, "image": names[flip["image"]], "card": f"/sample/{flip['image']}"} for flip in found["flips"]]
    return {**found, "flips": flips}


def changes_between(before: Classifier, after: Classifier) -> list[Change]:
    """Return the removed and added sentences of each class, in pairs as far as possible."""
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
