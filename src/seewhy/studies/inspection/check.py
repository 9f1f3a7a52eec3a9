"""``seewhy check``: looks at labelled pictures once and says what is wrong with them, and why."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...encoders.base import Encoder
from ...encoders.stream import Encoded, EncodeRequest, encode_stream
from ...errors import DataError, ImageError
from ...pictures.images import read_picture
from ...pictures.samples import Sample, Samples, some
from ...progress import Progress
from ...report.blocks import Document, Section, Table, notes
from ...report.paging import Page
from ...results import restore
from ...spelling import nearest
from ...storage.features import FeatureStore
from ...storage.reading import json_value, read_text
from ...trust.measure import drawn_folds
from ...types import Failure, Transform
from ..outputs import CheckedOutput
from ..study import beside
from .faults import (
    FAR,
    Copy,
    HeldOutScores,
    LabelIssues,
    PixelFacts,
    find_copies,
    held_out_scores,
    joined,
    pixel_facts,
    pixel_faults,
    ranker,
    strangeness,
)

KINDS: Mapping[str, str] = {
    "class": "Label of no class",
    "contradiction": "Copies under two labels",
    "label": "Label likely wrong",
    "split": "Copy of a picture of another split",
    "copy": "Copy within the data",
    "outlier": "Unlike every class",
    "broken": "Cannot be read",
    "blank": "Blank",
    "dark": "Dark",
    "overexposed": "Overexposed",
    "blurred": "Blurred",
    "size": "Odd size",
    "shape": "Odd shape",
}
"""What is looked for, in the order in which it is gone through, and how it is said."""
COLUMNS = ("kind", "image", "label", "proposed", "doubt", "why", "with", "key")
NAME = "check.json"
_SMALL = Transform((128, 128), 128, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Like:
    """A picture that one is like, and the cosine of their features."""

    image: str
    label: str
    cosine: float


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one picture."""

    kind: str
    image: str
    label: str
    key: str
    doubt: float
    why: str
    proposed: str | None = None
    own: tuple[Like, ...] = ()
    other: tuple[Like, ...] = ()
    pictures: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        plain = {k: getattr(self, k) for k in ("kind", "image", "label", "key", "why", "proposed")}
        like = {name: [vars(one) for one in getattr(self, name)] for name in ("own", "other")}
        lists = {"with": list(self.pictures), "splits": list(self.splits)}
        return {**plain, "doubt": round(self.doubt, 4), **lists, "like": like}


@dataclass(frozen=True, repr=False)
class Checked(Page):
    """What is wrong with the pictures; ``read`` gives one for the page, by its name."""

    read: Callable[[str], np.ndarray | None] = field(default=lambda _name: None, compare=False)

    def document(self) -> Document:
        kinds: dict[str, list[Any]] = {}
        for one in self.data["findings"]:
            kinds.setdefault(one["kind"], []).append((one["image"], one["label"], one["proposed"], one["why"]))
        head = ("picture", "label", "proposed", "why")
        sections = [Section(KINDS[kind], [Table(head, rows)]) for kind, rows in kinds.items()]
        return Document("Pictures that are wrong", self.data["sentence"], [*sections, *notes(self.data["notes"])])

    def to_html(self) -> str:
        from ...report.overviews import check_context
        from ...report.page import render

        return render("check.html", None, **check_context(self.data, KINDS, self.read))

    def rows(self) -> list[list[Any]]:
        """Under :data:`COLUMNS`."""
        return [["|".join(f["with"]) if name == "with" else f[name] for name in COLUMNS] for f in self.data["findings"]]


def sentence(n: int, counts: Mapping[str, int]) -> str:
    found = [f"{KINDS[kind].lower()} {k}" for kind, k in counts.items() if k]
    total = sum(counts.values())
    if not found:
        return f"Of {n:,} pictures, none has anything wrong that is looked for."
    return f"Of {n:,} pictures, {total:,} finding{'s' if total > 1 else ''}: {', '.join(found)}."


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    place = {kind: i for i, kind in enumerate(KINDS)}
    return sorted(findings, key=lambda f: (place[f.kind], -f.doubt, f.image))


