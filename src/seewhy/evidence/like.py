"""What the strongest regions look like in the user's own pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from ..explanation import Like, Likeness, Missing, Region, Verdict
from ..prototypes.bank import as_box
from ..prototypes.measure import predicted_share
from ..prototypes.nearest import NearestPatches

if TYPE_CHECKING:
    from ..classifiers.base import Classifier

RULE = (
    "Believable when at least two thirds of such neighbours carry the predicted class on held-out pictures and most "
    "of those shown here do; partly when at least one third and three times chance do; otherwise do not rely on them."
)


def show_like(
    classifier: Classifier,
    grid: Float[Tensor, "c h w"],
    pooled: Float[Tensor, " d"],
    digest: str,
    cells: Sequence[tuple[int, int]],
    parts: Sequence[Region],
    predicted: int,
) -> Like | Missing:
    """Neighbours of the lettered regions, or what it would take to have them."""
    bank = classifier.bank
    if bank is None:
        return Missing(
            "This classifier was made without pictures of yours, so there is nothing to compare with.",
            "Fit one on your pictures: seewhy fit PHOTOS -o MODEL, then explain with -m MODEL.",
        )
    if not cells:
        return Missing("No region of this picture speaks for the class.", "Look at the other classes' evidence.")
    groups = NearestPatches()(bank, grid, pooled, cells, digest)
    shown = [
        Likeness(
            part.letter,
            bank.pictures[int(bank.owner[m.patch])].name,
            classifier.classes[int(bank.labels[m.patch])],
            as_box(bank.pixel_boxes[m.patch]),
            part.query_box,
            m.similarity,
            part.share,
            bank.thumbnail(m.patch),
        )
        for part, group in zip(parts, groups, strict=True)
        for m in group
    ]
    measure = classifier.likeness
    return Like(
        "nearest",
        tuple(shown),
        sum(p.share for p in parts),
        None if measure is None else round(measure.precision, 4),
        None if measure is None else round(measure.chance, 4),
        _judge(classifier, predicted_share(bank, groups, predicted), sum(p.share for p in parts), predicted),
    )


def _judge(classifier: Classifier, here: float | None, shown: float, predicted: int) -> Verdict:
    label, measure = classifier.classes[predicted], classifier.likeness
    part = f"these regions are {shown:.0%} of the evidence for {label}"
    if here is None:
        return Verdict("do not rely", f"No neighbour is left after near-duplicates; {part}.", RULE)
    if measure is None:
        return Verdict("not measured", f"Too few pictures were held out to measure neighbours; {part}.", RULE)
    figures = (
        f"On {measure.n} held-out pictures such neighbours carry the predicted class {measure.precision:.0%} of the "
        f"time (chance {measure.chance:.0%}), here {here:.0%}; {part}."
    )
    if measure.precision >= 2 / 3 and here > 0.5:
        return Verdict("believable", figures, RULE)
    if measure.precision >= max(1 / 3, 3 * measure.chance) and here > 0:
        return Verdict("partly", figures, RULE)
    return Verdict("do not rely", figures, RULE)
