"""Which pictures a classifier was fitted on, saved with it so that it is not judged on them unnoticed.

Of each picture there is the SHA-256 of its file and 128 numbers of one byte: its square-rooted features, projected at
random (always by the same matrix). Of lite0, over 1,500 pictures of six kinds, copies had these cosines with their
originals (5th percentile and median): saved anew at quality 80 .98/.99, at 50 .94/.96, 2 % cut off each side .95/.97,
mirrored .95/.97, half the size .87/.92, 5 % cut off .90/.94. The most similar *other* picture had .82 at most among
ImageNet's, .85 among photographs of people, and .94 among shots of the same groceries and among blood smears.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor
from torch.nn.functional import normalize

WIDTH = 128
NEAR = 0.94
"""Least cosine of a near copy: above what different shots of one thing reach with lite0."""
MOST_NEAR = 0.985
"""A set whose own pictures are alike asks for more than :data:`NEAR`, up to this."""


@dataclass(frozen=True)
class KnownPictures:
    """Pictures that were fitted on.

    Attributes:
        names: their files, as they were given.
        digests: SHA-256 of each file.
        features: what is left of each one's features, as whole numbers.
        encoder: fingerprint of what they were looked at with.
        least_cosine: of a near copy.
    """

    names: tuple[str, ...]
    digests: UInt8[Tensor, "n 32"]
    features: Int8[Tensor, "n w"]
    encoder: str
    least_cosine: float

    @staticmethod
    def of(names: Sequence[str], digests: Sequence[str], pooled: Float[Tensor, "n d"], encoder: str) -> KnownPictures:
        """What is kept of pictures.

        Args:
            names: their files.
            digests: SHA-256 of each, in hexadecimal.
            pooled: features, by each one's own crop.
            encoder: fingerprint of what looked.
        """
        bits = torch.tensor([list(bytes.fromhex(d)) for d in digests], dtype=torch.uint8).reshape(-1, 32)
        features = compact(pooled)
        return KnownPictures(tuple(names), bits, features, encoder, _least_cosine(features))

    def facts(self) -> dict[str, Any]:
        return {"names": list(self.names), "encoder": self.encoder, "least_cosine": self.least_cosine}

    def tensors(self) -> dict[str, Tensor]:
        return {"known.digests": self.digests, "known.features": self.features}

    @staticmethod
    def restore(facts: dict[str, Any] | None, tensors: dict[str, Tensor]) -> KnownPictures | None:
        """What was saved; ``None`` in archives of earlier versions.

        Raises:
            KeyError, TypeError, ValueError: the parts do not fit together.
        """
        if facts is None:
            return None
        digests, features, names = tensors["known.digests"], tensors["known.features"], tuple(map(str, facts["names"]))
        fits = digests.shape == (len(names), 32) and features.shape == (len(names), WIDTH)
        if not fits or digests.dtype != torch.uint8 or features.dtype != torch.int8:
            raise ValueError(f"{len(names)} pictures that were fitted on, and other numbers of them")
        least = float(facts["least_cosine"])
        if not NEAR <= least <= MOST_NEAR:
            raise ValueError(f"a near copy has a cosine of {least}")
        return KnownPictures(names, digests, features, str(facts["encoder"]), least)

    def same_bytes(self, digest: str) -> str | None:
        """The picture with the same bytes."""
        return self._by_digest.get(digest)

    @cached_property
    def _by_digest(self) -> dict[str, str]:
        return {bytes(row).hex(): name for row, name in zip(self.digests.tolist(), self.names, strict=True)}

    def nearest(self, pooled: Float[Tensor, "n d"], step: int = 512) -> tuple[Tensor, Tensor]:
        """Cosine with the most similar picture, and which it is, for each row."""
        ours, rows = normalize(self.features.float(), dim=1), normalize(compact(pooled).float(), dim=1)
        found = [(part @ ours.T).max(1) for part in rows.split(step)]
        return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def compact(pooled: Float[Tensor, "n d"]) -> Int8[Tensor, "n w"]:
    """128 whole numbers a row, whose cosines are nearly those of the square-rooted features."""
    rooted = normalize(pooled.float().sign() * pooled.float().abs().sqrt(), dim=1)
    found = rooted @ torch.from_numpy(_projection(pooled.shape[1]))
    most = found.abs().amax(1, keepdim=True).clamp_min(1e-12)
    return (found / most * 127).round().to(torch.int8)


@cache
def _projection(width: int) -> np.ndarray:
    """The same numbers in every version: numpy keeps this generator's stream as it is."""
    return np.random.RandomState(0).randn(width, WIDTH).astype(np.float32)


def _least_cosine(features: Int8[Tensor, "n w"], most: int = 2000) -> float:
    """Above what 99 of 100 of these pictures have with the most similar other one; they may be shots of one thing."""
    unit = normalize(features[:: max(1, len(features) // most)].float(), dim=1)
    if len(unit) < 2:
        return NEAR
    cosines = unit @ unit.T
    cosines.fill_diagonal_(-1)
    usual = float(cosines.amax(1).quantile(0.99))
    return round(min(MOST_NEAR, max(NEAR, usual)), 4)
