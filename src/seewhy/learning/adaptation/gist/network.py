"""What GIST trained on an encoder, in whichever of its forms: saved, put back, and looked through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, get_args

from torch import Tensor

from ....classifiers.network import Network
from ....encoders.base import Encoder
from ....encoders.tuned_towers import TunedTowers
from .layers import Turns
from .towers import Form, grown


@dataclass(frozen=True, eq=False)
class GISTNetwork(Network):
    """Two layers behind the towers, or the towers themselves.

    Attributes:
        on: the encoder, which stays as it is.
        trained: frozen.
    """

    where: ClassVar[str] = "grad_cam"

    on: Encoder
    trained: Turns | TunedTowers

    @property
    def base(self) -> Encoder:
        return self.on

    def encoder(self) -> Encoder:
        own = self.trained
        return own.grown(self.on) if isinstance(own, Turns) else grown(own, self.on)

    def tensors(self) -> dict[str, Tensor]:
        return self.trained.delta(self.on)

    def facts(self) -> dict[str, Any]:
        own = self.trained
        return own.facts() if isinstance(own, Turns) else {"train": own.form}

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        form = facts.get("train", "layers")
        if form == "layers":
            return cls(base, Turns.restored(base, facts, tensors))
        if form not in get_args(Form):
            raise ValueError(f"gist trained {form!r}")
        return cls(base, TunedTowers.restored(base, {"form": form}, tensors))