def digest_of(items: Sequence[Sample]) -> str:
    """By which a check knows its data again: the pictures' names, from where all lie, and labels, in their order."""
    names = [os.path.abspath(s.image) for s in items]
    root = os.path.commonpath(names) if names else ""
    rows = json.dumps([[os.path.relpath(name, root), s.label] for name, s in zip(names, items, strict=True)])
    return hashlib.sha256(rows.encode("ascii", "backslashreplace")).hexdigest()


def small_picture(name: str, transform: Transform = _SMALL) -> np.ndarray | None:
    """A picture for the page, cut to its middle; ``None`` where it cannot be read."""
    try:
        return read_picture(name, transform).pixels
    except ImageError:
        return None


def reader(encoder: Encoder) -> Callable[[str], np.ndarray | None]:
    """Pictures as the encoder sees them."""
    return partial(small_picture, transform=encoder.transform)


def read_check(folder: Path, data: Path, items: Sequence[Sample]) -> dict[str, Any]:
    """The document of ``seewhy check`` in a folder, if it is on these pictures with these labels."""
    path = folder / NAME
    try:
        check = json_value(read_text(path))
        restore(CheckedOutput, check, "it")
    except (OSError, ValueError, DataError) as error:
        why = str(error).partition(". ")[0] if isinstance(error, DataError) else repr(error)
        raise DataError(
            f"{path} cannot be read: {why}. What seewhy check -o wrote was expected. Check the data again."
        ) from error
    if check["digest"] != digest_of(items):
        raise DataError(
            f"{data} is not as it was at the check in {folder}: pictures or labels have changed. The same names and "
            f"labels were expected. Check it again with -o {folder}; what was decided there is kept."
        )
    return dict(check)


NEAREST = 3


@dataclass(frozen=True)
class Readable:
    """The pictures that could be read, and what is kept of each."""

    items: list[Sample] = field(default_factory=list)
    encoded: list[Encoded] = field(default_factory=list)
    facts: list[PixelFacts] = field(default_factory=list)

    def subset(self, places: Sequence[int]) -> Readable:
        items, encoded, facts = self.items, self.encoded, self.facts
        return Readable([items[i] for i in places], [encoded[i] for i in places], [facts[i] for i in places])

    def pooled(self) -> Float[Tensor, "n d"]:
        return torch.stack([one.pooled[0] for one in self.encoded])

    def finding(self, i: int, kind: str, doubt: float, why: str, **more: Any) -> Finding:
        sample = self.items[i]
        return Finding(kind, sample.image, sample.label, self.encoded[i].digest[:16], doubt, why, **more)


