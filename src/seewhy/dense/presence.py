"""Whether a picture holds what a name says: how far the name stands out in it among other names."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from ..encoders.base import Encoder
from ..encoders.names import filled, imagenet_classes, own_sentences
from ..encoders.stream import encode_texts
from ..learning.encoders.heads import place
from ..storage.features import FeatureStore
from .reader import Looked, bilinear
from .regions import NOTHING

N_OTHERS = 250
"""Names that each name is compared with: every fourth of ImageNet's."""
RELATIVES = 0.1
"""Part of them, those most like a name, that it is not compared with: a dog need not beat the breeds of dogs."""
LEAST = 3.3
"""Presence below which a name is not found."""
PLACE = 0.6
"""Part of that presence by which a name must stand out at a place, to be said of it."""
FLAT = 1e-6
"""Least standard deviation of cosines: a place without features has none."""


def other_names() -> list[str]:
    """The names that every name is compared with."""
    classes = imagenet_classes()
    return [one.names[0] for one in classes[:: len(classes) // N_OTHERS]]


@dataclass(frozen=True, eq=False)
class Presence:
    """How far names stand out in a picture among :data:`N_OTHERS` other names, whatever these are.

    With ``z_k(v) = (cos(v, t_k) - mean_o cos(v, t_o)) / std_o cos(v, t_o)`` over the other names ``o``, but for the
    tenth that is most like the name itself, the presence of a name is the larger of two: ``z`` on the whole picture,
    and the same of largest cosines, those of each name at its own best place. So a name is judged by what else the same
    picture could be called, and the limit means the same for any name and any encoder. No picture is needed.

    Its form and the limit 3.3 were chosen with lite0 on 300 of Flickr8k's training photographs, with the figures of 400
    others of its development set and of 400 of ImageNet in sight. On pictures that no choice had seen, of 40 names that
    are not there .68 are found (200 photographs of Flickr8k, 83 everyday names) and .61 (100 of ImageNet, names of its
    classes); of those that are there, .48 and .96.

    Cost: no pass; the other names are encoded once, and kept in the cache.
    """

    encoder: Encoder
    names: tuple[str, ...]
    template: str
    least: float = LEAST
    store: FeatureStore | None = field(default=None, repr=False)

    @cached_property
    def texts(self) -> Float[Tensor, "k d"]:
        """Of the names."""
        return encode_texts(self.encoder, [filled(self.template, name) for name in self.names], self.store)

    @cached_property
    def others(self) -> Float[Tensor, "o d"]:
        """Of the names that they are compared with."""
        text = self.encoder.text
        return place(text, own_sentences(text, [filled(self.template, name) for name in other_names()]))

    @cached_property
    def compared(self) -> Bool[Tensor, "k o"]:
        """Which names each is compared with: not with those most like it."""
        likeness = self.texts @ self.others.T
        return likeness <= likeness.quantile(1 - RELATIVES, dim=1, keepdim=True)

    @torch.no_grad()
    def of(self, encoder: Encoder, looked: Looked, cells: Float[Tensor, "d h w"]) -> Float[Tensor, " k"]:
        """The presence of each name in a picture."""
        windows = normalize(encoder.text.project(encoder.head(looked.features)), dim=1)
        whole, places = normalize(windows.mean(0), dim=0)[:, None], normalize(cells.flatten(1), dim=0)
        best = [(texts @ places).amax(1, keepdim=True) for texts in (self.texts, self.others)]
        on_whole = standing_out(self.texts @ whole, self.others @ whole, self.compared)
        return torch.maximum(on_whole, standing_out(best[0], best[1], self.compared))[:, 0]

    @torch.no_grad()
    def there(self, encoder: Encoder, looked: Looked, cells: Float[Tensor, "d h w"]) -> NamesThere:
        """The same, and where in the picture."""
        presence, places = self.of(encoder, looked, cells), normalize(cells.flatten(1), dim=0)
        z = standing_out(self.texts @ places, self.others @ places, self.compared)
        return NamesThere(presence, self.found(presence), z.unflatten(1, cells.shape[1:]) - PLACE * self.least)

    def found(self, presence: Float[Tensor, " k"]) -> Bool[Tensor, " k"]:
        """Which names are there."""
        return presence >= self.least if self.least > 0 else torch.ones_like(presence, dtype=torch.bool)

    def to_json(self, presence: Float[Tensor, " k"]) -> dict[str, float]:
        """By name."""
        return {name: round(float(v), 3) for name, v in zip(self.names, presence, strict=True)}


@dataclass(frozen=True, eq=False)
class NamesThere:
    """Which names a picture holds, and where."""

    of_picture: Float[Tensor, " k"]
    found: Bool[Tensor, " k"]
    margin: Float[Tensor, "k h w"]

    def without_others(self, mask: np.ndarray) -> np.ndarray:
        """A mask without the pixels whose name is not in the picture, or does not stand out there; bilinear."""
        down, across = (bilinear(n, m) for n, m in zip(self.margin.shape[1:], mask.shape, strict=True))
        kept = np.full_like(mask, NOTHING)
        for k in np.flatnonzero(self.found.numpy()):
            there = (down @ self.margin[k] @ across.T).numpy() >= 0
            kept[(mask == k) & there] = k
        return kept


def standing_out(
    own: Float[Tensor, "k n"], others: Float[Tensor, "o n"], compared: Bool[Tensor, "k o"]
) -> Float[Tensor, "k n"]:
    """Cosines of names with vectors, in standard deviations above the mean of other names' with the same vectors.

    >>> others = torch.tensor([[0.0], [0.1], [0.2], [0.9]])
    >>> standing_out(torch.tensor([[0.5]]), others, torch.tensor([[True, True, True, False]])).round(decimals=4)
    tensor([[4.8990]])
    """
    weights = compared.to(others) / compared.sum(1, keepdim=True)
    mean = weights @ others
    variance = torch.stack([weights[k] @ (others - mean[k]) ** 2 for k in range(len(own))])
    return (own - mean) / variance.sqrt().clamp(min=FLAT)
