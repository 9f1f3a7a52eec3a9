"""Measure how much a model relies on the background, by exchanging the backgrounds of pictures."""

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
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from ..bounds import Bound, Checked, Count
from ..classifiers.base import Classifier
from ..classifiers.known_pictures import KnownPictures
from ..errors import DataError, ImageError
from ..pictures.boxes import BoxData
from ..pictures.images import Picture, read_views
from ..pictures.miniatures import miniature
from ..pictures.object_masks import BoxMasks, MaskSource
from ..pictures.samples import Sample, Samples, some
from ..progress import Progress, shown
from ..report.blocks import points
from ..types import Failure
from .background_verdict import ALL, ALONE, Answers, Example, Pixels, background_page, judged, mask_check, overall, rule
from .study import Findings, Row, beside, measured

N_EXAMPLES = 6
MOST_SHIFTS = 64
"""Number of shifts tried to find a place as large as the object."""
BLUR = 20
"""Side of the picture divided by σ of the blur."""


@dataclass(frozen=True)
class BackgroundStudy(Checked):
    """A study that pastes objects onto the backgrounds of other pictures (Xiao et al. 2020, arXiv:2006.09994).

    The paper compares the accuracy on backgrounds of the same class with that on backgrounds of any class. This study
    compares the score on backgrounds of the same class with that on backgrounds of *other* classes, and tests the
    difference for each class. In both cases, the object in the background picture is painted over. A picture takes 6
    forward passes, and 2 more for each round.

    Args:
        n_rounds: number of backgrounds of each kind per picture, at least 1; more backgrounds give narrower intervals.
        n_per_class: number of random pictures per class, at least 2; default: all.
        level: confidence level of the intervals, 0.5 to 1; a verdict needs a p value below ``1 - level``.
        n_draws: number of bootstrap resamples, at least 1.
        seed: seed of pictures, backgrounds, places and resampling.
    """

    noun = "the study"

    n_rounds: Count = 3
    n_per_class: Annotated[int, Bound(2)] | None = None
    level: Annotated[float, Bound(0.5, 1, (False, True))] = 0.95
    n_draws: Count = 2000
    seed: int = 0

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
        """Run the model on all versions of each picture with a known object."""
        progress = progress or Progress()
        items, notes = samples.of(classifier.classes)
        progress.note_all(notes)
        scenes = Scenes.of(classifier, self._drawn(items), masks, progress)
        lent = lenders(scenes.labels, self.n_rounds, self.seed)
        answers = self._answers(classifier, scenes, lent, folder, progress)
        check = mask_check(answers, self.level)
        parts = {classifier.classes[k]: scenes.labels == k for k in scenes.labels.unique().tolist()}
        parts[ALL] = torch.ones(len(scenes.items), dtype=torch.bool)
        rows = judged(parts, answers, masks.by_hand or check["hit"], self.level, self.n_draws, self.seed)
        area = round(float(torch.stack([m.float().mean() for m in scenes.masks]).mean()), 4)
        covered = None if boxes is None else scenes.covered(boxes)
        data: dict[str, Any] = {
            "study": "background", "n": len(scenes.items),
            "n_fitted_on": scenes.n_known(classifier.known), "verdict": overall(rows), "all": rows[-1],
            "classes": rows[:-1],
            "masks": {
                "source": masks.told, "by_hand": masks.by_hand, "area": area, "check": check, "boxes": covered,
            },
            "rule": rule(self.level), "left_out": [f.to_json() for f in scenes.left_out],
            "classes_left_out": list(scenes.classes_left_out), "settings": asdict(self),
            "model": classifier.provenance(), **beside(progress),
        }  # fmt: skip
        examples = self._examples(classifier, scenes, lent)
        return Findings({"sentence": sentence(data), **data}, partial(background_page, examples=examples))

    def _drawn(self, items: Sequence[Sample]) -> list[Sample]:
        order, counts, found = list(items), Counter[str](), []
        random.Random(self.seed).shuffle(order)
        for item in order:
            counts[item.label] += 1
            if self.n_per_class is None or counts[item.label] <= self.n_per_class:
                found.append(item)
        return found

    def _answers(
        self, classifier: Classifier, scenes: Scenes, lent: Tensor, folder: Path | None, progress: Progress
    ) -> Answers:
        model, n = classifier.digest, len(scenes.items)
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
        return Answers(score, right)

    def _examples(self, classifier: Classifier, scenes: Scenes, lent: Int[Tensor, "n r"]) -> list[Example]:
        """Return the first drawn picture of each of a few classes."""
        first = [int((scenes.labels == k).nonzero()[0, 0]) for k in scenes.labels.unique().tolist()][:N_EXAMPLES]
        names, found = [*ALONE, "same class", "other class"], []
        for i in first:
            versions = scenes.versions(i, lent[i, [0, self.n_rounds]].tolist(), self.seed)
            said, decided = _answer(classifier, versions, int(scenes.labels[i]))
            told = [(names[j], versions[j], classifier.classes[decided[j]], said[j]) for j in (0, 6, 7, 1, 2, 3)]
            found.append((scenes.items[i].image, scenes.items[i].label, told))
        return found