@dataclass(frozen=True)
class Check:
    """Look at pictures once, and find what is wrong with labels, copies, strangers and the pictures themselves.

    Costs one look at each picture and six linear fits on features. With ``by`` the labels are doubted by odds, by
    confident learning, by the cleanlab library, or by neighbours; docs/check.md has the figures of each.

    Args:
        by: method that doubts labels; a name of :data:`~seewhy.studies.inspection.faults.RANKERS`.
        seed: seed for the held-out parts.
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
        findings: list[Finding] = []
        own = _look(encoder, samples.items, store, progress, findings)
        other = Readable() if against is None else _look(encoder, against.items, store, progress, [])
        n, every = len(own.items), [*own.encoded, *other.encoded]
        if not n:
            raise DataError(
                f"None of the {len(samples)} pictures can be read. At least one was expected. Look at the files."
            )
        copies = find_copies(
            torch.stack([one.pooled[0] for one in every]),
            [one.miniature for one in every if one.miniature is not None],
            [one.digest for one in every], n, [s.split for s in (*own.items, *other.items)],
        )  # fmt: skip
        groups = joined(n, copies, [s.group for s in own.items])
        strange = {s.label for s in own.items if known is not None and s.label not in known}
        findings += _of_no_class(own, strange, known or ())
        findings += _of_copies(own, other, copies)
        labelled, scores = [i for i, s in enumerate(own.items) if s.label not in strange], None
        if len({own.items[i].label for i in labelled}) > 1:
            part = own.subset(labelled)
            classes = tuple(c for c in samples.classes if any(s.label == c for s in part.items))
            of = groups[labelled].unique(return_inverse=True)[1]
            scores = held_out_scores(encoder, part.items, part.encoded, classes, of, self.seed)
            told = {f.image for f in findings if f.kind == "contradiction"}
            findings += _of_labels(part, classes, scores, ranker(self.by)(scores), told)
            findings += _of_strangers(part, scores, self.seed)
        findings += [own.finding(i, kind, bad, why) for i, kind, bad, why in pixel_faults(own.facts)]
        return Checked(self._told(encoder, samples, n, scores, in_order(findings), progress), read=reader(encoder))

    def _told(
        self, encoder: Encoder, samples: Samples, n: int, scores: HeldOutScores | None, findings: Sequence[Finding],
        progress: Progress,
    ) -> dict[str, Any]:  # fmt: skip
        count = Counter(f.kind for f in findings)
        counts = {kind: count[kind] for kind in KINDS}
        across = Counter(tuple(sorted(f.splits)) for f in findings if f.splits)
        judged = 0 if scores is None else int(scores.judged.sum())
        told, none = beside(progress), [s.image for s in samples.items if s.split is None]
        if none and len(none) < len(samples.items):
            without = f"{len(none)} picture(s) are of no split, and copies of them count as within the data"
            told["notes"] = [f"{without}: {some(none, 3)}", *told["notes"]]
        return {
            "n": n, "sentence": sentence(len(samples), counts), "classes": list(samples.classes),
            "accuracy": None if scores is None or not judged else round(scores.accuracy, 4),
            "judged": judged, "digest": digest_of(samples.items), "counts": counts,
            "copies_across": [{"splits": list(pair), "n": times} for pair, times in sorted(across.items())],
            "findings": [f.to_json() for f in findings], "settings": {**asdict(self), "encoder": encoder.name},
            **told, "notes": [*samples.notes, *told["notes"]],
        }  # fmt: skip


def _look(
    encoder: Encoder, items: Sequence[Sample], store: FeatureStore | None, progress: Progress, failed: list[Finding]
) -> Readable:
    """Everything that is kept of the pictures; a broken one is told, and found to be broken."""
    found, request = Readable(), EncodeRequest(pictures=True, miniatures=True)
    stream = encode_stream(encoder, [s.source for s in items], store=store, request=request)
    for sample, one in zip(items, progress.track(stream, "Looking", len(items)), strict=True):
        if isinstance(one, Failure):
            progress.failed(one)
            why = f"It {one.error.removeprefix('It ').removesuffix('.')}."
            failed.append(Finding("broken", sample.image, sample.label, "", 1.0, why))
            continue
        assert one.picture is not None
        found.items.append(sample)
        found.encoded.append(replace(one, picture=None))
        found.facts.append(pixel_facts(one.picture.pixels, one.picture.original_size))
    return found


def _of_no_class(own: Readable, strange: set[str], known: Sequence[str]) -> Iterator[Finding]:
    proposed = {label: next(iter(nearest(label, known)), None) for label in strange}
    for i, s in enumerate(own.items):
        if s.label in strange:
            near = proposed[s.label]
            meant = f"; nearest by its letters is {near!r}" if near else ""
            why = f"Its label {s.label!r} is none of the model's {len(known)} classes{meant}."
            yield own.finding(i, "class", 1.0, why, proposed=near)


def _of_copies(own: Readable, other: Readable, copies: Sequence[Copy]) -> Iterator[Finding]:
    n, items = len(own.items), [*own.items, *other.items]
    for c in copies:
        first, second = items[c.first], items[c.second]
        how = "byte for byte" if c.same_bytes else f"by its looks (agreement {c.agreement:.2f})"
        across = c.second < n and None not in (first.split, second.split) and first.split != second.split
        if across:
            why = (
                f"It is of the split {second.split!r}, and {first.image} of {first.split!r}, the same picture {how}: "
                "what is measured on one flatters the other."
            )
            splits = (str(second.split), str(first.split))
            yield own.finding(c.second, "split", c.agreement, why, pictures=(first.image,), splits=splits)
        if c.second >= n:
            of = f", where it is labelled {second.label!r}" if second.label not in ("", first.label) else ""
            why = f"It is {second.image} of the other split, {how}{of}: what is measured on one flatters the other."
            yield own.finding(c.first, "split", c.agreement, why, pictures=(second.image,))
        elif first.label != second.label:
            for a, b, i in ((first, second, c.first), (second, first, c.second)):
                why = f"It is labelled {a.label!r}; {b.image}, the same picture {how}, is labelled {b.label!r}."
                yield own.finding(i, "contradiction", c.agreement, why, proposed=b.label, pictures=(b.image,))
        elif not across:
            why = f"It is {first.image} again, {how}."
            yield own.finding(c.second, "copy", c.agreement, why, pictures=(first.image,))


def _of_labels(
    part: Readable, classes: Sequence[str], scores: HeldOutScores, issues: LabelIssues, told: set[str]
) -> Iterator[Finding]:
    usual = scores.thresholds()
    for i in issues.flagged.nonzero()[:, 0].tolist():
        s, k, label = part.items[i], int(issues.proposed[i]), int(scores.labels[i])
        if s.image in told:
            continue
        p, mean = scores.probabilities[i], float(usual[k])
        own, other = (_nearest(part, scores, i, of) for of in (label, k))
        # A lone picture of a class is never held out.
        usually = (
            f"whose own pictures get {mean:.0%} on average" if mean <= 1 else "of which no picture could be held out"
        )
        near = ""
        if own and other:
            side = "nearer to" if other[0].cosine > own[0].cosine else "no nearer to"
            cosines = f"(cosine {other[0].cosine:.2f} against {own[0].cosine:.2f})"
            near = f"; it is {side} its likest picture there {cosines}"
        why = (
            f"Held out, it gets {float(p[label]):.0%} for its label {s.label!r} and {float(p[k]):.0%} for "
            f"{classes[k]!r}, {usually}{near}."
        )
        yield part.finding(i, "label", float(issues.doubt[i]), why, proposed=classes[k], own=own, other=other)


def _nearest(part: Readable, scores: HeldOutScores, i: int, label: int) -> tuple[Like, ...]:
    """The likest pictures of a label, which are no copies of it."""
    there = ((scores.labels == label) & (scores.groups != scores.groups[i])).nonzero()[:, 0]
    top = (scores.features[there] @ scores.features[i]).topk(min(NEAREST, len(there)))
    found = [(part.items[int(there[j])], value) for value, j in zip(top.values.tolist(), top.indices, strict=True)]
    return tuple(Like(s.image, s.label, round(value, 4)) for s, value in found)


def _of_strangers(part: Readable, scores: HeldOutScores, seed: int) -> Iterator[Finding]:
    folds = drawn_folds(scores.groups, seed)
    far = strangeness(part.pooled(), scores.labels, folds, scores.probabilities.shape[1])
    for i in (far > FAR).nonzero()[:, 0].tolist():
        value, own = float(far[i]), _nearest(part, scores, i, int(scores.labels[i]))
        likest = f" (the likest of its label has a cosine of {own[0].cosine:.2f})" if own else ""
        why = (
            f"It lies {value:.1f} robust standard deviations farther from the nearest class than the median picture "
            f"does{likest}; from {FAR:g} on it counts as a stranger."
        )
        yield part.finding(i, "outlier", 1 - FAR / value / 2, why, own=own)
