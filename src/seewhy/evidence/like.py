"""Patches of the user's pictures that resemble the strongest regions or channels of a picture."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..attributions.shares import cell_evidence, shares
from ..classifiers.network import Perceiver
from ..encoders.base import EncoderOutput
from ..encoders.stream import Encoded, file_digest
from ..errors import InputError
from ..explanation.result import HIDDEN, Result
from ..explanation.similar import Because, Display, Like, Likeness, PatchDeletion
from ..explanation.verdict import Missing
from ..heads.head import Target
from ..pictures.images import Picture
from ..prototypes.bank import PatchBank, Patches, as_box, cell_box, redundant
from ..prototypes.base import Group, Prototypes, Query
from ..prototypes.characteristics import Characteristics, Influences, View
from ..prototypes.find import find_prototypes
from ..prototypes.measure import Showing
from ..prototypes.perturbations import PROPERTIES, Changes, find_changes
from ..types import FractionBox
from .case import Case

if TYPE_CHECKING:
    from ..classifiers.base import Classifier

N_PICTURES = 5
LEAST = 0.02
"""Relative loss of similarity below which a property does not matter."""
ELSEWHERE = ((0.5, 0.5), (0.0, 0.5), (0.5, 0.0), (0.25, 0.5), (0.75, 0.5), (0.5, 0.25), (0.5, 0.75), (0.25, 0.75))
"""Shifts of the hidden pattern, as shares of height and width."""


def show_like(case: Case) -> Like | Missing:
    """Return patches that resemble the strongest regions or channels."""
    classifier, options, place = case.classifier, case.options, case.options.prototypes
    found = find_prototypes(classifier, options.like, place)
    if found is None and classifier.network is not None and isinstance(classifier.network, Perceiver):
        return Missing(
            "A perceiver memorises whole pictures, so there are no patches to compare.",
            "See the redrawn picture and the nearest memorised picture.",
        )
    if found is None:
        return Missing(
            "The classifier has no pictures of yours to compare with.",
            "Fit on your pictures, seewhy fit PHOTOS -o MODEL, then explain with -m MODEL. Or keep this classifier: "
            "seewhy fit --task prototypes PHOTOS -o PROTOTYPES, then explain with --set prototypes=PROTOTYPES.",
        )
    method, bank = found
    if not case.cells:
        return Missing("No part of this picture is evidence for the class.", "Look at the evidence for other classes.")
    against = None if case.contrast is None else torch.tensor([case.contrast])
    target = Target(torch.tensor([case.target]), against)
    groups = method(classifier, bank, Query(case.look, target, case.cells, case.picture.digest))
    # A lettered region may have a share from the sentences.
    lettered = dict(zip(case.cells, case.regions, strict=True))
    groups = [g if g.whole else replace(g, share=lettered[g.cell].share) for g in groups]
    grid = classifier.encoder.layout.to_grid(case.look.features).shape[2:]
    boxes = [cell_box(group.cell, (grid[0], grid[1])) for group in groups]
    deletion = None
    if case.pixels is not None and groups and not groups[0].voted:
        deletion = delete_patches(classifier, case.pixels, boxes, case.target)
    reasons: list[list[Because]] = [[] for _ in groups]
    if options.because is not None:
        changes = find_changes(options.because)
        reasons = reasons_for(case, method, bank, groups, changes)
    likenesses = tuple(_likenesses(case, bank, groups, boxes, reasons))
    shown = Showing(classifier, bank, case.look, case.target, case.subject, groups, likenesses, deletion)
    judged = method.judge(shown)
    return replace(judged, target=case.label) if isinstance(judged, Like) else judged


def _likenesses(
    case: Case, bank: Patches, groups: Sequence[Group], boxes: Sequence[FractionBox], reasons: list[list[Because]]
) -> Iterator[Likeness]:
    letters = dict(zip(case.cells, (region.letter for region in case.regions), strict=True))
    free = iter(string.ascii_uppercase[len(case.regions) :])
    lead, of = leaders(bank, groups, reasons), [group for group in groups for _ in group.matches]
    here = -1
    for group, box, why in zip(groups, boxes, reasons, strict=True):
        letter = next(free) if group.whole else letters[group.cell]
        for i, match in enumerate(group.matches):
            patch, here = match.patch, here + 1
            stands_for = [of[j] for j, leader in enumerate(lead) if leader == here]
            rows = stands_for if group.channel is not None and stands_for else [group]
            yield Likeness(
                letter,
                bank.pictures[int(bank.owner[patch])].name,
                case.classifier.classes[int(bank.labels[patch])],
                as_box(bank.pixel_boxes[patch]),
                case.picture.to_original(box),
                match.similarity,
                sum(row.share for row in rows) if match.share is None else match.share,
                bank.view(patch) if group.whole else bank.thumbnail(patch),
                channel=group.channel,
                contribution=None if group.contribution is None else sum(row.contribution or 0.0 for row in rows),
                frame=tuple(bank.boxes[patch].tolist()) if group.whole else None,
                query_frame=box if group.whole else None,
                because=why[i] if why else None,
                times=len(stands_for),
            )


def reasons_for(
    case: Case, method: Prototypes, bank: Patches, groups: Sequence[Group], changes: Changes
) -> list[list[Because]]:
    """Return, for each patch of each group, the relative loss of similarity when a property of the picture changes."""
    classifier = case.classifier
    which = torch.tensor([m.patch for g in groups for m in g.matches])
    if not len(which):
        return [[] for _ in groups]
    cells = torch.tensor([g.cell for g in groups for _ in g.matches])

    def maps(look: EncoderOutput) -> Tensor:
        return method.activation(classifier, bank, look, which)

    (found,) = Characteristics(changes).local(classifier.encoder, maps, [source(case.picture)], cells=cells)
    said = iter(because(found, changes))
    return [[next(said) for _ in g.matches] for g in groups]


def source(picture: Picture) -> View:
    """Return the file of a picture if it is unchanged, otherwise the network's input picture."""
    return Path(picture.name) if file_digest(picture.name) == picture.digest else picture


