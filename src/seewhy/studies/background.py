"""Does it use the background? Objects on other backgrounds, and backgrounds without their objects."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from ..classifiers.base import Classifier
from ..errors import DataError, ImageError, InputError
from ..pictures.boxes.base import BoxData
from ..pictures.images import Picture, read_views
from ..pictures.object_masks import BoxMasks, MaskSource
from ..pictures.samples import Sample, Samples, some
from ..progress import Progress
from ..report.paging import Answer
from ..types import Failure
from .background_verdict import ALL, Answers, judged, mask_check, overall, rule
from .background_versions import ALONE, Donors, Pixels, alone, filled, pasted
from .records import cell_records, model_digest

N_EXAMPLES = 6


@dataclass(frozen=True)
class Example:
    """One picture's versions for the page.

    Attributes:
        image: its name.
        label: its class.
        versions: name, pixels, what is decided, and the score of its class.
    """

    image: str
    label: str
    versions: tuple[tuple[str, Pixels, str, float], ...]


@dataclass(frozen=True, repr=False)
class BackgroundFindings(Answer):
    """What the study found; ``data`` is the documented JSON (docs/json.md).

    Attributes:
        examples: pictures for the page.
    """

    examples: tuple[Example, ...] = field(default=(), compare=False)

    def to_html(self) -> str:
        from ..report.background import render_background

        return render_background(self.data, self.examples)


@dataclass(frozen=True)
class BackgroundStudy:
    """Objects are laid on the backgrounds of other pictures, as Xiao et al. (2020, arXiv:2006.09994) do.

    Their gap is the accuracy on backgrounds of the same class less that on backgrounds of any; here the score is
    compared, on backgrounds of the same class and of *other* classes, with a test for each class. Both are cut from
    pictures whose own object was filled, so what cutting does is in both.

    Cost: 6 forward passes a picture, and 2 for each round.

    Args:
        n_rounds: other backgrounds of each kind that a picture is laid on.
        n_per_class: pictures of a class, drawn at random; left out, all.
        level: of intervals, and 1 less what p must be below.
        n_draws: resampled sets of pictures, for intervals of accuracy and score.
        seed: of pictures, backgrounds, places and draws.
    """

    n_rounds: int = 3
    n_per_class: int | None = None
    level: float = 0.95
    n_draws: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        few = self.n_per_class is not None and self.n_per_class < 2
        if self.n_rounds < 1 or few or not 0.5 <= self.level < 1 or self.n_draws < 1:
            raise InputError(
                f"The study was given n_rounds={self.n_rounds}, n_per_class={self.n_per_class}, level={self.level:g}, "
                f"n_draws={self.n_draws}. A round, two pictures a class, a level from 0.5 to below 1 and a draw, at "
                "least, were expected. Change them."
            )

    def run(
        self,
        classifier: Classifier,
        samples: Samples,
        masks: MaskSource,
        folder: Path | None = None,
        *,
        boxes: BoxData | None = None,
        progress: Progress | None = None,
    ) -> BackgroundFindings:
        """Ask the model about every version of every picture whose object is known.

        Args:
            classifier: the model.
            samples: pictures with classes, which it should not have been fitted on.
            masks: where the objects are.
            folder: where answers are kept, so that a stopped study goes on.
            boxes: of the objects, to say how much of them the masks cover.
            progress: hears of progress, notes and failures.

        Raises:
            DataError: fewer than two classes have two pictures whose object is known.
        """
        progress = progress or Progress()
        items, notes = samples.of(classifier.classes)
        for note in notes:
            progress.note(note)
        seen = _see(classifier, self._drawn(items), masks, progress).kept(progress)
        data: dict[str, Any] = {
            "study": "background",
            "n": len(seen.items),
            **self._asked(classifier, seen, folder, progress),
        }
        data["masks"] = {
            "source": masks.told, "by_hand": masks.by_hand,
            "area": round(float(torch.stack([m.float().mean() for m in seen.masks]).mean()), 4),
            "check": data.pop("check"), "boxes": None if boxes is None else seen.covered(boxes),
        }  # fmt: skip
        data |= {
            "rule": rule(self.level),
            "left_out": [f.to_json() for f in seen.left_out],
            "classes_left_out": list(seen.classes_left_out),
            "settings": asdict(self),
            "model": classifier.provenance(),
            "notes": list(dict.fromkeys(progress.notes)),
            "failures": [f.to_json() for f in progress.failures],
        }
        return BackgroundFindings({"sentence": sentence(data), **data}, self._examples(classifier, seen))

    def _drawn(self, items: Sequence[Sample]) -> list[Sample]:
        """In random order, no more of a class than asked for."""
        found: list[Sample] = []
        counts: dict[str, int] = {}
        order = list(items)
        random.Random(self.seed).shuffle(order)
        for item in order:
            counts[item.label] = counts.get(item.label, 0) + 1
            if self.n_per_class is None or counts[item.label] <= self.n_per_class:
                found.append(item)
        return found

    def _asked(self, classifier: Classifier, seen: Seen, folder: Path | None, progress: Progress) -> dict[str, Any]:
        donors = Donors.draw(seen.labels, self.n_rounds, self.seed)
        model = model_digest(classifier)
        columns = len(ALONE) + 2 * self.n_rounds
        score, right = (torch.full((len(seen.items), columns), torch.nan) for _ in range(2))
        with cell_records(folder) as records:
            for i in progress.track(range(len(seen.items)), "Asking", len(seen.items)):
                lent = torch.cat([donors.same[i], donors.other[i]])
                there = torch.cat([torch.ones(len(ALONE), dtype=torch.bool), lent >= 0])
                key = seen.key(model, i, lent.tolist(), self.seed)
                if key not in records.done:
                    said, decided = _answer(classifier, seen.versions(i, lent.tolist(), self.seed), int(seen.labels[i]))
                    records.add({"key": key, "values": [said, decided], "cell": seen.items[i].image})
                score[i, there], right[i, there] = torch.tensor(records.done[key]["values"]).float()
        right[~right.isnan()] = (right == seen.labels[:, None])[~right.isnan()].float()
        answers = Answers(seen.labels, score, right)
        check = mask_check(answers, self.level)
        parts = {classifier.classes[k]: seen.labels == k for k in seen.labels.unique().tolist()}
        parts[ALL] = torch.ones(len(seen.items), dtype=torch.bool)
        believed = seen.by_hand or check["hit"]
        rows = judged(parts, answers, believed, self.level, self.n_draws, self.seed)
        return {"verdict": overall(rows), "all": rows[-1], "classes": rows[:-1], "check": check}

    def _examples(self, classifier: Classifier, seen: Seen) -> tuple[Example, ...]:
        """The first picture of each class in the order drawn, of a few classes; none is picked for what it shows."""
        donors = Donors.draw(seen.labels, self.n_rounds, self.seed)
        first = [int((seen.labels == k).nonzero()[0, 0]) for k in seen.labels.unique().tolist()][:N_EXAMPLES]
        found = []
        for i in first:
            lent = [int(donors.same[i, 0]), int(donors.other[i, 0])]
            versions = seen.versions(i, lent, self.seed)
            said, decided = _answer(classifier, versions, int(seen.labels[i]))
            names = [*ALONE, "same class", "other class"]
            told = [
                (name, pixels, classifier.classes[k], score)
                for name, pixels, score, k in zip(names, versions, said, decided, strict=True)
            ]
            order = [told[j] for j in (0, 6, 7, 1, 2, 3)]
            found.append(Example(seen.items[i].image, seen.items[i].label, tuple(order)))
        return tuple(found)


@torch.no_grad()
def _answer(classifier: Classifier, versions: Sequence[Pixels], label: int) -> tuple[list[float], list[int]]:
    """Score of the class, and what is decided for, of each version."""
    encoder = classifier.encoder
    probabilities = classifier.head.probabilities(encoder.pooled(encoder.pixels(versions)))
    return [round(v, 6) for v in probabilities[:, label].tolist()], probabilities.argmax(1).tolist()


@dataclass(frozen=True, eq=False)
class Seen:
    """Pictures whose object is known.

    Attributes:
        items: what they are.
        pictures: their views.
        masks: true on the object.
        labels: places of their classes among the model's.
        grey: what stands for nothing.
        by_hand: whether people drew the masks.
        left_out: pictures without a usable mask, each with the reason.
        classes_left_out: classes with fewer than two pictures that are left.
    """

    items: tuple[Sample, ...]
    pictures: tuple[Picture, ...]
    masks: tuple[Bool[Tensor, "h w"], ...]
    labels: Tensor
    grey: np.ndarray
    by_hand: bool
    left_out: tuple[Failure, ...] = ()
    classes_left_out: tuple[str, ...] = ()

    @cached_property
    def grounds(self) -> list[Pixels]:
        """Views whose object is filled."""
        return [filled(p.pixels, m) for p, m in zip(self.pictures, self.masks, strict=True)]

    def versions(self, i: int, lent: Sequence[int], seed: int) -> list[Pixels]:
        """Those of one picture alone, then on the backgrounds of others that there are."""
        pixels, mask = self.pictures[i].pixels, self.masks[i]
        own = alone(pixels, mask, self.grounds[i], self.grey, seed + i)
        return own + [pasted(pixels, mask, self.grounds[j]) for j in lent if j >= 0]

    def key(self, model: str, i: int, lent: Sequence[int], seed: int) -> str:
        """Of all that the answers to one picture's versions depend on."""
        told = hashlib.sha256(f"{model}|{seed + i}".encode())
        for j in (i, *(j for j in lent if j >= 0)):
            told.update(f"|{self.pictures[j].digest} {j == i}".encode())
            told.update(np.packbits(self.masks[j].numpy()).tobytes())
        return told.hexdigest()[:24]

    def kept(self, progress: Progress) -> Seen:
        """Without classes of one picture.

        Raises:
            DataError: fewer than two classes are left.
        """
        counts = self.labels.bincount()
        keep = [i for i, k in enumerate(self.labels.tolist()) if counts[k] > 1]
        single = tuple(
            sorted({self.items[i].label for i in range(len(self.items))} - {self.items[i].label for i in keep})
        )
        if self.left_out:
            reasons = f"{self.left_out[0].image} {self.left_out[0].error}"
            progress.note(f"{len(self.left_out)} picture(s) without a usable mask left out, such as: {reasons}")
        if single:
            progress.note(
                f"{len(single)} class(es) left out, as only one picture has a usable mask, and no other of the same "
                f"class can lend its background: {some(single)}"
            )
        if len({int(self.labels[i]) for i in keep}) < 2:
            raise DataError(
                f"{len(self.items)} of {len(self.items) + len(self.left_out)} pictures have a usable mask, and fewer "
                "than two classes have two of them. At least two pictures of two classes each were expected, so that "
                f"backgrounds can be exchanged. {self._why()}"
            )
        pick = [(self.items[i], self.pictures[i], self.masks[i]) for i in keep]
        items, pictures, masks = zip(*pick, strict=True)
        return Seen(items, pictures, masks, self.labels[keep], self.grey, self.by_hand, self.left_out, single)

    def _why(self) -> str:
        if not self.left_out:
            return "Give more pictures."
        return f"Add masks; of {self.left_out[0].image}: it {self.left_out[0].error}."

    def covered(self, boxes: BoxData) -> dict[str, Any] | None:
        """Part of the boxes that the masks cover, and of the masks that lies within; ``None`` without boxes."""
        source, inside, within, n = BoxMasks(boxes), 0.0, 0.0, 0
        for item, picture, mask in zip(self.items, self.pictures, self.masks, strict=True):
            try:
                box = source.mask(item, picture)
            except ImageError:
                continue
            shared = float((box & mask).sum())
            inside, within, n = inside + shared / float(box.sum()), within + shared / float(mask.sum()), n + 1
        return {"n": n, "covered": round(inside / n, 4), "within": round(within / n, 4)} if n else None


