"""What one place of a picture looks like, and where a sentence holds: for pages on which a reader points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..attributions.shares import cell_evidence, shares
from ..encoders.base import EncoderOutput
from ..encoders.stream import Encoded
from ..errors import InputError
from ..explanation.result import HIDDEN, Result
from ..explanation.similar import Display
from ..explanation.verdict import Missing
from ..heads.head import Projected, Target
from ..prototypes.bank import Patches, cell_box
from ..prototypes.base import Group, Prototypes, Query
from ..prototypes.find import find_prototypes
from ..types import FractionBox

if TYPE_CHECKING:
    from ..classifiers.base import Classifier


@dataclass(frozen=True)
class Resembled(Result):
    """One patch of the user's pictures that a place resembles; with channels, by the part of the channel's own peak."""

    image: str
    label: str
    similarity: float
    channel: int | None
    patch: Annotated[np.ndarray, HIDDEN]
    """Thumbnail, uint8 ``(h, w, 3)``."""


@dataclass(frozen=True)
class Place(Result):
    """One cell of the feature map, its part of what speaks for the class, and what it looks like, the nearest first."""

    box: FractionBox
    share: float
    resembled: Annotated[tuple[Resembled, ...], HIDDEN]
    method: str | None = None
    """How that was found; ``None`` without pictures of the user."""
    unit: str = Display.unit
    """What the number of a channel is of."""


def like_place(
    classifier: Classifier, seen: Encoded, cell: tuple[int, int], target: int, against: int | None = None
) -> Place:
    """Which prototypes a place belongs to, by the method the card itself uses.

    Nearest patches are of this very cell; channels and prototypes are the picture's, by how strong each is here.
    """
    if seen.features is None:
        raise TypeError("features were wished for")
    look = EncoderOutput(seen.features[None], seen.pooled[:1])
    goal = Target(torch.tensor([target]), None if against is None else torch.tensor([against]))
    share = shares(cell_evidence(classifier, look, goal))[0]
    if not (0 <= cell[0] < share.shape[0] and 0 <= cell[1] < share.shape[1]):
        raise InputError(
            f"Row {cell[0]}, column {cell[1]} is not on the map, which has {share.shape[0]} rows and "
            f"{share.shape[1]} columns. Count from 0."
        )
    box = cell_box(cell, (share.shape[0], share.shape[1]))
    found = find_prototypes(classifier, of_place=True)  # where whole pictures vote, a place has no voters of its own
    if found is None:
        return Place(box, float(share[cell]), ())
    method, bank = found
    groups = method(classifier, bank, Query(look, goal, [cell], seen.digest))
    rows = _here(method, bank, groups, cell, classifier, look) if groups and groups[0].channel is not None else groups
    resembled = tuple(
        Resembled(
            bank.pictures[int(bank.owner[match.patch])].name,
            classifier.classes[int(bank.labels[match.patch])],
            match.similarity if group.channel is None else group.share,
            group.channel,
            bank.thumbnail(match.patch),
        )
        for group in rows
        for match in (group.matches if group.channel is None else group.matches[:1])
    )
    return Place(box, float(share[cell]), resembled, method.name, method.display.unit)


def _here(
    method: Prototypes,
    bank: Patches,
    groups: list[Group],
    cell: tuple[int, int],
    classifier: Classifier,
    look: EncoderOutput,
) -> list[Group]:
    """Channels with a prototype, their share replaced by how strong they are in this cell, the strongest first."""
    shown = [g for g in groups if g.matches]
    if not shown:
        return []
    which = torch.tensor([g.matches[0].patch for g in shown])
    activity = method.activation(classifier, bank, look, which)[0]
    peak = activity.amax((1, 2)).clamp(min=1e-12)
    strength = (activity[:, cell[0], cell[1]] / peak).clamp(min=0).tolist()
    ranked = sorted(zip(strength, shown, strict=True), key=lambda pair: -pair[0])
    return [Group(g.cell, s, g.matches, g.channel, g.contribution) for s, g in ranked if s > 0]


class WordMap(NamedTuple):
    label: str
    text: str
    heat: np.ndarray


def word_maps(
    classifier: Classifier, grid: Float[Tensor, "c h w"], pooled: Float[Tensor, " d"], one: int, other: int
) -> tuple[WordMap, ...] | Missing:
    """The maps of the sentences of two classes, each against the other class's sentences.

    A card says that a sentence ``d`` of class ``a`` holds when its cosine with the picture is above the mean cosine of
    the sentences of ``b``. The map divides that lead over the cells. With ``x = P(v) / |P(v)|``, ``P`` affine and
    ``v`` the mean of the cells' features ``z``::

        (d − mean_b) · x = const + Σ_ij s · z_ij / (h w)      s = ∂((d − mean_b) · P(v)) / ∂v / |P(v)|

    Cost: no pass; one small gradient a sentence. Range: unbounded; a cell counts relative to the others.
    """
    words = classifier.words
    if words is None:
        return Missing("This classifier has no descriptions.", "Give some with --descriptions FILE.")
    if not classifier.encoder.is_average:
        return Missing(
            f"The encoder {classifier.encoder.name} does not pool by the mean, so a sentence has no exact map.",
            "Use a mean-pooled encoder: lite0, or a convolutional one.",
        )
    means = words.class_weight()
    pairs = [(one, other)] + ([(other, one)] if other != one else [])
    which = [(i, c, against) for c, against in pairs for i in words.of(c)]
    rows = torch.stack([words.vectors[i] - (means[b] if a != b else 0) for i, a, b in which])
    slopes = Projected(classifier.encoder.text).slope(pooled[None].expand(len(rows), -1), rows)
    maps = torch.einsum("nc,chw->nhw", slopes, grid) / grid[0].numel()
    return tuple(WordMap(words.classes[c], words.texts[i], m.numpy()) for (i, c, _), m in zip(which, maps, strict=True))