def because(found: Influences, changes: Changes) -> list[Because]:
    change, made = dict(zip(PROPERTIES, found.change.tolist(), strict=True)), []
    for relative, values in zip(found.relative.tolist(), found.phi.tolist(), strict=True):
        lost, phi = (dict(zip(PROPERTIES, row, strict=True)) for row in (relative, values))
        made.append(Because(lost, phi, change, changes.name, sentence(lost) if changes.commensurable else ""))
    return made


def sentence(lost: dict[str, float]) -> str:
    """Name the properties that matter most, and a plausible one that matters little."""
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
    """Return, for each patch, the index of the patch that represents it on the card.

    Near-duplicates are merged within a region, or among all prototypes. Channels of EPIC and voters are not merged.
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


def delete_patches(
    classifier: Classifier, pixels: Float[Tensor, "3 h w"], boxes: Sequence[FractionBox], target: int
) -> PatchDeletion:
    """Measure the decrease of the logit when all patches are hidden, and when the same pattern is hidden elsewhere."""
    height, width = pixels.shape[1:]
    mask = _mask(boxes, height, width)
    shifts = [(round(down * height), round(right * width)) for down, right in ELSEWHERE]
    masks = [torch.zeros_like(mask), mask, *(mask.roll(shift, (0, 1)) for shift in shifts)]
    changed = torch.stack([pixels.masked_fill(m, 0.0) for m in masks])
    with torch.no_grad():
        logits = classifier.head(classifier.encoder.pooled(changed))
    lead = logits[:, target] - logits.mean(1)
    fall = (lead[0] - lead[1:]).tolist()
    return PatchDeletion(float(lead[0]), fall[0], tuple(fall[1:]), float(mask.float().mean()))


def _mask(boxes: Sequence[FractionBox], height: int, width: int) -> Bool[Tensor, "h w"]:
    mask = torch.zeros(height, width, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        mask[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
    return mask


@dataclass(frozen=True)
class Resembled(Result):
    """A similar patch; ``similarity`` is a cosine or, for channels, a fraction of the largest activation."""

    image: str
    label: str
    similarity: float
    channel: int | None
    patch: Annotated[np.ndarray, HIDDEN]
    """Thumbnail, uint8 ``(h, w, 3)``."""


@dataclass(frozen=True)
class Place(Result):
    """A grid cell, its share of the evidence, and the patches it resembles, nearest first."""

    box: FractionBox
    share: float
    resembled: Annotated[tuple[Resembled, ...], HIDDEN]
    method: str | None = None
    """Method that found the patches; ``None`` without pictures of the user."""
    unit: str = Display.unit
    """Unit of the number that is shown for a channel."""


def like_place(
    classifier: Classifier, seen: Encoded, cell: tuple[int, int], target: int, against: int | None = None
) -> Place:
    """Return the patches that resemble a grid cell, by the same method as the card."""
    if seen.features is None:
        raise TypeError("the encoded picture must have features")
    look = EncoderOutput(seen.features[None], seen.pooled[:1])
    goal = Target(torch.tensor([target]), None if against is None else torch.tensor([against]))
    share = shares(cell_evidence(classifier, look, goal))[0]
    if not (0 <= cell[0] < share.shape[0] and 0 <= cell[1] < share.shape[1]):
        raise InputError(
            f"Row {cell[0]}, column {cell[1]} is outside the map of {share.shape[0]} rows and {share.shape[1]} "
            "columns. Count from 0."
        )
    box = cell_box(cell, (share.shape[0], share.shape[1]))
    prototypes = find_prototypes(classifier, of_place=True)  # not all methods explain single places
    if prototypes is None:
        return Place(box, float(share[cell]), ())
    method, bank = prototypes
    groups = method(classifier, bank, Query(look, goal, [cell], seen.digest))
    rows = [(match.patch, match.similarity, group.channel) for group in groups for match in group.matches]
    if rows and groups[0].channel is not None:  # a channel's value in this cell, as a share of its peak
        firsts = [group.matches[0].patch for group in groups if group.matches]
        activity = method.activation(classifier, bank, look, torch.tensor(firsts))[0]
        strength = (activity[:, cell[0], cell[1]] / activity.amax((1, 2)).clamp(min=1e-12)).clamp(min=0).tolist()
        channels = [group.channel for group in groups if group.matches]
        here = [row for row in zip(firsts, strength, channels, strict=True) if row[1] > 0]
        rows = sorted(here, key=lambda row: -row[1])
    resembled = tuple(
        Resembled(
            bank.pictures[int(bank.owner[patch])].name,
            classifier.classes[int(bank.labels[patch])],
            similarity,
            channel,
            bank.thumbnail(patch),
        )
        for patch, similarity, channel in rows
    )
    return Place(box, float(share[cell]), resembled, method.name, method.display.unit)
