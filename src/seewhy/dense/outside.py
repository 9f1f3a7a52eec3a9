"""How much of a part's score comes from what is outside it: deletion inside, outside, and as much elsewhere."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..evidence.faithfulness import STILL_ODDS, STILL_VALUE
from ..evidence.goals import Watched
from ..explanation.part import Outside
from ..explanation.verdict import Verdict

N_ELSEWHERE, N_TRIED = 4, 64
"""Places where the same shape is hidden, and those from which the ones that overlap the part least are taken."""
MOSTLY, HALF = 0.7, 0.5
RULE = (
    "The part is hidden, then all else, then both, and the odds of its name are followed; Shapley values of the two "
    "halves say how much of what the picture does to the odds is done inside. Believable, as evidence that lies "
    f"within the part, from {MOSTLY:.2f} if hiding the part lowers the odds by more than hiding the same shape at any "
    f"of {N_ELSEWHERE} other places; partly from {HALF:.2f}; otherwise do not rely on it: most of the score comes from "
    "what the heat does not show. The limits are chosen, not measured."
)


def measure_outside(
    watched: Watched, pixels: Float[Tensor, "3 h w"], inside: Bool[Tensor, "h w"], kind: str, seed: int
) -> Outside:
    """Look at the picture whole, without the part, with it alone, without anything, and with as much hidden elsewhere.

    What is hidden becomes the mean colour, as in deletion. Cost: 8 forward passes.
    """
    nothing = torch.zeros_like(inside)
    hidden = torch.stack([nothing, inside, ~inside, ~nothing, *elsewhere(inside, seed)])
    found = watched.read(torch.where(hidden[:, None], 0.0, pixels))
    values, odds = found[:, 0].tolist(), found[:, 1].double()
    whole, outer, inner, gone = odds[:4].tolist()
    falls = tuple((whole - odds[4:]).tolist())
    of_inside = ((inner - gone) + (whole - outer)) / 2
    of_outside = ((outer - gone) + (whole - inner)) / 2
    total = abs(of_inside) + abs(of_outside)
    made = Outside(
        values[0], values[1], values[2], whole - outer, whole - inner, falls,
        abs(of_inside) / total if total > 1e-9 else 0.0, Verdict("not measured", "", RULE),
    )  # fmt: skip
    still = float(odds.max() - odds.min()) < STILL_ODDS and max(values) - min(values) < STILL_VALUE
    object.__setattr__(made, "verdict", _judge(made, kind, still))
    return made


def elsewhere(inside: Bool[Tensor, "h w"], seed: int) -> Bool[Tensor, "n h w"]:
    """The same shape moved, and cut in two where it leaves the picture; where it overlaps the part least."""
    generator = torch.Generator().manual_seed(seed)
    moves = torch.stack([torch.randint(side, (N_TRIED,), generator=generator) for side in inside.shape], 1).tolist()
    moved = torch.stack([inside.roll(move, (0, 1)) for move in moves])
    overlap = (moved & inside).sum((1, 2))
    return moved[overlap.argsort(stable=True)[:N_ELSEWHERE]]


def _judge(found: Outside, kind: str, still: bool) -> Verdict:
    if still:
        said = (
            f"There is nothing to measure: whatever is hidden, in it or around it, the odds of this {kind} hardly move."
        )
        return Verdict("not measured", said, RULE)
    said = (
        f"{found.share_inside:.0%} of what the picture does to its odds is done inside the {kind}. Hidden inside, its "
        f"probability goes from {found.probability:.2f} to {found.without_inside:.2f}; with all else hidden, to "
        f"{found.without_outside:.2f}. The logarithm of the odds falls by {_signed(found.fall_inside)} and "
        f"{_signed(found.fall_outside)}, by {_signed(found.fall_elsewhere)} on average where the same shape is hidden "
        f"elsewhere ({_signed(max(found.falls_elsewhere))} at most)."
    )
    if found.share_inside >= MOSTLY and found.fall_inside > max(0.0, *found.falls_elsewhere):
        return Verdict("believable", said, RULE)
    return Verdict("partly" if found.share_inside >= HALF else "do not rely", said, RULE)


def _signed(number: float) -> str:
    return f"{number:.2f}".replace("-", "−")
