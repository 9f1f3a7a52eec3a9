"""Pictures that vote in a nearest-neighbour classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..attributions.base import Explainable
from ..bounds import Count, NotNegative
from ..clusters import grouped
from ..encoders.base import EncoderOutput
from ..explanation.similar import Display, Like, VoteRemoval
from ..explanation.verdict import Level, Verdict
from ..heads.head import Head
from ..heads.votes import Votes
from ..printable import percent
from . import prototypes
from .bank import PatchBank, Patches, patch_vectors
from .base import STRANGER, Group, Match, Prototypes, Query
from .measure import LEVELS, Showing
from .nearest import patches

RULE = (
    "The pictures shown are believable under two conditions. They have at least half of the vote. On held-out "
    "pictures, a decision changes at least three times as often without the votes of the pictures shown for it as "
    "without the votes of equally many random pictures. The pictures shown are partly believable if only one condition "
    f"holds. Otherwise do not rely on them. Do not rely on them for a class that did not win the vote. {STRANGER}"
)
EQUAL = 2e-3
"""Difference of cosines below which they are equal in half precision."""


@prototypes.register
@dataclass(frozen=True)
class Voters(Prototypes):
    """The pictures that vote in a nearest-neighbour classifier, with their share of the vote.

        share_i = exp(s_i) / Σ_j exp(s_j)

    - ``s_i``: the cosine of the picture with voter ``i``, a training picture, divided by the temperature.

    The shares of crops of the same voter are added up.

    This method is for :class:`~seewhy.classifiers.neighbours.Neighbours`. A training picture is one of its own voters.
    The marked regions are the most similar patches; they do not influence the vote. A voter without stored patches is
    not displayed.

    Args:
        n_classes: number of classes to display, largest share first; the explained class is always displayed.
        n_pictures: number of voters per class.
        least: smallest share to display, 0 to 1.
    """

    name = "voters"
    paper = "Wu et al. 2018, arXiv:1805.01978"
    needs = "a classifier made with: seewhy fit --method neighbours"
    cost = "0"
    display = Display(votes=True)
    rule = RULE
    priority = 2
    of_places = False
    shows = "the pictures that voted"
    recipe = "neighbours"

    n_classes: Count = 3
    n_pictures: Count = 4
    least: NotNegative = 0.01

    @torch.no_grad()
    def __call__(self, model: Explainable, bank: Patches, query: Query) -> list[Group]:
        known, votes = patches(bank), _votes(model.head)
        scores = scores_of(model.head, query.look.pooled)[0]
        place = {p.name: i for i, p in enumerate(known.pictures)}
        target = int(query.target.index[0])
        shown: dict[int, list[tuple[int, float, float]]] = {}
        for row, share in votes.ballot(scores):
            label, picture = int(votes.owner[row]), place.get(votes.names[row])
            mine = shown.setdefault(label, [])
            if picture is None or len(mine) == self.n_pictures or (share < self.least and (mine or label != target)):
                continue
            mine.append((picture, share, float(scores[row] / model.head.weight[row].norm())))
        parts = {label: sum(s for _, s, _ in mine) for label, mine in shown.items() if mine}
        order = sorted(parts, key=lambda label: -parts[label])
        chosen = order[: self.n_classes]
        if target in order[self.n_classes :]:  # the target replaces the last class
            chosen[-1] = target
        cells = patch_vectors(model.encoder.layout.to_grid(query.look.features))[0]
        return [_group(known, cells, shown[label]) for label in chosen]

    @torch.no_grad()
    def activation(
        self, model: Explainable, bank: Patches, look: EncoderOutput, which: Int[Tensor, " p"]
    ) -> Float[Tensor, "b p h w"]:
        """Return the cosine of the picture with each patch's picture, -1 to 1."""
        votes, height, width = _votes(model.head), *model.encoder.layout.to_grid(look.features).shape[2:]
        cosine = scores_of(model.head, look.pooled) / model.head.weight.norm(dim=1)
        names = [bank.pictures[owner].name for owner in bank.owner[which].tolist()]
        rows = grouped((name, row) for row, name in enumerate(votes.names))
        likeness = torch.stack([cosine[:, rows[name]].amax(1) for name in names], 1)
        return likeness[:, :, None, None].expand(-1, -1, height, width)

    def judge(self, showing: Showing) -> Like:
        """Return the evidence with a verdict that depends on the prediction after the displayed voters are removed."""
        bank, model = showing.bank, showing.model
        names = {bank.pictures[int(bank.owner[m.patch])].name for g in showing.groups for m in g.matches}
        votes, scores = _votes(model.head), scores_of(model.head, showing.look.pooled)
        mine = [i for i, name in enumerate(votes.names) if name in names and int(votes.owner[i]) == showing.target]
        with torch.no_grad():
            without = int(votes.without(scores, mine).argmax())
            n_voters = len(votes.ballot(scores[0]))
        known: dict[str, Any] = model.measures.get("removal") or {}
        n_out, label = len({votes.names[i] for i in mine}), model.classes[without]
        removal = VoteRemoval(n_out, label, known.get("changed"), known.get("changed_random"), known.get("n", 0))
        verdict = vote_verdict(self.rule, showing, removal, len(names), n_voters)
        return showing.like(self, verdict, removal=removal)


