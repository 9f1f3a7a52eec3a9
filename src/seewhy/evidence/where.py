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
from .rival import Rival
from .watched import Watched

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from .complement import Complement
    from .sentences import Sentences

STEPS = 6
"""Of the curves of the map and of its shuffled copy alike: an area depends on how many places it is read at."""
BATCH_SIZE = 16
BELIEVABLE, PARTLY, MARGIN = 0.70, 0.50, 0.10
"""Least match, and what it must have more than a bump in the middle; chosen on 50 ImageNet photographs.

``PARTLY`` is also the least match of what a map has more than its rival's with the lead over the rival; chosen on 250.
"""
NEAR = 0.05
"""Of 30 photographs further from both limits 28 keep their level when moved by a pixel, of 20 nearer ones 12."""
STILL_VALUE, STILL_ODDS, STILL_COSINE = 0.12, math.log(4), 0.002
"""Less than this and nothing moves: of a probability, of the logarithm of its odds, of a similarity.

Networks with random weights (ResNet-18, EfficientNet-Lite0, ViT-Ti, three each, on three photographs) stay below .10
and 1.12, pretrained ones above both.
"""
_MATCH = (
    "Half of the picture is hidden in 24 ways, the same for every picture, and the odds of what is explained are "
    "followed. The match is the cosine between what each half adds to their logarithm and the heat in it. Believable "
    f"from {BELIEVABLE:.2f} if a bump in the middle of the picture matches worse by {MARGIN:.2f} at least"
)
_RIVAL = (
    ", and if what the map has more than the map of the next most probable class matches what hiding does to the lead "
    f"over that class, from {PARTLY:.2f}"
)
_LEVELS = (
    f"; partly from a match of {PARTLY:.2f}; otherwise do not rely on it. Of maps that know nothing (random, shuffled, "
    "a bump{others}) at most 1 in 20 is believable, measured on pictures that chose no limit. Where nothing that is "
    "hidden moves the {still}, there is nothing to measure."
)
RULE = (
    _MATCH
    + _RIVAL
    + _LEVELS.format(
        others=") and of maps of another class (a random one, the next one",
        still=f"probability by {STILL_VALUE} or its odds fourfold",
    )
)
RULE_OF_SENTENCE = _MATCH + _LEVELS.format(others="", still=f"similarity by {STILL_COSINE}")
_UNMEASURED = Verdict("not measured", "Deletion and insertion have not been measured.", RULE)


@dataclass(frozen=True)
class Faithfulness:
    """What was found on changed copies of a picture.

    Attributes:
        match: of the heat with what hiding halves does.
        lead: match of what the map has more than its rival's with the lead over the rival; ``None`` where there is no
            rival, or the map would not be believable anyway.
        moved: largest change of the curves' quantity on any copy, and of the logarithm of the odds on any half.
        deleted: the map's deletion, then that of its shuffled copy.
        inserted: the same of insertion.
    """

    match: Match
    moved: tuple[float, float]
    deleted: tuple[Curve, Curve]
    inserted: tuple[Curve, Curve]
    lead: float | None = None


def measure(
    watched: Watched,
    heat: Float[Tensor, "gh gw"],
    pixels: Float[Tensor, "3 h w"],
    seed: int,
    rival: Rival | None = None,
) -> Faithfulness:
    """Look at the picture again: whole, gone and blurred, under 24 masks, and as the hottest pixels go and come.

    Cost: 47 forward passes: those three, 24 masks, 10 for the map's curves and 10 for its shuffled copy's.

    Args:
        watched: what is followed.
        heat: signed.
        pixels: the picture, normalised.
        seed: of the shuffled copy and of tied pixels, on which the verdict does not rest.
        rival: the class that is watched as such; its map costs what the method costs, and is made only of maps that
            would be believable without it.
    """
    size = (pixels.shape[1], pixels.shape[2])
    places = ranks(torch.cat([heat[None], shuffled(heat, 1, seed)]), size, seed)
    (whole, gone), (blurred, _) = Deletion().ends(pixels), Insertion().ends(pixels)
    copies: list[Callable[..., Tensor]] = [partial(torch.mul, end, 1) for end in (whole, gone, blurred)]
    copies += [partial(torch.mul, pixels, half) for half in masks(*size)]
    n_masked = len(copies)
    for order in places:
        for hot, cold in ((gone, whole), (whole, blurred)):
            copies += [partial(_changed, order, i / STEPS, hot, cold) for i in range(1, STEPS)]
    batches = torch.arange(len(copies)).split(BATCH_SIZE)
    table = torch.cat([watched.read(_made([copies[i] for i in batch.tolist()], size)) for batch in batches])
    ends, inner = table[:3, 0].tolist(), table[n_masked:, 0].view(4, STEPS - 1).tolist()
    steps = tuple(i / STEPS for i in range(STEPS + 1))
    curves = [
        Curve(steps, (ends[first], *values, ends[last]))
        for values, (first, last) in zip(inner, ((0, 1), (2, 0)) * 2, strict=True)
    ]
    odds, ahead = table[3:n_masked, 1], table[3:n_masked, 2]
    moved = (float(table[:, 0].max() - table[:, 0].min()), float(odds.max() - odds.min()))
    matched, lead = match(odds, heat[None], size)[0], None
    if rival is not None and stands_out(matched):
        lead = match(ahead, (heat - rival.heat())[None], size)[0].value
    return Faithfulness(matched, moved, (curves[0], curves[2]), (curves[1], curves[3]), lead)


