"""The pictures that voted as evidence: who they are, how much of the vote they have, what it would be without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..explanation.measures import VoteRemoval
from ..explanation.similar import Like, Likeness
from ..explanation.verdict import Level, Verdict
from ..prototypes.bank import Patches
from ..prototypes.base import Group
from ..prototypes.voters import scores_of, votes_of

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from .like import LikeQuery

VOTERS_RULE = (
    "Believable when the pictures shown have at least half of the vote and, on held-out pictures, taking those that "
    "speak for the decision out of the vote changes it at least three times as often as taking out as many voters at "
    "random; partly when only one of the two holds; otherwise do not rely on them."
)
LEVELS: tuple[Level, ...] = ("do not rely", "partly", "believable")


def show_voters(
    classifier: Classifier, bank: Patches, shown: tuple[Likeness, ...], groups: Sequence[Group], query: LikeQuery
) -> Like:
    """The pictures that voted, with the decision that would be made without those that speak for the class.

    Args:
        classifier: whose pictures vote.
        bank: where the voters are kept.
        shown: the voters as they are shown.
        groups: the same, by class.
        query: the picture.
    """
    votes, scores = votes_of(classifier), scores_of(classifier.head, query.look.pooled)
    names = {bank.pictures[int(bank.owner[m.patch])].name for g in groups for m in g.matches}
    mine = [i for i, name in enumerate(votes.names) if name in names and int(votes.owner[i]) == query.target]
    with torch.no_grad():
        without = int(votes.without(scores, mine).argmax())
        n_voters = len(votes.ballot(scores[0]))
    n_out = len({votes.names[i] for i in mine})
    measured: dict[str, Any] = classifier.measures.get("removal") or {}
    removal = VoteRemoval(
        n_out,
        classifier.classes[without],
        measured.get("changed"),
        measured.get("changed_random"),
        measured.get("n", 0),
    )
    part = sum(group.share for group in groups)
    verdict = _judge(classifier, removal, part, len(names), n_voters, query.target)
    return Like("voters", shown, part, None, None, verdict, removal=removal)


def _judge(classifier: Classifier, removal: VoteRemoval, part: float, n: int, n_voters: int, target: int) -> Verdict:
    label, shown = classifier.classes[target], f"The {n} pictures shown have" if n > 1 else "This picture has"
    rest = "another has the rest" if n_voters - n == 1 else f"{n_voters - n} others share the rest"
    said = f"{shown} {part:.0%} of the vote" + ("." if part > 0.995 else f"; {rest}.")
    if removal.n:
        those = "it" if removal.n == n == 1 else f"the {removal.n} of {label}"
        outcome = "the same would win" if removal.label == label else f"{removal.label} would win"
        said += f" Without {those}, {outcome}."
    loo = classifier.measures.get("leave_one_out_accuracy")
    if removal.changed is None or removal.changed_random is None or not removal.n_held_out:
        return Verdict("not measured", f"{said} On held-out pictures this was not measured.", VOTERS_RULE)
    said += (
        f" On {removal.n_held_out} held-out pictures the decision changes {removal.changed:.0%} of the time without "
        f"such voters, {removal.changed_random:.0%} without as many at random."
    )
    if loo is not None:
        said += f" Leave-one-out accuracy {loo:.0%}."
    matters = removal.changed > 0 and removal.changed >= 3 * removal.changed_random
    return Verdict(LEVELS[int(part >= 0.5) + int(matters)], said, VOTERS_RULE)
