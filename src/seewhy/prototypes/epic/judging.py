"""What a card says of EPIC's channels, with how far to trust it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...explanation.measures import NeighbourShare, PrototypePurity
from ...explanation.similar import Like
from ...explanation.verdict import Level, Verdict
from ..base import STRANGER
from ..judging import LEVELS, Showing, said_of_share
from ..measure import LikenessMeasure
from .bank import EPICBank

if TYPE_CHECKING:
    from .method import EPIC

RULE = (
    "Do not rely on them unless more of the prototypes shown are of the class explained than a wrong class has on 19 "
    "of 20 held-out pictures, one neither right nor decided for. Then believable when hiding the places shown lowers "
    "the class's lead more than hiding the same pattern anywhere else that was tried, else partly. Partly at best for "
    f"a class that was not decided for. {STRANGER}"
)


def judge_channels(method: EPIC, showing: Showing, bank: EPICBank) -> Like:
    """By how many prototypes are of the class explained, and by what hiding their places costs."""
    held, measure = bank.measures["held_out"], LikenessMeasure.restore(bank.measures["likeness"])
    purity = PrototypePurity(bank.measures["purity_fit"], held["purity"], held["before"], held["random"], held["n"])
    deletion, subject = showing.deletion, showing.subject
    matters = deletion is not None and deletion.matters_most
    here, limit = showing.of_target, None if measure is None else measure.limit
    # How many were right is not asked: the classifier may have been fitted on what was held out of the rotation.
    found = None if here is None or limit is None else NeighbourShare(here, limit)
    level: Level = "not measured"
    shown = showing.share
    figures = (
        f"These {len(showing.groups)} channels bring {showing.logits:.1f} of the {showing.logits_in_all:.1f} logits "
        f"that speak for {subject.of_class} ({shown:.0%}); {1 - shown:.0%} lies in other channels.{showing.hidden}"
    )
    if deletion is not None and not matters:
        figures = figures[:-1] + ", so these places do not matter more than others."
    if found is not None:
        figures += f" {said_of_share(showing, found, 'prototypes')}"
        if deletion is not None:
            most = LEVELS[1 + int(matters and subject.label == subject.decision)]
            level = most if found.reaches else "do not rely"
    verdict = Verdict(level, figures, method.rule)
    return showing.like(
        method,
        verdict,
        measure,
        purity=purity,
        logit_difference=bank.measures["logit_difference"],
        of_target=found,
    )
