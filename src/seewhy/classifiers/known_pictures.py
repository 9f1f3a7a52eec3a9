"""The pictures that a classifier was fitted on, to detect them in an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int8, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from ..pictures.miniatures import WIDTH as MINIATURE
from ..pictures.miniatures import Likeness, same_pictures, stacked
from ..storage.parts import rebuilt

WIDTH = 128
MOST_MINIATURES = 20_000
"""Maximum number of miniatures, evenly spaced over the pictures; each has 6 kB."""


@dataclass(frozen=True)
class KnownPictures:
    """The pictures that a classifier was fitted on, with up to :data:`MOST_MINIATURES` miniatures."""

    names: tuple[str, ...]
    digests: UInt8[Tensor, "n 32"]
    features: Int8[Tensor, "n w"]
    encoder: str
    miniatures: UInt8[Tensor, "m s"]

    @staticmethod
    def of(
        names: Sequence[str],
        digests: Sequence[str],
        pooled: Float[Tensor, "n d"],
        encoder: str,
        miniatures: Sequence[UInt8[Tensor, " s"]] = (),
    ) -> KnownPictures:
        bits = torch.tensor([list(bytes.fromhex(d)) for d in digests], dtype=torch.uint8).reshape(-1, 32)
        kept = [miniatures[i] for i in _drawn(len(names)).tolist()] if miniatures else []
        return KnownPictures(tuple(names), bits, compact(pooled), encoder, stacked(kept))

    def facts(self) -> dict[str, Any]:
        return {"names": list(self.names), "encoder": self.encoder}

    @staticmethod
    def restore(facts: dict[str, Any], tensors: dict[str, Tensor]) -> KnownPictures:
        names = tuple(map(str, facts["names"]))
        sizes = {"n": len(names), "w": WIDTH, "s": MINIATURE}
        known = rebuilt(KnownPictures, tensors, "known.", sizes, names=names, encoder=str(facts["encoder"]))
        if len(known.miniatures) not in (0, len(_drawn(len(names)))):
            raise ValueError(f"{len(known.miniatures)} miniatures for {len(names)} pictures")
        return known

    @cached_property
    def by_digest(self) -> dict[str, str]:
        """A dictionary from the digest of a file to the name of the picture."""
        return {bytes(row).hex(): name for row, name in zip(self.digests.tolist(), self.names, strict=True)}

    def twins(
        self,
        digests: Sequence[str],
        miniatures: Sequence[UInt8[Tensor, " s"] | None],
        pooled: Float[Tensor, "q d"] | None,
    ) -> list[tuple[str, float | None] | None]:
        """Return, for each picture, the known picture of the same bytes, or as :meth:`copies_of`; else ``None``.

        Miniatures are needed for pictures with other bytes only.
        """
        same = [self.by_digest.get(digest) for digest in digests]
        found: list[tuple[str, float | None] | None] = [None if name is None else (name, None) for name in same]
        if len(self.miniatures) and (other := [i for i, name in enumerate(same) if name is None]):
            small = stacked([one for i in other if (one := miniatures[i]) is not None])
            for i, twin in zip(other, self.copies_of(small, None if pooled is None else pooled[other]), strict=True):
                found[i] = twin
        return found

    def copies_of(
        self, miniatures: UInt8[Tensor, "q s"], pooled: Float[Tensor, "q d"] | None
    ) -> list[tuple[str, float] | None]:
        """Return, for each picture, the known picture of which it is a copy and their correlation, or ``None``."""
        place = _drawn(len(self.names))[: len(self.miniatures)]
        ours = Likeness(self.miniatures, None if pooled is None else self.features[place].float())
        asked = Likeness(miniatures, None if pooled is None else compact(pooled).float())
        found: list[tuple[str, float] | None] = [None] * len(miniatures)
        for i, j, value in zip(*(x.tolist() for x in same_pictures(asked, ours)), strict=True):
            if (before := found[i]) is None or value > before[1]:
                found[i] = self.names[int(place[j])], value
        return found


def too_high(which: str, without: float | None, held_out: float | None) -> str:
    """Return the sentence about an accuracy on pictures of which the classifier was fitted on some."""
    others = "there are no others" if without is None else f"on the others, its accuracy is {100 * without:.1f} %"
    apart = "" if held_out is None else f"; of pictures held out while it was fitted, {100 * held_out:.1f} % are right"
    return f"The classifier was fitted on {which}, so its accuracy is too high; {others}{apart}"


def compact(pooled: Float[Tensor, "n d"]) -> Int8[Tensor, "n w"]:
    """Return int8 projections whose cosine similarities approximate those of the square-rooted features."""
    rooted = normalize(pooled.float().sign() * pooled.float().abs().sqrt(), dim=1)
    # The same numbers in every version: numpy keeps this generator's stream as it is.
    projection = np.random.RandomState(0).randn(pooled.shape[1], WIDTH).astype(np.float32)
    found = rooted @ torch.from_numpy(projection)
    most = found.abs().amax(1, keepdim=True).clamp_min(1e-12)
    return (found / most * 127).round().to(torch.int8)


def _drawn(n: int) -> Int[Tensor, " m"]:
    return torch.linspace(0, n - 1, MOST_MINIATURES).long() if n > MOST_MINIATURES else torch.arange(n)
