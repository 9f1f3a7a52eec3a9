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
from ..explanation.measures import Because, PatchDeletion, PrototypePurity
from ..explanation.similar import Like, Likeness
from ..explanation.subject import Subject
from ..explanation.verdict import Level, Missing, Verdict
from ..heads.head import Target
from ..pictures.images import Picture
from ..prototypes.bank import Patches, as_box, cell_box
from ..prototypes.base import Group, Query
from ..prototypes.epic.bank import EPICBank
from ..prototypes.find import find_prototypes
from ..prototypes.measure import LikenessMeasure, predicted_share
from ..prototypes.perturbations import find_changes
from .because import leaders, reasons_for
from .patch_deletion import delete_patches
from .voters import show_voters

if TYPE_CHECKING:
    from ..classifiers.base import Classifier

RULE = (
    "Believable when at least two thirds of such neighbours carry the predicted class on held-out pictures and most "
    "of those shown here the class explained; partly when at least one third do; both only where the odds of it are "
    "three times those of chance; otherwise do not rely on them. Where hiding the regions was measured and does not "
    "lower the class's lead more than hiding others: partly at best."
)
EPIC_RULE = (
    "Believable when hiding the places shown lowers the class's lead more than hiding the same pattern anywhere else "
    "that was tried, and on held-out pictures the odds that such prototypes carry the predicted class are at least "
    "three times those of chance; partly when only one of the two holds; otherwise do not rely on them."
)
PROTOPNET_RULE = (
    "Believable when, of the held-out pictures nearest to a prototype, at least two thirds are of its class and hiding "
    "the places shown, where that was measured, lowers the class's lead more than hiding others; partly when at least "
    "one third are; both only where the odds of it are three times those of chance; otherwise do not rely on them."
)
LEVELS: tuple[Level, ...] = ("do not rely", "partly", "believable")


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
    """Patches like the strongest regions or channels, or what it would take to have them.

    Args:
        classifier: what decides.
        query: the picture.
        name: registered way of finding likenesses; left out, EPIC where the classifier has its prototypes.
        place: where those lie; left out, the classifier's folder.
    """
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
    here = predicted_share(bank, groups, query.target)
    shown = sum(group.share for group in groups)
    if isinstance(bank, EPICBank):
        return _epic(bank, likenesses, groups, here, deletion, query.subject)
    if method.name == "voters":
        return show_voters(classifier, bank, likenesses, groups, query)
    measure = classifier.likeness
    of_class = query.subject.regions_are_of_class or all(g.whole for g in groups)
    if method.name == "protopnet":
        verdict = _judge_protopnet(classifier, groups, shown, query.subject, deletion)
    else:
        verdict = _judge(classifier, here, shown, query.subject, deletion)
    return Like(method.name, likenesses, shown, *_rates(measure), verdict, deletion=deletion, of_class=of_class)


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


def beats_chance(measure: LikenessMeasure) -> bool:
    """Whether the odds of carrying the class are three times those of chance: 3 % at 1 %, 75 % at 50 %."""
    return measure.precision * (1 - measure.chance) >= 3 * measure.chance * (1 - measure.precision)


def _rates(measure: LikenessMeasure | None) -> tuple[float | None, float | None]:
    return (None, None) if measure is None else (round(measure.precision, 4), round(measure.chance, 4))


def _hidden(deletion: PatchDeletion | None, label: str) -> str:
    if deletion is None:
        return ""
    fall, elsewhere, most = (
        f"{v:.1f}".replace("-", "−") for v in (deletion.fall, deletion.fall_random, max(deletion.falls_random))
    )
    return (
        f" Hiding these places takes {fall} from the lead of {label}, {deletion.lead:.1f}, hiding as much elsewhere "
        f"{elsewhere} (at most {most})."
    )


