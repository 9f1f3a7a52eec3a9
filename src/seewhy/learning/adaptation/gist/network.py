"""GIST's two forms: a linear layer behind each frozen tower, or copies of the towers; and what is kept of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from ....classifiers.network import Network
from ....encoders.base import Encoder, TextTower, Tokenised, TrainableText
from ....encoders.engines import Engine
from ....encoders.split import freeze, weights_digest
from ....encoders.text_tokens import ClipText
from ....progress import Progress
from ....training.batches import Column, TrainingData
from ....training.loop import Trained, Training, train
from ...contrast import Contrast
from ...encoders.tuned_towers import TunedTowers, trainable
from ...objectives.gist import GIST
from ...regions import Still
from ...retrieval import recall

Form = Literal["image", "towers"]
"""Only the pictures' half is trained, or both are."""


@dataclass(frozen=True)
class Pairs:
    """Pictures as kept features, and the texts of each."""

    views: list[Float[Tensor, "v d"]]
    vectors: Float[Tensor, "m d"]
    pairs: Int[Tensor, "n 2"]
    labels: Int[Tensor, " p"]


class Turns(nn.Module):
    """Both layers, at first the identity, so that training begins where the encoder was."""

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
        turns = cls(int(facts["width"]))
        turns.load_state_dict(dict(tensors))
        freeze(turns)
        return turns


class Turned(nn.Module):
    """Head of the grown encoder: features → the turned space, not of unit length."""

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
    """The words half of a grown encoder; pictures come out of its head in the space of the sentences."""

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


def grown(towers: TunedTowers, on: Encoder) -> Encoder:
    """An encoder of trained copies, whose pooled vectors lie in the space of the texts."""
    trunk, head, projection = towers.image_parts()
    if not isinstance(projection, nn.Identity):  # or else a head that is a mean over space stays one
        head = nn.Sequential(head, projection).eval()
    tensors = towers.delta(on)
    digest = weights_digest(tensors, on.fingerprint)
    return grown_among_texts(
        on, lambda: trunk, head, lambda: _text(towers, trainable(on), tensors), digest, on.engine_asked
    )


def _text(towers: TunedTowers, tower: TrainableText, tensors: Mapping[str, Tensor]) -> TextTower:
    if towers.words is None:
        return PlacedText(tower)
    own = {name: tensor for name, tensor in tensors.items() if name.startswith("words.")}
    digest = weights_digest(own, tower.fingerprint)
    return ClipText(digest, tower.logit_scale, towers.words, tower.tokens, templates=tower.templates)


@dataclass(frozen=True)
class PicturePairs:
    """Pictures that are read anew for every batch, and the texts of each."""

    pixels: Column
    texts: tuple[str, ...]
    vectors: Float[Tensor, "m d"]
    pairs: Int[Tensor, "n 2"]
    labels: Int[Tensor, " p"]


class DistinctTexts(nn.Module):
    """Numbers of texts → their vectors; what a batch has several times is read once."""

    def __init__(self, words: nn.Module, tokens: Callable[[list[str]], Tokenised], texts: tuple[str, ...]) -> None:
        super().__init__()
        self.words, self.tokens, self.texts = words, tokens, texts

    def forward(self, index: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        distinct, place = index.unique(return_inverse=True)
        tokens = self.tokens([self.texts[i] for i in distinct.tolist()])
        vectors: Tensor = self.words(*(t.to(index.device) for t in tokens))
        return vectors[place]


def tune_towers(
    towers: TunedTowers,
    tower: TrainableText,
    pairs: PicturePairs,
    objective: GIST,
    how: Training,
    checkpoint: tuple[Path, str] | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train the copies in place; batch normalisation and dropout are held as in evaluation.

    Costs a pass forward and one back through the trunk for each pair of a batch, and as many through the words half
    for each of the batch's different texts, where that half is trained too.
    """
    of, row = pairs.pairs.T
    image = Still(nn.Sequential(*towers.image_parts()), learns=True)
    text: nn.Module = nn.Identity()
    if towers.words is not None:
        text = Still(DistinctTexts(towers.words, tower.tokens, pairs.texts), learns=True)
    said = pairs.vectors[row] if towers.words is None else row
    data = TrainingData(len(of), {"pixels": pairs.pixels, "text": said, "labels": pairs.labels[of]})
    return train(Contrast(image, text, objective, labels=True), data, how, checkpoint=checkpoint, progress=progress)


@dataclass(frozen=True, eq=False)
class GISTNetwork(Network):
    """Two layers behind the towers, or the towers themselves."""

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
