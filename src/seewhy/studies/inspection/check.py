"""``seewhy check``: looks at labelled pictures once and says what is wrong with them, and why."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...encoders.base import Encoder
from ...encoders.stream import Encoded, EncodeRequest, encode_stream
from ...errors import DataError, ImageError
from ...pictures.images import read_picture
from ...pictures.samples import Sample, Samples, some
from ...progress import Progress
from ...spelling import nearest
from ...storage.features import FeatureStore
from ...trust.measure import drawn_folds
from ...types import Failure
from .copies import Copy, find_copies, joined
from .findings import KINDS, Checked, Finding, Like, in_order, sentence
from .label_errors import HeldOutScores, LabelIssues, held_out_scores, ranker
from .outliers import FAR, strangeness
from .pixels import PixelFacts, pixel_facts, pixel_faults

NEAREST = 3


@dataclass(frozen=True)
class Seen:
    """The pictures that could be read."""

    items: list[Sample] = field(default_factory=list)
    looks: list[Encoded] = field(default_factory=list)
    facts: list[PixelFacts] = field(default_factory=list)

    def key(self, i: int) -> str:
        return self.looks[i].digest[:16]

    def miniatures(self) -> list[Tensor]:
        return [one.miniature for one in self.looks if one.miniature is not None]

    def pooled(self) -> Tensor:
        return torch.stack([one.pooled[0] for one in self.looks])


@dataclass(frozen=True)
class Check:
    """Look at pictures once, and find what is wrong with labels, copies, strangers and the pictures themselves.

    Costs one look at each picture and six linear fits on features. With ``by`` the labels are doubted by odds, by
    confident learning, by the cleanlab library, or by neighbours; docs/check.md has the figures of each.

    Args:
        by: how labels are doubted; a name of :data:`~seewhy.studies.inspection.label_errors.RANKERS`.
        seed: of the parts that are held out.
    """

    by: str = "odds"
    seed: int = 0

    def __post_init__(self) -> None:
        ranker(self.by)

    def run(
        self,
        encoder: Encoder,
        samples: Samples,
        *,
        known: Sequence[str] | None = None,
        against: Samples | None = None,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
    ) -> Checked:
        """Check labelled pictures."""
        progress = progress or Progress()
        failed: list[Finding] = []
        seen = _look(encoder, samples.items, store, progress, failed)
        other = Seen() if against is None else _look(encoder, against.items, store, progress, [])
        n = len(seen.items)
        if not n:
            raise DataError(
                f"None of the {len(samples)} pictures can be read. At least one was expected. Look at the files."
            )
        digests = [one.digest for one in (*seen.looks, *other.looks)]
        pooled = torch.cat([seen.pooled(), *([other.pooled()] if other.looks else [])])
        splits = [s.split for s in (*seen.items, *other.items)]
        copies = find_copies(pooled, [*seen.miniatures(), *other.miniatures()], digests, n, splits)
        groups = joined(n, copies, [s.group for s in seen.items])
        strange_classes = {s.label for s in seen.items if known is not None and s.label not in known}
        findings = [*failed, *_of_no_class(seen, strange_classes, known or ())]
        findings += _of_copies(seen, other, copies)
        own = [i for i, s in enumerate(seen.items) if s.label not in strange_classes]
        scores = None
        if len({seen.items[i].label for i in own}) > 1:
            part = Seen([seen.items[i] for i in own], [seen.looks[i] for i in own], [seen.facts[i] for i in own])
            classes = tuple(c for c in samples.classes if any(s.label == c for s in part.items))
            of = groups[own].unique(return_inverse=True)[1]
            scores = held_out_scores(encoder, part.items, part.looks, classes, of, self.seed)
            findings += _of_labels(part, classes, scores, ranker(self.by)(scores), copies_of=_twice(copies, seen))
            findings += _of_strangers(part, scores, self.seed)
        findings += [
            Finding(kind, seen.items[i].image, seen.items[i].label, seen.key(i), bad, why)
            for i, kind, bad, why in pixel_faults(seen.facts)
        ]
        return self._checked(encoder, samples, seen, scores, in_order(findings), progress)

    def _checked(
        self,
        encoder: Encoder,
        samples: Samples,
        seen: Seen,
        scores: HeldOutScores | None,
        findings: Sequence[Finding],
        progress: Progress,
    ) -> Checked:
        count = Counter(f.kind for f in findings)
        counts = {kind: count[kind] for kind in KINDS}
        judged = 0 if scores is None else int(scores.judged.sum())
        data = {
            "n": len(seen.items),
            "sentence": sentence(len(samples), counts),
            "classes": list(samples.classes),
            "accuracy": None if scores is None or not judged else round(scores.accuracy, 4),
            "judged": judged,
            "digest": digest_of(samples.items),
            "counts": counts,
            "copies_across": _across(findings),
            "findings": [f.to_json() for f in findings],
            "settings": {**asdict(self), "encoder": encoder.name},
            "notes": [*samples.notes, *_without_split(samples.items), *progress.notes],
            "failures": [{"image": f.image, "error": f.error} for f in progress.failures],
        }
        return Checked(data, reader(encoder))


def digest_of(items: Sequence[Sample]) -> str:
    """By which a check knows its data again: the pictures' names, from where all lie, and labels, in their order.

    >>> digest_of([Sample("a.png", "moss")]) == digest_of([Sample("a.png", "rust")])
    False
    """
    names = [os.path.abspath(s.image) for s in items]
    root = os.path.commonpath(names) if names else ""
    rows = json.dumps([[os.path.relpath(name, root), s.label] for name, s in zip(names, items, strict=True)])
    return hashlib.sha256(rows.encode("ascii", "backslashreplace")).hexdigest()


def reader(encoder: Encoder) -> Callable[[str], np.ndarray | None]:
    """Pictures as the encoder sees them; ``None`` for what cannot be read."""

    def read(name: str) -> np.ndarray | None:
        try:
            return read_picture(name, encoder.transform).pixels
        except ImageError:
            return None

    return read


def _look(
    encoder: Encoder, items: Sequence[Sample], store: FeatureStore | None, progress: Progress, failed: list[Finding]
) -> Seen:
    """Everything that is kept of the pictures; a broken one is told, and found to be broken."""
    seen = Seen()
    stream = encode_stream(
        encoder, [s.source for s in items], store=store, request=EncodeRequest(pictures=True, miniatures=True)
    )
    for sample, one in zip(items, progress.track(stream, "Looking", len(items)), strict=True):
        if isinstance(one, Failure):
            progress.failed(one)
            failed.append(Finding("broken", sample.image, sample.label, "", 1.0, f"It {_said(one.error)}."))
            continue
        assert one.picture is not None
        seen.items.append(sample)
        seen.looks.append(replace(one, picture=None))
        seen.facts.append(pixel_facts(one.picture.pixels, one.picture.original_size))
    return seen


def _said(error: str) -> str:
    return error.removeprefix("It ").removesuffix(".")


def _of_no_class(seen: Seen, strange: set[str], known: Sequence[str]) -> Iterator[Finding]:
    near_of = {label: nearest(label, known) for label in strange}
    for i, s in enumerate(seen.items):
        if s.label in strange:
            near = near_of[s.label]
            meant = f"; nearest by its letters is {near[0]!r}" if near else ""
            why = f"Its label {s.label!r} is none of the model's {len(known)} classes{meant}."
            yield Finding("class", s.image, s.label, seen.key(i), 1.0, why, near[0] if near else None)


def _of_copies(seen: Seen, other: Seen, copies: Sequence[Copy]) -> Iterator[Finding]:
    n, items = len(seen.items), [*seen.items, *other.items]
    for c in copies:
        first, second = items[c.first], items[c.second]
        how = "byte for byte" if c.same_bytes else f"by its looks (agreement {c.agreement:.2f})"
        across = c.second < n and None not in (first.split, second.split) and first.split != second.split
        if across:
            why = (
                f"It is of the split {second.split!r}, and {first.image} of {first.split!r}, the same picture {how}: "
                "what is measured on one flatters the other."
            )
            yield Finding(
                "split", second.image, second.label, seen.key(c.second), c.agreement, why, pictures=(first.image,),
                splits=(str(second.split), str(first.split)),
            )  # fmt: skip
        if c.second >= n:
            of = f", where it is labelled {second.label!r}" if second.label not in ("", first.label) else ""
            why = f"It is {second.image} of the other split, {how}{of}: what is measured on one flatters the other."
            yield Finding(
                "split", first.image, first.label, seen.key(c.first), c.agreement, why, pictures=(second.image,)
            )
        elif first.label != second.label:
            for a, b, i in ((first, second, c.first), (second, first, c.second)):
                why = f"It is labelled {a.label!r}; {b.image}, the same picture {how}, is labelled {b.label!r}."
                yield Finding(
                    "contradiction", a.image, a.label, seen.key(i), c.agreement, why, b.label, (), (), (b.image,)
                )
        elif not across:
            why = f"It is {first.image} again, {how}."
            key = seen.key(c.second)
            yield Finding("copy", second.image, second.label, key, c.agreement, why, pictures=(first.image,))


def _across(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """How many copies there are between which splits of the data."""
    count = Counter(tuple(sorted(f.splits)) for f in findings if f.splits)
    return [{"splits": list(pair), "n": n} for pair, n in sorted(count.items())]


def _without_split(items: Sequence[Sample]) -> list[str]:
    none = [s.image for s in items if s.split is None]
    if not none or len(none) == len(items):
        return []
    return [f"{len(none)} picture(s) are of no split, and copies of them count as within the data: {some(none, 3)}"]


def _twice(copies: Sequence[Copy], seen: Seen) -> set[str]:
    """Pictures that are told as a contradiction already."""
    n, items = len(seen.items), seen.items
    pairs = [c for c in copies if c.second < n and items[c.first].label != items[c.second].label]
    return {items[i].image for c in pairs for i in (c.first, c.second)}


def _of_labels(
    seen: Seen, classes: Sequence[str], scores: HeldOutScores, issues: LabelIssues, copies_of: set[str]
) -> Iterator[Finding]:
    usual = scores.thresholds()
    for i in issues.flagged.nonzero()[:, 0].tolist():
        s, k = seen.items[i], int(issues.proposed[i])
        if s.image in copies_of:
            continue
        p = scores.probabilities[i]
        own, other = (_nearest(seen, scores, i, label) for label in (int(scores.labels[i]), k))
        why = (
            f"Held out, it gets {float(p[scores.labels[i]]):.0%} for its label {s.label!r} and {float(p[k]):.0%} for "
            f"{classes[k]!r}, {_usually(float(usual[k]))}{_beside(own, other)}."
        )
        yield Finding(
            "label", s.image, s.label, seen.key(i), float(issues.doubt[i]), why, classes[k], tuple(own), tuple(other)
        )


def _usually(mean: float) -> str:
    """What a class gets from its own pictures, of which a lone one is never held out."""
    return f"whose own pictures get {mean:.0%} on average" if mean <= 1 else "of which no picture could be held out"


def _beside(own: Sequence[Like], other: Sequence[Like]) -> str:
    if not own or not other:
        return ""
    side = "nearer to" if other[0].cosine > own[0].cosine else "no nearer to"
    return f"; it is {side} its likest picture there (cosine {other[0].cosine:.2f} against {own[0].cosine:.2f})"


def _nearest(seen: Seen, scores: HeldOutScores, i: int, label: int) -> list[Like]:
    """The likest pictures of a label, which are no copies of it."""
    there = ((scores.labels == label) & (scores.groups != scores.groups[i])).nonzero()[:, 0]
    cosine = scores.features[there] @ scores.features[i]
    top = cosine.topk(min(NEAREST, len(there)))
    found = [(seen.items[int(there[j])], value) for value, j in zip(top.values.tolist(), top.indices, strict=True)]
    return [Like(s.image, s.label, round(value, 4)) for s, value in found]


def _of_strangers(seen: Seen, scores: HeldOutScores, seed: int) -> Iterator[Finding]:
    folds = drawn_folds(scores.groups, seed)
    far = strangeness(seen.pooled(), scores.labels, folds, scores.probabilities.shape[1])
    for i in (far > FAR).nonzero()[:, 0].tolist():
        s, value = seen.items[i], float(far[i])
        own = _nearest(seen, scores, i, int(scores.labels[i]))
        likest = f" (the likest of its label has a cosine of {own[0].cosine:.2f})" if own else ""
        why = (
            f"It lies {value:.1f} robust standard deviations farther from the nearest class than the median picture "
            f"does{likest}; from {FAR:g} on it counts as a stranger."
        )
        yield Finding("outlier", s.image, s.label, seen.key(i), 1 - FAR / value / 2, why, own=tuple(own))
