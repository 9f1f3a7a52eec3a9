"""How much of the evidence lies outside the object, beside what chance would put there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outside:
    """What a mask of the object says of a map.

    Attributes:
        masks: who drew it.
        share: part of the positive heat that lies outside the object; ``None`` where that was not measured.
        area: part of the view that does, which is what a map that knows nothing has there, and what the same mask has
            on average over all places.
        why: why it was not measured.
    """

    masks: str
    share: float | None = None
    area: float | None = None
    why: str = ""

    @property
    def sentence(self) -> str:
        """One line for cards.

        >>> Outside("given", 0.25, 0.6).sentence
        '25 % of the heat lies outside the object; by chance it would be 60 %.'
        >>> Outside("given", why="it has no mask in masks").sentence
        'How much of the heat lies outside the object was not measured: it has no mask in masks.'
        """
        if self.share is None or self.area is None:
            return f"How much of the heat lies outside the object was not measured: {self.why}."
        return f"{self.share:.0%} of the heat lies outside the object; by chance it would be {self.area:.0%}.".replace(
            "%", " %"
        )

    def to_json(self) -> dict[str, Any]:
        if self.share is None or self.area is None:
            return {"masks": self.masks, "share": None, "area": None, "why": self.why}
        return {"masks": self.masks, "share": round(self.share, 4), "area": round(self.area, 4), "why": None}
