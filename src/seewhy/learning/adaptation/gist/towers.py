"""GIST's towers themselves: copies of both halves of an encoder, trained on batches of pictures and their texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from ....encoders.base import Encoder, TextTower, Tokenised, TrainableText
from ....encoders.clip_text import ClipText
from ....encoders.split import weights_digest
from ....encoders.tuned_towers import TunedTowers, trainable
from ....progress import Progress
from ....training.batches import Column, TrainingData
from ....training.loop import Trained, Training, train
from ...contrast import Contrast
from ...objectives.gist import GIST
from ...regions import Still
from .layers import PlacedText, grown_among_texts

Form = Literal["image", "towers"]
"""Only the pictures' half is trained, or both are."""


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


class DistinctTexts(nn.Module):
    """Numbers of texts → their vectors; what a batch has several times is read once.

    Args:
        words: tokens → vectors.
        tokens: sentences → what that takes.
        texts: all of them.
    """

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