def _votes(head: Head) -> Votes:
    if not isinstance(head.votes, Votes):
        raise TypeError("voters needs a classifier whose pictures vote")
    return head.votes


def vote_verdict(rule: str, showing: Showing, removal: VoteRemoval, n: int, n_voters: int) -> Verdict:
    """Return the verdict from the share of the displayed pictures and the effect of removing them."""
    label, part = showing.model.classes[showing.target], showing.share
    shown = f"The {n} pictures shown have" if n > 1 else "This picture has"
    said = f"{shown} {percent(part, ' ')} of the vote"
    figures = "" if part > 0.995 else f"{n_voters - n} other picture{'s' * (n_voters - n > 1)} got the rest."
    if removal.n:
        those = "it" if removal.n == n == 1 else f"the {removal.n} of {label}"
        said += f"; without {those}, {removal.label} would"
        said += " still win" if removal.label == label else " win"
    loo = showing.model.measures.get("leave_one_out_accuracy")
    if removal.changed is None or removal.changed_random is None or not removal.n_held_out:
        figures += " SeeWhy has not measured how often removing such pictures changes a decision."
        return Verdict("not measured", f"{said}.", rule, figures.strip())
    figures += (
        f" On {removal.n_held_out} held-out pictures, removing such voters changes the decision "
        f"{100 * removal.changed:.0f} % of the time, and removing equally many random voters "
        f"{100 * removal.changed_random:.0f} % of the time."
    )
    if loo is not None:
        figures += f" The leave-one-out accuracy is {100 * loo:.0f} %."
    matters = removal.changed > 0 and removal.changed >= 3 * removal.changed_random
    level: Level = LEVELS[int(part >= 0.5) + int(matters)] if label == showing.subject.decision else "do not rely"
    return Verdict(level, f"{said}.", rule, figures.strip())


def scores_of(head: Head, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b n"]:
    """Return the cosine with each voter, divided by the temperature."""
    return head.feature(pooled) @ head.weight.T


def _group(bank: PatchBank, cells: Float[Tensor, "c h w"], voters: Sequence[tuple[int, float, float]]) -> Group:
    near, owned = [], []
    for picture, _, _ in voters:
        mine = (bank.owner == picture).nonzero()[:, 0]
        near.append(torch.einsum("pc,chw->phw", bank.vectors[mine], cells).flatten(1))
        owned.append(mine)
    weighed = sum(share * alike.amax(0) for alike, (_, share, _) in zip(near, voters, strict=True))
    cell = _first_best(torch.as_tensor(weighed))
    matches = tuple(
        Match(int(mine[_first_best(alike[:, cell])]), cosine, share)
        for alike, mine, (_, share, cosine) in zip(near, owned, voters, strict=True)
    )
    return Group(divmod(cell, cells.shape[2]), sum(share for _, share, _ in voters), matches)


def _first_best(values: Float[Tensor, " n"]) -> int:
    """Return the first index whose value equals the maximum in half precision."""
    return int((values >= values.max() - EQUAL).nonzero()[0])


def measure_removal(
    head: Head, pooled: Float[Tensor, "n p"], n_pictures: int = Voters.n_pictures, seed: int = 0
) -> dict[str, float | int]:
    """Count the predictions on held-out pictures that change when the voters on the card are removed.

    For comparison, the same number of random voters is removed.
    """
    votes, draw = _votes(head), torch.Generator().manual_seed(seed)
    changed = {"changed": 0, "changed_random": 0}
    with torch.no_grad():
        for one in pooled.split(1):
            scores = scores_of(head, one)
            decided = int(votes(scores).argmax())
            ballot = votes.ballot(scores[0])
            out = [row for row, _ in ballot if int(votes.owner[row]) == decided][:n_pictures]
            drawn = [ballot[i][0] for i in torch.randperm(len(ballot), generator=draw)[: len(out)].tolist()]
            for name, rows in (("changed", out), ("changed_random", drawn)):
                changed[name] += int(votes.without(scores, rows).argmax()) != decided
    n = max(1, len(pooled))
    return {**{name: round(times / n, 4) for name, times in changed.items()}, "n": len(pooled)}
