"""Check labelled pictures for wrong labels, duplicates and faulty pictures (``seewhy check``)."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ... import threads
from ...classifiers.encoded_set import EncodedSet
from ...encoders.base import Encoder
from ...encoders.stream import Encoded, EncodeRequest, encode_stream
from ...errors import DataError
from ...pictures.answers import Answers
from ...pictures.images import pixels_of
from ...pictures.samples import Sample, Samples, some
from ...pictures.sources import natural_key
from ...printable import percent
from ...progress import Progress, shown
from ...report.blocks import Document, Facts, Note, Section, notes
from ...report.paging import Page
from ...results import restore
from ...spelling import nearest
from ...storage.features import FeatureStore
from ...storage.reading import json_value, read_text
from ...trust.measure import drawn_folds
from ...types import Failure, Transform
from ..outputs import CheckedOutput, Finding, Like, Likes
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
    same_files,
    strangeness,
)


class Kind(NamedTuple):
    name: str
    todo: str


_AGAIN = "Replace it. Keep it only if the pictures that you want to recognise look like this too."
KINDS: Mapping[str, Kind] = {
    "class": Kind("Unknown label", "Change the label, or leave the picture out."),
    "contradiction": Kind("Copies under two labels", "One of the two labels is wrong. Change it, or delete one copy."),
    "label": Kind(
        "Label likely wrong", "Look at each picture, because the model may be wrong. Change the label or keep it."
    ),
    "split": Kind("Copy in another split", "Keep it in one split only; otherwise test results are too good."),
    "copy": Kind("Copy of another picture", "Delete one of the two, because copies count twice."),
    "outlier": Kind(
        "Unlike every class", "Delete it if it shows none of your classes. Otherwise, add more pictures like it."
    ),
    "broken": Kind("Cannot be read", "Replace the file, or delete it."),
    "blank": Kind("Blank", "Replace or delete it."),
    "dark": Kind("Dark", _AGAIN),
    "overexposed": Kind("Overexposed", _AGAIN),
    "blurred": Kind("Blurred", _AGAIN),
    "size": Kind("Odd size", "Check that it is the original and not a thumbnail."),
    "shape": Kind("Odd shape", "Check that it was not stretched or cropped by mistake."),
}
"""Kinds of findings: name, and what to do."""
COLUMNS = ("kind", "image", "label", "proposed", "doubt", "why", "with", "key", "figures")
NAME = "check.json"
small_picture = partial(pixels_of, transform=Transform((128, 128), 128, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
"""Returns a picture for the page by its name, or ``None``."""


@dataclass(frozen=True, repr=False)
class Checked(Page):
    """Result of a check; ``read`` loads a picture by its name."""

    read: Callable[[str], np.ndarray | None] = field(default=lambda _name: None, compare=False)

    def document(self) -> Document:
        kinds: dict[str, dict[str, str]] = {}
        for one in self.data["findings"]:
            rows = kinds.setdefault(one["kind"], {})
            rows[one["image"]] = " ".join(filter(None, (rows.get(one["image"]), one["why"])))
        sections = [Section(KINDS[k].name, [Note(KINDS[k].todo), Facts(rows)]) for k, rows in kinds.items()]
        return Document("Data check", self.data["sentence"], [*sections, *notes(self.data["notes"], "Notes")])

    def to_html(self) -> str:
        from ...report.overviews import check_context
        from ...report.page import render

        return render("check.html", None, **check_context(self.data, KINDS, self.read))


def rows_of(findings: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Return one row per finding, with the columns :data:`COLUMNS`."""
    return [["|".join(f["with"]) if name == "with" else f[name] for name in COLUMNS] for f in findings]


def sentence(n: int, counts: Mapping[str, int]) -> str:
    found = [f"{KINDS[kind].name.lower()} ({k:,})" for kind, k in counts.items() if k]
    total, pictures = sum(counts.values()), f"{n:,} picture{'s' * (n != 1)}"
    if not found:
        return f"No problems found in {pictures}."
    return f"{total:,} finding{'s' * (total > 1)} in {pictures}: {', '.join(found)}."


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    place = {kind: i for i, kind in enumerate(KINDS)}
    return sorted(findings, key=lambda f: (place[f.kind], -f.doubt, f.image))


