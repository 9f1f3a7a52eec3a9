"""The prototypes of a ProtoPNet (Chen et al. 2019, arXiv 1806.10574): *this looks like that*."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ....attributions.base import Explainable
from ....encoders.base import Encoder, EncoderOutput
from ....encoders.stream import Encoded, EncodeRequest, encode_stream
from ....errors import DataError
from ....explanation.similar import Like
from ....explanation.verdict import Level, Verdict
from ....pictures.miniatures import encode_thumbnail
from ....prototypes import prototypes
from ....prototypes.bank import BankPicture, PatchBank, Patches, cell_box
from ....prototypes.base import STRANGER, Group, Match, Prototypes, Query
from ....prototypes.measure import LikenessMeasure, Showing
from ....storage.features import FeatureStore
from .attribution import network_of
from .network import EPSILON, Pushed, similarity

HIGHEST = math.log(1 / EPSILON)
RULE = (
    "Believable when, of the held-out pictures nearest to a prototype, at least two thirds are of its class and hiding "
    "the places shown, where that was measured, lowers the class's lead more than hiding others; partly when at least "
    "one third are; both only where the odds of it are three times those of chance; otherwise do not rely on them. "
    f"{STRANGER}"
)


@prototypes.register
@dataclass(frozen=True)
class ProtoPNetPrototypes(Prototypes):
    """The prototypes that speak most for the class, each with the place that is nearest to it.

    Prototype ``p`` brings ``(W_tp - mean_k W_kp) g_p`` to the target's logit, less the mean over classes; all of them
    add up to it. Shown are the largest, each with the patch it was pushed to. A match's similarity is ``g_p / 9.21``:
    1 on the patch itself.

    Args:
        n_prototypes: shown.
    """

    name: ClassVar[str] = "protopnet"
    spelt: ClassVar[str] = "ProtoPNet"
    paper: ClassVar[str] = "Chen et al. 2019, arXiv:1806.10574"
    needs: ClassVar[str] = "a classifier made with: seewhy fit --method protopnet"
    cost: ClassVar[str] = "0"
    rule: ClassVar[str] = RULE
    priority: ClassVar[int] = 2
    shows: ClassVar[str] = "the prototypes of a ProtoPNet"
    recipe: ClassVar[str] = "protopnet"

    n_prototypes: int = 4

    @torch.no_grad()
    def __call__(self, model: Explainable, bank: Patches, query: Query) -> list[Group]:
        network = network_of(model)
        distances = network.layer.distances(network.on.layout.to_grid(query.look.features))[0]
        width = distances.shape[2]
        nearest, cells = distances.flatten(1).min(1)
        close = similarity(nearest)
        brought = query.target.of(model.head.weight - model.head.weight.mean(0))[0] * close
        total = brought.clamp(min=0).sum().clamp(min=1e-12)
        chosen = brought.argsort(descending=True, stable=True)[: self.n_prototypes].tolist()
        return [
            Group(
                divmod(int(cells[p]), width),
                float(brought[p] / total),
                (Match(p, float(close[p]) / HIGHEST),),
                channel=p,
                contribution=float(brought[p]),
            )
            for p in chosen
            if brought[p] > 0
        ]

    @torch.no_grad()
    def activation(
        self, model: Explainable, bank: Patches, look: EncoderOutput, which: Int[Tensor, " p"]
    ) -> Float[Tensor, "b p h w"]:
        """Similarity ``g``, 0…9.21, of each cell and each prototype."""
        network = network_of(model)
        return similarity(network.layer.distances(network.on.layout.to_grid(look.features))[:, which])

    def judge(self, showing: Showing) -> Like:
        """Prototypes shown are of the class nearly always; what counts is whether they find it on other pictures."""
        measure = showing.model.likeness
        figures = (
            f"These {len(showing.groups)} prototypes bring {showing.logits:.1f} of the {showing.logits_in_all:.1f} "
            f"logits that speak for {showing.subject.of_class} ({showing.share:.0%}).{showing.hidden}"
        )
        if measure is None:
            figures += " No pictures were held out to measure prototypes."
            return showing.like(self, Verdict("not measured", figures, self.rule))
        figures += (
            f" Of the {measure.n} held-out pictures those nearest to a prototype are of its class "
            f"{measure.precision:.0%} of the time (chance {measure.chance:.0%})."
        )
        least = measure.precision if beats_chance(measure) else 0.0
        level: Level = "partly" if least >= 1 / 3 else "do not rely"
        if least >= 2 / 3 and showing.matters:
            level = "believable"
        return showing.like(self, Verdict(level, figures, self.rule), measure)


def beats_chance(measure: LikenessMeasure) -> bool:
    """Whether the odds of carrying the class are three times those of chance: 3 % at 1 %, 75 % at 50 %."""
    return measure.precision * (1 - measure.chance) >= 3 * measure.chance * (1 - measure.precision)


def measure_prototypes(
    close: Float[Tensor, "n p"], labels: Int[Tensor, " n"], owner: Int[Tensor, " p"], most: int = 5
) -> LikenessMeasure | None:
    """How often the held-out pictures nearest to a prototype are of its class.

    Of each prototype as many are asked as its class has held out, ``most`` at most, so that all can be right; the
    rest would be counted wrong whatever the prototype. What a card shows for a class are prototypes of that class
    nearly always, so that counting *their* class would measure nothing.

    Example:
        >>> close = torch.tensor([[9.0, 1.0], [8.0, 7.0], [1.0, 2.0]])
        >>> measure_prototypes(close, torch.tensor([0, 0, 1]), torch.tensor([0, 1])).precision
        0.5
    """
    found, chance = [], []
    for p, label in enumerate(owner.tolist()):
        n = int((labels == label).sum())
        if n:
            nearest = close[:, p].topk(min(n, most)).indices
            found.append(float((labels[nearest] == label).float().mean()))
            chance.append(n / len(labels))
    if not found:
        return None
    return LikenessMeasure(sum(found) / len(found), sum(chance) / len(chance), len(labels))


def prototype_bank(
    encoder: Encoder,
    sources: Sequence[Any],
    labels: Sequence[int],
    pushed: Sequence[Pushed],
    store: FeatureStore | None,
) -> tuple[PatchBank, tuple[Pushed, ...]]:
    """The patches that became prototypes, with the pictures they lie on."""
    needed = sorted({p.picture for p in pushed})
    request = EncodeRequest(pictures=True, features=lambda _index: True)
    seen: list[Encoded] = []
    for one in encode_stream(encoder, [sources[i] for i in needed], store=store, request=request):
        if not isinstance(one, Encoded):
            raise DataError(f"{sources[needed[len(seen)]]} was read before and cannot be read now. Bring it back.")
        seen.append(one)
    places = tuple(Pushed(needed.index(p.picture), p.cell) for p in pushed)
    pictures, grids, crops = [], [], []
    for one, i in zip(seen, needed, strict=True):
        if one.picture is None or one.features is None:
            raise TypeError("pictures and features were wished for")
        pictures.append(BankPicture(one.name, one.digest, labels[i], encode_thumbnail(one.picture.pixels)))
        grids.append(encoder.layout.to_grid(one.features[None])[0])
        crops.append(one.picture)
    boxes = [cell_box(p.cell, (grids[0].shape[1], grids[0].shape[2])) for p in places]
    bank = PatchBank(
        tuple(pictures),
        normalize(torch.stack([s.pooled[0] for s in seen]), dim=1),
        torch.stack([normalize(grids[p.picture][:, p.cell[0], p.cell[1]], dim=0) for p in places]),
        torch.tensor([p.picture for p in places]),
        torch.tensor(boxes),
        torch.tensor([crops[p.picture].to_original(box) for p, box in zip(places, boxes, strict=True)]),
    )
    return bank, places
