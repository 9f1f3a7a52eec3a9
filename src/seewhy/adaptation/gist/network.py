"""What GIST trained on an encoder, in whichever of its forms: saved, put back, and looked through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from ...classifiers.network import Network
from ...encoders.base import Encoder
from .layers import Turns
from .towers import Towers


@dataclass(frozen=True, eq=False)
class GISTNetwork(Network):
    """Two layers behind the towers, or the towers themselves.

    Attributes:
        on: the encoder, which stays as it is.
        trained: frozen.
    """

    where: ClassVar[str] = "grad_cam"

    on: Encoder
    trained: Turns | Towers

    @property
    def base(self) -> Encoder:
        return self.on

    def encoder(self) -> Encoder:
        return self.trained.grown(self.on)

    def tensors(self) -> dict[str, Tensor]:
        return self.trained.state_delta(self.on)

    def facts(self) -> dict[str, Any]:
        return self.trained.facts()

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        form: type[Turns | Towers] = Turns if facts.get("train", "layers") == "layers" else Towers
        return cls(base, form.restored(base, facts, tensors))
