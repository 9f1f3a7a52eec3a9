"""The words half of an encoder, sentence by sentence and token by token."""

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
"""Signs of a sentence that are given to a tokenizer; networks read some hundred tokens."""


def legible(texts: Sequence[str]) -> list[str]:
    """Sentences up to the length that any network reads; the tokens of the rest would cost memory and be cut off."""
    return [text[:LONGEST_TEXT] for text in texts]


Tokenised = tuple[Tensor, ...]
"""A batch of sentences as their numbers in a vocabulary, one row each, with whatever mask the network wants."""


@dataclass(frozen=True)
class Sentence:
    """How a tokenizer lays out a sentence: marks before it, the words, marks after it, padding on the right."""

    longest: int
    """Tokens that are read, marks included."""
    opening: int = 1
    closing: int = 1
    pad: int = 0
    end: int | None = None
    """Number of the mark that ends a sentence, where padding is also a word (CLIP's "!")."""
    pads_with_end: bool = False
    """The mark at the end is the padding too (SigLIP's)."""

    @classmethod
    def of(cls, tokenizer: Any, longest: int, *, closed: bool = True) -> Sentence:
        """The layout of a transformers tokenizer; ``closed`` if the network gets the marks after the words."""
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
    """Sentences as a text network reads them before it adds positions; learnt vectors can be inserted.

    ``lengths`` count tokens that are no padding; ``words`` are neither marks, nor padding, nor put in.
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
        """A mask of the tokens that are not padding."""
        return torch.arange(self.ids.shape[1], device=self.ids.device) < self.lengths[:, None]

    def with_prefix(self, prefix: Float[Tensor, "... p w"]) -> TokenEmbeddings:
        """The same sentences with differentiable vectors between the opening mark and the first word. If a sentence
        gets too long it loses its last words, never its end mark.
        """
        n, _, width = self.vectors.shape
        p = prefix.shape[-2] if prefix.ndim in (2, 3) else -1
        marks = self.sentence.opening + self.sentence.closing
        if p < 0 or prefix.shape[-1] != width or prefix.shape[:-2] not in ((), (n,)):
            raise InputError(
                f"A prefix of the shape {tuple(prefix.shape)} was given for {n} sentences of width {width}. Expected "
                f"(p, {width}) or ({n}, p, {width}). Give one vector per token."
            )
        if p + marks >= self.sentence.longest:
            raise InputError(
                f"A prefix of {p} vectors was given to a network that reads {self.sentence.longest} tokens. Expected "
                f"room for {marks} marks and a word. Give at most {self.sentence.longest - marks - 1}."
            )
        source, lengths = self._with_room(p)
        rows = torch.arange(n, device=self.ids.device)[:, None]
        put = torch.cat([prefix.expand(n, p, width).to(self.vectors), self.vectors], 1)[rows, source]
        first = self.ids[:, :1].expand(n, p)
        ids = torch.cat([first, self.ids], 1)[rows, source]
        words = torch.cat([self.words.new_zeros(n, p), self.words], 1)[rows, source]
        return TokenEmbeddings(put, ids, lengths, words, self.sentence)

    def _with_room(self, p: int) -> tuple[Int[Tensor, "n s"], Int[Tensor, " n"]]:
        """Where each place's token is found in the prefix followed by the sentence, and the new lengths."""
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
    """A text network's output for sentences: one vector per token, projected like the pooled one, and one per
    sentence.
    """

    vectors: Float[Tensor, "n t d"]
    words: Bool[Tensor, "n t"]
    pooled: Float[Tensor, "n d"]


@runtime_checkable
class ReadsTokens(Protocol):
    """A text network that can be split between its vocabulary and its first layer; ``forward`` runs both."""

    def embed(self, *tokens: Tensor) -> TokenEmbeddings: ...

    def read(self, embeddings: TokenEmbeddings) -> TokenVectors: ...


def embed(module: nn.Module, tokens: Sequence[Tensor]) -> TokenEmbeddings:
    """Map tokens to the vectors that the network reads; differentiable."""
    return _opened(module).embed(*tokens)


def encode_tokens(module: nn.Module, tokens: Sequence[Tensor] | TokenEmbeddings) -> TokenVectors:
    """Map tokens, or the result of :func:`embed`, to one vector per token; differentiable."""
    opened = _opened(module)
    return opened.read(tokens if isinstance(tokens, TokenEmbeddings) else opened.embed(*tokens))


def _opened(module: nn.Module) -> ReadsTokens:
    if not isinstance(module, ReadsTokens):
        raise ModelError(
            f"The text encoder {type(module).__name__} does not give access to its tokens. Expected the embedded "
            "encoder, or one under 'open_clip:' or 'hf:'. Choose one of those."
        )
    return module


class Given(nn.Module):
    """Replaces a network's vocabulary, and returns vectors that were computed before."""

    def __init__(self, vectors: Float[Tensor, "n t w"]) -> None:
        super().__init__()
        self.vectors = vectors

    def forward(self, ids: Int[Tensor, "n t"]) -> Float[Tensor, "n t w"]:
        return self.vectors


class OpenedText:
    """A text half that can be split between its vocabulary and its first layer."""

    module: nn.Module

    def embed(self, tokens: Tokenised) -> TokenEmbeddings:
        return embed(self.module, tokens)

    def encode_tokens(self, tokens: Tokenised | TokenEmbeddings) -> TokenVectors:
        return encode_tokens(self.module, tokens)


class ClipText(OpenedText):
    """The text half of CLIP-like encoders, with sentences and pictures in one space."""

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
        """The number of sentences longer than the network reads; 0 if that is unknown."""
        return self._n_cut(legible(texts))

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        n = self.batch_size
        parts = [self.module(*self.tokens(texts[i : i + n])) for i in range(0, len(texts), n)]
        return normalize(torch.cat(parts).float(), dim=-1)

    def project(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        return self.projection(pooled)
