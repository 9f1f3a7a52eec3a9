"""GLoRIA's attention (Huang et al. 2021, ICCV) as an attribution map for class names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..attributions import attributions
from ..attributions.base import Attribution, Deciding, Explainable
from ..encoders.base import EncoderOutput, TrainableText
from ..encoders.text_tokens import ReadsTokens
from ..errors import InputError
from ..heads.head import Target, TargetFunction
from .objectives.regional import GLoRIA


@attributions.register
@dataclass(frozen=True)
class GLoRIAAttention(Attribution):
    """Attention map of the words of a class name.

        map = Σ_t p_t a_t − 1 / regions
        p   = softmax(word_scale cos(c_t, w_t))

    * ``t``: a word of the class name, inside a sentence.
    * ``a_t``: attention of word ``t`` over regions, which sums to 1 (paper, section 3.2; authors' ``attention_fn``).
    * ``c_t``: mean of the regions, weighted by ``a_t``; ``w_t`` is the vector of word ``t``.
    * ``p_t``: weight of word ``t``.
    * ``regions``: number of regions.

    The value 0 means uniform attention. With a contrast class, the result is the difference of two maps. The other
    words of the sentence also attract attention, so a sentence with a single token gives a map of zeros.

    The map depends on the class name and not on the prediction. The encoder must have been trained to match patches
    with words (``seewhy adapt --objective gloria`` or ``dreamlip``). The text encoder runs once for the explained
    classes.

    Args:
        attention_scale: factor on the similarity of words and regions (authors: ``temp1``, 4); higher values give
            sharper maps.
        word_scale: factor on the similarity of a word and its weighted regions (authors: ``temp2``, 5).
        sentence: sentence with ``{}`` for the class name; default: the encoder's first template.
    """

    name: ClassVar[str] = "gloria_attention"
    spelt: ClassVar[str] = "GLoRIA attention"
    paper: ClassVar[str] = "Huang et al. 2021, ICCV, GLoRIA"
    needs: ClassVar[str] = "an encoder that gives single words, best trained with words and regions"
    cost: ClassVar[str] = "0"
    needs_words: ClassVar[bool] = True

    attention_scale: float = 4.0
    word_scale: float = 5.0
    sentence: str | None = None

    def __post_init__(self) -> None:
        scales = (self.attention_scale, self.word_scale)
        if not all(0 < one < float("inf") for one in scales) or "{}" not in (self.sentence or "{}"):
            raise InputError(
                "`attention_scale` and `word_scale` must be greater than 0, and `sentence` must contain {} for the "
                f"class name, got attention_scale={self.attention_scale:g}, word_scale={self.word_scale:g} and "
                f"sentence={self.sentence!r}."
            )

    @torch.no_grad()
    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Float[Tensor, "b h w"]:
        if not isinstance(target, Target):
            raise InputError(
                "gloria_attention can only explain a class, got another target. Give a class, or use grad_cam or rise."
            )
        encoder = model.encoder
        tower, grid = encoder.text if encoder.has_text else None, encoder.layout.to_grid(look.features)
        if not isinstance(tower, TrainableText) or not isinstance(tower.module, ReadsTokens):
            raise InputError(
                f"gloria_attention needs the text encoder's word vectors, which {encoder.name!r} does not give. Use an "
                "encoder from seewhy adapt --objective gloria --train towers, or grad_cam, rise or occlusion."
            )
        if grid.shape[1] != look.pooled.shape[1]:
            raise InputError(
                f"gloria_attention needs patches and pooled vectors of the same width, got {grid.shape[1]} and "
                f"{look.pooled.shape[1]} for {encoder.name!r}. Use grad_cam, rise or occlusion."
            )
        regions = tower.project(grid.flatten(2).transpose(1, 2).flatten(0, 1)).unflatten(0, (len(look), -1))
        maps = self._maps(model, tower, regions, target.index)
        if target.against is not None:
            maps = maps - self._maps(model, tower, regions, target.against)
        return maps.unflatten(1, grid.shape[2:])

    def _maps(
        self, model: Explainable, tower: TrainableText, regions: Float[Tensor, "b r d"], index: Tensor
    ) -> Float[Tensor, "b r"]:
        names = cast(Deciding, model).classes
        classes, place = index.unique(return_inverse=True)
        template = self.sentence or tower.templates[0]
        words, said, own = named_words(tower, [names[k] for k in classes.tolist()], template)
        local = GLoRIA(self.attention_scale, self.word_scale)
        found = []
        # A picture with its own sentence: pictures times sentences would be as many maps again for each.
        for cells, row in zip(regions, place.tolist(), strict=True):
            near, attention = local.near(cells[None], words[row, None], said[row, None])
            parts = near[0, 0].masked_fill(~own[row], float("-inf")).softmax(0)
            found.append(parts @ attention[0, 0] - 1 / len(cells))
        return torch.stack(found)


def named_words(
    tower: TrainableText, names: Sequence[str], template: str
) -> tuple[Float[Tensor, "n t d"], Bool[Tensor, "n t"], Bool[Tensor, "n t"]]:
    """Return the word vectors of each name in a sentence, a mask of all words, and a mask of the words of the name."""

    def lengths(texts: Sequence[str]) -> Tensor:
        return tower.embed(tower.tokens(list(texts))).words.sum(1)

    before, _, behind = template.partition("{}")
    read = tower.encode_tokens(tower.tokens([f"{before}{name}{behind}" for name in names]))
    first = lengths([before.rstrip()])[0] if before.strip() else 0
    place = read.words.cumsum(1) - 1
    own = read.words & (place >= first) & (place < first + lengths(names)[:, None])
    # A name of which nothing is read, being cut off, is stood for by the whole sentence.
    return read.vectors, read.words, torch.where(own.any(1, keepdim=True), own, read.words)
