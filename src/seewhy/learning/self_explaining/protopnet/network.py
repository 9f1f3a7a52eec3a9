"""Layers, similarity map and prototypes of ProtoPNet (Chen et al. 2019, arXiv 1806.10574)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from ....attributions import attributions
from ....attributions.base import Attribution, Explainable
from ....classifiers.network import Network
from ....encoders.base import Encoder, EncoderOutput, Layout
from ....encoders.split import freeze, weights_digest
from ....encoders.stream import Encoded, EncodeRequest, encode_stream
from ....errors import DataError, InputError
from ....explanation.similar import Like
from ....explanation.verdict import Level, Verdict
from ....heads.head import Target, TargetFunction
from ....pictures.miniatures import encode_thumbnail
from ....prototypes import prototypes
from ....prototypes.bank import BankPicture, PatchBank, Patches, cell_box
from ....prototypes.base import STRANGER, Group, Match, Prototypes, Query
from ....prototypes.measure import LikenessMeasure, Showing
from ....seeded import seeded
from ....storage.features import FeatureStore
from ...encoders.delta import WITHOUT_WORDS, load_delta, state_delta

EPSILON = 1e-4
HIGHEST = math.log(1 / EPSILON)
"""Largest similarity, at distance 0: 9.21."""
RULE = (
    "The prototypes are believable if at least two thirds of the held-out pictures nearest to a prototype have its "
    "class. Hiding the places shown, if this was measured, must also weaken the class more than hiding other places. "
    "The prototypes are partly believable if at least one third of these pictures have the class. In both cases, the "
    f"odds must be at least three times the odds by chance. Otherwise do not rely on the prototypes. {STRANGER}"
)


def similarity(distance: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return ``log((d + 1) / (d + 1e-4))`` of squared distances; at most 9.21."""
    return ((distance + 1) / (distance + EPSILON)).log()


