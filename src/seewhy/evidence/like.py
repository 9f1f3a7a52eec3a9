"""What the strongest regions, or the strongest channels, look like in the user's own pictures."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ..classifiers.network import Perceiver
from ..encoders.base import EncoderOutput
from ..explanation.base import Region
from ..explanation.measures import Because
from ..explanation.similar import Like, Likeness
from ..explanation.subject import Subject
from ..explanation.verdict import Missing
from ..heads.head import Target
from ..pictures.images import Picture
from ..prototypes.bank import Patches, as_box, cell_box
from ..prototypes.base import Group, Query
from ..prototypes.find import find_prototypes
from ..prototypes.judging import Showing
from ..prototypes.perturbations import find_changes
from .because import leaders, reasons_for
from .patch_deletion import delete_patches

if TYPE_CHECKING:
    from ..classifiers.base import Classifier


@dataclass(frozen=True)
class LikeQuery:
    """One picture as this evidence needs it.

    Attributes:
        look: of this picture alone.
        picture: its view.
        target: class explained.
        against: class it is explained against, or ``None``.
        cells: its strongest cells as (row, column).
        parts: those cells with their letters.
        pixels: normalised, when hiding places is to be measured.
        subject: what all of this is about, in names.
        because: strengths of the changes that show what likenesses rest on; ``None`` leaves that out.
    """

    look: EncoderOutput
    picture: Picture
    target: int
    against: int | None
    cells: Sequence[tuple[int, int]]
    parts: Sequence[Region]
    subject: Subject
    pixels: Float[Tensor, "3 h w"] | None = None
    because: str | None = None


def show_like(
    classifier: Classifier, query: LikeQuery, name: str | None = None, place: str | Path | None = None
) -> Like | Missing:
    """Patches like the strongest regions or channels, or what it would take to have them."""
    found = find_prototypes(classifier, name, place)
    if found is None and classifier.network is not None and isinstance(classifier.network, Perceiver):
        return Missing(
            "A perceiver memorises whole pictures and keeps no patches.",
            "See what it saw: the memorised picture that is nearest to it stands beside it.",
        )
    if found is None:
        return Missing(
            "This classifier was made without pictures of yours, so there is nothing to compare with.",
            "Fit one on your pictures: seewhy fit PHOTOS -o MODEL, then explain with -m MODEL. Or find prototypes for "
            "this one: seewhy fit-prototypes PHOTOS -o PROTOTYPES, then explain with --prototypes PROTOTYPES.",
        )
    method, bank = found
    if not query.cells:
        return Missing("No region of this picture speaks for the class.", "Look at the other classes' evidence.")
    against = None if query.against is None else torch.tensor([query.against])
    target = Target(torch.tensor([query.target]), against)
    groups = method(classifier, bank, Query(query.look, target, query.cells, query.picture.digest))
    # A lettered region's share is the one stated beside its letter, which may be of a sentence, not of the class.
    lettered = dict(zip(query.cells, query.parts, strict=True))
    groups = [g if g.whole else replace(g, share=lettered[g.cell].share) for g in groups]
    grid = classifier.encoder.layout.to_grid(query.look.features).shape[2:]
    boxes = [cell_box(group.cell, (grid[0], grid[1])) for group in groups]
    deletion = None
    if query.pixels is not None and groups and not groups[0].voted:
        deletion = delete_patches(classifier, query.pixels, boxes, query.target)
    reasons: list[list[Because]] = [[] for _ in groups]
    if query.because is not None:
        changes = find_changes(query.because)
        reasons = reasons_for(classifier, method, bank, query.picture, groups, changes, place)
    likenesses = tuple(_likenesses(classifier, bank, query, groups, boxes, reasons))
    shown = Showing(classifier, bank, query.look, query.target, query.subject, groups, likenesses, deletion)
    return method.judge(shown)


def _likenesses(
    classifier: Classifier,
    bank: Patches,
    query: LikeQuery,
    groups: Sequence[Group],
    boxes: Sequence[tuple],
    reasons: Sequence[Sequence[Because]],
) -> list[Likeness]:
    """Groups that start from a region keep its letter; those that start from a channel get the letters after them."""
    letters = dict(zip(query.cells, (part.letter for part in query.parts), strict=True))
    free = iter(string.ascii_uppercase[len(query.parts) :])
    found: list[Likeness] = []
    lead = leaders(bank, groups, reasons)
    of = [group for group in groups for _ in group.matches]
    for group, box, why in zip(groups, boxes, reasons, strict=True):
        whole = group.whole
        letter = next(free) if whole else letters[group.cell]
        for i, match in enumerate(group.matches):
            patch, here = match.patch, len(found)
            stands_for = [of[j] for j, leader in enumerate(lead) if leader == here]
            rows = stands_for if group.channel is not None and stands_for else [group]
            label = int(bank.labels[patch])
            found.append(
                Likeness(
                    letter,
                    bank.pictures[int(bank.owner[patch])].name,
                    classifier.classes[label],
                    as_box(bank.pixel_boxes[patch]),
                    query.picture.to_original(box),
                    match.similarity,
                    sum(row.share for row in rows) if match.share is None else match.share,
                    bank.view(patch) if whole else bank.thumbnail(patch),
                    channel=group.channel,
                    contribution=None if group.contribution is None else sum(row.contribution or 0.0 for row in rows),
                    frame=tuple(bank.boxes[patch].tolist()) if whole else None,
                    query_frame=box if whole else None,
                    because=why[i] if why else None,
                    times=len(stands_for),
                )
            )
    return found
