"""What a card says of EPIC's channels, with how far to trust it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...explanation.measures import PrototypePurity
from ...explanation.similar import Like
from ...explanation.verdict import Level, Verdict
from ..judging import LEVELS, Showing, beats_chance
from ..measure import LikenessMeasure
from .bank import EPICBank

if TYPE_CHECKING:
    from .method import EPIC

RULE = (
    "Believable when hiding the places shown lowers the class's lead more than hiding the same pattern anywhere else "
    "that was tried, and on held-out pictures the odds that such prototypes carry the predicted class are at least "
    "three times those of chance; partly when only one of the two holds; otherwise do not rely on them."
)


def judge_channels(method: EPIC, showing: Showing, bank: EPICBank) -> Like:
    """By what hiding their places costs, and how often such prototypes carry the predicted class."""
    held, likeness = bank.measures["held_out"], bank.measures["likeness"]
    measure = None if likeness is None else LikenessMeasure(**likeness)
    purity = PrototypePurity(bank.measures["purity_fit"], held["purity"], held["before"], held["random"], held["n"])
    deletion, subject = showing.deletion, showing.subject
    matters = deletion is not None and deletion.matters_most
    carried = measure is not None and beats_chance(measure)
    level: Level = "not measured"
    if deletion is not None and measure is not None:
        level = LEVELS[int(matters) + int(carried)]
    shown, here = showing.share, showing.of_target
    figures = (
        f"These {len(showing.groups)} channels bring {showing.logits:.1f} of the {showing.logits_in_all:.1f} logits "
        f"that speak for {subject.of_class} ({shown:.0%}); {1 - shown:.0%} lies in other channels.{showing.hidden}"
    )
    if deletion is not None and not matters:
        figures = figures[:-1] + ", so these places do not matter more than others."
    if measure is not None:
        figures += (
            f" On {measure.n} held-out pictures such prototypes carry the predicted class {measure.precision:.0%} of "
            f"the time (chance {measure.chance:.0%})"
            f"{'' if here is None else f'; of those shown here {here:.0%} are {subject.label}'}."
        )
    verdict = Verdict(level, figures, method.rule)
    return showing.like(method, verdict, measure, purity=purity, logit_difference=bank.measures["logit_difference"])
