"""An encoder's picture half after training on pictures alone; it has no words and no classes of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ...encoders.base import Encoder, GlobalAverage, Layout
from ...encoders.split import freeze, weights_digest
from .delta import halves_of, load_delta, state_delta
from .projection import restored
from .pyramid import Pyramid


class TunedPictures(nn.Module):
    """Copies of an encoder's trunk and pooling, and what stands behind them where it is kept.

    The encoder's words, where it has any, are left out: they were never told of the pictures' new place.

    Args:
        trunk: pixels → features.
        pool: features → pooled vector.
        behind: pooled vector → another, which is then what the encoder gives.
        head: by which facts ``behind`` is built again, as JSON.
    """

    form: ClassVar[str] = "pictures"

    def __init__(
        self, trunk: nn.Module, pool: nn.Module, behind: nn.Module | None = None, head: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.trunk, self.pool, self.behind = trunk, pool, behind
        self.head = dict(head or {})

    @classmethod
    def before(cls, on: Encoder, pyramid: Mapping[str, Any] | None = None) -> Self:
        """What an encoder's halves are before any training, frozen; the encoder stays as it is."""
        trunk, pool = halves_of(on)
        return (
            cls(trunk, pool) if pyramid is None else cls(Pyramid.restored(trunk, on.layout, pyramid), GlobalAverage())
        )

    @property
    def pyramid(self) -> Mapping[str, Any] | None:
        """The facts of what stands on the trunk, if anything does."""
        return self.trunk.facts() if isinstance(self.trunk, Pyramid) else None

    def grown(self, on: Encoder, name: str, keep: float) -> Encoder:
        """An encoder of the copies, as far from the encoder's own weights towards the trained ones as ``keep`` says."""
        tensors = self.delta(on)
        own = self if keep == 1.0 else self._between(on, tensors, keep)
        trunk = own.trunk
        head = own.pool if own.behind is None else nn.Sequential(own.pool, own.behind)
        return Encoder(
            name=name,
            transform=on.transform,
            trunk=lambda: trunk,
            head=head,
            layout=on.layout if self.pyramid is None else Layout(),
            fingerprint=weights_digest(tensors, f"{on.fingerprint}|{keep!r}|pictures"),
            module=lambda: nn.Sequential(trunk, head),
            engine=on.engine_asked,
            base=on,
        )

    def _between(self, on: Encoder, tensors: Mapping[str, Tensor], keep: float) -> Self:
        found = type(self).before(on, self.pyramid)
        found.behind = self.behind
        state = found.state_dict()
        with torch.no_grad():
            for name, after in tensors.items():
                if after.is_floating_point() and not name.startswith("behind."):
                    state[name].lerp_(after, keep)
        return found

    def delta(self, on: Encoder) -> dict[str, Tensor]:
        """The tensors that are not as they are in the encoder, and all of what stands behind."""
        before = type(self).before(on, self.pyramid)
        parts: dict[str, nn.Module] = {"trunk": self.trunk, "pool": self.pool}
        found = state_delta(parts, dict(before.named_children()), whole=False)
        return found | ({} if self.behind is None else state_delta({"behind": self.behind}, {}, whole=True))

    def facts(self) -> dict[str, Any]:
        own = {} if self.behind is None else {"head": self.head}
        return {"form": self.form} | own | ({} if self.pyramid is None else {"pyramid": self.pyramid})

    @classmethod
    def restored(cls, on: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        towers = cls.before(on, facts.get("pyramid"))
        if "head" in facts:
            towers.head = dict(facts["head"])
            towers.behind = freeze(restored(towers.head))
        load_delta(dict(towers.named_children()), tensors, whole=False)
        return towers