def _see(classifier: Classifier, items: Sequence[Sample], masks: MaskSource, progress: Progress) -> Seen:
    """Views and masks; what cannot be read is a failure, what has no usable mask is left out."""
    transform, found, left_out = classifier.encoder.transform, [], []
    for item in progress.track(items, "Reading", len(items)):
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
    number = {name: i for i, name in enumerate(classifier.classes)}
    labels = torch.tensor([number[item.label] for item in kept], dtype=torch.long)
    grey = (np.array(transform.mean) * 255).round().astype(np.uint8)
    return Seen(kept, pictures, drawn, labels, grey, masks.by_hand, tuple(left_out))


def sentence(data: dict[str, Any]) -> str:
    """The verdict with its figures, in words."""
    row, masks = data["all"], data["masks"]
    same, other = (next(v for v in row["versions"] if v["version"] == name) for name in ("same class", "other classes"))
    low, high = row["difference"]["interval"]
    lead = {"yes": "it leans on the background", "no": "it does not lean on the background"}
    lead["undecided"] = "whether it leans on the background is undecided"
    named = {v: [c["label"] for c in data["classes"] if c["verdict"] == v] for v in ("yes", "no", "undecided")}
    classes = "; ".join(f"{v}: {some(names, 3)}" for v, names in named.items() if names)
    doubt = ""
    if not masks["by_hand"] and not masks["check"]["hit"]:
        doubt = (
            "Filling what the masks cover costs no more than filling as much elsewhere, so they may miss the object. "
        )
    return (
        f"On {data['n']} pictures {lead[data['verdict']]}: it is right "
        f"on {same['accuracy']['value']:.1%} of objects on other backgrounds of their own class and on "
        f"{other['accuracy']['value']:.1%} on those of other classes, and the score differs by "
        f"{row['difference']['value']:+.3f} ({low:+.3f} to {high:+.3f}). By class, {classes}. {doubt}"
        f"Masks: {masks['source']}."
    )
