"""GIST behind frozen towers: one linear layer on the pictures' side and one on the texts', in their shared space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..encoders.base import Encoder, TextTower
from ..encoders.split import freeze, weights_digest
from .network import Network


class Turns(nn.Module):
    """Both layers, at first the identity, so that training begins where the encoder was.

    Args:
        width: of the shared space.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image, self.text = (nn.Linear(width, width, bias=False) for _ in "it")
        for layer in (self.image, self.text):
            nn.init.eye_(layer.weight)


class Turned(nn.Module):
    """Head of the grown encoder: features → the turned space, not of unit length.

    Args:
        head: the encoder's own.
        tower: whose projection follows.
        turn: the trained layer.
    """

    def __init__(self, head: nn.Module, tower: TextTower, turn: nn.Linear) -> None:
        super().__init__()
        self.head = head
        self.tower = tower
        self.turn = turn

    def forward(self, features: Tensor) -> Float[Tensor, "b d"]:
        turned: Tensor = self.turn(self.tower.project(self.head(features)))
        return turned


class TurnedText:
    """The words half of the grown encoder; pictures come out of its head in the space of the sentences.

    Args:
        tower: the encoder's own.
        turn: the trained layer.
    """

    def __init__(self, tower: TextTower, turn: nn.Linear) -> None:
        self.tower = tower
        self.turn = turn
        self.logit_scale = tower.logit_scale
        self.templates = tower.templates
        self.fingerprint = weights_digest({"turn": turn.weight}, tower.fingerprint)

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        with torch.no_grad():
            return normalize(self.turn(self.tower.encode_text(texts)), dim=1)

    def project(self, pooled: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        return pooled


@dataclass(frozen=True, eq=False)
class GISTNetwork(Network):
    """Two trained layers behind the towers.

    Attributes:
        on: the encoder, which stays as it is.
        turns: frozen.
    """

    where: ClassVar[str] = "grad_cam"

    on: Encoder
    turns: Turns

    @property
    def base(self) -> Encoder:
        return self.on

    def encoder(self) -> Encoder:
        on = self.on
        head = Turned(on.head, on.text, self.turns.image).eval()
        return Encoder(
            name=on.name,
            transform=on.transform,
            trunk=lambda: on.trunk,
            head=head,
            layout=on.layout,
            fingerprint=weights_digest(self.tensors(), on.fingerprint),
            text=lambda: TurnedText(on.text, self.turns.text),
            module=lambda: nn.Sequential(on.trunk, head),
            engine=lambda: on.engine,
        )

    def tensors(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self.turns.state_dict().items()}

    def facts(self) -> dict[str, Any]:
        return {"width": self.turns.image.in_features}

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        with torch.device("meta"):
            turns = Turns(int(facts["width"]))
        turns.load_state_dict(dict(tensors), assign=True)
        freeze(turns)
        return cls(base, turns)
