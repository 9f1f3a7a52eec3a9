"""What is wrong with a picture beside its label: copies of others, like no class, blank, dark, blurred, odd."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ...classifiers.known_pictures import compact
from ...pictures.miniatures import Likeness, same_pictures, stacked
from ...trust.groups import connected, links, numbered
from ...trust.measure import trust_features
from ...trust.strangeness import Gaussian

FAR = 4.5
"""Robust standard deviations above the median from which a picture is a stranger: 3 of 972 groceries are; of pictures
laid among them, all of 20 ImageNet photographs and 5 of 20 product photographs on white."""
LEAST = 30
"""Pictures below which a spread says nothing."""
BLANK = 0.015
"""Standard deviation of brightness up to which there is nothing to see; the darker a dark picture, the less."""
DARK = 0.3
"""Brightness that 95 of 100 points do not reach. Of 972 photographs of groceries the darkest has .46; at three tenths
of their brightness the lightest has .28."""
BRIGHT = 0.95
"""Brightness that 95 of 100 points exceed; of product photographs on white none has more than .91."""
BLURRED = 0.65
"""Blur from which detail is missing. Groceries have .63 at most, blurred by a Gaussian of 2 points at 224 .64 and more
(98 of 100 are found), by 3 points .76 and more."""
ODD = 4.0
"""Times that a picture's area is above or below the median's, or its shape is more drawn out than the median's."""


@dataclass(frozen=True)
class Copy:
    """Two pictures that are one."""

    first: int
    second: int
    agreement: float
    same_bytes: bool


def find_copies(
    pooled: Float[Tensor, "n d"],
    miniatures: Sequence[UInt8[Tensor, " w"]],
    digests: Sequence[str],
    n_own: int | None = None,
    splits: Sequence[str | None] = (),
) -> tuple[Copy, ...]:
    """Every pair of copies, the first of the data before the second; of more than two with the same bytes, each with
    the first of its split, and the first of a split with those of the others."""
    n = len(digests)
    n_own = n if n_own is None else n_own
    places: dict[str, list[int]] = defaultdict(list)
    for i, digest in enumerate(digests):
        places[digest].append(i)
    files = list(places.values())  # those of the data come first
    of = [file[0] for file in files]
    likeness = Likeness(stacked([miniatures[i] for i in of]), compact(pooled[of]).float() if n else None)
    found = [
        Copy(min(i, j), max(i, j), round(value, 4), False)
        for a, b, value in zip(*(x.tolist() for x in same_pictures(likeness)), strict=True)
        for i in files[a]
        for j in files[b]
        if min(i, j) < n_own
    ]
    return tuple(sorted([*_same(digests, n_own, splits or [None] * n), *found], key=lambda c: (c.first, c.second)))


def _same(digests: Sequence[str], n_own: int, splits: Sequence[str | None]) -> list[Copy]:
    found = []
    first: dict[str, dict[str | None, int]] = {}
    for j, (digest, split) in enumerate(zip(digests, splits, strict=True)):
        there = first.setdefault(digest, {})
        known = [there[split]] if j < n_own and split in there else list(there.values())
        found += [Copy(i, j, 1.0, True) for i in known]
        if j < n_own:
            there.setdefault(split, j)
    return found


def joined(n: int, copies: Sequence[Copy], given: Sequence[str | None]) -> Int[Tensor, " n"]:
    """A number for each picture: copies, and those of one given group, have the same."""
    named = links(numbered([i if g is None else g for i, g in enumerate(given)]))
    return connected(n, named, torch.tensor([(c.first, c.second) for c in copies if c.second < n]).long().view(-1, 2))


def strangeness(
    pooled: Float[Tensor, "n d"], labels: Int[Tensor, " n"], folds: Int[Tensor, " n"], n_classes: int
) -> Float[Tensor, " n"]:
    """How far each picture lies from the nearest class, less from all (relative Mahalanobis distance, Ren et al. 2021,
    arXiv:2106.09022), by Gaussians that saw nothing of its fold, in robust standard deviations above the median; 0
    where there are too few pictures."""
    if len(labels) < LEAST or len(labels.unique()) < 2:
        return torch.zeros(len(labels))
    features, found = trust_features(pooled), torch.zeros(len(labels))
    for fold in folds.unique().tolist():
        mine = folds == fold
        found[mine] = Gaussian.fit(features[~mine], labels[~mine], n_classes).relative(features[mine])
    centre = found.median()
    spread = 1.4826 * (found - centre).abs().median()
    return (found - centre) / spread.clamp(min=1e-9)


