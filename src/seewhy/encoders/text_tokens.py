"""Text encoders that give access to their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..errors import InputError, ModelError

LONGEST_TEXT = 10_000
"""Largest number of characters of a text that is tokenised."""


def legible(texts: Sequence[str]) -> list[str]:
    """Truncate texts to ``LONGEST_TEXT`` characters."""
    return [text[:LONGEST_TEXT] for text in texts]


Tokenised = tuple[Tensor, ...]
"""A batch of token ids, optionally with an attention mask."""


@dataclass(frozen=True)
class Sentence:
    """The layout of a tokenised text: opening tokens, words, closing tokens, padding on the right."""

    longest: int
    """Context length in tokens."""
    opening: int = 1
    closing: int = 1
    pad: int = 0
    end: int | None = None
    """Id of the end token, if padding is also a word (CLIP's "!")."""
    pads_with_end: bool = False
    """Whether the end token is also the padding token (SigLIP)."""

    @classmethod
    def of(cls, tokenizer: Any, longest: int, *, closed: bool = True) -> Sentence:
        """Infer the layout from a transformers tokenizer."""
        whole = list(tokenizer("a")["input_ids"])
        words = list(tokenizer("a", add_special_tokens=False)["input_ids"])
        opening = next(i for i in range(len(whole) + 1) if whole[i : i + len(words)] == words)
        closing = len(whole) - opening - len(words) if closed else 0
        pad = tokenizer.pad_token_id or 0
        return cls(longest, opening, closing, pad, pads_with_end=closing > 0 and whole[-1] == pad)

    def lengths(self, ids: Int[Tensor, "n t"], mask: Int[Tensor, "n t"] | None = None) -> Int[Tensor, " n"]:
        if mask is not None:
            return mask.sum(1)
        if self.end is not None:
            return (ids == self.end).int().argmax(1) + 1
        places = torch.arange(1, ids.shape[1] + 1, device=ids.device)
        used = ((ids != self.pad) * places).amax(1) + (self.closing if self.pads_with_end else 0)
        return used.clamp(min(self.opening + self.closing, ids.shape[1]), ids.shape[1])


@dataclass(frozen=True, eq=False)
class TokenEmbeddings:
    """Token embeddings without positions, into which learnt vectors can be inserted.

    ``lengths`` are the numbers of tokens without padding. ``words`` marks the tokens of words, without special tokens.
    """

    vectors: Float[Tensor, "n t w"]
    ids: Int[Tensor, "n t"]
    lengths: Int[Tensor, " n"]
    words: Bool[Tensor, "n t"]
    sentence: Sentence

    @classmethod
    def of(
        cls, vectors: Float[Tensor, "n t w"], ids: Int[Tensor, "n t"], lengths: Int[Tensor, " n"], sentence: Sentence
    ) -> TokenEmbeddings:
        place = torch.arange(ids.shape[1], device=ids.device)
        words = (place >= sentence.opening) & (place < (lengths - sentence.closing)[:, None])
        return cls(vectors, ids, lengths, words, sentence)

    @property
    def mask(self) -> Bool[Tensor, "n t"]:
        """A mask of the tokens without padding."""
        return torch.arange(self.ids.shape[1], device=self.ids.device) < self.lengths[:, None]

    def with_prefix(self, prefix: Float[Tensor, "... p w"]) -> TokenEmbeddings:
        """Insert differentiable vectors before the first word.

        A text that exceeds the context length is truncated before its closing tokens.
        """
        n, _, width = self.vectors.shape
        p = prefix.shape[-2] if prefix.ndim in (2, 3) else -1
        marks = self.sentence.opening + self.sentence.closing
        if p < 0 or prefix.shape[-1] != width or prefix.shape[:-2] not in ((), (n,)):
            raise InputError(
                f"`prefix` must have the shape (p, {width}) or ({n}, p, {width}), got {tuple(prefix.shape)}."
            )
        if p + marks >= self.sentence.longest:
            raise InputError(
                f"`prefix` must have at most {self.sentence.longest - marks - 1} vectors, got {p}: the network reads "
                f"{self.sentence.longest} tokens, of which {marks} are special tokens and one is a word."
            )
        source, lengths = self._with_room(p)
        rows = torch.arange(n, device=self.ids.device)[:, None]
        put = torch.cat([prefix.expand(n, p, width).to(self.vectors), self.vectors], 1)[rows, source]
        first = self.ids[:, :1].expand(n, p)
        ids = torch.cat([first, self.ids], 1)[rows, source]
        words = torch.cat([self.words.new_zeros(n, p), self.words], 1)[rows, source]
        return TokenEmbeddings(put, ids, lengths, words, self.sentence)

    def _with_room(self, p: int) -> tuple[Int[Tensor, "n s"], Int[Tensor, " n"]]:
        """Return the source position of each token in prefix and text, and the new lengths."""
        opening, closing = self.sentence.opening, self.sentence.closing
        t = self.ids.shape[1]
        room = min(t + p, self.sentence.longest)
        order = [*range(p, p + opening), *range(p), *range(p + opening, p + t)][:room]
        lengths = (self.lengths + p).clamp(max=room)
        source = torch.tensor(order, device=self.ids.device).repeat(len(self.ids), 1)
        for back in range(1, closing + 1):  # the end marks come last, whatever was cut before them
            source.scatter_(1, (lengths - back)[:, None], (self.lengths + p - back)[:, None])
        return source, lengths


@dataclass(frozen=True, eq=False)
class TokenVectors:
    """The output of a text encoder: one projected vector per token, and one per text."""

    vectors: Float[Tensor, "n t d"]
    words: Bool[Tensor, "n t"]
    pooled: Float[Tensor, "n d"]


@runtime_checkable
class ReadsTokens(Protocol):
    """A text encoder in two steps: ``embed`` is its token embedding, ``read`` runs the other layers."""

    def embed(self, *tokens: Tensor) -> TokenEmbeddings: ...

    def read(self, embeddings: TokenEmbeddings) -> TokenVectors: ...


def embed(module: nn.Module, tokens: Sequence[Tensor]) -> TokenEmbeddings:
    """Compute differentiable token embeddings."""
    return _opened(module).embed(*tokens)


def encode_tokens(module: nn.Module, tokens: Sequence[Tensor] | TokenEmbeddings) -> TokenVectors:
    """Compute one differentiable vector per token, from tokens or the result of :func:`embed`."""
    opened = _opened(module)
    return opened.read(tokens if isinstance(tokens, TokenEmbeddings) else opened.embed(*tokens))


def _opened(module: nn.Module) -> ReadsTokens:
    if not isinstance(module, ReadsTokens):
        raise ModelError(
            f"The text encoder {type(module).__name__} does not give access to its tokens. Use an embedded encoder, "
            "or one whose name begins with 'open_clip:' or 'hf:'."
        )
    return module


class Given(nn.Module):
    """A token embedding layer that returns precomputed vectors."""

    def __init__(self, vectors: Float[Tensor, "n t w"]) -> None:
        super().__init__()
        self.vectors = vectors

    def forward(self, ids: Int[Tensor, "n t"]) -> Float[Tensor, "n t w"]:
        return self.vectors


class OpenedText:
    """A text encoder that gives access to its token embeddings."""

    module: nn.Module

    def embed(self, tokens: Tokenised) -> TokenEmbeddings:
        return embed(self.module, tokens)

    def encode_tokens(self, tokens: Tokenised | TokenEmbeddings) -> TokenVectors:
        return encode_tokens(self.module, tokens)


class ClipText(OpenedText):
    """The text encoder of a CLIP-like model."""

    tuning_lr = 1e-6  # Lewis et al. 2023 (arXiv:2307.11315), for CLIP ViT-L/14
    batch_size = 256

    def __init__(
        self,
        fingerprint: str,
        logit_scale: float,
        module: nn.Module,
        tokens: Callable[[list[str]], Tokenised],
        projection: nn.Module | None = None,
        templates: tuple[str, ...] = ("a photo of a {}.",),  # of openai/CLIP's README
        n_cut: Callable[[list[str]], int] = lambda _texts: 0,
    ) -> None:
        self.fingerprint, self.logit_scale, self.module = fingerprint, logit_scale, module
        self.projection = projection or nn.Identity()
        self.templates, self._tokens, self._n_cut = templates, tokens, n_cut

    def tokens(self, texts: Sequence[str]) -> Tokenised:
        return self._tokens(legible(texts))

    def n_cut(self, texts: Sequence[str]) -> int:
        """Return the number of texts that exceed the context length."""
        return self._n_cut(legible(texts))

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        n = self.batch_size
        parts = [self.module(*self.tokens(texts[i : i + n])) for i in range(0, len(texts), n)]
        return normalize(torch.cat(parts).float(), dim=-1)

    def project(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        return self.projection(pooled)