def _judge(
    classifier: Classifier, here: float | None, shown: float, subject: Subject, deletion: PatchDeletion | None
) -> Verdict:
    label, measure = subject.label, classifier.likeness
    part = f"these regions are {shown:.0%} of what speaks for {subject.of_regions}"
    if not subject.regions_are_of_class:
        figures = f"Which class patches like these should be of is not known: {part}."
        return Verdict("not measured", figures + _hidden(deletion, label), RULE)
    if here is None:
        return Verdict("do not rely", f"No neighbour is left after near-duplicates; {part}.", RULE)
    if measure is None:
        return Verdict("not measured", f"Too few pictures were held out to measure neighbours; {part}.", RULE)
    figures = (
        f"On {measure.n} held-out pictures such neighbours carry the predicted class {measure.precision:.0%} of the "
        f"time (chance {measure.chance:.0%}); of those shown here {here:.0%} are {label}; {part}."
        f"{_hidden(deletion, label)}"
    )
    more = beats_chance(measure)
    if more and measure.precision >= 2 / 3 and here > 0.5:
        matters = deletion is None or deletion.matters
        return Verdict("believable" if matters else "partly", figures, RULE)
    if more and measure.precision >= 1 / 3 and here > 0:
        return Verdict("partly", figures, RULE)
    return Verdict("do not rely", figures, RULE)


def _judge_protopnet(
    classifier: Classifier, groups: Sequence[Group], shown: float, subject: Subject, deletion: PatchDeletion | None
) -> Verdict:
    """Prototypes shown are of the class nearly always; what counts is whether they find it on other pictures."""
    logits, measure = sum(g.contribution or 0.0 for g in groups), classifier.likeness
    speaks = logits / shown if shown else 0.0
    part = (
        f"These {len(groups)} prototypes bring {logits:.1f} of the {speaks:.1f} logits that speak for "
        f"{subject.of_class} ({shown:.0%}).{_hidden(deletion, subject.label)}"
    )
    if measure is None:
        return Verdict("not measured", f"{part} No pictures were held out to measure prototypes.", PROTOPNET_RULE)
    figures = (
        f"{part} Of the {measure.n} held-out pictures those nearest to a prototype are of its class "
        f"{measure.precision:.0%} of the time (chance {measure.chance:.0%})."
    )
    matters = deletion is None or deletion.matters
    more = beats_chance(measure)
    if more and measure.precision >= 2 / 3:
        return Verdict("believable" if matters else "partly", figures, PROTOPNET_RULE)
    return Verdict("partly" if more and measure.precision >= 1 / 3 else "do not rely", figures, PROTOPNET_RULE)


def _epic(
    bank: EPICBank,
    likenesses: tuple[Likeness, ...],
    groups: Sequence[Group],
    here: float | None,
    deletion: PatchDeletion | None,
    subject: Subject,
) -> Like:
    held, likeness = bank.measures["held_out"], bank.measures["likeness"]
    measure = None if likeness is None else LikenessMeasure(**likeness)
    purity = PrototypePurity(bank.measures["purity_fit"], held["purity"], held["before"], held["random"], held["n"])
    shown, logits = sum(g.share for g in groups), sum(g.contribution or 0.0 for g in groups)
    matters = deletion is not None and deletion.matters_most
    carried = measure is not None and beats_chance(measure)
    level: Level = "not measured"
    if deletion is not None and measure is not None:
        level = LEVELS[int(matters) + int(carried)]
    speaks = logits / shown if shown else 0.0
    figures = (
        f"These {len(groups)} channels bring {logits:.1f} of the {speaks:.1f} logits that speak for "
        f"{subject.of_class} ({shown:.0%}); {1 - shown:.0%} lies in other channels."
        f"{_hidden(deletion, subject.label)}"
    )
    if deletion is not None and not matters:
        figures = figures[:-1] + ", so these places do not matter more than others."
    if measure is not None:
        figures += (
            f" On {measure.n} held-out pictures such prototypes carry the predicted class {measure.precision:.0%} of "
            f"the time (chance {measure.chance:.0%})"
            f"{'' if here is None else f'; of those shown here {here:.0%} are {subject.label}'}."
        )
    verdict = Verdict(level, figures, EPIC_RULE)
    changed = bank.measures["logit_difference"]
    return Like(
        "epic",
        likenesses,
        shown,
        *_rates(measure),
        verdict,
        deletion=deletion,
        purity=purity,
        logit_difference=changed,
    )
