"""How much of a learnt prompt is kept, chosen on held-out pictures: what is gained, and what is forgotten for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...encoders.base import Encoder
from ...progress import Progress
from .prompted import BATCH, image_vectors
from .prompts import Names, Prompt, as_it_was, mixed, opened, scores

KEEPS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Tried where none was given."""
N_READ = 20_000
"""Texts that are read to know what is forgotten, at most, where each picture has texts of its own."""


@dataclass(frozen=True)
class Kept:
    """What one ``keep`` gives on held-out pictures.

    Attributes:
        keep: how much.
        accuracy: on the classes that were learnt.
        named: part of the pictures whose nearest class by name is the one that the encoder's own last layer says;
            ``None`` for an encoder without classes of its own.
    """

    keep: float
    accuracy: float
    named: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def tried(
    on: Encoder,
    prompt: Prompt,
    names: Names,
    classes: Sequence[str],
    held: tuple[Float[Tensor, "n p"], Int[Tensor, " n"]],
    progress: Progress,
) -> list[Kept]:
    """Every ``keep`` on these pictures, 0 first.

    Args:
        on: the encoder.
        prompt: what was learnt.
        names: of the classes.
        classes: the same.
        held: pooled pictures, and their labels.
        progress: hears of progress.
    """
    pooled, labels = held
    image, tower = image_vectors(on, pooled), opened(on)
    now, before = prompt.texts(names, image), as_it_was(tower, classes)
    right = [(scores(image, mixed(now, before, keep)).argmax(1) == labels).float() for keep in KEEPS]
    named: list[float | None] = [None] * len(KEEPS)
    layer = on.classifier
    if layer is not None and len(on.classes) == layer.out_features:
        n = min(len(pooled), max(1, N_READ // len(on.classes))) if prompt.conditional else len(pooled)
        own, said = as_it_was(tower, on.classes), layer(pooled[:n]).argmax(1)
        parts = [on.classes[i : i + BATCH] for i in range(0, len(on.classes), BATCH)]
        read = [
            prompt.texts(Names(tower, part), image[:n])
            for part in progress.track(parts, "Reading the encoder's own classes", len(parts))
        ]
        behind = torch.cat(read, -2)
        agree = [scores(image[:n], mixed(behind, own, keep)).argmax(1) == said for keep in KEEPS]
        named = [round(float(a.float().mean()), 4) for a in agree]
    return [Kept(keep, round(float(r.mean()), 4), a) for keep, r, a in zip(KEEPS, right, named, strict=True)]


def choose(found: Sequence[Kept], may_forget: float) -> Kept:
    """The best on the classes learnt among those that forget no more than may be; of equals the one that keeps least.

    >>> choose([Kept(0, 0.5, 0.9), Kept(0.5, 0.7, 0.85), Kept(1, 0.8, 0.6)], may_forget=0.1).keep
    0.5
    """
    first = found[0].named
    allowed = [k for k in found if first is None or k.named is None or first - k.named <= may_forget + 1e-9]
    return max(allowed, key=lambda k: (k.accuracy, -k.keep))