@torch.no_grad()
def _answer(classifier: Classifier, versions: Sequence[Pixels], label: int) -> tuple[list[float], list[int]]:
    """Return the score of the class and the predicted class for each version."""
    encoder = classifier.encoder
    probabilities = classifier.head.probabilities(encoder.pooled(encoder.pixels(versions)))
    return [round(v, 6) for v in probabilities[:, label].tolist()], probabilities.argmax(1).tolist()


@dataclass(frozen=True, eq=False)
class Scenes:
    """Pictures with object masks."""

    items: tuple[Sample, ...]
    pictures: tuple[Picture, ...]
    masks: tuple[Bool[Tensor, "h w"], ...]
    labels: Int[Tensor, " n"]
    grey: np.ndarray
    left_out: tuple[Failure, ...] = ()
    classes_left_out: tuple[str, ...] = ()

    @classmethod
    def of(cls, classifier: Classifier, items: Sequence[Sample], masks: MaskSource, progress: Progress) -> Scenes:
        """Read pictures and masks; pictures without a usable mask, and classes with one picture, are left out."""
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
        counts = Counter(item.label for item, *_ in found)
        single = tuple(sorted(label for label, n in counts.items() if n == 1))
        first = f"{left_out[0].image} {left_out[0].error}" if left_out else ""
        if first:
            progress.note(
                f"{len(left_out)} picture(s) were left out because they have no usable mask. The first: {first}"
            )
        if single:
            progress.note(
                f"{len(single)} class(es) were left out because they have one usable picture, and at least two are "
                f"needed: {some(single)}"
            )
        if len(counts) - len(single) < 2:
            raise DataError(
                f"At least two classes must have two pictures with usable masks, but only {len(found)} of "
                f"{len(found) + len(left_out)} pictures have one. "
                f"{f'Add masks. {first}.' if first else 'Give more pictures.'}"
            )
        kept, pictures, drawn = zip(*(one for one in found if one[0].label not in single), strict=True)
        labels = torch.tensor([classifier.classes.index(item.label) for item in kept])
        grey = (np.array(transform.mean) * 255).round().astype(np.uint8)
        return cls(kept, pictures, drawn, labels, grey, tuple(left_out), single)

    @cached_property
    def grounds(self) -> list[Pixels]:
        return [filled(p.pixels, m) for p, m in zip(self.pictures, self.masks, strict=True)]

    def n_known(self, known: KnownPictures | None) -> int | None:
        """Return how many pictures the classifier was fitted on, or copies of these; ``None`` if these are unknown."""
        if known is None:
            return None
        small = [miniature(view.pixels, view.original_size) for view in self.pictures]
        return sum(twin is not None for twin in known.twins([view.digest for view in self.pictures], small, None))

    def versions(self, i: int, lent: Sequence[int], seed: int) -> list[Pixels]:
        """Return all versions of a picture; the versions that need no other picture come first."""
        pixels, mask = self.pictures[i].pixels, self.masks[i]
        own = alone(pixels, mask, self.grounds[i], self.grey, seed + i)
        return own + [pasted(pixels, mask, self.grounds[j]) for j in lent if j >= 0]

    def key(self, model: str, i: int, lent: Sequence[int], seed: int) -> str:
        """Return a digest of all inputs that the results of a picture depend on."""
        told = hashlib.sha256(f"{model}|{seed + i}".encode())
        for j in (i, *(j for j in lent if j >= 0)):
            told.update(f"|{self.pictures[j].digest} {j == i}".encode())
            told.update(np.packbits(self.masks[j].numpy()).tobytes())
        return told.hexdigest()[:24]

    def covered(self, boxes: BoxData) -> dict[str, Any] | None:
        """Return the fraction of the boxes that masks cover, and the fraction of the masks that is inside boxes."""
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
    if n := data["n_fitted_on"]:
        doubt = f"The classifier was fitted on {n} of these pictures, so its accuracy is too high. "
    if not masks["by_hand"] and not masks["check"]["hit"]:
        doubt += (
            "The masks may miss the object: painting over them lowers the score no more than painting over other "
            "places. "
        )
    return (
        f"On {data['n']} pictures, {lead[data['verdict']]}. Its accuracy is {points(same['accuracy']['value'])} % on "
        f"other backgrounds of the same class, and {points(other['accuracy']['value'])} % on backgrounds of "
        f"other classes. The score of the true class differs by {row['difference']['value']:+.3f} ({low:+.3f} to "
        f"{high:+.3f}). By class: {classes}. {doubt}Masks: {masks['source']}."
    )