def stands_out(found: Match) -> bool:
    """Whether a map matches well enough, and better than a bump, to be believable."""
    return found.value >= BELIEVABLE and found.value >= found.centre + MARGIN


def _made(copies: Sequence[Callable[..., Tensor]], size: tuple[int, int]) -> Float[Tensor, "b 3 h w"]:
    """A batch of copies, each made in its place, channels last as engines read them."""
    batch = torch.empty((len(copies), 3, *size), memory_format=torch.channels_last)
    for copy, row in zip(copies, batch, strict=True):
        copy(out=row)
    return batch


def _changed(
    order: Int[Tensor, "h w"],
    part: float,
    hot: Float[Tensor, "3 h w"],
    cold: Float[Tensor, "3 h w"],
    out: Float[Tensor, "3 h w"] | None = None,
) -> Float[Tensor, "3 h w"]:
    """One picture at the hottest places, the other elsewhere."""
    return torch.where(order < round(part * order.numel()), hot, cold, out=out)


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
    rival: Rival | None = None,
) -> Where:
    """The map with its regions and, when ``pixels`` are given, how well it goes with what hiding does."""
    label = classifier.classes[target]
    against = None if contrast is None else classifier.classes[contrast]
    if not bool((heat > 0).any()):
        verdict = Verdict("do not rely", f"Nothing on this picture speaks for {label}: the map is zero.", RULE)
        return Where(method, label, against, heat.numpy(), parts, verdict)
    if pixels is None:
        return Where(method, label, against, heat.numpy(), parts, _UNMEASURED)
    watched = Watched(classifier, target, contrast, None if rival is None else rival.index)
    found = measure(watched, heat, pixels, seed, rival)
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
        deletion_random_curve=deleted_random.values,
        insertion_random_curve=inserted_random.values,
        deletion=round(deleted.area, 4),
        insertion=round(inserted.area, 4),
        deletion_random=round(deleted_random.area, 4),
        insertion_random=round(inserted_random.area, 4),
        match=round(found.match.value, 4),
        match_centre=round(found.match.centre, 4),
        rival=None if found.lead is None else watched.rival_name,
        match_lead=None if found.lead is None else round(found.lead, 4),
    )


def judge(found: Faithfulness, watched: Watched) -> Verdict:
    """The verdict on a map, and the figures it rests on."""
    rule = RULE_OF_SENTENCE if watched.of_sentence else RULE
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
        f"most; a bump in the middle {_signed(found.match.centre)}{aside}).{_against_rival(found.lead, watched)} "
        f"The hottest pixels hidden first leave {deleted.area:.2f} of the {quantity} (shuffled "
        f"{deleted_random.area:.2f}), shown first they give {inserted.area:.2f} (shuffled {inserted_random.area:.2f})."
    )
    if stands_out(found.match) and (found.lead is None or found.lead >= PARTLY):
        return Verdict("believable", figures, rule)
    return Verdict("partly" if found.match.value >= PARTLY else "do not rely", figures, rule)


def _against_rival(lead: float | None, watched: Watched) -> str:
    """Whether the map is of its class rather than of the next."""
    if lead is None:
        return ""
    close = f"; so near the limit of {PARTLY:.2f} that a pixel may decide" if abs(lead - PARTLY) < NEAR else ""
    said = (
        f" What it has more than the map of {watched.rival_name} matches the lead over that by {_signed(lead)}{close}"
    )
    return f"{said}." if lead >= PARTLY else f"{said}: as far as hiding tells, the places shown speak for both."


def _signed(number: float) -> str:
    return f"{number:.2f}".replace("-", "−")


def limit_near(found: Match) -> float | None:
    """The limit beside which a match lies so close that a picture moved by a pixel may fall on its other side."""
    limits = (PARTLY, max(BELIEVABLE, found.centre + MARGIN))
    return next((limit for limit in limits if abs(found.value - limit) < NEAR), None)