def digest_of(items: Sequence[Sample]) -> str:
    """Return a digest of the relative names and labels of the pictures."""
    names = [os.path.abspath(s.image) for s in items]
    root = os.path.commonpath(names) if names else ""
    rows = json.dumps([[os.path.relpath(name, root), s.label] for name, s in zip(names, items, strict=True)])
    return hashlib.sha256(rows.encode("ascii", "backslashreplace")).hexdigest()


def read_check(folder: Path, data: Path, items: Sequence[Sample]) -> dict[str, Any]:
    """Read the check in a folder, if it is of these pictures and labels."""
    path = folder / NAME
    try:
        check = json_value(read_text(path))
        restore(CheckedOutput, check, "it")
    except (OSError, ValueError, DataError) as error:
        why = str(error).partition(". ")[0] if isinstance(error, DataError) else repr(error)
        raise DataError(
            f"{path} is not a valid file of seewhy check: {why}. Run seewhy check {data} -o {folder}."
        ) from error
    if check["digest"] != digest_of(items):
        raise DataError(
            f"{data} has changed since the check in {folder}. Run seewhy check {data} -o {folder} again; your "
            "decisions are kept."
        )
    return dict(check)


NEAREST = 3
EARLY = 10.0
"""Seconds between early findings while the pictures are read."""


@dataclass(frozen=True)
class Check:
    """A check that finds wrong labels, duplicates, pictures unlike every class, and faulty pictures.

    The check takes a forward pass per picture and six linear fits on features. docs/measured.md compares the rules of
    ``by``.

    Args:
        by: rule for doubtful labels: ``odds``, ``confident`` (confident learning), ``cleanlab`` (the library) or
            ``neighbours``.
        seed: seed of the cross-validation folds.
    """

    by: str = "odds"
    seed: int = 0

    def __post_init__(self) -> None:
        ranker(self.by)

    @shown("Looking for wrong labels and copies")
    def run(
        self,
        encoder: Encoder,
        samples: Samples,
        *,
        known: Sequence[str] | None = None,
        answers: Answers | None = None,
        against: Samples | None = None,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
        early: Callable[[Sequence[Finding]], None] = lambda _findings: None,
    ) -> Checked:
        """Check labelled pictures.

        Args:
            encoder: encoder of the pictures.
            samples: labelled pictures.
            known: classes of a model; other labels are findings.
            answers: answers of these pictures, in place of their labels; each decision is checked on its own.
            against: pictures of another split, among which copies are searched.
            store: cache of features.
            progress: progress reporter.
            early: called with all findings so far, while the check goes on: broken pictures, equal files and faulty
                pictures first, then copies, then labels.
        """
        progress = progress or Progress()
        findings: list[Finding] = []
        own, facts = _look(encoder, samples.items, store, progress, findings, early)
        findings += [_finding(own, i, kind, bad, why) for i, kind, bad, why in pixel_faults(facts)]
        early(in_order([*findings, *_of_equal_files(own)]))
        other = EncodedSet([], []) if against is None else _look(encoder, against.items, store, progress, [])[0]
        n, every = len(own.items), [*own.encoded, *other.encoded]
        if not n:
            raise DataError(f"None of the {len(samples)} pictures can be read. The first is {samples.items[0].image}.")
        copies = find_copies(
            torch.stack([one.pooled[0] for one in every]),
            [one.miniature for one in every if one.miniature is not None],
            [one.digest for one in every], n, [s.split for s in (*own.items, *other.items)], progress,
        )  # fmt: skip
        groups = joined(n, copies, [s.group for s in own.items])
        strange = {s.label for s in own.items if known is not None and s.label not in known}
        findings += _of_no_class(own, strange, known or ())
        findings += _of_copies(own, other, copies)
        early(in_order(findings))
        told, each = {f.image for f in findings if f.kind == "contradiction"}, list[HeldOutScores]()
        for labels in _decisions(own, strange, answers):
            index = [i for i, label in enumerate(labels) if label]
            if len(classes := tuple(sorted({*labels} - {""}, key=natural_key))) < 2:
                continue
            part = own.subset(index)
            part = replace(part, items=[replace(s, label=labels[i]) for i, s in zip(index, part.items, strict=True)])
            of = groups[index].unique(return_inverse=True)[1]
            scores = held_out_scores(encoder, part.items, part.encoded, classes, of, self.seed)
            findings += _of_labels(part, classes, scores, ranker(self.by)(scores), told)
            findings += _of_strangers(part, scores, self.seed) if answers is None else ()
            each.append(scores)
        data = self._told(encoder, samples, n, each, in_order(findings), progress)
        return Checked(data, partial(pixels_of, transform=encoder.transform))

    def _told(
        self, encoder: Encoder, samples: Samples, n: int, each: Sequence[HeldOutScores], findings: Sequence[Finding],
        progress: Progress,
    ) -> dict[str, Any]:  # fmt: skip
        count = Counter(f.kind for f in findings)
        counts = {kind: count[kind] for kind in KINDS}
        across = Counter(tuple(sorted(f.splits)) for f in findings if f.splits)
        judged = sum(int(scores.judged.sum()) for scores in each)
        right = sum(scores.accuracy * int(scores.judged.sum()) for scores in each if scores.judged.any())
        told, none = beside(progress), [s.image for s in samples.items if s.split is None]
        if not judged:
            told["notes"].append(
                "No label was checked. This needs at least two classes, one of them with two pictures."
            )
        if none and len(none) < len(samples.items):
            without = f"{len(none)} picture(s) have no split, so their copies are not reported as copies across splits"
            told["notes"] = [f"{without}: {some(none, 3)}", *told["notes"]]
        return {
            "n": n, "sentence": sentence(len(samples), counts), "classes": list(samples.classes),
            "accuracy": round(right / judged, 4) if judged else None,
            "judged": judged, "digest": digest_of(samples.items), "counts": counts,
            "copies_across": [{"splits": list(pair), "n": times} for pair, times in sorted(across.items())],
            "findings": [f.to_json() for f in findings], "settings": {**asdict(self), "encoder": encoder.name},
            **told, "notes": [*samples.notes, *told["notes"]],
        }  # fmt: skip


