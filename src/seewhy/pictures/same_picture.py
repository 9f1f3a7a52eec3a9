"""Whether two pictures are the same one: saved anew, scaled, cut, mirrored, turned, darkened or brightened.

Candidates are the likest by an encoder's features and by numbers that no turn by quarters changes; each pair is then
laid on one another (:mod:`seewhy.pictures.alignment`) and must agree everywhere, in detail, brightness and colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, normalize, pad

from .alignment import aligned, correlation, detail
from .miniatures import grey_of, opened, turn_free

CANDIDATES = 8
"""Likest pictures of each that are looked at closely, by features and by what no turn changes."""
LEAST_COSINE, FARTHEST = 0.7, 0.35
"""Of candidates. Copies have more than .7 cut by a tenth, and less than .05 turned by quarters."""
MOST_GAIN = 1.6
"""Times that the one may be brighter than the other."""
CLIPPED = 250.0
"""Levels of 255 above which brightness may have been cut off."""
MOST_TILT, MOST_STRETCH, SCALES = 6.0, 1.16, (0.73, 1.37)
"""Degrees, ratio of sides, and scale of the one picture to the other: a view of the thing from elsewhere is no copy."""
STEP = 128


class Limits(NamedTuple):
    """What a pair must keep to be one picture.

    Attributes:
        side: short side of the smaller picture in pixels, from which on these hold.
        points: a side at which details are compared.
        overall, everywhere: least correlation of details, of the whole and in each of 7 by 7 overlapping windows.
        colour, brightness: levels of 255 by which 95 of 100 cells of 16 by 16 may differ at most.
    """

    side: int
    points: int
    overall: float
    everywhere: float
    colour: float
    brightness: float


LIMITS = (Limits(128, 64, 0.96, 0.93, 6, 10), Limits(48, 32, 0.96, 0.93, 6, 10), Limits(0, 32, 0.9, 0.8, 20, 32))
"""Chosen on the training lists of six sets (docs/check.md says on which, and what they do on others)."""


@dataclass(frozen=True)
class Likeness:
    """What pictures are compared by.

    Attributes:
        miniatures: of each, as :func:`~seewhy.pictures.miniatures.miniature` makes them.
        features: by one encoder, or none.
    """

    miniatures: UInt8[Tensor, "n w"]
    features: Float[Tensor, "n d"] | None = None


def same_pictures(ours: Likeness, theirs: Likeness | None = None) -> tuple[Tensor, Tensor, Float[Tensor, " pair"]]:
    """Places of pictures that are the same one, and how far their details agree.

    Costs a product of the numbers of pictures for the glance, and sixteen close looks a picture at most.
    """
    first, second = _candidates(ours, ours if theirs is None else theirs, within=theirs is None)
    there = ours if theirs is None else theirs
    parts = zip(first.split(STEP), second.split(STEP), strict=True)
    found = [agreement(ours.miniatures[i], there.miniatures[j]) for i, j in parts if len(i)]
    value = torch.cat(found) if found else torch.zeros(0)
    same = value > 0
    return first[same], second[same], value[same]


def agreement(first: UInt8[Tensor, "p w"], second: UInt8[Tensor, "p w"]) -> Float[Tensor, " p"]:
    """Correlation of two miniatures' details, laid on one another; 0 where they are not the same picture."""
    (a, side_a), (b, side_b) = opened(first), opened(second)
    pair, value = aligned(a, b), torch.zeros(len(first))
    if pair is None:
        return value
    ours, theirs = _as_bright(pair.first, pair.second, pair.inside)
    side, plausible = torch.minimum(side_a, side_b)[pair.place], _plausible(pair.turn[:, :, :2])
    for k, limits in enumerate(LIMITS):
        mine = plausible & (side >= limits.side) & (side < (LIMITS[k - 1].side if k else 256))
        if bool(mine.any()):
            value[pair.place[mine]] = _agreement(ours[mine], theirs[mine], pair.inside[mine].float(), limits)
    return value


def _candidates(ours: Likeness, theirs: Likeness, *, within: bool) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    """Pairs that are worth a close look, in order."""
    n, m = len(ours.miniatures), len(theirs.miniatures)
    keys = [torch.zeros(0, dtype=torch.long)]
    for of, among, least, cosine in _glances(ours, theirs):
        for start in range(0, n, 4 * STEP):
            part = of[start : start + 4 * STEP]
            alike = part @ among.T if cosine else -torch.cdist(part, among)
            row = torch.arange(len(part))
            if within:
                alike[row, row + start] = -torch.inf
            value, which = alike.topk(min(CANDIDATES, m), dim=1)
            i, k = (value >= least).nonzero(as_tuple=True)
            one, other = i + start, which[i, k]
            keys.append(torch.minimum(one, other) * m + torch.maximum(one, other) if within else one * m + other)
    key = torch.cat(keys).unique()
    return key // max(m, 1), key % max(m, 1)


