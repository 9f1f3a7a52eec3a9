"""Faithfulness of a map: whether hiding parts of the picture changes the output as the map predicts.

The picture is divided into 4 × 4 fields, of which half are hidden. The hidden fields follow the twelve smoothest Walsh
patterns and their complements, which are the same for every picture. Each field is visible as often as it is hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate, pad

from ..explanation.verdict import Verdict
from ..metrics.base import Score, curve_score, ranks, shuffled, upsampled
from ..metrics.controls import centred_bump
from ..metrics.removal import Deletion, Insertion
from .case import Watched

SIDE = 4
_WALSH = ((1, 1, 1, 1), (1, 1, -1, -1), (1, -1, -1, 1), (1, -1, 1, -1))
_SMOOTHEST = 4
"""Largest number of sign changes of a pattern along both sides together."""


@cache
def patterns() -> Float[Tensor, "k s s"]:
    """Return the Walsh patterns: 1 for visible fields, −1 for hidden ones."""
    walsh = torch.tensor(_WALSH, dtype=torch.float32)
    pairs = [(i, j) for i in range(SIDE) for j in range(SIDE) if 0 < i + j <= _SMOOTHEST]
    return torch.stack([torch.outer(walsh[i], walsh[j]) for i, j in pairs])


@cache
def masks(height: int, width: int) -> Float[Tensor, "n 1 h w"]:
    """Return masks with soft edges for the patterns and then for their complements; 1 is visible."""
    both = torch.cat([patterns(), -patterns()])[:, None]
    half = max(1, min(height, width) // 32)
    full = interpolate((both + 1) / 2, size=(height, width), mode="nearest-exact")
    return avg_pool2d(pad(full, (half, half, half, half), mode="replicate"), 2 * half + 1, 1)


STEPS = 6
"""Number of steps of every curve."""
BATCH_SIZE = 16
BELIEVABLE, PARTLY, MARGIN = 0.70, 0.50, 0.10
"""Smallest match of each verdict, and smallest lead over a central Gaussian; chosen on 50 ImageNet photographs."""
NEAR = 0.05
"""Distance from a limit below which a shift by one pixel may change the verdict."""
STILL_VALUE, STILL_ODDS, STILL_COSINE = 0.12, math.log(4), 0.002
"""Smallest measurable change of a probability, of its log-odds, and of a similarity."""
_MATCH = (
    "SeeWhy hides half of the picture in 24 ways and measures the odds of the explained class or sentence. The match "
    "is the cosine between the heat in each half and the effect of that half on the log-odds. The map is believable "
    f"if its match is at least {BELIEVABLE:.2f}, and at least {MARGIN:.2f} higher than the match of a spot in the "
    "centre of the picture"
)
_RIVAL = (
    ". SeeWhy also subtracts the map of the next most probable class. The result must match the effect of each half "
    f"on the difference of the two logits, by at least {PARTLY:.2f}"
)
_LEVELS = (
    f". The map is partly believable if its match is at least {PARTLY:.2f}. Otherwise do not rely on it. On pictures "
    "that were not used to choose these limits, at most 1 in 20 maps without information is believable (random, "
    "shuffled, a spot in the centre{others}). If hiding never changes the {still}, the map cannot be checked."
)
RULE = (
    _MATCH
    + _RIVAL
    + _LEVELS.format(
        others=", a random class, the next class", still=f"probability by {STILL_VALUE} or its odds fourfold"
    )
)
RULE_OF_SENTENCE = _MATCH + _LEVELS.format(others="", still=f"similarity by {STILL_COSINE}")


@dataclass(frozen=True)
class Match:
    value: float
    centre: float


def match(odds: Float[Tensor, " n"], maps: Float[Tensor, "m gh gw"], size: tuple[int, int]) -> tuple[Match, ...]:
    """Return the match of each map: the cosine between the heat in the hidden halves and the effects of hiding them."""
    first, last = odds.double().chunk(2)
    heat = torch.cat([upsampled(maps, size), centred_bump(*size)[None]]).double()
    in_halves = torch.einsum("khw,mhw->mk", patterns().double(), adaptive_avg_pool2d(heat, SIDE))
    *values, centre = (_cosine(one, first - last) for one in in_halves)
    return tuple(Match(value, centre) for value in values)


def _cosine(a: Float[Tensor, " k"], b: Float[Tensor, " k"]) -> float:
    """Return the cosine; 0 if a vector is nearly zero."""
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length > 1e-9 else 0.0


@dataclass(frozen=True)
class Faithfulness:
    match: Match
    moved: tuple[float, float]
    deleted: tuple[Score, Score]
    inserted: tuple[Score, Score]
    lead: float | None = None


def measure(
    watched: Watched,
    heat: Float[Tensor, "gh gw"],
    pixels: Float[Tensor, "3 h w"],
    seed: int,
    rival: Callable[[], Float[Tensor, "h w"]] | None = None,
) -> Faithfulness:
    """Compute match (:func:`match`), deletion and insertion of a map, in 47 forward passes."""
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
        curve_score(steps, (ends[first], *values, ends[last]))
        for values, (first, last) in zip(inner, ((0, 1), (2, 0)) * 2, strict=True)
    ]
    odds, ahead = table[3:n_masked, 1], table[3:n_masked, 2]
    moved = (float(table[:, 0].max() - table[:, 0].min()), float(odds.max() - odds.min()))
    matched, lead = match(odds, heat[None], size)[0], None
    if rival is not None and stands_out(matched):
        lead = match(ahead, (heat - rival())[None], size)[0].value
    return Faithfulness(matched, moved, (curves[0], curves[2]), (curves[1], curves[3]), lead)


def stands_out(found: Match) -> bool:
    """Return whether a map is believable: its match is high, and clearly higher than that of a centred Gaussian."""
    return found.value >= BELIEVABLE and found.value >= found.centre + MARGIN


def _made(copies: Sequence[Callable[..., Tensor]], size: tuple[int, int]) -> Float[Tensor, "b 3 h w"]:
    """Build a batch of changed copies in channels-last layout."""
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
    """Return ``hot`` at the hottest pixels and ``cold`` elsewhere."""
    return torch.where(order < round(part * order.numel()), hot, cold, out=out)


def judge(found: Faithfulness, watched: Watched) -> Verdict:
    rule = RULE_OF_SENTENCE if watched.of_sentence else RULE
    quantity, (value, odds) = watched.quantity, found.moved
    (deleted, deleted_random), (inserted, inserted_random) = found.deleted, found.inserted
    still = odds < STILL_COSINE if watched.of_sentence else value < STILL_VALUE and odds < STILL_ODDS
    if still:
        values = [v for curve in (*found.deleted, *found.inserted) for v in curve.parts["values"]]
        figures = f"The {quantity} stays between {min(values):.3f} and {max(values):.3f}, whatever is hidden."
        said = f"Hiding parts of the picture hardly changes the {_plain(watched)}, so the heat cannot be checked."
        return Verdict("not measured", said, rule, figures)
    odds_of = f"the similarity with {watched.name}" if watched.of_sentence else f"the odds of {watched.name}"
    near = limit_near(found.match)
    aside = "" if near is None else f" {_close(near)}"
    figures = (
        f"When SeeWhy hides halves of the picture, the heat matches the change in {odds_of} by "
        f"{_signed(found.match.value)} of 1; a spot in the centre matches it by "
        f"{_signed(found.match.centre)}.{aside}{_against_rival(found.lead, watched)} Hiding the hottest parts first "
        f"leaves a mean {quantity} of {deleted.value:.2f} (random parts: {deleted_random.value:.2f}); showing them "
        f"first gives {inserted.value:.2f} (random parts: {inserted_random.value:.2f})."
    )
    is_own = found.lead is None or found.lead >= PARTLY
    if stands_out(found.match) and is_own:
        return Verdict("believable", _said("changes the {} where the heat says it should", watched), rule, figures)
    if found.match.value < PARTLY:
        return Verdict(
            "do not rely", _said("does not change the {} where the heat says it should", watched), rule, figures
        )
    if not is_own and watched.rival is not None:
        said = f"These places matter, but they are evidence for {watched.name_of(watched.rival)} as well."
    elif found.match.value >= BELIEVABLE:
        said = "The heat is in the right places, but a spot in the centre would match nearly as well."
    else:
        said = _said("changes the {} mostly where the heat says it should", watched)
    return Verdict("partly", said, rule, figures)


def _said(what: str, watched: Watched) -> str:
    return f"Hiding parts of the picture {what.format(_plain(watched))}."


def _plain(watched: Watched) -> str:
    return "similarity" if watched.of_sentence else "prediction"


def _close(limit: float) -> str:
    return f"The match is close to the limit of {limit:.2f}, so moving the picture by one pixel may change the verdict."


def _against_rival(lead: float | None, watched: Watched) -> str:
    if lead is None or watched.rival is None:
        return ""
    close = f" {_close(PARTLY)}" if abs(lead - PARTLY) < NEAR else ""
    both = "" if lead >= PARTLY else " So these places are evidence for both classes."
    rival = watched.name_of(watched.rival)
    return f" After SeeWhy subtracts the map and the logit of {rival}, the match is {_signed(lead)} of 1.{close}{both}"


def _signed(number: float) -> str:
    return f"{number:.2f}".replace("-", "−")


def limit_near(found: Match) -> float | None:
    """Return the verdict's limit if the match differs from it by less than 0.05, otherwise ``None``."""
    limits = (PARTLY, max(BELIEVABLE, found.centre + MARGIN))
    return next((limit for limit in limits if abs(found.value - limit) < NEAR), None)
