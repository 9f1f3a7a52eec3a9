"""Where it looked, and whether hiding and showing those places changes the answer as it should."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ..explanation import Region, Verdict, Where
from ..images import Picture
from ..metrics.base import Curve, shuffled
from ..metrics.deletion import Deletion
from ..metrics.insertion import Insertion
from ..prototypes.bank import cell_box

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from .opposite import Opposite
    from .sentences import Sentences

N_RANDOM = 3
RULE = (
    f"Believable when hiding the hottest pixels lowers the probability more, and showing them first raises it more, "
    f"than for each of {N_RANDOM} maps with the same values in shuffled places, a map made of pixels being shuffled in "
    "blocks as large as its spots; partly when only one of the two holds."
)
_UNMEASURED = Verdict("not measured", "Deletion and insertion were switched off.", RULE)


def regions(share: Float[Tensor, "h w"], cells: Sequence[tuple[int, int]], picture: Picture) -> tuple[Region, ...]:
    """Letters for cells."""
    found, values = [], share.tolist()
    for letter, cell in zip(string.ascii_uppercase, cells, strict=False):
        box = cell_box(cell, (share.shape[0], share.shape[1]))
        found.append(Region(letter, box, picture.to_original(box), values[cell[0]][cell[1]]))
    return tuple(found)


def show_where(
    classifier: Classifier | Sentences | Opposite,
    heat: Float[Tensor, "h w"],
    pixels: Float[Tensor, "3 ph pw"] | None,
    *,
    method: str,
    target: int,
    contrast: int | None,
    parts: tuple[Region, ...],
    n_steps: int = 16,
    seed: int = 0,
    quantity: str = "probability",
) -> Where:
    """The map with its regions and, when ``pixels`` are given, its deletion and insertion against shuffled maps."""
    label = classifier.classes[target]
    against = None if contrast is None else classifier.classes[contrast]
    if not bool((heat > 0).any()):
        verdict = Verdict("do not rely", f"Nothing on this picture speaks for {label}: the map is zero.", RULE)
        return Where(method, label, against, heat.numpy(), parts, verdict)
    if pixels is None:
        return Where(method, label, against, heat.numpy(), parts, _UNMEASURED)
    maps = torch.cat([heat[None], shuffled(heat, N_RANDOM, seed)])
    deleted = Deletion(n_steps=n_steps, seed=seed)(classifier.probabilities, pixels, maps, target)
    inserted = Insertion(n_steps=n_steps, seed=seed)(classifier.probabilities, pixels, maps, target)
    return Where(
        method,
        label,
        against,
        heat.numpy(),
        parts,
        judge(deleted, inserted, quantity),
        steps=deleted[0].steps,
        deletion_curve=deleted[0].values,
        insertion_curve=inserted[0].values,
        deletion_random_curve=_mean(deleted[1:]),
        insertion_random_curve=_mean(inserted[1:]),
        deletion=round(deleted[0].area, 4),
        insertion=round(inserted[0].area, 4),
        deletion_random=round(sum(c.area for c in deleted[1:]) / N_RANDOM, 4),
        insertion_random=round(sum(c.area for c in inserted[1:]) / N_RANDOM, 4),
    )


def _mean(curves: Sequence[Curve]) -> tuple[float, ...]:
    return tuple(torch.tensor([c.values for c in curves]).mean(0).tolist())


def judge(deleted: Sequence[Curve], inserted: Sequence[Curve], quantity: str = "probability") -> Verdict:
    """The verdict on a map (first curve) against its shuffled copies (the others); ``quantity`` is what was watched."""
    rule = RULE.replace("probability", quantity)
    falls = all(deleted[0].area < c.area for c in deleted[1:])
    rises = all(inserted[0].area > c.area for c in inserted[1:])
    down = sum(c.area for c in deleted[1:]) / len(deleted[1:])
    up = sum(c.area for c in inserted[1:]) / len(inserted[1:])
    figures = (
        f"Hiding the hottest pixels first leaves {deleted[0].area:.2f} of the {quantity} on average, at shuffled "
        f"places {down:.2f}; showing them first gives {inserted[0].area:.2f}, at shuffled places {up:.2f}."
    )
    if falls and rises:
        return Verdict("believable", figures, rule)
    return Verdict("partly" if falls or rises else "do not rely", figures, rule)