def _glances(ours: Likeness, theirs: Likeness) -> list[tuple[Tensor, Tensor, float, bool]]:
    by = [(turn_free(ours.miniatures), turn_free(theirs.miniatures), -FARTHEST, False)]
    if ours.features is not None and theirs.features is not None:
        by.append((normalize(ours.features, dim=1), normalize(theirs.features, dim=1), LEAST_COSINE, True))
    return by


def _as_bright(a: Tensor, b: Tensor, inside: Bool[Tensor, "p 1 s s"]) -> tuple[Tensor, Tensor]:
    """Both as bright as the brighter, cut off where that would be."""
    open_ = inside & (a.amax(1, keepdim=True) < CLIPPED) & (b.amax(1, keepdim=True) < CLIPPED)
    gain = (a * b * open_).sum((1, 2, 3)) / (a * a * open_).sum((1, 2, 3)).clamp(min=1)
    gain = gain.where(open_.sum((1, 2, 3)) >= a.shape[-1], 1.0).clamp(1 / MOST_GAIN, MOST_GAIN)[:, None, None, None]
    return (a * gain.clamp(min=1)).clamp(0, 255), (b / gain.clamp(max=1)).clamp(0, 255)


def _plausible(matrix: Float[Tensor, "p 2 2"]) -> Bool[Tensor, " p"]:
    """Whether it is a small tilt and a scale, as of a picture that was cut or turned a little."""
    u, size, v = torch.linalg.svd(matrix)
    tilt = torch.atan2(*(u @ v)[:, :, 0].flip(1).unbind(1)).abs().rad2deg()
    within = (size[:, 1] >= SCALES[0]) & (size[:, 0] <= SCALES[1])
    return within & (tilt <= MOST_TILT) & (size[:, 0] <= MOST_STRETCH * size[:, 1])


def _agreement(a: Tensor, b: Tensor, inside: Float[Tensor, "p 1 s s"], limits: Limits) -> Float[Tensor, " p"]:
    if (by := a.shape[-1] // limits.points) > 1:
        a, b, inside = avg_pool2d(a, by), avg_pool2d(b, by), (avg_pool2d(inside, by) > 0.9).float()
    a = a.where(inside > 0, b)  # what lies outside must not tell in the detail at the edge
    fine, other = (detail(_smooth(grey_of(x))) for x in (a, b))
    overall = correlation(fine, other, inside)
    colour, brightness = _differences(a, b, inside)
    same = (overall >= limits.overall) & (_everywhere(fine, other, inside) >= limits.everywhere)
    same &= (colour <= limits.colour) & (brightness <= limits.brightness)
    return overall.where(same, 0.0)


def _everywhere(a: Tensor, b: Tensor, inside: Float[Tensor, "p 1 s s"]) -> Float[Tensor, " p"]:
    """The least correlation of all windows that have detail."""
    window = a.shape[-1] // 4
    ab, aa, bb, shared = (avg_pool2d(x, window, window // 2) for x in (*_products(a, b, inside), inside))
    energy = ((aa + bb) / 2).where(shared > 0.5, 0.0)
    counts = energy > 0.15 * energy.amax((1, 2, 3), keepdim=True)
    return (ab / (aa * bb).sqrt().clamp(min=1e-3)).where(counts, 1.0).amin((1, 2, 3))


def _products(a: Tensor, b: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return a * b * inside, a * a * inside, b * b * inside


def _differences(a: Tensor, b: Tensor, inside: Tensor) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"]]:
    """Of colour and of brightness, which 95 of 100 cells do not exceed."""
    by = a.shape[-1] // 16
    part = avg_pool2d(inside, by)
    counts = part > 0.6
    a, b = (avg_pool2d(x * inside, by) / part.clamp(min=1e-6) for x in (a, b))
    grey, other = grey_of(a), grey_of(b)
    colour = ((a[:, ::2] - grey) - (b[:, ::2] - other)).norm(dim=1, keepdim=True)
    both = (x.where(counts, 0.0).flatten(1).quantile(0.95, dim=1) for x in (colour, (grey - other).abs()))
    return next(both), next(both)


def _smooth(grey: Float[Tensor, "p 1 s s"]) -> Float[Tensor, "p 1 s s"]:
    """Blurred twice over three points, so that what scaling and saving take away does not count."""
    kernel = torch.tensor([1.0, 2.0, 1.0]) / 4
    for _ in range(2):
        grey = conv2d(pad(grey, [1] * 4, mode="replicate"), (kernel[:, None] * kernel)[None, None])
    return grey
