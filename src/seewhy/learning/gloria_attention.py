"""GLoRIA's attention (Huang et al. 2021, ICCV): the places in a picture that match the words of a class name."""

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
    """Shows which places the words of a class's name attend to, within a sentence about it.

    With ``a_t`` the paper's attention of word ``t`` over regions (section 3.2, summing to 1) and ``c_t`` the regions
    weighted by it, the map is ``Σ_t p_t a_t − 1 / regions`` over the words of the name, ``p = softmax(word_scale
    cos(c_t, w_t))``. Each word counts as in the paper's similarity, and 0 is even attention. With a contrast it is
    the difference of two maps. The words around the name compete for regions and are not shown. A sentence of one
    token has no competitors, and its map is zero.

    ``a_t`` equals the authors' ``attention_fn``; they show it word by word. The map depends on the class's name and
    not on the decision. It is only as good as the match of cells and words, which an encoder learns by ``seewhy adapt
    --objective gloria`` or ``dreamlip``.

    Args:
        attention_scale: factor on the similarity of words and regions (authors: ``temp1``, 4); higher makes
            maps sharper.
        word_scale: factor on the similarity of a word and what it gathers (authors: ``temp2``, 5).
        sentence: a sentence with ``{}`` for the class name; default: the encoder's first template.

    Cost: no forward pass of the picture network; one of the text encoder for the classes explained.
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
                f"gloria_attention was given attention_scale={self.attention_scale:g}, "
                f"word_scale={self.word_scale:g}, sentence={self.sentence!r}. Expected scales above 0, and a "
                f"sentence with {{}} for the class's name. Change them."
            )

    @torch.no_grad()
    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Float[Tensor, "b h w"]:
        if not isinstance(target, Target):
            raise InputError(
                "gloria_attention can only explain a class, and the target is not one. Expected a class. Give "
                "one, or use grad_cam or rise."
            )
        encoder = model.encoder
        tower, grid = encoder.text if encoder.has_text else None, encoder.layout.to_grid(look.features)
        if not isinstance(tower, TrainableText) or not isinstance(tower.module, ReadsTokens):
            raise InputError(
                f"gloria_attention reads words one by one, and {encoder.name!r} does not expose them. Expected an "
                "encoder from seewhy adapt --objective gloria --train towers, or one whose words can be trained. "
                "Use grad_cam, rise or occlusion."
            )
        if grid.shape[1] != look.pooled.shape[1]:
            raise InputError(
                f"gloria_attention compares cells with words. The cells of {encoder.name!r} have {grid.shape[1]} "
                f"numbers, and its pooled vectors {look.pooled.shape[1]}; expected as many. Use grad_cam, rise or "
                "occlusion."
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
    """Encode each name in a sentence: its tokens' vectors, which are words, and which belong to the name, located by
    the text before it.
    """

    def lengths(texts: Sequence[str]) -> Tensor:
        return tower.embed(tower.tokens(list(texts))).words.sum(1)

    before, _, behind = template.partition("{}")
    read = tower.encode_tokens(tower.tokens([f"{before}{name}{behind}" for name in names]))
    first = lengths([before.rstrip()])[0] if before.strip() else 0
    place = read.words.cumsum(1) - 1
    own = read.words & (place >= first) & (place < first + lengths(names)[:, None])
    # A name of which nothing is read, being cut off, is stood for by the whole sentence.
    return read.vectors, read.words, torch.where(own.any(1, keepdim=True), own, read.words)
