"""GIST's towers themselves: copies of both halves of an encoder, trained on batches of pictures and their texts."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from jaxtyping import Float, Int
from torch import Tensor, nn

from ...encoders.base import Encoder, TextTower, TrainableText
from ...encoders.clip_text import ClipText
from ...encoders.delta import halves_of, load_delta, state_delta
from ...encoders.split import freeze, weights_digest
from ...errors import ModelError
from ...objectives.gist import GIST as Contrast
from ...progress import Progress
from ...training.batches import Batch, Column, TrainingData
from ...training.loop import Trained, Training, train
from ...training.task import Task

Halves = Literal["image", "towers"]
"""Only the pictures' half is trained, or both are."""


def trainable(on: Encoder) -> TrainableText:
    """The encoder's words half, whose weights can be trained.

    Raises:
        ModelError: it has none, or one without weights.
    """
    tower = on.text
    if not isinstance(tower, TrainableText):
        raise ModelError(
            f"The text half of {on.name!r} shows no weights to train. The embedded encoder, or one under 'open_clip:' "
            "or 'hf:', was expected. Take one of those, or train layers behind this one: train='layers'."
        )
    return tower


class Towers(nn.Module):
    """Copies of an encoder's halves.

    Memory: 4 bytes a weight for the copies; while they are trained, 12 more for gradients and AdamW's two moments,
    and what the trunk keeps of a batch for its gradient.

    Args:
        trunk: pixels → features.
        pool: features → pooled vector.
        projection: pooled vector → the space of the texts, not of unit length.
        words: tokens → the same space; ``None`` where the words half stays the encoder's own.
    """

    def __init__(self, trunk: nn.Module, pool: nn.Module, projection: nn.Module, words: nn.Module | None) -> None:
        super().__init__()
        self.trunk = trunk
        self.pool = pool
        self.projection = projection
        self.words = words

    @classmethod
    def copied(cls, on: Encoder, train: Halves) -> Self:
        """What an encoder's halves are before any training, frozen; the encoder stays as it is."""
        tower = trainable(on)
        words = freeze(copy.deepcopy(tower.module)).cpu() if train == "towers" else None
        return cls(*halves_of(on), freeze(copy.deepcopy(tower.projection)).cpu(), words)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Pictures in the space of the texts, not of unit length."""
        vectors: Tensor = self.projection(self.pool(self.trunk(pixels)))
        return vectors

    def grown(self, on: Encoder) -> Encoder:
        """An encoder of the copies, whose pooled vectors lie in the space of the texts."""
        plain = isinstance(self.projection, nn.Identity)  # then a head that is a mean over space stays one
        head = self.pool if plain else nn.Sequential(self.pool, self.projection).eval()
        tensors = self.state_delta(on)
        return Encoder(
            name=on.name,
            transform=on.transform,
            trunk=lambda: self.trunk,
            head=head,
            layout=on.layout,
            fingerprint=weights_digest(tensors, on.fingerprint),
            text=lambda: self._text(trainable(on), tensors),
            module=lambda: nn.Sequential(self.trunk, head),
            engine=on.engine_asked,
        )

    def _text(self, tower: TrainableText, tensors: Mapping[str, Tensor]) -> TextTower:
        if self.words is None:
            return SameText(tower)
        own = {name: tensor for name, tensor in tensors.items() if name.startswith("words.")}
        return ClipText(
            weights_digest(own, tower.fingerprint),
            tower.logit_scale,
            self.words,
            tower.tokens,
            templates=tower.templates,
        )

    def state_delta(self, on: Encoder) -> dict[str, Tensor]:
        """The tensors that are not as they are in the encoder."""
        before = Towers.copied(on, self.facts()["train"])
        return state_delta(dict(self.named_children()), dict(before.named_children()), whole=False)

    def facts(self) -> dict[str, Any]:
        return {"train": "image" if self.words is None else "towers"}

    @classmethod
    def restored(cls, on: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        if facts["train"] not in ("image", "towers"):
            raise ValueError(f"gist trained {facts['train']!r}")
        towers = cls.copied(on, facts["train"])
        load_delta(dict(towers.named_children()), tensors, whole=False)
        return towers


class SameText:
    """The encoder's own words half, beside a picture half that ends in the space of the sentences.

    Args:
        tower: the encoder's own.
    """

    def __init__(self, tower: TextTower) -> None:
        self.encode_text = tower.encode_text
        self.fingerprint = tower.fingerprint
        self.logit_scale = tower.logit_scale
        self.templates = tower.templates

    def project(self, pooled: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        return pooled


@dataclass(frozen=True)
class PicturePairs:
    """Pictures that are read anew for every batch, and the texts of each.

    Attributes:
        pixels: of each pair's picture, as :class:`seewhy.training.batches.TrainingData` takes them.
        texts: each once.
        vectors: the texts as the encoder itself has them, of unit length.
        pairs: one row a pair: which picture, which text.
        labels: class of each picture.
    """

    pixels: Column
    texts: tuple[str, ...]
    vectors: Float[Tensor, "m d"]
    pairs: Int[Tensor, "n 2"]
    labels: Int[Tensor, " p"]


def tune_towers(
    towers: Towers,
    tower: TrainableText,
    pairs: PicturePairs,
    contrast: Contrast,
    how: Training,
    checkpoint: tuple[Path, str] | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train the copies in place; batch normalisation and dropout are held as in evaluation.

    Costs a pass forward and one back through the trunk for each pair of a batch, and as many through the words half
    for each of the batch's different texts, where that half is trained too.

    Args:
        towers: what is trained.
        tower: makes tokens of texts.
        pairs: pictures and texts.
        contrast: the loss.
        how: steps, batch, rate, seed.
        checkpoint: see :func:`seewhy.training.loop.train`.
        progress: hears of progress.
    """
    of, text = pairs.pairs.T
    data = TrainingData(len(of), {"pixels": pairs.pixels, "text": text, "labels": pairs.labels[of]})
    return train(_Tuning(towers, tower, pairs, contrast), data, how, checkpoint=checkpoint, progress=progress)


class _Tuning(Task):
    """Both halves, and the objective between them; texts that stay as the encoder has them are looked up."""

    needs: ClassVar[tuple[str, ...]] = ("pixels", "text", "labels")

    def __init__(self, towers: Towers, tower: TrainableText, pairs: PicturePairs, contrast: Contrast) -> None:
        super().__init__()
        self.towers, self.contrast = towers.requires_grad_(True), contrast
        self.tower, self.texts = tower, pairs.texts
        self.vectors = nn.Buffer(pairs.vectors, persistent=False)

    def features(self, batch: Batch) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        self.towers.eval()
        distinct, place = batch["text"].unique(return_inverse=True)
        return self.towers(batch["pixels"]), self._said(distinct)[place]

    def _said(self, index: Int[Tensor, " m"]) -> Float[Tensor, "m d"]:
        """The texts' vectors: by the words half as it is being trained, or as the encoder has them."""
        if self.towers.words is None:
            return self.vectors[index]
        tokens = self.tower.tokens([self.texts[i] for i in index.tolist()])
        vectors: Tensor = self.towers.words(*(t.to(index.device) for t in tokens))
        return vectors

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": self.contrast(*features, batch["labels"])}
