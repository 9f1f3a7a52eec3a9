"""One picture laid on another: which way it is turned, how far it is shifted, scaled and tilted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, normalize, pad

from .miniatures import grey_of, turned

SCALES = (0.8, 0.9, 1.0, 1 / 0.9, 1 / 0.8)
"""Of the one picture to the other, that are tried; what lies between is found from the nearest."""
REACH = 8
"""Points of 32 by which the one may be shifted."""
WAYS = 3
"""Turns, scales and shifts that are followed up, of those that were tried."""
AT_A_GLANCE, ROUGHLY = 0.45, 0.6
"""Correlation of details at 32 points below which a pair is given up, tried and followed up. Of 4,000 copies of six
sets 1 in 200 is below .51 or .68."""
RING = 0.06
"""Part of a side that does not count at every edge: what comes into the corners when a picture is turned by little."""
FAINT = 8.0
"""Grey levels of 255: spread around a point above which its detail counts alike, so that outlines do not drown it."""
LEAST_SHARED = 0.45
"""Part of the second picture that the first covers."""


@dataclass(frozen=True)
class Aligned:
    """Pairs of which one was laid on the other.

    Attributes:
        place: of each among the pairs given; those that are given up are missing.
        first, second: colours of both, the second turned.
        inside: where both have points.
        turn: the matrix and shift that lead from a point of the second to one of the first.
    """

    place: Int[Tensor, " p"]
    first: Float[Tensor, "p 3 s s"]
    second: Float[Tensor, "p 3 s s"]
    inside: Bool[Tensor, "p 1 s s"]
    turn: Float[Tensor, "p 2 3"]


def aligned(first: Float[Tensor, "p 3 s s"], second: Float[Tensor, "p 3 s s"]) -> Aligned | None:
    """Lay first pictures on second ones, where they agree at all; ``None`` where none do.

    All turns by quarters, mirrored or not, are tried at five scales and all shifts by one Fourier transform each; the
    best are followed up by Gauss-Newton on shift and matrix, at 32 points and then at 64.
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
    """Each point less the mean of those around it, as a part of their spread."""
    left = grey - _mean(grey, around)
    return left / (_mean(left**2, around).sqrt() + FAINT)


def correlation(a: Float[Tensor, "n 1 s s"], b: Float[Tensor, "n 1 s s"], inside: Tensor) -> Float[Tensor, " n"]:
    """Of two pictures' points that are inside; 0 where one has no spread."""
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
    """Where both pictures have points, less the ring around each."""
    own = _places(at.shape[1]).abs().amax(2) <= 1 - RING
    return (own & (at.abs().amax(3) <= 1 - RING))[:, None]


def _places(side: int) -> Float[Tensor, "s s 2"]:
    line = (torch.arange(side) + 0.5) / side * 2 - 1
    return torch.stack([line[None].expand(side, side), line[:, None].expand(side, side)], dim=2)


def _glance(
    a: Float[Tensor, "p 1 s s"], b: Float[Tensor, "p 1 s s"]
) -> tuple[Float[Tensor, " p"], Int[Tensor, "p k"], Float[Tensor, "p k 2 3"]]:
    """Best correlation over turns, scales and shifts, and turn and matrix of the best of them."""
    n, side = len(a), a.shape[-1]
    scaled = [_unit(*_laid(a, scale * torch.eye(2, 3).expand(n, 2, 3))) for scale in SCALES]
    ways = [_unit(turned(b, way), None) for way in range(8)]
    ours, theirs = (torch.fft.rfft2(torch.stack(x, dim=1)) for x in (scaled, ways))
    match = torch.fft.irfft2(ours[:, None].conj() * theirs[:, :, None], s=(side, side))
    near = torch.roll(match, (REACH, REACH), (3, 4))[..., : 2 * REACH + 1, : 2 * REACH + 1]
    best, shift = near.flatten(3).max(3)
    value, which = best.flatten(1).topk(WAYS, dim=1)
    shift = shift.flatten(1).gather(1, which)
    scale = torch.tensor(SCALES)[which % len(SCALES)]
    turn = scale[..., None, None] * torch.eye(2, 3)
    for axis, points in enumerate((shift % (2 * REACH + 1), shift // (2 * REACH + 1))):
        turn[..., axis, 2] = -scale * (points - REACH) * 2 / side
    return value[:, 0], which // len(SCALES), turn


def _unit(planes: Float[Tensor, "p 1 s s"], at: Tensor | None) -> Float[Tensor, "p s s"]:
    """Details of mean 0 and length 1; 0 outside the picture."""
    left = detail(planes, 5)[:, 0]
    if at is not None:
        left = left * (at.abs().amax(3) <= 1)
    left = left - left.mean((1, 2), keepdim=True)
    return normalize(left.flatten(1), dim=1, eps=1.0).reshape(left.shape)


def _followed(
    a: Float[Tensor, "p 1 s s"], b: Float[Tensor, "p 1 s s"], way: Int[Tensor, "p k"], turn: Float[Tensor, "p k 2 3"]
) -> tuple[Int[Tensor, " p"], Float[Tensor, "p 2 3"], Float[Tensor, " p"]]:
    """The best of the ways, each made closer."""
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
    """Gauss-Newton on the six numbers of the turn, with gain and offset fitted beside them."""
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
