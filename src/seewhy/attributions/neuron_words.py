"""Names for the channels that contribute most to a prediction (Grad-CAM, section 6 of arXiv:1610.02391v4).

A channel's name is the text whose score depends most on the channel. The paper uses Network Dissection instead, which
needs pictures with masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..encoders.base import Encoder, EncoderOutput, TextTower
from ..errors import InputError, ModelError
from ..explanation.kinds import Neuron
from ..heads.head import Target, TargetFunction
from ..types import PixelBox
from .base import Explainable, feature_gradient

SURE = 0.95
"""Probability with which the strength of a name must exceed the strength of random directions."""


@dataclass(frozen=True, eq=False)
class Dictionary:
    """Candidate names for the channels of an encoder."""

    texts: tuple[str, ...]
    lean: Float[Tensor, "n c"]
    floor: float

    @classmethod
    def of(cls, texts: Sequence[str], directions: Float[Tensor, "n c"]) -> Dictionary:
        """Make a dictionary from the derivative of each word's score with respect to each channel."""
        if min(directions.shape) < 2 or len(texts) != len(directions):
            raise InputError(
                f"Naming channels needs at least two words and two channels, got {len(texts)} words and directions "
                f"{tuple(directions.shape)}. Give more classes or descriptions."
            )
        # Subtract the mean word: a channel with the same value for all words distinguishes none.
        own = (directions - directions.mean(0)).double()
        own = own - own.mean(1, keepdim=True)
        lean = own / own.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)
        floor = torch.special.ndtri(torch.tensor(SURE, dtype=torch.float64) ** (1 / len(texts)))
        return cls(tuple(texts), lean.float(), float(floor))

    def name(self, channel: int) -> tuple[str | None, float]:
        """Return the word whose score depends most on a channel (``None`` below the limit), and its strength."""
        best = int(self.lean[:, channel].argmax())
        strength = float(self.lean[best, channel])
        return self.texts[best] if strength > self.floor else None, strength


def dictionary(model: Explainable, n_channels: int, given: tuple[Sequence[str], Tensor] | None = None) -> Dictionary:
    """Return the dictionary of the given texts with unit vectors ``(n, d)``, or of the encoder's classes."""
    encoder = model.encoder
    check_pooling(encoder)
    if given is not None:
        return Dictionary.of(given[0], _directions(encoder.text, given[1], n_channels))
    layer = encoder.classifier
    if layer is None or not encoder.classes:
        raise ModelError(
            f"The encoder {encoder.name!r} has no class names for its neurons. Give --descriptions with an image-text "
            "encoder, or remove --set neurons."
        )
    return Dictionary.of(encoder.classes, layer.weight.detach())


def check_pooling(encoder: Encoder) -> None:
    """Check that the encoder's head is global average pooling."""
    if not encoder.is_average:
        raise ModelError(
            f"Naming the neurons of {encoder.name!r} needs global average pooling, as in lite0 or a ResNet. Remove "
            "--set neurons."
        )


@torch.enable_grad()
def _directions(tower: TextTower, vectors: Float[Tensor, "n d"], n_channels: int) -> Float[Tensor, "n p"]:
    """Compute the derivative of each text's score with respect to the pooled features."""
    leaf = torch.zeros(len(vectors), n_channels, requires_grad=True)
    return torch.autograd.grad((tower.project(leaf) * vectors).sum(), leaf)[0]


def important_channels(
    model: Explainable, look: EncoderOutput, target: TargetFunction, words: Dictionary, n: int,
    place: Callable[[int, tuple[int, int]], PixelBox],
) -> list[tuple[Neuron, ...]]:  # fmt: skip
    """Return the ``n`` channels per picture that most raise the target's logit, and the ``n`` that most lower it.

    The share of a channel is ``v_k`` times its mean, divided by the sum of all positive products. ``v_k`` is the
    derivative of the target with respect to the mean (the paper's α_k times the number of positions). ``place`` returns
    the box of a grid cell ``(row, column)`` on the picture with this index.
    """
    check_pooling(model.encoder)
    if n < 1:
        raise InputError(f"The number of neurons must be at least 1, got {n}.")
    grid = look.features
    if isinstance(target, Target):
        weights = model.head.slope(look.pooled, target)
    else:
        weights = feature_gradient(model, look, target)[:, :, 0, 0] * (grid.shape[2] * grid.shape[3])
    added = weights * grid.mean((2, 3))
    parts = added / added.clamp(min=0).sum(1, keepdim=True).clamp_min(1e-12)
    order = parts.argsort(dim=1, descending=True, stable=True)
    found = []
    for i in range(len(look)):
        chosen = [c for c in order[i, :n].tolist() if parts[i, c] > 0]
        chosen += [c for c in order[i].flip(0)[:n].tolist() if parts[i, c] < 0]
        named = []
        for c in chosen:
            cell = divmod(int(grid[i, c].argmax()), grid.shape[3])
            named.append(Neuron(c, float(parts[i, c]), *words.name(c), place(i, cell)))
        found.append(tuple(named))
    return found