@dataclass(frozen=True)
class PixelFacts:
    """Of one picture, as the encoder is shown it."""

    size: tuple[int, int]
    low: float
    high: float
    spread: float
    blur: float


def pixel_facts(pixels: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> PixelFacts:
    """Measure the view that the encoder sees."""
    grey = torch.from_numpy(pixels @ np.array([0.299, 0.587, 0.114], np.float32))[None, None].float() / 255
    low, high = np.quantile(grey.numpy(), (0.05, 0.95))
    return PixelFacts(size, float(low), float(high), round(float(grey.std(correction=0)), 6), _blur(grey))


def _blur(grey: torch.Tensor) -> float:
    """Crété et al. 2007: a sharp picture loses much of its change from point to point when blurred over 9, one that is
    blurred already little; the worse of the two directions."""
    worst = 0.0
    for one in (grey, grey.transpose(2, 3)):
        if min(one.shape[2:]) <= 10:
            return 0.0
        again = avg_pool2d(one, (1, 9), 1)
        before = one[..., 4:-4].diff(dim=3).abs()
        lost = (before - again.diff(dim=3).abs()).clamp(min=0).sum()
        total = float(before.sum())
        worst = max(worst, 0.0 if total < 1e-6 else 1 - float(lost) / total)
    return worst


def pixel_faults(facts: Sequence[PixelFacts]) -> Iterator[tuple[int, str, float, str]]:
    """Place of a picture, kind of fault, how bad from 0 to 1, and why in a sentence; a blank one is nothing else."""
    areas = np.array([f.size[0] * f.size[1] for f in facts], float)
    shapes = np.array([f.size[0] / f.size[1] for f in facts], float)
    area, shape = (float(np.median(values)) if len(facts) else 1.0 for values in (areas, shapes))
    for i, one in enumerate(facts):
        yield from ((i, *fault) for fault in _faults(one))
        yield from ((i, *fault) for fault in _odd(one.size, area, shape))


def _faults(f: PixelFacts) -> Iterator[tuple[str, float, str]]:
    least = BLANK * min(1.0, f.high / DARK)
    if f.spread <= least:
        why = f"Its brightness hardly changes (standard deviation {f.spread:.3f}; up to {least:.3f} it is blank)."
        yield "blank", 1 - f.spread / least if least else 1.0, why
        return
    if f.high < DARK:
        why = f"95 of 100 points are darker than {f.high:.2f} of full brightness; below {DARK:.2f} it counts as dark."
        yield "dark", 1 - f.high / DARK, why
    if f.low > BRIGHT:
        why = f"95 of 100 points are brighter than {f.low:.2f} of full brightness; the limit is {BRIGHT:.2f}."
        yield "overexposed", (f.low - BRIGHT) / (1 - BRIGHT), why
    if f.blur > BLURRED:
        why = (
            f"Blurred once more it keeps {f.blur:.0%} of its change from point to point; a sharp one loses more than "
            f"{1 - BLURRED:.0%} of it."
        )
        yield "blurred", (f.blur - BLURRED) / (1 - BLURRED), why


def _odd(size: tuple[int, int], area: float, shape: float) -> Iterator[tuple[str, float, str]]:
    width, height = size
    times, drawn = width * height / area, width / height / shape
    larger, longer = max(times, 1 / times), max(drawn, 1 / drawn)
    if larger >= ODD:
        side = "more" if times > 1 else "less"
        why = f"It has {width} by {height} pixels, {larger:.1f} times {side} than the median; {ODD:g} counts as odd."
        yield "size", 1 - ODD / larger / 2, why
    if longer >= ODD:
        side = "wider" if drawn > 1 else "higher"
        why = f"At {width} by {height} it is {longer:.1f} times {side} than the median; {ODD:g} counts as odd."
        yield "shape", 1 - ODD / longer / 2, why
