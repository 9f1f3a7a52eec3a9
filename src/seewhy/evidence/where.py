"""Where it looked, and whether hiding and showing those places changes the answer as it should."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..explanation.base import Region, Where
from ..explanation.verdict import Verdict
from ..metrics.base import Curve, ranks, shuffled
from ..metrics.deletion import Deletion
from ..metrics.insertion import Insertion
from ..pictures.images import Picture
from ..prototypes.bank import cell_box
from .halves import Match, masks, match
from .watched import Watched

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from .complement import Complement
    from .sentences import Sentences

STEPS = (8, 4)
"""Of the curves of the map, and of its shuffled copy."""
BATCH_SIZE = 16
BELIEVABLE, PARTLY, MARGIN = 0.70, 0.50, 0.10
"""Least match, and what it must have more than a bump in the middle; chosen on 50 ImageNet photographs."""
NEAR = 0.05
"""Of 30 photographs further from both limits 28 keep their level when moved by a pixel, of 20 nearer ones 12."""
STILL_VALUE, STILL_ODDS, STILL_COSINE = 0.12, math.log(4), 0.002
"""Less than this and nothing moves: of a probability, of the logarithm of its odds, of a similarity.

Networks with random weights (ResNet-18, EfficientNet-Lite0, ViT-Ti, three each, on three photographs) stay below .10
and 1.12, pretrained ones above both.
"""
_STILL_CLASS = f"probability by {STILL_VALUE} or its odds fourfold"
_STILL_SENTENCE = f"similarity by {STILL_COSINE}"
RULE = (
    "Half of the picture is hidden in 24 ways, the same for every picture, and the odds of what is explained are "
    "followed. The match is the cosine between what each half adds to their logarithm and the heat in it. Believable "
    f"from {BELIEVABLE:.2f} if a bump in the middle of the picture matches worse by {MARGIN:.2f} at least; partly from "
    f"{PARTLY:.2f}; otherwise do not rely on it. Of maps that know nothing (random, shuffled, a bump, another class's) "
    "at most 1 in 20 is believable, measured on pictures that chose no limit. Where nothing that is hidden moves the "
    f"{_STILL_CLASS}, there is nothing to measure."
)
_UNMEASURED = Verdict("not measured", "Deletion and insertion have not been measured.", RULE)


@dataclass(frozen=True)
class Faithfulness:
    """What was found on changed copies of a picture.

    Attributes:
        match: of the heat with what hiding halves does.
        moved: largest change of the curves' quantity on any copy, and of the logarithm of the odds on any half.
        deleted: the map's deletion, then that of its shuffled copy.
        inserted: the same of insertion.
    """

    match: Match
    moved: tuple[float, float]
    deleted: tuple[Curve, Curve]
    inserted: tuple[Curve, Curve]


def measure(watched: Watched, heat: Float[Tensor, "gh gw"], pixels: Float[Tensor, "3 h w"], seed: int) -> Faithfulness:
    """Look at the picture again: whole, gone and blurred, under 24 masks, and as the hottest pixels go and come.

    Cost: 47 forward passes: those three, 24 masks, 14 for the map's curves and 6 for its shuffled copy's.

    Args:
        watched: what is followed.
        heat: signed.
        pixels: the picture, normalised.
        seed: of the shuffled copy and of tied pixels, on which the verdict does not rest.
    """
    size = (pixels.shape[1], pixels.shape[2])
    places = ranks(torch.cat([heat[None], shuffled(heat, 1, seed)]), size, seed)
    (whole, gone), (blurred, _) = Deletion().ends(pixels), Insertion().ends(pixels)
    copies: list[Callable[[], Tensor]] = [lambda: whole, lambda: gone, lambda: blurred]
    copies += [partial(torch.mul, pixels, half) for half in masks(*size)]
    n_masked = len(copies)
    for order, n_steps in zip(places, STEPS, strict=True):
        for hot, cold in ((gone, whole), (whole, blurred)):
            copies += [partial(_changed, order, i / n_steps, hot, cold) for i in range(1, n_steps)]
    batches = torch.arange(len(copies)).split(BATCH_SIZE)
    table = torch.cat([watched.read(torch.stack([copies[i]() for i in batch.tolist()])) for batch in batches])
    ends, inner = table[:3, 0].tolist(), table[n_masked:, 0].tolist()
    curves = []
    for n_steps in STEPS:
        steps = tuple(i / n_steps for i in range(n_steps + 1))
        for first, last in ((0, 1), (2, 0)):
            curves.append(Curve(steps, (ends[first], *inner[: n_steps - 1], ends[last])))
            inner = inner[n_steps - 1 :]
    odds = table[3:n_masked, 1]
    moved = (float(table[:, 0].max() - table[:, 0].min()), float(odds.max() - odds.min()))
    matched = match(odds, heat[None], size)[0]
    return Faithfulness(matched, moved, (curves[0], curves[2]), (curves[1], curves[3]))


def _changed(
    order: Int[Tensor, "h w"], part: float, hot: Float[Tensor, "3 h w"], cold: Float[Tensor, "3 h w"]
) -> Float[Tensor, "3 h w"]:
    """One picture at the hottest places, the other elsewhere."""
    return torch.where(order < round(part * order.numel()), hot, cold)


def regions(share: Float[Tensor, "h w"], cells: Sequence[tuple[int, int]], picture: Picture) -> tuple[Region, ...]:
    """Letters for cells."""
    found, values = [], share.tolist()
    for letter, cell in zip(string.ascii_uppercase, cells, strict=False):
        box = cell_box(cell, (share.shape[0], share.shape[1]))
        found.append(Region(letter, box, picture.to_original(box), values[cell[0]][cell[1]]))
    return tuple(found)


def show_where(
    classifier: Classifier | Sentences | Complement,
    heat: Float[Tensor, "h w"],
    pixels: Float[Tensor, "3 ph pw"] | None,
    *,
    method: str,
    target: int,
    contrast: int | None,
    parts: tuple[Region, ...],
    seed: int = 0,
) -> Where:
    """The map with its regions and, when ``pixels`` are given, how well it goes with what hiding does."""
    label = classifier.classes[target]
    against = None if contrast is None else classifier.classes[contrast]
    if not bool((heat > 0).any()):
        verdict = Verdict("do not rely", f"Nothing on this picture speaks for {label}: the map is zero.", RULE)
        return Where(method, label, against, heat.numpy(), parts, verdict)
    if pixels is None:
        return Where(method, label, against, heat.numpy(), parts, _UNMEASURED)
    watched = Watched(classifier, target, contrast)
    found = measure(watched, heat, pixels, seed)
    (deleted, deleted_random), (inserted, inserted_random) = found.deleted, found.inserted
    return Where(
        method,
        label,
        against,
        heat.numpy(),
        parts,
        judge(found, watched),
        steps=deleted.steps,
        deletion_curve=deleted.values,
        insertion_curve=inserted.values,
        deletion_random_curve=_between(deleted_random),
        insertion_random_curve=_between(inserted_random),
        deletion=round(deleted.area, 4),
        insertion=round(inserted.area, 4),
        deletion_random=round(deleted_random.area, 4),
        insertion_random=round(inserted_random.area, 4),
        match=round(found.match.value, 4),
        match_centre=round(found.match.centre, 4),
    )


def _between(curve: Curve) -> tuple[float, ...]:
    """A curve of half the steps at all of them: on the straight lines between those that were looked at."""
    values = torch.tensor(curve.values)
    return tuple(torch.stack([values[:-1], (values[:-1] + values[1:]) / 2], 1).flatten().tolist()) + curve.values[-1:]


def judge(found: Faithfulness, watched: Watched) -> Verdict:
    """The verdict on a map, and the figures it rests on."""
    rule = RULE if not watched.of_sentence else RULE.replace(_STILL_CLASS, _STILL_SENTENCE)
    quantity, (value, odds) = watched.quantity, found.moved
    (deleted, deleted_random), (inserted, inserted_random) = found.deleted, found.inserted
    still = odds < STILL_COSINE if watched.of_sentence else value < STILL_VALUE and odds < STILL_ODDS
    if still:
        values = [v for curve in (*found.deleted, *found.inserted) for v in curve.values]
        said = f"There is nothing to measure: whatever is hidden, the {quantity} stays between "
        return Verdict("not measured", f"{said}{min(values):.3f} and {max(values):.3f}.", rule)
    odds_of = f"the similarity with {watched.name}" if watched.of_sentence else f"the odds of {watched.name}"
    near = limit_near(found.match)
    aside = "" if near is None else f"; so near the limit of {near:.2f} that a pixel may decide"
    figures = (
        f"The heat matches what hiding halves of the picture does to {odds_of} by {_signed(found.match.value)} (1 at "
        f"most; a bump in the middle {_signed(found.match.centre)}{aside}). The hottest pixels hidden first leave "
        f"{deleted.area:.2f} of the {quantity} (shuffled {deleted_random.area:.2f}), shown first they give "
        f"{inserted.area:.2f} (shuffled {inserted_random.area:.2f})."
    )
    if found.match.value >= BELIEVABLE and found.match.value >= found.match.centre + MARGIN:
        return Verdict("believable", figures, rule)
    return Verdict("partly" if found.match.value >= PARTLY else "do not rely", figures, rule)


def _signed(number: float) -> str:
    return f"{number:.2f}".replace("-", "−")


def limit_near(found: Match) -> float | None:
    """The limit beside which a match lies so close that a picture moved by a pixel may fall on its other side."""
    limits = (PARTLY, max(BELIEVABLE, found.centre + MARGIN))
    return next((limit for limit in limits if abs(found.value - limit) < NEAR), None)