class PrototypeLayer(nn.Module):
    """Add-on layers and prototypes, from which squared distances are computed.

        z = sigmoid(conv(relu(conv(x))))

    ``x`` is the feature map. The convolutions are 1 × 1, as in the authors' "regular" form. Prototypes are 1 × 1, with
    uniform random initial values in [0, 1].
    """

    def __init__(self, n_channels: int, depth: int, n_prototypes: int, scaled: bool = False) -> None:
        super().__init__()
        self.scaled = scaled
        convolutions = nn.Conv2d(n_channels, depth, 1), nn.Conv2d(depth, depth, 1)
        self.add_on = nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1], nn.Sigmoid())
        self.prototypes = nn.Parameter(torch.rand(n_prototypes, depth))
        for layer in convolutions:
            assert layer.bias is not None
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def embed(self, grid: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        if self.scaled:
            grid = grid / grid.square().mean(1, keepdim=True).sqrt().clamp(min=1e-6)
        return self.add_on(grid)

    def distances(self, grid: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p h w"]:
        """Return squared distances, computed in double precision."""
        z, prototypes = self.embed(grid).double(), self.prototypes.double()
        product = torch.einsum("bdhw,pd->bphw", z, prototypes)
        lengths = prototypes.square().sum(1)[:, None, None]
        return (z.square().sum(1, keepdim=True) - 2 * product + lengths).relu().float()

    def forward(self, grid: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p"]:
        return self.distances(grid).amin((2, 3))


class NearestSimilarity(nn.Module):
    """Head that maps features to a similarity for each prototype."""

    def __init__(self, layer: PrototypeLayer, layout: Layout) -> None:
        super().__init__()
        self.layer, self.layout = layer, layout

    def forward(self, features: Tensor) -> Float[Tensor, "b p"]:
        return similarity(self.layer(self.layout.to_grid(features)))


@dataclass(frozen=True)
class Pushed:
    """The training patch that became a prototype."""

    picture: int
    cell: tuple[int, int]


@dataclass(frozen=True)
class ProtoPNetNetwork(Network):
    """The trained add-on layers and prototypes."""

    where: ClassVar[str] = "protopnet"

    layer: PrototypeLayer
    owner: Int[Tensor, " p"]
    pushed: tuple[Pushed, ...] = field(repr=False)

    def maps(self, look: EncoderOutput) -> Float[Tensor, "b p h w"]:
        return self.layer.distances(self.base.layout.to_grid(look.features))

    def encoder(self) -> Encoder:
        on, head = self.base, NearestSimilarity(self.layer, self.base.layout)
        digest = weights_digest(self.tensors(), on.fingerprint)
        module = lambda: nn.Sequential(on.trunk, head)  # noqa: E731
        return on.but(head=freeze(head), fingerprint=digest, module=module, engine=lambda: on.engine, **WITHOUT_WORDS)

    def tensors(self) -> dict[str, Tensor]:
        places = torch.tensor([[p.picture, *p.cell] for p in self.pushed]).reshape(-1, 3)
        return {**state_delta({"layer": self.layer}, {}, whole=True), "owner": self.owner, "pushed": places}

    def facts(self) -> dict[str, Any]:
        first, depth = self.layer.add_on[0], self.layer.prototypes.shape[1]
        return {"n_channels": first.in_channels, "depth": depth, "scaled": self.layer.scaled}

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        owner = tensors["owner"]
        with seeded(0):
            layer = PrototypeLayer(int(facts["n_channels"]), int(facts["depth"]), len(owner), bool(facts["scaled"]))
        load_delta({"layer": layer}, tensors, whole=True)
        freeze(layer)
        pushed = tuple(Pushed(picture, (row, column)) for picture, row, column in tensors["pushed"].tolist())
        return cls(base, layer, owner, pushed)


def network_of(model: Explainable) -> ProtoPNetNetwork:
    network = getattr(model, "network", None)
    if not isinstance(network, ProtoPNetNetwork):
        raise InputError(
            "protopnet can only explain a protopnet classifier. Use grad_cam and nearest patches, or fit a classifier "
            "with: seewhy fit --method protopnet"
        )
    return network


def contrasted(model: Explainable, target: Target) -> Float[Tensor, "b p"]:
    """Return the weight of each prototype for the target, minus its mean over classes."""
    return target.of(model.head.weight - model.head.weight.mean(0))


@attributions.register
@dataclass(frozen=True)
class ProtoPNetMap(Attribution):
    """Map of the similarity to the prototypes of a class.

        Σ_p (W_tp - mean_k W_kp) (g_p(patch) - min_patch g_p)

    * ``g_p``: similarity map of prototype ``p``.
    * ``W``: weights of the last layer; ``t`` is the class.

    The logit depends only on the most similar patch of each prototype. The map shows all patches, as the figures of the
    paper do (section 2.4), so its values do not add up to the logit.
    """

    name: ClassVar[str] = "protopnet"
    spelt: ClassVar[str] = "ProtoPNet"
    paper: ClassVar[str] = "Chen et al. 2019, arXiv:1806.10574"
    needs: ClassVar[str] = "a classifier made with: seewhy fit --method protopnet"
    cost: ClassVar[str] = "0"
    recipe: ClassVar[str] = "protopnet"

    @torch.no_grad()
    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Float[Tensor, "b h w"]:
        network = network_of(model)
        if not isinstance(target, Target):
            raise InputError("protopnet can only explain a class, got another target. Give a class, or use grad_cam.")
        maps = similarity(network.maps(look))
        return torch.einsum("bp,bphw->bhw", contrasted(model, target), maps - maps.amin((2, 3), keepdim=True))


@prototypes.register
@dataclass(frozen=True)
class ProtoPNetPrototypes(Prototypes):
    """The prototypes that contribute most to a class, each with the most similar patch of the picture.

    Prototype ``p`` contributes ``(W_tp - mean_k W_kp) g_p``, where ``W`` are the weights of the last layer and ``g_p``
    is the similarity. All contributions add up to the logit of class ``t`` minus the mean logit. The displayed
    similarity is ``g_p / 9.21``, which is 1 for the patch that became the prototype.

    Args:
        n_prototypes: number of prototypes to show, at least 1.
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
        distances = network_of(model).maps(query.look)[0]
        nearest, cells = distances.flatten(1).min(1)
        close = similarity(nearest)
        brought = contrasted(model, query.target)[0] * close
        total = brought.clamp(min=0).sum().clamp(min=1e-12)
        chosen = brought.argsort(descending=True, stable=True)[: self.n_prototypes].tolist()
        return [
            Group(
                divmod(int(cells[p]), distances.shape[2]),
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
        """Return the similarity of each patch to each prototype, 0 to 9.21."""
        return similarity(network_of(model).maps(look)[:, which])

    def judge(self, showing: Showing) -> Like:
        """Return the evidence with a verdict on how often the prototypes match pictures of their class."""
        measure = showing.model.likeness
        figures = f"{showing.contribution('prototypes')}.{showing.hidden}"
        if measure is None:
            sentence = "No held-out pictures show whether these prototypes match their own class."
            return showing.like(self, Verdict("not measured", sentence, self.rule, figures))
        figures += (
            f" Of {measure.n} held-out pictures, those nearest to a prototype have its class "
            f"{100 * measure.precision:.0f} % of the time (by chance {100 * measure.chance:.0f} %)."
        )
        sentence = (
            f"On held-out pictures, prototypes match their own class {measure.precision * 100:.0f} % of the time."
        )
        level: Level = "partly"
        if measure.precision < 1 / 3 or not beats_chance(measure):
            level = "do not rely"
        elif measure.precision >= 2 / 3 and showing.matters:
            level = "believable"
        elif measure.precision >= 2 / 3:
            sentence = (
                "Prototypes match their own class, but hiding their places weakens the class no more than hiding "
                "other places."
            )
        return showing.like(self, Verdict(level, sentence, self.rule, figures), measure)


def beats_chance(measure: LikenessMeasure) -> bool:
    """Return whether the odds that a prototype matches the class are at least three times the odds by chance."""
    return measure.precision * (1 - measure.chance) >= 3 * measure.chance * (1 - measure.precision)


def measure_prototypes(
    close: Float[Tensor, "n p"], labels: Int[Tensor, " n"], owner: Int[Tensor, " p"], most: int = 5
) -> LikenessMeasure | None:
    """Return the precision of the held-out pictures nearest to each prototype.

    For each prototype, the ``min(n, most)`` nearest pictures count, where ``n`` is the number of pictures of the
    prototype's class.
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
    """Return the patches that became prototypes, with their pictures."""
    needed = sorted({p.picture for p in pushed})
    request = EncodeRequest(pictures=True, features=lambda _index: True)
    stream = encode_stream(encoder, [sources[i] for i in needed], store=store, request=request)
    pictures, pooled, grids, crops = [], [], [], []
    for i, one in zip(needed, stream, strict=True):
        if not isinstance(one, Encoded):
            raise DataError(f"{sources[i]} can no longer be read. Restore this file.")
        assert one.picture is not None
        assert one.features is not None
        pictures.append(BankPicture(one.name, one.digest, labels[i], encode_thumbnail(one.picture.pixels)))
        pooled.append(one.pooled[0])
        grids.append(encoder.layout.to_grid(one.features[None])[0])
        crops.append(one.picture)
    places = tuple(Pushed(needed.index(p.picture), p.cell) for p in pushed)
    boxes = [cell_box(p.cell, (grids[0].shape[1], grids[0].shape[2])) for p in places]
    bank = PatchBank(
        tuple(pictures),
        normalize(torch.stack(pooled), dim=1),
        torch.tensor([p.picture for p in places]),
        torch.tensor(boxes),
        torch.tensor([crops[p.picture].to_original(box) for p, box in zip(places, boxes, strict=True)]),
        torch.stack([normalize(grids[p.picture][:, p.cell[0], p.cell[1]], dim=0) for p in places]),
    )
    return bank, places
