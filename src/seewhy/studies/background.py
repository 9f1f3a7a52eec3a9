"""Does a model rely on the background? Objects on other backgrounds, and backgrounds without their objects."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..bounds import Bound, Count, check_fields
from ..classifiers.base import Classifier
from ..errors import DataError, ImageError
from ..pictures.boxes import BoxData
from ..pictures.images import Picture, read_views
from ..pictures.object_masks import BoxMasks, MaskSource
from ..pictures.samples import Sample, Samples, some
from ..progress import Progress, shown
from ..report.blocks import points
from ..types import Failure
from .background_verdict import (
    ALL,
    ALONE,
    Answers,
    Donors,
    Pixels,
    alone,
    background_page,
    filled,
    judged,
    mask_check,
    overall,
    pasted,
    rule,
)
from .study import Findings, Row, beside, measured, model_digest

N_EXAMPLES = 6


@dataclass(frozen=True)
class Example:
    """One picture for the page: each version's name, pixels, prediction, and score of the picture's class."""

    image: str
    label: str
    versions: tuple[tuple[str, Pixels, str, float], ...]


@dataclass(frozen=True)
class BackgroundStudy:
    """Lays objects on the backgrounds of other pictures, as Xiao et al. (2020, arXiv:2006.09994) do.

    Their gap is the accuracy on backgrounds of the same class minus the accuracy on any background. This study
    instead compares the score between backgrounds of the same class and of *other* classes, with a test for each
    class. Both kinds of background come from pictures whose own object was painted over, so cutting has the same
    effect on both. Cost: 6 forward passes per picture, and 2 per round.

    Args:
        n_rounds: number of backgrounds of each kind per picture, from 1. More take longer and narrow the intervals.
        n_per_class: number of pictures per class, drawn at random, from 2; default: all. Lower it to save time.
        level: confidence level of the intervals, 0.5 to 1. A verdict needs p below 1 less this.
        n_draws: number of resampled sets for the intervals of accuracy and score, from 1.
        seed: seed for pictures, backgrounds, places and resampling.
    """

    n_rounds: Count = 3
    n_per_class: Annotated[int, Bound(2)] | None = None
    level: Annotated[float, Bound(0.5, 1, (False, True))] = 0.95
    n_draws: Count = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self, "The study")

    @shown("Working out the answer")
    def run(
        self,
        classifier: Classifier,
        samples: Samples,
        masks: MaskSource,
        folder: Path | None = None,
        *,
        boxes: BoxData | None = None,
        progress: Progress | None = None,
    ) -> Findings:
        """Run the model on every version of every picture with a known object."""
        progress = progress or Progress()
        items, notes = samples.of(classifier.classes)
        for note in notes:
            progress.note(note)
        scenes = Scenes.of(classifier, self._drawn(items), masks, progress).usable(progress)
        donors = Donors.draw(scenes.labels, self.n_rounds, self.seed)
        answers = self._answers(classifier, scenes, donors, folder, progress)
        check = mask_check(answers, self.level)
        parts = {classifier.classes[k]: scenes.labels == k for k in scenes.labels.unique().tolist()}
        parts[ALL] = torch.ones(len(scenes.items), dtype=torch.bool)
        rows = judged(parts, answers, masks.by_hand or check["hit"], self.level, self.n_draws, self.seed)
        area = round(float(torch.stack([m.float().mean() for m in scenes.masks]).mean()), 4)
        covered = None if boxes is None else scenes.covered(boxes)
        data: dict[str, Any] = {
            "study": "background", "n": len(scenes.items), "verdict": overall(rows), "all": rows[-1],
            "classes": rows[:-1],
            "masks": {
                "source": masks.told, "by_hand": masks.by_hand, "area": area, "check": check, "boxes": covered,
            },
            "rule": rule(self.level), "left_out": [f.to_json() for f in scenes.left_out],
            "classes_left_out": list(scenes.classes_left_out), "settings": asdict(self),
            "model": classifier.provenance(), **beside(progress),
        }  # fmt: skip
        examples = self._examples(classifier, scenes, donors)
        return Findings({"sentence": sentence(data), **data}, partial(background_page, examples=examples))

    def _drawn(self, items: Sequence[Sample]) -> list[Sample]:
        """In random order, no more of a class than asked for."""
        order, counts, found = list(items), Counter[str](), []
        random.Random(self.seed).shuffle(order)
        for item in order:
            counts[item.label] += 1
            if self.n_per_class is None or counts[item.label] <= self.n_per_class:
                found.append(item)
        return found

    def _answers(
        self, classifier: Classifier, scenes: Scenes, donors: Donors, folder: Path | None, progress: Progress
    ) -> Answers:
        model, n = model_digest(classifier), len(scenes.items)
        lent = torch.cat([donors.same, donors.other], 1)
        there = torch.cat([torch.ones(n, len(ALONE), dtype=torch.bool), lent >= 0], 1)

        def ask(i: int) -> Row:
            said, decided = _answer(classifier, scenes.versions(i, lent[i].tolist(), self.seed), int(scenes.labels[i]))
            return {"values": [said, decided], "cell": scenes.items[i].image}

        def key(i: int) -> str:
            return scenes.key(model, i, lent[i].tolist(), self.seed)

        score, right = (torch.full(there.shape, torch.nan) for _ in range(2))
        for (i,), row in measured([(i,) for i in range(n)], key, ask, folder, progress, "Changing backgrounds"):
            values = torch.tensor(row["values"]).float()
            score[i, there[i]], right[i, there[i]] = values[0], (values[1] == scenes.labels[i]).float()
        return Answers(scenes.labels, score, right)

    def _examples(self, classifier: Classifier, scenes: Scenes, donors: Donors) -> tuple[Example, ...]:
        """The first picture of each class in the order drawn, of a few classes; none is picked for what it shows."""
        first = [int((scenes.labels == k).nonzero()[0, 0]) for k in scenes.labels.unique().tolist()][:N_EXAMPLES]
        names, found = [*ALONE, "same class", "other class"], []
        for i in first:
            versions = scenes.versions(i, [int(donors.same[i, 0]), int(donors.other[i, 0])], self.seed)
            said, decided = _answer(classifier, versions, int(scenes.labels[i]))
            told = [(names[j], versions[j], classifier.classes[decided[j]], said[j]) for j in (0, 6, 7, 1, 2, 3)]
            found.append(Example(scenes.items[i].image, scenes.items[i].label, tuple(told)))
        return tuple(found)


@torch.no_grad()
def _answer(classifier: Classifier, versions: Sequence[Pixels], label: int) -> tuple[list[float], list[int]]:
    """Score of the class, and what is decided for, of each version."""
    encoder = classifier.encoder
    probabilities = classifier.head.probabilities(encoder.pooled(encoder.pixels(versions)))
    return [round(v, 6) for v in probabilities[:, label].tolist()], probabilities.argmax(1).tolist()


@dataclass(frozen=True, eq=False)
class Scenes:
    """Pictures with known objects."""

    items: tuple[Sample, ...]
    pictures: tuple[Picture, ...]
    masks: tuple[Bool[Tensor, "h w"], ...]
    labels: Int[Tensor, " n"]
    grey: np.ndarray
    left_out: tuple[Failure, ...] = ()
    classes_left_out: tuple[str, ...] = ()

    @classmethod
    def of(cls, classifier: Classifier, items: Sequence[Sample], masks: MaskSource, progress: Progress) -> Scenes:
        """Read views and masks; unreadable pictures become failures, pictures without a usable mask are left out."""
        transform, found, left_out = classifier.encoder.transform, [], []
        for item in progress.track(items, "Finding the objects in pictures", len(items)):
            try:
                picture = read_views(item.source, transform, [None])[0]
            except ImageError as error:
                progress.failed(Failure(item.image, error.reason))
                continue
            try:
                found.append((item, picture, masks.mask(item, picture)))
            except ImageError as error:
                left_out.append(Failure(item.image, error.reason))
        kept, pictures, drawn = zip(*found, strict=True) if found else ((), (), ())
        labels = torch.tensor([classifier.classes.index(item.label) for item in kept], dtype=torch.long)
        grey = (np.array(transform.mean) * 255).round().astype(np.uint8)
        return cls(kept, pictures, drawn, labels, grey, tuple(left_out))

    @cached_property
    def grounds(self) -> list[Pixels]:
        return [filled(p.pixels, m) for p, m in zip(self.pictures, self.masks, strict=True)]

    def versions(self, i: int, lent: Sequence[int], seed: int) -> list[Pixels]:
        """Return the versions made from one picture alone, then those on other pictures' backgrounds."""
        pixels, mask = self.pictures[i].pixels, self.masks[i]
        own = alone(pixels, mask, self.grounds[i], self.grey, seed + i)
        return own + [pasted(pixels, mask, self.grounds[j]) for j in lent if j >= 0]

    def key(self, model: str, i: int, lent: Sequence[int], seed: int) -> str:
        """Return a digest of everything that the answers to one picture's versions depend on."""
        told = hashlib.sha256(f"{model}|{seed + i}".encode())
        for j in (i, *(j for j in lent if j >= 0)):
            told.update(f"|{self.pictures[j].digest} {j == i}".encode())
            told.update(np.packbits(self.masks[j].numpy()).tobytes())
        return told.hexdigest()[:24]

    def usable(self, progress: Progress) -> Scenes:
        """Drop classes with only one picture."""
        counts = Counter(item.label for item in self.items)
        keep = [i for i, item in enumerate(self.items) if counts[item.label] > 1]
        single = tuple(sorted(label for label, n in counts.items() if n == 1))
        first = f"{self.left_out[0].image} {self.left_out[0].error}" if self.left_out else ""
        if first:
            progress.note(f"{len(self.left_out)} picture(s) have no usable mask and are left out, such as: {first}")
        if single:
            progress.note(
                f"{len(single)} class(es) are left out, as only one picture has a usable mask and no other can lend "
                f"its background: {some(single)}"
            )
        if len(counts) - len(single) < 2:
            why = f"Add masks. {self.left_out[0].image} {self.left_out[0].error}." if first else ""
            raise DataError(
                f"{len(self.items)} of {len(self.items) + len(self.left_out)} pictures have a usable mask, and fewer "
                "than two classes have two of them. Expected at least two classes with two such pictures each. "
                f"{why or 'Give more pictures.'}"
            )
        items, pictures, masks = (tuple(of[i] for i in keep) for of in (self.items, self.pictures, self.masks))
        return Scenes(items, pictures, masks, self.labels[keep], self.grey, self.left_out, single)  # type: ignore[arg-type]

    def covered(self, boxes: BoxData) -> dict[str, Any] | None:
        """Return the share of the boxes that the masks cover, and the share of the masks inside them; ``None``
        without boxes.
        """
        source, parts = BoxMasks(boxes), []
        for item, picture, mask in zip(self.items, self.pictures, self.masks, strict=True):
            try:
                box = source.mask(item, picture)
            except ImageError:
                continue
            shared = float((box & mask).sum())
            parts.append((shared / float(box.sum()), shared / float(mask.sum())))
        if not parts:
            return None
        covered, within = (round(sum(values) / len(parts), 4) for values in zip(*parts, strict=True))
        return {"n": len(parts), "covered": covered, "within": within}


def sentence(data: dict[str, Any]) -> str:
    row, masks = data["all"], data["masks"]
    same, other = (next(v for v in row["versions"] if v["version"] == name) for name in ("same class", "other classes"))
    low, high = row["difference"]["interval"]
    lead = {"yes": "the model relies on the background", "no": "the model does not rely on the background"}
    lead["undecided"] = "it is undecided whether the model relies on the background"
    named = {v: [c["label"] for c in data["classes"] if c["verdict"] == v] for v in ("yes", "no", "undecided")}
    classes = "; ".join(f"{v} ({some(names, 3)})" for v, names in named.items() if names)
    doubt = ""
    if not masks["by_hand"] and not masks["check"]["hit"]:
        doubt = "The masks may miss the object: painting over them costs no more than painting over as much elsewhere. "
    return (
        f"On {data['n']} pictures, {lead[data['verdict']]}. It is right on {points(same['accuracy']['value'])} % of "
        f"objects on other backgrounds of their class, and on {points(other['accuracy']['value'])} % on backgrounds of "
        f"other classes. The score of the true class differs by {row['difference']['value']:+.3f} ({low:+.3f} to "
        f"{high:+.3f}). By class: {classes}. {doubt}Masks: {masks['source']}."
    )
