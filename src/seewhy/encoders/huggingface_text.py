"""The words half of transformers' pairs."""

from __future__ import annotations

import math
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from .base import Tokenised
from .clip_text import ClipText
from .split import replaced
from .text_tokens import Given, Sentence, TokenEmbeddings, TokenVectors


def text_tower(model: Any, tokenizer: Any, digest: str) -> ClipText:
    """SigLIP was trained on full-length padding and needs it; CLIP's causal text half does not."""
    length = model.config.text_config.max_position_embeddings
    fills = "siglip" in model.config.model_type
    padding = "max_length" if fills else "longest"

    def tokens(texts: list[str]) -> Tokenised:
        found = tokenizer(texts, padding=padding, truncation=True, max_length=length, return_tensors="pt")
        wanted = ("input_ids",) if fills else ("input_ids", "attention_mask")
        return tuple(found[key] for key in wanted if key in found)

    def n_cut(texts: list[str]) -> int:
        return sum(len(ids) > length for ids in tokenizer(texts, verbose=False)["input_ids"]) if texts else 0

    projection = getattr(model, "visual_projection", None)
    module = TextHalf(model, Sentence.of(tokenizer, length))
    return ClipText(digest, math.exp(float(model.logit_scale.detach())), module, tokens, projection, n_cut=n_cut)


class TextHalf(nn.Module):
    """A transformers pair without its picture tower: tokens, and their mask where there is one → vectors.

    Args:
        model: the pair.
        sentence: how its tokenizer lays out a sentence.
    """

    def __init__(self, model: Any, sentence: Sentence) -> None:
        super().__init__()
        others = {name: nn.Identity() for name in ("vision_model", "visual_projection") if hasattr(model, name)}
        self.model: Any = replaced(model, others)
        self.sentence = sentence

    def forward(self, ids: Int[Tensor, "n t"], mask: Int[Tensor, "n t"] | None = None) -> Float[Tensor, "n d"]:
        out = self.model.get_text_features(input_ids=ids, attention_mask=mask)
        return out if isinstance(out, Tensor) else out.pooler_output

    def embed(self, ids: Int[Tensor, "n t"], mask: Int[Tensor, "n t"] | None = None) -> TokenEmbeddings:
        """Words before positions are added."""
        vectors = self.model.text_model.get_input_embeddings()(ids)
        return TokenEmbeddings.of(vectors, ids, self.sentence.lengths(ids, mask), self.sentence)

    def read(self, embeddings: TokenEmbeddings) -> TokenVectors:
        """Every token through the layer that the pooled one goes through."""
        tower = self.model.text_model
        words = tower.get_input_embeddings()
        place = next(name for name, module in tower.named_modules() if module is words)
        # SigLIP attends to its padding, and has no layer of its own behind the tower.
        projection = getattr(self.model, "text_projection", None)
        mask = None if projection is None else embeddings.mask.long()
        out = replaced(tower, {place: Given(embeddings.vectors)})(input_ids=embeddings.ids, attention_mask=mask)
        if projection is not None:
            return TokenVectors(projection(out.last_hidden_state), embeddings.words, projection(out.pooler_output))
        return TokenVectors(tower.head(out.last_hidden_state), embeddings.words, out.pooler_output)
