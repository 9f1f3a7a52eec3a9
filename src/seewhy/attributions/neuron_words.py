"""Naming neurons: the channels a decision rests on, each with the word whose direction leans on it most.

Grad-CAM, section 6 of arXiv:1610.02391v4 (textual explanations). There, names are the concepts of Network Dissection,
found on pictures with a mask for each; here they are the texts that the network itself reads from a channel most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ..encoders.base import Encoder, EncoderOutput, TextTower
from ..errors import InputError, ModelError
from ..heads.head import Target, TargetFunction
from .base import Explainable, feature_gradient

SURE = 0.95
"""A name must lean on its channel more than the best of equally many random directions does in this part of cases."""


class Bank(Protocol):
    """Texts and their unit vectors in the space shared with pictures."""

    @property
    def texts(self) -> tuple[str, ...]: ...

    @property
    def vectors(self) -> Float[Tensor, "n d"]: ...


@dataclass(frozen=True)
class NamedChannel:
    """A channel of the last feature map, and its role on one picture.

    Attributes:
        weight: ``v_k``, the derivative of the target by the channel's mean (the paper's α_k times the number of cells).
        share: ``v_k`` times the channel's mean, divided by the sum of all such products that are positive.
        name: the word that depends on it most; ``None`` if random directions would depend on it as much.
        strength: how much that word depends on this channel, in standard deviations over the channels.
        cell: row and column in which the channel is strongest.
    """

    channel: int
    weight: float
    share: float
    name: str | None
    strength: float
    cell: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Dictionary:
    """Words for the channels of an encoder."""

    texts: tuple[str, ...]
    lean: Float[Tensor, "n c"]
    floor: float

    @classmethod
    def of(cls, texts: Sequence[str], directions: Float[Tensor, "n c"]) -> Dictionary:
        """Build it from the effect of a change of each channel on each word's score."""
        if min(directions.shape) < 2 or len(texts) != len(directions):
            raise InputError(
                f"{len(texts)} words with directions {tuple(directions.shape)} were given to name channels. Expected "
                "at least two words and two channels. Give more classes or descriptions."
            )
        # Against the mean word first: a channel on which every word leans alike distinguishes none.
        own = (directions - directions.mean(0)).double()
        own = own - own.mean(1, keepdim=True)
        lean = own / own.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)
        floor = torch.special.ndtri(torch.tensor(SURE, dtype=torch.float64) ** (1 / len(texts)))
        return cls(tuple(texts), lean.float(), float(floor))

    def name(self, channel: int) -> tuple[str | None, float]:
        """The word that depends most on a channel, ``None`` below the limit; and how much it depends."""
        best = int(self.lean[:, channel].argmax())
        strength = float(self.lean[best, channel])
        return self.texts[best] if strength > self.floor else None, strength


def dictionary(model: Explainable, n_channels: int, bank: Bank | None = None) -> Dictionary:
    """Words for channels: given words, by the slope of their scores, or the classes of the network's own last layer."""
    encoder = model.encoder
    check_pooling(encoder)
    if bank is not None:
        return Dictionary.of(bank.texts, _directions(encoder.text, bank.vectors, n_channels))
    layer = encoder.classifier
    if layer is None or not encoder.classes:
        raise ModelError(
            f"The encoder {encoder.name!r} has no classes of its own to name neurons after. Expected an encoder with "
            "classes, or an image-text encoder with descriptions. Give --descriptions, or leave --set neurons out."
        )
    return Dictionary.of(encoder.classes, layer.weight.detach())


def check_pooling(encoder: Encoder) -> None:
    """Refuse a map whose channels are not the numbers that the head reads."""
    if not encoder.is_average:
        raise ModelError(
            f"The neurons of {encoder.name!r} cannot be named, because its map is not pooled by a mean. Expected a "
            "network such as lite0 or a ResNet. Leave --set neurons out."
        )


@torch.enable_grad()
def _directions(tower: TextTower, vectors: Float[Tensor, "n d"], n_channels: int) -> Float[Tensor, "n p"]:
    """``Jᵀ t`` of every text ``t``, with ``J`` the slope of the affine way from pooled features to the shared space."""
    leaf = torch.zeros(len(vectors), n_channels, requires_grad=True)
    return torch.autograd.grad((tower.project(leaf) * vectors).sum(), leaf)[0]


def important_channels(
    model: Explainable, look: EncoderOutput, target: TargetFunction, words: Dictionary, n: int = 5
) -> list[tuple[NamedChannel, ...]]:
    """For each picture the ``n`` channels that most raise the target's logit, and the ``n`` that most lower it."""
    check_pooling(model.encoder)
    if n < 1:
        raise InputError(f"The number of neurons is {n}. Expected a number above 0. Use 5, for example.")
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
            name, strength = words.name(c)
            cell = divmod(int(grid[i, c].argmax()), grid.shape[3])
            named.append(NamedChannel(c, float(weights[i, c]), float(parts[i, c]), name, strength, cell))
        found.append(tuple(named))
    return found
