"""What a perceiver saw of a picture, as a card shows it: pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .verdict import Verdict


@dataclass(frozen=True)
class Memorised:
    """The training picture nearest to what was seen.

    Attributes:
        image: its file name.
        label: its class.
        distance: to the seen picture, root mean square over pixels, 0…1 being black to white.
        picture: as it was memorised, grey, uint8 ``(h, w)``.
    """

    image: str
    label: str
    distance: float
    picture: np.ndarray


@dataclass(frozen=True)
class Perceived:
    """The picture that was classified in place of the one that was given.

    Attributes:
        path: what was seen on the way, the observed picture first and the seen one last, grey, uint8 ``(h, w)``.
        loops: after how many loops each of ``path`` was seen.
        moved: by how much the last loop moved it, root mean square over pixels, 0…1 being black to white.
        spread: how far its copies end from their mean, the same unit; 0 where it was one picture all the way.
        n_copies: how many there were.
        nearest: the memorised picture it ended nearest to.
    """

    path: tuple[np.ndarray, ...]
    loops: tuple[int, ...]
    moved: float
    spread: float
    n_copies: int
    nearest: Memorised
    verdict: Verdict

    @property
    def picture(self) -> np.ndarray:
        """What was classified."""
        return self.path[-1]

    def to_json(self) -> dict[str, Any]:
        """For ``explain --json`` (docs/json.md)."""
        return {
            "picture": self.picture.tolist(),
            "loops": self.loops[-1],
            "n_copies": self.n_copies,
            "moved": round(self.moved, 5),
            "spread": round(self.spread, 5),
            "nearest": {
                "image": self.nearest.image,
                "label": self.nearest.label,
                "distance": round(self.nearest.distance, 5),
            },
            "verdict": self.verdict.level,
        }