def _decisions(own: EncodedSet, strange: set[str], answers: Answers | None) -> Iterator[list[str]]:
    """Yield the labels to check, or the answers of each decision; empty where unknown."""
    if answers is None:
        yield [s.label if s.label not in strange else "" for s in own.items]
        return
    for name in answers.given:
        known = {s.image: s.label for s in answers.of(name).items}
        yield [known.get(s.image, "") for s in own.items]


def _look(
    encoder: Encoder, items: Sequence[Sample], store: FeatureStore | None, progress: Progress, failed: list[Finding],
    early: Callable[[Sequence[Finding]], None] | None = None,
) -> tuple[EncodedSet, list[PixelFacts]]:  # fmt: skip
    """Encode the pictures, and measure their pixels; an unreadable picture becomes a finding."""
    seen: list[Sample] = []
    encoded: list[Encoded] = []
    facts: list[PixelFacts] = []
    request, last = EncodeRequest(pictures=True, miniatures=True), time.monotonic()
    stream = encode_stream(encoder, [s.source for s in items], store=store, request=request)
    for sample, one in zip(items, progress.track(stream, "Looking at pictures", len(items)), strict=True):
        if early is not None and time.monotonic() - last > EARLY:
            early(in_order([*failed, *_of_equal_files(EncodedSet(seen, encoded))]))
            last = time.monotonic()
        if isinstance(one, Failure):
            progress.failed(one)
            why = f"It {one.error.removeprefix('It ').removesuffix('.')}."
            failed.append(Finding("broken", sample.image, sample.label, "", why))
            continue
        assert one.picture is not None
        seen.append(sample)
        encoded.append(replace(one, picture=None))
        with threads.beside(""):
            facts.append(pixel_facts(one.picture.pixels, one.picture.original_size))
    return EncodedSet(seen, encoded), facts


def _finding(own: EncodedSet, i: int, kind: str, doubt: float, why: str, **more: Any) -> Finding:
    sample = own.items[i]
    return Finding(kind, sample.image, sample.label, own.encoded[i].digest[:16], why, doubt=doubt, **more)


def _of_equal_files(own: EncodedSet) -> Iterator[Finding]:
    copies = same_files(own.digests, len(own), [s.split for s in own.items])
    return _of_copies(own, EncodedSet([], []), copies)


def _of_no_class(own: EncodedSet, strange: set[str], known: Sequence[str]) -> Iterator[Finding]:
    proposed = {label: next(iter(nearest(label, known)), None) for label in strange}
    for i, s in enumerate(own.items):
        if s.label in strange:
            near = proposed[s.label]
            meant = f" Did you mean {near!r}?" if near else ""
            why = f"The label {s.label!r} is not one of the model's {len(known)} classes.{meant}"
            yield _finding(own, i, "class", 1.0, why, proposed=near)


