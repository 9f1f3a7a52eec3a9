"""What a COMET classifier looks through: its selector, then the predictor's trunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from ....classifiers.network import Network
from ....encoders.base import Encoder, Layout
from ....encoders.delta import load_delta, state_delta
from ....encoders.split import fingerprint, freeze
from ....seeded import seeded
from ...adaptation.backbone import halves, sized
from .selector import Hide, SelectedTrunk, Selector, make_selector


@dataclass(frozen=True, eq=False)
class COMETNetwork(Network):
    """A selector before a trunk.

    Attributes:
        grown_on: the encoder whose transform, and whose trunk where ``backbone`` says so, it began with.
        selector: pixels → mask.
        trunk: masked pixels → features.
        pool: features → pooled vector.
        layout: of the features.
        settings: ``selector``, ``backbone``, ``fill`` and ``size``.
    """

    where: ClassVar[str] = "comet"

    grown_on: Encoder
    selector: Selector
    trunk: nn.Module
    pool: nn.Module
    layout: Layout
    settings: dict[str, Any]

    @property
    def base(self) -> Encoder:
        return self.grown_on

    def encoder(self) -> Encoder:
        own, settings = self.grown_on, self.settings
        transform = sized(own, settings["size"]).transform
        seen = freeze(SelectedTrunk(self.selector, Hide(settings["fill"], transform), self.trunk))
        whole = nn.ModuleList([seen, self.pool])
        words = settings["frozen"] and own.has_text
        return Encoder(
            name=own.name if settings["backbone"] == "encoder" else f"small ResNet, {transform.input_size[1]} px",
            transform=transform,
            trunk=lambda: seen,
            head=self.pool,
            layout=self.layout,
            fingerprint=fingerprint(whole, transform) + f"-{settings['fill']}",
            text=(lambda: own.text) if words else None,
            module=lambda: whole,
            engine=own.engine_asked,
        )

    def tensors(self) -> dict[str, Tensor]:
        """All of the selector; of trunk and pooling what is not as it was in the encoder."""
        trunk, pool, _ = halves(self.grown_on, self.settings["backbone"])
        parts, before = {"trunk": self.trunk, "pool": self.pool}, {"trunk": trunk, "pool": pool}
        found = state_delta(parts, before, whole=self.settings["backbone"] == "scratch")
        return {**{f"selector.{n}": t for n, t in self.selector.state_dict().items()}, **found}

    def facts(self) -> dict[str, Any]:
        return dict(self.settings)

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        with seeded(0):
            selector = make_selector(facts["selector"])
        trunk, pool, layout = halves(base, facts["backbone"])
        load_delta({"selector": selector}, tensors, whole=True)
        load_delta({"trunk": trunk, "pool": pool}, tensors, whole=facts["backbone"] == "scratch")
        return cls(base, freeze(selector), trunk, pool, layout, dict(facts))  # type: ignore[arg-type]
