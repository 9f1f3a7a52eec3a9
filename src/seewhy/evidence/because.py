"""What the likenesses on a card rest on: hue, saturation, contrast, brightness, texture or shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..encoders.base import EncoderOutput
from ..encoders.stream import file_digest
from ..explanation.measures import Because
from ..pictures.images import Picture
from ..prototypes.bank import PatchBank, Patches
from ..prototypes.bank_influences import kept_influences
from ..prototypes.base import Group, Prototypes
from ..prototypes.characteristics import Characteristics, View
from ..prototypes.influences import Influences
from ..prototypes.perturbations import PROPERTIES, Changes
from ..prototypes.redundancy import redundant

if TYPE_CHECKING:
    from ..classifiers.base import Classifier

N_PICTURES = 5
LEAST = 0.02
"""A share of the similarity below which a property counts as not mattering."""


def reasons_for(
    classifier: Classifier,
    method: Prototypes,
    bank: Patches,
    picture: Picture,
    groups: Sequence[Group],
    changes: Changes,
    place: str | Path | None = None,
) -> list[list[Because]]:
    """For each patch of each group: how much of its likeness to its place is lost when a property is changed.

    Seven forward passes, whatever the number of patches: the place is fixed, the patches only compared with it.
    """
    which = torch.tensor([m.patch for g in groups for m in g.matches])
    if not len(which):
        return [[] for _ in groups]
    cells = torch.tensor([g.cell for g in groups for _ in g.matches])

    def maps(look: EncoderOutput) -> Tensor:
        return method.activation(classifier, bank, look, which)

    (found,) = Characteristics(changes).local(classifier.encoder, maps, [source(picture)], cells=cells)
    said = iter(because(found, changes))
    known = kept_influences(classifier, method, bank, place)
    if known is None or known.means.strengths != changes.name:
        return [[next(said) for _ in g.matches] for g in groups]
    return [
        [replace(next(said), overall=known.of(method.prototype_of(bank, m.patch))) for m in g.matches] for g in groups
    ]


def source(picture: Picture) -> View:
    """The file a view was read from, if it still is that file; else the view."""
    return Path(picture.name) if file_digest(picture.name) == picture.digest else picture


def because(found: Influences, changes: Changes) -> list[Because]:
    """One for each prototype."""
    relative, change = found.relative.tolist(), found.change.tolist()
    return [
        Because(
            dict(zip(PROPERTIES, lost, strict=True)),
            dict(zip(PROPERTIES, phi, strict=True)),
            dict(zip(PROPERTIES, change, strict=True)),
            changes.name,
            sentence(dict(zip(PROPERTIES, lost, strict=True))) if changes.commensurable else "",
        )
        for lost, phi in zip(relative, found.phi.tolist(), strict=True)
    ]


def sentence(lost: dict[str, float]) -> str:
    """Which property matters most, and which that might have mattered does not.

    Example:
        >>> sentence({"hue": 0.3, "texture": 0.1, "shape": 0.01}), sentence({"hue": 0.2, "shape": 0.18})
        ('mostly hue, hardly shape', 'hue and shape')
        >>> sentence({"hue": 0.01, "shape": -0.3})
        'none of these'
    """
    order = sorted(lost, key=lambda name: -lost[name])
    top = [name for name in order if lost[name] >= LEAST and lost[name] > lost[order[0]] / 1.5]
    if not top:
        return "none of these"
    weak = [name for name in ("shape", "hue", "texture", *order) if lost.get(name, 1.0) < lost[order[0]] / 4]
    hardly = f", hardly {weak[0]}" if weak else ""
    if len(top) > 2:
        return f"{', '.join(top[:-1])} and {top[-1]}{hardly}"
    return f"mostly {top[0]}{hardly}" if len(top) == 1 else f"{top[0]} and {top[1]}{hardly}"


def leaders(bank: Patches, groups: Sequence[Group], reasons: Sequence[Sequence[Because]]) -> list[int]:
    """For each patch of all groups in turn, the position of the one that stands for it on the card: its own, as a rule.

    Patches repeat each other by :func:`seewhy.prototypes.redundancy.redundant`: direction, the pictures nearest to
    them, and, where they are known, influences. They are compared within a region; where each group is a prototype of
    its own, all with all. EPIC's channels, being at right angles, repeat none; pictures that voted are each shown.
    """
    lead = list(range(sum(len(g.matches) for g in groups)))
    if not isinstance(bank, PatchBank) or not lead or groups[0].voted:
        return lead
    patches = [m.patch for g in groups for m in g.matches]
    rows = [row for i, g in enumerate(groups) for row in [0 if g.channel is not None else i + 1] * len(g.matches)]
    vectors = bank.vectors[patches]
    nearest = (vectors @ bank.vectors.T).topk(min(4 * N_PICTURES, len(bank.vectors)), dim=1).indices
    pictures = [list(dict.fromkeys(bank.owner[row].tolist()))[:N_PICTURES] for row in nearest]
    lost = [[*reason.lost.values()] for group in reasons for reason in group]
    for row in dict.fromkeys(rows):
        at = [i for i, mine in enumerate(rows) if mine == row]
        known = torch.tensor([lost[i] for i in at]) if lost else None
        for first, *others in redundant(vectors[at], [pictures[i] for i in at], known):
            for other in others:
                lead[at[other]] = at[first]
    return lead