def _of_copies(own: EncodedSet, other: EncodedSet, copies: Sequence[Copy]) -> Iterator[Finding]:
    n, items = len(own.items), [*own.items, *other.items]
    for c in copies:
        first, second = items[c.first], items[c.second]
        how = "same file" if c.same_bytes else f"agreement {c.agreement:.2f} of 1"
        across = c.second < n and None not in (first.split, second.split) and first.split != second.split
        if across:
            why = (
                f"It is in the split {second.split!r}, and its copy {first.image} is in the split {first.split!r} "
                f"({how})."
            )
            splits = (str(second.split), str(first.split))
            yield _finding(own, c.second, "split", c.agreement, why, pictures=(first.image,), splits=splits)
        if c.second >= n:
            of = f", labelled {second.label!r}" if second.label not in ("", first.label) else ""
            why = f"A copy of it, {second.image}, is in the other split{of} ({how})."
            yield _finding(own, c.first, "split", c.agreement, why, pictures=(second.image,))
        elif first.label != second.label:
            for a, b, i in ((first, second, c.first), (second, first, c.second)):
                why = f"It is labelled {a.label!r}, but its copy {b.image} is labelled {b.label!r} ({how})."
                yield _finding(own, i, "contradiction", c.agreement, why, proposed=b.label, pictures=(b.image,))
        elif not across:
            why = f"It is a copy of {first.image} ({how})."
            yield _finding(own, c.second, "copy", c.agreement, why, pictures=(first.image,))


def _of_labels(
    part: EncodedSet, classes: Sequence[str], scores: HeldOutScores, issues: LabelIssues, told: set[str]
) -> Iterator[Finding]:
    usual = scores.thresholds()
    for i in issues.flagged.nonzero()[:, 0].tolist():
        s, k, label = part.items[i], int(issues.proposed[i]), int(scores.labels[i])
        if s.image in told:
            continue
        p, mean = scores.probabilities[i], float(usual[k])
        own, other = (_nearest(part, scores, i, of) for of in (label, k))
        theirs, its = (percent(float(p[of]), " ") for of in (k, label))
        why = (
            f"A model trained without this picture gives probabilities of {theirs} to {classes[k]!r} and {its} to its "
            f"label {s.label!r}."
        )
        # A class with one picture cannot be held out.
        usually = f"have a probability of {percent(mean, ' ')} on average" if mean <= 1 else "could not be held out"
        figures = f"Pictures labelled {classes[k]!r} {usually}."
        if own and other:
            figures += (
                f" The nearest picture labelled {classes[k]!r} has a cosine of {other[0].cosine:.2f}, and the nearest "
                f"labelled {s.label!r} has {own[0].cosine:.2f}."
            )
        more = {"proposed": classes[k], "like": Likes(own, other), "figures": figures}
        yield _finding(part, i, "label", float(issues.doubt[i]), why, **more)


def _nearest(part: EncodedSet, scores: HeldOutScores, i: int, label: int) -> tuple[Like, ...]:
    """Return the nearest pictures with this label, without duplicates of the picture."""
    there = ((scores.labels == label) & (scores.groups != scores.groups[i])).nonzero()[:, 0]
    top = (scores.features[there] @ scores.features[i]).topk(min(NEAREST, len(there)))
    found = [(part.items[int(there[j])], value) for value, j in zip(top.values.tolist(), top.indices, strict=True)]
    return tuple(Like(s.image, s.label, round(value, 4)) for s, value in found)


def _of_strangers(part: EncodedSet, scores: HeldOutScores, seed: int) -> Iterator[Finding]:
    folds = drawn_folds(scores.groups, seed)
    far = strangeness(part.pooled, scores.labels, folds, scores.probabilities.shape[1])
    for i in (far > FAR).nonzero()[:, 0].tolist():
        value, own = float(far[i]), _nearest(part, scores, i, int(scores.labels[i]))
        nearest = f" The nearest picture with its label has a cosine of {own[0].cosine:.2f}." if own else ""
        why = f"It looks unlike every class: its outlier score is {value:.1f}, above the limit of {FAR:g}."
        scale = (
            "The outlier score is the distance to the nearest class, in robust standard deviations above the median."
        )
        yield _finding(part, i, "outlier", 1 - FAR / value / 2, why, like=Likes(own), figures=scale + nearest)
