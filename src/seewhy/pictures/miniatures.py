"""Detect copies of a picture that were resaved, scaled, cropped, mirrored, rotated or brightened."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, conv2d, grid_sample, interpolate, normalize, pad

from ..errors import WeightsError
from ..progress import Progress
from ..threads import beside
from .decoding import check_scans

LARGEST = 1 << 24
"""Maximum number of pixels of a saved view."""


def encode_thumbnail(pixels: np.ndarray, quality: int = 85) -> bytes:
    """Encode pixels ``(h, w, 3)`` as JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=quality)
    return file.getvalue()


def decode_thumbnail(data: bytes, name: str) -> np.ndarray:
    """Decode a JPEG that was saved with a model, to pixels ``(h, w, 3)``."""
    try:
        check_scans(data)
        opened = Image.open(io.BytesIO(data), formats=["JPEG"])
        if opened.width * opened.height > LARGEST:
            raise ValueError(f"it has {opened.width} x {opened.height} pixels")
        return np.asarray(opened.convert("RGB"))
    except Exception as error:
        raise WeightsError(f"The saved view of {name!r} cannot be read: {error}. Fit the model again.") from error


SIDE, COLOURED = 64, 32
"""Side lengths of the grey and the two colour planes of a miniature."""
WIDTH = SIDE**2 + 2 * COLOURED**2 + 1
"""Bytes of a miniature: 64 x 64 grey, 32 x 32 red minus grey, 32 x 32 blue minus grey, and the short side."""
GREY = (0.299, 0.587, 0.114)
CELLS = 8
"""Grid cells per side of the rotation-invariant descriptor."""
WEIGHTS = (1.0, 2.0, 2.0, 3.0)
"""Weights of grey, red, blue and detail in the rotation-invariant descriptor."""


