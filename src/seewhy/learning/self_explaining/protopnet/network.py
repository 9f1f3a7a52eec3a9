"""ProtoPNet's layers (Chen et al. 2019, arXiv 1806.10574): features → distances to prototypes → similarities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ....classifiers.network import Network
from ....encoders.base import Encoder, Layout
from ....encoders.split import freeze, weights_digest
from ....seeded import seeded
from ...encoders.delta import load_delta, state_delta

EPSILON = 1e-4
"""The authors': the largest similarity, of a prototype with itself, is log(1 / 1e-4) = 9.21."""


def similarity(distance: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """``log((d + 1) / (d + 1e-4))`` of a squared distance; 9.21 at 0, falling to 0.

    Example:
        >>> similarity(torch.tensor([0.0, 1.0])).mul(100).round().tolist()
        [921.0, 69.0]
    """
    return ((distance + 1) / (distance + EPSILON)).log()


class PrototypeLayer(nn.Module):
    """Add-on layers, and squared distances of every cell to every prototype.

    ``z = sigmoid(conv(relu(conv(x))))`` with two 1 × 1 convolutions, as the authors' "regular" form; prototypes are
    1 × 1 and start uniform in [0, 1], where ``z`` lives.
    """

    def __init__(self, n_channels: int, depth: int, n_prototypes: int, scaled: bool = False) -> None:
        super().__init__()
        self.scaled = scaled
        self.add_on = nn.Sequential(
            nn.Conv2d(n_channels, depth, 1), nn.ReLU(), nn.Conv2d(depth, depth, 1), nn.Sigmoid()
        )
        self.prototypes = nn.Parameter(torch.rand(n_prototypes, depth))
        for layer in self.add_on:
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def embed(self, grid: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Every cell where prototypes live."""
        if self.scaled:
            grid = grid / grid.square().mean(1, keepdim=True).sqrt().clamp(min=1e-6)
        z: Tensor = self.add_on(grid)
        return z

    def distances(self, grid: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p h w"]:
        """Squared Euclidean, at least 0.

        In double precision: similarity is steepest at 0, where float32 leaves nothing of a difference of squares.
        """
        z, prototypes = self.embed(grid).double(), self.prototypes.double()
        product = torch.einsum("bdhw,pd->bphw", z, prototypes)
        lengths = prototypes.square().sum(1)[:, None, None]
        return (z.square().sum(1, keepdim=True) - 2 * product + lengths).relu().float()

    def forward(self, grid: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p"]:
        """Smallest distance of each prototype to any cell."""
        return self.distances(grid).amin((2, 3))


class NearestSimilarity(nn.Module):
    """Head of the grown encoder: features → one similarity a prototype."""

    def __init__(self, layer: PrototypeLayer, layout: Layout) -> None:
        super().__init__()
        self.layer = layer
        self.layout = layout

    def forward(self, features: Tensor) -> Float[Tensor, "b p"]:
        return similarity(self.layer(self.layout.to_grid(features)))


@dataclass(frozen=True)
class Pushed:
    """The patch of a training picture that a prototype is."""

    picture: int
    cell: tuple[int, int]


@dataclass(frozen=True)
class ProtoPNetNetwork(Network):
    """What was trained behind the trunk."""

    where: ClassVar[str] = "protopnet"

    on: Encoder
    layer: PrototypeLayer
    owner: Int[Tensor, " p"]
    pushed: tuple[Pushed, ...] = field(repr=False)

    @property
    def base(self) -> Encoder:
        return self.on

    def encoder(self) -> Encoder:
        on, head = self.on, NearestSimilarity(self.layer, self.on.layout)
        return Encoder(
            name=on.name,
            transform=on.transform,
            trunk=lambda: on.trunk,
            head=freeze(head),
            layout=on.layout,
            fingerprint=weights_digest(self.tensors(), on.fingerprint),
            module=lambda: nn.Sequential(on.trunk, head),
            engine=lambda: on.engine,
        )

    def tensors(self) -> dict[str, Tensor]:
        place = torch.tensor([[p.picture, *p.cell] for p in self.pushed])
        return {
            **state_delta({"layer": self.layer}, {}, whole=True),
            "owner": self.owner,
            "pushed": place.reshape(-1, 3),
        }

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
