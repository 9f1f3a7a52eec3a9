"""A few convolutions, each halved by a maximum, then a few dense layers: the family of networks searched by CIFAKE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...encoders.base import Encoder, Layout
from ...encoders.split import freeze, weights_digest
from ...errors import InputError
from ...types import Transform
from ..network import Network

SIDES = range(8, 257)
"""That pictures may have."""
MOST_WEIGHTS = 200_000_000
"""More than this is no small network."""


@dataclass(frozen=True)
class Topology:
    """What is varied.

    Attributes:
        n_convs: 3 × 3 convolutions.
        n_filters: of each.
        n_dense: layers between the last map and the classes.
        n_units: of each.

    Example:
        >>> str(Topology(2, 32, 1, 64)), Topology(2, 32, 1, 64).n_weights(32, 2)
        ('2 x 32 filters, 1 x 64 units', 141410)
    """

    n_convs: int = 2
    n_filters: int = 32
    n_dense: int = 1
    n_units: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.n_convs <= 5 or self.n_filters < 1 or self.n_dense < 0 or self.n_units < 1:
            raise InputError(
                f"A small CNN was given n_convs={self.n_convs}, n_filters={self.n_filters}, n_dense={self.n_dense}, "
                f"n_units={self.n_units}. 1 to 5 convolutions, no or more dense layers, and numbers above zero were "
                "expected. Change them."
            )

    def __str__(self) -> str:
        dense = f", {self.n_dense} x {self.n_units} units" if self.n_dense else ""
        return f"{self.n_convs} x {self.n_filters} filters{dense}"

    def check(self, side: int) -> None:
        """See that pictures of this side can be halved so often."""
        if side not in SIDES or side >> self.n_convs < 1:
            raise InputError(
                f"A small CNN of {self.n_convs} convolutions was given side={side}. {SIDES[0]} to {SIDES[-1]} pixels "
                "that can be halved once for each were expected. Change the side."
            )
        if self.n_weights(side, 2) > MOST_WEIGHTS:
            raise InputError(
                f"A small CNN of {self} on pictures of {side} pixels has {self.n_weights(side, 2):,} weights. At most "
                f"{MOST_WEIGHTS:,} were expected. Take fewer units or a smaller side."
            )

    def widths(self, side: int) -> list[int]:
        """Of what the dense layers read, and of each of them."""
        return [self.n_filters * (side >> self.n_convs) ** 2, *[self.n_units] * self.n_dense]

    def n_weights(self, side: int, n_classes: int) -> int:
        """With biases."""
        channels = [3, *[self.n_filters] * self.n_convs]
        widths = [*self.widths(side), n_classes]
        maps = sum(9 * a * b + b for a, b in pairwise(channels))
        return maps + sum(a * b + b for a, b in pairwise(widths))

    def make(self, side: int, *, standardise: bool) -> tuple[nn.Sequential, nn.Sequential]:
        """Pixels → the last convolution's map, and that map → what the last layer reads; torch's random numbers."""
        trunk: list[nn.Module] = [Standardise()] if standardise else []
        channels = [3, *[self.n_filters] * self.n_convs]
        for i, (a, b) in enumerate(pairwise(channels)):
            trunk += [nn.MaxPool2d(2)] * (i > 0) + [nn.Conv2d(a, b, 3, padding=1), nn.ReLU()]
        head: list[nn.Module] = [nn.MaxPool2d(2), nn.Flatten()]
        widths = self.widths(side)
        for a, b in pairwise(widths):
            head += [nn.Linear(a, b), nn.ReLU()]
        return nn.Sequential(*trunk), nn.Sequential(*head)


class Standardise(nn.Module):
    """Each picture less its own mean colour, by its own spread: a colour cast tells nothing any more."""

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        rest = pixels - pixels.mean((2, 3), keepdim=True)
        return rest / rest.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-3)


def transform_of(side: int) -> Transform:
    """Numbers of 0 to 1; pictures of another size are stretched, which hides what a generator left."""
    return Transform((side, side), (side, side), "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def reader(side: int) -> Encoder:
    """Reads pictures and computes next to nothing: features are the pixels, pooled are 4 × 4 colours."""
    trunk, pool = nn.Identity(), nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())
    return Encoder(
        name=f"pictures of {side} px",
        transform=transform_of(side),
        trunk=lambda: freeze(trunk),
        head=freeze(pool),
        layout=Layout(),
        fingerprint=f"pixels{side}",
        engine="torch",
    )


@dataclass(frozen=True, eq=False)
class SmallCNNNetwork(Network):
    """Trained convolutions and dense layers.

    Attributes:
        on: the encoder that the recipe was given, which is not looked through.
        topology: of the network.
        side: of the pictures.
        standardise: whether each picture is brought to mean 0 and spread 1 first.
        trunk: pixels → map, frozen.
        head: map → what the last layer reads, frozen.
    """

    where = "grad_cam"

    on: Encoder
    topology: Topology
    side: int
    standardise: bool
    trunk: nn.Sequential = field(repr=False)
    head: nn.Sequential = field(repr=False)

    @property
    def base(self) -> Encoder:
        return self.on

    def encoder(self) -> Encoder:
        transform = transform_of(self.side)
        return Encoder(
            name=f"small CNN of {self.side} px",
            transform=transform,
            trunk=lambda: self.trunk,
            head=self.head,
            layout=Layout(),
            fingerprint=weights_digest(self.tensors(), f"{self.topology}{self.standardise}{transform.fingerprint}"),
            module=lambda: nn.Sequential(self.trunk, self.head),
            engine="torch",
        )

    def tensors(self) -> dict[str, Tensor]:
        parts = {"trunk": self.trunk, "head": self.head}
        return {f"{p}.{n}": t.detach() for p, module in parts.items() for n, t in module.state_dict().items()}

    def facts(self) -> dict[str, Any]:
        return {"topology": vars(self.topology), "side": self.side, "standardise": self.standardise}

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        topology, side, standardise = Topology(**facts["topology"]), int(facts["side"]), bool(facts["standardise"])
        topology.check(side)
        with torch.device("meta"):
            parts = topology.make(side, standardise=standardise)
        for name, module in zip(("trunk", "head"), parts, strict=True):
            own = {n.removeprefix(f"{name}."): t for n, t in tensors.items() if n.startswith(f"{name}.")}
            expected = {n: t.shape for n, t in module.state_dict().items()}
            if {n: t.shape for n, t in own.items()} != expected:
                raise ValueError(f"the tensors of its {name} are not those of {topology}")
            module.load_state_dict(own, assign=True)
            freeze(module)
        return cls(base, topology, side, standardise, *parts)
