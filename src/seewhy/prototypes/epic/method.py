"""EPIC: prototypes for any pretrained classifier, without a changed logit (arXiv 2505.12897, AAAI 2026)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...attributions.base import EncoderOutput, Explainable, Target
from ...bounds import Count
from ...explanation.similar import Display, Like, NeighbourShare, PrototypePurity
from ...explanation.verdict import Level, Verdict
from .. import prototypes
from ..bank import Patches
from ..base import STRANGER, Group, Match, Prototypes, Query
from ..cells import cells_of
from ..judging import LEVELS, Showing, said_of_share
from ..measure import LikenessMeasure
from .bank import EPICBank
from .rotation import Rotation

RULE = (
    "Do not rely on them unless more of the prototypes shown are of the class explained than a wrong class has on 19 "
    "of 20 held-out pictures, one neither right nor decided for. Then believable when hiding the places shown lowers "
    "the class's lead more than hiding the same pattern anywhere else that was tried, else partly. Partly at best for "
    f"a class that was not decided for. {STRANGER}"
)


@prototypes.register
@dataclass(frozen=True)
class EPIC(Prototypes):
    """The channels that speak most for the decision, each shown by the pictures that excite it most.

    EPIC (arXiv 2505.12897): a square matrix ``U`` behind the last feature map, its inverse folded into the head, so
    that no logit changes. ``U`` is fitted so that each new channel is pure: alone where it is strongest
    (:class:`seewhy.prototypes.epic.training.FitEPIC`). A channel's prototypes are the pictures with the largest sum of
    activation; on them and on the query its box is the cell where it is strongest::

        Ẑ = U Z      A' = A U⁻¹      logit_t − mean over classes = Σ_k A'_tk v_k + const      v = mean(Ẑ)

    Differences from the authors' code: contributions are signed and exact, so they add up (the code multiplies by
    ``max(v_k, 0)``); weights are taken less their mean over classes, since a constant on all logits decides nothing; a
    channel that speaks by being low shows its negative prototypes; pictures that are copies of the query or of each
    other are left out; prototypes are read from the pictures they were found on.

    Cost: no pass beside the one that predicts. Range of a share: 0…1, of everything that speaks for the target.

    Args:
        n_channels: channels shown; the authors' 4.
        n_prototypes: pictures a channel; the authors' 4.
        duplicate: pooled cosine at which two pictures count as one.
    """

    name = "epic"
    spelt = "EPIC"
    paper = "EPIC 2026, arXiv:2505.12897"
    needs = "a mean-pooled network and seewhy fit --task prototypes"
    cost = "0"
    display = Display(unit="channel", similarity="purity")
    rule = RULE
    priority = 3
    fitted_by = "seewhy.prototypes.epic.training.FitEPIC"
    kept_as = EPICBank

    n_channels: Count = 4
    n_prototypes: Count = 4
    duplicate: float = 0.98

    def __call__(self, model: Explainable, bank: Patches, query: Query) -> list[Group]:
        known = fitted(bank)
        cells = cells_of(model, query.look.features)[0]
        parts = contributions(model, known.rotation, query.look, query.target)[0]
        activity = known.rotation.matrix @ query.look.pooled[0]
        speaks = float(parts.clamp(min=0).sum())
        banned = known.copies(query.look.pooled[0], query.digest, self.duplicate)
        groups = []
        for channel in parts.argsort(descending=True, stable=True).tolist()[: self.n_channels]:
            part = float(parts[channel])
            if part <= 0:
                break
            sign = 1 if activity[channel] >= 0 else -1
            place = int((sign * torch.einsum("d,dhw->hw", known.rotation.matrix[channel], cells)).argmax())
            shown = known.distinct(known.of_channel(channel, sign), banned, self.n_prototypes, self.duplicate)
            matches = tuple(Match(patch, float(known.purity[patch])) for patch in shown)
            groups.append(Group(divmod(place, cells.shape[2]), part / speaks, matches, channel, part))
        return groups

    def activation(
        self, model: Explainable, bank: Patches, look: EncoderOutput, which: Int[Tensor, " p"]
    ) -> Float[Tensor, "b p h w"]:
        """The channel of each patch, with its sign, in the units of the feature map; unbounded."""
        known = fitted(bank)
        rows = known.rotation.matrix[known.channels[which]] * known.signs[which, None]
        return torch.einsum("pd,bdhw->bphw", rows, cells_of(model, look.features))

    def prototype_of(self, bank: Patches, patch: int) -> int:
        known = fitted(bank)
        return 2 * int(known.channels[patch]) + int(known.signs[patch] < 0)

    def title_of(self, bank: Patches, patch: int) -> str:
        known = fitted(bank)
        return f"{'+' if int(known.signs[patch]) > 0 else '-'}{int(known.channels[patch])}"

    def judge(self, showing: Showing) -> Like:
        """By how many prototypes are of the class explained, and by what hiding their places costs."""
        measures, deletion, subject = fitted(showing.bank).measures, showing.deletion, showing.subject
        held, measure = measures["held_out"], LikenessMeasure.restore(measures["likeness"])
        purity = PrototypePurity(measures["purity_fit"], held["purity"], held["before"], held["random"], held["n"])
        matters = deletion is not None and deletion.matters_most
        here, limit = showing.of_target, None if measure is None else measure.limit
        # How many were right is not asked: the classifier may have been fitted on what was held out of the rotation.
        share = None if here is None or limit is None else NeighbourShare(here, limit)
        level: Level = "not measured"
        figures = (
            f"These {len(showing.groups)} channels bring {showing.logits:.1f} of the {showing.logits_in_all:.1f} "
            f"logits that speak for {subject.of_class} ({showing.share:.0%}); {1 - showing.share:.0%} lies in other "
            f"channels.{showing.hidden}"
        )
        if deletion is not None and not matters:
            figures = figures[:-1] + ", so these places do not matter more than others."
        if share is not None:
            figures += f" {said_of_share(showing, share, 'prototypes')}"
            if deletion is not None:
                most = LEVELS[1 + int(matters and subject.label == subject.decision)]
                level = most if share.reaches else "do not rely"
        verdict, difference = Verdict(level, figures, self.rule), measures["logit_difference"]
        return showing.like(self, verdict, measure, purity=purity, logit_difference=difference, of_target=share)


def fitted(bank: Patches) -> EPICBank:
    """The bank, if it is EPIC's; that of another method is a programming error."""
    if not isinstance(bank, EPICBank):
        raise TypeError(f"epic needs an EPICBank, not {type(bank).__name__}")
    return bank


def contributions(model: Explainable, rotation: Rotation, look: EncoderOutput, target: Target) -> Float[Tensor, "b d"]:
    """Each channel's part of the target's logit, less the mean over classes; the parts add up to it but a constant.

    ``A'_tk v_k``, with ``A`` the weights of the head on these very pictures
    (:meth:`seewhy.heads.head.Head.slope`) and ``A' = A U⁻¹``.
    """
    slope = model.head.slope(look.pooled, target)
    return (slope @ rotation.inverse) * (look.pooled @ rotation.matrix.T)
