"""A small tower that reads sentences of known words, from nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn

from seewhy.encoders.text_tokens import Sentence, TokenEmbeddings, TokenVectors

LONGEST = 16


class Reader(nn.Module):
    """One transformer layer over words and places; the mean of what comes out, projected.

    Args:
        n_words: of the vocabulary; the first is padding.
        width: of everything in it.
    """

    def __init__(self, n_words: int, width: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(n_words, width), nn.Parameter(0.1 * torch.randn(LONGEST, width))
        self.layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.out = nn.Linear(width, width)

    def embed(self, ids: Tensor) -> TokenEmbeddings:
        return TokenEmbeddings.of(self.words(ids), ids, (ids > 0).sum(1), Sentence(LONGEST, 0, 0))

    def read(self, embeddings: TokenEmbeddings) -> TokenVectors:
        mask = embeddings.mask
        placed = embeddings.vectors + self.places[: mask.shape[1]]
        # The fast path of evaluation drops columns that are padding in every row.
        vectors = self.out(self.layer(placed, src_key_padding_mask=~mask)[:, : mask.shape[1]])
        weight = mask[:, : vectors.shape[1], None].to(vectors)
        return TokenVectors(vectors, embeddings.words, (vectors * weight).sum(1) / weight.sum(1))

    def forward(self, ids: Tensor) -> Tensor:
        return self.read(self.embed(ids)).pooled


def numbers(texts: Sequence[str], words: Sequence[str]) -> Int[Tensor, "n t"]:
    """The places of words in a vocabulary; 0 where a text has ended."""
    place = {word: i for i, word in enumerate(words)}
    rows = [[place[word] for word in text.split()] for text in texts]
    longest = max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])
