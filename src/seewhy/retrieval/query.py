"""What is asked: pictures, words, both together, and what it should not be like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import InputError

One = str | Path | Image.Image | np.ndarray
"""One picture: a file name, or pixels in memory."""

NEUTRAL = (
    "a person", "an animal", "a dog", "a bird", "a plant", "a flower", "a tree", "food", "fruit", "a drink",
    "a building", "a room", "furniture", "a tool", "clothing", "a vehicle", "a road", "water", "the sky", "a machine",
    "a toy", "a sign", "a pattern", "an object",
)  # fmt: skip
"""Sentences whose mean stands for that of all words, where the words' mean is to be subtracted."""


@dataclass(frozen=True)
class Query:
    """A question to an index.

    With pictures alone, ``q = u(mean_i u(x_i) − unlike_weight · mean_j u(z_j))`` with ``u`` for unit length, where
    the index's mean picture is first subtracted from both sides if there is something it should not be like
    (Rocchio's formula). With words, ``q = u(u(x) + weight · u(y))`` in the space shared with text (ALIGN, Jia et al.
    2021, arXiv 2102.05918, section 5.4), where words and pictures it should not be like are subtracted.

    Attributes:
        like: pictures, as file names or pixels; one may be given bare.
        text: words; empty for none.
        unlike: pictures it should not be like.
        without: words that should not hold.
        weight: of the words, the pictures' being 1. The paper found 2 best and 1 fine; on groceries with the embedded
            encoder 1 was better than 2 (docs/search.md).
        unlike_weight: of what it should not be like.
        centred: subtract each modality's mean before mixing; words and pictures lie in cones apart.

    Raises:
        InputError: nothing is asked for, or a weight is negative.
    """

    like: One | Sequence[One] = ()
    text: str = ""
    unlike: One | Sequence[One] = ()
    without: str = ""
    weight: float = 1.0
    unlike_weight: float = 0.5
    centred: bool = False

    def __post_init__(self) -> None:
        if not self.pictures and not self.text.strip():
            raise InputError("Nothing was asked for. A picture, words, or both were expected. Give --image or --text.")
        if self.weight < 0 or self.unlike_weight < 0:
            raise InputError(
                f"A weight is below 0 ({self.weight}, {self.unlike_weight}). Expected 0 or more. Raise it."
            )

    @property
    def pictures(self) -> tuple[One, ...]:
        return _several(self.like)

    @property
    def unlike_pictures(self) -> tuple[One, ...]:
        return _several(self.unlike)

    @property
    def has_words(self) -> bool:
        return bool(self.text.strip() or self.without.strip())

    def to_json(self) -> dict[str, Any]:
        """What was asked, for pages and JSON; pictures in memory by their place."""
        return {
            "like": [_name(p, i) for i, p in enumerate(self.pictures)],
            "text": self.text,
            "unlike": [_name(p, i) for i, p in enumerate(self.unlike_pictures)],
            "unlike_weight": self.unlike_weight,
            "without": self.without,
            "weight": self.weight,
            "centred": self.centred,
        }


def _several(pictures: One | Sequence[One]) -> tuple[One, ...]:
    return (pictures,) if isinstance(pictures, One) else tuple(pictures)


def _name(picture: One, index: int) -> str:
    return str(picture) if isinstance(picture, str | Path) else f"picture {index + 1}"


def by_pictures(
    like: Float[Tensor, "a d"], unlike: Float[Tensor, "b d"], weight: float, mean: Float[Tensor, " d"]
) -> Float[Tensor, " d"]:
    """The query of pictures alone."""
    if not len(unlike):
        return normalize(like.mean(0), dim=0)
    wanted, unwanted = (like - mean).mean(0), (unlike - mean).mean(0)
    return normalize(normalize(wanted, dim=0) - weight * normalize(unwanted, dim=0), dim=0)


def composed(
    pictures: tuple[Float[Tensor, "a d"], Float[Tensor, "b d"]],
    words: tuple[Float[Tensor, " d"] | None, Float[Tensor, " d"] | None],
    query: Query,
    means: Callable[[], tuple[Float[Tensor, " d"], Float[Tensor, " d"]]],
) -> Float[Tensor, " d"]:
    """The query of words, and of words and pictures."""
    nothing = torch.zeros(len(words[0] if words[0] is not None else pictures[0][0]))
    of_pictures, of_words = means() if query.centred else (nothing, nothing)
    like, unlike = (normalize(p.mean(0) - of_pictures, dim=0) if len(p) else nothing for p in pictures)
    said, unsaid = (normalize(w - of_words, dim=0) if w is not None else nothing for w in words)
    return normalize(like + query.weight * said - query.unlike_weight * (unlike + query.weight * unsaid), dim=0)