def filled(pixels: Pixels, hole: Bool[Tensor, "h w"]) -> Pixels:
    """Fill a hole smoothly from its surroundings, by a pyramid of local means."""
    known = (~hole).float()[None, None]
    values = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() * known
    smooth = _spread(values, known)[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
    return np.where(hole.numpy()[..., None], smooth, pixels)


def _spread(sums: Float[Tensor, "1 c h w"], known: Float[Tensor, "1 1 h w"]) -> Float[Tensor, "1 c h w"]:
    """Return the local means where pixels are known, else those of the next coarser level."""
    means = sums / known.clamp(min=1e-6)
    h, w = known.shape[2:]
    if bool((known > 0).all()) or min(h, w) < 2:
        return means
    coarse = _spread(avg_pool2d(sums, 2, ceil_mode=True), avg_pool2d(known, 2, ceil_mode=True))
    return torch.where(known > 0, means, interpolate(coarse, size=(h, w), mode="bilinear", align_corners=False))


def pasted(pixels: Pixels, mask: Bool[Tensor, "h w"], ground: Pixels) -> Pixels:
    return np.where(mask.numpy()[..., None], pixels, ground)


def alone(
    pixels: Pixels, mask: Bool[Tensor, "h w"], ground: Pixels, grey: UInt8[np.ndarray, " 3"], seed: int
) -> list[Pixels]:
    side = max(pixels.shape[:2])
    blurred = np.asarray(Image.fromarray(ground).filter(ImageFilter.GaussianBlur(side / BLUR)))
    here, there = moved(mask, seed)
    pieces = [filled(pixels, part) if bool(part.any()) else pixels for part in (here, there)]
    on_grey = pasted(pixels, mask, np.broadcast_to(grey, pixels.shape))
    return [pixels, pasted(pixels, mask, blurred), ground, on_grey, *pieces]


def moved(mask: Bool[Tensor, "h w"], seed: int) -> tuple[Bool[Tensor, "h w"], Bool[Tensor, "h w"]]:
    """Return two non-overlapping parts of equal shape: one on the object, and one elsewhere."""
    h, w = mask.shape
    drawn = torch.randperm(h * w - 1, generator=torch.Generator().manual_seed(seed))[: MOST_SHIFTS * 4] + 1
    best, least, shift = mask, int(mask.sum()) + 1, (0, 0)
    for flat in drawn.tolist():
        by = divmod(flat, w)
        there = mask.roll(by, (0, 1))
        if (shared := int((there & mask).sum())) < least:
            best, least, shift = there, shared, by
        if shared == 0:
            break
    there = best & ~mask
    return there.roll((-shift[0], -shift[1]), (0, 1)), there


def lenders(labels: Int[Tensor, " n"], n_rounds: int, seed: int) -> Int[Tensor, "n r"]:
    """Draw the pictures that provide the backgrounds: a column per round of the same class, then of other classes.

    An index is −1 if no picture is left.
    """
    generator = torch.Generator().manual_seed(seed)
    lent = torch.full((len(labels), 2 * n_rounds), -1)
    for k in labels.unique().tolist():
        own, rest = (labels == k).nonzero()[:, 0], (labels != k).nonzero()[:, 0]
        own = own[torch.randperm(len(own), generator=generator)]
        for r in range(min(n_rounds, len(own) - 1)):
            drawn = rest[torch.randperm(len(rest), generator=generator)]
            lent[own, r] = own.roll(-(r + 1))
            lent[own, n_rounds + r] = drawn[torch.arange(len(own)) % len(drawn)]
    return lent
