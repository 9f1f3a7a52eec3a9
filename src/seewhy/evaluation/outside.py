"""How much of the heat lies outside the objects, over many pictures, beside what chance would put there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..explanation.base import Explanation, Where
from ..progress import Progress
from .faithfulness import mean_interval


def outside_figures(explained: Sequence[Explanation], seed: int, progress: Progress) -> dict[str, Any] | None:
    """Means over the explained pictures, for the class predicted; ``None`` where nobody says where the objects are.

    ``beyond`` is the share outside less the area outside, picture by picture: above 0, evidence lies on the background
    more than it would by chance. Pictures on which it was not measured are a note, with the first one's reason.
    """
    found = [(e, e.where.outside) for e in explained if isinstance(e.where, Where) and e.where.outside is not None]
    if not found:
        return None
    if left := [f"{e.prediction.image}: {one.why}" for e, one in found if one.share is None]:
        progress.note(f"Heat outside the object was not measured on {len(left)} picture(s), such as {left[0]}")
    pairs = [(one.share, one.area) for _, one in found if one.share is not None and one.area is not None]
    data: dict[str, Any] = {"masks": found[0][1].masks, "n": len(pairs)}
    if not pairs:
        nothing = dict.fromkeys(("share", "area", "beyond", "interval"))
        return {**data, **nothing, "sentence": "How much of the heat lies outside the object was not measured."}
    share, area = torch.tensor(pairs, dtype=torch.double).unbind(1)
    low, high = mean_interval(share - area, seed)
    outer, chance, beyond = (round(float(v.mean()), 4) for v in (share, area, share - area))
    sentence = (
        f"{outer:.0%} of the heat lies outside the object, by chance it would be {chance:.0%}; difference {beyond:+.0%}"
        f" ({low:+.0%} to {high:+.0%}), n = {len(pairs)}."
    )
    interval = [round(low, 4), round(high, 4)]
    means = {"share": outer, "area": chance, "beyond": beyond, "interval": interval}
    return {**data, **means, "sentence": sentence.replace("%", " %")}
