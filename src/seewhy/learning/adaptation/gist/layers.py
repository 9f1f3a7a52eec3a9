"""GIST behind frozen towers: one linear layer on the pictures' side and one on the texts', in their shared space."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from ....encoders.base import Encoder, TextTower
from ....encoders.engines import Engine
from ....encoders.split import freeze, weights_digest
from ....progress import Progress
from ....training.batches import TrainingData
from ....training.loop import Trained, Training, train
from ...contrast import Contrast
from ...objectives.gist import GIST
from ...retrieval import recall


@dataclass(frozen=True)
class Pairs:
    """Pictures as kept features, and the texts of each.

    Attributes:
        views: the features of each picture's views, in the shared space.
        vectors: the texts, of unit length, each once.
        pairs: one row a pair: which picture, which text.
        labels: class of each picture.
    """

    views: list[Float[Tensor, "v d"]]
    vectors: Float[Tensor, "m d"]
    pairs: Int[Tensor, "n 2"]
    labels: Int[Tensor, " p"]


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

    def grown(self, on: Encoder) -> Encoder:
        """The encoder with both layers behind it; it looks by the same engine."""
        head = Turned(on.head, on.text, self.image).eval()
        digest = weights_digest(self.delta(on), on.fingerprint)
        return grown_among_texts(
            on, lambda: on.trunk, head, lambda: PlacedText(on.text, self.text), digest, lambda: on.engine
        )

    def delta(self, on: Encoder) -> dict[str, Tensor]:
        """Both layers' weights."""
        return {name: tensor.detach() for name, tensor in self.state_dict().items()}

    def facts(self) -> dict[str, Any]:
        return {"train": "layers", "width": self.image.in_features}

    @classmethod
    def restored(cls, on: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        with torch.device("meta"):
            turns = cls(int(facts["width"]))
        turns.load_state_dict(dict(tensors), assign=True)
        freeze(turns)
        return turns


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


def grown_among_texts(
    on: Encoder,
    trunk: Callable[[], nn.Module],
    head: nn.Module,
    text: Callable[[], TextTower],
    fingerprint: str,
    engine: str | Callable[[], Engine],
) -> Encoder:
    """An encoder as ``on``, whose head ends in the space of the texts: the linear classifier stands there."""
    return Encoder(
        name=on.name,
        transform=on.transform,
        trunk=trunk,
        head=head,
        layout=on.layout,
        fingerprint=fingerprint,
        text=text,
        module=lambda: nn.Sequential(trunk(), head),
        engine=engine,
    )


class PlacedText:
    """The words half of a grown encoder; pictures come out of its head in the space of the sentences.

    Args:
        tower: the encoder's own.
        turn: the layer trained behind it, if one was.
    """

    def __init__(self, tower: TextTower, turn: nn.Linear | None = None) -> None:
        self.tower = tower
        self.turn = turn
        self.logit_scale = tower.logit_scale
        self.templates = tower.templates
        own = tower.fingerprint
        self.fingerprint = own if turn is None else weights_digest({"turn": turn.weight}, own)

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        vectors = self.tower.encode_text(texts)
        if self.turn is None:
            return vectors
        with torch.no_grad():
            return normalize(self.turn(vectors), dim=1)

    def project(self, pooled: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        return pooled


def tune(
    turns: Turns,
    pairs: Pairs,
    objective: GIST,
    how: Training,
    checkpoint: tuple[Path, str] | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train both layers in place; of each picture in a batch a view is drawn."""
    of, text = pairs.pairs.T

    def drawn(index: list[int], draw: torch.Generator) -> Tensor:
        views = [pairs.views[i] for i in of[index].tolist()]
        return torch.stack([v[int(torch.randint(len(v), (), generator=draw))] for v in views])

    columns = {"image": drawn, "text": lambda index, _: pairs.vectors[text[index]], "labels": pairs.labels[of]}
    data = TrainingData(len(pairs.pairs), columns)
    turns.requires_grad_(True)
    task = Contrast(turns.image, turns.text, objective, column="image", labels=True)
    return train(task, data, how, checkpoint=checkpoint, progress=progress)


def measure(turns: Turns, pairs: Pairs) -> float:
    """Part of the pictures tuned on that are nearest to their own first text, among the first texts of all."""
    with torch.no_grad():
        image = turns.image(torch.stack([v[0] for v in pairs.views]))
        return round(recall(image, turns.text(pairs.vectors)[first_texts(pairs.pairs)]), 4)


def first_texts(pairs: Int[Tensor, "n 2"]) -> Int[Tensor, " p"]:
    """Which text is the first of each picture.

    Example:
        >>> first_texts(torch.tensor([[0, 3], [0, 1], [1, 2]])).tolist()
        [3, 2]
    """
    n = int(pairs[:, 0].max()) + 1
    return pairs[[int((pairs[:, 0] == i).nonzero()[0]) for i in range(n)], 1]
