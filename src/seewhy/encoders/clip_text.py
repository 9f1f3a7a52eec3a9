"""The words half of CLIP-like encoders: batched, normalised, without gradients where none are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .base import Tokenised
from .text_tokens import TokenEmbeddings, TokenVectors, embed, encode_tokens, legible

PHOTO = ("a photo of a {}.",)
"""The default template of openai/CLIP's README."""


class ClipText:
    """Sentences and pictures in one space.

    Args:
        fingerprint: digest of the weights.
        logit_scale: what a cosine is multiplied with before the softmax, ``exp`` of the stored parameter.
        module: tokens → vectors, not of unit length; differentiable.
        tokens: sentences → what the module takes.
        projection: pooled picture features → vectors, not normalised; ``None`` where pooling already gives them.
        templates: prompts a class name is put into.
        batch_size: sentences per pass.
        n_cut: how many of these sentences are longer than is read.
    """

    tuning_lr = 1e-6  # Lewis et al. 2023 (arXiv:2307.11315), for CLIP ViT-L/14

    def __init__(
        self,
        fingerprint: str,
        logit_scale: float,
        module: nn.Module,
        tokens: Callable[[list[str]], Tokenised],
        projection: nn.Module | None = None,
        templates: tuple[str, ...] = PHOTO,
        batch_size: int = 256,
        n_cut: Callable[[list[str]], int] | None = None,
    ) -> None:
        self.fingerprint = fingerprint
        self.logit_scale = logit_scale
        self.templates = templates
        self.batch_size = batch_size
        self.module = module
        self.projection = projection or nn.Identity()
        self._tokens = tokens
        self._n_cut = n_cut

    def tokens(self, texts: Sequence[str]) -> Tokenised:
        """Sentences → what the module takes."""
        return self._tokens(legible(texts))

    def n_cut(self, texts: Sequence[str]) -> int:
        """How many sentences are longer than is read; none where that is not known."""
        return 0 if self._n_cut is None else self._n_cut(legible(texts))

    def embed(self, tokens: Tokenised) -> TokenEmbeddings:
        """Tokens → what the network reads, before positions; vectors of one's own can be put in. Differentiable."""
        return embed(self.module, tokens)

    def encode_tokens(self, tokens: Tokenised | TokenEmbeddings) -> TokenVectors:
        """Tokens, or what was made of them → a vector for each, and for each sentence. Differentiable."""
        return encode_tokens(self.module, tokens)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Sentences → unit vectors."""
        n = self.batch_size
        parts = [self.module(*self.tokens(texts[i : i + n])) for i in range(0, len(texts), n)]
        return F.normalize(torch.cat(parts).float(), dim=-1)

    def project(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        """Pooled picture features → the space of the sentences, not yet of unit length; differentiable."""
        return self.projection(pooled)


def cut_padding(tokens: Int[Tensor, "n t"], pad: int = 0) -> Int[Tensor, "n s"]:
    """Tokens up to the longest sentence. Exact where attention is causal and pooling reads the end token."""
    used = (tokens != pad).any(0).nonzero()
    return tokens[:, : int(used.max()) + 1] if len(used) else tokens[:, :1]


class Projection(nn.Module):
    """Multiplication with a matrix kept as a bare parameter."""

    def __init__(self, matrix: Float[Tensor, "p d"]) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix.detach(), requires_grad=False)

    def forward(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        return pooled @ self.matrix
