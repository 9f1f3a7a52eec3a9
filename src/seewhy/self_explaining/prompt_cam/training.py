"""Training class prompts: on the tokens of a frozen network where it can be, on pictures where they enter earlier."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from ...encoders.base import Encoder
from ...errors import DataError, ImageError
from ...listener import Listener
from ...pictures.images import read_views
from ...training.loop import Trained, Training, train
from ...types import Crop, Failure
from .network import PromptCAMNetwork

CROP = 224 / 240
"""The authors stretch pictures to 240 x 240 and crop 224 x 224 at random."""


def train_on_tokens(
    network: PromptCAMNetwork,
    tokens: Float[Tensor, "n t d"],
    labels: Int[Tensor, " n"],
    how: Training,
    *,
    checkpoint: tuple[Path, str] | None = None,
    listener: Listener | None = None,
) -> Trained:
    """Train prompts that enter before the last block alone, on what the trunk has seen once; touches no picture.

    Args:
        network: whose prompts are trained, in place.
        tokens: features of the base encoder, half precision.
        labels: index of each picture's class.
        how: steps, batch, rate, seed.
        checkpoint: see :func:`seewhy.training.loop.train`.
        listener: hears of progress.
    """

    def loss(index: Sequence[int]) -> Mapping[str, Tensor]:
        return _terms(network.head.scores(tokens[list(index)].float()), labels[list(index)])

    return train(network.prompts, loss, len(labels), how, checkpoint=checkpoint, listener=listener)


def train_on_pictures(
    network: PromptCAMNetwork,
    pictures: Sequence[Any],
    labels: Int[Tensor, " n"],
    how: Training,
    *,
    checkpoint: tuple[Path, str] | None = None,
    listener: Listener | None = None,
) -> Trained:
    """Train prompts that enter earlier: each step runs the network on random crops, 0.93 a side, half mirrored.

    Args:
        network: whose prompts are trained, in place.
        pictures: file names or pixels.
        labels: index of each one's class.
        how: steps, batch, rate, seed.
        checkpoint: see :func:`seewhy.training.loop.train`.
        listener: hears of progress, and of pictures that cannot be read any more.

    Raises:
        DataError: none of a batch can be read.
    """
    listener = listener or Listener()
    reader = _Reader(network.base, pictures, listener)

    def loss(index: Sequence[int]) -> Mapping[str, Tensor]:
        pixels, kept = reader.pixels(index)
        return _terms(network.head.scores(network.trunk(pixels)), labels[kept])

    return train(network.prompts, loss, len(labels), how, checkpoint=checkpoint, listener=listener)


def _terms(scores: Float[Tensor, "b k"], labels: Int[Tensor, " b"]) -> dict[str, Tensor]:
    right = (scores.argmax(1) == labels).float().mean()
    return {"loss": cross_entropy(scores, labels), "right": right}


def seal_of(settings: Mapping[str, Any], encoder: Encoder, names: Sequence[str]) -> str:
    """What is trained on what, for a checkpoint."""
    digest = hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return json.dumps([dict(settings), encoder.fingerprint, digest], sort_keys=True)


class _Reader:
    """Pictures as in the authors' training: a random crop, mirrored half of the time, by torch's random numbers."""

    def __init__(self, encoder: Encoder, pictures: Sequence[Any], listener: Listener) -> None:
        self.encoder = encoder
        self.pictures = pictures
        self.listener = listener
        self.failed: set[int] = set()

    def pixels(self, index: Sequence[int]) -> tuple[Float[Tensor, "b 3 h w"], list[int]]:
        """Crops, and which pictures they are of: those of the batch that can be read."""
        places = torch.rand(len(index), 3).tolist()  # drawn for broken ones too: the others do not depend on them
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            read = list(pool.map(self._read, index, places))
        found = [(i, view) for i, view in zip(index, read, strict=True) if view is not None]
        if not found:
            raise DataError(f"None of the {len(index)} pictures of a batch can be read. Give other pictures.")
        return self.encoder.pixels([view for _, view in found]), [i for i, _ in found]

    def _read(self, i: int, place: Sequence[float]) -> Any:
        if i in self.failed:
            return None
        left, top = place[0] * (1 - CROP), place[1] * (1 - CROP)
        crop = Crop((left, top, min(left + CROP, 1.0), min(top + CROP, 1.0)), place[2] < 0.5)
        try:
            return read_views(self.pictures[i], self.encoder.transform, [crop])[0].pixels
        except ImageError as error:
            self.failed.add(i)
            name = self.pictures[i]
            self.listener.failed(Failure(name if isinstance(name, str) else f"picture {i + 1}", error.reason))
            return None