def miniature(pixels: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[Tensor, " w"]:
    """Return a compact copy of a picture, which :func:`same_pictures` compares.

    Example:
        >>> miniature(np.zeros((224, 224, 3), np.uint8), (640, 480)).shape
        torch.Size([6145])
    """
    rgb = torch.tensor(pixels).permute(2, 0, 1)[None].float()
    small = interpolate(rgb, (SIDE, SIDE), mode="area")
    grey = grey_of(small)
    colour = interpolate(small[:, ::2] - grey, (COLOURED, COLOURED), mode="area") / 2 + 128
    side = torch.tensor([min(255, *size)])
    return torch.cat([grey.flatten(), colour.flatten(), side]).round().clamp(0, 255).to(torch.uint8)


def opened(rows: UInt8[Tensor, "n w"]) -> tuple[Float[Tensor, "n 3 s s"], Int[Tensor, " n"]]:
    """Return RGB values from 0 to 255 and the short side of each picture, clipped to 255 pixels."""
    n = len(rows)
    grey = rows[:, : SIDE**2].reshape(n, 1, SIDE, SIDE).float()
    colour = (rows[:, SIDE**2 : -1].reshape(n, 2, COLOURED, COLOURED).float() - 128) * 2
    red, blue = interpolate(colour, (SIDE, SIDE), mode="bilinear", align_corners=False).split(1, dim=1)
    green = -(GREY[0] * red + GREY[2] * blue) / GREY[1]
    return torch.cat([red, green, blue], dim=1) + grey, rows[:, -1].long()


def grey_of(colours: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    return (colours * torch.tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)


def turn_free(rows: UInt8[Tensor, "n w"], step: int = 1024) -> Float[Tensor, "n d"]:
    """Return descriptors that are invariant to mirroring and to rotations by 90 degrees.

    Each of 8 x 8 grid cells has two descriptors: the mean over its eight symmetric positions, and the mean deviation
    from this mean.
    """
    with beside(""):
        found = [_turn_free(part) for part in rows.split(step)]
    return torch.cat(found) if found else torch.zeros(0, 80)


def _turn_free(rows: UInt8[Tensor, "n w"]) -> Float[Tensor, "n d"]:
    colours = opened(rows)[0] / 255
    grey = grey_of(colours)
    detail = (grey - avg_pool2d(pad(grey, [2] * 4, mode="replicate"), 5, 1)).abs()
    planes = torch.cat([grey, colours[:, ::2] - grey, detail], dim=1)
    cells = interpolate(planes, (CELLS, CELLS), mode="area") * torch.tensor(WEIGHTS).view(1, 4, 1, 1)
    ways = torch.stack([turned(cells, way) for way in range(8)])
    mean = ways.mean(0)
    spread = (ways - mean).abs().mean(0)
    row, column = torch.triu_indices(CELLS // 2, CELLS // 2)
    return torch.cat([mean[:, :, row, column], spread[:, :, row, column]], dim=2).flatten(1)


def turned(planes: Tensor, way: int) -> Tensor:
    """Rotate the last two dimensions by ``way`` quarter turns, and mirror them if ``way`` is 4 or more."""
    quarter = torch.rot90(planes, way % 4, (-2, -1))
    return quarter.flip(-1) if way >= 4 else quarter


def stacked(miniatures: Sequence[UInt8[Tensor, " w"]]) -> UInt8[Tensor, "n w"]:
    return torch.stack(list(miniatures)) if miniatures else torch.zeros(0, WIDTH, dtype=torch.uint8)


SCALES = (0.8, 0.9, 1.0, 1 / 0.9, 1 / 0.8)
"""Initial scales between the two pictures; Gauss-Newton refines the best."""
REACH = 8
"""Maximum initial shift, in pixels of 32."""
WAYS = 3
"""Number of best initial transforms that are refined."""
AT_A_GLANCE, ROUGHLY = 0.45, 0.6
"""Minimum correlation of details before and after refinement. Of 4,000 copies, 1 in 200 is below 0.51 before or below
0.68 after refinement.
"""
RING = 0.06
"""Margin to ignore at each edge, as a fraction of the side: a slight rotation fills the corners with other content."""
FAINT = 8.0
"""Grey levels added to the local standard deviation, so that flat areas do not count like outlines."""
LEAST_SHARED = 0.45
"""Minimum fraction of the second picture that the first covers."""


class Aligned(NamedTuple):
    """Pairs of pictures, with the first warped onto the second."""

    place: Int[Tensor, " p"]
    first: Float[Tensor, "p 3 s s"]
    second: Float[Tensor, "p 3 s s"]
    inside: Bool[Tensor, "p 1 s s"]
    turn: Float[Tensor, "p 2 3"]


def aligned(first: Float[Tensor, "p 3 s s"], second: Float[Tensor, "p 3 s s"]) -> Aligned | None:
    """Align pairs of pictures, and return the pairs that agree; ``None`` if there are none.

    Gauss-Newton refines the best initial rotations, scales and shifts at 32 x 32 and then at 64 x 64 pixels.
    """
    a, b = (avg_pool2d(grey_of(x), 2) for x in (first, second))
    glance, way, turn = _glance(a, b)
    place = (glance >= AT_A_GLANCE).nonzero()[:, 0]
    if not len(place):
        return None
    way, turn, match = _followed(a[place], b[place], way[place], turn[place])
    kept = match >= ROUGHLY
    place, way, turn = place[kept], way[kept], turn[kept]
    if not len(place):
        return None
    shown = torch.stack([turned(second[i], w) for i, w in zip(place.tolist(), way.tolist(), strict=True)])
    turn = _closer(detail(grey_of(first[place])), detail(grey_of(shown)), turn, 4)
    laid, at = _laid(first[place], turn)
    return Aligned(place, laid, shown, _shared(at), turn)


def detail(grey: Float[Tensor, "n 1 s s"], around: int = 9) -> Float[Tensor, "n 1 s s"]:
    """Return each pixel minus the local mean, divided by the local standard deviation."""
    left = grey - _mean(grey, around)
    return left / (_mean(left**2, around).sqrt() + FAINT)


def correlation(a: Float[Tensor, "n 1 s s"], b: Float[Tensor, "n 1 s s"], inside: Tensor) -> Float[Tensor, " n"]:
    """Return the correlation of each pair of pictures over the pixels ``inside``; 0 if one picture is constant."""
    n = inside.sum((2, 3), keepdim=True).clamp(min=1)
    a, b = ((x - (x * inside).sum((2, 3), keepdim=True) / n) * inside for x in (a, b))
    length = a.flatten(1).norm(dim=1) * b.flatten(1).norm(dim=1)
    return (a * b).sum((1, 2, 3)) / length.clamp(min=1.0)


def _mean(values: Float[Tensor, "n 1 s s"], around: int) -> Float[Tensor, "n 1 s s"]:
    return avg_pool2d(pad(values, [around // 2] * 4, mode="replicate"), around, 1)


def _laid(planes: Float[Tensor, "p c s s"], turn: Float[Tensor, "p 2 3"]) -> tuple[Tensor, Float[Tensor, "p s s 2"]]:
    at = affine_grid(turn, [len(planes), 1, *planes.shape[2:]], align_corners=False)
    return grid_sample(planes, at, mode="bilinear", padding_mode="border", align_corners=False), at


def _shared(at: Float[Tensor, "p s s 2"]) -> Bool[Tensor, "p 1 s s"]:
    """Return a mask of the pixels that both pictures have, without the margins of the pictures."""
    own = _places(at.shape[1]).abs().amax(2) <= 1 - RING
    return (own & (at.abs().amax(3) <= 1 - RING))[:, None]


def _places(side: int) -> Float[Tensor, "s s 2"]:
    line = (torch.arange(side) + 0.5) / side * 2 - 1
    return torch.stack([line[None].expand(side, side), line[:, None].expand(side, side)], dim=2)


def _glance(
    a: Float[Tensor, "p 1 s s"], b: Float[Tensor, "p 1 s s"]
) -> tuple[Float[Tensor, " p"], Int[Tensor, "p k"], Float[Tensor, "p k 2 3"]]:
    """Return the best correlation over rotations, scales and shifts, with the best transforms."""
    side = a.shape[-1]
    # A picture is compared with several others, one after the other, but scaled and transformed once.
    alone, of = a.flatten(1).unique_consecutive(return_inverse=True, dim=0)
    alone = alone.unflatten(1, a.shape[1:])
    scaled = [_unit(*_laid(alone, scale * torch.eye(2, 3).expand(len(alone), 2, 3))) for scale in SCALES]
    unit = _unit(b, None)
    ours, theirs = (torch.fft.rfft2(torch.stack(x, dim=1)) for x in (scaled, [turned(unit, way) for way in range(8)]))
    best, shift = _near(ours[of][:, None].conj() * theirs[:, :, None], side).flatten(3).max(3)
    value, which = best.flatten(1).topk(WAYS, dim=1)
    shift = shift.flatten(1).gather(1, which)
    scale = torch.tensor(SCALES)[which % len(SCALES)]
    turn = scale[..., None, None] * torch.eye(2, 3)
    for axis, points in enumerate((shift % (2 * REACH + 1), shift // (2 * REACH + 1))):
        turn[..., axis, 2] = -scale * (points - REACH) * 2 / side
    return value[:, 0], which // len(SCALES), turn


def _near(spectrum: Tensor, side: int) -> Float[Tensor, "p w k m m"]:
    """Return the inverse of ``rfft2`` at the shifts within ``REACH`` alone, which are a quarter of all."""
    shifts, full, half = torch.arange(-REACH, REACH + 1), torch.arange(side), torch.arange(side // 2 + 1)
    rows, columns = (torch.exp(2j * torch.pi / side * shifts[:, None] * k) / side for k in (full, half))
    columns = columns * torch.where((half == 0) | (half == side // 2), 1.0, 2.0)  # the other half is the conjugate
    partial, columns = rows.to(spectrum.dtype) @ spectrum, columns.T.to(spectrum.dtype)
    return partial.real @ columns.real - partial.imag @ columns.imag


def _unit(planes: Float[Tensor, "p 1 s s"], at: Tensor | None) -> Float[Tensor, "p s s"]:
    left = detail(planes, 5)[:, 0]
    if at is not None:
        left = left * (at.abs().amax(3) <= 1)
    left = left - left.mean((1, 2), keepdim=True)
    return normalize(left.flatten(1), dim=1, eps=1.0).reshape(left.shape)


def _followed(
    a: Float[Tensor, "p 1 s s"], b: Float[Tensor, "p 1 s s"], way: Int[Tensor, "p k"], turn: Float[Tensor, "p k 2 3"]
) -> tuple[Int[Tensor, " p"], Float[Tensor, "p 2 3"], Float[Tensor, " p"]]:
    k, fine = way.shape[1], detail(a, 5).repeat_interleave(way.shape[1], dim=0)
    there = detail(torch.stack([turned(b[i // k], w) for i, w in enumerate(way.flatten().tolist())]), 5)
    closer = _closer(fine, there, turn.flatten(0, 1), 6)
    laid, at = _laid(fine, closer)
    inside = _shared(at)
    match = correlation(laid, there, inside).where(inside.float().mean((1, 2, 3)) > LEAST_SHARED, -1.0)
    value, which = match.unflatten(0, (-1, k)).max(1)
    row = torch.arange(len(which))
    return way[row, which], closer.unflatten(0, (-1, k))[row, which], value


def _closer(
    a: Float[Tensor, "p 1 s s"], b: Float[Tensor, "p 1 s s"], turn: Float[Tensor, "p 2 3"], steps: int
) -> Float[Tensor, "p 2 3"]:
    """Refine affine matrices by Gauss-Newton, together with gain and offset."""
    side = a.shape[-1]
    slope_x, slope_y = torch.zeros_like(a), torch.zeros_like(a)
    slope_x[..., 1:-1] = (a[..., 2:] - a[..., :-2]) * side / 4
    slope_y[..., 1:-1, :] = (a[..., 2:, :] - a[..., :-2, :]) * side / 4
    planes, places = torch.cat([a, slope_x, slope_y], dim=1), _places(side).flatten(0, 1)
    for _ in range(steps):
        laid, at = _laid(planes, turn)
        inside = _shared(at).flatten(1).float()
        value, dx, dy = laid.flatten(2).unbind(1)
        x, y = places.unbind(1)
        columns = torch.stack([dx * x, dx * y, dx, dy * x, dy * y, dy, value, torch.ones_like(value)], dim=2)
        columns = columns * inside[..., None]
        square = columns.mT @ columns
        ridge = square.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * 1e-4 + 1e-6
        found = torch.linalg.solve(square + ridge * torch.eye(8), columns.mT @ (b.flatten(1) * inside)[..., None])
        step = found[:, :6, 0] / found[:, 6:7, 0].clamp(min=0.25)
        turn = turn + step.clamp(-0.1, 0.1).unflatten(1, (2, 3))
    return turn


CANDIDATES = 8
"""Nearest neighbours of each picture that are compared, by features and by the rotation-invariant descriptor."""
LEAST_COSINE, FARTHEST = 0.7, 0.35
"""Minimum cosine similarity and maximum distance of candidates. Crops by a tenth have more than 0.7, rotations less
than 0.05."""
MOST_GAIN = 1.6
"""Maximum ratio of brightness between two copies."""
CLIPPED = 250.0
"""Value, from 0 to 255, above which a pixel may be saturated."""
MOST_TILT, MOST_STRETCH, LARGER = 6.0, 1.16, (0.73, 1.37)
"""Maximum rotation in degrees, maximum ratio of the sides, and range of the scale between two copies."""
STEP = 128


class Limits(NamedTuple):
    """Thresholds above which two pictures count as copies, if both have a short side of at least ``side`` pixels.

    Details are compared at ``points`` x ``points`` pixels. The correlation of the details must be at least ``overall``,
    and at least ``everywhere`` in each of 7 x 7 overlapping windows. In 95 % of 16 x 16 grid cells, colour and
    brightness must differ by at most ``colour`` and ``brightness``, on a scale from 0 to 255.
    """

    side: int
    points: int
    overall: float
    everywhere: float
    colour: float
    brightness: float


LIMITS = (Limits(128, 64, 0.96, 0.93, 6, 10), Limits(48, 32, 0.96, 0.93, 6, 10), Limits(0, 32, 0.9, 0.8, 20, 32))
"""Chosen on the training splits of six data sets; docs/measured.md has the results."""


@dataclass(frozen=True)
class Likeness:
    """The miniatures of pictures, and optionally their features."""

    miniatures: UInt8[Tensor, "n w"]
    features: Float[Tensor, "n d"] | None = None


def same_pictures(
    ours: Likeness, theirs: Likeness | None = None, progress: Progress | None = None
) -> tuple[Tensor, Tensor, Float[Tensor, " pair"]]:
    """Return the index pairs of copies, and the correlation of each pair."""
    there = ours if theirs is None else theirs
    first, second = _candidates(ours, there, within=theirs is None)
    parts = list(zip(first.split(STEP), second.split(STEP), strict=True))
    counted = (progress or Progress()).track(parts, "Comparing pictures that may be copies", len(parts))
    with beside(""):  # on a busy machine, threads that wait for each other take seven times as long
        found = [agreement(ours.miniatures[i], there.miniatures[j]) for i, j in counted if len(i)]
    value = torch.cat(found) if found else torch.zeros(0)
    same = value > 0
    return first[same], second[same], value[same]


def agreement(first: UInt8[Tensor, "p w"], second: UInt8[Tensor, "p w"]) -> Float[Tensor, " p"]:
    """Return the correlation of each pair of miniatures after alignment; 0 if they are not copies."""
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
    n, m = len(ours.miniatures), len(theirs.miniatures)
    keys = [torch.zeros(0, dtype=torch.long)]
    glances = [(turn_free(ours.miniatures), turn_free(theirs.miniatures), -FARTHEST, False)]
    if ours.features is not None and theirs.features is not None:
        glances.append((normalize(ours.features, dim=1), normalize(theirs.features, dim=1), LEAST_COSINE, True))
    for of, among, least, cosine in glances:
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


def _as_bright(a: Tensor, b: Tensor, inside: Bool[Tensor, "p 1 s s"]) -> tuple[Tensor, Tensor]:
    """Scale the darker picture of each pair to the brightness of the other, clipped to 255."""
    open_ = inside & (a.amax(1, keepdim=True) < CLIPPED) & (b.amax(1, keepdim=True) < CLIPPED)
    gain = (a * b * open_).sum((1, 2, 3)) / (a * a * open_).sum((1, 2, 3)).clamp(min=1)
    gain = gain.where(open_.sum((1, 2, 3)) >= a.shape[-1], 1.0).clamp(1 / MOST_GAIN, MOST_GAIN)[:, None, None, None]
    return (a * gain.clamp(min=1)).clamp(0, 255), (b / gain.clamp(max=1)).clamp(0, 255)


def _plausible(matrix: Float[Tensor, "p 2 2"]) -> Bool[Tensor, " p"]:
    """Return whether each matrix is a slight rotation, stretch and scaling."""
    u, size, v = torch.linalg.svd(matrix)
    tilt = torch.atan2(*(u @ v)[:, :, 0].flip(1).unbind(1)).abs().rad2deg()
    within = (size[:, 1] >= LARGER[0]) & (size[:, 0] <= LARGER[1])
    return within & (tilt <= MOST_TILT) & (size[:, 0] <= MOST_STRETCH * size[:, 1])


def _agreement(a: Tensor, b: Tensor, inside: Float[Tensor, "p 1 s s"], limits: Limits) -> Float[Tensor, " p"]:
    if (by := a.shape[-1] // limits.points) > 1:
        a, b, inside = avg_pool2d(a, by), avg_pool2d(b, by), (avg_pool2d(inside, by) > 0.9).float()
    a = a.where(inside > 0, b)  # what lies outside must not tell in the detail at the edge
    kernel = torch.tensor([1.0, 2.0, 1.0]) / 4

    def smooth(grey: Tensor) -> Tensor:
        return conv2d(pad(grey, [1] * 4, mode="replicate"), (kernel[:, None] * kernel)[None, None])

    # Blurred twice over three points, so that what scaling and saving take away does not count.
    fine, other = (detail(smooth(smooth(grey_of(x)))) for x in (a, b))
    overall = correlation(fine, other, inside)
    colour, brightness = _differences(a, b, inside)
    same = (overall >= limits.overall) & (_everywhere(fine, other, inside) >= limits.everywhere)
    same &= (colour <= limits.colour) & (brightness <= limits.brightness)
    return overall.where(same, 0.0)


def _everywhere(a: Tensor, b: Tensor, inside: Float[Tensor, "p 1 s s"]) -> Float[Tensor, " p"]:
    window = a.shape[-1] // 4
    products = a * b * inside, a * a * inside, b * b * inside, inside
    ab, aa, bb, shared = (avg_pool2d(x, window, window // 2) for x in products)
    energy = ((aa + bb) / 2).where(shared > 0.5, 0.0)
    counts = energy > 0.15 * energy.amax((1, 2, 3), keepdim=True)
    return (ab / (aa * bb).sqrt().clamp(min=1e-3)).where(counts, 1.0).amin((1, 2, 3))


def _differences(a: Tensor, b: Tensor, inside: Tensor) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"]]:
    """Return the 95th percentiles of the colour and brightness differences over the grid cells."""
    by = a.shape[-1] // 16
    part = avg_pool2d(inside, by)
    counts = part > 0.6
    a, b = (avg_pool2d(x * inside, by) / part.clamp(min=1e-6) for x in (a, b))
    grey, other = grey_of(a), grey_of(b)
    colour = ((a[:, ::2] - grey) - (b[:, ::2] - other)).norm(dim=1, keepdim=True)
    both = (x.where(counts, 0.0).flatten(1).quantile(0.95, dim=1) for x in (colour, (grey - other).abs()))
    return next(both), next(both)
