"""What a recipe looks through that trains the encoder's own weights, or a small network in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from ....classifiers.network import Network
from ....encoders.base import Encoder, Layout
from ....encoders.delta import load_delta, state_delta
from ....encoders.split import fingerprint
from ..backbone import halves, sized


@dataclass(frozen=True, eq=False)
class TunedNetwork(Network):
    """A trained trunk and its pooling.

    Attributes:
        grown_on: the encoder whose transform, and whose weights where ``backbone`` says so, it began with.
        trunk: pixels → features, frozen.
        pool: features → pooled vector, frozen.
        layout: of the features.
        settings: ``backbone`` and ``size``.
    """

    where: ClassVar[str] = "grad_cam"

    grown_on: Encoder
    trunk: nn.Module
    pool: nn.Module
    layout: Layout
    settings: dict[str, Any]

    @property
    def base(self) -> Encoder:
        return self.grown_on

    def encoder(self) -> Encoder:
        own, trunk, pool = self.grown_on, self.trunk, self.pool
        transform = sized(own, self.settings["size"]).transform
        whole = nn.Sequential(trunk, pool)
        return Encoder(
            name=own.name if self.settings["backbone"] == "encoder" else f"small ResNet, {transform.input_size[1]} px",
            transform=transform,
            trunk=lambda: trunk,
            head=pool,
            layout=self.layout,
            fingerprint=fingerprint(whole, transform),
            module=lambda: whole,
            engine=own.engine_asked,
        )

    def tensors(self) -> dict[str, Tensor]:
        """All of a small network; of an encoder what is not as it was."""
        trunk, pool, _ = halves(self.grown_on, self.settings["backbone"])
        parts, before = {"trunk": self.trunk, "pool": self.pool}, {"trunk": trunk, "pool": pool}
        return state_delta(parts, before, whole=self.settings["backbone"] == "scratch")

    def facts(self) -> dict[str, Any]:
        return dict(self.settings)

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        trunk, pool, layout = halves(base, facts["backbone"])
        load_delta({"trunk": trunk, "pool": pool}, tensors, whole=facts["backbone"] == "scratch")
        return cls(base, trunk, pool, layout, dict(facts))
